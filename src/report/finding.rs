//! What follows from a drill, as sentences.

use std::cmp::Reverse;

use serde::Serialize;

use crate::drill::outcome::{CheckResult, CheckState, DrillOutcome, Judgement, Origin, Phase};
use crate::human;
use crate::report::{Context, PastDrill};

/// A change smaller than this is noise, not news: both a quarter and ten seconds must be passed.
const CHANGE_MS_MIN: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Note,
    Warning,
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub text: String,
}

impl Finding {
    fn bad(text: String) -> Self {
        Self { severity: Severity::Bad, text }
    }

    fn warning(text: String) -> Self {
        Self { severity: Severity::Warning, text }
    }

    fn note(text: String) -> Self {
        Self { severity: Severity::Note, text }
    }
}

/// Returns the findings, the worst first.
pub(super) fn of(outcome: &DrillOutcome, history: &[PastDrill], context: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(outcome.error.as_ref().map(|error| Finding::bad(format!("the drill came to no end: {error}"))));
    findings.extend(outcome.checks.iter().filter_map(of_check));
    if outcome.checks.is_empty() {
        findings.push(Finding::warning("no check ran: that the data is usable is not proved".to_owned()));
    }
    findings.extend(of_objectives(outcome));
    findings.extend(of_snapshots(outcome));
    findings.extend(of_copies(outcome, context));
    findings.extend(of_trend(outcome, history));
    findings.extend(of_phases(outcome));
    findings.sort_by_key(|finding| Reverse(finding.severity));
    findings
}

fn of_check(check: &CheckResult) -> Option<Finding> {
    match check.result {
        CheckState::Pass => None,
        CheckState::Fail => Some(Finding::bad(format!("check “{}” failed{}", check.name, facts(check)))),
        CheckState::NotRun => Some(Finding::warning(format!("check “{}” did not run{}", check.name, facts(check)))),
    }
}

fn facts(check: &CheckResult) -> String {
    let found = check.found.as_ref().map(|found| format!("found {found}"));
    let wanted = check.wanted.as_ref().map(|wanted| format!("wanted {wanted}"));
    let facts: Vec<String> = [found, wanted, check.detail.clone()].into_iter().flatten().collect();
    if facts.is_empty() { String::new() } else { format!(": {}", facts.join(", ")) }
}

fn of_objectives(outcome: &DrillOutcome) -> Vec<Finding> {
    let time = Beside {
        judgement: outcome.verdict.rto,
        actual_ms: outcome.rta_ms,
        objective_ms: outcome.objectives.rto_ms,
        breach: "the recovery took",
        unmeasured: "the recovery time was not measured",
        name: "RTO",
    };
    let point = Beside {
        judgement: outcome.verdict.rpo,
        actual_ms: outcome.rpa_ms,
        objective_ms: outcome.objectives.rpo_ms,
        breach: "the recovery would have lost the work of",
        unmeasured: "the recovery point was not measured",
        name: "RPO",
    };
    [time.finding(), point.finding()].into_iter().flatten().collect()
}

/// An actual beside its objective, and the words for it.
struct Beside {
    judgement: Judgement,
    actual_ms: Option<u64>,
    objective_ms: Option<u64>,
    breach: &'static str,
    unmeasured: &'static str,
    name: &'static str,
}

impl Beside {
    fn finding(&self) -> Option<Finding> {
        let span = |span: Option<u64>| span.map_or_else(|| "–".to_owned(), human::millis);
        let (actual, objective) = (span(self.actual_ms), span(self.objective_ms));
        let (breach, name) = (self.breach, self.name);
        match self.judgement {
            Judgement::Met => None,
            Judgement::Breached => Some(Finding::bad(format!("{breach} {actual}; the {name} is {objective}"))),
            Judgement::NotMeasured => Some(Finding::warning(format!(
                "{}: whether the {name} of {objective} holds is not proved",
                self.unmeasured
            ))),
            Judgement::NoObjective => Some(Finding::note(format!("the policy sets no {name} to measure against"))),
        }
    }
}

fn of_snapshots(outcome: &DrillOutcome) -> impl Iterator<Item = Finding> {
    let incomplete = outcome.snapshots.iter().filter(|snapshot| snapshot.incomplete);
    incomplete.map(|snapshot| {
        Finding::warning(format!(
            "the restored snapshot of `{}` was made by a partial run: something is missing in it",
            snapshot.source
        ))
    })
}

fn of_copies(outcome: &DrillOutcome, context: &Context) -> Vec<Finding> {
    if context.copies.is_empty() {
        return vec![Finding::warning(
            "the policy names no copy: if the repository is lost with the site, everything is".to_owned(),
        )];
    }
    let unfinished = context.copies.iter().filter(|copy| copy.completed.is_none());
    let mut findings: Vec<Finding> = unfinished
        .map(|copy| Finding::warning(format!("copy `{}` is not known to have been complete", copy.name)))
        .collect();
    if outcome.from == Origin::Repository {
        findings.push(Finding::note(
            "the drill read from the repository: recovery from a copy alone was not rehearsed".to_owned(),
        ));
    }
    findings
}

/// Sets the recovery time beside the median of the drills before it.
fn of_trend(outcome: &DrillOutcome, history: &[PastDrill]) -> Option<Finding> {
    let now = outcome.rta_ms?;
    let earlier = history.iter().filter(|drill| drill.run != outcome.run);
    let mut times: Vec<u64> = earlier.filter_map(|drill| drill.rta_ms).collect();
    times.sort_unstable();
    let usual = *times.get(times.len() / 2)?;
    if now.abs_diff(usual) < CHANGE_MS_MIN.max(usual / 4) {
        return None;
    }
    let (now_text, usual_text) = (human::millis(now), human::millis(usual));
    let text = format!("the recovery took {now_text}; the drills before it took {usual_text} (median)");
    Some(if now > usual { Finding::warning(text) } else { Finding::note(text) })
}

/// Names the phase in which a faster recovery would begin.
fn of_phases(outcome: &DrillOutcome) -> Option<Finding> {
    let longest = outcome.phases.iter().max_by_key(|phase| phase.duration_ms)?;
    let whole = outcome.phases.iter().map(Phase::end_ms).max()?;
    let share = longest.duration_ms.saturating_mul(100).checked_div(whole)?;
    let took = human::millis(longest.duration_ms);
    let is_whole = outcome.error.is_none() && outcome.phases.len() > 1;
    (is_whole && share >= 25).then(|| {
        Finding::note(format!(
            "“{}” took {took}, {share} % of the time: a faster recovery would begin there",
            longest.name
        ))
    })
}
