//! Multipart uploads as rows: parts are bodies, and a completed object stands on them as they are.
//!
//! Guarantees: completion is one transaction; whoever repeats it within an hour is told the same again. What is aborted or
//! replaced gives its bodies back at once.

use rusqlite::{Connection, OptionalExtension, params};
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::Checksum;
use s3s::{S3Error, S3ErrorCode, s3_error};

use super::bodies::{self, Draft, Spans};
use super::checksums::{self, Algorithm};
use super::commit::Turn;
use super::conditions::Conditions;
use super::facts::Facts;
use super::objects::{self, Labels, Object, hex};
use super::{Problem, tags};

/// The least size of a part that is not the last.
const LEAST_PART: u64 = 5 << 20;
/// So long a completed upload is known.
const REMEMBERED_MS: i64 = 3_600_000;

/// An upload's row.
#[derive(Debug)]
pub struct Upload {
    pub id: String,
    pub bucket: i64,
    pub key: String,
    pub begun_ms: i64,
    pub class: Option<String>,
    pub facts: Facts,
    pub tags: tags::Tags,
    pub algorithm: Option<Algorithm>,
    pub full_object: bool,
}

/// A part's row.
#[derive(Clone, Debug)]
pub struct Part {
    pub number: i32,
    pub body: i64,
    pub size: u64,
    pub etag: String,
    pub written_ms: i64,
    pub checksum: Option<String>,
}

/// What a client says of a part when it completes.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub number: i32,
    pub etag: Option<String>,
    pub checksums: Checksum,
}

/// What it says of the whole.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub size: Option<u64>,
    pub checksums: Checksum,
}

impl Claimed {
    /// Whether a part is what is said of it. What its upload does not keep of it cannot be compared.
    fn fits(&self, upload: &Upload, part: &Part) -> bool {
        let etag = self.etag.as_deref();
        let same = etag.is_none_or(|etag| etag.trim_matches('"') == part.etag);
        let Some(algorithm) = upload.algorithm else {
            return same;
        };
        let said = self.checksums != Checksum::default();
        same && (!said || algorithm.of(&self.checksums) == part.checksum.as_ref())
    }
}

/// An object put together.
#[derive(Debug)]
pub struct Completed {
    pub etag: String,
    pub facts: Facts,
}

fn no_such_upload() -> S3Error {
    S3Error::with_message(
        S3ErrorCode::NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
    )
}

/// Begins an upload.
pub fn begin(turn: &mut Turn<'_>, bucket_name: &str, upload: &Upload) -> Result<(), Problem> {
    let bucket = objects::bucket(turn.db, bucket_name)?;
    turn.db
        .prepare_cached(
            "INSERT INTO uploads (id, bucket, key, begun_ms, class, facts, tags, algorithm, full_object)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            upload.id,
            bucket,
            upload.key,
            turn.now_ms,
            upload.class,
            upload.facts.to_text()?,
            tags::to_text(&upload.tags)?,
            upload.algorithm.map(Algorithm::name),
            upload.full_object
        ])?;
    Ok(())
}

/// An upload of this key.
pub fn find(db: &Connection, bucket_name: &str, key: &str, id: &str) -> Result<Upload, Problem> {
    let bucket = objects::bucket(db, bucket_name)?;
    let found = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM uploads WHERE id = ?1 AND bucket = ?2 AND key = ?3"
        ))?
        .query_row(params![id, bucket, key], raw)
        .optional()?;
    upload_of(found.ok_or_else(no_such_upload)?)
}

const COLUMNS: &str = "id, bucket, key, begun_ms, class, facts, tags, algorithm, full_object";

type Raw = (Upload, Option<String>, Option<String>, Option<String>);

fn raw(row: &rusqlite::Row<'_>) -> rusqlite::Result<Raw> {
    let upload = Upload {
        id: row.get(0)?,
        bucket: row.get(1)?,
        key: row.get(2)?,
        begun_ms: row.get(3)?,
        class: row.get(4)?,
        facts: Facts::default(),
        tags: tags::Tags::new(),
        algorithm: None,
        full_object: row.get(8)?,
    };
    Ok((upload, row.get(5)?, row.get(6)?, row.get(7)?))
}

fn upload_of((mut upload, facts, tags, algorithm): Raw) -> Result<Upload, Problem> {
    upload.facts = Facts::of_text(facts.as_deref())?;
    upload.tags = tags::of_text(tags.as_deref())?;
    upload.algorithm = algorithm.as_deref().map(Algorithm::named).transpose()?;
    Ok(upload)
}

