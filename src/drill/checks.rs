//! The checks of a drill: rows against the manifest, files against the snapshot, the policy's own statements.
//!
//! A check that could not run is NOT RUN, with the reason; never a pass.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use mysql_async::Value;
use mysql_async::prelude::Queryable as _;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::io::Errno;

use crate::drill::outcome::CheckResult;
use crate::drill::outcome::CheckState;
use crate::drill::outcome::DrilledStandby;
use crate::human;
use crate::mysql::manifest::Manifest;
use crate::mysql::server::Server;
use crate::policy::Check;
use crate::replay::ReplayPlan;
use crate::restore::files::{Comparison, Restored};
use crate::run::Run;
use crate::run::Stopped;
use crate::target::mysql::LoadPlan;
use crate::target::mysql::Loaded;
use crate::target::mysql::Mismatch;
use crate::target::mysql::plan::TableName;

/// Names of missing paths that a report shows; the count is always whole.
const NAMES_SHOWN: usize = 5;

/// A check may read every row of a large table; one that takes longer than this waits for something that never comes.
const CHECK_MAX: Duration = Duration::from_mins(30);

/// The kinds of check whose failure is damage: what came back is not what was stored.
pub const ROWS: &str = "rows";
pub const CONTENT: &str = "content";
const BINLOGS: &str = "binlogs";
const STANDBY: &str = "standby";
/// The kind of check that asks what is in a snapshot, not what came back of it.
pub const SNAPSHOT: &str = "snapshot";

/// Builds a result whose duration is filled in by the caller.
fn result(name: &str, kind: &str, state: CheckState) -> CheckResult {
    CheckResult {
        name: name.to_owned(),
        kind: kind.to_owned(),
        result: state,
        found: None,
        wanted: None,
        detail: None,
        duration_ms: 0,
    }
}

/// Fails for a source of the policy that has no snapshot to rehearse with.
#[must_use]
pub fn absent(source: &str) -> CheckResult {
    let mut check = result(&format!("{source}: a snapshot to restore"), SNAPSHOT, CheckState::Fail);
    check.found = Some("none".to_owned());
    check.wanted = Some("at least one".to_owned());
    check
}

/// Says that a part of a source could not be rehearsed: it was left out when the snapshot was made.
#[must_use]
pub fn incomplete(source: &str) -> CheckResult {
    let reason = "some entries could not be read when the snapshot was made; whether they would come back is not known";
    not_run(&format!("{source}: everything is in the snapshot"), SNAPSHOT, reason)
}

/// Says that a dump was made without any lock: its rows come back, and need not fit together.
#[must_use]
pub fn inconsistent(source: &str) -> CheckResult {
    let reason = "the dump was made with `--allow-inconsistent`: whether its tables are of one moment is not known";
    not_run(&format!("{source}: the dump is of one moment"), SNAPSHOT, reason)
}

/// Judges the restore of a tree: every file came back, each proved by its blobs' hashes.
#[must_use]
pub fn tree(source: &str, restored: &Restored, took: Duration) -> CheckResult {
    let state = if restored.failures == 0 { CheckState::Pass } else { CheckState::Fail };
    let mut check = result(&format!("{source}: every file restored"), "files", state);
    check.found = Some(format!("{} files, {} failed", restored.files, restored.failures));
    check.wanted = Some("0 failed".to_owned());
    check.detail = restored.failed.first().map(|(path, reason)| format!("{}: {reason}", path.display()));
    check.duration_ms = crate::backup::millis(took);
    check
}

/// Judges a restored tree beside its snapshot: content must be the same. An owner, a mode or a time that this machine does not let
/// us give back says nothing of the snapshot, and is told.
#[must_use]
pub fn content(source: &str, compared: &Comparison, took: Duration) -> CheckResult {
    let state = if compared.damaged == 0 { CheckState::Pass } else { CheckState::Fail };
    let mut check = result(&format!("{source}: every file as stored"), CONTENT, state);
    let others = compared.differing - compared.damaged.min(compared.differing);
    check.found = Some(format!(
        "{} files, {} of them another content, {others} another owner, mode or time",
        compared.files, compared.damaged
    ));
    check.wanted = Some("0 of another content".to_owned());
    check.detail = compared.differences.first().map(ToString::to_string);
    check.duration_ms = crate::backup::millis(took);
    check
}

