//! What a reader's transaction holds on to: the server's metadata lock on every table that it has read.
//!
//! MariaDB keeps a transaction's locks in a list and goes through all of it at each table that is opened: at 100,000 tables nine
//! tenths of its time went there. A rollback to a savepoint lets the locks go and leaves the read view as it is
//! (mysqldump --single-transaction does so after each table).

use crate::mysql::wire::Wire;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::session::{Capabilities, run_sql};

/// So many tables are held before they are let go: a short list, and next to no statements more.
const TABLES_HELD_MAX: usize = 256;

const ACT: &str = "let go of tables that are read";

/// Makes a connection ready, before its read view is opened. Where there is a binlog, MariaDB lets tables go in sessions only that keep
/// out of it; an account that may not say so holds all that it reads to the end.
pub(crate) fn settle(wire: &mut Wire, capabilities: &Capabilities) -> Result<(), MysqlSourceError> {
    if !is_held_by_binlog(capabilities) {
        return Ok(());
    }
    match wire.run("SET SESSION sql_log_bin = 0") {
        Err(error) if !error.is_denied() => Err(MysqlSourceError::query(ACT)(error)),
        _ => Ok(()),
    }
}

/// Tells whether a session must keep out of the binlog to let tables go. (MySQL lets them go, and finds them by a hash besides.)
pub(crate) fn is_held_by_binlog(capabilities: &Capabilities) -> bool {
    capabilities.is_mariadb() && capabilities.has_binlog()
}

/// Counts the tables that one reader holds, and lets them go.
#[derive(Debug)]
pub(crate) struct Grip {
    held: usize,
    /// The place of the last table in its list.
    last: Option<usize>,
}

impl Grip {
    /// Begins on a connection whose read view is open, and which holds no table yet.
    pub(crate) fn new(wire: &mut Wire) -> Result<Self, MysqlSourceError> {
        run_sql(wire, ACT, "SAVEPOINT bkp_view")?;
        Ok(Self { held: 0, last: None })
    }

    /// Makes room for the next table. Tables of many ranges are read one after the other, so none is let go between two of its ranges:
    /// where no other lock holds definitions still, its own is what keeps a migration from breaking it in two.
    pub(crate) fn reach_for(&mut self, wire: &mut Wire, table: usize) -> Result<(), MysqlSourceError> {
        if self.last.replace(table) == Some(table) {
            return Ok(());
        }
        if self.held == TABLES_HELD_MAX {
            run_sql(wire, ACT, "ROLLBACK TO SAVEPOINT bkp_view")?;
            self.held = 0;
        }
        self.held += 1;
        Ok(())
    }
}
