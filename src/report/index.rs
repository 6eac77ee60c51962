//! `index.html`: the drills whose reports lie in one directory, the newest first.

use std::path::Path;

use maud::html;

use crate::human;
use crate::report::file::file_name;
use crate::report::html::shell;
use crate::report::{Report, words};

/// Renders the list. A drill whose report is no longer in the directory is listed without a link.
pub(super) fn page(report: &Report, dir: &Path) -> String {
    let zone = report.context.timezone;
    let link = |run: &crate::id::RunId| format!("drill-{}.html", file_name(run.as_str()));
    let body = html! {
        header.masthead { p { strong { "bkp" } " recovery drills" } }
        main {
            section {
                h2 { "Recovery drills of " (report.outcome.policy) }
                div.scroll { table {
                    thead { tr { th { "Started" } th.number { "RTA" } th.number { "RTO" } th.number { "RPA" } th.number { "RPO" } th { "Result" } } }
                    tbody { @for drill in report.history.iter().rev() { tr {
                        td {
                            @let time = human::exact_time(drill.started, zone);
                            @if drill.run == report.outcome.run || dir.join(link(&drill.run)).exists() {
                                a href=(link(&drill.run)) { (time) }
                            } @else { (time) }
                        }
                        td.number { (words::span(drill.rta_ms)) }
                        td.number { (words::span(drill.rto_ms)) }
                        td.number { (words::span(drill.rpa_ms)) }
                        td.number { (words::span(drill.rpo_ms)) }
                        td { @if drill.passed { span.word.good { "passed" } } @else { span.word.bad { "not passed" } } }
                    } } }
                } }
            }
        }
    };
    let title = format!("Recovery drills of {}", report.outcome.policy);
    shell(&title, &body).into_string()
}
