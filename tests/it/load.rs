//! A dump goes into real servers: whole, interrupted at any moment, and refused where it does not fit.

mod dumps;
mod readers;

use std::sync::Arc;

use bkp::mysql::manifest::ObjectKind;
use bkp::mysql::server::Server as Address;
use bkp::policy::{MysqlAddress, Network, Tls};
use bkp::run::Run;
use bkp::source::mysql::hash_chunks;
use bkp::target::mysql::plan::Selection;
use bkp::target::mysql::{
    DirDump, DumpReader, Failed, LoadError, LoadOptions, LoadPlan, Loaded, compare, inspect, load,
};

use tokio_util::sync::CancellationToken;

use crate::dump::world::DirSink;
use crate::dump::{fixture, world};
use crate::servers::{Product, Server};
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
    LoadOptions { connections: 3, skip_binlog: true, defer_index_bytes_min: 0 }
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
            matches!(&failed[..], [Failed { error: LoadError::Warnings { count: 1, path, .. }, what }]
                if path == "shop/plain/2.tsv" && what == "table `shop`.`plain`"),
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
        dumps::assert_numbers(&server, "plain", 10);
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
        accounts: true,
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

/// Loads what the source has dumped, and sets both servers side by side.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn all_that_the_source_dumps_comes_back_and_hashes_as_it_did() {
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
    }
}
