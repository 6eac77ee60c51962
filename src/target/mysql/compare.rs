//! Sets what was read back beside what the manifest promises.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::mysql::manifest::{Chunk, Manifest, TableEntry};
use crate::source::mysql::ChunkHash;

/// A chunk that did not come back as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub enum Mismatch {
    #[error("`{schema}`.`{table}`, `{path}`: not read back")]
    Unread {
        schema: String,
        table: String,
        path: String,
    },
    #[error("`{schema}`.`{table}`, `{path}`: {restored} rows instead of {dumped}")]
    Rows {
        schema: String,
        table: String,
        path: String,
        dumped: u64,
        restored: u64,
    },
    #[error("`{schema}`.`{table}`, `{path}`: as many rows, but not the same")]
    Content {
        schema: String,
        table: String,
        path: String,
    },
}

/// Compares restored chunks with a manifest. `hashes` are those of the tables that were restored; a table of which none was
/// read back is passed over, one of which some are is compared whole.
#[must_use]
pub fn compare(manifest: &Manifest, hashes: &[ChunkHash]) -> Vec<Mismatch> {
    let read: BTreeMap<(&str, &str, &str), &ChunkHash> = hashes
        .iter()
        .map(|hash| {
            (
                (
                    hash.schema.as_str(),
                    hash.table.as_str(),
                    hash.path.as_str(),
                ),
                hash,
            )
        })
        .collect();
    let is_read = |table: &&TableEntry| {
        hashes
            .iter()
            .any(|hash| hash.schema == table.schema && hash.table == table.name)
    };
    let tables = manifest.tables.iter().filter(is_read);
    let chunks = tables.flat_map(|table| table.chunks.iter().map(move |chunk| (table, chunk)));
    chunks
        .filter_map(|(table, chunk)| {
            let key = (
                table.schema.as_str(),
                table.name.as_str(),
                chunk.path.as_str(),
            );
            judge(table, chunk, read.get(&key).copied())
        })
        .collect()
}

fn judge(table: &TableEntry, chunk: &Chunk, read: Option<&ChunkHash>) -> Option<Mismatch> {
    let (schema, path) = (table.schema.clone(), chunk.path.clone());
    let table = table.name.clone();
    match read {
        None => Some(Mismatch::Unread {
            schema,
            table,
            path,
        }),
        Some(read) if read.rows != chunk.rows => {
            let (dumped, restored) = (chunk.rows, read.rows);
            Some(Mismatch::Rows {
                schema,
                table,
                path,
                dumped,
                restored,
            })
        }
        Some(read) if read.sha256 != chunk.sha256 => Some(Mismatch::Content {
            schema,
            table,
            path,
        }),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::manifest::{Consistency, FORMAT, Product};

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
        let hashes = ["orders/0", "orders/1"]
            .map(|path| read("orders", path, 10, &format!("hash of {path}")));
        assert_eq!(compare(&manifest(), &hashes), []);
    }

    #[test]
    fn a_chunk_that_is_short_changed_or_gone_is_named() {
        let hashes = [
            read("orders", "orders/0", 9, "hash of orders/0"),
            read("orders", "orders/1", 10, "another"),
            read("lines", "lines/1", 10, "hash of lines/1"),
        ];
        let told: Vec<String> = compare(&manifest(), &hashes)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "`shop`.`orders`, `orders/0`: 9 rows instead of 10",
                "`shop`.`orders`, `orders/1`: as many rows, but not the same",
                "`shop`.`lines`, `lines/0`: not read back",
            ]
        );
    }
}
