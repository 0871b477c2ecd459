//! A disk with nothing left: reads, deletions and retention work, writes go again when there is room.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::Utc;
use lookoutd::store::export::Contents;
use lookoutd::store::retention::{Retention, Rule};
use lookoutd::store::{Options, Store};

use super::{BUCKET, get, put, serve};
use crate::disk::SmallDisk;

fn rule() -> Rule {
    Rule {
        bucket: None,
        prefix: "old/".into(),
        keep: Some(Duration::ZERO),
        form: None,
    }
}

async fn delete(client: &aws_sdk_s3::Client, key: &str) {
    let sent = client.delete_object().bucket(BUCKET).key(key).send().await;
    sent.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_disk_that_is_full_to_the_last_byte_reads_deletions_and_retention_work() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(directory.path(), "48m") else {
        return;
    };
    let root = directory.path().join("s3");
    let served = serve(&root, Options::default()).await;
    let (client, store) = (&served.client, &served.store);
    for n in 0..60 {
        let prefix = ["small", "old"][n % 2];
        put(client, &format!("{prefix}/{n:03}"), &[n as u8; 3_000])
            .await
            .unwrap();
    }
    let mut large = 0u8;
    loop {
        // Equal bodies would share one file.
        let mut body = vec![7; 400_000];
        body[0] = large;
        if put(client, &format!("large/{large:03}"), &body)
            .await
            .is_err()
        {
            break;
        }
        large += 1;
    }
    assert!(large > 10, "{large}");
    // Others take what the store has spared.
    let filler = directory.path().join("filler");
    let mut others = std::fs::File::create(&filler).unwrap();
    while others.write_all(&[0; 4096]).is_ok() {}
    drop(others);
    assert_eq!(rustix::fs::statvfs(directory.path()).unwrap().f_bavail, 0);
    assert_eq!(put(client, "new", &[1; 3_000]).await, Err(503));
    assert_eq!(get(client, "small/000").await.unwrap(), [0; 3_000]);
    for n in (0..60).step_by(2) {
        delete(client, &format!("small/{n:03}")).await;
    }
    let retention = Retention::new(store.clone(), vec![rule()]);
    let later = Utc::now() + chrono::TimeDelta::minutes(10);
    let done = retention
        .pass(later.timestamp_millis(), None, true)
        .unwrap();
    assert_eq!(done[0].due, 30);
    delete(client, "large/000").await;
    // It goes on by itself when there is room.
    std::fs::remove_file(&filler).unwrap();
    put(client, "new", &[1; 3_000]).await.unwrap();
    let keys = store.contents(BUCKET).unwrap();
    assert_eq!(keys.len(), usize::from(large));
    drop(served);
    let damaged = Contents::open(&root).unwrap().verify().unwrap().damaged;
    assert_eq!(damaged, Vec::<String>::new());
}

static FREE: AtomicU64 = AtomicU64::new(u64::MAX);

#[test]
fn what_is_left_for_deletions_is_not_written_to_and_the_log_has_its_room_beforehand() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        free_of: |_: &Path| Some(FREE.load(Ordering::SeqCst)),
        ..Options::default()
    };
    let store = Store::open(directory.path(), &options).unwrap();
    store.create_bucket(BUCKET).unwrap();
    store.put_blocking(BUCKET, "k", b"x").unwrap();
    FREE.store(15 << 20, Ordering::SeqCst);
    for size in [10, 100_000] {
        let refused = store
            .put_blocking(BUCKET, "new", &vec![1; size])
            .unwrap_err();
        let refused = s3s_error(refused);
        assert!(refused.contains("full"), "{refused}");
    }
    store.remove_blocking(BUCKET, "k").unwrap();
    FREE.store(17 << 20, Ordering::SeqCst);
    store.put_blocking(BUCKET, "new", b"x").unwrap();
    use std::os::unix::fs::MetadataExt;
    let log = std::fs::metadata(directory.path().join("store.db-wal")).unwrap();
    assert!(log.blocks() * 512 >= 8 << 20, "{} blocks", log.blocks());
}

/// What a client is told.
fn s3s_error(problem: lookoutd::store::Problem) -> String {
    s3s::S3Error::from(problem).message().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_aborted_gives_rows_and_files_back_at_once_and_one_that_is_left_is_counted()
 {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let served = serve(&root, Options::default()).await;
    let begin = served
        .client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key("k");
    let upload = begin.send().await.unwrap().upload_id.unwrap();
    for number in 1..=2 {
        let part = served
            .client
            .upload_part()
            .bucket(BUCKET)
            .key("k")
            .upload_id(&upload);
        let body = vec![number as u8; 100_000].into();
        part.part_number(number).body(body).send().await.unwrap();
    }
    let retention = Retention::new(served.store.clone(), Vec::new());
    let figures = || {
        retention.look(Utc::now()).unwrap();
        retention.standing().unwrap().figures
    };
    let bodies = || std::fs::read_dir(root.join("bodies")).unwrap().count();
    let found = figures();
    assert_eq!(
        (found.uploads, found.upload_bytes, bodies()),
        (1, 200_000, 2)
    );
    let begun = found.oldest_upload_ms.unwrap();
    assert!((Utc::now().timestamp_millis() - begun).abs() < 60_000);
    let abort = served
        .client
        .abort_multipart_upload()
        .bucket(BUCKET)
        .key("k");
    abort.upload_id(&upload).send().await.unwrap();
    let found = figures();
    assert_eq!(
        (found.uploads, found.upload_bytes, found.oldest_upload_ms),
        (0, 0, None)
    );
    for _ in 0..1_000 {
        if bodies() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bodies(), 0);
}
