//! One judgement: whatever is wrong, `status`, `/readyz`, `healthcheck`, the console and the last notification say the same.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use lookoutd::clock::Clock;
use lookoutd::console;
use lookoutd::notify::{self, Notifier, Pace};
use lookoutd::ops::admin::{Admin, Config};
use lookoutd::ops::judgement::Judgement;
use lookoutd::ops::site::{AssetSite, Site, Watched};
use lookoutd::ops::{ask, lock};
use lookoutd::vitals::{Code, Trouble, Vitals};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::get;

/// Everything that shows the judgement of one process, over the same data directory.
struct Shown {
    directory: tempfile::TempDir,
    address: std::net::SocketAddr,
    vitals: Vitals,
    watched: Watched,
    clock: Clock,
    _lock: lock::DataDirLock,
    _sites: watch::Sender<Option<Site>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Shown {
    async fn start() -> Shown {
        let directory = tempfile::tempdir().unwrap();
        let held = lock::lock(directory.path()).unwrap();
        let (vitals, watched, clock) = (Vitals::default(), Watched::default(), Clock::system());
        let (sites, seen) = watch::channel(Some(Site {
            inputs: Vec::new(),
            store: None,
            clock: clock.clone(),
            history: None,
            archive: None,
            s3: None,
            assets: vec![AssetSite {
                watched: watched.clone(),
                ..AssetSite::default()
            }],
            vitals: vitals.clone(),
        }));
        let (judgement, stop) = (Judgement::from(seen), CancellationToken::new());
        ask::answer(directory.path(), judgement.clone(), stop.clone());
        let program = directory.path().join("page");
        let told = directory.path().join("told");
        std::fs::write(
            &program,
            format!("#!/bin/sh\ncat >> {0}\necho >> {0}\n", told.display()),
        )
        .unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(&told, "").unwrap();
        let config = notify::Config {
            command: vec![program.display().to_string()],
            per_hour: 1_000,
            ..notify::Config::default()
        };
        let pace = Pace {
            every: Duration::from_millis(50),
            settle: Duration::ZERO,
            pause: Duration::from_millis(50),
        };
        let notifier = Notifier::open(&config, directory.path()).unwrap().unwrap();
        notifier.start(judgement.clone(), pace, stop.clone());
        let config = Config {
            listen: "127.0.0.1:0".into(),
            ..Config::default()
        };
        let admin = Admin::start(&config, judgement, console::router(), stop.clone())
            .await
            .unwrap()
            .unwrap();
        Shown {
            address: admin.address(),
            directory,
            vitals,
            watched,
            clock,
            _lock: held,
            _sites: sites,
            _stop: stop.drop_guard(),
        }
    }

    /// A command over the data directory: exit status and what it says.
    async fn command(&self, words: &[&str]) -> (i32, String) {
        let (words, directory): (Vec<String>, _) = (
            words.iter().map(|word| (*word).to_owned()).collect(),
            self.directory.path().to_owned(),
        );
        tokio::task::spawn_blocking(move || command(&words, &directory))
            .await
            .unwrap()
    }

    /// State and kind of the last message.
    fn told(&self) -> Option<(String, String, Value)> {
        let text = std::fs::read_to_string(self.directory.path().join("told")).unwrap();
        let last = text.lines().rfind(|line| !line.is_empty())?;
        let message: Value = serde_json::from_str(last).ok()?;
        let word = |name: &str| message[name].as_str().unwrap().to_owned();
        Some((word("state"), word("kind"), message))
    }

    /// Waits until /readyz has just these codes.
    async fn until(&self, codes: &[&str]) -> Value {
        let began = Instant::now();
        loop {
            let answer = get(self.address, "/readyz", "").await;
            let json: Value = serde_json::from_str(&answer.body).unwrap();
            let found: Vec<&str> = json["reasons"]
                .as_array()
                .unwrap()
                .iter()
                .map(|reason| reason["code"].as_str().unwrap())
                .collect();
            if found == codes {
                assert_eq!(answer.status == 200, json["ready"] == true);
                return json;
            }
            assert!(
                began.elapsed() < Duration::from_secs(90),
                "{codes:?} wanted, {json}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn until_told(&self, state: &str, kind: &str) -> Value {
        let began = Instant::now();
        loop {
            if let Some((is, of, message)) = self.told()
                && (is.as_str(), of.as_str()) == (state, kind)
            {
                return message;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{state} {kind} wanted, {:?}",
                self.told()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn command(words: &[String], directory: &Path) -> (i32, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_lookoutd"))
        .args(words)
        .arg("--data-dir")
        .arg(directory)
        .env_remove("LOOKOUTD_CONFIG")
        .output()
        .unwrap();
    (
        done.status.code().unwrap(),
        String::from_utf8(done.stdout).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn status_readyz_healthcheck_console_and_the_last_notification_say_the_same() {
    let shown = Shown::start().await;
    shown.until(&[]).await;
    let hour_ago = shown.clock.now() - TimeDelta::hours(1);
    let codes = [
        Code::StoreRefuses,
        Code::StoreUnreachable,
        Code::SpoolPaused,
        Code::SourceFailing,
        Code::SchedulerRefused,
        Code::SchedulerDiffers,
        Code::ResultsUnreadable,
        Code::NotificationsFailing,
        Code::AdminUnavailable,
        Code::ConfigurationRefused,
        Code::ModelUnusable,
        Code::JobsFailing,
    ];
    for code in codes {
        let text = format!("this is {code}, staged");
        shown.vitals.troubles().raise(
            Trouble::new(code, hour_ago, text.as_str(), "do something about it").about("pump"),
        );
        let ready = shown.until(&[code.name()]).await;
        let reason = &ready["reasons"][0];
        assert_eq!(reason["subject"]["thing"], "pump");
        assert_eq!(reason["subject"]["asset"], "");
        assert_eq!(ready["ready"], !code.is_blocking(), "{code}");

        let (exit, said) = shown.command(&["status"]).await;
        assert_eq!(exit, 3, "{said}");
        let first = said.lines().next().unwrap();
        let word = if code.is_blocking() {
            "NOT READY: "
        } else {
            "ATTENTION: "
        };
        assert!(first.starts_with(word) && first.contains(&text), "{said}");
        assert!(said.contains("do something about it"), "{said}");
        let (_, json) = shown.command(&["status", "--output", "json"]).await;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["reasons"][0], *reason);

        // Nobody restarts a gateway for that.
        let (exit, said) = shown.command(&["healthcheck"]).await;
        assert_eq!(exit, 0, "{said}");
        assert_eq!(get(shown.address, "/livez", "").await.status, 200);

        let page = get(shown.address, "/", "").await.body;
        assert!(
            page.contains(&text) && !page.contains("All is well"),
            "{code}"
        );

        let message = shown.until_told("firing", code.name()).await;
        assert_eq!(message["since"], reason["since"]);
        assert_eq!(message["text"], reason["text"]);
        assert_eq!(message["remedy"], reason["remedy"]);
        assert_eq!(message["subject"], "pump");
        assert_eq!(message["asset"], "");
        let severity = if code.is_blocking() {
            "problem"
        } else {
            "attention"
        };
        assert_eq!(message["severity"], severity);

        shown.vitals.troubles().over(code, "pump");
        shown.until(&[]).await;
        shown.until_told("resolved", code.name()).await;
        let (exit, said) = shown.command(&["status"]).await;
        assert!(exit == 0 && said.starts_with("OK: "), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_stands_fails_the_probes_and_they_are_well_again_afterwards() {
    let shown = Shown::start().await;
    let pulse = shown.vitals.pulse("schedules", Duration::from_millis(1));
    shown.until(&["loop-stalled"]).await;
    assert_eq!(get(shown.address, "/livez", "").await.status, 503);
    let (exit, said) = shown.command(&["healthcheck"]).await;
    assert!(exit == 1 && said.contains("schedules"), "{said}");
    let (exit, said) = shown.command(&["status"]).await;
    assert!(exit == 3 && said.contains("loop-stalled"), "{said}");
    let _beating = shown.vitals.pulse("schedules", Duration::from_secs(600));
    pulse.beat();
    shown.until(&[]).await;
    assert_eq!(get(shown.address, "/livez", "").await.status, 200);
    assert_eq!(shown.command(&["healthcheck"]).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_that_is_gone_is_told_with_its_name() {
    let shown = Shown::start().await;
    let hour_ago = shown.clock.now() - TimeDelta::hours(1);
    shown.watched.seen("pump", None, "RUNNING", hour_ago);
    let ready = shown.until(&["scheduler-gone"]).await;
    assert_eq!(ready["reasons"][0]["subject"]["thing"], "pump");
    let message = shown.until_told("firing", "scheduler-gone").await;
    assert_eq!(message["subject"], "pump");
}
