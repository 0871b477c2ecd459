//! MQTT 3.1.1 and 5 on the wire: what a client sends, and what it is sent.
//!
//! Guarantees: bytes are read as they come, in any pieces, and never more than a message of the limit is held; a message above
//! it is passed over on the fly and told by topic and size, so that it can be acknowledged and does not come again for ever.
//! A topic that is no UTF-8 is read as well as it can be: what a stranger publishes must not end the connection.
//! Deliberately absent: QoS 2, wills, topic aliases and extended authentication, which nothing here asks for.

use bytes::{Buf, Bytes, BytesMut};

/// Which MQTT is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1
    V3,
    /// MQTT 5
    V5,
}

/// What a client says first.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// Who it is; sessions are kept by it.
    pub id: &'a str,
    /// Begin anew, and keep nothing afterwards.
    pub clean: bool,
    /// Seconds within which the broker hears of it.
    pub keep_alive: u16,
    /// Name and password.
    pub login: Option<(&'a str, &'a str)>,
    /// Seconds that the session outlives the connection (version 5; 3.1.1 has no bound).
    pub expiry: u32,
    /// Messages of QoS 1 that may be without acknowledgement (version 5).
    pub receive_maximum: u16,
    /// The largest packet that is taken (version 5).
    pub maximum_packet: u32,
}

/// What a broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The answer to [`Connect`].
    ConnAck(ConnAck),
    /// A message.
    Publish(Publish),
    /// A message above the limit, whose payload was passed over.
    Oversized {
        /// Its topic.
        topic: String,
        /// What acknowledges it; none for QoS 0.
        id: Option<u16>,
        /// Bytes of the packet.
        size: usize,
    },
    /// A message that we sent is with the broker; version 5 says how that went.
    PubAck {
        /// Which.
        id: u16,
        /// Below 0x80: well.
        code: u8,
    },
    /// The answer to a subscription: a code for each filter.
    SubAck {
        /// Which.
        id: u16,
        /// The QoS that is granted, or a refusal from 0x80 on.
        codes: Vec<u8>,
    },
    /// The answer to the end of a subscription.
    UnsubAck,
    /// The answer to a ping.
    Pong,
    /// The broker goes, and says why (version 5).
    Disconnect {
        /// The reason.
        code: u8,
    },
}

/// The answer to [`Connect`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnAck {
    /// The broker has the session of before.
    pub session_present: bool,
    /// 0: welcome.
    pub code: u8,
    /// Seconds within which the broker wants to hear of us, where that is not what we said.
    pub keep_alive: Option<u16>,
    /// Messages of QoS 1 that it takes without having acknowledged them.
    pub receive_maximum: Option<u16>,
    /// Whether messages come with the identifiers of their subscriptions.
    pub subscription_ids: bool,
    /// What it says of a refusal.
    pub reason: Option<String>,
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Its topic.
    pub topic: String,
    /// Its content.
    pub payload: Bytes,
    /// What acknowledges it; none for QoS 0.
    pub id: Option<u16>,
    /// It was kept by the broker, and comes because we subscribed.
    pub retained: bool,
    /// It may have been sent before.
    pub again: bool,
    /// The subscriptions for which it comes, where the broker says so.
    pub subscriptions: Vec<u32>,
}

