//! Cases that the simulation found, each as a list of operations that once broke an invariant.

use std::sync::mpsc;
use std::time::Duration;

use super::ops::{Meddling, Moment, Op, Setup, To, store_faults};
use super::simulate;
use crate::proxy::Fault;

/// A store that honours conditions, a clock that runs 20 times as fast.
pub fn plain() -> Setup {
    Setup {
        seed: 0,
        speed: 20.0,
        backfill: true,
        catch_up: true,
        late_files: false,
        keeps_checksums: true,
        ignores_condition: false,
    }
}

#[track_caller]
fn holds(setup: Setup, ops: &[Op]) {
    if let Err(broken) = simulate(setup, ops) {
        panic!("{} (operation {})", broken.what, broken.at);
    }
}

/// A captive portal answers requests to the store.
fn portal(to: To, after: u8, times: u8) -> Op {
    faulty(to, |fault| matches!(fault, Fault::Portal), after, times)
}

/// Requests to the store meet a class of fault.
fn faulty(to: To, class: impl Fn(&Fault) -> bool, after: u8, times: u8) -> Op {
    let fault = store_faults()
        .iter()
        .position(|(fault, _)| class(fault))
        .expect("a class of fault") as u8;
    Op::Store {
        to,
        fault,
        after,
        times,
    }
}

#[test]
fn a_captive_portal_in_the_way_of_a_comparison_sets_nothing_aside() {
    let setup = Setup {
        ignores_condition: true,
        ..plain()
    };
    let run = Op::Run { minutes: 20 };
    holds(setup, &[run.clone(), portal(To::Gateway, 0, 9), run]);
}

#[test]
fn a_captive_portal_is_not_archived_as_results() {
    let run = Op::Run { minutes: 20 };
    holds(plain(), &[run.clone(), portal(To::Gateway, 0, 90), run]);
}

#[test]
fn results_that_only_a_captive_portal_took_are_not_called_written() {
    let run = Op::Run { minutes: 12 };
    // One of these is the write: a listing and the files of three windows come first.
    for after in 6..12 {
        holds(
            plain(),
            &[run.clone(), portal(To::Service, after, 1), run.clone()],
        );
    }
}

#[test]
fn a_scheduler_that_is_stopped_while_its_execution_waits_for_the_store_is_waited_for_idly() {
    // A service that looks again and again lets no time pass here, and never ends.
    let (done, ends) = mpsc::channel();
    std::thread::spawn(move || {
        let run = |minutes| Op::Run { minutes };
        let hang = faulty(To::Service, |fault| matches!(fault, Fault::Hang), 0, 40);
        let stop = Op::Scheduler { by: Meddling::Stop };
        let ops = [run(24), hang, run(6), stop, run(6), run(30)];
        done.send(simulate(plain(), &ops)).expect("a listener");
    });
    let end = ends.recv_timeout(Duration::from_secs(60));
    let end = end.expect("the end within a minute: the service keeps itself busy");
    assert!(end.is_ok(), "{end:?}");
}

#[test]
fn a_window_that_begins_just_after_a_step_is_not_taken_for_a_downtime() {
    // As it was found: when the loops look depends on all that was before.
    let run = |minutes| Op::Run { minutes };
    let mut ops: Vec<Op> = [18, 8, 16].map(run).to_vec();
    ops.extend([Op::Stop { down: 1 }, run(18)]);
    ops.push(Op::Crash {
        at: Moment::Now,
        power: true,
        down: 49,
    });
    ops.extend([7, 6, 51].map(run));
    ops.push(Op::Step { seconds: 2_026 });
    holds(Setup::of(108), &ops);
}

#[test]
fn results_that_waited_for_the_store_are_archived_although_the_clock_was_stepped_back() {
    // The watcher sleeps longest while the store is away: a wake-up by the wall clock would be an hour off.
    let run = |minutes| Op::Run { minutes };
    let away = Op::StoreDown { to: To::Gateway };
    let back = Op::Step { seconds: -3_600 };
    holds(Setup::of(120), &[run(20), away, run(30), back]);
}
