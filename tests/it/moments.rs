//! A random history on a real server is restored to its moments: by itself, or on from the one before.
//!
//! `BKP_TEST_MOMENTS` says how many, `BKP_TEST_SEED` which history; the oracle is what the source held at each.

mod history;

use std::fmt::Write as _;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::moments::history::History;
use crate::replay::{empty, here, is_tidy, last_gtid, state};
use crate::servers::{Product, Server};
use crate::world::World;

/// What a source held when nobody wrote.
struct Moment {
    /// Two ways to say it.
    points: [String; 2],
    sums: Vec<Vec<Option<String>>>,
    /// The rows of the tables whose rows are small, to show what differs.
    small: Vec<String>,
    definitions: String,
}

impl Moment {
    fn of(source: &Server) -> Self {
        let place = here(source).position;
        let points = [format!("position:{}:{}", place.file, place.offset), format!("gtid:{}", last_gtid(source))];
        Self { points, sums: sums(source), small: small(source), definitions: definitions(source) }
    }

    #[track_caller]
    fn assert_is(&self, target: &Server, told: &str) {
        assert_eq!(definitions(target), self.definitions, "{told}");
        let found = small(target);
        let lacks: Vec<&String> = self.small.iter().filter(|row| !found.contains(row)).collect();
        let beside: Vec<&String> = found.iter().filter(|row| !self.small.contains(row)).collect();
        assert!(lacks.is_empty() && beside.is_empty(), "{told}: lacks {lacks:#?}, has beside {beside:#?}");
        assert_eq!((found.len(), sums(target)), (self.small.len(), self.sums.clone()), "{told}");
        assert!(is_tidy(target), "{told}");
    }
}

/// The checksum of every table but one: MariaDB's differs between two tables of the same rows with a STORED column.
fn sums(server: &Server) -> Vec<Vec<Option<String>>> {
    state(server).into_iter().filter(|row| row[0].as_deref() != Some("mall.baskets")).collect()
}

fn small(server: &Server) -> Vec<String> {
    let tables = ["customers", "baskets", "lines", "log", "keyless", "loose"];
    let rows = |table: &&str| {
        let rows = server.query(&format!("SELECT * FROM mall.`{table}` ORDER BY 1, 2"));
        rows.into_iter().map(|row| format!("{table} {row:?}")).collect::<Vec<_>>()
    };
    tables.iter().flat_map(rows).collect()
}

/// What every table, view and routine of the mall is, and who may come in.
fn definitions(server: &Server) -> String {
    let mut text = String::new();
    let tables = "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'mall' ORDER BY 1";
    for table in server.query(tables) {
        let name = table[0].clone().unwrap();
        let shown = server.query(&format!("SHOW CREATE TABLE mall.`{name}`")).remove(0)[1].clone().unwrap();
        // The next number of a row: what was rolled back has taken some on the source alone.
        let lines = shown.lines().map(|line| match line.split_once(" AUTO_INCREMENT=") {
            Some((before, after)) => format!("{before} {}", after.split_once(' ').map_or("", |(_, rest)| rest)),
            None => line.to_owned(),
        });
        writeln!(text, "{}", lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    for what in [
        "SELECT routine_name FROM information_schema.routines WHERE routine_schema = 'mall' ORDER BY 1",
        "SELECT user FROM mysql.user WHERE user LIKE 'u%' ORDER BY 1",
    ] {
        writeln!(text, "{:?}", server.query(what)).unwrap();
    }
    text
}

fn wanted() -> usize {
    std::env::var("BKP_TEST_MOMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

fn seed() -> u64 {
    let given = std::env::var("BKP_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into());
    println!("BKP_TEST_SEED={seed}");
    seed
}

/// `by`: the way in which the binlogs come; no session can bring what is prepared.
fn a_history_comes_back_at_each_of_its_moments(product: Product, by: &str) {
    let seed = seed();
    let mut random = SmallRng::seed_from_u64(seed);
    let world = World::ready(product);
    world.write_policy("\n[mysql.db1.binlog]\ncapture = true\n");
    let policy = world.path("policies/mall.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, text.replace("connections = 3", "connections = 3\nnon_transactional = \"lock\"")).unwrap();
    let source = &world.source;
    let mut history = History::begin(source, random.random(), by == "replica");
    history.go_on();
    // A transaction that is prepared while the dump is taken is in neither.
    history.end_prepared();
    // The dump is taken in the midst of it.
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| history.write());
        world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
        writing.join().unwrap();
    });
    history.go_on();
    let mut moments = Vec::new();
    while moments.len() < wanted() {
        moments.push(Moment::of(source));
        history.go_on();
        if random.random_bool(0.5) {
            world.bkp(&["binlog", "capture", "mall"]).expect(0);
        }
    }
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    history.assert_lively();

    let target = Server::start(product, &[]);
    let alone = random.random_range(0..moments.len());
    for (nth, moment) in moments.iter().enumerate() {
        // Each goes on from the one before; one begins anew.
        let begins = nth == 0 || nth == alone;
        if begins {
            forget(&target);
        }
        let point = &moment.points[random.random_range(0..2)];
        let mut args = vec!["--source", "db1", "--yes", "--replay-by", by, "--point-in-time", point];
        args.extend((!begins).then_some("--go-further"));
        world.restore_into(&target, &args).expect(0);
        let told = format!("BKP_TEST_SEED={seed}, moment {nth}, {point}");
        moment.assert_is(&target, &told);
    }
}

/// Makes a target as new.
fn forget(target: &Server) {
    for prepared in target.query("XA RECOVER") {
        target.execute(&format!("XA ROLLBACK '{}'", prepared[3].clone().unwrap()));
    }
    for user in target.query("SELECT user FROM mysql.user WHERE user LIKE 'u%' AND host = 'localhost'") {
        target.execute(&format!("DROP USER '{}'@'localhost'", user[0].clone().unwrap()));
    }
    empty(target);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_history_on_mysql_comes_back_at_each_of_its_moments() {
    a_history_comes_back_at_each_of_its_moments(Product::MySql, "replica");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_history_on_mariadb_comes_back_at_each_of_its_moments() {
    a_history_comes_back_at_each_of_its_moments(Product::MariaDb, "replica");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_history_on_mysql_comes_back_by_one_session() {
    a_history_comes_back_at_each_of_its_moments(Product::MySql, "session");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_history_on_mariadb_comes_back_by_one_session() {
    a_history_comes_back_at_each_of_its_moments(Product::MariaDb, "session");
}
