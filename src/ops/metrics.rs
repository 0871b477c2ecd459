//! `/metrics`: a [`Snapshot`] in the text format that Prometheus scrapes (OpenMetrics 1.0).
//!
//! Everything is read at scrape time, so metrics agree with the ledger by construction. A value that is not known is left
//! out instead of being zero. Labels are bounded: states, statuses, and the names of schedulers with an active event, of
//! which there are at most a hundred.

mod inputs;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::health::{Reason, judge};
use super::site::{AssetSnapshot, FeedSnapshot, Snapshot, Standing as Watched, resident_bytes};
use crate::executions::LatestScore;
use crate::feed::{Entry, State, Uploads};
use crate::signal::Asset;
use crate::store::standing::Standing;
use crate::vitals::Code;

/// The media type of [`encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics. `scores` are the newest scores that the console has read.
pub fn encode(snapshot: &Snapshot, scores: &[LatestScore]) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("lookoutd");
    registry.register_collector(Box::new(Scrape {
        snapshot: snapshot.clone(),
        scores: scores.to_vec(),
    }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape {
    snapshot: Snapshot,
    scores: Vec<LatestScore>,
}

/// Writes one metric after the other.
struct Sheet<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet(&mut encoder);
        let snapshot = &self.snapshot;
        sheet.family(
            "build_info",
            "The version that runs",
            "version",
            &[(env!("CARGO_PKG_VERSION"), 1.0)],
        )?;
        let readiness = judge(snapshot);
        sheet.gauge(
            "ready",
            "1 while windows are delivered as they should",
            Some(f64::from(u8::from(readiness.ready))),
        )?;
        sheet.reasons(&readiness.reasons)?;
        sheet.gauge(
            "process_resident_bytes",
            "Resident memory of the process",
            resident_bytes().map(|bytes| bytes as f64),
        )?;
        sheet.gauge(
            "process_start_timestamp_seconds",
            "When the process was first looked at, seconds since 1970",
            Some(snapshot.started.timestamp() as f64),
        )?;
        feed_metrics(&mut sheet, snapshot)?;
        inputs::encode(&mut sheet, &snapshot.inputs)?;
        if snapshot.service.is_some() {
            let windows = snapshot
                .assets
                .iter()
                .filter(|one| one.feed.is_some())
                .map(|one| {
                    let windows = one.unscored.map_or(0, |unscored| unscored.windows);
                    (&one.asset, Some(windows as f64))
                });
            sheet.each(
                "windows_unscored",
                "Windows of the newest 500 that were delivered and never scored",
                windows,
            )?;
        }
        if let Some(store) = &snapshot.store {
            store_metrics(&mut sheet, store)?;
        }
        let standings = snapshot.assets.iter().map(|one| {
            let standing = one.watched.as_ref();
            let running = |standing: &Watched| standing.status.as_deref() == Some("RUNNING");
            (
                &one.asset,
                standing.map(|one| f64::from(u8::from(running(one)))),
            )
        });
        sheet.each(
            "scheduler_running",
            "1 while the inference scheduler this gateway keeps is RUNNING",
            standings,
        )?;
        if let Some(counts) = &snapshot.service {
            sheet.family(
                "schedulers",
                "Inference schedulers by status",
                "status",
                &named(&counts.schedulers),
            )?;
            sheet.gauge(
                "schedulers_failing",
                "Running schedulers whose last execution failed",
                Some(counts.failing as f64),
            )?;
            sheet.family(
                "executions_last_hour",
                "Executions of windows that ended in the last hour, by status",
                "status",
                &named(&counts.last_hour),
            )?;
            if let Some(waiting) = snapshot.unarchived {
                sheet.gauge(
                    "archive_waiting",
                    "Finished executions whose results are not archived yet",
                    Some(waiting as f64),
                )?;
            }
            sheet.gauge(
                "events_active",
                "Running schedulers whose last result is anomalous",
                Some(counts.active_count as f64),
            )?;
            let active: Vec<(&str, f64)> = counts
                .active
                .iter()
                .map(|(name, _)| (name.as_str(), 1.0))
                .collect();
            sheet.family(
                "event_active",
                "1 for a running scheduler whose last result is anomalous, at most 100 of them",
                "scheduler",
                &active,
            )?;
            let scores: Vec<(&str, f64)> = self
                .scores
                .iter()
                .map(|score| (score.scheduler.as_str(), score.score))
                .collect();
            sheet.family(
                "anomaly_score",
                "The newest anomaly score, anomalous above 0.5",
                "scheduler",
                &scores,
            )?;
        }
        Ok(())
    }
}

