//! The `ModelMetrics` text of the API: labelled ranges, predicted ranges with diagnostics, event counts.
//!
//! Keys and their order are the contract's (5.3). The API allows 50,000 characters: where all predicted ranges with the
//! shares of all sensors do not fit, every range keeps the shares of as many of its heaviest sensors as there is room for.
//! Where not even one each fits, the ranges that weigh least (sum of `u`) are left out, and a last member says how many.
//! Labelled ranges leave the predicted ones half of the room where those need it: then the latest are listed, and a member
//! says how many are not. The counts of events are those of all.

use serde::Serialize;

use super::evaluate::{Evaluation, PredictedEvent};
use super::timestamp::format_micros;
use super::{Sensor, Span};

/// The longest text the API allows.
pub const LONGEST: usize = 50_000;
/// Room for each member that says how many ranges were left out.
const LEFT_OUT: usize = r#","predicted_ranges_left_out":4294967295"#.len();

#[derive(Serialize)]
struct Metrics<'a> {
    labeled_ranges: &'a [Range],
    labeled_event_metrics: LabeledEvents,
    predicted_ranges: &'a [PredictedRange],
    unknown_event_metrics: UnknownEvents,
    #[serde(skip_serializing_if = "is_none_left_out")]
    predicted_ranges_left_out: usize,
    #[serde(skip_serializing_if = "is_none_left_out")]
    labeled_ranges_left_out: usize,
}

fn is_none_left_out(count: &usize) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct Range {
    start: String,
    end: String,
}

#[derive(Serialize)]
struct PredictedRange {
    start: String,
    end: String,
    diagnostics: Vec<Diagnostic>,
}

#[derive(Serialize)]
struct Diagnostic {
    name: String,
    value: f64,
}

#[derive(Serialize)]
struct LabeledEvents {
    num_labeled: usize,
    num_identified: usize,
    total_warning_time_in_seconds: f64,
}

#[derive(Serialize)]
struct UnknownEvents {
    num_identified: usize,
    total_duration_in_seconds: f64,
}

/// The metrics of an evaluation, at most `LONGEST` characters.
pub fn model_metrics(evaluation: &Evaluation) -> String {
    within(evaluation, LONGEST)
}

fn within(evaluation: &Evaluation, longest: usize) -> String {
    // Without ranges, and without a word of them.
    let bare = text(evaluation, &[], &[], (0, 0)).len();
    let room = longest.saturating_sub(bare);
    let (labelled, left) = labelled_within(evaluation, room);
    let predicted = predicted_within(evaluation, left);
    let left_out = (
        evaluation.labelled.len() - labelled.len(),
        evaluation.predicted.len() - predicted.len(),
    );
    text(evaluation, &labelled, &predicted, left_out)
}

/// What ranges take in a text: each its own, and the comma before it.
fn length<T: Serialize>(ranges: &[T]) -> usize {
    ranges.iter().map(|range| to_text(range).len() + 1).sum()
}

/// The labelled ranges that are listed, and the room that they leave.
fn labelled_within(evaluation: &Evaluation, room: usize) -> (Vec<Range>, usize) {
    let range = |span: &Span| Range {
        start: format_micros(span.start),
        end: format_micros(span.end),
    };
    let mut all: Vec<Range> = evaluation
        .labelled
        .iter()
        .map(|label| range(&label.span))
        .collect();
    let needed = length(&ranges(evaluation, 1));
    let most = room.saturating_sub(needed).max(room / 2);
    let taken = length(&all);
    if taken <= most {
        return (all, room - taken);
    }
    let mut left = most.saturating_sub(LEFT_OUT);
    let fits = |range: &&Range| {
        let length = to_text(range).len() + 1;
        let fits = length <= left;
        left = left.saturating_sub(length);
        fits
    };
    let kept = all.iter().rev().take_while(fits).count();
    let kept = all.split_off(all.len() - kept);
    let taken = length(&kept) + LEFT_OUT;
    (kept, room.saturating_sub(taken))
}

