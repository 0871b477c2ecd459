//! `/asset`: one asset of a plant: how it stands and why, its newest windows, its scheduler with the score of the last day and
//! the newest events, its components. What there is more of lies on the pages that its head leads to.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::assets::{self, Executed, Grade, Line};
use super::layout::{absent, chip, encoded, maybe_time, page};
use super::overview::{reason_line, starting, strip};
use super::scheduler::events_table;
use crate::executions::{EventRow, SchedulerRow};
use crate::feed::blocking;
use crate::ops::admin::{Shared, failed};
use crate::ops::health::{Readiness, Reason, judge};
use crate::ops::site::AssetSite;
use crate::signal::Asset;

/// Events that are listed, and how far back.
const EVENTS: usize = 5;
const EVENTS_BACK: TimeDelta = TimeDelta::days(7);
/// Components that are named.
const COMPONENTS: usize = 40;

#[derive(Debug, Deserialize)]
pub struct Choice {
    #[serde(default)]
    asset: String,
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
    let asset = Asset::known(&choice.asset);
    if !asset.is_named() || site.asset(&asset).is_none() || snapshot.asset(&asset).is_none() {
        let body = assets::nothing(
            &site,
            &choice.asset,
            "Asset",
            "No assets are told apart here.",
        );
        let mut response = page("No such asset", "/", Some(&readiness), false, body);
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let (asked, looked) = (site.clone(), snapshot.clone());
    let of = asset.clone();
    let (executed, scheduler) = blocking(move || -> anyhow::Result<_> {
        let executed = Executed::ask(&asked, &looked)?;
        let found = match executed.scheduler(&of) {
            Some(name) => asked.scheduler(looked.now, name)?,
            None => None,
        };
        let scheduler = match found {
            Some((state, scheduler)) => {
                let from = scheduler.until(looked.now) - EVENTS_BACK;
                let events = state.events(&scheduler.uuid, Some(from), None, EVENTS)?;
                Some((scheduler, events))
            }
            None => None,
        };
        Ok((executed, scheduler))
    })
    .await??;
    let lines = executed.lines(&snapshot, &readiness);
    let line = lines.iter().find(|line| line.known.asset == asset);
    let (Some(line), Some(parts)) = (line, site.asset(&asset)) else {
        return Ok(starting());
    };
    let body = html! {
        (assets::tabs(&asset, "/asset"))
        (assets::choice(&snapshot, "/asset", &asset))
        section id="trouble" data-live class={ "banner " (line.grade.class()) } aria-labelledby="trouble-title" { (trouble(line, &readiness, snapshot.now)) }
        section id="feeding" data-live aria-labelledby="feeding-title" {
            h2 id="feeding-title" { "Newest windows" }
            @match &line.known.feed {
                Some(feed) => {
                    (strip(feed, &asset))
                    p class="dim" { (feed.census.due + feed.waiting.spooled) " waiting · " a href={ "/windows?asset=" (encoded(asset.name())) } { "All windows" } }
                }
                None => (absent("It waits for its history: nothing of it was cut by this process.")),
            }
        }
        (executing(line, scheduler.as_ref(), &asset))
        section aria-labelledby="signals-title" {
            h2 id="signals-title" { "Signals" }
            (signals(parts, &asset))
        }
    };
    Ok(page(asset.name(), "/", Some(&readiness), true, body))
}

fn trouble(line: &Line<'_>, readiness: &Readiness, now: DateTime<Utc>) -> Markup {
    let of_all = |reason: &Reason| reason.blocking && reason.subject.asset.is_empty();
    let stopped = readiness.reasons.iter().any(of_all);
    html! {
        h1 id="trouble-title" { (line.known.asset) " " (line.grade.chip()) }
        ul class="reasons" {
            @if let Some(news) = line.anomaly {
                li {
                    p { b { "The last result is anomalous, since " (maybe_time(news.since)) "." } }
                    @if let Some((sensor, share)) = news.event.as_ref().and_then(|event| event.shares.first()) {
                        p { "What contributes most: " b { (sensor) } " (" (format!("{:.0} %", share * 100.0)) ")." }
                    }
                }
            }
            @for reason in &line.reasons { (reason_line(reason, None)) }
            @if let Some(failing) = line.failing {
                li {
                    p { b { "The last execution failed: " (failing.last.reason.as_deref().unwrap_or("it is not said why")) } }
                    p class="dim" { "the first window that failed ended " (maybe_time(Some(failing.since))) }
                }
            }
        }
        @if stopped { p { "Something is wrong that concerns all assets: " a href="/" { "what it is" } "." } }
        @else if line.grade == Grade::Well { p { "Fed and executed as it should be, " (maybe_time(Some(now))) "." } }
    }
}

fn executing(
    line: &Line<'_>,
    scheduler: Option<&(SchedulerRow, Vec<EventRow>)>,
    asset: &Asset,
) -> Markup {
    let watched = line.known.watched.as_ref();
    html! {
        @match scheduler {
            None => section aria-labelledby="score-title" {
                h2 id="score-title" { "Scheduler" }
                @match watched {
                    Some(standing) => p { "Kept as " b { (standing.scheduler) } ": " (chip(standing.status.as_deref().unwrap_or("gone"))) " No execution of it is known here yet." },
                    None => (absent("No scheduler is known here that reads what this asset is fed.")),
                }
            },
            Some((scheduler, events)) => {
                @let name = encoded(&scheduler.name);
                section aria-labelledby="score-title" {
                    div class="row" {
                        h2 id="score-title" { "Anomaly score of the last day" }
                        p { a href={ "/scheduler?name=" (name) (assets::address(asset)) } { (scheduler.name) } " " (chip(&scheduler.status)) span class="dim" { " model " (scheduler.model) } }
                    }
                    div class="chart" data-chart="score" data-src={ "/api/score?name=" (name) "&hours=24" } role="img"
                        aria-label="Anomaly score over the last day with the threshold 0.5, events and labels as bands" {}
                }
                section id="events" data-live aria-labelledby="events-title" {
                    h2 id="events-title" { "Events of the last week" }
                    @if events.is_empty() { (absent("No event in the last week.")) } @else {
                        (events_table(events, None, &format!("/scheduler?name={name}{}&hours=168", assets::address(asset))))
                    }
                }
            }
        }
    }
}

fn signals(parts: &AssetSite, asset: &Asset) -> Markup {
    let Some(feed) = &parts.feed else {
        return absent("They are known once its history is open.");
    };
    let components = &feed.tags.components;
    html! {
        p { (feed.tags.signal_count()) " signals in " (components.len()) " components · " a href={ "/coverage?asset=" (encoded(asset.name())) } { "Values, gaps and what is stuck" } }
        ul class="components" {
            @for component in components.iter().take(COMPONENTS) {
                li { (component.name) span class="dim" { " " (component.signals.len()) } }
            }
            @if components.len() > COMPONENTS { li class="dim" { "and " (components.len() - COMPONENTS) " more" } }
        }
    }
}
