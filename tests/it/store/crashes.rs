//! Power that goes at any step of any write, copies of a store that is in use, and damage that a start finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier, Tag, Tagging,
};
use lookoutd::store::export::Contents;
use lookoutd::store::opening::accept;
use lookoutd::store::{OpenError, Options, Step, Store};

use super::{BUCKET, put, serve};

const OTHER: &str = "other";

/// What is there: of each bucket each key with its bytes and tags.
type State = BTreeMap<String, BTreeMap<String, (Vec<u8>, String)>>;

fn state(store: &Store) -> State {
    let read = |bucket: &str| {
        let contents = store.contents(bucket).ok()?;
        let tags: BTreeMap<String, String> = store
            .read_blocking(|db| {
                let mut tags = db.prepare("SELECT key, coalesce(tags, '') FROM objects")?;
                let tags = tags.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(tags.collect::<Result<_, _>>()?)
            })
            .unwrap();
        let with_tags = |(key, bytes): (String, Vec<u8>)| {
            let tags = tags[&key].clone();
            (key, (bytes, tags))
        };
        Some((
            bucket.to_owned(),
            contents.into_iter().map(with_tags).collect(),
        ))
    };
    [BUCKET, OTHER].into_iter().filter_map(read).collect()
}

/// The files of a store as a process that is gone leaves them.
fn copy(root: &Path, to: &Path, log: bool) {
    fs::create_dir_all(to.join("bodies")).unwrap();
    fs::copy(root.join("store.db"), to.join("store.db")).unwrap();
    if log {
        fs::copy(root.join("store.db-wal"), to.join("store.db-wal")).unwrap();
    }
    for body in fs::read_dir(root.join("bodies")).unwrap().flatten() {
        // One that is being made may get its name meanwhile.
        let _ = fs::copy(body.path(), to.join("bodies").join(body.file_name()));
    }
}

async fn in_one_part(client: &Client, key: &str, body: Vec<u8>) {
    let begun = client.create_multipart_upload().bucket(BUCKET).key(key);
    let upload = begun.send().await.unwrap().upload_id.unwrap();
    let part = client.upload_part().bucket(BUCKET).key(key);
    let part = part.upload_id(&upload).part_number(1);
    let sent = part.body(ByteStream::from(body)).send().await.unwrap();
    let done = CompletedPart::builder().part_number(1);
    let done = done.e_tag(sent.e_tag.unwrap()).build();
    let parts = CompletedMultipartUpload::builder().parts(done).build();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key(key);
    let complete = complete.upload_id(&upload).multipart_upload(parts);
    complete.send().await.unwrap();
}

