//! The fuzz binary: libFuzzer around one of the targets, named by `LOOKOUTD_FUZZ`. `fuzz/run` builds and runs it.
#![no_main]

mod targets;

use std::sync::LazyLock;

use targets::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("LOOKOUTD_FUZZ").unwrap_or_default();
    let found = TARGETS.into_iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| {
        let names = TARGETS.map(|(name, _)| name).join(" ");
        eprintln!("LOOKOUTD_FUZZ is \"{wanted}\"; there are: {names}");
        std::process::exit(2);
    })
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.1)(bytes));
