//! systemd: READY, STATUS, STOPPING, and a watchdog that is fed by progress. Without systemd every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::vitals::Vitals;

/// The service is up.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// The service is going down.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Configuration is being read again.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        send(&[NotifyState::Reloading, now]);
    }
}

/// Feeds systemd's watchdog while every loop makes progress; says which one does not before systemd acts.
pub async fn watchdog(vitals: Vitals, shutdown: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut silent = false;
    loop {
        let stalled = vitals.stuck();
        if stalled.is_empty() {
            silent = false;
            send(&[NotifyState::Watchdog]);
        } else if !silent {
            silent = true;
            error!(
                ?stalled,
                "a loop has stopped: the watchdog is no longer fed"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(limit.div_f64(3.0).max(Duration::from_millis(100))) => {}
        }
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "systemd was not reached");
    }
}
