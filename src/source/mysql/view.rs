//! Opens the read views of all connections at one moment.

use chrono::{DateTime, Utc};

use crate::mysql::manifest::{Consistency, Position};
use crate::mysql::wire::{Wire, WireError};
use crate::policy::{MysqlSource, NonTransactional};
use crate::run::Run;
use crate::source::mysql::Unheld;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::grants::Grants;
use crate::source::mysql::inventory::{Inventory, Table};
use crate::source::mysql::lock::{Patience, free_all, lock_all, lock_all_and_tables, lock_tables};
use crate::source::mysql::moment::{self, Moment};
use crate::source::mysql::session::{Capabilities, TextRow, rows, run_sql, text_rows};

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
    pub(crate) unheld: Unheld,
    pub(crate) yields_to_migrations: bool,
    pub(crate) run: &'a Run,
}

/// Tables by schema and name.
type Names = Vec<(String, String)>;

impl<'a> Opening<'a> {
    /// Opens the read views. The session returned holds locks on tables until they are read.
    ///
    /// Whether the account may take a lock, the server's answer says: what its grants promise is not always so (hosted servers
    /// refuse the global read lock to everybody).
    pub(crate) fn open(&mut self, mut spare: Wire) -> Result<(Moment, Option<Wire>), MysqlSourceError> {
        let unprotected = self.unprotected()?;
        if unprotected.is_empty()
            && self.binlog_tells_all()?
            && let Some(moment) = self.without_lock()?
        {
            return Ok((moment, None));
        }
        if let Some(moment) = self.under_global_lock(&mut spare, &unprotected)? {
            return Ok((moment, (!unprotected.is_empty()).then_some(spare)));
        }
        if let Some(moment) = self.under_table_locks(&mut spare, unprotected.is_empty())? {
            return Ok((moment, (!unprotected.is_empty()).then_some(spare)));
        }
        self.unheld().map(|moment| (moment, None))
    }

