//! What the results objects say, read from the store through a bounded cache and thinned out for charts.
//!
//! Guarantees: a results object is read once while it stays in the cache; a window keeps at most [`POINTS`] scores (the
//! largest of each stretch, so that no peak is lost) and [`SHARES`] means of the contributions, whatever its rows; at most
//! [`KEPT`] windows are kept. An object that cannot be read is a gap in the chart, and is tried again.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_sdk_s3::Client;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Answer, ExecutionRow, Place, State};
use crate::feed::blocking;
use crate::inference::{Archive, Line, read_results};
use crate::s3::Bucket;

/// Scores kept of a window.
const POINTS: usize = 60;
/// Means of contributions kept of a window.
const SHARES: usize = 5;
/// Windows kept: those of four charts of the longest range that is drawn.
const KEPT: usize = 1_200;
/// How long an object that was gone, or refused, is not asked for again by every redrawing of a chart.
const ABSENT: Duration = Duration::from_secs(120);
/// Objects read at once.
const AT_ONCE: usize = 8;
/// Schedulers whose newest score is looked up for metrics and the overview.
const LATEST: usize = 50;
/// How often they are looked up.
const LATEST_EVERY: Duration = Duration::from_secs(15);

/// The thinned results of one window.
#[derive(Debug, Default)]
pub struct Scored {
    /// Sensors as `component\sensor`, in the model's order; empty where no line has contributions.
    pub names: Vec<String>,
    /// Time in seconds and the largest score of a stretch.
    pub points: Vec<(f64, f64)>,
    /// Time in seconds and mean shares of a stretch.
    pub shares: Vec<(f64, Vec<f64>)>,
    /// The last line's score.
    pub last: Option<(DateTime<Utc>, f64)>,
}

/// A scheduler's newest score.
#[derive(Clone, Debug, PartialEq)]
pub struct LatestScore {
    /// The scheduler.
    pub scheduler: String,
    /// The score.
    pub score: f64,
    /// The line's time.
    pub time: DateTime<Utc>,
}

/// The cache.
#[derive(Debug, Default)]
pub struct Scores {
    cache: Mutex<Cache>,
    latest: Mutex<(Option<Instant>, Vec<LatestScore>)>,
}

#[derive(Debug, Default)]
struct Cache {
    windows: HashMap<(String, String), Arc<Scored>>,
    order: VecDeque<(String, String)>,
    /// What could not be read, and when that was.
    absent: HashMap<(String, String), Instant>,
}

impl Scores {
    /// The results of `executions`, in their order; `None` for one without results, or whose object cannot be read now.
    pub async fn read(
        &self,
        client: &Client,
        executions: &[ExecutionRow],
    ) -> Vec<Option<Arc<Scored>>> {
        let places: Vec<_> = executions
            .iter()
            .map(|execution| (execution.file.clone(), execution.result.clone()))
            .collect();
        stream::iter(places)
            .map(|(file, place)| async move {
                // What is archived here needs no store.
                if let Some(file) = file {
                    let name = (String::new(), file.display().to_string());
                    return match self.known(&name) {
                        Some(known) => Some(known),
                        None => Some(self.keep(name, &read_file(file).await?)),
                    };
                }
                let (bucket, key) = place?;
                self.one(client, bucket, key).await
            })
            .buffered(AT_ONCE)
            .collect()
            .await
    }

    /// The newest scores that are known.
    pub fn latest(&self) -> Vec<LatestScore> {
        lock(&self.latest).1.clone()
    }

    /// Looks up the newest scores of the running schedulers, if the last look is some seconds ago.
    pub async fn refresh_latest(
        &self,
        history: Option<&Place>,
        client: Option<Client>,
        now: DateTime<Utc>,
    ) {
        let state: Option<State> = history.and_then(Place::open);
        let (Some(state), Some(client)) = (state, client) else {
            return;
        };
        {
            let mut latest = lock(&self.latest);
            if latest.0.is_some_and(|at| at.elapsed() < LATEST_EVERY) {
                return;
            }
            latest.0 = Some(Instant::now());
        }
        let rows = blocking(move || -> Answer<Vec<(String, ExecutionRow)>> {
            // Those with an active event first, or a fleet's would be known of its first names only.
            let mut schedulers = Vec::new();
            for (name, _) in state.counts(now)?.active.iter().take(LATEST) {
                schedulers.extend(state.scheduler(now, name)?);
            }
            for scheduler in state.schedulers(now, "", None, "", LATEST)? {
                if schedulers.len() < LATEST
                    && schedulers.iter().all(|known| known.name != scheduler.name)
                {
                    schedulers.push(scheduler);
                }
            }
            let mut rows = Vec::new();
            for scheduler in schedulers {
                let to_come = now + scheduler.cadence().duration();
                let newest =
                    state.executions(&scheduler.uuid, Some("SUCCESS"), None, Some(to_come), 1)?;
                rows.extend(newest.into_iter().map(|row| (scheduler.name.clone(), row)));
            }
            Ok(rows)
        })
        .await;
        let Ok(Ok(rows)) = rows else { return };
        let (names, executions): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let scored = self.read(&client, &executions).await;
        let found = names
            .into_iter()
            .zip(scored)
            .filter_map(|(scheduler, scored)| {
                let (time, score) = scored?.last?;
                Some(LatestScore {
                    scheduler,
                    score,
                    time,
                })
            })
            .collect();
        lock(&self.latest).1 = found;
    }

