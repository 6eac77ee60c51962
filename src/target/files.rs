//! A directory that a tree is restored into.
//!
//! Every entry is made beside its place under a name of bkp's own and renamed when it is whole, so that what has its right
//! name is right. Everything goes by open directories and follows no link: a link planted in the target leads nowhere.
//!
//! A marker file says that a restore is under way, of which tree, and whether the directory was empty before: with it
//! an interrupted restore goes on where it stopped.

pub mod dir;
mod early;
mod marker;
pub mod metadata;
pub mod sparse;

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::id::BlobId;
use crate::target::files::dir::TargetDir;
use crate::target::files::early::EarlyWriteBack;
use crate::target::files::marker::Marker;

/// What a restore may find in its target without asking: an empty ext4 has this.
const LOST_AND_FOUND: &str = "lost+found";

#[derive(Debug, thiserror::Error)]
pub enum TargetFilesError {
    #[error("restore into `{path}`: it is not empty")]
    NotEmpty { path: PathBuf },
    #[error("restore into `{path}`: a restore of another snapshot was interrupted there")]
    OtherRestore { path: PathBuf },
    #[error("{act} `{path}`: {error}")]
    Io { act: &'static str, path: PathBuf, error: io::Error },
}

impl TargetFilesError {
    /// Returns the next step.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotEmpty { .. } => "name an empty directory, or say --overwrite",
            Self::OtherRestore { .. } => "empty it, restore that snapshot, or say --overwrite",
            Self::Io { error, .. } if is_full(error) => {
                "free space there and run it again: it goes on where it stopped"
            }
            Self::Io { .. } => return None,
        };
        Some(text.to_owned())
    }
}

/// What stands in the target before a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing, or no directory yet.
    Empty,
    /// What an interrupted restore of the same tree left; whole files have their names.
    Interrupted,
    /// Anything else: files that look the same are read before they are believed.
    Foreign,
}

/// An open target.
#[derive(Debug)]
pub struct FilesTarget {
    path: PathBuf,
    root: Arc<TargetDir>,
    state: State,
    early: EarlyWriteBack,
}

/// Looks at what stands in a target, and changes nothing.
///
/// # Errors
/// [`TargetFilesError::NotEmpty`] and [`TargetFilesError::OtherRestore`] unless told to overwrite.
pub fn look(path: &Path, tree: &BlobId, overwrite: bool) -> Result<State, TargetFilesError> {
    let root = match TargetDir::top(path) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Empty),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let names = root.names().map_err(io_error("list", path))?;
    judge(path, &root, &names, tree, overwrite)
}

fn judge(
    path: &Path,
    root: &TargetDir,
    names: &[OsString],
    tree: &BlobId,
    overwrite: bool,
) -> Result<State, TargetFilesError> {
    let is_empty = names.iter().all(|name| name == LOST_AND_FOUND);
    let marker = Marker::read(root).map_err(io_error("read the marker in", path))?;
    let path = path.to_owned();
    match marker {
        Some(marker) if marker.is_of(tree) => Ok(marker.state()),
        _ if is_empty => Ok(State::Empty),
        _ if overwrite => Ok(State::Foreign),
        Some(_) => Err(TargetFilesError::OtherRestore { path }),
        None => Err(TargetFilesError::NotEmpty { path }),
    }
}

impl FilesTarget {
    /// Opens a directory for a restore of `tree`, made with its parents where it is missing, and marks it.
    ///
    /// # Errors
    /// As [`look`], and where it cannot be written.
    pub fn open(path: &Path, tree: &BlobId, overwrite: bool) -> Result<Self, TargetFilesError> {
        make(path).map_err(io_error("make the directory", path))?;
        let root = Arc::new(TargetDir::top(path).map_err(io_error("open", path))?);
        let names = root.names().map_err(io_error("list", path))?;
        let state = judge(path, &root, &names, tree, overwrite)?;
        let cleaned = root.remove_unfinished();
        cleaned.map_err(io_error("clean up in", path))?;
        let marker = Marker::new(*tree, state);
        marker.write(&root).map_err(io_error("mark", path))?;
        Ok(Self { path: path.to_owned(), root, state, early: EarlyWriteBack::start() })
    }

    #[must_use]
    pub fn root(&self) -> &Arc<TargetDir> {
        &self.root
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes note of a file of so many bytes that is whole: the disk may begin with it.
    pub fn written(&self, file: &File, size: u64) {
        self.early.add(file, size);
    }

    /// Makes everything durable and takes the marker away, unless another run is to go on here.
    ///
    /// # Errors
    /// Where the filesystem could not write back what it had taken.
    pub fn finish(&self, goes_on: bool) -> Result<(), TargetFilesError> {
        let synced = self.root.sync_filesystem();
        synced.map_err(io_error("write back", &self.path))?;
        if goes_on {
            return Ok(());
        }
        Marker::remove(&self.root).map_err(io_error("unmark", &self.path))
    }
}

/// Makes the target where it is missing, closed to others until it is done; the directories above it are made as by `mkdir -p`.
fn make(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn io_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TargetFilesError {
    let path = path.to_owned();
    move |error| TargetFilesError::Io { act, path, error }
}

/// Tells whether an error is the target's and not one entry's: nothing more can be written there.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}