    /// Returns the tables that a read view does not hold still.
    fn unprotected(&self) -> Result<Names, MysqlSourceError> {
        let tables: Vec<&Table> = self.inventory.unprotected().collect();
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
        Patience::new(self.source.lock_wait, self.run).yielding(self.yields_to_migrations)
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

    /// Tells whether whatever changes a table moves the binlog's position, which then proves read views equal. (A session may
    /// keep itself out of the binlog by `sql_log_bin = 0`, and none can see it: README.md tells administrators.)
    fn binlog_tells_all(&mut self) -> Result<bool, MysqlSourceError> {
        if !self.capabilities.is_mariadb() || !self.capabilities.has_binlog() {
            return Ok(false);
        }
        let why = match self.binlog_filters()? {
            None => "the account may not see whether the binlog leaves schemas out",
            Some(true) => "the binlog leaves schemas out",
            Some(false) if self.capabilities.is_on("log_slave_updates") => return Ok(true),
            Some(false) if self.capabilities.is_on("wsrep_on") => {
                "the cluster's changes are not in this server's binlog"
            }
            Some(false) if self.may_replicate()? => "what is replicated is not in this server's binlog",
            Some(false) => return Ok(true),
        };
        self.run.events.detail(format!("{why}: taking the global read lock for a moment"));
        Ok(false)
    }

    /// Tells whether only some schemas' changes are written to the binlog; `None` where the account may not know.
    fn binlog_filters(&mut self) -> Result<Option<bool>, MysqlSourceError> {
        let act = "read the binlog's filters";
        match self.control.query("SHOW MASTER STATUS") {
            Ok(found) => {
                Ok(text_rows(act, found)?.first().map(|row| !row.text(2).is_empty() || !row.text(3).is_empty()))
            }
            Err(error) if error.is_denied() => Ok(None),
            Err(error) => Err(MysqlSourceError::query(act)(error)),
        }
    }

    /// Tells whether the server follows another, or whether the account could not see it.
    fn may_replicate(&mut self) -> Result<bool, MysqlSourceError> {
        let act = "ask whether the server is a replica";
        let statement = "SELECT @@global.gtid_slave_pos, \
                         (SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Slave\\_%')";
        let found = rows(self.control, act, statement)?;
        let is_quiet = |row: &TextRow| row.text(0).is_empty() && row.text(1) == "0";
        Ok(!self.grants.has("PROCESS") || !found.first().is_some_and(is_quiet))
    }

    /// MariaDB tells each read view's place in the binlog: where all are at one place, they see one moment.
    fn without_lock(&mut self) -> Result<Option<Moment>, MysqlSourceError> {
        for attempt in 1..=LOCK_FREE_TRIES_MAX {
            self.run.check().map_err(|_| MysqlSourceError::Stopped)?;
            // Before: a row committed in between is not in the views, and the moment must not promise it.
            let taken_at = moment::clock(self.control)?;
            self.begin()?;
            if let Some(position) = self.common_position()? {
                self.run.events.detail(format!("read views at one position without a lock, try {attempt}"));
                return self.moment_at(taken_at, position).map(Some);
            }
        }
        self.run.events.detail("no try found the read views at one position: taking the global read lock");
        Ok(None)
    }

    /// Returns the place in the binlog that all read views share, `None` where there is none.
    ///
    /// The server shows a session's place by way of variables that all its sessions share: one that is asked while another is
    /// may be told the other's. So the readers are asked in turn, and all of them twice, since monitoring asks as well: for
    /// a wrong place to pass, it would have to come by chance both times, and be the one that the other readers tell.
    fn common_position(&mut self) -> Result<Option<Position>, MysqlSourceError> {
        let mut common = None;
        for _look in 0..2 {
            for reader in self.readers.iter_mut() {
                let Some(position) = view_position(reader)? else {
                    return Ok(None);
                };
                if *common.get_or_insert_with(|| position.clone()) != position {
                    return Ok(None);
                }
            }
        }
        Ok(common)
    }

    fn moment_at(&mut self, taken_at: DateTime<Utc>, position: Position) -> Result<Moment, MysqlSourceError> {
        Ok(Moment {
            taken_at,
            consistency: Consistency::LockFree,
            gtid: moment::gtid_at(self.control, &position)?,
            position: Some(position),
            // What a replica has applied is in the binlog, too, where this way is taken at all.
            gtid_slave_pos: None,
            binlog_tells_all: true,
            write_stall_ms: 0.0,
        })
    }

    /// Stops writers, opens the views, reads the position, and lets writers go on; `None` where the account may not stop them.
    fn under_global_lock(
        &mut self,
        session: &mut Wire,
        unprotected: &Names,
    ) -> Result<Option<Moment>, MysqlSourceError> {
        let patience = self.patience();
        let held = if unprotected.is_empty() {
            lock_all(self.control, &patience)?
        } else {
            lock_all_and_tables(self.control, session, unprotected, &patience)?
        };
        let Some(held) = held else {
            return Ok(None);
        };
        self.begin()?;
        let mut moment = self.moment(Consistency::GlobalLock)?;
        moment.write_stall_ms = free_all(self.control, &held)?;
        Ok(Some(moment))
    }

    /// The way of an account that may not stop all writers: it stops those of the tables to dump. `None` where it may not even.
    fn under_table_locks(&mut self, session: &mut Wire, free: bool) -> Result<Option<Moment>, MysqlSourceError> {
        let tables = self.inventory.tables.iter().filter(|table| !table.is_hollow());
        let tables: Names = tables.map(|table| (table.schema.clone(), table.name.clone())).collect();
        if tables.is_empty() {
            self.begin()?;
            return self.moment(Consistency::TableLocks).map(Some);
        }
        let Some(held) = lock_tables(session, &tables, &self.patience())? else {
            return Ok(None);
        };
        self.run.events.warn(
            "the account may not stop all writers (RELOAD): those of the tables were, while the read views opened",
        );
        self.begin()?;
        let mut moment = self.moment(Consistency::TableLocks)?;
        if free {
            run_sql(session, "free the tables", "UNLOCK TABLES")?;
        }
        moment.write_stall_ms = held.stall_ms();
        Ok(Some(moment))
    }

    /// The way of an account that may stop nobody: only when asked for.
    fn unheld(&mut self) -> Result<Moment, MysqlSourceError> {
        if self.unheld == Unheld::Refuse {
            return Err(self.grants.may_not_lock());
        }
        self.run.events.warn(
            "INCONSISTENT, as allowed: the account may take no lock (RELOAD, LOCK TABLES), and tables may be of different moments",
        );
        self.begin()?;
        let moment = self.moment(Consistency::Inconsistent)?;
        // A replay from here would apply some changes twice and others never.
        Ok(Moment { position: None, gtid: None, gtid_slave_pos: None, ..moment })
    }

    fn moment(&mut self, consistency: Consistency) -> Result<Moment, MysqlSourceError> {
        moment::read(self.control, self.capabilities, self.grants, consistency)
    }
}

/// Returns the place in the binlog at which MariaDB opened a session's read view, as far as it tells.
fn view_position(reader: &mut Wire) -> Result<Option<Position>, MysqlSourceError> {
    let shown = rows(reader, "compare the read views", "SHOW STATUS LIKE 'binlog_snapshot_%'")?;
    let value = |name: &str| {
        let row = shown.iter().find(|row| row.text(0).eq_ignore_ascii_case(name));
        row.map_or("", |row| row.text(1))
    };
    let file = value("Binlog_snapshot_file").to_owned();
    let offset = value("Binlog_snapshot_position").parse().ok();
    Ok(offset.filter(|_| !file.is_empty()).map(|offset| Position { file, offset }))
}
