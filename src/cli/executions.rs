//! `lookoutd executions list`: what the API says about a scheduler's runs, with a hint beside every failure.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use super::output::{self, Output};
use super::{ConfigArgs, lookout, runtime};
use crate::inference::{Execution, Filter, hint, list_executions};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd executions list -n 12
  lookoutd executions list pump-scheduler --status FAILED --after 2026-01-01T00:00:00Z --output json")]
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
struct ListArgs {
    /// The scheduler; otherwise inference.scheduler
    name: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// How many
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: usize,
    /// Only windows that start at this time or later, UTC
    #[arg(long, value_name = "TIME")]
    after: Option<DateTime<Utc>>,
    /// Only windows that end at this time or earlier, UTC
    #[arg(long, value_name = "TIME")]
    before: Option<DateTime<Utc>>,
    /// IN_PROGRESS, SUCCESS or FAILED
    #[arg(long, value_parser = ["IN_PROGRESS", "SUCCESS", "FAILED"])]
    status: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub fn run(args: ExecutionsArgs) -> anyhow::Result<ExitCode> {
    let Command::List(args) = args.command;
    runtime()?.block_on(list(&args))
}

async fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config;
    let client = lookout::api(&config).await?;
    let name = lookout::scheduler(&config, args.name.as_deref())?;
    let filter = Filter {
        after: args.after,
        before: args.before,
        status: args.status.clone(),
    };
    let mut found: Vec<Execution> = Vec::new();
    let mut token = None;
    while found.len() < args.limit {
        let page = list_executions(&client, &name, &filter, token).await?;
        found.extend(page.executions);
        token = page.next;
        if token.is_none() {
            break;
        }
    }
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
    let mut hints: Vec<&str> = found
        .iter()
        .filter_map(|execution| execution.failed_reason.as_deref().and_then(hint))
        .collect();
    hints.dedup();
    for hint in hints {
        println!("\nhint: {hint}");
    }
    Ok(ExitCode::SUCCESS)
}
