//! `/scheduler`: one inference scheduler: the score with events and labels, the selected event and what contributed to it,
//! the history of executions with the reason of each failure and the fix.

use std::collections::HashMap;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::assets::{self, Executed};
use super::coverage::bar;
use super::layout::{absent, chip, clock, encoded, page, pager, time};
use super::overview::starting;
use crate::executions::{
    Answer, EventRow, ExecutionRow, ReadError, SchedulerRow, State as Service,
};
use crate::feed::blocking;
use crate::inference::{Delivery, Failed, advice};
use crate::ops::admin::{Shared, failed};
use crate::ops::health::{judge, span};
use crate::signal::Asset;

/// Executions on a page.
const PAGE: usize = 50;
/// Events that are listed.
const EVENTS: usize = 20;
/// Sensors that are ranked.
const RANKED: usize = 15;
/// Ranges of the score chart, hours.
const RANGES: [(u32, &str); 4] = [
    (6, "6 hours"),
    (24, "24 hours"),
    (72, "3 days"),
    (168, "7 days"),
];
const STATUSES: [&str; 3] = ["SUCCESS", "FAILED", "IN_PROGRESS"];

#[derive(Debug, Deserialize)]
pub struct Choice {
    #[serde(default)]
    name: String,
    /// The asset that it is the scheduler of; without a name, the asset's is taken.
    #[serde(default)]
    asset: String,
    hours: Option<u32>,
    #[serde(default)]
    status: String,
    before: Option<i64>,
    /// Start of the selected event, microseconds.
    event: Option<i64>,
}

/// What one page shows.
struct Shown {
    scheduler: SchedulerRow,
    executions: Vec<ExecutionRow>,
    events: Vec<EventRow>,
    selected: Option<EventRow>,
    /// The newest execution with results.
    newest: Option<ExecutionRow>,
    /// Starts of the windows that were delivered and never scored.
    never: Vec<DateTime<Utc>>,
    /// What to do about executions that failed, by the starts of their windows.
    fixes: HashMap<DateTime<Utc>, String>,
}

/// A line of the list of executions.
#[derive(Debug)]
enum Line<'a> {
    /// An execution.
    Ran(&'a ExecutionRow, Option<&'a str>),
    /// A window that none looked at, from and to.
    Never(DateTime<Utc>, DateTime<Utc>),
}

