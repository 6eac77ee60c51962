//! From the segments of a plan to its script: which transactions the target lacks, and every event of those.

use std::collections::BTreeSet;

use crate::event::Unit;
use crate::mysql::binlog::{
    BinlogError, Event, Groups, GtidEvent, Kind, Query, SegmentReader, Step, TableName, Verb, statement,
};
use crate::mysql::gtid::Gtid;
use crate::mysql::manifest::Position;
use crate::replay::ReplayError;
use crate::replay::feed::{Feed, Skip};
use crate::replay::fitness::unfit;
use crate::replay::plan::ReplayPlan;
use crate::replay::segments::{Segment, reaches};
use crate::replay::session::dialect::Dialect;
use crate::replay::session::parcel::Parcel;
use crate::replay::session::script::Script;
use crate::run::Run;

/// What of a plan a target has.
#[derive(Debug)]
pub(super) enum Have {
    /// Everything before a place.
    Before(Position),
    /// Transactions of these names.
    Named(Skip),
}

impl Have {
    fn has(&mut self, gtid: Option<&Gtid>, begin: &Position) -> bool {
        match self {
            Self::Before(place) => place != begin && reaches(place, begin),
            Self::Named(skip) => gtid.is_some_and(|gtid| skip.has(gtid)),
        }
    }
}

/// Temporary tables that are there where the target goes on: a new session has none of them.
#[derive(Debug, Default)]
struct Temporary(BTreeSet<(u32, TableName)>);

impl Temporary {
    /// Looks at a statement that the target has.
    fn see(&mut self, event: &Event<'_>) {
        let thread = event.body().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let Ok(Some(query)) = Query::parse(event) else { return };
        let reading = statement::read(&query.text, &query.schema);
        if reading.verbs.contains(&Verb::Drop) {
            for name in reading.temporary.into_iter().chain(reading.tables) {
                self.0.remove(&(thread, name));
            }
        } else if reading.verbs.contains(&Verb::Create) {
            self.0.extend(reading.temporary.into_iter().map(|name| (thread, name)));
        }
    }

    fn refuse(&self) -> Result<(), Box<ReplayError>> {
        let Some((_, name)) = self.0.first() else { return Ok(()) };
        Err(Box::new(unfit(
            format!(
                "was interrupted while the temporary table {} was in use, which has gone with its session",
                crate::mysql::sql::qualified(&name.schema, &name.table)
            ),
            "drop what was restored and the schema `bkp_restore`, and restore anew",
        )))
    }
}

/// What stops a walk.
enum Fault {
    Binlog(BinlogError),
    Replay(Box<ReplayError>),
}

impl From<BinlogError> for Fault {
    fn from(error: BinlogError) -> Self {
        Self::Binlog(error)
    }
}

impl From<Box<ReplayError>> for Fault {
    fn from(error: Box<ReplayError>) -> Self {
        Self::Replay(error)
    }
}

/// Writes the script of what a target lacks of a plan. `doing` is what its progress is called, if it is shown. Blocks.
///
/// # Errors
/// Those of `out`, a segment that cannot be read, and a transaction that no session can bring.
pub(super) fn write(
    plan: &ReplayPlan,
    have: Have,
    dialect: &Dialect,
    doing: Option<&str>,
    run: &Run,
    out: &mut dyn FnMut(Parcel) -> Result<(), Box<ReplayError>>,
) -> Result<(), Box<ReplayError>> {
    let Feed { segments, begin, end, .. } = &plan.feed;
    let task = doing.map(|doing| run.events.task(doing, Unit::Bytes, segments.iter().map(|one| one.bytes).sum()));
    let place = match &have {
        Have::Before(place) => place.clone(),
        Have::Named(_) => plan.begin.clone(),
    };
    let bytes_max = u32::try_from(dialect.text_bytes_max).unwrap_or(u32::MAX);
    let script = Script::new(dialect, place, out);
    let (goes_by_names, has_begun) = (dialect.goes_by_names(), false);
    let mut walk = Walk { have, script, temporary: Temporary::default(), bytes_max, goes_by_names, has_begun, run };
    for (nth, segment) in segments.iter().enumerate() {
        let from = if nth == 0 { *begin } else { 0 };
        let until = if nth + 1 == segments.len() { *end } else { u64::MAX };
        let walked = walk.segment(segment, from, until);
        walked.map_err(|fault| match fault {
            Fault::Replay(error) => error,
            Fault::Binlog(error) => {
                Box::new(ReplayError::Binlog { name: segment.name.clone(), error: Box::new(error) })
            }
        })?;
        if let Some(task) = &task {
            task.add(segment.bytes);
        }
    }
    walk.script.finish()
}

struct Walk<'a> {
    have: Have,
    script: Script<'a>,
    temporary: Temporary,
    bytes_max: u32,
    goes_by_names: bool,
    has_begun: bool,
    run: &'a Run,
}