/// Uploads of a bucket with a prefix, from the `least` key and behind a marker on, by key and id; one more than `most`.
pub fn list(
    db: &Connection,
    bucket: i64,
    (prefix, least): (&str, &str),
    after: (&str, Option<&str>),
    most: usize,
) -> Result<Vec<Upload>, Problem> {
    let (key, id) = after;
    // Without an id all uploads of the marker's key have been told.
    let behind = match id {
        Some(_) => "(key > ?2 OR (key = ?2 AND id > ?3))",
        None => "key > ?2 AND ?3 IS ?3",
    };
    let mut scan = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM uploads WHERE bucket = ?1 AND {behind} AND key >= ?4 ORDER BY key, id LIMIT ?5"
    ))?;
    let rows = scan.query_map(params![bucket, key, id, least, most as i64 + 1], raw)?;
    let mut uploads = Vec::new();
    for row in rows {
        let upload = upload_of(row?)?;
        if !upload.key.starts_with(prefix) {
            break;
        }
        uploads.push(upload);
    }
    Ok(uploads)
}

/// Keeps a part; one of the same number goes.
pub fn put_part(
    turn: &mut Turn<'_>,
    place: (&str, &str, &str),
    number: i32,
    draft: Draft,
    checksum: Option<String>,
) -> Result<(), Problem> {
    let upload = find(turn.db, place.0, place.1, place.2)?;
    let (size, etag) = (draft.size, hex(&draft.md5));
    let body = draft.keep(turn)?;
    let there: Option<i64> = turn
        .db
        .prepare_cached("SELECT body FROM parts WHERE upload = ?1 AND number = ?2")?
        .query_row(params![upload.id, number], |row| row.get(0))
        .optional()?;
    turn.db
        .prepare_cached(
            "INSERT OR REPLACE INTO parts (upload, number, body, size, etag, written_ms, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            upload.id,
            number,
            body,
            size as i64,
            etag,
            turn.now_ms,
            checksum
        ])?;
    match there {
        Some(there) => bodies::release(turn, there),
        None => Ok(()),
    }
}

