//! The documents do what they say: every command line is one that the parser takes, those that need nothing from outside
//! are run, every key and link exists, and the IAM policies hold every action that the code calls.

mod clients;
mod own_data;
mod pages;
mod two_machines;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lookoutd::cli::accepts;
use lookoutd::sample::{SampleOptions, write_sample};
use regex_lite::Regex;
use serde_json::Value;

use crate::commands::lookoutd;
use crate::rig::directory;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for directory in ["", "docs", "docs/decisions"] {
        for entry in std::fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() >= 8, "{found:?}");
    found
}

/// The fenced blocks of a kind, such as `sh`, and what stands behind the kind.
fn blocks(text: &str, kind: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        let fence = line.trim().strip_prefix("```");
        match (fence, open.take()) {
            (Some(words), None) => open = Some((words.trim().to_owned(), String::new())),
            (Some(_), Some((words, block))) => {
                let (named, rest) = words.split_once(' ').unwrap_or((&words, ""));
                if named == kind {
                    found.push((rest.to_owned(), block));
                }
            }
            (None, Some((words, block))) => open = Some((words, block + line + "\n")),
            (None, None) => {}
        }
    }
    found
}

/// A document without its fenced blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let outside = text.lines().filter(|line| {
        let fence = line.trim().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    outside.collect::<Vec<_>>().join("\n")
}

/// The command lines of shell blocks: continued lines joined, comments and redirections taken away.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (_, block) in blocks(text, "sh") {
        for line in block.replace("\\\n", " ").lines() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            let line = line.split(" > ").next().unwrap_or_default().trim();
            if !line.is_empty() && !line.starts_with('#') {
                found.push(line.to_owned());
            }
        }
    }
    found
}

/// A line's words as a shell gives them; quotes are taken away.
fn words(line: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => found.push(String::new()),
            (c, _) => found.last_mut().unwrap().push(c),
        }
    }
    found.retain(|word| !word.is_empty());
    found
}

/// The commands of one line: those joined by `&&` and `|`, without the variables that are set for them and the user who runs
/// them.
fn parts(line: &str) -> impl Iterator<Item = &str> {
    let variable = |word: &str| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        })
    };
    line.split(" && ")
        .flat_map(|part| part.split(" | "))
        .map(move |part| {
            let mut part = part.trim();
            while let Some((word, rest)) = part.split_once(' ')
                && variable(word)
            {
                part = rest.trim_start();
            }
            part.strip_prefix("runuser -u lookoutd -- ").unwrap_or(part)
        })
}

/// What a container's lookoutd is called with: behind the image, or behind the binary's path.
fn in_a_container(line: &str) -> Option<&str> {
    let docker = line.strip_prefix("docker ")?;
    if docker.starts_with("run ") {
        // A volume is called like the image, without a version.
        let image = docker.find(" lookoutd:0.")? + 1;
        return Some(docker[image..].split_once(' ').unwrap_or_default().1);
    }
    let (_, rest) = docker.split_once(" /lookoutd ")?;
    docker.contains("exec ").then_some(rest)
}

#[test]
fn the_compose_file_calls_what_there_is() {
    let file = std::fs::read_to_string(root().join("docs/compose.yaml")).unwrap();
    let mut seen = 0;
    for line in file.lines().map(str::trim) {
        let call = match line.split_once(": ") {
            Some(("command", call)) => call.to_owned(),
            Some(("test", probe)) => probe
                .trim_matches(['[', ']'])
                .replace(", ", " ")
                .replace("CMD /lookoutd ", ""),
            Some((key, _)) if key.starts_with("LOOKOUTD__") => {
                let known = key["LOOKOUTD__".len()..].to_lowercase().replace("__", ".");
                assert!(keys().contains(&known), "{known}");
                continue;
            }
            _ => continue,
        };
        accepts(&words(&call)).unwrap_or_else(|error| panic!("{line}\n{error}"));
        seen += 1;
    }
    assert_eq!(seen, 4);
}

