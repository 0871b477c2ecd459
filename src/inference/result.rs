//! `results.jsonl`: what a scheduler found, one line per row it scored.
//!
//! Guarantees: lines of every era are read (contract 5.2): the headerless CSV of the preview, and JSON with or without
//! reason, score and diagnostics; unknown members are ignored. A line that is none of these is refused with its number.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::events::{Row, events};
use crate::signal::timestamp;

/// One line of results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// When, UTC.
    pub time: DateTime<Utc>,
    /// Anomalous or not.
    pub anomalous: bool,
    /// `ANOMALY_DETECTED`, `NO_ANOMALY_DETECTED` or `MACHINE_OFF`; eras before 2021-08 have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// 0 to 1, anomalous above 0.5; eras before 2022-03 have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// `component\sensor` and its share, in the model's order; shares sum to 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sensors: Vec<(String, f64)>,
}

/// What the results of an execution say in short.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Lines.
    pub rows: usize,
    /// Lines with prediction 1.
    pub anomalous: usize,
    /// The highest score, where lines have one.
    pub score: Option<f64>,
    /// The sensors with the largest mean share over the anomalous lines.
    pub top: Vec<(String, f64)>,
    /// Its runs of anomalous lines, which events are put together from.
    #[serde(skip)]
    pub runs: Vec<Run>,
    /// The usual distance of two lines, microseconds; 0 where there are fewer.
    #[serde(skip)]
    pub step_us: i64,
}

/// A run of anomalous lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its first line, UTC microseconds.
    pub start_us: i64,
    /// Its last line.
    pub end_us: i64,
    /// Its lines.
    pub rows: usize,
    /// Mean shares over them, largest first.
    pub shares: Vec<(String, f64)>,
}

/// A line that is not a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}; expected {{\"timestamp\": ..., \"prediction\": 0 or 1, ...}}")]
pub struct ResultsError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// Sensors kept per execution.
const TOP: usize = 5;
/// Sensors kept of a run; a service has models of at most 300.
const RUN_SENSORS: usize = 300;

/// Reads a whole results object.
pub fn read_results(bytes: &[u8]) -> Result<Vec<Line>, ResultsError> {
    let mut lines = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let fail = |problem: String| ResultsError {
            line: index + 1,
            problem,
        };
        let text = std::str::from_utf8(line)
            .map_err(|_| fail("is not UTF-8".into()))?
            .trim();
        if !text.is_empty() {
            lines.push(read_line(text).map_err(fail)?);
        }
    }
    Ok(lines)
}

/// The sensors with the largest mean share over the anomalous lines, largest first; none where no line is anomalous.
pub fn top_sensors<'a>(
    lines: impl IntoIterator<Item = &'a Line>,
    most: usize,
) -> Vec<(String, f64)> {
    let mut shares = Shares::default();
    for line in lines {
        shares.take(line);
    }
    shares.top(most)
}

/// The shares of sensors in anomalous lines, line by line.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    sums: BTreeMap<String, f64>,
    lines: f64,
}

impl Shares {
    /// Takes a line in.
    pub fn take(&mut self, line: &Line) {
        if !line.anomalous || line.sensors.is_empty() {
            return;
        }
        self.lines += 1.0;
        for (name, share) in &line.sensors {
            match self.sums.get_mut(name) {
                Some(sum) => *sum += share,
                None => drop(self.sums.insert(name.clone(), *share)),
            }
        }
    }

    /// The sensors with the largest mean share, largest first.
    pub fn top(&self, most: usize) -> Vec<(String, f64)> {
        let mut top: Vec<(String, f64)> = self
            .sums
            .iter()
            .map(|(name, sum)| (name.clone(), sum / self.lines))
            .collect();
        // A stable sort: equal shares stay in the order of their names.
        top.sort_by(|a, b| b.1.total_cmp(&a.1));
        top.truncate(most);
        top
    }
}

impl Summary {
    /// The summary of a results object.
    pub fn of(bytes: &[u8]) -> Result<Self, ResultsError> {
        let lines = read_results(bytes)?;
        Ok(Self {
            rows: lines.len(),
            anomalous: lines.iter().filter(|line| line.anomalous).count(),
            score: lines
                .iter()
                .filter_map(|line| line.score)
                .max_by(f64::total_cmp),
            top: top_sensors(&lines, TOP),
            runs: runs(&lines),
            step_us: step(&lines),
        })
    }
}

/// The usual distance of two lines: the median.
fn step(lines: &[Line]) -> i64 {
    let mut gaps: Vec<i64> = lines
        .windows(2)
        .map(|pair| {
            (pair[1].time - pair[0].time)
                .num_microseconds()
                .unwrap_or(0)
        })
        .filter(|gap| *gap > 0)
        .collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).copied().unwrap_or(0)
}

