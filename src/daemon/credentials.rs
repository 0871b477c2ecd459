//! Whether the credentials of the store and of the inference API are renewed in time, for a gateway and for a service alone.
//! They are the process's: it is said once, however many assets use them. It asks nobody: what the last requests met counts.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::s3::{Bucket, Keeper};
use crate::vitals::{Code, Trouble, Troubles};

/// Says which cannot be renewed, or that they can.
pub fn look(troubles: &Troubles, store: &Bucket, api: Option<&Keeper>, now: DateTime<Utc>) {
    let readings = store.readings();
    let of_store = readings.expiry.zip(readings.renewal);
    let of_api = api.and_then(Keeper::unrenewed);
    // They may be the same.
    let of_api = of_api.filter(|found| Some(found) != of_store.as_ref());
    say(troubles, "store", of_store, now);
    say(troubles, "inference API", of_api, now);
}

fn say(
    troubles: &Troubles,
    whose: &'static str,
    failing: Option<(DateTime<Utc>, String)>,
    now: DateTime<Utc>,
) {
    // Credentials that are shorter than the time between two windows are renewed with the next request.
    let Some((expiry, why)) = failing else {
        return troubles.over(Code::CredentialsExpire, whose);
    };
    let trouble = Trouble::new(
        Code::CredentialsExpire,
        now,
        format!(
            "the credentials of the {whose}, which end at {}, cannot be renewed: {why}",
            expiry.to_rfc3339_opts(SecondsFormat::Secs, true)
        ),
        "renew what the credential chain reads; new credentials are taken within a minute, without a restart",
    );
    troubles.raise(trouble.about(whose));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_cannot_be_renewed_are_a_reason_until_they_are() {
        let troubles = Troubles::default();
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        let failing = Some((at(600), "no such profile".to_owned()));
        say(&troubles, "inference API", failing, at(0));
        let known = troubles.now();
        assert_eq!(known[0].code, Code::CredentialsExpire);
        assert_eq!(known[0].subject.thing, "inference API");
        assert!(
            known[0]
                .text
                .contains("end at 1970-01-01T00:10:00Z, cannot be renewed: no such profile")
        );
        say(&troubles, "store", None, at(1));
        assert_eq!(troubles.now().len(), 1);
        say(&troubles, "inference API", None, at(1));
        assert!(troubles.now().is_empty());
    }
}
