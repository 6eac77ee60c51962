//! Sets what was read back beside what the manifest promises.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::mysql::manifest::{Chunk, Manifest, TableEntry};

/// What was read back of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHash {
    pub schema: String,
    pub table: String,
    pub path: String,
    pub rows: u64,
    pub sha256: String,
}

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
