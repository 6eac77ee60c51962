//! Replays in one session of the account that restores, on a target that may not or cannot follow bkp as a replica: slower, and with
//! fewer rights.
//!
//! [`walk`] reads the segments, [`script`] makes statements of the events, [`apply`] sends them. On a MySQL with GTIDs these tell how far
//! the target is, else a row that is written in each transaction ([`progress`]).

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::gtid::{Executed, Gtid};
use crate::mysql::manifest::Product;
use crate::replay::ReplayError;
use crate::replay::ask::{self, gtid_executed};
use crate::replay::feed::{Skip, Start};
use crate::replay::fitness::{self, unfit};
use crate::replay::plan::ReplayPlan;
use crate::replay::record::{self, Record};
use crate::replay::settings;
use crate::replay::target::{Replayed, Target, no_record};
use crate::run::Run;

mod apply;
mod dialect;
mod fit;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod parcel;
mod check;
mod progress;
pub(super) mod reached;
mod script;
mod value;
mod walk;
mod wants;

use dialect::Dialect;
use progress::Doing;
use walk::Have;

impl Target {
    /// Replays in the session of a connection that has the lock. Started again after an interruption, it goes on.
    pub(super) async fn replay_in_session(
        &self,
        conn: &mut Conn,
        plan: &ReplayPlan,
        run: &Run,
    ) -> Result<Replayed, ReplayError> {
        let began = run.clock.instant();
        // What the statements leave of a session is no place to keep records from.
        let mut desk = self.connect().await?;
        // It lies idle for as long as the other session works, and what it writes is written at once.
        let settings = "SET SESSION wait_timeout = 31536000, SESSION autocommit = 1, SESSION completion_type = 0";
        for conn in [&mut desk, &mut *conn] {
            conn.query_drop(settings).await.map_err(ReplayError::at("prepare the session on the target"))?;
        }
        let mut record = record::read(&mut desk).await?.ok_or_else(no_record)?;
        let mut replayed = Replayed { transactions: plan.transactions, bytes: plan.bytes, ..Replayed::default() };
        let dialect = Dialect::ask(conn, plan).await?;
        if record.is_over {
            run.events.note("the replay is over already: what is left is to tidy up");
        } else {
            let have = self.have(&mut desk, plan, &mut record, &dialect).await?;
            apply::apply(conn, plan, have, &dialect, run).await?;
        }
        replayed.executed = self.compare_session(&mut desk, plan, &record, &dialect).await?;
        end(&mut desk, plan, &record, &dialect).await?;
        desk.disconnect().await.ok();
        replayed.took = run.clock.instant().duration_since(began);
        Ok(replayed)
    }

    /// Finds out what the target has; where nothing was begun, tells it of the dump.
    async fn have(
        &self,
        desk: &mut Conn,
        plan: &ReplayPlan,
        record: &mut Record,
        dialect: &Dialect,
    ) -> Result<Have, ReplayError> {
        let started = ask::started(desk).await?;
        if !record.has_begun {
            if dialect.goes_by_names() {
                self.say_dumped(desk, plan).await?;
            } else {
                progress::create(desk).await?;
                progress::write(desk, &plan.begin).await?;
            }
        }
        let have = if dialect.goes_by_names() {
            Have::Named(Skip::MySql(gtid_executed(desk).await?))
        } else {
            self.have_by_place(desk, plan, record, dialect, started).await?
        };
        (record.has_begun, record.started) = (true, started);
        record::write(desk, record).await?;
        Ok(have)
    }

    async fn have_by_place(
        &self,
        desk: &mut Conn,
        plan: &ReplayPlan,
        record: &Record,
        dialect: &Dialect,
        started: i64,
    ) -> Result<Have, ReplayError> {
        if let Some(found) = progress::read(desk).await? {
            let Some(doing) = found.doing else { return Ok(Have::Before(found.place)) };
            let is_same = fitness::same_process(record, started).is_ok();
            let end = doing.end.clone();
            return match took_effect(desk, &doing, dialect, is_same).await? {
                Some(false) => Ok(Have::Before(found.place)),
                Some(true) => {
                    let end = end.unwrap_or(found.place);
                    progress::write(desk, &end).await?;
                    Ok(Have::Before(end))
                }
                None => Err(doubtful(&doing)),
            };
        }
        // An earlier recovery has brought it here.
        let position = plan.of_source(&reached::position(desk).await?.parse()?);
        if !plan.has_gtids || !plan.feed.leads_on_from(&position)? {
            return Err(no_record());
        }
        progress::create(desk).await?;
        Ok(Have::Named(plan.feed.skip(Start::After(position), &mut || Ok(()))?))
    }

