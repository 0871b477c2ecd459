//! Segments: files that never change, with every version of every sample of a range of positions, sorted by signal and time.
//!
//! ```text
//! seg-{first position}-{position after the last}, 16 hexadecimal digits each:
//! MAGIC, blocks, index, hours, foot
//! block: BLOCK, length u32, crc u32 of what follows; the samples of one signal within one hour, 4,096 at most
//! ```
//!
//! Guarantees: what a segment has of some signals in some minutes is read without the rest; reading takes any bytes. A block
//! says itself what it has, so that a damaged index is made again from the blocks, and a damaged block costs itself alone.

use std::io;
use std::path::{Path, PathBuf};

use super::coding::{Bytes, put, put_signed};
use super::table::{Entry, Key, Said};
use crate::disk::Disk;

/// Nanoseconds of an hour.
pub(super) const HOUR: i64 = 3_600_000_000_000;
const MAGIC: &[u8; 8] = b"LKDSEG1\n";
const BLOCK: [u8; 4] = [0xf7, b'L', b'B', 0x1d];
const HEAD: usize = 12;
const END: &[u8; 8] = b"LKDFOOT1";
/// Seven numbers of 8 bytes, four of 4, END.
const FOOT: usize = 7 * 8 + 4 * 4 + 8;
/// Foot and hours are mostly within this much of the end.
const TAIL: usize = 4096;
/// Samples of a block.
const MOST: usize = 4096;
/// Blocks that lie this near each other are read at once, as far as the reading stays below the other.
const GAP: u64 = 4096;
const AT_ONCE: u64 = 1 << 20;
const ALIVE: u8 = 1 << 6;
const MISSING: u8 = 1 << 7;

/// A segment, as much of it as is kept in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub path: PathBuf,
    pub first: u64,
    pub end: u64,
    pub least: i64,
    pub most: i64,
    pub samples: u64,
    pub bytes: u64,
    pub top_signal: u32,
    /// Hours since 1970 with a sample, and how many.
    pub hours: Vec<(i64, u64)>,
    index: (u64, u32, u32),
}

/// Where a block is, and what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub signal: u32,
    pub least: i64,
    pub most: i64,
    pub at: u64,
    pub length: u32,
}

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its bytes are not those that were written.
    #[error("{0}")]
    Damaged(&'static str),
}

/// The name of the segment of these positions.
pub(super) fn name(first: u64, end: u64) -> String {
    format!("seg-{first:016x}-{end:016x}")
}

/// The positions that a name tells.
pub(super) fn named(path: &Path) -> Option<(u64, u64)> {
    let name = path.file_name()?.to_str()?.strip_prefix("seg-")?;
    let (first, end) = name.split_once('-')?;
    let is_whole = first.len() == 16 && end.len() == 16;
    let number = |text| u64::from_str_radix(text, 16).ok();
    is_whole.then_some(())?;
    Some((number(first)?, number(end)?))
}

/// The bytes of a segment of versions in order; the segment's path is its name alone.
pub(super) fn encode(
    first: u64,
    end: u64,
    entries: impl Iterator<Item = Entry>,
) -> (Vec<u8>, Segment) {
    let mut making = Making {
        out: MAGIC.to_vec(),
        first,
        blocks: Vec::new(),
        hours: Default::default(),
        samples: 0,
    };
    let mut run: Vec<Entry> = Vec::new();
    for entry in entries {
        if let Some((key, _)) = run.last() {
            let together = key.signal == entry.0.signal
                && key.time.div_euclid(HOUR) == entry.0.time.div_euclid(HOUR);
            if !together || run.len() == MOST {
                making.block(&run);
                run.clear();
            }
        }
        run.push(entry);
    }
    making.block(&run);
    making.finish(end)
}

struct Making {
    out: Vec<u8>,
    first: u64,
    blocks: Vec<Block>,
    hours: std::collections::BTreeMap<i64, u64>,
    samples: u64,
}

