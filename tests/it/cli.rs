//! The real program: what it prints and how it exits, where no server is needed.

pub(crate) mod desk;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bkp::catalog::Catalog;
use bkp::clock::SystemClock;
use bkp::cycle;
use bkp::cycle::task::Task;
use bkp::drill::outcome::Scenario;
use bkp::event::{Event, Events, Listener};
use bkp::exit::Exit;
use bkp::policy::Policy;
use bkp::run::Run;
use bkp::schedule::RunLock;
use chrono::{DateTime, TimeDelta, Utc};
use clap::CommandFactory as _;
use insta::assert_snapshot;
use serde_json::Value;

use crate::servers::block_on;
use crate::world::{Ended, files, noise};

pub(crate) use desk::{BKP, Desk, flip};

pub(crate) fn alone(args: &[&str]) -> Ended {
    Command::new(BKP).args(args).stdin(Stdio::null()).output().unwrap().into()
}

// ------------------------------------------------------------------------------------------------------------ manners

#[test]
fn every_command_has_a_help_with_an_example() {
    let mut program = bkp::cli::args::Cli::command();
    program.build();
    let mut count = 0;
    let mut open: Vec<(Vec<String>, &clap::Command)> = vec![(Vec::new(), &program)];
    while let Some((words, command)) = open.pop() {
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        open.extend(below.map(|below| ([words.as_slice(), &[below.get_name().to_owned()]].concat(), below)));
        if command.has_subcommands() {
            continue;
        }
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        args.push("--help");
        let help = alone(&args).expect(0);
        let example = format!("bkp {}", words.join(" "));
        let examples = help.out.split("Example").nth(1).unwrap_or_else(|| panic!("`{example}` shows no example"));
        assert!(examples.contains(&example), "{examples}");
        count += 1;
    }
    assert!(count > 18, "{count} commands");
}

#[test]
fn the_programs_own_help_names_every_exit_code() {
    let help = alone(&["--help"]).expect(0);
    let codes = help.out.split("Exit codes:").nth(1).unwrap();
    for code in ["0", "1", "2", "3", "10", "11", "12", "13", "14", "15", "16", "17", "18", "130", "143"] {
        assert!(codes.split(|c: char| !c.is_ascii_digit()).any(|word| word == code), "{code}: {codes}");
    }
}

#[test]
fn completions_are_scripts_that_their_shells_read() {
    for shell in ["bash", "zsh", "fish"] {
        let script = alone(&["completions", shell]).expect(0).out;
        for word in ["restore", "point-in-time", "schedule"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        if shell == "bash" {
            let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            assert!(bash.wait().unwrap().success());
        }
    }
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    alone(&["man", dir.path().to_str().unwrap()]).expect(0);
    for page in ["bkp.1", "bkp-restore.1", "bkp-schedule-install.1"] {
        let text = fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}");
    }
    assert!(fs::read_to_string(dir.path().join("bkp.1")).unwrap().contains("Exit codes"));
}

