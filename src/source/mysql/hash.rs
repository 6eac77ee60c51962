//! Reads a server's tables through the dump's own encoder, and hashes them in a dump's chunks: what a restore has brought
//! back is what was dumped, byte for byte, or the chunk that differs is named. A source is read so within the read views of a dump.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::event::{Task as Progress, Unit};
use crate::mysql::manifest::{Chunk, Manifest, TableEntry};
use crate::mysql::server::Server;
use crate::mysql::wire::Wire;
use crate::run::Run;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::grip::Grip;
use crate::source::mysql::inventory::{Inventory, Table, is_hollow};
use crate::source::mysql::layout;
use crate::source::mysql::range::Range;
use crate::source::mysql::read::each_row;
use crate::source::mysql::session::{Capabilities, connect, settle};
use crate::source::mysql::throttle::Passage;
use crate::source::mysql::{New, Snapshot, connect_readers};

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
    let is_wanted = |entry: &&TableEntry| {
        let is_named = tables.is_none_or(|tables| tables.contains(&(entry.schema.clone(), entry.name.clone())));
        // What a hollow table shows are others' rows, and none of them is in the dump.
        is_named && !is_hollow(&entry.engine)
    };
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
    let mut readers = connect_readers(server, connections.max(1), &capabilities, run)?;
    Hasher::new(pieces, &progress, None, &run.cancel, run).hash_all(&mut readers)
}

/// What of a dump stands on its source now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Of the tables that both have, with the same columns and key.
    pub hashes: Vec<ChunkHash>,
    /// Tables of the dump that have other columns or another key now. Schema and name, as the others.
    pub altered: Vec<(String, String)>,
    /// Tables of the dump that are gone.
    pub gone: Vec<(String, String)>,
    /// Tables that the dump does not have.
    pub new: Vec<(String, String)>,
}

impl Snapshot {
    /// Hashes the chunks of a dump as the read views show them: the source at one moment. Blocks.
    ///
    /// # Errors
    /// A lock or a connection that is lost, a table that was altered meanwhile.
    pub fn hash(mut self, manifest: &Manifest, run: &Run) -> Result<Standing, MysqlSourceError> {
        let standing = self.hash_tables(manifest, run);
        // A lost lock stops the readers: it is the reason, and their stopping is not.
        let standing = self.keeper.lost().map_or(standing, Err);
        if standing.is_err() {
            self.kill_readers();
        }
        standing
    }

    fn hash_tables(&mut self, manifest: &Manifest, run: &Run) -> Result<Standing, MysqlSourceError> {
        let cancel = self.cancel.child_token();
        self.free_writers_of_others(run)?;
        let (mut standing, entries) = stand(manifest, &self.inventory);
        let total = entries.iter().map(|entry| entry.bytes).sum();
        let progress = run.events.task("compare rows", Unit::Bytes, total);
        let unprotected: BTreeSet<_> = self.inventory.unprotected().map(Table::place).collect();
        let is_locked = |entry: &&TableEntry| unprotected.contains(&place_of(entry));
        let (locked, others): (Vec<&TableEntry>, Vec<&TableEntry>) = entries.into_iter().partition(is_locked);
        // Writers of locked tables wait: those come first, and nothing holds them back.
        let lets_go = self.holds.has_definitions();
        let hasher = Hasher::new(pieces(&locked, &self.inventory)?, &progress, None, &cancel, run).letting_go(lets_go);
        standing.hashes.extend(hasher.hash_all(&mut self.readers)?);
        self.holds.free_tables()?;
        let passage = Passage { throttle: &self.throttle, cancel: &cancel };
        let hasher =
            Hasher::new(pieces(&others, &self.inventory)?, &progress, Some(passage), &cancel, run).letting_go(lets_go);
        let own: Vec<u32> = self.readers.iter().chain([&self.control]).map(Wire::id).collect();
        let (control, readers) = (&mut self.control, &mut self.readers);
        standing.hashes.extend(passage.watching(control, &own, &progress, || hasher.hash_all(readers))?);
        self.holds.check()?;
        if !self.holds.has_definitions() {
            self.refuse_changes(New::Fine)?;
        }
        Ok(standing)
    }
}

