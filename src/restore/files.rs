//! Restores an image tree from a snapshot, or proves that a directory holds what the snapshot says.
//!
//! [`plan`] only reads. [`apply`] writes every entry whole or not at all, goes on past what is damaged, and can be run
//! again after an interruption: what is there already is kept.

pub mod compare;
mod content;
mod fault;
mod links;
mod list;
mod place;
mod plan;
mod selection;
mod spot;
mod walk;
mod window;
mod write;

use std::path::{Path, PathBuf};

use crate::event::Unit;
use crate::repository::Node;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::repository::Snapshot;
use crate::restore::files::walk::Walk;
use crate::run::Run;
use crate::run::Stopped;
use crate::source::files::FilesError;
use crate::target::files::FilesTarget;
use crate::target::files::State;
use crate::target::files::TargetFilesError;
use crate::target::files::look;
pub use compare::{Comparison, Difference, What, compare};
pub use place::Place;
pub use selection::{Selection, SelectionError};

/// Directories nest in one another on the stack of a thread.
const STACK_BYTES: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum RestoreFilesError {
    #[error(transparent)]
    Repository(RepositoryError),
    #[error(transparent)]
    Target(#[from] TargetFilesError),
    /// The directory that a snapshot is compared with.
    #[error(transparent)]
    Compared(#[from] FilesError),
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error("find `{path}` in the snapshot: it is not there")]
    NotInSnapshot { path: PathBuf },
    #[error("start threads that write files: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<RepositoryError> for RestoreFilesError {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Stopped(stopped) => Self::Stopped(stopped),
            error => Self::Repository(error),
        }
    }
}

impl RestoreFilesError {
    /// Returns the next step.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Repository(error) => error.hint(),
            Self::Target(error) => error.hint(),
            Self::Compared(error) => error.hint(),
            Self::Selection(error) => error.hint(),
            Self::NotInSnapshot { .. } => {
                Some("`restic ls` or `bkp snapshots` tell what the snapshot holds".to_owned())
            }
            Self::Threads(_) => Some("give fewer with `--connections`".to_owned()),
            Self::Stopped(_) => Some("run it again: it goes on where it stopped".to_owned()),
        }
    }
}

/// What to restore, where to, and how.
#[derive(Debug, Clone)]
pub struct Options {
    pub target: PathBuf,
    pub selection: Selection,
    /// Write into a directory that is not empty; what is in the way is replaced, what is not in the snapshot stays.
    pub overwrite: bool,
    pub threads: usize,
}

/// What a restore is going to do. Computed without writing a byte.
#[derive(Debug, Clone)]
pub struct FilesPlan {
    pub options: Options,
    /// The tree within the snapshot whose content goes into the target.
    pub place: Place,
    pub state: State,
    pub files: u64,
    pub bytes: u64,
    pub dirs: u64,
    /// Links, pipes, sockets and devices.
    pub others: u64,
    /// Files whose blobs no index names, and directories that cannot be read: they will be among the failed.
    pub missing: Vec<PathBuf>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    pub files: u64,
    pub bytes: u64,
    pub dirs: u64,
    pub others: u64,
    /// Files that were there already, with the right content, and their bytes; counted in `files` and `bytes` too.
    pub skipped: u64,
    pub bytes_skipped: u64,
    /// What is not there, and why; sorted by path. The first 10,000 of `failures`.
    pub failed: Vec<(PathBuf, String)>,
    pub failures: u64,
    /// How many of the failures are the repository's: bytes that are missing or damaged.
    pub damaged: u64,
    /// What is there without something, and without what; likewise the first of `reductions`.
    pub reduced: Vec<(PathBuf, String)>,
    pub reductions: u64,
    /// Entries that belong to whoever restored instead of their owner: only root may give files away.
    pub owners_lost: u64,
}

/// Computes what a restore is going to do. Blocks: call it from a thread that may.
///
/// # Errors
/// Where the target is not empty, or nothing in the snapshot is meant.
pub fn plan(
    repository: &Repository,
    snapshot: &Snapshot,
    options: Options,
    run: &Run,
) -> Result<FilesPlan, RestoreFilesError> {
    let place = Place::of(repository, snapshot)?;
    let options = Options { selection: options.selection.below(&place.path)?, ..options };
    let state = look(&options.target, &place.tree, options.overwrite)?;
    let pool = pool(options.threads)?;
    let sum = pool.install(|| plan::sum(repository, &place, &options.selection, run))?;
    options.selection.check_all_met()?;
    Ok(FilesPlan {
        options,
        place,
        state,
        files: sum.files,
        bytes: sum.bytes,
        dirs: sum.dirs,
        others: sum.others,
        missing: sum.missing,
    })
}

/// Does what the plan says. Blocks: call it from a thread that may.
///
/// # Errors
/// What ends the restore: the target is full, the store cannot be reached, a signal. Damage to single entries is no
/// error but a failure in the result.
pub fn apply(plan: &FilesPlan, repository: &Repository, run: &Run) -> Result<Restored, RestoreFilesError> {
    let options = &plan.options;
    let target = FilesTarget::open(&options.target, &plan.place.tree, options.overwrite)?;
    let name = format!("restore {}", options.target.display());
    let task = run.events.task(name, Unit::Bytes, plan.bytes);
    let walk = Walk::new(repository, &target, &options.selection, run, &task);
    walk.top(&plan.place, &pool(options.threads)?)?;
    // After a failure the marker stays: once the repository is healed, another run brings what is missing.
    target.finish(walk.has_failed())?;
    walk.finish_top(&plan.place)?;
    Ok(walk.into_restored())
}

fn pool(threads: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .stack_size(STACK_BYTES)
        .thread_name(|index| format!("restore-{index}"))
        .build()
}

/// Returns the path of an entry below a directory.
fn below(dir: &Path, node: &Node) -> PathBuf {
    dir.join(&node.name)
}
