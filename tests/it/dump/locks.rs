//! Live: a dump gives way to whoever is in the way of its locks, and what it locks is of one moment, whatever the engine.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bkp::mysql::manifest::{Consistency, Manifest};
use bkp::mysql::server::Server as Address;
use bkp::mysql::wire::Wire;
use bkp::policy::{MysqlSource, NonTransactional};
use bkp::run::Run;
use bkp::source::mysql::{Snapshot, Unheld};
use bkp::source::{FileSink, Sink, SinkError};
use bkp::target::mysql::compare;
use tokio_util::sync::CancellationToken;

use super::world::{DirSink, by_socket, dump_by, noted, source};
use super::{BOTH, CHUNK_BYTES, StopOnDrop};
use crate::servers::{Product, Server};

fn open(address: &Address) -> Wire {
    address.open_wire(&CancellationToken::new()).unwrap()
}

/// Starts a server whose dumps need a lock: MariaDB without a binlog cannot prove read views equal.
fn locking(product: Product) -> Server {
    let server = match product {
        Product::MariaDb => Server::start(product, &["--skip-log-bin"]),
        Product::MySql => Server::start(product, &[]),
    };
    server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    server
}

/// Dumps by one connection that waits for locks no longer than a second.
fn hasty() -> MysqlSource {
    MysqlSource { lock_wait: Duration::from_secs(1), ..source(1) }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_long_statement_in_the_way_is_named_and_given_way_to() {
    for product in BOTH {
        let server = locking(product);
        let (run, notes) = noted();
        let address = by_socket(&server);
        let mut slow = open(&address);
        let manifest = std::thread::scope(|scope| {
            slow.send("UPDATE shop.t SET a = a WHERE SLEEP(3) = 7").unwrap();
            scope.spawn(move || slow.finish().unwrap());
            dump_by(&address, &hasty(), &DirSink::new(), CHUNK_BYTES, None, &run).unwrap()
        });
        let said = notes.text();
        assert!(said.contains("the global read lock was not free within 1 s; held up by session"), "{said}");
        assert!(said.contains("UPDATE shop.t SET a = a WHERE SLEEP(?) = ?"), "{said}");
        assert_eq!(manifest.consistency, Consistency::GlobalLock, "{product:?}");
        assert!(manifest.write_stall_ms >= 1000.0, "the failed try held writers up, too: {}", manifest.write_stall_ms);
    }
}

/// A migration waits for a transaction that somebody has left open, and we for the migration: the transaction is to blame.
#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn an_open_transaction_in_the_way_is_named_and_given_way_to() {
    for product in BOTH {
        let server = locking(product);
        server.execute("CREATE TABLE shop.busy (a INT PRIMARY KEY)");
        let (run, notes) = noted();
        let address = by_socket(&server);
        let (mut idle, mut migration) = (open(&address), open(&address));
        idle.run("BEGIN").unwrap();
        idle.run("UPDATE shop.t SET a = a").unwrap();
        idle.query("SELECT * FROM shop.t").unwrap();
        let id = idle.id();
        std::thread::scope(|scope| {
            migration.send("ALTER TABLE shop.t ADD COLUMN b INT DEFAULT 5").unwrap();
            wait_until_waiting(&server);
            let dumping = scope.spawn(|| dump_by(&address, &hasty(), &DirSink::new(), CHUNK_BYTES, None, &run));
            while !notes.text().contains("trying again") {
                assert!(!dumping.is_finished(), "nothing was in its way: {:?}", dumping.join());
                std::thread::sleep(Duration::from_millis(20));
            }
            // Between the tries others go on.
            server.execute("INSERT INTO shop.busy VALUES (1)");
            idle.run("COMMIT").unwrap();
            let migrated = migration.finish();
            // MariaDB aborts a migration that has waited for the transaction and meets the global read lock.
            let is_aborted = migrated.is_err_and(|error| error.code() == Some(1213));
            assert_eq!(is_aborted, product == Product::MariaDb);
            assert_eq!(dumping.join().unwrap().unwrap().rows(), 2, "{product:?}");
        });
        let said = notes.text();
        let blamed = format!("was not free within 1 s; held up by the open transaction of session {id} for ");
        assert!(said.contains(&blamed), "{product:?}: {said}");
    }
}

