//! The rules of ARCHITECTURE.md as tests: where things lie, how large they grow, who may know whom.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under a directory, as (path from the project root, text).
fn sources(directory: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![root().join(directory)];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no file under {directory}");
    found
}

fn all() -> Vec<(String, String)> {
    ["src", "tests", "benches"]
        .into_iter()
        .filter(|directory| root().join(directory).is_dir())
        .flat_map(|directory| {
            let has_some = fs::read_dir(root().join(directory))
                .unwrap()
                .next()
                .is_some();
            if has_some {
                sources(directory)
            } else {
                Vec::new()
            }
        })
        .collect()
}

/// The lines before a file's own tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text)
}

/// The words of this rule must not be found in the rule.
fn word(parts: [&str; 2]) -> String {
    parts.concat()
}

#[test]
fn every_file_says_first_what_it_is() {
    for (name, text) in all() {
        assert!(
            text.starts_with("//! "),
            "{name} does not open with a //! comment"
        );
    }
}

#[test]
fn no_file_is_longer_than_600_lines_before_its_tests() {
    for (name, text) in sources("src") {
        let lines = product(&text).lines().count();
        assert!(
            lines <= 600 || name.ends_with("tests.rs"),
            "{name} has {lines} lines: split it by what it does"
        );
    }
}

#[test]
fn files_are_named_after_what_they_are() {
    for (name, _) in all() {
        for part in Path::new(&name).with_extension("").components() {
            let part = part.as_os_str().to_string_lossy();
            for forbidden in [
                "utils", "util", "helpers", "common", "misc", "prelude", "mod",
            ] {
                assert_ne!(part, forbidden, "{name}");
            }
        }
    }
}

/// The modules of this crate that a file names.
fn knows(text: &str, module: &str) -> bool {
    let direct = format!("crate::{module}");
    if product(text).match_indices(&direct).any(|(at, _)| {
        let next = text[at + direct.len()..].chars().next();
        !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
    }) {
        return true;
    }
    // `use crate::{a, b::c};`
    product(text).split("use crate::{").skip(1).any(|rest| {
        let list = rest.split("};").next().unwrap_or_default();
        list.split([',', '{', '}', ' ', '\n'])
            .any(|item| item.split("::").next() == Some(module))
    })
}

