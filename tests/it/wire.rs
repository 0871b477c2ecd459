//! The wire against clients nobody here wrote: boto3, the AWS CLI and the official SDK `lookoutequipment`, in `tests/wire`.
//!
//! `LOOKOUTD_PYTHON` names a Python with `tests/requirements.txt` installed; without it the tests say loudly that they
//! are skipped. The servers are in process with schedules at 60 times real time, and once more the real `lookoutd serve`.
//! The notebooks run from first to last on the sample plant with all its signals.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lookoutd::clock::Clock;
use lookoutd::daemon::service_config;
use lookoutd::embedded::{EmbeddedS3, KeyPair};
use lookoutd::s3::local_client;
use lookoutd::sample::{SampleOptions, write_sample};
use lookoutd::service::Service;
use tokio_util::sync::CancellationToken;

const SPEED: f64 = 60.0;
/// A run that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(540);
const SCHEDULER_PART: &str = "test_the_notebooks_scheduler_part_runs_through_the_sdk";

/// Days of the sample plant: three weeks to learn from, and its last fault.
const PLANT_DAYS: u32 = 45;
const NOTEBOOKS: &str = "tests/wire/test_notebooks.py";

#[tokio::test(flavor = "multi_thread")]
async fn unmodified_clients_run_every_operation() {
    let Some(python) = python() else { return };
    against_servers_in_process(&python, |pytest, _| {
        pytest.args(["tests/wire", "--ignore", NOTEBOOKS]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_notebooks_run_from_first_to_last_on_the_sample_plant() {
    let Some(python) = python() else { return };
    against_servers_in_process(&python, |pytest, scratch| {
        let plant = scratch.join("plant");
        let options = SampleOptions {
            days: PLANT_DAYS,
            ..SampleOptions::default()
        };
        write_sample(&plant, &options, &mut |_| {}).unwrap();
        pytest.env("LOOKOUTD_PLANT", plant).arg(NOTEBOOKS);
    })
    .await;
}

/// Runs pytest against an S3 and a service of this process whose schedules run at `SPEED`.
async fn against_servers_in_process(python: &Path, prepare: impl FnOnce(&mut Command, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    let keys = KeyPair::load_or_create(directory.path()).unwrap();
    let stop = CancellationToken::new();
    let any = "127.0.0.1:0".parse().unwrap();
    let s3 = EmbeddedS3::start(&directory.path().join("s3"), any, &keys, stop.clone())
        .await
        .unwrap();
    let service = Service::start(
        service_config(any, directory.path().join("service"), &keys),
        local_client(&s3.endpoint_url(), &keys.access_key, &keys.secret_key),
        Clock::accelerated(Clock::system().now(), SPEED),
        stop.clone(),
    )
    .await
    .unwrap();
    let mut pytest = pytest(
        python,
        &format!("http://{}", service.address()),
        &s3.endpoint_url(),
    );
    pytest
        .env("LOOKOUTD_SPEED", SPEED.to_string())
        .env("AWS_ACCESS_KEY_ID", &keys.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &keys.secret_key);
    prepare(&mut pytest, directory.path());
    let scratch = directory.path().to_owned();
    tokio::task::spawn_blocking(move || assert_passes(pytest, &scratch))
        .await
        .unwrap();
    stop.cancel();
    service.stopped().await;
}

#[test]
fn the_notebooks_scheduler_cells_run_against_lookoutd_serve() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let printed = directory.path().join("serve.out");
    let server = Command::new(env!("CARGO_BIN_EXE_lookoutd"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args([
            "--s3-listen",
            "127.0.0.1:0",
            "--admin-listen",
            "",
            "--data-dir",
        ])
        .arg(directory.path())
        .env_remove("LOOKOUTD_CONFIG")
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&printed).unwrap())
        .spawn()
        .unwrap();
    let _server = Killed(server);
    let begun = Instant::now();
    let (api, s3) = loop {
        let text = std::fs::read_to_string(&printed).unwrap();
        if text.contains("credentials") {
            break (url(&text, "Lookout API"), url(&text, "S3"));
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{text}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let mut pytest = pytest(&python, &api, &s3);
    pytest
        .env(
            "AWS_SHARED_CREDENTIALS_FILE",
            directory.path().join("credentials"),
        )
        .args(["tests/wire/test_sdk.py", "-k", SCHEDULER_PART]);
    assert_passes(pytest, directory.path());
}

/// A server that does not outlive its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn python() -> Option<PathBuf> {
    crate::skipped::python()
}

/// pytest with nothing of the caller's AWS configuration.
fn pytest(python: &Path, api: &str, s3: &str) -> Command {
    let mut command = Command::new(python);
    let inherited = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in inherited.filter(|name| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MPLBACKEND", "Agg")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("LOOKOUTD_ENDPOINT", api)
        .env("LOOKOUTD_S3_ENDPOINT", s3);
    command
}

/// Runs it to its end, shows what it printed, and wants every test passed and none skipped.
fn assert_passes(mut command: Command, scratch: &Path) {
    let path = scratch.join("pytest.out");
    let file = std::fs::File::create(&path).unwrap();
    let child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .expect("LOOKOUTD_PYTHON starts");
    let mut child = Killed(child);
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break Some(status);
        }
        if begun.elapsed() > DEADLINE {
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let text = std::fs::read_to_string(&path).unwrap();
    println!("{text}");
    let status = status.unwrap_or_else(|| panic!("pytest did not end within {DEADLINE:?}"));
    assert!(status.success(), "pytest: {status}\n{text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(
        last.contains("passed") && !last.contains("skipped"),
        "{last}\n{text}"
    );
}

/// The address that `lookoutd serve` printed in the line that begins with `label`.
fn url(text: &str, label: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(label));
    let url = line.and_then(|line| {
        line.split_whitespace()
            .find(|word| word.starts_with("http"))
    });
    url.unwrap_or_else(|| panic!("no {label} in {text}"))
        .to_owned()
}