/// On MySQL it waits for the lock that holds definitions still, and holds up the one that stops writers: without a way out the shop
/// would stand still for as long as the dump tries.
#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_migration_that_comes_between_the_locks_is_let_go_first() {
    let server = locking(Product::MySql);
    let address = by_socket(&server);
    let (run, notes) = noted();
    let (mut slow, mut migration) = (open(&address), open(&address));
    let manifest = std::thread::scope(|scope| {
        slow.send("UPDATE shop.t SET a = a WHERE SLEEP(1.5) = 7").unwrap();
        scope.spawn(move || slow.finish().unwrap());
        let dumping = scope.spawn(|| dump_by(&address, &hasty(), &DirSink::new(), CHUNK_BYTES, None, &run));
        while !notes.text().contains("trying again") {
            assert!(!dumping.is_finished(), "nothing was in its way: {:?}", dumping.join());
            std::thread::sleep(Duration::from_millis(20));
        }
        migration.run("CREATE TABLE shop.new (a INT PRIMARY KEY)").unwrap();
        dumping.join().unwrap().unwrap()
    });
    let said = notes.text();
    assert!(said.contains("a migration waits for the dump's lock on definitions: letting it go first"), "{said}");
    assert!(manifest.tables.iter().any(|table| table.name == "new"), "the dump is of after the migration");
    assert!(manifest.write_stall_ms >= 2000.0, "both tries in vain are told: {}", manifest.write_stall_ms);
}

fn wait_until_waiting(server: &Server) {
    let waiting =
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for table metadata lock'";
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.value(waiting) == "0" {
        assert!(Instant::now() < deadline, "the migration does not wait");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Notes each step in a table with transactions, and then in one without.
fn note_twice(address: &Address, writer: u32, stop: &AtomicBool, busy: &SyncSender<()>) {
    let mut wire = open(address);
    for step in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        for table in ["first", "second"] {
            wire.run(&format!("INSERT INTO notes.{table} (writer, step) VALUES ({writer}, {step})")).unwrap();
        }
        if step == 20 {
            busy.send(()).unwrap();
        }
    }
}

/// Returns how many rows of a table each of four writers has in a dump.
fn rows_by_writer(dir: &DirSink, manifest: &Manifest, table: &str) -> [usize; 4] {
    let table = manifest.tables.iter().find(|found| found.name == table).unwrap();
    let files = table.chunks.iter().map(|chunk| std::fs::read_to_string(dir.path().join(&chunk.path)).unwrap());
    let text: String = files.collect();
    [0, 1, 2, 3].map(|writer| {
        let column = writer.to_string();
        text.lines().filter(|line| line.split('\t').nth(1) == Some(column.as_str())).count()
    })
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn tables_of_several_engines_are_dumped_of_one_moment() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        let plain = if product == Product::MariaDb { "Aria" } else { "MyISAM" };
        server.execute("CREATE DATABASE notes");
        for (table, engine) in [("first", "InnoDB"), ("second", plain)] {
            server.execute(&format!(
                "CREATE TABLE notes.{table} (id INT AUTO_INCREMENT PRIMARY KEY, writer INT NOT NULL, step INT NOT NULL) ENGINE = {engine}"
            ));
        }
        let policy = MysqlSource { non_transactional: NonTransactional::Lock, ..source(3) };
        let address = by_socket(&server);
        let stop = AtomicBool::new(false);
        let (busy, is_busy) = sync_channel(4);
        std::thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            for writer in 0..4 {
                let (address, stop, busy) = (&address, &stop, busy.clone());
                scope.spawn(move || note_twice(address, writer, stop, &busy));
            }
            (0..4).for_each(|_| is_busy.recv().unwrap());
            for trial in 0..10 {
                let dir = DirSink::new();
                let manifest = dump_by(&address, &policy, &dir, CHUNK_BYTES, None, &Run::silent()).unwrap();
                assert_eq!(manifest.consistency, Consistency::GlobalLock);
                assert!(manifest.write_stall_ms > 0.0);
                let [first, second] = ["first", "second"].map(|table| rows_by_writer(&dir, &manifest, table));
                // Of each writer's last step, the second note may not have been made yet.
                let is_of_one_moment = first.iter().zip(second).all(|(first, second)| first - second <= 1);
                assert!(is_of_one_moment && first[0] > 20, "{product:?}, dump {trial}: {first:?} and {second:?}");
            }
        });
    }
}

