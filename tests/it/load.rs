//! A dump goes into real servers: whole, interrupted at any moment, and refused where it does not fit.

mod cross;
mod cut;
pub(crate) mod dumps;
mod first;
mod foreign;
mod full;
mod names;
mod readers;
mod silence;

use std::sync::Arc;
use std::time::Duration;

use bkp::mysql::manifest::ObjectKind;
use bkp::mysql::server::Server as Address;
use bkp::policy::{MysqlAddress, Network, Tls, TlsMode};
use bkp::run::Run;
use bkp::sandbox::{Sandbox, SandboxPlan};
use bkp::secret::Secret;
use bkp::source::mysql::hash_chunks;
use bkp::target::mysql::identity::is_same;
use bkp::target::mysql::plan::Selection;
use bkp::target::mysql::{
    DirDump, DumpReader, Failed, LoadError, LoadOptions, LoadPlan, Loaded, compare, inspect, load,
};

use tokio_util::sync::CancellationToken;

use crate::dump::world::DirSink;
use crate::dump::{fixture, world};
use crate::servers::{Product, Server, program};
use dumps::Dump;
use readers::Gate;

/// Returns how bkp reaches a test server.
pub(crate) fn address(server: &Server) -> Address {
    Address {
        address: MysqlAddress::Socket(server.socket()),
        user: "root".to_owned(),
        password: None,
        tls: Tls::default(),
        network: Network::default(),
    }
}

async fn plan(server: &Server, dump: &DirDump, overwrite: bool) -> Result<LoadPlan, LoadError> {
    let state = inspect(&address(server), &CancellationToken::new()).await?;
    LoadPlan::new(dump.manifest(), &Selection::everything(), &state, overwrite)
}

/// Plans and loads, with secondary indexes after the rows of every table.
async fn bring(server: &Server, dump: Arc<dyn DumpReader>, run: &Run) -> Result<Loaded, LoadError> {
    let state = inspect(&address(server), &CancellationToken::new()).await?;
    let plan = LoadPlan::new(dump.manifest(), &Selection::everything(), &state, false)?;
    load(&plan, dump, &address(server), options(), run).await
}

fn options() -> LoadOptions {
    LoadOptions { connections: 3, skip_binlog: true, defer_index_bytes_min: 0, ..LoadOptions::default() }
}

