//! Writes rows: many at once by LOAD DATA, or one by one by INSERT.

use crate::rows::Cell;
use crate::rows::Row;
use crate::schema::Table;
use anyhow::Context as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use mysql_async::Conn;
use mysql_async::Params;
use mysql_async::Value;
use mysql_async::prelude::Queryable as _;
use std::io::Write as _;

/// Rows as LOAD DATA text.
#[derive(Debug)]
pub(crate) struct Text {
    table: Table,
    rows: u64,
    bytes: Vec<u8>,
}

impl Text {
    pub(crate) fn new(table: Table) -> Self {
        Self { table, rows: 0, bytes: Vec::new() }
    }

    pub(crate) fn of(table: Table, rows: impl IntoIterator<Item = Row>) -> Self {
        let mut text = Self::new(table);
        for row in rows {
            text.push(&row);
        }
        text
    }

    pub(crate) fn push(&mut self, row: &Row) {
        for (nth, cell) in row.iter().enumerate() {
            if nth > 0 {
                self.bytes.push(b'\t');
            }
            self.push_cell(cell);
        }
        self.bytes.push(b'\n');
        self.rows += 1;
    }

    pub(crate) fn table(&self) -> Table {
        self.table
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn push_cell(&mut self, cell: &Cell) {
        // Writing into a Vec does not fail.
        let written = match cell {
            Cell::Null => self.bytes.write_all(b"\\N"),
            Cell::Int(value) => write!(self.bytes, "{value}"),
            Cell::Single(value) => write!(self.bytes, "{value}"),
            Cell::Double(value) => write!(self.bytes, "{value}"),
            Cell::Bytes(value) => self.bytes.write_all(hex::encode(value).as_bytes()),
            Cell::Text(value) => {
                self.push_escaped(value);
                Ok(())
            }
        };
        debug_assert!(written.is_ok());
    }

    fn push_escaped(&mut self, text: &str) {
        for &byte in text.as_bytes() {
            match byte {
                b'\\' | b'\t' | b'\n' => self.bytes.extend([b'\\', escape_of(byte)]),
                _ => self.bytes.push(byte),
            }
        }
    }

    /// Loads the rows; fewer rows than given, or a warning, is an error.
    pub(crate) async fn load(self, conn: &mut Conn) -> anyhow::Result<u64> {
        if self.rows == 0 {
            return Ok(0);
        }
        let (sql, size) = (load_sql(self.table), self.len());
        let body = Bytes::from(self.bytes);
        conn.set_infile_handler(async move { Ok(stream::once(async { Ok(body) }).boxed()) });
        let name = self.table.name();
        conn.query_drop(sql).await.with_context(|| format!("load rows into `{name}`"))?;
        let (rows, warnings) = (conn.affected_rows(), conn.get_warnings());
        anyhow::ensure!(
            rows == self.rows && warnings == 0,
            "`{name}` took {rows} of {} rows with {warnings} warnings",
            self.rows
        );
        Ok(size)
    }
}

fn escape_of(byte: u8) -> u8 {
    match byte {
        b'\t' => b't',
        b'\n' => b'n',
        other => other,
    }
}

fn load_sql(table: Table) -> String {
    let binary = table.binary_columns();
    let fields: Vec<String> = table
        .columns()
        .iter()
        .map(|column| if binary.contains(column) { format!("@{column}") } else { format!("`{column}`") })
        .collect();
    let unhexed: Vec<String> = binary.iter().map(|column| format!("`{column}` = UNHEX(@{column})")).collect();
    let set = if unhexed.is_empty() { String::new() } else { format!(" SET {}", unhexed.join(", ")) };
    format!(
        "LOAD DATA LOCAL INFILE 'rows' INTO TABLE `{}` CHARACTER SET utf8mb4 ({}){set}",
        table.name(),
        fields.join(", ")
    )
}

/// Inserts one row within the session's transaction.
pub(crate) async fn insert(conn: &mut Conn, table: Table, row: Row) -> Result<(), mysql_async::Error> {
    let columns = table.columns();
    let sql = format!(
        "INSERT INTO `{}` (`{}`) VALUES ({})",
        table.name(),
        columns.join("`, `"),
        vec!["?"; columns.len()].join(", ")
    );
    let values = row.into_iter().map(value_of).collect();
    conn.exec_drop(sql, Params::Positional(values)).await
}

fn value_of(cell: Cell) -> Value {
    match cell {
        Cell::Null => Value::NULL,
        Cell::Int(value) => Value::UInt(value),
        Cell::Single(value) => Value::Float(value),
        Cell::Double(value) => Value::Double(value),
        Cell::Text(value) => Value::Bytes(value.into_bytes()),
        Cell::Bytes(value) => Value::Bytes(value),
    }
}
