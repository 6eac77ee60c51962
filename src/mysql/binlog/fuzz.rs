//! The parsers of binlogs and GTIDs for the fuzz targets in `tests/fuzz`: see [`crate::repository::fuzz`].

#![allow(clippy::missing_panics_doc, reason = "each panics where a promise is broken: that is what it is for")]

use crate::mysql::binlog::{Kind, MAGIC, SegmentReader, Transactions, mariadb_gtid_list, previous_gtids};
use crate::mysql::gtid::{BinlogState, Gtid, GtidSet, Position};
use crate::mysql::manifest::Product;

/// How many kinds of events each product's format description counts.
const KINDS: [usize; 2] = [42, 171];

/// Bombs may unpack to a thousand times their bytes and more, and a fuzzer's patience is short.
const SEGMENT_BYTES_MAX: usize = 24 * 1024;

/// Makes a file of a format description without checksums, which no fuzzer would guess, and of events.
fn file_of(kinds: usize, events: &[u8]) -> Vec<u8> {
    let mut body = vec![4, 0];
    body.resize(2 + 50 + 4, 0);
    body.push(19);
    body.resize(body.len() + kinds + 1, 0);
    let length = u32::try_from(19 + body.len() + 4).unwrap_or_default();
    let mut event = [0, 0, 0, 0, Kind::FORMAT_DESCRIPTION.0, 1, 0, 0, 0].to_vec();
    event.extend_from_slice(&length.to_le_bytes());
    event.extend_from_slice(&(length + 4).to_le_bytes());
    event.extend_from_slice(&[0; 2]);
    event.extend_from_slice(&body);
    let checksum = crc32fast::hash(&event);
    event.extend_from_slice(&checksum.to_le_bytes());
    [&MAGIC[..], &event, events].concat()
}

/// Makes the file of an input: a byte that says whose it is, and its events after the format description.
pub(crate) fn file(bytes: &[u8]) -> Option<(Product, Vec<u8>)> {
    let (product, events) = bytes.split_first()?;
    let product = usize::from(product % 2);
    let events = &events[..events.len().min(SEGMENT_BYTES_MAX)];
    Some(([Product::MySql, Product::MariaDb][product], file_of(KINDS[product], events)))
}

/// A file: a byte that says whose, and its events after the format description. Returns how many transactions were read.
#[must_use]
pub fn segment(bytes: &[u8]) -> usize {
    let Some((_, file)) = file(bytes) else { return 0 };
    let (mut end, mut count) = (0, 0);
    for transaction in Transactions::new(&file[..]).unwrap_or_else(|error| panic!("{error}")) {
        let Ok(transaction) = transaction else { break };
        let group = transaction.group;
        assert!(end <= group.begin && group.begin < group.end && group.end <= file.len() as u64, "{group:?}");
        end = group.end;
        count += 1;
    }
    copied(&file);
    count
}

/// Each event that is read is copied as it stands.
fn copied(file: &[u8]) {
    let mut reader = SegmentReader::new(file).unwrap_or_else(|error| panic!("{error}"));
    let mut copy = MAGIC.to_vec();
    while let Ok(Some(_)) = reader.next() {
        let is_whole = reader.copy_to(&mut copy).unwrap_or_else(|error| panic!("{error}"));
        assert!(is_whole || reader.torn().is_some());
    }
    assert!(file.starts_with(&copy));
}

/// GTIDs and sets of them, as texts and as bytes: what is accepted reads back the same.
pub fn gtid_set(bytes: &[u8]) {
    if let Ok(set) = previous_gtids(bytes) {
        read_back(&set);
        assert!(set.is_subset(&set) && set.subtract(&set).is_empty() && set.union(&set) == set);
    }
    if let Ok(state) = mariadb_gtid_list(bytes) {
        read_back(&state);
        read_back(&state.position());
        assert!(state.is_subset(&state));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    text.parse::<GtidSet>().iter().for_each(read_back);
    text.parse::<BinlogState>().iter().for_each(read_back);
    text.parse::<Position>().iter().for_each(read_back);
    text.parse::<Gtid>().iter().for_each(read_back);
}

fn read_back<T: std::fmt::Display + std::fmt::Debug + std::str::FromStr + PartialEq>(value: &T) {
    let printed = value.to_string();
    assert!(printed.parse().is_ok_and(|again: T| again == *value), "{value:?} is printed as `{printed}`");
}
