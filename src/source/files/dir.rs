//! An open directory, and what can be asked of the names in it.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::entry::{Kind, Metadata, Xattr};

/// One getdents call's worth of names; NFS fills about this much in one answer.
const LIST_BYTES: usize = 64 * 1024;

/// The kernel's own limit for one attribute's value and for one list of names.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// An open directory of a tree.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    depth: usize,
}

/// A directory and all names in it, sorted by their bytes. It exists only if the listing completed.
#[derive(Debug)]
pub struct Listing {
    pub dir: Dir,
    pub names: Vec<OsString>,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    pub(super) fn new(fd: OwnedFd, path: PathBuf, depth: usize) -> Self {
        Self { fd, path, depth }
    }

    /// Returns the path from the top of the tree, empty for the top.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how many directories lie above, up to the top of the tree.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn again(&self) -> io::Result<Listing> {
        self.open(OsStr::new("."), self.path.clone(), self.depth)?.list()
    }

    pub(super) fn enter(&self, name: &OsStr) -> io::Result<Listing> {
        self.open(name, self.path.join(name), self.depth + 1)?.list()
    }

    fn open(&self, name: &OsStr, path: PathBuf, depth: usize) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = without_atime(|more| rustix::fs::openat(&self.fd, name, flags | more, Mode::empty()))?;
        Ok(Self { fd, path, depth })
    }

    fn list(self) -> io::Result<Listing> {
        let mut names = Vec::new();
        let mut buffer = Vec::with_capacity(LIST_BYTES);
        let mut entries = RawDir::new(&self.fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort_unstable();
        // A server may list a name twice when it is renamed meanwhile.
        names.dedup();
        Ok(Listing { dir: self, names })
    }

    pub(super) fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(super) fn stat_self(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.fd)?)
    }

    pub(super) fn link_target(&self, name: &OsStr) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Opens a file for reading. A name that became a link is refused, and one that became a pipe does not hang.
    pub(super) fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = without_atime(|more| rustix::fs::openat(&self.fd, name, flags | more, Mode::empty()))?;
        Ok(File::from(fd))
    }

    pub(super) fn xattrs(&self, name: &OsStr) -> io::Result<Vec<Xattr>> {
        // There is no call for a name in an open directory; the kernel's own link to the directory stands in.
        let mut path = format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.as_bytes());
        let path = OsStr::from_bytes(&path);
        let list = |names: &mut Vec<u8>| rustix::fs::llistxattr(path, spare_capacity(names));
        xattrs_of(list, |name, value| rustix::fs::lgetxattr(path, name, spare_capacity(value)))
    }

    pub(super) fn own_xattrs(&self) -> io::Result<Vec<Xattr>> {
        self.xattrs(OsStr::new("."))
    }
}

/// Opens without leaving an access time, which only the owner and root may ask for.
fn without_atime<T>(open: impl Fn(OFlags) -> Result<T, Errno>) -> Result<T, Errno> {
    match open(OFlags::NOATIME) {
        Err(Errno::PERM) => open(OFlags::empty()),
        answer => answer,
    }
}

/// Reads the attributes of an open file: no path is looked up once more.
pub(super) fn xattrs_of_open(file: &File) -> io::Result<Vec<Xattr>> {
    let list = |names: &mut Vec<u8>| rustix::fs::flistxattr(file, spare_capacity(names));
    xattrs_of(list, |name, value| rustix::fs::fgetxattr(file, name, spare_capacity(value)))
}

/// Reads attributes, sorted by name, by what lists their names and what gets the value of one.
fn xattrs_of(
    list: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut Vec<u8>) -> Result<usize, Errno>,
) -> io::Result<Vec<Xattr>> {
    let mut names = Vec::with_capacity(1024);
    let listed = match list(&mut names) {
        Err(Errno::RANGE) => {
            names.reserve(XATTR_BYTES_MAX);
            list(&mut names)
        }
        answer => answer,
    };
    match listed {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let mut xattrs = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        xattrs.extend(xattr_of(&get, name)?);
    }
    xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs)
}

/// Reads one attribute; `None` where it is gone or not ours to read.
fn xattr_of(get: impl Fn(&CStr, &mut Vec<u8>) -> Result<usize, Errno>, name: &CStr) -> io::Result<Option<Xattr>> {
    let mut value = Vec::with_capacity(256);
    let read = match get(name, &mut value) {
        Err(Errno::RANGE) => {
            value.reserve(XATTR_BYTES_MAX);
            get(name, &mut value)
        }
        answer => answer,
    };
    match read {
        Ok(_) => Ok(Some(Xattr { name: OsStr::from_bytes(name.to_bytes()).to_owned(), value })),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Turns what the kernel tells into an entry's metadata, without names of owners and attributes.
pub(super) fn metadata(stat: &Stat, target: impl FnOnce() -> io::Result<PathBuf>) -> io::Result<Metadata> {
    let mtime = time(stat.st_mtime, stat.st_mtime_nsec);
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink { target: target()? },
        FileType::BlockDevice => Kind::BlockDevice { device: stat.st_rdev },
        FileType::CharacterDevice => Kind::CharDevice { device: stat.st_rdev },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => return Err(io::Error::other("the kernel does not say what it is")),
    };
    Ok(Metadata {
        size: if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: String::new(),
        group: String::new(),
        mtime,
        atime: mtime,
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        device: stat.st_dev,
        inode: stat.st_ino,
        links: links(stat),
        xattrs: Vec::new(),
    })
}

#[allow(clippy::useless_conversion, reason = "the count of names is 32 bits wide on some machines")]
fn links(stat: &Stat) -> u64 {
    u64::from(stat.st_nlink)
}

fn time(seconds: i64, nanoseconds: impl TryInto<u32>) -> DateTime<Utc> {
    let nanoseconds = nanoseconds.try_into().unwrap_or(0);
    DateTime::from_timestamp(seconds, nanoseconds).unwrap_or_default()
}
