//! What a target says of the channels that it follows.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use crate::mysql::manifest::{Position, Product};
use crate::replay::ReplayError;
use crate::replay::channel;

/// A channel's row of `SHOW REPLICA STATUS` or `SHOW ALL SLAVES STATUS`: the columns under the names of either product.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Status(BTreeMap<String, String>);

/// Reads the status of every channel, by name.
pub(super) async fn read(conn: &mut Conn, product: Product) -> Result<BTreeMap<String, Status>, ReplayError> {
    let rows: Vec<Row> =
        conn.query(channel::status(product)).await.map_err(ReplayError::at("ask the target for its replication"))?;
    Ok(rows.into_iter().map(of_row).collect())
}

fn of_row(row: Row) -> (String, Status) {
    let columns: Vec<String> = row.columns_ref().iter().map(|column| column.name_str().into_owned()).collect();
    let status = Status(columns.into_iter().zip(row.unwrap().into_iter().map(text)).collect());
    let name = status.get(["Channel_Name", "Connection_name"]).to_owned();
    (name, status)
}

fn text(value: Value) -> String {
    match value {
        Value::NULL => String::new(),
        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => other.as_sql(true).trim_matches('\'').to_owned(),
    }
}

impl Status {
    /// Returns the column that bears one of two names.
    fn get(&self, names: [&str; 2]) -> &str {
        names.iter().find_map(|name| self.0.get(*name)).map_or("", String::as_str)
    }

    /// Returns up to where the target has applied the source's binlog.
    pub(super) fn applied(&self) -> Position {
        let offset = self.get(["Exec_Source_Log_Pos", "Exec_Master_Log_Pos"]).parse().unwrap_or_default();
        Position { file: self.get(["Relay_Source_Log_File", "Relay_Master_Log_File"]).to_owned(), offset }
    }

    /// Returns why the applier has stopped, where an error stopped it.
    pub(super) fn apply_error(&self) -> Option<&str> {
        self.error("Last_SQL_Errno", "Last_SQL_Error")
    }

    /// Tells whether it is connected to its source.
    pub(super) fn is_receiving(&self) -> bool {
        self.get(["Replica_IO_Running", "Slave_IO_Running"]) == "Yes"
    }

    /// Tells whether nothing applies any more.
    pub(super) fn has_stopped(&self) -> bool {
        self.get(["Replica_SQL_Running", "Slave_SQL_Running"]) == "No"
    }

    /// Returns why the target does not receive events, and whether it has given up.
    pub(super) fn receive_error(&self) -> Option<(&str, bool)> {
        let has_stopped = self.get(["Replica_IO_Running", "Slave_IO_Running"]) == "No";
        self.error("Last_IO_Errno", "Last_IO_Error").map(|text| (text, has_stopped))
    }

    fn error(&self, number: &str, text: &str) -> Option<&str> {
        let is_set = self.0.get(number).is_some_and(|number| number != "0" && !number.is_empty());
        is_set.then(|| self.0.get(text).map_or("", String::as_str))
    }

    /// Returns a filter that would leave transactions out without a word.
    pub(super) fn filter(&self) -> Option<(&str, &str)> {
        let set = self.0.iter().find(|(name, value)| is_filter(name) && is_set(value));
        set.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Tells whether a column of a status, or a global variable, holds a replication filter.
pub(super) fn is_filter(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let rest = name.strip_prefix("replicate_");
    rest.is_some_and(|rest| ["do_", "ignore_", "wild_", "rewrite_"].iter().any(|kind| rest.starts_with(kind)))
}

/// Tells whether a filter of that value leaves anything out.
pub(super) fn is_set(value: &str) -> bool {
    !value.is_empty() && value != "0"
}
