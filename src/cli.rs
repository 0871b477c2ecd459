//! The command line: parses arguments, runs one command, and maps its outcome to an exit code.
//!
//! Exit codes are a contract with scripts and the unit file: 0 success, 1 failure, 2 usage, 3 findings, 69 the store or the
//! service is unavailable, 73 the data directory cannot be used, 75 try again later, 77 refused, 78 configuration.

// First, because its macros are known from here on.
#[macro_use]
mod output;

mod asset;
mod backup;
mod check;
mod config;
mod console;
mod demo;
mod diag;
mod executions;
mod generate;
mod journal;
mod lookout;
mod model;
mod notify;
mod plan;
mod replay;
mod results;
mod run;
mod sample;
mod scheduler;
mod serve;
mod shape;
mod simulate;
mod source;
mod status;
mod store;
mod windows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Parser, Subcommand};

use crate::clock::Clock;
use crate::config::{ConfigError, Finding, Loaded};
use crate::embedded::KeyFileError;
use crate::feed::{LedgerError, RecoverError, SpoolError};
use crate::inference::{Advice, ApiError, EnsureError};
use crate::ops::lock::LockError;
use crate::ops::signals::end_with_the_reader;
use crate::ops::tls::TlsError;
use crate::s3::{Disposition, S3Error, Transport};
use crate::service::ServiceError;
use crate::service::store::StoreError;
use crate::signal::TagListError;
use crate::source::SourceError;
use crate::store::OpenError;

pub use output::Output;

const EXAMPLES: &str = "\
Examples:
  lookoutd demo                              everything on a sample plant, time running 60x
  lookoutd check --config lookoutd.toml      configuration, then every dependency live
  lookoutd run --config lookoutd.toml        the daemon
  lookoutd status                            what it is doing
  lookoutd results --top 3                   what was found

The configuration is the one named, or /etc/lookoutd/lookoutd.toml where it exists. Without one everything is embedded: the
sample plant, and S3 and the Lookout API on loopback.
Exit codes: 0 success, 1 failure, 2 usage, 3 findings, 69 unavailable, 73 data directory, 74 store damaged,
75 try again later, 77 refused, 78 configuration.";

/// Feeds live sensor data to S3 on a wall-clock cadence, and finds what is wrong with it.
#[derive(Debug, Parser)]
#[command(name = "lookoutd", version, about, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything embedded on the sample plant, with time running faster
    Demo(demo::DemoArgs),
    /// The daemon
    Run(run::RunArgs),
    /// The Lookout-compatible service alone
    Serve(serve::ServeArgs),
    /// Checks the configuration, then every dependency live: all findings at once, each with its remedy
    Check(check::CheckArgs),
    /// The next windows: when, which keys, which columns, how many rows
    Plan(plan::PlanArgs),
    /// Cuts a bounded part of a history, to a directory or to the bucket
    Replay(replay::ReplayArgs),
    /// What the daemon is doing; the first line is the verdict
    Status(status::StatusArgs),
    /// The recorded state of each window
    Windows(windows::WindowsArgs),
    /// Looks at what inputs bring: every tag live, or what there is as a tag list
    Source(source::SourceArgs),
    /// Plays a recording live into a broker, as the plant would say it
    Simulate(simulate::SimulateArgs),
    /// Trains, scores and evaluates model files from recorded history
    Model(model::ModelArgs),
    /// The inference scheduler: create, describe, update, start, stop, delete, list
    Scheduler(scheduler::SchedulerArgs),
    /// The executions of the inference scheduler
    Executions(executions::ExecutionsArgs),
    /// The archived results
    Results(results::ResultsArgs),
    /// The embedded store: verify, export, how long what is kept
    Store(store::StoreArgs),
    /// What live inputs brought: verify, export
    Journal(journal::JournalArgs),
    /// Copies the data directory, also of a running daemon, as one consistent and verified set
    Backup(backup::BackupArgs),
    /// Puts a backup into an empty data directory
    Restore(backup::RestoreArgs),
    /// The web console over a data directory that nobody works on
    Console(console::ConsoleArgs),
    /// Notifications: a test message, and what waits to be sent
    Notify(notify::NotifyArgs),
    /// Writes the sample plant: signals, tags, labels, time ranges
    Sample(sample::SampleArgs),
    /// The configuration: values in force and their origin, what a key is for, the JSON Schema
    Config(config::ConfigCommandArgs),
    /// A support bundle without secrets: one file to send to whoever helps
    Diag(diag::DiagArgs),
    /// Completions for a shell
    Completions(generate::CompletionsArgs),
    /// Man pages, for packages
    #[command(hide = true)]
    Man(generate::ManArgs),
    /// Whether the daemon of a data directory is alive and delivering, for containers
    Healthcheck(status::HealthArgs),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
