//! The store behind the embedded S3: what clients expect of it, what an older version left, and what happens when the disk, the
//! database or another process is in the way.

mod clients;
mod crashes;
mod harm;
mod kept;
mod room;
mod scale;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use lookoutd::embedded::{EmbeddedS3, KeyPair};
use lookoutd::ops::cors::Cors;
use lookoutd::store::export::Contents;
use lookoutd::store::{Fault, OpenError, Options, Step, Store};
use tokio_util::sync::CancellationToken;

use crate::errors::Errors;
use crate::s3_server::KEY;

const BUCKET: &str = "plant";

fn keys() -> KeyPair {
    KeyPair {
        access_key: KEY.0.into(),
        secret_key: KEY.1.into(),
    }
}

/// A store, the client of it, and what stops it.
struct Served {
    store: Store,
    client: Client,
    url: String,
    _stop: tokio_util::sync::DropGuard,
}

async fn serve(root: &Path, options: Options) -> Served {
    let stop = CancellationToken::new();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = EmbeddedS3::start_with(
        root,
        any,
        &keys(),
        None,
        Cors::default(),
        options,
        stop.clone(),
    )
    .await
    .unwrap();
    server.create_bucket(BUCKET).unwrap();
    let url = server.endpoint_url();
    Served {
        store: server.store().clone(),
        client: lookoutd::s3::local_client(&url, KEY.0, KEY.1),
        url,
        _stop: stop.drop_guard(),
    }
}

async fn put(client: &Client, key: &str, bytes: &[u8]) -> Result<(), u16> {
    let body = ByteStream::from(bytes.to_vec());
    let sent = client.put_object().bucket(BUCKET).key(key).body(body);
    let config = client
        .config()
        .to_builder()
        .retry_config(aws_config::retry::RetryConfig::disabled());
    let sent = sent.customize().config_override(config).send().await;
    sent.map(drop)
        .map_err(|error| error.raw_response().map_or(0, |raw| raw.status().as_u16()))
}

async fn get(client: &Client, key: &str) -> Option<Vec<u8>> {
    let got = client
        .get_object()
        .bucket(BUCKET)
        .key(key)
        .send()
        .await
        .ok()?;
    Some(got.body.collect().await.unwrap().to_vec())
}

