//! Key patterns of ingestion: which component an object under the prefix belongs to (contract 6).

use crate::service::schema::{Schema, SchemaComponent, legal};

/// How a key names its component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPattern {
    /// `{prefix}/{component_name}/*`
    Folder,
    /// `{prefix}/{component_name}<delimiter>*`
    Delimited(char),
}

/// Reads a `KeyPattern`.
pub fn key_pattern(pattern: &str) -> Result<KeyPattern, String> {
    let tail = pattern
        .strip_prefix("{prefix}/")
        .unwrap_or(pattern)
        .strip_prefix("{component_name}");
    match tail.map(|tail| tail.strip_suffix(".csv").unwrap_or(tail)) {
        Some("/*") => Ok(KeyPattern::Folder),
        Some(tail) if tail.len() == 2 && tail.ends_with('*') && " ._-".contains(&tail[..1]) => {
            Ok(KeyPattern::Delimited(tail.chars().next().unwrap_or('_')))
        }
        _ => Err(format!(
            "KeyPattern '{pattern}' is not understood: expected {{prefix}}/{{component_name}}/* or \
             {{prefix}}/{{component_name}}_* with one of space . _ - between name and star"
        )),
    }
}

/// Whether a key under `prefix` is a CSV that somebody put there: its name ends in .csv, in any case, and none of its parts
/// begins with a dot, as those of editors and synchronisers do.
pub fn is_csv(prefix: &str, key: &str) -> bool {
    let name = key.strip_prefix(prefix).unwrap_or(key);
    let dotted = name.split('/').any(|part| part.starts_with('.'));
    !dotted && key.to_ascii_lowercase().ends_with(".csv")
}

impl KeyPattern {
    /// The component that `name`, a key without its prefix, belongs to: one of `known`, or any when none is known.
    pub fn component<'a>(self, name: &'a str, known: Option<&Schema>) -> Option<&'a str> {
        let component = match (self, known) {
            (KeyPattern::Folder, _) => name.split_once('/')?.0,
            (KeyPattern::Delimited(delimiter), Some(schema)) => {
                let fits = |component: &&SchemaComponent| {
                    name.strip_prefix(component.name.as_str())
                        .is_some_and(|rest| rest.starts_with(delimiter))
                };
                let longest = schema
                    .components
                    .iter()
                    .filter(fits)
                    .max_by_key(|component| component.name.len())?;
                &name[..longest.name.len()]
            }
            (KeyPattern::Delimited(delimiter), None) => name.split_once(delimiter)?.0,
        };
        let allowed = known.is_none_or(|schema| {
            schema
                .components
                .iter()
                .any(|known| known.name == component)
        });
        (allowed && legal(component, b"._-")).then_some(component)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_patterns_of_the_contract_are_understood() {
        assert_eq!(
            key_pattern("{prefix}/{component_name}/*"),
            Ok(KeyPattern::Folder)
        );
        assert_eq!(
            key_pattern("{prefix}/{component_name}_*"),
            Ok(KeyPattern::Delimited('_'))
        );
        assert_eq!(
            key_pattern("{prefix}/{component_name} *"),
            Ok(KeyPattern::Delimited(' '))
        );
        for bad in [
            "",
            "*",
            "{prefix}/{component_name}",
            "{prefix}/{component_name}xx*",
            "{prefix}/{component_name}é*",
        ] {
            assert!(key_pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_csvs_that_no_program_hides_are_taken() {
        for key in ["p/pump/a.csv", "p/pump/A.CSV", "p/pump/v1.2/a.b.csv"] {
            assert!(is_csv("p/", key), "{key}");
        }
        for key in [
            "p/pump/a.txt",
            "p/pump/.a.csv",
            "p/pump/._a.csv",
            "p/pump/.ipynb_checkpoints/a-checkpoint.csv",
            "p/.trash/pump/a.csv",
        ] {
            assert!(!is_csv("p/", key), "{key}");
        }
        assert!(is_csv(".hidden/", ".hidden/pump/a.csv"));
    }

    #[test]
    fn a_component_that_holds_the_delimiter_is_taken_whole() {
        let component = |name: &str| SchemaComponent {
            name: name.into(),
            time: "Timestamp".into(),
            sensors: vec!["a".into()],
        };
        let schema = Schema {
            components: vec![component("pump"), component("pump_2")],
        };
        let of = |name| KeyPattern::Delimited('_').component(name, Some(&schema));
        assert_eq!(of("pump_2_2020.csv"), Some("pump_2"));
        assert_eq!(of("pump_2020.csv"), Some("pump"));
        assert_eq!(of("fan_2020.csv"), None);
        assert_eq!(
            KeyPattern::Folder.component("pump/a/b.csv", Some(&schema)),
            Some("pump")
        );
        assert_eq!(KeyPattern::Folder.component("pump.csv", None), None);
    }
}
