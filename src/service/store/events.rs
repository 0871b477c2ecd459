//! The rows of events: contiguous anomalous spans, grown line by line as executions end (contract 5.4).

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::model::events::joins;
use crate::service::faults::Fault;

/// One line with prediction 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Anomaly {
    /// Time of the line, microseconds.
    pub time_us: i64,
    /// `component\sensor` and its share, summing to 1.
    pub shares: Vec<(String, f64)>,
}

/// An event's row.
struct Stored {
    start_us: i64,
    end_us: i64,
    rows: i64,
    diagnostics: String,
}

/// Adds an anomaly to the events it continues, or opens one. An anomaly inside a known event changes nothing; one that came
/// late may close the gap between two, which become one.
pub fn extend(
    db: &Connection,
    scheduler_uuid: &str,
    anomaly: &Anomaly,
    step_us: i64,
) -> Result<(), Fault> {
    let before = neighbour(
        db,
        "SELECT start_us, end_us, rows, diagnostics FROM event
         WHERE scheduler_uuid = ?1 AND start_us <= ?2 ORDER BY start_us DESC LIMIT 1",
        scheduler_uuid,
        anomaly.time_us,
    )?;
    if before
        .as_ref()
        .is_some_and(|event| anomaly.time_us <= event.end_us)
    {
        return Ok(());
    }
    let after = neighbour(
        db,
        "SELECT start_us, end_us, rows, diagnostics FROM event
         WHERE scheduler_uuid = ?1 AND start_us > ?2 ORDER BY start_us LIMIT 1",
        scheduler_uuid,
        anomaly.time_us,
    )?;
    let before = before.filter(|event| joins(event.end_us, anomaly.time_us, step_us));
    let after = after.filter(|event| joins(anomaly.time_us, event.start_us, step_us));
    let mut mean = Mean::default();
    let (mut start_us, mut end_us) = (anomaly.time_us, anomaly.time_us);
    for event in before.iter().chain(&after) {
        start_us = start_us.min(event.start_us);
        end_us = end_us.max(event.end_us);
        // Of damaged shares the event goes on without: the end of an execution is never held up by what was before it.
        let shares: Vec<Share> = serde_json::from_str(&event.diagnostics).unwrap_or_else(|error| {
            tracing::warn!(scheduler_uuid, start_us = event.start_us, %error, "the shares of an event are damaged");
            Vec::new()
        });
        let shares = shares
            .iter()
            .map(|share| (share.name.as_str(), share.value));
        mean.add(shares, event.rows);
        db.prepare_cached("DELETE FROM event WHERE scheduler_uuid = ?1 AND start_us = ?2")?
            .execute(params![scheduler_uuid, event.start_us])?;
    }
    let shares = anomaly.shares.iter();
    mean.add(shares.map(|(name, value)| (name.as_str(), *value)), 1);
    db.prepare_cached(
        "INSERT INTO event (scheduler_uuid, start_us, end_us, rows, diagnostics) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![scheduler_uuid, start_us, end_us, mean.rows, mean.json()])?;
    Ok(())
}

fn neighbour(
    db: &Connection,
    sql: &str,
    scheduler_uuid: &str,
    time_us: i64,
) -> Result<Option<Stored>, Fault> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Stored {
            start_us: row.get(0)?,
            end_us: row.get(1)?,
            rows: row.get(2)?,
            diagnostics: row.get(3)?,
        })
    };
    Ok(db
        .prepare_cached(sql)?
        .query_row(params![scheduler_uuid, time_us], read)
        .optional()?)
}

/// The mean shares of an event as the API tells them: in at most `longest` characters those of as many of its heaviest sensors
/// as fit, in their order. What is stored stays whole, since the next rows join it.
pub fn told(diagnostics: String, longest: usize) -> String {
    if diagnostics.len() <= longest {
        return diagnostics;
    }
    let Ok(shares) = serde_json::from_str::<Vec<Share>>(&diagnostics) else {
        return "[]".to_owned();
    };
    let mut heaviest: Vec<usize> = (0..shares.len()).collect();
    heaviest.sort_by(|a, b| shares[*b].value.total_cmp(&shares[*a].value));
    let mut left = longest.saturating_sub("[]".len());
    let mut kept = vec![false; shares.len()];
    for index in heaviest {
        // With the comma before it.
        let length =
            serde_json::to_string(&shares[index]).map_or(usize::MAX, |text| text.len() + 1);
        if length > left {
            break;
        }
        left -= length;
        kept[index] = true;
    }
    let kept = shares.iter().zip(kept).filter(|(_, kept)| *kept);
    let kept: Vec<&Share> = kept.map(|(share, _)| share).collect();
    serde_json::to_string(&kept).unwrap_or_default()
}

/// One entry of an event's diagnostics.
#[derive(Serialize, Deserialize)]
struct Share {
    name: String,
    value: f64,
}

/// A mean of shares over rows. Sensors that are new, as with another version of the model, count 0 in the rows before.
#[derive(Default)]
struct Mean {
    rows: i64,
    shares: Vec<Share>,
}

