//! The labels of a training: spans known to be abnormal, from a label group or from CSVs in S3 (contract 6).

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::Jobs;
use crate::model::Span;
use crate::service::csv_rows::parse_time;
use crate::service::s3_problem;

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
    let mut spans = Vec::new();
    let mut pages = jobs
        .s3
        .list_objects_v2()
        .bucket(bucket)
        .prefix(prefix)
        .into_paginator()
        .send();
    let mut files = 0;
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| {
            anyhow!(
                "cannot list s3://{bucket}/{prefix}: {}",
                s3_problem::of(&error)
            )
        })?;
        for key in page
            .contents()
            .iter()
            .filter_map(|object| object.key())
            .filter(|key| key.ends_with(".csv"))
        {
            let object = jobs.s3.get_object().bucket(bucket).key(key).send().await;
            let object = object.map_err(|error| {
                anyhow!(
                    "cannot read s3://{bucket}/{key}: {}",
                    s3_problem::of(&error)
                )
            })?;
            let text = object.body.collect().await?.into_bytes();
            spans.extend(parse_labels(&text).with_context(|| format!("s3://{bucket}/{key}"))?);
            files += 1;
        }
    }
    if files == 0 {
        bail!("there is no labels file (.csv) under s3://{bucket}/{prefix}");
    }
    Ok(spans)
}

/// `start,end` per line without a header; a first line that is no time is taken for one.
fn parse_labels(text: &[u8]) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text);
    for (number, record) in reader.byte_records().enumerate() {
        let record = record?;
        let column = |index: usize| record.get(index).and_then(parse_time);
        match (column(0), column(1)) {
            (Some(start), Some(end)) if start <= end => spans.push(Span { start, end }),
            _ if number == 0 => {}
            _ => bail!(
                "line {}: expected start,end as two timestamps, the start not after the end",
                number + 1
            ),
        }
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_with_and_without_a_header() {
        let plain = b"2020-02-01T20:00:00.000000,2020-02-03T00:00:00.000000\n2020-03-01 00:00,2020-03-02 00:00,note\n";
        assert_eq!(parse_labels(plain).unwrap().len(), 2);
        assert_eq!(
            parse_labels(b"start,end\n2020-02-01 00:00,2020-02-02 00:00\n")
                .unwrap()
                .len(),
            1
        );
        let error =
            parse_labels(b"2020-02-01 00:00,2020-02-02 00:00\n2020-02-03 00:00,2020-02-02 00:00\n")
                .unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(parse_labels(b"").unwrap().is_empty());
    }
}
