//! What a verify found, as a plain value.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::id::{BlobId, SnapshotId};
use crate::repository::{BlobKind, RepositoryError};
use crate::store::{FileKind, Key, StoreError};
use crate::verify::cost::Costs;
use crate::verify::rows::Rows;
use crate::verify::{Level, Options, Subset};

/// Counts of what was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Checked {
    pub snapshots: u64,
    pub indexes: u64,
    /// Packs that the index names, and blobs in them.
    pub packs: u64,
    pub blobs: u64,
    /// Trees that were walked, each once.
    pub trees: u64,
    /// Packs, blobs and bytes that were read and hashed.
    pub packs_read: u64,
    pub blobs_read: u64,
    pub bytes_read: u64,
}

impl Checked {
    /// Returns the counts of a look and of an earlier one, whose whole packs it left out. A pack that both read is one.
    #[must_use]
    pub(crate) fn after(self, earlier: Self) -> Self {
        Self {
            packs_read: (earlier.packs_read + self.packs_read).min(self.packs),
            blobs_read: (earlier.blobs_read + self.blobs_read).min(self.blobs),
            bytes_read: earlier.bytes_read + self.bytes_read,
            ..self
        }
    }
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    Stored(Key),
    /// A blob that a tree names and no index does.
    Blob(BlobKind, BlobId),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored(key) => key.fmt(f),
            Self::Blob(kind, id) => write!(f, "{kind} blob {id}"),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A path in a snapshot that cannot be restored as it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Cost {
    pub snapshot: SnapshotId,
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Where it is a file or a directory of a dump: the rows that it held.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Rows>,
}

/// A path is bytes and JSON is text: what is none shows as signs of replacement.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// An object that is damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub object: Object,
    /// What is wrong with it.
    pub what: String,
    /// The paths that it costs, up to a bound.
    pub costs: Vec<Cost>,
    /// Further paths that it costs.
    pub costs_more: u64,
    /// Whether every snapshot comes back whole without it: what it held lies elsewhere as well, or nobody needs it.
    #[serde(rename = "superfluous")]
    pub is_superfluous: bool,
}

/// What a verify found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub level: Level,
    /// The share of the packs that was read; `None`: all, or none at the level `structure`.
    pub subset: Option<Subset>,
    pub checked: Checked,
    /// Objects whose bytes do not hash right.
    pub damaged: Vec<Finding>,
    /// Objects that are named, but not there.
    pub missing: Vec<Finding>,
    /// Packs that are there, but not named: a run that was killed leaves them, a prune frees them.
    #[serde(serialize_with = "display_all")]
    pub orphans: Vec<Key>,
}

impl Report {
    /// Tells whether all that was looked at is as it should be. Orphans do no harm.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty()
    }

    /// Tells whether every snapshot that was looked at comes back whole, whatever else is damaged or missing.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        self.findings().all(|finding| finding.is_superfluous)
    }

    /// Returns all that is damaged, and then all that is missing.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.damaged.iter().chain(&self.missing)
    }

    /// Returns the paths that are lost, each once.
    #[must_use]
    pub fn costs(&self) -> Vec<&Cost> {
        let mut costs: Vec<_> = self.findings().flat_map(|finding| &finding.costs).collect();
        costs.sort();
        costs.dedup();
        costs
    }
}

/// Whether the bytes are wrong or not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Damaged,
    Missing,
}

/// What is wrong with one object, and the blobs that may be lost with it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) state: State,
    pub(super) what: String,
    pub(super) lost: Vec<(BlobKind, BlobId)>,
}

impl Fault {
    /// Reads an error as a fault of the object it was met at; `None` where it says nothing of the object itself.
    pub(super) fn of(error: &RepositoryError) -> Option<Self> {
        let state = match error {
            RepositoryError::Store(StoreError::Missing { .. }) | RepositoryError::MissingBlob { .. } => State::Missing,
            // A bad sector, or a file that nobody may read, is as good as damaged. A store that is away says nothing of its objects.
            RepositoryError::Damaged { .. } | RepositoryError::Store(StoreError::Unreadable { .. }) => State::Damaged,
            _ => return None,
        };
        let what = match (state, error) {
            (State::Missing, _) => "it is named, but not there".to_owned(),
            (
                State::Damaged,
                RepositoryError::Damaged { reason, .. } | RepositoryError::Store(StoreError::Unreadable { reason, .. }),
            ) => reason.clone(),
            (State::Damaged, error) => error.to_string(),
        };
        Some(Self { state, what, lost: Vec::new() })
    }

