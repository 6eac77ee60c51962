//! A recovery point: up to which transaction a database is to come back.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::mysql::gtid::Gtid;
use crate::mysql::manifest::Position;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// All that there is.
    Latest,
    /// Every transaction that was committed until then.
    At(DateTime<Utc>),
    /// Everything up to this transaction, and it.
    Gtid(Gtid),
    /// Everything up to this transaction, without it.
    Before(Gtid),
    /// Everything that the binlog holds before this place.
    Position(Position),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::At(time) => write!(f, "{}", time.format("%Y-%m-%d %H:%M:%S%.f UTC")),
            Self::Gtid(gtid) => write!(f, "gtid:{gtid}"),
            Self::Before(gtid) => write!(f, "before:{gtid}"),
            Self::Position(Position { file, offset }) => write!(f, "position:{file}:{offset}"),
        }
    }
}
