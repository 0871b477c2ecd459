//! The running process tells its judgement to commands: a socket in the data directory, for those who may enter that.
//!
//! Guarantees: commands judge nothing while a process runs; asking reads no archive and no ledger, so it costs the same at
//! any age; whether the loops are alive is answered without the disk. Deliberately absent: anything that changes state.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::health::judge;
use super::inputs::InputSnapshot;
use super::judgement::Judgement;
use crate::store::standing::Standing;

/// The socket's name in the data directory.
const SOCKET: &str = "lookoutd.sock";
/// How long a command waits for an answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// The longest path that a socket's address holds.
const LONGEST: usize = 100;

/// What the process says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Loops that do not look at their work.
    pub stalled: Vec<String>,
    /// Whether there is no blocking reason.
    pub ready: bool,
    /// Everything that is wrong, the gravest first; as /readyz has it.
    pub reasons: Vec<Reason>,
    /// When it was judged, UTC.
    pub at: Option<DateTime<Utc>>,
    /// How the embedded store stands.
    #[serde(default)]
    pub store: Option<Standing>,
    /// How its inputs are.
    #[serde(default)]
    pub inputs: Vec<InputSnapshot>,
    /// Starts of the windows of each asset that were delivered and never scored; only where that is asked.
    #[serde(default)]
    pub unscored: Vec<(String, Vec<DateTime<Utc>>)>,
}

/// A reason as /readyz has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What kind.
    pub code: String,
    /// What it is about.
    pub subject: Subject,
    /// Whether it makes the process unready.
    pub blocking: bool,
    /// Since when, UTC.
    pub since: String,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

/// What a reason is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The asset; empty until there are several.
    pub asset: String,
    /// The thing.
    pub thing: String,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether the loops are alive.
    Alive,
    /// Which windows were delivered and never scored.
    Unscored,
    /// The whole judgement.
    All,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("the daemon does not answer on {}: {source}", path.display())]
pub struct AskError {
    path: PathBuf,
    source: std::io::Error,
}

/// Answers until `shutdown`. A file system that has no sockets leaves commands without answers, which they say.
pub fn answer(data_dir: &Path, judgement: Judgement, shutdown: CancellationToken) {
    let path = data_dir.join(SOCKET);
    // One of the process before: the lock of the data directory is ours.
    let _ = std::fs::remove_file(&path);
    let listener = reachable(data_dir).and_then(|near| {
        let listener = UnixListener::bind(near.join(SOCKET))?;
        Ok((listener, near))
    });
    let (listener, _near) = match listener {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, path = %path.display(), "commands cannot ask this process: status and healthcheck judge from the disk");
            return;
        }
    };
    tokio::spawn(async move {
        let _near = _near;
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let judgement = judgement.clone();
                    tokio::spawn(async move {
                        if let Err(error) = tell(stream, &judgement).await {
                            debug!(%error, "a command went away");
                        }
                    });
                }
                Err(error) => {
                    debug!(%error, "a command's question was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let _ = std::fs::remove_file(&path);
    });
}

async fn tell(mut stream: tokio::net::UnixStream, judgement: &Judgement) -> anyhow::Result<()> {
    let mut question = [0];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut question)).await??;
    let stalled: Vec<String> = judgement
        .site()
        .map(|site| site.vitals.stuck())
        .unwrap_or_default()
        .into_iter()
        .map(|one| one.name.to_owned())
        .collect();
    let mut told = Told {
        stalled,
        ..Told::default()
    };
    if question == *b"?" {
        match judgement.snapshot().await? {
            Some(snapshot) => {
                let readiness = judge(&snapshot);
                told.ready = readiness.ready;
                told.at = Some(snapshot.now);
                told.store.clone_from(&snapshot.store);
                told.inputs.clone_from(&snapshot.inputs);
                told.reasons = readiness.reasons.iter().map(Reason::from).collect();
            }
            None => told.reasons.push(Reason {
                code: "starting".into(),
                blocking: true,
                text: "it starts".into(),
                ..Reason::default()
            }),
        }
    }
    if question == *b"w"
        && let (Some(site), Some(snapshot)) = (judgement.site(), judgement.snapshot().await?)
    {
        let never = move || site.never_scored_of_all(&snapshot);
        told.unscored = crate::feed::blocking(never).await?;
    }
    stream.write_all(&serde_json::to_vec(&told)?).await?;
    stream.shutdown().await?;
    Ok(())
}

/// Asks the process that runs on `data_dir`. Blocks for some seconds at most.
pub fn ask(data_dir: &Path, question: Question) -> Result<Told, AskError> {
    let talk = || -> std::io::Result<Told> {
        let near = reachable(data_dir)?;
        let mut stream = UnixStream::connect(near.join(SOCKET))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(match question {
            Question::Alive => b"!",
            Question::All => b"?",
            Question::Unscored => b"w",
        })?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    };
    talk().map_err(|source| AskError {
        path: data_dir.join(SOCKET),
        source,
    })
}

/// A short way to a directory: a socket's address holds no long path.
enum Near {
    Itself(PathBuf),
    Opened(std::fs::File),
}

impl Near {
    fn join(&self, name: &str) -> PathBuf {
        use std::os::fd::AsRawFd;
        match self {
            Self::Itself(path) => path.join(name),
            Self::Opened(file) => {
                PathBuf::from(format!("/proc/self/fd/{}/{name}", file.as_raw_fd()))
            }
        }
    }
}

fn reachable(directory: &Path) -> std::io::Result<Near> {
    if directory.as_os_str().len() + SOCKET.len() < LONGEST {
        return Ok(Near::Itself(directory.to_owned()));
    }
    std::fs::File::open(directory).map(Near::Opened)
}

impl From<&super::health::Reason> for Reason {
    fn from(reason: &super::health::Reason) -> Self {
        Self {
            code: reason.code.name().to_owned(),
            subject: Subject {
                asset: reason.subject.asset.clone(),
                thing: reason.subject.thing.clone(),
            },
            blocking: reason.blocking,
            since: reason.since.to_rfc3339_opts(SecondsFormat::Secs, true),
            text: reason.text.clone(),
            remedy: reason.remedy.clone().into_owned(),
        }
    }
}
