//! What a target keeps of a replay until it is over, so that an interrupted one goes on.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use serde::{Deserialize, Serialize};

use crate::mysql::manifest::Position;
use crate::mysql::sql;
use crate::replay::ReplayError;
use crate::replay::settings::Setting;
use crate::replay::way::Way;

/// Where a record lies.
struct Place {
    schema: &'static str,
    table: &'static str,
}

/// The schema that unfinished loads use, too.
const REPLAY: Place = Place { schema: "bkp_restore", table: "bkp_replay" };

/// A standby's lies apart: a load into its source comes by the binlog, and ends with a `DROP DATABASE` of the schema that loads use.
const STANDBY: Place = Place { schema: "bkp_standby", table: "bkp_standby" };

/// A replay that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The snapshot that was loaded, or is being loaded.
    pub snapshot: String,
    pub begin: Position,
    pub end: Position,
    #[serde(default)]
    pub way: Way,
    pub is_loaded: bool,
    /// What did not come of the dump, beside tables: views, routines, users.
    #[serde(default)]
    pub lacking: Vec<String>,
    /// The target held nothing before the load: what it holds once none is under way is the dump.
    #[serde(default)]
    pub was_empty: bool,
    /// The channel has been set up: from then on the target itself knows how far it is.
    pub has_begun: bool,
    /// All that was planned is applied: without GTIDs nothing else tells, once the channel is gone.
    #[serde(default)]
    pub is_over: bool,
    /// When the target was started, by its own clock, in seconds since 1970.
    pub(super) started: i64,
    /// Global variables as they were before.
    pub(super) settings: Vec<Setting>,
    /// The target goes on following: it is a standby.
    #[serde(default)]
    pub standby: Option<Standby>,
}

/// What a target keeps of its life as a standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    /// The source that it follows.
    pub source: String,
    /// The epoch of that source's capture: another is another history.
    pub epoch: u32,
    /// The number by which it follows.
    pub server_id: u32,
    /// Somebody has begun to promote it.
    pub is_promoting: bool,
}

impl Place {
    fn name(&self) -> String {
        sql::qualified(self.schema, self.table)
    }
}

impl Record {
    fn place(&self) -> &'static Place {
        if self.standby.is_some() { &STANDBY } else { &REPLAY }
    }
}

/// Reads the record of a standby, or else of an unfinished replay; `None` where there is neither.
pub(super) async fn read(conn: &mut Conn) -> Result<Option<Record>, ReplayError> {
    match read_at(conn, &STANDBY).await? {
        Some(record) => Ok(Some(record)),
        None => read_at(conn, &REPLAY).await,
    }
}

async fn read_at(conn: &mut Conn, place: &Place) -> Result<Option<Record>, ReplayError> {
    let text: Option<String> = match conn.query_first(format!("SELECT record FROM {}", place.name())).await {
        Ok(text) => text,
        // No such schema, no such table; 1142: an account of a plain replay may look at no standby's.
        Err(Error::Server(error)) if matches!(error.code, 1049 | 1146) => None,
        Err(Error::Server(error)) if error.code == 1142 && place.schema == STANDBY.schema => None,
        Err(error) => return Err(ReplayError::at("read the record of an earlier replay")(error)),
    };
    let malformed = |_| ReplayError::Unfit {
        why: "holds the record of a replay that this version of bkp cannot read".to_owned(),
        hint: format!(
            "go on with the version that began it, or drop the schema `{}` and what was restored",
            place.schema
        ),
    };
    text.map(|text| serde_json::from_str(&text).map_err(malformed)).transpose()
}

pub(super) async fn write(conn: &mut Conn, record: &Record) -> Result<(), ReplayError> {
    let text = serde_json::to_string(record).map_err(|error| ReplayError::Thread(error.to_string()))?;
    let Place { schema, .. } = *record.place();
    let table = record.place().name();
    let statements = [
        format!("CREATE DATABASE IF NOT EXISTS {}", sql::ident(schema)),
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (id INT PRIMARY KEY, record LONGTEXT CHARACTER SET utf8mb4 NOT NULL) ENGINE=InnoDB"
        ),
        format!("REPLACE INTO {table} VALUES (1, {})", sql::string(&text)),
    ];
    if record.standby.is_some() {
        // What follows the standby must not take its record for its own. Who may not keeps it in the binlog.
        conn.query_drop("SET SESSION sql_log_bin = 0").await.ok();
    }
    for statement in statements {
        let act = format!("keep the replay's record on the target, in schema `{schema}`");
        conn.query_drop(statement).await.map_err(ReplayError::at(act))?;
    }
    Ok(())
}

/// Removes a record, and that of the replay which made a standby.
pub(super) async fn remove(conn: &mut Conn, record: &Record) -> Result<(), ReplayError> {
    remove_replay(conn).await?;
    // The standby's last: until then it is one.
    if record.standby.is_some() { remove_at(conn, &STANDBY).await } else { Ok(()) }
}

/// Removes the record of a replay: the target is a standby from then on.
pub(super) async fn remove_replay(conn: &mut Conn) -> Result<(), ReplayError> {
    remove_at(conn, &REPLAY).await
}

/// Tells whether the replay that made a standby has left its record beside the standby's: whoever made it was killed before the end. Any
/// other record there is one of the source, which comes by the binlog, and so is one that cannot be read.
pub(super) async fn is_replay_left(conn: &mut Conn) -> Result<bool, ReplayError> {
    let Some(standby) = read_at(conn, &STANDBY).await? else { return Ok(false) };
    let Ok(Some(replay)) = read_at(conn, &REPLAY).await else { return Ok(false) };
    Ok(Record { standby: None, has_begun: replay.has_begun, ..standby } == replay)
}

/// Removes a record, with the schema if that holds nothing else: in one statement, so that no empty schema is left by one who is killed.
async fn remove_at(conn: &mut Conn, place: &Place) -> Result<(), ReplayError> {
    let at = || ReplayError::at("remove the replay's record from the target");
    let (schema, table) = (sql::string(place.schema), sql::string(place.table));
    let asked = format!(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = {schema} AND table_name <> {table}"
    );
    let others: Option<u64> = conn.query_first(asked).await.map_err(at())?;
    let statement = match others {
        Some(0) => format!("DROP DATABASE IF EXISTS {}", sql::ident(place.schema)),
        _ => format!("DROP TABLE IF EXISTS {}", place.name()),
    };
    conn.query_drop(statement).await.map_err(at())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_standbys_record_lies_where_no_load_into_its_source_drops_it() {
        let place = json!({ "file": "b.000001", "offset": 4 });
        let mut record = json!({
            "snapshot": "aa11", "begin": place, "end": place, "is_loaded": true, "has_begun": true, "started": 0, "settings": [],
        });
        let replay: Record = serde_json::from_value(record.clone()).unwrap();
        assert_eq!(replay.place().name(), "`bkp_restore`.`bkp_replay`");
        record["standby"] = json!({ "source": "db1", "epoch": 1, "server_id": 7, "is_promoting": false });
        let standby: Record = serde_json::from_value(record).unwrap();
        assert_eq!(standby.place().name(), "`bkp_standby`.`bkp_standby`");
    }
}
