//! Loops that are to go on until they are told to stop: one that ends otherwise, as by a panic, is said and begun again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The pause before it is begun again.
const AGAIN: Duration = Duration::from_secs(5);
/// One that was begun again and goes on for so long is well.
const LASTS: Duration = Duration::from_secs(45);

/// Runs what `begin` makes until `stop`, and begins it again where it ends before; `say` is given how it ended, and nothing
/// once it has gone on for a while.
pub async fn supervise<F>(
    stop: &CancellationToken,
    begin: impl Fn() -> F,
    say: impl Fn(Option<&str>),
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let mut task = tokio::spawn(begin());
        let lasts = async {
            tokio::time::sleep(LASTS).await;
            say(None);
            std::future::pending().await
        };
        let ended = tokio::select! {
            () = stop.cancelled() => None,
            ended = &mut task => Some(ended),
            () = lasts => None,
        };
        if stop.is_cancelled() {
            task.abort();
            // Whether it was quicker is no matter.
            let _ = task.await;
            return;
        }
        let text = match ended {
            Some(Err(error)) => error.to_string(),
            _ => "it ended".to_owned(),
        };
        say(Some(&text));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_said_and_begun_again_until_it_is_told_to_stop() {
        let (stop, begun) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let said = Mutex::new(Vec::new());
        let count = begun.clone();
        let begin = move || {
            let nth = count.fetch_add(1, Ordering::Relaxed);
            async move {
                match nth {
                    0 => panic!("once"),
                    1 => {}
                    _ => std::future::pending().await,
                }
            }
        };
        let say = |ended: Option<&str>| said.lock().unwrap().push(ended.map(str::to_owned));
        let ends = async {
            tokio::time::sleep(Duration::from_secs(70)).await;
            stop.cancel();
        };
        tokio::join!(supervise(&stop, begin, say), ends);
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        let said = said.into_inner().unwrap();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].as_ref().unwrap().contains("once"), "{said:?}");
        assert_eq!(said[1].as_deref(), Some("it ended"));
        assert_eq!(said[2], None);
    }
}
