//! The labels of a training: spans known to be abnormal, from a label group or from CSVs in S3 (contract 6).
//!
//! Guarantees: who names labels gets a model that knows them. None at all, be it for a prefix that is mistyped, a file of
//! which only the header is left, or a group in which nothing is rated an anomaly, fails the training; how many there are is
//! said.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::Jobs;
use super::key_pattern::is_csv;
use super::objects::Objects;
use crate::model::{Span, labels};
use crate::s3::Listed;

/// The largest file of labels: a quota of 5,000 labels with long notes.
const MOST_BYTES: u64 = 1 << 24;

/// The labelled spans: of a label group the ones rated ANOMALY, of S3 every line of every CSV under the prefix. None where
/// the configuration names no labels.
pub async fn read(jobs: &Jobs, configuration: &Value) -> Result<Vec<Span>> {
    if let Some(group) = configuration["LabelGroupName"].as_str() {
        return of_group(jobs, group).await;
    }
    let location = &configuration["S3InputConfiguration"];
    let Some(bucket) = location["Bucket"].as_str() else {
        return Ok(Vec::new());
    };
    let prefix = location["Prefix"].as_str().unwrap_or_default();
    let objects = Objects::of(jobs, bucket);
    let mut files = objects.list(prefix).await?;
    files.retain(|file| is_csv(prefix, &file.key));
    if files.is_empty() {
        bail!("there is no labels file (.csv) under s3://{bucket}/{prefix}");
    }
    if let Some(Listed { key, size, .. }) = files.iter().find(|file| file.size > MOST_BYTES) {
        bail!(
            "s3://{bucket}/{key} has {size} bytes, labels have at most {MOST_BYTES}: is it another file?"
        );
    }
    let mut spans = Vec::new();
    // A range of an empty object is an error, and it has no label anyway.
    for file in files.iter().filter(|file| file.size > 0) {
        spans.extend(one(&objects, &file.key).await?);
    }
    if spans.is_empty() {
        bail!(
            "there is no label in the {} labels files under s3://{bucket}/{prefix}, 's3://{bucket}/{}' for one: expected a line \
             start,end for each",
            files.len(),
            files[0].key
        );
    }
    let (labels, files) = (spans.len(), files.len());
    tracing::info!(labels, files, bucket, prefix, "labels read");
    Ok(spans)
}

async fn of_group(jobs: &Jobs, group: &str) -> Result<Vec<Span>> {
    let spans = jobs.store.labelled_spans(group).await;
    let spans = spans.map_err(|fault| anyhow!(fault.message))?;
    let spans = spans.with_context(|| format!("label group '{group}' does not exist"))?;
    if spans.is_empty() {
        bail!(
            "label group '{group}' has no label that is rated ANOMALY: create labels in it, or train without \
             LabelsInputConfiguration"
        );
    }
    tracing::info!(labels = spans.len(), group, "labels read");
    Ok(spans)
}

/// The labels of one file.
async fn one(objects: &Objects, key: &str) -> Result<Vec<Span>> {
    let text = objects.beginning(key, MOST_BYTES as usize + 1).await?;
    if text.len() as u64 > MOST_BYTES {
        bail!(
            "s3://{}/{key} has more than {MOST_BYTES} bytes, the most that labels have: is it another file?",
            objects.bucket()
        );
    }
    let read = tokio::task::spawn_blocking(move || labels::read(text.as_ref()));
    read.await?
        .with_context(|| format!("s3://{}/{key}", objects.bucket()))
}
