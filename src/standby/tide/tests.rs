use std::path::Path;

use super::*;
use crate::mysql::binlog::{Checksum, Kind};
use crate::mysql::manifest::Product;
use crate::standby::shelf::whole_behind;

const SERVER: [u8; 16] = [0x3e; 16];

/// A segment that grows.
struct Growing {
    segment: Segment,
    bytes: Vec<u8>,
}

impl Growing {
    fn new(dir: &Path, name: &str) -> Self {
        let mut body = vec![4, 0];
        body.extend_from_slice(b"9.7.0");
        body.resize(2 + 50 + 4, 0);
        body.push(19);
        body.extend_from_slice(&[0; 42]);
        body.push(1);
        let segment = Segment { name: name.to_owned(), path: dir.join(name), bytes: 0 };
        let mut growing = Self { segment, bytes: MAGIC.to_vec() };
        growing.push(Kind::FORMAT_DESCRIPTION, &body);
        growing
    }

    fn push(&mut self, kind: Kind, body: &[u8]) {
        self.push_by(1, kind, body);
    }

    fn push_by(&mut self, server: u32, kind: Kind, body: &[u8]) {
        let start = self.bytes.len();
        let length = Header::BYTES + body.len() + Checksum::Crc32.bytes();
        let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        self.bytes.extend_from_slice(&7_u32.to_le_bytes());
        self.bytes.push(kind.0);
        self.bytes.extend_from_slice(&server.to_le_bytes());
        self.bytes.extend_from_slice(&number(length));
        self.bytes.extend_from_slice(&number(start + length));
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(body);
        let sum = crc32fast::hash(&self.bytes[start..]);
        self.bytes.extend_from_slice(&sum.to_le_bytes());
    }

    /// Adds a transaction of MariaDB, whose time is any session's.
    fn mariadb(&mut self, sequence: u64) -> u64 {
        self.of(1, sequence)
    }

    /// Adds one that a server wrote.
    fn of(&mut self, server: u32, sequence: u64) -> u64 {
        let body = [&sequence.to_le_bytes()[..], &0_u32.to_le_bytes(), &[0; 7]].concat();
        self.push_by(server, Kind::MARIADB_GTID, &body);
        self.push_by(server, Kind::XID, &[0; 8]);
        self.bytes.len() as u64
    }

    /// Adds the list at a head: what a server of domain 0 had written before.
    fn list(&mut self, server: u32, sequence: u64) {
        let body = [&1_u32.to_le_bytes()[..], &0_u32.to_le_bytes(), &server.to_le_bytes(), &sequence.to_le_bytes()];
        self.push(Kind::MARIADB_GTID_LIST, &body.concat());
    }

    /// Adds a transaction of MySQL that was committed then.
    fn mysql(&mut self, number: u64, second: u64) -> u64 {
        let micros = (second * 1_000_000).to_le_bytes();
        let clock = [&[2][..], &0_u64.to_le_bytes(), &1_u64.to_le_bytes(), &micros[..7], &[60]].concat();
        self.push(Kind::GTID, &[&[0][..], &SERVER, &number.to_le_bytes(), &clock].concat());
        self.push(Kind::XID, &[0; 8]);
        self.bytes.len() as u64
    }

    /// Lets the file hold so many of the bytes.
    fn write(&self, bytes: u64) {
        std::fs::write(&self.segment.path, &self.bytes[..usize::try_from(bytes).unwrap()]).unwrap();
    }
}

fn captured(file: &str) -> Captured {
    Captured {
        file: file.to_owned(),
        bytes: 0,
        sha256: String::new(),
        created: 0,
        first: None,
        last: None,
        transactions: 0,
        before: None,
        after: String::new(),
        is_closed: true,
    }
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

fn tide(product: Product, delay_s: u64) -> Tide {
    let nothing = Executed::new(product);
    Tide::new(Duration::from_secs(delay_s), Arrivals::default(), nothing.clone(), nothing)
}

fn end(tide: &Tide) -> (String, u64) {
    let (_, place) = tide.served().unwrap();
    (place.file, place.offset)
}

#[test]
fn only_whole_transactions_are_let_through_however_the_file_grows() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Growing::new(dir.path(), "b.000001");
    let mut ends = vec![file.bytes.len() as u64];
    ends.extend((1..=3).map(|sequence| file.mariadb(sequence)));
    file.write(4);
    let mut tide = tide(Product::MariaDb, 0);
    tide.push(file.segment.clone(), None).unwrap();
    for bytes in 4..=file.bytes.len() as u64 {
        file.write(bytes);
        tide.rise(at(0)).unwrap();
        let whole = ends.iter().copied().filter(|end| *end <= bytes).max();
        assert_eq!(tide.served().map(|(_, place)| place.offset), whole, "{bytes} bytes");
    }
    assert_eq!(tide.executed.to_string(), "0-1-3");
    // What a crash leaves behind the last event is none.
    std::fs::write(&file.segment.path, [&file.bytes[..], &[0; 100]].concat()).unwrap();
    assert!(!tide.rise(at(0)).unwrap());
    assert!(!tide.is_over());
}

