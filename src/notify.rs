//! Notifications: tells people and their systems about events, failed executions and trouble, by a signed webhook and by a
//! command.
//!
//! ```text
//!  snapshot, executions ─► rules: what is the case now ─► queue: what of it is news ─► lane per target ─► webhook, command
//! ```
//!
//! Guarantees: it says what `/readyz`, the archive and the ledger say, from the same snapshot, and has no opinion of its
//! own. A thing is told once when it begins and once when it is over, also across crashes: what is news and what is queued
//! change in one transaction. Each target gets its messages in order, each until it is taken; after a crash one may come
//! twice, with the same id. Beyond `per_hour`, what comes and goes is counted instead of told, and the count goes with the
//! next message. Neither the secret nor the path of the address, which is often a secret too, is logged.
//!
//! Deliberately absent: mail, chat formats and templates. The command is for those.

mod command;
mod queue;
mod rules;
mod webhook;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::config::Span;
use crate::feed::blocking;
use crate::ops::judgement::Judgement;
use crate::ops::site::{Site, Snapshot};
use crate::vitals::{Code, Trouble, supervise};

pub use command::Command;
pub use queue::{Delivery, Queue, QueueError};
pub use rules::{EVENT, EXECUTION_FAILED, EXECUTION_MISSING, Message, test_message};
pub use webhook::Webhook;

/// How soon something that begins is told, at most.
const EVERY: Duration = Duration::from_secs(5);
/// After a start, trouble that is not seen again is not over before this: loops need a while to run into it anew.
const SETTLE: Duration = Duration::from_secs(120);
/// What a trouble with the queue is about.
const QUEUE: &str = "notify.db";
/// What a trouble with the notifier itself is about.
const NOTIFIER: &str = "notifier";
/// For so long a target may take nothing before that is a reason.
const TARGET_PATIENCE: TimeDelta = TimeDelta::seconds(45);
/// The first and the longest pause between attempts: a target that takes messages again is none within a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A message that a receiver calls malformed is set aside after so many attempts, so that it does not hold the others up.
const ATTEMPTS: u32 = 3;

/// Where notifications go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address that takes a POST of JSON; empty: none.
    pub webhook: String,
    /// File with the secret that signs it.
    pub secret_file: String,
    /// Program and arguments that are given the JSON on standard input; empty: none.
    pub command: Vec<String>,
    /// How long either may take.
    pub timeout: Span,
    /// How this gateway is called; empty: the host's name.
    pub name: String,
    /// Messages in an hour, at most.
    pub per_hour: u32,
    /// Kinds that are not told.
    pub leave_out: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            webhook: String::new(),
            secret_file: String::new(),
            command: Vec::new(),
            timeout: Span(Duration::from_secs(10)),
            name: String::new(),
            per_hour: 60,
            leave_out: Vec::new(),
        }
    }
}

/// Why notifications cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The secret is not there.
    #[error(
        "notify.secret_file{}: {what}; make one with: openssl rand -hex 24",
        place(path)
    )]
    Secret {
        /// The file, as far as one is named.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The command is not there, or not a program.
    #[error("notify.command {}: {what}", path.display())]
    Command {
        /// The program.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The address is none.
    #[error("notify.webhook: {0}")]
    Webhook(String),
    /// The queue cannot be used.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// A receiver of messages.
#[derive(Clone, Debug)]
pub enum Target {
    /// Over HTTP.
    Webhook(Webhook),
    /// A program on this machine.
    Command(Command),
}

/// What a target said to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In words.
    pub text: String,
    /// Whether it is this message that is not liked, so that sending it again is of no use.
    pub malformed: bool,
    /// How long the target asks to be left alone.
    pub wait: Option<Duration>,
}

/// How often to look and how patient to be.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks.
    pub every: Duration,
    /// After a start, before trouble that is not seen again is over.
    pub settle: Duration,
    /// The first pause after a failed attempt; it doubles.
    pub pause: Duration,
}

/// Watches what runs here and tells about it.
#[derive(Debug)]
pub struct Notifier {
    queue: Queue,
    targets: Vec<Target>,
    name: String,
    per_hour: u32,
    leave_out: Vec<String>,
}

