//! How a target is stopped: it ends what it is applying first, which may wait for a stranger's lock for ever. We do not.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::time::{sleep, timeout};

use crate::mysql::sql;
use crate::replay::ReplayError;
use crate::replay::channel;
use crate::replay::target::Target;

/// Behind a large transaction a target may go on for a while; one that goes on for longer is waiting itself, or has hours to go.
pub(super) const STOP_MAX: Duration = Duration::from_mins(1);

/// Whoever is told to end is killed before long.
pub(super) const STOP_AT_END_MAX: Duration = Duration::from_secs(10);

/// How often is looked whether a stop that was given up is over.
const POLL: Duration = Duration::from_millis(500);

/// What is asked of a target beside one that hangs is answered at once, or not at all.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What the threads of a replica say while they have nothing to do or wait for each other.
const IDLE: [&str; 9] = [
    "waiting for an event from coordinator",
    "waiting for work from",
    "waiting for source to send",
    "waiting for master to send",
    "has read all relay log",
    "waiting for preceding",
    "waiting for prior transaction",
    "waiting for dependent",
    "killing slave",
];

impl Target {
    /// Stops our channel, where there is one, and waits so long for what it is applying. The target goes on to stop after that.
    pub(super) async fn stop_within(&self, longest: Duration) -> Result<(), ReplayError> {
        // On a connection of its own: one that waits for the stop holds whatever it has until that is over, the lock as well.
        let mut conn = self.connect().await?;
        let stop = channel::stop(self.product);
        let stopped = timeout(longest, async {
            // One that was given up goes on there, and each more would take one of the server's connections for as long.
            while is_under_way(&mut conn, &stop).await? {
                sleep(POLL).await;
            }
            conn.query_drop(&stop).await
        })
        .await;
        let Ok(stopped) = stopped else { return Err(self.still_at(longest).await) };
        conn.disconnect().await.ok();
        match stopped {
            Err(mysql_async::Error::Server(error)) if channel::is_absent(error.code) => Ok(()),
            done => done.map_err(ReplayError::at("stop the replay on the target")),
        }
    }

    /// Says what keeps the target from stopping.
    async fn still_at(&self, longest: Duration) -> ReplayError {
        let asked = timeout(LOOK_MAX, async {
            let mut conn = self.connect().await.ok()?;
            let threads =
                "SELECT id, COALESCE(state, ''), time FROM information_schema.processlist WHERE user = 'system user'";
            let rows: Vec<Row> = conn.query(threads).await.ok()?;
            conn.disconnect().await.ok();
            let threads = rows.into_iter().filter_map(|row| mysql_async::from_row_opt::<Thread>(row).ok());
            busiest(threads.collect())
        });
        let awaited = asked.await.ok().flatten();
        ReplayError::StillApplying { longest, awaited: awaited.unwrap_or_else(|| "a transaction".to_owned()) }
    }
}

/// Tells whether another connection waits for the same.
async fn is_under_way(conn: &mut Conn, stop: &str) -> mysql_async::Result<bool> {
    let asked = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info = {} AND id <> CONNECTION_ID()",
        sql::string(stop)
    );
    Ok(conn.query_first::<u64, _>(asked).await?.is_some_and(|count| count > 0))
}

/// Its number, its state, and for how many seconds it is in that.
type Thread = (u64, String, i64);

/// Names the thread that the others wait for: who waits for a lock comes first, and then who is longest at what it does.
fn busiest(threads: Vec<Thread>) -> Option<String> {
    let is_idle = |state: &str| {
        let state = state.to_ascii_lowercase();
        state.is_empty() || IDLE.iter().any(|idle| state.contains(idle))
    };
    let busy = threads.into_iter().filter(|(_, state, _)| !is_idle(state));
    let (id, state, seconds) = busy.max_by_key(|(_, state, seconds)| (state.contains("lock"), *seconds))?;
    Some(format!("its thread {id}, which is at \"{state}\" since {} s", seconds.max(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_lock_keeps_all_others_from_stopping() {
        let thread = |id, state: &str, seconds| (id, state.to_owned(), seconds);
        let mut threads = vec![
            thread(5, "Waiting for an event from Coordinator", 900),
            thread(6, "Waiting for preceding transaction to commit", 90),
            thread(7, "altering table", 80),
            thread(8, "Waiting for table metadata lock", 70),
            thread(9, "Waiting for master to send event", 999),
            thread(10, "", 999),
        ];
        let lock = "its thread 8, which is at \"Waiting for table metadata lock\" since 70 s";
        assert_eq!(busiest(threads.clone()).as_deref(), Some(lock));
        threads.remove(3);
        assert!(busiest(threads.clone()).is_some_and(|told| told.contains("altering table")));
        threads.remove(2);
        assert_eq!(busiest(threads), None);
    }
}
