//! A server's binlog as it sends it to a replica: the bytes of each event, as they stand in its file.
//!
//! What comes beside the file's own events (which file comes next, heartbeats, a format event made up for a start in mid-file) is
//! told apart, so that what is left can be written down byte for byte. Events are handed over in parts: one may be 1 GiB.
//!
//! A server with semi-synchronous replication puts two bytes before each event for a replica that acknowledges: a mark, and whether
//! commits wait for its word.

use std::time::Duration;

use crate::mysql::binlog::{Header, Kind, MAGIC};
use crate::mysql::manifest::Product;
use crate::mysql::wire::auth::server_error;
use crate::mysql::wire::cursor::Cursor;
use crate::mysql::wire::stream::Rest;
use crate::mysql::wire::{Wire, WireError};

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_REPLICA: u8 = 0x15;

/// `BINLOG_DUMP_NON_BLOCK`: the server ends the stream where its binlog ends, instead of waiting for more.
const END_AT_END: u16 = 0x01;

/// MariaDB's `BINLOG_SEND_ANNOTATE_ROWS_EVENT`; it leaves those events out otherwise.
const WITH_ANNOTATIONS: u16 = 0x02;

/// The mark of semi-synchronous replication: before each event from the server, and first in each acknowledgement.
const SEMI_SYNC: u8 = 0xEF;

/// A server numbers its packets from here on after each event whose acknowledgement it wants: answers come when they come.
const NUMBER_AFTER_WANT: u8 = 1;

/// Where a file's first event stands, behind its magic number.
pub const FIRST_EVENT: u64 = MAGIC.len() as u64;

/// A rotate event, and the words of a refusal.
const SMALL_BYTES_MAX: usize = 8192;

/// A packet that begins like an end's and is longer is none.
const EOF_BYTES_MAX: usize = 8;

/// Who we are to the server: it ends a replica's stream when another of the same number or UUID comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub server_id: u32,
    pub uuid: String,
    /// How often an idle server says that it is there.
    pub heartbeat: Duration,
    /// Commits may wait until we say that we have them.
    pub acknowledges: bool,
}

/// A place in a server's binlog.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePosition {
    pub file: String,
    pub offset: u64,
}

/// Whether a stream goes on where the binlog ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// It waits for more.
    Wait,
    /// It ends.
    Stop,
}

/// What comes next in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The events that follow are of this file, from this offset on.
    File(FilePosition),
    /// An event of the file: its bytes are to be taken by [`BinlogStream::part`].
    Event(Header),
    /// The format event of a file that is read from its midst: made up from the first one, and in the file only there.
    Format(Header),
    /// Nothing new; the server is there.
    Heartbeat,
    /// The binlog's end, of a stream that stops there.
    End,
}

/// A connection that streams a binlog. It can do nothing else any more.
#[derive(Debug)]
pub struct BinlogStream {
    wire: Wire,
    /// Of the event that is being taken.
    rest: Option<Rest>,
    head: [u8; Header::BYTES],
    /// The header was read to know the event, and is its first part.
    is_head_due: bool,
    /// The file goes on from its midst: its next format event is one that is made up.
    is_in_midst: bool,
    semi_sync: SemiSync,
    /// The server waits for us to say that we have the event named last.
    wants_ack: bool,
}

/// Whether two bytes stand before each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SemiSync {
    Off,
    /// We asked for it; the server's first packet shows whether it can.
    Asked,
    On,
}

impl Wire {
    /// Makes the connection a stream of the binlog from a place on. The place must be an event's beginning.
    ///
    /// # Errors
    /// Where the server refuses; that a file is gone, it says with the first [`BinlogStream::next`].
    pub fn stream_binlog(
        mut self,
        product: Product,
        from: &FilePosition,
        replica: &Replica,
        at_end: AtEnd,
    ) -> Result<BinlogStream, WireError> {
        for statement in greetings(product, replica) {
            self.run(&statement)?;
        }
        self.command(COM_REGISTER_REPLICA, &registration(replica))?;
        self.finish()?;
        self.set_silence_max(replica.heartbeat * 3);
        self.command(COM_BINLOG_DUMP, &dump(product, from, replica, at_end)?)?;
        // From here on it answers nothing else, so that no leave is taken either.
        self.is_busy = true;
        Ok(BinlogStream::new(self, replica.acknowledges))
    }
}

/// Returns what a replica tells before it asks.
///
/// A replica that says it wants no checksums gets the file's events as they stand, with the checksums that they have: the server
/// takes them away from none, and only what it makes up comes without. That it acknowledges, a server without semi-synchronous
/// replication does not hear.
fn greetings(product: Product, replica: &Replica) -> Vec<String> {
    let heartbeat = replica.heartbeat.as_nanos();
    let uuid = &replica.uuid;
    let own = match product {
        Product::MySql => format!(
            "SET @master_binlog_checksum = 'NONE', @source_binlog_checksum = 'NONE', \
             @master_heartbeat_period = {heartbeat}, @source_heartbeat_period = {heartbeat}, \
             @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'"
        ),
        // 4: it knows GTIDs. To one that knows less, the server sends other events in their stead.
        Product::MariaDb => format!(
            "SET @mariadb_slave_capability = 4, @master_binlog_checksum = 'NONE', @master_heartbeat_period = {heartbeat}"
        ),
    };
    let acknowledges = "SET @rpl_semi_sync_slave = 1, @rpl_semi_sync_replica = 1".to_owned();
    [own].into_iter().chain(replica.acknowledges.then_some(acknowledges)).collect()
}

