//! Signals, through signal-hook: SIGTERM and SIGINT drain, a second one exits at once, SIGHUP asks for new configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What the signals of this process ask for.
#[derive(Clone, Debug)]
pub struct Requests {
    /// Cancelled by the first SIGTERM or SIGINT.
    pub shutdown: CancellationToken,
    /// Notified by SIGHUP.
    pub reload: Arc<Notify>,
}

/// Ends this process, as any Unix tool ends, when whoever reads its output has gone: `lookoutd plan | head`. Not for
/// daemons, whose log may lose its reader while their work goes on.
pub fn end_with_the_reader() -> std::io::Result<()> {
    flag::register_conditional_default(SIGPIPE, Arc::new(AtomicBool::new(true)))?;
    Ok(())
}

/// Listens for signals on a thread of its own until the process ends.
pub fn listen() -> std::io::Result<Requests> {
    let requests = Requests {
        shutdown: CancellationToken::new(),
        reload: Arc::new(Notify::new()),
    };
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let given = requests.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if signal == SIGHUP {
                    info!("configuration reload asked for");
                    given.reload.notify_one();
                } else if given.shutdown.is_cancelled() {
                    warn!("second signal: exiting now, what is sealed stays sealed");
                    super::log::flush();
                    std::process::exit(128 + signal);
                } else {
                    info!(signal, "stopping");
                    given.shutdown.cancel();
                }
            }
        })?;
    Ok(requests)
}
