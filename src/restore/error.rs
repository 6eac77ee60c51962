//! What can go wrong with a restore.

use chrono::{DateTime, Utc};

use crate::backup::BackupError;
use crate::capture::CaptureError;
use crate::human;
use crate::replay::ReplayError;
use crate::repository::RepositoryError;
use crate::restore::files;
use crate::run::Stopped;
use crate::source::mysql::MysqlSourceError;
use crate::target::mysql::LoadError;

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("choose a snapshot of {}: {}", human::quoted(sources), none_until(*until))]
    NoSnapshot { sources: Vec<String>, until: Option<DateTime<Utc>> },
    #[error("choose a snapshot: no id begins with `{0}`")]
    UnknownId(String),
    #[error("choose a snapshot: more than one id begins with `{0}`")]
    AmbiguousId(String),
    #[error("choose a snapshot: {0} was not made by bkp: it names no source")]
    Foreign(String),
    #[error("choose a snapshot: {0} holds a binlog, which brings back nothing by itself")]
    Binlog(String),
    #[error("choose a snapshot: {id} is one of source `{source_name}`, which `--source` does not name")]
    OtherSource { id: String, source_name: String },
    #[error("plan the restore: policy `{0}` has no source that the named target can take")]
    Nothing(String),
    #[error("plan the restore: source `{0}` is a database, and no server to load it into is named")]
    NoServer(String),
    #[error("plan the restore: source `{0}` is a tree of files, and no directory to restore it into is named")]
    NoDir(String),
    #[error("plan the restore: {0} databases cannot be loaded into one server at once: {1}")]
    ManyDatabases(usize, String),
    #[error("plan the restore: the target `{0}` is the source itself")]
    InPlace(String),
    #[error(
        "plan the restore: {} is not the name of the host that `{target}` is on: {}",
        human::quoted(typed),
        human::quoted(hosts)
    )]
    WrongHost { target: String, typed: Vec<String>, hosts: Vec<String> },
    #[error("plan the restore: no table `{0}` is in the snapshot")]
    NoTable(String),
    #[error("choose a snapshot of {}: none was taken at {point} or before it", human::quoted(sources))]
    NoDumpBefore { sources: Vec<String>, point: String },
    #[error("plan the restore: no binlogs lead to {0}")]
    NoBinlogs(String),
    #[error("plan the restore: {point} is no time, so that no snapshot of the files `{source_name}` is of it")]
    NoTime { source_name: String, point: String },
    #[error("plan the replay: binlogs are replayed whole, and {0}")]
    PartialReplay(String),
    #[error("plan the replay: {0}")]
    LeftOut(String),
    #[error("load into a target that is in the middle of a replay after snapshot {0}")]
    InReplay(String),
    #[error("load into a target that is a standby of `{0}`")]
    Standby(String),
    #[error(transparent)]
    Captured(#[from] Box<CaptureError>),
    #[error(transparent)]
    Replay(#[from] Box<ReplayError>),
    #[error(transparent)]
    Manifest(#[from] Box<BackupError>),
    #[error("load the database")]
    Load(#[from] Box<LoadError>),
    #[error("read the restored rows back")]
    ReadBack(#[from] MysqlSourceError),
    #[error("read the restored rows of `{0}` back: the table has been altered since, or is gone")]
    Altered(String),
    #[error("restore the files")]
    Files(#[from] files::RestoreFilesError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("a thread of the restore broke down: {0}")]
    Thread(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl RestoreError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoSnapshot { .. } => {
                "`bkp snapshots` lists what there is; `--source NAME` restores the others alone, `--from COPY` looks into a copy"
            }
            Self::OtherSource { .. } => "leave `--source` out, or choose another snapshot from `bkp snapshots`",
            Self::Nothing(_) => "databases want `--to-mysql URL`, trees of files `--to-dir DIR`",
            Self::UnknownId(_) | Self::AmbiguousId(_) => "`bkp snapshots` lists the ids",
            Self::Foreign(_) => "restore it with `restic restore`",
            Self::Binlog(_) => "name the dump's snapshot; `bkp binlog export` writes the binlog's files",
            Self::NoServer(_) => "add `--to-mysql URL`, or name other sources with `--source`",
            Self::NoDir(_) => "add `--to-dir DIR`, or name other sources with `--source`",
            Self::ManyDatabases(..) => "name one with `--source`",
            Self::InPlace(_) => {
                "restore beside it, or add `--in-place --confirm-host NAME` with the name of the source's host"
            }
            Self::WrongHost { .. } => "give `--confirm-host` for each host whose data is to be overwritten",
            Self::NoTable(_) => "names are `schema.table`, as the server writes them",
            Self::NoDumpBefore { .. } => "`bkp snapshots` lists what there is; `--from COPY` looks into a copy",
            Self::NoBinlogs(_) => "name a directory with the source's binlogs: `--binlogs DIR`",
            Self::NoTime { .. } => "restore files by themselves to a time, with `--source`",
            Self::PartialReplay(_) => {
                "restore the whole database into a server of its own, and take from there what you need"
            }
            Self::LeftOut(_) => {
                "go to a point before that, or let the policy dump the source whole (its `schemas` and `exclude`) from now on"
            }
            Self::InReplay(_) => {
                "go on with it: the same command with its `--point-in-time` and `--binlogs`; or give it up: RESET REPLICA ALL FOR CHANNEL 'bkp' (MariaDB: RESET SLAVE 'bkp' ALL), then drop what was restored and the schema `bkp_restore`"
            }
            Self::Standby(_) => "`bkp standby promote` ends that and opens it to everybody's writes",
            Self::Captured(error) => return error.hint(),
            Self::Replay(error) => return error.hint(),
            Self::Manifest(error) => return error.hint(),
            Self::Load(error) => return error.hint(),
            Self::ReadBack(error) => return error.hint(),
            Self::Altered(_) => "let nobody work on the target before it is compared; restore the table again",
            Self::Files(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
            Self::Thread(_) | Self::Stopped(_) => return None,
        };
        Some(text.to_owned())
    }
}

fn none_until(until: Option<DateTime<Utc>>) -> String {
    until.map_or_else(|| "there is none".to_owned(), |until| format!("none is at or before {until}"))
}
