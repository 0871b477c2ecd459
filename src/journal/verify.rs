//! Verification: everything that the journal has is read and compared with its checksums. Changes nothing.

use std::io;

use serde::Serialize;

use super::{Journal, JournalError, looked};

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Tags that have a name.
    pub signals: u64,
    /// Versions of samples that were read.
    pub samples: u64,
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that the daemon removed meanwhile, as it may.
    pub gone: u64,
    /// The earliest and the latest time, nanoseconds.
    pub span: Option<(i64, i64)>,
    /// Files and what is wrong with them.
    pub damaged: Vec<(String, String)>,
}

impl Journal {
    /// Reads all of it. Blocks.
    pub fn verify(&self) -> Result<Verified, JournalError> {
        let shared = &self.shared;
        let mut verified = Verified {
            signals: self.signals().len() as u64,
            ..Verified::default()
        };
        let segments = {
            let live = looked(&shared.live);
            verified.samples = live.table.len() as u64;
            for (key, _) in live.table.entries() {
                verified.see(key.time);
            }
            live.segments.clone()
        };
        for segment in segments {
            let mut samples = 0;
            let read = shared.index(&segment).and_then(|index| {
                shared.entries(&segment, &index, |(key, _)| {
                    samples += 1;
                    verified.see(key.time);
                })
            });
            match read {
                Err(JournalError::Disk { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    verified.gone += 1;
                    continue;
                }
                Err(error) => shared.note(&segment.path, error.to_string()),
                Ok(()) => {}
            }
            verified.samples += samples;
            verified.segments += 1;
            verified.bytes += segment.bytes;
        }
        let damage = self.damage().into_iter();
        verified.damaged = damage
            .map(|damage| (damage.path.display().to_string(), damage.text))
            .collect();
        Ok(verified)
    }
}

impl Verified {
    fn see(&mut self, time: i64) {
        let (least, most) = self.span.unwrap_or((time, time));
        self.span = Some((least.min(time), most.max(time)));
    }
}
