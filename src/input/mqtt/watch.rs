//! Looks at a broker without taking anything away: a session of its own that leaves nothing behind.
//!
//! It is what `source test` and `source browse` look through; the daemon's session, and what is queued for it, stay as they are.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Config;
use super::connection::{Connection, Lost};
use super::packet::{Incoming, Publish, meaning};

/// Filters of one request.
const FILTERS: usize = 64;

/// A look at a broker.
pub struct Watch {
    connection: Connection,
    asked: Vec<(u16, Vec<String>)>,
    every: Interval,
}

/// What is seen.
#[derive(Debug)]
pub enum Seen {
    /// A message.
    Message(Publish),
    /// A filter that the broker does not grant as it was asked for, and why.
    Refused(String, String),
    /// A message above the limit: topic and size.
    Oversized(String, usize),
}

impl Watch {
    /// Connects, and subscribes these filters.
    pub async fn open(config: &Config, filters: &[String]) -> Result<Self, Lost> {
        let id = format!("lookoutd-look-{:08x}", fastrand::u32(..));
        let mut options = config.options(&id).map_err(|problem| Lost::File {
            file: "url".into(),
            problem,
        })?;
        options.clean = true;
        let mut connection = Connection::open(&options).await?;
        let mut asked = Vec::new();
        for (id, some) in (1..).zip(filters.chunks(FILTERS)) {
            let places: Vec<(u32, &str)> = some.iter().map(|it| (1, it.as_str())).collect();
            let ask = connection.version.subscribe(id, &places, false);
            connection.write(&ask).await?;
            asked.push((id, some.to_vec()));
        }
        let mut every = interval(Duration::from_secs(1));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Watch {
            connection,
            asked,
            every,
        })
    }

    /// What is seen next, one after the other.
    pub async fn next(&mut self) -> Result<Vec<Seen>, Lost> {
        loop {
            let packet = tokio::select! {
                packet = self.connection.read() => packet?,
                _ = self.every.tick() => {
                    self.connection.keep(true).await?;
                    continue;
                }
            };
            match packet {
                Incoming::Publish(message) => {
                    self.acknowledge(message.id).await?;
                    return Ok(vec![Seen::Message(message)]);
                }
                Incoming::Oversized { topic, id, size } => {
                    self.acknowledge(id).await?;
                    return Ok(vec![Seen::Oversized(topic, size)]);
                }
                Incoming::SubAck { id, codes } => {
                    let known = self.asked.iter().find(|(asked, _)| *asked == id);
                    let filters = known.map(|(_, filters)| filters.as_slice());
                    let answers = filters.unwrap_or_default().iter().zip(&codes);
                    let refused = answers.filter(|(_, code)| **code != 1);
                    return Ok(refused
                        .map(|(filter, code)| Seen::Refused(filter.clone(), why(*code)))
                        .collect());
                }
                Incoming::Disconnect { code } => return Err(Lost::Ended { code }),
                _ => {}
            }
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.connection.close().await;
    }

    async fn acknowledge(&mut self, id: Option<u16>) -> Result<(), Lost> {
        match id {
            None => Ok(()),
            Some(id) => {
                let ack = self.connection.version.puback(id);
                self.connection.write(&ack).await
            }
        }
    }
}

/// What the answer to a filter means that is not the one that was hoped for.
pub fn why(code: u8) -> String {
    match code {
        0 => "granted without acknowledgement (QoS 0): what is published while nothing is connected is lost".into(),
        code => format!("refused: {}", meaning(code)),
    }
}
