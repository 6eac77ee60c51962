//! Plans over binlogs of a few bytes.

use std::path::Path;

use super::*;
use crate::mysql::binlog::{Checksum, Header, MAGIC};
use crate::replay::feed;
use crate::replay::made::event;
use crate::replay::tests::format;

const UUID: &str = "07070707-0707-0707-0707-070707070707";

/// The length of a head that lists nothing.
const EMPTY_HEAD: usize = Header::BYTES + 8 + 4;

/// How a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Rotate,
    Cut,
}

/// Writes a binlog whose server had executed so many transactions before: each of `transactions` is a number (0: no GTID) and a
/// second of the server's clock.
fn file(dir: &Path, nth: u32, before: u64, transactions: &[(u64, u64)], end: End) -> Segment {
    let name = format!("b.{nth:06}");
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&format());
    let mut push = |kind, body: &[u8]| {
        let end = u32::try_from(bytes.len() + Header::BYTES + body.len() + 4).unwrap();
        bytes.extend_from_slice(&event(kind, 77, end, 0, body, Checksum::Crc32));
    };
    let mut head = u64::from(before > 0).to_le_bytes().to_vec();
    if before > 0 {
        head.extend_from_slice(&[7; 16]);
        for number in [1, 1, before + 1] {
            head.extend_from_slice(&number.to_le_bytes());
        }
    }
    push(Kind::PREVIOUS_GTIDS, &head);
    for (number, second) in transactions {
        let mut body = [&[1][..], &[7; 16], &number.to_le_bytes(), &[2], &[0; 16]].concat();
        body.extend_from_slice(&(second * 1_000_000).to_le_bytes()[..7]);
        push(if *number == 0 { Kind::ANONYMOUS_GTID } else { Kind::GTID }, &body);
        push(Kind::XID, &[1; 8]);
    }
    if end == End::Rotate {
        push(Kind::ROTATE, &[&4_u64.to_le_bytes()[..], format!("b.{:06}", nth + 1).as_bytes()].concat());
    }
    let path = dir.join(&name);
    std::fs::write(&path, &bytes).unwrap();
    Segment { name, path, bytes: bytes.len() as u64 }
}

fn run(segments: Vec<Segment>) -> segments::Run {
    segments::Run { segments, gap: None, as_of: None }
}

fn second(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

fn plan(segments: &segments::Run, point: &Point) -> Result<ReplayPlan, ReplayError> {
    let offset = (MAGIC.len() + format().len() + EMPTY_HEAD) as u64;
    let position = Position { file: "b.000001".to_owned(), offset };
    let gtid = Some(String::new());
    let start = Start { product: Product::MySql, position, gtid, has_prepared: false, reached: None };
    ReplayPlan::new(&start, segments, point, false, &Run::silent())
}

#[test]
fn that_a_capture_was_up_to_date_heals_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut segments = run(vec![file(dir.path(), 1, 0, &[(1, 10)], End::Rotate)]);
    segments.as_of = Some(second(100));
    assert_eq!(plan(&segments, &Point::At(second(50))).unwrap().transactions, 1);
    // The second file's head lists a transaction that is in neither.
    segments.segments.push(file(dir.path(), 2, 2, &[(3, 20)], End::Cut));
    let refused = plan(&segments, &Point::At(second(50)));
    assert!(matches!(refused, Err(ReplayError::Gap { .. })), "{refused:?}");
}

#[test]
fn a_file_that_knows_less_than_was_read_is_another_servers() {
    let dir = tempfile::tempdir().unwrap();
    let first = file(dir.path(), 1, 0, &[(1, 10), (2, 11)], End::Rotate);
    let own = run(vec![first.clone(), file(dir.path(), 2, 2, &[(3, 20)], End::Cut)]);
    assert_eq!(plan(&own, &Point::Latest).unwrap().executed.to_string(), format!("{UUID}:1-3"));
    let foreign = run(vec![first, file(dir.path(), 2, 1, &[(2, 20)], End::Cut)]);
    let refused = plan(&foreign, &Point::Latest);
    assert!(matches!(refused, Err(ReplayError::OtherServer { .. })), "{refused:?}");
}

