//! The real daemon whose disk begins to refuse while it runs, and works again later: it stays up or can be started again, and
//! every window ends delivered, once.
//!
//! A small library (`failing.c`), preloaded into the process, fails what is written below a chosen path while a file says
//! so; the clock is libfaketime's. Without libfaketime this says SKIP. `LOOKOUTD_FULL=1` goes through every part of the data
//! directory.

use std::time::Duration;

use crate::preload::Library;
use crate::restarts::{Site, assert_tiled, delivered, has};
use crate::rig::at;

/// Refuses what is written while a file says so.
static FAILING: Library = Library::of("tests/it/disk/failing.c");
const ENOSPC: i32 = 28;
const EIO: i32 = 5;
/// How long the disk refuses in each case: several attempts of every loop.
const REFUSES: Duration = Duration::from_secs(4);

#[test]
fn a_disk_that_refuses_while_the_daemon_runs_costs_no_window() {
    let Some(mut site) = Site::new() else { return };
    let control = site.directory().join("failing");
    site.preload(FAILING.path(), ("FAIL_FILE", &control));
    site.set_clock(at("2026-01-01T00:04:00Z"), 1);
    let mut daemon = site.run();
    site.until("the first window", |entries| {
        has(entries, "2026-01-01T00:00:00Z")
    });
    let cases = [
        (ENOSPC, ""),
        (EIO, "ledger.db"),
        (EIO, "spool"),
        (ENOSPC, "s3"),
        (ENOSPC, "spool"),
        (ENOSPC, "ledger.db"),
        (EIO, "s3"),
        (EIO, ""),
    ];
    let full = crate::skipped::full("five of eight parts that refuse");
    let cases = &cases[..if full { cases.len() } else { 3 }];
    for (number, (errno, part)) in cases.iter().enumerate() {
        let start = at("2026-01-01T00:05:00Z") + chrono::TimeDelta::minutes(5 * number as i64);
        let refused = site.data_dir().join(part);
        std::fs::write(&control, format!("{errno} {}\n", refused.display())).unwrap();
        let before = site.log().len();
        site.set_clock(start, 1);
        std::thread::sleep(REFUSES);
        let said = site.log()[before..].to_owned();
        let start = start.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        assert!(
            !has(&site.entries(), &start) && (said.contains("WARN") || said.contains("ERROR")),
            "{errno} under {part:?} was not felt, or not told: {said}"
        );
        std::fs::remove_file(&control).unwrap();
        if daemon.ended() {
            // A supervisor starts it again.
            daemon = site.run();
        }
        site.until(
            &format!("the window after {errno} under {part:?}"),
            |entries| has(entries, &start),
        );
    }
    daemon.kill();
    let entries = site.entries();
    assert_eq!(entries.len(), 1 + cases.len());
    assert!(entries.iter().all(delivered), "{entries:?}");
    assert_tiled(&entries);
    site.assert_bucket_agrees();
}
