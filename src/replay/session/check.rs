//! Whether a session of the account that restores may bring a plan to its target, and can.

use std::sync::Arc;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::gtid::GtidSet;
use crate::mysql::manifest::Product;
use crate::replay::ReplayError;
use crate::replay::ask::gtid_executed;
use crate::replay::channel;
use crate::replay::feed::Start;
use crate::replay::filter::Filter;
use crate::replay::fitness::{self, unfit};
use crate::replay::plan::ReplayPlan;
use crate::replay::record::Record;
use crate::replay::session::dialect::Dialect;
use crate::replay::session::reached;
use crate::replay::session::walk::{self, Have};
use crate::replay::settings;
use crate::replay::status;
use crate::replay::target::Target;
use crate::run::Run;

impl Target {
    /// Refuses a target on which the plan cannot be carried out in a session, and a plan that no session can carry out. Changes nothing.
    pub(in crate::replay) async fn check_session(
        &self,
        plan: &mut ReplayPlan,
        record: Option<&Record>,
        further: bool,
        run: &Run,
    ) -> Result<(), ReplayError> {
        if plan.filter != Filter::Everything {
            return Err(unfit(
                "would be sent, in one session, what the policy left out of the dump",
                "a replica can pass it over: `--replay-by replica`; or let the policy dump the source whole",
            ));
        }
        let mut conn = self.connect().await?;
        let checked = check(&mut conn, plan, record, further).await;
        let dialect = match checked {
            Ok(()) => Dialect::ask(&mut conn, plan).await,
            Err(error) => Err(error),
        };
        let scheduler = settings::scheduler(&mut conn).await;
        let position = if further { reached::position(&mut conn).await } else { Ok(String::new()) };
        conn.disconnect().await.ok();
        let dialect = Arc::new(dialect?);
        // What an earlier recovery has brought of several domains may not be a beginning of the plan.
        let have = if further && !dialect.goes_by_names() {
            let position = plan.of_source(&position?.parse()?);
            Have::Named(plan.feed.skip(Start::After(position), &mut || Ok(()))?)
        } else {
            Have::Before(plan.begin.clone())
        };
        plan.events_fire = scheduler? == settings::Scheduler::Fires;
        let (of_thread, of_run) = (plan.clone(), run.clone());
        let looked = tokio::task::spawn_blocking(move || {
            walk::write(&of_thread, have, &dialect, Some("look for what no session can replay"), &of_run, &mut |_| {
                Ok(())
            })
        });
        looked.await.map_err(|error| ReplayError::Thread(error.to_string()))?.map_err(|error| *error)
    }
}

async fn check(conn: &mut Conn, plan: &ReplayPlan, record: Option<&Record>, further: bool) -> Result<(), ReplayError> {
    fitness::refuse_others(conn, plan, record).await?;
    let product = plan.feed.product;
    // Who may not look is no judge of it.
    let channels = status::read(conn, product).await.unwrap_or_default();
    if let Some((name, _)) = channels.iter().find(|(name, _)| !channel::is_ours(name)) {
        return Err(fitness::follows(name));
    }
    let variables = fitness::variables(conn).await?;
    let get = |name: &str| variables.get(name).map_or("", String::as_str);
    if product == Product::MySql && !further {
        fitness::check_gtids(conn, plan, get("gtid_mode"), record).await?;
    }
    may_apply(conn, plan, record).await?;
    if product == Product::MariaDb && get("gtid_strict_mode") == "ON" && is_logged(conn).await? {
        return Err(unfit(
            "is strict about GTIDs, and writes those of the load beside the source's",
            "on the target: SET GLOBAL gtid_strict_mode = 0; or keep both out of its binlog with `--no-binlog`",
        ));
    }
    if further {
        let position = if product == Product::MariaDb { reached::position(conn).await? } else { String::new() };
        return fitness::check_further_from(conn, plan, &position).await;
    }
    Ok(())
}

async fn is_logged(conn: &mut Conn) -> Result<bool, ReplayError> {
    let asked = conn.query_first("SELECT @@global.log_bin AND @@session.sql_log_bin");
    let told: Option<bool> = asked.await.map_err(ReplayError::at("ask the target for its binlog"))?;
    Ok(told.unwrap_or_default())
}

/// Asks for what changes nothing and wants the rights that a replay in a session wants.
async fn may_apply(conn: &mut Conn, plan: &ReplayPlan, record: Option<&Record>) -> Result<(), ReplayError> {
    let product = plan.feed.product;
    // No event: whoever may send one is told so, and who may not is told that.
    let mut wanted = vec![("apply events of the binlog", "BINLOG 'bkp'")];
    match product {
        Product::MySql => {
            wanted
                .push(("give a statement the session that it had", "SET @@session.pseudo_thread_id = CONNECTION_ID()"));
            let by = "SET @@session.auto_increment_increment = @@session.auto_increment_increment";
            wanted.push(("give a statement the session that it had", by));
            wanted.extend(
                plan.has_gtids.then_some(("give transactions their GTIDs", "SET @@session.gtid_next = 'AUTOMATIC'")),
            );
            if plan.has_gtids && record.is_none_or(|record| !record.has_begun) && !knows_dump(conn, plan).await? {
                // Whoever may set one global variable may set the other.
                let global = "SET GLOBAL gtid_executed_compression_period = @@GLOBAL.gtid_executed_compression_period";
                wanted.push(("tell the target which transactions the dump holds", global));
            }
        }
        Product::MariaDb => {
            wanted
                .push(("give a statement the session that it had", "SET @@session.pseudo_thread_id = CONNECTION_ID()"));
            let identity =
                "SET @@session.gtid_domain_id = @@session.gtid_domain_id, @@session.server_id = @@session.server_id";
            wanted.push(("give transactions their GTIDs", identity));
        }
    }
    for (act, statement) in wanted {
        match conn.query_drop(statement).await {
            Err(mysql_async::Error::Server(error)) if fitness::is_denial(error.code) => {
                return Err(ReplayError::Denied { act, product, text: error.message });
            }
            Err(mysql_async::Error::Server(_)) | Ok(()) => {}
            Err(error) => return Err(ReplayError::at(act)(error)),
        }
    }
    Ok(())
}

/// Tells whether a MySQL knows already which transactions the dump holds.
async fn knows_dump(conn: &mut Conn, plan: &ReplayPlan) -> Result<bool, ReplayError> {
    Ok(plan.dumped.parse::<GtidSet>()?.is_subset(&gtid_executed(conn).await?))
}
