//! Live: what peers lose without a word comes back, each kind of thing under a name of its own.
//!
//! Each product's fixture takes one trip: dumped by bkp from a server of odd modes and far east, and restored twice, by the
//! plain client into a strict server far west and by bkp. What the three servers show is noted, and every test looks at its part of
//! it: first that all three show the same, column by column, then that the hard value is really there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, LazyLock};

use bkp::mysql::manifest::Manifest;
use bkp::run::Run;
use bkp::source::mysql::hash_chunks;
use bkp::target::mysql::plan::Selection;
use bkp::target::mysql::{DirDump, DumpReader, LoadOptions, LoadPlan, compare, inspect, load};
use tokio_util::sync::CancellationToken;

use super::world::{self, DirSink, as_user, by_socket, dump, literal, restore, rows_of};
use super::{CHUNK_BYTES, fill};
use crate::servers::{Product, Server, Suite, block_on};

/// The modes of the server that is dumped: statements and texts mean something else in each of them.
const ODD_MODES: &str = "--sql-mode=ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,IGNORE_SPACE,HIGH_NOT_PRECEDENCE,\
                         STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO";

type Row = Vec<Option<String>>;

/// A table as its server shows it.
#[derive(Debug, Clone, PartialEq)]
struct Table {
    definition: String,
    /// `information_schema.COLUMNS`, whole.
    columns: Vec<Row>,
    /// `information_schema.STATISTICS` but for estimates.
    indexes: Vec<Row>,
    /// The server's own `CHECKSUM TABLE`.
    checksum: Option<String>,
    rows: Vec<Row>,
}

/// What a server shows of all that it holds.
struct Shown {
    tables: BTreeMap<(String, String), Table>,
    objects: BTreeSet<String>,
    /// Accounts that got in with their passwords.
    logins: Vec<&'static str>,
}

struct Trip {
    product: Product,
    suite: Suite,
    manifest: Manifest,
    original: Shown,
    by_client: Shown,
    by_bkp: Shown,
    /// What the server that bkp restored into was told, in its own words.
    log: String,
}

const SERVERS: [(Product, Suite); 3] =
    [(Product::MariaDb, Suite::Stable), (Product::MySql, Suite::Stable), (Product::MariaDb, Suite::Newest)];

static TRIPS: LazyLock<[Trip; 3]> = LazyLock::new(|| {
    std::thread::scope(|scope| {
        SERVERS.map(|(product, suite)| scope.spawn(move || Trip::take(product, suite))).map(|trip| trip.join().unwrap())
    })
});

fn trip(product: Product) -> &'static Trip {
    TRIPS.iter().find(|trip| trip.product == product).unwrap()
}

/// A type that came with MariaDB 11.7, and an index of its own kind.
const VECTORS: &str =
    "CREATE TABLE torture.vectors (id INT PRIMARY KEY, v VECTOR(3) NOT NULL, VECTOR KEY near (v) DISTANCE=cosine);
INSERT INTO torture.vectors VALUES (1, VEC_FromText('[0.1,-2,3e18]')), (2, VEC_FromText('[9,10,92]'))";

/// Starts a server that knows every way to log in.
fn server(product: Product, suite: Suite, options: &[&str]) -> Server {
    let mut options = options.to_vec();
    if product == Product::MariaDb {
        options.push("--plugin-load-add=auth_ed25519");
    }
    Server::start_of(product, suite, &options)
}

impl Trip {
    fn take(product: Product, suite: Suite) -> Self {
        let dir = DirSink::new();
        let original = server(product, suite, &[ODD_MODES, "--default-time-zone=+09:00"]);
        fill(&original);
        add_accounts(&original);
        if suite == Suite::Newest {
            original.execute(VECTORS);
        }
        let manifest = dump(&original, &dir, CHUNK_BYTES, None).unwrap();

        let by_client = server(product, suite, &["--sql-mode=TRADITIONAL", "--default-time-zone=-05:00"]);
        restore(&by_client, dir.path());
        let by_bkp = server(product, suite, &["--sql-mode=ANSI,STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES"]);
        by_bkp.execute("SET GLOBAL general_log_file = 'general.log', GLOBAL general_log = 1");
        block_on(bring(&by_bkp, &dir));
        by_bkp.execute("SET GLOBAL general_log = 0");
        let log = String::from_utf8_lossy(&fs::read(by_bkp.dir().join("data/general.log")).unwrap()).into_owned();
        let [original, by_client, by_bkp] = [&original, &by_client, &by_bkp].map(Shown::by);
        Self { product, suite, manifest, original, by_client, by_bkp, log }
    }

