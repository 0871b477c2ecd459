//! What may happen in a simulation: the operations, how a seed becomes a list of them, and the faults that they name.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::proxy::Fault;

/// Which link to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum To {
    /// The gateway's: uploads, results, the copy of the archive.
    Gateway,
    /// The service's: input files and results.
    Service,
}

/// Where a crash waits for the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    Now,
    /// At this changing operation of the disk, from 1.
    Disk(u32),
    /// Before or after this request to the store.
    Store(u8, bool),
    /// Before or after this request to the API.
    Api(u8, bool),
}

/// What somebody else does to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Meddling {
    Stop,
    Start,
    /// Stopped, and deleted once it has stopped.
    Delete,
}

/// One operation. Times are wall-clock time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Time passes.
    Run {
        minutes: u32,
    },
    /// Ticks of the cron job, doubled or out of place.
    Tick {
        times: u8,
    },
    /// The clock is stepped.
    Step {
        seconds: i64,
    },
    /// The clock is ahead for some minutes, and put right.
    Ahead {
        seconds: i64,
        minutes: u8,
    },
    /// The history is another one from a coming window on.
    Rewrite {
        ahead: u8,
    },
    /// The history has lost everything before the live window.
    Rotate,
    /// The history is over at a coming window, and goes on when it is appended to, so many minutes later.
    Ends {
        ahead: u8,
        minutes: u16,
    },
    /// The history cannot be read for some minutes.
    Breaks {
        minutes: u8,
    },
    /// Rows of coming windows are missing, of one component or all, and may come later.
    Hole {
        ahead: u8,
        minutes: u8,
        component: Option<u8>,
        fills: Option<u16>,
    },
    /// Reads of the source fail.
    SourceFails {
        reads: u8,
    },
    /// Requests to the store meet a fault of [`store_faults`].
    Store {
        to: To,
        fault: u8,
        after: u8,
        times: u8,
    },
    /// The store is not there, or is again.
    StoreDown {
        to: To,
    },
    StoreUp {
        to: To,
    },
    /// Every request to the store takes so many milliseconds, or none any more.
    Slow {
        to: To,
        milliseconds: u16,
    },
    /// The store takes another access key; gateway and service have it some minutes later.
    Keys {
        minutes: u8,
    },
    /// Requests to the API meet a fault of [`api_faults`].
    Api {
        fault: u8,
        after: u8,
        times: u8,
    },
    ApiDown,
    ApiUp,
    /// The gateway dies, with the whole machine or alone, and stays dead for a while.
    Crash {
        at: Moment,
        power: bool,
        down: u16,
    },
    /// The service dies now, or before or after one of its requests to the store.
    ServiceCrash {
        at: Option<(u8, bool)>,
        down: u16,
    },
    /// The gateway is stopped in order, and started again.
    Stop {
        down: u16,
    },
    /// The same at a changing operation of the disk, from 1, or a reload there.
    Orderly {
        at: u32,
        reload: bool,
        down: u16,
    },
    ServiceStop {
        down: u16,
    },
    /// Only this many bytes are left for the spool, or there is room again.
    Full {
        room: u16,
    },
    Room,
    /// A new configuration.
    Reload {
        backfill: bool,
        hours: u8,
        drain: u16,
    },
    Scheduler {
        by: Meddling,
    },
    /// Somebody puts another object at the key of a coming window.
    Taken {
        component: u8,
    },
}

/// What a run begins with; a function of its seed.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub seed: u64,
    /// Wall-clock seconds in a second of monotonic time.
    pub speed: f64,
    pub backfill: bool,
    /// The scheduler runs windows that passed while it was stopped or down.
    pub catch_up: bool,
    /// It scores windows whose files came late.
    pub late_files: bool,
    pub keeps_checksums: bool,
    pub ignores_condition: bool,
}

