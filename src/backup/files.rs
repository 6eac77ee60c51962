//! Saves an image tree: one walk beside the parent's, many threads, and only what changed is read.
//!
//! What cannot be read is listed, and stands in the snapshot as the parent has it: absence is recorded only where a
//! listing completed.

mod tally;
mod walk;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use crate::backup::files::tally::Tally;
use crate::backup::files::walk::Walk;
use crate::entry::Metadata;
use crate::event::Unit;
use crate::id::BlobId;
use crate::repository::Node;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::repository::StoredSnapshot;
use crate::repository::Tree;
use crate::repository::Writer;
use crate::run::Run;
use crate::run::Stopped;
use crate::source::files::FilesError;
use crate::source::files::FilesSource;
use crate::source::files::guard::Totals;

/// Directories nest in one another on the stack of a thread; 16 MiB are room for 256 of them.
const STACK_BYTES: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum BackupFilesError {
    #[error(transparent)]
    Source(#[from] FilesError),
    #[error(transparent)]
    Repository(RepositoryError),
    #[error("start threads that read files: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<RepositoryError> for BackupFilesError {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Stopped(stopped) => Self::Stopped(stopped),
            error => Self::Repository(error),
        }
    }
}

impl BackupFilesError {
    /// Returns the next step.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Source(error) => error.hint(),
            Self::Repository(error) => error.hint(),
            Self::Threads(_) => Some("lower `threads` in the policy".to_owned()),
            Self::Stopped(_) => None,
        }
    }
}

/// A saved tree, not yet named by a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSaved {
    /// The tree from `/` down, for the snapshot.
    pub tree: BlobId,
    pub counts: Counts,
    /// What could not be read and why, by path from the top of the source, sorted; the first
    /// 10,000 of them. Not empty: the snapshot is incomplete.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Files that changed on every reading, likewise.
    pub fuzzy: Vec<PathBuf>,
    /// Directories that are another filesystem's: their content is left out.
    pub other_filesystems: Vec<PathBuf>,
}

/// What a run met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Regular files in the tree, and their bytes.
    pub files: u64,
    pub bytes: u64,
    pub dirs: u64,
    /// Links, pipes, sockets and devices.
    pub others: u64,
    pub files_new: u64,
    pub files_changed: u64,
    /// Known by their state, and not read.
    pub files_unmodified: u64,
    pub dirs_new: u64,
    pub dirs_changed: u64,
    pub dirs_unmodified: u64,
    pub bytes_read: u64,
    /// Entries that were listed and gone a moment later.
    pub vanished: u64,
    pub excluded: u64,
    pub unreadable: u64,
    pub fuzzy: u64,
}

impl Counts {
    /// Returns what the guards compare.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals { files: self.files, bytes: self.bytes }
    }
}

/// Saves the tree, reading what the parent does not hold. Blocks: call it from a thread that may.
///
/// The parent's `time` must not be later than the moment when its run began to read. The guards that need the whole tree
/// run at the end; the drop is measured against the parent's summary.
///
/// # Errors
/// [`FilesError::Guard`] where the tree lost too much; whatever breaks the writer. One file's fault is no error.
pub fn save(
    source: &FilesSource,
    parent: Option<&StoredSnapshot>,
    repository: &Arc<Repository>,
    writer: &Writer,
    run: &Run,
) -> Result<FilesSaved, BackupFilesError> {
    let before = parent.and_then(totals_of);
    let expected = before.map_or(0, |totals| totals.files);
    let name = format!("save {}", source.path().display());
    let task = run.events.task(name, Unit::Files, expected);
    let tally = Tally::new(&task);
    let walk = Walk::new(source, parent, repository, writer, run, &tally);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(source.threads())
        .stack_size(STACK_BYTES)
        .thread_name(|index| format!("files-{index}"))
        .build()?;
    let top = source.root()?;
    let tree = pool.install(|| walk.top(top))?;
    source.guard_after(tally.counts().totals(), before).map_err(FilesError::from)?;
    let tree = wrap(source.ancestors()?, tree, writer)?;
    Ok(tally.into_saved(tree))
}

/// Hangs the tree below the directories that lead to it, as restic does.
fn wrap(above: Vec<(OsString, Metadata)>, tree: BlobId, writer: &Writer) -> Result<BlobId, RepositoryError> {
    above.into_iter().rev().try_fold(tree, |below, (name, metadata)| {
        let node = Node { name, metadata, content: Vec::new(), subtree: Some(below) };
        writer.save_tree(&Tree { nodes: vec![node] })
    })
}

fn totals_of(parent: &StoredSnapshot) -> Option<Totals> {
    let summary = parent.snapshot.summary.as_ref()?;
    Some(Totals { files: summary.total_files_processed, bytes: summary.total_bytes_processed })
}
