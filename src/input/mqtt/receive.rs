//! The life of an MQTT input: it connects, subscribes, takes what comes, and acknowledges what is durable.
//!
//! ```text
//!  message ─► samples ─► held ─► Intake::take, durable ─► PUBACK
//!                          └ while one batch is made durable, the next is gathered
//! ```
//!
//! Guarantees: no message is acknowledged before all it says is in the journal or set aside; what the broker sends again
//! because an acknowledgement was lost adds no sample; memory is bounded: above a number of samples it reads no more, and the
//! broker keeps the rest. It never gives up: after each loss it waits a random time, longer each time, up to half a minute.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use chrono::SecondsFormat;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, warn};

use super::connection::{Connection, Lost};
use super::decode::Decoding;
use super::held::{Held, make_durable};
use super::packet::{Incoming, Publish};
use super::standing::Standing;
use super::{Config, topic};
use crate::input::Link;

/// Pings of a new connection until the broker has sent again what it would.
const AGAIN: u64 = 6;
/// Filters of one request.
const FILTERS: usize = 64;
/// The longest pause between attempts.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest pause where another client takes the session over again and again.
const TAKEN_OVER: Duration = Duration::from_secs(300);
/// After so many take-overs it is said, and waited longer.
const TAKEOVERS: u32 = 3;
/// A connection that ends so soon was of no use.
const SOON: Duration = Duration::from_secs(5);
/// A filter that takes nothing in this time is named.
const NEVER_CAME: Duration = Duration::from_secs(3600);
/// How long it is said that the broker had forgotten the session.
const FORGOTTEN: Duration = Duration::from_secs(6 * 3600);
/// After a session goes on, messages without a time waited in its queue until nothing comes for so long,
const PAUSE: Duration = Duration::from_secs(1);
/// or at most for so long.
const DRAINED: Duration = Duration::from_secs(60);
/// At the end what is under way may take so long to become durable.
const LAST: Duration = Duration::from_secs(1);

/// What is being made durable.
type Taking = Pin<Box<dyn Future<Output = Vec<(u16, u64)>> + Send>>;

/// Runs an input until it is told to stop.
pub async fn run(config: &Config, link: &Link) -> anyhow::Result<()> {
    let mut receiver = Receiver::new(config, link)?;
    let (mut failures, mut takeovers) = (0u32, 0u32);
    loop {
        let lost = match receiver.serve().await {
            Ok(()) => return Ok(()),
            Err(lost) => lost,
        };
        let lasted = receiver.welcomed.take().map(|at| at.elapsed());
        let is_takeover = matches!(lost, Lost::Ended { code: 0x8e })
            || (matches!(lost, Lost::Closed) && lasted.is_some_and(|it| it < SOON));
        takeovers = match lasted {
            _ if is_takeover => takeovers.saturating_add(1),
            Some(lasted) if lasted < 12 * SOON => takeovers,
            _ => 0,
        };
        failures = match lasted {
            Some(lasted) if lasted > SOON => 0,
            _ => failures.saturating_add(1),
        };
        let why = match takeovers {
            0..TAKEOVERS => lost.to_string(),
            _ => format!(
                "another client uses this id, {}: {takeovers} times the broker gave the session away; give each gateway a \
                 client_id of its own",
                receiver.standing.id
            ),
        };
        let pause = pause(failures, takeovers);
        warn!(input = link.name(), error = %why, seconds = pause.as_secs_f64(), "the broker is lost, and tried again");
        link.intake.parted(&why);
        let settled = async {
            receiver.settle().await;
            sleep(pause).await;
        };
        tokio::select! {
            () = settled => {}
            () = link.stop.cancelled() => return Ok(()),
        }
    }
}

