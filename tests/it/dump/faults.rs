//! Live: a server that dies, tables that go or are locked, servers set up oddly: a whole dump, or none and the reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bkp::exit::{Exit, Failure};
use bkp::mysql::wire::Wire;
use bkp::policy::MysqlSource;
use bkp::run::Run;
use bkp::source::mysql::{Snapshot, Unheld};
use bkp::target::mysql::plan::Selection;
use bkp::target::mysql::{DirDump, DumpReader, LoadOptions, LoadPlan, Loaded, inspect, load};
use tokio_util::sync::CancellationToken;

use super::cut::Line;
use super::moment::make_unlocked;
use super::world::{self, DirSink, as_user, by_socket, dump, rows_of, source};
use super::{BOTH, CHUNK_BYTES, dump_by_while, dump_while, make_large};
use crate::servers::{Product, Server, block_on};

/// Adds a table that is read after the large one.
fn add_small(server: &Server) {
    server.execute("CREATE TABLE large.small (a INT PRIMARY KEY); INSERT INTO large.small VALUES (1), (2)");
    server.execute("ANALYZE TABLE large.t, large.small");
}

/// Loads a dump, and returns what came of it.
fn bring(server: &Server, dir: &DirSink) -> Loaded {
    let dump = Arc::new(DirDump::open(dir.path()).unwrap());
    let to = by_socket(server);
    block_on(async {
        let state = inspect(&to, &CancellationToken::new()).await.unwrap();
        let plan = LoadPlan::new(dump.manifest(), &Selection::everything(), &state, false).unwrap();
        load(&plan, dump.clone(), &to, LoadOptions::default(), &Run::silent()).await.unwrap()
    })
}