fn arguments(line: &str) -> Option<Vec<String>> {
    let rest = line
        .strip_prefix("cargo run --release -- ")
        .or_else(|| line.strip_prefix("lookoutd "))
        .or_else(|| in_a_container(line))?;
    Some(words(rest))
}

#[test]
fn every_command_line_in_the_documents_is_taken_by_the_parser() {
    let span = Regex::new("`(lookoutd [^`]*)`").unwrap();
    let mut seen = 0;
    for (path, text) in documents() {
        let name = path.display();
        let lines = commands(&text);
        for line in lines.iter().flat_map(|line| parts(line)) {
            if let Some(arguments) = arguments(line) {
                accepts(&arguments).unwrap_or_else(|error| panic!("{name}: {line}\n{error}"));
                seen += 1;
            }
        }
        // In running text what a command needs may be left out, but not misspelt.
        for line in span.captures_iter(&prose(&text).replace('\n', " ")) {
            let Err(error) = accepts(&words(line[1].trim_start_matches("lookoutd "))) else {
                seen += 1;
                continue;
            };
            let left_out = error.contains("required arguments were not provided");
            // A command without its subcommand is answered with its help, which is no error.
            assert!(
                left_out || !error.contains("error: "),
                "{name}: {}\n{error}",
                &line[1]
            );
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} command lines");
}

/// A directory in which the documents' commands find what they name.
fn stage() -> tempfile::TempDir {
    let stage = directory();
    let options = SampleOptions {
        days: 40,
        signals: 8,
        ..SampleOptions::default()
    };
    write_sample(stage.path(), &options, &mut |_| {}).unwrap();
    let config = format!(
        "data_dir = \"{0}/D\"\n[source]\nparquet = \"{0}/signals.parquet\"\ntags = \"{0}/tags_description.csv\"\n\
         [service]\nlisten = \"127.0.0.1:0\"\ns3_listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"\"\n",
        stage.path().display()
    );
    std::fs::write(stage.path().join("lookoutd.toml"), config).unwrap();
    let window = stage.path().join("output/2021-04-03T05:55:00Z");
    std::fs::create_dir_all(&window).unwrap();
    std::fs::write(
        window.join("results.jsonl"),
        "{\"timestamp\": \"2021-04-03T06:00:00.000000\", \"prediction\": 0}\n",
    )
    .unwrap();
    let once = lookoutd()
        .current_dir(stage.path())
        .args(["run", "--once", "--config", "lookoutd.toml"])
        .output()
        .unwrap();
    assert!(
        once.status.success(),
        "{}",
        String::from_utf8_lossy(&once.stderr)
    );
    stage
}

/// Commands that are not run here, by how they begin, each with the reason; every other one of lookoutd is.
const NOT_RUN: &[(&str, &str)] = &[
    ("lookoutd run", "it goes on until it is stopped"),
    ("lookoutd serve", "it goes on until it is stopped"),
    (
        "cargo run --release -- demo",
        "it goes on until it is stopped",
    ),
    ("lookoutd healthcheck", "it asks a daemon that runs"),
    ("lookoutd simulate", "it speaks to a broker"),
    ("lookoutd source", "it looks at a broker"),
    ("lookoutd scheduler", "it asks a service"),
    ("lookoutd results import s3://", "it reads a bucket"),
    (
        "lookoutd model register lost/",
        "it takes a file that somebody set aside",
    ),
    ("lookoutd backup", "it writes to another disk"),
    ("lookoutd restore", "it puts back what was written there"),
    ("chown", "it writes where the system keeps its files"),
    (".ci/run", "it builds"),
    ("cargo", "it builds"),
    ("pip", "it installs, see .ci/packages"),
    ("tar", "it installs, see .ci/packages"),
    ("debian/build", "it builds"),
    ("apt", "it changes the machine"),
    ("docker", "it needs a container engine"),
    ("systemctl", "it needs systemd"),
    ("aws", "it needs a service: clients.rs has one for most"),
    (
        "curl",
        "it asks a daemon that runs, or somebody else's machine",
    ),
    ("scp", "it needs another machine"),
    ("rsync", "it needs another machine"),
    ("openssl", "it is not ours"),
    ("install", "it writes where the system keeps its files"),
    ("chgrp", "it writes where the system keeps its files"),
    ("chmod", "it writes where the system keeps its files"),
    ("cp", "it writes where the system keeps its files"),
    ("mkdir", "it writes where the system keeps its files"),
    ("mv", "it writes where the system keeps its files"),
    ("cd", "it is the shell's"),
    ("export", "it is the shell's"),
];

/// Why a command is not run here.
fn not_run(command: &str) -> Option<&'static (&'static str, &'static str)> {
    NOT_RUN.iter().find(|(begin, _)| {
        let rest = command.strip_prefix(begin);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' ') || begin.ends_with('/'))
    })
}

