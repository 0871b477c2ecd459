//! What a FailedReason means for the person who runs the gateway.
//!
//! The service's text is kept as it is; the hint stands beside it and names what to look at here. The texts are those
//! recorded of the original service (contract 3.7) and those of lookoutd's own.

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
