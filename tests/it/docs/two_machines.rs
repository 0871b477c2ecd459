//! The gateway and the service of docs/gateway-and-service.md, done as it says with two data directories on this machine: its
//! certificate, its files and its commands, up to the first result. Only places, ports and the pace of time are others.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use lookoutd::sample::{SampleOptions, write_sample};

use super::{blocks, commands, root, words};
use crate::commands::lookoutd;
use crate::rig::directory;

/// How much faster time runs: a window every four seconds.
const SPEED: &str = "75";

/// A process that ends with its test.
pub struct Process(pub Child);

impl Process {
    /// Ends it as systemd does.
    pub fn stop(mut self) {
        let ended = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(ended.unwrap().success());
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the service with these options; the ports of its API and its S3.
pub fn serve(place: &Path, options: &str) -> (Process, String, String) {
    let mut child = lookoutd()
        .current_dir(place)
        .args(["serve", "--data-dir", "service", "--admin-listen", ""])
        .args(words(options))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut port = |name: &str| {
        let line = said.find(|line| line.as_ref().is_ok_and(|line| line.starts_with(name)));
        let line = line.unwrap().unwrap();
        let address = line.split_whitespace().find(|word| word.contains("://"));
        address.unwrap().rsplit_once(':').unwrap().1.to_owned()
    };
    let (api, s3) = (port("Lookout API"), port("S3"));
    (Process(child), api, s3)
}

#[test]
fn a_gateway_and_a_service_set_up_as_the_document_says_come_to_a_result() {
    if Command::new("openssl").arg("version").output().is_err() {
        crate::skipped::say("openssl is not installed, which makes the certificate of this test");
        return;
    }
    let text = std::fs::read_to_string(root().join("docs/gateway-and-service.md")).unwrap();
    let lines = commands(&text);
    let place = directory();
    let here = place.path().display().to_string();
    let options = SampleOptions {
        days: 20,
        signals: 8,
        ..SampleOptions::default()
    };
    write_sample(place.path(), &options, &mut |_| {}).unwrap();
    let mapped = |text: &str| {
        text.replace("/var/lib/lookoutd-serve", &format!("{here}/service"))
            .replace("/var/lib/lookoutd", &format!("{here}/gateway"))
            .replace("/srv/plant/", &format!("{here}/"))
            .replace("/etc/lookoutd/", &format!("{here}/"))
            .replace("/tmp/pump.model", &format!("{here}/pump.model"))
            .replace("service.example", "localhost")
    };
    let line = |begin: &str| {
        let found = lines.iter().find(|line| line.contains(begin));
        found
            .unwrap_or_else(|| panic!("no command {begin}"))
            .clone()
    };
    let run = |line: &str| {
        let (_, arguments) = line.split_once("lookoutd ").unwrap();
        let mut command = lookoutd();
        if line.contains("lookoutd check") {
            command.env("LOOKOUTD_CONFIG", place.path().join("lookoutd.toml"));
        }
        let output = command
            .current_dir(place.path())
            .env("SSL_CERT_FILE", place.path().join("chain.pem"))
            .args(words(&mapped(arguments)))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {said}{errors}");
        said
    };

    let openssl = words(&mapped(&line("openssl req")));
    let made = Command::new("openssl")
        .args(&openssl[1..])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let (_, options) = blocks(&text, "text")
        .into_iter()
        .find(|(_, block)| block.starts_with("OPTIONS="))
        .unwrap();
    let since = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    let options = mapped(options.trim().strip_prefix("OPTIONS=").unwrap())
        .replace("0.0.0.0:9180", "127.0.0.1:0")
        .replace("0.0.0.0:9190", "127.0.0.1:0")
        + &format!(" --speed {SPEED} --since {since}");
    let (service, ..) = serve(place.path(), &options);
    run(&line("model train"));
    service.stop();
    run(&line("model register").replace("runuser -u lookoutd -- ", ""));
    let (service, api, s3) = serve(place.path(), &options);
    std::fs::copy(
        place.path().join("service/credentials"),
        place.path().join("aws-credentials"),
    )
    .unwrap();
    let (_, configuration) = blocks(&text, "toml").swap_remove(0);
    let configuration = mapped(&configuration)
        .replace(":9180", &format!(":{api}"))
        .replace(":9190", &format!(":{s3}"));
    std::fs::write(
        place.path().join("lookoutd.toml"),
        configuration + "[admin]\nlisten = \"\"\n",
    )
    .unwrap();
    let checked = run(&line("lookoutd check"));
    assert!(checked.contains("lookoutd run creates it"), "{checked}");
    let gateway = lookoutd()
        .env("SSL_CERT_FILE", place.path().join("chain.pem"))
        .args(["run", "--speed", SPEED, "--since", &since, "--config"])
        .arg(place.path().join("lookoutd.toml"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let gateway = Process(gateway);
    let began = Instant::now();
    loop {
        let results = lookoutd()
            .args(["results", "--config"])
            .arg(place.path().join("lookoutd.toml"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&results.stdout).into_owned();
        if said.contains("SUCCESS") {
            assert!(said.contains("pump-scheduler"), "{said}");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "{said}");
        std::thread::sleep(Duration::from_millis(500));
    }
    gateway.stop();
    service.stop();
}
