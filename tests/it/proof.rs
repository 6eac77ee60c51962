//! Live: a backup is proved by restoring it, and set beside its living source.

use std::fs;

use crate::cli::desk::flip;
use crate::servers::{Product, program};
use crate::world::World;

fn backed_up(product: Product) -> World {
    let world = World::ready(product);
    let (mariadbd, mysqld) = (program("MARIADBD"), program("MYSQLD"));
    let programs = format!("sandbox = {{ mariadbd = \"{}\", mysqld = \"{}\" }}", mariadbd.display(), mysqld.display());
    world.write_policy(&programs);
    world.bkp(&["backup", "mall", "--no-copy"]).expect(0);
    world
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_source_is_set_beside_its_backup_and_its_backup_restored_and_compared() {
    for product in [Product::MariaDb, Product::MySql] {
        let world = backed_up(product);
        let against = ["verify", "mall", "--against-source"];

        let equal = world.bkp(&[&against[..], &["--json"]].concat()).expect(0).json();
        let report = &equal["compared"][0]["report"];
        assert_eq!((&report["equal"], &report["unmoved"]), (&4.into(), &true.into()), "{product:?}: {report}");

        world.source.execute("SET sql_log_bin = 0; UPDATE mall.orders SET note = 'x' WHERE shop_id = 3 AND id = 7");
        let damaged = world.bkp(&against).expect(13);
        assert!(damaged.out.contains("DAMAGED") && damaged.out.contains("3 tables equal"), "{}", damaged.out);
        assert!(damaged.out.contains("changed: 1,500 rows of mall.orders, now 1,500"), "{}", damaged.out);

        let status = world.bkp(&["status", "mall", "--json"]).expect(1).json();
        assert!(status.to_string().contains("held against its source showed damage"), "{status}");

        world.order(5, 300, 1);
        world.source.execute("CREATE TABLE mall.fresh (id INT PRIMARY KEY); DROP TABLE mall.page_views");
        let moved = world.bkp(&against).expect(3);
        let lines = ["the source has moved on", "mall.orders, now 1,501", "gone: mall.page_views", "new: mall.fresh"];
        for line in lines {
            assert!(moved.out.contains(line), "{line}: {}", moved.out);
        }

        let proof = ["verify", "mall", "--level", "restore"];
        let proved = world.bkp(&[&proof[..], &["--json"]].concat()).expect(0).json();
        let result = &proved["steps"][0]["result"];
        let checks = result["checks"].as_array().unwrap();
        let kinds: Vec<&str> = checks.iter().map(|check| check["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["objects", "files", "content", "rows"], "{product:?}");
        assert!(checks.iter().all(|check| check["result"] == "pass") && result["sound"] == true, "{result}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn bytes_that_structure_does_not_read_are_found_by_a_restore_and_rest_retention() {
    let world = backed_up(Product::MariaDb);
    // Trees are small, and read by every verify: the largest pack is of rows and images.
    let dirs = fs::read_dir(world.path("repository/data")).unwrap();
    let packs = dirs.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap()).map(|pack| pack.unwrap().path());
    let pack = packs.max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    flip(&pack);
    world.bkp(&["verify", "mall"]).expect(0);
    let damaged = world.bkp(&["verify", "mall", "--level", "restore"]).expect(13);
    assert!(damaged.out.contains("FAILED"), "{}", damaged.out);
    let rests = || world.bkp(&["forget", "mall", "--dry-run"]).expect(0).out.contains("damage");
    assert!(rests());
    flip(&pack);
    world.bkp(&["verify", "mall", "--level", "restore"]).expect(0);
    assert!(rests(), "the next restore may be of other snapshots");
    world.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    assert!(!rests());
    let refused = world.bkp(&["verify", "mall", "--level", "restore", "--subset", "1/7"]).expect(2);
    assert!(refused.err.contains("`--subset` does not go with `--level restore`"), "{}", refused.err);
}