#[test]
fn only_the_two_backings_ask_for_executions_in_sql() {
    // Files of their own, which hold no executions; and the bundle for support, which shows tables as they are.
    let others = ["src/notify/queue.rs", "src/cli/diag/state.rs"];
    for directory in ["console", "ops", "notify", "cli", "executions", "daemon"] {
        for (name, text) in sources(&format!("src/{directory}")) {
            let text = product(&text);
            let is_sql = text.contains("rusqlite::params") || text.contains(".prepare");
            assert!(
                !is_sql || others.contains(&name.as_str()),
                "{name} has SQL: put the question into executions, its answer into service::store::reading and inference::Past"
            );
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    let rules: [(&str, &[&str]); 18] = [
        (
            "signal",
            &[
                "clock",
                "config",
                "source",
                "feed",
                "s3",
                "inference",
                "service",
                "model",
                "embedded",
                "daemon",
                "cli",
                "ops",
                "sample",
            ],
        ),
        (
            "source",
            &[
                "clock",
                "feed",
                "s3",
                "inference",
                "service",
                "model",
                "embedded",
                "daemon",
                "cli",
                "ops",
            ],
        ),
        (
            "journal",
            &[
                "clock",
                "config",
                "source",
                "input",
                "feed",
                "s3",
                "inference",
                "service",
                "model",
                "embedded",
                "daemon",
                "cli",
                "ops",
                "vitals",
            ],
        ),
        (
            "s3",
            &[
                "clock",
                "config",
                "feed",
                "source",
                "inference",
                "service",
                "model",
                "embedded",
                "daemon",
                "cli",
            ],
        ),
        (
            "feed",
            &[
                "inference",
                "service",
                "model",
                "embedded",
                "daemon",
                "cli",
                "ops",
            ],
        ),
        (
            "inference",
            &["feed", "service", "embedded", "daemon", "cli"],
        ),
        ("service", &["feed", "inference", "daemon", "cli"]),
        (
            "model",
            &[
                "feed",
                "inference",
                "service",
                "embedded",
                "daemon",
                "cli",
                "clock",
                "config",
            ],
        ),
        ("embedded", &["feed", "inference", "model", "daemon", "cli"]),
        (
            "sample",
            &[
                "clock",
                "config",
                "feed",
                "s3",
                "inference",
                "service",
                "model",
                "daemon",
                "cli",
            ],
        ),
        (
            "clock",
            &[
                "config",
                "feed",
                "s3",
                "source",
                "signal",
                "inference",
                "service",
                "model",
                "daemon",
                "cli",
            ],
        ),
        ("config", &["daemon", "cli", "embedded", "clock"]),
        (
            "ops",
            &[
                "daemon",
                "cli",
                "inference",
                "service",
                "model",
                "embedded",
                "console",
                "notify",
            ],
        ),
        (
            "executions",
            &["daemon", "cli", "console", "notify", "ops", "embedded"],
        ),
        (
            "vitals",
            &[
                "daemon",
                "cli",
                "console",
                "notify",
                "ops",
                "embedded",
                "feed",
                "inference",
                "service",
                "model",
                "executions",
            ],
        ),
        (
            "console",
            &[
                "daemon", "cli", "service", "model", "embedded", "source", "sample",
            ],
        ),
        (
            "notify",
            &[
                "daemon", "cli", "service", "model", "embedded", "source", "sample",
            ],
        ),
        ("daemon", &["cli"]),
    ];
    for (name, text) in sources("src") {
        let path = name.trim_start_matches("src/").trim_end_matches(".rs");
        let module = path.split('/').next().unwrap();
        let Some((_, forbidden)) = rules.iter().find(|(rule, _)| *rule == module) else {
            continue;
        };
        for other in *forbidden {
            assert!(!knows(&text, other), "{name} must not know `{other}`");
        }
    }
}

#[test]
fn the_task_loops_do_not_know_each_other() {
    for (name, other) in [
        ("src/feed/cutter.rs", "shipper"),
        ("src/feed/shipper.rs", "cutter"),
    ] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        assert!(
            !product(&text).contains(&format!("super::{other}")),
            "{name}"
        );
    }
}

#[test]
fn only_daemon_and_cli_see_the_whole_configuration() {
    for (name, text) in sources("src") {
        let free = ["src/daemon", "src/cli", "src/config"];
        if !free.iter().any(|path| name.starts_with(path)) {
            let text = product(&text);
            assert!(!text.contains("config::Config;"), "{name}");
            assert!(!text.contains("config::{Config"), "{name}");
            assert!(!text.contains("config::Loaded"), "{name}");
        }
    }
}

#[test]
fn the_services_sql_stands_in_its_store() {
    for (name, text) in sources("src/service") {
        let may = name.starts_with("src/service/store");
        assert!(may || !product(&text).contains("rusqlite"), "{name}");
    }
    // No connection leaves it: what runs a transaction is its own.
    let store = fs::read_to_string(root().join("src/service/store.rs")).unwrap();
    assert!(store.contains("    async fn transact<"));
    for (name, text) in sources("src/service/store") {
        for line in product(&text).lines().map(str::trim_start) {
            let leaves = line.starts_with("pub fn ") || line.starts_with("pub async fn ");
            let connection = line.contains("Connection") || line.contains("Transaction");
            assert!(!(leaves && connection), "{name}: {line}");
        }
    }
}

/// Lines around an `error!` in which its trouble is raised.
const BESIDE: usize = 25;

#[test]
fn whatever_is_logged_as_an_error_is_told_as_a_reason() {
    // Those without a trouble of their own beside them: the file, words of the message, and why.
    let others = [
        // The process ends, or has.
        ("src/daemon/gateway.rs", "a loop has failed", "it ends"),
        ("src/daemon/gateway.rs", "the service has failed", "it ends"),
        ("src/cli/serve.rs", "a loop has failed", "it ends"),
        (
            "src/daemon/gateway.rs",
            "the embedded S3 has failed",
            "it ends",
        ),
        ("src/service.rs", "service task failed", "it is ending"),
        // Judged from what is there: pulses, the ledger, executions.
        (
            "src/ops/notify.rs",
            "a loop has stopped",
            "loop-stalled, from its pulse",
        ),
        (
            "src/feed/shipper.rs",
            "window set aside",
            "windows-quarantined, from the ledger",
        ),
        (
            "src/feed/cutter.rs",
            "the window cannot be read",
            "windows-quarantined, from the ledger",
        ),
        (
            "src/feed/cutter.rs",
            "window lost",
            "windows-quarantined, from the ledger",
        ),
        (
            "src/service/runner/execute.rs",
            "scoring panicked",
            "the execution is FAILED",
        ),
        (
            "src/service/runner.rs",
            "execution panicked",
            "the execution is FAILED",
        ),
        (
            "src/service/jobs.rs",
            "a model file is missing",
            "model-unusable, by each execution of it",
        ),
        (
            "src/service/jobs.rs",
            "unused files cannot be found",
            "jobs-failing, by the queue that asks the same state",
        ),
        (
            "src/inference/watcher/fetching.rs",
            "results objects are gone",
            "results-missing, the day before",
        ),
        (
            "src/inference/watcher.rs",
            "the inference side cannot go on",
            "by what it is: ensured, fetched",
        ),
        // Raised where the queue is used.
        (
            "src/notify/queue.rs",
            "damaged and set aside",
            "state-replaced, in notify",
        ),
        (
            "src/notify/queue.rs",
            "is full",
            "notifications-failing, by the target that takes nothing",
        ),
        // A request that fails is answered 500; what stands behind it the loops run into, too.
        (
            "src/ops/admin.rs",
            "an admin request failed",
            "state-unreadable, from what cannot be read",
        ),
        ("src/service/protocol.rs", "request failed", "500"),
        ("src/service/operations.rs", "", "500"),
        (
            "src/service/shapes.rs",
            "does not compile",
            "500; a test compiles all",
        ),
        ("src/service/store.rs", "", "a fault of who asks"),
        ("src/service/store/once.rs", "", "a fault of who asks"),
        (
            "src/service/store/registering.rs",
            "",
            "a fault of who asks",
        ),
        ("src/service/store/leftovers.rs", "", "a fault of who asks"),
    ];
    let tells = [
        "Code::",
        ".told_",
        "told(",
        "store_failed(",
        ".paused(",
        ".ensured(",
    ];
    let (mut seen, mut used) = (0, vec![false; others.len()]);
    for (name, text) in sources("src") {
        let lines: Vec<&str> = product(&text).lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let is_error = line.match_indices("error!(").any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            });
            if !is_error {
                continue;
            }
            seen += 1;
            let words = lines[number..lines.len().min(number + 12)].join(" ");
            let listed = others
                .iter()
                .position(|(file, part, _)| *file == name && words.contains(part));
            if let Some(listed) = listed {
                used[listed] = true;
                continue;
            }
            let around = number.saturating_sub(BESIDE)..lines.len().min(number + BESIDE);
            let told = lines[around]
                .iter()
                .any(|line| tells.iter().any(|tells| line.contains(tells)));
            assert!(
                told,
                "{name}:{}: an ERROR without a trouble of the vitals beside it",
                number + 1
            );
        }
    }
    assert!(seen > 30, "only {seen}");
    for ((file, part, _), used) in others.iter().zip(used) {
        assert!(used, "{file} has no such error any more: {part}");
    }
}

