//! Configuration: defaults < file < `LOOKOUTD__SECTION__KEY` < flags, composed of each component's own `Config`.
//!
//! Guarantees: every finding is reported at once, with its origin and key; unknown keys are errors with the nearest known
//! key; `config/lookoutd.toml` lists every key with its default (held by a test). Cross-checks that need more than one
//! component live in `checks`. It opens no network connection, and reads no file but the configuration.

mod assets;
mod checks;
mod lines;
mod reference;
mod secrets;
mod units;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat, Value, ValueKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::signal::NameFormat;
use crate::{feed, inference, input, notify, ops, s3, service, source, store};

pub use assets::{Assets, Own, PLACEHOLDER};
pub use reference::{Allowed, Key, keys, schema};
pub use secrets::{REDACTED, is_secret, may_be_quoted, redact};
pub use units::{ByteSize, Keep, KeepRule, Span, bytes};

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of spool, ledger, archive and embedded store. Empty: `$STATE_DIRECTORY`, else `lookoutd-data`.
    pub data_dir: String,
    /// Where samples come from.
    pub source: source::Config,
    /// What is cut, when, and how far back.
    pub feed: feed::Config,
    /// How input files are named; the scheduler must be told the same.
    pub naming: NameFormat,
    /// Where input files go.
    pub s3: s3::Config,
    /// The inference scheduler that reads them.
    pub inference: inference::Config,
    /// The embedded service and store.
    pub service: service::Settings,
    /// How long the embedded store keeps what is in it.
    pub store: store::retention::Config,
    /// Metrics, health and the console.
    pub admin: ops::admin::Config,
    /// Who is told about events and trouble.
    pub notify: notify::Config,
    /// Logs.
    pub log: ops::log::Config,
    /// What differs for one asset of several.
    pub asset: Assets,
    /// What brings the samples of a live plant.
    pub input: input::Inputs,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The `file:line`, `LOOKOUTD__...` or `flag` that says so.
    pub origin: String,
    /// The key, such as `feed.cadence`.
    pub key: String,
    /// What is wrong and what to do.
    pub problem: String,
}

/// All that is wrong with a configuration.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} in the configuration:{}", count(findings), list(findings))]
pub struct ConfigError {
    /// The findings, in the order of the keys.
    pub findings: Vec<Finding>,
}

/// A loaded configuration and where each set value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Keys that are set somewhere, with their origin; all others are defaults.
    pub origins: Vec<(String, String)>,
}

/// One value in force, as it may be shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The key, such as `feed.cadence`.
    pub key: String,
    /// Its value; a secret is replaced by [`REDACTED`].
    pub value: serde_json::Value,
    /// `default`, `file:line`, `LOOKOUTD__...` or `flag`.
    pub origin: String,
}

impl Loaded {
    /// Where a key's value came from.
    pub fn origin(&self, key: &str) -> &str {
        let found = self.origins.iter().find(|(known, _)| known == key);
        found.map_or("default", |(_, origin)| origin)
    }

    /// Where a key's value came from, or that of one below it.
    fn origin_below(&self, key: &str) -> &str {
        let is_below = |known: &str| {
            known == key
                || known
                    .strip_prefix(key)
                    .is_some_and(|rest| rest.starts_with('.'))
        };
        let name = key.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let found = self.origins.iter().find(|(known, _)| is_below(known));
        let found = found.or_else(|| {
            let origins = self.origins.iter();
            origins
                .into_iter()
                .find(|(known, _)| known.starts_with(&format!("{name}.")))
        });
        found.map_or("default", |(_, origin)| origin)
    }

    /// Every value in force with its origin, secrets redacted.
    pub fn settings(&self) -> Vec<Setting> {
        let values = serde_json::to_value(&self.config).unwrap_or_default();
        let value = |key: &str| values.pointer(&format!("/{}", key.replace('.', "/")));
        let common = known_keys().into_iter().map(|key| Setting {
            value: value(&key).map_or_else(Default::default, |value| redact(&key, value)),
            origin: self.origin(&key).to_owned(),
            key,
        });
        let own = self.config.asset.iter().flat_map(|(name, own)| {
            own.set().into_iter().map(move |(key, value)| {
                let key = format!("asset.{name}.{key}");
                let origin = self.origin(&key).to_owned();
                Setting { key, value, origin }
            })
        });
        let inputs = self.config.input.iter().flat_map(|(name, settings)| {
            let whole = serde_json::to_value(settings).unwrap_or_default();
            input::paths(&whole).into_iter().map(move |own| {
                let key = format!("input.{name}.{own}");
                let value = whole.pointer(&format!("/{}", own.replace('.', "/")));
                Setting {
                    value: value.map_or_else(Default::default, |value| redact(&key, value)),
                    origin: self.origin(&key).to_owned(),
                    key,
                }
            })
        });
        common.chain(own).chain(inputs).collect()
    }
}

