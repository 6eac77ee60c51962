//! The command that finds a mistake's transactions, in what was captured or in files.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::capture::chain::{Epoch, Segment};
use crate::capture::stored::Stored;
use crate::capture::{CaptureError, Chain, Spool};
use crate::cli::args::{BinlogFindArgs, Global};
use crate::cli::binlog::{Opened, one_source, open_locked};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::render::Told;
use crate::cli::table::Times;
use crate::cli::{ink, policies, restore, table};
use crate::exit::{Exit, Failure};
use crate::find::{self, FindError, Findings, Found, Hole, Search, Wanted};
use crate::human;
use crate::mysql::binlog::TableName;
use crate::mysql::manifest::Product;
use crate::place;
use crate::policy::Policy;
use crate::restore::choose::Moment;
use crate::run::Run;

pub(super) fn find(global: &Global, args: &BinlogFindArgs) -> Answered {
    let policy = args.policy.as_deref().map(|name| policies::one(global, name)).transpose()?;
    let zone = policy.as_ref().map_or(Tz::UTC, |policy| policy.timezone);
    let wanted = wanted(args, zone)?;
    wait(global, |run| async move {
        let now = run.now();
        let search = Search::new(wanted, args.limit as usize, run.clone());
        let searched = match (&policy, &args.dir) {
            (Some(policy), _) => captured(policy, args, search, &run).await?,
            (None, Some(dir)) => {
                let dir = dir.clone();
                let findings = blocking(move || find::in_dir(&dir, search)).await??;
                Searched { findings, as_of: None, is_captured: false, unreached: None }
            }
            (None, None) => return Err(Failure::new(Exit::Usage, "neither a policy nor a directory is named")),
        };
        Ok(told(&searched, Times { zone, now }))
    })
}

/// What was found, and how much was searched.
struct Searched {
    findings: Findings,
    /// How far the capture goes.
    as_of: Option<DateTime<Utc>>,
    is_captured: bool,
    /// Why the repository was not searched, and the files that are there alone.
    unreached: Option<(Failure, Vec<String>)>,
}

/// Runs what reads and parses beside what waits.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(Exit::Failed, format!("search: {error}")))
}

/// What a spool has of a source. Its files are open before the repository is read: one that is sealed and released since is whole
/// here, and one that was released before is whole there.
struct Spooled {
    chain: Chain,
    files: HashMap<(u32, String), File>,
}

impl Spooled {
    fn open(policy: &Policy, source: &str) -> Result<Option<Self>, Failure> {
        let Some(plan) = policy.mysql.get(source).and_then(|place| place.binlog.as_ref()) else { return Ok(None) };
        let Some(chain) = Spool::look(&plan.spool, source)? else { return Ok(None) };
        let mut files = HashMap::new();
        for (epoch, segment) in chain.segments() {
            let path = Spool::segment(&plan.spool, source, epoch, &segment.file);
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
            match opened {
                Ok((bytes, file)) if bytes >= segment.bytes => drop(files.insert((epoch, segment.file.clone()), file)),
                // What is cut there may be whole in the repository.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(FindError::Open { path, source }.into()),
            }
        }
        Ok(Some(Self { chain, files }).filter(|spooled| spooled.chain.segments().next().is_some()))
    }
}

/// What is searched: the chain, and where its segments are.
struct Places {
    chain: Chain,
    files: HashMap<(u32, String), File>,
    store: Option<(Opened, Option<Stored>)>,
    /// Why there is no store.
    unreached: Option<Failure>,
}

