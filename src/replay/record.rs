//! What a target keeps of a replay until it is over, so that an interrupted one goes on.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use serde::{Deserialize, Serialize};

use crate::mysql::manifest::Position;
use crate::mysql::sql;
use crate::replay::ReplayError;
use crate::replay::settings::Setting;

/// The schema that unfinished loads use, too.
const SCHEMA: &str = "`bkp_restore`";
const TABLE: &str = "`bkp_restore`.`bkp_replay`";

/// A replay that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The snapshot that was loaded, or is being loaded.
    pub snapshot: String,
    pub begin: Position,
    pub end: Position,
    pub is_loaded: bool,
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

/// Reads the record of an unfinished replay; `None` where there is none.
pub(super) async fn read(conn: &mut Conn) -> Result<Option<Record>, ReplayError> {
    let act = "read the record of an earlier replay";
    let text: Option<String> = match conn.query_first(format!("SELECT record FROM {TABLE}")).await {
        Ok(text) => text,
        // No such schema, no such table.
        Err(Error::Server(error)) if matches!(error.code, 1049 | 1146) => None,
        Err(error) => return Err(ReplayError::at(act)(error)),
    };
    let malformed = |_| ReplayError::Unfit {
        why: "holds the record of a replay that this version of bkp cannot read".to_owned(),
        hint: "go on with the version that began it, or drop the schema `bkp_restore` and what was restored".to_owned(),
    };
    text.map(|text| serde_json::from_str(&text).map_err(malformed)).transpose()
}

pub(super) async fn write(conn: &mut Conn, record: &Record) -> Result<(), ReplayError> {
    let text = serde_json::to_string(record).map_err(|error| ReplayError::Thread(error.to_string()))?;
    let statements = [
        format!("CREATE DATABASE IF NOT EXISTS {SCHEMA}"),
        format!(
            "CREATE TABLE IF NOT EXISTS {TABLE} (id INT PRIMARY KEY, record LONGTEXT CHARACTER SET utf8mb4 NOT NULL) ENGINE=InnoDB"
        ),
        format!("REPLACE INTO {TABLE} VALUES (1, {})", sql::string(&text)),
    ];
    for statement in statements {
        conn.query_drop(statement)
            .await
            .map_err(ReplayError::at("keep the replay's record on the target, in schema `bkp_restore`"))?;
    }
    Ok(())
}

/// Removes the record, and the schema if it holds nothing else.
pub(super) async fn remove(conn: &mut Conn) -> Result<(), ReplayError> {
    let at = || ReplayError::at("remove the replay's record from the target");
    conn.query_drop(format!("DROP TABLE IF EXISTS {TABLE}")).await.map_err(at())?;
    let asked = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'bkp_restore'";
    let others: Option<u64> = conn.query_first(asked).await.map_err(at())?;
    if others == Some(0) {
        conn.query_drop(format!("DROP DATABASE IF EXISTS {SCHEMA}")).await.map_err(at())?;
    }
    Ok(())
}
