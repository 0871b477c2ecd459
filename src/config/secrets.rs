//! What of a configured value may be shown: nothing that could be a password, whoever adds the key.
//!
//! The rules go by the key's name and the value's form, so that a new key is covered before anybody thinks of it. Secrets
//! belong in files, whose paths are shown.

use serde_json::Value;

/// What is shown instead.
pub const REDACTED: &str = "[redacted]";

/// Parts of a name whose value is a secret, unless it ends like the name of a place.
const SECRET: [&str; 7] = [
    "secret",
    "password",
    "passphrase",
    "token",
    "credential",
    "private_key",
    "api_key",
];
const PLACES: [&str; 4] = ["_file", "_path", "_dir", "_command"];

/// Whether a name, of a key or an environment variable, says that its value is secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase().replace('-', "_");
    (SECRET.iter().any(|part| name.contains(part)) || name.ends_with("access_key"))
        && !PLACES.iter().any(|end| name.ends_with(end))
}

/// Whether a value of this name may be quoted, in an error for example, where nobody can tell which part of it is secret.
pub fn may_be_quoted(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    !is_secret(name)
        && !["header", "command", "webhook", "url"]
            .iter()
            .any(|part| name.contains(part))
}

/// The value of a key as it may be shown.
pub fn redact(key: &str, value: &Value) -> Value {
    let name = key.rsplit('.').next().unwrap_or(key);
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), redact(name, value)))
            .collect(),
        Value::Array(items) if items.is_empty() => value.clone(),
        Value::String(text) if text.is_empty() => value.clone(),
        Value::Null | Value::Bool(_) => value.clone(),
        _ if is_secret(name) || name.contains("header") => REDACTED.into(),
        Value::Array(items) if name.contains("command") => {
            // The program is the place to look; its arguments may carry a token.
            let program = items.first().map(|first| redact("", first));
            program.into_iter().chain([REDACTED.into()]).collect()
        }
        Value::Array(items) => items.iter().map(|item| redact(name, item)).collect(),
        Value::String(text) if name.contains("command") => match text.split_once(' ') {
            Some((program, _)) => format!("{program} {REDACTED}").into(),
            None => value.clone(),
        },
        // Without its scheme nobody can tell where the host ends.
        Value::String(text) if name.contains("webhook") && !text.contains("://") => REDACTED.into(),
        Value::String(text) => address(text).into(),
        Value::Number(_) => value.clone(),
    }
}

/// An address without user and password; of a web address scheme and host only: path and query of a hook are its password.
fn address(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let user = if host == authority {
        String::new()
    } else {
        format!("{REDACTED}@")
    };
    match path {
        "" | "/" => format!("{scheme}://{user}{host}{path}"),
        _ if scheme.to_lowercase().starts_with("http") => {
            format!("{scheme}://{user}{host}/{REDACTED}")
        }
        _ => format!("{scheme}://{user}{host}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_quote_no_value_that_could_hide_a_secret() {
        for key in [
            "notify.webhook",
            "s3.endpoint_url",
            "notify.command",
            "admin.token",
        ] {
            assert!(!may_be_quoted(key), "{key}");
        }
        for key in ["feed.cadence", "admin.token_file", "data_dir"] {
            assert!(may_be_quoted(key), "{key}");
        }
    }

    #[test]
    fn what_could_be_a_password_is_not_shown_and_what_names_a_place_is() {
        for (key, value, shown) in [
            ("notify.secret", json!("s3cr3t"), json!(REDACTED)),
            ("notify.secret", json!(""), json!("")),
            ("admin.token", json!(1234567), json!(REDACTED)),
            ("admin.token_file", json!("/etc/t"), json!("/etc/t")),
            ("s3.credentials_file", json!("/etc/c"), json!("/etc/c")),
            ("s3.secret_access_key", json!("k"), json!(REDACTED)),
            (
                "s3.endpoint_url",
                json!("https://u:p@host:9000"),
                json!("https://[redacted]@host:9000"),
            ),
            (
                "notify.webhook",
                json!("https://hooks.example/T0/B1/x?k=v"),
                json!("https://hooks.example/[redacted]"),
            ),
            (
                "s3.endpoint_url",
                json!("http://127.0.0.1:1/"),
                json!("http://127.0.0.1:1/"),
            ),
            ("source.parquet", json!("s3://b/k"), json!("s3://b/k")),
            (
                "source.parquet",
                json!("s3://id:key@b/k"),
                json!("s3://[redacted]@b/k"),
            ),
            (
                "notify.webhook",
                json!("hooks.example/T0/B1"),
                json!(REDACTED),
            ),
            (
                "notify.command",
                json!(["/bin/page", "--key", "x"]),
                json!(["/bin/page", REDACTED]),
            ),
            (
                "notify.command",
                json!("page -k x"),
                json!("page [redacted]"),
            ),
            (
                "notify.hooks",
                json!([{"url": "https://u@h/x", "password": "p", "headers": ["A: b"]}]),
                json!([{"url": "https://[redacted]@h/[redacted]", "password": REDACTED, "headers": REDACTED}]),
            ),
            ("feed.drain_per_minute", json!(600), json!(600)),
        ] {
            assert_eq!(redact(key, &value), shown, "{key}");
        }
    }
}
