//! What becomes of each pack: a pure decision over how much of it is needed.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::id::ObjectId;
use crate::repository::{BlobKind, Marks, PackUse};
use crate::store::{FileKind, Key, Listed};

/// A pack below a quarter of what packs are meant to be is small.
const SMALL_BYTES: u64 = 4 << 20;

/// So many small packs of a kind are tolerated before they are put together: each run leaves one for each source.
const SMALL_PACKS_MAX: usize = 16;

/// What a prune may leave as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Unused bytes that may stay in packs that hold something needed, in hundredths of the bytes that are needed.
    pub unused_percent_max: u64,
    /// Packs that stay as they are whatever is in them.
    pub kept: HashSet<ObjectId>,
    /// Put many small index files together. Not in a copy: they are the repository's own, and would be sent again.
    pub merges_index: bool,
}

impl Default for Limits {
    /// Five in a hundred, as restic has it: to free the last of it would mean to write nearly everything anew.
    fn default() -> Self {
        Self { unused_percent_max: 5, kept: HashSet::new(), merges_index: true }
    }
}

/// A pack and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Planned {
    pub id: ObjectId,
    pub size: u64,
}

/// A pack that the store's own lock keeps, itself or by an index file that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protected {
    pub pack: Planned,
    /// From then on a prune frees it.
    pub until: DateTime<Utc>,
}

/// What a prune would do. `--dry-run` shows it.
#[derive(Debug, Clone)]
pub struct PrunePlan {
    /// Packs of which nothing is needed.
    pub unused: Vec<Planned>,
    /// Packs that no index names: what killed runs left.
    pub orphans: Vec<Planned>,
    /// Packs of which what is needed is copied into new ones.
    pub repack: Vec<Planned>,
    /// Bytes that are copied from them.
    pub bytes_repacked: u64,
    /// Packs that an index names, of which nothing is needed, and which are gone already.
    pub absent: Vec<ObjectId>,
    /// Packs that would go, but that the store's own lock keeps, or an index file that names them and is kept itself.
    pub protected: Vec<Protected>,
    pub packs_kept: u64,
    pub bytes_kept: u64,
    /// Unused bytes in the packs that stay.
    pub bytes_unused_kept: u64,
    /// Index files that name a pack which goes.
    pub(super) indexes: Vec<String>,
    merges_index: bool,
    marks: Marks,
}

/// Packs that hold what is needed, and that are gone or of another length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{count} packs that snapshots need are missing or of the wrong length, the first is {first}")]
pub struct Damaged {
    pub count: usize,
    pub first: ObjectId,
}

