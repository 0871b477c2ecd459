//! Says messages to a broker at QoS 1: what is not acknowledged when the connection is lost is said again on the next.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use tokio::time::{interval, sleep};

use super::Summary;
use crate::input::mqtt::connection::{Connection, Lost, Options};
use crate::input::mqtt::packet::Incoming;

/// Messages that may be without acknowledgement, if the broker takes as many.
const IN_FLIGHT: usize = 500;
/// How long the last ones are waited for.
const LAST: Duration = Duration::from_secs(5);

pub(super) struct Publisher {
    options: Options,
    connection: Connection,
    unacknowledged: VecDeque<(u16, String, Vec<u8>)>,
    id: u16,
    summary: Summary,
}

impl Publisher {
    /// Connects for the first time; a broker that is not there is an error then, and waited for later.
    pub async fn connect(mut options: Options) -> anyhow::Result<Self> {
        options.clean = true;
        let connection = Connection::open(&options)
            .await
            .with_context(|| format!("the broker {}", options.broker))?;
        Ok(Publisher {
            options,
            connection,
            unacknowledged: VecDeque::new(),
            id: 0,
            summary: Summary::default(),
        })
    }

    /// Says messages, and returns when the last is on its way.
    pub async fn publish(&mut self, messages: Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
        let mut messages: VecDeque<_> = messages.into();
        while !messages.is_empty() {
            let limit = self.connection.welcome.receive_maximum.unwrap_or(u16::MAX);
            let limit = IN_FLIGHT.min(usize::from(limit)).max(1);
            while self.unacknowledged.len() >= limit {
                let heard = self.connection.read().await;
                self.hear(heard).await;
            }
            let mut bytes = Vec::new();
            while self.unacknowledged.len() < limit
                && let Some((topic, payload)) = messages.pop_front()
            {
                self.id = self.id.checked_add(1).unwrap_or(1);
                let version = self.connection.version;
                bytes.extend(version.publish(&topic, &payload, Some(self.id), false));
                self.unacknowledged.push_back((self.id, topic, payload));
                self.summary.published += 1;
            }
            let written = self.connection.write(&bytes).await;
            if let Err(lost) = written {
                self.again(lost).await;
            }
            while let Some(heard) = self.connection.read().now_or_never() {
                self.hear(heard).await;
            }
        }
        Ok(())
    }

    /// Keeps the connection until something else is due.
    pub async fn serve_until(&mut self, due: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut due = std::pin::pin!(due);
        let mut every = interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                biased;
                () = &mut due => return Ok(()),
                heard = self.connection.read() => self.hear(heard).await,
                _ = every.tick() => {
                    let kept = self.connection.keep(true).await;
                    if let Err(lost) = kept {
                        self.again(lost).await;
                    }
                }
            }
        }
    }

    /// Waits for the last acknowledgements, and says goodbye.
    pub async fn finish(mut self) -> Summary {
        let end = tokio::time::Instant::now() + LAST;
        while !self.unacknowledged.is_empty() {
            match tokio::time::timeout_at(end, self.connection.read()).await {
                Ok(heard) => self.hear(heard).await,
                Err(_) => break,
            }
        }
        self.connection.close().await;
        self.summary
    }

    async fn hear(&mut self, heard: Result<Incoming, Lost>) {
        match heard {
            Ok(Incoming::PubAck { id, code }) => {
                if code >= 0x80 {
                    let why = crate::input::mqtt::packet::meaning(code);
                    complain!("warning: the broker refuses a message: {why}");
                }
                let known = self.unacknowledged.iter().position(|(it, ..)| *it == id);
                if let Some(at) = known {
                    self.unacknowledged.remove(at);
                    self.summary.acknowledged += u64::from(code < 0x80);
                }
            }
            Ok(Incoming::Disconnect { code }) => self.again(Lost::Ended { code }).await,
            Ok(_) => {}
            Err(lost) => self.again(lost).await,
        }
    }

    /// Connects anew, for as long as it takes, and says again what was not acknowledged.
    async fn again(&mut self, lost: Lost) {
        self.summary.losses += 1;
        complain!("warning: the broker is lost: {lost}; connecting again");
        loop {
            sleep(Duration::from_secs(1).mul_f64(0.2 + fastrand::f64())).await;
            let Ok(connection) = Connection::open(&self.options).await else {
                continue;
            };
            self.connection = connection;
            let version = self.connection.version;
            let all = self.unacknowledged.iter();
            let bytes: Vec<u8> = all
                .flat_map(|(id, topic, payload)| version.publish(topic, payload, Some(*id), true))
                .collect();
            if self.connection.write(&bytes).await.is_ok() {
                return;
            }
        }
    }
}
