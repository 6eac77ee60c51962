//! Drills of databases whose binlogs are captured: what came after the dump comes back, too.

use std::time::Duration;

use serde_json::Value;

use crate::servers::{Product, Server, program};
use crate::world::World;

fn phase<'a>(drill: &'a Value, name: &str) -> &'a Value {
    let phases = drill["steps"][0]["result"]["outcome"]["phases"].as_array().unwrap();
    phases.iter().find(|phase| phase["name"] == name).unwrap_or(&Value::Null)
}

fn check<'a>(drill: &'a Value, name: &str) -> &'a Value {
    let checks = drill["steps"][0]["result"]["outcome"]["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or(&Value::Null)
}

/// MariaDB's times are whole seconds.
fn pass_a_second() {
    std::thread::sleep(Duration::from_millis(1_100));
}

/// Makes a zone known by name, as `mysql_tzinfo_to_sql` would, and an event in it.
fn set_up_in_seoul(source: &Server) {
    source.execute(
        "INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (77, 'N'); \
         INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('Asia/Seoul', 77); \
         INSERT INTO mysql.time_zone_transition_type VALUES (77, 0, 32400, 0, 'KST')",
    );
    source.execute("SET time_zone = 'Asia/Seoul'; CREATE EVENT mall.nightly ON SCHEDULE EVERY 1 DAY DO DO 1");
}

fn a_drill_brings_back_what_came_after_the_dump(product: Product) {
    let world = World::ready(product);
    set_up_in_seoul(&world.source);
    let mysqld = program("MYSQLD").display().to_string();
    world.write_policy(&format!("sandbox = {{ mysqld = \"{mysqld}\" }}\n[mysql.db1.binlog]\ncapture = true\n"));
    let policy = world.path("policies/mall.toml");
    // Without the binlogs, two orders are missing.
    let wanted =
        std::fs::read_to_string(&policy).unwrap().replace("mall.orders\", min = 1 ", "mall.orders\", min = 1502 ");
    std::fs::write(&policy, wanted).unwrap();
    world.bkp(&["backup", "mall"]).expect(0);
    let bare = world.bkp(&["drill", "mall", "--json"]).expect(16).json();
    assert_eq!(check(&bare, "db1: binlogs replayed")["found"], "nothing was captured", "{bare}");

    pass_a_second();
    world.order(1, 5_000, 1);
    world.order(2, 5_000, 1);
    // The binlog names the zone: the default is an hour in it.
    world.source.execute(
        "SET time_zone = 'Asia/Seoul'; CREATE TABLE mall.opened (id INT PRIMARY KEY, at TIMESTAMP DEFAULT '2026-01-01 09:00:00')",
    );
    world.bkp(&["backup", "mall", "--source", "images", "--no-copy"]).expect(0);
    pass_a_second();
    let moment = chrono::Utc::now().to_rfc3339();
    pass_a_second();
    world.source.execute("DROP TABLE mall.orders");
    world.bkp(&["binlog", "capture", "mall"]).expect(0);

    let lost = world.bkp(&["drill", "mall", "--json"]).expect(3).json();
    assert_eq!(phase(&lost, "replay")["transactions"], 4, "{lost}");
    assert_eq!(check(&lost, "db1: binlogs replayed")["result"], "pass", "{lost}");
    assert_eq!(check(&lost, "db1: every row as dumped")["result"], "pass", "{lost}");
    // The table was dropped before all was lost.
    assert_eq!(check(&lost, "SELECT COUNT(*) FROM mall.orders")["result"], "not-run", "{lost}");

    let mistake = world.bkp(&["drill", "mall", "--point-in-time", &moment, "--json"]).expect(0).json();
    assert_eq!(phase(&mistake, "replay")["transactions"], 3, "{mistake}");
    let outcome = &mistake["steps"][0]["result"]["outcome"];
    assert_eq!(outcome["scenario"]["what"], "mistake", "{mistake}");
    let kinds: Vec<&str> =
        outcome["snapshots"].as_array().unwrap().iter().filter_map(|one| one["kind"].as_str()).collect();
    assert!(kinds.contains(&"binlog"), "{mistake}");
    // The database loses nothing; the images are as old as their snapshot.
    let images = outcome["snapshots"].as_array().unwrap().iter().find(|one| one["kind"] == "files").unwrap();
    let since = moment.parse::<chrono::DateTime<chrono::Utc>>().unwrap()
        - images["time"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(outcome["rpa_ms"].as_i64().unwrap(), since.num_milliseconds(), "{mistake}");
    let told = world.bkp(&["report", "mall"]).expect(0);
    assert!(told.out.contains("a mistake at") && told.out.contains("3 transactions"), "{told:?}");
    if product == Product::MariaDb {
        a_standby_is_set_beside_the_restore(&world);
    }
    let late = world.bkp(&["drill", "mall", "--point-in-time", "2099-01-01"]).expect(2);
    assert!(late.err.contains("has not come yet"), "{late:?}");
}

fn a_standby_is_set_beside_the_restore(world: &World) {
    let drilled = world.bkp(&["drill", "mall", "--standby", "--json"]).expect(3).json();
    let outcome = &drilled["steps"][0]["result"]["outcome"];
    assert_eq!(outcome["scenario"]["what"], "standby", "{drilled}");
    assert_eq!(check(&drilled, "db1: a standby follows and takes over")["result"], "pass", "{drilled}");
    let standby = &outcome["standbys"][0];
    let [ready, downtime, rpa] = ["ready_ms", "downtime_ms", "rpa_ms"].map(|name| standby[name].as_u64().unwrap());
    assert!(downtime < 10_000 && downtime < ready, "{drilled}");
    // The capture was last asked before the drill began.
    assert!(rpa > ready, "{drilled}");
    assert_eq!(phase(&drilled, "replay")["transactions"], 4, "the restore is measured as ever");
    let told = world.bkp(&["report", "mall"]).expect(0);
    assert!(told.out.contains("standby of db1: promoted in"), "{told:?}");
    std::fs::remove_dir_all(world.path("state/binlog")).unwrap();
    let absent = world.bkp(&["drill", "mall", "--standby", "--json"]).expect(3).json();
    assert_eq!(check(&absent, "db1: a standby follows and takes over")["result"], "not-run", "{absent}");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_drill_of_mysql_brings_back_what_came_after_the_dump() {
    a_drill_brings_back_what_came_after_the_dump(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_drill_of_mariadb_brings_back_what_came_after_the_dump() {
    a_drill_brings_back_what_came_after_the_dump(Product::MariaDb);
}
