//! Live: what a server holds comes back, is true of one moment, and a dump that breaks is no dump.

mod chunks;
pub(crate) mod cut;
mod faults;
mod fidelity;
mod locks;
mod moment;
mod rights;
mod throttle;
pub(crate) mod world;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bkp::mysql::manifest::{Chunk, Consistency, Manifest};
use bkp::mysql::server::Server as Address;
use bkp::policy::{MysqlAddress, MysqlSource, NonTransactional, Tls, TlsMode};
use bkp::run::Run;
use bkp::source::mysql::{MysqlSourceError, Snapshot, Unheld, hash_chunks};
use tokio_util::sync::CancellationToken;

use crate::servers::{Product, Server, block_on, program};
use crate::world::World;
use world::{DirSink, as_user, by_socket, dump, dump_by, restore, rows_of, source};

const BOTH: [Product; 2] = [Product::MariaDb, Product::MySql];

/// Small row files, so that a small table has many.
pub(crate) const CHUNK_BYTES: u64 = 20_000;

pub(crate) fn fixture(product: Product) -> Server {
    let server = match product {
        Product::MariaDb => Server::mariadb(),
        Product::MySql => Server::mysql(),
    };
    fill(&server);
    server
}

/// Makes all that the fixture holds.
fn fill(server: &Server) {
    world::run_file(server, "tests/fixtures/dump/common.sql");
    let own = if server.product() == Product::MariaDb { "mariadb" } else { "mysql" };
    world::run_file(server, &format!("tests/fixtures/dump/{own}.sql"));
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn all_that_a_server_holds_comes_back_with_the_plain_client_alone() {
    for product in BOTH {
        let original = fixture(product);
        let dir = DirSink::new();
        let manifest = dump(&original, &dir, CHUNK_BYTES, None).unwrap();
        let restored = Server::start(product, &[]);
        restore(&restored, dir.path());

        let tables = world::tables(&original);
        assert_eq!(tables, world::tables(&restored), "{product:?}");
        assert!(tables.len() >= 30, "the fixture has lost tables: {tables:?}");
        for (schema, table) in &tables {
            assert_eq!(
                rows_of(&original, schema, table),
                rows_of(&restored, schema, table),
                "{product:?} {schema}.{table}"
            );
        }
        let differing: Vec<String> =
            world::objects(&original).symmetric_difference(&world::objects(&restored)).cloned().collect();
        assert_eq!(differing, [""; 0], "{product:?}");
        let counts: u64 = tables.iter().map(|(schema, table)| rows_of(&original, schema, table).len() as u64).sum();
        assert_eq!(manifest.rows(), counts);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_restored_server_hashes_as_its_dump_and_a_changed_row_names_its_chunk() {
    for product in BOTH {
        let original = fixture(product);
        let dir = DirSink::new();
        let manifest = dump(&original, &dir, CHUNK_BYTES, None).unwrap();
        let restored = Server::start(product, &[]);
        restore(&restored, dir.path());
        assert_eq!(differing(&restored, &manifest, None), BTreeSet::new(), "{product:?}");

        restored.execute("UPDATE torture.numbers SET f = 0.10000001 WHERE id = 2; DELETE FROM torture.no_key LIMIT 1");
        restored.execute("INSERT INTO torture.empty_table VALUES (1)");
        let expected = ["empty_table", "no_key", "numbers"].map(|table| format!("torture/{table}/00000.tsv"));
        assert_eq!(differing(&restored, &manifest, None), BTreeSet::from(expected), "{product:?}");
        let only = BTreeSet::from([("torture".to_owned(), "times".to_owned())]);
        assert_eq!(differing(&restored, &manifest, Some(&only)), BTreeSet::new(), "{product:?}");

        restored.execute("ALTER TABLE torture.zero_auto ADD COLUMN w INT; DROP TABLE torture.texts; CREATE TABLE torture.fresh (a INT)");
        let window = Snapshot::open(&by_socket(&restored), &source(3), Unheld::Refuse, &Run::silent()).unwrap();
        let standing = window.hash(&manifest, &Run::silent()).unwrap();
        let of_torture = |table: &str| vec![("torture".to_owned(), table.to_owned())];
        assert_eq!(standing.altered, of_torture("zero_auto"), "{product:?}");
        assert_eq!((standing.gone, standing.new), (of_torture("texts"), of_torture("fresh")), "{product:?}");
        let chunks = |table: &str| {
            let entry = manifest.tables.iter().find(|entry| entry.name == table).unwrap();
            let found = standing.hashes.iter().filter(|hash| hash.table == table);
            found.zip(&entry.chunks).map(|(hash, chunk)| hash.sha256 == chunk.sha256).collect::<Vec<_>>()
        };
        assert_eq!((chunks("times"), chunks("numbers")), (vec![true], vec![false]), "{product:?}");
    }
}

/// Returns the paths of chunks that are not on the server as the manifest says, or are there and not in the manifest.
fn differing(server: &Server, manifest: &Manifest, tables: Option<&BTreeSet<(String, String)>>) -> BTreeSet<String> {
    let found = hash_chunks(&by_socket(server), manifest, tables, 3, &Run::silent()).unwrap();
    let found: BTreeSet<_> = found.into_iter().map(|hash| (hash.path, hash.rows, hash.sha256)).collect();
    let is_wanted =
        |schema: &String, name: &String| tables.is_none_or(|tables| tables.contains(&(schema.clone(), name.clone())));
    let wanted = manifest.tables.iter().filter(|table| is_wanted(&table.schema, &table.name));
    let wanted: BTreeSet<_> = wanted
        .flat_map(|table| &table.chunks)
        .map(|chunk| (chunk.path.clone(), chunk.rows, chunk.sha256.clone()))
        .collect();
    found.symmetric_difference(&wanted).map(|(path, ..)| path.clone()).collect()
}

/// Moves money between two tables, and notes each transfer in a third, until told to stop.
fn transfer(address: &Address, writer: u32, stop: &AtomicBool, busy: &SyncSender<()>) -> u32 {
    let mut wire = address.open_wire(&CancellationToken::new()).unwrap();
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        // Each writer has accounts of its own, so that none waits for another.
        let account = writer * 1000 + done * 7 % 1000;
        let amount = done % 13 + 1;
        wire.run("BEGIN").unwrap();
        wire.run(&format!("UPDATE bank.left_side SET money = money - {amount} WHERE id = {account}")).unwrap();
        wire.run(&format!("UPDATE bank.right_side SET money = money + {amount} WHERE id = {account}")).unwrap();
        wire.run(&format!("INSERT INTO bank.ledger (account, amount) VALUES ({account}, {amount})")).unwrap();
        wire.run("COMMIT").unwrap();
        done += 1;
        if done == 20 {
            busy.send(()).unwrap();
        }
    }
    done
}

fn make_bank(server: &Server) {
    server.execute(
        "CREATE DATABASE bank; USE bank;
         CREATE TABLE left_side (id INT PRIMARY KEY, money INT NOT NULL, pad CHAR(200) NOT NULL DEFAULT 'x');
         CREATE TABLE right_side LIKE left_side;
         CREATE TABLE ledger (id BIGINT AUTO_INCREMENT PRIMARY KEY, account INT NOT NULL, amount INT NOT NULL)",
    );
    let accounts: Vec<String> = (0..4000).map(|id| format!("({id}, 1000)")).collect();
    for table in ["left_side", "right_side"] {
        server.execute(&format!("INSERT INTO bank.{table} (id, money) VALUES {}", accounts.join(", ")));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_dump_under_full_load_equals_the_source_replayed_to_its_position() {
    for product in BOTH {
        let original = Server::start(product, &[]);
        make_bank(&original);
        let address = as_user(&original, "bkp", "bkp");
        let dir = DirSink::new();
        let stop = AtomicBool::new(false);
        let (busy, is_busy) = sync_channel(4);
        let (manifest, transfers) = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let (address, stop, busy) = (&address, &stop, busy.clone());
                    scope.spawn(move || transfer(address, writer, stop, &busy))
                })
                .collect();
            (0..4).for_each(|_| is_busy.recv().unwrap());
            let manifest = dump_by(&address, &source(4), &dir, CHUNK_BYTES, None, &Run::silent());
            stop.store(true, Ordering::Relaxed);
            let transfers: u32 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
            (manifest.unwrap(), transfers)
        });
        let ledger = manifest.tables.iter().find(|table| table.name == "ledger").unwrap();
        assert!(ledger.rows > 0 && ledger.rows < u64::from(transfers), "the writers wrote before and after");

        let restored = Server::start(product, &[]);
        restore(&restored, dir.path());
        let replayed = Server::start(product, &[]);
        world::replay(&original, &manifest, &replayed);
        for table in ["ledger", "left_side", "right_side"] {
            let (restored, replayed) = (rows_of(&restored, "bank", table), rows_of(&replayed, "bank", table));
            let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) = (restored.iter().collect(), replayed.iter().collect());
            let differing: Vec<_> = ours.symmetric_difference(&theirs).take(10).collect();
            assert!(
                restored == replayed,
                "{product:?}: `{table}` is not as it was at {:?}: {} rows and {}: {differing:?}",
                manifest.position,
                restored.len(),
                replayed.len()
            );
        }
        let total =
            restored.value("SELECT (SELECT SUM(money) FROM bank.left_side) + (SELECT SUM(money) FROM bank.right_side)");
        assert_eq!(total, "8000000");
        let expected = if product == Product::MariaDb { Consistency::LockFree } else { Consistency::GlobalLock };
        assert_eq!(manifest.consistency, expected);
        assert!(manifest.gtid.is_some_and(|gtid| !gtid.is_empty()));
    }
}

