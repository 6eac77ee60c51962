//! A change set: the row changes that would make a living server's rows those of the sandbox, in a file to be reviewed, and applied
//! by a second step.
//!
//! The file is SQL, a statement a line and a row a statement. Each UPDATE and DELETE names every value that the row had when the set
//! was made, so that a row that has changed since is not found, and each DELETE of a row that a cascade would follow demands that
//! nothing points to it any more. [`ChangeSet::apply`] runs the statements in one transaction and demands that each changes one row:
//! what is done is what was reviewed, all of it, or nothing.
//!
//! Rows go before rows come, children before their parents, and come the other way round; a row whose unique value changes goes and
//! comes, where nothing points to it, so that two rows may trade places.

mod apply;
mod conflict;
mod error;
mod file;
mod statement;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::mysql::server::Server;
use crate::run::Run;
use crate::source::mysql::MysqlSourceError;
use crate::source::mysql::changes::{Comparand, Pair, RowChange, Wanted};

pub use apply::Applied;
pub use error::ChangesError;
pub use file::{ChangeSet, Header, TableCounts};

use conflict::Conflicts;

/// Conflicts that are named; all are counted.
const CONFLICTS_MAX: usize = 100;

/// What a change set is about, for who reviews it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub policy: String,
    pub source: String,
    pub server_name: String,
    /// The moment that the rows go back to.
    pub point: String,
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
    file::refuse_existing(path)?;
    let mut pair = Pair::open(sandbox, live, wanted, run)?;
    let tables = parents_first(&pair.tables);
    let mut spools = Vec::new();
    let mut conflicts = Conflicts::default();
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
        conflicts.look(pair, table, &change)?;
        spool.take(table, &change).map_err(|error| {
            broken = Some(error);
            MysqlSourceError::BrokeOff
        })
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
}

impl Spool {
    fn new(table: &Comparand, path: &Path) -> Result<Self, ChangesError> {
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = || {
            let made = tempfile::tempfile_in(parent).map(BufWriter::new);
            made.map_err(|source| ChangesError::File { path: path.to_owned(), source })
        };
        let counts = TableCounts { table: table.title(), insert: 0, update: 0, delete: 0 };
        Ok(Self { counts, deletes: file()?, starts: Vec::new(), updates: file()?, inserts: file()? })
    }

    fn take(&mut self, table: &Comparand, change: &RowChange) -> io::Result<()> {
        match change {
            RowChange::Insert { new } => {
                self.counts.insert += 1;
                writeln!(self.inserts, "{}", statement::insert(table, new))
            }
            RowChange::Delete { old } => {
                self.counts.delete += 1;
                self.delete(&statement::delete(table, old))
            }
            RowChange::Update { old, new } => {
                self.counts.update += 1;
                if statement::trades_places(table, old, new) {
                    self.delete(&statement::delete(table, old))?;
                    return writeln!(self.inserts, "{}", statement::insert(table, new));
                }
                writeln!(self.updates, "{}", statement::update(table, old, new))
            }
        }
    }

    fn delete(&mut self, statement: &str) -> io::Result<()> {
        self.starts.push(self.deletes.stream_position()?);
        writeln!(self.deletes, "{statement}")
    }

    fn copy_deletes(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.deletes.flush()?;
        let mut file = BufReader::new(self.deletes.get_mut());
        for start in self.starts.iter().rev() {
            file.seek(SeekFrom::Start(*start))?;
            let mut line = Vec::new();
            file.read_until(b'\n', &mut line)?;
            out.write_all(&line)?;
        }
        Ok(())
    }
}

fn copy_whole(from: &mut BufWriter<File>, out: &mut dyn Write) -> io::Result<()> {
    from.flush()?;
    from.get_mut().rewind()?;
    io::copy(from.get_mut(), out).map(drop)
}

/// Writes the statements in their order: rows go, children first; then rows change; then rows come, parents first.
fn copy(spools: &mut [Spool], out: &mut dyn Write) -> io::Result<()> {
    spools.iter_mut().rev().try_for_each(|spool| spool.copy_deletes(out))?;
    spools.iter_mut().try_for_each(|spool| copy_whole(&mut spool.updates, out))?;
    spools.iter_mut().try_for_each(|spool| copy_whole(&mut spool.inserts, out))
}
