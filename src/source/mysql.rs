//! A dump of a MySQL or MariaDB server that is true of one moment.
//!
//! [`Snapshot::open`] logs all connections in, holds definitions still, and opens a read view on each connection at one moment:
//! on MySQL under a global read lock that lasts milliseconds, on MariaDB without one where the binlog's position proves
//! the views equal. [`Snapshot::dump`] then reads tables in ranges of their key on all connections at once, and writes
//! row files, definitions, `restore.sql` and at last `manifest.json`. A connection that breaks takes its read view with it: the
//! dump fails, and nothing of it counts.
//!
//! Everything here blocks, on threads of its own: call it from `spawn_blocking`. Memory is bounded by the number of connections
//! and the largest row, whatever the number of rows.

mod accounts;
mod bounds;
pub mod changes;
mod dump;
mod error;
mod grants;
mod grip;
mod hash;
mod hold;
mod inventory;
mod key;
mod layout;
mod lock;
mod moment;
mod objects;
mod queue;
mod range;
mod read;
mod scout;
mod script;
mod session;
mod throttle;
mod view;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::mysql::server::Server;
use crate::mysql::wire::Wire;
use crate::policy::{MysqlAddress, MysqlSource};
use crate::run::Run;
use crate::source::mysql::grants::Grants;
use crate::source::mysql::hold::{Holds, Keeper};
use crate::source::mysql::inventory::{Inventory, New};
use crate::source::mysql::lock::{Patience, lock_definitions};
use crate::source::mysql::session::{Capabilities, connect, settle, want_raw_bytes};
use crate::source::mysql::view::Opening;

pub use error::MysqlSourceError;
pub use hash::{ChunkHash, Standing, hash_chunks};
pub(crate) use inventory::SYSTEM_SCHEMAS;
pub use moment::Moment;
pub(crate) use script::{load_data, write_statement};
pub use throttle::{Pause, Reason, Throttle};

/// Row files end near this size: large enough to load fast, small enough to try again and to share out.
pub const CHUNK_BYTES: u64 = 64 * 1024 * 1024;

/// A dump that meets a migration each time it would begin gives up after so many.
const OPENINGS_MAX: u32 = 3;

/// What becomes of a dump whose tables no lock can hold still while the read views open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheld {
    Refuse,
    /// The operator takes tables of different moments over no dump at all.
    Allow,
}

/// A server held at one moment, ready to be read.
pub struct Snapshot {
    server: Server,
    source: MysqlSource,
    capabilities: Capabilities,
    grants: Grants,
    /// Metadata is read here.
    control: Wire,
    holds: Arc<Holds>,
    keeper: Keeper,
    /// Cancelled by a lock that is lost.
    cancel: CancellationToken,
    throttle: Arc<Throttle>,
    /// The last one scouts for the others.
    readers: Vec<Wire>,
    inventory: Inventory,
    moment: Moment,
    chunk_bytes: u64,
}

impl Snapshot {
    /// Opens the read views, once the server has room for a dump. Writers wait for milliseconds, if at all.
    ///
    /// # Errors
    /// A missing privilege with the GRANT to run, tables without transactions, a lock that was not free, a broken connection, a
    /// table that was altered meanwhile.
    pub fn open(server: &Server, source: &MysqlSource, unheld: Unheld, run: &Run) -> Result<Self, MysqlSourceError> {
        let throttle = Arc::new(Throttle::new(&source.throttle, run));
        let (mut openings, mut wasted) = (1, Duration::ZERO);
        let mut snapshot = loop {
            let may_open_again = openings < OPENINGS_MAX;
            match Self::open_once(server, source, unheld, may_open_again, &throttle, run) {
                Err(MysqlSourceError::MigrationWaits { stall }) if may_open_again => {
                    run.events.note("a migration waits for the dump's lock on definitions: letting it go first");
                    lock::rest(openings, run)?;
                    (openings, wasted) = (openings + 1, wasted + stall);
                }
                opened => break opened?,
            }
        };
        snapshot.moment.write_stall_ms += wasted.as_secs_f64() * 1000.0;
        Ok(snapshot)
    }

    /// Opens the read views, or gives all locks up.
    fn open_once(
        server: &Server,
        source: &MysqlSource,
        unheld: Unheld,
        may_open_again: bool,
        throttle: &Arc<Throttle>,
        run: &Run,
    ) -> Result<Self, MysqlSourceError> {
        let mut control = connect(server, run)?;
        let capabilities = Capabilities::probe(&mut control)?;
        settle(&mut control, &capabilities)?;
        throttle.wait_to_begin(&mut control)?;
        let grants = Grants::read(&mut control, capabilities.product)?;
        let mut readers = connect_readers(server, source.connections.max(1) + 1, &capabilities, run)?;
        readers.iter_mut().try_for_each(|reader| grip::settle(reader, &capabilities))?;
        let [mut definitions, mut tables] = [connect(server, run)?, connect(server, run)?];
        settle(&mut definitions, &capabilities)?;
        settle(&mut tables, &capabilities)?;
        let patience = Patience::new(source.lock_wait, run);
        let holds = Arc::new(Holds::new(lock_definitions(definitions, &capabilities, &patience)?));
        let cancel = run.cancel.child_token();
        let keeper = Keeper::start(holds.clone(), cancel.clone());
        let inventory = Inventory::list(&mut control, &capabilities, &source.schemas, &source.exclude)?;
        grants.check(&inventory, &source.schemas)?;
        inventory.check_readable()?;
        warn_of_gaps(holds.has_definitions(), &capabilities, &grants, run);
        if let Some(slow) =
            grip::slowness(&mut readers[0], inventory.tables.len(), holds.has_definitions(), &capabilities)?
        {
            run.events.note(slow);
        }
        inventory.warn_of_losses(&run.events);
        let mut opening = Opening {
            control: &mut control,
            readers: &mut readers,
            capabilities: &capabilities,
            grants: &grants,
            source,
            inventory: &inventory,
            unheld,
            // What holds definitions may be another's as well, and then no migration goes first.
            yields_to_migrations: may_open_again && holds.has_definitions(),
            run,
        };
        let (moment, tables) = opening.open(tables)?;
        if let Some(tables) = tables {
            holds.take_tables(tables);
        }
        // The short patience was for the locks; definitions are read with the usual one.
        settle(&mut control, &capabilities)?;
        let server = server.clone();
        let mut snapshot = Self {
            server,
            source: source.clone(),
            capabilities,
            grants,
            control,
            holds,
            keeper,
            cancel,
            throttle: throttle.clone(),
            readers,
            inventory,
            moment,
            chunk_bytes: CHUNK_BYTES,
        };
        if !snapshot.holds.has_definitions() {
            snapshot.refuse_changes(New::Refused)?;
        }
        Ok(snapshot)
    }

