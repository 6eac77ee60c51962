//! `bkp schedule` through the real program, into the root of an image: what it writes, shows and takes away again.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use insta::assert_snapshot;

use crate::cli::Desk;
use crate::world::{Ended, files};

/// An empty system beside a desk, with a line of somebody else's in its crontab.
fn image() -> (Desk, String) {
    let desk = Desk::ready();
    desk.write("root/etc/cron.d/e2scrub_all", b"30 3 * * 0 root test -e /run/systemd/system || /sbin/e2scrub_all\n");
    fs::create_dir_all(desk.path("root/etc/systemd/system/timers.target.wants")).unwrap();
    let root = desk.text("root");
    (desk, root)
}

fn schedule(desk: &Desk, verb: &str, with: &str, more: &[&str]) -> Ended {
    let root = desk.text("root");
    desk.bkp(&[&["schedule", verb, "mall", "--with", with, "--root", &root], more].concat())
}

fn there(desk: &Desk) -> BTreeMap<PathBuf, Vec<u8>> {
    files(&desk.path("root")).into_iter().map(|(path, (bytes, ..))| (path, bytes)).collect()
}

#[test]
fn the_cron_entry_is_installed_shown_and_removed_and_other_entries_stay() {
    let (desk, _) = image();
    let before = there(&desk);
    let shown = schedule(&desk, "install", "cron", &["--dry-run"]).expect(0);
    assert!(shown.out.contains("* * * * * root"), "{}", shown.out);
    assert_eq!(there(&desk), before, "a dry run changed something");
    assert!(schedule(&desk, "status", "cron", &[]).expect(0).out.starts_with("not installed"));

    schedule(&desk, "install", "cron", &[]).expect(0);
    let status = schedule(&desk, "status", "cron", &[]).expect(0);
    assert!(status.out.starts_with("installed\nnext backup: "), "{}", status.out);
    let line = fs::read_to_string(desk.path("root/etc/cron.d/bkp-mall")).unwrap();
    assert!(line.lines().last().unwrap().ends_with("policies/mall.toml"), "{line}");
    assert_snapshot!(schedule(&desk, "install", "cron", &[]).expect(0).out, @"nothing to do");
    let both = schedule(&desk, "install", "systemd", &["--dry-run"]).expect(2);
    assert!(both.err.contains("cron starts it already"), "{}", both.err);

    let mut with_ours = before.clone();
    with_ours.insert("etc/cron.d/bkp-mall".into(), line.into_bytes());
    assert_eq!(there(&desk), with_ours);
    schedule(&desk, "remove", "cron", &["--dry-run"]).expect(0);
    assert_eq!(there(&desk), with_ours, "a dry run changed something");
    schedule(&desk, "remove", "cron", &[]).expect(0);
    assert_eq!(there(&desk), before);
}

#[test]
fn the_line_that_cron_gets_runs_what_is_due() {
    let (desk, _) = image();
    schedule(&desk, "install", "cron", &[]).expect(0);
    let entry = fs::read_to_string(desk.path("root/etc/cron.d/bkp-mall")).unwrap();
    let line = entry.lines().last().unwrap().strip_prefix("* * * * * root ").unwrap();
    let ran: Ended = Command::new("sh").args(["-c", line]).output().unwrap().into();
    let ran = ran.expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "cron mails whatever is printed");
    assert!(desk.path("state").exists(), "the run did not see the policy");
}

#[test]
#[ignore = "needs systemctl; scripts/test runs it"]
fn the_units_are_installed_shown_and_removed() {
    let (desk, _) = image();
    let before = there(&desk);
    schedule(&desk, "install", "systemd", &["--dry-run"]).expect(0);
    assert_eq!(there(&desk), before, "a dry run changed something");
    schedule(&desk, "install", "systemd", &[]).expect(0);
    assert!(schedule(&desk, "status", "systemd", &[]).expect(0).out.starts_with("installed\n"));
    let link = desk.path("root/etc/systemd/system/timers.target.wants/bkp-mall.timer");
    assert!(link.symlink_metadata().is_ok(), "the timer is not enabled");
    fs::write(desk.path("root/etc/systemd/system/bkp-mall.timer"), "# Written by `bkp schedule install`\n").unwrap();
    assert!(schedule(&desk, "status", "systemd", &[]).expect(0).out.contains("bkp-mall.timer"));
    schedule(&desk, "remove", "systemd", &[]).expect(0);
    assert_eq!(there(&desk), before);
}
