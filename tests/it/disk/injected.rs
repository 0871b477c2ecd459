//! The real binary on a disk that refuses: strace makes chosen calls on chosen files fail, as a dying or full disk would.
//! Without strace these tests say SKIP.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use lookoutd::embedded::KeyPair;
use lookoutd::s3::{Bucket, Created};

use crate::rig::{client, directory};

/// lookoutd under strace.
struct Traced {
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: PathBuf,
    lock: PathBuf,
}

impl Traced {
    /// Starts `lookoutd ARGUMENTS` with `inject` on the calls that touch `paths` (all calls where there are none); `None`
    /// without strace.
    fn start(data_dir: &Path, inject: &str, paths: &[PathBuf], arguments: &[&str]) -> Option<Self> {
        if Command::new("strace").arg("-V").output().is_err() {
            crate::skipped::say("strace is not installed");
            return None;
        }
        let calls = inject.split(':').next().unwrap();
        let log = data_dir.with_extension("log");
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qqq", "--signal=none", "-o"])
            .arg(data_dir.with_extension("trace"))
            .args([
                "-e",
                &format!("trace={calls}"),
                "-e",
                &format!("inject={inject}"),
            ]);
        for path in paths {
            command.arg("-P").arg(path);
        }
        let mut child = command
            .arg(env!("CARGO_BIN_EXE_lookoutd"))
            .args(arguments)
            .arg("--data-dir")
            .arg(data_dir)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Some(Self {
            child,
            stdout,
            log,
            lock: data_dir.join("lock"),
        })
    }

    fn serve(data_dir: &Path, inject: &str, paths: &[PathBuf]) -> Option<Self> {
        let listen = ["--listen", "127.0.0.1:0", "--s3-listen", "127.0.0.1:0"];
        let arguments = [&["serve", "--admin-listen", ""][..], &listen].concat();
        Self::start(data_dir, inject, paths, &arguments)
    }

    /// The address in the line of its output that begins with `label`.
    fn address(&mut self, label: &str) -> String {
        let found = self.address_if_served(label);
        found.unwrap_or_else(|| panic!("no line {label}: {}", self.said()))
    }

    /// The same, where it comes so far.
    fn address_if_served(&mut self, label: &str) -> Option<String> {
        let mut line = String::new();
        while self.stdout.read_line(&mut line).unwrap() > 0 {
            if line.starts_with(label) {
                let mut words = line.split_whitespace();
                let url = words.find(|word| word.starts_with("http"));
                return url.map(str::to_owned);
            }
            line.clear();
        }
        None
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for its end.
    fn code(&mut self) -> Option<i32> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // strace ends with what it traces, which says in its lock who it is.
        let pid = std::fs::read_to_string(&self.lock).unwrap_or_default();
        drop(Command::new("kill").args(["-TERM", pid.trim()]).status());
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.child.kill());
    }
}

#[tokio::test]
async fn an_object_that_the_disk_will_not_keep_is_refused_and_not_there_until_it_is_written_again()
{
    let key = |n: usize| format!("input/pump/{n:02}.csv");
    let (small, large) = (b"1,2\n".to_vec(), vec![b'7'; 300_000]);
    // The log of the rows; a large body, and the directory that its name is in: each is synced before a 200.
    for (what, path, bytes) in [
        ("rows", "store.db-wal", &small),
        ("body", "bodies/making-0", &large),
        ("directory", "bodies", &large),
    ] {
        let scratch = directory();
        let data_dir = scratch.path().join("data");
        let path = data_dir.join("s3").join(path);
        // The start syncs as well, so many times; then the disk refuses. strace counts for each thread, so that the thread that
        // writes may come as far once more.
        let mut served = None;
        for earlier in 0..32 {
            let inject = format!("fsync,fdatasync:error=EIO:when={}+", earlier + 1);
            let paths = std::slice::from_ref(&path);
            let Some(mut serve) = Traced::serve(&data_dir, &inject, paths) else {
                return;
            };
            if let Some(url) = serve.address_if_served("S3 ") {
                served = Some((serve, url));
                break;
            }
        }
        let (serve, url) = served.expect("a start");
        let keys = KeyPair::load_or_create(&data_dir).unwrap();
        let bucket = Bucket::new(client(&url, &keys), "lookoutd");
        let mut kept = Vec::new();
        let refused = loop {
            match bucket.create(&key(kept.len()), bytes).await {
                Ok(_) => kept.push(key(kept.len())),
                Err(error) => break error,
            }
            assert!(kept.len() < 32, "{what}: never refused");
        };
        let key = key(kept.len());
        let status = refused.failure.status;
        assert!(matches!(status, Some(500 | 503)), "{what}: {refused}");
        let listed = bucket.list("input/", "", |_| true).await.unwrap();
        assert_eq!(listed, kept, "{what}");
        assert_eq!(bucket.get(&key).await.unwrap(), None, "{what}");
        let said = serve.said();
        assert!(said.contains("WARN"), "{what}: {said}");
        drop(serve);
        // The same on a disk that works again: nothing is in the way of the next attempt.
        let mut serve = Traced::serve(&data_dir, "fsync:retval=0:when=65535", &[]).unwrap();
        let bucket = Bucket::new(client(&serve.address("S3 "), &keys), "lookoutd");
        let created = bucket.create(&key, bytes).await.unwrap();
        // What was refused is absent or whole: rows may have reached the log all the same, and are seen at the next start.
        let fine = matches!(created, Created::Written)
            || what == "rows" && matches!(created, Created::AlreadyThere);
        assert!(fine, "{what}: {created:?}");
        assert!(
            bucket.get(&key).await.unwrap().as_ref() == Some(bytes),
            "{what}"
        );
        let bodies = std::fs::read_dir(data_dir.join("s3/bodies")).unwrap();
        assert_eq!(
            bodies.count(),
            usize::from(bytes.len() > 1000),
            "{what}: left behind"
        );
    }
}

#[test]
fn a_disk_that_refuses_at_the_start_ends_run_and_serve_with_73_and_the_file() {
    let run = [
        "run",
        "--once",
        "--set",
        "admin.listen=",
        "--set",
        "service.listen=127.0.0.1:0",
        "--set",
        "service.s3_listen=127.0.0.1:0",
    ];
    let serve = [
        "serve",
        "--admin-listen",
        "",
        "--listen",
        "127.0.0.1:0",
        "--s3-listen",
        "127.0.0.1:0",
    ];
    // What is written, and how it is called where the refusal is told.
    for (file, told, commands) in [
        (".credentials.new", "credentials", &[&run[..], &serve][..]),
        ("service/state.db", "state.db", &[&run, &serve]),
        ("service/state.db-wal", "state.db", &[&run, &serve]),
        ("ledger.db", "ledger.db", &[&run]),
        ("ledger.db-wal", "ledger.db", &[&run]),
    ] {
        for inject in [
            "fsync,fdatasync:error=EIO",
            "write,pwrite64,writev:error=ENOSPC",
        ] {
            for arguments in commands {
                let scratch = directory();
                let data_dir = scratch.path().join("data");
                let paths = [data_dir.join(file)];
                let Some(mut traced) = Traced::start(&data_dir, inject, &paths, arguments) else {
                    return;
                };
                let code = traced.code();
                let said = traced.said();
                let what = format!("{file} {inject} {}: {said}", arguments[0]);
                assert!(!said.contains("panicked"), "{what}");
                assert_eq!(code, Some(73), "{what}");
                let path = data_dir.display().to_string();
                assert!(said.contains(&path) && said.contains(told), "{what}");
            }
        }
    }
}
