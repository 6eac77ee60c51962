#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;
use crate::backup::{self, BackupError, Outcome};
use crate::cycle::done::BackupDone;
use crate::forget::{ForgetPlan, Forgotten};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A mall that backs up each night and verifies each week, with more of a policy's text.
fn mall(more: &str) -> Policy {
    let text = format!(
        r#"
        version = 1
        name = "mall"
        repository = {{ path = "/backup/mall", password_file = "/etc/bkp/mall.key" }}
        files.images = {{ path = "/mnt/images" }}
        retention = {{ daily = 7 }}
        {more}
        "#
    );
    Policy::parse(&text, Path::new("mall.toml")).unwrap()
}

fn nightly() -> Policy {
    mall("schedule = { backup = \"15 2 * * *\", verify = \"0 5 * * sun\" }")
}

/// Stamps of a policy that is known since the first of May.
fn stamps(change: impl FnOnce(&mut Stamps)) -> Stamps {
    let mut stamps = Stamps { first_seen: Some(at("2026-05-01T12:00:00Z")), ..Stamps::default() };
    change(&mut stamps);
    stamps
}

#[test]
fn a_verb_that_failed_rests_and_one_that_failed_in_the_future_does_not() {
    let now = at("2026-05-02T02:16:00Z");
    let verbs = |stamps: &Stamps| agenda_of(&nightly(), stamps, now).verbs;
    assert_eq!(verbs(&stamps(|_| {})), [Verb::Backup]);
    let failed = stamps(|stamps| stamps.fail("backup", at("2026-05-02T02:15:30Z")));
    let agenda = agenda_of(&nightly(), &failed, now);
    assert_eq!((agenda.verbs, agenda.next), (vec![], Some(at("2026-05-02T02:16:30Z"))));
    let from_2099 = stamps(|stamps| {
        stamps.fail("backup", at("2099-01-01T00:00:00Z"));
        stamps.fail("copy", at("2099-01-01T00:00:00Z"));
    });
    assert_eq!(verbs(&from_2099), [Verb::Backup]);
    let copy_from_2099 = stamps(|stamps| {
        stamps.succeed("backup", now);
        stamps.fail("copy", at("2099-01-01T00:00:00Z"));
    });
    assert_eq!(verbs(&copy_from_2099), [Verb::Copy]);
}

#[test]
fn seven_verifies_read_every_share_whatever_the_days_between() {
    for days in [1, 7, 30] {
        let mut stamps = stamps(|_| {});
        let mut shares = Vec::new();
        for turn in 0..7 {
            let task = task_of(&nightly(), Verb::Verify, &backup::Options::default(), &stamps);
            let Task::Verify { copy: None, options, heals: true, salvages: false } = task else {
                panic!("no verify that heals")
            };
            shares.push(options.subset.unwrap().to_string());
            stamps.succeed("verify", at("2026-05-03T05:00:00Z") + TimeDelta::days(days * turn));
        }
        shares.sort();
        assert_eq!(shares, ["1/7", "2/7", "3/7", "4/7", "5/7", "6/7", "7/7"], "every {days} days");
    }
}

#[test]
fn a_policy_may_have_its_verifies_only_look() {
    let policy = mall("verify = { heal = false }");
    let task = task_of(&policy, Verb::Verify, &backup::Options::default(), &Stamps::default());
    assert!(matches!(task, Task::Verify { heals: false, .. }), "{task:?}");
}

#[test]
fn a_verify_that_broke_is_tried_again_with_the_same_share() {
    let failed = Err(Failure::new(Exit::Failed, "unreachable"));
    let task = task_of(&nightly(), Verb::Verify, &backup::Options::default(), &Stamps::default());
    assert_eq!(stamps_of(&task, &failed), [(Verb::Verify, false)]);
    let stamps = stamps(|stamps| stamps.fail("verify", at("2026-05-03T05:00:00Z")));
    let task = task_of(&nightly(), Verb::Verify, &backup::Options::default(), &stamps);
    let Task::Verify { options, .. } = task else { panic!("no verify") };
    assert_eq!(options.subset.unwrap().to_string(), "1/7");
}

#[test]
fn all_that_a_policy_can_do_needs_no_schedule() {
    assert_eq!(everything(&mall("")), [Verb::Backup, Verb::Verify]);
    let rehearsed = mall(
        "mysql.db1 = { host = \"127.0.0.1\", user = \"bkp\" }\n\
         drill = { checks = [{ sql = \"SELECT 1\", min = 1 }] }",
    );
    assert_eq!(everything(&rehearsed), [Verb::Backup, Verb::Verify, Verb::Drill]);
}

