//! The admin listener over a real feeder, a real store behind the fault proxy, and a real service's state: health turns
//! red with its reason and green again by itself, metrics agree with the ledger, hostile names stay text, and pages stay
//! small and quick over a long history.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::clock::Clock;
use lookoutd::daemon::standing;
use lookoutd::executions::Place;
use lookoutd::feed::{Ledger, State};
use lookoutd::inference::{Wanted, ensure};
use lookoutd::ops::admin::{Admin, Config};
use lookoutd::ops::site::{AssetSite, FeedSite, Site, Watched};
use lookoutd::s3::Bucket;
use lookoutd::signal::NameFormat;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::inference::target;
use crate::proxy::{Fault, Rule};
use crate::rig::{self, Rig, Running, Store, at};
use crate::service::plant::Plant;

/// An answer.
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

/// One request to the listener.
pub async fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let host = if headers.to_ascii_lowercase().contains("host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let request = format!("GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head[9..12].parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// A listener over one site.
pub struct Desk {
    address: SocketAddr,
    sites: watch::Sender<Option<Site>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Desk {
    pub async fn over(site: Site) -> Desk {
        let (sites, seen) = watch::channel(Some(site));
        let stop = CancellationToken::new();
        let config = Config {
            listen: "127.0.0.1:0".into(),
            ..Config::default()
        };
        let admin = Admin::start(&config, seen, lookoutd::console::router(), stop.clone())
            .await
            .unwrap()
            .unwrap();
        Desk {
            address: admin.address(),
            sites,
            _stop: stop.drop_guard(),
        }
    }

    async fn ready(&self) -> (bool, Vec<String>) {
        let answer = get(self.address, "/readyz", "").await;
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        let ready = json["ready"].as_bool().unwrap();
        assert_eq!(answer.status, if ready { 200 } else { 503 });
        let reasons = json["reasons"].as_array().unwrap();
        for reason in reasons {
            for part in ["since", "text", "remedy"] {
                assert!(
                    reason[part].as_str().is_some_and(|text| !text.is_empty()),
                    "{reason}"
                );
            }
        }
        let codes = reasons
            .iter()
            .map(|reason| reason["code"].as_str().unwrap().to_owned());
        (ready, codes.collect())
    }

    /// Waits until health says `code`, or is green for none.
    async fn until(&self, code: Option<&str>) {
        let mut last = (true, Vec::new());
        for _ in 0..1_200 {
            last = self.ready().await;
            let there = match code {
                Some(code) => !last.0 && last.1.iter().any(|known| known == code),
                None => last.0,
            };
            if there {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not in 120 s: {code:?}; last {last:?}");
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn page(&self, path: &str) -> String {
        let answer = get(self.address, path, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }
}

/// The site of a feeder on the small plant.
fn site(
    running: &Running,
    data_dir: &Path,
    bucket: &Bucket,
    config: lookoutd::feed::Config,
) -> Site {
    Site {
        inputs: Vec::new(),
        store: None,
        clock: running.clock.clone(),
        assets: vec![AssetSite {
            feed: Some(std::sync::Arc::new(FeedSite {
                config,
                naming: NameFormat::default(),
                prefix: rig::PREFIX.into(),
                tags: rig::tags(),
                bucket: bucket.clone(),
                ledger: Ledger::open_existing(data_dir).unwrap().unwrap(),
                spool: lookoutd::feed::Spool::attach(
                    std::sync::Arc::new(lookoutd::feed::disk::LocalDisk),
                    data_dir,
                ),
                health: running.feeder.vitals().health().clone(),
                delay: TimeDelta::minutes(2),
            })),
            ..AssetSite::default()
        }],
        history: None,
        archive: None,
        s3: Some(bucket.client().clone()),
        vitals: running.feeder.vitals(),
    }
}

/// The site of a feeder that [`fed`] has started.
pub fn site_of(running: &Running, store: &Store) -> Site {
    let rig = Rig::new(store, "data", "2026-01-01T10:00:30Z");
    site(running, &rig.data_dir, &rig.bucket, rig.config)
}

/// A feeder that has delivered its first window, and a desk over it.
pub async fn fed(store: &Store, change: impl FnOnce(&mut Rig)) -> (Running, Desk) {
    let mut rig = Rig::new(store, "data", "2026-01-01T10:00:30Z");
    change(&mut rig);
    let (data_dir, bucket, config) = (rig.data_dir.clone(), rig.bucket.clone(), rig.config.clone());
    let running = rig.start().await;
    let desk = Desk::over(site(&running, &data_dir, &bucket, config)).await;
    (running, desk)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_turns_health_red_and_green_again() {
    let store = Store::start();
    let (running, desk) = fed(&store, |_| {}).await;
    running.settle().await;
    desk.until(None).await;
    store.proxy.refuse();
    running.clock.advance(TimeDelta::minutes(5));
    running
        .until("a failed attempt", |entries| entries[0].attempts > 0)
        .await;
    // The first failure may pass by itself; within the cadence it is a reason.
    running.clock.advance(TimeDelta::minutes(2));
    desk.until(Some("store-unreachable")).await;
    running.clock.advance(TimeDelta::minutes(13));
    desk.until(Some("windows-late")).await;
    store.proxy.listen();
    running.clock.advance(TimeDelta::minutes(5));
    running.settle().await;
    desk.until(None).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_a_reason_at_once_with_the_remedy() {
    let store = Store::start();
    let (running, desk) = fed(&store, |_| {}).await;
    running.settle().await;
    store
        .proxy
        .inject(Rule::any(10_000, Fault::Answer(403, "AccessDenied")));
    running.clock.advance(TimeDelta::minutes(5));
    desk.until(Some("store-refuses")).await;
    let answer = get(desk.address, "/readyz", "").await;
    assert!(answer.body.contains("AccessDenied"), "{}", answer.body);
    store.proxy.heal();
    running.clock.advance(TimeDelta::minutes(5));
    running.settle().await;
    desk.until(None).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_cutting_resumes() {
    let store = Store::start();
    let full = std::sync::Arc::new(Full::default());
    let disk = full.clone();
    let (running, desk) = fed(&store, |rig| {
        rig.config.min_free = lookoutd::config::ByteSize(1_000);
        rig.disk = disk;
    })
    .await;
    running.settle().await;
    desk.until(None).await;
    full.is_full
        .store(true, std::sync::atomic::Ordering::SeqCst);
    running.clock.advance(TimeDelta::minutes(5));
    desk.until(Some("spool-paused")).await;
    let metrics = desk.page("/metrics").await;
    assert!(metrics.contains("lookoutd_spool_paused 1.0"), "{metrics}");
    full.is_full
        .store(false, std::sync::atomic::Ordering::SeqCst);
    running.clock.advance(TimeDelta::minutes(5));
    running.settle().await;
    desk.until(None).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_source_is_a_reason_until_it_speaks() {
    let store = Store::start();
    let empty = ["2026-01-01T10:05:00Z", "2026-01-01T10:10:00Z"].map(|start| at(start).timestamp());
    let (running, desk) = fed(&store, |rig| rig.source.empty = empty.to_vec()).await;
    for minutes in [0, 5, 5] {
        running.clock.advance(TimeDelta::minutes(minutes));
        running.settle().await;
    }
    desk.until(Some("source-silent")).await;
    running.clock.advance(TimeDelta::minutes(5));
    running.settle().await;
    desk.until(None).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_went_back_or_was_stepped_is_a_reason_for_a_while() {
    let store = Store::start();
    let (running, desk) = fed(&store, |_| {}).await;
    running.settle().await;
    let before = running.clock.now();
    running.clock.advance(TimeDelta::hours(-1));
    desk.until(Some("clock-suspect")).await;
    running.clock.advance_to(before);
    desk.until(None).await;
    // A manual clock has no steps of its own; the loop that sees them says so here.
    running.feeder.vitals().health().stepped(-90, before);
    desk.until(Some("clock-stepped")).await;
    assert!(
        desk.page("/metrics")
            .await
            .contains("lookoutd_clock_steps_total 1")
    );
    running.clock.advance(TimeDelta::minutes(5));
    running.settle().await;
    desk.until(None).await;
    running.stop().await;
}

/// The real service answers; somebody else deletes, stops and cuts off the scheduler that the gateway keeps.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_gone_is_a_reason_until_it_is_back() {
    let mut plant = Plant::start().await;
    let watched = Watched::default();
    let desk = Desk::over(Site {
        inputs: Vec::new(),
        store: None,
        clock: plant.clock.clone(),
        assets: vec![AssetSite {
            watched: watched.clone(),
            ..AssetSite::default()
        }],
        history: None,
        archive: None,
        s3: None,
        vitals: lookoutd::vitals::Vitals::default(),
    })
    .await;
    // As the daemon does it every half minute, from the API's own answers.
    let look = async |plant: &Plant| {
        standing::look(&plant.api, "s", Wanted::Running, &watched, &plant.clock).await;
    };
    plant.run("s", |request| request).await;
    look(&plant).await;
    desk.until(None).await;

    plant.stop("s").await;
    look(&plant).await;
    plant.clock.advance(TimeDelta::minutes(2));
    desk.until(Some("scheduler-not-running")).await;

    plant.delete("s").await;
    look(&plant).await;
    plant.clock.advance(TimeDelta::minutes(1));
    desk.until(Some("scheduler-gone")).await;

    plant.down().await;
    look(&plant).await;
    plant.clock.advance(TimeDelta::minutes(2));
    desk.until(Some("scheduler-unreachable")).await;

    plant.up().await;
    ensure(&plant.api, &target(Wanted::Running)).await.unwrap();
    plant.wait_status("s", "RUNNING").await;
    look(&plant).await;
    desk.until(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_without_a_time_of_its_own_says_when_it_was_first_seen() {
    let store = Store::start();
    let (running, desk) = fed(&store, |_| {}).await;
    running.settle().await;
    desk.until(None).await;
    // Under a clock that went back an hour, the last window lies in the future.
    running.clock.advance(TimeDelta::hours(-1));
    desk.until(Some("clock-suspect")).await;
    let since = |body: &str| {
        let json: Value = serde_json::from_str(body).unwrap();
        let reasons = json["reasons"].as_array().unwrap();
        let reason = reasons
            .iter()
            .find(|reason| reason["code"] == "clock-suspect")
            .unwrap();
        reason["since"].as_str().unwrap().to_owned()
    };
    let first = since(&get(desk.address, "/readyz", "").await.body);
    running.clock.advance(TimeDelta::minutes(7));
    let later = since(&get(desk.address, "/readyz", "").await.body);
    assert_eq!(first, later);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_the_windows_page_agree_with_the_ledger_after_a_rough_day() {
    let store = Store::start();
    let start = at("2026-01-01T10:00:30Z");
    let window = |n: i64| start.timestamp() / 300 * 300 + 300 * n;
    let (running, desk) = fed(&store, |rig| {
        rig.source.empty = vec![window(7), window(20)];
        rig.source.without_hall = vec![window(3), window(15)];
    })
    .await;
    // Another writer took one key, and the store loses answers and connections on the way.
    store.place("input/pump_20260101103000.csv", b"other bytes\n");
    for n in 1..36 {
        match n {
            5 => store
                .proxy
                .inject(Rule::puts("motor", 3, Fault::Answer(503, "SlowDown"))),
            11 => store.proxy.inject(Rule::puts("", 2, Fault::CutBefore)),
            18 => store.proxy.inject(Rule::puts("pump", 2, Fault::CutAfter)),
            _ => {}
        }
        running.clock.advance(TimeDelta::minutes(5));
        running.settle().await;
    }
    let ledger = Ledger::open_existing(&store.scratch("data"))
        .unwrap()
        .unwrap();
    let census = ledger.census().unwrap();
    assert_eq!(
        (census.empty, census.partial, census.quarantined),
        (2, 2, 1),
        "{census:?}"
    );
    tokio::time::sleep(Duration::from_millis(600)).await;
    let metrics = desk.page("/metrics").await;
    for (state, count) in [
        ("shipped", census.shipped),
        ("partial", census.partial),
        ("empty", census.empty),
        ("quarantined", census.quarantined),
        ("spooled", census.spooled),
        ("due", census.due),
        ("skipped", census.skipped),
    ] {
        let line = format!("lookoutd_windows{{state=\"{state}\"}} {count}.0\n");
        assert!(metrics.contains(&line), "{line} not in {metrics}");
    }
    let delivered = census.shipped + census.partial;
    let uploads: f64 = value(&metrics, "lookoutd_upload_seconds_count");
    assert_eq!(
        uploads, delivered as f64,
        "every delivered window was one upload"
    );
    assert_eq!(value(&metrics, "lookoutd_oldest_undelivered_seconds"), 0.0);
    assert_eq!(value(&metrics, "lookoutd_spool_bytes"), 0.0);
    let rows = desk.page("/windows?state=quarantined").await;
    assert!(
        rows.contains("2026-01-01 10:30:00") && rows.matches("<tr>").count() == 2,
        "{rows}"
    );
    assert_eq!(ledger.page(Some(State::Empty), None, 10).unwrap().len(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_and_reasons_are_text() {
    const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let store = Store::start();
    let fleet = Fleet {
        schedulers: 2,
        executions: 40,
        of_others: 3,
        with_files: 20,
        name: EVIL.into(),
        component: "c<b>".into(),
        sensors: ["a", "b", EVIL].map(String::from).to_vec(),
        reason: format!("Could not find data file {EVIL}"),
    };
    let now = at("2026-01-01T10:00:00Z");
    let desk = desk_over_fleet(&fleet, &store, now).await;
    let name = percent_encoding::utf8_percent_encode(EVIL, percent_encoding::NON_ALPHANUMERIC);
    let (running, fed) = fed(&store, |_| {}).await;
    running.settle().await;
    let overview = desk.page("/").await;
    running
        .feeder
        .vitals()
        .health()
        .store_failed(EVIL.into(), Some("act"), running.clock.now());
    let fed_overview = fed.page("/").await;
    let pages = [
        overview,
        desk.page("/schedulers").await,
        desk.page(&format!("/schedulers?part={name}&after={name}"))
            .await,
        desk.page(&format!("/scheduler?name={name}")).await,
        fed_overview,
        get(desk.address, &format!("/scheduler?name=none{name}"), "")
            .await
            .body,
    ];
    for page in &pages {
        for part in ["<script>alert", "<img", "c<b>", "onerror=alert(1)>\""] {
            assert!(!page.contains(part), "{part} in {page}");
        }
    }
    for index in [0, 1, 3, 4] {
        assert!(
            pages[index].contains("&lt;script&gt;alert(1)"),
            "{}",
            pages[index]
        );
    }
    assert!(pages[3].contains("Could not find data file &lt;script&gt;"));
    let metrics = desk.page("/metrics").await;
    assert!(
        metrics
            .lines()
            .all(|line| line.starts_with("lookoutd_") || line.starts_with('#')),
        "{metrics}"
    );
    assert!(
        metrics.contains("onerror=alert(1)>\"} 1.0"),
        "a quote in a name is escaped, not cut: {metrics}"
    );
    // Names in the data of charts are JSON, which no browser takes for a page.
    let answer = get(desk.address, &format!("/api/score?name={name}"), "").await;
    assert!(
        answer.head.contains("content-type: application/json") && answer.head.contains("nosniff")
    );
    let json: Value = serde_json::from_str(&answer.body).unwrap();
    assert!(
        json["bands"]
            .as_array()
            .unwrap()
            .iter()
            .any(|band| band["text"].as_str().unwrap().contains("<script>"))
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_small_and_quick_over_a_thousand_schedulers_and_ten_thousand_executions() {
    let store = Store::start();
    let fleet = Fleet {
        schedulers: 1_000,
        executions: 10_000,
        ..Fleet::default()
    };
    let desk = desk_over_fleet(&fleet, &store, at("2026-01-01T10:00:00Z")).await;
    let mut slowest = Duration::ZERO;
    for path in [
        "/",
        "/schedulers",
        "/schedulers?part=9&status=RUNNING",
        "/schedulers?after=asset-0500",
        "/models",
        "/models?after=model-500",
        "/scheduler?name=pump-42",
        "/scheduler?name=pump-42&hours=168&status=FAILED",
        "/scheduler?name=pump-42&before=1764000000000000",
        "/api/score?name=pump-42&hours=168",
        "/metrics",
        "/readyz",
    ] {
        let began = Instant::now();
        let answer = get(desk.address, path, "").await;
        let took = began.elapsed();
        slowest = slowest.max(took);
        eprintln!("{path}: {} bytes in {took:?}", answer.body.len());
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer.body.len() < 150_000,
            "{path}: {} bytes",
            answer.body.len()
        );
    }
    // Not built for speed, beside other tests: what it bounds is a page that reads everything there is.
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    let page = desk.page("/schedulers").await;
    assert_eq!(
        page.matches("<tr>").count(),
        51,
        "one page of schedulers and its head"
    );
    // The anomalous one is not among the first by name, and its score is known all the same.
    let score = "lookoutd_anomaly_score{scheduler=\"pump-42\"} 0.";
    let metrics = desk.page("/metrics").await;
    assert!(metrics.contains(score), "{metrics}");
    // What a scheduler's page loads beside itself.
    let mut assets = 0;
    for name in [
        "console.css",
        "console.js",
        "uplot.css",
        "uplot.js",
        "icon.svg",
    ] {
        assets += desk.page(&format!("/assets/{name}")).await.len();
    }
    assert!(assets < 100_000, "{assets}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_is_closed_to_strangers() {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "a-token-of-some-length\n").unwrap();
    let (_sites, seen) = watch::channel(None);
    let stop = CancellationToken::new();
    let config = Config {
        listen: "0.0.0.0:0".into(),
        token_file: token_file.display().to_string(),
        ..Config::default()
    };
    let admin = Admin::start(
        &config,
        seen.clone(),
        lookoutd::console::router(),
        stop.clone(),
    )
    .await
    .unwrap()
    .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], admin.address().port()));
    for headers in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Basic eDp5\r\n",
    ] {
        for path in [
            "/",
            "/metrics",
            "/readyz",
            "/api/score",
            "/assets/console.js",
        ] {
            let answer = get(address, path, headers).await;
            assert_eq!(answer.status, 401, "{path}");
            assert!(answer.head.contains("www-authenticate: basic"));
        }
    }
    let basic = aws_smithy_types::base64::encode("anybody:a-token-of-some-length");
    for headers in [
        "Authorization: Bearer a-token-of-some-length\r\n".to_owned(),
        format!("Authorization: Basic {basic}\r\n"),
    ] {
        let answer = get(address, "/", &headers).await;
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .head
                .contains("content-security-policy: default-src 'none'")
        );
    }
    assert_eq!(get(address, "/livez", "").await.status, 200);
    // Without a token: only this machine's names, so that no web page elsewhere can read it through a browser.
    let open = Admin::start(
        &Config {
            listen: "127.0.0.1:0".into(),
            ..Config::default()
        },
        seen.clone(),
        lookoutd::console::router(),
        stop.clone(),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(
        get(open.address(), "/", "Host: evil.example\r\n")
            .await
            .status,
        421
    );
    assert_eq!(
        get(open.address(), "/", "Host: localhost\r\n").await.status,
        200
    );
    // A token too short, or absent beyond loopback, is refused before anything listens.
    std::fs::write(&token_file, "short").unwrap();
    for config in [
        config,
        Config {
            listen: "0.0.0.0:0".into(),
            ..Config::default()
        },
    ] {
        let error = Admin::start(
            &config,
            seen.clone(),
            lookoutd::console::router(),
            stop.clone(),
        )
        .await
        .unwrap_err()
        .to_string();
        assert!(error.contains("admin.token_file"), "{error}");
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_has_the_console_too_and_asks_for_a_token_beyond_loopback() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let fleet = Fleet {
        schedulers: 3,
        executions: 60,
        with_files: 0,
        ..Fleet::default()
    };
    fleet
        .write(&data_dir.join("service"), None, "plant", Utc::now())
        .await;
    let token = directory.path().join("token");
    std::fs::write(&token, "a-token-of-some-length\n").unwrap();
    let config = directory.path().join("serve.toml");
    std::fs::write(
        &config,
        format!("[admin]\ntoken_file = \"{}\"\n", token.display()),
    )
    .unwrap();
    let serve = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lookoutd"));
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--s3-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(&data_dir)
            .args(more)
            .env_remove("LOOKOUTD_CONFIG")
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let refused = serve(&["--admin-listen", "0.0.0.0:0"])
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("set admin.token_file"),
        "{said}"
    );
    let mut child = serve(&[
        "--admin-listen",
        "0.0.0.0:0",
        "--config",
        config.to_str().unwrap(),
    ]);
    let out = child.stdout.take().unwrap();
    let port: u16 = tokio::task::spawn_blocking(move || {
        use std::io::BufRead;
        let mut lines = std::io::BufReader::new(out).lines().map(Result::unwrap);
        let line = lines.find(|line| line.starts_with("console")).unwrap();
        let address = line.trim_end_matches('/').rsplit(':').next().unwrap();
        address.parse().unwrap()
    })
    .await
    .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let token = "Authorization: Bearer a-token-of-some-length\r\n";
    assert_eq!(get(address, "/", "").await.status, 401);
    assert_eq!(get(address, "/livez", "").await.status, 200);
    for (path, part) in [
        ("/", "No feeder runs in this process"),
        ("/", "pump-42"),
        ("/schedulers", "pump-42"),
        ("/scheduler?name=pump-42", "bearing_vibration"),
        ("/models", "model-0"),
        ("/windows", "No feeder runs in this process"),
        ("/coverage", "No feeder runs in this process"),
        ("/metrics", "lookoutd_events_active 1"),
        ("/readyz", "anomaly-active"),
    ] {
        let answer = get(address, path, token).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(
            answer.body.contains(part),
            "{part} not in {path}: {}",
            answer.body
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn desk_over_fleet(fleet: &Fleet, store: &Store, now: DateTime<Utc>) -> Desk {
    let places = fleet
        .write(
            &store.scratch("service"),
            Some(&store.store),
            rig::BUCKET,
            now,
        )
        .await;
    let desk = Desk::over(Site {
        inputs: Vec::new(),
        store: None,
        clock: Clock::manual(now),
        assets: Vec::new(),
        history: Some(Place::service(places.state.clone())),
        archive: None,
        s3: Some(store.bucket().client().clone()),
        vitals: lookoutd::vitals::Vitals::default(),
    })
    .await;
    assert!(desk.sites.borrow().is_some());
    desk
}

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.rsplit_once(' '))
        .unwrap()
        .1
        .parse()
        .unwrap()
}

/// The machine's disk, which says it is full when told to.
#[derive(Default)]
struct Full {
    is_full: std::sync::atomic::AtomicBool,
}

impl lookoutd::feed::disk::Disk for Full {
    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        lookoutd::feed::disk::LocalDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        lookoutd::feed::disk::LocalDisk.append(path, bytes)
    }
    fn sync(&self, path: &Path) -> std::io::Result<()> {
        lookoutd::feed::disk::LocalDisk.sync(path)
    }
    fn create_dir(&self, path: &Path) -> std::io::Result<()> {
        lookoutd::feed::disk::LocalDisk.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        lookoutd::feed::disk::LocalDisk.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
        lookoutd::feed::disk::LocalDisk.sync_dir(path)
    }
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        lookoutd::feed::disk::LocalDisk.read(path)
    }
    fn list(&self, path: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
        lookoutd::feed::disk::LocalDisk.list(path)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        lookoutd::feed::disk::LocalDisk.remove(path)
    }
    fn remove_dir(&self, path: &Path) -> std::io::Result<()> {
        lookoutd::feed::disk::LocalDisk.remove_dir(path)
    }
    fn free(&self, path: &Path) -> std::io::Result<u64> {
        if self.is_full.load(std::sync::atomic::Ordering::SeqCst) {
            return Ok(1);
        }
        lookoutd::feed::disk::LocalDisk.free(path)
    }
}
