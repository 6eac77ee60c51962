//! Follows a server's binlog into the spool.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::capture::asker::{Asker, Told};
use crate::capture::begin::{Start, first_file, missing, start, went_back};
use crate::capture::chain::{Beginning, Epoch, Gap, Origin, Segment, is_next};
use crate::capture::due::Due;
use crate::capture::facts::{Facts, facts};
use crate::capture::followed::{Followed, Until};
use crate::capture::goal::Goal;
use crate::capture::semi_sync::Watch;
use crate::capture::tail::Tail;
use crate::capture::{Capture, CaptureError, Spool};
use crate::human;
use crate::mysql::binlog::Header;
use crate::mysql::gtid::Executed;
use crate::mysql::manifest::Product;
use crate::mysql::wire::Wire;
use crate::mysql::wire::binlog::{AtEnd, BinlogStream, FIRST_EVENT, FilePosition, Next};
use crate::policy::Ack;
use crate::run::Run;

/// How often it is told how far the capture has come.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A commit that waits to hear that we have it does not wait for an event of so many bytes.
const ACK_BEFORE_BYTES: u32 = 1 << 20;

/// Follows a source's server into its spool. Blocks.
///
/// # Errors
/// Those of the server, of the connection, and of the spool. All that came before is durable, whatever the end was.
pub fn follow(capture: &Capture, spool: &Spool, until: Until, run: &Run) -> Result<Followed, CaptureError> {
    let mut wire = capture.server.open_wire(&run.cancel)?;
    let asked = run.now();
    let facts = facts(&mut wire)?;
    let mut follower = Follower::new(capture, spool, &facts, Goal::of(&facts, asked), run);
    let mut begins = start(&spool.chain(), &facts, follower.is_spooled());
    loop {
        match follower.go(wire, begins, until) {
            // What the file itself says is known only now.
            Err(Broken::WentBack) => begins = Start::Epoch(Beginning::WentBack),
            Err(Broken::Error(error)) => return Err(error),
            Ok(()) => return Ok(follower.followed),
        }
        wire = capture.server.open_wire(&run.cancel)?;
    }
}

/// Why a stream ended.
enum Broken {
    Error(CaptureError),
    /// The server's file is not the one that was captured.
    WentBack,
}

impl From<CaptureError> for Broken {
    fn from(error: CaptureError) -> Self {
        Self::Error(error)
    }
}

struct Follower<'a> {
    capture: &'a Capture,
    spool: &'a Spool,
    facts: &'a Facts,
    run: &'a Run,
    /// What the server told that it has, until that has come.
    goal: Option<Goal>,
    asker: Asker,
    tail: Option<Tail>,
    /// The stream is of the file that was captured.
    is_same: bool,
    /// Where the stream stands in its file. Behind the tail's end only where a file had to be asked for from its beginning.
    offset: u64,
    due: Due,
    /// The last place for which the server waits to hear that we have it for good.
    owed: Option<FilePosition>,
    /// Whether commits wait for us, where the policy wants that.
    watch: Option<Watch>,
    told: Option<Instant>,
    followed: Followed,
}

impl<'a> Follower<'a> {
    fn new(capture: &'a Capture, spool: &'a Spool, facts: &'a Facts, goal: Option<Goal>, run: &'a Run) -> Self {
        Self {
            capture,
            spool,
            facts,
            run,
            goal,
            asker: Asker::new(),
            tail: None,
            is_same: false,
            offset: 0,
            due: Due::new(),
            owed: None,
            watch: None,
            told: None,
            followed: Followed::default(),
        }
    }

    fn product(&self) -> Product {
        self.facts.origin.product
    }

    fn is_spooled(&self) -> bool {
        let chain = self.spool.chain();
        let last = chain.segments().last().map(|(epoch, segment)| self.spool.file(epoch, &segment.file));
        last.is_some_and(|path| path.exists())
    }

    /// Streams from a start on, and keeps all that came whole, however it ended.
    fn go(&mut self, wire: Wire, begins: Start, until: Until) -> Result<(), Broken> {
        (self.tail, self.is_same, self.owed) = (None, false, None);
        let from = self.begin(begins)?;
        let is_wanted = self.capture.plan.ack == Ack::Spool && until == Until::Stopped;
        self.watch = is_wanted.then(|| Watch::begin(self.facts.semi_sync().as_ref(), &self.capture.source, self.run));
        let at_end = if until == Until::Stopped { AtEnd::Wait } else { AtEnd::Stop };
        let stream = wire.stream_binlog(self.product(), &from, &self.capture.replica(until), at_end);
        let ended =
            stream.map_err(CaptureError::Stream).map_err(Broken::from).and_then(|stream| self.take_all(stream, until));
        let kept = self.keep();
        match ended {
            Err(Broken::Error(error)) if error.is_stop() && until == Until::Stopped => Ok(kept?),
            Err(broken) => Err(broken),
            Ok(()) => Ok(kept?),
        }
    }

