//! A random history of a shop: several sessions at once, and everything that a binlog has a form of its own for.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::servers::{Product, Server};

/// Sessions that write beside each other.
const SESSIONS: u64 = 3;

pub(crate) struct History<'a> {
    source: &'a Server,
    random: SmallRng,
    /// Prepared transactions that wait for their end.
    prepared: Vec<String>,
    names: u64,
    prepares: bool,
    /// The kinds of action that the source has taken.
    taken: BTreeSet<u32>,
}

impl<'a> History<'a> {
    pub(crate) fn begin(source: &'a Server, seed: u64, prepares: bool) -> Self {
        source.execute("CREATE DATABASE IF NOT EXISTS mall CHARACTER SET utf8mb4");
        // No session brings a MySQL rows that cannot be taken back, nor what is prepared.
        let is_safe = !prepares && source.product() == Product::MySql;
        for definition in DEFINITIONS {
            source.execute(&if is_safe { definition.replace("MyISAM", "InnoDB") } else { definition.to_owned() });
        }
        let (random, prepared) = (SmallRng::seed_from_u64(seed), Vec::new());
        Self { source, random, prepared, names: 0, prepares, taken: BTreeSet::new() }
    }

    /// Goes on for some dozens of transactions.
    pub(crate) fn go_on(&mut self) {
        self.write();
        self.define();
        self.prepare();
    }

    /// Several sessions write.
    pub(crate) fn write(&mut self) {
        let seeds: Vec<u64> = (0..SESSIONS).map(|_| self.random.random()).collect();
        let source = self.source;
        std::thread::scope(|scope| {
            let begin = |(nth, seed)| scope.spawn(move || session(source, nth, &mut SmallRng::seed_from_u64(seed)));
            let sessions: Vec<_> = (1..).zip(seeds).map(begin).collect();
            self.taken.extend(sessions.into_iter().flat_map(|session| session.join().unwrap()));
        });
    }

    /// Proves that the source has taken every kind of action: one that it always refuses would test nothing.
    pub(crate) fn assert_lively(&self) {
        assert_eq!(self.taken, (0..KINDS).collect());
    }

    /// Ends every prepared transaction.
    pub(crate) fn end_prepared(&mut self) {
        while let Some(name) = self.prepared.pop() {
            self.source.execute(&format!("XA COMMIT '{name}'"));
        }
    }

    /// One session at a time: a definition waits for whoever uses the table.
    fn define(&mut self) {
        self.names += 1;
        let nth = self.names;
        let definition = match self.random.random_range(0..9) {
            0 => format!(
                "CREATE TABLE mall.made{nth} (id INT PRIMARY KEY, a TEXT); INSERT INTO mall.made{nth} VALUES (1, 'new')"
            ),
            1 => format!("ALTER TABLE mall.wide ADD COLUMN more{nth} VARCHAR(20) DEFAULT 'more'"),
            2 => "TRUNCATE TABLE mall.log".to_owned(),
            3 => format!("CREATE TABLE mall.copy{nth} (PRIMARY KEY (id)) AS SELECT id, name FROM mall.customers"),
            4 => format!("RENAME TABLE mall.log TO mall.log{nth}; CREATE TABLE mall.log LIKE mall.log{nth}"),
            5 => format!("CREATE OR REPLACE VIEW mall.seen AS SELECT id, {nth} AS version FROM mall.customers"),
            6 => format!(
                "CREATE USER 'u{nth}'@'localhost' IDENTIFIED BY 'pw{nth}'; GRANT SELECT ON mall.* TO 'u{nth}'@'localhost'"
            ),
            7 => format!(
                "CREATE PROCEDURE mall.p{nth}() INSERT INTO mall.log (what) VALUES ('p{nth}'); CALL mall.p{nth}()"
            ),
            _ => "FLUSH BINARY LOGS".to_owned(),
        };
        self.source.try_execute(&format!("SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 1; {definition}")).ok();
    }

    /// Prepares a transaction in one session, and ends one of before in another.
    fn prepare(&mut self) {
        if !self.prepares {
            return;
        }
        if self.random.random_bool(0.5)
            && let Some(name) = self.prepared.pop()
        {
            let end = if self.random.random_bool(0.7) { "COMMIT" } else { "ROLLBACK" };
            self.source.execute(&format!("XA {end} '{name}'"));
        }
        self.names += 1;
        let name = format!("xa{}", self.names);
        let id = 1_000_000 + self.names;
        self.source.execute(&format!(
            "XA START '{name}'; INSERT INTO mall.customers (id, name) VALUES ({id}, '{name}'); XA END '{name}'; XA PREPARE '{name}'"
        ));
        self.prepared.push(name);
    }
}

