//! A disk in memory that fails where it is told to, and forgets in a power cut what was not durable.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::disk::Disk;

/// What happens at an operation that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes.
    Cut,
    /// This one and so many more find the disk full.
    Full(u32),
    /// This one and so many more fail.
    Broken(u32),
}

#[derive(Clone, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Move {
    Made(PathBuf, usize),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
}

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    /// The names that survive, and what was done to them since.
    durable: BTreeMap<PathBuf, usize>,
    moves: Vec<Move>,
    operations: u32,
    fault: Option<(u32, Fault)>,
    is_off: bool,
    free: Option<u64>,
}

/// The disk.
#[derive(Clone, Default)]
pub struct Platter(Arc<Mutex<State>>);

impl Move {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Move::Made(path, file) => drop(names.insert(path.clone(), *file)),
            Move::Renamed(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Move::Removed(path) => drop(names.remove(path)),
        }
    }

    fn touches(&self, directory: &Path) -> bool {
        let within = |path: &Path| path.parent() == Some(directory);
        match self {
            Move::Made(path, _) | Move::Removed(path) => within(path),
            Move::Renamed(from, to) => within(from) || within(to),
        }
    }
}

impl Platter {
    /// Operations so far that changed something.
    pub fn operations(&self) -> u32 {
        self.0.lock().unwrap().operations
    }

    /// Something happens at this operation, counted from the first.
    pub fn inject(&self, operation: u32, fault: Fault) {
        self.0.lock().unwrap().fault = Some((operation, fault));
    }

    /// So many bytes are free; `None`: plenty.
    pub fn set_free(&self, free: Option<u64>) {
        self.0.lock().unwrap().free = free;
    }

    /// The names of the files in a directory.
    pub fn names(&self, directory: &Path) -> Vec<String> {
        let paths = self.list(directory).unwrap();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        paths.iter().map(name).collect()
    }

    /// Every file, in order.
    pub fn all(&self) -> Vec<PathBuf> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }

    /// Changes bytes behind everyone's back.
    pub fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock().unwrap();
        let file = state.names[path];
        change(&mut state.files[file].now);
        state.files[file].durable = state.files[file].now.clone();
    }

    /// The machine starts again after the power was cut: what was not durable may be there in part.
    pub fn restart(&self, random: &mut fastrand::Rng) {
        let mut state = self.0.lock().unwrap();
        let kept = random.usize(..=state.moves.len());
        let moves = std::mem::take(&mut state.moves);
        let mut names = std::mem::take(&mut state.durable);
        moves[..kept].iter().for_each(|one| one.apply(&mut names));
        for file in &mut state.files {
            if file.now != file.durable {
                file.now = torn(file, random);
                file.durable = file.now.clone();
            }
        }
        state.durable = names.clone();
        state.names = names;
        state.fault = None;
        state.is_off = false;
    }

    /// Counts, and lets the operation do how much of its bytes.
    fn step(&self) -> (std::sync::MutexGuard<'_, State>, io::Result<()>) {
        let mut state = self.0.lock().unwrap();
        state.operations += 1;
        let now = state.operations;
        let outcome = match state.fault {
            _ if state.is_off => Err(io::Error::other("there is no power")),
            Some((at, Fault::Cut)) if now >= at => {
                state.is_off = true;
                Err(io::Error::other("there is no power"))
            }
            Some((at, Fault::Full(more))) if (at..=at + more).contains(&now) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some((at, Fault::Broken(more))) if (at..=at + more).contains(&now) => {
                Err(io::Error::from_raw_os_error(5))
            }
            _ => Ok(()),
        };
        (state, outcome)
    }

    fn put(&self, path: &Path, bytes: &[u8], keeps: bool) -> io::Result<()> {
        let (mut state, outcome) = self.step();
        let file = match state.names.get(path) {
            Some(file) => *file,
            None => {
                state.files.push(File::default());
                let file = state.files.len() - 1;
                state.names.insert(path.to_owned(), file);
                state.moves.push(Move::Made(path.to_owned(), file));
                file
            }
        };
        let some = match outcome {
            Ok(()) => bytes,
            // What still went through.
            Err(_) => &bytes[..bytes.len() / 2],
        };
        let now = &mut state.files[file].now;
        if !keeps {
            now.clear();
        }
        now.extend_from_slice(some);
        outcome
    }
}

/// What a file has whose last bytes were not made durable.
fn torn(file: &File, random: &mut fastrand::Rng) -> Vec<u8> {
    let grew = file.now.starts_with(&file.durable);
    if !grew && random.bool() {
        return file.durable.clone();
    }
    let least = if grew { file.durable.len() } else { 0 };
    let mut bytes = file.now[..random.usize(least..=file.now.len())].to_vec();
    // A page of it may not have been written though a later one was.
    if bytes.len() > least && random.u8(..4) == 0 {
        let hole = random.usize(least..bytes.len());
        let end = (hole + 16).min(bytes.len());
        bytes[hole..end].fill(0);
    }
    bytes
}

impl Disk for Platter {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.put(path, bytes, false)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.put(path, bytes, true)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        let (mut state, outcome) = self.step();
        outcome?;
        let file = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        state.files[file].durable = state.files[file].now.clone();
        Ok(())
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, outcome) = self.step();
        outcome?;
        let moved = Move::Renamed(from.to_owned(), to.to_owned());
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        moved.apply(&mut state.names);
        state.moves.push(moved);
        Ok(())
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, outcome) = self.step();
        outcome?;
        if let Some(last) = state.moves.iter().rposition(|moved| moved.touches(path)) {
            let moves: Vec<Move> = state.moves.drain(..=last).collect();
            let mut durable = std::mem::take(&mut state.durable);
            moves.iter().for_each(|moved| moved.apply(&mut durable));
            state.durable = durable;
        }
        Ok(())
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let file = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.files[file].now.clone())
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.0.lock().unwrap();
        let within = state
            .names
            .keys()
            .filter(|name| name.parent() == Some(path));
        Ok(within.cloned().collect())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, outcome) = self.step();
        outcome?;
        let moved = Move::Removed(path.to_owned());
        moved.apply(&mut state.names);
        state.moves.push(moved);
        Ok(())
    }
    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn free(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().free.unwrap_or(1 << 40))
    }
}
