//! On which line of a TOML file each key is set, so that findings and origins name the place and not just the file.

use std::collections::HashMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The line, from 1, of every dotted key in a text that is TOML; empty for any other text.
pub(super) fn of_keys(text: &str) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    if let Ok(table) = DeTable::parse(text) {
        walk(text, table.get_ref(), "", &mut found);
    }
    found
}

fn walk(text: &str, table: &DeTable<'_>, path: &str, found: &mut HashMap<String, usize>) {
    for (name, value) in table {
        let key = if path.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{path}.{}", name.get_ref())
        };
        if let DeValue::Table(inner) = value.get_ref() {
            walk(text, inner, &key, found);
        }
        found.insert(key, line(text, name));
    }
}

fn line<T>(text: &str, place: &Spanned<T>) -> usize {
    let before = text.get(..place.span().start).unwrap_or(text);
    before.matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_however_they_are_written() {
        let text = "a = 1\n\n[feed] # here\n# no = 1\ncadence = \"PT5M\"\n[s3]\nx.y = 2\nz = {w = \"\"\"\n\"\"\"}\nlast = 1\n";
        let found = of_keys(text);
        for (key, line) in [
            ("a", 1),
            ("feed", 3),
            ("feed.cadence", 5),
            ("s3.x.y", 7),
            ("s3.z.w", 8),
            ("s3.last", 10),
        ] {
            assert_eq!(found.get(key), Some(&line), "{key}");
        }
        assert_eq!(found.get("feed.no"), None);
        assert_eq!(of_keys("not = = toml"), HashMap::new());
    }
}
