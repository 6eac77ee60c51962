//! Events that a source makes up for its replicas: where a file begins, how its events read, how far the log is.

use crate::mysql::binlog::{Checksum, Header, Kind};
use crate::replay::feed::Served;

/// Where an event's end position and its flags stand.
const END: std::ops::Range<usize> = 13..17;
const FLAGS_AT: usize = 17;

/// Where a format description says when its server was started.
const CREATED: std::ops::Range<usize> = Header::BYTES + 52..Header::BYTES + 56;

const IN_USE: u8 = 0x01;
const ARTIFICIAL: u16 = 0x20;

/// Fields of a heartbeat of MySQL's second kind.
const HEARTBEAT_FILE: u8 = 1;
const HEARTBEAT_OFFSET: u8 = 2;

/// Says in which file, and where in it, the next event stands.
pub(super) fn rotate(server_id: u32, file: &str, offset: u64, checksum: Checksum) -> Vec<u8> {
    let mut body = offset.to_le_bytes().to_vec();
    body.extend_from_slice(file.as_bytes());
    event(Kind::ROTATE, server_id, 0, ARTIFICIAL, &body, checksum)
}

/// Says how far the log is; `None` where MariaDB's form cannot.
pub(super) fn heartbeat(server_id: u32, served: &Served) -> Option<Vec<u8>> {
    let Served { file, offset, checksum } = served;
    if let Ok(end) = u32::try_from(*offset) {
        return Some(event(Kind::HEARTBEAT, server_id, end, 0, file.as_bytes(), *checksum));
    }
    let length = u8::try_from(file.len()).ok().filter(|length| *length <= 250)?;
    let mut body = vec![HEARTBEAT_FILE, length];
    body.extend_from_slice(file.as_bytes());
    body.extend_from_slice(&[HEARTBEAT_OFFSET, 9, 0xFE]);
    body.extend_from_slice(&offset.to_le_bytes());
    body.push(0);
    Some(event(Kind::HEARTBEAT_V2, server_id, 0, 0, &body, *checksum))
}

/// Makes a file's format description fit to be sent: its file counts as closed, and where events before `from` are left out, it
/// stands in no file and no server was started (else the replica would roll back what it has begun).
pub(super) fn format_description(event: &[u8], is_cut: bool) -> Vec<u8> {
    let mut event = event.to_vec();
    event[FLAGS_AT] &= !IN_USE;
    if is_cut {
        event[END].fill(0);
        event[CREATED].fill(0);
        let end = event.len() - Checksum::Crc32.bytes();
        let sum = crc32fast::hash(&event[..end]);
        event[end..].copy_from_slice(&sum.to_le_bytes());
    }
    event
}

/// Makes a file's format description fit to be told apart from its file, of events that have lost their checksums.
pub(super) fn without_checksum(event: &[u8]) -> Vec<u8> {
    let mut event = format_description(event, true);
    let end = event.len() - Checksum::Crc32.bytes();
    // The last byte before its own checksum says what the others have.
    event[end - 1] = 0;
    let sum = crc32fast::hash(&event[..end]);
    event[end..].copy_from_slice(&sum.to_le_bytes());
    event
}

pub(super) fn event(kind: Kind, server_id: u32, end: u32, flags: u16, body: &[u8], checksum: Checksum) -> Vec<u8> {
    let length = u32::try_from(Header::BYTES + body.len() + checksum.bytes()).unwrap_or(u32::MAX);
    let mut event = Vec::with_capacity(length as usize);
    event.extend_from_slice(&[0; 4]);
    event.push(kind.0);
    event.extend_from_slice(&server_id.to_le_bytes());
    event.extend_from_slice(&length.to_le_bytes());
    event.extend_from_slice(&end.to_le_bytes());
    event.extend_from_slice(&flags.to_le_bytes());
    event.extend_from_slice(body);
    if checksum == Checksum::Crc32 {
        event.extend_from_slice(&crc32fast::hash(&event).to_le_bytes());
    }
    event
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_made_event_reads_as_one_of_a_file() {
        let rotate = rotate(7, "binlog.000002", 4, Checksum::Crc32);
        let header = Header::parse(rotate.first_chunk().expect("a header")).expect("a header");
        assert_eq!((header.kind, header.server_id, header.end), (Kind::ROTATE, 7, 0));
        assert_eq!(header.length as usize, rotate.len());
        assert!(header.is_artificial());
        Checksum::Crc32.check(&rotate, 0).expect("its checksum");
    }

    #[test]
    fn a_heartbeat_past_4_gib_takes_the_other_form() {
        let served = |offset| Served { file: "b.1".to_owned(), offset, checksum: Checksum::None };
        let beat = heartbeat(7, &served(99)).expect("a heartbeat");
        assert_eq!((beat[4], &beat[13..17]), (Kind::HEARTBEAT.0, &[99, 0, 0, 0][..]));
        let beat = heartbeat(7, &served(1 << 33)).expect("a heartbeat");
        assert_eq!(beat[4], Kind::HEARTBEAT_V2.0);
        assert_eq!(&beat[19..], b"\x01\x03b.1\x02\x09\xFE\0\0\0\0\x02\0\0\0\0");
    }
}
