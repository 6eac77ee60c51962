//! What the jobs of an export share: the dump to read, the directory to write, and the way from the one into the other.

use std::sync::Arc;

use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::event::Task;
use crate::export::ExportError;
use crate::export::dir::{Dir, Out};
use crate::mysql::manifest::Chunk;
use crate::run::{Run, Stopped};
use crate::target::mysql::{DumpReadError, DumpReader};

pub(super) struct Desk {
    dump: Arc<dyn DumpReader>,
    dir: Dir,
    progress: Task,
    /// Cancelled by a signal, or by the first job that fails.
    cancel: CancellationToken,
    /// Jobs block; the dump is read by the runtime.
    runtime: Handle,
}

impl Desk {
    pub(super) fn new(dump: Arc<dyn DumpReader>, dir: Dir, progress: Task, run: &Run) -> Self {
        Self { dump, dir, progress, cancel: run.cancel.child_token(), runtime: Handle::current() }
    }

    pub(super) fn stop(&self) {
        self.cancel.cancel();
    }

    pub(super) fn check(&self) -> Result<(), ExportError> {
        if self.cancel.is_cancelled() { Err(Stopped.into()) } else { Ok(()) }
    }

    pub(super) fn into_dir(self) -> Dir {
        self.dir
    }

    pub(super) fn file(&self, name: &str) -> Result<Out, ExportError> {
        self.dir.file(name)
    }

    /// Reads a small file of the dump whole.
    pub(super) fn text(&self, path: &str) -> Result<String, ExportError> {
        let bytes = self.runtime.block_on(self.dump.read(path))?;
        String::from_utf8(bytes).map_err(|error| malformed(path, error))
    }

    /// Reads the statements of an object.
    pub(super) fn statements(&self, path: &str) -> Result<Vec<String>, ExportError> {
        serde_json::from_str(&self.text(path)?).map_err(|error| malformed(path, error))
    }

    /// Hands the text of a row file on, piece by piece, and proves at its end that it was the manifest's.
    pub(super) fn rows(
        &self,
        chunk: &Chunk,
        mut take: impl FnMut(&[u8]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let mut pieces = self.dump.stream(&chunk.path);
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Some(piece) = self.runtime.block_on(pieces.next()) {
            self.check()?;
            let piece = piece?;
            hash.update(&piece);
            bytes += piece.len() as u64;
            take(&piece)?;
            self.progress.add(piece.len() as u64);
        }
        if bytes == chunk.bytes && hex::encode(hash.finalize()) == chunk.sha256 {
            return Ok(());
        }
        Err(DumpReadError::Damaged { path: chunk.path.clone(), source: None }.into())
    }
}

fn malformed(path: &str, error: impl std::error::Error + Send + Sync + 'static) -> ExportError {
    DumpReadError::Malformed { path: path.to_owned(), source: Box::new(error) }.into()
}
