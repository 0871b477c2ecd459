//! `lookoutd serve`: the Lookout-compatible service alone, with an S3 beside it unless one is configured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{TimeArgs, output};
use crate::clock::Clock;
use crate::config::{self, ConfigError, Finding};
use crate::daemon::{Lookout, Store, credentials, retention, service_config};
use crate::embedded::KeyPair;
use crate::executions::Place;
use crate::notify::{self, Notifier, Pace};
use crate::ops::admin::{self, Admin};
use crate::ops::judgement::Judgement;
use crate::ops::signals::{self, Requests};
use crate::ops::site::Site;
use crate::ops::tls::{Tls, Validity};
use crate::ops::{ask, lock, log, notify as systemd, orphans};
use crate::service::{Auth, Service};
use crate::store::Options;
use crate::vitals::{Code, Trouble, Troubles, Vitals};

/// Threads for what blocks: as many executions as are at work at once, with their requests to the store in process. What a
/// thousand due schedulers ask beyond that waits its turn, and costs no stacks and no arenas.
const BLOCKING: usize = 64;
/// How often what nobody tells of is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long an idle one stays; what it held is given back then.
const KEPT_ALIVE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd serve --data-dir /var/lib/lookoutd
  lookoutd serve --data-dir D --listen 0.0.0.0:9180 --s3-listen 0.0.0.0:9190 --tls-cert chain.pem --tls-key key.pem
  lookoutd serve --data-dir D --listen 0.0.0.0:9180 --config store.toml    with the S3 of its [s3] section

Clients find it with AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT and AWS_ENDPOINT_URL_S3, and the key pair of DIR/credentials
(AWS_SHARED_CREDENTIALS_FILE). Without keys it answers on loopback only.")]
pub struct ServeArgs {
    /// Directory of state, key pair and embedded store
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Address of the API; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:9180")]
    listen: SocketAddr,
    /// Address of the embedded S3; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:9190")]
    s3_listen: SocketAddr,
    /// Address of console, metrics and health; "" serves none. Otherwise admin.listen
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Configuration file: [s3] names the store, [service] region, account and web pages, [admin] console, metrics and
    /// health, [notify] who is told, [log] the logs
    #[arg(short, long, value_name = "FILE", env = "LOOKOUTD_CONFIG")]
    config: Option<PathBuf>,
    /// Certificate chain of both listeners, PEM: with it they speak TLS only. A replaced file is taken by itself
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<String>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<String>,
    /// Web page whose browsers may call API and embedded S3, such as https://plant.example; may be given again. Otherwise
    /// service.cors_origins
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// Region in the ARNs of what is made. Otherwise service.region
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Account in the ARNs of what is made, 12 digits. Otherwise service.account
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// Takes requests that nobody signed; on loopback only
    #[arg(long)]
    no_auth: bool,
    /// Runs the windows that were missed while it was down, for every scheduler
    #[arg(long)]
    catch_up: bool,
    /// How far back missed windows are run at all, also those that schedulers ask for by tag
    #[arg(long, value_name = "SPAN", default_value = "1day")]
    catch_up_max_age: config::Span,
    #[command(flatten)]
    time: TimeArgs,
}

