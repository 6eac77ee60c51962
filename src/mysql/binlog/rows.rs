//! Rows events: how many rows of which table, without a look at a value.

use std::io::{self, Read};

use flate2::read::ZlibDecoder;

use crate::mysql::binlog::fields::Fields;
use crate::mysql::binlog::table::{Present, TableMap};
use crate::mysql::binlog::{EVENT_BYTES_MAX, Kind};

/// How an event changes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Insert,
    Update,
    Delete,
}

/// How a rows event is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) change: Change,
    /// Version 2 has extra data before its columns.
    pub(super) has_extra: bool,
    pub(super) is_compressed: bool,
    is_partial: bool,
}

impl Layout {
    /// Returns how an event of this kind is laid out, if it is one of rows.
    pub(super) fn of(kind: Kind) -> Option<Self> {
        let layout = |change, has_extra, is_compressed| Self { change, has_extra, is_compressed, is_partial: false };
        Some(match kind {
            Kind::WRITE_ROWS_V1 => layout(Change::Insert, false, false),
            Kind::UPDATE_ROWS_V1 => layout(Change::Update, false, false),
            Kind::DELETE_ROWS_V1 => layout(Change::Delete, false, false),
            Kind::WRITE_ROWS => layout(Change::Insert, true, false),
            Kind::UPDATE_ROWS => layout(Change::Update, true, false),
            Kind::DELETE_ROWS => layout(Change::Delete, true, false),
            Kind::PARTIAL_UPDATE_ROWS => Self { is_partial: true, ..layout(Change::Update, true, false) },
            Kind::WRITE_ROWS_COMPRESSED_V1 => layout(Change::Insert, false, true),
            Kind::UPDATE_ROWS_COMPRESSED_V1 => layout(Change::Update, false, true),
            Kind::DELETE_ROWS_COMPRESSED_V1 => layout(Change::Delete, false, true),
            Kind::WRITE_ROWS_COMPRESSED => layout(Change::Insert, true, true),
            Kind::UPDATE_ROWS_COMPRESSED => layout(Change::Update, true, true),
            Kind::DELETE_ROWS_COMPRESSED => layout(Change::Delete, true, true),
            _ => return None,
        })
    }
}

impl Layout {
    /// Tells whether each row comes as it was and as it is.
    pub(super) fn has_two_images(self) -> bool {
        self.change == Change::Update
    }
}

/// A rows event's flag: its statement ends with it.
pub(super) const STATEMENT_END: u8 = 0x01;

/// Reads the number of the table whose rows come, and whether their statement ends with them.
pub(super) fn head(body: &mut Fields<'_>) -> io::Result<(u64, bool)> {
    let (table, flags) = (body.int(6)?, body.array::<2>()?);
    Ok((table, flags[0] & STATEMENT_END != 0))
}

/// Counts the rows of an event whose head has been read, or returns none where their form is not known.
pub(super) fn count(layout: Layout, table: &TableMap, body: &mut Fields<'_>) -> io::Result<Option<u64>> {
    if layout.has_extra {
        let extra = body.int(2)?;
        body.skip(extra.saturating_sub(2))?;
    }
    let width = body.length()?;
    let bitmap = body.take(width.div_ceil(8))?;
    let after = match layout.change {
        Change::Update => Some(body.take(width.div_ceil(8))?),
        Change::Insert | Change::Delete => None,
    };
    let Some(images) = table.present(&bitmap) else { return Ok(None) };
    let after = match after {
        Some(bitmap) => table.present(&bitmap),
        None => None,
    };
    let partial = layout.is_partial.then_some(table.json_columns);
    // A row without columns takes no byte, and there may be any number of them.
    if images.is_empty() {
        return Ok(None);
    }
    if layout.is_compressed {
        skip_squeezed_head(body)?;
        let mut plain = ZlibDecoder::new(&mut *body.0);
        return each(&images, after.as_ref(), partial, &mut Fields(&mut plain)).map(Some);
    }
    each(&images, after.as_ref(), partial, body).map(Some)
}

fn each(before: &Present, after: Option<&Present>, partial: Option<usize>, rows: &mut Fields<'_>) -> io::Result<u64> {
    let mut count = 0;
    while let Some(first) = rows.next()? {
        before.skip(first, rows)?;
        if let Some(after) = after.filter(|after| !after.is_empty()) {
            if let Some(json_columns) = partial {
                skip_partial_bits(json_columns, rows)?;
            }
            let first = rows.u8()?;
            after.skip(first, rows)?;
        }
        count += 1;
    }
    Ok(count)
}

/// Goes past what stands before a partial image: options, and with the first of them a bit for each JSON column.
fn skip_partial_bits(json_columns: usize, rows: &mut Fields<'_>) -> io::Result<()> {
    let options = rows.length()?;
    let bits = if options & 1 == 0 { 0 } else { json_columns.div_ceil(8) };
    rows.skip(bits as u64)
}

/// Goes past what stands before MariaDB's compressed bytes: a byte whose lowest three bits say how many bytes of length follow.
pub(super) fn skip_squeezed_head(body: &mut Fields<'_>) -> io::Result<()> {
    let length_bytes = body.u8()? & 0x07;
    body.skip(length_bytes.into())
}

/// Reads the first bytes, at most so many, of what MariaDB has compressed, which may be cut.
pub(super) fn unsqueeze(mut squeezed: &[u8], bytes_max: u64) -> io::Result<Vec<u8>> {
    skip_squeezed_head(&mut Fields(&mut squeezed))?;
    let mut plain = Vec::new();
    match ZlibDecoder::new(squeezed).take(bytes_max).read_to_end(&mut plain) {
        Err(error) if plain.is_empty() => Err(error),
        _ => Ok(plain),
    }
}

/// Returns all that MariaDB has compressed.
pub(super) fn unsqueeze_whole(mut squeezed: &[u8]) -> io::Result<Vec<u8>> {
    skip_squeezed_head(&mut Fields(&mut squeezed))?;
    let mut plain = Vec::new();
    ZlibDecoder::new(squeezed).take(EVENT_BYTES_MAX.into()).read_to_end(&mut plain)?;
    Ok(plain)
}
