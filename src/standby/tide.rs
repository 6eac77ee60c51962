//! How far a standby may be served: whole transactions that are durable here, and old enough.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::capture::chain::Segment as Captured;
use crate::mysql::binlog::{Clock, Group, Groups, Header, MAGIC, Step};
use crate::mysql::gtid::{Executed, Gtid, GtidSet, MariaDbGtid};
use crate::mysql::manifest::Position;
use crate::replay::{Bounded, Mark, ReplayError, Segment, head_of};
use crate::standby::StandbyError;
use crate::standby::arrivals::Arrivals;
use crate::standby::way::holds;

/// What is looked through at once, so that a standby far behind is served meanwhile.
const STEP_BYTES_MAX: u64 = 64 << 20;

/// Read at once to find where events end.
const WINDOW_BYTES: usize = 64 * 1024;

/// Where an event's length stands in its header.
const LENGTH: std::ops::Range<usize> = 9..13;

/// A segment on this machine.
#[derive(Debug)]
struct Local {
    segment: Segment,
    file: File,
    /// Its size, once nothing more comes to it.
    closed: Option<u64>,
    /// Up to here it holds whole events, and is durable.
    whole: u64,
}

/// What the standby had applied as this began: a delay that is longer than before takes none of it back.
#[derive(Debug)]
enum Applied {
    MySql(GtidSet),
    /// Of each domain, the last that it has, until that is let through: it has whatever comes before, for numbers may go back.
    MariaDb(BTreeMap<u32, MariaDbGtid>),
}

impl Applied {
    fn new(applied: Executed, before: &Executed) -> Self {
        match applied {
            Executed::MySql(set) => Self::MySql(set),
            Executed::MariaDb(state) => {
                let last = state.position();
                let to_come = last.iter().filter(|last| !before.contains(&Gtid::MariaDb(*last)));
                Self::MariaDb(to_come.map(|last| (last.domain, last)).collect())
            }
        }
    }

    fn has(&self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (Self::MySql(set), Gtid::MySql(gtid)) => set.contains(gtid),
            (Self::MariaDb(last), Gtid::MariaDb(gtid)) => last.contains_key(&gtid.domain),
            _ => false,
        }
    }

    /// Notes that a transaction was let through.
    fn pass(&mut self, gtid: &Gtid) {
        if let (Self::MariaDb(last), Gtid::MariaDb(gtid)) = (self, gtid)
            && last.get(&gtid.domain) == Some(gtid)
        {
            last.remove(&gtid.domain);
        }
    }
}

/// Lets transactions through, in the order of the segments.
#[derive(Debug)]
pub(super) struct Tide {
    delay: Option<Duration>,
    pub(super) arrivals: Arrivals,
    /// What the standby has executed once it has applied all that was let through.
    pub(super) executed: Executed,
    /// The last transaction that was let through.
    pub(super) last: Option<Mark>,
    applied: Applied,
    /// Those that are let through whole, and behind them the one at hand.
    segments: Vec<Local>,
    reader: Option<Bounded>,
    groups: Groups,
    /// The transaction that is too young: what lies behind it waits as well.
    held: Option<Group>,
    /// Everything before it was looked into, in the segment at hand.
    read: u64,
    /// Everything before it may be served.
    end: u64,
}

impl Tide {
    /// Begins with what had been executed before the first segment.
    pub(super) fn new(delay: Duration, arrivals: Arrivals, executed: Executed, applied: Executed) -> Self {
        let delay = Some(delay).filter(|delay| !delay.is_zero());
        let (segments, groups) = (Vec::new(), Groups::default());
        let applied = Applied::new(applied, &executed);
        let (last, reader, held, read, end) = (None, None, None, 0, 0);
        Self { delay, arrivals, executed, last, applied, segments, reader, groups, held, read, end }
    }

    /// Takes the segment that comes next. The one at hand must be [over](Self::is_over).
    pub(super) fn push(&mut self, segment: Segment, closed: Option<u64>) -> Result<(), StandbyError> {
        let file = File::open(&segment.path).map_err(|error| failed("open", &segment, error))?;
        (self.reader, self.groups, self.held) = (None, Groups::default(), None);
        (self.read, self.end) = (0, 0);
        self.segments.push(Local { segment, file, closed, whole: MAGIC.len() as u64 });
        Ok(())
    }

