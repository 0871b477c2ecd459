//! What a payload says: a number, or JSON with pointers to value, time and quality.
//!
//! Guarantees: one signal that cannot be read costs no other of the same payload; `NaN`, `Infinity` and `null` are missing
//! values, also bare in JSON, which does not know them; integers stay integers until they are values, so that nanoseconds
//! since 1970 keep their last digits. A time that cannot be read is no time at all: its sample is refused, not timed by its
//! arrival. Deliberately absent: conversion of units, which is the tag list's.

use std::borrow::Cow;

use chrono::DateTime;
use serde_json::Value;

use crate::journal::Quality;
use crate::records::shortened;
use crate::signal::timestamp;
use crate::source::shape::{LocalClock, Never, Ticks, Twice};

/// What one signal of a payload is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Its value; NaN is missing.
    pub value: f64,
    /// When, in nanoseconds UTC; `None` where the payload does not say it.
    pub time: Option<i64>,
    /// How good it is.
    pub quality: Quality,
}

/// How JSON is read.
#[derive(Clone, Debug)]
pub struct Form {
    /// Where the value is.
    pub value: String,
    /// Where its time is; empty: the payload has none.
    pub time: String,
    /// Where its quality is; empty: the payload has none.
    pub quality: String,
    /// What a number as time counts.
    pub ticks: Option<Ticks>,
    /// The zone of texts without one, for the hour that comes twice as the earlier and as the later.
    pub zone: [LocalClock; 2],
    /// Qualities that are good, and those that are uncertain; others are bad.
    pub good: Vec<String>,
    /// See `good`.
    pub uncertain: Vec<String>,
}

impl Form {
    /// The clocks of a zone by its IANA name.
    pub fn zone(name: &str) -> Result<[LocalClock; 2], String> {
        let clock = |twice| LocalClock::of(name, twice, Never::Refuse);
        Ok([clock(Twice::Earlier)?, clock(Twice::Later)?])
    }
}

/// The number that a payload is. `now` is not needed: such a payload has no time.
pub fn number(payload: &[u8]) -> Result<Reading, String> {
    let text = std::str::from_utf8(payload).unwrap_or("\u{fffd}").trim();
    let value = value_of(text).ok_or_else(|| format!("`{}` is no number", shortened(text)))?;
    Ok(Reading {
        value,
        time: None,
        quality: Quality::Good,
    })
}

/// A number as people and devices write one; `on` and `true` are 1. What says itself that it is missing is NaN.
fn value_of(text: &str) -> Option<f64> {
    if let Ok(value) = text.parse::<f64>() {
        return Some(if value.is_finite() { value } else { f64::NAN });
    }
    let word = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if word(&["true", "on"]) => Some(1.0),
        () if word(&["false", "off"]) => Some(0.0),
        () if word(&["null", "none", "+nan", "-nan"]) => Some(f64::NAN),
        () => None,
    }
}

/// The document of a payload; bare `NaN`, `Infinity` and their kin are read as `null`.
pub fn document(payload: &[u8]) -> Result<Value, String> {
    let first = match serde_json::from_slice(payload) {
        Ok(document) => return Ok(document),
        Err(error) => error,
    };
    let refusal = || {
        let text = String::from_utf8_lossy(payload);
        format!("`{}` is no JSON: {first}", shortened(text.trim()))
    };
    match without_bare_words(payload) {
        Cow::Borrowed(_) => Err(refusal()),
        Cow::Owned(mended) => serde_json::from_slice(&mended).map_err(|_| refusal()),
    }
}

