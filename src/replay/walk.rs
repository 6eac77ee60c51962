//! Walks through the transactions of segments, compressed ones as well: what each changes, and which it is.

use std::fs::File;
use std::io::{BufReader, Read as _};

use crate::event::Unit;
use crate::mysql::binlog::{BinlogError, Transaction, Transactions};
use crate::replay::ReplayError;
use crate::replay::bounded::BUFFER_BYTES;
use crate::replay::plan::ReplayPlan;
use crate::replay::segments::Segment;
use crate::run::Run;

impl ReplayPlan {
    /// Shows each transaction that is replayed, with the name of its file. `doing` is what its progress is called. Blocks.
    ///
    /// # Errors
    /// Those of `take`, and [`ReplayError`] where a segment cannot be read.
    pub fn each<E: From<Box<ReplayError>>>(
        &self,
        doing: &str,
        run: &Run,
        take: impl FnMut(Transaction, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        each(&self.feed.segments, self.feed.begin, self.feed.end, doing, run, take)
    }
}

/// Shows each transaction that begins at `from` in the first segment or behind it, and before `until` in the last.
pub(super) fn each<E: From<Box<ReplayError>>>(
    segments: &[Segment],
    from: u64,
    until: u64,
    doing: &str,
    run: &Run,
    mut take: impl FnMut(Transaction, &str) -> Result<(), E>,
) -> Result<(), E> {
    let task = run.events.task(doing, Unit::Bytes, segments.iter().map(|segment| segment.bytes).sum());
    for (nth, segment) in segments.iter().enumerate() {
        let name = || segment.name.clone();
        let damaged = |error: BinlogError| Box::new(ReplayError::Binlog { name: name(), error: Box::new(error) });
        let opened = File::open(&segment.path);
        let file = opened.map_err(|error| Box::new(ReplayError::Open { name: name(), error }))?.take(segment.bytes);
        let from = if nth == 0 { from } else { 0 };
        let until = if nth + 1 == segments.len() { until } else { u64::MAX };
        for transaction in Transactions::new(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(damaged)? {
            run.check().map_err(|stopped| Box::new(stopped.into()))?;
            let transaction = transaction.map_err(damaged)?;
            if transaction.group.begin >= until {
                break;
            }
            if transaction.group.begin >= from {
                take(transaction, &segment.name)?;
            }
        }
        task.add(segment.bytes);
    }
    Ok(())
}
