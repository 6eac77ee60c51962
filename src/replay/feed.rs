//! The events of some segments as a replica wants them: bytes as they are, each file announced, what it has left out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mysql::binlog::{BinlogError, Checksum, Event, GtidEvent, Kind, SegmentReader, previous_gtids};
use crate::mysql::gtid::{Gtid, GtidSet, MariaDbGtid, Position};
use crate::mysql::manifest::{self, Product};
use crate::replay::made;
use crate::replay::segments::Segment;
use crate::replay::wire::Packets;

/// Where the first event of a file stands.
pub(super) const FIRST: u64 = 4;

/// Read ahead of a file.
const BUFFER_BYTES: usize = 256 * 1024;

/// How long a replica that has what is read hears nothing: it gives a silent source up, and only a write hears that it did.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The events that are served: those of some segments in their order, from an offset in the first to one in the last.
#[derive(Debug, Clone)]
pub struct Feed {
    pub product: Product,
    pub segments: Vec<Segment>,
    /// Where the first event stands that is served, in the first segment.
    pub begin: u64,
    /// Where the first stands that is not served any more, in the last segment.
    pub end: u64,
    /// Where a MariaDB stands that has the dump and nothing of the segments.
    pub dumped: Option<Position>,
}

/// What a replica has already, or where it wants to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    At {
        file: String,
        offset: u64,
    },
    /// It has these transactions, and wants all others.
    Without(GtidSet),
    /// It has each domain up to this transaction.
    After(Position),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    /// The replica has gone, or the replay has ended.
    #[error(transparent)]
    Gone(#[from] io::Error),
    #[error("open binlog `{name}`")]
    Open {
        name: String,
        #[source]
        error: io::Error,
    },
    #[error("read binlog `{name}`")]
    Read {
        name: String,
        #[source]
        error: BinlogError,
    },
    /// It came to light when the event was half sent.
    #[error(transparent)]
    Midway(Box<Self>),
    /// It comes without TLS, or is not known by it.
    #[error("TLS with the replica does not come about: {0}")]
    Tls(String),
    #[error("a replica asks for binlog `{file}` at {offset}, which is not served")]
    NotServed { file: String, offset: u64 },
}

/// How far the replica has been served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) file: String,
    pub(super) offset: u64,
    pub(super) checksum: Checksum,
}

