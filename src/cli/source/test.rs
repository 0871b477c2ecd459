//! `lookoutd source test`: every tag of every input as it comes, and at the end what never came.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use chrono::DateTime;
use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout_at};

use crate::cli::output::{self, Output};
use crate::cli::{ConfigArgs, runtime};
use crate::clock::Clock;
use crate::config::{Loaded, Span};
use crate::input::mqtt::decode::Decoding;
use crate::input::mqtt::watch::{Seen, Watch};
use crate::input::mqtt::{self, topic};
use crate::input::{Raw, Settings, Tag, tags_of};
use crate::journal::Quality;
use crate::signal::TagList;

/// Refusals that are shown.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd source test --config lookoutd.toml
  lookoutd source test --config lookoutd.toml --input plant --for 5m
  lookoutd source test --config lookoutd.toml --for 30s --output json

Exit code 3: some tag never came, a filter was refused, or something could not be read.")]
pub struct TestArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only this input
    #[arg(long, value_name = "NAME")]
    input: Option<String>,
    /// How long it is looked
    #[arg(long = "for", value_name = "SPAN", default_value = "30s")]
    lasts: String,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What was seen of a tag.
#[derive(Clone, Debug, Serialize)]
struct Row {
    input: String,
    asset: String,
    tag: String,
    address: String,
    unit: String,
    /// The last value, scaled; none: it was missing, or none came.
    value: Option<f64>,
    quality: Option<&'static str>,
    /// The last sample's own time.
    time: Option<String>,
    /// Seconds since then.
    age_seconds: Option<f64>,
    samples: u64,
    per_minute: f64,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    tags: Vec<Row>,
    /// Tags of which no sample came.
    never_came: Vec<String>,
    /// Filters that the broker refused or lowered.
    refused_filters: Vec<String>,
    /// Messages that gave no sample.
    unreadable: u64,
    /// The last of them.
    refused: VecDeque<String>,
    /// Topics that came and that no tag has.
    without_tag: Vec<String>,
    /// Inputs that could not be reached, and why.
    unreachable: Vec<String>,
    /// Inputs of kinds that are not looked at here.
    not_tested: Vec<String>,
}

pub fn run(args: TestArgs) -> anyhow::Result<ExitCode> {
    let loaded = args.config.load()?;
    let lasts: Span = args.lasts.parse().map_err(anyhow::Error::msg)?;
    let runtime = runtime()?;
    let answer = runtime.block_on(look(&args, &loaded, lasts.0));
    runtime.shutdown_timeout(Duration::from_millis(300));
    let answer = answer?;
    match args.output {
        Output::Json => output::json(&answer)?,
        Output::Text => show(&answer),
    }
    let is_well = answer.never_came.is_empty()
        && answer.refused_filters.is_empty()
        && answer.unreachable.is_empty()
        && answer.unreadable == 0;
    Ok(ExitCode::from(if is_well { 0 } else { 3 }))
}

/// One input that is looked at.
struct Looked {
    name: String,
    config: mqtt::Config,
    tags: Vec<Tag>,
}

enum Event {
    Samples(Vec<Raw>),
    Refused(String),
    Strange(String),
    Filter(String),
    Lost(String),
}

