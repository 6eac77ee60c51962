//! The stream to a standby: what the capture has is served on, as it comes.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::capture::Chain;
use crate::capture::chain::Segment as Captured;
use crate::human;
use crate::mysql::gtid::Executed;
use crate::mysql::manifest::{Position, Product};
use crate::replay::{Feed, Source, Standby as Mark, Standing, Target};
use crate::run::{Run, Stopped};
use crate::standby::progress::Progress;
use crate::standby::reached::Reached;
use crate::standby::shelf::Shelf;
use crate::standby::tide::Tide;
use crate::standby::way::{Way, holds};
use crate::standby::{Ended, Standby, StandbyError};

/// How often it is looked whether more has come.
const POLL: Duration = Duration::from_millis(100);

/// How often the standby is asked how far it is, and the chain read: both cost more than a look at a file's size.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A source or a target that restarts is back within seconds; one that is gone is asked once a minute.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Whoever promotes the standby takes it away without a word, and most are done by then.
const PROMOTION_MAX: Duration = Duration::from_mins(1);

/// A capture that runs brings what the spool lacks within seconds.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Segments that are served and not applied yet. What is brought from the repository takes their room on this machine's disk.
const UNAPPLIED_MAX: usize = 16;

/// Moments whose transactions the standby has not applied yet. A target that is slow needs no more to tell its lag.
const WAITING_MAX: usize = 600;

