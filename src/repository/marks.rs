//! Which places of the index are needed, and what that makes of each pack: the accounts of a prune.
//!
//! A bit for each entry of the index instead of a set of ids: ten million blobs take a megabyte and a quarter.

use std::collections::HashSet;
use std::sync::PoisonError;

use futures_util::{StreamExt, stream};

use crate::event::Unit;
use crate::id::{BlobId, ObjectId};
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::pack::{self, BlobKind};
use crate::repository::{Location, PackContents, Repository};
use crate::run::Run;

/// Blobs that are opened at once to prove that they may be the last of their kind.
const PROVED_AT_ONCE: usize = 8;

/// A bit for each entry of the loaded index. It is of no use once the index was loaded again.
#[derive(Debug, Clone)]
pub struct Marks {
    data: Bits,
    trees: Bits,
}

#[derive(Debug, Clone)]
pub(super) struct Bits(Vec<u64>);

/// What became of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    First,
    Again,
    /// No index names the blob.
    Unknown,
}

/// How much of a pack is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUse {
    pub id: ObjectId,
    /// Its length in the store, as the index tells it.
    pub size: u64,
    pub blobs_needed: u64,
    /// Stored bytes of blobs that are needed, with their entries in the header.
    pub bytes_needed: u64,
    /// The same of blobs that nothing needs, or that another pack holds as well.
    pub bytes_unused: u64,
    pub kind: BlobKind,
}

impl Bits {
    pub(super) fn new(length: usize) -> Self {
        Self(vec![0; length.div_ceil(64)])
    }

    pub(super) fn get(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }

    /// Sets a bit, and tells whether it was not set.
    pub(super) fn set(&mut self, at: usize) -> bool {
        let was = self.get(at);
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
        !was
    }

    pub(super) fn clear(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word &= !(1 << (at % 64));
        }
    }
}

impl Marks {
    /// Returns the marks of an index without entries.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self { data: Bits::new(0), trees: Bits::new(0) }
    }

    pub(super) fn of(&self, kind: BlobKind) -> &Bits {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    fn of_mut(&mut self, kind: BlobKind) -> &mut Bits {
        match kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        }
    }
}

const KINDS: [BlobKind; 2] = [BlobKind::Data, BlobKind::Tree];

impl Index {
    pub(super) fn marks(&self) -> Marks {
        let bits = |kind| Bits::new(self.section(kind).entries.len());
        Marks { data: bits(BlobKind::Data), trees: bits(BlobKind::Tree) }
    }

    /// Marks a blob as needed, at the first of its places.
    pub(super) fn mark(&self, marks: &mut Marks, kind: BlobKind, id: &BlobId) -> Marked {
        let places = self.section(kind).places(id.as_bytes());
        if places.is_empty() {
            Marked::Unknown
        } else if marks.of_mut(kind).set(places.start) {
            Marked::First
        } else {
            Marked::Again
        }
    }

    fn is_marked(&self, marks: &Marks, kind: BlobKind, id: &BlobId) -> bool {
        self.section(kind).places(id.as_bytes()).any(|at| marks.of(kind).get(at))
    }

    /// Moves the mark of each blob that lies in several packs to the best: one that is `whole`, then one of `kept`, then the one that
    /// holds the most of what lies nowhere else.
    fn settle(&self, marks: &mut Marks, whole: &HashSet<ObjectId>, kept: &HashSet<ObjectId>) {
        let mut alone = vec![0u64; self.packs.len()];
        for kind in KINDS {
            let (section, bits) = (self.section(kind), marks.of(kind));
            for places in section.groups().filter(|places| places.len() == 1 && bits.get(places.start)) {
                let entry = &section.entries[places.start];
                alone[entry.pack as usize] += u64::from(entry.length);
            }
        }
        for kind in KINDS {
            let (section, bits) = (self.section(kind), marks.of_mut(kind));
            for places in section.groups().filter(|places| places.len() > 1) {
                if !bits.get(places.start) {
                    continue;
                }
                bits.clear(places.start);
                let worth = |at: &usize| {
                    let pack = section.entries[*at].pack as usize;
                    let id = &self.packs[pack];
                    (whole.contains(id), kept.contains(id), alone[pack])
                };
                if let Some(best) = places.max_by_key(worth) {
                    bits.set(best);
                }
            }
        }
    }

