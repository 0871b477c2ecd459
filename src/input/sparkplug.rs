//! Sparkplug B: which metric of which device a message speaks of, and whether its node lives.
//!
//! Guarantees: an alias means what the running birth of its own node says, and nothing without one; a value is decoded by the
//! datatype of its birth; a gap in a node's sequence, data before a birth and an alias without a name ask that node for a
//! rebirth, after a random pause and at most once in 30 seconds; a death counts only if it is the running birth's.
//! After a gap data of known aliases are still taken, because the birth that is asked for says them again anyhow.
//! Deliberately absent: being a primary host, and commands other than the rebirth.

pub mod wire;

use std::collections::HashMap;
use std::time::Duration;

use wire::{Metric, NotSparkplug, Payload, Raw};

/// A node is asked for a rebirth no more often.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// It is asked within this time, so that not every host asks at once.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// Nodes that are remembered: a stranger's topics must not take the memory.
const NODES: usize = 10_000;
/// Names of one node that are remembered.
const NAMES: usize = 100_000;
/// A message that is behind by so many or fewer was sent before.
const BEHIND: u8 = 128;

/// A node: its group and its own name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// The group.
    pub group: String,
    /// The edge node.
    pub edge: String,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node or a device begins.
    Birth,
    /// It speaks.
    Data,
    /// It is gone.
    Death,
}

/// The parts of a topic: kind, node, and the device if it is one's.
pub fn topic(topic: &str) -> Option<(Kind, NodeId, Option<&str>)> {
    let mut parts = topic.strip_prefix("spBv1.0/")?.splitn(4, '/');
    let (group, word, edge) = (parts.next()?, parts.next()?, parts.next()?);
    let device = parts.next();
    let kind = match (word, device) {
        ("NBIRTH", None) | ("DBIRTH", Some(_)) => Kind::Birth,
        ("NDATA", None) | ("DDATA", Some(_)) => Kind::Data,
        ("NDEATH", None) | ("DDEATH", Some(_)) => Kind::Death,
        _ => return None,
    };
    let node = NodeId {
        group: group.to_owned(),
        edge: edge.to_owned(),
    };
    Some((kind, node, device))
}

/// The metric that a tag list calls `GROUP/EDGE#METRIC` or `GROUP/EDGE/DEVICE#METRIC`.
pub fn address(text: &str) -> Option<(NodeId, MetricId)> {
    let (place, metric) = text.split_once('#')?;
    let place = place.strip_prefix("spBv1.0/").unwrap_or(place);
    let mut parts = place.splitn(3, '/');
    let (group, edge) = (parts.next()?, parts.next()?);
    let device = parts.next();
    let is_whole = |it: &str| !it.is_empty() && !it.contains(['+', '#']);
    let all = [Some(group), Some(edge), device, Some(metric)];
    if !all.into_iter().flatten().all(|it| !it.is_empty())
        || !is_whole(group)
        || !is_whole(edge)
        || !device.is_none_or(is_whole)
    {
        return None;
    }
    let node = NodeId {
        group: group.to_owned(),
        edge: edge.to_owned(),
    };
    let metric = MetricId {
        device: device.map(str::to_owned),
        name: metric.to_owned(),
    };
    Some((node, metric))
}

impl NodeId {
    /// The filter of all that it says.
    pub fn filter(&self) -> String {
        format!("spBv1.0/{}/+/{}/#", self.group, self.edge)
    }

    /// Where it takes commands.
    pub fn command(&self) -> String {
        format!("spBv1.0/{}/NCMD/{}", self.group, self.edge)
    }
}

/// A metric of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MetricId {
    /// Its device; none: the node's own.
    pub device: Option<String>,
    /// Its name.
    pub name: String,
}

/// A sample of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Which metric.
    pub metric: MetricId,
    /// Milliseconds since 1970, where anything says it.
    pub millis: Option<u64>,
    /// NaN: it has none.
    pub value: f64,
    /// It was kept back, and is no current value.
    pub is_historical: bool,
    /// The property `Quality`, by OPC's numbers: 192 and above is good, from 64 uncertain.
    pub quality: Option<u64>,
}

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Samples.
    pub samples: Vec<Sampled>,
    /// Metrics whose alias has no name, or for which there is no room.
    pub unnamed: usize,
    /// What died: the device, or the node with all it has.
    pub died: Option<Option<String>>,
    /// Milliseconds of the last word before a death.
    pub last_word: Option<u64>,
    /// It speaks of a life that is over: a death of another birth.
    pub is_of_another_life: bool,
    /// Messages of the node are missing before this one.
    pub is_gap: bool,
}

