//! Names of one file: the first to come is written, the others become links to it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::entry::{Kind, Metadata};

/// A file with several names, by device and inode.
type Key = (u64, u64);

/// Where the first name of a file was written; `None` where it could not be.
pub(super) type Written = OnceLock<Option<PathBuf>>;

/// Files with several names that were met. Each is forgotten once all of its names were.
#[derive(Debug, Default)]
pub(super) struct Links {
    met: Mutex<HashMap<Key, (Arc<Written>, u64)>>,
}

/// Returns what names a file with several names, if it is one.
pub(super) fn key(metadata: &Metadata) -> Option<Key> {
    let has_names = metadata.kind == Kind::File && metadata.links > 1;
    has_names.then_some((metadata.device, metadata.inode))
}

impl Links {
    /// Meets one name of a file that may have several.
    pub(super) fn meet(&self, metadata: &Metadata) -> Option<Arc<Written>> {
        let key = key(metadata)?;
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let (written, times) = met.entry(key).or_default();
        *times += 1;
        let written = written.clone();
        if *times >= metadata.links {
            met.remove(&key);
        }
        Some(written)
    }
}