/// Full jitter, so that many gateways do not come back at once; at least a tenth, so that it is never a busy loop.
fn pause(failures: u32, takeovers: u32) -> Duration {
    let ceiling = match takeovers {
        0..TAKEOVERS => Duration::from_secs(1)
            .saturating_mul(1 << failures.min(10))
            .min(LONGEST),
        _ => Duration::from_secs(15)
            .saturating_mul(1 << (takeovers - TAKEOVERS).min(10))
            .min(TAKEN_OVER),
    };
    let least = if takeovers < TAKEOVERS { 0.1 } else { 0.5 };
    ceiling.mul_f64(least + (1.0 - least) * fastrand::f64())
}

/// What lives as long as the input, across connections.
struct Receiver<'a> {
    config: &'a Config,
    link: &'a Link,
    decoding: Decoding,
    filters: Vec<String>,
    /// Messages may come once for each filter, so each says which.
    with_ids: bool,
    standing: Standing,
    held: Held,
    taking: Option<Taking>,
    /// Messages that are in the journal, and whose acknowledgement may not have arrived: their print, and which ping proves it.
    taken: HashMap<u16, (u64, u64)>,
    welcomed: Option<Instant>,
    /// Filters that nothing came for.
    unheard: Vec<usize>,
    counted_from: Instant,
    /// When the broker was found to have forgotten the session.
    forgotten: Option<Instant>,
}

/// One connection's.
struct Session {
    connection: Connection,
    pings: u64,
    pongs: u64,
    next_id: u16,
    /// Requests that are not answered: the packet, and the filters of it.
    asked: Vec<(u16, Vec<String>)>,
    refused: Vec<String>,
    /// Messages without a time waited, until now.
    is_draining: bool,
    last_message: Instant,
}

impl<'a> Receiver<'a> {
    fn new(config: &'a Config, link: &'a Link) -> anyhow::Result<Self> {
        let tags = link.intake.tags().iter().enumerate();
        let addresses = tags.clone().map(|(at, tag)| (at, tag.address.as_str()));
        let (decoding, faults) = Decoding::new(config, addresses);
        let unusable: Vec<String> = faults
            .iter()
            .map(|(tag, fault)| {
                let tag = &link.intake.tags()[*tag];
                warn!(
                    input = link.name(),
                    tag = tag.tag,
                    address = tag.address,
                    fault,
                    "the address cannot be used"
                );
                format!("address \"{}\" of {} {fault}", tag.address, tag.tag)
            })
            .collect();
        link.intake.remark("addresses", said(&unusable));
        let wanted = match config.topics.is_empty() {
            true => decoding.filters(),
            false => config.topics.clone(),
        };
        let filters = topic::without_covered(&wanted);
        let (standing, problem) = Standing::load(&link.directory, &config.client_id);
        if let Some(problem) = problem {
            warn!(
                input = link.name(),
                problem,
                "what is known of the session cannot be read: it begins anew, without what the broker has queued"
            );
        }
        Ok(Receiver {
            with_ids: !topic::partial_overlaps(&filters).is_empty(),
            unheard: (0..filters.len()).collect(),
            config,
            link,
            decoding,
            filters,
            standing,
            held: Held::default(),
            taking: None,
            taken: HashMap::new(),
            welcomed: None,
            counted_from: Instant::now(),
            forgotten: None,
        })
    }