#[test]
fn colours_are_for_terminals_and_for_those_who_did_not_decline() {
    let desk = Desk::ready();
    let seen = |no_color: Option<&str>| {
        // `script` gives the program a terminal.
        let line = format!("{BKP} snapshots mall --policies {}", desk.text("policies"));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env_remove("NO_COLOR");
        command.envs(no_color.map(|value| ("NO_COLOR", value)));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(seen(None).contains("\u{1b}["));
    assert!(seen(Some("")).contains("\u{1b}["), "an empty NO_COLOR declines nothing");
    let plain = seen(Some("1"));
    assert!(plain.contains("snapshot") && !plain.contains("\u{1b}["), "{plain:?}");
    assert!(!desk.bkp(&["snapshots", "mall"]).expect(0).out.contains('\u{1b}'));
}

#[test]
fn a_name_from_outside_cannot_steer_the_terminal() {
    let desk = Desk::ready();
    desk.write("images/a\u{1b}[2Jb\nc.jpg", &noise(9, 30_000));
    desk.bkp(&["backup", "mall", "--no-copy"]).expect(0);
    desk.rot();
    let verified = desk.bkp(&["verify", "mall", "--level", "data"]).expect(13);
    assert!(verified.out.contains("costs"), "{}", verified.out);
    let printed = format!("{}{}", verified.out, verified.err);
    assert!(!printed.contains('\u{1b}'), "{printed:?}");
    assert!(desk.bkp(&["verify", "mall", "--level", "data", "--json"]).expect(13).out.contains("\\u001b[2Jb"));
    let unknown = desk.bkp(&["snapshots", "m\u{1b}[2Jall"]).expect(2);
    assert!(!unknown.err.contains('\u{1b}'), "{:?}", unknown.err);
}

#[test]
fn a_name_that_is_no_text_is_told_as_json_all_the_same() {
    let desk = Desk::ready();
    let name = std::ffi::OsStr::from_bytes(b"images/\xff.jpg");
    fs::write(desk.path("").join(name), noise(9, 30_000)).unwrap();
    desk.bkp(&["backup", "mall", "--no-copy"]).expect(0);
    desk.rot();
    let verified = desk.bkp(&["verify", "mall", "--level", "data", "--json"]).expect(13);
    assert!(verified.json()["steps"][0]["exit"] == 13 && verified.out.contains("\u{fffd}.jpg"), "{}", verified.out);
}

#[test]
fn what_is_printed_as_json_parses_and_so_do_errors() {
    let desk = Desk::new();
    let error = desk.bkp(&["snapshots", "mall", "--json"]).expect(10);
    assert_eq!(error.json()["exit"], 10);
    assert!(error.json()["error"].as_str().unwrap().contains("no config"), "{}", error.out);
    assert!(error.json()["hint"].is_string() && !error.err.is_empty());
    let run = |args: &[&str], key: &str| {
        let ended = desk.bkp(&[args, &["--json"]].concat()).expect(0);
        assert!(!ended.json()[key].is_null(), "{key}: {}", ended.out);
    };
    run(&["init", "mall"], "repository");
    run(&["backup", "mall"], "steps");
    run(&["run", "mall", "--now"], "ran");
    run(&["copy", "mall", "--dry-run"], "copies");
    run(&["copy", "mall"], "steps");
    run(&["verify", "mall", "--copy", "usb"], "steps");
    run(&["snapshots", "mall", "--from", "usb"], "snapshots");
    run(&["forget", "mall", "--dry-run"], "plan");
    run(&["drill", "mall"], "steps");
    run(&["report", "mall"], "run");
    run(&["doctor", "mall"], "findings");
    run(&["status", "mall"], "policies");
    run(&["policy", "check", "mall"], "policies");
    run(&["key", "list", "mall"], "keys");
    run(&["policy", "schema"], "properties");
    run(&["restore", "mall", "--to-dir", &desk.text("out"), "--dry-run"], "plan");
    run(&["restore", "mall", "--to-dir", &desk.text("out"), "--yes", "--verify"], "restored");
    run(&["completions", "bash"], "completions");
}

#[test]
fn what_is_no_command_flag_or_policy_is_exit_2() {
    let desk = Desk::new();
    desk.bkp(&["explode"]).expect(2);
    desk.bkp(&["status", "mall", "--loud"]).expect(2);
    desk.bkp(&["backup", "mall", "--source", "videos"]).expect(10);
    let unknown = desk.bkp(&["status", "mal"]).expect(2);
    assert_snapshot!(desk.plain(&unknown.err), @r"
    error: find the policy `mal`: it is not in `DIR/policies`
    hint: did you mean `mall`?
    ");
}

// ------------------------------------------------------------------------------------------------------------- policy

#[test]
fn a_good_policy_is_told_with_its_next_run() {
    let desk = Desk::new();
    let checked = desk.bkp(&["policy", "check"]).expect(0);
    let mut lines = checked.out.lines();
    assert_eq!(desk.plain(lines.next().unwrap()), "ok: DIR/policies/mall.toml is policy `mall`");
    assert!(lines.next().unwrap().starts_with("    next backup: ") && checked.out.contains("02:15 KST"));
}

#[test]
fn a_bad_policy_is_told_with_line_key_and_remedy_and_the_good_ones_with_it() {
    let desk = Desk::new();
    desk.write("policies/b.toml", desk.policy().replace("15 2 * * *", "15 2 * *").as_bytes());
    let checked = desk.bkp(&["policy", "check"]).expect(2);
    assert!(checked.out.contains("is policy `mall`"), "{}", checked.out);
    let error = checked.out.split_once("ok:").unwrap().0;
    assert_snapshot!(desk.plain(error), @r#"
    error: read the policy `DIR/policies/b.toml`, line 19: `schedule.backup` is not a schedule: it has 4 fields and not five
    hint: write minute, hour, day, month and weekday: "15 2 * * *" is daily at 02:15
    "#);
}

#[test]
fn the_printed_schema_agrees_with_the_full_policy() {
    let schema: Value = serde_json::from_str(&alone(&["policy", "schema"]).expect(0).out).unwrap();
    let full: toml::Value = toml::from_str(&fs::read_to_string("policies/full.toml").unwrap()).unwrap();
    let full = serde_json::to_value(full).unwrap();
    assert_eq!(disagreement(&full, &schema, &schema), None);
    // What the policy's own reader refuses, the schema refuses too.
    let wrong = |key: &str, value: Value| {
        let mut wrong = full.clone();
        *wrong.pointer_mut(key).unwrap() = value;
        disagreement(&wrong, &schema, &schema)
    };
    assert!(wrong("/name", Value::from(7)).is_some());
    assert!(wrong("/mysql/db1/connections", Value::from("4")).is_some());
    assert!(wrong("/drill/checks/0", serde_json::json!({ "sqll": "SELECT 1" })).is_some());
}

/// Says where a value is not what the schema says: its type, its keys, and those below.
fn disagreement(value: &Value, schema: &Value, root: &Value) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return disagreement(value, root.pointer(name.trim_start_matches('#')).unwrap(), root);
    }
    if let Some(either) = schema["anyOf"].as_array() {
        let mut found = either.iter().map(|one| disagreement(value, one, root));
        return found.try_fold(String::new(), |all, one| one.map(|one| all + &one + "; "));
    }
    let kind = match value {
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Number(number) if number.is_f64() => "number",
        _ => "integer",
    };
    let allows = |wanted: &Value| wanted == kind || (wanted == "number" && kind == "integer");
    let types = &schema["type"];
    if !types.as_array().map_or_else(|| allows(types), |types| types.iter().any(allows)) {
        return Some(format!("{value} is of type {kind} and not {types}"));
    }
    let mut items = value.as_array().into_iter().flatten();
    let mut below = value.as_object().into_iter().flatten();
    items.find_map(|item| disagreement(item, &schema["items"], root)).or_else(|| {
        below.find_map(|(key, item)| {
            let known = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
            if known.is_object() { disagreement(item, known, root) } else { Some(format!("`{key}` is not known")) }
        })
    })
}

// --------------------------------------------------------------------------------------------------------------- init

#[test]
fn init_makes_a_private_key_once_and_tells_to_keep_a_copy() {
    let desk = Desk::new();
    let made = desk.bkp(&["init", "mall"]).expect(0);
    assert!(made.out.contains("KEEP A COPY OF"), "{}", made.out);
    let key = desk.path("mall.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    let before = fs::read(&key).unwrap();
    let again = desk.bkp(&["init", "mall"]).expect(1);
    assert_snapshot!(desk.plain(&again.err), @r"
    error: make repository `DIR/repository`: there is one already
    hint: nothing has to be done; `bkp doctor` checks it
    ");
    assert_eq!(fs::read(&key).unwrap(), before);
}

#[test]
fn init_plants_no_new_key_beside_an_old_repository() {
    let desk = Desk::ready();
    fs::remove_file(desk.path("mall.key")).unwrap();
    let refused = desk.bkp(&["init", "mall"]).expect(12);
    assert_snapshot!(desk.plain(&refused.err), @r"
    error: make repository `DIR/repository`: there is one already, and its key file `DIR/mall.key` is missing
    hint: bring the key back from its copy; a new one would not open the repository
    ");
    assert!(!desk.path("mall.key").exists());
    let snapshots = desk.bkp(&["snapshots", "mall"]).expect(12);
    assert!(snapshots.err.contains("bring the key back from its copy"), "{}", snapshots.err);
}

// --------------------------------------------------------------------------------------------------------- exit codes

#[test]
fn a_pause_is_a_file_that_resume_removes_and_doctor_sees() {
    let desk = Desk::ready();
    let nothing = desk.bkp(&["resume", "mall"]).expect(0);
    assert_eq!(nothing.out, "mall: nothing paused them\n");
    let paused = desk.bkp(&["pause", "mall"]).expect(0);
    assert!(paused.out.contains("dumps of mall pause within a second"), "{}", paused.out);
    let file = desk.path("state/pause");
    assert!(file.exists());
    let policy = Policy::load(&desk.path("policies/mall.toml")).unwrap();
    assert_eq!(policy.pause_file(), file);

    desk.write_policy("[mysql.db1]\nsocket = \"/nowhere\"\nuser = \"bkp\"");
    let policy = Policy::load(&desk.path("policies/mall.toml")).unwrap();
    let throttle = &policy.mysql["db1"].throttle;
    assert_eq!((throttle.pause_file.as_deref(), throttle.timezone), (Some(file.as_path()), policy.timezone));
    let seen = desk.bkp(&["doctor", "mall"]);
    assert!(seen.out.contains("nobody keeps them paused") && seen.out.contains("bkp resume mall"), "{}", seen.out);
    let again = desk.bkp(&["pause", "mall", "--json"]).expect(0).json();
    assert_eq!(again["paused"], true);
    let resumed = desk.bkp(&["resume", "mall", "--json"]).expect(0).json();
    assert_eq!((resumed["was_paused"].as_bool(), file.exists()), (Some(true), false));
}

#[test]
fn each_kind_of_refusal_has_its_exit_code_and_a_hint() {
    let desk = Desk::new();
    let told = |ended: Ended| assert!(format!("{}{}", ended.err, ended.out).contains("hint: "), "{ended:?}");
    told(desk.bkp(&["backup", "mall"]).expect(10));
    desk.bkp(&["init", "mall"]).expect(0);

    let lock = block_on(RunLock::take(&desk.path("state/run.lock"), Duration::ZERO, &Run::silent())).unwrap();
    told(desk.bkp(&["backup", "mall"]).expect(11));
    desk.bkp(&["run", "mall", "--now", "--skip-locked"]).expect(0);
    assert_eq!(desk.snapshots().len(), 0, "a run went on beside another");
    drop(lock);

    fs::remove_file(desk.path("images/.bkp-ok")).unwrap();
    told(desk.bkp(&["backup", "mall"]).expect(15));
    assert_eq!(desk.snapshots().len(), 0, "a tripped guard made a snapshot");
    desk.write("images/.bkp-ok", b"");
    // A file server that does not answer is no sentinel that is gone.
    desk.change_policy(".bkp-ok", "shop0001/1.jpg/.bkp-ok");
    let unseen = desk.bkp(&["backup", "mall"]).expect(15);
    let unseen = format!("{}{}", unseen.out, unseen.err);
    assert!(unseen.contains("cannot be looked at: Not a directory") && !unseen.contains("touch"), "{unseen}");
    desk.change_policy("shop0001/1.jpg/.bkp-ok", ".bkp-ok");
    desk.bkp(&["backup", "mall"]).expect(0);

    let pack = desk.packs().pop().unwrap();
    flip(&pack);
    let damaged = desk.bkp(&["verify", "mall", "--level", "data"]).expect(13);
    assert!(damaged.out.contains(pack.file_name().unwrap().to_str().unwrap()), "{}", damaged.out);
    desk.bkp(&["verify", "mall", "--level", "data", "--copy", "usb"]).expect(0);

    fs::write(desk.path("mall.key"), "another\n").unwrap();
    told(desk.bkp(&["snapshots", "mall"]).expect(12));
}

#[test]
fn a_peer_that_the_policy_excludes_is_exit_17_and_sees_no_connection() {
    let desk = Desk::backed_up();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    desk.copy_to_s3(&listener);
    let database = format!("[mysql.db1]\nhost = \"localhost\"\nport = {port}\nuser = \"bkp\"\n[schedule]");
    desk.change_policy("[schedule]", &database);
    desk.change_policy("[repository]", "[network]\npeers = [\"10.0.30.0/24\"]\n[repository]");
    for args in [
        &["backup", "mall", "--source", "db1", "--no-copy"][..],
        &["verify", "mall", "--copy", "usb"],
        &["copy", "mall"],
        &["doctor", "mall"],
        &["restore", "mall", "--from", "usb", "--to-dir", &desk.text("out"), "--yes"],
    ] {
        let refused = desk.bkp(args).expect(17);
        assert!(format!("{}{}", refused.out, refused.err).contains("10.0.30.0/24"), "{refused:?}");
        assert!(listener.accept().is_err(), "{args:?} connected");
    }
    // The same listener hears who is allowed.
    desk.change_policy("10.0.30.0/24", "127.0.0.0/8\", \"::1");
    let mut child = desk.command(&["verify", "mall", "--copy", "usb"]).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_mins(1);
    let is_heard = std::iter::repeat_with(|| listener.accept().is_ok()).any(|heard| heard || Instant::now() > until);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_heard && Instant::now() < until);
}

// ------------------------------------------------------------------------------------------------------------ restore

fn time_of(snapshot: &Value) -> DateTime<Utc> {
    snapshot["time"].as_str().unwrap().parse().unwrap()
}

/// Returns a moment as an operator of the policy writes it, without an offset.
fn wall_clock(time: DateTime<Utc>, zone: chrono_tz::Tz) -> String {
    time.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S").to_string()
}

#[test]
fn a_point_in_time_takes_the_newest_snapshot_at_or_before_it() {
    let desk = Desk::backed_up();
    let old = files(&desk.path("images"));
    desk.write("images/shop0001/1.jpg", &noise(77, 20_000));
    desk.bkp(&["backup", "mall"]).expect(0);
    let [first, second] = &desk.snapshots()[..] else { panic!("two backups make two snapshots") };
    assert!(time_of(first) < time_of(second));

    let at = first["time"].as_str().unwrap();
    let restore = |at: &str, dir: &str| {
        desk.bkp(&["restore", "mall", "--point-in-time", at, "--to-dir", &desk.text(dir), "--yes"])
    };
    let told = restore(at, "older").expect(0);
    assert!(told.err.contains("from then until"), "{}", told.err);
    assert_eq!(files(&desk.path("older")), old);
    restore("latest", "newest").expect(0);
    assert_eq!(files(&desk.path("newest")), files(&desk.path("images")));

    let before = (time_of(first) - TimeDelta::seconds(1)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let refused = restore(&before, "nothing").expect(2);
    assert!(refused.err.contains("choose a snapshot of `images`: none is at or before"), "{}", refused.err);
    assert!(!desk.path("nothing").exists());
}

#[test]
fn a_time_without_an_offset_is_in_the_policys_zone() {
    let desk = Desk::backed_up();
    let now = time_of(&desk.snapshots()[0]);
    let plan =
        |at: &str| desk.bkp(&["restore", "mall", "--point-in-time", at, "--to-dir", &desk.text("out"), "--dry-run"]);
    let (seoul, utc) = (chrono_tz::Asia::Seoul, chrono_tz::UTC);
    plan(&wall_clock(now + TimeDelta::hours(1), seoul)).expect(0);
    plan(&wall_clock(now - TimeDelta::hours(1), seoul)).expect(2);
    // In Seoul the clocks of Greenwich show what was nine hours ago.
    plan(&wall_clock(now + TimeDelta::hours(1), utc)).expect(2);
    plan("yesterday").expect(2);
}

#[test]
fn a_source_without_a_snapshot_is_an_error_and_never_left_out() {
    let desk = Desk::backed_up();
    desk.write("videos/1.mp4", b"x");
    let videos = format!("[files.videos]\npath = \"{}\"\n[schedule]", desk.text("videos"));
    desk.change_policy("[schedule]", &videos);
    let out = desk.text("out");
    let refused = desk.bkp(&["restore", "mall", "--to-dir", &out, "--yes", "--quiet"]).expect(2);
    assert_snapshot!(desk.plain(&refused.err), @r"
    error: choose a snapshot of `videos`: there is none
    hint: `bkp snapshots` lists what there is; `--source NAME` restores the others alone, `--from COPY` looks into a copy
    ");
    assert!(!desk.path("out").exists());
    desk.bkp(&["restore", "mall", "--source", "images", "--to-dir", &out, "--yes"]).expect(0);

    // A drill goes on with what there is, and fails.
    let drill = desk.bkp(&["drill", "mall", "--json"]).expect(16).json();
    let outcome = &drill["steps"][0]["result"]["outcome"];
    let failed: Vec<&Value> =
        outcome["checks"].as_array().unwrap().iter().filter(|check| check["result"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{outcome}");
    assert_eq!(failed[0]["name"], "videos: a snapshot to restore");
    assert!(outcome["rpa_ms"].is_null() && outcome["rta_ms"].is_null(), "{outcome}");
}

#[test]
fn a_snapshot_that_is_incomplete_is_told_before_it_is_restored_and_proves_no_recovery() {
    let desk = Desk::new();
    desk.write("videos/1.mp4", b"x");
    let videos = format!("[files.videos]\npath = \"{}\"\n[schedule]", desk.text("videos"));
    desk.change_policy("[schedule]", &videos);
    desk.bkp(&["init", "mall"]).expect(0);
    desk.bkp(&["backup", "mall"]).expect(0);
    let plan = || desk.bkp(&["restore", "mall", "--to-dir", &desk.text("out"), "--dry-run"]).expect(0);
    assert!(!plan().out.contains("incomplete"), "{}", plan().out);
    desk.bkp(&["drill", "mall"]).expect(0);

    // The newest of all, beside an older one that is whole.
    block_on(async {
        let policy = Policy::load(&desk.path("policies/mall.toml")).unwrap();
        let repository = bkp::place::repository(&policy, &Run::silent()).await.unwrap();
        let stored = repository.snapshots().await.unwrap();
        let of_videos = stored.into_iter().find(|stored| stored.snapshot.tag("source") == Some("videos"));
        let mut snapshot = of_videos.unwrap().snapshot;
        snapshot.time += TimeDelta::milliseconds(1);
        snapshot.tags.push("incomplete=true".to_owned());
        repository.save_snapshot(&snapshot).await.unwrap();
    });
    let told = plan();
    assert!(told.out.contains("of videos is incomplete") && !told.out.contains("of images is"), "{}", told.out);
    let drill = desk.bkp(&["drill", "mall"]).expect(3);
    assert!(drill.out.contains("NOT PROVED"), "{}", drill.out);
    assert!(drill.out.contains("videos: everything is in the snapshot"), "{}", drill.out);
}

#[test]
fn a_source_that_the_policy_names_no_more_comes_back_only_by_name() {
    let desk = Desk::backed_up();
    desk.change_policy("[files.images]", "[files.pictures]");
    desk.bkp(&["backup", "mall"]).expect(0);
    let restore = |args: &[&str]| desk.bkp(&[&["restore", "mall", "--yes"], args].concat());
    restore(&["--to-dir", &desk.text("all")]).expect(0);
    assert_eq!(files(&desk.path("all")), files(&desk.path("images")), "one tree, and not two beside each other");
    restore(&["--to-dir", &desk.text("old"), "--source", "images"]).expect(0);
    assert_eq!(files(&desk.path("old")), files(&desk.path("images")));
    let drill = desk.bkp(&["drill", "mall"]).expect(0);
    assert!(drill.err.contains("images is no source of the policy any more"), "{}", drill.err);

    let old = desk.snapshots()[0]["id"].as_str().unwrap().to_owned();
    let other = restore(&["--to-dir", &desk.text("none"), "--snapshot", &old, "--source", "pictures"]).expect(2);
    assert!(other.err.contains("is one of source `images`"), "{}", other.err);
}

#[test]
fn a_restore_wants_a_target_that_can_take_something() {
    let desk = Desk::backed_up();
    let nowhere = desk.bkp(&["restore", "mall", "--yes"]).expect(2);
    assert!(nowhere.err.contains("no directory to restore it into is named"), "{}", nowhere.err);
    let misfit = desk.bkp(&["restore", "mall", "--to-mysql", "mysql://root@localhost?socket=/x", "--yes"]).expect(2);
    assert!(misfit.err.contains("has no source that the named target can take"), "{}", misfit.err);
    desk.bkp(&["restore", "mall", "--to-dir", &desk.text("out"), "--tables", "mall.orders", "--yes"]).expect(2);
}

#[test]
fn nothing_is_written_without_consent_not_even_with_json() {
    let desk = Desk::backed_up();
    let out = desk.text("out");
    for more in [&[][..], &["--json"]] {
        let refused = desk.bkp(&[&["restore", "mall", "--to-dir", &out], more].concat()).expect(2);
        assert!(refused.err.contains("hint: add `--yes`"), "{}", refused.err);
    }
    assert!(!desk.path("out").exists());
}

#[test]
fn the_source_itself_is_a_target_only_for_who_types_its_host() {
    let desk = Desk::backed_up();
    symlink(desk.path("images"), desk.path("link")).unwrap();
    let restore = |dir: &str, more: &[&str]| {
        desk.bkp(&[&["restore", "mall", "--to-dir", dir, "--yes", "--overwrite"], more].concat())
    };
    for dir in ["images", "link/not/there/yet"] {
        let refused = restore(&desk.text(dir), &[]).expect(2);
        assert!(refused.err.contains("is the source itself"), "{dir}: {}", refused.err);
    }
    let wrong = restore(&desk.text("images"), &["--in-place", "--confirm-host", "elsewhere"]).expect(2);
    assert!(wrong.err.contains("`elsewhere` is not the name of the host"), "{}", wrong.err);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let before = files(&desk.path("images"));
    desk.write("images/shop0001/2.jpg", b"overwritten by mistake");
    restore(&desk.text("images"), &["--in-place", "--confirm-host", "elsewhere", "--confirm-host", host.trim()])
        .expect(0);
    assert_eq!(files(&desk.path("images")).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!(fs::read(desk.path("images/shop0001/2.jpg")).unwrap(), noise(2, 20_000));
}

// -------------------------------------------------------------------------------------------------- drills and reports

#[test]
fn a_report_is_found_by_its_run_however_many_came_after() {
    let desk = Desk::backed_up();
    let none = desk.bkp(&["report", "mall"]).expect(1);
    assert!(none.err.contains("`bkp drill` makes one"), "{}", none.err);
    let run = |ended: Ended| ended.json()["steps"][0]["result"]["outcome"]["run"].as_str().unwrap().to_owned();
    let first = run(desk.bkp(&["drill", "mall", "--json"]).expect(0));
    let newest = run(desk.bkp(&["drill", "mall", "--json"]).expect(0));
    age_drills(&desk, &newest);

    assert_eq!(desk.bkp(&["report", "mall", "--json"]).expect(0).json()["run"], newest);
    assert_eq!(desk.bkp(&["report", "mall", "--run", &first, "--json"]).expect(0).json()["run"], first);
    assert!(desk.bkp(&["report", "mall"]).expect(0).out.starts_with("Drill of mall: PASSED"));
    assert!(desk.bkp(&["report", "mall", "--format", "markdown"]).expect(0).out.starts_with("# "));
    let file = desk.text("report.html");
    desk.bkp(&["report", "mall", "--format", "html", "-o", &file]).expect(0);
    assert!(fs::read_to_string(file).unwrap().starts_with("<!DOCTYPE html>"));
    desk.bkp(&["report", "mall", "--run", "never"]).expect(1);
}

/// Records the newest drill again as thirty others between the first and it.
fn age_drills(desk: &Desk, newest: &str) {
    let catalog = Catalog::open(&desk.path("state"), &Events::silent()).unwrap();
    let drill = catalog.drills(1).unwrap().remove(0);
    assert_eq!(drill.run.as_str(), newest);
    for n in 0..30 {
        let run = Run::silent();
        let started = drill.started - TimeDelta::milliseconds(n + 1);
        catalog.record_drill(&bkp::drill::outcome::DrillOutcome { run: run.id, started, ..drill.clone() }).unwrap();
    }
}

#[test]
fn what_a_killed_drill_left_behind_is_swept_up_by_the_next() {
    let desk = Desk::backed_up();
    desk.write("bkp-drill-left/.owner", b"4194304");
    desk.write("bkp-drill-left/images/1.jpg", b"x");
    let drill = desk.bkp(&["drill", "mall"]).expect(0);
    assert!(drill.err.contains("bkp-drill-left, which a run that was killed had left behind"), "{}", drill.err);
    let left = |desk: &Desk| {
        let names = fs::read_dir(desk.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("bkp-")).collect::<Vec<_>>()
    };
    assert_eq!(left(&desk), [""; 0]);
    desk.bkp(&["drill", "mall", "--keep"]).expect(0);
    let kept = left(&desk);
    assert_eq!(kept.len(), 1);
    assert_eq!(files(&desk.path(&kept[0]).join("images")), files(&desk.path("images")));
}

/// Tells a run to stop at the first thing that it says.
struct Stopper(std::sync::Mutex<Option<tokio_util::sync::CancellationToken>>);

impl Listener for Stopper {
    fn hear(&self, event: &Event) {
        if let (Event::Note(_), Some(cancel)) = (event, &*self.0.lock().unwrap()) {
            cancel.cancel();
        }
    }
}

#[test]
fn a_drill_that_is_told_to_stop_counts_neither_as_passed_nor_as_failed() {
    let desk = Desk::backed_up();
    // The drill says that it sweeps this up.
    desk.write("bkp-drill-left/.owner", b"4194304");
    let stopper = Arc::new(Stopper(std::sync::Mutex::default()));
    let run = Run::new(Arc::new(SystemClock), Events::new(stopper.clone()));
    *stopper.0.lock().unwrap() = Some(run.cancel.clone());
    let policy = Policy::load(&desk.path("policies/mall.toml")).unwrap();
    let drill = Task::Drill { from: None, scenario: Scenario::Lost, keep: false };
    let stopped = block_on(cycle::by_hand(&policy, &drill, Duration::ZERO, &run)).unwrap_err();
    assert_eq!(stopped.exit, Exit::Interrupted);
    assert!(!desk.path("bkp-drill-left").exists(), "it stopped before the drill began");
    let catalog = Catalog::open(Path::new(&policy.state_dir), &Events::silent()).unwrap();
    assert_eq!(catalog.drills(8).unwrap(), []);
    desk.bkp(&["status", "mall"]).expect(0);
}

#[test]
fn a_copy_that_shares_the_originals_fate_is_warned_of() {
    let desk = Desk::ready();
    let doctor = desk.bkp(&["doctor", "mall"]).expect(0);
    let near = format!(
        "warning copy usb: lies apart from the repository: {} is on the repository's own filesystem",
        desk.text("usb")
    );
    assert!(doctor.out.contains(&near), "{doctor:?}");
    let checked = desk.bkp(&["policy", "check", "mall"]).expect(0);
    for warning in [
        "warning: all copies: there is only one",
        "warning: all copies: none is immutable",
        "hint: add `object_lock = {",
    ] {
        assert!(checked.out.contains(warning), "{warning}: {checked:?}");
    }
    let json = desk.bkp(&["policy", "check", "mall", "--json"]).expect(0).json();
    assert_eq!(json["policies"][0]["warnings"].as_array().unwrap().len(), 3, "{json}");
}
