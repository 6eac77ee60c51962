//! The way from a dump to a recovery point: which binlogs, from where to where, and what that brings.

mod joined;
mod known;
mod prepared;
mod start;
mod varying;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::Unit;
use crate::mysql::binlog::{
    Clock, Ending, Event, Group, Groups, Kind, Malformed, Step, mariadb_gtid_list, previous_gtids,
};
use crate::mysql::gtid::{Executed, Gtid};
use crate::mysql::manifest::{Position, Product};
use crate::replay::ReplayError;
use crate::replay::choose::{Chooser, Chosen};
use crate::replay::feed::{Feed, FeedError};
use crate::replay::filter::Filter;
use crate::replay::plan::prepared::Prepared;
use crate::replay::plan::varying::Definitions;
use crate::replay::point::Point;
use crate::replay::segments::{self, Segment, reaches};
use crate::replay::way::Way;
use crate::run::Run;

pub use start::Start;
pub use varying::Varying;

/// A transaction, as far as a plan tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// `None` where its server has no GTIDs.
    pub gtid: Option<Gtid>,
    /// When it was committed.
    pub time: DateTime<Utc>,
    /// By which clock.
    pub clock: Clock,
    pub begin: Position,
    pub end: Position,
}

impl Mark {
    pub(crate) fn of(group: Group, file: &str) -> Self {
        let place = |offset| Position { file: file.to_owned(), offset };
        let Group { gtid, committed, clock, begin, end, .. } = group;
        Self { gtid, time: committed, clock, begin: place(begin), end: place(end) }
    }
}

/// What is replayed.
#[derive(Debug, Clone)]
pub struct ReplayPlan {
    pub feed: Feed,
    pub begin: Position,
    pub end: Position,
    pub transactions: u64,
    /// Of the binlogs that are served.
    pub bytes: u64,
    pub last: Option<Mark>,
    pub first_excluded: Option<Mark>,
    /// Transactions that come although their commit time is later than the point's.
    pub later: u64,
    /// Every transaction has a GTID: the target goes by those, and not by file and position.
    pub has_gtids: bool,
    /// What the target will have executed, the dump included.
    pub executed: Executed,
    /// What the binlogs are known to hold, and what came before them, whatever the point: the rest is a target's own.
    pub known: Executed,
    /// What it has executed once the dump is loaded, in the words of its product.
    pub dumped: String,
    /// The servers that wrote the transactions: a replica leaves out what bears its own number.
    pub server_ids: BTreeSet<u32>,
    /// The version that wrote the first binlog.
    pub version: String,
    /// The binlogs end before the point, or at a gap before it, and the operator takes that.
    pub falls_short: bool,
    /// Transactions that may leave rows with other values than the source has, the first hundred.
    pub varying: Vec<Varying>,
    pub filter: Filter,
    pub way: Way,
    /// Why it is not the usual one.
    pub way_why: Option<String>,
    /// The target's events go on meanwhile: nobody may stop them.
    pub events_fire: bool,
}

impl ReplayPlan {
    /// Reads the segments from a dump's position on until the point is found. Blocks.
    ///
    /// # Errors
    /// [`ReplayError`] where a segment is damaged or not of the dump's server, or the point is not in them. With `falls_short` they
    /// may end before a time or a place.
    pub fn new(
        start: &Start,
        segments: &segments::Run,
        point: &Point,
        falls_short: bool,
        run: &Run,
    ) -> Result<Self, ReplayError> {
        let bytes = segments.segments.iter().map(|segment| segment.bytes).sum();
        let task = run.events.task("read the binlogs", Unit::Bytes, bytes);
        let mut search = Search::new(start, point)?;
        for (nth, segment) in segments.segments.iter().enumerate() {
            run.check()?;
            search.segment(segment, nth == 0)?;
            task.add(segment.bytes);
            if search.is_over() {
                break;
            }
        }
        search.finish(segments, falls_short, run)
    }
}

/// A walk through segments.
struct Search<'a> {
    start: &'a Start,
    point: &'a Point,
    chooser: Chooser<'a>,
    /// What the server had executed at the event at hand, as far as the segments tell.
    running: Option<Executed>,
    dumped: String,
    has_names: bool,
    has_nameless: bool,
    server_ids: BTreeSet<u32>,
    version: String,
    is_at_dump: bool,
    /// The last transaction that was read.
    last: Option<Mark>,
    /// The file at hand and how far it is whole.
    end: Position,
    /// It ends within an event or a transaction.
    is_torn: bool,
    /// Its server ended it: nothing more was to come.
    is_closed: bool,
    gap: Option<ReplayError>,
    prepared: Prepared,
    definitions: Definitions,
}

