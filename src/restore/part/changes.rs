//! A change set: the row changes that would make a living server's rows those of the sandbox, in a file to be reviewed, and applied
//! by a second step.
//!
//! The file is SQL, a statement a line and a row a statement, with a remark before it that people can read. Each UPDATE and DELETE
//! names every value that the row had when the set was made, so that a row that has changed since is not found, and each DELETE of
//! a row that a cascade would follow demands that nothing points to it any more. [`ChangeSet::apply`] runs the statements in one transaction and demands that each changes one row:
//! what is done is what was reviewed, all of it, or nothing.
//!
//! Rows go before rows come, children before their parents, and come the other way round, within a table in the order of its key; a
//! row whose unique value or parent changes goes and comes, where nothing points to it, so that two rows may trade places and a parent
//! may come or go. Where something does, it changes its parent at the end; what would want it earlier is a conflict.

mod apply;
mod conflict;
mod error;
mod file;
mod statement;
mod tally;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::mysql::server::Server;
use crate::run::Run;
use crate::source::mysql::MysqlSourceError;
use crate::source::mysql::changes::{Comparand, Pair, RowChange, Values, Wanted};

pub use apply::Applied;
pub use error::ChangesError;
pub use file::{ChangeSet, Header, TableCounts, check_place};

use conflict::Conflicts;

/// Conflicts that are named; all are counted.
const CONFLICTS_MAX: usize = 100;

/// By how much a question about a row may be longer than the statement that changes it.
const QUESTION_BYTES: u64 = 64;

/// What a change set is about, for who reviews it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub policy: String,
    pub source: String,
    pub server_name: String,
    /// The moment that the rows go back to.
    pub point: String,
    /// The last transaction before it, and when it was committed; `None`: none since the dump.
    pub last: Option<String>,
    /// Whose rows; `None`: all.
    pub of: Option<String>,
    /// When it was made.
    pub made: String,
}

/// Compares the tables and writes the change set. The file is there whole or not at all. Blocks.
///
/// # Errors
/// [`ChangesError`] where the tables cannot be compared or the file not be written.
pub fn make(
    sandbox: &Server,
    live: &Server,
    wanted: &[Wanted],
    about: About,
    path: &Path,
    run: &Run,
) -> Result<Header, ChangesError> {
    check_place(path)?;
    let mut pair = Pair::open(sandbox, live, wanted, run)?;
    let tables = parents_first(&pair.tables);
    let mut spools = Vec::new();
    let mut conflicts = Conflicts::in_order(&tables);
    for table in &tables {
        spools.push(compare(&mut pair, table, &mut conflicts, path)?);
    }
    let header = Header {
        format: file::FORMAT,
        about,
        server: pair.server.clone(),
        footing: pair.footing(),
        tables: spools.iter().map(|spool| spool.counts.clone()).collect(),
        order: pair.tables.iter().map(|table| (table.schema.clone(), table.name.clone())).collect(),
        conflicts: conflicts.named,
        conflicting: conflicts.count,
    };
    file::write(path, &header, |out| copy(&mut spools, out))?;
    Ok(header)
}

fn compare(
    pair: &mut Pair<'_>,
    table: &Comparand,
    conflicts: &mut Conflicts,
    path: &Path,
) -> Result<Spool, ChangesError> {
    let mut spool = Spool::new(table, path)?;
    let mut broken = None;
    let compared = pair.compare(table, |pair, change| {
        let bytes = spool.take(table, &change).map_err(|error| {
            broken = Some(error);
            MysqlSourceError::BrokeOff
        })?;
        // What the server does not take, it cannot be asked about either.
        if bytes as u64 + QUESTION_BYTES > pair.statement_bytes_max {
            conflicts.too_long(table, &change);
            return Ok(());
        }
        conflicts.look(pair, table, &change)
    });
    match broken {
        Some(source) => Err(ChangesError::File { path: path.to_owned(), source }),
        None => compared.map(|()| spool).map_err(ChangesError::from),
    }
}

