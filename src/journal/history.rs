//! The history: hour by hour the journal becomes Parquet that `replay` and `model train` read, and then its segments go.
//!
//! ```text
//! history/[asset/]2026-01-31/13-{since}-{upto}.parquet: what was appended from position `since` until before `upto` of 13:00 to 14:00
//! ```
//!
//! Guarantees: each sample is in the history exactly once, whatever crashes: which positions a file has is its name, and a file
//! appears whole. What comes late for an hour makes a further file, behind the others in the order of names, so that of two
//! values for one time the later counts. A segment goes when it is older than is kept, or the journal larger than it may be,
//! oldest first, and never before all of it is shipped and in the history.
//! Deliberately absent: signs of life, which are no values; removing a file of the history.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::DateTime;

use super::commit::PARTIAL;
use super::hour::HourFile;
use super::segment::{HOUR, Segment};
use super::{Journal, JournalError, Kind, Position, Shared};
use super::{failed, held, looked, written};

/// Where the history lies, beside the journal.
pub const HISTORY: &str = "history";
/// Which hours are in it.
const HOURS: &str = "hours";
/// What a sweep did, and what the next will.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files that it added to the history.
    pub files: Vec<PathBuf>,
    /// Samples in them.
    pub samples: u64,
    /// Segments that went.
    pub gone: u64,
    /// Bytes that the journal's segments have now.
    pub bytes: u64,
    /// Up to which time (nanoseconds) what goes next has samples, and why it goes.
    pub next: Option<(i64, Leaving)>,
    /// Segments that would have gone if they were shipped and in the history.
    pub held: u64,
}

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It is older than is kept.
    Age,
    /// The journal is larger than it may be.
    Size,
}

/// Up to which position each hour is in the history.
#[derive(Default)]
pub(super) struct Hours {
    upto: BTreeMap<i64, u64>,
    is_read: bool,
}

impl Journal {
    /// All windows that end before this time (nanoseconds) are shipped: what they were cut from may go.
    pub fn release(&self, before: i64) {
        self.shared.released.store(before, Ordering::SeqCst);
    }

    /// Writes the hours that are over at `now` (nanoseconds) into the history, and lets go what need not be kept.
    pub async fn sweep(&self, now: i64) -> Result<Swept, JournalError> {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || shared.sweep(now))
            .await
            .map_err(|_| JournalError::Closed)?
    }
}

impl Shared {
    fn sweep(&self, now: i64) -> Result<Swept, JournalError> {
        if self.is_read_only {
            return Err(JournalError::ReadOnly);
        }
        let mut hours = held(&self.hours);
        self.read_hours(&mut hours)?;
        let mut swept = Swept::default();
        let there = self.hours_there();
        let over = now
            .saturating_sub(nanos(self.options.settle))
            .div_euclid(HOUR);
        let upto = looked(&self.live).position;
        for (hour, newest) in there.range(..over) {
            let since = hours.upto.get(hour).copied().unwrap_or(0);
            if since < *newest {
                self.write_hour(*hour, since, upto, &mut swept)?;
                hours.upto.insert(*hour, upto);
                self.write_hours(&hours)?;
            }
        }
        hours.upto.retain(|hour, _| there.contains_key(hour));
        self.let_go(&hours, now, &mut swept);
        Ok(swept)
    }

    /// Every hour with a sample, and the position behind the last segment that has one.
    fn hours_there(&self) -> BTreeMap<i64, u64> {
        let live = looked(&self.live);
        let mut hours: BTreeMap<i64, u64> = BTreeMap::new();
        for segment in &live.segments {
            for (hour, _) in &segment.hours {
                let newest = hours.entry(*hour).or_default();
                *newest = segment.end.max(*newest);
            }
        }
        for (key, _) in live.table.entries() {
            if key.position < live.position {
                let newest = hours.entry(key.time.div_euclid(HOUR)).or_default();
                *newest = (key.position + 1).max(*newest);
            }
        }
        hours
    }

