//! Live: the moment that a dump is true of, and the locks that make it so.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bkp::mysql::manifest::Consistency;
use bkp::run::Run;
use tokio_util::sync::CancellationToken;

use super::world::{DirSink, as_user, by_socket, dump, dump_by, noted, restore, source};
use super::{BOTH, CHUNK_BYTES, dump_by_while, dump_while, make_bank, make_large, transfer};
use crate::servers::{Product, Server};
use crate::world::World;

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn the_binlog_proves_views_equal_only_where_it_holds_every_change() {
    let cases: [(&[&str], &str, Consistency); 5] = [
        (&[], "DO 1", Consistency::LockFree),
        (&["--binlog-ignore-db=cache"], "DO 1", Consistency::GlobalLock),
        (&["--binlog-do-db=shop"], "DO 1", Consistency::GlobalLock),
        (&[], "SET GLOBAL gtid_slave_pos = '3-99-7'", Consistency::GlobalLock),
        (&["--log-slave-updates"], "SET GLOBAL gtid_slave_pos = '3-99-7'", Consistency::LockFree),
    ];
    for (options, prepare, expected) in cases {
        let server = Server::start(Product::MariaDb, options);
        server.execute(
            "CREATE DATABASE shop; USE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)",
        );
        server.execute(prepare);
        let manifest = dump(&server, &DirSink::new(), CHUNK_BYTES, None).unwrap();
        assert_eq!(manifest.consistency, expected, "{options:?} {prepare}");
        let applied = (expected == Consistency::GlobalLock && prepare != "DO 1").then(|| "3-99-7".to_owned());
        assert_eq!(manifest.gtid_slave_pos, applied, "{options:?} {prepare}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn changes_that_the_binlog_leaves_out_do_not_tear_the_dump() {
    let server = Server::start(Product::MariaDb, &["--binlog-ignore-db=bank"]);
    make_bank(&server);
    let address = as_user(&server, "bkp", "bkp");
    let stop = AtomicBool::new(false);
    let (busy, is_busy) = sync_channel(4);
    let dir = DirSink::new();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (address, stop, busy) = (&address, &stop, busy.clone());
            scope.spawn(move || transfer(address, writer, stop, &busy));
        }
        (0..4).for_each(|_| is_busy.recv().unwrap());
        let dumped = dump_by(&address, &source(8), &dir, CHUNK_BYTES, None, &Run::silent());
        stop.store(true, Ordering::Relaxed);
        dumped.unwrap();
    });
    let restored = Server::mariadb();
    restore(&restored, dir.path());
    let total =
        restored.value("SELECT (SELECT SUM(money) FROM bank.left_side) + (SELECT SUM(money) FROM bank.right_side)");
    assert_eq!(total, "8000000");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn writers_of_tables_without_transactions_in_other_schemas_do_not_wait_for_the_dump() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_large(&server);
        server.execute("CREATE DATABASE old; CREATE TABLE old.m (a INT PRIMARY KEY) ENGINE=MyISAM");
        let mut policy = source(2);
        policy.schemas = vec!["large".to_owned()];
        let (dumped, _dir) = dump_by_while(&as_user(&server, "bkp", "bkp"), &policy, &Run::silent(), || {
            server.execute("SET lock_wait_timeout = 1; INSERT INTO old.m VALUES (1)");
        });
        assert_eq!(dumped.unwrap().rows(), 1 << 15, "{product:?}");
    }
}

