//! Foreign keys are looked at after a load that was asked to.

use std::collections::BTreeSet;

use bkp::run::Run;
use bkp::target::mysql::check_foreign_keys;

use super::dumps::Dump;
use super::{BOTH, address, assert_tidy, bring};
use crate::servers::{Product, Server};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn rows_that_point_to_nothing_are_counted_by_table_and_key() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        server.execute(
            "CREATE DATABASE shop; CREATE DATABASE `o'ther`; USE shop;
             CREATE TABLE shops (id INT NOT NULL, kind INT NOT NULL, PRIMARY KEY (id, kind));
             CREATE TABLE gone (id INT PRIMARY KEY);
             CREATE TABLE orders (id INT PRIMARY KEY, shop INT, kind INT, g INT, above INT,
               CONSTRAINT of_shop FOREIGN KEY (shop, kind) REFERENCES shops (id, kind),
               CONSTRAINT of_gone FOREIGN KEY (g) REFERENCES gone (id),
               CONSTRAINT of_order FOREIGN KEY (above) REFERENCES orders (id));
             CREATE TABLE `o'ther`.notes (id INT PRIMARY KEY, o INT, CONSTRAINT `of.order` FOREIGN KEY (o) REFERENCES shop.orders (id));
             INSERT INTO shops VALUES (1, 1), (2, 2);",
        );
        let tables = [("shop", "shops"), ("shop", "orders"), ("o'ther", "notes")];
        let tables: BTreeSet<_> = tables.map(|(schema, name)| (schema.to_owned(), name.to_owned())).into();
        let told = async || -> Vec<String> {
            let check = check_foreign_keys(&address(&server), &tables, &Run::silent()).await.unwrap();
            assert_eq!(check.keys, 4, "{product:?}");
            check.orphans.iter().map(ToString::to_string).collect()
        };
        server.execute("INSERT INTO shop.orders VALUES (1, 1, 1, NULL, NULL), (2, NULL, 9, NULL, 1)");
        assert_eq!(told().await, [""; 0], "{product:?}");

        server.execute(
            "SET foreign_key_checks = 0; INSERT INTO shop.orders VALUES (3, 1, 2, 7, 4), (4, 2, 1, 8, 99);
             INSERT INTO `o'ther`.notes VALUES (1, 1), (2, 77); DROP TABLE shop.gone",
        );
        let expected = [
            "`o'ther`.`notes`: 1 rows point by `of.order` to no row of `shop`.`orders`",
            "`shop`.`orders`: 2 rows point by `of_gone` to no row of `shop`.`gone`",
            "`shop`.`orders`: 1 rows point by `of_order` to no row of `shop`.`orders`",
            "`shop`.`orders`: 2 rows point by `of_shop` to no row of `shop`.`shops`",
        ];
        assert_eq!(told().await, expected, "{product:?}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_restore_tells_of_rows_that_pointed_to_nothing_in_the_source() {
    for product in BOTH {
        let world = World::ready(product);
        world.source.execute(
            "CREATE TABLE mall.Refunds (id INT PRIMARY KEY, shop INT, CONSTRAINT to_shop FOREIGN KEY (shop) REFERENCES mall.shops (id))",
        );
        world.write_policy("\n[restore]\nfirst = [\"mall.shops\", \"mall.gone\"]\n");
        let backup = || world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
        // MySQL decides for good when a data directory is made.
        let folds = if product == Product::MariaDb { &["--lower-case-table-names=1"][..] } else { &[] };
        let restore = || {
            let target = Server::start(product, folds);
            world.restore_into(&target, &["--source", "db1", "--yes", "--verify", "--check-foreign-keys"])
        };
        backup();
        let whole = restore().expect(0);
        let said = "1 foreign key checked: every row of the tables that came whole points to a row that is there";
        assert!(whole.out.contains(said), "{}", whole.out);
        assert!(whole.err.contains("`mall.gone` is to come first, and the dump holds no such table"), "{}", whole.err);
        let first = |line: &str| line.contains("time to first order") && line.ends_with(": `mall`.`shops`");
        assert!(whole.out.lines().any(first), "{}", whole.out);
        world.source.execute("SET foreign_key_checks = 0; INSERT INTO mall.Refunds VALUES (1, 1), (2, 404)");
        backup();
        let orphaned = restore().expect(3);
        let name = if folds.is_empty() { "Refunds" } else { "refunds" };
        let said = format!("`mall`.`{name}`: 1 rows point by `to_shop` to no row of `mall`.`shops`");
        assert!(orphaned.out.contains(&said) && orphaned.out.contains("verified"), "{}", orphaned.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn keys_that_wait_for_their_indexes_come_at_the_end_and_at_the_next_try() {
    let key = "CONSTRAINT `of_order` FOREIGN KEY (`shop`, `of`) REFERENCES `orders` (`shop`, `id`) ON DELETE CASCADE";
    for product in BOTH {
        let columns = "  `shop` int NOT NULL,\n  `id` int NOT NULL,\n";
        let orders = format!("{columns}  PRIMARY KEY (`shop`,`id`)");
        let items = format!(
            "{columns}  `of` int DEFAULT NULL,\n  PRIMARY KEY (`shop`,`id`),\n  KEY `of_order` (`shop`,`of`),\n  {key}"
        );
        let (pair, all) = ([("shop", None), ("id", None)], [("shop", None), ("id", None), ("of", None)]);
        let dump = Dump::new(product)
            .table("orders", &orders, &pair, &["shop", "id"])
            .chunk("orders", "1\t1\n2\t1\n", 2)
            .table("items", &items, &all, &["shop", "id"])
            .chunk("items", "1\t1\t1\n1\t2\t\\N\n2\t1\t77\n", 3)
            .open();
        let server = Server::start(product, &[]);
        // Somebody else's key of that name: no two of a schema may share one.
        server.execute(
            "CREATE DATABASE shop; CREATE TABLE shop.other (id INT PRIMARY KEY, up INT, CONSTRAINT of_order FOREIGN KEY (up) REFERENCES shop.other (id))",
        );
        let told = bring(&server, dump.clone(), &Run::silent()).await.unwrap();
        let [failed] = &told.failed[..] else { panic!("{product:?}: {:?}", told.failed) };
        assert!(failed.error.to_string().starts_with("add the foreign keys of `shop`.`items`"), "{:?}", failed.error);
        assert_eq!(server.value("SELECT COUNT(*) FROM shop.items"), "3", "{product:?}: the rows are there");

        server.execute("DROP TABLE shop.other");
        let whole = bring(&server, dump, &Run::silent()).await.unwrap();
        assert!(whole.failed.is_empty(), "{product:?}: {:?}", whole.failed);
        let shown = server.query("SHOW CREATE TABLE shop.items")[0][1].clone().unwrap();
        let asked = key.replace("`shop`, `of`", "`shop`,`of`").replace("`shop`, `id`", "`shop`,`id`");
        let shown = shown.replace("`shop`, `of`", "`shop`,`of`").replace("`shop`, `id`", "`shop`,`id`");
        assert!(shown.contains(&asked) && shown.contains("KEY `of_order` (`shop`,`of`)"), "{product:?}: {shown}");
        assert_tidy(&server);
    }
}
