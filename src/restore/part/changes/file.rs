//! The file of a change set: comments for who reviews it, a header for bkp, statements, and at its end a digest of all before.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::human;
use crate::restore::part::changes::tally::Tally;
use crate::restore::part::changes::{About, ChangesError};

/// The header's own version; a reader refuses another.
pub(super) const FORMAT: u32 = 1;

const HEADER: &str = "-- bkp-changes ";
const END: &str = "-- bkp-end ";

/// What a session is told before the statements: every value comes back as it was, and nothing is made to fit.
pub(super) const SESSION: [&str; 4] = [
    "SET NAMES utf8mb4;",
    "SET SESSION time_zone = '+00:00', foreign_key_checks = 1, unique_checks = 1;",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION';",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;",
];

const BEGIN: &str = "START TRANSACTION;";
const COMMIT: &str = "COMMIT;";

/// How many rows of a table change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCounts {
    pub table: String,
    pub insert: u64,
    pub update: u64,
    pub delete: u64,
}

/// What a change set says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub format: u32,
    #[serde(flatten)]
    pub about: About,
    /// By what the server differs from others.
    pub server: String,
    /// A digest of the definitions that the statements rely on.
    pub footing: String,
    pub tables: Vec<TableCounts>,
    /// Schema and name of the tables, as the footing has them.
    pub order: Vec<(String, String)>,
    /// The first hundred.
    pub conflicts: Vec<String>,
    pub conflicting: u64,
}

impl Header {
    /// Returns how many rows change.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.insert + table.update + table.delete).sum()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct End {
    sha256: String,
}

/// Refuses a place where no change set can be written, before anything is recovered for it.
///
/// # Errors
/// [`ChangesError::Exists`] and [`ChangesError::File`].
pub fn check_place(path: &Path) -> Result<(), ChangesError> {
    let failed = |source| ChangesError::File { path: path.to_owned(), source };
    if path.try_exists().map_err(failed)? {
        return Err(ChangesError::Exists(path.to_owned()));
    }
    tempfile::tempfile_in(parent_of(path)).map(drop).map_err(failed)
}

/// Returns the directory of a file.
pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a change set beside its place, and gives it its name once it is whole. Only its owner can read it: it holds rows.
pub(super) fn write(
    path: &Path,
    header: &Header,
    statements: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ChangesError> {
    let failed = |source| ChangesError::File { path: path.to_owned(), source };
    let parent = parent_of(path);
    let file = NamedTempFile::new_in(parent).map_err(failed)?;
    let mut out = Digested { out: BufWriter::new(file), digest: Sha256::new() };
    write_all(&mut out, header, statements).map_err(failed)?;
    let file = out.finish().map_err(failed)?;
    file.persist_noclobber(path).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => ChangesError::Exists(path.to_owned()),
        _ => failed(error.error),
    })?;
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn write_all(
    out: &mut Digested,
    header: &Header,
    statements: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    for line in remarks(header) {
        // Names come from outside: none may end its comment.
        writeln!(out, "-- {}", human::printable(&line))?;
    }
    writeln!(out, "{HEADER}{}", serde_json::to_string(header)?)?;
    for line in SESSION.into_iter().chain([BEGIN]) {
        writeln!(out, "{line}")?;
    }
    statements(out)?;
    writeln!(out, "{COMMIT}")
}

fn remarks(header: &Header) -> Vec<String> {
    let About { policy, source, server_name, point, last, of, made } = &header.about;
    let of = of.as_ref().map_or_else(|| "all rows".to_owned(), |of| format!("rows with {of}"));
    let mut lines = vec![
        format!("Row changes that bring {of} of these tables back to what they were at {point}."),
        format!("The last transaction before that: {}.", last.as_deref().unwrap_or("none since the dump")),
        format!("Policy {policy}, source {source}; made {made} for the server {server_name}."),
    ];
    for TableCounts { table, insert, update, delete } in &header.tables {
        lines.push(format!("  {table}: {insert} to insert, {update} to update, {delete} to delete"));
    }
    if header.conflicting > 0 {
        lines.push(format!("{} CONFLICTS: bkp does not apply this, and nobody should.", header.conflicting));
        lines.extend(header.conflicts.iter().map(|conflict| format!("  {conflict}")));
    }
    lines.push(
        "Apply it with `bkp restore POLICY --to-mysql URL --changes THIS-FILE --apply --in-place --confirm-host HOST`:"
            .to_owned(),
    );
    lines.push("each statement must change one row as it was when this was made, or nothing is changed.".to_owned());
    lines.push(
        "A plain client does not look at that. The line before a statement tells it, with long values cut.".to_owned(),
    );
    lines
}

