//! What all renderers say in the same words.

use std::fmt::Write as _;

use crate::drill::outcome::{
    CheckState, ChecksVerdict, DrillOutcome, Judgement, Origin, Phase, Place, SandboxServer, Scenario,
};
use crate::human;
use crate::mysql::manifest::Product;

/// Returns the result in one word or two.
pub(super) fn result(outcome: &DrillOutcome) -> &'static str {
    if outcome.error.is_some() {
        "Did not complete"
    } else if outcome.checks_failed() {
        "Checks failed"
    } else if outcome.breached() {
        "Objective missed"
    } else if outcome.unproved() {
        "Not proved"
    } else {
        "Passed"
    }
}

/// Returns the result in one sentence.
pub(super) fn headline(outcome: &DrillOutcome) -> String {
    let policy = &outcome.policy;
    match (&outcome.error, outcome.rta_ms) {
        (Some(_), _) => format!("The drill of {policy} came to no end"),
        (None, Some(rta)) => format!("{policy} came back in {}", human::millis(rta)),
        (None, None) => format!("{policy} was restored, and no check proved it usable"),
    }
}

/// Says what went wrong, or sets recovery time and point beside their objectives.
pub(super) fn summary(outcome: &DrillOutcome) -> String {
    if let Some(error) = &outcome.error {
        return format!("{}.", sentence(error));
    }
    let mut sentences = Vec::new();
    if let (Some(rta), Some(rto)) = (outcome.rta_ms, outcome.objectives.rto_ms) {
        let apart = human::millis(rta.abs_diff(rto));
        let side = if rta <= rto { "inside" } else { "past" };
        sentences.push(format!("That is {apart} {side} the RTO of {}.", human::millis(rto)));
    }
    sentences.extend(first_order(outcome).map(|text| format!("The {text}.")));
    sentences.extend(standbys(outcome).map(|text| format!("{}.", sentence(&text))));
    if let Some(rpa) = outcome.rpa_ms {
        let allowed = match outcome.objectives.rpo_ms {
            Some(rpo) if rpa <= rpo => format!("; the RPO allows {}", human::millis(rpo)),
            Some(rpo) => format!(", more than the RPO of {}", human::millis(rpo)),
            None => String::new(),
        };
        let (lost, before) = (human::millis(rpa), scenario(outcome).map(|_| " before the mistake").unwrap_or_default());
        sentences.push(format!("The work of the last {lost}{before} would have been lost{allowed}."));
    }
    sentences.join(" ")
}

/// Tells what the drill assumed, where that is not the loss of everything at its start.
pub(super) fn scenario(outcome: &DrillOutcome) -> Option<String> {
    match outcome.scenario {
        Scenario::Lost | Scenario::Standby => None,
        Scenario::Mistake { at } => Some(format!("rehearsed: a mistake at {}", at.format("%Y-%m-%d %H:%M:%S UTC"))),
    }
}

/// Tells when what the policy wants back before all else could be read.
pub(super) fn first_order(outcome: &DrillOutcome) -> Option<String> {
    let first = outcome.first_order.as_ref()?;
    let named: Vec<&str> = first.tables.iter().take(TABLES_MAX).map(String::as_str).collect();
    let more = first.tables.len().saturating_sub(TABLES_MAX);
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    let took = first.ms.map_or_else(|| "was not measured".to_owned(), |ms| format!("was {}", human::millis(ms)));
    Some(format!("time to first order ({}{rest}) {took}", named.join(", ")))
}

/// Sets the promotion of each standby beside the restore.
pub(super) fn standbys(outcome: &DrillOutcome) -> impl Iterator<Item = String> {
    outcome.standbys.iter().map(|standby| {
        let [downtime, ready] = [standby.downtime_ms, standby.ready_ms].map(human::millis);
        let source = &standby.source;
        let rpa = standby.rpa_ms.map_or_else(|| "not known".to_owned(), human::millis);
        format!("standby of {source}: promoted in {downtime}, RPA {rpa}; it was ready after {ready}")
    })
}

/// At most this many tables stand in a sentence.
const TABLES_MAX: usize = 3;

/// Begins a text with a capital letter.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

pub(super) fn judgement(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Met => "met",
        Judgement::Breached => "breached",
        Judgement::NotMeasured => "not measured",
        Judgement::NoObjective => "no objective",
    }
}

pub(super) fn check_state(state: CheckState) -> &'static str {
    match state {
        CheckState::Pass => "pass",
        CheckState::Fail => "FAIL",
        CheckState::NotRun => "NOT RUN",
    }
}

pub(super) fn checks_verdict(verdict: ChecksVerdict) -> &'static str {
    match verdict {
        ChecksVerdict::Passed => "all passed",
        ChecksVerdict::Failed => "failed",
        ChecksVerdict::NotRun => "not all run",
    }
}

/// Counts the checks by state: `6 of 8 passed, 1 failed, 1 not run`.
pub(super) fn checks(outcome: &DrillOutcome) -> String {
    let count = |state| outcome.checks_in(state).count();
    let mut text = format!("{} of {} passed", count(CheckState::Pass), outcome.checks.len());
    for (state, word) in [(CheckState::Fail, "failed"), (CheckState::NotRun, "not run")] {
        if count(state) > 0 {
            _ = write!(text, ", {} {word}", count(state));
        }
    }
    text
}

pub(super) fn span(millis: Option<u64>) -> String {
    millis.map_or_else(|| "–".to_owned(), human::millis)
}

pub(super) fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Repository => "the repository".to_owned(),
        Origin::Copy { name } => format!("copy {name}"),
    }
}

pub(super) fn server(server: &SandboxServer) -> String {
    let product = match server.product {
        Product::MySql => "MySQL",
        Product::MariaDb => "MariaDB",
    };
    format!("{product} {} for {}", server.version, server.source)
}

pub(super) fn machine(place: &Place) -> String {
    let cores = human::counted(u64::from(place.cores), "core", "cores");
    format!("{} ({cores}, {} memory)", place.host, human::bytes(place.memory_bytes))
}

/// Writes what a phase moved and how fast: `3.1 GiB, 42.0 MiB/s`.
pub(super) fn figures(phase: &Phase) -> Vec<String> {
    let span = std::time::Duration::from_millis(phase.duration_ms);
    let bytes = phase.bytes.map(|bytes| format!("{}, {}", human::bytes(bytes), human::rate(bytes, span)));
    let rows =
        phase.rows.map(|rows| format!("{}, {}", human::counted(rows, "row", "rows"), human::count_rate(rows, span)));
    let files = phase
        .files
        .map(|files| format!("{}, {}", human::counted(files, "file", "files"), human::count_rate(files, span)));
    let transactions = phase.transactions.map(|count| {
        format!("{}, {}", human::counted(count, "transaction", "transactions"), human::count_rate(count, span))
    });
    [transactions, bytes, rows, files].into_iter().flatten().collect()
}

/// What came back, summed over the phases that write to the targets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Restored {
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) files: u64,
}

pub(super) fn restored(outcome: &DrillOutcome) -> Restored {
    // Fetching moves the same bytes once more; they came back only once.
    let writing =
        outcome.phases.iter().filter(|phase| phase.name.starts_with("load") || phase.name.starts_with("files"));
    writing.fold(Restored::default(), |sum, phase| Restored {
        bytes: sum.bytes + phase.bytes.unwrap_or(0),
        rows: sum.rows + phase.rows.unwrap_or(0),
        files: sum.files + phase.files.unwrap_or(0),
    })
}
