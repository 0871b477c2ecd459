//! What is damaged or refused is told as long as it lasts, and what a store holds and keeps can be seen.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::Utc;
use lookoutd::store::export::Contents;
use lookoutd::store::retention::{Retention, Rule};
use lookoutd::store::{Options, Store};
use lookoutd::vitals::{Code, Troubles};

use super::{BUCKET, fault, get, put, serve};

fn body_of(root: &Path) -> std::path::PathBuf {
    let mut bodies = std::fs::read_dir(root.join("bodies")).unwrap();
    bodies.next().unwrap().unwrap().path()
}

fn troubles_of(store: &Store) -> (Retention, Troubles) {
    let troubles = Troubles::default();
    let rule = Rule {
        bucket: Some(BUCKET.into()),
        prefix: "in/".into(),
        keep: None,
        form: None,
    };
    let retention = Retention::new(store.clone(), vec![rule]).telling(troubles.clone());
    (retention, troubles)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_a_trouble_until_it_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let served = serve(&root, Options::default()).await;
    let (retention, troubles) = troubles_of(&served.store);
    let large: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
    put(&served.client, "in/large", &large).await.unwrap();
    let body = body_of(&root);
    let mut harmed = large.clone();
    // Behind what is read before the answer begins.
    harmed[1_900_000] ^= 1;
    std::fs::write(&body, &harmed).unwrap();
    let asked = served.client.get_object().bucket(BUCKET).key("in/large");
    let got = asked.send().await.unwrap();
    assert!(got.body.collect().await.is_err());
    let told = troubles.get(Code::StoreDamaged, "").unwrap();
    assert!(told.text.contains("plant/in/large"), "{}", told.text);
    assert!(
        told.remedy.contains("lookoutd store verify"),
        "{}",
        told.remedy
    );
    // It lasts as long as the damage.
    retention.look(Utc::now()).unwrap();
    let standing = retention.standing().unwrap();
    assert_eq!((standing.damaged, standing.figures.objects), (1, 1));
    assert!(troubles.get(Code::StoreDamaged, "").is_some());
    put(&served.client, "in/large", b"whole").await.unwrap();
    retention.look(Utc::now()).unwrap();
    assert!(troubles.get(Code::StoreDamaged, "").is_none());
}

