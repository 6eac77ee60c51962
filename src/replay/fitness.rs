//! Whether a target can follow, and would apply exactly what it is sent.

use std::collections::BTreeMap;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::gtid::{Executed, GtidSet};
use crate::mysql::manifest::{Position, Product};
use crate::replay::ReplayError;
use crate::replay::ask::{LOCK, gtid_executed, own_uuid, slave_pos};
use crate::replay::channel;
use crate::replay::filter::Filter;
use crate::replay::plan::ReplayPlan;
use crate::replay::record::Record;
use crate::replay::segments::reaches;
use crate::replay::settings;
use crate::replay::status;

/// The time that two answers may lie apart and still tell of one start.
const START_S_APART: i64 = 5;

const GTID_MODE: &str = "on the target: SET GLOBAL enforce_gtid_consistency = ON; SET GLOBAL gtid_mode = OFF_PERMISSIVE; \
     SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = ON";

const FORGET: &str = "if nothing follows the target, let it forget them: RESET BINARY LOGS AND GTIDS. That deletes its binlogs: where it is \
     the source itself, first `bkp binlog capture`, or copy the files away, or what was written last is lost";

pub(super) fn unfit(why: impl Into<String>, hint: impl Into<String>) -> ReplayError {
    ReplayError::Unfit { why: why.into(), hint: hint.into() }
}

/// Refuses a target that cannot follow, follows another, or would leave something out.
///
/// A replay that has begun may go on to its point or a later one.
///
/// With `further` the target is to go on from an earlier recovery.
pub(super) async fn check(
    conn: &mut Conn,
    plan: &ReplayPlan,
    record: Option<&Record>,
    further: bool,
) -> Result<(), ReplayError> {
    refuse_others(conn, plan, record).await?;
    let product = plan.feed.product;
    let variables = variables(conn).await?;
    let get = |name: &str| variables.get(name).map_or("", String::as_str);
    let channels = status::read(conn, product).await?;
    if let Some((name, _)) = channels.iter().find(|(name, _)| !channel::is_ours(name)) {
        return Err(follows(name));
    }
    refuse_filters(conn, product, &variables).await?;
    may_replicate(conn, product, channels.is_empty()).await?;
    for name in ["replica_skip_errors", "slave_skip_errors"] {
        // Of some tables alone, what names others may fail and mean nothing.
        if !matches!(plan.filter, Filter::Only(_)) && !matches!(get(name), "" | "OFF") {
            return Err(unfit(
                format!("goes past errors ({name} = {})", get(name)),
                format!("start the target without {name}"),
            ));
        }
    }
    if further {
        return check_further(conn, plan).await;
    }
    match product {
        Product::MySql => check_gtids(conn, plan, get("gtid_mode"), record).await,
        Product::MariaDb if get("gtid_strict_mode") == "ON" && !get("gtid_binlog_pos").is_empty() => Err(unfit(
            "is strict about GTIDs and has some of its own",
            "on the target: SET GLOBAL gtid_strict_mode = 0",
        )),
        Product::MariaDb => Ok(()),
    }
}

/// Refuses a target on which another replay has begun, or is under way.
pub(super) async fn refuse_others(
    conn: &mut Conn,
    plan: &ReplayPlan,
    record: Option<&Record>,
) -> Result<(), ReplayError> {
    if let Some(record) = record {
        same_begin(record, &plan.begin)?;
    }
    let begun = record.filter(|record| record.has_begun);
    if let Some(record) = begun.filter(|record| !reaches(&plan.end, &record.end)) {
        return Err(unfit(
            format!("is on its way to a later point ({}:{})", record.end.file, record.end.offset),
            "go on to that one or a later one, or drop what was restored and the schema `bkp_restore`",
        ));
    }
    let is_free: Option<u8> = conn
        .query_first(format!("SELECT IS_FREE_LOCK('{LOCK}')"))
        .await
        .map_err(ReplayError::at("ask the target for other replays"))?;
    if is_free != Some(1) {
        return Err(ReplayError::Busy);
    }
    Ok(())
}

/// Refuses one that follows another source.
pub(super) fn follows(name: &str) -> ReplayError {
    unfit(
        format!("follows a source itself (channel `{name}`)"),
        "choose a server that is no replica, or let it forget its source (RESET REPLICA ALL)",
    )
}

/// Tells whether an account lacks a right, from the error that a server gives it.
pub(super) fn is_denial(code: u16) -> bool {
    matches!(code, 1044 | 1045 | 1142 | 1227 | 1401 | 3879)
}

