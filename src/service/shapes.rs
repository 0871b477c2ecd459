//! Request validation: the declared shape of every operation's input, checked against a JSON body.
//!
//! Guarantees: a body that passes has every required member, only known members, and values within the constraints of
//! the service model; all violations are reported in one message, in the wording of AWS. Unknown members are dropped
//! (contract 1.1). Wrong JSON types are a `SerializationException`. Rules that need state or two members together
//! are the operations' own.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::faults::Fault;

#[cfg(any(test, debug_assertions))]
#[rustfmt::skip]
mod outputs;
#[rustfmt::skip]
mod table;

#[cfg(any(test, debug_assertions))]
pub use outputs::OUTPUTS;
pub use table::INPUTS;

/// One member of a structure.
#[derive(Debug)]
pub struct Member {
    /// Name on the wire.
    pub name: &'static str,
    /// Whether a request without it is refused.
    pub required: bool,
    /// Its type and constraints.
    pub kind: &'static Kind,
}

/// The type of a member and its constraints.
#[derive(Debug)]
pub enum Kind {
    /// A string: length in characters, and a pattern that the whole string must match (empty: none).
    Text {
        /// Least length.
        min: usize,
        /// Greatest length.
        max: usize,
        /// Regular expression as the service model writes it.
        pattern: &'static str,
    },
    /// A string out of a set.
    Enum(&'static [&'static str]),
    /// A whole number.
    Integer {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// Epoch seconds as a JSON number, fraction and exponent allowed.
    Time,
    /// A number; in answers.
    Float,
    /// In answers.
    Boolean,
    /// A list.
    List {
        /// What it holds.
        of: &'static Kind,
        /// Least length.
        min: usize,
        /// Greatest length.
        max: usize,
    },
    /// A nested structure.
    Structure(&'static [Member]),
}

const fn must(name: &'static str, kind: &'static Kind) -> Member {
    Member {
        name,
        required: true,
        kind,
    }
}

const fn may(name: &'static str, kind: &'static Kind) -> Member {
    Member {
        name,
        required: false,
        kind,
    }
}

/// The members of `operation`'s input; `None` for a name the API does not have.
pub fn input_of(operation: &str) -> Option<&'static [Member]> {
    INPUTS
        .iter()
        .find(|(name, _)| *name == operation)
        .map(|(_, members)| *members)
}

/// Checks `body` against `members` and returns it with the known members only.
pub fn validate(members: &'static [Member], body: &Value) -> Result<Map<String, Value>, Fault> {
    let Value::Object(object) = body else {
        return Err(Fault::serialization(
            "The request body must be a JSON object",
        ));
    };
    let mut violations = Vec::new();
    let clean = structure(members, object, "", &mut violations)?;
    match violations.len() {
        0 => Ok(clean),
        1 => Err(Fault::validation(format!(
            "1 validation error detected: {}",
            violations[0]
        ))),
        n => Err(Fault::validation(format!(
            "{n} validation errors detected: {}",
            violations.join("; ")
        ))),
    }
}

/// What the service model does not allow in an answer of `operation`; `answer` as the operation gives it, with nulls for
/// what is absent.
#[cfg(any(test, debug_assertions))]
pub fn misfit(operation: &str, answer: &Value) -> Option<String> {
    let members = OUTPUTS.iter().find(|(name, _)| *name == operation);
    let (_, members) = members?;
    let Value::Object(object) = answer else {
        let fits = answer.is_null() && members.is_empty();
        return (!fits).then(|| format!("{operation} has a body, found {answer}"));
    };
    let mut violations = Vec::new();
    match structure(members, object, "", &mut violations) {
        Err(fault) => return Some(format!("{operation}: {fault}")),
        Ok(clean) => violations.extend(unknown(answer, &Value::Object(clean), "")),
    }
    (!violations.is_empty()).then(|| format!("{operation}: {}", violations.join("; ")))
}

/// Where `answer` has members that `clean` has not.
#[cfg(any(test, debug_assertions))]
fn unknown(answer: &Value, clean: &Value, path: &str) -> Vec<String> {
    match (answer, clean) {
        (Value::Object(answer), Value::Object(clean)) => {
            let given = answer.iter().filter(|(_, value)| !value.is_null());
            given
                .flat_map(|(name, value)| match clean.get(name) {
                    None => vec![format!("'{}' is no member", join(path, name))],
                    Some(clean) => unknown(value, clean, &join(path, name)),
                })
                .collect()
        }
        (Value::Array(answer), Value::Array(clean)) => {
            let pairs = answer.iter().zip(clean);
            pairs
                .flat_map(|(answer, clean)| unknown(answer, clean, path))
                .collect()
        }
        _ => Vec::new(),
    }
}

