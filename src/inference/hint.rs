//! What a FailedReason means for the person who runs the gateway.
//!
//! The service's text is kept as it is; the hint stands beside it and names what to look at here. The texts are those
//! recorded of the original service (contract 3.7) and those of lookoutd's own.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};

use super::execution::Execution;

/// An execution that failed, as far as advice on it goes.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    /// Why, in the service's words.
    pub reason: &'a str,
    /// When the service looked for its files.
    pub looked: DateTime<Utc>,
    /// The end of its window.
    pub end: DateTime<Utc>,
}

impl Execution {
    /// How it failed, if a reason is given.
    pub fn failed(&self) -> Option<Failed<'_>> {
        Some(Failed {
            reason: self.failed_reason.as_deref()?,
            looked: self.scheduled.unwrap_or(self.data_end),
            end: self.data_end,
        })
    }
}

/// How the input of a window fared, as who delivers it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When the store had all of it.
    pub shipped_at: Option<DateTime<Utc>>,
    /// What became of it, in words.
    pub said: String,
}

/// Who knows how the input of the window that begins then was delivered.
pub type Deliveries = Arc<dyn Fn(DateTime<Utc>) -> Option<Delivery> + Send + Sync>;

/// What to do about an execution that failed: the true cause, where the delivery of its files has it, or what is known of
/// its reason.
pub fn advice(failed: &Failed<'_>, delivery: Option<&Delivery>) -> Option<String> {
    delivery
        .and_then(|delivery| cause(failed, delivery))
        .or_else(|| hint(failed.reason).map(str::to_owned))
}

/// Why an execution found no file, from what is known of the file; `None` where it failed for another reason.
pub fn cause(failed: &Failed<'_>, delivery: &Delivery) -> Option<String> {
    let reason = failed.reason.to_ascii_lowercase();
    if !reason.contains("could not find data file") || reason.contains("near misses") {
        return None;
    }
    let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let looked = failed.looked;
    Some(match delivery.shipped_at {
        Some(came) if came > looked => format!(
            "its files came at {}, after the look at {}: raise inference.delay_offset_minutes to {} where that is usual",
            text(came),
            text(looked),
            // What the delay is already lies between the end of the window and the look.
            (came - failed.end).num_minutes() + 1
        ),
        Some(came) => format!(
            "its files were in the store at {}, before the look at {}: the scheduler looks elsewhere or for other names; compare \
             lookoutd plan with lookoutd scheduler describe",
            text(came),
            text(looked)
        ),
        None => format!(
            "its files are not in the store: the window is {}",
            delivery.said
        ),
    })
}

/// What to do about an execution that failed for this reason; `None` where nothing is known about it.
pub fn hint(reason: &str) -> Option<&'static str> {
    let text = reason.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    Some(match () {
        () if has("could not find data file") && has("near misses") => {
            "a file is there under another name: compare the near misses with lookoutd plan, and let the scheduler follow the \
             configuration"
        }
        () if has("could not find data file") => {
            "an input file was not there when the scheduler looked: see the window in lookoutd windows list; if it came \
             later, raise inference.delay_offset_minutes; if it never comes, lookoutd plan shows what the scheduler looks for"
        }
        () if has("could not find data for sensor") => {
            "a file is there, but no row of it lies in the window: rows must be stamped in UTC, and feed.rows be \"service\""
        }
        () if has("accessdenied") || has("access denied") || has("not authorized") => {
            "the service may not read the input or write the results: check the policy of inference.role_arn"
        }
        () if has("nosuchbucket") || has("bucket does not exist") => {
            "a bucket of the scheduler does not exist: check s3.bucket and inference.output_bucket"
        }
        () if has("is there and cannot be compared") || has("holds other results") => {
            "the results' place is taken by another object: give every scheduler an output prefix of its own"
        }
        () if has("limit") || has("too large") || has("exceed") => {
            "the window is beyond the service's limits of files, rows or bytes: use a shorter feed.cadence or fewer signals"
        }
        () if has("model version") && has("cannot be loaded") => {
            "the service cannot read its model file: train or import the model again"
        }
        () if has("knows no sensor") || has("schema") => {
            "the files' columns are not those the model was trained on: compare the tag list with the training data"
        }
        () if has("internal failure") => "the service failed: its log has the cause",
        () => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_came_late_is_told_by_when_it_came_and_when_it_was_looked_for() {
        let at = |text: &str| format!("2026-03-01T{text}Z").parse().unwrap();
        let execution = Execution {
            scheduler: "s".into(),
            model: "m".into(),
            model_version: None,
            scheduled: Some(at("05:40:00")),
            data_start: at("05:35:00"),
            data_end: at("05:40:00"),
            status: "FAILED".into(),
            failed_reason: Some("Could not find data file for sensor a within ...".into()),
            result: None,
            input: String::new(),
        };
        let told = |shipped_at, said: &str| {
            let said = said.to_owned();
            advice(
                &execution.failed().unwrap(),
                Some(&Delivery { shipped_at, said }),
            )
            .unwrap()
        };
        let late = told(Some(at("05:40:00.24")), "complete in the store");
        assert!(
            late.contains(
                "came at 2026-03-01T05:40:00.240Z, after the look at 2026-03-01T05:40:00.000Z"
            ),
            "{late}"
        );
        assert!(late.contains("delay_offset_minutes to 1"), "{late}");
        let there = told(Some(at("05:35:02")), "complete in the store");
        assert!(
            there.contains("before the look") && there.contains("lookoutd plan"),
            "{there}"
        );
        let empty = told(None, "no rows in the source");
        assert!(empty.contains("no rows in the source"), "{empty}");
        let other = Execution {
            failed_reason: Some("Access Denied".into()),
            ..execution
        };
        let delivery = Delivery {
            shipped_at: None,
            said: String::new(),
        };
        let other = other.failed().unwrap();
        assert_eq!(cause(&other, &delivery), None);
        // What is not known of the files is known of the reason.
        assert!(
            advice(&other, Some(&delivery))
                .unwrap()
                .contains("role_arn")
        );
    }

    #[test]
    fn the_recorded_reasons_of_the_original_service_have_a_hint() {
        for (reason, part) in [
            (
                "Could not find data file for sensor centrifugal-pump within expected range of (2022-05-13T12:10:00Z, \
                 2022-05-13T12:15:00Z]. Please ensure data is present for all sensors of the machine under prefix 's3://x'",
                "delay_offset_minutes",
            ),
            (
                "Could not find data file for sensor a. Please ensure data is present for all sensors of the machine.",
                "lookoutd plan",
            ),
            ("Access Denied", "role_arn"),
        ] {
            let hint = hint(reason).unwrap();
            assert!(hint.contains(part), "{hint}");
        }
        assert_eq!(hint("something new"), None);
    }
}
