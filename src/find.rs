//! Finds transactions in binlog files: the mistake, so that a recovery can stop before it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::mysql::binlog::{
    BinlogError, Changes, Ending, Group, Header, MAGIC, MAGIC_ENCRYPTED, TableName, Touched, Transaction, Transactions,
    Verb, flag,
};
use crate::run::{Run, Stopped};

/// What is read of a file at once.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("list `{}`", dir.display())]
    List { dir: PathBuf, source: io::Error },
    #[error("`{}` has no binlog files", dir.display())]
    NoFile { dir: PathBuf },
    #[error("open `{}`", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("read `{}`: {error}", path.display())]
    Read { path: PathBuf, error: BinlogError },
    #[error("find `{}`: the chain names it, and no store has all of it", path.display())]
    Missing { path: PathBuf },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl FindError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoFile { .. } => {
                Some("name the directory that `SHOW VARIABLES LIKE 'log_bin_basename'` tells".to_owned())
            }
            Self::Read { error, .. } => error.hint(),
            _ => None,
        }
    }
}

/// Which transactions are meant. What is empty means all.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A name without a table means all of its schema.
    pub tables: Vec<TableName>,
    pub verbs: Vec<Verb>,
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
}

impl Wanted {
    /// Returns the tables for which a transaction is meant, or none where it is not. They may be none where all are meant.
    /// Where the server lost events, or not all tables are known, what is meant may be among them.
    #[must_use]
    pub fn pick(&self, group: &Group, changes: &Changes) -> Option<Vec<(TableName, Touched)>> {
        let is_incident = group.ending == Ending::Incident;
        if !is_incident && !self.is_within(group.committed, group.committed) {
            return None;
        }
        let is_meant = |touched: &Touched| self.verbs.is_empty() || touched.is_any(&self.verbs);
        let tables = changes.tables.iter().filter(|(name, touched)| self.names(name) && is_meant(touched));
        let tables: Vec<_> = tables.map(|(name, touched)| (name.clone(), touched.clone())).collect();
        // Nobody asked for a table, so what names none is meant, too.
        let is_alone = self.tables.is_empty()
            && (self.verbs.is_empty() || self.verbs.iter().any(|verb| changes.verbs.contains(verb)));
        let is_unknown = is_incident || changes.are_tables_more;
        (!tables.is_empty() || is_alone || is_unknown).then_some(tables)
    }

    /// Tells whether any of a span is within the time that is meant.
    #[must_use]
    pub fn is_within(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
        self.since.is_none_or(|since| to >= since) && self.until.is_none_or(|until| from <= until)
    }

    fn names(&self, name: &TableName) -> bool {
        let is_same =
            |wanted: &str, found: &str| wanted.is_empty() || found.is_empty() || wanted.eq_ignore_ascii_case(found);
        self.tables.is_empty()
            || self
                .tables
                .iter()
                .any(|wanted| wanted.schema.eq_ignore_ascii_case(&name.schema) && is_same(&wanted.table, &name.table))
    }
}

/// A transaction that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The file's name.
    pub file: String,
    pub group: Group,
    /// The tables for which it was found.
    pub tables: Vec<(TableName, Touched)>,
    pub texts: Vec<String>,
    /// It has more statements, or touches more tables, than were noted.
    pub is_more: bool,
    /// It touches more tables than were noted: any may be among them.
    pub are_tables_more: bool,
}

/// What no searched file holds, or may not hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Hole {
    /// Where it is and of what kind, in a sentence's words.
    pub what: String,
    /// It may have been written in the time that is meant.
    pub is_meant: bool,
}

/// What a search came to. A file that cannot be read to its end does not stand in the others' way.
#[derive(Debug, Default)]
pub struct Findings {
    /// The newest that were found, in the log's order.
    pub found: VecDeque<Found>,
    /// How many older ones were found and are not among them.
    pub left_out: u64,
    pub files: u64,
    pub transactions: u64,
    /// Files that end within an event or a transaction, and where it begins: the one being written may.
    pub torn: Vec<(PathBuf, u64)>,
    pub failed: Vec<FindError>,
    /// What lies between what was searched.
    pub holes: Vec<Hole>,
    /// Files that are a replica's relay logs: what they hold is in its source's binlog, and often in its own.
    pub relay_logs: Vec<PathBuf>,
}

