//! The queue: told once, in order, across restarts; held back and counted; bounded.

use super::*;
use serde_json::{Value, json};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600 + seconds, 0).unwrap()
}

fn fact(kind: &str, subject: &str, episode: i64) -> Fact {
    Fact {
        asset: String::new(),
        kind: kind.into(),
        subject: subject.into(),
        episode,
        since: at(0),
        blocking: true,
        text: "text".into(),
        remedy: "remedy".into(),
        details: json!({}),
        over: false,
    }
}

struct Desk {
    directory: tempfile::TempDir,
    queue: Queue,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let queue = Queue::open(directory.path(), &["webhook"]).unwrap();
        Self { directory, queue }
    }

    fn see(&self, facts: &[Fact], per_hour: u32, now: DateTime<Utc>) -> usize {
        self.queue
            .reconcile(facts, |_| false, "gw", per_hour, now)
            .unwrap()
    }

    /// What waits, taken by the target: state, kind, subject, held back.
    fn take(&self) -> Vec<(String, String, String, u64)> {
        let mut taken = Vec::new();
        while let Some(next) = self.queue.next("webhook").unwrap() {
            let message: Value = serde_json::from_str(&next.body).unwrap();
            let text = |name: &str| message[name].as_str().unwrap().to_owned();
            assert_eq!(text("id"), next.id);
            taken.push((
                text("state"),
                text("kind"),
                text("subject"),
                message["held_back"].as_u64().unwrap(),
            ));
            self.queue.done(next.seq, "webhook").unwrap();
        }
        taken
    }
}

fn told(state: &str, kind: &str, subject: &str) -> (String, String, String, u64) {
    (state.into(), kind.into(), subject.into(), 0)
}

#[test]
fn a_fact_is_told_once_and_once_when_it_is_over_also_after_a_restart() {
    let mut desk = Desk::new();
    let facts = [
        fact("spool-paused", "", 0),
        fact("execution-failed", "pump", 0),
    ];
    assert_eq!(desk.see(&facts, 60, at(10)), 2);
    assert_eq!(desk.see(&facts, 60, at(20)), 0);
    desk.queue = Queue::open(desk.directory.path(), &["webhook"]).unwrap();
    assert_eq!(desk.see(&facts, 60, at(30)), 0);
    assert_eq!(desk.see(&facts[..1], 60, at(40)), 1);
    desk.queue = Queue::open(desk.directory.path(), &["webhook"]).unwrap();
    assert_eq!(desk.see(&facts[..1], 60, at(50)), 0);
    assert_eq!(
        desk.take(),
        [
            told("firing", "execution-failed", "pump"),
            told("firing", "spool-paused", ""),
            told("resolved", "execution-failed", "pump"),
        ]
    );
    assert_eq!(desk.see(&facts, 60, at(60)), 1, "what begins anew is news");
}

#[test]
fn what_was_only_not_seen_yet_is_not_over() {
    let desk = Desk::new();
    desk.see(&[fact("store-unreachable", "", 0)], 60, at(0));
    let queued = desk
        .queue
        .reconcile(&[], |_| true, "gw", 60, at(10))
        .unwrap();
    assert_eq!((queued, desk.see(&[], 60, at(20))), (0, 1));
}

#[test]
fn an_event_that_is_over_is_not_told_again_and_the_next_one_is() {
    let desk = Desk::new();
    let over = Fact {
        over: true,
        ..fact(EVENT, "pump", 7)
    };
    desk.see(&[fact(EVENT, "pump", 7)], 60, at(0));
    assert_eq!(desk.queue.events().unwrap().len(), 1);
    desk.see(std::slice::from_ref(&over), 60, at(10));
    assert_eq!(desk.see(&[over, fact(EVENT, "pump", 9)], 60, at(20)), 1);
    // One that came and went while nobody looked is told whole.
    let missed = Fact {
        over: true,
        ..fact(EVENT, "fan", 8)
    };
    assert_eq!(
        desk.see(&[missed.clone(), fact(EVENT, "pump", 9)], 60, at(30)),
        2
    );
    assert_eq!(desk.see(&[missed, fact(EVENT, "pump", 9)], 60, at(40)), 0);
    assert_eq!(
        desk.take(),
        [
            told("firing", EVENT, "pump"),
            told("resolved", EVENT, "pump"),
            told("firing", EVENT, "pump"),
            told("firing", EVENT, "fan"),
            told("resolved", EVENT, "fan"),
        ]
    );
}

