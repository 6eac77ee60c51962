//! All rows, over several connections, and after the rows of a table its late indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::event::{Task, Unit};
use crate::human;
use crate::mysql::sql;
use crate::target::mysql::chunk;
use crate::target::mysql::chunk::Outcome;
use crate::target::mysql::feed::Counted;
use crate::target::mysql::index::Index;
use crate::target::mysql::patience::Patience;
use crate::target::mysql::plan::{Stage, TableStep};
use crate::target::mysql::progress;
use crate::target::mysql::progress::Step;
use crate::target::mysql::queue::{Next, Queue, TableWork};
use crate::target::mysql::session::OwnConn;
use crate::target::mysql::silence;
use crate::target::mysql::tables::Created;
use crate::target::mysql::{Load, LoadError};

/// What the connections have done together.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) chunks: usize,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) retries: u64,
}

/// The rows of a load, as far as they came.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) tally: Tally,
    /// Tables that did not come whole, by their places in the plan.
    pub(super) failed: BTreeMap<usize, LoadError>,
    /// When all tables with a rank could be read.
    pub(super) first_at: Option<Instant>,
}

/// What the workers share.
struct Desk {
    load: Arc<Load>,
    late: Vec<Vec<Index>>,
    queue: Mutex<Queue>,
    failed: Mutex<BTreeMap<usize, LoadError>>,
    first: Mutex<First>,
    /// A chunk has ended: who waits looks again.
    moved: Notify,
    task: Task,
}

/// Loads the rows of every table that was made. What stands in the way of one table does not stop the others; what the server
/// itself lacks stops all, and what is committed stays.
pub(super) async fn load(load: &Arc<Load>, created: Created) -> Result<Rows, LoadError> {
    let steps = load.plan.tables.iter();
    let chunks: usize = steps.clone().map(|step| step.pending.len()).sum();
    let workers = load.options.connections.clamp(1, chunks.max(1));
    let task = load.run.events.task("load rows", Unit::Bytes, load.plan.bytes());
    // One that the target cannot hold is never there: then no time is told.
    let first = load.plan.first().len() + load.plan.first_refused().count();
    let mut queue = Queue::new(steps.map(work_of).collect(), workers);
    created.failed.keys().for_each(|table| queue.fail(*table));
    let desk = Arc::new(Desk {
        load: load.clone(),
        late: created.late,
        queue: Mutex::new(queue),
        failed: Mutex::new(created.failed),
        first: Mutex::new(First { left: first, at: None }),
        moved: Notify::new(),
        task: task.clone(),
    });
    // Dropped on an error, or by a stop: the others are aborted where they wait.
    let mut tasks: JoinSet<_> = (0..workers).map(|worker| serve(desk.clone(), worker)).collect();
    let mut rows = Rows::default();
    while let Some(done) = tasks.join_next().await {
        rows.tally.add(&done.map_err(|_| LoadError::BrokeOff)??);
    }
    rows.failed = std::mem::take(&mut *desk.failed());
    rows.first_at = desk.first().at;
    Ok(rows)
}

/// The tables with a rank.
struct First {
    /// Those that cannot be read yet.
    left: usize,
    /// When the last of them could be.
    at: Option<Instant>,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.chunks += other.chunks;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.retries += other.retries;
    }
}

fn work_of(step: &TableStep) -> TableWork {
    TableWork {
        pending: step.pending.clone(),
        bytes: step.table.chunks.iter().map(|chunk| chunk.bytes).collect(),
        sequential: step.table.key.is_empty() || !step.is_transactional,
        rank: step.rank,
    }
}

/// Does what the queue gives until it has no more.
async fn serve(desk: Arc<Desk>, worker: usize) -> Result<Tally, LoadError> {
    let (mut conn, mut tally) = (None, Tally::default());
    loop {
        let moved = desk.moved.notified();
        let next = desk.queue().next(worker);
        match next {
            Next::Chunk { table, chunk } => {
                let loaded = desk.load_chunk(&mut conn, table, chunk, &mut tally).await;
                if desk.goes_on(table, loaded)? {
                    desk.queue().done(table);
                }
                desk.moved.notify_waiters();
            }
            Next::Finish { table } => {
                let finished = desk.finish(&mut conn, table, &mut tally).await;
                if desk.goes_on(table, finished)? {
                    desk.note_first(table);
                }
            }
            Next::Wait => moved.await,
            Next::Nothing => break,
        }
    }
    if let Some(conn) = conn {
        desk.load.opener.close(conn).await;
    }
    Ok(tally)
}

impl Desk {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue holds together between calls, whatever became of a caller.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, BTreeMap<usize, LoadError>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first(&self) -> MutexGuard<'_, First> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a table can be read, and says so when it was the last of those with a rank.
    fn note_first(&self, table: usize) {
        if self.load.plan.tables[table].rank.is_none() {
            return;
        }
        let mut first = self.first();
        first.left -= 1;
        if first.left == 0 {
            let (now, named) = (self.load.run.clock.instant(), self.load.plan.first_named());
            first.at = Some(now);
            let took = human::duration(now.duration_since(self.load.started));
            self.load
                .run
                .events
                .note(format!("time to first order {took}: {named} can be read; the others still come"));
        }
    }

