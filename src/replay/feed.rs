//! The events of some segments as a replica wants them: bytes as they are, each file announced, what it has left out.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mysql::binlog::{BinlogError, Checksum, Event, GtidEvent, Kind, SegmentReader, previous_gtids};
use crate::mysql::gtid::{Gtid, GtidSet, MariaDbGtid, Position};
use crate::mysql::manifest::{self, Product};
use crate::replay::bounded::{self, Bounded, UpTo};
use crate::replay::made;
use crate::replay::segments::Segment;
use crate::replay::wire::Packets;

/// Where the first event of a file stands.
pub(crate) const FIRST: u64 = 4;

/// A rotate event begins with an offset, and the rest is the file's name.
const ROTATE_HEAD_BYTES: usize = 8;

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

/// What is done again and again while a feed is looked through, which takes minutes; an error ends that.
pub(super) type Meanwhile<'a> = &'a mut dyn FnMut() -> Result<(), FeedError>;

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
pub(crate) enum FeedError {
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
    /// Opens a segment at its beginning; what came to the file since it was listed is not read.
    pub(super) fn open(segment: &Segment) -> Result<SegmentReader<BufReader<UpTo>>, FeedError> {
        bounded::open_whole(segment)
    }

    /// Prepares to send all events from `start` on. A replica that waits while the feed is looked through is told that we are there.
    pub(super) fn sender<'a, S: Read + Write>(
        &self,
        start: Start,
        server_id: u32,
        sent: &'a AtomicU64,
        packets: &mut Packets<S>,
    ) -> Result<Sender<'a>, FeedError> {
        let (index, from) = self.place(&start)?;
        let first = &self.segments[index];
        let served = Served { file: first.name.clone(), offset: from, checksum: Self::checksum_of(first)? };
        let (skip, told, is_skipped, is_behind) = (Skip::Nothing, Instant::now(), false, false);
        let (next, reader, is_proved) = (None, None, index == 0 && from == self.begin);
        let mut sender =
            Sender { skip, server_id, sent, served, next, from, is_proved, reader, is_skipped, is_behind, told };
        sender.skip = self.skip(start, &mut || sender.hold_on(packets))?;
        Ok(sender)
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

    /// Returns what of the feed a replica has that wants to go on so.
    pub(super) fn skip(&self, start: Start, meanwhile: Meanwhile<'_>) -> Result<Skip, FeedError> {
        match start {
            Start::At { .. } => Ok(Skip::Nothing),
            Start::Without(set) => Ok(Skip::MySql(set)),
            Start::After(position) => self.served_of(&position, meanwhile).map(Skip::MariaDb),
        }
    }

    /// Tells whether a MariaDB that stands at a position has the dump, and in each domain what is served up to there.
    pub(super) fn leads_on_from(&self, position: &Position) -> Result<bool, FeedError> {
        let Some(dumped) = &self.dumped else { return Ok(false) };
        let served = self.served_of(position, &mut || Ok(()))?;
        let is_known =
            |gtid: MariaDbGtid| dumped.get(gtid.domain) == Some(gtid) || served.get(&gtid.domain) == Some(&gtid);
        Ok(position.iter().all(is_known) && dumped.iter().all(|gtid| position.get(gtid.domain).is_some()))
    }

    /// Returns the transactions of a position that are served: what comes before them in their domain is skipped. Those that are
    /// not served lie before all that is.
    fn served_of(
        &self,
        position: &Position,
        meanwhile: Meanwhile<'_>,
    ) -> Result<BTreeMap<u32, MariaDbGtid>, FeedError> {
        let mut found = BTreeMap::new();
        if self.dumped.as_ref() == Some(position) {
            return Ok(found);
        }
        for (nth, segment) in self.segments.iter().enumerate() {
            let mut reader = Bounded::open(segment)?;
            let from = if nth == 0 { self.begin } else { FIRST };
            let until = if nth + 1 == self.segments.len() { self.end } else { u64::MAX };
            while let Some((offset, gtid)) =
                next_gtid(&mut reader, until).map_err(|error| read_error(segment, error))?
            {
                meanwhile()?;
                if offset < from {
                    reader.leap_to(from).map_err(|error| read_error(segment, error))?;
                    continue;
                }
                if let Some(Gtid::MariaDb(gtid)) = gtid
                    && position.get(gtid.domain) == Some(gtid)
                {
                    found.insert(gtid.domain, gtid);
                }
            }
        }
        Ok(found)
    }
}