    fn write_hour(
        &self,
        hour: i64,
        since: u64,
        upto: u64,
        swept: &mut Swept,
    ) -> Result<(), JournalError> {
        let mut assets: BTreeMap<String, Vec<(u32, String)>> = BTreeMap::new();
        {
            let names = looked(&self.names);
            for number in names.numbers() {
                if let Some((asset, tag)) = names.name(number) {
                    let signals = assets.entry(asset.to_owned()).or_default();
                    signals.push((number, tag.to_owned()));
                }
            }
        }
        for (asset, signals) in assets {
            self.write_file(&asset, &signals, (hour, since, upto), swept)?;
        }
        Ok(())
    }

    /// The directory of an asset's day.
    fn day(&self, asset: &str, hour: i64) -> PathBuf {
        let time = DateTime::from_timestamp_nanos(hour.saturating_mul(HOUR));
        let history = self.directory.with_file_name(HISTORY);
        let day = time.format("%Y-%m-%d").to_string();
        match asset {
            "" => history.join(day),
            asset => history.join(asset).join(day),
        }
    }

    fn write_file(
        &self,
        asset: &str,
        signals: &[(u32, String)],
        (hour, since, upto): (i64, u64, u64),
        swept: &mut Swept,
    ) -> Result<(), JournalError> {
        let day = self.day(asset, hour);
        let since = since.max(self.in_history(&day, hour)?);
        let span = (hour.saturating_mul(HOUR), (hour + 1).saturating_mul(HOUR));
        let numbers: Vec<u32> = signals.iter().map(|(number, _)| *number).collect();
        if since >= upto || !self.has_any(&numbers, span, since)? {
            return Ok(());
        }
        let name = format!(
            "{:02}-{since:016x}-{upto:016x}.parquet",
            hour.rem_euclid(24)
        );
        let path = day.join(name);
        let mut partial = path.as_os_str().to_owned();
        partial.push(PARTIAL);
        let partial = PathBuf::from(partial);
        self.make_day(&day).map_err(failed(&day, "made"))?;
        let made = self.fill(&partial, signals, span, (since, upto));
        match made {
            Ok(0) => {
                self.discard(&partial);
                return Ok(());
            }
            Ok(rows) => swept.samples += rows,
            Err(error) => {
                self.discard(&partial);
                return Err(self.full(error));
            }
        }
        self.disk
            .sync(&partial)
            .and_then(|()| self.disk.rename(&partial, &path))
            .and_then(|()| self.disk.sync_dir(&day))
            .map_err(failed(&path, "written"))
            .map_err(|error| self.full(error))?;
        swept.files.push(path);
        Ok(())
    }

    fn make_day(&self, day: &Path) -> io::Result<()> {
        self.disk.create_dir(day)?;
        // Each of its parents may be new.
        let within = self.directory.parent();
        let parents = day.ancestors().skip(1);
        for parent in parents.take_while(|parent| within.is_some_and(|top| parent.starts_with(top)))
        {
            self.disk.sync_dir(parent)?;
        }
        Ok(())
    }

