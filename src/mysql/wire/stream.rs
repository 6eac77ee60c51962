//! Packets over a socket, with or without TLS: read without a copy, waited for in slices that hear the signal to stop.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio_util::sync::CancellationToken;

use crate::mysql::wire::error::WireError;

mod parts;

pub(crate) use parts::Rest;

/// How often a waiting read looks at the signal to stop.
const SLICE: Duration = Duration::from_secs(1);

/// A payload of this size says that another packet continues it.
const CONTINUED: usize = 0xFF_FFFF;

/// The largest `max_allowed_packet` that a server takes: one row or one statement.
const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// What a connection holds of bytes read ahead: a few thousand rows at each system call.
const BUFFER_BYTES: usize = 256 * 1024;

/// A stream that brought so much at once needs no time to come together: a socket holds little, and the server would wait for us.
/// A server that is behind writes so much at once.
const GATHERED_BYTES: usize = 16 * 1024;

/// Buffers that a large row has grown past this are given back.
const BUFFER_BYTES_KEPT: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(crate) fn slice_waits(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => {
                socket.set_read_timeout(Some(SLICE))?;
                socket.set_write_timeout(Some(SLICE))
            }
            Self::Unix(socket) => {
                socket.set_read_timeout(Some(SLICE))?;
                socket.set_write_timeout(Some(SLICE))
            }
        }
    }
}