    /// One connection; `Ok`: it was told to stop.
    async fn serve(&mut self) -> Result<(), Lost> {
        let stop = self.link.stop.clone();
        let connection = tokio::select! {
            opened = open(self.config, &self.standing.id) => opened?,
            () = stop.cancelled() => return Ok(()),
        };
        let mut session = self.begin(connection).await?;
        let mut every = interval(Duration::from_secs(1));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.hand_on();
            let is_full = self.held.is_full();
            tokio::select! {
                acks = taking(&mut self.taking) => {
                    self.taking = None;
                    self.acknowledge(&mut session, acks).await?;
                }
                packet = session.connection.read(), if !is_full => {
                    self.take(&mut session, packet?).await?;
                }
                _ = every.tick() => self.tick(&mut session, !is_full).await?,
                () = stop.cancelled() => break,
            }
        }
        if let Ok(acks) = timeout(LAST, taking(&mut self.taking)).await {
            self.taking = None;
            self.acknowledge(&mut session, acks).await?;
        }
        session.connection.close().await;
        Ok(())
    }

    /// After the welcome: what was asked for before and is not wanted any more ends, what is wanted is asked for.
    async fn begin(&mut self, connection: Connection) -> Result<Session, Lost> {
        let has_session = connection.welcome.session_present;
        let broker = self.config.url.clone();
        let is_known = self.standing.broker == broker;
        if !has_session {
            self.taken.clear();
            if is_known {
                warn!(
                    input = self.link.name(),
                    broker,
                    "the broker has no session of ours any more: what was published while nothing was connected is lost"
                );
                let at = self
                    .link
                    .clock
                    .now()
                    .to_rfc3339_opts(SecondsFormat::Secs, true);
                self.forgotten = Some(Instant::now());
                self.link.intake.remark(
                    "session",
                    Some(format!(
                        "the broker had forgotten the session at {at}: what was published before while nothing was connected is lost"
                    )),
                );
            }
        }
        // By then the broker has sent again what it was not told.
        for (_, ping) in self.taken.values_mut() {
            *ping = AGAIN;
        }
        let kept = if is_known && has_session {
            self.standing.filters.clone()
        } else {
            Vec::new()
        };
        let gone: Vec<String> = kept
            .iter()
            .filter(|it| !self.filters.contains(it))
            .cloned()
            .collect();
        self.standing.broker = broker;
        self.standing.filters = gone.iter().chain(&self.filters).cloned().collect();
        self.note()?;
        self.link.intake.remark("filters", None);
        let mut session = Session {
            pings: 0,
            pongs: 0,
            next_id: 1,
            asked: Vec::new(),
            refused: Vec::new(),
            is_draining: has_session,
            last_message: Instant::now(),
            connection,
        };
        self.subscribe(&mut session, &gone).await?;
        self.welcomed = Some(Instant::now());
        self.link.intake.connected();
        info!(
            input = self.link.name(),
            broker = self.standing.broker,
            id = self.standing.id,
            has_session,
            filters = self.filters.len(),
            "connected to the broker"
        );
        Ok(session)
    }

    async fn subscribe(&mut self, session: &mut Session, gone: &[String]) -> Result<(), Lost> {
        let version = session.connection.version;
        let with_ids = self.with_ids && session.connection.welcome.subscription_ids;
        for some in gone.chunks(FILTERS) {
            let names: Vec<&str> = some.iter().map(String::as_str).collect();
            let id = session.id();
            session
                .connection
                .write(&version.unsubscribe(id, &names))
                .await?;
        }
        let places: Vec<(u32, &str)> = (1..).zip(self.filters.iter().map(String::as_str)).collect();
        for some in places.chunks(if with_ids { 1 } else { FILTERS }) {
            let id = session.id();
            let names = some.iter().map(|(_, filter)| (*filter).to_owned());
            session.asked.push((id, names.collect()));
            session
                .connection
                .write(&version.subscribe(id, some, with_ids))
                .await?;
        }
        Ok(())
    }

    /// Makes durable what the session is. Without it a filter could outlive its configuration.
    fn note(&self) -> Result<(), Lost> {
        self.standing
            .save(&self.link.directory)
            .map_err(|error| Lost::File {
                file: self.link.directory.display().to_string(),
                problem: error.to_string(),
            })
    }

    async fn take(&mut self, session: &mut Session, packet: Incoming) -> Result<(), Lost> {
        match packet {
            Incoming::Publish(message) => self.message(session, message).await?,
            Incoming::Oversized { topic, id, size } => {
                let limit = self.config.max_message;
                warn!(
                    input = self.link.name(),
                    topic, size, "a message is above max_message, and passed over"
                );
                let why = format!("{size} bytes are more than max_message, {limit}");
                self.held.refuse(topic, why, Bytes::new());
                self.held.acks.extend(id.map(|id| (id, 0)));
            }
            Incoming::SubAck { id, codes } => self.granted(session, id, &codes),
            Incoming::UnsubAck => {
                self.standing.filters = self.filters.clone();
                self.note()?;
            }
            Incoming::Pong => {
                session.pongs += 1;
                let proven = session.pongs;
                self.taken.retain(|_, (_, ping)| *ping > proven);
            }
            Incoming::Disconnect { code } => return Err(Lost::Ended { code }),
            Incoming::PubAck { .. } | Incoming::ConnAck(_) => {}
        }
        Ok(())
    }

    async fn message(&mut self, session: &mut Session, message: Publish) -> Result<(), Lost> {
        session.last_message = Instant::now();
        let print = print(&message);
        if let Some(id) = message.id {
            let known = self.taken.get(&id);
            if message.again && known.is_some_and(|(known, _)| *known == print) {
                debug!(
                    topic = message.topic,
                    "a message comes again, and is in the journal"
                );
                return session
                    .connection
                    .write(&session.connection.version.puback(id))
                    .await;
            }
            self.held.acks.push((id, print));
        }
        if self.is_copy(&message) {
            return Ok(());
        }
        let filters = &self.filters;
        self.unheard
            .retain(|at| !topic::takes(&filters[*at], &message.topic));
        let waited = session.is_draining || message.again;
        let now = self
            .link
            .clock
            .now()
            .timestamp_nanos_opt()
            .unwrap_or_default();
        let decoded = self.decoding.take(&message, waited, now);
        self.held.raws.extend(decoded.raws);
        for why in decoded.refused {
            let (from, payload) = (message.topic.clone(), message.payload.clone());
            self.held.refuse(from, why, payload);
        }
        Ok(())
    }

    /// A broker may send a message once for each of the filters that take it: the one for the first of them counts.
    fn is_copy(&self, message: &Publish) -> bool {
        let Some(sent_for) = message.subscriptions.iter().min() else {
            return false;
        };
        let takes = |filter: &String| topic::takes(filter, &message.topic);
        let first = self.filters.iter().position(takes);
        first.is_some_and(|first| *sent_for as usize != first + 1)
    }

    fn granted(&mut self, session: &mut Session, id: u16, codes: &[u8]) {
        let Some(at) = session.asked.iter().position(|(asked, _)| *asked == id) else {
            return;
        };
        let (_, filters) = session.asked.swap_remove(at);
        for (filter, code) in filters.iter().zip(codes) {
            let why = match *code {
                1 => continue,
                0 => "granted without acknowledgement (QoS 0): what is published while nothing is connected is lost".to_owned(),
                0x80.. => super::packet::meaning(*code).to_owned(),
                _ => continue,
            };
            warn!(
                input = self.link.name(),
                filter, code, why, "the broker does not grant a filter as it was asked for"
            );
            session
                .refused
                .push(format!("the broker does not grant {filter}: {why}"));
        }
        self.link.intake.remark("filters", said(&session.refused));
    }

    /// Begins to make durable what is held, if nothing else is under way.
    fn hand_on(&mut self) {
        if self.taking.is_some() || self.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut self.held);
        self.taking = Some(Box::pin(make_durable(self.link.intake.clone(), held)));
    }

    async fn acknowledge(
        &mut self,
        session: &mut Session,
        acks: Vec<(u16, u64)>,
    ) -> Result<(), Lost> {
        if acks.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(4 * acks.len());
        for (id, print) in acks {
            bytes.extend(session.connection.version.puback(id));
            // The pong of the next ping proves that the broker has it.
            self.taken.insert(id, (print, session.pings + 1));
        }
        session.connection.write(&bytes).await
    }

    async fn tick(&mut self, session: &mut Session, is_read: bool) -> Result<(), Lost> {
        if session.connection.keep(is_read).await? {
            session.pings += 1;
        }
        let since = self.welcomed.map_or(Duration::ZERO, |at| at.elapsed());
        if session.last_message.elapsed() >= PAUSE || since >= DRAINED {
            session.is_draining = false;
        }
        let millis = self.link.clock.now().timestamp_millis();
        let millis = u64::try_from(millis).unwrap_or_default();
        for (topic, command) in self.decoding.rebirths(millis) {
            info!(
                input = self.link.name(),
                topic, "a node is asked for its births"
            );
            let ask = session
                .connection
                .version
                .publish(&topic, &command, None, false);
            session.connection.write(&ask).await?;
        }
        // The intake notes them as often as it needs to.
        self.held.alive = self.decoding.alive();
        if self.forgotten.is_some_and(|at| at.elapsed() >= FORGOTTEN) {
            self.forgotten = None;
            self.link.intake.remark("session", None);
        }
        if self.counted_from.elapsed() >= NEVER_CAME {
            let silent: Vec<&str> = self
                .unheard
                .iter()
                .map(|at| self.filters[*at].as_str())
                .collect();
            let remark = format!("nothing came in an hour for {}", silent.join(", "));
            let remark = (!silent.is_empty()).then_some(remark);
            self.link.intake.remark("silence", remark);
            if !silent.is_empty() {
                warn!(
                    input = self.link.name(),
                    filters = silent.join(", "),
                    "nothing came for these filters in an hour: look at the topics, and at the broker's access rules"
                );
            }
            self.unheard = (0..self.filters.len()).collect();
            self.counted_from = Instant::now();
        }
        Ok(())
    }

    /// After a loss: what was read becomes durable, and the broker sends it again because it was not told.
    async fn settle(&mut self) {
        self.hand_on();
        while self.taking.is_some() {
            let acks = taking(&mut self.taking).await;
            self.taking = None;
            // No ping proves them before the next connection.
            self.taken
                .extend(acks.into_iter().map(|(id, print)| (id, (print, 0))));
            self.hand_on();
        }
    }
}

