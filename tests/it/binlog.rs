//! Live: bkp reads each product's binlogs as the product's own tool does, and finds a mistake in them.

mod oracle;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bkp::mysql::binlog::{
    BinlogError, Changes, Checksum, Clock, Groups, GtidEvent, Header, Kind, SegmentReader, Step, Transaction,
    Transactions, mariadb_gtid_list, previous_gtids,
};
use bkp::mysql::gtid::Executed;
use bkp::mysql::manifest;
use serde_json::Value;

use crate::cli::alone;
use crate::servers::{Product, Server, Suite};

/// Runs the fixtures' statements in one session, and closes the last file.
fn eventful(product: Product, suite: Suite) -> Server {
    let server = Server::start_of(product, suite, &["--server-id=1"]);
    let rows = server.dir().join("rows.csv");
    fs::write(&rows, "loaded,one\nloaded,two\n").unwrap();
    let own = if product == Product::MariaDb { "mariadb" } else { "mysql" };
    let fixture = |name: &str| fs::read_to_string(format!("tests/fixtures/binlog/{name}.sql")).unwrap();
    let script = (fixture("common") + &fixture(own)).replace("@rows@", rows.to_str().unwrap()) + "FLUSH BINARY LOGS;\n";
    let (client, arguments) = server.client();
    let mut client = Command::new(client)
        .args(arguments)
        .arg("--local-infile=1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server
}

fn binlogs(server: &Server) -> Vec<PathBuf> {
    let names = server.query("SHOW BINARY LOGS").into_iter().map(|row| row[0].clone().unwrap());
    let files: Vec<PathBuf> = names.map(|name| server.dir().join("data").join(name)).collect();
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn headers(bytes: &[u8]) -> Result<Vec<(u64, Header)>, BinlogError> {
    let (mut reader, mut headers) = (SegmentReader::new(bytes)?, Vec::new());
    while let Some(event) = reader.next()? {
        headers.push((event.offset, event.header));
    }
    assert_eq!((reader.torn(), reader.offset()), (None, bytes.len() as u64));
    Ok(headers)
}

/// Reads a file, and finds each event, GTID and commit time where the product's own tool finds it.
fn agrees(server: &Server, file: &PathBuf) {
    let product = server.product();
    let told = oracle::ask(product, file);
    let bytes = fs::read(file).unwrap();
    let headers = headers(&bytes).unwrap();
    // MariaDB 11.8 gives events within a transaction no position: for these there is what the server lists.
    let placed = headers.iter().filter(|(_, header)| header.end > 0);
    let own: Vec<oracle::Event> = placed.copied().map(oracle::Event::from).collect();
    assert_eq!(own, told.events, "{}", file.display());
    if product == Product::MariaDb {
        let name = |kind: Kind| kind.name().unwrap().to_owned();
        let own: Vec<_> =
            headers.iter().map(|(offset, header)| (*offset, name(header.kind), header.end.into())).collect();
        assert_eq!(own, oracle::listed(server, file), "{}", file.display());
    }
    let groups: Vec<_> = Transactions::new(&bytes[..]).unwrap().map(|transaction| transaction.unwrap().group).collect();
    let gtids: Vec<_> = groups.iter().map(|group| group.gtid.as_ref().map(ToString::to_string)).collect();
    assert_eq!(gtids, told.gtids, "{}", file.display());
    if product == Product::MySql {
        let micros: Vec<_> = groups.iter().map(|group| group.committed.timestamp_micros()).collect();
        assert_eq!(micros, told.committed_micros, "{}", file.display());
        assert!(groups.iter().all(|group| group.clock == Clock::Server));
    }
    assert!(groups.windows(2).all(|pair| pair[0].end <= pair[1].begin), "{groups:?}");
}

/// MySQL says how long each transaction is: bkp finds its end by what the events are, as it must on MariaDB.
fn transactions_end_where_mysql_says(bytes: &[u8]) {
    let (mut reader, mut groups, mut told) = (SegmentReader::new(bytes).unwrap(), Groups::default(), None);
    while let Some(event) = reader.next().unwrap() {
        if let Some(name) = GtidEvent::parse(&event).unwrap() {
            told = Some(name.transaction_bytes.expect("MySQL tells it"));
        }
        if let Step::End(group) = groups.push(&event).unwrap() {
            assert_eq!(Some(group.end - group.begin), told, "{group:?}");
        }
    }
}

/// A bit that flips in any event is found where the file has checksums.
fn a_flipped_bit_is_found(bytes: &[u8]) -> usize {
    let headers = headers(bytes).unwrap();
    for (index, (offset, header)) in headers.iter().enumerate() {
        let at = usize::try_from(*offset + (index as u64 * 7919) % u64::from(header.length)).unwrap();
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        let mut reader = SegmentReader::new(&damaged[..]).unwrap();
        let error = loop {
            match reader.next() {
                Ok(Some(_)) => {}
                Ok(None) => break reader.torn().map(|torn| torn.offset),
                Err(BinlogError::Damaged { offset, .. } | BinlogError::Malformed { offset, .. }) => break Some(offset),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(error, Some(*offset), "{header:?}: byte {at}");
    }
    headers.len()
}

/// Follows the state of a server through its files: each says at its head what was before it.
fn executed(product: manifest::Product, files: &[PathBuf]) -> Executed {
    let mut executed = Executed::new(product);
    for file in files {
        let bytes = fs::read(file).unwrap();
        let mut reader = SegmentReader::new(&bytes[..]).unwrap();
        while let Some(event) = reader.next().unwrap() {
            let before = match event.header.kind {
                Kind::PREVIOUS_GTIDS => Executed::MySql(previous_gtids(event.body()).unwrap()),
                Kind::MARIADB_GTID_LIST => Executed::MariaDb(mariadb_gtid_list(event.body()).unwrap()),
                _ => continue,
            };
            assert_eq!(before, executed, "{}", file.display());
        }
        for transaction in Transactions::new(&bytes[..]).unwrap() {
            transaction.unwrap().group.gtid.iter().for_each(|gtid| executed.add(gtid));
        }
    }
    executed
}

/// Says in one line what a transaction changed.
fn line(Transaction { group, changes }: &Transaction) -> String {
    let Changes { tables, verbs, texts, is_more, are_tables_more, has_calls: _ } = changes;
    let mut line = format!("{:?}", group.ending).to_lowercase();
    for (name, touched) in tables {
        let rows = [touched.inserted, touched.updated, touched.deleted];
        line += &format!(" | {}.{} {rows:?} {:?}", name.schema, name.table, touched.verbs);
        assert!(!touched.is_least, "rows of {name:?} were not counted: {group:?}");
    }
    line += &format!(" | {verbs:?} {} statements", texts.len());
    assert!(!is_more && !are_tables_more, "{group:?}");
    line
}

fn read_as_its_own_tool_reads(product: Product, suite: Suite) -> (Server, String) {
    let server = eventful(product, suite);
    let files = binlogs(&server);
    let (mut lines, mut without_checksum) = (String::new(), 0);
    for file in &files {
        agrees(&server, file);
        let bytes = fs::read(file).unwrap();
        let mut transactions = Transactions::new(&bytes[..]).unwrap();
        for transaction in &mut transactions {
            lines += &(line(&transaction.unwrap()) + "\n");
        }
        assert_eq!((transactions.torn(), transactions.open()), (None, None));
        if transactions.format().unwrap().checksum == Checksum::None {
            without_checksum += 1;
        } else if bytes.len() < 100_000 {
            assert!(a_flipped_bit_is_found(&bytes) >= 2);
        }
        if product == Product::MySql {
            transactions_end_where_mysql_says(&bytes);
        }
    }
    assert_eq!(without_checksum, 1, "the workload has lost its file without checksums");
    let (own, state) = match product {
        Product::MySql => (manifest::Product::MySql, "SELECT @@gtid_executed"),
        Product::MariaDb => (manifest::Product::MariaDb, "SELECT @@gtid_binlog_state"),
    };
    assert_eq!(executed(own, &files), Executed::parse(own, &server.value(state)).unwrap());
    (server, lines)
}

/// Runs `bkp binlog find` over a server's own files.
fn find(server: &Server, arguments: &[&str]) -> Value {
    let dir = server.dir().join("data").display().to_string();
    alone(&[&["binlog", "find", "--dir", &dir, "--json"], arguments].concat()).expect(0).json()
}

/// The operator knows the table and that it is gone.
fn a_mistake_is_found(server: &Server) {
    let dropped = find(server, &["--table", "mall.kinds", "--type", "drop,truncate"]);
    let found = dropped["found"].as_array().unwrap();
    // The table by itself, and later its schema.
    assert_eq!(found.len(), 2, "{dropped}");
    assert_eq!(found[0]["tables"][0]["statements"][0], "drop");
    assert!(found[0]["statements"][0].as_str().unwrap().contains("`kinds`"), "{dropped}");
    assert_eq!(found[1]["tables"][0]["table"], "");
    let gtid = found[0]["gtid"].as_str().unwrap();
    let file = server.dir().join("data").join(found[0]["file"].as_str().unwrap());
    let bytes = fs::read(file).unwrap();
    let mut all = Transactions::new(&bytes[..]).unwrap().map(|transaction| transaction.unwrap().group);
    let group = all.find(|group| Some(group.begin) == found[0]["begin"].as_u64()).expect("it begins there");
    assert_eq!(group.gtid.unwrap().to_string(), gtid);

    let deleted = find(server, &["--table", "mall.orders", "--type", "delete", "--limit", "1"]);
    assert_eq!(deleted["left_out"], 1, "{deleted}");
    assert_eq!(deleted["found"][0]["tables"][0]["deleted"], 1, "{deleted}");
    let later = find(server, &["--table", "mall", "--since", "2999-01-01"]);
    assert_eq!(later["found"].as_array().unwrap().len(), 0, "{later}");
    assert!(later["transactions"].as_u64().unwrap() > 50, "{later}");

    let dir = server.dir().join("data").display().to_string();
    let shown = alone(&["binlog", "find", "--dir", &dir, "--table", "mall.kinds", "--type", "drop"]).expect(0);
    assert!(shown.out.contains(gtid) && shown.out.contains("DROP TABLE `kinds`"), "{}", shown.out);
    assert!(shown.out.contains("mall.kinds drop"), "{}", shown.out);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_mysql_writes_is_read_as_mysqlbinlog_reads_it_and_a_mistake_is_found() {
    let (server, lines) = read_as_its_own_tool_reads(Product::MySql, Suite::Stable);
    // The child's rows of an ON DELETE CASCADE: the server is newer than 9.6.
    assert_eq!(lines.matches("mall.items [0, 0, 1] {} | mall.orders [0, 0, 1]").count(), 2, "{lines}");
    insta::assert_snapshot!("mysql", lines);
    a_mistake_is_found(&server);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_mariadb_writes_is_read_as_mariadb_binlog_reads_it_and_a_mistake_is_found() {
    let (server, lines) = read_as_its_own_tool_reads(Product::MariaDb, Suite::Stable);
    assert!(!lines.contains("mall.items [0, 0, 1] {} | mall.orders"), "MariaDB does not log a cascade's rows: {lines}");
    insta::assert_snapshot!("mariadb", &lines);
    a_mistake_is_found(&server);
    let (_newest, newest) = read_as_its_own_tool_reads(Product::MariaDb, Suite::Newest);
    assert_eq!(newest, lines, "MariaDB 11.8 does the same, and writes it otherwise");
}

#[test]
fn a_damaged_file_is_named_and_the_others_are_searched() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("b.000001"), b"\xFEbin\x01\x02\x03").unwrap();
    fs::write(file("b.000002"), [b"\xFEbin".as_slice(), &[0; 30]].concat()).unwrap();
    fs::write(file("b.000003"), b"\xFDbin").unwrap();
    let path = dir.path().display().to_string();
    let ended = alone(&["binlog", "find", "--dir", &path]).expect(13);
    assert!(ended.err.contains("b.000002`: the event at offset 4 makes no sense"), "{}", ended.err);
    assert!(ended.err.contains("b.000003`: the binlog is encrypted") && ended.err.contains("hint: "), "{}", ended.err);
    assert!(ended.out.contains("b.000001` ends within a transaction, from offset 4 on"), "{}", ended.out);
    assert!(ended.out.contains("0 of 0 transactions in 3 files"), "{}", ended.out);
    assert!(ended.out.contains("NOT COMPLETE: `b.000001` does not end"), "{}", ended.out);
    for name in ["b.000001", "b.000002", "b.000003"] {
        fs::remove_file(file(name)).unwrap();
    }
    fs::write(file("b.000007"), b"\xFEbin").unwrap();
    fs::write(file("b.000009"), b"\xFEbin").unwrap();
    let ended = alone(&["binlog", "find", "--dir", &path]).expect(3);
    assert!(ended.out.contains("NOT COMPLETE: there is no file between `b.000007` and `b.000009`"), "{}", ended.out);
    let empty = tempfile::tempdir().unwrap();
    let ended = alone(&["binlog", "find", "--dir", &empty.path().display().to_string()]).expect(2);
    assert!(ended.err.contains("has no binlog files"), "{}", ended.err);
}