impl<'a> Search<'a> {
    fn new(start: &'a Start, point: &'a Point) -> Result<Self, ReplayError> {
        let dumped = start.gtid.clone().unwrap_or_default();
        Ok(Self {
            start,
            point,
            chooser: Chooser::new(point, Executed::parse(start.product, &dumped)?),
            running: None,
            dumped,
            has_names: false,
            has_nameless: false,
            server_ids: BTreeSet::new(),
            version: String::new(),
            is_at_dump: false,
            last: None,
            end: start.position.clone(),
            is_torn: false,
            is_closed: true,
            gap: None,
            prepared: Prepared::default(),
            definitions: Definitions::default(),
        })
    }

    fn is_over(&self) -> bool {
        self.gap.is_some() || self.chooser.is_over()
    }

    fn segment(&mut self, segment: &Segment, is_first: bool) -> Result<(), ReplayError> {
        let damaged = |error| ReplayError::Binlog { name: segment.name.clone(), error: Box::new(error) };
        let mut reader = Feed::open(segment).map_err(ReplayError::from)?;
        let mut groups = Groups::default();
        let before = std::mem::replace(&mut self.end.file, segment.name.clone());
        // GTIDs tell at the next file's head whether anything is lost with it; where there are none, only its own end does.
        if (self.is_torn || !self.is_closed) && self.is_nameless() {
            self.gap = Some(ReplayError::Gap { after: before, before: segment.name.clone(), missing: None });
            return Ok(());
        }
        while let Some(event) = reader.next().map_err(damaged)? {
            if let Some(state) = head_of(&event).map_err(|malformed| damaged(malformed.at(event.offset)))? {
                self.join(state, &before, segment)?;
            }
            if self.is_over() {
                return Ok(());
            }
            if !is_head(event.header.kind)
                && let Some(place) = self.leap(segment, event.offset)?
            {
                reader.leap_to(place).map_err(damaged)?;
                continue;
            }
            if !is_head(event.header.kind) {
                self.reach(segment, event.offset)?;
                self.server_ids.insert(event.header.server_id);
            }
            let (offset, end) = (event.offset, event.end());
            self.is_closed = matches!(event.header.kind, Kind::ROTATE | Kind::STOP);
            let step = groups.push(&event).map_err(|malformed| damaged(malformed.at(offset)))?;
            self.definitions.see(&event).map_err(|malformed| damaged(malformed.at(offset)))?;
            reader.finish().map_err(damaged)?;
            if self.version.is_empty() {
                self.version = reader.format().map(|format| format.server_version.clone()).unwrap_or_default();
            }
            if reader.torn().is_some() {
                break;
            }
            if let Step::End(group) = step {
                self.transaction(group, &segment.name, is_first);
            }
            self.end.offset = end;
        }
        self.is_torn = reader.torn().is_some() || groups.open().is_some();
        self.reach(segment, reader.offset())?;
        if !self.is_at_dump {
            return Err(other_server(segment, format!("it ends at {} already", reader.offset())));
        }
        Ok(())
    }

    /// Tells whether no transaction so far bears a GTID, before the dump or behind it.
    fn is_nameless(&self) -> bool {
        !self.has_names && self.running.as_ref().is_none_or(Executed::is_empty)
    }

    /// Returns where to go on where what lies before that was read and proved already. The head of its file must agree.
    fn leap(&mut self, segment: &Segment, offset: u64) -> Result<Option<u64>, ReplayError> {
        let (Some(reached), wanted) = (&self.start.reached, self.start.position.offset) else { return Ok(None) };
        if self.is_at_dump {
            return Ok(None);
        }
        if self.running.as_ref().is_none_or(|listed| !listed.is_subset(reached)) {
            return Err(other_server(segment, format!("its head lists more than had been executed at {wanted}")));
        }
        if segment.bytes < wanted {
            return Err(other_server(segment, format!("it ends at {} already", segment.bytes)));
        }
        (self.is_at_dump, self.running) = (true, Some(reached.clone()));
        Ok((offset < wanted).then_some(wanted))
    }

