//! Why a database could not be dumped.

use std::time::Duration;

use crate::mysql::server::ServerError;
use crate::mysql::wire::WireError;
use crate::source::SinkError;
use crate::source::mysql::throttle::Reason;

#[derive(Debug, thiserror::Error)]
pub enum MysqlSourceError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("{act}")]
    Query {
        act: String,
        #[source]
        error: WireError,
    },
    /// The read view went with its connection: what another would read is of another moment.
    #[error("{act}: the connection that held the read view is gone")]
    ViewLost {
        act: String,
        #[source]
        error: WireError,
    },
    #[error("read `{table}`: its definition changed during the dump")]
    TableChanged { table: String },
    #[error("read `{table}`: the server cut a value short: {warning}")]
    Cut { table: String, warning: String },
    #[error("{act}: the server's answer is not UTF-8")]
    NotText { act: String },
    #[error("ask for the server's time: it says `{text}`")]
    Clock { text: String },
    #[error(
        "dump the server to one moment: the account lacks both RELOAD and LOCK TABLES, one of which stops writers for a moment"
    )]
    MayNotLock { grant: String },
    #[error("dump the server: the account lacks {what}")]
    Privilege { what: String, grant: String },
    #[error("dump the server to one moment: {count} tables are of engines without transactions: {tables}")]
    NonTransactional { count: usize, tables: String },
    #[error("stop writers for a moment: the lock was not free in {tries} tries of {seconds} s{blocker}")]
    Locked {
        tries: u32,
        seconds: u64,
        /// `; held up by …`, or nothing where it is not known.
        blocker: String,
    },
    #[error("dump the server: all pauses together took longer than {max}: {why}")]
    PausedTooLong { max: String, reason: Reason, why: String },
    #[error("read the definition of `{table}`: the server lists it and shows no column of it: {comment}")]
    Unreadable { table: String, comment: String },
    #[error("ask how busy the server is: it does not tell its running threads")]
    BusynessUntold,
    #[error("stop writers for a moment: a migration waits for the lock that holds definitions still")]
    MigrationWaits {
        /// How long writers waited for nothing.
        stall: Duration,
    },
    #[error("dump the schema `{schema}`: the server has none of this name")]
    UnknownSchema { schema: String },
    #[error("compare `{table}` with the sandbox: {problem}")]
    Uncomparable { table: String, problem: String },
    #[error("compare with the sandbox: the account lacks {what}, and does not see all that binds the tables")]
    Blind { what: String, grant: String },
    #[error("dump `{table}`: {problem}")]
    Unsupported { table: String, problem: String },
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("write `{path}`")]
    Write {
        path: String,
        #[source]
        error: std::io::Error,
    },
    #[error("stopped by a signal")]
    Stopped,
    #[error("dump the server: a thread broke off")]
    BrokeOff,
}

impl MysqlSourceError {
    /// Wraps what a statement met, with the act that it was part of.
    pub(crate) fn query(act: impl Into<String>) -> impl FnOnce(WireError) -> Self {
        let act = act.into();
        move |error| match error {
            WireError::Stopped => Self::Stopped,
            error => Self::Query { act, error },
        }
    }

    /// Wraps what a connection with a read view met.
    pub(crate) fn viewing(act: impl Into<String>) -> impl FnOnce(WireError) -> Self {
        let act = act.into();
        move |error| if error.is_lost() { Self::ViewLost { act, error } } else { Self::query(act)(error) }
    }

    /// Wraps what a connection with a read view met while it read rows.
    pub(crate) fn reading(table: &str, error: WireError) -> Self {
        // 1412: the table was altered, or made, after the read view; 1054, 1146: a column, or all of it, has gone.
        if matches!(error.code(), Some(1412 | 1054 | 1146)) {
            return Self::TableChanged { table: table.to_owned() };
        }
        Self::viewing(format!("read `{table}`"))(error)
    }

    pub(crate) fn no_definition(name: &str) -> Self {
        Self::Unsupported { table: name.to_owned(), problem: "the server shows no definition".to_owned() }
    }

    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Server(error) => error.hint(),
            Self::Query { error, .. } => error.hint(),
            Self::ViewLost { .. } => Some(
                "run the backup again; nothing of this one is kept. See who killed it: the server's error log".to_owned(),
            ),
            Self::TableChanged { .. } | Self::MigrationWaits { .. } => {
                Some("run the backup again when no migration runs".to_owned())
            }
            Self::Cut { .. } => Some(
                "run `SET GLOBAL max_allowed_packet = 1073741824` on the server as an administrator, and the backup again"
                    .to_owned(),
            ),
            Self::MayNotLock { grant } => Some(format!(
                "run `{grant}` on the server as an administrator; `--allow-inconsistent` dumps without, and tables may then be of different moments"
            )),
            Self::NotText { .. } => {
                Some("make it again in a session with SET NAMES utf8mb4, or `exclude` it".to_owned())
            }
            Self::Uncomparable { .. } => {
                Some("take a copy of it beside instead: `--as` or `--rename-schema` in place of `--changes`".to_owned())
            }
            Self::Privilege { grant, .. } | Self::Blind { grant, .. } => Some(format!("run `{grant}` on the server as an administrator")),
            Self::NonTransactional { .. } => Some(
                "convert them (ALTER TABLE … ENGINE=InnoDB), exclude them, or set `non_transactional = \"lock\"` in the policy"
                    .to_owned(),
            ),
            Self::Locked { .. } => {
                Some("end the long statement, raise `lock_wait` in the policy, or back up at a quieter hour".to_owned())
            }
            Self::PausedTooLong { reason: Reason::ThreadsRunning, .. } => Some(
                "back up at a quieter hour, or raise `throttle.pause_max` or `throttle.threads_running_max` in the policy; \
                 `bkp backup --no-throttle` takes no notice of the limits"
                    .to_owned(),
            ),
            Self::PausedTooLong { reason: Reason::Operator, .. } => {
                Some("`bkp resume POLICY` lets dumps run again, or raise `throttle.pause_max` in the policy".to_owned())
            }
            Self::BusynessUntold => {
                Some("leave `threads_running_max` out of the policy, or connect to the server itself, not a proxy".to_owned())
            }
            Self::Unreadable { .. } => Some(
                "mend the table (load its engine, `REPAIR TABLE`, or bring it back from a snapshot), or leave it out by name with \
                 `exclude` in the policy"
                    .to_owned(),
            ),
            Self::UnknownSchema { .. } => {
                Some("check `schemas` and `exclude` in the policy".to_owned())
            }
            _ => None,
        }
    }

    /// Tells whether the policy's network rules forbid the way.
    #[must_use]
    pub fn is_network_refused(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_network_refused())
    }

    /// Tells whether the server does not take our user and password.
    #[must_use]
    pub fn is_access_denied(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_access_denied())
    }

    /// Tells whether a signal ended the dump.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped)
            || matches!(self, Self::Server(ServerError::Login { error: WireError::Stopped, .. }))
    }
}