/// Parts behind a number.
pub fn parts(db: &Connection, upload: &str, after: i32, most: usize) -> Result<Vec<Part>, Problem> {
    let mut scan = db.prepare_cached(
        "SELECT number, body, size, etag, written_ms, checksum FROM parts WHERE upload = ?1 AND number > ?2
         ORDER BY number LIMIT ?3",
    )?;
    let rows = scan.query_map(params![upload, after, most as i64], |row| {
        Ok(Part {
            number: row.get(0)?,
            body: row.get(1)?,
            size: row.get::<_, i64>(2)? as u64,
            etag: row.get(3)?,
            written_ms: row.get(4)?,
            checksum: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A piece of an object that was put together: number, start, size, checksum.
pub type Piece = (i32, u64, u64, Option<String>);

/// The pieces of an object that was put together.
pub fn pieces(db: &Connection, body: i64) -> Result<Vec<Piece>, Problem> {
    let mut scan = db.prepare_cached(
        "SELECT number, start, size, checksum FROM pieces WHERE whole = ?1 ORDER BY number",
    )?;
    let rows = scan.query_map([body], |row| {
        Ok((
            row.get(0)?,
            row.get::<_, i64>(1)? as u64,
            row.get::<_, i64>(2)? as u64,
            row.get(3)?,
        ))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Takes an upload away, with the parts that stand on nothing else.
pub fn remove(turn: &mut Turn<'_>, id: &str) -> Result<(), Problem> {
    let bodies: Vec<i64> = turn
        .db
        .prepare_cached("DELETE FROM parts WHERE upload = ?1 RETURNING body")?
        .query_map([id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for body in bodies {
        bodies::release(turn, body)?;
    }
    turn.db
        .prepare_cached("DELETE FROM uploads WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// Aborts an upload.
pub fn abort(turn: &mut Turn<'_>, bucket: &str, key: &str, id: &str) -> Result<(), Problem> {
    let upload = find(turn.db, bucket, key, id)?;
    remove(turn, &upload.id)
}

/// The bytes of the parts that a client names.
pub fn spans(db: &Connection, upload: &Upload, claimed: &[Claimed]) -> Result<Spans, Problem> {
    let mut spans = Spans::default();
    for part in chosen(db, upload, claimed)? {
        spans.append(Spans::of(db, part.body, 0..part.size)?);
    }
    Ok(spans)
}

/// Puts an object together from its parts.
pub fn complete(
    turn: &mut Turn<'_>,
    place: (&str, &str, &str),
    claimed: &[Claimed],
    said: &Said,
    conditions: &Conditions,
) -> Result<Completed, Problem> {
    let (bucket_name, key, id) = place;
    let upload = match find(turn.db, bucket_name, key, id) {
        Err(Problem::Refused(error)) if *error.code() == S3ErrorCode::NoSuchUpload => {
            return repeated(turn.db, bucket_name, key, id)?.ok_or_else(|| error.into());
        }
        upload => upload?,
    };
    let chosen = chosen(turn.db, &upload, claimed)?;
    let size = chosen.iter().map(|part| part.size).sum();
    if let Some(said) = said.size.filter(|said| *said != size) {
        return Err(s3_error!(
            InvalidRequest,
            "The provided 'x-amz-mp-object-size' header value {said} does not match what was computed: {size}"
        )
        .into());
    }
    let bucket = upload.bucket;
    let there = objects::find(turn.db, bucket, key)?;
    conditions.of_write(there.as_ref().map(Object::version))?;
    let mut facts = upload.facts.clone();
    if let Some(algorithm) = upload.algorithm {
        let sums: Option<Vec<(String, u64)>> = chosen
            .iter()
            .map(|part| Some((part.checksum.clone()?, part.size)))
            .collect();
        let sums =
            sums.ok_or_else(|| s3_error!(InvalidPart, "A part of the upload has no checksum"))?;
        let sum = if upload.full_object {
            checksums::full_object(algorithm, &sums)?
        } else {
            checksums::composite(algorithm, &sums)?
        };
        let whole = algorithm.of(&said.checksums);
        if whole.is_some_and(|whole| *whole != sum) {
            return Err(s3_error!(
                BadDigest,
                "The {} you specified did not match the calculated checksum.",
                algorithm.name()
            )
            .into());
        }
        if whole.is_none() && said.checksums != Checksum::default() {
            return Err(s3_error!(
                InvalidRequest,
                "The upload was created with the {} checksum algorithm, and the complete request names another one.",
                algorithm.name()
            )
            .into());
        }
        facts.checksums = [(algorithm.name().to_owned(), sum)].into();
        facts.composite = !upload.full_object;
    }
    let mut md5s = Vec::new();
    for part in &chosen {
        md5s.extend(
            (0..part.etag.len())
                .step_by(2)
                .filter_map(|at| u8::from_str_radix(part.etag.get(at..at + 2)?, 16).ok()),
        );
    }
    let etag = format!("{}-{}", hex(&Md5::checksum(&md5s)), chosen.len());
    let body = assemble(turn.db, &chosen, size)?;
    let labels = Labels {
        class: upload.class.clone(),
        facts,
        tags: upload.tags.clone(),
    };
    objects::place(turn, bucket, key, there, body, size, &etag, &labels)?;
    remove(turn, &upload.id)?;
    turn.db
        .prepare_cached("DELETE FROM completed WHERE at_ms < ?1")?
        .execute([turn.now_ms - REMEMBERED_MS])?;
    turn.db
        .prepare_cached("INSERT OR REPLACE INTO completed (upload, bucket, key, etag, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![upload.id, bucket, key, etag, turn.now_ms])?;
    Ok(Completed {
        etag,
        facts: labels.facts,
    })
}

/// What a client is told that completes again.
fn repeated(
    db: &Connection,
    bucket_name: &str,
    key: &str,
    id: &str,
) -> Result<Option<Completed>, Problem> {
    let bucket = objects::bucket(db, bucket_name)?;
    let etag: Option<String> = db
        .prepare_cached(
            "SELECT etag FROM completed WHERE upload = ?1 AND bucket = ?2 AND key = ?3",
        )?
        .query_row(params![id, bucket, key], |row| row.get(0))
        .optional()?;
    let Some(etag) = etag else { return Ok(None) };
    let there = objects::find(db, bucket, key)?.filter(|object| object.etag == etag);
    Ok(Some(Completed {
        etag,
        facts: there.map(|object| object.facts).unwrap_or_default(),
    }))
}

/// The parts that a client names, if they are what it takes them for.
fn chosen(db: &Connection, upload: &Upload, claimed: &[Claimed]) -> Result<Vec<Part>, Problem> {
    if claimed.is_empty() {
        return Err(s3_error!(MalformedXML, "The XML you provided was not well-formed or did not validate against our published schema").into());
    }
    if claimed
        .windows(2)
        .any(|pair| pair[0].number >= pair[1].number)
    {
        return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order. The parts list must be specified in order by part number.").into());
    }
    let mut there = parts(db, &upload.id, 0, 10_000)?.into_iter().peekable();
    let mut chosen = Vec::with_capacity(claimed.len());
    for claim in claimed {
        while there.peek().is_some_and(|part| part.number < claim.number) {
            there.next();
        }
        let part = there.next_if(|part| part.number == claim.number && claim.fits(upload, part));
        let part = part.ok_or_else(|| s3_error!(InvalidPart, "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."))?;
        chosen.push(part);
    }
    let all_but_last = &chosen[..chosen.len() - 1];
    if all_but_last.iter().any(|part| part.size < LEAST_PART) {
        return Err(s3_error!(
            EntityTooSmall,
            "Your proposed upload is smaller than the minimum allowed size"
        )
        .into());
    }
    Ok(chosen)
}

/// A body that stands on parts, each with one owner more.
fn assemble(db: &Connection, chosen: &[Part], size: u64) -> Result<i64, Problem> {
    db.prepare_cached("INSERT INTO bodies (size, sums, refs) VALUES (?1, x'', 1)")?
        .execute([size as i64])?;
    let whole = db.last_insert_rowid();
    let mut start = 0;
    for part in chosen {
        bodies::share(db, part.body)?;
        db.prepare_cached("INSERT INTO pieces (whole, number, body, start, size, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![whole, part.number, part.body, start, part.size as i64, part.checksum])?;
        start += part.size as i64;
    }
    Ok(whole)
}
