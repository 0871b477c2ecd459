//! Logs: text for people on a terminal, one JSON object a line otherwise, always on standard error.
//!
//! Messages are constant and values are fields. Levels mean loss: ERROR data lost or somebody must act, WARN unexpected
//! and nothing lost, INFO one line per window cut, window shipped and execution archived, DEBUG one per file. A line that
//! cannot be written, because whoever read the log has gone, is dropped: the work goes on.

use std::io::{IsTerminal, stderr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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

/// Starts logging for this process. A second call changes nothing.
pub fn start(config: &Config) -> Result<(), String> {
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
    let registry = tracing_subscriber::registry().with(filter);
    let started = if json {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .log_internal_errors(false)
            .with_writer(stderr);
        registry.with(layer).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(terminal)
            .with_target(false)
            .log_internal_errors(false)
            .with_writer(stderr);
        registry.with(layer).try_init()
    };
    // An embedding program or a test may have a subscriber already; its choice stands.
    drop(started);
    Ok(())
}
