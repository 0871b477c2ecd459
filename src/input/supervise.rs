//! The task of one input: it is begun again after a pause of random length whenever it ends, and what is wrong with it is said.
//!
//! Guarantees: no failure of one input, nor a panic in it, ends another or the process; the pause grows to a minute and begins anew after a
//! connection that held.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::{Link, Settings};
use crate::vitals::{Code, Trouble, Troubles};

/// The first pause, at most.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// A connection that lasts so long has held.
const HELD: Duration = Duration::from_secs(60);
/// How often it is looked how the input is.
const LOOK: Duration = Duration::from_secs(5);
/// How long an input may be away before that is a reason.
const AWAY: TimeDelta = TimeDelta::seconds(60);
/// How long all may be refused before that is one.
const REFUSING: TimeDelta = TimeDelta::minutes(5);

/// Runs an input until it is told to stop.
pub async fn supervise(settings: Settings, link: Link, troubles: Troubles) {
    let name = link.name().to_owned();
    let (mut pause, mut told) = (FIRST, String::new());
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    info!(
        input = name,
        kind = settings.kind(),
        tags = link.intake.tags().len(),
        "the input begins"
    );
    while !link.stop.is_cancelled() {
        let began = Instant::now();
        let (run, with) = (settings.clone(), link.clone());
        let mut task = Ends(tokio::spawn(async move { run.run(&with).await }));
        let outcome = loop {
            tokio::select! {
                outcome = &mut task.0 => break outcome,
                _ = looks.tick() => tell(&link, &troubles),
            }
        };
        if link.stop.is_cancelled() {
            break;
        }
        let why = match outcome {
            Ok(Ok(())) => "it has ended".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(error) => error.to_string(),
        };
        link.intake.parted(&why);
        if why != told {
            warn!(
                input = name,
                error = why,
                "the input is not connected: it is tried again"
            );
            told.clone_from(&why);
        }
        if began.elapsed() >= HELD {
            pause = FIRST;
        }
        let until = Instant::now() + pause.mul_f64(fastrand::f64());
        pause = LONGEST.min(pause * 2);
        loop {
            tokio::select! {
                () = link.stop.cancelled() => break,
                () = tokio::time::sleep_until(until) => break,
                _ = looks.tick() => tell(&link, &troubles),
            }
        }
    }
    for code in [
        Code::InputUnreachable,
        Code::InputRefusing,
        Code::JournalFailing,
        Code::InputIncomplete,
    ] {
        troubles.over(code, &name);
    }
}

/// A task that ends with whoever waits for it.
struct Ends(JoinHandle<anyhow::Result<()>>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Says what is wrong with an input, and what is not any more.
fn tell(link: &Link, troubles: &Troubles) {
    let (now, name) = (link.clock.now(), link.name());
    let figures = link.intake.figures();
    let raise = |trouble: Trouble| troubles.raise(trouble.about(name));
    match figures.parted_at {
        Some(since) if now - since >= AWAY => raise(Trouble::new(
            Code::InputUnreachable,
            since,
            format!(
                "input {name} is not connected{}",
                figures
                    .error
                    .as_deref()
                    .map(|error| format!(": {error}"))
                    .unwrap_or_default()
            ),
            "check the network and what it connects to; it is tried again by itself, and what the other side keeps comes then",
        )),
        _ => troubles.over(Code::InputUnreachable, name),
    }
    match figures.remarks.first() {
        Some(first) => raise(Trouble::new(
            Code::InputIncomplete,
            first.since,
            format!(
                "input {name}: {}",
                figures
                    .remarks
                    .iter()
                    .map(|remark| remark.text.as_str())
                    .collect::<Vec<_>>()
                    .join("; ")
            ),
            "compare its section and the addresses of the tag list with what the other side has, and look at its access rules",
        )),
        None => troubles.over(Code::InputIncomplete, name),
    }
    match figures.refusing_since {
        Some(since) if now - since >= REFUSING => raise(Trouble::new(
            Code::InputRefusing,
            since,
            format!(
                "all that input {name} brings is refused for its time, which is {} this machine's clock (source.future)",
                match figures.offset_seconds {
                    Some(ahead) if ahead > 0.0 => format!("{ahead:.0} s ahead of"),
                    _ => "far from".to_owned(),
                }
            ),
            "put the clock of the source right, or this machine's; what was refused lies beside the input's state in the data directory",
        )),
        _ => troubles.over(Code::InputRefusing, name),
    }
    match figures.blocked {
        Some((since, why)) => raise(Trouble::new(
            Code::JournalFailing,
            since,
            format!("nothing that input {name} brings is taken: {why}"),
            "free some space in the data directory, or look at its disk; nothing is acknowledged meanwhile, and it goes on by itself",
        )),
        None => troubles.over(Code::JournalFailing, name),
    }
}
