//! What a replay asks its target.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::mysql::gtid::{GtidSet, Uuid};
use crate::mysql::manifest::Product;
use crate::mysql::product;
use crate::replay::ReplayError;

/// The lock that loads take, too.
pub(super) const LOCK: &str = "bkp_restore";

/// A server that lost its client a moment ago may still hold that client's lock.
const LOCK_WAIT_S: u32 = 5;

/// Keeps others away for as long as the connection lives: a load takes the same lock.
pub(super) async fn lock(conn: &mut Conn) -> Result<(), ReplayError> {
    lock_within(conn, LOCK_WAIT_S).await
}

/// As [`lock`], and waits so many seconds for whoever has it.
pub(super) async fn lock_within(conn: &mut Conn, seconds: u32) -> Result<(), ReplayError> {
    let asked = conn.query_first(format!("SELECT GET_LOCK('{LOCK}', {seconds})"));
    let got: Option<Option<u8>> = asked.await.map_err(ReplayError::at("lock the target against a second replay"))?;
    if got.flatten() == Some(1) { Ok(()) } else { Err(ReplayError::Busy) }
}

/// Returns when the target's process was started, in seconds since 1970.
pub(super) async fn started(conn: &mut Conn) -> Result<i64, ReplayError> {
    let at = || ReplayError::at("ask the target since when it runs");
    let now: Option<i64> = conn.query_first("SELECT UNIX_TIMESTAMP()").await.map_err(at())?;
    let uptime: Option<(String, i64)> = conn.query_first("SHOW GLOBAL STATUS LIKE 'Uptime'").await.map_err(at())?;
    Ok(now.unwrap_or_default() - uptime.map_or(0, |(_, seconds)| seconds))
}

/// Counts the transactions that are prepared and not ended.
pub(super) async fn prepared(conn: &mut Conn) -> Result<u64, ReplayError> {
    let rows: Vec<Row> = conn.query("XA RECOVER").await.map_err(ReplayError::at("look for prepared transactions"))?;
    Ok(rows.len() as u64)
}

pub(super) async fn gtid_executed(conn: &mut Conn) -> Result<GtidSet, ReplayError> {
    let asked: Option<String> = conn
        .query_first("SELECT @@GLOBAL.gtid_executed")
        .await
        .map_err(ReplayError::at("ask the target what it has executed"))?;
    Ok(asked.unwrap_or_default().parse()?)
}

/// Returns the name under which a MySQL numbers its own transactions.
pub(super) async fn own_uuid(conn: &mut Conn, product: Product) -> Result<Option<Uuid>, ReplayError> {
    if product == Product::MariaDb {
        return Ok(None);
    }
    let asked: Option<String> = conn
        .query_first("SELECT @@GLOBAL.server_uuid")
        .await
        .map_err(ReplayError::at("ask the target for its UUID"))?;
    Ok(asked.and_then(|uuid| uuid.parse().ok()))
}

/// Returns which product the target is.
pub(super) async fn product(conn: &mut Conn) -> Result<Product, ReplayError> {
    let told: Vec<Row> =
        conn.query(product::PROBE).await.map_err(ReplayError::at("ask the target which product it is"))?;
    Ok(product::told_by(told.len()))
}

pub(super) async fn slave_pos(conn: &mut Conn) -> Result<String, ReplayError> {
    let asked: Option<String> = conn
        .query_first("SELECT @@GLOBAL.gtid_slave_pos")
        .await
        .map_err(ReplayError::at("ask the target what it has executed"))?;
    Ok(asked.unwrap_or_default())
}
