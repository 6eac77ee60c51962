//! The mall generator itself: what other tests compare with must be right.

use crate::servers::Product;
use crate::servers::Server;
use crate::servers::mall;

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn the_same_seed_makes_the_same_mall_and_any_changed_value_shows() {
    for product in [Product::MariaDb, Product::MySql] {
        let server = Server::start(product, &[]);
        mall::fill(&server, "1MB", None);
        let first = mall::checksum(&server);
        mall::fill(&server, "1MB", None);
        assert_eq!(mall::checksum(&server), first);

        let changes = [
            ("products", "UPDATE mall.products SET rating = rating + 0.000001 WHERE rating > 0.5 LIMIT 1"),
            ("orders", "UPDATE mall.orders SET shipping = '{}' WHERE shop_id = 1 AND id = 1"),
            ("page_views", "UPDATE mall.page_views SET visitor = NULL WHERE visitor IS NOT NULL LIMIT 1"),
            ("page_views", "DELETE FROM mall.page_views LIMIT 1"),
            ("payments", "UPDATE mall.payments SET receipt = CONCAT(receipt, ' ') WHERE receipt <> '' LIMIT 1"),
            ("definitions", "CREATE OR REPLACE VIEW mall.best_customers AS SELECT 1 AS one"),
        ];
        for (name, sql) in changes {
            let before = mall::checksum(&server);
            server.execute(sql);
            let after = mall::checksum(&server);
            let differing: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
            assert_eq!(differing.len(), 1, "{sql}: {differing:?}");
            assert!(differing[0].starts_with(&format!("{name} ")), "{sql}: {differing:?}");
        }
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_busy_mall_names_no_image_that_is_not_there() {
    let server = Server::mariadb();
    let dir = tempfile::tempdir().unwrap();
    mall::fill(&server, "1MB", Some((dir.path(), 100)));
    mall::change(&server, 0.1, Some(dir.path()));
    let busy = mall::Busy::start(&server, Some(dir.path()));
    let orders = || server.value("SELECT COUNT(*) FROM mall.orders").parse::<u64>().unwrap();
    let before = orders();
    while orders() < before + 50 {
        for row in server.query("SELECT path FROM mall.product_images") {
            let path = row[0].as_ref().unwrap();
            assert!(dir.path().join(path).is_file(), "{path}");
        }
    }
    assert!(busy.stop().starts_with("committed "));
    let files = mall::checksum_of_files(dir.path());
    let images = server.value("SELECT COUNT(*) FROM mall.product_images");
    let named = files.iter().filter(|line| line.contains(".jpg ")).count();
    assert_eq!(named.to_string(), images);
}
