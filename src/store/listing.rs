//! Listings: a range scan over the keys, which skips what is rolled up.
//!
//! Guarantees: keys come in the order of their bytes; a common prefix costs one step into the index, however many keys lie
//! below it; a page reads no more rows than it tells, and one more.

use rusqlite::{Connection, params};

use super::Problem;

/// Most entries of a page, as S3 has it.
pub const MOST: usize = 1000;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub prefix: String,
    /// Never empty.
    pub delimiter: Option<String>,
    /// The page begins behind this.
    pub after: String,
    /// Behind which common prefixes have been told.
    pub told: Option<String>,
    pub most: usize,
}

/// A page.
#[derive(Debug, Default)]
pub struct Page {
    pub entries: Vec<Entry>,
    pub more: bool,
}

/// One line of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Object(Line),
    Prefix(String),
}

/// An object as listings tell it.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub key: String,
    pub size: u64,
    pub etag: String,
    pub written_ms: i64,
    pub class: Option<String>,
}

impl Entry {
    /// What the next page begins behind.
    pub fn name(&self) -> &str {
        match self {
            Self::Object(line) => &line.key,
            Self::Prefix(prefix) => prefix,
        }
    }
}

impl Asked {
    /// The common prefix that a key is rolled up into.
    pub fn rolled_up<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.delimiter.as_deref()?;
        let rest = key.strip_prefix(self.prefix.as_str())?;
        let at = rest.find(delimiter)?;
        Some(&key[..self.prefix.len() + at + delimiter.len()])
    }
}

/// A page of a bucket's objects.
pub fn page(db: &Connection, bucket: i64, asked: &Asked) -> Result<Page, Problem> {
    let mut page = Page::default();
    if asked.most == 0 {
        return Ok(page);
    }
    let mut scan = db.prepare_cached(
        "SELECT key, size, etag, written_ms, class FROM objects WHERE bucket = ?1 AND key >= ?2 ORDER BY key LIMIT ?3",
    )?;
    // The least key that may come next, and a key that is not to be told again.
    let mut from = asked.prefix.clone().max(asked.after.clone());
    let skipped = (!asked.after.is_empty()).then_some(asked.after.as_str());
    'seek: loop {
        let left = asked.most + 2 - page.entries.len();
        let mut rows = scan.query(params![bucket, from, left as i64])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            seen += 1;
            let key = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if !key.starts_with(&asked.prefix) {
                return Ok(page);
            }
            if skipped.is_some_and(|skipped| key <= skipped) {
                continue;
            }
            let common = asked.rolled_up(key).map(str::to_owned);
            if let Some(common) = &common
                && asked.told.as_ref().is_some_and(|told| common <= told)
            {
                match after_all(common) {
                    Some(next) => from = next,
                    None => return Ok(page),
                }
                continue 'seek;
            }
            if page.entries.len() == asked.most {
                page.more = true;
                return Ok(page);
            }
            if let Some(common) = common {
                let next = after_all(&common);
                page.entries.push(Entry::Prefix(common));
                match next {
                    Some(next) => from = next,
                    None => return Ok(page),
                }
                continue 'seek;
            }
            page.entries.push(Entry::Object(Line {
                key: key.to_owned(),
                size: row.get::<_, i64>(1)? as u64,
                etag: row.get(2)?,
                written_ms: row.get(3)?,
                class: row.get(4)?,
            }));
        }
        if seen < left {
            return Ok(page);
        }
        // Only what was skipped can have filled the rows.
        let last = page.entries.last().map(|entry| entry.name().to_owned());
        from = last.unwrap_or_default().max(from) + "\0";
    }
}

/// The least text that is greater than every text with this prefix.
pub fn after_all(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Surrogates are no characters.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            char::MAX => None,
            other => char::from_u32(other as u32 + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_prefix_is_behind_all_its_keys_and_before_the_next() {
        assert_eq!(after_all("a/").as_deref(), Some("a0"));
        assert_eq!(after_all("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after_all("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(after_all("\u{10ffff}"), None);
        assert_eq!(after_all(""), None);
    }
}
