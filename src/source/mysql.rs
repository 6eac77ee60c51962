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
mod dump;
mod error;
mod grants;
mod hash;
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
mod view;
mod work;

use crate::mysql::server::Server;
use crate::mysql::wire::Wire;
use crate::policy::MysqlSource;
use crate::run::Run;
use crate::source::mysql::grants::Grants;
use crate::source::mysql::inventory::Inventory;
use crate::source::mysql::lock::{DefinitionLock, Patience};
use crate::source::mysql::session::{Capabilities, connect, settle, want_raw_bytes};
use crate::source::mysql::view::Opening;

pub use error::MysqlSourceError;
pub use hash::{ChunkHash, hash_chunks};
pub use moment::Moment;

/// Row files end near this size: large enough to load fast, small enough to try again and to share out.
pub const CHUNK_BYTES: u64 = 64 * 1024 * 1024;

/// A server held at one moment, ready to be read.
pub struct Snapshot {
    server: Server,
    source: MysqlSource,
    capabilities: Capabilities,
    grants: Grants,
    /// Metadata is read here; on MySQL it also holds the lock on definitions.
    control: Wire,
    definitions: DefinitionLock,
    /// Holds the read locks on tables that no read view holds still.
    table_locks: Option<Wire>,
    /// The last one scouts for the others.
    readers: Vec<Wire>,
    inventory: Inventory,
    moment: Moment,
    chunk_bytes: u64,
}

impl Snapshot {
    /// Opens the read views. Writers wait for milliseconds, if at all.
    ///
    /// # Errors
    /// A missing privilege with the GRANT to run, tables without transactions, a lock that was not free, a broken connection.
    pub fn open(server: &Server, source: &MysqlSource, run: &Run) -> Result<Self, MysqlSourceError> {
        let mut control = connect(server, run)?;
        let capabilities = Capabilities::probe(&mut control)?;
        settle(&mut control, &capabilities)?;
        let grants = Grants::read(&mut control)?;
        let mut readers = connect_readers(server, source.connections.max(1) + 1, &capabilities, run)?;
        let [mut stage, mut locks] = [connect(server, run)?, connect(server, run)?];
        settle(&mut stage, &capabilities)?;
        settle(&mut locks, &capabilities)?;
        let patience = Patience { wait: source.lock_wait, run };
        let definitions = DefinitionLock::take(&mut control, stage, &capabilities, &patience)?;
        let inventory = Inventory::list(&mut control, &capabilities, &source.schemas, &source.exclude)?;
        grants.check(inventory.schema_names())?;
        warn_of_gaps(&definitions, &capabilities, &grants, run);
        let mut opening = Opening {
            control: &mut control,
            readers: &mut readers,
            capabilities: &capabilities,
            grants: &grants,
            source,
            inventory: &inventory,
            run,
        };
        let (moment, table_locks) = opening.open(&definitions, locks)?;
        // The short patience was for the locks; definitions are read with the usual one.
        settle(&mut control, &capabilities)?;
        Ok(Self {
            server: server.clone(),
            source: source.clone(),
            capabilities,
            grants,
            control,
            definitions,
            table_locks,
            readers,
            inventory,
            moment,
            chunk_bytes: CHUNK_BYTES,
        })
    }

    /// Returns the moment that the dump will be true of.
    #[must_use]
    pub fn moment(&self) -> &Moment {
        &self.moment
    }

    /// Cuts row files near another size.
    #[must_use]
    pub fn with_chunk_bytes(mut self, chunk_bytes: u64) -> Self {
        self.chunk_bytes = chunk_bytes.max(1);
        self
    }

    /// Returns the address that the server sees us come from, for [`crate::net::check_seen`]; `None` by socket.
    pub fn seen_as(&mut self) -> Result<Option<String>, MysqlSourceError> {
        let statement = "SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()";
        let found = session::rows(&mut self.control, "ask how the server sees us", statement)?;
        let host = found.first().map(|row| row.text(0).to_owned());
        Ok(host.filter(|host| host.contains(':')))
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
fn warn_of_gaps(definitions: &DefinitionLock, capabilities: &Capabilities, grants: &Grants, run: &Run) {
    if matches!(definitions, DefinitionLock::None) && grants.has("RELOAD") {
        run.events.warn("the account lacks BACKUP_ADMIN: a table altered during the dump makes it fail");
    }
    if capabilities.has_binlog() && !grants.sees_position(capabilities.product) {
        run.events
            .warn("the account lacks REPLICATION CLIENT (BINLOG MONITOR): the dump may not know its binlog position");
    }
    if !grants.sees_accounts() {
        run.events.warn("the account lacks SELECT on mysql.*: users, roles and grants are not in the dump");
    }
}