    /// Prepares the chain and the segment, and returns from where to ask.
    fn begin(&mut self, begins: Start) -> Result<FilePosition, Broken> {
        match begins {
            Start::Epoch(why) => {
                let from = first_file(self.capture, self.facts, self.run)?;
                self.begin_epoch(why)?;
                Ok(from)
            }
            Start::Next(from) => {
                self.spool.change(|chain| {
                    let last = chain.epochs.last_mut().and_then(|epoch| epoch.segments.last_mut());
                    if let Some(segment) = last {
                        segment.is_closed = true;
                    }
                })?;
                Ok(from)
            }
            Start::Within(from) => self.resume(from),
        }
    }

    fn begin_epoch(&mut self, why: Beginning) -> Result<(), CaptureError> {
        let (now, origin): (_, Origin) = (self.run.now(), self.facts.origin.clone());
        let number = self.spool.change(|chain| {
            // One that got no segment tells nothing.
            chain.epochs.retain(|epoch| !epoch.segments.is_empty());
            // Nothing more comes to those before.
            let segments = chain.epochs.iter_mut().flat_map(|epoch| &mut epoch.segments);
            segments.for_each(|segment| segment.is_closed = true);
            let number = chain.epochs.last().map_or(1, |epoch| epoch.number + 1);
            chain.epochs.push(Epoch::new(number, now, why, origin));
            number
        })?;
        self.followed.began = Some((number, why));
        self.spool.make_epoch(number)
    }

    /// Opens the newest segment behind its last whole event.
    fn resume(&mut self, from: FilePosition) -> Result<FilePosition, Broken> {
        let (number, carried) = self.carried(&from.file)?;
        let path = self.spool.file(number, &from.file);
        let tail = if path.exists() {
            let durable = self.spool.chain().segment(number, &from.file).map_or(0, |segment| segment.bytes);
            Tail::resume(&path, &from.file, self.spool.scan(number, &from.file, carried)?, durable)?
        } else {
            self.spool.make_epoch(number)?;
            Tail::create(&path, &from.file, carried)?
        };
        // A file begins with its format event: before that is there, there is nothing to go on from. Past 4 GiB the protocol has
        // no words for an offset: then all comes again, and what is there already is passed over.
        let is_asked = tail.scan.format.is_some() && u32::try_from(tail.scan.bytes).is_ok();
        let offset = if is_asked { tail.scan.bytes } else { FIRST_EVENT };
        self.tail = Some(tail);
        // Who made the file may have died before its name was durable.
        self.spool.sync_names(number)?;
        self.settle()?;
        if self.prove()? { Ok(FilePosition { file: from.file, offset }) } else { Err(Broken::WentBack) }
    }

    /// Returns the epoch at hand, and what the server had executed before a file of it, as far as the segments tell.
    fn carried(&self, file: &str) -> Result<(u32, Executed), CaptureError> {
        let chain = self.spool.chain();
        let Some(epoch) = chain.epochs.last() else { return Err(CaptureError::NoFile) };
        let before = epoch.segments.iter().take_while(|segment| segment.file != file).last();
        let executed = before.map(|segment| segment.executed(self.product())).transpose()?;
        Ok((epoch.number, executed.unwrap_or_else(|| Executed::new(self.product()))))
    }

