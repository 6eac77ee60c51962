//! A row's packet as a line of `LOAD DATA` text, and a key's columns as SQL literals.
//!
//! The text is what `LOAD DATA … CHARACTER SET binary FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n'`
//! reads back to the same bytes: backslash, tab, newline and NUL are escaped, `\N` is NULL, all else stands as it is, in the
//! column's own character set. (`\r` needs no escape, because lines end with a newline alone.) Numbers are exact: FLOAT and
//! DOUBLE in the shortest form that reads back to the same bits.

use crate::mysql::wire::cursor::Cursor;
use crate::mysql::wire::{ColumnDefinition, WireError};

mod literal;
mod number;
mod temporal;

pub use literal::{KeyColumn, KeyKind};

/// How a column's bytes stand in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    Year,
    Date,
    /// With so many digits of a second.
    DateTime(u8),
    Time(u8),
    /// Bytes after their length: texts, decimals, bits, JSON, geometries.
    Bytes,
}

impl Shape {
    fn of(column: &ColumnDefinition) -> Result<Self, WireError> {
        // More than six digits means "unknown" (31): expressions, never columns.
        let digits = if column.decimals > 6 { 0 } else { column.decimals };
        Ok(match (column.kind, column.is_unsigned) {
            (0x01, false) => Self::I8,
            (0x01, true) => Self::U8,
            (0x02, false) => Self::I16,
            (0x02, true) => Self::U16,
            (0x03 | 0x09, false) => Self::I32,
            (0x03 | 0x09, true) => Self::U32,
            (0x08, false) => Self::I64,
            (0x08, true) => Self::U64,
            (0x04, _) => Self::F32,
            (0x05, _) => Self::F64,
            (0x0D, _) => Self::Year,
            (0x0A | 0x0E, _) => Self::Date,
            (0x07 | 0x0C, _) => Self::DateTime(digits),
            (0x0B, _) => Self::Time(digits),
            (0x00 | 0x0F | 0x10 | 0xF2 | 0xF5..=0xFF, _) => Self::Bytes,
            _ => {
                return Err(WireError::Protocol { what: "a column is of an unknown type" });
            }
        })
    }
}

/// Turns the packets of one statement's rows into text.
#[derive(Debug, Clone)]
pub struct Encoder {
    shapes: Vec<Shape>,
}

impl Encoder {
    pub fn new(columns: &[ColumnDefinition]) -> Result<Self, WireError> {
        let shapes = columns.iter().map(Shape::of).collect::<Result<_, _>>()?;
        Ok(Self { shapes })
    }

    /// Appends the row as one line.
    ///
    /// # Errors
    /// A packet that is not a row of these columns.
    #[inline]
    pub fn encode(&self, packet: &[u8], line: &mut Vec<u8>) -> Result<(), WireError> {
        let (nulls, mut cursor) = self.open(packet)?;
        for (index, shape) in self.shapes.iter().enumerate() {
            if index > 0 {
                line.push(b'\t');
            }
            if is_null(nulls, index) {
                line.extend_from_slice(b"\\N");
            } else if *shape == Shape::Bytes {
                push_escaped(line, cursor.bytes()?);
            } else {
                push_value(*shape, &mut cursor, line)?;
            }
        }
        line.push(b'\n');
        if cursor.rest().is_empty() {
            Ok(())
        } else {
            Err(WireError::Protocol { what: "a row is longer than its columns" })
        }
    }

    /// Splits a row into its NULL bits and its values.
    #[inline]
    fn open<'a>(&self, packet: &'a [u8]) -> Result<(&'a [u8], Cursor<'a>), WireError> {
        let mut cursor = Cursor::new(packet);
        cursor.u8()?;
        let nulls = cursor.take((self.shapes.len() + 9) / 8)?;
        Ok((nulls, cursor))
    }
}

/// Tells whether a column is NULL; the bits begin at the third.
#[inline]
fn is_null(nulls: &[u8], index: usize) -> bool {
    let bit = index + 2;
    nulls.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
}

/// Appends a value that needs no escape.
#[inline]
fn push_value(shape: Shape, cursor: &mut Cursor<'_>, line: &mut Vec<u8>) -> Result<(), WireError> {
    match shape {
        Shape::I8 => number::push_int(line, i8::from_le_bytes(cursor.array()?)),
        Shape::U8 => number::push_int(line, cursor.u8()?),
        Shape::I16 => number::push_int(line, i16::from_le_bytes(cursor.array()?)),
        Shape::U16 => number::push_int(line, cursor.u16()?),
        Shape::I32 => number::push_int(line, i32::from_le_bytes(cursor.array()?)),
        Shape::U32 => number::push_int(line, cursor.u32()?),
        Shape::I64 => number::push_int(line, i64::from_le_bytes(cursor.array()?)),
        Shape::U64 => number::push_int(line, cursor.u64()?),
        Shape::F32 => number::push_f32(line, f32::from_le_bytes(cursor.array()?)),
        Shape::F64 => number::push_f64(line, f64::from_le_bytes(cursor.array()?)),
        Shape::Year => temporal::push_year(line, cursor.u16()?),
        Shape::Date => temporal::push_date(line, cursor.bytes()?)?,
        Shape::DateTime(digits) => temporal::push_datetime(line, cursor.bytes()?, digits)?,
        Shape::Time(digits) => temporal::push_time(line, cursor.bytes()?, digits)?,
        Shape::Bytes => line.extend_from_slice(cursor.bytes()?),
    }
    Ok(())
}

/// What follows the backslash in place of a byte, or zero for a byte that stands as it is.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    escapes[b'\\' as usize] = b'\\';
    escapes[b'\t' as usize] = b't';
    escapes[b'\n' as usize] = b'n';
    escapes[0] = b'0';
    escapes
};

#[inline]
fn push_escaped(line: &mut Vec<u8>, mut bytes: &[u8]) {
    while let Some(at) = bytes.iter().position(|byte| ESCAPES[usize::from(*byte)] != 0) {
        line.extend_from_slice(&bytes[..at]);
        line.extend_from_slice(&[b'\\', ESCAPES[usize::from(bytes[at])]]);
        bytes = &bytes[at + 1..];
    }
    line.extend_from_slice(bytes);
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::panic, reason = "a test may panic")]
mod tests;
