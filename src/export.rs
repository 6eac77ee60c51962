//! The verb that writes a dump out in the form of other tools: a directory for `myloader`, or SQL for the plain client.
//!
//! What is written is plaintext: the repository's encryption ends here. Files bear another name until all of them are whole, and
//! the one without which none of the others loads is given its name last.

mod dir;
mod insert;
mod mydumper;
mod rows;
mod session;
mod sql;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;

use crate::event::Unit;
use crate::export::dir::Dir;
use crate::export::rows::Desk;
use crate::human;
use crate::mysql::manifest::{Manifest, ObjectEntry, ObjectKind, TableEntry};
use crate::policy::Policy;
use crate::repository::{Repository, RepositoryError};
use crate::restore::RestoreError;
use crate::restore::choose;
use crate::restore::choose::{Chosen, Moment};
use crate::run::{Run, Stopped};
use crate::target::mysql::plan::is_selected;
use crate::target::mysql::{DumpReadError, DumpReader, Selection};

/// The form that another tool reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Files as `mydumper --load-data` writes them, for `myloader`.
    Mydumper,
    /// Statements for the plain client: a file for each table, in the order of their names.
    Sql,
}

impl Form {
    /// Returns the command that loads an export exactly. Without its flags the client drops comments and carriage returns.
    #[must_use]
    pub fn loaded_by(self, dir: impl fmt::Display) -> String {
        const CLIENT: &str = "mysql --binary-mode --comments --default-character-set=utf8mb4 --max-allowed-packet=1G";
        match self {
            Self::Mydumper => format!("cd {dir} && myloader --directory ."),
            Self::Sql => format!("cat {dir}/*.sql | {CLIENT}"),
        }
    }
}

/// What an operator asks of an export.
#[derive(Debug, Clone)]
pub struct Request {
    pub moment: Moment,
    /// `None`: the policy's only database.
    pub source: Option<String>,
    /// Empty: all.
    pub tables: Vec<(String, String)>,
    pub users: bool,
    pub form: Form,
    pub dir: PathBuf,
}

/// What an export will write.
pub struct Plan {
    pub dump: Arc<dyn DumpReader>,
    /// Which snapshot it is, for people: a line at the head of the files.
    pub label: String,
    pub selection: Selection,
    pub form: Form,
    pub dir: PathBuf,
}

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    pub form: Form,
    pub dir: PathBuf,
    pub tables: usize,
    pub rows: u64,
    pub objects: usize,
    pub files: usize,
    pub bytes: u64,
    /// What the snapshot holds and the form has no place for.
    pub omitted: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("export: policy `{0}` has no database")]
    NoDatabase(String),
    #[error("export: policy `{policy}` has {} databases: {}", sources.len(), sources.join(", "))]
    ManyDatabases { policy: String, sources: Vec<String> },
    #[error("export: source `{0}` is a tree of files")]
    NotDatabase(String),
    #[error("export into `{0}`: it is not an empty directory")]
    NotEmpty(PathBuf),
    #[error("export into `{}`: {error}", path.display())]
    Write { path: PathBuf, error: std::io::Error },
    #[error("export: {0}")]
    Dump(#[from] DumpReadError),
    #[error("export: a thread broke down: {0}")]
    Thread(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl ExportError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Restore(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
            Self::Dump(error) => return error.hint(),
            Self::NoDatabase(_) => "trees of files come back with `bkp restore --to-dir DIR`",
            Self::NotDatabase(_) => "`bkp restore --to-dir DIR` brings it back as it is",
            Self::ManyDatabases { .. } => "name one with `--source`",
            Self::NotEmpty(_) => {
                "name a new directory; what a run that was killed left ends with `.partial` and may go"
            }
            Self::Write { error, .. } if is_full(error) => {
                "nothing of it is left; an export takes about the size of the rows as text: name a directory with more room"
            }
            Self::Write { .. } | Self::Thread(_) | Self::Stopped(_) => return None,
        };
        Some(text.to_owned())
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Chooses the snapshot and reads its manifest. Writes nothing.
///
/// # Errors
/// [`ExportError`] where no snapshot fits, it is none of a database, or a table that is named is not in it.
pub async fn plan(
    policy: &Policy,
    repository: &Arc<Repository>,
    request: &Request,
    run: &Run,
) -> Result<Plan, ExportError> {
    let snapshots = repository.snapshots().await?;
    repository.load_index(run).await?;
    let wanted = wanted(policy, request)?;
    let chosen = choose::choose(&snapshots, &policy.name, &wanted, &request.moment, run.now())?;
    let chosen = chosen.into_iter().next().ok_or_else(|| ExportError::NoDatabase(policy.name.clone()))?;
    if chosen.kind != "mysql" {
        return Err(ExportError::NotDatabase(chosen.source));
    }
    let dump = crate::restore::open_dump(repository, &chosen).await?;
    refuse_unknown(dump.manifest(), &request.tables)?;
    let selection = Selection {
        tables: Some(request.tables.clone()).filter(|tables| !tables.is_empty()),
        accounts: request.users,
        ..Selection::everything()
    };
    let label = label(&chosen);
    Ok(Plan { dump: Arc::new(dump), label, selection, form: request.form, dir: request.dir.clone() })
}

fn wanted(policy: &Policy, request: &Request) -> Result<Vec<String>, ExportError> {
    if let Some(source) = &request.source {
        return Ok(vec![source.clone()]);
    }
    if matches!(request.moment, Moment::Snapshot(_)) {
        return Ok(Vec::new());
    }
    let databases: Vec<String> = policy.mysql.keys().cloned().collect();
    match databases.len() {
        0 => Err(ExportError::NoDatabase(policy.name.clone())),
        1 => Ok(databases),
        _ => Err(ExportError::ManyDatabases { policy: policy.name.clone(), sources: databases }),
    }
}

fn refuse_unknown(manifest: &Manifest, tables: &[(String, String)]) -> Result<(), RestoreError> {
    let is_there =
        |name: &&(String, String)| manifest.tables.iter().any(|t| (&t.schema, &t.name) == (&name.0, &name.1));
    match tables.iter().find(|name| !is_there(name)) {
        Some((schema, table)) => Err(RestoreError::NoTable(format!("{schema}.{table}"))),
        None => Ok(()),
    }
}

fn label(chosen: &Chosen) -> String {
    format!("snapshot {} of source {}", chosen.id().short(), human::printable(&chosen.source))
}

impl Plan {
    pub(crate) fn tables(&self) -> impl Iterator<Item = &TableEntry> {
        self.dump.manifest().tables.iter().filter(|table| self.selection.has(&table.schema, &table.name))
    }

    /// Returns the objects that come, in the order in which they can be made.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &ObjectEntry> {
        self.dump.manifest().objects.iter().filter(|object| is_selected(object, is_account(object), &self.selection))
    }

    /// Returns the schemas that tables or objects need.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = (&str, &str)> {
        let has = |name: &str| {
            self.selection.tables.is_none()
                || self.tables().any(|table| table.schema == name)
                || self.objects().any(|object| object.schema.as_deref() == Some(name))
        };
        let schemas = self.dump.manifest().schemas.iter().filter(move |schema| has(&schema.name));
        schemas.map(|schema| (schema.name.as_str(), schema.create.as_str()))
    }

    fn bytes(&self) -> u64 {
        self.tables().map(|table| table.bytes).sum()
    }
}

