//! Executions: which files and rows a window takes, what it writes, and what a failure says.

use aws_sdk_lookoutequipment::types::Tag;
use chrono::TimeDelta;

use super::plant::{COMPONENTS, Plant, at, csv, input, output, row};

#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_scored_and_its_results_lie_under_its_start() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.feed("2026-03-01T10:00:00Z").await;
    let done = plant.execute("s", "2026-03-01T10:05:00Z").await;
    assert_eq!(
        done.status().unwrap().as_str(),
        "SUCCESS",
        "{:?}",
        done.failed_reason()
    );
    assert_eq!(
        done.data_start_time().unwrap().secs(),
        at("2026-03-01T10:00:00Z").timestamp()
    );
    assert_eq!(
        done.data_end_time().unwrap().secs(),
        at("2026-03-01T10:05:00Z").timestamp()
    );
    assert_eq!(done.scheduled_start_time(), done.data_end_time());
    let result = done.customer_result_object().unwrap();
    assert_eq!(result.key(), "out/2026-03-01T10:00:00Z/results.jsonl");
    let text = plant.get(result.key()).await;
    assert!(text.ends_with("}\n"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(lines[0].starts_with("{\"timestamp\": \"2026-03-01T10:01:00.000000\", \"prediction\": 0, \
                                  \"prediction_reason\": \"NO_ANOMALY_DETECTED\", \"anomaly_score\": 0."));
    assert!(lines[4].starts_with("{\"timestamp\": \"2026-03-01T10:05:00.000000\""));
    let line: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    let shares: Vec<f64> = line["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["value"].as_f64().unwrap())
        .collect();
    assert_eq!(line["diagnostics"][0]["name"], "pump-1\\flow");
    assert!(
        (shares.iter().sum::<f64>() - 1.0).abs() < 1e-4,
        "{shares:?}"
    );
    let described = plant
        .api
        .describe_inference_scheduler()
        .inference_scheduler_name("s")
        .send()
        .await
        .unwrap();
    assert_eq!(
        described.latest_inference_result().unwrap().as_str(),
        "NORMAL"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_found_its_sensors_named_and_its_event_listed_across_executions() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    let mut start = at("2026-03-01T10:00:00Z");
    for _ in 0..4 {
        plant
            .feed_named(
                start,
                |component, stamp| format!("in/{component}-{stamp}.csv"),
                30.0,
            )
            .await;
        start += TimeDelta::minutes(5);
        let done = plant.execute("s", &start.to_rfc3339()).await;
        assert_eq!(
            done.status().unwrap().as_str(),
            "SUCCESS",
            "{:?}",
            done.failed_reason()
        );
    }
    let events = plant
        .api
        .list_inference_events()
        .inference_scheduler_name("s")
        .interval_start_time(aws_sdk_lookoutequipment::primitives::DateTime::from_secs(0))
        .interval_end_time(aws_sdk_lookoutequipment::primitives::DateTime::from_secs(
            4_000_000_000,
        ))
        .send()
        .await
        .unwrap();
    let [event] = events.inference_event_summaries() else {
        panic!("{events:?}")
    };
    assert!(event.event_duration_in_seconds().unwrap() >= 15 * 60);
    let diagnostics: serde_json::Value =
        serde_json::from_str(event.diagnostics().unwrap()).unwrap();
    let share = |name: &str| {
        let entry = diagnostics
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["name"] == *name)
            .unwrap();
        entry["value"].as_f64().unwrap()
    };
    assert!(
        share("pump-1\\power") > share("fan\\speed"),
        "{diagnostics}"
    );
    let described = plant
        .api
        .describe_inference_scheduler()
        .inference_scheduler_name("s")
        .send()
        .await
        .unwrap();
    assert_eq!(
        described.latest_inference_result().unwrap().as_str(),
        "ANOMALOUS"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delay_offset_moves_the_wake_up_and_not_the_window() {
    let plant = Plant::start().await;
    plant
        .run("s", |request| request.data_delay_offset_in_minutes(3))
        .await;
    plant.clock.advance_to(at("2026-03-01T10:07:59Z"));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(plant.executions("s").await.is_empty());
    plant.feed("2026-03-01T10:00:00Z").await;
    let done = plant.execute("s", "2026-03-01T10:08:00Z").await;
    assert_eq!(done.status().unwrap().as_str(), "SUCCESS");
    assert_eq!(
        done.data_end_time().unwrap().secs(),
        at("2026-03-01T10:05:00Z").timestamp()
    );
    assert_eq!(
        done.scheduled_start_time().unwrap().secs(),
        at("2026-03-01T10:08:00Z").timestamp()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_component_fails_the_window_with_the_original_text_first_and_the_near_miss_after()
{
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    let start = at("2026-03-01T10:00:00Z");
    plant
        .put("in/pump-1_20260301100000.csv", csv("pump-1", start, 0.0))
        .await;
    plant
        .put("in/fan-20260301190000.csv", csv("fan", start, 0.0))
        .await;
    let done = plant.execute("s", "2026-03-01T10:05:00Z").await;
    assert_eq!(done.status().unwrap().as_str(), "FAILED");
    assert!(done.customer_result_object().is_none());
    let reason = done.failed_reason().unwrap();
    assert!(
        reason.starts_with(
            "Could not find data file for sensor pump-1 within expected range of (2026-03-01T10:00:00Z, \
             2026-03-01T10:05:00Z]. Please ensure data is present for all sensors of the machine under prefix \
             's3://in/in/pump-1-20260301095500' ~ 's3://in/in/pump-1-20260301101000'"
        ),
        "{reason}"
    );
    assert!(
        reason.contains("Components without a file: pump-1, fan."),
        "{reason}"
    );
    assert!(
        reason.contains("has the delimiter '_', the scheduler expects '-'"),
        "{reason}"
    );
    assert!(
        reason.contains("is stamped +09:00 from this window"),
        "{reason}"
    );
    assert_eq!(plant.status("s").await, "RUNNING");
    plant.feed("2026-03-01T10:05:00Z").await;
    let next = plant.execute("s", "2026-03-01T10:10:00Z").await;
    assert_eq!(
        next.status().unwrap().as_str(),
        "SUCCESS",
        "{:?}",
        next.failed_reason()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_row_in_the_window_fail_it_and_the_reason_says_what_they_have() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    let start = at("2026-03-01T10:00:00Z");
    plant
        .put("in/pump-1-20260301100000.csv", csv("pump-1", start, 0.0))
        .await;
    plant
        .put(
            "in/fan-20260301100000.csv",
            csv("fan", start + TimeDelta::hours(9), 0.0),
        )
        .await;
    let done = plant.execute("s", "2026-03-01T10:05:00Z").await;
    let reason = done.failed_reason().unwrap();
    assert!(
        reason.starts_with("Could not find data for sensor fan within expected range of"),
        "{reason}"
    );
    assert!(
        reason.contains("has rows from 2026-03-01T19:01:00Z to 2026-03-01T19:05:00Z"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unaligned_unsorted_duplicate_and_split_files_give_the_rows_start_exclusive_end_inclusive()
{
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    let start = at("2026-03-01T10:00:00Z");
    let minute = |n: i64| start + TimeDelta::minutes(n);
    // The pump: descending rows over two unaligned files, the window's start (out) and end (in) among them, and a row
    // that a later file corrects.
    let early = [
        row("pump-1", minute(2), 900.0),
        row("pump-1", minute(1), 0.0),
        row("pump-1", minute(0), 900.0),
    ];
    plant
        .put(
            "in/pump-1-20260301095607.csv",
            format!("t,flow,power\n{}", early.concat()),
        )
        .await;
    let late: String = (2..=6)
        .rev()
        .map(|n| row("pump-1", minute(n), 0.0))
        .collect();
    plant
        .put(
            "in/pump-1-20260301100211.csv",
            format!("t,flow,power\n{late}"),
        )
        .await;
    plant
        .put("in/fan-20260301100000.csv", csv("fan", start, 0.0))
        .await;
    let done = plant.execute("s", "2026-03-01T10:05:00Z").await;
    assert_eq!(
        done.status().unwrap().as_str(),
        "SUCCESS",
        "{:?}",
        done.failed_reason()
    );
    let text = plant.get("out/2026-03-01T10:00:00Z/results.jsonl").await;

    // The same samples in one tidy file each give the same bytes.
    let tidy = Plant::start().await;
    tidy.run("s", |request| request).await;
    tidy.feed("2026-03-01T10:00:00Z").await;
    tidy.execute("s", "2026-03-01T10:05:00Z").await;
    assert_eq!(
        text,
        tidy.get("out/2026-03-01T10:00:00Z/results.jsonl").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_per_sensor_is_scored_like_the_file_of_all() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.register("model-2").await;
    let split = plant.create("split", "model-2", |request| {
        request
            .data_input_configuration(input("split/", "-", "yyyyMMddHHmmss", "+00:00"))
            .data_output_configuration(output("split-out/"))
    });
    split.await.unwrap();
    plant.wait_status("split", "RUNNING").await;
    let start = at("2026-03-01T10:00:00Z");
    plant.feed("2026-03-01T10:00:00Z").await;
    plant
        .put("split/fan-20260301100000.csv", csv("fan", start, 0.0))
        .await;
    let whole = csv("pump-1", start, 0.0);
    for (column, second) in [(1, 0), (2, 1)] {
        let cells = |line: &str| {
            let cells: Vec<&str> = line.split(',').collect();
            format!("{},{}\n", cells[0], cells[column])
        };
        let text: String = whole.lines().map(cells).collect();
        let name = format!("split/pump-1-2026030110000{second}.csv");
        plant.put(&name, text).await;
    }
    for name in ["s", "split"] {
        let done = plant.execute(name, "2026-03-01T10:05:00Z").await;
        assert_eq!(
            done.status().unwrap().as_str(),
            "SUCCESS",
            "{:?}",
            done.failed_reason()
        );
    }
    assert_eq!(
        plant
            .get("split-out/2026-03-01T10:00:00Z/results.jsonl")
            .await,
        plant.get("out/2026-03-01T10:00:00Z/results.jsonl").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_a_zone_epoch_names_and_the_empty_delimiter_are_found() {
    let plant = Plant::start().await;
    let start = at("2026-03-01T10:00:00Z");
    let cases = [
        (
            "kst",
            input("kst/", "_", "yyyyMMddHHmmss", "+05:30"),
            "kst/{}_20260301153000.csv",
        ),
        (
            "epoch",
            input("epoch/", " ", "EPOCH", "+09:00"),
            "epoch/{} 1772359200.csv",
        ),
        (
            "bare",
            input("bare/", "", "yyyy-MM-dd-HH-mm-ss", "+00:00"),
            "bare/{}2026-03-01-10-00-00.csv",
        ),
    ];
    for (name, configuration, pattern) in cases {
        plant.register(&format!("{name}-model")).await;
        plant
            .create(name, &format!("{name}-model"), |request| {
                request
                    .data_input_configuration(configuration)
                    .data_output_configuration(super::plant::output(&format!("out-{name}/")))
            })
            .await
            .unwrap();
        for (component, _) in COMPONENTS {
            plant
                .put(
                    &pattern.replace("{}", component),
                    csv(component, start, 0.0),
                )
                .await;
        }
    }
    for name in ["kst", "epoch", "bare"] {
        plant.wait_status(name, "RUNNING").await;
    }
    for name in ["kst", "epoch", "bare"] {
        let done = plant.execute(name, "2026-03-01T10:05:00Z").await;
        assert_eq!(
            done.status().unwrap().as_str(),
            "SUCCESS",
            "{name}: {:?}",
            done.failed_reason()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_files_and_bytes_are_reasons_and_not_crashes() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.feed("2026-03-01T10:00:00Z").await;
    for second in 1..=60 {
        plant
            .put(&format!("in/fan-202603011001{second:02}.csv"), "t,speed\n")
            .await;
    }
    let done = plant.execute("s", "2026-03-01T10:05:00Z").await;
    // Second 60 is no time of day, so 59 of these count beside the fed one: exactly the limit.
    assert_eq!(
        done.status().unwrap().as_str(),
        "SUCCESS",
        "{:?}",
        done.failed_reason()
    );
    plant.put("in/fan-20260301100230.csv", "t,speed\n").await;
    let done = plant.execute("s", "2026-03-01T10:10:00Z").await;
    assert!(
        done.failed_reason().unwrap().contains("has 61 files"),
        "{:?}",
        done.failed_reason()
    );
    plant
        .put("in/pump-1-20260301101500.csv", vec![b'x'; 5_000_001])
        .await;
    plant
        .put(
            "in/fan-20260301101500.csv",
            csv("fan", at("2026-03-01T10:15:00Z"), 0.0),
        )
        .await;
    let done = plant.execute("s", "2026-03-01T10:20:00Z").await;
    assert!(
        done.failed_reason().unwrap().contains("too large"),
        "{:?}",
        done.failed_reason()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_a_second_is_the_most_a_window_may_have() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    for (start, rows, extra) in [
        ("10:00", 300, ""),
        ("10:05", 300, "2026-03-01T10:09:59.5,1500\n"),
    ] {
        let start = at(&format!("2026-03-01T{start}:00Z"));
        let name = start.format("20260301%H%M%S");
        let lines = |values: &str| -> String {
            let line = |second| {
                let time = start + TimeDelta::seconds(second);
                format!("{},{values}\n", time.format("%Y-%m-%dT%H:%M:%S"))
            };
            (1..=rows).map(line).collect()
        };
        let pump = format!("t,flow,power\n{}", lines("10,50"));
        plant.put(&format!("in/pump-1-{name}.csv"), pump).await;
        let fan = format!("t,speed\n{}{extra}", lines("1500"));
        plant.put(&format!("in/fan-{name}.csv"), fan).await;
        let done = plant
            .execute("s", &(start + TimeDelta::minutes(5)).to_rfc3339())
            .await;
        match extra {
            "" => assert_eq!(
                done.status().unwrap().as_str(),
                "SUCCESS",
                "{:?}",
                done.failed_reason()
            ),
            _ => assert!(
                done.failed_reason()
                    .unwrap()
                    .contains("The window has 301 rows, the limit for PT5M is 300"),
                "{:?}",
                done.failed_reason()
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_of_more_than_a_page_is_listed_by_component() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.feed("2026-03-01T10:00:00Z").await;
    let old = at("2027-01-01T00:00:00Z");
    for n in 0..1001 {
        let stamp = (old + TimeDelta::seconds(n))
            .format("%Y%m%d%H%M%S")
            .to_string();
        plant.put(&format!("in/fan-{stamp}.csv"), "").await;
    }
    let done = plant.execute("s", "2026-03-01T10:05:00Z").await;
    assert_eq!(
        done.status().unwrap().as_str(),
        "SUCCESS",
        "{:?}",
        done.failed_reason()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_2021_notebook_gets_lines_its_parser_understands() {
    let plant = Plant::start().await;
    let tag = Tag::builder()
        .key("lookoutd:results-format")
        .value("v1")
        .build()
        .unwrap();
    plant.run("s", |request| request.tags(tag)).await;
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    let text = plant.get("out/2026-03-01T10:00:00Z/results.jsonl").await;
    assert_eq!(
        text.lines().next(),
        Some("{\"timestamp\": \"2026-03-01T10:01:00.000000\", \"prediction\": 0}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_scheduler_takes_files_that_come_after_its_wake_up() {
    let plant = Plant::start().await;
    let tag = Tag::builder()
        .key("lookoutd:wait")
        .value("60")
        .build()
        .unwrap();
    plant.run("s", |request| request.tags(tag)).await;
    plant.clock.advance_to(at("2026-03-01T10:05:00Z"));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(
        plant.executions("s").await[0].status().unwrap().as_str(),
        "IN_PROGRESS"
    );
    plant.feed("2026-03-01T10:00:00Z").await;
    let done = plant.execute("s", "2026-03-01T10:05:30Z").await;
    assert_eq!(
        done.status().unwrap().as_str(),
        "SUCCESS",
        "{:?}",
        done.failed_reason()
    );
}