/// Sorts tables so that the parents of foreign keys come first; of a ring, some order.
fn parents_first(tables: &[Comparand]) -> Vec<Comparand> {
    let mut open: Vec<&Comparand> = tables.iter().collect();
    let mut sorted: Vec<Comparand> = Vec::new();
    while !open.is_empty() {
        let waits = |table: &Comparand| {
            let is_open = |schema: &str, name: &str| open.iter().any(|one| one.schema == schema && one.name == name);
            let is_other = |schema: &str, name: &str| schema != table.schema || name != table.name;
            table.ties.parents.iter().any(|p| is_other(&p.schema, &p.table) && is_open(&p.schema, &p.table))
        };
        let next = open.iter().position(|table| !waits(table)).unwrap_or(0);
        sorted.push(open.remove(next).clone());
    }
    sorted
}

/// The statements of one table until all are known: rows of a living server may be many. Temporary files without names.
struct Spool {
    counts: TableCounts,
    deletes: BufWriter<File>,
    /// Where each of them begins: they are written the other way round, so that rows that point to earlier ones go first.
    starts: Vec<u64>,
    updates: BufWriter<File>,
    inserts: BufWriter<File>,
    /// Updates of rows that point to another parent: it may be one that comes.
    late: BufWriter<File>,
}

impl Spool {
    fn new(table: &Comparand, path: &Path) -> Result<Self, ChangesError> {
        let file = || {
            let made = tempfile::tempfile_in(file::parent_of(path)).map(BufWriter::new);
            made.map_err(|source| ChangesError::File { path: path.to_owned(), source })
        };
        let counts = TableCounts { table: table.title(), insert: 0, update: 0, delete: 0 };
        Ok(Self { counts, deletes: file()?, starts: Vec::new(), updates: file()?, inserts: file()?, late: file()? })
    }

    /// Writes a row's change, and returns the length of its longest statement.
    fn take(&mut self, table: &Comparand, change: &RowChange) -> io::Result<usize> {
        let remark = statement::remark(table, change);
        match change {
            RowChange::Insert { new } => {
                self.counts.insert += 1;
                write(&mut self.inserts, &remark, &statement::insert(table, new))
            }
            RowChange::Delete { old } => {
                self.counts.delete += 1;
                self.delete(&remark, &statement::delete(table, old))
            }
            RowChange::Update { old, new } => {
                self.counts.update += 1;
                self.update(table, &remark, old, new)
            }
        }
    }

    fn update(&mut self, table: &Comparand, remark: &str, old: &Values, new: &Values) -> io::Result<usize> {
        if statement::trades_places(table, old, new) {
            let goes = self.delete(remark, &statement::delete(table, old))?;
            return Ok(goes.max(write(&mut self.inserts, remark, &statement::insert(table, new))?));
        }
        let is_late = statement::points_elsewhere(table, old, new);
        write(if is_late { &mut self.late } else { &mut self.updates }, remark, &statement::update(table, old, new))
    }

    fn delete(&mut self, remark: &str, statement: &str) -> io::Result<usize> {
        self.starts.push(self.deletes.stream_position()?);
        write(&mut self.deletes, remark, statement)
    }

    fn copy_deletes(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.deletes.flush()?;
        let mut file = BufReader::new(self.deletes.get_mut());
        for start in self.starts.iter().rev() {
            file.seek(SeekFrom::Start(*start))?;
            let mut line = Vec::new();
            // The remark, and the statement.
            file.read_until(b'\n', &mut line)?;
            file.read_until(b'\n', &mut line)?;
            out.write_all(&line)?;
        }
        Ok(())
    }
}

fn write(out: &mut BufWriter<File>, remark: &str, statement: &str) -> io::Result<usize> {
    writeln!(out, "{remark}\n{statement}")?;
    Ok(statement.len())
}

fn copy_whole(from: &mut BufWriter<File>, out: &mut dyn Write) -> io::Result<()> {
    from.flush()?;
    from.get_mut().rewind()?;
    io::copy(from.get_mut(), out).map(drop)
}