async fn look(args: &TestArgs, loaded: &Loaded, lasts: Duration) -> anyhow::Result<Answer> {
    let list = TagList::read(&loaded.config.source.tags)?;
    let (inputs, not_tested) = chosen(args, loaded, &list)?;
    let clock = Clock::system();
    let mut answer = Answer {
        not_tested,
        ..Answer::default()
    };
    let mut first = Vec::new();
    for input in &inputs {
        first.push(answer.tags.len());
        answer
            .tags
            .extend(input.tags.iter().map(|tag| row(input, tag)));
    }
    let (sender, mut events) = mpsc::channel(1024);
    let began = Instant::now();
    let tags: Vec<Vec<Tag>> = inputs.iter().map(|input| input.tags.clone()).collect();
    let tasks: Vec<_> = inputs
        .into_iter()
        .enumerate()
        .map(|(at, input)| tokio::spawn(watch(at, input, clock.clone(), sender.clone())))
        .collect();
    drop(sender);
    let is_live = args.output == Output::Text && std::io::stdout().is_terminal();
    let mut every = interval(Duration::from_secs(1));
    let mut lines = 0;
    let end = began + lasts;
    while let Ok(event) = timeout_at(end, async {
        tokio::select! {
            event = events.recv() => event,
            _ = every.tick(), if is_live => None,
        }
    })
    .await
    {
        match event {
            Some((at, event)) => take(&mut answer, &tags[at], first[at], event, &clock, began),
            None if is_live => {
                if lines > 0 {
                    say_part!("\u{1b}[{lines}A\u{1b}[J");
                }
                lines = rows(&answer.tags);
            }
            None => break,
        }
    }
    if lines > 0 {
        say_part!("\u{1b}[{lines}A\u{1b}[J");
    }
    tasks.iter().for_each(|task| task.abort());
    let now = clock.now();
    for row in &mut answer.tags {
        row.per_minute = row.samples as f64 * 60.0 / began.elapsed().as_secs_f64();
        let time = row
            .time
            .as_deref()
            .and_then(|time| DateTime::parse_from_rfc3339(time).ok());
        row.age_seconds = time.map(|time| (now - time.to_utc()).as_seconds_f64());
        if row.samples == 0 {
            answer
                .never_came
                .push(format!("{}: {} at {}", row.input, row.tag, row.address));
        }
    }
    Ok(answer)
}

/// The inputs that are looked at, and those of other kinds.
fn chosen(
    args: &TestArgs,
    loaded: &Loaded,
    list: &TagList,
) -> anyhow::Result<(Vec<Looked>, Vec<String>)> {
    let all = &loaded.config.input;
    if all.is_empty() {
        bail!(
            "the configuration has no inputs: write a section such as [input.plant] with kind = \"mqtt\""
        );
    }
    if let Some(name) = &args.input
        && !all.contains_key(name)
    {
        let known: Vec<&str> = all.keys().map(String::as_str).collect();
        bail!("there is no input {name}; there is {}", known.join(", "));
    }
    let mut tags = tags_of(all, list);
    let (mut looked, mut others) = (Vec::new(), Vec::new());
    for (name, settings) in all {
        if args.input.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        match settings {
            Settings::Mqtt(config) => looked.push(Looked {
                name: name.clone(),
                config: config.clone(),
                tags: tags.remove(name).unwrap_or_default(),
            }),
            #[expect(unreachable_patterns, reason = "there is one kind so far")]
            other => others.push(format!("{name} ({})", other.kind())),
        }
    }
    Ok((looked, others))
}

/// Looks at one broker until it is ended, and connects again where that fails.
async fn watch(at: usize, input: Looked, clock: Clock, sender: mpsc::Sender<(usize, Event)>) {
    let addresses = input.tags.iter().map(|tag| tag.address.as_str());
    let (mut decoding, faults) = Decoding::new(&input.config, addresses.enumerate());
    for (tag, fault) in faults {
        let address = &input.tags[tag].address;
        let said = Event::Refused(format!("address \"{address}\" {fault}"));
        drop(sender.send((at, said)).await);
    }
    let wanted = match input.config.topics.is_empty() {
        true => decoding.filters(),
        false => input.config.topics.clone(),
    };
    let filters = topic::without_covered(&wanted);
    loop {
        let lost = match Watch::open(&input.config, &filters).await {
            Err(lost) => lost,
            Ok(mut watch) => loop {
                let seen = match watch.next().await {
                    Ok(seen) => seen,
                    Err(lost) => break lost,
                };
                for seen in seen {
                    for event in events(&mut decoding, seen, &clock) {
                        if sender.send((at, event)).await.is_err() {
                            return;
                        }
                    }
                }
            },
        };
        let said = Event::Lost(format!("{}: {}: {lost}", input.name, input.config.url));
        drop(sender.send((at, said)).await);
        sleep(Duration::from_secs(2)).await;
    }
}

fn events(decoding: &mut Decoding, seen: Seen, clock: &Clock) -> Vec<Event> {
    let message = match seen {
        Seen::Message(message) => message,
        Seen::Refused(filter, why) => return vec![Event::Filter(format!("{filter}: {why}"))],
        Seen::Oversized(topic, size) => {
            return vec![Event::Refused(format!(
                "{topic}: {size} bytes are more than max_message"
            ))];
        }
    };
    let now = clock.now().timestamp_nanos_opt().unwrap_or_default();
    let decoded = decoding.take(&message, false, now);
    let mut found = Vec::new();
    if decoded.is_strange {
        found.push(Event::Strange(message.topic.clone()));
    }
    let refused = decoded.refused.into_iter();
    found.extend(refused.map(|why| Event::Refused(format!("{}: {why}", message.topic))));
    if !decoded.raws.is_empty() {
        found.push(Event::Samples(decoded.raws));
    }
    found
}

