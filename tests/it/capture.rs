//! Capture: what is kept of a binlog is, byte for byte, what the server's own files hold, whatever happened meanwhile.

mod loss;
mod trouble;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::servers::{Product, Server, program};
use crate::world::Ended;

/// Where a format event's flag stands that says "in use". MariaDB leaves it set where it broke down.
const IN_USE_AT: usize = 21;

/// A server whose binlog is captured by an account that has the rights of the operator's guide, and no other.
struct Desk {
    dir: TempDir,
    server: Server,
}

impl Desk {
    fn new(product: Product) -> Self {
        Self::with(product, &[], "")
    }

    /// With further options of the server, and keys of the capture in the policy.
    fn with(product: Product, options: &[&str], keys: &str) -> Self {
        let options = [&["--server-id=77"], options].concat();
        let desk = Self { dir: tempfile::tempdir().unwrap(), server: Server::start(product, &options) };
        for (name, secret) in [("repo.key", "repo-pw"), ("db.pw", "db-pw")] {
            fs::write(desk.path(name), secret).unwrap();
            fs::set_permissions(desk.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let (dir, socket) = (desk.dir.path().display(), desk.server.socket());
        let policy = format!(
            r#"version = 1
name = "mall"
state_dir = "{dir}/state"
repository = {{ path = "{dir}/repository", password_file = "{dir}/repo.key" }}
retention = {{ last = 3 }}

[mysql.db1]
socket = "{}"
user = "capture"
password_file = "{dir}/db.pw"

[mysql.db1.binlog]
capture = true
interval = "1s"
{keys}
"#,
            socket.display()
        );
        fs::create_dir(desk.path("policies")).unwrap();
        fs::write(desk.path("policies/mall.toml"), policy).unwrap();
        desk.server.execute("CREATE USER 'capture'@'%' IDENTIFIED BY 'db-pw'");
        desk.server.execute(&format!("GRANT {} ON *.* TO 'capture'@'%'", desk.rights()));
        desk.server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY AUTO_INCREMENT, b LONGBLOB)");
        desk.bkp(&["init", "mall"]).expect(0);
        desk
    }

    fn rights(&self) -> &'static str {
        match self.server.product() {
            Product::MySql => "REPLICATION SLAVE, REPLICATION CLIENT",
            Product::MariaDb => "REPLICATION SLAVE, BINLOG MONITOR",
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bkp"));
        command.args(args).arg("--policies").arg(self.path("policies")).stdin(Stdio::null());
        command
    }

    fn bkp(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    fn capture(&self) -> Value {
        let done = self.bkp(&["binlog", "capture", "mall", "--json"]).expect(0).json();
        done["steps"][0]["result"]["sources"][0]["captured"]["here"].clone()
    }

    fn chain(&self) -> Value {
        self.bkp(&["binlog", "list", "mall", "--json"]).expect(0).json()["sources"][0].clone()
    }

    fn insert(&self, value: &str) {
        self.server.execute(&format!("INSERT INTO shop.t (b) VALUES ({value})"));
    }

    fn flush(&self) {
        self.server.execute("FLUSH BINARY LOGS");
    }

    /// Has the server delete all files before one. MariaDB keeps those that a crash would need, until InnoDB has noted a checkpoint.
    fn purge_to(&self, newest: &str) {
        let started = Instant::now();
        while self.binlogs()[0] != newest {
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", self.binlogs());
            self.server.execute(&format!("PURGE BINARY LOGS TO '{newest}'"));
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn own(&self, file: &str) -> Vec<u8> {
        fs::read(self.server.dir().join("data").join(file)).unwrap()
    }

    /// Exports what the repository has, and returns the directory.
    fn export(&self) -> PathBuf {
        let dir = self.path("export");
        if dir.exists() {
            fs::remove_dir_all(&dir).unwrap();
        }
        self.bkp(&["binlog", "export", "mall", dir.to_str().unwrap()]).expect(0);
        dir
    }

    /// Holds all exported files of the newest epoch against the server's own: those that the server has closed are the same, and
    /// the newest is what the server has of it.
    fn assert_exact(&self) {
        let epoch = self.chain()["epochs"].as_array().unwrap().last().unwrap().clone();
        let dir = self.export();
        let of_epoch = dir.join(epoch["number"].to_string());
        let dir = if of_epoch.is_dir() { of_epoch } else { dir };
        let segments = epoch["segments"].as_array().unwrap();
        for segment in segments {
            let file = segment["file"].as_str().unwrap();
            let (ours, mut theirs) = (fs::read(dir.join(file)).unwrap(), self.own(file));
            if !segment["is_closed"].as_bool().unwrap() {
                assert!(theirs.len() >= ours.len(), "{file}");
                theirs.truncate(ours.len());
            }
            // Its checksum leaves the flag out; the server sends it cleared.
            theirs[IN_USE_AT] &= !1;
            assert_eq!(ours.len(), theirs.len(), "{file}");
            let differs = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
            assert_eq!(differs, None, "{file}");
        }
        self.assert_readable(&dir);
    }

    /// The product's own program reads every file, and finds every checksum right.
    fn assert_readable(&self, dir: &Path) {
        let reader = program(if self.server.product() == Product::MySql { "MYSQLBINLOG" } else { "MARIADB_BINLOG" });
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let mut files: Vec<PathBuf> = files.collect();
        files.sort();
        let read =
            Command::new(reader).args(["--no-defaults", "--verify-binlog-checksum"]).args(files).output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }

    /// What every layer of the server may do to its files.
    fn workload(&mut self) {
        self.insert("'in the midst of a file'");
        self.capture();
        self.flush();
        // An event of three packets.
        self.insert("REPEAT('0123456789abcdef', 2500000)");
        self.insert("'behind it'");
        self.capture();
        let (compressed, off) = match self.server.product() {
            Product::MySql => ("SET binlog_transaction_compression = ON", "SELECT 1"),
            Product::MariaDb => ("SET GLOBAL log_bin_compress = ON", "SET GLOBAL log_bin_compress = OFF"),
        };
        self.server.execute(&format!("{compressed}; INSERT INTO shop.t (b) VALUES (REPEAT('x', 100000)); {off}"));
        self.server.execute("SET GLOBAL binlog_checksum = NONE");
        self.insert("'without a checksum'");
        self.capture();
        self.server.execute("SET GLOBAL binlog_checksum = CRC32");
        self.insert("'with one'");
        self.server.shut_down();
        self.server.start_again();
        self.insert("'after a restart'");
        self.capture();
        self.server.kill();
        self.server.start_again();
        self.insert("'after a crash'");
        self.flush();
        self.insert("'the newest'");
        self.capture();
    }

    /// What the server says that it has executed.
    fn executed(&self) -> String {
        let variable = if self.server.product() == Product::MySql { "gtid_executed" } else { "gtid_binlog_state" };
        self.server.value(&format!("SELECT @@GLOBAL.{variable}"))
    }

    fn binlogs(&self) -> Vec<String> {
        self.server.query("SHOW BINARY LOGS").into_iter().map(|row| row[0].clone().unwrap()).collect()
    }

    fn snapshots(&self) -> usize {
        self.bkp(&["snapshots", "mall", "--json"]).expect(0).json()["snapshots"].as_array().unwrap().len()
    }

    fn restic(&self, args: &[&str]) {
        let mut command = Command::new("restic");
        command.args(args).arg("--no-cache").arg("-r").arg(self.path("repository"));
        let ended: Ended = command.arg("--password-file").arg(self.path("repo.key")).output().unwrap().into();
        ended.expect(0);
    }
}

fn files_of(chain: &Value, epoch: usize) -> Vec<String> {
    let segments = chain["epochs"][epoch]["segments"].as_array().unwrap();
    segments.iter().map(|segment| segment["file"].as_str().unwrap().to_owned()).collect()
}

/// Captures through all that a server does to its binlogs; then through what is done to the server.
fn a_capture_is_exact_and_names_what_it_lacks(product: Product) {
    let mut desk = Desk::new(product);
    desk.workload();
    let chain = desk.chain();
    assert_eq!(chain["epochs"].as_array().unwrap().len(), 1, "{chain}");
    assert_eq!(files_of(&chain, 0), desk.binlogs());
    assert_eq!(chain["epochs"][0]["gaps"], serde_json::json!([]));
    let last = chain["epochs"][0]["segments"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["after"].as_str().unwrap(), desk.executed().replace('\n', ""));
    desk.assert_exact();
    // MariaDB notes a checkpoint in its binlog a moment after a new file began.
    desk.capture();
    assert_eq!(desk.capture()["sealed"], Value::Null, "nothing was new");
    assert!(desk.bkp(&["doctor", "mall"]).out.contains("ok      db1: its binlog can be captured"));
    let status = desk.bkp(&["status", "mall", "--json"]).json()["policies"][0]["sources"][0]["binlog"].clone();
    assert!(
        status["repository_lag_ms"].as_u64().is_some_and(|lag| lag < 60_000) && status["error"].is_null(),
        "{status}"
    );

    // The first of them is in the repository, the last in the spool.
    let found =
        desk.bkp(&["binlog", "find", "mall", "--table", "shop.t", "--type", "insert", "--json"]).expect(0).json();
    assert_eq!(found["found"].as_array().unwrap().len(), 9, "{found}");
    assert_eq!(found["found"][0]["file"], files_of(&chain, 0)[0], "{found}");
    assert_eq!(found["found"][8]["file"], last["file"], "{found}");
    assert_eq!(found["files"], files_of(&chain, 0).len(), "{found}");

    a_search_says_what_it_could_not_search(&desk);

    // Closed segments are in the repository alone; restic has them, too.
    let spool = desk.path("state/binlog/db1/1");
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 1, "only the newest is still in the spool");
    desk.restic(&["check", "--read-data"]);
    let restored = desk.path("restic");
    desk.restic(&["restore", "latest", "--path", "/binlog/db1", "--target", restored.to_str().unwrap()]);
    let first = &files_of(&chain, 0)[0];
    assert_eq!(fs::read(restored.join("binlog/db1/1").join(first)).unwrap(), desk.own(first));
    desk.bkp(&["forget", "mall"]).expect(0);
    assert_eq!(desk.snapshots(), 1, "the newest holds all that the others held");

    // The spool is lost: the server still has the newest file, and the chain goes on.
    fs::remove_dir_all(desk.path("state/binlog")).unwrap();
    desk.insert("'after the spool was lost'");
    desk.capture();
    assert_eq!(files_of(&desk.chain(), 0), desk.binlogs());
    desk.assert_exact();

    purged_and_reset(&desk);
    without_rights(&desk);
}

fn a_search_says_what_it_could_not_search(desk: &Desk) {
    let find = || desk.bkp(&["binlog", "find", "mall"]);
    assert!(find().expect(0).out.contains("captured up to 2"));
    // The repository has less of a segment than the chain says.
    let path = desk.path("state/binlog/db1/chain.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut chain: Value = serde_json::from_str(&text).unwrap();
    let first = &mut chain["epochs"][0]["segments"][0];
    first["bytes"] = (first["bytes"].as_u64().unwrap() + 1).into();
    fs::write(&path, chain.to_string()).unwrap();
    let found = find().expect(13);
    assert!(found.err.contains("no store has all of it"), "{}", found.err);
    fs::write(&path, text).unwrap();
    // The repository is away, the spool is here.
    fs::rename(desk.path("repository"), desk.path("away")).unwrap();
    let found = find().expect(3);
    assert!(found.out.contains("not searched: ") && found.out.contains("in 1 file\n"), "{}", found.out);
    fs::rename(desk.path("away"), desk.path("repository")).unwrap();
}

fn purged_and_reset(desk: &Desk) {
    desk.insert("'captured by nobody'");
    desk.flush();
    desk.insert("'nor this'");
    desk.flush();
    let newest = desk.binlogs().last().unwrap().clone();
    desk.purge_to(&newest);
    let captured = desk.capture();
    let gap = &captured["followed"]["gaps"][0];
    assert_eq!(gap["before"], newest.as_str(), "{captured}");
    assert!(gap["missing"].as_str().is_some_and(|missing| !missing.is_empty()), "{captured}");
    assert!(desk.bkp(&["binlog", "list", "mall"]).expect(0).out.contains("GAP between"));
    let found = desk.bkp(&["binlog", "find", "mall", "--table", "shop.t"]).expect(3);
    assert!(found.out.contains("NOT COMPLETE: nothing was captured between"), "{}", found.out);
    let found = desk.bkp(&["binlog", "find", "mall", "--until", "2001-01-01", "--json"]);
    // No transaction behind the gap says when it ended, and MariaDB's times bound nothing.
    let found = found.expect(3).json();
    assert_eq!(found["not_complete"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(desk.chain()["epochs"].as_array().unwrap().len(), 1, "it is the same server");

    let reset = match desk.server.product() {
        Product::MySql => "RESET BINARY LOGS AND GTIDS",
        Product::MariaDb => "RESET MASTER",
    };
    desk.server.execute(reset);
    desk.insert("'after a reset'");
    let captured = desk.capture();
    assert_eq!(captured["followed"]["began"], serde_json::json!([2, "went-back"]), "{captured}");
    assert_eq!(files_of(&desk.chain(), 1), desk.binlogs());
    desk.assert_exact();
    assert!(desk.path("export/1").is_dir() && desk.path("export/2").is_dir());
}

fn without_rights(desk: &Desk) {
    desk.server.execute("REVOKE REPLICATION SLAVE ON *.* FROM 'capture'@'%'");
    let refused = desk.bkp(&["binlog", "capture", "mall"]).expect(1);
    assert!(refused.err.contains("Rights to capture"), "{}", refused.err);
    assert!(desk.bkp(&["doctor", "mall"]).out.contains("BAD     db1: its binlog can be captured"));
    assert!(desk.bkp(&["status", "mall"]).out.contains("the capture of `db1`'s binlog stands still"));
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_is_captured_is_byte_for_byte_the_servers_own_on_mariadb() {
    a_capture_is_exact_and_names_what_it_lacks(Product::MariaDb);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_is_captured_is_byte_for_byte_the_servers_own_on_mysql() {
    a_capture_is_exact_and_names_what_it_lacks(Product::MySql);
}

/// Starts the daemon, and kills it after a while that nobody foresees.
fn kill_in_midst(desk: &Desk, random: &mut impl rand::Rng) {
    let mut daemon = desk.command(&["daemon", "mall"]).stderr(Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_millis(random.random_range(200..1_200)));
    assert!(daemon.try_wait().unwrap().is_none(), "it ended by itself");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// Waits until the daemon has all that the server has written, and returns how long that took.
fn caught_up(desk: &Desk) -> Duration {
    let started = Instant::now();
    let executed = desk.executed().replace('\n', "");
    while started.elapsed() < Duration::from_secs(20) {
        let chain = desk.chain();
        let last = chain["epochs"][0]["segments"].as_array().and_then(|segments| segments.last().cloned());
        if last.is_some_and(|last| last["after"].as_str() == Some(&executed)) {
            return started.elapsed();
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("the daemon does not catch up: {}", desk.chain());
}

/// Waits for what comes within seconds.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(30), "not after 30 s: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// A daemon that ends with its test at the latest.
struct Daemon(Child);

impl Daemon {
    fn end(mut self) -> Option<i32> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM)
            .unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_daemon_that_is_killed_again_and_again_loses_no_byte() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
    println!("seed {seed}");
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
    for product in [Product::MariaDb, Product::MySql] {
        let mut desk = Desk::new(product);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 0..300 {
                    desk.insert(&format!("REPEAT('{n}', {})", if n % 40 == 7 { 400_000 } else { 200 }));
                    if n % 50 == 49 {
                        desk.flush();
                    }
                    thread::sleep(Duration::from_millis(8));
                }
            });
            while !writer.is_finished() {
                kill_in_midst(&desk, &mut random);
            }
        });
        // A server that restarts is followed again.
        let daemon = Daemon(desk.command(&["daemon", "mall"]).stderr(Stdio::null()).spawn().unwrap());
        caught_up(&desk);
        desk.server.shut_down();
        desk.server.start_again();
        desk.insert("'after a restart'");
        caught_up(&desk);
        let mut beside = desk.bkp(&["binlog", "capture", "mall"]);
        while beside.err.contains("take the lock of the policy's runs") {
            // The daemon is at a seal.
            thread::sleep(Duration::from_millis(100));
            beside = desk.bkp(&["binlog", "capture", "mall"]);
        }
        assert_eq!(beside.expect(0).out.matches("another capture").count(), 1);
        assert_eq!(daemon.end(), Some(0));
        desk.capture();
        let chain = desk.chain();
        assert_eq!(
            (chain["epochs"].as_array().unwrap().len(), &chain["epochs"][0]["gaps"]),
            (1, &serde_json::json!([]))
        );
        assert_eq!(files_of(&chain, 0), desk.binlogs());
        desk.assert_exact();
    }
}
