//! The tables `[input.NAME]` of the configuration: which inputs there are, each of a kind that has keys of its own.
//!
//! Guarantees: every key is checked by itself, so that one wrong key of one input is one finding at its line; what the environment
//! gives as text is taken as what the key is.

use std::collections::BTreeMap;

use config::{Value, ValueKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The inputs, by name.
pub type Inputs = BTreeMap<String, Settings>;

/// The longest name: it is part of paths and of every figure.
const LONGEST: usize = 64;

/// A key of an input as a layer has it: the name of the input, the key after it, and the value.
pub type Given = (String, String, Value);

macro_rules! kinds {
    ($($variant:ident $name:literal $config:ty, $what:literal;)*) => {
        /// One input, by its kind.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "kind")]
        pub enum Settings {
            $(#[doc = $what] #[serde(rename = $name)] $variant($config),)*
        }

        impl Settings {
            /// The names of all kinds.
            pub const KINDS: &'static [&'static str] = &[$($name,)*];

            /// Its kind.
            pub fn kind(&self) -> &'static str {
                match *self { $(Self::$variant(_) => $name,)* }
            }

            /// What is wrong with its values: key and problem.
            pub fn problems(&self) -> Vec<(&'static str, String)> {
                match *self { $(Self::$variant(ref config) => config.problems(),)* }
            }

            /// Serves one connection until it is told to stop, or says why it cannot go on.
            pub async fn run(&self, link: &super::Link) -> anyhow::Result<()> {
                let _ = link;
                match *self { $(Self::$variant(ref config) => config.run(link).await,)* }
            }

            /// The keys of a kind, with their defaults; `None` where there is no such kind.
            fn defaults(kind: &str) -> Option<serde_json::Value> {
                match kind {
                    $($name => serde_json::to_value(<$config>::default()).ok(),)*
                    _ => None,
                }
            }

            /// An input of a kind with these keys set.
            fn of(kind: &str, keys: &[(&str, &Value)]) -> Result<Self, config::ConfigError> {
                let _ = keys;
                match kind {
                    $($name => filled::<$config>(keys).map(Self::$variant),)*
                    _ => Err(config::ConfigError::Message(format!("there is no kind {kind}"))),
                }
            }
        }
    };
}

kinds! {
    Mqtt "mqtt" super::mqtt::Config, "An MQTT broker.";
}

/// A kind's keys: its defaults, and what is set.
fn filled<K: Default + Serialize + for<'de> Deserialize<'de>>(
    keys: &[(&str, &Value)],
) -> Result<K, config::ConfigError> {
    let defaults = config::Config::try_from(&K::default())?;
    let mut builder = config::Config::builder().add_source(defaults);
    for (key, value) in keys {
        builder = builder.set_override(key, (*value).clone())?;
    }
    builder.build()?.try_deserialize()
}

/// The inputs that these keys make, later ones over earlier; and what is wrong with them: input, key after its name, problem.
pub fn read(given: &[Given]) -> (Inputs, Vec<(String, String, String)>) {
    let (mut inputs, mut wrong) = (Inputs::new(), Vec::new());
    let mut by_name: BTreeMap<&str, Vec<(&str, &Value)>> = BTreeMap::new();
    for (name, key, value) in given {
        let keys = by_name.entry(name).or_default();
        keys.retain(|(known, _)| known != key);
        keys.push((key, value));
    }
    for (name, mut keys) in by_name {
        let mut say = |key: &str, problem: String| {
            wrong.push((name.to_owned(), key.to_owned(), problem));
        };
        if let Err(problem) = check_name(name) {
            say("", problem);
            continue;
        }
        let kind = keys.iter().find(|(key, _)| *key == "kind");
        let kind = kind.and_then(|(_, value)| (*value).clone().into_string().ok());
        let known = kind.as_deref().and_then(Settings::defaults);
        let (Some(kind), Some(known)) = (&kind, known) else {
            let problem = match kind {
                Some(kind) => format!("is \"{kind}\", expected {}", expected()),
                None => format!("is needed: {}", expected()),
            };
            say("kind", problem);
            continue;
        };
        keys.retain(|(key, _)| *key != "kind");
        let known: Vec<String> = paths(&known);
        keys.retain(|(key, value)| {
            if !known.iter().any(|known| known == key) {
                say(key, format!("is not a known key; {}", nearest(key, &known)));
                return false;
            }
            match Settings::of(kind, &[(key, value)]) {
                Ok(_) => true,
                Err(error) => {
                    say(key, plain(&error));
                    false
                }
            }
        });
        match Settings::of(kind, &keys) {
            Ok(settings) => {
                for (key, problem) in settings.problems() {
                    say(key, problem);
                }
                inputs.insert(name.to_owned(), settings);
            }
            Err(error) => say("", plain(&error)),
        }
    }
    (inputs, wrong)
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.is_empty() || name.len() > LONGEST || !name.chars().all(fits) {
        return Err(format!(
            "\"{name}\" cannot be the name of an input: write 1 to {LONGEST} letters, digits, hyphens and underscores"
        ));
    }
    Ok(())
}

fn expected() -> String {
    match Settings::KINDS {
        [] => "this build has no inputs".to_owned(),
        kinds => format!("one of {}", kinds.join(", ")),
    }
}

fn nearest(key: &str, known: &[String]) -> String {
    let nearest = known
        .iter()
        .min_by_key(|known| strsim::damerau_levenshtein(known, key));
    match nearest {
        Some(known) if strsim::damerau_levenshtein(known, key) <= key.len() / 2 => {
            format!("did you mean {known}?")
        }
        _ => format!("it has {}", known.join(", ")),
    }
}

/// The dotted name of every leaf.
pub fn paths(value: &serde_json::Value) -> Vec<String> {
    let serde_json::Value::Object(members) = value else {
        return vec![String::new()];
    };
    let below = members.iter().flat_map(|(name, value)| {
        paths(value)
            .into_iter()
            .map(move |path| match path.as_str() {
                "" => name.clone(),
                path => format!("{name}.{path}"),
            })
    });
    below.collect()
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

/// Splits a key `input.NAME.KEY`.
pub fn given(key: &str, value: &Value) -> Result<Given, String> {
    let mut parts = key.splitn(3, '.');
    let (_, name, own) = (parts.next(), parts.next(), parts.next());
    match (name, own, &value.kind) {
        (Some(name), Some(own), _) => Ok((name.to_owned(), own.to_owned(), value.clone())),
        (_, _, ValueKind::Table(_)) => Err("is empty: it needs at least a key kind".to_owned()),
        _ => Err("is no key: write the section of an input as [input.NAME]".to_owned()),
    }
}
