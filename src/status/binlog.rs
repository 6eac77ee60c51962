//! How far the captures of binlogs have come.

use chrono::{DateTime, Utc};

use crate::human;
use crate::status::facts::age_ms;
use crate::status::{BinlogCopy, BinlogStatus, BinlogWindow, Inputs, Reason, SourceStatus, Status, Verdict};

/// A capture that lags by more intervals than these does not only wait for the next.
const INTERVALS_MAX: u32 = 10;

pub(super) fn of(inputs: &Inputs<'_>, source: &str) -> Option<BinlogStatus> {
    inputs.policy.mysql.get(source)?.binlog.as_ref()?;
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
        gaps: chain.map_or(0, |chain| chain.epochs.iter().map(|epoch| epoch.gaps.len()).sum()),
        error: progress.error,
    })
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
    format!("binlog: spool {}, repository {}", lag(binlog.spool_lag_ms), lag(binlog.repository_lag_ms))
}
