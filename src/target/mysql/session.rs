//! The settings of a loading connection: rows of every kind come back as they were, and nothing is silently made to fit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::manifest::Product;
use crate::mysql::server::Server;
use crate::mysql::sql;
use crate::target::mysql::LoadError;

/// Assignments that this target has and lets us make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    assignments: Vec<String>,
    may_skip_binlog: bool,
    /// The target wants every table in its own directory, whatever the dump says.
    ignores_dirs: bool,
}

/// What a load cannot do without, on every product.
const NEEDED: [(&str, &str); 3] = [("foreign_key_checks", "0"), ("time_zone", "'+00:00'"), ("autocommit", "1")];

/// Returns how keys are looked at while rows come in. A unique key is checked either way; without the checks MySQL may do it later.
///
/// MariaDB 10.6 and newer take "off" for leave to load an empty table in bulk, and 10.11.19 then hangs for ever where somebody reads the
/// table meanwhile. Their sort of rows that come sorted costs more than it spares where indexes are in place, and about as much as it
/// spares where they come later: loads of 1 GB took 35.8 s of its CPU without and 33.6 s with it, in turn, twice.
const fn unique_checks(product: Product) -> (&'static str, &'static str) {
    match product {
        Product::MySql => ("unique_checks", "0"),
        Product::MariaDb => ("unique_checks", "1"),
    }
}

/// What helps where it exists and is allowed. Some need a privilege on MySQL.
const WANTED: [(&str, &str); 19] = [
    // Rows that break a CHECK were in the source (MariaDB; MySQL has none such).
    ("check_constraint_checks", "0"),
    // History of system-versioned tables comes with its own times.
    ("system_versioning_insert_history", "1"),
    ("system_versioning_alter_history", "'KEEP'"),
    // A character set's default collation, which most servers leave out, stays what it was in the source (MariaDB).
    ("character_set_collations", "''"),
    // Tables are created as they were, not as today's rules would have them.
    ("innodb_strict_mode", "0"),
    ("explicit_defaults_for_timestamp", "1"),
    ("sql_require_primary_key", "0"),
    ("sql_generate_invisible_primary_key", "0"),
    ("restrict_fk_on_non_standard_key", "0"),
    // A slow store must not make the server hang up, nor a long index build.
    ("net_read_timeout", "3600"),
    ("net_write_timeout", "3600"),
    ("wait_timeout", "86400"),
    ("idle_transaction_timeout", "0"),
    ("max_statement_time", "0"),
    ("lock_wait_timeout", "3600"),
    ("completion_type", "'NO_CHAIN'"),
    // Indexes after the rows (MySQL): a larger buffer to sort in, which all threads of one build share.
    ("innodb_ddl_buffer_size", "134217728"),
    ("innodb_ddl_threads", "4"),
    ("innodb_parallel_read_threads", "4"),
];

/// Modes that change what an expression of the schema means, so that generated columns come out as they were.
const MODES_KEPT: [&str; 4] =
    ["NO_UNSIGNED_SUBTRACTION", "PAD_CHAR_TO_FULL_LENGTH", "TIME_TRUNCATE_FRACTIONAL", "TIME_ROUND_FRACTIONAL"];

/// The one mode of the target's own that a load keeps.
const IGNORES_DIRS: &str = "NO_DIR_IN_CREATE";

/// Returns the `sql_mode` to load under. Zero dates, days that no month has and an `AUTO_INCREMENT` of 0 come back; nothing is
/// strict, because warnings are errors anyway; a missing engine is not replaced by another.
fn load_mode(dumped: &str, ignores_dirs: bool) -> String {
    let kept = dumped.split(',').filter(|mode| MODES_KEPT.contains(mode));
    let own = ["NO_AUTO_VALUE_ON_ZERO", "ALLOW_INVALID_DATES", "NO_ENGINE_SUBSTITUTION"];
    own.into_iter().chain(ignores_dirs.then_some(IGNORES_DIRS)).chain(kept).collect::<Vec<_>>().join(",")
}

