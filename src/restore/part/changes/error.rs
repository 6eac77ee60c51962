//! What can go wrong with a change set.

use std::io;
use std::path::PathBuf;

use crate::mysql::server::ServerError;
use crate::mysql::wire::WireError;
use crate::run::Stopped;
use crate::source::mysql::MysqlSourceError;

#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    #[error("write the change set `{}`: there is a file of this name", .0.display())]
    Exists(PathBuf),
    #[error("write the change set `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("read the change set `{}`", path.display())]
    Unread { path: PathBuf, source: io::Error },
    #[error("read the change set `{}`: {why}", path.display())]
    NotOurs { path: PathBuf, why: &'static str },
    #[error("apply the change set `{}`: it has {count} conflicts", path.display())]
    Conflicts { path: PathBuf, count: u64 },
    #[error("apply the change set: it was made for the source `{of}` of the policy `{wanted}`, and is not named so")]
    OtherPolicy { wanted: String, of: String },
    #[error("apply the change set: it changes rows on `{0}`, and the name of that host is not confirmed")]
    Unconfirmed(String),
    #[error("apply the change set: it was made for the server {wanted}, and this is {found}")]
    OtherServer { wanted: String, found: String },
    #[error("apply the change set: the tables have been altered since it was made")]
    Altered,
    #[error(
        "apply the change set: statement {number} (line {line}) changed {rows} rows and not one, so that nothing was changed at all"
    )]
    Stale { number: u64, line: u64, rows: u64 },
    #[error(
        "apply the change set: the server refused statement {number} (line {line}), so that nothing was changed at all"
    )]
    Refused { number: u64, line: u64, source: Box<WireError> },
    #[error(
        "apply the change set: the connection broke at statement {number} (line {line}), and the server takes back what was changed"
    )]
    Lost { number: u64, line: u64, source: Box<WireError> },
    #[error("commit the change set: the server refused, so that nothing was changed at all")]
    Uncommitted(#[source] Box<WireError>),
    #[error("commit the change set: the connection broke, and the server may have committed it or not")]
    Unknown(#[source] Box<WireError>),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Read(#[from] MysqlSourceError),
    #[error("a thread of the restore broke down: {0}")]
    Thread(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl ChangesError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Exists(_) => "name another file, or remove this one once nobody needs it",
            Self::NotOurs { .. } => {
                "what was reviewed is what is applied: make it anew, with fewer `--tables` or by `--where`"
            }
            Self::Conflicts { .. } => {
                "they are named in the file; settle them on the living server, and make the change set anew"
            }
            Self::OtherPolicy { .. } => "name that policy (and its source, or none)",
            Self::Unconfirmed(_) => "add `--in-place --confirm-host NAME` with the name of the host",
            Self::OtherServer { .. } => "name the server that it was made for, or make one for this server",
            Self::Altered | Self::Stale { .. } | Self::Refused { .. } => {
                "make the change set anew, review what is another, and apply that"
            }
            Self::Lost { .. } => "see the server's error log and the network between, and apply it again",
            Self::Uncommitted(_) => "look at what the server says, and apply it again",
            Self::Unknown(_) => "make the change set anew: if it is empty, this one has been applied",
            Self::Server(error) => return error.hint(),
            Self::Read(error) => return error.hint(),
            Self::File { .. } | Self::Unread { .. } | Self::Thread(_) | Self::Stopped(_) => {
                return None;
            }
        };
        Some(text.to_owned())
    }
}
