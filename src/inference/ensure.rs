//! Keeping the scheduler in the wanted state.
//!
//! [`next_step`] is pure: from what the scheduler is and what it is to be, the one call to make now. [`ensure`] describes,
//! makes that call and describes again until nothing is left to do. Every step starts from what the service says, so a
//! crash or somebody else's call between two steps changes nothing: the next round goes on from there.

use std::time::Duration;

use aws_sdk_lookoutequipment::Client;
use tracing::{info, warn};

use super::Wanted;
use super::api::{Advice, ApiError};
use super::scheduler::{Described, Target, describe};

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no such scheduler: create it.
    Create,
    /// It is on its way to another state: look again in a moment.
    Wait,
    /// It must not run: stop it.
    Stop,
    /// It is stopped and differs: update it.
    Update,
    /// It is stopped and is to run: start it.
    Start,
    /// It is what it is to be, or it is only observed.
    Nothing,
}

/// Why the scheduler is not in the wanted state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnsureError {
    /// It runs another model, which cannot be changed.
    #[error(
        "scheduler {scheduler} runs model {have}, inference.model says {want}: the model of a scheduler cannot be changed; \
         delete it (lookoutd scheduler delete {scheduler}) so that it is made anew, or correct inference.model"
    )]
    WrongModel {
        /// The scheduler.
        scheduler: String,
        /// Its model.
        have: String,
        /// The configured model.
        want: String,
    },
    /// The model it is to run does not exist.
    #[error(
        "model {model} does not exist: train or import it, or correct inference.model; the scheduler is made as soon as it \
         is there"
    )]
    NoModel {
        /// The configured model.
        model: String,
    },
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It does not leave a state that should pass, or somebody else keeps changing it.
    #[error("scheduler {scheduler} stays {status}: look at the service, or at who else changes it")]
    Stuck {
        /// The scheduler.
        scheduler: String,
        /// Its last status.
        status: String,
    },
}

/// How often a state that passes is looked at, and how long it may take.
const LOOK: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(300);
/// Calls made at most; create, stop, update, start are four.
const MOST_CALLS: usize = 12;

/// The one call to make now.
pub fn next_step(have: Option<&Described>, want: &Target) -> Result<Step, EnsureError> {
    if want.wanted == Wanted::Observe {
        return Ok(Step::Nothing);
    }
    let Some(have) = have else {
        return Ok(Step::Create);
    };
    if have.model != want.model {
        return Err(EnsureError::WrongModel {
            scheduler: want.scheduler.clone(),
            have: have.model.clone(),
            want: want.model.clone(),
        });
    }
    let differs = !have.differences(want).is_empty();
    Ok(match (have.status.as_str(), want.wanted) {
        ("RUNNING", Wanted::Running) if !differs => Step::Nothing,
        ("RUNNING", _) => Step::Stop,
        ("STOPPED", _) if differs => Step::Update,
        ("STOPPED", Wanted::Running) => Step::Start,
        ("STOPPED", _) => Step::Nothing,
        // PENDING, STOPPING, and whatever a newer service may call a state.
        _ => Step::Wait,
    })
}

/// A scheduler in its wanted state.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensured {
    /// What it is; `None` where it is only observed and absent.
    pub scheduler: Option<Described>,
    /// Calls that were needed.
    pub calls: usize,
}

