//! What a server may send to a client, for the fuzz target in `tests/fuzz`: see [`crate::fuzz`].

#![allow(clippy::missing_panics_doc, reason = "each panics where a promise is broken: that is what it is for")]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::mysql::binlog::Header;
use crate::mysql::row::{Encoder, KeyColumn, KeyKind};
use crate::mysql::wire::binlog::{BinlogStream, Next};
use crate::mysql::wire::stream::PacketStream;
use crate::mysql::wire::{Credentials, Socket, Wire, WireError};

/// What fits into a socket that nobody reads yet.
const SENT_BYTES_MAX: usize = 64 * 1024;

/// What our client was about to do when the bytes came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    LogIn { is_socket: bool },
    Query,
    Read,
    Change,
    Stream,
}

const ACTS: [Act; 6] =
    [Act::LogIn { is_socket: true }, Act::LogIn { is_socket: false }, Act::Query, Act::Read, Act::Change, Act::Stream];

/// A byte that says what the client does, and the payloads that the server sends, each after two bytes of its length; an empty one
/// tells that the next answers another command. Returns how much the client could read: rows, events or answers.
#[must_use]
pub fn server(bytes: &[u8]) -> usize {
    let Some((act, payloads)) = bytes.split_first() else { return 0 };
    let has_eof = act & 0x80 != 0;
    let act = ACTS[usize::from(act & 0x7F) % ACTS.len()];
    let (mut theirs, ours) = UnixStream::pair().unwrap_or_else(|error| panic!("{error}"));
    let packets = packets(act, &payloads[..payloads.len().min(SENT_BYTES_MAX / 4)]);
    theirs.write_all(&packets[..packets.len().min(SENT_BYTES_MAX)]).unwrap_or_else(|error| panic!("{error}"));
    theirs.shutdown(Shutdown::Write).unwrap_or_else(|error| panic!("{error}"));
    // What it has read so far counts, however it ends. `theirs` lives to the end: nobody may write to a socket that is closed.
    let mut count = 0;
    let _refused = heard(act, Socket::Unix(ours), has_eof, &mut count);
    count
}

/// Puts payloads into packets whose numbers are right as far as that can be known: no fuzzer would find them.
fn packets(act: Act, mut payloads: &[u8]) -> Vec<u8> {
    let is_login = matches!(act, Act::LogIn { .. });
    let (mut number, mut packets) = (u8::from(matches!(act, Act::Query | Act::Read | Act::Change)), Vec::new());
    while let Some((length, rest)) = payloads.split_first_chunk() {
        let (payload, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        payloads = rest;
        if payload.is_empty() {
            number = 1;
            continue;
        }
        packets.extend_from_slice(&u32::try_from(payload.len()).unwrap_or_default().to_le_bytes()[..3]);
        packets.push(number);
        packets.extend_from_slice(payload);
        // In a login each side says something in turn, but where the server says that it knows us.
        number = number.wrapping_add(if is_login && payload != [1, 3] { 2 } else { 1 });
    }
    packets
}

fn heard(act: Act, socket: Socket, has_eof: bool, count: &mut usize) -> Result<(), WireError> {
    let cancel = CancellationToken::new();
    match act {
        Act::LogIn { is_socket } => {
            let tls = None;
            let credentials = Credentials { user: "bkp", password: "password", tls, is_socket, is_loopback: true };
            let wire = Wire::login(socket, &credentials, cancel)?;
            assert!(!wire.is_busy());
            *count += 1;
        }
        Act::Stream => stream(BinlogStream::over(socket), count)?,
        Act::Query => wire(socket, has_eof, cancel).query_each("SELECT 1", |_| *count += 1)?,
        Act::Read => read(&mut wire(socket, has_eof, cancel), count)?,
        Act::Change => {
            wire(socket, has_eof, cancel).change("DELETE FROM t")?;
            *count += 1;
        }
    }
    Ok(())
}

fn wire(socket: Socket, has_eof: bool, cancel: CancellationToken) -> Wire {
    let stream = PacketStream::new(socket, cancel, Duration::from_secs(9));
    Wire { stream, version: String::new(), connection: 0, has_eof, is_busy: false }
}

/// Reads rows as a dump does: each is one line, of as many fields as there are columns.
fn read(wire: &mut Wire, count: &mut usize) -> Result<(), WireError> {
    let mut rows = wire.read("SELECT 1")?;
    let columns = rows.columns().len();
    let encoder = Encoder::new(rows.columns())?;
    let key = [KeyColumn { index: 0, kind: KeyKind::Quoted }];
    let mut line = Vec::new();
    while let Some(packet) = rows.next()? {
        let _no_key = encoder.key(packet, &key);
        line.clear();
        encoder.encode(packet, &mut line)?;
        assert!(line.ends_with(b"\n"), "a row is no line: {line:?}");
        assert_eq!(line.split(|byte| *byte == b'\n').count(), 2, "a row is more than a line: {line:?}");
        assert_eq!(line.split(|byte| *byte == b'\t').count(), columns.max(1), "a row has other fields: {line:?}");
        *count += 1;
    }
    Ok(())
}

/// Takes each event as capture does: its parts are what its header says, and nothing more.
fn stream(mut stream: BinlogStream, count: &mut usize) -> Result<(), WireError> {
    loop {
        match stream.next()? {
            Next::End => return Ok(()),
            Next::File(position) => assert!(!position.file.contains('/'), "{position:?}"),
            Next::Heartbeat | Next::Format(_) => {}
            Next::Event(_) => {
                let head = stream.part()?.map(<[u8]>::len);
                assert_eq!(head, Some(Header::BYTES), "an event begins with its header");
                while stream.part()?.is_some() {}
                *count += 1;
            }
        }
    }
}
