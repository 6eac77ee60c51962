//! Statements as events, whole: their bytes, and what they were written for the session of whoever runs them again.

use crate::mysql::binlog::rows::unsqueeze_whole;
use crate::mysql::binlog::{Event, Kind, Malformed, flag};
use crate::mysql::wire::cursor::Cursor;

/// The codes of what a statement's event says of its session. Both products number them alike, and MariaDB's own are the highest.
mod code {
    pub(super) const FLAGS: u8 = 0;
    pub(super) const SQL_MODE: u8 = 1;
    pub(super) const CATALOG_NUL: u8 = 2;
    pub(super) const AUTO_INCREMENT: u8 = 3;
    pub(super) const CHARSET: u8 = 4;
    pub(super) const TIME_ZONE: u8 = 5;
    pub(super) const CATALOG: u8 = 6;
    pub(super) const LC_TIME_NAMES: u8 = 7;
    pub(super) const COLLATION_DATABASE: u8 = 8;
    pub(super) const TABLES_FOR_UPDATE: u8 = 9;
    pub(super) const DATA_WRITTEN: u8 = 10;
    pub(super) const INVOKER: u8 = 11;
    pub(super) const SCHEMAS: u8 = 12;
    pub(super) const MICROSECONDS: u8 = 13;
    pub(super) const EXPLICIT_TIMESTAMP: u8 = 16;
    pub(super) const XID: u8 = 17;
    pub(super) const UTF8MB4_COLLATION: u8 = 18;
    pub(super) const REQUIRES_KEY: u8 = 19;
    pub(super) const ENCRYPTS: u8 = 20;
    /// MySQL's, from 9.6 or 9.7 on, with every change of rows: a byte that is zero.
    pub(super) const ZERO: u8 = 21;
    pub(super) const MARIADB_MICROSECONDS: u8 = 128;
    pub(super) const MARIADB_XID: u8 = 129;
    pub(super) const MARIADB_GTID_FLAGS: u8 = 130;
    pub(super) const MARIADB_COLLATIONS: u8 = 131;
    pub(super) const MARIADB_NOTHING: u8 = 255;
}

/// Of so many changed schemas no name is written.
const SCHEMAS_MANY: u8 = 254;

/// What a statement's event says of the session that it ran in. What it does not say is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    pub thread: u32,
    /// The error with which it ended on its server, if it did.
    pub error: u16,
    /// Names without a schema are of the event's.
    pub uses_schema: bool,
    pub seconds: u32,
    pub micros: u32,
    pub flags: Option<u32>,
    pub sql_mode: Option<u64>,
    /// By how much, and from where.
    pub auto_increment: Option<(u16, u16)>,
    /// The character set of the client, the collations of the connection and of the server, by their numbers.
    pub charset: Option<[u16; 3]>,
    pub time_zone: Option<String>,
    pub lc_time_names: Option<u16>,
    pub collation_database: Option<u16>,
    pub has_invoker: bool,
    pub explicit_timestamp: Option<bool>,
    pub utf8mb4_collation: Option<u16>,
    pub requires_key: Option<bool>,
    pub encrypts: Option<bool>,
    /// MariaDB's default collations: of each, the number of the one that is replaced and its own.
    pub collations: Option<Vec<(u16, u16)>>,
    /// MariaDB's: it is a part of an ALTER that stands in the log in two.
    pub is_part: bool,
    /// The first code that is not known: what follows it cannot be read.
    pub unknown: Option<u8>,
}

/// A statement, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub context: Context,
    pub schema: String,
    pub text: Vec<u8>,
}

impl Said {
    /// Parses an event that is a statement and was read whole, or returns none where it is another.
    ///
    /// # Errors
    /// An event whose fields make no sense, or that was not read to its end.
    pub fn parse(event: &Event<'_>) -> Result<Option<Self>, Malformed> {
        let kind = event.header.kind;
        if !matches!(kind, Kind::QUERY | Kind::QUERY_COMPRESSED) {
            return Ok(None);
        }
        if !event.is_whole() {
            return Err(Malformed("its statement was not read to its end"));
        }
        let mut cursor = Cursor::new(event.body());
        let (thread, _seconds, schema_bytes) = (cursor.u32()?, cursor.u32()?, cursor.u8()?);
        let (error, status_bytes) = (cursor.u16()?, cursor.u16()?);
        let status = cursor.take(status_bytes.into())?;
        let schema = String::from_utf8_lossy(cursor.take(schema_bytes.into())?).into_owned();
        cursor.take(1)?;
        let text = match kind {
            Kind::QUERY_COMPRESSED => {
                let plain = unsqueeze_whole(cursor.rest());
                plain.map_err(|_| Malformed("its compressed statement is damaged"))?
            }
            _ => cursor.rest().to_vec(),
        };
        let uses_schema = event.header.flags & flag::SUPPRESS_USE == 0 && !schema.is_empty();
        let seconds = event.header.timestamp;
        let context = Context { thread, error, uses_schema, seconds, ..Context::read(status)? };
        Ok(Some(Self { context, schema, text }))
    }
}

impl Context {
    fn read(status: &[u8]) -> Result<Self, Malformed> {
        let mut context = Self::default();
        let mut cursor = Cursor::new(status);
        while !cursor.rest().is_empty() && context.unknown.is_none() {
            context.field(&mut cursor)?;
        }
        Ok(context)
    }