/// Streams until the run is told to stop, somebody promotes the standby, or nothing leads on. `ready` is called as the stream stands.
pub(super) async fn follow(
    standby: &Standby<'_>,
    target: &Target,
    ready: &(dyn Fn() + Sync),
    run: &Run,
) -> Result<Ended, StandbyError> {
    let (mut wait, mut has_stood, mut broken) = (RETRY_MIN, false, None);
    let mut stood = Stood::default();
    loop {
        stood.is_standing = false;
        let ended = Stream::run(standby, target, &mut stood, ready, run).await;
        has_stood |= stood.is_standing;
        let error = match ended {
            Ok(ended) => return Ok(ended),
            Err(error) if run.cancel.is_cancelled() => return Err(error),
            Err(error) => error,
        };
        let text = human::chain(&error);
        if let Some(mark) = &stood.mark {
            tell_error(standby, mark, &text);
        }
        // What has never stood is the operator's to look at, and what cannot come right by itself, too.
        if error.is_final() || !has_stood {
            return Err(error);
        }
        // A promotion takes seconds.
        if stood.is_standing || matches!(error, StandbyError::Promoting) {
            wait = RETRY_MIN;
        }
        let told = format!("{}: {text}; again in {}", standby.source, human::duration(wait));
        broken = broken.filter(|_| !stood.is_standing).or_else(|| Some(Instant::now()));
        if error.may_be_a_promotion() && broken.is_some_and(|since| since.elapsed() < PROMOTION_MAX) {
            run.events.detail(told);
        } else {
            run.events.warn(told);
        }
        if run.cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return Ok(Ended::Stopped);
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Finds the way on from what a standby has executed. Of a domain of MariaDB that no segment knows, the source may have been told to
/// forget it, or the spool has lost what it once held and was served: that shows once the capture has asked the source again.
async fn way_from(
    shelf: &mut Shelf<'_>,
    epoch: u32,
    executed: &Executed,
    run: &Run,
) -> Result<(Chain, Way), StandbyError> {
    let began = run.now();
    let mut has_told = false;
    loop {
        // All of what the standby was served must be known.
        let chain = shelf.newest(run).await?;
        let way = Way::new(&chain, epoch, executed)?;
        if way.known_of(executed)? == *executed || chain.as_of.is_some_and(|as_of| as_of > began) {
            return Ok((chain, way));
        }
        if !std::mem::replace(&mut has_told, true) {
            tell_that_it_waits(&chain.source, run);
        }
        if run.cancel.run_until_cancelled(tokio::time::sleep(RETRY_MIN)).await.is_none() {
            return Err(Stopped.into());
        }
    }
}

fn tell_that_it_waits(source: &str, run: &Run) {
    run.events
        .warn(format!("{source}: the standby has applied what the spool does not hold: it waits for the capture"));
}

/// Ends a stream whose record is gone: as promoted only where the server is left as a promotion leaves it.
async fn promoted(standby: &Standby<'_>, standing: &mut Standing) -> Result<Ended, StandbyError> {
    if !standing.is_let_go().await? {
        return Err(StandbyError::Lost(standby.source.to_owned()));
    }
    // Whoever has promoted it may have done so on another machine.
    Progress::remove_former(standby, None);
    Ok(Ended::Promoted)
}

fn tell_error(standby: &Standby<'_>, mark: &Mark, text: &str) {
    if let Ok(Some(progress)) = Progress::read(standby, mark) {
        // The error itself is told anyway.
        Progress { error: Some(text.to_owned()), ..progress }.write(standby, mark).ok();
    }
}

/// How far a stream came.
#[derive(Debug, Default)]
struct Stood {
    /// Which standby it was, the last time that it could be asked.
    mark: Option<Mark>,
    is_standing: bool,
}

/// A stream that stands.
struct Stream<'a> {
    standby: &'a Standby<'a>,
    mark: Mark,
    product: Product,
    version: String,
    shelf: Shelf<'a>,
    tide: Tide,
    /// Known, and not looked into yet.
    next: VecDeque<Captured>,
    last_known: String,
    /// Nothing leads on behind those.
    broken: Option<String>,
    /// What the standby has executed once all was applied that had been committed by a moment.
    waiting: VecDeque<(Executed, DateTime<Utc>)>,
    /// How far it is served, which the standby has not been seen to have applied yet.
    served: Option<(Executed, Reached)>,
    progress: Progress,
}

impl<'a> Stream<'a> {
    async fn run(
        standby: &'a Standby<'a>,
        target: &Target,
        stood: &mut Stood,
        ready: &(dyn Fn() + Sync),
        run: &Run,
    ) -> Result<Ended, StandbyError> {
        let mut standing = target.stand().await?;
        let Some(record) = standing.record().await? else { return promoted(standby, &mut standing).await };
        let mark = standby.own(Some(&record))?.clone();
        Progress::remove_former(standby, Some(&mark));
        stood.mark = Some(mark.clone());
        if mark.is_promoting {
            return Err(StandbyError::Promoting);
        }
        // What it had received it may still be applying.
        run.cancel.run_until_cancelled(standing.stop()).await.ok_or(Stopped)??;
        let executed = standing.executed().await?;
        let mut stream = Self::new(standby, mark, &executed, run).await?;
        let feed = stream.first(&executed, run).await?;
        let source = standing.serve(feed, &stream.mark, &stream.version, run).await?;
        standing.follow(&source, &stream.mark).await?;
        stood.is_standing = true;
        ready();
        stream.go_on(&mut standing, &source, run).await
    }

    async fn new(standby: &'a Standby<'a>, mark: Mark, executed: &Executed, run: &Run) -> Result<Self, StandbyError> {
        let mut shelf = Shelf::new(standby.policy, standby.source, run)?;
        shelf.spooled()?;
        let (chain, way) = way_from(&mut shelf, mark.epoch, executed, run).await?;
        let before = Progress::read(standby, &mark)?.filter(|told| told.is_of(executed)).unwrap_or_default();
        let (arrivals, as_of, reached) = (before.arrivals, before.as_of, before.reached);
        let first = way.segments.first().and_then(|first| first.before.as_deref()).unwrap_or_default();
        let tide = Tide::new(standby.delay, arrivals, Executed::parse(way.product, first)?, way.known_of(executed)?);
        let progress = Progress {
            target: standby.server.name(),
            epoch: mark.epoch,
            delay: standby.delay,
            as_of,
            executed: executed.to_string(),
            reached,
            ..Progress::default()
        };
        let (product, version) = (way.product, way.version.clone());
        let mut stream = Self {
            standby,
            mark,
            product,
            version,
            shelf,
            tide,
            next: VecDeque::new(),
            last_known: String::new(),
            broken: None,
            waiting: VecDeque::new(),
            served: None,
            progress,
        };
        stream.take_up(&chain, way)?;
        Ok(stream)
    }

    /// Takes up what is new of the chain. It may have named a file before it was known that this follows nothing.
    fn take_up(&mut self, chain: &Chain, way: Way) -> Result<(), StandbyError> {
        if let Some(name) = self.tide.at_hand() {
            let at_hand = chain.segment(self.mark.epoch, name);
            let at_hand = at_hand.ok_or_else(|| StandbyError::NotNext(name.to_owned()))?;
            if at_hand.is_closed {
                self.tide.close(at_hand.bytes)?;
            }
        }
        self.next.retain(|next| way.segments.iter().any(|segment| segment.file == next.file));
        let known = way.segments.iter().position(|segment| segment.file == self.last_known);
        for segment in &way.segments {
            if let Some(next) = self.next.iter_mut().find(|next| next.file == segment.file) {
                *next = segment.clone();
            }
        }
        let behind = way.segments.iter().skip(known.map_or(0, |known| known + 1));
        let new = behind
            .filter(|segment| !self.tide.has(&segment.file) && self.next.iter().all(|next| next.file != segment.file));
        let new: Vec<Captured> = new.cloned().collect();
        self.next.extend(new);
        if let Some(last) = way.segments.last() {
            self.last_known.clone_from(&last.file);
        }
        self.broken = way.end.map(|end| end.why);
        Ok(())
    }

    /// Looks into the first segments, so that there is something to serve.
    async fn first(&mut self, executed: &Executed, run: &Run) -> Result<Feed, StandbyError> {
        let (mut idle, mut has_told) = (Instant::now(), false);
        loop {
            run.check()?;
            // All that the standby has applied must be served, however much that is.
            let has_risen = self.rise(usize::MAX, run).await?;
            if let Some(feed) = self.feed().filter(|_| self.tide.has_applied()) {
                return Ok(feed);
            }
            if has_risen {
                idle = Instant::now();
                continue;
            }
            let chain = self.shelf.spooled()?;
            let way = Way::new(&chain, self.mark.epoch, executed)?;
            self.take_up(&chain, way)?;
            if let Some(why) = self.broken.clone().filter(|_| self.next.is_empty() && self.tide.is_over()) {
                return Err(self.broken_by(why));
            }
            if idle.elapsed() > IDLE_MAX && !std::mem::replace(&mut has_told, true) {
                tell_that_it_waits(self.standby.source, run);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets through what has come; returns whether something has.
    async fn rise(&mut self, segments_max: usize, run: &Run) -> Result<bool, StandbyError> {
        if self.tide.has_room(segments_max)
            && let Some(next) = self.next.pop_front_if(|next| self.shelf.is_there(self.mark.epoch, next))
        {
            let segment = self.shelf.segment(self.mark.epoch, &next, run).await?;
            self.tide.push(segment, next.is_closed.then_some(next.bytes))?;
        }
        let (mut tide, now) = (self.tide.take(), run.now());
        let risen = tokio::task::spawn_blocking(move || {
            let has_risen = tide.rise(now);
            (tide, has_risen)
        });
        let (tide, has_risen) = risen.await.map_err(|error| StandbyError::Thread(error.to_string()))?;
        self.tide = tide;
        has_risen
    }

    fn feed(&self) -> Option<Feed> {
        let (segments, place) = self.tide.served()?;
        Some(Feed { product: self.product, segments, begin: crate::replay::FIRST, end: place.offset, dumped: None })
    }

    async fn go_on(&mut self, standing: &mut Standing, source: &Source, run: &Run) -> Result<Ended, StandbyError> {
        let mut asked: Option<Instant> = None;
        loop {
            let has_risen = self.rise(UNAPPLIED_MAX, run).await?;
            if has_risen && let Some(feed) = self.feed() {
                source.extend(feed);
            }
            if asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
                asked = Some(Instant::now());
                if let Some(ended) = self.ask(standing, source, run).await? {
                    return Ok(ended);
                }
            }
            let pause = if has_risen { Duration::ZERO } else { POLL };
            if run.cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                if let Err(error) = standing.stop_at_end().await {
                    run.events.warn(format!("{}: {}", self.standby.source, human::chain(&error)));
                }
                return Ok(Ended::Stopped);
            }
        }
    }

    /// Asks the standby how far it is and whether it is one still, and the capture what it has.
    async fn ask(
        &mut self,
        standing: &mut Standing,
        source: &Source,
        run: &Run,
    ) -> Result<Option<Ended>, StandbyError> {
        let Some(record) = standing.record().await? else { return promoted(self.standby, standing).await.map(Some) };
        let mark = self.standby.own(Some(&record))?;
        if mark.server_id != self.mark.server_id {
            return Err(StandbyError::Lost(self.standby.source.to_owned()));
        }
        if mark.is_promoting {
            return Err(StandbyError::Promoting);
        }
        standing.applied(source).await?;
        let executed = standing.executed().await?;
        let chain = self.shelf.spooled()?;
        let way = Way::new(&chain, self.mark.epoch, &executed)?;
        let gone = self.tide.drop_applied(&way.segments);
        if let Some(feed) = self.feed().filter(|_| !gone.is_empty()) {
            source.extend(feed);
            for gone in &gone {
                self.shelf.let_go(gone);
            }
        }
        self.take_up(&chain, way)?;
        self.measure(&executed, chain.as_of, run)?;
        let is_at_end = self.next.is_empty() && self.tide.is_over() && holds(&executed, &self.tide.executed);
        match self.broken.clone().filter(|_| is_at_end) {
            Some(why) => {
                standing.stop().await?;
                Err(self.broken_by(why))
            }
            None => Ok(None),
        }
    }

    fn broken_by(&self, why: String) -> StandbyError {
        StandbyError::Broken { source_name: self.standby.source.to_owned(), why }
    }

    /// Notes what has come by now, and up to when the standby has all that was committed.
    fn measure(&mut self, executed: &Executed, as_of: Option<DateTime<Utc>>, run: &Run) -> Result<(), StandbyError> {
        let as_of = as_of.filter(|_| self.broken.is_none());
        // It was told before the chain was read, and that before the size: both hold it.
        let bytes = self.shelf.spooled_bytes(self.mark.epoch, &self.last_known);
        let newest = Position { file: self.last_known.clone(), offset: bytes };
        self.tide.arrivals.note(&newest, as_of, run.now(), self.standby.delay);
        if let Some((_, place)) = self.tide.served() {
            let mut passed = self.tide.arrivals.forget_before(&place);
            if place == newest {
                passed = passed.max(as_of);
            }
            self.await_applied(passed);
        }
        while self.waiting.front().is_some_and(|(awaited, _)| holds(executed, awaited)) {
            self.progress.as_of = self.waiting.pop_front().map(|(_, as_of)| as_of).max(self.progress.as_of);
        }
        self.note_reached(executed);
        self.progress.executed = executed.to_string();
        self.progress.arrivals.clone_from(&self.tide.arrivals);
        self.progress.told_at = Some(run.now());
        self.progress.write(self.standby, &self.mark)
    }

    /// Notes up to where the standby has applied all that it was served: a promotion reads on from there.
    fn note_reached(&mut self, executed: &Executed) {
        if let Some((_, reached)) = self.served.take_if(|(awaited, _)| holds(executed, awaited)) {
            self.progress.reached = Some(reached);
        }
        if self.served.is_none()
            && let Some((_, place)) = self.tide.served()
            && self.progress.reached.as_ref().is_none_or(|reached| reached.place != place)
        {
            let reached = Reached::new(place, &self.tide.executed, self.tide.last.clone());
            self.served = Some((self.tide.executed.clone(), reached));
        }
    }

    fn await_applied(&mut self, as_of: Option<DateTime<Utc>>) {
        let Some(as_of) = as_of else { return };
        let is_full = self.waiting.len() >= WAITING_MAX;
        match self.waiting.back_mut() {
            Some((awaited, moment)) if *awaited == self.tide.executed => *moment = as_of,
            _ if is_full => {}
            _ => self.waiting.push_back((self.tide.executed.clone(), as_of)),
        }
    }
}