/// Returns what a target has executed of the transactions between the dump and the point.
fn ahead(executed: &GtidSet, planned: &GtidSet, dumped: &GtidSet) -> GtidSet {
    let to_come = planned.subtract(dumped);
    to_come.subtract(&to_come.subtract(executed))
}

/// Refuses to go on from another dump than the one that was begun with.
fn same_begin(record: &Record, begin: &Position) -> Result<(), ReplayError> {
    if record.begin == *begin {
        return Ok(());
    }
    Err(unfit(
        format!("is in the middle of a replay that began at {}:{}", record.begin.file, record.begin.offset),
        "go on with the command and the snapshot that began it, or drop what was restored and the schema `bkp_restore`",
    ))
}

/// Refuses to go on where transactions behind the dump were executed already: the target would leave them out.
pub(super) fn refuse_ahead(executed: &GtidSet, planned: &GtidSet, dumped: &GtidSet) -> Result<(), ReplayError> {
    let ahead = ahead(executed, planned, dumped);
    if ahead.is_empty() { Ok(()) } else { Err(unfit(format!("has executed {ahead} already"), FORGET)) }
}

pub(super) fn filtered(name: &str, value: &str) -> ReplayError {
    unfit(format!("leaves transactions out ({name} = {value})"), "start the target without replication filters")
}

/// Refuses filters that every channel takes over. An account that may not see them is told by the channel's status.
async fn refuse_filters(
    conn: &mut Conn,
    product: Product,
    variables: &BTreeMap<String, String>,
) -> Result<(), ReplayError> {
    if let Some((name, value)) = filter(variables) {
        return Err(filtered(name, value));
    }
    if product == Product::MySql {
        let asked = "SELECT FILTER_NAME, FILTER_RULE FROM performance_schema.replication_applier_global_filters";
        let rows: Vec<(String, String)> = conn.query(asked).await.unwrap_or_default();
        if let Some((name, value)) = rows.iter().find(|(_, value)| status::is_set(value)) {
            return Err(filtered(name, value));
        }
    }
    Ok(())
}

/// Returns a replication filter among global variables.
fn filter(variables: &BTreeMap<String, String>) -> Option<(&str, &str)> {
    let filters = variables.iter().filter(|(name, _)| status::is_filter(name));
    filters.map(|(name, value)| (name.as_str(), value.as_str())).find(|(_, value)| status::is_set(value))
}

pub(super) async fn check_gtids(
    conn: &mut Conn,
    plan: &ReplayPlan,
    mode: &str,
    record: Option<&Record>,
) -> Result<(), ReplayError> {
    if !plan.has_gtids || record.is_some_and(|record| record.has_begun) {
        return Ok(());
    }
    if mode == "OFF" {
        return Err(unfit("does without GTIDs, and the source did not", GTID_MODE));
    }
    let Executed::MySql(planned) = &plan.executed else { return Ok(()) };
    let there = planned.subtract(&planned.subtract(&gtid_executed(conn).await?));
    // A run that was cut before it began had told the target of the dump's already.
    if there.is_empty() || (record.is_some() && there.is_subset(&plan.dumped.parse()?)) {
        return Ok(());
    }
    Err(unfit("has executed transactions of the source already", FORGET))
}

/// Refuses a target that is not on the way from the dump to the point: where it stands must be served.
pub(super) async fn check_further(conn: &mut Conn, plan: &ReplayPlan) -> Result<(), ReplayError> {
    let position = if plan.feed.product == Product::MariaDb { slave_pos(conn).await? } else { String::new() };
    check_further_from(conn, plan, &position).await
}

/// As [`check_further`], of a MariaDB that stands at a position.
pub(super) async fn check_further_from(conn: &mut Conn, plan: &ReplayPlan, position: &str) -> Result<(), ReplayError> {
    let is_on_the_way = match &plan.executed {
        _ if !plan.has_gtids => false,
        Executed::MySql(_) => {
            let executed = gtid_executed(conn).await?;
            let own = own_uuid(conn, Product::MySql).await?;
            let is_behind = plan.dumped.parse::<GtidSet>()?.is_subset(&executed);
            is_behind && !plan.is_exceeded_by(&Executed::MySql(executed), own)
        }
        Executed::MariaDb(_) => plan.feed.leads_on_from(&plan.of_source(&position.parse()?))?,
    };
    if is_on_the_way {
        return Ok(());
    }
    Err(unfit(
        "does not stand between the dump and the point",
        "`--go-further` goes on from an earlier recovery by GTIDs to a later point; else restore anew into an empty server",
    ))
}

