//! `lookoutd executions list`: what the API says about a scheduler's runs, and what only the archive still knows, with a
//! hint beside every failure.

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use super::asset::AssetArgs;
use super::output::{self, Output};
use super::{ConfigArgs, lookout, runtime};
use crate::daemon::{archive, deliveries};
use crate::inference::{Execution, Filter, Index, cause, hint, list_executions};
use crate::signal::timestamp;

/// Failed executions that are explained.
const HINTS: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd executions list -n 12
  lookoutd executions list pump-scheduler --status FAILED --after 2026-01-01T00:00:00Z --output json
  lookoutd executions list pump-scheduler --archived    without the API: what is archived or was imported")]
pub struct ExecutionsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The newest first
    List(ListArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd executions list -n 12
  lookoutd executions list pump-scheduler --status FAILED --after 2026-01-01T00:00:00Z")]
struct ListArgs {
    /// The scheduler; otherwise inference.scheduler
    name: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    asset: AssetArgs,
    /// How many
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: usize,
    /// Only windows that start at this time or later, UTC
    #[arg(long, value_name = "TIME", value_parser = timestamp::instant)]
    after: Option<DateTime<Utc>>,
    /// Only windows that end at this time or earlier, UTC
    #[arg(long, value_name = "TIME", value_parser = timestamp::instant)]
    before: Option<DateTime<Utc>>,
    /// IN_PROGRESS, SUCCESS or FAILED
    #[arg(long, value_parser = ["IN_PROGRESS", "SUCCESS", "FAILED"])]
    status: Option<String>,
    /// Asks no API: only what the archive of the data directory knows
    #[arg(long)]
    archived: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub fn run(args: ExecutionsArgs) -> anyhow::Result<ExitCode> {
    let Command::List(args) = args.command;
    runtime()?.block_on(list(&args))
}

async fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let one = args
        .asset
        .keeper(&args.config.load()?, args.name.as_deref())?;
    let config = one.config;
    let name = lookout::scheduler(&config, args.name.as_deref())?;
    let filter = Filter {
        after: args.after,
        before: args.before,
        status: args.status.clone(),
    };
    let mut found: Vec<Execution> = Vec::new();
    let mut token = None;
    if !args.archived {
        let client = lookout::api(&config).await?;
        while found.len() < args.limit {
            let page = list_executions(&client, &name, &filter, token).await?;
            found.extend(page.executions);
            token = page.next;
            if token.is_none() {
                break;
            }
        }
    }
    add_archived(args, &config.data_dir(), &name, &mut found)?;
    found.truncate(args.limit);
    if args.output == Output::Json {
        output::json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|execution| {
            vec![
                output::utc(execution.data_start),
                output::utc(execution.data_end),
                execution.status.clone(),
                execution
                    .result
                    .as_ref()
                    .map(|object| format!("s3://{}/{}", object.bucket, object.key))
                    .or_else(|| execution.failed_reason.clone())
                    .unwrap_or_default(),
            ]
        })
        .collect();
    output::table(&["START", "END", "STATUS", "RESULT OR REASON"], &rows);
    let delivered = deliveries(&config.data_dir(), one.asset.name());
    let told = |execution: &Execution| {
        let delivery = delivered(execution.data_start);
        let failed = execution.failed()?;
        match delivery.and_then(|delivery| cause(&failed, &delivery)) {
            Some(cause) => Some(format!("{}: {cause}", output::utc(execution.data_start))),
            None => hint(failed.reason).map(str::to_owned),
        }
    };
    let failed = found
        .iter()
        .filter(|execution| execution.status == "FAILED");
    let mut hints: Vec<String> = failed.take(HINTS).filter_map(told).collect();
    hints.dedup();
    for hint in hints {
        say!("\nhint: {hint}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds what the archive knows and the API does not: a deleted scheduler's executions, and imported ones.
fn add_archived(
    args: &ListArgs,
    data_dir: &Path,
    name: &str,
    found: &mut Vec<Execution>,
) -> anyhow::Result<()> {
    let archive = archive(data_dir);
    let Some(index) = Index::open_existing(&archive)? else {
        if args.archived {
            bail!(
                "no archive in {}: set --data-dir or --config",
                archive.root().display()
            );
        }
        return Ok(());
    };
    let known: HashSet<_> = found.iter().map(|execution| execution.data_start).collect();
    // What the API told may be among them, and a window that begins before `before` and ends after it.
    let most = args.limit.saturating_add(found.len()).saturating_add(2);
    let more = index.list(name, args.after, args.before, args.status.as_deref(), most)?;
    found.extend(
        more.into_iter()
            .map(|row| row.execution)
            .filter(|execution| {
                !known.contains(&execution.data_start)
                    && args
                        .before
                        .is_none_or(|before| execution.data_end <= before)
            }),
    );
    found.sort_by_key(|execution| std::cmp::Reverse(execution.data_start));
    Ok(())
}
