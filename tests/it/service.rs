//! The service over its wire, driven by the real `aws-sdk-lookoutequipment` and `aws-sdk-s3` clients, with a model trained
//! for the test. Schedules run on a manual clock; transitions take their real moment.

mod crashes;
mod faults;
mod files;
mod intake;
mod jobs;
mod kills;
mod models;
pub mod plant;
mod power;
mod schedulers;
mod versions;
mod windows;
