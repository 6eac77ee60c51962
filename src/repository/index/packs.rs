//! All packs of an index, each with its blobs, made one at a time.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::id::ObjectId;
use crate::repository::index::{Index, PackContents};
use crate::repository::pack::{BlobKind, PackedBlob};

/// The packs that an index names. Besides the index, which is shared, it takes four bytes a blob: ten million blobs by pack are 40 MB
/// more, and not a second index.
#[derive(Debug, Clone)]
pub struct Packs {
    index: Arc<Index>,
    /// The places of all entries, pack by pack: those of data as they are, those of trees after them.
    places: Vec<u32>,
    /// Where in `places` each pack begins, and the end.
    starts: Vec<u32>,
    /// Packs that this process has saved since.
    saved: Vec<PackContents>,
}

impl Packs {
    pub(super) fn new(index: Arc<Index>, mut saved: Vec<PackContents>) -> Self {
        let named: HashSet<&ObjectId> = index.packs.iter().collect();
        saved.retain(|pack| !named.contains(&pack.id));
        let mut starts = vec![0u32; index.packs.len() + 1];
        let packs = || index.data.entries.iter().chain(&index.trees.entries).map(|entry| entry.pack as usize);
        for pack in packs() {
            starts[pack + 1] += 1;
        }
        for pack in 1..starts.len() {
            starts[pack] += starts[pack - 1];
        }
        let (mut next, mut places) = (starts.clone(), vec![0u32; index.data.entries.len() + index.trees.entries.len()]);
        for (place, pack) in (0u32..).zip(packs()) {
            places[next[pack] as usize] = place;
            next[pack] += 1;
        }
        Self { index, places, starts, saved }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.index.packs.len() + self.saved.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many blobs lie in all of them.
    #[must_use]
    pub fn blobs(&self) -> usize {
        self.places.len() + self.saved.iter().map(|pack| pack.blobs.len()).sum::<usize>()
    }

    /// Returns the name of a pack, by its number from zero.
    #[must_use]
    pub fn id(&self, number: usize) -> ObjectId {
        self.index.packs.get(number).copied().unwrap_or_else(|| self.saved[number - self.index.packs.len()].id)
    }

    /// Returns a pack with its blobs in the order of their offsets.
    #[must_use]
    pub fn get(&self, number: usize) -> PackContents {
        let Some(id) = self.index.packs.get(number) else {
            return self.saved[number - self.index.packs.len()].clone();
        };
        let range = self.starts[number] as usize..self.starts[number + 1] as usize;
        let mut blobs: Vec<_> = self.places[range].iter().map(|place| self.blob(*place as usize)).collect();
        blobs.sort_unstable_by_key(|blob| blob.offset);
        PackContents { id: *id, blobs }
    }

    fn blob(&self, place: usize) -> PackedBlob {
        let data = &self.index.data.entries;
        match data.get(place) {
            Some(entry) => entry.blob(BlobKind::Data),
            None => self.index.trees.entries[place - data.len()].blob(BlobKind::Tree),
        }
    }

    /// Returns how much memory the loaded index' own does not account for.
    #[cfg(test)]
    pub(super) fn bytes_besides_the_index(&self) -> usize {
        (self.places.capacity() + self.starts.capacity()) * size_of::<u32>()
    }

    /// Goes through all packs; only the one that is looked at is in memory.
    pub fn iter(&self) -> impl Iterator<Item = PackContents> {
        (0..self.len()).map(|number| self.get(number))
    }
}

impl IntoIterator for Packs {
    type Item = PackContents;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { numbers: 0..self.len(), packs: self }
    }
}

/// Goes through packs and owns them.
#[derive(Debug)]
pub struct IntoIter {
    packs: Packs,
    numbers: Range<usize>,
}

impl Iterator for IntoIter {
    type Item = PackContents;

    fn next(&mut self) -> Option<PackContents> {
        self.numbers.next().map(|number| self.packs.get(number))
    }
}
