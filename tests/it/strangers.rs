//! What somebody without a key costs the listeners: bodies that are not kept, answers that nobody reads, pages of elsewhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lookoutd::embedded::KeyPair;
use lookoutd::ops::stalls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::commands::lookoutd;
use crate::rig::directory;
use crate::security::{Site, answers, status, talk};

const MIB: usize = 1 << 20;

/// A service as a process of its own, so that its memory can be told.
struct Serve {
    process: Child,
    api: SocketAddr,
    keys: KeyPair,
    _directory: tempfile::TempDir,
}

impl Serve {
    fn start() -> Serve {
        let directory = directory();
        let keys = KeyPair::load_or_create(directory.path()).unwrap();
        let any = "127.0.0.1:0";
        let mut process = lookoutd()
            .args(["serve", "--listen", any, "--s3-listen", any])
            .args(["--admin-listen", "", "--data-dir"])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let api = said.find_map(|line| {
            let line = line.unwrap();
            let url = line.strip_prefix("Lookout API")?.trim().to_owned();
            url.strip_prefix("http://")?.parse().ok()
        });
        Serve {
            process,
            api: api.expect("serve says where it listens"),
            keys,
            _directory: directory,
        }
    }

    /// MiB that it held at most.
    fn peak(&self) -> usize {
        let path = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The head of a request that says it is signed by `key`, now.
fn head(key: &str, length: usize) -> String {
    let now = chrono::Utc::now().format("%Y%m%dT%H%M%SZ").to_string();
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={key}/{}/us-east-1/lookoutequipment/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-target, Signature={}",
        &now[..8],
        "0".repeat(64)
    );
    format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: AWSLookoutEquipmentFrontendService.ListModels\r\n\
         X-Amz-Date: {now}\r\nAuthorization: {authorization}\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[test]
fn the_bodies_of_strangers_are_not_kept_and_few_large_ones_of_anybody() {
    let serve = Serve::start();
    let before = serve.peak();
    let size = 4 * MIB - 1;
    // Some name no key that is known, some one that is and did not sign.
    for key in ["AKIAIOSFODNN7EXAMPLE", &serve.keys.access_key] {
        let senders: Vec<_> = (0..60)
            .map(|_| {
                let (head, api) = (head(key, size), serve.api);
                std::thread::spawn(move || {
                    let mut stream = TcpStream::connect(api).unwrap();
                    stream
                        .set_write_timeout(Some(Duration::from_secs(4)))
                        .unwrap();
                    let _ = stream.write_all(head.as_bytes());
                    // The last byte is held back; what the other side does not take stays here.
                    let block = [b' '; 65_536];
                    let mut left = size - 1;
                    while left > 0 {
                        match stream.write(&block[..left.min(block.len())]) {
                            Ok(count) => left -= count,
                            Err(_) => break,
                        }
                    }
                    stream
                })
            })
            .collect();
        let held: Vec<_> = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .collect();
        let peak = serve.peak();
        assert!(peak < before + 150, "{key}: {before} MiB, then {peak} MiB");
        drop(held);
    }
}

#[test]
fn a_body_that_is_too_large_is_told_so_to_a_client_that_sends_all_before_it_reads() {
    let serve = Serve::start();
    for size in [5 * MIB, 20 * MIB] {
        let mut stream = TcpStream::connect(serve.api).unwrap();
        stream
            .write_all(head(&serve.keys.access_key, size).as_bytes())
            .unwrap();
        stream.write_all(&vec![b' '; size]).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(status(&answer), 413, "{answer}");
        assert!(
            answer.contains("RequestEntityTooLargeException"),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_refused_is_not_listened_to_any_further() {
    let site = Site::start().await;
    let many = "GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n".repeat(50);
    for (name, address) in [("api", site.api), ("admin", site.admin)] {
        let answer = talk(address, many.as_bytes()).await;
        assert!(answers(&answer) <= 1, "{name}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_asks_without_reading_is_cut_off() {
    let site = Site::start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let mut stream = socket.connect(site.admin).await.unwrap();
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500);
    let began = Instant::now();
    // Until the other side takes nothing any more, because it cannot answer; and then until it is gone.
    let gone = async { while stream.write_all(request.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(stalls::LONGEST * 4, gone)
        .await
        .expect("it is cut off");
    assert!(
        began.elapsed() >= stalls::LONGEST / 2,
        "{:?}",
        began.elapsed()
    );
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(
        status(
            &talk(
                site.admin,
                b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            .await
        ),
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_answered_for_pages_that_are_configured_and_for_no_others() {
    let page = "http://localhost:3000";
    let site = Site::for_pages(&[page]).await;
    let plain = Site::start().await;
    let ask = |path: &str, origin: &str| {
        format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,x-amz-target\r\n\r\n"
        )
    };
    for (address, closed, path) in [
        (site.api, plain.api, "/"),
        (site.s3, plain.s3, "/plant/x.csv"),
    ] {
        let answer = talk(address, ask(path, page).as_bytes())
            .await
            .to_lowercase();
        assert_eq!(status(&answer), 200, "{answer}");
        for header in [
            "access-control-allow-origin: http://localhost:3000",
            "access-control-allow-headers: authorization,x-amz-target",
            "access-control-allow-methods: get, head, post, put, delete",
        ] {
            assert!(answer.contains(header), "{header}: {answer}");
        }
        let get = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {page}\r\n\r\n");
        let refusal = talk(address, get.as_bytes()).await.to_lowercase();
        assert_eq!(status(&refusal), 403, "{refusal}");
        assert!(
            refusal.contains("access-control-allow-origin: http://localhost:3000"),
            "{refusal}"
        );
        for (address, origin) in [(address, "http://evil.example"), (closed, page)] {
            let answer = talk(address, ask(path, origin).as_bytes()).await;
            assert!(
                !answer.to_lowercase().contains("access-control"),
                "{answer}"
            );
        }
    }
}
