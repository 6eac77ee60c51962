//! Index files made from packs, where those that named the packs are damaged or gone.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use crate::id::{BlobId, ObjectId};
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::repository::read::Headers;
use crate::repository::{Location, PackContents, Repository, document, index};
use crate::run::Run;
use crate::store::{FileKind, Key};

impl Repository {
    /// Loads the index, and reads the headers of all packs that no index file names: of an index file that is gone these are the only
    /// trace. What a killed run left is among them.
    ///
    /// # Errors
    /// Like [`Repository::load_index`].
    pub async fn load_index_and_headers(&self, run: &Run) -> Result<(), RepositoryError> {
        self.load_index_reading(Headers::Always, run).await
    }

    /// Returns the packs that were found without an index file that can be read: the loaded index has them from their own headers.
    pub(crate) fn packs_without_index(&self) -> Vec<ObjectId> {
        let unnamed = self.unnamed.lock().unwrap_or_else(PoisonError::into_inner);
        unnamed.iter().map(|pack| pack.id).collect()
    }

    /// Writes index files for the packs that were found without one, so that a damaged index file is worth nothing any more and
    /// copies are whole again. Returns how many packs they name; one that adds nothing to the others is not named.
    ///
    /// # Errors
    /// Where the store refuses, or the lock was lost.
    pub async fn save_recovered_index(&self) -> Result<usize, RepositoryError> {
        self.save_index_for(&HashSet::new()).await
    }

    /// Like [`Repository::save_recovered_index`], for blobs that are needed and lost: a pack that says it holds some is named only if one
    /// of them opens there. One that was given up lies there until it is deleted, and its header promises what it does not hold.
    ///
    /// # Errors
    /// Like [`Repository::save_recovered_index`].
    pub(crate) async fn save_index_for(&self, lost: &HashSet<(BlobKind, BlobId)>) -> Result<usize, RepositoryError> {
        let unnamed = self.unnamed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut named = Vec::new();
        for pack in self.worth_naming(&unnamed).await? {
            if self.keeps_its_word(&pack, lost).await? {
                named.push(pack);
            }
        }
        self.save_index_of(&named).await?;
        self.unnamed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(named.len())
    }

    /// Writes index files that name packs which are durable.
    pub(super) async fn save_index_of(&self, packs: &[PackContents]) -> Result<(), RepositoryError> {
        for packs in index::files_of(packs) {
            self.check_lock()?;
            let json = index::print(packs).map_err(|error| RepositoryError::refused("index", error))?;
            document::save(&self.store, &self.master, FileKind::Index, &json).await?;
        }
        Ok(())
    }

    /// Returns the damaged index files that are worth nothing any more, because every pack that is here is named by one that can be
    /// read, or adds nothing to those.
    pub(crate) fn worthless_index_files(&self) -> Vec<Key> {
        let faults: Vec<Key> = self.index_faults().into_iter().map(|fault| fault.object).collect();
        let is_complete = self.packs_without_index().is_empty() && faults.iter().all(|key| key.kind == FileKind::Index);
        if is_complete { faults } else { Vec::new() }
    }

    async fn keeps_its_word(
        &self,
        pack: &PackContents,
        lost: &HashSet<(BlobKind, BlobId)>,
    ) -> Result<bool, RepositoryError> {
        let mut promises_any = false;
        for blob in pack.blobs.iter().copied() {
            if lost.contains(&(blob.kind, blob.id)) {
                promises_any = true;
                if self.opens(&Location { pack: pack.id, blob }).await? {
                    return Ok(true);
                }
            }
        }
        Ok(!promises_any)
    }

    /// Returns the packs that hold anything that no named pack holds: of two that hold the same both, because one may be bad inside.
    async fn worth_naming(&self, unnamed: &[PackContents]) -> Result<Vec<PackContents>, RepositoryError> {
        let open: HashSet<ObjectId> = unnamed.iter().map(|pack| pack.id).collect();
        // A pack that is named and gone, or cut, holds nothing for others.
        let listed = self.store.list(FileKind::Pack).await?;
        let listed: HashSet<_> = listed.into_iter().map(|listed| (listed.name, listed.size)).collect();
        let mut whole = self.pack_sizes();
        whole.retain(|(id, size)| listed.contains(&(id.to_string(), *size)));
        let whole: HashSet<ObjectId> = whole.into_iter().map(|(id, _)| id).collect();
        let wrong = self.wrong_twins(unnamed).await?;
        let is_elsewhere =
            |kind, id: &BlobId| self.is_in(kind, id, |other| whole.contains(other) && !open.contains(other));
        let adds = |pack: &&PackContents| !pack.blobs.iter().all(|blob| is_elsewhere(blob.kind, &blob.id));
        Ok(unnamed.iter().filter(|pack| !wrong.contains(&pack.id)).filter(adds).cloned().collect())
    }

    /// Of packs that say they hold the very same, as a pack and its twin under a wrong name do, returns those whose bytes do not
    /// hash to their name while another's do. Only these are read whole: of all others a header cannot lie.
    async fn wrong_twins(&self, packs: &[PackContents]) -> Result<HashSet<ObjectId>, RepositoryError> {
        let looks = |pack: &PackContents| (pack.blobs.first().map(|blob| blob.id), pack.blobs.len(), pack.size());
        let mut alike: HashMap<_, Vec<ObjectId>> = HashMap::new();
        for pack in packs {
            alike.entry(looks(pack)).or_default().push(pack.id);
        }
        let mut wrong = HashSet::new();
        for twins in alike.into_values().filter(|twins| twins.len() > 1) {
            let (mut odd, of) = (Vec::new(), twins.len());
            for id in twins {
                let hashed = self.store.hash(&Key::new(FileKind::Pack, id.to_string())).await;
                match hashed.map_err(RepositoryError::from) {
                    Ok(actual) if actual == id => {}
                    Err(error) if !error.is_damage() => return Err(error),
                    Ok(_) | Err(_) => odd.push(id),
                }
            }
            if odd.len() < of {
                wrong.extend(odd);
            }
        }
        Ok(wrong)
    }
}
