//! The walk that writes a tree: one thread lists it and gathers files into windows, many write a window's files as their bytes come.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use rayon::ThreadPool;

use crate::event::Task;
use crate::repository::Repository;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::Restored;
use crate::restore::files::fault::Fault;
use crate::restore::files::links::Links;
use crate::restore::files::list::Lister;
use crate::restore::files::place::Place;
use crate::restore::files::selection::Selection;
use crate::restore::files::spot::OpenDirs;
use crate::restore::files::window::File;
use crate::restore::files::write::Done;
use crate::run::Run;
use crate::target::files::FilesTarget;

/// As many paths of a kind are kept for the report.
const LISTED_MAX: usize = 10_000;

pub(super) struct Walk<'a> {
    pub(super) repository: &'a Repository,
    pub(super) target: &'a FilesTarget,
    pub(super) selection: &'a Selection,
    pub(super) run: &'a Run,
    pub(super) task: &'a Task,
    pub(super) links: Links,
    pub(super) open_dirs: OpenDirs,
    /// Names to write because the first name of their file could not be.
    again: Mutex<Vec<Arc<File>>>,
    restored: Mutex<Restored>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        target: &'a FilesTarget,
        selection: &'a Selection,
        run: &'a Run,
        task: &'a Task,
    ) -> Self {
        let (links, open_dirs) = (Links::default(), OpenDirs::default());
        let (again, restored) = (Mutex::default(), Mutex::default());
        Self { repository, target, selection, run, task, links, open_dirs, again, restored }
    }

    /// Writes all that is meant. While one window is written, the next is gathered.
    pub(super) fn top(&self, place: &Place, pool: &ThreadPool) -> Result<(), RestoreFilesError> {
        thread::scope(|scope| {
            let (sender, windows) = mpsc::sync_channel(0);
            let lister = scope.spawn(|| Lister::new(self, sender).list(&place.tree));
            for window in &windows {
                pool.install(|| self.window(window))?;
            }
            drop(windows);
            lister.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(super) fn write_again(&self, file: Arc<File>) {
        self.again.lock().unwrap_or_else(PoisonError::into_inner).push(file);
    }

    pub(super) fn take_again(&self) -> Vec<Arc<File>> {
        std::mem::take(&mut *self.again.lock().unwrap_or_else(PoisonError::into_inner))
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
