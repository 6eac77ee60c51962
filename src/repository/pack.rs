//! A pack: many blobs in one object, with a header at its end that says where each lies.

use std::fmt;

/// What a blob holds. Each kind has packs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlobKind {
    /// Bytes of files.
    Data,
    /// The entries of a directory.
    Tree,
}

impl fmt::Display for BlobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Tree => "tree",
        })
    }
}
