//! `/api/`: what the charts of the console draw, as JSON. Documented in docs/operating.md; made for the page and not a
//! stable interface.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::scheduler::hours;
use super::signals::{self, Traces};
use crate::executions::{Answer, EventRow, ExecutionRow, SchedulerRow, State as Service, seconds};
use crate::feed::blocking;
use crate::ops::admin::{Shared, failed, json};
use crate::ops::site::Site;

/// Windows whose results are read for one chart, the newest of the range.
const WINDOWS: usize = 300;
/// Points of the score chart.
const POINTS: usize = 2_000;
/// Bands of the score chart.
const BANDS: usize = 200;
/// Sensors drawn for an event, and windows read for it.
const LEADING: usize = 6;
const TRACED: usize = 4;
const AROUND: usize = 48;

#[derive(Debug, Deserialize)]
pub struct Choice {
    #[serde(default)]
    name: String,
    hours: Option<u32>,
    event: Option<i64>,
}

#[derive(Debug, Serialize)]
struct ScoreChart {
    t: Vec<f64>,
    score: Vec<Option<f64>>,
    threshold: f64,
    bands: Vec<Band>,
    /// Windows with results in the range, and how many of them were read and drawn.
    windows: usize,
    drawn: usize,
    from: f64,
    to: f64,
}

#[derive(Debug, Serialize)]
struct Band {
    kind: &'static str,
    from: f64,
    to: f64,
    text: String,
}

#[derive(Debug, Default, Serialize)]
struct Lines {
    #[serde(flatten)]
    traces: Traces,
    /// The event itself.
    from: f64,
    to: f64,
}

/// The score of a scheduler over the last hours, with events and labels.
pub async fn score(State(shared): State<Shared>, Query(choice): Query<Choice>) -> Response {
    answer(score_chart(&shared, choice).await)
}

/// The contribution of the leading sensors around an event.
pub async fn contribution(State(shared): State<Shared>, Query(choice): Query<Choice>) -> Response {
    answer(contribution_lines(&shared, choice).await)
}

/// The signals of the leading sensors around an event.
pub async fn signals(State(shared): State<Shared>, Query(choice): Query<Choice>) -> Response {
    answer(signal_lines(&shared, choice).await)
}

fn answer(result: anyhow::Result<Option<impl Serialize>>) -> Response {
    match result {
        Ok(Some(value)) => json(&value),
        Ok(None) => (
            StatusCode::NOT_FOUND,
            json(&serde_json::json!({"error": "there is no such scheduler or event here"})),
        )
            .into_response(),
        Err(error) => failed(&error),
    }
}

async fn score_chart(shared: &Shared, choice: Choice) -> anyhow::Result<Option<ScoreChart>> {
    let Some((site, state, scheduler)) = scheduler(shared, &choice.name).await? else {
        return Ok(None);
    };
    let Some(client) = site.s3 else {
        return Ok(None);
    };
    let to = scheduler.until(site.clock.now());
    let from = to - TimeDelta::hours(i64::from(hours(choice.hours)));
    let uuid = scheduler.uuid.clone();
    let (mut executions, events, labels) = blocking(move || -> Answer<_> {
        Ok((
            state.executions(&uuid, Some("SUCCESS"), Some(from), None, WINDOWS + 1)?,
            state.events(&uuid, Some(from), None, BANDS)?,
            state.labels(from, to, BANDS)?,
        ))
    })
    .await??;
    let windows = executions.len();
    executions.truncate(WINDOWS);
    executions.reverse();
    let mut chart = ScoreChart {
        t: Vec::new(),
        score: Vec::new(),
        threshold: 0.5,
        bands: Vec::new(),
        windows,
        drawn: executions.len(),
        from: seconds(from),
        to: seconds(to),
    };
    let each = (POINTS / executions.len().max(1)).max(2);
    let mut end = None;
    for (execution, scored) in executions
        .iter()
        .zip(shared.scores().read(&client, &executions).await)
    {
        let Some(scored) = scored.filter(|scored| !scored.points.is_empty()) else {
            continue;
        };
        // A window that is missing is a gap in the line.
        if end.is_some_and(|end| execution.start > end) {
            chart.push(seconds(execution.start), None);
        }
        end = Some(execution.end);
        for stretch in scored.points.chunks(scored.points.len().div_ceil(each)) {
            if let Some((time, score)) = stretch.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))
            {
                chart.push(time, Some(score));
            }
        }
    }
    chart.bands.extend(labels.into_iter().map(|label| Band {
        kind: if label.rating == "ANOMALY" {
            "label"
        } else {
            "normal"
        },
        from: seconds(label.start),
        to: seconds(label.end),
        text: label.notes,
    }));
    chart.bands.extend(events.into_iter().map(|event| {
        Band {
            kind: "event",
            from: seconds(event.start),
            to: seconds(event.end),
            text: event
                .shares
                .into_iter()
                .next()
                .map(|(name, _)| name)
                .unwrap_or_default(),
        }
    }));
    Ok(Some(chart))
}

