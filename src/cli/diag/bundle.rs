//! The bundle: parts with a name and a line about each, and the one door through which they come in.
//!
//! Guarantees: every text passes through [`Scrub`] here, and the names in the archive are constants of this program, so
//! that a secret can come in neither by content nor by name. The file is made for its owner alone and replaces nothing.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::scrub::Scrub;

/// What goes into the archive.
pub struct Bundle {
    scrub: Scrub,
    parts: Vec<(Part, String)>,
}

/// One file of the archive.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What it holds, or why it holds nothing.
    pub holds: String,
    /// Whether what should be there is.
    pub complete: bool,
    /// Its length.
    pub bytes: usize,
}

/// What a look at one thing came to.
pub struct Found {
    /// In a line.
    pub holds: String,
    /// All of it.
    pub text: String,
    /// Whether it could be had.
    pub complete: bool,
}

impl Found {
    /// It could be had.
    pub fn whole(holds: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            holds: holds.into(),
            text: text.into(),
            complete: true,
        }
    }

    /// It could not, and why.
    pub fn missing(why: impl Into<String>) -> Self {
        let why = why.into();
        Self {
            text: format!("{why}\n"),
            holds: why,
            complete: false,
        }
    }

    /// A JSON document, complete unless a reason is given.
    pub fn json(holds: impl Into<String>, value: &impl Serialize, complete: bool) -> Self {
        Self {
            holds: holds.into(),
            text: serde_json::to_string_pretty(value).unwrap_or_default() + "\n",
            complete,
        }
    }
}

impl Bundle {
    /// An empty one.
    pub fn new(scrub: Scrub) -> Self {
        Self {
            scrub,
            parts: Vec::new(),
        }
    }

    /// Takes what was found, without its secrets.
    pub fn add(&mut self, name: &'static str, found: Found) {
        let text = self.scrub.clean(&found.text);
        let line = found.holds.lines().next().unwrap_or_default();
        let part = Part {
            name,
            holds: self.scrub.clean(line),
            complete: found.complete,
            bytes: text.len(),
        };
        self.parts.push((part, text));
    }

    /// What it holds.
    pub fn parts(&self) -> Vec<Part> {
        self.parts.iter().map(|(part, _)| part.clone()).collect()
    }

    /// The archive, in a directory of its own, with a page in front that says what is in it.
    pub fn archive(
        &self,
        directory: &str,
        heading: &str,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Vec<u8>> {
        let mut page = format!("{}\n\n", self.scrub.clean(heading));
        for (part, _) in &self.parts {
            page += &line(part);
            page.push('\n');
        }
        page += "\nSecrets are left out. Names of schedulers, components, buckets and files' places are not.\n";
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let texts = self.parts.iter().map(|(part, text)| (part.name, text));
        for (name, text) in std::iter::once(("README.txt", &page)).chain(texts) {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(now.timestamp().try_into().unwrap_or(0));
            tar.append_data(&mut header, format!("{directory}/{name}"), text.as_bytes())?;
        }
        Ok(tar.into_inner()?.finish()?)
    }
}

/// A part in a line, for people.
pub fn line(part: &Part) -> String {
    let mark = if part.complete { "" } else { "NOT THERE: " };
    format!("{:<20} {mark}{}", part.name, part.holds)
}

/// Writes a file that is not there yet, for its owner alone.
pub fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| {
            format!(
                "{}: name a file that is not there yet, in a directory that this user may write, with --out",
                path.display()
            )
        })?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}
