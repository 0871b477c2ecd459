//! Writing: one at a time, for all who wait. The log is written and synced, then what it has counts; a full table becomes a segment.
//!
//! Guarantees: what failed is taken out of the table again, and its log is not written to any more: the kernel may have
//! forgotten what it could not write. The next log begins where the acknowledged samples end, which makes void what the earlier
//! has behind. The names of signals are durable before their samples.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::{self, Segment};
use super::table::{Entry, Key, Said, Table};
use super::{JournalError, Live, Position, Receipt, Sample, Shared, Waiting};
use super::{failed, held, log, looked, written};

/// The file of names.
pub(super) const NAMES: &str = "signals";
/// How a file ends that is being written.
pub(super) const PARTIAL: &str = ".part";

/// What only the one who writes knows.
#[derive(Default)]
pub(super) struct Writer {
    /// The log that is written to.
    log: Option<PathBuf>,
    /// The file of names has what it should have, and nothing behind.
    pub names_are_whole: bool,
    /// From this many samples on a segment is made.
    seal_at: usize,
}

/// The name of the log that begins here.
fn log_name(position: u64) -> String {
    format!("log-{position:016x}")
}

/// The position that a log's name tells.
pub(super) fn log_named(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("log-")?;
    (digits.len() == 16).then_some(())?;
    u64::from_str_radix(digits, 16).ok()
}

/// Whoever leads ends, in whatever way: others may lead, and nobody waits in vain.
struct Leading<'a>(&'a Shared);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = held(&self.0.queue);
            queue.is_led = false;
            queue.waiting.clear();
        }
    }
}

impl Shared {
    /// Writes whatever waits until nothing does.
    pub(super) fn lead(&self) {
        let _leading = Leading(self);
        loop {
            let group = {
                let mut queue = held(&self.queue);
                let mut left = super::AT_ONCE;
                let mut group: Vec<Waiting> = Vec::new();
                while let Some(next) = queue.waiting.front() {
                    if !group.is_empty() && next.batch.len() > left {
                        break;
                    }
                    left = left.saturating_sub(next.batch.len());
                    group.extend(queue.waiting.pop_front());
                }
                if group.is_empty() {
                    queue.is_led = false;
                    return;
                }
                group
            };
            self.write(group);
        }
    }

    fn write(&self, group: Vec<Waiting>) {
        let mut writer = held(&self.writer);
        let (good, strange): (Vec<_>, Vec<_>) = {
            let names = looked(&self.names);
            group.into_iter().partition(|waiting| {
                let mut signals = waiting.batch.iter().map(|sample| sample.signal.0);
                signals.all(|signal| names.name(signal).is_some())
            })
        };
        for waiting in strange {
            let names = looked(&self.names);
            let mut signals = waiting.batch.iter().map(|sample| sample.signal.0);
            let unknown = signals.find(|signal| names.name(*signal).is_none());
            let error = JournalError::UnknownSignal(unknown.unwrap_or_default());
            drop(waiting.answer.send(Err(error)));
        }
        let batches: Vec<&[Sample]> = good.iter().map(|waiting| &waiting.batch[..]).collect();
        match self.commit(&mut writer, &batches) {
            Ok(receipts) => {
                for (waiting, receipt) in good.into_iter().zip(receipts) {
                    drop(waiting.answer.send(Ok(receipt)));
                }
                self.seal_if_full(&mut writer);
            }
            Err(error) => {
                for waiting in good {
                    drop(waiting.answer.send(Err(error.clone())));
                }
            }
        }
    }

    fn commit(
        &self,
        writer: &mut Writer,
        batches: &[&[Sample]],
    ) -> Result<Vec<Receipt>, JournalError> {
        self.see_room(writer)?;
        self.write_names(writer).map_err(|error| self.full(error))?;
        let sealed = self.sealed_versions(batches)?;
        let (receipts, accepted) = written(&self.live).take(batches, &sealed);
        let mut bytes = Vec::new();
        for entries in &accepted {
            log::put_frame(&mut bytes, entries);
        }
        let outcome = match bytes.is_empty() {
            true => Ok(()),
            false => self.write_log(writer, &bytes),
        };
        let mut live = written(&self.live);
        if let Err(error) = outcome {
            writer.log = None;
            for (key, _) in accepted.iter().flatten() {
                live.table.remove(key);
            }
            return Err(self.full(error));
        }
        live.position += accepted.iter().flatten().count() as u64;
        let position = Position(live.position);
        Ok(receipts
            .into_iter()
            .map(|receipt| Receipt {
                position,
                ..receipt
            })
            .collect())
    }

