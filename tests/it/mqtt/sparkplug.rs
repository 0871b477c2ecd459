//! Sparkplug B through mosquitto: births, aliases, deaths, and what was kept back.

use lookoutd::input::mqtt::watch::{Seen, Watch};
use lookoutd::input::mqtt::{Config, Payload};
use lookoutd::input::sparkplug::wire::{self, Metric, Raw};

use super::{Mosquitto, Site, now_millis, runtime, until};

fn metric(name: &str, alias: Option<u64>, value: Raw) -> Metric {
    Metric {
        name: (!name.is_empty()).then(|| name.to_owned()),
        alias,
        value: Some(value),
        ..Metric::default()
    }
}

fn payload(seq: Option<u64>, millis: i64, metrics: Vec<Metric>) -> Vec<u8> {
    wire::write(&wire::Payload {
        timestamp: Some(millis as u64),
        metrics,
        seq,
    })
}

fn bdseq(number: u64) -> Metric {
    Metric {
        datatype: Some(wire::UINT64),
        ..metric("bdSeq", None, Raw::Bits(number))
    }
}

fn config(mosquitto: &Mosquitto) -> Config {
    Config {
        url: mosquitto.url(),
        payload: Payload::Sparkplug,
        ..Config::default()
    }
}

/// M12, M13, M14
#[test]
fn m12_m13_m14_a_nodes_life_from_data_without_a_birth_to_its_death() {
    let Some(mosquitto) = Mosquitto::start(&[]) else {
        return;
    };
    runtime().block_on(async {
        let site = Site::new(&[("amps", "G/E#Motor/Amps"), ("speed", "G/E/D#Speed")]);
        let input = site.start(&config(&mosquitto));
        input.connected().await;
        mosquitto.settle().await;
        let mut node = Watch::open(&config(&mosquitto), &["spBv1.0/G/NCMD/E".into()])
            .await
            .unwrap();
        // M12: an alias that has no name. It is counted, and the node is asked for its births.
        let now = now_millis() - 10_000;
        let unknown = metric("", Some(1), Raw::Bits(5));
        mosquitto.publish_bytes("spBv1.0/G/NDATA/E", &payload(Some(4), now, vec![unknown]));
        let command = loop {
            let seen = tokio::time::timeout(super::SOON, node.next()).await;
            let seen = seen.expect("the node is asked").unwrap();
            if let Some(Seen::Message(message)) = seen.into_iter().next() {
                break wire::read(&message.payload).unwrap();
            }
        };
        assert_eq!(
            command.metrics[0].name.as_deref(),
            Some("Node Control/Rebirth")
        );
        assert_eq!(input.figures().unreadable, 1);
        // M13: a negative Int8 by the birth's datatype, which data omit.
        let amps = Metric {
            datatype: Some(1),
            ..metric("Motor/Amps", Some(1), Raw::Bits(3))
        };
        let birth = payload(Some(0), now, vec![bdseq(7), amps]);
        mosquitto.publish_bytes("spBv1.0/G/NBIRTH/E", &birth);
        let speed = Metric {
            datatype: Some(wire::DOUBLE),
            ..metric("Speed", Some(2), Raw::Double(1500.5))
        };
        mosquitto.publish_bytes("spBv1.0/G/DBIRTH/E/D", &payload(Some(1), now, vec![speed]));
        let negative = metric("", Some(1), Raw::Bits(0xffff_ffff));
        mosquitto.publish_bytes(
            "spBv1.0/G/NDATA/E",
            &payload(Some(2), now + 1000, vec![negative]),
        );
        until("the values come", || site.values("amps") == [3.0, -1.0]).await;
        assert_eq!(site.values("speed"), [1500.5]);
        // M14: what was kept back goes the late way.
        let kept = Metric {
            is_historical: true,
            timestamp: Some((now - 5000) as u64),
            ..metric("", Some(1), Raw::Bits(9))
        };
        mosquitto.publish_bytes(
            "spBv1.0/G/NDATA/E",
            &payload(Some(3), now + 2000, vec![kept]),
        );
        until("it comes", || site.values("amps") == [9.0, 3.0, -1.0]).await;
        let flags: Vec<bool> = site
            .samples("amps")
            .iter()
            .map(|it| it.historical)
            .collect();
        assert_eq!(flags, [true, false, false]);
        // M12: the death of another birth says nothing; that of this one makes all bad.
        mosquitto.publish_bytes("spBv1.0/G/NDEATH/E", &payload(None, now, vec![bdseq(6)]));
        until("it is judged", || input.figures().unreadable == 2).await;
        assert_eq!(site.samples("speed").len(), 1);
        mosquitto.publish_bytes("spBv1.0/G/NDEATH/E", &payload(None, now, vec![bdseq(7)]));
        until("all are bad", || site.samples("speed").len() == 2).await;
        assert!(site.values("speed")[1].is_nan() && site.values("amps")[3].is_nan());
        assert_eq!(input.figures().bad, 2);
        input.end().await;
    });
}

/// M12
#[test]
fn m12_a_node_that_lives_gives_signs_of_life_while_nothing_changes() {
    let Some(mosquitto) = Mosquitto::start(&[]) else {
        return;
    };
    runtime().block_on(async {
        let site = Site::new(&[("amps", "G/E#Amps"), ("other", "G/F#Amps")]);
        let input = site.start(&config(&mosquitto));
        input.connected().await;
        mosquitto.settle().await;
        let amps = Metric {
            datatype: Some(3),
            ..metric("Amps", Some(1), Raw::Bits(3))
        };
        let birth = payload(Some(0), now_millis(), vec![bdseq(1), amps]);
        mosquitto.publish_bytes("spBv1.0/G/NBIRTH/E", &birth);
        let alive = |tag: &str| {
            let signal = site.journal.find("", tag);
            signal.is_some_and(|signal| {
                let position = site.journal.position();
                let all = site.journal.read(&[signal], i64::MIN, i64::MAX, position);
                let samples = &all.unwrap()[0].samples;
                samples
                    .iter()
                    .any(|it| it.kind == lookoutd::journal::Kind::Alive)
            })
        };
        until("a sign of life is noted", || alive("amps")).await;
        assert!(!alive("other"), "of a node that was never born");
        input.end().await;
    });
}