impl Making {
    fn block(&mut self, run: &[Entry]) {
        let (Some((least, _)), Some((most, _))) = (run.first(), run.last()) else {
            return;
        };
        let at = self.out.len();
        self.out.extend_from_slice(&[0; HEAD]);
        put_samples(&mut self.out, self.first, run);
        let body = &self.out[at + HEAD..];
        let length = (body.len() as u32).to_le_bytes();
        let sum = checksum(length, body).to_le_bytes();
        self.out[at..at + 4].copy_from_slice(&BLOCK);
        self.out[at + 4..at + 8].copy_from_slice(&length);
        self.out[at + 8..at + HEAD].copy_from_slice(&sum);
        self.blocks.push(Block {
            signal: least.signal,
            least: least.time,
            most: most.time,
            at: at as u64,
            length: (self.out.len() - at) as u32,
        });
        *self.hours.entry(least.time.div_euclid(HOUR)).or_default() += run.len() as u64;
        self.samples += run.len() as u64;
    }

    fn finish(mut self, end: u64) -> (Vec<u8>, Segment) {
        let index = index_bytes(&self.blocks);
        let mut hours = Vec::new();
        put(&mut hours, self.hours.len() as u64);
        for (hour, count) in &self.hours {
            put_signed(&mut hours, *hour);
            put(&mut hours, *count);
        }
        let index_at = self.out.len() as u64;
        self.out.extend_from_slice(&index);
        self.out.extend_from_slice(&hours);
        let least = self.blocks.iter().map(|block| block.least).min();
        let most = self.blocks.iter().map(|block| block.most).max();
        let top_signal = self.blocks.last().map_or(0, |block| block.signal);
        let mut segment = Segment {
            path: PathBuf::from(name(self.first, end)),
            first: self.first,
            end,
            least: least.unwrap_or(0),
            most: most.unwrap_or(0),
            samples: self.samples,
            bytes: 0,
            top_signal,
            hours: self.hours.into_iter().collect(),
            index: (index_at, index.len() as u32, crc32fast::hash(&index)),
        };
        let foot = self.out.len();
        for number in [self.first, end, self.samples, index_at] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [segment.least, segment.most, hours.len() as i64] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [segment.index.1, segment.index.2, top_signal] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&hours);
        hasher.update(&self.out[foot..]);
        self.out.extend_from_slice(&hasher.finalize().to_le_bytes());
        self.out.extend_from_slice(END);
        segment.bytes = self.out.len() as u64;
        (self.out, segment)
    }
}

fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(body);
    hasher.finalize()
}

fn index_bytes(blocks: &[Block]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, blocks.len() as u64);
    let (mut signal, mut least) = (0, 0i64);
    for block in blocks {
        put(&mut out, u64::from(block.signal - signal));
        put(&mut out, u64::from(block.length));
        put_signed(&mut out, block.least.wrapping_sub(least));
        put(&mut out, block.most.wrapping_sub(block.least) as u64);
        (signal, least) = (block.signal, block.least);
    }
    out
}

fn index_of(bytes: &[u8]) -> Option<Vec<Block>> {
    let mut bytes = Bytes(bytes);
    let count = usize::try_from(bytes.number()?).ok()?;
    let mut blocks = Vec::with_capacity(count.min(bytes.0.len()));
    let (mut signal, mut least, mut at) = (0u32, 0i64, MAGIC.len() as u64);
    for _ in 0..count {
        signal = signal.checked_add(u32::try_from(bytes.number()?).ok()?)?;
        let length = u32::try_from(bytes.number()?).ok()?;
        least = least.wrapping_add(bytes.signed()?);
        let most = least.wrapping_add(bytes.number()? as i64);
        blocks.push(Block {
            signal,
            least,
            most,
            at,
            length,
        });
        at = at.checked_add(u64::from(length))?;
    }
    bytes.0.is_empty().then_some(blocks)
}

