//! What is known of every key: its comment, type, allowed values and default, and the JSON Schema of the whole.
//!
//! Types and allowed values come from the types that the loader fills, comments from `config/lookoutd.toml`, defaults from
//! `Config::default`; nothing is written down a second time.

use std::collections::HashMap;

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Config, known_keys};

const REFERENCE: &str = include_str!("../../config/lookoutd.toml");

/// One key.
#[derive(Clone, Debug, Serialize)]
pub struct Key {
    /// Its dotted name, such as `feed.cadence`.
    pub key: String,
    /// What it is for.
    pub comment: String,
    /// The JSON type, such as `string`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The values there are, where they can be listed, each with what it means if that is written down.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Allowed>,
    /// The regular expression that values match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The value when nothing sets it.
    pub default: Value,
}

/// A value that a key can have.
#[derive(Clone, Debug, Serialize)]
pub struct Allowed {
    /// The value.
    pub value: Value,
    /// What it means; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub meaning: String,
}

/// Every key, in the order of the reference.
pub fn keys() -> Vec<Key> {
    let schema = schema();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let nothing = Value::Null;
    known_keys()
        .into_iter()
        .map(|key| {
            let path = key.replace('.', "/properties/");
            let node = schema
                .pointer(&format!("/properties/{path}"))
                .unwrap_or(&nothing);
            let default = defaults.pointer(&format!("/{}", key.replace('.', "/")));
            Key {
                comment: text(node, "description"),
                kind: kind(node),
                allowed: allowed(node),
                pattern: node["pattern"].as_str().map(str::to_owned),
                default: default.cloned().unwrap_or_default(),
                key,
            }
        })
        .collect()
}

/// The JSON Schema (2020-12) of a configuration file.
pub fn schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value();
    describe(&mut schema, "", &comments(&known_keys()));
    schema["title"] = "lookoutd.toml".into();
    schema
}

/// Puts the reference's comments where the types' own are.
fn describe(node: &mut Value, path: &str, comments: &HashMap<String, String>) {
    if let Some(comment) = comments.get(path) {
        node["description"] = comment.as_str().into();
    }
    let members = node.get_mut("properties").and_then(Value::as_object_mut);
    for (name, member) in members.into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        describe(member, &path, comments);
    }
}

/// The comment above each key of the reference, on one line.
fn comments(known: &[String]) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let (mut section, mut comment) = (String::new(), Vec::new());
    for line in REFERENCE.lines() {
        let key = |line: &str| {
            let (name, _) = line.split_once('=')?;
            let key = format!("{section}{}", name.trim());
            known.contains(&key).then_some(key)
        };
        let bare = line.trim_start_matches("# ");
        if let Some(key) = key(bare) {
            found.insert(key, std::mem::take(&mut comment).join(" "));
        } else if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_matches(['[', ']']));
            comment.clear();
        } else if line.starts_with('#') {
            comment.push(bare.trim_start_matches('#').trim());
        } else {
            comment.clear();
        }
    }
    found
}

fn kind(node: &Value) -> String {
    match &node["type"] {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => {
            let kinds = kinds.iter().filter_map(Value::as_str);
            kinds
                .filter(|kind| *kind != "null")
                .collect::<Vec<_>>()
                .join(" or ")
        }
        // A choice whose values are described one by one has its type beside each.
        _ => match node["oneOf"].get(0) {
            Some(first) => kind(first),
            None => "any".to_owned(),
        },
    }
}

fn allowed(node: &Value) -> Vec<Allowed> {
    let bare = |value: &Value| Allowed {
        value: value.clone(),
        meaning: String::new(),
    };
    let listed = node["enum"].as_array().into_iter().flatten().map(bare);
    let choices = node["oneOf"].as_array().into_iter().flatten();
    let described = choices.flat_map(|choice| match choice.get("const") {
        Some(value) => vec![Allowed {
            value: value.clone(),
            meaning: text(choice, "description").replace('\n', " "),
        }],
        None => allowed(choice),
    });
    listed.chain(described).collect()
}

fn text(node: &Value, name: &str) -> String {
    let members: Option<&Map<String, Value>> = node.as_object();
    let text = members.and_then(|members| members.get(name)?.as_str());
    text.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn set(key: &str, value: &str) -> bool {
        load(None, &[], &[(key.to_owned(), value.to_owned())])
            .is_err_and(|error| error.findings.iter().any(|finding| finding.key == key))
    }

    #[test]
    fn every_key_has_a_comment_a_type_and_its_default() {
        let keys = keys();
        assert_eq!(keys.len(), known_keys().len());
        for key in &keys {
            assert!(key.comment.len() > 10, "{key:?}");
            assert!(key.comment.ends_with(['.', ')', '"']), "{key:?}");
            assert_ne!(key.kind, "any", "{key:?}");
        }
        let cadence = keys.iter().find(|key| key.key == "feed.cadence").unwrap();
        assert_eq!(cadence.default, "PT5M");
        assert_eq!(cadence.allowed.len(), 5);
        let publish = keys.iter().find(|key| key.key == "feed.publish").unwrap();
        assert!(publish.allowed[1].meaning.contains("ended"), "{publish:?}");
        let style = keys.iter().find(|key| key.key == "s3.path_style").unwrap();
        assert_eq!(
            (style.kind.as_str(), &style.default),
            ("boolean", &Value::Null)
        );
    }

    #[test]
    fn the_allowed_values_are_those_the_loader_takes() {
        let mut lists = 0;
        for key in keys() {
            for allowed in &key.allowed {
                let value = allowed.value.as_str().unwrap();
                let refused = load(None, &[], &[(key.key.clone(), value.to_owned())]);
                let refused = refused.err().map(|error| error.to_string());
                // A value may need another key; it is never of the wrong form.
                for form in ["expected", "not a", "unknown", "use "] {
                    assert!(
                        !refused.as_deref().unwrap_or_default().contains(form),
                        "{refused:?}"
                    );
                }
            }
            if !key.allowed.is_empty() {
                lists += 1;
                assert!(set(&key.key, "no such value"), "{} takes anything", key.key);
            }
        }
        assert!(lists >= 8, "{lists} keys with listed values");
    }

    #[test]
    fn the_schema_knows_every_key_and_refuses_others() {
        fn closed(node: &Value, path: &str) {
            let Some(members) = node["properties"].as_object() else {
                return;
            };
            assert_eq!(node["additionalProperties"], false, "{path}");
            for (name, member) in members {
                closed(member, &format!("{path}.{name}"));
            }
        }
        let schema = schema();
        closed(&schema, "");
        for key in known_keys() {
            let path = format!("/properties/{}", key.replace('.', "/properties/"));
            assert!(schema.pointer(&path).is_some(), "{key}");
        }
    }
}
