//! Copies what is needed of some packs into new ones. The sealed bytes go over as they are, once they have been opened and proved.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::event::Unit;
use crate::id::ObjectId;
use crate::repository::error::RepositoryError;
use crate::repository::pack::{self, BlobKind, PackBuilder, PackedBlob};
use crate::repository::{PackContents, Repository, document};
use crate::run::Run;
use crate::seal;
use crate::store::{FileKind, Key};

/// Stretches of packs that are fetched ahead.
const FETCHED_AHEAD: usize = 4;

/// Blobs of one pack that are fetched in one go.
struct Stretch {
    pack: ObjectId,
    blobs: Vec<PackedBlob>,
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
        let stretches = packs.iter().flat_map(|pack| {
            let of_pack = |blobs| Stretch { pack: pack.id, blobs };
            super::read::stretches(&pack.blobs).into_iter().map(of_pack)
        });
        let bytes = packs.iter().flat_map(|pack| &pack.blobs).map(|blob| u64::from(blob.length)).sum();
        let task = run.events.task("repack", Unit::Bytes, bytes);
        let mut repacker = Repacker {
            repository: self,
            open: [PackBuilder::new(BlobKind::Data), PackBuilder::new(BlobKind::Tree)],
            written: Vec::new(),
        };
        let mut fetched = stream::iter(stretches).map(|stretch| self.fetch_stretch(stretch)).buffered(FETCHED_AHEAD);
        while let Some((stretch, bytes)) = fetched.next().await {
            run.check()?;
            self.check_lock()?;
            for (blob, sealed) in self.prove(stretch, bytes).await? {
                repacker.add(&blob, &sealed).await?;
                task.add(u64::from(blob.length));
            }
        }
        repacker.finish().await
    }

    async fn fetch_stretch(&self, stretch: Stretch) -> (Stretch, Result<Bytes, RepositoryError>) {
        let key = Key::new(FileKind::Pack, stretch.pack.to_string());
        let start = stretch.blobs.first().map_or(0, |blob| blob.range().start);
        let end = stretch.blobs.iter().map(|blob| blob.range().end).max().unwrap_or(start);
        let bytes = self.store.get_range(&key, start..end).await;
        (stretch, bytes.map_err(Into::into))
    }

    /// Opens each blob of a stretch: what does not open here is taken from another pack that holds it.
    async fn prove(
        &self,
        stretch: Stretch,
        fetched: Result<Bytes, RepositoryError>,
    ) -> Result<Vec<(PackedBlob, Bytes)>, RepositoryError> {
        let fetched = match fetched {
            Err(error) if !error.is_damage() => return Err(error),
            fetched => fetched.unwrap_or_default(),
        };
        let master = Arc::clone(&self.master);
        let (pack, blobs) = (stretch.pack, stretch.blobs);
        let opened = tokio::task::spawn_blocking(move || {
            let start = blobs.first().map_or(0, |blob| blob.range().start);
            let sealed = |blob: &PackedBlob| {
                let at = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
                let range = at(blob.range().start)..at(blob.range().end);
                let bytes = (range.end <= fetched.len()).then(|| fetched.slice(range))?;
                seal::open(&master, &blob.id, &bytes, blob.plain).is_ok().then_some(bytes)
            };
            blobs.into_iter().map(|blob| (blob, sealed(&blob))).collect::<Vec<_>>()
        });
        let opened = opened.await.map_err(|error| RepositoryError::refused("blobs", error))?;
        let mut proved = Vec::with_capacity(opened.len());
        for (blob, sealed) in opened {
            proved.push(match sealed {
                Some(sealed) => (blob, sealed),
                None => self.from_elsewhere(pack, blob).await?,
            });
        }
        Ok(proved)
    }

    async fn from_elsewhere(&self, pack: ObjectId, blob: PackedBlob) -> Result<(PackedBlob, Bytes), RepositoryError> {
        let lost = format!("blob {} does not open", blob.id.short());
        let mut fault = RepositoryError::damaged(Key::new(FileKind::Pack, pack.to_string()), lost);
        for location in self.locations(blob.kind, &blob.id).into_iter().filter(|location| location.pack != pack) {
            match self.fetch(&location).await {
                Ok(sealed) => match self.open_at(&location, &sealed) {
                    Ok(_) => return Ok((location.blob, sealed)),
                    Err(error) => fault = error,
                },
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }
}

impl Repacker<'_> {
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
