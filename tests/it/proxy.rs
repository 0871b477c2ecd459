//! A proxy in front of an S3 endpoint that injects faults: it answers in the store's place, loses answers, cuts
//! connections, hangs, is slow, damages bytes, or is not there at all.
//!
//! Guarantees: requests are forwarded with the headers as they came, so that signatures stay valid; a fault applies to the
//! requests its rule names, as often as it says, in the order of the rules; every request is written down with the status
//! that the client saw (0: none). It runs on a thread of its own, so that a test may block.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What happens to a request.
#[derive(Clone)]
pub enum Fault {
    /// Answered with this status and error code; the store never sees it.
    Answer(u16, &'static str),
    /// The store does it; the client gets this answer instead of the store's.
    AnswerAfter(u16, &'static str),
    /// The connection ends before the store sees it.
    CutBefore,
    /// The store does it; the connection ends before the answer: a lost acknowledgement.
    CutAfter,
    /// The store gets half of the body, then the connection ends on both sides.
    CutBody,
    /// No answer, and the store never sees it.
    Hang,
    /// The store does it, but no answer comes.
    HangAfter,
    /// Forwarded after this long.
    Slow(Duration),
    /// Answered with 200 and a web page, as a captive portal does.
    Portal,
    /// Answered with 200 and this document.
    Document(&'static str),
    /// Answered with this status and error code if it has a header whose name begins so; else forwarded.
    RefuseHeader(&'static str, u16, &'static str),
    /// Forwarded with one byte of the body changed.
    Damage,
    /// The key is deleted first, so that a conditional create overwrites: a store that ignores the condition.
    IgnoreCondition,
    /// Called before the store sees it; then forwarded.
    Before(Arc<dyn Fn() + Send + Sync>),
    /// Called after the store has done it, before the answer.
    After(Arc<dyn Fn() + Send + Sync>),
}

/// Which requests a fault applies to, and how often.
#[derive(Clone)]
pub struct Rule {
    /// Only this method.
    pub method: Option<Method>,
    /// Only where the path contains this.
    pub path: String,
    /// Requests of this kind that pass first.
    pub after: usize,
    /// How many requests are hit.
    pub times: usize,
    /// What happens to them.
    pub fault: Fault,
}

/// One request as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// The path, percent-encoded as it came.
    pub path: String,
    /// The status that the client got, or 0 where it got none.
    pub status: u16,
}

/// A running proxy.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
}

struct State {
    backend: SocketAddr,
    client: aws_sdk_s3::Client,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    refusing: Mutex<CancellationToken>,
}

impl Rule {
    /// The next `times` creations of an object whose key contains `path`.
    pub fn puts(path: &str, times: usize, fault: Fault) -> Rule {
        Rule {
            method: Some(Method::PUT),
            path: path.to_owned(),
            after: 0,
            times,
            fault,
        }
    }

    /// The next `times` requests of any kind.
    pub fn any(times: usize, fault: Fault) -> Rule {
        Rule {
            method: None,
            path: String::new(),
            after: 0,
            times,
            fault,
        }
    }

    /// What happens to this request by the first rule that names it; counts it.
    pub fn next(rules: &mut [Rule], method: &str, path: &str) -> Option<Fault> {
        for rule in rules {
            let wanted = rule.method.as_ref().map(Method::as_str);
            let fits = wanted.is_none_or(|wanted| wanted == method)
                && path.contains(&rule.path)
                && rule.times > 0;
            if !fits {
                continue;
            }
            if rule.after > 0 {
                rule.after -= 1;
                continue;
            }
            rule.times -= 1;
            return Some(rule.fault.clone());
        }
        None
    }

    /// All requests of this method.
    pub fn all(method: Method, fault: Fault) -> Rule {
        Rule {
            method: Some(method),
            ..Rule::any(usize::MAX, fault)
        }
    }

    /// As it is, but `passed` requests of its kind go through first.
    pub fn after(mut self, passed: usize) -> Rule {
        self.after = passed;
        self
    }
}

impl Proxy {
    /// Starts a proxy before `backend`; `client` reaches the store directly. Must be called within a runtime, which it uses.
    pub async fn start(backend: SocketAddr, client: aws_sdk_s3::Client) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State {
            backend,
            client,
            rules: Mutex::default(),
            seen: Mutex::default(),
            refusing: Mutex::default(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, address, state.clone(), stop.clone()));
        Proxy {
            address,
            state,
            stop,
        }
    }

    /// The endpoint that clients are given.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule.
    pub fn inject(&self, rule: Rule) {
        lock(&self.state.rules).push(rule);
    }

    /// Forgets all rules.
    pub fn heal(&self) {
        lock(&self.state.rules).clear();
    }