impl ScoreChart {
    /// Times only go up: what a chart needs.
    fn push(&mut self, time: f64, score: Option<f64>) {
        if self.t.last().is_none_or(|last| *last < time) {
            self.t.push(time);
            self.score.push(score);
        }
    }
}

async fn contribution_lines(shared: &Shared, choice: Choice) -> anyhow::Result<Option<Lines>> {
    let Some((site, state, scheduler, event)) = event(shared, &choice).await? else {
        return Ok(None);
    };
    let Some(client) = site.s3 else {
        return Ok(None);
    };
    let (from, before) = around(&scheduler, &event);
    let mut executions: Vec<ExecutionRow> = blocking(move || {
        state.executions(
            &scheduler.uuid,
            Some("SUCCESS"),
            Some(from),
            Some(before),
            AROUND,
        )
    })
    .await??;
    executions.reverse();
    let leading: Vec<String> = event
        .shares
        .iter()
        .take(LEADING)
        .map(|(name, _)| name.clone())
        .collect();
    let mut lines = Lines {
        from: seconds(event.start),
        to: seconds(event.end),
        ..Lines::default()
    };
    lines.traces.signals = leading.into_iter().map(|name| (name, Vec::new())).collect();
    for scored in shared
        .scores()
        .read(&client, &executions)
        .await
        .into_iter()
        .flatten()
    {
        for (time, shares) in &scored.shares {
            if lines.traces.t.last().is_some_and(|last| last >= time) {
                continue;
            }
            lines.traces.t.push(*time);
            for (name, values) in &mut lines.traces.signals {
                let place = scored.names.iter().position(|known| known == name);
                values.push(place.and_then(|place| shares.get(place)).copied());
            }
        }
    }
    Ok(Some(lines))
}

async fn signal_lines(shared: &Shared, choice: Choice) -> anyhow::Result<Option<Lines>> {
    let Some((site, _, scheduler, event)) = event(shared, &choice).await? else {
        return Ok(None);
    };
    let Some(client) = site.s3 else {
        return Ok(None);
    };
    let (from, to) = around(&scheduler, &event);
    let wanted: Vec<String> = event
        .shares
        .iter()
        .take(TRACED)
        .map(|(name, _)| name.clone())
        .collect();
    let traces = signals::traces(
        &client,
        &scheduler.input,
        scheduler.cadence(),
        from,
        to,
        &wanted,
        AROUND,
    )
    .await?;
    Ok(Some(Lines {
        traces,
        from: seconds(event.start),
        to: seconds(event.end),
    }))
}

/// The event with three windows on either side; of a long one the beginning.
fn around(scheduler: &SchedulerRow, event: &EventRow) -> (DateTime<Utc>, DateTime<Utc>) {
    let margin = scheduler.cadence().duration() * 3;
    (event.start - margin, event.end + margin)
}

async fn scheduler(
    shared: &Shared,
    name: &str,
) -> anyhow::Result<Option<(Site, Service, SchedulerRow)>> {
    let Some(site) = shared.site() else {
        return Ok(None);
    };
    let (name, looked) = (name.to_owned(), site.clone());
    Ok(
        blocking(move || looked.scheduler(looked.clock.now(), &name))
            .await??
            .map(|(state, scheduler)| (site, state, scheduler)),
    )
}

async fn event(
    shared: &Shared,
    choice: &Choice,
) -> anyhow::Result<Option<(Site, Service, SchedulerRow, EventRow)>> {
    let Some(start) = choice.event.and_then(DateTime::from_timestamp_micros) else {
        return Ok(None);
    };
    let Some((site, state, scheduler)) = scheduler(shared, &choice.name).await? else {
        return Ok(None);
    };
    let (uuid, looked) = (scheduler.uuid.clone(), state.clone());
    let event = blocking(move || looked.event(&uuid, start)).await??;
    Ok(event.map(|event| (site, state, scheduler, event)))
}