/// Sets the tables of a dump beside those of its source, and returns those that can be compared row by row.
fn stand<'a>(manifest: &'a Manifest, inventory: &Inventory) -> (Standing, Vec<&'a TableEntry>) {
    let (mut standing, mut same) = (Standing::default(), Vec::new());
    let mut tables = by_place(inventory);
    for entry in &manifest.tables {
        let name = || (entry.schema.clone(), entry.name.clone());
        match tables.remove(&place_of(entry)) {
            None => standing.gone.push(name()),
            Some(table) if table.columns != entry.columns || !is_cut_alike(table, entry) => {
                standing.altered.push(name());
            }
            // Its rows are another's, and not in the dump.
            Some(table) if table.is_hollow() && is_hollow(&entry.engine) => {}
            Some(table) if table.is_hollow() || is_hollow(&entry.engine) => standing.altered.push(name()),
            Some(_) => same.push(entry),
        }
    }
    standing.new = tables.into_keys().map(|(schema, name)| (schema.to_owned(), name.to_owned())).collect();
    (standing, same)
}

/// Returns the tables by schema and name.
fn by_place(inventory: &Inventory) -> BTreeMap<(&str, &str), &Table> {
    inventory.tables.iter().map(|table| (table.place(), table)).collect()
}

fn place_of(entry: &TableEntry) -> (&str, &str) {
    (&entry.schema, &entry.name)
}

/// Tells whether a table can be read by the ranges that the dump has cut it into.
fn is_cut_alike(table: &Table, entry: &TableEntry) -> bool {
    entry.key.is_empty() || table.key.as_ref().is_some_and(|key| key.columns == entry.key)
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
    let tables = by_place(inventory);
    for entry in entries {
        let Some(found) = tables.get(&place_of(entry)) else {
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
    if entry.key.is_empty() {
        // As the dump read it, in the order of storage; a later one may cut it by a key.
        table.key = None;
    } else if !is_cut_alike(&table, entry) {
        return Err(MysqlSourceError::Unsupported {
            table: found.title(),
            problem: "its key is not the key of the dump".to_owned(),
        });
    }
    Ok(table)
}

struct Hasher<'a> {
    pieces: Mutex<Vec<Piece<'a>>>,
    /// One has failed: the others stop in mid-statement.
    cancel: CancellationToken,
    found: Mutex<Vec<(usize, Vec<ChunkHash>)>>,
    progress: &'a Progress,
    /// `None`: nothing may keep it waiting.
    passage: Option<Passage<'a>>,
    /// The readers hold what they have read, and need not.
    lets_go: bool,
    run: &'a Run,
}

impl<'a> Hasher<'a> {
    fn new(
        pieces: Vec<Piece<'a>>,
        progress: &'a Progress,
        passage: Option<Passage<'a>>,
        cancel: &CancellationToken,
        run: &'a Run,
    ) -> Self {
        Self {
            pieces: Mutex::new(pieces),
            cancel: cancel.child_token(),
            found: Mutex::new(Vec::new()),
            progress,
            passage,
            lets_go: false,
            run,
        }
    }

    fn letting_go(self, lets_go: bool) -> Self {
        Self { lets_go, ..self }
    }

    fn hash_all(self, readers: &mut [Wire]) -> Result<Vec<ChunkHash>, MysqlSourceError> {
        for reader in readers.iter_mut() {
            reader.set_cancel(self.cancel.clone());
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = readers.iter_mut().map(|reader| scope.spawn(|| self.hash_some(reader))).collect();
            let results: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            let failed =
                results.into_iter().filter_map(|joined| joined.unwrap_or(Err(MysqlSourceError::BrokeOff)).err());
            // What stopped because another had failed says nothing.
            failed.min_by_key(MysqlSourceError::is_stopped).map_or(Ok(()), Err)
        })?;
        let mut found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(number, _)| *number);
        Ok(found.into_iter().flat_map(|(_, hashes)| hashes).collect())
    }

    fn hash_some(&self, wire: &mut Wire) -> Result<(), MysqlSourceError> {
        self.hash_pieces(wire).inspect_err(|_| self.give_up())
    }

    fn hash_pieces(&self, wire: &mut Wire) -> Result<(), MysqlSourceError> {
        let mut grip = if self.lets_go { Some(Grip::new(wire)?) } else { None };
        while let Some(piece) = self.next() {
            self.run.check().map_err(|_| MysqlSourceError::Stopped)?;
            if let Some(grip) = &mut grip {
                grip.make_room(wire)?;
            }
            let hashes = piece.hash(wire, self)?;
            self.found.lock().unwrap_or_else(PoisonError::into_inner).push((piece.number, hashes));
        }
        Ok(())
    }

    fn next(&self) -> Option<Piece<'_>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Makes way for the application, after so many bytes.
    fn pass(&self, bytes: usize) -> Result<(), MysqlSourceError> {
        self.passage.map_or(Ok(()), |passage| passage.pass(bytes as u64))
    }

    /// Stops the other threads, and leaves them nothing to do.
    fn give_up(&self) {
        self.cancel.cancel();
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Piece<'_> {
    fn hash(&self, wire: &mut Wire, hasher: &Hasher<'_>) -> Result<Vec<ChunkHash>, MysqlSourceError> {
        let columns: Vec<&str> = self.table.columns.iter().map(|column| column.name.as_str()).collect();
        hasher.pass(0)?;
        let mut hashes = Hashes::new(self, hasher);
        each_row(wire, &self.table, &columns, &self.range, |encoder, packet| {
            hashes.begin_row()?;
            let encoded = encoder.encode(packet, &mut hashes.lines);
            encoded.map_err(|error| MysqlSourceError::reading(&self.table.title(), error))
        })?;
        hashes.finish()
    }
}

