//! What objects hold: bytes in a row, a file named by its content, or the pieces of a multipart upload.
//!
//! Guarantees: a file is synced, then named, then its name synced, before a row says that it is there; bytes that come in
//! once more take the place of the file that has their name, so that what was damaged is whole again; a file is removed after
//! the commit that takes its last row away, and not while somebody reads it. Every block has a checksum, taken as the bytes
//! came in and compared whenever they are read; a part of a body is read in whole blocks.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum, Md5};

use super::commit::Turn;
use super::{Fault, Options, Problem, Step};
use crate::hold;

/// The largest body that lies in its row.
pub const IN_ROW: usize = 64 << 10;
/// So much of the disk is left for deletions.
const SPARED: u64 = 16 << 20;
/// What one checksum is of.
const BLOCK: usize = 256 << 10;
/// What is read at once.
const BLOCKS_AT_ONCE: usize = 4;
/// Files in the making, in the directory of bodies.
const MAKING: &str = "making-";

/// The directory of the larger bodies.
pub struct Files {
    directory: PathBuf,
    fault: Option<Fault>,
    free_of: fn(&Path) -> Option<u64>,
    next: AtomicU64,
    /// Names that are being read, and how often.
    pinned: Mutex<HashMap<String, usize>>,
    /// Names that may be removed.
    doomed: Mutex<Vec<String>>,
    gate: RwLock<()>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// A body that is coming in.
pub struct Intake {
    files: Arc<Files>,
    md5: Md5,
    content: blake3::Hasher,
    asked: ChecksumHasher,
    sums: Vec<u8>,
    block: crc32fast::Hasher,
    in_block: usize,
    size: u64,
    held: Vec<u8>,
    file: Option<(File, Making)>,
}

/// A body that has come in and belongs to nothing yet; what lies on disk of it goes when it is dropped.
pub struct Draft {
    /// Its bytes.
    pub size: u64,
    /// The MD5 sum of them.
    pub md5: [u8; 16],
    /// The checksums that were asked for.
    pub checksums: s3s::dto::Checksum,
    sums: Vec<u8>,
    content: Content,
}

enum Content {
    Row(Vec<u8>),
    File(Making, String),
}

/// A file in the making.
struct Making(PathBuf);

/// Parts of bodies, in the order in which they are read.
#[derive(Debug, Default)]
pub struct Spans(Vec<Span>);

#[derive(Debug)]
struct Span {
    lies: Lies,
    size: u64,
    sums: Vec<u8>,
    wanted: Range<u64>,
}

#[derive(Debug)]
enum Lies {
    Row(Vec<u8>),
    File(String),
}

/// Spans that are being read; their files stay until it is dropped.
pub struct Reading {
    files: Arc<Files>,
    spans: std::vec::IntoIter<Span>,
    open: Option<(File, Span)>,
    pins: Vec<String>,
}

impl Files {
    pub(super) fn open(directory: &Path, options: &Options) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            fault: options.fault.clone(),
            free_of: options.free_of,
            ..Self::look(directory)
        })
    }

    /// For reading what is there, if it is.
    pub(super) fn look(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            fault: None,
            free_of: |_| None,
            next: AtomicU64::new(0),
            pinned: Mutex::default(),
            doomed: Mutex::default(),
            gate: RwLock::default(),
        }
    }

    pub(super) fn step(&self, step: Step) -> io::Result<()> {
        self.fault.as_ref().map_or(Ok(()), |fault| fault(step))
    }

    /// Refuses what is new while there is still room for the database to take in what was acknowledged: a disk that is full to
    /// the last byte could not even delete.
    fn refuse_if_full(&self) -> io::Result<()> {
        match (self.free_of)(&self.directory) {
            Some(free) if free < SPARED => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// Held while bodies are looked up and pinned.
    pub(super) fn gate(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn doom(&self, names: Vec<String>) {
        let mut doomed = self.doomed.lock().unwrap_or_else(PoisonError::into_inner);
        doomed.extend(names);
    }

    /// Removes files that no row names and nobody reads. The writer's thread alone does this.
    pub(super) fn remove_doomed(&self, db: &Connection) {
        let mut doomed = {
            let mut doomed = self.doomed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *doomed)
        };
        if doomed.is_empty() {
            return;
        }
        if self.is_held() {
            self.doom(doomed);
            return;
        }
        // Lookups that saw the rows have pinned what they want; later ones do not see them.
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        doomed.retain(|name| {
            if pinned.contains_key(name) {
                return true;
            }
            let named = db
                .prepare_cached("SELECT 1 FROM bodies WHERE name = ?1")
                .and_then(|mut find| find.exists([name]));
            if matches!(named, Ok(false)) && self.step(Step::Remove).is_ok() {
                let _ = std::fs::remove_file(self.directory.join(name));
            }
            false
        });
        drop(pinned);
        self.doom(doomed);
    }

    /// At a start: what was in the making, and what no row names, was never acknowledged.
    pub(super) fn sweep(&self, db: &Connection) -> Result<(), Problem> {
        if self.is_held() {
            return Ok(());
        }
        let mut find = db.prepare("SELECT 1 FROM bodies WHERE name = ?1")?;
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_ours = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if name.starts_with(MAKING) || (is_ours && !find.exists([&*name])?) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Whether somebody copies the store.
    fn is_held(&self) -> bool {
        self.directory.parent().is_some_and(hold::is_held)
    }

    /// The bytes of all files.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        if !self.directory.exists() {
            return Ok(0);
        }
        for entry in std::fs::read_dir(&self.directory)? {
            bytes += entry?.metadata().map_or(0, |file| file.len());
        }
        Ok(bytes)
    }

    fn making(&self) -> Making {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Making(self.directory.join(format!("{MAKING}{number}")))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // After it has got its name it is no longer there.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Intake {
    /// For a body whose checksums of these kinds are wanted.
    pub fn new(files: &Arc<Files>, asked: ChecksumHasher) -> Self {
        Self {
            files: files.clone(),
            md5: Md5::new(),
            content: blake3::Hasher::new(),
            asked,
            sums: Vec::new(),
            block: crc32fast::Hasher::new(),
            in_block: 0,
            size: 0,
            held: Vec::new(),
            file: None,
        }
    }

    /// The next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.md5.update(bytes);
        self.asked.update(bytes);
        self.content.update(bytes);
        self.size += bytes.len() as u64;
        let mut left = bytes;
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(BLOCK - self.in_block));
            self.block.update(now);
            self.in_block += now.len();
            if self.in_block == BLOCK {
                self.end_block();
            }
            left = later;
        }
        if self.file.is_none() && self.held.len() + bytes.len() <= IN_ROW {
            self.held.extend_from_slice(bytes);
            return Ok(());
        }
        self.files.refuse_if_full()?;
        self.files.step(Step::Write)?;
        let (file, _) = match &mut self.file {
            Some(file) => file,
            none => {
                let making = self.files.making();
                let mut file = File::create(&making.0)?;
                file.write_all(&std::mem::take(&mut self.held))?;
                none.insert((file, making))
            }
        };
        file.write_all(bytes)
    }

    fn end_block(&mut self) {
        let block = std::mem::replace(&mut self.block, crc32fast::Hasher::new());
        self.sums.extend_from_slice(&block.finalize().to_le_bytes());
        self.in_block = 0;
    }

    /// All has come in; what is a file is on disk when this returns.
    pub fn finish(mut self) -> io::Result<Draft> {
        if self.in_block > 0 {
            self.end_block();
        }
        let content = match self.file {
            None => Content::Row(self.held),
            Some((file, making)) => {
                self.files.step(Step::SyncFile)?;
                file.sync_all()?;
                Content::File(making, self.content.finalize().to_hex().to_string())
            }
        };
        Ok(Draft {
            size: self.size,
            md5: self.md5.finalize(),
            checksums: self.asked.finalize(),
            sums: self.sums,
            content,
        })
    }
}