/// Makes an account that may do all but hold definitions still.
pub(super) fn make_unlocked(server: &Server) {
    server.execute("CREATE USER loose@'%' IDENTIFIED BY 'x'");
    server.execute("GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS ON *.* TO loose@'%'");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_table_altered_between_listing_and_read_views_is_no_dump_without_its_column() {
    let server = Server::mysql();
    make_unlocked(&server);
    server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    server.execute("CREATE TABLE shop.other (a INT PRIMARY KEY); INSERT INTO shop.other VALUES (1)");
    let mut slow = by_socket(&server).open_wire(&CancellationToken::new()).unwrap();
    let (run, notes) = noted();
    let refused = std::thread::scope(|scope| {
        slow.send("SELECT SLEEP(5) FROM shop.t").unwrap();
        scope.spawn(move || slow.finish().unwrap());
        let dumping = scope.spawn(|| {
            let mut policy = source(1);
            policy.lock_wait = Duration::from_secs(1);
            dump_by(&as_user(&server, "loose", "x"), &policy, &DirSink::new(), CHUNK_BYTES, None, &run)
        });
        // Between two tries of the global lock nothing is locked.
        while !notes.text().contains("trying again") {
            assert!(!dumping.is_finished(), "the lock was never in the way");
            std::thread::yield_now();
        }
        server.execute("ALTER TABLE shop.other ADD COLUMN b INT DEFAULT 5");
        dumping.join().unwrap().unwrap_err()
    });
    assert_eq!(refused.to_string(), "read `shop.other`: its definition changed during the dump");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_column_renamed_under_the_dump_is_noticed_at_its_end() {
    let server = Server::mysql();
    make_unlocked(&server);
    make_large(&server);
    server.execute(
        "CREATE TABLE large.small (a INT PRIMARY KEY, b INT, c INT); INSERT INTO large.small VALUES (1, 2, 3)",
    );
    server.execute("ANALYZE TABLE large.t, large.small");
    let (refused, dir) = dump_by_while(&as_user(&server, "loose", "x"), &source(1), &Run::silent(), || {
        server.execute("ALTER TABLE large.small RENAME COLUMN b TO c, RENAME COLUMN c TO b, ALGORITHM = INSTANT");
    });
    assert_eq!(refused.unwrap_err().to_string(), "read `large.small`: its definition changed during the dump");
    assert!(!dir.path().join("manifest.json").exists());
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_dump_whose_lock_on_definitions_is_lost_is_no_dump() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_large(&server);
        let (refused, dir) = dump_while(&server, &Run::silent(), || {
            // The last to log in of those that are still there.
            let id = server.value("SELECT MAX(ID) FROM information_schema.PROCESSLIST WHERE USER = 'bkp'");
            server.execute(&format!("KILL {id}"));
        });
        let refused = refused.unwrap_err();
        assert_eq!(refused.to_string(), "hold the definitions still", "{product:?}: {refused:?}");
        assert!(!dir.path().join("manifest.json").exists());
    }
}

/// Listens on 127.0.0.1 and passes all on to the server, from 127.0.0.2: as a network translation does.
fn translate(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for inward in listener.incoming() {
            let inward = inward.unwrap();
            let outward = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            outward.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
            outward.connect(&SocketAddr::from(([127, 0, 0, 1], server)).into()).unwrap();
            let outward = TcpStream::from(outward);
            for (from, to) in [(&inward, &outward), (&outward, &inward)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    to.shutdown(Shutdown::Both).ok();
                });
            }
        }
    });
    port
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_server_that_sees_us_come_from_elsewhere_is_refused_before_a_row_is_read() {
    let world = World::ready(Product::MariaDb);
    let policy = world.path("policies/mall.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let network = "\n[network]\nsource = \"127.0.0.1\"\n";
    std::fs::write(&policy, format!("{text}{network}")).unwrap();
    let backup = ["backup", "mall", "--source", "db1", "--no-copy"];
    world.bkp(&backup).expect(0);
    let through =
        text.replace(&format!("port = {}", world.source.port()), &format!("port = {}", translate(world.source.port())));
    assert_ne!(text, through);
    std::fs::write(&policy, format!("{through}{network}")).unwrap();
    let refused = world.bkp(&backup).expect(17);
    assert!(refused.err.contains("127.0.0.2"), "{}{}", refused.out, refused.err);
    let snapshots = world.restic(&["snapshots", "--json"]).expect(0).json();
    assert_eq!(snapshots.as_array().unwrap().len(), 1);
}