fn fault(of: impl Fn(Step) -> Option<ErrorKind> + Send + Sync + 'static) -> Fault {
    Arc::new(move |step| of(step).map_or(Ok(()), |kind| Err(kind.into())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_behaves_as_boto3_expects() {
    let Some(python) = crate::skipped::python() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let served = serve(&directory.path().join("s3"), Options::default()).await;
    let url = served.url.clone();
    let run = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .args(["tests/store/suite.py", &url, KEY.0, KEY.1])
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output()
            .unwrap()
    });
    let output = run.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
}

/// What the version before this one wrote: two buckets, headers, checksums, one of them of an earlier object.
fn older(directory: &Path) {
    let packed = std::fs::File::open("tests/store/older.tar.gz").unwrap();
    let mut packed = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    packed.unpack(directory).unwrap();
}

fn assert_taken_over(store: &Store) {
    let first = store.contents("lookoutd").unwrap();
    let keys: Vec<_> = first.keys().map(String::as_str).collect();
    let deep = "input/deep/er/a b+c%ü.csv";
    assert_eq!(
        keys,
        [
            "empty",
            "folder/in/one",
            deep,
            "input/pump_20260101000500.csv"
        ]
    );
    assert_eq!(first[deep], b"x");
    let second = store.contents("second").unwrap();
    assert_eq!(second["over"], b"later and longer");
    assert_eq!(second["large"], b"0123456789abcdef".repeat(6000));
    assert_eq!(second.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_version_left_is_taken_over_once_and_whole() {
    let directory = tempfile::tempdir().unwrap();
    older(directory.path());
    let root = directory.path().join("s3");
    let served = serve(&root, Options::default()).await;
    assert_taken_over(&served.store);
    let head = |bucket: &str, key: &str| {
        let asked = served.client.head_object().bucket(bucket).key(key);
        asked
            .checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled)
            .send()
    };
    let deep = head("lookoutd", "input/deep/er/a b+c%ü.csv").await.unwrap();
    assert_eq!(deep.content_type(), Some("text/csv"));
    assert_eq!(deep.cache_control(), Some("no-cache"));
    assert_eq!(deep.metadata().unwrap()["plant"], "north");
    assert!(deep.checksum_sha256().is_some());
    let over = head("second", "over").await.unwrap();
    assert!(
        over.e_tag().unwrap().ends_with("-1\""),
        "{:?}",
        over.e_tag()
    );
    assert_eq!(over.checksum_crc32(), None, "of an earlier object");
    // What is deleted now does not come back.
    served.store.remove_blocking("second", "over").unwrap();
    drop(served);
    let again = Store::open(&root, &Options::default()).unwrap();
    assert_eq!(again.contents("second").unwrap().len(), 1);
    let vacuum: i64 = again
        .read_blocking(|db| Ok(db.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?))
        .unwrap();
    assert_eq!(vacuum, 2, "what is deleted is given back piece by piece");
    // A week later the older version's directory goes: at a start, or while the store is used.
    let (old, later) = (
        directory.path().join("s3.old"),
        chrono::Utc::now() + chrono::TimeDelta::days(8),
    );
    let retention = lookoutd::store::retention::Retention::new(again.clone(), Vec::new());
    retention
        .pass(chrono::Utc::now().timestamp_millis(), None, false)
        .unwrap();
    assert!(old.is_dir());
    retention
        .pass(later.timestamp_millis(), None, false)
        .unwrap();
    assert!(!old.exists());
    drop((retention, again));
    std::fs::create_dir(&old).unwrap();
    let options = Options {
        clock: lookoutd::clock::Clock::manual(later),
        ..Options::default()
    };
    drop(Store::open(&root, &options).unwrap());
    assert!(!old.exists());
}

#[test]
fn a_disk_that_others_share_is_refused_before_what_an_older_version_left_is_moved() {
    let directory = tempfile::tempdir().unwrap();
    older(directory.path());
    let root = directory.path().join("s3");
    let shared = Options {
        kind_of: |_| Some("NFS"),
        ..Options::default()
    };
    let refused = Store::open(&root, &shared).unwrap_err();
    assert!(matches!(refused, OpenError::SharedDisk { .. }), "{refused}");
    assert!(root.join("lookoutd").is_dir(), "it stays where it was");
    assert!(!directory.path().join("s3.old").exists());
    assert_taken_over(&Store::open(&root, &Options::default()).unwrap());
}

#[test]
fn a_takeover_that_was_cut_short_goes_on_with_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    older(directory.path());
    let root = directory.path().join("s3");
    for step in [
        Step::Write,
        Step::SyncFile,
        Step::Rename,
        Step::SyncDirectory,
    ] {
        let broken = Options {
            fault: Some(fault(move |at| (at == step).then_some(ErrorKind::Other))),
            ..Options::default()
        };
        assert!(Store::open(&root, &broken).is_err(), "{step:?}");
    }
    assert_taken_over(&Store::open(&root, &Options::default()).unwrap());
}

#[test]
fn a_store_that_is_lost_damaged_newer_or_held_is_refused_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    store.put_blocking(BUCKET, "large", &[7; 100_000]).unwrap();
    for n in 0..200 {
        store
            .put_blocking(BUCKET, &format!("k{n}"), &[n; 3000])
            .unwrap();
    }
    assert!(matches!(
        Store::open(&root, &Options::default()),
        Err(OpenError::Held { .. })
    ));
    drop(store);
    let database = root.join("store.db");
    let whole = std::fs::read(&database).unwrap();

    std::fs::remove_file(&database).unwrap();
    let lost = Store::open(&root, &Options::default()).unwrap_err();
    assert!(matches!(lost, OpenError::Lost { bodies: 1, .. }), "{lost}");
    assert!(
        lost.to_string()
            .contains("put the database back from a backup"),
        "{lost}"
    );
    assert!(!database.exists());

    let mut harmed = whole.clone();
    for page in (1..harmed.len() / 4096).step_by(3) {
        harmed[page * 4096..page * 4096 + 64].fill(0xa5);
    }
    std::fs::write(&database, &harmed).unwrap();
    let damaged = Store::open(&root, &Options::default()).unwrap_err();
    assert!(matches!(damaged, OpenError::Damaged { .. }), "{damaged}");
    assert!(
        damaged.to_string().contains("lookoutd store export"),
        "{damaged}"
    );
    assert_eq!(std::fs::read(&database).unwrap(), harmed);

    std::fs::write(&database, &whole).unwrap();
    let newer = rusqlite::Connection::open(&database).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    assert!(matches!(
        Store::open(&root, &Options::default()),
        Err(OpenError::Newer { found: 99, .. })
    ));

    std::fs::write(&database, &whole).unwrap();
    let store = Store::open(&root, &Options::default()).unwrap();
    assert_eq!(store.contents(BUCKET).unwrap().len(), 201);
}