#[test]
fn an_event_that_goes_on_after_its_end_was_told_is_told_again_with_its_first_start() {
    let desk = Desk::new();
    let firing = fact(EVENT, "pump", 7);
    let over = Fact {
        over: true,
        ..firing.clone()
    };
    for (now, queued) in [(0, 1), (10, 0)] {
        assert_eq!(desk.see(std::slice::from_ref(&firing), 60, at(now)), queued);
    }
    assert_eq!(desk.see(std::slice::from_ref(&over), 60, at(20)), 1);
    // A clock that went back sees it as it was, which is no news.
    assert_eq!(desk.see(std::slice::from_ref(&firing), 60, at(-100)), 0);
    for (now, queued) in [(30, 1), (40, 0)] {
        assert_eq!(desk.see(std::slice::from_ref(&firing), 60, at(now)), queued);
    }
    assert_eq!(
        desk.queue.events().unwrap(),
        [(
            "pump".to_owned(),
            DateTime::from_timestamp_micros(7).unwrap()
        )]
    );
    for (now, queued) in [(50, 1), (60, 0)] {
        assert_eq!(desk.see(std::slice::from_ref(&over), 60, at(now)), queued);
    }
    let taken: Vec<String> = desk.take().into_iter().map(|(state, ..)| state).collect();
    assert_eq!(taken, ["firing", "resolved", "firing", "resolved"]);
}

#[test]
fn an_event_that_lasted_for_days_is_told_as_over_once_also_by_a_clock_that_is_ahead_for_a_while() {
    let desk = Desk::new();
    let day = 86_400;
    let began = at(-5 * day);
    let firing = Fact {
        since: began,
        ..fact(EVENT, "pump", began.timestamp_micros())
    };
    let over = Fact {
        over: true,
        ..firing.clone()
    };
    assert_eq!(desk.see(&[firing], 60, at(0)), 1);
    assert_eq!(desk.see(std::slice::from_ref(&over), 60, at(10)), 1);
    for now in (1..20).map(|hour| at(hour * 3_600)) {
        assert_eq!(desk.see(std::slice::from_ref(&over), 60, now), 0);
    }
    assert_eq!(desk.see(&[], 60, at(700 * day)), 0);
    assert_eq!(desk.see(&[over], 60, at(day)), 0);
}

#[test]
fn an_event_that_an_earlier_version_closed_is_remembered_and_old_ones_are_forgotten_in_the_end() {
    let desk = Desk::new();
    let over = |episode: i64| Fact {
        over: true,
        since: at(episode),
        ..fact(EVENT, "pump", episode)
    };
    assert_eq!(desk.see(&[over(1)], 60, at(10)), 2);
    desk.queue
        .transact(|db| db.execute("UPDATE standing SET closed = 1", []))
        .unwrap();
    assert_eq!(desk.see(&[over(1)], 60, at(20)), 0);
    let many: Vec<Fact> = (2..1_100).map(over).collect();
    assert_eq!(desk.see(&many, 10_000, at(30)), 2 * many.len());
    let kept = || {
        let sql = "SELECT count(*) FROM standing";
        desk.queue
            .transact(|db| db.query_row(sql, [], |row| row.get::<_, i64>(0)))
            .unwrap()
    };
    assert_eq!(kept(), 1_099);
    desk.see(&[], 60, at(5 * 86_400));
    assert_eq!(kept(), REMEMBERED_ANYWAY + 1);
}

