//! What rules come to: of each prefix what is there, what is to go, and what waits.

use std::cmp::Ordering;
use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

use super::{Prefix, Rule};
use crate::config::Keep;
use crate::store::commit::Turn;
use crate::store::listing::after_all;
use crate::store::{Problem, objects};

/// Rows of one snapshot.
const PAGE: usize = 2_000;

/// A key that is to go, and the write that made it old.
pub(in crate::store) struct Due {
    bucket: i64,
    key: String,
    written_ms: i64,
}

impl Rule {
    /// Whether it is about a key.
    fn fits(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && self.form.as_ref().is_none_or(|form| form(key).is_some())
    }

    /// Whether it holds for a key rather than another rule that is about it: the longer prefix, of two the `first`.
    fn holds_before(&self, other: &Rule, first: bool, key: &str) -> bool {
        match self.prefix.len().cmp(&other.prefix.len()) {
            Ordering::Greater => key.starts_with(&self.prefix),
            Ordering::Equal => first && self.fits(key),
            Ordering::Less => false,
        }
    }
}

/// Keys below a prefix with size and time, in pages: no snapshot lasts longer than one.
fn below<'a>(
    db: &'a Connection,
    bucket: i64,
    prefix: &str,
) -> Result<impl Iterator<Item = Result<(String, u64, i64), Problem>> + 'a, Problem> {
    let mut page = db.prepare_cached(
        "SELECT key, size, written_ms FROM objects WHERE bucket = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key
         LIMIT ?4",
    )?;
    let end = after_all(prefix);
    let (mut from, mut ready, mut over) = (prefix.to_owned(), VecDeque::new(), false);
    Ok(std::iter::from_fn(move || {
        if ready.is_empty() && !over {
            let asked = params![bucket, from, end, PAGE as i64];
            let read = page.query_map(asked, |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)? as u64, row.get(2)?))
            });
            match read.and_then(Iterator::collect::<rusqlite::Result<VecDeque<_>>>) {
                Ok(found) => ready = found,
                Err(error) => {
                    over = true;
                    return Some(Err(error.into()));
                }
            }
            over = ready.len() < PAGE;
            if let Some((last, _, _)) = ready.back() {
                // The least key behind it.
                from = format!("{last}\0");
            }
        }
        ready.pop_front().map(Ok)
    }))
}

/// What is there and what is due, rule by rule.
pub(in crate::store) fn look(
    db: &Connection,
    rules: &[Rule],
    now_ms: i64,
    horizon: Option<DateTime<Utc>>,
) -> Result<(Vec<Prefix>, Vec<Vec<Due>>), Problem> {
    let (mut prefixes, mut all) = (Vec::new(), Vec::new());
    for bucket in objects::buckets(db)? {
        let is_here = |rule: &&Rule| rule.bucket.as_ref().is_none_or(|name| *name == bucket.name);
        let here: Vec<&Rule> = rules.iter().filter(is_here).collect();
        for (at, rule) in here.iter().enumerate() {
            let mut told = Prefix {
                bucket: bucket.name.clone(),
                prefix: rule.prefix.clone(),
                keep: Keep(rule.keep).to_string(),
                ..Prefix::default()
            };
            let mut due = Vec::new();
            for row in below(db, bucket.id, &rule.prefix)? {
                let (key, size, written_ms) = row?;
                let other = here
                    .iter()
                    .enumerate()
                    .any(|(before, other)| other.holds_before(rule, before < at, &key));
                if other || !rule.fits(&key) {
                    continue;
                }
                told.objects += 1;
                told.bytes += size;
                let Some(keep) = rule.keep else { continue };
                if now_ms.saturating_sub(written_ms) <= keep.as_millis() as i64 {
                    continue;
                }
                // Of whatever rule: what is of a form waits for its window.
                let forms = here.iter().filter(|rule| key.starts_with(&rule.prefix));
                let forms = forms.filter_map(|rule| rule.form.as_ref());
                let window = forms.filter_map(|form| form(&key)).max();
                if window.is_some_and(|window| horizon.is_none_or(|horizon| window >= horizon)) {
                    told.waiting += 1;
                    continue;
                }
                told.due += 1;
                told.due_bytes += size;
                due.push(Due {
                    bucket: bucket.id,
                    key,
                    written_ms,
                });
            }
            prefixes.push(told);
            all.push(due);
        }
    }
    Ok((prefixes, all))
}

/// What was written again meanwhile has another age.
pub(super) fn remove_if_unchanged(turn: &mut Turn<'_>, due: &Due) -> Result<(), Problem> {
    let there = objects::find(turn.db, due.bucket, &due.key)?;
    if there.is_some_and(|there| there.written_ms == due.written_ms) {
        objects::remove(turn, due.bucket, &due.key, |_| Ok(()))?;
    }
    Ok(())
}
