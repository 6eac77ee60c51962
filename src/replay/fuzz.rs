//! What may come to the port where bkp serves segments, and what a session is told, for the fuzz targets in `tests/fuzz`: see
//! [`crate::fuzz`].

#![allow(clippy::missing_panics_doc, reason = "each panics where a promise is broken: that is what it is for")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::mysql::binlog::fuzz as binlog;
use crate::mysql::gtid::Uuid;
use crate::replay::answers::{Answer, Identity, answer};
use crate::replay::door::Login;
use crate::replay::serve::{Asked, COM_BINLOG_DUMP, COM_BINLOG_DUMP_GTID, COM_QUERY};
use crate::replay::session;
use crate::replay::wire::Packets;

/// One side's bytes, and nobody who reads the other's.
struct Caller<'a>(&'a [u8]);

impl Read for Caller<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Caller<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Payloads, each after two bytes of its length: the answer to the greeting, and commands. Returns how many were understood.
#[must_use]
pub fn replica(bytes: &[u8]) -> usize {
    as_packets(bytes);
    let identity = Identity {
        server_id: 7,
        server_uuid: Uuid::from_bytes([7; 16]).to_string(),
        version: "9.7.0".to_owned(),
        gtid_mode: "ON",
        checksum: "CRC32",
    };
    let (mut set, mut count, mut rest) = (BTreeMap::new(), 0, bytes);
    while let Some((length, after)) = rest.split_first_chunk() {
        let (payload, after) = after.split_at(after.len().min(u16::from_le_bytes(*length).into()));
        rest = after;
        let is_understood = match payload.split_first() {
            _ if count == 0 => Login::parse(payload).is_ok(),
            Some((&COM_QUERY, text)) => {
                !matches!(answer(&String::from_utf8_lossy(text), &identity, &mut set), Answer::Unknown(_))
            }
            Some((&word @ (COM_BINLOG_DUMP | COM_BINLOG_DUMP_GTID), body)) => Asked::parse(word, body, &set).is_some(),
            _ => false,
        };
        count += usize::from(is_understood);
    }
    count
}

/// The same bytes as they come from a socket: none is read twice.
fn as_packets(bytes: &[u8]) {
    let mut packets = Packets::new(Caller(bytes));
    let mut read = 0;
    while let Ok(Some(command)) = packets.command() {
        read += command.len() + 4;
        assert!(read <= bytes.len(), "{read} bytes of {} were read", bytes.len());
    }
}

/// A file as the target `segment` has them, brought to a target by one session. Returns how many parcels of statements it makes.
#[must_use]
pub fn session(bytes: &[u8]) -> usize {
    let Some((product, file)) = binlog::file(bytes) else { return 0 };
    session::fuzz::parcels(product, &file)
}
