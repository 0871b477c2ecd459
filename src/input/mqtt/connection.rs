//! One connection to a broker: TCP, TLS where it is wanted, and the broker's welcome.
//!
//! Guarantees: every step has a deadline; certificates, key and password are read anew for each connection, so that what was
//! renewed is used; a broker that is not heard of within the keep-alive is gone, whatever TCP believes. The cryptography is that
//! of the AWS clients.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio_util::either::Either;

use super::packet::{self, ConnAck, Connect, Decoder, Incoming, NotMqtt, Version};

/// Each of the steps to a connection takes no longer.
const STEP: Duration = Duration::from_secs(10);
/// What is written is taken within this time.
const WRITE: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const READ: usize = 16 << 10;

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// It is spoken to through TLS.
    pub is_tls: bool,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            return write!(f, "{scheme}://[{}]:{}", self.host, self.port);
        }
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl FromStr for Broker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "write it as mqtt://HOST:1883, or mqtts://HOST:8883 for TLS";
        let (is_tls, rest) = match text.split_once("://") {
            Some(("mqtt" | "tcp", rest)) => (false, rest),
            Some(("mqtts" | "ssl" | "tls", rest)) => (true, rest),
            Some(("ws" | "wss", _)) => {
                return Err("speaks MQTT through WebSockets, which is not built in: use the broker's own port, mqtt://HOST:1883 or mqtts://HOST:8883".into());
            }
            _ => return Err(format!("is no address of a broker: {expected}")),
        };
        let rest = rest.trim_end_matches('/');
        if rest.contains('@') {
            return Err(
                "holds a user or a password: those are read from user_file and password_file"
                    .into(),
            );
        }
        if rest.contains('/') {
            return Err(format!("has a path, which MQTT does not: {expected}"));
        }
        let default = if is_tls { 8883 } else { 1883 };
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, port)) => (host, port.strip_prefix(':').or(Some(""))),
                None => return Err(format!("has no ] behind its address: {expected}")),
            },
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port.map(str::parse) {
            None => default,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return Err(format!("has no port from 1 to 65535: {expected}")),
        };
        if host.is_empty() {
            return Err(format!("names no host: {expected}"));
        }
        Ok(Broker {
            host: host.to_owned(),
            port,
            is_tls,
        })
    }
}

/// What a connection is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to.
    pub broker: Broker,
    /// What is spoken.
    pub version: Version,
    /// Who we are.
    pub id: String,
    /// No session is kept.
    pub clean: bool,
    /// The broker is heard of within this time, or is gone.
    pub keep_alive: Duration,
    /// How long the broker keeps the session while we are away.
    pub expiry: Duration,
    /// Messages that may be without acknowledgement.
    pub receive_maximum: u16,
    /// The largest message that is read.
    pub maximum_packet: usize,
    /// Files with user and password; empty: none.
    pub login: [String; 2],
    /// Files with the authorities that are trusted (empty: those of the system), and with our own certificate and its key.
    pub tls: [String; 3],
}

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// It could not be made.
    #[error("{step}: {problem}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What went wrong.
        problem: String,
    },
    /// A file that is needed cannot be used.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The broker refuses.
    #[error("the broker refuses: {} (code {code}{})", packet::meaning(*code), reason.as_deref().map(|it| format!(", \"{it}\"")).unwrap_or_default())]
    Refused {
        /// Its code.
        code: u8,
        /// What it says of it.
        reason: Option<String>,
    },
    /// It was ended by the broker, which said why.
    #[error("the broker ends the connection: {} (code {code})", packet::meaning(*code))]
    Ended {
        /// Its reason.
        code: u8,
    },
    /// It was ended without a word.
    #[error("the connection was closed by the other side")]
    Closed,
    /// Nothing was heard for too long.
    #[error("nothing was heard of the broker for {0} s")]
    Silent(u64),
    /// What comes is no MQTT.
    #[error(transparent)]
    NotMqtt(#[from] NotMqtt),
}

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection that the broker has welcomed.
pub struct Connection {
    stream: Stream,
    decoder: Decoder,
    /// What is spoken.
    pub version: Version,
    /// What the broker said.
    pub welcome: ConnAck,
    /// Within which time it must be heard of.
    keep_alive: Duration,
    heard: Instant,
    pinged: Instant,
}