#[derive(Debug, Default)]
struct Node {
    is_born: bool,
    bdseq: Option<u64>,
    seq: Option<u8>,
    aliases: HashMap<u64, MetricId>,
    types: HashMap<MetricId, u32>,
    /// Devices that are born.
    devices: Vec<String>,
    last_word: Option<u64>,
    /// When it is to be asked for a rebirth, and when it was asked last.
    ask: Option<Duration>,
    asked: Option<Duration>,
}

/// What is known of every node.
#[derive(Debug, Default)]
pub struct Nodes(HashMap<NodeId, Node>);

impl Nodes {
    /// Takes a message. `again`: the broker says that it may have sent it before. `at` is a monotonic time, `pause` a share from
    /// 0 to 1 that says how long a rebirth is waited for.
    pub fn take(
        &mut self,
        (kind, node, device): (Kind, &NodeId, Option<&str>),
        payload: &[u8],
        again: bool,
        at: Duration,
        pause: f64,
    ) -> Result<Said, NotSparkplug> {
        let payload = wire::read(payload)?;
        if self.0.len() >= NODES && !self.0.contains_key(node) {
            let unnamed = payload.metrics.len();
            return Ok(Said {
                unnamed,
                ..Said::default()
            });
        }
        let state = self.0.entry(node.clone()).or_default();
        let said = match kind {
            Kind::Birth => state.born(device, payload, again),
            Kind::Data => state.data(device, payload, again),
            Kind::Death => state.died(device, &payload, again),
        };
        let is_lost = said.is_gap || said.unnamed > 0 || (kind != Kind::Death && !state.is_born);
        if is_lost && state.ask.is_none() {
            let soon = at + ASK_WITHIN.mul_f64(pause.clamp(0.0, 1.0));
            let again = state.asked.map(|asked| asked + ASK_AGAIN);
            state.ask = Some(again.map_or(soon, |again| again.max(soon)));
        }
        if kind == Kind::Birth && device.is_none() {
            state.ask = None;
        }
        Ok(said)
    }

    /// The nodes that are to be asked for a rebirth now; they count as asked.
    pub fn to_ask(&mut self, at: Duration) -> Vec<NodeId> {
        let mut due = Vec::new();
        for (id, node) in &mut self.0 {
            if node.ask.is_some_and(|ask| ask <= at) {
                node.ask = None;
                node.asked = Some(at);
                due.push(id.clone());
            }
        }
        due.sort();
        due
    }

    /// Whether a metric's node, and its device, live: born and not gone.
    pub fn is_alive(&self, node: &NodeId, metric: &MetricId) -> bool {
        let Some(node) = self.0.get(node) else {
            return false;
        };
        let device = metric.device.as_ref();
        node.is_born
            && device.is_none_or(|device| node.devices.contains(device))
            && node.types.contains_key(metric)
    }
}

impl Node {
    fn born(&mut self, device: Option<&str>, payload: Payload, again: bool) -> Said {
        let mut said = Said::default();
        match device {
            None => {
                let bdseq = payload.metrics.iter().find(|it| is_bdseq(it));
                *self = Node {
                    is_born: true,
                    bdseq: bdseq.and_then(number_of),
                    seq: payload.seq.map(|seq| seq as u8),
                    asked: self.asked,
                    last_word: self.last_word,
                    ..Node::default()
                };
            }
            Some(device) => {
                said.is_gap = self.follow(payload.seq, again);
                if self.is_born && !self.devices.iter().any(|it| it == device) {
                    self.devices.push(device.to_owned());
                }
            }
        }
        let device = device.map(str::to_owned);
        for metric in &payload.metrics {
            let Some(name) = metric.name.clone().filter(|_| self.types.len() < NAMES) else {
                continue;
            };
            let id = MetricId {
                device: device.clone(),
                name,
            };
            if let Some(alias) = metric.alias {
                self.aliases.insert(alias, id.clone());
            }
            self.types.insert(id, metric.datatype.unwrap_or(0));
        }
        self.sample(device, payload, &mut said);
        said
    }

    fn data(&mut self, device: Option<&str>, payload: Payload, again: bool) -> Said {
        let mut said = Said {
            is_gap: self.follow(payload.seq, again),
            ..Said::default()
        };
        self.sample(device.map(str::to_owned), payload, &mut said);
        said
    }

