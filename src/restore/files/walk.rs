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
use crate::repository::BlobKind;
use crate::repository::Node;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::Restored;
use crate::restore::files::below;
use crate::restore::files::content::{self, ContentError, Unproved};
use crate::restore::files::links::Links;
use crate::restore::files::place::Place;
use crate::restore::files::selection::{Meant, Selection};
use crate::run::Run;
use crate::target::files::FilesTarget;
use crate::target::files::State;
use crate::target::files::TargetFilesError;
use crate::target::files::dir::{TargetDir, check_name};
use crate::target::files::is_full;
use crate::target::files::metadata::give;

/// As many paths of a kind are kept for the report.
const LISTED_MAX: usize = 10_000;

/// Files that one thread takes at a time; they lie side by side in a pack.
const NODES_AT_ONCE: usize = 8;

pub(super) struct Walk<'a> {
    repository: &'a Repository,
    target: &'a FilesTarget,
    selection: &'a Selection,
    run: &'a Run,
    task: &'a Task,
    links: Links,
    restored: Mutex<Restored>,
}

/// A directory of the target, made once something in it is meant.
struct Spot<'a> {
    /// The directory above, and this one's own entry there; none for the top.
    above: Option<(&'a Spot<'a>, &'a Node)>,
    path: PathBuf,
    made: OnceLock<io::Result<TargetDir>>,
    is_meant: bool,
}

/// What was done for one file.
struct Done {
    bytes: u64,
    was_there: bool,
}

