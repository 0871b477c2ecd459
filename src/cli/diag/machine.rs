//! The machine and the process: version, unit, log, clock, disk and memory. Programs of the system are asked with a limit,
//! for named properties only, because others (`Environment=`) may hold secrets.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tokio::process::Command;

use super::bundle::Found;
use super::state::reader;
use crate::cli::output::{bytes, utc};
use crate::config::Config;

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is asked of the unit.
const UNIT: &str = "Id,LoadState,ActiveState,SubState,UnitFileState,Result,NRestarts,MainPID,ExecMainPID,ExecMainCode,\
ExecMainStatus,ExecMainStartTimestamp,ExecMainExitTimestamp,ActiveEnterTimestamp,InactiveEnterTimestamp,StatusText,\
StatusErrno,WatchdogUSec,WatchdogTimestamp,NeedDaemonReload,FragmentPath,DropInPaths,User,Group,StateDirectory,\
MemoryCurrent,MemoryPeak,MemoryHigh,MemoryMax,TasksCurrent,TasksMax,CPUUsageNSec,LimitNOFILE,Restart,RestartUSec,\
TimeoutStopUSec";
/// What is asked of the clock.
const CLOCK: &str = "Timezone,LocalRTC,CanNTP,NTP,NTPSynchronized,TimeUSec,RTCTimeUSec";
/// The end of a log file that is read.
const TAIL: u64 = 4 << 20;

/// This program, and the one that holds the data directory.
pub fn version(holder: Option<u32>) -> Found {
    let executable = std::env::current_exe().ok();
    let size = executable
        .as_ref()
        .and_then(|path| std::fs::metadata(path).ok());
    let system = read("/etc/os-release");
    let line = |name: &str| {
        let found = system
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.map(|value| value.trim_matches('"').to_owned())
    };
    let kernel = rustix::system::uname();
    let value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "rust": env!("CARGO_PKG_RUST_VERSION"),
        "build": {
            "optimised": !cfg!(debug_assertions),
            "static": cfg!(target_feature = "crt-static"),
            "architecture": std::env::consts::ARCH,
        },
        "executable": executable.as_ref().map(|path| path.display().to_string()),
        "executable_bytes": size.map(|about| about.len()),
        // "(deleted)" behind it: the package was upgraded, and the daemon not restarted.
        "daemon_executable": holder.and_then(|id| {
            let link = std::fs::read_link(format!("/proc/{id}/exe")).ok()?;
            Some(link.display().to_string())
        }),
        "system": line("PRETTY_NAME"),
        "kernel": kernel.release().to_string_lossy(),
    });
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    Found::json(
        format!(
            "lookoutd {}, {build} build, {}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH
        ),
        &value,
        true,
    )
}

/// The unit as systemd sees it.
pub async fn unit(name: &str) -> Found {
    match ask("systemctl", &["show", name, "--no-pager", "-p", UNIT]).await {
        Ok(text) if text.contains("LoadState=not-found") => {
            Found::missing(format!("systemd knows no unit {name}"))
        }
        Ok(text) if !text.trim().is_empty() => {
            let value = |key: &str| {
                let found = text
                    .lines()
                    .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
                found.unwrap_or_default().to_owned()
            };
            let (state, sub, restarts) =
                (value("ActiveState"), value("SubState"), value("NRestarts"));
            let holds = format!(
                "{name}: {state} ({sub}), {restarts} restarts: {}",
                value("StatusText")
            );
            Found::whole(holds, text)
        }
        Ok(_) => Found::missing("systemctl show said nothing"),
        Err(why) => Found::missing(format!("the unit's state cannot be had: {why}")),
    }
}

/// The last lines that the daemon logged: of a file, or of the unit's journal.
pub async fn log(file: Option<&Path>, unit: &str, lines: usize) -> Found {
    let text = match file {
        Some(path) => tail(path).map_err(|error| format!("{}: {error}", path.display())),
        None => journal(unit, lines).await,
    };
    match text {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            let last = &all[all.len().saturating_sub(lines)..];
            let from = file.map_or_else(
                || format!("the journal of {unit}"),
                |path| path.display().to_string(),
            );
            Found::whole(
                format!("{} lines of {from}", last.len()),
                last.join("\n") + "\n",
            )
        }
        Err(why) => Found::missing(format!("the log cannot be had: {why}")),
    }
}

async fn journal(unit: &str, lines: usize) -> Result<String, String> {
    let count = lines.to_string();
    let text = ask(
        "journalctl",
        &[
            "-u",
            unit,
            "-n",
            &count,
            "--no-pager",
            "-o",
            "short-iso-precise",
            "-q",
        ],
    )
    .await?;
    if text.trim().is_empty() || text.trim() == "-- No entries --" {
        return Err(format!(
            "{} sees no entry of {unit} in the journal: run as root, as a member of systemd-journal, or name a log with --log",
            reader()
        ));
    }
    Ok(text)
}

