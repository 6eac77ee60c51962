//! The promise of a blob's outcome.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::id::BlobId;
use crate::repository::error::RepositoryError;

/// What became of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedBlob {
    pub id: BlobId,
    /// Whether this call stored it; otherwise it was there, or is on its way.
    pub is_new: bool,
    pub plain: u64,
    /// Bytes as stored; zero unless new.
    pub stored: u64,
}

type Outcome = Result<SavedBlob, RepositoryError>;

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    /// Whether somebody sleeps until it is there: most are asked for when it long is.
    is_awaited: bool,
}

/// A promise of a blob's outcome.
#[derive(Debug)]
pub struct Ticket {
    slot: Arc<Slot>,
}

impl Ticket {
    /// Waits until the blob is sealed, or known to be there. It is durable only after the writer's `finish`.
    ///
    /// # Errors
    /// Whatever broke the writer.
    pub fn wait(self) -> Result<SavedBlob, RepositoryError> {
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = state.outcome.take() {
                return outcome;
            }
            state.is_awaited = true;
            state = self.slot.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The other end of a ticket. Dropped unsettled, it says that the writer was closed.
pub(super) struct Promise {
    slot: Arc<Slot>,
    is_settled: bool,
}

impl Promise {
    pub(super) fn new() -> (Self, Ticket) {
        let slot = Arc::<Slot>::default();
        let ticket = Ticket { slot: Arc::clone(&slot) };
        (Self { slot, is_settled: false }, ticket)
    }

    pub(super) fn settle(mut self, outcome: Outcome) {
        self.fulfil(outcome);
    }

    fn fulfil(&mut self, outcome: Outcome) {
        self.is_settled = true;
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.outcome = Some(outcome);
        let is_awaited = state.is_awaited;
        drop(state);
        if is_awaited {
            self.slot.settled.notify_all();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.is_settled {
            self.fulfil(Err(RepositoryError::refused("blob", "its writer was closed")));
        }
    }
}