impl Setup {
    pub fn of(seed: u64) -> Setup {
        let mut random = fastrand::Rng::with_seed(seed);
        Setup {
            seed,
            // Mostly fast, so that days are cheap; sometimes as it is.
            speed: [20.0, 20.0, 20.0, 60.0, 10.0, 5.0][random.usize(..6)],
            backfill: random.u8(..3) > 0,
            catch_up: random.bool(),
            late_files: random.u8(..3) == 0,
            keeps_checksums: random.bool(),
            ignores_condition: random.u8(..8) == 0,
        }
    }
}

/// A list of operations that lasts about `minutes`.
pub fn generate(seed: u64, minutes: u32) -> Vec<Op> {
    // Another stream than the setup's.
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let mut ops = Vec::new();
    let mut passed = 0;
    // Most of what is down comes back before long.
    let mut ends: Vec<Op> = Vec::new();
    while passed < minutes {
        if !ends.is_empty() && random.u8(..3) == 0 {
            ops.push(ends.swap_remove(random.usize(..ends.len())));
        }
        let op = any(&mut random);
        match op {
            Op::Run { minutes } => passed += minutes,
            Op::StoreDown { to } => ends.push(Op::StoreUp { to }),
            Op::ApiDown => ends.push(Op::ApiUp),
            Op::Slow { to, milliseconds } if milliseconds > 0 => ends.push(Op::Slow {
                to,
                milliseconds: 0,
            }),
            Op::Full { .. } => ends.push(Op::Room),
            _ => {}
        }
        ops.push(op);
        if random.u8(..3) > 0 {
            let minutes = random.u32(1..25);
            passed += minutes;
            ops.push(Op::Run { minutes });
        }
    }
    ops
}

fn any(random: &mut fastrand::Rng) -> Op {
    let down = |random: &mut fastrand::Rng| match random.u8(..4) {
        0 => random.u16(5..90),
        _ => random.u16(..4),
    };
    let to = if random.u8(..3) > 0 {
        To::Gateway
    } else {
        To::Service
    };
    let (after, times) = (random.u8(..4), random.u8(1..7));
    let power = random.bool();
    match random.u8(..51) {
        0..=5 => Op::Run {
            minutes: random.u32(5..60),
        },
        6 => Op::Tick {
            times: random.u8(1..4),
        },
        7 => Op::Step {
            seconds: random.i64(-5..6),
        },
        8 => {
            let seconds = [
                random.i64(-3_000..0),
                random.i64(0..10_000),
                random.i64(0..200_000),
            ];
            Op::Step {
                seconds: seconds[random.usize(..3)],
            }
        }
        9..=11 => Op::Hole {
            ahead: random.u8(..3),
            minutes: random.u8(1..25),
            component: (random.u8(..4) > 0).then(|| random.u8(..3)),
            fills: random.bool().then(|| random.u16(1..60)),
        },
        12 => Op::SourceFails {
            reads: random.u8(1..6),
        },
        13..=16 => Op::Store {
            to,
            fault: random.u8(..store_faults().len() as u8),
            after,
            times,
        },
        17..=18 => Op::StoreDown { to },
        19 => Op::StoreUp { to },
        20 => Op::SourceFails {
            reads: random.u8(1..20),
        },
        21..=22 => Op::Api {
            fault: random.u8(..api_faults().len() as u8),
            after,
            times,
        },
        23 => {
            if random.bool() {
                Op::ApiDown
            } else {
                Op::ApiUp
            }
        }
        24..=25 => Op::Crash {
            at: Moment::Disk(random.u32(1..20)),
            power,
            down: down(random),
        },
        26 => Op::Crash {
            at: Moment::Store(random.u8(..8), power),
            power,
            down: down(random),
        },
        27 => Op::Crash {
            at: Moment::Api(random.u8(..6), power),
            power,
            down: down(random),
        },
        28 => Op::Crash {
            at: Moment::Now,
            power,
            down: down(random),
        },
        29 => Op::ServiceCrash {
            at: random.bool().then(|| (random.u8(..6), random.bool())),
            down: down(random),
        },
        30 => Op::Stop { down: down(random) },
        31 => Op::ServiceStop { down: down(random) },
        32 => Op::Full {
            room: random.u16(..6_000),
        },
        33..=34 => Op::Room,
        35 => Op::Reload {
            backfill: random.bool(),
            hours: [1, 24, 72][random.usize(..3)],
            drain: [60, 600, 6_000][random.usize(..3)],
        },
        36 => Op::Scheduler {
            by: [Meddling::Stop, Meddling::Start, Meddling::Delete][random.usize(..3)],
        },
        37 => Op::Taken {
            component: random.u8(..3),
        },
        38 => Op::Tick { times: 2 },
        40..=41 => {
            let seconds = [
                random.i64(0..7_200),
                random.i64(0..200_000),
                random.i64(0..40_000_000),
            ];
            Op::Ahead {
                seconds: seconds[random.usize(..3)],
                minutes: random.u8(..12),
            }
        }
        42 => Op::Rewrite {
            ahead: random.u8(..6),
        },
        43 => Op::Rotate,
        44 => Op::Ends {
            ahead: random.u8(..6),
            minutes: random.u16(5..120),
        },
        45 => Op::Breaks {
            minutes: random.u8(1..40),
        },
        46 => Op::Slow {
            to,
            milliseconds: random.u16(200..1_950),
        },
        47 => Op::Keys {
            minutes: random.u8(..60),
        },
        48..=49 => Op::Orderly {
            at: random.u32(1..20),
            reload: power,
            down: down(random),
        },
        _ => Op::Run {
            minutes: random.u32(60..300),
        },
    }
}

