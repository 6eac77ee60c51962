//! The line to a replica: what is written is gathered, and sent before anything is read; under TLS once that has begun.

use std::io::{self, BufWriter, Read, Write};

use rustls::{ServerConnection, StreamOwned};

use crate::replay::wire::Patient;

/// Bytes that are gathered before they are sent.
const BUFFER_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Line<'a> {
    socket: &'a Patient,
    channel: BufWriter<Channel<'a>>,
}

#[derive(Debug)]
enum Channel<'a> {
    Plain(&'a Patient),
    Tls(Box<StreamOwned<ServerConnection, &'a Patient>>),
}

impl<'a> Line<'a> {
    pub(super) fn new(socket: &'a Patient) -> Self {
        Self { socket, channel: BufWriter::with_capacity(BUFFER_BYTES, Channel::Plain(socket)) }
    }

    /// Goes on under TLS, and returns once the other side has shown who it is. What it sends in the clear after its request is
    /// taken for a part of the handshake, and fails it.
    pub(super) fn secure(&mut self, mut tls: ServerConnection) -> io::Result<()> {
        self.flush()?;
        let mut socket = self.socket;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        let channel = Channel::Tls(Box::new(StreamOwned::new(tls, socket)));
        self.channel = BufWriter::with_capacity(BUFFER_BYTES, channel);
        Ok(())
    }

    /// Names the protocol and cipher, where there is one.
    pub(super) fn cipher(&self) -> Option<String> {
        let Channel::Tls(stream) = self.channel.get_ref() else { return None };
        let (version, suite) = (stream.conn.protocol_version()?, stream.conn.negotiated_cipher_suite()?);
        Some(format!("{version:?}, {:?}", suite.suite()))
    }
}

impl Read for Line<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.channel.flush()?;
        self.channel.get_mut().read(buffer)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.channel.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.channel.flush()
    }
}

impl Read for Channel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Channel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
