//! Reads one file's events, one after the other.

use std::io::{self, Read, Write};

use crate::mysql::binlog::format::compare;
use crate::mysql::binlog::{
    BinlogError, Checksum, EVENT_BYTES_MAX, Format, Header, Kind, MAGIC, MAGIC_ENCRYPTED, Malformed,
};

mod body;
mod leap;

use body::Body;

/// How much of an event is read at first: all of most events, and of every kind whatever has a bound.
const HEAD_BYTES: usize = 64 * 1024;

/// An event, as far as it has been read.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub offset: u64,
    pub header: Header,
    raw: &'a [u8],
    checksum: Checksum,
}

impl<'a> Event<'a> {
    /// Takes a whole event, as a server sends it, and checks its length and its checksum.
    ///
    /// # Errors
    /// Bytes that are damaged, or no event.
    pub fn parse(raw: &'a [u8], offset: u64, checksum: Checksum) -> Result<Self, BinlogError> {
        let (head, _) = raw.split_first_chunk().ok_or(Malformed("it is shorter than a header").at(offset))?;
        let header = Header::parse(head).map_err(|malformed| malformed.at(offset))?;
        if raw.len() as u64 != u64::from(header.length) || raw.len() < Header::BYTES + checksum.bytes() {
            return Err(Malformed("it has not the length that it says").at(offset));
        }
        checksum.check(raw, offset)?;
        Ok(Self { offset, header, raw, checksum })
    }

    /// Returns the event's bytes with header and checksum, as far as they have been read.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Tells whether all of the event has been read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.raw.len() as u64 == u64::from(self.header.length)
    }

    /// Returns what stands between header and checksum, as far as it has been read.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        let end = (self.header.length as usize - self.checksum.bytes()).min(self.raw.len());
        &self.raw[Header::BYTES..end]
    }

    /// Returns the offset after the event.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.header.length)
    }
}

/// A file that ends within an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Where the event begins: up to here the file is whole.
    pub offset: u64,
    /// How many of the event's bytes are there.
    pub bytes: u64,
}

/// Reads the events of one file, with memory for the head of one.
///
/// Of an event that is larger than its head, the rest is read when the reader goes on, or before, by who wants it
/// ([`SegmentReader::read_whole`], [`SegmentReader::copy_to`]): its checksum is known only then.
#[derive(Debug)]
pub struct SegmentReader<R> {
    input: R,
    format: Option<Format>,
    /// Where the event in `buffer` begins.
    offset: u64,
    /// The head of the event at hand, or all of it.
    buffer: Vec<u8>,
    header: Option<Header>,
    /// How many of the event's bytes have been read.
    done: u64,
    crc: crc32fast::Hasher,
    /// The last bytes that were read: an event ends with its checksum.
    tail: [u8; 4],
    torn: Option<Torn>,
    /// Why the body at hand could not be read on: whoever parses it may take that for a damaged event.
    fault: Option<io::Error>,
    is_encrypted: bool,
    is_inner: bool,
}

impl<R: Read> SegmentReader<R> {
    /// Opens a file at its beginning.
    ///
    /// # Errors
    /// An input that is no binlog, or an encrypted one.
    pub fn new(mut input: R) -> Result<Self, BinlogError> {
        let mut magic = [0; MAGIC.len()];
        let read = read_up_to(&mut input, &mut magic).map_err(|error| BinlogError::Io { offset: 0, error })?;
        match magic {
            MAGIC_ENCRYPTED => return Err(BinlogError::Encrypted { offset: 0 }),
            MAGIC => {}
            // A server that breaks down as it opens a file leaves it empty, or with a piece of these bytes.
            _ if MAGIC.starts_with(&magic[..read]) => {}
            _ => return Err(BinlogError::NoBinlog),
        }
        let torn = (read < MAGIC.len()).then_some(Torn { offset: 0, bytes: read as u64 });
        Ok(Self { torn, ..Self::within(input, None) })
    }

    /// Reads events without a file's beginning, as a compressed transaction holds them.
    pub(super) fn inner(input: R, format: Format) -> Self {
        Self { is_inner: true, offset: 0, ..Self::within(input, Some(format)) }
    }

    fn within(input: R, format: Option<Format>) -> Self {
        Self {
            input,
            format,
            offset: MAGIC.len() as u64,
            buffer: Vec::new(),
            header: None,
            done: 0,
            crc: crc32fast::Hasher::new(),
            tail: [0; 4],
            torn: None,
            fault: None,
            is_encrypted: false,
            is_inner: false,
        }
    }

    /// Returns the file's format, once its first event has been read.
    #[must_use]
    pub fn format(&self) -> Option<&Format> {
        self.format.as_ref()
    }

