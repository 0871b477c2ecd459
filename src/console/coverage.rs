//! `/coverage`: whether the source gives what it should: rows of the newest windows, components without files, and each
//! sensor of the newest delivered windows: missing values, stuck values, range.

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::assets;
use super::layout::{absent, chip, page, time};
use super::overview::starting;
use super::signals::{self, Seen};
use crate::feed::State as WindowState;
use crate::ops::admin::{Shared, failed};
use crate::ops::health::judge;
use crate::ops::site::{FeedSite, FeedSnapshot};
use crate::signal::Window;

/// Delivered windows whose files are read for the sensors.
const WINDOWS: usize = 3;
/// Components on a page; each costs [`WINDOWS`] files.
const COMPONENTS: usize = 8;

#[derive(Debug, Deserialize)]
pub struct Choice {
    #[serde(default)]
    asset: String,
    #[serde(default)]
    from: usize,
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
    let from = choice.from;
    let chosen = assets::chosen(&site, &snapshot, &choice.asset);
    let parts = chosen
        .and_then(|(one, known)| Some((&one.asset, one.feed.as_ref()?, known.feed.as_ref()?)));
    let Some((asset, feed, figures)) = parts else {
        let otherwise =
            "No feeder runs in this process: what the source gives is known where it runs.";
        let body = assets::nothing(&site, &choice.asset, "Coverage", otherwise);
        return Ok(page("Coverage", "/coverage", Some(&readiness), false, body));
    };
    let sensors = sensors(feed, figures, from).await;
    let more = from + COMPONENTS < feed.tags.components.len();
    let body = html! {
        (assets::tabs(asset, "/coverage"))
        (assets::heading("Coverage", asset))
        (assets::choice(&snapshot, "/coverage", asset))
        section id="rows" data-live aria-labelledby="rows-title" { h2 id="rows-title" { "Rows of the newest windows" } (rows(figures)) }
        section aria-labelledby="sensors-title" {
            h2 id="sensors-title" { "Sensors in the newest " (WINDOWS) " delivered windows" }
            (sensors)
            @if from > 0 || more {
                nav class="pager" aria-label="Components" {
                    @if from > 0 { a href={ "/coverage?from=" (from.saturating_sub(COMPONENTS)) (assets::address(asset)) } { "Components before" } }
                    @if more { a href={ "/coverage?from=" (from + COMPONENTS) (assets::address(asset)) } rel="next" { "More components" } }
                }
            }
        }
    };
    Ok(page("Coverage", "/coverage", Some(&readiness), false, body))
}

fn rows(feed: &FeedSnapshot) -> Markup {
    let Some(usual) = feed.usual_rows() else {
        return absent("No window with rows yet.");
    };
    html! {
        p class="dim" { "Usual: " (usual) " rows, the median of the newest " (feed.recent.len()) " windows." }
        div class="scroll" tabindex="0" role="region" aria-label="Rows by window" {
            table {
                thead { tr { th scope="col" { "Window" } th scope="col" class="num" { "Rows" } th scope="col" { "Found" } th scope="col" { "Components" } th scope="col" { "Verdict" } } }
                tbody {
                    @for entry in &feed.recent {
                        @let share = (entry.rows as f64 / usual as f64).min(1.0);
                        tr {
                            th scope="row" { (time(entry.start)) }
                            td class="num" { (entry.rows) }
                            td { (bar(share)) " " (format!("{:.0} %", entry.rows as f64 * 100.0 / usual as f64)) }
                            td { (entry.files) " of " (entry.components) }
                            td { @match entry.state {
                                WindowState::Empty | WindowState::Skipped | WindowState::Quarantined | WindowState::Due => (chip(entry.state.word())),
                                WindowState::Partial | WindowState::Covered => (chip(entry.state.word())),
                                _ if share < 0.9 => (chip("gap")),
                                _ => (chip("ok")),
                            } }
                        }
                    }
                }
            }
        }
    }
}

async fn sensors(feed: &FeedSite, figures: &FeedSnapshot, from: usize) -> Markup {
    let mut windows: Vec<Window> = figures
        .recent
        .iter()
        .filter(|entry| entry.state.is_delivered())
        .filter_map(|entry| Window::new(entry.start, entry.cadence).ok())
        .take(WINDOWS)
        .collect();
    windows.reverse();
    if windows.is_empty() {
        return absent("No window was delivered lately.");
    }
    let mut tables = Vec::new();
    for component in feed.tags.components.iter().skip(from).take(COMPONENTS) {
        let seen = signals::seen(
            &feed.bucket,
            &feed.prefix,
            &feed.naming,
            &component.name,
            &windows,
        )
        .await;
        tables.push((component, seen));
    }
    html! {
        p class="dim" { "From " (time(windows[0].start())) " to " (time(windows[windows.len() - 1].end())) ". Stuck: every value the same; a switch or a set point may be so by right." }
        @for (component, seen) in &tables {
            h3 { (component.name) }
            @match seen {
                Err(error) => (absent(&format!("The files cannot be read from the store now: {error}"))),
                Ok(None) => p { (chip("missing")) " no file of this component in these windows" },
                Ok(Some(seen)) => (sensor_table(component.signals.iter().map(String::as_str), seen)),
            }
        }
    }
}

fn sensor_table<'a>(wanted: impl Iterator<Item = &'a str>, seen: &[Seen]) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Sensors" {
            table {
                thead { tr { th scope="col" { "Sensor" } th scope="col" { "Verdict" } th scope="col" class="num" { "Values" } th scope="col" class="num" { "Missing" } th scope="col" class="num" { "Lowest" } th scope="col" class="num" { "Highest" } th scope="col" class="num" { "Last" } } }
                tbody {
                    @for name in wanted {
                        @let found = seen.iter().find(|sensor| sensor.sensor == name);
                        tr {
                            th scope="row" { (name) }
                            @match found {
                                None => { td { (chip("missing")) } td colspan="5" class="dim" { "no such column in the files" } }
                                Some(sensor) => {
                                    td { (verdict(sensor)) }
                                    td class="num" { (sensor.values) }
                                    td class="num" { (sensor.missing) }
                                    td class="num" { (value(sensor, sensor.low)) }
                                    td class="num" { (value(sensor, sensor.high)) }
                                    td class="num" { (sensor.last.map(|last| value(sensor, last)).unwrap_or_default()) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn verdict(sensor: &Seen) -> Markup {
    match () {
        () if sensor.values == 0 => chip("missing"),
        () if sensor.missing * 10 > sensor.values + sensor.missing => chip("gap"),
        () if sensor.is_stuck() => html! { span class="chip plain" { "stuck" } },
        () => chip("ok"),
    }
}

fn value(sensor: &Seen, value: f64) -> String {
    if sensor.values == 0 {
        return String::new();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        format!("{value:.3e}")
    } else {
        format!("{:.4}", value)
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    }
}

/// A share of 0 to 1 as a bar.
pub fn bar(share: f64) -> Markup {
    html! {
        svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" width="120" height="10" aria-hidden="true" {
            rect class="track" width="100" height="10" {}
            rect class="fill" width=(format!("{:.1}", share.clamp(0.0, 1.0) * 100.0)) height="10" {}
        }
    }
}