/// What the feeders say, with the label `asset` where there are assets with names.
fn feed_metrics(sheet: &mut Sheet<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
    // All share the disk, the clock, the store and its credentials.
    let Some(first) = snapshot.feeds().next() else {
        return Ok(());
    };
    delivery_metrics(sheet, snapshot)?;
    sheet.gauge(
        "disk_free_bytes",
        "Bytes free for the spool",
        first.free.map(|free| free as f64),
    )?;
    sheet.gauge(
        "disk_min_free_bytes",
        "Cutting pauses below this",
        Some(first.config.min_free.0 as f64),
    )?;
    sheet.gauge(
        "disk_days_to_full",
        "Days until cutting pauses, at the rate free space went away lately",
        first.days_to_full,
    )?;
    sheet.gauge(
        "outage_capacity_seconds",
        "How long the store may be away before cutting pauses, at the size of the recent windows",
        snapshot
            .outage_capacity()
            .map(|capacity| capacity.as_seconds_f64()),
    )?;
    source_metrics(sheet, snapshot)?;
    sheet.gauge(
        "clock_offset_seconds",
        "This machine's clock minus the store's Date, to a second",
        first.readings.offset.map(|offset| offset.as_seconds_f64()),
    )?;
    let most = |pick: fn(&FeedSnapshot) -> u64| snapshot.feeds().map(pick);
    sheet.counter(
        "clock_steps",
        "Steps of the machine's clock since the start",
        most(|feed| feed.conditions.steps).max().unwrap_or_default(),
    )?;
    sheet.gauge(
        "credentials_expire_timestamp_seconds",
        "When the credentials in use end, seconds since 1970; absent for those that do not",
        first
            .readings
            .expiry
            .map(|expiry| expiry.timestamp() as f64),
    )?;
    sheet.counter(
        "upload_failures",
        "Attempts to reach the store that failed since the start",
        most(|feed| feed.conditions.failed_uploads).sum(),
    )?;
    let paused = |one: &AssetSnapshot| snapshot.has(Code::SpoolPaused, &one.asset);
    sheet.gauge(
        "spool_paused",
        "1 while cutting is paused because the disk is full",
        Some(f64::from(u8::from(snapshot.assets.iter().any(paused)))),
    )?;
    let uploads = snapshot.feeds().map(|feed| feed.conditions.uploads);
    sheet.uploads(&uploads.fold(Uploads::default(), |mut sum, uploads| {
        for (count, more) in sum.counts.iter_mut().zip(uploads.counts) {
            *count += more;
        }
        sum.sum += uploads.sum;
        sum
    }))
}

fn delivery_metrics(sheet: &mut Sheet<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
    sheet.windows(snapshot)?;
    sheet.each_feed(snapshot, "cadence_seconds", "Window length", |feed| {
        Some(feed.config.cadence.seconds() as f64)
    })?;
    let now = snapshot.now;
    sheet.each_feed(
        snapshot,
        "oldest_undelivered_seconds",
        "How long the oldest window that is not in the store has waited since it was to be cut; 0 with none",
        |feed| Some(feed.oldest_age(now).as_seconds_f64()),
    )?;
    sheet.each_feed(
        snapshot,
        "last_delivered_timestamp_seconds",
        "Start of the newest window in the store, seconds since 1970",
        |feed| Some(feed.delivered.as_ref()?.start.timestamp() as f64),
    )?;
    sheet.each_feed(
        snapshot,
        "delivery_slack_seconds",
        "How long before the scheduler looks for it the newest delivered window was complete; negative: too late",
        |feed| feed.slack().map(|slack| slack.as_seconds_f64()),
    )?;
    sheet.each_feed(
        snapshot,
        "spool_bytes",
        "Bytes of input files that wait for upload",
        |feed| Some(feed.waiting.bytes as f64),
    )
}

