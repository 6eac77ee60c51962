//! A stream on its way into the repository.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use crate::chunk::{Chunker, Cutter};
use crate::id::BlobId;
use crate::repository::error::RepositoryError;
use crate::repository::writer::again::Again;
use crate::repository::writer::{Added, Ticket, Writer};
use crate::seal::Effort;

/// Outcomes waited for together: the writer's own bound on bytes is reached before.
const TICKETS_MAX: usize = 128;

/// The blobs of a stream that was cut.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    pub blobs: Vec<BlobId>,
    pub size: u64,
    pub added: Added,
}

/// Cuts what is written to it into blobs.
pub struct FileWriter {
    chunker: Chunker,
    outlet: Outlet,
    fault: Option<RepositoryError>,
}

impl FileWriter {
    pub(super) fn new(writer: Writer, cutter: Cutter, lost: Option<Arc<HashSet<BlobId>>>) -> Self {
        let again = lost.map(|lost| (Again::new(writer.pieces.clone()), lost));
        let outlet =
            Outlet { writer, effort: Arc::default(), again, tickets: VecDeque::new(), content: Content::default() };
        Self { chunker: Chunker::new(cutter), outlet, fault: None }
    }

    /// Ends the stream and waits until all its blobs are sealed.
    ///
    /// # Errors
    /// Whatever broke the writer.
    pub fn finish(self) -> Result<Content, RepositoryError> {
        match self.fault {
            Some(fault) => Err(fault),
            None => self.outlet.finish(self.chunker.finish()),
        }
    }

    fn cut(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.chunker.push(bytes, |chunk| {
            self.outlet.take(chunk)?;
            Ok(self.outlet.writer.chunk_memory())
        })
    }
}

/// The chunks of a stream on their way to the writer.
struct Outlet {
    writer: Writer,
    effort: Arc<Effort>,
    /// Where it was saved before; with the blobs that are lost.
    again: Option<(Again, Arc<HashSet<BlobId>>)>,
    tickets: VecDeque<Ticket>,
    content: Content,
}

impl Outlet {
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), RepositoryError> {
        match &mut self.again {
            None => self.put(None, chunk),
            Some((again, lost)) => {
                let is_as_before = |id| self.writer.knows(id) || lost.contains(&id);
                let mut parts = again.next(chunk, is_as_before).into_iter();
                parts.try_for_each(|(id, plain)| self.put(Some(id), plain))
            }
        }
    }

    fn finish(mut self, last: Option<Vec<u8>>) -> Result<Content, RepositoryError> {
        if let Some(last) = last {
            self.take(last)?;
        }
        for ticket in self.tickets {
            self.content.settle(ticket)?;
        }
        Ok(self.content)
    }

    fn put(&mut self, id: Option<BlobId>, plain: Vec<u8>) -> Result<(), RepositoryError> {
        if self.tickets.len() >= TICKETS_MAX
            && let Some(oldest) = self.tickets.pop_front()
        {
            self.content.settle(oldest)?;
        }
        self.tickets.push_back(self.writer.put_part(&self.effort, id, plain)?);
        Ok(())
    }
}

impl Content {
    fn settle(&mut self, ticket: Ticket) -> Result<(), RepositoryError> {
        let saved = ticket.wait()?;
        self.blobs.push(saved.id);
        self.size += saved.plain;
        if saved.is_new {
            self.added += Added { blobs: 1, plain: saved.plain, stored: saved.stored };
        }
        Ok(())
    }
}

impl io::Write for FileWriter {
    /// Takes all bytes. After an error the stream is lost, and `finish` returns it too.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(fault) = &self.fault {
            return Err(io::Error::other(fault.clone()));
        }
        if let Err(error) = self.cut(bytes) {
            self.fault = Some(error.clone());
            return Err(io::Error::other(error));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