/// One write of each kind.
async fn write(client: &Client, number: usize) {
    match number {
        0 => put(client, "small", &[1; 3_000]).await.unwrap(),
        1 => put(client, "large", &[2; 300_000]).await.unwrap(),
        2 => put(client, "small", &[3; 70_000]).await.unwrap(),
        3 => {
            let tag = Tag::builder().key("a").value("b").build().unwrap();
            let tags = Tagging::builder().tag_set(tag).build().unwrap();
            let sent = client.put_object_tagging().bucket(BUCKET).key("large");
            sent.tagging(tags).send().await.map(drop).unwrap();
        }
        4 => {
            let sent = client.copy_object().bucket(BUCKET).key("copy");
            let sent = sent.copy_source(format!("{BUCKET}/large"));
            sent.send().await.map(drop).unwrap();
        }
        5 => in_one_part(client, "parts", vec![4; 200_000]).await,
        6 => in_one_part(client, "small", vec![5; 80_000]).await,
        7 => {
            let one = |key| ObjectIdentifier::builder().key(key).build().unwrap();
            let keys = Delete::builder().objects(one("small")).objects(one("copy"));
            let sent = client.delete_objects().bucket(BUCKET);
            let sent = sent.delete(keys.build().unwrap());
            sent.send().await.map(drop).unwrap();
        }
        8 => {
            let sent = client.delete_object().bucket(BUCKET).key("large");
            sent.send().await.map(drop).unwrap();
        }
        9 => client
            .create_bucket()
            .bucket(OTHER)
            .send()
            .await
            .map(drop)
            .unwrap(),
        _ => client
            .delete_bucket()
            .bucket(OTHER)
            .send()
            .await
            .map(drop)
            .unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn power_that_goes_at_any_step_of_any_write_leaves_it_done_or_not_begun() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let cuts = directory.path().join("cuts");
    let (write_now, taken) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::default());
    let options = Options {
        fault: Some({
            let (root, cuts, write_now) = (root.clone(), cuts.clone(), write_now.clone());
            let taken: Arc<Mutex<Vec<(usize, Step, PathBuf)>>> = Arc::clone(&taken);
            Arc::new(move |step| {
                let number = write_now.load(Ordering::SeqCst);
                if number != usize::MAX {
                    let mut taken = taken.lock().unwrap();
                    let to = cuts.join(taken.len().to_string());
                    copy(&root, &to, true);
                    taken.push((number, step, to));
                }
                Ok(())
            })
        }),
        ..Options::default()
    };
    let served = serve(&root, options).await;
    let mut states = vec![state(&served.store)];
    for number in 0..=10 {
        write_now.store(number, Ordering::SeqCst);
        write(&served.client, number).await;
        states.push(state(&served.store));
    }
    drop(served);
    let taken = std::mem::take(&mut *taken.lock().unwrap());
    for wanted in [
        Step::Write,
        Step::SyncFile,
        Step::Rename,
        Step::SyncDirectory,
        Step::Commit,
        Step::Remove,
    ] {
        assert!(
            taken.iter().any(|(_, step, _)| *step == wanted),
            "{wanted:?}"
        );
    }
    for number in 0..=10 {
        assert!(
            taken.iter().any(|(at, _, _)| *at == number),
            "write {number}"
        );
    }
    for (number, step, cut) in taken {
        let store = Store::open(&cut, &Options::default()).unwrap();
        let found = state(&store);
        let known = found == states[number] || found == states[number + 1];
        assert!(known, "write {number} cut at {step:?}");
        // What no row names was swept.
        let named: i64 = store
            .read_blocking(|db| {
                let named = "SELECT count(*) FROM bodies WHERE name IS NOT NULL";
                Ok(db.query_row(named, [], |row| row.get(0))?)
            })
            .unwrap();
        let files = fs::read_dir(cut.join("bodies")).unwrap().count();
        assert_eq!(files as i64, named, "write {number} cut at {step:?}");
        drop(store);
        let damaged = Contents::open(&cut).unwrap().verify().unwrap().damaged;
        assert_eq!(
            damaged,
            Vec::<String>::new(),
            "write {number} cut at {step:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_synced_and_then_its_name_and_then_its_row_and_sqlite_syncs_each_commit() {
    let directory = tempfile::tempdir().unwrap();
    let steps: Arc<Mutex<Vec<Step>>> = Arc::default();
    let noted = steps.clone();
    let options = Options {
        fault: Some(Arc::new(move |step| {
            noted.lock().unwrap().push(step);
            Ok(())
        })),
        ..Options::default()
    };
    let served = serve(&directory.path().join("s3"), options).await;
    steps.lock().unwrap().clear();
    put(&served.client, "large", &[1; 70_000]).await.unwrap();
    put(&served.client, "small", &[1; 65_536]).await.unwrap();
    let order = [
        Step::Write,
        Step::SyncFile,
        Step::Rename,
        Step::SyncDirectory,
        Step::Commit,
        Step::Commit,
    ];
    assert_eq!(*steps.lock().unwrap(), order);
    let pragmas = served.store.write_blocking(|turn| {
        let pragma = |name: &str| -> rusqlite::Result<String> {
            turn.db.query_row(&format!("PRAGMA {name}"), [], |row| {
                Ok(match row.get_ref(0)? {
                    rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                    other => other.as_str()?.to_owned(),
                })
            })
        };
        // Temporary files of SQLite lie in memory, on no other disk.
        Ok(["journal_mode", "synchronous", "temp_store", "auto_vacuum"]
            .map(|name| pragma(name).unwrap()))
    });
    assert_eq!(pragmas.unwrap(), ["wal", "2", "2", "2"]);
}

#[test]
fn a_database_copied_without_its_log_is_refused_until_it_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    for key in ["a", "b", "c"] {
        store.put_blocking(BUCKET, key, &[1; 100_000]).unwrap();
    }
    let (whole, bare) = (
        directory.path().join("whole"),
        directory.path().join("bare"),
    );
    copy(&root, &whole, true);
    copy(&root, &bare, false);
    // As `lookoutd backup` does it.
    let through = directory.path().join("through");
    fs::create_dir(&through).unwrap();
    let reader = rusqlite::Connection::open(root.join("store.db")).unwrap();
    let name = through.join("store.db");
    reader
        .execute("VACUUM INTO ?1", [name.to_str().unwrap()])
        .unwrap();
    drop(reader);
    for body in fs::read_dir(root.join("bodies")).unwrap().flatten() {
        fs::create_dir_all(through.join("bodies")).unwrap();
        fs::copy(body.path(), through.join("bodies").join(body.file_name())).unwrap();
    }
    let keys = |root: &Path| {
        let store = Store::open(root, &Options::default()).unwrap();
        store.contents(BUCKET).map_or(0, |contents| contents.len())
    };
    assert_eq!((keys(&whole), keys(&through)), (3, 3));
    let before = fs::read(bare.join("store.db")).unwrap();
    for _ in 0..2 {
        let refused = Store::open(&bare, &Options::default()).unwrap_err();
        assert!(matches!(refused, OpenError::WithoutLog { .. }), "{refused}");
        assert!(
            refused.to_string().contains("lookoutd store accept"),
            "{refused}"
        );
    }
    assert!(
        fs::read(bare.join("store.db")).unwrap() == before,
        "nothing was changed"
    );
    assert!(accept(&bare).unwrap());
    assert!(!accept(&bare).unwrap());
    assert!(keys(&bare) < 3);
    // One that was closed has no log, and lacks none.
    drop(store);
    let closed = directory.path().join("closed");
    copy(&root, &closed, false);
    assert_eq!(keys(&closed), 3);
}

/// What is refused is looked at by people with tools of their own: nothing of it may have been moved, the log least of all.
#[test]
fn a_refusal_leaves_the_database_and_its_log_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    for n in 0..200 {
        let key = format!("k{n}");
        store.put_blocking(BUCKET, &key, &[n; 3000]).unwrap();
    }
    let (newer, damaged) = (
        directory.path().join("newer"),
        directory.path().join("damaged"),
    );
    for copied in [&newer, &damaged] {
        copy(&root, copied, true);
    }
    let other = rusqlite::Connection::open(newer.join("store.db")).unwrap();
    other
        .set_db_config(
            rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
            true,
        )
        .unwrap();
    other.pragma_update(None, "user_version", 99).unwrap();
    drop(other);
    // In the log too: whatever it has of a page is what counts.
    for name in ["store.db", "store.db-wal"] {
        let mut bytes = fs::read(damaged.join(name)).unwrap();
        let skip = if name == "store.db" { 0 } else { 32 };
        let page = if name == "store.db" { 4096 } else { 4096 + 24 };
        for page in bytes[skip..].chunks_mut(page).skip(1) {
            let at = page.len() - 4096;
            page[at..at + 64].fill(0xa5);
        }
        fs::write(damaged.join(name), bytes).unwrap();
    }
    for refused in [&newer, &damaged] {
        let read =
            || ["store.db", "store.db-wal"].map(|name| fs::read(refused.join(name)).unwrap());
        let before = read();
        assert!(before[1].len() > 4096);
        let error = Store::open(refused, &Options::default()).unwrap_err();
        let fits = match &error {
            OpenError::Newer { found: 99, .. } => refused == &newer,
            OpenError::Damaged { .. } => refused == &damaged,
            _ => false,
        };
        assert!(fits, "{error}");
        assert!(read() == before, "{error}: something was moved");
    }
}