fn source_metrics(sheet: &mut Sheet<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
    sheet.each_feed(
        snapshot,
        "source_rows",
        "Rows of the newest window that was cut",
        |feed| {
            let last = feed.recent.iter().find(|entry| entry.cut_at.is_some());
            last.map(|entry| entry.rows as f64)
        },
    )?;
    sheet.each_feed(
        snapshot,
        "source_rows_usual",
        "Median rows of the recent windows",
        |feed| feed.usual_rows().map(|rows| rows as f64),
    )?;
    sheet.each_feed(
        snapshot,
        "source_gaps",
        "Windows without rows, or with components missing, of the newest 24",
        |feed| {
            let is_gap = |entry: &&Entry| matches!(entry.state, State::Partial | State::Empty);
            Some(feed.recent.iter().filter(is_gap).count() as f64)
        },
    )
}

fn store_metrics(sheet: &mut Sheet<'_, '_>, store: &Standing) -> fmt::Result {
    let figures = &store.figures;
    sheet.gauge(
        "store_objects",
        "Objects in the embedded store",
        Some(figures.objects as f64),
    )?;
    sheet.gauge(
        "store_bytes",
        "Bytes of the objects in the embedded store",
        Some(figures.bytes as f64),
    )?;
    sheet.gauge(
        "store_file_bytes",
        "Bytes that the embedded store takes on its disk",
        Some(figures.file_bytes as f64),
    )?;
    sheet.gauge(
        "store_file_free_bytes",
        "Bytes of its files that the embedded store has free for new objects",
        Some(figures.free_bytes as f64),
    )?;
    sheet.gauge(
        "store_disk_free_bytes",
        "Bytes free on the disk of the embedded store",
        store.disk_free_bytes.map(|free| free as f64),
    )?;
    sheet.gauge(
        "store_days_to_full",
        "Days until that disk is full, at the rate the embedded store grew lately",
        store.days_to_full,
    )?;
    sheet.gauge(
        "store_uploads",
        "Uploads in parts that were begun and not completed",
        Some(figures.uploads as f64),
    )?;
    sheet.gauge(
        "store_upload_bytes",
        "Bytes of their parts",
        Some(figures.upload_bytes as f64),
    )?;
    sheet.counter(
        "store_damaged",
        "Readings of objects that were not what was stored, since the start",
        store.damaged,
    )?;
    sheet.gauge(
        "store_retention_timestamp_seconds",
        "When the embedded store was last looked through for what is old, seconds since 1970",
        store.last_pass.map(|at| at.timestamp() as f64),
    )?;
    // Prefixes come from the configuration; there may be any number of buckets.
    let mut kept: Vec<(&str, f64, f64, f64)> = Vec::new();
    for one in &store.kept {
        let (bytes, waiting) = (one.bytes as f64, one.waiting as f64);
        let held = if one.held { one.due as f64 } else { 0.0 };
        match kept.iter_mut().find(|known| known.0 == one.prefix) {
            Some(known) => *known = (known.0, known.1 + bytes, known.2 + waiting, known.3 + held),
            None => kept.push((&one.prefix, bytes, waiting, held)),
        }
    }
    let of = |pick: fn(&(&str, f64, f64, f64)) -> f64| -> Vec<(&str, f64)> {
        kept.iter().map(|one| (one.0, pick(one))).collect()
    };
    sheet.family(
        "store_kept_bytes",
        "Bytes of the objects that a rule of retention is about",
        "prefix",
        &of(|one| one.1),
    )?;
    sheet.family(
        "store_kept_waiting",
        "Objects that are old enough and wait for delivery, scoring or the archive",
        "prefix",
        &of(|one| one.2),
    )?;
    sheet.family(
        "store_retention_held",
        "Objects whose deletion is held because there are so many",
        "prefix",
        &of(|one| one.3),
    )
}

fn named(counts: &[(String, u64)]) -> Vec<(&str, f64)> {
    counts
        .iter()
        .map(|(name, count)| (name.as_str(), *count as f64))
        .collect()
}

