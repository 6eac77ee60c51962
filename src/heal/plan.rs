//! What a heal would do: for each finding of a verify where its good bytes lie, or why nobody has them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Serialize, Serializer};

use crate::heal::donors::{Donors, Sizes};
use crate::heal::{HealError, Tried, Ward, pack_of};
use crate::id::{BlobId, ObjectId};
use crate::repository::BlobKind;
use crate::run::Run;
use crate::store::{FileKind, Key};
use crate::verify::{Finding, Object, Report};

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

/// Blobs that come back in new packs: no store gives the pack that held them here, but some have them in others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gather {
    /// The pack that lost them, or the one blob that no index names here.
    pub object: Object,
    /// Blobs of it that open nowhere here.
    pub lost: u64,
    /// Those of them that other stores have, by their indexes; whether they are good there shows when they come.
    #[serde(serialize_with = "as_count")]
    pub blobs: Vec<(BlobKind, BlobId)>,
    /// Their length as stored.
    pub bytes: u64,
    pub from: BTreeSet<String>,
}

/// A finding that cannot be mended, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    pub object: String,
    pub why: String,
    /// Whether nothing but somebody's lock stands in the way.
    #[serde(rename = "locked")]
    pub is_locked: bool,
}

impl Left {
    pub(super) fn new(object: &Object, why: &str) -> Self {
        Self { object: object.to_string(), why: why.to_owned(), is_locked: false }
    }
}

/// What a heal would do in one store. `--dry-run` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HealPlan {
    /// In the order of publishing.
    pub put_back: Vec<PutBack>,
    pub gathered: Vec<Gather>,
    /// Packs that no store holds whole and that no snapshot needs: what still reads of them moves into new packs, and they go.
    #[serde(serialize_with = "as_paths")]
    pub replaced: Vec<Key>,
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
        self.put_back.is_empty() && self.gathered.is_empty() && self.replaced.is_empty() && !self.changes_index()
    }

    /// Returns the paths of what is put, or what is put in its stead.
    pub(super) fn objects(&self) -> impl Iterator<Item = String> {
        let put_back = self.put_back.iter().map(|one| one.object.to_string());
        put_back.chain(self.gathered.iter().map(|one| one.object.to_string()))
    }

    /// Tells whether any of it needs the store alone.
    pub(super) fn changes_index(&self) -> bool {
        self.rebuilds_index || !self.removed.is_empty()
    }

    /// Returns the bytes that come back.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let gathered: u64 = self.gathered.iter().map(|one| one.bytes).sum();
        self.put_back.iter().map(|one| one.bytes).sum::<u64>() + gathered
    }
}

