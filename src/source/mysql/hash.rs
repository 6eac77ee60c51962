//! Reads a server's tables through the dump's own encoder, and hashes them in a dump's chunks: what a restore has brought
//! back is what was dumped, byte for byte, or the chunk that differs is named.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::event::{Task as Progress, Unit};
use crate::mysql::manifest::{Chunk, Manifest, TableEntry};
use crate::mysql::server::Server;
use crate::mysql::wire::Wire;
use crate::run::Run;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::inventory::{Inventory, Table};
use crate::source::mysql::layout;
use crate::source::mysql::range::Range;
use crate::source::mysql::read::each_row;
use crate::source::mysql::session::{Capabilities, connect, settle, want_raw_bytes};

/// Lines are hashed in stretches of this size.
const BUFFER_BYTES: usize = 256 * 1024;

/// A chunk as it stands on a server. A table that is empty in the dump and not on the server has one, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHash {
    pub schema: String,
    pub table: String,
    /// The path of the dump's row file.
    pub path: String,
    pub rows: u64,
    pub sha256: String,
}

/// Hashes the chunks of these tables (`None`: all) on a server. Tables that the server lacks have no hashes. Blocks.
///
/// A table without a key is read in the order in which its rows were loaded: it compares equal when one connection loaded its
/// files in their order.
pub fn hash_chunks(
    server: &Server,
    manifest: &Manifest,
    tables: Option<&BTreeSet<(String, String)>>,
    connections: usize,
    run: &Run,
) -> Result<Vec<ChunkHash>, MysqlSourceError> {
    let is_wanted =
        |entry: &&TableEntry| tables.is_none_or(|tables| tables.contains(&(entry.schema.clone(), entry.name.clone())));
    let entries: Vec<&TableEntry> = manifest.tables.iter().filter(is_wanted).collect();
    let mut control = connect(server, run)?;
    let capabilities = Capabilities::probe(&mut control)?;
    settle(&mut control, &capabilities)?;
    let schemas: BTreeSet<String> = entries.iter().map(|entry| entry.schema.clone()).collect();
    let schemas: Vec<String> = schemas.into_iter().collect();
    let inventory = Inventory::list(&mut control, &capabilities, &schemas, &[])?;
    let pieces = pieces(&entries, &inventory)?;
    let total = entries.iter().map(|entry| entry.bytes).sum();
    let progress = run.events.task("compare rows", Unit::Bytes, total);
    let hasher = Hasher { pieces: Mutex::new(pieces), found: Mutex::new(Vec::new()), progress: &progress, run };
    hasher.hash_all(server, &capabilities, connections.max(1))
}

/// What one statement reads: a chunk, or all chunks of a table without a key.
struct Piece<'a> {
    /// For the order of results.
    number: usize,
    table: Table,
    chunks: &'a [Chunk],
    range: Range,
}

fn pieces<'a>(entries: &[&'a TableEntry], inventory: &Inventory) -> Result<Vec<Piece<'a>>, MysqlSourceError> {
    let mut pieces = Vec::new();
    for entry in entries {
        let same = |table: &&Table| table.schema == entry.schema && table.name == entry.name;
        let Some(found) = inventory.tables.iter().find(same) else {
            continue;
        };
        let table = as_dumped(found, entry)?;
        let keyed = !entry.key.is_empty() && !entry.chunks.is_empty();
        let whole = [&entry.chunks[..]];
        let groups: Vec<&'a [Chunk]> = if keyed { entry.chunks.chunks(1).collect() } else { whole.to_vec() };
        for chunks in groups {
            let range = match chunks {
                [chunk] if keyed => Range { lower: chunk.lower.clone(), upper: chunk.upper.clone() },
                _ => Range::default(),
            };
            pieces.push(Piece { number: pieces.len(), table: table.clone(), chunks, range });
        }
    }
    // The last is taken first.
    pieces.reverse();
    Ok(pieces)
}

/// Returns the server's table with the columns and the cuts of the dump.
fn as_dumped(found: &Table, entry: &TableEntry) -> Result<Table, MysqlSourceError> {
    let mut table = found.clone();
    table.columns.clone_from(&entry.columns);
    let cut = table.key.as_ref().map(|key| key.columns.as_slice()).unwrap_or_default();
    if cut != entry.key.as_slice() {
        return Err(MysqlSourceError::Unsupported {
            table: found.title(),
            problem: "its key is not the key of the dump".to_owned(),
        });
    }
    Ok(table)
}

