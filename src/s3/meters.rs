//! What the store's answers and the credential chain tell in passing: how far this machine's clock is from the store's,
//! and when the credentials in use end. Nothing is asked for its own sake.

use std::sync::{Arc, Mutex, MutexGuard};

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::ConfigBag;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use chrono::{DateTime, TimeDelta, Utc};

use super::credentials::Keeper;

/// Written by a client's requests, read by metrics and health. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Meters(Arc<Mutex<Readings>>);

/// What is known so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// This machine's clock minus the store's `Date`, accurate to a second; positive: this machine is ahead.
    pub offset: Option<TimeDelta>,
    /// When the credentials in use expire; `None` for those that do not, or before the first use.
    pub expiry: Option<DateTime<Utc>>,
    /// Why they could not be renewed, where the last attempt failed.
    pub renewal: Option<String>,
}

impl Meters {
    /// What is known so far.
    pub fn read(&self) -> Readings {
        self.lock().clone()
    }

    /// A provider that asks `keeper` and notes when its credentials end.
    pub fn watch(&self, keeper: Keeper) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(Watched {
            inner: keeper,
            meters: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Readings> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[derive(Debug)]
struct Watched {
    inner: Keeper,
    meters: Meters,
}

impl ProvideCredentials for Watched {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let renewed = self.inner.provide_credentials().await;
            let mut readings = self.meters.lock();
            match &renewed {
                Ok(credentials) => {
                    readings.expiry = credentials.expiry().map(DateTime::<Utc>::from);
                    readings.renewal = self.inner.failing();
                }
                Err(error) => readings.renewal = Some(causes(error)),
            }
            drop(readings);
            renewed
        })
    }
}

/// An error and what it says are its causes, each once.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Meters {
    fn name(&self) -> &'static str {
        "meters"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date")
            && let Some(clock) = components.time_source()
            && let Some(offset) = offset(date, clock.now().into())
        {
            self.lock().offset = Some(offset);
        }
        Ok(())
    }
}

/// `now` minus an HTTP date, which names the second that has begun.
fn offset(date: &str, now: DateTime<Utc>) -> Option<TimeDelta> {
    let date = DateTime::parse_from_rfc2822(date).ok()?;
    Some(now - date.to_utc() - TimeDelta::milliseconds(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_ahead_has_a_positive_offset() {
        let now = "2026-01-01T00:02:00.500Z".parse().unwrap();
        assert_eq!(
            offset("Thu, 01 Jan 2026 00:00:00 GMT", now),
            Some(TimeDelta::seconds(120))
        );
        assert_eq!(offset("yesterday", now), None);
    }
}
