//! Looking at a store from outside: what it holds, whether it can be read, and all of it as plain files.
//!
//! Guarantees: it only reads, also beside a running process and also what is damaged; what cannot be read is named, and does
//! not keep the rest from being read. Files of an export are made anew, below the directory that was asked for and nowhere else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use serde::Serialize;

use super::bodies::{Files, Reading, Spans};
use super::opening::read_only;
use super::retention::{Prefix, Rule, look};
use super::standing::{Figures, figures};
use super::{BODIES, DATABASE, Options, Problem, objects};

/// A store that is looked at.
#[derive(Debug)]
pub struct Contents {
    db: Connection,
    files: Arc<Files>,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Objects that could be read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong with the others, by bucket and key.
    pub damaged: Vec<String>,
    /// Keys that cannot be the names of files, with the names they got.
    pub renamed: Vec<(String, String)>,
}

impl Contents {
    /// Looks at the store in `root`.
    pub fn open(root: &Path) -> Result<Self, Problem> {
        let path = root.join(DATABASE);
        if !path.is_file() {
            let text = format!("there is no store in {}", root.display());
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, text).into());
        }
        Ok(Self {
            db: read_only(&path)?,
            files: Arc::new(Files::open(&root.join(BODIES), &Options::default())?),
        })
    }

    /// The names of its buckets.
    pub fn buckets(&self) -> Result<Vec<String>, Problem> {
        let buckets = objects::buckets(&self.db)?;
        Ok(buckets.into_iter().map(|bucket| bucket.name).collect())
    }

    /// The keys of one.
    pub fn keys(&self, bucket: &str) -> Result<Vec<String>, Problem> {
        objects::keys(&self.db, bucket)
    }

    /// An object's verified bytes.
    pub fn read(&self, bucket: &str, key: &str) -> Result<Vec<u8>, Problem> {
        self.reading(bucket, key)?.read_all()
    }

    fn reading(&self, bucket: &str, key: &str) -> Result<Reading, Problem> {
        let object = objects::get(&self.db, bucket, key)?;
        let spans = Spans::of(&self.db, object.body, 0..object.size)?;
        Ok(Reading::new(&self.files, spans))
    }

    /// Reads everything.
    pub fn verify(&self) -> Result<Report, Problem> {
        let mut report = Report::default();
        let check: String = self
            .db
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if check != "ok" {
            report.damaged.push(format!("{DATABASE}: {check}"));
        }
        self.each(&mut report, |_, _, mut reading| {
            let mut bytes = 0;
            while let Some(next) = reading.read_on()? {
                bytes += next.len() as u64;
            }
            Ok(bytes)
        })?;
        Ok(report)
    }

    /// Writes every object below `target` as `BUCKET/KEY`. A key that is no path there gets another name, which is told.
    pub fn export(&self, target: &Path) -> Result<Report, Problem> {
        let mut report = Report::default();
        let mut renamed = Vec::new();
        self.each(&mut report, |bucket, key, mut reading| {
            let (path, other) = place(target, bucket, key);
            if other {
                let name = path.strip_prefix(target).unwrap_or(&path);
                renamed.push((format!("{bucket}/{key}"), name.display().to_string()));
            }
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file = fs::File::create_new(&path)?;
            let mut bytes = 0;
            while let Some(next) = reading.read_on()? {
                std::io::Write::write_all(&mut file, &next)?;
                bytes += next.len() as u64;
            }
            file.sync_all()?;
            Ok(bytes)
        })?;
        report.renamed = renamed;
        Ok(report)
    }

    /// What is kept by rules, and what would go now.
    pub fn due(
        &self,
        rules: &[Rule],
        now: DateTime<Utc>,
        horizon: Option<DateTime<Utc>>,
    ) -> Result<Vec<Prefix>, Problem> {
        let (prefixes, _) = look(&self.db, rules, now.timestamp_millis(), horizon)?;
        Ok(prefixes)
    }

    /// What it holds.
    pub fn figures(&self) -> Result<Figures, Problem> {
        figures(&self.db, self.files.bytes()?)
    }

    fn each(
        &self,
        report: &mut Report,
        mut work: impl FnMut(&str, &str, Reading) -> Result<u64, Problem>,
    ) -> Result<(), Problem> {
        for bucket in self.buckets()? {
            for key in self.keys(&bucket)? {
                let done = self
                    .reading(&bucket, &key)
                    .and_then(|reading| work(&bucket, &key, reading));
                match done {
                    Ok(bytes) => {
                        report.objects += 1;
                        report.bytes += bytes;
                    }
                    // Deleted since it was listed.
                    Err(Problem::Refused(_)) => {}
                    Err(Problem::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
                        return Err(error.into());
                    }
                    Err(problem) => report.damaged.push(format!("{bucket}/{key}: {problem}")),
                }
            }
        }
        Ok(())
    }
}

/// Where an object's file goes, and whether its name is another than its key.
fn place(target: &Path, bucket: &str, key: &str) -> (PathBuf, bool) {
    let plain = key
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
        && !key.contains('\0');
    let path = target.join(bucket).join(key);
    // A key that is also the directory of others cannot be both.
    if plain
        && !path.exists()
        && path
            .ancestors()
            .skip(1)
            .take_while(|above| *above != target)
            .all(|above| !above.is_file())
    {
        return (path, false);
    }
    let name = blake3::hash(key.as_bytes()).to_hex()[..32].to_owned();
    (target.join("_other-names").join(bucket).join(name), true)
}
