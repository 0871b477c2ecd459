//! The indexes of a history's files, kept over restarts.
//!
//! Guarantees: what is read back is what was kept for the same place and the same tag list, or nothing: the indexes can be
//! lost or damaged at any time, and are made anew. Whether a file is still the one that was indexed is for the reader to ask.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::follow::Identity;
use super::history::Index;
use super::layout::Kind;
use crate::signal::TagList;
use crate::source::shape::Shape;

/// Changes with what the bytes mean.
const FORMAT: &str = "history-index-2";

/// Where the indexes of histories are kept.
#[derive(Clone, Debug)]
pub struct Shelf {
    directory: PathBuf,
    writes: bool,
}

/// What is known of one file.
#[derive(Clone)]
pub(super) struct Known {
    pub identity: Identity,
    /// A hash of its footer; `None` once the identity alone tells its versions apart.
    pub unsettled: Option<[u8; 16]>,
    /// `None` where it has no column of the tag list, or no row with a time.
    pub rows: Option<(Arc<[Option<Kind>]>, Index)>,
}

impl Known {
    /// When its rows happened; `None` where it has none.
    pub fn span(&self) -> Option<(i64, i64)> {
        let (_, index) = self.rows.as_ref()?;
        Some((index.earliest(), index.latest()))
    }
}

/// All files as they are written down: kinds, which most files share, once each.
#[derive(Serialize, Deserialize)]
struct Written {
    kinds: Vec<Vec<Option<Kind>>>,
    files: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    identity: Identity,
    unsettled: Option<[u8; 16]>,
    rows: Option<(u32, Index)>,
}

impl Shelf {
    /// Where it is kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps indexes in `directory`.
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            writes: true,
        }
    }

    /// Reads what is kept in `directory`, and leaves it as it is.
    pub fn of(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            writes: false,
        }
    }

    fn path(&self, place: &str, tags: &TagList, shape: &Shape) -> PathBuf {
        let mut key = Sha256::new();
        key.update(FORMAT);
        key.update(place);
        for (component, tag) in tags.tags() {
            key.update(format!("\n{component}\t{tag}"));
        }
        key.update(format!("\n{shape:?}"));
        let key = hex(&key.finalize()[..8]);
        self.directory.join(format!("history-{key}.index"))
    }

    /// What is kept of the files at `place`.
    pub(super) fn read(
        &self,
        place: &str,
        tags: &TagList,
        shape: &Shape,
    ) -> HashMap<String, Known> {
        let read = || -> Option<Written> {
            let bytes = fs::read(self.path(place, tags, shape)).ok()?;
            let (sum, body) = bytes.split_at_checked(32)?;
            (Sha256::digest(body)[..] == *sum).then_some(())?;
            postcard::from_bytes(body).ok()
        };
        let Some(Written { kinds, files }) = read() else {
            return HashMap::new();
        };
        let kinds: Vec<Arc<[Option<Kind>]>> = kinds.into_iter().map(Arc::from).collect();
        let known = files.into_iter().filter_map(|record| {
            let rows = match record.rows {
                Some((at, index)) => Some((kinds.get(at as usize)?.clone(), index)),
                None => None,
            };
            let known = Known {
                identity: record.identity,
                unsettled: record.unsettled,
                rows,
            };
            Some((record.name, known))
        });
        known.collect()
    }

    /// Keeps what is known of the files at `place`.
    pub(super) fn write<'a>(
        &self,
        place: &str,
        (tags, shape): (&TagList, &Shape),
        files: impl Iterator<Item = (&'a str, Known)>,
    ) -> io::Result<()> {
        if !self.writes {
            return Ok(());
        }
        let mut places: HashMap<Arc<[Option<Kind>]>, u32> = HashMap::new();
        let mut kinds = Vec::new();
        let mut number = |of: &Arc<[Option<Kind>]>| {
            *places.entry(of.clone()).or_insert_with(|| {
                kinds.push(of.to_vec());
                kinds.len() as u32 - 1
            })
        };
        let files = files.map(|(name, known)| Record {
            name: name.to_owned(),
            identity: known.identity,
            unsettled: known.unsettled,
            rows: known.rows.map(|(kinds, index)| (number(&kinds), index)),
        });
        let files = files.collect();
        let body = postcard::to_stdvec(&Written { kinds, files }).map_err(io::Error::other)?;
        let path = self.path(place, tags, shape);
        let staging = path.with_extension("index.new");
        fs::write(&staging, [&Sha256::digest(&body)[..], &body].concat())?;
        fs::rename(&staging, &path)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
