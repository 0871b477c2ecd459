//! What takes secrets out of a text: those that this machine is known to have, and whatever has the form of one.
//!
//! Everything that goes into a bundle is made without secrets, and then comes through here, because a log or an error may
//! quote anything. It would rather take out too much: a support bundle can do without a word.

use std::collections::BTreeSet;
use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use regex_lite::{Captures, Regex};
use serde_json::Value;

use crate::config::{REDACTED, is_secret};

/// Shorter words are not looked for: they would be found everywhere.
const SHORTEST: usize = 6;
/// As much of a file as is read for secrets.
const MOST: u64 = 1 << 20;

/// Known secrets and the forms of unknown ones.
pub struct Scrub {
    known: BTreeSet<String>,
    hosts: BTreeSet<String>,
    forms: Vec<(Regex, &'static str)>,
    named: Regex,
}

impl Scrub {
    /// One that knows the forms only.
    pub fn new() -> anyhow::Result<Self> {
        let forms = [
            // A private key, also one that is cut off.
            (
                r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(-----END [A-Z ]*PRIVATE KEY-----)?",
                "[redacted]",
            ),
            // Name and password before a host.
            (
                r#"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s"'@]+@"#,
                "${1}[redacted]@",
            ),
            // What signs an address.
            (
                r#"(?i)(x-amz-(signature|credential|security-token)=)[^&\s"']+"#,
                "${1}[redacted]",
            ),
            (
                r#"(?i)((proxy-)?authorization|cookie|x-api-key)("?\s*[:=]\s*"?)[^\r\n"]+"#,
                "${1}${3}[redacted]",
            ),
            (
                r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}",
                "${1} [redacted]",
            ),
            (r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b", "[redacted]"),
            (r"\bwhsec_[A-Za-z0-9+/=_-]+", "[redacted]"),
            (
                r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+",
                "[redacted]",
            ),
        ]
        .into_iter()
        .map(|(form, instead)| Ok((Regex::new(form)?, instead)))
        .collect::<Result<_, regex_lite::Error>>()?;
        Ok(Self {
            known: BTreeSet::new(),
            hosts: BTreeSet::new(),
            forms,
            named: Regex::new(r#"([A-Za-z0-9_.-]+)(\\?"?\s*[=:]\s*\\?"?)([^\s",;&{}\[\]\\]+)"#)?,
        })
    }

    /// A word that must not be seen, in any of the ways in which it may be written.
    pub fn know(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() < SHORTEST {
            return;
        }
        let quoted = Value::from(secret).to_string();
        let quoted = quoted.trim_matches('"').to_owned();
        let encoded = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
        self.known.extend([secret.to_owned(), quoted, encoded]);
    }

    /// What a configuration's values hide: secrets, arguments of commands, and of an address all but its host.
    pub fn know_value(&mut self, key: &str, value: &Value) {
        let name = key.rsplit('.').next().unwrap_or(key);
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    self.know_value(name, value);
                }
            }
            Value::Array(items) if name.contains("command") => {
                for item in items.iter().skip(1).filter_map(Value::as_str) {
                    self.know(item);
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.know_value(name, item);
                }
            }
            Value::String(text) if is_secret(name) || name.contains("header") => self.know(text),
            Value::String(text) => self.know_address(text),
            Value::Number(number) if is_secret(name) => self.know(&number.to_string()),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// An address: its user and password, and for a web address whatever follows its host, wherever that is seen.
    pub fn know_address(&mut self, text: &str) {
        let Some((scheme, rest)) = text.split_once("://") else {
            return;
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if let Some((user, _)) = authority.rsplit_once('@') {
            self.know(user);
            for part in user.split(':') {
                self.know(part);
            }
        }
        if !scheme.to_lowercase().starts_with("http") || path.len() < 2 {
            return;
        }
        let host = authority.rsplit('@').next().unwrap_or(authority);
        self.hosts.insert(host.to_owned());
        // Parts that are no words, as they stand in a log of another program.
        for part in path.split(['/', '?', '&', '=', '#']) {
            let is_odd = part.contains(|c: char| c.is_ascii_digit()) || part.len() >= 16;
            if is_odd && part.len() >= 8 {
                self.know(part);
            }
        }
    }

    /// The variables of an environment whose name says that they are secret, and the users in the addresses of all.
    pub fn know_environment<'a>(&mut self, variables: impl Iterator<Item = (&'a str, &'a str)>) {
        for (name, value) in variables {
            let plain = name.rsplit("__").next().unwrap_or(name);
            if is_secret(plain) || is_secret(name) || name.ends_with("KEY_ID") {
                self.know(value);
            } else {
                self.know_address(value);
            }
        }
    }

    /// A file that is a secret, or holds some: a key, a token, or AWS credentials. One that cannot be read tells nothing.
    pub fn know_file(&mut self, path: &Path) {
        let small =
            std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() <= MOST);
        let Some(bytes) = small.then(|| std::fs::read(path).ok()).flatten() else {
            return;
        };
        let text = String::from_utf8_lossy(&bytes);
        let is_profile = text.lines().any(|line| line.trim_start().starts_with('['));
        if !is_profile {
            self.know(&text);
        }
        for line in text.lines().map(str::trim) {
            match line.split_once('=') {
                Some((name, value)) if is_profile => {
                    let name = name.trim().to_lowercase();
                    if name.contains("process") {
                        // A program and its arguments.
                        for word in value.split_whitespace().skip(1) {
                            self.know(word);
                        }
                    } else if is_secret(&name) || name.contains("key") {
                        self.know(value);
                    } else {
                        self.know_address(value.trim());
                    }
                }
                _ if is_profile || line.starts_with("-----") => {}
                _ => self.know(line),
            }
        }
    }

