#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use insta::assert_snapshot;
use tempfile::TempDir;

use crate::policy::{
    Access, Ack, CopyTarget, Encryption, MysqlAddress, ObjectLock, Policy, PolicyError, RetainMode, Rights, TlsMode,
    Us, all, find, judge,
};

/// A policy without a fault; each test below spoils it.
const GOOD: &str = r#"version = 1
name = "mall"
timezone = "Asia/Seoul"
objectives = { rpo = "1d", rto = "2h" }

[repository]
path = "/backup/mall"
password_file = "/etc/bkp/mall.key"

[[copy]]
name = "offsite"
s3 = { bucket = "mall-dr", prefix = "bkp", region = "ap-northeast-2" }
bandwidth = "80MiB/s"

[mysql.db1]
host = "10.0.30.10"
user = "bkp"
password_file = "/etc/bkp/db1.pw"

[files.images]
path = "/mnt/images"
guard = { sentinel = ".bkp-ok", files_drop = "20%" }

[schedule]
backup = "15 2 * * *"

[retention]
daily = 7

[drill]
checks = [
  { sql = "SELECT COUNT(*) FROM mall.orders", min = 1 },
  { files_in = "images", sql = "SELECT path FROM mall.product_images" },
]
"#;

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text, Path::new("mall.toml"))
}

/// Returns the error and its hint for a policy in which one text stands for another.
fn spoiled(good: &str, bad: &str) -> String {
    assert!(GOOD.contains(good), "{good}");
    refusal(&GOOD.replacen(good, bad, 1))
}

fn added(section: &str) -> String {
    refusal(&format!("{GOOD}\n{section}"))
}

fn refusal(text: &str) -> String {
    let error = parse(text).expect_err("this policy has a fault");
    match error.hint() {
        Some(hint) => format!("{error}\n    hint: {hint}"),
        None => error.to_string(),
    }
}

#[test]
fn a_good_policy_becomes_its_values() {
    let policy = parse(GOOD).unwrap();
    assert_eq!(policy.objectives.rpo, Some(Duration::from_hours(24)));
    assert_eq!(policy.state_dir, PathBuf::from("/var/lib/bkp/mall"));
    assert_eq!(policy.report_dir(), PathBuf::from("/var/lib/bkp/mall/reports"));
    let copy = policy.copies.first().unwrap();
    assert_eq!((copy.bandwidth, copy.uploads), (Some(80 << 20), 4));
    let CopyTarget::S3(s3) = &copy.place else { panic!("{copy:?}") };
    assert!(!s3.path_style && s3.endpoint.is_none());
    let db = policy.mysql.get("db1").unwrap();
    assert_eq!(db.address, MysqlAddress::Tcp { host: "10.0.30.10".into(), port: 3306 });
    assert_eq!((db.tls.mode, db.connections, db.lock_wait), (TlsMode::Verify, 4, Duration::from_secs(5)));
    let images = policy.files.get("images").unwrap();
    assert_eq!((images.guard.files_drop, images.guard.bytes_drop), (Some(0.2), None));
    assert_eq!(policy.hash.len(), 64);
    assert_ne!(policy.hash, parse(&format!("{GOOD}# a remark\n")).unwrap().hash);
}

#[test]
fn tls_is_off_by_itself_only_where_bytes_stay_on_the_machine() {
    let mode = |good: &str, bad: &str| parse(&GOOD.replacen(good, bad, 1)).unwrap().mysql.get("db1").unwrap().tls.mode;
    let host = "host = \"10.0.30.10\"";
    assert_eq!(mode(host, "socket = \"/run/mysqld/mysqld.sock\""), TlsMode::Off);
    assert_eq!(mode(host, "host = \"127.0.0.1\""), TlsMode::Off);
    assert_eq!(mode(host, "host = \"localhost\""), TlsMode::Off);
    assert_eq!(mode(host, "host = \"::1\""), TlsMode::Off);
    assert_eq!(mode(host, "host = \"localhost\"\ntls = \"verify\""), TlsMode::Verify);
    assert_eq!(mode(host, "host = \"localhost\"\ntls_ca_file = \"/etc/bkp/ca.pem\""), TlsMode::Verify);
    assert_eq!(mode(host, "host = \"db1.example.com\""), TlsMode::Verify);
    assert_eq!(mode(host, "host = \"10.0.30.10\"\ntls = \"off\""), TlsMode::Off);
}

