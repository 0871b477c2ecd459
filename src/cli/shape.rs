//! What a history looks like, as flags: the keys of `[source]` for commands that need no configuration.

use anyhow::{Result, bail};
use clap::Args;

use crate::source::Config;
use crate::source::shape::Shape;

/// What a history looks like, where it is not found out.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What the history looks like")]
pub struct ShapeArgs {
    /// Name of the time column
    #[arg(long, value_name = "NAME")]
    time_column: Option<String>,
    /// What it counts from 1970 on where it is a number: s, ms, us or ns
    #[arg(long, value_name = "UNIT")]
    time_unit: Option<String>,
    /// The clock of times without a zone, such as Europe/Berlin; otherwise UTC
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// A local time that comes twice is the earlier, the later, or refuse
    #[arg(long, value_name = "RULE")]
    time_twice: Option<String>,
    /// A local time that never was is moved forward, backward, or refuse
    #[arg(long, value_name = "RULE")]
    time_never: Option<String>,
    /// Column of tags of a long history
    #[arg(long, value_name = "NAME")]
    tag_column: Option<String>,
    /// Its column of values
    #[arg(long, value_name = "NAME")]
    value_column: Option<String>,
    /// Its column of qualities
    #[arg(long, value_name = "NAME")]
    quality_column: Option<String>,
    /// Qualities of values that count, separated by commas
    #[arg(long, value_name = "LIST")]
    quality_good: Option<String>,
}

impl ShapeArgs {
    /// The keys that are given, with their values.
    pub fn keys(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let keys = [
            ("time_column", &self.time_column),
            ("time_unit", &self.time_unit),
            ("time_zone", &self.time_zone),
            ("time_twice", &self.time_twice),
            ("time_never", &self.time_never),
            ("tag_column", &self.tag_column),
            ("value_column", &self.value_column),
            ("quality_column", &self.quality_column),
            ("quality_good", &self.quality_good),
        ];
        keys.into_iter()
            .filter_map(|(key, given)| Some((key, given.as_deref()?)))
    }

    /// The shape.
    pub fn shape(&self) -> Result<Shape> {
        let mut whole = serde_json::to_value(Config::default())?;
        for (key, given) in self.keys() {
            whole[key] = given.into();
        }
        let config: Config = serde_json::from_value(whole)?;
        if let Some((key, problem)) = config.problems().into_iter().next() {
            let flag = key.trim_start_matches("source.").replace('_', "-");
            bail!("--{flag}: {problem}");
        }
        Ok(config.shape())
    }
}