/// The remedy that is told: the same bytes once more, after which every key that has them is whole.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_once_more_make_a_damaged_object_whole() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let served = serve(&root, Options::default()).await;
    let (retention, troubles) = troubles_of(&served.store);
    let large: Vec<u8> = (0..2_000_000u32).map(|n| (n / 7) as u8).collect();
    for key in ["in/large", "in/other"] {
        put(&served.client, key, &large).await.unwrap();
    }
    let body = body_of(&root);
    let mut harmed = large.clone();
    harmed[10] ^= 1;
    for harm in ["flipped", "short", "missing"] {
        match harm {
            "flipped" => std::fs::write(&body, &harmed).unwrap(),
            "short" => std::fs::write(&body, &large[..1_000_000]).unwrap(),
            _ => std::fs::remove_file(&body).unwrap(),
        }
        assert_eq!(get(&served.client, "in/large").await, None, "{harm}");
        assert!(troubles.get(Code::StoreDamaged, "").is_some(), "{harm}");
        put(&served.client, "in/large", &large).await.unwrap();
        for key in ["in/large", "in/other"] {
            let found = get(&served.client, key).await;
            assert!(found.as_ref() == Some(&large), "{key} {harm}");
        }
        retention.look(Utc::now()).unwrap();
        assert!(troubles.get(Code::StoreDamaged, "").is_none(), "{harm}");
    }
    assert_eq!(std::fs::read_dir(root.join("bodies")).unwrap().count(), 1);
    let verified = Contents::open(&root).unwrap().verify().unwrap();
    assert_eq!(verified.damaged, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_is_a_trouble_until_a_write_goes_again() {
    let directory = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let seen = full.clone();
    let options = Options {
        fault: Some(fault(move |_| {
            seen.load(Ordering::SeqCst)
                .then_some(ErrorKind::StorageFull)
        })),
        ..Options::default()
    };
    let served = serve(&directory.path().join("s3"), options).await;
    let (_, troubles) = troubles_of(&served.store);
    for size in [10, 300_000] {
        full.store(true, Ordering::SeqCst);
        assert_eq!(put(&served.client, "k", &vec![1; size]).await, Err(503));
        let told = troubles.get(Code::StoreRefuses, "store.db").unwrap();
        assert!(told.remedy.contains("make room"), "{}", told.remedy);
        // What takes nothing of the disk says nothing of it.
        full.store(false, Ordering::SeqCst);
        served.store.remove_blocking(BUCKET, "none").unwrap();
        assert!(troubles.get(Code::StoreRefuses, "store.db").is_some());
        full.store(false, Ordering::SeqCst);
        put(&served.client, "k", b"again").await.unwrap();
        assert!(troubles.get(Code::StoreRefuses, "store.db").is_none());
    }
}

/// Pages of the database are overwritten under a running process: what they held is refused as 503, never answered with other
/// bytes, and somebody is told; what can be read is saved by an export.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_damaged_while_it_is_used_refuses_and_tells() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    let filled = store.write_blocking(|turn| {
        turn.db.execute_batch(
            "INSERT INTO bodies (size, sums, refs, data) VALUES (0, x'', 200000, x'');
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 199999)
             INSERT INTO objects (bucket, key, body, size, etag, written_ms)
             SELECT 1, printf('in/%06d', i), 1, 0, 'd41d8cd98f00b204e9800998ecf8427e', 0 FROM n;",
        )?;
        Ok(())
    });
    filled.unwrap();
    drop(store);
    let served = serve(&root, Options::default()).await;
    let (_, troubles) = troubles_of(&served.store);
    let database = root.join("store.db");
    let mut harmed = std::fs::read(&database).unwrap();
    for page in (harmed.len() / 4096 / 4)..(harmed.len() / 4096) {
        harmed[page * 4096..page * 4096 + 64].fill(0xa5);
    }
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&database)
        .unwrap();
    file.write_all_at(&harmed, 0).unwrap();
    let mut refusals = 0;
    for n in 0..40 {
        if let Err(status) = put(&served.client, &format!("in/{:06}x", n * 4000), b"new").await {
            assert_eq!(status, 503);
            refusals += 1;
        }
    }
    assert!(refusals > 0);
    // From then on nothing is written, wherever it would go; what can be read is read.
    assert_eq!(put(&served.client, "in/000000x", b"new").await, Err(503));
    assert_eq!(put(&served.client, "other", b"new").await, Err(503));
    let removed = served
        .client
        .delete_object()
        .bucket(BUCKET)
        .key("in/000000");
    assert!(removed.send().await.is_err());
    assert_eq!(get(&served.client, "in/000000").await, Some(Vec::new()));
    let told = troubles.get(Code::StateUnreadable, "store.db").unwrap();
    assert!(
        told.remedy.contains("lookoutd store export"),
        "{}",
        told.remedy
    );
}

/// A leaf of the objects' table is overwritten: what lies before and behind it in its bucket, and all other buckets, are exported.
#[test]
fn an_export_saves_what_lies_on_both_sides_of_what_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let store = Store::open(&root, &Options::default()).unwrap();
    for bucket in [BUCKET, "zoo"] {
        store.create_bucket(bucket).unwrap();
        store.put_blocking(bucket, "large", &[5; 100_000]).unwrap();
    }
    for n in 0..400 {
        let key = format!("in/{n:06}");
        store.put_blocking(BUCKET, &key, &[n as u8; 50]).unwrap();
    }
    drop(store);
    let database = root.join("store.db");
    let mut harmed = std::fs::read(&database).unwrap();
    let is_harmed = |page: &[u8]| {
        let key = b"in/000200";
        page[0] == 10 && page.windows(key.len()).any(|some| some == key)
    };
    let at = harmed.chunks(4096).position(is_harmed).unwrap();
    harmed[at * 4096..at * 4096 + 64].fill(0xa5);
    std::fs::write(&database, &harmed).unwrap();
    let contents = Contents::open(&root).unwrap();
    let target = directory.path().join("out");
    let report = contents.export(&target).unwrap();
    let said = report.damaged.join("; ");
    assert!(
        said.contains("keys of plant are missing in the middle"),
        "{said}"
    );
    for there in [
        "plant/in/000000",
        "plant/in/000399",
        "plant/large",
        "zoo/large",
    ] {
        assert!(target.join(there).is_file(), "{there}");
    }
    let files = std::fs::read_dir(target.join("plant/in")).unwrap().count();
    assert!((250..400).contains(&files), "{files}");
    let verified = contents.verify().unwrap();
    assert_eq!(verified.objects, report.objects);
    assert!(
        verified.damaged.len() > report.damaged.len(),
        "with the check of the whole"
    );
    assert_eq!(std::fs::read(&database).unwrap(), harmed);
}