fn tail(path: &Path) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the clock is set by, and how far it is from the store's as far as that is known.
pub async fn clock(now: DateTime<Utc>, daemon: Option<f64>, store: Result<f64, String>) -> Found {
    let properties = ask("timedatectl", &["show", "-p", CLOCK]).await;
    let chrony = ask("chronyc", &["-n", "tracking"]).await;
    let pairs: Map<String, Value> = properties
        .as_deref()
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let synchronised = match pairs.get("NTPSynchronized").and_then(Value::as_str) {
        Some("yes") => "synchronised",
        Some("no") => "NOT synchronised",
        _ => "unknown whether synchronised",
    };
    let offset = daemon.or(store.as_ref().ok().copied());
    let holds = match offset {
        Some(seconds) => format!("{synchronised}, {seconds:+.0} s from the store's"),
        None => format!("{synchronised}, offset from the store not known"),
    };
    let value = json!({
        "now": utc(now),
        "uptime_seconds": read("/proc/uptime").split(' ').next().and_then(|text| text.parse::<f64>().ok()),
        "clock_source": read("/sys/devices/system/clocksource/clocksource0/current_clocksource").trim(),
        "offset_seconds_by_the_daemon": daemon,
        "offset_seconds_by_one_question": store.as_ref().ok(),
        "question": store.err(),
        "timedatectl": properties.as_ref().err().map_or(Value::from(pairs), |why| why.as_str().into()),
        "chronyc": chrony.unwrap_or_else(|why| why),
    });
    Found::json(holds, &value, true)
}

/// Disk, memory, load; and what of them the daemon uses.
pub fn machine(config: &Config, data_dir: &Path, holder: Option<u32>) -> Found {
    let disk = rustix::fs::statvfs(existing(data_dir));
    let disk = disk.map(|about| {
        let block = about.f_frsize;
        json!({
            "bytes": about.f_blocks.saturating_mul(block), "free_bytes": about.f_bavail.saturating_mul(block),
            "files": about.f_files, "free_files": about.f_favail,
            "read_only": about.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    });
    let memory: Map<String, Value> = fields(
        &read("/proc/meminfo"),
        &["MemTotal", "MemAvailable", "SwapTotal", "SwapFree"],
    );
    let limit = |name: &str| read(&format!("/sys/fs/cgroup/{name}")).trim().to_owned();
    let free = disk
        .as_ref()
        .ok()
        .and_then(|disk| disk["free_bytes"].as_u64());
    let available = memory
        .get("MemAvailable")
        .and_then(Value::as_str)
        .unwrap_or("an unknown amount")
        .to_owned();
    let value = json!({
        "disk_of_data_dir": disk.unwrap_or_else(|error| json!({"problem": error.to_string()})),
        "min_free_bytes": config.feed.min_free.0,
        "memory": memory,
        "memory_limit_here": limit("memory.max"),
        "load": read("/proc/loadavg").trim(),
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "pressure": {
            "memory": read("/proc/pressure/memory").trim(), "io": read("/proc/pressure/io").trim(),
        },
        "daemon": holder.map(process),
    });
    let free = free.map_or_else(|| "unknown".to_owned(), bytes);
    Found::json(
        format!("disk {free} free, memory {available} available"),
        &value,
        true,
    )
}

/// The nearest directory that exists, which is on the same disk.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|path| path.exists());
    let found = found.filter(|path| !path.as_os_str().is_empty());
    found.unwrap_or(Path::new(".")).to_owned()
}

/// What the kernel says of a process. Of its environment the names, never the values.
fn process(id: u32) -> Value {
    let names = environment(id).map(|variables| {
        let mut names: Vec<String> = variables
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| is_of_interest(name))
            .collect();
        names.sort();
        names
    });
    let status = fields(
        &read(&format!("/proc/{id}/status")),
        &[
            "State",
            "VmRSS",
            "VmHWM",
            "VmSwap",
            "Threads",
            "Uid",
            "NoNewPrivs",
            "Seccomp",
        ],
    );
    json!({
        "process": id,
        "status": status,
        "open_files": std::fs::read_dir(format!("/proc/{id}/fd")).map(Iterator::count).ok(),
        "limits": read(&format!("/proc/{id}/limits")).lines().collect::<Vec<_>>(),
        "environment_names": names,
    })
}

/// Variables that change what lookoutd or its clients do; the names of others are nobody's business.
fn is_of_interest(name: &str) -> bool {
    ["LOOKOUTD", "AWS_", "SSL_CERT_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || [
            "STATE_DIRECTORY",
            "CREDENTIALS_DIRECTORY",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "INVOCATION_ID",
            "TZ",
        ]
        .contains(&name)
        || name.to_lowercase().ends_with("_proxy")
}

/// The environment of a process, where it may be read.
pub fn environment(id: u32) -> Option<Vec<(String, String)>> {
    let bytes = std::fs::read(format!("/proc/{id}/environ")).ok()?;
    let variables = bytes.split(|byte| *byte == 0).filter_map(|variable| {
        let text = String::from_utf8_lossy(variable).into_owned();
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    Some(variables.collect())
}

/// Some `Name: value` lines of a text.
fn fields(text: &str, names: &[&str]) -> Map<String, Value> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| names.contains(name))
        .map(|(name, value)| {
            (
                name.to_owned(),
                value
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .into(),
            )
        })
        .collect()
}

/// A file of the system; empty where there is none.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What a program of the system says; in words why it says nothing.
async fn ask(program: &str, arguments: &[&str]) -> Result<String, String> {
    let call = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PATIENCE, call).await {
        Err(_) => Err(format!(
            "{program} gave no answer in {} s",
            PATIENCE.as_secs()
        )),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("there is no {program} on this machine"))
        }
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Ok(Ok(output)) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!(
                "{program}: {}: {}",
                output.status,
                said.lines().next().unwrap_or_default()
            ))
        }
    }
}
