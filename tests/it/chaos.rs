//! Chaos among real processes: gateway, service and SeaweedFS are killed at random on a bad network, in simulated time. Whatever
//! happens, with no manual step every window is delivered once with the bytes of an undisturbed replay, executed once, and its
//! result archived once.
//!
//! Needs `LOOKOUTD_WEED` and `LOOKOUTD_FULL=1`. `LOOKOUTD_CHAOS_KILLS` makes the random run longer, `LOOKOUTD_SEED` repeats one;
//! `tests/chaos/run` sets them. Seeds order the kills; what they hit depends on the machine.

mod clock;
mod site;
pub mod tcp;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::feed::State;
use lookoutd::signal::{Cadence, Window};
use serde::Serialize;

use site::{Site, Who};
use tcp::Weather;

/// What a run counted.
#[derive(Debug, Default, Serialize)]
struct Counters {
    kills: BTreeMap<String, usize>,
    changes_of_weather: usize,
    simulated_hours: f64,
    windows: usize,
    files: usize,
    executions: usize,
    scored_late: usize,
    results: usize,
    losses: usize,
    duplicates: usize,
    byte_differences: usize,
    manual_steps: usize,
}

fn site(speed: f64) -> Option<Site> {
    if !crate::skipped::full("chaos among real processes") {
        return None;
    }
    Site::start(speed)
}

/// Stops gateway and service when everything up to now is done, and counts what there is and what there should be.
fn judge(site: &mut Site, began: DateTime<Utc>) -> Counters {
    let last = Window::containing(site.now(), Cadence::Pt5m).start();
    site.wait_until(
        "everything is delivered, scored and archived",
        Duration::from_secs(180),
        |site| site.is_done(last),
    );
    site.stop();
    let mut counters = Counters {
        simulated_hours: ((last - began).as_seconds_f64() / 360.0).round() / 10.0,
        ..Counters::default()
    };
    let alarms = site.alarms();
    counters.manual_steps = alarms.len();
    for alarm in alarms {
        eprintln!("ALARM {alarm}");
    }
    let say = |counter: &mut usize, what: String| {
        *counter += 1;
        eprintln!("WRONG {what}");
    };

    // Windows: the ledger tiles time, and the bucket holds what a replay writes.
    let entries = site.entries();
    let first = entries.first().expect("a window").start;
    let mut next = first;
    for entry in entries.iter().filter(|entry| entry.start <= last) {
        if entry.start != next || entry.state != State::Shipped {
            say(&mut counters.losses, format!("window {next}: {entry:?}"));
        }
        next = entry.end;
        counters.windows += 1;
    }
    let expected = site.undisturbed(entries.last().expect("a window").end);
    let found = site.objects("input/");
    counters.files = found.len();
    let due = |key: &String| {
        entries.iter().any(|entry| {
            entry.start <= last
                && key.ends_with(&entry.start.format("_%Y%m%d%H%M%S.csv").to_string())
        })
    };
    for (key, bytes) in &expected {
        match found.get(key) {
            None if due(key) => say(&mut counters.losses, format!("{key} is not there")),
            Some(other) if other != bytes => {
                say(
                    &mut counters.byte_differences,
                    format!("{key} has other bytes"),
                );
            }
            _ => {}
        }
    }
    for key in found.keys().filter(|key| !expected.contains_key(*key)) {
        say(
            &mut counters.duplicates,
            format!("{key} should not be there"),
        );
    }

    // Executions: one for each window since the first, each with one results object and one record that holds its bytes.
    let results = site.objects("output/");
    counters.results = results
        .keys()
        .filter(|key| key.ends_with("results.jsonl"))
        .count();
    let mut records: BTreeMap<DateTime<Utc>, usize> = BTreeMap::new();
    for record in site.archive().walk().expect("the archive") {
        let execution = record.expect("a record").execution;
        let start = execution.data_start;
        if execution.status != "SUCCESS" {
            counters.scored_late += 1;
            continue;
        }
        *records.entry(start).or_default() += 1;
        let archived = site.archive().results(&execution).expect("its results");
        let key = execution
            .result
            .map(|object| object.key)
            .unwrap_or_default();
        if archived.is_none() || archived.as_ref() != results.get(&key) {
            say(
                &mut counters.byte_differences,
                format!("the archived results of {start} differ from {key}"),
            );
        }
    }
    let executions = site.executions();
    let mut next = executions
        .first()
        .expect("an execution")
        .execution
        .data_start;
    for row in executions
        .iter()
        .filter(|row| row.execution.data_start <= last)
    {
        let start = row.execution.data_start;
        if start != next {
            say(
                &mut counters.losses,
                format!("no execution between {next} and {start}"),
            );
        }
        match records.get(&start) {
            None => say(
                &mut counters.losses,
                format!("no archived result of {start}"),
            ),
            Some(1) => {}
            Some(more) => say(
                &mut counters.duplicates,
                format!("{more} archived results of {start}"),
            ),
        }
        next = row.execution.data_end;
        counters.executions += 1;
    }
    // The service may have scored a window that the gateway had not heard of when both were stopped.
    let young = |key: &String| {
        let start = key.trim_start_matches("output/").split('/').next();
        start
            .and_then(|start| start.parse::<DateTime<Utc>>().ok())
            .is_some_and(|start| start > last)
    };
    let known = |key: &String| {
        executions.iter().any(|row| {
            row.execution
                .result
                .as_ref()
                .is_some_and(|object| object.key == *key)
        })
    };
    for key in results
        .keys()
        .filter(|key| key.ends_with("results.jsonl") && !known(key) && !young(key))
    {
        say(
            &mut counters.duplicates,
            format!("{key} belongs to no execution"),
        );
    }
    for name in ["quarantine", "spool"] {
        let aside = std::fs::read_dir(site.path(&format!("gateway/{name}"))).expect(name);
        if name == "quarantine" {
            for entry in aside {
                say(&mut counters.manual_steps, format!("set aside: {entry:?}"));
            }
        }
    }
    counters
}

