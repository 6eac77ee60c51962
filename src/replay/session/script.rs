//! Transactions of the binlog as the statements that bring them to a target. Pure: events come in, parcels of SQL go out.
//!
//! Rows go as `BINLOG` statements, with their bytes. What the binlog has as a statement goes alone, in its own character set, and before
//! it what it wants of its session. Statements of bkp's own are sent together.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::human;
use crate::mysql::binlog::{Bounds, Event, Header, Kind, Query, Said, flag, plain};
use crate::mysql::gtid::Gtid;
use crate::mysql::manifest::{Position, Product};
use crate::mysql::sql;
use crate::replay::ReplayError;
use crate::replay::made;
use crate::replay::session::dialect::Dialect;
use crate::replay::session::fit::{defines, is_rows, reason, unfit};
use crate::replay::session::parcel::{Named, Parcel, Work};
use crate::replay::session::progress;
use crate::replay::session::value;
use crate::replay::session::wants::{self, Wants};

mod notes;

/// What is sent at once, while there is more: enough to hide the way there and back, and little to hold.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_TRANSACTIONS: usize = 256;

/// Of one statement's rows, what goes into one `BINLOG`.
const ROWS_BYTES: usize = 512 * 1024;

const AS_UTF8: &str = "SET character_set_client = utf8mb4";

/// Where a rows event's flags stand, and the one that ends its statement.
const ROWS_FLAGS_AT: usize = Header::BYTES + 6;
const STATEMENT_END: u8 = 1;

/// Flags of MariaDB's GTID events.
const FLAGS_AT: usize = 12;
const STANDALONE: u8 = 1;
const TRANSACTIONAL: u8 = 4;

/// A transaction that is being written.
#[derive(Debug)]
struct Open {
    named: Named,
    flags: u8,
    /// It has been begun on the target.
    is_begun: bool,
    /// How many `BINLOG` statements bring its rows.
    rows_sent: usize,
    /// It has been committed or rolled back there.
    is_ended: bool,
    /// A definition in it has committed what came before: what follows is another transaction to the target.
    is_split: bool,
    /// What it is about to do stands in the progress.
    is_noted: bool,
}

impl Open {
    /// Tells whether all of it can be taken back; what follows a definition in it is a transaction of the target's own.
    fn is_safe(&self) -> bool {
        self.is_split || self.flags & TRANSACTIONAL != 0
    }
}

const UNSAFE: &str = "changes rows of tables without transactions (as MyISAM)";

type Done = Result<(), Box<ReplayError>>;

pub(super) struct Script<'a> {
    dialect: &'a Dialect,
    out: &'a mut dyn FnMut(Parcel) -> Done,
    /// Statements that wait to be sent together, and what they are of.
    own: Vec<u8>,
    of: Vec<Named>,
    reached: Option<Position>,
    open: Option<Open>,
    /// What is done before this place.
    place: Position,
    format: Vec<u8>,
    /// Table maps and rows of one statement.
    maps: Vec<u8>,
    rows: Vec<u8>,
    last_row_at: usize,
    /// What the next statement is given.
    given: Vec<String>,
    wants: Wants,
    schema: Option<String>,
}

impl<'a> Script<'a> {
    /// Begins where the target has everything before a place.
    pub(super) fn new(dialect: &'a Dialect, place: Position, out: &'a mut dyn FnMut(Parcel) -> Done) -> Self {
        Self {
            dialect,
            out,
            own: Vec::new(),
            of: Vec::new(),
            reached: None,
            open: None,
            place,
            format: Vec::new(),
            maps: Vec::new(),
            rows: Vec::new(),
            last_row_at: 0,
            given: Vec::new(),
            wants: Wants::default(),
            schema: None,
        }
    }

    /// Tells the target how the events of a file are to be read, unless it knows.
    pub(super) fn format(&mut self, event: &Event<'_>) -> Done {
        let format = made::without_checksum(event.raw());
        // Every file has a time of its own.
        if self.format.get(Header::BYTES..) == format.get(Header::BYTES..).map(body_of) {
            return Ok(());
        }
        self.format = [&format[..Header::BYTES], body_of(&format[Header::BYTES..])].concat();
        if self.dialect.goes_by_names() {
            self.own("SET @@session.gtid_next = 'AUTOMATIC'")?;
        }
        self.own(&format!("BINLOG '{}'", STANDARD.encode(&format)))
    }

