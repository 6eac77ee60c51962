//! XA transactions, which are prepared at one place of the log and committed or rolled back at another.
//!
//! One that was prepared before a dump and ended behind it cannot be replayed: the dump has not its rows, which nobody had committed,
//! and the binlogs behind the dump have nothing but its end.

use std::collections::BTreeSet;

use crate::mysql::binlog::{Ending, Transaction};
use crate::mysql::manifest::Position;
use crate::replay::ReplayError;
use crate::replay::plan::Mark;
use crate::replay::segments::{Segment, reaches};
use crate::replay::walk::each;
use crate::run::Run;

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
    pub(super) fn refuse_split(
        &self,
        dump: &Position,
        segments: &[Segment],
        last: &Mark,
        run: &Run,
    ) -> Result<(), ReplayError> {
        let comes = |(_, end): &&(String, Mark)| reaches(&last.end, &end.end);
        if !self.split.as_ref().is_some_and(|split| comes(&split)) {
            return Ok(());
        }
        // It may have been prepared within a compressed transaction, whose head does not tell.
        let looked = look_inside(dump, segments, last, run)?;
        let Some((xid, end)) = looked.split.filter(|split| comes(&split)) else { return Ok(()) };
        let Position { file, offset } = end.begin;
        Err(ReplayError::Split { xid, at: format!("{file}:{offset}"), gtid: end.gtid })
    }
}

/// Walks from a dump to a transaction once more, through compressed ones as well.
fn look_inside(dump: &Position, segments: &[Segment], last: &Mark, run: &Run) -> Result<Prepared, ReplayError> {
    let mut prepared = Prepared::default();
    let served = segments.iter().position(|segment| segment.name == last.end.file).map_or(0, |at| at + 1);
    let doing = "look for prepared transactions";
    let walked =
        each(&segments[..served], dump.offset, last.end.offset, doing, run, |Transaction { group, .. }, file| {
            let (xid, is_prepared) = (group.xid.clone(), group.ending == Ending::Prepare);
            prepared.see(xid, is_prepared, &Mark::of(group, file));
            Ok::<(), Box<ReplayError>>(())
        });
    walked.map(|()| prepared).map_err(|error| *error)
}
