//! Logs: text for people on a terminal, one JSON object a line otherwise, always on standard error.
//!
//! Messages are constant and values are fields. Levels mean loss: ERROR data lost or somebody must act, WARN unexpected
//! and nothing lost, INFO one line per window cut, window shipped and execution archived, DEBUG one per file. Lines for the
//! journal begin with their priority, as sd-daemon(3) says. What is logged can change while it runs ([`change`]).

mod lines;

use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use lines::Lines;

/// How much is logged, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug`, `trace`, or per module: `info,lookoutd::feed=debug`.
    pub level: String,
    /// `text`, `json`, or `auto`: text on a terminal, JSON otherwise.
    pub format: Format,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Whether a stream may be coloured: a terminal, and nobody said NO_COLOR (https://no-color.org).
pub fn coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|said| said.is_empty())
}

impl Default for Config {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: Format::Auto,
        }
    }
}

impl Config {
    /// The level as a filter.
    pub fn filter(&self) -> Result<Targets, String> {
        let bad = |text: &str| {
            format!(
                "\"{text}\" is not a level: use error, warn, info, debug or trace, or per module info,lookoutd::feed=debug"
            )
        };
        // A bare word that is no level would be taken for a module, and everything else would fall silent.
        for part in self.level.split(',').filter(|part| !part.contains('=')) {
            part.trim().parse::<LevelFilter>().map_err(|_| bad(part))?;
        }
        self.level.parse().map_err(|_| bad(&self.level))
    }
}

type Output = Box<dyn Layer<Registry> + Send + Sync>;

/// What this process logs with, once it does.
static STARTED: OnceLock<(reload::Handle<Output, Registry>, Lines)> = OnceLock::new();

/// Starts logging for this process. A second call changes nothing.
pub fn start(config: &Config) -> Result<(), String> {
    let lines = Lines::start();
    let (output, handle) = reload::Layer::new(output(config, &lines)?);
    // An embedding program or a test may have a subscriber already; its choice stands.
    if tracing_subscriber::registry()
        .with(output)
        .try_init()
        .is_ok()
    {
        // Nobody was before, or there had been a subscriber.
        let _ = STARTED.set((handle, lines));
    }
    Ok(())
}

/// Logs so from now on.
pub fn change(config: &Config) -> Result<(), String> {
    let Some((handle, lines)) = STARTED.get() else {
        return config.filter().map(drop);
    };
    let output = output(config, lines)?;
    handle.reload(output).map_err(|error| error.to_string())
}

/// Waits, but not long, until what was logged is written.
pub fn flush() {
    if let Some((_, lines)) = STARTED.get() {
        lines.flush(Duration::from_millis(200));
    }
}

fn output(config: &Config, lines: &Lines) -> Result<Output, String> {
    let level = config.filter()?;
    // The libraries below speak when something is wrong; their chatter is not about windows.
    let filter = [
        "aws_config",
        "aws_smithy_runtime",
        "aws_runtime",
        "aws_sigv4",
        "aws_sdk_s3",
        "hyper",
        "hyper_util",
        "tokio_cron_scheduler",
        "rustls",
        "h2",
        "tower",
    ]
    .into_iter()
    .fold(level, |filter, quiet| {
        if config.level.contains(quiet) {
            filter
        } else {
            filter.with_target(quiet, tracing::Level::WARN)
        }
    });
    // It calls every request that is refused an error; what somebody must do something about is said by the store itself.
    let filter = if config.level.contains("s3s") {
        filter
    } else {
        filter.with_target("s3s", LevelFilter::OFF)
    };
    let terminal = stderr().is_terminal();
    let json = match config.format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    Ok(if json {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .log_internal_errors(false)
            .with_writer(lines.clone());
        filter.and_then(layer).boxed()
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(coloured(&stderr()))
            .with_target(false)
            .log_internal_errors(false)
            .with_writer(lines.clone());
        filter.and_then(layer).boxed()
    })
}
