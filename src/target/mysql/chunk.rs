//! One chunk: one transaction that holds its rows and its place in the table of progress. Tables without transactions have none: a
//! MySQL with GTIDs refuses to change them in one (1785).

use std::sync::Mutex;

use futures_util::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use crate::mysql::manifest::{Chunk, Column, TableEntry};
use crate::mysql::sql;
use crate::target::mysql::LoadError;
use crate::target::mysql::dump::DumpReader;
use crate::target::mysql::enums;
use crate::target::mysql::fault;
use crate::target::mysql::feed::{Counted, Feed};
use crate::target::mysql::progress;
use crate::target::mysql::progress::Step;

/// How a chunk came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Loaded,
    /// An earlier try was committed after all; only its answer was lost.
    WasThere,
}

/// Loads one chunk. After an error the connection is in the middle of it and must be dropped.
pub(super) async fn load(
    conn: &mut Conn,
    dump: &dyn DumpReader,
    table: &TableEntry,
    chunk: &Chunk,
    counted: &Counted,
) -> Result<Outcome, LoadError> {
    let at = |source| rows_error(table, chunk, source);
    conn.query_drop("START TRANSACTION").await.map_err(at)?;
    // First, so that this waits for the end of an earlier try that the server may still be at.
    match conn.query_drop(progress::insert(Step::Chunk(&chunk.path))).await {
        Ok(()) => {}
        Err(error) if fault::is_duplicate(&error) => {
            conn.query_drop("ROLLBACK").await.map_err(at)?;
            return Ok(Outcome::WasThere);
        }
        Err(error) => return Err(at(error)),
    }
    let loaded = load_loose(conn, dump, table, chunk, counted).await?;
    conn.query_drop("COMMIT").await.map_err(at)?;
    Ok(loaded)
}

/// Loads a chunk of a table without transactions. After an error the whole table is to be begun anew, and after a kill, too: how far it
/// was is noted nowhere.
pub(super) async fn load_loose(
    conn: &mut Conn,
    dump: &dyn DumpReader,
    table: &TableEntry,
    chunk: &Chunk,
    counted: &Counted,
) -> Result<Outcome, LoadError> {
    send(conn, dump, table, chunk, counted).await?;
    check(conn, dump, table, chunk).await?;
    Ok(Outcome::Loaded)
}

async fn send(
    conn: &mut Conn,
    dump: &dyn DumpReader,
    table: &TableEntry,
    chunk: &Chunk,
    counted: &Counted,
) -> Result<(), LoadError> {
    let (feed, failed) = Feed::new(dump.stream(&chunk.path), chunk.clone(), counted.clone());
    // The client wants a future that is Sync; nobody else looks at the feed.
    let feed = Mutex::new(feed);
    conn.set_infile_handler(async move {
        let feed = feed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(feed.boxed())
    });
    tokio::select! {
        biased;
        Ok(error) = failed => Err(error.into()),
        sent = conn.query_drop(statement(table)) => sent.map_err(|source| rows_error(table, chunk, source)),
    }
}

/// Asks the server what it made of the rows, before they are committed.
async fn check(conn: &mut Conn, dump: &dyn DumpReader, table: &TableEntry, chunk: &Chunk) -> Result<(), LoadError> {
    let taken = conn.affected_rows();
    let (path, name) = (chunk.path.clone(), sql::qualified(&table.schema, &table.name));
    if conn.get_warnings() > 0 {
        let warnings = Warnings::ask(conn).await.map_err(|source| rows_error(table, chunk, source))?;
        if !warnings.are_of_enums(dump, table, chunk).await? {
            let Warnings { count, first, .. } = warnings;
            return Err(LoadError::Warnings { path, table: name, count, first });
        }
    }
    if taken != chunk.rows {
        return Err(LoadError::RowCount { path, table: name, expected: chunk.rows, taken });
    }
    Ok(())
}