#[test]
fn a_segment_follows_once_the_one_before_is_closed_and_let_through() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (Growing::new(dir.path(), "b.000001"), Growing::new(dir.path(), "b.000002"));
    let first_end = first.mariadb(1);
    second.mariadb(2);
    first.write(first_end);
    second.write(4);
    let mut tide = tide(Product::MariaDb, 0);
    assert!(tide.is_over());
    tide.push(first.segment.clone(), None).unwrap();
    assert!(tide.rise(at(0)).unwrap() && !tide.is_over());
    tide.close(first_end).unwrap();
    assert!(tide.is_over());
    tide.push(second.segment.clone(), None).unwrap();
    tide.rise(at(0)).unwrap();
    assert_eq!(end(&tide), ("b.000001".to_owned(), first_end), "nothing of the second is there");
    second.write(second.bytes.len() as u64);
    tide.rise(at(0)).unwrap();
    assert_eq!(end(&tide), ("b.000002".to_owned(), second.bytes.len() as u64));
    assert!(!tide.has_room(3), "the second is not over");
    tide.close(second.bytes.len() as u64).unwrap();
    assert!(tide.has_room(3) && !tide.has_room(2));
    assert_eq!(tide.drop_applied(&[captured("b.000002")]), [], "a replica may stand at its end");
    assert_eq!(tide.served().unwrap().0.len(), 2);
    // It was quick, and has applied all that is here.
    assert_eq!(tide.drop_applied(&[captured("b.000003"), captured("b.000004")]), [first.segment]);
    assert!(tide.has_room(2));
}

#[test]
fn a_delay_holds_what_was_committed_later_and_all_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Growing::new(dir.path(), "b.000001");
    let head = file.bytes.len() as u64;
    let ends: Vec<u64> = [(1, 100), (2, 130), (3, 90)].map(|(number, second)| file.mysql(number, second)).into();
    file.write(file.bytes.len() as u64);
    let mut tide = tide(Product::MySql, 60);
    tide.push(file.segment.clone(), None).unwrap();
    for (now, wanted) in [(159, head), (160, ends[0]), (189, ends[0]), (190, ends[2])] {
        tide.rise(at(now)).unwrap();
        assert_eq!(end(&tide).1, wanted, "at {now}");
    }
}

#[test]
fn where_the_binlog_has_only_sessions_clocks_a_delay_counts_from_the_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Growing::new(dir.path(), "b.000001");
    let head = file.bytes.len() as u64;
    let first = file.mariadb(1);
    let second = file.mariadb(2);
    file.write(second);
    let mut tide = tide(Product::MariaDb, 60);
    tide.push(file.segment.clone(), None).unwrap();
    // The events say second 7, as any session may.
    tide.rise(at(1_000_000)).unwrap();
    assert_eq!(end(&tide).1, head, "nobody knows when it came");
    let place = |offset| Position { file: "b.000001".to_owned(), offset };
    for (now, offset) in [(100, first), (130, second)] {
        tide.arrivals.note(&place(offset), None, at(now), Duration::from_mins(1));
    }
    for (now, wanted) in [(159, head), (160, first), (189, first), (190, second)] {
        tide.rise(at(now)).unwrap();
        assert_eq!(end(&tide).1, wanted, "at {now}");
    }
}

#[test]
fn what_the_standby_has_applied_is_let_through_whatever_the_delay() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Growing::new(dir.path(), "b.000001");
    let ends: Vec<u64> = (1..=3).map(|sequence| file.mariadb(sequence)).collect();
    file.write(ends[0]);
    let applied = Executed::parse(Product::MariaDb, "0-1-2").unwrap();
    let nothing = Executed::new(Product::MariaDb);
    let mut tide = Tide::new(Duration::from_hours(1), Arrivals::default(), nothing, applied);
    tide.push(file.segment.clone(), None).unwrap();
    tide.rise(at(100)).unwrap();
    assert_eq!((end(&tide).1, tide.has_applied()), (ends[0], false), "the capture is behind the standby");
    file.write(ends[2]);
    tide.rise(at(100)).unwrap();
    assert_eq!((end(&tide).1, tide.has_applied()), (ends[1], true));
}

#[test]
fn a_delay_holds_a_lower_number_behind_what_the_standby_has_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Growing::new(dir.path(), "b.000001");
    let ends: Vec<u64> = [4, 5, 3].map(|sequence| file.mariadb(sequence)).into();
    file.write(ends[2]);
    let applied = Executed::parse(Product::MariaDb, "0-1-5").unwrap();
    let nothing = Executed::new(Product::MariaDb);
    let mut tide = Tide::new(Duration::from_hours(1), Arrivals::default(), nothing, applied);
    tide.push(file.segment.clone(), None).unwrap();
    tide.rise(at(100)).unwrap();
    assert_eq!(end(&tide).1, ends[1]);
}

