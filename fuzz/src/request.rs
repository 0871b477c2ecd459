//! The service as a client sees it: bytes of a connection, or one operation with a body.
//!
//! Whatever is sent, the service never answers that it failed itself: a status of 500 is an ERROR in its log.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lookoutd::clock::Clock;
use lookoutd::service::operations::{self, Identity, OPERATIONS};
use lookoutd::service::protocol::Frontend;
use lookoutd::service::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// After so many inputs the service begins anew, so that it stays small and an input's effect does not last.
const LIFE: u32 = 256;

struct Scene {
    runtime: Runtime,
    frontend: Arc<Frontend>,
    /// Removed when the scene is over.
    _state: tempfile::TempDir,
    left: u32,
}

impl Scene {
    fn new() -> Scene {
        let state = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::manual(super::now());
        Scene {
            runtime: Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            frontend: Arc::new(Frontend {
                store: Store::open(state.path()).expect("a store"),
                identity: Identity {
                    region: "us-east-1".into(),
                    account: "123456789012".into(),
                },
                keys: None,
                clock: clock.clone(),
                wall: clock,
                changed: watch::channel(0).0,
                cors: Default::default(),
                large: Frontend::large(),
            }),
            _state: state,
            left: LIFE,
        }
    }
}

thread_local! {
    static SCENE: RefCell<Option<Scene>> = const { RefCell::new(None) };
}

/// An input whose first byte is an operation's number, or 64 and more for the bytes of a connection.
pub fn request(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    SCENE.with_borrow_mut(|scene| {
        let place = scene.get_or_insert_with(Scene::new);
        let frontend = Arc::clone(&place.frontend);
        match OPERATIONS.get(usize::from(*first)) {
            Some((operation, _)) => place.runtime.block_on(call(&frontend, operation, rest)),
            None if *first >= 64 => place.runtime.block_on(connection(frontend, rest)),
            None => {}
        }
        place.left -= 1;
        if place.left == 0 {
            *scene = None;
        }
    });
}

async fn call(frontend: &Frontend, operation: &str, body: &[u8]) {
    let Ok(body) = serde_json::from_slice(body) else {
        return;
    };
    let now = frontend.clock.now();
    let answer = operations::call(&frontend.store, &frontend.identity, now, operation, &body).await;
    if let Err(fault) = answer {
        assert!(fault.status < 500, "{operation}: {}", fault.message);
    }
}

async fn connection(frontend: Arc<Frontend>, bytes: &[u8]) {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let service = service_fn(move |request| Arc::clone(&frontend).answer(request));
    let serve = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(15))
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(server), service);
    let talk = async {
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        answer
    };
    let (_, answer) = tokio::join!(serve, talk);
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains("HTTP/1.1 500"), "{answer}");
}