fn without_bare_words(payload: &[u8]) -> Cow<'_, [u8]> {
    let mut mended = Vec::with_capacity(payload.len());
    let mut has_changed = false;
    let mut at = 0;
    let mut is_text = false;
    while let Some(&byte) = payload.get(at) {
        if is_text {
            let length = if byte == b'\\' { 2 } else { 1 };
            is_text = byte != b'"';
            mended.extend(payload.iter().skip(at).take(length));
            at += length;
            continue;
        }
        is_text = byte == b'"';
        let sign = usize::from(matches!(byte, b'-' | b'+'));
        let word = &payload[at + sign..];
        let length = word
            .iter()
            .take_while(|it| it.is_ascii_alphabetic())
            .count();
        let is_missing = ["nan", "infinity", "inf", "none", "undefined"]
            .iter()
            .any(|it| word[..length].eq_ignore_ascii_case(it.as_bytes()));
        if is_missing {
            mended.extend(b"null");
            at += sign + length;
            has_changed = true;
        } else {
            let whole = (sign + length).max(1);
            mended.extend(&payload[at..at + whole]);
            at += whole;
        }
    }
    match has_changed {
        true => Cow::Owned(mended),
        false => Cow::Borrowed(payload),
    }
}

/// The readings of one signal, at `pointer` of a document that came at `now` (nanoseconds UTC). None: the document does not have
/// it.
///
/// Where the pointer leads to an object, the form's pointers go on from there, and time and quality that are not there are
/// looked for in the document. A list is one reading for each of its items.
pub fn readings(
    document: &Value,
    pointer: &str,
    form: &Form,
    now: i64,
) -> Vec<Result<Reading, String>> {
    match document.pointer(pointer) {
        None => Vec::new(),
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(|item| reading(item, document, form, now))
            .collect(),
        Some(found) => reading(found, document, form, now).into_iter().collect(),
    }
}

fn reading(
    found: &Value,
    document: &Value,
    form: &Form,
    now: i64,
) -> Option<Result<Reading, String>> {
    let value = match found {
        Value::Object(_) => found.pointer(&form.value)?,
        scalar => scalar,
    };
    let beside = |pointer: &str| match pointer {
        "" => None,
        _ => found.pointer(pointer).or_else(|| document.pointer(pointer)),
    };
    Some(read(
        value,
        beside(&form.time),
        beside(&form.quality),
        form,
        now,
    ))
}

fn read(
    value: &Value,
    time: Option<&Value>,
    quality: Option<&Value>,
    form: &Form,
    now: i64,
) -> Result<Reading, String> {
    let value = match value {
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::Bool(state) => f64::from(u8::from(*state)),
        // A text that is no number is a state: there is a reading, and it has no value.
        Value::String(text) => value_of(text.trim()).unwrap_or(f64::NAN),
        Value::Null => f64::NAN,
        Value::Object(_) | Value::Array(_) => {
            return Err("its pointer leads to an object or a list, no value".into());
        }
    };
    let time = match time {
        None | Some(Value::Null) => None,
        Some(time) => Some(instant(time, form, now)?),
    };
    Ok(Reading {
        value,
        time,
        quality: quality.map_or(Quality::Good, |it| judged(it, form)),
    })
}

fn judged(quality: &Value, form: &Form) -> Quality {
    let shown;
    let text = match quality {
        Value::String(text) => text.trim(),
        Value::Null => return Quality::Bad,
        other => {
            shown = other.to_string();
            &shown
        }
    };
    let is_of = |words: &[String]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    match () {
        () if is_of(&form.good) => Quality::Good,
        () if is_of(&form.uncertain) => Quality::Uncertain,
        () => Quality::Bad,
    }
}

/// Nanoseconds UTC of a time as a payload has it.
fn instant(time: &Value, form: &Form, now: i64) -> Result<i64, String> {
    match time {
        Value::Number(number) => counted(&number.to_string(), form),
        Value::String(text) => {
            let text = text.trim();
            if let Ok(time) = DateTime::parse_from_rfc3339(text) {
                return time
                    .timestamp_nanos_opt()
                    .ok_or_else(|| format!("`{}` is too far away", shortened(text)));
            }
            match timestamp::parse_any(text.as_bytes()) {
                Some((micros, true)) => nanos(micros, 1000, text),
                Some((local, false)) => local_time(local, text, form, now),
                None => counted(text, form),
            }
        }
        other => Err(format!("`{other}` is no time")),
    }
}

