//! Reads many blobs with few requests: what lies side by side in a pack comes in one stretch, and several stretches at once.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::id::{BlobId, ObjectId};
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::index::Location;
use crate::repository::pack::BlobKind;
use crate::run::{Run, Stopped};
use crate::store::{FileKind, Key, SharedStore, StoreError};

/// Bytes between two wanted blobs that are read along rather than asked for apart: a request costs more.
const GAP_MAX: u64 = 256 << 10;

/// The longest stretch: the time of its bytes on a fast line is several round trips, so that longer ones gain nothing.
const STRETCH_MAX: u64 = 8 << 20;

/// Stored bytes that are asked for, or wait for a thread to open them: the bound on memory.
const BYTES_IN_FLIGHT_MAX: u32 = 64 << 20;

/// Stretches asked for at once; where they are short, bytes alone would let thousands through.
const STRETCHES_IN_FLIGHT_MAX: usize = 16;

/// A thread takes so much of a stretch at a time, so that one stretch keeps all of them busy.
const PIECE_BYTES: u64 = 1 << 20;
const PIECE_BLOBS: usize = 64;

/// A blob that is wanted, and what for.
pub type Wanted<T> = (Location, T);

/// A part of a pack that is read at once, and the places in the list of what is wanted that lie in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pack: ObjectId,
    pub(super) range: Range<u64>,
    pub(super) wanted: Range<usize>,
}

/// A part of a stretch that has come, or what kept it from coming.
struct Piece {
    wanted: Range<usize>,
    /// Where in the pack the bytes begin.
    start: u64,
    bytes: Result<Bytes, RepositoryError>,
    /// Held until all pieces of the stretch were taken.
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

impl Repository {
    /// Reads blobs on all threads of the rayon pool that it is called in, in the order in which they lie in packs. Each comes with
    /// everything that it is wanted for, its hash proved, or with the reason why it cannot be had.
    ///
    /// # Errors
    /// The first that `take` returns, or [`Stopped`] at once after a signal, however long a store stalls.
    pub fn fetch_blocking<T: Send + Sync, E: Send + From<Stopped>>(
        &self,
        mut wanted: Vec<Wanted<T>>,
        run: &Run,
        take: impl Fn(&[Wanted<T>], Result<Vec<u8>, RepositoryError>) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        wanted.sort_by_key(|(location, _)| (location.pack, location.blob.offset));
        let (sender, pieces) = mpsc::channel();
        let feeder = Feeder { store: Arc::clone(&self.store), plan: plan(&wanted), sender };
        let cancel = run.cancel.clone();
        let feeding = self.runtime.spawn(async move { cancel.run_until_cancelled_owned(feeder.feed()).await });
        let (pieces, failed, error) = (Mutex::new(pieces), AtomicBool::new(false), Mutex::new(None));
        let taken = AtomicUsize::new(0);
        let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
        rayon::broadcast(|_| {
            while let Some(piece) = next().filter(|_| !failed.load(Ordering::Relaxed)) {
                if let Err(first) = self.take_piece(&piece, &wanted, run, &take) {
                    failed.store(true, Ordering::Relaxed);
                    error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(first);
                }
                taken.fetch_add(piece.wanted.len(), Ordering::Relaxed);
            }
            if failed.load(Ordering::Relaxed) {
                feeding.abort();
            }
        });
        match error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            // The runtime may go down before its tasks are done.
            None if taken.into_inner() < wanted.len() => Err(Stopped.into()),
            None => Ok(()),
        }
    }

    fn take_piece<T, E: From<Stopped>>(
        &self,
        piece: &Piece,
        wanted: &[Wanted<T>],
        run: &Run,
        take: &impl Fn(&[Wanted<T>], Result<Vec<u8>, RepositoryError>) -> Result<(), E>,
    ) -> Result<(), E> {
        for same in wanted[piece.wanted.clone()].chunk_by(|(a, _), (b, _)| a == b) {
            run.check()?;
            take(same, self.open_piece(piece, &same[0].0))?;
        }
        Ok(())
    }

    fn open_piece(&self, piece: &Piece, location: &Location) -> Result<Vec<u8>, RepositoryError> {
        let opened = match &piece.bytes {
            Ok(bytes) => self.open_within(location, piece.start, bytes),
            Err(error) => Err(error.clone()),
        };
        match opened {
            Err(error) if error.is_damage() => self.rescue(location, &piece.bytes, error),
            opened => opened,
        }
    }

    /// Reads a blob that did not come whole from wherever else it may: alone where a stretch was cut or lies on a bad sector, and from
    /// the other packs that hold it.
    fn rescue(
        &self,
        location: &Location,
        came: &Result<Bytes, RepositoryError>,
        error: RepositoryError,
    ) -> Result<Vec<u8>, RepositoryError> {
        let is_cut = matches!(came, Err(error) if !matches!(error, RepositoryError::Store(StoreError::Missing { .. })));
        let mut places = self.locations(location.blob.kind, &location.blob.id);
        places.retain(|place| is_cut || place != location);
        for place in &places {
            match self.read_at_blocking(place) {
                Err(error) if error.is_damage() => {}
                read => return read,
            }
        }
        Err(error)
    }

    pub(super) fn open_within(
        &self,
        location: &Location,
        start: u64,
        bytes: &[u8],
    ) -> Result<Vec<u8>, RepositoryError> {
        let place = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
        let range = location.blob.range();
        self.open_at(location, bytes.get(place(range.start)..place(range.end)).unwrap_or_default())
    }

