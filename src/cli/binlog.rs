//! The commands on binlogs: capture, list, find, export.

mod find;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::backup::Kind;
use crate::capture::stored::{self, Stored};
use crate::capture::{CaptureError, Chain, Spool};
use crate::cli::args::{BinlogCommand, BinlogExportArgs, BinlogListArgs, Global};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::{policies, render, restore, work};
use crate::cycle::task::Task;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::place;
use crate::policy::Policy;
use crate::repository::{LockGuard, Repository, RepositoryError, StoredSnapshot};
use crate::run::Run;

pub(super) fn binlog(global: &Global, command: &BinlogCommand) -> Answered {
    match command {
        BinlogCommand::Capture(args) => {
            let policy = policies::one(global, &args.policy.policy)?;
            let task = Task::Capture { sources: args.sources.clone() };
            wait(global, |run| async move { work::step(&policy, &task, std::time::Duration::ZERO, &run).await })
        }
        BinlogCommand::List(args) => list(global, args),
        BinlogCommand::Find(args) => find::find(global, args),
        BinlogCommand::Export(args) => export(global, args),
    }
}

fn list(global: &Global, args: &BinlogListArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let sources = sources(&policy, args.source.as_deref())?;
    wait(global, |run| async move {
        let store = open(&policy, args.from.as_deref(), &run).await?;
        let (mut text, mut all) = (String::new(), Vec::new());
        for source in &sources {
            let chain = chain_of(&policy, source, args.from.is_some(), &store).await?;
            let window = chain.window(&dumps(&policy, source, &store.snapshots));
            text.push_str(&render::chain(&policy, &chain, window));
            all.push(chain_json(&chain, window));
        }
        Ok(Answer::new(text, json!({ "sources": all })))
    })
}

fn chain_json(chain: &Chain, window: Option<(DateTime<Utc>, DateTime<Utc>)>) -> Value {
    let window = window.map(|(from, to)| json!({ "from": from, "to": to }));
    json!({ "source": chain.source, "as_of": chain.as_of, "epochs": chain.epochs, "recovery_window": window })
}

/// A store that was opened to read.
struct Opened {
    repository: Arc<Repository>,
    snapshots: Vec<StoredSnapshot>,
}

async fn open(policy: &Policy, from: Option<&str>, run: &Run) -> Result<Opened, Failure> {
    let repository = place::repository_in(policy, from, run).await?;
    Ok(Opened::of(repository, run).await?)
}

/// Opens a store and locks it, before anything is read that a prune could take away.
async fn open_locked(policy: &Policy, from: Option<&str>, run: &Run) -> Result<(Opened, Option<LockGuard>), Failure> {
    let repository = place::repository_in(policy, from, run).await?;
    let lock = place::lock_to_read(&repository, run).await?;
    match Opened::of(repository, run).await {
        Ok(store) => Ok((store, lock)),
        Err(error) => {
            place::unlock(lock, run).await;
            Err(error.into())
        }
    }
}

impl Opened {
    async fn of(repository: Arc<Repository>, run: &Run) -> Result<Self, RepositoryError> {
        let snapshots = repository.snapshots().await?;
        repository.load_index(run).await?;
        Ok(Self { repository, snapshots })
    }

    async fn newest(&self, policy: &Policy, source: &str) -> Result<Option<Stored>, CaptureError> {
        match stored::newest(&self.snapshots, &policy.name, source) {
            Some(newest) => stored::open(&self.repository, newest).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Returns the chain that knows most: the spool's, which is ahead of the repository, where it is here and wanted.
async fn chain_of(policy: &Policy, source: &str, only_stored: bool, store: &Opened) -> Result<Chain, Failure> {
    let plan = policy.mysql.get(source).and_then(|place| place.binlog.as_ref()).filter(|_| !only_stored);
    let spooled = match plan {
        Some(plan) => Spool::look(&plan.spool, source)?,
        None => None,
    };
    let is_known = spooled.as_ref().is_some_and(|chain| !chain.epochs.is_empty());
    let stored = if is_known { None } else { store.newest(policy, source).await? };
    Ok(stored.map(|stored| stored.chain).or(spooled).unwrap_or_else(|| Chain::new(source)))
}

fn dumps(policy: &Policy, source: &str, snapshots: &[StoredSnapshot]) -> Vec<DateTime<Utc>> {
    let wanted = [("policy", &*policy.name), ("source", source), ("kind", Kind::Mysql.name())];
    let is_dump =
        |stored: &&StoredSnapshot| wanted.iter().all(|(name, value)| stored.snapshot.tag(name) == Some(*value));
    snapshots
        .iter()
        .filter(is_dump)
        .filter(|stored| stored.snapshot.tag("incomplete").is_none())
        .map(|stored| stored.snapshot.time)
        .collect()
}

/// Returns the sources whose binlog is meant: the named one, or all that the policy captures.
fn sources(policy: &Policy, named: Option<&str>) -> Result<Vec<String>, Failure> {
    if let Some(name) = named {
        // One that the policy names no more may still be in a store.
        return Ok(vec![name.to_owned()]);
    }
    let captured = policy.mysql.iter().filter(|(_, source)| source.binlog.is_some());
    let sources: Vec<String> = captured.map(|(name, _)| name.clone()).collect();
    if sources.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("find binlogs: policy `{}` captures none", policy.name))
            .hinting("set `binlog.capture` of a database to true, or name one with `--source`"));
    }
    Ok(sources)
}

/// Returns the source whose binlog is meant, where it can be but one.
fn one_source(policy: &Policy, named: Option<&str>) -> Result<String, Failure> {
    let sources = sources(policy, named)?;
    match sources.as_slice() {
        [source] => Ok(source.clone()),
        _ => {
            Err(Failure::new(Exit::Usage, format!("choose a binlog: the policy captures {}", human::quoted(&sources)))
                .hinting("name one with `--source`"))
        }
    }
}

fn export(global: &Global, args: &BinlogExportArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let source = &one_source(&policy, args.source.as_deref())?;
    let dir = restore::absolute(&args.dir)?;
    wait(global, |run| async move {
        // Before it is looked what there is: what a prune takes away meanwhile would be missed in the midst.
        let (store, lock) = open_locked(&policy, args.from.as_deref(), &run).await?;
        let exported = async {
            let stored = store.newest(&policy, source).await?;
            let stored = stored.ok_or_else(|| CaptureError::Nothing(source.clone()))?;
            let written = stored::export(&store.repository, &stored, &dir, &run).await?;
            Ok::<_, CaptureError>((stored, written))
        };
        let exported = exported.await;
        place::unlock(lock, &run).await;
        let (stored, written) = exported?;
        let text =
            format!("{} of {source} are in {}", human::counted(written.len() as u64, "file", "files"), dir.display());
        let json = json!({
            "source": source,
            "snapshot": stored.snapshot.id,
            "dir": dir,
            "files": written,
            "chain": stored.chain,
        });
        Ok(Answer::new(text, json))
    })
}