/// The runs of anomalous lines, by the one rule of events.
fn runs(lines: &[Line]) -> Vec<Run> {
    let mut sensors: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.anomalous) {
        for (name, _) in &line.sensors {
            let next = sensors.len();
            sensors.entry(name).or_insert(next);
        }
    }
    let shares: Vec<Vec<f64>> = lines
        .iter()
        .map(|line| {
            let mut shares = vec![0.0; if line.anomalous { sensors.len() } else { 0 }];
            for (name, share) in &line.sensors {
                if let Some(at) = sensors.get(name.as_str())
                    && let Some(slot) = shares.get_mut(*at)
                {
                    *slot = *share;
                }
            }
            shares
        })
        .collect();
    let rows = lines.iter().zip(&shares).map(|(line, shares)| Row {
        time: line.time.timestamp_micros(),
        prediction: line.anomalous,
        weight: 1.0,
        shares,
    });
    events(rows, step(lines))
        .into_iter()
        .map(|event| {
            let mut shares: Vec<(String, f64)> = sensors
                .iter()
                .filter_map(|(name, at)| {
                    let share = *event.contributions.get(*at)?;
                    Some(((*name).to_owned(), share))
                })
                .collect();
            shares.sort_by(|a, b| b.1.total_cmp(&a.1));
            shares.truncate(RUN_SENSORS);
            Run {
                start_us: event.start,
                end_us: event.end,
                rows: event.rows,
                shares,
            }
        })
        .collect()
}

fn read_line(text: &str) -> Result<Line, String> {
    #[derive(Deserialize)]
    struct Json {
        timestamp: String,
        prediction: f64,
        prediction_reason: Option<String>,
        anomaly_score: Option<f64>,
        #[serde(default)]
        diagnostics: Vec<Diagnostic>,
    }
    #[derive(Deserialize)]
    struct Diagnostic {
        name: String,
        value: f64,
    }
    if !text.starts_with('{') {
        let (stamp, prediction) = text.split_once(',').ok_or("is neither JSON nor CSV")?;
        let prediction: f64 = prediction
            .trim()
            .parse()
            .map_err(|_| format!("\"{prediction}\" is not a prediction"))?;
        return Ok(Line {
            time: time(stamp)?,
            anomalous: anomalous(prediction)?,
            reason: None,
            score: None,
            sensors: Vec::new(),
        });
    }
    let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(Line {
        time: time(&json.timestamp)?,
        anomalous: anomalous(json.prediction)?,
        reason: json.prediction_reason,
        score: json.anomaly_score,
        sensors: json
            .diagnostics
            .into_iter()
            .map(|diagnostic| (diagnostic.name, diagnostic.value))
            .collect(),
    })
}

fn anomalous(prediction: f64) -> Result<bool, String> {
    match prediction {
        0.0 => Ok(false),
        1.0 => Ok(true),
        other => Err(format!("prediction is {other}, not 0 or 1")),
    }
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    timestamp::parse(text)
        .and_then(DateTime::from_timestamp_micros)
        .ok_or_else(|| format!("\"{text}\" is not a time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_era_are_read() {
        let text = concat!(
            "2020-12-01 10:00:00,1\n",
            "{\"timestamp\": \"2021-04-03T06:00:00.000000\", \"prediction\": 0}\n",
            "{\"timestamp\": \"2021-08-01T06:00:00.000000\", \"prediction\": 0, \"prediction_reason\": \"NO_ANOMALY_DETECTED\"}\n",
            "{\"timestamp\": \"2022-07-29T11:45:00.000000\", \"prediction\": 1, \"prediction_reason\": \"ANOMALY_DETECTED\", ",
            "\"anomaly_score\": 0.97399, \"diagnostics\": [{\"name\": \"pump\\\\S0\", \"value\": 0.25}, ",
            "{\"name\": \"pump\\\\S1\", \"value\": 0.75}]}\n",
            "{\"timestamp\": \"2024-03-11T22:24:00.000000\", \"prediction\": 0, \"prediction_reason\": \"MACHINE_OFF\"}\n",
        );
        let lines = read_results(text.as_bytes()).unwrap();
        assert_eq!(
            lines.iter().map(|line| line.anomalous).collect::<Vec<_>>(),
            [true, false, false, true, false]
        );
        assert_eq!(lines[3].score, Some(0.97399));
        assert_eq!(lines[4].reason.as_deref(), Some("MACHINE_OFF"));
        assert_eq!(top_sensors(&lines, 1), [("pump\\S1".to_owned(), 0.75)]);
        assert!(top_sensors(&lines[..3], 5).is_empty());
    }

    #[test]
    fn a_line_that_is_no_result_is_named() {
        let good = "{\"timestamp\": \"2021-04-03T06:00:00.000000\", \"prediction\": 0}\n";
        for bad in [
            "nonsense",
            "{\"timestamp\": \"x\", \"prediction\": 0}",
            "{\"prediction\": 2}",
        ] {
            let error = read_results(format!("{good}{bad}\n").as_bytes()).unwrap_err();
            assert_eq!(error.line, 2, "{error}");
        }
    }

    #[test]
    fn the_recorded_results_of_the_original_service_are_read() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/contract");
        for name in [
            "results_v1_2021_docs.jsonl",
            "results_v1_2021_seed_notebook.jsonl",
            "results_v3_2022_workshop_excerpt.jsonl",
            "results_v4_2024_docs.jsonl",
        ] {
            let bytes = std::fs::read(folder.join(name)).unwrap();
            assert!(!read_results(&bytes).unwrap().is_empty(), "{name}");
        }
    }
}
