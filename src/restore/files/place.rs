//! Where in a snapshot the source's tree lies.

use std::path::{Path, PathBuf};

use crate::entry::{Kind, Metadata};
use crate::id::BlobId;
use crate::repository::Repository;
use crate::repository::Snapshot;
use crate::restore::files::RestoreFilesError;

/// One directory of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path that was backed up.
    pub path: PathBuf,
    pub tree: BlobId,
    /// The directory's own metadata; `None` for `/`, which has none in a snapshot.
    pub metadata: Option<Metadata>,
}

impl Place {
    /// Finds the directory that a snapshot is of: its path, or all of it where it names none or several.
    ///
    /// # Errors
    /// Where the snapshot's tree does not hold its own path.
    pub fn of(repository: &Repository, snapshot: &Snapshot) -> Result<Self, RestoreFilesError> {
        let path = match snapshot.paths.as_slice() {
            [path] if Path::new(path).is_absolute() => PathBuf::from(path),
            _ => PathBuf::from("/"),
        };
        Self::at(repository, snapshot, &path)
    }

    /// Finds a directory of a snapshot by its path from `/`.
    ///
    /// # Errors
    /// Where it is not in the snapshot.
    pub fn at(repository: &Repository, snapshot: &Snapshot, path: &Path) -> Result<Self, RestoreFilesError> {
        let mut place = Self { path: PathBuf::from("/"), tree: snapshot.tree, metadata: None };
        for name in path.components().skip(1) {
            let tree = repository.tree_blocking(&place.tree)?;
            place.path.push(name);
            let node = tree.nodes.into_iter().find(|node| node.name == name.as_os_str());
            let node = node.filter(|node| node.metadata.kind == Kind::Dir);
            let found = node.and_then(|node| Some((node.subtree?, node.metadata)));
            let Some((tree, metadata)) = found else {
                let path = place.path;
                return Err(RestoreFilesError::NotInSnapshot { path });
            };
            place.tree = tree;
            place.metadata = Some(metadata);
        }
        Ok(place)
    }
}
