//! The client half of inference: the wanted scheduler, its executions, their results, the archive.
//!
//! ```text
//!  ensure: describe ─► differences ─► create | stop, update, start
//!  watch:  ListInferenceExecutions from the cursor ─► index ─► results object ─► archive file ─► index: archived
//! ```
//!
//! Guarantees: feeding never waits for anything here; an archived execution is never rewritten; the index can be lost, as
//! it is built again from the archive's files. It speaks to any endpoint with the real SDK, and knows nothing of the
//! feed: what the scheduler must be told about file names comes in a [`Target`], made from the same naming the feed uses.

mod api;
mod archive;
mod ensure;
mod execution;
mod expiry;
mod hint;
mod import;
mod index;
mod result;
mod roster;
mod scheduler;
mod schema;
mod table;
mod watcher;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Keep, Span};
use crate::s3;
use crate::signal::{Cadence, NameFormat};

pub use api::{Advice, ApiError, client, local_client};
pub use archive::{Archive, ArchiveError, Kept};
pub use ensure::{EnsureError, Ensured, Step, ensure, next_step, wait_for};
pub use execution::{Execution, Filter, ListPage, ResultObject, list_executions};
pub use expiry::expire;
pub use hint::{Deliveries, Delivery, Failed, advice, cause, hint};
pub use import::{Found, Import, MOST_BYTES, Refusal, Taken, cadence_of, look};
pub use index::{Archived, Index, IndexError, Past, Selection, Snapshot};
pub use result::{Line, ResultsError, Run, Shares, Summary, read_results, top_sensors};
pub use roster::{Brief, Roster, Seat};
pub use scheduler::{Described, Difference, Target, describe, list_schedulers};
pub use schema::{SchemaComponent, model_schema};
pub use table::{Columns, CsvTable, ParquetTable};
pub use watcher::{Parts, Watcher};

/// The inference scheduler that reads the input files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the scheduler. Empty: none is kept, and nothing is archived.
    pub scheduler: String,
    /// Name of the trained model it runs.
    pub model: String,
    /// What it is kept as.
    pub wanted: Wanted,
    /// Endpoint of a Lookout-compatible API. Empty: the standard chain, then AWS; in embedded mode the service in process.
    pub endpoint_url: String,
    /// Region; empty means that of `s3`.
    pub region: String,
    /// Named profile of the shared AWS configuration; empty means that of `s3`.
    pub profile: String,
    /// An AWS shared-credentials file to use instead of the standard one; empty means that of `s3`.
    pub credentials_file: String,
    /// The role the service takes to read input and write results.
    pub role_arn: String,
    /// Bucket of the results; empty means that of the input files.
    pub output_bucket: String,
    /// Key prefix of the results; empty, or ending with `/`.
    pub output_prefix: String,
    /// How long the scheduler waits after a window's end before it looks for the files, 0 to 60 minutes.
    pub delay_offset_minutes: u8,
    /// Tags given to the scheduler when it is created: `key=value`, separated by commas.
    pub tags: String,
    /// How often executions are asked for.
    pub poll: Span,
    /// Key prefix in the output bucket for a copy of the archive; empty means no copy.
    pub archive_prefix: String,
    /// How long results stay in the archive, from their window on: a span such as `400d`, or `forever`.
    pub archive_keep: Keep,
}

/// What the scheduler is kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Created where it is absent, brought to the configuration, and running.
    #[default]
    Running,
    /// Created where it is absent, brought to the configuration, and stopped.
    Stopped,
    /// Never changed; only its executions are archived.
    Observe,
}

impl Wanted {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Observe => "observe",
        }
    }

    /// The one that is written so.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Running, Self::Stopped, Self::Observe];
        all.into_iter().find(|wanted| wanted.name() == name)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scheduler: String::new(),
            model: String::new(),
            wanted: Wanted::Running,
            endpoint_url: String::new(),
            region: String::new(),
            profile: String::new(),
            credentials_file: String::new(),
            role_arn: "arn:aws:iam::000000000000:role/lookoutd".into(),
            output_bucket: String::new(),
            output_prefix: "output/".into(),
            delay_offset_minutes: 0,
            tags: String::new(),
            poll: Span(Duration::from_secs(30)),
            archive_prefix: String::new(),
            archive_keep: Keep(None),
        }
    }
}

