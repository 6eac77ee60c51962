//! What a server had at a moment: once it has come, all that was committed by then is here.

use chrono::{DateTime, Utc};

use crate::capture::chain::number_of;
use crate::capture::facts::Facts;
use crate::capture::tail::Tail;

/// Where a server's binlog ended when it was asked.
pub(super) struct Goal {
    pub(super) moment: DateTime<Utc>,
    file: String,
    bytes: u64,
}

impl Goal {
    /// The moment is by the earlier of two clocks: ours, and the server's, which dates the transactions.
    pub(super) fn of(facts: &Facts, asked: DateTime<Utc>) -> Option<Self> {
        let (file, bytes) = facts.files.last()?.clone();
        Some(Self { moment: facts.clock.map_or(asked, |clock| clock.min(asked)), file, bytes })
    }

    /// Tells whether a segment is as far as the server was.
    pub(super) fn is_reached(&self, tail: Option<&Tail>) -> bool {
        let Some(tail) = tail else { return false };
        if tail.name() == self.file {
            return tail.scan.bytes >= self.bytes;
        }
        let numbers = number_of(tail.name()).zip(number_of(&self.file));
        numbers.is_some_and(|(own, end)| own.0 == end.0 && own.1 > end.1)
    }
}