/// The mark of a log that a copy never had does not come along: killed before its own log begins, it would be refused.
#[test]
fn a_copy_made_by_sqlite_opens_whenever_its_first_start_is_cut_short() {
    let directory = tempfile::tempdir().unwrap();
    let (root, copied) = (directory.path().join("s3"), directory.path().join("copied"));
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    store.put_blocking(BUCKET, "a", &[1; 100]).unwrap();
    fs::create_dir_all(copied.join("bodies")).unwrap();
    let name = copied.join("store.db");
    let reader = rusqlite::Connection::open(root.join("store.db")).unwrap();
    reader
        .execute("VACUUM INTO ?1", [name.to_str().unwrap()])
        .unwrap();
    drop(Store::open(&copied, &Options::default()).unwrap());
    // As it is between the change to a database with a log and the first row of that: the copy's own mark must be gone.
    fs::remove_file(&name).unwrap();
    reader
        .execute("VACUUM INTO ?1", [name.to_str().unwrap()])
        .unwrap();
    assert_eq!(marks(&name), 1);
    rusqlite::Connection::open(&name)
        .unwrap()
        .execute_batch("CREATE TRIGGER refused BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'cut short'); END")
        .unwrap();
    Store::open(&copied, &Options::default()).unwrap_err();
    let _ = fs::remove_file(copied.join("store.db-wal"));
    let _ = fs::remove_file(copied.join("store.db-shm"));
    rusqlite::Connection::open(&name)
        .unwrap()
        .execute_batch("DROP TRIGGER refused")
        .unwrap();
    assert_eq!(marks(&name), 0);
    let store = Store::open(&copied, &Options::default()).unwrap();
    assert_eq!(store.contents(BUCKET).unwrap().len(), 1);
}

