//! What every request cannot do without, looked at when it begins: a region, an endpoint that is one.
//!
//! Guarantees: where no region is configured and the chain knows none yet, because the instance's metadata did not answer
//! at boot, it is asked again until it does, and requests made meanwhile fail with what to set. A store that refuses makes
//! the credentials be asked for again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aws_sdk_s3::config::ConfigBag;
use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextRef,
};
use aws_sdk_s3::config::{Intercept, Region, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_types::region::SigningRegion;

use super::config::endpoint_problem;
use super::credentials::{Chain, Keeper};

/// How often a chain that knows no region is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(20);

/// What is not there, and what to set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Neither configured nor known to the chain.
    #[error(
        "no region is known: set s3.region, or AWS_REGION, or the profile's region; instance metadata tells none either"
    )]
    Region,
    /// Without a scheme, or with one that is not HTTP.
    #[error(
        "\"{0}\" is not an endpoint: write it with its scheme, like http://127.0.0.1:9000 or https://store.example"
    )]
    Endpoint(String),
    /// The credentials file cannot be used.
    #[error("no credentials: {} {what}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// An interceptor of clients. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Standing {
    region: Option<Arc<Mutex<Option<Region>>>>,
    endpoint: Option<Missing>,
    keeper: Option<Keeper>,
}

impl Standing {
    /// For clients of this region; where there is none the chain is asked until it knows one. Needs a runtime then.
    pub(super) fn new(region: Option<Region>, chain: Chain) -> Self {
        let region = region.is_none().then(|| {
            let known = Arc::default();
            tokio::spawn(ask(Arc::downgrade(&known), chain));
            known
        });
        Self {
            region,
            endpoint: None,
            keeper: None,
        }
    }

    /// A refusal of the store is told to `keeper`.
    pub(super) fn told_by(mut self, keeper: Keeper) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// For clients of this endpoint.
    pub fn with_endpoint(mut self, endpoint: &str) -> Self {
        self.endpoint = endpoint_problem(endpoint).map(|_| Missing::Endpoint(endpoint.to_owned()));
        self
    }

    /// The region that the chain has told since.
    pub(super) fn region(&self) -> Option<Region> {
        self.region.as_ref().and_then(|known| lock(known).clone())
    }
}

async fn ask(known: Weak<Mutex<Option<Region>>>, chain: Chain) {
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        let Some(known) = known.upgrade() else { return };
        if let Some(region) = chain.loader().load().await.region() {
            *lock(&known) = Some(region.clone());
            return;
        }
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Standing {
    fn name(&self) -> &'static str {
        "standing"
    }

    fn read_before_execution(
        &self,
        _context: &BeforeSerializationInterceptorContextRef<'_>,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(missing) = &self.endpoint {
            return Err(missing.clone().into());
        }
        if self.region.is_some() {
            let region = self.region().ok_or(Missing::Region)?;
            let state = config.interceptor_state();
            state.store_put(SigningRegion::from(region.clone()));
            state.store_put(region);
        }
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // An ended session is a 400 at some.
        if let Some(keeper) = &self.keeper
            && matches!(context.response().status().as_u16(), 400 | 401 | 403)
        {
            keeper.refused();
        }
        Ok(())
    }
}

fn lock(known: &Mutex<Option<Region>>) -> MutexGuard<'_, Option<Region>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