fn verdict(counters: &Counters, seed: u64) {
    println!(
        "CHAOS seed {seed}: {}",
        serde_json::to_string(counters).expect("counters")
    );
    assert_eq!(
        (
            counters.losses,
            counters.duplicates,
            counters.byte_differences,
            counters.manual_steps
        ),
        (0, 0, 0, 0),
        "losses, duplicates, byte differences, manual steps"
    );
}

#[test]
fn an_hour_of_three_processes_with_restarts_of_each_gives_one_execution_and_one_archived_result_per_window()
 {
    let Some(mut site) = site(90.0) else { return };
    let began = site.now();
    site.wait_until(
        "the first result is archived",
        Duration::from_secs(60),
        |site| {
            site.executions()
                .iter()
                .any(|row| row.archived_at.is_some())
        },
    );
    let mut counters = Counters::default();
    // Each is killed twice and once stopped for longer than a window, and the store goes down under both.
    for who in [
        Who::Gateway,
        Who::Service,
        Who::Store,
        Who::Service,
        Who::Gateway,
        Who::Store,
    ] {
        std::thread::sleep(Duration::from_secs(3));
        site.kill(who);
        std::thread::sleep(Duration::from_millis(if counters.kills.len() < 3 {
            100
        } else {
            4_000
        }));
        site.launch(who);
        *counters.kills.entry(format!("{who:?}")).or_default() += 1;
    }
    let hour = began + TimeDelta::minutes(62);
    site.wait_until("an hour has passed", Duration::from_secs(120), |site| {
        site.now() >= hour
    });
    let judged = judge(&mut site, began);
    let counters = Counters {
        kills: counters.kills,
        ..judged
    };
    assert!(
        counters.windows >= 12 && counters.executions >= 11,
        "{counters:?}"
    );
    verdict(&counters, 0);
}

#[test]
fn killed_at_random_on_a_bad_network_nothing_is_lost_doubled_or_changed_and_nobody_has_to_act() {
    let kills: usize = number("LOOKOUTD_CHAOS_KILLS").unwrap_or(45) as usize;
    let seed = number("LOOKOUTD_SEED").unwrap_or_else(|| fastrand::u64(..));
    let Some(mut site) = site(60.0) else { return };
    println!("LOOKOUTD_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let began = site.now();
    site.wait_until(
        "the first result is archived",
        Duration::from_secs(60),
        |site| {
            site.executions()
                .iter()
                .any(|row| row.archived_at.is_some())
        },
    );
    let (begun, mut said) = (Instant::now(), Instant::now());
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    let mut changes = 0;
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(random.u64(200..2_400)));
        assert_eq!(site.ended(), [], "ended by themselves");
        if random.u8(..3) == 0 {
            changes += 1;
            let weather = match random.u8(..8) {
                0 => Weather::Slow(Duration::from_millis(random.u64(20..300))),
                1 => Weather::Narrow(random.usize(2_000..50_000)),
                2 => Weather::Resets(random.usize(..6_000)),
                3 => Weather::HalfOpen,
                4 => Weather::Refusing,
                _ => Weather::Clear,
            };
            site.networks[random.usize(..2)].set(weather);
        }
        let who = match random.u8(..10) {
            0..=4 => Who::Gateway,
            5..=8 => Who::Service,
            _ => Who::Store,
        };
        site.kill(who);
        // Mostly restarted at once, as a supervisor does; now and then after an outage.
        let outage = if random.u8(..20) == 0 { 6_000 } else { 300 };
        std::thread::sleep(Duration::from_millis(random.u64(..outage)));
        site.launch(who);
        *counted.entry(format!("{who:?}")).or_default() += 1;
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            println!(
                "{} kills in {:.0} s, {} windows",
                kill + 1,
                begun.elapsed().as_secs_f64(),
                site.entries().len()
            );
        }
    }
    for network in &site.networks {
        network.set(Weather::Clear);
    }
    site.store.wait_until_ready();
    let counters = Counters {
        kills: counted,
        changes_of_weather: changes,
        ..judge(&mut site, began)
    };
    assert!(counters.windows > 5, "{counters:?}");
    verdict(&counters, seed);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