struct ConfigArgs {
    /// Configuration file (TOML); otherwise /etc/lookoutd/lookoutd.toml where it exists. See config/lookoutd.toml for
    /// every key
    #[arg(short, long, value_name = "FILE", env = "LOOKOUTD_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of spool, ledger and embedded store
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Sets one key, such as --set feed.cadence=PT10M; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

/// The configuration of the installed service.
const SYSTEM_CONFIG: &str = "/etc/lookoutd/lookoutd.toml";

impl ConfigArgs {
    /// The file that was named; otherwise the installed service's, so that commands look at what runs.
    fn file(&self) -> Option<PathBuf> {
        named_or(self.config.as_deref(), Path::new(SYSTEM_CONFIG))
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        match self.inspect()? {
            (loaded, findings) if findings.is_empty() => Ok(loaded),
            (_, findings) => Err(ConfigError { findings }),
        }
    }

    /// As [`ConfigArgs::inspect`], also of a file that is no TOML: its mistake is one more finding, and of the file only the data
    /// directory is known, if it has a line of its own.
    fn inspect_all(&self) -> Result<(Loaded, Vec<Finding>), ConfigError> {
        self.inspect().or_else(|error| {
            let text = self
                .file()
                .and_then(|file| std::fs::read_to_string(file).ok());
            let text = text.ok_or_else(|| error.clone())?;
            let named = crate::config::data_dir_alone(&text);
            let mut flags = self.set.clone();
            flags.splice(0..0, named.map(|named| ("data_dir".to_owned(), named)));
            let rest = ConfigArgs {
                config: None,
                data_dir: self.data_dir.clone(),
                set: flags,
            };
            let (loaded, mut findings) = rest.inspect_file(None)?;
            findings.splice(0..0, error.findings);
            Ok((loaded, findings))
        })
    }

    /// What could be loaded, and what is wrong with it.
    fn inspect(&self) -> Result<(Loaded, Vec<Finding>), ConfigError> {
        self.inspect_file(self.file().as_deref())
    }

