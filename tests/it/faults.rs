//! Every way a store can fail, once each: in the end every file is in the bucket once, byte for byte, the ledger says
//! so, the spool is empty, and nobody had to do anything.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hyper::Method;
use lookoutd::embedded::KeyPair;
use lookoutd::feed::State;
use lookoutd::s3::Bucket;

use crate::errors::Errors;
use crate::proxy::{Fault, Rule};
use crate::rig::*;

/// The window that is live at `NOW`.
const START: &str = "2026-01-01T00:05:00Z";
const NOW: &str = "2026-01-01T00:07:00Z";

/// Runs one window against a store with these faults, and checks what is left.
async fn survive(name: &str, rules: Vec<Rule>) {
    let store = Store::start();
    for rule in rules {
        store.proxy.inject(rule);
    }
    let rig = Rig::new(&store, "data", NOW);
    let data_dir = rig.data_dir.clone();
    let running = rig.start().await;
    running.settle().await;
    running.stop().await;
    assert_eq!(store.proxy.pending(), 0, "{name}: the fault never happened");
    assert_eq!(
        states(&data_dir),
        [("2026-01-01T00:05".to_owned(), State::Shipped)],
        "{name}"
    );
    assert_spool_is_empty(&data_dir);
    assert_same(&store.objects(), &Wave::default().objects([window(START)]));
}

fn once(fault: Fault) -> Vec<Rule> {
    vec![Rule::puts("pump_", 1, fault)]
}

#[tokio::test]
async fn failures_that_pass_are_retried_until_every_file_is_there_once() {
    let _errors = Errors::watch();
    let mut classes: Vec<(String, Vec<Rule>)> = Vec::new();
    for (status, code) in [
        (500, "InternalError"),
        (502, ""),
        (504, ""),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (429, "TooManyRequests"),
        (409, "ConditionalRequestConflict"),
        (409, "OperationAborted"),
        (400, "RequestTimeout"),
        (400, "IncompleteBody"),
        (400, "BadDigest"),
        (408, ""),
    ] {
        classes.push((
            format!("{status} {code}"),
            once(Fault::Answer(status, code)),
        ));
    }
    for (name, fault) in [
        ("cut before", Fault::CutBefore),
        ("lost acknowledgement", Fault::CutAfter),
        ("cut within the body", Fault::CutBody),
        ("hangs", Fault::Hang),
        ("stored, then hangs", Fault::HangAfter),
        ("slow", Fault::Slow(Duration::from_millis(700))),
        (
            "slower than the client waits",
            Fault::Slow(Duration::from_millis(2_500)),
        ),
        ("captive portal", Fault::Portal),
        ("a damaged byte on the way", Fault::Damage),
        (
            "stored, but said 500",
            Fault::AnswerAfter(500, "InternalError"),
        ),
        ("stored, but said 503", Fault::AnswerAfter(503, "SlowDown")),
    ] {
        classes.push((name.to_owned(), once(fault)));
    }
    classes.push((
        "the first requests of all fail".into(),
        vec![Rule::any(2, Fault::CutBefore)],
    ));
    classes.push((
        "the comparison after a lost acknowledgement fails".into(),
        vec![
            Rule::puts("pump_", 1, Fault::CutAfter),
            Rule {
                method: Some(Method::HEAD),
                path: "pump_".into(),
                after: 0,
                times: 1,
                fault: Fault::Answer(500, ""),
            },
        ],
    ));
    join_all(
        classes
            .into_iter()
            .map(|(name, rules)| async move { survive(&name, rules).await }),
    )
    .await;
}

