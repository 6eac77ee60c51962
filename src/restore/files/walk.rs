//! The walk that writes a tree, directory by directory, on many threads.
//!
//! A directory's own metadata is given when all below it is done: writing into it moves its times.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use crate::entry::{Kind, Metadata};
use crate::event::Task;
use crate::id::BlobId;
use crate::repository::Node;
use crate::repository::Repository;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::Restored;
use crate::restore::files::below;
use crate::restore::files::content::ContentError;
use crate::restore::files::fault::Fault;
use crate::restore::files::links::Links;
use crate::restore::files::pack::Work;
use crate::restore::files::place::Place;
use crate::restore::files::selection::{Meant, Selection};
use crate::restore::files::write::Done;
use crate::run::Run;
use crate::target::files::FilesTarget;
use crate::target::files::State;
use crate::target::files::dir::{TargetDir, check_name};
use crate::target::files::is_full;

/// As many paths of a kind are kept for the report.
const LISTED_MAX: usize = 10_000;

/// Entries, or packs' worth of them, that one thread takes at a time.
const WORK_AT_ONCE: usize = 2;

pub(super) struct Walk<'a> {
    pub(super) repository: &'a Repository,
    pub(super) target: &'a FilesTarget,
    pub(super) selection: &'a Selection,
    pub(super) run: &'a Run,
    pub(super) task: &'a Task,
    pub(super) links: Links,
    restored: Mutex<Restored>,
}

