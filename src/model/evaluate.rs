//! How good a model is on a range with labels: events found, warning time, false events, ranking of single rows.
//!
//! No point adjustment and no threshold chosen afterwards: rows count as they were predicted. A labelled event is found if
//! a predicted event overlaps it; its warning time is its end minus the first predicted instant inside it. Rows that are
//! off or empty count as not anomalous.

use serde::Serialize;

use super::events::{Event, EventBuilder, Row, SHORTEST};
use super::fit::labelled;
use super::guard::Warning;
use super::{Model, Scored, Sensor, Span};

/// More than this share of unlabelled rows predicted anomalous is a change of regime.
const REGIME_CHANGE: f64 = 0.2;
/// More false events than this many times the rate the model was trained for is poor.
const POOR_RATE: f64 = 5.0;
const SECOND: f64 = 1e6;
const WEEK: f64 = 604_800.0;

/// The contract's verdict on a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ModelQuality {
    /// Labels, and none of the reasons for the other two.
    QualityThresholdMet,
    /// No labels in the evaluation range.
    CannotDetermineQuality,
    /// Fewer than half of the labelled events found, more than five times the tolerated false events, or more than 20 %
    /// of the unlabelled rows predicted anomalous.
    PoorQualityDetected,
}

/// A labelled event and whether it was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelledEvent {
    /// The label.
    pub span: Span,
    /// From the first predicted instant inside the label to its end, microseconds; none where it was missed.
    pub warning: Option<i64>,
}

/// A predicted event and whether a label overlaps it.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictedEvent {
    /// The event.
    pub event: Event,
    /// A label overlaps it.
    pub labelled: bool,
}

/// Rows counted by label and prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Points {
    /// Labelled and predicted.
    pub true_positive: usize,
    /// Not labelled but predicted.
    pub false_positive: usize,
    /// Labelled but not predicted.
    pub false_negative: usize,
    /// Neither.
    pub true_negative: usize,
}

/// One row as the picture shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// UTC microseconds.
    pub time: i64,
    /// Smoothed -log10 tail probability.
    pub u: f64,
    /// Anomaly score, 0 to 1.
    pub anomaly_score: f64,
    /// Above the threshold.
    pub prediction: bool,
    /// Under a label.
    pub labelled: bool,
    /// Not off and not empty.
    pub scored: bool,
}

/// Takes scored rows in time order.
pub struct Evaluator<'a> {
    model: &'a Model,
    labels: Vec<Span>,
    builder: EventBuilder,
    events: Vec<Event>,
    points: Vec<Point>,
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The model's sensors.
    pub sensors: Vec<Sensor>,
    /// First and last row.
    pub range: Span,
    /// Every row.
    pub series: Vec<Point>,
    /// The labels that overlap the range.
    pub labelled: Vec<LabelledEvent>,
    /// Predicted events, in time order.
    pub predicted: Vec<PredictedEvent>,
    /// Rows by label and prediction.
    pub points: Points,
    /// Average precision of the rows' `u`, none without labelled rows.
    pub auc_pr: Option<f64>,
    /// Predicted events without a label per week of unlabelled rows.
    pub false_events_per_week: f64,
    /// Sensors by their mean share in the predicted events, largest first; empty without events.
    pub worst_sensors: Vec<(Sensor, f64)>,
    /// The verdict.
    pub quality: ModelQuality,
    /// What to know about the data.
    pub warnings: Vec<Warning>,
    /// One step in microseconds.
    pub step: i64,
}

impl Points {
    /// Share of the rows predicted anomalous that are labelled; 0 without predictions.
    pub fn precision(&self) -> f64 {
        ratio(self.true_positive, self.true_positive + self.false_positive)
    }

    /// Share of the labelled rows that are predicted anomalous.
    pub fn recall(&self) -> f64 {
        ratio(self.true_positive, self.true_positive + self.false_negative)
    }

