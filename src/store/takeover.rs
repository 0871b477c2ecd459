//! What an older version left: buckets as directories, objects as files with files beside them. Taken over at the first
//! start, once.
//!
//! ```text
//!  s3/ ─► renamed to s3.old/ ─► each object: its bytes and headers into the database ─► "taken over" ─► s3.old/ stays a week
//! ```
//!
//! Guarantees: nothing is removed before all of it is in the database and durable; a start that was cut short goes on with
//! what is missing. What cannot be read ends the start, and says which file it was.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use aws_smithy_types::base64;
use rusqlite::{Connection, OptionalExtension, params};
use tracing::{info, warn};

use super::bodies::{Files, Intake};
use super::checksums::{self, Algorithm};
use super::commit::Turn;
use super::facts::Facts;
use super::objects::{self, Labels, hex};
use super::{DATABASE, OpenError, Problem, Store, opening};
use crate::clock::Clock;

/// The name under which it was noted that all is done.
const DONE: &str = "taken_over_ms";
/// So long the older version's directory stays, for whoever wants to go back.
const KEPT_MS: i64 = 7 * 86_400_000;
/// Objects of one commit.
const AT_ONCE: usize = 500;

/// Where the older version's objects wait.
fn aside(root: &Path) -> PathBuf {
    root.with_extension("old")
}

/// Moves what an older version left out of the way, before anything is made in its place.
pub(super) fn set_aside(root: &Path) -> Result<(), OpenError> {
    if root.join(DATABASE).exists() || aside(root).exists() {
        return Ok(());
    }
    let Ok(entries) = fs::read_dir(root) else {
        return Ok(());
    };
    let is_old = entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let beside =
            name.starts_with(".bucket-") || name.starts_with(".upload-") || name == ".staging";
        beside || (name != super::BODIES && entry.path().is_dir())
    });
    if !is_old {
        return Ok(());
    }
    let moved = fs::rename(root, aside(root)).and_then(|()| match root.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    });
    moved.map_err(|error| OpenError::TakeOver {
        path: root.to_owned(),
        what: format!("it cannot be renamed to {}: {error}", aside(root).display()),
    })
}

/// Puts into the database what waits beside it.
pub(super) fn take_over(
    root: &Path,
    db: &Connection,
    files: &Arc<Files>,
    clock: &Clock,
) -> Result<(), OpenError> {
    let old = aside(root);
    if !old.is_dir() {
        return Ok(());
    }
    let path = root.join(DATABASE);
    let wrap = |problem| opening::of_problem(&path, problem);
    let done: Option<String> = db
        .query_row("SELECT value FROM meta WHERE name = ?1", [DONE], |row| {
            row.get(0)
        })
        .optional()
        .map_err(|error| wrap(error.into()))?;
    let now_ms = clock.now().timestamp_millis();
    if let Some(done) = done {
        remove_when_old(&old, &done, now_ms);
        return Ok(());
    }
    info!(path = %old.display(), "taking the objects of an older version over");
    let mut objects = 0u64;
    let buckets = directories(&old).map_err(|error| unreadable(&old, &error))?;
    for (name, directory) in buckets {
        in_one(db, files, now_ms, |turn| {
            objects::make_bucket(turn, &name, None).map(drop)
        })
        .map_err(wrap)?;
        let keys = keys(&directory).map_err(|error| unreadable(&directory, &error))?;
        for some in keys.chunks(AT_ONCE) {
            let mut read = Vec::new();
            for key in some {
                let path = directory.join(key);
                read.push((
                    key,
                    path.clone(),
                    Old::read(&old, &name, key, &path, files)?,
                ));
            }
            objects += read.len() as u64;
            in_one(db, files, now_ms, |turn| {
                let bucket = objects::bucket(turn.db, &name)?;
                for (key, _, object) in read {
                    object.keep(turn, bucket, key)?;
                }
                Ok(())
            })
            .map_err(wrap)?;
        }
    }
    in_one(db, files, now_ms, |turn| {
        turn.db.execute(
            "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)",
            params![DONE, now_ms.to_string()],
        )?;
        Ok(())
    })
    .map_err(wrap)?;
    info!(objects, path = %old.display(), "the objects of an older version are in the store; its directory stays for a week, then it is removed");
    Ok(())
}

/// Removes what an older version left, when all of it has been in the store for a week.
pub(super) fn put_away(store: &Store, now_ms: i64) -> Result<(), Problem> {
    let old = aside(store.root());
    if !old.is_dir() {
        return Ok(());
    }
    let done: Option<String> = store.read_blocking(|db| {
        let mut find = db.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        Ok(find.query_row([DONE], |row| row.get(0)).optional()?)
    })?;
    if let Some(done) = done {
        remove_when_old(&old, &done, now_ms);
    }
    Ok(())
}

fn remove_when_old(old: &Path, done: &str, now_ms: i64) {
    if !done.parse().is_ok_and(|done: i64| now_ms > done + KEPT_MS) {
        return;
    }
    match fs::remove_dir_all(old) {
        Ok(()) => {
            info!(path = %old.display(), "what an older version left was removed: it has been in the store for a week")
        }
        Err(error) => {
            warn!(path = %old.display(), %error, "what an older version left could not be removed")
        }
    }
}

