//! The 19 bytes before every event.

use crate::mysql::binlog::{Kind, Malformed};
use crate::mysql::wire::cursor::Cursor;

/// The flags of an event that bkp looks at.
pub mod flag {
    /// In a format description: the file is being written, or was not closed.
    pub const IN_USE: u16 = 0x01;
    /// A statement that needs no schema to be chosen before it.
    pub const SUPPRESS_USE: u16 = 0x08;
    /// The server made it up for a replica: it stands in no file.
    pub const ARTIFICIAL: u16 = 0x20;
    /// In a format description: a replica keeps here what its source sent.
    pub const RELAY_LOG: u16 = 0x40;
    /// Who does not know it may go past it.
    pub const IGNORABLE: u16 = 0x80;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Seconds since 1970: when the *statement* began, or what `SET TIMESTAMP` said.
    pub timestamp: u32,
    pub kind: Kind,
    pub server_id: u32,
    /// Header, body and checksum.
    pub length: u32,
    /// The low 32 bits of the offset after the event. Zero in events that stand in no file, and in MariaDB 11.8 in all but the first
    /// and the last of a transaction.
    pub end: u32,
    pub flags: u16,
}

impl Header {
    pub const BYTES: usize = 19;

    pub fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let header = Self {
            timestamp: cursor.u32()?,
            kind: Kind(cursor.u8()?),
            server_id: cursor.u32()?,
            length: cursor.u32()?,
            end: cursor.u32()?,
            flags: cursor.u16()?,
        };
        if usize::try_from(header.length).is_ok_and(|length| length < Self::BYTES) {
            return Err(Malformed("its length is less than a header's"));
        }
        Ok(header)
    }

    #[must_use]
    pub fn is_artificial(&self) -> bool {
        self.flags & flag::ARTIFICIAL != 0
    }
}
