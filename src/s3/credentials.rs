//! The credentials of the standard chain, kept as long as they hold and asked for again when they may be others.
//!
//! Guarantees: a replaced file is taken with the next request, one that was missing or empty as soon as it is there; what
//! has no end is asked for again each minute, what has one in good time before it, and either when the store refused or
//! somebody said so. While new ones cannot be had those that still hold are used. Each time the chain is made anew, because
//! the SDK's own reads its files once and remembers its failures.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::ConfigLoader;
use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::standing::{Missing, Standing};

/// How long credentials without an end are used before they are asked for again.
const MINUTE: Duration = Duration::from_secs(60);
/// So long before their end others are asked for.
const IN_TIME: Duration = Duration::from_secs(300);
/// Not more often than this, also when the store refuses all.
const REFUSED_AGAIN: Duration = Duration::from_secs(10);
/// A failure is the answer to all who ask within this.
const FAILED: Duration = Duration::from_secs(1);
/// How long the chain may take; and where what is kept still holds.
const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(5);

/// Where credentials and region are looked for.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Profile; empty: the default one.
    pub profile: String,
    /// Credentials file in place of the standard one; empty: none.
    pub credentials_file: String,
    /// The HTTP client that asks metadata and STS.
    pub http: SharedHttpClient,
}

/// A provider that keeps what the chain gives. Cheap to clone; clones share what is kept.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    chain: Chain,
    /// Region and time.
    shared: SdkConfig,
    standing: Standing,
    /// Somebody wants them read again now.
    again: AtomicBool,
    /// The store refused.
    refused: AtomicBool,
    /// Held while the chain is asked: who has nothing that holds waits for its answer.
    asking: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: Option<Credentials>,
    asked: Option<Instant>,
    failed: Option<Failed>,
    files: Vec<Stamp>,
}

#[derive(Debug)]
struct Failed {
    at: Instant,
    times: u32,
    text: String,
}

/// What tells one version of a file from another: time, length, inode; nothing where it is absent.
type Stamp = Option<(i64, i64, u64, u64)>;

// === impl Chain ===

impl Chain {
    /// The loader of the chain.
    pub(super) fn loader(&self) -> ConfigLoader {
        let mut loader = super::config::loader().http_client(self.http.clone());
        if !self.profile.is_empty() {
            loader = loader.profile_name(&self.profile);
        }
        if !self.credentials_file.is_empty() {
            loader = loader.profile_files(
                EnvConfigFiles::builder()
                    .include_default_config_file(true)
                    .with_file(
                        EnvConfigFileKind::Credentials,
                        PathBuf::from(&self.credentials_file),
                    )
                    .build(),
            );
        }
        loader
    }

    /// The files that credentials may come from.
    fn files(&self) -> Vec<PathBuf> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let named = |variable: &str, usual: &str| {
            let named = std::env::var_os(variable).map(PathBuf::from);
            named.or_else(|| home.as_ref().map(|home| home.join(".aws").join(usual)))
        };
        let credentials = match self.credentials_file.as_str() {
            "" => named("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            file => Some(PathBuf::from(file)),
        };
        let token = std::env::var_os("AWS_WEB_IDENTITY_TOKEN_FILE").map(PathBuf::from);
        [credentials, named("AWS_CONFIG_FILE", "config"), token]
            .into_iter()
            .flatten()
            .collect()
    }

    /// What is wrong with the configured file, where nothing else has credentials before it.
    fn trouble(&self) -> Option<Missing> {
        if self.credentials_file.is_empty() || std::env::var_os("AWS_ACCESS_KEY_ID").is_some() {
            return None;
        }
        let path = PathBuf::from(&self.credentials_file);
        let what = match std::fs::read(&path) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => "is empty".to_owned(),
            Ok(_) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "is not there".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        let what = format!("{what}; it is read as soon as it can be");
        Some(Missing::Credentials { path, what })
    }
}

// === impl Keeper ===

impl Keeper {
    /// Keeps what `chain` gives; region and time are those of `shared`.
    pub(super) fn new(chain: Chain, shared: SdkConfig, standing: Standing) -> Self {
        Self(Arc::new(Inner {
            chain,
            shared,
            standing,
            again: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            asking: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }))
    }

    /// Asks the chain with the next request, whatever is kept.
    pub fn ask_again(&self) {
        self.0.again.store(true, Ordering::Relaxed);
    }