    /// Up to which position the files of a day have an hour.
    fn in_history(&self, day: &Path, hour: i64) -> Result<u64, JournalError> {
        let files = match self.disk.list(day) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            files => files.map_err(failed(day, "listed"))?,
        };
        let mut most = 0;
        for path in files {
            let Some((of, _, upto)) = file_named(&path) else {
                if path.to_string_lossy().ends_with(PARTIAL) {
                    self.discard(&path);
                }
                continue;
            };
            if of == hour.rem_euclid(24) {
                most = upto.max(most);
            }
        }
        Ok(most)
    }

    /// Whether there may be a sample of one of these in that time which was appended at `since` or later.
    fn has_any(
        &self,
        signals: &[u32],
        (from, to): (i64, i64),
        since: u64,
    ) -> Result<bool, JournalError> {
        let segments = {
            let live = looked(&self.live);
            let of = |signal: &u32| live.table.of(*signal, from, to).next().is_some();
            if signals.iter().any(of) {
                return Ok(true);
            }
            live.segments.clone()
        };
        for segment in segments.iter().filter(|segment| segment.end > since) {
            if segment.has_between(from, to - 1)
                && !self.chosen(segment, signals, from, to)?.is_empty()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn fill(
        &self,
        path: &Path,
        signals: &[(u32, String)],
        span: (i64, i64),
        positions: (u64, u64),
    ) -> Result<u64, JournalError> {
        let mut file =
            HourFile::begin(self.disk.clone(), path.to_owned()).map_err(failed(path, "written"))?;
        let tags: BTreeMap<u32, &str> = signals
            .iter()
            .map(|(number, tag)| (*number, tag.as_str()))
            .collect();
        let numbers: Vec<u32> = tags.keys().copied().collect();
        let (since, upto) = (Position(positions.0), Position(positions.1));
        self.walk(&numbers, span, (since, upto), |sample| {
            match (sample.kind, tags.get(&sample.signal.0)) {
                (Kind::Value, Some(tag)) => file.row(tag, sample),
                _ => Ok(()),
            }
            .map_err(failed(path, "written"))
        })?;
        file.end().map_err(failed(path, "written"))
    }

    fn read_hours(&self, hours: &mut Hours) -> Result<(), JournalError> {
        if std::mem::replace(&mut hours.is_read, true) {
            return Ok(());
        }
        let path = self.path(HOURS);
        match self.disk.read(&path) {
            // What cannot be read is found again in the names of the history's files.
            Ok(bytes) => hours.upto = serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                hours.is_read = false;
                return Err(failed(&path, "read")(error));
            }
        }
        Ok(())
    }

    fn write_hours(&self, hours: &Hours) -> Result<(), JournalError> {
        let path = self.path(HOURS);
        let bytes = serde_json::to_vec(&hours.upto).unwrap_or_default();
        self.publish(&path, &bytes)
            .map_err(failed(&path, "written"))
            .map_err(|error| self.full(error))
    }

    fn let_go(&self, hours: &Hours, now: i64, swept: &mut Swept) {
        let _writer = held(&self.writer);
        let segments = looked(&self.live).segments.clone();
        let oldest = now.saturating_sub(nanos(self.options.keep));
        let released = self.released.load(Ordering::SeqCst);
        let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let mut gone = BTreeSet::new();
        // The last tells the position after a restart.
        let all_but_last = segments.len().saturating_sub(1);
        for segment in &segments[..all_but_last] {
            let why = if segment.most < oldest {
                Leaving::Age
            } else if bytes > self.options.max_bytes {
                Leaving::Size
            } else {
                swept.next = swept.next.or(self.next_to_go(segment, bytes));
                continue;
            };
            let in_history = |(hour, _): &(i64, u64)| {
                hours
                    .upto
                    .get(hour)
                    .is_some_and(|upto| *upto >= segment.end)
            };
            if segment.most >= released || !segment.hours.iter().all(in_history) {
                swept.held += 1;
                continue;
            }
            tracing::info!(
                from = %DateTime::from_timestamp_nanos(segment.least),
                to = %DateTime::from_timestamp_nanos(segment.most),
                samples = segment.samples,
                why = ?why,
                "a segment of the journal goes: it is shipped and in the history"
            );
            bytes -= segment.bytes;
            gone.insert(segment.first);
        }
        written(&self.live)
            .segments
            .retain(|segment| !gone.contains(&segment.first));
        for segment in segments.iter().filter(|one| gone.contains(&one.first)) {
            self.discard(&segment.path);
        }
        (swept.gone, swept.bytes) = (gone.len() as u64, bytes);
    }

    fn next_to_go(&self, segment: &Arc<Segment>, bytes: u64) -> Option<(i64, Leaving)> {
        let nearly = self.options.max_bytes - self.options.max_bytes / 10;
        let why = match bytes > nearly {
            true => Leaving::Size,
            false => Leaving::Age,
        };
        Some((segment.most, why))
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The hour of a day and the positions that a file's name tells.
fn file_named(path: &Path) -> Option<(i64, u64, u64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".parquet")?;
    let mut parts = name.split('-');
    let hour = parts.next()?.parse().ok()?;
    let mut position = || u64::from_str_radix(parts.next()?, 16).ok();
    Some((hour, position()?, position()?))
}