    pub(super) fn damaged(what: impl fmt::Display) -> Self {
        Self { state: State::Damaged, what: what.to_string(), lost: Vec::new() }
    }

    pub(super) fn losing(mut self, blobs: impl IntoIterator<Item = (BlobKind, BlobId)>) -> Self {
        self.lost.extend(blobs);
        self
    }
}

/// A report in the making.
#[derive(Debug)]
pub(super) struct Draft {
    options: Options,
    pub(super) checked: Checked,
    pub(super) faults: BTreeMap<Object, Fault>,
    /// Those of them that hold nothing which does not lie elsewhere.
    pub(super) spare: HashSet<Object>,
    pub(super) orphans: Vec<Key>,
}

impl Draft {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            checked: Checked::default(),
            faults: BTreeMap::new(),
            spare: HashSet::new(),
            orphans: Vec::new(),
        }
    }

    /// Adds a fault. Of one object the first says most; the later ones may know of more blobs that are lost.
    pub(super) fn add(&mut self, object: Object, fault: Fault) {
        match self.faults.get_mut(&object) {
            Some(known) => known.lost.extend(fault.lost),
            None => {
                self.faults.insert(object, fault);
            }
        }
    }

    pub(super) fn add_pack(&mut self, pack: crate::id::ObjectId, fault: Fault) {
        self.add(Object::Stored(Key::new(FileKind::Pack, pack.to_string())), fault);
    }

    /// Adds that no password opens the repository: it was opened by the keys of another store.
    pub(super) fn add_keyless(&mut self) {
        let fault =
            Fault { state: State::Missing, what: "there is no key: no password opens it".to_owned(), lost: Vec::new() };
        self.add(Object::Stored(Key::new(FileKind::Key, "")), fault);
    }

    /// Adds an error as a fault of an object; one that says nothing of the object is returned.
    pub(super) fn found(&mut self, object: Key, error: &RepositoryError) -> Result<(), RepositoryError> {
        let fault = Fault::of(error).ok_or_else(|| error.clone())?;
        self.add(Object::Stored(object), fault);
        Ok(())
    }

    /// Tells whether a snapshot or a tree is lost: nobody knows what they need.
    fn hides_needs(&self, costs: &Costs) -> bool {
        self.faults.iter().any(|(object, fault)| match object {
            Object::Stored(Key { kind: FileKind::Snapshot, .. }) => !self.spare.contains(object),
            _ => costs.contains_key(object) && fault.lost.iter().any(|(kind, _)| *kind == BlobKind::Tree),
        })
    }

    pub(super) fn settle(self, mut costs: Costs) -> Report {
        let (mut damaged, mut missing) = (Vec::new(), Vec::new());
        let hides = self.hides_needs(&costs);
        for (object, fault) in self.faults {
            let (paths, costs_more) = costs.remove(&object).unwrap_or_default().into_parts();
            let is_superfluous = match &object {
                // What is lost with a pack and needed has a path, as long as all that needs something can be read.
                Object::Stored(Key { kind: FileKind::Pack, .. }) => !hides && paths.is_empty() && costs_more == 0,
                // It keeps runs off, and holds nothing.
                Object::Stored(Key { kind: FileKind::Lock, .. }) => true,
                object => self.spare.contains(object),
            };
            let list = match fault.state {
                State::Damaged => &mut damaged,
                State::Missing => &mut missing,
            };
            list.push(Finding { object, what: fault.what, costs: paths, costs_more, is_superfluous });
        }
        Report {
            level: self.options.level,
            subset: self.options.subset.filter(|_| self.options.level == Level::Data),
            checked: self.checked,
            damaged,
            missing,
            orphans: self.orphans,
        }
    }
}

fn display_all<S: Serializer>(keys: &[Key], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(keys.iter().map(Key::to_string))
}