impl Config {
    /// What is wrong with the values: key and problem. The constraints are the service's own (contract 1.3), because the
    /// SDK checks none of them.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut say = |key, problem: &str| problems.push((key, problem.to_owned()));
        if !self.scheduler.is_empty() && !is_name(&self.scheduler) {
            say("inference.scheduler", NAME);
        }
        if !self.model.is_empty() && !is_name(&self.model) {
            say("inference.model", NAME);
        }
        if !self.scheduler.is_empty() && self.model.is_empty() && self.wanted != Wanted::Observe {
            say(
                "inference.model",
                "is needed with inference.scheduler: the name of the trained model; or set inference.wanted to \"observe\"",
            );
        }
        if let Some(problem) = s3::endpoint_problem(&self.endpoint_url) {
            say("inference.endpoint_url", &problem);
        }
        if !is_role(&self.role_arn) {
            say(
                "inference.role_arn",
                "is not a role: write it like arn:aws:iam::123456789012:role/lookoutd",
            );
        }
        for (key, prefix) in [
            ("inference.output_prefix", &self.output_prefix),
            ("inference.archive_prefix", &self.archive_prefix),
        ] {
            if !is_prefix(prefix) {
                say(
                    key,
                    "must be empty or end with a slash, must not begin with one, and has up to 1024 Latin-1 characters",
                );
            }
        }
        if self.delay_offset_minutes > 60 {
            say("inference.delay_offset_minutes", "must be 0 to 60");
        }
        if self.poll.0 < Duration::from_secs(1) || self.poll.0 > Duration::from_secs(3600) {
            say("inference.poll", "must be 1s to 1h");
        }
        for tag in self.tag_texts() {
            if !is_tag(tag) {
                say(
                    "inference.tags",
                    &format!(
                        "\"{tag}\" is not a tag: write them as key=value, key=value, a key of 1 to 128 letters, digits and + - = . _ : / \
                         not beginning with aws:, the value of up to 256 characters"
                    ),
                );
            }
        }
        let mut keys: Vec<&str> = self.tag_texts().filter_map(key_of).collect();
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|two| two[0] == two[1]) {
            let problem = format!("\"{}\" stands there twice: a key has one value", twice[0]);
            problems.push(("inference.tags", problem));
        }
        problems
    }

    /// Its tags, those that are not written as such left out: key and value.
    pub fn tag_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.tag_texts().filter_map(|tag| tag.split_once('='));
        texts.map(|(key, value)| (key.trim(), value.trim()))
    }

    /// What the scheduler is to be, given where the feed writes and how it names.
    pub fn target(
        &self,
        cadence: Cadence,
        naming: NameFormat,
        input_bucket: &str,
        input_prefix: &str,
    ) -> Target {
        Target {
            scheduler: self.scheduler.clone(),
            model: self.model.clone(),
            wanted: self.wanted,
            cadence,
            naming,
            delay_minutes: i64::from(self.delay_offset_minutes),
            input_bucket: input_bucket.to_owned(),
            input_prefix: input_prefix.to_owned(),
            output_bucket: if self.output_bucket.is_empty() {
                input_bucket.to_owned()
            } else {
                self.output_bucket.clone()
            },
            output_prefix: self.output_prefix.clone(),
            role_arn: self.role_arn.clone(),
            tags: self
                .tag_texts()
                .filter_map(|tag| tag.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    fn tag_texts(&self) -> impl Iterator<Item = &str> {
        self.tags
            .split(',')
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
    }

    /// The client of the configured API. Region, profile and credentials not set here are those of the store.
    pub async fn client(&self, s3: &s3::Config) -> Reached {
        let mut shared = s3.clone();
        if !self.region.is_empty() {
            shared.region.clone_from(&self.region);
        }
        if !self.profile.is_empty() {
            shared.profile.clone_from(&self.profile);
        }
        if !self.credentials_file.is_empty() {
            shared.credentials_file.clone_from(&self.credentials_file);
        }
        let access = shared.load().await;
        Reached {
            client: client(&access, &self.endpoint_url),
            keeper: access.keeper,
        }
    }
}

/// A client of the API, and what keeps its credentials.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The client.
    pub client: aws_sdk_lookoutequipment::Client,
    /// Its credentials.
    pub keeper: s3::Keeper,
}

fn key_of(tag: &str) -> Option<&str> {
    tag.split_once('=').map(|(key, _)| key.trim())
}

const NAME: &str = "has 1 to 200 letters, digits, hyphens and underscores";

pub(crate) fn is_name(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn is_role(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let (Some("arn"), Some(partition), Some("iam"), Some(""), Some(account), Some(resource)) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return false;
    };
    (20..=2048).contains(&text.len())
        && (partition == "aws" || partition.starts_with("aws-"))
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && resource
            .strip_prefix("role/")
            .is_some_and(|role| !role.is_empty())
}

fn is_prefix(text: &str) -> bool {
    text.is_empty()
        || (text.ends_with('/')
            && !text.starts_with('/')
            && text.chars().count() <= 1024
            && text.chars().all(|c| ('\u{20}'..='\u{ff}').contains(&c)))
}

fn is_tag(text: &str) -> bool {
    text.split_once('=').is_some_and(|(key, value)| {
        (1..=128).contains(&key.len())
            && !key.starts_with("aws:")
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.,_:/".contains(&byte))
            && value.chars().count() <= 256
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(config: &Config) -> Vec<&'static str> {
        config.problems().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_the_service_would_refuse_is_refused_here() {
        assert_eq!(keys(&Config::default()), Vec::<&str>::new());
        let config = Config {
            scheduler: "pump scheduler".into(),
            model: "m/1".into(),
            role_arn: "arn:aws:iam::1234:role/x".into(),
            output_prefix: "results".into(),
            archive_prefix: "/a/".into(),
            delay_offset_minutes: 61,
            tags: "aws:x=1, team=pumps, none".into(),
            poll: Span(Duration::from_millis(10)),
            ..Config::default()
        };
        assert_eq!(
            keys(&config),
            [
                "inference.scheduler",
                "inference.model",
                "inference.role_arn",
                "inference.output_prefix",
                "inference.archive_prefix",
                "inference.delay_offset_minutes",
                "inference.poll",
                "inference.tags",
                "inference.tags",
            ]
        );
        for role in [
            "arn:aws:iam::123456789012:role/service/lookout",
            "arn:aws-cn:iam::123456789012:role/x",
        ] {
            assert!(is_role(role), "{role}");
        }
    }

    #[test]
    fn a_scheduler_that_is_to_run_needs_a_model_and_an_observed_one_does_not() {
        let named = |wanted| Config {
            scheduler: "s".into(),
            wanted,
            ..Config::default()
        };
        assert_eq!(keys(&named(Wanted::Running)), ["inference.model"]);
        assert_eq!(keys(&named(Wanted::Stopped)), ["inference.model"]);
        assert!(keys(&named(Wanted::Observe)).is_empty());
    }
}