/// Judges a replay, whose server has executed what was planned.
#[must_use]
pub fn binlogs(source: &str, plan: &ReplayPlan, recovers: Option<DateTime<Utc>>, took: Duration) -> CheckResult {
    let mut check = result(&format!("{source}: binlogs replayed"), BINLOGS, CheckState::Pass);
    let until = recovers.map(|moment| format!(", all until {}", moment.format("%Y-%m-%d %H:%M:%S UTC")));
    let count = human::counted(plan.transactions, "transaction", "transactions");
    check.found = Some(format!("{count}{}", until.unwrap_or_default()));
    check.wanted = Some("those that were captured".to_owned());
    let last = plan.last.as_ref().and_then(|last| Some((last.gtid.as_ref()?, last.time)));
    check.detail = last.map(|(gtid, time)| format!("last: {gtid} of {}", time.format("%Y-%m-%d %H:%M:%S UTC")));
    check.duration_ms = crate::backup::millis(took);
    check
}

/// Fails where the policy captures binlogs and they do not come back: there are none, they do not lead on from the dump, or its
/// server does not take them.
#[must_use]
pub fn not_replayed(source: &str, found: &str, why: Option<String>) -> CheckResult {
    let mut check = result(&format!("{source}: binlogs replayed"), BINLOGS, CheckState::Fail);
    check.found = Some(found.to_owned());
    check.wanted = Some("those that were captured".to_owned());
    check.detail = why;
    check
}

/// Says that binlogs cannot be replayed after a dump of this kind.
#[must_use]
pub fn cannot_replay(source: &str, why: &str) -> CheckResult {
    not_run(&format!("{source}: binlogs replayed"), BINLOGS, why)
}

/// Says that a standby followed the capture and was promoted.
#[must_use]
pub fn standby(standby: &DrilledStandby, took: Duration) -> CheckResult {
    let mut check = result(&standby_of(&standby.source), STANDBY, CheckState::Pass);
    check.found = Some(format!("promoted in {}", human::millis(standby.downtime_ms)));
    check.duration_ms = crate::backup::millis(took);
    check
}

/// Fails where a standby could not be made, did not come to where the capture is, or was not promoted.
#[must_use]
pub fn standby_failed(source: &str, why: String) -> CheckResult {
    let mut check = result(&standby_of(source), STANDBY, CheckState::Fail);
    check.detail = Some(why);
    check
}

/// Says that no standby can be made of a database here.
#[must_use]
pub fn no_standby(source: &str, why: &str) -> CheckResult {
    not_run(&standby_of(source), STANDBY, why)
}

fn standby_of(source: &str) -> String {
    format!("{source}: a standby follows and takes over")
}

/// Judges what the server made: tables, views, routines, triggers, events, accounts.
#[must_use]
pub fn objects(source: &str, loaded: &Loaded) -> CheckResult {
    let state = if loaded.failed.is_empty() { CheckState::Pass } else { CheckState::Fail };
    let mut check = result(&format!("{source}: every table and object made"), "objects", state);
    check.found = Some(format!("{} objects made, {} tables or objects failed", loaded.objects, loaded.failed.len()));
    check.wanted = Some("0 failed".to_owned());
    let first = loaded.failed.first();
    check.detail = first.map(|failed| format!("{}: {}", failed.what, crate::human::chain(&failed.error)));
    check.duration_ms = crate::backup::millis(loaded.objects_took);
    check
}

/// Reads restored rows back through the dump's encoder and compares each chunk's hash with the manifest. Tables that the sandbox's
/// server cannot hold, or reads in another order, say nothing of the dump: they are named, and the check is no pass.
pub async fn rows(source: &str, server: &Server, manifest: &Manifest, load: &LoadPlan, run: &Run) -> CheckResult {
    let began = Instant::now();
    let name = format!("{source}: every row as dumped");
    let tables = load.comparable().map(|step| (step.table.schema.clone(), step.table.name.clone()));
    let tables: BTreeSet<TableName> = tables.collect();
    let chunks = load.comparable().map(|step| step.table.chunks.len()).sum();
    let mut check = match crate::restore::row_differences(server, manifest, Some(tables), run).await {
        Ok(differences) => judge_rows(&name, chunks, &differences, &load.uncompared()),
        Err(error) => not_run(&name, ROWS, &crate::human::chain(&error)),
    };
    let wanted: usize = manifest.tables.iter().map(|table| table.chunks.len()).sum();
    check.wanted = Some(format!("{wanted} chunks, {} rows", manifest.rows()));
    check.duration_ms = crate::backup::millis(began.elapsed());
    check
}

