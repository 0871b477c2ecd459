//! The plant: its assets, the worst first, found by name and state, a page of them at a time.

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::assets::{Executed, Grade, Line};
use super::layout::{absent, chip, encoded, maybe_time};
use super::sparkline::{Day, sparkline};
use crate::executions::SchedulerRow;
use crate::ops::health::{Readiness, span};
use crate::ops::site::{Site, Snapshot};

/// Assets on a page.
const PAGE: usize = 50;

/// Which of them are asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Choice {
    /// Part of the name.
    #[serde(default)]
    part: String,
    /// The word of a grade.
    #[serde(default)]
    state: String,
    /// From 1.
    #[serde(default)]
    page: usize,
}

/// What a page of assets shows.
pub struct Page {
    choice: Choice,
    state: Option<Grade>,
    /// Assets of each grade whose names are asked for.
    counts: [usize; Grade::ALL.len()],
    rows: Vec<Row>,
    found: usize,
    page: usize,
}

/// One asset.
struct Row {
    name: String,
    grade: Grade,
    /// What there is to say of it.
    said: String,
    more: usize,
    newest: Option<DateTime<Utc>>,
    cadence: Option<String>,
    waiting: u64,
    scheduler: Option<(String, String)>,
    day: Option<Day>,
}

impl Page {
    /// Blocks for some queries for each asset that is shown, and for a few for all.
    pub fn ask(
        site: &Site,
        snapshot: &Snapshot,
        readiness: &Readiness,
        choice: Choice,
    ) -> anyhow::Result<Self> {
        let executed = Executed::ask(site, snapshot)?;
        let part = choice.part.to_lowercase();
        let mut lines = executed.lines(snapshot, readiness);
        lines.retain(|line| line.known.asset.name().to_lowercase().contains(&part));
        let counts =
            Grade::ALL.map(|grade| lines.iter().filter(|line| line.grade == grade).count());
        let state = Grade::named(&choice.state);
        lines.retain(|line| state.is_none_or(|state| line.grade == state));
        let pages = lines.len().div_ceil(PAGE).max(1);
        let page = choice.page.clamp(1, pages);
        let shown = lines.iter().skip((page - 1) * PAGE).take(PAGE);
        let rows = shown.map(|line| Row::of(line, site, snapshot.now));
        Ok(Self {
            rows: rows.collect::<anyhow::Result<_>>()?,
            found: lines.len(),
            choice,
            state,
            counts,
            page,
        })
    }

    /// The form, which stays as it is while the list follows.
    pub fn form(&self) -> Markup {
        html! {
            form method="get" action="/" class="filter" {
                label for="part" { "Name contains" }
                input id="part" name="part" type="search" value=(self.choice.part) maxlength="200" autocomplete="off";
                label for="state" { "State" }
                select id="state" name="state" data-submit {
                    option value="" selected[self.state.is_none()] { "all" }
                    @for grade in Grade::ALL {
                        option value=(grade.word()) selected[self.state == Some(grade)] { (grade.word()) }
                    }
                }
                button type="submit" { "Show" }
            }
        }
    }

    /// How many there are of each state, as ways to them.
    pub fn counts(&self) -> Markup {
        let all: usize = self.counts.iter().sum();
        html! {
            ul class="grades" {
                li { a href=(self.address(None, 1)) aria-current=[self.state.is_none().then_some("true")] { b { (all) } " assets" } }
                @for (grade, count) in Grade::ALL.into_iter().zip(self.counts) {
                    @if count > 0 || self.state == Some(grade) {
                        li { a class=(grade.class()) href=(self.address(Some(grade), 1)) aria-current=[(self.state == Some(grade)).then_some("true")] { (grade.shape()) b { (count) } " " (grade.word()) } }
                    }
                }
            }
        }
    }

    /// The assets.
    pub fn list(&self) -> Markup {
        html! {
            @if self.rows.is_empty() { (absent("No such asset.")) } @else {
                div class="scroll" tabindex="0" role="region" aria-label="Assets" {
                    table class="plant" {
                        thead { tr { th scope="col" { "Asset" } th scope="col" { "State" } th scope="col" { "Score of the last day" } th scope="col" class="num" { "Newest" } th scope="col" { "Newest window" } th scope="col" class="num" { "Waiting" } th scope="col" { "Scheduler" } th scope="col" { "What there is to say" } } }
                        tbody { @for row in &self.rows { (row.draw()) } }
                    }
                }
            }
            @let last = self.found.div_ceil(PAGE);
            @if last > 1 {
                nav class="pager" aria-label="Pages of the list" {
                    @if self.page > 1 { a href=(self.address(self.state, self.page - 1)) rel="prev" { "Before" } }
                    span class="dim" { "page " (self.page) " of " (last) }
                    @if self.page < last { a href=(self.address(self.state, self.page + 1)) rel="next" { "Next" } }
                }
            }
        }
    }

