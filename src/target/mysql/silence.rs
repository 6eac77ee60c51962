//! Tells when a load stands still: a lock, a full disk or a store may be waited for, for hours.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use tokio::time::Instant;

use crate::human;
use crate::target::mysql::Load;
use crate::target::mysql::session::answered;

/// A target takes 64 MiB in seconds, and a chunk is one at a time.
pub(super) const SILENCE_MAX: Duration = Duration::from_mins(1);

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Waits for work. While what `moved` counts stays the same, `tell` is called after each `silence_max` with how long that has been
/// so, until it says that something was told.
pub(super) async fn watched<T, F: Future<Output = bool>>(
    silence_max: Duration,
    moved: impl Fn() -> u64,
    work: impl Future<Output = T>,
    tell: impl Fn(Duration) -> F,
) -> T {
    let mut work = pin!(work);
    let (mut seen, mut since, mut asked, mut is_told) = (moved(), Instant::now(), Instant::now(), false);
    loop {
        let watch = async {
            tokio::time::sleep(LOOK.min(silence_max / 4)).await;
            let now = moved();
            if now != seen {
                (seen, since, asked, is_told) = (now, Instant::now(), Instant::now(), false);
            } else if !is_told && asked.elapsed() >= silence_max {
                asked = Instant::now();
                is_told = tell(since.elapsed()).await;
            }
        };
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = watch => {}
        }
    }
}

/// Warns that no row moves on a connection of the load, with what the target says that it does.
pub(super) async fn of_rows(load: Arc<Load>, table: String, connection: u32, silence: Duration) -> bool {
    let doing = match state(&load, connection).await {
        Some(state) => format!("says `{state}`"),
        None => "does not say what it waits for".to_owned(),
    };
    let silence = human::duration(silence);
    let text = format!("no row of {table} has moved for {silence}: connection {connection} of the target {doing}");
    load.run.events.warn(text);
    true
}

/// Warns where a connection that builds indexes waits for somebody else. Building them takes as long as it takes.
pub(super) async fn of_indexes(load: Arc<Load>, table: String, connection: u32, silence: Duration) -> bool {
    let Some(state) = state(&load, connection).await.filter(|state| waits_for_a_lock(state)) else { return false };
    let silence = human::duration(silence);
    let text = format!(
        "the indexes of {table} are not there after {silence}: connection {connection} of the target says `{state}`"
    );
    load.run.events.warn(text);
    true
}

/// MySQL's `waiting for handler commit` is a session's own work.
fn waits_for_a_lock(state: &str) -> bool {
    let state = state.to_ascii_lowercase();
    state.starts_with("waiting for") && state.contains("lock")
}

/// Asks the target, over another connection, what one of ours is at.
async fn state(load: &Load, connection: u32) -> Option<String> {
    let mut conn = load.opener.open_to_ask().await.ok()?;
    let list = "SELECT state FROM information_schema.processlist WHERE id =";
    let asked = conn.query_first(format!("{list} {connection}"));
    let state: Option<Option<String>> = answered("ask what the target does", asked).await.ok()?.ok()?;
    conn.disconnect().await.ok();
    state.flatten().filter(|state| !state.is_empty())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    const MINUTE: Duration = SILENCE_MAX;

    #[tokio::test(start_paused = true)]
    async fn silence_is_told_once_until_something_moves() {
        let (moved, told, began) = (Cell::new(0), RefCell::new(Vec::new()), Instant::now());
        let work = async {
            tokio::time::sleep(MINUTE / 2).await;
            moved.set(7);
            tokio::time::sleep(MINUTE * 4).await;
            moved.set(14);
            tokio::time::sleep(MINUTE * 2).await;
            "done"
        };
        let tell = |silence: Duration| {
            told.borrow_mut().push((began.elapsed().as_secs(), silence.as_secs()));
            std::future::ready(true)
        };
        assert_eq!(watched(MINUTE, || moved.get(), work, tell).await, "done");
        assert_eq!(*told.borrow(), [(90, 60), (330, 60)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_told_is_asked_for_again_each_minute() {
        let asked = RefCell::new(Vec::new());
        let tell = |silence: Duration| {
            asked.borrow_mut().push(silence.as_secs());
            std::future::ready(silence >= MINUTE * 3)
        };
        watched(MINUTE, || 0, tokio::time::sleep(MINUTE * 7), tell).await;
        assert_eq!(*asked.borrow(), [60, 120, 180]);
    }

    #[test]
    fn an_index_build_waits_for_a_lock_and_not_for_itself() {
        for state in ["Waiting for table metadata lock", "Waiting for backup lock", "waiting for global read lock"] {
            assert!(waits_for_a_lock(state), "{state}");
        }
        for state in ["altering table", "waiting for handler commit", "copy to tmp table", "Unlocking tables"] {
            assert!(!waits_for_a_lock(state), "{state}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_while_it_is_told() {
        watched(MINUTE, || 0, tokio::time::sleep(MINUTE * 3), |_| std::future::pending()).await;
    }
}
