//! What was read of a broker and is not durable yet, and how it becomes so.
//!
//! Guarantees: it is brought until the intake takes it, however long that is; its acknowledgements are handed out then, and only then.

use bytes::Bytes;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::input::{Intake, IntakeError, Raw, Refusal};

/// Samples and messages that are held at most: above them nothing is read.
const HELD: usize = 20_000;
/// Bytes of payloads that gave no sample, likewise.
const BYTES: usize = 8 << 20;

/// What was read and is not on its way yet.
#[derive(Default)]
pub(super) struct Held {
    pub raws: Vec<Raw>,
    refused: Vec<Refused>,
    /// What is acknowledged then: packet and print.
    pub acks: Vec<(u16, u64)>,
    pub alive: Vec<usize>,
    /// Bytes of payloads in `refused`.
    bytes: usize,
}

struct Refused {
    from: String,
    why: String,
    payload: Bytes,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.raws.is_empty()
            && self.refused.is_empty()
            && self.acks.is_empty()
            && self.alive.is_empty()
    }

    pub fn refuse(&mut self, from: String, why: String, payload: Bytes) {
        self.bytes += payload.len();
        self.refused.push(Refused { from, why, payload });
    }

    pub fn is_full(&self) -> bool {
        self.bytes >= BYTES || self.raws.len() + self.refused.len() + self.acks.len() >= HELD
    }
}

/// Brings what is held until it is durable, and says what may be acknowledged then.
pub(super) async fn make_durable(intake: Intake, held: Held) -> Vec<(u16, u64)> {
    let mut is_told = false;
    let mut wait = async |error: IntakeError| {
        if !std::mem::replace(&mut is_told, true) {
            warn!(input = intake.name(), %error, "samples wait, and the broker keeps what follows");
        }
        sleep(error.retry_after()).await;
    };
    for refused in &held.refused {
        let refusal = Refusal {
            from: &refused.from,
            why: &refused.why,
            payload: &refused.payload,
        };
        while let Err(error) = intake.refuse(&refusal) {
            wait(error).await;
        }
    }
    if !held.raws.is_empty() {
        while let Err(error) = intake.take(held.raws.clone()).await {
            wait(error).await;
        }
    }
    if !held.alive.is_empty()
        && let Err(error) = intake.alive(&held.alive).await
    {
        debug!(input = intake.name(), %error, "signs of life are not noted");
    }
    held.acks
}
