//! The bytes of `results.jsonl`, in the four eras of contract 5.2.
//!
//! Guarantees: UTF-8 JSON lines with Python's separators (`", "`, `": "`), a newline after every line, keys in the order
//! timestamp, prediction, prediction_reason, anomaly_score, diagnostics; numbers with at most five decimals, printed as
//! Python prints them; never `NaN`, `null`, `true` or `false`, because consumers parse lines with Python's `eval`.
//! The rounded score is above 0.5 exactly when the prediction is 1.

use std::fmt::Write;

use chrono::{DateTime, Utc};

use crate::model::{Reason, Scored};
use crate::service::options::ResultsFormat;

/// The whole object. `names` are the model's sensors as `component\sensor`, in the model's order.
pub fn render(lines: &[Scored], names: &[String], format: ResultsFormat) -> Vec<u8> {
    let names: Vec<String> = names
        .iter()
        .map(|name| serde_json::Value::from(name.as_str()).to_string())
        .collect();
    let mut text = String::with_capacity(lines.len() * (160 + names.len() * 48));
    for line in lines {
        render_line(&mut text, line, &names, format);
    }
    text.into_bytes()
}

/// Where the results of the window that starts at `start` go (contract 5.1).
pub fn key(prefix: &str, start: DateTime<Utc>) -> String {
    format!(
        "{prefix}{}/results.jsonl",
        start.format("%Y-%m-%dT%H:%M:%SZ")
    )
}

fn render_line(text: &mut String, line: &Scored, names: &[String], format: ResultsFormat) {
    let time = DateTime::from_timestamp_micros(line.time).unwrap_or_default();
    let prediction = u8::from(line.prediction);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{{\"timestamp\": \"{}\", \"prediction\": {prediction}",
        time.format("%Y-%m-%dT%H:%M:%S%.6f")
    );
    if format >= ResultsFormat::V2 {
        let _ = write!(
            text,
            ", \"prediction_reason\": \"{}\"",
            line.reason.as_str()
        );
    }
    let off = line.reason == Reason::MachineOff;
    if format >= ResultsFormat::V3 && !off {
        text.push_str(", \"anomaly_score\": ");
        push_decimal(text, score_hundred_thousandths(line));
    }
    let diagnosed = line.prediction || (format >= ResultsFormat::V4 && !off);
    if diagnosed && !line.contributions.is_empty() {
        text.push_str(", \"diagnostics\": [");
        for (index, (name, share)) in names.iter().zip(&line.contributions).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let _ = write!(text, "{separator}{{\"name\": {name}, \"value\": ");
            push_decimal(text, hundred_thousandths(*share));
            text.push('}');
        }
        text.push(']');
    }
    text.push_str("}\n");
}

fn score_hundred_thousandths(line: &Scored) -> u32 {
    let rounded = hundred_thousandths(line.anomaly_score);
    if line.prediction {
        rounded.max(50_001)
    } else {
        rounded.min(50_000)
    }
}

/// A share or score of 0 to 1 in units of the fifth decimal.
fn hundred_thousandths(value: f64) -> u32 {
    // NaN becomes 0: a cast saturates.
    (value.clamp(0.0, 1.0) * 1e5).round() as u32
}

