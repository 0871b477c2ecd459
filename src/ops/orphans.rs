//! Reaping: as the first process of a container this one inherits what others leave behind, and nobody else can clear it away.
//!
//! A zombie is reaped when it is still there at a second look, so that whoever waits for a child of its own has taken it before.
//! Elsewhere there is an init, and this does nothing.

use std::collections::HashSet;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Between two looks; and where one found something.
const EVERY: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(100);

/// Reaps until `shutdown`, where this is process 1.
pub fn reap(shutdown: CancellationToken) {
    if !getpid().is_init() {
        return;
    }
    tokio::spawn(async move {
        let mut seen = HashSet::new();
        while !shutdown.is_cancelled() {
            let pause = if seen.is_empty() { EVERY } else { AGAIN };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => seen = look(&seen),
            }
        }
    });
}

/// Reaps the zombies that were there before; those that are new.
fn look(before: &HashSet<i32>) -> HashSet<i32> {
    let (old, new): (HashSet<i32>, HashSet<i32>) = zombies()
        .into_iter()
        .partition(|process| before.contains(process));
    for process in old {
        if let Some(process) = Pid::from_raw(process) {
            // Somebody may have waited for it after all.
            let reaped = waitpid(Some(process), WaitOptions::NOHANG);
            debug!(?process, ?reaped, "an orphan has ended");
        }
    }
    new
}

/// The children of this process that have ended and were not waited for.
fn zombies() -> Vec<i32> {
    let own = getpid().as_raw_nonzero().get();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|process| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
            stat.is_ok_and(|stat| is_zombie_of(&stat, own))
        })
        .collect()
}

/// Whether a line of `/proc/PID/stat` is of a zombie with this parent. The name in it may be anything.
fn is_zombie_of(stat: &str, parent: i32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = rest.split_whitespace();
    fields.next() == Some("Z") && fields.next() == Some(parent.to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_was_not_waited_for_is_reaped_at_the_second_look() {
        assert!(is_zombie_of("7 (a) b) Z 1 7 7 0", 1));
        assert!(!is_zombie_of("7 (Z 1) S 1 7 7 0", 1));
        assert!(!is_zombie_of("7 (sleep) Z 12 7 7 0", 1));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        let mut tries = 0;
        while !zombies().contains(&id) && tries < 500 {
            std::thread::sleep(Duration::from_millis(10));
            tries += 1;
        }
        let seen = look(&HashSet::new());
        assert!(seen.contains(&id) && zombies().contains(&id));
        // Only this one: other tests wait for children of their own.
        look(&HashSet::from([id]));
        assert!(!zombies().contains(&id));
        assert!(child.wait().is_err(), "somebody else has waited for it");
    }
}
