//! What goes to the target at once.

use crate::mysql::gtid::Gtid;
use crate::mysql::manifest::Position;

/// A transaction, as far as errors tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) gtid: Option<Gtid>,
    pub(super) begin: Position,
}

/// What is sent next, and waited for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) work: Work,
    /// The transactions that it is of.
    pub(super) of: Vec<Named>,
    /// The end of the last that is whole with it.
    pub(super) reached: Option<Position>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Statements of ours, in one text.
    Own(Vec<u8>),
    /// A statement of the binlog, and what comes before it, one by one.
    Said { schema: Vec<String>, set: String, text: Vec<u8> },
}
