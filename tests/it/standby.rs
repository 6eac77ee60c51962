//! A standby follows the capture whatever is killed, keeps a mistake back, and takes over with the rows of its point.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bkp::mysql::server::Server as Address;
use bkp::place;
use bkp::policy::Policy;
use bkp::repository::LockMode;
use bkp::run::Run;
use bkp::secret::Secret;
use mysql_async::prelude::Queryable as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::load::address;
use crate::replay::{last_gtid, state};
use crate::servers::{Product, Server, block_on};
use crate::world::{Ended, World};

/// A process that ends with its test at the latest.
struct Process(Child);

impl Process {
    fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Stops it for a while (`STOP`), or lets it go on (`CONT`).
    fn signal(&self, name: &str) {
        let told = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(told.unwrap().success());
    }

    /// Waits until it ends by itself.
    fn end(mut self) -> (Option<i32>, String) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it does not end");
            thread::sleep(Duration::from_millis(50));
        }
        let mut told = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut told).unwrap();
        (self.0.wait().unwrap().code(), told)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A world whose binlog is captured, and a server that stands by.
struct Scene {
    world: World,
    target: Server,
}

impl Scene {
    fn command(&self, verb: &str, more: &[&str]) -> Command {
        let url = format!("mysql://root@localhost?socket={}", self.target.socket().display());
        let args = ["standby", verb, "mall", "--source", "db1", "--no-binlog", "--to-mysql", &url];
        self.world.command(&[&args, more].concat())
    }

    fn start(&self, more: &[&str]) -> Process {
        Process::start(self.command("start", more))
    }

    fn promote(&self, point: &str, more: &[&str]) -> Ended {
        let args = ["--point-in-time", point, "--json"];
        self.command("promote", &[&args, more].concat()).output().unwrap().into()
    }

    fn status(&self) -> Value {
        Ended::from(self.command("status", &["--json"]).output().unwrap()).json()
    }

    /// Waits until something of the standby is so.
    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            assert!(Instant::now() < until, "not {what}: {}", self.status());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn has_rows_of_source(&self) -> bool {
        state(&self.target) == state(&self.world.source)
    }

    /// Counts the orders of a standby that follows: none until it does.
    fn orders(&self) -> u32 {
        let follows = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'bkp_standby'";
        if self.target.value(follows) == "0" {
            return 0;
        }
        self.target.value("SELECT COUNT(*) FROM mall.orders").parse().unwrap()
    }

    fn is_closed(&self) -> bool {
        self.target.value("SELECT @@GLOBAL.read_only") == "1"
    }
}

