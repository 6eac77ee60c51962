//! When what came is made durable. A sync costs as much as thousands of small events, and so does to wait for each of them by itself:
//! they come together, unless a commit waits for us.

use std::time::{Duration, Instant};

use crate::mysql::wire::WireError;
use crate::mysql::wire::binlog::BinlogStream;

/// Events that come within so long are made durable together.
pub(super) const SYNC_EVERY: Duration = Duration::from_millis(200);

/// So long they come together in the socket before they are read.
pub(super) const GATHER: Duration = Duration::from_millis(50);

/// Where a commit waits to hear that we have it, it does not wait for more to come than this.
const ACK_EVERY: Duration = Duration::from_millis(5);

pub(super) struct Due {
    /// When the first came of what is not durable yet.
    since: Option<Instant>,
    /// How long a commit waits for more to come beside it.
    pub(super) ack_wait: Duration,
}

impl Due {
    pub(super) fn new() -> Self {
        Self { since: None, ack_wait: ACK_EVERY }
    }

    /// Tells whether what came is to be made durable before more is read. `is_owed`: a commit waits for that.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) fn is_now(&mut self, now: Instant, is_owed: bool, stream: &mut BinlogStream) -> Result<bool, WireError> {
        let wait = if is_owed { self.ack_wait } else { SYNC_EVERY };
        if now.duration_since(*self.since.get_or_insert(now)) >= wait {
            return Ok(true);
        }
        // In the midst of a transaction whose commit will wait, nothing is gathered either.
        Ok(stream.is_drained() && (stream.is_semi_sync() || !stream.gather(GATHER)?))
    }

    /// All that came is durable.
    pub(super) fn settled(&mut self) {
        self.since = None;
    }
}
