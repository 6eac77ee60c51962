//! Where transactions begin and end, in the forms that a live server of today does not write, or seldom.

use super::{File, Kind};
use crate::mysql::binlog::{BinlogError, Checksum, Clock, Ending, SegmentReader, Transaction, Transactions, Verb};

/// A statement's body: no status variables, schema `mall`.
fn query(text: &str) -> Vec<u8> {
    let mut body = vec![0; 4 + 4];
    body.extend_from_slice(&[4, 0, 0, 0, 0]);
    body.extend_from_slice(b"mall\0");
    body.extend_from_slice(text.as_bytes());
    body
}

/// MySQL's GTID event as 5.6 wrote it: no clock, no times.
fn gtid(number: u64) -> Vec<u8> {
    [&[1][..], &[0x11; 16], &number.to_le_bytes()].concat()
}

fn mariadb_gtid(sequence: u64, flags: u8) -> Vec<u8> {
    [&sequence.to_le_bytes()[..], &7_u32.to_le_bytes(), &[flags], &[0; 6]].concat()
}

fn read(file: &File) -> Vec<Transaction> {
    Transactions::new(&file.bytes[..]).unwrap().map(|transaction| transaction.unwrap()).collect()
}

#[test]
fn a_log_of_old_without_gtid_events_has_transactions_too() {
    let mut file = File::new(Checksum::Crc32);
    file.push(Kind::QUERY, 100, &query("BEGIN"));
    file.push(Kind::INTVAR, 100, &[2, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.push(Kind::QUERY, 100, &query("INSERT INTO t VALUES (NULL)"));
    file.push(Kind::XID, 101, &[0; 8]);
    file.push(Kind::USER_VAR, 102, &[0; 9]);
    file.push(Kind::QUERY, 102, &query("DROP TABLE other.t"));
    file.push(Kind::STOP, 103, &[]);
    let transactions = read(&file);
    let spans: Vec<_> = transactions.iter().map(|it| (it.group.begin as usize, it.group.end as usize)).collect();
    let at = |index: usize| file.offsets[index];
    assert_eq!(spans, [(at(1), at(5)), (at(5), at(7))]);
    assert!(transactions.iter().all(|it| it.group.gtid.is_none() && it.group.clock == Clock::Session));
    assert_eq!(transactions[0].group.committed.timestamp(), 101);
    let (name, touched) = transactions[1].changes.tables.first_key_value().unwrap();
    assert_eq!((name.schema.as_str(), name.table.as_str()), ("other", "t"));
    assert!(touched.is_any(&[Verb::Drop]) && !touched.is_any(&[Verb::Insert]));
}

#[test]
fn a_standalone_group_of_mariadb_ends_with_its_one_event() {
    let mut file = File::new(Checksum::None);
    file.push(Kind::MARIADB_GTID, 5, &mariadb_gtid(1, 1));
    file.push(Kind::INTVAR, 5, &[1; 9]);
    file.push(Kind::QUERY, 5, &query("CREATE TABLE t (a INT)"));
    file.push(Kind::BINLOG_CHECKPOINT, 5, b"\x08\0\0\0binlog.1");
    file.push(Kind::MARIADB_GTID, 6, &mariadb_gtid(2, 0));
    file.push(Kind::QUERY, 6, &query("CREATE TABLE u (a INT)"));
    file.push(Kind::QUERY, 6, &query("ROLLBACK"));
    file.push(Kind::MARIADB_GTID, 7, &mariadb_gtid(3, 1));
    // Rows of a statement that is not at its end, and of its end.
    file.push(Kind::WRITE_ROWS_V1, 7, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.push(Kind::WRITE_ROWS_V1, 7, &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    let transactions = read(&file);
    let told: Vec<_> = transactions
        .iter()
        .map(|it| (it.group.gtid.as_ref().unwrap().to_string(), it.group.ending, it.group.end as usize))
        .collect();
    let end = file.bytes.len();
    assert_eq!(
        told,
        [
            ("7-1-1".to_owned(), Ending::Commit, file.offsets[4]),
            ("7-1-2".to_owned(), Ending::Rollback, file.offsets[8]),
            ("7-1-3".to_owned(), Ending::Commit, end),
        ]
    );
}

#[test]
fn a_transaction_without_its_end_is_not_one() {
    let mut file = File::new(Checksum::Crc32);
    file.push(Kind::GTID, 1, &gtid(1));
    file.push(Kind::QUERY, 1, &query("BEGIN"));
    file.push(Kind::QUERY, 1, &query("COMMIT"));
    file.push(Kind::GTID, 1, &gtid(2));
    file.push(Kind::QUERY, 1, &query("BEGIN"));
    let begin = file.offsets[4] as u64;
    for cut in [0, 1, 25] {
        let bytes = &file.bytes[..file.bytes.len() - cut];
        let mut transactions = Transactions::new(bytes).unwrap();
        assert_eq!(transactions.by_ref().flatten().count(), 1);
        assert_eq!(transactions.open(), Some(begin));
        assert_eq!(transactions.torn().is_some(), cut > 0);
    }
    // The next one begins: what stands between is not whole.
    file.push(Kind::GTID, 1, &gtid(3));
    let last = Transactions::new(&file.bytes[..]).unwrap().last().unwrap();
    assert!(matches!(last, Err(BinlogError::Malformed { offset, .. }) if offset == file.offsets[6] as u64));
}

#[test]
fn an_incident_says_that_the_log_is_not_complete() {
    let mut file = File::new(Checksum::Crc32);
    file.push(Kind::GTID, 1, &gtid(1));
    file.push(Kind::INCIDENT, 1, &[1, 0, 0]);
    assert_eq!(read(&file)[0].group.ending, Ending::Incident);
}

#[test]
fn damage_is_told_as_damage_and_not_as_what_the_bytes_seem_to_say() {
    let mut file = File::new(Checksum::Crc32);
    file.push(Kind::GTID, 1, &gtid(1));
    file.push(Kind::TRANSACTION_PAYLOAD, 1, &vec![0xFF; 100_000]);
    let last = Transactions::new(&file.bytes[..]).unwrap().last().unwrap();
    assert!(matches!(last, Err(BinlogError::Malformed { what, .. }) if what.contains("compressed")), "{last:?}");
    *file.bytes.last_mut().unwrap() ^= 1;
    let last = Transactions::new(&file.bytes[..]).unwrap().last().unwrap();
    assert!(matches!(last, Err(BinlogError::Damaged { .. })), "{last:?}");
    let cut = &file.bytes[..file.bytes.len() - 10];
    let mut transactions = Transactions::new(cut).unwrap();
    assert!(transactions.next().is_none() && transactions.torn().is_some());
}

#[test]
fn a_gtid_that_no_server_gives_is_refused() {
    for (kind, body) in [
        (Kind::GTID, gtid(u64::MAX)),
        (Kind::GTID, gtid(1)[..20].to_vec()),
        (Kind::GTID_TAGGED, vec![]),
        (Kind::GTID_TAGGED, vec![0x04, 0, 0]),
        // The tag is longer than the event; a field is unknown and must be known.
        (Kind::GTID_TAGGED, vec![0x02, 0, 0, 0x06, 0xFE, b'a']),
        (Kind::GTID_TAGGED, vec![0x02, 0, 0x64, 0x60, 0]),
        (Kind::MARIADB_GTID, vec![1; 12]),
    ] {
        let mut file = File::new(Checksum::Crc32);
        file.push(kind, 1, &body);
        let mut reader = SegmentReader::new(&file.bytes[..]).unwrap();
        reader.next().unwrap();
        let event = reader.next().unwrap().unwrap();
        assert!(crate::mysql::binlog::GtidEvent::parse(&event).is_err(), "{kind} {body:?}");
    }
}

/// A table map of a table with one column, a TINYINT.
fn table_map(id: u64, table: &str) -> Vec<u8> {
    let mut body = [&id.to_le_bytes()[..6], &[0, 0, 4], b"mall\0", &[table.len() as u8]].concat();
    body.extend_from_slice(table.as_bytes());
    body.extend_from_slice(&[0, 1, 1, 0, 0]);
    body
}

/// One row of that table, which ends its statement or not.
fn delete(id: u64, is_end: bool) -> Vec<u8> {
    [&id.to_le_bytes()[..6], &[u8::from(is_end), 0, 1, 1, 0, 42]].concat()
}

#[test]
fn tables_past_what_is_held_at_once_are_counted_or_said_to_be_missing() {
    let transaction = |is_end: bool| {
        let mut file = File::new(Checksum::Crc32);
        file.push(Kind::QUERY, 1, &query("BEGIN"));
        for id in 0..1100 {
            file.push(Kind::TABLE_MAP, 1, &table_map(id, &format!("t{id}")));
            file.push(Kind::DELETE_ROWS_V1, 1, &delete(id, is_end));
        }
        file.push(Kind::XID, 1, &[0; 8]);
        read(&file).remove(0).changes
    };
    let changes = transaction(true);
    assert!(!changes.is_more && !changes.are_tables_more);
    assert_eq!(changes.tables.len(), 1100);
    assert!(changes.tables.values().all(|touched| touched.deleted == 1 && !touched.is_least));
    // One statement over more tables than any has.
    let changes = transaction(false);
    assert!(changes.is_more && changes.are_tables_more && changes.tables.len() == 1024);
}

#[test]
fn a_list_of_tables_that_is_not_read_to_its_end_is_said_to_be_longer() {
    for (name, count, is_more) in [("t", 1000, false), ("t", 1100, true), (&*"long".repeat(20), 1000, true)] {
        let mut file = File::new(Checksum::Crc32);
        file.push(Kind::QUERY, 1, &query(&format!("DROP TABLE {}", vec![name; count].join(","))));
        assert_eq!(read(&file)[0].changes.are_tables_more, is_more, "{} {count}", name.len());
    }
}

#[test]
fn an_incident_without_a_gtid_is_told_too() {
    let mut file = File::new(Checksum::Crc32);
    file.push(Kind::INCIDENT, 1, &[1, 0, 0]);
    assert_eq!(read(&file)[0].group.ending, Ending::Incident);
}

/// A disk that fails from an offset on.
struct Failing<'a>(&'a [u8]);

impl std::io::Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::Error::other("the disk fails")),
            read => Ok(read),
        }
    }
}

#[test]
fn an_input_that_fails_within_an_event_is_not_taken_for_damage() {
    let mut rows = delete(1, true);
    rows.extend((0..100_000).flat_map(|_| [0, 42]));
    for (kind, body) in [(Kind::DELETE_ROWS_V1, rows), (Kind::TRANSACTION_PAYLOAD, vec![2, 1, 0xFF, 0, 0])] {
        let mut body = body;
        body.resize(200_000, 0);
        let mut file = File::new(Checksum::Crc32);
        file.push(Kind::GTID, 1, &gtid(1));
        file.push(Kind::TABLE_MAP, 1, &table_map(1, "t"));
        file.push(kind, 1, &body);
        let last = Transactions::new(Failing(&file.bytes[..150_000])).unwrap().last().unwrap();
        let Err(BinlogError::Io { error, .. }) = last else { panic!("{last:?}") };
        assert_eq!(error.to_string(), "the disk fails");
    }
}