fn a_standby_takes_over(product: Product) {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
    println!("seed {seed}");
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
    let world = World::ready(product);
    world.write_policy("\n[mysql.db1.binlog]\ncapture = true\ninterval = \"1s\"\n");
    world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    let daemon = Process::start(world.command(&["daemon", "mall"]));
    let mut scene = Scene { world, target: Server::start(product, &[]) };
    let before = scene.target.query("SELECT @@server_id, @@event_scheduler");

    killed_in_mid_stream(&mut scene);
    killed_while_it_became_one(&scene);
    let standby = scene.start(&[]);
    // As a restore to a point in time does in the source, which comes by the binlog.
    scene.world.source.execute(
        "CREATE DATABASE IF NOT EXISTS bkp_restore; \
         CREATE TABLE IF NOT EXISTS bkp_restore.bkp_replay (id INT PRIMARY KEY, record LONGTEXT CHARACTER SET utf8mb4 NOT NULL) ENGINE=InnoDB; \
         REPLACE INTO bkp_restore.bkp_replay VALUES (1, '{}'); DROP DATABASE bkp_restore",
    );
    scene.world.order(3, 30_000, 10);
    scene.wait_until("all there", Scene::has_rows_of_source);
    scene.wait_until("measured", |scene| scene.status()["lag_ms"].as_u64().is_some_and(|lag| lag < 15_000));
    assert!(scene.is_closed());
    a_promotion_reads_on_from_where_the_standby_is(&scene, &daemon);
    let back = scene.promote(&format!("before:{}", last_gtid(&scene.world.source)), &[]).expect(2);
    assert!(back.err.contains("past that already"), "{back:?}");
    scene.wait_until("streaming on", |scene| scene.status()["is_streaming"] == true);
    a_stop_does_not_wait_for_a_stranger(&scene, standby);

    // With a delay, a mistake can be stopped.
    let standby = scene.start(&["--delay", "1h"]);
    scene.wait_until("streaming", |scene| scene.status()["is_streaming"] == true);
    let undisturbed = state(&scene.target);
    for n in 0..40 {
        scene.world.order(4, 50_000 + n * 10, 10);
    }
    let wanted = state(&scene.world.source);
    scene.world.source.execute("DROP TABLE mall.orders");
    let mistake = format!("before:{}", last_gtid(&scene.world.source));
    thread::sleep(Duration::from_secs(2));
    assert_eq!(state(&scene.target), undisturbed, "neither came");
    let planned = scene.promote(&mistake, &["--dry-run"]).expect(0).json();
    assert_eq!(planned["plan"]["first_excluded"]["gtid"], mistake["before:".len()..], "{planned}");
    assert!(scene.is_closed());

    // A restart of its server that nobody saw to: a replica with its source's number leaves all of it out.
    standby.signal("STOP");
    let number = scene.world.source.value("SELECT @@server_id");
    scene.target.execute(&format!("SET GLOBAL read_only = OFF; SET GLOBAL server_id = {number}"));
    // Killed anywhere, the same command goes on.
    let args = ["--point-in-time", &mistake, "--json"];
    for _ in 0..3 {
        let promotion = Process::start(scene.command("promote", &args));
        thread::sleep(Duration::from_millis(random.random_range(50..700)));
        promotion.kill();
    }
    let promoted = scene.promote(&mistake, &[]);
    if promoted.code == Some(0) {
        let downtime = promoted.json()["promoted"]["downtime_ms"].as_u64().unwrap();
        assert!(downtime < 10_000, "{promoted:?}");
    } else {
        // The last of the killed ones had done it all.
        assert!(promoted.err.contains("no record"), "{promoted:?}");
    }
    assert_eq!(state(&scene.target), wanted);
    scene.target.execute("INSERT INTO mall.shops (id, name) VALUES (77, 'open')");
    assert_eq!(scene.target.query("SELECT @@server_id, @@event_scheduler"), before);
    standby.signal("CONT");
    let (code, told) = standby.end();
    assert_eq!(code, Some(0), "{told}");
    assert!(!told.contains("again in"), "a promotion is no fault: {told}");
    assert_eq!(std::fs::read_dir(scene.world.path("state/standby")).unwrap().count(), 0, "it is no standby any more");
    the_guides_right_opens_and_closes(&scene.target);
    a_new_epoch_ends_the_stream(&scene);
    drop(daemon);
}

/// What the standby has applied was read and proved for it: a promotion does not read a file of any size from its beginning.
fn a_promotion_reads_on_from_where_the_standby_is(scene: &Scene, daemon: &Process) {
    let told = || {
        let of = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry.unwrap().path()).unwrap();
        let mut all = std::fs::read_dir(scene.world.path("state/standby")).unwrap().map(of);
        all.find_map(|text| serde_json::from_slice::<Value>(&text).ok()).unwrap()
    };
    scene.wait_until("known to be at the end", |_| told()["reached"]["place"]["offset"].as_u64() > Some(1_000));
    let place = told()["reached"]["place"].clone();
    let file = place["file"].as_str().unwrap().to_owned();
    daemon.signal("STOP");
    let find = Command::new("find").arg(scene.world.path("")).args(["-name", &file, "-path", "*/binlog/*"]).output();
    let path = String::from_utf8(find.unwrap().stdout).unwrap().trim().to_owned();
    let flip = || {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[usize::try_from(place["offset"].as_u64().unwrap()).unwrap() - 6] ^= 1;
        std::fs::File::options().write(true).open(&path).and_then(|mut file| file.write_all(&bytes)).unwrap();
    };
    flip();
    let planned = scene.promote("latest", &["--dry-run"]);
    flip();
    daemon.signal("CONT");
    let planned = planned.expect(0).json();
    a_prune_keeps_no_promotion_waiting(scene, daemon);
    let last = last_gtid(&scene.world.source).to_string();
    assert_eq!(planned["plan"]["last_included"]["gtid"], last, "{planned}");
}

