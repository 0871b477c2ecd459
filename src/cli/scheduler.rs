//! `lookoutd scheduler`: the inference scheduler by hand. What it is told about files comes from the configuration, so that
//! it looks for what the feeder writes; transitions are printed as the original's notebooks print them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use aws_sdk_lookoutequipment::Client;
use clap::{Args, Subcommand};

use super::asset::AssetArgs;
use super::output::{self, Output};
use super::{ConfigArgs, lookout, runtime};
use crate::config::Config;
use crate::daemon::Keeping;
use crate::inference::{ApiError, Described, Target, Wanted, describe, list_schedulers, wait_for};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd scheduler create --wait --config lookoutd.toml
  lookoutd scheduler describe pump-scheduler
  lookoutd scheduler stop --wait && lookoutd scheduler update && lookoutd scheduler start --wait
  lookoutd scheduler delete --wait

Without a name it is inference.scheduler. A running daemon keeps its own scheduler as inference.wanted says: what it would
undo is refused, with what to set first.")]
pub struct SchedulerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Creates it, which also starts it
    #[command(after_help = "\
Examples:
  lookoutd scheduler create --wait --config lookoutd.toml")]
    Create(Change),
    /// What it is, and in what it differs from the configuration
    #[command(after_help = "\
Examples:
  lookoutd scheduler describe pump-scheduler --output json")]
    Describe {
        #[command(flatten)]
        which: Which,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Brings it to the configuration; it must be stopped
    #[command(after_help = "\
Examples:
  lookoutd scheduler stop --wait && lookoutd scheduler update && lookoutd scheduler start --wait")]
    Update(Change),
    /// Starts it
    #[command(after_help = "\
Examples:
  lookoutd scheduler start --wait")]
    Start(Change),
    /// Stops it
    #[command(after_help = "\
Examples:
  lookoutd scheduler stop --wait")]
    Stop(Change),
    /// Deletes it and its history; with --wait it is stopped first. Results in S3 and the archive stay
    #[command(after_help = "\
Examples:
  lookoutd scheduler delete --wait")]
    Delete(Change),
    /// All schedulers
    #[command(after_help = "\
Examples:
  lookoutd scheduler list
  lookoutd scheduler list pump- --output json")]
    List {
        #[command(flatten)]
        config: ConfigArgs,
        /// Only those whose name begins so
        #[arg(default_value = "")]
        prefix: String,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// The scheduler; otherwise inference.scheduler
    name: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    asset: AssetArgs,
}

#[derive(Debug, Args)]
struct Change {
    #[command(flatten)]
    which: Which,
    /// Waits until it is done
    #[arg(long)]
    wait: bool,
}

pub fn run(args: SchedulerArgs) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        match args.command {
            Command::List {
                config,
                prefix,
                output,
            } => list(&config.load()?.config, &prefix, output).await,
            Command::Describe { which, output } => {
                let (config, client, name) = open(&which).await?;
                show(&config, &client, &name, output).await
            }
            Command::Create(change) => {
                let (config, client, name) = open(&change.which).await?;
                let target = lookout::target(&config, &name);
                if target.model.is_empty() {
                    bail!("which model? set inference.model, or --set inference.model=NAME");
                }
                target.create(&client).await.map_err(advised)?;
                done(&client, &name, change.wait, "created").await
            }
            Command::Update(change) => {
                let (config, client, name) = open_to(Doing::Update, &change.which).await?;
                update(&client, &lookout::target(&config, &name)).await
            }
            Command::Start(change) => {
                let (config, client, name) = open_to(Doing::Start, &change.which).await?;
                lookout::target(&config, &name)
                    .start(&client)
                    .await
                    .map_err(advised)?;
                done(&client, &name, change.wait, "started").await
            }
            Command::Stop(change) => {
                let (config, client, name) = open_to(Doing::Stop, &change.which).await?;
                lookout::target(&config, &name)
                    .stop(&client)
                    .await
                    .map_err(advised)?;
                done(&client, &name, change.wait, "stopping").await
            }
            Command::Delete(change) => {
                let (config, client, name) = open_to(Doing::Delete, &change.which).await?;
                delete(&client, &lookout::target(&config, &name), change.wait).await
            }
        }
    })
}

