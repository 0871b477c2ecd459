//! Which asset a page is about, where there are several.

use maud::{Markup, html};

use super::layout::{chip, encoded, maybe_time};
use crate::ops::health::Readiness;
use crate::ops::site::{AssetSite, AssetSnapshot, Site, Snapshot};
use crate::signal::Asset;

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

/// A form that leads to another asset, where there are several.
pub fn choice(snapshot: &Snapshot, path: &str, chosen: &Asset) -> Markup {
    html! {
        @if snapshot.assets.len() > 1 {
            form method="get" action=(path) class="filter" {
                label for="asset" { "Asset" }
                select id="asset" name="asset" data-submit {
                    @for one in &snapshot.assets {
                        option value=(one.asset.name()) selected[one.asset == *chosen] { (one.asset) }
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

/// All assets, the worst first.
pub fn table(snapshot: &Snapshot, readiness: &Readiness) -> Markup {
    let state = |one: &AssetSnapshot| {
        let mut reasons = readiness
            .reasons
            .iter()
            .filter(|reason| reason.subject.asset == one.asset.name());
        match reasons.clone().any(|reason| reason.blocking) {
            true => (0, "problem"),
            false if reasons.next().is_some() => (1, "attention"),
            false => (2, "ok"),
        }
    };
    let mut rows: Vec<_> = snapshot
        .assets
        .iter()
        .map(|one| (state(one), one))
        .collect();
    rows.sort_by_key(|((grade, _), _)| *grade);
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Assets" {
            table {
                thead { tr { th scope="col" { "Asset" } th scope="col" { "State" } th scope="col" { "Cadence" } th scope="col" { "Newest window" } th scope="col" class="num" { "Waiting" } th scope="col" { "Scheduler" } } }
                tbody {
                    @for ((_, word), one) in rows {
                        tr {
                            th scope="row" { a href={ "/windows?asset=" (encoded(one.asset.name())) } { (one.asset) } }
                            td { (chip(word)) }
                            @match &one.feed {
                                Some(feed) => {
                                    td { (feed.config.cadence) }
                                    td { (maybe_time(feed.recent.first().map(|entry| entry.start))) }
                                    td class="num" { (feed.census.due + feed.waiting.spooled) }
                                }
                                None => {
                                    td {}
                                    td { span class="dim" { "waits for its history" } }
                                    td {}
                                }
                            }
                            td { @if let Some(standing) = &one.watched { (standing.scheduler) " " (chip(standing.status.as_deref().unwrap_or("gone"))) } }
                        }
                    }
                }
            }
        }
    }
}