impl Line<'_> {
    fn end(&self) -> DateTime<Utc> {
        match self {
            Self::Ran(row, _) => row.end,
            Self::Never(_, end) => *end,
        }
    }
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
    let hours = hours(choice.hours);
    let status = STATUSES.into_iter().find(|status| *status == choice.status);
    let before = choice.before.and_then(DateTime::from_timestamp_micros);
    let event = choice.event.and_then(DateTime::from_timestamp_micros);
    let range = TimeDelta::hours(i64::from(hours));
    let asset = site.asset(&Asset::known(&choice.asset));
    let asset = asset.map(|one| one.asset.clone()).unwrap_or_default();
    let (looked, named, now) = (site.clone(), choice.name.clone(), snapshot.now);
    let (pictured, of) = (snapshot.clone(), asset.clone());
    let found = blocking(move || {
        let name = match named.as_str() {
            "" => Executed::ask(&looked, &pictured)?
                .scheduler(&of)
                .unwrap_or_default()
                .to_owned(),
            _ => named,
        };
        let Some((state, scheduler)) = looked.scheduler(now, &name)? else {
            return Ok::<_, ReadError>(None);
        };
        let from = scheduler.until(now) - range;
        let never = match status {
            None => looked.never_scored(&pictured, &name),
            Some(_) => Vec::new(),
        };
        let mut shown = load(&state, scheduler, status, before, event, from, now)?;
        shown.never = never;
        shown.fixes = fixes(&shown.executions, |start| {
            let entry = looked.window(&pictured, &shown.scheduler.name, start)?;
            Some(Delivery {
                said: entry.told(),
                shipped_at: entry.shipped_at,
            })
        });
        Ok(Some(shown))
    })
    .await??;
    let Some(shown) = found else {
        let body = html! {
            (assets::tabs(&asset, "/scheduler"))
            h1 { "No such scheduler" }
            @if choice.name.is_empty() && asset.is_named() {
                p { "No scheduler is known here that reads what " b { (asset) } " is fed. " a href="/schedulers" { "All schedulers" } }
            } @else {
                p { "There is no scheduler " b { (choice.name) } " here. " a href="/schedulers" { "All schedulers" } }
            }
        };
        let mut response = page(
            "No such scheduler",
            "/schedulers",
            Some(&readiness),
            false,
            body,
        );
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response.into_response());
    };
    let name = encoded(&shown.scheduler.name);
    let about = assets::address(&asset);
    let base = format!("/scheduler?name={name}{about}&hours={hours}");
    let score = match (&shown.newest, &site.s3) {
        (Some(newest), Some(client)) => {
            let scored = shared
                .scores()
                .read(client, std::slice::from_ref(newest))
                .await;
            scored
                .into_iter()
                .flatten()
                .next()
                .and_then(|scored| scored.last)
        }
        _ => None,
    };
    let body = html! {
        @if asset.is_named() { (assets::tabs(&asset, "/scheduler")) (assets::choice(&snapshot, "/scheduler", &asset)) } @else {
            nav aria-label="Path" class="path" { a href="/schedulers" { span aria-hidden="true" { "‹ " } "Schedulers" } }
        }
        h1 { (shown.scheduler.name) }
        section id="now" data-live aria-label="Now" { (now_line(&shown.scheduler, snapshot.now, score.map(|(_, score)| score))) }
        section aria-labelledby="score-title" {
            div class="row" {
                h2 id="score-title" { "Anomaly score" }
                nav class="ranges" aria-label="Range" {
                    @for (range, words) in RANGES {
                        a href={ "/scheduler?name=" (name) (about) "&hours=" (range) } aria-current=[(range == hours).then_some("true")] { (words) }
                    }
                }
            }
            div class="chart" data-chart="score" data-src={ "/api/score?name=" (name) "&hours=" (hours) } role="img"
                aria-label="Anomaly score over time with the threshold 0.5, events and labels as bands" {}
            p class="legend dim" { span class="key event" {} " event " span class="key label" {} " labelled anomaly " span class="key threshold" {} " threshold 0.5. Drag to zoom, double click to go back." }
        }
        section aria-labelledby="events-title" {
            h2 id="events-title" { "Events" }
            div id="events" data-live { (events(&shown, &base)) }
        }
        @if let Some(event) = &shown.selected { (selected(event, &name)) }
        section aria-labelledby="history-title" id="history" {
            h2 id="history-title" { "Executions" }
            form method="get" action="/scheduler" class="filter" {
                input type="hidden" name="name" value=(shown.scheduler.name);
                @if asset.is_named() { input type="hidden" name="asset" value=(asset.name()); }
                input type="hidden" name="hours" value=(hours);
                label for="status" { "Status" }
                select id="status" name="status" data-submit {
                    option value="" selected[status.is_none()] { "all" }
                    @for known in STATUSES { option value=(known) selected[status == Some(known)] { (known) } }
                }
                button type="submit" { "Show" }
            }
            div id="executions" data-live { (executions(&lines(&shown, before))) }
            @let address = |before: Option<DateTime<Utc>>| format!(
                "{base}&status={}{}#history",
                status.unwrap_or(""),
                before.map(|before| format!("&before={}", before.timestamp_micros())).unwrap_or_default()
            );
            (pager(
                before.map(|_| address(None)),
                shown.executions.last().filter(|_| shown.executions.len() == PAGE).map(|row| address(Some(row.end))),
            ))
        }
    };
    Ok(page(
        &shown.scheduler.name,
        "/schedulers",
        Some(&readiness),
        true,
        body,
    ))
}