    fn field(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        match cursor.u8()? {
            code::FLAGS => self.flags = Some(cursor.u32()?),
            code::SQL_MODE => self.sql_mode = Some(cursor.u64()?),
            code::AUTO_INCREMENT => self.auto_increment = Some((cursor.u16()?, cursor.u16()?)),
            code::CHARSET => self.charset = Some([cursor.u16()?, cursor.u16()?, cursor.u16()?]),
            code::TIME_ZONE => self.time_zone = Some(short(cursor)?).filter(|zone| !zone.is_empty()),
            code::CATALOG => drop(short(cursor)?),
            code::CATALOG_NUL => {
                short(cursor)?;
                cursor.take(1)?;
            }
            code::LC_TIME_NAMES => self.lc_time_names = Some(cursor.u16()?),
            code::COLLATION_DATABASE => self.collation_database = Some(cursor.u16()?),
            code::TABLES_FOR_UPDATE | code::XID | code::MARIADB_XID => drop(cursor.u64()?),
            code::DATA_WRITTEN => drop(cursor.u32()?),
            code::INVOKER => {
                let (user, _host) = (short(cursor)?, short(cursor)?);
                self.has_invoker = !user.is_empty();
            }
            code::SCHEMAS => match cursor.u8()? {
                SCHEMAS_MANY => {}
                count => (0..count).for_each(|_| {
                    cursor.until_nul();
                }),
            },
            code::MICROSECONDS | code::MARIADB_MICROSECONDS => {
                let [a, b, c] = cursor.array()?;
                self.micros = u32::from_le_bytes([a, b, c, 0]);
            }
            code::EXPLICIT_TIMESTAMP => self.explicit_timestamp = Some(cursor.u8()? != 0),
            code::UTF8MB4_COLLATION => self.utf8mb4_collation = Some(cursor.u16()?),
            code::REQUIRES_KEY => self.requires_key = Some(cursor.u8()? != 0),
            // Only of this value is it known that whoever runs the statement again has to do nothing.
            code::ZERO => {
                let is_zero = cursor.u8()? == 0;
                self.unknown = Some(code::ZERO).filter(|_| !is_zero);
            }
            code::ENCRYPTS => self.encrypts = Some(cursor.u8()? != 0),
            // What else it says, nobody needs who refuses it.
            code::MARIADB_GTID_FLAGS => {
                self.is_part = true;
                cursor.take(cursor.rest().len())?;
            }
            code::MARIADB_COLLATIONS => {
                let count = cursor.u8()?;
                let pairs = (0..count).map(|_| Ok((cursor.u16()?, cursor.u16()?)));
                self.collations = Some(pairs.collect::<Result<_, Malformed>>()?);
            }
            code::MARIADB_NOTHING => {}
            unknown => self.unknown = Some(unknown),
        }
        Ok(())
    }
}

/// Reads a text after its length in one byte.
fn short(cursor: &mut Cursor<'_>) -> Result<String, Malformed> {
    let length = cursor.u8()?;
    Ok(String::from_utf8_lossy(cursor.take(length.into())?).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_a_statement_says_of_its_session_is_read_to_the_end() {
        let mut status = vec![code::FLAGS];
        status.extend(0x0400_4000_u32.to_le_bytes());
        status.push(code::SQL_MODE);
        status.extend(7_u64.to_le_bytes());
        status.extend([code::CATALOG, 3]);
        status.extend(b"std");
        status.extend([code::AUTO_INCREMENT, 2, 0, 1, 0, code::CHARSET, 45, 0, 46, 0, 8, 0]);
        status.extend([code::TIME_ZONE, 6]);
        status.extend(b"+09:00");
        status.extend([code::LC_TIME_NAMES, 5, 0, code::COLLATION_DATABASE, 33, 0, code::SCHEMAS, 2]);
        status.extend(b"a\0b\0");
        status.extend([code::MICROSECONDS, 1, 2, 0, code::EXPLICIT_TIMESTAMP, 1, code::REQUIRES_KEY, 0]);
        status.extend([code::MARIADB_COLLATIONS, 1, 45, 0, 0, 9]);
        let context = Context::read(&status).unwrap();
        let expected = Context {
            micros: 513,
            flags: Some(0x0400_4000),
            sql_mode: Some(7),
            auto_increment: Some((2, 1)),
            charset: Some([45, 46, 8]),
            time_zone: Some("+09:00".to_owned()),
            lc_time_names: Some(5),
            collation_database: Some(33),
            explicit_timestamp: Some(true),
            requires_key: Some(false),
            collations: Some(vec![(45, 2304)]),
            ..Context::default()
        };
        assert_eq!(context, expected);
    }

    #[test]
    fn what_is_not_known_is_told_and_what_is_cut_refused() {
        assert_eq!(Context::read(&[99, 1, 2]).unwrap().unknown, Some(99));
        assert_eq!(Context::read(&[code::ZERO, 1]).unwrap().unknown, Some(code::ZERO));
        assert_eq!(Context::read(&[code::ZERO, 0]).unwrap(), Context::default());
        assert!(Context::read(&[code::SQL_MODE, 1]).is_err());
        assert!(Context::read(&[code::MARIADB_GTID_FLAGS, 2, 0]).unwrap().is_part);
    }
}