/// Searches the segments of a source: those of the spool where they are, else those of the repository or the copy.
async fn captured(policy: &Policy, args: &BinlogFindArgs, search: Search, run: &Run) -> Result<Searched, Failure> {
    let source = one_source(policy, args.source.as_deref())?;
    let spooled = if args.from.is_none() { Spooled::open(policy, &source)? } else { None };
    let (store, lock, unreached) = match open_locked(policy, args.from.as_deref(), run).await {
        Ok((store, lock)) => (Some(store), lock, None),
        Err(failure) if spooled.is_some() && !matches!(failure.exit, Exit::Interrupted | Exit::Terminated) => {
            (None, None, Some(failure))
        }
        Err(failure) => return Err(failure),
    };
    let searched = async {
        let store = match store {
            Some(store) => {
                let stored = store.newest(policy, &source).await?;
                Some((store, stored))
            }
            None => None,
        };
        let of_store = || store.as_ref().and_then(|(_, stored)| Some(stored.as_ref()?.chain.clone()));
        let (chain, files) = match spooled {
            Some(spooled) => (spooled.chain, spooled.files),
            None => (of_store().unwrap_or_else(|| Chain::new(&source)), HashMap::new()),
        };
        if chain.segments().next().is_none() {
            return Err(CaptureError::Nothing(source.clone()).into());
        }
        segments(Places { chain, files, store, unreached }, search).await
    };
    let searched = searched.await;
    place::unlock(lock, run).await;
    searched
}

async fn segments(mut places: Places, mut search: Search) -> Result<Searched, Failure> {
    for Hole { what, is_meant } in holes(&places.chain, search.wanted()) {
        search = search.holed(what, is_meant);
    }
    let is_one = places.chain.epochs.len() == 1;
    let mut unsearched = Vec::new();
    for (epoch, segment) in places.chain.segments() {
        let name = if is_one { segment.file.clone() } else { format!("{epoch}/{}", segment.file) };
        let file = places.files.remove(&(epoch, segment.file.clone()));
        let bytes = places.store.as_ref().and_then(|(store, stored)| {
            let stored = stored.as_ref()?;
            let is_whole = stored.node(epoch, &segment.file)?.metadata.size >= segment.bytes;
            stored.bytes(&store.repository, epoch, &segment.file).filter(|_| is_whole)
        });
        if file.is_none() && places.unreached.is_some() {
            unsearched.push(name);
            continue;
        }
        search = blocking(move || match (file, bytes) {
            (Some(file), _) => search.read(&PathBuf::from(&name), &name, file),
            (None, Some(bytes)) => search.read(&PathBuf::from(&name), &name, bytes),
            (None, None) => Ok(search.missing(PathBuf::from(name))),
        })
        .await??;
    }
    let unreached = places.unreached.take().map(|failure| (failure, unsearched));
    Ok(Searched { findings: search.findings(), as_of: places.chain.as_of, is_captured: true, unreached })
}

/// Returns what a chain lacks between its segments. MariaDB's times bound nothing, so that a gap there may be of any time.
fn holes(chain: &Chain, wanted: &Wanted) -> Vec<Hole> {
    let mut holes = Vec::new();
    let mut before: Option<(&Epoch, &Segment)> = None;
    for (epoch, segment) in chain.epochs.iter().flat_map(|epoch| epoch.segments.iter().map(move |it| (epoch, it))) {
        if let Some((last_epoch, last)) = before {
            let gap = epoch.gaps.iter().find(|gap| gap.before == segment.file);
            let missing = gap.and_then(|gap| gap.missing.as_deref());
            let missing = missing.map(|gtids| format!(": {gtids}")).unwrap_or_default();
            let what = if last_epoch.number == epoch.number {
                gap.map(|_| format!("nothing was captured between `{}` and `{}`{missing}", last.file, segment.file))
            } else {
                let why = epoch.why.words();
                Some(format!("a new epoch begins at `{}/{}`, because {why}", epoch.number, segment.file))
            };
            let is_dated = [last_epoch, epoch].iter().all(|epoch| epoch.server.product == Product::MySql);
            let (from, to) = (last.last.or(last.first), segment.first.or(segment.last));
            let is_meant = match (from, to) {
                (Some(from), Some(to)) if is_dated => wanted.is_within(from, to),
                _ => true,
            };
            holes.extend(what.map(|what| Hole { what, is_meant }));
        }
        before = Some((epoch, segment));
    }
    holes
}

fn wanted(args: &BinlogFindArgs, zone: Tz) -> Result<Wanted, Failure> {
    Ok(Wanted {
        tables: args.tables.iter().map(|name| table_meant(name)).collect::<Result<_, _>>()?,
        verbs: args.types.iter().map(|change| change.verb()).collect(),
        since: args.since.as_deref().map(|text| time(text, zone)).transpose()?,
        until: args.until.as_deref().map(|text| time(text, zone)).transpose()?,
    })
}