fn registration(replica: &Replica) -> Vec<u8> {
    let mut payload = replica.server_id.to_le_bytes().to_vec();
    // No host, no user, no password, no port, no rank, and no source that it replicates from.
    payload.extend_from_slice(&[0; 3 + 2 + 4 + 4]);
    payload
}

fn dump(product: Product, from: &FilePosition, replica: &Replica, at_end: AtEnd) -> Result<Vec<u8>, WireError> {
    let offset = u32::try_from(from.offset).map_err(|_| WireError::BeyondOffset { offset: from.offset })?;
    let annotations = if product == Product::MariaDb { WITH_ANNOTATIONS } else { 0 };
    let end = if at_end == AtEnd::Stop { END_AT_END } else { 0 };
    let mut payload = offset.to_le_bytes().to_vec();
    payload.extend_from_slice(&(annotations | end).to_le_bytes());
    payload.extend_from_slice(&replica.server_id.to_le_bytes());
    payload.extend_from_slice(from.file.as_bytes());
    Ok(payload)
}

impl BinlogStream {
    fn new(wire: Wire, acknowledges: bool) -> Self {
        Self {
            wire,
            rest: None,
            head: [0; Header::BYTES],
            is_head_due: false,
            is_in_midst: false,
            semi_sync: if acknowledges { SemiSync::Asked } else { SemiSync::Off },
            wants_ack: false,
        }
    }

    /// Streams from whoever is at the other end of a socket.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn over(socket: crate::mysql::wire::Socket) -> Self {
        let cancel = tokio_util::sync::CancellationToken::new();
        let stream = crate::mysql::wire::stream::PacketStream::new(socket, cancel, Duration::from_secs(9));
        let wire = Wire { stream, version: String::new(), connection: 0, has_eof: false, is_busy: true };
        Self::new(wire, true)
    }

    /// Waits for what comes next. Of an event before, what was not taken is passed over.
    ///
    /// # Errors
    /// Those of the connection; where the server ends the stream, its own (1236: it no longer has what is asked for).
    #[allow(
        clippy::should_implement_trait,
        reason = "what it returns borrows nothing, but its parts are taken from the stream"
    )]
    pub fn next(&mut self) -> Result<Next, WireError> {
        while self.part()?.is_some() {}
        let stream = &mut self.wire.stream;
        if std::mem::take(&mut self.wants_ack) {
            stream.number_from(NUMBER_AFTER_WANT);
        }
        let mut rest = stream.begin()?;
        match stream.head(&mut rest, 1)? {
            [0x00] => {}
            [0xFE] if rest.length() < EOF_BYTES_MAX => return Ok(Next::End),
            [0xFF] => return Err(self.refusal(rest)),
            _ => return Err(WireError::Protocol { what: "a packet of the binlog is none" }),
        }
        self.wants_ack = self.wants_ack_of(&mut rest)?;
        self.head.copy_from_slice(self.wire.stream.head(&mut rest, Header::BYTES)?);
        (self.rest, self.is_head_due) = (Some(rest), true);
        let header =
            Header::parse(&self.head).map_err(|_| WireError::Protocol { what: "an event's header is none" })?;
        self.tell(header)
    }

    /// Reads what stands before an event. A server's first one is made up and has no time, so that its first byte is not the mark.
    fn wants_ack_of(&mut self, rest: &mut Rest) -> Result<bool, WireError> {
        let stream = &mut self.wire.stream;
        if self.semi_sync == SemiSync::Asked {
            self.semi_sync = if stream.look(*rest)? == SEMI_SYNC { SemiSync::On } else { SemiSync::Off };
        }
        if self.semi_sync == SemiSync::Off {
            return Ok(false);
        }
        match stream.head(rest, 2)? {
            [SEMI_SYNC, wants] => Ok(wants & 1 == 1),
            _ => Err(WireError::Protocol { what: "an event of semi-synchronous replication has no mark" }),
        }
    }

    /// Tells whether the server waits for us to say that we have the event named last.
    #[must_use]
    pub fn wants_ack(&self) -> bool {
        self.wants_ack
    }

    /// Tells the server that we have all up to a place for good: commits up to there go on.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn acknowledge(&mut self, at: &FilePosition) -> Result<(), WireError> {
        let payload = [&[SEMI_SYNC][..], &at.offset.to_le_bytes(), at.file.as_bytes()].concat();
        self.wire.stream.send_apart(&payload)
    }

    fn refusal(&mut self, rest: Rest) -> WireError {
        self.rest = Some(rest);
        self.small().map_or_else(|error| error, |words| server_error(&words))
    }

    fn tell(&mut self, event: Header) -> Result<Next, WireError> {
        match event.kind {
            Kind::HEARTBEAT | Kind::HEARTBEAT_V2 => Ok(Next::Heartbeat),
            Kind::ROTATE if event.is_artificial() || event.end == 0 => {
                let position = self.rotate()?;
                self.is_in_midst = position.offset > FIRST_EVENT;
                Ok(Next::File(position))
            }
            Kind::FORMAT_DESCRIPTION if self.is_in_midst => {
                self.is_in_midst = false;
                Ok(Next::Format(event))
            }
            // Bytes that stand in no file must not come into one.
            _ if event.is_artificial() => Err(WireError::Protocol { what: "the server made an event up" }),
            _ => Ok(Next::Event(event)),
        }
    }

    /// Reads which file comes, of a rotate event that the server made up.
    fn rotate(&mut self) -> Result<FilePosition, WireError> {
        let event = self.small()?;
        let mut cursor = Cursor::new(event.get(Header::BYTES..without_checksum(&event)).unwrap_or_default());
        let offset = cursor.u64()?;
        let file = std::str::from_utf8(cursor.rest()).ok().filter(|name| is_file_name(name));
        let file = file.ok_or(WireError::Protocol { what: "a binlog's name is no name of a file" })?.to_owned();
        Ok(FilePosition { file, offset })
    }

    /// Takes all of something small.
    fn small(&mut self) -> Result<Vec<u8>, WireError> {
        let mut bytes = Vec::new();
        while let Some(part) = self.part()? {
            if bytes.len() + part.len() > SMALL_BYTES_MAX {
                return Err(WireError::Protocol { what: "a packet is larger than its kind can be" });
            }
            bytes.extend_from_slice(part);
        }
        Ok(bytes)
    }

    /// Takes the next bytes of the event that [`BinlogStream::next`] named, its header first; `None` after the last.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn part(&mut self) -> Result<Option<&[u8]>, WireError> {
        if std::mem::take(&mut self.is_head_due) {
            return Ok(Some(&self.head));
        }
        match &mut self.rest {
            Some(rest) => self.wire.stream.part(rest),
            None => Ok(None),
        }
    }

    /// Tells whether the server may wait for us to say that we have an event.
    #[must_use]
    pub fn is_semi_sync(&self) -> bool {
        self.semi_sync != SemiSync::Off
    }

    /// Gives small events a while to come together, where [`BinlogStream::is_drained`]. Returns whether some came; that the stream
    /// ended or is broken, [`BinlogStream::next`] tells.
    ///
    /// # Errors
    /// Where the connection cannot be asked.
    pub fn gather(&mut self, wait: Duration) -> Result<bool, WireError> {
        self.wire.stream.gather(wait)
    }

    /// Tells whether [`BinlogStream::next`] has to wait for the server.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.wire.stream.is_drained()
    }
}