impl Draft {
    /// Puts it into the database, for one owner.
    pub(super) fn keep(self, turn: &mut Turn<'_>) -> Result<i64, Problem> {
        turn.files.refuse_if_full()?;
        turn.kept = true;
        let db = turn.db;
        let insert = "INSERT INTO bodies (size, sums, refs, name, data) VALUES (?1, ?2, 1, ?3, ?4)";
        let mut insert = db.prepare_cached(insert)?;
        match self.content {
            Content::Row(data) => {
                insert.execute(params![self.size as i64, self.sums, None::<String>, data])?;
            }
            Content::File(making, name) => {
                let known: Option<i64> = db
                    .prepare_cached("SELECT id FROM bodies WHERE name = ?1")?
                    .query_row([&name], |row| row.get(0))
                    .optional()?;
                // Whatever comes of this transaction, a name without a row goes.
                turn.doomed.push(name.clone());
                turn.files.step(Step::Rename)?;
                // Also over a file that has this name: it may be damaged, and these bytes are known to be whole.
                std::fs::rename(&making.0, turn.files.directory.join(&name))?;
                turn.files.step(Step::SyncDirectory)?;
                File::open(&turn.files.directory)?.sync_all()?;
                if let Some(body) = known {
                    let anew =
                        "UPDATE bodies SET refs = refs + 1, size = ?2, sums = ?3 WHERE id = ?1";
                    db.prepare_cached(anew)?
                        .execute(params![body, self.size as i64, self.sums])?;
                    return Ok(body);
                }
                insert.execute(params![self.size as i64, self.sums, name, None::<Vec<u8>>])?;
            }
        }
        Ok(db.last_insert_rowid())
    }
}

