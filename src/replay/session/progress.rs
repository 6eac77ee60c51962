//! How far a replay in a session is, where GTIDs do not tell: a row that is written in the transaction that it tells of.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use serde::{Deserialize, Serialize};

use crate::mysql::gtid::Gtid;
use crate::mysql::manifest::Position;
use crate::mysql::sql;
use crate::replay::ReplayError;

const TABLE: &str = "`bkp_restore`.`bkp_session`";

/// What of the binlogs a target has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything before this place.
    pub(super) place: Position,
    /// It was at this when it was last heard of.
    pub(super) doing: Option<Doing>,
}

/// A transaction that is no transaction to the server: it may have taken effect, wholly or in part, before anybody could note it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Doing {
    pub(super) begin: Position,
    /// Where it ends, if it is a single statement.
    pub(super) end: Option<Position>,
    pub(super) gtid: Option<String>,
}

impl Doing {
    pub(super) fn of(gtid: Option<&Gtid>, begin: &Position, end: Option<Position>) -> Self {
        Self { begin: begin.clone(), end, gtid: gtid.map(ToString::to_string) }
    }
}

/// Returns the statement that notes a place. It is an INSERT: nothing else may stand in some transactions of MySQL's.
pub(super) fn reach(place: &Position) -> String {
    note(place, "NULL")
}

/// Returns the statement that notes what is to be done next.
pub(super) fn begin(place: &Position, doing: &Doing) -> String {
    let text = serde_json::to_string(doing).unwrap_or_default();
    note(place, &sql::string(&text))
}

fn note(Position { file, offset }: &Position, doing: &str) -> String {
    let file = sql::string(file);
    format!(
        "INSERT INTO {TABLE} (id, `file`, `place`, `doing`) VALUES (1, {file}, {offset}, {doing}) \
         ON DUPLICATE KEY UPDATE `file` = {file}, `place` = {offset}, `doing` = {doing}"
    )
}

/// Makes the table.
pub(super) async fn create(conn: &mut Conn) -> Result<(), ReplayError> {
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {TABLE} (id INT PRIMARY KEY, `file` VARCHAR(512) CHARACTER SET utf8mb4 NOT NULL, \
         `place` BIGINT UNSIGNED NOT NULL, `doing` LONGTEXT CHARACTER SET utf8mb4 NULL) ENGINE=InnoDB"
    );
    let act = "keep the replay's progress on the target, in schema `bkp_restore`";
    conn.query_drop(create).await.map_err(ReplayError::at(act))
}

/// Reads how far the replay is; `None` where it keeps no progress.
pub(super) async fn read(conn: &mut Conn) -> Result<Option<Progress>, ReplayError> {
    let asked = format!("SELECT `file`, `place`, `doing` FROM {TABLE} WHERE id = 1");
    let row: Option<(String, u64, Option<String>)> = match conn.query_first(asked).await {
        Ok(row) => row,
        Err(Error::Server(error)) if matches!(error.code, 1049 | 1146) => None,
        Err(error) => return Err(ReplayError::at("read the replay's progress from the target")(error)),
    };
    let Some((file, offset, doing)) = row else { return Ok(None) };
    let malformed = |_| ReplayError::Thread("the progress of the replay cannot be read".to_owned());
    let doing = doing.map(|text| serde_json::from_str(&text).map_err(malformed)).transpose()?;
    Ok(Some(Progress { place: Position { file, offset }, doing }))
}

/// Notes a place by itself.
pub(super) async fn write(conn: &mut Conn, place: &Position) -> Result<(), ReplayError> {
    conn.query_drop(reach(place)).await.map_err(ReplayError::at("note the replay's progress on the target"))
}

/// Removes the table: the replay is over.
pub(super) async fn remove(conn: &mut Conn) -> Result<(), ReplayError> {
    let act = "remove the replay's progress from the target";
    conn.query_drop(format!("DROP TABLE IF EXISTS {TABLE}")).await.map_err(ReplayError::at(act))
}
