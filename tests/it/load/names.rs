//! What comes back under another name, beside what is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use bkp::run::Run;
use bkp::target::mysql::plan::{Names, Selection};
use bkp::target::mysql::{DirDump, DumpReader, LoadError, LoadPlan, inspect, load};
use tokio_util::sync::CancellationToken;

use super::{BOTH, address, assert_tidy, bring, dumps, options};
use crate::servers::{Product, Server};
use crate::world::{World, rows};

fn pair(schema: &str, name: &str) -> (String, String) {
    (schema.to_owned(), name.to_owned())
}

/// Loads a selection.
async fn bring_as(server: &Server, dump: Arc<DirDump>, selection: &Selection) {
    let state = inspect(&address(server), &CancellationToken::new()).await.unwrap();
    let plan = LoadPlan::new(dump.manifest(), selection, &state, false).unwrap();
    let loaded = load(&plan, dump.clone(), &address(server), options(), &Run::silent()).await.unwrap();
    assert!(loaded.failed.is_empty(), "{:?}", loaded.failed);
    assert_tidy(server);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_table_comes_back_beside_the_one_that_is_there_and_nothing_binds_it_to_that() {
    for product in BOTH {
        let dump = dumps::torture(product).open();
        let server = Server::start(product, &[]);
        bring(&server, dump.clone(), &Run::silent()).await.unwrap();
        server.execute("DELETE FROM shop.`lines` WHERE n = 2");
        for (table, given) in [("lines", pair("shop", "lines_restored")), ("orders", pair("shop_old", "or`ders"))] {
            let names = Names { table: Some((pair("shop", table), given)), schemas: BTreeMap::new() };
            let selection = Selection { tables: Some(vec![pair("shop", table)]), names, ..Selection::everything() };
            bring_as(&server, dump.clone(), &selection).await;
        }
        let count = |table: &str| server.value(&format!("SELECT COUNT(*) FROM {table}"));
        assert_eq!(
            (count("shop.lines_restored"), count("shop.`lines`")),
            ("4".to_owned(), "3".to_owned()),
            "{product:?}"
        );
        let bound = "SELECT GROUP_CONCAT(CONSTRAINT_NAME) FROM information_schema.REFERENTIAL_CONSTRAINTS";
        assert_eq!(server.value(bound), "of_order", "{product:?}");
        let triggers = "SELECT GROUP_CONCAT(TRIGGER_SCHEMA, ' ', EVENT_OBJECT_TABLE) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA LIKE 'shop%'";
        assert_eq!(server.value(triggers), "shop orders", "{product:?}");
        let indexes = "SELECT GROUP_CONCAT(DISTINCT index_name ORDER BY 1) FROM information_schema.statistics WHERE table_schema = 'shop_old'";
        assert_eq!(server.value(indexes), "by_amount,by_note,PRIMARY", "{product:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_schema_comes_back_beside_the_one_that_is_there_with_its_foreign_keys_inside() {
    for product in BOTH {
        let dump = dumps::torture(product).open();
        let server = Server::start(product, &[]);
        bring(&server, dump.clone(), &Run::silent()).await.unwrap();
        let names = Names { table: None, schemas: BTreeMap::from([pair("shop", "shop.old")]) };
        bring_as(&server, dump, &Selection { accounts: false, names, ..Selection::everything() }).await;

        let kinds = |schema: &str| {
            server.query(&format!(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = '{schema}' AND table_type = 'BASE TABLE' ORDER BY 1"
            ))
        };
        assert_eq!(kinds("shop.old"), kinds("shop"), "{product:?}");
        let referenced = "SELECT GROUP_CONCAT(UNIQUE_CONSTRAINT_SCHEMA, ' ', CONSTRAINT_NAME) FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = 'shop.old'";
        assert_eq!(server.value(referenced), "shop.old of_order", "{product:?}");
        let collation = "SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = 'shop.old'";
        assert_eq!(server.value(collation), "utf8mb4_bin", "{product:?}");
        let others = "SELECT (SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = 'shop.old')
            + (SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = 'shop.old')
            + (SELECT COUNT(*) FROM information_schema.views WHERE table_schema = 'shop.old')";
        assert_eq!(server.value(others), "0", "{product:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_table_that_somebody_else_makes_meanwhile_is_never_ours() {
    for product in BOTH {
        let dump = dumps::torture(product).open();
        let server = Server::start(product, &[]);
        server.execute("CREATE DATABASE shop_old");
        let names = Names { table: Some((pair("shop", "lines"), pair("shop_old", "lines"))), schemas: BTreeMap::new() };
        let selection = Selection { tables: Some(vec![pair("shop", "lines")]), names, ..Selection::everything() };
        let look = async || inspect(&address(&server), &CancellationToken::new()).await.unwrap();
        let plan = LoadPlan::new(dump.manifest(), &selection, &look().await, false).unwrap();
        server.execute("CREATE TABLE shop_old.`lines` (theirs INT); INSERT INTO shop_old.`lines` VALUES (1)");
        let loaded = load(&plan, dump.clone(), &address(&server), options(), &Run::silent()).await.unwrap();
        assert_eq!(loaded.failed.len(), 1, "{product:?}: {:?}", loaded.failed);
        let again = LoadPlan::new(dump.manifest(), &selection, &look().await, false).unwrap_err();
        assert!(matches!(again, LoadError::NotEmpty { .. }), "{product:?}: {again}");
        assert_eq!(server.value("SELECT theirs FROM shop_old.`lines`"), "1", "{product:?}");
    }
}

/// As after a wrong DELETE: the lost rows are brought back beside the shop's own table, which goes on.
fn lost_rows_come_back_into_the_live_server(product: Product) {
    let world = World::ready(product);
    world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    world.source.execute("DELETE FROM mall.orders WHERE shop_id = 3");
    let before = rows(&world.source);
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let restore = |more: &[&str]| {
        let source = ["--source", "db1", "--tables", "mall.orders", "--as", "orders_restored"];
        world.restore_into(&world.source, &[&source, more].concat())
    };
    // The server is the source: also a table beside the others wants the operator's word.
    restore(&["--yes"]).expect(2);
    let planned = restore(&["--in-place", "--confirm-host", &host, "--dry-run"]).expect(0);
    assert!(planned.out.contains("`mall`.`orders` comes as `mall`.`orders_restored`"), "{}", planned.out);
    let restored = restore(&["--in-place", "--confirm-host", &host, "--yes", "--verify"]).expect(0);
    assert!(restored.out.contains("verified"), "{}", restored.out);

    let mut after = rows(&world.source);
    assert_eq!(after.remove("orders_restored").unwrap().len(), 1500);
    assert_eq!(after, before);
    world.source.execute("INSERT INTO mall.orders SELECT * FROM mall.orders_restored WHERE shop_id = 3");
    // The name is taken now.
    let taken = restore(&["--in-place", "--confirm-host", &host, "--yes"]).expect(2);
    assert!(taken.err.contains("it holds table `mall`.`orders_restored`"), "{}", taken.err);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn rows_lost_by_a_wrong_delete_come_back_beside_the_live_table_on_mariadb() {
    lost_rows_come_back_into_the_live_server(Product::MariaDb);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn rows_lost_by_a_wrong_delete_come_back_beside_the_live_table_on_mysql() {
    lost_rows_come_back_into_the_live_server(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn other_names_that_make_no_sense_are_refused() {
    let world = World::ready(Product::MariaDb);
    world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    let target = Server::mariadb();
    let cases: [(&[&str], &str); 8] = [
        (&["--tables", "mall.orders", "--as", "mall.orders"], "is the name that the table has"),
        (&["--tables", "mall.orders", "--as", "mysql.user"], "load into `mysql`"),
        (&["--rename-schema", "mall=mall"], "gives no schema another name"),
        (&["--as", "x"], "--tables"),
        (&["--tables", "mall.orders,mall.shops", "--as", "x"], "`--as` names one table"),
        (&["--tables", "mall.orders", "--as", "shops"], "load two tables as `mall`.`shops`"),
        (&["--rename-schema", "mall"], "gives no schema another name"),
        (&["--rename-schema", "maul=mall_old"], "load `maul` under another name"),
    ];
    for (more, said) in cases {
        let refused = world.restore_into(&target, &[&["--source", "db1", "--yes"], more].concat()).expect(2);
        assert!(refused.err.contains(said), "{more:?}: {}", refused.err);
    }
    world
        .restore_into(&target, &["--source", "db1", "--rename-schema", "mall=mall_old", "--yes", "--verify"])
        .expect(0);
    assert_eq!(target.value("SELECT COUNT(*) FROM mall_old.orders"), "1500");
    assert_eq!(target.value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'mall'"), "0");
}