#[test]
fn every_code_is_raised_somewhere() {
    let texts = sources("src");
    for code in lookoutd::vitals::Code::ALL {
        let variant = format!("Code::{code:?}");
        let raised = texts.iter().any(|(name, text)| {
            name != "src/vitals/trouble.rs" && product(text).contains(&variant)
        });
        assert!(raised, "{variant} is in the table and nobody raises it");
    }
}

#[test]
fn nothing_is_left_for_later_and_nothing_is_silenced() {
    let later = [word(["TO", "DO"]), word(["FIX", "ME"]), word(["XX", "X"])];
    for (name, text) in all() {
        for word in &later {
            assert!(!text.contains(word.as_str()), "{name} has a {word}");
        }
        if name.starts_with("src/") {
            assert!(
                !text.contains("#[allow("),
                "{name}: use #[expect(.., reason = ..)]"
            );
        }
    }
}

#[test]
fn nothing_panics_because_its_output_cannot_be_written() {
    // The macros of the standard library do; src/cli/output.rs has those that do not.
    for (name, text) in sources("src") {
        for line in product(&text).lines().map(str::trim_start) {
            for print in ["println!(", "print!(", "eprintln!(", "eprint!("] {
                assert!(!line.starts_with(print), "{name}: {line}");
            }
        }
    }
}