/// Bytes that are no MQTT; the connection is of no use any more.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the broker does not speak MQTT as expected: {0}")]
pub struct NotMqtt(pub &'static str);

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;

// What properties are called.
const SESSION_EXPIRY: u8 = 0x11;
const SERVER_KEEP_ALIVE: u8 = 0x13;
const REASON: u8 = 0x1f;
const RECEIVE_MAXIMUM: u8 = 0x21;
const MAXIMUM_PACKET: u8 = 0x27;
const SUBSCRIPTION_ID: u8 = 0x0b;
const HAS_SUBSCRIPTION_IDS: u8 = 0x29;

/// A ping.
pub const PING: [u8; 2] = [0xc0, 0];
/// Goodbye; in version 5 with the reason "normal", which is not written.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

impl Version {
    /// A connection is asked for.
    pub fn connect(self, connect: &Connect<'_>) -> Vec<u8> {
        let mut body = Vec::with_capacity(64);
        put_bytes(&mut body, b"MQTT");
        body.push(match self {
            Version::V3 => 4,
            Version::V5 => 5,
        });
        let mut flags = u8::from(connect.clean) << 1;
        if connect.login.is_some() {
            flags |= 0xc0;
        }
        body.push(flags);
        body.extend(connect.keep_alive.to_be_bytes());
        if self == Version::V5 {
            let mut properties = vec![SESSION_EXPIRY];
            properties.extend(connect.expiry.to_be_bytes());
            properties.push(RECEIVE_MAXIMUM);
            properties.extend(connect.receive_maximum.max(1).to_be_bytes());
            properties.push(MAXIMUM_PACKET);
            properties.extend(connect.maximum_packet.max(1).to_be_bytes());
            put_length(&mut body, properties.len());
            body.extend(properties);
        }
        put_bytes(&mut body, connect.id.as_bytes());
        if let Some((user, password)) = connect.login {
            put_bytes(&mut body, user.as_bytes());
            put_bytes(&mut body, password.as_bytes());
        }
        packet(CONNECT << 4, &body)
    }

    /// A message; with an id it is of QoS 1.
    pub fn publish(self, topic: &str, payload: &[u8], id: Option<u16>, again: bool) -> Vec<u8> {
        let mut body = Vec::with_capacity(topic.len() + payload.len() + 5);
        put_bytes(&mut body, topic.as_bytes());
        if let Some(id) = id {
            body.extend(id.to_be_bytes());
        }
        if self == Version::V5 {
            body.push(0);
        }
        body.extend(payload);
        let flags = (u8::from(again) << 3) | (u8::from(id.is_some()) << 1);
        packet((PUBLISH << 4) | flags, &body)
    }

    /// A message is ours now. The same in both versions: without a reason it went well.
    pub fn puback(self, id: u16) -> [u8; 4] {
        let [high, low] = id.to_be_bytes();
        [0x40, 2, high, low]
    }

    /// Messages of these filters are wanted, at QoS 1. In version 5 what the broker kept comes only for a filter that is new,
    /// and each filter gets an identifier: its place, from 1 on, if `with_ids`.
    pub fn subscribe(self, id: u16, filters: &[(u32, &str)], with_ids: bool) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        if self == Version::V5 {
            let mut properties = Vec::new();
            // A packet has one identifier for all of its filters.
            if let (true, Some((place, _))) = (with_ids, filters.first()) {
                properties.push(SUBSCRIPTION_ID);
                put_length(&mut properties, *place as usize);
            }
            put_length(&mut body, properties.len());
            body.extend(properties);
        }
        for (_, filter) in filters {
            put_bytes(&mut body, filter.as_bytes());
            body.push(match self {
                Version::V3 => 1,
                Version::V5 => 1 | (1 << 4),
            });
        }
        packet(0x82, &body)
    }

    /// Messages of these filters are wanted no more.
    pub fn unsubscribe(self, id: u16, filters: &[&str]) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        if self == Version::V5 {
            body.push(0);
        }
        for filter in filters {
            put_bytes(&mut body, filter.as_bytes());
        }
        packet(0xa2, &body)
    }
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(body.len() + 5);
    whole.push(kind);
    put_length(&mut whole, body.len());
    whole.extend(body);
    whole
}

fn put_length(into: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        into.push(low | (u8::from(length > 0) << 7));
        if length == 0 {
            return;
        }
    }
}

/// A text or bytes, at most 65,535 of them: names and topics are checked before they come here.
fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    let length = bytes.len().min(usize::from(u16::MAX));
    into.extend((length as u16).to_be_bytes());
    into.extend(&bytes[..length]);
}

/// Makes packets of what a broker sends.
#[derive(Debug)]
pub struct Decoder {
    version: Version,
    limit: usize,
    /// What came and is not read yet. Whoever reads the connection appends to it.
    pub buffer: BytesMut,
    passing: Option<Passing>,
}

/// A packet that is passed over.
#[derive(Debug)]
struct Passing {
    left: usize,
    told: Incoming,
}

impl Decoder {
    /// Packets of up to `limit` bytes are read.
    pub fn new(version: Version, limit: usize) -> Self {
        Decoder {
            version,
            limit,
            buffer: BytesMut::with_capacity(16 << 10),
            passing: None,
        }
    }