    /// Returns the name of the segment at hand.
    pub(super) fn at_hand(&self) -> Option<&str> {
        self.segments.last().map(|last| last.segment.name.as_str())
    }

    /// Tells whether a segment is here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.segments.iter().any(|local| local.segment.name == name)
    }

    /// Notes that nothing more comes to the segment at hand. Its file must hold all of it: one that the capture has made anew is
    /// another.
    pub(super) fn close(&mut self, bytes: u64) -> Result<(), StandbyError> {
        let Some(last) = self.segments.last_mut() else { return Ok(()) };
        let held = last.file.metadata().map_err(|error| failed("read", &last.segment, error))?.len();
        if held < bytes {
            return Err(StandbyError::NotNext(last.segment.name.clone()));
        }
        last.closed = Some(bytes);
        Ok(())
    }

    /// Drops segments that the standby has applied: all before the first of those that it needs, but the last of them, at whose end a
    /// replica may stand. It may need none that is here. Returns them.
    pub(super) fn drop_applied(&mut self, needed: &[Captured]) -> Vec<Segment> {
        let is_needed = |local: &Local| needed.iter().any(|captured| captured.file == local.segment.name);
        let place = self.segments.iter().position(is_needed).unwrap_or(self.segments.len());
        self.segments.drain(..place.saturating_sub(1)).map(|local| local.segment).collect()
    }

    /// Takes all of it, for a thread of its own, and leaves an empty one.
    pub(super) fn take(&mut self) -> Self {
        let nothing = Executed::new(self.executed.product());
        let empty = Self::new(Duration::ZERO, Arrivals::default(), nothing.clone(), nothing);
        std::mem::replace(self, empty)
    }

    /// Returns what may be served, and where in the last of the segments it ends; `None` before the first has begun.
    pub(super) fn served(&self) -> Option<(Vec<Segment>, Position)> {
        // Of a segment that has just begun, nothing may have been let through yet.
        let count = if self.end == 0 { self.segments.len().checked_sub(1)? } else { self.segments.len() };
        let last = self.segments[..count].last()?;
        let offset = if count == self.segments.len() { self.end } else { last.whole };
        let place = Position { file: last.segment.name.clone(), offset };
        // It may have been pushed before its head was there.
        let whole = |local: &Local| Segment { bytes: local.whole, ..local.segment.clone() };
        Some((self.segments[..count].iter().map(whole).collect(), place))
    }

    /// Tells whether all is let through that the standby had applied. On MariaDB a source that is asked for what comes behind a
    /// transaction must know that one.
    pub(super) fn has_applied(&self) -> bool {
        matches!(&self.applied, Applied::MySql(_)) || matches!(&self.applied, Applied::MariaDb(last) if last.is_empty())
    }

    /// Tells whether all of the segment at hand is let through, and nothing more comes to it.
    pub(super) fn is_over(&self) -> bool {
        self.segments.last().is_none_or(|last| last.closed.is_some_and(|bytes| self.end >= bytes))
    }

    /// Tells whether the next segment may be taken, where so many may lie here.
    pub(super) fn has_room(&self, segments_max: usize) -> bool {
        self.is_over() && self.segments.len() < segments_max
    }

    /// Lets through what has come and is old enough, and returns whether there was something. Blocks.
    pub(super) fn rise(&mut self, now: DateTime<Utc>) -> Result<bool, StandbyError> {
        let began = self.end;
        let Some(local) = self.segments.last_mut() else { return Ok(false) };
        local.settle().map_err(|error| failed("read", &local.segment, error))?;
        let (whole, segment) = (local.whole, local.segment.clone());
        if let Some(held) = self.held.take() {
            self.let_through(&segment.name, held, now);
        }
        if self.held.is_some() || whole == MAGIC.len() as u64 {
            return Ok(self.end > began);
        }
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => Bounded::open(&segment).map_err(ReplayError::from)?,
        };
        let damaged = |error| StandbyError::Segment { name: segment.name.clone(), error };
        let stop_at = whole.min(self.read.saturating_add(STEP_BYTES_MAX));
        while self.read < stop_at {
            let Some(event) = reader.next(whole).map_err(damaged)? else { break };
            self.read = event.end();
            let offset = event.offset;
            let head = head_of(&event).map_err(|malformed| damaged(malformed.at(offset)))?;
            if head.is_some_and(|before| !holds(&self.executed, &before)) {
                return Err(StandbyError::NotNext(segment.name.clone()));
            }
            let step = self.groups.push(&event).map_err(|malformed| damaged(malformed.at(offset)))?;
            reader.finish().map_err(damaged)?;
            match step {
                Step::End(group) => {
                    self.let_through(&segment.name, group, now);
                    if self.held.is_some() {
                        break;
                    }
                }
                Step::Outside if self.groups.open().is_none() => self.end = self.read,
                Step::Outside | Step::Within => {}
            }
        }
        // A server that broke down has left a transaction without its end: nothing more comes to it, and replicas know that.
        let is_read = self.segments.last().is_some_and(|last| last.closed.is_some_and(|bytes| self.read >= bytes));
        if is_read && self.held.is_none() {
            self.end = self.read;
        }
        self.reader = Some(reader);
        Ok(self.end > began)
    }

    /// Lets a transaction through, or holds it.
    fn let_through(&mut self, file: &str, group: Group, now: DateTime<Utc>) {
        let place = Position { file: file.to_owned(), offset: group.end };
        let is_applied = group.gtid.as_ref().is_some_and(|gtid| self.applied.has(gtid));
        if is_applied || is_old_enough(self.delay, &group, self.arrivals.of(&place), now) {
            self.end = group.end;
            if let Some(gtid) = &group.gtid {
                self.executed.add(gtid);
                self.applied.pass(gtid);
            }
            self.last = Some(Mark::of(group, file));
        } else {
            self.held = Some(group);
        }
    }
}