#[test]
fn no_listener_caches_the_date_of_its_answers() {
    // A cached one stays ahead when a clock that was ahead is put right; `ops::date` has one that does not.
    let mut listeners = 0;
    for (name, text) in sources("src") {
        for server in text.split("http1::Builder::new()").skip(1) {
            let Some((options, _)) = server.split_once("serve_connection") else {
                continue;
            };
            listeners += 1;
            assert!(options.contains("auto_date_header(false)"), "{name}");
            assert!(text.contains("date::dated"), "{name}");
        }
    }
    assert!(listeners >= 3, "only {listeners} listeners");
}

#[test]
fn every_ignored_test_says_why() {
    for (name, text) in all() {
        assert!(!text.contains(&word(["#[ign", "ore]"])), "{name}: say why");
    }
}

#[test]
fn every_configuration_in_config_is_valid() {
    let mut seen = 0;
    for entry in fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            lookoutd::config::load(Some(&path), &[], &[])
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} files in config/");
}

/// The arguments of every call of lookoutd in a text, as far as a line shows them.
fn calls(text: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((_, arguments)) = line.split_once("/usr/bin/lookoutd ") else {
            continue;
        };
        if line.trim_start().starts_with('#') {
            continue;
        }
        calls.push(arguments.split_whitespace().map(str::to_owned).collect());
    }
    calls
}

#[test]
fn the_units_call_commands_and_flags_that_exist() {
    for (name, most, state, stays_down) in [
        ("lookoutd", 3, "lookoutd", "74 78"),
        ("lookoutd-serve", 1, "lookoutd-serve", "2 74 78"),
    ] {
        let unit = fs::read_to_string(root().join(format!("systemd/{name}.service"))).unwrap();
        let calls = calls(&unit);
        assert!(calls.len() >= most, "{calls:?}");
        for call in calls {
            let help = Command::new(env!("CARGO_BIN_EXE_lookoutd"))
                .args([&call[0], "--help"])
                .output()
                .unwrap();
            assert!(help.status.success(), "no command {}", call[0]);
            let help = String::from_utf8_lossy(&help.stdout).into_owned();
            for flag in call.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag.as_str()), "{} has no {flag}", call[0]);
            }
        }
        for needed in [
            "Type=notify".to_owned(),
            "WatchdogSec=60".to_owned(),
            format!("RestartPreventExitStatus={stays_down}"),
            format!("StateDirectory={state}"),
        ] {
            assert!(unit.lines().any(|line| line == needed), "{name}: {needed}");
        }
    }
}

