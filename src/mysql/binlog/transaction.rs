//! Transactions of one file: what each changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};

use crate::mysql::binlog::fields::Fields;
use crate::mysql::binlog::query::{Bounds, Query};
use crate::mysql::binlog::rows::{self, Change, Layout};
use crate::mysql::binlog::segment::{SegmentReader, Torn};
use crate::mysql::binlog::statement::{self, Reading, Verb};
use crate::mysql::binlog::table::{TableMap, TableName};
use crate::mysql::binlog::xa::Xa;
use crate::mysql::binlog::{BinlogError, Ending, Event, Format, Group, Groups, Kind, Malformed, Step, payload};

/// What is noted of one transaction at most.
const TABLES_MAX: usize = 10_000;
const TEXTS_MAX: usize = 8;
/// Characters of a statement that are noted.
pub const TEXT_CHARS_MAX: usize = 1024;

/// Table maps that are held of one statement. Past them, rows are not counted.
const MAPS_MAX: usize = 1024;

/// The table of an event without rows, which only ends a statement: MySQL writes such.
const NO_TABLE: u64 = 0x00FF_FFFF;

/// A transaction, and what it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub group: Group,
    pub changes: Changes,
}

/// What a transaction changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub tables: BTreeMap<TableName, Touched>,
    /// What its statements do that name no table.
    pub verbs: BTreeSet<Verb>,
    /// The first statements, where the log has them, and each only to its first thousand characters.
    pub texts: Vec<String>,
    /// There are more tables or statements than these.
    pub is_more: bool,
    /// There are more tables than these, or rows of tables that are not known: any may be changed.
    pub are_tables_more: bool,
    /// A statement runs a routine, which may change any table.
    pub has_calls: bool,
}

/// What happened to a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Touched {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// There are rows of which bkp does not know the form: these are the least.
    #[serde(rename = "at_least")]
    pub is_least: bool,
    /// What statements do to it: definitions, and rows where the log has statements.
    #[serde(rename = "statements")]
    pub verbs: BTreeSet<Verb>,
    /// A definition may have given its rows values that are others each time.
    #[serde(skip)]
    pub is_varying: bool,
}

impl Touched {
    /// Tells whether one of these happened to it, by statements or by rows.
    #[must_use]
    pub fn is_any(&self, verbs: &[Verb]) -> bool {
        verbs.iter().any(|verb| {
            let rows = match verb {
                Verb::Insert => self.inserted,
                Verb::Update => self.updated,
                Verb::Delete => self.deleted,
                _ => 0,
            };
            rows > 0 || self.verbs.contains(verb)
        })
    }
}

/// The transactions of one file in their order, with memory for one.
#[derive(Debug)]
pub struct Transactions<R> {
    reader: SegmentReader<R>,
    groups: Groups,
    collector: Collector,
    is_done: bool,
}

impl<R: Read> Transactions<R> {
    /// Opens a file at its beginning.
    ///
    /// # Errors
    /// An input that is no binlog, or an encrypted one.
    pub fn new(input: R) -> Result<Self, BinlogError> {
        let reader = SegmentReader::new(input)?;
        Ok(Self { reader, groups: Groups::default(), collector: Collector::default(), is_done: false })
    }

    #[must_use]
    pub fn format(&self) -> Option<&Format> {
        self.reader.format()
    }

    /// Tells, after the last transaction, whether the file ends within an event.
    #[must_use]
    pub fn torn(&self) -> Option<Torn> {
        self.reader.torn()
    }

    /// Returns, after the last transaction, where one begins that the file does not hold to its end.
    #[must_use]
    pub fn open(&self) -> Option<u64> {
        self.groups.open()
    }

    fn advance(&mut self) -> Result<Option<Transaction>, BinlogError> {
        while let Some(event) = self.reader.next()? {
            let (offset, kind) = (event.offset, event.header.kind);
            let step = self.groups.push(&event).map_err(|malformed| malformed.at(offset))?;
            if step == Step::Outside {
                continue;
            }
            self.collector.head(&event);
            let format =
                self.reader.format().filter(|_| kind == Kind::TRANSACTION_PAYLOAD).map(Format::without_checksum);
            let body = self.collector.body(kind, format, &mut self.reader.body());
            // A damaged or torn event is told as such, and not by what its bytes seem to say.
            self.reader.finish()?;
            if self.reader.torn().is_some() {
                return Ok(None);
            }
            body.map_err(|_| Malformed("its compressed events are damaged").at(offset))?;
            if let Step::End(group) = step {
                return Ok(Some(self.collector.end(group)));
            }
        }
        Ok(None)
    }
}

