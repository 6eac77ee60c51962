//! A segment's bytes out of the repository, as a stream with memory for one chunk.

use std::fmt;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::vec::IntoIter;

use tokio::runtime::Handle;

use crate::id::BlobId;
use crate::repository::{BlobKind, Repository};

/// Reads a segment chunk by chunk. It blocks: on a thread of its own, never on one that runs tasks.
pub struct SegmentBytes {
    repository: Arc<Repository>,
    left: IntoIter<BlobId>,
    chunk: Cursor<Vec<u8>>,
    runtime: Handle,
}

impl fmt::Debug for SegmentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentBytes({} chunks left)", self.left.len())
    }
}

impl SegmentBytes {
    /// Must be called within the runtime that is to wait for the chunks.
    pub(super) fn new(repository: Arc<Repository>, chunks: Vec<BlobId>) -> Self {
        Self { repository, left: chunks.into_iter(), chunk: Cursor::default(), runtime: Handle::current() }
    }
}

impl Read for SegmentBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(next) = self.left.next() else { return Ok(0) };
            let bytes = self.runtime.block_on(self.repository.blob(BlobKind::Data, &next));
            self.chunk = Cursor::new(bytes.map_err(io::Error::other)?);
        }
    }
}
