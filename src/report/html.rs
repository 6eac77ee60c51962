//! The report as one HTML file: no script, no font, no image and no address outside itself.

mod sections;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::drill::outcome::Judgement;
use crate::human;
use crate::report::{Finding, Report, Severity, chart, words};

const STYLE: &str = include_str!("style.css");

/// Nothing may be fetched and nothing run, whatever slipped into the page.
const SECURITY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

impl Report {
    /// Renders the report as a page of its own.
    #[must_use]
    pub fn html(&self) -> String {
        let body = html! {
            (self.masthead())
            main {
                (self.hero())
                (self.tiles())
                (self.findings_section())
                (self.phases_section())
                (self.checks_section())
                (self.snapshots_section())
                (self.history_section())
                (self.evidence_section())
            }
            (self.colophon())
        };
        let title = format!("{}: recovery drill of {}", self.result, self.outcome.policy);
        shell(&title, &body).into_string()
    }

    fn masthead(&self) -> Markup {
        let time = human::exact_time(self.outcome.started, self.context.timezone);
        html! {
            header.masthead {
                p { strong { "bkp" } " recovery drill" }
                p { time datetime=(self.outcome.started.to_rfc3339()) { (time) } }
            }
        }
    }

    fn hero(&self) -> Markup {
        let class = tone(self);
        html! {
            section.hero.(class) {
                p.result { span.badge.(class) { (sign(class)) " " (self.result) } }
                h1 { (words::headline(&self.outcome)) }
                p.summary { (words::summary(&self.outcome)) }
                p.where {
                    @if self.outcome.error.is_some() { "Restoring from " } @else { "Restored from " }
                     (words::origin(&self.outcome.from)) " on " (words::machine(&self.outcome.place)) @if let Some(scenario) = words::scenario(&self.outcome) { "; " (scenario) }
                    @for server in &self.outcome.place.sandboxes { ", into " (words::server(server)) }
                    "."
                }
            }
        }
    }

    fn tiles(&self) -> Markup {
        let outcome = &self.outcome;
        let verdict = outcome.verdict;
        html! {
            section.tiles aria-label="Results" {
                (objective_tile("Recovery time", "RTA", "RTO", [outcome.rta_ms, outcome.objectives.rto_ms], verdict.rto))
                (objective_tile("Recovery point", "RPA", "RPO", [outcome.rpa_ms, outcome.objectives.rpo_ms], verdict.rpo))
                div.tile {
                    p.label { "Checks" }
                    p.figure { (outcome.checks_in(crate::drill::outcome::CheckState::Pass).count()) small { " of " (outcome.checks.len()) } }
                    (self.check_meter())
                    p.note { (words::checks(outcome)) }
                }
                (self.restored_tile())
            }
        }
    }

    fn check_meter(&self) -> Markup {
        use crate::drill::outcome::CheckState;
        let states = self.outcome.checks.iter().map(|check| match check.result {
            CheckState::Pass => "good",
            CheckState::Fail => "bad",
            CheckState::NotRun => "warning",
        });
        html! { div.dots aria-hidden="true" { @for state in states { span.(state) {} } } }
    }

    fn restored_tile(&self) -> Markup {
        let restored = words::restored(&self.outcome);
        let parts = [
            (restored.rows > 0).then(|| human::counted(restored.rows, "row", "rows")),
            (restored.files > 0).then(|| human::counted(restored.files, "file", "files")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let snapshots = human::counted(self.outcome.snapshots.len() as u64, "snapshot", "snapshots");
        html! {
            div.tile {
                p.label { "Restored" }
                p.figure { @if restored.bytes > 0 { (human::bytes(restored.bytes)) } @else { "–" } }
                p.note { @for part in &parts { (part) br; } "from " (snapshots) }
            }
        }
    }

    fn findings_section(&self) -> Markup {
        html! {
            section aria-labelledby="findings" {
                h2 #findings { "Findings" }
                @if self.findings.is_empty() { p { "Nothing to act on." } }
                ul.findings { @for finding in &self.findings { (finding_item(finding)) } }
            }
        }
    }

    fn colophon(&self) -> Markup {
        html! {
            footer {
                p {
                    "Recovery time actual (RTA) runs from the start of the drill to the first check that a user would see pass. "
                    "Recovery point actual (RPA) runs from the newest moment that came back to the assumed failure: the start of the drill, or a mistake that it rehearses. "
                    "Phases are measured on a monotonic clock. A check that could not run counts as not run, never as passed."
                }
                p { "Run " code { (self.outcome.run) } " under policy " code { (self.outcome.policy_hash) } ". Written by " (self.program) "." }
            }
        }
    }
}

/// Puts a page round a body.
pub(super) fn shell(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(SECURITY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
}

/// Returns the class that colours the result.
fn tone(report: &Report) -> &'static str {
    let outcome = &report.outcome;
    if outcome.passed() {
        "good"
    } else if outcome.error.is_some() || outcome.checks_failed() || outcome.breached() {
        "bad"
    } else {
        "warning"
    }
}

/// Returns the sign that says the same without colour.
fn sign(class: &str) -> &'static str {
    match class {
        "good" => "✓",
        "bad" => "✕",
        _ => "!",
    }
}

fn objective_tile(
    what: &str,
    actual: &str,
    objective: &str,
    [measured, wanted]: [Option<u64>; 2],
    judgement: Judgement,
) -> Markup {
    let class = match judgement {
        Judgement::Met => "good",
        Judgement::Breached => "bad",
        Judgement::NotMeasured => "warning",
        Judgement::NoObjective => "muted",
    };
    html! {
        div.tile {
            p.label { (what) " " abbr title={ (what) " actual" } { (actual) } }
            p.figure { (words::span(measured)) }
            (chart::meter(measured, wanted, judgement))
            p.note {
                @if let Some(wanted) = wanted { (objective) " " (human::millis(wanted)) ": " }
                span.word.(class) { (words::judgement(judgement)) }
            }
        }
    }
}

fn finding_item(finding: &Finding) -> Markup {
    let (class, sign, word) = match finding.severity {
        Severity::Bad => ("bad", "✕", "Bad: "),
        Severity::Warning => ("warning", "!", "Warning: "),
        Severity::Note => ("note", "i", "Note: "),
    };
    html! {
        li.(class) {
            span.sign aria-hidden="true" { (sign) }
            span { span.hidden { (word) } (words::sentence(&finding.text)) }
        }
    }
}