/// Asks for what changes nothing and wants the rights that a replay wants: each setting is set to what it is.
async fn may_replicate(conn: &mut Conn, product: Product, is_unbegun: bool) -> Result<(), ReplayError> {
    // Who has set our channel up may stop it, too; here it goes on.
    if !is_unbegun {
        return Ok(());
    }
    match conn.query_drop(channel::stop(product)).await {
        Err(mysql_async::Error::Server(error)) if channel::is_absent(error.code) => {}
        done => done.map_err(ReplayError::at("replay binlogs as the account that restores"))?,
    }
    let settings = settings::read(conn, &settings::wanted(product, 1, 1)).await?;
    settings::put_back(conn, &settings).await
}

pub(super) async fn variables(conn: &mut Conn) -> Result<BTreeMap<String, String>, ReplayError> {
    let asked = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
        ('gtid_mode', 'gtid_strict_mode', 'gtid_binlog_pos', 'replica_skip_errors', 'slave_skip_errors') \
        OR Variable_name LIKE 'replicate\\_%'";
    let rows: Vec<(String, String)> =
        conn.query(asked).await.map_err(ReplayError::at("ask the target for its variables"))?;
    Ok(rows.into_iter().collect())
}

/// Tells whether a target wants a GTID on every transaction.
pub(super) async fn has_gtid_mode(conn: &mut Conn, product: Product) -> Result<bool, ReplayError> {
    Ok(product == Product::MySql && variables(conn).await?.get("gtid_mode").is_some_and(|mode| mode == "ON"))
}

/// Refuses to go on without GTIDs on a server that was started anew: what its threads had applied past the place that it
/// remembers is not known, and would come twice.
pub(super) fn same_process(record: &Record, started: i64) -> Result<(), ReplayError> {
    if (record.started - started).abs() <= START_S_APART {
        return Ok(());
    }
    Err(unfit(
        "was started anew in the middle of a replay without GTIDs",
        "drop what was restored and the schema `bkp_restore`, and restore anew",
    ))
}

/// Returns what the worker that failed says; the coordinator only says that one did.
pub(super) async fn worker_error(conn: &mut Conn, product: Product) -> Option<String> {
    if product != Product::MySql {
        return None;
    }
    let asked = "SELECT CONCAT(LAST_ERROR_MESSAGE, ' (', APPLYING_TRANSACTION, ')') \
        FROM performance_schema.replication_applier_status_by_worker \
        WHERE CHANNEL_NAME = 'bkp' AND LAST_ERROR_NUMBER <> 0 ORDER BY LAST_ERROR_TIMESTAMP LIMIT 1";
    // Where the performance schema is off, the coordinator's words have to do.
    conn.query_first(asked).await.ok().flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_has_executed_behind_the_dump_is_found() {
        let set = |numbers: &str| format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{numbers}").parse::<GtidSet>().unwrap();
        assert_eq!(ahead(&set("1-7"), &set("1-9"), &set("1-5")), set("6-7"));
        assert!(ahead(&set("1-5"), &set("1-9"), &set("1-5")).is_empty());
        assert!(ahead(&set("20-30"), &set("1-9"), &set("1-5")).is_empty());
    }

    #[test]
    fn a_replay_goes_on_from_where_it_began() {
        let at = |offset| Position { file: "b.000001".to_owned(), offset };
        let record = serde_json::json!({
            "snapshot": "aa11", "begin": at(4), "end": at(900), "is_loaded": true, "has_begun": true, "started": 0, "settings": [],
        });
        let record: Record = serde_json::from_value(record).unwrap();
        assert!(same_begin(&record, &at(4)).is_ok());
        assert!(same_begin(&record, &at(5)).is_err());
    }

    #[test]
    fn a_replication_filter_is_found_among_the_variables() {
        let of = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(filter(&of("replicate_ignore_db", "mall")), Some(("replicate_ignore_db", "mall")));
        assert_eq!(filter(&of("replicate_wild_do_table", "a.%")), Some(("replicate_wild_do_table", "a.%")));
        assert_eq!(filter(&of("replicate_ignore_db", "")), None);
        assert_eq!(filter(&of("replicate_events_marked_for_skip", "REPLICATE")), None);
    }
}
