//! ENUM columns that hold their error value, index 0: what an old statement left where it named no member.
//!
//! A dump writes it as an empty text, as the server shows it, and `LOAD DATA` takes that for index 0 again, but with a warning (1265)
//! that neither product lets itself be talked out of. So exactly these warnings are expected: as many as the chunk has such values.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use bytes::Bytes;

use crate::mysql::manifest::Column;
use crate::target::mysql::dump::DumpReadError;

/// Data truncated for column.
pub(super) const TRUNCATED: u16 = 1265;

/// Returns the places of ENUM columns without an empty member: only there does an empty text mean index 0.
pub(super) fn columns(columns: &[Column]) -> BTreeSet<usize> {
    let is_such = |(_, column): &(usize, &Column)| column.load.is_none() && has_no_empty_member(&column.sql_type);
    columns.iter().enumerate().filter(is_such).map(|(index, _)| index).collect()
}

/// Reads a type such as `enum('a','it''s')`.
fn has_no_empty_member(sql_type: &str) -> bool {
    let Some(members) = sql_type.strip_prefix("enum(").and_then(|rest| rest.strip_suffix(')')) else {
        return false;
    };
    let mut rest = members;
    while let Some(after) = rest.strip_prefix('\'') {
        let Some(length) = member_length(after) else { return false };
        if length == 0 {
            return false;
        }
        rest = after[length + 1..].trim_start_matches(',');
    }
    rest.is_empty()
}

/// Returns how many bytes come before the quote that ends a member; a quote within it is doubled.
fn member_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, bytes.get(at + 1)) {
            (b'\'', Some(b'\'')) => at += 2,
            (b'\'', _) => return Some(at),
            _ => at += 1,
        }
    }
    None
}

/// Counts the empty fields of a row file in some of its columns.
pub(super) async fn count_empty(
    mut rows: BoxStream<'static, Result<Bytes, DumpReadError>>,
    columns: &BTreeSet<usize>,
) -> Result<u64, DumpReadError> {
    let (mut column, mut is_empty, mut count) = (0, true, 0);
    while let Some(bytes) = rows.next().await {
        for byte in bytes? {
            // A tab or newline within a value is written as a backslash and a letter, never as itself.
            match byte {
                b'\t' | b'\n' => {
                    count += u64::from(is_empty && columns.contains(&column));
                    column = if byte == b'\t' { column + 1 } else { 0 };
                    is_empty = true;
                }
                _ => is_empty = false,
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[test]
    fn an_empty_member_is_told_from_a_quote_within_one() {
        for sql_type in ["enum('a')", "enum('a','b''','''')", "enum('x,'''',y','가')"] {
            assert!(has_no_empty_member(sql_type), "{sql_type}");
        }
        for sql_type in ["enum('')", "enum('a','')", "enum('','b')", "set('a')", "varchar(5)", "enum('a"] {
            assert!(!has_no_empty_member(sql_type), "{sql_type}");
        }
    }

    #[tokio::test]
    async fn only_empty_fields_of_the_named_columns_count_wherever_the_file_is_cut() {
        let text = b"1\t\t\n2\ta\t\n3\t\\N\t\n4\t\tx\n";
        for cut in 0..text.len() {
            let pieces = [text[..cut].to_vec(), text[cut..].to_vec()].map(|piece| Ok(Bytes::from(piece)));
            let count = count_empty(stream::iter(pieces).boxed(), &BTreeSet::from([1])).await;
            assert_eq!(count.unwrap(), 2, "cut at {cut}");
        }
    }
}
