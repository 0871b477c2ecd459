//! What the running daemon says of itself on its admin listener, and what one question tells of the store's clock.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bundle::Found;
use crate::config::Config;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// As much of an answer as is read.
const MOST: u64 = 8 << 20;

/// A page of the admin listener.
pub async fn admin(config: &Config, path: &str) -> Result<String, String> {
    let admin = &config.admin;
    if admin.listen.is_empty() {
        return Err("admin.listen is empty: there is no listener to ask".into());
    }
    if !admin.tls_cert.is_empty() {
        return Err(format!(
            "the listener speaks TLS, and diag trusts no certificate: add what curl gets from https://{}{path}",
            admin.listen
        ));
    }
    let mut address: SocketAddr = admin
        .listen
        .parse()
        .map_err(|_| "admin.listen is no address".to_owned())?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let token = match admin.token_file.as_str() {
        "" => String::new(),
        file => match std::fs::read_to_string(file) {
            Ok(token) => format!("Authorization: Bearer {}\r\n", token.trim()),
            Err(error) => return Err(format!("the token of {file} cannot be read: {error}")),
        },
    };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{token}Connection: close\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(MOST).read_to_end(&mut bytes).await?;
        std::io::Result::Ok(bytes)
    };
    let bytes = match tokio::time::timeout(PATIENCE, exchange).await {
        Err(_) => {
            return Err(format!(
                "{address} gave no answer in {} s",
                PATIENCE.as_secs()
            ));
        }
        Ok(Err(error)) => return Err(format!("{address}: {error}")),
        Ok(Ok(bytes)) => bytes,
    };
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    match status {
        // 503 is an answer: it says what is wrong.
        "200" | "503" => Ok(body.to_owned()),
        _ => Err(format!("{address} answered {status}")),
    }
}

/// The page as a part.
pub fn part(page: &Result<String, String>, holds: impl Fn(&str) -> String) -> Found {
    match page {
        Ok(text) => Found::whole(holds(text), text.clone()),
        Err(why) => Found::missing(format!("the daemon cannot be asked: {why}")),
    }
}

/// The verdict of `/readyz` in a line.
pub fn verdict(text: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let codes: Vec<&str> = answer["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|reason| reason["code"].as_str())
        .collect();
    let ready = if answer["ready"] == true {
        "ready"
    } else {
        "NOT ready"
    };
    match codes.is_empty() {
        true => ready.to_owned(),
        false => format!("{ready}: {}", codes.join(", ")),
    }
}

/// A gauge of `/metrics`.
pub fn gauge(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

/// Seconds that this machine's clock is ahead of the store's, by the date of one answer. Any answer has one, a refusal too.
pub async fn store_offset(config: &Config) -> Result<f64, String> {
    if config.is_embedded() {
        return Err("the store is embedded: it goes by this machine's clock".into());
    }
    let question = async {
        let bucket = config.s3.open().await;
        let answer = bucket
            .client()
            .head_bucket()
            .bucket(bucket.name())
            .send()
            .await;
        match bucket.readings().offset {
            Some(offset) => Ok(offset.as_seconds_f64()),
            None => Err(match answer {
                Ok(_) => "the store's answer has no date".to_owned(),
                Err(error) => crate::s3::Failure::from(&error).to_string(),
            }),
        }
    };
    match tokio::time::timeout(PATIENCE * 2, question).await {
        Ok(offset) => offset,
        Err(_) => Err("the store gave no answer in time".into()),
    }
}
