//! Leaps over events that were read and proved before.

use std::io::{Read, Seek};

use crate::mysql::binlog::{BinlogError, SegmentReader};

impl<R: Read + Seek> SegmentReader<R> {
    /// Goes on at an offset at which an event begins or the file ends. Once the file's format has been read; one that lies behind the
    /// reader changes nothing.
    ///
    /// # Errors
    /// Those of [`SegmentReader::finish`], and an input that cannot be read there.
    pub fn leap_to(&mut self, offset: u64) -> Result<(), BinlogError> {
        self.finish()?;
        if self.torn.is_none() && offset > self.offset {
            let bytes = i64::try_from(offset - self.offset).unwrap_or(i64::MAX);
            self.input.seek_relative(bytes).map_err(|error| self.io(error))?;
            self.offset = offset;
        }
        Ok(())
    }
}