/// Finds out which settings a target has and lets this account change. The connection keeps them.
pub(super) async fn probe(
    conn: &mut Conn,
    product: Product,
    variables: &BTreeMap<String, String>,
) -> Result<Session, LoadError> {
    let mut assignments = Vec::new();
    for (name, value) in NEEDED.into_iter().chain([unique_checks(product)]) {
        set(conn, name, value).await.map_err(LoadError::at("prepare a loading session"))?;
        assignments.push(format!("{name} = {value}"));
    }
    for (name, value) in WANTED {
        if variables.contains_key(name) && set(conn, name, value).await.is_ok() {
            assignments.push(format!("{name} = {value}"));
        }
    }
    let may_skip_binlog = set(conn, "sql_log_bin", "0").await.is_ok();
    let mode = variables.get("sql_mode").map_or("", String::as_str);
    let ignores_dirs = mode.split(',').any(|mode| mode == IGNORES_DIRS);
    Ok(Session { assignments, may_skip_binlog, ignores_dirs })
}

async fn set(conn: &mut Conn, name: &str, value: &str) -> mysql_async::Result<()> {
    conn.query_drop(format!("SET SESSION {name} = {value}")).await
}

impl Session {
    /// Tells whether this account may keep the load out of the target's binlog.
    #[must_use]
    pub fn may_skip_binlog(&self) -> bool {
        self.may_skip_binlog
    }

    /// Returns the one statement that prepares a connection.
    fn statement(&self, settings: &Settings) -> String {
        let mut all = self.assignments.clone();
        all.push(format!("sql_mode = {}", sql::string(&load_mode(&settings.dumped_mode, self.ignores_dirs))));
        if settings.skip_binlog && self.may_skip_binlog {
            all.push("sql_log_bin = 0".to_owned());
        }
        format!("SET NAMES utf8mb4, SESSION {}", all.join(", SESSION "))
    }
}

/// What the dump and the operator decide about a session.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// The source's global `sql_mode`, as the target says it.
    pub(super) dumped_mode: String,
    pub(super) skip_binlog: bool,
}

/// Opens prepared connections to one target, and knows which of them the server may still be busy with.
#[derive(Debug)]
pub(super) struct Opener {
    server: Server,
    prepare: String,
    sessions: Mutex<Sessions>,
}

/// Names of the locks that our sessions hold.
#[derive(Debug, Default)]
struct Sessions {
    open: BTreeSet<String>,
    /// Those of sessions that were dropped in the middle of something.
    abandoned: BTreeSet<String>,
}

/// A prepared connection, whose session holds a lock under a name that nobody else can guess. Who holds it is ours, whatever
/// number the server gives it: after a restart of the server the same number may be another's.
#[derive(Debug)]
pub(super) struct OwnConn {
    conn: Conn,
    lock: String,
}

impl Deref for OwnConn {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for OwnConn {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// A killed session rolls its chunk back; 64 MiB of rows take seconds. After this long we go on: locks that are still held
/// only make the next one wait.
const KILL_WAIT_MAX: Duration = Duration::from_secs(30);
const KILL_POLL: Duration = Duration::from_millis(50);

/// Statements that set or ask a little are answered at once; a server that needs longer than this hangs.
const ANSWER_S_MAX: u64 = 60;

impl Opener {
    pub(super) fn new(server: &Server, session: &Session, settings: &Settings) -> Self {
        Self { server: server.clone(), prepare: session.statement(settings), sessions: Mutex::default() }
    }

    pub(super) async fn open(&self) -> Result<OwnConn, LoadError> {
        let mut own = OwnConn { conn: self.server.connect().await?, lock: lock_name() };
        self.sessions().open.insert(own.lock.clone());
        let act = "prepare a loading session";
        let locked = own.conn.query_drop(format!("SELECT GET_LOCK('{}', 0)", own.lock));
        answered(act, locked).await?.map_err(LoadError::at(act))?;
        self.prepare(&mut own).await?;
        Ok(own)
    }

