//! A file's bytes, between the repository and a directory.

use std::fs::File;
use std::io::{self, Read};

use crate::id::BlobId;
use crate::repository::BlobKind;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::run::{Run, Stopped};
use crate::target::files::sparse;

#[derive(Debug)]
pub(super) enum ContentError {
    Repository(RepositoryError),
    File(io::Error),
    Stopped(Stopped),
}

impl From<Stopped> for ContentError {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

/// Writes blobs one after the other into an empty file, zeros as holes; tells each one's length. The repository proves
/// every blob by its hash.
pub(super) fn write(
    repository: &Repository,
    file: &File,
    content: &[BlobId],
    run: &Run,
    written: impl Fn(u64),
) -> Result<u64, ContentError> {
    let mut size = 0;
    for id in content {
        run.check()?;
        let bytes = repository.blob_blocking(BlobKind::Data, id).map_err(ContentError::Repository)?;
        sparse::write_at(file, &bytes, size).map_err(ContentError::File)?;
        size += bytes.len() as u64;
        written(bytes.len() as u64);
    }
    // A hole at the end is not written, and not there yet.
    file.set_len(size).map_err(ContentError::File)?;
    Ok(size)
}

/// Why a file was not proved to hold a content.
#[derive(Debug)]
pub(super) enum Unproved {
    Differs,
    /// The repository does not know a blob's length, so nothing can be said.
    Unknown,
    Failed(ContentError),
}

/// Proves that an open file holds just these blobs, by their hashes; nothing of their bytes is fetched.
pub(super) fn prove(
    repository: &Repository,
    file: &mut impl Read,
    content: &[BlobId],
    run: &Run,
) -> Result<(), Unproved> {
    let failed = |error| Unproved::Failed(ContentError::File(error));
    let mut bytes = Vec::new();
    for id in content {
        run.check().map_err(|stopped| Unproved::Failed(stopped.into()))?;
        let size = repository.blob_size(BlobKind::Data, id).ok_or(Unproved::Unknown)?;
        bytes.clear();
        file.take(size).read_to_end(&mut bytes).map_err(failed)?;
        if BlobId::of(&bytes) != *id {
            return Err(Unproved::Differs);
        }
    }
    bytes.clear();
    file.take(1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.is_empty() { Ok(()) } else { Err(Unproved::Differs) }
}