impl Config {
    /// Whether anybody is told anything.
    pub fn is_on(&self) -> bool {
        !self.webhook.is_empty() || !self.command.is_empty()
    }

    /// What is wrong with the values: key and problem.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !self.webhook.is_empty()
            && let Err(problem) = webhook::address(&self.webhook)
        {
            problems.push(("notify.webhook", problem));
        }
        if let Some(program) = self.command.first()
            && !Path::new(program).is_absolute()
        {
            problems.push((
                "notify.command",
                format!("\"{program}\" is not an absolute path: no shell and no PATH is asked, so write it like /usr/local/bin/page"),
            ));
        }
        if self.timeout.0 < Duration::from_secs(1) || self.timeout.0 > Duration::from_secs(300) {
            problems.push(("notify.timeout", "must be from 1s to 5m".to_owned()));
        }
        if self.per_hour == 0 {
            problems.push((
                "notify.per_hour",
                "must be at least 1; to tell nobody leave webhook and command empty".to_owned(),
            ));
        }
        for kind in &self.leave_out {
            if Code::named(kind).is_none() && !rules::KINDS.contains(&kind.as_str()) {
                problems.push((
                    "notify.leave_out",
                    format!(
                        "\"{kind}\" is no kind of message: kinds are {}, {}",
                        rules::KINDS.join(", "),
                        rules::conditions().collect::<Vec<_>>().join(", ")
                    ),
                ));
            }
        }
        problems
    }

    /// The configured receivers, the secret read and the program looked at.
    pub fn targets(&self) -> Result<Vec<Target>, NotifyError> {
        let mut targets = Vec::new();
        if !self.webhook.is_empty() {
            let secret = webhook::read_secret(Path::new(&self.secret_file))?;
            let webhook = Webhook::new(&self.webhook, secret, self.timeout.0)
                .map_err(NotifyError::Webhook)?;
            targets.push(Target::Webhook(webhook));
        }
        if !self.command.is_empty() {
            targets.push(Target::Command(Command::new(
                &self.command,
                self.timeout.0,
            )?));
        }
        Ok(targets)
    }

    /// How this gateway is called.
    pub fn gateway(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let host = rustix::system::uname();
        host.nodename().to_string_lossy().into_owned()
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: EVERY,
            settle: SETTLE,
            pause: FIRST_PAUSE,
        }
    }
}

impl Target {
    /// Its name in the queue.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Command(_) => "command",
        }
    }

    /// Where it is, without what may be secret.
    pub fn place(&self) -> String {
        match self {
            Self::Webhook(webhook) => webhook.place(),
            Self::Command(command) => command.place(),
        }
    }

    /// Sends one message. What came back, in words.
    pub async fn send(&self, id: &str, body: &str) -> Result<String, Refused> {
        match self {
            Self::Webhook(webhook) => webhook.send(id, body).await,
            Self::Command(command) => command.send(body).await,
        }
    }
}

impl Notifier {
    /// Opens the queue under `data_dir`; `None` where nobody is to be told.
    pub fn open(config: &Config, data_dir: &Path) -> Result<Option<Self>, NotifyError> {
        if !config.is_on() {
            return Ok(None);
        }
        let targets = config.targets()?;
        let names: Vec<_> = targets.iter().map(Target::name).collect();
        Ok(Some(Self {
            queue: Queue::open(data_dir, &names)?,
            targets,
            name: config.gateway(),
            per_hour: config.per_hour,
            leave_out: config.leave_out.clone(),
        }))
    }

    /// Looks and tells until `shutdown`. What was not sent by then is sent after the next start.
    pub fn start(
        self,
        judgement: impl Into<Judgement>,
        pace: Pace,
        shutdown: CancellationToken,
    ) -> JoinHandle<()> {
        let judgement = judgement.into();
        let places: Vec<_> = self.targets.iter().map(Target::place).collect();
        info!(
            to = places.join(", "),
            name = self.name,
            "notifications are on"
        );
        tokio::spawn(async move {
            let (notifier, telling) = (Arc::new(self), judgement.clone());
            let begin = || notifier.clone().work(telling.clone(), pace);
            supervise(&shutdown, begin, |ended| stopped(&judgement, ended)).await;
        })
    }

