//! Where transactions begin and end among events.

use chrono::{DateTime, Utc};

use crate::mysql::binlog::gtid_event::GtidEvent;
use crate::mysql::binlog::query::{Bounds, Query};
use crate::mysql::binlog::rows::{Layout, STATEMENT_END};
use crate::mysql::binlog::xa::Xa;
use crate::mysql::binlog::{Event, Kind, Malformed};
use crate::mysql::gtid::Gtid;

/// Where a rows event's flags stand in its body.
const ROWS_FLAGS_AT: usize = 6;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Commit,
    /// Rolled back, and written because it had changed tables that know no rollback.
    Rollback,
    /// `XA PREPARE`: it takes effect with a later `XA COMMIT`, which is a transaction of its own.
    Prepare,
    /// The server lost what it should have written here: the log is not complete.
    Incident,
}

/// By which clock a commit time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The server's at the commit, to the microsecond: MySQL from 8.0 on.
    Server,
    /// The session's as its last statement began, to the second: earlier than the commit, and anything after `SET TIMESTAMP`. MariaDB
    /// writes no other, not even at a file's beginning and end.
    Session,
}

/// A transaction: where it stands, and what names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// None where MySQL works without GTIDs.
    pub gtid: Option<Gtid>,
    pub begin: u64,
    pub end: u64,
    /// When it was committed, by that clock.
    pub committed: DateTime<Utc>,
    pub clock: Clock,
    pub ending: Ending,
    /// The XA name of one that was prepared, or of the prepared one that it commits or rolls back. What is compressed tells it only
    /// to [`Transactions`](super::Transactions), as it does that it was prepared.
    pub xid: Option<String>,
    pub server_id: u32,
}

/// What an event is to the transactions around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It belongs to none.
    Outside,
    /// It belongs to one that is not at its end.
    Within,
    /// It ends one.
    End(Group),
}

/// Finds transactions among events that are pushed in one after the other: their heads are enough.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    open: Option<Open>,
}

/// A transaction whose end has not come.
#[derive(Debug, Clone)]
struct Open {
    begin: u64,
    name: GtidEvent,
    server_id: u32,
    form: Form,
    xa: Xa,
}

/// How a transaction will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Its first statement will tell: BEGIN, or one that stands alone.
    Unknown,
    /// With COMMIT, ROLLBACK or XA PREPARE.
    Explicit,
    /// With its one statement.
    Alone,
}

impl Groups {
    /// Returns where a transaction begins whose end has not come.
    #[must_use]
    pub fn open(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.begin)
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// An event that cannot stand where it stands.
    pub fn push(&mut self, event: &Event<'_>) -> Result<Step, Malformed> {
        if let Some(name) = GtidEvent::parse(event)? {
            return self.begin(event, name);
        }
        let query = Query::parse(event)?;
        if self.open.is_none() && !begins_unnamed(event.header.kind) {
            return Ok(Step::Outside);
        }
        let open = self.open.get_or_insert_with(|| Open::unnamed(event));
        match open.ending(event, query.as_ref()) {
            None => Ok(Step::Within),
            Some(ending) => {
                let group = open.close(event, ending);
                self.open = None;
                Ok(Step::End(group))
            }
        }
    }

    fn begin(&mut self, event: &Event<'_>, name: GtidEvent) -> Result<Step, Malformed> {
        if self.open.is_some() {
            return Err(Malformed("a transaction begins before the one before it has ended"));
        }
        let form = match event.header.kind {
            Kind::MARIADB_GTID if name.is_standalone => Form::Alone,
            // MariaDB's GTID stands for BEGIN.
            Kind::MARIADB_GTID => Form::Explicit,
            _ => Form::Unknown,
        };
        self.open = Some(Open { form, ..Open::new(event, name) });
        Ok(Step::Within)
    }
}

/// Tells whether an event begins a transaction that no GTID event announces: MySQL before 5.7 writes such, and either product an incident.
fn begins_unnamed(kind: Kind) -> bool {
    let is_statement = matches!(kind, Kind::QUERY | Kind::INTVAR | Kind::RAND | Kind::USER_VAR);
    is_statement || matches!(kind, Kind::BEGIN_LOAD_QUERY | Kind::TABLE_MAP | Kind::ROWS_QUERY | Kind::INCIDENT)
}

impl Open {
    fn unnamed(event: &Event<'_>) -> Self {
        let name = GtidEvent { gtid: None, committed: None, transaction_bytes: None, is_standalone: false };
        Self::new(event, name)
    }

    fn new(event: &Event<'_>, name: GtidEvent) -> Self {
        Self { begin: event.offset, name, server_id: event.header.server_id, form: Form::Unknown, xa: Xa::default() }
    }

    /// Tells how the transaction ends with this event, if it does.
    fn ending(&mut self, event: &Event<'_>, query: Option<&Query<'_>>) -> Option<Ending> {
        self.xa.see(event, query);
        match event.header.kind {
            Kind::XA_PREPARE if self.xa.is_prepared => return Some(Ending::Prepare),
            Kind::XID | Kind::TRANSACTION_PAYLOAD | Kind::XA_PREPARE => return Some(Ending::Commit),
            Kind::INCIDENT => return Some(Ending::Incident),
            _ => {}
        }
        match query.map(Query::bounds) {
            Some(Bounds::Begin) => self.form = Form::Explicit,
            Some(Bounds::Commit) => return Some(Ending::Commit),
            Some(Bounds::Rollback) => return Some(Ending::Rollback),
            Some(Bounds::Statement) if self.form != Form::Explicit => return Some(Ending::Commit),
            Some(Bounds::Statement | Bounds::Inner) => {}
            None if self.form == Form::Alone && ends_statement(event) => return Some(Ending::Commit),
            None => {}
        }
        None
    }

    fn close(&self, event: &Event<'_>, ending: Ending) -> Group {
        let second = DateTime::from_timestamp(event.header.timestamp.into(), 0).unwrap_or_default();
        let clock = if self.name.committed.is_some() { Clock::Server } else { Clock::Session };
        Group {
            gtid: self.name.gtid.clone(),
            begin: self.begin,
            end: event.end(),
            committed: self.name.committed.unwrap_or(second),
            clock,
            ending,
            xid: self.xa.xid.clone(),
            server_id: self.server_id,
        }
    }
}

fn ends_statement(event: &Event<'_>) -> bool {
    let flags = event.body().get(ROWS_FLAGS_AT);
    Layout::of(event.header.kind).is_some() && flags.is_some_and(|flags| flags & STATEMENT_END != 0)
}
