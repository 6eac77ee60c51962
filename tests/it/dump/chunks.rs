//! Live: tables are cut into ranges by whatever key they have, each row is in one range, and the ranges follow the index.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bkp::mysql::manifest::{Manifest, TableEntry};

use super::BOTH;
use super::world::{DirSink, dump};
use crate::servers::{Product, Server};
use crate::world::World;

/// Enough for more than ten files of each table.
const ROWS: u64 = 3000;

/// Small enough for that; a range has a hundred rows at least.
const CHUNK_BYTES: u64 = 4000;

/// A table, cut by one kind of key. Its last column numbers the rows.
struct Kind {
    name: &'static str,
    /// Columns and keys.
    columns: &'static str,
    /// The key's values of a row, as literals.
    key: fn(u64) -> String,
    /// `None`: it has no key that ranges could be cut by, and one connection reads it.
    index: Option<&'static str>,
}

/// Spreads numbers over all of 64 bits, so that they come in another order than they are counted in.
fn spread(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Returns one of these spellings, and a number that tells the rows with the same one apart.
fn spelt(n: u64, spellings: &[&str]) -> String {
    let at = usize::try_from(n).unwrap() % spellings.len();
    format!("'{}', {n}", spellings[at])
}

const KINDS: &[Kind] = &[
    Kind {
        name: "shops",
        columns: "shop INT, id INT, PRIMARY KEY (shop, id)",
        key: |n| format!("{}, {n}", if n % 10 < 8 { 7 } else { n % 300 }),
        index: Some("PRIMARY"),
    },
    Kind {
        name: "huge",
        columns: "id BIGINT UNSIGNED PRIMARY KEY",
        key: |n| match n {
            0 => "0".to_owned(),
            1 => u64::MAX.to_string(),
            n => spread(n).to_string(),
        },
        index: Some("PRIMARY"),
    },
    Kind {
        name: "negative",
        columns: "id BIGINT PRIMARY KEY",
        key: |n| if n == 0 { i64::MIN.to_string() } else { spread(n).cast_signed().to_string() },
        index: Some("PRIMARY"),
    },
    Kind {
        name: "sparse",
        columns: "id INT PRIMARY KEY",
        key: |n| if n < 2990 { n.to_string() } else { (n * 700_000).to_string() },
        index: Some("PRIMARY"),
    },
    Kind {
        name: "general_ci",
        columns: "code VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, id INT, PRIMARY KEY (code, id)",
        key: |n| spelt(n, &["sku", "SKU", "sku ", "Sku", "é", "E", "e  ", "가", ""]),
        index: Some("PRIMARY"),
    },
    Kind {
        name: "bin",
        columns: "code VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY",
        key: |n| format!("'{}{n}'", if n % 2 == 0 { "sku😀" } else { "SKU\t" }),
        index: Some("PRIMARY"),
    },
    Kind {
        name: "german",
        columns: "code VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german2_ci, id INT, PRIMARY KEY (code, id)",
        key: |n| spelt(n, &["ä", "ae", "Ä", "AE ", "ß", "ss", "a", "b"]),
        index: Some("PRIMARY"),
    },
    Kind {
        name: "sjis",
        columns: "code VARCHAR(20) CHARACTER SET sjis COLLATE sjis_japanese_ci, id INT, PRIMARY KEY (code, id)",
        key: |n| spelt(n, &["表", "ソ", "能", "a", "A ", "ア"]),
        index: Some("PRIMARY"),
    },
    Kind {
        name: "uuids",
        columns: "id BINARY(16) PRIMARY KEY",
        key: |n| format!("X'{:016X}{:016X}'", spread(n), spread(n + 77)),
        index: Some("PRIMARY"),
    },
    Kind {
        name: "decimals",
        columns: "id DECIMAL(30,10) PRIMARY KEY",
        key: |n| format!("{}{}.{:010}", if n % 2 == 0 { "-" } else { "" }, spread(n), n),
        index: Some("PRIMARY"),
    },
    Kind {
        name: "times",
        columns: "at DATETIME(6) PRIMARY KEY",
        key: |n| format!("'{}-{:02}-{:02} 23:59:59.{:06}'", 1000 + n * 3, 1 + n % 12, 1 + n % 28, n * 7),
        index: Some("PRIMARY"),
    },
    Kind {
        name: "enum_second",
        columns: "shop INT, kind ENUM('z','a','m'), id INT, PRIMARY KEY (shop, kind, id)",
        key: |n| format!("{}, '{}', {n}", n / 50, ["z", "a", "m"][usize::try_from(n % 3).unwrap()]),
        index: Some("PRIMARY"),
    },
    Kind {
        name: "enum_first",
        columns: "kind ENUM('z','a','m'), id INT, PRIMARY KEY (kind, id)",
        key: |n| format!("'{}', {n}", ["z", "a", "m"][usize::try_from(n % 3).unwrap()]),
        index: None,
    },
    Kind {
        name: "unique_key",
        columns: "a INT NULL UNIQUE, b INT NOT NULL, UNIQUE KEY by_b (b)",
        key: |n| format!("{}, {n}", if n % 2 == 0 { "NULL".to_owned() } else { n.to_string() }),
        index: Some("by_b"),
    },
    Kind {
        name: "nullable_unique",
        columns: "a INT NULL UNIQUE",
        key: |n| if n % 2 == 0 { "NULL".to_owned() } else { n.to_string() },
        index: None,
    },
    Kind {
        name: "descending",
        columns: "shop INT, id INT, PRIMARY KEY (shop DESC, id DESC)",
        key: |n| format!("{}, {n}", n / 700),
        index: Some("PRIMARY"),
    },
    Kind {
        name: "up_and_down",
        columns: "shop INT, id INT, PRIMARY KEY (shop, id DESC)",
        key: |n| format!("{}, {n}", n / 700),
        index: None,
    },
    Kind {
        name: "hashed",
        columns: "shop INT, id INT, PRIMARY KEY (shop, id)",
        key: |n| format!("{}, {n}", n % 40),
        index: Some("PRIMARY"),
    },
    Kind { name: "no_key", columns: "a INT", key: |n| (n % 5).to_string(), index: None },
];

fn make(server: &Server) {
    server.execute("CREATE DATABASE cuts");
    for kind in KINDS {
        let partitions = if kind.name == "hashed" { "PARTITION BY HASH (id) PARTITIONS 4" } else { "" };
        let Kind { name, columns, key, .. } = kind;
        server.execute(&format!(
            "CREATE TABLE cuts.{name} ({columns}, pad CHAR(60) NOT NULL, n INT NOT NULL) {partitions}"
        ));
        let mut insert = format!("SET NAMES utf8mb4; INSERT INTO cuts.{name} VALUES ");
        for n in 0..ROWS {
            let comma = if n > 0 { ", " } else { "" };
            write!(insert, "{comma}({}, 'pad of a row', {n})", key(n)).unwrap();
        }
        server.execute(&insert);
    }
    let names: Vec<String> = KINDS.iter().map(|kind| format!("cuts.{}", kind.name)).collect();
    server.execute(&format!("ANALYZE TABLE {}", names.join(", ")));
}

fn entry<'a>(manifest: &'a Manifest, kind: &Kind) -> &'a TableEntry {
    manifest.tables.iter().find(|table| table.name == kind.name).unwrap()
}

