//! An image tree: a directory, mostly a mount of a file server.
//!
//! [`FilesSource::open`] proves that the tree is the one that the policy means; then directories are listed, entries
//! looked at and files read by the backup's own threads. Everything goes by open directories, never by whole paths, so
//! that nobody who may write to the tree can lead a walk out of it by a link. Names are bytes.
//!
//! All calls block: on a file server each waits for the network.

pub mod dir;
mod exclude;
pub mod guard;
mod mount;
mod names;
pub mod read;
pub mod unchanged;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::{CWD, Mode, OFlags};

use crate::entry::{Kind, Metadata, Xattr};
use crate::policy;
use crate::run::Run;
use dir::{Dir, Listing};
use exclude::Exclude;
use guard::{Guard, Totals};
pub use mount::Mount;
use names::Names;
use unchanged::CleanBefore;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error(transparent)]
    Guard(#[from] Guard),
    #[error("open the tree `{path}`: {error}")]
    Open { path: PathBuf, error: io::Error },
    #[error("list the tree `{path}`: {error}")]
    List { path: PathBuf, error: io::Error },
    #[error("find the mount of `{path}`: {error}")]
    Mount { path: PathBuf, error: io::Error },
    #[error("read the exclude pattern `{pattern}`: {error}")]
    Exclude { pattern: String, error: globset::Error },
    #[error("the tree's path `{path}` is not absolute and free of `..`")]
    Path { path: PathBuf },
}

impl FilesError {
    /// Returns the next step.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Guard(guard) => guard.hint(),
            Self::Open { error, .. } | Self::List { error, .. } => remedy(error).map(str::to_owned),
            Self::Mount { .. } => Some("bkp needs /proc to tell what is mounted".to_owned()),
            Self::Exclude { .. } => Some("patterns are globs: `*.tmp`, `shop/**/thumbs`".to_owned()),
            Self::Path { .. } => Some("write the whole path from `/` into the policy".to_owned()),
        }
    }
}

fn remedy(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::NotFound => Some("check the path, and that the tree is mounted"),
        io::ErrorKind::PermissionDenied => {
            Some("run as root, or give the user CAP_DAC_READ_SEARCH; an NFS export may squash root")
        }
        io::ErrorKind::StaleNetworkFileHandle => Some("the server lost this mount: unmount it and mount it again"),
        _ => None,
    }
}

/// An open tree that has passed the guards.
#[derive(Debug)]
pub struct FilesSource {
    path: PathBuf,
    root: Dir,
    device: u64,
    mount: Mount,
    exclude: Exclude,
    guard: policy::FilesGuard,
    threads: usize,
    names: Names,
}

/// Why an entry's content is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// The policy says so: the entry is not in the snapshot.
    Excluded,
    /// A file server's own snapshots: not in the snapshot.
    ServerSnapshot,
    /// A directory with another filesystem mounted on it: in the snapshot as an empty directory.
    OtherFilesystem,
}

impl FilesSource {
    /// Opens a tree and runs the guards that need nothing read: mount, filesystem type, sentinel.
    ///
    /// # Errors
    /// [`FilesError::Guard`] where the tree is not what the policy says.
    pub fn open(policy: &policy::FilesSource, run: &Run) -> Result<Self, FilesError> {
        let exclude =
            Exclude::new(&policy.exclude).map_err(|(pattern, error)| FilesError::Exclude { pattern, error })?;
        let source =
            Self { exclude, guard: policy.guard.clone(), threads: policy.threads.max(1), ..Self::plain(&policy.path)? };
        source.check_mount(policy)?;
        source.check_sentinel()?;
        run.events.detail(format!(
            "`{}` lies on {} ({}) mounted at `{}`",
            source.path.display(),
            source.mount.device.display(),
            source.mount.fs_type,
            source.mount.point.display()
        ));
        Ok(source)
    }