/// Plans for the findings of a report, but nothing that was tried before. The repository's index is loaded.
pub(super) async fn make(
    ward: &Ward,
    donors: &mut Donors<'_>,
    report: &Report,
    tried: &Tried,
    run: &Run,
) -> Result<HealPlan, HealError> {
    let sizes = ward.repository.pack_sizes().into_iter().map(|(id, size)| (id.to_string(), size)).collect();
    let mut planner = Planner { ward, tried, donors, run, sizes, sought: Sought::default(), plan: HealPlan::default() };
    let (mut lost, mut has_index_fault) = (Vec::new(), false);
    for finding in report.findings() {
        run.check()?;
        match &finding.object {
            Object::Blob(kind, id) => lost.push((*kind, *id)),
            Object::Stored(key) if key.kind == FileKind::Index => has_index_fault = true,
            Object::Stored(key) if key.kind == FileKind::Pack => planner.pack(key, finding).await,
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
    planner.gather().await?;
    planner.plan.away = planner.donors.away();
    planner.plan.put_back.sort_by(|a, b| a.object.cmp(&b.object));
    planner.plan.put_back.dedup_by(|a, b| a.object == b.object);
    Ok(planner.plan)
}

/// What no donor gives under its name, and what is to be looked for in their other packs.
#[derive(Default)]
struct Sought {
    packs: HashSet<ObjectId>,
    blobs: Vec<(BlobKind, BlobId)>,
}

struct Planner<'a, 'b> {
    ward: &'a Ward,
    tried: &'a Tried,
    donors: &'a mut Donors<'b>,
    run: &'a Run,
    /// The packs that the index names, and how long each must be.
    sizes: Sizes,
    sought: Sought,
    plan: HealPlan,
}

impl Planner<'_, '_> {
    async fn object(&mut self, key: &Key, object: &Object) -> Result<(), HealError> {
        match key.kind {
            FileKind::Lock => self.leave(object, LOCK_STAYS),
            FileKind::Key => return self.key(key, object).await,
            _ if self.find(key).await => {}
            FileKind::Snapshot if self.ward.repository.has_twin(key).await? => self.remove(key),
            _ => self.leave_unheld(object),
        }
        Ok(())
    }

    /// A pack comes back under its name. Where no donor gives it, what snapshots need of it may lie in their other packs, or here.
    async fn pack(&mut self, key: &Key, finding: &Finding) {
        let path = key.to_string();
        let is_new = !self.tried.put.contains(&path);
        let is_named = self.sizes.contains_key(&key.name);
        if is_new && self.find(key).await {
            // One that no index names here needs a new one.
            self.plan.rebuilds_index |= !is_named;
        } else if is_named && finding.is_superfluous {
            self.plan.replaced.push(key.clone());
        } else if is_named && (is_new || self.tried.ungiven.contains(&path)) && !self.tried.gathered.contains(&path) {
            self.sought.packs.extend(pack_of(&finding.object));
        } else if is_new {
            self.leave_unheld(&finding.object);
        }
    }

    /// Looks for what packs have lost in all packs of the donors.
    async fn gather(&mut self) -> Result<(), HealError> {
        let Sought { packs, blobs } = std::mem::take(&mut self.sought);
        let of_pack = |pack: ObjectId| Object::Stored(Key::new(FileKind::Pack, pack.to_string()));
        let mut lost = Vec::new();
        if self.ward.donors.is_empty() {
            lost.extend(packs.into_iter().map(|pack| (of_pack(pack), Vec::new())));
        } else {
            let packs = self.ward.repository.lost_in(&packs, self.run).await?;
            lost.extend(packs.into_iter().map(|lost| (of_pack(lost.pack), lost.blobs)));
        }
        lost.extend(blobs.into_iter().map(|(kind, id)| (Object::Blob(kind, id), vec![(kind, id)])));
        for (object, lost) in lost {
            let is_new = !self.tried.put.contains(&object.to_string());
            let gather = self.gather_one(object, &lost).await?;
            if !gather.blobs.is_empty() {
                self.plan.gathered.push(gather);
            } else if is_new {
                self.leave_unheld(&gather.object);
            }
        }
        Ok(())
    }

    async fn gather_one(&mut self, object: Object, lost: &[(BlobKind, BlobId)]) -> Result<Gather, HealError> {
        let mut gather = Gather { object, lost: lost.len() as u64, blobs: Vec::new(), bytes: 0, from: BTreeSet::new() };
        let mut open = lost.to_vec();
        for donor in self.donors.places() {
            if open.is_empty() {
                break;
            }
            let Some(repository) = self.donors.open(donor).await? else { continue };
            open.retain(|(kind, id)| {
                let Some(place) = repository.locate(*kind, id) else { return true };
                gather.blobs.push((*kind, *id));
                gather.bytes += u64::from(place.blob.length);
                gather.from.insert(self.donors.name(donor).to_owned());
                false
            });
        }
        Ok(gather)
    }

    /// A key file comes back from where it is whole. Where none is whole here, all come: which of them is the right one only the
    /// password tells.
    async fn key(&mut self, key: &Key, object: &Object) -> Result<(), HealError> {
        if !key.name.is_empty() && self.find(key).await {
            return Ok(());
        }
        if !key.name.is_empty() && self.ward.repository.has_twin(key).await? {
            self.remove(key);
            return Ok(());
        }
        let mut found = false;
        if !self.has_whole_key().await? {
            for donor in self.donors.places() {
                let names: Vec<String> = self.donors.list(donor, FileKind::Key).await.keys().cloned().collect();
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
            if self.ward.repository.is_whole(&Key::new(FileKind::Key, listed.name)).await? {
                return Ok(true);
            }
        }
        Ok(false)
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
        for donor in self.donors.places() {
            if lost.is_empty() {
                break;
            }
            let Some(repository) = self.donors.open(donor).await? else { continue };
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
                } else {
                    // Its index names the blob there first: it may hold it in another pack as well.
                    not_given.extend(blobs.into_iter().map(|blob| (blob, key.clone())));
                }
            }
        }
        for (kind, id) in lost {
            let object = Object::Blob(kind, id);
            let Some(pack) = not_given.get(&(kind, id)) else {
                if !has_orphans {
                    self.leave_unheld(&object);
                }
                continue;
            };
            self.leave(&object, &format!("no store gave {pack} whole, which holds it, nor the blob alone"));
            if !self.tried.gathered.contains(&object.to_string()) {
                self.sought.blobs.push((kind, id));
            }
        }
        Ok(())
    }

    /// Plans to put an object back, if any donor lists it with its right length.
    async fn find(&mut self, key: &Key) -> bool {
        let expected = self.sizes.get(&key.name).copied().filter(|_| key.kind == FileKind::Pack);
        let (mut from, mut bytes) = (Vec::new(), 0);
        for donor in self.donors.places() {
            let size = self.donors.list(donor, key.kind).await.get(&key.name).copied();
            if let Some(size) = size.filter(|size| *size > 0 && expected.is_none_or(|expected| expected == *size)) {
                from.push(self.donors.name(donor).to_owned());
                bytes = size;
            }
        }
        let is_found = !from.is_empty();
        if is_found {
            self.plan.put_back.push(PutBack { object: key.clone(), bytes, from });
        }
        is_found
    }

    fn leave_unheld(&mut self, object: &Object) {
        let away = Vec::from_iter(self.donors.away());
        let why = match (self.ward.donors.is_empty(), away.is_empty()) {
            (true, true) => "there is no other store to take it from".to_owned(),
            (false, true) => "no other store has it".to_owned(),
            (_, false) => format!("no store that answers has it; not asked: {}", away.join(", ")),
        };
        self.leave(object, &why);
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

fn as_count<S: Serializer, T>(blobs: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(blobs.len() as u64)
}