    /// Begins a transaction. `event` is its first.
    pub(super) fn begin(&mut self, event: &Event<'_>, gtid: Option<Gtid>, begin: Position) -> Done {
        let flags = if event.header.kind == Kind::MARIADB_GTID { event.body().get(FLAGS_AT) } else { None };
        let named = Named { gtid, begin };
        self.of.push(named.clone());
        self.place = named.begin.clone();
        let flags = flags.copied().unwrap_or(TRANSACTIONAL);
        let (is_begun, rows_sent, is_ended, is_split, is_noted) = (false, 0, false, false, false);
        self.open = Some(Open { named, flags, is_begun, rows_sent, is_ended, is_split, is_noted });
        self.name()
    }

    /// Takes the next event of the transaction at hand, which ends in the file at `end`, or holds the one that does.
    pub(super) fn event(&mut self, event: &Event<'_>, end: &Position) -> Done {
        match event.header.kind {
            Kind::QUERY | Kind::QUERY_COMPRESSED => self.query(event, end),
            Kind::TABLE_MAP => self.map(event),
            kind if is_rows(kind) => self.row(event),
            Kind::INTVAR | Kind::RAND | Kind::USER_VAR => {
                let given = value::assigned(event, self.dialect).map_err(|why| self.refused(&why))?;
                self.given.extend(given);
                Ok(())
            }
            Kind::XID => self.commit(end),
            // The first byte says that it was committed at once.
            Kind::XA_PREPARE if event.body().first() == Some(&1) => self.commit(end),
            Kind::GTID | Kind::ANONYMOUS_GTID | Kind::GTID_TAGGED | Kind::MARIADB_GTID => Ok(()),
            Kind::ROWS_QUERY | Kind::ANNOTATE_ROWS | Kind::BINLOG_CHECKPOINT => Ok(()),
            Kind::TRANSACTION_CONTEXT | Kind::VIEW_CHANGE => Ok(()),
            kind => match reason(kind) {
                Some(why) => Err(self.refused(why)),
                None if event.header.flags & flag::IGNORABLE != 0 => Ok(()),
                None => Err(self.refused(&format!("holds an event that bkp does not know ({kind})"))),
            },
        }
    }

    fn query(&mut self, event: &Event<'_>, end: &Position) -> Done {
        let bounds = Query::parse(event).ok().flatten().map(|query| query.bounds());
        let said = Said::parse(event).map_err(|malformed| self.refused(&malformed.to_string()))?;
        let Some(said) = said else { return Ok(()) };
        let text = String::from_utf8_lossy(&said.text).into_owned();
        let is_xa = text.trim_start().get(..3).is_some_and(|verb| verb.eq_ignore_ascii_case("XA "));
        match bounds {
            // A MariaDB may go on with a definition, which would end what is begun: it begins with the first row.
            Some(Bounds::Begin) if self.dialect.product == Product::MySql => self.start(),
            Some(Bounds::Begin) => Ok(()),
            Some(Bounds::Commit) => {
                self.refuse_untransactional()?;
                self.commit(end)
            }
            Some(Bounds::Rollback) => self.roll_back(end),
            // One of two phases is refused where it is prepared.
            Some(Bounds::Inner) if is_xa => Ok(()),
            _ if is_xa => Err(self.refused("ends an XA transaction, which no session but its own can")),
            _ => self.statement(said, &text, end),
        }
    }

    /// Refuses a MySQL's rows that stay where their transaction is taken back: it ends one that has no others by a statement. How far the
    /// target is could not be written together with them.
    fn refuse_untransactional(&self) -> Done {
        let has_rows = self.open.as_ref().is_some_and(|open| open.rows_sent > 0) || !self.rows.is_empty();
        if has_rows && self.dialect.product == Product::MySql { Err(self.refused(UNSAFE)) } else { Ok(()) }
    }

