//! Where a capture begins: what was captured before is held against what the server has now.

use chrono::{DateTime, Utc};

use crate::capture::chain::{Beginning, Chain, number_of};
use crate::capture::facts::{Facts, facts};
use crate::capture::{Capture, CaptureError};
use crate::mysql::gtid::Executed;
use crate::mysql::manifest::Product;
use crate::mysql::wire::binlog::{AtEnd, FIRST_EVENT, FilePosition, Next};
use crate::run::Run;

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// With a new epoch, at the first file of the window.
    Epoch(Beginning),
    /// In the segment at hand, from this offset on.
    Within(FilePosition),
    /// With a file that comes after those captured.
    Next(FilePosition),
}

/// Decides where to go on. `is_spooled`: the spool holds the newest segment's file.
pub(crate) fn start(chain: &Chain, facts: &Facts, is_spooled: bool) -> Start {
    let Some(epoch) = chain.epochs.last() else { return Start::Epoch(Beginning::FirstCapture) };
    if (epoch.server.product, &epoch.server.server) != (facts.origin.product, &facts.origin.server) {
        return Start::Epoch(Beginning::OtherServer);
    }
    let Some(last) = epoch.segments.last() else { return Start::Epoch(epoch.why) };
    let at = |offset| FilePosition { file: last.file.clone(), offset };
    match facts.bytes_of(&last.file) {
        Some(bytes) if bytes < last.bytes => Start::Epoch(Beginning::WentBack),
        Some(_) if last.is_closed => {
            after(&last.file, facts).map_or_else(|| Start::Within(at(last.bytes)), Start::Next)
        }
        Some(_) if is_spooled => Start::Within(at(last.bytes)),
        // The file is there, and our part of it is not: all of it comes again.
        Some(_) => Start::Within(at(FIRST_EVENT)),
        None => match facts.files.first().filter(|(first, _)| is_later(&last.file, first)) {
            Some((first, _)) => Start::Next(FilePosition { file: first.clone(), offset: FIRST_EVENT }),
            None => Start::Epoch(Beginning::WentBack),
        },
    }
}

fn after(file: &str, facts: &Facts) -> Option<FilePosition> {
    let place = facts.files.iter().position(|(name, _)| name == file)?;
    let (next, _) = facts.files.get(place + 1)?;
    Some(FilePosition { file: next.clone(), offset: FIRST_EVENT })
}

fn is_later(file: &str, other: &str) -> bool {
    match (number_of(file), number_of(other)) {
        (Some((base, number)), Some((other_base, other))) => base == other_base && other > number,
        _ => false,
    }
}

/// Tells whether a file that begins with `before` cannot follow one that ended with `executed`: a server never forgets what it has
/// executed, but where its binlogs were reset. (MariaDB may forget a whole domain, where it is told to.)
pub(crate) fn went_back(executed: &Executed, before: &Executed) -> bool {
    match (executed, before) {
        (Executed::MySql(executed), Executed::MySql(before)) => !executed.is_subset(before),
        (Executed::MariaDb(executed), Executed::MariaDb(before)) => executed.iter().any(|gtid| {
            let has_domain = before.iter().any(|other| other.domain == gtid.domain);
            has_domain && !before.contains(gtid)
        }),
        _ => true,
    }
}

/// Returns the transactions that a file says were executed before it and that the one before it does not end with.
pub(crate) fn missing(executed: &Executed, before: &Executed) -> Option<String> {
    let text = match (executed, before) {
        (Executed::MySql(executed), Executed::MySql(before)) => before.subtract(executed).to_string(),
        (Executed::MariaDb(executed), Executed::MariaDb(before)) => {
            let unknown = before.iter().filter(|gtid| !executed.contains(*gtid));
            unknown.map(|gtid| gtid.to_string()).collect::<Vec<_>>().join(",")
        }
        _ => before.to_string(),
    };
    (!text.is_empty()).then_some(text)
}

/// Finds the first file of a new epoch. A server may have far more than the window.
pub(crate) fn first_file(capture: &Capture, facts: &Facts, run: &Run) -> Result<FilePosition, CaptureError> {
    let since = run.now() - capture.plan.window;
    let product = facts.origin.product;
    let file = first_of_window(&facts.files, since, |file| created(capture, product, file, run))?;
    let file = file.ok_or(CaptureError::NoBinlog)?.to_owned();
    Ok(FilePosition { file, offset: FIRST_EVENT })
}

/// Returns the newest file that was begun before a moment, so that all that came since is there; else the oldest. Few are asked.
fn first_of_window(
    files: &[(String, u64)],
    since: DateTime<Utc>,
    mut created: impl FnMut(&str) -> Result<u32, CaptureError>,
) -> Result<Option<&str>, CaptureError> {
    let (mut low, mut high) = (0, files.len());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let created = DateTime::from_timestamp(created(&files[middle].0)?.into(), 0);
        let is_before = created.is_some_and(|created| created < since);
        (low, high) = if is_before { (middle, high) } else { (low, middle) };
    }
    Ok(files.get(low).map(|(file, _)| file.as_str()))
}

/// Tries a capture out: asks for the newest file as a replica of another name, and reads its first event.
///
/// # Errors
/// What would keep a capture from beginning.
pub fn probe(capture: &Capture, run: &Run) -> Result<Facts, CaptureError> {
    let facts = facts(&mut capture.server.open_wire(&run.cancel)?)?;
    if let Some((file, _)) = facts.files.last() {
        created(capture, facts.origin.product, file, run)?;
    }
    Ok(facts)
}