/// Nothing but small objects, all of them in rows: no body tells of the database that was there.
#[test]
fn a_store_of_small_objects_that_is_lost_is_refused_too() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    store.put_blocking(BUCKET, "small", &[7; 3000]).unwrap();
    drop(store);
    let database = root.join("store.db");
    assert!(!root.join("store.db-wal").exists());
    let moved = directory.path().join("moved");
    std::fs::rename(&database, &moved).unwrap();
    for _ in 0..2 {
        let lost = Store::open(&root, &Options::default()).unwrap_err();
        assert!(matches!(lost, OpenError::Lost { bodies: 0, .. }), "{lost}");
        assert!(!database.exists());
    }
    // What the refusal says helps: the database put back, or the directory moved away.
    std::fs::rename(&moved, &database).unwrap();
    let store = Store::open(&root, &Options::default()).unwrap();
    assert_eq!(store.contents(BUCKET).unwrap().len(), 1);
    drop(store);
    std::fs::remove_file(&database).unwrap();
    std::fs::rename(&root, &moved).unwrap();
    drop(Store::open(&root, &Options::default()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_that_holds_the_database_makes_writes_wait_and_no_read_fail() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let served = serve(&root, Options::default()).await;
    put(&served.client, "before", b"1").await.unwrap();
    let shell = rusqlite::Connection::open(root.join("store.db")).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(put(&served.client, "meanwhile", b"2").await, Err(503));
    assert_eq!(
        get(&served.client, "before").await.as_deref(),
        Some(&b"1"[..])
    );
    shell.execute_batch("ROLLBACK").unwrap();
    put(&served.client, "after", b"3").await.unwrap();
    assert_eq!(get(&served.client, "meanwhile").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_reads_go_on_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let full = Arc::new(Mutex::new(None::<Step>));
    let seen = full.clone();
    let options = Options {
        fault: Some(fault(move |step| {
            (*seen.lock().unwrap() == Some(step)).then_some(ErrorKind::StorageFull)
        })),
        ..Options::default()
    };
    let served = serve(&directory.path().join("s3"), options).await;
    let large = vec![b'x'; 300_000];
    put(&served.client, "there", &large).await.unwrap();
    for step in [
        Step::Write,
        Step::SyncFile,
        Step::Rename,
        Step::SyncDirectory,
        Step::Commit,
    ] {
        *full.lock().unwrap() = Some(step);
        let other = vec![b'y'; 300_000];
        assert_eq!(
            put(&served.client, "new", &other).await,
            Err(503),
            "{step:?}"
        );
        assert!(
            get(&served.client, "there").await == Some(large.clone()),
            "{step:?}"
        );
        assert_eq!(get(&served.client, "new").await, None, "{step:?}");
        *full.lock().unwrap() = None;
        put(&served.client, "new", &other).await.unwrap();
        served.store.remove_blocking(BUCKET, "new").unwrap();
    }
    // Nothing of what was refused is left; what was removed goes after it was told.
    let bodies = || std::fs::read_dir(directory.path().join("s3/bodies")).unwrap();
    for _ in 0..1_000 {
        if bodies().count() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bodies().count(), 1);
}

/// The disk stops for good at the n-th step: what was acknowledged before is there at the next start, byte for byte, and what
/// was not is absent or whole.
#[test]
fn a_power_cut_between_any_two_steps_keeps_what_was_acknowledged() {
    let bytes = |n: usize, version: u8| vec![version; [10, 3000, 70_000, 300_000][n % 4] + n];
    for stop in 0..40 {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("s3");
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = steps.clone();
        let options = Options {
            fault: Some(fault(move |_| {
                let gone = counted.fetch_add(1, Ordering::SeqCst) >= stop;
                gone.then_some(ErrorKind::Other)
            })),
            ..Options::default()
        };
        let mut acknowledged: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut tried: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        let store = Store::open(&root, &options).unwrap();
        let made = store.create_bucket(BUCKET).is_ok();
        for version in 1..3 {
            for n in 0..6 {
                let (key, body) = (format!("k{n}"), bytes(n, version));
                let written = store.put_blocking(BUCKET, &key, &body);
                tried.entry(key.clone()).or_default().push(body.clone());
                if written.is_ok() {
                    acknowledged.insert(key, body);
                }
            }
        }
        drop(store);
        let store = Store::open(&root, &Options::default()).unwrap();
        if !made {
            continue;
        }
        let found = store.contents(BUCKET).unwrap();
        for (key, body) in &acknowledged {
            assert!(found.get(key) == Some(body), "{key} after {stop} steps");
        }
        for (key, body) in &found {
            assert!(tried[key].contains(body), "{key} after {stop} steps");
        }
        drop(store);
        assert_eq!(
            Contents::open(&root).unwrap().verify().unwrap().damaged,
            Vec::<String>::new()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upload_completed_by_many_at_once_is_whole_whoever_wins() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(&directory.path().join("s3"), Options::default()).await;
    let client = &served.client;
    let begun = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key("k")
        .send()
        .await
        .unwrap();
    let upload = begun.upload_id().unwrap().to_owned();
    let (first, second) = (vec![b'1'; 5 << 20], vec![b'2'; 70_000]);
    let mut parts = CompletedMultipartUpload::builder();
    for (number, part) in [(1, &first), (2, &second)] {
        let sent = client
            .upload_part()
            .bucket(BUCKET)
            .key("k")
            .upload_id(&upload)
            .part_number(number);
        let sent = sent
            .body(ByteStream::from(part.clone()))
            .send()
            .await
            .unwrap();
        let done = CompletedPart::builder()
            .part_number(number)
            .e_tag(sent.e_tag().unwrap());
        parts = parts.parts(done.build());
    }
    let parts = parts.build();
    let completions = (0..16).map(|_| {
        let asked = client
            .complete_multipart_upload()
            .bucket(BUCKET)
            .key("k")
            .upload_id(&upload);
        asked.multipart_upload(parts.clone()).send()
    });
    let abort = client
        .abort_multipart_upload()
        .bucket(BUCKET)
        .key("k")
        .upload_id(&upload)
        .send();
    let other = vec![b'3'; 100_000];
    let (completed, _, written) = tokio::join!(
        futures_util::future::join_all(completions),
        abort,
        put(client, "k", &other)
    );
    written.unwrap();
    let etags: Vec<_> = completed
        .into_iter()
        .flatten()
        .map(|done| done.e_tag().unwrap().to_owned())
        .collect();
    assert!(etags.windows(2).all(|pair| pair[0] == pair[1]), "{etags:?}");
    let whole = [first, second].concat();
    let found = get(client, "k").await.unwrap();
    assert!(found == other || (found == whole && !etags.is_empty()));
    let contents = Contents::open(served.store.root()).unwrap();
    assert!(contents.verify().unwrap().damaged.is_empty());
}

/// Random operations of eight writers, each on keys of its own and some on one key of all; compared with a map.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_writers_find_what_they_wrote() {
    let seed = std::env::var("LOOKOUTD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("LOOKOUTD_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let served = serve(&directory.path().join("s3"), Options::default()).await;
    let writers = (0..8u64).map(|writer| {
        let client = served.client.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed ^ writer);
            let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            for _ in 0..40 {
                let key = format!("{writer}/{}", random.u8(..6));
                match random.u8(..10) {
                    0..=4 => {
                        let size = [0, 1, 3000, 65_536, 65_537, 400_000][random.usize(..6)];
                        let body = vec![random.u8(..); size];
                        put(&client, &key, &body).await.unwrap();
                        model.insert(key, body);
                    }
                    5 => {
                        client
                            .delete_object()
                            .bucket(BUCKET)
                            .key(&key)
                            .send()
                            .await
                            .unwrap();
                        model.remove(&key);
                    }
                    6 => {
                        let to = format!("{writer}/{}", random.u8(..6));
                        let copy = client.copy_object().bucket(BUCKET).key(&to);
                        let copied = copy.copy_source(format!("{BUCKET}/{key}")).send().await;
                        assert_eq!(copied.is_ok(), model.contains_key(&key) && to != key);
                        if copied.is_ok() {
                            model.insert(to, model[&key].clone());
                        }
                    }
                    7 => {
                        let create = client
                            .put_object()
                            .bucket(BUCKET)
                            .key(&key)
                            .if_none_match("*");
                        let created = create
                            .body(ByteStream::from_static(b"created"))
                            .send()
                            .await;
                        assert_eq!(created.is_ok(), !model.contains_key(&key));
                        model.entry(key).or_insert_with(|| b"created".to_vec());
                    }
                    _ => assert!(
                        get(&client, &key).await == model.get(&key).cloned(),
                        "{key}"
                    ),
                }
            }
            model
        })
    });
    let mut all = BTreeMap::new();
    for writer in writers.collect::<Vec<_>>() {
        all.extend(writer.await.unwrap());
    }
    assert!(served.store.contents(BUCKET).unwrap() == all);
    let bodies = std::fs::read_dir(directory.path().join("s3/bodies")).unwrap();
    let large: std::collections::BTreeSet<_> =
        all.values().filter(|body| body.len() > 65_536).collect();
    assert_eq!(
        bodies.count(),
        large.len(),
        "a file for each large content and no other"
    );
}

/// What comes while a commit is being made is one commit together.
#[test]
fn puts_that_come_together_are_few_commits() {
    let directory = tempfile::tempdir().unwrap();
    let commits = Arc::new(AtomicUsize::new(0));
    let counted = commits.clone();
    let options = Options {
        fault: Some(Arc::new(move |step| {
            counted.fetch_add(usize::from(step == Step::Commit), Ordering::SeqCst);
            Ok(())
        })),
        ..Options::default()
    };
    let store = Store::open(&directory.path().join("s3"), &options).unwrap();
    store.create_bucket(BUCKET).unwrap();
    let (came, waiting) = (Arc::new(AtomicUsize::new(0)), 32);
    let seen = came.clone();
    let busy = std::thread::spawn({
        let store = store.clone();
        move || {
            store.write_blocking(move |_| {
                while seen.load(Ordering::SeqCst) < waiting {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // They are on their way.
                std::thread::sleep(Duration::from_millis(300));
                Ok(())
            })
        }
    });
    let puts = (0..waiting).map(|n| {
        let (store, came) = (store.clone(), came.clone());
        std::thread::spawn(move || {
            came.fetch_add(1, Ordering::SeqCst);
            store.put_blocking(BUCKET, &format!("k{n}"), &[n as u8; 3000])
        })
    });
    for put in puts.collect::<Vec<_>>() {
        put.join().unwrap().unwrap();
    }
    busy.join().unwrap().unwrap();
    assert_eq!(store.contents(BUCKET).unwrap().len(), waiting);
    // The bucket's, that of who was busy, and theirs; one or two may have been late.
    let commits = commits.load(Ordering::SeqCst);
    assert!(commits <= 8, "{commits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_warnings_and_no_errors() {
    let errors = Errors::watch();
    let directory = tempfile::tempdir().unwrap();
    let served = serve(&directory.path().join("s3"), Options::default()).await;
    let stranger = lookoutd::s3::local_client(&served.url, KEY.0, "another");
    assert!(stranger.list_buckets().send().await.is_err());
    assert_eq!(get(&served.client, "none").await, None);
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(errors);
}

#[test]
fn an_export_is_every_object_as_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    for (key, size) in [("a/b", 10), ("a", 20), ("../up", 30), ("c/large", 100_000)] {
        store.put_blocking(BUCKET, key, &vec![b'x'; size]).unwrap();
    }
    let target = directory.path().join("out");
    let report = Contents::open(&root).unwrap().export(&target).unwrap();
    assert_eq!((report.objects, report.bytes), (4, 100_060));
    assert_eq!(
        std::fs::read(target.join("plant/c/large")).unwrap().len(),
        100_000
    );
    let others: Vec<_> = report.renamed.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(others, ["plant/../up", "plant/a/b"]);
    for (_, name) in &report.renamed {
        assert!(target.join(name).is_file(), "{name}");
    }
    assert!(!directory.path().join("up").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_keys_open_at_once_and_a_page_of_them_is_quick() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    store
        .write_blocking(|turn| {
            turn.db.execute_batch(
                "INSERT INTO bodies (size, sums, refs, data) VALUES (0, x'', 100000, x'');
                 WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999)
                 INSERT INTO objects (bucket, key, body, size, etag, written_ms)
                 SELECT 1, printf('input/%03d/%06d.csv', i % 100, i), 1, 0, 'd41d8cd98f00b204e9800998ecf8427e', 0 FROM n;",
            )?;
            Ok(())
        })
        .unwrap();
    drop(store);
    let begun = std::time::Instant::now();
    let served = serve(&root, Options::default()).await;
    // Many times what is wanted, for a busy machine and a build without optimisation.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    for prefix in ["", "input/07", "input/099/"] {
        let page = served
            .client
            .list_objects_v2()
            .bucket(BUCKET)
            .max_keys(1000);
        let begun = std::time::Instant::now();
        let page = page.prefix(prefix).send().await.unwrap();
        assert_eq!(page.contents().len(), 1000, "{prefix}");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{prefix} {:?}",
            begun.elapsed()
        );
    }
    let folders = served
        .client
        .list_objects_v2()
        .bucket(BUCKET)
        .prefix("input/");
    let begun = std::time::Instant::now();
    let folders = folders.delimiter("/").send().await.unwrap();
    assert_eq!(folders.common_prefixes().len(), 100);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}
