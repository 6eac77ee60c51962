//! Replays binlogs on a restored server: it follows `bkp` as a replica for as long as that takes.
//!
//! [`ReplayPlan`] finds the transactions from a dump's position to a recovery point. [`Source`] serves their bytes as they are, as a
//! replication source does, and [`Target`] makes the server apply them with its own parallel workers. The stream ends after the last
//! transaction of the plan, so that nothing has to be stopped in time; a replay that was interrupted goes on from what the server
//! has applied.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::human;
use crate::mysql::binlog::BinlogError;
use crate::mysql::gtid::{Gtid, GtidError};
use crate::mysql::manifest::Product;
use crate::mysql::server::ServerError;
use crate::run::Stopped;

mod answers;
mod ask;
mod bounded;
mod channel;
mod choose;
mod cover;
mod door;
mod feed;
mod filter;
mod fitness;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guard;
mod line;
mod made;
mod plan;
mod point;
mod record;
pub mod segments;
mod serve;
mod session;
mod settings;
mod stand;
mod status;
mod stop;
mod target;
mod trial;
mod walk;
mod way;
mod wire;

pub(crate) use bounded::Bounded;
pub(crate) use feed::FIRST;
pub use feed::Feed;
pub use filter::Filter;
pub use guard::{Guard, GuardError};
pub(crate) use plan::head_of;
pub use plan::{Mark, ReplayPlan, Start, Varying};
pub use point::Point;
pub use record::{Record, Standby};
pub use segments::Segment;
pub use serve::{Face, Source};
pub use stand::{Seen, Standing};
pub use target::{Replayed, Target};
pub use way::Way;

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("look for binlogs in `{}`", dir.display())]
    Dir {
        dir: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("look for binlogs in `{}`: the dump's position is in `{name}`, and that file is not there", dir.display())]
    NoSegment { name: String, dir: PathBuf },
    #[error(
        "replay binlogs: snapshot {snapshot} of captured segments does not lead on from the dump, whose position is in `{name}`"
    )]
    NotCaptured { name: String, snapshot: String },
    #[error(
        "fetch the binlogs into `{}`: they take {}, and {} are free", dir.display(), human::bytes(*wanted), human::bytes(*free)
    )]
    NoRoom { dir: PathBuf, wanted: u64, free: u64 },
    #[error("replay binlogs: the file `{name}` bears no number to go on from")]
    NoNumber { name: String },
    #[error("replay binlogs: the dump names no position in its server's binlog")]
    NoPosition,
    #[error("replay binlogs: between `{after}` and `{before}` there is a gap{}", missing.as_ref().map(|set| format!(": {set} are in neither")).unwrap_or_default())]
    Gap { after: String, before: String, missing: Option<String> },
    #[error("read binlog `{name}`")]
    Binlog {
        name: String,
        #[source]
        error: Box<BinlogError>,
    },
    #[error("open binlog `{name}`")]
    Open {
        name: String,
        #[source]
        error: io::Error,
    },
    #[error("replay binlogs: `{name}` is not the file that the dump was taken beside: {why}")]
    OtherServer { name: String, why: String },
    #[error("find the recovery point {point}: the binlogs end at {}, before it", end_of(*.end, last))]
    Beyond { point: String, end: Option<DateTime<Utc>>, last: String },
    #[error("find the recovery point {point}: no transaction of the binlogs after the dump is it")]
    NoSuchTransaction { point: String },
    #[error("find the recovery point {point}: it lies before the dump, or within a transaction")]
    NoBoundary { point: String },
    #[error("replay binlogs: the XA transaction {xid} was prepared before the dump and ended behind it, at {at}{}: it is in neither", named(gtid.as_ref()))]
    Split { xid: String, at: String, gtid: Option<Gtid> },
    #[error(transparent)]
    Gtid(#[from] GtidError),
    #[error("connect to the target")]
    Server(#[from] ServerError),
    #[error("{act}")]
    Sql {
        act: String,
        #[source]
        source: Box<mysql_async::Error>,
    },
    #[error("replay binlogs into a target that {why}")]
    Unfit { why: String, hint: String },
    #[error("replay binlogs in one session: the transaction at {at}{} {why}", named(gtid.as_ref()))]
    Unreplayable { at: String, gtid: Option<Gtid>, why: String, hint: String },
    #[error("replay binlogs in one session: {act}: {text}")]
    Denied { act: &'static str, product: Product, text: String },
    #[error("replay binlogs into a target that another `bkp` is loading into")]
    Busy,
    #[error("serve the binlogs to the target at {address}")]
    Serve {
        address: String,
        #[source]
        error: io::Error,
    },
    #[error("make ready for TLS with the target")]
    Guard(#[from] GuardError),
    #[error("serve the binlogs to the target: {0}")]
    Served(String),
    #[error("replay binlogs on the target: it cannot follow: {text}")]
    Follow { text: String, address: String },
    #[error("replay binlogs on the target: it cannot follow by TLS: {text} (here: {heard})")]
    Insecure { text: String, heard: String },
    #[error("replay binlogs on the target: it has stopped at {at}: {text}")]
    Apply { at: String, text: String },
    #[error("stop the replay on the target: after {} it still waits for {awaited}", human::duration(*longest))]
    StillApplying { longest: Duration, awaited: String },
    #[error("replay binlogs: the target has {found} where the plan has {planned}")]
    Mismatch { found: String, planned: String },
    #[error("a thread of the replay broke down: {0}")]
    Thread(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

fn named(gtid: Option<&Gtid>) -> String {
    gtid.map(|gtid| format!(" ({gtid})")).unwrap_or_default()
}

fn end_of(end: Option<DateTime<Utc>>, last: &str) -> String {
    end.map_or_else(|| last.to_owned(), |end| format!("{} ({last})", end.format("%Y-%m-%d %H:%M:%S%.6f UTC")))
}

impl ReplayError {
    pub(crate) fn at(act: impl Into<String>) -> impl FnOnce(mysql_async::Error) -> Self {
        let act = act.into();
        move |source| Self::Sql { act, source: Box::new(source) }
    }

    /// Tells whether the account lacks a right, and nothing else.
    pub(crate) fn is_denied(&self) -> bool {
        match self {
            Self::Sql { source, .. } => {
                matches!(&**source, mysql_async::Error::Server(error) if fitness::is_denial(error.code))
            }
            _ => false,
        }
    }

    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Dir { .. } | Self::NoSegment { .. } => {
                "copy every binlog of the source from that file on into the directory of `--binlogs`"
            }
            Self::NotCaptured { .. } => {
                "`--binlogs DIR` takes files from elsewhere, `--snapshot ID` restores the dump alone, `bkp snapshots` lists others"
            }
            Self::NoRoom { .. } => {
                "make room there, or write them elsewhere with `bkp binlog export` and name that with `--binlogs DIR`"
            }
            Self::NoPosition => "its server wrote no binlog: leave `--binlogs` out and restore the dump alone",
            Self::Gap { .. } | Self::Beyond { .. } => {
                "`--up-to-gap` goes as near to the point as the binlogs lead; `--point-in-time latest` takes all of them"
            }
            Self::Binlog { error, .. } => return error.hint(),
            Self::OtherServer { .. } => "name the binlogs of the server that the snapshot is of",
            Self::NoSuchTransaction { .. } | Self::NoBoundary { .. } => {
                "look at the binlogs with `mysqlbinlog`: GTIDs and the places between transactions stand there"
            }
            Self::Split { gtid, at, .. } => {
                let point = gtid.as_ref().map_or_else(|| format!("position:{at}"), |gtid| format!("before:{gtid}"));
                return Some(format!(
                    "begin with a dump from before it was prepared (`--snapshot ID`; `bkp snapshots` lists them), or go to `{point}` at most"
                ));
            }
            Self::Server(error) => return error.hint(),
            Self::Sql { source, .. } => match &**source {
                mysql_async::Error::Server(error) if fitness::is_denial(error.code) => GRANTS,
                mysql_async::Error::Server(error) if error.code == 1290 => READ_ONLY,
                mysql_async::Error::Server(error) if error.code == 1205 => LOCKED,
                mysql_async::Error::Server(error) if error.code == 1298 => UNKNOWN_ZONE,
                _ => return None,
            },
            Self::Unfit { hint, .. } | Self::Unreplayable { hint, .. } => return Some(hint.clone()),
            Self::Denied { product: Product::MySql, .. } => {
                "give the account that restores: GRANT REPLICATION_APPLIER, SYSTEM_VARIABLES_ADMIN ON *.* TO …"
            }
            Self::Denied { product: Product::MariaDb, .. } => {
                "give the account that restores: GRANT BINLOG REPLAY, BINLOG ADMIN ON *.* TO …"
            }
            Self::Busy => "wait for it, or stop it: a new start goes on from there",
            Self::Serve { .. } => "name an address of this machine with `--replay-listen ADDRESS[:PORT]`",
            Self::Follow { address, .. } => {
                return Some(format!(
                    "the target must reach this machine at {address}: see its firewall, or name another address with `--replay-listen`; \
                     where it never will, a restore replays with `--replay-by session`"
                ));
            }
            Self::Insecure { .. } => {
                "the target shows bkp the certificate of its `ssl_cert`, and must be known by it as by the one that it shows to all; on \
                 a network that may see the binlogs, `--to-mysql-plain` does without TLS"
            }
            Self::Guard(GuardError::Tls(_)) => "see to the file of `--to-mysql-ca`, or to the system's certificates",
            Self::Apply { text, .. } if text.contains("Unknown or incorrect time zone") => UNKNOWN_ZONE,
            Self::Apply { .. } => "see to the cause on the target, then start it again: it goes on where it stopped",
            Self::StillApplying { .. } => {
                "it stops once that is over: see who holds a lock there (SHOW FULL PROCESSLIST), or let a long transaction end; then the \
                 same command goes on"
            }
            Self::Mismatch { .. } => "somebody else writes to the target: drop what is there and restore anew",
            Self::NoNumber { .. }
            | Self::Open { .. }
            | Self::Guard(_)
            | Self::Gtid(_)
            | Self::Served(_)
            | Self::Thread(_)
            | Self::Stopped(_) => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}

/// The target can be written to by few.
const READ_ONLY: &str = "the target is read-only: give the account that restores CONNECTION_ADMIN (MySQL) or READ ONLY ADMIN (MariaDB), \
     as one of a standby needs";

/// A statement of the binlogs names a time zone.
const UNKNOWN_ZONE: &str = "the target does not know this time zone: load its tables of zones (mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql \
     mysql), then start it again: it goes on where it stopped";

/// Somebody holds a lock on the target for longer than we wait.
const LOCKED: &str = "a session on the target holds a lock (LOCK TABLES, FLUSH TABLES WITH READ LOCK, an open transaction): end it (SHOW FULL \
     PROCESSLIST), and start again";

/// What the account of a replay must be allowed, on each product.
const GRANTS: &str = "give the account that restores, on MySQL: REPLICATION CLIENT, RELOAD, REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, \
     XA_RECOVER_ADMIN; on MariaDB: REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, REPLICA MONITOR, RELOAD, SUPER";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
mod tests;