/// A search that goes on from file to file, with memory for as many transactions as are kept.
pub struct Search {
    wanted: Wanted,
    found_max: usize,
    run: Run,
    findings: Findings,
}

impl Search {
    #[must_use]
    pub fn new(wanted: Wanted, found_max: usize, run: Run) -> Self {
        Self { wanted, found_max, run, findings: Findings::default() }
    }

    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    #[must_use]
    pub fn findings(self) -> Findings {
        self.findings
    }

    /// Searches a file. One that cannot be read to its end is told, and the search goes on.
    ///
    /// # Errors
    /// The signal to stop.
    pub fn read(mut self, path: &Path, name: &str, input: impl Read) -> Result<Self, FindError> {
        self.findings.files += 1;
        match self.file(path, name, input) {
            Err(stopped @ FindError::Stopped(_)) => return Err(stopped),
            Err(error) => self.findings.failed.push(error),
            Ok(()) => {}
        }
        Ok(self)
    }

    /// Notes a file that should be there.
    #[must_use]
    pub fn missing(mut self, path: PathBuf) -> Self {
        self.findings.failed.push(FindError::Missing { path });
        self
    }

    /// Notes a file that cannot be opened.
    #[must_use]
    pub fn unopened(mut self, path: PathBuf, source: io::Error) -> Self {
        self.findings.failed.push(FindError::Open { path, source });
        self
    }

    /// Notes what lies between files.
    #[must_use]
    pub fn holed(mut self, what: String, is_meant: bool) -> Self {
        self.findings.holes.push(Hole { what, is_meant });
        self
    }

    fn file(&mut self, path: &Path, name: &str, input: impl Read) -> Result<(), FindError> {
        let read = |error| FindError::Read { path: path.to_owned(), error };
        let mut transactions = Transactions::new(BufReader::with_capacity(BUFFER_BYTES, input)).map_err(read)?;
        for transaction in &mut transactions {
            self.run.check()?;
            self.transaction(name, transaction.map_err(read)?);
        }
        let torn = transactions.open().or_else(|| transactions.torn().map(|torn| torn.offset));
        self.findings.torn.extend(torn.map(|offset| (path.to_owned(), offset)));
        Ok(())
    }

    fn transaction(&mut self, name: &str, transaction: Transaction) {
        let Transaction { group, changes } = transaction;
        self.findings.transactions += 1;
        if group.ending == Ending::Incident {
            let what = format!("the server lost events at `{name}`, offset {}", group.begin);
            self.findings.holes.push(Hole { what, is_meant: true });
        }
        if let Some(tables) = self.wanted.pick(&group, &changes) {
            let Changes { texts, is_more, are_tables_more, .. } = changes;
            let found = Found { file: name.to_owned(), group, tables, texts, is_more, are_tables_more };
            self.findings.found.push_back(found);
        }
        if self.findings.found.len() > self.found_max {
            self.findings.found.pop_front();
            self.findings.left_out += 1;
        }
    }
}

