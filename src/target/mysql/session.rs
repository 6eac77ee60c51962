//! The settings of a loading connection: rows of every kind come back as they were, and nothing is silently made to fit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::server::Server;
use crate::mysql::sql;
use crate::target::mysql::LoadError;

/// Assignments that this target has and lets us make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    assignments: Vec<String>,
    may_skip_binlog: bool,
}

/// What a load cannot do without, on every product.
const NEEDED: [(&str, &str); 4] =
    [("foreign_key_checks", "0"), ("unique_checks", "0"), ("time_zone", "'+00:00'"), ("autocommit", "1")];

/// What helps where it exists and is allowed. Some need a privilege on MySQL.
const WANTED: [(&str, &str); 15] = [
    // Rows that break a CHECK were in the source (MariaDB; MySQL has none such).
    ("check_constraint_checks", "0"),
    // History of system-versioned tables comes with its own times.
    ("system_versioning_insert_history", "1"),
    ("system_versioning_alter_history", "'KEEP'"),
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
];

/// Modes that change what an expression of the schema means, so that generated columns come out as they were.
const MODES_KEPT: [&str; 2] = ["NO_UNSIGNED_SUBTRACTION", "PAD_CHAR_TO_FULL_LENGTH"];

/// Returns the `sql_mode` to load under. Zero dates, days that no month has and an `AUTO_INCREMENT` of 0 come back; nothing is
/// strict, because warnings are errors anyway; a missing engine is not replaced by another.
pub(super) fn load_mode(dumped: &str) -> String {
    let kept = dumped.split(',').filter(|mode| MODES_KEPT.contains(mode));
    let own = ["NO_AUTO_VALUE_ON_ZERO", "ALLOW_INVALID_DATES", "NO_ENGINE_SUBSTITUTION"];
    own.into_iter().chain(kept).collect::<Vec<_>>().join(",")
}

/// Finds out which settings a target has and lets this account change. The connection keeps them.
pub(super) async fn probe(conn: &mut Conn, variables: &BTreeMap<String, String>) -> Result<Session, LoadError> {
    let mut assignments = Vec::new();
    for (name, value) in NEEDED {
        set(conn, name, value).await.map_err(LoadError::at("prepare a loading session"))?;
        assignments.push(format!("{name} = {value}"));
    }
    for (name, value) in WANTED {
        if variables.contains_key(name) && set(conn, name, value).await.is_ok() {
            assignments.push(format!("{name} = {value}"));
        }
    }
    let may_skip_binlog = set(conn, "sql_log_bin", "0").await.is_ok();
    Ok(Session { assignments, may_skip_binlog })
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
        all.push(format!("sql_mode = {}", sql::string(&load_mode(&settings.dumped_mode))));
        if settings.skip_binlog && self.may_skip_binlog {
            all.push("sql_log_bin = 0".to_owned());
        }
        format!("SET NAMES utf8mb4, SESSION {}", all.join(", SESSION "))
    }
}

/// What the dump and the operator decide about a session.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// The source's global `sql_mode`.
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

/// Ids of our sessions on the target.
#[derive(Debug, Default)]
struct Sessions {
    open: BTreeSet<u32>,
    /// Dropped in the middle of something.
    abandoned: BTreeSet<u32>,
}

/// A killed session rolls its chunk back; 64 MiB of rows take seconds. After this long we go on: locks that are still held
/// only make the next one wait.
const KILL_WAIT_MAX: Duration = Duration::from_secs(30);
const KILL_POLL: Duration = Duration::from_millis(50);

impl Opener {
    pub(super) fn new(server: &Server, session: &Session, settings: &Settings) -> Self {
        Self { server: server.clone(), prepare: session.statement(settings), sessions: Mutex::default() }
    }

    pub(super) async fn open(&self) -> Result<Conn, LoadError> {
        let mut conn = self.server.connect().await?;
        self.sessions().open.insert(conn.id());
        self.prepare(&mut conn).await?;
        Ok(conn)
    }

    /// Gives a connection its settings again, after statements of the dump have changed them.
    pub(super) async fn prepare(&self, conn: &mut Conn) -> Result<(), LoadError> {
        conn.query_drop(&self.prepare).await.map_err(LoadError::at("prepare a loading session"))
    }

    pub(super) async fn close(&self, conn: Conn) {
        let id = conn.id();
        // A connection that does not close well is closed all the same.
        conn.disconnect().await.ok();
        self.sessions().open.remove(&id);
    }

    /// Drops a connection in the middle of whatever it does.
    pub(super) fn abandon(&self, conn: Conn) {
        let id = conn.id();
        drop(conn);
        let mut sessions = self.sessions();
        sessions.open.remove(&id);
        sessions.abandoned.insert(id);
    }

    /// Ends the sessions whose connections were abandoned, and waits until the server has rolled them back.
    pub(super) async fn kill_abandoned(&self) -> Result<(), LoadError> {
        let ids = std::mem::take(&mut self.sessions().abandoned);
        self.kill(&ids).await
    }

    /// Ends every session that was not closed: the load is over.
    pub(super) async fn kill_left(&self) -> Result<(), LoadError> {
        let Sessions { mut open, mut abandoned } = std::mem::take(&mut *self.sessions());
        open.append(&mut abandoned);
        self.kill(&open).await
    }

    async fn kill(&self, ids: &BTreeSet<u32>) -> Result<(), LoadError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut conn = self.server.connect().await?;
        for id in ids {
            // Most are gone already, which is an error to KILL and the very thing we want.
            conn.query_drop(format!("KILL {id}")).await.ok();
        }
        // Waited long enough: as said above, others then wait for its locks.
        tokio::time::timeout(KILL_WAIT_MAX, gone(&mut conn, ids)).await.unwrap_or(Ok(()))?;
        conn.disconnect().await.ok();
        Ok(())
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the server has let go of sessions.
async fn gone(conn: &mut Conn, ids: &BTreeSet<u32>) -> Result<(), LoadError> {
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let asked = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE id IN ({list})");
    loop {
        let left: Option<u64> =
            conn.query_first(&asked).await.map_err(LoadError::at("wait for the end of our sessions"))?;
        if left == Some(0) {
            return Ok(());
        }
        tokio::time::sleep(KILL_POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_not_strict_and_keeps_what_expressions_mean() {
        let mode = load_mode("STRICT_TRANS_TABLES,NO_ZERO_DATE,ANSI_QUOTES,NO_UNSIGNED_SUBTRACTION");
        assert_eq!(mode, "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION,NO_UNSIGNED_SUBTRACTION");
    }
}
