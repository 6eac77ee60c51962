//! Brings blobs over from another store of the same repository, in whichever packs they lie there, into new packs here.

use std::collections::HashSet;

use crate::event::Unit;
use crate::id::{BlobId, ObjectId};
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::repository::repack::{Unread, bytes_of};
use crate::repository::{PackContents, Repository, Wanted};
use crate::run::Run;

/// Stored bytes that are brought over before an index file names them: what a kill may take of the work.
const TURN_BYTES: u64 = 1 << 30;

/// Blobs that opened nowhere in a store, of one pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) pack: ObjectId,
    pub(crate) blobs: Vec<(BlobKind, BlobId)>,
}

/// Blobs that came.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Each with its length as stored.
    pub(crate) blobs: Vec<(BlobKind, BlobId, u32)>,
    /// Why not all were asked for.
    pub(crate) broken: Option<RepositoryError>,
}

impl Repository {
    /// Copies those of these blobs that open in another store, whose index is loaded, and names them in new index files: each proved
    /// before it is written, and each pack before it is named. In memory are what is wanted, some stretches of 8 MiB, and the
    /// packs that grow. Under a lock.
    ///
    /// # Errors
    /// Where this store refuses, the lock was lost, or the run was stopped. What was named before stays.
    pub(crate) async fn gather(
        &self,
        from: &Self,
        blobs: impl IntoIterator<Item = (BlobKind, BlobId)>,
        run: &Run,
    ) -> Result<Gathered, RepositoryError> {
        let places = blobs.into_iter().filter_map(|(kind, id)| Some((from.locate(kind, &id)?, ())));
        let mut wanted: Vec<Wanted<()>> = places.collect();
        wanted.sort_by_key(|(location, ())| (location.pack, location.blob.offset));
        let task = run.events.task("gather", Unit::Bytes, bytes_of(&wanted));
        let mut gathered = Gathered::default();
        for turn in turns(&wanted) {
            let copied = self.copy_blobs(from, turn, Unread::IsLeft, &task, run).await?;
            self.save_index_of(&copied.written).await?;
            let came = copied.written.iter().flat_map(|pack| &pack.blobs);
            gathered.blobs.extend(came.map(|blob| (blob.kind, blob.id, blob.length)));
            if copied.broken.is_some() {
                gathered.broken = copied.broken;
                break;
            }
        }
        Ok(gathered)
    }

    /// Returns what of some packs opens nowhere in this store, pack by pack.
    ///
    /// # Errors
    /// Where the store cannot be read now.
    pub(crate) async fn lost_in(&self, damaged: &HashSet<ObjectId>, run: &Run) -> Result<Vec<Lost>, RepositoryError> {
        let (mut packs, mut readable) = (Vec::new(), HashSet::new());
        for pack in self.contents_of(damaged) {
            run.check()?;
            let remains = self.remains(&pack, damaged).await?;
            readable.extend(remains.readable.blobs.iter().map(|blob| (blob.kind, blob.id)));
            packs.push(Lost { pack: pack.id, blobs: remains.lost });
        }
        // A blob that one damaged pack has lost may be whole in another.
        for pack in &mut packs {
            pack.blobs.retain(|blob| !readable.contains(blob));
        }
        Ok(packs)
    }

    pub(super) fn contents_of(&self, packs: &HashSet<ObjectId>) -> Vec<PackContents> {
        self.with_index(|index| index.contents(packs, |_, _| true))
    }
}

/// Cuts what is wanted into parts that an index file each is written for.
fn turns(wanted: &[Wanted<()>]) -> impl Iterator<Item = &[Wanted<()>]> {
    let mut bytes = 0;
    wanted.chunk_by(move |(before, ()), _| {
        bytes += u64::from(before.blob.length);
        let is_full = bytes >= TURN_BYTES;
        if is_full {
            bytes = 0;
        }
        !is_full
    })
}