impl Which {
    /// The configuration of the asset whose scheduler it is.
    fn one(&self) -> anyhow::Result<Config> {
        let loaded = self.config.load()?;
        Ok(self.asset.keeper(&loaded, self.name.as_deref())?.config)
    }
}

async fn open(which: &Which) -> anyhow::Result<(Config, Client, String)> {
    let config = which.one()?;
    let client = lookout::api(&config).await?;
    let name = lookout::scheduler(&config, which.name.as_deref())?;
    Ok((config, client, name))
}

/// What is to be done to a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Update,
    Start,
    Stop,
    Delete,
}

/// As [`open`], unless a running daemon would undo what is to be done.
async fn open_to(doing: Doing, which: &Which) -> anyhow::Result<(Config, Client, String)> {
    let config = which.one()?;
    let name = lookout::scheduler(&config, which.name.as_deref())?;
    if let Some(keeping) = Keeping::by_daemon(&config.data_dir(), &name)
        && let Some(refusal) = refusal(doing, &name, &keeping)
    {
        bail!(refusal);
    }
    open(which).await
}

/// Why something must not be done to a scheduler beside the daemon that keeps one; `None` where it may.
fn refusal(doing: Doing, name: &str, keeping: &Keeping) -> Option<String> {
    if keeping.scheduler != name {
        return None;
    }
    let (would, first) = match (doing, keeping.wanted) {
        (_, Wanted::Observe) | (Doing::Stop, Wanted::Stopped) | (Doing::Start, Wanted::Running) => {
            return None;
        }
        (Doing::Stop, Wanted::Running) => (
            "would start it again",
            "set inference.wanted = \"stopped\" and restart it: it stops the scheduler itself",
        ),
        (Doing::Start, Wanted::Stopped) => (
            "would stop it again",
            "set inference.wanted = \"running\" and restart it: it starts the scheduler itself",
        ),
        (Doing::Update, _) => (
            "brings it to its own configuration",
            "change that and restart it: it stops, updates and starts the scheduler itself; or set inference.wanted = \"observe\" \
             first",
        ),
        (Doing::Delete, _) => (
            "would make it again",
            "set inference.wanted = \"observe\" and restart it, then delete; to have it made anew with another model, set \
             inference.model as well, delete, and set inference.wanted back",
        ),
    };
    Some(format!(
        "lookoutd (process {}) keeps scheduler {name} as inference.wanted = \"{}\" says and {would}; nothing was done. {first}",
        keeping.pid,
        keeping.wanted.name()
    ))
}