    /// Gives a table up where its own fault stopped it, and tells whether it goes on.
    fn goes_on(&self, table: usize, done: Result<(), LoadError>) -> Result<bool, LoadError> {
        match done {
            Ok(()) => Ok(true),
            Err(error) if error.is_of_one_table() => {
                self.queue().fail(table);
                self.load.run.events.warn(format!("{}: the other tables go on", error.in_full()));
                self.failed().entry(table).or_insert(error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Loads a chunk; if it deadlocks or the connection is lost, all of it again on a new one.
    async fn load_chunk(
        &self,
        conn: &mut Option<OwnConn>,
        table: usize,
        chunk: usize,
        tally: &mut Tally,
    ) -> Result<(), LoadError> {
        let step = &self.load.plan.tables[table];
        let entry = &step.table.chunks[chunk];
        let mut patience = Patience::default();
        let outcome = loop {
            let counted = Counted::new(self.task.clone());
            let error = match self.try_chunk(conn, step, chunk, &counted).await {
                Ok(outcome) => break outcome,
                Err(error) => error,
            };
            counted.take_back();
            // Half a chunk stays in a table without transactions: only a fresh start of the whole table mends that.
            if !error.is_passing() || !step.is_transactional {
                return Err(error);
            }
            let Some(delay) = patience.after(&error) else {
                return Err(gave_up(step, chunk, patience.tries(), error));
            };
            self.before_retry(delay, &error).await?;
            tally.retries += 1;
        };
        if outcome == Outcome::WasThere {
            self.task.add(entry.bytes);
        }
        tally.chunks += 1;
        tally.rows += entry.rows;
        tally.bytes += entry.bytes;
        Ok(())
    }

    async fn try_chunk(
        &self,
        conn: &mut Option<OwnConn>,
        step: &TableStep,
        chunk: usize,
        counted: &Counted,
    ) -> Result<Outcome, LoadError> {
        let mut own = self.take(conn).await?;
        let entry = &step.table.chunks[chunk];
        let dump = self.load.dump.as_ref();
        let connection = own.id();
        let loading = async {
            if step.is_transactional {
                chunk::load(&mut own, dump, &step.table, entry, counted).await
            } else {
                chunk::load_loose(&mut own, dump, &step.table, entry, counted).await
            }
        };
        let table = sql::qualified(&step.table.schema, &step.table.name);
        let tell = |silence| silence::of_rows(self.load.clone(), table.clone(), connection, silence);
        let outcome = silence::watched(self.load.options.silence_max, || counted.bytes(), loading, tell).await;
        match outcome {
            Ok(_) => *conn = Some(own),
            Err(_) => self.load.opener.abandon(own),
        }
        outcome
    }

    async fn take(&self, conn: &mut Option<OwnConn>) -> Result<OwnConn, LoadError> {
        match conn.take() {
            Some(conn) => Ok(conn),
            None => self.load.opener.open().await,
        }
    }

    async fn before_retry(&self, delay: Duration, error: &LoadError) -> Result<(), LoadError> {
        let events = &self.load.run.events;
        events.detail(format!("{}: once more, in {:.1} s", error.in_full(), delay.as_secs_f64()));
        tokio::time::sleep(delay).await;
        // A server that is just coming back is asked again by the next try.
        self.load.opener.kill_abandoned().await.or_else(|error| if error.is_passing() { Ok(()) } else { Err(error) })
    }

    /// Builds the late indexes of a table that has all its rows; again where a connection is lost on the way.
    async fn finish(&self, conn: &mut Option<OwnConn>, table: usize, tally: &mut Tally) -> Result<(), LoadError> {
        let step = &self.load.plan.tables[table];
        if step.stage == Stage::Finished {
            return Ok(());
        }
        let mut patience = Patience::default();
        loop {
            let error = match self.try_finish(conn, table).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let Some(delay) = patience.after(&error) else { return Err(error) };
            self.before_retry(delay, &error).await?;
            tally.retries += 1;
        }
    }

    async fn try_finish(&self, conn: &mut Option<OwnConn>, table: usize) -> Result<(), LoadError> {
        let mut own = self.take(conn).await?;
        let step = &self.load.plan.tables[table];
        let (schema, name) = (step.table.schema.as_str(), step.table.name.as_str());
        let (connection, of) = (own.id(), sql::qualified(schema, name));
        let finishing = async {
            self.build(&mut own, schema, name, &self.late[table]).await?;
            progress::note(&mut own, Step::Finished { schema, name }).await
        };
        let tell = |silence| silence::of_indexes(self.load.clone(), of.clone(), connection, silence);
        let noted = silence::watched(self.load.options.silence_max, || 0, finishing, tell).await;
        match noted {
            Ok(()) => *conn = Some(own),
            Err(_) => self.load.opener.abandon(own),
        }
        noted
    }

    async fn build(&self, conn: &mut Conn, schema: &str, name: &str, late: &[Index]) -> Result<(), LoadError> {
        let table = sql::qualified(schema, name);
        let at = || LoadError::at(format!("build the indexes of {table}"));
        if late.is_empty() {
            return Ok(());
        }
        // An interrupted load may have built them without having been able to say so.
        let asked = format!(
            "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = {} AND table_name = {}",
            sql::string(schema),
            sql::string(name)
        );
        let built: Vec<String> = conn.query(asked).await.map_err(at())?;
        let built: BTreeSet<String> = built.into_iter().collect();
        let missing = late.iter().filter(|index| !built.contains(&index.name));
        let added: Vec<String> = missing.map(|index| format!("ADD {}", index.definition)).collect();
        if added.is_empty() {
            return Ok(());
        }
        self.load.run.events.detail(format!("build {} indexes of {table}", added.len()));
        let alter = format!("ALTER TABLE {table} {}", added.join(", "));
        conn.query_drop(alter).await.map_err(at())
    }
}

fn gave_up(step: &TableStep, chunk: usize, tries: u32, error: LoadError) -> LoadError {
    LoadError::GaveUp {
        path: step.table.chunks[chunk].path.clone(),
        table: sql::qualified(&step.table.schema, &step.table.name),
        tries,
        source: Box::new(error),
    }
}
