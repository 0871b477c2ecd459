//! Patterns of paths: `*` and `?` within a name, `[abc]`, `[a-z]` and `[!a]` for one character, `**` for any directories.
//!
//! A name that begins with a dot is matched by nothing.

/// Whether a path has to be looked for.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Whether a name matches one part of a pattern.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Where to go on when what follows the last star does not fit: one character later.
    let mut again: Option<(usize, usize)> = None;
    let (mut at, mut next) = (0, 0);
    while next < name.len() {
        if pattern.get(at) == Some(&'*') {
            again = Some((at, next));
            at += 1;
            continue;
        }
        if let Some(length) = one(&pattern[at..], name[next]) {
            at += length;
            next += 1;
            continue;
        }
        let Some((star, from)) = again else {
            return false;
        };
        again = Some((star, from + 1));
        (at, next) = (star + 1, from + 1);
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

/// How much of the pattern stands for this one character; `None` where it does not.
fn one(pattern: &[char], found: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => {
            let end = 2 + pattern.iter().skip(2).position(|sign| *sign == ']')?;
            let set = &pattern[1..end];
            let (not, set) = match set.first() {
                Some('!' | '^') => (true, &set[1..]),
                _ => (false, set),
            };
            let mut inside = false;
            let mut at = 0;
            while at < set.len() {
                let range = set.get(at + 1) == Some(&'-') && at + 2 < set.len();
                let last = if range { set[at + 2] } else { set[at] };
                inside |= (set[at]..=last).contains(&found);
                at += if range { 3 } else { 1 };
            }
            (inside != not).then_some(end + 1)
        }
        sign => (*sign == found).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, name, wanted) in [
            ("*.parquet", "2026-01.parquet", true),
            ("*.parquet", "2026-01.parquet.tmp", false),
            ("p?-*-[0-9].pq", "p1-a-b-7.pq", true),
            ("p?-*-[!0-9].pq", "p1-a-b-7.pq", false),
            ("[abc-]x", "-x", true),
            ("*a*b*", "xaaxbx", true),
            ("*a*b*", "xbxa", false),
            ("[x", "[x", false),
            ("", "", true),
            ("é*", "élan", true),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