/// Searches all binlog files of a directory. What is missing between them is told.
///
/// # Errors
/// A directory that cannot be listed or has no binlog file; the signal to stop.
pub fn in_dir(dir: &Path, mut search: Search) -> Result<Findings, FindError> {
    let Listed { files, relay_logs, unread } = binlog_files(dir)?;
    search.findings.relay_logs = relay_logs;
    for (path, error) in unread {
        search = search.unopened(path, error);
    }
    for (index, path) in files.iter().enumerate() {
        let name = file_name(path);
        let torn_before = search.findings.torn.len();
        search = match File::open(path) {
            Ok(file) => search.read(path, &name, file)?,
            Err(error) => search.unopened(path.clone(), error),
        };
        let Some(next) = files.get(index + 1) else { continue };
        let (Some((base, number)), Some((next_base, next_number))) = (order_of(path), order_of(next)) else { continue };
        if base != next_base {
            continue;
        }
        if search.findings.torn.len() > torn_before {
            search = search.holed(format!("`{name}` does not end as a file does after which another comes"), true);
        }
        if next_number != number + 1 {
            search = search.holed(format!("there is no file between `{name}` and `{}`", file_name(next)), true);
        }
    }
    Ok(search.findings())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The binlog files of a directory.
#[derive(Debug, Default)]
struct Listed {
    /// In the order in which a server wrote them.
    files: Vec<PathBuf>,
    relay_logs: Vec<PathBuf>,
    unread: Vec<(PathBuf, io::Error)>,
}

/// Lists the files of a directory that begin as binlogs do. Those of several names follow each other by when their first file begins.
fn binlog_files(dir: &Path) -> Result<Listed, FindError> {
    let list = |source| FindError::List { dir: dir.to_owned(), source };
    let (mut listed, mut bases) = (Listed::default(), BTreeMap::<String, BTreeMap<u64, (u32, PathBuf)>>::new());
    for entry in fs::read_dir(dir).map_err(list)? {
        let path = entry.map_err(list)?.path();
        let Some((base, number)) = order_of(&path).filter(|_| path.is_file()) else { continue };
        match beginning(&path) {
            Ok(None) => {}
            Ok(Some(Beginning { is_relay_log: true, .. })) => listed.relay_logs.push(path),
            Ok(Some(begin)) => drop(bases.entry(base).or_default().insert(number, (begin.timestamp, path))),
            Err(error) => listed.unread.push((path, error)),
        }
    }
    listed.relay_logs.sort();
    let mut bases: Vec<_> = bases.into_values().map(|files| files.into_values().collect::<Vec<_>>()).collect();
    bases.sort_by_key(|files| files.first().map(|(timestamp, _)| *timestamp));
    listed.files = bases.into_iter().flatten().map(|(_, path)| path).collect();
    let is_empty = listed.files.is_empty() && listed.unread.is_empty();
    if is_empty { Err(FindError::NoFile { dir: dir.to_owned() }) } else { Ok(listed) }
}

/// Splits a binlog's name into what stands before its number, and its number: past 999999 it has more digits.
fn order_of(path: &Path) -> Option<(String, u64)> {
    let name = path.file_name()?.to_str()?;
    let (base, number) = name.rsplit_once('.')?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    Some((base.to_owned(), number.parse().ok().filter(|_| is_number)?))
}

/// How a binlog file begins.
struct Beginning {
    /// Zero where it is torn or encrypted before it says.
    timestamp: u32,
    is_relay_log: bool,
}

fn beginning(path: &Path) -> io::Result<Option<Beginning>> {
    let mut bytes = Vec::new();
    File::open(path)?.take((MAGIC.len() + Header::BYTES) as u64).read_to_end(&mut bytes)?;
    if !bytes.starts_with(&MAGIC) && !bytes.starts_with(&MAGIC_ENCRYPTED) {
        return Ok(None);
    }
    let header = bytes.strip_prefix(&MAGIC).and_then(|rest| rest.first_chunk()).map(Header::parse);
    let header = header.and_then(Result::ok);
    let is_relay_log = header.is_some_and(|header| header.flags & flag::RELAY_LOG != 0);
    Ok(Some(Beginning { timestamp: header.map_or(0, |header| header.timestamp), is_relay_log }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::mysql::binlog::Clock;

    fn name(schema: &str, table: &str) -> TableName {
        TableName { schema: schema.to_owned(), table: table.to_owned() }
    }

    fn group() -> Group {
        let committed = "2026-05-01T03:00:00Z".parse().unwrap();
        Group {
            gtid: None,
            begin: 4,
            end: 9,
            committed,
            clock: Clock::Server,
            ending: Ending::Commit,
            xid: None,
            server_id: 1,
        }
    }

    /// A transaction that deletes rows of `mall.orders`, drops `mall` and does what names no table.
    fn changes() -> Changes {
        let mut changes = Changes::default();
        changes.tables.insert(name("mall", "orders"), Touched { deleted: 7, ..Touched::default() });
        changes.tables.insert(name("shop", ""), Touched { verbs: [Verb::Drop].into(), ..Touched::default() });
        changes.verbs.insert(Verb::Create);
        changes
    }

    fn picked(wanted: &Wanted) -> Option<String> {
        let tables = wanted.pick(&group(), &changes())?;
        let names: Vec<_> = tables.iter().map(|(name, _)| format!("{}.{}", name.schema, name.table)).collect();
        Some(names.join(" "))
    }

    #[test]
    fn a_transaction_is_picked_for_the_tables_and_changes_that_were_asked_for() {
        let cases: &[(&[TableName], &[Verb], Option<&str>)] = &[
            (&[], &[], Some("mall.orders shop.")),
            (&[], &[Verb::Delete], Some("mall.orders")),
            (&[], &[Verb::Create], Some("")),
            (&[], &[Verb::Update], None),
            (&[name("mall", "orders")], &[], Some("mall.orders")),
            (&[name("MALL", "Orders")], &[Verb::Delete, Verb::Drop], Some("mall.orders")),
            (&[name("mall", "items")], &[], None),
            (&[name("mall", "")], &[], Some("mall.orders")),
            (&[name("mall", "orders")], &[Verb::Create], None),
            // Its schema was dropped with it.
            (&[name("shop", "orders")], &[Verb::Drop], Some("shop.")),
        ];
        for (tables, verbs, expected) in cases {
            let wanted = Wanted { tables: tables.to_vec(), verbs: verbs.to_vec(), ..Wanted::default() };
            assert_eq!(picked(&wanted).as_deref(), *expected, "{wanted:?}");
        }
    }

    #[test]
    fn what_may_have_been_lost_is_picked_whatever_was_asked_for() {
        let wanted = Wanted { tables: vec![name("no", "such")], since: Some(group().committed), ..Wanted::default() };
        let lost = Group { ending: Ending::Incident, committed: DateTime::default(), ..group() };
        assert!(wanted.pick(&lost, &Changes::default()).is_some());
        let cut = Changes { is_more: true, are_tables_more: true, ..changes() };
        assert!(wanted.pick(&group(), &cut).is_some() && wanted.pick(&group(), &changes()).is_none());
        let early = Group { committed: DateTime::default(), ..group() };
        assert!(wanted.pick(&early, &cut).is_none());
    }

    #[test]
    fn both_ends_of_a_span_belong_to_it() {
        let at = |second| Some(group().committed + chrono::Duration::seconds(second));
        for (since, until, is_picked) in [(0, 0, true), (-1, 1, true), (1, 2, false), (-2, -1, false)] {
            let wanted = Wanted { since: at(since), until: at(until), ..Wanted::default() };
            assert_eq!(picked(&wanted).is_some(), is_picked, "{since} {until}");
        }
    }

    #[test]
    fn files_are_read_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.1000000", "b.999999", "b.index", "b.000002", "c", "b.+3"] {
            fs::write(dir.path().join(name), MAGIC).unwrap();
        }
        fs::write(dir.path().join("b.000001"), "no binlog").unwrap();
        let header = |flags: u16, at: u32| {
            [&MAGIC[..], &at.to_le_bytes(), &[15, 1, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0], &flags.to_le_bytes()].concat()
        };
        fs::write(dir.path().join("relay.000001"), header(flag::RELAY_LOG, 0)).unwrap();
        fs::write(dir.path().join("a.000001"), header(0, 77)).unwrap();
        let listed = binlog_files(dir.path()).unwrap();
        assert_eq!(listed.relay_logs, [dir.path().join("relay.000001")]);
        let names: Vec<_> = listed.files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["b.000002", "b.999999", "b.1000000", "a.000001"]);
    }
}
