#![allow(clippy::unwrap_used)]

use super::*;
use crate::clock::FixedClock;
use crate::event::Events;
use crate::store::faulty::{Fault, Faulty, Operation, Rule};
use crate::store::memory::MemoryStore;

fn place() -> Place {
    Place {
        store: Arc::new(MemoryStore::new()),
        master: Arc::new(MasterKey::from_bytes(&[1; 64])),
        standing: Arc::default(),
        pace: Pace {
            settle: Duration::from_millis(5),
            refresh: Duration::from_millis(20),
            patience: Duration::from_secs(10),
            retry: Duration::from_millis(5),
        },
    }
}

fn fixed() -> (FixedClock, Run) {
    let clock = FixedClock::at("2026-01-02T03:04:05Z".parse().unwrap());
    let run = Run::new(Arc::new(clock.clone()), Events::silent());
    (clock, run)
}

async fn take(place: &Place, mode: LockMode, run: &Run) -> Result<LockGuard, RepositoryError> {
    acquire(place.clone(), mode, Duration::ZERO, run).await
}

/// Waits until the locks are so.
async fn until(place: &Place, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
    let looks = async {
        loop {
            let listed = place.store.list(FileKind::Lock).await.unwrap();
            let names: Vec<_> = listed.into_iter().map(|listed| listed.name).collect();
            if is_so(&names) {
                return names;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), looks).await.unwrap()
}

async fn count(place: &Place) -> usize {
    place.store.list(FileKind::Lock).await.unwrap().len()
}

fn foreign(minutes_ago: i64, run: &Run) -> Lock {
    Lock {
        hostname: "another-machine".to_owned(),
        processes: Some("another boot/another table".to_owned()),
        time: run.now() - TimeDelta::minutes(minutes_ago),
        ..Lock::new(LockMode::Exclusive, run.now())
    }
}

#[tokio::test]
async fn shared_locks_stand_beside_each_other_and_an_exclusive_one_stands_alone() {
    let (place, (_, run)) = (place(), fixed());
    let first = take(&place, LockMode::Shared, &run).await.unwrap();
    let second = take(&place, LockMode::Shared, &run).await.unwrap();
    assert!(matches!(
        take(&place, LockMode::Exclusive, &run).await,
        Err(RepositoryError::Locked { exclusive: false, .. })
    ));
    first.release().await.unwrap();
    second.release().await.unwrap();
    let alone = take(&place, LockMode::Exclusive, &run).await.unwrap();
    assert!(matches!(take(&place, LockMode::Shared, &run).await, Err(RepositoryError::Locked { exclusive: true, .. })));
    alone.release().await.unwrap();
    assert_eq!(count(&place).await, 0);
}

#[tokio::test]
async fn of_two_that_come_at_once_not_both_get_the_exclusive_lock() {
    let (place, (_, run)) = (place(), fixed());
    let (a, b) = tokio::join!(take(&place, LockMode::Exclusive, &run), take(&place, LockMode::Exclusive, &run));
    assert!(a.is_err() || b.is_err());
    drop((a, b));
}

#[tokio::test]
async fn a_waiter_gets_the_lock_when_it_is_given_back() {
    let (place, (_, run)) = (place(), fixed());
    let held = take(&place, LockMode::Exclusive, &run).await.unwrap();
    let wait = acquire(place.clone(), LockMode::Shared, Duration::from_secs(30), &run);
    let give_back = async {
        tokio::task::yield_now().await;
        held.release().await.unwrap();
    };
    let (got, ()) = tokio::join!(wait, give_back);
    got.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_signal_ends_the_wait_and_leaves_no_lock() {
    let (place, (_, run)) = (place(), fixed());
    let held = take(&place, LockMode::Exclusive, &run).await.unwrap();
    let stop = async {
        tokio::task::yield_now().await;
        run.cancel.cancel();
    };
    let wait = acquire(place.clone(), LockMode::Shared, Duration::from_hours(1), &run);
    let (got, ()) = tokio::join!(wait, stop);
    assert!(matches!(got, Err(RepositoryError::Stopped(_))));
    assert_eq!(count(&place).await, 1);
    held.release().await.unwrap();
}

#[tokio::test]
async fn an_old_lock_and_one_of_a_process_that_is_gone_are_cleared_away() {
    let (place, (_, run)) = (place(), fixed());
    place.put(&foreign(31, &run)).await.unwrap();
    let gone = Lock { pid: i32::MAX, ..Lock::new(LockMode::Exclusive, run.now()) };
    place.put(&gone).await.unwrap();
    let guard = take(&place, LockMode::Exclusive, &run).await.unwrap();
    assert_eq!(count(&place).await, 1);
    guard.release().await.unwrap();
}

#[test]
fn a_process_that_cannot_be_seen_from_here_is_not_taken_for_gone() {
    let (_, run) = fixed();
    let gone = Lock { pid: i32::MAX, ..Lock::new(LockMode::Exclusive, run.now()) };
    // A container with the host's name; and restic, whose locks do not say where their number is from.
    let elsewhere = Lock { processes: Some("this boot/another table".to_owned()), ..gone.clone() };
    let by_restic = Lock { processes: None, ..gone };
    for (lock, stale_after) in [(elsewhere, STALE_MINUTES), (by_restic, REFRESH_MISSED_MINUTES)] {
        let aged = |minutes| Lock { time: run.now() - TimeDelta::minutes(minutes), ..lock.clone() };
        assert!(!aged(stale_after).is_stale(run.now(), false), "{lock:?}");
        assert!(aged(stale_after + 1).is_stale(run.now(), false), "{lock:?}");
    }
}

#[tokio::test]
async fn a_lock_that_cannot_be_refreshed_is_lost_before_others_take_it_for_stale() {
    let (mut place, (clock, run)) = (place(), fixed());
    let faulty = Arc::new(Faulty::new(Arc::clone(&place.store)));
    place.store = faulty.clone();
    place.pace.patience = Duration::from_millis(30);
    let guard = take(&place, LockMode::Shared, &run).await.unwrap();
    faulty.add(Rule::every(Operation::Put, Fault::Stall));
    clock.advance(TimeDelta::minutes(22));
    guard.prove().await.unwrap();
    clock.advance(TimeDelta::minutes(1));
    // At once, by the clock: no refresh has to come back for it.
    assert!(matches!(guard.prove().await, Err(RepositoryError::LockLost { .. })));
    // And the keeper does not hang on the store.
    while faulty.count(Operation::Put) < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(10), guard.release()).await.unwrap().unwrap();
    assert_eq!(count(&place).await, 0);
}

#[tokio::test]
async fn a_damaged_lock_says_what_to_do() {
    let (place, (_, run)) = (place(), fixed());
    place.put(&Lock::new(LockMode::Exclusive, run.now())).await.unwrap();
    let name = place.store.list(FileKind::Lock).await.unwrap().remove(0).name;
    place.store.put(&Key::new(FileKind::Lock, name), Bytes::from_static(b"torn")).await.unwrap();
    let error = take(&place, LockMode::Shared, &run).await.unwrap_err();
    assert!(matches!(error, RepositoryError::DamagedLock { .. }), "{error}");
    assert!(error.hint().unwrap().contains("restic unlock --remove-all"));
}

#[tokio::test]
async fn a_lock_that_an_earlier_process_left_under_our_number_is_cleared_away() {
    let (place, (_, run)) = (place(), fixed());
    let id = place.put(&Lock::new(LockMode::Exclusive, run.now())).await.unwrap();
    assert!(take(&place, LockMode::Shared, &run).await.is_err(), "it is held");
    held().remove(&id);
    take(&place, LockMode::Shared, &run).await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_young_lock_of_another_machine_is_heeded() {
    let (place, (_, run)) = (place(), fixed());
    place.put(&foreign(29, &run)).await.unwrap();
    let error = take(&place, LockMode::Shared, &run).await.unwrap_err();
    assert!(error.to_string().contains("another-machine"), "{error}");
    assert_eq!(count(&place).await, 1);
}

#[tokio::test]
async fn a_held_lock_is_refreshed_and_never_looks_stale() {
    let (place, (clock, run)) = (place(), fixed());
    let guard = take(&place, LockMode::Exclusive, &run).await.unwrap();
    for _ in 0..12 {
        let before = until(&place, |names| names.len() == 1).await;
        clock.advance(TimeDelta::minutes(5));
        until(&place, |names| names.len() == 1 && names != before).await;
        assert!(take(&place, LockMode::Shared, &run).await.is_err());
    }
    guard.release().await.unwrap();
    assert_eq!(count(&place).await, 0);
}

#[tokio::test]
async fn a_lock_that_somebody_removed_does_not_come_back() {
    let (place, (_, run)) = (place(), fixed());
    let guard = take(&place, LockMode::Shared, &run).await.unwrap();
    // A refresh may come between the look and the deletion: then the one that is there now is removed.
    while place.standing.check().is_ok() {
        for listed in place.store.list(FileKind::Lock).await.unwrap() {
            let key = Key::new(FileKind::Lock, listed.name);
            place.store.delete(&key).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(matches!(place.standing.check(), Err(RepositoryError::LockLost { .. })));
    guard.release().await.unwrap();
    assert_eq!(count(&place).await, 0);
}

#[tokio::test]
async fn a_dropped_lock_is_given_back() {
    let (place, (_, run)) = (place(), fixed());
    drop(take(&place, LockMode::Exclusive, &run).await.unwrap());
    until(&place, <[String]>::is_empty).await;
}

#[test]
fn a_lock_prints_as_restic_reads_it() {
    let lock = Lock {
        time: "2015-06-27T12:18:51.759239612Z".parse().unwrap(),
        exclusive: false,
        hostname: "kasimir".to_owned(),
        username: "fd0".to_owned(),
        pid: 13607,
        uid: 1000,
        gid: 0,
        processes: None,
    };
    let json = serde_json::to_string(&lock).unwrap();
    let expected = r#"{"time":"2015-06-27T12:18:51.759239612Z","exclusive":false,"hostname":"kasimir","username":"fd0","pid":13607,"uid":1000}"#;
    assert_eq!(json, expected);
}