    /// Tells, after the last event, whether the file ends within one.
    #[must_use]
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }

    /// Returns the offset after the last whole event, once [`SegmentReader::next`] has returned none, or after
    /// [`SegmentReader::finish`].
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next event, or none where the file ends. [`SegmentReader::torn`] tells whether it ends within an event.
    ///
    /// # Errors
    /// An input that cannot be read, or bytes that are damaged or no events. The checksum of what is left of the event before
    /// is checked first.
    #[expect(clippy::should_implement_trait, reason = "an event lends the reader's buffer")]
    pub fn next(&mut self) -> Result<Option<Event<'_>>, BinlogError> {
        self.finish()?;
        if self.torn.is_some() || !self.read_header()? {
            return Ok(None);
        }
        self.read_up_to_length(HEAD_BYTES)?;
        if self.torn.is_some() {
            return Ok(None);
        }
        if self.header.is_some_and(|header| header.kind == Kind::FORMAT_DESCRIPTION) {
            self.take_format()?;
        }
        self.is_encrypted |= self.header.is_some_and(|header| header.kind == Kind::START_ENCRYPTION);
        self.check_if_done()?;
        Ok(self.event())
    }

    /// Reads all of the event at hand, which may be no larger than `bytes_max`. Returns none where the file ends within it.
    ///
    /// # Errors
    /// Those of [`SegmentReader::next`], and an event that is larger.
    pub fn read_whole(&mut self, bytes_max: u32) -> Result<Option<Event<'_>>, BinlogError> {
        let length = self.header.map_or(0, |header| header.length);
        if length > bytes_max {
            return Err(BinlogError::TooLarge {
                offset: self.offset,
                bytes: length.into(),
                bytes_max: bytes_max.into(),
            });
        }
        if self.done > self.buffer.len() as u64 {
            return Err(Malformed("its rest has been passed on already").at(self.offset));
        }
        self.read_up_to_length(length as usize)?;
        if self.torn.is_some() {
            return Ok(None);
        }
        self.check_if_done()?;
        Ok(self.event())
    }

    /// Writes all of the event at hand, header and checksum included, and returns whether the file held all of it.
    ///
    /// # Errors
    /// Those of [`SegmentReader::next`], and of what is written to, as [`io::Error`] within.
    pub fn copy_to(&mut self, output: &mut impl Write) -> Result<bool, BinlogError> {
        let offset = self.offset;
        let mut write = |bytes: &[u8]| output.write_all(bytes).map_err(|error| BinlogError::Io { offset, error });
        write(&self.buffer)?;
        self.read_rest(&mut write)?;
        Ok(self.torn.is_none())
    }

    fn event(&self) -> Option<Event<'_>> {
        let checksum = self.format.as_ref()?.checksum_of(self.header?.kind);
        Some(Event { offset: self.offset, header: self.header?, raw: &self.buffer, checksum })
    }

    /// Returns the body of the event at hand as a stream; [`SegmentReader::finish`] or the next event goes past what is left of it.
    pub(super) fn body(&mut self) -> Body<'_, R> {
        Body::new(self)
    }

    /// Goes past the event at hand, and checks its checksum.
    pub fn finish(&mut self) -> Result<(), BinlogError> {
        if let Some(error) = self.fault.take() {
            return Err(self.io(error));
        }
        let Some(header) = self.header else { return Ok(()) };
        self.read_rest(&mut |_| Ok(()))?;
        if self.torn.is_none() {
            self.offset += u64::from(header.length);
        }
        self.header = None;
        Ok(())
    }

    /// Reads the header of the next event, and returns false where the file ends.
    fn read_header(&mut self) -> Result<bool, BinlogError> {
        let mut bytes = [0; Header::BYTES];
        let read = read_up_to(&mut self.input, &mut bytes).map_err(|error| self.io(error))?;
        if read < Header::BYTES {
            self.torn = (read > 0).then_some(Torn { offset: self.offset, bytes: read as u64 });
            return Ok(false);
        }
        let header = Header::parse(&bytes).and_then(|header| self.plausible(header));
        let header = match header {
            Err(_) if self.is_encrypted => return Err(BinlogError::Encrypted { offset: self.offset }),
            header => header.map_err(|malformed| malformed.at(self.offset))?,
        };
        self.header = Some(header);
        self.buffer.clear();
        self.buffer.shrink_to(HEAD_BYTES);
        self.done = 0;
        self.crc = crc32fast::Hasher::new();
        self.keep(&bytes);
        self.buffer.extend_from_slice(&bytes);
        Ok(true)
    }

    /// Refuses a header that no server writes here.
    fn plausible(&self, header: Header) -> Result<Header, Malformed> {
        let end = self.offset + u64::from(header.length);
        // Positions are of 32 bits: past 4 GiB they begin again at zero.
        let is_position = header.end == 0 || self.is_inner || u64::from(header.end) == end & u64::from(u32::MAX);
        let checksum = self.format.as_ref().map_or(0, |format| format.checksum_of(header.kind).bytes());
        match &self.format {
            None if header.kind != Kind::FORMAT_DESCRIPTION => {
                Err(Malformed("a file begins with a format description"))
            }
            Some(_) if self.is_inner && header.kind == Kind::FORMAT_DESCRIPTION => {
                Err(Malformed("a transaction holds a format description"))
            }
            _ if header.length > EVENT_BYTES_MAX => Err(Malformed("it is longer than any event")),
            _ if (header.length as usize) < Header::BYTES + checksum => Err(Malformed("it is shorter than a header")),
            _ if !is_position => Err(Malformed("it names another position than its own")),
            _ => Ok(header),
        }
    }

    fn take_format(&mut self) -> Result<(), BinlogError> {
        if self.event_length() != self.buffer.len() as u64 {
            return Err(Malformed("it is longer than any format description").at(self.offset));
        }
        self.format = Some(Format::parse(&self.buffer, self.offset)?);
        Ok(())
    }

    fn event_length(&self) -> u64 {
        self.header.map_or(0, |header| u64::from(header.length))
    }

    /// Reads on until the buffer has so many bytes, or the whole event.
    fn read_up_to_length(&mut self, bytes: usize) -> Result<(), BinlogError> {
        let wanted = self.header.map_or(0, |header| header.length as usize).min(bytes);
        while self.buffer.len() < wanted && self.torn.is_none() {
            // In pieces: a length that a damaged header tells is believed only as far as bytes come.
            let start = self.buffer.len();
            let end = wanted.min(start + HEAD_BYTES);
            self.buffer.resize(end, 0);
            let read = read_up_to(&mut self.input, &mut self.buffer[start..]);
            let read = read.map_err(|error| self.io(error))?;
            self.buffer.truncate(start + read);
            self.note(start);
            if start + read < end {
                self.torn = Some(Torn { offset: self.offset, bytes: self.done });
            }
        }
        Ok(())
    }

    /// Reads what is left of the event, hands it on in pieces, and checks the checksum.
    fn read_rest(&mut self, piece: &mut dyn FnMut(&[u8]) -> Result<(), BinlogError>) -> Result<(), BinlogError> {
        if self.done >= self.event_length() || self.torn.is_some() {
            return Ok(());
        }
        let mut bytes = [0; 16 * 1024];
        while self.done < self.event_length() {
            let wanted =
                usize::try_from(self.event_length() - self.done).map_or(bytes.len(), |left| left.min(bytes.len()));
            let read = read_up_to(&mut self.input, &mut bytes[..wanted]).map_err(|error| self.io(error))?;
            self.keep(&bytes[..read]);
            piece(&bytes[..read])?;
            if read < wanted {
                self.torn = Some(Torn { offset: self.offset, bytes: self.done });
                return Ok(());
            }
        }
        self.check_if_done()
    }

    /// Counts what the buffer has got from `start` on.
    fn note(&mut self, start: usize) {
        let buffer = std::mem::take(&mut self.buffer);
        self.keep(&buffer[start..]);
        self.buffer = buffer;
    }

    /// Counts bytes of the event at hand into its checksum, all but the four that are the checksum itself.
    fn keep(&mut self, bytes: &[u8]) {
        let summed = (self.event_length().saturating_sub(4)).saturating_sub(self.done);
        let split = usize::try_from(summed).map_or(bytes.len(), |summed| summed.min(bytes.len()));
        let (body, tail) = bytes.split_at(split);
        self.crc.update(body);
        for byte in tail {
            self.tail.rotate_left(1);
            self.tail[3] = *byte;
        }
        self.done += bytes.len() as u64;
    }

    /// Checks the checksum once the event is complete. (A format description has checked its own.)
    fn check_if_done(&self) -> Result<(), BinlogError> {
        let (Some(header), Some(format)) = (self.header, &self.format) else { return Ok(()) };
        let is_summed = format.checksum == Checksum::Crc32 && header.kind != Kind::FORMAT_DESCRIPTION;
        if !is_summed || self.done < u64::from(header.length) {
            return Ok(());
        }
        compare(self.crc.clone().finalize(), self.tail, self.offset)
    }

    /// Keeps an error of the input for [`SegmentReader::finish`], and returns one of its kind.
    fn fail(&mut self, error: io::Error) -> io::Error {
        let kind = error.kind();
        if kind != io::ErrorKind::Interrupted {
            self.fault = Some(error);
        }
        kind.into()
    }

    fn io(&self, error: io::Error) -> BinlogError {
        BinlogError::Io { offset: self.offset + self.done, error }
    }
}

/// Fills the buffer, or as much of it as the input has.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
