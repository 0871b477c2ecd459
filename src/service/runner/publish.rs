//! Creating the results object, once.
//!
//! It is created only if it is absent. What is there already and was written by this scheduler stays and is the truth, since
//! a client may have read it; what another wrote is a failure and never overwritten.

use bytes::Bytes;
use serde_json::Value;

use crate::model::Scored;
use crate::s3::{Attributes, Created};
use crate::service::buckets::Buckets;
use crate::service::s3_problem::Problem;
use crate::service::store::events::Anomaly;
use crate::service::store::executions::FailureKind;

/// Object metadata that names the scheduler that wrote the results.
const OWNER: &str = "lookoutd-scheduler";

/// Creates the object `key` under `prefix`; `Some` is the content that was already there and stays.
pub async fn publish(
    buckets: &Buckets,
    (bucket, prefix, key): (&str, &str, &str),
    body: &[u8],
    owner: &str,
) -> Result<Option<Bytes>, Problem> {
    let target = format!("'s3://{bucket}/{key}'");
    let refused = |error| Problem::store(format!("Could not write {target}"), &error);
    let place = buckets.write(bucket, prefix).await.map_err(refused)?;
    let attributes = Attributes {
        content_type: "application/jsonlines",
        metadata: &[(OWNER, owner)],
    };
    match place
        .create_as(key, body, attributes)
        .await
        .map_err(refused)?
    {
        Created::Written | Created::AlreadyThere => return Ok(None),
        Created::Conflict(_) => {}
    }
    let unread = format!("{target} is there and cannot be compared");
    let stored = place.fetch(key).await;
    let Some(stored) = stored.map_err(|error| Problem::store(&unread, &error))? else {
        return Err(Problem {
            passes: true,
            ..Problem::new(FailureKind::Store, format!("{unread}: it is gone again"))
        });
    };
    if stored.metadata.get(OWNER).map(String::as_str) != Some(owner) {
        return Err(Problem::new(
            FailureKind::Output,
            format!(
                "{target} holds other results that this scheduler did not write: give every scheduler an output prefix of its \
                 own"
            ),
        ));
    }
    tracing::warn!(
        bucket,
        key,
        "input changed between two attempts, the results written first stay"
    );
    Ok(Some(stored.bytes))
}

/// The anomalies of scored lines.
pub fn anomalies(lines: &[Scored], names: &[String]) -> Vec<Anomaly> {
    let predicted = lines.iter().filter(|line| line.prediction);
    predicted
        .map(|line| Anomaly {
            time_us: line.time,
            shares: names
                .iter()
                .cloned()
                .zip(line.contributions.iter().copied())
                .collect(),
        })
        .collect()
}

/// The anomalies of a results object of any era.
pub fn anomalies_of(stored: &[u8]) -> Vec<Anomaly> {
    let lines = stored
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let anomaly = |line: Value| {
        (line["prediction"] == 1).then_some(())?;
        let time_us = crate::service::csv_rows::parse_time(line["timestamp"].as_str()?.as_bytes())?;
        let entries = line["diagnostics"].as_array().into_iter().flatten();
        let shares = entries.filter_map(|entry| {
            Some((entry["name"].as_str()?.to_owned(), entry["value"].as_f64()?))
        });
        Some(Anomaly {
            time_us,
            shares: shares.collect(),
        })
    };
    lines.filter_map(anomaly).collect()
}

/// The highest score of a results object; `None` where its lines have none.
pub fn score_of(stored: &[u8]) -> Option<f64> {
    stored
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok()?["anomaly_score"].as_f64())
        .max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anomalies_are_read_back_from_every_era() {
        let stored = b"{\"timestamp\": \"2021-04-03T06:00:00.000000\", \"prediction\": 0}\n\
            {\"timestamp\": \"2021-04-03T06:01:00.000000\", \"prediction\": 1, \"diagnostics\": [{\"name\": \"c\\\\a\", \
            \"value\": 1.0}]}\n";
        let anomalies = anomalies_of(stored);
        assert_eq!(anomalies.len(), 1);
        assert_eq!(anomalies[0].time_us, 1_617_429_660_000_000);
        assert_eq!(anomalies[0].shares, [("c\\a".to_owned(), 1.0)]);
        assert_eq!(score_of(stored), None);
        assert_eq!(
            score_of(b"{\"anomaly_score\": 0.25}\n{\"anomaly_score\": 0.75}\n{}\n"),
            Some(0.75)
        );
    }
}