    async fn one(&self, client: &Client, bucket: String, key: String) -> Option<Arc<Scored>> {
        let name = (bucket, key);
        if let Some(known) = self.known(&name) {
            return Some(known);
        }
        if self.is_absent(&name) {
            return None;
        }
        let found = Bucket::new(client.clone(), &name.0).get(&name.1).await;
        let found = found.unwrap_or_else(|error| {
            debug!(%error, "results cannot be read for the console");
            None
        });
        match found {
            Some(bytes) => Some(self.keep(name, &bytes)),
            None => {
                lock(&self.cache).absent.insert(name, Instant::now());
                None
            }
        }
    }

    fn is_absent(&self, name: &(String, String)) -> bool {
        let mut cache = lock(&self.cache);
        cache.absent.retain(|_, at| at.elapsed() < ABSENT);
        cache.absent.contains_key(name)
    }

    fn known(&self, name: &(String, String)) -> Option<Arc<Scored>> {
        lock(&self.cache).windows.get(name).cloned()
    }

    fn keep(&self, name: (String, String), bytes: &[u8]) -> Arc<Scored> {
        let scored = Arc::new(thin(bytes));
        let mut cache = lock(&self.cache);
        if cache.windows.insert(name.clone(), scored.clone()).is_none() {
            cache.order.push_back(name);
        }
        if cache.order.len() > KEPT
            && let Some(oldest) = cache.order.pop_front()
        {
            cache.windows.remove(&oldest);
        }
        scored
    }
}

/// Archived results, compared with their record: what is damaged is left out, not drawn.
async fn read_file(file: PathBuf) -> Option<Vec<u8>> {
    let read = blocking(move || match file.exists() {
        true => Archive::read_checked(&file).map(Some),
        false => Ok(None),
    });
    match read.await.ok()? {
        Ok(bytes) => bytes,
        Err(error) => {
            warn!(%error, "archived results are left out of the console");
            None
        }
    }
}

/// Thins a results object out. Lines of eras without a score count as 0 or 1; lines that are no result are left out.
fn thin(bytes: &[u8]) -> Scored {
    let lines: Vec<Line> = bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| read_results(line).ok()?.pop())
        .collect();
    let mut scored = Scored::default();
    let score = |line: &Line| line.score.unwrap_or(if line.anomalous { 1.0 } else { 0.0 });
    for stretch in lines.chunks(lines.len().div_ceil(POINTS).max(1)) {
        let highest = stretch
            .iter()
            .map(|line| (seconds(line.time), score(line)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        scored.points.extend(highest);
    }
    let told: Vec<&Line> = lines
        .iter()
        .filter(|line| !line.sensors.is_empty())
        .collect();
    if let Some(first) = told.first() {
        scored.names = first.sensors.iter().map(|(name, _)| name.clone()).collect();
    }
    for stretch in told.chunks(told.len().div_ceil(SHARES).max(1)) {
        let mut means = vec![0.0; scored.names.len()];
        for line in stretch {
            for (mean, (_, share)) in means.iter_mut().zip(&line.sensors) {
                *mean += share / stretch.len() as f64;
            }
        }
        scored.shares.push((seconds(stretch[0].time), means));
    }
    scored.last = lines.last().map(|line| (line.time, score(line)));
    scored
}

/// Seconds since 1970, as charts want them.
pub fn seconds(time: DateTime<Utc>) -> f64 {
    (time - DateTime::UNIX_EPOCH)
        .max(TimeDelta::zero())
        .as_seconds_f64()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_peak_and_the_mean_contribution() {
        let mut text = String::new();
        for second in 0..600 {
            let score = if second == 333 { 0.97 } else { 0.1 };
            text.push_str(&format!(
                "{{\"timestamp\": \"2026-01-01T00:{:02}:{:02}.000000\", \"prediction\": {}, \"anomaly_score\": {score}, \
                 \"diagnostics\": [{{\"name\": \"a\\\\b\", \"value\": 0.25}}, {{\"name\": \"a\\\\c\", \"value\": 0.75}}]}}\n",
                second / 60,
                second % 60,
                u8::from(second == 333),
            ));
        }
        text.push_str("not a line\n");
        let scored = thin(text.as_bytes());
        assert_eq!(scored.points.len(), POINTS);
        let highest = scored
            .points
            .iter()
            .map(|point| point.1)
            .fold(0.0, f64::max);
        assert_eq!(highest, 0.97);
        assert_eq!(scored.names, ["a\\b", "a\\c"]);
        assert_eq!(scored.shares.len(), SHARES);
        assert!((scored.shares[0].1[1] - 0.75).abs() < 1e-9);
        assert_eq!(thin(b"").points, []);
    }
}
