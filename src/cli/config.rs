//! `lookoutd config`: the values in force and where each came from, what a key is for, and the JSON Schema.
//!
//! Secrets are never printed. `explain` also answers about a configuration that has findings.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::ConfigArgs;
use super::output::{self, Output};
use crate::config::{self, Finding, Key, Setting};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd config show --origin --config lookoutd.toml    every value, and which file, variable or flag set it
  lookoutd config explain feed.cadence                    what a key is for and what it can be
  lookoutd config explain s3                              the keys of a section
  lookoutd config schema > lookoutd.schema.json           for editors that complete and check TOML")]
pub struct ConfigCommandArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// The values in force; secrets are not shown
    Show(ShowArgs),
    /// What a key is for, what it can be, its default, and where it is set now
    Explain(ExplainArgs),
    /// The JSON Schema of the configuration file
    Schema(SchemaArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd config show --config /etc/lookoutd/lookoutd.toml
  lookoutd config show --origin --set feed.cadence=PT10M
  lookoutd config show --output json | jq '.[] | select(.origin != \"default\")'")]
pub struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Says beside each value where it came from: default, file and line, environment variable or flag
    #[arg(long)]
    origin: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd config explain feed.cadence
  lookoutd config explain inference --config lookoutd.toml")]
pub struct ExplainArgs {
    /// A key such as feed.cadence, or a section such as feed
    key: String,
    #[command(flatten)]
    config: ConfigArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd config schema > lookoutd.schema.json

With taplo, in the first line of lookoutd.toml:  #:schema ./lookoutd.schema.json")]
pub struct SchemaArgs {}

/// A key and its state.
#[derive(Debug, Serialize)]
struct Explained {
    #[serde(flatten)]
    key: Key,
    value: Value,
    origin: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
}

pub fn run(args: ConfigCommandArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        ConfigCommand::Show(args) => show(&args),
        ConfigCommand::Explain(args) => explain(&args),
        ConfigCommand::Schema(SchemaArgs {}) => {
            output::json(&config::schema())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let settings = args.config.load()?.settings();
    if args.output == Output::Json {
        output::json(&settings)?;
    } else {
        say_part!("{}", as_toml(&settings, args.origin));
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings in the form of a configuration file.
pub(super) fn as_toml(settings: &[Setting], origin: bool) -> String {
    let lines: Vec<_> = settings
        .iter()
        .map(|setting| {
            let (section, name) = setting.key.rsplit_once('.').unwrap_or(("", &setting.key));
            let line = match &setting.value {
                Value::Null => format!("# {name} is not set"),
                value => format!("{name} = {value}"),
            };
            (section, line, &setting.origin)
        })
        .collect();
    let width = lines.iter().map(|(_, line, _)| line.chars().count()).max();
    let width = width.unwrap_or(0).min(60);
    let (mut text, mut current) = (String::new(), "");
    for (section, line, from) in lines {
        if section != current {
            text += &format!("\n[{section}]\n");
            current = section;
        }
        text += &match origin {
            true => format!("{line:<width$}  # {from}\n"),
            false => format!("{line}\n"),
        };
    }
    text
}

fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let within = format!("{}.", args.key);
    let keys: Vec<Key> = config::keys()
        .into_iter()
        .filter(|key| key.key == args.key || key.key.starts_with(&within))
        .collect();
    if keys.is_empty() {
        let known: Vec<String> = config::keys().into_iter().map(|key| key.key).collect();
        complain!(
            "error: {} is not a known key; {}",
            args.key,
            config::suggestion(&args.key, &known)
        );
        return Ok(ExitCode::from(2));
    }
    let (loaded, findings) = args.config.inspect()?;
    let settings = loaded.settings();
    let explained: Vec<Explained> = keys
        .into_iter()
        .map(|key| {
            let setting = settings.iter().find(|setting| setting.key == key.key);
            Explained {
                value: setting.map(|it| it.value.clone()).unwrap_or_default(),
                origin: setting.map(|it| it.origin.clone()).unwrap_or_default(),
                findings: findings
                    .iter()
                    .filter(|finding| finding.key == key.key)
                    .cloned()
                    .collect(),
                key,
            }
        })
        .collect();
    if args.output == Output::Json {
        output::json(&explained)?;
    } else {
        let texts: Vec<String> = explained.iter().map(describe).collect();
        say_part!("{}", texts.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(explained: &Explained) -> String {
    let Explained {
        key,
        value,
        origin,
        findings,
    } = explained;
    let mut text = format!("{}\n  {}\n", key.key, key.comment);
    let choices = &key.allowed;
    if choices.is_empty() {
        text += &format!("  type       {}\n", key.kind);
    } else {
        let values: Vec<String> = choices.iter().map(|one| one.value.to_string()).collect();
        text += &format!("  type       {}, one of {}\n", key.kind, values.join(", "));
    }
    for one in choices.iter().filter(|one| !one.meaning.is_empty()) {
        text += &format!("             {}: {}\n", one.value, one.meaning);
    }
    let shown = |value: &Value| match value {
        Value::Null => "not set".to_owned(),
        value => value.to_string(),
    };
    text += &format!("  default    {}\n", shown(&key.default));
    text += &format!("  now        {}, from {origin}\n", shown(value));
    text += &format!(
        "  set it     {} in the file, LOOKOUTD__{}, or --set {}=VALUE\n",
        match key.key.rsplit_once('.') {
            Some((section, name)) => format!("{name} under [{section}]"),
            None => format!("{} at the top", key.key),
        },
        key.key.to_uppercase().replace('.', "__"),
        key.key
    );
    for finding in findings {
        text += &format!("  problem    {finding}\n");
    }
    text
}
