//! A mosquitto of a test's own, and its command-line publisher.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::rig::directory;
use crate::skipped;

pub struct Mosquitto {
    process: Child,
    port: u16,
    login: Option<(String, String)>,
    directory: tempfile::TempDir,
}

/// Where Debian has it, also for those without sbin in their path.
fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    places
        .map(|place| place.join(name))
        .find(|path| path.exists())
}

impl Mosquitto {
    /// With these lines in its configuration; none where it is not installed.
    pub fn start(lines: &[&str]) -> Option<Mosquitto> {
        let mut all = vec!["allow_anonymous true"];
        all.extend(lines);
        Mosquitto::run(&all, None)
    }

    pub fn with_password(user: &str, password: &str) -> Option<Mosquitto> {
        Mosquitto::run(
            &["allow_anonymous false"],
            Some((user.into(), password.into())),
        )
    }

    fn run(lines: &[&str], login: Option<(String, String)>) -> Option<Mosquitto> {
        if found("mosquitto").is_none() || found("mosquitto_pub").is_none() {
            skipped::say("mosquitto is not installed (Debian's mosquitto and mosquitto-clients)");
            return None;
        }
        let directory = directory();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut text = format!(
            "listener {port} 127.0.0.1\npersistence_location {}/\nautosave_interval 1\n",
            directory.path().display()
        );
        if let Some((user, password)) = &login {
            let file = directory.path().join("passwords");
            let made = Command::new(found("mosquitto_passwd").unwrap())
                .args(["-c", "-b"])
                .arg(&file)
                .args([user, password])
                .status();
            assert!(made.unwrap().success());
            text += &format!("password_file {}\n", file.display());
        }
        // It leaves root's rights for a user that cannot read what the test made.
        text += "user root\n";
        for line in lines {
            text += &format!("{line}\n");
        }
        std::fs::write(directory.path().join("mosquitto.conf"), text).unwrap();
        let process = spawn(directory.path());
        let broker = Mosquitto {
            process,
            port,
            login,
            directory,
        };
        broker.ready();
        Some(broker)
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    fn ready(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "mosquitto listens within 10 s");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// An orderly stop, which keeps what is to be kept, and a start.
    pub fn restart(&mut self) {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        self.process.wait().unwrap();
        self.process = spawn(self.directory.path());
        self.ready();
    }

    /// Subscriptions that were sent are in force.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    pub fn publish(&self, topic: &str, payload: &str) {
        self.say(&["-t", topic, "-m", payload], &[]);
    }

    /// As [`Mosquitto::publish`], through TLS with `ca.pem`, `gateway.pem` and `gateway.key` of a directory.
    pub fn publish_through(&self, directory: &Path, topic: &str, payload: &str) {
        let file = |name: &str| directory.join(name).display().to_string();
        let (ca, certificate, key) = (file("ca.pem"), file("gateway.pem"), file("gateway.key"));
        let tls = ["--cafile", &ca, "--cert", &certificate, "--key", &key];
        self.say(&[&tls[..], &["-t", topic, "-m", payload]].concat(), &[]);
    }

    pub fn retain(&self, topic: &str, payload: &str) {
        self.say(&["-r", "-t", topic, "-m", payload], &[]);
    }

    /// A message a line, all of which the broker has acknowledged when this returns.
    pub fn publish_lines(&self, topic: &str, lines: &[String]) {
        self.say(&["-t", topic, "-l"], lines);
    }

    /// A payload as it is.
    pub fn publish_bytes(&self, topic: &str, payload: &[u8]) {
        let file = self.directory.path().join("payload");
        std::fs::write(&file, payload).unwrap();
        self.say(&["-t", topic, "-f", &file.display().to_string()], &[]);
    }

    fn say(&self, arguments: &[&str], lines: &[String]) {
        let mut command = Command::new(found("mosquitto_pub").unwrap());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1"]);
        if let Some((user, password)) = &self.login {
            command.args(["-u", user, "-P", password]);
        }
        let mut process = command
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = process.stdin.take().unwrap();
        for line in lines {
            writeln!(input, "{line}").unwrap();
        }
        drop(input);
        assert!(process.wait().unwrap().success(), "{arguments:?}");
    }
}

fn spawn(directory: &Path) -> Child {
    Command::new(found("mosquitto").unwrap())
        .arg("-c")
        .arg(directory.join("mosquitto.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
