//! The command that finds transactions in binlogs.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::cli::args::{BinlogFindArgs, Global};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::render::Told;
use crate::cli::{ink, restore, table};
use crate::exit::{Exit, Failure};
use crate::find::{self, Findings, Found, Wanted};
use crate::human;
use crate::mysql::binlog::TableName;
use crate::restore::choose::Moment;
use crate::run::Run;

pub(super) fn find(global: &Global, args: &BinlogFindArgs) -> Answered {
    let wanted = wanted(args)?;
    let (dir, found_max) = (args.dir.clone(), args.limit as usize);
    wait(global, |run| async move {
        let search = move |run: Run| find::in_dir(&dir, &wanted, found_max, &run);
        let own = run.clone();
        let findings = tokio::task::spawn_blocking(move || search(own)).await;
        let findings = findings.map_err(|error| Failure::new(Exit::Failed, format!("search: {error}")))??;
        Ok(told(&findings))
    })
}

fn wanted(args: &BinlogFindArgs) -> Result<Wanted, Failure> {
    Ok(Wanted {
        tables: args.tables.iter().map(|name| table_meant(name)).collect::<Result<_, _>>()?,
        verbs: args.types.iter().map(|change| change.verb()).collect(),
        since: args.since.as_deref().map(|text| time(text)).transpose()?,
        until: args.until.as_deref().map(|text| time(text)).transpose()?,
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

fn time(text: &str) -> Result<DateTime<Utc>, Failure> {
    match restore::moment(text, Tz::UTC)? {
        Moment::At(time) => Ok(time),
        _ => Err(Failure::new(Exit::Usage, format!("`{text}` is no time"))),
    }
}

fn told(findings: &Findings) -> Answer {
    let failures: Vec<Failure> = findings.failed.iter().map(Failure::from).collect();
    let exit = failures.iter().map(|failure| failure.exit).max().unwrap_or(Exit::Ok);
    let mut told = Told::default();
    told.text.push_str(&table::transactions(&findings.found, ink()));
    for (path, offset) in &findings.torn {
        told.text.push_str(&format!(
            "`{}` ends within a transaction, from offset {offset} on: it is being written, or its server broke down\n",
            human::printable(&path.display().to_string())
        ));
    }
    told.text.push_str(&summary(findings));
    failures.iter().for_each(|failure| told.fail("", failure));
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
