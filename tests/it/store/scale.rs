//! What other people's small stores came to grief on: logs that grow under a reader, busy locks, shared disks, space that never
//! comes back, disks that fail now and then.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use lookoutd::store::export::Contents;
use lookoutd::store::retention::{Retention, Rule};
use lookoutd::store::{OpenError, Options, Step, Store};

use super::{BUCKET, get, put, serve};

/// A client that reads one object for as long as others write keeps no snapshot open: the log is used again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_reads_for_long_lets_no_log_grow() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let served = serve(&root, Options::default()).await;
    let large = vec![b'r'; 8 << 20];
    put(&served.client, "large", &large).await.unwrap();
    let asked = served.client.get_object().bucket(BUCKET).key("large");
    let mut reading = asked.send().await.unwrap().body;
    let mut read = reading.next().await.unwrap().unwrap().len();
    let log = root.join("store.db-wal");
    let largest = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..8u8)
        .map(|writer| {
            let (store, log, largest) = (served.store.clone(), log.clone(), largest.clone());
            std::thread::spawn(move || {
                for n in 0..250 {
                    let key = format!("{writer}/{n:03}");
                    store.put_blocking(BUCKET, &key, &[writer; 60_000]).unwrap();
                    let size = std::fs::metadata(&log).map_or(0, |log| log.len());
                    largest.fetch_max(size, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while writers.iter().any(|writer| !writer.is_finished()) {
        let page = served.client.list_objects_v2().bucket(BUCKET).max_keys(200);
        page.send().await.unwrap();
        if let Some(some) = reading.next().await {
            read += some.unwrap().len();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for writer in writers {
        writer.join().unwrap();
    }
    while let Some(some) = reading.next().await {
        read += some.unwrap().len();
    }
    assert_eq!(read, large.len());
    let largest = largest.load(Ordering::Relaxed);
    // 120 MB were written.
    assert!(largest > 0 && largest <= 64 << 20, "{largest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_program_holds_is_slow_down_with_a_time_to_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let served = serve(&root, Options::default()).await;
    let shell = rusqlite::Connection::open(root.join("store.db")).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let client = once(&served.client);
    let sent = client.put_object().bucket(BUCKET).key("k");
    let refused = sent.body(ByteStream::from_static(b"x")).send().await;
    let refused = refused.unwrap_err();
    let answer = refused.raw_response().unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    assert_eq!(answer.headers().get("retry-after"), Some("1"));
    let meta = aws_sdk_s3::error::ProvideErrorMetadata::code(&refused);
    assert_eq!(meta, Some("SlowDown"));
    shell.execute_batch("ROLLBACK").unwrap();
    put(&served.client, "k", b"x").await.unwrap();
}

#[test]
fn a_disk_that_others_share_is_refused_with_the_remedy_and_used_alone_where_that_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let shared = Options {
        kind_of: |_| Some("NFS"),
        ..Options::default()
    };
    let refused = Store::open(&root, &shared).unwrap_err();
    assert!(matches!(refused, OpenError::SharedDisk { kind: "NFS", .. }));
    let said = refused.to_string();
    assert!(
        said.contains("set data_dir") && said.contains("store.shared_disk"),
        "{said}"
    );
    assert!(!root.join("store.db").exists());
    let wanted = Options {
        shared_disk: true,
        ..shared
    };
    let store = Store::open(&root, &wanted).unwrap();
    store.create_bucket(BUCKET).unwrap();
    for size in [10, 100_000] {
        store
            .put_blocking(BUCKET, &format!("k{size}"), &vec![7; size])
            .unwrap();
    }
    assert_eq!(store.contents(BUCKET).unwrap().len(), 2);
    // Whoever looks at it from outside is told that there is one connection, and has it when that is free.
    let refused = Contents::open_with(&root, &wanted).unwrap_err().to_string();
    assert!(refused.contains("stop it first"), "{refused}");
    assert!(
        !root.join("store.db-shm").exists(),
        "shared memory is of one machine"
    );
    drop(store);
    let report = Contents::open_with(&root, &wanted)
        .unwrap()
        .verify()
        .unwrap();
    assert_eq!((report.objects, report.damaged.len()), (2, 0));
    assert!(!root.join("store.db-shm").exists());
    assert_eq!(
        Store::open(&root, &wanted)
            .unwrap()
            .contents(BUCKET)
            .unwrap()
            .len(),
        2
    );
}

/// Most of a store is deleted while it is written to: its file becomes small again, and no write waits long for that.
#[test]
fn what_retention_deletes_is_given_back_in_steps_that_let_writes_pass() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    let fill: Vec<_> = (0..8)
        .map(|filler| {
            let store = store.clone();
            std::thread::spawn(move || {
                for n in 0..100 {
                    store
                        .put_blocking(BUCKET, &format!("in/{filler}-{n}"), &[1; 50_000])
                        .unwrap();
                }
            })
        })
        .collect();
    for filler in fill {
        filler.join().unwrap();
    }
    let rule = Rule {
        bucket: None,
        prefix: "in/".into(),
        keep: Some(Duration::from_secs(60)),
        form: None,
    };
    let retention = Retention::new(store.clone(), vec![rule]);
    let now = chrono::Utc::now();
    retention.look(now).unwrap();
    let before = retention.standing().unwrap().figures;
    assert!(before.file_bytes > 40_000_000, "{before:?}");
    let (stop, worst) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Mutex::new(Duration::ZERO)),
    );
    let writer = std::thread::spawn({
        let (store, stop, worst) = (store.clone(), stop.clone(), worst.clone());
        move || {
            while !stop.load(Ordering::SeqCst) {
                let began = Instant::now();
                store.put_blocking(BUCKET, "live", &[2; 3_000]).unwrap();
                let mut worst = worst.lock().unwrap();
                *worst = (*worst).max(began.elapsed());
            }
        }
    });
    let later = now + chrono::TimeDelta::minutes(10);
    let done = retention
        .pass(later.timestamp_millis(), None, true)
        .unwrap();
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    assert_eq!((done[0].due, done[0].held), (800, false));
    retention.look(later).unwrap();
    let after = retention.standing().unwrap().figures;
    assert_eq!(after.objects, 1);
    assert!(
        after.file_bytes < before.file_bytes / 10 && after.free_bytes < 1_000_000,
        "{after:?}"
    );
    // Steps are of milliseconds; a busy machine takes its time between them.
    let worst = *worst.lock().unwrap();
    assert!(worst < Duration::from_secs(2), "{worst:?}");
}

/// The same client, which asks once.
fn once(client: &Client) -> Client {
    let config = client.config().to_builder();
    Client::from_conf(config.retry_config(RetryConfig::disabled()).build())
}

/// What may be under a key: after a refusal it is the new or the old.
type Possible = BTreeMap<String, Vec<Option<Vec<u8>>>>;

/// One operation that may be refused; what it would leave, if it is done.
async fn attempt(client: &Client, key: &str, kind: u8, body: Vec<u8>) -> (bool, Option<Vec<u8>>) {
    match kind {
        0..=4 => {
            let sent = client.put_object().bucket(BUCKET).key(key);
            let sent = sent.body(ByteStream::from(body.clone())).send().await;
            (sent.is_ok(), Some(body))
        }
        5 | 6 => {
            let sent = client.delete_object().bucket(BUCKET).key(key).send().await;
            (sent.is_ok(), None)
        }
        _ => (
            in_parts(client, key, body.clone()).await.is_some(),
            Some(body),
        ),
    }
}

async fn in_parts(client: &Client, key: &str, body: Vec<u8>) -> Option<()> {
    let begun = client.create_multipart_upload().bucket(BUCKET).key(key);
    let upload = begun.send().await.ok()?.upload_id?;
    let part = client.upload_part().bucket(BUCKET).key(key);
    let part = part
        .upload_id(&upload)
        .part_number(1)
        .body(ByteStream::from(body));
    let done = CompletedPart::builder()
        .part_number(1)
        .e_tag(part.send().await.ok()?.e_tag?);
    let all = CompletedMultipartUpload::builder()
        .parts(done.build())
        .build();
    let completed = client.complete_multipart_upload().bucket(BUCKET).key(key);
    let completed = completed.upload_id(&upload).multipart_upload(all);
    completed.send().await.ok().map(drop)
}

/// Eight writers through the SDK on a disk that is full or fails at any durable step, now and then: what was acknowledged is
/// there byte for byte, also after a restart; what was refused is the old or the new, whole; of a race one at most has won.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_writers_on_a_failing_disk_find_what_was_acknowledged() {
    let given = std::env::var("LOOKOUTD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("LOOKOUTD_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let failing = Arc::new(AtomicBool::new(false));
    let (on, chance) = (failing.clone(), Mutex::new(fastrand::Rng::with_seed(seed)));
    let options = Options {
        fault: Some(Arc::new(move |step| {
            let mut chance = chance.lock().unwrap();
            if !on.load(Ordering::SeqCst) || chance.u8(..) >= 24 {
                return Ok(());
            }
            // EIO has no kind of its own.
            Err(match chance.bool() && step != Step::Remove {
                true => ErrorKind::StorageFull.into(),
                false => std::io::Error::from_raw_os_error(5),
            })
        })),
        ..Options::default()
    };
    let served = serve(&root, options).await;
    failing.store(true, Ordering::SeqCst);
    let writers = (0..8u64).map(|writer| {
        let client = once(&served.client);
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed ^ (writer + 1));
            let (mut model, mut refused, mut won) = (Possible::new(), 0, Vec::new());
            for n in 0..40u8 {
                let key = format!("{writer}/{}", random.u8(..5));
                let size = [0, 3_000, 65_537, 300_000][random.usize(..4)];
                let body = vec![n; size + usize::from(n)];
                let (done, left) = attempt(&client, &key, random.u8(..9), body).await;
                let possible = model.entry(key.clone()).or_insert_with(|| vec![None]);
                match done {
                    true => *possible = vec![left],
                    false => possible.push(left),
                }
                refused += u32::from(!done);
                if random.bool() {
                    let found = get(&client, &key).await;
                    assert!(model[&key].contains(&found), "{key}");
                    model.insert(key, vec![found]);
                }
                if n % 8 == 0 {
                    let race = client.put_object().bucket(BUCKET).key(format!("race/{n}"));
                    let race = race
                        .if_none_match("*")
                        .body(ByteStream::from(vec![writer as u8; 70_000]));
                    if race.send().await.is_ok() {
                        won.push((n, writer));
                    }
                }
            }
            (model, refused, won)
        })
    });
    let (mut all, mut refused, mut won) = (Possible::new(), 0, BTreeMap::new());
    for writer in writers.collect::<Vec<_>>() {
        let (model, some, mine) = writer.await.unwrap();
        all.extend(model);
        refused += some;
        for (race, writer) in mine {
            assert_eq!(won.insert(race, writer), None, "two have won race {race}");
        }
    }
    assert!(refused > 0, "no fault came");
    failing.store(false, Ordering::SeqCst);
    let here = served.store.contents(BUCKET).unwrap();
    drop(served);
    let store = loop {
        match Store::open(&root, &Options::default()) {
            Err(OpenError::Held { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            opened => break opened.unwrap(),
        }
    };
    let after = store.contents(BUCKET).unwrap();
    assert!(here == after, "a restart changes nothing");
    for (key, possible) in &all {
        assert!(possible.contains(&after.get(key).cloned()), "{key}");
    }
    for (race, writer) in won {
        assert!(
            after[&format!("race/{race}")] == vec![writer as u8; 70_000],
            "race {race}"
        );
    }
    drop(store);
    let verified = Contents::open(&root).unwrap().verify().unwrap();
    assert_eq!(verified.damaged, Vec::<String>::new());
}
