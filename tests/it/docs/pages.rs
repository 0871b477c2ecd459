//! What single documents claim beyond their commands: refusals in their very words, states, addresses, and the relay that
//! tells chats and pagers.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;

use lookoutd::feed::State;
use lookoutd::sample::{SampleOptions, write_sample};
use regex_lite::Regex;
use serde_json::Value;

use super::{blocks, root};
use crate::commands::{Cells, lookoutd, write_history};
use crate::rig::directory;

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// What is in backticks in one cell of a table's row, counted from 0.
fn quoted(row: &str, cell: usize) -> Vec<String> {
    let span = Regex::new("``(.+?)``|`([^`]+)`").unwrap();
    let cells = row.trim_matches('|').split(" | ").nth(cell);
    span.captures_iter(cells.unwrap_or_default())
        .filter_map(|found| found.get(1).or(found.get(2)))
        .map(|found| found.as_str().to_owned())
        .collect()
}

/// Runs lookoutd in a directory; what it says on standard error. It must fail.
fn refused(place: &Path, arguments: &str) -> String {
    let output = lookoutd()
        .current_dir(place)
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{arguments}: {said}");
    said
}

#[test]
fn files_are_refused_in_the_words_of_the_document() {
    let place = directory();
    let options = SampleOptions {
        days: 2,
        signals: 8,
        ..SampleOptions::default()
    };
    write_sample(place.path(), &options, &mut |_| {}).unwrap();
    let mut said = Vec::new();
    let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
    let train = "model train --out x.model --parquet";
    for tags in [
        "Tag,UOM,Subsystem\nsignal-001,,pump\nsignal-0O2,,pump\n",
        "Tag,UOM,Subsystem\na b,bar,pump\n",
        "Tag,UOM,Subsystem\na,bar,pump\na,bar,pump\n",
        "Tag,UOM,Subsystem\na,bar,\n",
        "Tag,UOM,Subsystem\na,bar,pump\nb,bar,Pump\n",
        "Tag,UOM,Subsystem\nTimestamp,bar,pump\n",
        "Tag,Unit\na,bar\n",
        "Tag,Subsystem,Address\na,pump,t/a\nb,pump,t/a\n",
        "Tag,Subsystem,Address,Scale\na,pump,t/a,many\n",
    ] {
        write("tags.csv", tags);
        said.push(refused(
            place.path(),
            &format!("{train} signals.parquet --tags tags.csv"),
        ));
    }
    said.push(refused(place.path(), &format!("{train} signals.parquet")));
    for history in [
        "Timestamp,pump__p,pump__v\n2026-01-01T00:01:00,1\n",
        "Timestamp;pump__p\n2026-01-01T00:01:00;1\n",
        "Timestamp,pump__p\n01.01.2026 00:01,1\n",
        "Timestamp,pump__p\n1577836800,1\n",
        // In UTF-16 without a mark, as far as it begins.
        "T\0i\0m\0e\0,\0p\0\n\0",
    ] {
        write("history.csv", history);
        said.push(refused(place.path(), &format!("{train} history.csv")));
    }
    write("tags.csv", "Tag,UOM,Subsystem\na,bar,pump\n");
    let replay = "replay --from 2026-01-01T00:00:00 --to 2026-01-01T00:05:00 --cadence PT5M --out parts --tags tags.csv --parquet";
    write("cut.parquet", "PAR1 and then some");
    said.push(refused(place.path(), &format!("{replay} cut.parquet")));
    let millis = "required int64 %s (TIMESTAMP_MILLIS);";
    let text = "required binary %s (UTF8);";
    let number = "required double %s;";
    for columns in [
        vec![(number, "Timestamp"), (number, "a")],
        vec![(text, "Timestamp"), (number, "a")],
        vec![(millis, "when"), (millis, "then"), (number, "a")],
    ] {
        let (mut schema, mut cells) = (String::new(), Vec::new());
        for (kind, name) in columns {
            schema.push_str(&kind.replace("%s", name));
            cells.push(match kind {
                _ if kind == millis => Cells::I64(vec![1_767_225_660_000]),
                _ if kind == text => Cells::Text(vec!["x"]),
                _ => Cells::F64(vec![1.0]),
            });
        }
        write_history(&place.path().join("odd.parquet"), &schema, cells);
        said.push(refused(place.path(), &format!("{replay} odd.parquet")));
    }
    let ranges =
        "2015-11-29 00:00:00\n2015-11-29 23:59:00\n2015-11-30 00:00:00\n2015-11-30 23:59:00\n";
    write("timeranges.txt", ranges);
    for labels in [
        "2015-11-13T12:00:00,2015-11-11T18:00:00\n",
        "start,end\n2015-11-13T12:00:00\n",
    ] {
        write("labels.csv", labels);
        said.push(refused(
            place.path(),
            &format!(
                "{train} signals.parquet --tags tags_description.csv --labels labels.csv --timeranges timeranges.txt"
            ),
        ));
    }
    let text = page("formats.md");
    let mut wanted = Vec::new();
    for table in text.split("| found | said |\n|---|---|\n").skip(1) {
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        wanted.extend(rows.flat_map(|row| quoted(row, 1)));
    }
    let labels = text
        .lines()
        .find(|line| line.starts_with("Refused: `the label"));
    wanted.extend(labels.into_iter().flat_map(|line| quoted(line, 0)));
    assert!(wanted.len() >= 17, "{wanted:?}");
    for words in wanted {
        let is_said = |said: &String| {
            words
                .trim_end_matches('.')
                .split("...")
                .all(|part| said.contains(part.trim_end_matches(", ")))
        };
        assert!(said.iter().any(is_said), "nobody says {words}: {said:#?}");
    }
}