impl PrunePlan {
    /// Decides for each pack that an index names or that the store lists.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn new(uses: &[PackUse], listed: &[Listed], limits: &Limits, marks: Marks) -> Result<Self, Damaged> {
        let sizes: HashMap<ObjectId, u64> =
            listed.iter().filter_map(|pack| Some((pack.name.parse().ok()?, pack.size))).collect();
        refuse_damaged(uses, &sizes)?;
        let named: HashSet<ObjectId> = uses.iter().map(|pack| pack.id).collect();
        let planned = |id: &ObjectId| Some(Planned { id: *id, size: *sizes.get(id)? });
        let stays = |pack: &&PackUse| limits.kept.contains(&pack.id);
        let dead = uses.iter().filter(|pack| pack.blobs_needed == 0 && !stays(pack));
        let (unused, absent): (Vec<&PackUse>, Vec<&PackUse>) = dead.partition(|pack| sizes.contains_key(&pack.id));
        let orphans = sizes.keys().filter(|id| !named.contains(id) && !limits.kept.contains(id));
        let alive: Vec<&PackUse> = uses.iter().filter(|pack| pack.blobs_needed > 0 || stays(pack)).collect();
        let repack = to_repack(&alive, limits);
        let left = || alive.iter().filter(|pack| !repack.contains(&pack.id));
        let repacked = || alive.iter().filter(|pack| repack.contains(&pack.id));
        let mut plan = Self {
            unused: unused.iter().filter_map(|pack| planned(&pack.id)).collect(),
            orphans: orphans.filter_map(planned).collect(),
            repack: repacked().map(|pack| Planned { id: pack.id, size: pack.size }).collect(),
            bytes_repacked: repacked().map(|pack| pack.bytes_needed).sum(),
            absent: absent.iter().map(|pack| pack.id).collect(),
            protected: Vec::new(),
            packs_kept: left().count() as u64,
            bytes_kept: left().map(|pack| pack.size).sum(),
            bytes_unused_kept: left().map(|pack| pack.bytes_unused).sum(),
            indexes: Vec::new(),
            merges_index: limits.merges_index,
            marks,
        };
        for packs in [&mut plan.unused, &mut plan.orphans] {
            packs.sort_unstable();
        }
        Ok(plan)
    }

    /// Tells whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unused.is_empty() && self.orphans.is_empty() && self.repack.is_empty() && self.absent.is_empty()
    }

    /// Returns the packs that are deleted in the end.
    pub fn deleted(&self) -> impl Iterator<Item = &Planned> {
        self.unused.iter().chain(&self.repack).chain(&self.orphans)
    }

    /// Returns the bytes that are freed in the end.
    #[must_use]
    pub fn bytes_freed(&self) -> u64 {
        self.deleted().map(|pack| pack.size).sum::<u64>().saturating_sub(self.bytes_repacked)
    }

    /// Returns the packs that no index file may name afterwards.
    #[must_use]
    pub fn gone(&self) -> HashSet<ObjectId> {
        let named = self.unused.iter().chain(&self.repack).map(|pack| pack.id);
        named.chain(self.absent.iter().copied()).collect()
    }

    /// Returns what is deleted in the end, but for small index files that are merged.
    #[must_use]
    pub fn objects_to_delete(&self) -> Vec<Key> {
        let pack = |pack: &Planned| Key::new(FileKind::Pack, pack.id.to_string());
        let indexes = self.indexes.iter().map(|name| Key::new(FileKind::Index, name));
        self.deleted().map(pack).chain(indexes).collect()
    }

    pub(super) fn merges_index(&self) -> bool {
        self.merges_index
    }

    pub(super) fn marks(&self) -> &Marks {
        &self.marks
    }
}

fn refuse_damaged(uses: &[PackUse], sizes: &HashMap<ObjectId, u64>) -> Result<(), Damaged> {
    let is_damaged = |pack: &&PackUse| pack.blobs_needed > 0 && sizes.get(&pack.id) != Some(&pack.size);
    let damaged: Vec<ObjectId> = uses.iter().filter(is_damaged).map(|pack| pack.id).collect();
    match damaged.iter().min() {
        Some(first) => Err(Damaged { count: damaged.len(), first: *first }),
        None => Ok(()),
    }
}