/// Reads `schema.table`, or a schema alone.
fn table_meant(name: &str) -> Result<TableName, Failure> {
    if !name.is_empty() && !name.contains('.') {
        return Ok(TableName { schema: name.to_owned(), table: String::new() });
    }
    let (schema, table) = restore::table(name)?;
    Ok(TableName { schema, table })
}

fn time(text: &str, zone: Tz) -> Result<DateTime<Utc>, Failure> {
    match restore::moment(text, zone)? {
        Moment::At(time) => Ok(time),
        _ => Err(Failure::new(Exit::Usage, format!("`{text}` is no time"))),
    }
}

fn told(searched: &Searched, times: Times) -> Answer {
    let Searched { findings, as_of, is_captured, unreached } = searched;
    let failures: Vec<Failure> = findings.failed.iter().map(Failure::from).collect();
    let is_incomplete = unreached.is_some() || findings.holes.iter().any(|hole| hole.is_meant);
    let least = if is_incomplete { Exit::Incomplete } else { Exit::Ok };
    let exit = failures.iter().map(|failure| failure.exit).max().unwrap_or(least);
    let mut told = Told::default();
    told.text.push_str(&table::transactions(&findings.found, times, ink()));
    for (path, offset) in &findings.torn {
        told.text.push_str(&format!(
            "`{}` ends within a transaction, from offset {offset} on: it is being written, or its server broke down\n",
            human::printable(&path.display().to_string())
        ));
    }
    for path in &findings.relay_logs {
        told.text.push_str(&format!(
            "`{}` is a relay log, and was not searched\n",
            human::printable(&path.display().to_string())
        ));
    }
    for hole in &findings.holes {
        let outside = if hole.is_meant { "" } else { " (outside the time that was asked for)" };
        told.text.push_str(&format!("NOT COMPLETE: {}{outside}\n", human::printable(&hole.what)));
    }
    told.text.push_str(&summary(findings));
    if *is_captured {
        let as_of = as_of.map_or_else(|| "nobody knows when".to_owned(), |time| human::exact_time(time, times.zone));
        told.text.push_str(&format!("captured up to {as_of}\n"));
    }
    if let Some((failure, files)) = unreached {
        told.fail("not searched: ", failure);
        told.text.push_str(&format!("not searched: {}\n", human::quoted(files)));
    }
    for failure in &failures {
        told.fail("", failure);
    }
    let json = json!({
        "found": findings.found.iter().map(found_json).collect::<Vec<Value>>(),
        "left_out": findings.left_out,
        "files": findings.files,
        "transactions": findings.transactions,
        "torn": findings.torn.iter().map(|(path, offset)| json!({ "file": path, "offset": offset })).collect::<Vec<Value>>(),
        "relay_logs": findings.relay_logs,
        "not_complete": findings.holes,
        "as_of": as_of,
        "unreached": unreached.as_ref().map(|(failure, files)| json!({ "failure": failure, "files": files })),
        "failures": failures,
        "exit": exit.code(),
    });
    Answer::new(told.text, json).telling(told.errors).with(exit)
}

fn summary(findings: &Findings) -> String {
    let found = findings.found.len() as u64 + findings.left_out;
    let of = human::counted(findings.transactions, "transaction", "transactions");
    let files = human::counted(findings.files, "file", "files");
    let left_out = match findings.left_out {
        0 => String::new(),
        count => format!("; {} older ones are not shown: narrow the search, or raise `--limit`", human::count(count)),
    };
    format!("{} of {of} in {files}{left_out}\n", human::count(found))
}

fn found_json(found: &Found) -> Value {
    let table = |(name, touched): &(TableName, _)| {
        let mut value = json!(touched);
        value["schema"] = json!(name.schema);
        value["table"] = json!(name.table);
        value
    };
    json!({
        "committed": found.group.committed,
        "clock": found.group.clock,
        "gtid": found.group.gtid,
        "file": found.file,
        "begin": found.group.begin,
        "end": found.group.end,
        "ending": found.group.ending,
        "tables": found.tables.iter().map(table).collect::<Vec<Value>>(),
        "statements": found.texts,
        "more": found.is_more,
        "more_tables": found.are_tables_more,
    })
}
