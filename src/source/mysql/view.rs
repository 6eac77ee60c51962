//! Opens the read views of all connections at one moment.

use crate::mysql::manifest::{Consistency, Position};
use crate::mysql::wire::{Wire, WireError};
use crate::policy::{MysqlSource, NonTransactional};
use crate::run::Run;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::grants::Grants;
use crate::source::mysql::inventory::{Inventory, Table};
use crate::source::mysql::lock::{DefinitionLock, Patience, free_all, lock_all, lock_tables};
use crate::source::mysql::moment::{self, Moment};
use crate::source::mysql::session::{Capabilities, run_sql, text_rows};

const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// At 5,700 commits a second one of five tries finds all connections at one position; a hundred leave no chance to chance.
const LOCK_FREE_TRIES_MAX: u32 = 100;

/// Names shown in a message.
const NAMES_SHOWN: usize = 5;

/// What stands behind the readers of a dump.
pub(crate) struct Opening<'a> {
    pub(crate) control: &'a mut Wire,
    pub(crate) readers: &'a mut [Wire],
    pub(crate) capabilities: &'a Capabilities,
    pub(crate) grants: &'a Grants,
    pub(crate) source: &'a MysqlSource,
    pub(crate) inventory: &'a Inventory,
    pub(crate) run: &'a Run,
}

impl<'a> Opening<'a> {
    /// Opens the read views. The session returned holds locks on tables until they are read.
    pub(crate) fn open(
        &mut self,
        definitions: &DefinitionLock,
        mut spare: Wire,
    ) -> Result<(Moment, Option<Wire>), MysqlSourceError> {
        let unprotected = self.unprotected()?;
        if matches!(definitions, DefinitionLock::None) && !self.grants.has("RELOAD") {
            return self.under_table_locks(spare, !unprotected.is_empty());
        }
        if unprotected.is_empty()
            && self.capabilities.is_mariadb()
            && self.capabilities.has_binlog()
            && let Some(moment) = self.without_lock()?
        {
            return Ok((moment, None));
        }
        let moment = self.under_global_lock(&mut spare, &unprotected)?;
        Ok((moment, (!unprotected.is_empty()).then_some(spare)))
    }

    /// Returns the tables that a read view does not hold still.
    fn unprotected(&self) -> Result<Vec<(String, String)>, MysqlSourceError> {
        let is_unprotected = |table: &&Table| !table.is_transactional() && !table.is_hollow();
        let tables: Vec<&Table> = self.inventory.tables.iter().filter(is_unprotected).collect();
        if !tables.is_empty() && self.source.non_transactional == NonTransactional::Refuse {
            let mut names: Vec<String> = tables
                .iter()
                .take(NAMES_SHOWN)
                .map(|table| format!("`{}` ({})", table.title(), table.engine))
                .collect();
            if tables.len() > NAMES_SHOWN {
                names.push("…".to_owned());
            }
            return Err(MysqlSourceError::NonTransactional { count: tables.len(), tables: names.join(", ") });
        }
        Ok(tables.iter().map(|table| (table.schema.clone(), table.name.clone())).collect())
    }

    fn patience(&self) -> Patience<'a> {
        Patience { wait: self.source.lock_wait, run: self.run }
    }

    /// Begins on all connections at once: each has been asked before the first has answered.
    fn begin(&mut self) -> Result<(), MysqlSourceError> {
        let act = "open the read views";
        self.each(act, |reader| reader.send(BEGIN))?;
        self.each(act, Wire::finish)
    }

    fn each(
        &mut self,
        act: &str,
        mut step: impl FnMut(&mut Wire) -> Result<(), WireError>,
    ) -> Result<(), MysqlSourceError> {
        self.readers.iter_mut().try_for_each(&mut step).map_err(MysqlSourceError::query(act))
    }

    /// MariaDB tells each read view's place in the binlog: where all are at one place, they see one moment.
    fn without_lock(&mut self) -> Result<Option<Moment>, MysqlSourceError> {
        for attempt in 1..=LOCK_FREE_TRIES_MAX {
            self.run.check().map_err(|_| MysqlSourceError::Stopped)?;
            self.begin()?;
            if let Some(position) = self.common_position()? {
                self.run.events.detail(format!("read views at one position without a lock, try {attempt}"));
                return self.moment_at(position).map(Some);
            }
        }
        self.run.events.detail("no try found the read views at one position: taking the global read lock");
        Ok(None)
    }

    fn common_position(&mut self) -> Result<Option<Position>, MysqlSourceError> {
        let act = "compare the read views";
        self.each(act, |reader| reader.send("SHOW STATUS LIKE 'binlog_snapshot_%'"))?;
        let mut positions = Vec::new();
        for reader in self.readers.iter_mut() {
            let rows = text_rows(reader.rows().map_err(MysqlSourceError::query(act))?);
            let value = |name: &str| {
                let row = rows.iter().find(|row| row.text(0).eq_ignore_ascii_case(name));
                row.map_or("", |row| row.text(1)).to_owned()
            };
            positions.push((value("Binlog_snapshot_file"), value("Binlog_snapshot_position")));
        }
        let Some((file, offset)) = positions.first().filter(|(file, _)| !file.is_empty()) else {
            return Ok(None);
        };
        if positions.iter().any(|other| (&other.0, &other.1) != (file, offset)) {
            return Ok(None);
        }
        Ok(offset.parse().ok().map(|offset| Position { file: file.clone(), offset }))
    }

    fn moment_at(&mut self, position: Position) -> Result<Moment, MysqlSourceError> {
        Ok(Moment {
            taken_at: moment::clock(self.control)?,
            consistency: Consistency::LockFree,
            gtid: moment::gtid_at(self.control, &position)?,
            position: Some(position),
            write_stall_ms: 0.0,
        })
    }

    /// Stops writers, opens the views, reads the position, and lets writers go on.
    fn under_global_lock(
        &mut self,
        session: &mut Wire,
        unprotected: &[(String, String)],
    ) -> Result<Moment, MysqlSourceError> {
        let patience = self.patience();
        let held = lock_all(self.control, &patience, self.grants)?;
        if !unprotected.is_empty() {
            let tables = unprotected.iter().map(|(schema, name)| (schema.as_str(), name.as_str()));
            lock_tables(session, tables, &patience, self.grants)?;
        }
        self.begin()?;
        let mut moment = moment::read(self.control, self.capabilities, self.grants, Consistency::GlobalLock)?;
        moment.write_stall_ms = free_all(self.control, &held)?;
        Ok(moment)
    }

    /// The way of an account that may not stop all writers: it stops those of the tables to dump.
    fn under_table_locks(&mut self, mut session: Wire, keep: bool) -> Result<(Moment, Option<Wire>), MysqlSourceError> {
        self.run.events.warn("the account lacks RELOAD: the tables are locked one by one while the read views open");
        let tables = self.inventory.tables.iter().filter(|table| !table.is_hollow());
        let tables = tables.map(|table| (table.schema.as_str(), table.name.as_str()));
        let held = lock_tables(&mut session, tables, &self.patience(), self.grants)?;
        self.begin()?;
        let mut moment = moment::read(self.control, self.capabilities, self.grants, Consistency::TableLocks)?;
        if !keep {
            run_sql(&mut session, "free the tables", "UNLOCK TABLES")?;
        }
        moment.write_stall_ms = held.stall_ms();
        Ok((moment, keep.then_some(session)))
    }
}
