//! A small client of our own for the rows of a dump.
//!
//! It is blocking, on a thread for each connection: reading and encoding rows is work, not waiting, and there are few
//! connections (four, eight), so that threads cost nothing and the bytes go from the socket's buffer into the encoder without a
//! queue or a task between. It is not `mysql_async`, whose decoding into values takes two to ten times the processor time of
//! handing the packet's bytes over. It never reconnects: a connection carries a read view, and a new one would see another moment.
//!
//! It speaks what a dump needs: `COM_QUERY` for small results, prepared statements without parameters for rows (the binary
//! protocol has exact numbers and costs the server half), TLS, and the plugins `caching_sha2_password`, `mysql_native_password`,
//! `ed25519` and socket authentication.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use crate::mysql::wire::auth::{Login, Privacy, first_plugin, proof, server_error};
use crate::mysql::wire::handshake::{Greeting, capability, response, tls_request};
use crate::mysql::wire::stream::PacketStream;

mod auth;
pub mod binlog;
mod column;
pub mod cursor;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handshake;
mod key;
mod stream;

pub use column::ColumnDefinition;
pub use error::WireError;
pub(crate) use stream::Socket;

/// A server may search long before its first row; past this, the connection is taken for dead.
const SILENCE_MAX: Duration = Duration::from_mins(10);

/// A server answers the login at once, or has no thread left for us.
const LOGIN_SILENCE_MAX: Duration = Duration::from_secs(15);

const COM_QUIT: u8 = 0x01;
const COM_QUERY: u8 = 0x03;
const COM_STMT_PREPARE: u8 = 0x16;
const COM_STMT_EXECUTE: u8 = 0x17;
const COM_STMT_CLOSE: u8 = 0x19;

/// A small result: rows of columns, each a text's bytes or NULL.
pub type TextRows = Vec<TextRow>;

/// The columns of a row.
pub type TextRow = Vec<Option<Vec<u8>>>;

/// Who logs in, and how privately.
pub(crate) struct Credentials<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    /// TLS's configuration and the name to verify.
    pub(crate) tls: Option<(Arc<ClientConfig>, &'a str)>,
    pub(crate) is_socket: bool,
    pub(crate) is_loopback: bool,
}

/// One connection.
pub struct Wire {
    stream: PacketStream,
    version: String,
    connection: u32,
    has_eof: bool,
    /// Rows are still to be read: no other statement may be sent.
    is_busy: bool,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({})", self.connection)
    }
}

impl Wire {
    pub(crate) fn login(
        socket: Socket,
        credentials: &Credentials<'_>,
        cancel: CancellationToken,
    ) -> Result<Self, WireError> {
        socket.slice_waits().map_err(|error| WireError::Lost { error })?;
        let mut stream = PacketStream::new(socket, cancel, LOGIN_SILENCE_MAX);
        let greeting = greet(&mut stream)?;
        let capabilities = agree(&mut stream, &greeting, credentials)?;
        let plugin = first_plugin(&greeting.plugin);
        let first = proof(plugin, &greeting.nonce, credentials.password)?;
        stream.send(&response(capabilities, credentials.user, plugin, &first)?)?;
        let mut login = Login {
            privacy: credentials.privacy(),
            password: credentials.password,
            plugin: plugin.to_owned(),
            nonce: greeting.nonce.clone(),
            stream: &mut stream,
        };
        login.finish()?;
        stream.silence_max = SILENCE_MAX;
        Ok(Self {
            stream,
            version: greeting.version,
            connection: greeting.connection,
            has_eof: capabilities & capability::DEPRECATE_EOF == 0,
            is_busy: false,
        })
    }

