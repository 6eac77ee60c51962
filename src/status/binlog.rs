//! How far the captures of binlogs have come.

use chrono::{DateTime, Utc};

use crate::capture::{CommitsWait, Progress};
use crate::human;
use crate::policy::{Ack, CapturePlan};
use crate::status::facts::age_ms;
use crate::status::{BinlogCopy, BinlogStatus, BinlogWindow, Inputs, Reason, SourceStatus, Status, Verdict};

/// A capture that lags by more intervals than these does not only wait for the next.
const INTERVALS_MAX: u32 = 10;

/// Who follows asks the server every few seconds what it has; past this, nobody does.
const FOLLOWED_MS_MAX: u64 = 60_000;

pub(super) fn of(inputs: &Inputs<'_>, source: &str) -> Option<BinlogStatus> {
    let plan = inputs.policy.mysql.get(source)?.binlog.as_ref()?;
    let known = inputs.binlogs.iter().find(|binlog| binlog.source == source);
    let progress = known.map(|binlog| binlog.progress.clone()).unwrap_or_default();
    let of_kind = |kind: &'static str| {
        inputs.snapshots.iter().filter(move |snapshot| snapshot.source == source && snapshot.kind == kind)
    };
    let dumps: Vec<DateTime<Utc>> =
        of_kind("mysql").filter(|dump| !dump.incomplete).map(|snapshot| snapshot.time).collect();
    let chain = known.and_then(|binlog| binlog.chain.as_ref());
    let window = chain.and_then(|chain| chain.window(&dumps));
    let lag = |time: Option<DateTime<Utc>>| time.map(|time| age_ms(time, inputs.now));
    let copies = inputs.policy.copies.iter().map(|copy| {
        let held = of_kind("binlog").filter(|snapshot| snapshot.store == copy.name);
        let time = held.map(|snapshot| snapshot.time).max();
        BinlogCopy { name: copy.name.clone(), time, lag_ms: lag(time) }
    });
    Some(BinlogStatus {
        spool: progress.as_of,
        spool_lag_ms: lag(progress.as_of),
        repository: progress.sealed,
        repository_lag_ms: lag(progress.sealed),
        copies: copies.collect(),
        window: window.map(|(from, to)| BinlogWindow { from, to }),
        commits_wait: commits_wait(plan, &progress, inputs.now),
        gaps: chain.map_or(0, |chain| chain.epochs.iter().map(|epoch| epoch.gaps.len()).sum()),
        error: progress.error,
    })
}

/// Tells what whoever follows said of it last, if that was lately.
fn commits_wait(plan: &CapturePlan, progress: &Progress, now: DateTime<Utc>) -> Option<CommitsWait> {
    if plan.ack == Ack::Off {
        return None;
    }
    let is_followed = progress.as_of.is_some_and(|as_of| age_ms(as_of, now) <= FOLLOWED_MS_MAX);
    let told = progress.commits_wait.clone().filter(|_| is_followed);
    Some(told.unwrap_or_else(|| CommitsWait::not("no `bkp daemon` follows the server")))
}

/// Says what is wrong with the capture of a source.
pub(super) fn reasons(status: &Status, inputs: &Inputs<'_>, source: &SourceStatus) -> Vec<Reason> {
    let Some(binlog) = &source.binlog else { return Vec::new() };
    let Some(plan) = inputs.policy.mysql.get(&source.source).and_then(|place| place.binlog.as_ref()) else {
        return Vec::new();
    };
    let (name, mut reasons) = (&source.source, Vec::new());
    let mut tell = |verdict, text| reasons.push(Reason { verdict, text });
    if let Some(error) = &binlog.error {
        tell(Verdict::Warning, format!("the capture of `{name}`'s binlog stands still: {error}"));
    }
    if let Some(reason) = binlog.commits_wait.as_ref().and_then(|wait| wait.reason.as_ref()) {
        tell(Verdict::Warning, format!("commits of `{name}` do not wait for the spool: {reason}"));
    }
    let patience = u64::try_from((plan.interval * INTERVALS_MAX).as_millis()).unwrap_or(u64::MAX);
    let rpo = status.objectives.rpo_ms;
    match binlog.repository_lag_ms {
        None => tell(Verdict::Warning, format!("nothing of `{name}`'s binlog is in the repository yet")),
        Some(lag) if rpo.is_some_and(|rpo| lag > rpo) => {
            tell(Verdict::Bad, format!("`{name}`'s binlog came into the repository {} ago", human::millis(lag)));
        }
        Some(lag) if lag > patience => {
            tell(Verdict::Warning, format!("`{name}`'s binlog came into the repository {} ago", human::millis(lag)));
        }
        Some(_) if binlog.window.is_none() => {
            tell(Verdict::Warning, format!("no dump lies within the newest segments of `{name}`'s binlog"));
        }
        Some(_) => {}
    }
    reasons
}

/// Draws what a capture has, in one line.
pub(super) fn line(binlog: &BinlogStatus) -> String {
    let lag = |lag: Option<u64>| lag.map_or_else(|| "never".to_owned(), |lag| format!("{} ago", human::millis(lag)));
    let waits =
        if binlog.commits_wait.as_ref().is_some_and(|wait| wait.is_on) { "; commits wait for the spool" } else { "" };
    format!("binlog: spool {}, repository {}{waits}", lag(binlog.spool_lag_ms), lag(binlog.repository_lag_ms))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn that_commits_wait_is_believed_only_while_somebody_follows() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(9);
        let plan = |ack| CapturePlan {
            window: std::time::Duration::ZERO,
            interval: std::time::Duration::ZERO,
            spool: "/var/spool/bkp".into(),
            server_id: 7,
            ack,
        };
        let told = |ack, seconds| {
            let as_of = Some(now - TimeDelta::seconds(seconds));
            let progress = Progress {
                as_of,
                commits_wait: Some(CommitsWait { is_on: true, reason: None }),
                ..Progress::default()
            };
            commits_wait(&plan(ack), &progress, now)
        };
        assert_eq!(told(Ack::Off, 1), None);
        assert!(told(Ack::Spool, 6).is_some_and(|wait| wait.is_on));
        let stale = told(Ack::Spool, 61).and_then(|wait| wait.reason);
        assert_eq!(stale.as_deref(), Some("no `bkp daemon` follows the server"));
        let never = commits_wait(&plan(Ack::Spool), &Progress::default(), now);
        assert!(never.is_some_and(|wait| !wait.is_on && wait.reason.is_some()));
    }
}
