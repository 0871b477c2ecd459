//! The lines of the log on their way to standard error.
//!
//! Guarantees: a reader that has gone or does not read stops nothing: lines wait in a bounded queue for a thread of their own,
//! and what does not fit is dropped, counted, and told when there is room again. Where standard error is the journal's, each
//! line begins with its priority.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait at most; some hundred kilobytes.
const MOST: usize = 1_000;

/// Takes lines. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: SyncSender<Item>,
    lost: Arc<AtomicU64>,
    journal: bool,
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// Answered when all before it are written.
    Written(SyncSender<()>),
}

/// One event's way into the queue.
pub(super) struct Line<'a> {
    lines: &'a Lines,
    priority: &'static str,
}

// === impl Lines ===

impl Lines {
    /// Starts the thread that writes them.
    pub(super) fn start() -> Self {
        let (queue, items) = sync_channel(MOST);
        let lines = Self {
            queue,
            lost: Arc::default(),
            journal: is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref()),
        };
        let (lost, journal) = (lines.lost.clone(), lines.journal);
        // Without a thread nothing is logged, and nothing else can be done about it.
        let _ = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write(&items, &lost, journal, std::io::stderr()));
        lines
    }

    /// Waits until what was queued is written, at most so long.
    pub(super) fn flush(&self, patience: Duration) {
        let began = Instant::now();
        let (written, done) = sync_channel(1);
        let mut item = Item::Written(written);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(item) {
            if began.elapsed() >= patience {
                return;
            }
            item = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = done.recv_timeout(patience.saturating_sub(began.elapsed()));
    }

    fn put(&self, line: Vec<u8>) {
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            lines: self,
            priority: "",
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line {
            lines: self,
            priority: if self.journal {
                priority(*metadata.level())
            } else {
                ""
            },
        }
    }
}

impl Write for Line<'_> {
    /// A whole event: it is formatted before it is written.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        self.lines.put(with_priority(event, self.priority));
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write(items: &Receiver<Item>, lost: &AtomicU64, journal: bool, mut out: impl Write) {
    while let Ok(item) = items.recv() {
        match item {
            Item::Line(line) => {
                // Whoever read it may have gone.
                let _ = out.write_all(&line);
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let priority = if journal { priority(Level::WARN) } else { "" };
                    let _ = writeln!(
                        out,
                        "{priority}{{\"level\":\"WARN\",\"message\":\"lines of the log were dropped: nobody read them\",\"lines\":{lost}}}"
                    );
                }
            }
            Item::Written(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

/// Each line of an event with its priority: the journal takes lines one by one.
fn with_priority(event: &[u8], priority: &str) -> Vec<u8> {
    if priority.is_empty() {
        return event.to_vec();
    }
    let mut lines = Vec::with_capacity(event.len() + priority.len());
    for line in event.split_inclusive(|byte| *byte == b'\n') {
        lines.extend_from_slice(priority.as_bytes());
        lines.extend_from_slice(line);
    }
    lines
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Whether standard error is the stream that systemd names: its device and inode.
fn is_journal(stream: Option<&str>) -> bool {
    let named = stream.and_then(|stream| {
        let (device, inode) = stream.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    });
    let own = std::fs::metadata("/proc/self/fd/2").map(|found| (found.dev(), found.ino()));
    named.is_some_and(|named: (u64, u64)| own.is_ok_and(|own| own == named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_an_event_begins_with_its_priority() {
        assert_eq!(with_priority(b"a\nb\n", "<3>"), b"<3>a\n<3>b\n");
        assert_eq!(with_priority(b"a\n", ""), b"a\n");
        let priorities = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG].map(priority);
        assert_eq!(priorities, ["<3>", "<4>", "<6>", "<7>"]);
        assert!(!is_journal(None) && !is_journal(Some("1:1")) && !is_journal(Some("x")));
    }

    #[test]
    fn a_log_that_nobody_reads_stops_nobody_and_says_later_what_is_missing() {
        let (queue, items) = sync_channel(3);
        let lines = Lines {
            queue,
            lost: Arc::default(),
            journal: false,
        };
        let began = Instant::now();
        for n in 0..10 {
            lines.put(format!("{n}\n").into_bytes());
        }
        lines.flush(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(1));
        let lost = lines.lost.clone();
        drop(lines);
        let mut out = Vec::new();
        write(&items, &lost, false, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("0\n"), "{text}");
        assert!(
            text.contains("\"lines\":7") && text.ends_with("1\n2\n"),
            "{text}"
        );
    }
}
