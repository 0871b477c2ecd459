//! Buckets and objects as rows; each function is a part of one transaction.

use rusqlite::{Connection, OptionalExtension, params};
use s3s::{S3Error, S3ErrorCode, s3_error};

use super::bodies::{self, Draft};
use super::commit::Turn;
use super::conditions::{Conditions, Version, no_such_key};
use super::facts::Facts;
use super::tags::{self, Tags};
use super::{LONGEST_KEY, Problem};

/// A bucket's row.
#[derive(Debug)]
pub struct Bucket {
    pub id: i64,
    pub name: String,
    pub made_ms: i64,
    pub region: Option<String>,
}

/// An object's row.
#[derive(Clone, Debug)]
pub struct Object {
    pub body: i64,
    pub size: u64,
    pub etag: String,
    pub written_ms: i64,
    pub class: Option<String>,
    pub facts: Facts,
    pub tags: Tags,
}

/// What is written beside the bytes.
#[derive(Debug, Default)]
pub struct Labels {
    pub class: Option<String>,
    pub facts: Facts,
    pub tags: Tags,
}

/// How a copy's headers and tags come about.
#[derive(Debug, Default)]
pub struct Relabel {
    /// New headers and metadata, or those of the source.
    pub facts: Option<Facts>,
    /// New tags, or those of the source.
    pub tags: Option<Tags>,
    pub class: Option<String>,
    /// Where a website would lead; it is never that of the source.
    pub redirect: Option<String>,
}

impl Object {
    pub fn version(&self) -> Version<'_> {
        Version {
            etag: &self.etag,
            written_ms: self.written_ms,
        }
    }
}

pub fn no_such_bucket(name: &str) -> S3Error {
    s3_error!(NoSuchBucket, "The specified bucket does not exist: {name}")
}

/// A bucket's id.
pub fn bucket(db: &Connection, name: &str) -> Result<i64, Problem> {
    Ok(describe(db, name)?.id)
}

/// A bucket.
pub fn describe(db: &Connection, name: &str) -> Result<Bucket, Problem> {
    let found = db
        .prepare_cached("SELECT id, name, made_ms, region FROM buckets WHERE name = ?1")?
        .query_row([name], bucket_of)
        .optional()?;
    found.ok_or_else(|| no_such_bucket(name).into())
}

/// All of them, by name.
pub fn buckets(db: &Connection) -> Result<Vec<Bucket>, Problem> {
    let mut all =
        db.prepare_cached("SELECT id, name, made_ms, region FROM buckets ORDER BY name")?;
    let all = all.query_map([], bucket_of)?.collect::<Result<_, _>>()?;
    Ok(all)
}

fn bucket_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Bucket> {
    Ok(Bucket {
        id: row.get(0)?,
        name: row.get(1)?,
        made_ms: row.get(2)?,
        region: row.get(3)?,
    })
}