    fn address(&self, state: Option<Grade>, page: usize) -> String {
        format!(
            "/?part={}&state={}&page={page}#assets",
            encoded(&self.choice.part),
            state.map_or("", Grade::word)
        )
    }
}

impl Row {
    fn of(line: &Line<'_>, site: &Site, now: DateTime<Utc>) -> anyhow::Result<Self> {
        let known = match line.scheduler {
            Some(name) => site.scheduler(now, name)?,
            None => None,
        };
        let day = match &known {
            Some((state, scheduler)) => Some(Day::ask(state, scheduler, now)?),
            None => None,
        };
        let (said, more) = said(line, now);
        let feed = line.known.feed.as_ref();
        let status = |scheduler: &SchedulerRow| (scheduler.name.clone(), scheduler.status.clone());
        let watched = line.known.watched.as_ref().map(|standing| {
            let status = standing.status.as_deref().unwrap_or("gone");
            (standing.scheduler.clone(), status.to_owned())
        });
        Ok(Self {
            name: line.known.asset.name().to_owned(),
            grade: line.grade,
            said,
            more,
            newest: feed.and_then(|feed| Some(feed.recent.first()?.start)),
            cadence: feed.map(|feed| feed.config.cadence.to_string()),
            waiting: feed.map_or(0, |feed| feed.census.due + feed.waiting.spooled),
            scheduler: watched.or(known.as_ref().map(|(_, scheduler)| status(scheduler))),
            day,
        })
    }

    fn draw(&self) -> Markup {
        let name = encoded(&self.name);
        html! {
            tr {
                th scope="row" { a href={ "/asset?asset=" (name) } { (self.name) } }
                td { (self.grade.chip()) }
                td { @if let Some(day) = &self.day { (sparkline(day)) } }
                td class="num" { @match self.day.as_ref().and_then(Day::newest) { Some(score) => (format!("{score:.2}")), None => span class="dim" { "none" } } }
                td { (maybe_time(self.newest)) @if let Some(cadence) = &self.cadence { span class="dim" { " " (cadence) } } }
                td class="num" { (self.waiting) }
                td { @if let Some((scheduler, status)) = &self.scheduler { a href={ "/scheduler?name=" (encoded(scheduler)) "&asset=" (name) } { span class="hidden" { (scheduler) " " } (chip(status)) } } }
                td class="why" { (self.said) @if self.more > 0 { span class="dim" { " and " (self.more) " more" } } }
            }
        }
    }
}

/// The gravest that there is to say of an asset, and how much more there is.
fn said(line: &Line<'_>, now: DateTime<Utc>) -> (String, usize) {
    let mut all: Vec<String> = Vec::new();
    let anomaly = line.anomaly.map(|news| {
        let event = news.event.as_ref();
        let top = event.and_then(|event| event.shares.first());
        let top = top.map(|(sensor, share)| format!(": {sensor} {:.0} %", share * 100.0));
        let long = news.since.map_or(TimeDelta::zero(), |since| now - since);
        format!("anomalous for {}{}", span(long), top.unwrap_or_default())
    });
    let reasons = |blocking: bool| {
        let of = line
            .reasons
            .iter()
            .filter(move |one| one.blocking == blocking);
        of.map(|reason| reason.text.clone())
    };
    all.extend(reasons(true));
    all.extend(anomaly);
    all.extend(reasons(false));
    if let Some(failing) = line.failing {
        let reason = failing
            .last
            .reason
            .as_deref()
            .unwrap_or("it is not said why");
        all.push(format!("its last execution failed: {reason}"));
    }
    if all.is_empty() && line.grade == Grade::Waiting {
        all.push("waits for its history".to_owned());
    }
    let more = all.len().saturating_sub(1);
    (all.into_iter().next().unwrap_or_default(), more)
}
