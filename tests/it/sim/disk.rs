//! The disk of the simulated gateway: it can stop at any operation, as a crash does, lose what was not made durable, as a
//! power cut does, and be full.
//!
//! Files lie in a real directory; what is not durable yet is noted beside it. A power cut takes back file contents and
//! entries that were not synced, and renames and removals from some point on, in the order a journal would. A process
//! that has crashed reaches the disk no more: each start gets a new [`SimDisk`] on the same [`Platter`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use lookoutd::feed::disk::{Disk, LocalDisk, STAGING};

use crate::rig::{Objects, objects_under};

/// What stays when a process ends.
pub struct Platter {
    state: Mutex<State>,
    /// Where removed things lie until their removal is durable.
    graveyard: PathBuf,
    crash: Box<dyn Fn() + Send + Sync>,
    order: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// The process that may write.
    epoch: u64,
    mounted: u64,
    /// Changing operations until it stops; 0: none.
    fuse: u32,
    /// Changing operations until somebody is told; 0: none.
    bell: u32,
    /// Contents that were not synced.
    unsynced: BTreeMap<PathBuf, usize>,
    /// Entries whose directory was not synced.
    created: Vec<PathBuf>,
    /// Renames and removals that were not synced, in their order.
    moved: Vec<Moved>,
    buried: u64,
    /// Bytes by file, and bytes that fit.
    sizes: BTreeMap<PathBuf, u64>,
    capacity: u64,
    sealed: Vec<(String, Objects)>,
    crowded: u64,
    min_free: u64,
    /// When the room was taken: a cut that began just then had looked before.
    filled: Option<Instant>,
}

/// From where to where.
type Moved = (PathBuf, PathBuf);

/// The disk as one process has it.
pub struct SimDisk {
    platter: Arc<Platter>,
    epoch: u64,
}

/// A cut looks for room and begins within this time.
const SINCE_FILLED: Duration = Duration::from_secs(1);
/// More than anything here needs.
const PLENTY: u64 = 1 << 40;

impl Platter {
    /// `crash` is called when a fuse has burnt down, `order` when the operation has come that somebody waits for.
    pub fn new(
        graveyard: PathBuf,
        crash: impl Fn() + Send + Sync + 'static,
        order: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Platter> {
        std::fs::create_dir_all(&graveyard).expect("a graveyard");
        Arc::new(Platter {
            state: Mutex::new(State {
                capacity: PLENTY,
                ..State::default()
            }),
            graveyard,
            crash: Box::new(crash),
            order: Box::new(order),
        })
    }

    /// A process starts; the one before can reach the disk no more.
    pub fn mount(self: &Arc<Self>) -> Arc<SimDisk> {
        let mut state = self.lock();
        state.mounted = state.epoch;
        Arc::new(SimDisk {
            platter: self.clone(),
            epoch: state.epoch,
        })
    }

    /// The process is gone.
    pub fn unplug(&self) {
        let mut state = self.lock();
        state.epoch += 1;
        (state.fuse, state.bell) = (0, 0);
    }

    /// Stop at the n-th changing operation from now, from 1.
    pub fn arm(&self, operation: u32) {
        self.lock().fuse = operation;
    }

    /// Tell when the n-th changing operation from now comes, from 1.
    pub fn wait_for(&self, operation: u32) {
        self.lock().bell = operation;
    }

    pub fn is_armed(&self) -> bool {
        let state = self.lock();
        state.fuse > 0 || state.bell > 0
    }

    /// Whether the process that mounted it last was stopped by a fuse.
    pub fn is_dead(&self) -> bool {
        let state = self.lock();
        state.epoch != state.mounted
    }

    /// Only `room` bytes are left.
    pub fn fill(&self, room: u64) {
        let mut state = self.lock();
        state.capacity = state.used() + room;
        state.filled = Some(Instant::now());
    }

    pub fn empty(&self) {
        self.lock().capacity = PLENTY;
    }

    pub fn is_full(&self) -> bool {
        let state = self.lock();
        state.free() < state.min_free
    }

    /// What `feed.min_free` says, to notice a cut that began below it.
    pub fn set_min_free(&self, bytes: u64) {
        self.lock().min_free = bytes;
    }

    /// Cuts that began although there was too little room.
    pub fn crowded(&self) -> u64 {
        self.lock().crowded
    }

    /// Windows sealed durably since the last call: name of the entry, files by their names.
    pub fn sealed(&self) -> Vec<(String, Objects)> {
        std::mem::take(&mut self.lock().sealed)
    }

    /// The power is cut: what was not durable may be lost.
    pub fn lose(&self, random: &mut fastrand::Rng) {
        let mut state = self.lock();
        let kept = random.usize(..=state.moved.len());
        while state.moved.len() > kept
            && let Some((from, to)) = state.moved.pop()
        {
            drop(LocalDisk.remove_dir(&from));
            std::fs::rename(&to, &from).expect("what was moved can be moved back");
            state.follow(&to, &from);
        }
        state.moved.clear();
        for path in std::mem::take(&mut state.created) {
            if random.bool() {
                drop(std::fs::remove_file(&path));
            }
        }
        for (path, length) in std::mem::take(&mut state.unsynced) {
            if let Ok(file) = std::fs::File::options().write(true).open(&path) {
                file.set_len(random.u64(..=length as u64))
                    .expect("a shorter file");
            }
        }
        state.settle();
    }

    /// The process crashed, but the machine runs on: everything written stays.
    pub fn keep(&self) {
        let mut state = self.lock();
        state.moved.clear();
        state.created.clear();
        state.unsynced.clear();
        state.settle();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn used(&self) -> u64 {
        self.sizes.values().sum()
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.used())
    }

    /// Everything noted under `from` lies under `to` now.
    fn follow(&mut self, from: &Path, to: &Path) {
        move_keys(&mut self.unsynced, from, to);
        move_keys(&mut self.sizes, from, to);
        for path in &mut self.created {
            if let Ok(rest) = path.strip_prefix(from) {
                *path = to.join(rest);
            }
        }
    }

    /// Sizes of what is not there any more are forgotten.
    fn settle(&mut self) {
        self.sizes.retain(|path, _| path.exists());
    }

    /// Everything moved into or out of `directory`, and what was moved before it, is durable.
    fn moves_are_durable(&mut self, directory: &Path, graveyard: &Path) {
        let touches = |path: &Path| path.parent() == Some(directory);
        if let Some(last) = self
            .moved
            .iter()
            .rposition(|(from, to)| touches(from) || touches(to))
        {
            for (from, to) in self.moved.drain(..=last) {
                let sealing =
                    file_name(&from).starts_with(STAGING) && !file_name(&to).starts_with(STAGING);
                if sealing && touches(&to) && to.is_dir() {
                    self.sealed.push((file_name(&to), objects_under(&to)));
                }
                if to.starts_with(graveyard) {
                    drop(LocalDisk.remove_dir(&to));
                }
            }
        }
    }
}

impl SimDisk {
    /// Lets a changing operation through, or stops the process at it.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.platter.lock();
        if state.epoch != self.epoch {
            return Err(io::Error::other("the process is gone"));
        }
        if state.bell > 0 {
            state.bell -= 1;
            if state.bell == 0 {
                (self.platter.order)();
            }
        }
        if state.fuse > 0 {
            state.fuse -= 1;
            if state.fuse == 0 {
                state.epoch += 1;
                (self.platter.crash)();
                return Err(io::Error::other("the process is gone"));
            }
        }
        Ok(state)
    }
}