/// Prints `units` / 100,000 as Python's `repr` does.
fn push_decimal(text: &mut String, units: u32) {
    let _ = match units {
        0 => text.write_str("0.0"),
        1..=9 => write!(text, "{units}e-05"),
        _ => {
            let decimals = format!("{:05}", units % 100_000);
            let decimals = decimals.trim_end_matches('0');
            write!(
                text,
                "{}.{}",
                units / 100_000,
                if decimals.is_empty() { "0" } else { decimals }
            )
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: &str, score: f64, reason: Reason, contributions: &[f64]) -> Scored {
        Scored {
            time: time.parse::<DateTime<Utc>>().unwrap().timestamp_micros(),
            u: 0.0,
            anomaly_score: score,
            prediction: reason == Reason::AnomalyDetected,
            reason,
            contributions: contributions.to_vec(),
        }
    }

    fn text(line: &Scored, format: ResultsFormat) -> String {
        let names = ["c\\sensor0".to_owned(), "c\\sensor1".to_owned()];
        String::from_utf8(render(std::slice::from_ref(line), &names, format)).unwrap()
    }

    #[test]
    fn every_era_has_the_bytes_of_the_contract() {
        let off = line("2021-03-11T22:24:00Z", 0.0, Reason::MachineOff, &[]);
        let odd = line(
            "2021-03-11T22:25:00Z",
            0.723_849_9,
            Reason::AnomalyDetected,
            &[0.023_456, 0.976_544],
        );
        let fine = line(
            "2021-03-11T22:26:00Z",
            0.412_27,
            Reason::NoAnomalyDetected,
            &[0.5, 0.5],
        );
        use ResultsFormat::{V1, V2, V3, V4};
        assert_eq!(
            text(&off, V1),
            "{\"timestamp\": \"2021-03-11T22:24:00.000000\", \"prediction\": 0}\n"
        );
        let off_line = "{\"timestamp\": \"2021-03-11T22:24:00.000000\", \"prediction\": 0, \"prediction_reason\": \"MACHINE_OFF\"}\n";
        for format in [V2, V3, V4] {
            assert_eq!(text(&off, format), off_line);
        }
        let head = "{\"timestamp\": \"2021-03-11T22:25:00.000000\", \"prediction\": 1";
        let reason = ", \"prediction_reason\": \"ANOMALY_DETECTED\"";
        let score = ", \"anomaly_score\": 0.72385";
        let shares = ", \"diagnostics\": [{\"name\": \"c\\\\sensor0\", \"value\": 0.02346}, {\"name\": \"c\\\\sensor1\", \
                      \"value\": 0.97654}]}\n";
        assert_eq!(text(&odd, V1), format!("{head}{shares}"));
        assert_eq!(text(&odd, V2), format!("{head}{reason}{shares}"));
        assert_eq!(text(&odd, V3), format!("{head}{reason}{score}{shares}"));
        assert_eq!(text(&odd, V4), format!("{head}{reason}{score}{shares}"));
        assert_eq!(
            text(&fine, V1),
            "{\"timestamp\": \"2021-03-11T22:26:00.000000\", \"prediction\": 0}\n"
        );
        assert!(
            text(&fine, V3).ends_with("\"NO_ANOMALY_DETECTED\", \"anomaly_score\": 0.41227}\n")
        );
        assert!(
            text(&fine, V4)
                .ends_with("\"value\": 0.5}, {\"name\": \"c\\\\sensor1\", \"value\": 0.5}]}\n")
        );
    }

    #[test]
    fn the_rounded_score_is_above_one_half_exactly_for_predictions() {
        let time = "2021-03-11T22:25:00Z";
        let barely = line(time, 0.500_000_1, Reason::AnomalyDetected, &[]);
        let almost = line(time, 0.500_000_1, Reason::NoAnomalyDetected, &[]);
        assert!(text(&barely, ResultsFormat::V3).contains("\"anomaly_score\": 0.50001}"));
        assert!(text(&almost, ResultsFormat::V3).contains("\"anomaly_score\": 0.5}"));
    }

    #[test]
    fn decimals_are_printed_as_python_prints_them() {
        let shown = |value: f64| {
            let mut text = String::new();
            push_decimal(&mut text, hundred_thousandths(value));
            text
        };
        let expected = [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (0.04, "0.04"),
            (0.000_01, "1e-05"),
            (0.000_1, "0.0001"),
            (0.123_456, "0.12346"),
            (f64::NAN, "0.0"),
            (1.5, "1.0"),
        ];
        for (value, text) in expected {
            assert_eq!(shown(value), text);
        }
    }

    #[test]
    fn the_folder_is_the_start_of_the_window() {
        let key = key(
            "demo/inference-data/output/",
            "2021-08-31T12:45:00Z".parse().unwrap(),
        );
        assert_eq!(
            key,
            "demo/inference-data/output/2021-08-31T12:45:00Z/results.jsonl"
        );
    }
}
