//! The format description: the first event of a file, and how to read the others.

use crate::mysql::binlog::header::{Header, flag};
use crate::mysql::binlog::{BinlogError, Kind, Malformed};
use crate::mysql::manifest::Product;
use crate::mysql::wire::cursor::Cursor;

/// A format description's body up to the lengths of the post-headers.
const FIXED_BYTES: usize = 2 + 50 + 4 + 1;

const BINLOG_VERSION: u16 = 4;

/// Where an event's flags stand.
const FLAGS_AT: usize = 17;

/// What each event of a file ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    None,
    Crc32,
}

impl Checksum {
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32 => 4,
        }
    }

    /// Checks a whole event's checksum, where it has one.
    ///
    /// # Errors
    /// Bytes that are not those which the server wrote.
    pub fn check(self, event: &[u8], offset: u64) -> Result<(), BinlogError> {
        let Self::Crc32 = self else { return Ok(()) };
        let Some((bytes, stored)) = event.split_last_chunk() else {
            return Err(Malformed("it is shorter than its checksum").at(offset));
        };
        compare(crc32fast::hash(bytes), *stored, offset)
    }
}

pub(super) fn compare(found: u32, stored: [u8; 4], offset: u64) -> Result<(), BinlogError> {
    let stored = u32::from_le_bytes(stored);
    if found == stored { Ok(()) } else { Err(BinlogError::Damaged { offset, found, stored }) }
}

/// How the events of a file are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// The server's version as it calls itself: `9.7.0`, `10.11.14-MariaDB-log`.
    pub server_version: String,
    pub checksum: Checksum,
    /// The file is being written, or was not closed: its server broke down.
    pub is_in_use: bool,
    pub product: Product,
}

impl Format {
    /// Parses a whole format description, header and checksum included, and checks its checksum: it has one in every file.
    ///
    /// # Errors
    /// Bytes that are damaged, or of another version than 4 (MySQL 5.0).
    pub fn parse(event: &[u8], offset: u64) -> Result<Self, BinlogError> {
        let format = Self::read(event).map_err(|malformed| malformed.at(offset))?;
        let mut closed = event.to_vec();
        // The flag is set and cleared without a new checksum.
        closed[FLAGS_AT] &= !flag::IN_USE.to_le_bytes()[0];
        Checksum::Crc32.check(&closed, offset)?;
        Ok(format)
    }

    fn read(event: &[u8]) -> Result<Self, Malformed> {
        let (head, body) = event.split_first_chunk().ok_or(Malformed("it is shorter than a header"))?;
        let header = Header::parse(head)?;
        if header.kind != Kind::FORMAT_DESCRIPTION {
            return Err(Malformed("it is not the format description that a file begins with"));
        }
        let mut cursor = Cursor::new(body);
        let fixed = cursor.take(FIXED_BYTES)?;
        let [rest @ .., algorithm, _, _, _, _] = cursor.rest() else {
            return Err(Malformed("it is shorter than its fields"));
        };
        let mut cursor = Cursor::new(fixed);
        if cursor.u16()? != BINLOG_VERSION {
            return Err(Malformed("it is of another version than 4"));
        }
        let server_version = String::from_utf8_lossy(Cursor::new(cursor.take(50)?).until_nul()).into_owned();
        let (_created, header_bytes) = (cursor.u32()?, cursor.u8()?);
        if usize::from(header_bytes) != Header::BYTES {
            return Err(Malformed("it announces headers that are not of 19 bytes"));
        }
        let checksum = match algorithm {
            0 => Checksum::None,
            1 => Checksum::Crc32,
            _ => return Err(Malformed("it announces an unknown checksum")),
        };
        let is_in_use = header.flags & flag::IN_USE != 0;
        // Only MariaDB has events past 159; there is a byte for each kind.
        let is_mariadb = rest.len() >= usize::from(Kind::MARIADB_GTID.0);
        let product = if is_mariadb { Product::MariaDb } else { Product::MySql };
        Ok(Self { server_version, checksum, is_in_use, product })
    }

    /// Returns what an event of a kind ends with: a format description always has a checksum.
    #[must_use]
    pub fn checksum_of(&self, kind: Kind) -> Checksum {
        if kind == Kind::FORMAT_DESCRIPTION { Checksum::Crc32 } else { self.checksum }
    }

    /// Returns the format of events inside a compressed transaction: the same without checksums.
    pub(super) fn without_checksum(&self) -> Self {
        Self { checksum: Checksum::None, ..self.clone() }
    }
}