    /// Returns the server's name of this connection, for KILL.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.connection
    }

    /// Returns the server's version as its greeting says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Tells whether rows of a statement are still to be read.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Waits no longer than this for the server's next byte.
    pub fn set_silence_max(&mut self, silence_max: Duration) {
        self.stream.silence_max = silence_max;
    }

    /// Listens to another signal to stop from now on.
    pub fn set_cancel(&mut self, cancel: CancellationToken) {
        self.stream.cancel = cancel;
    }

    /// Runs a statement that returns no rows (rows are read and dropped).
    pub fn run(&mut self, sql: &str) -> Result<(), WireError> {
        self.send(sql)?;
        self.finish()
    }

    /// Runs a statement that returns no rows, and tells how many rows it changed.
    pub fn change(&mut self, sql: &str) -> Result<u64, WireError> {
        self.send(sql)?;
        match self.stream.packet()? {
            [0x00, rest @ ..] => rows_changed(rest),
            [0xFF, rest @ ..] => Err(server_error(rest)),
            _ => Err(WireError::Protocol { what: "a statement that changes rows returned some" }),
        }
    }

    /// Sends a statement without waiting, so that several connections run theirs at one moment. [`Wire::finish`] reads the answer.
    pub fn send(&mut self, sql: &str) -> Result<(), WireError> {
        self.command(COM_QUERY, sql.as_bytes())
    }

    /// Reads the answer to [`Wire::send`] and drops its rows.
    pub fn finish(&mut self) -> Result<(), WireError> {
        self.rows().map(drop)
    }

    /// Runs a statement and returns its rows, which must be few.
    pub fn query(&mut self, sql: &str) -> Result<TextRows, WireError> {
        self.send(sql)?;
        self.rows()
    }

    /// Starts to read the rows of a statement in the binary protocol.
    pub fn read(&mut self, sql: &str) -> Result<BinaryRows<'_>, WireError> {
        let statement = self.prepare(sql)?;
        let mut execute = statement.to_le_bytes().to_vec();
        execute.extend_from_slice(&[0, 1, 0, 0, 0]);
        self.command(COM_STMT_EXECUTE, &execute)?;
        let count =
            self.column_count()?.ok_or(WireError::Protocol { what: "a statement that returns no rows was read" })?;
        let columns = self.definitions(count)?;
        self.is_busy = true;
        Ok(BinaryRows { wire: self, statement, columns, is_done: false, warnings: 0 })
    }

    fn command(&mut self, command: u8, rest: &[u8]) -> Result<(), WireError> {
        if self.is_busy {
            return Err(WireError::Busy);
        }
        let mut payload = Vec::with_capacity(rest.len() + 1);
        payload.push(command);
        payload.extend_from_slice(rest);
        self.stream.send_command(&payload)
    }

    fn prepare(&mut self, sql: &str) -> Result<u32, WireError> {
        self.command(COM_STMT_PREPARE, sql.as_bytes())?;
        let (statement, columns) = match self.stream.packet()? {
            [0xFF, rest @ ..] => return Err(server_error(rest)),
            [0x00, a, b, c, d, low, high, ..] => {
                (u32::from_le_bytes([*a, *b, *c, *d]), u16::from_le_bytes([*low, *high]))
            }
            _ => {
                return Err(WireError::Protocol { what: "the answer to PREPARE is unknown" });
            }
        };
        if columns > 0 {
            self.definitions(usize::from(columns))?;
        }
        Ok(statement)
    }

    /// Reads the head of a result: the number of columns, or `None` where the statement returned none.
    fn column_count(&mut self) -> Result<Option<usize>, WireError> {
        match self.stream.packet()? {
            [0x00, ..] => Ok(None),
            [0xFF, rest @ ..] => Err(server_error(rest)),
            [0xFB, ..] => Err(WireError::Protocol { what: "the server asks for a file of ours" }),
            packet => cursor::Cursor::new(packet).length().map(Some),
        }
    }

    fn definitions(&mut self, count: usize) -> Result<Vec<ColumnDefinition>, WireError> {
        let mut columns = Vec::with_capacity(count.min(4096));
        for _ in 0..count {
            columns.push(ColumnDefinition::parse(self.stream.packet()?)?);
        }
        if self.has_eof {
            self.stream.packet()?;
        }
        Ok(columns)
    }

    /// Runs a statement and hands on its rows one by one, which may be many.
    pub fn query_each(&mut self, sql: &str, row: impl FnMut(TextRow)) -> Result<(), WireError> {
        self.send(sql)?;
        self.each(row)
    }

    /// Reads the answer to [`Wire::send`].
    pub fn rows(&mut self) -> Result<TextRows, WireError> {
        let mut rows = Vec::new();
        self.each(|row| rows.push(row))?;
        Ok(rows)
    }

    fn each(&mut self, mut row: impl FnMut(TextRow)) -> Result<(), WireError> {
        let Some(count) = self.column_count()? else {
            return Ok(());
        };
        self.definitions(count)?;
        loop {
            let packet = self.stream.packet()?;
            match packet {
                [0xFF, rest @ ..] => return Err(server_error(rest)),
                [0xFE, ..] if packet.len() < 0xFF_FFFF => return Ok(()),
                _ => row(text_row(packet, count)?),
            }
        }
    }
}