#[test]
fn a_wrong_key_names_itself_and_the_right_one() {
    let cases = [
        spoiled("bandwidth =", "bandwidht ="),
        spoiled("[schedule]", "[shedule]"),
        spoiled("sentinel =", "sentinal ="),
        spoiled("min = 1", "minimum = 1"),
        spoiled("daily = 7", "dayly = 7"),
        spoiled("rpo = \"1d\"", "rp0 = \"1d\""),
        spoiled("backup = ", "colour = \"red\"\nbackup = "),
        spoiled("[retention]", "hourly = \"0 * * * *\"\n[retention]"),
    ];
    assert_snapshot!(cases.join("\n"), @r"
    read the policy `mall.toml`, line 13: `copy[0].bandwidht` is no key of a policy
        hint: did you mean `bandwidth`?
    read the policy `mall.toml`, line 24: `shedule` is no key of a policy
        hint: did you mean `schedule`?
    read the policy `mall.toml`, line 22: `files.images.guard.sentinal` is no key of a policy
        hint: did you mean `sentinel`?
    read the policy `mall.toml`, line 32: `drill.checks[0].minimum` is no key of a policy
        hint: did you mean `min`?
    read the policy `mall.toml`, line 28: `retention.dayly` is no key of a policy
        hint: did you mean `daily`?
    read the policy `mall.toml`, line 4: `objectives.rp0` is no key of a policy
        hint: did you mean `rpo`?
    read the policy `mall.toml`, line 25: `schedule.colour` is no key of a policy
        hint: the keys here are backup, verify, prune, drill, catch_up
    read the policy `mall.toml`, line 27: `schedule.hourly` is no key of a policy
        hint: the keys here are backup, verify, prune, drill, catch_up
    ");
}

#[test]
fn a_secret_in_the_policy_is_refused_without_repeating_it() {
    let cases = [
        spoiled("password_file = \"/etc/bkp/db1.pw\"", "password = \"hunter2\""),
        spoiled("password_file = \"/etc/bkp/mall.key\"", "passwd = \"hunter2\""),
        spoiled("bucket = \"mall-dr\"", "secret_access_key = \"hunter2\", bucket = \"mall-dr\""),
        spoiled("host = \"10.0.30.10\"", "host = \"bkp:hunter2@10.0.30.10\""),
        spoiled("region = ", "endpoint = \"https://key:hunter2@s3.example.com\", region = "),
        spoiled("password_file = \"/etc/bkp/mall.key\"", "password_file = [\"hunter2\"]"),
        spoiled(
            "[repository]\npath = \"/backup/mall\"\npassword_file = \"/etc/bkp/mall.key\"",
            "[repository]\npassword_file = hunter2",
        ),
    ];
    let text = cases.join("\n");
    assert!(!text.contains("hunter2"), "{text}");
    assert_snapshot!(text, @r#"
    read the policy `mall.toml`, line 18: `mysql.db1.password` holds a secret, and a policy never does
        hint: move it into a file with mode 0600, and write `password_file = "/etc/bkp/…"`
    read the policy `mall.toml`, line 8: `repository.passwd` holds a secret, and a policy never does
        hint: move it into a file with mode 0600, and write `password_file = "/etc/bkp/…"`
    read the policy `mall.toml`, line 12: `copy[0].s3.secret_access_key` holds a secret, and a policy never does
        hint: move it into a file with mode 0600, and write `secret_access_key_file = "/etc/bkp/…"`
    read the policy `mall.toml`, line 16: `mysql.db1.host` is not a host alone
        hint: write the host here, and port, user and password_file as keys of their own
    read the policy `mall.toml`, line 12: `copy[0].s3.endpoint` has a password in it
        hint: write access_key_id and secret_access_key_file instead
    read the policy `mall.toml`, line 8: `repository.password_file` is a list, and a text belongs there
        hint: write it in quotes
    read the policy `mall.toml`, line 7: it is not TOML: string values must be quoted, expected literal string
        hint: write `key = "text"`, `key = 5`, `key = ["a", "b"]` or `[table]`; policies/full.toml shows each key
    "#);
}

#[test]
fn a_value_of_the_wrong_kind_says_what_belongs_there() {
    let cases = [
        spoiled("min = 1", "min = \"1\""),
        spoiled("daily = 7", "daily = \"7\""),
        spoiled("daily = 7", "daily = 1.5"),
        spoiled("name = \"offsite\"", "name = 5"),
        spoiled("[[copy]]", "[copy]"),
        spoiled("[mysql.db1]", "[mysql]"),
        spoiled("guard = {", "require_mount = \"yes\"\nguard = {"),
        spoiled("guard = { sentinel = \".bkp-ok\", files_drop = \"20%\" }", "exclude = \"cache\""),
        spoiled("objectives = { rpo = \"1d\", rto = \"2h\" }", "objectives = 5"),
        spoiled("min = 1", "equals = true"),
        spoiled("name = \"mall\"", "name = mall"),
        spoiled("name = \"mall\"", "name = \"mall\"\nname = \"shop\""),
        spoiled("[schedule]", "[schedule"),
    ];
    assert_snapshot!(cases.join("\n"), @r#"
    read the policy `mall.toml`, line 32: `drill.checks[0].min` is a text, and a number belongs there
        hint: write a number, without quotes
    read the policy `mall.toml`, line 28: `retention.daily` is a text, and a whole number belongs there
        hint: write a whole number, without quotes
    read the policy `mall.toml`, line 28: `retention.daily` is a number with a point, and a whole number belongs there
        hint: write a whole number, without quotes
    read the policy `mall.toml`, line 11: `copy[0].name` is a whole number, and a text belongs there
        hint: write it in quotes
    read the policy `mall.toml`, line 10: `copy` is a table, and a list belongs there
        hint: write `["…", "…"]`; a list of tables is `[[name]]`
    read the policy `mall.toml`, line 16: `mysql.host` is a text, and a table belongs there
        hint: write `{ key = … }`, or a section `[name]` with its keys below
    read the policy `mall.toml`, line 22: `files.images.require_mount` is a text, and true or false belongs there
        hint: write true or false, without quotes
    read the policy `mall.toml`, line 22: `files.images.exclude` is a text, and a list belongs there
        hint: write `["…", "…"]`; a list of tables is `[[name]]`
    read the policy `mall.toml`, line 4: `objectives` is a whole number, and a table belongs there
        hint: write `{ key = … }`, or a section `[name]` with its keys below
    read the policy `mall.toml`, line 32: `drill.checks[0].equals` is not a number or a text
        hint: write one value: a number, or a text in quotes
    read the policy `mall.toml`, line 2: it is not TOML: string values must be quoted, expected literal string
        hint: write `key = "text"`, `key = 5`, `key = ["a", "b"]` or `[table]`; policies/full.toml shows each key
    read the policy `mall.toml`, line 3: `name` is there twice
        hint: keep one of them
    read the policy `mall.toml`, line 24: it is not TOML: unclosed table, expected `]`
        hint: write `key = "text"`, `key = 5`, `key = ["a", "b"]` or `[table]`; policies/full.toml shows each key
    "#);
}

#[test]
fn what_is_missing_says_where_it_belongs() {
    let cases = [
        spoiled("version = 1\n", ""),
        spoiled("name = \"offsite\"\n", ""),
        spoiled("user = \"bkp\"\n", ""),
        spoiled("region = \"ap-northeast-2\"", ""),
        spoiled("path = \"/backup/mall\"\n", ""),
        spoiled("[retention]\ndaily = 7\n", ""),
        spoiled("password_file = \"/etc/bkp/mall.key\"\n", ""),
        spoiled("host = \"10.0.30.10\"\n", ""),
        spoiled("s3 = { bucket = \"mall-dr\", prefix = \"bkp\", region = \"ap-northeast-2\" }\n", ""),
        spoiled("sql = \"SELECT COUNT(*) FROM mall.orders\", ", ""),
    ];
    assert_snapshot!(cases.join("\n"), @r#"
    read the policy `mall.toml`, line 1: `version` is missing
        hint: write `version = 1` first
    read the policy `mall.toml`, line 10: `copy[0].name` is missing
        hint: add `name = …`; policies/full.toml explains it
    read the policy `mall.toml`, line 15: `mysql.db1.user` is missing
        hint: add `user = …`; policies/full.toml explains it
    read the policy `mall.toml`, line 12: `copy[0].s3.region` is missing
        hint: add `region = …`; policies/full.toml explains it
    read the policy `mall.toml`, line 6: `repository.path` is missing
        hint: add `path = …`; policies/full.toml explains it
    read the policy `mall.toml`, line 1: `retention` is missing
        hint: add `[retention]` with at least one rule, as `daily = 7`
    read the policy `mall.toml`, line 6: `repository` has no password
        hint: add `password_file = "/etc/bkp/NAME.key"`; `bkp init` makes the file
    read the policy `mall.toml`, line 15: `mysql.db1` has no address
        hint: write one of `host = "10.0.30.10"` and `socket = "/run/mysqld/mysqld.sock"`
    read the policy `mall.toml`, line 10: `copy[0]` has no place
        hint: write one of `s3 = { bucket = "…", region = "…" }` and `path = "/mnt/…"`
    read the policy `mall.toml`, line 32: `drill.checks[0].sql` is missing
        hint: add `sql = …`; policies/full.toml explains it
    "#);
}

#[test]
fn another_version_is_told_before_its_keys() {
    let later = "version = 2\nname = \"mall\"\n[stores.local]\npath = \"/backup\"\n";
    assert_snapshot!(refusal(later), @r"
    read the policy `mall.toml`, line 1: `version` is 2, and this program reads 1
        hint: write `version = 1`, or update bkp if a later one wrote the file
    ");
}

#[test]
fn a_value_out_of_its_kind_or_limits_says_how_it_is_written() {
    let cases = [
        spoiled("name = \"mall\"", "name = \"The Mall\""),
        spoiled("[files.images]", "[files.\"my images\"]"),
        spoiled("[mysql.db1]", "[mysql._db]"),
        spoiled("Asia/Seoul", "Asia/Soul"),
        spoiled("Asia/Seoul", "KST-9"),
        spoiled("\"1d\"", "\"1 day\""),
        spoiled("\"2h\"", "\"0h\""),
        spoiled("80MiB/s", "80Mbit/s"),
        spoiled("20%", "0.2"),
        spoiled("15 2 * * *", "15 25 * * *"),
        spoiled("15 2 * * *", "0 15 2 * * *"),
        spoiled("daily = 7", "daily = -7"),
        spoiled("daily = 7", "daily = 0"),
        spoiled("user = \"bkp\"", "user = \"bkp\"\nconnections = 0\nport = 70000"),
        spoiled("user = \"bkp\"", "user = \"\"\ntls = \"on\"\nlock_wait = \"1h\""),
        spoiled("host = \"10.0.30.10\"", "host = \"10.0.30.10:3307\""),
        spoiled("\"/backup/mall\"", "\"backup/mall\""),
        spoiled("\"/backup/mall\"", "\"~/backup\""),
        spoiled("\"/backup/mall\"", "\"/backup/../mall\""),
        spoiled(".bkp-ok", "/mnt/images/.bkp-ok"),
        spoiled(
            "daily = 7",
            "daily = 7\n[network]\npeers = [\"10.0.30\"]\nsource = \"eth2\"\ninterface = \"a-very-long-interface\"",
        ),
        spoiled("daily = 7", "daily = 7\n[restore]\nfirst = [\"mall.shops\",\n  \"shops\"]"),
        spoiled("backup = ", "catch_up = \"all\"\nbackup = "),
        spoiled("path = \"/mnt/images\"", "path = \"/mnt/images\"\nexclude = [\"[\"]\nthreads = 1000"),
        spoiled("user = \"bkp\"", "user = \"bkp\"\nexclude = [\"sessions\"]\nnon_transactional = \"skip\""),
        spoiled("region = ", "endpoint = \"s3.example.com\", region = "),
        spoiled("region = ", "endpoint = \"https://s3.example.com/mall\", region = "),
        spoiled(
            "user = \"bkp\"",
            "user = \"bkp\"\nthrottle.threads_running_max = 0\nthrottle.bandwidth = \"50MB\"\nthrottle.pause_max = \"2d\"\n\
             throttle.hours = [{ from = \"9am\", to = \"25:00\" }]",
        ),
    ];
    assert_snapshot!(cases.join("\n"), @r#"
    read the policy `mall.toml`, line 2: `name` is not a name: "The Mall"
        hint: use up to 64 small letters, digits, `-` and `_`, with a letter or digit first
    read the policy `mall.toml`, line 20: `files.my images` is not a name: "my images"
        hint: use up to 64 small letters, digits, `-` and `_`, with a letter or digit first
    read the policy `mall.toml`, line 15: `mysql._db` is not a name: "_db"
        hint: use up to 64 small letters, digits, `-` and `_`, with a letter or digit first
    read the policy `mall.toml`, line 3: `timezone` is not a time zone: "Asia/Soul"
        hint: did you mean `Asia/Seoul`?
    read the policy `mall.toml`, line 3: `timezone` is not a time zone: "KST-9"
        hint: write the zone's IANA name, as `timedatectl list-timezones` lists them
    read the policy `mall.toml`, line 4: `objectives.rpo` is not a span of time: "1 day"
        hint: write a number and s, m, h, d or w: "90s", "5m", "1h30m", "7d"
    read the policy `mall.toml`, line 4: `objectives.rto` is not a span of time: "0h"
        hint: write a number and s, m, h, d or w: "90s", "5m", "1h30m", "7d"
    read the policy `mall.toml`, line 13: `copy[0].bandwidth` is not a rate: "80Mbit/s"
        hint: write bytes a second: "80MiB/s", "500KB/s"
    read the policy `mall.toml`, line 22: `files.images.guard.files_drop` is not a share: "0.2"
        hint: write a percentage from 0% to 100%: "20%"
    read the policy `mall.toml`, line 25: `schedule.backup` is not a schedule: hour `25` is no value, range or step of 0-23
        hint: a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas
    read the policy `mall.toml`, line 25: `schedule.backup` is not a schedule: it has 6 fields and not five
        hint: write minute, hour, day, month and weekday; there are no seconds
    read the policy `mall.toml`, line 28: `retention.daily` is out of its limits: -7
        hint: write 0 or more
    read the policy `mall.toml`, line 27: `retention` keeps nothing: every rule is zero
        hint: add a rule, as `daily = 7`
    read the policy `mall.toml`: 2 faults
      line 18: `mysql.db1.connections` is out of its limits: 0; write a number from 1 to 64
      line 19: `mysql.db1.port` is out of its limits: 70000; write a number from 1 to 65535
    read the policy `mall.toml`: 3 faults
      line 17: `mysql.db1.user` is empty; write a value, or leave the key out
      line 18: `mysql.db1.tls` is unknown: "on"; write "verify" or "off"
      line 19: `mysql.db1.lock_wait` is out of its limits: "1h"; write 5m or less: while the lock is waited for, writers queue up behind it
    read the policy `mall.toml`, line 16: `mysql.db1.host` is not a host: "10.0.30.10:3307"
        hint: write a name or an address; the port goes into `port`
    read the policy `mall.toml`, line 7: `repository.path` is not an absolute path: "backup/mall"
        hint: write it from `/` on: cron and systemd start bkp in another directory than your shell
    read the policy `mall.toml`, line 7: `repository.path` is not an absolute path: "~/backup"
        hint: write it from `/` on: cron and systemd start bkp in another directory than your shell
    read the policy `mall.toml`, line 7: `repository.path` has `..` in it: "/backup/../mall"
        hint: write the path without it
    read the policy `mall.toml`, line 22: `files.images.guard.sentinel` is not a file of the tree: "/mnt/images/.bkp-ok"
        hint: write it relative to the source's path, as ".bkp-ok"
    read the policy `mall.toml`: 3 faults
      line 30: `network.peers[0]` is not a range of addresses: "10.0.30"; write an address or a range, as "10.0.30.0/24"
      line 31: `network.source` is not an address: "eth2"; write the local IP address, as "10.0.30.5"
      line 32: `network.interface` is not the name of an interface: "a-very-long-interface"; write a name that `ip link` lists
    read the policy `mall.toml`, line 31: `restore.first[1]` is not a table: "shops"
        hint: write `schema.table`, or `schema.*` for a whole schema
    read the policy `mall.toml`, line 25: `schedule.catch_up` is unknown: "all"
        hint: write "one" or "none"
    read the policy `mall.toml`: 2 faults
      line 22: `files.images.exclude[0]` is not a pattern: "["; write a glob such as "cache/**" or "*.tmp"
      line 23: `files.images.threads` is out of its limits: 1000; write a number from 1 to 256
    read the policy `mall.toml`: 2 faults
      line 18: `mysql.db1.exclude[0]` is not a table: "sessions"; write `schema.table`, or `schema.*` for a whole schema
      line 19: `mysql.db1.non_transactional` is unknown: "skip"; write "refuse" or "lock"
    read the policy `mall.toml`, line 12: `copy[0].s3.endpoint` is not a server's address
        hint: write "https://HOST" or "https://HOST:PORT", without a path
    read the policy `mall.toml`, line 12: `copy[0].s3.endpoint` is not a server's address
        hint: write "https://HOST" or "https://HOST:PORT", without a path
    read the policy `mall.toml`: 6 faults
      line 18: `mysql.db1.throttle.threads_running_max` is out of its limits: 0; write a number from 1 to 100000
      line 19: `mysql.db1.throttle.bandwidth` is not a rate: "50MB"; write bytes a second: "80MiB/s", "500KB/s"
      line 20: `mysql.db1.throttle.pause_max` is out of its limits: "2d"; write 12h or less: all the while the server keeps old rows for the dump
      line 21: `mysql.db1.throttle.hours[0]` limits nothing; add `bandwidth = "20MB/s"` or `threads_running_max = 20`
      line 21: `mysql.db1.throttle.hours[0].from` is not a time of day: "9am"; write hours and minutes: "09:00", "23:30"
      line 21: `mysql.db1.throttle.hours[0].to` is not a time of day: "25:00"; write hours and minutes: "09:00", "23:30"
    "#);
}

#[test]
fn values_that_do_not_agree_say_which() {
    let cases = [
        spoiled("user = \"bkp\"", "user = \"bkp\"\nsocket = \"/run/mysqld/mysqld.sock\""),
        spoiled(
            "host = \"10.0.30.10\"",
            "socket = \"/run/mysqld/mysqld.sock\"\nport = 3306\ntls = \"verify\"\ntls_ca_file = \"/etc/ca.pem\"",
        ),
        spoiled("user = \"bkp\"", "user = \"bkp\"\ntls = \"off\"\ntls_ca_file = \"/etc/ca.pem\""),
        spoiled("user = \"bkp\"", "user = \"bkp\"\npassword_command = \"pass db1\""),
        spoiled("bandwidth =", "path = \"/mnt/usb\"\nbandwidth ="),
        spoiled("region = ", "access_key_id = \"AK\", region = "),
        spoiled("min = 1", "min = 5, max = 1"),
        spoiled(", min = 1", ""),
        spoiled("min = 1", "min = 1, missing_max = 3"),
        spoiled("files_in = \"images\"", "files_in = \"images\", min = 1"),
        spoiled("files_in = \"images\"", "files_in = \"image\""),
        spoiled("files_in = \"images\"", "mysql = \"db2\", files_in = \"images\""),
        spoiled("[drill]", "[drill]\nfrom = \"offsiet\""),
        spoiled("[files.images]", "[files.db1]"),
        added("[mysql.db2]\nsocket = \"/run/db2.sock\"\nuser = \"bkp\""),
        added("[network]\npeers = [\"10.0.31.0/24\"]"),
        refusal(
            "version = 1\nname = \"mall\"\n[repository]\npath = \"/backup\"\npassword_file = \"/etc/bkp/mall.key\"\n[retention]\nlast = 1\n",
        ),
    ];
    assert_snapshot!(cases.join("\n"), @r#"
    read the policy `mall.toml`, line 15: `mysql.db1` has both host and socket
        hint: write one of `host = "10.0.30.10"` and `socket = "/run/mysqld/mysqld.sock"`
    read the policy `mall.toml`: 3 faults
      line 17: `mysql.db1.port` goes with host, not with socket; remove it
      line 18: `mysql.db1.tls` has no meaning for a socket; remove it: bytes do not leave the machine
      line 19: `mysql.db1.tls_ca_file` is set, but TLS is off; remove it, or write `tls = "verify"`
    read the policy `mall.toml`, line 19: `mysql.db1.tls_ca_file` is set, but TLS is off
        hint: remove it, or write `tls = "verify"`
    read the policy `mall.toml`, line 18: `mysql.db1.password_command` is one of several places for one secret
        hint: keep one of mysql.db1.password_file, mysql.db1.password_command and mysql.db1.password_credential
    read the policy `mall.toml`, line 10: `copy[0]` has both s3 and path
        hint: write one of `s3 = { bucket = "…", region = "…" }` and `path = "/mnt/…"`
    read the policy `mall.toml`, line 12: `copy[0].s3` has half of an access key
        hint: write both access_key_id and secret_access_key_file, or neither to use the environment or a role
    read the policy `mall.toml`, line 32: `drill.checks[0]` can never hold: no number lies from its min to its max
        hint: correct min and max
    read the policy `mall.toml`, line 32: `drill.checks[0]` can never fail: it names no wanted answer
        hint: add min, max or equals, or files_in for a statement that returns paths
    read the policy `mall.toml`, line 32: `drill.checks[0].missing_max` goes with files_in
        hint: remove it, or add `files_in`
    read the policy `mall.toml`, line 33: `drill.checks[1]` asks for a value and for files
        hint: split it into two checks
    read the policy `mall.toml`, line 33: `drill.checks[1].files_in` is no files source of this policy: "image"
        hint: did you mean `images`?
    read the policy `mall.toml`, line 33: `drill.checks[1].mysql` is no mysql source of this policy: "db2"
        hint: did you mean `db1`?
    read the policy `mall.toml`, line 31: `drill.from` is no copy of this policy: "offsiet"
        hint: did you mean `offsite`?
    read the policy `mall.toml`: 2 faults
      line 20: `files.db1` has the name of a database source; rename one: `--source NAME` must mean one source
      line 33: `drill.checks[1].files_in` is no files source of this policy: "images"; there is db1
    read the policy `mall.toml`: 2 faults
      line 32: `drill.checks[0]` does not say which server to ask; add `mysql = "NAME"`
      line 33: `drill.checks[1]` does not say which server to ask; add `mysql = "NAME"`
    read the policy `mall.toml`, line 16: `mysql.db1.host` is not among network.peers: 10.0.30.10
        hint: add it to network.peers, or name the server by its address in the backup network
    read the policy `mall.toml`, line 1: there is no source, so nothing to back up
        hint: add `[mysql.NAME]` or `[files.NAME]`; policies/full.toml explains their keys
    "#);
}

#[test]
fn places_that_lie_in_each_other_are_refused() {
    let copy =
        |place: &str| spoiled("s3 = { bucket = \"mall-dr\", prefix = \"bkp\", region = \"ap-northeast-2\" }", place);
    let cases = [
        copy("path = \"/backup/mall\""),
        copy("path = \"/backup/mall/copy\""),
        copy("path = \"/backup/./\""),
        copy("path = \"/mnt\""),
        spoiled("\"/backup/mall\"", "\"/mnt/images/backup\""),
        spoiled("\"/mnt/images\"", "\"/backup/mall\""),
        spoiled("\"/mnt/images\"", "\"/\""),
        spoiled("\"/etc/bkp/mall.key\"", "\"/backup/mall/key\""),
        spoiled("name = \"mall\"", "name = \"mall\"\nstate_dir = \"/backup/mall/state\""),
        spoiled("[drill]", "[drill]\nreport_dir = \"/backup/mall/reports\"\nsandbox = { work_dir = \"/backup/mall\" }"),
        added("[[copy]]\nname = \"offsite\"\npath = \"/mnt/usb\""),
        added(
            "[[copy]]\nname = \"second\"\ns3 = { bucket = \"mall-dr\", prefix = \"/bkp/\", region = \"ap-northeast-2\" }",
        ),
        added("[[copy]]\nname = \"second\"\ns3 = { bucket = \"mall-dr\", region = \"ap-northeast-2\" }"),
    ];
    assert_snapshot!(cases.join("\n"), @r#"
    read the policy `mall.toml`, line 12: `copy[0].path` overlaps the repository `/backup/mall`
        hint: choose a directory on another disk: a copy beside the original is lost with it
    read the policy `mall.toml`, line 12: `copy[0].path` overlaps the repository `/backup/mall`
        hint: choose a directory on another disk: a copy beside the original is lost with it
    read the policy `mall.toml`, line 12: `copy[0].path` overlaps the repository `/backup/mall`
        hint: choose a directory on another disk: a copy beside the original is lost with it
    read the policy `mall.toml`, line 21: `files.images.path` overlaps the copy `offsite` `/mnt`
        hint: keep sources and backups in separate directories, best on separate disks
    read the policy `mall.toml`, line 21: `files.images.path` overlaps the repository `/mnt/images/backup`
        hint: keep sources and backups in separate directories, best on separate disks
    read the policy `mall.toml`, line 21: `files.images.path` overlaps the repository `/backup/mall`
        hint: keep sources and backups in separate directories, best on separate disks
    read the policy `mall.toml`, line 21: `files.images.path` overlaps the repository `/backup/mall`
        hint: keep sources and backups in separate directories, best on separate disks
    read the policy `mall.toml`, line 8: `repository.password_file` lies inside the repository `/backup/mall`
        hint: keep the key elsewhere: it would be lost with what it opens, and copied beside it
    read the policy `mall.toml`, line 3: `state_dir` lies inside the repository `/backup/mall`
        hint: choose a directory outside: restic knows only its own files there
    read the policy `mall.toml`: 2 faults
      line 31: `drill.report_dir` lies inside the repository `/backup/mall`; choose a directory outside: restic knows only its own files there
      line 32: `drill.sandbox.work_dir` lies inside the repository `/backup/mall`; choose a directory outside: restic knows only its own files there
    read the policy `mall.toml`, line 37: `copy[1].name` is the name of an earlier copy: "offsite"
        hint: give each copy its own name
    read the policy `mall.toml`, line 36: `copy[1]` lies where the copy `offsite` lies
        hint: give each copy its own bucket, prefix or directory
    read the policy `mall.toml`, line 36: `copy[1]` lies where the copy `offsite` lies
        hint: give each copy its own bucket, prefix or directory
    "#);
    let beside = format!("{GOOD}\n[[copy]]\nname = \"usb\"\npath = \"/backup/mall-copy\"\n");
    parse(&beside).unwrap();
}

#[test]
fn an_rpo_that_the_schedule_cannot_meet_is_refused_with_one_that_can() {
    let cases = [
        spoiled("\"1d\"", "\"5m\""),
        spoiled("\"1d\"", "\"50m\""),
        spoiled("\"1d\"", "\"7h\""),
        spoiled("15 2 * * *", "15 2 * * mon-fri"),
        spoiled("Asia/Seoul", "Europe/Berlin"),
        refusal(&GOOD.replace("\"1d\"", "\"12h\"").replace("15 2 * * *", "15 8-18 * * *")),
        spoiled("backup = \"15 2 * * *\"\n", ""),
    ];
    assert_snapshot!(cases.join("\n"), @r#"
    read the policy `mall.toml`, line 4: `objectives.rpo` cannot be met: 1d pass between two backups, as after Fri 2026-01-02 02:15 +09:00
        hint: write `schedule.backup = "*/5 * * * *"`, or `rpo = "1d"`
    read the policy `mall.toml`, line 4: `objectives.rpo` cannot be met: 1d pass between two backups, as after Fri 2026-01-02 02:15 +09:00
        hint: write `schedule.backup = "*/30 * * * *"`, or `rpo = "1d"`
    read the policy `mall.toml`, line 4: `objectives.rpo` cannot be met: 1d pass between two backups, as after Fri 2026-01-02 02:15 +09:00
        hint: write `schedule.backup = "15 */6 * * *"`, or `rpo = "1d"`
    read the policy `mall.toml`, line 4: `objectives.rpo` cannot be met: 3d pass between two backups, as after Fri 2026-01-02 02:15 +09:00
        hint: back up more often than "15 2 * * mon-fri", or write `rpo = "3d"`
    read the policy `mall.toml`, line 4: `objectives.rpo` cannot be met: 25h pass between two backups, as after Sun 2026-10-25 02:15 +02:00
        hint: back up more often than "15 2 * * *", or write `rpo = "25h"`
    read the policy `mall.toml`, line 4: `objectives.rpo` cannot be met: 14h pass between two backups, as after Fri 2026-01-02 18:15 +09:00
        hint: write `schedule.backup = "15 */12 * * *"`, or `rpo = "14h"`
    read the policy `mall.toml`, line 4: `objectives.rpo` cannot be met: nothing schedules a backup
        hint: add `schedule.backup`, or leave rpo out
    "#);
    for (rpo, cron) in [("5m", "*/5 * * * *"), ("6h", "15 */6 * * *"), ("7d", "@weekly"), ("25h", "15 2 * * *")] {
        let text = GOOD.replacen("1d", rpo, 1).replacen("15 2 * * *", cron, 1);
        parse(&text).unwrap();
    }
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_lines() {
    let text = GOOD.replace("Asia/Seoul", "Asia/Soul").replace("80MiB/s", "fast").replace("15 2 * * *", "15 2 * *");
    assert_snapshot!(refusal(&text), @r#"
        read the policy `mall.toml`: 3 faults
          line 3: `timezone` is not a time zone: "Asia/Soul"; did you mean `Asia/Seoul`?
          line 13: `copy[0].bandwidth` is not a rate: "fast"; write bytes a second: "80MiB/s", "500KB/s"
          line 25: `schedule.backup` is not a schedule: it has 4 fields and not five; write minute, hour, day, month and weekday: "15 2 * * *" is daily at 02:15
        "#);
}

#[test]
fn a_policy_that_anyone_can_write_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("mall.toml");
    fs::write(&path, GOOD).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Policy::load(&path).unwrap().name, "mall");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let error = Policy::load(&path).unwrap_err();
    assert!(error.to_string().ends_with("its mode is 0666, so others than its owner can write it"), "{error}");
}

#[test]
fn a_policy_that_another_than_root_and_we_can_write_is_refused() {
    let root = Us { user: 0, group: 0 };
    let alice = Us { user: 1000, group: 1000 };
    let table = [
        (0, 0, 0o644, root, "fine"),
        (0, 0, 0o664, root, "fine"),
        (0, 4, 0o640, root, "fine"),
        (0, 4, 0o664, root, "exposed"),
        (0, 0, 0o646, root, "exposed"),
        (1000, 1000, 0o644, root, "foreign"),
        (1000, 1000, 0o664, alice, "fine"),
        (0, 0, 0o644, alice, "fine"),
        (1000, 100, 0o664, alice, "exposed"),
        (1001, 1000, 0o644, alice, "foreign"),
    ];
    for (owner, group, mode, us, wanted) in table {
        let found = match judge(Path::new("mall.toml"), Rights { owner, group, mode }, us) {
            Ok(()) => "fine",
            Err(PolicyError::Exposed { .. }) => "exposed",
            Err(PolicyError::Foreign { .. }) => "foreign",
            Err(error) => panic!("{error}"),
        };
        assert_eq!(found, wanted, "{owner}:{group} {mode:o} for {us:?}");
    }
}

#[test]
fn a_name_means_the_first_directory_that_has_it() {
    let dir = TempDir::new().unwrap();
    let dirs = ["etc", "here"].map(|name| dir.path().join(name));
    for dir in &dirs {
        fs::create_dir(dir).unwrap();
    }
    let [etc, here] = &dirs;
    fs::write(here.join("mall.toml"), GOOD).unwrap();
    assert_eq!(all(&dirs).unwrap(), [here.join("mall.toml")]);
    fs::write(etc.join("shop.toml"), GOOD).unwrap();
    fs::write(etc.join(".shop.toml.swp"), "").unwrap();
    fs::write(etc.join("notes.txt"), "").unwrap();
    assert_eq!(all(&dirs).unwrap(), [etc.join("shop.toml")], "examples are not mixed in");
    assert_eq!(find("shop", &dirs).unwrap(), etc.join("shop.toml"));
    assert_eq!(find("mall", &dirs).unwrap(), here.join("mall.toml"));
    assert_eq!(find("./x/mall", &dirs).unwrap(), PathBuf::from("./x/mall"));
    assert_eq!(find("other.toml", &dirs).unwrap(), PathBuf::from("other.toml"));
    let error = find("mal", &dirs).unwrap_err();
    let text = format!("{error}; {}", error.hint().unwrap()).replace(dir.path().to_str().unwrap(), "DIR");
    assert_snapshot!(text, @"find the policy `mal`: it is not in `DIR/etc` or `DIR/here`; did you mean `mall`?");
    let error = find("office", &dirs).unwrap_err();
    assert!(error.hint().unwrap().ends_with("etc/office.toml`, or name a file by its path"));
}

#[test]
fn what_a_bucket_shall_do_is_read_whole() {
    let more = "region = \"r\", access = \"write-only\", sse = { kms = \"key-1\" }, object_lock = { mode = \"compliance\", \
                retain = \"4w\" }, reader = { access_key_id = \"READ\", secret_access_key_command = \"pass r\" }";
    let policy = parse(&GOOD.replacen("region = \"ap-northeast-2\"", more, 1)).unwrap();
    let copy = &policy.copies[0];
    let s3 = copy.s3().unwrap();
    assert!(copy.is_write_only());
    assert_eq!(s3.encryption, Some(Encryption::Kms { key: "key-1".to_owned() }));
    let retain = Duration::from_hours(28 * 24);
    assert_eq!(copy.object_lock(), Some(ObjectLock { mode: RetainMode::Compliance, retain }));
    assert_eq!(s3.reader.as_ref().unwrap().access_key_id, "READ");
    assert_eq!(copy.secrets().count(), 1, "the reader's; the writer's is the environment's");

    let plain = parse(GOOD).unwrap();
    let plain = plain.copies[0].s3().unwrap();
    assert!(plain.encryption.is_none() && plain.object_lock.is_none() && plain.reader.is_none());
    assert_eq!(plain.access, Access::Full);
}

#[test]
fn what_a_bucket_cannot_do_says_so() {
    let cases = [
        spoiled("region = ", "access = \"read-only\", region = "),
        spoiled("region = ", "sse = \"aes\", region = "),
        spoiled("region = ", "sse = { kms = \"\" }, region = "),
        spoiled("region = ", "object_lock = { mode = \"strict\", retain = \"30d\" }, region = "),
        spoiled("region = ", "object_lock = { mode = \"governance\", retain = \"5m\" }, region = "),
        spoiled("region = ", "object_lock = { mode = \"compliance\", retain = \"4000d\" }, region = "),
        spoiled("region = ", "reader = { access_key_id = \"READ\" }, region = "),
    ];
    assert_snapshot!(cases.join("\n"), @r#"
    read the policy `mall.toml`, line 12: `copy[0].s3.access` is unknown: "read-only"
        hint: write "full" or "write-only"
    read the policy `mall.toml`, line 12: `copy[0].s3.sse` is unknown: "aes"
        hint: write "AES256" or { kms = "KEY-ID" }
    read the policy `mall.toml`, line 12: `copy[0].s3.sse.kms` is empty
        hint: write a value, or leave the key out
    read the policy `mall.toml`, line 12: `copy[0].s3.object_lock.mode` is unknown: "strict"
        hint: write "governance" or "compliance"
    read the policy `mall.toml`, line 12: `copy[0].s3.object_lock.retain` is out of its limits: "5m"
        hint: write a span from 1d to 3650d: locks are lengthened by copies, and one of years cannot be taken back
    read the policy `mall.toml`, line 12: `copy[0].s3.object_lock.retain` is out of its limits: "4000d"
        hint: write a span from 1d to 3650d: locks are lengthened by copies, and one of years cannot be taken back
    read the policy `mall.toml`, line 12: `copy[0].s3.reader` has no secret key
        hint: add `secret_access_key_file = "/etc/bkp/NAME.key"`
    "#);
}

#[test]
fn a_captured_binlog_meets_what_a_nightly_dump_cannot() {
    let policy = |interval: &str| {
        let text = format!(
            "version = 1\nname = \"mall\"\nobjectives = {{ rpo = \"5m\" }}\nschedule = {{ backup = \"15 2 * * *\" }}\n\
             repository = {{ path = \"/backup/mall\", password_file = \"/etc/bkp/mall.key\" }}\nretention = {{ last = 3 }}\n\
             [mysql.db1]\nsocket = \"/run/s.sock\"\nuser = \"bkp\"\nbinlog = {{ capture = true, {interval} }}\n"
        );
        Policy::parse(&text, Path::new("mall.toml")).map_err(|error| error.to_string())
    };
    let plan = policy("window = \"3d\"").unwrap().mysql["db1"].binlog.clone().unwrap();
    assert_eq!((plan.window, plan.interval), (Duration::from_hours(72), Duration::from_mins(1)));
    assert_eq!(plan.spool, Path::new("/var/lib/bkp/mall/binlog"));
    let rare = policy("interval = \"10m\"").unwrap_err();
    assert!(rare.contains("objectives.rpo"), "{rare}");
    let wrong = policy("interval = \"2d\", server_id = 0, ack = \"copy\"").unwrap_err();
    assert!(wrong.contains("binlog.interval") && wrong.contains("binlog.server_id"), "{wrong}");
    assert!(wrong.contains("binlog.ack") && wrong.contains("write \"off\" or \"spool\""), "{wrong}");
    assert_eq!(policy("ack = \"spool\"").unwrap().mysql["db1"].binlog.as_ref().unwrap().ack, Ack::Spool);
}