/// Brings the scheduler into the wanted state.
pub async fn ensure(client: &Client, want: &Target) -> Result<Ensured, EnsureError> {
    let started = tokio::time::Instant::now();
    let mut calls = 0;
    let mut waited = LOOK;
    loop {
        let have = describe(client, &want.scheduler).await?;
        let step = next_step(have.as_ref(), want)?;
        let status = have.as_ref().map_or("absent", |have| have.status.as_str());
        let stuck = || EnsureError::Stuck {
            scheduler: want.scheduler.clone(),
            status: status.to_owned(),
        };
        if step == Step::Nothing {
            return Ok(Ensured {
                scheduler: have,
                calls,
            });
        }
        if started.elapsed() > LONGEST || calls >= MOST_CALLS {
            return Err(stuck());
        }
        if step == Step::Wait {
            tokio::time::sleep(waited).await;
            waited = (waited * 2).min(LOOK * 10);
            continue;
        }
        if step == Step::Stop || step == Step::Update {
            for difference in have.iter().flat_map(|have| have.differences(want)) {
                info!(
                    scheduler = want.scheduler,
                    field = difference.field,
                    have = difference.have,
                    want = difference.want,
                    "the scheduler differs"
                );
            }
        }
        info!(scheduler = want.scheduler, status, step = ?step, "changing the scheduler");
        calls += 1;
        waited = LOOK;
        match call(client, want, step).await {
            Ok(()) => {}
            // Somebody else was quicker, or a state has not passed yet: look again.
            Err(error) if error.is_conflict() => {
                warn!(scheduler = want.scheduler, %error, "the scheduler is busy, looking again");
                tokio::time::sleep(LOOK * 2).await;
            }
            Err(error) if step == Step::Create && error.is_not_found() => {
                return Err(EnsureError::NoModel {
                    model: want.model.clone(),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the scheduler leaves PENDING or STOPPING; `seen` hears each status. `None` where it is gone.
pub async fn wait_for(
    client: &Client,
    scheduler: &str,
    seen: &mut dyn FnMut(&str),
) -> Result<Option<Described>, EnsureError> {
    let started = tokio::time::Instant::now();
    loop {
        let Some(have) = describe(client, scheduler).await? else {
            return Ok(None);
        };
        seen(&have.status);
        if !matches!(have.status.as_str(), "PENDING" | "STOPPING") {
            return Ok(Some(have));
        }
        if started.elapsed() > LONGEST {
            return Err(EnsureError::Stuck {
                scheduler: scheduler.to_owned(),
                status: have.status,
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl EnsureError {
    /// What an operator has to do, where waiting does not help.
    pub fn advice(&self) -> Advice {
        match self {
            Self::WrongModel { .. } => {
                Advice::Hold("delete the scheduler, or correct inference.model")
            }
            Self::NoModel { .. } => {
                Advice::Hold("train or import the model, or correct inference.model")
            }
            Self::Api(error) => error.advice(),
            Self::Stuck { .. } => Advice::Retry,
        }
    }
}

async fn call(client: &Client, want: &Target, step: Step) -> Result<(), ApiError> {
    match step {
        Step::Create => want.create(client).await,
        Step::Stop => want.stop(client).await,
        Step::Update => want.update(client).await,
        Step::Start => want.start(client).await,
        Step::Wait | Step::Nothing => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scheduler::tests::{described, target};
    use super::*;

    #[test]
    fn every_state_has_one_next_step() {
        let differing = |status: &str| Described {
            frequency: "PT1H".into(),
            ..described(status)
        };
        let step =
            |have: Option<Described>, wanted| next_step(have.as_ref(), &target(wanted)).unwrap();
        for (have, running, stopped) in [
            (None, Step::Create, Step::Create),
            (Some(described("PENDING")), Step::Wait, Step::Wait),
            (Some(described("RUNNING")), Step::Nothing, Step::Stop),
            (Some(described("STOPPING")), Step::Wait, Step::Wait),
            (Some(described("STOPPED")), Step::Start, Step::Nothing),
            (Some(differing("PENDING")), Step::Wait, Step::Wait),
            (Some(differing("RUNNING")), Step::Stop, Step::Stop),
            (Some(differing("STOPPING")), Step::Wait, Step::Wait),
            (Some(differing("STOPPED")), Step::Update, Step::Update),
        ] {
            assert_eq!(step(have.clone(), Wanted::Running), running, "{have:?}");
            assert_eq!(step(have.clone(), Wanted::Stopped), stopped, "{have:?}");
            assert_eq!(step(have, Wanted::Observe), Step::Nothing);
        }
    }

    #[test]
    fn another_model_is_an_error_and_never_a_deletion() {
        let have = Described {
            model: "other".into(),
            ..described("RUNNING")
        };
        let error = next_step(Some(&have), &target(Wanted::Running)).unwrap_err();
        assert!(error.to_string().contains("runs model other"), "{error}");
        assert!(next_step(Some(&have), &target(Wanted::Observe)).is_ok());
    }
}
