//! Fingerprints of the database: every row of every table, and every object's definition, hashed on this side.

pub(crate) mod files;

use crate::server::ServerArgs;
use crate::server::quoted;
use anyhow::Context as _;
use futures_util::StreamExt as _;
use mysql_async::Conn;
use mysql_async::Row;
use mysql_async::Value;
use mysql_async::prelude::Queryable as _;
use sha2::Digest as _;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use tokio::task::JoinSet;

struct Table {
    name: String,
    columns: Vec<String>,
    /// Empty where the table has no key: then its rows are a multiset.
    key: Vec<String>,
}

/// Prints a line for each table: name, number of rows, fingerprint; then one for the definitions.
pub(crate) async fn print(server: &ServerArgs, list: bool) -> anyhow::Result<()> {
    let mut conn = server.connect().await?;
    let objects = definitions(&mut conn, &server.schema).await?;
    let tables = Arc::new(Mutex::new(tables(&mut conn, &server.schema).await?));
    let mut workers = JoinSet::new();
    for _ in 0..server.connections {
        workers.spawn(work(server.connect().await?, tables.clone()));
    }
    let mut lines = BTreeMap::new();
    while let Some(done) = workers.join_next().await {
        lines.extend(done??);
    }
    for (name, (rows, fingerprint)) in &lines {
        println!("{name} {rows} {fingerprint}");
    }
    if list {
        println!("{}", objects.join("\n"));
    }
    let definitions = hex::encode(Sha256::digest(objects.join("\n")));
    println!("definitions {} {definitions}", objects.len());
    conn.disconnect().await?;
    Ok(())
}

type Lines = Vec<(String, (u64, String))>;

async fn work(mut conn: Conn, tables: Arc<Mutex<Vec<Table>>>) -> anyhow::Result<Lines> {
    let mut lines = Vec::new();
    loop {
        let next = tables.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(table) = next else { break };
        let line = fingerprint(&mut conn, &table).await.with_context(|| format!("read table `{}`", table.name))?;
        lines.push((table.name, line));
    }
    conn.disconnect().await?;
    Ok(lines)
}

async fn tables(conn: &mut Conn, schema: &str) -> anyhow::Result<Vec<Table>> {
    let names: Vec<String> = conn
        .exec(
            "SELECT table_name FROM information_schema.tables
             WHERE table_schema = ? AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY table_name",
            (schema,),
        )
        .await?;
    let mut tables = Vec::new();
    for name in names {
        let columns = "SELECT column_name FROM information_schema.columns
             WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position";
        let key = "SELECT column_name FROM information_schema.statistics
             WHERE table_schema = ? AND table_name = ? AND index_name = 'PRIMARY' ORDER BY seq_in_index";
        let columns = conn.exec(columns, (schema, &name)).await?;
        let key = conn.exec(key, (schema, &name)).await?;
        tables.push(Table { name, columns, key });
    }
    Ok(tables)
}

/// Reads a table by the binary protocol, which says numbers exactly.
async fn fingerprint(conn: &mut Conn, table: &Table) -> anyhow::Result<(u64, String)> {
    let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let order = if table.key.is_empty() { String::new() } else { format!(" ORDER BY {}", list(&table.key)) };
    let sql = format!("SELECT {} FROM {}{order}", list(&table.columns), quoted(&table.name));
    let mut rows = conn.exec_stream::<Row, _, _>(sql, ()).await?;
    let (mut count, mut in_order, mut sum) = (0, Sha256::new(), [0; 32]);
    while let Some(row) = rows.next().await {
        let digest = digest_of(row?);
        in_order.update(digest);
        add(&mut sum, &digest);
        count += 1;
    }
    let fingerprint = if table.key.is_empty() { sum } else { in_order.finalize().into() };
    Ok((count, hex::encode(fingerprint)))
}

fn digest_of(row: Row) -> [u8; 32] {
    let mut hash = Sha256::new();
    for value in row.unwrap() {
        let (kind, bytes): (u8, Vec<u8>) = match value {
            Value::NULL => (0, Vec::new()),
            Value::Bytes(bytes) => (1, bytes),
            Value::Int(value) => (2, value.to_le_bytes().into()),
            Value::UInt(value) => (2, value.to_le_bytes().into()),
            Value::Float(value) => (3, value.to_le_bytes().into()),
            Value::Double(value) => (4, value.to_le_bytes().into()),
            date @ Value::Date(..) => (5, date.as_sql(true).into()),
            time @ Value::Time(..) => (6, time.as_sql(true).into()),
        };
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hash.finalize().into()
}

/// Adds two numbers of 256 bits: the sum of all rows is the same in any order and tells how often each one comes.
fn add(sum: &mut [u8; 32], digest: &[u8; 32]) {
    let mut carry = 0;
    for (place, byte) in sum.iter_mut().zip(digest) {
        let wide = u16::from(*place) + u16::from(*byte) + carry;
        *place = u8::try_from(wide & 0xff).unwrap_or_default();
        carry = wide >> 8;
    }
}

/// Returns `SHOW CREATE` of every table, view, routine, trigger and event.
async fn definitions(conn: &mut Conn, schema: &str) -> anyhow::Result<Vec<String>> {
    let kinds = [
        ("TABLE", "SELECT table_name FROM information_schema.tables WHERE table_schema = ? AND table_type <> 'VIEW'"),
        ("VIEW", "SELECT table_name FROM information_schema.views WHERE table_schema = ?"),
        (
            "PROCEDURE",
            "SELECT routine_name FROM information_schema.routines WHERE routine_schema = ? AND routine_type = 'PROCEDURE'",
        ),
        (
            "FUNCTION",
            "SELECT routine_name FROM information_schema.routines WHERE routine_schema = ? AND routine_type = 'FUNCTION'",
        ),
        ("TRIGGER", "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = ?"),
        ("EVENT", "SELECT event_name FROM information_schema.events WHERE event_schema = ?"),
    ];
    let mut definitions = Vec::new();
    for (kind, names) in kinds {
        let mut names: Vec<String> = conn.exec(names, (schema,)).await?;
        names.sort();
        for name in names {
            let sql = format!("SHOW CREATE {kind} {}", quoted(&name));
            let row: Option<Row> = conn.query_first(&sql).await.with_context(|| sql.clone())?;
            let text = row.and_then(|row| statement_of(&row)).with_context(|| format!("{sql}: no answer"))?;
            definitions.push(format!("{kind} {name}: {text}"));
        }
    }
    Ok(definitions)
}

/// Returns the column that holds the statement; its place differs by kind and product.
fn statement_of(row: &Row) -> Option<String> {
    let columns = row.columns();
    let holds_it = |name: &str| name.starts_with("Create ") || name == "SQL Original Statement";
    let place = columns.iter().position(|column| holds_it(&column.name_str()))?;
    row.get(place)
}
