//! Table maps: which table the rows after them are of, and how long each column's value is.

use std::io;

use crate::mysql::binlog::fields::Fields;

/// A table's name, as the binlog writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct TableName {
    pub schema: String,
    /// Empty where a statement is about the schema as a whole.
    pub table: String,
}

/// How many bytes a value takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Fixed(u32),
    /// So many bytes are its length, and then it comes.
    Prefixed(u8),
}

/// What no server's table has more of: columns, and bytes that describe them.
const COLUMNS_MAX: u64 = 4096;
const METADATA_BYTES_MAX: u64 = 8 * 1024;

#[derive(Debug)]
pub(super) struct TableMap {
    pub(super) name: TableName,
    /// None where a type is not known: such rows are not counted.
    columns: Option<Vec<Size>>,
    pub(super) json_columns: usize,
}

/// The types of columns whose values or metadata are not of the plainest form.
mod kind {
    pub(super) const FLOAT: u8 = 4;
    pub(super) const DOUBLE: u8 = 5;
    pub(super) const VARCHAR: u8 = 15;
    pub(super) const BIT: u8 = 16;
    pub(super) const TIMESTAMP2: u8 = 17;
    pub(super) const DATETIME2: u8 = 18;
    pub(super) const TIME2: u8 = 19;
    /// MariaDB's columns that are `COMPRESSED`.
    pub(super) const BLOB_COMPRESSED: u8 = 140;
    pub(super) const VARCHAR_COMPRESSED: u8 = 141;
    pub(super) const VECTOR: u8 = 242;
    pub(super) const JSON: u8 = 245;
    pub(super) const DECIMAL: u8 = 246;
    pub(super) const ENUM: u8 = 247;
    pub(super) const SET: u8 = 248;
    pub(super) const TINY_BLOB: u8 = 249;
    pub(super) const BLOB: u8 = 252;
    pub(super) const VAR_STRING: u8 = 253;
    pub(super) const STRING: u8 = 254;
    pub(super) const GEOMETRY: u8 = 255;
}

impl TableMap {
    /// Reads a table map's body: its table's number and what it says of it.
    pub(super) fn read(body: &mut Fields<'_>) -> io::Result<(u64, Self)> {
        let id = body.int(6)?;
        let _flags = body.int(2)?;
        let name = TableName { schema: name(body)?, table: name(body)? };
        let count = body.length()?;
        if count > COLUMNS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let types = body.take(count)?;
        let metadata_bytes = body.length()?;
        if metadata_bytes > METADATA_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let metadata = body.take(metadata_bytes)?;
        let json_columns = types.iter().map(|column| usize::from(*column == kind::JSON)).sum();
        Ok((id, Self { name, columns: sizes(&types, &metadata), json_columns }))
    }

    /// Returns the sizes of the columns that a bitmap names, or none where one is of an unknown type.
    pub(super) fn present(&self, bitmap: &[u8]) -> Option<Present> {
        let columns = self.columns.as_ref()?;
        let is_present = |index: usize| bitmap.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0);
        let present = columns.iter().enumerate().filter(|(index, _)| is_present(*index));
        Some(Present(present.map(|(_, size)| *size).collect()))
    }
}

/// The columns of a row's image.
#[derive(Debug)]
pub(super) struct Present(Vec<Size>);

impl Present {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes past one image, whose first byte has been read: the bits of its NULLs, and the values of the others.
    pub(super) fn skip(&self, first: u8, body: &mut Fields<'_>) -> io::Result<()> {
        let mut nulls = body.take(self.0.len().div_ceil(8).saturating_sub(1) as u64)?;
        nulls.insert(0, first);
        for (index, size) in self.0.iter().enumerate() {
            if nulls[index / 8] & (1 << (index % 8)) != 0 {
                continue;
            }
            let bytes = match size {
                Size::Fixed(bytes) => u64::from(*bytes),
                Size::Prefixed(bytes) => body.int(usize::from(*bytes))?,
            };
            body.skip(bytes)?;
        }
        Ok(())
    }
}

