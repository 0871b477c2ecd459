//! The frame of every page, and the small parts that pages share. All text goes through maud, which escapes it.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use maud::{DOCTYPE, Markup, html};

use crate::ops::health::{Readiness, Reason};
use crate::vitals::Code;

pub use crate::config::bytes;

/// Appended to the assets' addresses, so that a new version is fetched.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One page: its title, which entry of the menu it is, the verdict, and what it shows. Elements with `data-live` are
/// replaced while the page is open, when the server says something else.
pub fn page(
    title: &str,
    here: &str,
    readiness: Option<&Readiness>,
    charts: bool,
    body: Markup,
) -> Response {
    let menu = [
        ("/", "Overview"),
        ("/windows", "Windows"),
        ("/schedulers", "Schedulers"),
        ("/models", "Models"),
        ("/coverage", "Coverage"),
        ("/inputs", "Inputs"),
    ];
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · lookoutd" }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                @if charts { link rel="stylesheet" href={ "/assets/uplot.css?v=" (VERSION) }; }
                link rel="stylesheet" href={ "/assets/console.css?v=" (VERSION) };
                @if charts { script src={ "/assets/uplot.js?v=" (VERSION) } defer {} }
                script src={ "/assets/console.js?v=" (VERSION) } defer {}
            }
            body {
                a class="skip" href="#main" { "Skip to content" }
                header class="top" {
                    a class="brand" href="/" { (mark()) "lookoutd" }
                    nav aria-label="Pages" {
                        ul {
                            @for (address, name) in menu {
                                li { a href=(address) aria-current=[(address == here).then_some("page")] { (name) } }
                            }
                        }
                    }
                    @if let Some(readiness) = readiness {
                        a id="verdict" data-live class={ "verdict " (verdict_class(readiness)) } href="/#trouble" role="status" {
                            (verdict(readiness))
                        }
                    }
                    span id="link" class="link" hidden { "connection lost" }
                }
                main id="main" { (body) }
                footer {
                    "lookoutd " (VERSION) " · times are UTC · "
                    a href="/metrics" { "metrics" } " · " a href="/readyz" { "health" }
                }
            }
        }
    };
    (
        [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
        markup.into_string(),
    )
        .into_response()
}

/// The one line that says how things are.
pub fn verdict(readiness: &Readiness) -> String {
    let blocking = readiness
        .reasons
        .iter()
        .filter(|reason| reason.blocking)
        .count();
    // A console over what a stopped daemon left: whatever else is so, nothing goes on.
    let stopped = |reason: &Reason| reason.code == Code::NobodyWorks;
    if readiness.reasons.iter().any(stopped) {
        return "Stopped: nobody works here".into();
    }
    match (blocking, readiness.reasons.len()) {
        (0, 0) => "All is well".into(),
        (0, 1) => "Delivering; 1 thing to look at".into(),
        (0, n) => format!("Delivering; {n} things to look at"),
        (1, _) => "1 problem".into(),
        (n, _) => format!("{n} problems"),
    }
}

fn verdict_class(readiness: &Readiness) -> &'static str {
    match (readiness.ready, readiness.reasons.is_empty()) {
        (true, true) => "ok",
        (true, false) => "warn",
        (false, _) => "bad",
    }
}

/// A state or status as a chip: the word, and a colour for it.
pub fn chip(word: &str) -> Markup {
    let class = match word {
        "shipped" | "SUCCESS" | "RUNNING" | "NORMAL" | "ok" => "ok",
        "partial" | "due" | "spooled" | "PENDING" | "STOPPING" | "IN_PROGRESS" | "gap"
        | "missing" | "attention" => "warn",
        "empty" | "set aside" | "FAILED" | "ANOMALOUS" | "problem" => "bad",
        _ => "plain",
    };
    html! { span class={ "chip " (class) } { (word) } }
}

/// A time, UTC, to the second. The script adds the reader's own time as a title.
pub fn time(at: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(at.to_rfc3339_opts(SecondsFormat::Secs, true)) { (at.format("%Y-%m-%d %H:%M:%S")) }
    }
}

/// A time of a day that stands beside it, UTC.
pub fn clock(at: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(at.to_rfc3339_opts(SecondsFormat::Secs, true)) { (at.format("%H:%M:%S")) }
    }
}

/// A time that may not be known.
pub fn maybe_time(at: Option<DateTime<Utc>>) -> Markup {
    match at {
        Some(at) => time(at),
        None => html! { span class="dim" { "none" } },
    }
}

/// Text in an address.
pub fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Why a part of a page is empty.
pub fn absent(text: &str) -> Markup {
    html! { p class="absent" { (text) } }
}

/// Links that go on to the next page of a list, or back to its beginning.
pub fn pager(first: Option<String>, next: Option<String>) -> Markup {
    html! {
        @if first.is_some() || next.is_some() {
            nav class="pager" aria-label="Pages of the list" {
                @if let Some(first) = first { a href=(first) { "Newest" } }
                @if let Some(next) = next { a href=(next) rel="next" { "Older" } }
            }
        }
    }
}

fn mark() -> Markup {
    html! {
        svg class="mark" viewBox="0 0 24 24" width="22" height="22" aria-hidden="true" {
            circle cx="12" cy="12" r="10" fill="none" stroke="currentColor" stroke-width="2" {}
            path d="M3 13h4l2-6 4 11 2.5-7 1.5 2H21" fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_text() {
        let page = chip("<script>alert(1)</script>\" onload=x").into_string();
        assert!(!page.contains("<script>"), "{page}");
        assert_eq!(encoded("a/b<'\">&?#"), "a%2Fb%3C%27%22%3E%26%3F%23");
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