#[test]
fn without_gtids_a_file_that_was_cut_off_is_followed_by_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let second = file(dir.path(), 2, 0, &[(0, 20)], End::Cut);
    let whole = run(vec![file(dir.path(), 1, 0, &[(0, 10)], End::Rotate), second.clone()]);
    assert_eq!(plan(&whole, &Point::Latest).unwrap().transactions, 2);
    let cut = run(vec![file(dir.path(), 1, 0, &[(0, 10)], End::Cut), second]);
    let refused = plan(&cut, &Point::Latest);
    assert!(matches!(refused, Err(ReplayError::Gap { .. })), "{refused:?}");
}

#[test]
fn a_replica_is_not_led_again_through_files_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        file(dir.path(), 1, 0, &[(1, 10)], End::Rotate),
        file(dir.path(), 2, 1, &[(2, 11)], End::Rotate),
        file(dir.path(), 3, 2, &[(3, 12)], End::Cut),
    ];
    let feed = plan(&run(files.to_vec()), &Point::Latest).unwrap().feed;
    let place = |executed: &str| feed.place(&feed::Start::Without(executed.parse().unwrap())).unwrap();
    assert_eq!(place(""), (0, feed.begin));
    assert_eq!(place(&format!("{UUID}:1")), (1, feed::FIRST));
    assert_eq!(place(&format!("{UUID}:1-2")), (2, feed::FIRST));
    assert_eq!(place(&format!("{UUID}:2")), (0, feed.begin));
}

#[test]
fn a_target_that_has_the_first_transaction_of_its_origin_is_past_the_point_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let segments = run(vec![file(dir.path(), 1, 0, &[(1, 10), (2, 11)], End::Cut)]);
    let plan = plan(&segments, &Point::Before(format!("{UUID}:1").parse().unwrap())).unwrap();
    let executed = |text: &str| Executed::parse(Product::MySql, text).unwrap();
    assert!(plan.executed.is_empty() && plan.is_exceeded_by(&executed(&format!("{UUID}:1")), None));
    assert!(!plan.is_exceeded_by(&executed("aaaaaaaa-71ca-11e1-9e33-c80aa9429562:1"), None), "its own");
}

/// Changes a byte of a file.
fn flip(segment: &Segment, at: u64) {
    let mut bytes = std::fs::read(&segment.path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1;
    std::fs::write(&segment.path, bytes).unwrap();
}

fn behind(plan: &ReplayPlan, segments: &segments::Run, executed: &str) -> Result<ReplayPlan, ReplayError> {
    let reached = Executed::parse(Product::MySql, executed).unwrap();
    let start = Start::behind(plan.end.clone(), reached);
    ReplayPlan::new(&start, segments, &Point::Latest, false, &Run::silent())
}

#[test]
fn what_was_read_before_a_place_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let early = run(vec![file(dir.path(), 1, 0, &[(1, 10), (2, 11)], End::Cut)]);
    let first = plan(&early, &Point::Latest).unwrap();
    let grown = file(dir.path(), 1, 0, &[(1, 10), (2, 11), (3, 12)], End::Rotate);
    let whole = run(vec![grown.clone(), file(dir.path(), 2, 3, &[(4, 20)], End::Cut)]);
    let at_once = plan(&whole, &Point::Latest).unwrap();
    // The last event before the place.
    flip(&grown, first.end.offset - 6);
    assert!(matches!(plan(&whole, &Point::Latest), Err(ReplayError::Binlog { .. })));
    let reached = format!("{UUID}:1-2");
    let next = behind(&first, &whole, &reached).unwrap();
    assert_eq!((next.transactions, next.begin.clone()), (2, first.end.clone()));
    assert_eq!((&next.executed, &next.known), (&at_once.executed, &at_once.known));
    // What comes behind it is read as ever.
    flip(&grown, first.end.offset + 30);
    assert!(matches!(behind(&first, &whole, &reached), Err(ReplayError::Binlog { .. })));
    let begin = at_once.begin.clone();
    let joined = first.followed_by(next);
    assert_eq!((joined.transactions, joined.bytes, joined.begin), (4, at_once.bytes, begin));
    assert_eq!((joined.end, joined.last, joined.executed), (at_once.end, at_once.last, at_once.executed));
    assert_eq!(joined.feed.segments, at_once.feed.segments);
    assert_eq!((joined.feed.begin, joined.feed.end), (at_once.feed.begin, at_once.feed.end));
}

