//! What a segment tells as it goes by: its format, its GTIDs, its commit times, its hash.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::capture::chain::Segment;
use crate::mysql::binlog::{
    BinlogError, Event, Format, GtidEvent, Header, Kind, MAGIC, Malformed, Rotate, SegmentReader, mariadb_gtid_list,
    previous_gtids,
};
use crate::mysql::gtid::{Executed, Gtid};

/// A file is read in strides of this size when it is scanned again.
const READ_BYTES: usize = 1 << 20;

/// The state of a segment after its last whole event.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) bytes: u64,
    hash: Sha256,
    pub(crate) format: Option<Format>,
    created: u32,
    pub(crate) before: Option<Executed>,
    pub(crate) executed: Executed,
    first: Option<DateTime<Utc>>,
    pub(crate) last: Option<DateTime<Utc>>,
    transactions: u64,
    /// Where the file says that the log goes on.
    pub(crate) next: Option<String>,
    begun: Option<Begun>,
}

/// A transaction of which the first event has been taken.
#[derive(Debug, Clone)]
struct Begun {
    gtid: Option<Gtid>,
    committed: DateTime<Utc>,
    /// The offset behind it, where the server tells.
    end: Option<u64>,
    is_standalone: bool,
}

impl Scan {
    /// Begins a file of which only the magic number stands there.
    pub(crate) fn new(carried: Executed) -> Self {
        Self {
            bytes: MAGIC.len() as u64,
            hash: Sha256::new_with_prefix(MAGIC),
            format: None,
            created: 0,
            before: None,
            executed: carried,
            first: None,
            last: None,
            transactions: 0,
            next: None,
            begun: None,
        }
    }

