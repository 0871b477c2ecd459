//! Which asset a page is about, where there are several, and how each stands.

use std::collections::HashMap;

use maud::{Markup, html};

use super::layout::{absent, encoded};
use crate::executions::{Answer, Failing, News, SchedulerRow};
use crate::ops::health::{Readiness, Reason};
use crate::ops::site::{AssetSite, AssetSnapshot, Site, Snapshot};
use crate::signal::Asset;

/// More assets than this are found by name, not chosen from a list.
const LISTED: usize = 100;
/// Schedulers whose input is compared with what assets are fed, and that are looked at for what is wrong.
const MOST: usize = 5_000;

/// How an asset stands, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// It is not fed or executed as it should be: nobody knows how it is.
    Problem,
    /// Its last result is anomalous.
    Anomaly,
    /// Somebody should look.
    Attention,
    /// It has not begun.
    Waiting,
    /// All is well.
    Well,
}

impl Grade {
    /// All of them, the worst first.
    pub const ALL: [Grade; 5] = [
        Self::Problem,
        Self::Anomaly,
        Self::Attention,
        Self::Waiting,
        Self::Well,
    ];

    /// The word for it, also in addresses.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Anomaly => "anomaly",
            Self::Attention => "attention",
            Self::Waiting => "waiting",
            Self::Well => "ok",
        }
    }

    /// The one of that word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grade| grade.word() == word)
    }

    /// Its colour.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Problem | Self::Anomaly => "bad",
            Self::Attention => "warn",
            Self::Waiting => "plain",
            Self::Well => "ok",
        }
    }

    /// A shape and the word: told apart without colour.
    pub fn chip(self) -> Markup {
        html! { span class={ "chip " (self.class()) } { (self.shape()) (self.word()) } }
    }

    /// Its shape: a cross, a triangle, a diamond, a ring, a tick.
    pub fn shape(self) -> Markup {
        let path = match self {
            Self::Problem => "M2 2L10 10M10 2L2 10",
            Self::Anomaly => "M6 1.5L11 10.5H1Z",
            Self::Attention => "M6 1L11 6L6 11L1 6Z",
            Self::Waiting => "M6 1.5A4.5 4.5 0 1 1 5.9 1.5Z",
            Self::Well => "M1.5 6.5L4.8 9.8L10.5 2.5",
        };
        let filled = matches!(self, Self::Anomaly | Self::Attention);
        html! {
            svg class="shape" viewBox="0 0 12 12" width="10" height="10" aria-hidden="true" {
                path d=(path) fill=(if filled { "currentColor" } else { "none" }) stroke="currentColor" stroke-width="1.8" {}
            }
        }
    }
}

/// What executions say of the assets.
#[derive(Default)]
pub struct Executed {
    /// The scheduler of each asset, by the asset's name.
    schedulers: HashMap<String, String>,
    anomalous: HashMap<String, News>,
    failing: HashMap<String, Failing>,
}

/// One asset as it stands.
pub struct Line<'a> {
    /// What is known of it.
    pub known: &'a AssetSnapshot,
    /// How it stands.
    pub grade: Grade,
    /// What is wrong with it, the gravest first.
    pub reasons: Vec<&'a Reason>,
    /// Its scheduler, where it has one.
    pub scheduler: Option<&'a str>,
    /// The anomaly that runs.
    pub anomaly: Option<&'a News>,
    /// Its execution that failed last.
    pub failing: Option<&'a Failing>,
}

impl Executed {
    /// Asks once for all assets. Blocks for a few queries.
    pub fn ask(site: &Site, snapshot: &Snapshot) -> Answer<Self> {
        let mut said = Self::default();
        let Some(state) = site.service() else {
            return Ok(said);
        };
        for one in &snapshot.assets {
            if let Some(standing) = &one.watched {
                let asset = one.asset.name().to_owned();
                said.schedulers.insert(asset, standing.scheduler.clone());
            }
        }
        if said.schedulers.len() < snapshot.assets.len() {
            // Nobody keeps them here: it is the one that reads what the asset is fed.
            let rows = state.schedulers(snapshot.now, "", None, "", MOST)?;
            said.by_input(site, rows);
        }
        let (now, never) = (snapshot.now, chrono::DateTime::<chrono::Utc>::MAX_UTC);
        let news = state.anomalies(now, never, MOST)?;
        let active = news.into_iter().filter(|news| news.active);
        said.anomalous = active.map(|news| (news.scheduler.clone(), news)).collect();
        let failing = state.failing(now, MOST)?;
        let by_name = failing.into_iter();
        said.failing = by_name.map(|one| (one.scheduler.clone(), one)).collect();
        Ok(said)
    }

    fn by_input(&mut self, site: &Site, rows: Vec<SchedulerRow>) {
        let mut readers = HashMap::new();
        for row in rows {
            let prefix = row.input.prefix.trim_end_matches('/').to_owned();
            readers
                .entry((row.input.bucket, prefix))
                .or_insert(row.name);
        }
        for one in &site.assets {
            let Some(feed) = &one.feed else { continue };
            let prefix = feed.prefix.trim_end_matches('/').to_owned();
            if let Some(name) = readers.get(&(feed.bucket.name().to_owned(), prefix)) {
                let asset = one.asset.name().to_owned();
                self.schedulers.entry(asset).or_insert(name.clone());
            }
        }
    }

