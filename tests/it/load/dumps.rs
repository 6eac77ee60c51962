//! Dumps written by hand, as the source would have written them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use bkp::mysql::manifest::{
    Chunk, Column, Consistency, Extent, FORMAT, Manifest, ObjectEntry, ObjectKind, Product as Of, SchemaEntry,
    TableEntry,
};
use bkp::target::mysql::DirDump;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::servers::{Product, Server};

/// A dump of schema `shop` in a directory of its own.
pub(crate) struct Dump {
    dir: Arc<TempDir>,
    engine: &'static str,
    manifest: Manifest,
}

impl Dump {
    pub(crate) fn new(product: Product) -> Self {
        let (product, version) = match product {
            Product::MariaDb => (Of::MariaDb, "10.11.14-MariaDB"),
            Product::MySql => (Of::MySql, "9.7.0"),
        };
        let schema = SchemaEntry {
            name: "shop".to_owned(),
            create: "CREATE DATABASE `shop` /*!40100 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin */".to_owned(),
        };
        Self {
            dir: Arc::new(tempfile::tempdir().unwrap()),
            engine: "InnoDB",
            manifest: Manifest {
                format: FORMAT,
                product,
                version: version.to_owned(),
                server: "1".to_owned(),
                taken_at: "2026-01-01T00:00:00Z".parse().unwrap(),
                consistency: Consistency::GlobalLock,
                position: None,
                gtid: None,
                gtid_slave_pos: None,
                write_stall_ms: 0.0,
                variables: BTreeMap::from([("sql_mode".to_owned(), "STRICT_TRANS_TABLES,NO_ZERO_DATE".to_owned())]),
                extent: Extent::default(),
                schemas: vec![schema],
                tables: Vec::new(),
                objects: Vec::new(),
            },
        }
    }

    pub(super) fn engine(mut self, engine: &'static str) -> Self {
        self.engine = engine;
        self
    }

    /// Gives the schema another statement.
    pub(super) fn schema(mut self, create: &str) -> Self {
        create.clone_into(&mut self.manifest.schemas[0].create);
        self
    }

    /// Adds a table; `columns` are its names, each with the expression that loads it where there is one.
    pub(super) fn table(mut self, name: &str, body: &str, columns: &[(&str, Option<&str>)], key: &[&str]) -> Self {
        let create = format!("shop/{name}/schema.sql");
        self.write(
            &create,
            format!("CREATE TABLE `{name}` (\n{body}\n) ENGINE={} DEFAULT CHARSET=utf8mb4", self.engine),
        );
        let column = |(name, load): &(&str, Option<&str>)| Column {
            name: (*name).to_owned(),
            sql_type: String::new(),
            load: load.map(str::to_owned),
        };
        self.manifest.tables.push(TableEntry {
            schema: "shop".to_owned(),
            name: name.to_owned(),
            create,
            engine: self.engine.to_owned(),
            history_lost: false,
            columns: columns.iter().map(column).collect(),
            key: key.iter().map(|&column| column.to_owned()).collect(),
            rows: 0,
            bytes: 0,
            chunks: Vec::new(),
        });
        self
    }

    /// Adds an option to a table's statement.
    pub(super) fn table_option(self, name: &str, option: &str) -> Self {
        let path = format!("shop/{name}/schema.sql");
        let create = fs::read_to_string(self.dir.path().join(&path)).unwrap();
        self.write(&path, format!("{create} {option}"));
        self
    }

    /// Gives a column of the newest table its type, which the manifest has too.
    pub(super) fn typed(mut self, column: &str, sql_type: &str) -> Self {
        let table = self.manifest.tables.last_mut().unwrap();
        let column = table.columns.iter_mut().find(|other| other.name == column).unwrap();
        sql_type.clone_into(&mut column.sql_type);
        self
    }

    /// Adds a chunk to a table, with the number of rows that the manifest is to claim.
    pub(super) fn chunk(mut self, name: &str, text: impl AsRef<[u8]>, rows: u64) -> Self {
        let text = text.as_ref();
        let table = self.manifest.tables.iter_mut().find(|table| table.name == name).unwrap();
        let path = format!("shop/{name}/{}.tsv", table.chunks.len());
        table.rows += rows;
        table.bytes += text.len() as u64;
        table.chunks.push(Chunk {
            path: path.clone(),
            lower: None,
            upper: None,
            rows,
            bytes: text.len() as u64,
            sha256: hex::encode(Sha256::digest(text)),
        });
        self.write(&path, text);
        self
    }

