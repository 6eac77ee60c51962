//! The source's side of the protocol: a patient socket, packets out and in, small results.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How often a wait looks at the signal to stop.
const SLICE: Duration = Duration::from_millis(200);

/// A replica logs in at once; who does not is none.
const LOGIN_MAX: Duration = Duration::from_secs(10);

/// A payload of this size says that another packet continues it.
const CONTINUED: usize = 0xFF_FFFF;

/// A replica's commands are short: the longest carries a set of GTIDs.
const COMMAND_BYTES_MAX: usize = 16 << 20;

/// `utf8mb4_general_ci`, which both products know.
pub(super) const UTF8MB4: u8 = 45;

pub(super) const AUTOCOMMIT: u16 = 2;

const VAR_STRING: u8 = 0xFD;

/// A socket whose waits hear the signal to stop: then every read and write fails.
#[derive(Debug)]
pub(super) struct Patient {
    socket: TcpStream,
    cancel: CancellationToken,
    /// Until when a stranger may take to log in.
    deadline: Cell<Option<Instant>>,
}

impl Patient {
    pub(super) fn new(socket: TcpStream, cancel: CancellationToken) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SLICE))?;
        socket.set_write_timeout(Some(SLICE))?;
        Ok(Self { socket, cancel, deadline: Cell::new(Some(Instant::now() + LOGIN_MAX)) })
    }

    /// Gives a client that has logged in all the time it wants.
    pub(super) fn trust(&self) {
        self.deadline.set(None);
    }

    fn retry<T>(&self, mut act: impl FnMut(&TcpStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(io::Error::other("the replay has ended"));
            }
            if self.deadline.get().is_some_and(|deadline| Instant::now() > deadline) {
                return Err(ErrorKind::TimedOut.into());
            }
            match act(&self.socket) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                done => return done,
            }
        }
    }

    /// Waits for the other side's next byte, or its farewell, at most so long. Tells whether there is something to read.
    pub(super) fn wait(&self, longest: Duration) -> io::Result<bool> {
        let end = Instant::now() + longest;
        while Instant::now() < end && !self.cancel.is_cancelled() {
            match self.socket.peek(&mut [0]) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                peeked => return peeked.map(|_| true),
            }
        }
        Ok(self.cancel.is_cancelled())
    }
}

impl Read for &Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(|mut socket| socket.read(buffer))
    }
}

impl Write for &Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(|mut socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes and reads packets; their numbers begin anew with each command.
#[derive(Debug)]
pub(super) struct Packets<S> {
    pub(super) stream: S,
    sequence: u8,
}

impl<S: Read + Write> Packets<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, sequence: 0 }
    }

    pub(super) fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut packet = self.payload(payload.len())?;
        packet.write_all(payload)?;
        packet.end()
    }

    /// Begins a payload of a known length, which is then written piece by piece: an event of a gigabyte is never held.
    pub(super) fn payload(&mut self, length: usize) -> io::Result<Payload<'_, S>> {
        let mut payload = Payload { packets: self, rest: length, lacking: 0, is_continued: false, is_broken: false };
        payload.begin_packet()?;
        Ok(payload)
    }

    /// Reads the first packet of a command; `None` where the client has hung up.
    pub(super) fn command(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.sequence = 0;
        match self.packet() {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            read => read.map(Some),
        }
    }

    /// Reads the next packet of an exchange.
    pub(super) fn packet(&mut self) -> io::Result<Vec<u8>> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header)?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
        if length > COMMAND_BYTES_MAX || length == CONTINUED || header[3] != self.sequence {
            return Err(io::Error::new(ErrorKind::InvalidData, "a packet is out of order or too large"));
        }
        self.sequence = self.sequence.wrapping_add(1);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        Ok(payload)
    }

    pub(super) fn ok(&mut self) -> io::Result<()> {
        self.ok_saying(&[])
    }

    /// Says yes, and something beside it.
    pub(super) fn ok_saying(&mut self, info: &[u8]) -> io::Result<()> {
        let [low, high] = AUTOCOMMIT.to_le_bytes();
        let mut packet = vec![0, 0, 0, low, high, 0, 0];
        if !info.is_empty() {
            push_bytes(&mut packet, info);
        }
        self.send(&packet)
    }

    pub(super) fn eof(&mut self) -> io::Result<()> {
        let [low, high] = AUTOCOMMIT.to_le_bytes();
        self.send(&[0xFE, 0, 0, low, high])
    }

    pub(super) fn error(&mut self, code: u16, message: &str) -> io::Result<()> {
        let mut packet = vec![0xFF];
        packet.extend_from_slice(&code.to_le_bytes());
        packet.extend_from_slice(b"#HY000");
        packet.extend_from_slice(message.as_bytes());
        self.send(&packet)
    }

    /// Sends a result of texts.
    pub(super) fn rows(&mut self, columns: &[String], rows: &[Vec<Option<String>>]) -> io::Result<()> {
        self.send(&u8::try_from(columns.len()).unwrap_or(u8::MAX).to_le_bytes())?;
        for name in columns {
            self.send(&column(name))?;
        }
        self.eof()?;
        for row in rows {
            let mut packet = Vec::new();
            for value in row {
                match value {
                    Some(text) => push_bytes(&mut packet, text.as_bytes()),
                    None => packet.push(0xFB),
                }
            }
            self.send(&packet)?;
        }
        self.eof()
    }
}

