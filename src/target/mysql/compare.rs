//! Sets what was read back beside what the manifest promises.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::mysql::manifest::{Chunk, Manifest, TableEntry};
use crate::source::mysql::ChunkHash;

/// A chunk that did not come back as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub enum Mismatch {
    #[error("`{schema}`.`{table}`, `{path}`: not read back")]
    Unread { schema: String, table: String, path: String },
    #[error("`{schema}`.`{table}`, `{path}`: {restored} rows instead of {dumped}")]
    Rows { schema: String, table: String, path: String, dumped: u64, restored: u64 },
    #[error("`{schema}`.`{table}`, `{path}`: as many rows, but not the same")]
    Content { schema: String, table: String, path: String },
}

/// Compares restored chunks with a manifest: every chunk of these tables (`None`: all) must be among `hashes` as it was
/// dumped, and none beside them.
#[must_use]
pub fn compare(
    manifest: &Manifest,
    tables: Option<&BTreeSet<(String, String)>>,
    hashes: &[ChunkHash],
) -> Vec<Mismatch> {
    let mut read: BTreeMap<(&str, &str, &str), &ChunkHash> =
        hashes.iter().map(|hash| (key(&hash.schema, &hash.table, &hash.path), hash)).collect();
    let is_wanted =
        |table: &&TableEntry| tables.is_none_or(|tables| tables.contains(&(table.schema.clone(), table.name.clone())));
    let mut mismatches = Vec::new();
    for table in manifest.tables.iter().filter(is_wanted) {
        for chunk in &table.chunks {
            let read = read.remove(&key(&table.schema, &table.name, &chunk.path));
            mismatches.extend(judge(table, chunk, read));
        }
    }
    // A table that was empty has no chunk; rows in it came from elsewhere.
    mismatches.extend(read.into_values().map(|hash| Mismatch::Rows {
        schema: hash.schema.clone(),
        table: hash.table.clone(),
        path: hash.path.clone(),
        dumped: 0,
        restored: hash.rows,
    }));
    mismatches
}

fn key<'a>(schema: &'a str, table: &'a str, path: &'a str) -> (&'a str, &'a str, &'a str) {
    (schema, table, path)
}

fn judge(table: &TableEntry, chunk: &Chunk, read: Option<&ChunkHash>) -> Option<Mismatch> {
    let (schema, path) = (table.schema.clone(), chunk.path.clone());
    let table = table.name.clone();
    match read {
        None => Some(Mismatch::Unread { schema, table, path }),
        Some(read) if read.rows != chunk.rows => {
            let (dumped, restored) = (chunk.rows, read.rows);
            Some(Mismatch::Rows { schema, table, path, dumped, restored })
        }
        Some(read) if read.sha256 != chunk.sha256 => Some(Mismatch::Content { schema, table, path }),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::manifest::{Consistency, Extent, FORMAT, Product};

    fn manifest() -> Manifest {
        let chunk = |path: &str| Chunk {
            path: path.to_owned(),
            lower: None,
            upper: None,
            rows: 10,
            bytes: 100,
            sha256: format!("hash of {path}"),
        };
        let table = |name: &str| TableEntry {
            schema: "shop".to_owned(),
            name: name.to_owned(),
            create: String::new(),
            engine: "InnoDB".to_owned(),
            history_lost: false,
            columns: Vec::new(),
            key: Vec::new(),
            rows: 20,
            bytes: 200,
            chunks: vec![chunk(&format!("{name}/0")), chunk(&format!("{name}/1"))],
        };
        Manifest {
            format: FORMAT,
            product: Product::MySql,
            version: String::new(),
            server: String::new(),
            taken_at: chrono::DateTime::UNIX_EPOCH,
            consistency: Consistency::LockFree,
            position: None,
            gtid: None,
            gtid_slave_pos: None,
            extent: Extent::default(),
            write_stall_ms: 0.0,
            variables: BTreeMap::new(),
            schemas: Vec::new(),
            tables: vec![table("orders"), table("lines")],
            objects: Vec::new(),
        }
    }

    fn read(table: &str, path: &str, rows: u64, sha256: &str) -> ChunkHash {
        ChunkHash {
            schema: "shop".to_owned(),
            table: table.to_owned(),
            path: path.to_owned(),
            rows,
            sha256: sha256.to_owned(),
        }
    }

    #[test]
    fn what_came_back_as_it_was_matches() {
        let hashes = ["orders/0", "orders/1"].map(|path| read("orders", path, 10, &format!("hash of {path}")));
        let tables = BTreeSet::from([("shop".to_owned(), "orders".to_owned())]);
        assert_eq!(compare(&manifest(), Some(&tables), &hashes), []);
    }

    #[test]
    fn a_table_that_is_not_there_is_named() {
        let hashes = ["orders/0", "orders/1"].map(|path| read("orders", path, 10, &format!("hash of {path}")));
        assert_eq!(compare(&manifest(), None, &hashes).len(), 2);
    }

    #[test]
    fn a_chunk_that_is_short_changed_gone_or_new_is_named() {
        let hashes = [
            read("orders", "orders/0", 9, "hash of orders/0"),
            read("orders", "orders/1", 10, "another"),
            read("lines", "lines/1", 10, "hash of lines/1"),
            read("empty", "empty/0", 2, "anything"),
        ];
        let told: Vec<String> = compare(&manifest(), None, &hashes).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "`shop`.`orders`, `orders/0`: 9 rows instead of 10",
                "`shop`.`orders`, `orders/1`: as many rows, but not the same",
                "`shop`.`lines`, `lines/0`: not read back",
                "`shop`.`empty`, `empty/0`: 2 rows instead of 0",
            ]
        );
    }
}
