//! A payload that is taken in parts: an event of a binlog may be 1 GiB, and nobody has to hold it.

use std::time::Duration;

use crate::mysql::wire::error::WireError;
use crate::mysql::wire::stream::{CONTINUED, GATHERED_BYTES, PacketStream};

/// What is still to be read of a payload. It is of the stream that began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Of the packet that is being read.
    length: usize,
    /// Another packet follows it.
    is_continued: bool,
}

impl PacketStream {
    /// Begins to read a payload in parts.
    pub(crate) fn begin(&mut self) -> Result<Rest, WireError> {
        let length = self.header()?;
        Ok(Rest { length, is_continued: length == CONTINUED })
    }

    /// Takes the first bytes of a payload that has so many. They must fit into the first packet.
    pub(crate) fn head(&mut self, rest: &mut Rest, count: usize) -> Result<&[u8], WireError> {
        if rest.length < count {
            return Err(WireError::Protocol { what: "a packet is too short" });
        }
        self.fill(count)?;
        Ok(self.advance(rest, count))
    }

    /// Looks at the next byte of a payload that has one, without taking it.
    pub(crate) fn look(&mut self, rest: Rest) -> Result<u8, WireError> {
        if rest.length == 0 {
            return Err(WireError::Protocol { what: "a packet is too short" });
        }
        self.fill(1)?;
        Ok(self.buffer[self.start])
    }

    /// Takes what there is of the rest, and at least a byte; `None` after the last.
    pub(crate) fn part(&mut self, rest: &mut Rest) -> Result<Option<&[u8]>, WireError> {
        while rest.length == 0 {
            if !rest.is_continued {
                return Ok(None);
            }
            *rest = self.begin()?;
        }
        self.fill(1)?;
        let count = rest.length.min(self.end - self.start);
        Ok(Some(self.advance(rest, count)))
    }

    /// Tells whether the next read has to wait for the server.
    pub(crate) fn is_drained(&self) -> bool {
        self.start == self.end
    }

    /// Gives what comes in small pieces a while to come together, and takes in what is there then. Returns false where nothing is; that
    /// the stream is broken, the next read tells. To be called where the stream is drained.
    pub(crate) fn gather(&mut self, wait: Duration) -> Result<bool, WireError> {
        // Where something always comes, no read waits, and none would hear it.
        if self.cancel.is_cancelled() {
            return Err(WireError::Stopped);
        }
        if self.gathered < GATHERED_BYTES {
            std::thread::sleep(wait);
        }
        self.make_room(0);
        let read = self.channel.read_ready(&mut self.buffer[self.end..]);
        self.gathered = read.map_err(|error| WireError::Lost { error })?;
        self.end += self.gathered;
        Ok(self.gathered > 0)
    }

    fn advance(&mut self, rest: &mut Rest, count: usize) -> &[u8] {
        rest.length -= count;
        self.start += count;
        &self.buffer[self.start - count..self.start]
    }
}

impl Rest {
    /// Returns how many bytes are left of the packet that is being read.
    pub(crate) fn length(self) -> usize {
        self.length
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::mysql::wire::stream::{BUFFER_BYTES, Socket};

    fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a length");
        [&length.to_le_bytes()[..3], &[sequence], payload].concat()
    }

    fn read_all(stream: &mut PacketStream) -> (Vec<u8>, Vec<u8>, usize) {
        let mut rest = stream.begin().expect("a payload");
        let head = stream.head(&mut rest, 3).expect("its head").to_vec();
        let (mut body, mut largest) = (Vec::new(), 0);
        while let Some(part) = stream.part(&mut rest).expect("a part") {
            assert!(!part.is_empty());
            largest = largest.max(part.len());
            body.extend_from_slice(part);
        }
        (head, body, largest)
    }

    #[test]
    fn a_payload_of_many_packets_comes_in_parts_and_is_never_held_whole() {
        let (mut theirs, ours) = UnixStream::pair().expect("a pair of sockets");
        let socket = Socket::Unix(ours);
        socket.slice_waits().expect("time-outs");
        let mut stream = PacketStream::new(socket, CancellationToken::new(), Duration::from_secs(2));
        let whole: Vec<u8> = (0..CONTINUED * 2).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let sent = whole.clone();
        let writer = std::thread::spawn(move || {
            // Two full packets and the empty one that ends them, and a payload of its own after.
            for (sequence, part) in sent.chunks(CONTINUED).chain([&[][..]]).enumerate() {
                theirs.write_all(&packet(sequence.to_le_bytes()[0], part)).expect("written");
            }
            theirs.write_all(&packet(3, b"after")).expect("written");
            theirs
        });
        let (head, body, largest) = read_all(&mut stream);
        assert!([head, body].concat() == whole);
        assert!(largest <= BUFFER_BYTES && stream.buffer.len() == BUFFER_BYTES, "{largest}");
        let (head, body, _) = read_all(&mut stream);
        assert_eq!([head, body].concat(), b"after");
        assert!(stream.is_drained());
        let mut theirs = writer.join().expect("the writer ends");
        theirs.write_all(&packet(4, b"ab")).expect("written");
        let mut rest = stream.begin().expect("a payload");
        assert!(matches!(stream.head(&mut rest, 3), Err(WireError::Protocol { .. })));
    }

    #[test]
    fn what_came_in_pieces_is_taken_in_together_and_nothing_is_waited_for() {
        let (mut theirs, ours) = UnixStream::pair().expect("a pair of sockets");
        let mut stream = PacketStream::new(Socket::Unix(ours), CancellationToken::new(), Duration::from_secs(2));
        let gather = |stream: &mut PacketStream| stream.gather(Duration::ZERO).expect("a look");
        assert!(!gather(&mut stream), "nothing came yet");
        for sequence in 0..3 {
            theirs.write_all(&packet(sequence, b"piece")).expect("written");
        }
        assert!(gather(&mut stream));
        for _ in 0..3 {
            assert!(!stream.is_drained());
            assert_eq!(read_all(&mut stream).0, b"pie");
        }
        assert!(stream.is_drained());
        drop(theirs);
        assert!(!gather(&mut stream), "nor will anything come");
        assert!(matches!(stream.begin(), Err(WireError::Closed)));
    }

    #[test]
    fn a_stop_is_heard_where_something_always_comes() {
        let (mut theirs, ours) = UnixStream::pair().expect("a pair of sockets");
        let cancel = CancellationToken::new();
        let mut stream = PacketStream::new(Socket::Unix(ours), cancel.clone(), Duration::from_secs(2));
        theirs.write_all(&packet(0, b"piece")).expect("written");
        cancel.cancel();
        assert!(matches!(stream.gather(Duration::ZERO), Err(WireError::Stopped)));
    }

    #[test]
    fn a_stream_that_brings_much_at_once_is_not_left_waiting() {
        let (mut theirs, ours) = UnixStream::pair().expect("a pair of sockets");
        let mut stream = PacketStream::new(Socket::Unix(ours), CancellationToken::new(), Duration::from_secs(2));
        for (sequence, wait) in [(0, Duration::ZERO), (1, Duration::from_hours(1))] {
            theirs.write_all(&packet(sequence, &[7; GATHERED_BYTES])).expect("written");
            assert!(stream.gather(wait).expect("a look"));
            read_all(&mut stream);
        }
    }
}