    /// Refuses what there is no room for, on the disk or in memory.
    fn see_room(&self, writer: &mut Writer) -> Result<(), JournalError> {
        let floor = self.options.floor;
        let free = self
            .disk
            .free(&self.directory)
            .map_err(failed(&self.directory, "looked at"))?;
        if free < floor {
            return Err(JournalError::Full { free, floor });
        }
        if looked(&self.live).table.len() >= 2 * self.options.segment {
            self.seal(writer, None).map_err(|error| self.full(error))?;
        }
        Ok(())
    }

    /// A failure for want of room is the same however it shows.
    pub(super) fn full(&self, error: JournalError) -> JournalError {
        match &error {
            JournalError::Disk { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                JournalError::Full {
                    free: self.disk.free(&self.directory).unwrap_or(0),
                    floor: self.options.floor,
                }
            }
            _ => error,
        }
    }

    fn write_names(&self, writer: &mut Writer) -> Result<(), JournalError> {
        let is_whole = writer.names_are_whole;
        let (bytes, count) = {
            let names = looked(&self.names);
            match is_whole {
                true => names.fresh(),
                false => names.all(),
            }
        };
        if is_whole && count == 0 {
            return Ok(());
        }
        let path = self.path(NAMES);
        writer.names_are_whole = false;
        match is_whole {
            true => self
                .disk
                .append(&path, &bytes)
                .and_then(|()| self.disk.sync(&path)),
            false => self.publish(&path, &bytes),
        }
        .map_err(failed(&path, "written"))?;
        writer.names_are_whole = true;
        written(&self.names).written(count);
        Ok(())
    }

    /// Makes a whole file durable under its name, or leaves what is there.
    pub(super) fn publish(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(PARTIAL);
        let partial = PathBuf::from(partial);
        let written = self
            .disk
            .write(&partial, bytes)
            .and_then(|()| self.disk.sync(&partial))
            .and_then(|()| self.disk.rename(&partial, path));
        if written.is_err() {
            drop(self.disk.remove(&partial));
        }
        written?;
        match path.parent() {
            Some(parent) => self.disk.sync_dir(parent),
            None => Ok(()),
        }
    }

    fn write_log(&self, writer: &mut Writer, bytes: &[u8]) -> Result<(), JournalError> {
        if let Some(path) = &writer.log {
            return self
                .disk
                .append(path, bytes)
                .and_then(|()| self.disk.sync(path))
                .map_err(failed(path, "written"));
        }
        let path = self.path(&log_name(looked(&self.live).position));
        self.disk
            .write(&path, log::MAGIC)
            .and_then(|()| self.disk.append(&path, bytes))
            .and_then(|()| self.disk.sync(&path))
            .and_then(|()| self.disk.sync_dir(&self.directory))
            .map_err(failed(&path, "written"))?;
        writer.log = Some(path);
        Ok(())
    }

    /// What the segments have last of those samples that may be in one.
    fn sealed_versions(&self, batches: &[&[Sample]]) -> Result<Sealed, JournalError> {
        let segments = looked(&self.live).segments.clone();
        let samples = batches.iter().flat_map(|batch| batch.iter());
        let mut wanted: Vec<Vec<Key>> = vec![Vec::new(); segments.len()];
        let newest = segments.iter().map(|segment| segment.most).max();
        for sample in samples.filter(|sample| Some(sample.time) <= newest) {
            let key = Key::of(sample, 0);
            for (segment, wanted) in segments.iter().zip(&mut wanted) {
                if segment.has_between(key.time, key.time) {
                    wanted.push(key);
                }
            }
        }
        let mut sealed = Sealed::default();
        for (segment, mut wanted) in segments.iter().zip(wanted) {
            if wanted.is_empty() {
                continue;
            }
            wanted.sort_unstable();
            wanted.dedup();
            self.find(segment, &wanted, &mut sealed)?;
        }
        Ok(sealed)
    }