/// The samples of one signal: times in their coarsest unit, as the change of their distance; positions; marks; values.
fn put_samples(out: &mut Vec<u8>, base: u64, run: &[Entry]) {
    let Some(((first, said), rest)) = run.split_first() else {
        return;
    };
    let unit = [1_000_000_000, 1_000_000, 1000]
        .into_iter()
        .find(|unit| run.iter().all(|(key, _)| key.time % unit == 0))
        .unwrap_or(1);
    put(out, u64::from(first.signal));
    put(out, base);
    put(out, run.len() as u64);
    put(out, unit as u64);
    put_signed(out, first.time / unit);
    let (mut time, mut step) = (first.time / unit, 0i64);
    for (key, _) in rest {
        let next = (key.time / unit).wrapping_sub(time);
        put_signed(out, next.wrapping_sub(step));
        (time, step) = (key.time / unit, next);
    }
    let (mut position, mut step) = (base, 0i64);
    for (key, _) in run {
        let next = key.position.wrapping_sub(position) as i64;
        put_signed(out, next.wrapping_sub(step));
        (position, step) = (key.position, next);
    }
    let marks = |(key, said): &Entry| {
        let alive = if key.kind == 1 { ALIVE } else { 0 };
        let missing = if said.value.is_nan() { MISSING } else { 0 };
        said.marks | alive | missing
    };
    let same = marks(&(*first, *said));
    if run.iter().all(|entry| marks(entry) == same) {
        out.extend_from_slice(&[1, same]);
    } else {
        out.push(0);
        out.extend(run.iter().map(marks));
    }
    for (_, said) in run.iter().filter(|(_, said)| !said.value.is_nan()) {
        out.extend_from_slice(&said.value.to_le_bytes());
    }
}

fn samples(mut body: Bytes<'_>) -> Option<Vec<Entry>> {
    let signal = u32::try_from(body.number()?).ok()?;
    let mut position = body.number()?;
    let count = usize::try_from(body.number()?)
        .ok()
        .filter(|count| *count <= MOST)?;
    let unit = i64::try_from(body.number()?).ok()?;
    let mut time = body.signed()?;
    let mut times = Vec::with_capacity(count);
    let mut step = 0i64;
    for at in 0..count {
        if at > 0 {
            step = step.wrapping_add(body.signed()?);
            time = time.wrapping_add(step);
        }
        times.push(time.checked_mul(unit)?);
    }
    let mut step = 0i64;
    let mut entries = Vec::with_capacity(count);
    for time in times {
        step = step.wrapping_add(body.signed()?);
        position = position.wrapping_add(step as u64);
        let key = Key {
            signal,
            time,
            kind: 0,
            position,
        };
        let value = f64::NAN;
        entries.push((key, Said { value, marks: 0 }));
    }
    match body.byte()? {
        1 => {
            let same = body.byte()?;
            entries.iter_mut().for_each(|(_, said)| said.marks = same);
        }
        _ => {
            let marks = body.take(count)?;
            for ((_, said), marks) in entries.iter_mut().zip(marks) {
                said.marks = *marks;
            }
        }
    }
    for (key, said) in &mut entries {
        if said.marks & MISSING == 0 {
            said.value = body.f64()?;
        }
        key.kind = u8::from(said.marks & ALIVE != 0);
        said.marks &= !(ALIVE | MISSING);
    }
    body.0.is_empty().then_some(entries)
}

/// The samples of the block that these bytes begin with, and its length.
fn block(bytes: &[u8]) -> Option<(Vec<Entry>, usize)> {
    let mut head = Bytes(bytes);
    if head.take(4)? != BLOCK {
        return None;
    }
    let length = head.u32()?;
    let sum = head.u32()?;
    let body = head.take(usize::try_from(length).ok()?)?;
    if checksum(length.to_le_bytes(), body) != sum {
        return None;
    }
    Some((samples(Bytes(body))?, HEAD + body.len()))
}