    fn inspect_file(&self, file: Option<&Path>) -> Result<(Loaded, Vec<Finding>), ConfigError> {
        let mut flags = self.set.clone();
        if let Some(data_dir) = &self.data_dir {
            flags.push(("data_dir".into(), data_dir.display().to_string()));
        }
        let environment: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let (mut loaded, findings) = crate::config::inspect(file, &environment, &flags)?;
        // Secrets that the unit loads are files of these names.
        for (key, file, name) in [
            (
                "s3.credentials_file",
                &mut loaded.config.s3.credentials_file,
                "aws-credentials",
            ),
            (
                "notify.secret_file",
                &mut loaded.config.notify.secret_file,
                "notify-secret",
            ),
        ] {
            if file.is_empty()
                && let Some(credential) = credential(name)
            {
                *file = credential;
                loaded.origins.retain(|(known, _)| known != key);
                loaded
                    .origins
                    .push((key.to_owned(), "systemd credential".to_owned()));
            }
        }
        Ok((loaded, findings))
    }
}

/// The file that was named, or the one of the system where there is one.
fn named_or(named: Option<&Path>, system: &Path) -> Option<PathBuf> {
    match named {
        Some(file) => Some(file.to_owned()),
        None => system.exists().then(|| system.to_owned()),
    }
}

/// Time of a rehearsal.
#[derive(Clone, Debug, Default, Args)]
struct TimeArgs {
    /// For rehearsals: time runs this many times faster than real time; signatures keep the real date
    #[arg(long, value_name = "N", value_parser = above_zero)]
    speed: Option<f64>,
    /// With --speed: when simulated and real time were equal; give all processes of a rehearsal the same, at each start
    #[arg(long, value_name = "TIME", requires = "speed")]
    since: Option<DateTime<Utc>>,
}

impl TimeArgs {
    /// The machine's clock, or one that runs faster: with `since` a function of the real time alone, so that processes
    /// agree and restarts go on.
    fn clock(&self) -> Clock {
        let Some(speed) = self.speed else {
            return Clock::system();
        };
        let now = Clock::system().now();
        let since = self.since.unwrap_or(now);
        let passed = (now - since).as_seconds_f64() * speed;
        Clock::accelerated(
            since + TimeDelta::microseconds((passed * 1e6) as i64),
            speed,
        )
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('x').parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("write it as a number above 0, such as 60".into()),
    }
}

/// The file of a systemd credential, where the unit loads one of that name. A unit cannot load a file only if there is one:
/// it names a text to take instead, which is no secret.
fn credential(name: &str) -> Option<String> {
    let directory = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
    loaded(&directory, name).map(|file| file.display().to_string())
}

fn loaded(directory: &Path, name: &str) -> Option<PathBuf> {
    let file = directory.join(name);
    let instead = format!("# /etc/lookoutd/{name} was absent at start");
    match std::fs::read(&file) {
        Ok(bytes) => (bytes.trim_ascii() != instead.as_bytes()).then_some(file),
        // Whoever uses it says why it cannot be read.
        Err(_) => file.exists().then_some(file),
    }
}

/// Runs the command line and returns the process's exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if !matches!(cli.command, Command::Run(_) | Command::Serve(_))
        && let Err(error) = end_with_the_reader()
    {
        complain!("error: no signal handler: {error}");
        return ExitCode::from(71);
    }
    let result = match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Scheduler(args) => scheduler::run(args),
        Command::Executions(args) => executions::run(args),
        Command::Results(args) => results::run(args),
        Command::Check(args) => check::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Status(args) => status::run(args),
        Command::Windows(args) => windows::run(args),
        Command::Store(args) => store::run(args),
        Command::Journal(args) => journal::run(args),
        Command::Backup(args) => backup::backup(args),
        Command::Restore(args) => backup::restore(args),
        Command::Model(args) => model::run(args),
        Command::Console(args) => console::run(args),
        Command::Notify(args) => notify::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Source(args) => source::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Config(args) => config::run(args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
        Command::Healthcheck(args) => status::healthcheck(args),
        Command::Diag(args) => diag::run(&args),
    };
    crate::ops::log::flush();
    match result {
        Ok(code) => code,
        Err(error) => {
            complain!("error: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Whether the command line takes these arguments; if not, what it says. For the documents' tests.
pub fn accepts(arguments: &[String]) -> Result<(), String> {
    let name = std::iter::once("lookoutd");
    Cli::try_parse_from(name.chain(arguments.iter().map(String::as_str)))
        .map(drop)
        .map_err(|error| error.to_string())
}

/// The exit code that an error stands for.
fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<ConfigError>() {
            return 78;
        }
        if cause.is::<asset::AssetError>() {
            return 2;
        }
        if let Some(error) = cause.downcast_ref::<TagListError>() {
            return if error.is_retryable() { 69 } else { 78 };
        }
        if let Some(error) = cause.downcast_ref::<SourceError>() {
            if std::error::Error::source(error).is_some_and(|source| source.is::<S3Error>()) {
                // The store's own answer decides: whether it refuses or does not answer.
                continue;
            }
            return if error.is_retryable() { 69 } else { 78 };
        }
        if let Some(error) = cause.downcast_ref::<LockError>() {
            return match error {
                LockError::Held { .. } => 75,
                LockError::Unusable { .. } => 73,
            };
        }
        if let Some(error) = cause.downcast_ref::<S3Error>() {
            return match (error.disposition(), error.failure.transport) {
                (_, Some(Transport::Region | Transport::Endpoint)) => 78,
                (Disposition::Hold(_), None | Some(Transport::Credentials)) => 77,
                (Disposition::Throttled, _) => 75,
                _ => 69,
            };
        }
        if let Some(error) = cause.downcast_ref::<ApiError>() {
            return match (error.advice(), error.is_unreachable()) {
                _ if error.needs_setting() => 78,
                (_, true) => 69,
                (Advice::Retry, _) => 75,
                (Advice::Hold(_), _) => 77,
            };
        }
        if cause.is::<EnsureError>() {
            return 77;
        }
        if let Some(error) = cause.downcast_ref::<ServiceError>() {
            return match error {
                ServiceError::Store(_) => 73,
                _ => 78,
            };
        }
        if cause.is::<TlsError>() {
            return 78;
        }
        if cause.is::<StoreError>() || cause.is::<KeyFileError>() {
            return 73;
        }
        if let Some(error) = cause.downcast_ref::<OpenError>() {
            return match error {
                OpenError::Lost { .. }
                | OpenError::Damaged { .. }
                | OpenError::WithoutLog { .. }
                | OpenError::TakeOver { .. } => 74,
                OpenError::SharedDisk { .. } => 78,
                _ => 73,
            };
        }
        if cause.is::<SpoolError>() || cause.is::<LedgerError>() || cause.is::<RecoverError>() {
            return 73;
        }
    }
    1
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as key=value, such as feed.cadence=PT10M".to_owned())
}

/// One thread is enough for a gateway, and the smallest.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn processes_of_a_rehearsal_agree_on_the_time_whenever_they_start() {
        let since = Clock::system().now() - TimeDelta::seconds(100);
        let time = TimeArgs {
            speed: Some(60.0),
            since: Some(since),
        };
        let first = time.clock();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let second = time.clock();
        let apart = (second.now() - first.now()).num_milliseconds();
        // A millisecond of real time is 60.
        assert!((-600..=600).contains(&apart), "{apart} ms");
        let run = (first.now() - since).num_seconds();
        assert!((6_000..6_600).contains(&run), "{run} s");
    }