    /// Harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        ratio(
            2 * self.true_positive,
            2 * self.true_positive + self.false_positive + self.false_negative,
        )
    }

    /// False alarm rate: share of the unlabelled rows that are predicted anomalous.
    pub fn false_alarm_rate(&self) -> f64 {
        ratio(
            self.false_positive,
            self.false_positive + self.true_negative,
        )
    }

    /// Missed alarm rate: share of the labelled rows that are not predicted anomalous.
    pub fn missed_alarm_rate(&self) -> f64 {
        ratio(
            self.false_negative,
            self.false_negative + self.true_positive,
        )
    }
}

impl<'a> Evaluator<'a> {
    /// An evaluation of a model against labels; those outside the rows are ignored.
    pub fn new(model: &'a Model, labels: Vec<Span>) -> Self {
        Self {
            model,
            labels,
            builder: EventBuilder::new(model.step_us()),
            events: Vec::new(),
            points: Vec::new(),
        }
    }

    /// Takes the next rows.
    pub fn push(&mut self, rows: &[Scored]) {
        let cover = self
            .model
            .sampling()
            .map_or(0, |sampling| sampling.micros());
        for row in rows {
            let closed = self.builder.push(Row {
                time: row.time,
                prediction: row.prediction,
                weight: row.u,
                shares: &row.contributions,
            });
            self.events.extend(closed.filter(counts));
            self.points.push(Point {
                time: row.time,
                u: row.u,
                anomaly_score: row.anomaly_score,
                prediction: row.prediction,
                labelled: labelled(&self.labels, row.time, cover),
                scored: !row.contributions.is_empty(),
            });
        }
    }

    /// The result; none where there was no row.
    pub fn finish(mut self) -> Option<Evaluation> {
        self.events.extend(self.builder.finish().filter(counts));
        let (first, last) = (self.points.first()?.time, self.points.last()?.time);
        let step = self.model.step_us();
        let cover = self
            .model
            .sampling()
            .map_or(0, |sampling| sampling.micros() - 1);
        self.labels
            .retain(|label| label.overlaps(first - cover, last));
        let overlaps = |event: &Event, label: &Span| label.overlaps(event.start - cover, event.end);
        let labelled: Vec<LabelledEvent> = self
            .labels
            .iter()
            .map(|label| {
                let found = self.events.iter().find(|event| overlaps(event, label));
                LabelledEvent {
                    span: *label,
                    warning: found
                        .map(|event| label.end - event.start.clamp(label.start, label.end)),
                }
            })
            .collect();
        let predicted: Vec<PredictedEvent> = self
            .events
            .into_iter()
            .map(|event| PredictedEvent {
                labelled: self.labels.iter().any(|label| overlaps(&event, label)),
                event,
            })
            .collect();
        let points = count(&self.points);
        let unlabelled = points.false_positive + points.true_negative;
        let weeks = unlabelled as f64 * step as f64 / SECOND / WEEK;
        let false_events = predicted.iter().filter(|event| !event.labelled).count();
        let false_events_per_week = if false_events == 0 {
            0.0
        } else {
            false_events as f64 / weeks.max(1e-9)
        };
        let regime = points.false_alarm_rate() > REGIME_CHANGE;
        let found = labelled
            .iter()
            .filter(|label| label.warning.is_some())
            .count();
        let poor = regime
            || 2 * found < labelled.len()
            || false_events_per_week > POOR_RATE * self.model.rate_per_week();
        let quality = match labelled.is_empty() {
            true => ModelQuality::CannotDetermineQuality,
            false if poor => ModelQuality::PoorQualityDetected,
            false => ModelQuality::QualityThresholdMet,
        };
        let warnings = if regime {
            vec![Warning::RegimeChange {
                share: points.false_alarm_rate(),
            }]
        } else {
            Vec::new()
        };
        Some(Evaluation {
            sensors: self.model.sensors().to_vec(),
            range: Span {
                start: first,
                end: last,
            },
            auc_pr: average_precision(&self.points),
            worst_sensors: worst_sensors(self.model.sensors(), &predicted),
            series: self.points,
            labelled,
            predicted,
            points,
            false_events_per_week,
            quality,
            warnings,
            step,
        })
    }
}