/// Loads and checks a configuration from a file, an environment and flags (`section.key`, value).
pub fn load(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: &[(String, String)],
) -> Result<Loaded, ConfigError> {
    let (loaded, findings) = inspect(file, environment, flags)?;
    settle(loaded, findings)
}

/// As [`load`], for looking at a configuration that is wrong: what could be loaded, and every finding. What cannot be
/// read at all is an error.
pub fn inspect(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: &[(String, String)],
) -> Result<(Loaded, Vec<Finding>), ConfigError> {
    let (loaded, mut findings) = merge(file, environment, flags)?;
    let texts: Vec<(String, String)> = loaded
        .settings()
        .into_iter()
        .filter_map(|setting| Some((setting.key, setting.value.as_str()?.to_owned())))
        .collect();
    let alone = assets::filled(&loaded.config).problems();
    let alone = alone.into_iter().map(|(key, what)| (key.to_owned(), what));
    for (key, problem) in assets::misplaced(&texts).into_iter().chain(alone) {
        findings.push(Finding {
            origin: loaded.origin(&key).to_owned(),
            key,
            problem,
        });
    }
    Ok((loaded, findings))
}

/// The data directory that a text names which is no TOML as a whole, if that is a line by itself before the first section.
pub fn data_dir_alone(text: &str) -> Option<String> {
    let lines = text.lines();
    let top = lines.take_while(|line| !line.trim_start().starts_with('['));
    let found = top.filter_map(|line| {
        let line = File::from_str(line, FileFormat::Toml);
        let parsed = config::Config::builder().add_source(line).build().ok()?;
        parsed.get_string("data_dir").ok()
    });
    found.last()
}

/// As [`load`], for the service alone: what only a feeder needs may be absent.
pub fn load_service(
    file: Option<&Path>,
    environment: &[(String, String)],
) -> Result<Loaded, ConfigError> {
    let (loaded, findings) = merge(file, environment, &[])?;
    settle(loaded, findings)
}

fn settle(loaded: Loaded, findings: Vec<Finding>) -> Result<Loaded, ConfigError> {
    if findings.is_empty() {
        Ok(loaded)
    } else {
        Err(ConfigError { findings })
    }
}

/// The layers put together, each key checked by itself.
fn merge(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: &[(String, String)],
) -> Result<(Loaded, Vec<Finding>), ConfigError> {
    let (layers, lines) = layers(file, environment, flags)?;
    let defaults = config::Config::try_from(&Config::default())
        .map_err(|error| one("defaults", "", &error))?;
    let known = known_keys();
    let mut findings = Vec::new();
    let mut origins: Vec<(String, String)> = Vec::new();
    let mut own = Assets::new();
    let mut inputs = Vec::new();
    let mut merged = config::Config::builder().add_source(defaults.clone());
    for (place, layer) in layers {
        for (key, value) in leaves(&Value::new(None, ValueKind::Table(table(&layer))), "") {
            let origin = match (lines.get(&key), file) {
                (Some(line), Some(file)) if place == file.display().to_string() => {
                    format!("{place}:{line}")
                }
                _ => place.clone(),
            };
            if key.starts_with("asset.") {
                match assets::take(&mut own, &key, &value) {
                    Ok(()) => {
                        origins.retain(|(known, _)| *known != key);
                        origins.push((key, origin));
                    }
                    Err(problem) => findings.push(Finding {
                        origin,
                        key,
                        problem,
                    }),
                }
                continue;
            }
            if key.starts_with("input.") {
                match input::given(&key, &value) {
                    Ok(given) => inputs.push(given),
                    Err(problem) => findings.push(Finding {
                        origin: origin.clone(),
                        key: key.clone(),
                        problem,
                    }),
                }
                origins.retain(|(known, _)| *known != key);
                origins.push((key, origin));
                continue;
            }
            if !known.contains(&key) {
                findings.push(unknown(&origin, &key, &known));
                continue;
            }
            let alone = config::Config::builder()
                .add_source(defaults.clone())
                .set_override(&key, value.clone())
                .and_then(|builder| builder.build())
                .and_then(|config| config.try_deserialize::<Config>());
            if let Err(error) = alone {
                findings.push(Finding {
                    origin: origin.clone(),
                    key: key.clone(),
                    problem: among(&key, &value).unwrap_or_else(|| plain(&error)),
                });
                continue;
            }
            merged = merged
                .set_override(&key, value)
                .map_err(|error| one(&origin, &key, &error))?;
            origins.retain(|(known, _)| *known != key);
            origins.push((key, origin.clone()));
        }
    }
    let mut config: Config = merged
        .build()
        .and_then(|config| config.try_deserialize())
        .map_err(|error| one("configuration", "", &error))?;
    config.asset = own;
    let (inputs, wrong) = input::read(&inputs);
    config.input = inputs;
    let loaded = Loaded { config, origins };
    findings.extend(wrong.into_iter().map(|(name, own, problem)| {
        let key = match own.as_str() {
            "" => format!("input.{name}"),
            own => format!("input.{name}.{own}"),
        };
        Finding {
            origin: loaded.origin_below(&key).to_owned(),
            key,
            problem,
        }
    }));
    Ok((loaded, findings))
}

