//! One execution of one verb: its id, clock, listener and the signal to stop.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use crate::event::Events;
use crate::id::RunId;

/// What every verb takes along. Cheap to clone.
#[derive(Clone)]
pub struct Run {
    pub id: RunId,
    pub clock: Arc<dyn Clock>,
    pub events: Events,
    /// Cancelled on SIGINT and SIGTERM; whatever waits or loops looks at it and stops at a safe point.
    pub cancel: CancellationToken,
}

/// The run was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped by a signal")]
pub struct Stopped;

impl Run {
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, events: Events) -> Self {
        let mut random = [0; 4];
        // A run id only has to differ from its neighbours; without entropy the second tells them apart.
        let random = getrandom::fill(&mut random).map_or(0, |()| u32::from_le_bytes(random));
        Self { id: RunId::new(clock.now(), random), clock, events, cancel: CancellationToken::new() }
    }

    /// Returns a run on the machine's clock that nobody listens to.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(Arc::new(SystemClock), Events::silent())
    }

    /// Returns a run with an id of its own that hears the same signals.
    #[must_use]
    pub fn renewed(&self) -> Self {
        let fresh = Self::new(self.clock.clone(), self.events.clone());
        Self { cancel: self.cancel.clone(), ..fresh }
    }

    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Refuses to go on once the run was told to stop.
    ///
    /// # Errors
    /// [`Stopped`] after a signal.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.cancel.is_cancelled() { Err(Stopped) } else { Ok(()) }
    }
}
