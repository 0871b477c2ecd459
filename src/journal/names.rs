//! Which number stands for which tag of which asset, for as long as the journal's directory is there.
//!
//! A line for each: checksum, a blank, `[number,"asset","tag"]`. Guarantees: a number is never given twice, also where lines were
//! lost; a damaged line costs its name alone.

use std::collections::HashMap;

/// The most bytes of a name.
const LONGEST: usize = 4096;

/// Both ways.
#[derive(Default)]
pub(super) struct Names {
    by_name: HashMap<(String, String), u32>,
    by_number: HashMap<u32, (String, String)>,
    next: u32,
    /// Those that are not in the file, in the order in which they came.
    fresh: Vec<u32>,
}

/// Lines that could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unread {
    /// Bytes behind the last whole line.
    pub torn: usize,
    /// Whole lines.
    pub damaged: usize,
}

impl Names {
    /// What the file's bytes say.
    pub fn read(bytes: &[u8]) -> (Names, Unread) {
        let mut names = Names::default();
        let mut unread = Unread::default();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(whole) = line.strip_suffix(b"\n") else {
                unread.torn = line.len();
                break;
            };
            match parsed(whole) {
                Some((number, asset, tag)) if !names.by_number.contains_key(&number) => {
                    names.note(number, asset, tag);
                }
                _ => unread.damaged += 1,
            }
        }
        (names, unread)
    }

    fn note(&mut self, number: u32, asset: String, tag: String) {
        self.next = self.next.max(number.saturating_add(1));
        self.by_number.insert(number, (asset.clone(), tag.clone()));
        self.by_name.insert((asset, tag), number);
    }

    /// Numbers up to this one are given.
    pub fn skip(&mut self, number: u32) {
        self.next = self.next.max(number.saturating_add(1));
    }

    /// The number of a name, a new one where it has none; `None` where the name is too long, or there are none left.
    pub fn number(&mut self, asset: &str, tag: &str) -> Option<u32> {
        if let Some(number) = self.find(asset, tag) {
            return Some(number);
        }
        if asset.len() + tag.len() > LONGEST || self.next == u32::MAX {
            return None;
        }
        let number = self.next;
        self.note(number, asset.to_owned(), tag.to_owned());
        self.fresh.push(number);
        Some(number)
    }

    /// The number of a name that has one.
    pub fn find(&self, asset: &str, tag: &str) -> Option<u32> {
        self.by_name
            .get(&(asset.to_owned(), tag.to_owned()))
            .copied()
    }

    /// Asset and tag.
    pub fn name(&self, number: u32) -> Option<(&str, &str)> {
        self.by_number
            .get(&number)
            .map(|(asset, tag)| (asset.as_str(), tag.as_str()))
    }

    /// Every number that has a name, in order.
    pub fn numbers(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = self.by_number.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Lines of what the file lacks, and how many they are.
    pub fn fresh(&self) -> (Vec<u8>, usize) {
        (self.lines(&self.fresh), self.fresh.len())
    }

    /// All lines, and how many of them the file lacks.
    pub fn all(&self) -> (Vec<u8>, usize) {
        (self.lines(&self.numbers()), self.fresh.len())
    }

    /// So many of the first that the file lacked are in it.
    pub fn written(&mut self, count: usize) {
        self.fresh.drain(..count);
    }

    fn lines(&self, numbers: &[u32]) -> Vec<u8> {
        let mut lines = Vec::new();
        for number in numbers {
            if let Some((asset, tag)) = self.name(*number) {
                let text = serde_json::json!([number, asset, tag]).to_string();
                let sum = crc32fast::hash(text.as_bytes());
                lines.extend_from_slice(format!("{sum:08x} {text}\n").as_bytes());
            }
        }
        lines
    }
}

fn parsed(line: &[u8]) -> Option<(u32, String, String)> {
    let (sum, text) = line.split_at_checked(9)?;
    let sum = std::str::from_utf8(sum).ok()?.strip_suffix(' ')?;
    if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(text) {
        return None;
    }
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_a_damaged_line_costs_its_own() {
        let mut names = Names::default();
        for (asset, tag) in [("", "a"), ("pump-1", "\\\\PI\\P1 \"x\"\n"), ("pump-1", "a")] {
            names.number(asset, tag).unwrap();
        }
        let (bytes, count) = names.fresh();
        assert_eq!(count, 3);
        let (read, unread) = Names::read(&bytes);
        assert_eq!(unread, Unread::default());
        assert_eq!(read.name(1), Some(("pump-1", "\\\\PI\\P1 \"x\"\n")));
        assert_eq!(read.find("pump-1", "a"), Some(2));

        let mut damaged = bytes.clone();
        damaged[12] ^= 1;
        damaged.extend_from_slice(b"1234");
        let (mut read, unread) = Names::read(&damaged);
        assert_eq!(
            unread,
            Unread {
                torn: 4,
                damaged: 1
            }
        );
        assert_eq!(read.find("", "a"), None);
        assert_eq!(read.find("pump-1", "a"), Some(2));
        assert_eq!(
            read.number("", "a"),
            Some(3),
            "a number is never given twice"
        );
        assert_eq!(read.number("", &"x".repeat(5000)), None);
    }
}
