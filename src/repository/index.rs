//! The index: which pack holds which blob. Sorted by id in 48 bytes a blob, so that ten million blobs take half a gigabyte.

mod file;
mod packs;

use std::collections::{HashMap, HashSet};
use std::mem;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use rayon::slice::ParallelSliceMut;

pub(super) use crate::repository::index::file::{BLOBS_MAX, files_of, parse, print};
pub use crate::repository::index::packs::Packs;

use crate::id::{BlobId, ObjectId};
use crate::repository::pack::{self, BlobKind, PackedBlob};

/// A pack and the blobs in it, as an index file lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackContents {
    pub id: ObjectId,
    pub blobs: Vec<PackedBlob>,
}

impl PackContents {
    /// Returns how long the pack must be: its blobs and the header that lists them.
    #[must_use]
    pub fn size(&self) -> u64 {
        pack::size_of(&self.blobs)
    }
}

/// Where a blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    pub pack: ObjectId,
    pub blob: PackedBlob,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    id: [u8; 32],
    /// Place in the list of packs.
    pub(super) pack: u32,
    offset: u32,
    pub(super) length: u32,
    /// Zero where the blob is not compressed.
    pub(super) plain: u32,
}

impl Entry {
    fn new(blob: &PackedBlob, pack: u32) -> Self {
        Self { id: *blob.id.as_bytes(), pack, offset: blob.offset, length: blob.length, plain: blob.plain.unwrap_or(0) }
    }

    /// Returns the first bytes of the id, which sort as the id does.
    fn beginning(&self) -> u64 {
        self.id.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    pub(super) fn blob(&self, kind: BlobKind) -> PackedBlob {
        PackedBlob {
            kind,
            id: BlobId::from_bytes(self.id),
            offset: self.offset,
            length: self.length,
            plain: (self.plain != 0).then_some(self.plain),
        }
    }
}

/// The blobs of one kind, sorted by id, with a table from an id's first bits to where to look.
#[derive(Debug, Clone, Default)]
pub(super) struct Section {
    pub(super) entries: Vec<Entry>,
    starts: Vec<u32>,
    bits: u32,
}

impl Section {
    fn new(mut entries: Vec<Entry>) -> Self {
        // Two ids rarely begin alike: one comparison of numbers decides, where one of all bytes took twice as long.
        entries.par_sort_unstable_by(|a, b| a.beginning().cmp(&b.beginning()).then_with(|| a.cmp(b)));
        entries.dedup();
        entries.shrink_to_fit();
        // Some eight entries a slot.
        let bits = (entries.len() / 8).checked_ilog2().unwrap_or(0).min(24);
        let mut section = Self { entries, starts: Vec::new(), bits };
        section.starts = section.count_starts();
        section
    }

    fn count_starts(&self) -> Vec<u32> {
        let mut starts = vec![0u32; (1 << self.bits) + 1];
        for entry in &self.entries {
            starts[self.slot(&entry.id) + 1] += 1;
        }
        for slot in 1..starts.len() {
            starts[slot] += starts[slot - 1];
        }
        starts
    }

    fn slot(&self, id: &[u8; 32]) -> usize {
        let first = id.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let slot = u64::from(first) >> (32 - self.bits);
        usize::try_from(slot).unwrap_or_default()
    }

    /// Returns all places of a blob: more than one where writers met.
    pub(super) fn places(&self, id: &[u8; 32]) -> Range<usize> {
        let slot = self.slot(id);
        let (Some(start), Some(end)) = (self.starts.get(slot), self.starts.get(slot + 1)) else {
            return 0..0;
        };
        let start = *start as usize;
        let near = &self.entries[start..*end as usize];
        let first = near.partition_point(|entry| entry.id < *id);
        let same = near[first..].iter().take_while(|entry| entry.id == *id).count();
        start + first..start + first + same
    }

    fn find(&self, id: &[u8; 32]) -> &[Entry] {
        &self.entries[self.places(id)]
    }

    /// Returns the places of each blob, one blob after the other.
    pub(super) fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        self.entries.chunk_by(|a, b| a.id == b.id).map(move |same| {
            let places = start..start + same.len();
            start = places.end;
            places
        })
    }
}

/// An index file, and the packs that it names by their places in the list of packs.
#[derive(Debug, Clone)]
pub(super) struct NamedFile {
    pub(super) name: String,
    pub(super) packs: Vec<u32>,
}

/// All that the index files say.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub(super) packs: Vec<ObjectId>,
    pub(super) files: Vec<NamedFile>,
    data: Section,
    trees: Section,
    /// Places in the section of trees, in the order in which the trees lie in packs; sorted when it is first asked for.
    trees_by_place: OnceLock<Vec<u32>>,
}

/// Gathers the contents of many index files. Its lists double as they grow, but memory does not: the allocator moves pages, and those
/// that were never written to are not there. Ten million blobs need 592 MiB at the peak and 576 when they are loaded, what the
/// threads that read the files keep included.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    packs: Vec<ObjectId>,
    files: Vec<NamedFile>,
    places: HashMap<ObjectId, u32>,
    data: Vec<Entry>,
    trees: Vec<Entry>,
}

