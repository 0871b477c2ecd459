//! The labels of a training: spans known to be abnormal, from a label group or from CSVs in S3 (contract 6).

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::Jobs;
use super::key_pattern::is_csv;
use crate::model::{Span, labels};
use crate::service::s3_problem;

/// The largest file of labels: a quota of 5,000 labels with long notes.
const MOST_BYTES: i64 = 1 << 24;

/// The labelled spans: of a label group the ones rated ANOMALY, of S3 every line of every CSV under the prefix.
pub async fn read(jobs: &Jobs, configuration: &Value) -> Result<Vec<Span>> {
    if let Some(group) = configuration["LabelGroupName"].as_str() {
        let spans = jobs.store.labelled_spans(group).await;
        let spans = spans.map_err(|fault| anyhow!(fault.message))?;
        return spans.with_context(|| format!("label group '{group}' does not exist"));
    }
    let location = &configuration["S3InputConfiguration"];
    let Some(bucket) = location["Bucket"].as_str() else {
        return Ok(Vec::new());
    };
    let prefix = location["Prefix"].as_str().unwrap_or_default();
    let (mut spans, mut files) = (Vec::new(), 0);
    let mut pages = jobs
        .s3
        .list_objects_v2()
        .bucket(bucket)
        .prefix(prefix)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| {
            anyhow!(
                "cannot list s3://{bucket}/{prefix}: {}",
                s3_problem::of(&error)
            )
        })?;
        for object in page.contents() {
            let Some(key) = object.key().filter(|key| is_csv(prefix, key)) else {
                continue;
            };
            let size = object.size().unwrap_or_default();
            if size > MOST_BYTES {
                bail!(
                    "s3://{bucket}/{key} has {size} bytes, labels have at most {MOST_BYTES}: is it another file?"
                );
            }
            spans.extend(one(jobs, bucket, key).await?);
            files += 1;
        }
    }
    if files == 0 {
        bail!("there is no labels file (.csv) under s3://{bucket}/{prefix}");
    }
    tracing::info!(labels = spans.len(), files, bucket, prefix, "labels read");
    Ok(spans)
}

/// The labels of one file.
async fn one(jobs: &Jobs, bucket: &str, key: &str) -> Result<Vec<Span>> {
    let place = || format!("s3://{bucket}/{key}");
    let object = jobs.s3.get_object().bucket(bucket).key(key).send().await;
    let object =
        object.map_err(|error| anyhow!("cannot read {}: {}", place(), s3_problem::of(&error)))?;
    let body = object.body.collect().await;
    let text = body
        .with_context(|| format!("{} broke off", place()))?
        .into_bytes();
    let read = tokio::task::spawn_blocking(move || labels::read(text.as_ref()));
    read.await?.with_context(place)
}