fn is_account(object: &ObjectEntry) -> bool {
    matches!(object.kind, ObjectKind::Role | ObjectKind::User | ObjectKind::Grant)
}

/// A file, or some that belong together, to be written on a thread that may block.
type Job = Box<dyn FnOnce(&Desk) -> Result<(), ExportError> + Send>;

/// Row files at a time: enough to hide a store's latency, few enough for a small machine.
const JOBS_AT_ONCE: usize = 4;

/// Writes an export, whole or not at all.
///
/// # Errors
/// [`ExportError`] where the directory is not empty or full, or the dump is damaged; what was written till then is removed.
pub async fn apply(plan: &Plan, run: &Run) -> Result<Exported, ExportError> {
    let dir = Dir::make(&plan.dir)?;
    let progress = run.events.task("export rows", Unit::Bytes, plan.bytes());
    let desk = Arc::new(Desk::new(plan.dump.clone(), dir, progress.clone(), run));
    let (jobs, last) = match plan.form {
        Form::Mydumper => (mydumper::jobs(plan), mydumper::LAST.to_owned()),
        Form::Sql => (sql::jobs(plan), sql::FIRST.to_owned()),
    };
    let written = all(&desk, jobs).await;
    let desk = Arc::into_inner(desk).ok_or_else(|| ExportError::Thread("it did not end".to_owned()))?;
    written?;
    let (files, bytes) = desk.into_dir().publish(&last)?;
    Ok(exported(plan, files, bytes))
}

/// Does all jobs, some at a time. The first that fails stops the others; none is left running.
async fn all(desk: &Arc<Desk>, jobs: Vec<Job>) -> Result<(), ExportError> {
    let begun = stream::iter(jobs).map(|job| {
        let desk = desk.clone();
        tokio::task::spawn_blocking(move || desk.check().and_then(|()| job(&desk)))
    });
    let mut ended = begun.buffer_unordered(JOBS_AT_ONCE);
    let mut first = Ok(());
    while let Some(joined) = ended.next().await {
        let done = joined.unwrap_or_else(|error| Err(ExportError::Thread(error.to_string())));
        if done.is_err() && first.is_ok() {
            desk.stop();
            first = done;
        }
    }
    first
}

fn exported(plan: &Plan, files: usize, bytes: u64) -> Exported {
    let (left, objects): (Vec<&ObjectEntry>, Vec<&ObjectEntry>) =
        plan.objects().partition(|object| plan.form == Form::Mydumper && is_account(object));
    let accounts = (!left.is_empty()).then(|| "accounts and grants: mydumper's form has no place for them".to_owned());
    Exported {
        form: plan.form,
        dir: plan.dir.clone(),
        tables: plan.tables().count(),
        rows: plan.tables().map(|table| table.rows).sum(),
        objects: objects.len(),
        files,
        bytes,
        omitted: accounts.into_iter().collect(),
    }
}
