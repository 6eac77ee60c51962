//! An open directory of a target, and entries made in it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::entry::{Kind, Metadata};

/// Names that begin so are bkp's own: unfinished entries and the marker.
pub const OWN_PREFIX: &[u8] = b".bkp-restore.";

/// Names are chosen at random; so many collisions mean that something else is wrong.
const NAMES_TRIED_MAX: usize = 16;

const LIST_BYTES: usize = 64 * 1024;

/// An open directory.
#[derive(Debug)]
pub struct TargetDir {
    fd: OwnedFd,
}

impl AsFd for TargetDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A file, link or device under a name of bkp's own; removed unless it is published.
#[derive(Debug)]
pub struct Temp<T> {
    dir: Arc<TargetDir>,
    name: OsString,
    what: T,
    is_link: bool,
    is_published: AtomicBool,
}

/// Tells whether a tree's name can be one entry of a directory, and not one of bkp's own.
///
/// # Errors
/// What is wrong with it. A hostile tree may say `../../etc/passwd`.
pub fn check_name(name: &OsStr) -> Result<(), &'static str> {
    let bytes = name.as_bytes();
    let mut parts = Path::new(name).components();
    let is_one = matches!((parts.next(), parts.next()), (Some(Component::Normal(only)), None) if only == name);
    match () {
        () if bytes.contains(&0) || bytes.contains(&b'/') || !is_one => {
            Err("refused: its name leads out of its directory")
        }
        () if bytes.starts_with(OWN_PREFIX) => Err("refused: names like this are bkp's own"),
        () => Ok(()),
    }
}

impl TargetDir {
    pub(super) fn top(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { fd })
    }

    fn open(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Opens a directory by its path from here, through directories only.
    ///
    /// # Errors
    /// Where something on the way is missing or a link.
    pub fn descend(&self, path: &Path) -> io::Result<Self> {
        let here = self.open(OsStr::new("."))?;
        path.components().try_fold(here, |dir, part| dir.open(part.as_os_str()))
    }

    /// Opens a directory, made where it is missing, closed to others until it is done.
    ///
    /// With `replace`, what stands in its way is removed unless it is a directory too. What an interrupted restore left
    /// unfinished in it is removed.
    ///
    /// # Errors
    /// Where another kind of entry or a link stands in the way.
    pub fn enter(&self, name: &OsStr, replace: bool) -> io::Result<Self> {
        let made = rustix::fs::mkdirat(&self.fd, name, Mode::RWXU);
        match made {
            Ok(()) => return self.open(name),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let is_dir = FileType::from_raw_mode(self.stat(name)?.st_mode) == FileType::Directory;
        if !is_dir && !replace {
            return Err(io::Error::other("something that is no directory stands in its place"));
        }
        if !is_dir {
            self.remove_file(name)?;
            rustix::fs::mkdirat(&self.fd, name, Mode::RWXU)?;
        }
        let dir = self.open(name)?;
        dir.remove_unfinished()?;
        Ok(dir)
    }

    pub(super) fn remove_unfinished(&self) -> io::Result<()> {
        for name in self.names()? {
            if name.as_bytes().starts_with(OWN_PREFIX) && name != super::marker::name() {
                self.remove_file(&name)?;
            }
        }
        Ok(())
    }

    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let again = self.open(OsStr::new("."))?;
        let mut names = Vec::new();
        let mut buffer = Vec::with_capacity(LIST_BYTES);
        let mut entries = RawDir::new(&again.fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Looks at an entry without following it.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Opens a file that is there for reading.
    ///
    /// # Errors
    /// Where it is a link or missing.
    pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(File::from(fd))
    }

    /// Opens an entry of any kind as it is, only to be asked and told about itself.
    pub(super) fn handle(&self, name: &OsStr) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?)
    }

    pub(super) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn sync_filesystem(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.fd)?)
    }

    /// Makes an empty file, readable by nobody else.
    ///
    /// # Errors
    /// Where the directory cannot be written.
    pub fn temp_file(self: &Arc<Self>) -> io::Result<Temp<File>> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.temp(|name| {
            let fd = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?;
            Ok(File::from(fd))
        })
    }

    /// Makes a second name of a file in another open directory.
    ///
    /// # Errors
    /// Where that is gone, or the filesystem has no more room for names.
    pub fn temp_link(self: &Arc<Self>, of: &Self, name: &OsStr) -> io::Result<Temp<()>> {
        let linked = self.temp(|temp| rustix::fs::linkat(&of.fd, name, &self.fd, temp, AtFlags::empty()));
        linked.map(|mut temp| {
            temp.is_link = true;
            temp
        })
    }

    /// Makes a symbolic link, pipe, socket or device.
    ///
    /// # Errors
    /// Where only root may do so, or the kind is made otherwise.
    pub fn temp_special(self: &Arc<Self>, metadata: &Metadata) -> io::Result<Temp<()>> {
        let mode = Mode::RUSR | Mode::WUSR;
        let node = |kind, device| self.temp(|name| rustix::fs::mknodat(&self.fd, name, kind, mode, device));
        match &metadata.kind {
            Kind::Symlink { target } => self.temp(|name| rustix::fs::symlinkat(target, &self.fd, name)),
            Kind::Fifo => node(FileType::Fifo, 0),
            Kind::Socket => node(FileType::Socket, 0),
            Kind::CharDevice { device } => node(FileType::CharacterDevice, *device),
            Kind::BlockDevice { device } => node(FileType::BlockDevice, *device),
            Kind::File | Kind::Dir => Err(io::Error::other("files and directories are not made so")),
        }
    }

    fn temp<T>(self: &Arc<Self>, make: impl Fn(&OsStr) -> Result<T, Errno>) -> io::Result<Temp<T>> {
        for _ in 0..NAMES_TRIED_MAX {
            let name = temp_name()?;
            match make(&name) {
                Ok(what) => {
                    let dir = Arc::clone(self);
                    return Ok(Temp { dir, name, what, is_link: false, is_published: AtomicBool::new(false) });
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other("no free name for an unfinished entry"))
    }
}

fn temp_name() -> io::Result<OsString> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut name = OWN_PREFIX.to_vec();
    name.extend_from_slice(hex::encode(random).as_bytes());
    Ok(OsString::from_vec(name))
}

impl Temp<File> {
    #[must_use]
    pub fn file(&self) -> &File {
        &self.what
    }
}

impl<T> Temp<T> {
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Gives the entry its name, in one step; what had it is gone, unless it is a directory.
    ///
    /// # Errors
    /// Where a directory stands in the way.
    pub fn publish(&self, name: &OsStr) -> io::Result<()> {
        rustix::fs::renameat(&self.dir.fd, &self.name, &self.dir.fd, name)?;
        self.is_published.store(!self.is_link, Ordering::Relaxed);
        // Renaming one name of a file onto another name of the same file does nothing and leaves both: dropping cleans up.
        Ok(())
    }
}

impl<T> Drop for Temp<T> {
    fn drop(&mut self) {
        if !*self.is_published.get_mut() {
            // What stays here is removed by the next restore into this directory.
            drop(self.dir.remove_file(&self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_entry_and_nothing_else() {
        for bad in ["", ".", "..", "/", "a/b", "../a", "a/", "/etc", "a\0b", ".bkp-restore.marker"] {
            assert!(check_name(OsStr::new(bad)).is_err(), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b"\xff\xfe", b" ", b"a\nb", b"-rf", b".bkp-ok"] {
            assert_eq!(check_name(OsStr::from_bytes(good)), Ok(()), "{good:?}");
        }
    }
}
