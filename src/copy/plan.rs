//! What a copy would send: a pure comparison of two listings.

use std::collections::{HashMap, HashSet};

use crate::id::SnapshotId;
use crate::store::{FileKind, Key, Listed, SharedStore, StoreError};

/// What a copy consists of. Locks are no part of it.
const KINDS: [FileKind; 5] = [FileKind::Config, FileKind::Key, FileKind::Pack, FileKind::Index, FileKind::Snapshot];

/// The objects of one side. Locks are no part of a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    pub config: Vec<Listed>,
    pub keys: Vec<Listed>,
    pub packs: Vec<Listed>,
    pub indexes: Vec<Listed>,
    pub snapshots: Vec<Listed>,
}

impl Listing {
    /// Lists a store in the order of reading. Publishing goes the other way, so all that a listed snapshot needs is
    /// in the listings after it, also while a backup runs beside us.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn of(store: &SharedStore) -> Result<Self, StoreError> {
        Ok(Self {
            snapshots: store.list(FileKind::Snapshot).await?,
            indexes: store.list(FileKind::Index).await?,
            packs: store.list(FileKind::Pack).await?,
            keys: store.list(FileKind::Key).await?,
            config: store.list(FileKind::Config).await?,
        })
    }

    fn of_kind(&self, kind: FileKind) -> &[Listed] {
        match kind {
            FileKind::Config => &self.config,
            FileKind::Key => &self.keys,
            FileKind::Pack => &self.packs,
            FileKind::Index => &self.indexes,
            FileKind::Snapshot => &self.snapshots,
            FileKind::Lock => &[],
        }
    }

    /// Returns the objects that another side lacks, or has with another size.
    pub(super) fn missing_in(&self, there: &Listing) -> Vec<Key> {
        let of = |kind| {
            let (missing, _) = missing(self.of_kind(kind), there.of_kind(kind));
            missing.into_iter().map(move |listed| Key::new(kind, listed.name))
        };
        KINDS.into_iter().flat_map(of).collect()
    }

    fn count(&self) -> usize {
        let Self { config, keys, packs, indexes, snapshots } = self;
        config.len() + keys.len() + packs.len() + indexes.len() + snapshots.len()
    }
}

/// What a copy sends, each list sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyPlan {
    pub config: Vec<Listed>,
    pub keys: Vec<Listed>,
    pub packs: Vec<Listed>,
    pub indexes: Vec<Listed>,
    pub snapshots: Vec<Listed>,
    /// Objects that are in the target already, with their whole size.
    pub skipped: u64,
    /// Objects that are in the target with another size: a put that was cut. They are sent again.
    pub torn: u64,
    /// Keys that only the target has: a password that was changed here still opens the copy.
    pub keys_only_there: Vec<String>,
    here: Listing,
}

impl CopyPlan {
    /// Compares what is here with what is there.
    #[must_use]
    pub fn new(here: &Listing, there: &Listing) -> Self {
        let mut torn = 0;
        let mut missing = |here: &[Listed], there: &[Listed]| {
            let (missing, cut) = missing(here, there);
            torn += cut;
            missing
        };
        let mut plan = Self {
            config: missing(&here.config, &there.config),
            keys: missing(&here.keys, &there.keys),
            packs: missing(&here.packs, &there.packs),
            indexes: missing(&here.indexes, &there.indexes),
            snapshots: missing(&here.snapshots, &there.snapshots),
            skipped: 0,
            torn: 0,
            keys_only_there: only_there(&here.keys, &there.keys),
            here: here.clone(),
        };
        plan.torn = torn;
        plan.skipped = (here.count() - plan.count()) as u64;
        plan
    }

    /// Returns the bytes to send.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.lists().into_iter().flatten().map(|listed| listed.size).sum()
    }

    /// Returns the number of objects to send.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lists().into_iter().map(Vec::len).sum()
    }

    /// Tells whether the target has everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Returns the snapshots to send without those that are held back.
    pub(super) fn snapshots_but(&self, held_back: &[SnapshotId]) -> Vec<Listed> {
        let held_back: HashSet<_> = held_back.iter().map(ToString::to_string).collect();
        let go = self.snapshots.iter().filter(|listed| !held_back.contains(&listed.name));
        go.cloned().collect()
    }

    /// Returns every object that was listed here, with its size.
    pub(super) fn here(&self) -> Vec<(Key, u64)> {
        let of = |kind| self.here.of_kind(kind).iter().map(move |it| (Key::new(kind, &it.name), it.size));
        KINDS.into_iter().flat_map(of).collect()
    }

    /// Tells whether an object was listed here.
    pub(super) fn is_here(&self, kind: FileKind, name: &str) -> bool {
        self.here.of_kind(kind).iter().any(|listed| listed.name == name)
    }

    /// Returns what the target lacks when it is listed once more: all of it when nothing was sent, nothing after a whole copy.
    pub(super) fn missing_in(&self, there: &Listing) -> Vec<Key> {
        self.here.missing_in(there)
    }

    fn lists(&self) -> [&Vec<Listed>; 5] {
        [&self.config, &self.keys, &self.packs, &self.indexes, &self.snapshots]
    }
}

/// Returns the objects that are not there with their whole size, and how many of them are there with another.
fn missing(here: &[Listed], there: &[Listed]) -> (Vec<Listed>, u64) {
    let sizes: HashMap<_, _> = there.iter().map(|listed| (&listed.name, listed.size)).collect();
    let is_missing = |listed: &&Listed| sizes.get(&listed.name) != Some(&listed.size);
    let mut missing: Vec<_> = here.iter().filter(is_missing).cloned().collect();
    missing.sort_by(|one, other| one.name.cmp(&other.name));
    let torn = missing.iter().filter(|listed| sizes.contains_key(&listed.name)).count();
    (missing, torn as u64)
}

fn only_there(here: &[Listed], there: &[Listed]) -> Vec<String> {
    let here: HashSet<_> = here.iter().map(|listed| &listed.name).collect();
    let only = there.iter().map(|listed| &listed.name).filter(|name| !here.contains(name));
    let mut only: Vec<_> = only.cloned().collect();
    only.sort();
    only
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, size: u64) -> Listed {
        Listed { name: name.to_owned(), size }
    }

    #[test]
    fn what_is_there_whole_is_not_sent_and_what_is_torn_is() {
        let here = Listing { packs: vec![listed("c", 30), listed("a", 10), listed("b", 20)], ..Listing::default() };
        let there = Listing { packs: vec![listed("a", 10), listed("b", 19), listed("old", 7)], ..Listing::default() };
        let plan = CopyPlan::new(&here, &there);
        assert_eq!(plan.packs, [listed("b", 20), listed("c", 30)]);
        assert_eq!((plan.bytes(), plan.count(), plan.skipped, plan.torn), (50, 2, 1, 1));
    }

    #[test]
    fn a_key_that_only_the_copy_has_is_named() {
        let side =
            |names: &[&str]| Listing { keys: names.iter().map(|name| listed(name, 1)).collect(), ..Listing::default() };
        let plan = CopyPlan::new(&side(&["new"]), &side(&["old", "new"]));
        assert_eq!(plan.keys_only_there, ["old"]);
        assert!(plan.is_empty());
    }
}
