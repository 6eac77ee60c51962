//! What can go wrong with the recovery of some tables.

use std::io;
use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::mysql::server::ServerError;
use crate::replay::ReplayError;
use crate::restore::RestoreError;
use crate::restore::part::changes::ChangesError;
use crate::sandbox::SandboxError;
use crate::source::mysql::MysqlSourceError;

#[derive(Debug, thiserror::Error)]
pub enum PartError {
    #[error("recover some tables: no point in time is named")]
    NoPoint,
    #[error("recover {0}: a replication filter cannot name a table with a dot or a comma in its name")]
    Name(String),
    #[error("recover one shop's rows: the policy does not say which column tells whose a row is")]
    NoTenant,
    #[error("recover one shop's rows by `{asked}`: the policy's column for that is `{wanted}`")]
    OtherColumn { asked: String, wanted: String },
    #[error("recover one shop's rows of `{table}`: it has no column `{column}`")]
    NoColumn { table: String, column: String },
    #[error("recover one shop's rows: `{value}` is no value for `{column}`, which is {kind}")]
    Value { value: String, column: String, kind: String },
    #[error("recover `{child}`: a foreign key with a cascade points to `{table}`, which is not in the dump")]
    NoParent { table: String, child: String },
    #[error("recover some tables: {why}: {gtid} of {time} at {place}")]
    Doubt { why: &'static str, time: DateTime<Utc>, gtid: String, place: String },
    #[error(
        "recover `{table}`: its foreign key `{key}` with a cascade was made after the dump, and what it did stands in no binlog"
    )]
    NewKey { table: String, key: String },
    #[error("recover {tables}: not in the dump of {time}")]
    NotDumped { tables: String, time: DateTime<Utc> },
    #[error("recover {tables}: not there at the point")]
    NotThere { tables: String },
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("follow the binlogs in the sandbox")]
    Follow(#[source] RestoreError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Read(#[from] MysqlSourceError),
    #[error("use `{}` for the rows of a sandbox", dir.display())]
    Dir { dir: PathBuf, source: io::Error },
    #[error("{act}")]
    Sql { act: String, source: Box<mysql_async::Error> },
    #[error(transparent)]
    Changes(#[from] ChangesError),
}

impl From<Box<ReplayError>> for PartError {
    fn from(error: Box<ReplayError>) -> Self {
        RestoreError::from(error).into()
    }
}

impl PartError {
    pub(super) fn at(act: impl Into<String>) -> impl FnOnce(mysql_async::Error) -> Self {
        let act = act.into();
        move |source| Self::Sql { act, source: Box::new(source) }
    }

    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoPoint => "add `--point-in-time`",
            Self::Name(_) | Self::NoParent { .. } | Self::Doubt { .. } | Self::NewKey { .. } | Self::Follow(_) => {
                "restore the whole database to the point into a server of its own, and take from there what you need"
            }
            Self::NoTenant => "write `tenant = { column = \"shop_id\" }` into the database's table of the policy",
            Self::OtherColumn { wanted, .. } => return Some(format!("write `--where {wanted}=VALUE`")),
            Self::NoColumn { .. } => {
                "name the tables that have it, or the column of this one: `tenant.tables` in the policy"
            }
            Self::Value { .. } => "columns of whole numbers, CHAR, VARCHAR and UUID can tell whose a row is",
            Self::NotDumped { .. } => {
                "names are `schema.table`, as the server writes them; what was made after the dump comes with the whole database"
            }
            Self::NotThere { .. } => "it was dropped or renamed by then: choose an earlier point (`bkp binlog find`)",
            Self::Dir { .. } => "choose a directory that can be written: `drill.sandbox.work_dir` in the policy",
            Self::Restore(error) => return error.hint(),
            Self::Sandbox(error) => return error.hint(),
            Self::Server(error) => return error.hint(),
            Self::Read(error) => return error.hint(),
            Self::Changes(error) => return error.hint(),
            Self::Sql { .. } => return None,
        };
        Some(text.to_owned())
    }
}
