//! `/windows`: the ledger, newest first, by state.

use axum::extract::{Query, State};
use axum::response::Response;
use chrono::DateTime;
use maud::html;
use serde::Deserialize;

use super::assets;
use super::layout::{absent, bytes, chip, maybe_time, page, pager, time};
use super::overview::starting;
use crate::feed::{Entry, LedgerError, State as WindowState, blocking};
use crate::ops::admin::{Shared, failed};
use crate::ops::health::judge;

/// Windows on a page.
const PAGE: usize = 50;
const STATES: [WindowState; 8] = [
    WindowState::Due,
    WindowState::Spooled,
    WindowState::Shipped,
    WindowState::Partial,
    WindowState::Covered,
    WindowState::Empty,
    WindowState::Skipped,
    WindowState::Quarantined,
];

#[derive(Debug, Deserialize)]
pub struct Choice {
    #[serde(default)]
    asset: String,
    #[serde(default)]
    state: String,
    before: Option<i64>,
}

pub async fn show(State(shared): State<Shared>, Query(choice): Query<Choice>) -> Response {
    match draw(&shared, &choice).await {
        Ok(response) => response,
        Err(error) => failed(&error),
    }
}

async fn draw(shared: &Shared, choice: &Choice) -> anyhow::Result<Response> {
    let (Some(site), Some(snapshot)) = (shared.site(), shared.snapshot().await?) else {
        return Ok(starting());
    };
    let readiness = judge(&snapshot);
    let chosen = assets::chosen(&site, &snapshot, &choice.asset);
    let parts = chosen
        .and_then(|(one, known)| Some((&one.asset, one.feed.as_ref()?, known.feed.as_ref()?)));
    let Some((asset, feed, figures)) = parts else {
        let otherwise = "No feeder runs in this process: it serves the API only.";
        let body = assets::nothing(&site, &choice.asset, "Windows", otherwise);
        return Ok(page("Windows", "/windows", Some(&readiness), false, body));
    };
    let state = WindowState::from_name(&choice.state);
    let before = choice
        .before
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let ledger = feed.ledger.clone();
    let rows = blocking(move || -> Result<Vec<Entry>, LedgerError> {
        if state == Some(WindowState::Skipped) {
            let mut rows = ledger.skips(before, PAGE)?;
            rows.extend(ledger.page(state, before, PAGE)?);
            rows.sort_by_key(|entry| std::cmp::Reverse(entry.start));
            rows.truncate(PAGE);
            return Ok(rows);
        }
        ledger.page(state, before, PAGE)
    })
    .await??;
    let census = &figures.census;
    let address = |before: Option<i64>| {
        let mut address = format!("/windows?state={}", state.map_or("", WindowState::name));
        address.push_str(&assets::address(asset));
        if let Some(before) = before {
            address.push_str(&format!("&before={before}"));
        }
        address
    };
    let next =
        (rows.len() == PAGE).then(|| address(rows.last().map(|entry| entry.start.timestamp())));
    let body = html! {
        (assets::tabs(asset, "/windows"))
        (assets::heading("Windows", asset))
        (assets::choice(&snapshot, "/windows", asset))
        form method="get" action="/windows" class="filter" {
            @if asset.is_named() { input type="hidden" name="asset" value=(asset.name()); }
            label for="state" { "State" }
            select id="state" name="state" data-submit {
                option value="" selected[state.is_none()] { "all" }
                @for known in STATES {
                    option value=(known.name()) selected[state == Some(known)] {
                        (known.word()) " (" (count(census, known)) ")"
                    }
                }
            }
            button type="submit" { "Show" }
        }
        @if let Some(known) = state { p class="dim" { (known.word()) ": " (known.describe()) "." } }
        section id="windows" data-live aria-label="List" {
            @if rows.is_empty() { (absent("No such window.")) } @else {
                div class="scroll" tabindex="0" role="region" aria-label="Windows" {
                    table {
                        thead { tr { th scope="col" { "Start" } th scope="col" { "End" } th scope="col" { "State" } th scope="col" class="num" { "Rows" } th scope="col" class="num" { "Files" } th scope="col" class="num" { "Size" } th scope="col" { "Cut" } th scope="col" { "Delivered" } th scope="col" class="num" { "Failed tries" } th scope="col" { "Why" } } }
                        tbody {
                            @for entry in &rows {
                                tr {
                                    th scope="row" { (time(entry.start)) }
                                    td { (time(entry.end)) }
                                    td { (chip(entry.state.word())) }
                                    td class="num" { (entry.rows) }
                                    td class="num" { (entry.files) "/" (entry.components) }
                                    td class="num" { (bytes(entry.bytes)) }
                                    td { (maybe_time(entry.cut_at)) }
                                    td { (maybe_time(entry.shipped_at)) }
                                    td class="num" { (entry.attempts) }
                                    td class="why" { (entry.reason.as_deref().or(entry.last_error.as_deref()).unwrap_or_default()) }
                                }
                            }
                        }
                    }
                }
            }
        }
        (pager(before.map(|_| address(None)), next))
    };
    Ok(page("Windows", "/windows", Some(&readiness), false, body))
}

fn count(census: &crate::feed::Census, state: WindowState) -> u64 {
    match state {
        WindowState::Due => census.due,
        WindowState::Spooled => census.spooled,
        WindowState::Shipped => census.shipped,
        WindowState::Partial => census.partial,
        WindowState::Covered => census.covered,
        WindowState::Empty => census.empty,
        WindowState::Skipped => census.skipped,
        WindowState::Quarantined => census.quarantined,
    }
}
