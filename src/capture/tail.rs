//! The segment that is being written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::capture::CaptureError;
use crate::capture::scan::{Scan, is_told};
use crate::mysql::binlog::{BinlogError, Checksum, Header, MAGIC};
use crate::mysql::gtid::Executed;

/// What is written at once: a system call for each small event would cost more than the event.
const PENDING_BYTES_MAX: usize = 256 * 1024;

/// Events that are looked into are small; a set of GTIDs of a long-lived fleet is the largest.
const TOLD_BYTES_MAX: usize = 64 << 20;

/// CRC-32 of any bytes that end with their own checksum.
const CRC_RESIDUE: u32 = 0x2144_DF1C;

/// A file of the spool, and the state after its last whole event. What is written of an event before it is whole is cut off again
/// if it never becomes so.
#[derive(Debug)]
pub(crate) struct Tail {
    file: File,
    path: PathBuf,
    name: String,
    pub(crate) scan: Scan,
    /// Bytes that the file holds; those pending follow them.
    written: u64,
    pending: Vec<u8>,
    event: Option<Incoming>,
    /// Something was taken since the last sync.
    pub(crate) is_dirty: bool,
    /// Up to here it is durable.
    synced: u64,
    /// A sync failed: the kernel has let go of what it could not write, and the next would say that all is well.
    is_broken: bool,
}

/// An event that is coming in.
#[derive(Debug)]
struct Incoming {
    header: Header,
    bytes: u64,
    crc: crc32fast::Hasher,
    told: Option<Vec<u8>>,
    /// Of the segment up to here.
    hash: Sha256,
}

impl Tail {
    /// Begins a file; one of the same name that is there is begun anew.
    pub(crate) fn create(path: &Path, name: &str, carried: Executed) -> Result<Self, CaptureError> {
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = made.map_err(|error| failed("write", path, error))?;
        let (path, name) = (path.to_owned(), name.to_owned());
        let scan = Scan::new(carried);
        let pending = MAGIC.to_vec();
        Ok(Self {
            file,
            path,
            name,
            scan,
            written: 0,
            pending,
            event: None,
            is_dirty: true,
            synced: 0,
            is_broken: false,
        })
    }

