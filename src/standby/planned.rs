//! What a promotion has to replay: the segments behind what the standby is known to have applied.

use chrono::{DateTime, Utc};

use crate::mysql::gtid::Executed;
use crate::replay::segments::{self, Segment};
use crate::replay::{self, FIRST, Point, ReplayError, ReplayPlan, Start};
use crate::run::Run;
use crate::standby::progress::Progress;
use crate::standby::reached::Reached;
use crate::standby::shelf::{Shelf, whole_behind};
use crate::standby::way::{Way, holds};
use crate::standby::{Standby, StandbyError};

/// What is asked of a plan, and of whom.
pub(super) struct Asked<'a> {
    pub(super) epoch: u32,
    pub(super) executed: &'a Executed,
    pub(super) point: &'a Point,
    pub(super) up_to_gap: bool,
}

/// An earlier plan, and up to where it has read.
pub(super) type Earlier = (ReplayPlan, Reached);

/// What was planned.
pub(super) struct Planned {
    pub(super) plan: ReplayPlan,
    /// Up to where that has read.
    pub(super) reached: Reached,
    pub(super) as_of: Option<DateTime<Utc>>,
}

impl Standby<'_> {
    /// Returns up to where whoever serves the standby knows that it has applied everything.
    pub(super) fn reached(&self, mark: &replay::Standby, executed: &Executed) -> Result<Option<Reached>, StandbyError> {
        let Some(reached) = Progress::read(self, mark)?.and_then(|told| told.reached) else { return Ok(None) };
        let is_applied = holds(executed, &reached.executed(executed.product())?);
        Ok(Some(reached).filter(|_| is_applied))
    }

    /// Plans with what lies behind a place that is known; `None` where nothing leads on from there.
    pub(super) async fn plan_behind(
        &self,
        shelf: &mut Shelf<'_>,
        asked: &Asked<'_>,
        earlier: Option<ReplayPlan>,
        reached: Option<Reached>,
        run: &Run,
    ) -> Result<Option<Planned>, StandbyError> {
        let Some(reached) = reached else { return Ok(None) };
        let way = Way::new(&shelf.spooled()?, asked.epoch, asked.executed)?;
        let Some(first) = way.segments.iter().position(|segment| segment.file == reached.place.file) else {
            return Ok(None);
        };
        let mut found = found(shelf, &way, first, asked.epoch, run).await?;
        // The chain is written when a file begins, and says nothing of what came to it since.
        if let Some(newest) =
            found.segments.last_mut().filter(|_| way.segments.last().is_some_and(|last| !last.is_closed))
        {
            let from = if way.segments.len() == first + 1 { reached.place.offset } else { FIRST };
            let bytes = shelf.spooled_bytes(asked.epoch, &newest.name).max(newest.bytes);
            let segment = Segment { bytes, ..newest.clone() };
            let whole = tokio::task::spawn_blocking(move || whole_behind(&segment, from));
            let whole = whole.await.map_err(|error| StandbyError::Thread(error.to_string()))??;
            // What the chain vouches for is no remainder of a crash: it is damaged, and whoever looks at all of it says so.
            if bytes < from || whole < newest.bytes {
                return Ok(None);
            }
            newest.bytes = whole;
        }
        let executed = reached.executed(way.product)?;
        let mut known = way.known()?;
        known.add_all(&executed);
        let start = Start::behind(reached.place, executed);
        let plan = plan(move |_| Ok(start), found, asked, run).await?;
        let last = plan.last.clone().or(reached.last);
        let reached = Reached::new(plan.end.clone(), &plan.known, last);
        known.add_all(&plan.known);
        let plan = match earlier {
            Some(earlier) => earlier.followed_by(plan),
            None => plan,
        };
        Ok(Some(Planned::new(plan, reached, known, way.as_of)))
    }

    /// Plans with all that is still needed, from the beginning of its first file on.
    pub(super) async fn plan_whole(
        &self,
        shelf: &mut Shelf<'_>,
        asked: &Asked<'_>,
        run: &Run,
    ) -> Result<Planned, StandbyError> {
        let way = Way::new(&shelf.newest(run).await?, asked.epoch, asked.executed)?;
        let found = found(shelf, &way, 0, asked.epoch, run).await?;
        let before = way.segments.first().and_then(|first| first.before.as_deref()).unwrap_or_default();
        let (product, before) = (way.product, Executed::parse(way.product, before)?);
        let plan = plan(move |first| Start::at_head(product, first, &before), found, asked, run).await?;
        let reached = Reached::of(&plan);
        Ok(Planned::new(plan, reached, way.known()?, way.as_of))
    }
}

impl Planned {
    fn new(plan: ReplayPlan, reached: Reached, known: Executed, as_of: Option<DateTime<Utc>>) -> Self {
        let last = plan.last.or_else(|| reached.last.clone());
        // A standby goes by GTIDs, also where none has come since.
        Self { plan: ReplayPlan { has_gtids: true, known, last, ..plan }, reached, as_of }
    }
}

/// Brings the segments of a way from one of them on.
async fn found(
    shelf: &mut Shelf<'_>,
    way: &Way,
    first: usize,
    epoch: u32,
    run: &Run,
) -> Result<segments::Run, StandbyError> {
    let gap = way.end.as_ref().map(|end| end.between.clone());
    let mut found = segments::Run { gap, as_of: way.as_of, ..Default::default() };
    for captured in &way.segments[first..] {
        let segment = shelf.segment(epoch, captured, run).await?;
        // Behind it an event may stand that is not whole.
        found.segments.push(Segment { bytes: captured.bytes, ..segment });
    }
    Ok(found)
}

async fn plan(
    start: impl FnOnce(&Segment) -> Result<Start, ReplayError> + Send + 'static,
    found: segments::Run,
    asked: &Asked<'_>,
    run: &Run,
) -> Result<ReplayPlan, StandbyError> {
    let (point, up_to_gap, run) = (asked.point.clone(), asked.up_to_gap, run.clone());
    let planned = tokio::task::spawn_blocking(move || {
        let start = start(found.segments.first().ok_or(ReplayError::NoPosition)?)?;
        ReplayPlan::new(&start, &found, &point, up_to_gap, &run)
    });
    Ok(planned.await.map_err(|error| StandbyError::Thread(error.to_string()))??)
}