impl Session {
    fn id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        id
    }
}

/// The first of what is wrong, in one text.
fn said(all: &[String]) -> Option<String> {
    const FIRST: usize = 5;
    let more = all.len().saturating_sub(FIRST);
    let mut text = all
        .iter()
        .take(FIRST)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if more > 0 {
        text += &format!("; and {more} more");
    }
    (!all.is_empty()).then_some(text)
}

async fn open(config: &Config, id: &str) -> Result<Connection, Lost> {
    let options = config.options(id).map_err(|problem| Lost::File {
        file: "url".into(),
        problem,
    })?;
    Connection::open(&options).await
}

/// Waits for what is under way; for ever where nothing is.
async fn taking(taking: &mut Option<Taking>) -> Vec<(u16, u64)> {
    match taking {
        Some(taking) => taking.await,
        None => std::future::pending().await,
    }
}

/// By what a message is known again.
fn print(message: &Publish) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.topic.hash(&mut hasher);
    message.payload.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute_and_further_where_another_client_has_the_id() {
        let longest = |failures, takeovers| {
            let pauses = (0..500).map(|_| pause(failures, takeovers));
            pauses.max().unwrap_or_default()
        };
        assert!(longest(0, 0) <= Duration::from_secs(1));
        assert!(longest(1000, 2) <= LONGEST);
        assert!(longest(1000, 2) > LONGEST / 2);
        assert!(longest(0, 1000) <= TAKEN_OVER);
        assert!((0..500).all(|_| pause(0, 3) >= Duration::from_secs(7)));
        assert!((0..500).all(|_| pause(0, 4) >= Duration::from_secs(15)));
    }
}