    /// Opens any directory as a tree, with nothing guarded and nothing left out.
    ///
    /// # Errors
    /// Where the path is relative or cannot be opened.
    pub fn plain(path: &Path) -> Result<Self, FilesError> {
        let path = whole(path)?;
        let opening = |error: io::Error| FilesError::Open { path: path.clone(), error };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, &path, flags, Mode::empty()).map_err(|error| opening(error.into()))?;
        let device = rustix::fs::fstat(&fd).map_err(|error| opening(error.into()))?.st_dev;
        let mount = Mount::of(&fd).map_err(|error| FilesError::Mount { path: path.clone(), error })?;
        Ok(Self {
            root: Dir::new(fd, PathBuf::new(), 0),
            device,
            mount,
            exclude: Exclude::default(),
            guard: policy::FilesGuard::default(),
            threads: 1,
            names: Names::of_this_machine(),
            path,
        })
    }

    /// Returns the tree's path as the policy writes it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    #[must_use]
    pub fn mount(&self) -> &Mount {
        &self.mount
    }

    /// Lists the top of the tree.
    ///
    /// # Errors
    /// Where the listing did not complete.
    pub fn root(&self) -> Result<Listing, FilesError> {
        self.root.again().map_err(|error| FilesError::List { path: self.path.clone(), error })
    }

    /// Opens and lists a directory below another one; once more if the server has forgotten it.
    ///
    /// # Errors
    /// Where the name is no directory (any more) or the listing did not complete.
    pub fn enter(&self, dir: &Dir, name: &OsStr) -> io::Result<Listing> {
        again_if_stale(|| dir.enter(name))
    }

    /// Looks at an entry without following it. Extended attributes are left empty, and the access time is the
    /// modification time: a backup's own reading moves the true one, and no tree would ever stay the same.
    ///
    /// # Errors
    /// `NotFound` where it vanished.
    pub fn look(&self, dir: &Dir, name: &OsStr) -> io::Result<Metadata> {
        again_if_stale(|| {
            let stat = dir.stat(name)?;
            let target = || dir.link_target(name);
            self.metadata(&stat, target)
        })
    }

    /// Looks at an open directory itself.
    ///
    /// # Errors
    /// Where the server does not answer for it.
    pub fn look_at(&self, dir: &Dir) -> io::Result<Metadata> {
        let mut metadata = self.metadata(&dir.stat_self()?, || Ok(PathBuf::new()))?;
        metadata.xattrs = dir.own_xattrs()?;
        Ok(metadata)
    }

    /// Looks at the directories from `/` down to the tree itself, the last being the tree.
    ///
    /// # Errors
    /// Where one of them cannot be looked at.
    pub fn ancestors(&self) -> Result<Vec<(OsString, Metadata)>, FilesError> {
        let opening = |error| FilesError::Open { path: self.path.clone(), error };
        let mut above = Vec::new();
        let mut path = PathBuf::from("/");
        for name in self.path.components().skip(1) {
            path.push(name);
            let stat = rustix::fs::stat(&path).map_err(|error| opening(error.into()))?;
            let metadata = self.metadata(&stat, || Ok(PathBuf::new()));
            above.push((name.as_os_str().to_owned(), metadata.map_err(opening)?));
        }
        if let Some((_, tree)) = above.last_mut() {
            *tree = self.look_at(&self.root).map_err(opening)?;
        }
        Ok(above)
    }

    /// Reads an entry's extended attributes, sorted by name; none where the filesystem has none.
    ///
    /// # Errors
    /// `NotFound` where the entry vanished.
    pub fn xattrs(&self, dir: &Dir, name: &OsStr) -> io::Result<Vec<Xattr>> {
        again_if_stale(|| dir.xattrs(name))
    }

    /// Tells whether an entry is left out, and why.
    #[must_use]
    pub fn leaves_out(&self, dir: &Dir, name: &OsStr, metadata: &Metadata) -> Option<LeftOut> {
        if !self.exclude.is_empty() && self.exclude.matches(&dir.path().join(name)) {
            return Some(LeftOut::Excluded);
        }
        if metadata.kind != Kind::Dir {
            return None;
        }
        if mount::is_server_snapshot(&self.mount, dir.depth(), name) {
            return Some(LeftOut::ServerSnapshot);
        }
        (metadata.device != self.device).then_some(LeftOut::OtherFilesystem)
    }

    /// Returns the rule by which a parent snapshot's word is taken for this tree.
    #[must_use]
    pub fn clean_before(&self, parent_start: DateTime<Utc>) -> CleanBefore {
        CleanBefore::new(parent_start, self.mount.is_remote())
    }

    /// Judges the tree once it was read: the sentinel still there, not too few files, no sharp drop.
    ///
    /// # Errors
    /// The first guard that trips: no snapshot, and no forget.
    pub fn guard_after(&self, now: Totals, before: Option<Totals>) -> Result<(), Guard> {
        self.check_sentinel()?;
        guard::judge(&self.guard, now, before)
    }

    fn check_mount(&self, policy: &policy::FilesSource) -> Result<(), FilesError> {
        let here = mount::path_of(&self.root).map_err(|error| FilesError::Mount { path: self.path.clone(), error })?;
        if policy.require_mount && !self.mount.is_at(&here) {
            let (point, fs_type) = (self.mount.point.clone(), self.mount.fs_type.clone());
            return Err(Guard::NotMounted { path: self.path.clone(), point, fs_type }.into());
        }
        let wrong = policy.fs_type.as_ref().filter(|wanted| **wanted != self.mount.fs_type);
        wrong.map_or(Ok(()), |wanted| {
            let (wanted, found) = (wanted.clone(), self.mount.fs_type.clone());
            Err(Guard::WrongType { path: self.path.clone(), wanted, found }.into())
        })
    }

    fn check_sentinel(&self) -> Result<(), Guard> {
        let Some(sentinel) = &self.guard.sentinel else {
            return Ok(());
        };
        let found = again_if_stale(|| self.root.stat(sentinel.as_os_str()));
        let path = || self.path.join(sentinel);
        found.map(drop).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Guard::NoSentinel { path: path() },
            _ => Guard::UnseenSentinel { path: path(), reason: error.to_string() },
        })
    }

    fn metadata(&self, stat: &rustix::fs::Stat, target: impl FnOnce() -> io::Result<PathBuf>) -> io::Result<Metadata> {
        let mut metadata = dir::metadata(stat, target)?;
        metadata.user = self.names.user(metadata.uid);
        metadata.group = self.names.group(metadata.gid);
        Ok(metadata)
    }
}

/// Takes an absolute path without `.` and `..`: it becomes the snapshot's path, and must mean the same next month.
fn whole(path: &Path) -> Result<PathBuf, FilesError> {
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if climbs || !path.is_absolute() {
        return Err(FilesError::Path { path: path.to_owned() });
    }
    Ok(path.components().collect())
}

/// Asks a file server once more that has forgotten a handle: the file was replaced, or the server restarted.
fn again_if_stale<T>(mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match ask() {
        Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => ask(),
        answer => answer,
    }
}
