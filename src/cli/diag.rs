//! `lookoutd diag`: a support bundle, one file to send to whoever helps.
//!
//! Guarantees: it holds no secret, because nothing is put in that is one, and what is put in is searched for those that
//! this machine has ([`scrub`]); it changes nothing in the data directory and works beside a running daemon; what cannot be
//! had is a part that says why, so that a damaged or unreadable data directory still gives a bundle.

mod ask;
mod bundle;
mod machine;
mod scrub;
mod state;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::output::{self, Output};
use super::{ConfigArgs, runtime};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Finding, Loaded, may_be_quoted};
use crate::ops::lock;
use bundle::{Bundle, Found};
use scrub::Scrub;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd diag                                    of the installed service, into this directory
  lookoutd diag --config lookoutd.toml --out /tmp/gateway-7.tar.gz
  lookoutd diag --out - > gateway-7.tar.gz         for containers and ssh

Run it as root or as the service's user. Secrets are left out; names of schedulers, components, buckets and places are not.
Exit codes: 0 written, whatever is wrong with what it tells of; 1 cannot be written.")]
pub struct DiagArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The file, which must not be there yet, or - for standard output; otherwise a name with host and time
    #[arg(long, value_name = "FILE.tar.gz")]
    out: Option<PathBuf>,
    /// The systemd unit whose state and journal are asked for
    #[arg(long, default_value = "lookoutd")]
    unit: String,
    /// A log file instead of the unit's journal
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Lines of the log, from its end
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    log_lines: usize,
    /// Does not ask the store for its time
    #[arg(long)]
    offline: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// The data directory of a unit whose configuration cannot be read.
const USUAL: &str = "/var/lib/lookoutd";

