//! Events as a file without checksums and without compression holds them.

use crate::mysql::binlog::format::Format;
use crate::mysql::binlog::rows::{Layout, unsqueeze_whole};
use crate::mysql::binlog::segment::SegmentReader;
use crate::mysql::binlog::{BinlogError, Event, Header, Kind, Malformed, payload};
use crate::mysql::wire::cursor::Cursor;

/// Where an event's length and its kind stand.
const LENGTH: std::ops::Range<usize> = 9..13;
const KIND_AT: usize = 4;

/// A rows event's table and flags, and the length of its extra data with itself.
const TABLE_AND_FLAGS_BYTES: usize = 8;
const EXTRA_LENGTH_BYTES: usize = 2;

/// Returns the bytes of an event that was read whole, without its checksum; rows that MariaDB has compressed are plain.
///
/// # Errors
/// An event that was not read whole, or compressed bytes that are damaged.
pub fn plain(event: &Event<'_>) -> Result<Vec<u8>, Malformed> {
    let head = event.raw().first_chunk::<{ Header::BYTES }>().filter(|_| event.is_whole());
    let mut plain = head.ok_or(Malformed("it was not read to its end"))?.to_vec();
    match Layout::of(event.header.kind).filter(|layout| layout.is_compressed) {
        Some(layout) => {
            plain[KIND_AT] = plain_kind(event.header.kind).0;
            let fixed = event.body().len() - rows_of(layout, event.body())?.len();
            let (fixed, squeezed) = event.body().split_at(fixed);
            plain.extend_from_slice(fixed);
            plain.extend(unsqueeze_whole(squeezed).map_err(|_| Malformed("its compressed rows are damaged"))?);
        }
        None => plain.extend_from_slice(event.body()),
    }
    let length = u32::try_from(plain.len()).map_err(|_| Malformed("its rows are longer than any event"))?;
    plain[LENGTH].copy_from_slice(&length.to_le_bytes());
    Ok(plain)
}

/// Goes past what stands before the rows.
fn rows_of(layout: Layout, body: &[u8]) -> Result<&[u8], Malformed> {
    let mut cursor = Cursor::new(body);
    cursor.take(TABLE_AND_FLAGS_BYTES)?;
    if layout.has_extra {
        let extra = usize::from(cursor.u16()?);
        cursor.take(extra.saturating_sub(EXTRA_LENGTH_BYTES))?;
    }
    let width = cursor.length()?;
    let bitmaps = if layout.has_two_images() { 2 } else { 1 };
    cursor.take(width.div_ceil(8) * bitmaps)?;
    Ok(cursor.rest())
}

fn plain_kind(kind: Kind) -> Kind {
    match kind {
        Kind::WRITE_ROWS_COMPRESSED_V1 => Kind::WRITE_ROWS_V1,
        Kind::UPDATE_ROWS_COMPRESSED_V1 => Kind::UPDATE_ROWS_V1,
        Kind::DELETE_ROWS_COMPRESSED_V1 => Kind::DELETE_ROWS_V1,
        Kind::WRITE_ROWS_COMPRESSED => Kind::WRITE_ROWS,
        Kind::UPDATE_ROWS_COMPRESSED => Kind::UPDATE_ROWS,
        Kind::DELETE_ROWS_COMPRESSED => Kind::DELETE_ROWS,
        other => other,
    }
}

impl<R: std::io::Read> SegmentReader<R> {
    /// Shows the events within the compressed transaction at hand, each whole, and goes past it.
    ///
    /// # Errors
    /// Those of `take`, and bytes that are damaged or an event of more than `bytes_max`.
    pub fn unpack<E: From<BinlogError>>(
        &mut self,
        bytes_max: u32,
        mut take: impl FnMut(&Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let offset = self.offset();
        let damaged = || Malformed("its compressed events are damaged").at(offset);
        let format = self.format().map(Format::without_checksum).ok_or_else(damaged)?;
        // A damaged event is told as such, and not by what its bytes seem to say.
        let unpacked = self.unpack_as(format, bytes_max, offset, &mut take);
        self.finish()?;
        unpacked
    }

    fn unpack_as<E: From<BinlogError>>(
        &mut self,
        format: Format,
        bytes_max: u32,
        offset: u64,
        take: &mut dyn FnMut(&Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let damaged = || Malformed("its compressed events are damaged").at(offset);
        let at = |error| match error {
            BinlogError::TooLarge { bytes, bytes_max, .. } => BinlogError::TooLarge { offset, bytes, bytes_max },
            _ => damaged(),
        };
        let mut body = self.body();
        let mut reader = SegmentReader::inner(payload::open(&mut body).map_err(|_| damaged())?, format);
        while reader.next().map_err(at)?.is_some() {
            if let Some(event) = reader.read_whole(bytes_max).map_err(at)? {
                take(&event)?;
            }
        }
        if reader.torn().is_some() { Err(damaged().into()) } else { Ok(()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;
    use crate::mysql::binlog::Checksum;

    fn event(kind: Kind, body: &[u8]) -> Vec<u8> {
        let mut event = vec![0; Header::BYTES];
        event[KIND_AT] = kind.0;
        event[LENGTH].copy_from_slice(&((Header::BYTES + body.len() + 4) as u32).to_le_bytes());
        event.extend_from_slice(body);
        event.extend_from_slice(&crc32fast::hash(&event).to_le_bytes());
        event
    }

    #[test]
    fn compressed_rows_become_plain_ones_of_the_same_statement() {
        let fixed = [1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 9, 0xFF, 1, 0xFF, 1];
        let rows = [7; 300];
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&rows).unwrap();
        let squeezed = [&fixed[..], &[0x82, 1, 44], &zlib.finish().unwrap()].concat();
        let raw = event(Kind::UPDATE_ROWS_COMPRESSED, &squeezed);
        let told = plain(&Event::parse(&raw, 4, Checksum::Crc32).unwrap()).unwrap();
        let expected = event(Kind::UPDATE_ROWS, &[&fixed[..], &rows].concat());
        assert_eq!(told[KIND_AT], Kind::UPDATE_ROWS.0);
        assert_eq!(told[Header::BYTES..], expected[Header::BYTES..expected.len() - 4]);
        assert_eq!(u32::from_le_bytes(told[LENGTH].try_into().unwrap()) as usize, told.len());
        let cut = event(Kind::UPDATE_ROWS_COMPRESSED, &squeezed[..squeezed.len() - 3]);
        assert!(plain(&Event::parse(&cut, 4, Checksum::Crc32).unwrap()).is_err());
    }

    #[test]
    fn other_events_lose_their_checksum_alone() {
        let raw = event(Kind::WRITE_ROWS, &[1, 2, 3]);
        let told = plain(&Event::parse(&raw, 4, Checksum::Crc32).unwrap()).unwrap();
        assert_eq!(told[Header::BYTES..], [1, 2, 3]);
        assert_eq!(told.len(), raw.len() - 4);
    }
}