#[test]
fn a_run_is_missed_once_it_is_late_and_until_it_has_succeeded() {
    let missed = |policy: &Policy, stamps: &Stamps, now: &str| missed_of(policy, stamps, at(now));
    let night = at("2026-05-02T02:15:00Z");
    let none = stamps(|_| {});
    assert_eq!(missed(&nightly(), &none, "2026-05-02T02:19:00Z"), []);
    assert_eq!(missed(&nightly(), &none, "2026-05-02T02:21:00Z"), [(Verb::Backup, night)]);
    let failed = stamps(|stamps| stamps.fail("backup", night));
    assert_eq!(missed(&nightly(), &failed, "2026-05-02T12:00:00Z"), [(Verb::Backup, night)]);
    let done = stamps(|stamps| stamps.succeed("backup", night));
    assert_eq!(missed(&nightly(), &done, "2026-05-02T12:00:00Z"), []);

    let often = mall("schedule = { backup = \"*/5 * * * *\", catch_up = \"none\" }");
    let long_ago = stamps(|stamps| stamps.succeed("backup", at("2026-05-02T02:00:00Z")));
    assert_eq!(missed(&often, &long_ago, "2026-05-02T02:31:00Z"), [(Verb::Backup, at("2026-05-02T02:05:00Z"))]);
}

/// A backup that is through with its sources, of which some failed.
fn backed_up(failed: &[&str]) -> Done {
    let stopped = |source: &&str| ((*source).to_owned(), BackupError::Stopped(crate::run::Stopped));
    let outcome = Outcome { done: Vec::new(), failed: failed.iter().map(stopped).collect() };
    let forgotten = Ok((ForgetPlan::default(), Forgotten::default()));
    Done::Backup(Box::new(BackupDone { outcome, copies: Vec::new(), forgotten }))
}

#[test]
fn only_a_backup_of_the_whole_policy_is_the_schedules() {
    let whole = task_of(&nightly(), Verb::Backup, &backup::Options::default(), &Stamps::default());
    let options = backup::Options { sources: vec!["images".to_owned()], ..backup::Options::default() };
    let part = Task::Backup { options, with_copies: true };
    assert_eq!(stamps_of(&whole, &Ok(backed_up(&[]))), [(Verb::Backup, true)]);
    assert_eq!(stamps_of(&whole, &Ok(backed_up(&["images"]))), [(Verb::Backup, false)]);
    assert_eq!(stamps_of(&part, &Ok(backed_up(&[]))), []);
    assert_eq!(stamps_of(&part, &Ok(backed_up(&["images"]))), []);
    let one_copy = Task::Copy { copies: vec!["usb".to_owned()] };
    assert_eq!(stamps_of(&one_copy, &Ok(Done::Copy(Vec::new()))), [], "another copy may still be owed");
}

#[test]
fn a_binlog_is_due_each_interval_and_not_at_every_second_look_of_cron() {
    let captured = mall(
        "mysql.db1 = { socket = \"/run/s.sock\", user = \"bkp\", binlog = { capture = true, interval = \"5m\" } }\n\
         schedule = { backup = \"15 2 * * *\" }",
    );
    let now = at("2026-05-01T12:10:00Z");
    let verbs = |stamps: &Stamps| agenda_of(&captured, stamps, now).verbs;
    assert_eq!(verbs(&stamps(|_| {})), [Verb::Capture]);
    assert_eq!(verbs(&stamps(|stamps| stamps.succeed("capture", at("2026-05-01T12:07:00Z")))), Vec::<Verb>::new());
    assert_eq!(verbs(&stamps(|stamps| stamps.succeed("capture", at("2026-05-01T12:05:02Z")))), [Verb::Capture]);
    assert_eq!(everything(&captured), [Verb::Backup, Verb::Capture, Verb::Verify]);
    let failed = |at_: &str| stamps(|stamps| (0..9).for_each(|_| stamps.fail("capture", at(at_))));
    assert_eq!(verbs(&failed("2026-05-01T12:06:00Z")), Vec::<Verb>::new());
    assert_eq!(verbs(&failed("2026-05-01T12:05:00Z")), [Verb::Capture], "one sick source must not rest the others");
}