    #[test]
    fn a_history_that_the_store_refuses_is_refused_and_one_that_does_not_answer_is_unavailable() {
        let failed = |failure| {
            anyhow::Error::from(SourceError::Unavailable {
                name: "s3://plant/history.parquet".into(),
                source: Box::new(S3Error {
                    operation: "HeadObject",
                    bucket: "plant".into(),
                    key: "history.parquet".into(),
                    failure,
                }),
            })
        };
        let refused = crate::s3::Failure {
            status: Some(403),
            code: Some("AccessDenied".into()),
            transport: None,
            message: String::new(),
        };
        let silent = crate::s3::Failure {
            status: None,
            code: None,
            transport: Some(Transport::Refused),
            message: String::new(),
        };
        assert_eq!(exit_code(&failed(refused)), 77);
        assert_eq!(exit_code(&failed(silent)), 69);
    }

    #[test]
    fn the_installed_services_configuration_is_taken_where_none_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let system = directory.path().join("lookoutd.toml");
        assert_eq!(named_or(None, &system), None);
        std::fs::write(&system, "").unwrap();
        assert_eq!(named_or(None, &system), Some(system.clone()));
        let named = Path::new("mine.toml");
        assert_eq!(named_or(Some(named), &system), Some(named.to_owned()));
    }

    #[test]
    fn a_credential_whose_file_was_absent_is_none() {
        let unit = include_str!("../systemd/lookoutd.service");
        let directory = tempfile::tempdir().unwrap();
        for name in ["aws-credentials", "notify-secret"] {
            assert!(unit.contains(&format!("\nLoadCredential={name}:/etc/lookoutd/{name}\n")));
            let lead = format!("\nSetCredential={name}:");
            let instead = unit.split(&lead).nth(1).unwrap().lines().next().unwrap();
            assert_eq!(loaded(directory.path(), name), None);
            std::fs::write(directory.path().join(name), instead).unwrap();
            assert_eq!(loaded(directory.path(), name), None, "{name}");
            std::fs::write(directory.path().join(name), "a secret of some length").unwrap();
            assert_eq!(
                loaded(directory.path(), name),
                Some(directory.path().join(name))
            );
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command a person can meet, with its path.
    fn commands(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let mut found = vec![(path.to_owned(), command.clone())];
        for below in command
            .get_subcommands()
            .filter(|it| it.get_name() != "help")
        {
            found.extend(commands(below, &format!("{path} {}", below.get_name())));
        }
        found
    }

    /// The calls of lookoutd in an example: without the shell around them, and without the remark behind two spaces.
    fn calls(example: &str) -> Vec<Vec<String>> {
        let text = example.trim();
        let text = text.split("  ").next().unwrap_or_default();
        let pieces = text.split([';', '|', '>']).flat_map(|it| it.split("&&"));
        pieces
            .filter_map(|piece| piece.trim().strip_prefix("lookoutd "))
            .map(|arguments| {
                let quoted = arguments.split('\'').enumerate();
                let words = quoted.flat_map(|(at, part)| match at % 2 {
                    1 => vec![part.to_owned()],
                    _ => part.split_whitespace().map(str::to_owned).collect(),
                });
                ["lookoutd".to_owned()].into_iter().chain(words).collect()
            })
            .collect()
    }

    #[test]
    fn every_command_has_examples_and_each_of_them_parses() {
        let mut seen = 0;
        for (path, command) in commands(&Cli::command(), "lookoutd") {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            assert!(help.contains("Example"), "{path} has no examples");
            let joined = help.replace("\\\n      ", "");
            for example in joined.lines().filter(|it| it.starts_with("  ")) {
                for call in calls(example) {
                    if let Err(error) = Cli::try_parse_from(&call) {
                        let informs = matches!(
                            error.kind(),
                            clap::error::ErrorKind::DisplayHelp
                                | clap::error::ErrorKind::DisplayVersion
                        );
                        assert!(informs, "{path}: {example}: {error}");
                    }
                    seen += 1;
                }
            }
        }
        assert!(seen >= 60, "{seen} examples");
    }
}