    fn died(&mut self, device: Option<&str>, payload: &Payload, again: bool) -> Said {
        let mut said = Said {
            last_word: self.last_word,
            ..Said::default()
        };
        match device {
            None => {
                let bdseq = payload.metrics.iter().find(|it| is_bdseq(it));
                let bdseq = bdseq.and_then(number_of);
                if !self.is_born || bdseq != self.bdseq {
                    said.is_of_another_life = true;
                    return said;
                }
                // What it was asked, and what is to be asked, is over with it.
                *self = Node {
                    asked: self.asked,
                    last_word: self.last_word,
                    ..Node::default()
                };
                said.died = Some(None);
            }
            Some(device) => {
                said.is_gap = self.follow(payload.seq, again);
                self.devices.retain(|it| it != device);
                said.died = Some(Some(device.to_owned()));
            }
        }
        said
    }

    /// Whether messages are missing before the one of this number.
    fn follow(&mut self, seq: Option<u64>, again: bool) -> bool {
        let Some(seq) = seq.map(|seq| seq as u8) else {
            return false;
        };
        let Some(last) = self.seq else {
            // Nothing is known of what was before; without a birth it is asked for anyhow.
            self.seq = Some(seq);
            return false;
        };
        let ahead = seq.wrapping_sub(last);
        if again && (ahead == 0 || ahead > BEHIND) {
            return false;
        }
        self.seq = Some(seq);
        ahead != 1
    }

    fn sample(&mut self, device: Option<String>, payload: Payload, said: &mut Said) {
        let sent = payload.timestamp;
        for metric in payload.metrics {
            if is_bdseq(&metric) || metric.name.as_deref().is_some_and(is_control) {
                continue;
            }
            let known = metric.alias.and_then(|alias| self.aliases.get(&alias));
            let id = match (metric.name, known) {
                (Some(name), _) if !name.is_empty() => MetricId {
                    device: device.clone(),
                    name,
                },
                (_, Some(id)) if id.device == device => id.clone(),
                _ => {
                    said.unnamed += 1;
                    continue;
                }
            };
            let born = self.types.get(&id).copied().filter(|it| *it != 0);
            let datatype = born.or(metric.datatype);
            let value = match &metric.value {
                Some(raw) if !metric.is_null => raw.value(datatype),
                _ => f64::NAN,
            };
            let millis = metric.timestamp.or(sent);
            self.last_word = self.last_word.max(millis);
            said.samples.push(Sampled {
                metric: id,
                millis,
                value,
                is_historical: metric.is_historical,
                quality: metric.quality,
            });
        }
    }
}

fn is_bdseq(metric: &Metric) -> bool {
    metric.name.as_deref() == Some("bdSeq")
}

fn is_control(name: &str) -> bool {
    name.starts_with("Node Control/") || name.starts_with("Device Control/")
}

fn number_of(metric: &Metric) -> Option<u64> {
    match metric.value {
        Some(Raw::Bits(bits)) => Some(bits),
        _ => None,
    }
}

