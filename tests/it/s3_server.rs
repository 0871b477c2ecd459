//! The embedded S3 on loopback for tests, over a temporary directory, with one known key pair.

use std::net::SocketAddr;
use std::path::Path;

use lookoutd::embedded::{EmbeddedS3, KeyPair};
use lookoutd::s3::local_client;
use lookoutd::store::Store;
use tokio_util::sync::CancellationToken;

/// Key id and secret the server knows.
pub const KEY: (&str, &str) = ("AKIDTEST", "secret");

/// Serves `root` until the runtime ends; its address, and the store behind it.
pub async fn open(root: &Path, listen: SocketAddr) -> (SocketAddr, Store) {
    let keys = KeyPair {
        access_key: KEY.0.into(),
        secret_key: KEY.1.into(),
    };
    let server = EmbeddedS3::start(root, listen, &keys, CancellationToken::new())
        .await
        .unwrap();
    let address = server.endpoint_url()["http://".len()..].parse().unwrap();
    (address, server.store().clone())
}

/// A client of the server at `address`.
pub fn client(address: SocketAddr) -> aws_sdk_s3::Client {
    local_client(&format!("http://{address}"), KEY.0, KEY.1)
}