impl Connection {
    /// Makes a connection.
    pub async fn open(options: &Options) -> Result<Self, Lost> {
        let login = login(&options.login)?;
        let stream = open_stream(options).await?;
        let mut connection = Connection {
            stream,
            decoder: Decoder::new(options.version, options.maximum_packet),
            version: options.version,
            welcome: ConnAck::default(),
            keep_alive: options.keep_alive,
            heard: Instant::now(),
            pinged: Instant::now(),
        };
        let login = login.as_ref();
        let ask = options.version.connect(&Connect {
            id: &options.id,
            clean: options.clean,
            keep_alive: u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX),
            login: login.map(|(user, password)| (user.as_str(), password.as_str())),
            expiry: if options.clean {
                0
            } else {
                u32::try_from(options.expiry.as_secs()).unwrap_or(u32::MAX)
            },
            receive_maximum: options.receive_maximum,
            maximum_packet: u32::try_from(options.maximum_packet).unwrap_or(u32::MAX),
        });
        connection.write(&ask).await?;
        match step("the broker's welcome", connection.read()).await? {
            Incoming::ConnAck(welcome) if welcome.code == 0 => {
                if let Some(shorter) = welcome.keep_alive.filter(|it| *it > 0) {
                    let shorter = Duration::from_secs(shorter.into());
                    connection.keep_alive = connection.keep_alive.min(shorter);
                }
                connection.welcome = welcome;
                Ok(connection)
            }
            Incoming::ConnAck(ConnAck { code, reason, .. }) => Err(Lost::Refused {
                code,
                reason: reason.filter(|it| !it.is_empty()),
            }),
            Incoming::Disconnect { code } => Err(Lost::Ended { code }),
            _ => Err(NotMqtt("its first word is no welcome").into()),
        }
    }

    /// The next packet. It may be given up at any time and begun again.
    pub async fn read(&mut self) -> Result<Incoming, Lost> {
        loop {
            if let Some(packet) = self.decoder.packet()? {
                return Ok(packet);
            }
            // What was read before is handed out in pieces of the same memory.
            self.decoder.buffer.reserve(READ);
            match self.stream.read_buf(&mut self.decoder.buffer).await {
                Ok(0) => return Err(Lost::Closed),
                Ok(_) => self.heard = Instant::now(),
                Err(error) => return Err(broken(error)),
            }
        }
    }

    /// Sends bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(WRITE, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(broken(error)),
            Err(_) => Err(Lost::Silent(WRITE.as_secs())),
        }
    }

    /// To be called every second or so: pings when it is time, and says when the broker is gone. `is_read`: whether all that came is
    /// read, so that silence means something. True: a ping was sent.
    pub async fn keep(&mut self, is_read: bool) -> Result<bool, Lost> {
        if !is_read {
            self.heard = Instant::now();
        }
        if self.heard.elapsed() > self.keep_alive {
            return Err(Lost::Silent(self.heard.elapsed().as_secs()));
        }
        if self.pinged.elapsed() < self.keep_alive / 3 {
            return Ok(false);
        }
        self.pinged = Instant::now();
        self.write(&packet::PING).await?;
        Ok(true)
    }

    /// Says goodbye; nobody minds if that does not arrive.
    pub async fn close(mut self) {
        let _ = self.write(&packet::DISCONNECT).await;
        let _ = timeout(Duration::from_millis(200), self.stream.shutdown()).await;
    }
}