impl Sheet<'_, '_> {
    fn begin(
        &mut self,
        name: &'static str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// One number, or nothing where it is not known.
    fn gauge(&mut self, name: &'static str, help: &str, value: Option<f64>) -> fmt::Result {
        match value {
            Some(value) => self
                .begin(name, help, MetricType::Gauge)?
                .encode_gauge(&value),
            None => Ok(()),
        }
    }

    fn counter(&mut self, name: &'static str, help: &str, value: u64) -> fmt::Result {
        self.begin(name, help, MetricType::Counter)?
            .encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    /// One number for each value of a label.
    fn family(
        &mut self,
        name: &'static str,
        help: &str,
        label: &str,
        values: &[(&str, f64)],
    ) -> fmt::Result {
        if values.is_empty() {
            return Ok(());
        }
        let mut metric = self.begin(name, help, MetricType::Gauge)?;
        for (text, value) in values {
            metric
                .encode_family(&[(label, *text)])?
                .encode_gauge(value)?;
        }
        Ok(())
    }

    /// One number for each asset that has one, with its name where it has one.
    fn each<'x>(
        &mut self,
        name: &'static str,
        help: &str,
        values: impl Iterator<Item = (&'x Asset, Option<f64>)>,
    ) -> fmt::Result {
        let values: Vec<_> = values
            .filter_map(|(asset, value)| Some((asset, value?)))
            .collect();
        match values.as_slice() {
            [(asset, value)] if !asset.is_named() => self.gauge(name, help, Some(*value)),
            values => {
                let named: Vec<_> = values
                    .iter()
                    .map(|(asset, value)| (asset.name(), *value))
                    .collect();
                self.family(name, help, "asset", &named)
            }
        }
    }

    fn each_feed(
        &mut self,
        snapshot: &Snapshot,
        name: &'static str,
        help: &str,
        pick: impl Fn(&FeedSnapshot) -> Option<f64>,
    ) -> fmt::Result {
        let values = snapshot
            .assets
            .iter()
            .map(|one| (&one.asset, one.feed.as_ref().and_then(&pick)));
        self.each(name, help, values)
    }

    fn windows(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let mut metric = self.begin(
            "windows",
            "Windows in the ledger by state; skipped counts ranges",
            MetricType::Gauge,
        )?;
        for one in &snapshot.assets {
            let Some(census) = one.feed.as_ref().map(|feed| &feed.census) else {
                continue;
            };
            for (state, count) in [
                ("due", census.due),
                ("spooled", census.spooled),
                ("shipped", census.shipped),
                ("partial", census.partial),
                ("covered", census.covered),
                ("empty", census.empty),
                ("skipped", census.skipped),
                ("quarantined", census.quarantined),
            ] {
                let count = &(count as f64);
                match one.asset.name() {
                    "" => metric
                        .encode_family(&[("state", state)])?
                        .encode_gauge(count)?,
                    asset => metric
                        .encode_family(&[("asset", asset), ("state", state)])?
                        .encode_gauge(count)?,
                }
            }
        }
        Ok(())
    }

    /// What is wrong, once for each code and subject.
    fn reasons(&mut self, reasons: &[Reason]) -> fmt::Result {
        let mut labels: Vec<_> = reasons
            .iter()
            .map(|reason| (reason.code, &reason.subject))
            .collect();
        labels.sort_unstable();
        labels.dedup();
        if labels.is_empty() {
            return Ok(());
        }
        let help = "What is wrong now, by the code that /readyz gives, and what it is about";
        let mut metric = self.begin("trouble", help, MetricType::Gauge)?;
        for (code, subject) in labels {
            metric
                .encode_family(&[
                    ("code", code.name()),
                    ("asset", &subject.asset),
                    ("thing", &subject.thing),
                ])?
                .encode_gauge(&1.0)?;
        }
        Ok(())
    }

    fn uploads(&mut self, uploads: &Uploads) -> fmt::Result {
        let bounds = Uploads::BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(uploads.counts).collect();
        self.begin(
            "upload_seconds",
            "How long uploads of whole windows took",
            MetricType::Histogram,
        )?
        .encode_histogram::<NoLabelSet>(
            uploads.sum,
            uploads.counts.iter().sum(),
            &buckets,
            None,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;
    use std::process::Command;

    use chrono::{DateTime, TimeDelta, Utc};

    use super::*;
    use crate::executions::Counts;
    use crate::feed::{self, Census, Conditions, Waiting};
    use crate::ops::site::Standing;
    use crate::s3::Readings;
    use crate::signal::{Cadence, Window};

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + minutes * 60, 0).unwrap()
    }

    /// A snapshot in which everything is known.
    fn whole() -> Snapshot {
        let window = Window::new(at(0), Cadence::Pt5m).unwrap();
        let mut entry = Entry::new(&window, State::Shipped);
        (entry.rows, entry.bytes) = (300, 1_000);
        entry.cut_at = Some(at(0));
        entry.shipped_at = Some(at(1));
        Snapshot {
            inputs: Vec::new(),
            now: at(4),
            started: at(0),
            assets: vec![AssetSnapshot {
                asset: Asset::default(),
                feed: Some(FeedSnapshot {
                    config: feed::Config::default(),
                    delay: TimeDelta::zero(),
                    census: Census {
                        shipped: 1,
                        ..Census::default()
                    },
                    waiting: Waiting::default(),
                    recent: vec![entry.clone()],
                    delivered: Some(entry),
                    free: Some(1 << 30),
                    room: Some(crate::feed::disk::Room {
                        bytes: 1 << 30,
                        files: None,
                        block: 4096,
                    }),
                    days_to_full: Some(100.0),
                    conditions: Conditions::default(),
                    readings: Readings {
                        offset: Some(TimeDelta::seconds(1)),
                        expiry: Some(at(600)),
                        renewal: None,
                    },
                }),
                watched: Some(Standing {
                    scheduler: "pump".into(),
                    status: Some("RUNNING".into()),
                    wanted: "RUNNING",
                    failure: None,
                    since: at(0),
                }),
                executed: None,
                unscored: None,
            }],
            service: Some(Counts {
                schedulers: vec![("RUNNING".into(), 1)],
                failing: 0,
                failing_since: Vec::new(),
                last_hour: vec![("SUCCESS".into(), 12)],
                active: vec![("pump \"1\"".into(), at(0))],
                active_count: 1,
                overdue: Vec::new(),
            }),
            unarchived: Some(0),
            store: Some(crate::store::standing::Standing {
                disk_free_bytes: Some(1 << 30),
                days_to_full: Some(800.0),
                last_pass: Some(at(2)),
                kept: vec![crate::store::retention::Prefix {
                    prefix: "input/".into(),
                    bytes: 42,
                    ..Default::default()
                }],
                ..Default::default()
            }),
            failures: Vec::new(),
            troubles: Vec::new(),
            stalled: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    fn text() -> String {
        let score = LatestScore {
            scheduler: "pump".into(),
            score: 0.25,
            time: at(0),
        };
        encode(&whole(), &[score]).unwrap()
    }

    fn document(name: &str) -> (PathBuf, String) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("docs")
            .join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    }

    /// Every `lookoutd_...` in a text.
    fn names(text: &str) -> BTreeSet<&str> {
        text.match_indices("lookoutd_")
            .map(|(start, _)| {
                let rest = &text[start..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                &rest[..end.unwrap_or(rest.len())]
            })
            .collect()
    }

    #[test]
    fn everything_known_is_written_once_and_escaped() {
        let text = text();
        for line in [
            "lookoutd_windows{state=\"shipped\"} 1.0",
            "lookoutd_delivery_slack_seconds 240.0",
            "lookoutd_event_active{scheduler=\"pump \\\"1\\\"\"} 1.0",
            "lookoutd_upload_seconds_bucket{le=\"+Inf\"} 0",
            "lookoutd_anomaly_score{scheduler=\"pump\"} 0.25",
            "lookoutd_store_kept_bytes{prefix=\"input/\"} 42.0",
            "lookoutd_store_days_to_full 800.0",
            "lookoutd_store_damaged_total 0",
        ] {
            assert!(text.contains(line), "{line} not in {text}");
        }
        let mut kinds: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let all = kinds.len();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), all);
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn windows_that_were_never_scored_are_a_number_and_a_reason() {
        let mut snapshot = whole();
        snapshot.assets[0].unscored = Some(crate::executions::Unscored {
            windows: 3,
            first: at(-60),
            last: at(-30),
        });
        let text = encode(&snapshot, &[]).unwrap();
        assert!(text.contains("lookoutd_windows_unscored 3.0"), "{text}");
        let said = crate::ops::health::judge(&snapshot);
        let reason = said
            .reasons
            .iter()
            .find(|reason| reason.code == Code::WindowsUnscored)
            .unwrap();
        assert!(!reason.blocking && said.ready);
        assert_eq!(reason.since, at(-60));
        assert!(
            reason
                .text
                .starts_with("3 windows were delivered and never scored")
        );
    }

    #[test]
    fn what_the_machines_clock_does_is_said_once_for_all_assets() {
        let mut snapshot = whole();
        let first = &mut snapshot.assets[0];
        first.asset = Asset::known("pump-1");
        let feed = first.feed.as_mut().unwrap();
        feed.readings.offset = Some(TimeDelta::minutes(2));
        feed.conditions.last_step = Some((at(3), 40));
        let mut other = first.clone();
        other.asset = Asset::known("pump-2");
        snapshot.assets.push(other);
        let said = crate::ops::health::judge(&snapshot).reasons;
        for code in [Code::ClockStepped, Code::ClockOffset] {
            let of: Vec<_> = said.iter().filter(|reason| reason.code == code).collect();
            assert_eq!(of.len(), 1, "{said:?}");
            assert_eq!(of[0].subject, crate::vitals::Subject::default());
        }
    }

    #[test]
    fn assets_with_names_have_a_label_each() {
        let mut snapshot = whole();
        let mut other = snapshot.assets[0].clone();
        snapshot.assets[0].asset = Asset::known("pump-1");
        other.asset = Asset::known("pump-2");
        snapshot.assets.push(other);
        let text = encode(&snapshot, &[]).unwrap();
        for line in [
            "lookoutd_windows{asset=\"pump-2\",state=\"shipped\"} 1.0",
            "lookoutd_delivery_slack_seconds{asset=\"pump-1\"} 240.0",
            "lookoutd_scheduler_running{asset=\"pump-2\"} 1.0",
            "lookoutd_clock_offset_seconds 1.0",
        ] {
            assert!(text.contains(line), "{line} not in {text}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut snapshot = whole();
        if let Some(feed) = &mut snapshot.assets[0].feed {
            feed.readings = Readings::default();
            feed.days_to_full = None;
        }
        snapshot.store = None;
        let text = encode(&snapshot, &[]).unwrap();
        for name in [
            "clock_offset",
            "credentials_expire",
            "days_to_full",
            "anomaly_score",
        ] {
            assert!(!text.contains(name), "{name}");
        }
    }

    #[test]
    fn alerts_and_dashboard_use_metrics_that_exist_and_name_runbooks_that_exist() {
        let text = text();
        // Alerts may be about trouble, which a healthy snapshot has none of.
        let known: BTreeSet<&str> = names(&text)
            .into_iter()
            .chain(["lookoutd_trouble"])
            .collect();
        let (_, operating) = document("operating.md");
        let anchors: BTreeSet<String> = operating
            .lines()
            .filter_map(|line| line.strip_prefix("### "))
            .map(str::to_lowercase)
            .collect();
        let (path, rules) = document("alerts.rules.yml");
        let (_, dashboard) = document("grafana-dashboard.json");
        serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
        for name in names(&rules).into_iter().chain(names(&dashboard)) {
            assert!(known.contains(name), "{name} is not in /metrics");
        }
        let mut alerts = 0;
        for alert in rules
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- alert: "))
        {
            alerts += 1;
            let runbook = format!("runbook: docs/operating.md#{}", alert.to_lowercase());
            assert!(rules.contains(&runbook), "{alert} has no {runbook}");
            assert!(
                anchors.contains(&alert.to_lowercase()),
                "{alert} has no section in operating.md"
            );
        }
        assert!(
            alerts > 20 && anchors.len() == alerts,
            "{alerts} alerts, {} sections",
            anchors.len()
        );
        // Codes that alerts ask for are codes that health gives.
        for code in rules
            .split("code=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
        {
            assert!(
                Code::named(code).is_some(),
                "{code} is no reason of /readyz"
            );
        }
        match Command::new("promtool")
            .args(["check", "rules"])
            .arg(&path)
            .output()
        {
            Ok(told) => assert!(
                told.status.success(),
                "{}",
                String::from_utf8_lossy(&told.stdout)
            ),
            Err(_) => crate::skipped::say("promtool is not installed (apt-get install prometheus)"),
        }
    }
}
