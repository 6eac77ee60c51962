//! The threads behind a writer: sealers take plain bytes from a queue and fill packs, uploaders put the packs, have the store prove
//! them, and put the index.
//!
//! ```text
//! put → [jobs: bounded by bytes] → sealers → open pack of each kind → [packs: bounded] → uploaders → index
//! ```
//!
//! All cores seal as long as the queue is not empty. Where it is full, whoever saves a small blob seals it instead of waiting, so
//! that threads which read do not sleep and wake for each file: on a tree of images that was a fifth of all cycles. A pack has
//! one writer at a time, its blobs come in the order in which they were sealed, and it is hashed once, when it is closed.
//!
//! A blob is known to this writer alone until an index on the store names it: a writer that breaks takes what it had not named with
//! it, and nobody else builds on it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::chunk;
use crate::id::{BlobId, ObjectId};
use crate::repository::error::RepositoryError;
use crate::repository::index::{self, PackContents, files_of};
use crate::repository::pack::{BlobKind, Pack, PackBuilder};
use crate::repository::writer::ticket::{Promise, SavedBlob, Ticket};
use crate::repository::writer::{Added, Limits, Saved};
use crate::repository::{Repository, document};
use crate::run::{Run, Stopped};
use crate::seal::{Compress, Effort, Sealer};
use crate::store::{FileKind, Key};

/// How often a thread that waits looks whether the run was stopped.
const LOOK: Duration = Duration::from_millis(100);

/// An index is written at the latest this long after the pack that it is to name: what a kill finds durable but unnamed, the next
/// run stores again.
const INDEX_DELAY: Duration = Duration::from_mins(5);

/// The longest blob that is sealed by whoever saves it: each such thread has a compressor and buffers of that size for a while.
const SEALED_BY_CALLER_MAX: usize = 1 << 20;

/// Buffers of packs that were put, kept for the next: memory that is new to the process costs the kernel more than sealing into it.
const SPARE_BUFFERS_MAX: usize = 2;

/// Likewise memory of chunks of streams, from the thread that seals back to those that read.
const SPARE_CHUNKS_MAX: usize = 8;

/// Plain bytes to be saved.
pub(super) struct Job {
    kind: BlobKind,
    id: Option<BlobId>,
    plain: Vec<u8>,
    /// That of the stream which the bytes are part of.
    effort: Option<Arc<Effort>>,
    /// None where nobody asks what became of it.
    promise: Option<Promise>,
}

impl Job {
    /// A job whose outcome `finish` tells with all others.
    pub(super) fn hashed(kind: BlobKind, id: BlobId, plain: Vec<u8>) -> Self {
        Self { kind, id: Some(id), plain, effort: None, promise: None }
    }
}

/// What waits for a thread, and how many threads wait for it: a wake is a call into the kernel, made only where one sleeps.
struct Queue<T> {
    items: VecDeque<T>,
    idle: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), idle: 0 }
    }
}

#[derive(Default)]
struct State {
    jobs: Queue<Job>,
    /// Plain bytes and jobs in the queue and in the sealers' hands.
    bytes: usize,
    jobs_open: usize,
    packs: Queue<Pack>,
    /// Packs in the queue and in the uploaders' hands.
    packs_open: usize,
    is_closed: bool,
    /// Threads that seal what they save: as many as there are sealers, and the others wait.
    callers_sealing: usize,
    /// Threads that wait for room in the queue of jobs.
    pushing: usize,
    /// Threads that wait for anything else to leave a queue.
    waiting: usize,
    fault: Option<RepositoryError>,
}

/// What is durable, and what of it no index names yet.
#[derive(Default)]
struct Durable {
    saved: Saved,
    unnamed: Vec<PackContents>,
    unnamed_blobs: usize,
    unnamed_since: Option<Instant>,
}

pub(super) struct Pipeline {
    repository: Arc<Repository>,
    run: Run,
    limits: Limits,
    state: Mutex<State>,
    /// A job was queued, or the writer closed; likewise for packs.
    jobs_arrived: Condvar,
    packs_arrived: Condvar,
    /// There is room for jobs again.
    room: Condvar,
    /// Something left a queue, or broke.
    departed: Condvar,
    /// Blobs that are on their way into an index: the second to bring one need not store it.
    known: Mutex<HashSet<(BlobKind, BlobId)>>,
    data: Mutex<PackBuilder>,
    trees: Mutex<PackBuilder>,
    /// Sealers and pack buffers that nobody uses now.
    sealers: Mutex<Vec<Sealer>>,
    buffers: Mutex<Vec<Vec<u8>>>,
    /// Memory of chunks that are sealed.
    chunks: Mutex<Vec<Vec<u8>>>,
    durable: Mutex<Durable>,
}

