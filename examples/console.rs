//! The console over a made-up service with many schedulers and a long history, for looking at it and for the browser
//! tests: `console DIR LISTEN [SCHEDULERS EXECUTIONS]`. Prints its address and serves until it is stopped.

use std::net::SocketAddr;
use std::path::PathBuf;

use lookoutd::clock::Clock;
use lookoutd::embedded::{EmbeddedS3, KeyPair};
use lookoutd::executions::Place;
use lookoutd::ops::admin::{Admin, Config};
use lookoutd::ops::site::Site;
use lookoutd::s3::local_client;
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
        ..fleet::Fleet::default()
    };
    std::fs::create_dir_all(&directory)?;
    let stop = CancellationToken::new();
    let keys = KeyPair::load_or_create(&directory)?;
    let any: SocketAddr = "127.0.0.1:0".parse()?;
    let store = EmbeddedS3::start(&directory.join("s3"), any, &keys, stop.clone()).await?;
    store.create_bucket("plant")?;
    let clock = Clock::system();
    let places = fleet
        .write(&directory, Some(store.store()), "plant", clock.now())
        .await;
    let client = local_client(&store.endpoint_url(), &keys.access_key, &keys.secret_key);
    let (_sites, seen) = watch::channel(Some(Site {
        store: None,
        clock,
        assets: Vec::new(),
        history: Some(Place::service(places.state.clone())),
        archive: None,
        s3: Some(client),
        vitals: lookoutd::vitals::Vitals::default(),
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
