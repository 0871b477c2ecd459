//! What the data directory holds: its entries with their owners and modes, and the census of each database in it.
//!
//! Databases are opened for reading only, beside a running daemon or without one, and nothing in them is repaired or
//! checkpointed. Counts are generic (rows of each table, by status), so that a database of another version tells as much.
//! Entries whose names are not lookoutd's own are counted and not named.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use regex_lite::Regex;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value, json};

use super::bundle::Found;
use crate::cli::output::{bytes, utc};
use crate::feed::disk::LocalDisk;
use crate::feed::{Spool, SpoolError};

/// Files counted below one directory, at most.
const MOST_FILES: usize = 200_000;
/// Entries of the spool that are looked into.
const LOOKED_INTO: usize = 50;
/// Larger databases are not checked page by page.
const CHECKED: u64 = 256 << 20;
/// The entries of a data directory: names that lookoutd gives, none of which somebody else could choose a part of.
const OURS: &str = r"^(lock|lookoutd\.sock|(ledger\.clean|ledger\.db(\.damaged-\d{8}T\d{6}Z|\.format-1)?|notify\.(db|damaged))(-wal|-shm)?|spool|quarantine|archive|service|s3|sample|credentials|rebase(-[0-9a-f]{16})?(\.backup)?\.json|history-[0-9a-f]{16}\.index)$";

/// A question to a database, with the name of its answer. Each answer has a bounded number of rows.
type Question = (&'static str, &'static str);

const LEDGER: [Question; 3] = [
    (
        "newest_windows",
        "SELECT strftime('%Y-%m-%dT%H:%M:%SZ', start, 'unixepoch') AS start, cadence, state, reason, files, components,
            rows, bytes, strftime('%Y-%m-%dT%H:%M:%SZ', cut_at, 'unixepoch') AS cut_at,
            strftime('%Y-%m-%dT%H:%M:%SZ', shipped_at, 'unixepoch') AS shipped_at, attempts, last_error
         FROM window ORDER BY window.start DESC LIMIT 50",
    ),
    (
        "oldest_waiting",
        "SELECT strftime('%Y-%m-%dT%H:%M:%SZ', start, 'unixepoch') AS start, state, attempts, last_error FROM window
         WHERE state IN ('due', 'spooled') ORDER BY window.start LIMIT 20",
    ),
    (
        "newest_skips",
        "SELECT strftime('%Y-%m-%dT%H:%M:%SZ', start, 'unixepoch') AS start,
            strftime('%Y-%m-%dT%H:%M:%SZ', end, 'unixepoch') AS end, reason
         FROM skipped ORDER BY skipped.start DESC LIMIT 20",
    ),
];
const ARCHIVE: [Question; 3] = [
    (
        "by_scheduler",
        "SELECT scheduler, status, count(*) AS executions, sum(archived_us IS NULL) AS not_archived,
            strftime('%Y-%m-%dT%H:%M:%SZ', max(start_us) / 1000000, 'unixepoch') AS newest
         FROM execution GROUP BY scheduler, status ORDER BY scheduler, status LIMIT 200",
    ),
    (
        "newest_executions",
        "SELECT scheduler, strftime('%Y-%m-%dT%H:%M:%SZ', start_us / 1000000, 'unixepoch') AS data_start, status, rows,
            anomalous, strftime('%Y-%m-%dT%H:%M:%SZ', archived_us / 1000000, 'unixepoch') AS archived_at
         FROM execution ORDER BY start_us DESC LIMIT 50",
    ),
    (
        "newest_failures",
        "SELECT scheduler, strftime('%Y-%m-%dT%H:%M:%SZ', start_us / 1000000, 'unixepoch') AS data_start,
            json_extract(execution, '$.failed_reason') AS failed_reason
         FROM execution WHERE status = 'FAILED' ORDER BY start_us DESC LIMIT 20",
    ),
];
const SERVICE: [Question; 4] = [
    (
        "schedulers",
        "SELECT name, model_name, status, frequency, delay_minutes, latest_result,
            strftime('%Y-%m-%dT%H:%M:%SZ', due_us / 1000000, 'unixepoch') AS wakes
         FROM scheduler ORDER BY due_us LIMIT 100",
    ),
    (
        "newest_failures",
        "SELECT s.name, strftime('%Y-%m-%dT%H:%M:%SZ', e.boundary_us / 1000000, 'unixepoch') AS boundary, e.failed_reason
         FROM scheduler s JOIN execution e ON e.scheduler_uuid = s.uuid
         WHERE e.status = 'FAILED' ORDER BY e.boundary_us DESC LIMIT 20",
    ),
    (
        "failed_ingestions",
        "SELECT id, status, failed_reason FROM ingestion_job WHERE failed_reason IS NOT NULL ORDER BY created_us DESC LIMIT 20",
    ),
    (
        "failed_trainings",
        "SELECT m.name, v.version, v.failed_reason FROM model_version v JOIN model m ON m.uuid = v.model_uuid
         WHERE v.failed_reason IS NOT NULL ORDER BY v.created_us DESC LIMIT 20",
    ),
];
const NOTIFICATIONS: [Question; 2] = [
    (
        "newest_messages",
        "SELECT strftime('%Y-%m-%dT%H:%M:%SZ', m.created_us / 1000000, 'unixepoch') AS queued,
            json_extract(m.body, '$.kind') AS kind, json_extract(m.body, '$.state') AS says, d.target, d.state, d.attempts,
            d.error FROM delivery d JOIN message m ON m.seq = d.seq ORDER BY d.seq DESC, d.target LIMIT 30",
    ),
    ("numbers", "SELECT name, value FROM number ORDER BY name"),
];