fn structure(
    members: &'static [Member],
    object: &Map<String, Value>,
    path: &str,
    violations: &mut Vec<String>,
) -> Result<Map<String, Value>, Fault> {
    let mut clean = Map::new();
    for member in members {
        let path = join(path, &lower_first(member.name));
        match object.get(member.name) {
            None | Some(Value::Null) => {
                if member.required {
                    violations.push(violation("null", &path, "Member must not be null"));
                }
            }
            Some(value) => {
                clean.insert(
                    member.name.to_owned(),
                    check(member.kind, value, &path, violations)?,
                );
            }
        }
    }
    Ok(clean)
}

fn check(
    kind: &'static Kind,
    value: &Value,
    path: &str,
    violations: &mut Vec<String>,
) -> Result<Value, Fault> {
    match (kind, value) {
        (Kind::Text { min, max, pattern }, Value::String(text)) => {
            let shown = format!("'{}'", shorten(text));
            let length = text.chars().count();
            if length < *min {
                violations.push(violation(&shown, path, &at_least("length", *min)));
            }
            if length > *max {
                violations.push(violation(&shown, path, &at_most("length", *max)));
            } else if !pattern.is_empty() && !matches_whole(pattern, text) {
                let rule = format!("Member must satisfy regular expression pattern: {pattern}");
                violations.push(violation(&shown, path, &rule));
            }
        }
        (Kind::Enum(allowed), Value::String(text)) => {
            if !allowed.contains(&text.as_str()) {
                let rule = format!(
                    "Member must satisfy enum value set: [{}]",
                    allowed.join(", ")
                );
                violations.push(violation(&format!("'{}'", shorten(text)), path, &rule));
            }
        }
        (Kind::Integer { min, max }, Value::Number(_)) => {
            let Some(number) = whole(value) else {
                return Err(wrong_type(path, "a whole number", value));
            };
            let shown = format!("'{number}'");
            if number < *min {
                violations.push(violation(&shown, path, &at_least("value", min)));
            }
            if number > *max {
                violations.push(violation(&shown, path, &at_most("value", max)));
            }
            return Ok(Value::from(number));
        }
        (Kind::Time, Value::Number(number)) => {
            // Beyond the year 9999 or before year 1 nothing downstream can print the instant.
            let seconds = number.as_f64().unwrap_or(f64::NAN);
            if !(-62_135_596_800.0..253_402_300_800.0).contains(&seconds) {
                return Err(Fault::serialization(format!(
                    "'{path}' is no instant between the years 1 and 9999"
                )));
            }
        }
        (Kind::Float, Value::Number(_)) | (Kind::Boolean, Value::Bool(_)) => {}
        (Kind::List { of, min, max }, Value::Array(items)) => {
            if items.len() < *min {
                violations.push(violation(
                    &shorten(&value.to_string()),
                    path,
                    &at_least("length", *min),
                ));
            }
            if items.len() > *max {
                violations.push(violation(
                    &shorten(&value.to_string()),
                    path,
                    &at_most("length", *max),
                ));
            }
            let mut clean = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                clean.push(check(
                    of,
                    item,
                    &format!("{path}.{}.member", index + 1),
                    violations,
                )?);
            }
            return Ok(Value::Array(clean));
        }
        (Kind::Structure(members), Value::Object(object)) => {
            return Ok(Value::Object(structure(members, object, path, violations)?));
        }
        (Kind::Text { .. } | Kind::Enum(_), _) => return Err(wrong_type(path, "a string", value)),
        (Kind::Integer { .. }, _) => return Err(wrong_type(path, "a whole number", value)),
        (Kind::Time, _) => return Err(wrong_type(path, "a number of epoch seconds", value)),
        (Kind::Float, _) => return Err(wrong_type(path, "a number", value)),
        (Kind::Boolean, _) => return Err(wrong_type(path, "a boolean", value)),
        (Kind::List { .. }, _) => return Err(wrong_type(path, "a list", value)),
        (Kind::Structure(_), _) => return Err(wrong_type(path, "an object", value)),
    }
    Ok(value.clone())
}

/// A number without a fraction, whichever way JSON spelled it.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    })
}

fn wrong_type(path: &str, expected: &str, found: &Value) -> Fault {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Fault::serialization(format!("'{path}' must be {expected}, found {found}"))
}

fn violation(value: &str, path: &str, rule: &str) -> String {
    format!("Value {value} at '{path}' failed to satisfy constraint: {rule}")
}

fn at_least(what: &str, bound: impl std::fmt::Display) -> String {
    format!("Member must have {what} greater than or equal to {bound}")
}