/// Each value behind a lock is whole between its operations, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipeline {
    pub(super) fn start(repository: Arc<Repository>, run: Run, limits: Limits) -> Arc<Self> {
        let pipeline = Arc::new(Self {
            repository,
            run,
            limits,
            state: Mutex::default(),
            jobs_arrived: Condvar::new(),
            packs_arrived: Condvar::new(),
            room: Condvar::new(),
            departed: Condvar::new(),
            known: Mutex::default(),
            data: PackBuilder::new(BlobKind::Data).into(),
            trees: PackBuilder::new(BlobKind::Tree).into(),
            sealers: Mutex::default(),
            buffers: Mutex::default(),
            chunks: Mutex::default(),
            durable: Mutex::default(),
        });
        for _ in 0..limits.sealers.max(1) {
            pipeline.spawn("bkp-seal", Self::seal_jobs);
        }
        for _ in 0..limits.uploads.max(1) {
            pipeline.spawn("bkp-put", Self::put_packs);
        }
        pipeline
    }

    fn spawn(self: &Arc<Self>, name: &str, work: fn(&Self)) {
        let pipeline = Arc::clone(self);
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // A thread that panics must not leave the others waiting for it.
            let watch = Watch(&pipeline);
            work(&pipeline);
            std::mem::forget(watch);
        });
        if let Err(error) = spawned {
            self.break_with(RepositoryError::refused("blobs", format!("no thread: {error}")));
        }
    }

    /// Ends the threads once the last writer is gone; what was not finished is given up.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        let given_up = (std::mem::take(&mut state.jobs.items), std::mem::take(&mut state.packs.items));
        drop(state);
        drop(given_up);
        self.wake_all();
    }

    /// Makes the first fault stick.
    fn break_with(&self, error: RepositoryError) {
        let mut state = lock(&self.state);
        state.fault.get_or_insert(error);
        drop(state);
        self.wake_all();
    }

    fn wake_all(&self) {
        self.jobs_arrived.notify_all();
        self.packs_arrived.notify_all();
        self.room.notify_all();
        self.departed.notify_all();
    }

    /// Waits on the state until `is_ready`, and refuses once the writer is broken or the run stopped.
    fn wait_until(&self, is_ready: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>, RepositoryError> {
        self.wait_on(&self.departed, |state| &mut state.waiting, is_ready)
    }

    fn wait_on(
        &self,
        changed: &Condvar,
        waiting: fn(&mut State) -> &mut usize,
        is_ready: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'_, State>, RepositoryError> {
        let mut state = lock(&self.state);
        loop {
            if let Some(fault) = &state.fault {
                return Err(fault.clone());
            }
            self.run.check()?;
            // Only a thread of our own can wait on past that: the last writer is gone.
            if state.is_closed {
                return Err(Stopped.into());
            }
            if is_ready(&state) {
                return Ok(state);
            }
            *waiting(&mut state) += 1;
            let waited = changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            *waiting(&mut state) -= 1;
        }
    }

    /// Changes the state by what has left a queue. Those who wait for room are woken once the queue is half empty, so that each
    /// finds some.
    fn depart(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        let is_awaited = state.waiting > 0;
        let has_room = state.pushing > 0 && state.bytes <= self.limits.in_flight_bytes_max / 2;
        drop(state);
        if is_awaited {
            self.departed.notify_all();
        }
        if has_room {
            self.room.notify_all();
        }
    }

    fn has_room(&self, state: &State, job: &Job) -> bool {
        state.bytes == 0 || state.bytes + job.plain.len() <= self.limits.in_flight_bytes_max
    }

    /// Queues plain bytes to be saved, and promises the outcome. They are hashed on the way unless their id is given.
    pub(super) fn put(
        &self,
        kind: BlobKind,
        id: Option<BlobId>,
        effort: Option<Arc<Effort>>,
        plain: Vec<u8>,
    ) -> Result<Ticket, RepositoryError> {
        let (promise, ticket) = Promise::new();
        self.push(Job { kind, id, plain, effort, promise: Some(promise) })?;
        Ok(ticket)
    }

    pub(super) fn chunk_memory(&self) -> Vec<u8> {
        lock(&self.chunks).pop().unwrap_or_else(|| Vec::with_capacity(chunk::ROOM))
    }

    /// Keeps the memory of a chunk that had the usual room for the next one.
    fn keep_chunk(&self, plain: Vec<u8>) {
        let mut chunks = lock(&self.chunks);
        if (chunk::ROOM..=2 * chunk::ROOM).contains(&plain.capacity()) && chunks.len() < SPARE_CHUNKS_MAX {
            chunks.push(plain);
        }
    }

    /// Queues a job; blocks while too many bytes are in flight. One that is larger than the bound goes alone.
    fn push(&self, job: Job) -> Result<(), RepositoryError> {
        self.repository.check_lock()?;
        let state = self.wait_on(&self.room, |state| &mut state.pushing, |state| self.has_room(state, &job))?;
        self.enqueue(state, job);
        Ok(())
    }

    /// Queues a job, or does a small one here where too many bytes are in flight.
    pub(super) fn push_or_seal(&self, job: Job) -> Result<(), RepositoryError> {
        if job.plain.len() > SEALED_BY_CALLER_MAX {
            return self.push(job);
        }
        self.repository.check_lock()?;
        let may_seal = |state: &State| state.callers_sealing < self.limits.sealers.max(1);
        let is_ready = |state: &State| self.has_room(state, &job) || may_seal(state);
        let mut state = self.wait_on(&self.room, |state| &mut state.pushing, is_ready)?;
        if self.has_room(&state, &job) {
            self.enqueue(state, job);
            return Ok(());
        }
        state.callers_sealing += 1;
        drop(state);
        let mut sealer = lock(&self.sealers).pop();
        let sealed = self.seal_or_break(&mut sealer, &job);
        lock(&self.sealers).extend(sealer);
        lock(&self.state).callers_sealing -= 1;
        sealed.map(drop)
    }

    fn enqueue(&self, mut state: MutexGuard<'_, State>, job: Job) {
        state.bytes += job.plain.len();
        state.jobs_open += 1;
        state.jobs.items.push_back(job);
        let is_awaited = state.jobs.idle > 0;
        drop(state);
        if is_awaited {
            self.jobs_arrived.notify_one();
        }
    }

    /// Takes from a queue, waiting; `None` once the writer is closed.
    fn take<T>(&self, arrived: &Condvar, queue: fn(&mut State) -> &mut Queue<T>) -> Option<T> {
        let mut state = lock(&self.state);
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(item) = queue(&mut state).items.pop_front() {
                return Some(item);
            }
            queue(&mut state).idle += 1;
            state = arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            queue(&mut state).idle -= 1;
        }
    }

    /// A sealer's life.
    fn seal_jobs(&self) {
        let mut sealer = None;
        while let Some(mut job) = self.take(&self.jobs_arrived, |state| &mut state.jobs) {
            let (length, promise) = (job.plain.len(), job.promise.take());
            let outcome = self.seal_or_break(&mut sealer, &job);
            self.keep_chunk(job.plain);
            if let Some(promise) = promise {
                promise.settle(outcome);
            }
            self.depart(|state| {
                state.bytes -= length;
                state.jobs_open -= 1;
            });
        }
    }

    /// Does a job. One that fails breaks the writer.
    fn seal_or_break(&self, sealer: &mut Option<Sealer>, job: &Job) -> Result<SavedBlob, RepositoryError> {
        let outcome = self.seal_one(sealer, job);
        outcome.inspect_err(|error| self.break_with(error.clone()))
    }

    fn seal_one(&self, sealer: &mut Option<Sealer>, job: &Job) -> Result<SavedBlob, RepositoryError> {
        if let Some(fault) = lock(&self.state).fault.clone() {
            return Err(fault);
        }
        self.run.check()?;
        let id = job.id.unwrap_or_else(|| BlobId::of(&job.plain));
        let length = job.plain.len() as u64;
        let known = |stored: Option<u64>| SavedBlob {
            id,
            is_new: stored.is_some(),
            plain: length,
            stored: stored.unwrap_or(0),
        };
        if !self.claim(job.kind, id) {
            return Ok(known(None));
        }
        let stored = self.store_one(sealer, job, id)?;
        lock(&self.durable).saved.added += Added { blobs: 1, plain: length, stored };
        Ok(known(Some(stored)))
    }

    /// Tells whether the blob is there or on its way: nobody need bring it.
    pub(super) fn knows(&self, kind: BlobKind, id: BlobId) -> bool {
        self.repository.has(kind, &id) || lock(&self.known).contains(&(kind, id))
    }

    /// Tells whether the blob is ours to store: neither there nor on its way.
    fn claim(&self, kind: BlobKind, id: BlobId) -> bool {
        if self.repository.has(kind, &id) || !lock(&self.known).insert((kind, id)) {
            return false;
        }
        // It may have been named between the two looks; a pack enters the index before its blobs leave `known`.
        let is_there = self.repository.has(kind, &id);
        if is_there {
            lock(&self.known).remove(&(kind, id));
        }
        !is_there
    }

    /// Seals a blob and adds it to the open pack of its kind; returns its length as stored.
    fn store_one(&self, sealer: &mut Option<Sealer>, job: &Job, id: BlobId) -> Result<u64, RepositoryError> {
        let plain = &job.plain;
        let refused = |error: &dyn std::fmt::Display| RepositoryError::refused("blob", error);
        let sealer = match sealer {
            Some(sealer) => sealer,
            None => sealer.insert(Sealer::new().map_err(|error| refused(&error))?),
        };
        let compress = match (job.kind, &job.effort) {
            (BlobKind::Data, None) => Compress::WherePays,
            (BlobKind::Data, Some(effort)) => Compress::AsLearnt(effort),
            (BlobKind::Tree, _) => Compress::Always,
        };
        let sealed = sealer.seal(&self.repository.master, compress, plain).map_err(|error| refused(&error))?;
        let length = u32::try_from(plain.len()).map_err(|error| refused(&error))?;
        let mut open = lock(self.open_pack(job.kind));
        open.add(id, sealed.bytes, sealed.is_compressed.then_some(length))?;
        let stored = sealed.bytes.len() as u64;
        if open.is_full(self.limits.pack_size_target) {
            // Nobody else fills another pack meanwhile: as many are in memory as may wait, and one of each kind that is open.
            self.take_place()?;
            let full = open.take();
            open.grow_in(lock(&self.buffers).pop());
            drop(open);
            self.queue_pack(full)?;
        }
        Ok(stored)
    }

    fn open_pack(&self, kind: BlobKind) -> &Mutex<PackBuilder> {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    /// Takes a place among the packs that wait or are put; blocks while all are taken.
    fn take_place(&self) -> Result<(), RepositoryError> {
        let bound = self.limits.uploads.max(1) + 1;
        let mut state = self.wait_until(|state| state.packs_open < bound)?;
        state.packs_open += 1;
        Ok(())
    }

    /// Closes a pack, proves that what was sealed opens, and queues it. Its place was taken before; without a pack it is given back.
    fn queue_pack(&self, full: Option<PackBuilder>) -> Result<(), RepositoryError> {
        let Some(full) = full else {
            self.depart(|state| state.packs_open -= 1);
            return Ok(());
        };
        let pack = full.finish(&self.repository.master);
        let pack = pack.map_err(|error| RepositoryError::refused("pack", error))?;
        self.prove_seal(&pack)?;
        let mut state = lock(&self.state);
        state.packs.items.push_back(pack);
        let is_awaited = state.packs.idle > 0;
        drop(state);
        if is_awaited {
            self.packs_arrived.notify_one();
        }
        Ok(())
    }

    /// Reads a pack's header and opens one blob as a restore would. Together with its hash, which the store must answer after the
    /// put, that proves the whole way but the sealing of the other blobs, which is the same code.
    fn prove_seal(&self, pack: &Pack) -> Result<(), RepositoryError> {
        let unproved =
            |reason: String| RepositoryError::Unproved { thing: format!("pack {}", pack.id.short()), reason };
        let header = self.repository.read_pack_header(&pack.bytes).map_err(unproved)?;
        if header != pack.blobs {
            return Err(unproved("its header does not list its blobs".to_owned()));
        }
        let Some(blob) = pack.blobs.first() else { return Ok(()) };
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let sealed = pack.bytes.get(place(blob.range().start)..place(blob.range().end)).unwrap_or_default();
        let opened = self.repository.open_packed(blob, sealed);
        opened.map(drop).map_err(|error| unproved(error.to_string()))
    }

    /// An uploader's life.
    fn put_packs(&self) {
        while let Some(pack) = self.take(&self.packs_arrived, |state| &mut state.packs) {
            if let Err(error) = self.put_pack(pack) {
                self.break_with(error);
            }
            self.depart(|state| state.packs_open -= 1);
        }
    }

    fn put_pack(&self, pack: Pack) -> Result<(), RepositoryError> {
        let key = Key::new(FileKind::Pack, pack.id.to_string());
        self.wait_for(document::put_proved(&self.repository.store, &key, pack.id, pack.bytes.clone()))??;
        self.keep_buffer(pack.bytes);
        let mut durable = lock(&self.durable);
        durable.add(PackContents { id: pack.id, blobs: pack.blobs });
        let due = if durable.is_index_due() { durable.take_unnamed() } else { Vec::new() };
        drop(durable);
        self.save_index(&due)
    }

    /// Keeps a pack's memory for the next, unless the store still holds on to it.
    fn keep_buffer(&self, bytes: Bytes) {
        let mut buffers = lock(&self.buffers);
        if bytes.is_unique() && buffers.len() < SPARE_BUFFERS_MAX {
            buffers.push(bytes.into());
        }
    }

    /// Waits for the store, or for the signal to stop.
    fn wait_for<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        let done = self.run.cancel.run_until_cancelled(work);
        self.repository.runtime.block_on(done).ok_or(Stopped)
    }

    /// Writes the index files that name durable packs. From then on all writers of the repository know their blobs.
    fn save_index(&self, packs: &[PackContents]) -> Result<(), RepositoryError> {
        for packs in files_of(packs) {
            self.repository.check_lock()?;
            let json = index::print(packs).map_err(|error| RepositoryError::refused("index", error))?;
            let saved = document::save(&self.repository.store, &self.repository.master, FileKind::Index, &json);
            let id: ObjectId = self.wait_for(saved)??;
            lock(&self.durable).saved.indexes.push(id);
            self.name(packs);
        }
        Ok(())
    }

    fn name(&self, packs: &[PackContents]) {
        let mut index = self.repository.index.write().unwrap_or_else(PoisonError::into_inner);
        for pack in packs {
            index.add(pack);
        }
        drop(index);
        let mut known = lock(&self.known);
        for blob in packs.iter().flat_map(|pack| &pack.blobs) {
            known.remove(&(blob.kind, blob.id));
        }
    }

    /// Makes all durable and proved: waits for the sealers, closes the open packs, waits for the uploaders, writes the index.
    pub(super) fn finish(&self) -> Result<Saved, RepositoryError> {
        drop(self.wait_until(|state| state.jobs_open == 0)?);
        for kind in [BlobKind::Data, BlobKind::Tree] {
            self.take_place()?;
            let open = lock(self.open_pack(kind)).take();
            self.queue_pack(open).inspect_err(|error| self.break_with(error.clone()))?;
        }
        drop(self.wait_until(|state| state.packs_open == 0)?);
        let unnamed = lock(&self.durable).take_unnamed();
        self.save_index(&unnamed)?;
        Ok(std::mem::take(&mut lock(&self.durable).saved))
    }
}

/// Breaks the writer where a thread of it dies.
struct Watch<'a>(&'a Pipeline);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.break_with(RepositoryError::refused("blobs", "a thread of the writer has panicked"));
    }
}

impl Durable {
    fn add(&mut self, pack: PackContents) {
        self.saved.packs.push(pack.id);
        self.unnamed_blobs += pack.blobs.len();
        self.unnamed_since.get_or_insert_with(Instant::now);
        self.unnamed.push(pack);
    }

    fn is_index_due(&self) -> bool {
        let is_old = self.unnamed_since.is_some_and(|since| since.elapsed() >= INDEX_DELAY);
        is_old || self.unnamed_blobs >= index::BLOBS_MAX
    }

    fn take_unnamed(&mut self) -> Vec<PackContents> {
        self.unnamed_blobs = 0;
        self.unnamed_since = None;
        std::mem::take(&mut self.unnamed)
    }
}
