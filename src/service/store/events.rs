//! The rows of events: contiguous anomalous spans, grown line by line as executions end (contract 5.4).

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::parse;
use crate::service::faults::Fault;

/// One line with prediction 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Anomaly {
    /// Time of the line, microseconds.
    pub time_us: i64,
    /// `component\sensor` and its share, summing to 1.
    pub shares: Vec<(String, f64)>,
}

/// Adds an anomaly to the event it continues, or opens one. An anomaly inside a known event changes nothing.
pub fn extend(
    db: &Connection,
    scheduler_uuid: &str,
    anomaly: &Anomaly,
    step_us: i64,
) -> Result<(), Fault> {
    let sql = "SELECT start_us, end_us, rows, diagnostics FROM event
               WHERE scheduler_uuid = ?1 AND start_us <= ?2 ORDER BY start_us DESC LIMIT 1";
    let last: Option<(i64, i64, i64, String)> = db
        .prepare_cached(sql)?
        .query_row(params![scheduler_uuid, anomaly.time_us], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    match last {
        Some((_, end_us, _, _)) if anomaly.time_us <= end_us => {}
        Some((start_us, end_us, rows, diagnostics)) if anomaly.time_us - end_us <= step_us => {
            let mean = mean_with(&parse(&diagnostics)?, rows, &anomaly.shares);
            db.execute(
                "UPDATE event SET end_us = ?3, rows = rows + 1, diagnostics = ?4
                 WHERE scheduler_uuid = ?1 AND start_us = ?2",
                params![scheduler_uuid, start_us, anomaly.time_us, mean.to_string()],
            )?;
        }
        _ => {
            let diagnostics = mean_with(&json!([]), 0, &anomaly.shares);
            db.execute(
                "INSERT INTO event (scheduler_uuid, start_us, end_us, rows, diagnostics) VALUES (?1, ?2, ?2, 1, ?3)",
                params![scheduler_uuid, anomaly.time_us, diagnostics.to_string()],
            )?;
        }
    }
    Ok(())
}

/// The mean of `rows` earlier shares and one more, as `[{name, value}]`.
fn mean_with(before: &Value, rows: i64, shares: &[(String, f64)]) -> Value {
    let weight = rows as f64;
    let old = |index: usize, name: &str| -> f64 {
        let entry = before.get(index).filter(|entry| entry["name"] == *name);
        entry
            .and_then(|entry| entry["value"].as_f64())
            .unwrap_or(0.0)
    };
    let mean = |(index, (name, value)): (usize, &(String, f64))| json!({"name": name, "value": (old(index, name) * weight + value) / (weight + 1.0)});
    Value::Array(shares.iter().enumerate().map(mean).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_grow_across_executions_and_average_their_diagnostics() {
        let directory = tempfile::tempdir().unwrap();
        drop(crate::service::store::Store::open(directory.path()).unwrap());
        let db = Connection::open(directory.path().join("state.db")).unwrap();
        db.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        let shares = |a: f64| vec![("c\\a".to_owned(), a), ("c\\b".to_owned(), 1.0 - a)];
        for (minute, a) in [(1, 1.0), (2, 0.0), (2, 0.9), (4, 0.5)] {
            let anomaly = Anomaly {
                time_us: minute * 60_000_000,
                shares: shares(a),
            };
            extend(&db, "s", &anomaly, 60_000_000).unwrap();
        }
        let mut statement = db
            .prepare("SELECT start_us, end_us, rows, diagnostics FROM event")
            .unwrap();
        let events: Vec<(i64, i64, i64, String)> = statement
            .query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(events.len(), 2);
        assert_eq!(
            (events[0].0, events[0].1, events[0].2),
            (60_000_000, 120_000_000, 2)
        );
        assert_eq!(
            events[0].3,
            r#"[{"name":"c\\a","value":0.5},{"name":"c\\b","value":0.5}]"#
        );
        assert_eq!((events[1].0, events[1].1), (240_000_000, 240_000_000));
    }
}
