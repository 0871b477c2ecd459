//! What keeps the daemon operable: logs, metrics, health, the admin listener, systemd notification, signals, the data
//! directory's lock; and what every listener needs.

pub mod admin;
pub mod ask;
pub mod cors;
pub mod date;
pub mod health;
pub mod inputs;
pub mod judgement;
pub mod lock;
pub mod log;
pub mod metrics;
pub mod notify;
pub mod orphans;
pub mod signals;
pub mod site;
pub mod slots;
pub mod stalls;
pub mod tls;
