//! What the demo tells: a line per result, and at the end whether the fault was found, when, and in which component. All of
//! it is read back from the archive, never from what the demo knows about the plant; that is only compared with it.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::cli::output;
use crate::inference::{Archive, Archived, Index, read_results};

/// The fault that is in the plant.
pub struct Story {
    /// The component that fails.
    pub component: String,
    /// When it begins to, wall-clock UTC.
    pub fault_start: DateTime<Utc>,
}

/// What the demo did and found.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Windows that went all the way, from files to results.
    pub windows: usize,
    /// Files of these windows.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Windows whose files landed, also those before the scheduler ran.
    pub windows_fed: usize,
    pub bucket: String,
    pub endpoint_url: String,
    pub api_url: String,
    pub console: String,
    /// The page of the first event after the fault began.
    pub event: Option<String>,
    pub data_dir: String,
    /// What the data directory occupies.
    pub data_bytes: u64,
    /// It was told already, while the demo went on.
    #[serde(skip)]
    pub concluded: bool,
    pub keys: Vec<String>,
    /// Executions archived.
    pub executions: usize,
    /// The longest run of windows without a gap, each with results.
    pub consecutive: usize,
    /// Of them failed.
    pub failed: usize,
    /// Windows with an anomaly.
    pub anomalous: usize,
    /// Windows with an anomaly before the fault.
    pub false_alarms: usize,
    /// The component that fails in the plant.
    pub fault_component: String,
    /// When it begins to.
    pub fault_start: Option<DateTime<Utc>>,
    /// The component with the largest share in what was found.
    pub found_component: Option<String>,
    /// Its share, 0 to 1.
    pub found_share: f64,
    /// The first window with an anomaly after the fault began.
    pub found_at: Option<DateTime<Utc>>,
}

/// What is archived so far, oldest first.
pub fn archived(archive: &Archive) -> anyhow::Result<Vec<Archived>> {
    let Some(index) = Index::open_existing(archive)? else {
        return Ok(Vec::new());
    };
    let mut rows = index.range("", None, None)?;
    rows.retain(|row| row.archived_at.is_some());
    Ok(rows)
}

impl Story {
    /// One line about a result.
    pub fn line(&self, row: &Archived) -> String {
        let start = output::utc(row.execution.data_start);
        if let Some(reason) = &row.execution.failed_reason {
            return format!("{start}  FAILED   {reason}");
        }
        let score = row.summary.score.unwrap_or_default();
        if row.summary.anomalous == 0 {
            return format!("{start}  normal   score {score:.3}");
        }
        let top: Vec<String> = row
            .summary
            .top
            .iter()
            .take(3)
            .map(|(sensor, share)| format!("{sensor} {:.0} %", share * 100.0))
            .collect();
        let anomaly = output::alarm("ANOMALY");
        format!("{start}  {anomaly}  score {score:.3}  {}", top.join(", "))
    }

    /// What the archive holds, compared with the fault.
    pub fn summary(&self, archive: &Archive) -> anyhow::Result<Summary> {
        let rows = archived(archive)?;
        let anomalous = |row: &&Archived| row.summary.anomalous > 0;
        let faulty = |row: &&Archived| row.execution.data_end > self.fault_start;
        let mut shares: BTreeMap<String, f64> = BTreeMap::new();
        for row in rows.iter().filter(anomalous).filter(faulty) {
            let Some(bytes) = archive.results(&row.execution)? else {
                continue;
            };
            for line in read_results(&bytes)?.iter().filter(|line| line.anomalous) {
                for (sensor, share) in &line.sensors {
                    let component = sensor.split('\\').next().unwrap_or_default();
                    *shares.entry(component.to_owned()).or_default() += share;
                }
            }
        }
        let total: f64 = shares.values().sum();
        let found = shares.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        Ok(Summary {
            executions: rows.len(),
            consecutive: consecutive(&rows),
            failed: rows
                .iter()
                .filter(|row| row.execution.status == "FAILED")
                .count(),
            anomalous: rows.iter().filter(anomalous).count(),
            false_alarms: rows
                .iter()
                .filter(anomalous)
                .filter(|row| !faulty(row))
                .count(),
            fault_component: self.component.clone(),
            fault_start: Some(self.fault_start),
            found_share: found.as_ref().map_or(0.0, |(_, share)| share / total),
            found_component: found.map(|(component, _)| component),
            found_at: rows
                .iter()
                .filter(anomalous)
                .find(faulty)
                .map(|row| row.execution.data_start),
            ..Summary::default()
        })
    }
}

/// The longest run of successful windows of which each begins where the last one ended.
fn consecutive(rows: &[Archived]) -> usize {
    let (mut longest, mut run) = (0, 0);
    let mut end = None;
    for row in rows {
        let follows = end == Some(row.execution.data_start);
        run = match (row.execution.status.as_str(), follows) {
            ("SUCCESS", true) => run + 1,
            ("SUCCESS", false) => 1,
            _ => 0,
        };
        end = Some(row.execution.data_end);
        longest = longest.max(run);
    }
    longest
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "fed        {} windows, {} files, {} in s3://{}/",
            self.windows,
            self.files,
            output::bytes(self.bytes),
            self.bucket
        )?;
        writeln!(
            f,
            "executions {} archived, {} in a row, {} failed",
            self.executions, self.consecutive, self.failed
        )?;
        writeln!(
            f,
            "anomalies  {} windows, {} of them before the fault",
            self.anomalous, self.false_alarms
        )?;
        match (&self.found_component, self.found_at, self.fault_start) {
            (Some(component), Some(at), Some(start)) => {
                let verdict = if *component == self.fault_component {
                    "FOUND"
                } else {
                    "MISTAKEN"
                };
                writeln!(
                    f,
                    "fault      {verdict}: {component} has {:.0} % of what is odd, first seen in the window {}; {} began to \
                     fail at {}",
                    self.found_share * 100.0,
                    output::utc(at),
                    self.fault_component,
                    output::utc(start)
                )?;
            }
            _ => writeln!(f, "fault      not found yet: let it run for more windows")?,
        }
        if let Some(event) = &self.event {
            writeln!(f, "event      {event}")?;
        }
        writeln!(
            f,
            "lies in    {}, {}: `lookoutd console {}` opens it again; remove it when you have seen enough",
            self.data_dir,
            output::bytes(self.data_bytes),
            self.data_dir
        )?;
        writeln!(
            f,
            "your data  lookoutd model train --help: from a Parquet or CSV history to a model and a picture of what it finds\n\
             \u{20}          cp config/gateway.toml lookoutd.toml, name history and tag list, lookoutd check --config lookoutd.toml"
        )
    }
}
