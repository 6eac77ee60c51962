//! The assertions about a binlog that is to be captured: the rights, tried out, and what the server writes into it.

use crate::capture::{Capture, CaptureError, Facts, SemiSync, probe};
use crate::doctor::{Finding, State};
use crate::human;
use crate::policy::{Ack, Policy};
use crate::run::Run;

pub(super) async fn examine(name: &str, policy: &Policy, run: &Run) -> Vec<Finding> {
    let what = format!("{name}: its binlog can be captured");
    let mut ack = Ack::Off;
    let probed = match Capture::of(policy, name) {
        Ok(Some(capture)) => {
            ack = capture.plan.ack;
            let run = run.clone();
            tokio::task::spawn_blocking(move || probe(&capture, &run)).await
        }
        Ok(None) => return Vec::new(),
        Err(error) => Ok(Err(error)),
    };
    match probed {
        Ok(Ok(facts)) => {
            let mut findings = vec![Finding::ok(what, files(&facts))];
            findings.extend(manners(name, &facts));
            findings.extend((ack == Ack::Spool).then(|| commits(name, &facts)));
            findings
        }
        Ok(Err(error)) => vec![Finding::new(State::Bad, what, human::chain(&error), error.hint())],
        Err(error) => {
            let error = CaptureError::Thread(error.to_string());
            vec![Finding::new(State::Bad, what, human::chain(&error), None)]
        }
    }
}

fn files(facts: &Facts) -> String {
    let bytes = facts.files.iter().map(|(_, bytes)| bytes).sum();
    let count = human::counted(facts.files.len() as u64, "file", "files");
    format!("{count} of {} on the server", human::bytes(bytes))
}

/// Warns of what makes a binlog worth less.
fn manners(name: &str, facts: &Facts) -> Vec<Finding> {
    let format = facts.variable("binlog_format");
    let image = facts.variable("binlog_row_image");
    let mut findings = Vec::new();
    let mut warn = |what: &str, detail: &str, hint: &str| {
        let what = format!("{name}: {what}");
        findings.push(Finding::new(State::Warning, what, detail, Some(hint.to_owned())));
    };
    // MySQL 9 no longer has the variable.
    if !matches!(format, "ROW" | "") {
        warn(
            "its binlog has rows",
            format,
            "set binlog_format = ROW: statements may come out otherwise when they are replayed",
        );
    }
    if !matches!(image, "FULL" | "") {
        warn("its binlog has whole rows", image, "set binlog_row_image = FULL: else nobody sees what a row was before");
    }
    if facts.variable("encrypt_binlog") == "ON" {
        warn(
            "its binlog is as it is sent",
            "encrypt_binlog is on",
            "an encrypted binlog of MariaDB cannot be captured",
        );
    }
    findings
}

/// Tells whether commits wait until the spool has them, as the policy wants.
fn commits(name: &str, facts: &Facts) -> Finding {
    let what = format!("{name}: its commits wait for the spool");
    match SemiSync::examine(facts.semi_sync().as_ref()) {
        (detail, None) => Finding::ok(what, detail),
        (detail, hint) => Finding::new(State::Warning, what, detail, hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_waits_for_nobody_is_named() {
        let found = |told: &[(&str, &str)]| commits("db1", &Facts::with(told));
        assert_eq!(found(&[]).state, State::Warning);
        let well = [("enabled", "ON"), ("status", "ON"), ("clients", "1"), ("wait_point", "AFTER_SYNC")];
        let well = well.map(|(name, value)| (format!("rpl_semi_sync_master_{name}"), value));
        let well: Vec<(&str, &str)> = well.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(found(&well).state, State::Ok, "{:?}", found(&well));
        assert_eq!(found(&well[..1]).state, State::Warning, "it has fallen back");
    }

    #[test]
    fn a_binlog_of_statements_is_doubtful_and_one_of_whole_rows_is_not() {
        let told = |variables: &[(&str, &str)]| {
            let findings = manners("db1", &Facts::with(variables));
            findings.into_iter().map(|finding| finding.detail).collect::<Vec<_>>()
        };
        assert_eq!(told(&[("binlog_format", "ROW"), ("binlog_row_image", "FULL")]), [] as [&str; 0]);
        assert_eq!(told(&[("binlog_row_image", "FULL")]), [] as [&str; 0]);
        assert_eq!(told(&[("binlog_format", "MIXED"), ("binlog_row_image", "MINIMAL")]), ["MIXED", "MINIMAL"]);
    }
}
