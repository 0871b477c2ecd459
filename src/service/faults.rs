//! A fault: an error answer of the API, with the code and HTTP status the service's clients map to typed exceptions
//! (contract 1.2). Every refusal of the service is one of these; the message says what to do.
//!
//! Internal causes are logged where the answer is written and never sent.

use std::fmt;

/// One error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The error code, sent as `__type` and `x-amzn-errortype`.
    pub code: &'static str,
    /// The HTTP status it travels under.
    pub status: u16,
    /// The text a client shows.
    pub message: String,
}

impl Fault {
    /// The input violates a constraint.
    pub fn validation(message: impl Into<String>) -> Fault {
        Fault::new("ValidationException", 400, message)
    }

    /// The named resource does not exist.
    pub fn not_found(message: impl Into<String>) -> Fault {
        Fault::new("ResourceNotFoundException", 400, message)
    }

    /// The resource is in a state that forbids the request.
    pub fn conflict(message: impl Into<String>) -> Fault {
        Fault::new("ConflictException", 400, message)
    }

    /// A quota of contract 4.4 is reached.
    pub fn quota(message: impl Into<String>) -> Fault {
        Fault::new("ServiceQuotaExceededException", 400, message)
    }

    /// The body is not JSON of the expected types.
    pub fn serialization(message: impl Into<String>) -> Fault {
        Fault::new("SerializationException", 400, message)
    }

    /// No operation of that name, or one this build does not serve.
    pub fn unknown_operation(message: impl Into<String>) -> Fault {
        Fault::new("UnknownOperationException", 404, message)
    }

    /// A failure of ours. The cause belongs in the log, not in `message`.
    pub fn internal() -> Fault {
        Fault::new(
            "InternalServerException",
            500,
            "Internal failure. The service's log has the cause under this request id.",
        )
    }

    /// Any other code of the common-errors page.
    pub fn new(code: &'static str, status: u16, message: impl Into<String>) -> Fault {
        Fault {
            code,
            status,
            message: message.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Fault {}
