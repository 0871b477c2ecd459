//! `/models`: the service's models with their newest version, its datasets, and the newest jobs of both kinds, with the
//! reason where one failed.
//!
//! Guarantees: every list is bounded; models are paged by name.

use axum::extract::{Query, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use rusqlite::{Row, params};
use serde::Deserialize;

use super::layout::{absent, bytes, chip, encoded, maybe_time, page, time};
use super::overview::starting;
use super::state::{State as Service, time as read_time};
use crate::feed::blocking;
use crate::ops::admin::{Shared, failed};
use crate::ops::health::judge;

/// Models on a page, and datasets and jobs that are listed.
const PAGE: usize = 50;

#[derive(Debug, Deserialize)]
pub struct Choice {
    #[serde(default)]
    after: String,
}

/// One model and its newest version.
struct Model {
    name: String,
    status: String,
    active: Option<i64>,
    dataset: Option<String>,
    newest: Option<i64>,
    newest_status: Option<String>,
    reason: Option<String>,
    created: Option<DateTime<Utc>>,
}

/// One dataset.
struct Dataset {
    name: String,
    status: String,
    created: DateTime<Utc>,
}

/// One ingestion.
struct Job {
    dataset: String,
    status: String,
    reason: Option<String>,
    size: Option<i64>,
    created: DateTime<Utc>,
}

/// What the page shows.
struct Shown {
    models: Vec<Model>,
    datasets: Vec<Dataset>,
    jobs: Vec<Job>,
}

pub async fn show(State(shared): State<Shared>, Query(choice): Query<Choice>) -> Response {
    match draw(&shared, choice).await {
        Ok(response) => response,
        Err(error) => failed(&error),
    }
}

async fn draw(shared: &Shared, choice: Choice) -> anyhow::Result<Response> {
    let (Some(site), Some(snapshot)) = (shared.site(), shared.snapshot().await?) else {
        return Ok(starting());
    };
    let readiness = judge(&snapshot);
    let after = choice.after.clone();
    let shown = match site.service().filter(|state| !state.is_archive()) {
        Some(state) => Some(blocking(move || load(&state, &after)).await??),
        None => None,
    };
    let body = match &shown {
        None => {
            html! { h1 { "Models" } (absent("No inference service runs in this process: its models are known where it runs.")) }
        }
        Some(shown) => html! {
            h1 { "Models" }
            section id="models" data-live aria-label="Models" { (models(shown, &choice.after)) }
            section id="datasets" data-live aria-labelledby="datasets-title" {
                h2 id="datasets-title" { "Datasets" }
                (datasets(&shown.datasets))
            }
            section id="jobs" data-live aria-labelledby="jobs-title" {
                h2 id="jobs-title" { "Newest ingestions" }
                (jobs(&shown.jobs))
            }
        },
    };
    Ok(page("Models", "/models", Some(&readiness), false, body))
}

fn models(shown: &Shown, after: &str) -> Markup {
    let rows = &shown.models;
    let next = rows.last().filter(|_| rows.len() == PAGE);
    html! {
        @if rows.is_empty() { (absent("There is no model yet. Train one with lookoutd model train and import it, or with CreateModel.")) } @else {
            div class="scroll" tabindex="0" role="region" aria-label="Models" {
                table {
                    thead { tr { th scope="col" { "Model" } th scope="col" { "Status" } th scope="col" class="num" { "Active version" } th scope="col" { "Newest version" } th scope="col" { "Dataset" } } }
                    tbody {
                        @for row in rows {
                            tr {
                                th scope="row" { (row.name) }
                                td { (chip(&row.status)) }
                                td class="num" { @match row.active { Some(version) => (version), None => span class="dim" { "none" } } }
                                td class="why" {
                                    @if let (Some(version), Some(status)) = (row.newest, &row.newest_status) {
                                        p { (version) " " (chip(status)) " " (maybe_time(row.created)) }
                                        @if let Some(reason) = &row.reason { p { (reason) } }
                                    } @else { span class="dim" { "none" } }
                                }
                                td { @match &row.dataset { Some(name) => (name), None => span class="dim" { "imported" } } }
                            }
                        }
                    }
                }
            }
        }
        @if !after.is_empty() || next.is_some() {
            nav class="pager" aria-label="Pages of the list" {
                @if !after.is_empty() { a href="/models" { "First" } }
                @if let Some(row) = next { a href={ "/models?after=" (encoded(&row.name)) } rel="next" { "Next" } }
            }
        }
    }
}

fn datasets(rows: &[Dataset]) -> Markup {
    html! {
        @if rows.is_empty() { (absent("There is no dataset.")) } @else {
            div class="scroll" tabindex="0" role="region" aria-label="Datasets" {
                table {
                    thead { tr { th scope="col" { "Dataset" } th scope="col" { "Status" } th scope="col" { "Created" } } }
                    tbody { @for row in rows { tr { th scope="row" { (row.name) } td { (chip(&row.status)) } td { (time(row.created)) } } } }
                }
            }
        }
    }
}

fn jobs(rows: &[Job]) -> Markup {
    html! {
        @if rows.is_empty() { (absent("Nothing was ingested.")) } @else {
            div class="scroll" tabindex="0" role="region" aria-label="Ingestions" {
                table {
                    thead { tr { th scope="col" { "Begun" } th scope="col" { "Dataset" } th scope="col" { "Status" } th scope="col" class="num" { "Size" } th scope="col" { "Reason" } } }
                    tbody {
                        @for row in rows {
                            tr {
                                th scope="row" { (time(row.created)) }
                                td { (row.dataset) }
                                td { (chip(&row.status)) }
                                td class="num" { (row.size.map_or(String::new(), |size| bytes(size as u64))) }
                                td class="why" { (row.reason.as_deref().unwrap_or_default()) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn load(state: &Service, after: &str) -> rusqlite::Result<Shown> {
    let db = state.lock();
    let models = db
        .prepare_cached(
            "SELECT m.name, m.status, m.active_version, m.dataset_name, v.version, v.status, v.failed_reason, v.created_us
             FROM model m LEFT JOIN model_version v ON v.model_uuid = m.uuid AND v.version =
                 (SELECT max(n.version) FROM model_version n WHERE n.model_uuid = m.uuid)
             WHERE m.name > ?1 ORDER BY m.name LIMIT ?2",
        )?
        .query_map(params![after, PAGE as i64], model)?
        .collect::<rusqlite::Result<_>>()?;
    let datasets = db
        .prepare_cached(
            "SELECT name, status, created_us FROM dataset ORDER BY created_us DESC LIMIT ?1",
        )?
        .query_map([PAGE as i64], |row| {
            Ok(Dataset {
                name: row.get(0)?,
                status: row.get(1)?,
                created: read_time(row.get(2)?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let jobs = db
        .prepare_cached(
            "SELECT d.name, j.status, j.failed_reason, j.size, j.created_us
             FROM ingestion_job j JOIN dataset d ON d.uuid = j.dataset_uuid ORDER BY j.created_us DESC LIMIT ?1",
        )?
        .query_map([PAGE as i64], |row| {
            Ok(Job {
                dataset: row.get(0)?,
                status: row.get(1)?,
                reason: row.get(2)?,
                size: row.get(3)?,
                created: read_time(row.get(4)?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Shown {
        models,
        datasets,
        jobs,
    })
}

fn model(row: &Row<'_>) -> rusqlite::Result<Model> {
    let created: Option<i64> = row.get(7)?;
    Ok(Model {
        name: row.get(0)?,
        status: row.get(1)?,
        active: row.get(2)?,
        dataset: row.get(3)?,
        newest: row.get(4)?,
        newest_status: row.get(5)?,
        reason: row.get(6)?,
        created: created.map(read_time),
    })
}