/// The hashes of one piece, a chunk after the other by the dump's row counts.
struct Hashes<'a, 'b> {
    piece: &'a Piece<'a>,
    hasher: &'a Hasher<'b>,
    done: Vec<ChunkHash>,
    hash: Sha256,
    rows: u64,
    lines: Vec<u8>,
}

impl<'a, 'b> Hashes<'a, 'b> {
    fn new(piece: &'a Piece<'a>, hasher: &'a Hasher<'b>) -> Self {
        Self {
            piece,
            hasher,
            done: Vec::new(),
            hash: Sha256::new(),
            rows: 0,
            lines: Vec::with_capacity(BUFFER_BYTES + 4096),
        }
    }

    fn begin_row(&mut self) -> Result<(), MysqlSourceError> {
        let chunks = self.piece.chunks;
        let is_full = chunks.get(self.done.len()).is_some_and(|chunk| self.rows >= chunk.rows);
        // What is too much counts to the last chunk, which then differs.
        if is_full && self.done.len() + 1 < chunks.len() {
            self.close()?;
        }
        if self.lines.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        self.rows += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MysqlSourceError> {
        let bytes = self.lines.len();
        self.hash.update(&self.lines);
        self.hasher.progress.add(bytes as u64);
        self.lines.clear();
        self.lines.shrink_to(BUFFER_BYTES * 2);
        self.hasher.pass(bytes)
    }

    fn close(&mut self) -> Result<(), MysqlSourceError> {
        self.flush()?;
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
        Ok(())
    }

    /// Ends the open chunk, and gives those that no row was left for their empty hash.
    fn finish(mut self) -> Result<Vec<ChunkHash>, MysqlSourceError> {
        if self.rows > 0 {
            self.close()?;
        }
        while self.done.len() < self.piece.chunks.len() {
            self.close()?;
        }
        Ok(self.done)
    }
}