#[test]
fn what_the_standby_has_must_be_served_to_its_last_transaction_whatever_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Growing::new(dir.path(), "b.000001");
    let ends: Vec<u64> = [(1, 50), (2, 9), (1, 51), (2, 8)].map(|(server, sequence)| file.of(server, sequence)).into();
    file.write(ends[0]);
    let applied = Executed::parse(Product::MariaDb, "0-2-9").unwrap();
    let before = Executed::parse(Product::MariaDb, "0-1-49").unwrap();
    let mut tide = Tide::new(Duration::ZERO, Arrivals::default(), before, applied);
    tide.push(file.segment.clone(), None).unwrap();
    tide.rise(at(100)).unwrap();
    assert_eq!((end(&tide).1, tide.has_applied()), (ends[0], false), "50 is more than 9, and another's");
    file.write(ends[3]);
    tide.rise(at(100)).unwrap();
    assert_eq!((end(&tide).1, tide.has_applied()), (ends[3], true), "a number that went back since");
}

#[test]
fn a_segment_behind_a_gap_that_nobody_has_named_yet_is_not_let_through() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (Growing::new(dir.path(), "b.000001"), Growing::new(dir.path(), "b.000002"));
    let first_end = first.mariadb(1);
    second.list(1, 2);
    second.mariadb(3);
    first.write(first_end);
    second.write(second.bytes.len() as u64);
    let mut tide = tide(Product::MariaDb, 0);
    tide.push(first.segment.clone(), Some(first_end)).unwrap();
    tide.rise(at(0)).unwrap();
    tide.push(second.segment.clone(), None).unwrap();
    let refused = tide.rise(at(0));
    assert!(matches!(&refused, Err(StandbyError::NotNext(name)) if name == "b.000002"), "{refused:?}");
}

#[test]
fn a_segment_that_the_capture_has_made_anew_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Growing::new(dir.path(), "b.000001");
    let end = file.mariadb(1);
    file.write(end);
    let mut tide = tide(Product::MariaDb, 0);
    tide.push(file.segment.clone(), None).unwrap();
    assert!(matches!(tide.close(end + 1), Err(StandbyError::NotNext(_))));
    tide.close(end).unwrap();
}

#[test]
fn a_transaction_that_a_crash_left_without_its_end_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Growing::new(dir.path(), "b.000001");
    let whole = file.mariadb(1);
    file.push(Kind::MARIADB_GTID, &[&2_u64.to_le_bytes()[..], &0_u32.to_le_bytes(), &[0; 7]].concat());
    let bytes = file.bytes.len() as u64;
    file.write(bytes);
    let mut tide = tide(Product::MariaDb, 0);
    tide.push(file.segment.clone(), None).unwrap();
    tide.rise(at(0)).unwrap();
    assert_eq!((end(&tide).1, tide.is_over()), (whole, false));
    tide.close(bytes).unwrap();
    tide.rise(at(0)).unwrap();
    assert_eq!((end(&tide).1, tide.is_over(), tide.executed.to_string().as_str()), (bytes, true, "0-1-1"));
}

#[test]
fn a_promotion_reads_a_growing_segment_from_what_the_standby_has_to_the_last_whole_event() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Growing::new(dir.path(), "b.000001");
    let ends: Vec<u64> = (1..=3).map(|sequence| file.mariadb(sequence)).collect();
    let whole = |bytes: &[u8], from: u64| {
        std::fs::write(&file.segment.path, bytes).unwrap();
        whole_behind(&Segment { bytes: bytes.len() as u64, ..file.segment.clone() }, from).unwrap()
    };
    let mut bytes = file.bytes.clone();
    assert_eq!((whole(&bytes, 4), whole(&bytes, ends[2])), (ends[2], ends[2]));
    assert!((ends[1]..ends[2]).contains(&whole(&bytes[..bytes.len() - 1], ends[0])));
    assert_eq!(whole(&[&bytes[..], &[0; 40]].concat(), ends[0]), ends[2]);
    let event = (Header::BYTES + 8 + 4) as u64;
    // A crash has left the place of its bytes without them.
    bytes[usize::try_from(ends[2]).unwrap() - 6] ^= 1;
    assert_eq!(whole(&bytes, ends[0]), ends[2] - event);
    bytes[usize::try_from(ends[0]).unwrap() - 6] ^= 1;
    assert_eq!(whole(&bytes, ends[0]), ends[2] - event, "before the place nothing is read");
    assert_eq!(whole(&bytes, 4), ends[0] - event);
}
