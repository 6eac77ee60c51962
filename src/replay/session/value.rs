//! Values that the binlog gives to the statement after them, as assignments of `SET`. Pure.

use std::fmt::Write as _;

use crate::mysql::binlog::{Event, Kind, Malformed};
use crate::mysql::sql;
use crate::mysql::wire::cursor::Cursor;
use crate::replay::session::dialect::Dialect;

/// Which number an event of numbers gives.
const LAST_INSERT_ID: u8 = 1;
const INSERT_ID: u8 = 2;

/// The types of a user variable.
mod kind {
    pub(super) const STRING: u8 = 0;
    pub(super) const REAL: u8 = 1;
    pub(super) const INT: u8 = 2;
    pub(super) const DECIMAL: u8 = 4;
}

/// A user variable's flag: its number is never negative.
const UNSIGNED: u8 = 1;

/// Returns the assignments that an event is, or none where it is another.
///
/// # Errors
/// What makes no sense, or that the target cannot be told.
pub(super) fn assigned(event: &Event<'_>, dialect: &Dialect) -> Result<Option<String>, String> {
    let mut cursor = Cursor::new(event.body());
    let read = match event.header.kind {
        Kind::INTVAR => number(&mut cursor).map_err(Malformed::from),
        Kind::RAND => seeds(&mut cursor).map_err(Malformed::from),
        Kind::USER_VAR => return variable(&mut cursor, dialect).map(Some),
        _ => return Ok(None),
    };
    read.map(Some).map_err(|malformed| format!("holds an event of values that makes no sense: {malformed}"))
}

fn number(cursor: &mut Cursor<'_>) -> Result<String, crate::mysql::wire::WireError> {
    let (which, value) = (cursor.u8()?, cursor.u64()?);
    let name = match which {
        LAST_INSERT_ID => "last_insert_id",
        INSERT_ID => "insert_id",
        _ => return Err(crate::mysql::wire::WireError::Protocol { what: "it names no number" }),
    };
    Ok(format!("@@session.{name} = {value}"))
}

fn seeds(cursor: &mut Cursor<'_>) -> Result<String, crate::mysql::wire::WireError> {
    Ok(format!("@@session.rand_seed1 = {}, @@session.rand_seed2 = {}", cursor.u64()?, cursor.u64()?))
}

fn variable(cursor: &mut Cursor<'_>, dialect: &Dialect) -> Result<String, String> {
    let cut = |_| "holds a user variable that is cut off".to_owned();
    let length = cursor.u32().map_err(cut)?;
    let name = String::from_utf8_lossy(cursor.take(length as usize).map_err(cut)?).into_owned();
    let name = format!("@{}", sql::ident(&name));
    if cursor.u8().map_err(cut)? != 0 {
        return Ok(format!("{name} = NULL"));
    }
    let (kind, collation, length) = (cursor.u8().map_err(cut)?, cursor.u32().map_err(cut)?, cursor.u32().map_err(cut)?);
    let bytes = cursor.take(length as usize).map_err(cut)?;
    let is_unsigned = cursor.rest().first().is_some_and(|flags| flags & UNSIGNED != 0);
    let odd = || format!("gives the user variable {name} a value that bkp cannot read");
    let value = match kind {
        kind::STRING => {
            let (charset, collation) = dialect.collation(collation)?;
            format!("_{charset} {} COLLATE {collation}", sql::bytes(bytes))
        }
        // With an exponent: without one it would be a decimal.
        kind::REAL => format!("{:e}", f64::from_le_bytes(bytes.try_into().map_err(|_| odd())?)),
        kind::INT => {
            let value = i64::from_le_bytes(bytes.try_into().map_err(|_| odd())?);
            if is_unsigned { value.cast_unsigned().to_string() } else { value.to_string() }
        }
        kind::DECIMAL => decimal(bytes).ok_or_else(odd)?,
        _ => return Err(odd()),
    };
    Ok(format!("{name} = {value}"))
}

/// How many bytes so many digits take that are no whole nine.
const LEFT_OVER: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
const GROUP: usize = 9;

