//! What keeps the daemon operable: logs, systemd notification, signals, the data directory's lock.

pub mod lock;
pub mod log;
pub mod notify;
pub mod signals;