/// A payload on its way out, cut into packets.
#[derive(Debug)]
pub(super) struct Payload<'a, S> {
    packets: &'a mut Packets<S>,
    /// Bytes that stand in no packet begun so far.
    rest: usize,
    /// Bytes that the packet at hand still lacks.
    lacking: usize,
    /// The packet at hand is full, so that another continues it, an empty one if need be.
    is_continued: bool,
    /// The client has gone.
    is_broken: bool,
}

impl<S: Write> Payload<'_, S> {
    fn begin_packet(&mut self) -> io::Result<()> {
        self.lacking = self.rest.min(CONTINUED);
        self.rest -= self.lacking;
        self.is_continued = self.lacking == CONTINUED;
        let [a, b, c, ..] = self.lacking.to_le_bytes();
        self.packets.stream.write_all(&[a, b, c, self.packets.sequence])?;
        self.packets.sequence = self.packets.sequence.wrapping_add(1);
        Ok(())
    }

    /// Ends the payload.
    ///
    /// # Errors
    /// Fewer bytes were written than announced: the client must not take them for the whole.
    pub(super) fn end(mut self) -> io::Result<()> {
        if self.lacking > 0 || self.rest > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if self.is_continued { self.begin_packet() } else { Ok(()) }
    }
}

impl<S: Write> Payload<'_, S> {
    /// Tells whether it was the client that could not be written to.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn write_part(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lacking == 0 && self.is_continued {
            self.begin_packet()?;
        }
        let count = bytes.len().min(self.lacking);
        self.packets.stream.write_all(&bytes[..count])?;
        self.lacking -= count;
        Ok(count)
    }
}

impl<S: Write> Write for Payload<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_part(bytes);
        self.is_broken |= written.is_err();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.packets.stream.flush()
    }
}

fn column(name: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    for text in ["def", "", "", "", name, ""] {
        push_bytes(&mut packet, text.as_bytes());
    }
    packet.extend_from_slice(&[0x0C, UTF8MB4, 0]);
    packet.extend_from_slice(&u32::from(u16::MAX).to_le_bytes());
    packet.extend_from_slice(&[VAR_STRING, 0, 0, 0, 0, 0]);
    packet
}

/// Writes bytes after their length; ours are short.
fn push_bytes(packet: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    match u8::try_from(length) {
        Ok(short) if short <= 250 => packet.push(short),
        _ => {
            packet.push(0xFC);
            packet.extend_from_slice(&length.to_le_bytes());
        }
    }
    packet.extend_from_slice(&bytes[..usize::from(length)]);
}
