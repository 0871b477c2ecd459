//! A backup put back into an empty data directory.
//!
//! Guarantees: every file is compared with the backup's own list before any of them has its place; until all have, the
//! directory holds [`RESTORING`], with which no daemon starts on it. A directory that is in use, or that holds something, is
//! refused.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};

use super::{FORMAT, MANIFEST, Manifest, hash, make_private, sync_directories};
use crate::ops::lock::{self, RESTORING};

/// Puts the backup in `backup` into `data_dir`, which is empty or absent.
pub fn restore(backup: &Path, data_dir: &Path) -> Result<Manifest> {
    let listed = backup.join(MANIFEST);
    let text = fs::read(&listed).with_context(|| {
        format!(
            "{} holds no backup that was finished: there is no {MANIFEST} to be read",
            backup.display()
        )
    })?;
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", listed.display()))?;
    ensure!(
        manifest.format <= FORMAT,
        "{} was written by lookoutd {}, this one does not know its format: restore it with that one",
        backup.display(),
        manifest.version
    );
    let staging = data_dir.join(RESTORING);
    let _lock = lock::lock_to_restore(data_dir)?;
    for entry in fs::read_dir(data_dir)? {
        let name = entry?.file_name();
        if name != "lock" && name != RESTORING {
            bail!(
                "{} is not empty ({} is there): name a directory that is empty or absent, or move what is in it away",
                data_dir.display(),
                name.to_string_lossy()
            );
        }
    }
    if staging.is_dir() {
        // One that was cut short before anything had its place; where something has, the mark stays.
        fs::remove_dir_all(&staging)?;
    }
    make_private(&staging)?;
    for file in &manifest.files {
        let inside = file
            .path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        ensure!(
            inside,
            "{} lists {}, which leads elsewhere",
            listed.display(),
            file.path.display()
        );
        let (from, to) = (backup.join(&file.path), staging.join(&file.path));
        if let Some(parent) = to.parent() {
            make_private(parent)?;
        }
        fs::copy(&from, &to)
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        let (found, _) = hash(&to)?;
        ensure!(
            found == file.hash,
            "{} is not what was backed up: take another backup; nothing was put in its place",
            from.display()
        );
        fs::set_permissions(&to, fs::Permissions::from_mode(file.mode))?;
        File::open(&to)?.sync_all()?;
    }
    give_to_the_owner(data_dir, &staging)?;
    sync_directories(&staging)?;
    for entry in fs::read_dir(&staging)? {
        let entry = entry?;
        fs::rename(entry.path(), data_dir.join(entry.file_name()))?;
    }
    File::open(data_dir)?.sync_all()?;
    fs::remove_dir(&staging)?;
    File::open(data_dir)?.sync_all()?;
    Ok(manifest)
}

/// What root puts back belongs to whom the data directory belongs.
fn give_to_the_owner(data_dir: &Path, restored: &Path) -> Result<()> {
    let owner = fs::metadata(data_dir)?;
    let ours = fs::metadata(restored)?;
    if (owner.uid(), owner.gid()) == (ours.uid(), ours.gid()) {
        return Ok(());
    }
    let mut all = vec![restored.to_owned(), data_dir.join("lock")];
    while let Some(path) = all.pop() {
        std::os::unix::fs::lchown(&path, Some(owner.uid()), Some(owner.gid()))
            .with_context(|| format!("giving {} to its owner", path.display()))?;
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                all.push(entry?.path());
            }
        }
    }
    Ok(())
}