/// Every class of S3 fault, each with whether a person must act.
pub fn store_faults() -> Vec<(Fault, bool)> {
    let passing = [
        (500, "InternalError"),
        (502, ""),
        (504, ""),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (429, "TooManyRequests"),
        (409, "ConditionalRequestConflict"),
        (409, "OperationAborted"),
        (400, "RequestTimeout"),
        (400, "IncompleteBody"),
        (400, "BadDigest"),
        (408, ""),
    ];
    let held = [
        (403, "AccessDenied"),
        (403, "ExpiredToken"),
        (400, "TokenRefreshRequired"),
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (403, "RequestTimeTooSkewed"),
        (401, ""),
        (404, "NoSuchBucket"),
        (301, "PermanentRedirect"),
        (400, "EntityTooLarge"),
        (400, "KMS.DisabledException"),
        (501, "NotImplemented"),
        (507, ""),
        (418, "Unheard"),
    ];
    let mut faults: Vec<(Fault, bool)> = Vec::new();
    faults.extend(passing.map(|(status, code)| (Fault::Answer(status, code), false)));
    faults.extend(held.map(|(status, code)| (Fault::Answer(status, code), true)));
    faults.extend([
        (Fault::CutBefore, false),
        (Fault::CutAfter, false),
        (Fault::Hang, false),
        (Fault::HangAfter, false),
        (Fault::Slow(Duration::from_millis(700)), false),
        (Fault::Slow(Duration::from_millis(2_500)), false),
        (Fault::Portal, false),
        (Fault::Damage, false),
        (Fault::AnswerAfter(500, "InternalError"), false),
        (Fault::AnswerAfter(503, "SlowDown"), false),
    ]);
    faults
}

/// Every class of fault of the API.
pub fn api_faults() -> Vec<Fault> {
    vec![
        Fault::Answer(400, "ThrottlingException"),
        Fault::Answer(500, "InternalServerException"),
        Fault::Answer(503, ""),
        Fault::Answer(403, "AccessDeniedException"),
        Fault::Answer(400, "ResourceNotFoundException"),
        Fault::Answer(400, "ConflictException"),
        Fault::Answer(400, "ServiceQuotaExceededException"),
        Fault::Answer(403, "ExpiredTokenException"),
        Fault::AnswerAfter(500, "InternalServerException"),
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::Hang,
        Fault::Slow(Duration::from_secs(5)),
    ]
}