    /// Returns a table of the schema `torture` as it came back; asserts that it came back by both ways as it was.
    fn table(&self, name: &str) -> &Table {
        self.table_of("torture", name)
    }

    fn table_of(&self, schema: &str, name: &str) -> &Table {
        let place = (schema.to_owned(), name.to_owned());
        let original = self.original.tables.get(&place).unwrap_or_else(|| panic!("the fixture has no {place:?}"));
        for (way, shown) in [("by the client", &self.by_client), ("by bkp", &self.by_bkp)] {
            let restored = shown.tables.get(&place);
            assert_eq!(restored, Some(original), "{:?} {:?}: {place:?} restored {way}", self.product, self.suite);
        }
        &self.by_bkp.tables[&place]
    }

    /// Returns what the restored server shows for statements that begin so; asserts that both ways and the original show the same.
    fn objects<'a>(&'a self, begin: &str) -> BTreeSet<&'a str> {
        let of = |shown: &'a Shown| -> BTreeSet<&'a str> {
            shown.objects.iter().map(String::as_str).filter(|shown| shown.starts_with(begin)).collect()
        };
        let (original, by_client, by_bkp) = (of(&self.original), of(&self.by_client), of(&self.by_bkp));
        assert!(!original.is_empty(), "{:?}: the fixture has nothing for {begin}", self.product);
        assert_eq!(by_client, original, "{:?}: restored by the client", self.product);
        assert_eq!(by_bkp, original, "{:?}: restored by bkp", self.product);
        by_bkp
    }

    /// Returns the one of [`Trip::objects`] that has a text in it.
    fn object<'a>(&'a self, begin: &str, text: &str) -> &'a str {
        let found = self.objects(begin).into_iter().find(|shown| shown.contains(text));
        found.unwrap_or_else(|| panic!("{:?}: no {begin} has {text}", self.product))
    }
}

/// Makes accounts beside those of the fixture: of every plugin that checks passwords, with all that hangs on an account.
fn add_accounts(server: &Server) {
    server.execute("CREATE USER plain@'%' IDENTIFIED BY 'sesam'");
    match server.product() {
        Product::MariaDb => {
            server.execute("CREATE USER keen@'%' IDENTIFIED VIA ed25519 USING PASSWORD('sesam')");
            server.execute("CREATE USER bound@'%' IDENTIFIED BY 'x' REQUIRE SSL WITH MAX_USER_CONNECTIONS 3 PASSWORD EXPIRE INTERVAL 90 DAY ACCOUNT LOCK");
            server.execute("GRANT reporter TO plain@'%'; SET DEFAULT ROLE reporter FOR plain@'%'");
        }
        Product::MySql => {
            server.execute("CREATE USER keen@'%' IDENTIFIED WITH caching_sha2_password BY 'sesam'");
            server.execute("CREATE USER bound@'%' IDENTIFIED BY 'x' REQUIRE SSL WITH MAX_USER_CONNECTIONS 3 PASSWORD EXPIRE INTERVAL 90 DAY ACCOUNT LOCK ATTRIBUTE '{\"team\": \"서울\"}'");
            server.execute("GRANT reporter TO plain@'%' WITH ADMIN OPTION; SET DEFAULT ROLE reporter TO plain@'%'");
            server.execute("GRANT BACKUP_ADMIN, SHOW_ROUTINE ON *.* TO bound@'%'");
        }
    }
}

