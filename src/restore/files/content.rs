//! A file's bytes, between the repository and a directory.

use std::io::{self, Read};

use crate::id::BlobId;
use crate::repository::BlobKind;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::run::{Run, Stopped};

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