impl Config {
    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        if !self.data_dir.is_empty() {
            return PathBuf::from(&self.data_dir);
        }
        match std::env::var_os("STATE_DIRECTORY") {
            Some(directory) => PathBuf::from(directory),
            None => PathBuf::from("lookoutd-data"),
        }
    }

    /// Whether samples come from inputs, and not from a history.
    pub fn is_live(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether S3 is served in process.
    pub fn is_embedded(&self) -> bool {
        self.s3.bucket.is_empty()
    }
}

/// Layers, lowest first, each with its origin.
type Layers = Vec<(String, config::Config)>;

/// The layers above the defaults; and the lines of the file's keys.
fn layers(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: &[(String, String)],
) -> Result<(Layers, HashMap<String, usize>), ConfigError> {
    let mut layers = Vec::new();
    let mut lines = HashMap::new();
    if let Some(path) = file {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            findings: vec![Finding {
                origin: origin.clone(),
                key: String::new(),
                problem: format!("cannot be read: {error}"),
            }],
        })?;
        let layer = config::Config::builder()
            .add_source(File::from_str(&text, FileFormat::Toml))
            .build()
            .map_err(|error| one(&origin, "", &error))?;
        lines = lines::of_keys(&text);
        layers.push((origin, layer));
    }
    for (name, value) in environment {
        if !name.starts_with("LOOKOUTD__") {
            continue;
        }
        let variables = [(name.clone(), value.clone())].into_iter().collect();
        let layer = config::Config::builder()
            .add_source(
                Environment::with_prefix("LOOKOUTD")
                    .prefix_separator("__")
                    .separator("__")
                    .source(Some(variables)),
            )
            .build()
            .map_err(|error| one(name, "", &error))?;
        layers.push((name.clone(), layer));
    }
    for (key, value) in flags {
        let layer = config::Config::builder()
            .set_override(key, value.as_str())
            .and_then(|builder| builder.build())
            .map_err(|error| one("flag", key, &error))?;
        layers.push(("flag".to_owned(), layer));
    }
    Ok((layers, lines))
}

fn table(config: &config::Config) -> config::Map<String, Value> {
    match &config.cache.kind {
        ValueKind::Table(table) => table.clone(),
        _ => config::Map::new(),
    }
}

/// The dotted name of every key there is, also of those whose default is nothing or an empty list.
fn known_keys() -> Vec<String> {
    fn walk(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, member) in members {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    walk(member, &path, found);
                }
            }
            _ => found.push(path.to_owned()),
        }
    }
    let mut found = Vec::new();
    // Serialising plain strings, numbers and lists to memory cannot fail.
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    walk(&defaults, "", &mut found);
    found
}

/// Every leaf of a tree as (dotted key, value), sorted by key.
fn leaves(value: &Value, path: &str) -> Vec<(String, Value)> {
    let ValueKind::Table(table) = &value.kind else {
        return vec![(path.to_owned(), value.clone())];
    };
    let mut found: Vec<_> = table
        .iter()
        .flat_map(|(key, value)| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            leaves(value, &path)
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

fn unknown(origin: &str, key: &str, known: &[String]) -> Finding {
    Finding {
        origin: origin.to_owned(),
        key: key.to_owned(),
        problem: format!("is not a known key; {}", suggestion(key, known)),
    }
}

/// What to say about a key that is not among those known.
pub fn suggestion(key: &str, known: &[String]) -> String {
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, key), known))
        .min();
    match nearest {
        Some((distance, nearest)) if distance <= key.len() / 2 => {
            format!("did you mean {nearest}?")
        }
        _ => "lookoutd config show lists all keys".to_owned(),
    }
}

