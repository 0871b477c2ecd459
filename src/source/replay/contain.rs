//! The one place where a panic of the Parquet crate becomes the error that a damaged file is.
//!
//! The crate asserts things of a file's bytes that a file need not hold, and no check from outside finds them all without
//! decoding what it is to decode: a run length of more than ten bytes inside a page (`BitReader::get_vlq_int`), a delta page
//! that announces no values, a byte-stream-split page that is shorter than its values. What can be checked before is
//! (see `pages`); this is for the rest, so that a damaged file is an error with its name and never the end of a task.
//! Deliberately absent: anything else. Code of this project does not panic, and is not run in here.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use parquet::errors::ParquetError;

thread_local! {
    /// What the panic inside this thread's `contained` said; `None` outside of it.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a decoder of the Parquet crate; its panic is an error, and is not printed as if the daemon had crashed.
///
/// After an error the decoder must not be used again: what it left half done is why this may call it unwind-safe.
pub(super) fn contained<T>(
    decode: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, ParquetError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = SAID.with_borrow_mut(|said| {
                said.as_mut().map(|said| *said = info.to_string()).is_some()
            });
            if !ours {
                others(info);
            }
        }));
    });
    SAID.set(Some(String::new()));
    let outcome = panic::catch_unwind(AssertUnwindSafe(decode));
    let said = SAID.take().unwrap_or_default();
    outcome.unwrap_or_else(|_| {
        Err(ParquetError::General(format!(
            "its bytes are not what Parquet's reader takes for granted ({})",
            said.replace('\n', " ")
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_is_an_error_that_says_where_and_one_outside_is_as_ever() {
        let error = contained::<()>(|| panic!("the walls")).unwrap_err();
        assert!(error.to_string().contains("the walls"), "{error}");
        assert!(error.to_string().contains("contain.rs"), "{error}");
        assert_eq!(contained(|| Ok(7)).unwrap(), 7);
        let outside = panic::catch_unwind(|| panic!("outside")).unwrap_err();
        assert_eq!(outside.downcast_ref(), Some(&"outside"));
        assert!(SAID.with_borrow(Option::is_none));
    }
}
