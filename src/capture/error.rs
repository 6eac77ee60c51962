//! What can go wrong with a capture.

use std::io;
use std::path::PathBuf;

use crate::mysql::binlog::BinlogError;
use crate::mysql::gtid::GtidError;
use crate::mysql::server::ServerError;
use crate::mysql::wire::WireError;
use crate::repository::RepositoryError;
use crate::run::Stopped;
use crate::secret::SecretError;

#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("read the password of the database's account")]
    Password(#[from] SecretError),
    #[error("capture the binlog")]
    Server(#[from] ServerError),
    #[error("{act}")]
    Ask {
        act: &'static str,
        #[source]
        error: WireError,
    },
    #[error("follow the binlog")]
    Stream(#[source] WireError),
    #[error("capture the binlog: the server writes none")]
    NoBinlog,
    #[error("capture the binlog: `{file}` has an event at offset {expected} that names offset {found} as its own")]
    Hole { file: String, expected: u64, found: u32 },
    #[error("capture the binlog: read `{file}` as it came")]
    Event {
        file: String,
        #[source]
        error: BinlogError,
    },
    #[error("follow the binlog: the server ended the stream before all that it has had come")]
    Ended,
    #[error("follow the binlog: another server answers at the same address")]
    OtherServer,
    #[error("follow the binlog: the server can wait for acknowledgements by now, and is asked anew")]
    SemiSyncCame,
    #[error("use the spool `{}`: it holds the binlog of `{owner}`", dir.display())]
    Foreign { dir: PathBuf, owner: String },
    #[error("capture the binlog: the server streams events of no file")]
    NoFile,
    #[error("{act} `{}`", path.display())]
    Spool {
        act: &'static str,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("use the spool below `{}`: there is no such directory", .0.display())]
    NoDir(PathBuf),
    #[error("use the spool `{}`: another capture does", .0.display())]
    Held(PathBuf),
    #[error("read the chain of segments in {place}: {reason}")]
    Chain { place: String, reason: String },
    #[error("read the chain of segments")]
    Gtid(#[from] GtidError),
    #[error("seal segment `{file}`: neither the spool nor the repository holds all of it")]
    Lost { file: String },
    #[error("seal the binlog of `{source_name}`: the spool and the repository tell of epoch {epoch} differently")]
    Diverged { source_name: String, epoch: u32 },
    #[error("seal `{}`: its bytes are not those that were captured", .path.display())]
    Rotten { path: PathBuf },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("export the binlog: `{}` is not empty", .0.display())]
    NotEmpty(PathBuf),
    #[error("export segment `{file}`: its bytes are not those that were captured")]
    Damaged { file: String },
    #[error("export the binlog: nothing of source `{0}` was captured yet")]
    Nothing(String),
    #[error("a thread of the capture broke down: {0}")]
    Thread(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl CaptureError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Password(error) => return error.hint(),
            Self::Server(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
            Self::Ask { error, .. } | Self::Stream(error) if error.is_denied() => {
                "grant the account what a replica has: see `Rights to capture` in the operator's guide"
            }
            Self::Ask { error, .. } | Self::Stream(error) => return error.hint(),
            Self::NoBinlog => "set log_bin in the server's configuration, or remove `binlog.capture` from the policy",
            Self::Hole { .. } => {
                "an encrypted binlog of MariaDB cannot be captured as it stands; else see the server's error log"
            }
            Self::Event { .. } => "the next try reads it again; if it stays, see the server's error log",
            Self::Spool { error, .. } if is_full(error) => {
                "free space for the spool; the capture goes on where it stopped, while the server keeps its binlogs"
            }
            Self::Spool { .. } => "check the rights on the directory, or set `binlog.spool` in the policy",
            Self::NoDir(dir) => {
                return Some(format!("mount its disk, or make the directory once: `mkdir {}`", dir.display()));
            }
            Self::Held(_) => "a `bkp daemon` or another run captures this source already",
            Self::Foreign { .. } => {
                "name another directory in `binlog.spool`; what this one holds behind the last seal may be nowhere else: a `bkp run` of \
                 the policy that it is of seals it"
            }
            Self::NotEmpty(_) => "name a directory that is empty or not there",
            Self::Damaged { .. } => "run `bkp verify`, or export `--from` a copy",
            Self::Nothing(_) => "set `binlog.capture` in the policy, and let `bkp run` or `bkp daemon` capture",
            Self::Diverged { .. } => {
                "move the source's spool directory away: the capture then goes on from what the repository holds"
            }
            Self::Rotten { .. } => {
                "remove the file: the rest is then sealed, with a gap; and look for what is wrong with the disk"
            }
            Self::Lost { .. } => "the spool's file went while it was read: the next run seals the rest, with a gap",
            Self::Chain { .. }
            | Self::Gtid(_)
            | Self::NoFile
            | Self::Ended
            | Self::OtherServer
            | Self::SemiSyncCame
            | Self::Thread(_)
            | Self::Stopped(_) => {
                return None;
            }
        };
        Some(hint.to_owned())
    }

    /// Tells whether the spool's filesystem has no room.
    #[must_use]
    pub fn is_spool_full(&self) -> bool {
        matches!(self, Self::Spool { error, .. } if is_full(error))
    }

    /// Tells whether it was a signal.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        matches!(
            self,
            Self::Stopped(_)
                | Self::Stream(WireError::Stopped)
                | Self::Ask { error: WireError::Stopped, .. }
                | Self::Repository(RepositoryError::Stopped(_))
        )
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
