//! What is measured of inputs, each with the label `input`; what is refused with its cause.

use std::fmt;

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;

use super::Sheet;
use crate::input::Figures;
use crate::ops::inputs::InputSnapshot;

/// A counter: its name, what it counts, and where that is.
type Counter = (&'static str, &'static str, fn(&Figures) -> u64);

const COUNTERS: [Counter; 8] = [
    ("input_samples", "Samples taken into the journal", |one| {
        one.taken
    }),
    ("input_missing", "Samples taken without a value", |one| {
        one.missing
    }),
    (
        "input_uncertain",
        "Values of uncertain quality, taken",
        |one| one.uncertain,
    ),
    (
        "input_by_arrival",
        "Samples without a time of their own, timed when they came",
        |one| one.by_arrival,
    ),
    (
        "input_collapsed",
        "Samples that were there already",
        |one| one.collapsed,
    ),
    (
        "input_differing",
        "Samples that fell onto another of the same time with another value",
        |one| one.differing,
    ),
    (
        "input_late",
        "Samples of windows that were cut before they came",
        |one| one.late,
    ),
    ("input_losses", "Connections that were lost", |one| {
        one.losses
    }),
];

/// Writes them.
pub(super) fn encode(sheet: &mut Sheet<'_, '_>, inputs: &[InputSnapshot]) -> fmt::Result {
    if inputs.is_empty() {
        return Ok(());
    }
    let connected = each(inputs, |one| {
        Some(f64::from(u8::from(one.figures.connected_since.is_some())))
    });
    sheet.family(
        "input_connected",
        "1 while the input is connected",
        "input",
        &connected,
    )?;
    let last = each(inputs, |one| {
        Some(one.figures.last_sample?.timestamp_millis() as f64 / 1_000.0)
    });
    sheet.family(
        "input_last_sample_timestamp_seconds",
        "When its last sample came, seconds since 1970",
        "input",
        &last,
    )?;
    let rate = each(inputs, |one| Some(one.figures.per_minute as f64));
    sheet.family(
        "input_samples_per_minute",
        "Samples in the last whole minute",
        "input",
        &rate,
    )?;
    let offset = each(inputs, |one| one.figures.offset_seconds);
    sheet.family(
        "input_clock_offset_seconds",
        "How far its quickest samples are ahead of this machine's clock",
        "input",
        &offset,
    )?;
    let silent = each(inputs, |one| Some((one.never.0 + one.silent.0) as f64));
    sheet.family(
        "input_tags_silent",
        "Tags that never came, or not for longer than a value stands",
        "input",
        &silent,
    )?;
    for (name, help, pick) in COUNTERS {
        let mut metric = sheet.begin(name, help, MetricType::Counter)?;
        for one in inputs {
            metric
                .encode_family(&[("input", one.name.as_str())])?
                .encode_counter::<NoLabelSet, u64, u64>(&pick(&one.figures), None)?;
        }
    }
    let mut metric = sheet.begin(
        "input_refused",
        "Samples and payloads that were refused and set aside, by cause",
        MetricType::Counter,
    )?;
    for one in inputs {
        let figures = &one.figures;
        for (cause, count) in [
            ("future", figures.future),
            ("ancient", figures.ancient),
            ("unreadable", figures.unreadable),
        ] {
            metric
                .encode_family(&[("input", one.name.as_str()), ("cause", cause)])?
                .encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
    }
    Ok(())
}

/// One number for each input that has one.
fn each(
    inputs: &[InputSnapshot],
    pick: impl Fn(&InputSnapshot) -> Option<f64>,
) -> Vec<(&str, f64)> {
    let values = inputs
        .iter()
        .filter_map(|one| Some((one.name.as_str(), pick(one)?)));
    values.collect()
}
