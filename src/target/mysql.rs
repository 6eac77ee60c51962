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
pub mod plan;
pub mod state;

mod account;
mod chunk;
mod compare;
mod error;
mod fault;
mod feed;
mod index;
mod objects;
mod progress;
mod queue;
mod rows;
mod session;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio_util::sync::CancellationToken;

use crate::mysql::server::Server;
use crate::run::Run;
use crate::target::mysql::session::{Opener, Settings};

pub use compare::{Mismatch, compare};
pub use dir::DirDump;
pub use dump::{DumpReadError, DumpReader};
pub use error::LoadError;
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
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { connections: 4, skip_binlog: false, defer_index_bytes_min: index::DEFER_BYTES_MIN }
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
    /// Objects that the target refused. The rows are all there; this is a partial success.
    pub failed: Vec<Failed>,
    /// From the first statement to the last row and index.
    pub rows_took: Duration,
    /// The rest: views, routines, triggers, events, accounts.
    pub objects_took: Duration,
}

/// An object that the target refused.
#[derive(Debug)]
pub struct Failed {
    pub what: String,
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
    let load = Arc::new(Load { plan: plan.clone(), dump, opener, options, run: run.clone() });
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
}

async fn work(load: &Arc<Load>) -> Result<Loaded, LoadError> {
    let started = load.run.clock.instant();
    let mut conn = begin(load).await?;
    tables::drop_replaced(&mut conn, &load.plan).await?;
    tables::create_schemas(&mut conn, &load.plan).await?;
    let mut made = objects::create_sequences(&mut conn, load).await?;
    let indexes = tables::create(&mut conn, load).await?;
    let rows = rows::load(load, indexes).await?;
    let rows_ended = load.run.clock.instant();
    made.extend(objects::create_others(&mut conn, load).await?);
    end(load, conn).await?;
    Ok(Loaded {
        tables: load.plan.tables.len(),
        chunks: rows.chunks,
        rows: rows.rows,
        bytes: rows.bytes,
        retries: rows.retries,
        objects: made.done,
        failed: made.failed,
        rows_took: rows_ended.duration_since(started),
        objects_took: load.run.clock.instant().duration_since(rows_ended),
    })
}

/// Opens the connection that makes everything but rows. It holds a lock by name, so that a target has one load at a time.
async fn begin(load: &Load) -> Result<Conn, LoadError> {
    let mut conn = load.opener.open().await?;
    let got: Option<Option<u8>> = conn
        .query_first("SELECT GET_LOCK('bkp_restore', 0)")
        .await
        .map_err(LoadError::at("lock the target against a second load"))?;
    if got.flatten() != Some(1) {
        return Err(LoadError::Busy);
    }
    if load.plan.resumes {
        load.run.events.note("the target holds the beginning of this load: it goes on from there");
    } else {
        progress::begin(&mut conn, &load.plan.token).await?;
    }
    Ok(conn)
}

async fn end(load: &Load, mut conn: Conn) -> Result<(), LoadError> {
    progress::end(&mut conn).await?;
    load.opener.close(conn).await;
    Ok(())
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
