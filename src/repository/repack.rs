//! Copies what is needed of some packs into new ones, from this store or from another of the same repository. The sealed bytes go over
//! as they are, once they have been opened and proved.

use std::iter;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::event::{Task, Unit};
use crate::repository::error::RepositoryError;
use crate::repository::fetch::{Wanted, fetch, stretches};
use crate::repository::pack::{self, BlobKind, PackBuilder, PackedBlob};
use crate::repository::{Location, PackContents, Repository, document};
use crate::run::{Run, Stopped};
use crate::seal::{self, MasterKey};
use crate::store::{FileKind, Key};

/// Stretches of packs that are fetched ahead, of 8 MiB at most.
const FETCHED_AHEAD: usize = 4;

/// What becomes of a blob that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It ends the work.
    Fails,
    /// The others are copied without it.
    IsLeft,
}

/// Blobs that were copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// New packs, which are durable and proved.
    pub(super) written: Vec<PackContents>,
    /// What kept the rest from being read, where the store they come from failed and not some of them.
    pub(super) broken: Option<RepositoryError>,
}

/// New packs on their way.
struct Repacker<'a> {
    repository: &'a Repository,
    open: [PackBuilder; 2],
    written: Vec<PackContents>,
}

impl Repository {
    /// Copies blobs into new packs, which are durable and proved when this returns. No index names them yet.
    ///
    /// # Errors
    /// Where a blob does not open in any pack that holds it, where the store refuses, or where the run was stopped. Then what was
    /// written is named by nothing.
    pub async fn repack(&self, packs: &[PackContents], run: &Run) -> Result<Vec<PackContents>, RepositoryError> {
        if packs.is_empty() {
            return Ok(Vec::new());
        }
        let blobs = |pack: &PackContents| {
            let (pack, blobs) = (pack.id, pack.blobs.clone());
            blobs.into_iter().map(move |blob| (Location { pack, blob }, ()))
        };
        let mut wanted: Vec<Wanted<()>> = packs.iter().flat_map(blobs).collect();
        wanted.sort_by_key(|(location, ())| (location.pack, location.blob.offset));
        let task = run.events.task("repack", Unit::Bytes, bytes_of(&wanted));
        Ok(self.copy_blobs(self, &wanted, Unread::Fails, &task, run).await?.written)
    }

    /// Copies blobs that are wanted of `from`, in the order of their places, into new packs here.
    pub(super) async fn copy_blobs(
        &self,
        from: &Self,
        wanted: &[Wanted<()>],
        unread: Unread,
        task: &Task,
        run: &Run,
    ) -> Result<Copied, RepositoryError> {
        let (mut repacker, mut broken) = (Repacker::new(self), None);
        let fetched = stretches(wanted).into_iter().map(|stretch| async move {
            let bytes = fetch(Arc::clone(&from.store), stretch.clone()).await;
            (stretch, bytes)
        });
        let mut fetched = stream::iter(fetched).buffered(FETCHED_AHEAD);
        while let Some((stretch, bytes)) = run.cancel.run_until_cancelled(fetched.next()).await.ok_or(Stopped)? {
            self.check_lock()?;
            let places = wanted[stretch.wanted].iter().map(|(location, ())| *location).collect();
            let proved = match from.prove(places, stretch.range.start, bytes, unread).await {
                Err(error) if unread == Unread::IsLeft => {
                    broken = Some(error);
                    break;
                }
                proved => proved?,
            };
            for (blob, sealed) in proved {
                repacker.add(&blob, &sealed).await?;
                task.add(u64::from(blob.length));
            }
        }
        Ok(Copied { written: repacker.finish().await?, broken })
    }

