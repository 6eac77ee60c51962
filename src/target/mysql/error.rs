//! What can go wrong with a load.

use std::error::Error;

use crate::mysql::server::ServerError;
use crate::mysql::sql;
use crate::target::mysql::dump::DumpReadError;
use crate::target::mysql::fault;
use crate::target::mysql::plan::Drop;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("connect to the target")]
    Server(#[from] ServerError),
    #[error(transparent)]
    Dump(#[from] DumpReadError),
    #[error("{act}")]
    Sql {
        act: String,
        #[source]
        source: Box<mysql_async::Error>,
    },
    #[error("{act}: no answer within {seconds} s")]
    NoAnswer { act: String, seconds: u64 },
    /// Without the server's words: they quote the statement, and with it the hash of a password.
    #[error("{act}: the server refuses {refused} of {statements} statements, the first with error {code}")]
    Account { act: String, refused: usize, statements: usize, code: u16 },
    #[error("load `{path}` into {table}")]
    Rows {
        path: String,
        table: String,
        #[source]
        source: Box<mysql_async::Error>,
    },
    #[error("load `{path}` into {table}: {tries} tries, and the last one failed too")]
    GaveUp {
        path: String,
        table: String,
        tries: u32,
        #[source]
        source: Box<LoadError>,
    },
    #[error("load `{path}` into {table}: the server gave {count} warnings, the first: {first}")]
    Warnings { path: String, table: String, count: u64, first: String },
    #[error("load `{path}` into {table}: the server took {taken} rows of {expected}")]
    RowCount { path: String, table: String, expected: u64, taken: u64 },
    #[error("load into a target that is not empty: it holds {}", list(.holdings))]
    NotEmpty { holdings: Vec<Drop> },
    #[error("load into a target that is in the middle of another load")]
    OtherLoad { snapshot: Option<String> },
    #[error("load into a target that another `bkp` is loading into")]
    Busy,
    #[error("load into a target that refuses `LOAD DATA LOCAL`")]
    LocalInfileOff,
    #[error("load {table}: the dump holds no such table")]
    NotInDump { table: String },
    #[error("load {schema} under another name: the dump holds no such schema", schema = sql::ident(.schema))]
    NoSchema { schema: String },
    #[error("load into {schema}: it belongs to the server or to bkp", schema = sql::ident(.schema))]
    OwnSchema { schema: String },
    #[error("load two tables as {table}")]
    NameTwice { table: String },
    #[error("create table {table}: {why}")]
    DoesNotFit { table: String, why: String },
    #[error("load {one} and {other}: the target does not tell upper from lower case")]
    NamesCollide { one: String, other: String },
    #[error("stopped by a signal")]
    Stopped,
    #[error("load rows: a task broke off")]
    BrokeOff,
}

/// At most this many names stand in a message.
const NAMES_MAX: usize = 5;

fn list(holdings: &[Drop]) -> String {
    let name =
        |drop: &Drop| format!("{} {}", drop.holding.keyword().to_lowercase(), sql::qualified(&drop.schema, &drop.name));
    let names: Vec<String> = holdings.iter().take(NAMES_MAX).map(name).collect();
    let more = holdings.len().saturating_sub(NAMES_MAX);
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{rest}", names.join(", "))
}

impl LoadError {
    /// Returns what turns an error of the client into ours, for `map_err`.
    pub(super) fn at(act: impl Into<String>) -> impl FnOnce(mysql_async::Error) -> Self {
        let act = act.into();
        move |source| Self::Sql { act, source: Box::new(source) }
    }

    /// Tells whether the same may well succeed on a new connection.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Server(error) => !error.is_access_denied() && !error.is_network_refused(),
            Self::Sql { source, .. } | Self::Rows { source, .. } => fault::is_passing(source),
            Self::NoAnswer { .. } => true,
            _ => false,
        }
    }

    /// Tells whether another session was in the way, as against a connection that was lost.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Self::Sql { source, .. } | Self::Rows { source, .. } => fault::is_conflict(source),
            _ => false,
        }
    }

    /// Tells whether the server understood and said no.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Sql { source, .. } => matches!(**source, mysql_async::Error::Server(_)) && !self.is_passing(),
            Self::Account { .. } => true,
            _ => false,
        }
    }

    /// Tells whether it stands in the way of one table only, so that the others may well come.
    pub(super) fn is_of_one_table(&self) -> bool {
        match self {
            Self::Warnings { .. } | Self::RowCount { .. } => true,
            Self::Dump(error) => error.is_damage(),
            Self::Sql { source, .. } | Self::Rows { source, .. } => fault::is_of_statement(source),
            Self::GaveUp { source, .. } => source.is_of_one_table(),
            _ => false,
        }
    }

    /// Returns the message with those of its causes.
    #[must_use]
    pub fn in_full(&self) -> String {
        let (mut text, mut cause) = (self.to_string(), self.source());
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Server(error) => return error.hint(),
            Self::Dump(error) => return error.hint(),
            Self::NotEmpty { .. } => "choose an empty target, or say that it may be overwritten",
            Self::OtherLoad { snapshot: Some(id) } => {
                return Some(format!(
                    "continue that load with `--snapshot {id}` and its own selection, or drop the schema `bkp_restore` and what it has loaded"
                ));
            }
            Self::OtherLoad { snapshot: None } => {
                "continue that load with its own snapshot and selection, or drop the schema `bkp_restore` and what it has loaded"
            }
            Self::Busy => "wait for it, or stop it: what it has loaded stays, and a new start goes on from there",
            Self::LocalInfileOff => "on the target: SET GLOBAL local_infile = 1",
            Self::NotInDump { .. } => "look at the names in `manifest.json` of the snapshot",
            Self::NoSchema { .. } => "look at the schemas in `manifest.json` of the snapshot",
            Self::OwnSchema { .. } => "give a name that no schema of the server's own bears",
            Self::NameTwice { .. } => "choose a name that no table of the dump bears",
            Self::DoesNotFit { .. } => "restore this table into a server of the dump's product and version",
            Self::NamesCollide { .. } => "use a target with lower_case_table_names = 0",
            Self::Warnings { .. } => {
                "is the target of another product, version or max_allowed_packet than the source was?"
            }
            Self::Rows { source, .. } if fault::is_too_large(source) => {
                "on the target: SET GLOBAL max_allowed_packet = 1073741824; then start it again"
            }
            Self::Rows { source, .. } => match &**source {
                mysql_async::Error::Server(error) => code_hint(error.code).unwrap_or(AGAIN),
                _ => AGAIN,
            },
            Self::GaveUp { .. } | Self::NoAnswer { .. } | Self::Stopped => AGAIN,
            Self::Sql { source, .. } => match &**source {
                mysql_async::Error::Server(error) => return code_hint(error.code).map(str::to_owned),
                _ => return None,
            },
            Self::Account { code, .. } => return code_hint(*code).map(str::to_owned),
            Self::RowCount { .. } | Self::BrokeOff => return None,
        };
        Some(hint.to_owned())
    }

    /// Tells whether the dump itself is damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Dump(error) => error.is_damage(),
            Self::GaveUp { source, .. } => source.is_damage(),
            _ => false,
        }
    }
}

const AGAIN: &str = "start it again: it goes on where it stopped";

fn code_hint(code: u16) -> Option<&'static str> {
    match code {
        1044 | 1142 | 1143 | 1227 | 1370 => {
            Some("give the account that restores all privileges on the target (GRANT ALL ON *.*)")
        }
        1273 | 1115 => {
            Some("the target does not know this collation or character set: use one of the dump's product and version")
        }
        1524 => Some(
            "the target lacks the plugin that checks this account's password: install it there, or make the account anew",
        ),
        1298 => Some(
            "the target does not know this time zone: load its tables of zones (mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql mysql), then restore what is missing",
        ),
        1286 => Some("the target lacks this storage engine: install it, or use a target that has it"),
        1114 | 1021 => Some("free space on the target, then start it again: it goes on where it stopped"),
        1290 => Some("the target is read-only: SET GLOBAL read_only = 0, if it is the right server"),
        _ => None,
    }
}