    pub(super) fn object(
        mut self,
        kind: ObjectKind,
        schema: Option<&str>,
        table: Option<&str>,
        name: &str,
        statements: &[&str],
    ) -> Self {
        let path = format!("objects/{}.json", self.manifest.objects.len());
        self.write(&path, serde_json::to_vec(statements).unwrap());
        self.manifest.objects.push(ObjectEntry {
            kind,
            schema: schema.map(str::to_owned),
            table: table.map(str::to_owned),
            name: name.to_owned(),
            statements: path.clone(),
            script: path,
        });
        self
    }

    /// Adds a table of the numbers from 0, cut into chunks.
    pub(crate) fn numbers(self, name: &str, chunks: usize, rows: usize) -> Self {
        let body =
            "  `id` int NOT NULL,\n  `word` varchar(40) DEFAULT NULL,\n  PRIMARY KEY (`id`),\n  KEY `by_word` (`word`)";
        self.table(name, body, &[("id", None), ("word", None)], &["id"]).fill(name, chunks, rows)
    }

    /// Adds the same without a key, where a row that comes twice shows.
    pub(super) fn without_key(self, name: &str, chunks: usize, rows: usize) -> Self {
        let body = "  `id` int NOT NULL,\n  `word` varchar(40) DEFAULT NULL";
        self.table(name, body, &[("id", None), ("word", None)], &[]).fill(name, chunks, rows)
    }

    fn fill(mut self, name: &str, chunks: usize, rows: usize) -> Self {
        for chunk in 0..chunks {
            let mut text = String::new();
            for id in chunk * rows..(chunk + 1) * rows {
                writeln!(text, "{id}\tthe word for {}", id * 7919 % 1_000_003).unwrap();
            }
            self = self.chunk(name, text, rows as u64);
        }
        self
    }