    /// Sets what the head of a file says beside what came before: it says more where transactions are in neither, and less where
    /// another server wrote the file, or this one after it lost some.
    fn join(&mut self, state: Executed, before: &str, segment: &Segment) -> Result<(), ReplayError> {
        if let Some(running) = &self.running {
            if !state.is_subset(running) {
                let missing = Some(missing(&state, running));
                self.gap = Some(ReplayError::Gap { after: before.to_owned(), before: segment.name.clone(), missing });
            } else if !knows(&state, running) {
                return Err(other_server(segment, format!("its head does not list all that `{before}` holds")));
            }
        }
        self.running = Some(state);
        Ok(())
    }

    /// Proves, where the dump's position is reached, that these are the binlogs that it was taken beside.
    fn reach(&mut self, segment: &Segment, offset: u64) -> Result<(), ReplayError> {
        let wanted = self.start.position.offset;
        if self.is_at_dump || offset < wanted {
            return Ok(());
        }
        self.is_at_dump = true;
        if offset != wanted {
            return Err(other_server(segment, format!("no event of it begins at {wanted}")));
        }
        let is_same = match (&self.running, Executed::parse(self.start.product, &self.dumped)?) {
            (Some(Executed::MySql(running)), Executed::MySql(dumped)) => running.is_subset(&dumped),
            (Some(Executed::MariaDb(running)), Executed::MariaDb(dumped)) => {
                dumped.is_empty() || running.position() == dumped.position()
            }
            _ => true,
        };
        if is_same { Ok(()) } else { Err(other_server(segment, format!("at {wanted} it has other transactions"))) }
    }

    fn transaction(&mut self, group: Group, file: &str, is_first: bool) {
        let (xid, is_prepared) = (group.xid.clone(), group.ending == Ending::Prepare);
        let mark = Mark::of(group, file);
        let is_before = is_first && mark.begin.offset < self.start.position.offset;
        self.definitions.end((!is_before).then_some(&mark));
        if let (Some(running), Some(gtid)) = (&mut self.running, &mark.gtid) {
            running.add(gtid);
        }
        if is_before {
            return;
        }
        self.has_names |= mark.gtid.is_some();
        self.has_nameless |= mark.gtid.is_none();
        self.prepared.see(xid, is_prepared, &mark);
        self.chooser.see(&mark);
        self.last = Some(mark);
    }

    fn finish(self, segments: &segments::Run, falls_short: bool, run: &Run) -> Result<ReplayPlan, ReplayError> {
        let is_over = self.chooser.is_over();
        let (chosen, is_found) = self.chooser.finish();
        // A gap behind the point was not reached.
        let gap = self.gap.filter(|_| !is_over).or_else(|| {
            let (after, before) = segments.gap.clone().filter(|_| !is_over)?;
            Some(ReplayError::Gap { after, before, missing: None })
        });
        let is_by_session = self.last.as_ref().is_some_and(|last| last.clock == Clock::Session);
        let is_met = match self.point {
            Point::Position(place) => is_found || reaches(&self.end, place),
            // The session's time of the last transaction before a gap does not prove that none behind it is earlier.
            Point::At(_) if gap.is_some() => is_found && (is_over || !is_by_session),
            Point::At(time) => is_found || segments.as_of.is_some_and(|as_of| *time <= as_of),
            _ => is_found,
        };
        let is_cut = !is_met || (*self.point == Point::Latest && gap.is_some());
        match self.point {
            Point::Gtid(_) | Point::Before(_) if !is_met => {
                return Err(gap.unwrap_or(ReplayError::NoSuchTransaction { point: self.point.to_string() }));
            }
            _ if is_cut && !falls_short => {
                let end = self.last.as_ref().map(|mark| mark.time);
                let last = format!("{}:{}", self.end.file, self.end.offset);
                return Err(gap.unwrap_or(ReplayError::Beyond { point: self.point.to_string(), end, last }));
            }
            Point::Position(place) => boundary(place, &self.start.position, &chosen, self.point)?,
            _ => {}
        }
        if let Some(last) = chosen.last.as_ref().filter(|_| !self.start.has_prepared) {
            self.prepared.refuse_split(&self.start.position, &segments.segments, last, run)?;
        }
        let begin = self.start.position.clone();
        let end = chosen.last.as_ref().map_or_else(|| begin.clone(), |mark| mark.end.clone());
        let served = segments.segments.iter().position(|segment| segment.name == end.file).map_or(0, |last| last + 1);
        let segments = segments.segments[..served].to_vec();
        let bytes = bytes(&segments, begin.offset, end.offset);
        let dumped = (self.start.product == Product::MariaDb).then(|| self.dumped.parse()).transpose()?;
        Ok(ReplayPlan {
            feed: Feed { product: self.start.product, segments, begin: begin.offset, end: end.offset, dumped },
            begin,
            end,
            bytes,
            transactions: chosen.transactions,
            varying: self.definitions.up_to(chosen.last.as_ref()),
            last: chosen.last,
            first_excluded: chosen.first_excluded,
            later: chosen.later,
            has_gtids: self.has_names && !self.has_nameless,
            known: self.running.unwrap_or_else(|| chosen.executed.clone()),
            executed: chosen.executed,
            dumped: self.dumped,
            server_ids: self.server_ids,
            version: self.version,
            falls_short: is_cut,
            filter: Filter::Everything,
            way: Way::Replica,
            way_why: None,
            events_fire: false,
        })
    }
}

