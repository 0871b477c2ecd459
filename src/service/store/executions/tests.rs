//! Claims, ends, clocks that were ahead and windows that came late, each at a chosen time.

use super::*;
use crate::service::store::NewModel;
use crate::service::store::executions::claim::{CatchUp, Look};
use chrono::TimeDelta;
use std::collections::HashSet;

const CATCH_UP: CatchUp = CatchUp {
    all: false,
    max_age: TimeDelta::days(1),
};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn window(start: &str) -> Window {
    Window::new(at(start), Cadence::Pt5m).unwrap()
}

/// A state with RUNNING schedulers of these names that began at `now`.
async fn store(names: &[&str], now: &str) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for name in names {
        let model = NewModel {
            name: (*name).to_owned(),
            components: vec![("c".into(), vec!["s".into()])],
            sampling_us: None,
            file: vec![1],
            trained: crate::model::Span { start: 0, end: 1 },
            region: "r".into(),
            account: "123456789012".into(),
        };
        store.register_model(model, at(now)).await.unwrap();
        let (name, now) = ((*name).to_owned(), at(now));
        store
            .transact(move |db| {
                db.execute(
                    "INSERT INTO scheduler (name, uuid, arn, model_name, status, delay_minutes, frequency, input, output,
                                            role_arn, created_us, updated_us)
                     VALUES (?1, ?1, ?1, ?1, 'RUNNING', 0, 'PT5M', '{}', '{}', 'r', 0, 0)",
                    [&name],
                )?;
                let schedule = schedulers::schedule(db, &name)?.unwrap();
                begin(db, &schedule, now, CATCH_UP)
            })
            .await
            .unwrap();
    }
    (directory, store)
}

fn look(now: &str) -> Look {
    Look {
        now: at(now),
        catch_up: CATCH_UP,
        busy: HashSet::new(),
        most: 100,
        rewind: true,
    }
}

fn success() -> End {
    End::Success {
        bucket: "b".into(),
        key: "k".into(),
        scoring_state: None,
        rows: 1,
        score: Some(0.1),
        anomalies: Vec::new(),
        step_us: 1,
    }
}

fn failed(kind: FailureKind) -> End {
    End::Failed(Failed::new(kind, "no"))
}

/// Claims what is due and ends it, as of `now`; returns the ends of the windows.
async fn execute(store: &Store, now: &str, end: End) -> Vec<String> {
    let due = store.claim_due(look(now)).await.unwrap();
    let mut ends = Vec::new();
    for claim in due.claims {
        let boundary = claim.window.end();
        let uuid = claim.scheduler.uuid;
        let ended = store.end_execution(&uuid, boundary.timestamp_micros(), at(now), end.clone());
        ended.await.unwrap();
        ends.push(boundary.format("%dT%H:%M").to_string());
    }
    ends
}

