//! What `lookoutd model` prints: the result of training, and of an evaluation as a table or as JSON.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::model::evaluate::{Evaluation, ModelQuality};
use crate::model::metrics::model_metrics;
use crate::model::table::Table;
use crate::model::timestamp::format;
use crate::model::{Model, Warning};

/// Sensors listed.
const SENSORS: usize = 8;

/// Prints what was learned.
pub fn trained(model: &Model, path: &Path) {
    warnings(model.warnings());
    let range = model.training_range();
    say!("model            {}", path.display());
    say!(
        "training         {} to {}, {} healthy rows",
        format(range.start),
        format(range.end),
        model.training_rows()
    );
    let sampling = model
        .sampling()
        .map_or_else(|| "as recorded".to_owned(), |rate| rate.to_string());
    say!(
        "sampling         {sampling} ({} s)",
        model.step_us() as f64 / 1e6
    );
    say!(
        "sensors          {} of {} used",
        model.used_sensors().count(),
        model.sensors().len()
    );
    if let Some(off) = model.off_condition() {
        say!("off              {off}");
    }
    say!(
        "threshold        u {:.3}; {:.2} events per week in training",
        model.threshold(),
        model.training_events_per_week()
    );
}

/// Prints what was read beside the rows: how many labels, and what was left out of a history.
pub fn data(labels: Option<(&Path, usize)>, table: &Table) {
    if let Some((path, count)) = labels {
        say!("labels           {count} from {}", path.display());
    }
    let ignored = table.ignored();
    if !ignored.is_empty() {
        let shown = ignored.iter().take(SENSORS).map(String::as_str);
        let shown: Vec<&str> = shown.collect();
        let more = if ignored.len() > SENSORS { ", ..." } else { "" };
        complain!(
            "warning: {} columns of the history are not in the tag list and were left out: {}{more}",
            ignored.len(),
            shown.join(", ")
        );
    }
    if table.infinite() > 0 {
        complain!(
            "warning: {} infinite values of the history were read as missing",
            table.infinite()
        );
    }
    for (count, what) in [
        (table.words(), "words"),
        (table.bad(), "values of bad quality"),
    ] {
        if count > 0 {
            complain!("warning: {count} {what} in the history were read as missing values");
        }
    }
}

/// Prints warnings to standard error.
pub fn warnings(warnings: &[Warning]) {
    for warning in warnings {
        complain!("warning: {warning}");
    }
}

/// Prints an evaluation for people.
pub fn table(model: &Model, evaluation: &Evaluation, path: &Path) {
    warnings(&evaluation.warnings);
    let (range, points) = (evaluation.range, evaluation.points);
    say!(
        "model            {}, threshold u {:.3}",
        path.display(),
        model.threshold()
    );
    say!(
        "range            {} to {}, {} rows",
        format(range.start),
        format(range.end),
        evaluation.series.len()
    );
    say!(
        "labelled events  {} of {} found, warning time {}",
        evaluation.found(),
        evaluation.labelled.len(),
        duration(evaluation.total_warning_seconds())
    );
    let unlabelled = evaluation
        .predicted
        .iter()
        .filter(|event| !event.labelled)
        .count();
    say!(
        "false events     {:.2} per week ({unlabelled})",
        evaluation.false_events_per_week
    );
    say!(
        "rows             F1 {:.3}, precision {:.3}, recall {:.3}, false alarms {:.2} %, AUC-PR {}",
        points.f1(),
        points.precision(),
        points.recall(),
        points.false_alarm_rate() * 100.0,
        evaluation
            .auc_pr
            .map_or_else(|| "without labels".to_owned(), |area| format!("{area:.3}"))
    );
    say!("quality          {}", quality(evaluation.quality));
    for (rank, (sensor, share)) in evaluation.worst_sensors.iter().take(SENSORS).enumerate() {
        let head = if rank == 0 { "worst sensors" } else { "" };
        say!("{head:<16} {:5.1} %  {sensor}", share * 100.0);
    }
    for (rank, label) in evaluation.labelled.iter().enumerate() {
        let head = if rank == 0 { "labelled" } else { "" };
        let found = match label.warning {
            Some(warning) => format!("found, {} before its end", duration(warning as f64 / 1e6)),
            None => "missed".to_owned(),
        };
        say!(
            "{head:<16} {} to {}  {found}",
            format(label.span.start),
            format(label.span.end)
        );
    }
    for (rank, event) in evaluation.predicted.iter().enumerate() {
        let head = if rank == 0 { "predicted" } else { "" };
        let worst = event
            .event
            .contributions
            .iter()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(b.1));
        let sensor = worst.map_or_else(String::new, |(at, share)| {
            format!("{} {:.0} %", evaluation.sensors[at], share * 100.0)
        });
        let kind = if event.labelled {
            "labelled"
        } else {
            "unknown "
        };
        say!(
            "{head:<16} {} to {}  {kind}  {sensor}",
            format(event.event.start),
            format(event.event.end)
        );
    }
}

/// Prints an evaluation for scripts.
pub fn json(model: &Model, evaluation: &Evaluation) -> Result<()> {
    let (range, points) = (evaluation.range, evaluation.points);
    let labelled: Vec<_> = evaluation
        .labelled
        .iter()
        .map(|label| {
            json!({
                "start": format(label.span.start),
                "end": format(label.span.end),
                "found": label.warning.is_some(),
                "warning_seconds": label.warning.map(|warning| warning as f64 / 1e6),
            })
        })
        .collect();
    let sensors: Vec<_> = evaluation
        .worst_sensors
        .iter()
        .map(|(sensor, share)| json!({ "name": sensor.to_string(), "share": share }))
        .collect();
    let metrics: serde_json::Value = serde_json::from_str(&model_metrics(evaluation))?;
    let warnings: Vec<_> = evaluation.warnings.iter().map(Warning::to_string).collect();
    let report = json!({
        "range": { "start": format(range.start), "end": format(range.end), "rows": evaluation.series.len() },
        "threshold": model.threshold(),
        "quality": evaluation.quality,
        "labelled_events": { "total": labelled.len(), "found": evaluation.found(), "events": labelled },
        "total_warning_seconds": evaluation.total_warning_seconds(),
        "predicted_events": evaluation.predicted.len(),
        "false_events": evaluation.predicted.iter().filter(|event| !event.labelled).count(),
        "false_events_per_week": evaluation.false_events_per_week,
        "points": {
            "counts": points,
            "f1": points.f1(),
            "precision": points.precision(),
            "recall": points.recall(),
            "false_alarm_rate": points.false_alarm_rate(),
            "missed_alarm_rate": points.missed_alarm_rate(),
            "auc_pr": evaluation.auc_pr,
        },
        "worst_sensors": sensors,
        "warnings": warnings,
        "model_metrics": metrics,
    });
    say!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn quality(quality: ModelQuality) -> &'static str {
    match quality {
        ModelQuality::QualityThresholdMet => "QUALITY_THRESHOLD_MET",
        ModelQuality::CannotDetermineQuality => "CANNOT_DETERMINE_QUALITY",
        ModelQuality::PoorQualityDetected => "POOR_QUALITY_DETECTED",
    }
}

/// Seconds for people: minutes below an hour, hours below two days, days above.
fn duration(seconds: f64) -> String {
    match seconds {
        ..3600.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} d", seconds / 86_400.0),
    }
}