/// The predicted ranges that are listed, with as many shares as there is room for.
fn predicted_within(evaluation: &Evaluation, room: usize) -> Vec<PredictedRange> {
    let all = ranges(evaluation, evaluation.sensors.len());
    if length(&all) <= room {
        return all;
    }
    // More sensors never make a shorter text: halve to the most that fit.
    let (mut fits, mut too_many) = (1, evaluation.sensors.len());
    while fits + 1 < too_many {
        let middle = fits + (too_many - fits) / 2;
        if length(&ranges(evaluation, middle)) <= room {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    let ranges = ranges(evaluation, fits);
    let mut heaviest: Vec<usize> = (0..ranges.len()).collect();
    heaviest.sort_by(|a, b| {
        evaluation.predicted[*b]
            .event
            .weight
            .total_cmp(&evaluation.predicted[*a].event.weight)
    });
    let lengths: Vec<usize> = ranges
        .iter()
        .map(|range| to_text(range).len() + 1)
        .collect();
    let mut left = room;
    if lengths.iter().sum::<usize>() > room {
        left = room.saturating_sub(LEFT_OUT);
    }
    let mut kept = vec![false; ranges.len()];
    for index in heaviest {
        if lengths[index] > left {
            break;
        }
        left -= lengths[index];
        kept[index] = true;
    }
    let kept_ranges = ranges.into_iter().zip(kept).filter(|(_, kept)| *kept);
    kept_ranges.map(|(range, _)| range).collect()
}

/// Every predicted range with the shares of its `most` heaviest sensors, in the order of the sensors.
fn ranges(evaluation: &Evaluation, most: usize) -> Vec<PredictedRange> {
    let range = |event: &PredictedEvent| PredictedRange {
        start: format_micros(event.event.start),
        end: format_micros(event.event.end),
        diagnostics: diagnostics(&evaluation.sensors, &event.event.contributions, most),
    };
    evaluation.predicted.iter().map(range).collect()
}

fn text(
    evaluation: &Evaluation,
    labelled: &[Range],
    predicted: &[PredictedRange],
    (labelled_left_out, predicted_left_out): (usize, usize),
) -> String {
    let unknown = evaluation.predicted.iter().filter(|event| !event.labelled);
    to_text(&Metrics {
        labeled_ranges: labelled,
        labeled_event_metrics: LabeledEvents {
            num_labeled: evaluation.labelled.len(),
            num_identified: evaluation.found(),
            total_warning_time_in_seconds: evaluation.total_warning_seconds(),
        },
        predicted_ranges: predicted,
        unknown_event_metrics: UnknownEvents {
            num_identified: unknown.clone().count(),
            total_duration_in_seconds: unknown
                .map(|event| event.event.end - event.event.start)
                .sum::<i64>() as f64
                / 1e6,
        },
        predicted_ranges_left_out: predicted_left_out,
        labeled_ranges_left_out: labelled_left_out,
    })
}

fn diagnostics(sensors: &[Sensor], contributions: &[f64], most: usize) -> Vec<Diagnostic> {
    let mut heaviest: Vec<usize> = (0..sensors.len().min(contributions.len())).collect();
    if most < heaviest.len() {
        heaviest.sort_by(|a, b| contributions[*b].total_cmp(&contributions[*a]));
        heaviest.truncate(most);
        heaviest.sort_unstable();
    }
    let diagnostic = |index: usize| Diagnostic {
        name: sensors[index].to_string(),
        value: (contributions[index] * 1e5).round() / 1e5,
    };
    heaviest.into_iter().map(diagnostic).collect()
}

fn to_text(value: &impl Serialize) -> String {
    // Texts, whole numbers and finite numbers always serialise.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::evaluate::{LabelledEvent, ModelQuality, Points};
    use crate::model::events::Event;

    fn evaluation(events: usize) -> Evaluation {
        let event = |n: usize| Event {
            start: n as i64 * 100_000_000,
            end: n as i64 * 100_000_000 + 60_000_000,
            rows: 2,
            weight: n as f64,
            contributions: vec![0.25, 0.75],
        };
        Evaluation {
            sensors: vec![Sensor::new("pump", "a"), Sensor::new("pump", "b")],
            range: Span { start: 0, end: 1 },
            series: Vec::new(),
            labelled: vec![LabelledEvent {
                span: Span {
                    start: 0,
                    end: 3_600_000_000,
                },
                warning: Some(1_500_000),
            }],
            predicted: (0..events)
                .map(|n| PredictedEvent {
                    event: event(n),
                    labelled: n == 0,
                })
                .collect(),
            points: Points::default(),
            auc_pr: None,
            false_events_per_week: 0.0,
            worst_sensors: Vec::new(),
            quality: ModelQuality::QualityThresholdMet,
            warnings: Vec::new(),
            step: 60_000_000,
        }
    }

    #[test]
    fn the_text_has_the_contracts_keys_in_its_order() {
        assert_eq!(
            model_metrics(&evaluation(2)),
            concat!(
                r#"{"labeled_ranges":[{"start":"1970-01-01T00:00:00.000000","end":"1970-01-01T01:00:00.000000"}],"#,
                r#""labeled_event_metrics":{"num_labeled":1,"num_identified":1,"total_warning_time_in_seconds":1.5},"#,
                r#""predicted_ranges":[{"start":"1970-01-01T00:00:00.000000","end":"1970-01-01T00:01:00.000000","#,
                r#""diagnostics":[{"name":"pump\\a","value":0.25},{"name":"pump\\b","value":0.75}]},"#,
                r#"{"start":"1970-01-01T00:01:40.000000","end":"1970-01-01T00:02:40.000000","#,
                r#""diagnostics":[{"name":"pump\\a","value":0.25},{"name":"pump\\b","value":0.75}]}],"#,
                r#""unknown_event_metrics":{"num_identified":1,"total_duration_in_seconds":60.0}}"#
            )
        );
    }

    /// `events` events of `sensors` sensors, of which sensor `n % sensors` weighs most in event `n`.
    fn of_many(events: usize, sensors: usize) -> Evaluation {
        let mut evaluation = evaluation(events);
        evaluation.sensors = (0..sensors)
            .map(|n| Sensor::new("pump", format!("signal-{n:03}")))
            .collect();
        for (n, predicted) in evaluation.predicted.iter_mut().enumerate() {
            let share = |sensor| {
                if sensor == n % sensors {
                    0.5
                } else {
                    0.5 / sensors as f64
                }
            };
            predicted.event.contributions = (0..sensors).map(share).collect();
        }
        evaluation
    }

    fn listed(text: &str) -> Vec<serde_json::Value> {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        value["predicted_ranges"].as_array().unwrap().clone()
    }

    #[test]
    fn every_range_is_listed_with_as_many_of_its_heaviest_sensors_as_fit() {
        for events in [10, 40, 300] {
            let text = model_metrics(&of_many(events, 122));
            let ranges = listed(&text);
            assert_eq!(ranges.len(), events);
            let sensors = ranges[0]["diagnostics"].as_array().unwrap().len();
            // One sensor more in each range would not have fitted.
            let more = text.len() + events * r#"{"name":"pump\\signal-000","value":0.0041},"#.len();
            assert!(text.len() <= LONGEST && more > LONGEST, "{}", text.len());
            for (n, range) in ranges.iter().enumerate() {
                let shares = range["diagnostics"].as_array().unwrap();
                assert_eq!(shares.len(), sensors);
                let heaviest = format!("pump\\signal-{:03}", n % 122);
                assert!(
                    shares
                        .iter()
                        .any(|it| it["name"] == *heaviest && it["value"] == 0.5)
                );
                let names: Vec<&str> = shares
                    .iter()
                    .map(|it| it["name"].as_str().unwrap())
                    .collect();
                assert!(names.is_sorted(), "{names:?}");
            }
            assert!(!text.contains("left_out"));
        }
        assert_eq!(
            listed(&model_metrics(&of_many(8, 122)))[0]["diagnostics"]
                .as_array()
                .unwrap()
                .len(),
            122
        );
    }

    #[test]
    fn a_text_that_would_be_too_long_keeps_the_heaviest_ranges_and_says_how_many_it_left_out() {
        let text = model_metrics(&evaluation(1000));
        assert!(
            text.len() <= LONGEST && text.len() > LONGEST - 300,
            "{}",
            text.len()
        );
        let ranges = listed(&text);
        let last = evaluation(1000).predicted[999].event.start;
        assert_eq!(ranges.last().unwrap()["start"], format_micros(last));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["unknown_event_metrics"]["num_identified"], 999);
        assert_eq!(value["predicted_ranges_left_out"], 1000 - ranges.len());
    }

    fn with_labels(events: usize, labels: usize) -> Evaluation {
        let mut evaluation = evaluation(events);
        let label = |n: usize| LabelledEvent {
            span: Span {
                start: n as i64 * 7_200_000_000,
                end: n as i64 * 7_200_000_000 + 3_600_000_000,
            },
            warning: n.is_multiple_of(2).then_some(1_000_000),
        };
        evaluation.labelled = (0..labels).map(label).collect();
        evaluation
    }

    #[test]
    fn labels_that_would_be_too_long_leave_room_for_what_was_predicted_and_say_how_many_are_not_listed()
     {
        for (labels, events) in [(700, 0), (700, 3), (5000, 1000), (5000, 0), (300, 1000)] {
            let evaluation = with_labels(events, labels);
            let text = model_metrics(&evaluation);
            let length = text.len();
            assert!(length <= LONGEST && length > LONGEST - 500 || labels == 300);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let labelled = value["labeled_ranges"].as_array().unwrap();
            let left_out = value["labeled_ranges_left_out"].as_u64().unwrap_or(0);
            assert_eq!(
                labelled.len() + left_out as usize,
                labels,
                "{labels} {events}"
            );
            let predicted = listed(&text);
            let left_out = value["predicted_ranges_left_out"].as_u64().unwrap_or(0);
            assert_eq!(
                predicted.len() + left_out as usize,
                events,
                "{labels} {events}"
            );
            // The latest are listed, in their order, and all are counted.
            let last = evaluation.labelled[labels - 1].span.start;
            assert_eq!(labelled.last().unwrap()["start"], format_micros(last));
            assert!(labelled.is_sorted_by_key(|range| range["start"].as_str().unwrap()));
            assert_eq!(value["labeled_event_metrics"]["num_labeled"], labels);
            assert!(events == 0 || !predicted.is_empty());
            if events == 1000 {
                let half: usize = predicted.iter().map(|range| range.to_string().len()).sum();
                assert!(half > LONGEST / 3, "{half}");
            }
        }
    }

    #[test]
    fn a_text_in_which_nothing_fits_says_so() {
        let evaluation = with_labels(3, 2);
        let value: serde_json::Value = serde_json::from_str(&within(&evaluation, 10)).unwrap();
        assert_eq!(value["labeled_ranges"], serde_json::json!([]));
        assert_eq!(value["predicted_ranges"], serde_json::json!([]));
        assert_eq!(value["predicted_ranges_left_out"], 3);
        assert_eq!(value["labeled_ranges_left_out"], 2);
    }
}