pub fn run(args: &DiagArgs) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let host: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let stamp = now.format("%Y%m%dT%H%M%SZ");
    let directory = format!("lookoutd-diag-{host}-{stamp}");
    let (bundle, heading) = runtime()?.block_on(collect(args, now))?;
    let archive = bundle.archive(&directory, &heading, now)?;
    let file = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{directory}.tar.gz")));
    let to_stdout = file == Path::new("-");
    if to_stdout {
        let mut out = std::io::stdout().lock();
        out.write_all(&archive)
            .and_then(|()| out.flush())
            .context("writing to standard output")?;
    } else {
        bundle::write_new(&file, &archive)?;
    }
    let parts = bundle.parts();
    if args.output == Output::Json && !to_stdout {
        output::json(
            &json!({"file": file.display().to_string(), "bytes": archive.len(), "parts": parts}),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut said = format!(
        "{} ({}) holds:\n",
        file.display(),
        output::bytes(archive.len() as u64)
    );
    for part in &parts {
        said += &format!("  {}\n", bundle::line(part));
    }
    said += "No secret is in it. Names of schedulers, components, buckets and places are: look before you send it.\n";
    if to_stdout {
        complain!("{}", said.trim_end());
    } else {
        say_part!("{said}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn collect(
    args: &DiagArgs,
    now: chrono::DateTime<chrono::Utc>,
) -> anyhow::Result<(Bundle, String)> {
    let inspected = args.config.inspect();
    let config = inspected
        .as_ref()
        .map(|(loaded, _)| loaded.config.clone())
        .unwrap_or_default();
    let data_dir = data_dir(args, &config, inspected.is_ok());
    let holder = lock::holder(&data_dir);
    let mut bundle = Bundle::new(scrub(args, &config, &data_dir, holder)?);

    let metrics = ask::admin(&config, "/metrics").await;
    let ready = ask::admin(&config, "/readyz").await;
    let by_daemon = metrics
        .as_ref()
        .ok()
        .and_then(|text| ask::gauge(text, "lookoutd_clock_offset_seconds"));
    let by_store = match args.offline {
        true => Err("not asked: --offline".to_owned()),
        false => ask::store_offset(&config).await,
    };

    bundle.add("version.json", machine::version(holder));
    bundle.add("configuration.toml", configuration(&inspected));
    bundle.add("health.json", ask::part(&ready, ask::verdict));
    bundle.add(
        "metrics.txt",
        ask::part(&metrics, |text| format!("{} lines", text.lines().count())),
    );
    bundle.add("unit.txt", machine::unit(&args.unit).await);
    bundle.add(
        "log.txt",
        machine::log(args.log.as_deref(), &args.unit, args.log_lines).await,
    );
    bundle.add("clock.json", machine::clock(now, by_daemon, by_store).await);
    bundle.add("ledger.json", state::ledger(&data_dir));
    bundle.add("spool.json", state::spool(&data_dir));
    bundle.add("archive.json", state::archive(&data_dir));
    bundle.add("service.json", state::service(&data_dir));
    bundle.add("notifications.json", state::notifications(&data_dir));
    bundle.add(
        "files.json",
        state::files(&data_dir, &places(args, &config)),
    );
    bundle.add("machine.json", machine::machine(&config, &data_dir, holder));

    let runs = match holder {
        Some(id) => format!("process {id} runs on {}", data_dir.display()),
        None => format!(
            "no daemon runs on {}, as far as {} can see",
            data_dir.display(),
            state::reader()
        ),
    };
    let heading = format!(
        "lookoutd {} support bundle of {}: {runs}.",
        env!("CARGO_PKG_VERSION"),
        output::utc(now)
    );
    Ok((bundle, heading))
}

/// The data directory; where the configuration cannot be read, the one that the unit has.
fn data_dir(args: &DiagArgs, config: &Config, is_read: bool) -> PathBuf {
    match &args.config.data_dir {
        Some(directory) => directory.clone(),
        None if !is_read && Path::new(USUAL).exists() => USUAL.into(),
        None => config.data_dir(),
    }
}

/// Files that lookoutd reads beside the data directory, by the key that names them.
fn places(args: &DiagArgs, config: &Config) -> Vec<(&'static str, PathBuf)> {
    let named = [
        (
            "config",
            args.config.file().unwrap_or_default().display().to_string(),
        ),
        (
            config.source.location_key(),
            config.source.location().to_owned(),
        ),
        ("source.tags", config.source.tags.clone()),
        ("s3.credentials_file", config.s3.credentials_file.clone()),
        ("admin.token_file", config.admin.token_file.clone()),
        ("admin.tls_cert", config.admin.tls_cert.clone()),
        ("admin.tls_key", config.admin.tls_key.clone()),
        ("notify.secret_file", config.notify.secret_file.clone()),
        (
            "notify.command",
            config.notify.command.first().cloned().unwrap_or_default(),
        ),
    ];
    let places = named.into_iter().filter(|(_, path)| !path.contains("://"));
    places
        .map(|(key, path)| (key, PathBuf::from(path)))
        .collect()
}

/// Every secret that can be found from here, so that none is told by a log or an error that quotes it.
fn scrub(
    args: &DiagArgs,
    config: &Config,
    data_dir: &Path,
    holder: Option<u32>,
) -> anyhow::Result<Scrub> {
    let mut scrub = Scrub::new()?;
    scrub.know_value("", &serde_json::to_value(config)?);
    let own: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let daemon = holder.and_then(machine::environment).unwrap_or_default();
    let mut files: Vec<PathBuf> = vec![
        data_dir.join("credentials"),
        "/etc/lookoutd/aws-credentials".into(),
        "/etc/lookoutd/notify-secret".into(),
        "/etc/lookoutd/admin-token".into(),
    ];
    for variables in [&own, &daemon] {
        scrub.know_environment(
            variables
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        for (name, value) in variables {
            match name.as_str() {
                "AWS_SHARED_CREDENTIALS_FILE"
                | "AWS_CONFIG_FILE"
                | "AWS_WEB_IDENTITY_TOKEN_FILE"
                | "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" => files.push(value.into()),
                "HOME" => files.extend(
                    [".aws/credentials", ".aws/config"].map(|file| Path::new(value).join(file)),
                ),
                "CREDENTIALS_DIRECTORY" => {
                    files.extend(
                        ["aws-credentials", "notify-secret"]
                            .map(|file| Path::new(value).join(file)),
                    );
                }
                _ => {}
            }
        }
    }
    let secret = [
        "s3.credentials_file",
        "admin.token_file",
        "admin.tls_key",
        "notify.secret_file",
    ];
    files.extend(
        places(args, config)
            .into_iter()
            .filter(|(key, _)| secret.contains(key))
            .map(|(_, path)| path),
    );
    for file in files {
        scrub.know_file(&file);
    }
    for (key, value) in &args.config.set {
        scrub.know_value(key, &Value::from(value.as_str()));
    }
    Ok(scrub)
}

/// What is in force, redacted, with its origins; and what is wrong with it.
fn configuration(inspected: &Result<(Loaded, Vec<Finding>), ConfigError>) -> Found {
    match inspected {
        Ok((loaded, findings)) => {
            let lines: String = findings
                .iter()
                .map(|finding| format!("# PROBLEM {}\n", tell(finding)))
                .collect();
            let set = loaded.origins.len();
            let holds = match findings.len() {
                0 => format!("{set} keys set, no finding"),
                n => format!("{set} keys set, {n} findings"),
            };
            Found::whole(
                holds,
                lines + &super::config::as_toml(&loaded.settings(), true),
            )
        }
        Err(error) => {
            let lines: Vec<String> = error.findings.iter().map(tell).collect();
            Found::missing(format!("cannot be read: {}", lines.join("\n")))
        }
    }
}

/// A finding without what it quotes: the line of a file that is not TOML, or a value that may hide a secret.
fn tell(finding: &Finding) -> String {
    let problem: Vec<&str> = finding
        .problem
        .lines()
        .filter(|line| !line.contains(" |"))
        .collect();
    let quotes = finding.problem.contains(['"', '`']);
    match quotes && !may_be_quoted(&finding.key) {
        false => format!("{}: {} {}", finding.origin, finding.key, problem.join(" ")),
        true => format!(
            "{}: {} has a value that does not fit",
            finding.origin, finding.key
        ),
    }
}