#[test]
fn a_place_in_a_file_of_another_history_is_no_place_to_go_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = plan(&run(vec![file(dir.path(), 1, 0, &[(1, 10)], End::Cut)]), &Point::Latest).unwrap();
    let segments = run(vec![file(dir.path(), 1, 5, &[(6, 10), (7, 11)], End::Cut)]);
    let refused = behind(&first, &segments, &format!("{UUID}:1-2"));
    assert!(matches!(refused, Err(ReplayError::OtherServer { .. })), "{refused:?}");
    first.end.offset = 9_999;
    let refused = behind(&first, &segments, &format!("{UUID}:1-7"));
    assert!(matches!(refused, Err(ReplayError::OtherServer { .. })), "{refused:?}");
}

/// Adds a transaction that is a statement.
fn define(segment: &Segment, number: u64, text: &str) -> Segment {
    let mut bytes = std::fs::read(&segment.path).unwrap();
    let gtid = [&[1][..], &[7; 16], &number.to_le_bytes(), &[2], &[0; 16], &[0; 7]].concat();
    let query = [&[0; 8][..], &[1, 0, 0, 0, 0], b"s\0", text.as_bytes()].concat();
    for (kind, body) in [(Kind::GTID, gtid), (Kind::QUERY, query)] {
        let end = u32::try_from(bytes.len() + Header::BYTES + body.len() + 4).unwrap();
        bytes.extend_from_slice(&event(kind, 77, end, 0, &body, Checksum::Crc32));
    }
    std::fs::write(&segment.path, &bytes).unwrap();
    Segment { bytes: bytes.len() as u64, ..segment.clone() }
}

#[test]
fn a_default_that_each_server_works_out_for_itself_is_told_with_its_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut only = file(dir.path(), 1, 0, &[(1, 10)], End::Cut);
    only = define(&only, 2, "ALTER TABLE orders ADD COLUMN token CHAR(36) DEFAULT (uuid())");
    only = define(&only, 3, "alter table mall.carts add column n int default 7");
    only = define(&only, 4, "alter table mall.carts add column token char(36) default uuid()");
    let told = |point: &Point| {
        let plan = plan(&run(vec![only.clone()]), point).unwrap();
        let told = plan.varying.into_iter().map(|one| (one.tables.concat(), one.transaction.gtid.unwrap().to_string()));
        told.collect::<Vec<_>>()
    };
    let first = ("`s`.`orders`".to_owned(), format!("{UUID}:2"));
    assert_eq!(told(&Point::Latest), [first.clone(), ("`mall`.`carts`".to_owned(), format!("{UUID}:4"))]);
    // What is not replayed is not told of.
    assert_eq!(told(&Point::Gtid(format!("{UUID}:3").parse().unwrap())), [first]);
    let start = plan(&run(vec![only.clone()]), &Point::Gtid(format!("{UUID}:3").parse().unwrap())).unwrap();
    assert_eq!(behind(&start, &run(vec![only]), &format!("{UUID}:1-3")).unwrap().varying.len(), 1);
}
