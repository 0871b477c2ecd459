//! `/`: the verdict and its reasons; of a plant its assets, the worst first; how delivery goes, the newest windows, the
//! schedulers.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use super::assets::address;
use super::layout::{absent, bytes, chip, encoded, maybe_time, page, time};
use super::plant::{Choice, Page};
use crate::executions::{Answer, SchedulerRow, State as Service};
use crate::feed::{Entry, State as WindowState, blocking};
use crate::ops::admin::{Shared, failed};
use crate::ops::health::{Readiness, Reason, judge, span};
use crate::ops::site::{FeedSnapshot, Site, Snapshot, resident_bytes};
use crate::signal::Asset;
use crate::store::standing::Standing;

/// Schedulers on this page.
const SCHEDULERS: usize = 8;
/// Reasons that are told one by one where there are many assets.
const REASONS: usize = 8;

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
    if snapshot.has_names() {
        return plant(site, snapshot, &readiness, choice).await;
    }
    shared.refresh_scores().await;
    let schedulers = first_schedulers(&site).await?;
    let scores = shared.scores().latest();
    let score_of = |name: &str| {
        scores
            .iter()
            .find(|score| score.scheduler == name)
            .map(|score| score.score)
    };
    let is_watched = snapshot.assets.iter().any(|one| one.watched.is_some());
    let watched = snapshot.only().and_then(|one| one.watched.as_ref());
    let body = html! {
        (trouble(&readiness))
        section id="numbers" data-live aria-label="Figures" { (figures(&snapshot)) }
        section id="strip" data-live aria-labelledby="strip-title" {
            h2 id="strip-title" { "Newest windows" }
            @match snapshot.feeds().next() {
                Some(feed) => (strip(feed, &Asset::default())),
                None => (absent("No feeder runs in this process.")),
            }
        }
        section id="schedulers" data-live aria-labelledby="schedulers-title" {
            h2 id="schedulers-title" { "Inference schedulers" }
            @if let Some(standing) = watched {
                p {
                    "This gateway keeps " b { (standing.scheduler) } ": "
                    (chip(standing.status.as_deref().unwrap_or("gone")))
                    @if let Some(failure) = &standing.failure { " " span class="dim" { (failure) } }
                }
            }
            @match &schedulers {
                None if !is_watched => (absent("No inference service runs in this process, and no scheduler is configured (inference.scheduler).")),
                None => {},
                Some(rows) if rows.is_empty() => (absent("There is no scheduler yet. Create one with lookoutd scheduler create, the AWS CLI or an SDK.")),
                Some(rows) => {
                    (scheduler_table(rows, snapshot.now, &score_of))
                    @if rows.len() == SCHEDULERS { p { a href="/schedulers" { "All schedulers" } } }
                }
            }
        }
    };
    Ok(page("Overview", "/", Some(&readiness), false, body))
}

/// The page of a plant.
async fn plant(
    site: Site,
    snapshot: Arc<Snapshot>,
    readiness: &Readiness,
    choice: Choice,
) -> anyhow::Result<Response> {
    let (looked, judged) = (snapshot.clone(), readiness.clone());
    let assets = blocking(move || Page::ask(&site, &looked, &judged, choice)).await??;
    let body = html! {
        (trouble(readiness))
        section aria-labelledby="assets-title" {
            div class="row" {
                h2 id="assets-title" { "Assets" }
                (assets.form())
            }
            div id="grades" data-live { (assets.counts()) }
            div id="assets" data-live { (assets.list()) }
        }
        section id="numbers" data-live aria-label="Figures" { (figures(&snapshot)) }
        p { a href="/schedulers" { "All schedulers" } }
    };
    Ok(page("Overview", "/", Some(readiness), false, body))
}

/// The page while the process starts.
pub fn starting() -> Response {
    page(
        "Starting",
        "/",
        None,
        false,
        html! { h1 { "Starting" } p id="starting" data-live { "lookoutd is starting. This page goes on by itself." } },
    )
}

/// The table of schedulers, here and on their own page.
pub fn scheduler_table(
    rows: &[SchedulerRow],
    now: DateTime<Utc>,
    score_of: &dyn Fn(&str) -> Option<f64>,
) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Schedulers" {
            table {
                thead { tr { th scope="col" { "Scheduler" } th scope="col" { "Status" } th scope="col" { "Last window" } th scope="col" { "Last execution" } th scope="col" class="num" { "Score" } th scope="col" { "Wakes" } th scope="col" { "Model" } } }
                tbody {
                    @for row in rows {
                        tr {
                            th scope="row" { a href={ "/scheduler?name=" (encoded(&row.name)) } { (row.name) } }
                            td { (chip(&row.status)) }
                            td { @match row.latest_result.as_deref() { Some(result) => (chip(result)), None => span class="dim" { "no result" } } }
                            td { @match &row.last { Some((status, end)) => { (chip(status)) " " (time(*end)) } None => span class="dim" { "none" } } }
                            td class="num" { @match score_of(&row.name) { Some(score) => (format!("{score:.2}")), None => span class="dim" { "none" } } }
                            td { @match row.wakes {
                                Some(at) if at > now => { "in " (span(at - now)) }
                                Some(_) => "now",
                                None if row.status == "ARCHIVED" => span class="dim" { "known where it runs" },
                                None => span class="dim" { "never" },
                            } }
                            td { (row.model) }
                        }
                    }
                }
            }
        }
    }
}