impl Evaluation {
    /// Labelled events found.
    pub fn found(&self) -> usize {
        self.labelled
            .iter()
            .filter(|label| label.warning.is_some())
            .count()
    }

    /// Sum of the warning times in seconds.
    pub fn total_warning_seconds(&self) -> f64 {
        self.labelled
            .iter()
            .filter_map(|label| label.warning)
            .sum::<i64>() as f64
            / SECOND
    }
}

/// Whether an event is long enough to be counted.
const fn counts(event: &Event) -> bool {
    event.rows >= SHORTEST
}

fn count(points: &[Point]) -> Points {
    let mut counts = Points::default();
    for point in points {
        let counter = match (point.labelled, point.prediction) {
            (true, true) => &mut counts.true_positive,
            (true, false) => &mut counts.false_negative,
            (false, true) => &mut counts.false_positive,
            (false, false) => &mut counts.true_negative,
        };
        *counter += 1;
    }
    counts
}

/// Area under the precision-recall curve by its steps (average precision); rows of equal `u` count at once.
fn average_precision(points: &[Point]) -> Option<f64> {
    let positive = points.iter().filter(|point| point.labelled).count();
    if positive == 0 {
        return None;
    }
    let mut ranked: Vec<(f64, bool)> = points
        .iter()
        .map(|point| (point.u, point.labelled))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut area, mut found, mut counted) = (0.0, 0, 0);
    for (index, (u, labelled)) in ranked.iter().enumerate() {
        found += usize::from(*labelled);
        if ranked.get(index + 1).is_none_or(|(next, _)| next != u) {
            area += (found - counted) as f64 / positive as f64 * found as f64 / (index + 1) as f64;
            counted = found;
        }
    }
    Some(area)
}

fn worst_sensors(sensors: &[Sensor], events: &[PredictedEvent]) -> Vec<(Sensor, f64)> {
    let total: f64 = events.iter().map(|event| event.event.weight).sum();
    if total <= 0.0 {
        return Vec::new();
    }
    let share = |at: usize| {
        let sum: f64 = events
            .iter()
            .map(|event| event.event.weight * event.event.contributions[at])
            .sum();
        sum / total
    };
    let mut ranked: Vec<_> = sensors
        .iter()
        .enumerate()
        .map(|(at, sensor)| (sensor.clone(), share(at)))
        .collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(u: f64, labelled: bool) -> Point {
        Point {
            time: 0,
            u,
            anomaly_score: 0.0,
            prediction: u > 2.0,
            labelled,
            scored: true,
        }
    }

    #[test]
    fn average_precision_counts_ties_at_once() {
        assert_eq!(average_precision(&[point(1.0, false)]), None);
        let perfect = [point(3.0, true), point(2.0, true), point(1.0, false)];
        assert_eq!(average_precision(&perfect), Some(1.0));
        let tied = [
            point(3.0, true),
            point(3.0, false),
            point(1.0, true),
            point(0.5, false),
        ];
        let expected = 0.5 * 0.5 + 0.5 * 2.0 / 3.0;
        assert!((average_precision(&tied).unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn rows_are_counted_by_label_and_prediction() {
        let counts = count(&[
            point(3.0, true),
            point(1.0, true),
            point(3.0, false),
            point(0.0, false),
            point(0.0, false),
        ]);
        assert_eq!(
            (counts.precision(), counts.recall(), counts.f1()),
            (0.5, 0.5, 0.5)
        );
        assert_eq!(
            (counts.false_alarm_rate(), counts.missed_alarm_rate()),
            (1.0 / 3.0, 0.5)
        );
        assert_eq!(Points::default().f1(), 0.0);
    }
}