impl Socket {
    fn set_nonblocking(&self, is_so: bool) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nonblocking(is_so),
            Self::Unix(socket) => socket.set_nonblocking(is_so),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Unix(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
enum Channel {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
    /// Only while one of the others becomes the other.
    None,
}

impl Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
            Self::None => Ok(0),
        }
    }

    /// Reads what is there and has room, and waits for nothing. An end or an error is told by the next read.
    fn read_ready(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.set_nonblocking(true)?;
        let mut count = 0;
        // TLS hands out a record at a time.
        while let Ok(more @ 1..) = self.read(&mut buffer[count..]) {
            count += more;
        }
        self.set_nonblocking(false)?;
        Ok(count)
    }

    fn set_nonblocking(&self, is_so: bool) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.set_nonblocking(is_so),
            Self::Tls(stream) => stream.sock.set_nonblocking(is_so),
            Self::None => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::None => Ok(0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.flush(),
            Self::Plain(_) | Self::None => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct PacketStream {
    channel: Channel,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// What came together when the stream was last left time for that.
    gathered: usize,
    /// A payload of several packets.
    joined: Vec<u8>,
    sequence: u8,
    pub(crate) cancel: CancellationToken,
    pub(crate) silence_max: Duration,
}

impl PacketStream {
    pub(crate) fn new(socket: Socket, cancel: CancellationToken, silence_max: Duration) -> Self {
        Self {
            channel: Channel::Plain(socket),
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            gathered: 0,
            joined: Vec::new(),
            sequence: 0,
            cancel,
            silence_max,
        }
    }

    /// Goes on under TLS. The handshake runs with the next bytes written.
    ///
    /// What has come before it in the clear and was not asked for is nobody's word: left in the buffer, it would be taken for the
    /// server's under TLS.
    pub(crate) fn secure(&mut self, config: Arc<ClientConfig>, host: &str) -> Result<(), WireError> {
        if self.start != self.end {
            return Err(WireError::Protocol { what: "bytes in the clear came where TLS should begin" });
        }
        let name = rustls::pki_types::ServerName::try_from(host.to_owned())
            .map_err(|_| WireError::TlsName { host: host.to_owned() })?;
        let client = ClientConnection::new(config, name).map_err(crate::mysql::tls::TlsError::from)?;
        if let Channel::Plain(socket) = std::mem::replace(&mut self.channel, Channel::None) {
            self.channel = Channel::Tls(Box::new(StreamOwned::new(client, socket)));
        }
        Ok(())
    }

    /// Sends the first packet of a command.
    pub(crate) fn send_command(&mut self, payload: &[u8]) -> Result<(), WireError> {
        self.sequence = 0;
        self.send(payload)
    }

    /// Sends the next payload of an exchange, in as many packets as it takes.
    pub(crate) fn send(&mut self, payload: &[u8]) -> Result<(), WireError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(WireError::TooLarge);
        }
        let mut rest = payload;
        loop {
            let (part, after) = rest.split_at(rest.len().min(CONTINUED));
            self.send_packet(part)?;
            if part.len() < CONTINUED {
                return Ok(());
            }
            rest = after;
        }
    }

    fn send_packet(&mut self, part: &[u8]) -> Result<(), WireError> {
        let length = u32::try_from(part.len()).map_err(|_| WireError::TooLarge)?;
        let mut packet = Vec::with_capacity(part.len() + 4);
        packet.extend_from_slice(&length.to_le_bytes()[..3]);
        packet.push(self.sequence);
        packet.extend_from_slice(part);
        self.sequence = self.sequence.wrapping_add(1);
        self.write_all(&packet)
    }

    /// Sends a packet that is no part of the exchange at hand, whose numbers go on as they were.
    pub(crate) fn send_apart(&mut self, payload: &[u8]) -> Result<(), WireError> {
        let sequence = std::mem::take(&mut self.sequence);
        let sent = self.send(payload);
        self.sequence = sequence;
        sent
    }

    /// Reads on with packets of another number.
    pub(crate) fn number_from(&mut self, sequence: u8) {
        self.sequence = sequence;
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), WireError> {
        let start = Instant::now();
        while !bytes.is_empty() {
            match self.channel.write(bytes) {
                Ok(0) => return Err(WireError::Closed),
                Ok(count) => bytes = &bytes[count..],
                Err(error) => self.wait_on(error, start)?,
            }
        }
        while let Err(error) = self.channel.flush() {
            self.wait_on(error, start)?;
        }
        Ok(())
    }

    /// Returns the payload of the next packet, however many packets it came in.
    pub(crate) fn packet(&mut self) -> Result<&[u8], WireError> {
        let length = self.header()?;
        if length < CONTINUED {
            self.fill(length)?;
            self.start += length;
            return Ok(&self.buffer[self.start - length..self.start]);
        }
        self.join(length)?;
        Ok(&self.joined)
    }

    /// Returns the first byte of the next packet's payload without taking it. The packet must have one.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<u8, WireError> {
        self.fill(5)?;
        Ok(self.buffer[self.start + 4])
    }

    fn join(&mut self, mut length: usize) -> Result<(), WireError> {
        self.joined.clear();
        self.joined.shrink_to(BUFFER_BYTES_KEPT);
        loop {
            if self.joined.len() + length > PAYLOAD_BYTES_MAX {
                return Err(WireError::Protocol { what: "a packet is larger than the protocol's largest" });
            }
            self.fill(length)?;
            self.joined.extend_from_slice(&self.buffer[self.start..self.start + length]);
            self.start += length;
            if length < CONTINUED {
                return Ok(());
            }
            length = self.header()?;
        }
    }

    #[inline]
    fn header(&mut self) -> Result<usize, WireError> {
        self.fill(4)?;
        let header = &self.buffer[self.start..self.start + 4];
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
        if header[3] != self.sequence {
            return Err(WireError::Protocol { what: "a packet is out of order" });
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.start += 4;
        Ok(length)
    }

    /// Reads until so many unread bytes stand in the buffer.
    #[inline]
    fn fill(&mut self, need: usize) -> Result<(), WireError> {
        if self.end - self.start >= need {
            return Ok(());
        }
        self.make_room(need);
        self.read_until(need)
    }

    fn make_room(&mut self, need: usize) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if need <= BUFFER_BYTES && self.buffer.len() > BUFFER_BYTES_KEPT && self.end <= BUFFER_BYTES {
            self.buffer.truncate(BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
        if need > self.buffer.len() {
            self.buffer.resize(need + 4, 0);
        }
    }

    fn read_until(&mut self, need: usize) -> Result<(), WireError> {
        let mut since = Instant::now();
        while self.end < need {
            match self.channel.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(WireError::Closed),
                // A server that never pauses would otherwise never let us hear it.
                Ok(_) if self.cancel.is_cancelled() => return Err(WireError::Stopped),
                Ok(count) => {
                    self.end += count;
                    since = Instant::now();
                }
                Err(error) => self.wait_on(error, since)?,
            }
        }
        Ok(())
    }

    /// Decides whether a read or write that did nothing is tried again.
    fn wait_on(&self, error: io::Error, since: Instant) -> Result<(), WireError> {
        use io::ErrorKind::{ConnectionReset, Interrupted, TimedOut, UnexpectedEof, WouldBlock};
        if self.cancel.is_cancelled() {
            return Err(WireError::Stopped);
        }
        match error.kind() {
            WouldBlock | TimedOut if since.elapsed() >= self.silence_max => {
                Err(WireError::Silent { seconds: self.silence_max.as_secs() })
            }
            WouldBlock | TimedOut | Interrupted => Ok(()),
            ConnectionReset | UnexpectedEof => Err(WireError::Closed),
            _ => Err(WireError::Lost { error }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::policy::{Tls, TlsMode};

    fn pair() -> (UnixStream, PacketStream) {
        let (theirs, ours) = UnixStream::pair().expect("a pair of sockets");
        let socket = Socket::Unix(ours);
        socket.slice_waits().expect("time-outs");
        let stream = PacketStream::new(socket, CancellationToken::new(), Duration::from_secs(2));
        (theirs, stream)
    }

    fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a length");
        let mut packet = length.to_le_bytes()[..3].to_vec();
        packet.push(sequence);
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn a_payload_of_several_packets_comes_in_one_piece() {
        let (mut theirs, mut stream) = pair();
        let large: Vec<u8> = (0..CONTINUED * 2 + 7).map(|n| n.to_le_bytes()[0]).collect();
        let sent = large.clone();
        let writer = std::thread::spawn(move || {
            for (sequence, part) in sent.chunks(CONTINUED).enumerate() {
                theirs.write_all(&packet(sequence.to_le_bytes()[0], part)).expect("written");
            }
            theirs.write_all(&packet(3, b"after")).expect("written");
        });
        assert!(stream.packet().expect("a packet") == large);
        assert_eq!(stream.packet().expect("a packet"), b"after");
        writer.join().expect("the writer ends");
        stream.make_room(4);
        assert!(stream.buffer.len() <= BUFFER_BYTES_KEPT, "a large row's buffer is given back");
    }

    #[test]
    fn a_large_payload_is_sent_in_several_packets() {
        let (theirs, mut stream) = pair();
        let socket = Socket::Unix(theirs);
        socket.slice_waits().expect("time-outs");
        let mut server = PacketStream::new(socket, CancellationToken::new(), Duration::from_secs(2));
        let reader = std::thread::spawn(move || {
            [CONTINUED * 2 + 7, CONTINUED, 5].map(|length| server.packet().expect("a packet") == vec![7; length])
        });
        for length in [CONTINUED * 2 + 7, CONTINUED, 5] {
            stream.send(&vec![7; length]).expect("sent");
        }
        assert_eq!(reader.join().expect("the reader ends"), [true; 3]);
    }

    #[test]
    fn a_full_first_packet_is_followed_by_an_empty_one() {
        let (mut theirs, mut stream) = pair();
        let writer = std::thread::spawn(move || {
            theirs.write_all(&packet(0, &vec![7; CONTINUED])).expect("written");
            theirs.write_all(&packet(1, b"")).expect("written");
        });
        assert_eq!(stream.packet().expect("a packet").len(), CONTINUED);
        writer.join().expect("the writer ends");
    }

    #[test]
    fn a_closed_connection_is_an_error_in_mid_packet() {
        let (mut theirs, mut stream) = pair();
        theirs.write_all(&packet(0, b"whole")[..6]).expect("written");
        drop(theirs);
        assert!(matches!(stream.packet(), Err(WireError::Closed)));
    }

    #[test]
    fn a_packet_out_of_order_is_refused() {
        let (mut theirs, mut stream) = pair();
        theirs.write_all(&packet(1, b"x")).expect("written");
        assert!(matches!(stream.packet(), Err(WireError::Protocol { .. })));
    }

    #[test]
    fn what_came_in_the_clear_is_not_taken_for_the_server_s_under_tls() {
        let tls = Tls { mode: TlsMode::Verify, ca_file: None };
        let config = crate::mysql::tls::client_config(&tls).expect("the system's authorities");
        let (mut theirs, mut stream) = pair();
        theirs.write_all(&packet(0, b"greeting")).expect("written");
        assert_eq!(stream.packet().expect("a packet"), b"greeting");
        stream.secure(config.clone(), "db").expect("nothing stands before TLS");

        let (mut theirs, mut stream) = pair();
        theirs.write_all(&[packet(0, b"greeting"), packet(2, b"OK")].concat()).expect("written");
        assert_eq!(stream.packet().expect("a packet"), b"greeting");
        assert!(matches!(stream.secure(config, "db"), Err(WireError::Protocol { .. })));
    }

    #[test]
    fn a_payload_has_an_end() {
        let (mut theirs, mut stream) = pair();
        let writer = std::thread::spawn(move || {
            let full = vec![7; CONTINUED];
            (0..=u8::MAX).try_for_each(|sequence| theirs.write_all(&packet(sequence, &full)))
        });
        let refused = stream.packet().map(<[u8]>::len);
        assert!(matches!(refused, Err(WireError::Protocol { .. })), "{refused:?}");
        drop(stream);
        assert!(writer.join().expect("the writer ends").is_err(), "nobody reads on");
    }

    #[test]
    fn a_silent_server_is_waited_for_only_so_long() {
        let (_theirs, mut stream) = pair();
        stream.silence_max = Duration::ZERO;
        assert!(matches!(stream.packet(), Err(WireError::Silent { .. })));
    }

    #[test]
    fn a_waiting_read_hears_the_signal() {
        let (_theirs, mut stream) = pair();
        stream.cancel.cancel();
        assert!(matches!(stream.packet(), Err(WireError::Stopped)));
    }
}
