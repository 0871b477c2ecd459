//! The plant at boot, which may come later: a share that is not mounted yet, a history that is being written, a store that does
//! not answer.
//!
//! Guarantees: what may come is waited for, as a reason that `/readyz` names and notifications tell, and systemd takes the
//! process for started; what is wrong ends it, so that it is not restarted for ever with the same mistake.

use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

use super::beside::Beside;
use super::lookout::Lookout;
use super::plant::{Plant, may_come};
use super::{refused, reread};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Loaded};
use crate::ops::signals::Requests;
use crate::vitals::{Code, Vitals};

/// How often it is looked whether the plant is there.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the wait goes by.
pub(super) struct Boot<'a> {
    /// Reads the configuration, again on SIGHUP.
    pub load: &'a dyn Fn() -> Result<Loaded, ConfigError>,
    /// What signals ask for.
    pub requests: &'a Requests,
    /// Whether nobody waits: then what is not there is an error.
    pub once: bool,
    /// The time.
    pub clock: &'a Clock,
    /// Where it is told.
    pub vitals: &'a Vitals,
}

impl Boot<'_> {
    /// Opens the plant, as long as it takes; `None` where a stop was asked for. `waits` is called each time that it has to wait.
    pub async fn plant(
        &self,
        config: &mut Config,
        data_dir: &Path,
        beside: &mut Beside,
        lookout: &Lookout,
        mut waits: impl FnMut(&Config),
    ) -> anyhow::Result<Option<Plant>> {
        let mut told = String::new();
        loop {
            // A history that is far away, or a sample plant in the making, must not hold a stop up.
            let opened = tokio::select! {
                () = self.requests.shutdown.cancelled() => return Ok(None),
                opened = Plant::open(config, data_dir, self.clock.now()) => opened,
            };
            let text = match opened {
                Ok(plant) => {
                    self.vitals.health().cutting_works();
                    return Ok(Some(plant));
                }
                Err(error) if !self.once && may_come(&error) => format!("{error:#}"),
                Err(error) => return Err(error),
            };
            self.vitals.health().cutting_failed(&text, self.clock.now());
            if text != told {
                warn!(
                    error = text,
                    "the plant cannot be opened yet: it is waited for"
                );
                told = text;
            }
            waits(&*config);
            tokio::select! {
                () = self.requests.shutdown.cancelled() => return Ok(None),
                () = self.requests.reload.notified() => match reread(self.load, config, data_dir) {
                    Ok(new) => {
                        *config = new;
                        beside.apply(config, lookout.client()).await;
                        self.vitals.troubles().all_over(Code::ConfigurationRefused);
                        info!("the new configuration is in place");
                    }
                    Err(error) => refused(&error, self.vitals.troubles(), self.clock),
                },
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}
