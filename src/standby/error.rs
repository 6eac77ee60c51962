//! What can go wrong with a standby.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::capture::CaptureError;
use crate::human;
use crate::mysql::binlog::BinlogError;
use crate::mysql::gtid::GtidError;
use crate::mysql::manifest::Product;
use crate::mysql::product;
use crate::place::PlaceError;
use crate::replay::ReplayError;
use crate::repository::RepositoryError;
use crate::restore::RestoreError;
use crate::run::Stopped;

#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    #[error("make a standby of `{0}`: the policy does not capture its binlog")]
    NotCaptured(String),
    #[error("make a standby of `{0}`: its transactions have no GTIDs, by which a standby goes on")]
    NoGtids(String),
    #[error("make a standby of `{source_name}` with a delay of {}: the capture keeps no more than {}", human::duration(*delay), human::duration(*window))]
    LongDelay { source_name: String, delay: Duration, window: Duration },
    #[error("find the captured binlog of `{source_name}`: neither `{}` nor the repository has it", dir.display())]
    NoSpool { source_name: String, dir: PathBuf },
    #[error(
        "go on with the standby of `{source_name}`: no captured binlog leads on from what it has executed: {executed}"
    )]
    NoWay { source_name: String, executed: String },
    #[error("go on with the standby of `{source_name}`: {why}; it has applied everything before, and stays there")]
    Broken { source_name: String, why: String },
    #[error(
        "make a standby of `{0}`: its newest dump that may go there lies before a reset or another server (a new epoch)"
    )]
    Ended(String),
    #[error(
        "make a standby of `{source_name}`: the server is {}, and the source {}",
        product::name(*found),
        product::name(*wanted)
    )]
    OtherProduct { source_name: String, found: Product, wanted: Product },
    #[error("go on with the standby of `{source_name}`: it has come no nearer to the capture for {}", human::duration(*longest))]
    Still { source_name: String, longest: Duration },
    #[error("go on with the standby: `{0}` does not follow what came before it; the capture is looked at again")]
    NotNext(String),
    #[error("make a standby: the dump did not come whole: {0}")]
    NotWhole(String),
    #[error("go on with the standby of `{0}`: its record is gone or another's, and nobody has promoted it")]
    Lost(String),
    #[error("find the standby: the server holds no record of one")]
    NoStandby,
    #[error("find the standby of `{wanted}`: the server is one of `{found}`")]
    OtherSource { found: String, wanted: String },
    #[error("serve the standby: somebody has begun to promote it")]
    Promoting,
    #[error("promote the standby to {point}: it is past that already, and has executed {executed}")]
    Passed { point: String, executed: String },
    #[error("{act} `{}`", path.display())]
    Io {
        act: &'static str,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("read binlog `{name}`")]
    Segment {
        name: String,
        #[source]
        error: BinlogError,
    },
    #[error(transparent)]
    Gtid(#[from] GtidError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("a thread of the standby broke down: {0}")]
    Thread(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl StandbyError {
    /// Tells whether trying again is of no use: a person must see to it.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::NotCaptured(_)
                | Self::NoGtids(_)
                | Self::LongDelay { .. }
                | Self::NoWay { .. }
                | Self::Broken { .. }
                | Self::NotWhole(_)
                | Self::Ended(_)
                | Self::OtherProduct { .. }
                | Self::Lost(_)
                | Self::NoStandby
                | Self::OtherSource { .. }
                | Self::Replay(ReplayError::Unfit { .. })
        )
    }

    /// Tells whether this is what a promotion looks like to whoever serves the standby: the connection is cut, and the standby another's.
    pub(super) fn may_be_a_promotion(&self) -> bool {
        match self {
            Self::Promoting | Self::Replay(ReplayError::Busy) => true,
            Self::Replay(ReplayError::Sql { source, .. }) => match &**source {
                mysql_async::Error::Io(_) | mysql_async::Error::Driver(_) => true,
                // ER_QUERY_INTERRUPTED, MariaDB's ER_CONNECTION_KILLED, and MySQL's ER_SESSION_WAS_KILLED.
                mysql_async::Error::Server(error) => matches!(error.code, 1317 | 1927 | 3169),
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotCaptured(_) => "set `binlog.capture` of the database to true, and run `bkp daemon`",
            Self::NoGtids(_) => "switch GTIDs on at the source (MySQL: gtid_mode = ON), and back it up anew",
            Self::Ended(_) => {
                "back the source up anew, and start again; with a delay, that dump counts once it is older than the delay"
            }
            Self::OtherProduct { .. } => "name an empty server of the source's product",
            Self::LongDelay { .. } => "make it shorter, or `binlog.window` longer",
            Self::NoSpool { .. } => {
                "run this on the machine of `bkp daemon`, and let that capture the source first. Where nothing of it is left, open the \
                 standby by hand: RESET REPLICA ALL FOR CHANNEL 'bkp' (MariaDB: STOP SLAVE 'bkp', RESET SLAVE 'bkp' ALL), SET GLOBAL \
                 read_only = OFF, DROP DATABASE bkp_standby"
            }
            Self::NoWay { .. } => {
                "the standby was away for longer than the capture's window: empty the server, drop its schema `bkp_standby`, and start it \
                 anew; or open it by hand with what it has: RESET REPLICA ALL FOR CHANNEL 'bkp' (MariaDB: RESET SLAVE 'bkp' ALL), SET \
                 GLOBAL read_only = OFF, DROP DATABASE bkp_standby"
            }
            Self::Broken { .. } => {
                "promote it as it is (`bkp standby promote --up-to-gap`); or back the source up, empty the server, drop its schema \
                 `bkp_standby`, and start it anew"
            }
            Self::NotWhole(_) => {
                "see to the cause on the server and start again: tables that are missing are loaded then. Where views, routines or users \
                 are missing, empty the server, drop its schema `bkp_restore`, and start it anew"
            }
            Self::Lost(_) => {
                "somebody has dropped its schema `bkp_standby`: it cannot be served or promoted by bkp. Empty the server and start it anew; \
                 or, to do with what it has applied: RESET REPLICA ALL FOR CHANNEL 'bkp' (MariaDB: RESET SLAVE 'bkp' ALL), \
                 SET GLOBAL read_only = OFF"
            }
            Self::NoStandby => {
                "it was promoted already, or its restore is not over, or `bkp standby start` was never begun there"
            }
            Self::OtherSource { .. } => "name the other source, or another server",
            Self::Promoting => "run `bkp standby promote` again: it goes on where it stopped",
            Self::Passed { .. } => {
                "nothing undoes what it has applied: promote it to a later point, or restore beside it with `bkp restore \
                 --point-in-time`. A standby with `--delay` leaves time to stop it before a mistake"
            }
            Self::Segment { error, .. } => return error.hint(),
            Self::Capture(error) => return error.hint(),
            Self::Replay(error) => return error.hint(),
            Self::Restore(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
            Self::Place(error) => return error.hint(),
            Self::Still { .. }
            | Self::Io { .. }
            | Self::Gtid(_)
            | Self::NotNext(_)
            | Self::Thread(_)
            | Self::Stopped(_) => return None,
        };
        Some(hint.to_owned())
    }
}
