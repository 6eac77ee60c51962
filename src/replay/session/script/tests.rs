use super::*;
use crate::mysql::binlog::{Checksum, Format};

/// Writes an event of these bytes.
fn event(kind: Kind, flags: u16, body: &[u8]) -> Vec<u8> {
    made::event(kind, 7, 0, flags, body, Checksum::None)
}

/// Writes a statement in a schema.
fn query(schema: &str, text: &str) -> Vec<u8> {
    let mut body = vec![9, 0, 0, 0, 0, 0, 0, 0, u8::try_from(schema.len()).unwrap(), 0, 0, 0, 0];
    body.extend(schema.bytes());
    body.push(0);
    body.extend(text.bytes());
    event(Kind::QUERY, 0, &body)
}

fn rows(table: u8, is_end: bool, bytes: usize) -> Vec<u8> {
    event(Kind::WRITE_ROWS, 0, &[&[table, 0, 0, 0, 0, 0, u8::from(is_end), 0], &vec![7; bytes][..]].concat())
}

fn at(offset: u64) -> Position {
    Position { file: "b.000001".to_owned(), offset }
}

/// Returns what is sent for one transaction of these events, and where it is split.
fn told(dialect: &Dialect, first: &[u8], gtid: &str, events: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let mut sent = Vec::new();
    let mut out = |parcel: Parcel| {
        match parcel.work {
            Work::Own(text) => sent.push(String::from_utf8(text).unwrap().replace("@@session.", "").replace('\n', " ")),
            Work::Said { schema, set, text } => {
                let set = set.replace("SET ", "").replace("@@session.", "");
                let set: Vec<_> = set.split(", ").filter(|one| one.contains("insert_id")).collect();
                sent.push(format!("<{}|{}|{}>", schema.join(";"), set.join(","), String::from_utf8_lossy(&text)));
            }
        }
        Ok(())
    };
    let mut script = Script::new(dialect, at(4), &mut out);
    let parse = |raw| Event::parse(raw, 100, Checksum::None).unwrap();
    let run = (|| {
        script.begin(&parse(first), Some(gtid.parse().unwrap()), at(100))?;
        for raw in events {
            script.event(&parse(raw), &at(900))?;
        }
        script.end(&at(900))?;
        script.finish()
    })();
    run.map(|()| sent).map_err(|error| error.to_string())
}

const MYSQL: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:7";

fn mysql(events: &[Vec<u8>]) -> Result<Vec<String>, String> {
    told(&Dialect::plain(Product::MySql), &event(Kind::GTID, 0, &[0; 25]), MYSQL, events)
}

fn mariadb(flags: u8, events: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let mut body = [0; 19];
    body[FLAGS_AT] = flags;
    told(&Dialect::plain(Product::MariaDb), &event(Kind::MARIADB_GTID, 0, &body), "0-1-7", events)
}

/// The events that a text sends as rows.
fn binlogs(text: &str) -> Vec<Vec<u8>> {
    text.split("BINLOG '").skip(1).map(|rest| STANDARD.decode(rest.split('\'').next().unwrap()).unwrap()).collect()
}

#[test]
fn rows_go_with_the_gtid_of_their_transaction_and_nothing_follows_them_in_their_packet() {
    let map = event(Kind::TABLE_MAP, 0, &[1; 20]);
    let sent = mysql(&[query("", "BEGIN"), map.clone(), rows(1, true, 9), event(Kind::XID, 0, &[0; 8])]).unwrap();
    let [text, after] = &sent[..] else { panic!("{sent:?}") };
    assert!(text.starts_with(&format!("SET gtid_next = '{MYSQL}'; START TRANSACTION; BINLOG")), "{text}");
    assert_eq!(after, "COMMIT; SET gtid_next = 'AUTOMATIC'; ");
    assert_eq!(binlogs(text), [[map, rows(1, true, 9)].concat()]);
}

#[test]
fn a_statement_of_many_rows_is_sent_in_pieces_each_with_its_tables() {
    let map = event(Kind::TABLE_MAP, 0, &[1; 20]);
    let large = ROWS_BYTES - 100;
    let sent =
        mysql(&[query("", "BEGIN"), map.clone(), rows(1, false, large), rows(1, false, large), rows(1, true, 1)]);
    let pieces: Vec<_> = sent.unwrap().iter().flat_map(|text| binlogs(text)).collect();
    // The last of each piece ends its statement.
    assert_eq!(pieces.len(), 2);
    assert!(pieces[0] == [map.clone(), rows(1, true, large)].concat());
    assert!(pieces[1] == [map, rows(1, false, large), rows(1, true, 1)].concat());
}

#[test]
fn rows_longer_than_a_packet_are_refused_with_the_setting() {
    let map = event(Kind::TABLE_MAP, 0, &[1; 20]);
    let refused = mysql(&[query("", "BEGIN"), map, rows(1, true, 900_000)]).unwrap_err();
    assert!(refused.contains("b.000001:100") && refused.contains("max_allowed_packet"), "{refused}");
}

#[test]
fn a_statement_goes_alone_in_its_schema_and_with_what_it_was_given() {
    let given = event(Kind::INTVAR, 0, &[&[2][..], &5_u64.to_le_bytes()].concat());
    let sent =
        mysql(&[query("", "BEGIN"), given, query("mall", "INSERT"), query("mall", "UPDATE"), query("", "COMMIT")]);
    let expected = [
        format!("SET gtid_next = '{MYSQL}'; START TRANSACTION; "),
        "<USE `mall`|insert_id = 5|INSERT>".to_owned(),
        "<||UPDATE>".to_owned(),
        "COMMIT; SET gtid_next = 'AUTOMATIC'; ".to_owned(),
    ];
    assert_eq!(sent.unwrap(), expected);
}