impl Drop for Wire {
    /// Takes leave, so that the server does not count the connection as aborted.
    fn drop(&mut self) {
        if !self.is_busy {
            let _gone_already = self.stream.send_command(&[COM_QUIT]);
        }
    }
}

fn greet(stream: &mut PacketStream) -> Result<Greeting, WireError> {
    match stream.packet()? {
        [0xFF, rest @ ..] => Err(server_error(rest)),
        packet => Greeting::parse(packet),
    }
}

/// Agrees on what both can do, and goes on under TLS where it is wanted.
fn agree(stream: &mut PacketStream, greeting: &Greeting, credentials: &Credentials<'_>) -> Result<u32, WireError> {
    let Some((config, host)) = &credentials.tls else {
        return Ok(greeting.agreed());
    };
    if greeting.capabilities & capability::SSL == 0 {
        return Err(WireError::NoTls);
    }
    let capabilities = greeting.agreed() | capability::SSL;
    stream.send(&tls_request(capabilities))?;
    stream.secure(config.clone(), host)?;
    Ok(capabilities)
}

impl Credentials<'_> {
    fn privacy(&self) -> Privacy {
        if self.is_socket || self.tls.is_some() {
            Privacy::Private
        } else if self.is_loopback {
            Privacy::Loopback
        } else {
            Privacy::Open
        }
    }
}

fn text_row(packet: &[u8], count: usize) -> Result<TextRow, WireError> {
    let mut cursor = cursor::Cursor::new(packet);
    let mut row = Vec::with_capacity(count.min(4096));
    for _ in 0..count {
        if cursor.rest().first() == Some(&0xFB) {
            cursor.u8()?;
            row.push(None);
        } else {
            row.push(Some(cursor.bytes()?.to_vec()));
        }
    }
    Ok(row)
}

/// Reads what of an OK packet counts rows.
fn rows_changed(rest: &[u8]) -> Result<u64, WireError> {
    cursor::Cursor::new(rest).length().map(|rows| rows as u64)
}

/// Reads the count of warnings in what ends a result: an EOF packet, or an OK packet in its place.
fn warnings_at_end(rest: &[u8], has_eof: bool) -> Result<u16, WireError> {
    let mut cursor = cursor::Cursor::new(rest);
    if !has_eof {
        let _rows_changed = cursor.length()?;
        let _inserted = cursor.length()?;
        let _status = cursor.u16()?;
    }
    cursor.u16()
}

/// The rows of a statement, read one after the other. Dropped before the end, they make the connection useless.
#[derive(Debug)]
pub struct BinaryRows<'a> {
    wire: &'a mut Wire,
    statement: u32,
    columns: Vec<ColumnDefinition>,
    is_done: bool,
    warnings: u16,
}

impl BinaryRows<'_> {
    #[must_use]
    pub fn columns(&self) -> &[ColumnDefinition] {
        &self.columns
    }

    /// Returns how many warnings the server gave, once the last row has been read. `SHOW WARNINGS` then has their words.
    #[must_use]
    pub fn warnings(&self) -> u16 {
        self.warnings
    }

    /// Returns the packet of the next row, or `None` after the last.
    ///
    /// # Errors
    /// Those of the connection, and of a server that stops in the middle.
    #[expect(clippy::should_implement_trait, reason = "a row lends the connection's buffer")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, WireError> {
        if self.is_done {
            return Ok(None);
        }
        // Looked at first by itself: the borrow checker would hold a returned packet over the other arms.
        if self.wire.stream.peek()? == 0 {
            return self.wire.stream.packet().map(Some);
        }
        let has_eof = self.wire.has_eof;
        match self.wire.stream.packet()? {
            [0xFE, rest @ ..] => {
                self.warnings = warnings_at_end(rest, has_eof)?;
                self.close()?;
                Ok(None)
            }
            [0xFF, rest @ ..] => Err(server_error(rest)),
            _ => Err(WireError::Protocol { what: "a row is no row" }),
        }
    }

    fn close(&mut self) -> Result<(), WireError> {
        self.is_done = true;
        self.wire.is_busy = false;
        let statement = self.statement.to_le_bytes();
        self.wire.command(COM_STMT_CLOSE, &statement)
    }
}