#[test]
fn beyond_the_rate_what_stands_is_told_later_and_what_came_and_went_is_counted() {
    let desk = Desk::new();
    let many: Vec<Fact> = (0..5)
        .map(|n| fact("execution-failed", &format!("s{n}"), 0))
        .collect();
    assert_eq!(desk.see(&many, 3, at(0)), 3);
    // s3 and s4 were not told. s3 ends and begins again: its end is counted with its beginning; s0 flaps untold.
    let without: Vec<Fact> = many[1..3].iter().chain(&many[4..]).cloned().collect();
    assert_eq!(desk.see(&without, 3, at(10)), 0);
    assert_eq!(desk.see(&many, 3, at(20)), 0);
    assert_eq!(desk.queue.waiting().unwrap(), (3, 4));
    assert_eq!(desk.take().len(), 3);
    // An hour later there is room again.
    assert_eq!(desk.see(&many, 3, at(3_700)), 2);
    let taken = desk.take();
    assert_eq!(
        taken[0],
        ("firing".into(), "execution-failed".into(), "s3".into(), 4)
    );
    assert_eq!(taken[1].3, 0);
    // With nothing else to tell, the count is a message of its own.
    assert_eq!(desk.see(&many, 2, at(3_800)), 0);
    let flap = [many.clone(), vec![fact("source-silent", "", 0)]].concat();
    assert_eq!(
        (desk.see(&flap, 2, at(3_900)), desk.see(&many, 2, at(4_000))),
        (0, 0)
    );
    assert_eq!(desk.see(&many, 2, at(9_000)), 1);
    assert_eq!(
        desk.take(),
        [("firing".into(), "held-back".into(), String::new(), 2)]
    );
}

#[test]
fn a_full_queue_gives_the_oldest_up_and_counts_them() {
    let desk = Desk::new();
    let many: Vec<Fact> = (0..510)
        .map(|n| fact("execution-failed", &format!("s{n:03}"), 0))
        .collect();
    assert_eq!(desk.see(&many, 10_000, at(0)), 510);
    assert_eq!(desk.queue.waiting().unwrap(), (500, 10));
    let first = desk.queue.next("webhook").unwrap().unwrap();
    assert!(first.body.contains("s010"), "{}", first.body);
    assert_eq!(desk.take().len(), 500);
    // What was sent is kept for a while, not for ever.
    desk.see(&[], 10_000, at(10_000));
    desk.take();
    let kept = desk.queue.list(10_000).unwrap();
    assert!(kept.len() <= 520, "{}", kept.len());
}

#[test]
fn a_message_that_is_given_up_is_counted_and_lets_the_next_one_through() {
    let desk = Desk::new();
    desk.see(
        &[fact("spool-paused", "", 0), fact("windows-late", "", 0)],
        60,
        at(0),
    );
    let next = desk.queue.next("webhook").unwrap().unwrap();
    desk.queue
        .failed(next.seq, "webhook", "500", false)
        .unwrap();
    let again = desk.queue.next("webhook").unwrap().unwrap();
    assert_eq!((again.seq, again.attempts), (next.seq, 1));
    desk.queue.failed(next.seq, "webhook", "400", true).unwrap();
    assert_eq!(desk.take(), [told("firing", "windows-late", "")]);
    let listed = desk.queue.list(10).unwrap();
    assert_eq!(
        (listed[1].state.as_str(), listed[1].error.as_deref()),
        ("given-up", Some("400"))
    );
    assert_eq!(desk.queue.waiting().unwrap(), (0, 1));
}

#[test]
fn a_damaged_file_is_set_aside_and_a_newer_one_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify.db");
    std::fs::write(&path, vec![7; 8_192]).unwrap();
    let queue = Queue::open(directory.path(), &["webhook"]).unwrap();
    assert!(directory.path().join("notify.damaged").exists());
    queue
        .transact(|db| db.pragma_update(None, "user_version", 9))
        .unwrap();
    drop(queue);
    let error = Queue::open(directory.path(), &["webhook"]).unwrap_err();
    assert!(error.to_string().contains("format 9"), "{error}");
}

#[test]
fn what_waits_for_a_target_that_is_no_longer_configured_is_given_up() {
    let desk = Desk::new();
    desk.see(&[fact("spool-paused", "", 0)], 60, at(0));
    let other = Queue::open(desk.directory.path(), &["command"]).unwrap();
    assert_eq!(other.waiting().unwrap().0, 0);
    assert!(other.next("webhook").unwrap().is_none());
}
