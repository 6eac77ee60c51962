//! Which mount a directory lies on, as the kernel tells it in `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One line of mountinfo: what is mounted, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    /// As the kernel names it: `nfs4`, `ext4`, `fuse.sshfs`.
    pub fs_type: String,
    /// What is mounted: `server:/export`, `/dev/sdb1`.
    pub device: OsString,
}

impl Mount {
    /// Finds the mount that an open directory lies on.
    ///
    /// The kernel names the mount of the descriptor itself, so neither a mount on top nor one that comes or goes at this
    /// moment can be taken for it.
    ///
    /// # Errors
    /// Where `/proc` cannot be read, or the mount is not (or no longer) in this process' mount namespace.
    pub fn of(directory: impl AsFd) -> io::Result<Self> {
        let fd = directory.as_fd().as_raw_fd();
        let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
        let id = mount_id(&about).ok_or_else(|| io::Error::other("the kernel tells no mount id"))?;
        let mounts = std::fs::read("/proc/self/mountinfo")?;
        Self::with_id(&mounts, id).ok_or_else(|| io::Error::other("its mount is not in this mount namespace"))
    }

    /// Tells whether a path is the very place of the mount, not a directory on it.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        self.point == path
    }

    /// Tells whether files come from another machine, whose clock is not ours.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        const REMOTE: [&str; 12] =
            ["nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "afs", "lustre", "gpfs", "beegfs", "virtiofs"];
        REMOTE.contains(&self.fs_type.as_str()) || self.fs_type.starts_with("fuse")
    }

    fn with_id(mountinfo: &[u8], id: u64) -> Option<Self> {
        let mut lines = mountinfo.split(|byte| *byte == b'\n');
        lines.find_map(|line| Self::parse(line, id))
    }

    /// Reads `36 35 98:0 /root /point options [tags…] - type device superoptions` if it has this id.
    fn parse(line: &[u8], id: u64) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let has_id = std::str::from_utf8(fields.first()?).ok()?.parse() == Ok(id);
        let dash = fields.iter().position(|field| *field == b"-")?;
        if !has_id {
            return None;
        }
        Some(Self {
            point: PathBuf::from(unescape(fields.get(4)?)),
            fs_type: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
            device: unescape(fields.get(dash + 2)?),
        })
    }
}

fn mount_id(fdinfo: &str) -> Option<u64> {
    let mut lines = fdinfo.lines();
    lines.find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Undoes mountinfo's `\040` for blank, tab, newline and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = if *first == b'\\' { octal(tail) } else { None };
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(plain)
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(text, 8).ok()
}

/// Returns the path of an open directory as the kernel knows it now, free of links.
pub(super) fn path_of(directory: impl AsFd) -> io::Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
}

/// Tells whether a directory holds a file server's own snapshots, which would multiply the tree.
///
/// `NetApp` shows `.snapshot` in every directory, ZFS `.zfs` at the top; on other filesystems these are names like any.
#[must_use]
pub(super) fn is_server_snapshot(mount: &Mount, depth: usize, name: &std::ffi::OsStr) -> bool {
    match name.as_bytes() {
        b".snapshot" | b"~snapshot" => mount.is_remote(),
        b".zfs" => depth == 0 && (mount.is_remote() || mount.fs_type == "zfs"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MOUNTS: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        31 22 0:45 / /mnt/my\\040images rw,nosuid shared:2 master:7 - nfs4 10.0.30.7:/export\\134x rw,vers=4.2\n\
        32 31 0:46 /deep /mnt/my\\040images rw - tmpfs none rw\n\ncut short";

    #[test]
    fn a_mount_is_found_by_its_id_with_escapes_undone() {
        let mount = Mount::with_id(MOUNTS, 31).unwrap();
        assert_eq!(mount.point, Path::new("/mnt/my images"));
        assert_eq!(mount.fs_type, "nfs4");
        assert_eq!(mount.device, "10.0.30.7:/export\\x");
        assert!(mount.is_at(Path::new("/mnt/my images")) && mount.is_remote());
    }

    #[test]
    fn a_mount_on_top_is_another_mount() {
        assert_eq!(Mount::with_id(MOUNTS, 32).unwrap().fs_type, "tmpfs");
        assert_eq!(Mount::with_id(MOUNTS, 99), None);
    }

    #[test]
    fn a_path_ending_in_a_lone_backslash_is_kept() {
        assert_eq!(unescape(b"/a\\"), "/a\\");
        assert_eq!(unescape(b"/a\\999\\12"), "/a\\999\\12");
    }

    #[test]
    fn the_mount_of_proc_is_proc() {
        let proc = std::fs::File::open("/proc/self").unwrap();
        let mount = Mount::of(&proc).unwrap();
        assert_eq!((mount.fs_type.as_str(), mount.point.as_path()), ("proc", Path::new("/proc")));
        assert!(!mount.is_at(&path_of(&proc).unwrap()));
    }

    #[test]
    fn only_a_file_servers_snapshots_are_passed_over() {
        let on = |fs_type: &str| Mount { point: "/m".into(), fs_type: fs_type.into(), device: OsString::new() };
        assert!(is_server_snapshot(&on("nfs4"), 3, ".snapshot".as_ref()));
        assert!(is_server_snapshot(&on("zfs"), 0, ".zfs".as_ref()));
        assert!(!is_server_snapshot(&on("zfs"), 1, ".zfs".as_ref()));
        assert!(!is_server_snapshot(&on("ext4"), 0, ".snapshot".as_ref()));
        assert!(!is_server_snapshot(&on("nfs4"), 0, "snapshot".as_ref()));
    }
}