/// Chooses the packs to put together: the small ones where there are many, and those with the largest dead share until no more
/// than the limit is dead in what stays.
fn to_repack(alive: &[&PackUse], limits: &Limits) -> HashSet<ObjectId> {
    let free = || alive.iter().filter(|pack| !limits.kept.contains(&pack.id));
    let mut chosen = HashSet::new();
    for kind in [BlobKind::Data, BlobKind::Tree] {
        let small: Vec<_> = free().filter(|pack| pack.kind == kind && pack.size < SMALL_BYTES).collect();
        if small.len() > SMALL_PACKS_MAX {
            chosen.extend(small.iter().map(|pack| pack.id));
        }
    }
    let needed: u64 = alive.iter().map(|pack| pack.bytes_needed).sum();
    let allowed = needed / 100 * limits.unused_percent_max;
    let mut unused: u64 = free().filter(|pack| !chosen.contains(&pack.id)).map(|pack| pack.bytes_unused).sum();
    let mut mixed: Vec<_> = free().filter(|pack| pack.bytes_unused > 0 && !chosen.contains(&pack.id)).collect();
    // In thousandths of what the pack holds; the id makes the order certain.
    mixed.sort_by_key(|pack| (Reverse(pack.bytes_unused * 1000 / pack.size.max(1)), pack.id));
    for pack in mixed {
        if unused <= allowed {
            break;
        }
        unused -= pack.bytes_unused;
        chosen.insert(pack.id);
    }
    chosen
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn pack(number: u8, needed: u64, unused: u64) -> PackUse {
        PackUse {
            id: ObjectId::of(&[number]),
            size: (needed + unused) * MIB,
            blobs_needed: needed,
            bytes_needed: needed * MIB,
            bytes_unused: unused * MIB,
            kind: BlobKind::Data,
        }
    }

    fn listed(packs: &[PackUse]) -> Vec<Listed> {
        packs.iter().map(|pack| Listed { name: pack.id.to_string(), size: pack.size }).collect()
    }

    fn plan(packs: &[PackUse], limits: &Limits) -> PrunePlan {
        PrunePlan::new(packs, &listed(packs), limits, Marks::empty()).unwrap()
    }

    fn ids(packs: &[Planned]) -> Vec<ObjectId> {
        packs.iter().map(|pack| pack.id).collect()
    }

    #[test]
    fn a_pack_without_a_needed_blob_goes_and_a_full_one_stays() {
        let packs = [pack(1, 16, 0), pack(2, 0, 16)];
        let plan = plan(&packs, &Limits::default());
        assert_eq!(ids(&plan.unused), [packs[1].id]);
        assert_eq!((plan.packs_kept, plan.bytes_kept, plan.bytes_freed()), (1, 16 * MIB, 16 * MIB));
        assert!(plan.repack.is_empty());
    }

    #[test]
    fn the_deadest_packs_are_repacked_until_the_limit_holds() {
        let packs = [pack(1, 100, 0), pack(2, 15, 1), pack(3, 4, 12), pack(4, 8, 8)];
        let plan_of = |percent| plan(&packs, &Limits { unused_percent_max: percent, ..Limits::default() });
        // 127 MiB are needed, 21 MiB are dead.
        assert!(plan_of(20).repack.is_empty());
        assert_eq!(ids(&plan_of(10).repack), [packs[2].id]);
        assert_eq!(ids(&plan_of(5).repack), [packs[2].id, packs[3].id]);
        let all = plan_of(0);
        assert_eq!(ids(&all.repack), [packs[1].id, packs[2].id, packs[3].id]);
        assert_eq!((all.bytes_unused_kept, all.bytes_repacked, all.bytes_freed()), (0, 27 * MIB, 21 * MIB));
    }

    #[test]
    fn many_small_packs_are_put_together_and_few_are_left() {
        let packs: Vec<_> = (0..20).map(|number| pack(number, 1, 0)).collect();
        assert_eq!(plan(&packs, &Limits::default()).repack.len(), 20);
        assert!(plan(&packs[..SMALL_PACKS_MAX], &Limits::default()).is_empty());
    }

    #[test]
    fn packs_that_the_repository_holds_stay_in_its_copy() {
        let packs = [pack(1, 1, 15), pack(2, 0, 16)];
        let kept = packs.iter().map(|pack| pack.id).collect();
        let limits = Limits { unused_percent_max: 0, kept, merges_index: false };
        let plan = plan(&packs, &limits);
        assert!(plan.is_empty());
        assert_eq!(plan.bytes_unused_kept, 31 * MIB);
    }

    #[test]
    fn what_no_index_names_is_an_orphan() {
        let packs = [pack(1, 16, 0)];
        let mut listed = listed(&packs);
        listed.push(Listed { name: ObjectId::of(b"killed").to_string(), size: 5 });
        let plan = PrunePlan::new(&packs, &listed, &Limits::default(), Marks::empty()).unwrap();
        assert_eq!(plan.orphans, [Planned { id: ObjectId::of(b"killed"), size: 5 }]);
    }

    #[test]
    fn a_needed_pack_that_is_gone_or_cut_stops_everything_and_a_dead_one_does_not() {
        let packs = [pack(1, 16, 0), pack(2, 0, 16)];
        let only = |nth: usize| vec![listed(&packs)[nth].clone()];
        let error = PrunePlan::new(&packs, &only(1), &Limits::default(), Marks::empty()).unwrap_err();
        assert_eq!(error, Damaged { count: 1, first: packs[0].id });
        let plan = PrunePlan::new(&packs, &only(0), &Limits::default(), Marks::empty()).unwrap();
        assert_eq!((plan.absent, plan.unused), (vec![packs[1].id], vec![]));
        let mut cut = listed(&packs);
        cut[0].size -= 1;
        assert!(PrunePlan::new(&packs, &cut, &Limits::default(), Marks::empty()).is_err());
    }
}