    /// Sets what the target has executed beside the plan, and returns it.
    async fn compare_session(
        &self,
        desk: &mut Conn,
        plan: &ReplayPlan,
        record: &Record,
        dialect: &Dialect,
    ) -> Result<String, ReplayError> {
        if dialect.goes_by_names() {
            return self.compare(desk, plan).await;
        }
        let planned =
            if plan.has_gtids { plan.executed.to_string() } else { format!("{}:{}", plan.end.file, plan.end.offset) };
        if record.is_over || plan.transactions == 0 {
            return Ok(planned);
        }
        let found = progress::read(desk).await?;
        match found {
            // Further on, the target had some of the plan already, and perhaps all of it.
            None => Ok(planned),
            Some(found) if found.place == plan.end && found.doing.is_none() => Ok(planned),
            Some(found) => Err(ReplayError::Mismatch {
                found: format!("come to {}:{}", found.place.file, found.place.offset),
                planned: format!("its end at {}:{}", plan.end.file, plan.end.offset),
            }),
        }
    }
}

/// Leaves the target as it was: its own settings, no record, and where it stands as a replica would leave it.
async fn end(desk: &mut Conn, plan: &ReplayPlan, record: &Record, dialect: &Dialect) -> Result<(), ReplayError> {
    record::write(desk, &Record { is_over: true, has_begun: true, ..record.clone() }).await?;
    if let Executed::MariaDb(state) = &plan.executed
        && plan.has_gtids
        && dialect.product == Product::MariaDb
    {
        reached::write(desk, &state.position().to_string()).await?;
    }
    settings::put_back(desk, &record.settings).await?;
    progress::remove(desk).await?;
    record::remove(desk, record).await
}

/// Tells whether what was begun and is no transaction took effect; `None` where nobody can know.
async fn took_effect(
    desk: &mut Conn,
    doing: &Doing,
    dialect: &Dialect,
    is_same_process: bool,
) -> Result<Option<bool>, ReplayError> {
    let Some(Gtid::MariaDb(gtid)) = doing.gtid.as_ref().and_then(|gtid| gtid.parse().ok()) else { return Ok(None) };
    if doing.end.is_none() || dialect.is_hidden || !dialect.names {
        return Ok(None);
    }
    let asked = desk.query_first("SELECT @@GLOBAL.gtid_binlog_state");
    let state: Option<String> = asked.await.map_err(ReplayError::at("ask the target for its binlog"))?;
    let Executed::MariaDb(state) = Executed::parse(Product::MariaDb, &state.unwrap_or_default())? else {
        return Ok(None);
    };
    let last = state.iter().find(|one| (one.domain, one.server) == (gtid.domain, gtid.server));
    Ok(match last.map(|last| last.sequence) {
        // It is written where it is done.
        Some(last) if last == gtid.sequence => Some(true),
        // Something else has numbered the target's binlog before.
        Some(last) if last > gtid.sequence => None,
        _ => is_same_process.then_some(false),
    })
}

fn doubtful(doing: &Doing) -> ReplayError {
    let Doing { begin, end, gtid } = doing;
    let named = gtid.as_ref().map(|gtid| format!(" ({gtid})")).unwrap_or_default();
    let done = end.as_ref().map_or_else(String::new, |end| {
        let file = crate::mysql::sql::string(&end.file);
        format!(
            ", after UPDATE bkp_restore.bkp_session SET `file` = {file}, `place` = {}, `doing` = NULL if it has",
            end.offset
        )
    });
    unfit(
        format!(
            "was interrupted in the transaction at {}:{}{named}, which is none to the server: whether it took effect, nobody has noted",
            begin.file, begin.offset
        ),
        format!(
            "look whether the target has its change (`bkp binlog find` tells of it), and give the command again{done}, after UPDATE \
             bkp_restore.bkp_session SET `doing` = NULL if it has nothing of it; if it has a part, restore anew"
        ),
    )
}