    /// The next packet, if all of it is there.
    pub fn packet(&mut self) -> Result<Option<Incoming>, NotMqtt> {
        if let Some(mut passing) = self.passing.take() {
            let now = passing.left.min(self.buffer.len());
            self.buffer.advance(now);
            passing.left -= now;
            if passing.left > 0 {
                self.passing = Some(passing);
                return Ok(None);
            }
            return Ok(Some(passing.told));
        }
        let Some((kind, head, length)) = self.head()? else {
            return Ok(None);
        };
        if head + length > self.limit {
            return self.pass_over(kind, head, length);
        }
        if self.buffer.len() < head + length {
            self.buffer.reserve(head + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(head);
        let body = self.buffer.split_to(length).freeze();
        read(self.version, kind, body).map(Some)
    }

    /// First byte, length of the fixed header, length of the rest.
    fn head(&self) -> Result<Option<(u8, usize, usize)>, NotMqtt> {
        let Some(kind) = self.buffer.first() else {
            return Ok(None);
        };
        let mut length = 0;
        for at in 0..4 {
            let Some(byte) = self.buffer.get(1 + at) else {
                return Ok(None);
            };
            length |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(Some((*kind, 2 + at, length)));
            }
        }
        Err(NotMqtt("a length of more than four bytes"))
    }

    fn pass_over(
        &mut self,
        kind: u8,
        head: usize,
        length: usize,
    ) -> Result<Option<Incoming>, NotMqtt> {
        if kind >> 4 != PUBLISH {
            return Err(NotMqtt("an answer that is larger than any message may be"));
        }
        let mut ahead = &self.buffer[head.min(self.buffer.len())..];
        let with_id = kind & 0x06 != 0;
        if ahead.len() < 2 {
            return Ok(None);
        }
        let topic = usize::from(ahead.get_u16());
        if ahead.len() < topic + 2 * usize::from(with_id) {
            return Ok(None);
        }
        if 2 + topic + 2 * usize::from(with_id) > length {
            return Err(NotMqtt("a topic that is longer than its message"));
        }
        let name = String::from_utf8_lossy(&ahead[..topic]).into_owned();
        ahead.advance(topic);
        let told = Incoming::Oversized {
            topic: name,
            id: with_id.then(|| ahead.get_u16()),
            size: head + length,
        };
        self.passing = Some(Passing {
            left: head + length,
            told,
        });
        self.packet()
    }
}

fn read(version: Version, first: u8, mut body: Bytes) -> Result<Incoming, NotMqtt> {
    match first >> 4 {
        2 => {
            let present = u8_of(&mut body)? & 1 != 0;
            let code = u8_of(&mut body)?;
            let mut answer = ConnAck {
                session_present: present,
                code,
                subscription_ids: version == Version::V5,
                ..ConnAck::default()
            };
            if version == Version::V5 && !body.is_empty() {
                properties(&mut body, |property| match property {
                    Property::Number(SERVER_KEEP_ALIVE, it) => answer.keep_alive = Some(it as u16),
                    Property::Number(RECEIVE_MAXIMUM, it) => {
                        answer.receive_maximum = Some(it as u16);
                    }
                    Property::Number(HAS_SUBSCRIPTION_IDS, it) => answer.subscription_ids = it != 0,
                    Property::Text(REASON, it) => {
                        answer.reason = Some(String::from_utf8_lossy(&it).into_owned());
                    }
                    _ => {}
                })?;
            }
            Ok(Incoming::ConnAck(answer))
        }
        PUBLISH => publish(version, first, body),
        4 => {
            let id = u16_of(&mut body)?;
            let code = body.first().copied().unwrap_or(0);
            Ok(Incoming::PubAck { id, code })
        }
        9 => {
            let id = u16_of(&mut body)?;
            if version == Version::V5 {
                properties(&mut body, |_| {})?;
            }
            let codes = body.to_vec();
            Ok(Incoming::SubAck { id, codes })
        }
        11 => Ok(Incoming::UnsubAck),
        13 => Ok(Incoming::Pong),
        14 => {
            let code = body.first().copied().unwrap_or(0);
            Ok(Incoming::Disconnect { code })
        }
        _ => Err(NotMqtt("a packet that brokers do not send")),
    }
}

fn publish(version: Version, first: u8, mut body: Bytes) -> Result<Incoming, NotMqtt> {
    let topic = bytes_of(&mut body)?;
    let id = match (first >> 1) & 3 {
        0 => None,
        1 => Some(u16_of(&mut body)?),
        _ => return Err(NotMqtt("a message of a QoS that was not asked for")),
    };
    let mut subscriptions = Vec::new();
    if version == Version::V5 {
        properties(&mut body, |property| {
            if let Property::Number(SUBSCRIPTION_ID, id) = property {
                subscriptions.push(id);
            }
        })?;
    }
    Ok(Incoming::Publish(Publish {
        topic: String::from_utf8_lossy(&topic).into_owned(),
        payload: body,
        id,
        retained: first & 1 != 0,
        again: first & 8 != 0,
        subscriptions,
    }))
}

enum Property {
    Number(u8, u32),
    Text(u8, Bytes),
}

/// Reads the properties at the beginning of `body`.
fn properties(body: &mut Bytes, mut tell: impl FnMut(Property)) -> Result<(), NotMqtt> {
    let length = length_of(body)? as usize;
    if length > body.len() {
        return Err(NotMqtt("properties that are longer than their packet"));
    }
    let mut left = body.split_to(length);
    while !left.is_empty() {
        let name = left.get_u8();
        match name {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => {
                tell(Property::Number(name, u8_of(&mut left)?.into()));
            }
            0x13 | 0x21 | 0x22 | 0x23 => {
                tell(Property::Number(name, u16_of(&mut left)?.into()));
            }
            0x02 | 0x11 | 0x18 | 0x27 => {
                if left.len() < 4 {
                    return Err(SHORT);
                }
                tell(Property::Number(name, left.get_u32()));
            }
            SUBSCRIPTION_ID => tell(Property::Number(name, length_of(&mut left)?)),
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
                tell(Property::Text(name, bytes_of(&mut left)?));
            }
            0x26 => {
                bytes_of(&mut left)?;
                bytes_of(&mut left)?;
            }
            _ => return Err(NotMqtt("a property that is not known")),
        }
    }
    Ok(())
}

