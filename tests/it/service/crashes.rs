//! Crashes between the durable steps of an execution: claim, results object, end. Each step is brought about by putting
//! the state back to what it was before the next one.

use std::path::Path;
use std::time::Duration;

use crate::chaos::tcp::{Network, Weather};

use super::plant::{Plant, at, csv, output};

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A plant that has scored the window of 10:00, is down, has the files of 10:05, and a copy of its state.
async fn before_the_second_window() -> Plant {
    let mut plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    plant.feed("2026-03-01T10:05:00Z").await;
    plant.down().await;
    copy(
        &plant.directory.path().join("state"),
        &plant.directory.path().join("before"),
    );
    plant
}

impl Plant {
    /// Scores the second window, then puts the state back to before it was claimed: only the results object survives.
    async fn lose_everything_but_the_results(&mut self) -> String {
        self.up().await;
        let done = self.execute("s", "2026-03-01T10:10:00Z").await;
        assert_eq!(
            done.status().unwrap().as_str(),
            "SUCCESS",
            "{:?}",
            done.failed_reason()
        );
        self.down().await;
        copy(
            &self.directory.path().join("before"),
            &self.directory.path().join("state"),
        );
        self.get("out/2026-03-01T10:05:00Z/results.jsonl").await
    }

    fn sql(&self, statement: &str) {
        let db = rusqlite::Connection::open(self.directory.path().join("state/state.db")).unwrap();
        assert_eq!(db.execute(statement, []).unwrap(), 1);
    }

    async fn assert_one_success_each(&mut self) {
        let done = self.execute("s", "2026-03-01T10:10:00Z").await;
        assert_eq!(
            done.status().unwrap().as_str(),
            "SUCCESS",
            "{:?}",
            done.failed_reason()
        );
        let ends: Vec<i64> = self
            .executions("s")
            .await
            .iter()
            .map(|e| e.data_end_time().unwrap().secs())
            .collect();
        assert_eq!(
            ends,
            [
                at("2026-03-01T10:10:00Z").timestamp(),
                at("2026-03-01T10:05:00Z").timestamp()
            ]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_results_object_put_before_the_crash_is_recognised_and_left_alone() {
    let mut plant = before_the_second_window().await;
    let written = plant.lose_everything_but_the_results().await;
    plant.up().await;
    plant.assert_one_success_each().await;
    assert_eq!(
        plant.get("out/2026-03-01T10:05:00Z/results.jsonl").await,
        written
    );
    // The scoring state went on as if nothing had happened.
    plant.feed("2026-03-01T10:10:00Z").await;
    plant.execute("s", "2026-03-01T10:15:00Z").await;
    let third = plant.get("out/2026-03-01T10:10:00Z/results.jsonl").await;
    let mut steady = before_the_second_window().await;
    steady.up().await;
    steady.execute("s", "2026-03-01T10:10:00Z").await;
    steady.feed("2026-03-01T10:10:00Z").await;
    steady.execute("s", "2026-03-01T10:15:00Z").await;
    assert_eq!(
        third,
        steady.get("out/2026-03-01T10:10:00Z/results.jsonl").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_in_progress_at_the_crash_is_run_to_its_end_before_the_next() {
    for results_were_put in [false, true] {
        let mut plant = before_the_second_window().await;
        if results_were_put {
            plant.lose_everything_but_the_results().await;
        }
        plant.sql(
            "INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output,
                                    configuration_id, model_version, model_version_arn)
             SELECT scheduler_uuid, boundary_us + 300000000, boundary_us, boundary_us + 300000000, 'IN_PROGRESS', input,
                    output, configuration_id, model_version, model_version_arn FROM execution",
        );
        plant.sql("UPDATE scheduler SET next_boundary_us = next_boundary_us + 300000000, due_us = due_us + 300000000");
        plant.up().await;
        plant.assert_one_success_each().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_written_first_stay_when_the_input_changed_before_the_redo() {
    let mut plant = before_the_second_window().await;
    let written = plant.lose_everything_but_the_results().await;
    let start = at("2026-03-01T10:05:00Z");
    plant
        .put("in/pump-1-20260301100500.csv", csv("pump-1", start, 30.0))
        .await;
    plant.up().await;
    plant.assert_one_success_each().await;
    assert_eq!(
        plant.get("out/2026-03-01T10:05:00Z/results.jsonl").await,
        written
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_another_scheduler_are_never_claimed_as_ones_own() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.register("model-2").await;
    plant
        .create("t", "model-2", |request| {
            let other = super::plant::input("other/", "-", "yyyyMMddHHmmss", "+00:00");
            request
                .data_input_configuration(other)
                .data_output_configuration(output("out/"))
        })
        .await
        .unwrap();
    plant.wait_status("t", "RUNNING").await;
    plant.feed("2026-03-01T10:00:00Z").await;
    let start = at("2026-03-01T10:00:00Z");
    plant
        .feed_named(
            start,
            |component, stamp| format!("other/{component}-{stamp}.csv"),
            30.0,
        )
        .await;
    let first = plant.execute("s", "2026-03-01T10:05:00Z").await;
    let second = plant.execute("t", "2026-03-01T10:05:00Z").await;
    let mut statuses = [
        first.status().unwrap().as_str(),
        second.status().unwrap().as_str(),
    ];
    statuses.sort_unstable();
    assert_eq!(statuses, ["FAILED", "SUCCESS"]);
    let reason = first.failed_reason().or(second.failed_reason()).unwrap();
    assert!(
        reason.contains("give every scheduler an output prefix of its own"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_file_is_scored_late_and_marked_when_asked_for() {
    let plant = Plant::start().await;
    let tag = aws_sdk_lookoutequipment::types::Tag::builder()
        .key("lookoutd:late-files")
        .value("score")
        .build()
        .unwrap();
    plant.run("s", |request| request.tags(tag)).await;
    let failed = plant.execute("s", "2026-03-01T10:05:00Z").await;
    assert_eq!(failed.status().unwrap().as_str(), "FAILED");
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.feed("2026-03-01T10:05:00Z").await;
    plant.execute("s", "2026-03-01T10:10:00Z").await;
    for _ in 0..2_400 {
        let executions = plant.executions("s").await;
        if executions
            .iter()
            .all(|execution| execution.status().unwrap().as_str() == "SUCCESS")
        {
            let record = plant.get("out/2026-03-01T10:00:00Z/late.json").await;
            assert!(record.contains("\"late\":true"), "{record}");
            assert_eq!(
                plant
                    .get("out/2026-03-01T10:00:00Z/results.jsonl")
                    .await
                    .lines()
                    .count(),
                5
            );
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!(
        "the late window was not scored: {:?}",
        plant.executions("s").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_waits_for_a_store_that_is_away_instead_of_failing() {
    let mut plant = before_the_second_window().await;
    let network = Network::before(plant.s3_address);
    plant.s3 = crate::s3_server::client(network.endpoint()["http://".len()..].parse().unwrap());
    plant.up().await;
    network.set(Weather::Refusing);
    plant.clock.advance_to(at("2026-03-01T10:10:00Z"));
    // Longer than the SDK itself tries.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let executions = plant.executions("s").await;
    assert_eq!(executions.len(), 2);
    assert_eq!(
        executions[0].status().unwrap().as_str(),
        "IN_PROGRESS",
        "{:?}",
        executions[0].failed_reason()
    );
    network.set(Weather::Clear);
    plant.assert_one_success_each().await;
}