impl Disk for SimDisk {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        let room = state.free() + state.sizes.get(path).copied().unwrap_or(0);
        let fits = (bytes.len() as u64).min(room) as usize;
        if !path.exists() {
            state.created.push(path.to_owned());
        }
        LocalDisk.write(path, &bytes[..fits])?;
        state.unsynced.insert(path.to_owned(), fits);
        state.sizes.insert(path.to_owned(), fits as u64);
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        let before = state.sizes.get(path).copied().unwrap_or(0);
        let fits = (bytes.len() as u64).min(state.free()) as usize;
        if !path.exists() {
            state.created.push(path.to_owned());
        }
        LocalDisk.append(path, &bytes[..fits])?;
        // All of it counts as lost in a power cut, as after a write: less than a real disk keeps.
        let length = before + fits as u64;
        state.unsynced.insert(path.to_owned(), length as usize);
        state.sizes.insert(path.to_owned(), length);
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.step()?.unsynced.remove(path);
        Ok(())
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let knew = state.filled.is_some_and(|at| at.elapsed() > SINCE_FILLED);
        if file_name(path).starts_with(STAGING) && knew && state.free() < state.min_free {
            state.crowded += 1;
        }
        LocalDisk.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        LocalDisk.rename(from, to)?;
        state.follow(from, to);
        state.moved.push((from.to_owned(), to.to_owned()));
        Ok(())
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state
            .created
            .retain(|created| created.parent() != Some(path));
        state.moves_are_durable(path, &self.platter.graveyard);
        Ok(())
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        LocalDisk.read(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        LocalDisk.list(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.remove_dir(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        if !path.exists() {
            return Ok(());
        }
        state.buried += 1;
        let grave = self.platter.graveyard.join(state.buried.to_string());
        LocalDisk.rename(path, &grave)?;
        state.follow(path, &grave);
        state.sizes.retain(|file, _| !file.starts_with(&grave));
        state.moved.push((path.to_owned(), grave));
        Ok(())
    }
    fn free(&self, _: &Path) -> io::Result<u64> {
        Ok(self.platter.lock().free())
    }
}

fn move_keys<T>(map: &mut BTreeMap<PathBuf, T>, from: &Path, to: &Path) {
    let below: Vec<PathBuf> = map
        .range(from.to_owned()..)
        .map(|(path, _)| path.clone())
        .take_while(|path| path.starts_with(from))
        .collect();
    for path in below {
        if let (Some(value), Ok(rest)) = (map.remove(&path), path.strip_prefix(from)) {
            map.insert(to.join(rest), value);
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
