#![allow(clippy::unwrap_used)]

use std::path::Path;

use chrono::TimeDelta;

use super::*;
use crate::catalog::REPOSITORY;
use crate::drill::outcome::{Origin, Place, Scenario};
use crate::human;
use crate::human::Ink;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or_default()
}

fn now() -> DateTime<Utc> {
    at("2026-03-01T03:00:00Z")
}

/// A shop's policy with one source and a copy of that name.
fn policy_named(name: &str, copy: &str) -> Policy {
    let text = r#"
        version = 1
        name = "mall"
        timezone = "Asia/Seoul"
        objectives = { rpo = "24h", rto = "2h" }
        repository = { path = "/backup/mall", password_file = "/etc/bkp/mall.key" }
        copy = [{ name = "offsite", s3 = { bucket = "mall-dr", region = "ap-northeast-2" } }]
        files.images = { path = "/mnt/images" }
        retention = { daily = 7 }
        schedule = { backup = "15 */6 * * *" }
        "#;
    let mut policy = Policy::parse(text, Path::new("mall.toml")).unwrap();
    policy.name = name.to_owned();
    policy.copies[0].name = copy.to_owned();
    policy
}

fn policy() -> Policy {
    policy_named("mall", "offsite")
}

fn snapshot(store: &str, hours_ago: i64) -> SnapshotRecord {
    let time = now() - TimeDelta::hours(hours_ago);
    SnapshotRecord {
        store: store.to_owned(),
        id: SnapshotId::of(time.to_rfc3339().as_bytes()),
        source: "images".to_owned(),
        kind: "files".to_owned(),
        time,
        run: None,
        incomplete: false,
    }
}

fn drill() -> DrillOutcome {
    let objectives = ObjectivesMs::from(policy().objectives);
    let check = crate::drill::outcome::CheckResult {
        name: "orders".to_owned(),
        kind: "sql".to_owned(),
        result: crate::drill::outcome::CheckState::Pass,
        found: None,
        wanted: None,
        detail: None,
        duration_ms: 4,
    };
    let checks = vec![check];
    DrillOutcome {
        run: RunId::new(at("2026-02-28T21:00:00Z"), 3),
        policy: "mall".to_owned(),
        policy_hash: policy().hash,
        started: at("2026-02-28T21:00:00Z"),
        ended: at("2026-02-28T21:14:10Z"),
        place: Place { host: "drill-host".to_owned(), sandboxes: Vec::new(), cores: 2, memory_bytes: 1 << 32 },
        from: Origin::Repository,
        scenario: Scenario::Lost,
        snapshots: Vec::new(),
        phases: Vec::new(),
        rta_ms: Some(843_000),
        rpa_ms: Some(11_500_000),
        first_order: None,
        standbys: Vec::new(),
        objectives,
        verdict: DrillVerdict::judge(objectives, Some(843_000), Some(11_500_000), &checks),
        checks,
        error: None,
    }
}

fn run(verb: &str, outcome: Outcome, exit_code: Option<u8>) -> RunRecord {
    let started = now() - TimeDelta::hours(1);
    RunRecord {
        id: RunId::new(started, 1),
        policy: "mall".to_owned(),
        verb: verb.to_owned(),
        started,
        ended: None,
        outcome,
        exit_code,
        error: exit_code.map(|_| "read `/mnt/images`: stale file handle".to_owned()),
        phases: Vec::new(),
        bytes_read: 0,
        bytes_stored: 0,
        bytes_copied: 0,
        snapshots: Vec::new(),
    }
}

/// A mall in which all is well; each test spoils one thing.
struct Mall {
    policy: Policy,
    snapshots: Vec<SnapshotRecord>,
    runs: Vec<RunRecord>,
    drills: Vec<DrillOutcome>,
    freeze: Option<Freeze>,
    damaged: Vec<String>,
    heals: Vec<HealRecord>,
    next_runs: Vec<NextRun>,
}

impl Mall {
    fn well() -> Self {
        Self {
            policy: policy(),
            snapshots: vec![snapshot(REPOSITORY, 9), snapshot("offsite", 9)],
            runs: vec![run("backup", Outcome::Ok, Some(0))],
            drills: vec![drill()],
            freeze: None,
            damaged: Vec::new(),
            heals: Vec::new(),
            next_runs: vec![NextRun { verb: "backup".to_owned(), at: at("2026-03-01T17:15:00Z"), missed: None }],
        }
    }