/// Boundary and status of each execution.
async fn executions(store: &Store) -> Vec<(String, String)> {
    let read = store.transact(|db| {
        let mut statement =
            db.prepare("SELECT boundary_us, status FROM execution ORDER BY boundary_us")?;
        let rows = statement.query_map([], |row| {
            let time = DateTime::from_timestamp_micros(row.get(0)?).unwrap();
            Ok((time.format("%dT%H:%M").to_string(), row.get(1)?))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    });
    read.await.unwrap()
}

#[test]
fn a_window_is_due_at_its_end_plus_the_delay() {
    let next = window("2022-05-13T09:05:00Z");
    let delay = TimeDelta::minutes(5);
    assert_eq!(due(next, delay, at("2022-05-13T09:14:59.999Z"), None), None);
    assert_eq!(
        due(next, delay, at("2022-05-13T09:15:00Z"), None),
        Some((next, 0))
    );
    assert_eq!(
        due(next, TimeDelta::zero(), at("2022-05-13T09:10:00Z"), None),
        Some((next, 0))
    );
}

#[test]
fn missed_windows_are_given_up_unless_they_are_to_be_caught_up_and_not_too_old() {
    let next = window("2022-05-13T09:05:00Z");
    let (now, none) = (at("2022-05-13T10:02:00Z"), TimeDelta::zero());
    assert_eq!(
        due(next, none, now, None),
        Some((window("2022-05-13T09:55:00Z"), 10))
    );
    assert_eq!(
        due(next, none, now, Some(TimeDelta::hours(1))),
        Some((next, 0))
    );
    assert_eq!(
        due(next, none, now, Some(TimeDelta::minutes(30))),
        Some((window("2022-05-13T09:30:00Z"), 5))
    );
    assert_eq!(
        due(next, none, now, Some(TimeDelta::zero())),
        Some((window("2022-05-13T09:55:00Z"), 10))
    );
}

#[tokio::test]
async fn after_a_clock_that_was_ahead_schedules_go_on_and_nothing_runs_twice() {
    let (_directory, store) = store(&["s"], "2026-03-01T10:02:00Z").await;
    assert_eq!(
        execute(&store, "2026-03-01T10:05:00Z", success()).await,
        ["01T10:05"]
    );
    // Two days ahead: one that has its data already, and one that fails.
    assert_eq!(
        execute(&store, "2026-03-03T10:05:00Z", success()).await,
        ["03T10:05"]
    );
    let lost = failed(FailureKind::NoFile);
    assert_eq!(
        execute(&store, "2026-03-03T10:10:00Z", lost.clone()).await,
        ["03T10:10"]
    );
    // Put right, ten minutes later than it had left.
    let due = store.claim_due(look("2026-03-01T10:14:00Z")).await.unwrap();
    assert_eq!(due.rewound.len(), 1);
    assert_eq!(due.rewound[0].to, Some(at("2026-03-01T10:10:00Z")));
    // The window that passed meanwhile is had; a look in between puts nothing back again.
    assert_eq!(due.claims.len(), 1);
    assert_eq!(due.claims[0].window.end(), at("2026-03-01T10:10:00Z"));
    let due = store.claim_due(look("2026-03-01T10:14:00Z")).await.unwrap();
    assert_eq!((due.rewound.len(), due.claims.len()), (0, 0));
    assert_eq!(
        execute(&store, "2026-03-01T10:15:00Z", success()).await,
        ["01T10:15"]
    );
    // A step back over a boundary that was executed runs it no second time.
    assert!(
        execute(&store, "2026-03-01T10:13:00Z", success())
            .await
            .is_empty()
    );
    assert!(
        execute(&store, "2026-03-01T10:15:00Z", success())
            .await
            .is_empty()
    );
    // The success of the future counts when its time comes, and the failure is done again.
    assert_eq!(
        execute(&store, "2026-03-03T10:00:00Z", success()).await,
        ["03T10:00"]
    );
    assert!(
        execute(&store, "2026-03-03T10:05:00Z", success())
            .await
            .is_empty()
    );
    assert_eq!(
        execute(&store, "2026-03-03T10:10:00Z", success()).await,
        ["03T10:10"]
    );
    let known = executions(&store).await;
    assert!(
        known
            .iter()
            .all(|(end, status)| status == "SUCCESS" || end == "01T10:10"),
        "{known:?}"
    );
}

#[tokio::test]
async fn what_fails_for_a_window_of_the_future_is_void_also_if_it_ends_after_the_step_back_and_done_again()
 {
    let (_directory, store) = store(&["s"], "2026-03-01T10:02:00Z").await;
    let due = store.claim_due(look("2026-03-03T10:05:00Z")).await.unwrap();
    let boundary_us = due.claims[0].window.end().timestamp_micros();
    let lost = failed(FailureKind::NoFile);
    let ended = store.end_execution("s", boundary_us, at("2026-03-01T10:03:00Z"), lost);
    ended.await.unwrap();
    assert_eq!(listed(&store, "2026-03-01T10:03:00Z").await, 0);
    assert_eq!(
        execute(&store, "2026-03-01T10:05:00Z", success()).await,
        ["01T10:05"]
    );
    assert_eq!(
        execute(&store, "2026-03-03T10:00:00Z", success()).await,
        ["03T10:00"]
    );
    assert_eq!(
        execute(&store, "2026-03-03T10:05:00Z", success()).await,
        ["03T10:05"]
    );
    assert_eq!(listed(&store, "2026-03-03T10:05:00Z").await, 3);
}

/// How many executions the API lists.
async fn listed(store: &Store, now: &str) -> usize {
    let asked = crate::service::store::past::ExecutionsAsked {
        scheduler_uuid: "s".into(),
        before_us: i64::MAX,
        from_us: i64::MIN,
        to_us: i64::MAX,
        status: None,
        limit: 1_000,
        now_us: at(now).timestamp_micros(),
    };
    store.executions(asked).await.unwrap().len()
}

#[tokio::test]
async fn a_clock_that_is_behind_for_a_moment_takes_no_history_and_holds_nothing_up() {
    for catch_up in [false, true] {
        let (_directory, store) = store(&["s"], "2026-03-01T10:02:00Z").await;
        let first = at("2026-03-01T10:05:00Z");
        let made = store.transact(move |db| {
            let made = (first - TimeDelta::minutes(3)).timestamp_micros();
            db.execute("UPDATE scheduler SET created_us = ?1", [made])?;
            Ok(())
        });
        made.await.unwrap();
        for nth in 0..20 {
            let now = (first + TimeDelta::minutes(5 * nth)).to_rfc3339();
            let end = match nth % 3 {
                0 => failed(FailureKind::Input),
                _ => success(),
            };
            assert_eq!(execute(&store, &now, end).await.len(), 1);
        }
        let known = executions(&store).await;
        let look_at = |now: &str| Look {
            catch_up: CatchUp {
                all: catch_up,
                ..CATCH_UP
            },
            ..look(now)
        };
        // An hour, two days and decades behind.
        for behind in [
            "2026-03-01T10:43:00Z",
            "2026-02-27T11:41:00Z",
            "1970-01-01T00:10:00Z",
        ] {
            assert!(
                store
                    .claim_due(look_at(behind))
                    .await
                    .unwrap()
                    .claims
                    .is_empty(),
                "{behind}"
            );
            assert_eq!(executions(&store).await, known, "{behind}");
        }
        // Right again: nothing passed, and what comes next comes at once.
        let due = store
            .claim_due(look_at("2026-03-01T11:45:00Z"))
            .await
            .unwrap();
        assert_eq!(due.passed, []);
        let ends: Vec<_> = due.claims.iter().map(|claim| claim.window.end()).collect();
        match catch_up {
            false => assert_eq!(ends, [at("2026-03-01T11:45:00Z")]),
            // What had failed since is done again first, as after any step back, and nothing from before it was made.
            true => assert_eq!(ends, [first]),
        }
        assert_eq!(executions(&store).await.len(), 20 + usize::from(!catch_up));
    }
}

#[tokio::test]
async fn nothing_is_due_void_or_begun_before_the_clock_is_set() {
    let (_directory, store) = store(&["s", "t"], "2026-03-01T10:02:00Z").await;
    let lost = failed(FailureKind::NoFile);
    assert_eq!(execute(&store, "2026-03-01T10:05:00Z", lost).await.len(), 2);
    let pending = store.transact(|db| {
        db.execute(
            "UPDATE scheduler SET status = 'PENDING' WHERE name = 't'",
            [],
        )?;
        Ok(())
    });
    pending.await.unwrap();
    let booted = at("1970-01-01T00:03:00Z");
    let due = store.claim_due(look("1970-01-01T00:06:00Z")).await.unwrap();
    assert!(due.claims.is_empty() && due.rewound.is_empty());
    let passing = store.passing().await.unwrap();
    let settled = store.settle(passing.clone(), booted, CATCH_UP).await;
    assert!(settled.unwrap().is_empty());
    let before: Vec<_> = ["FAILED", "FAILED"]
        .map(|status| ("01T10:05".to_owned(), status.to_owned()))
        .into();
    assert_eq!(executions(&store).await, before);
    let set = at("2026-03-01T10:08:00Z");
    assert_eq!(store.settle(passing, set, CATCH_UP).await.unwrap().len(), 1);
    assert_eq!(
        execute(&store, "2026-03-01T10:10:00Z", success()).await,
        ["01T10:10", "01T10:10"]
    );
}

#[tokio::test]
async fn a_scheduler_that_cannot_be_understood_fails_by_name_and_stops_no_other() {
    let (_directory, store) = store(&["a", "b", "odd"], "2026-03-01T10:02:00Z").await;
    let tag = store.transact(|db| {
        let sql = "INSERT INTO tag (arn, key, value) VALUES ('odd', 'lookoutd:priority', 'on')";
        db.execute(sql, [])?;
        db.execute(
            "UPDATE model SET active_version = NULL WHERE name = 'b'",
            [],
        )?;
        Ok(())
    });
    tag.await.unwrap();
    let due = store.claim_due(look("2026-03-01T10:05:00Z")).await.unwrap();
    let claimed: Vec<&str> = due
        .claims
        .iter()
        .map(|claim| claim.scheduler.name.as_str())
        .collect();
    assert_eq!(claimed, ["a"]);
    let mut refused: Vec<_> = due.refused.iter().collect();
    refused.sort_by_key(|refused| refused.scheduler.clone());
    assert_eq!(refused[0].failed.kind, FailureKind::Model);
    assert_eq!(refused[1].failed.kind, FailureKind::Configuration);
    assert!(
        refused[1].failed.reason.contains("lookoutd:priority"),
        "{refused:?}"
    );
    let known = executions(&store).await;
    assert_eq!(
        known
            .iter()
            .filter(|(_, status)| status == "FAILED")
            .count(),
        2
    );
    assert_eq!(due.next, Some(at("2026-03-01T10:10:00Z")));
}

#[tokio::test]
async fn no_more_is_claimed_than_there_are_places_and_a_backlog_goes_last() {
    let (_directory, store) = store(&["a", "b", "c"], "2026-03-01T06:02:00Z").await;
    let busy = store.claim_due(Look {
        most: 2,
        ..look("2026-03-01T06:05:00Z")
    });
    let due = busy.await.unwrap();
    assert_eq!((due.claims.len(), due.more), (2, true));
    let rest = store.claim_due(look("2026-03-01T06:05:00Z")).await.unwrap();
    assert_eq!((rest.claims.len(), rest.more), (1, false));
    // Three hours later one has a boundary that has just become due, the others a backlog.
    let moved = store.transact(|db| {
        let just = at("2026-03-01T09:05:00Z").timestamp_micros();
        let sql = "UPDATE scheduler SET next_boundary_us = ?1, due_us = ?1 WHERE name = 'c'";
        db.execute(sql, [just])?;
        Ok(())
    });
    moved.await.unwrap();
    let due = store.claim_due(Look {
        most: 1,
        ..look("2026-03-01T09:05:00Z")
    });
    assert_eq!(due.await.unwrap().claims[0].scheduler.name, "c");
}

#[tokio::test]
async fn every_window_without_data_has_its_turn_and_no_other_kind_has() {
    let (_directory, store) = store(&["s"], "2026-03-01T10:02:00Z").await;
    let first = at("2026-03-01T10:05:00Z");
    for nth in 0..20 {
        let now = (first + TimeDelta::minutes(5 * nth)).to_rfc3339();
        let kind = match nth % 5 {
            0 => FailureKind::Input,
            1 => FailureKind::Store,
            2 => FailureKind::NoRows,
            _ => FailureKind::NoFile,
        };
        assert_eq!(execute(&store, &now, failed(kind)).await.len(), 1);
    }
    let scheduler = store
        .transact(|db| Ok(schedulers::by_name(db, "s")?.unwrap()))
        .await
        .unwrap();
    let mut seen = HashSet::new();
    let mut now = first + TimeDelta::hours(3);
    for _ in 0..4 {
        now += TimeDelta::minutes(5);
        let until = first + TimeDelta::hours(3);
        let since = first - TimeDelta::hours(1);
        let claims = store.late_windows(scheduler.clone(), since, until, now, 4);
        for claim in claims.await.unwrap() {
            store.late_look(&claim, now).await.unwrap();
            assert!(seen.insert(claim.window.end()), "{} twice", claim.window);
        }
    }
    // Sixteen of twenty: those whose file cannot be read are not looked at again.
    assert_eq!(seen.len(), 16);
    let late = store.late_windows(
        scheduler,
        first - TimeDelta::hours(1),
        first + TimeDelta::minutes(30),
        now,
        1,
    );
    let claim = late.await.unwrap().remove(0);
    store.end_late(&claim, now, success()).await.unwrap();
    let end = claim.window.end().format("%dT%H:%M").to_string();
    assert!(executions(&store).await.contains(&(end, "SUCCESS".into())));
}

#[tokio::test]
async fn a_turn_that_was_not_come_to_is_not_used_up() {
    let (_directory, store) = store(&["s"], "2026-03-01T10:02:00Z").await;
    let first = at("2026-03-01T10:05:00Z");
    for nth in 0..6 {
        let now = (first + TimeDelta::minutes(5 * nth)).to_rfc3339();
        execute(&store, &now, failed(FailureKind::NoFile)).await;
    }
    let scheduler = store
        .transact(|db| Ok(schedulers::by_name(db, "s")?.unwrap()))
        .await
        .unwrap();
    let mut now = first + TimeDelta::hours(1);
    let mut looked = Vec::new();
    for _ in 0..6 {
        now += TimeDelta::minutes(5);
        let (since, until) = (first - TimeDelta::hours(1), first + TimeDelta::hours(1));
        let chosen = store.late_windows(scheduler.clone(), since, until, now, 4);
        let chosen = chosen.await.unwrap();
        assert_eq!(chosen.len(), 4);
        // Time for one of them.
        store.late_look(&chosen[0], now).await.unwrap();
        looked.push(chosen[0].window.end());
    }
    looked.sort_unstable();
    looked.dedup();
    assert_eq!(looked.len(), 6);
}

/// What `odd` does to the row of the scheduler of that name.
async fn spoil(store: &Store, odd: &'static str) {
    let spoil = store.transact(move |db| Ok(db.execute_batch(odd)?));
    spoil.await.unwrap();
}

#[tokio::test]
async fn each_row_that_no_build_of_this_kind_wrote_fails_its_own_scheduler_and_its_schedule_goes_on()
 {
    for (odd, word) in [
        (
            "UPDATE scheduler SET frequency = 'PT2H' WHERE name = 'odd'",
            "'PT2H'",
        ),
        (
            "UPDATE scheduler SET delay_minutes = 9000000000000 WHERE name = 'odd'",
            "9000000000000",
        ),
        (
            "UPDATE scheduler SET input = '{\"S3' WHERE name = 'odd'",
            "EOF",
        ),
        (
            "UPDATE scheduler SET output = 'x' WHERE name = 'odd'",
            "expected value",
        ),
    ] {
        let (_directory, store) = store(&["a", "odd", "z"], "2026-03-01T10:02:00Z").await;
        spoil(&store, odd).await;
        let mut refused = Vec::new();
        let mut claimed = 0;
        for minute in (5..=240).step_by(5) {
            let now = at("2026-03-01T10:00:00Z") + TimeDelta::minutes(minute);
            let due = store.claim_due(look(&now.to_rfc3339())).await.unwrap();
            for claim in due.claims {
                assert_ne!(claim.scheduler.name, "odd");
                claimed += 1;
                let boundary_us = claim.window.end().timestamp_micros();
                let uuid = claim.scheduler.uuid;
                store
                    .end_execution(&uuid, boundary_us, now, success())
                    .await
                    .unwrap();
            }
            refused.extend(due.refused);
        }
        assert_eq!(claimed, 2 * 48, "{odd}");
        let all = crate::service::store::schedulers::SchedulersAsked {
            prefix: String::new(),
            model: None,
            status: None,
            after: String::new(),
            limit: 10,
        };
        assert_eq!(store.schedulers(all).await.unwrap().len(), 3, "{odd}");
        assert!(
            (3..=48).contains(&refused.len()),
            "{odd}: {}",
            refused.len()
        );
        for refused in &refused {
            assert_eq!(refused.scheduler, "odd");
            assert_eq!(refused.failed.kind, FailureKind::Configuration);
            assert!(
                refused.failed.reason.contains(word),
                "{}",
                refused.failed.reason
            );
        }
        let asked = crate::service::store::past::ExecutionsAsked {
            scheduler_uuid: "odd".into(),
            before_us: i64::MAX,
            from_us: i64::MIN,
            to_us: i64::MAX,
            status: None,
            limit: 1000,
            now_us: i64::MAX,
        };
        assert_eq!(store.executions(asked).await.unwrap().len(), refused.len());
    }
}

#[tokio::test]
async fn what_a_crash_interrupted_and_cannot_be_done_again_fails_alone() {
    for odd in [
        "UPDATE scheduler SET frequency = 'PT2H' WHERE name = 'odd'",
        "UPDATE scheduler_configuration SET output = '{' WHERE scheduler_uuid = 'odd'",
        "UPDATE execution SET start_us = boundary_us - 7 WHERE scheduler_uuid = 'odd'",
    ] {
        let (_directory, store) = store(&["a", "odd", "z"], "2026-03-01T10:02:00Z").await;
        let due = store.claim_due(look("2026-03-01T10:05:00Z")).await.unwrap();
        assert_eq!(due.claims.len(), 3);
        spoil(&store, odd).await;
        let (claims, refused) = store.interrupted(at("2026-03-01T10:06:00Z")).await.unwrap();
        let mut names: Vec<String> = claims
            .into_iter()
            .map(|claim| claim.scheduler.name)
            .collect();
        names.sort();
        assert_eq!(names, ["a", "z"], "{odd}");
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].failed.kind, FailureKind::Configuration);
        let (claims, refused) = store.interrupted(at("2026-03-01T10:06:00Z")).await.unwrap();
        assert_eq!((claims.len(), refused.len()), (2, 0), "{odd}");
    }
}

