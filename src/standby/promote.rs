//! The promotion: on to a recovery point, proved, and open to everybody's writes.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::mysql::gtid::Executed;
use crate::mysql::manifest::Product;
use crate::replay::segments::{self, Segment};
use crate::replay::{self, Mark, Point, Record, ReplayError, ReplayPlan, Start, Target};
use crate::run::Run;
use crate::standby::progress::Progress;
use crate::standby::shelf::Shelf;
use crate::standby::way::{Way, has};
use crate::standby::{Standby, StandbyError};

/// What a promotion will do.
pub struct Promotion<'a> {
    pub plan: ReplayPlan,
    /// What the standby had executed as this was planned.
    pub executed: Executed,
    /// All that the source had committed by then is captured; `None`: nobody knows.
    pub as_of: Option<DateTime<Utc>>,
    target: Target,
    standby: replay::Standby,
    /// Holds the binlogs for as long as they are served.
    shelf: Shelf<'a>,
}

/// What a promotion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// From the begin of the promotion to the server that everybody can write to.
    pub downtime: Duration,
    /// The last transaction that it holds; `None`: none came since the beginning of the first segment that was needed.
    pub last: Option<Mark>,
    /// All that the source had committed by then is there; `None`: nobody knows, or the point was another than the newest.
    pub as_of: Option<DateTime<Utc>>,
    /// What it has executed, as it says.
    pub executed: String,
    /// Transactions that were prepared (XA) and neither committed nor rolled back.
    pub prepared: u64,
    /// Events that came by the binlogs: a replica switches them off.
    pub events_off: Vec<String>,
}

impl Promotion<'_> {
    /// Tells whether the standby stands on the way to the point, as [`Standby::carry_out`] will ask it.
    ///
    /// # Errors
    /// [`StandbyError::Replay`] where it does not.
    pub async fn may_reach(&self) -> Result<(), StandbyError> {
        Ok(self.target.may_reach(&self.plan).await?)
    }
}

impl<'a> Standby<'a> {
    /// Promotes the standby to a point: nothing is lost before it, and nothing behind it comes. `began` is when the operator said so.
    /// Broken off anywhere, the same call goes on.
    ///
    /// # Errors
    /// [`StandbyError::Passed`] where it has applied more than that; nothing is changed then.
    pub async fn promote(
        &self,
        point: &Point,
        up_to_gap: bool,
        began: Instant,
        run: &Run,
    ) -> Result<Promoted, StandbyError> {
        let promotion = self.plan_promotion(point, up_to_gap, run).await?;
        self.carry_out(promotion, point, up_to_gap, began, run).await
    }