const SHORT: NotMqtt = NotMqtt("a packet that ends too early");

fn u8_of(from: &mut Bytes) -> Result<u8, NotMqtt> {
    from.try_get_u8().map_err(|_| SHORT)
}

fn u16_of(from: &mut Bytes) -> Result<u16, NotMqtt> {
    from.try_get_u16().map_err(|_| SHORT)
}

fn bytes_of(from: &mut Bytes) -> Result<Bytes, NotMqtt> {
    let length = usize::from(u16_of(from)?);
    if length > from.len() {
        return Err(SHORT);
    }
    Ok(from.split_to(length))
}

fn length_of(from: &mut Bytes) -> Result<u32, NotMqtt> {
    let mut length = 0;
    for at in 0..4 {
        let byte = u8_of(from)?;
        length |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(NotMqtt("a length of more than four bytes"))
}

/// What a code of a broker's refusal means, and what to do; those of 3.1.1 and of 5 do not overlap.
pub fn meaning(code: u8) -> &'static str {
    match code {
        1 | 0x84 => "it does not speak this version of MQTT: set version",
        2 | 0x85 => "it does not take this client id: set client_id",
        3 | 0x88 => "it is not available",
        4 | 0x86 => "user or password is wrong",
        5 | 0x87 => "not authorised: the broker's access rules do not allow it",
        0x81..=0x83 => "it found a fault in what was sent",
        0x89 | 0x97 => "it has too much to do",
        0x8a => "it has banned this client",
        0x8b => "it shuts down",
        0x8d => "it did not hear of us for too long",
        0x8e => "another client uses this id",
        0x8f => "it does not take this filter",
        0x90 => "it does not take this topic",
        0x93 => "too many messages were without acknowledgement",
        0x95 => "a packet was too large for it",
        0x96 | 0x9f => "it wants fewer messages in this time",
        0x98 => "somebody ended the connection at the broker",
        0x99 => "the payload is not of the format that was said",
        0x9c | 0x9d => "it says to use another server",
        0x9e => "it has no shared subscriptions",
        0xa1 => "it has no subscription identifiers",
        0xa2 => "it has no wildcards",
        _ => "it says no more than this code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(clean: bool) -> Connect<'static> {
        Connect {
            id: "gw",
            clean,
            keep_alive: 30,
            login: Some(("u", "pw")),
            expiry: 86_400,
            receive_maximum: 500,
            maximum_packet: 1 << 20,
        }
    }

    #[test]
    fn packets_are_those_of_the_standards() {
        let v3 = Version::V3.connect(&connect(false));
        assert_eq!(
            v3,
            b"\x10\x15\x00\x04MQTT\x04\xc0\x00\x1e\x00\x02gw\x00\x01u\x00\x02pw"
        );
        let v5 = Version::V5.connect(&connect(true));
        let expected = b"\x10\x23\x00\x04MQTT\x05\xc2\x00\x1e\x0d\x11\x00\x01\x51\x80\x21\x01\xf4\x27\x00\x10\x00\x00\
                         \x00\x02gw\x00\x01u\x00\x02pw";
        assert_eq!(v5, expected);
        assert_eq!(
            Version::V3.publish("a/b", b"21", Some(7), true),
            b"\x3a\x09\x00\x03a/b\x00\x0721"
        );
        assert_eq!(
            Version::V5.publish("a/b", b"21", None, false),
            b"\x30\x08\x00\x03a/b\x0021"
        );
        assert_eq!(
            Version::V3.subscribe(1, &[(1, "a/#"), (2, "b")], true),
            b"\x82\x0c\x00\x01\x00\x03a/#\x01\x00\x01b\x01"
        );
        assert_eq!(
            Version::V5.subscribe(1, &[(200, "a/#")], true),
            b"\x82\x0c\x00\x01\x03\x0b\xc8\x01\x00\x03a/#\x11"
        );
        assert_eq!(
            Version::V5.unsubscribe(2, &["a"]),
            b"\xa2\x06\x00\x02\x00\x00\x01a"
        );
        assert_eq!(Version::V3.puback(258), [0x40, 2, 1, 2]);
    }

    fn all(version: Version, limit: usize, bytes: &[u8], piece: usize) -> Vec<Incoming> {
        let mut decoder = Decoder::new(version, limit);
        let mut found = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.buffer.extend_from_slice(piece);
            while let Some(packet) = decoder.packet().unwrap() {
                found.push(packet);
            }
        }
        assert!(decoder.buffer.is_empty());
        found
    }

    #[test]
    fn what_a_broker_sends_is_read_in_any_pieces() {
        let mut bytes =
            b"\x20\x0e\x01\x00\x0b\x13\x00\x14\x21\x00\x0a\x29\x00\x1f\x00\x00".to_vec();
        bytes.extend(b"\x3b\x0b\x00\x01t\x00\x05\x03\x0b\x80\x01xy");
        bytes.extend(b"\x90\x05\x00\x01\x00\x01\x87\xd0\x00\x40\x02\x00\x09\xe0\x01\x8e");
        for piece in 1..bytes.len() {
            let found = all(Version::V5, 1 << 20, &bytes, piece);
            assert_eq!(found.len(), 6, "{found:?}");
            let answer = ConnAck {
                session_present: true,
                code: 0,
                keep_alive: Some(20),
                receive_maximum: Some(10),
                subscription_ids: false,
                reason: Some(String::new()),
            };
            assert_eq!(found[0], Incoming::ConnAck(answer));
            let message = Publish {
                topic: "t".into(),
                payload: Bytes::from_static(b"xy"),
                id: Some(5),
                retained: true,
                again: true,
                subscriptions: vec![128],
            };
            assert_eq!(found[1], Incoming::Publish(message));
            let codes = vec![1, 0x87];
            assert_eq!(found[2], Incoming::SubAck { id: 1, codes });
            assert_eq!(found[4], Incoming::PubAck { id: 9, code: 0 });
            assert_eq!(found[5], Incoming::Disconnect { code: 0x8e });
        }
    }

    #[test]
    fn a_message_above_the_limit_is_passed_over_and_the_next_one_is_read() {
        let mut bytes = Version::V3.publish("big/one", &[b'x'; 5000], Some(3), false);
        let size = bytes.len();
        bytes.extend(Version::V3.publish("small", b"1", Some(4), false));
        for piece in [1, 7, 100, 6000] {
            let found = all(Version::V3, 1024, &bytes, piece);
            let told = Incoming::Oversized {
                topic: "big/one".into(),
                id: Some(3),
                size,
            };
            assert_eq!(found[0], told);
            assert!(matches!(&found[1], Incoming::Publish(it) if it.topic == "small"));
        }
    }

    #[test]
    fn what_is_no_mqtt_is_an_error_and_never_a_panic() {
        let mut seed = 1u32;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..24)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            for version in [Version::V3, Version::V5] {
                let mut decoder = Decoder::new(version, 64);
                decoder.buffer.extend_from_slice(&bytes);
                while let Ok(Some(_)) = decoder.packet() {}
            }
        }
        let mut decoder = Decoder::new(Version::V3, 64);
        decoder
            .buffer
            .extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert!(decoder.packet().is_err() || decoder.packet().unwrap().is_none());
    }

    #[test]
    fn a_topic_that_is_no_utf8_does_not_end_the_connection() {
        let found = all(Version::V3, 64, b"\x32\x07\x00\x02\xff/\x00\x011", 9);
        assert!(matches!(&found[0], Incoming::Publish(it) if it.topic == "\u{fffd}/"));
    }
}
