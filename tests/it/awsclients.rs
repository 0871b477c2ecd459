//! Clients and stores that are not ours: boto3 and the AWS CLI read the embedded bucket with nothing but its credentials file
//! and its address, and the feeder feeds SeaweedFS, also while that is restarted in the middle of an upload.
//!
//! `LOOKOUTD_PYTHON` names a Python with `tests/requirements.txt`, `LOOKOUTD_WEED` a SeaweedFS; without them these skip loudly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chrono::TimeDelta;
use lookoutd::clock::Clock;
use lookoutd::embedded::KeyPair;
use lookoutd::feed::State;
use lookoutd::s3::Bucket;
use sha2::{Digest, Sha256};

use crate::errors::Errors;
use crate::peers::{ACCESS_KEY, SECRET_KEY, SeaweedFs};
use crate::rig::*;

const START: &str = "2026-01-01T00:05:00Z";

const READ_ALL: &str = "
import boto3, hashlib, json, sys
s3 = boto3.client('s3', endpoint_url=sys.argv[1])
found = {}
for page in s3.get_paginator('list_objects_v2').paginate(Bucket=sys.argv[2], Prefix='input/'):
    for item in page.get('Contents', []):
        body = s3.get_object(Bucket=sys.argv[2], Key=item['Key'])['Body'].read()
        assert len(body) == item['Size'], item
        found[item['Key']] = hashlib.sha256(body).hexdigest()
print(json.dumps(found))
";

fn python() -> Option<PathBuf> {
    crate::skipped::python()
}

/// A program that knows no AWS account but the one in this file.
fn client_program(program: &Path, credentials: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        if name.starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_SHARED_CREDENTIALS_FILE", credentials);
    command
}

fn output(mut command: Command) -> String {
    let output = command.output().expect("the client runs");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn boto3_and_the_aws_cli_list_and_read_the_embedded_bucket_with_its_credentials_file_alone() {
    let Some(python) = python() else { return };
    let _errors = Errors::watch();
    let store = Store::start();
    let running = Rig::new(&store, "data", START).start().await;
    running.settle().await;
    running.clock.advance(TimeDelta::minutes(5));
    running.settle().await;
    running.stop().await;
    let expected = Wave::default().objects(windows(START, 2));

    let mut boto = client_program(&python, &store.credentials());
    boto.args(["-c", READ_ALL, &store.proxy.endpoint(), BUCKET]);
    let mut found: BTreeMap<String, String> =
        serde_json::from_str(&output(boto)).expect("one JSON object");
    found.retain(|key, _| !key.contains("_lookoutd/"));
    let sums: BTreeMap<String, String> = expected
        .iter()
        .map(|(key, bytes)| {
            let sum = Sha256::digest(bytes);
            (
                key.clone(),
                sum.iter().map(|b| format!("{b:02x}")).collect(),
            )
        })
        .collect();
    assert_eq!(found, sums);

    let aws = python.with_file_name("aws");
    let aws = |arguments: &[&str]| {
        let mut command = client_program(&aws, &store.credentials());
        command.args(["--endpoint-url", &store.proxy.endpoint(), "s3"]);
        command.args(arguments);
        output(command)
    };
    let listed = aws(&["ls", &format!("s3://{BUCKET}/{PREFIX}")]);
    for key in expected.keys() {
        let name = key.trim_start_matches(PREFIX);
        assert!(listed.contains(name), "{name} is not in: {listed}");
    }
    let (key, bytes) = expected.first_key_value().expect("an object");
    let copied = aws(&["cp", &format!("s3://{BUCKET}/{key}"), "-"]);
    assert_eq!(copied.as_bytes(), bytes);
}

/// The bucket's input files, read through the store's own API.
async fn read_all(client: &aws_sdk_s3::Client) -> Objects {
    let bucket = Bucket::new(client.clone(), BUCKET);
    let mut objects = Objects::new();
    for key in bucket.list(PREFIX, "", |_| true).await.expect("a listing") {
        if !key.contains("_lookoutd/") {
            let bytes = bucket.get(&key).await.expect("an object");
            objects.insert(key, bytes.expect("it is listed"));
        }
    }
    objects
}

#[tokio::test]
async fn a_real_server_is_fed_and_killed_and_restarted_in_the_middle_and_has_every_file_once() {
    let Some(mut peer) = SeaweedFs::start() else {
        return;
    };
    let errors = Errors::watch();
    let admin = peer.client();
    admin
        .create_bucket()
        .bucket(BUCKET)
        .send()
        .await
        .expect("a bucket");
    let keys = KeyPair {
        access_key: ACCESS_KEY.into(),
        secret_key: SECRET_KEY.into(),
    };
    let directory = directory();
    let mut config = feed_config();
    config.drain_per_minute = 6_000;
    let running = Rig {
        config,
        source: Wave::default(),
        clock: Clock::manual(at(START)),
        disk: std::sync::Arc::new(lookoutd::feed::disk::LocalDisk),
        data_dir: directory.path().to_owned(),
        bucket: Bucket::new(client(&peer.endpoint(), &keys), BUCKET),
    }
    .start()
    .await;
    running.settle().await;
    // A backlog of an hour is on its way when the power goes.
    running.clock.advance(TimeDelta::hours(1));
    running
        .until("some of the backlog", |entries| {
            entries.iter().filter(|e| e.state == State::Shipped).count() > 3
        })
        .await;
    peer.kill();
    running.clock.advance(TimeDelta::minutes(5));
    tokio::time::sleep(Duration::from_secs(1)).await;
    // On a thread of its own, so that the feeder goes on trying meanwhile.
    let peer = tokio::task::spawn_blocking(move || {
        peer.restart();
        peer
    })
    .await
    .expect("the peer");
    running.settle().await;
    running.stop().await;
    let entries = states(directory.path());
    assert_eq!(entries.len(), 14);
    assert!(
        entries.iter().all(|(_, state)| *state == State::Shipped),
        "{entries:?}"
    );
    assert_same(
        &read_all(&peer.client()).await,
        &Wave::default().objects(windows(START, 14)),
    );
    assert_spool_is_empty(directory.path());

    // Somebody else's bytes are found by checksum, and left alone.
    let theirs = "input/hall_20260101011500.csv";
    let ours = Wave::default().objects([window("2026-01-01T01:15:00Z")]);
    let mut bytes = ours[theirs].clone();
    bytes[30] ^= 1;
    admin_put(&peer.client(), theirs, bytes.clone()).await;
    let mut rig = Rig {
        config: feed_config(),
        source: Wave::default(),
        clock: Clock::manual(at("2026-01-01T01:15:00Z")),
        disk: std::sync::Arc::new(lookoutd::feed::disk::LocalDisk),
        data_dir: directory.path().to_owned(),
        bucket: Bucket::new(client(&peer.endpoint(), &keys), BUCKET),
    };
    rig.config.drain_per_minute = 6_000;
    let running = rig.start().await;
    running
        .until("quarantined", |entries| {
            entries[0].state == State::Quarantined
        })
        .await;
    // It is recorded first, and said then.
    errors.expect_soon("window set aside").await;
    running.stop().await;
    assert_eq!(read_all(&peer.client()).await[theirs], bytes);
}

async fn admin_put(client: &aws_sdk_s3::Client, key: &str, bytes: Vec<u8>) {
    client
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .body(bytes.into())
        .send()
        .await
        .expect("it is stored");
}