#[tokio::test]
async fn a_word_of_another_build_about_the_last_result_is_forgotten_with_the_next() {
    let (_directory, store) = store(&["s"], "2026-03-01T10:02:00Z").await;
    spoil(&store, "UPDATE scheduler SET latest_result = 'UNCLEAR'").await;
    assert_eq!(store.scheduler("s").await.unwrap().latest_result, None);
    assert_eq!(
        execute(&store, "2026-03-01T10:05:00Z", success()).await,
        ["01T10:05"]
    );
    let latest = store.scheduler("s").await.unwrap().latest_result;
    assert_eq!(latest, Some(schedulers::LatestResult::Normal));
}

#[tokio::test]
async fn a_scheduler_that_begins_with_an_unknown_frequency_holds_up_no_other() {
    let (_directory, store) = store(&["a", "odd"], "2026-03-01T10:02:00Z").await;
    spoil(
        &store,
        "UPDATE scheduler SET status = 'PENDING'; UPDATE scheduler SET frequency = 'PT2H' WHERE name = 'odd'",
    )
    .await;
    let passing = store.passing().await.unwrap();
    assert_eq!(passing.len(), 2);
    let settled = store
        .settle(passing, at("2026-03-01T10:02:00Z"), CATCH_UP)
        .await
        .unwrap();
    assert_eq!(settled.len(), 2);
    let due = store.claim_due(look("2026-03-01T11:00:00Z")).await.unwrap();
    assert_eq!((due.claims.len(), due.refused.len()), (1, 1));
}

