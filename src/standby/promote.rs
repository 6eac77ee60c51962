//! The promotion: on to a recovery point, proved, and open to everybody's writes.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::mysql::gtid::Executed;
use crate::replay::{Mark, Point, ReplayError, ReplayPlan, Replayed, Target};
use crate::run::{Run, Stopped};
use crate::standby::planned::{Asked, Earlier, Planned};
use crate::standby::progress::Progress;
use crate::standby::reached::Reached;
use crate::standby::shelf::Shelf;
use crate::standby::way::{has, is_as_far_as};
use crate::standby::{Standby, StandbyError};

/// What a promotion will do.
pub struct Promotion<'a> {
    pub plan: ReplayPlan,
    /// What the standby had executed as this was planned.
    pub executed: Executed,
    /// All that the source had committed by then is captured; `None`: nobody knows.
    pub as_of: Option<DateTime<Utc>>,
    /// The standby holds more than what is left of the capture: it is the newest that there is, and opened as it is.
    pub is_ahead: bool,
    /// Up to where this has read.
    reached: Reached,
    target: Target,
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
        if self.is_ahead { Ok(()) } else { Ok(self.target.may_reach(&self.plan).await?) }
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
        if let Some(promoted) = self.end_promotion(began).await? {
            return Ok(promoted);
        }
        let promotion = self.plan_promotion(point, up_to_gap, run).await?;
        self.carry_out(promotion, point, up_to_gap, began, run).await
    }

    /// Tells whether a promotion was broken off when it had reached its point: what is left is to open the standby.
    ///
    /// # Errors
    /// [`StandbyError`] where the server cannot be asked, or is no standby of the source.
    pub async fn has_arrived(&self) -> Result<bool, StandbyError> {
        let record = self.target().await?.record().await?;
        self.own(record.as_ref())?;
        Ok(record.is_some_and(|record| record.is_over))
    }

    /// Does what is left of a promotion that was broken off when it had reached its point; `None` where there is none.
    ///
    /// # Errors
    /// [`StandbyError`] where the server refuses, or is no standby of the source.
    pub async fn end_promotion(&self, began: Instant) -> Result<Option<Promoted>, StandbyError> {
        if !self.has_arrived().await? {
            return Ok(None);
        }
        let mut standing = self.target().await?.take_over().await?;
        let record = standing.record().await?;
        self.own(record.as_ref())?;
        let Some(record) = record.filter(|record| record.is_over) else { return Ok(None) };
        let replayed = standing.end_promotion(&record).await?;
        Progress::remove_former(self, None);
        Ok(Some(Promoted::new(began, replayed)))
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
        self.plan_on(Shelf::new(self.policy, self.source, run)?, point, up_to_gap, None, run).await
    }

    /// Plans a promotion with what is on a shelf; `earlier`: as far as it was planned before.
    async fn plan_on(
        &self,
        mut shelf: Shelf<'a>,
        point: &Point,
        up_to_gap: bool,
        earlier: Option<Earlier>,
        run: &Run,
    ) -> Result<Promotion<'a>, StandbyError> {
        let target = self.target().await?;
        target.may_be_served().await?;
        let record = target.record().await?;
        let standby = self.own(record.as_ref())?.clone();
        let (executed, own) = (target.executed().await?, target.own_uuid().await?);
        let asked = Asked { epoch: standby.epoch, executed: &executed, point, up_to_gap };
        let (earlier, reached) = match earlier {
            Some((plan, reached)) => (Some(plan), Some(reached)),
            // A point may lie before what is applied: then that must be looked through.
            // What is noted of it spares time, and no more.
            None if *point == Point::Latest => (None, self.reached(&standby, &executed).ok().flatten()),
            None => (None, None),
        };
        let behind = self.plan_behind(&mut shelf, &asked, earlier, reached, run).await;
        let planned = if let Ok(Some(planned)) = behind {
            Ok(planned)
        } else {
            // What does not lead on from there is looked at from the beginning, which says why.
            run.check()?;
            self.plan_whole(&mut shelf, &asked, run).await
        };
        let passed = || StandbyError::Passed { point: point.to_string(), executed: executed.to_string() };
        match planned {
            Ok(Planned { plan, reached, as_of }) if !plan.is_exceeded_by(&executed, own) => {
                Ok(Promotion { plan, executed, as_of, is_ahead: false, reached, target, shelf })
            }
            Ok(Planned { plan, reached, .. }) if is_newest(point, &executed, &plan.executed) => {
                let plan = ReplayPlan { executed: executed.clone(), ..plan };
                Ok(Promotion { plan, executed, as_of: None, is_ahead: true, reached, target, shelf })
            }
            Ok(_) => Err(passed()),
            // It lies before all that is still needed.
            Err(StandbyError::Replay(ReplayError::NoSuchTransaction { .. } | ReplayError::NoBoundary { .. }))
                if lies_within(&executed, point) =>
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
        let taken = run.cancel.run_until_cancelled(promotion.target.take_over()).await;
        let mut standing = taken.ok_or(Stopped)??;
        // The stream and the capture went on until now.
        let is_latest = *point == Point::Latest;
        let promotion = if is_latest {
            let Promotion { plan, reached, is_ahead, shelf, .. } = promotion;
            let earlier = Some((plan, reached)).filter(|(plan, _)| !is_ahead && !plan.falls_short);
            self.plan_on(shelf, point, up_to_gap, earlier, run).await?
        } else {
            promotion
        };
        let Promotion { plan, as_of, is_ahead, target, shelf: _shelf, .. } = promotion;
        let executed = standing.executed().await?;
        if plan.is_exceeded_by(&executed, target.own_uuid().await?) {
            return Err(StandbyError::Passed { point: point.to_string(), executed: executed.to_string() });
        }
        if !is_ahead {
            standing.may_reach(&plan).await?;
        }
        let replayed = standing.promote(&plan, run).await?;
        Progress::remove_former(self, None);
        let as_of = as_of.filter(|_| is_latest && !plan.falls_short);
        Ok(Promoted { last: plan.last, as_of, ..Promoted::new(began, replayed) })
    }
}

