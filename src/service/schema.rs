//! The data schema of datasets and models: components, their time column and their sensors (contract 6).
//!
//! Guarantees: a schema that parses has components and sensors with legal, unique names, one DATETIME column per component
//! and DOUBLE columns otherwise, within the quotas. Orders are kept: they are the order of a model's sensors.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::faults::Fault;

/// Components and columns per dataset (contract 4.4).
pub const MOST: usize = 3_000;

/// What the time column is called where nobody named it.
pub const TIME: &str = "Timestamp";

/// A parsed schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The components in order.
    pub components: Vec<SchemaComponent>,
}

/// One component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaComponent {
    /// Its name.
    pub name: String,
    /// The name of its time column.
    pub time: String,
    /// Its sensors, in order.
    pub sensors: Vec<String>,
}

impl Schema {
    /// Reads an `InlineDataSchema`.
    pub fn parse(text: &str) -> Result<Schema, Fault> {
        Schema::read(text)
            .map_err(|problem| Fault::validation(format!("InlineDataSchema is invalid: {problem}")))
    }

    /// Reads a schema string; an error says what is wrong with it, and nothing of where it came from.
    pub fn read(text: &str) -> Result<Schema, String> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let listed = value["Components"]
            .as_array()
            .filter(|components| !components.is_empty());
        let listed =
            listed.ok_or("expected {\"Components\": [...]} with at least one component")?;
        let mut components = Vec::with_capacity(listed.len());
        let (mut names, mut columns) = (HashSet::new(), 0);
        for component in listed {
            let name = component["ComponentName"].as_str().unwrap_or_default();
            if !legal(name, b"._-") {
                return Err(format!(
                    "ComponentName '{name}' must be 1 to 200 of 0-9 a-z A-Z . _ -"
                ));
            }
            if !names.insert(name) {
                return Err(format!("component '{name}' appears twice"));
            }
            let mut sensors: Vec<String> = Vec::new();
            let mut known = HashSet::new();
            let (mut times, mut time) = (0, "");
            for column in component["Columns"].as_array().into_iter().flatten() {
                let sensor = column["Name"].as_str().unwrap_or_default();
                match column["Type"].as_str() {
                    Some("DATETIME") => (times, time) = (times + 1, sensor),
                    Some("DOUBLE") if !legal(sensor, b":#$._-") => {
                        return Err(format!(
                            "column '{sensor}' of component '{name}' must be 1 to 200 of 0-9 a-z A-Z : # $ . _ -"
                        ));
                    }
                    Some("DOUBLE") if !known.insert(sensor) => {
                        return Err(format!(
                            "column '{sensor}' of component '{name}' appears twice"
                        ));
                    }
                    Some("DOUBLE") => sensors.push(sensor.to_owned()),
                    other => {
                        return Err(format!(
                            "column '{sensor}' of component '{name}' has the Type {}, expected DATETIME or DOUBLE",
                            other.unwrap_or("(none)")
                        ));
                    }
                }
            }
            if times != 1 || sensors.is_empty() {
                return Err(format!(
                    "component '{name}' has {times} DATETIME and {} DOUBLE columns, expected one and at least one",
                    sensors.len()
                ));
            }
            columns += sensors.len();
            components.push(SchemaComponent {
                name: name.to_owned(),
                time: if time.is_empty() { TIME } else { time }.to_owned(),
                sensors,
            });
        }
        if components.len() > MOST || columns > MOST {
            return Err(format!(
                "{} components and {columns} columns, at most {MOST} each",
                components.len()
            ));
        }
        Ok(Schema { components })
    }

    /// The schema string: the time column first, then the sensors. Never `true`, `false` or `null`, since clients
    /// run Python's `eval` on it.
    pub fn to_text(&self) -> String {
        let column = |name: &str, kind: &str| json!({"Name": name, "Type": kind});
        let components: Vec<Value> = self
            .components
            .iter()
            .map(|component| {
                let sensors = component
                    .sensors
                    .iter()
                    .map(|sensor| column(sensor, "DOUBLE"));
                let columns: Vec<Value> = std::iter::once(column(&component.time, "DATETIME"))
                    .chain(sensors)
                    .collect();
                json!({"ComponentName": component.name, "Columns": columns})
            })
            .collect();
        json!({"Components": components}).to_string()
    }

    /// The number of sensors.
    pub fn sensor_count(&self) -> usize {
        let sensors = self.components.iter();
        sensors.map(|component| component.sensors.len()).sum()
    }

    /// The first of `self`'s components or sensors that `whole` lacks, as `component` or `component\sensor`.
    pub fn missing_from(&self, whole: &Schema) -> Option<String> {
        for component in &self.components {
            let Some(known) = whole
                .components
                .iter()
                .find(|known| known.name == component.name)
            else {
                return Some(component.name.clone());
            };
            let absent = component
                .sensors
                .iter()
                .find(|sensor| !known.sensors.contains(sensor));
            if let Some(sensor) = absent {
                return Some(format!("{}\\{sensor}", component.name));
            }
        }
        None
    }
}

/// Whether a name is 1 to 200 letters, digits and `more`.
pub fn legal(name: &str, more: &[u8]) -> bool {
    (1..=200).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_survives_writing_and_reading() {
        let component = |name: &str, sensors: &[&str]| SchemaComponent {
            name: name.into(),
            time: format!("time of {name}"),
            sensors: sensors.iter().map(|sensor| (*sensor).into()).collect(),
        };
        let schema = Schema {
            components: vec![component("b", &["z", "a"]), component("a", &["x"])],
        };
        assert_eq!(Schema::parse(&schema.to_text()), Ok(schema.clone()));
        let part = Schema {
            components: vec![component("b", &["a", "q"])],
        };
        assert_eq!(part.missing_from(&schema).as_deref(), Some("b\\q"));
        assert_eq!(schema.missing_from(&schema), None);
    }

    #[test]
    fn what_is_wrong_with_a_schema_is_named() {
        let refuse = |text: &str| Schema::parse(text).unwrap_err().message;
        assert!(refuse("{").contains("not JSON"));
        assert!(refuse("{}").contains("at least one component"));
        let component = |columns: &str| {
            format!(r#"{{"Components":[{{"ComponentName":"c","Columns":[{columns}]}}]}}"#)
        };
        let time = r#"{"Name":"t","Type":"DATETIME"}"#;
        assert!(refuse(&component(time)).contains("expected one and at least one"));
        assert!(refuse(&component(r#"{"Name":"a b","Type":"DOUBLE"}"#)).contains("'a b'"));
        assert!(refuse(&component(r#"{"Name":"a","Type":"STRING"}"#)).contains("STRING"));
        let twice =
            format!(r#"{time},{{"Name":"a","Type":"DOUBLE"}},{{"Name":"a","Type":"DOUBLE"}}"#);
        assert!(refuse(&component(&twice)).contains("appears twice"));
    }

    #[test]
    fn the_recorded_expander_schema_parses_and_keeps_its_order() {
        let text = include_str!("../../tests/data/contract/expander_dataset_schema.json");
        let schema = Schema::parse(text).unwrap();
        assert_eq!(schema.components.len(), 24);
        assert_eq!(schema.components[0].name, "subsystem-05");
        assert_eq!(
            schema
                .components
                .iter()
                .map(|component| component.sensors.len())
                .sum::<usize>(),
            122
        );
    }
}
