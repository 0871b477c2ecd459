//! What goes wrong around an execution: stores that refuse, files that cannot be read, clocks that are wrong, schedulers
//! that wait.

use std::time::Duration;

use aws_sdk_lookoutequipment::types::Tag;
use chrono::TimeDelta;
use hyper::Method;

use super::plant::{BUCKET, COMPONENTS, Plant, at, csv, input, output};
use crate::proxy::{Fault, Proxy, Rule, Seen};
use crate::s3_server;
use lookoutd::vitals::Code;

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build().unwrap()
}

/// The plant with a proxy between service and store.
pub async fn behind_a_proxy() -> (Plant, Proxy) {
    let mut plant = Plant::start().await;
    plant.down().await;
    let proxy = Proxy::start(plant.s3_address, s3_server::client(plant.s3_address)).await;
    let direct = plant.s3.clone();
    plant.s3 = s3_server::client(proxy.endpoint()["http://".len()..].parse().unwrap());
    plant.up().await;
    plant.s3 = direct;
    (plant, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_or_another_passing_answer_on_the_results_is_tried_again() {
    let (plant, proxy) = behind_a_proxy().await;
    plant.run("s", |request| request).await;
    let mut start = at("2026-03-01T10:00:00Z");
    for (status, code) in [
        (409, "ConditionalRequestConflict"),
        (409, "OperationAborted"),
        (400, "RequestTimeout"),
        (503, "SlowDown"),
    ] {
        // More often than the SDK itself tries.
        proxy.inject(Rule::puts("results.jsonl", 4, Fault::Answer(status, code)));
        plant.feed(&start.to_rfc3339()).await;
        let key = format!("out/{}/results.jsonl", start.format("%Y-%m-%dT%H:%M:%SZ"));
        start += TimeDelta::minutes(5);
        let done = plant.execute("s", &start.to_rfc3339()).await;
        assert_eq!(
            done.status().unwrap().as_str(),
            "SUCCESS",
            "{code}: {:?}",
            done.failed_reason()
        );
        assert_eq!(plant.get(&key).await.lines().count(), 5);
        proxy.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_stays_fails_at_once_with_the_stores_words() {
    let (plant, proxy) = behind_a_proxy().await;
    plant.run("s", |request| request).await;
    proxy.inject(Rule::puts(
        "results.jsonl",
        100,
        Fault::Answer(403, "AccessDenied"),
    ));
    plant.feed("2026-03-01T10:00:00Z").await;
    let done = plant.execute("s", "2026-03-01T10:05:00Z").await;
    let reason = done.failed_reason().unwrap();
    assert!(
        reason.starts_with("Could not write 's3://plant/out/2026-03-01T10:00:00Z/results.jsonl'")
            && reason.contains("AccessDenied"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_others_are_not_overwritten_in_a_store_that_ignores_the_condition() {
    let (plant, proxy) = behind_a_proxy().await;
    proxy.inject(Rule {
        method: Some(Method::PUT),
        path: String::new(),
        after: 0,
        times: 1000,
        fault: Fault::IgnoreCondition,
    });
    plant.run("s", |request| request).await;
    let key = "out/2026-03-01T10:00:00Z/results.jsonl";
    plant.put(key, "another's").await;
    plant.feed("2026-03-01T10:00:00Z").await;
    let done = plant.execute("s", "2026-03-01T10:05:00Z").await;
    assert!(
        done.failed_reason()
            .unwrap()
            .contains("give every scheduler an output prefix of its own"),
        "{done:?}"
    );
    assert_eq!(plant.get(key).await, "another's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_fails_its_own_window_alone() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    let mut start = at("2026-03-01T10:00:00Z");
    let broken = |nth: usize, text: String| match nth {
        1 => String::new(),
        3 => text.replace(',', ";"),
        5 => text.replace("flow", "Flow"),
        _ => text,
    };
    for nth in 0..8 {
        let stamp = start.format("%Y%m%d%H%M%S");
        for (component, _) in COMPONENTS {
            let mut text = csv(component, start, 0.0);
            if component == "pump-1" {
                text = broken(nth, text);
            }
            plant
                .put(&format!("in/{component}-{stamp}.csv"), text)
                .await;
        }
        // The next window's file is there already, and is as good or bad as it is.
        let next = start + TimeDelta::minutes(5);
        let early = broken(nth + 1, csv("pump-1", next, 0.0));
        let name = format!("in/pump-1-{}.csv", next.format("%Y%m%d%H%M%S"));
        plant.put(&name, early).await;
        let done = plant.execute("s", &next.to_rfc3339()).await;
        let status = done.status().unwrap().as_str();
        if [1, 3, 5].contains(&nth) {
            let reason = done.failed_reason().unwrap();
            assert_eq!(status, "FAILED");
            assert!(
                reason.contains(&format!("pump-1-{stamp}.csv")),
                "{nth}: {reason}"
            );
        } else {
            assert_eq!(status, "SUCCESS", "{nth}: {:?}", done.failed_reason());
            let key = format!("out/{}/results.jsonl", start.format("%Y-%m-%dT%H:%M:%SZ"));
            assert_eq!(plant.get(&key).await.lines().count(), 5, "{nth}");
        }
        start = next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_file_of_several_fails_the_window_that_lacks_its_rows_and_a_good_copy_mends_it() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    let minutes = |start: chrono::DateTime<chrono::Utc>, bad: bool| {
        (0..5).map(move |minute| {
            let from = start + TimeDelta::minutes(minute);
            let name = format!("in/pump-1-{}.csv", from.format("%Y%m%d%H%M%S"));
            let text = super::plant::csv_of("pump-1", from, 1, 0.0);
            (
                name,
                if bad && minute == 2 {
                    "nothing\n".to_owned()
                } else {
                    text
                },
            )
        })
    };
    for (start, copy) in [("10:00", false), ("10:05", true)] {
        let start = at(&format!("2026-03-01T{start}:00Z"));
        for (name, text) in minutes(start, true) {
            plant.put(&name, text).await;
        }
        let fan = format!("in/fan-{}.csv", start.format("%Y%m%d%H%M%S"));
        plant.put(&fan, csv("fan", start, 0.0)).await;
        if copy {
            let from = start + TimeDelta::seconds(121);
            let name = format!("in/pump-1-{}.csv", from.format("%Y%m%d%H%M%S"));
            let text = super::plant::csv_of("pump-1", start + TimeDelta::minutes(2), 1, 0.0);
            plant.put(&name, text).await;
        }
        let end = (start + TimeDelta::minutes(5)).to_rfc3339();
        let done = plant.execute("s", &end).await;
        let expected = if copy { "SUCCESS" } else { "FAILED" };
        assert_eq!(
            done.status().unwrap().as_str(),
            expected,
            "{:?}",
            done.failed_reason()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_the_limit_is_not_fetched_and_fails_no_neighbour() {
    let (plant, proxy) = behind_a_proxy().await;
    plant.run("s", |request| request).await;
    let mut start = at("2026-03-01T10:00:00Z");
    for second in 0..4 {
        let stamp = (start + TimeDelta::seconds(300 + second)).format("%Y%m%d%H%M%S");
        let line = "2026-03-01T10:06:00,10,50\n";
        let text = format!("t,flow,power\n{}", line.repeat(1_900_000 / line.len()));
        plant.put(&format!("in/pump-1-{stamp}.csv"), text).await;
    }
    for expected in ["SUCCESS", "FAILED", "SUCCESS"] {
        let stamp = start.format("%Y%m%d%H%M%S");
        let fan = csv("fan", start, 0.0);
        plant.put(&format!("in/fan-{stamp}.csv"), fan).await;
        if expected == "SUCCESS" {
            let pump = csv("pump-1", start, 0.0);
            plant.put(&format!("in/pump-1-{stamp}.csv"), pump).await;
        }
        start += TimeDelta::minutes(5);
        let done = plant.execute("s", &start.to_rfc3339()).await;
        let status = done.status().unwrap().as_str();
        assert_eq!(status, expected, "{start}: {:?}", done.failed_reason());
        if status == "FAILED" {
            assert!(done.failed_reason().unwrap().contains("too large"));
        }
    }
    let fetched = proxy.seen();
    let large = fetched
        .iter()
        .filter(|seen| seen.method == Method::GET && seen.path.contains("pump-1-2026030110050"));
    // The first of them has the stamp with which the search of the first window ends.
    assert!(large.count() <= 1, "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_a_late_window_is_tried_again() {
    let (plant, proxy) = behind_a_proxy().await;
    plant
        .run("s", |request| {
            request.tags(tag("lookoutd:late-files", "score"))
        })
        .await;
    let failed = plant.execute("s", "2026-03-01T10:05:00Z").await;
    assert_eq!(failed.status().unwrap().as_str(), "FAILED");
    let conflict = Fault::Answer(409, "OperationAborted");
    proxy.inject(Rule::puts("late.json", 1, conflict));
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.feed("2026-03-01T10:05:00Z").await;
    plant.execute("s", "2026-03-01T10:10:00Z").await;
    for _ in 0..2_400 {
        let executions = plant.executions("s").await;
        let ended = |status: &str| status == "SUCCESS";
        if executions
            .iter()
            .all(|execution| ended(execution.status().unwrap().as_str()))
        {
            assert_eq!(proxy.pending(), 0);
            let record = plant.get("out/2026-03-01T10:00:00Z/late.json").await;
            assert!(record.contains("\"late\":true"), "{record}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", plant.executions("s").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_reading_fails_at_once_or_passes() {
    let (plant, proxy) = behind_a_proxy().await;
    plant.run("s", |request| request).await;
    let mut start = at("2026-03-01T10:00:00Z");
    for (fault, failed) in [
        (Fault::Portal, None),
        (Fault::Answer(409, "OperationAborted"), None),
        (Fault::Answer(301, ""), Some("in another region")),
        (Fault::Answer(403, "AccessDenied"), Some("AccessDenied")),
    ] {
        plant.feed(&start.to_rfc3339()).await;
        // The window's own file; those of its neighbours are read, too.
        let name = format!("/in/pump-1-{}", start.format("%Y%m%d%H%M%S"));
        proxy.inject(Rule {
            method: Some(Method::GET),
            ..Rule::puts(&name, 1, fault)
        });
        start += TimeDelta::minutes(5);
        let done = plant.execute("s", &start.to_rfc3339()).await;
        assert_eq!(proxy.pending(), 0);
        let reason = done.failed_reason().unwrap_or_default();
        match failed {
            None => assert_eq!(done.status().unwrap().as_str(), "SUCCESS", "{reason}"),
            Some(word) => assert!(reason.contains(word), "{word}: {reason}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_files_holds_no_place() {
    const LATE: usize = 34;
    let plant = Plant::start().await;
    plant.run("prompt", |request| request).await;
    for nth in 0..LATE {
        let (name, model) = (format!("late-{nth}"), format!("late-model-{nth}"));
        plant.register(&model).await;
        let created = plant.create(&name, &model, |request| {
            request
                .data_input_configuration(input("late/", "-", "yyyyMMddHHmmss", "+00:00"))
                .data_output_configuration(output(&format!("late-out/{nth}/")))
                .tags(tag("lookoutd:wait", "280"))
        });
        created.await.unwrap();
    }
    for nth in 0..LATE {
        plant.wait_status(&format!("late-{nth}"), "RUNNING").await;
    }
    plant.feed("2026-03-01T10:00:00Z").await;
    let done = plant.execute("prompt", "2026-03-01T10:05:00Z").await;
    assert_eq!(done.status().unwrap().as_str(), "SUCCESS");
    for nth in 0..LATE {
        let mut late = plant.executions(&format!("late-{nth}")).await;
        for _ in 0..200 {
            if !late.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            late = plant.executions(&format!("late-{nth}")).await;
        }
        assert_eq!(late[0].status().unwrap().as_str(), "IN_PROGRESS");
    }
    // Files that come while it is waited for them are taken.
    let start = at("2026-03-01T10:00:00Z");
    plant
        .feed_named(
            start,
            |component, stamp| format!("late/{component}-{stamp}.csv"),
            0.0,
        )
        .await;
    plant.clock.advance(TimeDelta::seconds(30));
    for nth in 0..LATE {
        let name = format!("late-{nth}");
        let mut status = String::new();
        for _ in 0..600 {
            let late = plant.executions(&name).await;
            status = late[0].status().unwrap().as_str().to_owned();
            if status != "IN_PROGRESS" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(status, "SUCCESS", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_waited_for_also_where_that_of_the_window_before_lies_there() {
    let (plant, proxy) = behind_a_proxy().await;
    plant
        .run("s", |request| request.tags(tag("lookoutd:wait", "280")))
        .await;
    plant.feed("2026-03-01T10:00:00Z").await;
    let first = plant.execute("s", "2026-03-01T10:05:00Z").await;
    assert_eq!(first.status().unwrap().as_str(), "SUCCESS");
    plant.clock.advance_to(at("2026-03-01T10:10:00Z"));
    let newest = async || plant.executions("s").await.swap_remove(0);
    let boundary = at("2026-03-01T10:10:00Z").timestamp();
    for _ in 0..200 {
        if newest().await.data_end_time().unwrap().secs() == boundary {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let waits = newest().await;
    assert_eq!(waits.data_end_time().unwrap().secs(), boundary);
    assert_eq!(
        waits.status().unwrap().as_str(),
        "IN_PROGRESS",
        "{:?}",
        waits.failed_reason()
    );
    // What was read and has no row of the window is not read again at each look, until it is another.
    let asked = |fits: &dyn Fn(&str) -> bool| {
        let seen = proxy.seen();
        let fitting = |seen: &&Seen| seen.method == Method::GET && fits(&seen.path);
        seen.iter().filter(fitting).count()
    };
    let reads = || asked(&|path| path.contains("/in/"));
    let looks = || asked(&|path| path.trim_matches('/') == BUCKET);
    let mut read = 0;
    for nth in 0..4 {
        let before = looks();
        plant.clock.advance(TimeDelta::seconds(5));
        for _ in 0..3_000 {
            if looks() > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(looks() > before);
        // Until the look is over and waits for its next time; the first may have been under way still.
        tokio::time::sleep(Duration::from_millis(500)).await;
        if nth == 0 {
            read = reads();
        }
    }
    assert_eq!(reads(), read);
    plant.feed("2026-03-01T10:05:00Z").await;
    let second = plant.execute("s", "2026-03-01T10:10:30Z").await;
    assert_eq!(second.status().unwrap().as_str(), "SUCCESS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_ahead_stops_no_scheduler() {
    let mut plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    plant.execute("s", "2026-03-03T10:10:00Z").await;
    for (nth, end) in ["10:10", "10:15", "10:20"].iter().enumerate() {
        let end = at(&format!("2026-03-01T{end}:00Z"));
        plant.clock.advance_to(end - TimeDelta::seconds(2));
        plant
            .feed(&(end - TimeDelta::minutes(5)).to_rfc3339())
            .await;
        if nth == 1 {
            plant.down().await;
            plant.up().await;
        }
        plant.clock.advance_to(end);
        let mut ends = Vec::new();
        for _ in 0..400 {
            let executions = plant.executions("s").await;
            ends = executions
                .iter()
                .filter(|execution| execution.status().unwrap().as_str() == "SUCCESS")
                .map(|execution| execution.data_end_time().unwrap().secs())
                .collect();
            if ends.contains(&end.timestamp()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(ends.contains(&end.timestamp()), "{end}: {ends:?}");
    }
    // What failed in the future is void.
    assert_eq!(plant.executions("s").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_boots_in_1970_keeps_its_history_and_says_why_it_waits() {
    let mut plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    plant.feed("2026-03-01T10:05:00Z").await;
    plant.execute("s", "2026-03-01T10:10:00Z").await;
    let known = statuses(&plant).await;
    assert_eq!(known, ["SUCCESS", "FAILED"]);
    plant.down().await;
    plant.clock.advance_to(at("1970-01-01T00:02:00Z"));
    plant.up().await;
    let said = async |is_said: bool| {
        for _ in 0..200 {
            let troubles = plant.vitals.troubles().now();
            if troubles.iter().any(|one| one.code == Code::ClockSuspect) == is_said {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{:?}", plant.vitals.troubles().now());
    };
    said(true).await;
    // Boundaries of 1970 come and go.
    plant.clock.advance_to(at("1970-01-01T00:12:00Z"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(statuses(&plant).await, known);
    plant.feed("2026-03-01T10:10:00Z").await;
    plant.clock.advance_to(at("2026-03-01T10:14:00Z"));
    said(false).await;
    plant.execute("s", "2026-03-01T10:15:00Z").await;
    assert_eq!(statuses(&plant).await, ["SUCCESS", "SUCCESS", "FAILED"]);
}

async fn statuses(plant: &Plant) -> Vec<String> {
    let executions = plant.executions("s").await;
    executions
        .iter()
        .map(|execution| execution.status().unwrap().as_str().to_owned())
        .collect()
}