    fn take_all(&mut self, mut stream: BinlogStream, until: Until) -> Result<(), Broken> {
        loop {
            // Read once for each event: it would else cost as much as the event.
            let now = Instant::now();
            if self.is_unsettled() && self.is_due(now, &mut stream)? {
                self.acknowledge(&mut stream)?;
            }
            if until == Until::Stopped
                && let Some(told) = self.asker.turn(now, &self.capture.server, self.run)
            {
                self.learn(told)?;
            }
            let tail = self.tail.as_ref().filter(|_| self.is_same);
            if let Some(goal) = self.goal.take_if(|goal| goal.is_reached(tail)) {
                self.settle()?;
                self.note_as_of(goal.moment);
                if until != Until::Stopped {
                    return Ok(());
                }
            }
            self.tell(now)?;
            match stream.next().map_err(CaptureError::Stream)? {
                Next::File(at) if self.is_enough(&at, until) => {
                    self.followed.has_more = true;
                    return Ok(self.close()?);
                }
                Next::File(at) => self.enter(&at)?,
                Next::Format(header) => self.check_same(header)?,
                Next::Event(header) => {
                    if self.is_unsettled() && header.length >= ACK_BEFORE_BYTES {
                        self.acknowledge(&mut stream)?;
                    }
                    self.event(header, &mut stream)?;
                }
                Next::Heartbeat => {}
                // That a server ends the stream proves nothing of what it has: it may be going down.
                Next::End => return Err(CaptureError::Ended.into()),
            }
            if stream.wants_ack() {
                self.owed =
                    self.tail.as_ref().map(|tail| FilePosition { file: tail.name().to_owned(), offset: self.offset });
            }
        }
    }

    /// Makes what came durable, and tells the server so where it waits for that, in one word for all of it.
    fn acknowledge(&mut self, stream: &mut BinlogStream) -> Result<(), CaptureError> {
        self.settle()?;
        match self.owed.take() {
            Some(owed) => stream.acknowledge(&owed).map_err(CaptureError::Stream),
            None => Ok(()),
        }
    }

    /// Tells whether what came is to be sealed before a file is begun.
    fn is_enough(&self, next: &FilePosition, until: Until) -> bool {
        let is_other = self.tail.as_ref().is_some_and(|tail| tail.name() != next.file);
        is_other && matches!(until, Until::Now { bytes_max } if self.followed.bytes >= bytes_max)
    }

    /// Takes what the server told of itself beside the stream.
    fn learn(&mut self, told: Told) -> Result<(), CaptureError> {
        let facts = match told.facts {
            Ok(facts) => facts,
            // Whether the server is there, its stream tells; this question comes again.
            Err(error) => {
                self.run.events.detail(format!("{}: {}", self.capture.source, human::chain(&error)));
                return Ok(());
            }
        };
        if facts.origin.server != self.facts.origin.server {
            return Err(CaptureError::OtherServer);
        }
        if self.goal.is_none() {
            self.goal = Goal::of(&facts, told.asked);
        }
        match &mut self.watch {
            Some(watch) => watch.look(facts.semi_sync().as_ref(), &self.capture.source, self.run),
            None => Ok(()),
        }
    }

    /// Goes over to a file: the one at hand, or another that begins.
    fn enter(&mut self, at: &FilePosition) -> Result<(), CaptureError> {
        self.offset = at.offset;
        if self.tail.as_ref().is_some_and(|tail| tail.name() == at.file) {
            return Ok(());
        }
        self.close()?;
        let (number, carried) = self.carried(&at.file)?;
        let mut tail = Tail::create(&self.spool.file(number, &at.file), &at.file, carried)?;
        // What the chain names is there, for whoever seals meanwhile.
        tail.sync()?;
        let segment = tail.scan.segment(&at.file, false);
        self.tail = Some(tail);
        self.spool.change(|chain| {
            if let Some(epoch) = chain.epochs.last_mut() {
                epoch.segments.retain(|other| other.file != segment.file);
                epoch.segments.push(segment);
            }
        })?;
        self.spool.sync_names(number)
    }

    /// Ends the segment at hand: the server goes on with another file.
    fn close(&mut self) -> Result<(), CaptureError> {
        self.settle()?;
        let Some(tail) = self.tail.take() else { return Ok(()) };
        let closed = tail.scan.segment(tail.name(), true);
        self.spool.change(|chain| put(chain.epochs.last_mut(), closed))
    }

    fn event(&mut self, header: Header, stream: &mut BinlogStream) -> Result<(), Broken> {
        let Some(tail) = &mut self.tail else { return Err(CaptureError::NoFile.into()) };
        self.is_same = true;
        let offset = self.offset;
        self.offset += u64::from(header.length);
        if offset < tail.scan.bytes {
            return Ok(());
        }
        let knew_before = tail.scan.before.is_some();
        tail.begin(header)?;
        while let Some(part) = stream.part().map_err(CaptureError::Stream)? {
            tail.write(part)?;
        }
        tail.end()?;
        self.followed.bytes += u64::from(header.length);
        let knows_before = tail.scan.before.is_some();
        if knows_before && !knew_before && !self.prove()? {
            return Err(Broken::WentBack);
        }
        Ok(())
    }