/// The windows.
pub fn ledger(data_dir: &Path) -> Found {
    database(&data_dir.join("ledger.db"), "window", &LEDGER)
}

/// The archived executions.
pub fn archive(data_dir: &Path) -> Found {
    database(&data_dir.join("archive/index.db"), "execution", &ARCHIVE)
}

/// The service's state, where there is a service.
pub fn service(data_dir: &Path) -> Found {
    database(&data_dir.join("service/state.db"), "execution", &SERVICE)
}

/// What was told and what waits to be.
pub fn notifications(data_dir: &Path) -> Found {
    database(&data_dir.join("notify.db"), "delivery", &NOTIFICATIONS)
}

/// What waits in the spool and what was set aside.
pub fn spool(data_dir: &Path) -> Found {
    let spool = Spool::attach(Arc::new(LocalDisk), data_dir);
    let windows = match spool.windows() {
        Ok(windows) => windows,
        Err(SpoolError::Io { source, .. }) => return absent(&source, &data_dir.join("spool")),
        Err(error) => return Found::missing(error.to_string()),
    };
    let (mut damaged, mut files, mut size) = (Vec::new(), 0, 0);
    for window in windows.iter().take(LOOKED_INTO) {
        match spool.manifest(window) {
            Ok(manifest) => {
                files += manifest.files.len();
                size += manifest.bytes();
            }
            Err(SpoolError::Damaged { what, .. }) => {
                damaged.push(json!({"window": utc(window.start()), "what": what}));
            }
            Err(error) => {
                damaged.push(json!({"window": utc(window.start()), "what": error.to_string()}))
            }
        }
    }
    let time = |window: Option<&crate::signal::Window>| window.map(|window| utc(window.start()));
    let aside = std::fs::read_dir(data_dir.join("quarantine")).map_or(0, Iterator::count);
    let holds = format!(
        "{} windows wait, {} damaged, {aside} set aside",
        windows.len(),
        damaged.len()
    );
    let value = json!({
        "waiting": windows.len(), "oldest": time(windows.first()), "newest": time(windows.last()),
        "looked_into": windows.len().min(LOOKED_INTO), "files_in_these": files, "bytes_in_these": size,
        "damaged": damaged, "set_aside": aside,
        "free_bytes": spool.free().ok(),
    });
    Found::json(holds, &value, true)
}