struct Hasher<'a> {
    pieces: Mutex<Vec<Piece<'a>>>,
    found: Mutex<Vec<(usize, Vec<ChunkHash>)>>,
    progress: &'a Progress,
    run: &'a Run,
}

impl Hasher<'_> {
    fn hash_all(
        self,
        server: &Server,
        capabilities: &Capabilities,
        connections: usize,
    ) -> Result<Vec<ChunkHash>, MysqlSourceError> {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..connections).map(|_| scope.spawn(|| self.hash_some(server, capabilities))).collect();
            let results: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            results.into_iter().try_for_each(|joined| joined.unwrap_or(Err(MysqlSourceError::BrokeOff)))
        })?;
        let mut found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(number, _)| *number);
        Ok(found.into_iter().flat_map(|(_, hashes)| hashes).collect())
    }

    fn hash_some(&self, server: &Server, capabilities: &Capabilities) -> Result<(), MysqlSourceError> {
        let mut wire = connect(server, self.run)?;
        settle(&mut wire, capabilities)?;
        want_raw_bytes(&mut wire)?;
        while let Some(piece) = self.next() {
            self.run.check().map_err(|_| MysqlSourceError::Stopped)?;
            let hashes = piece.hash(&mut wire, self.progress).inspect_err(|_| self.give_up())?;
            self.found.lock().unwrap_or_else(PoisonError::into_inner).push((piece.number, hashes));
        }
        Ok(())
    }

    fn next(&self) -> Option<Piece<'_>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Leaves the other threads nothing to do.
    fn give_up(&self) {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Piece<'_> {
    fn hash(&self, wire: &mut Wire, progress: &Progress) -> Result<Vec<ChunkHash>, MysqlSourceError> {
        let columns: Vec<&str> = self.table.columns.iter().map(|column| column.name.as_str()).collect();
        let mut hashes = Hashes::new(self, progress);
        each_row(wire, &self.table, &columns, &self.range, |encoder, packet| {
            hashes.begin_row();
            let encoded = encoder.encode(packet, &mut hashes.lines);
            encoded.map_err(|error| MysqlSourceError::reading(&self.table.title(), error))
        })?;
        Ok(hashes.finish())
    }
}

/// The hashes of one piece, a chunk after the other by the dump's row counts.
struct Hashes<'a> {
    piece: &'a Piece<'a>,
    progress: &'a Progress,
    done: Vec<ChunkHash>,
    hash: Sha256,
    rows: u64,
    lines: Vec<u8>,
}

impl<'a> Hashes<'a> {
    fn new(piece: &'a Piece<'a>, progress: &'a Progress) -> Self {
        Self {
            piece,
            progress,
            done: Vec::new(),
            hash: Sha256::new(),
            rows: 0,
            lines: Vec::with_capacity(BUFFER_BYTES + 4096),
        }
    }

    fn begin_row(&mut self) {
        let chunks = self.piece.chunks;
        let is_full = chunks.get(self.done.len()).is_some_and(|chunk| self.rows >= chunk.rows);
        // What is too much counts to the last chunk, which then differs.
        if is_full && self.done.len() + 1 < chunks.len() {
            self.close();
        }
        if self.lines.len() >= BUFFER_BYTES {
            self.flush();
        }
        self.rows += 1;
    }

    fn flush(&mut self) {
        self.hash.update(&self.lines);
        self.progress.add(self.lines.len() as u64);
        self.lines.clear();
        self.lines.shrink_to(BUFFER_BYTES * 2);
    }

    fn close(&mut self) {
        self.flush();
        let table = &self.piece.table;
        let path = match self.piece.chunks.get(self.done.len()) {
            Some(chunk) => chunk.path.clone(),
            None => layout::row_file(&table.schema, &table.name, 0, 0),
        };
        let hash = std::mem::take(&mut self.hash);
        self.done.push(ChunkHash {
            schema: table.schema.clone(),
            table: table.name.clone(),
            path,
            rows: std::mem::take(&mut self.rows),
            sha256: hex::encode(hash.finalize()),
        });
    }

    /// Ends the open chunk, and gives those that no row was left for their empty hash.
    fn finish(mut self) -> Vec<ChunkHash> {
        if self.rows > 0 {
            self.close();
        }
        while self.done.len() < self.piece.chunks.len() {
            self.close();
        }
        self.done
    }
}
