//! The connection that makes everything but rows. It holds a lock by name, so that a target has one load at a time.

use std::pin::pin;
use std::time::Duration;

use mysql_async::prelude::Queryable;

use crate::target::mysql::patience::Patience;
use crate::target::mysql::session::{OwnConn, answered};
use crate::target::mysql::{Load, LoadError, progress};

/// A server that lost its client a moment ago may still hold that client's lock.
const LOCK_WAIT_S: u32 = 5;

/// Routers forget a silent connection after some minutes, servers after their `wait_timeout`.
const PING: Duration = Duration::from_mins(1);

/// Opens the connection, and the table of progress where the load is new.
pub(super) async fn begin(load: &Load) -> Result<OwnConn, LoadError> {
    let mut conn = open(load).await?;
    if load.plan.resumes {
        load.run.events.note("the target holds the beginning of this load: it goes on from there");
    } else {
        progress::begin(&mut conn, &load.plan).await?;
    }
    Ok(conn)
}

async fn open(load: &Load) -> Result<OwnConn, LoadError> {
    let act = "lock the target against a second load";
    let mut conn = load.opener.open().await?;
    let lock = conn.query_first(format!("SELECT GET_LOCK('bkp_restore', {LOCK_WAIT_S})"));
    let got: Option<Option<u8>> = answered(act, lock).await?.map_err(LoadError::at(act))?;
    if got.flatten() == Some(1) { Ok(conn) } else { Err(LoadError::Busy) }
}

/// Waits for the rows, and meanwhile keeps the connection in use. One that does not answer is given up.
pub(super) async fn awake<T>(load: &Load, conn: OwnConn, rows: impl Future<Output = T>) -> (T, Option<OwnConn>) {
    let (mut rows, mut conn) = (pin!(rows), Some(conn));
    loop {
        tokio::select! {
            biased;
            done = &mut rows => return (done, conn),
            () = tokio::time::sleep(PING), if conn.is_some() => {}
        }
        if let Some(silent) = conn.take() {
            conn = pinged(load, silent).await;
        }
    }
}

/// Returns a connection that still answers.
async fn pinged(load: &Load, mut conn: OwnConn) -> Option<OwnConn> {
    if answered("ping the target", conn.ping()).await.is_ok_and(|pong| pong.is_ok()) {
        return Some(conn);
    }
    load.run.events.detail("the control connection was lost while rows were loaded: another will take its place");
    load.opener.abandon(conn);
    None
}

/// Returns the connection if it answers, else another that holds the lock.
pub(super) async fn answering(load: &Load, conn: Option<OwnConn>) -> Result<OwnConn, LoadError> {
    if let Some(silent) = conn
        && let Some(conn) = pinged(load, silent).await
    {
        return Ok(conn);
    }
    let mut patience = Patience::default();
    loop {
        let error = match reopen(load).await {
            Ok(conn) => return Ok(conn),
            Err(error) => error,
        };
        let Some(delay) = patience.after(&error) else { return Err(error) };
        tokio::time::sleep(delay).await;
    }
}

async fn reopen(load: &Load) -> Result<OwnConn, LoadError> {
    load.opener.kill_abandoned().await?;
    open(load).await
}

/// Ends the load. While tables are missing, the table of progress stays for the next try.
pub(super) async fn end(load: &Load, mut conn: OwnConn, is_whole: bool) -> Result<(), LoadError> {
    if is_whole {
        match progress::end(&mut conn).await {
            Err(error) if error.is_passing() => {
                // The server may have done it before the line broke; taken for undone, the next try would find a foreign target.
                load.opener.abandon(conn);
                conn = answering(load, None).await?;
                progress::end(&mut conn).await?;
            }
            ended => ended?,
        }
    } else {
        load.run.events.note(
            "the target keeps the schema `bkp_restore`: the same command tries the missing tables again; drop it to do without them",
        );
    }
    load.opener.close(conn).await;
    Ok(())
}