fn judge_rows(
    name: &str,
    chunks: usize,
    differences: &[Mismatch],
    uncompared: &[(String, &'static str)],
) -> CheckResult {
    let state = match (differences, uncompared) {
        ([], []) => CheckState::Pass,
        ([], _) => CheckState::NotRun,
        _ => CheckState::Fail,
    };
    let mut check = result(name, ROWS, state);
    check.found = Some(format!("{} of {chunks} chunks hash alike", chunks - differences.len().min(chunks)));
    let others: Vec<String> =
        uncompared.iter().take(NAMES_SHOWN).map(|(table, why)| format!("{table}: {why}")).collect();
    let more = match uncompared.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let others = (!others.is_empty()).then(|| format!("not compared: {}{more}", others.join(", ")));
    check.detail = differences.first().map(ToString::to_string).or(others);
    check
}

fn not_run(name: &str, kind: &str, reason: &str) -> CheckResult {
    let mut check = result(name, kind, CheckState::NotRun);
    check.detail = Some(reason.to_owned());
    check
}

/// Runs one of the policy's checks on the restored databases and trees (each tree in `dir/<source>`).
pub async fn run(check: &Check, servers: &[(&str, &Server)], dir: &Path, run: &Run) -> CheckResult {
    let began = Instant::now();
    let (name, kind, mysql) = match check {
        Check::Sql { name, mysql, .. } => (name, "sql", mysql.as_deref()),
        Check::FilesIn { name, mysql, .. } => (name, "files_in", mysql.as_deref()),
    };
    let mut result = match servers.iter().find(|(source, _)| mysql.is_none_or(|wanted| wanted == *source)) {
        None => not_run(name, kind, "the database that it asks was not restored"),
        Some((_, server)) => ask(check, server, dir, run).await.unwrap_or_else(|reason| not_run(name, kind, &reason)),
    };
    result.duration_ms = crate::backup::millis(began.elapsed());
    result
}

async fn ask(check: &Check, server: &Server, dir: &Path, run: &Run) -> Result<CheckResult, String> {
    match check {
        Check::Sql { name, sql, min, max, equals, .. } => {
            let found = bounded(run, first_value(server, sql)).await?;
            Ok(judge_value(name, found, *min, *max, equals.as_deref()))
        }
        Check::FilesIn { name, source, sql, missing_max, .. } => {
            let tree = Tree::open(&dir.join(source))?;
            let found = bounded(run, missing(server, sql, tree, run)).await?;
            Ok(judge_missing(name, &found, *missing_max))
        }
    }
}

/// Waits for the answer of a check, as long as nobody says to stop and it does not take for ever.
async fn bounded<T>(run: &Run, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::select! {
        biased;
        () = run.cancel.cancelled() => Err(Stopped.to_string()),
        answer = tokio::time::timeout(CHECK_MAX, asked) => {
            answer.unwrap_or_else(|_| Err(format!("no answer within {} min", CHECK_MAX.as_secs() / 60)))
        }
    }
}

async fn first_value(server: &Server, sql: &str) -> Result<Option<String>, String> {
    let mut connection = server.connect().await.map_err(|error| error.to_string())?;
    let row: Option<mysql_async::Row> = connection.query_first(sql).await.map_err(|error| error.to_string())?;
    let value = row.and_then(|row| row.as_ref(0).cloned());
    connection.disconnect().await.map_err(|error| error.to_string())?;
    Ok(value.and_then(text))
}

/// Returns a value as text, `None` for NULL.
fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}

/// Judges one value: as a number where a bound is a number, as text where it must equal a text.
fn judge_value(
    name: &str,
    found: Option<String>,
    min: Option<f64>,
    max: Option<f64>,
    equals: Option<&str>,
) -> CheckResult {
    let number = found.as_deref().and_then(|text| text.trim().parse::<f64>().ok());
    let fits_min = min.is_none_or(|min| number.is_some_and(|number| number >= min));
    let fits_max = max.is_none_or(|max| number.is_some_and(|number| number <= max));
    let fits_text = equals.is_none_or(|wanted| found.as_deref() == Some(wanted));
    let state = if fits_min && fits_max && fits_text { CheckState::Pass } else { CheckState::Fail };
    let mut check = result(name, "sql", state);
    check.found = Some(found.unwrap_or_else(|| "NULL".to_owned()));
    let bounds = [
        min.map(|min| format!("at least {min}")),
        max.map(|max| format!("at most {max}")),
        equals.map(|text| format!("`{text}`")),
    ];
    check.wanted = Some(bounds.into_iter().flatten().collect::<Vec<_>>().join(", "));
    check
}

/// What a look for files found.
#[derive(Default)]
struct Missing {
    named: u64,
    missing: u64,
    examples: Vec<String>,
}

/// Counts the paths that a statement returns and that are not in the restored tree. Rows are streamed, whatever their number.
async fn missing(server: &Server, sql: &str, mut tree: Tree, run: &Run) -> Result<Missing, String> {
    let mut connection = server.connect().await.map_err(|error| error.to_string())?;
    let mut rows = connection.query_stream::<Option<Vec<u8>>, _>(sql).await.map_err(|error| error.to_string())?;
    let mut found = Missing::default();
    while let Some(row) = rows.next().await {
        run.check().map_err(|stopped| stopped.to_string())?;
        let Some(bytes) = row.map_err(|error| error.to_string())? else { continue };
        found.named += 1;
        if !tree.holds(Path::new(OsStr::from_bytes(&bytes)))? {
            found.missing += 1;
            if found.examples.len() < NAMES_SHOWN {
                found.examples.push(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    Ok(found)
}

/// A restored tree, in which no path leads out: a link to the living source would prove nothing.
struct Tree {
    root: OwnedFd,
    // Neighbouring rows often name one directory: a directory that is gone is looked for once.
    absent_dirs: HashSet<PathBuf>,
}

impl Tree {
    fn open(root: &Path) -> Result<Self, String> {
        let opened = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = opened.map_err(|_| "the tree that it looks into was not restored".to_owned())?;
        Ok(Self { root, absent_dirs: HashSet::new() })
    }

    /// Tells whether a path that a row names is in the tree. Links are followed as long as they stay in it.
    fn holds(&mut self, path: &Path) -> Result<bool, String> {
        let below: PathBuf = path.components().skip_while(|part| matches!(part, Component::RootDir)).collect();
        if below.as_os_str().is_empty() || below.components().any(|part| matches!(part, Component::ParentDir)) {
            return Ok(false);
        }
        let dir = below.parent().map(Path::to_owned).unwrap_or_default();
        if self.absent_dirs.contains(&dir) {
            return Ok(false);
        }
        let is_there = self.leads_to_something(&below)?;
        if !is_there && !dir.as_os_str().is_empty() && !self.leads_to_something(&dir)? {
            self.absent_dirs.insert(dir);
        }
        Ok(is_there)
    }

    fn leads_to_something(&self, below: &Path) -> Result<bool, String> {
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.root, below, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), within) {
            Ok(_) => Ok(true),
            // Not there, not a path, or (XDEV) a way out of the tree.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL) => {
                Ok(false)
            }
            Err(error) => Err(format!("look for `{}`: {error}", below.display())),
        }
    }
}

fn judge_missing(name: &str, found: &Missing, missing_max: u64) -> CheckResult {
    let state = match (found.named, found.missing) {
        // A statement that names nothing proves nothing.
        (0, _) => CheckState::NotRun,
        (_, missing) if missing <= missing_max => CheckState::Pass,
        _ => CheckState::Fail,
    };
    let mut check = result(name, "files_in", state);
    check.found = Some(format!("{} of {} paths missing", found.missing, found.named));
    check.wanted = Some(format!("at most {missing_max} missing"));
    check.detail = match (found.named, found.examples.is_empty()) {
        (0, _) => Some("the statement named no path".to_owned()),
        (_, true) => None,
        (_, false) => Some(format!("missing: {}", found.examples.join(", "))),
    };
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_judged_by_its_bounds() {
        let judge =
            |found: Option<&str>, min, equals| judge_value("x", found.map(str::to_owned), min, None, equals).result;
        assert_eq!(judge(Some("5"), Some(1.0), None), CheckState::Pass);
        assert_eq!(judge(Some("0"), Some(1.0), None), CheckState::Fail);
        assert_eq!(judge(None, Some(1.0), None), CheckState::Fail);
        assert_eq!(judge(Some("many"), Some(1.0), None), CheckState::Fail);
        assert_eq!(judge(Some("open"), None, Some("open")), CheckState::Pass);
        assert_eq!(judge(Some("shut"), None, Some("open")), CheckState::Fail);
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_that_never_ends_is_given_up_and_a_signal_is_heard() {
        let run = Run::silent();
        let never = || std::future::pending::<Result<(), String>>();
        assert_eq!(bounded(&run, never()).await, Err("no answer within 30 min".to_owned()));
        assert_eq!(bounded(&run, async { Ok(7) }).await, Ok(7));
        run.cancel.cancel();
        assert_eq!(bounded(&run, never()).await, Err("stopped by a signal".to_owned()));
    }

    #[test]
    fn what_cannot_be_compared_is_no_damage_and_no_pass() {
        let damage = Mismatch::Unread { schema: "s".to_owned(), table: "t".to_owned(), path: "p".to_owned() };
        let others = [("`s`.`old`".to_owned(), "it was left out")];
        let judged = |differences: &[Mismatch], others: &[(String, &'static str)]| {
            let check = judge_rows("x", 3, differences, others);
            (check.result, check.found.unwrap_or_default(), check.detail.unwrap_or_default())
        };
        let all = "3 of 3 chunks hash alike".to_owned();
        assert_eq!(judged(&[], &[]), (CheckState::Pass, all.clone(), String::new()));
        let named = "not compared: `s`.`old`: it was left out".to_owned();
        assert_eq!(judged(&[], &others), (CheckState::NotRun, all, named));
        let (state, found, detail) = judged(std::slice::from_ref(&damage), &others);
        assert_eq!((state, found.as_str()), (CheckState::Fail, "2 of 3 chunks hash alike"));
        assert_eq!(detail, damage.to_string());
    }

    #[test]
    fn what_was_not_in_the_snapshot_is_never_a_pass() {
        assert_eq!(absent("db1").result, CheckState::Fail);
        assert_eq!(incomplete("images").result, CheckState::NotRun);
    }

    #[test]
    fn a_statement_that_names_no_path_proves_nothing() {
        assert_eq!(judge_missing("x", &Missing::default(), 0).result, CheckState::NotRun);
    }

    #[test]
    fn a_path_that_climbs_out_of_the_tree_is_not_in_it() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join("a"))?;
        std::fs::write(dir.path().join("a/b"), "x")?;
        let holds = |root: &Path, path: &str| Tree::open(root).and_then(|mut tree| tree.holds(Path::new(path)));
        assert_eq!(holds(dir.path(), "a/b"), Ok(true));
        assert_eq!(holds(dir.path(), "/a/b"), Ok(true));
        assert_eq!(holds(&dir.path().join("a"), "../a/b"), Ok(false));
        assert_eq!(holds(dir.path(), "c/d"), Ok(false));
        assert_eq!(holds(dir.path(), "a/b/c"), Ok(false));
        assert_eq!(holds(dir.path(), ""), Ok(false));
        assert!(holds(&dir.path().join("gone"), "a").is_err());
        Ok(())
    }

    #[test]
    fn a_link_counts_only_if_it_stays_in_the_restored_tree() -> std::io::Result<()> {
        use std::os::unix::fs::symlink;
        let (source, restored) = (tempfile::tempdir()?, tempfile::tempdir()?);
        for root in [&source, &restored] {
            std::fs::create_dir(root.path().join("shop"))?;
        }
        // The image is in the source, and its bytes did not come back.
        std::fs::write(source.path().join("shop/1.jpg"), "x")?;
        std::fs::write(restored.path().join("shop/2.jpg"), "x")?;
        symlink(source.path().join("shop"), restored.path().join("absolute"))?;
        symlink("shop", restored.path().join("relative"))?;
        symlink("shop/3.jpg", restored.path().join("dangling"))?;
        let mut tree = Tree::open(restored.path()).map_err(std::io::Error::other)?;
        let mut holds = |path: &str| tree.holds(Path::new(path));
        assert_eq!(holds("absolute/1.jpg"), Ok(false));
        assert_eq!(holds("absolute"), Ok(false));
        assert_eq!(holds("relative/2.jpg"), Ok(true));
        assert_eq!(holds("relative/1.jpg"), Ok(false));
        assert_eq!(holds("dangling"), Ok(false));
        Ok(())
    }
}