/// What the spool has let go of is read beside whoever works alone on the repository.
fn a_prune_keeps_no_promotion_waiting(scene: &Scene, daemon: &Process) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lock = runtime.block_on(async {
        let policy = Policy::load(&scene.world.path("policies/mall.toml")).unwrap();
        let repository = place::repository(&policy, &Run::silent()).await.unwrap();
        repository.lock(LockMode::Exclusive, Duration::from_secs(30), &Run::silent()).await.unwrap()
    });
    daemon.signal("STOP");
    let (spool, aside) = (scene.world.path("state/binlog"), scene.world.path("aside"));
    std::fs::rename(&spool, &aside).unwrap();
    let planned = scene.promote("latest", &["--dry-run"]);
    std::fs::rename(&aside, &spool).unwrap();
    daemon.signal("CONT");
    runtime.block_on(lock.release()).unwrap();
    let planned = planned.expect(0);
    assert!(planned.err.contains("who works alone on the repository"), "{planned:?}");
}

/// A session on the standby that holds a lock holds the applier up, and whoever waits for that.
fn a_stop_does_not_wait_for_a_stranger(scene: &Scene, standby: Process) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stranger = runtime.block_on(async {
        let mut conn = address(&scene.target).connect().await.unwrap();
        conn.query_drop("LOCK TABLES mall.orders READ").await.unwrap();
        conn
    });
    scene.world.order(3, 31_000, 5);
    let held_up = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'system user' AND state LIKE '%metadata lock%'";
    scene.wait_until("held up", |scene| scene.target.value(held_up) != "0");
    standby.signal("TERM");
    let (code, told) = standby.end();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("it still waits for its thread") && told.contains("metadata lock"), "{told}");
    runtime.block_on(stranger.disconnect()).unwrap();
}

fn the_guides_right_opens_and_closes(target: &Server) {
    let (rights, closed) = match target.product() {
        Product::MySql => ("CONNECTION_ADMIN, SYSTEM_VARIABLES_ADMIN", "super_read_only"),
        Product::MariaDb => ("READ ONLY ADMIN", "read_only"),
    };
    target.execute("SET sql_log_bin = 0; CREATE USER closer@'%' IDENTIFIED BY 'pw'");
    target.execute(&format!("SET sql_log_bin = 0; GRANT {rights} ON *.* TO closer@'%'"));
    let password = Some(Secret::new("pw".to_owned()));
    let account = Address { user: "closer".to_owned(), password, ..address(target) };
    block_on(async {
        let mut conn = account.connect().await.unwrap();
        conn.query_drop(format!("SET GLOBAL {closed} = ON")).await.unwrap();
        conn.query_drop("SET GLOBAL read_only = OFF").await.unwrap();
    });
    target.execute("SET sql_log_bin = 0; DROP USER closer@'%'");
}