/// Restores by bkp, with secondary indexes after the rows of every table, and compares all chunks.
async fn bring(server: &Server, dir: &DirSink) {
    let dump = Arc::new(DirDump::open(dir.path()).unwrap());
    let (to, run) = (by_socket(server), Run::silent());
    let state = inspect(&to, &CancellationToken::new()).await.unwrap();
    let plan = LoadPlan::new(dump.manifest(), &Selection::everything(), &state, false).unwrap();
    let options = LoadOptions { connections: 3, skip_binlog: true, defer_index_bytes_min: 0, ..LoadOptions::default() };
    let loaded = load(&plan, dump.clone(), &to, options, &run).await.unwrap();
    assert!(loaded.failed.is_empty(), "{:?}", loaded.failed);
    let manifest = dump.manifest().clone();
    let hashes =
        tokio::task::spawn_blocking(move || hash_chunks(&to, &manifest, None, 3, &run)).await.unwrap().unwrap();
    assert_eq!(compare(dump.manifest(), None, &hashes), []);
}

impl Shown {
    fn by(server: &Server) -> Self {
        // All are asked in one mode and one zone, whatever they were restored in.
        server.execute("SET GLOBAL sql_mode = '', GLOBAL time_zone = '+00:00'");
        let tables = world::tables(server).into_iter().map(|(schema, name)| {
            let table = Table::by(server, &schema, &name);
            ((schema, name), table)
        });
        let gets_in = |user: &&str| as_user(server, user, "sesam").open_wire(&CancellationToken::new()).is_ok();
        Self {
            tables: tables.collect(),
            objects: world::objects(server),
            logins: ["plain", "keen"].into_iter().filter(gets_in).collect(),
        }
    }
}

impl Table {
    fn by(server: &Server, schema: &str, name: &str) -> Self {
        let of_table = format!("TABLE_SCHEMA = {} AND TABLE_NAME = {}", literal(schema), literal(name));
        let more = if server.product() == Product::MySql { ", IS_VISIBLE, EXPRESSION" } else { ", IGNORED" };
        let definition = world::definition(server, schema, name);
        // Of rows with a multi-valued index MySQL's checksum tells equal ones apart.
        let checksum = server.query(&format!("CHECKSUM TABLE {}", world::name_of(schema, name)))[0][1].clone();
        Self {
            columns: server
                .query(&format!("SELECT * FROM information_schema.COLUMNS WHERE {of_table} ORDER BY ORDINAL_POSITION")),
            indexes: server.query(&format!(
                "SELECT INDEX_NAME, SEQ_IN_INDEX, NON_UNIQUE, COLUMN_NAME, COLLATION, SUB_PART, NULLABLE, INDEX_TYPE, \
                 INDEX_COMMENT{more} FROM information_schema.STATISTICS WHERE {of_table} ORDER BY 1, 2"
            )),
            checksum: checksum.filter(|_| !definition.contains(" array)")),
            rows: rows_of(server, schema, name),
            definition,
        }
    }

    /// Returns the value of a column in the row that begins with a key. Texts and bytes are hexadecimal.
    fn cell(&self, key: &str, column: &str) -> &str {
        self.option(key, column).unwrap_or_else(|| panic!("row {key} has NULL in {column}"))
    }

    fn option(&self, key: &str, column: &str) -> Option<&str> {
        // The fourth column of COLUMNS is the name.
        let at = self.columns.iter().position(|row| row[3].as_deref() == Some(column)).unwrap();
        let row = self.rows.iter().find(|row| row[0].as_deref() == Some(key));
        row.unwrap_or_else(|| panic!("no row begins with {key}: {:?}", self.rows))[at].as_deref()
    }