/// Asserts that a server holds nothing of ours beside what was loaded.
fn assert_tidy(server: &Server) {
    assert_eq!(server.value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'bkp_restore'"), "0");
}

const BOTH: [Product; 2] = [Product::MariaDb, Product::MySql];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_dump_comes_back_to_the_last_byte_with_all_its_objects() {
    for product in BOTH {
        let dump = dumps::torture(product).open();
        let server = Server::start(product, &[]);
        server.execute("CREATE USER 'standing'@'%' IDENTIFIED BY 'its own'");

        let loaded = bring(&server, dump, &Run::silent()).await.unwrap();

        assert!(loaded.failed.is_empty(), "{product:?}: {:?}", loaded.failed);
        assert_eq!(loaded.rows, 9);
        assert_eq!(
            server.query(
                "SELECT id, HEX(t), HEX(b), HEX(l), d, ts, tm, HEX(bits), f, dbl, dbl2, day FROM shop.kinds ORDER BY id"
            ),
            dumps::kinds_as_selected()
        );
        assert_eq!(server.value("SELECT GROUP_CONCAT(ST_AsText(g) ORDER BY id) FROM shop.shapes"), "POINT(1 2)");
        assert_eq!(
            server.value("SELECT JSON_UNQUOTE(JSON_EXTRACT(j, '$.\"가\"')) FROM shop.shapes WHERE id = 1"),
            "나\t다"
        );
        assert_eq!(server.value("SELECT total FROM shop.sales_twice"), "18");
        assert_eq!(server.value("SELECT COUNT(*) FROM shop.lines"), "4");
        server.execute("INSERT INTO shop.orders (id, amount) VALUES (40, 5)");
        assert_eq!(server.value("SELECT COUNT(*) FROM shop.log WHERE what = 'order 40'"), "1");
        let indexes = "SELECT GROUP_CONCAT(DISTINCT index_name ORDER BY 1) FROM information_schema.statistics
            WHERE table_schema = 'shop' AND table_name = 'orders'";
        assert_eq!(server.value(indexes), "by_amount,by_note,PRIMARY");
        assert_eq!(server.value("SELECT COUNT(*) FROM information_schema.events WHERE event_schema = 'shop'"), "1");
        let collation = "SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = 'shop'";
        assert_eq!(server.value(collation), "utf8mb4_bin");
        assert_eq!(server.value("SELECT COUNT(*) FROM mysql.user WHERE user = 'clerk'"), "1");
        assert_eq!(server.value("SELECT COUNT(*) FROM mysql.db WHERE user = 'clerk' AND db = 'shop'"), "1");
        assert_eq!(server.value("SELECT COUNT(*) FROM mysql.db WHERE user = 'standing'"), "0");
        assert_tidy(&server);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_load_that_is_stopped_in_the_middle_goes_on_and_no_row_comes_twice() {
    for product in BOTH {
        let dump = Dump::new(product).numbers("plain", 8, 1_000).without_key("loose", 8, 1_000).open();
        let server = Server::start(product, &[]);
        let gate = Gate::after_chunks(dump.clone(), 5);
        let run = Run::silent();

        let stopped = tokio::join!(bring(&server, gate.clone(), &run), async {
            gate.reached().await;
            run.cancel.cancel();
        });

        assert!(matches!(stopped.0, Err(LoadError::Stopped)), "{:?}", stopped.0);
        let count = "SELECT (SELECT COUNT(*) FROM shop.plain) + (SELECT COUNT(*) FROM shop.loose)";
        let middle: u64 = server.value(count).parse().unwrap();
        assert!(middle > 0 && middle < 16_000 && middle.is_multiple_of(1_000), "{product:?}: {middle}");
        let ours = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'LOAD DATA%' AND id <> CONNECTION_ID()";
        assert_eq!(server.value(ours), "0");

        let rest = plan(&server, &dump, false).await.unwrap();
        assert!(rest.resumes);
        assert_eq!(rest.rows(), 16_000 - middle);
        let loaded = bring(&server, dump, &Run::silent()).await.unwrap();

        assert_eq!(loaded.rows, 16_000 - middle);
        dumps::assert_numbers(&server, "plain", 8_000);
        dumps::assert_numbers(&server, "loose", 8_000);
        assert_tidy(&server);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_connection_lost_in_mid_chunk_costs_a_second_try_and_no_row() {
    for product in BOTH {
        let dump = Dump::new(product).without_key("loose", 3, 50_000).open();
        let server = Server::start(product, &[]);
        let gate = Gate::within_chunk(dump, "shop/loose/1.tsv");

        let run = Run::silent();
        let (loaded, ()) = tokio::join!(bring(&server, gate.clone(), &run), async {
            gate.reached().await;
            let loading = "SELECT id FROM information_schema.processlist WHERE info LIKE 'LOAD DATA LOCAL%'";
            server.execute(&format!("KILL {}", server.value(loading)));
            gate.open();
        });

        assert_eq!(loaded.unwrap().retries, 1);
        dumps::assert_numbers(&server, "loose", 150_000);
    }
}

/// A restart loses every connection, the one that makes the objects too.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_target_that_restarts_in_mid_load_is_waited_for() {
    for product in BOTH {
        let dump = Dump::new(product)
            .numbers("plain", 6, 1_000)
            .object(ObjectKind::View, Some("shop"), None, "whole", &["CREATE VIEW whole AS SELECT * FROM plain"])
            .open();
        let mut server = Server::start(product, &[]);
        let (gate, to) = (Gate::within_chunk(dump, "shop/plain/3.tsv"), address(&server));
        let state = inspect(&to, &CancellationToken::new()).await.unwrap();
        let plan = LoadPlan::new(gate.manifest(), &Selection::everything(), &state, false).unwrap();
        let run = Run::silent();
        let (loaded, ()) = tokio::join!(load(&plan, gate.clone(), &to, options(), &run), async {
            gate.reached().await;
            server.kill();
            gate.open();
            // Longer than the tries of a deadlock.
            tokio::time::sleep(Duration::from_secs(8)).await;
            tokio::task::block_in_place(|| server.start_again());
        });

        let loaded = loaded.unwrap();
        assert!(loaded.retries > 0 && loaded.failed.is_empty(), "{product:?}: {:?}", loaded.failed);
        dumps::assert_numbers(&server, "plain", 6_000);
        assert_eq!(server.value("SELECT COUNT(*) FROM shop.whole"), "6000");
        assert_tidy(&server);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn an_index_build_that_loses_its_connection_is_done_again() {
    for product in BOTH {
        let dump = Dump::new(product).numbers("plain", 2, 1_000).open();
        let server = Server::start(product, &[]);
        let gate = Gate::before_chunk(dump, "shop/plain/1.tsv");
        let run = Run::silent();
        let (loaded, ()) = tokio::join!(bring(&server, gate.clone(), &run), async {
            gate.reached().await;
            let mut reader = server.connect().await;
            dumps::run(&mut reader, "START TRANSACTION").await;
            dumps::run(&mut reader, "SELECT COUNT(*) FROM shop.plain").await;
            gate.open();
            let altering = "SELECT MAX(id) FROM information_schema.processlist WHERE info LIKE 'ALTER TABLE%'";
            readers::until(|| server.query(altering)[0][0].is_some()).await;
            server.execute(&format!("KILL {}", server.value(altering)));
            dumps::run(&mut reader, "ROLLBACK").await;
        });

        let loaded = loaded.unwrap();
        assert_eq!((loaded.retries, loaded.failed.len()), (1, 0), "{product:?}: {:?}", loaded.failed);
        let indexes = "SELECT COUNT(DISTINCT index_name) FROM information_schema.statistics WHERE table_name = 'plain'";
        assert_eq!(server.value(indexes), "2");
        dumps::assert_numbers(&server, "plain", 2_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_refused_right_costs_no_other_and_a_refused_account_keeps_its_hash_to_itself() {
    const HASH: &str = "*94BDCEBE19083CE2A1F959FD02F964C7AF4CFC29";
    for product in BOTH {
        let broken = format!("CREATE USER 'odd'@'%' IDENTIFIED WITHOUT SENSE AS '{HASH}'");
        let user = |dump: Dump, name: &str, sql: &str| dump.object(ObjectKind::User, None, None, name, &[sql]);
        let dump = user(Dump::new(product).numbers("plain", 1, 10), "'odd'@'%'", &broken);
        let dump = user(dump, "'clerk'@'%'", "CREATE USER 'clerk'@'%'");
        let rights = ["GRANT FLYING ON *.* TO 'clerk'@'%'", "GRANT SELECT ON shop.* TO 'clerk'@'%'"];
        let dump = dump.object(ObjectKind::Grant, None, None, "'clerk'@'%'", &rights).open();
        let server = Server::start(product, &[]);

        let failed = bring(&server, dump, &Run::silent()).await.unwrap().failed;

        let told: Vec<String> = failed.iter().map(|failed| failed.error.in_full()).collect();
        let refused = |what: &str, of: u8| format!("create {what}: the server refuses 1 of {of} statements");
        assert!(told[0].starts_with(&refused("user 'odd'@'%'", 1)), "{product:?}: {told:?}");
        assert!(told[1].starts_with(&refused("grants of 'clerk'@'%'", 2)), "{product:?}: {told:?}");
        assert!(!format!("{failed:?}").contains(HASH));
        assert_eq!(server.value("SELECT COUNT(*) FROM mysql.db WHERE user = 'clerk' AND db = 'shop'"), "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn one_server_is_known_by_socket_and_port_and_two_are_told_apart() {
    for product in BOTH {
        let (server, other) = (Server::start(product, &[]), Server::start(product, &[]));
        let port = |server: &Server| Address {
            address: MysqlAddress::Tcp { host: "127.0.0.1".to_owned(), port: server.port() },
            user: "bkp".to_owned(),
            password: Some(Secret::new("bkp".to_owned())),
            tls: Tls { mode: TlsMode::Off, ca_file: None },
            network: Network::default(),
        };
        assert_eq!(is_same(&address(&server), &port(&server)).await, Some(true));
        assert_eq!(is_same(&address(&server), &port(&other)).await, Some(false));
        let gone = Address { address: MysqlAddress::Socket("/nonexistent".into()), ..address(&server) };
        assert_eq!(is_same(&gone, &address(&server)).await, None);
    }
}

/// A peer that dies without a word is noticed by the kernel's own questions.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_silent_connection_is_kept_alive_by_the_kernel() {
    let server = Server::mariadb();
    let to = Address {
        address: MysqlAddress::Tcp { host: "127.0.0.1".to_owned(), port: server.port() },
        user: "bkp".to_owned(),
        password: Some(Secret::new("bkp".to_owned())),
        tls: Tls { mode: TlsMode::Off, ca_file: None },
        network: Network::default(),
    };
    let _conn = to.connect().await.unwrap();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to_server = format!(":{:04X}", server.port());
    let ours: Vec<&str> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[2].ends_with(&to_server) && fields[3] == "01")
        .map(|fields| fields[5])
        .collect();
    // The kind of the timer comes first: 02 is keepalive.
    assert!(!ours.is_empty() && ours.iter().all(|timer| timer.starts_with("02")), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_table_with_a_directory_of_its_own_stays_inside_a_sandbox() {
    for product in BOTH {
        let outside = tempfile::tempdir().unwrap();
        std::fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let body = "  `id` int NOT NULL,\n  PRIMARY KEY (`id`)";
        let dump = Dump::new(product).table("far", body, &[("id", None)], &["id"]).chunk("far", "1\n", 1);
        let dump = dump.table_option("far", &format!("DATA DIRECTORY='{}'", outside.path().display())).open();
        let program = program(if product == Product::MariaDb { "MARIADBD" } else { "MYSQLD" });
        let plan = SandboxPlan { program: Some(program), ..SandboxPlan::for_dump(dump.manifest()) };
        let sandbox = Sandbox::start(&plan, &Run::silent()).await.unwrap();
        let server = sandbox.server();
        let state = inspect(&server, &CancellationToken::new()).await.unwrap();
        let plan =
            LoadPlan::new(dump.manifest(), &Selection { accounts: false, ..Selection::everything() }, &state, false)
                .unwrap();
        let loaded = load(&plan, dump, &server, options(), &Run::silent()).await.unwrap();
        assert!(loaded.failed.is_empty() && loaded.rows == 1, "{product:?}: {:?}", loaded.failed);
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "{product:?}");
        sandbox.stop().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_deadlock_costs_a_second_try_and_no_row() {
    for product in BOTH {
        let dump = Dump::new(product).numbers("plain", 2, 1_000).open();
        let server = Server::start(product, &["--innodb-lock-wait-timeout=20"]);
        server.execute("CREATE DATABASE other; CREATE TABLE other.weight (id INT PRIMARY KEY, w INT)");
        let gate = Gate::before_chunk(dump, "shop/plain/1.tsv");

        let run = Run::silent();
        let (loaded, ()) = tokio::join!(bring(&server, gate.clone(), &run), async {
            gate.reached().await;
            let mut rival = server.connect().await;
            dumps::run(&mut rival, "SET sql_log_bin = 0").await;
            dumps::run(&mut rival, "START TRANSACTION").await;
            // InnoDB gives up the lighter of two: the rival has more to lose.
            let many = (0..4_000).map(|id| format!("({id}, 0)")).collect::<Vec<_>>().join(",");
            dumps::run(&mut rival, &format!("INSERT INTO other.weight VALUES {many}")).await;
            dumps::run(&mut rival, "INSERT INTO shop.plain VALUES (1500, 'rival')").await;
            gate.open();
            let waits = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
            readers::until(|| server.value(waits) == "1").await;
            dumps::run(&mut rival, "INSERT INTO shop.plain VALUES (1100, 'rival')").await;
            dumps::run(&mut rival, "ROLLBACK").await;
        });

        assert_eq!(loaded.unwrap().retries, 1);
        dumps::assert_numbers(&server, "plain", 2_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_value_that_does_not_fit_is_an_error_and_its_chunk_stays_out() {
    for product in BOTH {
        let dump = Dump::new(product).numbers("plain", 2, 10).chunk(
            "plain",
            "2000\tfar longer than forty characters, which is all it takes\n",
            1,
        );
        let server = Server::start(product, &[]);

        let failed = bring(&server, dump.open(), &Run::silent()).await.unwrap().failed;

        assert!(
            matches!(&failed[..], [Failed { error: LoadError::Warnings { count: 1, path, first, .. }, what, .. }]
                if path == "shop/plain/2.tsv" && what == "table `shop`.`plain`" && first.ends_with("(1265)")),
            "{failed:?}"
        );
        assert_eq!(server.value("SELECT COUNT(*) FROM shop.plain WHERE id >= 2000"), "0");
        assert!(plan(&server, &dump.open(), false).await.unwrap().resumes);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn an_enums_error_value_comes_back_and_a_word_that_is_no_member_is_an_error() {
    for product in BOTH {
        let body = "  `id` int NOT NULL,\n  `kind` enum('a','b') DEFAULT NULL,\n  PRIMARY KEY (`id`)";
        let dump = || {
            let table = Dump::new(product).table("kinds", body, &[("id", None), ("kind", None)], &["id"]);
            table.typed("kind", "enum('a','b')").chunk("kinds", "1\t\n2\tb\n3\t\\N\n4\t\n", 4)
        };
        let server = Server::start(product, &[]);
        bring(&server, dump().open(), &Run::silent()).await.unwrap();
        let kinds = server.value("SELECT GROUP_CONCAT(COALESCE(kind + 0, 'null') ORDER BY id) FROM shop.kinds");
        assert_eq!(kinds, "0,2,null,0", "{product:?}");

        let server = Server::start(product, &[]);
        let mixed = dump().chunk("kinds", "5\t\n6\tc\n", 2).open();
        let failed = bring(&server, mixed, &Run::silent()).await.unwrap().failed;
        assert!(matches!(&failed[..], [Failed { error: LoadError::Warnings { count: 2, .. }, .. }]), "{failed:?}");
        assert_eq!(server.value("SELECT COUNT(*) FROM shop.kinds"), "4");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_row_that_comes_twice_is_an_error() {
    for product in BOTH {
        let dump = Dump::new(product).numbers("plain", 1, 10).chunk("plain", "3\tagain\n", 1).open();
        let server = Server::start(product, &[]);
        let failed = bring(&server, dump, &Run::silent()).await.unwrap().failed;
        let error = &failed[0].error;
        assert!(
            matches!(error, LoadError::Warnings { .. } | LoadError::Rows { .. } | LoadError::RowCount { .. }),
            "{error:?}"
        );
        // Two connections load one chunk each: the first to come stays whole, and of the other nothing.
        let rows = server.value("SELECT CONCAT(COUNT(*), ' of which again: ', SUM(word = 'again')) FROM shop.plain");
        assert!(["10 of which again: 0", "1 of which again: 1"].contains(&rows.as_str()), "{rows}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn fewer_rows_than_the_manifest_says_are_an_error() {
    let dump = Dump::new(Product::MariaDb).numbers("plain", 1, 10).chunk("plain", "100\tone\n", 2).open();
    let server = Server::mariadb();
    let failed = bring(&server, dump, &Run::silent()).await.unwrap().failed;
    let is_short = matches!(&failed[..], [Failed { error: LoadError::RowCount { expected: 2, taken: 1, .. }, .. }]);
    assert!(is_short, "{failed:?}");
    dumps::assert_numbers(&server, "plain", 10);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_damaged_row_file_is_never_committed() {
    for product in BOTH {
        let dump = Dump::new(product).numbers("plain", 3, 1_000);
        dump.damage("shop/plain/1.tsv");
        let server = Server::start(product, &[]);
        let failed = bring(&server, dump.open(), &Run::silent()).await.unwrap().failed;
        assert!(failed[0].error.is_damage(), "{failed:?}");
        assert_eq!(server.value("SELECT COUNT(*) FROM shop.plain WHERE id BETWEEN 1000 AND 1999"), "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_target_that_is_not_empty_is_refused_until_it_may_be_overwritten() {
    let dump = Dump::new(Product::MariaDb).numbers("plain", 1, 10).open();
    let server = Server::mariadb();
    server.execute("CREATE DATABASE shop; CREATE VIEW shop.plain AS SELECT 1 AS one; CREATE TABLE shop.kept (a INT)");

    let error = plan(&server, &dump, false).await.unwrap_err();
    assert!(error.to_string().ends_with("it holds view `shop`.`plain`"), "{error}");

    let plan = plan(&server, &dump, true).await.unwrap();
    load(&plan, dump, &address(&server), options(), &Run::silent()).await.unwrap();
    dumps::assert_numbers(&server, "plain", 10);
    assert_eq!(server.value("SELECT COUNT(*) FROM shop.kept"), "0");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_target_in_the_middle_of_another_load_is_refused() {
    let (one, other) =
        (Dump::new(Product::MariaDb).numbers("plain", 2, 10), Dump::new(Product::MariaDb).numbers("other", 2, 10));
    let server = Server::mariadb();
    let gate = Gate::after_chunks(one.open(), 1);
    let run = Run::silent();
    let plan_of_two = plan(&server, &other.open(), false).await.unwrap();
    let (stopped, ()) = tokio::join!(bring(&server, gate.clone(), &run), async {
        gate.reached().await;
        let busy = load(&plan_of_two, other.open(), &address(&server), options(), &Run::silent()).await;
        assert!(matches!(busy, Err(LoadError::Busy)), "{busy:?}");
        run.cancel.cancel();
    });
    assert!(matches!(stopped, Err(LoadError::Stopped)));

    assert!(matches!(plan(&server, &other.open(), false).await, Err(LoadError::OtherLoad { .. })));
    let anew = plan(&server, &other.open(), true).await.unwrap();
    assert!(!anew.resumes);
    load(&anew, other.open(), &address(&server), options(), &Run::silent()).await.unwrap();
    dumps::assert_numbers(&server, "other", 20);
    assert_tidy(&server);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_table_without_transactions_starts_over_after_an_interruption() {
    let dump = Dump::new(Product::MariaDb).engine("MyISAM").numbers("plain", 4, 50_000).open();
    let server = Server::mariadb();
    let gate = Gate::within_chunk(dump.clone(), "shop/plain/2.tsv");
    let run = Run::silent();
    let (stopped, ()) = tokio::join!(bring(&server, gate.clone(), &run), async {
        gate.reached().await;
        run.cancel.cancel();
    });
    assert!(matches!(stopped, Err(LoadError::Stopped)));
    assert_ne!(server.value("SELECT COUNT(*) FROM shop.plain"), "0");

    bring(&server, dump, &Run::silent()).await.unwrap();
    dumps::assert_numbers(&server, "plain", 200_000);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn selected_tables_come_with_their_triggers_and_nothing_else() {
    let dump = dumps::torture(Product::MariaDb).open();
    let server = Server::mariadb();
    let selection = Selection {
        tables: Some(vec![("shop".to_owned(), "orders".to_owned()), ("shop".to_owned(), "log".to_owned())]),
        ..Selection::everything()
    };
    let state = inspect(&address(&server), &CancellationToken::new()).await.unwrap();
    let plan = LoadPlan::new(dump.manifest(), &selection, &state, false).unwrap();
    let loaded = load(&plan, dump, &address(&server), options(), &Run::silent()).await.unwrap();

    assert_eq!((loaded.tables, loaded.objects), (2, 1));
    assert_eq!(
        server.value(
            "SELECT GROUP_CONCAT(table_name ORDER BY 1) FROM information_schema.tables WHERE table_schema = 'shop'"
        ),
        "log,orders"
    );
    assert_eq!(server.value("SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = 'shop'"), "1");
    assert_eq!(server.value("SELECT COUNT(*) FROM mysql.user WHERE user = 'clerk'"), "0");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn an_object_that_the_target_refuses_is_named_and_the_rest_comes() {
    let dump = Dump::new(Product::MariaDb)
        .numbers("plain", 1, 10)
        .object(ObjectKind::View, Some("shop"), None, "broken", &["CREATE VIEW broken AS SELECT * FROM gone"])
        .object(ObjectKind::View, Some("shop"), None, "whole", &["CREATE VIEW whole AS SELECT * FROM plain"])
        .open();
    let server = Server::mariadb();
    let loaded = bring(&server, dump, &Run::silent()).await.unwrap();
    let failed: Vec<&str> = loaded.failed.iter().map(|failed| failed.what.as_str()).collect();
    assert_eq!(failed, ["view `shop`.`broken`"]);
    assert_eq!(server.value("SELECT COUNT(*) FROM shop.whole"), "10");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn tables_that_the_target_refuses_are_named_the_rest_comes_and_a_new_start_tries_those_again() {
    for product in BOTH {
        let unknown = "  `id` int NOT NULL,\n  `word` varchar(9) COLLATE no_such_collation,\n  PRIMARY KEY (`id`)";
        let dump = Dump::new(product)
            .numbers("plain", 3, 100)
            .numbers("narrow", 6, 100)
            .chunk("narrow", "9000\tfar longer than forty characters, which is all it takes\n", 1)
            .numbers("other", 3, 100)
            .table("foreign", unknown, &[("id", None), ("word", None)], &["id"])
            .chunk("foreign", "1\ta\n", 1)
            .object(ObjectKind::View, Some("shop"), None, "whole", &["CREATE VIEW whole AS SELECT * FROM plain"])
            .open();
        let server = Server::start(product, &[]);

        let loaded = bring(&server, dump.clone(), &Run::silent()).await.unwrap();

        let mut failed: Vec<&str> = loaded.failed.iter().map(|failed| failed.what.as_str()).collect();
        failed.sort_unstable();
        assert_eq!(failed, ["table `shop`.`foreign`", "table `shop`.`narrow`"], "{:?}", loaded.failed);
        assert_eq!((loaded.tables, loaded.objects), (2, 1));
        dumps::assert_numbers(&server, "plain", 300);
        dumps::assert_numbers(&server, "other", 300);
        assert_eq!(server.value("SELECT COUNT(*) FROM shop.whole"), "300");

        let rest = plan(&server, &dump, false).await.unwrap();
        assert!(rest.resumes && rest.objects.is_empty());
        let pending: Vec<_> = rest.tables.iter().filter(|step| !step.pending.is_empty()).collect();
        assert!(pending.iter().all(|step| ["narrow", "foreign"].contains(&&*step.table.name)), "{pending:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_schema_that_the_target_refuses_is_named_with_its_tables_and_the_rest_comes() {
    for product in BOTH {
        let dump =
            Dump::new(product).schema("CREATE DATABASE `shop` COLLATE no_such_collation").numbers("plain", 2, 10);
        let dump = dump.object(ObjectKind::User, None, None, "'clerk'@'%'", &["CREATE USER 'clerk'@'%'"]).open();
        let server = Server::start(product, &[]);
        let failed = bring(&server, dump, &Run::silent()).await.unwrap().failed;
        let what: Vec<&str> = failed.iter().map(|failed| failed.what.as_str()).collect();
        assert_eq!(what, ["schema `shop`", "table `shop`.`plain`"], "{failed:?}");
        assert_eq!(server.value("SELECT COUNT(*) FROM mysql.user WHERE user = 'clerk'"), "1");
    }
}

/// Loads what the source has dumped, and sets both servers side by side.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn all_that_the_source_dumps_comes_back_and_hashes_as_it_did_and_on_the_other_product_what_that_can_hold() {
    for product in BOTH {
        let (dir, source) = tokio::task::block_in_place(|| {
            let (dir, source) = (DirSink::new(), fixture(product));
            world::dump(&source, &dir, 20_000, None).unwrap();
            (dir, source)
        });
        let dump = Arc::new(DirDump::open(dir.path()).unwrap());
        let server = Server::start(product, &[]);

        let loaded = bring(&server, dump.clone(), &Run::silent()).await.unwrap();

        assert!(loaded.failed.is_empty(), "{product:?}: {:?}", loaded.failed);
        tokio::task::block_in_place(|| {
            let (address, run) = (address(&server), Run::silent());
            let hashes = hash_chunks(&address, dump.manifest(), None, 3, &run).unwrap();
            assert_eq!(compare(dump.manifest(), None, &hashes), [], "{product:?}");
            assert_eq!(world::tables(&source), world::tables(&server), "{product:?}");
            assert_eq!(world::objects(&source), world::objects(&server), "{product:?}");
        });
        assert_tidy(&server);
        cross::comes_back(&source, &dump).await;
    }
}
