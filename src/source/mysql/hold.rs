//! The locks that stay for the dump, each in a session of its own, and the thread that keeps those sessions alive.
//!
//! The server drops them when we say nothing for five minutes, so that a machine that loses its power in the night does not stop
//! the shop's migrations and writers until the morning. While we are there, a word a minute keeps them, and tells at once of a
//! lock that is lost: the dump stops instead of reading on for hours what nobody holds still.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::mysql::wire::Wire;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::lock::free_definitions;
use crate::source::mysql::session::{Capabilities, run_sql};

/// A fifth of what the server waits for.
const WORD_EACH: Duration = Duration::from_mins(1);

/// The sessions that hold locks.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    definitions: Mutex<Option<Wire>>,
    tables: Mutex<Option<Wire>>,
}

impl Holds {
    pub(crate) fn new(definitions: Option<Wire>) -> Self {
        Self { definitions: Mutex::new(definitions), tables: Mutex::new(None) }
    }

    pub(crate) fn has_definitions(&self) -> bool {
        lock(&self.definitions).is_some()
    }

    /// Keeps a session that has locked tables.
    pub(crate) fn take_tables(&self, session: Wire) {
        *lock(&self.tables) = Some(session);
    }

    /// Lets the writers of locked tables go on.
    pub(crate) fn free_tables(&self) -> Result<(), MysqlSourceError> {
        match lock(&self.tables).take() {
            Some(mut session) => run_sql(&mut session, "hold the tables still", "UNLOCK TABLES"),
            None => Ok(()),
        }
    }

    /// Lets definitions change.
    pub(crate) fn free_definitions(&self, capabilities: &Capabilities) -> Result<(), MysqlSourceError> {
        match lock(&self.definitions).take() {
            Some(mut session) => free_definitions(&mut session, capabilities),
            None => Ok(()),
        }
    }

    /// Proves that the locks are held still.
    pub(crate) fn check(&self) -> Result<(), MysqlSourceError> {
        let word = |session: &Mutex<Option<Wire>>, act| match &mut *lock(session) {
            Some(session) => run_sql(session, act, "DO 1"),
            None => Ok(()),
        };
        word(&self.definitions, "hold the definitions still")?;
        word(&self.tables, "hold the tables still")
    }
}

/// Speaks up for the locks from a thread until it is dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    lost: Arc<Mutex<Option<MysqlSourceError>>>,
}

impl Keeper {
    /// Starts the thread. A lock that is lost cancels `dump`.
    pub(crate) fn start(holds: Arc<Holds>, dump: CancellationToken) -> Self {
        Self::with_pace(WORD_EACH, move || holds.check(), dump)
    }

    fn with_pace(
        pace: Duration,
        check: impl Fn() -> Result<(), MysqlSourceError> + Send + 'static,
        dump: CancellationToken,
    ) -> Self {
        let (stop, stopped) = channel();
        let lost = Arc::new(Mutex::new(None));
        let noted = lost.clone();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(pace) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = check() {
                    *lock(&noted) = Some(error);
                    return dump.cancel();
                }
            }
        });
        Self { stop: Some(stop), thread: Some(thread), lost }
    }

    /// Returns how a lock was lost, once.
    pub(crate) fn lost(&self) -> Option<MysqlSourceError> {
        lock(&self.lost).take()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of its own has been printed; there is nobody else to tell.
            let _noted = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_lock_that_is_lost_stops_the_dump_at_the_next_word() {
        let words = Arc::new(AtomicU32::new(0));
        let dump = CancellationToken::new();
        let heard = words.clone();
        let check = move || match heard.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(MysqlSourceError::BrokeOff),
        };
        let mut keeper = Keeper::with_pace(Duration::from_millis(1), check, dump.clone());
        let ended = keeper.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))));
        assert!(dump.is_cancelled() && words.load(Ordering::Relaxed) == 2);
        assert!(matches!(keeper.lost(), Some(MysqlSourceError::BrokeOff)));
    }

    #[test]
    fn a_dump_that_ends_does_not_wait_for_the_next_word() {
        let dump = CancellationToken::new();
        let keeper = Keeper::with_pace(Duration::from_hours(1), || Err(MysqlSourceError::BrokeOff), dump.clone());
        drop(keeper);
        assert!(!dump.is_cancelled());
    }
}
