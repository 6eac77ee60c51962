//! Bounds taken over from the dump before: where they still fit, unchanged rows make the same files, known by their hash.

use crate::mysql::manifest::{Chunk, TableEntry};
use crate::mysql::row::{KeyColumn, KeyKind};
use crate::mysql::wire::Wire;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::inventory::Table;
use crate::source::mysql::key::Key;
use crate::source::mysql::session::rows;

/// Comparisons asked of the server in one statement.
const COMPARED_AT_ONCE: usize = 100;

/// Returns the bounds of its entry in the earlier dump that still cut this table, or `None` where there are none that fit.
pub(crate) fn taken_over(
    wire: &mut Wire,
    entry: &TableEntry,
    table: &Table,
    chunk_bytes: u64,
) -> Result<Option<Vec<Vec<String>>>, MysqlSourceError> {
    let Some(key) = &table.key else {
        return Ok(None);
    };
    if !is_cut_alike(entry, table, key) {
        return Ok(None);
    }
    let bounds = merged(&entry.chunks, chunk_bytes);
    if bounds.is_empty() || !bounds.iter().all(|bound| is_bound_of(key, bound)) {
        return Ok(None);
    }
    Ok(is_in_order(wire, key, &bounds)?.then_some(bounds))
}

/// Tells whether key and types are still those of the bounds.
fn is_cut_alike(entry: &TableEntry, table: &Table, key: &Key) -> bool {
    let sql_type = |columns: &[crate::mysql::manifest::Column], name: &String| {
        columns.iter().find(|column| column.name == *name).map(|column| column.sql_type.clone())
    };
    entry.key == key.columns
        && key.columns.iter().all(|name| sql_type(&entry.columns, name) == sql_type(&table.columns, name))
}

/// Tells whether a bound has a value for each column, and each text in the character set that its column has now.
fn is_bound_of(key: &Key, bound: &[String]) -> bool {
    let fits = |(value, part): (&String, &KeyColumn)| match &part.kind {
        KeyKind::Text { charset } => value.starts_with(&format!("_{charset} ")),
        _ => true,
    };
    bound.len() == key.parts.len() && bound.iter().zip(&key.parts).all(fits)
}

/// Returns the upper bounds of chunks, without those between small neighbours that now fit into one. The last chunk, in which a
/// table grows, stays as it was cut: joined, it would make another file of what has not changed.
fn merged(chunks: &[Chunk], chunk_bytes: u64) -> Vec<Vec<String>> {
    let mut bounds = Vec::new();
    let mut bytes = 0;
    for (at, chunk) in chunks.iter().enumerate() {
        bytes += chunk.bytes;
        let next = chunks.get(at + 1).map_or(0, |next| next.bytes);
        let is_small = bytes < chunk_bytes / 4 || next < chunk_bytes / 4;
        let joins_next = at + 2 < chunks.len() && is_small && bytes + next <= chunk_bytes;
        if !joins_next {
            bounds.extend(chunk.upper.clone());
            bytes = 0;
        }
    }
    bounds
}

/// Asks the server whether the bounds still ascend: a text column may have got another collation.
fn is_in_order(wire: &mut Wire, key: &Key, bounds: &[Vec<String>]) -> Result<bool, MysqlSourceError> {
    let has_text = key.parts.iter().any(|part| matches!(part.kind, KeyKind::Text { .. }));
    if !has_text {
        return Ok(true);
    }
    // An address's text is ordered otherwise than the address.
    if key.parts.iter().any(|part| part.kind == KeyKind::Quoted) {
        return Ok(false);
    }
    let tuples: Vec<String> = bounds.iter().map(|bound| tuple(key, bound)).collect();
    let pairs: Vec<String> = tuples.windows(2).map(|pair| format!("{} < {}", pair[0], pair[1])).collect();
    for some in pairs.chunks(COMPARED_AT_ONCE) {
        match rows(wire, "compare the bounds of the last dump", &format!("SELECT {}", some.join(" AND "))) {
            Ok(found) if found.first().is_some_and(|row| row.text(0) == "1") => {}
            Ok(_) => return Ok(false),
            // What the server cannot compare, it cannot cut by.
            Err(MysqlSourceError::Query { error, .. }) if error.code().is_some() && !error.is_lost() => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn tuple(key: &Key, bound: &[String]) -> String {
    let values = bound.iter().zip(&key.collations).map(|(value, collation)| match collation {
        Some(collation) => format!("{value} COLLATE {collation}"),
        None => value.clone(),
    });
    format!("({})", values.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn chunks(sizes: &[u64]) -> Vec<Chunk> {
        let last = sizes.len() - 1;
        let chunk = |(at, bytes): (usize, &u64)| Chunk {
            path: String::new(),
            lower: None,
            upper: (at < last).then(|| vec![at.to_string()]),
            rows: 1,
            bytes: *bytes,
            sha256: String::new(),
        };
        sizes.iter().enumerate().map(chunk).collect()
    }

    fn kept(sizes: &[u64]) -> String {
        merged(&chunks(sizes), 100).concat().join(" ")
    }

    #[test]
    fn bounds_of_chunks_that_keep_their_size_stay() {
        assert_eq!(kept(&[90, 110, 100, 5]), "0 1 2");
        assert_eq!(kept(&[60, 60, 60]), "0 1");
    }

    #[test]
    fn a_small_chunk_joins_a_neighbour_that_has_room() {
        assert_eq!(kept(&[10, 60, 90]), "1");
        assert_eq!(kept(&[60, 10, 90]), "1");
        assert_eq!(kept(&[10, 10, 10, 10]), "2");
        assert_eq!(kept(&[95, 10, 95]), "0 1");
    }
}