impl<R: Read> Iterator for Transactions<R> {
    type Item = Result<Transaction, BinlogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let next = self.advance().transpose();
        self.is_done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Gathers what the events of one transaction say.
#[derive(Debug, Default)]
struct Collector {
    changes: Changes,
    maps: HashMap<u64, TableMap>,
    xa: Xa,
}

impl Collector {
    fn end(&mut self, group: Group) -> Transaction {
        let Self { changes, xa, .. } = std::mem::take(self);
        let ending = if xa.is_prepared { Ending::Prepare } else { group.ending };
        Transaction { group: Group { xid: xa.xid, ending, ..group }, changes }
    }

    /// Takes what an event's head says: statements. (One that makes no sense has been refused by [`Groups`].)
    fn head(&mut self, event: &Event<'_>) {
        if let Some(text) = Query::note(event) {
            self.text(&text);
        }
        let query = Query::parse(event).ok().flatten();
        self.xa.see(event, query.as_ref());
        let Some(query) = query else { return };
        if query.bounds() != Bounds::Statement {
            return;
        }
        self.text(&query.text);
        self.changes.has_calls |= statement::calls(&query.text);
        let Reading { verbs, tables, is_unsure, is_varying, .. } = statement::read(&query.text, &query.schema);
        if tables.is_empty() {
            self.changes.verbs.extend(&verbs);
        }
        // Only DROP and RENAME name so many tables that the text's beginning may not hold them; ALTER may name the new one at its end.
        let is_list = [Verb::Drop, Verb::Rename, Verb::Alter].iter().any(|verb| verbs.contains(verb));
        if is_unsure || tables.len() >= statement::TABLES_MAX || is_list && !query.is_whole {
            self.tables_are_more();
        }
        for name in tables {
            if let Some(table) = self.table(&name) {
                table.verbs.extend(&verbs);
                table.is_varying |= is_varying;
            }
        }
    }

    fn tables_are_more(&mut self) {
        self.changes.is_more = true;
        self.changes.are_tables_more = true;
    }

    fn text(&mut self, text: &str) {
        if self.changes.texts.len() < TEXTS_MAX {
            self.changes.texts.push(text.chars().take(TEXT_CHARS_MAX).collect());
        } else {
            self.changes.is_more = true;
        }
    }

    /// Returns what is noted of a table, unless it is one too many.
    fn table(&mut self, name: &TableName) -> Option<&mut Touched> {
        let tables = &self.changes.tables;
        if tables.len() >= TABLES_MAX && !tables.contains_key(name) {
            self.tables_are_more();
            return None;
        }
        Some(self.changes.tables.entry(name.clone()).or_default())
    }

    /// Takes what an event's body says: tables and rows, also of the events within a compressed one, whose format is given.
    ///
    /// # Errors
    /// Events within one that cannot be read.
    fn body(&mut self, kind: Kind, inner: Option<Format>, body: &mut dyn Read) -> io::Result<()> {
        if let Some(format) = inner {
            return self.payload(format, body);
        }
        if kind == Kind::TABLE_MAP {
            self.table_map(&mut Fields(body));
        } else if let Some(layout) = Layout::of(kind) {
            self.rows(layout, &mut Fields(body));
        } else if kind == Kind::PARTIAL_ROWS {
            self.tables_are_more();
        }
        Ok(())
    }

    fn table_map(&mut self, body: &mut Fields<'_>) {
        match TableMap::read(body) {
            Ok((id, map)) if self.maps.len() < MAPS_MAX || self.maps.contains_key(&id) => {
                self.maps.insert(id, map);
            }
            _ => self.tables_are_more(),
        }
    }

    /// Counts rows. Those whose form is not known make the count a least one, and no error: the rest of the log is of use.
    fn rows(&mut self, layout: Layout, body: &mut Fields<'_>) {
        let Ok((id, is_end)) = rows::head(body) else { return self.tables_are_more() };
        if let Some(map) = self.maps.get(&id) {
            let count = rows::count(layout, map, body).ok().flatten();
            self.counted(layout, &map.name.clone(), count);
        } else if id != NO_TABLE {
            self.tables_are_more();
        }
        if is_end {
            self.maps.clear();
        }
    }

    fn counted(&mut self, layout: Layout, name: &TableName, count: Option<u64>) {
        let Some(table) = self.table(name) else { return };
        table.is_least |= count.is_none();
        let rows = match layout.change {
            Change::Insert => &mut table.inserted,
            Change::Update => &mut table.updated,
            Change::Delete => &mut table.deleted,
        };
        *rows += count.unwrap_or(1);
    }

    fn payload(&mut self, format: Format, body: &mut dyn Read) -> io::Result<()> {
        let mut reader = SegmentReader::inner(payload::open(body)?, format);
        while let Some(event) = reader.next().map_err(io::Error::other)? {
            let kind = event.header.kind;
            if kind == Kind::TRANSACTION_PAYLOAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.head(&event);
            self.body(kind, None, &mut reader.body())?;
        }
        if reader.torn().is_some() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
