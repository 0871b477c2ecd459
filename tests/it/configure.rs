//! `lookoutd config`, man pages and completions: what an operator and a package get told about the program, and that it is true.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::commands::{json, lookoutd, show, succeed, text};
use crate::rig::directory;

fn setting<'a>(settings: &'a Value, key: &str) -> &'a Value {
    let settings = settings.as_array().expect("a list");
    settings
        .iter()
        .find(|setting| setting["key"] == key)
        .unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn config_show_names_the_file_and_line_the_variable_or_the_flag_of_every_value() {
    let directory = directory();
    let file = directory.path().join("lookoutd.toml");
    std::fs::write(
        &file,
        "# mine\n[feed]\ncadence = \"PT10M\"\ndrain_per_minute = 7\n\n[s3]\nregion = \"eu-1\"\n\
         endpoint_url = \"https://user:hunter2secret@store.example:9000/x\"\n\
         bucket = \"b\"\n[source]\nparquet = \"p\"\ntags = \"t\"\n",
    )
    .unwrap();
    let output = lookoutd()
        .env("LOOKOUTD__S3__REGION", "eu-2")
        .args([
            "config",
            "show",
            "--output",
            "json",
            "--config",
            show(&file),
        ])
        .args(["--set", "feed.cadence=PT15M", "--data-dir", "/srv/plant"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let settings: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (key, value, origin) in [
        ("feed.cadence", "\"PT15M\"", "flag".to_owned()),
        ("data_dir", "\"/srv/plant\"", "flag".to_owned()),
        ("s3.region", "\"eu-2\"", "LOOKOUTD__S3__REGION".to_owned()),
        (
            "feed.drain_per_minute",
            "7",
            format!("{}:4", file.display()),
        ),
        (
            "s3.endpoint_url",
            "\"https://[redacted]@store.example:9000/[redacted]\"",
            format!("{}:8", file.display()),
        ),
        ("feed.max_age", "\"1day\"", "default".to_owned()),
        ("s3.path_style", "null", "default".to_owned()),
    ] {
        let setting = setting(&settings, key);
        assert_eq!(setting["value"].to_string(), value, "{key}");
        assert_eq!(setting["origin"], origin.as_str(), "{key}");
    }
    assert!(!text(&output).contains("hunter2secret"));

    let shown = succeed(&["config", "show", "--origin", "--config", show(&file)]);
    let line = shown.lines().find(|line| line.starts_with("cadence"));
    let line = line.expect("the cadence");
    assert!(line.ends_with(&format!("# {}:3", file.display())), "{line}");
    // What is shown is a configuration file.
    let again = directory.path().join("again.toml");
    let plain = shown
        .replace("https://[redacted]@", "https://")
        .replace("[redacted]", "x");
    std::fs::write(&again, plain).unwrap();
    let again = json(&[
        "config",
        "show",
        "--output",
        "json",
        "--config",
        show(&again),
    ]);
    assert_eq!(setting(&again, "feed.cadence")["value"], "PT10M");
}

#[test]
fn findings_name_the_line_they_are_on() {
    let directory = directory();
    let file = directory.path().join("lookoutd.toml");
    std::fs::write(&file, "[feed]\nmax_age = \"soon\"\n\ncadense = 1\n").unwrap();
    let output = lookoutd()
        .args(["check", "--offline", "--config", show(&file)])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    for part in [
        format!("{}:2: feed.max_age", file.display()),
        format!("{}:4: feed.cadense", file.display()),
    ] {
        assert!(text(&output).contains(&part), "{part}: {}", text(&output));
    }
}

#[test]
fn config_explain_says_what_a_key_is_for_what_it_can_be_and_where_it_is_set() {
    let directory = directory();
    let file = directory.path().join("lookoutd.toml");
    std::fs::write(&file, "[feed]\ncadence = \"PT7M\"\n").unwrap();
    let said = succeed(&["config", "explain", "feed.cadence", "--config", show(&file)]);
    for part in [
        "Window length, aligned to the UTC hour",
        "\"PT5M\", \"PT10M\", \"PT15M\", \"PT30M\", \"PT1H\"",
        "default    \"PT5M\"",
        "LOOKOUTD__FEED__CADENCE",
        "problem",
        "PT7M",
    ] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    let section = json(&["config", "explain", "log", "--output", "json"]);
    let keys: Vec<_> = section
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["key"])
        .collect();
    assert_eq!(keys, ["log.level", "log.format"]);

    let output = lookoutd()
        .args(["config", "explain", "feed.cadense"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("did you mean feed.cadence?"));
}

/// A real validator of JSON Schema, given a schema and TOML files: those it refuses, with the reason.
const VALIDATOR: &str = "
import json, sys, tomllib
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
for path in sys.argv[2:]:
    with open(path, 'rb') as file:
        for error in Draft202012Validator(schema).iter_errors(tomllib.load(file)):
            print(path, '/'.join(map(str, error.path)), error.message)
";

#[test]
fn the_json_schema_takes_every_configuration_of_ours_and_refuses_what_the_loader_refuses() {
    let Some(python) = crate::skipped::python() else {
        return;
    };
    let directory = directory();
    let schema = directory.path().join("schema.json");
    std::fs::write(&schema, succeed(&["config", "schema"])).unwrap();
    let validate = |files: &[PathBuf]| {
        let output = Command::new(&python)
            .args(["-c", VALIDATOR])
            .arg(&schema)
            .args(files)
            .output()
            .expect("Python runs");
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours: Vec<PathBuf> = std::fs::read_dir(root.join("config"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(ours.len() >= 3, "{ours:?}");
    assert_eq!(validate(&ours), "");

    for (name, bad) in [
        ("unknown key", "[feed]\ncadense = \"PT5M\"\n"),
        ("unknown section", "[fede]\ncadence = \"PT5M\"\n"),
        ("wrong type", "[feed]\ndrain_per_minute = \"many\"\n"),
        ("no such choice", "[feed]\ncadence = \"PT7M\"\n"),
        ("no such form", "[feed]\nmin_free = \"64 bananas\"\n"),
        ("below zero", "[feed]\ndrain_per_minute = -1\n"),
    ] {
        let file = directory.path().join("bad.toml");
        std::fs::write(&file, bad).unwrap();
        let loader = lookoutd()
            .args(["config", "show", "--config", show(&file)])
            .output()
            .unwrap();
        assert_eq!(loader.status.code(), Some(78), "{name}: {}", text(&loader));
        assert_ne!(validate(&[file]), "", "{name} passes the schema");
    }
}

#[test]
fn every_command_has_a_man_page_that_renders_without_a_warning() {
    let directory = directory();
    succeed(&["man", show(directory.path())]);
    let mut pages: Vec<PathBuf> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.sort();
    let names: Vec<_> = pages
        .iter()
        .map(|page| page.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    for wanted in ["lookoutd.1", "lookoutd-run.1", "lookoutd-config-explain.1"] {
        assert!(names.contains(&wanted.to_owned()), "{wanted} in {names:?}");
    }
    for page in &pages {
        let source = std::fs::read_to_string(page).unwrap();
        assert!(source.contains("Examples:"), "{}", page.display());
    }
    // groff is what `man` calls; without it the pages are only generated.
    let groff = Command::new("groff")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !groff.is_ok_and(|status| status.success()) {
        crate::skipped::say("groff is not installed");
        return;
    }
    for page in &pages {
        let output = Command::new("groff")
            .args(["-man", "-ww", "-z", "-Tutf8", "-K", "utf8"])
            .arg(page)
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn completions_are_scripts_that_the_shell_takes() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            succeed(&["completions", shell]).contains("healthcheck"),
            "{shell}"
        );
    }
    let directory = directory();
    let script = directory.path().join("lookoutd.bash");
    std::fs::write(&script, succeed(&["completions", "bash"])).unwrap();
    // What bash offers after `lookoutd con`.
    let ask = format!(
        "source {}; COMP_WORDS=(lookoutd con); COMP_CWORD=1; _lookoutd lookoutd con lookoutd; echo ${{COMPREPLY[@]}}",
        script.display()
    );
    let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
    assert_eq!(text(&output).trim(), "console config");
}
