//! Reading: of each segment only the blocks of the signals and hours that are asked for, and the table.
//!
//! Guarantees: nobody waits for who reads longer than it takes to copy from the table; a damaged block is left out and named.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use super::segment::{self, Block, Segment, Unreadable};
use super::table::{Entry, Key};
use super::{JournalError, Position, Sample, Series, Shared, Signal};
use super::{failed, held, looked};

/// Blocks whose places are kept in memory, at 40 bytes each.
const KEPT: usize = 400_000;
/// Bytes of blocks that are decoded at once, about a tenth of what they take in memory.
const AT_ONCE: u64 = 4 << 20;
/// How often reading begins anew because files went meanwhile.
const AGAIN: usize = 5;

/// The first and the last number of a segment, and its index.
type Indexed = ((u64, u64), Arc<Vec<Block>>);

/// Indexes of segments that were read, the last first.
#[derive(Default)]
pub(super) struct Indexes {
    kept: VecDeque<Indexed>,
}

impl Indexes {
    fn find(&mut self, segment: &Segment) -> Option<Arc<Vec<Block>>> {
        let key = (segment.first, segment.end);
        let at = self.kept.iter().position(|(of, _)| *of == key)?;
        let found = self.kept.remove(at)?;
        let index = found.1.clone();
        self.kept.push_front(found);
        Some(index)
    }

    fn keep(&mut self, segment: &Segment, index: Arc<Vec<Block>>) {
        self.kept.push_front(((segment.first, segment.end), index));
        let mut blocks = 0;
        self.kept.retain(|(_, index)| {
            blocks += index.len();
            blocks <= KEPT
        });
    }
}

impl Segment {
    /// Whether it can have a sample from `least` to `most`, both counted.
    pub fn has_between(&self, least: i64, most: i64) -> bool {
        self.samples > 0 && self.least <= most && least <= self.most
    }
}

impl Shared {
    pub(super) fn read(
        &self,
        signals: &[Signal],
        from: i64,
        to: i64,
        upto: Position,
    ) -> Result<Vec<Series>, JournalError> {
        let mut numbers: Vec<u32> = signals.iter().map(|signal| signal.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut outcome = Ok(Vec::new());
        for _ in 0..AGAIN {
            outcome = self.versions_between(&numbers, (from, to), Position(0), upto);
            // A segment was merged or removed since its list was taken.
            let went = matches!(&outcome, Err(JournalError::Disk { source, .. })
                if source.kind() == io::ErrorKind::NotFound);
            if !went {
                break;
            }
        }
        let mut series: HashMap<u32, Vec<_>> = HashMap::new();
        for (key, said) in outcome? {
            let samples = series.entry(key.signal).or_default();
            samples.push(said.sample(&key));
        }
        Ok(signals
            .iter()
            .map(|signal| Series {
                signal: *signal,
                samples: series.get(&signal.0).cloned().unwrap_or_default(),
            })
            .collect())
    }

    /// Of each sample the last version before `upto`, unless it was appended before `since`; in order.
    pub(super) fn versions_between(
        &self,
        signals: &[u32],
        (from, to): (i64, i64),
        since: Position,
        upto: Position,
    ) -> Result<Vec<Entry>, JournalError> {
        let (mut entries, segments, upto) = {
            let live = looked(&self.live);
            let upto = upto.0.min(live.position);
            let of = |signal: &u32| live.table.of(*signal, from, to);
            let entries: Vec<Entry> = signals.iter().flat_map(of).collect();
            (entries, live.segments.clone(), upto)
        };
        if from >= to {
            return Ok(Vec::new());
        }
        for segment in segments {
            let has_new = since.0 < segment.end && segment.first < upto;
            if !has_new || !segment.has_between(from, to - 1) {
                continue;
            }
            let blocks = self.chosen(&segment, signals, from, to)?;
            self.entries(&segment, &blocks, |entry| {
                if (from..to).contains(&entry.0.time) {
                    entries.push(entry);
                }
            })?;
        }
        entries.retain(|(key, _)| key.position < upto);
        entries.sort_unstable_by_key(|(key, _)| *key);
        let mut last: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            match last.last_mut() {
                Some(before) if before.0.is_version_of(&entry.0) => *before = entry,
                _ => last.push(entry),
            }
        }
        last.retain(|(key, _)| since.0 <= key.position);
        Ok(last)
    }

