//! A connection whose other side does not read.
//!
//! Guarantees: writing that waits for [`LONGEST`] without a byte of progress ends the connection with an error, however many
//! requests were sent on it. Otherwise somebody who asks without reading holds a connection of a bounded listener for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// So long the other side may take nothing of what it asked for.
pub const LONGEST: Duration = Duration::from_secs(10);

/// A stream whose writing does not wait for ever.
#[derive(Debug)]
pub struct Stalls<S> {
    stream: S,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalls<S> {
    /// Around `stream`.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            waiting: None,
        }
    }

    /// `outcome` of a write; one that waits may do so until the deadline.
    fn progress(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let deadline = || Box::pin(tokio::time::sleep_until(Instant::now() + LONGEST));
        let waiting = self.waiting.get_or_insert_with(deadline);
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalls<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalls<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.progress(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn writing_to_somebody_who_does_not_read_ends_and_to_a_slow_reader_it_goes_on() {
        let (near, _far) = duplex(64);
        let mut near = Stalls::new(near);
        let began = Instant::now();
        let ended = near.write_all(&[b'x'; 65]).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert!((LONGEST..LONGEST * 2).contains(&began.elapsed()));

        let (near, mut far) = duplex(64);
        let mut near = Stalls::new(near);
        let slow = tokio::spawn(async move {
            let mut all = 0;
            let mut part = [0; 16];
            while let Ok(count @ 1..) = far.read(&mut part).await {
                all += count;
                tokio::time::sleep(LONGEST / 2).await;
            }
            all
        });
        near.write_all(&[b'x'; 400]).await.unwrap();
        drop(near);
        assert_eq!(slow.await.unwrap(), 400);
    }
}