    fn statement(&mut self, said: Said, text: &str, end: &Position) -> Done {
        if let Some(why) = unfit(&said, text) {
            return Err(self.refused(&why));
        }
        self.send_rows()?;
        let defines = defines(text, &said.schema);
        let is_alone = self.is_alone();
        if defines || is_alone {
            self.note_doing(is_alone.then_some(end))?;
        } else {
            self.start()?;
        }
        let wanted = wants::wanted(&said.context, self.dialect).map_err(|why| self.refused(&why))?;
        let mut schema = self.choose_schema(&said);
        if self.given.iter().any(|given| !given.is_ascii()) {
            // Its names and values are in this character set, whatever the session's is.
            self.wants.forget();
            schema.push(AS_UTF8.to_owned());
        }
        let mut set = self.wants.changes(wanted);
        set.append(&mut self.given);
        let set = if set.is_empty() { String::new() } else { format!("SET {}", set.join(", ")) };
        self.refuse_long(set.len().max(said.text.len()))?;
        self.send()?;
        let Some(open) = &mut self.open else { return Ok(()) };
        // MySQL's rows of a new table are of the transaction that makes it.
        open.is_split |= defines && !is_alone && self.dialect.product == Product::MariaDb;
        let (of, text) = (vec![open.named.clone()], said.text);
        (self.out)(Parcel { work: Work::Said { schema, set, text }, of: of.clone(), reached: None })?;
        self.of = of;
        if defines {
            // It may have dropped the session's schema, which has none then, also where there is one of that name again.
            self.schema = None;
        }
        Ok(())
    }

    /// Tells whether the transaction at hand is one statement, which commits by itself.
    fn is_alone(&self) -> bool {
        self.open.as_ref().is_some_and(|open| match self.dialect.product {
            Product::MySql => !open.is_begun,
            Product::MariaDb => open.flags & STANDALONE != 0,
        })
    }

    /// Returns what makes a statement's schema that of the session, where it is another.
    fn choose_schema(&mut self, said: &Said) -> Vec<String> {
        if !said.context.uses_schema || self.schema.as_ref() == Some(&said.schema) {
            return Vec::new();
        }
        self.schema = Some(said.schema.clone());
        self.wants.forget_schema();
        let mut chosen = vec![format!("USE {}", sql::ident(&said.schema))];
        if !said.schema.is_ascii() {
            // The name is in this character set, whatever the session's is.
            self.wants.forget();
            chosen.insert(0, AS_UTF8.to_owned());
        }
        chosen
    }

    fn map(&mut self, event: &Event<'_>) -> Done {
        let map = plain(event).map_err(|malformed| self.refused(&malformed.to_string()))?;
        if !self.rows.is_empty() {
            self.send_rows()?;
        }
        self.maps.extend(map);
        Ok(())
    }

    fn row(&mut self, event: &Event<'_>) -> Done {
        let row = plain(event).map_err(|malformed| self.refused(&malformed.to_string()))?;
        if !self.rows.is_empty() && self.rows.len() + row.len() > ROWS_BYTES.min(self.dialect.text_bytes_max / 2) {
            self.send_rows()?;
        }
        let is_end = row.get(ROWS_FLAGS_AT).is_some_and(|flags| flags & STATEMENT_END != 0);
        self.last_row_at = self.rows.len();
        self.rows.extend(row);
        if is_end {
            self.send_rows()?;
            self.maps.clear();
        }
        Ok(())
    }

    /// Sends the rows at hand: a statement to the target, which is a part of one where there are many.
    fn send_rows(&mut self) -> Done {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.start()?;
        if let Some(open) = &mut self.open {
            open.rows_sent += 1;
            // Each part of such a statement would take a GTID of its own.
            if !open.is_safe() && open.rows_sent > 1 {
                return Err(self.refused(UNSAFE));
            }
        }
        if let Some(flags) = self.rows.get_mut(self.last_row_at + ROWS_FLAGS_AT) {
            *flags |= STATEMENT_END;
        }
        let mut binlog = String::from("BINLOG '");
        STANDARD.encode_string([&self.maps[..], &self.rows].concat(), &mut binlog);
        binlog.push('\'');
        self.rows.clear();
        // Rows take a clock and modes of their own.
        self.wants.forget();
        self.own(&binlog)?;
        // The servers say behind rows that nothing more comes, whatever comes.
        self.send()
    }

    /// Begins the transaction on the target, if it is not.
    fn start(&mut self) -> Done {
        let Some(open) = &mut self.open else { return Ok(()) };
        if std::mem::replace(&mut open.is_begun, true) {
            return Ok(());
        }
        let (is_split, is_safe) = (open.is_split, open.is_safe());
        if is_split && self.dialect.names {
            let (domain, server) = self.dialect.own;
            self.identity(domain, server, 0)?;
        } else if !is_safe {
            self.note_doing(None)?;
        }
        self.own("START TRANSACTION")
    }