async fn first_schedulers(site: &Site) -> anyhow::Result<Option<Vec<SchedulerRow>>> {
    let Some(state) = site.service() else {
        return Ok(None);
    };
    let now = site.clock.now();
    Ok(Some(blocking(move || worst_first(&state, now)).await??))
}

/// Schedulers that are anomalous, then those that fail, then the others by name.
fn worst_first(state: &Service, now: DateTime<Utc>) -> Answer<Vec<SchedulerRow>> {
    let anomalous = state.anomalies(now, DateTime::<Utc>::MAX_UTC, SCHEDULERS)?;
    let failing = state.failing(now, SCHEDULERS)?;
    let names = anomalous
        .into_iter()
        .map(|news| news.scheduler)
        .chain(failing.into_iter().map(|failing| failing.scheduler));
    let mut rows: Vec<SchedulerRow> = Vec::new();
    for name in names {
        if rows.iter().all(|row| row.name != name) {
            rows.extend(state.scheduler(now, &name)?);
        }
    }
    for row in state.schedulers(now, "", None, "", SCHEDULERS)? {
        if rows.iter().all(|known| known.name != row.name) {
            rows.push(row);
        }
    }
    rows.truncate(SCHEDULERS);
    Ok(rows)
}

fn trouble(readiness: &Readiness) -> Markup {
    html! {
        section id="trouble" data-live class={ "banner " (if readiness.reasons.is_empty() { "ok" } else if readiness.ready { "warn" } else { "bad" }) } aria-labelledby="trouble-title" {
            h1 id="trouble-title" { (super::layout::verdict(readiness)) }
            @if !readiness.reasons.is_empty() {
                @let of_all = readiness.reasons.iter().filter(|reason| reason.subject.asset.is_empty());
                @let of_one = || readiness.reasons.iter().filter(|reason| !reason.subject.asset.is_empty());
                ul class="reasons" {
                    @for reason in of_all.chain(of_one().take(REASONS)) { (reason_line(reason, Some(&reason.subject.asset))) }
                    @if let Some(more @ 1..) = of_one().count().checked_sub(REASONS) { li { p class="dim" { "and " (more) " more: each asset below says its own" } } }
                }
            }
        }
    }
}

/// What is wrong, of which asset where there are several, and what to do.
pub fn reason_line(reason: &Reason, asset: Option<&str>) -> Markup {
    let asset = asset.filter(|name| !name.is_empty());
    html! {
        li {
            p {
                (chip(if reason.blocking { "problem" } else { "attention" })) " "
                @if let Some(name) = asset { a href={ "/asset?asset=" (encoded(name)) } { (name) } " " }
                b { (reason.text) }
            }
            p class="dim" { "since " (time(reason.since)) " · " (reason.remedy) " · " code { (reason.code) } }
        }
    }
}