/// What to say about a word for a key that takes some words only.
fn among(key: &str, value: &Value) -> Option<String> {
    let key = keys().into_iter().find(|known| known.key == key)?;
    let allowed: Vec<&str> = key
        .allowed
        .iter()
        .filter_map(|allowed| allowed.value.as_str())
        .collect();
    if allowed.is_empty() {
        return None;
    }
    let given = value.clone().into_string().unwrap_or_default();
    let nearest = allowed
        .iter()
        .map(|word| {
            (
                strsim::damerau_levenshtein(&word.to_lowercase(), &given.to_lowercase()),
                word,
            )
        })
        .min();
    let meant = match nearest {
        Some((distance, word)) if distance <= word.len() / 2 => format!("; did you mean {word}?"),
        _ => String::new(),
    };
    Some(format!(
        "is \"{given}\", expected one of {}{meant}",
        allowed.join(", ")
    ))
}

fn plain(error: &config::ConfigError) -> String {
    match error {
        config::ConfigError::At { error, .. } => plain(error),
        config::ConfigError::Type {
            unexpected,
            expected,
            ..
        } => format!("is {unexpected}, expected {expected}"),
        other => other.to_string(),
    }
}

fn one(origin: &str, key: &str, error: &config::ConfigError) -> ConfigError {
    ConfigError {
        findings: vec![Finding {
            origin: origin.to_owned(),
            key: key.to_owned(),
            problem: plain(error),
        }],
    }
}

fn count(findings: &[Finding]) -> String {
    match findings.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    }
}

