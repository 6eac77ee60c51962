//! Reads a range's rows and writes them as row files, cut where they grow large.

use sha2::{Digest, Sha256};

use crate::event::Task as Progress;
use crate::mysql::manifest::Chunk;
use crate::mysql::row::Encoder;
use crate::mysql::wire::{Wire, WireError};
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::inventory::Table;
use crate::source::mysql::layout;
use crate::source::mysql::queue::Task;
use crate::source::mysql::range::{Range, select_rows};
use crate::source::mysql::session::rows;
use crate::source::mysql::throttle::Passage;
use crate::source::{FileSink, Sink};

/// Lines are gathered up to this size before they are hashed and handed on.
const BUFFER_BYTES: usize = 256 * 1024;

/// Reads the rows of a range on one connection, each handed to `row` as its packet.
pub(crate) fn each_row(
    wire: &mut Wire,
    table: &Table,
    columns: &[&str],
    range: &Range,
    mut row: impl FnMut(&Encoder, &[u8]) -> Result<(), MysqlSourceError>,
) -> Result<(), MysqlSourceError> {
    let failed = |error: WireError| MysqlSourceError::reading(&table.title(), error);
    let mut read = wire.read(&select_rows(table, columns, range)).map_err(failed)?;
    let encoder = Encoder::new(read.columns()).map_err(failed)?;
    while let Some(packet) = read.next().map_err(failed)? {
        row(&encoder, packet)?;
    }
    let warnings = read.warnings();
    if warnings > 0 { refuse_cut_values(wire, table, warnings) } else { Ok(()) }
}

/// Of a JSON document larger than a packet, MySQL sends an empty text, and a warning that it did.
fn refuse_cut_values(wire: &mut Wire, table: &Table, count: u16) -> Result<(), MysqlSourceError> {
    const CUT: &str = "1301";
    let act = format!("read the server's warnings about `{}`", table.title());
    let listed = rows(wire, &act, "SHOW WARNINGS")?;
    let refuse = |warning: String| Err(MysqlSourceError::Cut { table: table.title(), warning });
    match listed.iter().find(|warning| warning.text(1) == CUT) {
        Some(warning) => refuse(warning.text(2).to_owned()),
        // MySQL lets few accounts raise the limit, and one of those that it keeps to itself may be that of a value cut short.
        None if listed.len() < usize::from(count) => {
            refuse(format!("of {count} warnings the server lists {} (max_error_count)", listed.len()))
        }
        None => Ok(()),
    }
}

/// Reads one range of a table into row files.
pub(crate) struct RangeReader<'a> {
    pub(crate) table: &'a Table,
    pub(crate) task: &'a Task,
    pub(crate) sink: &'a dyn Sink,
    pub(crate) chunk_bytes: u64,
    pub(crate) progress: &'a Progress,
    /// `None`: nothing may keep it waiting.
    pub(crate) passage: Option<Passage<'a>>,
}

impl RangeReader<'_> {
    pub(crate) fn read(&self, wire: &mut Wire) -> Result<Vec<Chunk>, MysqlSourceError> {
        let columns: Vec<&str> = self.table.columns.iter().map(|column| column.name.as_str()).collect();
        self.pass(0)?;
        let mut files = RowFiles::new(self);
        each_row(wire, self.table, &columns, &self.task.range, |encoder, packet| {
            files.cut_before(encoder, packet)?;
            files.push(encoder, packet)
        })?;
        files.finish()
    }

    fn pass(&self, bytes: usize) -> Result<(), MysqlSourceError> {
        self.passage.map_or(Ok(()), |passage| passage.pass(bytes as u64))
    }

    fn wire_error(&self, error: WireError) -> MysqlSourceError {
        MysqlSourceError::reading(&self.table.title(), error)
    }

    /// A range that is open above grows by new rows and is cut at the size meant; one between two old bounds only when it has
    /// outgrown them twice, so that small changes do not move its end.
    fn bytes_max(&self) -> u64 {
        if self.task.range.upper.is_none() { self.chunk_bytes } else { self.chunk_bytes.saturating_mul(2) }
    }
}

/// The row files of one range, written one after the other.
struct RowFiles<'a> {
    reader: &'a RangeReader<'a>,
    chunks: Vec<Chunk>,
    open: Option<RowFile<'a>>,
    /// Lower bound of the open file.
    lower: Option<Vec<String>>,
    /// The open file is full, and this is the key of its last row; empty without a key.
    full_at: Option<Vec<String>>,
}

struct RowFile<'a> {
    path: String,
    file: Box<dyn FileSink + 'a>,
    hash: Sha256,
    lines: Vec<u8>,
    rows: u64,
    bytes: u64,
}

impl<'a> RowFiles<'a> {
    fn new(reader: &'a RangeReader<'a>) -> Self {
        Self { reader, chunks: Vec::new(), open: None, lower: reader.task.range.lower.clone(), full_at: None }
    }