/// The lines of a unit that say what the service may do and see.
fn hardening(unit: &str) -> Vec<String> {
    let unit = fs::read_to_string(root().join("systemd").join(unit)).unwrap();
    let from = unit.find("# --- hardening").expect("a part of that name");
    unit[from..]
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn both_units_are_shut_in_alike() {
    let gateway = hardening("lookoutd.service");
    assert!(gateway.len() > 25, "{gateway:?}");
    assert_eq!(gateway, hardening("lookoutd-serve.service"));
}

#[test]
fn the_image_is_built_from_everything_the_sources_include() {
    let allowed = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let mut included = 0;
    for (name, text) in sources("src") {
        let directory = root().join(&name).parent().unwrap().to_owned();
        for macro_name in ["include_str!(\"", "include_bytes!(\""] {
            for rest in product(&text).split(macro_name).skip(1) {
                let path = directory.join(rest.split('"').next().unwrap());
                let path = path.canonicalize().unwrap();
                let top = path.strip_prefix(root()).unwrap().components().next();
                let top = top.unwrap().as_os_str().to_string_lossy();
                assert!(
                    allowed.lines().any(|line| line == format!("!{top}")),
                    "{name} includes {top}, which .dockerignore leaves out"
                );
                included += 1;
            }
        }
    }
    assert!(included > 5, "{included} files are included");
}

#[test]
fn the_map_names_every_module() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_file() && !["main", "lib"].contains(&name.as_str()) {
            assert!(
                map.contains(&format!("`{name}`")),
                "{name} is not in ARCHITECTURE.md"
            );
        }
    }
}

#[test]
fn the_tests_that_hold_the_invariants_exist() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut seen = 0;
    for word in map.split(['`', ' ']) {
        if word.starts_with("tests/") && word.ends_with(".rs") {
            assert!(root().join(word).is_file(), "{word}");
            seen += 1;
        }
    }
    assert!(seen >= 5);
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let promises = fs::read_to_string(root().join("docs/semantics.md")).unwrap();
    let code: String = [sources("src"), sources("tests")]
        .concat()
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let mut promised = 0;
    for row in promises.lines().filter(|line| line.ends_with("` |")) {
        let tests = row.rsplit(" | ").next().unwrap();
        for name in tests.trim_end_matches(" |").split(", ") {
            let name = name.trim_matches('`');
            assert!(code.contains(&format!("fn {name}(")), "no test {name}");
            promised += 1;
        }
    }
    assert!(promised > 40, "{promised} tests named");
}

/// How the fuzzers' lock file follows the product's.
const UPDATE: &str = "cp Cargo.lock fuzz/Cargo.lock && cargo metadata --format-version 1 \
                      --manifest-path fuzz/Cargo.toml >/dev/null";

/// Name and version of every package in a lock file.
fn locked(path: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let values = |line: &str, key: &str| line.strip_prefix(key).map(str::to_owned);
    let names = text.lines().filter_map(|line| values(line, "name = "));
    // Every package has one line of each, in this order; the version of the file has no quotes.
    let versions = text.lines().filter_map(|line| values(line, "version = \""));
    names
        .zip(versions)
        .map(|(name, version)| format!("{name} \"{version}"))
        .collect()
}

/// The packages that the product itself names.
fn own_dependencies(path: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let (_, own) = text.split_once("name = \"lookoutd\"\n").unwrap();
    let (_, own) = own.split_once("dependencies = [\n").unwrap();
    let (own, _) = own.split_once("\n]").unwrap();
    own.lines()
        .map(|line| line.trim_matches([' ', '"', ',']).to_owned())
        .collect()
}

#[test]
fn the_fuzzers_are_built_with_what_the_product_is_built_with() {
    let product = locked("Cargo.lock");
    assert!(product.len() > 100, "{product:?}");
    for package in locked("fuzz/Cargo.lock") {
        let own = ["\"lookoutd-fuzz\"", "\"libfuzzer-sys\"", "\"arbitrary\""];
        assert!(
            product.contains(&package) || own.iter().any(|name| package.starts_with(name)),
            "{package} is another version in Cargo.lock: {UPDATE}"
        );
    }
    let missing: Vec<String> = own_dependencies("Cargo.lock")
        .into_iter()
        .filter(|name| !own_dependencies("fuzz/Cargo.lock").contains(name))
        .collect();
    // Those of its tests alone.
    assert_eq!(missing, ["proptest", "tempfile"], "{UPDATE}");
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let wrapper = fs::read_to_string(root().join("fuzz/rustc")).unwrap();
    let mut instrumented = 0;
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix("[profile.dev.package.")
            && name != "\"*\"]"
        {
            let name = name.trim_end_matches(']').replace('-', "_");
            assert!(wrapper.contains(&format!("--crate-name {name} ")), "{name}");
            instrumented += 1;
        }
    }
    assert!(instrumented > 2);
}
