//! A directory of the target, from its making until all below it is done.
//!
//! Its own metadata is given last: writing into it moves its times, and its mode may forbid it. Few directories are held open
//! at once, however wide a tree is: one that is needed again is opened again, by its path from the top and through no link.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::entry::Metadata;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::content::ContentError;
use crate::restore::files::fault::Fault;
use crate::restore::files::walk::Walk;
use crate::target::files::State;
use crate::target::files::dir::TargetDir;
use crate::target::files::is_full;

/// Directories held open for the next of their files; a process may often have only 256 files open in all.
const OPEN_MAX: usize = 32;

/// A directory of the target, made once something in it is meant.
#[derive(Debug)]
pub(super) struct Spot {
    /// The directory above, and this one's own entry there; none for the top.
    above: Option<(Arc<Spot>, Entry)>,
    pub(super) path: PathBuf,
    pub(super) depth: usize,
    pub(super) is_meant: bool,
    made: OnceLock<Result<(), (io::ErrorKind, String)>>,
    open: Mutex<Weak<TargetDir>>,
    /// Entries in it that are not done, and one more while it is listed.
    undone: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    name: OsString,
    metadata: Metadata,
}

/// The directories that were opened last.
#[derive(Debug, Default)]
pub(super) struct OpenDirs {
    newest: Mutex<VecDeque<Arc<TargetDir>>>,
}

impl OpenDirs {
    fn keep(&self, dir: &Arc<TargetDir>) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.push_back(Arc::clone(dir));
        let oldest = if newest.len() > OPEN_MAX { newest.pop_front() } else { None };
        drop(newest);
        drop(oldest);
    }
}

impl Spot {
    pub(super) fn top(is_meant: bool) -> Arc<Self> {
        Arc::new(Self::new(None, PathBuf::new(), 0, is_meant))
    }

    /// A directory that is going to be listed; the one above is not done before it.
    pub(super) fn below(above: &Arc<Self>, name: OsString, metadata: Metadata, is_meant: bool) -> Arc<Self> {
        above.begin();
        let path = above.path.join(&name);
        let entry = Some((Arc::clone(above), Entry { name, metadata }));
        Arc::new(Self::new(entry, path, above.depth + 1, is_meant))
    }

    fn new(above: Option<(Arc<Self>, Entry)>, path: PathBuf, depth: usize, is_meant: bool) -> Self {
        let (made, open) = (OnceLock::new(), Mutex::default());
        Self { above, path, depth, is_meant, made, open, undone: AtomicUsize::new(1) }
    }

    /// Notes that one more entry is to be done before the directory is; [`Walk::done`] takes it back.
    pub(super) fn begin(&self) {
        self.undone.fetch_add(1, Ordering::Relaxed);
    }

    fn opened(&self) -> Option<Arc<TargetDir>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }
}

impl Walk<'_> {
    /// Returns the open directory, made with those above it when it is asked for first.
    pub(super) fn dir(&self, spot: &Spot) -> Result<Arc<TargetDir>, Fault> {
        let Some((above, entry)) = &spot.above else {
            return Ok(Arc::clone(self.target.root()));
        };
        if let Some(dir) = spot.opened() {
            return Ok(dir);
        }
        let told = |kind, text: &str| {
            let error = io::Error::new(kind, format!("make its directory: {text}"));
            self.fault(&spot.path, ContentError::File(error))
        };
        let mut fresh = None;
        if spot.made.get().is_none() {
            let above = self.dir(above)?;
            let replace = self.target.state() == State::Foreign;
            spot.made.get_or_init(|| match above.enter(&entry.name, replace) {
                Ok(dir) => {
                    fresh = Some(dir);
                    Ok(())
                }
                Err(error) => Err((error.kind(), error.to_string())),
            });
        }
        if let Some(Err((kind, text))) = spot.made.get() {
            return Err(told(*kind, text));
        }
        let dir = match fresh {
            Some(dir) => dir,
            None => self.target.root().descend(&spot.path).map_err(|error| told(error.kind(), &error.to_string()))?,
        };
        let dir = Arc::new(dir);
        *spot.open.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&dir);
        self.open_dirs.keep(&dir);
        Ok(dir)
    }

    /// Notes that an entry of a directory is done, whatever came of it. The last one finishes the directory, and it those above.
    pub(super) fn done(&self, spot: &Arc<Spot>) -> Result<(), RestoreFilesError> {
        let mut spot = spot;
        while spot.undone.fetch_sub(1, Ordering::AcqRel) == 1 {
            let Some((above, entry)) = &spot.above else { break };
            if let Some(Ok(())) = spot.made.get() {
                self.count(|restored| restored.dirs += 1);
                match self.dir(spot) {
                    Ok(dir) => self.finish_dir(&dir, &spot.path, &entry.metadata)?,
                    Err(fault) => self.note(&spot.path, fault)?,
                }
            }
            spot = above;
        }
        Ok(())
    }

    pub(super) fn finish_dir(
        &self,
        dir: &TargetDir,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), RestoreFilesError> {
        match self.give(dir, path, metadata) {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => self.note(path, self.fault(path, ContentError::File(error))),
            Err(error) => {
                self.reduced(path, format!("its mode and times: {error}"));
                Ok(())
            }
        }
    }
}
