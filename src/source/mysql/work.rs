//! The threads of a dump: one scouts for ranges, the others read them, and the first failure stops them all.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::event::Task as Progress;
use crate::mysql::manifest::{Chunk, Manifest};
use crate::mysql::wire::Wire;
use crate::source::Sink;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::grip::Grip;
use crate::source::mysql::hold::Holds;
use crate::source::mysql::inventory::Table;
use crate::source::mysql::queue::{Queue, Task};
use crate::source::mysql::read::{RangeReader, in_order};
use crate::source::mysql::scout::{Measured, Previous, Scout};
use crate::source::mysql::throttle::Passage;

/// The scout may be so many ranges ahead for each reader.
const AHEAD_MAX: usize = 2;

/// The chunks of a table's ranges, each with the range's number.
type RangeChunks = Vec<(usize, Vec<Chunk>)>;

/// What the threads of a dump share.
pub(crate) struct Work<'a> {
    tables: &'a [Table],
    measured: Vec<Measured>,
    queue: Queue,
    chunk_bytes: u64,
    sink: &'a dyn Sink,
    progress: &'a Progress,
    holds: &'a Holds,
    passage: Passage<'a>,
    /// By table: the number of a range, and its chunks.
    chunks: Mutex<Vec<RangeChunks>>,
    failure: Failure,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        tables: &'a [Table],
        readers: usize,
        chunk_bytes: u64,
        sink: &'a dyn Sink,
        progress: &'a Progress,
        holds: &'a Holds,
        passage: Passage<'a>,
    ) -> Self {
        Self {
            tables,
            measured: tables.iter().map(|_| Measured::default()).collect(),
            queue: Queue::new(readers * AHEAD_MAX, passage.cancel.clone()),
            chunk_bytes,
            sink,
            progress,
            holds,
            passage,
            chunks: Mutex::new(tables.iter().map(|_| Vec::new()).collect()),
            failure: Failure { first: Mutex::new(None), cancel: passage.cancel.clone() },
        }
    }

    /// Runs a thread for each connection until all is read or one has failed.
    pub(crate) fn run(&self, readers: &mut [Wire], previous: Option<&Manifest>) {
        let Some((scout, readers)) = readers.split_last_mut() else {
            return;
        };
        std::thread::scope(|scope| {
            let mut threads = vec![scope.spawn(|| self.scout(scout, previous))];
            threads.extend(readers.iter_mut().map(|reader| scope.spawn(|| self.read(reader))));
            // A panic has been noted; joined here, it goes no further.
            for thread in threads {
                let _noted = thread.join();
            }
        });
    }

    /// Fills the queue.
    fn scout(&self, wire: &mut Wire, previous: Option<&Manifest>) {
        let _watch = Watch(&self.failure);
        let scout = Scout {
            tables: self.tables,
            measured: &self.measured,
            previous: &Previous::of(previous),
            chunk_bytes: self.chunk_bytes,
            queue: &self.queue,
            passage: self.passage,
        };
        let filled = scout.fill(wire);
        self.queue.close();
        if let Err(error) = filled {
            self.failure.note(error);
        }
    }

    /// Empties the queue.
    fn read(&self, wire: &mut Wire) {
        let _watch = Watch(&self.failure);
        if let Err(error) = self.read_ranges(wire) {
            self.failure.note(error);
        }
    }

    fn read_ranges(&self, wire: &mut Wire) -> Result<(), MysqlSourceError> {
        let mut grip = if self.holds.has_definitions() { Some(Grip::new(wire)?) } else { None };
        while let Some(task) = self.queue.pop() {
            if let Some(grip) = &mut grip {
                grip.make_room(wire)?;
            }
            self.read_range(wire, &task)?;
        }
        Ok(())
    }

    fn read_range(&self, wire: &mut Wire, task: &Task) -> Result<(), MysqlSourceError> {
        let reader = RangeReader {
            table: &self.tables[task.table],
            task,
            sink: self.sink,
            chunk_bytes: self.chunk_bytes,
            progress: self.progress,
            // Writers wait for the end of a locked table: a pause would make what it is to mend.
            passage: (!task.is_locked).then_some(self.passage),
        };
        let chunks = reader.read(wire)?;
        for chunk in &chunks {
            self.measured[task.table].add(chunk.rows, chunk.bytes);
        }
        lock(&self.chunks)[task.table].push((task.number, chunks));
        if self.queue.done(task) { self.holds.free_tables() } else { Ok(()) }
    }

    /// Returns the chunks of each table, in their order.
    pub(crate) fn finish(self) -> Result<Vec<Vec<Chunk>>, MysqlSourceError> {
        let failure = self.failure.first.into_inner();
        if let Some(error) = failure.unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let chunks = self.chunks.into_inner();
        let chunks = chunks.unwrap_or_else(PoisonError::into_inner);
        Ok(chunks.into_iter().map(in_order).collect())
    }
}

/// Notes a thread that panics, so that no other waits for it.
struct Watch<'a>(&'a Failure);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.note(MysqlSourceError::BrokeOff);
        }
    }
}

/// The first failure; it stops all the others.
struct Failure {
    first: Mutex<Option<MysqlSourceError>>,
    cancel: CancellationToken,
}

impl Failure {
    fn note(&self, error: MysqlSourceError) {
        let mut first = lock(&self.first);
        // What stopped because another had failed says nothing.
        if first.is_none() || first.as_ref().is_some_and(MysqlSourceError::is_stopped) {
            *first = Some(error);
        }
        self.cancel.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