    /// Proves that nobody has changed the tables to dump since they were listed.
    fn refuse_changes(&mut self, new: New) -> Result<(), MysqlSourceError> {
        let (schemas, exclude) = (&self.source.schemas, &self.source.exclude);
        let now = Inventory::list(&mut self.control, &self.capabilities, schemas, exclude)?;
        match self.inventory.changed(&now, new) {
            Some(table) => Err(MysqlSourceError::TableChanged { table }),
            None => Ok(()),
        }
    }

    /// Returns the moment that the dump will be true of.
    #[must_use]
    pub fn moment(&self) -> &Moment {
        &self.moment
    }

    /// Returns what makes the dump pause, and knows for how long it has.
    #[must_use]
    pub fn throttle(&self) -> Arc<Throttle> {
        self.throttle.clone()
    }

    /// Returns the name of the server, as manifests have it.
    #[must_use]
    pub fn server_id(&self) -> String {
        self.capabilities.server()
    }

    /// Cuts row files near another size.
    #[must_use]
    pub fn with_chunk_bytes(mut self, chunk_bytes: u64) -> Self {
        self.chunk_bytes = chunk_bytes.max(1);
        self
    }

    /// Takes the server for dead after another silence.
    #[must_use]
    pub fn with_silence_max(mut self, silence_max: Duration) -> Self {
        let wires = self.readers.iter_mut().chain([&mut self.control]);
        wires.for_each(|wire| wire.set_silence_max(silence_max));
        self
    }

    /// Returns the address that the server sees us come from, for [`crate::net::check_seen`]; `None` by socket.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn seen_as(&mut self) -> Result<Option<String>, MysqlSourceError> {
        let statement = "SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()";
        let found = session::rows(&mut self.control, "ask how the server sees us", statement)?;
        let host = found.first().map(|row| row.text(0).to_owned());
        Ok(host.filter(|_| matches!(self.server.address, MysqlAddress::Tcp { .. })))
    }
}

/// Logs in all that will read rows, before any lock is taken.
fn connect_readers(
    server: &Server,
    count: usize,
    capabilities: &Capabilities,
    run: &Run,
) -> Result<Vec<Wire>, MysqlSourceError> {
    let mut readers = Vec::with_capacity(count);
    for _ in 0..count {
        let mut reader = connect(server, run)?;
        settle(&mut reader, capabilities)?;
        want_raw_bytes(&mut reader)?;
        readers.push(reader);
    }
    Ok(readers)
}

/// Says what the account's privileges leave out, where the dump is good without.
fn warn_of_gaps(has_definitions: bool, capabilities: &Capabilities, grants: &Grants, run: &Run) {
    for gap in grants.gaps(has_definitions, capabilities) {
        run.events.warn(gap);
    }
}

/// What a look at a server finds before any dump.
#[derive(Debug)]
pub struct Survey {
    /// What the account's privileges leave out, where a dump is good without.
    pub gaps: Vec<String>,
    /// Tables of engines without transactions, among those to dump: name and engine.
    pub non_transactional: Vec<String>,
}

/// Looks at a server as a dump does before it takes a lock; takes none. Blocks.
///
/// # Errors
/// What would keep a dump from being made: above all a missing privilege, with the GRANT to run.
pub fn survey(server: &Server, source: &MysqlSource, run: &Run) -> Result<Survey, MysqlSourceError> {
    let mut control = connect(server, run)?;
    let capabilities = Capabilities::probe(&mut control)?;
    settle(&mut control, &capabilities)?;
    let grants = Grants::read(&mut control, capabilities.product)?;
    let inventory = Inventory::list(&mut control, &capabilities, &source.schemas, &source.exclude)?;
    grants.check(&inventory, &source.schemas)?;
    if !grants.may_lock(inventory.schema_names()) {
        return Err(grants.may_not_lock());
    }
    let unprotected = inventory.unprotected();
    grip::settle(&mut control, &capabilities)?;
    let has_definitions = grants.may_lock_definitions();
    let slow = grip::slowness(&mut control, inventory.tables.len(), has_definitions, &capabilities)?;
    let gaps = grants.gaps(has_definitions, &capabilities);
    Ok(Survey {
        gaps: gaps.into_iter().chain(slow).collect(),
        non_transactional: unprotected.map(|table| format!("{} ({})", table.title(), table.engine)).collect(),
    })
}
