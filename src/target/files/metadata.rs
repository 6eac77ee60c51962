//! Giving an entry back its owner, attributes, mode and times.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::entry::{Kind, Metadata};
use crate::target::files::dir::TargetDir;

/// What could not be given back, though the entry is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reduced {
    /// The owner: only root may give files away.
    pub owner: bool,
    /// Anything else, as a sentence for each.
    pub reasons: Vec<String>,
}

const SETUID_SETGID: u32 = 0o6000;

/// Gives metadata to an entry by its name in an open directory. A link is never followed.
///
/// The order matters: a new owner clears setuid and capabilities, and all of it moves the times.
///
/// # Errors
/// Where mode or times cannot be set: then the entry would look like another state.
pub fn give(dir: &TargetDir, name: &OsStr, metadata: &Metadata) -> io::Result<Reduced> {
    let mut reduced = Reduced { owner: !give_owner(dir, name, metadata)?, reasons: give_xattrs(dir, name, metadata) };
    give_mode(dir, name, metadata, &mut reduced)?;
    rustix::fs::utimensat(dir, name, &times(metadata), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(reduced)
}

/// Sets the owner; tells whether it is right now.
fn give_owner(dir: &TargetDir, name: &OsStr, metadata: &Metadata) -> io::Result<bool> {
    let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
    let given = rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    match given {
        Ok(()) => Ok(true),
        // `INVAL`: this user namespace has no such owner.
        Err(Errno::PERM | Errno::INVAL) => {
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(stat.st_uid == metadata.uid && stat.st_gid == metadata.gid)
        }
        Err(error) => Err(error.into()),
    }
}

fn give_mode(dir: &TargetDir, name: &OsStr, metadata: &Metadata, reduced: &mut Reduced) -> io::Result<()> {
    if matches!(metadata.kind, Kind::Symlink { .. }) {
        return Ok(());
    }
    let mut mode = metadata.mode & 0o7777;
    if reduced.owner && mode & SETUID_SETGID != 0 {
        // It would run as whoever restores.
        mode &= !SETUID_SETGID;
        reduced.reasons.push("setuid and setgid are left out with the owner".to_owned());
    }
    // The name is one of our own making in a directory that we hold open: no link can stand there but by its owner's hand.
    Ok(rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
}

fn give_xattrs(dir: &TargetDir, name: &OsStr, metadata: &Metadata) -> Vec<String> {
    if metadata.xattrs.is_empty() {
        return Vec::new();
    }
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    let path = OsStr::from_bytes(&path);
    let mut reasons = Vec::new();
    for xattr in &metadata.xattrs {
        let set = rustix::fs::lsetxattr(path, &xattr.name, &xattr.value, XattrFlags::empty());
        if let Err(error) = set {
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