    fn status(&self) -> Status {
        Status::new(&Inputs {
            policy: &self.policy,
            snapshots: &self.snapshots,
            runs: &self.runs,
            drills: &self.drills,
            copies: &[],
            freeze: self.freeze.as_ref(),
            damaged: &self.damaged,
            heals: &self.heals,
            next_runs: &self.next_runs,
            binlogs: &[],
            now: now(),
        })
    }

    /// Returns the verdict and its reasons in one text.
    fn said(&self) -> (Verdict, String) {
        let status = self.status();
        let reasons: Vec<String> = status.reasons.into_iter().map(|reason| reason.text).collect();
        (status.verdict, reasons.join("\n"))
    }
}

#[track_caller]
fn assert_said(mall: &Mall, verdict: Verdict, words: &str) {
    let (found, said) = mall.said();
    assert_eq!(found, verdict, "{said}");
    assert!(said.contains(words), "{said}");
}

#[test]
fn a_mall_in_which_all_is_well_is_ok() {
    assert_eq!(Mall::well().said(), (Verdict::Ok, String::new()));
}

#[test]
fn a_source_without_a_good_backup_is_bad() {
    let mut mall = Mall::well();
    mall.snapshots.clear();
    assert_said(&mall, Verdict::Bad, "`images` has no good backup");
    assert!(mall.status().sources[0].overdue);

    mall.snapshots = vec![snapshot(REPOSITORY, 1), snapshot("offsite", 1)];
    for snapshot in &mut mall.snapshots {
        snapshot.incomplete = true;
    }
    assert_said(&mall, Verdict::Bad, "`images` has no good backup");
}

#[test]
fn a_backup_older_than_the_rpo_is_bad() {
    let mut mall = Mall::well();
    mall.snapshots = vec![snapshot(REPOSITORY, 24), snapshot("offsite", 24)];
    assert_eq!(mall.said().0, Verdict::Ok);
    mall.snapshots = vec![snapshot(REPOSITORY, 25), snapshot("offsite", 25)];
    assert_said(&mall, Verdict::Bad, "is 1 d 1 h old; the RPO is 1 d");
}

#[test]
fn an_incomplete_backup_warns_and_the_good_one_before_it_counts() {
    let mut mall = Mall::well();
    let mut newest = snapshot(REPOSITORY, 1);
    newest.incomplete = true;
    mall.snapshots.push(newest);
    assert_said(&mall, Verdict::Warning, "the newest backup of `images` is incomplete");
    let good = mall.status().sources[0].last_good.clone();
    assert_eq!(good.map(|good| good.time), Some(snapshot("", 9).time));
}

#[test]
fn a_copy_is_behind_only_by_what_is_newer_than_it_holds() {
    let mut mall = Mall::well();
    mall.snapshots.push(snapshot(REPOSITORY, 40));
    assert_eq!(mall.said().0, Verdict::Ok);
    mall.snapshots.push(snapshot(REPOSITORY, 2));
    assert_said(&mall, Verdict::Warning, "copy `offsite` is 1 snapshot behind, the oldest since 2 h");
    let copy = mall.status().copies.remove(0);
    assert_eq!((copy.behind, copy.lag_ms), (1, 7_200_000));
}

#[test]
fn a_copy_later_than_the_rpo_is_bad() {
    let mut mall = Mall::well();
    mall.snapshots = vec![snapshot(REPOSITORY, 1), snapshot(REPOSITORY, 30), snapshot("offsite", 50)];
    assert_said(&mall, Verdict::Bad, "2 snapshots behind, the oldest since 1 d 6 h");
}

#[test]
fn a_copy_that_never_was_is_bad_once_it_is_later_than_the_rpo() {
    let mut mall = Mall::well();
    mall.snapshots = vec![snapshot(REPOSITORY, 9)];
    assert_said(&mall, Verdict::Warning, "copy `offsite` holds no snapshot yet");
    mall.snapshots.push(snapshot(REPOSITORY, 30));
    assert_said(&mall, Verdict::Bad, "copy `offsite` holds no snapshot yet; the oldest here is 1 d 6 h old");
}