#[tokio::test]
async fn failures_that_need_a_person_say_so_once_keep_the_bytes_and_end_by_themselves_when_put_right()
 {
    let errors = Errors::watch();
    let classes = [
        (403, "AccessDenied"),
        (403, "ExpiredToken"),
        (400, "TokenRefreshRequired"),
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (403, "RequestTimeTooSkewed"),
        (403, ""),
        (401, ""),
        (404, "NoSuchBucket"),
        (301, "PermanentRedirect"),
        (400, "AuthorizationHeaderMalformed"),
        (400, "EntityTooLarge"),
        (400, "KMS.DisabledException"),
        (507, ""),
        (418, "Unheard"),
    ];
    join_all(classes.map(|(status, code)| async move {
        survive(
            &format!("{status} {code}"),
            once(Fault::Answer(status, code)),
        )
        .await;
    }))
    .await;
    let said = errors.take();
    assert_eq!(said.len(), classes.len(), "{said:#?}");
    for line in said {
        assert!(
            line.contains("uploads are held") && line.contains("remedy="),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_store_that_is_down_at_start_delays_nothing_but_uploads() {
    let _errors = Errors::watch();
    let store = Store::start();
    store.proxy.refuse();
    let rig = Rig::new(&store, "data", NOW);
    let data_dir = rig.data_dir.clone();
    let running = rig.start().await;
    for n in 1..=3 {
        running
            .until("sealed while the store is down", |entries| {
                entries.len() == n && entries.iter().all(|e| e.state == State::Spooled)
            })
            .await;
        if n < 3 {
            running.clock.advance(chrono::TimeDelta::minutes(5));
        }
    }
    store.proxy.listen();
    // A new live window is worth an attempt of its own, whatever the backoff has grown to.
    running.clock.advance(chrono::TimeDelta::minutes(5));
    running.settle().await;
    running.stop().await;
    assert_same(
        &store.objects(),
        &Wave::default().objects(windows(START, 4)),
    );
    assert_spool_is_empty(&data_dir);
}

#[tokio::test]
async fn wrong_keys_names_and_protocols_are_named_and_what_is_sealed_waits_for_the_right_ones() {
    let errors = Errors::watch();
    let store = Store::start();
    let stranger = KeyPair {
        secret_key: "not the secret".into(),
        ..store.keys.clone()
    };
    let tls = store.proxy.endpoint().replace("http://", "https://");
    for (name, bucket, remedy) in [
        (
            "secret",
            Bucket::new(client(&store.proxy.endpoint(), &stranger), BUCKET),
            "the signature was refused",
        ),
        (
            "dns",
            Bucket::new(client("http://store.invalid:9", &store.keys), BUCKET),
            "does not resolve",
        ),
        ("tls", Bucket::new(client(&tls, &store.keys), BUCKET), "TLS"),
    ] {
        let rig = Rig {
            bucket,
            ..Rig::new(&store, name, NOW)
        };
        let data_dir = rig.data_dir.clone();
        let running = rig.start().await;
        let mut said = Vec::new();
        for _ in 0..6_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            said.extend(errors.take());
            if !said.is_empty() {
                break;
            }
        }
        assert!(
            said.len() == 1 && said[0].contains(remedy),
            "{name}: {said:?}"
        );
        assert!(
            !said[0].contains("not the secret"),
            "a secret is in the log"
        );
        running
            .until("sealed", |entries| {
                entries.len() == 1 && entries[0].state == State::Spooled
            })
            .await;
        running.stop().await;
        let running = Rig::new(&store, name, NOW).start().await;
        running.settle().await;
        running.stop().await;
        assert_eq!(
            states(&data_dir),
            [("2026-01-01T00:05".to_owned(), State::Shipped)]
        );
    }
    assert_same(&store.objects(), &Wave::default().objects([window(START)]));
}

fn lookoutd(data_dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lookoutd"))
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .expect("lookoutd runs");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_key_with_other_bytes_is_set_aside_never_overwritten_and_retried_or_skipped_by_a_person()
{
    let errors = Errors::watch();
    let store = Store::start();
    let taken = "input/hall_20260101000500.csv";
    let ours = Wave::default().objects(windows(START, 2));
    // Same length, other bytes: only a checksum or the bytes themselves can tell.
    let mut theirs = ours[taken].clone();
    theirs[30] ^= 1;
    store.place(taken, &theirs);
    let rig = Rig::new(&store, "data", NOW);
    let data_dir = rig.data_dir.clone();
    let running = rig.start().await;
    running
        .until("quarantined", |entries| {
            entries.iter().any(|e| e.state == State::Quarantined)
        })
        .await;
    errors.expect_soon("window set aside").await;
    assert_eq!(store.objects()[taken], theirs, "overwritten");
    running.clock.advance(chrono::TimeDelta::minutes(5));
    running.settle().await;
    assert_eq!(
        states(&data_dir),
        [
            ("2026-01-01T00:05".to_owned(), State::Quarantined),
            ("2026-01-01T00:10".to_owned(), State::Shipped)
        ]
    );
    assert_eq!(
        std::fs::read_dir(data_dir.join("quarantine"))
            .unwrap()
            .count(),
        1
    );

    // Retried while the key is still taken: set aside again, with nothing changed.
    lookoutd(&data_dir, &["windows", "retry", START]);
    running
        .until("quarantined again", |entries| {
            entries
                .iter()
                .any(|e| e.state == State::Quarantined && e.reason.is_some())
        })
        .await;
    errors.expect_soon("window set aside").await;
    assert_eq!(store.objects()[taken], theirs, "overwritten");

    // The operator moves the other object away.
    store.store.remove_blocking(BUCKET, taken).unwrap();
    lookoutd(&data_dir, &["windows", "retry", START]);
    running.settle().await;
    assert_same(&store.objects(), &ours);
    assert_spool_is_empty(&data_dir);

    // The next conflict is given up.
    store.place("input/hall_20260101001500.csv", b"theirs");
    running.clock.advance(chrono::TimeDelta::minutes(5));
    running
        .until("quarantined", |entries| {
            entries.iter().any(|e| e.state == State::Quarantined)
        })
        .await;
    errors.expect_soon("window set aside").await;
    let third = "2026-01-01T00:15:00Z";
    lookoutd(
        &data_dir,
        &["windows", "skip", third, "--reason", "two gateways"],
    );
    let shown = lookoutd(&data_dir, &["windows", "show", third, "--output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["window"]["state"], "skipped");
    assert_eq!(shown["window"]["reason"], "two gateways");
    running.settle().await;
    running.stop().await;
    assert_eq!(store.objects()["input/hall_20260101001500.csv"], b"theirs");
}

#[tokio::test]
async fn a_store_that_ignores_the_condition_is_looked_at_before_each_write() {
    let errors = Errors::watch();
    let store = Store::start();
    store.proxy.inject(Rule {
        method: Some(Method::PUT),
        path: String::new(),
        after: 0,
        times: usize::MAX,
        fault: Fault::IgnoreCondition,
    });
    store.place("input/hall_20260101001000.csv", b"theirs");
    let rig = Rig::new(&store, "data", NOW);
    let data_dir = rig.data_dir.clone();
    let running = rig.start().await;
    running.settle().await;
    assert_same(
        &store.objects_of(START),
        &Wave::default().objects([window(START)]),
    );
    running.clock.advance(chrono::TimeDelta::minutes(5));
    running
        .until("quarantined", |entries| {
            entries.iter().any(|e| e.state == State::Quarantined)
        })
        .await;
    errors.expect_soon("window set aside").await;
    running.stop().await;
    assert_eq!(store.objects()["input/hall_20260101001000.csv"], b"theirs");
    // A restart uploads nothing twice.
    let before = store.proxy.seen().len();
    let running = Rig::new(&store, "data", NOW).start().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.stop().await;
    let again: Vec<_> = store.proxy.seen()[before..]
        .iter()
        .filter(|seen| seen.path.ends_with(".csv"))
        .cloned()
        .collect();
    assert!(again.is_empty(), "{again:?}");
    assert_eq!(states(&data_dir)[0].1, State::Shipped);
}

#[tokio::test]
async fn the_live_window_goes_first_while_a_backlog_drains_oldest_first_at_its_rate() {
    let _errors = Errors::watch();
    let store = Store::start();
    let running = Rig::new(&store, "data", NOW).start().await;
    running.settle().await;
    running.stop().await;
    // Ten windows are missed.
    let mut rig = Rig::new(&store, "data", "2026-01-01T01:01:00Z");
    rig.config.drain_per_minute = 400;
    let data_dir = rig.data_dir.clone();
    let before = store.proxy.seen().len();
    let started = Instant::now();
    let running = rig.start().await;
    running
        .until("the live window", |entries| {
            entries[0].start == at("2026-01-01T01:00:00Z") && entries[0].state == State::Shipped
        })
        .await;
    running.clock.advance(chrono::TimeDelta::minutes(5));
    running.settle().await;
    let took = started.elapsed();
    running.stop().await;
    assert_same(
        &store.objects(),
        &Wave::default().objects(windows(START, 13)),
    );
    let mut order: Vec<String> = Vec::new();
    for seen in &store.proxy.seen()[before..] {
        if let Some((_, stamp)) = seen.path.split_once("hall_") {
            order.push(stamp[8..12].to_owned());
        }
    }
    assert_eq!(order.len(), 12, "{order:?}");
    let live: Vec<usize> = ["0100", "0105"]
        .iter()
        .map(|stamp| order.iter().position(|seen| seen == stamp).unwrap())
        .collect();
    assert!(
        live[0] <= 1 && live[1] < 9,
        "the backlog went first: {order:?}"
    );
    let backlog: Vec<&String> = order
        .iter()
        .filter(|s| !["0100", "0105"].contains(&s.as_str()))
        .collect();
    assert!(backlog.is_sorted(), "{order:?}");
    assert!(
        took >= Duration::from_millis(150) * 9,
        "ten windows in {took:?} is faster than 400 a minute"
    );
    assert_spool_is_empty(&data_dir);
}

#[tokio::test]
async fn an_upload_that_hangs_does_not_hold_up_the_next_live_window() {
    let _errors = Errors::watch();
    let store = Store::start();
    store
        .proxy
        .inject(Rule::puts("hall_20260101000500", 40, Fault::Hang));
    let running = Rig::new(&store, "data", NOW).start().await;
    running.until("sealed", |entries| entries.len() == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.clock.advance(chrono::TimeDelta::minutes(5));
    let sealed = Instant::now();
    running
        .until("the next window", |entries| {
            entries[0].state == State::Shipped && entries.len() == 2
        })
        .await;
    // At worst it waits for the hung attempt to be given up, which takes this client 2 s; the other 39 take minutes.
    assert!(
        sealed.elapsed() < Duration::from_secs(15),
        "{:?}",
        sealed.elapsed()
    );
    store.proxy.heal();
    running.settle().await;
    running.stop().await;
    assert_same(
        &store.objects(),
        &Wave::default().objects(windows(START, 2)),
    );
}

#[tokio::test]
async fn components_and_windows_without_rows_are_recorded_as_what_they_are() {
    let _errors = Errors::watch();
    let store = Store::start();
    let starts = windows(START, 5);
    let source = Wave {
        without_hall: vec![starts[1].start().timestamp()],
        empty: vec![starts[2].start().timestamp()],
        ends: Some(starts[4].start().timestamp()),
    };
    let rig = Rig {
        source: source.clone(),
        ..Rig::new(&store, "data", NOW)
    };
    let data_dir = rig.data_dir.clone();
    let running = rig.start().await;
    for _ in 0..5 {
        running.settle().await;
        running.clock.advance(chrono::TimeDelta::minutes(5));
    }
    running.settle().await;
    let entries = running.feeder.view().recent(10).unwrap();
    running.stop().await;
    let told: Vec<_> = entries
        .iter()
        .rev()
        .map(|e| (e.state, e.reason.as_deref(), e.files, e.components))
        .collect();
    assert_eq!(
        told,
        [
            (State::Shipped, None, 3, 3),
            (State::Partial, Some("no value of hall"), 3, 3),
            (State::Empty, None, 0, 3),
            (State::Shipped, None, 3, 3),
            (State::Skipped, Some("the history is over"), 0, 0),
            (State::Skipped, Some("the history is over"), 0, 0),
        ]
    );
    assert_same(
        &store.objects(),
        &source.objects(starts[..4].iter().copied()),
    );
    assert_spool_is_empty(&data_dir);
}

#[tokio::test]
async fn a_backlog_is_cut_although_the_live_window_is_after_the_end_of_the_history() {
    let _errors = Errors::watch();
    let store = Store::start();
    let starts = windows(START, 4);
    let source = Wave {
        ends: Some(starts[3].start().timestamp()),
        ..Wave::default()
    };
    let rig = |now| Rig {
        source: source.clone(),
        ..Rig::new(&store, "data", now)
    };
    let running = rig(NOW).start().await;
    running.settle().await;
    running.stop().await;
    // Down until after the end.
    let running = rig("2026-01-01T00:31:00Z").start().await;
    running.settle().await;
    running.stop().await;
    assert_same(
        &store.objects(),
        &source.objects(starts[..3].iter().copied()),
    );
}
