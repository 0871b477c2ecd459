//! `/models`: the service's models with their newest version, its datasets, and the newest jobs of both kinds, with the
//! reason where one failed.
//!
//! Guarantees: every list is bounded; models are paged by name.

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{absent, bytes, chip, encoded, maybe_time, page, time};
use super::overview::starting;
use crate::executions::{DatasetRow, Inventory, JobRow};
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
        Some(state) => Some(blocking(move || state.inventory(&after, PAGE)).await??),
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

fn models(shown: &Inventory, after: &str) -> Markup {
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

fn datasets(rows: &[DatasetRow]) -> Markup {
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

fn jobs(rows: &[JobRow]) -> Markup {
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