/// One owner more.
pub(super) fn share(db: &Connection, body: i64) -> Result<(), Problem> {
    db.prepare_cached("UPDATE bodies SET refs = refs + 1 WHERE id = ?1")?
        .execute([body])?;
    Ok(())
}

/// One owner less; the last takes it away.
pub(super) fn release(turn: &mut Turn<'_>, body: i64) -> Result<(), Problem> {
    let db = turn.db;
    let (refs, name, is_row): (i64, Option<String>, bool) = db
        .prepare_cached(
            "UPDATE bodies SET refs = refs - 1 WHERE id = ?1 RETURNING refs, name, data IS NOT NULL",
        )?
        .query_row([body], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if refs > 0 {
        return Ok(());
    }
    db.prepare_cached("DELETE FROM bodies WHERE id = ?1")?
        .execute([body])?;
    if let Some(name) = name {
        turn.doomed.push(name);
    } else if !is_row {
        let pieces: Vec<i64> = db
            .prepare_cached("DELETE FROM pieces WHERE whole = ?1 RETURNING body")?
            .query_map([body], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for piece in pieces {
            release(turn, piece)?;
        }
    }
    Ok(())
}

impl Spans {
    /// More, behind these.
    pub fn append(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// The bytes `wanted` of a body.
    pub fn of(db: &Connection, body: i64, wanted: Range<u64>) -> Result<Self, Problem> {
        let mut spans = Vec::new();
        if wanted.is_empty() {
            return Ok(Self(spans));
        }
        let (size, sums, name, data) = db
            .prepare_cached("SELECT size, sums, name, data FROM bodies WHERE id = ?1")?
            .query_row([body], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, Vec<u8>>(1)?,
                    row.get::<_, Option<String>>(2)?,
                    row.get::<_, Option<Vec<u8>>>(3)?,
                ))
            })
            .optional()?
            .ok_or_else(|| Problem::Damaged(format!("body {body} is gone")))?;
        let size = size as u64;
        let lies = match (data, name) {
            (Some(data), _) => Lies::Row(data),
            (None, Some(name)) => Lies::File(name),
            (None, None) => {
                let pieces: Vec<(i64, u64, u64)> = db
                    .prepare_cached(
                        "SELECT body, start, size FROM pieces WHERE whole = ?1 AND start < ?3 AND start + size > ?2
                         ORDER BY number",
                    )?
                    .query_map(params![body, wanted.start as i64, wanted.end as i64], |row| {
                        Ok((row.get(0)?, row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64))
                    })?
                    .collect::<Result<_, _>>()?;
                for (piece, start, size) in pieces {
                    let from = wanted.start.saturating_sub(start);
                    let to = (wanted.end - start).min(size);
                    spans.extend(Self::of(db, piece, from..to)?.0);
                }
                return Ok(Self(spans));
            }
        };
        spans.push(Span {
            lies,
            size,
            sums,
            wanted,
        });
        Ok(Self(spans))
    }
}

