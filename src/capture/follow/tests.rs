//! A server's part is played by hand: packets over a pair of sockets.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use super::*;
use crate::capture::due::GATHER;
use crate::capture::spool::tests::capture;
use crate::capture::tail::tests::{event, format};
use crate::mysql::binlog::{Kind, MAGIC, flag};
use crate::mysql::wire::Socket;
use crate::policy::Ack;

/// The server's end of a stream. `is_semi_sync`: it puts the mark before each event.
struct Peer {
    socket: UnixStream,
    is_semi_sync: bool,
    sequence: u8,
    /// Packets that are still to be sent, in one piece.
    packets: Vec<u8>,
}

impl Peer {
    fn pair(is_semi_sync: bool) -> (Self, BinlogStream) {
        let (socket, ours) = UnixStream::pair().unwrap();
        (Self { socket, is_semi_sync, sequence: 0, packets: Vec::new() }, BinlogStream::over(Socket::Unix(ours)))
    }

    fn put(&mut self, event: &[u8], wants_ack: bool) {
        let mark: &[u8] = if self.is_semi_sync { &[0xEF, u8::from(wants_ack)] } else { &[] };
        let payload = [&[0x00], mark, event].concat();
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        self.packets.extend([&length[..3], &[self.sequence], &payload].concat());
        self.sequence = if wants_ack { 1 } else { self.sequence.wrapping_add(1) };
    }

    /// A file begins: a rotate event that is made up, and the file's own first one. Returns what the file holds then.
    fn begin(&mut self, file: &str) -> Vec<u8> {
        let body = [&FIRST_EVENT.to_le_bytes()[..], file.as_bytes()].concat();
        let length = u32::try_from(Header::BYTES + body.len()).unwrap().to_le_bytes();
        let header = [&[0; 4][..], &[Kind::ROTATE.0], &[1, 0, 0, 0], &length, &[0; 4], &flag::ARTIFICIAL.to_le_bytes()];
        self.put(&[&header.concat(), &body[..]].concat(), false);
        self.put(&format(), false);
        [&MAGIC[..], &format()].concat()
    }

    fn grow(&mut self, file: &mut Vec<u8>, wants_ack: bool) {
        let event = event(Kind::QUERY, b"a commit", file.len() as u64);
        self.put(&event, wants_ack);
        file.extend(event);
    }

    fn send(&mut self) {
        self.socket.write_all(&self.packets).unwrap();
    }