    /// Looks and tells for as long as nothing goes wrong with it.
    async fn work(self: Arc<Self>, judgement: Judgement, pace: Pace) {
        let news = Arc::new(Notify::new());
        let mut lanes = JoinSet::new();
        for target in self.targets.clone() {
            let told = judgement.clone();
            lanes.spawn(lane(target, self.queue.clone(), news.clone(), pace, told));
        }
        tokio::select! {
            () = self.watch(judgement, &news, pace) => {}
            _ = lanes.join_next() => {}
        }
    }

    async fn watch(self: Arc<Self>, judgement: Judgement, news: &Notify, pace: Pace) {
        let began = Instant::now();
        let notifier = self;
        let mut failing = false;
        let mut replaced = notifier.queue.replaced().map(Path::to_owned);
        loop {
            let snapshot = judgement.snapshot().await.ok().flatten();
            if let (Some(site), Some(snapshot)) = (judgement.site(), snapshot) {
                if let Some(aside) = replaced.take() {
                    let trouble = Trouble::new(
                        Code::StateReplaced,
                        site.clock.now(),
                        format!(
                            "the queue of notifications was damaged and lies at {}: what waited in it is lost",
                            aside.display()
                        ),
                        "what stands is told anew; look at the disk, then remove the file",
                    );
                    site.vitals.troubles().raise(trouble.aside(&aside));
                }
                let (notifier, looked_at) = (notifier.clone(), site.clone());
                let settled = began.elapsed() >= pace.settle;
                let looked = blocking(move || notifier.look(&snapshot, &looked_at, settled)).await;
                let looked = looked.flatten();
                let troubles = site.vitals.troubles();
                match &looked {
                    Ok(_) => troubles.over(Code::NotificationsFailing, QUEUE),
                    Err(error) => troubles.raise(
                        Trouble::new(
                            Code::NotificationsFailing,
                            site.clock.now(),
                            format!("notifications cannot be queued: {error:#}"),
                            "check the disk of the data directory; notify.db may be moved away, what was told is told again then",
                        )
                        .about(QUEUE),
                    ),
                }
                match looked {
                    Ok(0) => failing = false,
                    Ok(queued) => {
                        failing = false;
                        debug!(queued, "there is news to tell");
                        news.notify_waiters();
                    }
                    Err(error) if failing => debug!(%error, "notifications still fail"),
                    Err(error) => {
                        failing = true;
                        error!(
                            error = format!("{error:#}"),
                            "notifications cannot be queued; feeding goes on"
                        );
                    }
                }
            }
            tokio::time::sleep(pace.every).await;
        }
    }

    /// One look: what is the case, and what of it is news. How many messages were queued.
    fn look(&self, snapshot: &Snapshot, site: &Site, settled: bool) -> anyhow::Result<usize> {
        let (now, state) = (snapshot.now, site.service());
        let since = self.queue.began(now)?.max(now - rules::LOOK_BACK);
        let told = self.queue.events()?;
        let mut facts = rules::facts(snapshot, state.as_ref(), since, &told)?;
        let in_doubt = rules::clock_in_doubt(&facts);
        facts.retain(|fact| !self.leave_out.contains(&fact.kind));
        // What cannot be read is not over, and what is read as of another time is not.
        let complete = settled && snapshot.failures.is_empty();
        let lasts = |fact: &rules::Fact| {
            let is_read = rules::KINDS.contains(&fact.kind.as_str());
            !complete || (is_read && (in_doubt || fact.since > now))
        };
        Ok(self
            .queue
            .reconcile(&facts, lasts, &self.name, self.per_hour, now)?)
    }
}