fn list(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|finding| format!("\n  {finding}"))
        .collect()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn set(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let file =
            write("[feed]\ncadence = \"PT10M\"\ndrain_per_minute = 7\n[s3]\nregion = \"eu-1\"\n");
        let environment = [
            set("LOOKOUTD__FEED__CADENCE", "PT15M"),
            set("LOOKOUTD__S3__REGION", "eu-2"),
            set("PATH", "/bin"),
        ];
        let flags = [set("feed.cadence", "PT30M")];
        let loaded = load(Some(file.path()), &environment, &flags).unwrap();
        assert_eq!(loaded.config.feed.cadence.to_string(), "PT30M");
        assert_eq!(loaded.config.s3.region, "eu-2");
        assert_eq!(loaded.config.feed.drain_per_minute, 7);
        assert_eq!(loaded.config.feed.max_age, Config::default().feed.max_age);
        let origin = |key: &str| {
            let found = loaded.origins.iter().find(|(known, _)| known == key);
            found.map(|(_, origin)| origin.as_str())
        };
        assert_eq!(origin("feed.cadence"), Some("flag"));
        assert_eq!(origin("s3.region"), Some("LOOKOUTD__S3__REGION"));
        assert_eq!(
            loaded.origin("feed.drain_per_minute"),
            format!("{}:3", file.path().display())
        );
        assert_eq!(origin("feed.max_age"), None);
    }

    #[test]
    fn every_finding_is_reported_at_once_with_its_place() {
        let file = write(
            "[feed]\ncadense = \"PT5M\"\nmax_age = \"soon\"\ncadence = \"PT7M\"\n[s3]\nbucket = \"b\"\ninput_prefix = \"in\"\n",
        );
        let error = load(
            Some(file.path()),
            &[set("LOOKOUTD__FEED__ROWS", "some")],
            &[],
        )
        .unwrap_err();
        let text = error.to_string();
        for part in [
            "feed.cadense is not a known key; did you mean feed.cadence?",
            "\"soon\" is not a span of time",
            "PT7M",
            "PT5M, PT10M, PT15M, PT30M",
            "LOOKOUTD__FEED__ROWS: feed.rows",
            "s3.input_prefix must end with a slash",
            "source.history is needed with s3.bucket",
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
        assert!(text.contains(&file.path().display().to_string()));
    }

    #[test]
    fn a_wrong_word_is_answered_with_the_words_there_are() {
        let words: [(&str, &str, &str); 7] = [
            ("feed.publish", "live", "expected one of ahead, behind"),
            (
                "feed.rows",
                "notebok",
                "expected one of service, notebook; did you mean notebook?",
            ),
            (
                "feed.catch_up",
                "Skip",
                "expected one of skip, backfill; did you mean skip?",
            ),
            ("source.at_end", "end", "expected one of loop, stop"),
            (
                "inference.wanted",
                "run",
                "expected one of running, stopped, observe",
            ),
            ("log.format", "pretty", "expected one of auto, text, json"),
            (
                "feed.cadence",
                "PT7M",
                "expected one of PT5M, PT10M, PT15M, PT30M, PT1H; did you mean PT5M?",
            ),
        ];
        for (key, word, expected) in words {
            let error = load(None, &[], &[set(key, word)]).unwrap_err().to_string();
            let said = format!("flag: {key} is \"{word}\", {expected}");
            assert!(error.contains(&said), "{said} not in {error}");
        }
    }

    #[test]
    fn the_remedy_for_a_prefix_keeps_it() {
        for (prefix, remedy) in [
            ("inference/input", "write it as \"inference/input/\""),
            ("a", "write it as \"a/\""),
            ("/lead/in", "write it as \"lead/in/\""),
            ("/", "write it as \"\""),
        ] {
            let error = load(None, &[], &[set("s3.input_prefix", prefix)]).unwrap_err();
            assert!(error.to_string().contains(remedy), "{prefix}: {error}");
            assert_eq!(error.findings.len(), 1, "{error}");
        }
    }

    #[test]
    fn what_runs_embedded_listens_on_loopback_only() {
        for (key, address, fine) in [
            ("service.listen", "127.0.0.1:0", true),
            ("service.listen", "[::1]:9180", true),
            ("service.s3_listen", "127.1.2.3:9190", true),
            ("service.listen", "0.0.0.0:9180", false),
            ("service.listen", "192.0.2.7:9180", false),
            ("service.s3_listen", "[::]:9190", false),
            ("service.s3_listen", "[::ffff:192.0.2.7]:9190", false),
        ] {
            let loaded = load(None, &[], &[set(key, address)]);
            match loaded {
                Ok(_) => assert!(fine, "{address}"),
                Err(error) => {
                    assert!(!fine, "{error}");
                    assert!(error.to_string().contains("lookoutd serve"), "{error}");
                }
            }
        }
    }

    #[test]
    fn the_reference_configuration_lists_every_key_with_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/lookoutd.toml");
        let loaded = load(Some(&path), &[], &[]).unwrap();
        assert_eq!(loaded.config, Config::default());
        let text = std::fs::read_to_string(path).unwrap();
        for key in known_keys() {
            let name = key.rsplit('.').next().unwrap();
            let mentioned = text.lines().any(|line| {
                line.trim_start_matches("# ")
                    .starts_with(&format!("{name} ="))
            });
            assert!(mentioned, "{key} is not in config/lookoutd.toml");
        }
    }

    #[test]
    fn bucket_names_and_tags_are_held_to_one_rule_wherever_they_stand() {
        let found = |text: &str| -> String {
            let file = write(text);
            match load(Some(file.path()), &[], &[]) {
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            }
        };
        let of = |bucket: &str, endpoint: &str, more: &str| {
            format!(
                "[s3]\nbucket = \"{bucket}\"\nendpoint_url = \"{endpoint}\"\n[source]\nhistory = \"h.parquet\"\n\
                 tags = \"t.csv\"\n[inference]\n{more}\n"
            )
        };
        let aws = found(&of("plant", "", "output_bucket = \"Plant_Out\""));
        assert!(aws.contains("inference.output_bucket"), "{aws}");
        // A store of one's own takes more names, for the results as for the files.
        let own = of(
            "Plant_Data",
            "http://127.0.0.1:9000",
            "output_bucket = \"Plant_Out\"",
        );
        assert_eq!(found(&own), "");
        let history = found("[source]\nhistory = \"s3://Bad_Bucket/key\"\ntags = \"t.csv\"\n");
        assert!(
            history.contains("source.history") && history.contains("Bad_Bucket"),
            "{history}"
        );

        let twice = found(&of("plant", "", "tags = \"plant=a, line=1, plant=b\""));
        assert!(
            twice.contains("inference.tags") && twice.contains("\"plant\""),
            "{twice}"
        );
        let option = found(&of("plant", "", "tags = \"lookoutd:late-files=yes\""));
        assert!(option.contains("score or ignore"), "{option}");
        assert_eq!(
            found(&of("plant", "", "tags = \"plant=a, lookoutd:catch-up=on\"")),
            ""
        );
    }
}