fn at_most(what: &str, bound: impl std::fmt::Display) -> String {
    format!("Member must have {what} less than or equal to {bound}")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// AWS names members in messages with a lower-case first letter.
fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 256 {
        return text.to_owned();
    }
    text.chars().take(256).chain("...".chars()).collect()
}

// === patterns ===

/// The model's patterns are Java's and are matched against the whole value. Three constructs that `regex-lite` lacks
/// are rewritten: any-character classes by Unicode property, `\p{ASCII}`, and the one negative lookahead.
fn matches_whole(pattern: &'static str, text: &str) -> bool {
    if pattern.contains("(?!aws:)") && text.starts_with("aws:") {
        return false;
    }
    PATTERNS
        .get(pattern)
        .is_some_and(|regex| regex.is_match(text))
}

static PATTERNS: LazyLock<HashMap<&'static str, Regex>> = LazyLock::new(|| {
    let mut patterns = HashMap::new();
    #[cfg(any(test, debug_assertions))]
    for (_, members) in &OUTPUTS {
        members
            .iter()
            .for_each(|member| compile(member.kind, &mut patterns));
    }
    for (_, members) in &INPUTS {
        members
            .iter()
            .for_each(|member| compile(member.kind, &mut patterns));
    }
    patterns
});

fn compile(kind: &'static Kind, patterns: &mut HashMap<&'static str, Regex>) {
    match kind {
        Kind::Text { pattern, .. } if !pattern.is_empty() && !patterns.contains_key(pattern) => {
            let rewritten = pattern
                .replace(r"[\P{M}\p{M}]", "(?s:.)")
                .replace(r"\p{ASCII}", r"[\x00-\x7F]")
                .replace(r"\u00", r"\x")
                .replace("(?!aws:)", "");
            match RegexBuilder::new(&format!("^(?:{rewritten})$"))
                .size_limit(64 << 20)
                .build()
            {
                Ok(regex) => {
                    patterns.insert(pattern, regex);
                }
                Err(error) => {
                    tracing::error!(%pattern, %error, "pattern of the service model does not compile")
                }
            }
        }
        Kind::List { of, .. } => compile(of, patterns),
        Kind::Structure(members) => members
            .iter()
            .for_each(|member| compile(member.kind, patterns)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn refuse(operation: &str, body: Value) -> Fault {
        validate(input_of(operation).unwrap(), &body).unwrap_err()
    }

    fn every_pattern(kind: &'static Kind, found: &mut Vec<&'static str>) {
        match kind {
            Kind::Text { pattern, .. } if !pattern.is_empty() => found.push(pattern),
            Kind::List { of, .. } => every_pattern(of, found),
            Kind::Structure(members) => members
                .iter()
                .for_each(|member| every_pattern(member.kind, found)),
            _ => {}
        }
    }

    #[test]
    fn every_pattern_of_the_model_compiles() {
        let mut found = Vec::new();
        for (_, members) in INPUTS.iter().chain(&OUTPUTS) {
            members
                .iter()
                .for_each(|member| every_pattern(member.kind, &mut found));
        }
        assert!(found.len() > 100);
        for pattern in found {
            assert!(PATTERNS.contains_key(pattern), "{pattern}");
        }
    }

    #[test]
    fn several_violations_come_in_one_message_in_the_wording_of_aws() {
        let fault = refuse(
            "UpdateInferenceScheduler",
            json!({
                "InferenceSchedulerName": "a b",
                "DataDelayOffsetInMinutes": 61,
                "DataUploadFrequency": "PT7M",
                "DataOutputConfiguration": {"S3OutputConfiguration": {"Prefix": "no-slash"}},
            }),
        );
        assert_eq!(fault.code, "ValidationException");
        assert_eq!(
            fault.message,
            "5 validation errors detected: \
             Value 'a b' at 'inferenceSchedulerName' failed to satisfy constraint: Member must satisfy regular \
             expression pattern: ^[0-9a-zA-Z_-]{1,200}$; \
             Value '61' at 'dataDelayOffsetInMinutes' failed to satisfy constraint: Member must have value less than \
             or equal to 60; \
             Value 'PT7M' at 'dataUploadFrequency' failed to satisfy constraint: Member must satisfy enum value set: \
             [PT5M, PT10M, PT15M, PT30M, PT1H]; \
             Value null at 'dataOutputConfiguration.s3OutputConfiguration.bucket' failed to satisfy constraint: \
             Member must not be null; \
             Value 'no-slash' at 'dataOutputConfiguration.s3OutputConfiguration.prefix' failed to satisfy constraint: \
             Member must satisfy regular expression pattern: (^$)|([\\u0009\\u000A\\u000D\\u0020-\\u00FF]{1,1023}/$)"
        );
    }

    #[test]
    fn patterns_bind_the_whole_value_and_reserved_tag_keys_are_refused() {
        let tags = |key: &str| json!({"ResourceArn": "a", "Tags": [{"Key": key, "Value": ""}]});
        assert!(
            validate(
                input_of("TagResource").unwrap(),
                &tags("lookoutd:results-format")
            )
            .is_ok()
        );
        assert!(
            refuse("TagResource", tags("aws:x"))
                .message
                .contains("'tags.1.member.key'")
        );
        assert!(
            refuse("TagResource", tags("has space"))
                .message
                .contains("pattern")
        );
        let group = |name: &str| json!({"LabelGroupName": name});
        assert!(
            refuse("CreateLabelGroup", group("ok\nnot"))
                .message
                .contains("pattern")
        );
        assert!(
            refuse("CreateLabelGroup", group(&"x".repeat(201)))
                .message
                .contains("less than or equal to 200")
        );
        assert!(
            refuse("CreateLabelGroup", group(""))
                .message
                .starts_with("2 validation errors")
        );
    }

    #[test]
    fn wrong_json_types_are_serialization_faults_and_unknown_members_are_dropped() {
        let members = input_of("ListInferenceExecutions").unwrap();
        for body in [
            json!([]),
            json!({"InferenceSchedulerName": 5}),
            json!({"InferenceSchedulerName": "a", "MaxResults": "5"}),
            json!({"InferenceSchedulerName": "a", "MaxResults": 1.5}),
            json!({"InferenceSchedulerName": "a", "DataStartTimeAfter": "2021-01-01T00:00:00Z"}),
            json!({"InferenceSchedulerName": "a", "DataStartTimeAfter": 1e300}),
        ] {
            assert_eq!(
                validate(members, &body).unwrap_err().code,
                "SerializationException",
                "{body}"
            );
        }
        let clean = validate(
            members,
            &json!({"InferenceSchedulerName": "a", "MaxResults": 5.0, "DataStartTimeAfter": 1.5463008E9, "New": 1}),
        );
        assert_eq!(
            Value::Object(clean.unwrap()),
            json!({"InferenceSchedulerName": "a", "MaxResults": 5, "DataStartTimeAfter": 1546300800.0})
        );
    }

    #[test]
    fn an_answer_that_the_model_does_not_allow_is_told_with_its_place() {
        let fits = json!({"DatasetName": "d", "CreatedAt": 1.5, "Schema": null, "DataQualitySummary": null});
        assert_eq!(misfit("DescribeDataset", &fits), None);
        assert_eq!(misfit("DeleteDataset", &Value::Null), None);
        for (operation, answer, said) in [
            ("DescribeDataset", json!({"CreatedAt": "2024"}), "createdAt"),
            (
                "DescribeDataset",
                json!({"Status": "BUSY"}),
                "enum value set",
            ),
            (
                "DescribeDataset",
                json!({"Name": "d"}),
                "'Name' is no member",
            ),
            (
                "ListDatasets",
                json!({"DatasetSummaries": [{"X": 1}]}),
                "DatasetSummaries.X",
            ),
            ("TagResource", json!({"X": 1}), "'X' is no member"),
            ("DescribeDataset", Value::Null, "has a body"),
        ] {
            let found = misfit(operation, &answer).unwrap();
            assert!(found.contains(said), "{operation}: {found}");
        }
    }

    #[test]
    fn the_empty_delimiter_and_the_empty_prefix_are_legal() {
        let body = json!({
            "InferenceSchedulerName": "s",
            "DataInputConfiguration": {
                "S3InputConfiguration": {"Bucket": "bucket", "Prefix": ""},
                "InputTimeZoneOffset": "+05:30",
                "InferenceInputNameConfiguration": {"TimestampFormat": "EPOCH", "ComponentTimestampDelimiter": ""},
            },
        });
        assert!(validate(input_of("UpdateInferenceScheduler").unwrap(), &body).is_ok());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
            "[a-z0-9/_-]{0,40}".prop_map(Value::from),
        ];
        let name = prop_oneof![
            Just("S3InputConfiguration".to_owned()),
            Just("Bucket".to_owned()),
            Just("Prefix".to_owned()),
            Just("Key".to_owned()),
            ".{0,8}"
        ];
        leaf.prop_recursive(3, 24, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..6)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_body_makes_validation_panic_and_what_passes_passes_again(
            operation in 0..INPUTS.len(),
            values in prop::collection::vec(any_json(), 20),
        ) {
            let (_, members) = INPUTS[operation];
            let body: Value = members.iter().map(|member| member.name.to_owned()).zip(values).collect();
            if let Ok(clean) = validate(members, &body) {
                prop_assert_eq!(validate(members, &Value::Object(clean.clone())).unwrap(), clean);
            }
        }
    }
}
