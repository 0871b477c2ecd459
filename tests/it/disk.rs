//! Disks that are full, or cannot be written at all: cutting pauses, goes on by itself, and loses nothing; a data directory
//! that cannot be used ends a command with 73 and the remedy.

mod injected;
mod midway;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use lookoutd::config::ByteSize;
use lookoutd::feed::State;
use lookoutd::feed::disk::{Disk, LocalDisk};

use crate::errors::Errors;
use crate::rig::*;
use crate::time::Desk;

const START: &str = "2026-01-01T00:05:00Z";

/// A disk that is full from some operation on, until it is not.
#[derive(Default)]
struct FullDisk {
    /// Operations that still succeed; only counted while `fills`.
    left: AtomicI64,
    fills: AtomicBool,
    /// Times that it refused.
    refused: AtomicU64,
    /// Bytes said to be free; 0 asks the machine.
    free: AtomicU64,
}

impl FullDisk {
    fn after(operations: i64) -> Arc<FullDisk> {
        let disk = FullDisk::default();
        disk.fill_after(operations);
        Arc::new(disk)
    }

    fn fill_after(&self, operations: i64) {
        self.left.store(operations, Ordering::SeqCst);
        self.fills.store(true, Ordering::SeqCst);
    }

    fn empty(&self) {
        self.fills.store(false, Ordering::SeqCst);
    }

