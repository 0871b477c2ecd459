//! Why a file was not found: keys that a person probably meant for the window, and what is different about each.
//!
//! Pure: from the keys that are there and the names that were looked for to sentences. The usual mistakes are a stamp in
//! local time, another delimiter or timestamp format, a sub-folder, other letter case, another extension (contract 3.6
//! and 10.3).

use chrono::{DateTime, TimeDelta, Utc};

use super::locate::Place;
use crate::signal::{Delimiter, NameFormat, TimestampFormat, Window};

/// One sentence about the key nearest to being a file of `component` for `window`, if there is one.
pub fn explain(place: &Place, component: &str, window: Window, keys: &[String]) -> Option<String> {
    let names = keys
        .iter()
        .filter_map(|key| Some((key.as_str(), key.strip_prefix(place.prefix.as_str())?)));
    let found: Vec<(u8, i64, String)> = names
        .filter_map(|(key, name)| difference(&place.format, component, window, key, name))
        .collect();
    found
        .into_iter()
        .min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)))
        .map(|(_, _, sentence)| sentence)
}

/// How `name` differs from a file of the window: how unlike it is, how far off in time, and the sentence.
fn difference(
    format: &NameFormat,
    component: &str,
    window: Window,
    key: &str,
    name: &str,
) -> Option<(u8, i64, String)> {
    let (low, high) = (window.previous().start(), window.offset(2).start());
    let away = |stamp: DateTime<Utc>| (stamp - stamp.clamp(low, high)).num_seconds().abs();
    let parse = |format: &NameFormat, name: &str| {
        format
            .parse(std::iter::once(component), name)
            .ok()
            .map(|(_, stamp)| stamp)
    };
    if let Some(stamp) = parse(format, name) {
        if away(stamp) == 0 {
            return None;
        }
        let offset = nearest_half_hour(stamp - window.start());
        let (minutes, seconds) = (offset.num_minutes(), away(stamp));
        // A whole number of half hours, within the offsets there are, is a clock in another zone.
        let zoned =
            (low..=high).contains(&(stamp - offset)) && offset.abs() <= TimeDelta::hours(14);
        let declared = signed(format.zone_offset.minutes() + minutes);
        let sentence = if zoned && minutes >= 30 {
            format!(
                "'{key}' is stamped {} from this window: write names in UTC plus InputTimeZoneOffset ({}), or set the \
                 offset to {declared}; rows stay UTC",
                signed(minutes),
                format.zone_offset,
            )
        } else if zoned && minutes <= -60 {
            format!(
                "'{key}' is stamped {} from this window: no file came since, or names are in the zone {declared} while \
                 InputTimeZoneOffset is {}",
                signed(minutes),
                format.zone_offset,
            )
        } else {
            let side = if stamp < low { "before" } else { "after" };
            format!(
                "'{key}' is stamped {} min {side} the searched range",
                seconds / 60
            )
        };
        return Some((if zoned { 1 } else { 2 }, seconds, sentence));
    }
    for timestamp in TimestampFormat::ALL {
        for delimiter in Delimiter::ALL {
            let other = NameFormat {
                timestamp,
                delimiter,
                zone_offset: format.zone_offset,
            };
            let Some(stamp) = parse(&other, name).filter(|stamp| away(*stamp) == 0) else {
                continue;
            };
            let what = if timestamp == format.timestamp {
                format!(
                    "has the delimiter '{delimiter}', the scheduler expects '{}'",
                    format.delimiter
                )
            } else if delimiter == format.delimiter {
                format!(
                    "has the timestamp format {timestamp}, the scheduler expects {}",
                    format.timestamp
                )
            } else {
                format!(
                    "has the delimiter '{delimiter}' and the format {timestamp}, the scheduler expects '{}' and {}",
                    format.delimiter, format.timestamp
                )
            };
            return Some((0, away(stamp), format!("'{key}' {what}")));
        }
    }
    if let Some((folder, file)) = name.rsplit_once('/') {
        let stamp = parse(format, file).filter(|stamp| away(*stamp) == 0)?;
        let sentence = format!(
            "'{key}' lies in the folder '{folder}/', files must lie directly under the prefix"
        );
        return Some((0, away(stamp), sentence));
    }
    let (stem, extension) = name.rsplit_once('.')?;
    if extension != "csv" {
        let stamp = parse(format, &format!("{stem}.csv")).filter(|stamp| away(*stamp) == 0)?;
        return Some((
            0,
            away(stamp),
            format!("'{key}' ends in .{extension}, expected .csv"),
        ));
    }
    let lower = component.to_lowercase();
    let folded = format
        .parse(std::iter::once(lower.as_str()), &name.to_lowercase())
        .ok();
    let (_, stamp) = folded.filter(|(_, stamp)| away(*stamp) == 0)?;
    Some((
        0,
        away(stamp),
        format!("'{key}' differs from component '{component}' in letter case"),
    ))
}

fn nearest_half_hour(difference: TimeDelta) -> TimeDelta {
    TimeDelta::minutes((difference.num_seconds() as f64 / 1800.0).round() as i64 * 30)
}

fn signed(minutes: i64) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Cadence;

    fn explained(format: &str, keys: &[&str]) -> Option<String> {
        let place = Place {
            bucket: "b".into(),
            prefix: "in/".into(),
            format: serde_json::from_str(format).unwrap(),
        };
        let window = Window::new("2021-04-03T06:00:00Z".parse().unwrap(), Cadence::Pt5m).unwrap();
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        explain(&place, "subsystem-06", window, &keys)
    }

    #[test]
    fn the_usual_mistakes_are_named() {
        let cases = [
            (
                "in/subsystem-06_20210403150000.csv",
                "is stamped +09:00 from this window: write names in UTC",
            ),
            (
                "in/subsystem-06-20210403060000.csv",
                "has the delimiter '-', the scheduler expects '_'",
            ),
            (
                "in/subsystem-06_2021-04-03-06-00-00.csv",
                "has the timestamp format yyyy-MM-dd-HH-mm-ss",
            ),
            (
                "in/day1/subsystem-06_20210403060000.csv",
                "lies in the folder 'day1/'",
            ),
            (
                "in/subsystem-06_20210403060000.CSV",
                "ends in .CSV, expected .csv",
            ),
            (
                "in/Subsystem-06_20210403060000.csv",
                "differs from component 'subsystem-06' in letter case",
            ),
            (
                "in/subsystem-06_20210403054000.csv",
                "is stamped 15 min before the searched range",
            ),
        ];
        for (key, expected) in cases {
            let sentence = explained(r#"{"delimiter": "_"}"#, &[key]).unwrap();
            assert!(sentence.contains(expected), "{key}: {sentence}");
        }
    }

    #[test]
    fn the_nearest_key_wins_and_strangers_are_not_mentioned() {
        let keys = [
            "in/subsystem-06_20210402060000.csv",
            "in/subsystem-06_20210403060000.txt",
            "in/readme.md",
        ];
        assert!(explained("{}", &keys).unwrap().contains(".txt"));
        assert_eq!(
            explained(
                "{}",
                &["in/readme.md", "in/subsystem-07_20210403060000.csv"]
            ),
            None
        );
    }
}