/// Sends one target's messages, in order, each until it is taken.
async fn lane(target: Target, queue: Queue, news: Arc<Notify>, pace: Pace, judgement: Judgement) {
    let mut failures: u32 = 0;
    loop {
        // Registered before the queue is looked at, so that nothing queued in between is slept over.
        let woken = news.notified();
        let (look, name) = (queue.clone(), target.name());
        let next = match blocking(move || look.next(name)).await {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                warn!(%error, "the queue of notifications cannot be read, trying again");
                None
            }
            Err(error) => {
                warn!(%error, "the queue of notifications cannot be read, trying again");
                None
            }
        };
        let Some(next) = next else {
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(pace.every) => {}
            }
            continue;
        };
        let outcome = target.send(&next.id, &next.body).await;
        let (note, name, seq) = (queue.clone(), target.name(), next.seq);
        let (noted, pause) = match outcome {
            Ok(answer) => {
                if failures > 0 {
                    info!(
                        to = target.place(),
                        failures, "notifications are taken again"
                    );
                }
                failures = 0;
                told(&judgement, &target, None);
                debug!(id = next.id, answer, "notification sent");
                (blocking(move || note.done(seq, name)).await, None)
            }
            Err(refused) => {
                if failures == 0 {
                    warn!(
                        to = target.place(),
                        error = refused.text,
                        "a notification was not taken, trying again"
                    );
                } else {
                    debug!(
                        to = target.place(),
                        error = refused.text,
                        failures,
                        "a notification was not taken"
                    );
                }
                failures = failures.saturating_add(1);
                told(&judgement, &target, Some(&refused.text));
                let give_up = refused.malformed && next.attempts + 1 >= ATTEMPTS;
                if give_up {
                    error!(
                        to = target.place(),
                        id = next.id,
                        error = refused.text,
                        "a notification is refused as malformed and set aside"
                    );
                }
                let pause = refused
                    .wait
                    .unwrap_or_else(|| backoff(pace.pause, failures));
                let text = refused.text;
                let noted = blocking(move || note.failed(seq, name, &text, give_up)).await;
                (noted, (!give_up).then_some(pause))
            }
        };
        let noted = noted.and_then(|noted| Ok(noted?));
        if let Err(error) = &noted {
            warn!(%error, "the queue of notifications cannot be written: the last one may be sent again");
        }
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            // Not in a tight loop while the disk refuses.
            None if noted.is_err() => tokio::time::sleep(pace.every).await,
            None => {}
        }
    }
}

/// Says that a target takes nothing, once that has lasted, or that it does again.
fn told(judgement: &Judgement, target: &Target, refused: Option<&str>) {
    let Some(site) = judgement.site() else {
        return;
    };
    let (troubles, place) = (site.vitals.troubles(), target.place());
    let Some(text) = refused else {
        return troubles.over(Code::NotificationsFailing, &place);
    };
    let trouble = Trouble::new(
        Code::NotificationsFailing,
        site.clock.now(),
        format!("notifications are not taken by {place}: {text}"),
        "lookoutd notify test sends one and says what comes back; what waits is in lookoutd notify list",
    );
    troubles.raise(trouble.about(place).after(TARGET_PATIENCE));
}

/// Says that nobody looks and tells any more, or that it has gone on for a while.
fn stopped(judgement: &Judgement, ended: Option<&str>) {
    let troubles = judgement
        .site()
        .map(|site| (site.vitals.troubles().clone(), site.clock.now()));
    let Some(ended) = ended else {
        if let Some((troubles, _)) = troubles {
            troubles.over(Code::NotificationsFailing, NOTIFIER);
        }
        return;
    };
    error!(
        ended,
        "notifications have stopped and are begun again; feeding goes on"
    );
    if let Some((troubles, now)) = troubles {
        let trouble = Trouble::new(
            Code::NotificationsFailing,
            now,
            format!("notifications have stopped, and were begun again: {ended}"),
            "the log has the cause; please report it",
        );
        troubles.raise(trouble.about(NOTIFIER));
    }
}

/// The pause after so many failures in a row, with jitter.
fn backoff(first: Duration, failures: u32) -> Duration {
    let pause = first
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LONGEST_PAUSE);
    pause.mul_f64(0.75 + fastrand::f64() * 0.25)
}

fn place(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        String::new()
    } else {
        format!(" {}", path.display())
    }
}