    fn refuses(&self) -> bool {
        let full =
            self.fills.load(Ordering::SeqCst) && self.left.fetch_sub(1, Ordering::SeqCst) <= 0;
        if full {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        full
    }

    fn room(&self) -> io::Result<()> {
        if self.refuses() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for FullDisk {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.room() {
            // What still fitted is there.
            LocalDisk.write(path, &bytes[..bytes.len() / 3])?;
            return Err(error);
        }
        LocalDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.room() {
            LocalDisk.append(path, &bytes[..bytes.len() / 3])?;
            return Err(error);
        }
        LocalDisk.append(path, bytes)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.room()?;
        LocalDisk.sync(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.room()?;
        LocalDisk.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.room()?;
        LocalDisk.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.room()?;
        LocalDisk.sync_dir(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        LocalDisk.read(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        LocalDisk.list(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.room()?;
        LocalDisk.remove(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.room()?;
        LocalDisk.remove_dir(path)
    }
    fn free(&self, path: &Path) -> io::Result<u64> {
        match self.free.load(Ordering::SeqCst) {
            0 => LocalDisk.free(path),
            free => Ok(free),
        }
    }
}

#[tokio::test]
async fn full_at_any_step_of_a_cut_the_window_is_cut_when_there_is_room_again() {
    let errors = Errors::watch();
    let mut operation = 0;
    loop {
        let directory = directory();
        let disk = Arc::new(FullDisk::default());
        let mut desk = Desk::on(disk.clone(), directory.path(), &feed_config(), START);
        disk.fill_after(operation);
        desk.tick().await;
        if disk.refused.load(Ordering::SeqCst) == 0 {
            break;
        }
        errors.expect("cutting is paused");
        // At the last step the window is sealed already and the next attempt takes it as it is, which is progress.
        let last = desk.sealed().len() == 3;
        desk.tick().await;
        assert!(last || errors.take().is_empty(), "said at every attempt");
        // Two windows later there is room.
        desk.clock.advance(TimeDelta::minutes(10));
        desk.tick().await;
        assert!(errors.take().iter().all(|e| e.contains("paused")));
        disk.empty();
        desk.tick().await;
        let entries = desk.entries();
        assert_eq!(entries.len(), 3, "operation {operation}");
        assert!(entries.iter().all(|e| e.state == State::Spooled));
        assert_same(&desk.sealed(), &Wave::default().objects(windows(START, 3)));
        operation += 1;
    }
    assert!(operation >= 12, "a cut has only {operation} operations");
}

#[tokio::test]
async fn below_min_free_cutting_pauses_and_goes_on_by_itself() {
    let errors = Errors::watch();
    let directory = directory();
    let disk = Arc::new(FullDisk::default());
    let config = lookoutd::feed::Config {
        min_free: ByteSize(64 << 20),
        ..feed_config()
    };
    let mut desk = Desk::on(disk.clone(), directory.path(), &config, START);
    disk.free.store((64 << 20) - 1, Ordering::SeqCst);
    desk.tick().await;
    errors.expect("feed.min_free");
    assert_eq!(desk.sealed().len(), 0);
    desk.clock.advance(TimeDelta::minutes(15));
    desk.tick().await;
    disk.free.store(64 << 20, Ordering::SeqCst);
    desk.tick().await;
    assert_same(&desk.sealed(), &Wave::default().objects(windows(START, 4)));
}

#[tokio::test]
async fn full_while_shipping_every_window_still_ends_shipped_and_leaves_the_spool() {
    let errors = Errors::watch();
    // Each takes the seconds after which a lane looks again, so all run at once.
    let cases = (0..4).map(|operation| async move {
        let store = Store::start();
        store.proxy.refuse();
        let disk = FullDisk::after(i64::MAX);
        let rig = Rig {
            disk: disk.clone(),
            ..Rig::new(&store, "data", START)
        };
        let data_dir = rig.data_dir.clone();
        let running = rig.start().await;
        running
            .until("sealed", |entries| {
                entries.len() == 1 && entries[0].state == State::Spooled
            })
            .await;
        disk.fill_after(operation);
        store.proxy.listen();
        running
            .until("shipped", |entries| entries[0].state == State::Shipped)
            .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        disk.empty();
        running.settle().await;
        running.stop().await;
        // What was on its way out when the disk refused is swept by the next start.
        let running = Rig::new(&store, "data", START).start().await;
        running.stop().await;
        assert_spool_is_empty(&data_dir);
        assert_same(
            &store.objects(),
            &Wave::default().objects(windows(START, 1)),
        );
    });
    futures_util::future::join_all(cases).await;
    assert!(errors.take().is_empty(), "nothing was lost");
}

/// A small file system on `directory`, unmounted when dropped; `None` where this process may not mount.
pub struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    pub fn mount<'a>(directory: &'a Path, size: &str) -> Option<SmallDisk<'a>> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            crate::skipped::say("this process may not mount a small file system");
        }
        mounted.then_some(SmallDisk(directory))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0).output());
    }
}

#[tokio::test]
async fn a_file_system_that_is_really_full_pauses_spool_and_ledger_and_nothing_is_lost() {
    let errors = Errors::watch();
    let store = Store::start();
    let rig = Rig::new(&store, "small", START);
    let data_dir = rig.data_dir.clone();
    let Some(_mounted) = SmallDisk::mount(&data_dir, "1m") else {
        return;
    };
    let running = rig.start().await;
    running.settle().await;
    let filler = data_dir.join("filler");
    let mut size = 1 << 20;
    while size > 0 {
        if std::fs::write(&filler, vec![0; size]).is_ok() {
            break;
        }
        size -= 4096;
    }
    for _ in 0..2 {
        running.clock.advance(TimeDelta::minutes(5));
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    errors.expect("cutting is paused");
    std::fs::remove_file(&filler).unwrap();
    running.settle().await;
    running.stop().await;
    assert_same(
        &store.objects(),
        &Wave::default().objects(windows(START, 3)),
    );
    assert_spool_is_empty(&data_dir);
}

#[test]
fn a_data_directory_that_cannot_be_used_ends_with_73_and_the_remedy() {
    let directory = directory();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    for data_dir in [
        file.join("data"),
        file.clone(),
        PathBuf::from("/proc/lookoutd"),
    ] {
        for command in [&["run", "--once"][..], &["check", "--offline"]] {
            let output = Command::new(env!("CARGO_BIN_EXE_lookoutd"))
                .args(command)
                .arg("--data-dir")
                .arg(&data_dir)
                .output()
                .unwrap();
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            assert_eq!(output.status.code(), Some(73), "{command:?}: {text}");
            assert!(text.contains(&data_dir.display().to_string()), "{text}");
            assert!(text.contains("make it writable"), "{text}");
        }
    }
}