async fn done(client: &Client, name: &str, wait: bool, what: &str) -> anyhow::Result<ExitCode> {
    if wait {
        poll(client, name).await?;
    } else {
        say!("scheduler {name} {what}; --wait waits until it is done");
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the transitions in the notebooks' words.
async fn poll(client: &Client, name: &str) -> anyhow::Result<()> {
    say!("===== Polling Inference Scheduler Status =====\n");
    let mut last = String::new();
    wait_for(client, name, &mut |status| {
        if last != status {
            say!("Scheduler Status: {status}");
            last = status.to_owned();
        }
    })
    .await?;
    say!("\n===== End of Polling Inference Scheduler Status =====");
    Ok(())
}

async fn update(client: &Client, target: &Target) -> anyhow::Result<ExitCode> {
    let have = described(client, &target.scheduler).await?;
    let differences = have.differences(target);
    if differences.is_empty() {
        say!("scheduler {} is as configured", target.scheduler);
        return Ok(ExitCode::SUCCESS);
    }
    target.update(client).await.map_err(advised)?;
    for difference in differences {
        say!(
            "{}: {} -> {}",
            difference.field,
            difference.have,
            difference.want
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(client: &Client, target: &Target, wait: bool) -> anyhow::Result<ExitCode> {
    let name = &target.scheduler;
    if wait && described(client, name).await?.status != "STOPPED" {
        target.stop(client).await.map_err(advised)?;
        poll(client, name).await?;
    }
    client
        .delete_inference_scheduler()
        .inference_scheduler_name(name)
        .send()
        .await
        .map_err(ApiError::of("DeleteInferenceScheduler"))
        .map_err(advised)?;
    while wait && describe(client, name).await?.is_some() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    say!("scheduler {name} deleted");
    Ok(ExitCode::SUCCESS)
}

async fn show(
    config: &Config,
    client: &Client,
    name: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let have = described(client, name).await?;
    let differences = have.differences(&lookout::target(config, name));
    if output == Output::Json {
        output::json(&serde_json::json!({"scheduler": have, "differences": differences}))?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("scheduler  {}   {}", have.name, have.status);
    say!("model      {}", have.model);
    say!(
        "every      {}, {} min after the window's end",
        have.frequency,
        have.delay_minutes
    );
    say!(
        "input      s3://{}/{}",
        have.input_bucket,
        have.input_prefix
    );
    say!(
        "names      <component>{}<{}>.csv, zone {}",
        have.delimiter.as_deref().unwrap_or("-"),
        have.timestamp_format.as_deref().unwrap_or("yyyyMMddHHmmss"),
        have.zone_offset
    );
    say!(
        "output     s3://{}/{}",
        have.output_bucket,
        have.output_prefix
    );
    say!("role       {}", have.role_arn);
    if let Some(result) = &have.latest_result {
        say!("latest     {result}");
    }
    for difference in differences {
        say!("differs    {difference}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(config: &Config, prefix: &str, output: Output) -> anyhow::Result<ExitCode> {
    let client = lookout::api(config).await?;
    let found = list_schedulers(&client, prefix).await.map_err(advised)?;
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|summary| {
            vec![
                text(summary.inference_scheduler_name()),
                text(summary.model_name()),
                text(summary.status().map(|status| status.as_str())),
                text(
                    summary
                        .data_upload_frequency()
                        .map(|frequency| frequency.as_str()),
                ),
                summary
                    .data_delay_offset_in_minutes()
                    .unwrap_or(0)
                    .to_string(),
                text(
                    summary
                        .latest_inference_result()
                        .map(|result| result.as_str()),
                ),
            ]
        })
        .collect();
    if output == Output::Json {
        let keys = [
            "scheduler",
            "model",
            "status",
            "frequency",
            "delay_minutes",
            "latest_result",
        ];
        let objects: Vec<serde_json::Map<String, serde_json::Value>> = rows
            .into_iter()
            .map(|row| {
                keys.iter()
                    .map(|key| (*key).to_owned())
                    .zip(row.into_iter().map(serde_json::Value::from))
                    .collect()
            })
            .collect();
        output::json(&objects)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        &["SCHEDULER", "MODEL", "STATUS", "EVERY", "DELAY", "LATEST"],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}

async fn described(client: &Client, name: &str) -> anyhow::Result<Described> {
    describe(client, name)
        .await
        .map_err(advised)?
        .with_context(|| format!("there is no scheduler {name}: see lookoutd scheduler list"))
}

/// The error with its remedy before it.
fn advised(error: ApiError) -> anyhow::Error {
    match error.advice() {
        crate::inference::Advice::Hold(remedy) => anyhow::Error::new(error).context(remedy),
        crate::inference::Advice::Retry => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_would_undo_is_refused_with_what_to_set_first() {
        let keeping = |wanted| Keeping {
            pid: 7,
            scheduler: "pump".into(),
            wanted,
        };
        for (doing, wanted, refused) in [
            (Doing::Stop, Wanted::Running, true),
            (Doing::Stop, Wanted::Stopped, false),
            (Doing::Start, Wanted::Running, false),
            (Doing::Start, Wanted::Stopped, true),
            (Doing::Update, Wanted::Running, true),
            (Doing::Update, Wanted::Stopped, true),
            (Doing::Delete, Wanted::Running, true),
            (Doing::Delete, Wanted::Stopped, true),
            (Doing::Stop, Wanted::Observe, false),
            (Doing::Delete, Wanted::Observe, false),
        ] {
            let refusal = refusal(doing, "pump", &keeping(wanted));
            assert_eq!(refusal.is_some(), refused, "{doing:?} {wanted:?}");
            let text = refusal.unwrap_or_default();
            assert_eq!(text.contains("process 7"), refused, "{text}");
            assert_eq!(text.contains("inference.wanted = "), refused, "{text}");
        }
        assert_eq!(refusal(Doing::Stop, "fan", &keeping(Wanted::Running)), None);
    }
}