/// Refuses a place that lies before the dump or within a transaction.
fn boundary(place: &Position, begin: &Position, chosen: &Chosen, point: &Point) -> Result<(), ReplayError> {
    let is_early = !reaches(place, begin);
    let is_within = |mark: &Mark| mark.begin.file == place.file && mark.begin.offset < place.offset;
    if is_early || chosen.first_excluded.as_ref().is_some_and(is_within) {
        return Err(ReplayError::NoBoundary { point: point.to_string() });
    }
    Ok(())
}

/// Returns how many bytes of the segments lie between an offset in the first and one in the last.
fn bytes(segments: &[Segment], begin: u64, end: u64) -> u64 {
    let Some((_, others)) = segments.split_last() else { return 0 };
    let whole: u64 = others.iter().map(|segment| segment.bytes).sum();
    (whole + end).saturating_sub(begin)
}

/// Returns what the head of a file says that its server had executed, from the event that says it.
pub(crate) fn head_of(event: &Event<'_>) -> Result<Option<Executed>, Malformed> {
    match event.header.kind {
        Kind::PREVIOUS_GTIDS => previous_gtids(event.body()).map(|set| Some(Executed::MySql(set))),
        Kind::MARIADB_GTID_LIST => mariadb_gtid_list(event.body()).map(|state| Some(Executed::MariaDb(state))),
        _ => Ok(None),
    }
}

/// Tells whether events of a kind stand at the head of every file.
pub(super) fn is_head(kind: Kind) -> bool {
    matches!(kind, Kind::FORMAT_DESCRIPTION | Kind::PREVIOUS_GTIDS | Kind::MARIADB_GTID_LIST)
}

/// Tells whether the head of a file lists all that was read before it. A MariaDB may have been told to forget whole domains.
fn knows(state: &Executed, running: &Executed) -> bool {
    match (state, running) {
        (Executed::MariaDb(state), Executed::MariaDb(running)) => {
            let is_kept = |domain: u32| state.iter().any(|gtid| gtid.domain == domain);
            running.iter().all(|gtid| state.contains(gtid) || !is_kept(gtid.domain))
        }
        _ => running.is_subset(state),
    }
}

fn missing(state: &Executed, running: &Executed) -> String {
    match (state, running) {
        (Executed::MySql(state), Executed::MySql(running)) => state.subtract(running).to_string(),
        (Executed::MariaDb(state), _) => {
            let mut missing = BTreeSet::new();
            missing.extend(
                state.iter().filter(|gtid| !running.contains(&Gtid::MariaDb(*gtid))).map(|gtid| gtid.to_string()),
            );
            format!("those up to {}", missing.into_iter().collect::<Vec<_>>().join(", "))
        }
        (state, _) => state.to_string(),
    }
}

fn other_server(segment: &Segment, why: String) -> ReplayError {
    ReplayError::OtherServer { name: segment.name.clone(), why }
}

impl From<FeedError> for ReplayError {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Open { name, error } => Self::Open { name, error },
            FeedError::Read { name, error } => Self::Binlog { name, error: Box::new(error) },
            error => Self::Served(crate::human::chain(&error)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