    /// Opens each blob of a stretch: what does not open here is taken from another pack that holds it.
    async fn prove(
        &self,
        places: Vec<Location>,
        start: u64,
        fetched: Result<Bytes, RepositoryError>,
        unread: Unread,
    ) -> Result<Vec<(PackedBlob, Bytes)>, RepositoryError> {
        let fetched = match fetched {
            Err(error) if !error.is_damage() => return Err(error),
            fetched => fetched.unwrap_or_default(),
        };
        let master = Arc::clone(&self.master);
        let opened = tokio::task::spawn_blocking(move || {
            let open = |place: Location| (place, sealed_within(&fetched, start, &place.blob, &master));
            places.into_iter().map(open).collect::<Vec<_>>()
        });
        let opened = opened.await.map_err(|error| RepositoryError::refused("blobs", error))?;
        let mut proved = Vec::with_capacity(opened.len());
        for (place, sealed) in opened {
            match sealed {
                Some(sealed) => proved.push((place.blob, sealed)),
                None => match self.sealed_elsewhere(place).await {
                    Err(error) if unread == Unread::IsLeft && error.is_damage() => {}
                    sealed => proved.push(sealed?),
                },
            }
        }
        Ok(proved)
    }

    /// Reads a blob that did not come whole: alone, and then from the other packs that hold it.
    async fn sealed_elsewhere(&self, place: Location) -> Result<(PackedBlob, Bytes), RepositoryError> {
        let mut fault = RepositoryError::MissingBlob { kind: place.blob.kind, id: place.blob.id };
        let others = self.locations(place.blob.kind, &place.blob.id).into_iter().filter(|other| *other != place);
        for location in iter::once(place).chain(others) {
            let sealed = self.fetch(&location).await;
            match sealed.and_then(|sealed| self.open_at(&location, &sealed).map(|_| sealed)) {
                Ok(sealed) => return Ok((location.blob, sealed)),
                Err(error) if error.is_damage() => fault = error,
                Err(error) => return Err(error),
            }
        }
        Err(fault)
    }
}

/// Returns a blob as it is sealed in the bytes of its pack from `start`, if it opens to what its id names.
fn sealed_within(bytes: &Bytes, start: u64, blob: &PackedBlob, master: &MasterKey) -> Option<Bytes> {
    let place = |at: u64| usize::try_from(at - start).ok();
    let (first, end) = (place(blob.range().start)?, place(blob.range().end)?);
    let sealed = (end <= bytes.len()).then(|| bytes.slice(first..end))?;
    seal::open(master, &blob.id, &sealed, blob.plain).is_ok().then_some(sealed)
}

pub(super) fn bytes_of(wanted: &[Wanted<()>]) -> u64 {
    wanted.iter().map(|(location, ())| u64::from(location.blob.length)).sum()
}

impl<'a> Repacker<'a> {
    fn new(repository: &'a Repository) -> Self {
        let open = [PackBuilder::new(BlobKind::Data), PackBuilder::new(BlobKind::Tree)];
        Self { repository, open, written: Vec::new() }
    }

    async fn add(&mut self, blob: &PackedBlob, sealed: &[u8]) -> Result<(), RepositoryError> {
        let open = match blob.kind {
            BlobKind::Data => &mut self.open[0],
            BlobKind::Tree => &mut self.open[1],
        };
        open.add(blob.id, sealed, blob.plain)?;
        match if open.is_full(pack::SIZE_TARGET) { open.take() } else { None } {
            Some(full) => self.put(full).await,
            None => Ok(()),
        }
    }

    async fn put(&mut self, full: PackBuilder) -> Result<(), RepositoryError> {
        let master = Arc::clone(&self.repository.master);
        let pack = tokio::task::spawn_blocking(move || full.finish(&master)).await;
        let pack = pack.map_err(|error| RepositoryError::refused("pack", error))?;
        let pack = pack.map_err(|error| RepositoryError::refused("pack", error))?;
        let key = Key::new(FileKind::Pack, pack.id.to_string());
        document::put_proved(&self.repository.store, &key, pack.id, pack.bytes).await?;
        self.written.push(PackContents { id: pack.id, blobs: pack.blobs });
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<PackContents>, RepositoryError> {
        for kind in 0..self.open.len() {
            if let Some(rest) = self.open[kind].take() {
                self.put(rest).await?;
            }
        }
        Ok(self.written)
    }
}