/// Asks when the server began a file: its first event says so.
fn created(capture: &Capture, product: Product, file: &str, run: &Run) -> Result<u32, CaptureError> {
    let wire = capture.server.open_wire(&run.cancel)?;
    let from = FilePosition { file: file.to_owned(), offset: FIRST_EVENT };
    let stream = wire.stream_binlog(product, &from, &capture.visitor(), AtEnd::Stop);
    let mut stream = stream.map_err(CaptureError::Stream)?;
    loop {
        match stream.next().map_err(CaptureError::Stream)? {
            Next::Event(header) | Next::Format(header) => return Ok(header.timestamp),
            Next::End => return Ok(0),
            Next::File(_) | Next::Heartbeat => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::capture::chain::{Epoch, Origin, Segment};

    fn origin(server: &str) -> Origin {
        Origin { product: Product::MySql, version: "9.7.0".to_owned(), server: server.to_owned() }
    }

    fn facts(server: &str, files: &[(&str, u64)]) -> Facts {
        Facts::new(origin(server), files.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect())
    }

    fn segment(file: &str, bytes: u64, is_closed: bool) -> Segment {
        Segment {
            file: file.to_owned(),
            bytes,
            sha256: String::new(),
            created: 0,
            first: None,
            last: None,
            transactions: 0,
            before: None,
            after: String::new(),
            is_closed,
        }
    }

    fn chain(segments: &[(&str, u64, bool)]) -> Chain {
        let mut epoch = Epoch::new(1, DateTime::UNIX_EPOCH, Beginning::FirstCapture, origin("a"));
        epoch.segments = segments.iter().map(|(file, bytes, is_closed)| segment(file, *bytes, *is_closed)).collect();
        Chain { epochs: vec![epoch], ..Chain::new("db1") }
    }

    #[test]
    fn a_capture_goes_on_where_it_stopped_and_a_server_that_is_another_or_went_back_begins_an_epoch() {
        let open = chain(&[("b.000007", 900, true), ("b.000008", 500, false)]);
        let closed = chain(&[("b.000008", 500, true)]);
        let at = |file: &str, offset| FilePosition { file: file.to_owned(), offset };
        let cases = [
            (&Chain::new("db1"), facts("a", &[("b.000001", 9)]), Start::Epoch(Beginning::FirstCapture)),
            (&open, facts("z", &[("b.000008", 600)]), Start::Epoch(Beginning::OtherServer)),
            (&open, facts("a", &[("b.000008", 500), ("b.000009", 9)]), Start::Within(at("b.000008", 500))),
            (&open, facts("a", &[("b.000008", 499)]), Start::Epoch(Beginning::WentBack)),
            (&open, facts("a", &[("b.000001", 9)]), Start::Epoch(Beginning::WentBack)),
            (&open, facts("a", &[("other.000009", 9)]), Start::Epoch(Beginning::WentBack)),
            (&open, facts("a", &[("b.000011", 9), ("b.000012", 9)]), Start::Next(at("b.000011", 4))),
            (&closed, facts("a", &[("b.000008", 500), ("b.000009", 9)]), Start::Next(at("b.000009", 4))),
            (&closed, facts("a", &[("b.000008", 500)]), Start::Within(at("b.000008", 500))),
            (&closed, facts("a", &[]), Start::Epoch(Beginning::WentBack)),
        ];
        for (chain, facts, wanted) in cases {
            assert_eq!(start(chain, &facts, true), wanted, "{facts:?}");
        }
        let lost_spool = start(&open, &facts("a", &[("b.000008", 600)]), false);
        assert_eq!(lost_spool, Start::Within(at("b.000008", 4)));
    }

    #[test]
    fn a_new_epoch_begins_with_the_file_that_the_window_begins_in_and_few_are_asked() {
        let files: Vec<_> = (0..1_000).map(|number| (format!("b.{number:06}"), 9)).collect();
        let first = |since: i64| {
            let mut asked = 0;
            let since = DateTime::from_timestamp(since, 0).unwrap();
            let file = first_of_window(&files, since, |file| {
                asked += 1;
                Ok(number_of(file).unwrap().1.try_into().unwrap())
            });
            assert!(asked <= 10, "{asked}");
            file.unwrap().unwrap().to_owned()
        };
        assert_eq!(first(500), "b.000499", "what was committed at 500 may be in the file before");
        assert_eq!((first(-5), first(0), first(1)), ("b.000000".into(), "b.000000".into(), "b.000000".into()));
        assert_eq!(first(5_000), "b.000999");
        assert!(matches!(first_of_window(&[], DateTime::UNIX_EPOCH, |_| Ok(0)), Ok(None)));
    }

    #[test]
    fn a_file_that_knows_less_than_the_one_before_it_does_not_follow() {
        let mysql = |text: &str| Executed::parse(Product::MySql, text).unwrap();
        let mariadb = |text: &str| Executed::parse(Product::MariaDb, text).unwrap();
        let (a, more) = ("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9");
        assert!(!went_back(&mysql(a), &mysql(a)) && !went_back(&mysql(a), &mysql(more)));
        assert!(went_back(&mysql(more), &mysql(a)) && went_back(&mysql(a), &mysql("")));
        assert_eq!(missing(&mysql(a), &mysql(a)), None);
        assert_eq!(missing(&mysql(a), &mysql(more)).unwrap(), "3e11fa47-71ca-11e1-9e33-c80aa9429562:6-9");
        assert!(!went_back(&mariadb("0-1-5"), &mariadb("0-1-5")) && went_back(&mariadb("0-1-5"), &mariadb("0-1-4")));
        assert!(!went_back(&mariadb("0-1-5,7-1-2"), &mariadb("0-1-6")), "a domain that was deleted");
        assert_eq!(missing(&mariadb("0-1-5"), &mariadb("0-1-7")).unwrap(), "0-1-7");
    }
}