/// Asks for the server's status again and again, as monitoring does.
fn monitor(address: &Address, stop: &AtomicBool) {
    let mut wire = address.open_wire(&CancellationToken::new()).unwrap();
    while !stop.load(Ordering::Relaxed) {
        wire.query("SHOW STATUS LIKE 'binlog_%'").unwrap();
    }
}

/// Returns a column of a dumped table, summed.
fn sum(dir: &DirSink, manifest: &Manifest, table: &str, column: usize) -> i64 {
    let table = manifest.tables.iter().find(|found| found.name == table).unwrap();
    let files = table.chunks.iter().map(|chunk| std::fs::read_to_string(dir.path().join(&chunk.path)).unwrap());
    let sum_of = |file: String| -> i64 {
        file.lines().map(|line| line.split('\t').nth(column).unwrap().parse::<i64>().unwrap()).sum()
    };
    files.map(sum_of).sum()
}

/// Returns the number of the last transaction of a set that has one origin.
fn last_of(gtid: &str) -> u64 {
    gtid.rsplit([':', '-']).next().unwrap().parse().unwrap()
}

/// How often definitions could be changed, and how often they were held still.
#[derive(Debug, Default)]
struct Migrations {
    done: AtomicU32,
    refused: AtomicU32,
}

/// Adds and drops columns and tables until told to stop, as a shop's migrations do that will not wait. They are kept out of the
/// binlog, whose transactions are counted.
fn migrate(address: &Address, stop: &AtomicBool, migrations: &Migrations) {
    let mut wire = address.open_wire(&CancellationToken::new()).unwrap();
    wire.run("SET sql_log_bin = 0, lock_wait_timeout = 1").unwrap();
    let statements = [
        "ALTER TABLE bank.right_side ADD COLUMN extra INT DEFAULT 7",
        "ALTER TABLE bank.right_side DROP COLUMN extra",
        "CREATE TABLE bank.beside (id INT PRIMARY KEY)",
        "DROP TABLE bank.beside",
    ];
    let mut turn = statements.iter().cycle().peekable();
    while !stop.load(Ordering::Relaxed) {
        let count = match wire.run(turn.peek().unwrap()) {
            Ok(()) => {
                turn.next();
                &migrations.done
            }
            Err(error) => {
                assert_eq!(error.code(), Some(1205), "{error:?}");
                // On MySQL the dump has waited as long as the migration did.
                std::thread::sleep(Duration::from_secs(1));
                &migrations.refused
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn fifty_dumps_under_full_load_are_each_of_one_moment() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_bank(&server);
        let executed = if product == Product::MariaDb { "@@gtid_binlog_pos" } else { "@@gtid_executed" };
        let before = last_of(&server.value(&format!("SELECT {executed}")));
        let address = as_user(&server, "bkp", "bkp");
        let stop = AtomicBool::new(false);
        let (busy, is_busy) = sync_channel(4);
        let (mut lock_free, mut stall_ms_max, migrations) = (0, 0_f64, Migrations::default());
        std::thread::scope(|scope| {
            // Dropped with this frame: a failed dump does not leave the writers writing.
            let _stop = StopOnDrop(&stop);
            for writer in 0..4 {
                let (address, stop, busy) = (&address, &stop, busy.clone());
                scope.spawn(move || transfer(address, writer, stop, &busy));
            }
            for _ in 0..4 {
                scope.spawn(|| monitor(&address, &stop));
            }
            scope.spawn(|| migrate(&address, &stop, &migrations));
            (0..4).for_each(|_| is_busy.recv().unwrap());
            for trial in 0..50 {
                let dir = DirSink::new();
                let manifest = dump_by(&address, &source(4), &dir, CHUNK_BYTES, None, &Run::silent()).unwrap();
                let (left, right) = (sum(&dir, &manifest, "left_side", 1), sum(&dir, &manifest, "right_side", 1));
                assert_eq!(left + right, 8_000_000, "{product:?}, dump {trial}: money was made or lost");
                assert_eq!(sum(&dir, &manifest, "ledger", 2), right - 4_000_000, "{product:?}, dump {trial}");
                let ledger = manifest.tables.iter().find(|table| table.name == "ledger").unwrap();
                let transactions = last_of(manifest.gtid.as_deref().unwrap()) - before;
                assert_eq!(ledger.rows, transactions, "{product:?}, dump {trial}: the rows are of another position");
                let took_no_lock = manifest.consistency == Consistency::LockFree;
                assert_eq!(manifest.write_stall_ms > 0.0, !took_no_lock, "{product:?}, dump {trial}");
                lock_free += u32::from(took_no_lock);
                stall_ms_max = stall_ms_max.max(manifest.write_stall_ms);
            }
        });
        println!(
            "{product:?}: {lock_free} dumps took no lock, the others at most {stall_ms_max:.1} ms; {migrations:?}"
        );
        assert!(migrations.done.into_inner() > 10 && migrations.refused.into_inner() > 0, "{product:?}");
        assert_eq!(lock_free > 0, product == Product::MariaDb);
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Fills a table with more rows than all buffers between the server and us hold.
fn make_large(server: &Server) {
    server.execute(
        "CREATE DATABASE large; CREATE TABLE large.t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(1000) NOT NULL)",
    );
    server.execute("INSERT INTO large.t (v) VALUES (REPEAT('v', 1000))");
    for _ in 0..15 {
        server.execute("INSERT INTO large.t (v) SELECT v FROM large.t");
    }
}

/// Runs a dump that stops at its first row file until `act` has been done to the server.
fn dump_while(server: &Server, run: &Run, act: impl FnOnce()) -> (Result<Manifest, MysqlSourceError>, DirSink) {
    dump_by_while(&as_user(server, "bkp", "bkp"), &source(2), run, act)
}

fn dump_by_while(
    address: &Address,
    policy: &MysqlSource,
    run: &Run,
    act: impl FnOnce(),
) -> (Result<Manifest, MysqlSourceError>, DirSink) {
    let (dir, reached, go) = DirSink::with_gate();
    let dumped = std::thread::scope(|scope| {
        // Dropped with this frame: a failed `act` does not leave the dump waiting.
        let go = go;
        let dump = scope.spawn(|| dump_by(address, policy, &dir, u64::MAX, None, run));
        while reached.recv_timeout(Duration::from_millis(100)).is_err() {
            assert!(!dump.is_finished(), "the dump never wrote: {:?}", dump.join());
        }
        act();
        go.send(()).unwrap();
        dump.join().unwrap()
    });
    (dumped, dir)
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_connection_killed_in_mid_dump_leaves_no_dump() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_large(&server);
        let (dumped, dir) = dump_while(&server, &Run::silent(), || {
            let readers = world::readers(&server);
            assert!(!readers.is_empty(), "the dump is not reading");
            for id in &readers {
                server.execute(&format!("KILL {id}"));
            }
        });
        let error = dumped.unwrap_err();
        assert!(error.to_string().ends_with(": the connection that held the read view is gone"), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("run the backup again")));
        assert!(!dir.path().join("manifest.json").exists(), "a broken dump has no manifest");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_signal_stops_the_dump_and_nothing_of_it_runs_on() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_large(&server);
        let run = Run::silent();
        let (dumped, dir) = dump_while(&server, &run, || run.cancel.cancel());
        assert!(dumped.unwrap_err().is_stopped());
        assert!(!dir.path().join("manifest.json").exists());
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !world::readers(&server).is_empty() {
            assert!(std::time::Instant::now() < deadline, "a statement of the dump still runs");
        }
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn unchanged_ranges_of_a_second_dump_are_identical_files() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.orders (shop INT NOT NULL, id INT NOT NULL, v CHAR(80) NOT NULL, PRIMARY KEY (shop, id))");
        for shop in 0..20 {
            let rows: Vec<String> =
                (0..500).map(|id| format!("({shop}, {id}, REPEAT('v', {}))", 1 + id % 80)).collect();
            server.execute(&format!("INSERT INTO shop.orders VALUES {}", rows.join(", ")));
        }
        server.execute("ANALYZE TABLE shop.orders");
        let first = dump(&server, &DirSink::new(), CHUNK_BYTES, None).unwrap();
        server.execute("UPDATE shop.orders SET v = 'changed' WHERE shop = 7 AND id < 50; DELETE FROM shop.orders WHERE shop = 12 AND id < 50");
        server.execute("INSERT INTO shop.orders SELECT 20, id, v FROM shop.orders WHERE shop = 3 AND id < 60");
        let second = dump(&server, &DirSink::new(), CHUNK_BYTES, Some(&first)).unwrap();
        let unchanged = dump(&server, &DirSink::new(), CHUNK_BYTES, Some(&second)).unwrap();

        let hashes = |manifest: &Manifest| -> Vec<String> {
            manifest.tables[0].chunks.iter().map(|chunk| chunk.sha256.clone()).collect()
        };
        let before: BTreeSet<String> = hashes(&first).into_iter().collect();
        let new = hashes(&second).iter().filter(|hash| !before.contains(*hash)).count();
        assert!(before.len() >= 20, "{product:?}: {} chunks are too few to tell", before.len());
        // Each place lies in one file or two, and a file that became small joins its neighbour.
        assert!((3..=8).contains(&new), "{product:?}: three places changed, and {new} files");
        assert_eq!(hashes(&second), hashes(&unchanged), "{product:?}");
        assert_eq!(second.rows(), 10_000 - 50 + 60);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_a_table_has_grown_by_is_shared_out_among_the_readers() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, v CHAR(80) NOT NULL)");
        let insert = |ids: std::ops::Range<u32>| {
            let rows: Vec<String> = ids.map(|id| format!("({id}, REPEAT('v', 70))")).collect();
            server.execute(&format!("INSERT INTO shop.orders VALUES {}", rows.join(", ")));
            server.execute("ANALYZE TABLE shop.orders");
        };
        insert(0..1000);
        let first = dump(&server, &DirSink::new(), CHUNK_BYTES, None).unwrap();
        insert(1000..10_000);
        let second = dump(&server, &DirSink::new(), CHUNK_BYTES, Some(&first)).unwrap();
        assert_eq!(second.rows(), 10_000, "{product:?}");
        let chunks = &second.tables[0].chunks;
        // A range that one reader has cut into several files has files with a second number.
        let ranges = chunks.iter().filter(|chunk| !chunk.path.contains("_0")).count();
        assert!(ranges > 20, "{product:?}: {ranges} ranges of {} files", chunks.len());
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn keys_that_differ_in_case_alone_are_dumped_once() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        server.execute(
            "CREATE DATABASE shop; CREATE TABLE shop.codes (code VARCHAR(20) COLLATE utf8mb4_general_ci NOT NULL, \
             id INT NOT NULL, v CHAR(80) NOT NULL, PRIMARY KEY (code, id))",
        );
        for code in ["caf", "cafe", "sku"] {
            let spell = |id: u32| if id.is_multiple_of(3) { code.to_uppercase() } else { code.to_owned() };
            let rows: Vec<String> = (0..1000).map(|id| format!("('{}', {id}, REPEAT('v', 70))", spell(id))).collect();
            server.execute(&format!("INSERT INTO shop.codes VALUES {}", rows.join(", ")));
        }
        server.execute("ANALYZE TABLE shop.codes");
        let explored = dump(&server, &DirSink::new(), CHUNK_BYTES, None).unwrap();
        let dir = DirSink::new();
        let manifest = dump(&server, &dir, CHUNK_BYTES, Some(&explored)).unwrap();
        let chunks = &manifest.tables[0].chunks;
        // Codes of one length are one code here: those of the other length stand between.
        let has_two_spellings = |chunk: &Chunk| {
            let [lower, upper] = [&chunk.lower, &chunk.upper].map(|bound| bound.as_ref().map(|key| key[0].clone()));
            lower.zip(upper).is_some_and(|(lower, upper)| lower != upper && lower.len() == upper.len())
        };
        assert!(chunks.iter().any(has_two_spellings), "{product:?}: no chunk has two spellings: {chunks:?}");
        assert_eq!((explored.rows(), manifest.rows()), (3000, 3000), "{product:?}");

        let restored = Server::start(product, &[]);
        restore(&restored, dir.path());
        assert_eq!(rows_of(&server, "shop", "codes"), rows_of(&restored, "shop", "codes"), "{product:?}");
        assert_eq!(differing(&restored, &manifest, None), BTreeSet::new(), "{product:?}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_key_that_got_another_character_set_is_cut_anew() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        server.execute(
            "CREATE DATABASE shop; CREATE TABLE shop.codes \
             (code VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY, v CHAR(80) NOT NULL)",
        );
        let rows: Vec<String> = (0..2000).map(|id| format!("('é{id}', REPEAT('v', 70))")).collect();
        server.execute(&format!("INSERT INTO shop.codes VALUES {}", rows.join(", ")));
        server.execute("ANALYZE TABLE shop.codes");
        let before = dump(&server, &DirSink::new(), CHUNK_BYTES, None).unwrap();
        assert!(before.tables[0].chunks.len() > 2);
        server.execute("ALTER TABLE shop.codes CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
        let after = dump(&server, &DirSink::new(), CHUNK_BYTES, Some(&before)).unwrap();
        assert_eq!(after.rows(), 2000, "{product:?}");

        // A manifest whose bounds name a character set that the server does not compare with.
        let mut odd = after.clone();
        for key in odd.tables[0].chunks.iter_mut().filter_map(|chunk| chunk.upper.as_mut()) {
            key[0].push_str(" COLLATE latin1_bin");
        }
        let cut_anew = dump(&server, &DirSink::new(), CHUNK_BYTES, Some(&odd)).unwrap();
        assert_eq!(cut_anew.rows(), 2000, "{product:?}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_parent_that_cannot_be_read_costs_its_bounds_and_no_backup() {
    let world = World::ready(Product::MariaDb);
    let backup = ["backup", "mall", "--source", "db1", "--no-copy"];
    world.bkp(&backup).expect(0);
    let stray = world.path("policies").display().to_string();
    world.restic(&["backup", "--tag", "policy=mall", "--tag", "source=db1", &stray]).expect(0);
    let ended = world.bkp(&backup).expect(0);
    assert!(ended.err.contains("db1: the dump before cannot be read"), "{}", ended.err);
    assert!(ended.err.contains("no directory `mysql`"), "{}", ended.err);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn tables_without_transactions_are_refused_or_dumped_while_locked() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        server.execute("CREATE DATABASE old; CREATE TABLE old.m (a INT PRIMARY KEY) ENGINE=MyISAM; INSERT INTO old.m VALUES (1), (2)");
        let refused = dump(&server, &DirSink::new(), CHUNK_BYTES, None).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "dump the server to one moment: 1 tables are of engines without transactions: `old.m` (MyISAM)"
        );
        let mut policy = source(2);
        policy.non_transactional = NonTransactional::Lock;
        let insert = "SET lock_wait_timeout = 1; INSERT INTO old.m VALUES (3)";
        let (manifest, _dir) = dump_by_while(&by_socket(&server), &policy, &Run::silent(), || {
            let waited = server.try_execute(insert).unwrap_err();
            assert!(waited.contains("Lock wait timeout exceeded"), "{waited}");
        });
        let manifest = manifest.unwrap();
        assert_eq!((manifest.rows(), manifest.consistency), (2, Consistency::GlobalLock));
        server.execute(insert);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_server_is_trusted_by_its_certificate_alone() {
    for product in BOTH {
        let keys = world::Certificates::make();
        let [ca, certificate, key] = keys.options();
        let server = Server::start(product, &[&ca, &certificate, &key]);
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
        let mut address = as_user(&server, "bkp", "bkp");
        address.tls = Tls { mode: TlsMode::Verify, ca_file: Some(keys.authority()) };
        let manifest = dump_by(&address, &source(1), &DirSink::new(), CHUNK_BYTES, None, &Run::silent()).unwrap();
        assert_eq!(manifest.rows(), 1);
        block_on(async { address.connect().await.map(drop) }).unwrap();

        let others = world::Certificates::make();
        address.tls.ca_file = Some(others.authority());
        let refused = dump_by(&address, &source(1), &DirSink::new(), CHUNK_BYTES, None, &Run::silent()).unwrap_err();
        assert!(format!("{refused:?}").contains("InvalidCertificate"), "{refused:?}");
        assert!(block_on(async { address.connect().await.map(drop) }).is_err());
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn every_way_to_log_in_is_understood() {
    let server = Server::mariadb();
    server.execute("INSTALL SONAME 'auth_ed25519'");
    server.execute(
        "CREATE USER new@'%' IDENTIFIED VIA ed25519 USING PASSWORD('sesam'); CREATE USER bare@'%' IDENTIFIED BY ''",
    );
    for (user, password) in [("new", "sesam"), ("bare", ""), ("bkp", "bkp")] {
        let mut wire = as_user(&server, user, password).open_wire(&CancellationToken::new()).unwrap();
        assert_eq!(wire.query("SELECT 7").unwrap(), [[Some(b"7".to_vec())]]);
    }
    let server = Server::mysql();
    server.execute("CREATE USER fresh@'%' IDENTIFIED BY 'sesam'");
    // First the password under the server's key, then by what the server has cached.
    for _ in 0..2 {
        let mut wire = as_user(&server, "fresh", "sesam").open_wire(&CancellationToken::new()).unwrap();
        assert_eq!(wire.query("SELECT 7").unwrap(), [[Some(b"7".to_vec())]]);
    }
    let refused = as_user(&server, "fresh", "other").open_wire(&CancellationToken::new()).unwrap_err();
    assert!(refused.is_access_denied(), "{refused:?}");
    let nobody = Address {
        address: MysqlAddress::Tcp { host: "127.0.0.1".to_owned(), port: 1 },
        ..as_user(&server, "fresh", "sesam")
    };
    assert!(nobody.open_wire(&CancellationToken::new()).unwrap_err().hint().is_some());
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn the_peers_that_the_policy_does_not_name_are_refused_before_a_byte() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut address = Address {
        address: MysqlAddress::Tcp { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() },
        user: "bkp".to_owned(),
        password: None,
        tls: Tls::default(),
        network: bkp::policy::Network::default(),
    };
    address.network.peers = vec!["10.9.8.0/24".parse().unwrap()];
    let refused = address.open_wire(&CancellationToken::new()).unwrap_err();
    assert!(refused.is_network_refused(), "{refused:?}");
    assert!(block_on(async { address.connect().await.map(drop) }).unwrap_err().is_network_refused());
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody knocked");
}
