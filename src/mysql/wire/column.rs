//! What a result says of one of its columns.

use crate::mysql::wire::cursor::Cursor;
use crate::mysql::wire::error::WireError;

/// The column's numbers are unsigned.
const UNSIGNED: u16 = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDefinition {
    pub name: String,
    /// The protocol's number of the type.
    pub kind: u8,
    pub is_unsigned: bool,
    /// Digits after the point; for times, those of the second.
    pub decimals: u8,
}

impl ColumnDefinition {
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(packet);
        for _catalog_schema_table_original in 0..4 {
            cursor.bytes()?;
        }
        let name = String::from_utf8_lossy(cursor.bytes()?).into_owned();
        cursor.bytes()?;
        cursor.length()?;
        let _charset_and_length = (cursor.u16()?, cursor.u32()?);
        let kind = cursor.u8()?;
        let flags = cursor.u16()?;
        Ok(Self { name, kind, is_unsigned: flags & UNSIGNED != 0, decimals: cursor.u8()? })
    }
}
