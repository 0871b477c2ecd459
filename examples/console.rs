//! The console over a made-up service with many schedulers and a long history, for looking at it and for the browser
//! tests: `console DIR LISTEN [SCHEDULERS EXECUTIONS [BROKEN]]`. With the last, each scheduler is that of an asset, and so many
//! assets wait for their histories. Prints its address and serves until it is stopped.

use std::net::SocketAddr;
use std::path::PathBuf;

use lookoutd::clock::Clock;
use lookoutd::embedded::{EmbeddedS3, KeyPair};
use lookoutd::executions::Place;
use lookoutd::ops::admin::{Admin, Config};
use lookoutd::ops::site::Site;
use lookoutd::s3::{Bucket, local_client};
use lookoutd::vitals::{Code, Trouble};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[path = "../tests/it/fleet.rs"]
#[allow(
    clippy::unwrap_used,
    reason = "made-up data that cannot be written is a failed example"
)]
mod fleet;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(
        arguments
            .next()
            .unwrap_or_else(|| "/tmp/lookoutd-console".into()),
    );
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:9181".into());
    let mut number = |default: i64| {
        arguments
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let fleet = fleet::Fleet {
        schedulers: number(20) as usize,
        executions: number(600),
        of_others: 3,
        ..fleet::Fleet::default()
    };
    let broken = number(-1);
    // A day of each asset is drawn.
    let fleet = fleet::Fleet {
        of_others: if broken < 0 { 3 } else { 288 },
        ..fleet
    };
    std::fs::create_dir_all(&directory)?;
    let stop = CancellationToken::new();
    let keys = KeyPair::load_or_create(&directory)?;
    let any: SocketAddr = "127.0.0.1:0".parse()?;
    let store = EmbeddedS3::start(&directory.join("s3"), any, &keys, stop.clone()).await?;
    store.create_bucket("plant")?;
    // Nobody feeds the plant: its time stands, or all of it would soon be late.
    let clock = match broken < 0 {
        true => Clock::system(),
        false => Clock::manual(Clock::system().now()),
    };
    let places = fleet
        .write(&directory, Some(store.store()), "plant", clock.now())
        .await;
    let client = local_client(&store.endpoint_url(), &keys.access_key, &keys.secret_key);
    let vitals = lookoutd::vitals::Vitals::default();
    let assets = match usize::try_from(broken) {
        Ok(broken) => {
            let bucket = Bucket::new(client.clone(), "plant");
            let wrong = |asset: &str, code, text: &str| {
                let since = clock.now() - chrono::TimeDelta::minutes(40);
                let remedy = "see the log for what the source said";
                vitals.of(asset).troubles().raise(Trouble::new(
                    code,
                    since,
                    text.to_owned(),
                    remedy,
                ));
            };
            wrong(
                "asset-0007",
                Code::SourceFailing,
                "windows cannot be cut: /plant/pump-7.parquet is not a Parquet file",
            );
            wrong(
                "asset-0003",
                Code::ComponentsBlank,
                "1 component had no value in the last window: motor",
            );
            fleet::assets(&fleet, &directory, &bucket, clock.now(), &vitals, broken)
        }
        Err(_) => Vec::new(),
    };
    let (_sites, seen) = watch::channel(Some(Site {
        inputs: Vec::new(),
        store: None,
        clock,
        assets,
        history: Some(Place::service(places.state.clone())),
        archive: None,
        s3: Some(client),
        vitals,
    }));
    let config = Config {
        listen,
        ..Config::default()
    };
    if let Some(admin) =
        Admin::start(&config, seen, lookoutd::console::router(), stop.clone()).await?
    {
        println!("console {}", admin.url());
    }
    stop.cancelled().await;
    Ok(())
}
