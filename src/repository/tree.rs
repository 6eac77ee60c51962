//! A tree: the entries of one directory, as restic's JSON has them.
//!
//! A tree is named by the hash of its JSON, so the same directory must print to the same bytes: nodes sorted by raw name, fields in
//! restic's order, a newline at the end.

mod json;
mod quote;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error("node {0:?}: not in the order of names, or there twice")]
    Order(OsString),
    #[error("node {0:?}: no name for a directory's entry")]
    Name(OsString),
    #[error("node {name:?}: {reason}")]
    Node { name: OsString, reason: String },
    #[error("{0}")]
    Json(String),
}

impl Tree {
    /// Prints the tree.
    ///
    /// # Errors
    /// Where the nodes are not sorted, or a name can be none.
    pub fn to_json(&self) -> Result<Vec<u8>, TreeError> {
        let mut last: Option<&Node> = None;
        for node in &self.nodes {
            check_name(node)?;
            if last.is_some_and(|last| last.name.as_bytes() >= node.name.as_bytes()) {
                return Err(TreeError::Order(node.name.clone()));
            }
            last = Some(node);
        }
        Ok(json::print(&self.nodes))
    }

    /// Reads a tree. Names are sorted, differ from each other, and can be names of files.
    ///
    /// # Errors
    /// Where it is no tree, or one that would write outside its directory.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TreeError> {
        let mut nodes = json::parse(bytes)?;
        nodes.iter().try_for_each(check_name)?;
        nodes.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        match nodes.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(TreeError::Order(pair[0].name.clone())),
            None => Ok(Self { nodes }),
        }
    }

    /// Finds a node by name.
    #[must_use]
    pub fn find(&self, name: &std::ffi::OsStr) -> Option<&Node> {
        let place = self.nodes.binary_search_by(|node| node.name.as_bytes().cmp(name.as_bytes()));
        place.ok().map(|index| &self.nodes[index])
    }
}

fn check_name(node: &Node) -> Result<(), TreeError> {
    let name = node.name.as_bytes();
    let is_name = !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
    if is_name { Ok(()) } else { Err(TreeError::Name(node.name.clone())) }
}

#[cfg(test)]
mod tests;