/// Returns where an event ends without its checksum. One that is made up has none before the first file is begun, and later that
/// of the file before: only the bytes tell.
fn without_checksum(event: &[u8]) -> usize {
    let body = event.len().saturating_sub(4);
    let is_sum = |sum: &[u8]| sum == crc32fast::hash(&event[..body]).to_le_bytes();
    if is_sum(&event[body..]) { body } else { event.len() }
}

/// The name becomes a file's here as well: one that would lie elsewhere is refused.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_lie_elsewhere_is_none() {
        for name in ["", "..", ".", "a/b", "../binlog.000001", "/etc/passwd", "a\0b"] {
            assert!(!is_file_name(name), "{name:?}");
        }
        assert!(is_file_name("binlog.000001"));
    }

    #[test]
    fn a_made_up_event_is_read_with_its_checksum_and_without() {
        let plain = b"nineteen bytes of it and a name".to_vec();
        assert_eq!(without_checksum(&plain), plain.len());
        let summed = [&plain[..], &crc32fast::hash(&plain).to_le_bytes()].concat();
        assert_eq!(without_checksum(&summed), plain.len());
        assert_eq!(without_checksum(b""), 0);
        assert_eq!(without_checksum(b"ab"), 2);
    }

    #[test]
    fn a_place_that_the_protocol_cannot_name_is_refused_and_not_cut() {
        let replica =
            Replica { server_id: 7, uuid: String::new(), heartbeat: Duration::from_secs(1), acknowledges: false };
        let from = |offset| FilePosition { file: "binlog.000001".to_owned(), offset };
        let sent = dump(Product::MariaDb, &from(4), &replica, AtEnd::Stop).expect("a command");
        assert_eq!(sent, b"\x04\0\0\0\x03\0\x07\0\0\0binlog.000001");
        let refused = dump(Product::MySql, &from(1 << 32), &replica, AtEnd::Wait);
        assert!(matches!(refused, Err(WireError::BeyondOffset { .. })));
    }
}