    /// Opens a connection that only asks something: it holds no lock, and nothing has to end it.
    pub(super) async fn open_to_ask(&self) -> Result<Conn, LoadError> {
        Ok(self.server.connect().await?)
    }

    /// Gives a connection its settings again, after statements of the dump have changed them.
    pub(super) async fn prepare(&self, conn: &mut Conn) -> Result<(), LoadError> {
        let act = "prepare a loading session";
        answered(act, conn.query_drop(&self.prepare)).await?.map_err(LoadError::at(act))
    }

    pub(super) async fn close(&self, own: OwnConn) {
        // A connection that does not close well is closed all the same.
        own.conn.disconnect().await.ok();
        self.sessions().open.remove(&own.lock);
    }

    /// Drops a connection in the middle of whatever it does.
    pub(super) fn abandon(&self, own: OwnConn) {
        let OwnConn { conn, lock } = own;
        drop(conn);
        let mut sessions = self.sessions();
        sessions.open.remove(&lock);
        sessions.abandoned.insert(lock);
    }

    /// Ends the sessions whose connections were abandoned, and waits until the server has rolled them back.
    pub(super) async fn kill_abandoned(&self) -> Result<(), LoadError> {
        let names = self.sessions().abandoned.clone();
        self.kill(&names).await?;
        self.sessions().abandoned.retain(|name| !names.contains(name));
        Ok(())
    }

    /// Ends every session that was not closed: the load is over.
    pub(super) async fn kill_left(&self) -> Result<(), LoadError> {
        let Sessions { open, mut abandoned } = std::mem::take(&mut *self.sessions());
        abandoned.extend(open);
        self.kill(&abandoned).await
    }

    async fn kill(&self, names: &BTreeSet<String>) -> Result<(), LoadError> {
        if names.is_empty() {
            return Ok(());
        }
        let mut conn = self.server.connect().await?;
        // Waited long enough: as said above, others then wait for its locks.
        tokio::time::timeout(KILL_WAIT_MAX, end(&mut conn, names)).await.unwrap_or(Ok(()))?;
        tokio::time::timeout(KILL_WAIT_MAX, conn.disconnect()).await.ok();
        Ok(())
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a name for a lock that nobody else has or guesses.
pub(super) fn lock_name() -> String {
    let mut random = [0; 16];
    // Without entropy the time tells sessions apart, and nobody guesses it by chance.
    if getrandom::fill(&mut random).is_err() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        random = now.as_nanos().to_le_bytes();
    }
    format!("bkp_{}", hex::encode(random))
}

/// Waits for an answer that has to come soon.
pub(super) async fn answered<T>(act: &str, asked: impl Future<Output = T>) -> Result<T, LoadError> {
    let wait = Duration::from_secs(ANSWER_S_MAX);
    tokio::time::timeout(wait, asked)
        .await
        .map_err(|_| LoadError::NoAnswer { act: act.to_owned(), seconds: ANSWER_S_MAX })
}

/// Ends the sessions that hold these locks, and waits until the server has let go of them.
async fn end(conn: &mut Conn, names: &BTreeSet<String>) -> Result<(), LoadError> {
    for name in names {
        loop {
            let asked = format!("SELECT IS_USED_LOCK('{name}')");
            let holder: Option<Option<u32>> =
                conn.query_first(asked).await.map_err(LoadError::at("wait for the end of our sessions"))?;
            let Some(id) = holder.flatten() else { break };
            // One that has just gone is an error to KILL and the very thing we want.
            conn.query_drop(format!("KILL {id}")).await.ok();
            tokio::time::sleep(KILL_POLL).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_not_strict_and_keeps_what_expressions_mean() {
        let mode = load_mode("STRICT_TRANS_TABLES,NO_ZERO_DATE,TIME_TRUNCATE_FRACTIONAL,ANSI_QUOTES", false);
        assert_eq!(mode, "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION,TIME_TRUNCATE_FRACTIONAL");
    }
}