pub fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let mut config = config::load_service(args.config.as_deref(), &environment)?.config;
    if config.notify.secret_file.is_empty() {
        config.notify.secret_file = super::credential("notify-secret").unwrap_or_default();
    }
    let settings = &mut config.service;
    if !args.cors_origin.is_empty() {
        settings.cors_origins.clone_from(&args.cors_origin);
    }
    for (given, setting) in [
        (&args.region, &mut settings.region),
        (&args.account, &mut settings.account),
    ] {
        if let Some(given) = given {
            setting.clone_from(given);
        }
    }
    let mut problems = config.service.problems();
    problems.extend(config.s3.problems());
    if !problems.is_empty() {
        let origin = match &args.config {
            Some(path) => path.display().to_string(),
            None => "flags and environment".to_owned(),
        };
        let finding = |(key, problem): (&'static str, String)| Finding {
            origin: origin.clone(),
            key: key.to_owned(),
            problem,
        };
        let findings = problems.into_iter().map(finding).collect();
        return Err(ConfigError { findings }.into());
    }
    log::start(&config.log).map_err(anyhow::Error::msg)?;
    let requests = signals::listen()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(KEPT_ALIVE)
        .build()?;
    let result = runtime.block_on(serve(&args, &config, requests));
    runtime.shutdown_timeout(Duration::from_millis(300));
    result?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    args: &ServeArgs,
    config: &config::Config,
    requests: Requests,
) -> anyhow::Result<()> {
    let shutdown = requests.shutdown.clone();
    let _lock = lock::lock(&args.data_dir)?;
    let keys = KeyPair::load_or_create(&args.data_dir)?;
    let file = |file: &Option<String>| file.clone().unwrap_or_default();
    let tls = Tls::open(&file(&args.tls_cert), &file(&args.tls_key))?;
    if let Some(Validity::Ended(at) | Validity::Begins(at)) = tls
        .as_ref()
        .map(|tls| tls.validity(Clock::system().now()))
        .transpose()?
    {
        warn!(%at, "the certificate does not hold now: clients will refuse it");
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    // The embedded store goes down after the service, so that executions under way can end.
    let servers = CancellationToken::new();
    // Requests name their buckets; a configured endpoint is enough.
    let store = if config.is_embedded() && config.s3.endpoint_url.is_empty() {
        Store::embed_tls(
            &args.data_dir,
            args.s3_listen,
            "",
            Options {
                shared_disk: config.store.shared_disk,
                ..Options::default()
            },
            tls.clone(),
            config.service.cors(),
            servers.clone(),
        )
        .await?
    } else {
        Store {
            bucket: config.s3.open().await,
            prefix: config.s3.input_prefix.clone(),
            embedded: None,
        }
    };
    let mut admin = config.admin.clone();
    if let Some(listen) = &args.admin_listen {
        admin.listen.clone_from(listen);
    }
    let (sites, seen) = watch::channel(None);
    let judgement = Judgement::from(seen);
    ask::answer(&args.data_dir, judgement.clone(), servers.clone());
    let vitals = Vitals::default();
    let telling = tell(
        &config.notify,
        &args.data_dir,
        judgement.clone(),
        servers.clone(),
    )?;
    let console = console(&admin, judgement, vitals.troubles(), servers.clone()).await?;
    // Its objects have the machine's time, whatever schedulers go by.
    let keeping = store.embedded.as_ref().map(|s3| {
        retention::start_others(
            &config.store.rules,
            s3.store(),
            &Clock::system(),
            vitals.troubles().clone(),
            &servers,
        )
    });
    let clock = args.time.clock();
    let mut service = Service::start_tls(
        crate::service::Config {
            credentials: if args.no_auth {
                Auth::Open
            } else {
                service_config(args.listen, PathBuf::new(), &keys).credentials
            },
            catch_up: args.catch_up,
            vitals: vitals.clone(),
            catch_up_max_age: args.catch_up_max_age.0,
            region: config.service.region.clone(),
            account: config.service.account.clone(),
            cors: config.service.cors(),
            keep_executions: config.service.keep_executions.0,
            ..service_config(args.listen, args.data_dir.join("service"), &keys)
        },
        tls,
        store.bucket.client().clone(),
        clock.clone(),
        shutdown.clone(),
    )
    .await?;
    sites.send_replace(Some(Site {
        inputs: Vec::new(),
        clock,
        assets: Vec::new(),
        history: Some(Place::service(args.data_dir.join("service/state.db"))),
        s3: Some(store.bucket.client().clone()),
        vitals: vitals.clone(),
        store: keeping,
        archive: Some(Lookout::archived(config, &args.data_dir)),
    }));
    let mut said = format!("Lookout API   {scheme}://{}\n", service.address());
    said += &match &store.embedded {
        Some(s3) => format!(
            "S3            {}   bucket {}\n",
            s3.url(),
            store.bucket.name()
        ),
        None => "S3            as configured\n".to_owned(),
    };
    if let Some(console) = console {
        said += &format!("console       {}\n", console.url());
    }
    let key_pair = std::path::absolute(args.data_dir.join("credentials"))?;
    said += &format!("credentials   {}\n", key_pair.display());
    said += &exports(
        scheme,
        service.address(),
        store.embedded.as_ref().map(|s3| s3.url()).as_deref(),
        &key_pair,
        &config.service.region,
    );
    output::mention(&said);
    systemd::ready();
    orphans::reap(servers.clone());
    let troubles = vitals.troubles().clone();
    let watchdog = tokio::spawn(systemd::watchdog(vitals, servers.clone()));
    let mut looks = tokio::time::interval(LOOK);
    let failed = loop {
        tokio::select! {
            () = shutdown.cancelled() => break None,
            _ = looks.tick() => {
                credentials::look(&troubles, &store.bucket, None, Clock::system().now());
            }
            () = store.failed() => {
                error!("the embedded S3 has failed: stopping, systemd starts anew");
                break Some("the embedded S3 has ended".to_owned());
            }
            () = requests.reload.notified() => {
                store.bucket.renew();
                info!("credentials are read again; the rest of the configuration can only change with a restart");
            }
            outcome = service.failed() => {
                error!(error = outcome, "a loop has failed: stopping, systemd starts anew");
                break Some(outcome);
            }
        }
    };
    systemd::stopping();
    info!("draining");
    shutdown.cancel();
    service.stopped().await;
    servers.cancel();
    watchdog.abort();
    if let Some(telling) = telling {
        // What it has not sent stays in its queue.
        let _ = tokio::time::timeout(Duration::from_millis(500), telling).await;
    }
    match failed {
        Some(outcome) => anyhow::bail!("a loop has failed: {outcome}"),
        None => Ok(()),
    }
}

/// What a shell runs so that AWS clients on this machine find the service. Beyond it, its name stands for the address.
fn exports(
    scheme: &str,
    api: SocketAddr,
    s3: Option<&str>,
    credentials: &Path,
    region: &str,
) -> String {
    let quoted = format!(
        "'{}'",
        credentials.display().to_string().replace('\'', "'\\''")
    );
    let mut lines = format!("\nexport AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT={scheme}://{api}\n");
    if let Some(s3) = s3 {
        lines += &format!("export AWS_ENDPOINT_URL_S3={s3}\n");
    }
    lines
        + &format!(
            "export AWS_SHARED_CREDENTIALS_FILE={quoted}\nexport AWS_REGION={region} AWS_DEFAULT_REGION={region}\n"
        )
}

/// Starts to tell whom the configuration names. What is configured wrongly ends the start.
fn tell(
    config: &notify::Config,
    data_dir: &Path,
    judgement: Judgement,
    shutdown: CancellationToken,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    if let Some((key, problem)) = config.problems().into_iter().next() {
        anyhow::bail!("{key}: {problem}");
    }
    let notifier = Notifier::open(config, data_dir)?;
    Ok(notifier.map(|notifier| notifier.start(judgement, Pace::default(), shutdown)))
}

/// Serves console, metrics and health. What is configured wrongly ends the start; a port that is taken does not, because
/// clients can do without.
async fn console(
    config: &admin::Config,
    judgement: Judgement,
    troubles: &Troubles,
    shutdown: CancellationToken,
) -> anyhow::Result<Option<Admin>> {
    if let Some((key, problem)) = config.problems().into_iter().next() {
        anyhow::bail!("{key}: {problem}");
    }
    match Admin::start(config, judgement, crate::console::router(), shutdown).await {
        Ok(admin) => Ok(admin),
        Err(error) if error.chain().any(|cause| cause.is::<std::io::Error>()) => {
            error!(
                error = format!("{error:#}"),
                "no console, metrics and health: the service goes on without them"
            );
            troubles.raise(Trouble::new(
                Code::AdminUnavailable,
                Clock::system().now(),
                format!("no console, metrics and health: {error:#}"),
                "free the address or change admin.listen, then restart",
            ));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
