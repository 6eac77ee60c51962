//! Names of one file: the first to come is written, the others become links to it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::entry::{Kind, Metadata};
use crate::restore::files::window::File;

/// A file with several names, by device and inode.
type Key = (u64, u64);

/// Files with several names that were met. Each is forgotten once all of its names were.
#[derive(Debug, Default)]
pub(super) struct Links {
    met: Mutex<HashMap<Key, Names>>,
}

#[derive(Debug)]
struct Names {
    first: First,
    /// How many names were met.
    met: u64,
}

#[derive(Debug)]
enum First {
    /// It is being written; these wait for it.
    Pending(Vec<Arc<File>>),
    Written(PathBuf),
}

/// What is to be done with a name.
pub(super) enum Met {
    /// Write it: it is the only name, or the first.
    First,
    /// Nothing yet: [`Links::settle`] returns it.
    Waits,
    /// Link it to this path.
    Link(PathBuf),
}

/// What became of the first name means for those that waited.
pub(super) enum Settled {
    Link(Vec<Arc<File>>),
    /// The first could not be written. This one is the first now.
    Write(Arc<File>),
}

/// Returns what names a file with several names, if it is one.
pub(super) fn key(metadata: &Metadata) -> Option<Key> {
    let has_names = metadata.kind == Kind::File && metadata.links > 1;
    has_names.then_some((metadata.device, metadata.inode))
}

impl Links {
    /// Meets one name of a file that may have several.
    pub(super) fn meet(&self, file: &Arc<File>) -> Met {
        let metadata = &file.node.metadata;
        let Some(key) = key(metadata) else { return Met::First };
        let mut all = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(names) = all.get_mut(&key) else {
            all.insert(key, Names { first: First::Pending(Vec::new()), met: 1 });
            return Met::First;
        };
        names.met += 1;
        match &mut names.first {
            First::Pending(waiting) => {
                waiting.push(Arc::clone(file));
                Met::Waits
            }
            First::Written(path) => {
                let path = path.clone();
                if names.met >= metadata.links {
                    all.remove(&key);
                }
                Met::Link(path)
            }
        }
    }

    /// Notes where the first name was written, or `None` where it could not be.
    pub(super) fn settle(&self, metadata: &Metadata, written: Option<&Path>) -> Settled {
        let nothing = Settled::Link(Vec::new());
        let Some(key) = key(metadata) else { return nothing };
        let mut all = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(names) = all.get_mut(&key) else { return nothing };
        let First::Pending(waiting) = &mut names.first else { return nothing };
        let Some(path) = written else {
            let next = waiting.pop();
            if next.is_none() {
                all.remove(&key);
            }
            return next.map_or(nothing, Settled::Write);
        };
        let waiting = std::mem::take(waiting);
        names.first = First::Written(path.to_owned());
        if names.met >= metadata.links {
            all.remove(&key);
        }
        Settled::Link(waiting)
    }
}
