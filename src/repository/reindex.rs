//! Puts new index files in the place of old ones, and proves the new before anything old is deleted.

use std::collections::HashSet;
use std::sync::PoisonError;

use crate::event::Unit;
use crate::id::ObjectId;
use crate::repository::error::RepositoryError;
use crate::repository::index::{self, IndexBuilder};
use crate::repository::marks::Marks;
use crate::repository::pack::BlobKind;
use crate::repository::{PackContents, Repository, document};
use crate::run::Run;
use crate::store::{FileKind, Key};

/// More small index files than this are put together.
const FILES_MAX: usize = 32;

/// An index file that holds fewer packs than this is a small one: each run leaves one for each source.
const SMALL_PACKS: usize = 64;

/// Index files that took another's place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reindexed {
    /// Names of the old ones, to be deleted.
    pub old: Vec<String>,
    pub new: Vec<String>,
}

impl Repository {
    /// Writes index files that name `added` and no pack of `gone`, in the place of those that name one of `gone`, and with `merges`
    /// in the place of small ones where these are many. The old ones are still there.
    ///
    /// # Errors
    /// Where the store refuses or the lock was lost.
    pub async fn reindex(
        &self,
        gone: &HashSet<ObjectId>,
        added: &[PackContents],
        merges: bool,
        run: &Run,
    ) -> Result<Reindexed, RepositoryError> {
        let (old, kept) = self.files_to_replace(gone, merges);
        let mut contents = self.with_index(|index| index.contents(&kept, |_, _| true));
        contents.extend_from_slice(added);
        if contents.is_empty() {
            return Ok(Reindexed { old, new: Vec::new() });
        }
        let task = run.events.task("write index", Unit::Objects, index::files_of(&contents).count() as u64);
        let mut new = Vec::new();
        for packs in index::files_of(&contents) {
            run.check()?;
            self.check_lock()?;
            let json = index::print(packs).map_err(|error| RepositoryError::refused("index", error))?;
            let id = document::save(&self.store, &self.master, FileKind::Index, &json).await?;
            new.push(id.to_string());
            task.add(1);
        }
        // A file that came out as it was stays.
        let old = old.into_iter().filter(|name| !new.contains(name)).collect();
        Ok(Reindexed { old, new })
    }

    /// Proves by reading the new index files back that every blob that is needed is named by a file that stays, in a pack that
    /// stays.
    ///
    /// # Errors
    /// [`RepositoryError::MissingBlob`]: then nothing may be deleted.
    pub async fn prove_reindexed(
        &self,
        reindexed: &Reindexed,
        gone: &HashSet<ObjectId>,
        marks: &Marks,
    ) -> Result<(), RepositoryError> {
        let mut after = IndexBuilder::default();
        for name in &reindexed.new {
            let json = document::load(&*self.store, &self.master, FileKind::Index, name).await?;
            let damaged = |error| RepositoryError::damaged(Key::new(FileKind::Index, name), error);
            after.add_file(name.clone(), &index::parse(&json).map_err(damaged)?);
        }
        let after = after.build();
        let live = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let before = live.loaded();
        let stay = before.packs_named_beside(&reindexed.old, gone);
        for kind in [BlobKind::Data, BlobKind::Tree] {
            let bits = marks.of(kind);
            let entries = before.section(kind).entries.iter().enumerate();
            for (_, entry) in entries.filter(|(at, _)| bits.get(*at)) {
                let blob = entry.blob(kind);
                let is_named = stay.contains(&entry.pack)
                    || after.find(kind, &blob.id).any(|location| !gone.contains(&location.pack));
                if !is_named {
                    return Err(RepositoryError::MissingBlob { kind, id: blob.id });
                }
            }
        }
        Ok(())
    }

    /// Returns the index files that name any of these packs, each with those that it names.
    #[must_use]
    pub fn index_files_naming(&self, wanted: &HashSet<ObjectId>) -> Vec<(String, Vec<ObjectId>)> {
        let live = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let index = live.loaded();
        let named = index.files.iter().map(|file| {
            let packs = file.packs.iter().map(|pack| index.packs[*pack as usize]);
            (file.name.clone(), packs.filter(|pack| wanted.contains(pack)).collect::<Vec<_>>())
        });
        named.filter(|(_, packs)| !packs.is_empty()).collect()
    }

    /// Returns the index files that name any of these packs.
    pub(crate) fn index_files_of(&self, packs: &HashSet<ObjectId>) -> Vec<Key> {
        let (names, _) = self.files_to_replace(packs, false);
        names.into_iter().map(|name| Key::new(FileKind::Index, name)).collect()
    }

    /// Returns the index files that have to go, and the packs that they name and that stay.
    fn files_to_replace(&self, gone: &HashSet<ObjectId>, merges: bool) -> (Vec<String>, HashSet<ObjectId>) {
        let live = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let index = live.loaded();
        let small = index.files.iter().filter(|file| file.packs.len() < SMALL_PACKS).count();
        let merges = merges && small > FILES_MAX;
        let (mut old, mut kept) = (Vec::new(), HashSet::new());
        for file in &index.files {
            let packs = || file.packs.iter().map(|pack| index.packs[*pack as usize]);
            let has_gone = packs().any(|pack| gone.contains(&pack));
            if has_gone || merges && file.packs.len() < SMALL_PACKS {
                old.push(file.name.clone());
                kept.extend(packs().filter(|pack| !gone.contains(pack)));
            }
        }
        (old, kept)
    }
}