/// What the server has to say about a statement.
struct Warnings {
    count: u64,
    first: String,
    /// Those that the server still knows (the first 64).
    codes: Vec<u16>,
}

impl Warnings {
    async fn ask(conn: &mut Conn) -> Result<Self, Error> {
        // In this order: on MySQL the count is a statement of its own, which ends the list.
        let known: Vec<(String, u16, String)> = conn.query("SHOW WARNINGS").await?;
        let count: Option<u64> = conn.query_first("SELECT @@warning_count").await?;
        let first = known.first().map(|(_, code, text)| format!("{text} ({code})"));
        let codes = known.into_iter().map(|(_, code, _)| code).collect();
        Ok(Self { count: count.unwrap_or(0), first: first.unwrap_or_default(), codes })
    }

    /// Tells whether they are those that ENUM columns give for their error value, and no other.
    async fn are_of_enums(&self, dump: &dyn DumpReader, table: &TableEntry, chunk: &Chunk) -> Result<bool, LoadError> {
        let columns = enums::columns(&table.columns);
        if columns.is_empty() || self.codes.iter().any(|code| *code != enums::TRUNCATED) {
            return Ok(false);
        }
        Ok(self.count == enums::count_empty(dump.stream(&chunk.path), &columns).await?)
    }
}

fn rows_error(table: &TableEntry, chunk: &Chunk, source: Error) -> LoadError {
    LoadError::Rows {
        path: chunk.path.clone(),
        table: sql::qualified(&table.schema, &table.name),
        source: Box::new(source),
    }
}

/// Returns the statement that takes the rows of a table. The file's name means nothing: the bytes come from the feed.
fn statement(table: &TableEntry) -> String {
    let fields: Vec<String> = table.columns.iter().enumerate().map(|(index, column)| field(index, column)).collect();
    let set: Vec<String> =
        table.columns.iter().enumerate().filter_map(|(index, column)| assignment(index, column)).collect();
    let set = if set.is_empty() { String::new() } else { format!(" SET {}", set.join(", ")) };
    format!(
        r"LOAD DATA LOCAL INFILE 'bkp' INTO TABLE {} CHARACTER SET binary FIELDS TERMINATED BY '\t' ENCLOSED BY '' ESCAPED BY '\\' LINES TERMINATED BY '\n' ({}){set}",
        sql::qualified(&table.schema, &table.name),
        fields.join(", "),
    )
}

fn field(index: usize, column: &Column) -> String {
    match column.load {
        Some(_) => format!("@v{index}"),
        None => sql::ident(&column.name),
    }
}

fn assignment(index: usize, column: &Column) -> Option<String> {
    let expression = column.load.as_ref()?.replace("@v", &format!("@v{index}"));
    Some(format!("{} = {expression}", sql::ident(&column.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, load: Option<&str>) -> Column {
        Column { name: name.to_owned(), sql_type: String::new(), load: load.map(str::to_owned) }
    }

    #[test]
    fn a_column_with_an_expression_goes_through_a_variable_of_its_own() {
        let table = TableEntry {
            schema: "s".to_owned(),
            name: "t`x".to_owned(),
            create: String::new(),
            engine: "InnoDB".to_owned(),
            history_lost: false,
            columns: vec![
                column("id", None),
                column("j", Some("CONVERT(@v USING utf8mb4)")),
                column("g", Some("IF(@v IS NULL, NULL, ST_GeomFromWKB(@v))")),
            ],
            key: Vec::new(),
            rows: 0,
            bytes: 0,
            chunks: Vec::new(),
        };
        let statement = statement(&table);
        assert!(statement.contains("INTO TABLE `s`.`t``x` CHARACTER SET binary"));
        let end =
            "(`id`, @v1, @v2) SET `j` = CONVERT(@v1 USING utf8mb4), `g` = IF(@v2 IS NULL, NULL, ST_GeomFromWKB(@v2))";
        assert!(statement.ends_with(end), "{statement}");
    }
}
