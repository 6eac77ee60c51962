//! Our own replica follows our own source.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::event::Events;
use crate::mysql::binlog::{Checksum, Header, Kind, MAGIC};
use crate::mysql::manifest::Product;
use crate::mysql::server::{Server, ServerError};
use crate::mysql::wire::binlog::{AtEnd, BinlogStream, FilePosition, Next, Replica};
use crate::mysql::wire::{Wire, WireError};
use crate::policy::{MysqlAddress, Network, Tls, TlsMode};
use crate::replay::made::event;
use crate::replay::{Face, Feed, Guard, Segment, Source};
use crate::secret::Secret;

/// More than a packet holds.
pub(super) const LARGE: usize = (1 << 24) + 7;

/// Returns a format description that stands at a file's beginning.
pub(super) fn format() -> Vec<u8> {
    let mut body = vec![4, 0];
    body.extend_from_slice(b"9.7");
    body.resize(52, 0);
    body.extend_from_slice(&7_u32.to_le_bytes());
    body.push(19);
    body.extend_from_slice(&[0; 41]);
    body.push(1);
    let end = u32::try_from(MAGIC.len() + Header::BYTES + body.len() + 4).unwrap();
    event(Kind::FORMAT_DESCRIPTION, 77, end, 0, &body, Checksum::Crc32)
}

/// Writes a binlog of statements of these lengths, and returns it with the offset after each event.
pub(super) fn segment(dir: &Path, name: &str, lengths: &[usize]) -> (Segment, Vec<u64>) {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&format());
    let mut ends = vec![bytes.len() as u64];
    for length in lengths {
        let end = u32::try_from(bytes.len() + Header::BYTES + length + 4).unwrap();
        bytes.extend_from_slice(&event(Kind::ROWS_QUERY, 77, end, 0, &vec![b'x'; *length], Checksum::Crc32));
        ends.push(bytes.len() as u64);
    }
    let path = dir.join(name);
    std::fs::write(&path, &bytes).unwrap();
    (Segment { name: name.to_owned(), path, bytes: bytes.len() as u64 }, ends)
}

fn source(feed: Feed) -> Source {
    guarded(feed, None)
}

/// Opens a source that talks under TLS alone where it has a guard.
pub(super) fn guarded(feed: Feed, guard: Option<Guard>) -> Source {
    let (server_uuid, version) = ("3e11fa47-71ca-11e1-9e33-c80aa9429562".to_owned(), "9.7.0".to_owned());
    let face = Face { server_id: 77, server_uuid, version, has_gtids: true, replica: None };
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    Source::open(feed, face, here, guard, Events::silent(), &CancellationToken::new()).unwrap()
}

fn server(source: &Source, password: &str) -> Server {
    Server {
        address: MysqlAddress::Tcp { host: "127.0.0.1".to_owned(), port: source.address.port() },
        user: source.user.clone(),
        password: Some(Secret::new(password.to_owned())),
        tls: Tls { mode: TlsMode::Off, ca_file: None },
        network: Network::default(),
    }
}

/// Follows until the end: the files with the offsets that they begin at, and the bytes of their events.
fn follow(source: &Source, product: Product, from: &FilePosition) -> Result<(Vec<FilePosition>, Vec<u8>), WireError> {
    let wire = server(source, &source.password).open_wire(&CancellationToken::new()).unwrap();
    follow_by(wire, product, from)
}

/// As [`follow`], on a connection that has logged in.
pub(super) fn follow_by(
    wire: Wire,
    product: Product,
    from: &FilePosition,
) -> Result<(Vec<FilePosition>, Vec<u8>), WireError> {
    let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429563".to_owned();
    let replica = Replica { server_id: 5, uuid, heartbeat: Duration::from_secs(5), acknowledges: false };
    let mut stream = wire.stream_binlog(product, from, &replica, AtEnd::Stop)?;
    let (mut files, mut bytes) = (Vec::new(), Vec::new());
    loop {
        match stream.next()? {
            Next::File(place) => files.push(place),
            Next::Event(_) => take(&mut stream, &mut bytes)?,
            Next::Format(_) => take(&mut stream, &mut Vec::new())?,
            Next::Heartbeat => {}
            Next::End => return Ok((files, bytes)),
        }
    }
}

fn take(stream: &mut BinlogStream, bytes: &mut Vec<u8>) -> Result<(), WireError> {
    while let Some(part) = stream.part()? {
        bytes.extend_from_slice(part);
    }
    Ok(())
}

pub(super) fn at(file: &str, offset: u64) -> FilePosition {
    FilePosition { file: file.to_owned(), offset }
}

