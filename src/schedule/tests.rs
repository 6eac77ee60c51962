#![allow(clippy::unwrap_used, clippy::expect_used)]

mod oracle;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::{Africa, America, Asia, Australia, Europe, Pacific, Tz};
use insta::assert_snapshot;
use tempfile::TempDir;

use crate::clock::FixedClock;
use crate::event::Events;
use crate::run::Run;
use crate::schedule::{CatchUp, Cron, Due, LockError, RunLock, Stamps, due};

fn cron(text: &str) -> Cron {
    Cron::parse(text).unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Returns the next moments as the zone's wall clock shows them.
fn fires(text: &str, tz: Tz, after: &str, count: usize) -> String {
    let mut at = at(after);
    let cron = cron(text);
    let fires = std::iter::from_fn(|| {
        at = cron.next_after(at, tz)?;
        Some(at.with_timezone(&tz).format("%a %F %H:%M %:z").to_string())
    });
    fires.take(count).collect::<Vec<_>>().join("\n")
}

#[test]
fn fields_mean_what_crontab_says() {
    let table = [
        ("15 2 * * *", "daily"),
        ("0 0 * * 0", "Sunday is 0"),
        ("0 0 * * 7", "Sunday is 7"),
        ("0 0 * * 1", "Monday is 1"),
        ("0 0 * * 5-7", "Friday to Sunday"),
        ("0 0 * * sat-sun", "names in a range"),
        ("0 0 * * Mon,WED", "names in a list"),
        ("0 0 * * 1-5/2", "steps of weekdays"),
        ("0 0 13 * fri", "the 13th or a Friday"),
        ("0 0 */10 * fri", "a star with a step still ANDs"),
        ("0 0 1,15 jan-mar *", "months by name"),
        ("5-59/20 */12 * * *", "steps"),
        ("@weekly", "alias"),
        ("@HOURLY", "alias"),
        ("0 0 29 2 *", "leap day"),
    ];
    let lines = table.map(|(text, note)| {
        let next = fires(text, Tz::UTC, "2026-01-02T12:00:00Z", 3).replace(" +00:00", "");
        format!("{text} ({note}): {}", next.replace('\n', ", "))
    });
    assert_snapshot!(lines.join("\n"), @r"
    15 2 * * * (daily): Sat 2026-01-03 02:15, Sun 2026-01-04 02:15, Mon 2026-01-05 02:15
    0 0 * * 0 (Sunday is 0): Sun 2026-01-04 00:00, Sun 2026-01-11 00:00, Sun 2026-01-18 00:00
    0 0 * * 7 (Sunday is 7): Sun 2026-01-04 00:00, Sun 2026-01-11 00:00, Sun 2026-01-18 00:00
    0 0 * * 1 (Monday is 1): Mon 2026-01-05 00:00, Mon 2026-01-12 00:00, Mon 2026-01-19 00:00
    0 0 * * 5-7 (Friday to Sunday): Sat 2026-01-03 00:00, Sun 2026-01-04 00:00, Fri 2026-01-09 00:00
    0 0 * * sat-sun (names in a range): Sat 2026-01-03 00:00, Sun 2026-01-04 00:00, Sat 2026-01-10 00:00
    0 0 * * Mon,WED (names in a list): Mon 2026-01-05 00:00, Wed 2026-01-07 00:00, Mon 2026-01-12 00:00
    0 0 * * 1-5/2 (steps of weekdays): Mon 2026-01-05 00:00, Wed 2026-01-07 00:00, Fri 2026-01-09 00:00
    0 0 13 * fri (the 13th or a Friday): Fri 2026-01-09 00:00, Tue 2026-01-13 00:00, Fri 2026-01-16 00:00
    0 0 */10 * fri (a star with a step still ANDs): Fri 2026-05-01 00:00, Fri 2026-07-31 00:00, Fri 2026-08-21 00:00
    0 0 1,15 jan-mar * (months by name): Thu 2026-01-15 00:00, Sun 2026-02-01 00:00, Sun 2026-02-15 00:00
    5-59/20 */12 * * * (steps): Fri 2026-01-02 12:05, Fri 2026-01-02 12:25, Fri 2026-01-02 12:45
    @weekly (alias): Sun 2026-01-04 00:00, Sun 2026-01-11 00:00, Sun 2026-01-18 00:00
    @HOURLY (alias): Fri 2026-01-02 13:00, Fri 2026-01-02 14:00, Fri 2026-01-02 15:00
    0 0 29 2 * (leap day): Tue 2028-02-29 00:00, Sun 2032-02-29 00:00, Fri 2036-02-29 00:00
    ");
}

#[test]
fn what_crontab_does_not_allow_is_refused_with_the_item_and_a_remedy() {
    let wrong = [
        "",
        "15 2 * *",
        "0 15 2 * * *",
        "60 2 * * *",
        "15 24 * * *",
        "0 0 0 * *",
        "0 0 32 * *",
        "0 0 * 13 *",
        "0 0 * * 8",
        "0 0 * foo *",
        "5/15 * * * *",
        "*/0 * * * *",
        "20-10 * * * *",
        "1,,2 * * * *",
        "+5 * * * *",
        "? * * * *",
        "0 0 L * *",
        "0 0 * * fri-mon",
        "*/x * * * *",
        "@reboot",
        "@often",
        "0 0 30 2 *",
        "0 0 31 4,6 *",
        "4294967297 * * * *",
        "*-5 * * * *",
    ];
    let lines = wrong.map(|text| {
        let error = Cron::parse(text).unwrap_err();
        format!("{error}; {}", error.hint())
    });
    assert_snapshot!(lines.join("\n"), @r#"
    read the schedule ``: it has 0 fields and not five; write minute, hour, day, month and weekday: "15 2 * * *" is daily at 02:15
    read the schedule `15 2 * *`: it has 4 fields and not five; write minute, hour, day, month and weekday: "15 2 * * *" is daily at 02:15
    read the schedule `0 15 2 * * *`: it has 6 fields and not five; write minute, hour, day, month and weekday; there are no seconds
    read the schedule `60 2 * * *`: minute `60` is no value, range or step of 0-59; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `15 24 * * *`: hour `24` is no value, range or step of 0-23; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `0 0 0 * *`: day of month `0` is no value, range or step of 1-31; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `0 0 32 * *`: day of month `32` is no value, range or step of 1-31; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `0 0 * 13 *`: month `13` is no value, range or step of 1-12 or jan-dec; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `0 0 * * 8`: weekday `8` is no value, range or step of 0-7 or sun-sat (Sunday is 0 and 7); a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `0 0 * foo *`: month `foo` is no value, range or step of 1-12 or jan-dec; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `5/15 * * * *`: minute `5/15` is no value, range or step of 0-59; a step wants a range: `*/15`, or from 5 on `5-LAST/15`
    read the schedule `*/0 * * * *`: minute `*/0` is no value, range or step of 0-59; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `20-10 * * * *`: minute `20-10` is no value, range or step of 0-59; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `1,,2 * * * *`: minute `` is no value, range or step of 0-59; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `+5 * * * *`: minute `+5` is no value, range or step of 0-59; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `? * * * *`: minute `?` is no value, range or step of 0-59; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `0 0 L * *`: day of month `L` is no value, range or step of 1-31; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `0 0 * * fri-mon`: weekday `fri-mon` is no value, range or step of 0-7 or sun-sat (Sunday is 0 and 7); a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `*/x * * * *`: minute `*/x` is no value, range or step of 0-59; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `@reboot`: crontab has no such name; there are @hourly, @daily, @weekly, @monthly and @yearly
    read the schedule `@often`: crontab has no such name; there are @hourly, @daily, @weekly, @monthly and @yearly
    read the schedule `0 0 30 2 *`: no day is ever like this; choose a day that the month has
    read the schedule `0 0 31 4,6 *`: no day is ever like this; choose a day that the month has
    read the schedule `4294967297 * * * *`: minute `4294967297` is no value, range or step of 0-59; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the schedule `*-5 * * * *`: minute `*-5` is no value, range or step of 0-59; a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    "#);
}

#[test]
fn a_time_that_is_left_out_runs_at_the_first_moment_after_the_gap() {
    let zones = [
        (Europe::Berlin, "2026-03-28T12:00:00Z"),
        (America::New_York, "2026-03-07T12:00:00Z"),
        (Australia::Lord_Howe, "2026-10-03T00:00:00Z"),
        (Asia::Seoul, "2026-03-28T00:00:00Z"),
    ];
    let lines = zones.map(|(tz, after)| format!("{tz}\n{}", fires("15 2 * * *", tz, after, 3)));
    assert_snapshot!(lines.join("\n"), @r"
    Europe/Berlin
    Sun 2026-03-29 03:00 +02:00
    Mon 2026-03-30 02:15 +02:00
    Tue 2026-03-31 02:15 +02:00
    America/New_York
    Sun 2026-03-08 03:00 -04:00
    Mon 2026-03-09 02:15 -04:00
    Tue 2026-03-10 02:15 -04:00
    Australia/Lord_Howe
    Sun 2026-10-04 02:30 +11:00
    Mon 2026-10-05 02:15 +11:00
    Tue 2026-10-06 02:15 +11:00
    Asia/Seoul
    Sun 2026-03-29 02:15 +09:00
    Mon 2026-03-30 02:15 +09:00
    Tue 2026-03-31 02:15 +09:00
    ");
    // Cairo's clocks change at midnight: 00:30 of that Friday does not exist.
    assert_snapshot!(fires("30 0 * * *", Africa::Cairo, "2026-04-22T23:00:00Z", 3), @r"
    Fri 2026-04-24 01:00 +03:00
    Sat 2026-04-25 00:30 +03:00
    Sun 2026-04-26 00:30 +03:00
    ");
    // Samoa left out a whole day.
    assert_snapshot!(fires("0 12 * * *", Pacific::Apia, "2011-12-29T00:00:00Z", 3), @r"
    Thu 2011-12-29 12:00 -10:00
    Sat 2011-12-31 00:00 +14:00
    Sat 2011-12-31 12:00 +14:00
    ");
}

#[test]
fn a_time_that_comes_twice_runs_once() {
    let zones = [
        (Europe::Berlin, "2026-10-24T12:00:00Z", "30 2 * * *"),
        (America::New_York, "2026-10-31T12:00:00Z", "30 1 * * *"),
        (Australia::Lord_Howe, "2026-04-04T00:00:00Z", "45 1 * * *"),
        (Africa::Cairo, "2026-10-29T00:00:00Z", "30 23 * * *"),
    ];
    let lines = zones.map(|(tz, after, text)| format!("{tz}\n{}", fires(text, tz, after, 3)));
    assert_snapshot!(lines.join("\n"), @r"
    Europe/Berlin
    Sun 2026-10-25 02:30 +02:00
    Mon 2026-10-26 02:30 +01:00
    Tue 2026-10-27 02:30 +01:00
    America/New_York
    Sun 2026-11-01 01:30 -04:00
    Mon 2026-11-02 01:30 -05:00
    Tue 2026-11-03 01:30 -05:00
    Australia/Lord_Howe
    Sun 2026-04-05 01:45 +11:00
    Mon 2026-04-06 01:45 +10:30
    Tue 2026-04-07 01:45 +10:30
    Africa/Cairo
    Thu 2026-10-29 23:30 +03:00
    Fri 2026-10-30 23:30 +02:00
    Sat 2026-10-31 23:30 +02:00
    ");
}

#[test]
fn an_hourly_schedule_keeps_its_pace_where_clocks_change() {
    for (tz, after) in [
        (Europe::Berlin, "2026-10-24T20:00:00Z"),
        (Europe::Berlin, "2026-03-28T20:00:00Z"),
        (America::New_York, "2026-11-01T00:00:00Z"),
    ] {
        let cron = cron("*/5 * * * *");
        let mut last = at(after);
        for _ in 0..200 {
            let next = cron.next_after(last, tz).unwrap();
            assert_eq!(next - last, TimeDelta::minutes(5), "{tz} {last}");
            last = next;
        }
    }
}

#[test]
fn the_largest_gap_counts_the_long_day() {
    let from = at("2026-01-01T00:00:00Z");
    let table = [
        ("*/5 * * * *", Europe::Berlin, 5),
        ("15 2 * * *", Asia::Seoul, 24 * 60),
        ("15 2 * * *", Europe::Berlin, 25 * 60),
        ("0 8-18 * * *", Asia::Seoul, 14 * 60),
        ("0 0 * * mon-fri", Asia::Seoul, 72 * 60),
        ("0 0 1 * *", Asia::Seoul, 31 * 24 * 60),
        ("0 0 1 1 *", Asia::Seoul, 365 * 24 * 60),
        ("0 0 29 2 *", Asia::Seoul, 1461 * 24 * 60),
    ];
    for (text, tz, minutes) in table {
        let gap = cron(text).largest_gap(tz, from).unwrap();
        assert_eq!(gap.length(), TimeDelta::minutes(minutes), "{text} {tz}: {gap:?}");
    }
}

#[test]
fn a_run_is_due_from_its_time_until_it_succeeds() {
    let cron = cron("0 2 * * *");
    let seen = at("2026-05-01T12:00:00Z");
    let is_due = |success: Option<&str>, now: &str| due(&cron, Tz::UTC, success.map(at), seen, at(now), CatchUp::One);
    let not_due = |next: &str| Due::NotDue { next: Some(at(next)) };
    let since = |time: &str, missed| Due::Due { scheduled_at: at(time), missed };

    assert_eq!(
        is_due(None, "2026-05-01T12:01:00Z"),
        not_due("2026-05-02T02:00:00Z"),
        "times before it was known are not missed"
    );
    assert_eq!(is_due(None, "2026-05-02T02:00:00Z"), since("2026-05-02T02:00:00Z", 0));
    assert_eq!(is_due(None, "2026-05-02T09:00:00Z"), since("2026-05-02T02:00:00Z", 0), "it stays due while it fails");
    assert_eq!(is_due(Some("2026-05-02T02:00:07Z"), "2026-05-02T09:00:00Z"), not_due("2026-05-03T02:00:00Z"));
    assert_eq!(
        is_due(Some("2026-05-02T02:00:07Z"), "2026-05-06T09:00:00Z"),
        since("2026-05-06T02:00:00Z", 3),
        "missed runs are one run"
    );
    assert_eq!(
        is_due(Some("2026-05-06T09:00:00Z"), "2026-05-06T09:01:00Z"),
        not_due("2026-05-07T02:00:00Z"),
        "caught up once"
    );
}

#[test]
fn without_catching_up_a_late_run_is_left_out() {
    let cron = cron("0 2 * * *");
    let seen = at("2026-05-01T12:00:00Z");
    let is_due = |now: &str| matches!(due(&cron, Tz::UTC, None, seen, at(now), CatchUp::None), Due::Due { .. });
    assert!(is_due("2026-05-02T02:00:00Z") && is_due("2026-05-02T02:01:59Z"));
    assert!(!is_due("2026-05-02T02:03:00Z") && !is_due("2026-05-02T01:59:59Z"));
}

#[test]
fn a_stamp_from_a_wrong_clock_does_not_stop_backups() {
    let cron = cron("0 2 * * *");
    let seen = at("2026-05-01T12:00:00Z");
    let now = at("2026-05-03T02:00:00Z");
    let is_due =
        |success: &str| matches!(due(&cron, Tz::UTC, Some(at(success)), seen, now, CatchUp::One), Due::Due { .. });
    assert!(is_due("2099-01-01T00:00:00Z"));
    assert!(!is_due("2026-05-03T02:00:05Z"), "a small step back is waited out");
    let from_2099 = due(&cron, Tz::UTC, None, at("2099-01-01T00:00:00Z"), now, CatchUp::One);
    assert_eq!(from_2099, Due::Due { scheduled_at: now, missed: 0 });
}

#[test]
fn stamps_come_back_and_a_failure_keeps_the_success_before_it() {
    let dir = TempDir::new().unwrap();
    assert_eq!(Stamps::load(dir.path()).unwrap(), Stamps::default());
    let update = |change: &dyn Fn(&mut Stamps)| {
        Stamps::update(dir.path(), change).unwrap();
        Stamps::load(dir.path()).unwrap()
    };
    update(&|stamps| stamps.first_seen = Some(at("2026-05-01T12:00:00Z")));
    update(&|stamps| stamps.succeed("backup", at("2026-05-02T02:00:00Z")));
    update(&|stamps| stamps.fail("backup", at("2026-05-03T02:05:00Z")));
    let read = update(&|stamps| stamps.fail("backup", at("2026-05-03T02:06:00Z")));
    assert_eq!(read.first_seen, Some(at("2026-05-01T12:00:00Z")));
    assert_eq!(read.of("backup").success, Some(at("2026-05-02T02:00:00Z")));
    let failure = read.of("backup").failure.unwrap();
    assert_eq!(failure.rests_until(at("2026-05-03T02:07:00Z")), Some(at("2026-05-03T02:11:00Z")));
    assert_eq!(failure.rests_until(at("2026-05-03T02:11:00Z")), None);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temp file stays");
    let read = update(&|stamps| stamps.succeed("backup", at("2026-05-03T02:20:00Z")));
    assert_eq!((read.of("backup").failure, read.of("backup").done), (None, 2));
}

#[test]
fn a_failure_from_a_wrong_clock_does_not_stop_backups() {
    let mut stamps = Stamps::default();
    stamps.fail("backup", at("2099-01-01T00:00:00Z"));
    let failure = stamps.of("backup").failure.unwrap();
    assert_eq!(failure.rests_until(at("2026-05-03T02:00:00Z")), None);
    stamps.fail("backup", at("2026-05-03T02:00:05Z"));
    let failure = stamps.of("backup").failure.unwrap();
    assert!(failure.rests_until(at("2026-05-03T02:00:00Z")).is_some(), "a small step back is waited out");
}

#[test]
fn stamps_of_two_verbs_at_once_lose_neither() {
    let dir = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for verb in ["backup", "verify", "drill"] {
            let dir = dir.path();
            scope.spawn(move || {
                for _ in 0..20 {
                    Stamps::update(dir, |stamps| stamps.succeed(verb, at("2026-05-02T02:00:00Z"))).unwrap();
                }
            });
        }
    });
    let stamps = Stamps::load(dir.path()).unwrap();
    assert_eq!(["backup", "verify", "drill"].map(|verb| stamps.of(verb).done), [20; 3]);
}

#[test]
fn damaged_stamps_say_what_to_do() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("stamps.json"), "{\"verbs\":").unwrap();
    let error = Stamps::load(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("the file is damaged"), "{error}");
    assert!(error.hint().unwrap().starts_with("remove `"));
}

fn run() -> Run {
    let clock = FixedClock::at(at("2026-05-03T02:00:00Z"));
    Run::new(Arc::new(clock), Events::silent())
}

#[tokio::test]
async fn a_second_run_is_turned_away_with_the_name_of_the_first() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("run.lock");
    let first = RunLock::take(&path, Duration::ZERO, &run()).await.unwrap();
    assert_eq!(RunLock::holder(&path).unwrap().pid, std::process::id());
    let error = RunLock::take(&path, Duration::ZERO, &run()).await.unwrap_err();
    let text = error.to_string().replace(&std::process::id().to_string(), "PID");
    assert_snapshot!(text, @"take the lock of the policy's runs: process PID has held it since 2026-05-03T02:00:00Z");
    drop(first);
    assert_eq!(RunLock::holder(&path), None);
    RunLock::take(&path, Duration::ZERO, &run()).await.unwrap();
}

#[tokio::test]
async fn a_run_that_waits_gets_the_lock_when_it_is_free() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("run.lock");
    let first = RunLock::take(&path, Duration::ZERO, &run()).await.unwrap();
    let waiting_run = run();
    let mut second = Box::pin(RunLock::take(&path, Duration::from_mins(1), &waiting_run));
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    second.await.unwrap();
}

#[tokio::test]
async fn a_signal_ends_the_wait_for_the_lock() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("run.lock");
    let _first = RunLock::take(&path, Duration::ZERO, &run()).await.unwrap();
    let stopped = run();
    let mut second = Box::pin(RunLock::take(&path, Duration::from_mins(1), &stopped));
    assert!(futures_util::poll!(&mut second).is_pending());
    stopped.cancel.cancel();
    assert!(matches!(second.await.unwrap_err(), LockError::Stopped(_)));
}
