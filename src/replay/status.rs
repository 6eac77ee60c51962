//! What a target says of the channels that it follows.

use std::collections::BTreeMap;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use tokio::time::timeout;

use crate::mysql::manifest::{Position, Product};
use crate::replay::ReplayError;
use crate::replay::channel;
use crate::replay::filter::Filter;

/// A channel's row of `SHOW REPLICA STATUS` or `SHOW ALL SLAVES STATUS`: the columns under the names of either product.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Status(BTreeMap<String, String>);

/// A server whose replication is being stopped answers once that is over.
const STATUS_MAX: Duration = Duration::from_mins(1);

/// Reads the status of every channel, by name.
pub(super) async fn read(conn: &mut Conn, product: Product) -> Result<BTreeMap<String, Status>, ReplayError> {
    let asked = timeout(STATUS_MAX, conn.query(channel::status(product))).await.map_err(|_elapsed| {
        let awaited = "an answer to its status: a stop may be under way there".to_owned();
        ReplayError::StillApplying { longest: STATUS_MAX, awaited }
    })?;
    let rows: Vec<Row> = asked.map_err(ReplayError::at("ask the target for its replication"))?;
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

    /// Returns a filter that would leave transactions out without a word. The one that is wanted must be set as it was meant.
    pub(super) fn filter(&self, wanted: &Filter) -> Option<(&str, &str)> {
        let is_amiss = |name: &str, value: &str| match wanted.shown() {
            Some((shown, places)) if shown == name => {
                value.split(',').filter(|place| !place.is_empty()).count() != places
            }
            _ => is_filter(name) && is_set(value),
        };
        let set = self.0.iter().find(|(name, value)| is_amiss(name, value));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn status(columns: &[(&str, &str)]) -> Status {
        Status(columns.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_filter_is_amiss_unless_it_is_the_one_that_was_meant() {
        const DO_TABLE: &str = "Replicate_Do_Table";
        let only = |count: usize| Filter::Only(vec![("mall".to_owned(), "orders".to_owned()); count]);
        let amiss = |status: &Status, wanted: &Filter| status.filter(wanted).map(|(name, _)| name.to_owned());
        let two = status(&[(DO_TABLE, "mall.orders,mall.items"), ("Replicate_Do_DB", "")]);
        assert_eq!(amiss(&two, &only(2)), None);
        let named = Some(DO_TABLE.to_owned());
        assert_eq!(amiss(&two, &Filter::Everything), named);
        assert_eq!(amiss(&two, &only(3)), named);
        assert_eq!(amiss(&two, &Filter::AllBut(Vec::new())), named);
        assert_eq!(amiss(&status(&[(DO_TABLE, "")]), &only(1)), named);
        let other = status(&[(DO_TABLE, "mall.orders"), ("Replicate_Ignore_DB", "mall")]);
        assert_eq!(amiss(&other, &only(1)), Some("Replicate_Ignore_DB".to_owned()));
        let but = status(&[("Replicate_Wild_Ignore_Table", "tmp.%")]);
        assert_eq!(amiss(&but, &Filter::AllBut(vec![("tmp".to_owned(), String::new())])), None);
    }
}