/// The command that asks a node for its births.
pub fn rebirth(millis: u64) -> Vec<u8> {
    wire::write(&Payload {
        timestamp: Some(millis),
        metrics: vec![Metric {
            name: Some("Node Control/Rebirth".into()),
            timestamp: Some(millis),
            datatype: Some(wire::BOOLEAN),
            value: Some(Raw::Boolean(true)),
            ..Metric::default()
        }],
        seq: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Host {
        nodes: Nodes,
        at: Duration,
    }

    fn host() -> Host {
        Host {
            nodes: Nodes::default(),
            at: 100 * SECOND,
        }
    }

    impl Host {
        fn hears(&mut self, text: &str, payload: &Payload) -> Said {
            self.hears_again(text, payload, false)
        }

        fn hears_again(&mut self, text: &str, payload: &Payload, again: bool) -> Said {
            let (kind, node, device) = topic(text).unwrap();
            let bytes = wire::write(payload);
            let message = (kind, &node, device);
            self.nodes
                .take(message, &bytes, again, self.at, 0.5)
                .unwrap()
        }

        /// How many rebirths are asked for within `time`, looked at every 100 ms.
        fn asks(&mut self, time: Duration) -> usize {
            let end = self.at + time;
            let mut asked = 0;
            while self.at < end {
                self.at += SECOND / 10;
                asked += self.nodes.to_ask(self.at).len();
            }
            asked
        }
    }

    fn metric(name: &str, alias: u64, datatype: u32, bits: u64) -> Metric {
        Metric {
            name: (!name.is_empty()).then(|| name.to_owned()),
            alias: Some(alias),
            datatype: (datatype > 0).then_some(datatype),
            value: Some(Raw::Bits(bits)),
            ..Metric::default()
        }
    }

    fn bdseq(number: u64) -> Metric {
        Metric {
            name: Some("bdSeq".into()),
            datatype: Some(4),
            value: Some(Raw::Bits(number)),
            ..Metric::default()
        }
    }

    fn payload(seq: u64, metrics: Vec<Metric>) -> Payload {
        Payload {
            timestamp: Some(1000 + seq),
            metrics,
            seq: Some(seq),
        }
    }

    fn birth() -> Payload {
        payload(0, vec![bdseq(3), metric("Amps", 1, 3, 5)])
    }

    #[test]
    fn topics_and_addresses_have_their_parts() {
        let (kind, node, device) = topic("spBv1.0/G/DDATA/E/D").unwrap();
        assert_eq!((kind, device), (Kind::Data, Some("D")));
        assert_eq!(node.filter(), "spBv1.0/G/+/E/#");
        assert_eq!(node.command(), "spBv1.0/G/NCMD/E");
        for other in [
            "spBv1.0/G/NCMD/E",
            "spBv1.0/STATE/host",
            "spBv1.0/G/NDATA",
            "spBv1.0/G/NDATA/E/D",
            "spAv1.0/G/NDATA/E",
        ] {
            assert_eq!(topic(other), None, "{other}");
        }
        let (found, metric) = address("G/E/D#Motor/Amps").unwrap();
        assert_eq!(found, node);
        assert_eq!(metric.device.as_deref(), Some("D"));
        assert_eq!(metric.name, "Motor/Amps");
        assert_eq!(address("G/E#Amps").unwrap().1.device, None);
        for none in ["G/E", "G#x", "G/E#", "/E#x", "G/+#x", "G/E/#x"] {
            assert_eq!(address(none), None, "{none}");
        }
    }

    /// M12
    #[test]
    fn m12_data_without_a_birth_ask_for_one_and_what_has_no_name_is_counted() {
        let mut host = host();
        for seq in 7..20 {
            let data = payload(seq, vec![metric("", 17, 0, 1)]);
            let said = host.hears("spBv1.0/G/NDATA/E", &data);
            assert_eq!((said.samples.len(), said.unnamed), (0, 1));
        }
        // One request, after a pause; the next no sooner than 30 seconds later, however much is said.
        assert!(host.nodes.to_ask(host.at).is_empty());
        assert_eq!(host.asks(2 * SECOND), 1);
        for seq in 20..40 {
            host.hears(
                "spBv1.0/G/NDATA/E",
                &payload(seq, vec![metric("", 17, 0, 1)]),
            );
        }
        assert_eq!(host.asks(25 * SECOND), 0);
        assert_eq!(host.asks(10 * SECOND), 1);
        assert_eq!(host.hears("spBv1.0/G/NBIRTH/E", &birth()).samples.len(), 1);
        assert_eq!(host.asks(90 * SECOND), 0);
    }

    #[test]
    fn m12_a_gap_in_the_sequence_asks_once_and_a_message_that_comes_again_is_none() {
        let mut host = host();
        host.hears("spBv1.0/G/NBIRTH/E", &birth());
        let data = |seq| payload(seq, vec![metric("", 1, 0, seq)]);
        assert!(!host.hears("spBv1.0/G/NDATA/E", &data(1)).is_gap);
        assert!(!host.hears_again("spBv1.0/G/NDATA/E", &data(1), true).is_gap);
        let gap = host.hears("spBv1.0/G/NDATA/E", &data(3));
        assert!(gap.is_gap);
        assert_eq!(gap.samples[0].metric.name, "Amps");
        assert_eq!(host.asks(40 * SECOND), 1);
        // 255 is followed by 0.
        for seq in 4..256 {
            assert!(!host.hears("spBv1.0/G/NDATA/E", &data(seq)).is_gap, "{seq}");
        }
        assert!(!host.hears("spBv1.0/G/NDATA/E", &data(0)).is_gap);
    }

    #[test]
    fn m12_aliases_are_those_of_their_own_node_and_birth() {
        let mut host = host();
        host.hears("spBv1.0/G/NBIRTH/E", &birth());
        let other = payload(0, vec![bdseq(9), metric("Volts", 1, 3, 230)]);
        host.hears("spBv1.0/G/NBIRTH/F", &other);
        let device = payload(1, vec![metric("Speed", 2, 5, 100)]);
        host.hears("spBv1.0/G/DBIRTH/E/D", &device);
        let name = |said: &Said| said.samples[0].metric.clone();
        let said = host.hears(
            "spBv1.0/G/NDATA/F",
            &payload(1, vec![metric("", 1, 0, 231)]),
        );
        assert_eq!(name(&said).name, "Volts");
        let said = host.hears(
            "spBv1.0/G/DDATA/E/D",
            &payload(2, vec![metric("", 2, 0, 9)]),
        );
        assert_eq!(name(&said).device.as_deref(), Some("D"));
        // An alias of the node is none of its device.
        let said = host.hears(
            "spBv1.0/G/DDATA/E/D",
            &payload(3, vec![metric("", 1, 0, 9)]),
        );
        assert_eq!(said.unnamed, 1);
        // A new birth gives other names to the same numbers.
        let again = payload(
            0,
            vec![
                bdseq(4),
                metric("Speed", 1, 3, 5),
                metric("Amps", 2, 1, 0xff),
            ],
        );
        let said = host.hears("spBv1.0/G/NBIRTH/E", &again);
        assert_eq!(said.samples[1].value, -1.0);
        let said = host.hears(
            "spBv1.0/G/NDATA/E",
            &payload(1, vec![metric("", 2, 0, 0xfe)]),
        );
        assert_eq!(
            (name(&said).name, said.samples[0].value),
            ("Amps".to_owned(), -2.0)
        );
    }

    #[test]
    fn m12_a_death_counts_only_with_the_number_of_the_running_birth() {
        let mut host = host();
        host.hears("spBv1.0/G/NBIRTH/E", &birth());
        let node = NodeId {
            group: "G".into(),
            edge: "E".into(),
        };
        let amps = MetricId {
            device: None,
            name: "Amps".into(),
        };
        let death = |number| Payload {
            timestamp: Some(1),
            metrics: vec![bdseq(number)],
            seq: None,
        };
        let said = host.hears("spBv1.0/G/NDEATH/E", &death(2));
        assert!(said.is_of_another_life && said.died.is_none());
        assert!(host.nodes.is_alive(&node, &amps));
        let said = host.hears("spBv1.0/G/NDEATH/E", &death(3));
        assert_eq!((said.died, said.last_word), (Some(None), Some(1000)));
        assert!(!host.nodes.is_alive(&node, &amps));
        // Of what is dead nobody asks a rebirth, until it speaks.
        assert_eq!(host.asks(40 * SECOND), 0);
    }

    #[test]
    fn a_device_dies_alone() {
        let mut host = host();
        host.hears("spBv1.0/G/NBIRTH/E", &birth());
        host.hears(
            "spBv1.0/G/DBIRTH/E/D",
            &payload(1, vec![metric("Speed", 2, 5, 1)]),
        );
        let node = topic("spBv1.0/G/NDATA/E").unwrap().1;
        let (_, speed) = address("G/E/D#Speed").unwrap();
        let (_, amps) = address("G/E#Amps").unwrap();
        assert!(host.nodes.is_alive(&node, &speed));
        let said = host.hears("spBv1.0/G/DDEATH/E/D", &payload(2, vec![]));
        assert_eq!(said.died, Some(Some("D".into())));
        assert!(!host.nodes.is_alive(&node, &speed) && host.nodes.is_alive(&node, &amps));
    }

    #[test]
    fn samples_have_their_time_their_flag_and_their_quality() {
        let mut host = host();
        host.hears("spBv1.0/G/NBIRTH/E", &birth());
        let kept = Metric {
            timestamp: Some(5),
            is_historical: true,
            quality: Some(500),
            ..metric("", 1, 0, 1)
        };
        let null = Metric {
            is_null: true,
            ..metric("", 1, 0, 1)
        };
        let said = host.hears("spBv1.0/G/NDATA/E", &payload(1, vec![kept, null]));
        assert_eq!(said.samples[0].millis, Some(5));
        assert!(said.samples[0].is_historical);
        assert_eq!(said.samples[0].quality, Some(500));
        assert_eq!(said.samples[1].millis, Some(1001));
        assert!(said.samples[1].value.is_nan());
    }

    #[test]
    fn the_command_for_a_rebirth_is_a_flag_of_that_name() {
        let command = wire::read(&rebirth(7)).unwrap();
        assert_eq!(
            command.metrics[0].name.as_deref(),
            Some("Node Control/Rebirth")
        );
        assert_eq!(command.metrics[0].value, Some(Raw::Boolean(true)));
    }
}