impl Segment {
    /// Looks at the end of a file.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Segment, Unreadable> {
        let damaged = || Unreadable::Damaged("its end is not as it was written");
        let bytes = disk.length(path)?;
        let tail = bytes.min(TAIL as u64);
        let mut end = disk.read_at(path, bytes - tail, tail as usize)?;
        let hours = hours_length(&end).ok_or_else(damaged)?;
        let needed = (hours as u64).saturating_add(FOOT as u64);
        if needed > bytes {
            return Err(damaged());
        }
        if needed > tail {
            end = disk.read_at(path, bytes - needed, needed as usize)?;
        }
        let start = end.len().checked_sub(needed as usize).ok_or_else(damaged)?;
        let segment = foot(&end[start..], hours, path, bytes).ok_or_else(damaged)?;
        match named(path) == Some((segment.first, segment.end)) {
            true => Ok(segment),
            false => Err(Unreadable::Damaged("its name is not that of what it has")),
        }
    }

    /// Where its blocks are.
    pub fn index(&self, disk: &dyn Disk) -> Result<Vec<Block>, Unreadable> {
        let (at, length, sum) = self.index;
        let bytes = disk.read_at(&self.path, at, length as usize)?;
        let is_whole = bytes.len() == length as usize && crc32fast::hash(&bytes) == sum;
        is_whole
            .then(|| index_of(&bytes))
            .flatten()
            .ok_or(Unreadable::Damaged("its index is not as it was written"))
    }

    /// The samples of these blocks, which are in the order of the index; each block that is damaged is told.
    pub fn samples(
        &self,
        disk: &dyn Disk,
        blocks: &[Block],
        mut damaged: impl FnMut(&Block),
        mut each: impl FnMut(Entry),
    ) -> io::Result<()> {
        let mut left = blocks;
        while let Some(first) = left.first() {
            let mut end = first.at + u64::from(first.length);
            let together = left[1..]
                .iter()
                .take_while(|block| {
                    let next = block.at + u64::from(block.length);
                    let near = block.at >= end && block.at - end <= GAP;
                    let fits = near && next - first.at <= AT_ONCE;
                    if fits {
                        end = next;
                    }
                    fits
                })
                .count();
            let (now, rest) = left.split_at(1 + together);
            let bytes = disk.read_at(&self.path, first.at, (end - first.at) as usize)?;
            for of in now {
                let at = (of.at - first.at) as usize;
                match bytes.get(at..).and_then(block) {
                    Some((entries, _)) => entries.into_iter().for_each(&mut each),
                    None => damaged(of),
                }
            }
            left = rest;
        }
        Ok(())
    }
}

/// How many bytes the hours take, as the foot at the end says.
fn hours_length(end: &[u8]) -> Option<usize> {
    let foot = end.get(end.len().checked_sub(FOOT)?..)?;
    if !foot.ends_with(END) {
        return None;
    }
    let mut bytes = Bytes(foot.get(48..)?);
    usize::try_from(bytes.i64()?).ok()
}

fn foot(bytes: &[u8], hours: usize, path: &Path, length: u64) -> Option<Segment> {
    let (hours, foot) = bytes.split_at_checked(hours)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(hours);
    hasher.update(foot.get(..FOOT - 12)?);
    let sum = hasher.finalize();
    let mut foot = Bytes(foot);
    let [first, end, samples, index] = [foot.u64()?, foot.u64()?, foot.u64()?, foot.u64()?];
    let [least, most, _] = [foot.i64()?, foot.i64()?, foot.i64()?];
    let [index_length, index_sum, top_signal] = [foot.u32()?, foot.u32()?, foot.u32()?];
    if foot.u32()? != sum {
        return None;
    }
    let mut hours = Bytes(hours);
    let count = hours.number()?;
    let hours: Option<Vec<_>> = (0..count)
        .map(|_| Some((hours.signed()?, hours.number()?)))
        .collect();
    Some(Segment {
        path: path.to_owned(),
        first,
        end,
        least,
        most,
        samples,
        bytes: length,
        top_signal,
        hours: hours?,
        index: (index, index_length, index_sum),
    })
}

/// Every block that can be found in a segment's bytes, whatever its index says, in order, and the bytes that are none.
pub(super) fn blocks(bytes: &[u8]) -> (Vec<Block>, usize) {
    let (mut blocks, mut at, mut lost) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        if let Some((entries, length)) = block(&bytes[at..]) {
            if let (Some((least, _)), Some((most, _))) = (entries.first(), entries.last()) {
                blocks.push(Block {
                    signal: least.signal,
                    least: least.time,
                    most: most.time,
                    at: at as u64,
                    length: length as u32,
                });
            }
            at += length;
            continue;
        }
        let rest = &bytes[at + 1..];
        let next = rest.windows(BLOCK.len()).position(|window| window == BLOCK);
        let skipped = 1 + next.unwrap_or(rest.len());
        lost += skipped;
        at += skipped;
    }
    (blocks, lost)
}