/// A directory of the target, made once something in it is meant.
pub(super) struct Spot<'a> {
    /// The directory above, and this one's own entry there; none for the top.
    above: Option<(&'a Spot<'a>, &'a Node)>,
    pub(super) path: PathBuf,
    made: OnceLock<io::Result<TargetDir>>,
    pub(super) is_meant: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        target: &'a FilesTarget,
        selection: &'a Selection,
        run: &'a Run,
        task: &'a Task,
    ) -> Self {
        Self { repository, target, selection, run, task, links: Links::default(), restored: Mutex::default() }
    }

    /// Writes all that is meant.
    pub(super) fn top(&self, place: &Place) -> Result<(), RestoreFilesError> {
        let top = Spot { above: None, path: PathBuf::new(), made: OnceLock::new(), is_meant: self.selection.is_all() };
        self.directory(&top, &place.tree)
    }

    /// Gives the target's own directory the metadata of the snapshot's, once nothing more is written into it.
    pub(super) fn finish_top(&self, place: &Place) -> Result<(), RestoreFilesError> {
        match &place.metadata {
            Some(metadata) if self.selection.is_all() => self.finish_dir(self.target.root(), Path::new(""), metadata),
            _ => Ok(()),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        let restored = self.restored.lock();
        restored.unwrap_or_else(PoisonError::into_inner).failures > 0
    }

    pub(super) fn into_restored(self) -> Restored {
        let restored = self.restored.into_inner();
        let mut restored = restored.unwrap_or_else(PoisonError::into_inner);
        restored.failed.sort_unstable();
        restored.reduced.sort_unstable();
        restored
    }

    fn directory(&self, spot: &Spot<'_>, tree: &BlobId) -> Result<(), RestoreFilesError> {
        self.run.check()?;
        let tree = match self.repository.tree_blocking(tree) {
            Ok(tree) => tree,
            Err(error) => {
                let fault = self.fault(&spot.path, ContentError::Repository(error));
                return self.note(&spot.path, fault.of_all_below());
            }
        };
        let work = self.share_out(spot, &tree.nodes);
        let work = work.par_iter().with_max_len(WORK_AT_ONCE);
        work.try_for_each(|work| match work {
            Work::Pack(pack, nodes) => self.pack(spot, pack, nodes),
            Work::Entry(node) => self.node(spot, node),
        })
    }

    pub(super) fn node(&self, spot: &Spot<'_>, node: &Node) -> Result<(), RestoreFilesError> {
        self.run.check()?;
        let path = below(&spot.path, node);
        let meant = if spot.is_meant { Meant::All } else { self.selection.means(&path) };
        if meant == Meant::No {
            return Ok(());
        }
        if let Err(reason) = check_name(&node.name) {
            return self.note(&path, Fault::entry(reason));
        }
        match (meant, &node.metadata.kind) {
            (_, Kind::Dir) => self.subdirectory(spot, node, path, meant == Meant::All),
            (Meant::All, Kind::File) => match self.file(spot, node, &path) {
                Ok(done) => {
                    self.count_file(&done);
                    Ok(())
                }
                Err(fault) => self.note(&path, fault),
            },
            (Meant::All, _) => match self.special(spot, node, &path) {
                Ok(()) => {
                    self.count(|restored| restored.others += 1);
                    Ok(())
                }
                Err(fault) => self.note(&path, fault),
            },
            _ => Ok(()),
        }
    }

    fn subdirectory(
        &self,
        above: &Spot<'_>,
        node: &Node,
        path: PathBuf,
        is_meant: bool,
    ) -> Result<(), RestoreFilesError> {
        let spot = Spot { above: Some((above, node)), path, made: OnceLock::new(), is_meant };
        if is_meant && let Err(fault) = self.dir(&spot) {
            return self.note(&spot.path, fault.of_all_below());
        }
        match &node.subtree {
            Some(tree) => self.directory(&spot, tree)?,
            None => self.note(&spot.path, Fault::damage("its tree is not named"))?,
        }
        match spot.made.get() {
            Some(Ok(dir)) => {
                self.count(|restored| restored.dirs += 1);
                self.finish_dir(dir, &spot.path, &node.metadata)
            }
            _ => Ok(()),
        }
    }

    /// Returns the open directory, made with those above it when it is asked for first.
    pub(super) fn dir<'s>(&'s self, spot: &'s Spot<'_>) -> Result<&'s TargetDir, Fault> {
        let Some((above, node)) = spot.above else {
            return Ok(self.target.root());
        };
        let above = self.dir(above)?;
        let replace = self.target.state() == State::Foreign;
        let made = spot.made.get_or_init(|| above.enter(&node.name, replace));
        made.as_ref().map_err(|error| {
            let told = io::Error::new(error.kind(), format!("make its directory: {error}"));
            self.fault(&spot.path, ContentError::File(told))
        })
    }

    fn finish_dir(&self, dir: &TargetDir, path: &Path, metadata: &Metadata) -> Result<(), RestoreFilesError> {
        match self.give(dir, OsStr::new("."), path, metadata) {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => self.note(path, self.fault(path, ContentError::File(error))),
            Err(error) => {
                self.reduced(path, format!("its mode and times: {error}"));
                Ok(())
            }
        }
    }

    /// Notes what is not there, and goes on unless nothing more can be done.
    pub(super) fn note(&self, path: &Path, fault: Fault) -> Result<(), RestoreFilesError> {
        let (reason, is_damage) = match fault {
            Fault::Fatal(error) => return Err(error),
            Fault::Entry { reason, is_damage } => (reason, is_damage),
        };
        self.count(|restored| {
            restored.failures += 1;
            restored.damaged += u64::from(is_damage);
            if restored.failed.len() < LISTED_MAX {
                restored.failed.push((path.to_owned(), reason));
            }
        });
        Ok(())
    }

    pub(super) fn reduced(&self, path: &Path, reason: String) {
        self.count(|restored| {
            restored.reductions += 1;
            if restored.reduced.len() < LISTED_MAX {
                restored.reduced.push((path.to_owned(), reason));
            }
        });
    }

    pub(super) fn count_file(&self, done: &Done) {
        self.count(|restored| {
            restored.files += 1;
            restored.bytes += done.bytes;
            if done.was_there {
                restored.skipped += 1;
                restored.bytes_skipped += done.bytes;
            }
        });
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Restored)) {
        count(&mut self.restored.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
