//! Sends a script to the target, parcel by parcel, while the next ones are written.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::event::Unit;
use crate::mysql::manifest::Position;
use crate::replay::ReplayError;
use crate::replay::ask::gtid_executed;
use crate::replay::plan::ReplayPlan;
use crate::replay::segments::reaches;
use crate::replay::session::dialect::Dialect;
use crate::replay::session::parcel::{Named, Parcel, Work};
use crate::replay::session::progress;
use crate::replay::session::walk::{self, Have};
use crate::run::{Run, Stopped};

/// Parcels that are written ahead: one is sent, one waits, and one is being written.
const PARCELS_AHEAD: usize = 1;

/// A schema that does not exist.
const NO_SUCH_SCHEMA: u16 = 1049;

/// Brings the target what it lacks.
pub(super) async fn apply(
    conn: &mut Conn,
    plan: &ReplayPlan,
    have: Have,
    dialect: &Dialect,
    run: &Run,
) -> Result<(), ReplayError> {
    begin(conn, dialect).await?;
    let task = run.events.task("replay", Unit::Bytes, plan.bytes);
    let (sender, mut parcels) = tokio::sync::mpsc::channel::<Parcel>(PARCELS_AHEAD);
    let (of_plan, of_dialect, of_run) = (plan.clone(), dialect.clone(), run.clone());
    let writing = tokio::task::spawn_blocking(move || {
        // Nobody receives any more: what stopped that is told there.
        let mut send = |parcel| sender.blocking_send(parcel).map_err(|_| Box::new(ReplayError::from(Stopped)));
        walk::write(&of_plan, have, &of_dialect, None, &of_run, &mut send)
    });
    while let Some(parcel) = parcels.recv().await {
        run.check()?;
        if let Err(error) = send(conn, &parcel.work).await {
            return Err(failed(conn, &parcel.of, error, dialect).await);
        }
        if let Some(reached) = &parcel.reached {
            let done = plan.feed.bytes_until(reached).unwrap_or_default();
            task.add(done.saturating_sub(task.done()));
        }
    }
    let written = writing.await.map_err(|error| ReplayError::Thread(error.to_string()))?;
    written.map_err(|error| *error)
}

/// Makes the session one that only what is sent determines.
async fn begin(conn: &mut Conn, dialect: &Dialect) -> Result<(), ReplayError> {
    for statement in dialect.first() {
        match conn.query_drop(*statement).await {
            // A version that has no such variable does without it.
            Err(mysql_async::Error::Server(error)) if error.code == 1193 => {}
            done => done.map_err(ReplayError::at("prepare the session on the target"))?,
        }
    }
    Ok(())
}

async fn send(conn: &mut Conn, work: &Work) -> Result<(), mysql_async::Error> {
    match work {
        Work::Own(text) => conn.query_iter(&text[..]).await?.drop_result().await,
        Work::Said { schema, set, text } => {
            for statement in schema {
                choose(conn, statement).await?;
            }
            if !set.is_empty() {
                conn.query_drop(set).await?;
            }
            conn.query_iter(&text[..]).await?.drop_result().await
        }
    }
}

/// Chooses a schema. One that was dropped under the session on the source meant none there, and no other here.
async fn choose(conn: &mut Conn, statement: &str) -> Result<(), mysql_async::Error> {
    match conn.query_drop(statement).await {
        Err(mysql_async::Error::Server(error)) if error.code == NO_SUCH_SCHEMA => {
            conn.query_drop("USE information_schema").await
        }
        done => done,
    }
}

/// Tells which transaction the target has refused.
async fn failed(conn: &mut Conn, of: &[Named], error: mysql_async::Error, dialect: &Dialect) -> ReplayError {
    let mysql_async::Error::Server(refusal) = error else {
        return ReplayError::at("replay binlogs on the target")(error);
    };
    let named = match first_left(conn, of, dialect).await {
        Ok(named) => named.or(of.last()),
        Err(_) => of.first(),
    };
    let at = named.map_or_else(String::new, |Named { gtid, begin: Position { file, offset } }| {
        let gtid = gtid.as_ref().map(|gtid| format!(" ({gtid})")).unwrap_or_default();
        format!("{file}:{offset}{gtid}")
    });
    ReplayError::Apply { at, text: format!("{} (error {})", refusal.message, refusal.code) }
}

/// Returns the first of some transactions that the target has not.
async fn first_left<'a>(conn: &mut Conn, of: &'a [Named], dialect: &Dialect) -> Result<Option<&'a Named>, ReplayError> {
    conn.query_drop("ROLLBACK").await.map_err(ReplayError::at("take back what was begun"))?;
    if dialect.goes_by_names() {
        let executed = gtid_executed(conn).await?;
        let has = |named: &Named| match &named.gtid {
            Some(crate::mysql::gtid::Gtid::MySql(gtid)) => executed.contains(gtid),
            _ => false,
        };
        return Ok(of.iter().find(|named| !has(named)));
    }
    let Some(found) = progress::read(conn).await? else { return Ok(of.first()) };
    Ok(of.iter().find(|named| named.begin == found.place || !reaches(&found.place, &named.begin)))
}