    /// Returns the text whose bytes a column has.
    fn text(&self, key: &str, column: &str) -> String {
        String::from_utf8(hex::decode(self.cell(key, column)).unwrap()).unwrap()
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_dump_from_odd_modes_and_zones_comes_back_into_strict_ones_elsewhere() {
    for trip in &*TRIPS {
        assert!(trip.manifest.variables["sql_mode"].contains("NO_BACKSLASH_ESCAPES"), "{:?}", trip.product);
        assert_eq!(trip.manifest.variables["time_zone"], "+09:00");
        let names = |shown: &Shown| shown.tables.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&trip.by_client), names(&trip.original));
        assert_eq!(names(&trip.by_bkp), names(&trip.original));
        assert!(trip.original.tables.len() >= 38, "the fixture has lost tables: {:?}", names(&trip.original));
        for (schema, name) in trip.original.tables.keys() {
            trip.table_of(schema, name);
        }
        trip.objects("");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn floats_come_back_to_the_last_bit() {
    for trip in &*TRIPS {
        let is = |table: &str, id: &str, expected: f32| {
            let float: f32 = trip.table(table).cell(id, "f").parse().unwrap();
            assert_eq!(float.to_bits(), expected.to_bits(), "`{table}` {id}: {float}");
        };
        is("edges", "1", f32::MAX);
        is("edges", "2", f32::MIN);
        is("edges", "3", f32::MIN_POSITIVE);
        // Six digits, which a text has of a float, would be 123457.
        is("numbers", "-4", 123_456.79);
        is("numbers", "2", 0.1);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn the_extremes_of_doubles_come_back() {
    for trip in &*TRIPS {
        let double = |id: &str| trip.table("numbers").cell(id, "d").parse::<f64>().unwrap();
        assert_eq!((double("0"), double("1"), double("-4")), (f64::MAX, f64::MIN_POSITIVE, 123_456_789.123_456_79));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn decimals_of_65_digits_come_back() {
    for trip in &*TRIPS {
        let numbers = trip.table("numbers");
        let (whole, part) = numbers.cell("0", "d2").split_once('.').unwrap();
        assert_eq!((whole, part), (&*"9".repeat(35), &*"9".repeat(30)));
        assert_eq!(numbers.cell("1", "d2"), format!("-0.{}1", "0".repeat(29)));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn bits_come_back() {
    for trip in &*TRIPS {
        let numbers = trip.table("numbers");
        assert_eq!(numbers.cell("0", "b64"), u64::MAX.to_string());
        // A tab, a newline, a zero and a backslash are four of its bytes.
        assert_eq!(numbers.cell("1", "b64"), 0x0A09_005C.to_string());
        assert_eq!((numbers.cell("0", "b1"), numbers.option("2", "b1")), ("1", None));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn blobs_of_every_byte_and_larger_than_a_packet_come_back() {
    for trip in &*TRIPS {
        let every: Vec<u8> = (0..=u8::MAX).collect();
        assert!(trip.table("texts").cell("5", "vb").eq_ignore_ascii_case(&hex::encode(every)));
        assert_eq!(trip.table("texts").cell("5", "bl"), "005C0A09".repeat(5000));
        let giants = trip.table("giants");
        assert_eq!(giants.cell("1", "g").len(), 2 * 16_777_211);
        assert_eq!(giants.cell("3", "g"), "0A".repeat(17_000_000));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn geometries_come_back_with_their_reference_systems() {
    for trip in &*TRIPS {
        let shapes = trip.table("shapes");
        // The reference system 4326, little-endian, comes before the shape.
        assert!(shapes.cell("2", "p").starts_with("E6100000"), "{}", shapes.cell("2", "p"));
        assert!(shapes.cell("1", "gc").len() > 100 && shapes.option("2", "g").is_none());
        assert!(shapes.indexes.iter().any(|index| index[7].as_deref() == Some("SPATIAL")));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn json_comes_back() {
    for trip in &*TRIPS {
        let documents = trip.table("documents");
        assert!(documents.text("1", "j").contains(r"서울\n\t😀\\"), "{}", documents.text("1", "j"));
        assert!(documents.text("5", "j").contains("12345678901234567890"));
        assert_eq!((documents.text("2", "j").as_str(), documents.option("3", "j")), ("null", None));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn uuids_and_addresses_come_back_and_are_not_null() {
    let addresses = trip(Product::MariaDb).table("addresses");
    let uuid = "FFFFFFFFEEEE4CCCBBBBAAAAAAAAAAAA";
    assert_eq!(
        (addresses.cell(uuid, "v4"), addresses.cell(uuid, "v6")),
        ("0A000001", "20010DB8000000000000FF0000428329")
    );
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn vectors_come_back() {
    let vectors = trip(Product::MySql).table("vectors");
    assert_eq!(vectors.cell("1", "v").len(), 2 * 3 * 4);
    assert_eq!(vectors.option("2", "v"), None);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn enums_and_sets_come_back_with_the_error_value_and_odd_members() {
    for trip in &*TRIPS {
        assert_eq!(trip.table("texts").text("2", "e"), "tab\there");
        assert_eq!(trip.table("texts").text("4", "e"), "q'uote");
        assert_eq!(trip.table("texts").text("1", "s"), "x,y");
        assert_eq!(
            (trip.table("edges").text("2", "kind").as_str(), &*trip.table("edges").text("3", "kind")),
            ("", "b")
        );
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn zero_dates_and_days_that_no_month_has_come_back() {
    for trip in &*TRIPS {
        let times = trip.table("times");
        assert_eq!(
            (times.cell("1", "d"), times.cell("2", "d"), times.cell("3", "d")),
            ("0000-00-00", "2024-02-00", "2023-02-31")
        );
        assert_eq!(times.cell("2", "dt"), "2024-00-00 01:02:03");
        assert_eq!(times.cell("2", "ts"), "0000-00-00 00:00:00");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn timestamps_come_back_as_the_same_instants_in_another_zone() {
    for trip in &*TRIPS {
        let times = trip.table("times");
        assert_eq!(times.cell("1", "ts"), "1970-01-01 00:00:01");
        assert_eq!(times.cell("1", "ts6"), "2038-01-19 03:14:07.999999");
        // An hour that comes twice, and one that is left out, in zones with summer time.
        assert_eq!(
            (times.cell("3", "ts"), times.cell("3", "ts6")),
            ("2024-10-27 01:30:00", "2024-03-31 01:30:00.123456")
        );
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn times_of_more_than_a_day_come_back() {
    for trip in &*TRIPS {
        let times = trip.table("times");
        assert_eq!((times.cell("1", "t"), times.cell("1", "t6")), ("838:59:59", "-838:59:59.000000"));
        assert_eq!((times.cell("2", "t"), times.cell("3", "t6")), ("-00:00:01", "-25:30:00.500000"));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn generated_columns_are_computed_anew() {
    for trip in &*TRIPS {
        let derived = trip.table("derived");
        assert_eq!(
            (derived.cell("2", "b"), derived.text("2", "c").as_str(), derived.option("3", "d")),
            ("4", "n2", None)
        );
        let columns = &trip.manifest.tables.iter().find(|table| table.name == "derived").unwrap().columns;
        assert_eq!(columns.iter().map(|column| &*column.name).collect::<Vec<_>>(), ["a", "d"]);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn invisible_columns_come_back_with_their_values() {
    for trip in &*TRIPS {
        let hidden = trip.table("hidden");
        // Its default is 5.
        assert_eq!((hidden.cell("1", "secret"), hidden.option("2", "secret")), ("11", None));
        assert!(hidden.definition.contains("INVISIBLE"), "{}", hidden.definition);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn generated_invisible_primary_keys_keep_their_values() {
    let keyless = trip(Product::MySql).table("gipk");
    assert!(
        keyless.definition.contains("`my_row_id` bigint unsigned NOT NULL AUTO_INCREMENT"),
        "{}",
        keyless.definition
    );
    let ids: Vec<_> = keyless.rows.iter().map(|row| row[0].as_deref().unwrap()).collect();
    assert_eq!(ids, ["1", "2"]);
    assert!(keyless.definition.contains("AUTO_INCREMENT=4"), "{}", keyless.definition);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn texts_of_every_character_set_come_back_as_they_were_stored() {
    for trip in &*TRIPS {
        let texts = trip.table("texts");
        // The second byte of 表 and of ソ is a backslash's.
        assert!(texts.cell("1", "sj").starts_with("955C8EA6835C"), "sjis: {}", texts.cell("1", "sj"));
        assert!(texts.cell("1", "l").starts_with("4772FCDF65"), "latin1: {}", texts.cell("1", "l"));
        assert!(texts.cell("1", "u16").starts_with("D83DDE00"), "utf16: {}", texts.cell("1", "u16"));
        assert_eq!(texts.cell("1", "ek"), "C7D1B1DB");
        assert_eq!(texts.text("1", "u4"), "😀𝄞 \\N");
        assert!(texts.option("3", "u4").is_none() && texts.text("4", "u4") == "NULL");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn collations_of_one_product_alone_come_back() {
    let addresses = trip(Product::MariaDb).table("addresses");
    assert!(addresses.definition.contains("utf8mb4_uca1400_ai_ci"), "{}", addresses.definition);
    let collated = trip(Product::MySql).table("collated");
    assert!(collated.definition.contains("utf8mb4_ja_0900_as_cs_ks"), "{}", collated.definition);
    let rules = |trip: &'static Trip| trip.table("text_key").definition.clone();
    for trip in &*TRIPS {
        assert!(rules(trip).contains("latin1_german2_ci"), "{}", rules(trip));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_sequence_goes_on_where_it_was() {
    let trip = trip(Product::MariaDb);
    let next = trip.object("NEXTVAL", "").to_owned();
    assert!(!next.contains("\"100\""), "the fixture has taken values from it: {next}");
    let made = trip.object("SHOW CREATE SEQUENCE", "numbers_of");
    assert!(made.contains("increment by 5") && made.contains("cycle"), "{made}");
    let rows = &trip.table("sequenced").rows;
    assert!(rows.iter().all(|row| row[0].as_ref().is_some_and(|id| id.parse::<u32>().unwrap() > 100)), "{rows:?}");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn the_history_of_versioned_tables_comes_back_with_its_times() {
    let trip = trip(Product::MariaDb);
    for (table, lives) in [("history", 4), ("history_named", 2), ("history_no_key", 2)] {
        let table = trip.table(table);
        assert_eq!(table.rows.len(), lives, "{:?}", table.rows);
        assert!(table.definition.contains("SYSTEM VERSIONING"), "{}", table.definition);
        let ended = |row: &Row| !row.last().unwrap().as_ref().unwrap().starts_with("2038-01-19 03:14:07");
        assert!(table.rows.iter().any(ended), "no life has ended: {:?}", table.rows);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn an_auto_increment_of_zero_stays_zero_and_the_next_value_is_kept() {
    for trip in &*TRIPS {
        let table = trip.table("zero_auto");
        assert_eq!((table.cell("0", "v"), table.cell("-1", "v"), table.cell("17", "v")), ("0", "1", "2"));
        assert!(table.definition.contains("AUTO_INCREMENT=5000"), "{}", table.definition);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn rows_that_break_a_check_come_back() {
    let broken = trip(Product::MariaDb).table("checked");
    assert_eq!((broken.cell("1", "v"), broken.text("1", "j").as_str()), ("-5", "no json"));
    assert!(broken.definition.contains("CHECK (`v` > 0)"), "{}", broken.definition);
    let unenforced = trip(Product::MySql).table("unenforced");
    assert_eq!(unenforced.cell("1", "v"), "-5");
    assert!(unenforced.definition.contains("NOT ENFORCED"), "{}", unenforced.definition);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn foreign_keys_come_back_in_a_circle_to_themselves_across_schemas_and_with_orphans() {
    for trip in &*TRIPS {
        assert!(trip.table("parent").definition.contains("REFERENCES `child`"));
        assert!(trip.table("child").definition.contains("REFERENCES `parent` (`id`) ON DELETE SET NULL"));
        assert_eq!(trip.table("parent").cell("2", "child"), "99");
        let itself = trip.table("boughs");
        assert!(itself.definition.contains("REFERENCES `boughs`"), "{}", itself.definition);
        let across = &trip.table_of("odd.na/me", "across").definition;
        assert!(across.contains("CONSTRAINT `to/another.schema` FOREIGN KEY"), "{across}");
        assert!(across.contains("REFERENCES `torture`.`numbers` (`id`) ON DELETE CASCADE"), "{across}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn partitions_of_every_kind_come_back() {
    for trip in &*TRIPS {
        let kinds = [
            ("parts", "BY RANGE", 3),
            ("list_parts", "LIST", 3),
            ("hash_parts", "BY HASH", 5),
            ("key_parts", "BY KEY", 3),
            ("sub_parts", "SUBPARTITION BY HASH", 2),
        ];
        for (name, kind, rows) in kinds {
            let table = trip.table(name);
            assert!(table.definition.replace('`', "").contains(kind), "{name}: {}", table.definition);
            assert_eq!(table.rows.len(), rows, "{name}");
        }
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn indexes_of_every_kind_come_back() {
    for trip in &*TRIPS {
        let is_kind =
            |table: &str, kind: &str| trip.table(table).indexes.iter().any(|row| row[7].as_deref() == Some(kind));
        assert!(is_kind("searched", "FULLTEXT") && is_kind("shapes", "SPATIAL"), "{:?}", trip.product);
        let prefix = &trip.table("prefix_key").indexes[0];
        assert_eq!(prefix[5].as_deref(), Some("5"));
    }
    let mysql = trip(Product::MySql);
    let functional = mysql.table("functional");
    assert!(functional.indexes.iter().any(|row| row[9].as_deref() == Some("NO")), "{:?}", functional.indexes);
    assert!(functional.indexes.iter().any(|row| row[10].is_some()), "{:?}", functional.indexes);
    let descending = mysql.table("descending");
    assert!(descending.indexes.iter().any(|row| row[4].as_deref() == Some("D")), "{:?}", descending.indexes);
    let many = &mysql.table("many_valued").definition;
    assert!(many.contains("array"), "{many}");
    let ignored = trip(Product::MariaDb).table("ignored_index");
    assert!(ignored.indexes.iter().any(|row| row[9].as_deref() == Some("YES")), "{:?}", ignored.indexes);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn views_come_back_on_views_whose_names_sort_after_them() {
    for trip in &*TRIPS {
        let top = trip.object("SHOW CREATE VIEW", "`torture`.`a_top`:");
        assert!(top.contains("`z_base`") && top.contains("WITH CASCADED CHECK OPTION"), "{top}");
        assert!(top.contains("SQL SECURITY INVOKER") && top.contains("ALGORITHM=MERGE"), "{top}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn definers_stay_who_they_were_even_if_there_is_no_such_account() {
    for trip in &*TRIPS {
        trip.object("SHOW CREATE VIEW", "DEFINER=`nobody`@`nowhere`");
        trip.object("SHOW CREATE PROCEDURE", "DEFINER=`root`@`localhost`");
        trip.object("SHOW CREATE TRIGGER", "DEFINER=`root`@`localhost`");
        trip.object("SHOW CREATE EVENT", "DEFINER=`root`@`localhost`");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn routines_and_triggers_keep_the_mode_and_the_text_they_were_made_in() {
    for trip in &*TRIPS {
        let ansi = trip.object("SHOW CREATE PROCEDURE", ".`ansi`:");
        assert!(ansi.contains("ANSI_QUOTES") && ansi.contains("PIPES_AS_CONCAT"), "{ansi}");
        let fill = trip.object("SHOW CREATE PROCEDURE", ".`fill`:");
        assert!(fill.contains("-- a comment; with a semicolon") && fill.contains("; 서울"), "{fill}");
        assert_eq!(trip.objects("SHOW CREATE TRIGGER").len(), 2);
    }
    trip(Product::MariaDb).object("SHOW CREATE PACKAGE BODY", "RETURN 1");
}

/// By the target's own log: made disabled, and enabled when nothing else was left to do.
#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn events_are_kept_disabled_until_all_else_is_there() {
    for trip in &*TRIPS {
        trip.object("SHOW CREATE EVENT", "ON COMPLETION PRESERVE ENABLE");
        trip.object("SHOW CREATE EVENT", "ON COMPLETION NOT PRESERVE DISABLE");
        let first = |text: &str| trip.log.find(text).unwrap_or_else(|| panic!("{:?}: never told {text}", trip.product));
        let last = |text: &str| trip.log.rfind(text).unwrap();
        let enabled = first("EVENT `torture`.`hourly` ENABLE");
        assert!(trip.log[..enabled].contains("PRESERVE DISABLE COMMENT 'ENABLE; it'"), "{:?}", trip.product);
        for earlier in ["LOAD DATA LOCAL", "GRANT ", "numbers_second", "b_mid"] {
            assert!(last(earlier) < enabled, "{:?}: {earlier} comes after the event may run", trip.product);
        }
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn accounts_come_back_with_their_hashes_and_log_in_with_their_passwords() {
    for trip in &*TRIPS {
        let plugin = if trip.product == Product::MariaDb { "ed25519" } else { "caching_sha2_password" };
        trip.object("SHOW CREATE USER `keen`", plugin);
        let bound = trip.object("SHOW CREATE USER `bound`", "ACCOUNT LOCK");
        for wanted in ["REQUIRE SSL", "MAX_USER_CONNECTIONS 3", "PASSWORD EXPIRE INTERVAL 90 DAY"] {
            assert!(bound.contains(wanted), "{bound}");
        }
        for shown in [&trip.original, &trip.by_client, &trip.by_bkp] {
            assert_eq!(shown.logins, ["plain", "keen"], "{:?}", trip.product);
        }
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn rights_and_roles_come_back_to_the_column_and_the_routine() {
    for trip in &*TRIPS {
        let app = trip.object("SHOW GRANTS FOR `app`", "");
        for wanted in ["SELECT (`id`)", "WITH GRANT OPTION", "ON PROCEDURE `torture`.`fill`", "`reporter`"] {
            assert!(
                trip.objects("SHOW GRANTS FOR `app`").iter().any(|grant| grant.contains(wanted)),
                "{wanted}: {app}"
            );
        }
        trip.object("SHOW GRANTS FOR `reporter`", "SELECT");
    }
    trip(Product::MariaDb).object("SHOW GRANTS FOR `plain`", "SET DEFAULT ROLE `reporter`");
    trip(Product::MySql).object("SHOW CREATE USER `plain`", "DEFAULT ROLE `reporter`@`%`");
    trip(Product::MySql).object("SHOW GRANTS FOR `bound`", "BACKUP_ADMIN");
}

/// A letter beyond the basic plane is none that a name may have, on either product.
#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn tables_with_a_slash_a_dot_a_newline_an_emoji_or_two_dots_for_a_name_come_back() {
    for trip in &*TRIPS {
        let names = ["a`b.c/d", "new\nline", "주문", "..", ".", "@views", "☕ ❤", "a b\\c'd\"e;f", "%2F"];
        for name in names {
            assert_eq!(trip.table_of("odd.na/me", name).rows.len(), 1, "{name}");
        }
        let beyond = trip.original.tables.keys().any(|(_, name)| name.chars().any(|letter| letter > '\u{FFFF}'));
        assert!(!beyond);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn schemas_keep_their_default_character_sets() {
    for trip in &*TRIPS {
        trip.object("SHOW CREATE DATABASE `torture`", "latin1_german1_ci");
        trip.object("SHOW CREATE DATABASE `odd.na/me`", "utf8mb4");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn equal_rows_of_a_table_without_a_key_come_back_as_often_as_they_were() {
    for trip in &*TRIPS {
        let rows = &trip.table("no_key").rows;
        let count = |first: Option<&str>| rows.iter().filter(|row| row[0].as_deref() == first).count();
        assert_eq!((count(Some("1")), count(None), count(Some("2"))), (3, 2, 1), "{rows:?}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn vectors_and_their_index_come_back() {
    let trip = TRIPS.iter().find(|trip| trip.suite == Suite::Newest).unwrap();
    assert!(trip.manifest.version.starts_with("11."), "{}", trip.manifest.version);
    let floats: Vec<u8> = [0.1_f32, -2.0, 3e18].iter().flat_map(|float| float.to_le_bytes()).collect();
    assert_eq!(trip.table("vectors").cell("1", "v").to_lowercase(), hex::encode(floats));
    assert!(trip.table("vectors").definition.contains("VECTOR KEY `near` (`v`)"));
}