fn row(input: &Looked, tag: &Tag) -> Row {
    Row {
        input: input.name.clone(),
        asset: tag.asset.name().to_owned(),
        tag: tag.tag.clone(),
        address: tag.address.clone(),
        unit: tag.unit.clone(),
        value: None,
        quality: None,
        time: None,
        age_seconds: None,
        samples: 0,
        per_minute: 0.0,
    }
}

fn take(
    answer: &mut Answer,
    tags: &[Tag],
    first: usize,
    event: Event,
    clock: &Clock,
    began: Instant,
) {
    match event {
        Event::Samples(raws) => {
            let now = clock.now();
            for raw in raws {
                let (Some(row), Some(tag)) =
                    (answer.tags.get_mut(first + raw.tag), tags.get(raw.tag))
                else {
                    continue;
                };
                let value = tag
                    .scale
                    .map_or(raw.value, |scale| raw.value * scale.factor + scale.offset);
                let is_good = raw.quality != Quality::Bad && value.is_finite();
                let time = raw.time.map_or(now, DateTime::from_timestamp_nanos);
                row.value = is_good.then_some(value);
                row.quality = Some(match raw.quality {
                    Quality::Good => "good",
                    Quality::Uncertain => "uncertain",
                    Quality::Bad => "bad",
                });
                row.time = Some(time.to_rfc3339());
                row.age_seconds = Some((now - time).as_seconds_f64());
                row.samples += 1;
                row.per_minute = row.samples as f64 * 60.0 / began.elapsed().as_secs_f64().max(1.0);
            }
        }
        Event::Refused(why) => {
            answer.unreadable += 1;
            if answer.refused.len() == SHOWN {
                answer.refused.pop_front();
            }
            answer.refused.push_back(why);
        }
        Event::Strange(topic) => {
            if answer.without_tag.len() < 1000 && !answer.without_tag.contains(&topic) {
                answer.without_tag.push(topic);
            }
        }
        Event::Filter(filter) => answer.refused_filters.push(filter),
        Event::Lost(why) => {
            if !answer.unreachable.contains(&why) {
                answer.unreachable.push(why);
            }
        }
    }
}

/// The table; says how many lines it took.
fn rows(tags: &[Row]) -> usize {
    let header = [
        "INPUT", "ASSET", "TAG", "VALUE", "UNIT", "AGE", "QUALITY", "A MINUTE", "ADDRESS",
    ];
    let cells: Vec<Vec<String>> = tags
        .iter()
        .map(|row| {
            vec![
                row.input.clone(),
                row.asset.clone(),
                row.tag.clone(),
                match (row.value, row.samples) {
                    (Some(value), _) => format!("{value}"),
                    (None, 0) => "-".into(),
                    (None, _) => "missing".into(),
                },
                row.unit.clone(),
                row.age_seconds
                    .map_or_else(|| "never".into(), |age| format!("{age:.1} s")),
                row.quality.unwrap_or("-").into(),
                format!("{:.1}", row.per_minute),
                row.address.clone(),
            ]
        })
        .collect();
    output::table(&header, &cells);
    cells.len() + 1
}

fn show(answer: &Answer) {
    rows(&answer.tags);
    let list = |title: &str, lines: &mut dyn Iterator<Item = &String>| {
        let lines: Vec<&String> = lines.collect();
        if !lines.is_empty() {
            say!("\n{title}:");
            lines.iter().for_each(|line| say!("  {line}"));
        }
    };
    list("Not reached", &mut answer.unreachable.iter());
    list(
        "Filters that the broker does not grant",
        &mut answer.refused_filters.iter(),
    );
    list("Never came", &mut answer.never_came.iter());
    if answer.unreadable > 0 {
        let title = format!(
            "Gave no sample ({} messages, the last of them)",
            answer.unreadable
        );
        list(&title, &mut answer.refused.iter());
    }
    list(
        "Topics without a tag",
        &mut answer.without_tag.iter().take(SHOWN),
    );
    list("Not tested here", &mut answer.not_tested.iter());
}