fn marks(database: &Path) -> i64 {
    let db = rusqlite::Connection::open(database).unwrap();
    db.query_row(
        "SELECT count(*) FROM meta WHERE name = 'in-use'",
        [],
        |row| row.get(0),
    )
    .unwrap()
}

/// A store of over a hundred megabytes would take a start long to read: what lies in its rows is looked at when it is read.
#[test]
fn damage_in_the_rows_of_a_large_store_is_found_at_the_start_and_its_bodies_are_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    let filled = store.write_blocking(|turn| {
        turn.db.execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
             INSERT INTO bodies (id, size, sums, refs, data) SELECT i, 60000, x'', 1, zeroblob(60000) FROM n;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
             INSERT INTO objects (bucket, key, body, size, etag, written_ms)
             SELECT 1, printf('in/%06d', i), i, 60000, 'd41d8cd98f00b204e9800998ecf8427e', 0 FROM n;",
        )?;
        Ok(())
    });
    filled.unwrap();
    drop(store);
    let database = root.join("store.db");
    let whole = fs::read(&database).unwrap();
    assert!(whole.len() > 40_000_000);
    // Leaves of tables with a rowid hold the bodies, leaves of those without hold the objects.
    let harmed = |kind: u8| {
        let mut harmed = whole.clone();
        for page in harmed.chunks_mut(4096).skip(1) {
            let cells = u16::from_be_bytes([page[3], page[4]]);
            if page[0] == kind && (2..100).contains(&cells) {
                page[8..40].fill(0xa5);
            }
        }
        assert!(harmed != whole);
        harmed
    };
    fs::write(&database, harmed(10)).unwrap();
    let found = Store::open(&root, &Options::default()).unwrap_err();
    assert!(matches!(found, OpenError::Damaged { .. }), "{found}");
    fs::write(&database, &whole).unwrap();
    let store = Store::open(&root, &Options::default()).unwrap();
    assert_eq!(
        store
            .read_blocking(|db| Ok(db
                .query_row("SELECT count(*) FROM objects", [], |row| row
                    .get::<_, i64>(0))?))
            .unwrap(),
        700
    );
}

/// A start that finds damage ends once, with the status that no unit restarts after, and says how to go on; what can be read is
/// saved by an export.
#[test]
fn a_damaged_store_ends_the_start_with_74_and_is_saved_by_an_export() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let root = data_dir.join("s3");
    fs::create_dir(&data_dir).unwrap();
    let store = Store::open(&root, &Options::default()).unwrap();
    store.create_bucket(BUCKET).unwrap();
    for n in 0..300 {
        store
            .put_blocking(BUCKET, &format!("k{n:03}"), &[n as u8; 3_000])
            .unwrap();
    }
    drop(store);
    let database = root.join("store.db");
    let mut harmed = fs::read(&database).unwrap();
    // Leaves of the bodies; what finds them stays.
    let leaves = harmed.chunks_mut(4096).skip(1).filter(|page| page[0] == 13);
    leaves.skip(50).take(15).for_each(|page| page.fill(0xa5));
    fs::write(&database, &harmed).unwrap();
    let run = |arguments: &[&str]| {
        let run = Command::new(env!("CARGO_BIN_EXE_lookoutd"))
            .args(arguments)
            .args(["--data-dir", data_dir.to_str().unwrap()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        (run.status.code(), said)
    };
    let free = "127.0.0.1:0";
    let (status, said) = run(&[
        "serve",
        "--listen",
        free,
        "--s3-listen",
        free,
        "--admin-listen",
        "",
    ]);
    assert_eq!(status, Some(74), "{said}");
    for command in ["lookoutd store verify", "lookoutd store export"] {
        assert!(said.contains(command), "{said}");
    }
    for unit in ["systemd/lookoutd.service", "systemd/lookoutd-serve.service"] {
        let unit = fs::read_to_string(unit).unwrap();
        let kept_down = unit
            .lines()
            .find(|line| line.starts_with("RestartPreventExitStatus="));
        assert!(kept_down.unwrap().contains("74"), "{unit}");
    }
    let saved = directory.path().join("saved");
    let (status, _) = run(&["store", "export", saved.to_str().unwrap()]);
    assert_eq!(status, Some(74), "some of it is damaged");
    let files = fs::read_dir(saved.join(BUCKET)).unwrap().count();
    assert!((200..300).contains(&files), "{files}");
}
