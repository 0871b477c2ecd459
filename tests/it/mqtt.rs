//! The MQTT input against a real mosquitto, and against a broker made here on the wire where mosquitto cannot be made to behave so.
//!
//! The faults of M1 to M14 are those that people met with such inputs. Without `mosquitto` the tests that need it skip loudly.

mod mosquitto;
mod site;
mod sparkplug;
mod tls;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lookoutd::clock::Clock;
use lookoutd::config::{ByteSize, Span};
use lookoutd::disk::LocalDisk;
use lookoutd::input::mqtt::packet::Version;
use lookoutd::input::mqtt::{Config, Payload, Spoken};
use lookoutd::input::{Figures, Intake, Link, Parts, Settings, Tag, Trust};
use lookoutd::journal::{Journal, Kind, Options, Sample};
use lookoutd::signal::{Asset, Cadence, RowRule};
use lookoutd::source::live::{Marked, Marks};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::rig::directory;
use mosquitto::Mosquitto;
use wire::Wire;

/// How long something is waited for that must happen.
const SOON: Duration = Duration::from_secs(20);

/// What lasts across restarts of an input: its directory and the journal.
struct Site {
    directory: tempfile::TempDir,
    journal: Journal,
    tags: Vec<(String, String)>,
}

/// A running input.
struct Input {
    intake: Intake,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Site {
    /// Tags and their addresses.
    fn new(tags: &[(&str, &str)]) -> Site {
        let directory = directory();
        let journal = Journal::open(
            &directory.path().join("journal"),
            Arc::new(LocalDisk),
            Options {
                floor: 0,
                ..Options::default()
            },
        );
        Site {
            journal: journal.unwrap(),
            directory,
            tags: tags
                .iter()
                .map(|(tag, address)| ((*tag).into(), (*address).into()))
                .collect(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn start(&self, config: &Config) -> Input {
        assert_eq!(config.problems(), []);
        let clock = Clock::system();
        let tags: Vec<Tag> = self
            .tags
            .iter()
            .map(|(tag, address)| Tag {
                asset: Asset::default(),
                component: "pump".into(),
                tag: tag.clone(),
                address: address.clone(),
                ..Tag::default()
            })
            .collect();
        let marked = self.tags.iter().map(|(tag, _)| Marked {
            input: 0,
            component: 0,
            tag: tag.clone(),
        });
        let marks = Marks::new(
            vec!["plant".into()],
            marked.collect(),
            Cadence::Pt5m,
            RowRule::Service,
        );
        let intake = Intake::new(Parts {
            name: "plant".into(),
            marks: (0..tags.len()).map(|at| (marks.clone(), at)).collect(),
            tags,
            journal: self.journal.clone(),
            clock: clock.clone(),
            future: Duration::from_secs(60),
            aside: self.path().join("refused"),
            trust: Trust::new(&clock, Duration::from_secs(3600), || false),
        });
        let intake = intake.unwrap();
        let stop = CancellationToken::new();
        let link = Link {
            intake: intake.clone(),
            directory: self.path().to_owned(),
            clock,
            stop: stop.clone(),
        };
        let settings = Settings::Mqtt(config.clone());
        Input {
            intake,
            stop,
            task: tokio::spawn(async move { settings.run(&link).await }),
        }
    }

    /// The samples of a tag, in the order of their times.
    fn samples(&self, tag: &str) -> Vec<Sample> {
        let Some(signal) = self.journal.find("", tag) else {
            return Vec::new();
        };
        let position = self.journal.position();
        let all = self.journal.read(&[signal], i64::MIN, i64::MAX, position);
        let mut samples = all.unwrap().remove(0).samples;
        samples.retain(|sample| sample.kind == Kind::Value);
        samples
    }

    fn values(&self, tag: &str) -> Vec<f64> {
        self.samples(tag)
            .iter()
            .map(|sample| sample.value)
            .collect()
    }
}

impl Input {
    fn figures(&self) -> Figures {
        self.intake.figures()
    }

    async fn connected(&self) {
        until("the input is connected", || {
            self.figures().connected_since.is_some()
        })
        .await;
    }

    /// As a stop of the daemon.
    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// As a SIGKILL.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + SOON;
    while !is_so() {
        assert!(tokio::time::Instant::now() < end, "in {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An input from `url`, of JSON with a time in milliseconds.
fn json(url: &str) -> Config {
    Config {
        url: url.into(),
        payload: Payload::Json,
        time: "/time".into(),
        quality: "/quality".into(),
        ..Config::default()
    }
}

fn now_millis() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

fn document(time: i64, value: f64) -> String {
    format!(r#"{{"value":{value},"time":{time}}}"#)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// M1
#[test]
fn m1_every_filter_is_asked_for_at_every_connect_and_what_left_the_list_is_ended() {
    runtime().block_on(async {
        let site = Site::new(&[("one", "a"), ("two", "b")]);
        let wire = Wire::listen(Version::V5).await;
        let config = json(&wire.url());
        let input = site.start(&config);
        let mut peer = wire.accept(false).await;
        assert_eq!(peer.subscribed().await, ["a", "b"]);
        input.connected().await;
        input.end().await;
        let later = Site {
            tags: vec![("two".into(), "b".into()), ("three".into(), "c".into())],
            ..site
        };
        let input = later.start(&config);
        let mut peer = wire.accept(true).await;
        assert_eq!(peer.unsubscribed().await, ["a"]);
        assert_eq!(peer.subscribed().await, ["b", "c"]);
        input.connected().await;
        // The end of it is remembered, too, and what is wanted is asked for though the session has it.
        peer.unsuback().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        input.end().await;
        let input = later.start(&config);
        let mut peer = wire.accept(true).await;
        assert_eq!(peer.subscribed().await, ["b", "c"]);
        input.kill().await;
    });
}

#[test]
fn m1_a_topic_that_left_the_list_comes_no_more_and_a_new_one_does() {
    let Some(mosquitto) = Mosquitto::start(&[]) else {
        return;
    };
    runtime().block_on(async {
        let site = Site::new(&[("one", "a"), ("two", "b")]);
        let config = json(&mosquitto.url());
        let input = site.start(&config);
        input.connected().await;
        input.end().await;
        let later = Site {
            tags: vec![("one".into(), "a".into()), ("three".into(), "c".into())],
            ..site
        };
        let config = Config {
            topics: vec!["c".into()],
            ..config
        };
        let mut only = later.tags.clone();
        only.remove(0);
        let later = Site {
            tags: only,
            ..later
        };
        let input = later.start(&config);
        input.connected().await;
        mosquitto.settle().await;
        let time = now_millis();
        for topic in ["a", "b", "c"] {
            mosquitto.publish(topic, &document(time, 1.0));
        }
        until("the new topic comes", || later.samples("three").len() == 1).await;
        until("all is counted", || input.figures().taken == 1).await;
        assert_eq!(later.samples("one").len() + later.samples("two").len(), 0);
        input.end().await;
    });
}

/// M2
#[test]
fn m2_what_is_published_while_nothing_is_connected_comes_after_a_stop_and_after_a_kill() {
    let Some(mut mosquitto) = Mosquitto::start(&["persistence true"]) else {
        return;
    };
    runtime().block_on(async {
        let site = Site::new(&[("one", "a")]);
        for version in [Spoken::Five, Spoken::Three] {
            let before = site.samples("one").len();
            let config = Config {
                version,
                ..json(&mosquitto.url())
            };
            let input = site.start(&config);
            input.connected().await;
            mosquitto.settle().await;
            input.end().await;
            let time = now_millis();
            for at in 0..10 {
                mosquitto.publish("a", &document(time - at, 1.0));
            }
            let input = site.start(&config);
            until("the queue comes", || {
                site.samples("one").len() == before + 10
            })
            .await;
            input.kill().await;
            for at in 10..20 {
                mosquitto.publish("a", &document(time - at, 1.0));
            }
            // The broker keeps it on its disk.
            mosquitto.restart();
            let input = site.start(&config);
            until("the queue comes again", || {
                site.samples("one").len() == before + 20
            })
            .await;
            input.end().await;
        }
    });
}

#[test]
fn m2_a_broker_that_forgot_the_session_is_subscribed_anew() {
    let Some(mut mosquitto) = Mosquitto::start(&[]) else {
        return;
    };
    runtime().block_on(async {
        let site = Site::new(&[("one", "a")]);
        let input = site.start(&json(&mosquitto.url()));
        input.connected().await;
        let id = std::fs::read_to_string(site.path().join("session.json")).unwrap();
        // Without persistence it knows nothing when it is back.
        mosquitto.restart();
        until("the loss is seen", || input.figures().losses == 1).await;
        input.connected().await;
        let said = input.figures().remarks;
        assert!(said[0].text.contains("forgotten the session"), "{said:?}");
        mosquitto.settle().await;
        mosquitto.publish("a", &document(now_millis(), 2.0));
        until("it flows again", || site.values("one") == [2.0]).await;
        let again = std::fs::read_to_string(site.path().join("session.json")).unwrap();
        assert_eq!(id, again);
        input.end().await;
    });
}

/// M3
#[test]
fn m3_after_three_take_overs_it_is_said_and_waited_longer() {
    runtime().block_on(async {
        for version in [Version::V5, Version::V3] {
            let site = Site::new(&[("one", "a")]);
            let wire = Wire::listen(version).await;
            let config = Config {
                version: if version == Version::V5 {
                    Spoken::Five
                } else {
                    Spoken::Three
                },
                ..json(&wire.url())
            };
            let input = site.start(&config);
            for _ in 0..3 {
                let mut peer = wire.accept(true).await;
                peer.subscribed().await;
                if version == Version::V5 {
                    // Session taken over.
                    peer.send(&[0xe0, 2, 0x8e, 0]).await;
                }
            }
            let said = || input.figures().error.unwrap_or_default();
            until("it is said", || {
                said().contains("another client uses this id")
            })
            .await;
            // The next attempt is seven seconds away at least.
            assert!(wire.accepts_within(Duration::from_secs(3)).await.is_none());
            input.kill().await;
        }
    });
}

/// M4
#[test]
fn m4_a_retained_message_is_a_sample_only_with_a_time_of_its_own() {
    let Some(mosquitto) = Mosquitto::start(&[]) else {
        return;
    };
    runtime().block_on(async {
        let time = now_millis();
        mosquitto.retain("with", &document(time, 5.0));
        mosquitto.retain("without", r#"{"value":6}"#);
        let site = Site::new(&[("with", "with"), ("without", "without")]);
        for version in [Spoken::Three, Spoken::Five] {
            let config = Config {
                version,
                client_id: format!("gateway-{version:?}"),
                ..json(&mosquitto.url())
            };
            let input = site.start(&config);
            until("both are judged", || {
                let figures = input.figures();
                (figures.taken, figures.unreadable) == (1, 1)
            })
            .await;
            // What is published now is live, whatever was kept.
            mosquitto.publish("without", r#"{"value":7}"#);
            until("the live one comes", || input.figures().taken == 2).await;
            input.end().await;
        }
        assert_eq!(site.values("with"), [5.0]);
        assert_eq!(site.values("without"), [7.0, 7.0]);
    });
}

/// M5
#[test]
fn m5_what_waited_in_the_queue_without_a_time_is_none_of_the_present() {
    let Some(mosquitto) = Mosquitto::start(&[]) else {
        return;
    };
    runtime().block_on(async {
        let site = Site::new(&[("one", "a")]);
        let config = Config {
            url: mosquitto.url(),
            ..Config::default()
        };
        let input = site.start(&config);
        input.connected().await;
        mosquitto.settle().await;
        mosquitto.publish("a", "1");
        until("the first comes", || site.values("one") == [1.0]).await;
        input.end().await;
        mosquitto.publish("a", "2");
        let input = site.start(&config);
        until("the queued one comes", || site.samples("one").len() == 2).await;
        // A second without a message, and the queue is over.
        tokio::time::sleep(Duration::from_secs(3)).await;
        mosquitto.publish("a", "3");
        until("the third comes", || site.samples("one").len() == 3).await;
        let historical: Vec<bool> = site.samples("one").iter().map(|it| it.historical).collect();
        assert_eq!(historical, [false, true, false]);
        until("both are counted", || input.figures().by_arrival == 2).await;
        input.end().await;
    });
}

#[test]
fn m5_a_message_that_comes_again_because_its_acknowledgement_was_lost_adds_no_sample() {
    runtime().block_on(async {
        let site = Site::new(&[("one", "a")]);
        let wire = Wire::listen(Version::V3).await;
        let config = Config {
            url: wire.url(),
            version: Spoken::Three,
            ..Config::default()
        };
        let input = site.start(&config);
        let mut peer = wire.accept(false).await;
        peer.subscribed().await;
        let message = Version::V3.publish("a", b"21.5", Some(7), false);
        peer.send(&message).await;
        until("it is in the journal", || site.values("one") == [21.5]).await;
        // Whatever was acknowledged is lost with the connection.
        drop(peer);
        let mut peer = wire.accept(true).await;
        peer.subscribed().await;
        peer.send(&Version::V3.publish("a", b"21.5", Some(7), true))
            .await;
        peer.send(&Version::V3.publish("a", b"22.5", Some(8), true))
            .await;
        assert_eq!(peer.acknowledged(2).await, [7, 8]);
        assert_eq!(site.values("one"), [21.5, 22.5]);
        input.end().await;
    });
}

/// M6
#[test]
fn m6_rubbish_takes_no_place_for_good_and_what_follows_it_comes() {
    runtime().block_on(async {
        let site = Site::new(&[("one", "a")]);
        let wire = Wire::listen(Version::V5).await;
        let config = Config {
            receive_maximum: 10,
            ..json(&wire.url())
        };
        let input = site.start(&config);
        let mut peer = wire.accept(false).await;
        peer.subscribed().await;
        let rubbish: [&[u8]; 4] = [b"{", b"\xff\xfe\x00", b"", br#"{"other":1}"#];
        for id in 1..=20u16 {
            let payload = rubbish[usize::from(id) % 4];
            peer.send(&Version::V5.publish("a", payload, Some(id), false))
                .await;
        }
        let good = document(now_millis(), 3.0);
        peer.send(&Version::V5.publish("a", good.as_bytes(), Some(21), false))
            .await;
        let all: Vec<u16> = (1..=21).collect();
        assert_eq!(peer.acknowledged(21).await, all);
        assert_eq!(site.values("one"), [3.0]);
        until("all is counted", || input.figures().unreadable == 20).await;
        input.end().await;
    });
}

#[test]
fn m6_mosquitto_delivers_on_through_twice_its_limit_of_rubbish() {
    let Some(mosquitto) = Mosquitto::start(&["max_inflight_messages 5"]) else {
        return;
    };
    runtime().block_on(async {
        let site = Site::new(&[("one", "a")]);
        let input = site.start(&json(&mosquitto.url()));
        input.connected().await;
        mosquitto.settle().await;
        for _ in 0..10 {
            mosquitto.publish("a", "rubbish");
        }
        mosquitto.publish("a", &document(now_millis(), 3.0));
        until("the good one comes", || site.values("one") == [3.0]).await;
        until("all is counted", || input.figures().unreadable == 10).await;
        input.end().await;
    });
}

/// M7
#[test]
fn m7_a_message_above_the_limit_is_passed_over_once_and_the_rest_flows() {
    runtime().block_on(async {
        for version in [Version::V3, Version::V5] {
            let site = Site::new(&[("one", "a")]);
            let wire = Wire::listen(version).await;
            let config = Config {
                version: if version == Version::V5 {
                    Spoken::Five
                } else {
                    Spoken::Three
                },
                max_message: ByteSize(16 << 10),
                ..json(&wire.url())
            };
            let input = site.start(&config);
            let mut peer = wire.accept(false).await;
            if version == Version::V5 {
                // It is announced, so that a broker may keep what is larger to itself.
                assert!(peer.hello.windows(5).any(|it| it == [0x27, 0, 0, 0x40, 0]));
            }
            peer.subscribed().await;
            let large = vec![b'x'; 300_000];
            peer.send(&version.publish("a", &large, Some(1), false))
                .await;
            let good = document(now_millis(), 4.0);
            peer.send(&version.publish("a", good.as_bytes(), Some(2), false))
                .await;
            assert_eq!(peer.acknowledged(2).await, [1, 2]);
            assert_eq!(site.values("one"), [4.0]);
            until("it is counted", || input.figures().unreadable == 1).await;
            assert_eq!(input.figures().losses, 0);
            input.end().await;
        }
    });
}

/// M8
#[test]
fn m8_a_filter_that_is_refused_or_lowered_is_said_by_its_name() {
    runtime().block_on(async {
        let site = Site::new(&[("one", "a"), ("two", "b"), ("three", "c")]);
        let wire = Wire::listen(Version::V5).await;
        let input = site.start(&json(&wire.url()));
        let mut peer = wire.accept(false).await;
        peer.subscribed_with(|filter| match filter {
            "a" => 0x87,
            "b" => 0,
            _ => 1,
        })
        .await;
        until("it is said", || !input.figures().remarks.is_empty()).await;
        let said = &input.figures().remarks[0].text;
        assert!(said.contains("does not grant a: not authorised"), "{said}");
        assert!(
            said.contains("does not grant b: granted without acknowledgement"),
            "{said}"
        );
        assert!(!said.contains("grant c"), "{said}");
        input.kill().await;
    });
}

/// M10
#[test]
fn m10_overlapping_filters_give_the_same_samples_from_both_kinds_of_brokers() {
    runtime().block_on(async {
        let mut found = Vec::new();
        for is_twice in [true, false] {
            let site = Site::new(&[("one", "p/b/c")]);
            let wire = Wire::listen(Version::V5).await;
            let config = Config {
                topics: vec!["p/+/c".into(), "p/b/+".into()],
                ..Config::default()
            };
            let config = Config {
                url: wire.url(),
                ..config
            };
            let input = site.start(&config);
            let mut peer = wire.accept(false).await;
            peer.subscribed().await;
            peer.subscribed().await;
            for at in 0..5u16 {
                let value = format!("{at}");
                let copies: &[&[u8]] = if is_twice { &[&[1], &[2]] } else { &[&[1, 2]] };
                for (copy, ids) in copies.iter().enumerate() {
                    let id = 10 * at + copy as u16 + 1;
                    peer.send(&wire::publish_for("p/b/c", value.as_bytes(), id, ids))
                        .await;
                }
            }
            let count = if is_twice { 10 } else { 5 };
            peer.acknowledged(count).await;
            found.push((site.values("one"), input.figures().taken));
            input.end().await;
        }
        assert_eq!(found[0], (vec![0.0, 1.0, 2.0, 3.0, 4.0], 5));
        assert_eq!(found[0], found[1]);
    });
}

/// M11
#[test]
fn m11_one_failed_sensor_costs_no_other_of_its_message() {
    let Some(mosquitto) = Mosquitto::start(&[]) else {
        return;
    };
    runtime().block_on(async {
        let site = Site::new(&[
            ("amps", "p#/amps"),
            ("volts", "p#/volts"),
            ("state", "p#/state"),
        ]);
        let input = site.start(&json(&mosquitto.url()));
        input.connected().await;
        mosquitto.settle().await;
        let text = format!(
            r#"{{"time":{},"amps":NaN,"volts":230.5,"state":null}}"#,
            now_millis()
        );
        mosquitto.publish("p", &text);
        until("all come", || input.figures().taken == 3).await;
        assert_eq!(site.values("volts"), [230.5]);
        assert!(site.values("amps")[0].is_nan() && site.values("state")[0].is_nan());
        until("all is counted", || input.figures().missing == 2).await;
        input.end().await;
    });
}

/// J1
#[test]
fn j1_a_connection_that_is_dead_without_a_word_is_noticed_and_made_anew() {
    runtime().block_on(async {
        let site = Site::new(&[("one", "a")]);
        let wire = Wire::listen(Version::V5).await;
        let config = Config {
            keep_alive: Span(Duration::from_secs(2)),
            ..json(&wire.url())
        };
        let input = site.start(&config);
        let mut peer = wire.accept(false).await;
        peer.subscribed().await;
        input.connected().await;
        // The peer stays, and says nothing any more.
        until("it is said", || {
            input
                .figures()
                .error
                .is_some_and(|it| it.contains("nothing was heard"))
        })
        .await;
        let mut again = wire.accept(true).await;
        again.subscribed().await;
        input.connected().await;
        drop(peer);
        input.kill().await;
    });
}

#[test]
fn a_password_is_read_from_its_file_at_every_connect() {
    let Some(mosquitto) = Mosquitto::with_password("gateway", "first") else {
        return;
    };
    runtime().block_on(async {
        let site = Site::new(&[("one", "a")]);
        let (user, password) = (site.path().join("user"), site.path().join("password"));
        std::fs::write(&user, "gateway\n").unwrap();
        std::fs::write(&password, "wrong\n").unwrap();
        let config = Config {
            user_file: user.display().to_string(),
            password_file: password.display().to_string(),
            ..json(&mosquitto.url())
        };
        let input = site.start(&config);
        until("it is refused", || {
            let said = input.figures().error.unwrap_or_default();
            said.contains("user or password is wrong") || said.contains("not authorised")
        })
        .await;
        std::fs::write(&password, "first\n").unwrap();
        input.connected().await;
        input.end().await;
    });
}

/// What a broker acknowledged to a publisher is in the journal once, whatever is killed in between.
#[test]
fn kills_of_input_and_broker_lose_no_acknowledged_sample_and_double_none() {
    let Some(mut mosquitto) = Mosquitto::start(&["persistence true", "max_queued_messages 0"])
    else {
        return;
    };
    runtime().block_on(async {
        let site = Site::new(&[("one", "a")]);
        let config = json(&mosquitto.url());
        let mut input = site.start(&config);
        input.connected().await;
        mosquitto.settle().await;
        let start = now_millis() - 100_000;
        let (rounds, each) = (6, 500);
        for round in 0..rounds {
            let lines: Vec<String> = (0..each)
                .map(|at| document(start + round * each + at, 1.0))
                .collect();
            mosquitto.publish_lines("a", &lines);
            match round {
                2 => {
                    // An orderly stop: a broker that is killed loses by itself what it has not written.
                    mosquitto.restart();
                }
                _ => {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    input.kill().await;
                    input = site.start(&config);
                }
            }
        }
        let all = (rounds * each) as usize;
        until("all are there", || site.samples("one").len() >= all).await;
        let times: Vec<i64> = site
            .samples("one")
            .iter()
            .map(|it| it.time / 1_000_000)
            .collect();
        let expected: Vec<i64> = (start..start + rounds * each).collect();
        assert_eq!(times, expected);
        input.end().await;
    });
}