impl Feed {
    /// Opens a segment at its beginning.
    pub(super) fn open(segment: &Segment) -> Result<SegmentReader<impl Read + use<>>, FeedError> {
        let file = File::open(&segment.path);
        let file = file.map_err(|error| FeedError::Open { name: segment.name.clone(), error })?;
        SegmentReader::new(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(|error| read_error(segment, error))
    }

    /// Sends all events from `start` on, and returns where they end.
    pub(super) fn send<S: Read + Write>(
        &self,
        packets: &mut Packets<S>,
        start: Start,
        server_id: u32,
        sent: &AtomicU64,
    ) -> Result<Served, FeedError> {
        let (index, offset) = self.place(&start)?;
        let skip = self.skip(start)?;
        let first = &self.segments[index];
        let served = Served { file: first.name.clone(), offset, checksum: Self::checksum_of(first)? };
        let mut sender = Sender { packets, skip, server_id, sent, served, is_behind: false, told: Instant::now() };
        for (nth, segment) in self.segments.iter().enumerate().skip(index) {
            let from = if nth == index { offset } else { FIRST };
            let until = if nth + 1 == self.segments.len() { self.end } else { u64::MAX };
            sender.segment(segment, from, until)?;
        }
        sender.catch_up()?;
        Ok(sender.served)
    }

    /// Returns how many of the served bytes lie before a place; `None` for one in no segment.
    pub(super) fn bytes_until(&self, place: &manifest::Position) -> Option<u64> {
        let index = self.segments.iter().position(|segment| segment.name == place.file)?;
        let before: u64 = self.segments[..index].iter().map(|segment| segment.bytes).sum();
        Some((before + place.offset).saturating_sub(self.begin))
    }

    /// Returns the segment and the offset in it that a dump begins at: of what the replica has, whole files at the front are left out.
    pub(super) fn place(&self, start: &Start) -> Result<(usize, u64), FeedError> {
        let (file, offset) = match start {
            Start::At { file, offset } => (file, offset),
            Start::Without(set) => return self.first_unknown(set),
            Start::After(_) => return Ok((0, self.begin)),
        };
        let not_served = || FeedError::NotServed { file: file.clone(), offset: *offset };
        let index = self.segments.iter().position(|segment| segment.name == *file).ok_or_else(not_served)?;
        let first = if index == 0 { self.begin } else { FIRST };
        if *offset < first { Err(not_served()) } else { Ok((index, *offset)) }
    }

    /// Returns the last segment before which a MySQL replica has everything.
    fn first_unknown(&self, executed: &GtidSet) -> Result<(usize, u64), FeedError> {
        for (index, segment) in self.segments.iter().enumerate().skip(1).rev() {
            if Self::listed_at_head(segment)?.is_some_and(|before| before.is_subset(executed)) {
                return Ok((index, FIRST));
            }
        }
        Ok((0, self.begin))
    }

    /// Returns what the head of a MySQL's segment lists; `None` where it lists nothing at all.
    fn listed_at_head(segment: &Segment) -> Result<Option<GtidSet>, FeedError> {
        let mut reader = Self::open(segment)?;
        while let Some(event) = reader.next().map_err(|error| read_error(segment, error))? {
            match event.header.kind {
                Kind::FORMAT_DESCRIPTION => {}
                Kind::PREVIOUS_GTIDS => {
                    let listed = previous_gtids(event.body()).map_err(|malformed| malformed.at(event.offset));
                    return listed.map(Some).map_err(|error| read_error(segment, error));
                }
                _ => break,
            }
        }
        Ok(None)
    }

    /// Returns how the very first event is to be made: as the first file's are.
    pub(super) fn checksum_of(segment: &Segment) -> Result<Checksum, FeedError> {
        let mut reader = Self::open(segment)?;
        reader.next().map_err(|error| read_error(segment, error))?;
        Ok(reader.format().map_or(Checksum::None, |format| format.checksum))
    }

    fn skip(&self, start: Start) -> Result<Skip, FeedError> {
        match start {
            Start::At { .. } => Ok(Skip::Nothing),
            Start::Without(set) => Ok(Skip::MySql(set)),
            Start::After(position) => self.served_of(&position).map(Skip::MariaDb),
        }
    }

    /// Tells whether a MariaDB that stands at a position has the dump, and in each domain what is served up to there.
    pub(super) fn leads_on_from(&self, position: &Position) -> Result<bool, FeedError> {
        let Some(dumped) = &self.dumped else { return Ok(false) };
        let served = self.served_of(position)?;
        let is_known =
            |gtid: MariaDbGtid| dumped.get(gtid.domain) == Some(gtid) || served.get(&gtid.domain) == Some(&gtid);
        Ok(position.iter().all(is_known) && dumped.iter().all(|gtid| position.get(gtid.domain).is_some()))
    }

    /// Returns the transactions of a position that are served: what comes before them in their domain is skipped. Those that are
    /// not served lie before all that is.
    fn served_of(&self, position: &Position) -> Result<BTreeMap<u32, MariaDbGtid>, FeedError> {
        let mut found = BTreeMap::new();
        if self.dumped.as_ref() == Some(position) {
            return Ok(found);
        }
        for (nth, segment) in self.segments.iter().enumerate() {
            let mut reader = Self::open(segment)?;
            let from = if nth == 0 { self.begin } else { FIRST };
            let until = if nth + 1 == self.segments.len() { self.end } else { u64::MAX };
            while let Some((offset, gtid)) = next_gtid(&mut reader).map_err(|error| read_error(segment, error))? {
                if let Some(Gtid::MariaDb(gtid)) = gtid
                    && (from..until).contains(&offset)
                    && position.get(gtid.domain) == Some(gtid)
                {
                    found.insert(gtid.domain, gtid);
                }
            }
        }
        Ok(found)
    }
}

/// Goes on to the next event and returns its offset, and its GTID if it is one.
fn next_gtid(reader: &mut SegmentReader<impl Read>) -> Result<Option<(u64, Option<Gtid>)>, BinlogError> {
    match reader.next()? {
        Some(event) => Ok(Some((event.offset, gtid_of(&event)?))),
        None => Ok(None),
    }
}

fn gtid_of(event: &Event<'_>) -> Result<Option<Gtid>, BinlogError> {
    let named = GtidEvent::parse(event).map_err(|malformed| malformed.at(event.offset))?;
    Ok(named.and_then(|named| named.gtid))
}

fn read_error(segment: &Segment, error: BinlogError) -> FeedError {
    FeedError::Read { name: segment.name.clone(), error }
}

/// What a replica has already.
#[derive(Debug)]
enum Skip {
    Nothing,
    MySql(GtidSet),
    /// In these domains, everything up to this transaction.
    MariaDb(BTreeMap<u32, MariaDbGtid>),
}

impl Skip {
    /// Tells whether the replica has a transaction.
    fn has(&mut self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (Self::MySql(set), Gtid::MySql(gtid)) => set.contains(gtid),
            (Self::MariaDb(last), Gtid::MariaDb(gtid)) => match last.get(&gtid.domain) {
                Some(found) if found == gtid => last.remove(&gtid.domain).is_some(),
                found => found.is_some(),
            },
            _ => false,
        }
    }
}

