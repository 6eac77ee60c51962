//! Gives damaged packs up: what still reads of them and lies nowhere else moves into new packs, and the index no longer names the
//! rest. Where something that is needed goes with it, a backup then stores it again if the source still has it, instead of relying
//! on bytes that nobody can read.

use std::collections::HashSet;
use std::sync::Arc;

use crate::id::{BlobId, ObjectId};
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::marks::Marks;
use crate::repository::pack::BlobKind;
use crate::repository::{Location, PackContents, Repository};
use crate::run::Run;
use crate::seal;
use crate::store::{FileKind, Key, StoreError};

/// What became of a damaged pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    pub pack: ObjectId,
    pub blobs: u64,
    /// Blobs that no pack holds whole any more.
    pub lost: u64,
}

/// A salvage that is proved. What it makes superfluous is still there.
#[derive(Debug, Default)]
pub struct Salvage {
    pub packs: Vec<Salvaged>,
    /// Bytes in new packs.
    pub bytes: u64,
    /// Index files that name the damaged packs: others are in their place.
    pub old_indexes: Vec<String>,
    /// Packs of which nothing could be read: it may be their rights, or a cable, and not their bytes. They stay as they are.
    pub unread: Vec<ObjectId>,
    /// Packs that hold what is needed and what nothing here gives. They stay as they are.
    pub needed: Vec<ObjectId>,
}

/// What is left of a damaged pack.
pub(super) struct Remains {
    /// What opens in it, and in no pack that stays.
    pub(super) readable: PackContents,
    /// What opens nowhere.
    pub(super) lost: Vec<(BlobKind, BlobId)>,
    /// Whether the store refused each byte of it.
    is_silent: bool,
}

impl Repository {
    /// Moves what still reads of damaged packs, and names none of them any more; with `needed`, only of those that nothing needed is
    /// lost with. Under an exclusive lock; the index is loaded.
    ///
    /// # Errors
    /// Where the store refuses, or what is to stay could not be proved. Then nothing has changed but what no index names.
    pub async fn salvage(
        &self,
        damaged: &HashSet<ObjectId>,
        needed: Option<&Marks>,
        run: &Run,
    ) -> Result<Salvage, RepositoryError> {
        let (mut salvage, mut remains) = (Salvage::default(), Vec::new());
        for pack in self.contents_of(damaged) {
            run.check()?;
            remains.push((pack.blobs.len() as u64, self.remains(&pack, damaged).await?));
        }
        // A blob that one damaged pack has lost may be whole in another.
        let readable = remains.iter().flat_map(|(_, remains)| &remains.readable.blobs);
        let readable: HashSet<_> = readable.map(|blob| (blob.kind, blob.id)).collect();
        let (mut gone, mut lost, mut kept) = (HashSet::new(), HashSet::new(), Vec::new());
        for (blobs, mut remains) in remains {
            remains.lost.retain(|blob| !readable.contains(blob));
            let pack = remains.readable.id;
            match needed {
                None if remains.is_silent => salvage.unread.push(pack),
                Some(needed) if remains.lost.iter().any(|(kind, id)| self.is_marked(needed, *kind, id)) => {
                    salvage.needed.push(pack);
                }
                _ => {
                    gone.insert(pack);
                    salvage.packs.push(Salvaged { pack, blobs, lost: remains.lost.len() as u64 });
                    lost.extend(remains.lost);
                    kept.extend(Some(remains.readable).filter(|readable| !readable.blobs.is_empty()));
                }
            }
        }
        if salvage.packs.is_empty() {
            return Ok(salvage);
        }
        let written = self.repack(&kept, run).await?;
        salvage.bytes = written.iter().map(PackContents::size).sum();
        let reindexed = self.reindex(&gone, &written, false, run).await?;
        let mut marks = self.with_index(|index| index.marks_but(&lost));
        let whole = self.pack_sizes().into_iter().map(|(id, _)| id).filter(|id| !gone.contains(id)).collect();
        self.uses(&mut marks, &whole, &HashSet::new());
        self.prove_reindexed(&reindexed, &gone, &marks).await?;
        salvage.old_indexes = reindexed.old;
        Ok(salvage)
    }

    /// Sorts the blobs of a damaged pack: those that open in it and in no pack that stays, and those that open nowhere.
    pub(super) async fn remains(
        &self,
        pack: &PackContents,
        damaged: &HashSet<ObjectId>,
    ) -> Result<Remains, RepositoryError> {
        let key = Key::new(FileKind::Pack, pack.id.to_string());
        let got = self.store.get(&key).await;
        let mut is_silent = matches!(got, Err(StoreError::Unreadable { .. }));
        let is_there = !matches!(got, Err(StoreError::Missing { .. }));
        let bytes = match got.map_err(RepositoryError::from) {
            Err(error) if !error.is_damage() => return Err(error),
            got => got.unwrap_or_default(),
        };
        let (master, blobs) = (Arc::clone(&self.master), pack.blobs.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let opens = |blob: &crate::repository::PackedBlob| {
                let sealed = bytes.get(place(blob.range().start)..place(blob.range().end));
                sealed.is_some_and(|sealed| seal::open(&master, &blob.id, sealed, blob.plain).is_ok())
            };
            blobs.iter().map(opens).collect::<Vec<bool>>()
        });
        let opened = opened.await.map_err(|error| RepositoryError::refused("blobs", error))?;
        let (mut readable, mut lost) = (PackContents { id: pack.id, blobs: Vec::new() }, Vec::new());
        for (blob, opens) in pack.blobs.iter().zip(opened) {
            let here = Location { pack: pack.id, blob: *blob };
            if self.opens_in_other(&here, damaged).await? {
                continue;
            }
            // Alone it may come where the pack as a whole lies on a bad sector.
            if opens || is_there && self.opens(&here).await? {
                is_silent = false;
                readable.blobs.push(*blob);
            } else {
                lost.push((blob.kind, blob.id));
            }
        }
        Ok(Remains { readable, lost, is_silent })
    }

    async fn opens_in_other(&self, here: &Location, damaged: &HashSet<ObjectId>) -> Result<bool, RepositoryError> {
        for other in self.locations(here.blob.kind, &here.blob.id) {
            if !damaged.contains(&other.pack) && self.opens(&other).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn opens(&self, place: &Location) -> Result<bool, RepositoryError> {
        let opened = self.fetch(place).await.and_then(|sealed| self.open_at(place, &sealed));
        match opened {
            Ok(_) => Ok(true),
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Index {
    /// Returns marks for every blob but some.
    fn marks_but(&self, lost: &HashSet<(BlobKind, BlobId)>) -> Marks {
        let mut marks = self.marks();
        for kind in [BlobKind::Data, BlobKind::Tree] {
            for entry in &self.section(kind).entries {
                let id = entry.blob(kind).id;
                if !lost.contains(&(kind, id)) {
                    self.mark(&mut marks, kind, &id);
                }
            }
        }
        marks
    }
}
