//! What the values of several components say about each other.

use super::Config;
use crate::{feed, inference, s3, service, source};

impl Config {
    /// What is wrong with where samples come from.
    fn where_samples_are(&self) -> Vec<(&'static str, &'static str)> {
        let (history, tags) = (self.source.location(), &self.source.tags);
        let mut problems = Vec::new();
        if self.is_live() {
            if !history.is_empty() {
                problems.push((
                    self.source.location_key(),
                    "there are inputs, and a history too: samples come from one or the other; take one out",
                ));
            }
            if tags.is_empty() {
                problems.push((
                    "source.tags",
                    "is needed with inputs: a CSV with columns Tag, UOM, Subsystem, Input, Address",
                ));
            }
            if !source::live::fits(self.source.grid, self.feed.cadence) {
                problems.push((
                    "source.grid",
                    "does not divide feed.cadence: rows would not fit into windows",
                ));
            }
            return problems;
        }
        match (history.is_empty(), tags.is_empty()) {
            (false, true) => problems.push((
                "source.tags",
                "is needed with source.history: the tags_description.csv with columns Tag, UOM, Subsystem",
            )),
            (true, false) => problems.push((
                "source.history",
                "is needed with source.tags, unless there is an input: the Parquet history, a path or s3://bucket/key",
            )),
            _ => {}
        }
        if history.is_empty() && !self.is_embedded() {
            problems.push((
                "source.history",
                "is needed with s3.bucket, unless there is an input: the Parquet history, a path or s3://bucket/key",
            ));
        }
        problems
    }

    /// What the components' values say about each other.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut say = |key, problem: &str| problems.push((key, problem.to_owned()));
        let prefix = self.s3.input_prefix.as_str();
        let right = match prefix.trim_matches('/') {
            "" => String::new(),
            bare => format!("{bare}/"),
        };
        if prefix.starts_with('/') {
            say(
                "s3.input_prefix",
                &format!("must not start with a slash, keys have none: write it as \"{right}\""),
            );
        } else if !prefix.is_empty() && !prefix.ends_with('/') {
            say(
                "s3.input_prefix",
                &format!(
                    "must end with a slash, or the scheduler will not find the files: write it as \"{right}\""
                ),
            );
        }
        for (key, problem) in self.where_samples_are() {
            say(key, problem);
        }
        for (key, problem) in self.s3.problems() {
            say(key, &problem);
        }
        if self.is_embedded() && !self.s3.endpoint_url.is_empty() {
            say("s3.bucket", "is needed with s3.endpoint_url");
        }
        if self.feed.drain_per_minute == 0 {
            say("feed.drain_per_minute", "must be at least 1");
        }
        for (key, problem) in self.admin.problems() {
            say(key, &problem);
        }
        for (key, problem) in self.notify.problems() {
            say(key, &problem);
        }
        for (key, problem) in self.service.problems() {
            say(key, &problem);
        }
        for (key, address) in [
            ("service.listen", &self.service.listen),
            ("service.s3_listen", &self.service.s3_listen),
        ] {
            match address.parse::<std::net::SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => {}
                Ok(_) => say(
                    key,
                    &format!(
                        "\"{address}\" can be reached from other machines, and what runs embedded has no TLS: listen on \
                         127.0.0.1, or run `lookoutd serve --tls-cert --tls-key` for others"
                    ),
                ),
                Err(_) => say(
                    key,
                    &format!("\"{address}\" is not an address: write it like 127.0.0.1:9190"),
                ),
            }
        }
        if let Err(problem) = self.log.filter() {
            say("log.level", &problem);
        }
        for (key, problem) in self.source.problems() {
            say(key, &problem);
        }
        if self.inference.wanted == inference::Wanted::Running
            && !self.inference.scheduler.is_empty()
            && self.feed.publish == feed::Publish::Behind
            && self.inference.delay_offset_minutes == 0
        {
            say(
                "inference.delay_offset_minutes",
                "must be at least 1 with inputs or feed.publish = \"behind\": the file of a window is cut at its end, when the \
                 scheduler would already look for it",
            );
        }
        for (key, problem) in self.inference.problems() {
            say(key, &problem);
        }
        for (key, problem) in self.names_elsewhere() {
            say(key, &problem);
        }
        problems
    }

    /// What is wrong with names that a store or the service judges.
    fn names_elsewhere(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Err(refused) = service::options::Options::from_tags(self.inference.tag_pairs()) {
            problems.push(("inference.tags", refused.to_string()));
        }
        // A store other than AWS's takes more names; where the environment names one is known when it is asked.
        let elsewhere = !self.s3.endpoint_url.is_empty();
        if let Some(problem) = s3::bucket_problem(&self.inference.output_bucket, elsewhere) {
            problems.push(("inference.output_bucket", problem));
        }
        let history = self.source.location().strip_prefix("s3://");
        if let Some((bucket, _)) = history.and_then(|at| at.split_once('/'))
            && let Some(problem) = s3::bucket_problem(bucket, elsewhere)
        {
            problems.push((self.source.location_key(), problem));
        }
        problems
    }
}
