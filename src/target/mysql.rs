//! Loads a dump into a MySQL or MariaDB server.
//!
//! [`inspect`] looks at the target, [`LoadPlan::new`] decides, [`load`] does it. Rows go in by `LOAD DATA LOCAL` from memory, over
//! several connections; a chunk is one transaction, and its place in the table of progress is part of it. So a load that was cut at
//! any moment goes on where it was when it is started again, and no row comes twice.
//!
//! Nothing is made to fit: never `REPLACE` or `IGNORE`, a warning is an error, and a chunk is committed only if its bytes hash as the
//! manifest says and the server counted as many rows as it.

pub mod dir;
pub mod dump;
pub mod identity;
pub mod plan;
pub mod state;

mod abilities;
mod account;
mod chunk;
mod compare;
mod control;
mod dialect;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod enums;
mod error;
mod fault;
mod feed;
mod foreign;
mod index;
mod objects;
mod patience;
mod progress;
mod queue;
mod rows;
mod session;
mod silence;
mod tables;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::mysql::manifest::TableEntry;
use crate::mysql::server::Server;
use crate::mysql::sql;
use crate::run::Run;
use crate::target::mysql::plan::Refused;
use crate::target::mysql::session::{Opener, Settings};

pub use compare::{Mismatch, compare};
pub use dialect::Abilities;
pub use dir::DirDump;
pub use dump::{DumpReadError, DumpReader};
pub use error::LoadError;
pub use foreign::{KeyCheck, Orphans, check_foreign_keys};
pub(crate) use index::name as quoted_name;
pub use plan::{LoadPlan, Selection};
pub use session::Session;
pub use state::{TargetState, inspect};

/// How to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Connections that load rows.
    pub connections: usize,
    /// Keep the load out of the target's binlog, where the account may: its replicas then get nothing of it.
    pub skip_binlog: bool,
    /// Tables with at least so many plain bytes get their plain secondary indexes after their rows.
    pub defer_index_bytes_min: u64,
    /// A load that stands still for longer says what the target is at. More than nothing.
    pub silence_max: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            connections: 4,
            skip_binlog: false,
            defer_index_bytes_min: index::DEFER_BYTES_MIN,
            silence_max: silence::SILENCE_MAX,
        }
    }
}

/// What a load has done.
#[derive(Debug, Default)]
pub struct Loaded {
    pub tables: usize,
    pub chunks: usize,
    pub rows: u64,
    pub bytes: u64,
    /// Chunks that had to be sent again.
    pub retries: u64,
    pub objects: usize,
    /// Tables and objects that did not come whole. This is a partial success.
    pub failed: Vec<Failed>,
    /// From the first statement until all tables that come before the others could be read; `None` where there are none, or one
    /// did not come.
    pub first_took: Option<Duration>,
    /// From the first statement to the last row and index.
    pub rows_took: Duration,
    /// The rest: views, routines, triggers, events, accounts.
    pub objects_took: Duration,
}

impl Loaded {
    /// Tells whether a table is among those that did not come whole.
    #[must_use]
    pub fn lacks(&self, table: &(String, String)) -> bool {
        self.failed.iter().any(|failed| failed.table.as_ref() == Some(table))
    }
}

/// A table or an object that did not come whole.
#[derive(Debug)]
pub struct Failed {
    pub what: String,
    /// Schema and name, where it is a table.
    pub table: Option<(String, String)>,
    pub error: LoadError,
}

/// Loads what a plan says. Started again after an interruption, with a plan made anew, it goes on.
///
/// # Errors
/// The target then holds part of the dump and the table of progress; after a signal ([`LoadError::Stopped`]) as well.
pub async fn load(
    plan: &LoadPlan,
    dump: Arc<dyn DumpReader>,
    server: &Server,
    options: LoadOptions,
    run: &Run,
) -> Result<Loaded, LoadError> {
    let settings = Settings { dumped_mode: plan.dumped_mode.clone(), skip_binlog: options.skip_binlog };
    let opener = Opener::new(server, &plan.session, &settings);
    let started = run.clock.instant();
    let load = Arc::new(Load { plan: plan.clone(), dump, opener, options, run: run.clone(), started });
    let worked = until_stopped(&run.cancel, work(&load)).await;
    // Sessions that were left in the middle of something must not go on without us.
    let killed = load.opener.kill_left().await;
    let loaded = worked?;
    killed.map(|()| loaded)
}

/// What every part of a load needs.
struct Load {
    plan: LoadPlan,
    dump: Arc<dyn DumpReader>,
    opener: Opener,
    options: LoadOptions,
    run: Run,
    started: Instant,
}

async fn work(load: &Arc<Load>) -> Result<Loaded, LoadError> {
    let mut conn = control::begin(load).await?;
    tables::drop_replaced(&mut conn, &load.plan).await?;
    let mut failed = tables::create_schemas(&mut conn, &load.plan).await?;
    let mut made = objects::create_sequences(&mut conn, load).await?;
    let mut created = tables::create(&mut conn, load).await?;
    let waiting = std::mem::take(&mut created.foreign);
    let (rows, conn) = control::awake(load, conn, rows::load(load, created)).await;
    let mut rows = rows?;
    let conn = control::answering(load, conn).await?;
    let mut conn = foreign::add(load, conn, &waiting, &mut rows.failed).await?;
    let rows_ended = load.run.clock.instant();
    made.extend(objects::create_others(&mut conn, load).await?);
    control::end(load, conn, rows.failed.is_empty()).await?;
    let tables = load.plan.tables.len() - rows.failed.len();
    failed.extend(rows.failed.into_iter().map(|(table, error)| failed_table(load, table, error)));
    failed.extend(made.failed);
    failed.extend(load.plan.refused.iter().map(refused));
    Ok(Loaded {
        tables,
        chunks: rows.tally.chunks,
        rows: rows.tally.rows,
        bytes: rows.tally.bytes,
        retries: rows.tally.retries,
        objects: made.done,
        failed,
        first_took: rows.first_at.map(|at| at.duration_since(load.started)),
        rows_took: rows_ended.duration_since(load.started),
        objects_took: load.run.clock.instant().duration_since(rows_ended),
    })
}

fn failed_table(load: &Load, table: usize, error: LoadError) -> Failed {
    let TableEntry { schema, name, .. } = &load.plan.tables[table].table;
    let what = format!("table {}", sql::qualified(schema, name));
    Failed { what, table: Some((schema.clone(), name.clone())), error }
}

fn refused(refused: &Refused) -> Failed {
    let Refused { schema, table, why, .. } = refused;
    let name = sql::qualified(schema, table);
    let error = LoadError::DoesNotFit { table: name.clone(), why: why.clone() };
    Failed { what: format!("table {name}"), table: Some((schema.clone(), table.clone())), error }
}

/// Does a thing, or stops as soon as told to. What is dropped half-done is rolled back when its session is killed.
async fn until_stopped<T>(
    cancel: &CancellationToken,
    thing: impl Future<Output = Result<T, LoadError>>,
) -> Result<T, LoadError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(LoadError::Stopped),
        done = thing => done,
    }
}