    fn uses(&self, marks: &Marks) -> Vec<PackUse> {
        let empty = |id: &ObjectId| PackUse {
            id: *id,
            size: pack::size_of(&[]),
            blobs_needed: 0,
            bytes_needed: 0,
            bytes_unused: 0,
            kind: BlobKind::Data,
        };
        let mut uses: Vec<PackUse> = self.packs.iter().map(empty).collect();
        for kind in KINDS {
            let bits = marks.of(kind);
            for (at, entry) in self.section(kind).entries.iter().enumerate() {
                let share = pack::share_of(entry.length, entry.plain != 0);
                let pack = &mut uses[entry.pack as usize];
                pack.size += share;
                pack.kind = kind;
                if bits.get(at) {
                    pack.blobs_needed += 1;
                    pack.bytes_needed += share;
                } else {
                    pack.bytes_unused += share;
                }
            }
        }
        uses
    }

    /// Returns some packs with those of their blobs whose place is wanted, in the order of their offsets.
    pub(super) fn contents(
        &self,
        packs: &HashSet<ObjectId>,
        is_wanted: impl Fn(BlobKind, usize) -> bool,
    ) -> Vec<PackContents> {
        let empty = |id: &ObjectId| packs.contains(id).then(|| PackContents { id: *id, blobs: Vec::new() });
        let mut found: Vec<Option<PackContents>> = self.packs.iter().map(empty).collect();
        for kind in KINDS {
            for (at, entry) in self.section(kind).entries.iter().enumerate() {
                if let Some(pack) = &mut found[entry.pack as usize]
                    && is_wanted(kind, at)
                {
                    pack.blobs.push(entry.blob(kind));
                }
            }
        }
        let mut found: Vec<PackContents> = found.into_iter().flatten().filter(|pack| !pack.blobs.is_empty()).collect();
        for pack in &mut found {
            pack.blobs.sort_by_key(|blob| blob.offset);
        }
        found
    }

    /// Returns the places that stay of needed blobs which have another place in a pack that goes.
    fn last_places(&self, marks: &Marks, gone: &HashSet<ObjectId>) -> Vec<Location> {
        let mut last = Vec::new();
        for kind in KINDS {
            let (section, bits) = (self.section(kind), marks.of(kind));
            let goes = |at: usize| gone.contains(&self.packs[section.entries[at].pack as usize]);
            for mut places in section.groups().filter(|places| places.len() > 1) {
                let stays = places.clone().find(|at| bits.get(*at) && !goes(*at));
                last.extend(stays.filter(|_| places.any(goes)).map(|at| self.location(kind, &section.entries[at])));
            }
        }
        last
    }

    /// Returns the places of packs that stay and that an index file beside `old` names.
    pub(super) fn packs_named_beside(&self, old: &[String], gone: &HashSet<ObjectId>) -> HashSet<u32> {
        let others = self.files.iter().filter(|file| !old.contains(&file.name));
        let named = others.flat_map(|file| file.packs.iter().copied());
        named.filter(|pack| !gone.contains(&self.packs[*pack as usize])).collect()
    }
}