    fn find(
        &self,
        segment: &Arc<Segment>,
        wanted: &[Key],
        sealed: &mut Sealed,
    ) -> Result<(), JournalError> {
        let known = |key: &Key| {
            wanted
                .binary_search_by_key(&(key.signal, key.time, key.kind), |key| {
                    (key.signal, key.time, key.kind)
                })
                .is_ok()
        };
        let index = self.index(segment)?;
        let blocks: Vec<_> = index
            .iter()
            .filter(|block| {
                let from = wanted
                    .partition_point(|key| (key.signal, key.time) < (block.signal, block.least));
                let next = wanted.get(from);
                next.is_some_and(|key| key.signal == block.signal && key.time <= block.most)
            })
            .copied()
            .collect();
        self.entries(segment, &blocks, |(key, said)| {
            if known(&key) {
                let place = sealed.entry((key.signal, key.time, key.kind));
                let last = place.or_insert((key.position, said));
                if key.position >= last.0 {
                    *last = (key.position, said);
                }
            }
        })
    }

    fn seal_if_full(&self, writer: &mut Writer) {
        let samples = looked(&self.live).table.len();
        let limit = self.options.segment;
        if samples < writer.seal_at.max(limit) {
            return;
        }
        match self.seal(writer, None) {
            Ok(()) => writer.seal_at = 0,
            Err(error) => {
                tracing::warn!(%error, samples, "no segment can be made of the journal's log");
                writer.seal_at = samples + limit / 8;
            }
        }
    }

    /// Makes a segment of the table, together with an earlier one where that is given.
    pub(super) fn seal(
        &self,
        writer: &mut Writer,
        earlier: Option<(Arc<Segment>, Table)>,
    ) -> Result<(), JournalError> {
        let (bytes, mut segment) = {
            let live = looked(&self.live);
            match &earlier {
                None => segment::encode(live.first, live.position, live.table.entries()),
                Some((segment, table)) => {
                    let all: Table = table.entries().chain(live.table.entries()).collect();
                    segment::encode(segment.first, live.position, all.entries())
                }
            }
        };
        segment.path = self.directory.join(&segment.path);
        if let Err(error) = self.publish(&segment.path, &bytes) {
            // Perhaps it is there: it would be found to be a part of the next.
            drop(self.disk.remove(&segment.path));
            return Err(failed(&segment.path, "written")(error));
        }
        let end = segment.end;
        {
            let mut live = written(&self.live);
            if let Some((earlier, _)) = &earlier {
                live.segments
                    .retain(|segment| segment.first != earlier.first);
            }
            live.segments.push(Arc::new(segment));
            live.first = end;
            live.table = Table::default();
        }
        writer.log = None;
        if let Some((earlier, _)) = earlier {
            self.discard(&earlier.path);
        }
        for path in self.disk.list(&self.directory).unwrap_or_default() {
            if log_named(&path).is_some_and(|first| first < end) {
                self.discard(&path);
            }
        }
        Ok(())
    }

    /// Removes what is in a segment by now; if that fails, the next start does it.
    pub(super) fn discard(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path) {
            tracing::debug!(path = %path.display(), %error, "a file of the journal is left for the next start");
        }
    }
}

/// By signal, time and kind: position and contents.
type Sealed = HashMap<(u32, i64, u8), (u64, Said)>;

impl Live {
    /// Puts into the table what says something new: what to tell of each batch, and what to write.
    fn take(&mut self, batches: &[&[Sample]], sealed: &Sealed) -> (Vec<Receipt>, Vec<Vec<Entry>>) {
        let mut position = self.position;
        let mut receipts = Vec::with_capacity(batches.len());
        let mut accepted = Vec::with_capacity(batches.len());
        for batch in batches {
            let mut receipt = Receipt::default();
            let mut entries = Vec::with_capacity(batch.len());
            for sample in *batch {
                let (key, said) = (Key::of(sample, position), Said::of(sample));
                let known = self.table.last(&key).or_else(|| {
                    let (_, said) = sealed.get(&(key.signal, key.time, key.kind))?;
                    Some(*said)
                });
                match known {
                    Some(known) if known.says_the_same(&said) => {
                        receipt.collapsed += 1;
                        continue;
                    }
                    Some(_) => receipt.differing += 1,
                    None => {}
                }
                self.table.insert(key, said);
                entries.push((key, said));
                position += 1;
            }
            receipts.push(receipt);
            accepted.push(entries);
        }
        (receipts, accepted)
    }
}
