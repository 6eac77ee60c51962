//! Foreign keys are looked at after a load that was asked to.

use std::collections::BTreeSet;

use bkp::run::Run;
use bkp::target::mysql::orphans;

use super::{BOTH, address};
use crate::servers::Server;
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
            let found = orphans(&address(&server), &tables, &Run::silent()).await.unwrap();
            found.iter().map(ToString::to_string).collect()
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
            "CREATE TABLE mall.refunds (id INT PRIMARY KEY, shop INT, CONSTRAINT to_shop FOREIGN KEY (shop) REFERENCES mall.shops (id))",
        );
        let backup = || world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
        let restore = || {
            let target = Server::start(product, &[]);
            world.restore_into(&target, &["--source", "db1", "--yes", "--verify", "--check-foreign-keys"])
        };
        backup();
        let whole = restore().expect(0);
        assert!(whole.out.contains("every restored row points to a row that is there"), "{}", whole.out);
        world.source.execute("SET foreign_key_checks = 0; INSERT INTO mall.refunds VALUES (1, 1), (2, 404)");
        backup();
        let orphaned = restore().expect(3);
        let said = "`mall`.`refunds`: 1 rows point by `to_shop` to no row of `mall`.`shops`";
        assert!(orphaned.out.contains(said) && orphaned.out.contains("verified"), "{}", orphaned.out);
    }
}
