//! What the commands about the scheduler share: which API, which scheduler, what it is to be.

use anyhow::{Context, bail};
use aws_sdk_lookoutequipment::Client;

use crate::config::Config;
use crate::daemon::{EMBEDDED_BUCKET, EMBEDDED_PREFIX, EMBEDDED_SCHEDULER};
use crate::embedded::KeyPair;
use crate::inference::{self, Target};

/// The API of a configuration: the configured one, or that of the embedded daemon on this data directory.
pub async fn api(config: &Config) -> anyhow::Result<Client> {
    if !config.is_embedded() || !config.inference.endpoint_url.is_empty() {
        return Ok(config.inference.client(&config.s3).await);
    }
    let data_dir = config.data_dir();
    if !data_dir.join("credentials").exists() {
        bail!(
            "no credentials in {}: has lookoutd run there? set --data-dir, or inference.endpoint_url",
            data_dir.display()
        );
    }
    let keys = KeyPair::load_or_create(&data_dir)?;
    Ok(inference::local_client(
        &format!("http://{}", config.service.listen),
        &keys.access_key,
        &keys.secret_key,
    ))
}

/// The named scheduler, or the configured one.
pub fn scheduler(config: &Config, name: Option<&str>) -> anyhow::Result<String> {
    match (name, config.inference.scheduler.as_str()) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, "") if config.is_embedded() => Ok(EMBEDDED_SCHEDULER.to_owned()),
        (None, "") => None.context("which scheduler? name it, or set inference.scheduler"),
        (None, name) => Ok(name.to_owned()),
    }
}

/// What the scheduler is to be, as the daemon would have it.
pub fn target(config: &Config, name: &str) -> Target {
    let (bucket, prefix) = input(config);
    Target {
        scheduler: name.to_owned(),
        ..config
            .inference
            .target(config.feed.cadence, config.naming, &bucket, &prefix)
    }
}

/// Bucket and key prefix of the input files.
pub fn input(config: &Config) -> (String, String) {
    let prefix = &config.s3.input_prefix;
    if !config.is_embedded() {
        return (config.s3.bucket.clone(), prefix.clone());
    }
    let prefix = if prefix.is_empty() {
        EMBEDDED_PREFIX
    } else {
        prefix
    };
    (EMBEDDED_BUCKET.to_owned(), prefix.to_owned())
}