/// The range of the score chart that was asked for.
pub fn hours(asked: Option<u32>) -> u32 {
    RANGES
        .iter()
        .map(|(hours, _)| *hours)
        .find(|hours| Some(*hours) == asked)
        .unwrap_or(24)
}

fn load(
    state: &Service,
    scheduler: SchedulerRow,
    status: Option<&str>,
    before: Option<DateTime<Utc>>,
    event: Option<DateTime<Utc>>,
    from: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Answer<Shown> {
    let executions = state.executions(&scheduler.uuid, status, None, before, PAGE)?;
    let events = state.events(&scheduler.uuid, Some(from), None, EVENTS)?;
    let selected = match event {
        Some(start) => state.event(&scheduler.uuid, start)?,
        None => events.first().cloned(),
    };
    let to_come = now + scheduler.cadence().duration();
    let newest = state
        .executions(&scheduler.uuid, Some("SUCCESS"), None, Some(to_come), 1)?
        .pop();
    Ok(Shown {
        scheduler,
        executions,
        events,
        selected,
        newest,
        never: Vec::new(),
        fixes: HashMap::new(),
    })
}

/// What to do about those that failed.
fn fixes(
    rows: &[ExecutionRow],
    delivery: impl Fn(DateTime<Utc>) -> Option<Delivery>,
) -> HashMap<DateTime<Utc>, String> {
    let fix = |row: &ExecutionRow| {
        let failed = Failed {
            reason: row.reason.as_deref()?,
            looked: row.scheduled,
            end: row.end,
        };
        Some((row.start, advice(&failed, delivery(row.start).as_ref())?))
    };
    rows.iter().filter_map(fix).collect()
}

/// The lines of a page that ends before `before`, newest first: its executions, and between them the windows that were never
/// scored.
fn lines(shown: &Shown, before: Option<DateTime<Utc>>) -> Vec<Line<'_>> {
    let rows = &shown.executions;
    let oldest = rows
        .last()
        .filter(|_| rows.len() == PAGE)
        .map(|row| row.end);
    let cadence = shown.scheduler.cadence().duration();
    let ran = |row| Line::Ran(row, shown.fixes.get(&row.start).map(String::as_str));
    let mut lines: Vec<Line<'_>> = rows.iter().map(ran).collect();
    let never = shown.never.iter().map(|start| (*start, *start + cadence));
    let here = never.filter(|(_, end)| {
        before.is_none_or(|before| *end < before) && oldest.is_none_or(|oldest| *end > oldest)
    });
    lines.extend(here.map(|(start, end)| Line::Never(start, end)));
    lines.sort_by_key(|line| std::cmp::Reverse(line.end()));
    lines
}

fn now_line(scheduler: &SchedulerRow, now: DateTime<Utc>, score: Option<f64>) -> Markup {
    html! {
        dl class="facts" {
            div { dt { "Status" } dd { (chip(&scheduler.status)) } }
            div { dt { "Last window" } dd { @match scheduler.latest_result.as_deref() { Some(result) => (chip(result)), None => span class="dim" { "no result yet" } } } }
            div { dt { "Score now" } dd { @match score { Some(score) => (format!("{score:.3}")), None => span class="dim" { "none" } } } }
            div { dt { "Next wake-up" } dd { @match scheduler.wakes {
                Some(at) => { (time(at)) @if at > now { span class="dim" { " in " (span(at - now)) } } }
                None if scheduler.status == "ARCHIVED" => span class="dim" { "known where it runs" },
                None => span class="dim" { "never while it is " (scheduler.status) },
            } } }
            div { dt { "Cadence" } dd { (scheduler.frequency) " + " (scheduler.delay_minutes) " min" } }
            div { dt { "Model" } dd { (scheduler.model) } }
            div { dt { "Reads" } dd class="wrap" { code { "s3://" (scheduler.input.bucket) "/" (scheduler.input.prefix) } } }
        }
    }
}

fn events(shown: &Shown, base: &str) -> Markup {
    if shown.events.is_empty() {
        return absent("No event in this range.");
    }
    let selected = shown.selected.as_ref().map(|selected| selected.start);
    events_table(&shown.events, selected, base)
}

