//! Binlog events from bytes, of both products: a [`SegmentReader`] over one file, and what bkp must know of an event. Pure: no policy,
//! no repository, no network.
//!
//! Little is read of an event, and memory is bounded whatever its size (a transaction's may reach 1 GiB): its head, and the rest
//! only where somebody asks. Bytes are never trusted: each checksum is checked here, and no input makes these parsers panic.

use std::io;

mod context;
mod fields;
mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod group;
mod gtid_event;
mod header;
mod kind;
mod payload;
mod plain;
mod query;
mod rotate;
mod rows;
mod segment;
mod start;
pub mod statement;
mod table;
mod transaction;
mod xa;

pub use context::{Context, Said};
pub use format::{Checksum, Format};
pub use group::{Clock, Ending, Group, Groups, Step};
pub use gtid_event::GtidEvent;
pub use header::{Header, flag};
pub use kind::Kind;
pub use plain::plain;
pub use query::{Bounds, Query};
pub use rotate::Rotate;
pub use segment::{Event, SegmentReader, Torn};
pub use start::{mariadb_gtid_list, previous_gtids};
pub use statement::Verb;
pub use table::TableName;
pub use transaction::{Changes, TEXT_CHARS_MAX, Touched, Transaction, Transactions};

/// What a file begins with: `\xFEbin`.
pub const MAGIC: [u8; 4] = *b"\xFEbin";

/// What an encrypted file of MySQL begins with.
pub const MAGIC_ENCRYPTED: [u8; 4] = *b"\xFDbin";

/// The largest event that a server writes: `max_allowed_packet`'s bound, and what rows and headers add.
pub const EVENT_BYTES_MAX: u32 = (1 << 30) + (1 << 20);

#[derive(Debug, thiserror::Error)]
pub enum BinlogError {
    #[error("read at offset {offset}: {error}")]
    Io { offset: u64, error: io::Error },
    #[error("this is no binlog: it does not begin with `\\xFEbin`")]
    NoBinlog,
    #[error("the binlog is encrypted from offset {offset} on")]
    Encrypted { offset: u64 },
    #[error("the event at offset {offset} is damaged: its checksum is {found:08x} and should be {stored:08x}")]
    Damaged { offset: u64, found: u32, stored: u32 },
    #[error("the event at offset {offset} makes no sense: {what}")]
    Malformed { offset: u64, what: &'static str },
    #[error("the event at offset {offset} has {bytes} bytes, more than {bytes_max}")]
    TooLarge { offset: u64, bytes: u64, bytes_max: u64 },
}

impl BinlogError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Encrypted { .. } => {
                "only its server can read it, and sends it in the clear: fetch it with `mysqlbinlog --read-from-remote-server --raw`"
            }
            Self::NoBinlog => "name binlog files as the server wrote them",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Why an event's bytes make no sense. Its reader knows where the event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);

impl Malformed {
    pub(crate) fn at(self, offset: u64) -> BinlogError {
        BinlogError::Malformed { offset, what: self.0 }
    }
}

impl From<crate::mysql::wire::WireError> for Malformed {
    fn from(_short: crate::mysql::wire::WireError) -> Self {
        Self("it is shorter than its fields")
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]
mod tests;
