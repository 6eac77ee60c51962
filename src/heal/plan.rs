//! What a heal would do: for each finding of a verify where its good bytes lie, or why nobody has them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Serialize, Serializer};

use crate::heal::{Donor, HealError, Tried, Ward};
use crate::id::{BlobId, ObjectId};
use crate::repository::{BlobKind, Repository, RepositoryError};
use crate::run::Run;
use crate::store::{FileKind, Key, StoreError};
use crate::verify::{Object, Report};

/// Why no lock is mended, and what a person does about it.
pub(super) const LOCK_STAYS: &str = "nobody can tell whether its holder lives, and nothing is put back meanwhile: make sure that no other run \
                                     works on it, then `restic unlock --remove-all`";

/// An object that is put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PutBack {
    #[serde(serialize_with = "as_path")]
    pub object: Key,
    pub bytes: u64,
    /// The stores that list it, in the order in which they are asked; whether its bytes are good there shows when they come.
    pub from: Vec<String>,
}

/// A finding that cannot be mended, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    pub object: String,
    pub why: String,
}

impl Left {
    pub(super) fn new(object: &Object, why: &str) -> Self {
        Self { object: object.to_string(), why: why.to_owned() }
    }
}

/// What a heal would do in one store. `--dry-run` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HealPlan {
    /// In the order of publishing.
    pub put_back: Vec<PutBack>,
    /// Whether packs that no index file names get one, made from their own headers.
    pub rebuilds_index: bool,
    /// Files that are worth nothing any more: damaged index files whose packs others name, and files under a wrong name whose bytes
    /// are here under their right one.
    #[serde(serialize_with = "as_paths")]
    pub removed: Vec<Key>,
    pub left: Vec<Left>,
    /// Donors that did not answer.
    pub away: BTreeSet<String>,
}

impl HealPlan {
    /// Tells whether nothing can be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put_back.is_empty() && !self.changes_index()
    }

    /// Tells whether any of it needs the store alone.
    pub(super) fn changes_index(&self) -> bool {
        self.rebuilds_index || !self.removed.is_empty()
    }

    /// Returns the bytes that are put back.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.put_back.iter().map(|one| one.bytes).sum()
    }
}

/// Plans for the findings of a report, but nothing that was tried before. The repository's index is loaded.
pub(super) async fn make(ward: &Ward, report: &Report, tried: &Tried, run: &Run) -> Result<HealPlan, HealError> {
    let sizes = ward.repository.pack_sizes().into_iter().map(|(id, size)| (id.to_string(), size)).collect();
    let mut planner =
        Planner { ward, tried, run, sizes, listed: HashMap::new(), away: HashSet::new(), plan: HealPlan::default() };
    let (mut lost, mut has_index_fault) = (Vec::new(), false);
    for finding in report.findings() {
        run.check()?;
        match &finding.object {
            Object::Blob(kind, id) => lost.push((*kind, *id)),
            Object::Stored(key) if key.kind == FileKind::Index => has_index_fault = true,
            object if tried.put.contains(&object.to_string()) => {}
            Object::Stored(key) => planner.object(key, &finding.object).await?,
        }
    }
    if has_index_fault {
        planner.indexes(report).await?;
    }
    if !lost.is_empty() {
        planner.blobs(&lost, !report.orphans.is_empty()).await?;
    }
    planner.plan.away = planner.names_away();
    planner.plan.put_back.sort_by(|a, b| a.object.cmp(&b.object));
    planner.plan.put_back.dedup_by(|a, b| a.object == b.object);
    Ok(planner.plan)
}

/// Names and sizes of the objects of one kind.
type Sizes = HashMap<String, u64>;

struct Planner<'a> {
    ward: &'a Ward,
    tried: &'a Tried,
    run: &'a Run,
    /// The packs that the index names, and how long each must be.
    sizes: Sizes,
    /// What donors list, by their place among the donors, where it was asked for.
    listed: HashMap<(usize, FileKind), Sizes>,
    /// Donors that did not answer.
    away: HashSet<usize>,
    plan: HealPlan,
}