    /// Reads all that comes until the other end is gone.
    fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.socket.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

/// Follows into a spool of its own, and tells what came of it.
fn followed(
    stream: BinlogStream,
    until: Until,
    prepare: impl FnOnce(&mut Follower<'_>, &Spool),
    dir: &std::path::Path,
) -> (Result<(), Broken>, Followed) {
    let mut capture = capture(dir);
    capture.plan.ack = Ack::Spool;
    let (spool, run) = (Spool::open(&capture).unwrap(), Run::silent());
    let server = Origin { product: Product::MySql, version: String::new(), server: "a".to_owned() };
    let facts = Facts::new(server, Vec::new());
    let mut follower = Follower::new(&capture, &spool, &facts, None, &run);
    follower.begin_epoch(Beginning::FirstCapture).unwrap();
    prepare(&mut follower, &spool);
    let ended = follower.take_all(stream, until);
    (ended, follower.followed)
}

/// An acknowledgement, as it crosses the wire.
fn ack(file: &str, offset: u64) -> Vec<u8> {
    let payload = [&[0xEF][..], &offset.to_le_bytes(), file.as_bytes()].concat();
    [&[u8::try_from(payload.len()).unwrap(), 0, 0, 0][..], &payload].concat()
}

#[test]
fn what_came_together_is_made_durable_together_and_acknowledged_in_one_word() {
    let dir = tempfile::tempdir().unwrap();
    let (mut peer, stream) = Peer::pair(true);
    let mut file = peer.begin("b.000001");
    for _ in 0..3 {
        peer.grow(&mut file, true);
    }
    let wanted = ack("b.000001", file.len() as u64);
    peer.grow(&mut file, false);
    peer.send();
    let path = dir.path().join("db1/1/b.000001");
    let listener = thread::spawn(move || {
        let mut heard = vec![0; wanted.len()];
        peer.socket.read_exact(&mut heard).unwrap();
        assert_eq!(heard, wanted);
        assert_eq!(fs::read(path).unwrap(), file, "it was there before");
        peer.socket.shutdown(Shutdown::Write).unwrap();
        peer.rest()
    });
    // However slow this machine is.
    let patient = |follower: &mut Follower<'_>, _: &Spool| follower.due.ack_wait = Duration::MAX;
    let (ended, _) = followed(stream, Until::Stopped, patient, dir.path());
    assert!(matches!(ended, Err(Broken::Error(CaptureError::Stream(_)))), "the server went");
    assert_eq!(listener.join().unwrap(), b"", "no other word");
}

#[test]
fn small_events_that_nobody_waits_for_are_made_durable_together_and_soon() {
    let dir = tempfile::tempdir().unwrap();
    let (mut peer, stream) = Peer::pair(false);
    let mut file = peer.begin("b.000001");
    peer.send();
    let path = dir.path().join("db1/1/b.000001");
    let server = thread::spawn(move || {
        let (began, mut sizes) = (Instant::now(), BTreeSet::new());
        // It never pauses. Sizes: of a file that is not there yet, that has begun, that has the first events, and more.
        while sizes.len() < 5 && began.elapsed() < Duration::from_mins(1) {
            peer.packets.clear();
            peer.grow(&mut file, false);
            peer.send();
            thread::sleep(Duration::from_millis(1));
            sizes.insert(fs::metadata(&path).map_or(0, |metadata| metadata.len()));
        }
        (sizes, began.elapsed())
    });
    let (ended, _) = followed(stream, Until::Stopped, |_, _| (), dir.path());
    assert!(matches!(ended, Err(Broken::Error(CaptureError::Stream(_)))), "the server went");
    let (sizes, time) = server.join().unwrap();
    assert!(sizes.len() > 3, "nothing more was durable after {time:?}: {sizes:?}");
    let most = time.as_millis() / GATHER.as_millis() + 3;
    assert!(sizes.len() as u128 <= most, "{} syncs in {time:?}", sizes.len());
}

#[test]
fn what_is_not_durable_is_never_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut peer, stream) = Peer::pair(true);
    let mut file = peer.begin("b.000001");
    peer.grow(&mut file, true);
    peer.send();
    let lose_disk = |follower: &mut Follower<'_>, _: &Spool| {
        follower.enter(&FilePosition { file: "b.000001".to_owned(), offset: FIRST_EVENT }).unwrap();
        // It takes every byte, and a sync of it fails.
        let nowhere = File::options().write(true).open("/dev/null").unwrap();
        follower.tail.as_mut().unwrap().write_to(nowhere);
    };
    let (ended, _) = followed(stream, Until::Stopped, lose_disk, dir.path());
    assert!(matches!(ended, Err(Broken::Error(CaptureError::Spool { .. }))), "the sync failed");
    assert_eq!(peer.rest(), b"");
}

#[test]
fn a_round_ends_where_a_file_ends_once_enough_came() {
    let dir = tempfile::tempdir().unwrap();
    for (bytes_max, has_more) in [(1, true), (u64::MAX, false)] {
        // This one knows nothing of acknowledgements.
        let (mut peer, stream) = Peer::pair(false);
        let mut first = peer.begin("b.000001");
        peer.grow(&mut first, false);
        peer.begin("b.000002");
        peer.send();
        peer.socket.shutdown(Shutdown::Write).unwrap();
        let (ended, followed) = followed(stream, Until::Now { bytes_max }, |_, _| (), dir.path());
        assert_eq!((ended.is_ok(), followed.has_more), (has_more, has_more), "{bytes_max}");
        let chain = Spool::chain_at(dir.path(), "db1").unwrap().unwrap();
        let epoch = chain.epochs.last().unwrap();
        assert_eq!(epoch.segments.len(), if has_more { 1 } else { 2 });
        assert!(epoch.segments[0].is_closed && epoch.segments[0].bytes == first.len() as u64);
        assert_eq!(peer.rest(), b"");
    }
}