    /// Proves that the file at hand follows the one before it, and names what is missing between. Returns false where it cannot
    /// follow it at all.
    fn prove(&mut self) -> Result<bool, CaptureError> {
        let Some(tail) = &self.tail else { return Ok(true) };
        let Some(before) = &tail.scan.before else { return Ok(true) };
        let file = tail.name().to_owned();
        let mut chain = self.spool.chain();
        let Some(epoch) = chain.epochs.last_mut() else { return Ok(true) };
        epoch.segments.retain(|segment| segment.file != file);
        let Some(last) = epoch.segments.last() else { return Ok(true) };
        let executed = last.executed(self.facts.origin.product)?;
        if went_back(&executed, before) {
            self.spool.change(|chain| {
                let epoch = chain.epochs.last_mut().into_iter();
                epoch.for_each(|epoch| epoch.segments.retain(|segment| segment.file != file));
            })?;
            return Ok(false);
        }
        let missing = missing(&executed, before);
        let is_gap = missing.is_some() || (!self.facts.names_all_by_gtid() && !is_next(&last.file, &file));
        if is_gap && epoch.gaps.iter().all(|gap| gap.before != file) {
            let gap = Gap { after: last.file.clone(), before: file, missing };
            self.followed.gaps.push(gap.clone());
            self.spool
                .change(|chain| chain.epochs.last_mut().into_iter().for_each(|epoch| epoch.gaps.push(gap.clone())))?;
        }
        Ok(true)
    }

    /// Holds the file that goes on against the one that was captured: after a reset there may be another of the same name.
    fn check_same(&mut self, header: Header) -> Result<(), Broken> {
        self.is_same = self.tail.as_ref().is_none_or(|tail| tail.scan.created() == header.timestamp);
        if self.is_same { Ok(()) } else { Err(Broken::WentBack) }
    }

    /// Tells whether something is not durable yet, or not acknowledged.
    fn is_unsettled(&self) -> bool {
        self.owed.is_some() || self.tail.as_ref().is_some_and(|tail| tail.is_dirty)
    }

    fn is_due(&mut self, now: Instant, stream: &mut BinlogStream) -> Result<bool, CaptureError> {
        self.due.is_now(now, self.owed.is_some(), stream).map_err(CaptureError::Stream)
    }

    /// Makes what came durable, and says so in the chain.
    fn settle(&mut self) -> Result<(), CaptureError> {
        self.due.settled();
        let Some(tail) = &mut self.tail else { return Ok(()) };
        tail.sync()?;
        let segment = tail.scan.segment(tail.name(), false);
        self.spool.note(|chain| put(chain.epochs.last_mut(), segment));
        Ok(())
    }

    fn note_as_of(&self, moment: DateTime<Utc>) {
        let now = self.run.now();
        self.spool.note(|chain| chain.note_as_of(moment, now));
    }

    /// Cuts off what did not come whole, and makes the rest durable.
    fn keep(&mut self) -> Result<(), CaptureError> {
        if let Some(tail) = &mut self.tail {
            tail.cut()?;
        }
        self.settle()?;
        self.tail.iter().for_each(|tail| self.spool.remember(tail.name(), tail.scan.clone()));
        self.spool.change(|_| ())?;
        self.followed.as_of = self.spool.chain().as_of;
        self.told = None;
        self.tell(Instant::now())
    }

    fn tell(&mut self, now: Instant) -> Result<(), CaptureError> {
        if self.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            return Ok(());
        }
        self.told = Some(now);
        // As far as it is durable.
        let chain = self.spool.chain();
        let newest = chain.epochs.last().and_then(|epoch| epoch.segments.last());
        let (file, offset) = newest.map_or((String::new(), 0), |segment| (segment.file.clone(), segment.bytes));
        let as_of = chain.as_of;
        self.spool.tell(|progress| {
            (progress.as_of, progress.file, progress.offset, progress.error) = (as_of, file, offset, None);
            progress.commits_wait = self.watch.as_ref().map(|watch| watch.told().clone());
        })
    }
}

/// Puts what is known of a segment in its place.
fn put(epoch: Option<&mut Epoch>, segment: Segment) {
    let place = epoch.and_then(|epoch| epoch.segments.iter_mut().find(|other| other.file == segment.file));
    if let Some(place) = place {
        *place = segment;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