fn in_one(
    db: &Connection,
    files: &Files,
    now_ms: i64,
    work: impl FnOnce(&mut Turn<'_>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let transaction = db.unchecked_transaction()?;
    let mut doomed = Vec::new();
    work(&mut Turn {
        db: &transaction,
        files,
        now_ms,
        doomed: &mut doomed,
        kept: false,
    })?;
    transaction.commit()?;
    files.doom(doomed);
    Ok(())
}

/// An object as an older version kept it.
struct Old {
    draft: super::bodies::Draft,
    facts: Facts,
    /// Of an object that was put together from parts; the others' are their MD5 sums.
    etag: Option<String>,
    written_ms: i64,
}

impl Old {
    fn read(
        root: &Path,
        bucket: &str,
        key: &str,
        path: &Path,
        files: &Arc<Files>,
    ) -> Result<Self, OpenError> {
        let encode = |text: &str| {
            let encoded = base64::encode(text).replace('+', "-").replace('/', "_");
            encoded.trim_end_matches('=').to_owned()
        };
        let beside = format!(".bucket-{}.object-{}", encode(bucket), encode(key));
        let json = |end: &str| -> serde_json::Value {
            let text = fs::read(root.join(format!("{beside}.{end}.json"))).unwrap_or_default();
            serde_json::from_slice(&text).unwrap_or_default()
        };
        let (attributes, sums) = (json("metadata"), json("internal"));
        let text = |name: &str| {
            attributes
                .get(name)
                .and_then(|value| value.as_str())
                .map(str::to_owned)
        };
        let metadata = attributes
            .get("user_metadata")
            .and_then(|pairs| pairs.as_object());
        let mut facts = Facts {
            content_type: text("content_type"),
            content_encoding: Facts::encoding(text("content_encoding")),
            content_disposition: text("content_disposition"),
            content_language: text("content_language"),
            cache_control: text("cache_control"),
            expires: text("expires").and_then(|text| {
                let time =
                    s3s::dto::Timestamp::parse(s3s::dto::TimestampFormat::DateTime, &text).ok();
                Facts::expires(time)
            }),
            redirect: text("website_redirect_location"),
            metadata: metadata
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect(),
            ..Facts::default()
        };
        let told = |algorithm: Algorithm| {
            let name = format!("checksum_{}", algorithm.name().to_ascii_lowercase());
            sums.get(&name)
                .and_then(|sum| sum.as_str())
                .map(str::to_owned)
        };
        let wanted: Vec<Algorithm> = Algorithm::ALL
            .into_iter()
            .filter(|one| told(*one).is_some())
            .collect();
        let fail = |error: std::io::Error| unreadable(path, &error);
        let mut file = fs::File::open(path).map_err(fail)?;
        let written = file.metadata().map_err(fail)?;
        let mut intake = Intake::new(files, checksums::hasher(&wanted));
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).map_err(fail)?;
            if read == 0 {
                break;
            }
            intake.write(&buffer[..read]).map_err(fail)?;
        }
        let draft = intake.finish().map_err(fail)?;
        // Those of an earlier object, which it kept by mistake, are not taken over.
        for algorithm in wanted {
            let found = algorithm.of(&draft.checksums).cloned();
            if found.is_some() && found == told(algorithm) {
                facts
                    .checksums
                    .insert(algorithm.name().to_owned(), found.unwrap_or_default());
            }
        }
        let modified = written.modified().map_err(fail)?;
        let written_ms = modified
            .duration_since(UNIX_EPOCH)
            .map_or(written.mtime() * 1000, |since| since.as_millis() as i64);
        let etag = sums.get("e_tag").and_then(|etag| etag.as_str());
        Ok(Self {
            draft,
            facts,
            etag: etag.filter(|etag| etag.contains('-')).map(str::to_owned),
            written_ms,
        })
    }

    fn keep(self, turn: &mut Turn<'_>, bucket: i64, key: &str) -> Result<(), Problem> {
        let there = objects::find(turn.db, bucket, key)?;
        let size = self.draft.size;
        let etag = self.etag.unwrap_or_else(|| hex(&self.draft.md5));
        let body = self.draft.keep(turn)?;
        let labels = Labels {
            facts: self.facts,
            ..Labels::default()
        };
        let now_ms = std::mem::replace(&mut turn.now_ms, self.written_ms);
        let placed = objects::place(turn, bucket, key, there, body, size, &etag, &labels);
        turn.now_ms = now_ms;
        placed
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::TakeOver {
        path: path.to_owned(),
        what: error.to_string(),
    }
}

/// The directories in one that stand for buckets.
fn directories(root: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The keys of a bucket: the paths of its files. An empty directory may be what is left of files that were deleted, or what
/// somebody put there under a key that ends in a slash; the older version showed neither, and it is said.
fn keys(bucket: &Path) -> std::io::Result<Vec<String>> {
    let (mut keys, mut left) = (Vec::new(), vec![bucket.to_owned()]);
    while let Some(directory) = left.pop() {
        let mut empty = directory != bucket;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            empty = false;
            if path.is_dir() {
                left.push(path);
            } else if let Some(key) = path.strip_prefix(bucket).ok().and_then(|key| key.to_str()) {
                keys.push(key.to_owned());
            } else {
                warn!(path = %path.display(), "a file whose name is no text is not taken over; it stays where it is");
            }
        }
        if empty {
            warn!(path = %directory.display(), "an empty directory is not taken over: if it stood for a folder, put a key there that ends in a slash");
        }
    }
    keys.sort();
    Ok(keys)
}
