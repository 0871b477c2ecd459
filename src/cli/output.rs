//! How commands answer: text for people, JSON for scripts.
//!
//! What they say goes through `say!` and `say_part!`: where standard output cannot be written, on a full disk for example, a
//! command ends with an error instead of a panic. A reader that has gone ends it by SIGPIPE before that. The daemons say
//! what they have to with [`mention`], and go on.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use clap::ValueEnum;
use serde::Serialize;

pub use crate::config::bytes;

/// The shape of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON document on standard output
    Json,
}

/// Prints a line on standard output.
macro_rules! say {
    () => { $crate::cli::output::put(format_args!("\n")) };
    ($($part:tt)*) => { $crate::cli::output::put(format_args!("{}\n", format_args!($($part)*))) };
}

/// Prints a text on standard output as it is.
macro_rules! say_part {
    ($($part:tt)*) => { $crate::cli::output::put(format_args!($($part)*)) };
}

/// Says something on standard error, which may be closed.
macro_rules! complain {
    ($($part:tt)*) => { $crate::cli::output::put_error(format_args!($($part)*)) };
}

/// See `say!`.
pub fn put(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            put_error(format_args!("error: standard output: {error}"));
        }
        std::process::exit(1);
    }
}

/// See `complain!`.
pub fn put_error(text: Arguments<'_>) {
    // There is no other place to say that this one is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says something that nobody needs to hear for the work to go on.
pub fn mention(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::warn!(%error, "standard output cannot be written: the service goes on");
    }
}

/// Prints one JSON document.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints rows in columns as wide as their widest cell.
pub fn table(header: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[&str]| {
        let text: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        say!("{}", text.join("  ").trim_end());
    };
    line(header);
    for row in rows {
        line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// A word that must be seen, in red where standard output may be coloured.
pub fn alarm(word: &str) -> String {
    if crate::ops::log::coloured(&std::io::stdout()) {
        format!("\u{1b}[1;31m{word}\u{1b}[0m")
    } else {
        word.to_owned()
    }
}

/// A UTC time to the second.
pub fn utc(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