/// Returns what a load in place of all that is there would do.
fn planned(server: &Server, dir: &DirSink) -> LoadPlan {
    let dump = DirDump::open(dir.path()).unwrap();
    block_on(async {
        let state = inspect(&by_socket(server), &CancellationToken::new()).await.unwrap();
        let mut plan = LoadPlan::new(dump.manifest(), &Selection::everything(), &state, true).unwrap();
        plan.fit(&dump, &state).await.unwrap();
        plan
    })
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_server_that_dies_in_mid_dump_leaves_no_dump() {
    for product in BOTH {
        let mut server = Server::start(product, &[]);
        make_large(&server);
        let address = as_user(&server, "bkp", "bkp");
        let (dumped, dir) = dump_by_while(&address, &source(2), &Run::silent(), || server.kill());
        let failure = Failure::from(dumped.unwrap_err());
        assert_eq!(failure.exit, Exit::Failed, "{product:?}: {failure:?}");
        assert!(failure.message.contains("is gone") || failure.message.contains("hold the definitions"), "{failure:?}");
        assert!(failure.hint.is_some(), "{product:?}: {failure:?}");
        assert!(!dir.path().join("manifest.json").exists(), "{product:?}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_server_that_falls_silent_in_mid_dump_is_waited_for_only_so_long() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_large(&server);
        let line = Line::to(&server);
        let (dir, reached, go) = DirSink::with_gate();
        let snapshot = Snapshot::open(&line.address(&server), &source(2), Unheld::Refuse, &Run::silent()).unwrap();
        let snapshot = snapshot.with_silence_max(Duration::from_secs(1)).with_chunk_bytes(u64::MAX);
        let dumped = std::thread::scope(|scope| {
            let dump = scope.spawn(|| snapshot.dump(&dir, None, &Run::silent()));
            reached.recv_timeout(Duration::from_secs(30)).unwrap();
            line.go_black();
            go.send(()).unwrap();
            dump.join().unwrap()
        });
        let failure = Failure::from(dumped.unwrap_err());
        assert_eq!(failure.exit, Exit::Failed, "{product:?}: {failure:?}");
        assert!(failure.message.contains("1 s"), "{product:?}: {failure:?}");
        assert!(failure.hint.is_some(), "{product:?}: {failure:?}");
        assert!(!dir.path().join("manifest.json").exists(), "{product:?}");
        // New connections get through, and end what the old ones have begun.
        wait_until_no_reader(&server);
    }
}

fn wait_until_no_reader(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !world::readers(server).is_empty() {
        assert!(Instant::now() < deadline, "a statement of the dump still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_drop_waits_for_the_end_of_the_dump() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_large(&server);
        add_small(&server);
        let drop = "SET lock_wait_timeout = 1; DROP TABLE large.small";
        let (dumped, dir) = dump_while(&server, &Run::silent(), || {
            let waited = server.try_execute(drop).unwrap_err();
            assert!(waited.contains("Lock wait timeout exceeded"), "{product:?}: {waited}");
        });
        assert_eq!(dumped.unwrap().rows(), (1 << 15) + 2, "{product:?}");
        assert!(dir.path().join("large/small/schema.sql").exists());
        server.execute(drop);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_table_dropped_under_a_dump_that_cannot_hold_it_is_named_and_there_is_no_dump() {
    let server = Server::mysql();
    make_unlocked(&server);
    make_large(&server);
    add_small(&server);
    let (dumped, dir) = dump_by_while(&as_user(&server, "loose", "x"), &source(1), &Run::silent(), || {
        server.execute("DROP TABLE large.small");
    });
    let failure = Failure::from(dumped.unwrap_err());
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.message.contains("read `large.small`"), "{failure:?}");
    assert!(failure.hint.is_some_and(|hint| hint.contains("when no migration runs")));
    assert!(!dir.path().join("manifest.json").exists());
}

/// MariaDB lets nobody lock a table as long as a dump holds the definitions still.
#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_table_that_somebody_would_lock_in_mid_dump_is_waited_for_or_is_not_locked() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_large(&server);
        add_small(&server);
        let mut other = by_socket(&server).open_wire(&CancellationToken::new()).unwrap();
        std::thread::scope(|scope| {
            let (dumped, _dir) = dump_by_while(&as_user(&server, "bkp", "bkp"), &source(1), &Run::silent(), || {
                other.run("SET lock_wait_timeout = 1").unwrap();
                let locked = other.run("LOCK TABLES large.small WRITE");
                assert_eq!(locked.is_ok(), product == Product::MySql, "{locked:?}");
                if locked.is_ok() {
                    other.run("INSERT INTO large.small VALUES (3)").unwrap();
                    let server = &server;
                    scope.spawn(move || unlock_once_waited_for(server, other));
                }
            });
            // The row that came after the read views is not in it.
            assert_eq!(dumped.unwrap().rows(), (1 << 15) + 2, "{product:?}");
        });
    }
}

fn unlock_once_waited_for(server: &Server, mut holder: Wire) {
    let waits =
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'bkp' AND STATE LIKE 'Waiting for table%'";
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.value(waits) == "0" {
        assert!(Instant::now() < deadline, "the dump never met the lock");
        std::thread::sleep(Duration::from_millis(20));
    }
    holder.run("UNLOCK TABLES").unwrap();
}

/// Lets new sessions send and take packets of so many bytes.
fn set_packet(server: &Server, bytes: u32) {
    server.execute(&format!("SET GLOBAL max_allowed_packet = {bytes}"));
    assert_eq!(server.value("SELECT @@max_allowed_packet"), bytes.to_string());
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn rows_larger_than_max_allowed_packet_are_dumped_and_loaded() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        server.execute(
            "CREATE DATABASE shop; CREATE TABLE shop.blobs (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT);
             INSERT INTO shop.blobs VALUES (1, REPEAT('b', 3000000), REPEAT('\\n', 3000000)), (2, '', 't')",
        );
        set_packet(&server, 1 << 20);
        let dir = DirSink::new();
        dump(&server, &dir, CHUNK_BYTES, None).unwrap();
        let target = Server::start(product, &["--max-allowed-packet=1M"]);
        let loaded = bring(&target, &dir);
        assert!(loaded.failed.is_empty(), "{product:?}: {:?}", loaded.failed);
        set_packet(&server, 256 << 20);
        set_packet(&target, 256 << 20);
        assert!(rows_of(&server, "shop", "blobs") == rows_of(&target, "shop", "blobs"), "{product:?}");
    }
}

/// MySQL sends an empty text in its place and gives a warning; its own mysqldump writes the empty text.
#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_json_document_larger_than_max_allowed_packet_is_never_dumped_or_loaded_as_an_empty_one() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        server.execute(
            "CREATE DATABASE shop; CREATE TABLE shop.documents (id INT PRIMARY KEY, j JSON);
             INSERT INTO shop.documents VALUES (1, JSON_ARRAY(REPEAT('j', 3000000)))",
        );
        let dir = DirSink::new();
        set_packet(&server, 1 << 20);
        let dumped = dump(&server, &dir, CHUNK_BYTES, None);
        assert_eq!(dumped.is_ok(), product == Product::MariaDb, "{dumped:?}");
        let dir = match dumped {
            Ok(_) => dir,
            Err(error) => {
                assert!(!dir.path().join("manifest.json").exists());
                let failure = Failure::from(error);
                assert!(
                    failure.message.starts_with("read `shop.documents`: the server cut a value short"),
                    "{failure:?}"
                );
                assert!(failure.hint.is_some_and(|hint| hint.contains("SET GLOBAL max_allowed_packet")));
                let dir = DirSink::new();
                set_packet(&server, 256 << 20);
                dump(&server, &dir, CHUNK_BYTES, None).unwrap();
                dir
            }
        };
        let target = Server::start(product, &["--max-allowed-packet=1M"]);
        let failed = bring(&target, &dir).failed;
        if product == Product::MySql {
            assert_eq!(failed[0].what, "table `shop`.`documents`", "{failed:?}");
            let hint = failed[0].error.hint().unwrap();
            assert!(hint.contains("SET GLOBAL max_allowed_packet"), "{hint}");
        }
        set_packet(&server, 256 << 20);
        set_packet(&target, 256 << 20);
        if product == Product::MySql {
            let again = bring(&target, &dir).failed;
            assert!(again.is_empty(), "{again:?}");
        }
        assert_eq!(rows_of(&server, "shop", "documents"), rows_of(&target, "shop", "documents"), "{product:?}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn servers_of_another_character_set_that_trust_no_client_change_no_letter() {
    for product in BOTH {
        let start = |charset: &str| {
            let charset = format!("--character-set-server={charset}");
            let mut options = vec![charset.as_str()];
            if product == Product::MariaDb {
                options.push("--skip-character-set-client-handshake");
            }
            Server::start(product, &options)
        };
        let (server, target) = (start("sjis"), start("latin1"));
        server.execute(
            "SET NAMES utf8mb4; CREATE DATABASE `가게`; CREATE TABLE `가게`.`주문` (`번호` INT PRIMARY KEY, `이름` VARCHAR(40) CHARACTER SET utf8mb4 \
             DEFAULT '없음' COMMENT '이름; ü', l VARCHAR(40) CHARACTER SET latin1, e ENUM('가','나') CHARACTER SET utf8mb4); \
             CREATE VIEW `가게`.`보기` AS SELECT `이름`, '서울 😀' AS `도시` FROM `가게`.`주문`; \
             CREATE PROCEDURE `가게`.`채우기` () SELECT '표 表ソ'; \
             INSERT INTO `가게`.`주문` VALUES (1, '서울 😀', 'Grüße', '나')",
        );
        // As a shop does that was told the wrong character set: every letter is stored as two.
        server.execute("SET NAMES utf8mb4; INSERT INTO `가게`.`주문` SELECT 2, CONVERT(CONVERT('서울' USING binary) USING latin1), 'x', '가'");
        let dir = DirSink::new();
        dump(&server, &dir, CHUNK_BYTES, None).unwrap();
        let loaded = bring(&target, &dir);
        assert!(loaded.failed.is_empty(), "{product:?}: {:?}", loaded.failed);
        for server in [&server, &target] {
            server.execute("SET GLOBAL character_set_client = utf8mb4, GLOBAL character_set_results = utf8mb4, GLOBAL collation_connection = utf8mb4_bin, GLOBAL character_set_connection = utf8mb4");
        }
        assert_eq!(rows_of(&server, "가게", "주문"), rows_of(&target, "가게", "주문"), "{product:?}");
        assert!(
            rows_of(&target, "가게", "주문")[1][1].as_ref().is_some_and(|twice| twice.starts_with("C3AC")),
            "{product:?}"
        );
        let definitions = [&server, &target].map(|server| world::definition(server, "가게", "주문"));
        assert_eq!(definitions[0], definitions[1], "{product:?}");
        assert!(definitions[0].contains("없음") && definitions[0].contains("이름; ü"), "{}", definitions[0]);
        let view = [&server, &target].map(|server| server.query("SHOW CREATE VIEW `가게`.`보기`")[0][1].clone());
        assert_eq!(view[0], view[1], "{product:?}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn an_event_of_a_zone_that_the_target_does_not_know_is_named_and_the_rest_comes() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        // As `mysql_tzinfo_to_sql` would, but one zone alone.
        server.execute(
            "INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (77, 'N'); \
             INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('Asia/Seoul', 77); \
             INSERT INTO mysql.time_zone_transition_type VALUES (77, 0, 32400, 0, 'KST')",
        );
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
        server.execute("SET time_zone = 'Asia/Seoul'; CREATE EVENT shop.nightly ON SCHEDULE EVERY 1 DAY DO DO 1");
        let dir = DirSink::new();
        dump(&server, &dir, CHUNK_BYTES, None).unwrap();
        let target = Server::start(product, &[]);
        let said = "the target does not know the time zone Asia/Seoul: event `shop`.`nightly` will not come, ";
        let notes = [&server, &target].map(|server| planned(server, &dir).notes);
        let is_noted = notes.map(|notes| notes.iter().any(|note| note.starts_with(said)));
        assert_eq!(is_noted, [false, true], "{product:?}");
        let loaded = bring(&target, &dir);
        let failed: Vec<&str> = loaded.failed.iter().map(|failed| failed.what.as_str()).collect();
        assert_eq!(failed, ["event `shop`.`nightly`", "event `shop`.`nightly`"], "{product:?}: {:?}", loaded.failed);
        let hint = loaded.failed[0].error.hint().unwrap();
        assert!(hint.contains("mysql_tzinfo_to_sql"), "{hint}");
        assert_eq!(target.value("SELECT COUNT(*) FROM shop.t"), "1", "{product:?}");
    }
}

/// MariaDB lists such a table, and shows no column of it.
#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_table_that_the_server_cannot_open_is_named_and_there_is_no_dump_without_it() {
    let server = Server::mariadb();
    server.execute(
        "CREATE DATABASE shop; CREATE TABLE shop.whole (a INT PRIMARY KEY); INSERT INTO shop.whole VALUES (1)",
    );
    server.execute("CREATE TABLE shop.torn (a INT PRIMARY KEY); FLUSH TABLES");
    std::fs::write(server.dir().join("data/shop/torn.frm"), "no definition").unwrap();

    let dir = DirSink::new();
    let failure = Failure::from(dump(&server, &dir, CHUNK_BYTES, None).unwrap_err());
    assert_eq!(failure.exit, Exit::Failed, "{failure:?}");
    assert!(failure.message.contains("`shop.torn`"), "{failure:?}");
    assert!(failure.hint.is_some_and(|hint| hint.contains("exclude")));
    assert!(!dir.path().join("manifest.json").exists());

    let without = MysqlSource { exclude: vec!["shop.torn".to_owned()], ..source(2) };
    let snapshot = Snapshot::open(&by_socket(&server), &without, Unheld::Refuse, &Run::silent()).unwrap();
    let manifest = snapshot.dump(&DirSink::new(), None, &Run::silent()).unwrap();
    assert_eq!(manifest.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["whole"]);
}