    fn commit(&mut self, end: &Position) -> Done {
        self.send_rows()?;
        self.start()?;
        if self.dialect.goes_by_names() {
            self.ended();
            return self.own("COMMIT");
        }
        if self.open.as_ref().is_none_or(Open::is_safe) {
            self.own(&progress::reach(end))?;
            self.ended();
            return self.own("COMMIT");
        }
        // What stays has its GTID: progress beside it would take the next. Until it is noted, that it was begun is.
        self.ended();
        self.own("COMMIT")?;
        self.note(&progress::reach(end))
    }

    fn roll_back(&mut self, end: &Position) -> Done {
        self.send_rows()?;
        self.ended();
        self.own("ROLLBACK")?;
        self.done(end)
    }

    fn ended(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_ended = true;
        }
    }

    /// Ends the transaction at hand.
    pub(super) fn end(&mut self, end: &Position) -> Done {
        self.send_rows()?;
        match self.open.as_ref().map(|open| (open.is_ended, open.is_begun)) {
            Some((false, true)) => self.commit(end)?,
            Some((false, false)) => self.done(end)?,
            _ => {}
        }
        self.open = None;
        self.maps.clear();
        self.place = end.clone();
        self.reached = Some(end.clone());
        if self.own.len() >= BATCH_BYTES || self.of.len() >= BATCH_TRANSACTIONS {
            self.send()?;
        }
        Ok(())
    }

    /// Ends the script: what comes to the target is its own again.
    pub(super) fn finish(mut self) -> Done {
        if self.dialect.goes_by_names() {
            self.own("SET @@session.gtid_next = 'AUTOMATIC'")?;
        }
        self.send()
    }

    /// Adds a statement of ours to those that are sent together.
    fn own(&mut self, statement: &str) -> Done {
        self.refuse_long(statement.len())?;
        let is_full = self.own.len() + statement.len() > self.dialect.text_bytes_max;
        if is_full || self.own.len() > BATCH_BYTES {
            self.send()?;
        }
        self.own.extend_from_slice(statement.as_bytes());
        self.own.extend_from_slice(b";\n");
        Ok(())
    }

    fn send(&mut self) -> Done {
        let work = Work::Own(std::mem::take(&mut self.own));
        let of = std::mem::take(&mut self.of);
        self.of.extend(self.open.as_ref().map(|open| open.named.clone()));
        if work == Work::Own(Vec::new()) {
            return Ok(());
        }
        (self.out)(Parcel { work, of, reached: self.reached.take() })
    }

    fn refuse_long(&self, bytes: usize) -> Done {
        if bytes <= self.dialect.text_bytes_max { Ok(()) } else { Err(self.too_long(bytes as u64)) }
    }

    /// Tells of a statement or an event of so many bytes, which no packet takes.
    #[expect(clippy::unnecessary_box_returns, reason = "errors go up in boxes")]
    pub(super) fn too_long(&self, bytes: u64) -> Box<ReplayError> {
        let (bytes, most) = (human::bytes(bytes), human::bytes(self.dialect.text_bytes_max as u64));
        let why =
            format!("takes a statement of {bytes}, and the target none of more than {most} (`max_allowed_packet`)");
        let hint = "raise `max_allowed_packet` on the target (SET GLOBAL, up to 1 GiB), or leave it to replication: `--replay-by replica`";
        self.refusal(&why, hint)
    }

    #[expect(clippy::unnecessary_box_returns, reason = "errors go up in boxes")]
    fn refused(&self, why: &str) -> Box<ReplayError> {
        self.refusal(why, "replication can bring it: `--replay-by replica`; or go to a point before it")
    }

    #[expect(clippy::unnecessary_box_returns, reason = "errors go up in boxes")]
    fn refusal(&self, why: &str, hint: &str) -> Box<ReplayError> {
        let named = self.open.as_ref().map(|open| open.named.clone());
        let Named { gtid, begin } = named.unwrap_or_else(|| Named { gtid: None, begin: self.place.clone() });
        let at = format!("{}:{}", begin.file, begin.offset);
        Box::new(ReplayError::Unreplayable { at, gtid, why: why.to_owned(), hint: hint.to_owned() })
    }
}

/// What of a format description's body says how events are read: all but the checksum, which has the header in it.
fn body_of(body: &[u8]) -> &[u8] {
    &body[..body.len().saturating_sub(4)]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
#[path = "script/tests.rs"]
mod tests;
