//! The log: what was appended since the last segment, in the order in which it came, so that one write and one sync make it durable.
//!
//! ```text
//! log-{position of its first sample, 16 hexadecimal digits}: MAGIC, frames
//! frame: FRAME, length u32, crc u32 of what follows; position of its first sample, its samples
//! ```
//!
//! Guarantees: reading takes any bytes; frames before and behind a damaged one are found. A log whose writing failed is never
//! written to again: the next one begins at the position after the last that was acknowledged, and what the earlier has from
//! there on does not count.

use super::coding::{Bytes, put, put_signed};
use super::table::{Entry, Key, Said};

/// How a log begins.
pub(super) const MAGIC: &[u8; 8] = b"LKDLOG1\n";
/// How a frame begins, so that the next can be found behind one that is damaged.
const FRAME: [u8; 4] = [0xf7, b'L', b'F', 0x1d];
/// Magic, length, checksum.
const HEAD: usize = 12;
const MISSING: u8 = 1 << 7;
const ALIVE: u8 = 1 << 6;

/// Appends a frame of versions whose positions follow each other.
pub(super) fn put_frame(out: &mut Vec<u8>, entries: &[Entry]) {
    let Some((first, _)) = entries.first() else {
        return;
    };
    let head = out.len();
    out.extend_from_slice(&[0; HEAD]);
    out.extend_from_slice(&first.position.to_le_bytes());
    put(out, entries.len() as u64);
    let mut before = 0;
    for (key, said) in entries {
        put(out, u64::from(key.signal));
        put_signed(out, key.time.wrapping_sub(before));
        before = key.time;
        let missing = if said.value.is_nan() { MISSING } else { 0 };
        let alive = if key.kind == 1 { ALIVE } else { 0 };
        out.push(said.marks | missing | alive);
        if missing == 0 {
            out.extend_from_slice(&said.value.to_le_bytes());
        }
    }
    let body = &out[head + HEAD..];
    let length = (body.len() as u32).to_le_bytes();
    let sum = checksum(length, body).to_le_bytes();
    out[head..head + 4].copy_from_slice(&FRAME);
    out[head + 4..head + 8].copy_from_slice(&length);
    out[head + 8..head + HEAD].copy_from_slice(&sum);
}

fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(body);
    hasher.finalize()
}

/// What a log has.
#[derive(Default)]
pub(super) struct Contents {
    /// Its samples.
    pub entries: Vec<Entry>,
    /// Bytes at its end that are no whole frame.
    pub torn: usize,
    /// Bytes that are no frame before others that are.
    pub damaged: usize,
}

/// Reads what can be read.
pub(super) fn read(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut at = MAGIC.len();
    if !bytes.starts_with(MAGIC) {
        at = next_frame(bytes, 0).unwrap_or(bytes.len());
        match at == bytes.len() {
            true => contents.torn = bytes.len(),
            false => contents.damaged = at,
        }
    }
    while at < bytes.len() {
        if let Some(length) = frame(&bytes[at..], &mut contents.entries) {
            at += length;
            continue;
        }
        let next = next_frame(bytes, at + 1).unwrap_or(bytes.len());
        match next == bytes.len() {
            true => contents.torn = next - at,
            false => contents.damaged += next - at,
        }
        at = next;
    }
    contents
}

/// Where the next whole frame begins.
fn next_frame(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at += rest
            .windows(FRAME.len())
            .position(|window| window == FRAME)?;
        if frame(&bytes[at..], &mut Vec::new()).is_some() {
            return Some(at);
        }
        at += 1;
    }
}

/// The length of the frame that begins here; its samples are added.
fn frame(bytes: &[u8], entries: &mut Vec<Entry>) -> Option<usize> {
    let mut head = Bytes(bytes);
    if head.take(4)? != FRAME {
        return None;
    }
    let length = head.u32()?;
    let sum = head.u32()?;
    let body = head.take(usize::try_from(length).ok()?)?;
    if checksum(length.to_le_bytes(), body) != sum {
        return None;
    }
    let known = entries.len();
    let read = samples(Bytes(body), entries);
    if read.is_none() {
        entries.truncate(known);
    }
    read.map(|()| HEAD + body.len())
}

fn samples(mut body: Bytes<'_>, entries: &mut Vec<Entry>) -> Option<()> {
    let first = body.u64()?;
    let count = body.number()?;
    let mut time = 0i64;
    for at in 0..count {
        let signal = u32::try_from(body.number()?).ok()?;
        time = time.wrapping_add(body.signed()?);
        let marks = body.byte()?;
        let value = match marks & MISSING {
            0 => body.f64()?,
            _ => f64::NAN,
        };
        let key = Key {
            signal,
            time,
            kind: u8::from(marks & ALIVE != 0),
            position: first.checked_add(at)?,
        };
        let marks = marks & !(MISSING | ALIVE);
        entries.push((key, Said { value, marks }));
    }
    body.0.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(first: u64, count: u64) -> Vec<Entry> {
        (first..first + count)
            .map(|position| {
                let key = Key {
                    signal: (position % 3) as u32,
                    time: 1_700_000_000_000_000_000 - position as i64 * 7,
                    kind: u8::from(position % 5 == 4),
                    position,
                };
                let value = if position % 4 == 0 {
                    f64::NAN
                } else {
                    position as f64 / 3.0
                };
                (
                    key,
                    Said {
                        value,
                        marks: (position % 3) as u8,
                    },
                )
            })
            .collect()
    }

    fn keys(entries: &[Entry]) -> Vec<(Key, u64, u8)> {
        let bits = |said: &Said| {
            if said.value.is_nan() {
                0
            } else {
                said.value.to_bits()
            }
        };
        entries
            .iter()
            .map(|(key, said)| (*key, bits(said), said.marks))
            .collect()
    }

    fn log() -> (Vec<u8>, Vec<usize>, Vec<Entry>) {
        let mut bytes = MAGIC.to_vec();
        let mut ends = vec![bytes.len()];
        let mut all = Vec::new();
        for (first, count) in [(0, 5), (5, 1), (6, 40), (46, 2)] {
            let some = entries(first, count);
            put_frame(&mut bytes, &some);
            ends.push(bytes.len());
            all.extend(some);
        }
        (bytes, ends, all)
    }

    #[test]
    fn a_log_cut_anywhere_has_its_whole_frames_and_no_more() {
        let (bytes, ends, all) = log();
        for length in 0..=bytes.len() {
            let contents = read(&bytes[..length]);
            let whole = ends.iter().filter(|end| **end <= length).count();
            let samples = [0, 0, 5, 6, 46, 48][whole];
            assert_eq!(keys(&contents.entries), keys(&all[..samples]), "{length}");
            assert_eq!(contents.damaged, 0, "{length}");
            let end = ends
                .iter()
                .rev()
                .find(|end| **end <= length)
                .copied()
                .unwrap_or(0);
            assert_eq!(contents.torn, length - end, "{length}");
        }
    }

    #[test]
    fn a_damaged_byte_costs_its_frame_and_no_other() {
        let (bytes, ends, all) = log();
        let starts = [0, 5, 6, 46, 48];
        for at in ends[0]..ends[3] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let contents = read(&bytes);
            let hit = ends.iter().filter(|end| **end <= at).count() - 1;
            let mut expected = all.clone();
            expected.drain(starts[hit]..starts[hit + 1]);
            assert_eq!(keys(&contents.entries), keys(&expected), "{at}");
            assert!(contents.damaged > 0, "{at}");
        }
    }
}
