//! Compares a directory with a snapshot, entry by entry and byte by byte.
//!
//! Content is hashed where it lies and compared with the names of the snapshot's blobs: nothing is fetched but trees.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::entry::{DEPTH_MAX, Kind, Metadata};
use crate::event::{Task, Unit};
use crate::id::BlobId;
use crate::repository::Node;
use crate::repository::Repository;
use crate::repository::Tree;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::below;
use crate::restore::files::content::{self, ContentError, Unproved};
use crate::restore::files::links;
use crate::restore::files::place::Place;
use crate::restore::files::selection::{Meant, Selection};
use crate::run::Run;
use crate::source::files::FilesSource;
use crate::source::files::dir::{Dir, Listing};
use crate::source::files::read::ReadError;

/// As many differences are kept for the report.
const LISTED_MAX: usize = 10_000;

/// In what an entry differs from the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The snapshot has it, the directory does not.
    Missing,
    /// The directory has it, the snapshot does not.
    Extra,
    Kind,
    Size,
    Content,
    Mode,
    Owner,
    Mtime,
    /// What a symbolic link says, or a device's number.
    Target,
    Xattrs,
    /// Names that were one file are several, or the other way about.
    HardLink,
    /// It could not be read, here or in the repository: nothing is proved.
    Unreadable,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// From the top of the directory.
    pub path: PathBuf,
    pub what: What,
    /// What the snapshot has and what is there, for people.
    pub detail: String,
}

impl What {
    /// Tells whether content is not what it was, rather than something about it.
    #[must_use]
    pub fn is_of_content(self) -> bool {
        matches!(self, Self::Missing | Self::Kind | Self::Size | Self::Content | Self::Target)
    }

    /// Returns the word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "not in the snapshot",
            Self::Kind => "another kind",
            Self::Size => "size",
            Self::Content => "content",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Mtime => "modification time",
            Self::Target => "link target or device",
            Self::Xattrs => "extended attributes",
            Self::HardLink => "hard link",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_os_str().as_encoded_bytes().escape_ascii();
        write!(f, "{path}: {}", self.what.word())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    pub files: u64,
    pub bytes: u64,
    pub dirs: u64,
    pub others: u64,
    /// Sorted by path; the first 10,000 of `differing`.
    pub differences: Vec<Difference>,
    pub differing: u64,
    /// How many of them are of content.
    pub damaged: u64,
    /// How many of them are entries that the snapshot does not have.
    pub extra: u64,
}

impl Comparison {
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differing == 0
    }

    /// Forgives what is there besides: a restore into a directory that was not empty leaves it.
    pub fn leave_out_extra(&mut self) {
        self.differences.retain(|difference| difference.what != What::Extra);
        self.differing -= self.extra;
        self.extra = 0;
    }
}

/// Compares what is meant of a place in a snapshot with a directory. What else is there counts only in directories that are meant as
/// a whole. Blocks: call it from a thread that may.
///
/// Access and change times, inodes and owners' names are not compared: no restore can give them back.
///
/// # Errors
/// Where the directory or the store cannot be read at all, or on a signal.
pub fn compare(
    repository: &Repository,
    place: &Place,
    selection: &Selection,
    directory: &Path,
    threads: usize,
    run: &Run,
) -> Result<Comparison, RestoreFilesError> {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let source = FilesSource::plain(&absolute)?;
    let name = format!("compare {}", directory.display());
    let task = run.events.task(name, Unit::Files, 0);
    let (names, found) = (Names::default(), Mutex::default());
    let compare = Compare { repository, selection, source: &source, run, task: &task, names, found };
    let top = source.root()?;
    if let Some(metadata) = place.metadata.as_ref().filter(|_| selection.is_all()) {
        compare.top(&top.dir, metadata);
    }
    super::pool(threads)?.install(|| compare.directory(&top, &place.tree, selection.is_all()))?;
    let mut found = compare.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.differences.sort_unstable();
    Ok(found)
}

struct Compare<'a> {
    repository: &'a Repository,
    selection: &'a Selection,
    source: &'a FilesSource,
    run: &'a Run,
    task: &'a Task,
    names: Names,
    found: Mutex<Comparison>,
}

/// Which file of the snapshot is which file of the directory, by device and inode, for files with several names.
#[derive(Default)]
struct Names {
    pairs: Mutex<Pairs>,
}

