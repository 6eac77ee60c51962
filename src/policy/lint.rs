//! What holds together and is still worth less than it looks: copies that one event takes with the original, locks too short.
//!
//! A lint is a warning. The policy is as its operator wants it, and a run works; but somebody should know.

use std::time::Duration;

use chrono::DateTime;
use chrono_tz::Tz;

use crate::policy::{CopyPlace, CopyTarget, Policy, VERIFY_SHARES};
use crate::schedule::Cron;

/// A doubt about a policy, and what removes it. Its texts fit to follow "warning".
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Lint {
    /// What it is about: `copy offsite`, or `all copies`.
    pub subject: String,
    pub what: String,
    pub remedy: String,
}

/// Returns the doubts about a policy, as far as its text alone shows them.
#[must_use]
pub fn lints(policy: &Policy) -> Vec<Lint> {
    let copies = &policy.copies;
    let mut found: Vec<Lint> = copies.iter().flat_map(|copy| of_copy(copy, policy)).collect();
    for (rank, copy) in copies.iter().enumerate() {
        if let Some(earlier) = copies.iter().take(rank).find(|earlier| is_same_bucket(earlier, copy)) {
            let what = format!("lies in the bucket of copy `{}`: what empties the bucket takes both", earlier.name);
            found.push(lint(copy, what, "give it a bucket of its own, best of another account or provider"));
        }
    }
    found.extend(of_all(copies));
    found
}

/// What 3-2-1-1-0 asks of all copies together.
fn of_all(copies: &[CopyPlace]) -> Vec<Lint> {
    let of_all = |what: &str, remedy: &str| Lint {
        subject: "all copies".to_owned(),
        what: what.to_owned(),
        remedy: remedy.to_owned(),
    };
    if copies.is_empty() {
        let remedy = "add a [[copy]] table: a fire takes the source and the repository together";
        return vec![of_all("the policy names none", remedy)];
    }
    let mut found = Vec::new();
    if copies.len() == 1 {
        let remedy = "add a second one of another kind (a disk that is taken away, another provider): 3-2-1-1-0 counts three copies of \
                      the data beside the source";
        found.push(of_all("there is only one", remedy));
    }
    if !copies.iter().any(|copy| copy.s3().is_some_and(|s3| !s3.is_loopback())) {
        let remedy = "add a copy in an object store elsewhere, or say in your runbook who carries the disk away";
        found.push(of_all("none is off this site, as far as the policy shows", remedy));
    }
    if !copies.iter().any(|copy| copy.object_lock().is_some()) {
        let remedy = "add `object_lock = { mode = \"governance\", retain = \"30d\" }` to a copy in a bucket that was made with Object Lock: \
                      whoever gets this machine's credentials can delete all the others";
        found.push(of_all("none is immutable", remedy));
    }
    found
}

fn of_copy(copy: &CopyPlace, policy: &Policy) -> Vec<Lint> {
    let Some(s3) = copy.s3() else { return Vec::new() };
    let mut found = Vec::new();
    if s3.is_loopback() {
        let what = "its server is on this machine, and is lost with it";
        found.push(lint(copy, what, "name an endpoint on another machine, best at another site"));
    }
    if copy.is_write_only() && s3.object_lock.is_none() {
        let what = "its credentials can take no lock there, so a prune of it by anybody else may delete what a copy has just sent";
        found.push(lint(copy, what, "add object_lock: what was just sent cannot be deleted then"));
    }
    let Some(lock) = s3.object_lock else { return found };
    if let Some(cycle) = longest(policy.schedule.verify.as_ref(), policy.timezone).map(|gap| gap * VERIFY_SHARES)
        && lock.retain < cycle
    {
        let (retain, cycle) = (days(lock.retain), days(cycle));
        let what = format!(
            "its lock of {retain} ends before scheduled verifies have read every pack once, which takes {cycle}"
        );
        found.push(lint(copy, what, format!("write `retain = \"{cycle}\"` or more, or verify more often")));
    }
    if let Some(gap) = longest(policy.schedule.backup.as_ref(), policy.timezone)
        && lock.retain < gap * 2
    {
        let what = format!("its lock of {} ends when one scheduled copy fails", days(lock.retain));
        found.push(lint(copy, what, format!("write `retain = \"{}\"` or more: each copy lengthens it", days(gap * 2))));
    }
    found
}

fn lint(copy: &CopyPlace, what: impl Into<String>, remedy: impl Into<String>) -> Lint {
    Lint { subject: format!("copy {}", copy.name), what: what.into(), remedy: remedy.into() }
}

