//! The command that finds a mistake's transactions, in what was captured or in files.

use std::fs::File;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::capture::{CaptureError, Chain, Spool};
use crate::cli::args::{BinlogFindArgs, Global};
use crate::cli::binlog::{Opened, chain_of, one_source, open};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::render::Told;
use crate::cli::table::Times;
use crate::cli::{ink, policies, restore, table};
use crate::exit::{Exit, Failure};
use crate::find::{self, Findings, Found, Search, Wanted};
use crate::human;
use crate::mysql::binlog::TableName;
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
        let findings = match (&policy, &args.dir) {
            (Some(policy), _) => captured(policy, args, search, &run).await?,
            (None, Some(dir)) => {
                let dir = dir.clone();
                blocking(move || find::in_dir(&dir, search)).await??
            }
            (None, None) => return Err(Failure::new(Exit::Usage, "neither a policy nor a directory is named")),
        };
        Ok(told(&findings, Times { zone, now }))
    })
}

/// Runs what reads and parses beside what waits.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(Exit::Failed, format!("search: {error}")))
}

/// Searches the segments of a source: those of the spool where they are, else those of the repository or the copy.
async fn captured(policy: &Policy, args: &BinlogFindArgs, search: Search, run: &Run) -> Result<Findings, Failure> {
    let source = one_source(policy, args.source.as_deref())?;
    let store = open(policy, args.from.as_deref(), run).await?;
    let lock = place::lock_to_read(&store.repository, run).await?;
    let chain = chain_of(policy, &source, args.from.is_some(), &store).await;
    let findings = match chain {
        Ok(chain) if chain.segments().next().is_some() => segments(policy, args, &store, &chain, search).await,
        Ok(_) => Err(CaptureError::Nothing(source).into()),
        Err(failure) => Err(failure),
    };
    place::unlock(lock, run).await;
    findings
}

async fn segments(
    policy: &Policy,
    args: &BinlogFindArgs,
    store: &Opened,
    chain: &Chain,
    mut search: Search,
) -> Result<Findings, Failure> {
    let stored = store.newest(policy, &chain.source).await?;
    let plan = policy.mysql.get(&chain.source).and_then(|place| place.binlog.as_ref()).filter(|_| args.from.is_none());
    let is_one = chain.epochs.len() == 1;
    for (epoch, segment) in chain.segments() {
        let name = if is_one { segment.file.clone() } else { format!("{epoch}/{}", segment.file) };
        let path = plan.map(|plan| Spool::segment(&plan.spool, &chain.source, epoch, &segment.file));
        let file = path.and_then(|path| File::open(path).ok());
        let bytes = stored.as_ref().and_then(|stored| stored.bytes(&store.repository, epoch, &segment.file));
        search = blocking(move || match (file, bytes) {
            (Some(file), _) => search.read(&PathBuf::from(&name), &name, file),
            (None, Some(bytes)) => search.read(&PathBuf::from(&name), &name, bytes),
            (None, None) => Ok(search.missing(PathBuf::from(name))),
        })
        .await??;
    }
    Ok(search.findings())
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

fn told(findings: &Findings, times: Times) -> Answer {
    let failures: Vec<Failure> = findings.failed.iter().map(Failure::from).collect();
    let exit = failures.iter().map(|failure| failure.exit).max().unwrap_or(Exit::Ok);
    let mut told = Told::default();
    told.text.push_str(&table::transactions(&findings.found, times, ink()));
    for (path, offset) in &findings.torn {
        told.text.push_str(&format!(
            "`{}` ends within a transaction, from offset {offset} on: it is being written, or its server broke down\n",
            human::printable(&path.display().to_string())
        ));
    }
    told.text.push_str(&summary(findings));
    for failure in &failures {
        told.fail("", failure);
    }
    let json = json!({
        "found": findings.found.iter().map(found_json).collect::<Vec<Value>>(),
        "left_out": findings.left_out,
        "files": findings.files,
        "transactions": findings.transactions,
        "torn": findings.torn.iter().map(|(path, offset)| json!({ "file": path, "offset": offset })).collect::<Vec<Value>>(),
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
    })
}
