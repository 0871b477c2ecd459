//! A broker's side of the wire, said by hand: it does what a test wants, also what no broker does.

use std::time::Duration;

use lookoutd::input::mqtt::packet::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::SOON;

pub struct Wire {
    listener: TcpListener,
    version: Version,
}

pub struct Peer {
    stream: TcpStream,
    version: Version,
    /// What the client said first.
    pub hello: Vec<u8>,
}

impl Wire {
    pub async fn listen(version: Version) -> Wire {
        Wire {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            version,
        }
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.listener.local_addr().unwrap())
    }

    /// The next client, welcomed; `session`: we have one of it.
    pub async fn accept(&self, session: bool) -> Peer {
        let accepted = timeout(SOON, self.listener.accept()).await;
        let (stream, _) = accepted.expect("a client comes").unwrap();
        let mut peer = Peer {
            stream,
            version: self.version,
            hello: Vec::new(),
        };
        let (kind, hello) = peer.packet().await;
        assert_eq!(kind >> 4, 1);
        // A session that lasts is what it asks for.
        assert_eq!(hello[7] & 2, 0, "clean session");
        peer.hello = hello;
        let present = u8::from(session);
        match self.version {
            Version::V3 => peer.send(&[0x20, 2, present, 0]).await,
            Version::V5 => peer.send(&[0x20, 3, present, 0, 0]).await,
        }
        peer
    }

    pub async fn accepts_within(&self, time: Duration) -> Option<TcpStream> {
        let accepted = timeout(time, self.listener.accept()).await;
        accepted.ok().map(|it| it.unwrap().0)
    }
}

impl Peer {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// First byte and body of the next packet; pings are answered.
    async fn packet(&mut self) -> (u8, Vec<u8>) {
        loop {
            let (kind, body) = timeout(SOON, self.read()).await.expect("a packet comes");
            if kind != 0xc0 {
                return (kind, body);
            }
            self.send(&[0xd0, 0]).await;
        }
    }

    async fn read(&mut self) -> (u8, Vec<u8>) {
        let kind = self.stream.read_u8().await.unwrap();
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.stream.read_u8().await.unwrap();
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        (kind, body)
    }

    /// The filters of the next SUBSCRIBE, which is granted.
    pub async fn subscribed(&mut self) -> Vec<String> {
        self.subscribed_with(|_| 1).await
    }

    /// As [`Peer::subscribed`], answered with these codes.
    pub async fn subscribed_with(&mut self, code: impl Fn(&str) -> u8) -> Vec<String> {
        let (kind, body) = self.packet().await;
        assert_eq!(kind, 0x82, "a SUBSCRIBE");
        let filters = self.filters(&body, 1);
        let mut answer = body[..2].to_vec();
        if self.version == Version::V5 {
            answer.push(0);
        }
        answer.extend(filters.iter().map(|filter| code(filter)));
        let mut packet = vec![0x90, answer.len() as u8];
        packet.extend(answer);
        self.send(&packet).await;
        filters
    }

    pub async fn unsubscribed(&mut self) -> Vec<String> {
        let (kind, body) = self.packet().await;
        assert_eq!(kind, 0xa2, "an UNSUBSCRIBE");
        self.filters(&body, 0)
    }

    pub async fn unsuback(&mut self) {
        match self.version {
            Version::V3 => self.send(&[0xb0, 2, 0, 1]).await,
            Version::V5 => self.send(&[0xb0, 4, 0, 1, 0, 0]).await,
        }
    }

    /// The ids of the next acknowledgements.
    pub async fn acknowledged(&mut self, count: usize) -> Vec<u16> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let (kind, body) = self.packet().await;
            assert_eq!(kind, 0x40, "a PUBACK");
            ids.push(u16::from_be_bytes([body[0], body[1]]));
        }
        ids
    }

    fn filters(&self, body: &[u8], behind: usize) -> Vec<String> {
        let mut at = 2;
        if self.version == Version::V5 {
            at += 1 + usize::from(body[2]);
        }
        let mut filters = Vec::new();
        while at < body.len() {
            let length = usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
            at += 2;
            filters.push(String::from_utf8(body[at..at + length].to_vec()).unwrap());
            at += length + behind;
        }
        filters
    }
}

/// A message of version 5 that comes for these subscriptions.
pub fn publish_for(topic: &str, payload: &[u8], id: u16, subscriptions: &[u8]) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    body.extend(id.to_be_bytes());
    body.push(2 * subscriptions.len() as u8);
    for subscription in subscriptions {
        body.extend([0x0b, *subscription]);
    }
    body.extend(payload);
    let mut packet = vec![0x32, body.len() as u8];
    packet.extend(body);
    packet
}
