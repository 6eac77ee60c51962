//! What had been executed before a file began: both products write it at its head.

use crate::mysql::binlog::Malformed;
use crate::mysql::gtid::{BinlogState, GtidSet, MariaDbGtid, NUMBER_END, Tsid, Uuid};
use crate::mysql::wire::cursor::Cursor;

/// Parses MySQL's `Previous_gtids`, whose body is without header and checksum.
pub fn previous_gtids(body: &[u8]) -> Result<GtidSet, Malformed> {
    let mut cursor = Cursor::new(body);
    let head = cursor.u64()?;
    // The highest byte is the form. With tags (1), the lowest byte repeats it and the number of origins stands between.
    let (is_tagged, origins) = match head >> 56 {
        0 => (false, head),
        1 => (true, (head << 8) >> 16),
        _ => return Err(Malformed("its GTID set is of an unknown form")),
    };
    let mut set = GtidSet::default();
    for _ in 0..origins {
        add_origin(&mut set, &mut cursor, is_tagged)?;
    }
    if cursor.rest().is_empty() { Ok(set) } else { Err(Malformed("its GTID set is longer than it says")) }
}

fn add_origin(set: &mut GtidSet, cursor: &mut Cursor<'_>, is_tagged: bool) -> Result<(), Malformed> {
    let uuid = Uuid::from_bytes(cursor.array()?);
    let tag = if is_tagged { tag(cursor)? } else { "" };
    let tsid = Tsid::new(uuid, tag).map_err(|_| Malformed("a GTID's tag is none"))?;
    for _ in 0..cursor.u64()? {
        let (start, end) = (cursor.u64()?, cursor.u64()?);
        if start == 0 || start >= end || end > NUMBER_END {
            return Err(Malformed("an interval of GTIDs is none"));
        }
        set.add_interval(tsid.clone(), start, end);
    }
    Ok(())
}

fn tag<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, Malformed> {
    let length = varlen(cursor)?;
    let bytes = cursor.take(usize::try_from(length).map_err(|_| Malformed("a GTID's tag is too long"))?)?;
    std::str::from_utf8(bytes).map_err(|_| Malformed("a GTID's tag is no text"))
}

/// Reads a number of MySQL's serialization library: as many low bits as it has further bytes are set, and the rest is the number.
pub(super) fn varlen(cursor: &mut Cursor<'_>) -> Result<u64, Malformed> {
    let first = cursor.u8()?;
    let further = first.trailing_ones() as usize;
    if further >= 7 {
        // Seven further bytes leave no bit of the first for the number, and eight are the number itself.
        let mut bytes = [0; 8];
        bytes[..further].copy_from_slice(cursor.take(further)?);
        return Ok(u64::from_le_bytes(bytes));
    }
    let mut bytes = [0; 8];
    bytes[0] = first;
    bytes[1..=further].copy_from_slice(cursor.take(further)?);
    Ok(u64::from_le_bytes(bytes) >> (further + 1))
}

/// Parses MariaDB's `Gtid_list`, whose body is without header and checksum.
pub fn mariadb_gtid_list(body: &[u8]) -> Result<BinlogState, Malformed> {
    let mut cursor = Cursor::new(body);
    // The four highest bits are flags.
    let count = cursor.u32()? & 0x0FFF_FFFF;
    let mut state = BinlogState::default();
    for _ in 0..count {
        state.add(MariaDbGtid { domain: cursor.u32()?, server: cursor.u32()?, sequence: cursor.u64()? });
    }
    Ok(state)
}