/// Reads a decimal: its precision, its scale, and digits in groups of nine, the highest bit of which is the sign.
fn decimal(value: &[u8]) -> Option<String> {
    let ([precision, scale], digits) = value.split_first_chunk()?;
    let (scale, whole) = (usize::from(*scale), usize::from(precision.checked_sub(*scale)?));
    let is_negative = digits.first()? & 0x80 == 0;
    let mut digits = digits.to_vec();
    digits[0] ^= 0x80;
    if is_negative {
        for byte in &mut digits {
            *byte = !*byte;
        }
    }
    let mut cursor = Cursor::new(&digits);
    let mut text = String::from(if is_negative { "-" } else { "" });
    let groups = |count: usize| std::iter::repeat_n(GROUP, count / GROUP);
    let before = Some(whole % GROUP).into_iter().filter(|rest| *rest > 0).chain(groups(whole));
    let after = groups(scale).chain(Some(scale % GROUP).filter(|rest| *rest > 0));
    if whole == 0 {
        text.push('0');
    }
    for count in before {
        group(&mut text, &mut cursor, count)?;
    }
    if scale > 0 {
        text.push('.');
    }
    for count in after {
        group(&mut text, &mut cursor, count)?;
    }
    cursor.rest().is_empty().then_some(text)
}

fn group(text: &mut String, cursor: &mut Cursor<'_>, digits: usize) -> Option<()> {
    let bytes = cursor.take(LEFT_OVER[digits]).ok()?;
    let value = bytes.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
    write!(text, "{value:0digits$}").ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::mysql::binlog::{Checksum, Header};
    use crate::mysql::manifest::Product;

    fn told(kind: Kind, body: &[u8]) -> Result<Option<String>, String> {
        let mut event = vec![0; Header::BYTES];
        event[4] = kind.0;
        event[9..13].copy_from_slice(&((Header::BYTES + body.len()) as u32).to_le_bytes());
        event.extend_from_slice(body);
        assigned(&Event::parse(&event, 4, Checksum::None).unwrap(), &Dialect::plain(Product::MySql))
    }

    fn variable(kind: u8, value: &[u8], flags: u8) -> String {
        let mut body = vec![3, 0, 0, 0];
        body.extend(b"a`b");
        body.extend([0, kind, 224, 0, 0, 0]);
        body.extend((value.len() as u32).to_le_bytes());
        body.extend(value);
        body.push(flags);
        told(Kind::USER_VAR, &body).unwrap().unwrap().replace("@`a``b` = ", "")
    }

    #[test]
    fn numbers_and_seeds_are_set() {
        let of = |which: u8| [&[which][..], &77_u64.to_le_bytes()].concat();
        assert_eq!(told(Kind::INTVAR, &of(2)).unwrap().unwrap(), "@@session.insert_id = 77");
        assert_eq!(told(Kind::INTVAR, &of(1)).unwrap().unwrap(), "@@session.last_insert_id = 77");
        assert!(told(Kind::INTVAR, &of(9)).is_err());
        let seeds = [1_u64.to_le_bytes(), 2_u64.to_le_bytes()].concat();
        assert_eq!(told(Kind::RAND, &seeds).unwrap().unwrap(), "@@session.rand_seed1 = 1, @@session.rand_seed2 = 2");
        assert_eq!(told(Kind::XID, &seeds).unwrap(), None);
    }

    #[test]
    fn a_user_variable_keeps_its_type_and_its_bytes() {
        assert_eq!(variable(kind::STRING, b"it's\\", 0), "_utf8mb4 X'697427735C' COLLATE utf8mb4_unicode_ci");
        assert_eq!(variable(kind::REAL, &0.1_f64.to_le_bytes(), 0), "1e-1");
        assert_eq!(variable(kind::INT, &(-5_i64).to_le_bytes(), 0), "-5");
        assert_eq!(variable(kind::INT, &u64::MAX.to_le_bytes(), UNSIGNED), "18446744073709551615");
        // 1234567890.1234 and its negative, as the servers' manuals have them.
        let bytes = [14, 4, 0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2];
        assert_eq!(variable(kind::DECIMAL, &bytes, 0), "1234567890.1234");
        let bytes = [14, 4, 0x7E, 0xF2, 0x04, 0xC7, 0x2D, 0xFB, 0x2D];
        assert_eq!(variable(kind::DECIMAL, &bytes, 0), "-1234567890.1234");
        let null = [&[1, 0, 0, 0, b'a'][..], &[1]].concat();
        assert_eq!(told(Kind::USER_VAR, &null).unwrap().unwrap(), "@`a` = NULL");
        assert!(told(Kind::USER_VAR, &null[..3]).is_err());
    }
}
