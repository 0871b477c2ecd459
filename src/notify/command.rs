//! The command hook: a program on this machine that is given one message as JSON on its standard input.
//!
//! Guarantees: it is started directly, with the configured arguments and nothing of the message in them, so that no name
//! from a plant can become a command; it gets none of this process's environment but `PATH` and `LANG`; it and what it
//! started are killed at the timeout; no more of its error output is kept than is shown. Success is exit status 0.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use super::{NotifyError, Refused};

/// As much of the error output as is kept.
const MOST_SAID: u64 = 2_048;

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Command {
    program: PathBuf,
    arguments: Vec<String>,
    timeout: Duration,
}

impl Command {
    /// The program of `argv`, which must be there and executable.
    pub fn new(argv: &[String], timeout: Duration) -> Result<Self, NotifyError> {
        let (program, arguments) = match argv {
            [program, arguments @ ..] => (PathBuf::from(program), arguments.to_vec()),
            [] => (PathBuf::new(), Vec::new()),
        };
        let wrong = |what: String| NotifyError::Command {
            path: program.clone(),
            what,
        };
        let known = std::fs::metadata(&program)
            .map_err(|error| wrong(format!("{error}; name an executable file")))?;
        if !known.is_file() || known.permissions().mode() & 0o111 == 0 {
            return Err(wrong("is not an executable file: chmod 755 it".into()));
        }
        Ok(Self {
            program,
            arguments,
            timeout,
        })
    }

    /// The program, without its arguments.
    pub fn place(&self) -> String {
        self.program.display().to_string()
    }

    /// Runs it once with `body` on standard input.
    pub async fn send(&self, body: &str) -> Result<String, Refused> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for name in ["PATH", "LANG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let mut child = command
            .spawn()
            .map_err(|error| failed(format!("does not start: {error}")))?;
        // What is dropped on the way is killed with all it started.
        let mut group = Group(child.id());
        let outcome = tokio::time::timeout(self.timeout, talk(&mut child, body)).await;
        let Ok((status, said)) = outcome else {
            return Err(failed(format!(
                "not done within {:?}: killed",
                self.timeout
            )));
        };
        group.0 = None;
        let status = status.map_err(|error| failed(error.to_string()))?;
        let said = if said.is_empty() {
            String::new()
        } else {
            format!(": {said}")
        };
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(format!("exit status 0{said}")),
            (Some(code), _) => Err(failed(format!("exit status {code}{said}"))),
            (None, signal) => Err(failed(format!(
                "killed by signal {}{said}",
                signal.unwrap_or_default()
            ))),
        }
    }
}

/// Writes, reads and waits at once, so that neither side waits for the other.
async fn talk(
    child: &mut Child,
    body: &str,
) -> (std::io::Result<std::process::ExitStatus>, String) {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input is free to.
            let _ = stdin.write_all(body.as_bytes()).await;
            let _ = stdin.write_all(b"\n").await;
        }
    };
    let read = async {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = (&mut stderr).take(MOST_SAID).read_to_end(&mut said).await;
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
        super::rules::line(&String::from_utf8_lossy(&said), 300)
    };
    let ((), said, status) = tokio::join!(write, read, child.wait());
    (status, said)
}

/// The process group of a child.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

fn failed(text: String) -> Refused {
    Refused {
        text,
        malformed: false,
        wait: None,
    }
}
