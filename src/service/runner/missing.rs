//! Why a window has no files: the original's text, and what a person needs to find the mistake.

use chrono::DateTime;

use super::execute::Context;
use super::locate::Place;
use super::near_miss;
use crate::service::store::executions::Claim;

/// Components whose near misses are looked for; each costs two listings.
const EXPLAINED: usize = 3;

/// The original's text first, for clients that match it (with its prefix where the bucket should be, contract 3.7), then
/// everything a person needs.
pub async fn explain(
    context: &Context,
    claim: &Claim,
    place: &Place,
    missing: &[String],
) -> String {
    let window = claim.window;
    let first = missing.first().map_or("", String::as_str);
    let (low, high) = place.range(first, window);
    let shown = |time: DateTime<chrono::Utc>| time.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let prefix = &place.prefix;
    let mut reason = format!(
        "Could not find data file for sensor {first} within expected range of ({}, {}]. Please ensure data is present for \
         all sensors of the machine under prefix 's3://{prefix}{low}' ~ 's3://{prefix}{high}'",
        shown(window.start()),
        shown(window.end()),
    );
    let mut hints = Vec::new();
    let bucket = context.buckets.read(&place.bucket);
    for component in missing.iter().take(EXPLAINED) {
        let early = window.offset(-(15 * 3600 / window.cadence().seconds()));
        let own = format!("{prefix}{component}");
        let mut keys = Vec::new();
        for (prefix, after) in [
            (own.as_str(), place.range(component, early).0),
            (prefix, String::new()),
        ] {
            match place.sample(&bucket, prefix, &after).await {
                Ok(sample) => keys.extend(sample),
                Err(error) => tracing::debug!(%error, "no sample for the explanation"),
            }
        }
        hints.extend(near_miss::explain(place, component, window, &keys));
    }
    reason.push_str(&format!(
        ". {} without a file: {}. Searched: s3://{}/{low}.csv to s3://{}/{high}.csv, likewise for each.",
        if missing.len() == 1 { "Component" } else { "Components" },
        missing.join(", "),
        place.bucket,
        place.bucket,
    ));
    if !hints.is_empty() {
        reason.push_str(&format!(" Near misses: {}.", hints.join("; ")));
    }
    reason
}
