//! Kills, signals, full disks, failing copies: nothing is lost, and the next run succeeds.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::servers::{Product, Server};
use crate::world::{Ended, World, files, noise, rows};

/// Kills in the loop; `BKP_TEST_KILLS` asks for more.
const KILLS: u32 = 30;

pub(crate) fn kill(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_kill_at_any_moment_leaves_a_sound_repository_and_the_next_run_succeeds() {
    let world = World::ready(Product::MariaDb);
    world.bkp(&["backup", "mall"]).expect(0);
    let began = Instant::now();
    world.order(1, 10_000, 200);
    world.bkp(&["backup", "mall"]).expect(0);
    let whole = began.elapsed();

    let kills: u32 = std::env::var("BKP_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut killed = 0;
    for n in 0..kills {
        world.order(1 + n % 5, 20_000 + n * 300, 150);
        world.add_image(1 + n % 5, 100 + n);
        let mut child = world.spawn(&["backup", "mall"]);
        // Moments spread over a whole run, each kill at another one.
        std::thread::sleep(whole.mul_f64(f64::from(n % 15) / 15.0) + Duration::from_millis(u64::from(n)));
        if child.try_wait().unwrap().is_none() {
            kill(child.id(), "-KILL");
        }
        if child.wait().unwrap().signal() == Some(9) {
            killed += 1;
        }
        if n % 10 == 9 {
            // The killed runs' locks are stale, and restic cannot know it before half an hour has passed.
            world.restic(&["check", "--read-data", "--no-lock"]).expect(0);
        }
    }
    assert!(killed >= kills / 2, "only {killed} of {kills} kills met a running backup");

    world.bkp(&["backup", "mall"]).expect(0);
    world.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    world.bkp(&["verify", "mall", "--level", "data", "--copy", "offsite"]).expect(0);
    world.restic(&["check", "--read-data", "--no-lock"]).expect(0);
    let (target, dir) = (Server::start(Product::MariaDb, &[]), world.path("restored"));
    world.restore_into(&target, &["--to-dir", dir.to_str().unwrap(), "--yes"]).expect(0);
    assert_eq!(rows(&target), rows(&world.source));
    assert_eq!(files(&dir), files(&world.images()));
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn signals_stop_a_run_with_their_own_codes_and_leave_no_lock() {
    let world = World::ready(Product::MariaDb);
    let locks = || fs::read_dir(world.path("repository/locks")).unwrap().count();
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let child = world.spawn(&["backup", "mall", "--source", "db1"]);
        wait_for_connection(&world);
        wait_until("the repository to be locked", || locks() > 0);
        kill(child.id(), signal);
        let ended: Ended = child.wait_with_output().unwrap().into();
        assert_ne!(ended.code, Some(0), "the run was over before the signal");
        ended.expect(code);
        assert_eq!(locks(), 0, "{signal}");
    }
    world.bkp(&["backup", "mall"]).expect(0);
    world.restic(&["check"]).expect(0);
}

/// Waits until the server sees the dump's account.
fn wait_for_connection(world: &World) {
    wait_until("the backup to connect", || is_connected(world));
}

fn is_connected(world: &World) -> bool {
    world.source.value("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'dumper'") != "0"
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills a restore in the middle of its largest table, backs the source up again, and gives the same command once more.
fn a_killed_restore_goes_on_with_the_snapshot_it_began(product: Product) {
    let world = World::ready(product);
    for block in 0..60 {
        world.order(7, 1_000_000 + block * 5_000, 5_000);
    }
    world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    let begun = rows(&world.source);

    let target = Server::start(product, &[]);
    let mut child = world.restore_command(&target, &["--yes", "--connections", "2"]).spawn().unwrap();
    let loading = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'LOAD DATA%orders%' AND info NOT LIKE 'SELECT%'";
    wait_until("the load to be in the middle", || {
        let is_made = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'bkp_restore_progress'";
        let loaded = "SELECT COUNT(*) FROM bkp_restore.bkp_restore_progress WHERE step = 'chunk'";
        target.value(loading) != "0" && target.value(is_made) == "1" && target.value(loaded) != "0"
    });
    kill(child.id(), "-KILL");
    assert_eq!(child.wait().unwrap().signal(), Some(9), "the restore was over before the kill");
    wait_until("the server to hear of it", || target.value(loading) == "0");
    assert_eq!(target.value("SELECT COUNT(*) FROM mall.orders"), "0");

    world.order(8, 0, 100);
    world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    let again = world.restore_into(&target, &["--yes", "--connections", "2", "--verify"]).expect(0);
    assert!(again.err.contains("that one goes on"), "{again:?}");
    assert_eq!(rows(&target), begun);
    let left = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'bkp_restore'";
    assert_eq!(target.value(left), "0");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_restore_killed_in_mid_load_goes_on_when_the_command_is_given_again_on_mariadb() {
    a_killed_restore_goes_on_with_the_snapshot_it_began(Product::MariaDb);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_restore_killed_in_mid_load_goes_on_when_the_command_is_given_again_on_mysql() {
    a_killed_restore_goes_on_with_the_snapshot_it_began(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_copy_that_fails_is_exit_3_and_the_next_run_catches_up() {
    let world = World::ready(Product::MariaDb);
    let policy = fs::read_to_string(world.path("policies/mall.toml")).unwrap();
    let unreachable = policy.replace(&world.s3.endpoint(), "http://127.0.0.1:9");
    assert_ne!(policy, unreachable);
    fs::write(world.path("policies/mall.toml"), unreachable).unwrap();
    let failed = world.bkp(&["backup", "mall", "--json"]).expect(3).json();
    assert_eq!(failed["steps"][0]["result"]["snapshots"].as_array().unwrap().len(), 2);
    fs::write(world.path("policies/mall.toml"), policy).unwrap();
    world.bkp(&["copy", "mall"]).expect(0);
    world.bkp(&["verify", "mall", "--level", "data", "--copy", "offsite"]).expect(0);
    let here = world.bkp(&["snapshots", "mall", "--json"]).expect(0).json();
    let there = world.bkp(&["snapshots", "mall", "--from", "offsite", "--json"]).expect(0).json();
    assert_eq!(here, there);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_second_run_of_a_policy_exits_11_or_waits() {
    let world = World::ready(Product::MariaDb);
    fs::create_dir_all(world.path("state")).unwrap();
    let holder =
        fs::OpenOptions::new().create(true).write(true).truncate(false).open(world.path("state/run.lock")).unwrap();
    holder.lock().unwrap();
    world.bkp(&["backup", "mall"]).expect(11);
    world.bkp(&["run", "mall", "--now"]).expect(11);
    world.bkp(&["run", "mall", "--now", "--skip-locked"]).expect(0);
    let mut waiting = world.spawn(&["backup", "mall", "--lock-wait", "60s"]);
    // As long as a whole backup takes, and yet it has not even connected.
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_secs(3) {
        assert!(waiting.try_wait().unwrap().is_none(), "it did not wait");
        assert!(!is_connected(&world), "it began without the lock");
    }
    holder.unlock().unwrap();
    let ended: Ended = waiting.wait_with_output().unwrap().into();
    ended.expect(0);
}

#[test]
fn a_run_with_nothing_due_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Neither the server nor the repository is there: whoever opens one, fails.
    let text = format!(
        "version = 1\nname = \"idle\"\ntimezone = \"UTC\"\nstate_dir = \"{0}/state\"\n\
         [repository]\npath = \"{0}/none\"\npassword_file = \"{0}/none.key\"\n\
         [mysql.db1]\nhost = \"127.0.0.1\"\nport = 9\nuser = \"x\"\npassword_file = \"{0}/none.pw\"\ntls = \"off\"\n\
         [schedule]\nbackup = \"15 2 * * *\"\n[retention]\nlast = 3\n",
        dir.path().display()
    );
    fs::write(dir.path().join("idle.toml"), text).unwrap();
    for _ in 0..2 {
        let output =
            Command::new(env!("CARGO_BIN_EXE_bkp")).args(["run", "--policies"]).arg(dir.path()).output().unwrap();
        let ended = Ended::from(output).expect(0);
        assert_eq!(ended.out, "");
    }
    assert!(!dir.path().join("none").exists());
    let mut kept: Vec<_> =
        fs::read_dir(dir.path().join("state")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    kept.sort();
    assert_eq!(kept, ["stamps.json", "stamps.lock"]);
}

#[test]
#[ignore = "needs root to mount a small disk; scripts/test runs it"]
fn a_full_disk_is_a_clear_error_and_loses_nothing() {
    let world = World::new(Product::MariaDb);
    let repository = world.path("repository");
    let _unmount = small_disk(&repository, "24m");
    world.bkp(&["init", "mall"]).expect(0);
    world.bkp(&["backup", "mall", "--no-copy"]).expect(0);
    let before = snapshots(&world);
    fs::write(world.images().join("huge.jpg"), noise(7, 40 << 20)).unwrap();
    let full = world.bkp(&["backup", "mall", "--no-copy", "--source", "images"]).expect(1);
    assert!(full.err.contains("no space left") || full.out.contains("no space left"), "{full:?}");
    fs::remove_file(world.images().join("huge.jpg")).unwrap();

    // A dump that does not fit: its rows do not compress.
    world.source.execute("CREATE TABLE mall.blobs (id INT PRIMARY KEY, b LONGBLOB)");
    for id in 0..10_u64 {
        let hex = hex::encode(noise(100 + id, 4 << 20));
        world.source.execute(&format!("INSERT INTO mall.blobs VALUES ({id}, X'{hex}')"));
    }
    let full = world.bkp(&["backup", "mall", "--no-copy", "--source", "db1"]).expect(1);
    assert!(full.err.contains("no space left") || full.out.contains("no space left"), "{full:?}");
    world.source.execute("DROP TABLE mall.blobs");

    assert_eq!(snapshots(&world), before);
    world.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    world.restic(&["check", "--read-data", "--no-lock"]).expect(0);
}

#[test]
#[ignore = "needs root to mount a small disk; scripts/test runs it"]
fn a_disk_that_turned_read_only_is_told_as_one_and_still_restores() {
    let world = World::new(Product::MariaDb);
    let repository = world.path("repository");
    let _unmount = small_disk(&repository, "64m");
    world.bkp(&["init", "mall"]).expect(0);
    world.bkp(&["backup", "mall", "--no-copy"]).expect(0);
    remount(&repository, "ro");
    world.add_image(1, 99);
    let refused = world.bkp(&["backup", "mall", "--no-copy"]).expect(1);
    assert!(refused.err.contains("its file system is read-only") && refused.err.contains("dmesg"), "{refused:?}");
    let before = snapshots(&world);
    world.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    let (target, dir) = (Server::start(Product::MariaDb, &[]), world.path("restored"));
    world.restore_into(&target, &["--to-dir", dir.to_str().unwrap(), "--yes"]).expect(0);
    assert_eq!(rows(&target)["orders"], rows(&world.source)["orders"]);

    remount(&repository, "rw");
    assert_eq!(snapshots(&world), before);
    world.bkp(&["backup", "mall", "--no-copy"]).expect(0);
    world.bkp(&["verify", "mall", "--level", "data"]).expect(0);
}

fn remount(disk: &std::path::Path, how: &str) {
    let options = format!("remount,{how}");
    assert!(Command::new("mount").args(["-o", &options]).arg(disk).status().unwrap().success());
}

#[test]
#[ignore = "needs root to become another user; scripts/test runs it"]
fn a_permission_that_is_lost_in_mid_run_is_a_clear_error_and_loses_nothing() {
    let world = World::new(Product::MariaDb);
    let program = world.path("bkp");
    fs::copy(env!("CARGO_BIN_EXE_bkp"), &program).unwrap();
    own(world.dir.path());
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(&program).args(args);
        command.arg("--policies").arg(world.path("policies")).env("HOME", world.dir.path()).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let run = |args: &[&str]| Ended::from(as_nobody(args).output().unwrap());
    run(&["init", "mall"]).expect(0);
    run(&["backup", "mall", "--no-copy"]).expect(0);
    let before = run(&["snapshots", "mall", "--json"]).expect(0).json();
    let packs = || files(&world.path("repository/data")).len();
    let count = packs();
    fs::write(world.images().join("huge.jpg"), noise(7, 96 << 20)).unwrap();
    own(&world.images());
    let backup = as_nobody(&["backup", "mall", "--no-copy", "--source", "images"]).spawn().unwrap();
    wait_until("the first pack of the run", || packs() > count);
    // All of them: a pack lies where its hash says.
    let data = world.path("repository/data");
    let dirs =
        || fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).chain([data.clone()]).collect::<Vec<_>>();
    for dir in dirs() {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o500)).unwrap();
    }
    let failed = Ended::from(backup.wait_with_output().unwrap()).expect(12);
    assert!(failed.err.contains("access denied") && failed.err.contains("rights of the directory"), "{failed:?}");
    assert_eq!(run(&["snapshots", "mall", "--json"]).expect(0).json(), before);

    for dir in dirs() {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::remove_file(world.images().join("huge.jpg")).unwrap();
    run(&["backup", "mall", "--no-copy"]).expect(0);
    run(&["verify", "mall", "--level", "data"]).expect(0);
    world.restic(&["check", "--read-data", "--no-lock"]).expect(0);
}

const NOBODY: &str = "65534";

/// Gives a directory and all below it to another user.
fn own(dir: &std::path::Path) {
    assert!(Command::new("chown").args(["-R", NOBODY]).arg(dir).status().unwrap().success());
}

#[test]
#[ignore = "needs root to mount a small disk; scripts/test runs it"]
fn a_restore_that_fills_the_disk_says_so_and_comes_through_once_there_is_room() {
    let world = World::ready(Product::MariaDb);
    fs::write(world.images().join("huge.jpg"), noise(7, 20 << 20)).unwrap();
    world.bkp(&["backup", "mall", "--no-copy", "--source", "images"]).expect(0);
    let disk = world.path("disk");
    let unmount = small_disk(&disk, "8m");
    let dir = disk.join("restored");
    let args = ["restore", "mall", "--source", "images", "--to-dir", dir.to_str().unwrap(), "--yes", "--overwrite"];
    let full = world.bkp(&args);
    assert!(matches!(full.code, Some(1 | 3)), "{full:?}");
    assert!(full.err.contains("o space left") || full.out.contains("o space left"), "{full:?}");
    let more = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&disk).status().unwrap();
    assert!(more.success());
    world.bkp(&args).expect(0);
    assert_eq!(files(&dir), files(&world.images()));
    drop(unmount);
}

fn snapshots(world: &World) -> serde_json::Value {
    world.bkp(&["snapshots", "mall", "--json"]).expect(0).json()
}

pub(crate) fn small_disk<'a>(dir: &'a std::path::Path, size: &str) -> Unmount<'a> {
    fs::create_dir_all(dir).unwrap();
    let size = format!("size={size}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir).status().unwrap();
    assert!(mounted.success(), "mount a small disk");
    Unmount(dir)
}

pub(crate) struct Unmount<'a>(&'a std::path::Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // Lazily: after a test that failed, a server may still have files open there.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}
