//! What is known of one file, directory, link or device without reading it.
//!
//! A source fills [`Metadata`] in, a tree keeps it, a target gives it back. It knows no format.

use std::ffi::OsString;
use std::path::PathBuf;

use chrono::{DateTime, Utc};

/// No tree of images nests as deep; each level may hold a directory open, and space on the stack of a thread.
pub const DEPTH_MAX: usize = 256;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    Dir,
    /// A symbolic link and what it says, byte for byte.
    Symlink {
        target: PathBuf,
    },
    /// A block device and its number.
    BlockDevice {
        device: u64,
    },
    /// A character device and its number.
    CharDevice {
        device: u64,
    },
    Fifo,
    Socket,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    pub name: OsString,
    pub value: Vec<u8>,
}

/// The state of an entry at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky as Unix has them (`0o7777`).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Names of owner and group as the source's machine knows them; empty where it does not.
    pub user: String,
    pub group: String,
    /// Bytes, for files.
    pub size: u64,
    pub mtime: DateTime<Utc>,
    pub atime: DateTime<Utc>,
    pub ctime: DateTime<Utc>,
    /// The filesystem's device number, and the inode on it.
    pub device: u64,
    pub inode: u64,
    /// How many names the inode has.
    pub links: u64,
    pub xattrs: Vec<Xattr>,
}