/// So many tables that a reader lets go of the first of them before it has read the last.
const MANY: usize = 300;

/// A sink that changes every table while the reader is at the first of them, and near the last looks at what it holds.
struct Meddling<'a> {
    dir: DirSink,
    server: &'a Server,
    product: Product,
    files: AtomicUsize,
    held: Mutex<Option<usize>>,
}

impl Sink for Meddling<'_> {
    fn file(&self, path: &str) -> Result<Box<dyn FileSink + '_>, SinkError> {
        let files = if path.contains(".tsv") { self.files.fetch_add(1, Ordering::Relaxed) } else { 0 };
        // Before any is let go: a view that went with the tables, and was opened anew, would show the changes.
        if files == 100 {
            self.server.execute(&change_all(2));
        }
        if files == MANY - 20 {
            let held = match self.product {
                Product::MariaDb => {
                    "SELECT COUNT(*) FROM information_schema.METADATA_LOCK_INFO WHERE TABLE_SCHEMA = 'shop'"
                }
                Product::MySql => {
                    "SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE OBJECT_SCHEMA = 'shop' AND OBJECT_TYPE = 'TABLE'"
                }
            };
            *self.held.lock().unwrap() = Some(self.server.value(held).parse().unwrap());
        }
        self.dir.file(path)
    }
}

fn change_all(to: u8) -> String {
    (0..MANY).map(|n| format!("UPDATE shop.t{n:03} SET a = {to};")).collect::<Vec<_>>().concat()
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn of_many_tables_few_are_held_at_once_and_all_are_of_one_moment() {
    for product in BOTH {
        let server = match product {
            Product::MariaDb => Server::start(product, &["--plugin-load-add=metadata_lock_info"]),
            Product::MySql => Server::start(product, &["--performance-schema=ON"]),
        };
        let table =
            |n: usize| format!("CREATE TABLE shop.t{n:03} (a INT PRIMARY KEY); INSERT INTO shop.t{n:03} VALUES (1);");
        server.execute(&format!("CREATE DATABASE shop; {}", (0..MANY).map(table).collect::<Vec<_>>().concat()));
        let (files, held) = (AtomicUsize::new(0), Mutex::new(None));
        let sink = Meddling { dir: DirSink::new(), server: &server, product, files, held };
        let snapshot = Snapshot::open(&by_socket(&server), &source(1), Unheld::Refuse, &Run::silent()).unwrap();
        let manifest = snapshot.dump(&sink, None, &Run::silent()).unwrap();

        let held = sink.held.lock().unwrap().unwrap();
        assert!((1..=MANY - 256).contains(&held), "{product:?}: {held} of {MANY} tables are held");
        assert_eq!((manifest.tables.len(), manifest.rows()), (MANY, MANY as u64));
        for chunk in manifest.tables.iter().flat_map(|table| &table.chunks) {
            let rows = std::fs::read_to_string(sink.dir.path().join(&chunk.path)).unwrap();
            assert_eq!(rows, "1\n", "{product:?}: {} is of another moment", chunk.path);
        }

        // Who compares them lets go of them in the same way, and sees what was there when the views were opened.
        let address = by_socket(&server);
        let now = dump_by(&address, &source(1), &DirSink::new(), CHUNK_BYTES, None, &Run::silent()).unwrap();
        let snapshot = Snapshot::open(&address, &source(1), Unheld::Refuse, &Run::silent()).unwrap();
        server.execute(&change_all(3));
        let standing = snapshot.hash(&now, &Run::silent()).unwrap();
        assert_eq!(standing.hashes.len(), MANY);
        assert_eq!(compare(&now, None, &standing.hashes), [], "{product:?}");
    }
}
