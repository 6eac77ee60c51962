//! What a walk has met so far, told from many threads.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::backup::files::Counts;
use crate::backup::files::FilesSaved;
use crate::event::Task;
use crate::id::BlobId;

/// As many paths of a kind are kept for the report: a few MiB, where a dead disk could name millions.
pub(super) const LISTED_MAX: usize = 10_000;

pub(super) struct Tally<'a> {
    task: &'a Task,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    unreadable: Vec<(PathBuf, String)>,
    fuzzy: Vec<PathBuf>,
    other_filesystems: Vec<PathBuf>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(task: &'a Task) -> Self {
        Self { task, state: Mutex::default() }
    }

    /// Counts something.
    pub(super) fn count(&self, count: impl FnOnce(&mut Counts)) {
        self.with(|state| count(&mut state.counts));
    }

    /// Counts a file that stands in the tree.
    pub(super) fn file(&self, size: u64, count: impl FnOnce(&mut Counts)) {
        self.count(|counts| {
            counts.files += 1;
            counts.bytes += size;
            count(counts);
        });
        self.task.add(1);
    }

    /// Counts what the parent's entry held, which now stands in this tree.
    pub(super) fn add(&self, kept: &Counts) {
        self.count(|counts| {
            counts.files += kept.files;
            counts.bytes += kept.bytes;
            counts.dirs += kept.dirs;
            counts.others += kept.others;
        });
        self.task.add(kept.files);
    }

    /// Lists an entry that cannot be read; returns how many there are by now.
    pub(super) fn unreadable(&self, path: PathBuf, reason: &impl ToString) -> u64 {
        self.with(|state| {
            state.counts.unreadable += 1;
            push(&mut state.unreadable, (path, reason.to_string()));
            state.counts.unreadable
        })
    }

    pub(super) fn fuzzy(&self, path: PathBuf) {
        self.with(|state| {
            state.counts.fuzzy += 1;
            push(&mut state.fuzzy, path);
        });
    }

    pub(super) fn other_filesystem(&self, path: &Path) {
        self.with(|state| push(&mut state.other_filesystems, path.to_owned()));
    }

    pub(super) fn counts(&self) -> Counts {
        self.with(|state| state.counts)
    }

    pub(super) fn into_saved(self, tree: BlobId) -> FilesSaved {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.unreadable.sort_unstable();
        state.fuzzy.sort_unstable();
        state.other_filesystems.sort_unstable();
        FilesSaved {
            tree,
            counts: state.counts,
            unreadable: state.unreadable,
            fuzzy: state.fuzzy,
            other_filesystems: state.other_filesystems,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() < LISTED_MAX {
        list.push(item);
    }
}