impl Promoted {
    fn new(began: Instant, replayed: Replayed) -> Self {
        let Replayed { executed, prepared, events_off, .. } = replayed;
        Self { downtime: began.elapsed(), last: None, as_of: None, executed, prepared, events_off }
    }
}

/// Tells whether a standby that holds more than is left of the capture is what is asked for: it has all of that, and nothing is to be
/// left out.
fn is_newest(point: &Point, executed: &Executed, planned: &Executed) -> bool {
    *point == Point::Latest && is_as_far_as(executed, planned)
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
    use crate::mysql::manifest::Product;

    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn mysql(text: &str) -> Executed {
        Executed::parse(Product::MySql, text).unwrap()
    }

    fn mariadb(text: &str) -> Executed {
        Executed::parse(Product::MariaDb, text).unwrap()
    }

    #[test]
    fn a_standby_that_holds_more_than_is_left_of_the_capture_is_the_newest_and_past_all_other_points() {
        let (executed, planned) = (mysql(&format!("{SERVER}:1-9")), mysql(&format!("{SERVER}:1-7")));
        assert!(is_newest(&Point::Latest, &executed, &planned));
        assert!(!is_newest(&Point::Before(format!("{SERVER}:8").parse().unwrap()), &executed, &planned));
        assert!(!is_newest(&Point::Latest, &mysql(&format!("{SERVER}:1-6:9")), &planned), "it lacks one");
        assert!(is_newest(&Point::Latest, &mariadb("0-1-9,1-1-2"), &mariadb("0-1-7,1-1-2")));
        assert!(
            !is_newest(&Point::Latest, &mariadb("0-1-9,1-1-1"), &mariadb("0-1-7,1-1-2")),
            "it lacks one of a domain"
        );
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