#[test]
fn the_concepts_have_every_state_of_a_window() {
    let text = page("concepts.md");
    for state in State::ALL {
        let row = format!("\n| `{}` |", state.name());
        let aside = format!("(`{}` is listed", state.name());
        let other = format!("(`{}` for programs)", state.name());
        assert!(
            [row, aside, other].iter().any(|form| text.contains(form)),
            "{} is missing",
            state.name()
        );
    }
}

#[test]
fn every_address_of_the_console_in_its_document_is_served() {
    let route = Regex::new(r#"\.route\("(/[a-z/]*)""#).unwrap();
    let served: BTreeSet<String> = ["src/console.rs", "src/ops/admin.rs"]
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(root().join(file)).unwrap();
            route
                .captures_iter(&text)
                .map(|found| found[1].to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    let address = Regex::new(r"`(/[a-z/]*)[?#]?[^`]*`").unwrap();
    let text = page("console.md");
    let named: BTreeSet<String> = address
        .captures_iter(&text)
        .map(|found| found[1].to_owned())
        .filter(|path| path != "/api/")
        .collect();
    assert!(named.is_subset(&served), "{named:?} of {served:?}");
    for path in served {
        assert!(
            named.contains(&path) || path.starts_with("/api/") || path.starts_with("/assets"),
            "{path} is not in docs/console.md"
        );
    }
}

/// The body of the one request that comes to a listener.
fn one_request(listener: &TcpListener) -> Value {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    stream
        .write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn the_relay_of_the_documents_tells_slack_teams_and_pagerduty() {
    let Some(python) = crate::skipped::python() else {
        return;
    };
    let text = page("notify.md");
    let (_, relay) = blocks(&text, "python").pop().unwrap();
    let place = directory();
    let file = |name: &str| place.path().join(name);
    std::fs::write(file("lookoutd-tell"), relay).unwrap();
    for (how, before, title) in [
        ("slack", "", "/text"),
        ("teams", "", "/attachments/0/content/body/0/text"),
        ("pagerduty", "ROUTINGKEY ", "/payload/summary"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::fs::write(file("secret"), format!("{before}http://{address}/one\n")).unwrap();
        let command = serde_json::json!([python, file("lookoutd-tell"), how, file("secret")]);
        let config = format!(
            "data_dir = \"{}\"\n[notify]\nname = \"gw7\"\ntimeout = \"60s\"\ncommand = {command}\n",
            place.path().display()
        );
        std::fs::write(file("lookoutd.toml"), config).unwrap();
        let receiver = std::thread::spawn(move || one_request(&listener));
        let output = lookoutd()
            .args(["notify", "test", "--config"])
            .arg(file("lookoutd.toml"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{how}: {output:?}");
        let body = receiver.join().unwrap();
        let said = body.pointer(title).and_then(Value::as_str);
        assert!(
            said.is_some_and(|said| said.starts_with("[gw7] test: test")),
            "{how}: {body}"
        );
    }
}