#[test]
fn a_definition_on_mysql_leaves_its_gtid_behind_whatever_it_did() {
    let sent = mysql(&[query("mall", "DROP TABLE t")]).unwrap();
    let again = format!("SET gtid_next = '{MYSQL}'; START TRANSACTION; COMMIT; SET gtid_next = 'AUTOMATIC'; ");
    assert_eq!(sent, [format!("SET gtid_next = '{MYSQL}'; "), "<USE `mall`||DROP TABLE t>".to_owned(), again]);
}

#[test]
fn a_mariadb_notes_its_progress_in_the_transaction_and_round_what_is_none() {
    let map = event(Kind::TABLE_MAP, 0, &[1; 20]);
    let sent = mariadb(TRANSACTIONAL, &[map.clone(), rows(1, true, 9), event(Kind::XID, 0, &[0; 8])]).unwrap().concat();
    assert!(
        sent.starts_with("SET gtid_domain_id = 0, server_id = 1, gtid_seq_no = 7; START TRANSACTION; BINLOG"),
        "{sent}"
    );
    assert!(
        sent.contains("; INSERT INTO `bkp_restore`.`bkp_session`") && sent.ends_with("`doing` = NULL; COMMIT; "),
        "{sent}"
    );

    let sent = mariadb(STANDALONE, &[query("mall", "DROP TABLE t")]).unwrap();
    let [before, said, after] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(said, "<USE `mall`||DROP TABLE t>");
    assert!(
        before.contains("SET sql_log_bin = 0; INSERT") && before.contains(r#""end":{"file":"b.000001","offset":900}"#)
    );
    assert!(after.contains("`place` = 900, `doing` = NULL; SET sql_log_bin = 1; "), "{after}");

    // Rows of an engine without transactions, too.
    let sent = mariadb(0, &[map.clone(), rows(1, true, 9), query("", "COMMIT")]).unwrap().concat();
    assert!(sent.contains(r#""end":null"#), "{sent}");
}

#[test]
fn rows_of_a_table_that_a_mariadb_makes_of_a_query_are_a_transaction_of_their_own() {
    let map = event(Kind::TABLE_MAP, 0, &[1; 20]);
    let create = query("mall", "CREATE TABLE t (id INT)");
    let sent = mariadb(0, &[create, map, rows(1, true, 9), event(Kind::XID, 0, &[0; 8])]).unwrap();
    assert!(sent[0].contains(r#""end":null"#) && !sent[0].contains("START TRANSACTION"), "{sent:?}");
    assert!(
        sent[2].starts_with("SET gtid_domain_id = 0, server_id = 99, gtid_seq_no = 0; START TRANSACTION; BINLOG"),
        "{sent:?}"
    );
}

#[test]
fn what_no_session_can_bring_is_refused_by_its_name() {
    for (events, why) in [
        (vec![event(Kind::EXECUTE_LOAD_QUERY, 0, &[0; 40])], "LOAD DATA"),
        (
            vec![query("", "XA START X'61'"), query("", "XA END X'61'"), event(Kind::XA_PREPARE, 0, &[0])],
            "prepares an XA",
        ),
        (vec![query("", "XA COMMIT X'61'")], "ends an XA"),
        (vec![event(Kind::INCIDENT, 0, &[0; 3])], "lost"),
        (vec![event(Kind(99), 0, &[])], "does not know"),
    ] {
        let refused = mysql(&events).unwrap_err();
        assert!(refused.contains(why) && refused.contains(MYSQL), "{refused}");
    }
    assert!(mysql(&[event(Kind(99), flag::IGNORABLE, &[]), query("", "BEGIN"), query("", "COMMIT")]).is_ok());
    // Of one phase, it is a transaction as any.
    let one_phase = [query("", "XA START X'61'"), query("", "XA END X'61'"), event(Kind::XA_PREPARE, 0, &[1])];
    assert!(mysql(&one_phase).unwrap().concat().contains("COMMIT"));
}

#[test]
fn an_account_that_stands_for_itself_and_a_failed_statement_are_refused() {
    let mut failed = query("mall", "INSERT");
    failed[Header::BYTES + 9] = 1;
    assert!(mysql(&[query("", "BEGIN"), failed]).unwrap_err().contains("error 1"));
}

#[test]
fn a_rolled_back_transaction_counts_as_executed() {
    let sent = mysql(&[query("", "BEGIN"), query("mall", "INSERT"), query("", "ROLLBACK")]).unwrap();
    assert!(
        sent[2].starts_with(&format!("ROLLBACK; SET gtid_next = '{MYSQL}'; START TRANSACTION; COMMIT")),
        "{sent:?}"
    );
}

#[test]
fn a_format_description_says_that_events_have_no_checksum() {
    let mut body = vec![4, 0];
    body.extend(b"9.7.0");
    body.resize(2 + 50, 0);
    body.extend([9, 9, 9, 9, 19]);
    body.extend([0; 42]);
    body.push(1);
    let raw = made::event(Kind::FORMAT_DESCRIPTION, 7, 0, 0, &body, Checksum::Crc32);
    assert_eq!(Format::parse(&raw, 4).unwrap().checksum, Checksum::Crc32);
    let told = made::without_checksum(&raw);
    assert_eq!((told.len(), Format::parse(&told, 4).unwrap().checksum), (raw.len(), Checksum::None));
}