/// Events with the sensor that leads each, and ways to them from `base` on.
pub fn events_table(events: &[EventRow], selected: Option<DateTime<Utc>>, base: &str) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Events" {
            table {
                thead { tr { th scope="col" { "Start" } th scope="col" { "Duration" } th scope="col" { "Top sensor" } th scope="col" class="num" { "Share" } th scope="col" { "" } } }
                tbody {
                    @for event in events {
                        @let here = selected == Some(event.start);
                        tr class=[here.then_some("here")] {
                            th scope="row" { (time(event.start)) }
                            td { (span(event.end - event.start)) }
                            td { (event.shares.first().map(|(name, _)| name.as_str()).unwrap_or("not known")) }
                            td class="num" { (event.shares.first().map(|(_, share)| format!("{:.0} %", share * 100.0)).unwrap_or_default()) }
                            td { a href={ (base) "&event=" (event.start.timestamp_micros()) "#event" } aria-current=[here.then_some("true")] { @if here { "selected" } @else { "show" } span class="hidden" { " event of " (event.start.format("%Y-%m-%d %H:%M")) } } }
                        }
                    }
                }
            }
        }
    }
}

fn selected(event: &EventRow, name: &str) -> Markup {
    let uniform = 1.0 / event.shares.len().max(1) as f64;
    let highest = event
        .shares
        .first()
        .map_or(1.0, |(_, share)| share.max(1e-9));
    let start = event.start.timestamp_micros();
    html! {
        section id="event" aria-labelledby="event-title" {
            h2 id="event-title" { "Event of " (time(event.start)) }
            p {
                "Lasted " (span(event.end - event.start)) ", until " (time(event.end)) ". "
                @if let Some((sensor, share)) = event.shares.first() {
                    "What contributed most: " b id="top-sensor" { (sensor) } " (" (format!("{:.0} %", share * 100.0)) ")."
                }
            }
            div class="columns" {
                div {
                    h3 { "Contribution by sensor" }
                    @if event.shares.is_empty() { (absent("The results of this model have no contributions.")) } @else {
                        table class="ranked" {
                            thead { tr { th scope="col" { "Sensor" } th scope="col" { "Share" } th scope="col" class="num" { "%" } } }
                            tbody {
                                @for (sensor, share) in event.shares.iter().take(RANKED) {
                                    tr class=[(*share > uniform).then_some("above")] {
                                        th scope="row" { (sensor) }
                                        td { (bar(share / highest)) }
                                        td class="num" { (format!("{:.1}", share * 100.0)) }
                                    }
                                }
                            }
                        }
                        p class="dim" { "Mean over the event. " (event.shares.len()) " sensors; an even share would be " (format!("{:.1} %", uniform * 100.0)) "." }
                    }
                }
                div {
                    h3 { "Contribution over time" }
                    div class="chart small" data-chart="lines" data-src={ "/api/contribution?name=" (name) "&event=" (start) } role="img" aria-label="Share of the leading sensors over time around the event" {}
                }
            }
            h3 { "Signals of the leading sensors" }
            div class="signals" data-chart="signals" data-src={ "/api/signals?name=" (name) "&event=" (start) } role="img" aria-label="Values of the leading sensors around the event, which is shaded" {}
        }
    }
}