#[test]
fn a_tripped_guard_is_bad() {
    let mut mall = Mall::well();
    mall.runs = vec![run("backup", Outcome::Failed, Some(15))];
    assert_said(&mall, Verdict::Bad, "a guard refused the last backup");
}

#[test]
fn a_backup_that_failed_is_bad_and_one_that_was_cut_warns() {
    let mut mall = Mall::well();
    mall.runs = vec![run("backup", Outcome::Failed, Some(1))];
    assert_said(&mall, Verdict::Bad, "the last backup failed: read `/mnt/images`: stale file handle");
    for (outcome, code) in [(Outcome::Interrupted, None), (Outcome::Stopped, Some(130))] {
        mall.runs = vec![run("backup", outcome, code)];
        assert_said(&mall, Verdict::Warning, "the last backup ");
    }
}

#[test]
fn the_screen_says_why_retention_rests() {
    let mut mall = Mall::well();
    mall.freeze = Some(Freeze::GuardTripped { source: "images".to_owned() });
    let screen = mall.status().text(Ink::plain());
    assert!(screen.contains("Retention frozen: a guard of `images` has tripped"), "{screen}");
}

#[test]
fn a_run_that_goes_on_for_longer_than_a_day_and_the_rpo_is_bad() {
    let mut mall = Mall::well();
    let mut hangs = run("backup", Outcome::Running, None);
    hangs.started = now() - TimeDelta::hours(24);
    mall.runs.push(hangs.clone());
    assert_eq!(mall.said().0, Verdict::Ok);
    hangs.started = now() - TimeDelta::hours(25);
    mall.runs.push(hangs);
    assert_said(&mall, Verdict::Bad, "a backup has been running for 1 d 1 h: it may hang");
}

#[test]
fn a_run_that_has_not_ended_is_no_reason() {
    let mut mall = Mall::well();
    mall.runs.push(run("backup", Outcome::Running, None));
    assert_eq!(mall.said().0, Verdict::Ok);
    assert_eq!(mall.status().running.len(), 1);
}

#[test]
fn damage_found_by_verify_is_bad() {
    let mut mall = Mall::well();
    mall.runs.push(run("verify", Outcome::Failed, Some(13)));
    assert_said(&mall, Verdict::Bad, "the last verify found damage");
}

#[test]
fn damage_found_beside_the_source_is_bad_and_change_is_not() {
    let mut mall = Mall::well();
    mall.runs.push(run(COMPARE, Outcome::Incomplete, Some(3)));
    assert_eq!(mall.said().0, Verdict::Ok);
    mall.runs = vec![run(COMPARE, Outcome::Failed, Some(13))];
    assert_said(&mall, Verdict::Bad, "held against its source showed damage");
}

#[test]
fn a_mall_without_a_drill_warns() {
    let mut mall = Mall::well();
    mall.drills.clear();
    assert_said(&mall, Verdict::Warning, "no drill has been run");
}

#[test]
fn a_drill_under_another_policy_needs_verifying() {
    let mut mall = Mall::well();
    mall.policy.hash = "bb".repeat(32);
    assert_said(&mall, Verdict::Warning, "needs verifying");
}

#[test]
fn a_drill_that_missed_its_rto_is_bad() {
    let mut mall = Mall::well();
    mall.drills[0].verdict.rto = Judgement::Breached;
    assert_said(&mall, Verdict::Bad, "recovery took 14 min 3 s; the RTO is 2 h");
}

#[test]
fn a_drill_that_left_a_check_undone_is_no_pass() {
    let mut mall = Mall::well();
    mall.drills[0].verdict.checks = crate::drill::outcome::ChecksVerdict::NotRun;
    assert_said(&mall, Verdict::Warning, "left something unproved");
}

#[test]
fn a_missed_backup_is_bad_and_a_missed_drill_warns() {
    let mut mall = Mall::well();
    mall.next_runs[0].missed = Some(at("2026-02-28T17:15:00Z"));
    assert_said(&mall, Verdict::Bad, "`backup` was due at 2026-03-01 02:15 KST and has not been done since");
    mall.next_runs[0].verb = "drill".to_owned();
    assert_said(&mall, Verdict::Warning, "`drill` was due at 2026-03-01 02:15 KST");
}

