//! A key's values as SQL literals that compare as the column does.

use crate::mysql::row::{Encoder, Shape, is_null, push_value};
use crate::mysql::sql;
use crate::mysql::wire::WireError;

/// How a key column's value is written into a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyKind {
    /// Integers and decimals.
    Number,
    /// As a double: a FLOAT's decimal text would be another number.
    Double,
    /// Bits count as a number.
    Bit,
    /// Bytes of a text in this character set, compared by the column's collation.
    Text {
        charset: String,
    },
    Binary,
    /// Dates, times, UUIDs and addresses: a quoted text.
    Quoted,
}

/// One column of a key: where it stands in the row, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    pub index: usize,
    pub kind: KeyKind,
}

impl Encoder {
    /// Returns the key of a row as literals, in the order of the key.
    ///
    /// # Errors
    /// A packet that is not such a row, and a NULL, which no key has.
    pub fn key(&self, packet: &[u8], key: &[KeyColumn]) -> Result<Vec<String>, WireError> {
        let values = self.values(packet)?;
        let literal = |column: &KeyColumn| {
            let value = values.get(column.index).and_then(Option::as_deref);
            value
                .and_then(|value| literal(&column.kind, value))
                .ok_or(WireError::Protocol { what: "a key holds no value" })
        };
        key.iter().map(literal).collect()
    }

    /// Returns columns of a row as literals, NULL as none.
    ///
    /// # Errors
    /// A packet that is not such a row.
    pub(crate) fn literals(&self, packet: &[u8], columns: &[KeyColumn]) -> Result<Vec<Option<String>>, WireError> {
        let values = self.values(packet)?;
        let literal = |column: &KeyColumn| match values.get(column.index) {
            Some(None) => Ok(None),
            Some(Some(value)) => literal(&column.kind, value)
                .map(Some)
                .ok_or(WireError::Protocol { what: "a value is not of its column's type" }),
            None => Err(WireError::Protocol { what: "a row is shorter than its columns" }),
        };
        columns.iter().map(literal).collect()
    }

    /// Returns the row's values: numbers and times as text, all else as bytes.
    fn values(&self, packet: &[u8]) -> Result<Vec<Option<Vec<u8>>>, WireError> {
        let (nulls, mut cursor) = self.open(packet)?;
        let mut values = Vec::with_capacity(self.shapes.len());
        for (index, shape) in self.shapes.iter().enumerate() {
            if is_null(nulls, index) {
                values.push(None);
                continue;
            }
            let mut value = Vec::new();
            if *shape == Shape::F32 {
                let exact = f64::from(f32::from_le_bytes(cursor.array()?));
                value.extend_from_slice(exact.to_string().as_bytes());
            } else {
                push_value(*shape, &mut cursor, &mut value)?;
            }
            values.push(Some(value));
        }
        Ok(values)
    }
}

fn literal(kind: &KeyKind, value: &[u8]) -> Option<String> {
    let text = || std::str::from_utf8(value).ok();
    match kind {
        KeyKind::Number => text().map(str::to_owned),
        KeyKind::Double => {
            let number: f64 = text()?.parse().ok()?;
            Some(format!("{number:e}"))
        }
        KeyKind::Bit => Some(value.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)).to_string()),
        KeyKind::Text { charset } => Some(format!("_{charset} {}", sql::bytes(value))),
        KeyKind::Binary => Some(sql::bytes(value)),
        KeyKind::Quoted => text().map(sql::string),
    }
}
