//! Statements as events: their text, and the schema that names without one mean.

use std::borrow::Cow;

use crate::mysql::binlog::rows::unsqueeze;
use crate::mysql::binlog::{Event, Kind, Malformed};
use crate::mysql::wire::cursor::Cursor;

/// What is read of a statement's text: tables stand at its beginning.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// What follows a Query event's fixed fields in one that loads a file: its number, two offsets and what to do with duplicates.
const LOAD_FIELDS_BYTES: usize = 4 + 4 + 4 + 1;

const XA_START: &str = "XA START ";
const XA_END: &str = "XA END ";

/// A statement, as far as its event has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    pub schema: Cow<'a, str>,
    pub text: Cow<'a, str>,
    /// The text is there to its end.
    pub is_whole: bool,
}

impl<'a> Query<'a> {
    /// Parses an event that is a statement, or returns none where it is another.
    pub fn parse(event: &Event<'a>) -> Result<Option<Self>, Malformed> {
        let kind = event.header.kind;
        if !matches!(kind, Kind::QUERY | Kind::QUERY_COMPRESSED | Kind::EXECUTE_LOAD_QUERY) {
            return Ok(None);
        }
        let mut cursor = Cursor::new(event.body());
        let (_thread, _seconds) = (cursor.u32()?, cursor.u32()?);
        let schema_bytes = cursor.u8()?;
        let (_error, status_bytes) = (cursor.u16()?, cursor.u16()?);
        if kind == Kind::EXECUTE_LOAD_QUERY {
            cursor.take(LOAD_FIELDS_BYTES)?;
        }
        cursor.take(status_bytes.into())?;
        let schema = String::from_utf8_lossy(cursor.take(schema_bytes.into())?);
        cursor.take(1)?;
        let mut is_whole = event.is_whole();
        let text = match kind {
            Kind::QUERY_COMPRESSED => {
                let bytes = unsqueeze(cursor.rest(), TEXT_BYTES_MAX);
                let bytes = bytes.map_err(|_| Malformed("its compressed statement is damaged"))?;
                is_whole &= (bytes.len() as u64) < TEXT_BYTES_MAX;
                Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => String::from_utf8_lossy(cursor.rest()),
        };
        Ok(Some(Self { schema, text, is_whole }))
    }

    /// Returns the text of an event that says which statement the rows after it are of.
    pub(super) fn note(event: &Event<'a>) -> Option<Cow<'a, str>> {
        let text = match event.header.kind {
            Kind::ANNOTATE_ROWS => event.body(),
            // A byte of length, which is too small for most texts and therefore of no use.
            Kind::ROWS_QUERY => event.body().get(1..)?,
            _ => return None,
        };
        Some(String::from_utf8_lossy(text))
    }

    /// Tells what it is to the transaction around it.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        match self.text.trim_ascii() {
            "BEGIN" => Bounds::Begin,
            "COMMIT" => Bounds::Commit,
            "ROLLBACK" => Bounds::Rollback,
            text if text.starts_with(XA_START) => Bounds::Begin,
            text if text.starts_with(XA_END) => Bounds::Inner,
            text if text.starts_with("SAVEPOINT ") || text.starts_with("ROLLBACK TO ") => Bounds::Inner,
            text if text.starts_with("RELEASE SAVEPOINT ") => Bounds::Inner,
            _ => Bounds::Statement,
        }
    }

    /// Returns the name of the XA transaction that it belongs to. Servers write it in one form, however the client did; MariaDB has no
    /// statement that begins one.
    pub(super) fn xid(&self) -> Option<&str> {
        let text = self.text.trim_ascii();
        [XA_START, XA_END, "XA COMMIT ", "XA ROLLBACK "].iter().find_map(|verb| text.strip_prefix(verb))
    }
}

/// What a statement is to the transaction around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    Begin,
    Commit,
    Rollback,
    /// It orders what is within, and changes nothing itself.
    Inner,
    Statement,
}