#[derive(Default)]
struct Pairs {
    there: HashMap<(u64, u64), (u64, u64)>,
    taken: HashSet<(u64, u64)>,
}

impl Compare<'_> {
    fn top(&self, dir: &Dir, then: &Metadata) {
        match self.source.look_at(dir) {
            Ok(now) => self.metadata(Path::new(""), then, &now),
            Err(error) => self.differs(Path::new(""), What::Unreadable, error.to_string()),
        }
    }

    fn directory(&self, listing: &Listing, tree: &BlobId, is_meant: bool) -> Result<(), RestoreFilesError> {
        let Some(tree) = self.tree(listing.dir.path(), listing.dir.depth(), tree)? else { return Ok(()) };
        let known: HashSet<&OsStr> = tree.nodes.iter().map(|node| node.name.as_os_str()).collect();
        for name in listing.names.iter().filter(|_| is_meant) {
            let is_the_systems = listing.dir.depth() == 0 && name == "lost+found";
            if !known.contains(name.as_os_str()) && !is_the_systems {
                self.differs(&listing.dir.path().join(name), What::Extra, String::new());
            }
        }
        tree.nodes.par_iter().try_for_each(|node| {
            let path = below(listing.dir.path(), node);
            let meant = if is_meant { Meant::All } else { self.selection.means(&path) };
            match (meant, &node.subtree) {
                (Meant::All, _) => self.node(&listing.dir, node, &path),
                (Meant::Below, Some(tree)) => self.on_the_way(&listing.dir, node, &path, tree),
                _ => Ok(()),
            }
        })
    }

    /// Reads a directory of the snapshot, unless that proves nothing.
    fn tree(&self, path: &Path, depth: usize, tree: &BlobId) -> Result<Option<Tree>, RestoreFilesError> {
        self.run.check()?;
        if depth > DEPTH_MAX {
            self.differs(path, What::Unreadable, format!("deeper than {DEPTH_MAX} directories"));
            return Ok(None);
        }
        match self.repository.tree_blocking(tree) {
            Ok(tree) => Ok(Some(tree)),
            Err(error) if error.is_damage() => {
                self.differs(path, What::Unreadable, error.to_string());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Compares what is meant below a directory that is not meant itself: it need not be there for nothing.
    fn on_the_way(&self, dir: &Dir, node: &Node, path: &Path, tree: &BlobId) -> Result<(), RestoreFilesError> {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        match self.source.enter(dir, &node.name) {
            Ok(listing) => self.directory(&listing, tree, false),
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {
                self.missing_below(path, dir.depth() + 1, tree)
            }
            Err(error) => {
                self.differs(path, What::Unreadable, error.to_string());
                Ok(())
            }
        }
    }

    fn missing_below(&self, path: &Path, depth: usize, tree: &BlobId) -> Result<(), RestoreFilesError> {
        let Some(tree) = self.tree(path, depth, tree)? else { return Ok(()) };
        for node in &tree.nodes {
            let path = below(path, node);
            match (self.selection.means(&path), &node.subtree) {
                (Meant::All, _) => self.differs(&path, What::Missing, String::new()),
                (Meant::Below, Some(tree)) => self.missing_below(&path, depth + 1, tree)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&self, dir: &Dir, node: &Node, path: &Path) -> Result<(), RestoreFilesError> {
        self.run.check()?;
        let now = match self.source.look(dir, &node.name) {
            Ok(now) => now,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.differs(path, What::Missing, String::new());
                return Ok(());
            }
            Err(error) => {
                self.differs(path, What::Unreadable, error.to_string());
                return Ok(());
            }
        };
        let xattrs = self.source.xattrs(dir, &node.name).unwrap_or_default();
        let now = Metadata { xattrs, ..now };
        let then = &node.metadata;
        if std::mem::discriminant(&then.kind) != std::mem::discriminant(&now.kind) {
            let detail = format!("{:?}, not {:?}", now.kind, then.kind);
            self.differs(path, What::Kind, detail);
            return Ok(());
        }
        self.metadata(path, then, &now);
        match then.kind {
            Kind::File => self.file(dir, node, path, &now),
            Kind::Dir => self.subdirectory(dir, node, path),
            _ => {
                self.count(|found| found.others += 1);
                Ok(())
            }
        }
    }

    fn subdirectory(&self, dir: &Dir, node: &Node, path: &Path) -> Result<(), RestoreFilesError> {
        self.count(|found| found.dirs += 1);
        match (self.source.enter(dir, &node.name), node.subtree) {
            (Ok(listing), Some(tree)) => return self.directory(&listing, &tree, true),
            (Ok(_), None) => {
                self.differs(path, What::Unreadable, "its tree is not named".to_owned());
            }
            (Err(error), _) => self.differs(path, What::Unreadable, error.to_string()),
        }
        Ok(())
    }

    fn file(&self, dir: &Dir, node: &Node, path: &Path, now: &Metadata) -> Result<(), RestoreFilesError> {
        self.count(|found| {
            found.files += 1;
            found.bytes += now.size;
        });
        self.task.add(1);
        if !self.names.agree(&node.metadata, now) {
            self.differs(path, What::HardLink, String::new());
        }
        if node.metadata.size != now.size {
            let detail = format!("{} bytes, not {}", now.size, node.metadata.size);
            self.differs(path, What::Size, detail);
            return Ok(());
        }
        let proved = self.source.read(dir, &node.name, self.run, |reading| {
            content::prove(self.repository, reading, &node.content, self.run)
        });
        let unproved = match proved {
            Ok(outcome) => {
                if outcome.is_fuzzy {
                    self.differs(path, What::Content, "it is being written".to_owned());
                }
                return Ok(());
            }
            Err(ReadError::Stopped(stopped)) => return Err(stopped.into()),
            Err(ReadError::Source(error)) => Unproved::Failed(ContentError::File(error)),
            Err(ReadError::Taker(unproved)) => unproved,
        };
        match unproved {
            Unproved::Failed(ContentError::Stopped(stopped)) => return Err(stopped.into()),
            Unproved::Failed(ContentError::Repository(error)) => return Err(error.into()),
            Unproved::Failed(ContentError::File(error)) => {
                self.differs(path, What::Unreadable, error.to_string());
            }
            Unproved::Differs => self.differs(path, What::Content, String::new()),
            Unproved::Unknown => {
                let detail = "the repository does not hold its bytes".to_owned();
                self.differs(path, What::Unreadable, detail);
            }
        }
        Ok(())
    }

    fn metadata(&self, path: &Path, then: &Metadata, now: &Metadata) {
        let is_link = matches!(then.kind, Kind::Symlink { .. });
        // A link's own mode means nothing and cannot be set.
        if !is_link && then.mode != now.mode {
            self.differs(path, What::Mode, format!("{:o}, not {:o}", now.mode, then.mode));
        }
        if (then.uid, then.gid) != (now.uid, now.gid) {
            let detail = format!("{}:{}, not {}:{}", now.uid, now.gid, then.uid, then.gid);
            self.differs(path, What::Owner, detail);
        }
        if then.mtime != now.mtime {
            self.differs(path, What::Mtime, format!("{:?}, not {:?}", now.mtime, then.mtime));
        }
        if then.kind != now.kind {
            self.differs(path, What::Target, format!("{:?}, not {:?}", now.kind, then.kind));
        }
        if !has_same_xattrs(then, now) {
            self.differs(path, What::Xattrs, String::new());
        }
    }

    fn differs(&self, path: &Path, what: What, detail: String) {
        self.count(|found| {
            found.differing += 1;
            found.damaged += u64::from(what.is_of_content());
            found.extra += u64::from(what == What::Extra);
            if found.differences.len() < LISTED_MAX {
                let path = path.to_owned();
                found.differences.push(Difference { path, what, detail });
            }
        });
    }

    fn count(&self, count: impl FnOnce(&mut Comparison)) {
        count(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Names {
    /// Tells whether two looks at a name agree with what was seen of the file's other names.
    fn agree(&self, then: &Metadata, now: &Metadata) -> bool {
        let Some(key) = links::key(then) else {
            return true;
        };
        let inode = (now.device, now.inode);
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pairs.there.get(&key) {
            return *known == inode;
        }
        pairs.there.insert(key, inode);
        pairs.taken.insert(inode)
    }
}

/// Compares attributes in any order.
fn has_same_xattrs(then: &Metadata, now: &Metadata) -> bool {
    let sorted = |metadata: &Metadata| {
        let mut all: Vec<_> = metadata.xattrs.iter().map(|x| (x.name.clone(), x.value.clone())).collect();
        all.sort_unstable();
        all
    };
    then.xattrs.is_empty() && now.xattrs.is_empty() || sorted(then) == sorted(now)
}
