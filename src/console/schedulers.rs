//! `/schedulers`: every inference scheduler by name, filtered and paged.

use axum::extract::{Query, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use maud::html;
use serde::Deserialize;

use super::layout::{absent, encoded, page};
use super::overview::{scheduler_table, starting};
use crate::executions::{Answer, ReadError, SchedulerRow, State as Known};
use crate::feed::blocking;
use crate::ops::admin::{Shared, failed};
use crate::ops::health::judge;

/// Schedulers on a page.
const PAGE: usize = 50;
const STATUSES: [&str; 4] = ["RUNNING", "STOPPED", "PENDING", "STOPPING"];

#[derive(Debug, Deserialize)]
pub struct Choice {
    #[serde(default)]
    part: String,
    #[serde(default)]
    status: String,
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
    let Some(state) = site.service().or_else(|| site.archived()) else {
        let body =
            html! { h1 { "Schedulers" } (absent("No inference service runs in this process.")) };
        return Ok(page(
            "Schedulers",
            "/schedulers",
            Some(&readiness),
            false,
            body,
        ));
    };
    shared.refresh_scores().await;
    let scores = shared.scores().latest();
    let score_of = |name: &str| {
        scores
            .iter()
            .find(|score| score.scheduler == name)
            .map(|score| score.score)
    };
    let status = STATUSES.into_iter().find(|status| *status == choice.status);
    let (part, after, now) = (choice.part.clone(), choice.after.clone(), snapshot.now);
    let (rows, archived) = blocking(move || {
        let rows = state.schedulers(now, &part, status, &after, PAGE)?;
        let archived = match site.archived() {
            Some(archive) if after.is_empty() && status.is_none() => {
                only_archived(&state, &archive, now, &part)?
            }
            _ => Vec::new(),
        };
        Ok::<_, ReadError>((rows, archived))
    })
    .await??;
    let address = |after: &str| {
        format!(
            "/schedulers?part={}&status={}&after={}",
            encoded(&choice.part),
            status.unwrap_or(""),
            encoded(after)
        )
    };
    let next = rows
        .last()
        .filter(|_| rows.len() == PAGE)
        .map(|row| address(&row.name));
    let body = html! {
        h1 { "Schedulers" }
        form method="get" action="/schedulers" class="filter" {
            label for="part" { "Name contains" }
            input id="part" name="part" type="search" value=(choice.part) maxlength="200" autocomplete="off";
            label for="status" { "Status" }
            select id="status" name="status" data-submit {
                option value="" selected[status.is_none()] { "all" }
                @for known in STATUSES { option value=(known) selected[status == Some(known)] { (known) } }
            }
            button type="submit" { "Show" }
        }
        section id="list" data-live aria-label="List" {
            @if rows.is_empty() { (absent("No such scheduler.")) } @else { (scheduler_table(&rows, snapshot.now, &score_of)) }
        }
        @if !archived.is_empty() {
            section aria-labelledby="archived-title" {
                h2 id="archived-title" { "Archived" }
                p class="dim" { "Imported, or deleted since. Their results stay in the archive of this data directory." }
                (scheduler_table(&archived, snapshot.now, &score_of))
            }
        }
        @if !choice.after.is_empty() || next.is_some() {
            nav class="pager" aria-label="Pages of the list" {
                @if !choice.after.is_empty() { a href=(address("")) { "First" } }
                @if let Some(next) = next { a href=(next) rel="next" { "Next" } }
            }
        }
    };
    Ok(page(
        "Schedulers",
        "/schedulers",
        Some(&readiness),
        false,
        body,
    ))
}

/// Schedulers that only the archive knows, at most a page of them.
fn only_archived(
    state: &Known,
    archive: &Known,
    now: DateTime<Utc>,
    part: &str,
) -> Answer<Vec<SchedulerRow>> {
    let mut rows = archive.schedulers(now, part, None, "", PAGE)?;
    let mut unknown = Vec::new();
    for row in rows.drain(..) {
        if state.scheduler(now, &row.name)?.is_none() {
            unknown.push(row);
        }
    }
    Ok(unknown)
}
