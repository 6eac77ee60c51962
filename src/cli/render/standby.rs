//! How a standby is, and what its promotion will do and did.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::cli::render::{replay, shown};
use crate::human;
use crate::policy::Policy;
use crate::replay::Mark;
use crate::standby::{Promoted, Promotion, Status};

pub(in crate::cli) fn standby(policy: &Policy, status: &Status) -> String {
    let mut text = String::new();
    let state = match status {
        Status { is_promoting: true, .. } => "is being promoted",
        Status { is_streaming: true, .. } => "streams",
        _ => "DOES NOT STREAM",
    };
    line!(text, "{:<10} standby {} {state}", status.source, shown(&status.target));
    line!(text, "{:<10} executed: {}", "", status.executed);
    match (status.as_of, status.lag_ms) {
        (Some(as_of), Some(lag)) => {
            let delay = match status.delay_ms {
                0 => String::new(),
                delay => format!(", {} of it the delay", human::millis(delay)),
            };
            let as_of = human::exact_time(as_of, policy.timezone);
            line!(text, "{:<10} holds all that was committed until {as_of}: lag {}{delay}", "", human::millis(lag));
        }
        _ => line!(text, "{:<10} lag: not known yet", ""),
    }
    if !status.is_read_only {
        line!(text, "{:<10} NOT READ-ONLY: its server was restarted, or somebody opened it", "");
    }
    if let Some(error) = &status.error {
        line!(text, "{:<10} error: {}", "", shown(error));
    }
    text
}

/// Tells what a promotion will do.
pub(in crate::cli) fn promotion(
    policy: &Policy,
    source: &str,
    promotion: &Promotion<'_>,
    now: DateTime<Utc>,
) -> String {
    let mut text = String::new();
    let plan = &promotion.plan;
    line!(text, "{source:<10} promote the standby, which has executed {}", promotion.executed);
    line!(text, "      last included:  {}", marked(policy, plan.last.as_ref()));
    line!(text, "      first excluded: {}", marked(policy, plan.first_excluded.as_ref()));
    let captured = captured(policy, promotion.as_of, now);
    line!(text, "      captured:       {captured}");
    if promotion.is_ahead {
        line!(
            text,
            "      note: the standby holds more than is left of the capture, and is opened with all that it has"
        );
    }
    if promotion.as_of.is_some_and(|as_of| now - as_of < ALIVE_MAX) {
        line!(text, "      note: the source answered moments ago: what it commits from now on is lost");
    }
    replay::notes(&mut text, plan);
    text
}

/// A capture asks its source every five seconds.
const ALIVE_MAX: TimeDelta = TimeDelta::seconds(15);

/// Tells how far the capture has come: where it stands still, what is committed meanwhile does not come with the newest point.
fn captured(policy: &Policy, as_of: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    let Some(as_of) = as_of else { return "nobody knows up to when".to_owned() };
    let until = human::exact_time(as_of, policy.timezone);
    format!("all that was committed until {until}, {}", human::age(as_of, now))
}

fn marked(policy: &Policy, mark: Option<&Mark>) -> String {
    mark.map_or_else(|| "none".to_owned(), |mark| replay::mark(policy, mark))
}

pub(in crate::cli) fn promotion_json(promotion: &Promotion<'_>) -> Value {
    let plan = &promotion.plan;
    json!({
        "end": plan.end,
        "last_included": plan.last,
        "first_excluded": plan.first_excluded,
        "later": plan.later,
        "executed": promotion.executed.to_string(),
        "planned": plan.executed.to_string(),
        "falls_short": plan.falls_short,
        "as_of": promotion.as_of,
        "is_ahead": promotion.is_ahead,
    })
}

pub(in crate::cli) fn promoted(policy: &Policy, source: &str, promoted: &Promoted) -> String {
    let mut text = String::new();
    let downtime = promoted.downtime.as_secs_f64();
    line!(text, "{source:<10} promoted: everybody can write, {downtime:.1} s after the command began");
    let last = promoted.last.as_ref().map_or_else(|| "as before".to_owned(), |last| replay::mark(policy, last));
    line!(text, "{:<10} recovery point: {last}", "");
    if let Some(as_of) = promoted.as_of {
        let as_of = human::exact_time(as_of, policy.timezone);
        line!(text, "{:<10} it holds all that was committed until {as_of}", "");
    }
    line!(text, "{:<10} it has executed what was planned: {}", "", promoted.executed);
    replay::left(&mut text, promoted.prepared, &promoted.events_off);
    text
}

pub(in crate::cli) fn promoted_json(promoted: &Promoted) -> Value {
    json!({
        "downtime_ms": crate::backup::millis(promoted.downtime),
        "recovery_point": promoted.last,
        "as_of": promoted.as_of,
        "executed": promoted.executed,
        "prepared": promoted.prepared,
        "events_off": promoted.events_off,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_capture_that_stood_still_shows_its_age() {
        let policy = Policy::parse(include_str!("../../../policies/full.toml"), Path::new("full.toml")).unwrap();
        let as_of = DateTime::UNIX_EPOCH;
        let text = captured(&policy, Some(as_of), as_of + TimeDelta::hours(3));
        assert!(text.starts_with("all that was committed until 1970-01-01 "), "{text}");
        assert!(text.ends_with(", 3 h ago"), "{text}");
        assert_eq!(captured(&policy, None, as_of), "nobody knows up to when");
    }
}