impl Local {
    /// Finds how far the file holds whole events, and makes that durable before anybody is sent it: of what a crash takes back here
    /// the standby must know nothing.
    fn settle(&mut self) -> io::Result<()> {
        let length = self.closed.map_or_else(|| self.file.metadata().map(|metadata| metadata.len()), Ok)?;
        let whole = whole_end(&self.file, self.whole, length)?;
        if whole > self.whole {
            self.file.sync_data()?;
            self.whole = whole;
        }
        Ok(())
    }
}

/// Returns where the last event ends that the first `length` bytes of a file hold whole.
pub(super) fn whole_end(file: &File, from: u64, length: u64) -> io::Result<u64> {
    let header = Header::BYTES as u64;
    let (mut at, mut window, mut start, mut filled) = (from, vec![0; WINDOW_BYTES], from, 0);
    while at + header <= length {
        if at + header > start + filled {
            (start, filled) = (at, file.read_at(&mut window, at)? as u64);
            if filled < header {
                break;
            }
        }
        let head = &window[usize::try_from(at - start).unwrap_or(usize::MAX)..];
        let bytes = head[LENGTH].try_into().map_or(0, u32::from_le_bytes);
        // What a crash left of a file may be zeros.
        if u64::from(bytes) < header || at + u64::from(bytes) > length {
            break;
        }
        at += u64::from(bytes);
    }
    Ok(at)
}

/// Tells whether a transaction is so old that it may go to the standby: by the source's clock at its commit, where the binlog has
/// that, and else by when it came here, which no session can set.
fn is_old_enough(delay: Option<Duration>, group: &Group, arrived: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    let Some(delay) = delay else { return true };
    let since = match group.clock {
        Clock::Server => Some(group.committed),
        Clock::Session => arrived,
    };
    let delay = TimeDelta::from_std(delay).unwrap_or(TimeDelta::MAX);
    since.is_some_and(|since| now.signed_duration_since(since) >= delay)
}

fn failed(act: &'static str, segment: &Segment, error: io::Error) -> StandbyError {
    StandbyError::Io { act, path: segment.path.clone(), error }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
