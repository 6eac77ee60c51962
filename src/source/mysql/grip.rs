//! What a reader's transaction holds on to: the server's metadata lock on every table that it has read.
//!
//! MariaDB keeps a transaction's locks in a list and goes through all of it at each table that is opened: at 100,000 tables nine
//! tenths of its time went there. A rollback to a savepoint lets the locks go and leaves the read view as it is
//! (mysqldump --single-transaction does so after each table). Where no other lock holds definitions still, these are what keeps
//! migrations from the tables of a dump, and are held to its end.

use crate::mysql::wire::Wire;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::session::{Capabilities, rows};

/// After so many ranges, the tables are let go: a short list, and next to no statements more.
const RANGES_HELD_MAX: usize = 256;

/// From here on, it takes longer to find a table among those that are held than to read it.
const MANY_TABLES: usize = 30_000;

const ACT: &str = "let go of tables that are read";

/// Makes a connection ready, before its read view is opened. With a binlog, MariaDB was seen to let tables go in sessions only that
/// keep out of it; one that may not say so holds all that it reads to the end, and is slower.
pub(crate) fn settle(wire: &mut Wire, capabilities: &Capabilities) -> Result<(), MysqlSourceError> {
    if !capabilities.is_mariadb() {
        return Ok(());
    }
    match wire.run("SET SESSION sql_log_bin = 0") {
        Err(error) if error.code().is_none() => Err(MysqlSourceError::query(ACT)(error)),
        _ => Ok(()),
    }
}

/// Returns why a dump of so many tables takes longer than it need, for people. Where no lock holds definitions nothing is let go, and
/// it takes as long as it takes.
pub(crate) fn slowness(
    reader: &mut Wire,
    tables: usize,
    has_definitions: bool,
    capabilities: &Capabilities,
) -> Result<Option<String>, MysqlSourceError> {
    let has_binlog = capabilities.has_binlog() || capabilities.is_on("wsrep_on");
    if tables < MANY_TABLES || !has_definitions || !capabilities.is_mariadb() || !has_binlog {
        return Ok(None);
    }
    let asked = rows(reader, ACT, "SELECT @@SESSION.sql_log_bin")?;
    let is_slow = asked.first().is_some_and(|row| row.text(0) == "1");
    Ok(is_slow.then(|| {
        format!(
            "the account lacks BINLOG ADMIN: MariaDB opens each of {tables} tables the slower the more the dump has read (README.md, \
             \"Rights on the source\")"
        )
    }))
}

/// Counts what one reader has read, and lets its tables go.
#[derive(Debug)]
pub(crate) struct Grip {
    ranges: usize,
}

impl Grip {
    /// Begins on a connection whose read view is open. What it holds by then stays held.
    pub(crate) fn new(wire: &mut Wire) -> Result<Self, MysqlSourceError> {
        wire.run("SAVEPOINT bkp_view").map_err(MysqlSourceError::viewing(ACT))?;
        Ok(Self { ranges: 0 })
    }

    /// Makes room for the next range.
    pub(crate) fn make_room(&mut self, wire: &mut Wire) -> Result<(), MysqlSourceError> {
        if self.ranges == RANGES_HELD_MAX {
            wire.run("ROLLBACK TO SAVEPOINT bkp_view").map_err(MysqlSourceError::viewing(ACT))?;
            self.ranges = 0;
        }
        self.ranges += 1;
        Ok(())
    }
}
