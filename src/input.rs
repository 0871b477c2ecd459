//! Inputs: what brings the samples of a live plant into the journal, each a protocol of its own.
//!
//! ```text
//!  a device, a broker, a file ─► one file here for each kind ─► Intake: judges, scales, counts ─► journal, durable ─► acknowledged
//! ```
//!
//! A kind has a `Config` of its own, with `Default`, `problems` and `run`, and a line in `settings`. Its `run` serves one
//! connection with a [`Link`] until it is told to stop, or says why it cannot go on; `supervise` begins it again. It acknowledges what
//! it took when [`Intake::take`] has returned, and only then.
//! Guarantees: nothing is in the journal that the intake has not judged; an input that is not configured costs nothing.
//! Deliberately absent: which windows there are; files in the bucket.

mod aside;
mod health;
mod intake;
pub mod mqtt;
mod settings;
pub mod sparkplug;
mod supervise;
mod tags;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

pub use aside::{Refused, RefusedSample, refused};
pub use health::{Figures, InputHealth, Remark, TagFigures};
pub use intake::{Intake, IntakeError, Parts, Raw, Refusal, Tag, Taken, Trust};
pub use settings::{Given, Inputs, Settings, given, paths, read};
pub use supervise::supervise;
pub use tags::{problems, tags_of};

/// What an input runs with.
#[derive(Clone)]
pub struct Link {
    /// Where samples go, and whose addresses they have.
    pub intake: Intake,
    /// Where it keeps what it must know after a restart; it is there.
    pub directory: PathBuf,
    /// The time.
    pub clock: Clock,
    /// It ends when this is cancelled.
    pub stop: CancellationToken,
}

impl Link {
    /// The input's name.
    pub fn name(&self) -> &str {
        self.intake.name()
    }
}
