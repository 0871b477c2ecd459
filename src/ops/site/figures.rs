//! What follows from a snapshot: what is late, what is usual, how long it lasts. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::{AssetSnapshot, FeedSnapshot, LISTED_WITHIN, Overdue, Snapshot};
use crate::feed;
use crate::signal::Asset;
use crate::vitals::{Code, Trouble};

impl Snapshot {
    /// Since when a trouble stands whose cause carries no time of its own: since this process first saw it.
    pub fn first_seen(&self, code: Code, asset: &Asset) -> DateTime<Utc> {
        let key = (code, asset.name().to_owned());
        self.seen.get(&key).copied().unwrap_or(self.now)
    }

    /// Whether a loop of that asset found something of that kind wrong.
    pub fn has(&self, code: Code, asset: &Asset) -> bool {
        let of = |trouble: &&Trouble| trouble.subject.asset == asset.name();
        let mut troubles = self.troubles.iter().filter(of);
        troubles.any(|trouble| trouble.code == code)
    }

    /// The only asset, where there is one; otherwise what is shown must say which.
    pub fn only(&self) -> Option<&AssetSnapshot> {
        match self.assets.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The asset whose files the scheduler of that name reads, as far as is known.
    pub fn fed(&self, scheduler: &str) -> Option<&AssetSnapshot> {
        let keeps = |one: &&AssetSnapshot| {
            let standing = one.watched.as_ref();
            standing.is_some_and(|standing| standing.scheduler == scheduler)
        };
        // In embedded mode the only one may keep none by its name.
        let alone = || {
            self.only()
                .filter(|one| one.watched.is_none() && !one.asset.is_named())
        };
        self.assets.iter().find(keeps).or_else(alone)
    }

    /// What is known of that asset.
    pub fn asset(&self, asset: &Asset) -> Option<&AssetSnapshot> {
        self.assets.iter().find(|one| one.asset == *asset)
    }

    /// Whether there are assets with names.
    pub fn has_names(&self) -> bool {
        self.assets.iter().any(|one| one.asset.is_named())
    }

    /// The feeders.
    pub fn feeds(&self) -> impl Iterator<Item = &FeedSnapshot> {
        self.assets.iter().filter_map(|one| one.feed.as_ref())
    }

    /// Schedulers that this gateway keeps, that run and have executed nothing for a wake-up and one cadence more than they
    /// should take.
    pub fn overdue(&self) -> Vec<Overdue<'_>> {
        // Without a service or an archive nobody looks for executions.
        if self.service.is_none() {
            return Vec::new();
        }
        let overdue = |one| AssetSnapshot::overdue(one, self.now);
        self.assets.iter().filter_map(overdue).collect()
    }

    /// How long an outage of the store can last before cutting pauses, by what the recent windows of all assets take on the
    /// disk they share.
    pub fn outage_capacity(&self) -> Option<TimeDelta> {
        if let Some(feed) = self.only().and_then(|one| one.feed.as_ref()) {
            return feed.outage_capacity();
        }
        let (mut files, mut bytes) = (0.0, 0.0);
        for (feed, usual) in self
            .feeds()
            .filter_map(|feed| Some((feed, feed.usual_size()?)))
        {
            let an_hour = 3600.0 / feed.config.cadence.seconds() as f64;
            files += usual.0 as f64 * an_hour;
            bytes += usual.1 as f64 * an_hour;
        }
        let first = self.feeds().next()?;
        let hours = first.room?.windows(
            (files.ceil() as u64).max(1),
            bytes.ceil() as u64,
            first.config.min_free.0,
        );
        (bytes > 0.0).then_some(())?;
        TimeDelta::try_seconds((hours as i64).saturating_mul(3600))
    }
}

impl AssetSnapshot {
    fn overdue(&self, now: DateTime<Utc>) -> Option<Overdue<'_>> {
        let (feed, standing) = (self.feed.as_ref()?, self.watched.as_ref()?);
        if standing.failure.is_some() || standing.status.as_deref() != Some("RUNNING") {
            return None;
        }
        let last = self
            .executed
            .map_or(standing.since, |end| end.max(standing.since));
        (now - last > feed.allowed()).then_some(Overdue {
            asset: &self.asset,
            scheduler: &standing.scheduler,
            since: last,
        })
    }
}

impl FeedSnapshot {
    /// How long after a window's end its execution may be known here.
    pub(super) fn allowed(&self) -> TimeDelta {
        self.config.cadence.duration() * 2 + self.delay + LISTED_WITHIN
    }

    /// When a window that starts at `start` is to be cut.
    pub fn live_at(&self, start: DateTime<Utc>) -> DateTime<Utc> {
        match self.config.publish {
            feed::Publish::Ahead => start,
            feed::Publish::Behind => start + self.config.cadence.duration(),
        }
    }

    /// How long the oldest undelivered window has waited since it was to be cut.
    pub fn oldest_age(&self, now: DateTime<Utc>) -> TimeDelta {
        self.waiting.oldest.map_or(TimeDelta::zero(), |start| {
            (now - self.live_at(start)).max(TimeDelta::zero())
        })
    }

    /// How long before the scheduler looks for it the newest delivered window was complete; negative: too late.
    pub fn slack(&self) -> Option<TimeDelta> {
        let entry = self.delivered.as_ref()?;
        Some(entry.end + self.delay - entry.shipped_at?)
    }

    /// Rows of a window of this cadence as most of the recent ones had them, and none missing: the median of those with
    /// rows.
    pub fn usual_rows(&self) -> Option<u64> {
        let mut rows: Vec<u64> = self
            .recent
            .iter()
            .filter(|entry| entry.rows > 0 && entry.cadence == self.config.cadence)
            .map(|entry| entry.rows)
            .collect();
        rows.sort_unstable();
        (!rows.is_empty()).then(|| rows[rows.len() / 2])
    }

    /// How long an outage of the store can last before cutting pauses, by what the recent windows take on the disk, if these
    /// are all that it takes.
    fn outage_capacity(&self) -> Option<TimeDelta> {
        let (files, bytes) = self.usual_size()?;
        let windows = self
            .room?
            .windows(files.max(1), bytes, self.config.min_free.0);
        TimeDelta::try_seconds((windows as i64).saturating_mul(self.config.cadence.seconds()))
    }

    /// Files and bytes of the recent windows, on average.
    fn usual_size(&self) -> Option<(u64, u64)> {
        let cut = || self.recent.iter().filter(|entry| entry.bytes > 0);
        let count = cut().count() as u64;
        let files: u64 = cut().map(|entry| u64::from(entry.files)).sum();
        let bytes: u64 = cut().map(|entry| entry.bytes).sum();
        Some((files.checked_div(count)?, bytes.checked_div(count)?))
    }
}