    /// Goes on with a file that is there, after its last whole event, up to which `scan` has it.
    /// Up to `durable`, its bytes are known to be on the disk.
    pub(crate) fn resume(path: &Path, name: &str, scan: Scan, durable: u64) -> Result<Self, CaptureError> {
        let opened = OpenOptions::new().write(true).open(path);
        let file = opened.map_err(|error| failed("write", path, error))?;
        let (path, name) = (path.to_owned(), name.to_owned());
        let mut tail = Self {
            file,
            path,
            name,
            written: scan.bytes,
            synced: durable.min(scan.bytes),
            scan,
            pending: Vec::new(),
            event: None,
            is_dirty: true,
            is_broken: false,
        };
        tail.cut()?;
        // A crash may have come before the file's first bytes were there.
        if tail.scan.format.is_none() {
            (tail.written, tail.pending) = (0, MAGIC.to_vec());
        }
        Ok(tail)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Begins an event, which must be the file's next.
    pub(crate) fn begin(&mut self, header: Header) -> Result<(), CaptureError> {
        let end = self.scan.bytes + u64::from(header.length);
        if header.end != 0 && u64::from(header.end) != end & u64::from(u32::MAX) {
            return Err(CaptureError::Hole { file: self.name.clone(), expected: end, found: header.end });
        }
        let told = is_told(header.kind).then(Vec::new);
        self.event = Some(Incoming { header, bytes: 0, crc: crc32fast::Hasher::new(), told, hash: self.scan.hash() });
        Ok(())
    }

    /// Takes bytes of the event.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), CaptureError> {
        if let Some(event) = &mut self.event {
            event.bytes += bytes.len() as u64;
            if event.bytes > u64::from(event.header.length) {
                let error = BinlogError::Malformed { offset: self.scan.bytes, what: "it is longer than it says" };
                return Err(CaptureError::Event { file: self.name.clone(), error });
            }
            event.crc.update(bytes);
            event.hash.update(bytes);
            if let Some(told) = event.told.as_mut().filter(|told| told.len() + bytes.len() <= TOLD_BYTES_MAX) {
                told.extend_from_slice(bytes);
            }
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PENDING_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Ends the event, if its bytes are those that the server wrote.
    pub(crate) fn end(&mut self) -> Result<(), CaptureError> {
        let Some(event) = self.event.take() else { return Ok(()) };
        let format = self.scan.format.as_ref();
        let checked = event.check(self.scan.bytes, format.map(|format| format.checksum_of(event.header.kind)));
        let taken = checked.and_then(|()| self.scan.take(event.header, &event.told.unwrap_or_default(), event.hash));
        if let Err(error) = taken {
            self.cut()?;
            return Err(CaptureError::Event { file: self.name.clone(), error });
        }
        self.is_dirty = true;
        Ok(())
    }

    /// Cuts off what is there of an event that is not whole.
    pub(crate) fn cut(&mut self) -> Result<(), CaptureError> {
        self.event = None;
        if self.is_broken {
            return Ok(());
        }
        let whole = self.scan.bytes;
        if let Some(kept) = whole.checked_sub(self.written) {
            self.pending.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        } else {
            self.pending.clear();
            self.written = whole;
        }
        let cut = self.file.set_len(self.written);
        cut.map_err(|error| failed("cut", &self.path, error))
    }

    /// Makes all whole events durable.
    pub(crate) fn sync(&mut self) -> Result<(), CaptureError> {
        self.sync_by(File::sync_data)
    }

    fn sync_by(&mut self, sync: fn(&File) -> io::Result<()>) -> Result<(), CaptureError> {
        if self.is_broken {
            return Err(failed("sync", &self.path, io::Error::other("an earlier sync failed")));
        }
        self.flush()?;
        if let Err(error) = sync(&self.file) {
            self.is_broken = true;
            // What may never have reached the disk is not believed by whoever reads the file next.
            self.file.set_len(self.synced).map_err(|error| failed("cut", &self.path, error))?;
            return Err(failed("sync", &self.path, error));
        }
        (self.is_dirty, self.synced) = (false, self.written);
        Ok(())
    }

    /// Writes elsewhere from now on.
    #[cfg(test)]
    pub(crate) fn write_to(&mut self, file: File) {
        self.file = file;
    }

    fn flush(&mut self) -> Result<(), CaptureError> {
        let written = self.file.write_all_at(&self.pending, self.written);
        written.map_err(|error| failed("write", &self.path, error))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl Incoming {
    fn check(&self, offset: u64, checksum: Option<Checksum>) -> Result<(), BinlogError> {
        if self.bytes != u64::from(self.header.length) {
            return Err(BinlogError::Malformed { offset, what: "it has not the length that it says" });
        }
        let found = self.crc.clone().finalize();
        if checksum == Some(Checksum::Crc32) && found != CRC_RESIDUE {
            return Err(BinlogError::Damaged { offset, found, stored: CRC_RESIDUE });
        }
        Ok(())
    }
}

pub(crate) fn failed(act: &'static str, path: &Path, error: io::Error) -> CaptureError {
    CaptureError::Spool { act, path: path.to_owned(), error }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]
pub(crate) mod tests {
    use super::*;
    use crate::mysql::binlog::Kind;
    use crate::mysql::manifest::Product;

    /// Makes an event that ends with its checksum.
    pub(crate) fn event(kind: Kind, body: &[u8], offset: u64) -> Vec<u8> {
        let length = (Header::BYTES + body.len() + 4) as u32;
        let end = offset as u32 + length;
        let mut bytes = [&7_u32.to_le_bytes()[..], &[kind.0], &1_u32.to_le_bytes(), &length.to_le_bytes()].concat();
        bytes.extend([&end.to_le_bytes()[..], &[0, 0], body].concat());
        let sum = crc32fast::hash(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    pub(crate) fn format() -> Vec<u8> {
        let mut version = b"9.7.0".to_vec();
        version.resize(50, 0);
        let lengths = [0; 42];
        let body = [&4_u16.to_le_bytes()[..], &version, &7_u32.to_le_bytes(), &[19], &lengths, &[1]].concat();
        event(Kind::FORMAT_DESCRIPTION, &body, 4)
    }

    fn take(tail: &mut Tail, bytes: &[u8]) -> Result<(), CaptureError> {
        let head: [u8; Header::BYTES] = bytes[..Header::BYTES].try_into().unwrap();
        tail.begin(Header::parse(&head).unwrap())?;
        bytes.chunks(100).try_for_each(|part| tail.write(part))?;
        tail.end()
    }

    fn begun(path: &Path) -> (Tail, Vec<u8>) {
        let mut tail = Tail::create(path, "b.000001", Executed::new(Product::MySql)).unwrap();
        take(&mut tail, &format()).unwrap();
        let bytes = [&MAGIC[..], &format()].concat();
        (tail, bytes)
    }

    #[test]
    fn an_event_that_is_damaged_on_its_way_leaves_no_trace_and_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.000001");
        let (mut tail, mut whole) = begun(&path);
        // Larger than what is written at once, so that part of it is in the file when it turns out.
        let good = event(Kind::QUERY, &vec![b'x'; PENDING_BYTES_MAX + 5_000], whole.len() as u64);
        for at in [Header::BYTES + 9, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let refused = take(&mut tail, &bad);
            assert!(
                matches!(refused, Err(CaptureError::Event { error: BinlogError::Damaged { .. }, .. })),
                "{refused:?}"
            );
            tail.sync().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        take(&mut tail, &good).unwrap();
        tail.sync().unwrap();
        whole.extend(&good);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let segment = tail.scan.segment("b.000001", false);
        assert_eq!(segment.sha256, hex::encode(Sha256::digest(&whole)));
    }

    #[test]
    fn what_a_failed_sync_left_behind_is_neither_believed_nor_synced_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.000001");
        let (mut tail, whole) = begun(&path);
        tail.sync().unwrap();
        take(&mut tail, &event(Kind::QUERY, b"body", whole.len() as u64)).unwrap();
        assert!(tail.sync_by(|_| Err(io::Error::other("no disk"))).is_err());
        tail.cut().unwrap();
        assert!(tail.sync().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn an_event_of_another_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (mut tail, whole) = begun(&dir.path().join("b.000001"));
        let later = event(Kind::QUERY, b"body", whole.len() as u64 + 40);
        assert!(matches!(take(&mut tail, &later), Err(CaptureError::Hole { .. })));
    }

    #[test]
    fn after_a_crash_a_file_goes_on_behind_its_last_whole_event() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.000001");
        let (_, head) = begun(&path);
        let first = event(Kind::QUERY, b"the first", head.len() as u64);
        let second = event(Kind::QUERY, b"the second", (head.len() + first.len()) as u64);
        let whole = [&head[..], &first].concat();
        let scan = || Scan::again(&path, Executed::new(Product::MySql)).unwrap();
        let resume = || Tail::resume(&path, "b.000001", scan(), 0).unwrap();
        for kept in 0..second.len() {
            std::fs::write(&path, [&whole[..], &second[..kept]].concat()).unwrap();
            let mut tail = resume();
            assert_eq!(tail.scan.bytes, whole.len() as u64, "{kept} bytes of the second");
            take(&mut tail, &second).unwrap();
            tail.sync().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), [&whole[..], &second].concat());
        }
        // Its place was made, and its bytes never came.
        std::fs::write(&path, [&whole[..], &vec![0; second.len()]].concat()).unwrap();
        assert_eq!(resume().scan.bytes, whole.len() as u64);
        std::fs::write(&path, vec![0; whole.len()]).unwrap();
        let mut tail = resume();
        take(&mut tail, &format()).unwrap();
        tail.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), head, "no page came to the disk");
        // Nothing but a piece of the beginning.
        for kept in 0..head.len() {
            std::fs::write(&path, &head[..kept]).unwrap();
            let mut tail = resume();
            take(&mut tail, &format()).unwrap();
            tail.sync().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), head, "{kept} bytes");
        }
    }
}