fn figures(snapshot: &Snapshot) -> Markup {
    let figure = |name: &str, value: String, note: String| {
        html! { div class="figure" { dt { (name) } dd { (value) } @if !note.is_empty() { p class="dim" { (note) } } } }
    };
    html! {
        dl class="figures" {
            @if let Some(feed) = snapshot.feeds().next() {
                @let sums = Sums::of(snapshot);
                (figure("Waiting", windows(sums.waiting), if sums.waiting == 0 { "everything is delivered".into() } else { format!("{}, the oldest for {}", bytes(sums.bytes), span(sums.oldest)) }))
                (figure("Delivered", sums.delivered.to_string(), sums.slack.map(|slack| slack_words(slack.num_seconds())).unwrap_or_default()))
                (figure("Disk", feed.free.map_or("unknown".into(), |free| format!("{} free", bytes(free))), disk_words(feed, snapshot)))
                (figure("Clock", feed.readings.offset.map_or("not compared".into(), |offset| format!("{:+} s", offset.num_seconds())), "against the store".into()))
                (figure("Credentials", feed.readings.expiry.map_or("no expiry known".into(), |expiry| format!("end in {}", span(expiry - snapshot.now))), String::new()))
            }
            @if let Some(counts) = &snapshot.service {
                (figure("Schedulers", counts.schedulers.iter().map(|(_, count)| count).sum::<u64>().to_string(), words(&counts.schedulers)))
                (figure("Anomalies", format!("{} active", counts.active_count), counts.active.iter().take(3).map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")))
                (figure("Last hour", format!("{} executions", counts.last_hour.iter().map(|(_, count)| count).sum::<u64>()), words(&counts.last_hour)))
            }
            @if let Some(store) = &snapshot.store {
                (figure("Store", bytes(store.figures.file_bytes), store_words(store)))
            }
            (figure("Memory", resident_bytes().map_or("unknown".into(), bytes), "resident".into()))
        }
    }
}

/// What waits and was delivered, of all assets.
struct Sums {
    waiting: u64,
    bytes: u64,
    oldest: TimeDelta,
    delivered: u64,
    /// The least there was.
    slack: Option<TimeDelta>,
}

impl Sums {
    fn of(snapshot: &Snapshot) -> Self {
        let sum = |pick: fn(&FeedSnapshot) -> u64| snapshot.feeds().map(pick).sum();
        let ages = snapshot.feeds().map(|feed| feed.oldest_age(snapshot.now));
        Self {
            waiting: sum(|feed| feed.census.due + feed.waiting.spooled),
            bytes: sum(|feed| feed.waiting.bytes),
            oldest: ages.max().unwrap_or_default(),
            delivered: sum(|feed| feed.census.shipped + feed.census.partial + feed.census.covered),
            slack: snapshot.feeds().filter_map(FeedSnapshot::slack).min(),
        }
    }
}

fn store_words(store: &Standing) -> String {
    let mut words = format!("{} objects", store.figures.objects);
    if let Some(days) = store.days_to_full {
        words += &format!(", full in {days:.0} days");
    }
    for one in &store.kept {
        words += &format!(" · {} {}", one.prefix, one.keep);
        if one.held {
            words += ", held";
        }
    }
    words
}

fn windows(count: u64) -> String {
    if count == 1 {
        "1 window".into()
    } else {
        format!("{count} windows")
    }
}

fn slack_words(seconds: i64) -> String {
    let length = span(chrono::TimeDelta::seconds(seconds.abs()));
    if seconds >= 0 {
        format!("the last one {length} before the scheduler looks")
    } else {
        format!("the last one {length} after the scheduler looked")
    }
}

fn disk_words(feed: &FeedSnapshot, snapshot: &Snapshot) -> String {
    let outage = snapshot.outage_capacity().map(outage_words);
    match (feed.days_to_full, outage) {
        (Some(days), _) if days < 30.0 => format!("full in {days:.1} days"),
        (_, Some(outage)) => outage,
        _ => String::new(),
    }
}

fn outage_words(capacity: chrono::TimeDelta) -> String {
    if capacity.num_days() > 365 {
        "outlasts an outage of more than a year".into()
    } else {
        format!("outlasts an outage of {}", span(capacity))
    }
}

fn words(counts: &[(String, u64)]) -> String {
    counts
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The newest windows of an asset as a row of marks, the oldest on the left; each is a link and says what it stands for.
pub fn strip(feed: &FeedSnapshot, asset: &Asset) -> Markup {
    if feed.recent.is_empty() {
        return absent("No window yet. The first one is cut at the next boundary of the cadence.");
    }
    let tell = |entry: &Entry| {
        format!(
            "{} {}, {} rows",
            entry.start.format("%H:%M"),
            entry.state.describe(),
            entry.rows
        )
    };
    html! {
        ol class="strip" {
            @for entry in feed.recent.iter().rev() {
                li {
                    a class={ "cell " (entry.state.name()) } href={ "/windows?before=" (entry.start.timestamp() + 1) (address(asset)) } title=(tell(entry)) {
                        span class="hidden" { (tell(entry)) }
                        span aria-hidden="true" { (letter(entry.state)) }
                    }
                }
            }
        }
        p class="dim" {
            "cadence " (feed.config.cadence) " · newest " (maybe_time(feed.recent.first().map(|entry| entry.start)))
            " · " (feed.census.empty) " empty, " (feed.census.partial) " partial, " (feed.census.skipped) " skipped, " (feed.census.quarantined) " set aside"
        }
    }
}

/// States are told apart by a letter as well as by colour.
fn letter(state: WindowState) -> &'static str {
    match state {
        WindowState::Due => "d",
        WindowState::Spooled => "w",
        WindowState::Shipped => "✓",
        WindowState::Partial => "p",
        WindowState::Covered => "c",
        WindowState::Empty => "e",
        WindowState::Skipped => "s",
        WindowState::Quarantined => "!",
    }
}