#[test]
fn every_command_of_the_documents_is_run_or_says_why_not() {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for (path, text) in documents() {
        let lines = commands(&text);
        for command in lines.iter().flat_map(|line| parts(line)) {
            let reason = not_run(command);
            assert!(
                reason.is_some() || arguments(command).is_some(),
                "{}: nothing runs `{command}`; if nothing can, give the reason in NOT_RUN",
                path.display()
            );
            used.extend(reason.map(|(begin, _)| *begin));
        }
    }
    let unused: Vec<_> = NOT_RUN
        .iter()
        .filter(|(begin, _)| !used.contains(begin))
        .collect();
    assert!(unused.is_empty(), "no document has these: {unused:?}");
}

/// Where the stage has what the documents have elsewhere.
const PLACES: [(&str, &str); 5] = [
    ("/var/lib/lookoutd-serve", "D"),
    ("/var/lib/lookoutd", "D"),
    ("/etc/lookoutd/", ""),
    ("/srv/plant/", ""),
    ("/tmp/", ""),
];

#[test]
fn the_commands_that_need_nothing_from_outside_do_what_the_documents_say() {
    let stage = stage();
    let mut done = BTreeSet::new();
    let mut documents = documents();
    // Results of the cloud are imported before others look at the archive.
    documents.sort_by_key(|(path, _)| (!path.ends_with("docs/migrating.md"), path.clone()));
    for (path, text) in documents {
        let lines = commands(&text);
        for line in lines.iter().flat_map(|line| parts(line)) {
            let Some(arguments) = arguments(line).filter(|_| not_run(line).is_none()) else {
                continue;
            };
            // The two assets are done from first to last by own_data.rs.
            let of_two = path.ends_with("docs/own-data.md") && line.contains(" two");
            if of_two || !done.insert(line.to_owned()) {
                continue;
            }
            let arguments = arguments.iter().map(|word| {
                PLACES.iter().fold(word.clone(), |word, (there, here)| {
                    word.replace(there, here)
                })
            });
            let output = lookoutd()
                .current_dir(stage.path())
                .args(arguments)
                .env("LOOKOUTD_CONFIG", "lookoutd.toml")
                .output()
                .unwrap();
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            // Three: something was found out. 69: no daemon runs now, which status says.
            assert!(
                matches!(output.status.code(), Some(0 | 3 | 69)),
                "{}: {line}: {:?}: {said}",
                path.display(),
                output.status
            );
        }
    }
    assert!(done.len() >= 25, "{done:?}");
    for made in [
        "plant.model",
        "picture.png",
        "results.parquet",
        "scores.csv",
        "parts/subsystem-05_20151111180000.csv",
        "D/archive/pump-scheduler/2021/04/03/055500.jsonl",
    ] {
        assert!(stage.path().join(made).is_file(), "{made} is missing");
    }
}