/// Of an hour that comes twice the one that is nearer to the arrival.
fn local_time(local: i64, text: &str, form: &Form, now: i64) -> Result<i64, String> {
    let [earlier, later] = &form.zone;
    let earlier = nanos(earlier.instant(local)?, 1000, text)?;
    let later = nanos(later.instant(local)?, 1000, text)?;
    let nearer = [earlier, later]
        .into_iter()
        .min_by_key(|it| it.abs_diff(now));
    Ok(nearer.unwrap_or(earlier))
}

/// A count since 1970. Integers stay exact; a fraction counts to the microsecond, or to the nanosecond where it is one.
fn counted(text: &str, form: &Form) -> Result<i64, String> {
    let Some(ticks) = form.ticks else {
        return Err(format!(
            "`{}` is a number, and time_unit is not set: s, ms, us or ns",
            shortened(text)
        ));
    };
    let each = match ticks {
        Ticks::Seconds => 1_000_000_000,
        Ticks::Millis => 1_000_000,
        Ticks::Micros => 1000,
        Ticks::Nanos => 1,
    };
    if let Ok(count) = text.parse::<i64>() {
        return nanos(count, each, text);
    }
    match text.parse::<f64>() {
        Ok(count) if count.is_finite() => {
            let micros = (count * (each as f64 / 1000.0)).round();
            if micros.abs() < 9.0e15 {
                return nanos(micros as i64, 1000, text);
            }
            Err(format!("`{}` is too far away", shortened(text)))
        }
        _ => Err(format!("`{}` is no time", shortened(text))),
    }
}

