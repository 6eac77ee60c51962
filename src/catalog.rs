//! The catalog: a record of runs, drills, copies and of where each snapshot lies.
//!
//! It is one SQLite file in the policy's state directory. It serves `status` and reports, and it remembers what makes
//! retention rest; what is in the repositories is the truth, and [`Catalog::rebuild`] takes it over from there. A file that
//! SQLite cannot read is moved aside and begun anew with a warning, so that a bad catalog never stands between an operator
//! and a restore. One that was begun anew says so until it was filled.
//!
//! Opening costs a few milliseconds; a run with nothing due never opens it.

mod drills;
mod heals;
mod holder;
mod record;
mod runs;
mod schema;
mod snapshots;
mod verifies;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::ErrorCode;

pub use record::{
    CopyRecord, HealRecord, Outcome, RunEnd, RunRecord, RunSnapshot, RunStart, SnapshotRecord, SourceEnd, VerifyRecord,
};

use crate::event::Events;

/// The store name under which the policy's own repository stands beside its copies.
pub const REPOSITORY: &str = "repository";

const FILE: &str = "catalog.sqlite";

/// Writers hold the file for milliseconds; whoever waits longer than this meets something that hangs.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(10);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("{act} catalog `{}`: {source}", path.display())]
    Sqlite { act: &'static str, path: PathBuf, source: rusqlite::Error },
    #[error("{act} `{}`: {source}", path.display())]
    Io { act: &'static str, path: PathBuf, source: io::Error },
    #[error("open catalog `{}`: written by a newer bkp (schema {found}, this one knows {known})", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
}

impl CatalogError {
    /// Says the next step, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Newer { .. } => Some("use the newer bkp on this machine".to_owned()),
            Self::Sqlite { source, path, .. } if is_damage(source) => {
                Some(format!("move `{}` away; the next run begins a new one", path.display()))
            }
            Self::Sqlite { source, .. } if source.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                Some("another bkp holds the catalog; try again when it has ended".to_owned())
            }
            Self::Io { source, path, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("run as the user who owns `{}`, or set `state_dir` in the policy", path.display()))
            }
            Self::Sqlite { .. } | Self::Io { .. } => None,
        }
    }
}

/// One policy's catalog. All methods block for milliseconds and may be called from many threads.
#[derive(Debug)]
pub struct Catalog {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Catalog {
    /// Tells whether a state directory has a catalog.
    #[must_use]
    pub fn is_in(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Opens the catalog of a state directory, and begins one where there is none or where the file is damaged.
    ///
    /// # Errors
    /// [`CatalogError`] where the directory cannot be written or a newer `bkp` wrote the file.
    pub fn open(dir: &Path, events: &Events) -> Result<Self, CatalogError> {
        create_dir(dir)?;
        let path = dir.join(FILE);
        let connection = match connect(&path) {
            Err(CatalogError::Sqlite { source, .. }) if is_damage(&source) => {
                replace_damaged(dir, &path, &source, events)?
            }
            other => other?,
        };
        Ok(Self { path, connection: Mutex::new(connection) })
    }

    /// Does one act on the connection, and names it where it fails. A panic elsewhere leaves no half transaction behind.
    fn with<T>(
        &self,
        act: &'static str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CatalogError> {
        let mut connection: MutexGuard<'_, Connection> = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut connection).map_err(|source| CatalogError::Sqlite { act, path: self.path.clone(), source })
    }
}

fn create_dir(dir: &Path) -> Result<(), CatalogError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| CatalogError::Io { act: "create state directory", path: dir.to_owned(), source })
}

fn connect(path: &Path) -> Result<Connection, CatalogError> {
    let named = |source| CatalogError::Sqlite { act: "open", path: path.to_owned(), source };
    let mut connection = Connection::open(path).map_err(named)?;
    prepare(&connection).map_err(named)?;
    match schema::migrate(&mut connection).map_err(named)? {
        schema::Migrated::Done => Ok(connection),
        schema::Migrated::Newer { found, known } => Err(CatalogError::Newer { path: path.to_owned(), found, known }),
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT_MAX)?;
    write_ahead(connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(damage, Some(verdict)))
}

/// Has changes written ahead, so that readers and writers do not wait for one another.
///
/// Of several who open a new catalog at once each wants it alone for this, and SQLite lets none of them wait: one could wait for the
/// other for ever. So it is tried again.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && waited < BUSY_WAIT_MAX => {}
            set => return set,
        }
        std::thread::sleep(BUSY_PAUSE);
        waited += BUSY_PAUSE;
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Moves a damaged file aside and begins a new one. Two processes may find the damage at once: the lock lets one of them act.
fn replace_damaged(
    dir: &Path,
    path: &Path,
    damage: &rusqlite::Error,
    events: &Events,
) -> Result<Connection, CatalogError> {
    let lock_path = dir.join("catalog.lock");
    let io = |act, path: &Path, source| CatalogError::Io { act, path: path.to_owned(), source };
    let lock = fs::File::create(&lock_path).map_err(|source| io("create", &lock_path, source))?;
    lock.lock().map_err(|source| io("lock", &lock_path, source))?;
    match connect(path) {
        Err(CatalogError::Sqlite { source, .. }) if is_damage(&source) => {}
        other => return other,
    }
    let aside = free_name(dir);
    fs::rename(path, &aside).map_err(|source| io("move aside", path, source))?;
    drop_journals(path);
    events.warn(format!(
        "the catalog was damaged ({damage}); it is kept as `{}` and a new one begins: earlier runs and drills are not listed",
        aside.display()
    ));
    connect(path)
}

fn free_name(dir: &Path) -> PathBuf {
    let names = (1_u32..).map(|number| dir.join(format!("{FILE}.damaged-{number}")));
    let mut free = names.skip_while(|name| name.exists());
    free.next().unwrap_or_else(|| dir.join(format!("{FILE}.damaged")))
}

/// A journal of the old file must not be played into the new one.
fn drop_journals(path: &Path) {
    for suffix in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        // Where it is not there, all is well; where it cannot go, opening the new file says so.
        drop(fs::remove_file(PathBuf::from(name)));
    }
}