    /// Requests that rules are still waiting for.
    pub fn pending(&self) -> usize {
        lock(&self.state.rules)
            .iter()
            .fold(0, |sum, rule| sum.saturating_add(rule.times))
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    /// Closes the port and every connection, for a while: connections are refused until [`Proxy::listen`].
    pub fn refuse(&self) {
        lock(&self.state.refusing).cancel();
    }

    /// Opens the port again.
    pub fn listen(&self) {
        *lock(&self.state.refusing) = CancellationToken::new();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
) {
    let mut listener = Some(listener);
    loop {
        let refusing = lock(&state.refusing).clone();
        if refusing.is_cancelled() {
            listener = None;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(20)) => continue,
            }
        }
        let Some(open) = &listener else {
            listener = TcpListener::bind(address).await.ok();
            continue;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            () = refusing.cancelled() => continue,
            accepted = open.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (state, stop) = (state.clone(), stop.clone());
        tokio::spawn(async move {
            let answering = state.clone();
            let service = service_fn(move |request| {
                let state = answering.clone();
                async move { state.answer(request).await }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                () = refusing.cancelled() => {}
                // A cut connection is an error here by intent.
                _ = connection => {}
            }
        });
    }
}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let outcome = self.apply(request).await;
        lock(&self.seen).push(Seen {
            method,
            path,
            status: outcome
                .as_ref()
                .map_or(0, |answer| answer.status().as_u16()),
        });
        outcome
    }

    async fn apply(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
        let (method, path) = (request.method().as_str(), request.uri().path());
        let fault = Rule::next(&mut lock(&self.rules), method, path);
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        let request = |body: Bytes| {
            let mut request = Request::new(body);
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.headers_mut() = parts.headers.clone();
            request.headers_mut().remove("transfer-encoding");
            request
        };
        match fault {
            None => self.forward(request(body)).await,
            Some(Fault::Answer(status, code)) => Ok(refusal(status, code)),
            Some(Fault::AnswerAfter(status, code)) => {
                self.forward(request(body)).await?;
                Ok(refusal(status, code))
            }
            Some(Fault::CutBefore) => Err(Cut),
            Some(Fault::CutAfter) => {
                self.forward(request(body)).await?;
                Err(Cut)
            }
            Some(Fault::CutBody) => {
                self.forward_half(request(body)).await;
                Err(Cut)
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::HangAfter) => {
                self.forward(request(body)).await?;
                std::future::pending().await
            }
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                self.forward(request(body)).await
            }
            Some(Fault::Portal) => Ok(Response::new(Full::from(
                "<html><body>Welcome to the plant's guest network</body></html>",
            ))),
            Some(Fault::Document(text)) => {
                let mut answer = Response::new(Full::from(text));
                let xml = hyper::header::HeaderValue::from_static("application/xml");
                answer.headers_mut().insert("content-type", xml);
                Ok(answer)
            }
            Some(Fault::RefuseHeader(name, status, code)) => {
                let mut names = parts.headers.keys();
                if names.any(|header| header.as_str().starts_with(name)) {
                    return Ok(refusal(status, code));
                }
                self.forward(request(body)).await
            }
            Some(Fault::Damage) => {
                let mut bytes = body.to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                self.forward(request(bytes.into())).await
            }
            Some(Fault::IgnoreCondition) => {
                let path = percent_encoding::percent_decode_str(parts.uri.path())
                    .decode_utf8_lossy()
                    .into_owned();
                if let Some((bucket, key)) = path.trim_start_matches('/').split_once('/') {
                    // Deleting what is absent is no error.
                    drop(
                        self.client
                            .delete_object()
                            .bucket(bucket)
                            .key(key)
                            .send()
                            .await,
                    );
                }
                self.forward(request(body)).await
            }
            Some(Fault::Before(call)) => {
                call();
                self.forward(request(body)).await
            }
            Some(Fault::After(call)) => {
                let answer = self.forward(request(body)).await;
                call();
                answer
            }
        }
    }

    async fn forward(&self, request: Request<Bytes>) -> Result<Response<Full<Bytes>>, Cut> {
        let stream = TcpStream::connect(self.backend).await.map_err(|_| Cut)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
                .await
                .map_err(|_| Cut)?;
        tokio::spawn(connection);
        let answer = sender
            .send_request(request.map(Full::from))
            .await
            .map_err(|_| Cut)?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        let mut answer = Response::new(Full::from(body));
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        answer.headers_mut().remove("transfer-encoding");
        Ok(answer)
    }

    /// Sends the head and half of the body as bytes, then closes.
    async fn forward_half(&self, request: Request<Bytes>) {
        use tokio::io::AsyncWriteExt;
        let Ok(mut stream) = TcpStream::connect(self.backend).await else {
            return;
        };
        let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
        for (name, value) in request.headers() {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&request.body()[..request.body().len() / 2]);
        drop(stream.write_all(&bytes).await);
        drop(stream.shutdown().await);
    }
}

fn refusal(status: u16, code: &str) -> Response<Full<Bytes>> {
    let body = if code.is_empty() {
        String::new()
    } else {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>"
        )
    };
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = hyper::StatusCode::from_u16(status).expect("a status");
    answer
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