impl Mean {
    fn add<'a>(&mut self, shares: impl Iterator<Item = (&'a str, f64)>, rows: i64) {
        let (before, more) = (self.rows as f64, rows as f64);
        self.rows += rows;
        let total = (self.rows as f64).max(1.0);
        for share in &mut self.shares {
            share.value *= before / total;
        }
        for (index, (name, value)) in shares.enumerate() {
            let value = value * more / total;
            // The order is the model's, so the place of a name seldom changes.
            let place = match self.shares.get(index) {
                Some(share) if share.name == name => Some(index),
                _ => self.shares.iter().position(|share| share.name == name),
            };
            match place.and_then(|place| self.shares.get_mut(place)) {
                Some(share) => share.value += value,
                None => self.shares.push(Share {
                    name: name.to_owned(),
                    value,
                }),
            }
        }
    }

    fn json(&self) -> String {
        // Texts and numbers always serialise.
        serde_json::to_string(&self.shares).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn events_of(anomalies: &[(i64, f64)]) -> Vec<(i64, i64, i64, String)> {
        let directory = tempfile::tempdir().unwrap();
        drop(crate::service::store::Store::open(directory.path()).unwrap());
        let db = Connection::open(directory.path().join("state.db")).unwrap();
        db.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        for (time_us, a) in anomalies {
            let anomaly = Anomaly {
                time_us: *time_us,
                shares: vec![("c\\a".to_owned(), *a), ("c\\b".to_owned(), 1.0 - a)],
            };
            extend(&db, "s", &anomaly, MINUTE).unwrap();
        }
        let mut statement = db
            .prepare("SELECT start_us, end_us, rows, diagnostics FROM event ORDER BY start_us")
            .unwrap();
        statement
            .query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn events_grow_across_executions_and_average_their_diagnostics() {
        let events = events_of(&[
            (MINUTE, 1.0),
            (2 * MINUTE, 0.0),
            (2 * MINUTE, 0.9),
            (4 * MINUTE, 0.5),
        ]);
        assert_eq!(events.len(), 2);
        assert_eq!(
            (events[0].0, events[0].1, events[0].2),
            (MINUTE, 2 * MINUTE, 2)
        );
        assert_eq!(
            events[0].3,
            r#"[{"name":"c\\a","value":0.5},{"name":"c\\b","value":0.5}]"#
        );
        assert_eq!((events[1].0, events[1].1), (4 * MINUTE, 4 * MINUTE));
    }

    #[test]
    fn an_event_goes_on_over_shares_that_are_damaged() {
        let directory = tempfile::tempdir().unwrap();
        drop(crate::service::store::Store::open(directory.path()).unwrap());
        let db = Connection::open(directory.path().join("state.db")).unwrap();
        db.execute_batch(
            "PRAGMA foreign_keys = OFF; INSERT INTO event (scheduler_uuid, start_us, end_us, rows, diagnostics)
                 VALUES ('s', 0, 0, 1, '[{');",
        )
        .unwrap();
        let anomaly = Anomaly {
            time_us: MINUTE,
            shares: vec![("c\\a".to_owned(), 1.0)],
        };
        extend(&db, "s", &anomaly, MINUTE).unwrap();
        let sql = "SELECT end_us, rows, diagnostics FROM event";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let event: (i64, i64, String) = db.query_row(sql, [], read).unwrap();
        assert_eq!((event.0, event.1), (MINUTE, 2));
        assert!(event.2.contains("c\\\\a"), "{}", event.2);
    }

    #[test]
    fn rows_that_jitter_are_one_event() {
        let rows: Vec<(i64, f64)> = (0..40)
            .map(|n| (n * MINUTE - n * 7 % 4 * 1_000_000, 0.5))
            .collect();
        let events = events_of(&rows);
        assert_eq!(events.len(), 1);
        assert!(events[0].1 - events[0].0 > 38 * MINUTE);
        assert_eq!(events[0].2, 40);
    }

    #[test]
    fn a_row_that_came_late_joins_the_events_on_both_sides() {
        let events = events_of(&[
            (MINUTE, 1.0),
            (2 * MINUTE, 1.0),
            (4 * MINUTE, 0.0),
            (3 * MINUTE, 0.0),
            (3 * MINUTE, 0.7),
        ]);
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].0, events[0].1, events[0].2),
            (MINUTE, 4 * MINUTE, 4)
        );
        assert_eq!(
            events[0].3,
            r#"[{"name":"c\\a","value":0.5},{"name":"c\\b","value":0.5}]"#
        );
        let events = events_of(&[(5 * MINUTE, 1.0), (4 * MINUTE, 1.0)]);
        assert_eq!((events.len(), events[0].0), (1, 4 * MINUTE));
    }

    #[test]
    fn diagnostics_of_many_sensors_are_told_as_the_heaviest_that_fit() {
        let share = |n: usize| Share {
            name: format!("{n:0>200}"),
            value: if n == 150 { 0.5 } else { n as f64 / 1e5 },
        };
        let mean = Mean {
            rows: 1,
            shares: (0..300).map(share).collect(),
        };
        let stored = mean.json();
        assert!(stored.len() > 60_000);
        let told = told(stored, 50_000);
        assert!((49_000..=50_000).contains(&told.len()), "{}", told.len());
        let shares: Vec<Share> = serde_json::from_str(&told).unwrap();
        let names: Vec<&str> = shares.iter().map(|share| share.name.as_str()).collect();
        assert!(names.is_sorted());
        assert!(names.contains(&format!("{:0>200}", 150).as_str()));
        assert!(names.contains(&format!("{:0>200}", 299).as_str()));
        assert!(!names.contains(&format!("{:0>200}", 0).as_str()));
        let short = r#"[{"name":"c\\a","value":1.0}]"#;
        assert_eq!(super::told(short.to_owned(), 50_000), short);
    }
}
