//! The sections of the page that hold tables and charts.

use maud::{Markup, html};

use crate::drill::outcome::{CheckResult, CheckState, Judgement, Phase};
use crate::human;
use crate::report::evidence::CLAUSES;
use crate::report::{PastDrill, Report, chart, words};

impl Report {
    pub(super) fn phases_section(&self) -> Markup {
        let outcome = &self.outcome;
        let end = outcome.phases.iter().map(Phase::end_ms).max().unwrap_or(0);
        let beyond = outcome.objectives.rto_ms.filter(|rto| *rto > end.saturating_mul(2));
        html! {
            section aria-labelledby="phases" {
                h2 #phases { "Where the time went" }
                @if outcome.phases.is_empty() { p { "No phase was measured." } } @else {
                    figure {
                        (chart::gantt(outcome))
                        @if let (Some(rto), true) = (beyond, end > 0) {
                            figcaption { "The RTO of " (human::millis(rto)) " lies beyond this chart, at " (rto / end) " times its length." }
                        }
                    }
                    div.scroll { table {
                        caption.hidden { "Phases of the drill" }
                        thead { tr { th { "Phase" } th.number { "Start" } th.number { "Took" } th.number { "Share" } th { "Moved" } th { "Detail" } } }
                        tbody { @for phase in &outcome.phases { (phase_row(phase, end)) } }
                    } }
                }
            }
        }
    }

    pub(super) fn checks_section(&self) -> Markup {
        html! {
            section aria-labelledby="checks" {
                h2 #checks { "Checks" }
                @if self.outcome.checks.is_empty() { p { "No check ran." } } @else {
                    div.scroll { table {
                        caption.hidden { "Checks and what they found" }
                        thead { tr { th { "Result" } th { "Check" } th { "Found" } th { "Wanted" } th.number { "Took" } } }
                        tbody { @for check in &self.outcome.checks { (check_row(check)) } }
                    } }
                }
            }
        }
    }

    pub(super) fn snapshots_section(&self) -> Markup {
        let zone = self.context.timezone;
        let started = self.outcome.started;
        html! {
            section aria-labelledby="snapshots" {
                h2 #snapshots { "Snapshots" }
                div.scroll { table {
                    caption.hidden { "Restored snapshots" }
                    thead { tr { th { "Source" } th { "Kind" } th { "Snapshot" } th { "True of" } th.number { "Age at the drill" } th { "State" } } }
                    tbody { @for snapshot in &self.outcome.snapshots { tr {
                        td { (snapshot.source) }
                        td { (snapshot.kind) }
                        td { code title=(snapshot.id) { (snapshot.id.short()) } }
                        td { (human::exact_time(snapshot.time, zone)) }
                        td.number { (human::age(snapshot.time, started).trim_end_matches(" ago")) }
                        td { @if snapshot.incomplete { span.word.warning { "incomplete" } } @else { "complete" } }
                    } } }
                } }
            }
        }
    }

    pub(super) fn history_section(&self) -> Markup {
        let tallest = self.history.iter().filter_map(|drill| drill.rta_ms).max().unwrap_or(0);
        let beyond = self.outcome.objectives.rto_ms.filter(|rto| *rto > tallest.saturating_mul(4));
        html! {
            section aria-labelledby="history" {
                h2 #history { "Drills so far" }
                figure {
                    (chart::history(&self.history, self.context.timezone))
                    figcaption {
                        "Recovery time of each drill, by date."
                        @if self.history.iter().any(|drill| drill.verdict.rto == Judgement::Breached) { " Striped: later than the RTO." }
                        @if self.history.iter().any(|drill| drill.rta_ms.is_none()) { " ✕: no recovery time was measured." }
                        @if let (Some(rto), true) = (beyond, tallest > 0) { " The RTO of " (human::millis(rto)) " lies above this chart." }
                    }
                }
                div.scroll { table {
                    caption.hidden { "Drills so far" }
                    thead { tr { th { "Started" } th.number { "RTA" } th.number { "RTO" } th.number { "RPA" } th.number { "RPO" } th { "Policy" } th { "Result" } } }
                    tbody { @for drill in self.history.iter().rev() { (self.drill_row(drill)) } }
                } }
            }
        }
    }

    fn drill_row(&self, drill: &PastDrill) -> Markup {
        let is_this = drill.run == self.outcome.run;
        let same_policy = drill.policy_hash == self.outcome.policy_hash;
        html! {
            tr.this[is_this] {
                td { (human::time(drill.started, self.context.timezone)) @if is_this { " (this one)" } }
                (objective_cells(drill.rta_ms, drill.rto_ms, drill.verdict.rto))
                (objective_cells(drill.rpa_ms, drill.rpo_ms, drill.verdict.rpo))
                td { @if same_policy { "same" } @else { "other" } }
                td { @if drill.passed { span.word.good { "passed" } } @else { span.word.bad { "not passed" } } }
            }
        }
    }

    pub(super) fn evidence_section(&self) -> Markup {
        html! {
            section.evidence aria-labelledby="evidence" {
                h2 #evidence { "Evidence for an audit" }
                dl {
                    @for row in self.evidence() {
                        div {
                            dt { (row.name) " " span.clause { (row.clause) } }
                            dd { ul { @for fact in &row.facts { li { (fact) } } } }
                        }
                    }
                }
                p.clauses {
                    "The numbers are clauses of ISMS-P."
                    @for (number, name, korean) in CLAUSES { span { b { (number) } " " (name) " (" span lang="ko" { (korean) } ") " } }
                }
                table.signatures aria-label="Signatures" {
                    tr { td { "Carried out by" } td { "Reviewed by" } td { "Date" } }
                }
            }
        }
    }
}

fn phase_row(phase: &Phase, whole: u64) -> Markup {
    let share = phase.duration_ms.saturating_mul(100).checked_div(whole).unwrap_or(0);
    html! {
        tr {
            td { (phase.name) }
            td.number { (human::millis(phase.start_ms)) }
            td.number { (human::millis(phase.duration_ms)) }
            td.number { (share) " %" }
            td { @for figure in words::figures(phase) { span.line.figure { (figure) } } }
            td.detail.words { (phase.detail.as_deref().unwrap_or_default()) }
        }
    }
}

fn check_row(check: &CheckResult) -> Markup {
    let (class, sign) = match check.result {
        CheckState::Pass => ("good", "✓"),
        CheckState::Fail => ("bad", "✕"),
        CheckState::NotRun => ("warning", "–"),
    };
    html! {
        tr {
            td { span.badge.(class) { (sign) " " (words::check_state(check.result)) } }
            td.words {
                span.line { (check.name) " " span.kind { (check.kind) } }
                @if let Some(detail) = &check.detail { span.line.detail { (detail) } }
            }
            td.words { (check.found.as_deref().unwrap_or("–")) }
            td.words { (check.wanted.as_deref().unwrap_or("–")) }
            td.number { (human::millis(check.duration_ms)) }
        }
    }
}

fn objective_cells(actual: Option<u64>, objective: Option<u64>, judgement: Judgement) -> Markup {
    let breached = judgement == Judgement::Breached;
    html! {
        td.number.breached[breached] { (words::span(actual)) @if breached { " ✕" } }
        td.number { (words::span(objective)) }
    }
}
