//! Models and datasets: immutable files, named by what is in them (BLAKE3).
//!
//! ```text
//! <data_dir>/models/<hash>.model         a model file
//!            datasets/<hash>.index       a dataset: its components, sensors, and the names of their rows
//!                     <hash>.rows        rows of one component, as `super::history` writes and reads them
//!            models/.making-<version>    what a job is making; nobody else looks at it
//!            datasets/.making-<job>/
//! ```
//!
//! Guarantees: what has its name is whole and, once [`Files::place`] has returned, durable; it never changes, so that whoever
//! reads one file twice reads the same, and two that are the same are one. What is read is what was written: its name is its
//! check sum. Rows of the database hold the names, nobody else makes a path.
//!
//! The order of something new, each step durable before the next: bytes ─► names announced as given up (so that a crash from
//! here on leaves nothing that nobody knows) ─► in one transaction: in their places, and the row that refers to them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::history::{Index, Part};
use crate::disk::{Disk, LocalDisk};

/// Prefix of what a job is making.
const MAKING: &str = ".making-";

/// What kind of thing a file is, and with it where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// Model files.
    Models,
    /// Ingested rows and their indexes.
    Datasets,
}

impl Folder {
    /// Its name on disk, and in the database's `leftover`.
    pub fn name(self) -> &'static str {
        match self {
            Folder::Models => "models",
            Folder::Datasets => "datasets",
        }
    }
}

/// The files of a state directory. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    root: PathBuf,
    disk: Arc<dyn Disk>,
}

/// Something new whose bytes are durable, but not yet in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Staged {
    /// Where it belongs.
    pub folder: Folder,
    /// The name that the database keeps.
    pub name: String,
    /// The files it refers to.
    pub parts: Vec<String>,
    /// `from, to`; what refers to others comes last.
    moves: Vec<(PathBuf, PathBuf)>,
}

/// A dataset's index and where its rows lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Its components.
    pub index: Index,
    folder: PathBuf,
}

impl Files {
    /// The files under `root`, on this machine's disk.
    pub fn new(root: &Path) -> Files {
        Files::on(root, Arc::new(LocalDisk))
    }

    /// The files under `root` on `disk`.
    pub fn on(root: &Path, disk: Arc<dyn Disk>) -> Files {
        Files {
            root: root.to_owned(),
            disk,
        }
    }

    /// Makes the directories.
    pub fn prepare(&self) -> io::Result<()> {
        for folder in [Folder::Models, Folder::Datasets] {
            self.disk.create_dir(&self.folder(folder))?;
        }
        self.disk.sync_dir(&self.root)
    }

    /// Where the files of that kind lie.
    pub fn folder(&self, folder: Folder) -> PathBuf {
        self.root.join(folder.name())
    }