/// Why an entry is not there.
enum Fault {
    /// It alone: noted, and the restore goes on.
    Entry { reason: String, is_damage: bool },
    /// Nothing more can be done.
    Fatal(RestoreFilesError),
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        target: &'a FilesTarget,
        selection: &'a Selection,
        run: &'a Run,
        task: &'a Task,
    ) -> Self {
        Self {
            repository,
            target,
            selection,
            run,
            task,
            links: Links::default(),
            restored: Mutex::default(),
        }
    }

    /// Writes all that is meant.
    pub(super) fn top(&self, place: &Place) -> Result<(), RestoreFilesError> {
        let top = Spot {
            above: None,
            path: PathBuf::new(),
            made: OnceLock::new(),
            is_meant: self.selection.is_all(),
        };
        self.directory(&top, &place.tree)
    }

    /// Gives the target's own directory the metadata of the snapshot's, once nothing more is written into it.
    pub(super) fn finish_top(&self, place: &Place) -> Result<(), RestoreFilesError> {
        match &place.metadata {
            Some(metadata) if self.selection.is_all() => {
                self.finish_dir(self.target.root(), Path::new(""), metadata)
            }
            _ => Ok(()),
        }
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
        let mut nodes: Vec<&Node> = tree.nodes.iter().collect();
        // Files of one pack follow each other, so that a store is asked for neighbouring bytes.
        nodes.sort_by_cached_key(|node| self.pack_of(node));
        let nodes = nodes.par_iter().with_max_len(NODES_AT_ONCE);
        nodes.try_for_each(|node| self.node(spot, node))
    }

    fn node(&self, spot: &Spot<'_>, node: &Node) -> Result<(), RestoreFilesError> {
        self.run.check()?;
        let path = below(&spot.path, node);
        let meant = if spot.is_meant {
            Meant::All
        } else {
            self.selection.means(&path)
        };
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
        let spot = Spot {
            above: Some((above, node)),
            path,
            made: OnceLock::new(),
            is_meant,
        };
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
    fn dir<'s>(&'s self, spot: &'s Spot<'_>) -> Result<&'s TargetDir, Fault> {
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

    fn finish_dir(
        &self,
        dir: &TargetDir,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), RestoreFilesError> {
        match self.give(dir, OsStr::new("."), path, metadata) {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => {
                self.note(path, self.fault(path, ContentError::File(error)))
            }
            Err(error) => {
                self.reduced(path, format!("its mode and times: {error}"));
                Ok(())
            }
        }
    }

    fn file(&self, spot: &Spot<'_>, node: &Node, path: &Path) -> Result<Done, Fault> {
        let dir = self.dir(spot)?;
        let Some(written) = self.links.meet(&node.metadata) else {
            return self.write_file(dir, node, path);
        };
        // Threads that meet another name meanwhile wait here: the file is written by this thread alone, without rayon.
        let mut mine = None;
        let first = written.get_or_init(|| {
            let done = self.write_file(dir, node, path);
            let is_written = done.is_ok();
            mine = Some(done);
            is_written.then(|| path.to_owned())
        });
        match (mine, first) {
            (Some(done), _) => done,
            (None, None) => self.write_file(dir, node, path),
            (None, Some(first)) => {
                let linked = self.link(dir, node, first);
                linked.map_err(|error| self.fault(path, ContentError::File(error)))
            }
        }
    }

    fn link(&self, dir: &TargetDir, node: &Node, first: &Path) -> io::Result<Done> {
        let above = first.parent().unwrap_or(Path::new(""));
        let of = self.target.root().descend(above)?;
        let temp = dir.temp_link(&of, first.file_name().unwrap_or_default())?;
        temp.publish(&node.name)?;
        self.task.add(node.metadata.size);
        Ok(Done {
            bytes: node.metadata.size,
            was_there: false,
        })
    }

    fn write_file(&self, dir: &TargetDir, node: &Node, path: &Path) -> Result<Done, Fault> {
        if self.is_there(dir, node, path)? {
            self.task.add(node.metadata.size);
            return Ok(Done {
                bytes: node.metadata.size,
                was_there: true,
            });
        }
        let fault = |error| self.fault(path, error);
        let mut temp = dir
            .temp_file()
            .map_err(|error| fault(ContentError::File(error)))?;
        let told = |bytes| self.task.add(bytes);
        let bytes = content::write(self.repository, temp.file(), &node.content, self.run, told);
        let bytes = bytes.map_err(fault)?;
        if bytes != node.metadata.size {
            let size = node.metadata.size;
            self.reduced(
                path,
                format!("the snapshot says {size} bytes, its content has {bytes}"),
            );
        }
        let given = self.give(dir, temp.name(), path, &node.metadata);
        let published = given.and_then(|()| temp.publish(&node.name));
        published.map_err(|error| fault(ContentError::File(error)))?;
        Ok(Done {
            bytes,
            was_there: false,
        })
    }

    /// Tells whether a file is there already. What an interrupted restore of this tree named is whole; of anything else
    /// the bytes are read and hashed.
    fn is_there(&self, dir: &TargetDir, node: &Node, path: &Path) -> Result<bool, Fault> {
        if self.target.state() == State::Empty {
            return Ok(false);
        }
        let Ok(stat) = dir.stat(&node.name) else {
            return Ok(false);
        };
        if !looks_same(&stat, &node.metadata) {
            return Ok(false);
        }
        if self.target.state() == State::Interrupted {
            return Ok(true);
        }
        let Ok(mut file) = dir.open_file(&node.name) else {
            return Ok(false);
        };
        let fault = |error| self.fault(path, error);
        match content::prove(self.repository, &mut file, &node.content, self.run) {
            Ok(()) => {}
            Err(Unproved::Differs | Unproved::Unknown) => return Ok(false),
            Err(Unproved::Failed(error)) => return Err(fault(error)),
        }
        let given = self.give(dir, &node.name, path, &node.metadata);
        given.map_err(|error| fault(ContentError::File(error)))?;
        Ok(true)
    }

    fn special(&self, spot: &Spot<'_>, node: &Node, path: &Path) -> Result<(), Fault> {
        let dir = self.dir(spot)?;
        let made = dir.temp_special(&node.metadata).and_then(|temp| {
            self.give(dir, temp.name(), path, &node.metadata)?;
            temp.publish(&node.name)
        });
        made.map_err(|error| self.fault(path, ContentError::File(error)))
    }

    fn give(
        &self,
        dir: &TargetDir,
        name: &OsStr,
        path: &Path,
        metadata: &Metadata,
    ) -> io::Result<()> {
        let reduced = give(dir, name, metadata)?;
        if reduced.owner {
            self.count(|restored| restored.owners_lost += 1);
        }
        for reason in reduced.reasons {
            self.reduced(path, reason);
        }
        Ok(())
    }

    fn pack_of(&self, node: &Node) -> Option<crate::id::ObjectId> {
        let blob = node.content.first()?;
        self.repository.pack_of(BlobKind::Data, blob)
    }

    fn fault(&self, path: &Path, error: ContentError) -> Fault {
        match error {
            ContentError::Stopped(stopped)
            | ContentError::Repository(RepositoryError::Stopped(stopped)) => {
                Fault::Fatal(stopped.into())
            }
            ContentError::Repository(error) if error.is_damage() => {
                Fault::damage(error.to_string())
            }
            ContentError::Repository(error) => Fault::Fatal(error.into()),
            ContentError::File(error) if is_full(&error) => {
                let path = self.target.path().join(path);
                let act = "write";
                Fault::Fatal(TargetFilesError::Io { act, path, error }.into())
            }
            ContentError::File(error) => Fault::entry(error.to_string()),
        }
    }

    /// Notes what is not there, and goes on unless nothing more can be done.
    fn note(&self, path: &Path, fault: Fault) -> Result<(), RestoreFilesError> {
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

    fn reduced(&self, path: &Path, reason: String) {
        self.count(|restored| {
            restored.reductions += 1;
            if restored.reduced.len() < LISTED_MAX {
                restored.reduced.push((path.to_owned(), reason));
            }
        });
    }

    fn count_file(&self, done: &Done) {
        self.count(|restored| {
            restored.files += 1;
            restored.bytes += done.bytes;
            if done.was_there {
                restored.skipped += 1;
                restored.bytes_skipped += done.bytes;
            }
        });
    }

    fn count(&self, count: impl FnOnce(&mut Restored)) {
        count(&mut self.restored.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Fault {
    fn entry(reason: impl Into<String>) -> Self {
        Self::Entry {
            reason: reason.into(),
            is_damage: false,
        }
    }

    fn damage(reason: impl Into<String>) -> Self {
        Self::Entry {
            reason: reason.into(),
            is_damage: true,
        }
    }

    /// Says of a directory that its whole content is concerned.
    fn of_all_below(self) -> Self {
        match self {
            Self::Entry { reason, is_damage } => Self::Entry {
                reason: format!("it and all below it: {reason}"),
                is_damage,
            },
            fatal @ Self::Fatal(_) => fatal,
        }
    }
}

fn looks_same(stat: &rustix::fs::Stat, metadata: &Metadata) -> bool {
    let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let mtime = chrono::DateTime::from_timestamp(stat.st_mtime, nanoseconds);
    is_file && u64::try_from(stat.st_size) == Ok(metadata.size) && mtime == Some(metadata.mtime)
}
