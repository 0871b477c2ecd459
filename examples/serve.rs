//! A service with an in-process S3 on fixed ports, for trying clients against: `serve DATA_DIR`.
#![allow(clippy::unwrap_used, reason = "a development server may panic")]

use std::path::PathBuf;

use lookoutd::clock::Clock;
use lookoutd::service::store::NewModel;
use lookoutd::service::{AccessKey, Auth, Config, Service};
use tokio_util::sync::CancellationToken;

#[path = "../tests/it/s3_server.rs"]
mod s3_server;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .init();
    let data_dir = PathBuf::from(
        std::env::args()
            .nth(1)
            .unwrap_or_else(|| "/tmp/lookoutd-serve".into()),
    );
    std::fs::create_dir_all(data_dir.join("s3"))?;
    let s3 = s3_server::serve(&data_dir.join("s3"), "127.0.0.1:9190".parse()?).await;
    let config = Config {
        listen: "127.0.0.1:9180".parse()?,
        data_dir,
        region: "us-east-1".into(),
        account: "123456789012".into(),
        credentials: Auth::Keys(vec![AccessKey {
            id: s3_server::KEY.0.into(),
            secret: s3_server::KEY.1.into(),
        }]),
        catch_up: false,
    };
    let clock = Clock::system();
    let service = Service::start(
        config,
        s3_server::client(s3),
        clock.clone(),
        CancellationToken::new(),
    )
    .await?;
    let model = NewModel {
        name: "wire-model".into(),
        components: vec![("pump".into(), vec!["Sensor0".into(), "Sensor1".into()])],
        sampling_us: Some(60_000_000),
        file: Vec::new(),
        region: "us-east-1".into(),
        account: "123456789012".into(),
    };
    service.store().register_model(model, clock.now()).await?;
    println!("ready on {}", service.address());
    service.stopped().await;
    Ok(())
}