    /// Where a file lies.
    pub fn path(&self, folder: Folder, name: &str) -> PathBuf {
        self.folder(folder).join(name)
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a file is there and holds what its name says; names of earlier builds say nothing.
    pub fn is_whole(&self, folder: Folder, name: &str) -> bool {
        let path = self.path(folder, name);
        let stem = name.split('.').next().unwrap_or_default();
        if stem.len() != 64 {
            return path.is_file();
        }
        hash_of(&path).is_ok_and(|hash| is_named(name, &hash))
    }

    /// The bytes of a model file; refused if they are not what was written.
    pub fn model(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(Folder::Models, name);
        let bytes = self
            .disk
            .read(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            is_named(name, &blake3::hash(&bytes)),
            "{} is damaged: its bytes are not those of its name; put it back from a backup, or train again",
            path.display()
        );
        Ok(bytes)
    }

    /// The dataset of that name. Its rows are not read yet, see [`Dataset::verify`].
    pub fn dataset(&self, name: &str) -> Result<Dataset> {
        let path = self.path(Folder::Datasets, name);
        let text = self
            .disk
            .read(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            is_named(name, &blake3::hash(&text)),
            "{} is damaged: its bytes are not those of its name; put it back from a backup, or ingest again",
            path.display()
        );
        let index = serde_json::from_slice(&text)
            .with_context(|| format!("{} is of another build", path.display()))?;
        Ok(Dataset {
            index,
            folder: self.folder(Folder::Datasets),
        })
    }

    /// An empty directory for the rows that `job` is making. What an interrupted attempt left is not to be trusted.
    pub fn workspace(&self, job: &str) -> io::Result<PathBuf> {
        let path = self.making(Folder::Datasets, job);
        self.disk.remove_dir(&path)?;
        self.disk.create_dir(&path)?;
        Ok(path)
    }

    /// Removes what `job` made so far.
    pub fn discard(&self, job: &str) {
        let path = self.making(Folder::Datasets, job);
        if let Err(error) = self.disk.remove_dir(&path) {
            tracing::warn!(path = %path.display(), %error, "unfinished rows not removed, the next start does");
        }
    }

    /// Makes the rows in the workspace of `job` durable under the names of what is in them; component `n` of `parts` is
    /// the file `n.rows` there.
    pub fn stage_dataset(&self, job: &str, mut parts: Vec<Part>) -> Result<Staged> {
        let workspace = self.making(Folder::Datasets, job);
        let mut moves = Vec::new();
        for (number, part) in parts.iter_mut().enumerate() {
            let path = workspace.join(format!("{number}.rows"));
            self.disk
                .sync(&path)
                .with_context(|| format!("cannot sync {}", path.display()))?;
            part.file = format!("{}.rows", hash_of(&path)?.to_hex());
            moves.push((path, self.path(Folder::Datasets, &part.file)));
        }
        let names = parts.iter().map(|part| part.file.clone()).collect();
        let index = Index { components: parts };
        let text = serde_json::to_vec(&index).context("cannot encode the index")?;
        let name = format!("{}.index", blake3::hash(&text).to_hex());
        let path = workspace.join("index");
        self.disk
            .write(&path, &text)
            .and_then(|()| self.disk.sync(&path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        moves.push((path, self.path(Folder::Datasets, &name)));
        Ok(Staged {
            folder: Folder::Datasets,
            name,
            parts: names,
            moves,
        })
    }

    /// Makes a model file durable under the name of what is in it; `version` names the attempt.
    pub fn stage_model(&self, version: &str, bytes: &[u8]) -> io::Result<Staged> {
        let path = self.making(Folder::Models, version);
        self.disk.write(&path, bytes)?;
        self.disk.sync(&path)?;
        let name = model_name(bytes);
        let to = self.path(Folder::Models, &name);
        Ok(Staged {
            folder: Folder::Models,
            name,
            parts: Vec::new(),
            moves: vec![(path, to)],
        })
    }

    /// Puts something new in its place. A file of the same name has the same bytes, or was damaged.
    pub fn place(&self, staged: &Staged) -> io::Result<()> {
        for (from, to) in &staged.moves {
            self.disk.rename(from, to)?;
        }
        self.disk.sync_dir(&self.folder(staged.folder))?;
        // Empty now; if it stays, the next sweep takes it.
        if let Some(workspace) = staged.moves.first().and_then(|(from, _)| from.parent())
            && staged.folder == Folder::Datasets
            && let Err(error) = self.disk.remove_dir(workspace)
        {
            tracing::debug!(path = %workspace.display(), %error, "empty directory not removed");
        }
        Ok(())
    }

    /// Gives a model file of an earlier layout the name of its bytes, too; durable when it returns.
    pub fn adopt_model(&self, old: &Path, bytes: &[u8]) -> io::Result<String> {
        let name = model_name(bytes);
        self.link(old, &self.path(Folder::Models, &name))?;
        self.disk.sync_dir(&self.folder(Folder::Models))?;
        Ok(name)
    }

    /// Gives the rows `<n>.rows` in a directory of an earlier layout the names of their bytes, too, and writes their index;
    /// durable when it returns.
    pub fn adopt_dataset(&self, job: &str, old: &Path, parts: Vec<Part>) -> Result<Staged> {
        let workspace = self.workspace(job)?;
        for number in 0..parts.len() {
            let name = format!("{number}.rows");
            self.link(&old.join(&name), &workspace.join(&name))?;
        }
        let staged = self.stage_dataset(job, parts)?;
        self.place(&staged)?;
        Ok(staged)
    }

    /// Another name for the same bytes; a copy where the file system has no links.
    fn link(&self, old: &Path, new: &Path) -> io::Result<()> {
        match std::fs::hard_link(old, new) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(_) => std::fs::copy(old, new).map(|_| ()),
        }?;
        self.disk.sync(new)
    }

    fn making(&self, folder: Folder, what: &str) -> PathBuf {
        self.path(folder, &format!("{MAKING}{what}"))
    }
}

impl Staged {
    /// Every name that it brings into its folder.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name)
            .chain(&self.parts)
            .map(String::as_str)
    }
}

impl Dataset {
    /// Where the rows of a component lie.
    pub fn rows(&self, part: &Part) -> PathBuf {
        self.folder.join(&part.file)
    }

    /// Reads every row and refuses those that are not what was written.
    pub fn verify(&self) -> Result<()> {
        for part in &self.index.components {
            let path = self.rows(part);
            ensure!(
                is_named(&part.file, &hash_of(&path)?),
                "{} is damaged: its bytes are not those of its name; put it back from a backup, or ingest again",
                path.display()
            );
        }
        Ok(())
    }
}

/// What a job is making under that name in a folder; `None` for everything else.
pub fn maker(name: &str) -> Option<&str> {
    name.strip_prefix(MAKING)
}

/// The name of a model file with these bytes.
pub fn model_name(bytes: &[u8]) -> String {
    format!("{}.model", blake3::hash(bytes).to_hex())
}

fn is_named(name: &str, hash: &blake3::Hash) -> bool {
    name.split('.').next() == Some(hash.to_hex().as_str())
}

fn hash_of(path: &Path) -> Result<blake3::Hash> {
    let read = || -> io::Result<blake3::Hash> {
        let mut file = File::open(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut bytes = vec![0; 1 << 18];
        loop {
            match file.read(&mut bytes)? {
                0 => return Ok(hasher.finalize()),
                read => hasher.update(&bytes[..read]),
            };
        }
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}
