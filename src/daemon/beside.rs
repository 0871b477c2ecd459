//! What runs beside feeding: the log, notifications, console and health, the look at how the scheduler stands.
//!
//! Guarantees: none of them keeps a gateway from feeding; what cannot run is a trouble that names its remedy. A new
//! configuration restarts those whose section has changed, and only those: the old one has ended before the new one begins,
//! so that an address or a queue is never held twice.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::standing::{self, Kept};
use crate::clock::Clock;
use crate::config::Config;
use crate::console;
use crate::inference::Roster;
use crate::notify::{Notifier, Pace};
use crate::ops::admin::Admin;
use crate::ops::judgement::Judgement;
use crate::ops::log;
use crate::vitals::{Code, Trouble, Troubles, supervise};

/// How long a port that was listened on may take to be free.
const FREE: Duration = Duration::from_secs(2);
/// How long notifications may take to end; what is not sent stays in the queue.
const END: Duration = Duration::from_millis(500);

/// What they need of the daemon.
pub(super) struct Surroundings {
    /// Where the queue lies.
    pub data_dir: PathBuf,
    /// What is the case.
    pub judgement: Judgement,
    /// Where is told what cannot run.
    pub troubles: Troubles,
    /// The time.
    pub clock: Clock,
    /// Ends all of them.
    pub servers: CancellationToken,
    /// Whether one window is fed and nobody looks.
    pub once: bool,
}

/// What runs.
pub(super) struct Beside {
    around: Surroundings,
    applied: Option<Config>,
    admin: CancellationToken,
    telling: Option<(CancellationToken, JoinHandle<()>)>,
    standing: CancellationToken,
}

impl Beside {
    /// Nothing yet.
    pub fn new(around: Surroundings) -> Self {
        Self {
            around,
            applied: None,
            admin: CancellationToken::new(),
            telling: None,
            standing: CancellationToken::new(),
        }
    }

    /// Brings what runs to `config`.
    pub async fn apply(&mut self, config: &Config) {
        let old = self.applied.replace(config.clone());
        let old = old.as_ref();
        if old.is_some_and(|old| old.log != config.log) {
            match log::change(&config.log) {
                Ok(()) => info!(level = config.log.level, "the log has changed"),
                // It was checked with the rest of the configuration.
                Err(error) => error!(error, "the log stays as it was"),
            }
        }
        if self.around.once {
            return;
        }
        if old.is_none_or(|old| old.notify != config.notify) {
            self.tell(config).await;
        }
        if old.is_none_or(|old| old.admin != config.admin) {
            self.serve(config, old.is_some()).await;
        }
    }

    async fn tell(&mut self, config: &Config) {
        self.finish().await;
        let around = &self.around;
        // What the targets before took or did not take is no matter any more.
        around.troubles.all_over(Code::NotificationsFailing);
        match Notifier::open(&config.notify, &around.data_dir) {
            Ok(notifier) => {
                self.telling = notifier.map(|notifier| {
                    let stop = around.servers.child_token();
                    let judgement = around.judgement.clone();
                    let task = notifier.start(judgement, Pace::default(), stop.clone());
                    (stop, task)
                });
            }
            // Feeding is worth more than telling.
            Err(error) => {
                error!(%error, "no notifications: feeding goes on without them");
                around.troubles.raise(Trouble::new(
                    Code::NotificationsFailing,
                    around.clock.now(),
                    format!("nobody is told: {error}"),
                    "correct [notify] and send SIGHUP; lookoutd notify test tries it",
                ));
            }
        }
    }

    async fn serve(&mut self, config: &Config, again: bool) {
        self.admin.cancel();
        let around = &self.around;
        self.admin = around.servers.child_token();
        // The port may be the old one's, which is being closed.
        let patience = if again { FREE } else { Duration::ZERO };
        let until = tokio::time::Instant::now() + patience;
        let started = loop {
            let judgement = around.judgement.clone();
            let pages = console::router();
            let started = Admin::start(&config.admin, judgement, pages, self.admin.clone()).await;
            if started.is_ok() || tokio::time::Instant::now() >= until {
                break started;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        match started {
            Ok(admin) => {
                around.troubles.all_over(Code::AdminUnavailable);
                if let Some(admin) = admin {
                    let (url, token) = (admin.url(), admin.is_protected());
                    info!(url, token, "console, metrics and health are up");
                }
            }
            // A port that is taken must not keep a gateway from feeding.
            Err(error) => {
                error!(
                    error = format!("{error:#}"),
                    "no console, metrics and health: feeding goes on without them"
                );
                around.troubles.raise(Trouble::new(
                    Code::AdminUnavailable,
                    around.clock.now(),
                    format!("no console, metrics and health: {error:#}"),
                    "free the address or change admin.listen, then send SIGHUP",
                ));
            }
        }
    }

    /// Looks from now on at how these schedulers stand.
    pub fn look(&mut self, kept: Vec<Kept>, roster: &Roster) {
        self.standing.cancel();
        self.standing = self.around.servers.child_token();
        if kept.is_empty() || self.around.once {
            return;
        }
        let (clock, stop) = (self.around.clock.clone(), self.standing.clone());
        let (roster, troubles) = (roster.clone(), self.around.troubles.clone());
        tokio::spawn(async move {
            let begin =
                || standing::watch(roster.clone(), kept.clone(), clock.clone(), stop.clone());
            supervise(&stop, begin, |ended| {
                said_of("look at schedulers", ended, &troubles, &clock);
            })
            .await;
        });
    }

    /// Gives notifications a moment to end.
    pub async fn finish(&mut self) {
        if let Some((stop, task)) = self.telling.take() {
            stop.cancel();
            let _ = tokio::time::timeout(END, task).await;
        }
    }
}

/// Says that a loop beside feeding has ended before it was told to, or that it has gone on for a while.
pub(super) fn said_of(name: &'static str, ended: Option<&str>, troubles: &Troubles, clock: &Clock) {
    let Some(ended) = ended else {
        return troubles.over(Code::LoopStalled, name);
    };
    error!(name, ended, "a loop has ended, it is begun again");
    let trouble = Trouble::new(
        Code::LoopStalled,
        clock.now(),
        format!("the {name} has ended, and was begun again: {ended}"),
        "the log has the cause; please report it",
    );
    troubles.raise(trouble.about(name));
}
