//! The event that begins a transaction and names it.

use chrono::{DateTime, Utc};

use crate::mysql::binlog::start::varlen;
use crate::mysql::binlog::{Event, Kind, Malformed};
use crate::mysql::gtid::{Gtid, MariaDbGtid, MySqlGtid, NUMBER_END, Tsid, Uuid};
use crate::mysql::wire::cursor::Cursor;

/// MariaDB's flag: one event makes the transaction, and no COMMIT ends it.
const STANDALONE: u8 = 1;

/// MySQL's mark that the fields of its logical clock follow.
const LOGICAL_CLOCK: u8 = 2;

/// Set in a commit time of 7 bytes where the original server's follows.
const HAS_ORIGINAL: u64 = 1 << 55;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GtidEvent {
    /// None where MySQL works without GTIDs.
    pub gtid: Option<Gtid>,
    /// When the server that wrote this file committed it: MySQL 8.0 and later say so.
    pub committed: Option<DateTime<Utc>>,
    /// How many bytes the whole transaction takes, this event included: MySQL 8.0 and later say so.
    pub transaction_bytes: Option<u64>,
    /// One event makes the transaction, and no COMMIT ends it: MariaDB says so.
    pub is_standalone: bool,
}

impl GtidEvent {
    /// Parses an event that begins a transaction, or returns none where it is another.
    pub fn parse(event: &Event<'_>) -> Result<Option<Self>, Malformed> {
        let parse = match event.header.kind {
            Kind::GTID | Kind::ANONYMOUS_GTID => plain,
            Kind::GTID_TAGGED => tagged,
            Kind::MARIADB_GTID => {
                let mut cursor = Cursor::new(event.body());
                return mariadb(&mut cursor, event.header.server_id).map(Some);
            }
            _ => return Ok(None),
        };
        parse(&mut Cursor::new(event.body())).map(Some)
    }
}

fn mariadb(cursor: &mut Cursor<'_>, server: u32) -> Result<GtidEvent, Malformed> {
    let (sequence, domain, flags) = (cursor.u64()?, cursor.u32()?, cursor.u8()?);
    Ok(GtidEvent {
        gtid: Some(Gtid::MariaDb(MariaDbGtid { domain, server, sequence })),
        committed: None,
        transaction_bytes: None,
        is_standalone: flags & STANDALONE != 0,
    })
}

fn plain(cursor: &mut Cursor<'_>) -> Result<GtidEvent, Malformed> {
    let _flags = cursor.u8()?;
    let (uuid, number) = (Uuid::from_bytes(cursor.array()?), cursor.u64()?);
    let gtid = if number == 0 { None } else { Some(named(uuid, "", number)?) };
    let mut event = GtidEvent { gtid, committed: None, transaction_bytes: None, is_standalone: false };
    // Each version has added fields at the end: 5.7 the clock, 8.0 the times and the length.
    if cursor.rest().first() == Some(&LOGICAL_CLOCK) && cursor.rest().len() >= 1 + 16 + 7 {
        cursor.take(1 + 16)?;
        let committed = seven_bytes(cursor)?;
        if committed & HAS_ORIGINAL != 0 {
            seven_bytes(cursor)?;
        }
        event.committed = Some(time(committed & !HAS_ORIGINAL)?);
        if !cursor.rest().is_empty() {
            event.transaction_bytes = Some(cursor.length()? as u64);
        }
    }
    Ok(event)
}

fn seven_bytes(cursor: &mut Cursor<'_>) -> Result<u64, Malformed> {
    let mut bytes = [0; 8];
    bytes[..7].copy_from_slice(cursor.take(7)?);
    Ok(u64::from_le_bytes(bytes))
}

fn time(micros: u64) -> Result<DateTime<Utc>, Malformed> {
    let time = i64::try_from(micros).ok().and_then(DateTime::from_timestamp_micros);
    time.ok_or(Malformed("its commit time is no time"))
}

fn named(uuid: Uuid, tag: &str, number: u64) -> Result<Gtid, Malformed> {
    let tsid = Tsid::new(uuid, tag).map_err(|_| Malformed("a GTID's tag is none"))?;
    if !(1..NUMBER_END).contains(&number) {
        return Err(Malformed("a GTID's number is none"));
    }
    Ok(Gtid::MySql(MySqlGtid { tsid, number }))
}

/// The fields of a tagged GTID by their numbers. Those which bkp does not need are read past by their form.
mod field {
    pub(super) const FLAGS: u64 = 0;
    pub(super) const UUID: u64 = 1;
    pub(super) const NUMBER: u64 = 2;
    pub(super) const TAG: u64 = 3;
    pub(super) const COMMITTED: u64 = 6;
    pub(super) const TRANSACTION_BYTES: u64 = 8;
    pub(super) const LAST_KNOWN: u64 = 11;
}

/// Parses a message of MySQL's serialization library: its version, its size, the last field that a reader must know, and fields,
/// each its number and its value. A field that has its default value may be left out.
fn tagged(cursor: &mut Cursor<'_>) -> Result<GtidEvent, Malformed> {
    if varlen(cursor)? != 1 {
        return Err(Malformed("its fields are of an unknown form"));
    }
    let (_size, last_needed) = (varlen(cursor)?, varlen(cursor)?);
    let (mut uuid, mut tag, mut number) = ([0; 16], String::new(), 0);
    let mut event = GtidEvent { gtid: None, committed: None, transaction_bytes: None, is_standalone: false };
    while !cursor.rest().is_empty() {
        match varlen(cursor)? {
            field::UUID => uuid = serialized_uuid(cursor)?,
            // Signed numbers have their sign in the lowest bit, and a GTID's is never negative.
            field::NUMBER => number = varlen(cursor)? >> 1,
            field::TAG => tag = text(cursor)?,
            field::COMMITTED => event.committed = Some(time(varlen(cursor)?)?),
            field::TRANSACTION_BYTES => event.transaction_bytes = Some(varlen(cursor)?),
            field::FLAGS..=field::LAST_KNOWN => drop(varlen(cursor)?),
            unknown if unknown <= last_needed => return Err(Malformed("it has a field that must be known and is not")),
            // How long an unknown field is, nobody can tell; it comes after all that are known.
            _ => break,
        }
    }
    event.gtid = Some(named(Uuid::from_bytes(uuid), &tag, number)?);
    Ok(event)
}

/// Reads sixteen bytes, each written as a number.
fn serialized_uuid(cursor: &mut Cursor<'_>) -> Result<[u8; 16], Malformed> {
    let mut uuid = [0; 16];
    for byte in &mut uuid {
        *byte = u8::try_from(varlen(cursor)?).map_err(|_| Malformed("a UUID's byte is no byte"))?;
    }
    Ok(uuid)
}

fn text(cursor: &mut Cursor<'_>) -> Result<String, Malformed> {
    let length = usize::try_from(varlen(cursor)?).map_err(|_| Malformed("a text is too long"))?;
    let bytes = cursor.take(length)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a GTID's tag is no text"))
}
