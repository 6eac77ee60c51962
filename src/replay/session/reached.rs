//! Where a MariaDB stands after a replay in a session, where the account may not tell the server itself (`gtid_slave_pos`).

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use crate::mysql::sql;
use crate::replay::ReplayError;
use crate::replay::ask;

const SCHEMA: &str = "bkp_restore";
const TABLE: &str = "`bkp_restore`.`bkp_reached`";

/// Reads it; `None` where no such replay has ended here, or the server itself knows.
pub(in crate::replay) async fn read(conn: &mut Conn) -> Result<Option<String>, ReplayError> {
    match conn.query_first(format!("SELECT `position` FROM {TABLE}")).await {
        Ok(position) => Ok(position),
        Err(Error::Server(error)) if matches!(error.code, 1049 | 1142 | 1146) => Ok(None),
        Err(error) => Err(ReplayError::at("ask the target how far an earlier replay has come")(error)),
    }
}

/// Returns the position of a MariaDB by what the last replay has left, whichever its way.
pub(in crate::replay) async fn position(conn: &mut Conn) -> Result<String, ReplayError> {
    match read(conn).await? {
        Some(position) => Ok(position),
        None => ask::slave_pos(conn).await,
    }
}

/// Tells the server where it stands as a replica would leave it, or keeps that in a table.
pub(super) async fn write(conn: &mut Conn, position: &str) -> Result<(), ReplayError> {
    let told = conn.query_drop(format!("SET GLOBAL gtid_slave_pos = {}", sql::string(position))).await;
    if told.is_ok() {
        return forget(conn).await;
    }
    let statements = [
        format!("CREATE DATABASE IF NOT EXISTS {}", sql::ident(SCHEMA)),
        format!("CREATE TABLE IF NOT EXISTS {TABLE} (id INT PRIMARY KEY, `position` LONGTEXT NOT NULL) ENGINE=InnoDB"),
        format!("REPLACE INTO {TABLE} VALUES (1, {})", sql::string(position)),
    ];
    for statement in statements {
        let act = "keep on the target how far it has come, in schema `bkp_restore`";
        conn.query_drop(statement).await.map_err(ReplayError::at(act))?;
    }
    Ok(())
}

/// Forgets it: what comes now begins elsewhere, or the server itself knows.
pub(in crate::replay) async fn forget(conn: &mut Conn) -> Result<(), ReplayError> {
    if read(conn).await?.is_none() {
        return Ok(());
    }
    let act = "remove from the target how far an earlier replay had come";
    conn.query_drop(format!("DROP TABLE IF EXISTS {TABLE}")).await.map_err(ReplayError::at(act))
}