#[test]
fn a_replica_gets_the_files_byte_for_byte_and_large_events_too() {
    let dir = tempfile::tempdir().unwrap();
    let (first, ends) = segment(dir.path(), "b.000009", &[10, LARGE, LARGE - 3]);
    let (second, second_ends) = segment(dir.path(), "b.000010", &[20, 30, 40]);
    let written = [&first, &second].map(|segment| std::fs::read(&segment.path).unwrap());
    for product in [Product::MySql, Product::MariaDb] {
        let segments = vec![first.clone(), second.clone()];
        let source = source(Feed { product, segments, begin: ends[1], end: second_ends[2], dumped: None });
        let (files, bytes) = follow(&source, product, &at("b.000009", ends[1])).unwrap();
        assert_eq!(files, [at("b.000009", ends[1]), at("b.000010", 4)]);
        let until = usize::try_from(second_ends[2]).unwrap();
        let wanted = [&written[0][usize::try_from(ends[1]).unwrap()..], &written[1][4..until]].concat();
        assert!(bytes == wanted, "{product:?}: {} bytes of {}", bytes.len(), wanted.len());
        assert_eq!(source.failure(), None);

        let refused = follow(&source, product, &at("b.000009", 4));
        assert_eq!(refused.unwrap_err().code(), Some(1236), "what lies before the dump is not served");
        assert!(source.failure().is_some_and(|text| text.contains("not served")));
    }
}

#[test]
fn a_stranger_is_let_in_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    for product in [Product::MySql, Product::MariaDb] {
        let (only, ends) = segment(dir.path(), "b.000001", &[10]);
        let source = source(Feed { product, segments: vec![only], begin: 4, end: ends[1], dumped: None });
        let refused = server(&source, "guessed").open_wire(&CancellationToken::new());
        let code = match refused {
            Err(ServerError::Login { error, .. }) => error.code(),
            other => panic!("{other:?}"),
        };
        assert_eq!(code, Some(1045));
        let mut wire = server(&source, &source.password).open_wire(&CancellationToken::new()).unwrap();
        assert_eq!(wire.query("SELECT @@GLOBAL.server_id").unwrap(), [[Some(b"77".to_vec())]]);
        assert_eq!(wire.run("DROP DATABASE mall").unwrap_err().code(), Some(1193));
    }
}

#[test]
fn a_damaged_event_ends_the_stream_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let product = Product::MySql;
    // Of a large event it is known only when it has been sent.
    for (nth, length) in [1_000, LARGE].into_iter().enumerate() {
        let (only, ends) = segment(dir.path(), &format!("b.{nth:06}"), &[1_000, length]);
        let mut bytes = std::fs::read(&only.path).unwrap();
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
        std::fs::write(&only.path, bytes).unwrap();
        let (name, segments) = (only.name.clone(), vec![only]);
        let source = source(Feed { product, segments, begin: 4, end: ends[2], dumped: None });
        let broken = follow(&source, product, &at(&name, 4)).unwrap_err();
        assert_eq!(broken.code(), (length < LARGE).then_some(1236), "{broken:?}");
        assert!(source.failure().is_some_and(|text| text.contains("damaged")), "{:?}", source.failure());
    }
}

#[test]
fn a_replica_gets_what_comes_to_the_feed_and_one_that_lost_its_number_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (product, here) = (Product::MySql, SocketAddr::from(([127, 0, 0, 1], 0)));
    let (first, ends) = segment(dir.path(), "b.000001", &[10, LARGE, 30]);
    let (second, second_ends) = segment(dir.path(), "b.000002", &[20, 30]);
    let feed = |segments: &[&Segment], end| {
        let segments = segments.iter().map(|segment| (*segment).clone()).collect();
        Feed { product, segments, begin: 4, end, dumped: None }
    };
    let (server_uuid, version) = ("3e11fa47-71ca-11e1-9e33-c80aa9429562".to_owned(), "9.7.0".to_owned());
    let face = Face { server_id: 77, server_uuid, version, has_gtids: true, replica: Some(5) };
    let source =
        Source::open(feed(&[&first], ends[1]), face, here, None, Events::silent(), &CancellationToken::new()).unwrap();
    let stream = |server_id| {
        let wire = server(&source, &source.password).open_wire(&CancellationToken::new()).unwrap();
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429563".to_owned();
        let replica = Replica { server_id, uuid, heartbeat: Duration::from_secs(5), acknowledges: false };
        wire.stream_binlog(product, &at("b.000001", 4), &replica, AtEnd::Wait)
    };
    let refused = stream(6).and_then(|mut stream| stream.next());
    assert!(refused.is_err(), "{refused:?}");

    let mut stream = stream(5).unwrap();
    let (mut bytes, mut files) = (Vec::new(), 0);
    let grown = [
        feed(&[&first], ends[2]),
        feed(&[&first], ends[3]),
        feed(&[&first, &second], second_ends[1]),
        feed(&[&second], second_ends[2]),
    ];
    let mut grown = grown.into_iter();
    let wanted = [&first, &second].map(|segment| std::fs::read(&segment.path).unwrap()[4..].to_vec()).concat();
    while bytes.len() < wanted.len() {
        match stream.next().unwrap() {
            Next::File(_) => files += 1,
            Next::Event(_) => take(&mut stream, &mut bytes).unwrap(),
            Next::Format(_) => take(&mut stream, &mut Vec::new()).unwrap(),
            // It has all that there was: only what comes to it now can come.
            Next::Heartbeat => source.extend(grown.next().expect("more than the feed holds")),
            Next::End => panic!("the stream ended"),
        }
    }
    assert!(bytes == wanted, "{} bytes of {}", bytes.len(), wanted.len());
    assert_eq!((files, source.failure()), (2, None));
}
