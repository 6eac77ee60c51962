//! A segment that grows while it is read: only as far as it may be read, for what lies behind may be cut off and come again.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mysql::binlog::{BinlogError, Event, Format, MAGIC, SegmentReader};
use crate::replay::feed::FeedError;
use crate::replay::segments::Segment;

/// Read ahead of a file.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// A reader of one segment, up to a bound that is named anew with each event.
#[derive(Debug)]
pub(crate) struct Bounded {
    pub(super) reader: SegmentReader<BufReader<UpTo>>,
    bound: Arc<AtomicU64>,
}

/// A file, up to a bound that others move.
#[derive(Debug)]
pub(super) struct UpTo {
    file: File,
    at: u64,
    bound: Arc<AtomicU64>,
}

impl Read for UpTo {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.bound.load(Ordering::Relaxed).saturating_sub(self.at);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..wanted])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for UpTo {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(place)?;
        Ok(self.at)
    }
}

/// Opens a segment at its beginning; what came to the file since it was listed is not read.
pub(super) fn open_whole(segment: &Segment) -> Result<SegmentReader<BufReader<UpTo>>, FeedError> {
    open_up_to(segment, Arc::new(AtomicU64::new(segment.bytes)))
}

fn open_up_to(segment: &Segment, bound: Arc<AtomicU64>) -> Result<SegmentReader<BufReader<UpTo>>, FeedError> {
    let file = File::open(&segment.path);
    let file = file.map_err(|error| FeedError::Open { name: segment.name.clone(), error })?;
    let reader = SegmentReader::new(BufReader::with_capacity(BUFFER_BYTES, UpTo { file, at: 0, bound }));
    reader.map_err(|error| FeedError::Read { name: segment.name.clone(), error })
}

impl Bounded {
    /// Opens a segment at its beginning.
    pub(crate) fn open(segment: &Segment) -> Result<Self, FeedError> {
        let bound = Arc::new(AtomicU64::new(MAGIC.len() as u64));
        Ok(Self { reader: open_up_to(segment, Arc::clone(&bound))?, bound })
    }

    /// Returns the next event that begins before the bound, at which an event must end; none where none does.
    ///
    /// # Errors
    /// Those of [`SegmentReader::next`].
    pub(crate) fn next(&mut self, bound: u64) -> Result<Option<Event<'_>>, BinlogError> {
        self.finish()?;
        self.bound.store(bound, Ordering::Relaxed);
        if self.reader.offset() >= bound { Ok(None) } else { self.reader.next() }
    }

    /// Goes past the event at hand, and checks its checksum.
    ///
    /// # Errors
    /// Those of [`SegmentReader::finish`].
    pub(crate) fn finish(&mut self) -> Result<(), BinlogError> {
        self.reader.finish()
    }

    /// Leaps to an offset at which an event begins, or the segment ends, over events that were read and proved before. Before its first
    /// event has been read it stays where it is.
    ///
    /// # Errors
    /// Those of [`SegmentReader::leap_to`].
    pub(crate) fn leap_to(&mut self, offset: u64) -> Result<(), BinlogError> {
        if self.reader.format().is_some() { self.reader.leap_to(offset) } else { Ok(()) }
    }

    /// Returns the offset after the last whole event.
    pub(crate) fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// Returns the segment's format, once its first event has been read.
    pub(super) fn format(&self) -> Option<&Format> {
        self.reader.format()
    }
}
