//! Fails a test that logs an ERROR it did not expect: ERROR means lost data or an operator who must act.
//!
//! It hears the events of the thread it was made on, so it belongs into tests on a current-thread runtime; what blocking
//! threads and the stores' threads say is not heard.

use std::fmt::Write;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::dispatcher::Dispatch;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// While there is one subscriber alone, tracing asks the thread that comes first to a place in the code whether that place
/// is of interest to anybody, and a thread without a subscriber answers for all. A second one has every subscriber asked.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

/// Listens until it is dropped, and panics then if an ERROR was neither expected nor taken.
pub struct Errors {
    heard: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Errors {
    /// Begins to listen on this thread.
    pub fn watch() -> Errors {
        LazyLock::force(&SECOND);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut levels = vec![Level::ERROR];
        if std::env::var_os("LOOKOUTD_TEST_LOG").is_some() {
            levels.extend([Level::WARN, Level::INFO, Level::DEBUG]);
        }
        let subscriber = tracing_subscriber::registry().with(Ear {
            heard: heard.clone(),
            levels,
        });
        Errors {
            heard,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The ERRORs since the last call, which are thereby expected.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().expect("the list of errors"))
    }

    /// Waits until there is an ERROR, for as long as a loaded machine may take, and expects it.
    pub async fn expect_soon(&self, part: &str) {
        for _ in 0..1_000 {
            if !self.heard.lock().expect("the list of errors").is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.expect(part);
    }

    /// Takes the ERRORs and asserts that there are some, all with `part` in them.
    #[track_caller]
    pub fn expect(&self, part: &str) {
        let heard = self.take();
        assert!(!heard.is_empty(), "an ERROR with {part:?} was expected");
        for error in heard {
            assert!(error.contains(part), "expected {part:?} in {error:?}");
        }
    }
}

impl Drop for Errors {
    fn drop(&mut self) {
        let heard = self.take();
        if !heard.is_empty() && !std::thread::panicking() {
            panic!("unexpected ERROR: {heard:#?}");
        }
    }
}

struct Ear {
    heard: Arc<Mutex<Vec<String>>>,
    levels: Vec<Level>,
}

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let ours = event.metadata().target().starts_with("lookoutd");
        if !ours || !self.levels.contains(&level) {
            return;
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        if level == Level::ERROR {
            self.heard
                .lock()
                .expect("the list of errors")
                .push(line.0.clone());
        }
        if self.levels.len() > 1 {
            eprintln!("{level} {}", line.0);
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

mod tests {
    use super::*;

    #[test]
    fn an_error_is_heard_although_a_thread_that_nobody_listens_to_came_to_its_place_first() {
        fn say() {
            tracing::error!(target: "lookoutd::test", "said");
        }
        let errors = Errors::watch();
        std::thread::spawn(say).join().unwrap();
        say();
        errors.expect("said");
    }

    #[test]
    fn an_unexpected_error_fails_the_test_and_an_expected_one_does_not() {
        let errors = Errors::watch();
        tracing::error!(target: "lookoutd::test", what = 1, "told");
        tracing::warn!(target: "lookoutd::test", "only a warning");
        errors.expect("what=1");
        let unexpected = std::thread::spawn(|| {
            let _errors = Errors::watch();
            tracing::error!(target: "lookoutd::test", "not told");
        });
        assert!(unexpected.join().is_err());
    }
}
