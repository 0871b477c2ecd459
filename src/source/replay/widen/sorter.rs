//! Records put in the order of their times, in bounded memory.
//!
//! Guarantees: records of one time stay in the order in which they came. What does not fit into memory lies in a scratch file
//! without a name, as runs that are in order themselves and are merged while they are read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::source::replay::ordered::nameless;

/// Bytes of records that are kept in memory.
const MEMORY: usize = 12 << 20;
/// Bytes of a run that are read at once.
const BLOCK: usize = 64 << 10;

/// Takes records of one width, each of which begins with its time.
pub(super) struct Sorter {
    width: usize,
    most: usize,
    scratch: PathBuf,
    records: Vec<u8>,
    file: Option<File>,
    /// Where each run begins and ends.
    runs: Vec<(u64, u64)>,
}

/// Yields records in the order of their times.
pub(super) struct Merged {
    width: usize,
    file: Option<File>,
    runs: Vec<Run>,
    next: BinaryHeap<Reverse<(i64, usize)>>,
}

struct Run {
    block: Vec<u8>,
    at: usize,
    rest: (u64, u64),
}

impl Sorter {
    pub fn new(width: usize, scratch: &Path) -> Self {
        Self::with_memory(width, scratch, MEMORY)
    }

    fn with_memory(width: usize, scratch: &Path, most: usize) -> Self {
        Self {
            width,
            most,
            scratch: scratch.to_owned(),
            records: Vec::new(),
            file: None,
            runs: Vec::new(),
        }
    }

    pub fn push(&mut self, record: &[u8]) -> io::Result<()> {
        self.records.extend_from_slice(record);
        if self.records.len() >= self.most {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let file = match self.file.take() {
            Some(file) => file,
            None => nameless(&self.scratch)?,
        };
        let begin = self.runs.last().map_or(0, |(_, end)| *end);
        file.write_all_at(&self.records, begin)?;
        self.file = Some(file);
        self.runs.push((begin, begin + self.records.len() as u64));
        self.records.clear();
        Ok(())
    }

    fn sort(&mut self) {
        let records = self.records.chunks_exact(self.width);
        let mut order: Vec<(i64, u32)> = records.map(time_of).zip(0..).collect();
        if order.is_sorted() {
            return;
        }
        order.sort_unstable();
        let mut sorted = Vec::with_capacity(self.records.len());
        for (_, at) in order {
            let begin = at as usize * self.width;
            sorted.extend_from_slice(&self.records[begin..begin + self.width]);
        }
        self.records = sorted;
    }

    pub fn merged(mut self) -> io::Result<Merged> {
        self.sort();
        let in_file = self.runs.iter().map(|rest| Run {
            block: Vec::new(),
            at: 0,
            rest: *rest,
        });
        let mut merged = Merged {
            width: self.width,
            file: self.file,
            runs: in_file.collect(),
            next: BinaryHeap::new(),
        };
        merged.runs.push(Run {
            block: self.records,
            at: 0,
            rest: (0, 0),
        });
        for run in 0..merged.runs.len() {
            merged.look(run)?;
        }
        Ok(merged)
    }
}

impl Merged {
    /// Takes the next record; false after the last.
    pub fn read(&mut self, record: &mut [u8]) -> io::Result<bool> {
        let Some(Reverse((_, at))) = self.next.pop() else {
            return Ok(false);
        };
        let run = &mut self.runs[at];
        record.copy_from_slice(&run.block[run.at..run.at + self.width]);
        run.at += self.width;
        self.look(at)?;
        Ok(true)
    }

    /// Notes when the next record of a run is.
    fn look(&mut self, at: usize) -> io::Result<()> {
        let run = &mut self.runs[at];
        if run.at >= run.block.len() {
            let (begin, end) = run.rest;
            let most = (BLOCK / self.width).max(1) * self.width;
            let length = most.min((end - begin) as usize);
            run.block.resize(length, 0);
            run.at = 0;
            if let Some(file) = self.file.as_ref().filter(|_| length > 0) {
                file.read_exact_at(&mut run.block, begin)?;
            }
            run.rest = (begin + length as u64, end);
        }
        if run.at < run.block.len() {
            let time = time_of(&run.block[run.at..run.at + self.width]);
            self.next.push(Reverse((time, at)));
        }
        Ok(())
    }
}

/// The time that a record begins with.
pub(super) fn time_of(record: &[u8]) -> i64 {
    let mut time = [0; 8];
    time.copy_from_slice(&record[..8]);
    i64::from_le_bytes(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_in_the_order_of_times_and_of_their_coming_however_little_memory_there_is() {
        let scratch = tempfile::tempdir().unwrap();
        let mut rng = fastrand::Rng::with_seed(3);
        let records: Vec<(i64, u32)> = (0..5_000).map(|at| (rng.i64(-50..50), at)).collect();
        let mut wanted = records.clone();
        wanted.sort_unstable();
        for memory in [12, 1_000, 1 << 20] {
            let mut sorter = Sorter::with_memory(12, scratch.path(), memory);
            for (time, at) in &records {
                let record = [&time.to_le_bytes()[..], &at.to_le_bytes()[..]].concat();
                sorter.push(&record).unwrap();
            }
            let mut merged = sorter.merged().unwrap();
            let (mut record, mut found) = ([0; 12], Vec::new());
            while merged.read(&mut record).unwrap() {
                let at = u32::from_le_bytes(record[8..].try_into().unwrap());
                found.push((time_of(&record), at));
            }
            assert!(found == wanted, "{memory}");
        }
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
