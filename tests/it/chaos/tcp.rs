//! A bad network between a client and a server: a TCP proxy that delays, narrows, cuts, swallows and refuses.
//!
//! Guarantees: the bytes that get through are the bytes that were sent, in order; the weather of the moment applies to every
//! connection, open ones too. It knows nothing of HTTP. It runs on a thread of its own until it is dropped.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What the network does to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Clear,
    /// Every read is passed on this much later.
    Slow(Duration),
    /// This many bytes a second in each direction of a connection.
    Narrow(usize),
    /// Each connection is reset after about this many bytes.
    Resets(usize),
    /// Bytes are taken and never passed on: the other side has gone without a word.
    HalfOpen,
    /// New connections are reset at once.
    Refusing,
}

/// A running proxy.
pub struct Network {
    address: SocketAddr,
    weather: Arc<Mutex<Weather>>,
    stop: CancellationToken,
}

impl Network {
    /// Puts a network before `backend`.
    pub fn before(backend: SocketAddr) -> Network {
        let weather = Arc::new(Mutex::new(Weather::Clear));
        let stop = CancellationToken::new();
        let (sender, receiver) = mpsc::channel();
        let (now, stopped) = (weather.clone(), stop.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let address = listener.local_addr().expect("its address");
                sender.send(address).expect("the test waits");
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = accept(listener, backend, now) => {}
                }
            });
        });
        Network {
            address: receiver.recv().expect("the network's thread"),
            weather,
            stop,
        }
    }

    /// Where clients connect to.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, backend: SocketAddr, weather: Arc<Mutex<Weather>>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let weather = weather.clone();
        tokio::spawn(async move {
            let refused = look(&weather) == Weather::Refusing;
            let Some(server) = (if refused {
                None
            } else {
                TcpStream::connect(backend).await.ok()
            }) else {
                // A reset, as a port on which nobody listens answers.
                drop(client.set_zero_linger());
                return;
            };
            drop((client.set_nodelay(true), server.set_nodelay(true)));
            // Whatever ends, ends with a reset on both sides while the weather resets, and with a plain close else.
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = pass(from_client, to_server, &weather) => {}
                () = pass(from_server, to_client, &weather) => {}
            }
        });
    }
}

/// Passes bytes on until one side closes or the weather cuts the connection.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, weather: &Mutex<Weather>) {
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    loop {
        let most = match look(weather) {
            Weather::Narrow(rate) => (rate / 10).clamp(1, buffer.len()),
            _ => buffer.len(),
        };
        let read = match from.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        match look(weather) {
            Weather::Clear | Weather::Refusing => {}
            Weather::Slow(time) => tokio::time::sleep(time).await,
            Weather::Narrow(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            Weather::Resets(after) if passed + read > after => {
                // Half of it still arrives.
                drop(to.write_all(&buffer[..read / 2]).await);
                drop(to.as_ref().set_zero_linger());
                drop(from.as_ref().set_zero_linger());
                return;
            }
            Weather::Resets(_) => {}
            Weather::HalfOpen => continue,
        }
        passed += read;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn look(weather: &Mutex<Weather>) -> Weather {
    *weather.lock().unwrap_or_else(PoisonError::into_inner)
}
