//! XA transactions, which are prepared at one place of the log and committed or rolled back at another.
//!
//! One that was prepared before a dump and ended behind it cannot be replayed: the dump has not its rows, which nobody had committed,
//! and the binlogs behind the dump have nothing but its end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;

use crate::mysql::binlog::{BinlogError, Ending, Transactions};
use crate::mysql::manifest::Position;
use crate::replay::ReplayError;
use crate::replay::plan::Mark;
use crate::replay::segments::{Segment, reaches};

/// What a walk from a dump on has seen of them.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// The names of those that wait for their end.
    waiting: BTreeSet<String>,
    /// The first whose preparation was not seen, and its end.
    split: Option<(String, Mark)>,
}

impl Prepared {
    /// Takes the next transaction.
    pub(super) fn see(&mut self, xid: Option<String>, is_prepared: bool, mark: &Mark) {
        let Some(xid) = xid else { return };
        if is_prepared {
            self.waiting.insert(xid);
        } else if !self.waiting.remove(&xid) && self.split.is_none() {
            self.split = Some((xid, mark.clone()));
        }
    }

    /// Refuses what is replayed up to `last` where that holds the end of one that was prepared before the dump.
    ///
    /// # Errors
    /// [`ReplayError::Split`], and those of reading the segments again.
    pub(super) fn refuse_split(&self, dump: &Position, segments: &[Segment], last: &Mark) -> Result<(), ReplayError> {
        let comes = |(_, end): &&(String, Mark)| reaches(&last.end, &end.end);
        if self.split.as_ref().filter(comes).is_none() {
            return Ok(());
        }
        // It may have been prepared within a compressed transaction, whose head does not tell.
        let looked = look_inside(dump, segments, last)?;
        let Some((xid, end)) = looked.split.filter(|split| comes(&split)) else { return Ok(()) };
        let Position { file, offset } = end.begin;
        Err(ReplayError::Split { xid, at: format!("{file}:{offset}"), gtid: end.gtid })
    }
}

/// Walks from a dump to a transaction once more, through compressed ones as well.
fn look_inside(dump: &Position, segments: &[Segment], last: &Mark) -> Result<Prepared, ReplayError> {
    let mut prepared = Prepared::default();
    for segment in segments {
        let damaged = |error: BinlogError| ReplayError::Binlog { name: segment.name.clone(), error: Box::new(error) };
        let file = File::open(&segment.path);
        let file = file.map_err(|error| ReplayError::Open { name: segment.name.clone(), error })?;
        for transaction in Transactions::new(BufReader::new(file)).map_err(damaged)? {
            let group = transaction.map_err(damaged)?.group;
            let (xid, is_prepared) = (group.xid.clone(), group.ending == Ending::Prepare);
            let mark = Mark::of(group, &segment.name);
            if reaches(&mark.begin, dump) {
                prepared.see(xid, is_prepared, &mark);
            }
            if mark == *last {
                return Ok(prepared);
            }
        }
    }
    Ok(prepared)
}
