//! TLS of listeners: real clients with a certificate authority made for the test, replaced files, and what `check` says.
//!
//! The authority is made by the `openssl` command; without it these skip loudly.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lookoutd::ops::admin::{Admin, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::commands::lookoutd;
use crate::rig::directory;

/// A certificate authority with one certificate for this machine; all as PEM files.
struct Authority {
    root: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

/// Sections for `openssl req` and `openssl ca`.
const SETTINGS: &str = "
[req]
distinguished_name = name
x509_extensions = authority
prompt = no
[name]
CN = test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[ca]
default_ca = issue
[issue]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = machine
unique_subject = no
[any]
commonName = supplied
[machine]
subjectAltName = DNS:localhost, IP:127.0.0.1
basicConstraints = CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

/// Whether there is an `openssl`; says so if not.
fn no_openssl() -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok();
    if !found {
        crate::skipped::say("openssl is not installed, which makes the certificates of this test");
    }
    !found
}

impl Authority {
    /// The certificate holds from the first of January of one year to that of another.
    fn new(directory: &Path, years: (i32, i32)) -> Authority {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("settings"), SETTINGS).unwrap();
        std::fs::write(directory.join("index.txt"), "").unwrap();
        let (from, to) = (
            format!("{}0101000000Z", years.0),
            format!("{}0101000000Z", years.1),
        );
        let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config settings";
        for line in [
            format!("req -x509 {new_key} -keyout ca.key -out ca.pem -days 20000"),
            format!("req {new_key} -keyout key.pem -out request.pem"),
            format!(
                "ca -batch -notext -config settings -cert ca.pem -keyfile ca.key -in request.pem -out own.pem \
                 -startdate {from} -enddate {to}"
            ),
        ] {
            let output = Command::new("openssl")
                .args(line.split_whitespace())
                .current_dir(directory)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "openssl {line}: {said}");
        }
        let chain = directory.join("chain.pem");
        let both = ["own.pem", "ca.pem"]
            .map(|name| std::fs::read_to_string(directory.join(name)).unwrap());
        std::fs::write(&chain, both.concat()).unwrap();
        Authority {
            root: directory.join("ca.pem"),
            chain,
            key: directory.join("key.pem"),
        }
    }

    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&self.root).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// The first line of the answer to a GET, by a client that trusts this authority alone.
    async fn get(&self, to: SocketAddr, path: &str, headers: &str) -> std::io::Result<String> {
        let stream = TcpStream::connect(to).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = self.connector().connect(name, stream).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Whether the other side says good-bye is not what this is about.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        Ok(answer.lines().next().unwrap_or_default().to_owned())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `lookoutd serve` with a certificate; killed when dropped.
struct Served {
    child: Child,
    api: SocketAddr,
    s3: SocketAddr,
    data: PathBuf,
}

impl Served {
    fn start(directory: &Path, authority: &Authority) -> Served {
        let data = directory.join("data");
        let mut child = lookoutd()
            .args([
                "serve",
                "--data-dir",
                text(&data),
                "--listen",
                "127.0.0.1:0",
                "--s3-listen",
                "127.0.0.1:0",
            ])
            .args([
                "--tls-cert",
                text(&authority.chain),
                "--tls-key",
                text(&authority.key),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut addresses: Vec<SocketAddr> = Vec::new();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("https://") {
                addresses.push(rest.split_whitespace().next().unwrap().parse().unwrap());
            }
            if line.starts_with("credentials") {
                break;
            }
        }
        Served {
            child,
            api: addresses[0],
            s3: addresses[1],
            data,
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_certificate_is_trusted_by_who_knows_its_authority_and_replaced_without_a_restart()
{
    if no_openssl() {
        return;
    }
    let directory = directory();
    let first = Authority::new(&directory.path().join("first"), (2020, 2090));
    let other = Authority::new(&directory.path().join("other"), (2020, 2090));
    let served = Served::start(directory.path(), &first);
    for address in [served.api, served.s3] {
        let answer = first.get(address, "/", "").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        let error = other.get(address, "/", "").await.unwrap_err().to_string();
        assert!(error.contains("invalid peer certificate"), "{error}");
        // Without TLS there is no answer at all.
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(12), plain.read_to_end(&mut answer)).await;
        assert!(
            !String::from_utf8_lossy(&answer).contains("HTTP/"),
            "{answer:?}"
        );
    }
    std::fs::copy(&other.chain, &first.chain).unwrap();
    std::fs::copy(&other.key, &first.key).unwrap();
    let mut taken = false;
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        taken = other.get(served.api, "/", "").await.is_ok();
        if taken {
            break;
        }
    }
    assert!(taken, "the new certificate is not in use after 60 s");
    // A key that does not fit is refused, and what was in use stays.
    std::fs::write(&first.key, "no key").unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    for _ in 0..3 {
        assert!(other.get(served.api, "/", "").await.is_ok());
    }
}

#[test]
fn boto3_speaks_tls_to_both_listeners_with_a_bundle() {
    if no_openssl() {
        return;
    }
    let Some(python) = crate::skipped::python() else {
        return;
    };
    let directory = directory();
    let authority = Authority::new(&directory.path().join("ca"), (2020, 2090));
    let served = Served::start(directory.path(), &authority);
    let script = "
import boto3, sys
api, s3 = sys.argv[1:3]
assert boto3.client('lookoutequipment', endpoint_url=api).list_models()['ModelSummaries'] == []
store = boto3.client('s3', endpoint_url=s3)
store.put_object(Bucket='lookoutd', Key='input/a.csv', Body=b'x' * 100000)
assert len(store.get_object(Bucket='lookoutd', Key='input/a.csv')['Body'].read()) == 100000
print('fine')
";
    let output = Command::new(python)
        .args(["-c", script])
        .arg(format!("https://localhost:{}", served.api.port()))
        .arg(format!("https://localhost:{}", served.s3.port()))
        .env("AWS_CA_BUNDLE", &authority.root)
        .env(
            "AWS_SHARED_CREDENTIALS_FILE",
            served.data.join("credentials"),
        )
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_speaks_tls_beyond_loopback_and_still_wants_its_token() {
    if no_openssl() {
        return;
    }
    let directory = directory();
    let authority = Authority::new(directory.path(), (2020, 2090));
    let token = directory.path().join("token");
    std::fs::write(&token, "a-token-of-some-length\n").unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let (_, sites) = tokio::sync::watch::channel(None);
    let config = Config {
        listen: "0.0.0.0:0".into(),
        token_file: token.display().to_string(),
        tls_cert: authority.chain.display().to_string(),
        tls_key: authority.key.display().to_string(),
    };
    let admin = Admin::start(&config, sites, lookoutd::console::router(), stop.clone())
        .await
        .unwrap()
        .unwrap();
    assert!(admin.url().starts_with("https://"), "{}", admin.url());
    let address = SocketAddr::from(([127, 0, 0, 1], admin.address().port()));
    assert!(
        authority
            .get(address, "/metrics", "")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 401")
    );
    let bearer = "Authorization: Bearer a-token-of-some-length\r\n";
    assert!(
        !authority
            .get(address, "/metrics", bearer)
            .await
            .unwrap()
            .starts_with("HTTP/1.1 401")
    );
    stop.cancel();
}

#[test]
fn check_looks_at_the_certificate_and_a_pair_that_does_not_fit_starts_nothing() {
    if no_openssl() {
        return;
    }
    let directory = directory();
    let good = Authority::new(&directory.path().join("good"), (2020, 2090));
    let ended = Authority::new(&directory.path().join("ended"), (2020, 2021));
    let early = Authority::new(&directory.path().join("early"), (2080, 2090));
    let data = directory.path().join("data");
    let check = |chain: &str, key: &str| {
        let output = lookoutd()
            .args(["check", "--offline", "--data-dir", text(&data)])
            .args([
                "--set",
                &format!("admin.tls_cert={chain}"),
                "--set",
                &format!("admin.tls_key={key}"),
            ])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    for (chain, key, code, words) in [
        (
            text(&good.chain),
            text(&good.key),
            0,
            "until 2090-01-01T00:00:00Z",
        ),
        (
            text(&ended.chain),
            text(&ended.key),
            3,
            "ended on 2021-01-01T00:00:00Z",
        ),
        (
            text(&early.chain),
            text(&early.key),
            3,
            "begins on 2080-01-01T00:00:00Z",
        ),
        (
            text(&good.chain),
            text(&ended.key),
            78,
            "cannot be used together",
        ),
        (text(&good.key), text(&good.key), 78, "no certificate"),
        (text(&good.chain), text(&good.root), 78, "no private key"),
        (text(&good.chain), "", 78, "admin.tls_key"),
        ("", text(&good.key), 78, "admin.tls_cert"),
        ("/nowhere.pem", text(&good.key), 78, "/nowhere.pem"),
    ] {
        let (found, said) = check(chain, key);
        assert!(
            found == code && said.contains(words),
            "{chain} {key}: {found} {said}"
        );
        let secret = std::fs::read_to_string(&good.key).unwrap();
        assert!(!said.contains(secret.lines().nth(1).unwrap()), "{said}");
    }
    let output = lookoutd()
        .args([
            "serve",
            "--data-dir",
            text(&data),
            "--listen",
            "127.0.0.1:0",
            "--s3-listen",
            "127.0.0.1:0",
        ])
        .args([
            "--tls-cert",
            text(&good.chain),
            "--tls-key",
            text(&ended.key),
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
}
