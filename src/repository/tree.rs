//! A tree: the entries of one directory, as restic's JSON has them.

use std::ffi::OsString;

use crate::entry::Metadata;
use crate::id::BlobId;

/// One directory. Nodes are sorted by the raw bytes of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    pub nodes: Vec<Node>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: OsString,
    pub metadata: Metadata,
    /// The blobs whose plain bytes, one after the other, are the file's content. Empty for all but files.
    pub content: Vec<BlobId>,
    /// The tree of a directory.
    pub subtree: Option<BlobId>,
}
