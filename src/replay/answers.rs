//! What the source answers to the questions that a replica asks before it asks for events.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the source says of itself.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) server_id: u32,
    pub(super) server_uuid: String,
    pub(super) version: String,
    /// `ON` or `OFF`: MySQL's replicas compare it with their own.
    pub(super) gtid_mode: &'static str,
    /// `CRC32` or `NONE`: how the very first event is made.
    pub(super) checksum: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    Rows {
        columns: Vec<String>,
        rows: Vec<Vec<Option<String>>>,
    },
    /// There is no such variable.
    Unknown(String),
}

/// Answers one statement; what it sets is kept for the questions after it.
pub(super) fn answer(sql: &str, identity: &Identity, set: &mut BTreeMap<String, String>) -> Answer {
    let sql = sql.trim().trim_end_matches(';');
    let (word, rest) = sql.split_once(char::is_whitespace).unwrap_or((sql, ""));
    match word.to_ascii_uppercase().as_str() {
        "SET" => {
            set.extend(assignments(rest));
            Answer::Ok
        }
        "SELECT" => select(rest, identity, set),
        "SHOW" => show(rest, identity),
        _ => Answer::Unknown(sql.to_owned()),
    }
}

fn select(list: &str, identity: &Identity, set: &BTreeMap<String, String>) -> Answer {
    let columns: Vec<String> = split(list).into_iter().map(str::to_owned).collect();
    let mut row = Vec::new();
    for column in &columns {
        match value(column, identity, set) {
            Some(value) => row.push(value),
            None => return Answer::Unknown(column.clone()),
        }
    }
    Answer::Rows { columns, rows: vec![row] }
}

/// Answers `SHOW [GLOBAL] VARIABLES LIKE 'name'`; a variable that is not ours has no row.
fn show(rest: &str, identity: &Identity) -> Answer {
    let name = rest.split('\'').nth(1).unwrap_or_default();
    let row = variable(name, identity).map(|value| vec![Some(name.to_owned()), Some(value)]);
    Answer::Rows { columns: vec!["Variable_name".to_owned(), "Value".to_owned()], rows: row.into_iter().collect() }
}

/// Returns an expression's value, `NULL` included; `None` for one that a source does not know.
#[expect(clippy::option_option, reason = "a value may be NULL")]
fn value(expression: &str, identity: &Identity, set: &BTreeMap<String, String>) -> Option<Option<String>> {
    let upper = expression.to_ascii_uppercase();
    if upper == "UNIX_TIMESTAMP()" {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return Some(Some(now.as_secs().to_string()));
    }
    if upper == "VERSION()" {
        return Some(Some(identity.version.clone()));
    }
    if let Some(name) = upper.strip_prefix("@@") {
        let name = name.strip_prefix("GLOBAL.").unwrap_or(name);
        return variable(name, identity).map(Some);
    }
    let name = upper.strip_prefix('@')?;
    // A replica sets this to what the source writes, and asks what came of it.
    let is_checksum = matches!(name, "MASTER_BINLOG_CHECKSUM" | "SOURCE_BINLOG_CHECKSUM");
    Some(if is_checksum { Some(identity.checksum.to_owned()) } else { set.get(name).cloned() })
}

fn variable(name: &str, identity: &Identity) -> Option<String> {
    let value = match name.to_ascii_uppercase().as_str() {
        "SERVER_ID" => identity.server_id.to_string(),
        "SERVER_UUID" => identity.server_uuid.clone(),
        "VERSION" => identity.version.clone(),
        "GTID_MODE" => identity.gtid_mode.to_owned(),
        "BINLOG_CHECKSUM" => identity.checksum.to_owned(),
        "GTID_DOMAIN_ID" => "0".to_owned(),
        _ => return None,
    };
    Some(value)
}

/// Splits `SET`'s list into user variables, in upper case, and their values without quotes.
fn assignments(list: &str) -> Vec<(String, String)> {
    let assignment = |text: &str| {
        let (name, value) = text.split_once('=')?;
        let name = name.trim().trim_end_matches(':').strip_prefix('@')?.to_ascii_uppercase();
        Some((name, value.trim().trim_matches('\'').to_owned()))
    };
    split(list).into_iter().filter_map(assignment).collect()
}

/// Splits a list at the commas that stand in no quotes and no parentheses.
fn split(list: &str) -> Vec<&str> {
    let (mut is_quoted, mut depth) = (false, 0_u32);
    let parts = list.split(move |letter| {
        match letter {
            '\'' => is_quoted = !is_quoted,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && !is_quoted && depth == 0
    });
    parts.map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            server_id: 77,
            server_uuid: "3e11fa47-71ca-11e1-9e33-c80aa9429562".to_owned(),
            version: "9.7.0".to_owned(),
            gtid_mode: "ON",
            checksum: "CRC32",
        }
    }

    fn one(sql: &str) -> Option<String> {
        match answer(sql, &identity(), &mut BTreeMap::new()) {
            Answer::Rows { mut rows, .. } => rows.pop()?.pop()?,
            _ => None,
        }
    }

    #[test]
    fn what_a_replica_asks_is_answered() {
        assert_eq!(one("SELECT @@GLOBAL.SERVER_ID").as_deref(), Some("77"));
        assert_eq!(one("SHOW VARIABLES LIKE 'SERVER_ID'").as_deref(), Some("77"));
        assert_eq!(one("SELECT @@GLOBAL.GTID_MODE").as_deref(), Some("ON"));
        assert_eq!(one("SELECT @source_binlog_checksum").as_deref(), Some("CRC32"));
        assert!(one("SELECT UNIX_TIMESTAMP()").is_some_and(|text| text.parse::<u64>().is_ok()));
        assert_eq!(
            answer("SELECT @@GLOBAL.nothing", &identity(), &mut BTreeMap::new()),
            Answer::Unknown("@@GLOBAL.nothing".to_owned())
        );
        assert_eq!(
            answer("SHOW VARIABLES LIKE 'rpl_semi_sync_master_enabled'", &identity(), &mut BTreeMap::new()),
            Answer::Rows { columns: vec!["Variable_name".to_owned(), "Value".to_owned()], rows: Vec::new() }
        );
    }

    #[test]
    fn what_a_replica_sets_is_kept() {
        let mut set = BTreeMap::new();
        answer("SET @slave_connect_state='0-1-5,1-2-7'", &identity(), &mut set);
        answer(
            "SET @master_heartbeat_period = 30000000000, @source_heartbeat_period = 30000000000",
            &identity(),
            &mut set,
        );
        assert_eq!(set.get("SLAVE_CONNECT_STATE").map(String::as_str), Some("0-1-5,1-2-7"));
        assert_eq!(set.get("SOURCE_HEARTBEAT_PERIOD").map(String::as_str), Some("30000000000"));
    }
}
