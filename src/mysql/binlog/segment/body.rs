//! An event's body as a stream, for what may be larger than memory.

use std::io::{self, Read};

use crate::mysql::binlog::segment::SegmentReader;
use crate::mysql::binlog::{Checksum, Header};

/// What stands between header and checksum of the event at hand.
#[derive(Debug)]
pub(in crate::mysql::binlog) struct Body<'a, R> {
    reader: &'a mut SegmentReader<R>,
    /// How much of the event has been handed on.
    at: u64,
    end: u64,
}

impl<'a, R: Read> Body<'a, R> {
    pub(super) fn new(reader: &'a mut SegmentReader<R>) -> Self {
        let checksum = match (&reader.format, reader.header) {
            (Some(format), Some(header)) => format.checksum_of(header.kind),
            _ => Checksum::None,
        };
        let end = reader.event_length().saturating_sub(checksum.bytes() as u64);
        Self { reader, at: Header::BYTES as u64, end }
    }
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let held = usize::try_from(self.at).ok().and_then(|at| self.reader.buffer.get(at..)).unwrap_or(&[]);
        let read = if held.is_empty() {
            let read = self.reader.input.read(&mut buffer[..wanted]).map_err(|error| self.reader.fail(error))?;
            self.reader.keep(&buffer[..read]);
            read
        } else {
            let count = wanted.min(held.len());
            buffer[..count].copy_from_slice(&held[..count]);
            count
        };
        self.at += read as u64;
        Ok(read)
    }
}