    /// The scheduler of an asset.
    pub fn scheduler(&self, asset: &Asset) -> Option<&str> {
        self.schedulers.get(asset.name()).map(String::as_str)
    }

    /// All assets, the worst first and otherwise in their order.
    pub fn lines<'a>(&'a self, snapshot: &'a Snapshot, readiness: &'a Readiness) -> Vec<Line<'a>> {
        let mut wrong: HashMap<&str, Vec<&Reason>> = HashMap::new();
        for reason in &readiness.reasons {
            let asset = reason.subject.asset.as_str();
            wrong.entry(asset).or_default().push(reason);
        }
        let line = |known: &'a AssetSnapshot| {
            let reasons = match known.asset.is_named() {
                true => wrong.remove(known.asset.name()).unwrap_or_default(),
                false => Vec::new(),
            };
            self.line(known, reasons)
        };
        let mut lines: Vec<Line<'a>> = snapshot.assets.iter().map(line).collect();
        lines.sort_by_key(|line| line.grade);
        lines
    }

    fn line<'a>(&'a self, known: &'a AssetSnapshot, reasons: Vec<&'a Reason>) -> Line<'a> {
        let scheduler = self.scheduler(&known.asset);
        let anomaly = scheduler.and_then(|name| self.anomalous.get(name));
        let failing = scheduler.and_then(|name| self.failing.get(name));
        let grade = match () {
            () if reasons.iter().any(|reason| reason.blocking) => Grade::Problem,
            () if anomaly.is_some() => Grade::Anomaly,
            () if !reasons.is_empty() || failing.is_some() => Grade::Attention,
            () if known.feed.is_none() => Grade::Waiting,
            () => Grade::Well,
        };
        Line {
            known,
            grade,
            reasons,
            scheduler,
            anomaly,
            failing,
        }
    }
}

/// The asset that the address names, otherwise the first; `None` where none of that name runs here.
pub fn chosen<'a>(
    site: &'a Site,
    snapshot: &'a Snapshot,
    asked: &str,
) -> Option<(&'a AssetSite, &'a AssetSnapshot)> {
    let site = match asked {
        "" => site.assets.first(),
        name => site.asset(&Asset::known(name)),
    }?;
    Some((site, snapshot.asset(&site.asset)?))
}

/// A heading that says which.
pub fn heading(title: &str, asset: &Asset) -> Markup {
    html! { h1 { (title) @if asset.is_named() { " of " (asset) } } }
}

/// The way back to the plant, and the pages of one asset; nothing where there is only one without a name.
pub fn tabs(asset: &Asset, here: &str) -> Markup {
    let pages = [
        ("/asset", "Now"),
        ("/windows", "Windows"),
        ("/scheduler", "Scheduler and events"),
        ("/coverage", "Signals"),
    ];
    html! {
        @if asset.is_named() {
            nav aria-label="Path" class="path" { a href="/#assets" { span aria-hidden="true" { "‹ " } "Assets" } }
            nav aria-label={ "Pages of " (asset) } class="tabs" {
                @for (path, name) in pages {
                    a href={ (path) "?asset=" (encoded(asset.name())) } aria-current=[(path == here).then_some("page")] { (name) }
                }
            }
        }
    }
}

/// A form that leads to another asset, where there are several.
pub fn choice(snapshot: &Snapshot, path: &str, chosen: &Asset) -> Markup {
    html! {
        @if snapshot.assets.len() > 1 {
            form method="get" action=(path) class="filter" {
                label for="asset" { "Asset" }
                @if snapshot.assets.len() > LISTED {
                    input id="asset" name="asset" type="search" value=(chosen.name()) maxlength="200" autocomplete="off";
                } @else {
                    select id="asset" name="asset" data-submit {
                        @for one in &snapshot.assets {
                            option value=(one.asset.name()) selected[one.asset == *chosen] { (one.asset) }
                        }
                    }
                }
                button type="submit" { "Show" }
            }
        }
    }
}

/// The part of an address that says which asset; empty where it has no name.
pub fn address(asset: &Asset) -> String {
    if asset.is_named() {
        format!("&asset={}", encoded(asset.name()))
    } else {
        String::new()
    }
}

/// Why a page of an asset has nothing to show.
pub fn nothing(site: &Site, asked: &str, title: &str, otherwise: &str) -> Markup {
    let asset = Asset::known(asked);
    html! {
        @match site.asset(&asset) {
            Some(_) if asset.is_named() => {
                (tabs(&asset, ""))
                (heading(title, &asset))
                (absent("It waits for its history: nothing of it was cut by this process."))
            }
            None if asset.is_named() => {
                h1 { "No such asset" }
                p { "There is no asset " b { (asked) } " here. " a href="/#assets" { "All assets" } }
            }
            _ => { h1 { (title) } (absent(otherwise)) }
        }
    }
}