impl Walk<'_> {
    fn segment(&mut self, segment: &Segment, from: u64, until: u64) -> Result<(), Fault> {
        let mut reader = Feed::open(segment).map_err(|error| Box::new(ReplayError::from(error)))?;
        self.events(&mut reader, &segment.name, from, until)
    }

    /// Takes what begins in a file from one place on, and before another.
    fn events<R: std::io::Read>(
        &mut self,
        reader: &mut SegmentReader<R>,
        file: &str,
        from: u64,
        until: u64,
    ) -> Result<(), Fault> {
        let mut groups = Groups::default();
        let mut is_wanted = false;
        while let Some(event) = reader.next()?.filter(|event| event.offset < until) {
            let offset = event.offset;
            let place = |offset| Position { file: file.to_owned(), offset };
            if event.header.kind == Kind::FORMAT_DESCRIPTION {
                self.script.format(&event)?;
            }
            let is_first = groups.open().is_none();
            let step = groups.push(&event).map_err(|malformed| malformed.at(offset))?;
            if step == Step::Outside {
                continue;
            }
            if is_first {
                self.run.check().map_err(|stopped| Box::new(ReplayError::from(stopped)))?;
                let named = GtidEvent::parse(&event).map_err(|malformed| malformed.at(offset))?;
                let gtid = named.and_then(|named| named.gtid);
                is_wanted = offset >= from && !self.have.has(gtid.as_ref(), &place(offset));
                self.in_order(is_wanted || offset < from)?;
                if is_wanted {
                    self.temporary.refuse()?;
                    self.has_begun = true;
                    self.script.begin(&event, gtid, place(offset))?;
                }
            }
            if !is_wanted {
                if offset >= from {
                    self.temporary.see(&event);
                }
                continue;
            }
            let (kind, end) = (event.header.kind, place(event.end()));
            self.event(reader, kind, &end)?;
            if let Step::End(_) = step {
                self.script.end(&end)?;
            }
        }
        Ok(())
    }

    /// Refuses a target that has what comes behind something that it lacks: the place where it goes on would not tell.
    fn in_order(&mut self, is_wanted: bool) -> Result<(), Fault> {
        if is_wanted || self.goes_by_names || !self.has_begun {
            return Ok(());
        }
        let why = "has some of what comes behind a transaction that it lacks, in another domain";
        Err(Fault::Replay(Box::new(unfit(why, "leave it to replication: `--replay-by replica`"))))
    }

    fn event<R: std::io::Read>(
        &mut self,
        reader: &mut SegmentReader<R>,
        kind: Kind,
        end: &Position,
    ) -> Result<(), Fault> {
        let Self { script, bytes_max, .. } = self;
        let told = if kind == Kind::TRANSACTION_PAYLOAD {
            reader.unpack(*bytes_max, |event| script.event(event, end).map_err(Fault::Replay))
        } else {
            match reader.read_whole(*bytes_max) {
                Ok(Some(event)) => script.event(&event, end).map_err(Fault::Replay),
                Ok(None) => Ok(()),
                Err(error) => Err(Fault::Binlog(error)),
            }
        };
        told.map_err(|fault| match fault {
            Fault::Binlog(BinlogError::TooLarge { bytes, .. }) => Fault::Replay(script.too_long(bytes)),
            fault => fault,
        })
    }
}

/// Writes the script of all that a file holds, as far as it can be read, for the fuzz target.
#[cfg(any(test, fuzzing))]
pub(super) fn write_file(file: &[u8], dialect: &Dialect, out: &mut dyn FnMut(Parcel) -> Result<(), Box<ReplayError>>) {
    let Ok(mut reader) = SegmentReader::new(file) else { return };
    let place = Position { file: "b.000001".to_owned(), offset: 0 };
    let (have, script) = (Have::Before(place.clone()), Script::new(dialect, place, out));
    let (temporary, run) = (Temporary::default(), Run::silent());
    let (bytes_max, goes_by_names) = (u32::MAX, dialect.goes_by_names());
    let mut walk = Walk { have, script, temporary, bytes_max, goes_by_names, has_begun: false, run: &run };
    let is_whole = walk.events(&mut reader, "b.000001", 0, u64::MAX).is_ok();
    let _finished = is_whole && walk.script.finish().is_ok();
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_lies_before_a_place_is_there_and_what_begins_at_it_is_not() {
        let at = |file: &str, offset| Position { file: file.to_owned(), offset };
        let mut have = Have::Before(at("b.000002", 900));
        assert!(have.has(None, &at("b.000002", 899)) && have.has(None, &at("b.000001", 5000)));
        assert!(!have.has(None, &at("b.000002", 900)) && !have.has(None, &at("b.000003", 4)));
    }

    #[test]
    fn a_temporary_table_that_is_in_use_where_it_goes_on_is_refused() {
        let mut temporary = Temporary::default();
        assert!(temporary.refuse().is_ok());
        temporary.0.insert((7, TableName { schema: "s".to_owned(), table: "t".to_owned() }));
        assert!(temporary.refuse().unwrap_err().to_string().contains("`s`.`t`"));
    }
}
