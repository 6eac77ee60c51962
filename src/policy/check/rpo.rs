//! Whether the schedule can meet the recovery point objective.

use chrono::{DateTime, TimeDelta};

use crate::policy::Policy;
use crate::policy::check::fields::Checker;
use crate::schedule::Cron;

impl Checker<'_> {
    /// What is lost at worst is what was written since the last backup, so the longest stretch between two must not exceed the RPO.
    pub(super) fn rpo(&mut self, policy: &Policy) {
        let Some(rpo) = policy.objectives.rpo else {
            return;
        };
        // A binlog that is captured brings back what came after the dump.
        let mut captures = policy.mysql.values().map(|source| source.binlog.as_ref().map(|plan| plan.interval));
        let is_captured = captures.all(|interval| interval.is_some_and(|interval| interval <= rpo));
        if is_captured && policy.files.is_empty() && policy.schedule.backup.is_some() {
            return;
        }
        let Some(backup) = &policy.schedule.backup else {
            let remedy = "add `schedule.backup`, or leave rpo out";
            self.fault("objectives.rpo", "cannot be met: nothing schedules a backup", remedy);
            return;
        };
        let rpo = TimeDelta::from_std(rpo).unwrap_or(TimeDelta::MAX);
        if let Some(gap) =
            backup.largest_gap(policy.timezone, DateTime::from_timestamp(REFERENCE_S, 0).unwrap_or_default())
            && gap.length() > rpo
        {
            let from = gap.from.with_timezone(&policy.timezone).format("%a %F %H:%M %:z");
            let what = format!("cannot be met: {} pass between two backups, as after {from}", span_text(gap.length()));
            let remedy = rpo_remedy(backup, gap.length(), rpo);
            self.fault("objectives.rpo", what, remedy);
        }
    }
}

/// 1 January 2026: a fixed year, so that a policy that holds today holds tomorrow.
const REFERENCE_S: i64 = 1_767_225_600;

fn rpo_remedy(backup: &Cron, gap: TimeDelta, rpo: TimeDelta) -> String {
    let wider = span_text(gap);
    let minutes = rpo.num_minutes();
    let pace = match minutes {
        1..=59 => format!("*/{} * * * *", largest_divisor(60, minutes)),
        60..1440 => format!("{} */{} * * *", minute_of(backup), largest_divisor(24, minutes / 60)),
        _ => {
            return format!(
                "back up more often than {backup:?}, or write `rpo = \"{wider}\"`",
                backup = backup.as_str()
            );
        }
    };
    format!("write `schedule.backup = \"{pace}\"`, or `rpo = \"{wider}\"`")
}

/// Returns the largest pace that divides the hour or the day without a rest, up to a limit.
fn largest_divisor(whole: i64, limit: i64) -> i64 {
    (1..=limit).rev().find(|pace| whole % pace == 0).unwrap_or(1)
}

fn minute_of(cron: &Cron) -> &str {
    let first = cron.as_str().split_whitespace().next().unwrap_or_default();
    if first.parse::<u8>().is_ok() { first } else { "0" }
}

/// Writes a span as a policy would.
fn span_text(span: TimeDelta) -> String {
    let minutes = span.num_minutes();
    match (minutes / 1440, minutes % 1440 / 60, minutes % 60) {
        (days, 0, 0) if days > 0 => format!("{days}d"),
        (0, hours, 0) => format!("{hours}h"),
        (0, 0, minutes) => format!("{minutes}m"),
        (days, hours, 0) => format!("{}h", days * 24 + hours),
        (days, hours, minutes) => format!("{}h{minutes}m", days * 24 + hours),
    }
}