#[test]
fn the_worst_reason_comes_first() {
    let mut mall = Mall::well();
    mall.runs = vec![run("backup", Outcome::Stopped, Some(130))];
    mall.drills[0].verdict.rto = Judgement::Breached;
    let verdicts: Vec<Verdict> = mall.status().reasons.iter().map(|reason| reason.verdict).collect();
    assert_eq!(verdicts, [Verdict::Bad, Verdict::Warning]);
}

#[test]
fn the_screen_fits_80_columns_whatever_the_names() {
    let mut mall = Mall::well();
    mall.policy = policy_named(&"한국쇼핑몰".repeat(12), &"가나다라".repeat(10));
    mall.policy.timezone = chrono_tz::Asia::Kathmandu;
    mall.runs = vec![run("backup", Outcome::Failed, Some(1)), run("verify", Outcome::Running, None)];
    mall.runs[0].error = Some("x".repeat(300));
    mall.snapshots.extend((0..1200).map(|hour| snapshot(REPOSITORY, hour)));
    for line in mall.status().text(Ink::plain()).lines() {
        assert!(human::width(line) <= 80, "{line}");
    }
}

#[test]
fn the_screen_reads_well() {
    let mut mall = Mall::well();
    mall.snapshots.push(snapshot(REPOSITORY, 2));
    insta::assert_snapshot!(mall.status().text(Ink::plain()));
}

#[test]
fn the_json_form_keeps_its_names() {
    let status = serde_json::to_value(Mall::well().status()).unwrap_or_default();
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
    };
    insta::assert_debug_snapshot!((
        names(&status),
        names(&status["sources"][0]),
        names(&status["copies"][0]),
        names(&status["drill"])
    ));
}

#[test]
fn what_makes_retention_rest_is_bad_though_the_newest_runs_went_well() {
    let mut mall = Mall::well();
    mall.damaged = vec!["offsite".to_owned()];
    let (verdict, said) = mall.said();
    assert_eq!(verdict, Verdict::Bad);
    assert!(said.contains("damage in `offsite`"), "{said}");

    let mut mall = Mall::well();
    mall.freeze = Some(Freeze::RunFailed { source: "db1".to_owned() });
    assert_eq!(mall.said(), (Verdict::Bad, "the newest backup of `db1` did not succeed".to_owned()));
    mall.freeze = Some(Freeze::RunStopped { source: "db1".to_owned() });
    assert_eq!(mall.said().0, Verdict::Ok);
}

#[test]
fn what_was_mended_is_told_for_a_month() {
    let mut mall = Mall::well();
    let heal = |days: i64, store: &str, mended: &[&str]| HealRecord {
        run: RunId::new(now() - TimeDelta::days(days), 1),
        started: now() - TimeDelta::days(days),
        store: store.to_owned(),
        mended: mended.iter().map(|&line| line.to_owned()).collect(),
        bytes: 1,
        left: Vec::new(),
    };
    mall.heals = vec![heal(31, REPOSITORY, &["data/ab from usb"]), heal(1, REPOSITORY, &[])];
    assert_eq!(mall.said(), (Verdict::Ok, String::new()));
    mall.heals = vec![
        heal(2, REPOSITORY, &["data/ab from usb", "data/cd from usb"]),
        heal(9, REPOSITORY, &["index/ef from usb"]),
    ];
    assert_said(&mall, Verdict::Warning, "verify healed 3 objects of `repository` in the last 30 days, the last on ");
    mall.heals.push(heal(3, "offsite", &["config from repository"]));
    assert_said(&mall, Verdict::Warning, "verify healed 1 object of `offsite`");
}

#[test]
fn a_drill_that_could_not_begin_does_not_leave_the_one_before_standing() {
    let mut mall = Mall::well();
    let mut unbegun = run("drill", Outcome::Failed, Some(12));
    unbegun.error = Some("wrong credentials".to_owned());
    mall.runs.push(unbegun);
    assert_eq!(mall.said(), (Verdict::Bad, "the last drill could not begin: wrong credentials".to_owned()));
}