/// Takes the digest of what is written.
struct Digested {
    out: BufWriter<NamedTempFile>,
    digest: Sha256,
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Digested {
    fn finish(mut self) -> io::Result<NamedTempFile> {
        let end = End { sha256: hex::encode(self.digest.clone().finalize()) };
        writeln!(self.out, "{END}{}", serde_json::to_string(&end)?)?;
        self.out.flush()?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        Ok(file)
    }
}

/// A change set that was read and found whole.
#[derive(Debug, Clone)]
pub struct ChangeSet {
    pub path: PathBuf,
    pub header: Header,
    pub statements: u64,
    pub(super) sha256: String,
}

impl ChangeSet {
    /// Reads a change set to its end.
    ///
    /// # Errors
    /// [`ChangesError`] where it is none, is cut or was edited.
    pub fn open(path: &Path) -> Result<Self, ChangesError> {
        let not_ours = |why| ChangesError::NotOurs { path: path.to_owned(), why };
        let mut lines = Lines::open(path)?;
        let mut set: Option<(Header, Tally)> = None;
        while let Some(line) = lines.next()? {
            if let Some(text) = line.strip_prefix(HEADER) {
                let header: Header = serde_json::from_str(text).map_err(|_| not_ours(UNKNOWN))?;
                let tally = Tally::new(&header.order);
                set = Some((header, tally));
            } else if is_statement(&line) {
                let (_, tally) = set.as_mut().ok_or_else(|| not_ours(UNKNOWN))?;
                tally.take(&line).map_err(not_ours)?;
            } else if !is_frame(&line) {
                let why = if set.is_some() { "it has a statement that changes no row" } else { UNKNOWN };
                return Err(not_ours(why));
            }
        }
        let (header, tally) = set.ok_or_else(|| not_ours(UNKNOWN))?;
        if header.format != FORMAT {
            return Err(not_ours("another version of bkp has written it"));
        }
        tally.check(&header.tables).map_err(not_ours)?;
        let (statements, sha256) = (lines.statements, lines.sha256());
        Ok(Self { path: path.to_owned(), header, statements, sha256 })
    }
}

const UNKNOWN: &str = "bkp has not written it";

/// The lines of a change set, which must be whole: at the last, the digest agrees.
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    digest: Sha256,
    pub(super) statements: u64,
    /// Lines read.
    pub(super) number: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, ChangesError> {
        let file = File::open(path).map_err(|source| ChangesError::Unread { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: BufReader::new(file), digest: Sha256::new(), statements: 0, number: 0 })
    }

    /// Returns the next line; none after the last.
    pub(super) fn next(&mut self) -> Result<Option<String>, ChangesError> {
        let not_ours = |path: &Path, why| ChangesError::NotOurs { path: path.to_owned(), why };
        let line = self.line()?;
        let Some(text) = line.strip_prefix(END) else {
            if !line.ends_with('\n') {
                return Err(not_ours(&self.path, "it has no end"));
            }
            self.digest.update(&line);
            self.number += 1;
            self.statements += u64::from(is_statement(&line));
            return Ok(Some(line));
        };
        let end: Option<End> = serde_json::from_str(text).ok();
        let is_whole = end.is_some_and(|end| end.sha256 == self.sha256());
        if !is_whole || !self.line()?.is_empty() {
            return Err(not_ours(&self.path, "it is not as bkp has written it"));
        }
        Ok(None)
    }

    fn line(&mut self) -> Result<String, ChangesError> {
        let mut line = String::new();
        let read = self.file.read_line(&mut line);
        read.map_err(|source| ChangesError::Unread { path: self.path.clone(), source })?;
        Ok(line)
    }

    pub(super) fn sha256(&self) -> String {
        hex::encode(self.digest.clone().finalize())
    }
}

/// Tells whether a line is a row's change, and not what stands round them.
pub(super) fn is_statement(line: &str) -> bool {
    ["INSERT INTO ", "UPDATE ", "DELETE FROM "].iter().any(|verb| line.starts_with(verb))
}

/// Tells whether a line is what stands round the row changes.
fn is_frame(line: &str) -> bool {
    let line = line.trim_end();
    line.starts_with("-- ") || SESSION.iter().chain([&BEGIN, &COMMIT]).any(|framing| *framing == line)
}
