//! The `ModelMetrics` text of the API: labelled ranges, predicted ranges with diagnostics, event counts.
//!
//! Keys and their order are the contract's (5.3). The API allows 50,000 characters: where all predicted ranges do not fit,
//! the ones that weigh least (sum of `u`) are left out and the counts still include them.

use serde::Serialize;

use super::evaluate::Evaluation;
use super::timestamp::format_micros;
use super::{Sensor, Span};

/// The longest text the API allows.
pub const LONGEST: usize = 50_000;

#[derive(Serialize)]
struct Metrics<'a> {
    labeled_ranges: Vec<Range>,
    labeled_event_metrics: LabeledEvents,
    predicted_ranges: Vec<&'a PredictedRange>,
    unknown_event_metrics: UnknownEvents,
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
    let ranges: Vec<PredictedRange> = evaluation
        .predicted
        .iter()
        .map(|event| PredictedRange {
            start: format_micros(event.event.start),
            end: format_micros(event.event.end),
            diagnostics: diagnostics(&evaluation.sensors, &event.event.contributions),
        })
        .collect();
    let mut heaviest: Vec<usize> = (0..ranges.len()).collect();
    heaviest.sort_by(|a, b| {
        evaluation.predicted[*b]
            .event
            .weight
            .total_cmp(&evaluation.predicted[*a].event.weight)
    });
    let mut left = longest.saturating_sub(text(evaluation, Vec::new()).len());
    let mut kept: Vec<usize> = Vec::new();
    for index in heaviest {
        // A range takes its own text and the comma before it.
        let length = to_text(&ranges[index]).len() + 1;
        if length > left {
            break;
        }
        left -= length;
        kept.push(index);
    }
    kept.sort_unstable();
    text(
        evaluation,
        kept.into_iter().map(|index| &ranges[index]).collect(),
    )
}

fn text(evaluation: &Evaluation, predicted_ranges: Vec<&PredictedRange>) -> String {
    let unknown = evaluation.predicted.iter().filter(|event| !event.labelled);
    let range = |span: &Span| Range {
        start: format_micros(span.start),
        end: format_micros(span.end),
    };
    to_text(&Metrics {
        labeled_ranges: evaluation
            .labelled
            .iter()
            .map(|label| range(&label.span))
            .collect(),
        labeled_event_metrics: LabeledEvents {
            num_labeled: evaluation.labelled.len(),
            num_identified: evaluation.found(),
            total_warning_time_in_seconds: evaluation.total_warning_seconds(),
        },
        predicted_ranges,
        unknown_event_metrics: UnknownEvents {
            num_identified: unknown.clone().count(),
            total_duration_in_seconds: unknown
                .map(|event| event.event.end - event.event.start)
                .sum::<i64>() as f64
                / 1e6,
        },
    })
}

fn diagnostics(sensors: &[Sensor], contributions: &[f64]) -> Vec<Diagnostic> {
    let value = |share: &f64| (share * 1e5).round() / 1e5;
    sensors
        .iter()
        .zip(contributions)
        .map(|(sensor, share)| Diagnostic {
            name: sensor.to_string(),
            value: value(share),
        })
        .collect()
}

fn to_text(value: &impl Serialize) -> String {
    // Texts, whole numbers and finite numbers always serialise.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::evaluate::{LabelledEvent, ModelQuality, Points, PredictedEvent};
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

    #[test]
    fn a_text_that_would_be_too_long_keeps_the_heaviest_ranges() {
        let text = model_metrics(&evaluation(1000));
        assert!(
            text.len() <= LONGEST && text.len() > LONGEST - 300,
            "{}",
            text.len()
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ranges = value["predicted_ranges"].as_array().unwrap();
        let last = evaluation(1000).predicted[999].event.start;
        assert_eq!(ranges.last().unwrap()["start"], format_micros(last));
        assert_eq!(value["unknown_event_metrics"]["num_identified"], 999);
    }
}