/// Reads a name: its length, its bytes and a NUL.
fn name(body: &mut Fields<'_>) -> io::Result<String> {
    let length = body.u8()?;
    let bytes = body.take(u64::from(length))?;
    body.skip(1)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns how long the values of each column are, or none where a type is not known.
fn sizes(types: &[u8], metadata: &[u8]) -> Option<Vec<Size>> {
    let mut rest = metadata;
    types.iter().map(|column| size(*column, &mut rest)).collect()
}

fn size(column: u8, metadata: &mut &[u8]) -> Option<Size> {
    let (own, rest) = metadata.split_at_checked(metadata_bytes(column))?;
    *metadata = rest;
    let (low, high) = (own.first().copied().unwrap_or(0), own.get(1).copied().unwrap_or(0));
    Some(match column {
        kind::FLOAT | kind::DOUBLE => Size::Fixed(low.into()),
        kind::VARCHAR | kind::VAR_STRING | kind::VARCHAR_COMPRESSED => prefix_of(u16::from_le_bytes([low, high])),
        kind::BIT => Size::Fixed(u32::from(high) + u32::from(low > 0)),
        kind::TIMESTAMP2 => Size::Fixed(4 + fraction(low)),
        kind::DATETIME2 => Size::Fixed(5 + fraction(low)),
        kind::TIME2 => Size::Fixed(3 + fraction(low)),
        kind::DECIMAL => Size::Fixed(decimal(low, high)?),
        kind::STRING => string(low, high),
        kind::ENUM | kind::SET => Size::Fixed(high.into()),
        kind::JSON | kind::VECTOR | kind::BLOB_COMPRESSED | kind::GEOMETRY | kind::TINY_BLOB..=kind::BLOB => {
            (1..=4).contains(&low).then_some(Size::Prefixed(low))?
        }
        _ => Size::Fixed(plain(column)?),
    })
}

fn metadata_bytes(column: u8) -> usize {
    match column {
        kind::FLOAT | kind::DOUBLE | kind::TIMESTAMP2..=kind::TIME2 | kind::BLOB_COMPRESSED => 1,
        kind::VECTOR | kind::JSON | kind::TINY_BLOB..=kind::BLOB | kind::GEOMETRY => 1,
        kind::VARCHAR | kind::BIT | kind::VARCHAR_COMPRESSED | kind::DECIMAL => 2,
        kind::ENUM | kind::SET | kind::VAR_STRING | kind::STRING => 2,
        _ => 0,
    }
}

/// Returns the size of values that have no metadata.
fn plain(column: u8) -> Option<u32> {
    Some(match column {
        // TINYINT, YEAR; SMALLINT; MEDIUMINT, DATE and TIME of old; INT, TIMESTAMP of old; BIGINT, DATETIME of old; NULL.
        1 | 13 => 1,
        2 => 2,
        9..=11 | 14 => 3,
        3 | 7 => 4,
        8 | 12 => 8,
        6 => 0,
        _ => return None,
    })
}

fn prefix_of(length_max: u16) -> Size {
    Size::Prefixed(if length_max < 256 { 1 } else { 2 })
}

/// Returns how many bytes the digits of a second take.
fn fraction(digits: u8) -> u32 {
    u32::from(digits).div_ceil(2)
}

/// Reads CHAR's metadata. The first byte is the type, or that of an ENUM or SET, and has in two of its bits, inverted, the highest of
/// the length that the second byte is.
fn string(low: u8, high: u8) -> Size {
    if low == kind::ENUM || low == kind::SET {
        return Size::Fixed(high.into());
    }
    prefix_of(u16::from(high) | ((u16::from(low) & 0x30) ^ 0x30) << 4)
}

/// Nine digits take four bytes, and fewer take less; before and after the point, each for itself.
fn decimal(precision: u8, scale: u8) -> Option<u32> {
    const LEFT_OVER: [u32; 9] = [0, 1, 1, 2, 2, 3, 3, 4, 4];
    let bytes = |digits: u8| u32::from(digits / 9) * 4 + LEFT_OVER[usize::from(digits % 9)];
    Some(bytes(precision.checked_sub(scale)?) + bytes(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_as_long_as_its_type_says() {
        let cases: &[(u8, &[u8], Option<Size>)] = &[
            (1, &[], Some(Size::Fixed(1))),
            (8, &[], Some(Size::Fixed(8))),
            (9, &[], Some(Size::Fixed(3))),
            (kind::DOUBLE, &[8], Some(Size::Fixed(8))),
            (kind::VARCHAR, &[255, 0], Some(Size::Prefixed(1))),
            (kind::VARCHAR, &[0, 1], Some(Size::Prefixed(2))),
            (kind::BIT, &[1, 7], Some(Size::Fixed(8))),
            (kind::DATETIME2, &[6], Some(Size::Fixed(8))),
            (kind::DECIMAL, &[65, 30], Some(Size::Fixed(30))),
            (kind::DECIMAL, &[3, 5], None),
            (kind::STRING, &[254, 40], Some(Size::Prefixed(1))),
            // CHAR(255) of four bytes a character: 1020 bytes.
            (kind::STRING, &[0xCE, 0xFC], Some(Size::Prefixed(2))),
            (kind::STRING, &[kind::ENUM, 2], Some(Size::Fixed(2))),
            (kind::BLOB, &[3], Some(Size::Prefixed(3))),
            (kind::BLOB, &[9], None),
            (kind::BLOB, &[], None),
            (99, &[], None),
        ];
        for (column, metadata, expected) in cases {
            assert_eq!(size(*column, &mut &**metadata), *expected, "{column} {metadata:?}");
        }
    }
}