impl Repository {
    pub(super) fn with_index<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(self.index.read().unwrap_or_else(PoisonError::into_inner).loaded())
    }

    /// Returns marks for the loaded index, none set.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.with_index(Index::marks)
    }

    /// Marks a blob as needed.
    pub fn mark(&self, marks: &mut Marks, kind: BlobKind, id: &BlobId) -> Marked {
        self.with_index(|index| index.mark(marks, kind, id))
    }

    pub(super) fn is_marked(&self, marks: &Marks, kind: BlobKind, id: &BlobId) -> bool {
        self.with_index(|index| index.is_marked(marks, kind, id))
    }

    /// Settles in which pack each marked blob is needed, and returns how much of each pack is. `whole` are the packs that are there
    /// with their right length.
    pub fn uses(&self, marks: &mut Marks, whole: &HashSet<ObjectId>, kept: &HashSet<ObjectId>) -> Vec<PackUse> {
        self.with_index(|index| {
            index.settle(marks, whole, kept);
            index.uses(marks)
        })
    }

    /// Opens each needed blob at the place that stays, where another place of it goes: a pack that has rotted unseen must not be
    /// the one that is believed.
    ///
    /// # Errors
    /// The first that does not open.
    pub async fn prove_last_places(
        &self,
        marks: &Marks,
        gone: &HashSet<ObjectId>,
        run: &Run,
    ) -> Result<(), RepositoryError> {
        let last = self.with_index(|index| index.last_places(marks, gone));
        if last.is_empty() {
            return Ok(());
        }
        let task = run.events.task("prove what stays", Unit::Objects, last.len() as u64);
        let opened = last.into_iter().map(|place| async move {
            run.check()?;
            let sealed = self.fetch(&place).await?;
            self.open_at(&place, &sealed).map(drop)
        });
        let mut opened = stream::iter(opened).buffer_unordered(PROVED_AT_ONCE);
        while let Some(opened) = opened.next().await {
            opened?;
            task.add(1);
        }
        Ok(())
    }

    /// Returns what is needed of some packs.
    #[must_use]
    pub fn needed(&self, marks: &Marks, packs: &HashSet<ObjectId>) -> Vec<PackContents> {
        self.with_index(|index| index.contents(packs, |kind, at| marks.of(kind).get(at)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::repository::index::IndexBuilder;
    use crate::repository::pack::PackedBlob;

    fn blob(seed: u8) -> BlobId {
        BlobId::of(&[seed])
    }

    /// A pack named by its number, of blobs of 100 bytes.
    fn pack(number: u8, blobs: &[u8]) -> PackContents {
        let blobs = (0u32..).zip(blobs).map(|(nth, seed)| PackedBlob {
            kind: BlobKind::Data,
            id: blob(*seed),
            offset: nth * 100,
            length: 100,
            plain: None,
        });
        PackContents { id: ObjectId::of(&[number]), blobs: blobs.collect() }
    }

    fn index(packs: &[PackContents]) -> Index {
        let mut builder = IndexBuilder::default();
        for pack in packs {
            builder.add(pack);
        }
        builder.build()
    }

    fn unused(uses: &[PackUse]) -> Vec<u64> {
        uses.iter().map(|pack| pack.bytes_unused / 100).collect()
    }

    #[test]
    fn what_nothing_marks_is_unused() {
        let index = index(&[pack(1, &[1, 2, 3]), pack(2, &[4])]);
        let mut marks = index.marks();
        assert_eq!(index.mark(&mut marks, BlobKind::Data, &blob(2)), Marked::First);
        assert_eq!(index.mark(&mut marks, BlobKind::Data, &blob(2)), Marked::Again);
        assert_eq!(index.mark(&mut marks, BlobKind::Data, &blob(9)), Marked::Unknown);
        assert_eq!(index.mark(&mut marks, BlobKind::Tree, &blob(2)), Marked::Unknown);
        index.settle(&mut marks, &HashSet::new(), &HashSet::new());
        let uses = index.uses(&marks);
        assert_eq!(unused(&uses), [2, 1]);
        assert_eq!(uses[0].blobs_needed, 1);
        assert_eq!(uses[0].size, pack(1, &[1, 2, 3]).size());
        let all = index.packs.iter().copied().collect();
        let needed = index.contents(&all, |kind, at| marks.of(kind).get(at));
        assert_eq!(needed, [PackContents { id: uses[0].id, blobs: vec![pack(1, &[1, 2]).blobs[1]] }]);
    }

    #[test]
    fn a_blob_in_two_packs_is_needed_where_most_else_is() {
        let packs = [pack(1, &[1]), pack(2, &[1, 2, 3])];
        let index = index(&packs);
        let mut marks = index.marks();
        for seed in [1, 2, 3] {
            index.mark(&mut marks, BlobKind::Data, &blob(seed));
        }
        index.settle(&mut marks, &HashSet::new(), &HashSet::new());
        assert_eq!(unused(&index.uses(&marks)), [1, 0]);
    }

    #[test]
    fn a_blob_in_a_pack_that_is_kept_is_needed_there() {
        let packs = [pack(1, &[1]), pack(2, &[1, 2, 3])];
        let index = index(&packs);
        let mut marks = index.marks();
        for seed in [1, 2, 3] {
            index.mark(&mut marks, BlobKind::Data, &blob(seed));
        }
        index.settle(&mut marks, &HashSet::new(), &HashSet::from([packs[0].id]));
        assert_eq!(unused(&index.uses(&marks)), [0, 1]);
    }
    #[test]
    fn a_blob_in_a_pack_that_is_gone_is_needed_in_the_one_that_is_there() {
        let packs = [pack(1, &[1]), pack(2, &[1, 2, 3])];
        let index = index(&packs);
        let mut marks = index.marks();
        for seed in [1, 2, 3] {
            index.mark(&mut marks, BlobKind::Data, &blob(seed));
        }
        let (whole, kept) = (HashSet::from([packs[0].id]), HashSet::from([packs[1].id]));
        index.settle(&mut marks, &whole, &kept);
        assert_eq!(unused(&index.uses(&marks)), [0, 1]);
        let last = index.last_places(&marks, &kept);
        assert_eq!(last.iter().map(|place| place.pack).collect::<Vec<_>>(), [packs[0].id]);
        assert!(index.last_places(&marks, &HashSet::new()).is_empty());
    }
}