    /// The store refused what was signed with these credentials.
    pub(super) fn refused(&self) {
        self.0.refused.store(true, Ordering::Relaxed);
    }

    /// Why the chain gave none, where it did not do so for the second time and on; what is kept may hold for a while yet.
    pub(super) fn failing(&self) -> Option<String> {
        let state = self.lock();
        let failed = state.failed.as_ref();
        failed
            .filter(|failed| failed.times > 1)
            .map(|failed| failed.text.clone())
    }

    /// When those that are kept end, and why no others can be had, where that is so.
    pub fn unrenewed(&self) -> Option<(DateTime<Utc>, String)> {
        let why = self.failing()?;
        let expiry = self.lock().kept.as_ref()?.expiry()?;
        Some((DateTime::<Utc>::from(expiry), why))
    }

    async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let inner = &self.0;
        let holding = || {
            let now = self.now();
            let kept = self.lock().kept.clone();
            kept.filter(|kept| holds(kept, now))
        };
        let asking = match (inner.asking.try_lock(), holding()) {
            (Ok(asking), _) => asking,
            (Err(_), Some(kept)) => return Ok(kept),
            (Err(_), None) => inner.asking.lock().await,
        };
        let files: Vec<Stamp> = inner.chain.files().iter().map(|it| stamp(it)).collect();
        let again = inner.again.swap(false, Ordering::Relaxed);
        if !again {
            let state = self.lock();
            let now = self.now();
            let same = files == state.files;
            if let Some(kept) = &state.kept
                && same
                && !self.may_be_others(&state, kept, now)
            {
                return Ok(kept.clone());
            }
            if let Some(failed) = &state.failed
                && same
                && failed.at.elapsed() < FAILED
            {
                return Err(CredentialsError::provider_error(failed.text.clone()));
            }
        }
        inner.refused.store(false, Ordering::Relaxed);
        let held = holding();
        let patience = if held.is_some() { SHORT } else { PATIENCE };
        let answer = match tokio::time::timeout(patience, self.ask()).await {
            Ok(answer) => answer,
            Err(_) => Err(CredentialsError::provider_timed_out(patience)),
        };
        let mut state = self.lock();
        state.asked = Some(Instant::now());
        state.files = files;
        let outcome = match answer {
            Ok(credentials) => {
                state.failed = None;
                state.kept = Some(credentials.clone());
                Ok(credentials)
            }
            Err(error) => {
                let times = state.failed.as_ref().map_or(0, |failed| failed.times);
                state.failed = Some(Failed {
                    at: Instant::now(),
                    times: times.saturating_add(1),
                    text: super::meters::causes(&error),
                });
                // While the file is being replaced, or metadata does not answer.
                held.ok_or(error)
            }
        };
        drop(state);
        drop(asking);
        outcome
    }

    /// Whether what is kept is to be asked for again.
    fn may_be_others(&self, state: &State, kept: &Credentials, now: SystemTime) -> bool {
        let asked = state.asked.map_or(Duration::MAX, |at| at.elapsed());
        let soon = now.checked_add(IN_TIME).unwrap_or(now);
        let ends = kept.expiry().is_none_or(|expiry| expiry <= soon);
        !holds(kept, now)
            || (ends && asked >= MINUTE)
            || (self.0.refused.load(Ordering::Relaxed) && asked >= REFUSED_AGAIN)
    }

    async fn ask(&self) -> Result<Credentials, CredentialsError> {
        let inner = &self.0;
        if let Some(missing) = inner.chain.trouble() {
            return Err(CredentialsError::provider_error(missing));
        }
        let region = inner.shared.region().cloned();
        let region = region.or_else(|| inner.standing.region());
        let shared = inner.chain.loader().region(region).load().await;
        match shared.credentials_provider() {
            Some(provider) => provider.provide_credentials().await,
            None => Err(CredentialsError::not_loaded_no_source()),
        }
    }

    fn now(&self) -> SystemTime {
        let time = self.0.shared.time_source();
        time.map_or(SystemTime::UNIX_EPOCH, |time| time.now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProvideCredentials for Keeper {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

fn holds(credentials: &Credentials, now: SystemTime) -> bool {
    credentials.expiry().is_none_or(|expiry| expiry > now)
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn keeper(file: &Path) -> Keeper {
        let chain = Chain {
            profile: String::new(),
            credentials_file: file.display().to_string(),
            http: super::super::route::client(),
        };
        let region = aws_config::Region::new("us-east-1");
        let standing = Standing::new(Some(region.clone()), chain.clone());
        let shared = chain.loader().region(region).load().await;
        Keeper::new(chain, shared, standing)
    }

    /// Whether this process has no credentials in its environment, which the chain would take before any file. Where it
    /// has, a process without them has run the test of this name, and passed.
    fn alone(test: &str) -> bool {
        let given = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("AWS_");
        let names: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
        if !names.iter().any(|name| given(name)) {
            return true;
        }
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args([
            "--exact",
            &format!("{}::{test}", module_path!().replacen("lookoutd::", "", 1)),
        ]);
        for name in names.iter().filter(|name| given(name)) {
            again.env_remove(name);
        }
        let output = again.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
        false
    }

    fn write(file: &Path, key: &str) {
        let text =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
        std::fs::write(file, text).unwrap();
    }

    async fn key(keeper: &Keeper) -> Result<String, String> {
        let answer = keeper.provide_credentials().await;
        answer
            .map(|credentials| credentials.access_key_id().to_owned())
            .map_err(|error| super::super::meters::causes(&error))
    }

    #[tokio::test]
    async fn a_file_that_was_missing_or_empty_is_read_as_soon_as_it_is_there() {
        if !alone("a_file_that_was_missing_or_empty_is_read_as_soon_as_it_is_there") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials");
        let keeper = keeper(&file).await;
        let error = key(&keeper).await.unwrap_err();
        assert!(error.contains("credentials is not there"), "{error}");
        std::fs::write(&file, "\n").unwrap();
        let error = key(&keeper).await.unwrap_err();
        assert!(error.contains("credentials is empty"), "{error}");
        write(&file, "FIRST");
        assert_eq!(key(&keeper).await.unwrap(), "FIRST");
    }

    #[tokio::test]
    async fn a_replaced_file_is_taken_with_the_next_request_and_a_broken_one_is_not() {
        if !alone("a_replaced_file_is_taken_with_the_next_request_and_a_broken_one_is_not") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials");
        write(&file, "FIRST");
        let keeper = keeper(&file).await;
        assert_eq!(key(&keeper).await.unwrap(), "FIRST");
        write(&file, "SECONDKEY");
        assert_eq!(key(&keeper).await.unwrap(), "SECONDKEY");
        // As an editor or a sync does it.
        let beside = directory.path().join("new");
        write(&beside, "THIRDKEYS");
        std::fs::rename(&beside, &file).unwrap();
        assert_eq!(key(&keeper).await.unwrap(), "THIRDKEYS");
        std::fs::write(&file, "").unwrap();
        assert_eq!(key(&keeper).await.unwrap(), "THIRDKEYS");
    }

    #[tokio::test]
    async fn what_has_an_end_is_asked_for_in_time_and_what_has_none_each_minute() {
        if !alone("what_has_an_end_is_asked_for_in_time_and_what_has_none_each_minute") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials");
        write(&file, "FIRST");
        let keeper = keeper(&file).await;
        key(&keeper).await.unwrap();
        let now = keeper.now();
        let ending = |seconds| {
            let end = now + Duration::from_secs(seconds);
            Credentials::new("a", "s", None, Some(end), "test")
        };
        let endless = Credentials::new("a", "s", None, None, "test");
        let asked_before = |ago| State {
            asked: Instant::now().checked_sub(ago),
            ..State::default()
        };
        let just = asked_before(Duration::ZERO);
        assert!(!keeper.may_be_others(&just, &endless, now));
        assert!(!keeper.may_be_others(&just, &ending(100), now));
        assert!(keeper.may_be_others(&just, &ending(0), now));
        let minute = asked_before(MINUTE);
        assert!(keeper.may_be_others(&minute, &endless, now));
        assert!(keeper.may_be_others(&minute, &ending(100), now));
        assert!(!keeper.may_be_others(&minute, &ending(3_600), now));
        keeper.refused();
        assert!(!keeper.may_be_others(&just, &endless, now));
        assert!(keeper.may_be_others(&asked_before(REFUSED_AGAIN), &ending(3_600), now));
    }
}