impl IndexBuilder {
    /// Adds all that an index file says.
    pub(super) fn add_file(&mut self, name: String, packs: &[PackContents]) {
        let packs = packs.iter().map(|pack| self.add(pack)).collect();
        self.files.push(NamedFile { name, packs });
    }

    /// Adds a pack, and returns its place in the list of packs.
    pub(super) fn add(&mut self, pack: &PackContents) -> u32 {
        let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        let place = *self.places.entry(pack.id).or_insert_with(|| {
            self.packs.push(pack.id);
            next
        });
        for blob in &pack.blobs {
            let entries = match blob.kind {
                BlobKind::Data => &mut self.data,
                BlobKind::Tree => &mut self.trees,
            };
            entries.push(Entry::new(blob, place));
        }
        place
    }

    pub(super) fn has_pack(&self, id: &ObjectId) -> bool {
        self.places.contains_key(id)
    }

    /// Sorts. Takes a second for some millions of blobs.
    pub(super) fn build(self) -> Index {
        let (data, trees) = (Section::new(self.data), Section::new(self.trees));
        Index { packs: self.packs, files: self.files, data, trees, trees_by_place: OnceLock::new() }
    }
}

impl Index {
    pub(super) fn section(&self, kind: BlobKind) -> &Section {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    /// Returns every place of a blob.
    pub(super) fn find(&self, kind: BlobKind, id: &BlobId) -> impl Iterator<Item = Location> {
        let entries = self.section(kind).find(id.as_bytes());
        entries.iter().map(move |entry| self.location(kind, entry))
    }

    pub(super) fn location(&self, kind: BlobKind, entry: &Entry) -> Location {
        Location { pack: self.packs[entry.pack as usize], blob: entry.blob(kind) }
    }

    /// Returns the stretch of the pack that holds the trees around this one: all that begin in the same `block` bytes.
    fn trees_near(&self, location: &Location, block: u32) -> Option<Range<u64>> {
        let entries = &self.trees.entries;
        let here = |entry: &&Entry| self.location(BlobKind::Tree, entry) == *location;
        let here = self.trees.find(location.blob.id.as_bytes()).iter().find(here)?;
        let place = |at: &u32| (entries[*at as usize].pack, entries[*at as usize].offset);
        let sorted = self.trees_by_place.get_or_init(|| {
            let mut sorted: Vec<u32> = (0..u32::try_from(entries.len()).unwrap_or(u32::MAX)).collect();
            sorted.par_sort_unstable_by_key(place);
            sorted
        });
        let start = (here.pack, here.offset / block * block);
        let first = sorted.partition_point(|at| place(at) < start);
        let is_near = |at: &&u32| place(at).0 == here.pack && place(at).1 / block == here.offset / block;
        let near =
            sorted[first..].iter().take_while(is_near).map(|at| entries[*at as usize].blob(BlobKind::Tree).range());
        near.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
    }

    /// Drops what it says of some packs.
    fn leave_out(&mut self, packs: &HashSet<ObjectId>) {
        let places: HashSet<u32> =
            (0u32..).zip(&self.packs).filter(|(_, id)| packs.contains(id)).map(|it| it.0).collect();
        for section in [&mut self.data, &mut self.trees] {
            let mut entries = mem::take(&mut section.entries);
            entries.retain(|entry| !places.contains(&entry.pack));
            *section = Section::new(entries);
        }
        self.trees_by_place = OnceLock::new();
    }

    fn sizes(&self) -> Vec<(ObjectId, u64)> {
        let mut sizes = vec![pack::size_of(&[]); self.packs.len()];
        for entry in self.data.entries.iter().chain(&self.trees.entries) {
            sizes[entry.pack as usize] += pack::share_of(entry.length, entry.plain != 0);
        }
        self.packs.iter().copied().zip(sizes).collect()
    }
}

/// What the index files said when they were loaded, and what this process has saved since.
///
/// What was saved is found by a hash map of some 100 bytes a blob; as it grows, it is sorted in with what was saved before, so that a
/// first backup of ten million files ends with an index like a loaded one.
#[derive(Debug, Default)]
pub(super) struct LiveIndex {
    loaded: Arc<Index>,
    /// Saved and sorted; its packs are all that were saved.
    saved: Index,
    newest: Newest,
}

/// Blobs that were saved and are not sorted in yet.
#[derive(Debug, Default)]
struct Newest {
    data: HashMap<[u8; 32], Spot>,
    trees: HashMap<[u8; 32], Spot>,
}

/// An entry without its id, which is the key.
#[derive(Debug, Clone, Copy)]
struct Spot {
    pack: u32,
    offset: u32,
    length: u32,
    plain: u32,
}

/// So many blobs are in the hash map before they are sorted in, or a quarter of what is sorted: each is sorted a few times at most.
const NEWEST_MIN: usize = 1 << 16;
const NEWEST_SHARE: usize = 4;

impl Newest {
    fn of(&self, kind: BlobKind) -> &HashMap<[u8; 32], Spot> {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    fn of_mut(&mut self, kind: BlobKind) -> &mut HashMap<[u8; 32], Spot> {
        match kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        }
    }

