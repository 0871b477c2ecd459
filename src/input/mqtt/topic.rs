//! Topics and the filters that choose them: what a filter may be, what it takes, and which filters overlap.
//!
//! Where two filters take the same message, some brokers send it once and others twice. So the filters that are subscribed
//! are reduced to those that no other covers, and what still overlaps is named, with both filters.

/// Why a filter cannot be subscribed; none: it can be.
pub fn fault(filter: &str) -> Option<&'static str> {
    if filter.is_empty() {
        return Some("it is empty");
    }
    if filter.len() > usize::from(u16::MAX) || filter.contains('\0') {
        return Some("it is longer than 65,535 bytes or holds a zero byte");
    }
    if filter.starts_with("$share/") {
        return Some(
            "a shared subscription gives each of its clients a part of the messages, and none of them a whole window: \
             subscribe plainly, each gateway with its own session",
        );
    }
    let levels: Vec<&str> = filter.split('/').collect();
    for (at, level) in levels.iter().enumerate() {
        if level.contains('#') && (*level != "#" || at + 1 < levels.len()) {
            return Some("# stands alone, and in the last level");
        }
        if level.contains('+') && *level != "+" {
            return Some("+ stands for a whole level");
        }
    }
    None
}

/// Whether it stands for more than one topic.
pub fn is_wild(filter: &str) -> bool {
    filter.split('/').any(|level| level == "+" || level == "#")
}

/// Whether a filter takes a topic. Wildcards do not take the broker's own topics, which begin with `$`.
pub fn takes(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && !filter.starts_with('$') {
        return false;
    }
    let mut topic = topic.split('/');
    let mut filter = filter.split('/');
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            // `a/#` takes `a` as well; "#" alone was seen above.
            _ => return false,
        }
    }
}

/// Whether everything that `inner` takes is taken by `outer`.
pub fn covers(outer: &str, inner: &str) -> bool {
    if inner.starts_with('$') != outer.starts_with('$') {
        return false;
    }
    let mut inner = inner.split('/');
    let mut outer = outer.split('/');
    loop {
        match (outer.next(), inner.next()) {
            (Some("#"), _) | (None, None) => return true,
            (_, Some("#")) => return false,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

/// Whether there is a topic that both take.
pub fn overlap(one: &str, other: &str) -> bool {
    let mut ones = one.split('/');
    let mut others = other.split('/');
    let dollar = |filter: &str| filter.starts_with('$');
    if dollar(one) != dollar(other) {
        return false;
    }
    loop {
        match (ones.next(), others.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// The filters that no other of them covers, in their order, each once.
pub fn without_covered(filters: &[String]) -> Vec<String> {
    let wild: Vec<&String> = filters.iter().filter(|it| is_wild(it)).collect();
    let mut kept: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for filter in filters {
        let mut covering = wild.iter().filter(|it| **it != filter);
        let is_covered = covering.any(|outer| {
            covers(outer, filter) && !(covers(filter, outer) && seen.contains(filter))
        });
        if !is_covered && seen.insert(filter.clone()) {
            kept.push(filter.clone());
        }
    }
    kept
}

/// Pairs of filters that take some of the same topics, though neither covers the other; the first few.
pub fn partial_overlaps(filters: &[String]) -> Vec<(&str, &str)> {
    const FEW: usize = 8;
    let mut found = Vec::new();
    let wild: Vec<&String> = filters.iter().filter(|it| is_wild(it)).collect();
    for (at, one) in wild.iter().enumerate() {
        for other in &wild[at + 1..] {
            let is_partial = overlap(one, other) && !covers(one, other) && !covers(other, one);
            if is_partial && found.len() < FEW {
                found.push((one.as_str(), other.as_str()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_take_what_the_standard_says() {
        for (filter, topic) in [
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("#", "a/b"),
            ("+", "a"),
            ("+/+", "/a"),
            ("/+", "/a"),
            ("a/+/c", "a//c"),
            ("$SYS/#", "$SYS/x"),
        ] {
            assert!(takes(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("a/+", "a"),
            ("a/+", "a/b/c"),
            ("+", "/a"),
            ("a", "A"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("a/b", "a"),
        ] {
            assert!(!takes(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn filters_that_cannot_be_are_told_why() {
        for filter in ["", "a#", "a/#/b", "a+/b", "$share/g/a/#", "a\0"] {
            assert!(fault(filter).is_some(), "{filter}");
        }
        for filter in ["a", "#", "+/a/#", "$SYS/#", "a//b"] {
            assert_eq!(fault(filter), None, "{filter}");
        }
    }

    #[test]
    fn what_another_covers_is_not_subscribed_and_what_only_overlaps_is_named() {
        let filters = ["a/b", "a/#", "a/+/c", "b/+/c", "b/d/+", "c", "c", "a/#"].map(String::from);
        let kept = without_covered(&filters);
        assert_eq!(kept, ["a/#", "b/+/c", "b/d/+", "c"]);
        assert_eq!(partial_overlaps(&kept), [("b/+/c", "b/d/+")]);
        assert!(covers("a/+", "a/b") && !covers("a/+", "a/#") && covers("a/#", "a/+/+"));
        assert!(!overlap("a/+/c", "a/b") && overlap("a/+/c", "a/b/#"));
        assert!(covers("a/#", "a"));
        // Two that say the same, in two ways.
        assert_eq!(without_covered(&["#".into(), "+/#".into()]), ["#"]);
    }
}