/// Tells a thread to end, also where its test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The standby is killed while orders come, and its server restarts: nothing is lost.
fn killed_in_mid_stream(scene: &mut Scene) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (world, is_over) = (&scene.world, &is_over);
        let writer = scope.spawn(move || {
            let mut n = 0;
            while !is_over.load(Ordering::Relaxed) {
                world.order(2, 10_000 + n * 10, 10);
                n += 1;
                if n % 50 == 0 {
                    world.source.execute("FLUSH BINARY LOGS");
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        let over = Over(is_over);
        let mut last = 0;
        for _ in 0..2 {
            let standby = scene.start(&[]);
            scene.wait_until("under way", |scene| scene.orders() > last + 300);
            standby.kill();
            last = scene.orders();
        }
        drop(over);
        writer.join().unwrap();
    });
    // More files than are served at once, and small enough to be applied before the standby is asked again.
    for n in 0..24 {
        scene.world.order(2, 15_000 + n, 1);
        scene.world.source.execute("FLUSH BINARY LOGS");
    }
    let standby = scene.start(&[]);
    scene.wait_until("streaming", |scene| scene.status()["is_streaming"] == true);
    scene.target.kill();
    scene.target.start_again();
    scene.world.order(3, 20_000, 10);
    scene.wait_until("followed again", |scene| scene.is_closed() && scene.has_rows_of_source());
    standby.kill();
}

/// Leaves the record of the replay beside that of the standby, as one who is killed between the two does.
fn killed_while_it_became_one(scene: &Scene) {
    let is_mysql = scene.target.product() == Product::MySql;
    scene.target.execute(&format!(
        "SET sql_log_bin = 0; {}CREATE DATABASE bkp_restore; CREATE TABLE bkp_restore.bkp_replay LIKE bkp_standby.bkp_standby; \
         INSERT INTO bkp_restore.bkp_replay SELECT id, JSON_REMOVE(record, '$.standby') FROM bkp_standby.bkp_standby; {}",
        open_for_root(&scene.target),
        if is_mysql { "SET GLOBAL super_read_only = ON" } else { "" }
    ));
    assert!(scene.is_closed());
}

/// Returns what lets root write to a standby.
fn open_for_root(target: &Server) -> &'static str {
    if target.product() == Product::MySql { "SET GLOBAL super_read_only = OFF; " } else { "" }
}

fn a_lost_record_is_no_promotion(scene: &Scene, standby: Process) -> Process {
    let target = &scene.target;
    let open = open_for_root(target);
    let record = "bkp_standby.bkp_standby";
    target.execute(&format!("SET sql_log_bin = 0; {open}CREATE DATABASE aside; RENAME TABLE {record} TO aside.record"));
    let (code, told) = standby.end();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("nobody has promoted it"), "{told}");
    target.execute(&format!("SET sql_log_bin = 0; RENAME TABLE aside.record TO {record}; DROP DATABASE aside"));
    let standby = scene.start(&[]);
    scene.wait_until("streaming again", |scene| scene.status()["is_streaming"] == true);
    standby
}

/// A source that was reset is another history: the standby stays where it is, and opens only as it is.
fn a_new_epoch_ends_the_stream(scene: &Scene) {
    let (world, target) = (&scene.world, &scene.target);
    let (reset, users) = match target.product() {
        Product::MySql => ("RESET BINARY LOGS AND GTIDS", "DROP USER IF EXISTS dumper"),
        Product::MariaDb => ("RESET MASTER", "SET GLOBAL gtid_slave_pos = ''; DROP USER IF EXISTS dumper"),
    };
    target.execute(&format!("DROP DATABASE mall; {users}; {reset}"));
    let standby = scene.start(&[]);
    scene.wait_until("streaming", |scene| scene.status()["is_streaming"] == true);
    scene.wait_until("all there", Scene::has_rows_of_source);
    let standby = a_lost_record_is_no_promotion(scene, standby);
    let before = state(target);
    world.source.execute(&format!("{reset}; INSERT INTO mall.shops (id, name) VALUES (88, 'another history')"));
    let (code, told) = standby.end();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("a new epoch begins"), "{told}");
    assert_eq!(state(target), before);
    let refused = scene.promote("latest", &[]).expect(2);
    assert!(refused.err.contains("gap"), "{refused:?}");
    // Where a promotion was killed behind its point, neither a plan nor the capture is needed any more.
    let arrived = target.product() == Product::MySql;
    if arrived {
        let record = "UPDATE bkp_standby.bkp_standby SET record = JSON_SET(record, '$.is_over', TRUE)";
        target.execute(&format!("SET GLOBAL super_read_only = OFF; SET sql_log_bin = 0; {record}"));
        std::fs::rename(world.path("state"), world.path("aside")).unwrap();
    }
    scene.promote("latest", if arrived { &[] } else { &["--up-to-gap"] }).expect(0);
    assert_eq!(state(target), before);
    assert!(!scene.is_closed());
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_standby_of_mysql_takes_over() {
    a_standby_takes_over(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_standby_of_mariadb_takes_over() {
    a_standby_takes_over(Product::MariaDb);
}