/// The entries of the data directory, and the files beside it that lookoutd reads: owner, mode, size, age.
pub fn files(data_dir: &Path, others: &[(&'static str, PathBuf)]) -> Found {
    let others: Map<String, Value> = others
        .iter()
        .filter(|(_, path)| !path.as_os_str().is_empty())
        .map(|(key, path)| {
            let mut about = about(path);
            about.insert("path".into(), path.display().to_string().into());
            ((*key).to_owned(), about.into())
        })
        .collect();
    let mut value = json!({
        "data_dir": data_dir.display().to_string(), "directory": about(data_dir), "read_by": reader(),
    });
    let listed = std::fs::read_dir(data_dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let (mut entries, mut strange, mut problem) = (Map::new(), 0, None);
    let ours = Regex::new(OURS).ok();
    match listed {
        Err(error) => problem = Some(absent(&error, data_dir).holds),
        Ok(found) => {
            for entry in found {
                let name = entry.file_name().to_string_lossy().into_owned();
                if !ours.as_ref().is_some_and(|ours| ours.is_match(&name)) {
                    strange += 1;
                    continue;
                }
                let path = entry.path();
                let mut about = about(&path);
                if path.is_dir() {
                    about.extend(below(&path));
                }
                entries.insert(name, about.into());
            }
        }
    }
    let holds = problem.clone().unwrap_or_else(|| {
        format!(
            "{} entries of {}, {strange} that are not lookoutd's",
            entries.len(),
            data_dir.display()
        )
    });
    value["entries"] = entries.into();
    value["other_entries"] = strange.into();
    value["beside_it"] = others.into();
    value["problem"] = problem.clone().into();
    Found::json(holds, &value, problem.is_none())
}

/// Owner, mode, size and age of one entry.
fn about(path: &Path) -> Map<String, Value> {
    let described = |about: &Metadata| {
        let changed = DateTime::<Utc>::from_timestamp(about.mtime(), 0).map(utc);
        json!({
            "owner": user(about.uid()), "group": group(about.gid()), "mode": format!("{:04o}", about.mode() & 0o7777),
            "bytes": about.len(), "changed": changed,
        })
    };
    match std::fs::symlink_metadata(path) {
        Ok(about) => match described(&about) {
            Value::Object(members) => members,
            _ => Map::new(),
        },
        Err(error) => [("problem".to_owned(), Value::from(error.to_string()))]
            .into_iter()
            .collect(),
    }
}

/// Files and bytes below a directory, as far as they can be seen.
fn below(directory: &Path) -> Map<String, Value> {
    let (mut files, mut size, mut unreadable, mut left) =
        (0_usize, 0_u64, 0, vec![directory.to_owned()]);
    while let Some(directory) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            unreadable += 1;
            continue;
        };
        for entry in entries.flatten().take(MOST_FILES.saturating_sub(files)) {
            match entry.metadata() {
                Ok(about) if about.is_dir() => left.push(entry.path()),
                Ok(about) => {
                    files += 1;
                    size += about.len();
                }
                Err(_) => unreadable += 1,
            }
        }
    }
    let counts = [
        ("files", json!(files)),
        ("bytes_of_files", json!(size)),
        ("all_counted", json!(files < MOST_FILES)),
        ("unreadable", json!(unreadable)),
    ];
    counts
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// Who this command runs as.
pub fn reader() -> String {
    let id = rustix::process::geteuid().as_raw();
    user(id)
}

fn user(id: u32) -> String {
    named("/etc/passwd", id)
}

fn group(id: u32) -> String {
    named("/etc/group", id)
}

/// An id with the name that the machine's own list gives it.
fn named(list: &str, id: u32) -> String {
    let text = std::fs::read_to_string(list).unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    found.map_or_else(|| id.to_string(), |name| format!("{name} ({id})"))
}

/// Why there is nothing to look at.
fn absent(error: &io::Error, path: &Path) -> Found {
    match error.kind() {
        ErrorKind::NotFound => Found::missing(format!("there is no {}", path.display())),
        ErrorKind::PermissionDenied => Found::missing(format!(
            "{} may not be read by {}: run as root or as the service's user",
            path.display(),
            reader()
        )),
        _ => Found::missing(format!("{}: {error}", path.display())),
    }
}

/// The census of a database, and the answers to some questions.
fn database(path: &Path, main: &str, questions: &[Question]) -> Found {
    let size = match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(about) => about.len(),
        Err(error) => return absent(&error, path),
    };
    let db = match open(path) {
        Ok(db) => db,
        Err(error) => {
            return Found::missing(format!("{} cannot be opened: {error}", path.display()));
        }
    };
    let mut problems = Vec::new();
    let mut keep = |what: &str, answer: rusqlite::Result<Value>| {
        answer.unwrap_or_else(|error| {
            problems.push(format!("{what}: {error}"));
            Value::Null
        })
    };
    let check = match size {
        ..=CHECKED => keep("check", one(&db, "PRAGMA quick_check(5)")),
        _ => "too large to be checked here".into(),
    };
    let format = keep("format", one(&db, "PRAGMA user_version"));
    let tables = keep("tables", tables(&db));
    let mut value = json!({"bytes": size, "check": check, "format": format, "tables": tables});
    for (name, question) in questions {
        value[*name] = keep(name, rows(&db, question));
    }
    let damage = match check.as_str() {
        Some("ok") | None => problems.first().cloned(),
        Some(_) if size > CHECKED => problems.first().cloned(),
        Some(what) => Some(what.to_owned()),
    };
    value["problems"] = problems.into();
    let count = &value["tables"][main]["rows"];
    match damage {
        None => Found::json(
            format!("{count} rows of {main}, {}", bytes(size)),
            &value,
            true,
        ),
        Some(what) => Found {
            holds: format!("{} is damaged: {what}", path.display()),
            ..Found::json("", &value, false)
        },
    }
}

/// Opens for reading only. Where nobody writes, and this user may not make the files that sharing needs, as it lies.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    const PLAIN: &AsciiSet = &CONTROLS.add(b' ').add(b'?').add(b'#').add(b'%');
    let look = |db: Connection| {
        db.busy_timeout(std::time::Duration::from_secs(2))?;
        db.execute_batch("PRAGMA query_only = ON")?;
        db.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
        Ok(db)
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    match Connection::open_with_flags(path, flags).and_then(look) {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen) => {
            let place = utf8_percent_encode(&path.display().to_string(), PLAIN).to_string();
            let address = format!("file:{place}?immutable=1");
            Connection::open_with_flags(address, flags | OpenFlags::SQLITE_OPEN_URI).and_then(look)
        }
        other => other,
    }
}