#[test]
fn the_shim_for_the_old_helper_leads_it_here() {
    let Some(python) = crate::skipped::python() else {
        return;
    };
    let text = std::fs::read_to_string(root().join("docs/migrating.md")).unwrap();
    let (_, shim) = blocks(&text, "python").pop().unwrap();
    assert_eq!(shim.lines().count(), 2);
    let script = format!(
        "{shim}\nold = boto3.client('lookoutequipment', region_name='us-east-1', \
         endpoint_url='https://lookoutequipment.us-east-1.amazonaws.com/')\n\
         assert old.meta.endpoint_url == 'http://127.0.0.1:9180', old.meta.endpoint_url\n\
         assert 'amazonaws' in boto3.client('s3', region_name='us-east-1').meta.endpoint_url\n"
    );
    let output = std::process::Command::new(python)
        .args(["-c", &script])
        .env("AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT", "http://127.0.0.1:9180")
        .env_remove("AWS_ENDPOINT_URL_S3")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Every key of the configuration.
fn keys() -> BTreeSet<String> {
    let defaults = serde_json::to_value(lookoutd::config::Config::default()).unwrap();
    let mut found = BTreeSet::new();
    for (section, members) in defaults.as_object().unwrap() {
        found.insert(section.clone());
        for key in members
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
        {
            found.insert(format!("{section}.{key}"));
        }
    }
    found
}

#[test]
fn every_configuration_key_in_the_documents_exists() {
    let keys = keys();
    let sections = keys
        .iter()
        .filter(|key| !key.contains('.'))
        .cloned()
        .collect::<Vec<_>>()
        .join("|");
    let span = Regex::new(&format!("`(({sections})\\.[a-z0-9_]+)( = [^`]*)?`")).unwrap();
    let mut seen = 0;
    for (path, text) in documents() {
        for key in span.captures_iter(&text) {
            // Files and modules are written alike.
            let file = [".md", ".rs", ".toml", ".db", ".json", ".damaged"]
                .iter()
                .any(|end| key[1].ends_with(end));
            assert!(
                file || keys.contains(&key[1]),
                "{}: there is no key {}",
                path.display(),
                &key[1]
            );
            seen += 1;
        }
        for (_, block) in blocks(&text, "toml") {
            let mut section = String::new();
            for line in block.lines().map(str::trim) {
                if let Some(name) = line.strip_prefix('[') {
                    section = format!("{}.", name.trim_end_matches(']'));
                } else if let Some((key, _)) =
                    line.split_once('=').filter(|_| !line.starts_with('#'))
                {
                    let key = format!("{section}{}", key.trim());
                    // Of one asset, whatever it is called.
                    let own = section.starts_with("asset.").then(|| {
                        let own = serde_json::to_value(lookoutd::config::Own::default());
                        own.unwrap().get(&key[section.len()..]).is_some()
                    });
                    // And of one input.
                    let own = own.or_else(|| {
                        let (_, name) = section.strip_prefix("input.")?.split_once('.')?;
                        let all = serde_json::to_value(lookoutd::input::mqtt::Config::default());
                        let key = key.rsplit('.').next()?;
                        let is_known = key == "kind" || all.unwrap().get(key).is_some();
                        Some(name.is_empty() && is_known)
                    });
                    assert!(
                        own.unwrap_or_else(|| keys.contains(&key)),
                        "{}: there is no key {key}",
                        path.display()
                    );
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 20, "{seen} keys");
}

/// A heading's anchor, as GitHub makes it.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            words
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut seen = 0;
    for (path, text) in documents() {
        for target in link.captures_iter(&prose(&text)) {
            let target = &target[1];
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            assert!(file.exists(), "{}: {target} is not there", path.display());
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&file).unwrap();
                assert!(
                    anchors(&text).contains(anchor),
                    "{}: {target} has no such heading",
                    path.display()
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} links");
}

/// The actions that the files of some directories call through the AWS clients.
fn called(places: &[&str]) -> BTreeSet<String> {
    let call = Regex::new(
        r"\.((?:get|put|head|list|delete|create|update|start|stop|describe|tag)_[a-z0-9_]+)\(\)",
    )
    .unwrap();
    let mut left: Vec<PathBuf> = places
        .iter()
        .map(|place| root().join("src").join(place))
        .collect();
    let mut found = BTreeSet::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text: String = text
            .split("#[cfg(test)]")
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        for call in call.captures_iter(&text) {
            let action = match &call[1] {
                "get_object" | "head_object" => "s3:GetObject".to_owned(),
                "put_object" => "s3:PutObject".to_owned(),
                "list_objects_v2" => "s3:ListBucket".to_owned(),
                lookout
                    if LOOKOUT
                        .iter()
                        .any(|thing| lookout.trim_end_matches('s').ends_with(thing)) =>
                {
                    let words = lookout
                        .split('_')
                        .map(|word| word[..1].to_uppercase() + &word[1..]);
                    format!("lookoutequipment:{}", words.collect::<String>())
                }
                _ => continue,
            };
            found.insert(action);
        }
    }
    found
}

const LOOKOUT: [&str; 6] = [
    "_inference_scheduler",
    "_inference_execution",
    "_model",
    "_dataset",
    "_label_group",
    "_ingestion_job",
];

#[test]
fn the_policies_are_json_and_hold_every_action_that_is_called() {
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let policies = blocks(&text, "json");
    let policy = |name: &str| -> Vec<String> {
        let (_, block) = policies
            .iter()
            .find(|(words, _)| words == &format!("iam={name}"))
            .unwrap();
        let policy: Value =
            serde_json::from_str(block).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(policy["Version"], "2012-10-17");
        let mut actions = Vec::new();
        for statement in policy["Statement"].as_array().unwrap() {
            assert_eq!(statement["Effect"], "Allow");
            assert!(statement.get("Resource").is_some());
            match &statement["Action"] {
                Value::String(action) => actions.push(action.clone()),
                many => actions.extend(
                    many.as_array()
                        .unwrap()
                        .iter()
                        .map(|action| action.as_str().unwrap().to_owned()),
                ),
            }
        }
        assert!(
            actions
                .iter()
                .all(|action| action != "*" && action != "s3:*" && action != "lookoutequipment:*"),
            "{name}"
        );
        actions
    };
    // Only commands call these; the model of embedded mode is asked of the service within.
    let not_a_feeders = [
        "lookoutequipment:ListModels",
        "lookoutequipment:ListInferenceSchedulers",
        "lookoutequipment:DeleteInferenceScheduler",
    ];
    for (name, places, but) in [
        (
            "feeder",
            vec!["s3", "s3.rs", "inference", "daemon"],
            not_a_feeders.to_vec(),
        ),
        ("service", vec!["s3", "s3.rs", "service"], vec![]),
        ("operator", vec!["s3", "s3.rs", "inference", "cli"], vec![]),
    ] {
        let (allowed, called) = (policy(name), called(&places));
        assert!(called.len() >= 3, "{name}: {called:?}");
        for action in called
            .iter()
            .filter(|action| !but.contains(&action.as_str()))
        {
            let is_allowed = allowed.iter().any(|rule| match rule.strip_suffix('*') {
                Some(start) => action.starts_with(start),
                None => rule == action,
            });
            assert!(
                is_allowed,
                "{name} calls {action}, its policy does not have it"
            );
        }
    }
}

#[test]
fn every_direct_dependency_is_justified() {
    let text = std::fs::read_to_string(root().join("docs/decisions/0001-dependencies.md")).unwrap();
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let table = manifest
        .split("[dependencies]")
        .nth(1)
        .unwrap()
        .split("\n[")
        .next()
        .unwrap();
    let mut seen = 0;
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, _)) = line.split_once(" = ") {
            assert!(
                text.contains(&format!("`{name}`")),
                "{name} is not in docs/decisions/0001-dependencies.md"
            );
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} dependencies");
}