/// Writes the statements in their order: rows go, children first; then rows change; then rows come, parents first; then rows point to
/// them.
fn copy(spools: &mut [Spool], out: &mut dyn Write) -> io::Result<()> {
    spools.iter_mut().rev().try_for_each(|spool| spool.copy_deletes(out))?;
    spools.iter_mut().try_for_each(|spool| copy_whole(&mut spool.updates, out))?;
    spools.iter_mut().try_for_each(|spool| copy_whole(&mut spool.inserts, out))?;
    spools.iter_mut().try_for_each(|spool| copy_whole(&mut spool.late, out))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::mysql::row::KeyKind;
    use crate::source::mysql::changes::{Child, Exact, Field, Parent, Ties};

    fn field(name: &str) -> Field {
        Field { name: name.to_owned(), definition: String::new(), kind: KeyKind::Number, exact: Exact::Plain }
    }

    /// Orders point to coupons, and items to orders if `is_pointed_to`.
    fn tables(is_pointed_to: bool) -> [Comparand; 2] {
        let (schema, table) = ("mall".to_owned(), "coupons".to_owned());
        let coupon = Parent { name: "c".to_owned(), schema, table, columns: vec![(1, "id".to_owned())] };
        let items = Child {
            schema: "mall".to_owned(),
            table: "items".to_owned(),
            columns: vec![("order_id".to_owned(), 0)],
            acts_on_delete: false,
            acts_on_update: false,
            is_compared: true,
        };
        let children = if is_pointed_to { vec![items] } else { Vec::new() };
        let ties = Ties { parents: vec![coupon], children, ..Ties::default() };
        let coupons = Comparand::for_tests("mall", "coupons", vec![field("id")], vec![0], Ties::default());
        [coupons, Comparand::for_tests("mall", "orders", vec![field("id"), field("coupon")], vec![0], ties)]
    }

    fn row(values: &[&str]) -> Values {
        values.iter().map(|value| (*value != "NULL").then(|| (*value).to_owned())).collect()
    }

    /// Returns the statements in their order, each by its verb and table.
    fn order(is_pointed_to: bool, changes: &[RowChange; 2]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut spools = Vec::new();
        for (table, change) in tables(is_pointed_to).iter().zip(changes) {
            let mut spool = Spool::new(table, &dir.path().join("set.sql")).unwrap();
            spool.take(table, change).unwrap();
            spools.push(spool);
        }
        let mut out = Vec::new();
        copy(&mut spools, &mut out).unwrap();
        let brief = |line: &str| {
            let table = if line.contains("`coupons` ") { "coupons" } else { "orders" };
            format!("{} {table}", line.split(' ').next().unwrap())
        };
        String::from_utf8(out).unwrap().lines().filter(|line| !line.starts_with("-- ")).map(brief).collect()
    }

    #[test]
    fn a_row_points_to_a_parent_only_once_it_is_there_and_no_more_once_it_goes() {
        let comes = || RowChange::Insert { new: row(&["5"]) };
        let goes = || RowChange::Delete { old: row(&["5"]) };
        let change = |old: &str, new: &str| RowChange::Update { old: row(&["7", old]), new: row(&["7", new]) };
        assert_eq!(order(false, &[comes(), change("NULL", "5")]), ["DELETE orders", "INSERT coupons", "INSERT orders"]);
        assert_eq!(order(true, &[comes(), change("NULL", "5")]), ["INSERT coupons", "UPDATE orders"]);
        assert_eq!(order(false, &[goes(), change("5", "NULL")]), ["DELETE orders", "DELETE coupons", "INSERT orders"]);
    }

    #[test]
    fn rows_of_one_table_come_in_their_order_and_go_the_other_way_round() {
        let dir = tempfile::tempdir().unwrap();
        let [coupons, _] = tables(false);
        let mut spool = Spool::new(&coupons, &dir.path().join("set.sql")).unwrap();
        for id in ["9", "10"] {
            spool.take(&coupons, &RowChange::Insert { new: row(&[id]) }).unwrap();
            spool.take(&coupons, &RowChange::Delete { old: row(&[&format!("{id}00")]) }).unwrap();
        }
        let mut out = Vec::new();
        copy(&mut [spool], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let at = |what: &str| text.find(what).unwrap();
        assert!(at("= 1000;") < at("= 900;") && at("= 900;") < at("(9)") && at("(9)") < at("(10)"), "{text}");
        let (remarks, statements): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("-- "));
        assert!(text.starts_with("-- delete from mall.coupons `id` = 1000: \nDELETE"), "{text}");
        assert_eq!((remarks.len(), statements.len()), (4, 4), "{text}");
    }
}