    /// The text without them.
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // The longest first: one may be a part of another.
        let mut known: Vec<&String> = self.known.iter().collect();
        known.sort_by_key(|word| std::cmp::Reverse(word.len()));
        for word in known {
            if text.contains(word.as_str()) {
                text = text.replace(word.as_str(), REDACTED);
            }
        }
        for host in &self.hosts {
            text = without_paths(&text, host);
        }
        for (form, instead) in &self.forms {
            text = form.replace_all(&text, *instead).into_owned();
        }
        let named = self.named.replace_all(&text, |found: &Captures<'_>| {
            let (name, value) = (&found[1], &found[3]);
            let harmless = ["true", "false", "null", "none", REDACTED].contains(&value);
            if is_secret(name) && !harmless {
                format!("{name}{}{REDACTED}", &found[2])
            } else {
                found[0].to_owned()
            }
        });
        named.into_owned()
    }
}

/// The text without whatever follows a host up to the end of the word.
fn without_paths(text: &str, host: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    let lead = format!("://{host}/");
    while let Some(at) = rest.find(&lead) {
        let (before, after) = rest.split_at(at + lead.len());
        out += before;
        let end = after
            .find(|c: char| c.is_whitespace() || "\"'<>)\\".contains(c))
            .unwrap_or(after.len());
        out += if end > 0 && !after[..end].starts_with('[') {
            REDACTED
        } else {
            &after[..end]
        };
        rest = &after[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_has_the_form_of_a_secret_goes_and_what_names_a_place_stays() {
        let scrub = Scrub::new().unwrap();
        for (text, clean) in [
            (
                "https://me:hunter2@proxy:3128/x",
                "https://[redacted]@proxy:3128/x",
            ),
            ("s3://id:key@bucket/k", "s3://[redacted]@bucket/k"),
            (
                "GET /b/k?X-Amz-Credential=AKIAX%2F1&X-Amz-Signature=abc HTTP/1.1",
                "GET /b/k?X-Amz-Credential=[redacted]&X-Amz-Signature=[redacted] HTTP/1.1",
            ),
            (
                "Authorization: AWS4-HMAC-SHA256 Credential=a, Signature=b",
                "Authorization: [redacted]",
            ),
            ("key AKIAIOSFODNN7EXAMPLE is", "key [redacted] is"),
            (
                "a\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----\nb",
                "a\n[redacted]\nb",
            ),
            ("-----BEGIN PRIVATE KEY-----\nMHcCAQ", "[redacted]"),
            (
                "aws_secret_access_key = wJalrXUtn/x",
                "aws_secret_access_key = [redacted]",
            ),
            (
                r#"{"token":"abc","n":1}"#,
                r#"{"token":"[redacted]","n":1}"#,
            ),
            (
                r#"{"msg":"{\"password\":\"abc\"}"}"#,
                r#"{"msg":"{\"password\":\"[redacted]\"}"}"#,
            ),
            (
                r#"token_file = "/etc/lookoutd/admin-token""#,
                r#"token_file = "/etc/lookoutd/admin-token""#,
            ),
            (
                r#""token":true,"url":"http://127.0.0.1:9181/""#,
                r#""token":true,"url":"http://127.0.0.1:9181/""#,
            ),
        ] {
            assert_eq!(scrub.clean(text), clean);
        }
    }

    #[test]
    fn what_this_machine_knows_is_taken_out_however_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let profile = directory.path().join("profile");
        std::fs::write(
            &profile,
            "[plant]\nregion = eu-west-1\naws_secret_access_key = wJalr/\"XUtn\ncredential_process = /usr/bin/get --pin 4711-0815\n",
        )
        .unwrap();
        let mut scrub = Scrub::new().unwrap();
        scrub.know_file(&profile);
        scrub.know_file(&directory.path().join("absent"));
        scrub.know_value(
            "notify",
            &json!({"webhook": "https://hooks.example.com/services/T0/B0", "command": ["/bin/page", "--pin=998877"]}),
        );
        scrub.know_environment([("DB_PASSWORD", "correct horse"), ("LANG", "C.UTF-8")].into_iter());
        for (text, clean) in [
            (r#"it was wJalr/\"XUtn."#, "it was [redacted]."),
            (r#"it was wJalr/"XUtn."#, "it was [redacted]."),
            ("wJalr%2F%22XUtn", "[redacted]"),
            (
                "get --pin 4711-0815 in eu-west-1",
                "get --pin [redacted] in eu-west-1",
            ),
            (
                "POST https://hooks.example.com/services/T0/B0: 404",
                "POST https://hooks.example.com/[redacted] 404",
            ),
            ("page --pin=998877", "page [redacted]"),
            ("correct horse C.UTF-8", "[redacted] C.UTF-8"),
        ] {
            assert_eq!(scrub.clean(text), clean);
        }
    }
}
