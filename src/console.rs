//! The web console: read-only pages over the feeder's ledger, the service's state and the bucket.
//!
//! ```text
//!  browser ──► ops::admin (who may) ─► pages ─► ops::site (what runs here): ledger, executions, results, input files
//! ```
//!
//! It only draws: what happened it asks `executions`, what is wrong `ops`, and whoever starts the listener gives it these
//! pages. Guarantees: it changes nothing; every query is bounded; all text of others (names, reasons) is escaped by the template
//! engine; pages work without script, which only keeps them fresh and draws the charts; everything a page needs is in the
//! binary. A part that does not run in this process says so in its place.

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::ops::admin::Shared;

mod api;
mod asset;
mod assets;
mod coverage;
mod inputs;
mod layout;
mod models;
mod overview;
mod plant;
mod scheduler;
mod schedulers;
mod signals;
mod sparkline;
mod windows;

/// The pages, their data and their assets.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(overview::show))
        .route("/asset", get(asset::show))
        .route("/windows", get(windows::show))
        .route("/schedulers", get(schedulers::show))
        .route("/scheduler", get(scheduler::show))
        .route("/models", get(models::show))
        .route("/coverage", get(coverage::show))
        .route("/inputs", get(inputs::show))
        .route("/api/score", get(api::score))
        .route("/api/contribution", get(api::contribution))
        .route("/api/signals", get(api::signals))
        .route("/assets/{name}", get(file))
}

async fn file(Path(name): Path<String>) -> Response {
    let (kind, bytes): (&str, &'static [u8]) = match name.as_str() {
        "console.css" => (
            "text/css; charset=utf-8",
            include_bytes!("../assets/console.css"),
        ),
        "console.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../assets/console.js"),
        ),
        "uplot.css" => (
            "text/css; charset=utf-8",
            include_bytes!("../assets/uPlot-1.6.32.min.css"),
        ),
        "uplot.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../assets/uPlot-1.6.32.iife.min.js"),
        ),
        "icon.svg" => ("image/svg+xml", include_bytes!("../assets/icon.svg")),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    // Addresses carry the version, so a browser may keep what it has.
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "private, max-age=86400"),
        ],
        bytes,
    )
        .into_response()
}