const DEFINITIONS: [&str; 8] = [
    "CREATE TABLE mall.customers (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL) ENGINE = InnoDB",
    "CREATE TABLE mall.baskets (id INT PRIMARY KEY AUTO_INCREMENT, customer INT NOT NULL, total DECIMAL(12,2) NOT NULL DEFAULT 0, \
     twice DECIMAL(13,2) AS (total * 2) STORED, KEY customer (customer), CONSTRAINT of_customer FOREIGN KEY (customer) \
     REFERENCES mall.customers (id) ON DELETE CASCADE ON UPDATE CASCADE) ENGINE = InnoDB",
    "CREATE TABLE mall.lines (basket INT NOT NULL, nth INT NOT NULL, note TEXT, PRIMARY KEY (basket, nth), CONSTRAINT of_basket \
     FOREIGN KEY (basket) REFERENCES mall.baskets (id) ON DELETE CASCADE) ENGINE = InnoDB",
    "CREATE TABLE mall.log (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(200), at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE = InnoDB",
    "CREATE TABLE mall.wide (id INT PRIMARY KEY AUTO_INCREMENT, i8 TINYINT, u64 BIGINT UNSIGNED, d DECIMAL(30,10), f FLOAT, g DOUBLE, b BIT(17), \
     day DATE, t TIME(3), dt DATETIME(6), ts TIMESTAMP(6) NULL, y YEAR, e ENUM('a','가','z'), s SET('x','y','z'), c CHAR(10), vb VARBINARY(300), \
     bl LONGBLOB, tx LONGTEXT, j JSON, p POINT) ENGINE = InnoDB",
    "CREATE TABLE mall.keyless (a INT, b VARCHAR(20)) ENGINE = InnoDB",
    "CREATE TABLE mall.loose (a INT PRIMARY KEY AUTO_INCREMENT, b VARCHAR(20)) ENGINE = MyISAM",
    "CREATE TRIGGER mall.noted AFTER INSERT ON mall.baskets FOR EACH ROW INSERT INTO mall.log (what) VALUES (CONCAT('basket ', NEW.id))",
];

/// Acts some times, and returns the kinds of action that went through.
fn session(source: &Server, nth: u64, random: &mut SmallRng) -> BTreeSet<u32> {
    let times = random.random_range(8..16);
    let act = |_| {
        let kind = random.random_range(0..KINDS);
        let sql = action(kind, source.product(), nth, random);
        // Deadlocks, and keys that are there, roll back: that, too, is history.
        let patience = "SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 1";
        source.try_execute(&format!("{patience}; USE mall; {sql}")).is_ok().then_some(kind)
    };
    (0..times).filter_map(act).collect()
}

/// Kinds of action.
const KINDS: u32 = 16;

fn action(kind: u32, product: Product, session: u64, random: &mut SmallRng) -> String {
    let id = random.random_range(1..200) * 10 + session;
    let customer = random.random_range(1..30);
    let basket = format!(
        "INSERT IGNORE INTO customers VALUES ({customer}, 'customer {customer}'); \
         INSERT INTO baskets (id, customer, total) VALUES ({id}, {customer}, {id}.5) ON DUPLICATE KEY UPDATE total = total + 1; \
         REPLACE INTO `lines` VALUES ({id}, 1, '한글 {id}'), ({id}, 2, NULL)"
    );
    match kind {
        0..4 => format!("BEGIN; {basket}; COMMIT"),
        4 => format!(
            "BEGIN; {basket}; SAVEPOINT s; DELETE FROM baskets; ROLLBACK TO SAVEPOINT s; {}; COMMIT",
            wide(random)
        ),
        5 => format!("BEGIN; {basket}; ROLLBACK"),
        6 => format!("DELETE FROM customers WHERE id = {customer}"),
        7 => format!("UPDATE customers SET id = id + 40 WHERE id = {customer}"),
        8 => format!("BEGIN; {}; {}; COMMIT", wide(random), wide(random)),
        9 => {
            "UPDATE wide SET j = JSON_SET(j, '$.n', 7, '$.more', 'x'), i8 = -i8, vb = NULL WHERE id % 3 = 1".to_owned()
        }
        10 => format!(
            "CREATE TEMPORARY TABLE passing (a INT, b VARCHAR(20)); INSERT INTO passing VALUES ({id}, 'passing'); \
             INSERT INTO keyless SELECT * FROM passing; DROP TEMPORARY TABLE passing"
        ),
        11 => format!("SET TIMESTAMP = UNIX_TIMESTAMP() + {}; {basket}", random.random_range(-90_000..90_000)),
        12 => format!("INSERT INTO loose (b) VALUES ('loose {id}')"),
        13 => {
            let row = if product == Product::MySql { "ROW" } else { "'MIXED'" };
            format!("SET binlog_format = {row}; UPDATE keyless SET a = a + 1; DELETE FROM keyless WHERE a % 5 = 0")
        }
        14 => {
            "DELETE baskets, `lines` FROM baskets JOIN `lines` ON `lines`.basket = baskets.id WHERE baskets.id % 17 = 3"
                .to_owned()
        }
        _ => format!("INSERT INTO log (what) SELECT CONCAT(name, '{id}') FROM customers LIMIT 5"),
    }
}

/// A row of every type; one in six is of megabytes.
fn wide(random: &mut SmallRng) -> String {
    let (n, large) = (random.random_range(1..99_u32), random.random_bool(0.17));
    let bytes = if large { random.random_range(1_000_000..3_000_000) } else { random.random_range(0..300) };
    format!(
        "INSERT INTO wide (i8, u64, d, f, g, b, day, t, dt, ts, y, e, s, c, vb, bl, tx, j, p) VALUES (-{n}, 18446744073709551615 - {n}, \
         -12345678901234567890.{n:010}, 1.5e{f}, -2.25e-{n}, b'101{n:b}', '1999-12-{day:02}', '-{n}:00:01.5', '2026-02-28 23:59:59.{n:06}', \
         '2026-03-01 00:00:00.{n:06}', 1970 + {n}, '가', 'x,z', 'c {n}', UNHEX('00FF{n:04}'), REPEAT(CHAR({n}), {bytes}), REPEAT('글', {small}), \
         '{{\"n\": {n}, \"list\": [1, null, \"x\"]}}', POINT({n}, -{n}))",
        f = n % 30,
        day = n % 28 + 1,
        small = bytes / 1000,
    )
}