struct Sender<'a, S> {
    packets: &'a mut Packets<S>,
    skip: Skip,
    server_id: u32,
    sent: &'a AtomicU64,
    served: Served,
    /// Events were left out since the last that was sent: the replica must be told how far it is.
    is_behind: bool,
    /// When the replica was last told of events that were left out.
    told: Instant,
}

impl<S: Read + Write> Sender<'_, S> {
    fn segment(&mut self, segment: &Segment, from: u64, until: u64) -> Result<(), FeedError> {
        self.announce(segment, from)?;
        let mut reader = Feed::open(segment)?;
        let mut is_skipped = false;
        loop {
            let event = reader.next().map_err(|error| read_error(segment, error))?;
            let Some(event) = event.filter(|event| event.offset < until) else { return Ok(()) };
            let (offset, end, length) = (event.offset, event.end(), event.header.length);
            if event.header.kind == Kind::FORMAT_DESCRIPTION {
                let format = made::format_description(event.raw(), from > FIRST);
                self.served.checksum = reader.format().map_or(Checksum::None, |format| format.checksum);
                self.send_made(&format)?;
                continue;
            }
            if offset < from {
                continue;
            }
            is_skipped = self.is_skipped(&event, is_skipped).map_err(|error| read_error(segment, error))?;
            self.sent.fetch_add(u64::from(length), Ordering::Relaxed);
            if is_skipped {
                (self.served.offset, self.is_behind) = (end, true);
                self.break_silence()?;
                continue;
            }
            self.catch_up()?;
            self.send_event(&mut reader, length, segment)?;
            self.served.offset = end;
        }
    }

    /// Tells whether an event is left out: it belongs to a transaction that the replica has.
    fn is_skipped(&mut self, event: &Event<'_>, was_skipped: bool) -> Result<bool, BinlogError> {
        if let Some(gtid) = gtid_of(event)? {
            return Ok(self.skip.has(&gtid));
        }
        let belongs_to_file = matches!(
            event.header.kind,
            Kind::ROTATE
                | Kind::STOP
                | Kind::PREVIOUS_GTIDS
                | Kind::ANONYMOUS_GTID
                | Kind::MARIADB_GTID_LIST
                | Kind::BINLOG_CHECKPOINT
        );
        Ok(was_skipped && !belongs_to_file)
    }

    fn announce(&mut self, segment: &Segment, from: u64) -> Result<(), FeedError> {
        (self.served.file, self.served.offset, self.is_behind) = (segment.name.clone(), from, false);
        let rotate = made::rotate(self.server_id, &segment.name, from, self.served.checksum);
        self.send_made(&rotate)
    }

    /// Tells the replica how far it is, after events that it was not sent.
    fn catch_up(&mut self) -> Result<(), FeedError> {
        if std::mem::take(&mut self.is_behind) {
            let beat = made::heartbeat(self.server_id, &self.served);
            beat.map_or(Ok(()), |beat| self.send_made(&beat))?;
        }
        Ok(())
    }

    /// Tells a replica that is sent nothing for long that we are still there.
    fn break_silence(&mut self) -> Result<(), FeedError> {
        if self.told.elapsed() < SILENCE_MAX {
            return Ok(());
        }
        self.told = Instant::now();
        self.catch_up()?;
        Ok(self.packets.stream.flush()?)
    }

    fn send_made(&mut self, event: &[u8]) -> Result<(), FeedError> {
        Ok(send_made(self.packets, event)?)
    }

    fn send_event(
        &mut self,
        reader: &mut SegmentReader<impl Read>,
        length: u32,
        segment: &Segment,
    ) -> Result<(), FeedError> {
        let mut payload = self.packets.payload(length as usize + 1)?;
        payload.write_all(&[0])?;
        let copied = match reader.copy_to(&mut payload) {
            Ok(copied) => copied,
            Err(_) if payload.is_broken() => return Err(FeedError::Gone(io::ErrorKind::BrokenPipe.into())),
            Err(error) => return Err(FeedError::Midway(Box::new(read_error(segment, error)))),
        };
        // A file that ends within the event leaves the payload short: the connection ends here.
        if copied { Ok(payload.end()?) } else { Err(FeedError::Gone(io::ErrorKind::UnexpectedEof.into())) }
    }
}

/// Sends an event that stands in no file, or not as it is sent.
pub(super) fn send_made<S: Read + Write>(packets: &mut Packets<S>, event: &[u8]) -> io::Result<()> {
    let mut payload = packets.payload(event.len() + 1)?;
    payload.write_all(&[0])?;
    payload.write_all(event)?;
    payload.end()
}
