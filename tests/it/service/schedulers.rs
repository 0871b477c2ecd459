//! The state machine, restarts, and what each operation refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_lookoutequipment as l4e;
use aws_sdk_lookoutequipment::types::{DataUploadFrequency, Tag};
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::plant::{Plant, at, client, input};

#[tokio::test(flavor = "multi_thread")]
async fn every_call_in_every_state_answers_as_the_contract_says() {
    let plant = Plant::start().await;
    let created = plant
        .create("s", "model-1", |request| request)
        .await
        .unwrap();
    assert_eq!(created.status().unwrap().as_str(), "PENDING");
    let conflict = |error: l4e::Error| {
        assert!(
            matches!(error, l4e::Error::ConflictException(_)),
            "{error:?}"
        )
    };
    let refused = async |state: &str| {
        assert_eq!(plant.status("s").await, state);
        conflict(
            plant
                .api
                .start_inference_scheduler()
                .inference_scheduler_name("s")
                .send()
                .await
                .unwrap_err()
                .into(),
        );
        conflict(
            plant
                .api
                .update_inference_scheduler()
                .inference_scheduler_name("s")
                .send()
                .await
                .unwrap_err()
                .into(),
        );
        conflict(
            plant
                .api
                .delete_inference_scheduler()
                .inference_scheduler_name("s")
                .send()
                .await
                .unwrap_err()
                .into(),
        );
    };
    let stop = async || {
        let stopped = plant
            .api
            .stop_inference_scheduler()
            .inference_scheduler_name("s")
            .send()
            .await
            .unwrap();
        stopped.status().unwrap().as_str().to_owned()
    };
    refused("PENDING").await;
    plant.wait_status("s", "RUNNING").await;
    refused("RUNNING").await;
    assert_eq!(stop().await, "STOPPING");
    refused("STOPPING").await;
    assert_eq!(stop().await, "STOPPING");
    plant.wait_status("s", "STOPPED").await;
    assert_eq!(stop().await, "STOPPED");
    let update = plant
        .api
        .update_inference_scheduler()
        .inference_scheduler_name("s");
    update
        .data_upload_frequency(DataUploadFrequency::Pt1H)
        .data_delay_offset_in_minutes(7)
        .send()
        .await
        .unwrap();
    let described = plant
        .api
        .describe_inference_scheduler()
        .inference_scheduler_name("s")
        .send()
        .await
        .unwrap();
    assert_eq!(described.data_delay_offset_in_minutes(), Some(7));
    assert_eq!(
        described.data_upload_frequency(),
        Some(&DataUploadFrequency::Pt1H)
    );
    let started = plant
        .api
        .start_inference_scheduler()
        .inference_scheduler_name("s")
        .send()
        .await
        .unwrap();
    assert_eq!(started.status().unwrap().as_str(), "PENDING");
    assert_eq!(stop().await, "STOPPING");
    plant.wait_status("s", "STOPPED").await;
    plant.delete("s").await;
    let gone = plant
        .api
        .describe_inference_scheduler()
        .inference_scheduler_name("s")
        .send()
        .await
        .unwrap_err();
    assert!(gone.into_service_error().is_resource_not_found_exception());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_scheduler_per_model_and_one_request_per_token() {
    let plant = Plant::start().await;
    let token = |request: l4e::operation::create_inference_scheduler::builders::CreateInferenceSchedulerFluentBuilder| {
        request.client_token("token-1")
    };
    let first = plant.create("s", "model-1", token).await.unwrap();
    let again = plant.create("s", "model-1", token).await.unwrap();
    assert_eq!(
        first.inference_scheduler_arn(),
        again.inference_scheduler_arn()
    );
    let other = plant.create("t", "model-1", token).await.unwrap_err();
    assert!(
        matches!(other, l4e::Error::ConflictException(_)),
        "{other:?}"
    );
    let taken = plant
        .create("s", "model-1", |request| request)
        .await
        .unwrap_err();
    assert!(
        matches!(taken, l4e::Error::ConflictException(_)),
        "{taken:?}"
    );
    let second = plant
        .create("t", "model-1", |request| request)
        .await
        .unwrap_err();
    assert!(
        matches!(second, l4e::Error::ServiceQuotaExceededException(_)),
        "{second:?}"
    );
    let unknown = plant
        .create("t", "model-2", |request| request)
        .await
        .unwrap_err();
    assert!(
        matches!(unknown, l4e::Error::ResourceNotFoundException(_)),
        "{unknown:?}"
    );
    let offset = plant.create("t", "model-1", |request| {
        request.data_input_configuration(input("in/", "-", "EPOCH", "+99:99"))
    });
    let option = plant.create("t", "model-1", |request| {
        request.tags(
            Tag::builder()
                .key("lookoutd:wait")
                .value("long")
                .build()
                .unwrap(),
        )
    });
    let prefix = plant.create("t", "model-1", |request| {
        request.data_input_configuration(input("in", "-", "EPOCH", "+00:00"))
    });
    assert!(matches!(
        prefix.await.unwrap_err(),
        l4e::Error::ValidationException(_)
    ));
    let error = offset.await.unwrap_err();
    assert!(
        !matches!(error, l4e::Error::ResourceNotFoundException(_)),
        "{error:?}"
    );
    let _ = option.await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_scheduler_runs_after_a_restart_and_its_history_and_state_go_on() {
    let mut plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    plant.down().await;
    plant.up().await;
    assert_eq!(plant.status("s").await, "RUNNING");
    plant.feed("2026-03-01T10:05:00Z").await;
    let done = plant.execute("s", "2026-03-01T10:10:00Z").await;
    assert_eq!(
        done.status().unwrap().as_str(),
        "SUCCESS",
        "{:?}",
        done.failed_reason()
    );
    assert_eq!(plant.executions("s").await.len(), 2);
    let with_restart = plant.get("out/2026-03-01T10:05:00Z/results.jsonl").await;

    let steady = Plant::start().await;
    steady.run("s", |request| request).await;
    steady.feed("2026-03-01T10:00:00Z").await;
    steady.execute("s", "2026-03-01T10:05:00Z").await;
    steady.feed("2026-03-01T10:05:00Z").await;
    steady.execute("s", "2026-03-01T10:10:00Z").await;
    assert_eq!(
        with_restart,
        steady.get("out/2026-03-01T10:05:00Z/results.jsonl").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transition_interrupted_by_a_restart_completes_after_it() {
    let mut plant = Plant::start().await;
    plant
        .create("s", "model-1", |request| request)
        .await
        .unwrap();
    plant.down().await;
    plant.up().await;
    plant.wait_status("s", "RUNNING").await;
    plant
        .api
        .stop_inference_scheduler()
        .inference_scheduler_name("s")
        .send()
        .await
        .unwrap();
    plant.down().await;
    plant.up().await;
    plant.wait_status("s", "STOPPED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_missed_while_down_are_given_up_without_catch_up_and_run_with_it() {
    let mut plant = Plant::start().await;
    plant.run("gives-up", |request| request).await;
    plant.register("model-2").await;
    let tag = Tag::builder()
        .key("lookoutd:catch-up")
        .value("on")
        .build()
        .unwrap();
    let out = super::plant::output("caught/");
    plant
        .create("catches-up", "model-2", |request| {
            request.tags(tag).data_output_configuration(out)
        })
        .await
        .unwrap();
    plant.wait_status("catches-up", "RUNNING").await;
    for start in ["10:00", "10:05", "10:10", "10:15"] {
        plant.feed(&format!("2026-03-01T{start}:00Z")).await;
    }
    plant.down().await;
    plant.clock.advance_to(at("2026-03-01T10:20:00Z"));
    plant.up().await;
    plant.execute("gives-up", "2026-03-01T10:20:00Z").await;
    assert_eq!(plant.executions("gives-up").await.len(), 1);
    for _ in 0..2_400 {
        let done = plant.executions("catches-up").await;
        if done.len() == 4
            && done
                .iter()
                .all(|execution| execution.status().unwrap().as_str() == "SUCCESS")
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", plant.executions("catches-up").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_refused_with_the_codes_of_aws() {
    let plant = Plant::start().await;
    let code = async |id: &str, secret: &str| {
        let listed = client(plant.address, id, secret)
            .list_inference_schedulers()
            .send()
            .await;
        let error = listed.unwrap_err().into_service_error();
        l4e::error::ProvideErrorMetadata::code(&error)
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        code("AKIDOTHER", "secret").await,
        "UnrecognizedClientException"
    );
    assert_eq!(code("AKIDTEST", "other").await, "InvalidSignatureException");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_executions_come_in_pages_newest_first_without_gap_or_repeat() {
    let mut plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.down().await;
    let db = rusqlite::Connection::open(plant.directory.path().join("state/state.db")).unwrap();
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output, model_version,
                                model_version_arn)
         SELECT s.uuid, i * 300000000, (i - 1) * 300000000, i * 300000000,
                CASE WHEN i % 4 = 0 THEN 'FAILED' ELSE 'SUCCESS' END, s.input, s.output, 1, 'arn'
         FROM n, scheduler s",
        [],
    )
    .unwrap();
    drop(db);
    plant.up().await;
    let mut ends = Vec::new();
    let mut pages = plant
        .api
        .list_inference_executions()
        .inference_scheduler_name("s")
        .max_results(300)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        for execution in page.unwrap().inference_execution_summaries() {
            ends.push(execution.data_end_time().unwrap().secs());
        }
    }
    assert_eq!(ends, (1..=1000).rev().map(|i| i * 300).collect::<Vec<_>>());
    let filtered = plant
        .api
        .list_inference_executions()
        .inference_scheduler_name("s")
        .status(l4e::types::InferenceExecutionStatus::Failed)
        .data_start_time_after(l4e::primitives::DateTime::from_secs(3 * 300))
        .data_end_time_before(l4e::primitives::DateTime::from_secs(12 * 300))
        .send()
        .await
        .unwrap();
    let ends: Vec<i64> = filtered
        .inference_execution_summaries()
        .iter()
        .map(|execution| execution.data_end_time().unwrap().secs() / 300)
        .collect();
    assert_eq!(ends, [12, 8, 4]);
    assert_eq!(filtered.next_token(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_the_service_listens_on_loopback_only_and_a_stop_is_no_failure() {
    use lookoutd::service::{Auth, Config, Service, ServiceError};
    let directory = tempfile::tempdir().unwrap();
    let s3 = crate::s3_server::client("127.0.0.1:1".parse().unwrap());
    let shutdown = CancellationToken::new();
    let start = async |listen: &str, account: &str| {
        let config = Config {
            listen: listen.parse().unwrap(),
            data_dir: directory.path().to_owned(),
            region: "us-east-1".into(),
            account: account.into(),
            credentials: Auth::Open,
            catch_up: false,
            vitals: Default::default(),
            catch_up_max_age: lookoutd::service::CATCH_UP_MAX_AGE,
            cors: Default::default(),
            keep_executions: lookoutd::service::KEEP_EXECUTIONS,
        };
        let clock = lookoutd::clock::Clock::manual(at("2026-03-01T10:02:00Z"));
        Service::start(config, s3.clone(), clock, shutdown.clone()).await
    };
    let refused = start("0.0.0.0:0", "123456789012").await.err().unwrap();
    assert!(
        matches!(refused, ServiceError::OpenBeyondLoopback(_)),
        "{refused}"
    );
    assert!(matches!(
        start("127.0.0.1:0", "12").await.err(),
        Some(ServiceError::Account(_))
    ));
    let mut open = start("127.0.0.1:0", "123456789012").await.unwrap();
    client(open.address(), "anyone", "anything")
        .list_models()
        .send()
        .await
        .unwrap();

    // Loops that end because they were told to have not failed.
    shutdown.cancel();
    let failed = tokio::time::timeout(Duration::from_secs(1), open.failed()).await;
    assert!(failed.is_err(), "{failed:?}");
    open.stopped().await;
}

/// Counts the listings that a client asks for.
#[derive(Debug, Clone, Default)]
struct Listings(Arc<AtomicUsize>);

impl Intercept for Listings {
    fn name(&self) -> &'static str {
        "listings"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.request().uri().contains("list-type=2") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_without_data_is_explained_once_and_looked_at_again_for_one_listing() {
    const MISSED: usize = 40;
    let mut plant = Plant::start().await;
    let tag = |key: &str, value| Tag::builder().key(key).value(value).build().unwrap();
    plant
        .run("s", |request| {
            request
                .tags(tag("lookoutd:catch-up", "on"))
                .tags(tag("lookoutd:late-files", "score"))
        })
        .await;
    plant.down().await;
    let listings = Listings::default();
    let watched = plant.s3.config().to_builder().interceptor(listings.clone());
    plant.s3 = aws_sdk_s3::Client::from_conf(watched.build());
    plant.clock.advance(TimeDelta::minutes(5 * MISSED as i64));
    plant.up().await;
    let last = plant.clock.now().to_rfc3339();
    plant.execute("s", &last).await;
    assert_eq!(plant.executions("s").await.len(), MISSED);
    // Each is looked for once, asks twice for each of its two components what a person may have meant, and looks at twelve
    // others again.
    let asked = listings.0.load(Ordering::Relaxed);
    assert!(asked <= MISSED * (5 + 12), "{asked} listings");
}