    /// Flips one bit of a file.
    pub(crate) fn damage(&self, path: &str) {
        let path = self.dir.path().join(path);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn open(&self) -> Arc<DirDump> {
        self.write("manifest.json", serde_json::to_vec_pretty(&self.manifest).unwrap());
        let dump = DirDump::open(self.dir.path()).unwrap();
        // The files live as long as this process: a test is short.
        std::mem::forget(self.dir.clone());
        Arc::new(dump)
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Asserts that a table of [`Dump::numbers`] holds each number once, with its word.
pub(super) fn assert_numbers(server: &Server, table: &str, rows: u64) {
    let asked = format!(
        "SELECT COUNT(*), COUNT(DISTINCT id), MAX(id), SUM(word = CONCAT('the word for ', id * 7919 % 1000003)) FROM shop.{table}"
    );
    let expected = [rows, rows, rows - 1, rows].map(|number| Some(number.to_string()));
    assert_eq!(server.query(&asked), [expected]);
}

pub(super) async fn run(conn: &mut Conn, statement: &str) {
    conn.query_drop(statement).await.unwrap();
}

/// Returns a dump with a column of every difficult kind and an object of every kind.
pub(super) fn torture(product: Product) -> Dump {
    let (json, grants) = match product {
        Product::MariaDb => (None, "GRANT SELECT ON `shop`.* TO `clerk`@`10.%`"),
        Product::MySql => (Some("CONVERT(@v USING utf8mb4)"), "GRANT SELECT ON `shop`.* TO `clerk`@`10.%`"),
    };
    let standing = "GRANT ALL ON `shop`.* TO `standing`@`%`";
    kinds(Dump::new(product))
        .table(
            "shapes",
            "  `id` int NOT NULL,\n  `g` geometry DEFAULT NULL,\n  `j` json DEFAULT NULL,\n  PRIMARY KEY (`id`)",
            &[("id", None), ("g", Some("ST_GeomFromWKB(@v)")), ("j", json)],
            &["id"],
        )
        .chunk("shapes", SHAPES, 2)
        .table(
            "lines",
            "  `order_id` int NOT NULL,\n  `n` int NOT NULL,\n  PRIMARY KEY (`order_id`,`n`),\n  KEY `n` (`n`),\n  CONSTRAINT `of_order` FOREIGN KEY (`order_id`) REFERENCES `orders` (`id`)",
            &[("order_id", None), ("n", None)],
            &["order_id", "n"],
        )
        .chunk("lines", "1\t1\n1\t2\n", 2)
        .chunk("lines", "2\t1\n3\t1\n", 2)
        .table(
            "orders",
            "  `id` int NOT NULL AUTO_INCREMENT,\n  `amount` int NOT NULL,\n  `twice` int GENERATED ALWAYS AS (`amount` * 2) STORED,\n  `note` varchar(40) DEFAULT NULL,\n  PRIMARY KEY (`id`),\n  KEY `by_amount` (`amount`),\n  KEY `by_note` (`note`,`amount`)",
            &[("id", None), ("amount", None), ("note", None)],
            &["id"],
        )
        .chunk("orders", "", 0)
        .table("log", "  `what` varchar(40) NOT NULL", &[("what", None)], &[])
        .chunk("log", "start\n", 1)
        .orders()
        .object(ObjectKind::Grant, None, None, "`clerk`@`10.%`", &[grants])
        .object(ObjectKind::Grant, None, None, "`standing`@`%`", &[standing])
        .object(ObjectKind::User, None, None, "`clerk`@`10.%`", &["CREATE USER `clerk`@`10.%` IDENTIFIED BY 'x'"])
        .object(ObjectKind::User, None, None, "`standing`@`%`", &["CREATE USER `standing`@`%`"])
        .object(ObjectKind::User, None, None, "`root`@`%`", &["CREATE USER `root`@`%`"])
}

/// `POINT(1 2)` as WKB, with JSON; and nothing.
const SHAPES: &[u8] =
    b"1\t\\0\\0\\0\\0\x01?\xf0\\0\\0\\0\\0\\0\\0@\\0\\0\\0\\0\\0\\0\\0\t{\"\xea\xb0\x80\": \"\xeb\x82\x98\\\\t\xeb\x8b\xa4\"}\n2\t\\N\t\\N\n";

fn kinds(dump: Dump) -> Dump {
    let body = "  `id` int NOT NULL AUTO_INCREMENT,\n  `t` text DEFAULT NULL,\n  `b` blob DEFAULT NULL,\n  `l` varchar(20) CHARACTER SET latin1 DEFAULT NULL,\n  `d` decimal(65,30) DEFAULT NULL,\n  `ts` timestamp NULL DEFAULT NULL,\n  `tm` time(3) DEFAULT NULL,\n  `bits` bit(12) DEFAULT NULL,\n  `f` float DEFAULT NULL,\n  `dbl` double DEFAULT NULL,\n  `dbl2` double DEFAULT NULL,\n  `day` date NOT NULL DEFAULT '0000-00-00',\n  PRIMARY KEY (`id`),\n  KEY `by_day` (`day`)";
    let columns = ["id", "t", "b", "l", "d", "ts", "tm", "bits", "f", "dbl", "dbl2", "day"].map(|name| (name, None));
    dump.table("kinds", body, &columns, &["id"]).chunk("kinds", KINDS, 2)
}

const KINDS: &[u8] = b"0\ttab\\\tnew\\\nline\\\\ \xea\xb0\x80\xf0\x9f\x98\x80\t\\0\xff\\\t\\\n\\\\N\t\xe9t\xe9\t-12345678901234567890123456789012345.000000000000000000000000000001\t2026-01-01 00:00:00\t-838:59:58.999\t\\\x0a\xbc\t0.1\t1.7976931348623157e308\t5e-324\t0000-00-00\n7\t\\N\t\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t2026-02-31\n";

pub(super) fn kinds_as_selected() -> Vec<Vec<Option<String>>> {
    let rows = [
        [
            Some("0"),
            Some("746162096E65770A6C696E655C20EAB080F09F9880"),
            Some("00FF090A5C4E"),
            Some("E974E9"),
            Some("-12345678901234567890123456789012345.000000000000000000000000000001"),
            Some("2026-01-01 00:00:00"),
            Some("-838:59:58.999"),
            Some("ABC"),
            Some("0.1"),
            Some("1.7976931348623157e308"),
            Some("5e-324"),
            Some("0000-00-00"),
        ],
        [Some("7"), None, Some(""), None, None, None, None, None, None, None, None, Some("2026-02-31")],
    ];
    rows.map(|row| row.map(|value| value.map(str::to_owned)).to_vec()).to_vec()
}

impl Dump {
    /// Gives the orders what hangs on them: a view on a view in the wrong order, a function, a trigger, an event.
    fn orders(self) -> Self {
        let shop = Some("shop");
        self.object(ObjectKind::View, shop, None, "sales_twice", &["CREATE VIEW sales_twice AS SELECT 2 * s.total AS total FROM sales s"])
            .object(ObjectKind::View, shop, None, "sales", &["CREATE VIEW sales AS SELECT plus_one(COUNT(*) + 7 ) AS total FROM `lines` WHERE n < 2 AND order_id < 2"])
            .object(
                ObjectKind::Function,
                shop,
                None,
                "plus_one",
                &["SET sql_mode = 'ANSI_QUOTES'", "CREATE FUNCTION plus_one(n INT) RETURNS INT DETERMINISTIC RETURN n + 1"],
            )
            .object(
                ObjectKind::Trigger,
                shop,
                Some("orders"),
                "logged",
                &["CREATE TRIGGER logged AFTER INSERT ON orders FOR EACH ROW BEGIN INSERT INTO log VALUES (CONCAT('order ', NEW.id)); END"],
            )
            .object(ObjectKind::Event, shop, None, "nightly", &["CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO DELETE FROM log"])
    }
}