    fn len(&self) -> usize {
        self.data.len() + self.trees.len()
    }
}

impl Spot {
    fn entry(self, id: [u8; 32]) -> Entry {
        let Self { pack, offset, length, plain } = self;
        Entry { id, pack, offset, length, plain }
    }
}

impl LiveIndex {
    /// Returns what the index files said.
    pub(super) fn loaded(&self) -> &Index {
        &self.loaded
    }

    pub(super) fn replace(&mut self, index: Index) {
        self.loaded = Arc::new(index);
    }

    /// Drops what is known of some packs.
    pub(super) fn leave_out(&mut self, packs: &HashSet<ObjectId>) {
        Arc::make_mut(&mut self.loaded).leave_out(packs);
        self.saved.leave_out(packs);
        let saved_packs = &self.saved.packs;
        for newest in [&mut self.newest.data, &mut self.newest.trees] {
            newest.retain(|_, spot| !packs.contains(&saved_packs[spot.pack as usize]));
        }
    }

    /// Returns the packs that the loaded files name, and how long each must be.
    pub(super) fn loaded_sizes(&self) -> Vec<(ObjectId, u64)> {
        self.loaded.sizes()
    }

    /// Adds a pack that an index file on the store names.
    pub(super) fn add(&mut self, pack: &PackContents) {
        let place = u32::try_from(self.saved.packs.len()).unwrap_or(u32::MAX);
        self.saved.packs.push(pack.id);
        for blob in &pack.blobs {
            let Entry { id, pack, offset, length, plain } = Entry::new(blob, place);
            self.newest.of_mut(blob.kind).insert(id, Spot { pack, offset, length, plain });
        }
        let sorted = self.saved.data.entries.len() + self.saved.trees.entries.len();
        if self.newest.len() > NEWEST_MIN.max(sorted / NEWEST_SHARE) {
            self.sort_in();
        }
    }

    fn sort_in(&mut self) {
        let Newest { data, trees } = mem::take(&mut self.newest);
        for (section, newest) in [(&mut self.saved.data, data), (&mut self.saved.trees, trees)] {
            if !newest.is_empty() {
                let mut entries = mem::take(&mut section.entries);
                entries.extend(newest.into_iter().map(|(id, spot)| spot.entry(id)));
                *section = Section::new(entries);
            }
        }
    }

    fn find_newest(&self, kind: BlobKind, id: &BlobId) -> Option<Location> {
        let spot = self.newest.of(kind).get(id.as_bytes())?;
        Some(self.saved.location(kind, &spot.entry(*id.as_bytes())))
    }

    pub(super) fn find(&self, kind: BlobKind, id: &BlobId) -> Vec<Location> {
        let mut found: Vec<_> = self.loaded.find(kind, id).collect();
        for saved in self.saved.find(kind, id).chain(self.find_newest(kind, id)) {
            if !found.contains(&saved) {
                found.push(saved);
            }
        }
        found
    }

    pub(super) fn first(&self, kind: BlobKind, id: &BlobId) -> Option<Location> {
        let sorted = || self.loaded.find(kind, id).chain(self.saved.find(kind, id)).next();
        sorted().or_else(|| self.find_newest(kind, id))
    }

    /// Returns the stretch of the pack to read where a tree is wanted: its neighbours will be wanted too.
    pub(super) fn trees_near(&self, location: &Location, block: u32) -> Range<u64> {
        self.loaded.trees_near(location, block).unwrap_or_else(|| location.blob.range())
    }

    pub(super) fn has(&self, kind: BlobKind, id: &BlobId) -> bool {
        let is_in = |index: &Index| !index.section(kind).find(id.as_bytes()).is_empty();
        is_in(&self.loaded) || is_in(&self.saved) || self.newest.of(kind).contains_key(id.as_bytes())
    }

    /// Returns all packs, those saved since included.
    pub(super) fn by_pack(&self) -> Packs {
        let empty = |id: &ObjectId| PackContents { id: *id, blobs: Vec::new() };
        let mut saved: Vec<_> = self.saved.packs.iter().map(empty).collect();
        for kind in [BlobKind::Data, BlobKind::Tree] {
            let newest = self.newest.of(kind).iter().map(|(id, spot)| spot.entry(*id));
            for entry in self.saved.section(kind).entries.iter().copied().chain(newest) {
                saved[entry.pack as usize].blobs.push(entry.blob(kind));
            }
        }
        for pack in &mut saved {
            pack.blobs.sort_unstable_by_key(|blob| blob.offset);
        }
        // A pack that was saved and then left out has no blob here any more.
        saved.retain(|pack| !pack.blobs.is_empty());
        Packs::new(Arc::clone(&self.loaded), saved)
    }
}

#[cfg(test)]
mod tests;
