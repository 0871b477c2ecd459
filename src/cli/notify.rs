//! `lookoutd notify`: sends a test message and says what came back; lists what was sent and what waits.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use uuid::Uuid;

use super::output::{self, Output};
use super::{ConfigArgs, runtime};
use crate::clock::Clock;
use crate::notify::{Queue, Target, test_message};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd notify test --config lookoutd.toml    sends one message to the webhook and the command now
  lookoutd notify list -n 20                     the newest messages: waiting, sent, given up

Exit codes of test: 0 everybody took it, 3 nobody is configured, 69 somebody did not take it.")]
pub struct NotifyArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends a test message past the queue, and says what was sent and what came back
    #[command(after_help = "\
Examples:
  lookoutd notify test --config lookoutd.toml                  one message to the webhook and the command
  lookoutd notify test --config lookoutd.toml --output json    the answers for a script")]
    Test(TestArgs),
    /// The newest messages first
    #[command(after_help = "\
Examples:
  lookoutd notify list --config lookoutd.toml          the newest 20
  lookoutd notify list -n 100 --output json            more of them, for a script")]
    List(ListArgs),
}

#[derive(Debug, Args)]
struct TestArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How many
    #[arg(short = 'n', long, default_value_t = 20)]
    limit: usize,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// One target's answer to the test.
#[derive(Debug, Serialize)]
struct Answer {
    target: &'static str,
    place: String,
    taken: bool,
    sent: Vec<String>,
    answer: String,
}

pub fn run(args: NotifyArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Test(args) => runtime()?.block_on(test(&args)),
        Command::List(args) => list(&args),
    }
}

async fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config.notify;
    let targets = config.targets()?;
    if targets.is_empty() {
        complain!("nobody is told: set notify.webhook or notify.command");
        return Ok(ExitCode::from(3));
    }
    let mut answers = Vec::new();
    for target in targets {
        let (id, now) = (Uuid::new_v4().to_string(), Clock::system().now());
        let body = test_message(&id, &config.gateway(), now);
        let mut sent: Vec<String> = Vec::new();
        if let Target::Webhook(webhook) = &target {
            let headers = webhook.headers(&id, now.timestamp(), &body);
            sent.extend(
                headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}")),
            );
        }
        sent.push(body.clone());
        let (taken, answer) = match target.send(&id, &body).await {
            Ok(answer) => (true, answer),
            Err(refused) => (false, refused.text),
        };
        answers.push(Answer {
            target: target.name(),
            place: target.place(),
            taken,
            sent,
            answer,
        });
    }
    if args.output == Output::Json {
        output::json(&answers)?;
    } else {
        for answer in &answers {
            say!("{}  {}", answer.target, answer.place);
            for line in &answer.sent {
                say!("  sent  {line}");
            }
            say!(
                "  {}  {}",
                if answer.taken { "took" } else { "FAILED" },
                answer.answer
            );
        }
    }
    Ok(if answers.iter().all(|answer| answer.taken) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(69)
    })
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let data_dir = args.config.load()?.config.data_dir();
    let queue = Queue::open_existing(&data_dir)?;
    let (found, (waiting, held_back)) = match &queue {
        Some(queue) => (queue.list(args.limit)?, queue.waiting()?),
        None => (Vec::new(), (0, 0)),
    };
    if args.output == Output::Json {
        output::json(&serde_json::json!({
            "waiting": waiting, "held_back": held_back, "messages": found,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("{waiting} waiting, {held_back} held back since the last message");
    if found.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let text = |message: &serde_json::Value, name: &str| {
        message[name].as_str().unwrap_or_default().to_owned()
    };
    let rows: Vec<_> = found
        .iter()
        .map(|delivery| {
            vec![
                output::utc(delivery.created),
                delivery.target.clone(),
                delivery.state.clone(),
                delivery.attempts.to_string(),
                text(&delivery.message, "kind"),
                text(&delivery.message, "state"),
                text(&delivery.message, "subject"),
                delivery.error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(
        &[
            "QUEUED",
            "TARGET",
            "STATE",
            "FAILED",
            "KIND",
            "IS",
            "SUBJECT",
            "LAST ERROR",
        ],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}
