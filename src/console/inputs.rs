//! `/inputs`: the inputs of a live plant, and the tags of one, those that are silent first.

use axum::extract::{Query, State};
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{absent, chip, encoded, page};
use super::overview::starting;
use crate::input::{Tag, TagFigures};
use crate::ops::admin::{Shared, failed};
use crate::ops::health::judge;
use crate::ops::inputs::InputSnapshot;
use crate::ops::site::{InputSite, Site};

/// Tags on a page.
const TAGS: usize = 500;

#[derive(Debug, Deserialize)]
pub struct Choice {
    #[serde(default)]
    name: String,
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
    let now = snapshot.now;
    let body = html! {
        h1 { "Inputs" }
        section id="inputs" data-live aria-label="Inputs" {
            @if snapshot.inputs.is_empty() {
                (absent("No input is configured: samples come from a history."))
            } @else {
                (table(&snapshot.inputs, now))
            }
        }
        @if let Some(input) = chosen(&site, &choice.name) {
            section id="tags" data-live aria-labelledby="tags-title" {
                h2 id="tags-title" { "Tags of " (input.intake.name()) }
                (tags(input, now))
            }
        }
    };
    Ok(page("Inputs", "/inputs", Some(&readiness), false, body))
}

/// The input of that name, or the only one.
fn chosen<'a>(site: &'a Site, name: &str) -> Option<&'a InputSite> {
    match (site.inputs.as_slice(), name) {
        ([only], "") => Some(only),
        (all, name) => all.iter().find(|input| input.intake.name() == name),
    }
}

fn table(inputs: &[InputSnapshot], now: DateTime<Utc>) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Inputs" { table {
            thead { tr {
                th scope="col" { "Input" } th scope="col" { "State" } th scope="col" { "Kind" } th scope="col" { "Last sample" }
                th scope="col" class="num" { "A minute" } th scope="col" class="num" { "Refused" }
                th scope="col" class="num" { "Late" } th scope="col" class="num" { "Clock" } th scope="col" { "Tags" }
            } }
            tbody { @for input in inputs {
                tr {
                    td { a href={ "/inputs?name=" (encoded(&input.name)) } { (input.name) } }
                    td { (chip(input.state())) @if let Some(error) = &input.figures.error { " " span class="dim" { (error) } } }
                    td { (input.kind) }
                    td { (age(input.figures.last_sample, now)) }
                    td class="num" { (input.figures.per_minute) }
                    td class="num" { (input.figures.refused()) }
                    td class="num" { (input.figures.late) }
                    td class="num" { @if let Some(offset) = input.figures.offset_seconds { (format!("{offset:+.1} s")) } }
                    td { (input.tags) @if !input.missing().is_empty() { ": " (input.missing()) } }
                }
            } }
        } }
    }
}

fn tags(input: &InputSite, now: DateTime<Utc>) -> Markup {
    let figures = input.intake.health().tags();
    let mut rows: Vec<(&Tag, &TagFigures)> = input.intake.tags().iter().zip(&figures).collect();
    // Those that never came, then those that came longest ago.
    rows.sort_by_key(|(_, figures)| figures.arrived);
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Tags" { table {
            thead { tr {
                th scope="col" { "Tag" } th scope="col" { "Asset" } th scope="col" { "Component" } th scope="col" { "Address" }
                th scope="col" class="num" { "Value" } th scope="col" { "Its time" } th scope="col" { "Came" }
                th scope="col" class="num" { "Samples" }
            } }
            tbody { @for (tag, figures) in rows.iter().take(TAGS) {
                tr {
                    td { (tag.tag) }
                    td { (tag.asset.name()) }
                    td { (tag.component) }
                    td { (tag.address) }
                    td class="num" { (value(figures)) " " (tag.unit) }
                    td { @if figures.arrived.is_some() { (time(figures.time)) } }
                    td { (age(figures.arrived, now)) }
                    td class="num" { (figures.samples) }
                }
            } }
        } }
        @if rows.len() > TAGS { p class="dim" { (rows.len() - TAGS) " more, all of which came later than these." } }
    }
}

fn value(figures: &TagFigures) -> String {
    match figures.arrived {
        Some(_) if figures.value.is_nan() => "missing".to_owned(),
        Some(_) => figures.value.to_string(),
        None => String::new(),
    }
}

fn time(nanos: i64) -> String {
    DateTime::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn age(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    match at.map(|at| (now - at).num_seconds().max(0)) {
        None => "never".to_owned(),
        Some(seconds @ 0..120) => format!("{seconds} s ago"),
        Some(seconds @ 120..7_200) => format!("{} min ago", seconds / 60),
        Some(seconds) => format!("{} h ago", seconds / 3_600),
    }
}