    /// Closes a full file before a row with another key: rows with equal keys stay together.
    fn cut_before(&mut self, encoder: &Encoder, packet: &[u8]) -> Result<(), MysqlSourceError> {
        let Some(last) = &self.full_at else {
            return Ok(());
        };
        match &self.reader.table.key {
            Some(key) if !key.is_unique => {
                let next = encoder.key(packet, &key.parts).map_err(|error| self.reader.wire_error(error))?;
                if next == *last {
                    return Ok(());
                }
            }
            _ => {}
        }
        let upper = self.full_at.take().filter(|key| !key.is_empty());
        self.close(upper)
    }

    fn push(&mut self, encoder: &Encoder, packet: &[u8]) -> Result<(), MysqlSourceError> {
        let reader = self.reader;
        let file = match &mut self.open {
            Some(file) => file,
            closed @ None => closed.insert(RowFile::create(reader, self.chunks.len())?),
        };
        let before = file.lines.len();
        encoder.encode(packet, &mut file.lines).map_err(|error| reader.wire_error(error))?;
        file.rows += 1;
        file.bytes += (file.lines.len() - before) as u64;
        if file.lines.len() >= BUFFER_BYTES {
            file.flush(reader)?;
        }
        if self.full_at.is_none() && file.bytes >= reader.bytes_max() {
            let key = reader.table.key.as_ref();
            let key = key.map(|key| encoder.key(packet, &key.parts)).transpose();
            self.full_at = Some(key.map_err(|error| reader.wire_error(error))?.unwrap_or_default());
        }
        Ok(())
    }

    fn close(&mut self, upper: Option<Vec<String>>) -> Result<(), MysqlSourceError> {
        if let Some(mut file) = self.open.take() {
            file.flush(self.reader)?;
            file.file.finish()?;
            self.chunks.push(Chunk {
                path: file.path,
                lower: self.lower.take(),
                upper: upper.clone(),
                rows: file.rows,
                bytes: file.bytes,
                sha256: hex::encode(file.hash.finalize()),
            });
            self.lower = upper;
        }
        Ok(())
    }

    /// Closes the last file. A range without rows has none.
    fn finish(mut self) -> Result<Vec<Chunk>, MysqlSourceError> {
        self.close(self.reader.task.range.upper.clone())?;
        Ok(self.chunks)
    }
}

impl<'a> RowFile<'a> {
    /// Begins the next file of a range that has so many already.
    fn create(reader: &RangeReader<'a>, count: usize) -> Result<Self, MysqlSourceError> {
        let table = reader.table;
        let path = layout::row_file(&table.schema, &table.name, reader.task.number, count);
        Ok(Self {
            file: reader.sink.file(&path)?,
            path,
            hash: Sha256::new(),
            lines: Vec::with_capacity(BUFFER_BYTES + 4096),
            rows: 0,
            bytes: 0,
        })
    }

    fn flush(&mut self, reader: &RangeReader<'_>) -> Result<(), MysqlSourceError> {
        reader.pass(self.lines.len())?;
        self.hash.update(&self.lines);
        self.file.write_all(&self.lines).map_err(|error| MysqlSourceError::Write { path: self.path.clone(), error })?;
        reader.progress.add(self.lines.len() as u64);
        self.lines.clear();
        // A giant row's buffer is given back.
        self.lines.shrink_to(BUFFER_BYTES * 2);
        Ok(())
    }
}

/// Puts the chunks of a table in order and closes the holes that ranges without rows leave.
pub(crate) fn in_order(mut parts: Vec<(usize, Vec<Chunk>)>) -> Vec<Chunk> {
    parts.sort_by_key(|(number, _)| *number);
    let mut chunks: Vec<Chunk> = parts.into_iter().flat_map(|(_, chunks)| chunks).collect();
    let is_keyed = chunks.iter().any(|chunk| chunk.lower.is_some() || chunk.upper.is_some());
    let mut lower = None;
    for chunk in &mut chunks {
        chunk.lower = std::mem::replace(&mut lower, chunk.upper.clone());
    }
    if let Some(last) = chunks.last_mut().filter(|_| is_keyed) {
        last.upper = None;
    }
    chunks
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn chunk(lower: Option<&str>, upper: Option<&str>) -> Chunk {
        let bound = |text: &str| vec![text.to_owned()];
        Chunk {
            path: String::new(),
            lower: lower.map(bound),
            upper: upper.map(bound),
            rows: 1,
            bytes: 1,
            sha256: String::new(),
        }
    }

    #[test]
    fn ranges_without_rows_leave_no_hole() {
        // Range 0 is empty, range 1 fell into two files, range 2 is empty, range 3 ends at 9, and nothing lies above.
        let parts = vec![
            (3, vec![chunk(Some("7"), Some("9"))]),
            (1, vec![chunk(Some("2"), Some("4")), chunk(Some("4"), Some("5"))]),
            (2, vec![]),
            (0, vec![]),
        ];
        let bounds: Vec<_> = in_order(parts).into_iter().map(|chunk| (chunk.lower, chunk.upper)).collect();
        let bound = |text: &str| Some(vec![text.to_owned()]);
        assert_eq!(bounds, [(None, bound("4")), (bound("4"), bound("5")), (bound("5"), None)]);
    }
}