fn is_same_bucket(one: &CopyPlace, other: &CopyPlace) -> bool {
    match (&one.place, &other.place) {
        (CopyTarget::S3(one), CopyTarget::S3(other)) => one.bucket == other.bucket && one.endpoint == other.endpoint,
        _ => false,
    }
}

/// Returns the longest stretch between two runs of a schedule.
fn longest(cron: Option<&Cron>, timezone: Tz) -> Option<Duration> {
    let gap = cron?.largest_gap(timezone, DateTime::from_timestamp(REFERENCE_S, 0).unwrap_or_default())?;
    gap.length().to_std().ok()
}

/// 1 January 2026: a fixed year, so that a policy without a doubt has none tomorrow.
const REFERENCE_S: i64 = 1_767_225_600;

/// Writes a span in whole days, as a policy would.
fn days(span: Duration) -> String {
    const DAY_S: u64 = 86400;
    format!("{}d", span.as_secs().div_ceil(DAY_S))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn found(copies: &str, schedule: &str) -> Vec<String> {
        let text = format!(
            "version = 1\nname = \"mall\"\n[repository]\npath = \"/backup/mall\"\npassword_file = \"/etc/key\"\n\
             [files.images]\npath = \"/images\"\n[retention]\nlast = 3\n[schedule]\n{schedule}\n{copies}"
        );
        let policy = Policy::parse(&text, Path::new("mall.toml")).unwrap();
        lints(&policy).into_iter().map(|lint| format!("{}: {}", lint.subject, lint.what)).collect()
    }

    fn bucket(name: &str, more: &str) -> String {
        format!("[[copy]]\nname = \"{name}\"\ns3 = {{ bucket = \"dr\", prefix = \"{name}\", region = \"r\"{more} }}\n")
    }

    const LOCK: &str = ", object_lock = { mode = \"compliance\", retain = \"30d\" }";

    fn holds(found: &[String], text: &str) -> bool {
        found.iter().any(|line| line.contains(text))
    }

    #[test]
    fn three_two_one_one_is_asked_for_until_it_is_there() {
        assert_eq!(found("", ""), ["all copies: the policy names none"]);
        let one = found(&bucket("a", ""), "");
        assert!(one.len() == 2 && holds(&one, "only one") && holds(&one, "none is immutable"), "{one:?}");
        let disk = found("[[copy]]\nname = \"usb\"\npath = \"/mnt/usb\"\n", "");
        assert!(holds(&disk, "none is off this site"), "{disk:?}");
        let both = format!("{}[[copy]]\nname = \"usb\"\npath = \"/mnt/usb\"\n", bucket("a", LOCK));
        assert_eq!(found(&both, ""), Vec::<String>::new());
    }

    #[test]
    fn what_one_event_takes_together_is_named() {
        let two = found(&(bucket("a", LOCK) + &bucket("b", LOCK)), "");
        assert_eq!(two, ["copy b: lies in the bucket of copy `a`: what empties the bucket takes both"]);
        for host in ["localhost:9000", "127.0.0.2", "[::1]:9000"] {
            let here = found(&bucket("a", &format!(", endpoint = \"http://{host}\"")), "");
            assert!(holds(&here, "on this machine"), "{host}: {here:?}");
        }
        let away = found(&bucket("a", ", endpoint = \"http://10.0.0.1:9000\""), "");
        assert!(!holds(&away, "on this machine"), "{away:?}");
    }

    #[test]
    fn a_lock_that_ends_before_every_pack_was_read_once_is_too_short() {
        let weekly = found(&bucket("a", LOCK), "verify = \"0 5 * * sun\"");
        assert!(
            holds(&weekly, "its lock of 30d ends before scheduled verifies have read every pack once, which takes 49d"),
            "{weekly:?}"
        );
        let daily = found(&bucket("a", LOCK), "verify = \"0 5 * * *\"");
        assert!(!holds(&daily, "its lock"), "{daily:?}");
    }

    #[test]
    fn a_lock_that_one_failed_copy_lets_lapse_is_too_short() {
        let monthly = found(&bucket("a", LOCK), "backup = \"0 2 1 * *\"");
        assert!(holds(&monthly, "ends when one scheduled copy fails"), "{monthly:?}");
        let weekly = found(&bucket("a", LOCK), "backup = \"0 2 * * sun\"");
        assert!(!holds(&weekly, "its lock"), "{weekly:?}");
    }

    #[test]
    fn a_write_only_copy_wants_the_stores_lock() {
        let open = found(&bucket("a", ", access = \"write-only\""), "");
        assert!(holds(&open, "can take no lock there"), "{open:?}");
        let locked = found(&bucket("a", &format!(", access = \"write-only\"{LOCK}")), "");
        assert!(!holds(&locked, "can take no lock there"), "{locked:?}");
    }
}
