//! Global variables of the target that a replay needs otherwise, and puts back.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::{Deserialize, Serialize};

use crate::mysql::manifest::Product;
use crate::mysql::sql;
use crate::replay::ReplayError;

/// A variable and the value that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    name: String,
    value: String,
}

/// Returns what a replay sets, and to what.
pub(super) fn wanted(product: Product, threads: usize, server_id: u32) -> Vec<(&'static str, String)> {
    // A replica leaves out what bears its own number, and most servers are number 1. Events fired on the source, and their rows
    // are in the binlogs: here they would come twice.
    let mut wanted = vec![("server_id", server_id.to_string()), ("event_scheduler", "OFF".to_owned())];
    wanted.extend(match product {
        Product::MySql => vec![
            ("replica_parallel_workers", threads.to_string()),
            ("replica_preserve_commit_order", "ON".to_owned()),
            ("replica_exec_mode", "STRICT".to_owned()),
        ],
        Product::MariaDb => {
            vec![("slave_parallel_threads", threads.to_string()), ("slave_exec_mode", "STRICT".to_owned())]
        }
    });
    wanted
}

/// What becomes of the target's events while a session replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheduler {
    Rests,
    /// It goes on, and the account may stop it.
    May,
    /// It goes on, and the account may not stop it.
    Fires,
}

/// Asks whether events go on, and may be stopped. Changes nothing.
pub(super) async fn scheduler(conn: &mut Conn) -> Result<Scheduler, ReplayError> {
    let asked = "SELECT CAST(@@GLOBAL.event_scheduler AS CHAR)";
    let value: Option<String> =
        conn.query_first(asked).await.map_err(ReplayError::at("read `event_scheduler` of the target"))?;
    if !value.is_some_and(|value| matches!(value.as_str(), "ON" | "1")) {
        return Ok(Scheduler::Rests);
    }
    let may = conn.query_drop("SET GLOBAL event_scheduler = ON").await.is_ok();
    Ok(if may { Scheduler::May } else { Scheduler::Fires })
}

/// Returns what a replay in a session sets, and to what.
pub(super) async fn wanted_in_session(conn: &mut Conn) -> Result<Vec<(&'static str, String)>, ReplayError> {
    let may = scheduler(conn).await? == Scheduler::May;
    Ok(may.then(|| ("event_scheduler", "OFF".to_owned())).into_iter().collect())
}

/// Lets nobody write to the target but its replication, and, on MariaDB, accounts that may write wherever they want.
pub(super) async fn close(conn: &mut Conn, product: Product) -> Result<(), ReplayError> {
    // On MySQL the one switches the other on, too.
    set(conn, if product == Product::MySql { "super_read_only" } else { "read_only" }, "ON").await
}

/// Lets accounts with the right to it write, and nobody else.
pub(super) async fn half_open(conn: &mut Conn, product: Product) -> Result<(), ReplayError> {
    if product == Product::MySql { set(conn, "super_read_only", "OFF").await } else { Ok(()) }
}

/// Lets everybody write, whatever the target was set to before: that is what a promotion is for.
pub(super) async fn open(conn: &mut Conn) -> Result<(), ReplayError> {
    set(conn, "read_only", "OFF").await
}

/// Tells whether the target is as [`close`] leaves it.
pub(super) async fn is_closed(conn: &mut Conn, product: Product) -> Result<bool, ReplayError> {
    is_on(conn, if product == Product::MySql { "super_read_only" } else { "read_only" }).await
}

/// Tells whether everybody may write to the target.
pub(super) async fn is_open(conn: &mut Conn) -> Result<bool, ReplayError> {
    Ok(!is_on(conn, "read_only").await?)
}

async fn is_on(conn: &mut Conn, name: &str) -> Result<bool, ReplayError> {
    let asked = format!("SELECT CAST(@@GLOBAL.{name} AS CHAR)");
    let value: Option<String> =
        conn.query_first(asked).await.map_err(ReplayError::at("ask the target whether it can be written to"))?;
    Ok(value.is_some_and(|value| !matches!(value.as_str(), "0" | "OFF")))
}

/// Reads what the variables are set to.
pub(super) async fn read(conn: &mut Conn, wanted: &[(&'static str, String)]) -> Result<Vec<Setting>, ReplayError> {
    let mut settings = Vec::new();
    for (name, _) in wanted {
        let asked = format!("SELECT CAST(@@GLOBAL.{name} AS CHAR)");
        let value: Option<String> =
            conn.query_first(asked).await.map_err(ReplayError::at(format!("read `{name}` of the target")))?;
        settings.push(Setting { name: (*name).to_owned(), value: value.unwrap_or_default() });
    }
    Ok(settings)
}

pub(super) async fn apply(conn: &mut Conn, wanted: &[(&'static str, String)]) -> Result<(), ReplayError> {
    for (name, value) in wanted {
        set(conn, name, value).await?;
    }
    Ok(())
}

pub(super) async fn put_back(conn: &mut Conn, settings: &[Setting]) -> Result<(), ReplayError> {
    for Setting { name, value } in settings {
        set(conn, name, value).await?;
    }
    Ok(())
}

async fn set(conn: &mut Conn, name: &str, value: &str) -> Result<(), ReplayError> {
    // The scheduler may be shut off for good, and then is off.
    if name == "event_scheduler" && value == "DISABLED" {
        return Ok(());
    }
    let value = if value.bytes().all(|byte| byte.is_ascii_digit()) { value.to_owned() } else { sql::string(value) };
    let act = format!("set `{name}` of the target to {value}");
    match conn.query_drop(format!("SET GLOBAL {name} = {value}")).await {
        // 1290: started without a scheduler, so that there is nothing to switch off.
        Err(mysql_async::Error::Server(error)) if name == "event_scheduler" && error.code == 1290 => Ok(()),
        done => done.map_err(ReplayError::at(act)),
    }
}
