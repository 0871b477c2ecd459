//! Labels: spans known to be abnormal, one `start,end` per line of a CSV, as the original's labels.csv has them.
//!
//! Guarantees: a first line is a header only if it has no digit, so that no label is ever taken for one; everything else
//! that is no label is refused with its line. What follows the second column is a note.

use std::io::Read;

use super::sensor::Span;
use crate::records::{RecordError, Records};
use crate::signal::timestamp;

/// Why labels cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// A line that is no label.
    #[error("line {line}: {problem}")]
    Line {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// No CSV.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Reads labels, with or without a header.
pub fn read(input: impl Read) -> Result<Vec<Span>, LabelError> {
    let mut records = Records::open(input)?;
    records.rows_look_like(2, |first| timestamp::parse_bytes(first).is_some());
    let mut labels = Vec::new();
    let mut first = true;
    while records.read()? {
        let is_first = std::mem::take(&mut first);
        let digits = records.iter().flatten().any(u8::is_ascii_digit);
        if is_first && !digits && records.broken().is_none() && !records.spans_lines() {
            continue;
        }
        let line = records.line();
        labels.push(label(&records).map_err(|problem| LabelError::Line { line, problem })?);
    }
    Ok(labels)
}

fn label<R>(records: &Records<R>) -> Result<Span, String> {
    if let Some(broken) = records.broken() {
        return Err(broken.to_string());
    }
    let time = |cell| records.get(cell).and_then(timestamp::parse_bytes);
    match (time(0), time(1)) {
        (Some(start), Some(end)) if start <= end => Ok(Span { start, end }),
        (Some(_), Some(_)) => Err(format!(
            "the label ends before it starts: {}",
            records.shown()
        )),
        _ => Err(format!(
            "expected start,end, each {}; found {}",
            timestamp::EXPECTED,
            records.shown()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        read(text.as_bytes()).unwrap().len()
    }

    #[test]
    fn a_header_is_a_first_line_without_a_digit() {
        let label = "2020-01-01 00:00:00,2020-01-02 00:00:00";
        for text in [
            format!("{label}\n"),
            format!("start,end\n{label}\n"),
            format!("\u{feff}{label}"),
            format!("\u{feff}start;end\r\n{label}\r\n"),
            format!("\n\n{label},\"a note, of two\nlines\"\n"),
            "\"2020-01-01 00:00:00\",\"2020-01-02 00:00:00\"\r\n".to_owned(),
        ] {
            assert_eq!(count(&text), 1, "{text:?}");
        }
        assert_eq!(count(""), 0);
        assert_eq!(count("start,end\n"), 0);
    }

    #[test]
    fn any_other_line_that_is_no_label_is_refused_with_its_number() {
        let good = "2024-01-05 00:00:00,2024-01-05 06:00:00\n";
        let bad = [
            "2024-01-03 06:00:00,2024-01-03 00:00:00\n",
            "2024-01-03 00:00:00,03/01/2024 06:00\n",
            "2024-01-03 00:00:00;2024-01-03 06:00:00\n",
            "2024-01-03 00:00:00+09:00,2024-01-03 06:00:00+09:00\n",
            "13/01/2024 00:00,13/01/2024 06:00\n",
            "2024-01-03 00:00:00\n",
            "\"2024-01-03 00:00:00,2024-01-03 06:00:00\n",
            "2024-01-03 00:00:00,\"2024-01-03 06:00:00\n",
            "label 1,label 2\n",
        ];
        for text in bad {
            for (before, line) in [("", "line 1:"), (good, "line 2:")] {
                let error = read(format!("{before}{text}{good}").as_bytes()).unwrap_err();
                assert!(error.to_string().starts_with(line), "{text}: {error}");
            }
        }
    }
}