/// Asserts that a dump has each row once.
fn assert_each_once(dir: &DirSink, table: &TableEntry, product: Product) {
    let mut numbers = Vec::new();
    for chunk in &table.chunks {
        let bytes = std::fs::read(dir.path().join(&chunk.path)).unwrap();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        numbers.extend(lines.map(|line| {
            let number = line.rsplit(|byte| *byte == b'\t').next().unwrap();
            std::str::from_utf8(number).unwrap().parse::<u64>().unwrap()
        }));
    }
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..ROWS), "{product:?} {}: {} rows", table.name, numbers.len());
}

/// Returns the statements that read a table's rows, or look for a place to cut it at, since the log was emptied.
fn statements(server: &Server, table: &str) -> BTreeSet<String> {
    let found = server.query(&format!(
        "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE command_type = 'Execute' \
         AND argument LIKE 'SELECT%FROM `cuts`.`{table}`%'"
    ));
    found.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

/// Asserts that the server follows the index and sorts nothing.
fn assert_planned(server: &Server, kind: &Kind) {
    let statements = statements(server, kind.name);
    let Some(index) = kind.index else {
        assert!(statements.iter().all(|statement| !statement.contains("WHERE")), "{statements:?}");
        return;
    };
    assert!(statements.len() > 20, "{}: {statements:?}", kind.name);
    for statement in statements {
        let head = server.query(&format!("EXPLAIN FORMAT=TRADITIONAL {statement}"));
        let plan: Vec<&str> = head[0].iter().map(|value| value.as_deref().unwrap_or("")).collect();
        let is_bounded = statement.contains("WHERE");
        let follows = plan.contains(&index) && (plan.contains(&"range") || (!is_bounded && plan.contains(&"index")));
        let sorts = plan.iter().any(|text| text.contains("filesort") || text.contains("temporary"));
        // Within one value of a collation that takes two letters for one, MariaDB sorts: no more than a range.
        let may_sort =
            kind.name == "german" && server.product() == Product::MariaDb && statement.contains("(`code` = ");
        assert!(head.len() == 1 && follows && (!sorts || may_sort), "{}: {plan:?}: {statement}", kind.name);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn every_kind_of_key_cuts_a_table_into_ranges_that_hold_each_row_once() {
    std::thread::scope(|scope| {
        for product in BOTH {
            scope.spawn(move || cut_every_kind(product));
        }
    });
}

fn cut_every_kind(product: Product) {
    let server = Server::start(product, &[]);
    make(&server);
    server.execute("SET GLOBAL log_output = 'TABLE', GLOBAL general_log = ON");
    let (mut dirs, mut manifests) = (Vec::new(), Vec::<Manifest>::new());
    // Explored, with the bounds taken over, and once more.
    for _ in 0..3 {
        let dir = DirSink::new();
        manifests.push(dump(&server, &dir, CHUNK_BYTES, manifests.last()).unwrap());
        dirs.push(dir);
    }
    server.execute("SET GLOBAL general_log = OFF");
    for kind in KINDS {
        let tables: Vec<&TableEntry> = manifests.iter().map(|manifest| entry(manifest, kind)).collect();
        for (table, dir) in tables.iter().zip(&dirs) {
            assert_each_once(dir, table, product);
            assert!(table.chunks.len() > 10, "{product:?} {}: {} files", kind.name, table.chunks.len());
            assert_eq!(!table.key.is_empty(), kind.index.is_some(), "{product:?} {}: {:?}", kind.name, table.key);
        }
        let cuts = |table: &TableEntry| -> Vec<_> {
            table.chunks.iter().map(|chunk| (chunk.upper.clone(), chunk.sha256.clone())).collect()
        };
        assert_eq!(cuts(tables[1]), cuts(tables[2]), "{product:?} {}", kind.name);
        assert_planned(&server, kind);
    }
}

/// Rows that do not compress, so that what is stored is what was new.
fn append(server: &Server, ids: std::ops::Range<u64>) {
    let rows: Vec<String> = ids
        .map(|id| {
            let noise: Vec<String> = (0..24).map(|n| format!("{:016X}", spread(id * 31 + n))).collect();
            let noise = noise.concat();
            format!("({id}, X'{noise}')")
        })
        .collect();
    for some in rows.chunks(5000) {
        server.execute(&format!("INSERT INTO mall.events VALUES {}", some.join(", ")));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_table_that_has_grown_at_its_end_is_stored_anew_at_its_end_alone() {
    let world = World::ready(Product::MariaDb);
    world.source.execute("CREATE TABLE mall.events (id INT PRIMARY KEY, noise BINARY(192) NOT NULL)");
    append(&world.source, 0..80_000);
    let stored = || {
        let ended = world.bkp(&["backup", "mall", "--source", "db1", "--no-copy", "--json"]).expect(0).json();
        let backed = &ended["steps"][0]["result"]["snapshots"][0];
        let bytes = |key: &str| backed[key].as_u64().unwrap_or_else(|| panic!("no {key} in {ended}"));
        (bytes("bytes"), bytes("bytes_stored"))
    };
    let (bytes, first) = stored();
    assert!(bytes > 15 << 20 && first > 12 << 20, "{first} of {bytes}");
    append(&world.source, 80_000..80_800);
    let (grown, second) = stored();
    assert!(grown > bytes);
    // The last blob of the old end, the new rows, and the small files of a dump.
    assert!(second < 3 << 20, "a hundredth more rows stored {second} bytes of {grown}");
}
