//! Whether a verb is due now, and how many of its runs were missed.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::schedule::cron::Cron;

/// What becomes of runs that were missed while the machine was off or the run failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// Missed runs are made up for by one.
    #[default]
    One,
    /// Missed runs are left out.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    NotDue {
        /// `None`: it never fires again.
        next: Option<DateTime<Utc>>,
    },
    Due {
        /// The latest time that it should have run at.
        scheduled_at: DateTime<Utc>,
        /// How many earlier times were missed since the last success; counted up to [`MISSED_MAX`].
        missed: u32,
    },
}

/// A count that says "for ever so long" as well as the true one would.
pub const MISSED_MAX: u32 = 10_000;

/// With [`CatchUp::None`] a run may start this late: cron starts within the minute, and a busy machine in the next.
const GRACE: TimeDelta = TimeDelta::minutes(2);

/// A clock set back by this much (a time server's step, a machine clock kept in local time) is waited out. A stamp further
/// in the future is from a wrong clock and counts as none, or it would stop backups until then.
const STEP_BACK_MAX: TimeDelta = TimeDelta::hours(1);

/// Tells whether a stamp can be of this clock.
pub(super) fn is_sane(stamped: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    stamped - now <= STEP_BACK_MAX
}

/// Tells whether a run is due at `now`.
///
/// `last_success` is when the last run that succeeded *started*: its data is of that moment. `first_seen` is when this
/// machine first knew the policy: times before it were never promised, so they are not missed.
#[must_use]
pub fn due(
    cron: &Cron,
    tz: Tz,
    last_success: Option<DateTime<Utc>>,
    first_seen: DateTime<Utc>,
    now: DateTime<Utc>,
    catch_up: CatchUp,
) -> Due {
    let not_due = Due::NotDue { next: cron.next_after(now, tz) };
    let Some(scheduled_at) = cron.previous_before(now + TimeDelta::nanoseconds(1), tz) else {
        return not_due;
    };
    let is_sane = |time: &DateTime<Utc>| is_sane(*time, now);
    let since = last_success.filter(is_sane).or(Some(first_seen).filter(is_sane));
    let is_late = now - scheduled_at > GRACE;
    match since {
        Some(since) if since >= scheduled_at => not_due,
        _ if is_late && catch_up == CatchUp::None => not_due,
        _ => Due::Due { scheduled_at, missed: since.map_or(0, |since| missed(cron, tz, since, scheduled_at)) },
    }
}

/// Counts the times after `since` and before `until`.
fn missed(cron: &Cron, tz: Tz, since: DateTime<Utc>, until: DateTime<Utc>) -> u32 {
    let mut at = since;
    for count in 0..MISSED_MAX {
        match cron.next_after(at, tz) {
            Some(next) if next < until => at = next,
            _ => return count,
        }
    }
    MISSED_MAX
}