fn executions(lines: &[Line<'_>]) -> Markup {
    if lines.is_empty() {
        return absent("No such execution.");
    }
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Executions" {
            table {
                thead { tr { th scope="col" { "Data from" } th scope="col" { "to" } th scope="col" { "Status" } th scope="col" { "Scheduled" } th scope="col" { "Ended" } th scope="col" class="num" { "Took" } th scope="col" class="num" { "Anomalous rows" } } }
                tbody {
                    @for line in lines {
                        @match line {
                            Line::Ran(row, fix) => (execution(row, *fix)),
                            Line::Never(start, end) => tr {
                                th scope="row" { (time(*start)) }
                                td { (clock(*end)) }
                                td { (chip("never scored")) }
                                td class="dim" colspan="4" { "Delivered, and no execution looked at it: " code { "lookoutd model score" } " scores its files." }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn execution(row: &ExecutionRow, fix: Option<&str>) -> Markup {
    html! {
        tr class=[row.reason.is_some().then_some("told")] {
            th scope="row" { (time(row.start)) }
            td { (clock(row.end)) }
            td { (chip(&row.status)) }
            td { (clock(row.scheduled)) }
            td { @match row.finished { Some(at) => (clock(at)), None => span class="dim" { "not yet" } } }
            td class="num" { (row.finished.map(|end| took(end - row.scheduled)).unwrap_or_default()) }
            td class="num" { @if let Some((rows, anomalous)) = row.rows { (anomalous) " of " (rows) } }
        }
        @if let Some(reason) = &row.reason {
            tr class="detail" {
                td class="why" colspan="7" {
                    p { (reason) }
                    @if let Some(fix) = fix { p class="fix" { b { "Fix: " } (fix) } }
                }
            }
        }
    }
}

fn took(length: TimeDelta) -> String {
    let seconds = length.as_seconds_f64();
    if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else {
        span(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executions::Input;
    use crate::signal::NameFormat;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + minutes * 60, 0).unwrap()
    }

    fn shown(starts: &[i64], never: &[i64]) -> Shown {
        let row = |start: &i64| ExecutionRow {
            start: at(*start),
            end: at(start + 5),
            scheduled: at(start + 5),
            finished: Some(at(start + 6)),
            status: "SUCCESS".into(),
            reason: None,
            result: None,
            rows: Some((5, 0)),
            file: None,
        };
        Shown {
            scheduler: SchedulerRow {
                name: "s".into(),
                uuid: "s".into(),
                model: "m".into(),
                status: "RUNNING".into(),
                latest_result: None,
                frequency: "PT5M".into(),
                delay_minutes: 0,
                wakes: None,
                last: None,
                input: Input {
                    bucket: "b".into(),
                    prefix: String::new(),
                    naming: NameFormat::default(),
                },
            },
            executions: starts.iter().map(row).collect(),
            events: Vec::new(),
            selected: None,
            newest: None,
            never: never.iter().copied().map(at).collect(),
            fixes: HashMap::new(),
        }
    }

    #[test]
    fn windows_that_were_never_scored_stand_between_the_executions_of_their_page() {
        let one_page = shown(&[30, 25, 10, 5], &[15, 20, 35]);
        let listed = lines(&one_page, None);
        let starts: Vec<i64> = listed
            .iter()
            .map(|line| (line.end() - at(5)).num_minutes())
            .collect();
        assert_eq!(starts, [35, 30, 25, 20, 15, 10, 5]);
        assert!(matches!(listed[0], Line::Never(..)) && matches!(listed[1], Line::Ran(..)));
        let page = executions(&listed).into_string();
        assert_eq!(page.matches("never scored").count(), 3, "{page}");
        // What to do about one that failed stands below it, as its files' delivery has it.
        let mut failing = shown(&[10], &[]);
        failing.executions[0].reason = Some("Could not find data file for sensor a".into());
        let late = |start: DateTime<Utc>| {
            let shipped_at = Some(start + TimeDelta::minutes(9));
            let said = "complete in the store".to_owned();
            Some(Delivery { shipped_at, said })
        };
        failing.fixes = fixes(&failing.executions, late);
        let page = executions(&lines(&failing, None)).into_string();
        assert!(
            page.contains("Fix: </b> its files came at")
                || page.contains("Fix: </b>its files came at"),
            "{page}"
        );
        // On a page of many, only what belongs between its first and its last.
        let newest: Vec<i64> = (100..100 + PAGE as i64).rev().map(|n| n * 5).collect();
        let many = shown(&newest, &[15, 20, 3_000]);
        assert_eq!(lines(&many, None).len(), PAGE + 1);
        assert_eq!(lines(&many, Some(at(2_000))).len(), PAGE);
    }
}
