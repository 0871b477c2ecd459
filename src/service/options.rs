//! Per-scheduler options beyond the original's, given as tags `lookoutd:...` on the scheduler.
//!
//! Every one is off without its tag, so that an unmodified client meets only the original's behaviour. An unknown
//! `lookoutd:` tag or a value out of range is refused when it is set, not when it would take effect.

use std::time::Duration;

use super::faults::Fault;

/// The era of the results lines (contract 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ResultsFormat {
    /// 2021-04: `timestamp`, `prediction`, and `diagnostics` on anomalies. The 2021 notebooks parse only this.
    V1,
    /// 2021-08: adds `prediction_reason`.
    V2,
    /// 2022-03: adds `anomaly_score`.
    V3,
    /// 2024: `diagnostics` on normal lines too.
    #[default]
    V4,
}

/// What the tags of a scheduler ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// `lookoutd:results-format` = `v1` ... `v4`.
    pub results_format: ResultsFormat,
    /// `lookoutd:wait` = seconds after the wake-up during which an incomplete set of files is looked for again.
    pub wait: Duration,
    /// `lookoutd:late-files` = `score`: windows that failed for a missing file are scored when it has come.
    pub late_files: bool,
    /// `lookoutd:catch-up` = `on`: windows that passed while stopped or down are run afterwards.
    pub catch_up: bool,
}

/// Tags with this prefix are options.
const PREFIX: &str = "lookoutd:";

/// The longest wait: the shortest cadence, so that a waiting execution never meets the next but one.
const LONGEST_WAIT: u64 = 300;

impl Options {
    /// Reads the options out of a scheduler's tags; other tags are ignored.
    pub fn from_tags<'a>(
        tags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Options, Fault> {
        let mut options = Options::default();
        for (key, value) in tags {
            match key.strip_prefix(PREFIX) {
                None => {}
                Some("results-format") => {
                    options.results_format = match value {
                        "v1" => ResultsFormat::V1,
                        "v2" => ResultsFormat::V2,
                        "v3" => ResultsFormat::V3,
                        "v4" => ResultsFormat::V4,
                        _ => return Err(refused(key, value, "v1, v2, v3 or v4")),
                    };
                }
                Some("wait") => match value.parse() {
                    Ok(seconds) if seconds <= LONGEST_WAIT => {
                        options.wait = Duration::from_secs(seconds)
                    }
                    _ => return Err(refused(key, value, "whole seconds, 0 to 300")),
                },
                Some("late-files") => {
                    options.late_files = match value {
                        "score" => true,
                        "ignore" => false,
                        _ => return Err(refused(key, value, "score or ignore")),
                    };
                }
                Some("catch-up") => {
                    options.catch_up = match value {
                        "on" => true,
                        "off" => false,
                        _ => return Err(refused(key, value, "on or off")),
                    };
                }
                Some(_) => {
                    return Err(Fault::validation(format!(
                        "Tag '{key}' is no option of lookoutd. Options are lookoutd:results-format, lookoutd:wait, \
                         lookoutd:late-files and lookoutd:catch-up."
                    )));
                }
            }
        }
        Ok(options)
    }
}

fn refused(key: &str, value: &str, expected: &str) -> Fault {
    Fault::validation(format!(
        "Tag '{key}' has the value '{value}', expected {expected}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tags_everything_beyond_the_original_is_off() {
        let options = Options::from_tags([("team", "pumps")]).unwrap();
        assert_eq!(options, Options::default());
        assert_eq!(options.results_format, ResultsFormat::V4);
        assert!(options.wait.is_zero() && !options.late_files && !options.catch_up);
    }

    #[test]
    fn options_are_read_and_mistakes_refused() {
        let options =
            Options::from_tags([("lookoutd:results-format", "v1"), ("lookoutd:wait", "90")])
                .unwrap();
        assert_eq!(
            (options.results_format, options.wait),
            (ResultsFormat::V1, Duration::from_secs(90))
        );
        for bad in [
            ("lookoutd:results-format", "v5"),
            ("lookoutd:wait", "301"),
            ("lookoutd:wiat", "5"),
        ] {
            assert_eq!(
                Options::from_tags([bad]).unwrap_err().code,
                "ValidationException",
                "{bad:?}"
            );
        }
    }
}