/// Makes a bucket; false if it is there.
pub fn make_bucket(turn: &mut Turn<'_>, name: &str, region: Option<&str>) -> Result<bool, Problem> {
    let made = turn
        .db
        .prepare_cached("INSERT INTO buckets (name, made_ms, region) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![name, turn.now_ms, region])?;
    Ok(made == 1)
}

/// Removes a bucket that holds nothing; uploads that were never completed go with it.
pub fn remove_bucket(turn: &mut Turn<'_>, name: &str) -> Result<(), Problem> {
    let id = bucket(turn.db, name)?;
    let full = turn
        .db
        .prepare_cached("SELECT 1 FROM objects WHERE bucket = ?1 LIMIT 1")?
        .exists([id])?;
    if full {
        return Err(s3_error!(
            BucketNotEmpty,
            "The bucket you tried to delete is not empty"
        )
        .into());
    }
    let uploads: Vec<String> = turn
        .db
        .prepare_cached("SELECT id FROM uploads WHERE bucket = ?1")?
        .query_map([id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for upload in uploads {
        super::multipart::remove(turn, &upload)?;
    }
    turn.db
        .prepare_cached("DELETE FROM buckets WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// A bucket's tags.
pub fn bucket_tags(db: &Connection, name: &str) -> Result<Tags, Problem> {
    let text: Option<String> = db
        .prepare_cached("SELECT tags FROM buckets WHERE id = ?1")?
        .query_row([bucket(db, name)?], |row| row.get(0))?;
    tags::of_text(text.as_deref())
}

pub fn tag_bucket(turn: &mut Turn<'_>, name: &str, tags: &Tags) -> Result<(), Problem> {
    let id = bucket(turn.db, name)?;
    turn.db
        .prepare_cached("UPDATE buckets SET tags = ?2 WHERE id = ?1")?
        .execute(params![id, tags::to_text(tags)?])?;
    Ok(())
}

/// An object of a bucket.
pub fn find(db: &Connection, bucket: i64, key: &str) -> Result<Option<Object>, Problem> {
    let found = db
        .prepare_cached(
            "SELECT body, size, etag, written_ms, class, facts, tags FROM objects WHERE bucket = ?1 AND key = ?2",
        )?
        .query_row(params![bucket, key], |row| {
            Ok((
                Object {
                    body: row.get(0)?,
                    size: row.get::<_, i64>(1)? as u64,
                    etag: row.get(2)?,
                    written_ms: row.get(3)?,
                    class: row.get(4)?,
                    facts: Facts::default(),
                    tags: Tags::new(),
                },
                row.get::<_, Option<String>>(5)?,
                row.get::<_, Option<String>>(6)?,
            ))
        })
        .optional()?;
    let Some((mut object, facts, tags)) = found else {
        return Ok(None);
    };
    object.facts = Facts::of_text(facts.as_deref())?;
    object.tags = tags::of_text(tags.as_deref())?;
    Ok(Some(object))
}

/// An object, or the error that it is not there.
pub fn get(db: &Connection, bucket_name: &str, key: &str) -> Result<Object, Problem> {
    let object = find(db, bucket(db, bucket_name)?, key)?;
    object.ok_or_else(|| no_such_key().into())
}

/// Every key of a bucket.
pub fn keys(db: &Connection, bucket_name: &str) -> Result<Vec<String>, Problem> {
    let mut keys = db.prepare_cached("SELECT key FROM objects WHERE bucket = ?1 ORDER BY key")?;
    let keys = keys.query_map([bucket(db, bucket_name)?], |row| row.get(0))?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// Keys of a bucket as far as they can be read: page by page from the first, and where the database is damaged from the last
/// as well. With what is wrong, if something is.
pub fn keys_as_far(db: &Connection, bucket: i64) -> (Vec<String>, Option<Problem>) {
    let mut keys = Vec::new();
    let Err(damage) = page_by_page(db, bucket, true, &mut keys) else {
        return (keys, None);
    };
    let mut behind = Vec::new();
    // The same damage ends it.
    let _ = page_by_page(db, bucket, false, &mut behind);
    let last = keys.last().cloned();
    behind.retain(|key| last.as_ref().is_none_or(|last| key > last));
    keys.extend(behind.into_iter().rev());
    (keys, Some(damage))
}

fn page_by_page(
    db: &Connection,
    bucket: i64,
    ascending: bool,
    keys: &mut Vec<String>,
) -> Result<(), Problem> {
    const PAGE: usize = 1_000;
    let (than, order) = if ascending {
        (">", "ASC")
    } else {
        ("<", "DESC")
    };
    let mut page = db.prepare(&format!(
        "SELECT key FROM objects WHERE bucket = ?1 AND (?2 IS NULL OR key {than} ?2) ORDER BY key {order} LIMIT ?3"
    ))?;
    loop {
        let before = keys.len();
        // What came before the damage counts.
        let mut rows = page.query(params![bucket, keys.last(), PAGE as i64])?;
        while let Some(row) = rows.next()? {
            keys.push(row.get(0)?);
        }
        if keys.len() < before + PAGE {
            return Ok(());
        }
    }
}

/// The ids that objects name as their buckets, where the buckets themselves cannot be read.
pub fn bucket_ids(db: &Connection) -> Result<Vec<i64>, Problem> {
    let mut next = db.prepare("SELECT min(bucket) FROM objects WHERE bucket > ?1")?;
    let (mut ids, mut last) = (Vec::new(), i64::MIN);
    while let Some(id) = next.query_row([last], |row| row.get(0))? {
        ids.push(id);
        last = id;
    }
    Ok(ids)
}

/// What is wrong with a key.
pub fn check_key(key: &str) -> Result<(), Problem> {
    if key.len() > LONGEST_KEY {
        return Err(
            S3Error::with_message(S3ErrorCode::KeyTooLongError, "Your key is too long").into(),
        );
    }
    Ok(())
}

/// Puts a body that has come in under a key, if the conditions hold.
pub fn put(
    turn: &mut Turn<'_>,
    bucket_name: &str,
    key: &str,
    draft: Draft,
    labels: &Labels,
    conditions: &Conditions,
) -> Result<(), Problem> {
    let bucket = bucket(turn.db, bucket_name)?;
    let there = find(turn.db, bucket, key)?;
    conditions.of_write(there.as_ref().map(Object::version))?;
    let (size, etag) = (draft.size, hex(&draft.md5));
    let body = draft.keep(turn)?;
    place(turn, bucket, key, there, body, size, &etag, labels)
}

/// The row for a body that the caller has taken a share of; what it replaces goes.
#[expect(clippy::too_many_arguments, reason = "a row has so many columns")]
pub fn place(
    turn: &mut Turn<'_>,
    bucket: i64,
    key: &str,
    there: Option<Object>,
    body: i64,
    size: u64,
    etag: &str,
    labels: &Labels,
) -> Result<(), Problem> {
    turn.db
        .prepare_cached(
            "INSERT OR REPLACE INTO objects (bucket, key, body, size, etag, written_ms, class, facts, tags)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            bucket,
            key,
            body,
            size as i64,
            etag,
            turn.now_ms,
            labels.class,
            labels.facts.to_text()?,
            tags::to_text(&labels.tags)?
        ])?;
    if let Some(there) = there {
        bodies::release(turn, there.body)?;
    }
    Ok(())
}

/// Copies within the store: the bytes stay where they are.
pub fn copy(
    turn: &mut Turn<'_>,
    source: (&str, &str),
    target: (&str, &str),
    relabel: Relabel,
    (of_source, of_target): (&Conditions, &Conditions),
) -> Result<Object, Problem> {
    let found = get(turn.db, source.0, source.1)?;
    of_source.of_source(found.version())?;
    let bucket = bucket(turn.db, target.0)?;
    let there = find(turn.db, bucket, target.1)?;
    of_target.of_write(there.as_ref().map(Object::version))?;
    let mut facts = match relabel.facts {
        // Checksums are of the bytes.
        Some(facts) => Facts {
            checksums: found.facts.checksums.clone(),
            composite: found.facts.composite,
            ..facts
        },
        None => found.facts.clone(),
    };
    facts.redirect = relabel.redirect;
    let labels = Labels {
        class: relabel.class,
        facts,
        tags: relabel.tags.unwrap_or_else(|| found.tags.clone()),
    };
    bodies::share(turn.db, found.body)?;
    place(
        turn,
        bucket,
        target.1,
        there,
        found.body,
        found.size,
        &found.etag,
        &labels,
    )?;
    Ok(Object {
        written_ms: turn.now_ms,
        facts: labels.facts,
        ..found
    })
}

/// Removes an object; one that is not there is removed already.
pub fn remove(
    turn: &mut Turn<'_>,
    bucket: i64,
    key: &str,
    holds: impl FnOnce(&Object) -> Result<(), S3Error>,
) -> Result<(), Problem> {
    let Some(there) = find(turn.db, bucket, key)? else {
        return Ok(());
    };
    holds(&there)?;
    turn.db
        .prepare_cached("DELETE FROM objects WHERE bucket = ?1 AND key = ?2")?
        .execute(params![bucket, key])?;
    bodies::release(turn, there.body)
}

/// Gives an object other tags.
pub fn tag(turn: &mut Turn<'_>, bucket_name: &str, key: &str, tags: &Tags) -> Result<(), Problem> {
    let bucket = bucket(turn.db, bucket_name)?;
    let changed = turn
        .db
        .prepare_cached("UPDATE objects SET tags = ?3 WHERE bucket = ?1 AND key = ?2")?
        .execute(params![bucket, key, tags::to_text(tags)?])?;
    if changed == 0 {
        return Err(no_such_key().into());
    }
    Ok(())
}

/// Bytes as text.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
