//! Finds where to cut tables into ranges, on a connection of its own and just ahead of the readers.
//!
//! A step through the index by so many rows reads the pages that a reader will want next, and sends one row. Nothing is
//! sorted, and skewed keys make no skewed ranges.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mysql::manifest::{Manifest, TableEntry};
use crate::mysql::row::Encoder;
use crate::mysql::wire::{Wire, WireError};
use crate::source::mysql::bounds::taken_over;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::inventory::Table;
use crate::source::mysql::queue::{Queue, Task};
use crate::source::mysql::range::{Range, select_bound};
use crate::source::mysql::throttle::Passage;

/// A range has at least so many rows, whatever the server believes of their size.
const ROWS_MIN: u64 = 100;

/// What a row is taken for where the server has no idea.
const ROW_BYTES_GUESS: u64 = 256;

/// What has been read of a table so far: better than the server's estimate.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Measured {
    pub(crate) fn add(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns how many rows make a chunk.
    fn rows_in(&self, chunk_bytes: u64, guess: u64) -> u64 {
        let rows = self.rows.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let row_bytes = bytes.checked_div(rows).unwrap_or(guess);
        (chunk_bytes / row_bytes.max(1)).max(ROWS_MIN)
    }
}

/// The tables of the dump before.
pub(crate) struct Previous<'a>(HashMap<(&'a str, &'a str), &'a TableEntry>);

impl<'a> Previous<'a> {
    pub(crate) fn of(manifest: Option<&'a Manifest>) -> Self {
        let entries = manifest.into_iter().flat_map(|manifest| &manifest.tables);
        Self(entries.map(|entry| ((entry.schema.as_str(), entry.name.as_str()), entry)).collect())
    }

    fn entry(&self, table: &Table) -> Option<&TableEntry> {
        self.0.get(&(table.schema.as_str(), table.name.as_str())).copied()
    }
}

pub(crate) struct Scout<'a> {
    pub(crate) tables: &'a [Table],
    pub(crate) measured: &'a [Measured],
    pub(crate) previous: &'a Previous<'a>,
    pub(crate) chunk_bytes: u64,
    pub(crate) queue: &'a Queue,
    pub(crate) passage: Passage<'a>,
}

impl Scout<'_> {
    /// Fills the queue with the ranges of all tables: those whose writers wait, then small ones, then large ones as they are
    /// explored.
    pub(crate) fn fill(&self, wire: &mut Wire) -> Result<(), MysqlSourceError> {
        let mut locked = Vec::new();
        for (at, _) in self.own_rows().filter(|(_, table)| !table.is_transactional()) {
            let bounds = self.known_bounds(wire, at)?.unwrap_or_default();
            locked.extend(tasks(at, &bounds, true));
        }
        self.queue.push_locked(locked);
        let mut large = Vec::new();
        for (at, table) in self.own_rows().filter(|(_, table)| table.is_transactional()) {
            self.passage.pass(0)?;
            match self.known_bounds(wire, at)? {
                None if table.key.is_some() && self.is_large(table) => large.push((at, Vec::new())),
                bounds => {
                    let bounds = bounds.unwrap_or_default();
                    let mut known = tasks(at, &bounds, false);
                    if self.has_outgrown(wire, at, bounds.last())? {
                        known.pop();
                        large.push((at, bounds));
                    }
                    for task in known {
                        self.queue.push(task);
                    }
                }
            }
        }
        large.into_iter().try_for_each(|(at, bounds)| self.explore(wire, at, bounds))
    }

    /// Tells whether a table has grown by more than one reader's share above the last bound of the dump before.
    fn has_outgrown(&self, wire: &mut Wire, at: usize, last: Option<&Vec<String>>) -> Result<bool, MysqlSourceError> {
        // The reader cuts what is only a little more, and so the files of a table that has not grown stay as they are.
        let rows = self.rows_in_chunk(at).saturating_mul(2);
        Ok(last.is_some() && next_bound(wire, &self.tables[at], last, rows)?.is_some())
    }

    /// Returns how many rows make a chunk: by what was read of the table in this dump, else in the one before, else by the server's
    /// estimate, which counts pages and not lines.
    fn rows_in_chunk(&self, at: usize) -> u64 {
        let estimate = Some(self.tables[at].row_bytes_estimate).filter(|bytes| *bytes > 0);
        let guess = self.row_bytes_before(at).or(estimate).unwrap_or(ROW_BYTES_GUESS);
        self.measured[at].rows_in(self.chunk_bytes, guess)
    }

    fn row_bytes_before(&self, at: usize) -> Option<u64> {
        let entry = self.previous.entry(&self.tables[at])?;
        let bytes: u64 = entry.chunks.iter().map(|chunk| chunk.bytes).sum();
        let rows: u64 = entry.chunks.iter().map(|chunk| chunk.rows).sum();
        bytes.checked_div(rows).filter(|bytes| *bytes > 0)
    }

    /// Returns the tables that hold rows of their own.
    fn own_rows(&self) -> impl Iterator<Item = (usize, &Table)> {
        let tables = self.tables.iter().enumerate();
        tables.filter(|(_, table)| !table.is_hollow())
    }

    /// Returns the bounds of the dump before, where they fit.
    fn known_bounds(&self, wire: &mut Wire, at: usize) -> Result<Option<Vec<Vec<String>>>, MysqlSourceError> {
        let table = &self.tables[at];
        match self.previous.entry(table) {
            Some(entry) => taken_over(wire, entry, table, self.chunk_bytes),
            None => Ok(None),
        }
    }

    fn is_large(&self, table: &Table) -> bool {
        table.bytes_estimate > self.chunk_bytes.saturating_add(self.chunk_bytes / 2)
    }

    /// Steps through a large table's index, above the bounds that are known, and hands on each range as it is found.
    fn explore(&self, wire: &mut Wire, at: usize, mut known: Vec<Vec<String>>) -> Result<(), MysqlSourceError> {
        let first = known.len();
        let mut lower = known.pop();
        for number in first.. {
            self.passage.pass(0)?;
            let rows = self.rows_in_chunk(at);
            let upper = next_bound(wire, &self.tables[at], lower.as_ref(), rows)?;
            let is_last = upper.is_none();
            let range = Range { lower: std::mem::replace(&mut lower, upper.clone()), upper };
            let task = Task { table: at, range, number, is_locked: false };
            if !self.queue.push_ahead(task) || is_last {
                break;
            }
        }
        Ok(())
    }
}

/// Returns the ranges between a table's bounds.
fn tasks(table: usize, bounds: &[Vec<String>], is_locked: bool) -> Vec<Task> {
    let ranges = Range::between(bounds).into_iter().enumerate();
    let task = |(number, range)| Task { table, range, number, is_locked };
    ranges.map(task).collect()
}

/// Returns the key so many rows above a bound, or `None` where there are fewer.
fn next_bound(
    wire: &mut Wire,
    table: &Table,
    lower: Option<&Vec<String>>,
    rows: u64,
) -> Result<Option<Vec<String>>, MysqlSourceError> {
    let Some(key) = &table.key else {
        return Ok(None);
    };
    let failed = |error: WireError| MysqlSourceError::reading(&table.title(), error);
    let mut found = wire.read(&select_bound(table, &key.columns, lower, rows)).map_err(failed)?;
    let encoder = Encoder::new(found.columns()).map_err(failed)?;
    let parts = key.parts_alone();
    let mut bound = None;
    while let Some(packet) = found.next().map_err(failed)? {
        bound = Some(encoder.key(packet, &parts).map_err(failed)?);
    }
    Ok(bound)
}