impl Reading {
    pub(super) fn new(files: &Arc<Files>, spans: Spans) -> Self {
        let pins: Vec<String> = spans.0.iter().filter_map(|span| span.name()).collect();
        if !pins.is_empty() {
            let mut pinned = files.pinned.lock().unwrap_or_else(PoisonError::into_inner);
            for name in &pins {
                *pinned.entry(name.clone()).or_default() += 1;
            }
        }
        Self {
            files: files.clone(),
            spans: spans.0.into_iter(),
            open: None,
            pins,
        }
    }

    /// The next verified bytes, or `None` at the end.
    pub fn read_on(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            if let Some((file, span)) = &mut self.open {
                if !span.wanted.is_empty() {
                    return span.read(file).map(Some);
                }
                self.open = None;
            }
            let Some(span) = self.spans.next() else {
                return Ok(None);
            };
            match &span.lies {
                Lies::Row(data) => {
                    if data.len() as u64 != span.size {
                        return Err(Problem::Damaged("a body in its row was cut short".into()));
                    }
                    verify(data, &span.sums, "a body in its row")?;
                    let (from, to) = (span.wanted.start as usize, span.wanted.end as usize);
                    let cut = data.get(from..to).unwrap_or_default();
                    return Ok(Some(Bytes::copy_from_slice(cut)));
                }
                Lies::File(name) => {
                    let file = match File::open(self.files.directory.join(name)) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            return Err(Problem::Damaged(format!("the body {name} is gone")));
                        }
                        file => file?,
                    };
                    self.open = Some((file, span));
                }
            }
        }
    }

    /// Reads all of it and keeps nothing.
    pub fn check(mut self) -> Result<(), Problem> {
        while self.read_on()?.is_some() {}
        Ok(())
    }

    /// All of it at once.
    pub fn read_all(mut self) -> Result<Vec<u8>, Problem> {
        let mut all = Vec::new();
        while let Some(bytes) = self.read_on()? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.pins.is_empty() {
            return;
        }
        let pinned = self.files.pinned.lock();
        let mut pinned = pinned.unwrap_or_else(PoisonError::into_inner);
        for name in &self.pins {
            if let Some(count) = pinned.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    pinned.remove(name);
                }
            }
        }
    }
}

impl Span {
    fn name(&self) -> Option<String> {
        match &self.lies {
            Lies::File(name) => Some(name.clone()),
            Lies::Row(_) => None,
        }
    }

    /// The next blocks of a file; what is wanted of them.
    fn read(&mut self, file: &mut File) -> Result<Bytes, Problem> {
        let name = self.name().unwrap_or_default();
        let block = self.wanted.start / BLOCK as u64;
        let begin = block * BLOCK as u64;
        let end = (begin + (BLOCK * BLOCKS_AT_ONCE) as u64).min(self.size);
        // No more blocks than are wanted.
        let last = self.wanted.end.div_ceil(BLOCK as u64) * BLOCK as u64;
        let end = end.min(last);
        let mut bytes = vec![0; (end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                return Problem::Damaged(format!("the body {name} was cut short"));
            }
            error.into()
        })?;
        let sums = self.sums.get(block as usize * 4..).unwrap_or_default();
        verify(&bytes, sums, &name)?;
        let from = (self.wanted.start - begin) as usize;
        let to = (self.wanted.end.min(end) - begin) as usize;
        self.wanted.start = self.wanted.end.min(end);
        Ok(Bytes::from(bytes).slice(from..to))
    }
}

/// Compares whole blocks with their checksums.
fn verify(bytes: &[u8], sums: &[u8], what: &str) -> Result<(), Problem> {
    let mut sums = sums.chunks_exact(4);
    for block in bytes.chunks(BLOCK) {
        let found = crc32fast::hash(block).to_le_bytes();
        if sums.next() != Some(&found[..]) {
            return Err(Problem::Damaged(format!("{what} is not what was stored")));
        }
    }
    Ok(())
}