    /// Reads the blobs of a part of a file, in their order.
    ///
    /// # Errors
    /// Like [`Repository::blob`], for the first that cannot be had.
    pub async fn data_blobs(self: &Arc<Self>, ids: &[BlobId]) -> Result<Vec<Vec<u8>>, RepositoryError> {
        let kind = BlobKind::Data;
        let mut wanted = Vec::with_capacity(ids.len());
        for (place, id) in ids.iter().enumerate() {
            wanted.push((self.locate(kind, id).ok_or(RepositoryError::MissingBlob { kind, id: *id })?, place));
        }
        wanted.sort_by_key(|(location, _)| (location.pack, location.blob.offset));
        let stretches = stretches(&wanted);
        let fetched = stream::iter(stretches.clone()).map(|stretch| fetch(Arc::clone(&self.store), stretch));
        let fetched: Vec<_> = fetched.buffered(STRETCHES_IN_FLIGHT_MAX).collect().await;
        let (repository, opening) = (Arc::clone(self), wanted.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let open = |(location, stretch): (&Location, usize)| match &fetched[stretch] {
                Ok(bytes) => repository.open_within(location, stretches[stretch].range.start, bytes),
                Err(error) => Err(error.clone()),
            };
            let numbers =
                stretches.iter().enumerate().flat_map(|(at, stretch)| stretch.wanted.clone().map(move |_| at));
            let places = opening.iter().map(|(location, _)| location).zip(numbers);
            places.map(open).collect::<Vec<_>>()
        });
        let opened = opened.await.map_err(|error| RepositoryError::refused("blobs", error))?;
        let mut plain = vec![Vec::new(); ids.len()];
        for ((_, place), opened) in wanted.into_iter().zip(opened) {
            plain[place] = match opened {
                // Alone, or from another pack, it may come whole.
                Err(error) if error.is_damage() => self.blob(kind, &ids[place]).await?,
                opened => opened?,
            };
        }
        Ok(plain)
    }
}

/// Asks for stretches and passes them on in pieces.
struct Feeder {
    store: SharedStore,
    plan: Vec<(Stretch, Vec<Range<usize>>)>,
    sender: mpsc::Sender<Piece>,
}

impl Feeder {
    async fn feed(self) {
        let Self { store, plan, sender } = self;
        let places = Arc::new(Semaphore::new(BYTES_IN_FLIGHT_MAX as usize));
        let fetched = stream::iter(plan).map(|(stretch, pieces)| {
            let (store, places) = (Arc::clone(&store), Arc::clone(&places));
            async move {
                let bytes = u32::try_from(stretch.range.end - stretch.range.start).unwrap_or(u32::MAX);
                let place = places.acquire_many_owned(bytes.min(BYTES_IN_FLIGHT_MAX)).await;
                let start = stretch.range.start;
                (start, pieces, fetch(store, stretch).await, place.ok().map(Arc::new))
            }
        });
        let mut fetched = fetched.buffer_unordered(STRETCHES_IN_FLIGHT_MAX);
        while let Some((start, pieces, bytes, place)) = fetched.next().await {
            for wanted in pieces {
                let piece = Piece { wanted, start, bytes: bytes.clone(), _place: place.clone() };
                if sender.send(piece).is_err() {
                    return;
                }
            }
        }
    }
}

pub(super) async fn fetch(store: SharedStore, stretch: Stretch) -> Result<Bytes, RepositoryError> {
    let key = Key::new(FileKind::Pack, stretch.pack.to_string());
    Ok(store.get_range(&key, stretch.range).await?)
}

/// Groups what is wanted, sorted by place, into stretches that are read at once.
pub(super) fn stretches<T>(wanted: &[Wanted<T>]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (at, (Location { pack, blob }, _)) in wanted.iter().enumerate() {
        let range = blob.range();
        match stretches.last_mut() {
            Some(last)
                if last.pack == *pack
                    && range.start.saturating_sub(last.range.end) <= GAP_MAX
                    && range.end - last.range.start <= STRETCH_MAX =>
            {
                last.range.end = last.range.end.max(range.end);
                last.wanted.end = at + 1;
            }
            _ => stretches.push(Stretch { pack: *pack, range, wanted: at..at + 1 }),
        }
    }
    stretches
}

/// Cuts stretches into pieces for threads; one blob stays with all that it is wanted for.
fn plan<T>(wanted: &[Wanted<T>]) -> Vec<(Stretch, Vec<Range<usize>>)> {
    let cut = |stretch: Stretch| {
        let mut pieces: Vec<Range<usize>> = Vec::new();
        let (mut at, mut bytes, mut blobs) = (stretch.wanted.start, 0, 0);
        for same in wanted[stretch.wanted.clone()].chunk_by(|(a, _), (b, _)| a == b) {
            bytes += u64::from(same[0].0.blob.length);
            blobs += 1;
            match pieces.last_mut() {
                Some(piece) if bytes <= PIECE_BYTES && blobs <= PIECE_BLOBS => piece.end += same.len(),
                _ => {
                    pieces.push(at..at + same.len());
                    (bytes, blobs) = (u64::from(same[0].0.blob.length), 1);
                }
            }
            at += same.len();
        }
        (stretch, pieces)
    };
    stretches(wanted).into_iter().map(cut).collect()
}

#[cfg(test)]
mod tests;