/// Goes on to the next event before a bound and returns its offset, and its GTID if it is one.
fn next_gtid(reader: &mut Bounded, until: u64) -> Result<Option<(u64, Option<Gtid>)>, BinlogError> {
    match reader.next(until)? {
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

/// Returns the file that an event names as the next.
fn named_by(event: &Event<'_>) -> Option<String> {
    let is_end = event.header.kind == Kind::ROTATE;
    event.body().get(ROTATE_HEAD_BYTES..).filter(|_| is_end).map(|name| String::from_utf8_lossy(name).into_owned())
}

/// What a replica has already.
#[derive(Debug)]
pub(super) enum Skip {
    Nothing,
    MySql(GtidSet),
    /// In these domains, everything up to this transaction.
    MariaDb(BTreeMap<u32, MariaDbGtid>),
}

impl Skip {
    /// Tells whether the replica has a transaction.
    pub(super) fn has(&mut self, gtid: &Gtid) -> bool {
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

/// Sends the events of a feed, and goes on where it stopped once the feed has grown.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    skip: Skip,
    server_id: u32,
    sent: &'a AtomicU64,
    served: Served,
    /// The file that the last event has named, at the end of one: from then on the replica is at its beginning.
    next: Option<String>,
    /// Where the first event stands that is sent of the segment at hand.
    from: u64,
    /// An event begins there: the plan has found that, and not the replica said it.
    is_proved: bool,
    /// Of the segment at hand.
    reader: Option<Bounded>,
    /// The event before was left out.
    is_skipped: bool,
    /// Events were left out since the last that was sent: the replica must be told how far it is.
    is_behind: bool,
    /// When the replica was last told of events that were left out.
    told: Instant,
}

impl Sender<'_> {
    /// Sends all that the feed holds and was not sent, and returns where the replica stands then. A feed that has grown begins no later
    /// than at the segment at hand.
    pub(super) fn send<S: Read + Write>(&mut self, feed: &Feed, packets: &mut Packets<S>) -> Result<Served, FeedError> {
        let file = &self.served.file;
        let not_served = || FeedError::NotServed { file: file.clone(), offset: self.served.offset };
        let index = feed.segments.iter().position(|segment| segment.name == *file).ok_or_else(not_served)?;
        for (nth, segment) in feed.segments.iter().enumerate().skip(index) {
            if nth > index {
                (self.reader, self.from, self.is_proved) = (None, FIRST, false);
            }
            let until = if nth + 1 == feed.segments.len() { feed.end } else { u64::MAX };
            let mut reader = match self.reader.take() {
                Some(reader) => reader,
                None => self.enter(segment, packets)?,
            };
            self.segment(&mut reader, segment, until, packets)?;
            self.reader = Some(reader);
        }
        self.catch_up(packets)?;
        Ok(self.reached())
    }

    /// Returns where the replica knows itself to be: heartbeats of another file it takes for errors.
    fn reached(&self) -> Served {
        match &self.next {
            Some(next) => Served { file: next.clone(), offset: FIRST, checksum: self.served.checksum },
            None => self.served.clone(),
        }
    }

    fn segment<S: Read + Write>(
        &mut self,
        reader: &mut Bounded,
        segment: &Segment,
        until: u64,
        packets: &mut Packets<S>,
    ) -> Result<(), FeedError> {
        loop {
            let event = reader.next(until).map_err(|error| read_error(segment, error))?;
            let Some(event) = event else { return Ok(()) };
            let (offset, end, length) = (event.offset, event.end(), event.header.length);
            if event.header.kind == Kind::FORMAT_DESCRIPTION {
                let format = made::format_description(event.raw(), self.from > FIRST);
                self.served.checksum = reader.format().map_or(Checksum::None, |format| format.checksum);
                send_made(packets, &format)?;
                continue;
            }
            if offset < self.from {
                if self.is_proved {
                    reader.leap_to(self.from).map_err(|error| read_error(segment, error))?;
                }
                continue;
            }
            self.is_skipped = self.is_left_out(&event).map_err(|error| read_error(segment, error))?;
            self.sent.fetch_add(u64::from(length), Ordering::Relaxed);
            if self.is_skipped {
                (self.served.offset, self.is_behind) = (end, true);
                self.break_silence(packets)?;
                continue;
            }
            self.catch_up(packets)?;
            self.next = named_by(&event);
            send_event(reader, length, segment, packets)?;
            self.served.offset = end;
        }
    }

    /// Tells whether an event is left out: it belongs to a transaction that the replica has.
    fn is_left_out(&mut self, event: &Event<'_>) -> Result<bool, BinlogError> {
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
        Ok(self.is_skipped && !belongs_to_file)
    }

    /// Announces a segment, and opens it.
    fn enter<S: Read + Write>(&mut self, segment: &Segment, packets: &mut Packets<S>) -> Result<Bounded, FeedError> {
        (self.served.file, self.served.offset) = (segment.name.clone(), self.from);
        (self.next, self.is_behind, self.is_skipped) = (None, false, false);
        let rotate = made::rotate(self.server_id, &segment.name, self.from, self.served.checksum);
        send_made(packets, &rotate)?;
        Bounded::open(segment)
    }

    /// Tells the replica how far it is, after events that it was not sent.
    fn catch_up<S: Read + Write>(&mut self, packets: &mut Packets<S>) -> Result<(), FeedError> {
        if std::mem::take(&mut self.is_behind)
            && let Some(beat) = made::heartbeat(self.server_id, &self.reached())
        {
            send_made(packets, &beat)?;
        }
        Ok(())
    }

    /// Tells a replica that has been sent nothing at all yet that we are still there. It takes heartbeats of a file that it knows.
    fn hold_on<S: Read + Write>(&mut self, packets: &mut Packets<S>) -> Result<(), FeedError> {
        if self.told.elapsed() < SILENCE_MAX {
            return Ok(());
        }
        let Served { file, offset, checksum } = &self.served;
        send_made(packets, &made::rotate(self.server_id, file, *offset, *checksum))?;
        self.is_behind = true;
        self.break_silence(packets)
    }

    /// Tells a replica that is sent nothing for long that we are still there.
    fn break_silence<S: Read + Write>(&mut self, packets: &mut Packets<S>) -> Result<(), FeedError> {
        if self.told.elapsed() < SILENCE_MAX {
            return Ok(());
        }
        self.told = Instant::now();
        self.catch_up(packets)?;
        Ok(packets.stream.flush()?)
    }
}

fn send_event<S: Read + Write>(
    reader: &mut Bounded,
    length: u32,
    segment: &Segment,
    packets: &mut Packets<S>,
) -> Result<(), FeedError> {
    let mut payload = packets.payload(length as usize + 1)?;
    payload.write_all(&[0])?;
    let copied = match reader.reader.copy_to(&mut payload) {
        Ok(copied) => copied,
        Err(_) if payload.is_broken() => return Err(FeedError::Gone(io::ErrorKind::BrokenPipe.into())),
        Err(error) => return Err(FeedError::Midway(Box::new(read_error(segment, error)))),
    };
    // A file that ends within the event leaves the payload short: the connection ends here.
    if copied { Ok(payload.end()?) } else { Err(FeedError::Gone(io::ErrorKind::UnexpectedEof.into())) }
}

/// Sends an event that stands in no file, or not as it is sent.
pub(super) fn send_made<S: Read + Write>(packets: &mut Packets<S>, event: &[u8]) -> io::Result<()> {
    let mut payload = packets.payload(event.len() + 1)?;
    payload.write_all(&[0])?;
    payload.write_all(event)?;
    payload.end()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io::Cursor;
    use std::path::Path;

    use super::*;
    use crate::mysql::binlog::{Header, MAGIC};

    /// Writes a file of events.
    fn segment(dir: &Path, events: &[(Kind, &[u8])]) -> Segment {
        let mut bytes = [&MAGIC[..], &crate::replay::tests::format()].concat();
        for (kind, body) in events {
            let end = u32::try_from(bytes.len() + Header::BYTES + body.len() + 4).unwrap();
            bytes.extend_from_slice(&made::event(*kind, 77, end, 0, body, Checksum::Crc32));
        }
        let path = dir.join("b.000001");
        std::fs::write(&path, &bytes).unwrap();
        Segment { name: "b.000001".to_owned(), path, bytes: bytes.len() as u64 }
    }

    #[test]
    fn a_replica_that_waits_for_its_first_event_is_told_that_we_are_there() {
        let (dir, sent) = (tempfile::tempdir().unwrap(), AtomicU64::new(0));
        let file = segment(dir.path(), &[]);
        let feed = Feed { product: Product::MySql, end: file.bytes, segments: vec![file], begin: FIRST, dumped: None };
        let start = Start::At { file: "b.000001".to_owned(), offset: FIRST };
        let mut packets = Packets::new(Cursor::new(Vec::new()));
        let mut sender = feed.sender(start, 1, &sent, &mut packets).unwrap();
        sender.hold_on(&mut packets).unwrap();
        assert!(packets.stream.get_ref().is_empty());
        sender.told -= SILENCE_MAX;
        sender.hold_on(&mut packets).unwrap();
        let (bytes, mut kinds, mut at) = (packets.stream.into_inner(), Vec::new(), 0);
        while at < bytes.len() {
            // The packet's length and number, a zero, the event's time.
            kinds.push(Kind(bytes[at + 4 + 1 + 4]));
            at += 4 + usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        }
        assert_eq!(kinds, [Kind::ROTATE, Kind::HEARTBEAT]);
    }

    #[test]
    fn a_replica_at_the_end_of_a_file_hears_of_the_next_which_it_was_told() {
        let (dir, sent) = (tempfile::tempdir().unwrap(), AtomicU64::new(0));
        let named = [&4_u64.to_le_bytes()[..], b"b.000002"].concat();
        let file = segment(dir.path(), &[(Kind::ROWS_QUERY, b"x"), (Kind::ROTATE, &named)]);
        let end = file.bytes;
        let mut feed = Feed { product: Product::MySql, segments: vec![file], begin: FIRST, end, dumped: None };
        let mut packets = Packets::new(Cursor::new(Vec::new()));
        let start = Start::At { file: "b.000001".to_owned(), offset: FIRST };
        feed.end = end - u64::from(u32::try_from(Header::BYTES + named.len()).unwrap() + 4);
        let mut sender = feed.sender(start, 1, &sent, &mut packets).unwrap();
        let within = sender.send(&feed, &mut packets).unwrap();
        assert_eq!((within.file.as_str(), within.offset), ("b.000001", feed.end));
        feed.end = end;
        let behind = sender.send(&feed, &mut packets).unwrap();
        assert_eq!((behind.file.as_str(), behind.offset), ("b.000002", FIRST));
    }

    #[test]
    fn what_lies_before_the_begin_of_a_plan_is_not_read_for_a_replica() {
        let (dir, sent) = (tempfile::tempdir().unwrap(), AtomicU64::new(0));
        let file = segment(dir.path(), &[(Kind::ROWS_QUERY, b"x"), (Kind::ROWS_QUERY, b"y"), (Kind::ROWS_QUERY, b"z")]);
        let end = file.bytes;
        let begin = end - u64::try_from(Header::BYTES).unwrap() - 1 - 4;
        let mut bytes = std::fs::read(&file.path).unwrap();
        bytes[usize::try_from(begin).unwrap() - 2] ^= 1;
        std::fs::write(&file.path, bytes).unwrap();
        let feed = Feed { product: Product::MySql, segments: vec![file], begin, end, dumped: None };
        let send = |start| {
            let mut packets = Packets::new(Cursor::new(Vec::new()));
            let mut sender = feed.sender(start, 1, &sent, &mut packets)?;
            sender.send(&feed, &mut packets).map(|served| served.offset)
        };
        assert_eq!(send(Start::Without(GtidSet::default())).unwrap(), end);
        assert!(feed.served_of(&"0-1-7".parse().unwrap(), &mut || Ok(())).unwrap().is_empty());
        // A place that the replica names is believed only as far as events are read that lead there.
        let named = Start::At { file: "b.000001".to_owned(), offset: end };
        assert!(matches!(send(named), Err(FeedError::Read { .. })));
    }

    #[test]
    fn nothing_is_looked_through_for_a_replica_that_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let file = segment(dir.path(), &[]);
        let feed =
            Feed { product: Product::MariaDb, end: file.bytes, segments: vec![file], begin: FIRST, dumped: None };
        let position = "0-1-7".parse().unwrap();
        let gone = feed.served_of(&position, &mut || Err(FeedError::Gone(io::ErrorKind::BrokenPipe.into())));
        assert!(matches!(gone, Err(FeedError::Gone(_))), "{gone:?}");
        assert!(feed.served_of(&position, &mut || Ok(())).unwrap().is_empty());
    }
}