fn nanos(count: i64, each: i64, text: &str) -> Result<i64, String> {
    count
        .checked_mul(each)
        .ok_or_else(|| format!("`{}` is too far away: look at time_unit", shortened(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000_000_000;

    fn form() -> Form {
        Form {
            value: "/value".into(),
            time: "/ts".into(),
            quality: "/q".into(),
            ticks: Some(Ticks::Millis),
            zone: Form::zone("Europe/Berlin").unwrap(),
            good: vec!["good".into(), "192".into()],
            uncertain: vec!["uncertain".into()],
        }
    }

    fn one(text: &str, pointer: &str, form: &Form) -> Result<Reading, String> {
        let document = document(text.as_bytes()).unwrap();
        let mut found = readings(&document, pointer, form, NOW);
        assert_eq!(found.len(), 1, "{text}");
        found.remove(0)
    }

    #[test]
    fn numbers_are_read_as_devices_write_them() {
        for (text, expected) in [
            ("21.5", 21.5),
            (" -3e2\r\n", -300.0),
            ("on", 1.0),
            ("False", 0.0),
        ] {
            assert_eq!(number(text.as_bytes()).unwrap().value, expected, "{text}");
        }
        for text in ["NaN", "nan", "-inf", "Infinity", "null"] {
            assert!(number(text.as_bytes()).unwrap().value.is_nan(), "{text}");
        }
        for text in ["", "21,5", "Bad Input", "{\"value\":1}", "21.5 A"] {
            assert!(number(text.as_bytes()).is_err(), "{text}");
        }
        assert!(number(b"\xff\xfe").is_err());
    }

    /// M11
    #[test]
    fn m11_a_signal_that_is_no_number_costs_no_other_of_its_payload() {
        let text = r#"{"ts":1700000000123,"a":NaN,"b":-Infinity,"c":null,"d":4.5,"e":"NaN, really","f":[inf,nan],"g":"closed"}"#;
        let document = document(text.as_bytes()).unwrap();
        let at = |pointer: &str| readings(&document, pointer, &form(), NOW);
        for missing in ["/a", "/b", "/c", "/g", "/e"] {
            let found = at(missing).remove(0).unwrap();
            assert!(found.value.is_nan(), "{missing}");
            assert_eq!(found.time, Some(1_700_000_000_123_000_000));
        }
        assert_eq!(at("/d").remove(0).unwrap().value, 4.5);
        assert!(at("/nothing").is_empty());
        assert_eq!(document["e"], "NaN, really");
        assert_eq!(at("/f").len(), 2);
        for rubbish in ["{", "nan nan", "{\"a\": nano}", "", "{\"a\":\"\\"] {
            assert!(super::document(rubbish.as_bytes()).is_err(), "{rubbish}");
        }
    }

    #[test]
    fn j5_integers_keep_their_last_digits_as_times() {
        let mut form = form();
        form.ticks = Some(Ticks::Nanos);
        let found = one(r#"{"value":1,"ts":1700000000123456789}"#, "", &form).unwrap();
        assert_eq!(found.time, Some(1_700_000_000_123_456_789));
        form.ticks = Some(Ticks::Seconds);
        let found = one(r#"{"value":1,"ts":1700000000.123456}"#, "", &form).unwrap();
        assert_eq!(found.time, Some(1_700_000_000_123_456_000));
        let found = one(
            r#"{"value":1,"ts":"2023-11-14T23:13:20.000000001+01:00"}"#,
            "",
            &form,
        );
        assert_eq!(found.unwrap().time, Some(1_700_000_000_000_000_001));
        let found = one(r#"{"value":1,"ts":"1700000000"}"#, "", &form).unwrap();
        assert_eq!(found.time, Some(NOW));
        for refused in [
            r#"{"value":1,"ts":1700000000123456789}"#,
            r#"{"value":1,"ts":"yesterday"}"#,
            r#"{"value":1,"ts":{}}"#,
            r#"{"value":1,"ts":true}"#,
        ] {
            assert!(one(refused, "", &form).is_err(), "{refused}");
        }
        form.ticks = None;
        let refusal = one(r#"{"value":1,"ts":1}"#, "", &form).unwrap_err();
        assert!(refusal.contains("time_unit"), "{refusal}");
    }

    /// J6
    #[test]
    fn j6_both_hours_of_october_are_told_by_the_arrival_and_the_one_that_never_was_is_refused() {
        let document = document(br#"{"value":1,"ts":"2023-10-29T02:30:00"}"#).unwrap();
        let at = |now: &str| {
            let now = DateTime::parse_from_rfc3339(now).unwrap();
            let now = now.timestamp_nanos_opt().unwrap();
            let found = readings(&document, "", &form(), now).remove(0).unwrap();
            DateTime::from_timestamp_nanos(found.time.unwrap()).to_rfc3339()
        };
        assert_eq!(at("2023-10-29T00:30:05Z"), "2023-10-29T00:30:00+00:00");
        assert_eq!(at("2023-10-29T01:30:05Z"), "2023-10-29T01:30:00+00:00");
        assert_eq!(at("2023-10-29T00:31:00Z"), "2023-10-29T00:30:00+00:00");
        let refusal = one(r#"{"value":1,"ts":"2023-03-26T02:30:00"}"#, "", &form());
        assert!(refusal.unwrap_err().contains("never was"));
    }

    #[test]
    fn pointers_go_on_from_the_object_that_a_tags_pointer_leads_to() {
        let text = r#"{"ts":1700000000000,"q":"GOOD","amps":{"value":3,"q":192},"volts":{"value":4,"ts":1700000001000,
                       "q":"uncertain"},"state":{"value":true,"q":"out of service"}}"#;
        let at = |pointer: &str| one(text, pointer, &form()).unwrap();
        assert_eq!(at("/amps").time, Some(NOW));
        assert_eq!(at("/amps").quality, Quality::Good);
        assert_eq!(at("/volts").time, Some(NOW + 1_000_000_000));
        assert_eq!(at("/volts").quality, Quality::Uncertain);
        assert_eq!(at("/state").quality, Quality::Bad);
        assert_eq!(at("/state").value, 1.0);
        // A bare number is JSON as well, and a list is a reading each.
        assert_eq!(one("12.5", "", &form()).unwrap().value, 12.5);
        let batch = document(br#"[{"value":1,"ts":1},{"value":2,"ts":2},{"other":3}]"#).unwrap();
        let found = readings(&batch, "", &form(), NOW);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].as_ref().unwrap().time, Some(2_000_000));
        assert!(one(r#"{"value":{"deep":1}}"#, "", &form()).is_err());
    }
}