async fn open_stream(options: &Options) -> Result<Stream, Lost> {
    let Broker { host, port, is_tls } = &options.broker;
    let connect = TcpStream::connect((host.as_str(), *port));
    let stream = step("connecting", async { connect.await.map_err(broken) }).await?;
    // Acknowledgements are small and must not wait for each other.
    stream.set_nodelay(true).map_err(broken)?;
    if !is_tls {
        return Ok(Either::Left(stream));
    }
    let config = client_config(&options.tls)?;
    let name = ServerName::try_from(host.clone()).map_err(|_| Lost::Step {
        step: "TLS",
        problem: format!("{host} is no name that a certificate can have"),
    })?;
    let secure = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = step("TLS", async {
        secure.await.map_err(|error| Lost::Step {
            step: "TLS",
            problem: error.to_string(),
        })
    });
    Ok(Either::Right(Box::new(stream.await?)))
}

fn client_config([ca, certificate, key]: &[String; 3]) -> Result<ClientConfig, Lost> {
    let refuse = |file: &str| {
        let file = file.to_owned();
        move |problem: String| Lost::File { file, problem }
    };
    let mut roots = RootCertStore::empty();
    if ca.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        for certificate in certificates(ca)? {
            roots
                .add(certificate)
                .map_err(|error| refuse(ca)(error.to_string()))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(ca)(error.to_string()))?
        .with_root_certificates(roots);
    if certificate.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(Path::new(key)).map_err(|error| {
        refuse(key)(format!(
            "no private key in PEM can be read from it ({error})"
        ))
    })?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|error| refuse(certificate)(format!("it cannot be used with {key}: {error}")))
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, Lost> {
    let refuse = |problem: String| Lost::File {
        file: file.to_owned(),
        problem,
    };
    let found = CertificateDer::pem_file_iter(Path::new(file))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| {
            refuse(format!(
                "no certificate in PEM can be read from it ({error})"
            ))
        })?;
    match found.is_empty() {
        true => Err(refuse("holds no certificate in PEM".into())),
        false => Ok(found),
    }
}

/// User and password, of which the first line of each file counts.
fn login([user, password]: &[String; 2]) -> Result<Option<(String, String)>, Lost> {
    if user.is_empty() {
        return Ok(None);
    }
    let first_line = |file: &String| match file.as_str() {
        "" => Ok(String::new()),
        name => match std::fs::read_to_string(name) {
            Ok(text) => Ok(text.lines().next().unwrap_or_default().to_owned()),
            Err(error) => Err(Lost::File {
                file: file.clone(),
                problem: error.to_string(),
            }),
        },
    };
    Ok(Some((first_line(user)?, first_line(password)?)))
}

async fn step<T>(
    name: &'static str,
    work: impl Future<Output = Result<T, Lost>>,
) -> Result<T, Lost> {
    timeout(STEP, work).await.unwrap_or_else(|_| {
        Err(Lost::Step {
            step: name,
            problem: format!("no answer within {} s", STEP.as_secs()),
        })
    })
}

fn broken(error: std::io::Error) -> Lost {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            Lost::Closed
        }
        _ => Lost::Step {
            step: "the connection",
            problem: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_brokers_are_read_and_what_is_wrong_with_one_is_said() {
        for (text, shown) in [
            ("mqtt://broker", "mqtt://broker:1883"),
            ("mqtts://broker.plant/", "mqtts://broker.plant:8883"),
            ("mqtt://10.0.0.5:1884", "mqtt://10.0.0.5:1884"),
            ("mqtts://[::1]:8884", "mqtts://[::1]:8884"),
            ("ssl://[fe80::1]", "mqtts://[fe80::1]:8883"),
        ] {
            assert_eq!(text.parse::<Broker>().unwrap().to_string(), shown);
        }
        for (text, said) in [
            ("broker:1883", "mqtt://HOST"),
            ("mqtt://", "no host"),
            ("mqtt://user:secret@broker", "user_file"),
            ("mqtt://broker:0", "no port"),
            ("mqtt://broker:70000", "no port"),
            ("mqtt://broker/topic", "path"),
            ("wss://broker/mqtt", "WebSockets"),
            ("mqtt://[::1", "]"),
        ] {
            let problem = text.parse::<Broker>().unwrap_err();
            assert!(problem.contains(said), "{text}: {problem}");
            assert!(!problem.contains("secret"));
        }
    }
}