    /// Plans a promotion. Changes nothing.
    ///
    /// # Errors
    /// Those of [`Standby::promote`].
    pub async fn plan_promotion(
        &self,
        point: &Point,
        up_to_gap: bool,
        run: &Run,
    ) -> Result<Promotion<'a>, StandbyError> {
        self.plan_on(Shelf::new(self.policy, self.source, run)?, point, up_to_gap, run).await
    }

    /// Plans a promotion with what is on a shelf.
    async fn plan_on(
        &self,
        mut shelf: Shelf<'a>,
        point: &Point,
        up_to_gap: bool,
        run: &Run,
    ) -> Result<Promotion<'a>, StandbyError> {
        let chain = shelf.newest(run).await?;
        let product = chain.epochs.last().map_or(Product::MySql, |epoch| epoch.server.product);
        let target = self.target_of(product);
        let record = target.record().await?;
        let standby = self.own(record.as_ref())?.clone();
        let executed = target.executed().await?;
        let way = Way::new(&chain, standby.epoch, &executed)?;
        let known = way.known()?;
        let as_of = way.as_of;
        let mut found = segments::Run { gap: way.end.map(|end| end.between), as_of, ..Default::default() };
        for captured in &way.segments {
            let segment = shelf.segment(standby.epoch, captured, run).await?;
            // Behind it an event may stand that is not whole.
            found.segments.push(Segment { bytes: captured.bytes, ..segment });
        }
        let before = way.segments.first().and_then(|first| first.before.as_deref()).unwrap_or_default();
        let before = Executed::parse(product, before)?;
        let point = point_of(record.as_ref(), point);
        let plan = plan(product, before, found, point.clone(), up_to_gap, run).await;
        // A standby goes by GTIDs, also where none has come since.
        let plan = plan.map(|plan| ReplayPlan { has_gtids: true, known, ..plan });
        let passed = || StandbyError::Passed { point: point.to_string(), executed: executed.to_string() };
        match plan {
            Ok(plan) if plan.is_exceeded_by(&executed) => Err(passed()),
            Ok(plan) => Ok(Promotion { plan, executed, as_of, target, standby, shelf }),
            // It lies before all that is still needed.
            Err(StandbyError::Replay(ReplayError::NoSuchTransaction { .. } | ReplayError::NoBoundary { .. }))
                if lies_within(&executed, &point) =>
            {
                Err(passed())
            }
            Err(error) => Err(error),
        }
    }

    /// Carries a promotion out.
    ///
    /// # Errors
    /// Those of [`Standby::promote`].
    pub async fn carry_out(
        &self,
        promotion: Promotion<'a>,
        point: &Point,
        up_to_gap: bool,
        began: Instant,
        run: &Run,
    ) -> Result<Promoted, StandbyError> {
        let mut standing = promotion.target.take_over().await?;
        // The stream and the capture went on until now.
        let is_newest = *point == Point::Latest;
        let promotion = if is_newest { self.plan_on(promotion.shelf, point, up_to_gap, run).await? } else { promotion };
        let Promotion { plan, as_of, standby, shelf: _shelf, .. } = promotion;
        let executed = standing.executed().await?;
        if plan.is_exceeded_by(&executed) {
            return Err(StandbyError::Passed { point: point.to_string(), executed: executed.to_string() });
        }
        standing.may_reach(&plan).await?;
        let replayed = standing.promote(&plan, run).await?;
        let downtime = began.elapsed();
        Progress::remove(self, &standby);
        let (prepared, events_off) = (replayed.prepared, replayed.events_off);
        let as_of = as_of.filter(|_| is_newest && !plan.falls_short);
        Ok(Promoted { downtime, last: plan.last, as_of, executed: replayed.executed, prepared, events_off })
    }
}

/// Returns the point to go to. A promotion that has got there goes on with what it has applied.
fn point_of(record: Option<&Record>, asked: &Point) -> Point {
    match record.filter(|record| record.is_over) {
        Some(record) => Point::Position(record.end.clone()),
        None => asked.clone(),
    }
}

async fn plan(
    product: Product,
    before: Executed,
    found: segments::Run,
    point: Point,
    up_to_gap: bool,
    run: &Run,
) -> Result<ReplayPlan, StandbyError> {
    let run = run.clone();
    let planned = tokio::task::spawn_blocking(move || {
        let first = found.segments.first().ok_or(ReplayError::NoPosition)?;
        let start = Start::at_head(product, first, &before)?;
        ReplayPlan::new(&start, &found, &point, up_to_gap, &run)
    });
    Ok(planned.await.map_err(|error| StandbyError::Thread(error.to_string()))??)
}

/// Tells whether a point names a transaction that is executed, or a place.
fn lies_within(executed: &Executed, point: &Point) -> bool {
    match point {
        Point::Gtid(gtid) | Point::Before(gtid) => has(executed, gtid),
        Point::Position(_) => true,
        Point::Latest | Point::At(_) => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn mysql(text: &str) -> Executed {
        Executed::parse(Product::MySql, text).unwrap()
    }

    fn mariadb(text: &str) -> Executed {
        Executed::parse(Product::MariaDb, text).unwrap()
    }

    #[test]
    fn a_point_before_all_that_is_needed_lies_within_what_is_executed() {
        let before = |gtid: &str| Point::Before(gtid.parse().unwrap());
        assert!(lies_within(&mariadb("0-2-9"), &before("0-1-9")) && !lies_within(&mariadb("0-2-9"), &before("0-1-10")));
        let set = mysql(&format!("{SERVER}:1-7"));
        assert!(lies_within(&set, &before(&format!("{SERVER}:7"))));
        assert!(!lies_within(&set, &before(&format!("{SERVER}:8"))));
        assert!(!lies_within(&set, &Point::Latest));
    }
}