/// Every sample that can be found in a segment's bytes, and the bytes that are no block.
pub(super) fn salvage(bytes: &[u8]) -> (Vec<Entry>, usize) {
    let (blocks, lost) = blocks(bytes);
    let entries = blocks
        .iter()
        .filter_map(|found| block(&bytes[found.at as usize..]))
        .flat_map(|(entries, _)| entries);
    (entries.collect(), lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;

    fn entries() -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..20_000u64)
            .map(|position| {
                let signal = (position % 3) as u32 * 5;
                let step = if signal == 5 {
                    1_000_000_007
                } else {
                    1_000_000_000
                };
                let key = Key {
                    signal,
                    time: 1_700_000_000_000_000_000 + (position as i64 / 4) * step,
                    kind: u8::from(position % 50 == 49),
                    position: 1000 + position,
                };
                let missing = position % 7 == 0;
                let value = if missing {
                    f64::NAN
                } else {
                    position as f64 / 3.0
                };
                let marks = if signal == 10 {
                    1
                } else {
                    (position % 3) as u8
                };
                (key, Said { value, marks })
            })
            .collect();
        entries.sort_by_key(|(key, _)| *key);
        entries
    }

    fn shown(entries: &[Entry]) -> Vec<String> {
        entries
            .iter()
            .map(|(key, said)| format!("{key:?} {said:?}"))
            .collect()
    }

    fn written(directory: &Path) -> (Segment, Vec<u8>) {
        let (bytes, made) = encode(1000, 21_000, entries().into_iter());
        let path = directory.join(&made.path);
        std::fs::write(&path, &bytes).unwrap();
        let opened = Segment::open(&LocalDisk, &path).unwrap();
        let made = Segment { path, ..made };
        assert_eq!(opened, made);
        (opened, bytes)
    }

    #[test]
    fn a_segment_has_what_was_written_and_reads_a_part_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (segment, bytes) = written(directory.path());
        let index = segment.index(&LocalDisk).unwrap();
        let mut found = Vec::new();
        segment
            .samples(&LocalDisk, &index, |_| panic!(), |entry| found.push(entry))
            .unwrap();
        assert_eq!(shown(&found), shown(&entries()));
        let hours: u64 = segment.hours.iter().map(|(_, count)| count).sum();
        assert_eq!(hours, 20_000);
        assert!(segment.hours.len() > 1);
        assert!(bytes.len() < 20_000 * 14, "{}", bytes.len());
        let mut lines = Vec::new();
        segment
            .samples(
                &LocalDisk,
                &index[1..2],
                |_| panic!(),
                |entry| lines.push(entry),
            )
            .unwrap();
        assert!(lines.iter().all(|(key, _)| key.signal == index[1].signal));
        assert!(!lines.is_empty() && lines.len() <= MOST);
    }

    #[test]
    fn damage_anywhere_is_found_and_costs_a_block_at_most() {
        let directory = tempfile::tempdir().unwrap();
        let (segment, bytes) = written(directory.path());
        for at in (0..bytes.len())
            .step_by(9_973)
            .chain((bytes.len() - 400..bytes.len()).step_by(3))
        {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x04;
            std::fs::write(&segment.path, &bytes).unwrap();
            let (mut found, mut damaged) = (Vec::new(), 0);
            let read = Segment::open(&LocalDisk, &segment.path).and_then(|segment| {
                let index = segment.index(&LocalDisk)?;
                segment.samples(
                    &LocalDisk,
                    &index,
                    |_| damaged += 1,
                    |entry| found.push(entry),
                )?;
                Ok(())
            });
            if read.is_err() {
                found = salvage(&bytes).0;
            }
            let lost = entries().len() - found.len();
            assert!(lost <= MOST, "{at}: {lost}");
            assert!(lost == 0 || damaged == 1 || read.is_err(), "{at}");
            assert!(at < 8 || lost > 0 || read.is_err(), "{at}: not noticed");
        }
        for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&segment.path, &bytes[..length]).unwrap();
            assert!(Segment::open(&LocalDisk, &segment.path).is_err());
            assert!(salvage(&bytes[..length]).0.len() <= 20_000);
        }
    }
}
