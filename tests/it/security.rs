//! What a stranger on the network or on the machine can try: malformed and endless requests, keys and names that lead
//! elsewhere, signatures of other requests, and looking for secrets where they must not be.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use lookoutd::clock::Clock;
use lookoutd::daemon::service_config;
use lookoutd::embedded::{EmbeddedS3, KeyPair};
use lookoutd::ops::admin::{Admin, Config};
use lookoutd::ops::cors::Cors;
use lookoutd::s3::local_client;
use lookoutd::service::Service;
use rustix::process::{Resource, Rlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::commands::lookoutd;
use crate::rig::directory;

/// The three listeners, in process.
pub struct Site {
    pub keys: KeyPair,
    pub api: SocketAddr,
    pub s3: SocketAddr,
    pub admin: SocketAddr,
    directory: tempfile::TempDir,
    _service: Service,
    _stop: DropGuard,
}

impl Site {
    pub async fn start() -> Site {
        Self::for_pages(&[]).await
    }

    /// Web pages of these origins may call.
    pub async fn for_pages(origins: &[&str]) -> Site {
        let origins: Vec<String> = origins.iter().map(|&origin| origin.into()).collect();
        let cors = Cors::new(&origins).unwrap();
        let directory = directory();
        let keys = KeyPair::load_or_create(directory.path()).unwrap();
        let stop = CancellationToken::new();
        let any = "127.0.0.1:0".parse().unwrap();
        let root = directory.path().join("s3");
        let s3 = EmbeddedS3::start_tls(&root, any, &keys, None, cors.clone(), stop.clone())
            .await
            .unwrap();
        s3.create_bucket("plant").unwrap();
        let service = Service::start(
            lookoutd::service::Config {
                cors,
                ..service_config(any, directory.path().join("service"), &keys)
            },
            local_client(&s3.endpoint_url(), &keys.access_key, &keys.secret_key),
            Clock::system(),
            stop.clone(),
        )
        .await
        .unwrap();
        let (_, sites) = tokio::sync::watch::channel(None);
        let config = Config {
            listen: "127.0.0.1:0".into(),
            ..Config::default()
        };
        let admin = Admin::start(&config, sites, lookoutd::console::router(), stop.clone())
            .await
            .unwrap()
            .unwrap();
        Site {
            api: service.address(),
            s3: s3
                .endpoint_url()
                .trim_start_matches("http://")
                .parse()
                .unwrap(),
            admin: admin.address(),
            keys,
            directory,
            _service: service,
            _stop: stop.drop_guard(),
        }
    }

    fn all(&self) -> [(&'static str, SocketAddr); 3] {
        [("api", self.api), ("s3", self.s3), ("admin", self.admin)]
    }

    /// A signed request as bytes.
    fn signed(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> String {
        let identity = Credentials::new(
            &self.keys.access_key,
            &self.keys.secret_key,
            None,
            None,
            "test",
        )
        .into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name(if to == self.s3 {
                "s3"
            } else {
                "lookoutequipment"
            })
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let host = to.to_string();
        let mut headers = vec![("host", host.as_str())];
        headers.extend(more);
        let request = SignableRequest::new(
            method,
            format!("http://{to}{path}"),
            headers.iter().copied(),
            SignableBody::Bytes(body),
        )
        .unwrap();
        let (signature, _) = sign(request, &parameters).unwrap().into_parts();
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        for (name, value) in headers.into_iter().chain(signature.headers()) {
            text += &format!("{name}: {value}\r\n");
        }
        text + &format!(
            "content-length: {}\r\n\r\n{}",
            body.len(),
            String::from_utf8_lossy(body)
        )
    }

    /// Everything that lies in the data directory's parent, but for what the service writes.
    fn outside(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut left = vec![self.directory.path().to_owned()];
        while let Some(path) = left.pop() {
            for entry in std::fs::read_dir(&path).unwrap().map(Result::unwrap) {
                let name = entry
                    .path()
                    .strip_prefix(self.directory.path())
                    .unwrap()
                    .display()
                    .to_string();
                if name.starts_with("service") {
                    continue;
                }
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
                found.insert(name);
            }
        }
        found
    }
}

/// Sends bytes and reads until the other side closes, or falls silent.
pub async fn talk(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // The other side may refuse before everything is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let patience = if answer.is_empty() { 3_000 } else { 300 };
        let read = tokio::time::timeout(Duration::from_millis(patience), stream.read(&mut part));
        match read.await {
            Ok(Ok(count @ 1..)) => answer.extend_from_slice(&part[..count]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn status(answer: &str) -> u16 {
    answer
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

pub fn answers(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_two_readers_could_take_apart_differently_are_refused() {
    let site = Site::start().await;
    let second = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let ambiguous: [(&str, String); 9] = [
        (
            "two lengths",
            format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 50\r\n\r\nabcd{second}"
            ),
        ),
        (
            "a list of lengths",
            format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4, 50\r\n\r\nabcd{second}"
            ),
        ),
        (
            "a signed length",
            format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +4\r\n\r\nabcd{second}"),
        ),
        (
            "a folded header",
            format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n Content-Length: 4\r\n\r\n{second}"
            ),
        ),
        (
            "a space before the colon",
            format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length : 4\r\n\r\nabcd{second}"),
        ),
        (
            "chunked but not last",
            format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{second}"
            ),
        ),
        (
            "a chunk that ends in a bare line feed",
            format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0;x\n\r\n{second}"
            ),
        ),
        (
            "length, then chunked",
            format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}"
            ),
        ),
        (
            "chunked, then length",
            format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{second}"
            ),
        ),
    ];
    for (name, address) in site.all() {
        for (what, bytes) in &ambiguous {
            let answer = talk(address, bytes.as_bytes()).await;
            assert!(
                answers(&answer) <= 1,
                "{name}, {what}: the second request was answered: {answer}"
            );
            assert!(
                !(200..300).contains(&status(&answer)),
                "{name}, {what}: {answer}"
            );
        }
        // Line feeds alone end lines for every reader we know; they make one request of one request.
        let bare = "GET /livez HTTP/1.1\nHost: localhost\n\n";
        assert_eq!(answers(&talk(address, bare.as_bytes()).await), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_headers_and_bodies_are_refused_without_being_kept() {
    let site = Site::start().await;
    let long = format!(
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n",
        "x".repeat(300_000)
    );
    let many: String = (0..500).map(|n| format!("X-{n}: y\r\n")).collect();
    let many = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    for (name, address) in site.all() {
        for bytes in [&long, &many] {
            let code = status(&talk(address, bytes.as_bytes()).await);
            assert!(code == 431 || code == 0, "{name}: {code}");
        }
    }
    let body = format!("{:x}\r\n{}\r\n", 5 << 20, "x".repeat(5 << 20));
    let endless =
        format!("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    assert!(!(200..300).contains(&status(&talk(site.api, endless.as_bytes()).await)));
    let announced = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
        5 << 20,
        "x".repeat(5 << 20)
    );
    assert_eq!(status(&talk(site.api, announced.as_bytes()).await), 413);
    // The listeners are as well as before.
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

/// How long the other side lets a client be that has sent these bytes and nothing more.
async fn patience(to: SocketAddr, bytes: &[u8]) -> Duration {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(50), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "still open after 50 s");
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_dawdle_are_cut_off_and_do_not_keep_others_out() {
    let site = Site::start().await;
    let head = b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    let s3_put = site.signed(site.s3, "PUT", "/plant/slow", &[], &[b'x'; 1000]);
    let s3_put = &s3_put.as_bytes()[..s3_put.len() - 900];
    let waiting = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc";
    // More connections than the admin listener takes at once, each of which says nothing.
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(site.admin).await.unwrap());
    }
    let crowded = async {
        let mut stream = TcpStream::connect(site.admin).await.unwrap();
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(25), stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(status(&answer), 200);
    };
    let (api, s3, admin, api_body, s3_body, ()) = tokio::join!(
        patience(site.api, head),
        patience(site.s3, head),
        patience(site.admin, head),
        patience(site.api, waiting),
        patience(site.s3, s3_put),
        crowded,
    );
    for (what, took, most) in [
        ("headers, api", api, 17),
        ("headers, s3", s3, 32),
        ("headers, admin", admin, 25),
        ("body, api", api_body, 48),
        ("body, s3", s3_body, 48),
    ] {
        assert!(took < Duration::from_secs(most), "{what}: {took:?}");
    }
    let get = site.signed(site.s3, "GET", "/plant/slow", &[], b"");
    assert_eq!(status(&talk(site.s3, get.as_bytes()).await), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_full_listener_those_who_came_first_make_room_for_a_new_client() {
    // Both ends of every connection are here.
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
    let site = Site::start().await;
    let target = (
        "x-amz-target",
        "AWSLookoutEquipmentFrontendService.ListModels",
    );
    // Whoever is refused by the API is closed at once.
    let signed = site.signed(site.api, "POST", "/", &[target], b"{}");
    let plain = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for ((what, to), most) in site.all().into_iter().zip([512, 512, 32]) {
        let ask = if to == site.api {
            signed.as_bytes()
        } else {
            plain.as_bytes()
        };
        let mut clients = Vec::new();
        for _ in 0..most {
            let mut client = TcpStream::connect(to).await.unwrap();
            client.write_all(ask).await.unwrap();
            let mut answer = [0; 64];
            assert!(client.read(&mut answer).await.unwrap() > 9, "{what}");
            clients.push(client);
        }
        // They stay, each for a while longer, as clients that keep their connections do.
        tokio::time::sleep(Duration::from_millis(500)).await;
        for _ in 0..3 {
            let began = Instant::now();
            let mut newcomer = TcpStream::connect(to).await.unwrap();
            newcomer.write_all(ask).await.unwrap();
            let mut answer = [0; 64];
            let read = tokio::time::timeout(Duration::from_secs(3), newcomer.read(&mut answer));
            assert!(
                read.await.unwrap().unwrap() > 9,
                "{what}: {:?}",
                began.elapsed()
            );
            clients.push(newcomer);
        }
        let mut gone = Vec::new();
        for (number, client) in clients.iter_mut().enumerate() {
            let mut rest = Vec::new();
            let end = client.read_to_end(&mut rest);
            if tokio::time::timeout(Duration::from_millis(2), end)
                .await
                .is_ok()
            {
                gone.push(number);
            }
        }
        // One for each, sometimes a second that was asked before the first had left; none of those who came last.
        assert!((3..=6).contains(&gone.len()), "{what}: {gone:?}");
        assert!(gone.iter().all(|number| *number < most), "{what}: {gone:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_of_the_embedded_store_leads_out_of_its_bucket() {
    let site = Site::start().await;
    let before = site.outside();
    for key in [
        "../evil",
        "../../evil",
        "a/../../../evil",
        "a/..",
        "./evil",
        "%2e%2e/evil",
        "..%2fevil",
        "%2e%2e%2f%2e%2e%2fevil",
        "a%00b",
        "..%2f..%2fcredentials",
        "/../../credentials",
    ] {
        // A key is text: it is kept under its name, and nothing of it is a name on disk.
        for method in ["PUT", "GET", "HEAD", "DELETE"] {
            let request = site.signed(
                site.s3,
                method,
                &format!("/plant/{key}"),
                &[],
                if method == "PUT" { b"evil" } else { b"" },
            );
            let answer = talk(site.s3, request.as_bytes()).await;
            assert!(
                (200..500).contains(&status(&answer)),
                "{method} {key}: {answer}"
            );
            assert!(!answer.contains(&site.keys.secret_key), "{method} {key}");
        }
        assert_eq!(site.outside(), before, "{key}");
        let source = format!("plant/{key}");
        let copy = site.signed(
            site.s3,
            "PUT",
            "/plant/copy",
            &[("x-amz-copy-source", &source)],
            b"",
        );
        let answer = talk(site.s3, copy.as_bytes()).await;
        // What was there is deleted, and there is no file of that name.
        assert_eq!(status(&answer), 404, "copy of {key}: {answer}");
    }
    assert_eq!(site.outside(), before);
    let good = site.signed(
        site.s3,
        "PUT",
        "/plant/2021-08-31T12%3A45%3A00Z/a..b/results.jsonl",
        &[],
        b"fine",
    );
    assert_eq!(
        status(&talk(site.s3, good.as_bytes()).await),
        200,
        "dots inside a name are no harm"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_good_for_its_own_request_alone() {
    let site = Site::start().await;
    let target = [
        (
            "x-amz-target",
            "AWSLookoutEquipmentFrontendService.ListModels",
        ),
        ("content-type", "application/x-amz-json-1.0"),
    ];
    let good = site.signed(site.api, "POST", "/", &target, b"{}");
    assert_eq!(status(&talk(site.api, good.as_bytes()).await), 200);
    let at = good.find("Signature=").unwrap() + "Signature=".len();
    let flip = |at: usize| {
        let mut text = good.clone().into_bytes();
        text[at] = if text[at] == b'0' { b'1' } else { b'0' };
        String::from_utf8(text).unwrap()
    };
    let other_body = good.replace("\r\n\r\n{}", "\r\n\r\n[]");
    let other_hash = site.signed(site.api, "POST", "/", &target, b"[]");
    let hash = |text: &str| text.split("x-amz-content-sha256: ").nth(1).unwrap()[..64].to_owned();
    for (what, request) in [
        ("another body", other_body.clone()),
        (
            "another body with its own hash",
            other_body.replace(&hash(&good), &hash(&other_hash)),
        ),
        (
            "another operation",
            good.replace("ListModels", "ListDatasets"),
        ),
        ("another path", good.replace("POST / ", "POST /x ")),
        ("a query", good.replace("POST / ", "POST /?a=b ")),
        ("the first digit", flip(at)),
        ("the last digit", flip(at + 63)),
        (
            "a digit less",
            good.replacen(&good[at..at + 64], &good[at..at + 63], 1),
        ),
        (
            "a digit more",
            good.replacen(&good[at..at + 64], &format!("{}0", &good[at..at + 64]), 1),
        ),
    ] {
        let code = status(&talk(site.api, request.as_bytes()).await);
        assert!(code == 403 || code == 400, "{what}: {code}");
    }
    let put = site.signed(site.s3, "PUT", "/plant/one", &[], b"good");
    let forged = put.replace("\r\n\r\ngood", "\r\n\r\nevil");
    assert!(!(200..300).contains(&status(&talk(site.s3, forged.as_bytes()).await)));
    let get = site.signed(site.s3, "GET", "/plant/one", &[], b"");
    let absent = talk(site.s3, get.as_bytes()).await;
    assert_eq!(status(&absent), 404, "another body was stored: {absent}");
    assert_eq!(status(&talk(site.s3, put.as_bytes()).await), 200);
    let there = talk(site.s3, get.as_bytes()).await;
    assert!(there.ends_with("good"), "{there}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presigned_address_ends_with_its_time_and_opens_nothing_else() {
    use aws_sdk_s3::presigning::PresigningConfig;
    let site = Site::start().await;
    let client = local_client(
        &format!("http://{}", site.s3),
        &site.keys.access_key,
        &site.keys.secret_key,
    );
    for (key, text) in [("one", "good"), ("two", "secret")] {
        let put = client.put_object().bucket("plant").key(key);
        let body = text.as_bytes().to_vec().into();
        put.body(body).send().await.unwrap();
    }
    let address = async |seconds| {
        let how = PresigningConfig::expires_in(Duration::from_secs(seconds)).unwrap();
        let request = client
            .get_object()
            .bucket("plant")
            .key("one")
            .presigned(how)
            .await
            .unwrap();
        let path = request
            .uri()
            .split_once(&site.s3.to_string())
            .unwrap()
            .1
            .to_owned();
        let more: String = request
            .headers()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n{more}Connection: close\r\n\r\n",
            site.s3
        )
    };
    let (short, long) = (address(1).await, address(60).await);
    assert_eq!(status(&talk(site.s3, long.as_bytes()).await), 200);
    let other = long.replace("/plant/one", "/plant/two");
    assert_eq!(status(&talk(site.s3, other.as_bytes()).await), 403);
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let late = talk(site.s3, short.as_bytes()).await;
    assert_eq!(status(&late), 403, "{late}");
    // The API has none.
    let query = long.replace("/plant/one", "/");
    assert_eq!(status(&talk(site.api, query.as_bytes()).await), 403);
}

#[test]
fn names_that_lead_elsewhere_are_refused_or_stay_where_they_belong() {
    use lookoutd::inference::{Archive, Execution};
    use lookoutd::signal::TagList;
    let directory = directory();
    let archive = Archive::new(directory.path().join("archive"));
    for name in ["../evil", "/evil", "..", "a/b", "a\0b", ""] {
        let execution = Execution {
            scheduler: name.into(),
            model: "m".into(),
            model_version: None,
            scheduled: None,
            data_start: "2026-01-01T00:00:00Z".parse().unwrap(),
            data_end: "2026-01-01T00:05:00Z".parse().unwrap(),
            status: "SUCCESS".into(),
            failed_reason: None,
            result: None,
            input: String::new(),
        };
        assert!(archive.keep(&execution, Some(b"x")).is_err(), "{name:?}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let tags = directory.path().join("tags.csv");
    for component in ["../evil", "/evil", "a/b", "a\\b", "a\0b"] {
        std::fs::write(&tags, format!("Tag,UOM,Subsystem\nsignal,C,{component}\n")).unwrap();
        assert!(TagList::read(&tags).is_err(), "{component:?}");
    }
}

#[test]
fn key_pair_and_data_directory_are_their_owners_alone_whatever_the_umask() {
    let directory = directory();
    let data = directory.path().join("data");
    let mut child = std::process::Command::new("sh")
        .args(["-c", "umask 0; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_lookoutd"))
        .args([
            "serve",
            "--data-dir",
            data.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--s3-listen",
            "127.0.0.1:0",
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let up = lines
        .map_while(Result::ok)
        .any(|line| line.starts_with("credentials"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(up, "it did not start");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("credentials")), 0o600);

    // A file or a link that waits in the place of a new key pair is neither written through nor taken over.
    let trap = directory.path().join("trap");
    std::fs::create_dir(&trap).unwrap();
    let victim = directory.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o666)).unwrap();
    symlink(&victim, trap.join(".credentials.new")).unwrap();
    KeyPair::load_or_create(&trap).unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(mode(&trap.join("credentials")), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_log_at_any_level_or_in_any_answer() {
    use std::io::{BufRead, BufReader, Read};
    let directory = directory();
    let data = directory.path().join("data");
    let mut child = lookoutd()
        .args([
            "serve",
            "--data-dir",
            data.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--s3-listen",
            "127.0.0.1:0",
        ])
        .env("LOOKOUTD__LOG__LEVEL", "trace")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let log = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let mut addresses = Vec::new();
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
    {
        said += &line;
        if let Some((_, rest)) = line.split_once("http://") {
            addresses.push(rest.split_whitespace().next().unwrap().to_owned());
        }
        if line.starts_with("credentials") {
            break;
        }
    }
    let keys = KeyPair::load_or_create(&data).unwrap();
    let api = lookoutd::inference::local_client(
        &format!("http://{}", addresses[0]),
        &keys.access_key,
        &keys.secret_key,
    );
    api.list_models().send().await.unwrap();
    let wrong = lookoutd::inference::local_client(
        &format!("http://{}", addresses[0]),
        &keys.access_key,
        "another-secret-of-somebody",
    );
    let refused = format!("{:?}", wrong.list_models().send().await.unwrap_err());
    let s3 = local_client(
        &format!("http://{}", addresses[1]),
        &keys.access_key,
        &keys.secret_key,
    );
    s3.list_buckets().send().await.unwrap();
    let refused_s3 = local_client(
        &format!("http://{}", addresses[1]),
        &keys.access_key,
        "another-secret-of-somebody",
    );
    let refused_s3 = format!("{:?}", refused_s3.list_buckets().send().await.unwrap_err());
    for text in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "garbage\r\n\r\n"] {
        said += &talk(addresses[0].parse().unwrap(), text.as_bytes()).await;
    }
    let killed = std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status();
    assert!(killed.unwrap().success());
    child.wait().unwrap();
    let log = log.join().unwrap();
    assert!(
        log.contains("request answered"),
        "not as detailed as it should be"
    );
    for text in [&said, &refused, &refused_s3, &log] {
        assert!(!text.contains(&keys.secret_key), "the secret key was told");
    }
    assert!(!log.contains("another-secret-of-somebody"));
}