/// Rows of each table, and how many of each status.
fn tables(db: &Connection) -> rusqlite::Result<Value> {
    let names: Vec<String> = db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut counts = Map::new();
    for name in names {
        let quoted = name.replace('"', "\"\"");
        let mut about = Map::new();
        about.insert(
            "rows".into(),
            one(db, &format!("SELECT count(*) FROM \"{quoted}\""))?,
        );
        let columns: Vec<String> = db
            .prepare("SELECT name FROM pragma_table_info(?1) WHERE name IN ('status', 'state')")?
            .query_map([&name], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for column in columns {
            let by = rows(
                db,
                &format!(
                    "SELECT {column} AS is_so, count(*) AS n FROM \"{quoted}\" GROUP BY {column} ORDER BY {column} LIMIT 20"
                ),
            )?;
            about.insert(format!("by_{column}"), by);
        }
        counts.insert(name, about.into());
    }
    Ok(counts.into())
}

fn one(db: &Connection, question: &str) -> rusqlite::Result<Value> {
    db.query_row(question, [], |row| Ok(value(row.get_ref(0)?)))
}

/// An answer as objects.
fn rows(db: &Connection, question: &str) -> rusqlite::Result<Value> {
    let mut statement = db.prepare(question)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let found = statement.query_map([], |row| {
        let mut object = Map::new();
        for (at, name) in names.iter().enumerate() {
            object.insert(name.clone(), value(row.get_ref(at)?));
        }
        Ok(Value::from(object))
    })?;
    Ok(Value::Array(found.collect::<rusqlite::Result<_>>()?))
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_lookoutd_gives_are_told() {
        let ours = Regex::new(OURS).unwrap();
        for name in [
            "lock",
            "ledger.db",
            "ledger.db-wal",
            "ledger.db.damaged-20260101T000000Z-shm",
            "spool",
            "rebase.json",
            "rebase.backup.json",
            "rebase-0123456789abcdef.backup.json",
            "ledger.clean",
            "history-0123456789abcdef.index",
            "notify.db-wal",
            "notify.damaged",
            "credentials",
        ] {
            assert!(ours.is_match(name), "{name}");
        }
        for name in [
            "hunter2",
            "credentials.hunter2",
            "ledger.db-hunter2",
            "spool4711",
            "ledger.db.damaged-4711",
        ] {
            assert!(!ours.is_match(name), "{name}");
        }
    }
}
