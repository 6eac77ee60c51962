//! Giving an entry back its owner, attributes, mode and times.
//!
//! Everything is done to an entry that is held open, never to a name: in a directory of somebody else's the name may be another's
//! file a moment later.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::entry::{Kind, Metadata, Xattr};
use crate::target::files::dir::TargetDir;

/// What could not be given back, though the entry is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reduced {
    /// The owner: only root may give files away.
    pub owner: bool,
    /// Anything else, as a sentence for each.
    pub reasons: Vec<String>,
}

const PERMISSIONS: u32 = 0o7777;
const SETUID_SETGID: u32 = 0o6000;

/// Gives metadata to an open file or directory.
///
/// The order matters: a new owner clears setuid and capabilities, and all of it moves the times.
///
/// # Errors
/// Where mode or times cannot be set: then the entry would look like another state.
pub fn give(open: impl AsFd, metadata: &Metadata) -> io::Result<Reduced> {
    let open = open.as_fd();
    let stat = rustix::fs::fstat(open)?;
    let owner = give_owner(&stat, metadata, |uid, gid| rustix::fs::fchown(open, uid, gid))?;
    let mut reduced = Reduced { owner: owner == Owner::Lost, reasons: Vec::new() };
    reduced.reasons =
        give_xattrs(metadata, |xattr| rustix::fs::fsetxattr(open, &xattr.name, &xattr.value, XattrFlags::empty()));
    let mode = mode(metadata, &mut reduced);
    if owner == Owner::Given || stat.st_mode & PERMISSIONS != mode {
        rustix::fs::fchmod(open, Mode::from_raw_mode(mode))?;
    }
    rustix::fs::futimens(open, &times(metadata))?;
    Ok(reduced)
}

/// Gives metadata to a link, pipe, socket or device in an open directory. A link is never followed.
///
/// # Errors
/// As [`give`], and where something else stands there by now.
pub fn give_special(dir: &TargetDir, name: &OsStr, metadata: &Metadata) -> io::Result<Reduced> {
    let handle = dir.handle(name)?;
    let stat = rustix::fs::fstat(&handle)?;
    if FileType::from_raw_mode(stat.st_mode) != type_of(&metadata.kind) {
        return Err(io::Error::other("something else was put in its place"));
    }
    let owner =
        give_owner(&stat, metadata, |uid, gid| rustix::fs::chownat(&handle, c"", uid, gid, AtFlags::EMPTY_PATH))?;
    let mut reduced = Reduced { owner: owner == Owner::Lost, reasons: Vec::new() };
    let itself = path_of(handle.as_fd());
    reduced.reasons =
        give_xattrs(metadata, |xattr| rustix::fs::setxattr(&itself, &xattr.name, &xattr.value, XattrFlags::empty()));
    if !matches!(metadata.kind, Kind::Symlink { .. }) {
        rustix::fs::chmod(&itself, Mode::from_raw_mode(mode(metadata, &mut reduced)))?;
    }
    rustix::fs::utimensat(CWD, &itself, &times(metadata), AtFlags::empty())?;
    Ok(reduced)
}

/// Returns a path that leads to what is open and to nothing else, for the calls that take no handle.
fn path_of(handle: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

fn type_of(kind: &Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink { .. } => FileType::Symlink,
        Kind::BlockDevice { .. } => FileType::BlockDevice,
        Kind::CharDevice { .. } => FileType::CharacterDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    WasRight,
    Given,
    Lost,
}

fn give_owner(
    stat: &Stat,
    metadata: &Metadata,
    give: impl FnOnce(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
) -> io::Result<Owner> {
    if (stat.st_uid, stat.st_gid) == (metadata.uid, metadata.gid) {
        return Ok(Owner::WasRight);
    }
    match give(Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid))) {
        Ok(()) => Ok(Owner::Given),
        // `INVAL`: this user namespace has no such owner.
        Err(Errno::PERM | Errno::INVAL) => Ok(Owner::Lost),
        Err(error) => Err(error.into()),
    }
}

/// Returns the mode to give, and notes what is left out of it.
fn mode(metadata: &Metadata, reduced: &mut Reduced) -> u32 {
    let mode = metadata.mode & PERMISSIONS;
    if !reduced.owner || mode & SETUID_SETGID == 0 {
        return mode;
    }
    // It would run as whoever restores.
    reduced.reasons.push("setuid and setgid are left out with the owner".to_owned());
    mode & !SETUID_SETGID
}

fn give_xattrs(metadata: &Metadata, set: impl Fn(&Xattr) -> Result<(), Errno>) -> Vec<String> {
    let mut reasons = Vec::new();
    for xattr in &metadata.xattrs {
        if let Err(error) = set(xattr) {
            let attribute = xattr.name.display();
            reasons.push(format!("extended attribute `{attribute}`: {}", io::Error::from(error)));
        }
    }
    reasons
}

fn times(metadata: &Metadata) -> Timestamps {
    let timespec = |time: chrono::DateTime<chrono::Utc>| Timespec {
        tv_sec: time.timestamp(),
        tv_nsec: time.timestamp_subsec_nanos().into(),
    };
    Timestamps { last_access: timespec(metadata.atime), last_modification: timespec(metadata.mtime) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn metadata(kind: Kind, mode: u32) -> Metadata {
        let time = chrono::DateTime::from_timestamp(1_000_000_000, 0).unwrap();
        let (user, group) = (String::new(), String::new());
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (mtime, atime, ctime, xattrs) = (time, time, time, Vec::new());
        let (size, device, inode, links) = (0, 0, 0, 1);
        Metadata { kind, mode, uid, gid, user, group, size, mtime, atime, ctime, device, inode, links, xattrs }
    }

    #[test]
    fn what_was_put_in_an_entrys_place_is_left_alone() {
        let at = tempfile::tempdir().unwrap();
        let victim = at.path().join("victim");
        std::fs::write(&victim, b"").unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink("victim", at.path().join("fifo")).unwrap();
        let dir = TargetDir::top(at.path()).unwrap();
        let swapped = give_special(&dir, OsStr::new("fifo"), &metadata(Kind::Fifo, 0o666));
        assert!(swapped.unwrap_err().to_string().contains("put in its place"));
        let link = metadata(Kind::Symlink { target: PathBuf::from("victim") }, 0o777);
        assert_eq!(give_special(&dir, OsStr::new("fifo"), &link).unwrap(), Reduced::default());
        // The link has its time, and what it points to kept its own.
        let found = std::fs::metadata(&victim).unwrap();
        assert_eq!(std::fs::symlink_metadata(at.path().join("fifo")).unwrap().mtime(), 1_000_000_000);
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        assert!(found.mtime() > 1_000_000_000);
    }
}