#[tokio::test]
async fn a_configuration_is_stored_once_per_edit_and_each_execution_tells_its_own() {
    let (_directory, store) = store(&["s"], "2026-03-01T10:02:00Z").await;
    let edits = ["{\"n\":1}", "{\"n\":2}", "{\"n\":1}"];
    for (nth, edit) in edits.iter().enumerate() {
        let edit = (*edit).to_owned();
        store
            .transact(move |db| Ok(db.execute("UPDATE scheduler SET input = ?1", [edit])?))
            .await
            .unwrap();
        for window in 0..3 {
            let minutes = 5 * (3 * nth as i64 + window);
            let now = at("2026-03-01T10:05:00Z") + TimeDelta::minutes(minutes);
            assert_eq!(execute(&store, &now.to_rfc3339(), success()).await.len(), 1);
        }
    }
    // One of an earlier build, with its own copy.
    spoil(
        &store,
        "INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output, model_version,
                                model_version_arn)
         VALUES ('s', 600000000, 300000000, 600000000, 'SUCCESS', '{\"n\":0}', '{}', 1, 'v')",
    )
    .await;
    let stored = store.transact(|db| {
        let sql = "SELECT (SELECT count(*) FROM scheduler_configuration), (SELECT count(*) FROM execution WHERE input = 'null')";
        Ok(db.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?)
    });
    assert_eq!(stored.await.unwrap(), (3, 9));
    let asked = crate::service::store::past::ExecutionsAsked {
        scheduler_uuid: "s".into(),
        before_us: i64::MAX,
        from_us: i64::MIN,
        to_us: i64::MAX,
        status: None,
        limit: 1000,
        now_us: i64::MAX,
    };
    let past = store.executions(asked).await.unwrap();
    let told: Vec<i64> = past
        .iter()
        .map(|past| past.input["n"].as_i64().unwrap())
        .collect();
    assert_eq!(told, [1, 1, 1, 2, 2, 2, 1, 1, 1, 0]);
    // They go with their scheduler.
    spoil(&store, "UPDATE scheduler SET status = 'STOPPED'").await;
    store.delete_scheduler("s").await.unwrap();
    let left = store.transact(|db| {
        let sql = "SELECT count(*) FROM scheduler_configuration";
        Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(left.await.unwrap(), 0);
}

#[test]
fn kinds_are_told_apart_by_their_words() {
    for word in FailureKind::WORDS {
        assert_eq!(FailureKind::from_sql(word).unwrap().as_sql(), *word);
    }
    assert!(FailureKind::NoFile.may_come() && !FailureKind::Input.may_come());
}