    /// The samples that [`Self::versions_between`] would give, a bounded part at a time: by signal, then by time.
    pub(super) fn walk(
        &self,
        signals: &[u32],
        span: (i64, i64),
        (since, upto): (Position, Position),
        mut each: impl FnMut(&Sample) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut left = vec![(signals, span)];
        while let Some((signals, (from, to))) = left.pop() {
            let large = self.estimate(signals, (from, to), since)? > AT_ONCE;
            if large && signals.len() > 1 {
                let (first, rest) = signals.split_at(signals.len() / 2);
                left.push((rest, (from, to)));
                left.push((first, (from, to)));
                continue;
            }
            if large && to.saturating_sub(from) > 1 {
                let half = from.midpoint(to);
                left.push((signals, (half, to)));
                left.push((signals, (from, half)));
                continue;
            }
            for (key, said) in self.versions_between(signals, (from, to), since, upto)? {
                each(&said.sample(&key))?;
            }
        }
        Ok(())
    }

    /// Bytes of the blocks that would be read.
    fn estimate(
        &self,
        signals: &[u32],
        (from, to): (i64, i64),
        since: Position,
    ) -> Result<u64, JournalError> {
        let segments = looked(&self.live).segments.clone();
        let mut bytes = 0;
        for segment in segments.iter().filter(|segment| segment.end > since.0) {
            if segment.has_between(from, to.saturating_sub(1)) {
                let blocks = self.chosen(segment, signals, from, to)?;
                bytes += blocks
                    .iter()
                    .map(|block| u64::from(block.length))
                    .sum::<u64>();
            }
        }
        Ok(bytes)
    }

    /// The blocks of a segment that may have samples of these signals, which are in order, within that time.
    pub(super) fn chosen(
        &self,
        segment: &Arc<Segment>,
        signals: &[u32],
        from: i64,
        to: i64,
    ) -> Result<Vec<Block>, JournalError> {
        let index = self.index(segment)?;
        let mut blocks = Vec::new();
        for signal in signals {
            let start = index.partition_point(|block| block.signal < *signal);
            let of = index[start..]
                .iter()
                .take_while(|block| block.signal == *signal);
            blocks.extend(of.filter(|block| block.least < to && from <= block.most));
        }
        Ok(blocks)
    }

    /// Where the blocks of a segment are, also where that has to be found out from the blocks.
    pub(super) fn index(&self, segment: &Arc<Segment>) -> Result<Arc<Vec<Block>>, JournalError> {
        if let Some(index) = held(&self.indexes).find(segment) {
            return Ok(index);
        }
        let index = match segment.index(&*self.disk) {
            Ok(index) => index,
            Err(Unreadable::Damaged(what)) => {
                let bytes = self
                    .disk
                    .read(&segment.path)
                    .map_err(failed(&segment.path, "read"))?;
                let (blocks, lost) = segment::blocks(&bytes);
                self.note(
                    &segment.path,
                    format!("{what}: it is read block by block, {lost} bytes of it are none"),
                );
                blocks
            }
            Err(Unreadable::Io(error)) => return Err(failed(&segment.path, "read")(error)),
        };
        let index = Arc::new(index);
        held(&self.indexes).keep(segment, index.clone());
        Ok(index)
    }

    /// What blocks of a segment have; those that are damaged are named and left out.
    pub(super) fn entries(
        &self,
        segment: &Segment,
        blocks: &[Block],
        each: impl FnMut((Key, super::table::Said)),
    ) -> Result<(), JournalError> {
        let damaged = |block: &Block| {
            let name = looked(&self.names)
                .name(block.signal)
                .map(|(asset, tag)| format!("{asset} {tag}"));
            let name = name.unwrap_or_default();
            self.note(
                &segment.path,
                format!(
                    "a block at byte {} is not as it was written: samples of {} from {} to {} (ns) are lost",
                    block.at,
                    name.trim(),
                    block.least,
                    block.most
                ),
            );
        };
        segment
            .samples(&*self.disk, blocks, damaged, each)
            .map_err(failed(&segment.path, "read"))
    }
}