    /// Reads a file of the spool again, up to its last whole event.
    pub(crate) fn again(path: &Path, carried: Executed) -> Result<Self, BinlogError> {
        let file = File::open(path).map_err(|error| BinlogError::Io { offset: 0, error })?;
        let mut reader = match SegmentReader::new(BufReader::with_capacity(READ_BYTES, &file)) {
            // A crash left the place of its first bytes without them.
            Err(BinlogError::NoBinlog) if begins_with_zeros(&file)? => return Ok(Self::new(carried)),
            opened => opened?,
        };
        let mut scan = Self::new(carried);
        // A crash leaves a piece of an event at the end, or its place without its bytes: all before it is whole.
        while let Some(header) = whole(reader.next())?.map(|event| event.header) {
            let told = if is_told(header.kind) {
                whole(reader.read_whole(header.length))?.map(|event| event.raw().to_vec())
            } else {
                Some(Vec::new())
            };
            let Some(told) = told else { break };
            let mut hash = scan.hash.clone();
            match reader.copy_to(&mut Hashing(&mut hash)) {
                Ok(true) => scan.take(header, &told, hash)?,
                Ok(false) | Err(BinlogError::Damaged { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(scan)
    }

    /// Returns when the server began the file.
    pub(crate) fn created(&self) -> u32 {
        self.created
    }

    /// Returns the hash up to here, to go on with.
    pub(crate) fn hash(&self) -> Sha256 {
        self.hash.clone()
    }

    /// Takes a whole event: of the kinds that tell something its bytes, of others none; and the hash that counts it in.
    pub(crate) fn take(&mut self, header: Header, told: &[u8], hash: Sha256) -> Result<(), BinlogError> {
        let offset = self.bytes;
        if opens_transaction(header.kind) {
            // Whatever ended the one before, it has ended.
            if let Some(begun) = &mut self.begun {
                begun.end = Some(offset);
            }
            self.end_transaction(header.kind);
        }
        if header.kind == Kind::FORMAT_DESCRIPTION {
            self.format = Some(Format::parse(told, offset)?);
            self.created = header.timestamp;
        } else if is_told(header.kind) {
            let checksum = self.format.as_ref().map(|format| format.checksum);
            let checksum = checksum.ok_or(BinlogError::NoBinlog)?;
            self.note(&Event::parse(told, offset, checksum)?).map_err(|error| error.at(offset))?;
        }
        self.hash = hash;
        self.bytes += u64::from(header.length);
        self.end_transaction(header.kind);
        Ok(())
    }

    fn note(&mut self, event: &Event<'_>) -> Result<(), Malformed> {
        match event.header.kind {
            Kind::ROTATE => self.next = Some(Rotate::parse(event.body())?.file),
            Kind::PREVIOUS_GTIDS => self.begin_with(Executed::MySql(previous_gtids(event.body())?)),
            Kind::MARIADB_GTID_LIST => self.begin_with(Executed::MariaDb(mariadb_gtid_list(event.body())?)),
            _ => self.begun = GtidEvent::parse(event)?.map(|gtid| Begun::new(gtid, event)),
        }
        Ok(())
    }

    fn begin_with(&mut self, before: Executed) {
        self.executed = before.clone();
        self.before = Some(before);
    }

    /// Ends the transaction at hand once all of it is there: a stream may be cut in its midst.
    fn end_transaction(&mut self, kind: Kind) {
        let ends = |begun: &Begun| match begun.end {
            Some(end) => self.bytes >= end,
            None => ends_transaction(kind, begun.is_standalone),
        };
        let Some(begun) = self.begun.take_if(|begun| ends(begun)) else { return };
        if let Some(gtid) = begun.gtid {
            self.executed.add(&gtid);
        }
        self.first.get_or_insert(begun.committed);
        self.last = Some(begun.committed);
        self.transactions += 1;
    }

    /// Returns the segment as far as it goes.
    pub(crate) fn segment(&self, file: &str, is_closed: bool) -> Segment {
        Segment {
            file: file.to_owned(),
            bytes: self.bytes,
            sha256: hex::encode(self.hash.clone().finalize()),
            created: self.created,
            first: self.first,
            last: self.last,
            transactions: self.transactions,
            before: self.before.as_ref().map(ToString::to_string),
            after: self.executed.to_string(),
            is_closed,
        }
    }
}

impl Begun {
    fn new(event: GtidEvent, raw: &Event<'_>) -> Self {
        let seconds = DateTime::from_timestamp(raw.header.timestamp.into(), 0).unwrap_or_default();
        Self {
            gtid: event.gtid,
            committed: event.committed.unwrap_or(seconds),
            end: event.transaction_bytes.and_then(|bytes| raw.offset.checked_add(bytes)),
            is_standalone: event.is_standalone,
        }
    }
}

/// Tells whether an event ends the transaction that it is of, as far as its kind alone says: what is taken for open a little longer
/// is closed by whatever begins next.
fn ends_transaction(kind: Kind, is_standalone: bool) -> bool {
    match kind {
        Kind::XID | Kind::XA_PREPARE | Kind::TRANSACTION_PAYLOAD => true,
        Kind::QUERY | Kind::QUERY_COMPRESSED => is_standalone,
        _ => false,
    }
}

fn opens_transaction(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::GTID | Kind::GTID_TAGGED | Kind::ANONYMOUS_GTID | Kind::MARIADB_GTID | Kind::ROTATE | Kind::STOP
    )
}

/// Tells whether an event's bytes are looked into.
pub(crate) fn is_told(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::FORMAT_DESCRIPTION
            | Kind::ROTATE
            | Kind::PREVIOUS_GTIDS
            | Kind::MARIADB_GTID_LIST
            | Kind::GTID
            | Kind::GTID_TAGGED
            | Kind::ANONYMOUS_GTID
            | Kind::MARIADB_GTID
    )
}

/// Takes an event whose checksum is wrong for the end of what is whole.
fn whole(read: Result<Option<Event<'_>>, BinlogError>) -> Result<Option<Event<'_>>, BinlogError> {
    match read {
        Err(BinlogError::Damaged { .. } | BinlogError::Malformed { .. }) => Ok(None),
        read => read,
    }
}

fn begins_with_zeros(file: &File) -> Result<bool, BinlogError> {
    let mut magic = [0; MAGIC.len()];
    file.read_exact_at(&mut magic, 0).map_err(|error| BinlogError::Io { offset: 0, error })?;
    Ok(magic == [0; MAGIC.len()])
}

pub(crate) struct Hashing<'a>(pub(crate) &'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