impl Planner<'_> {
    async fn object(&mut self, key: &Key, object: &Object) -> Result<(), HealError> {
        match key.kind {
            FileKind::Lock => self.leave(object, LOCK_STAYS),
            FileKind::Key => return self.key(key, object).await,
            _ if self.find(key).await => {
                // A pack that no index names here needs a new one.
                self.plan.rebuilds_index |= key.kind == FileKind::Pack && !self.sizes.contains_key(&key.name);
            }
            FileKind::Snapshot if self.is_twin(key).await? => self.remove(key),
            _ => self.leave_unheld(object),
        }
        Ok(())
    }

    /// A key file comes back from where it is whole. Where none is whole here, all come: which of them is the right one only the
    /// password tells.
    async fn key(&mut self, key: &Key, object: &Object) -> Result<(), HealError> {
        if !key.name.is_empty() && self.find(key).await {
            return Ok(());
        }
        if !key.name.is_empty() && self.is_twin(key).await? {
            self.remove(key);
            return Ok(());
        }
        let mut found = false;
        if !self.has_whole_key().await? {
            for donor in 0..self.ward.donors.len() {
                let names: Vec<String> = self.list(donor, FileKind::Key).await.keys().cloned().collect();
                for name in names {
                    found |= self.find(&Key::new(FileKind::Key, name)).await;
                }
            }
        }
        if !found {
            self.leave_unheld(object);
        }
        Ok(())
    }

    async fn has_whole_key(&self) -> Result<bool, HealError> {
        for listed in self.ward.repository.store().list(FileKind::Key).await? {
            if self.is_whole(&Key::new(FileKind::Key, listed.name)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn is_whole(&self, key: &Key) -> Result<bool, HealError> {
        match self.ward.repository.check_document(key).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whether a file's bytes lie here under their right name as well.
    async fn is_twin(&self, key: &Key) -> Result<bool, HealError> {
        let actual = match self.ward.repository.store().hash(key).await {
            Ok(actual) => actual.to_string(),
            Err(StoreError::Missing { .. } | StoreError::Unreadable { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        Ok(actual != key.name && self.is_whole(&Key::new(key.kind, actual)).await?)
    }

    fn remove(&mut self, key: &Key) {
        if !self.tried.removed.contains(&key.to_string()) {
            self.plan.removed.push(key.clone());
        }
    }

    /// Damaged index files. Where other files name every pack that is here, they are worth nothing; else one that another store
    /// holds comes back, and for the packs of the others a new one is made. So does one that is worth nothing and may not be deleted.
    async fn indexes(&mut self, report: &Report) -> Result<(), HealError> {
        let worthless = self.ward.repository.worthless_index_files();
        let is_complete = !worthless.is_empty();
        for key in &worthless {
            self.remove(key);
        }
        if self.plan.removed.iter().any(|key| key.kind == FileKind::Index) {
            return Ok(());
        }
        for finding in report.findings() {
            if let Object::Stored(key) = &finding.object
                && key.kind == FileKind::Index
                && (self.tried.put.contains(&finding.object.to_string()) || !self.find(key).await)
            {
                self.plan.rebuilds_index |= !is_complete;
            }
        }
        Ok(())
    }

    /// Blobs that a tree names and no index does: packs that are here without one may hold them, or a pack that only another
    /// store has and knows of.
    async fn blobs(&mut self, lost: &[(BlobKind, BlobId)], has_orphans: bool) -> Result<(), HealError> {
        self.plan.rebuilds_index |= has_orphans;
        let mut lost: HashSet<(BlobKind, BlobId)> = lost.iter().copied().collect();
        let mut not_given = HashMap::new();
        for donor in 0..self.ward.donors.len() {
            if lost.is_empty() {
                break;
            }
            let Some(repository) = self.open(donor).await? else { continue };
            let mut packs: BTreeMap<ObjectId, Vec<(BlobKind, BlobId)>> = BTreeMap::new();
            for (kind, id) in &lost {
                if let Some(pack) = repository.pack_of(*kind, id) {
                    packs.entry(pack).or_default().push((*kind, *id));
                }
            }
            for (pack, blobs) in packs {
                let key = Key::new(FileKind::Pack, pack.to_string());
                if self.tried.put.contains(&key.to_string()) {
                    not_given.extend(blobs.into_iter().map(|blob| (blob, key.clone())));
                } else if self.find(&key).await {
                    self.plan.rebuilds_index = true;
                    for blob in &blobs {
                        lost.remove(blob);
                    }
                }
            }
        }
        if !has_orphans {
            for (kind, id) in lost {
                match not_given.get(&(kind, id)) {
                    Some(pack) => {
                        self.leave(&Object::Blob(kind, id), &format!("no store gave {pack} whole, which holds it"));
                    }
                    None => self.leave_unheld(&Object::Blob(kind, id)),
                }
            }
        }
        Ok(())
    }

    /// Opens a donor with its index.
    async fn open(&mut self, donor: usize) -> Result<Option<std::sync::Arc<Repository>>, HealError> {
        let Donor { name, store } = &self.ward.donors[donor];
        let repository = self.ward.repository.in_store(store.clone(), self.run);
        match repository.load_index(self.run).await {
            Ok(()) => Ok(Some(repository)),
            Err(error @ RepositoryError::Stopped(_)) => Err(error.into()),
            Err(error) => {
                self.run.events.warn(format!("{name}: its index cannot be read: {error}"));
                self.away.insert(donor);
                Ok(None)
            }
        }
    }

    /// Plans to put an object back, if any donor lists it with its right length.
    async fn find(&mut self, key: &Key) -> bool {
        let expected = self.sizes.get(&key.name).copied().filter(|_| key.kind == FileKind::Pack);
        let (mut from, mut bytes) = (Vec::new(), 0);
        for donor in 0..self.ward.donors.len() {
            let size = self.list(donor, key.kind).await.get(&key.name).copied();
            if let Some(size) = size.filter(|size| *size > 0 && expected.is_none_or(|expected| expected == *size)) {
                from.push(self.ward.donors[donor].name.clone());
                bytes = size;
            }
        }
        let is_found = !from.is_empty();
        if is_found {
            self.plan.put_back.push(PutBack { object: key.clone(), bytes, from });
        }
        is_found
    }

    /// Lists the objects of a kind that a donor has, once; one that does not answer has none.
    async fn list(&mut self, donor: usize, kind: FileKind) -> &Sizes {
        if !self.listed.contains_key(&(donor, kind)) {
            let Donor { name, store } = &self.ward.donors[donor];
            let listed = if self.away.contains(&donor) { Ok(Vec::new()) } else { store.list(kind).await };
            let listed = listed.unwrap_or_else(|error| {
                self.run.events.warn(format!("{name}: {error}: nothing can be taken from there"));
                self.away.insert(donor);
                Vec::new()
            });
            let sizes = listed.into_iter().map(|listed| (listed.name, listed.size)).collect();
            self.listed.insert((donor, kind), sizes);
        }
        &self.listed[&(donor, kind)]
    }

    fn leave_unheld(&mut self, object: &Object) {
        let away = Vec::from_iter(self.names_away());
        let why = match (self.ward.donors.is_empty(), away.is_empty()) {
            (true, true) => "there is no other store to take it from".to_owned(),
            (false, true) => "no other store has it".to_owned(),
            (_, false) => format!("no store that answers has it; not asked: {}", away.join(", ")),
        };
        self.leave(object, &why);
    }

    fn names_away(&self) -> BTreeSet<String> {
        let silent = self.away.iter().map(|donor| self.ward.donors[*donor].name.clone());
        silent.chain(self.ward.away.iter().cloned()).collect()
    }

    fn leave(&mut self, object: &Object, why: &str) {
        self.plan.left.push(Left::new(object, why));
    }
}

fn as_path<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

fn as_paths<S: Serializer>(keys: &[Key], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(keys.iter().map(Key::to_string))
}
