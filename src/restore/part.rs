//! Some tables, or one shop's rows of them, as they were at a moment: recovered in a sandbox, and taken from there to a living server.
//!
//! The living server is never replayed on. A [`Sandbox`] of the dump's product is loaded with these tables alone and follows the
//! binlogs up to the point; then the tables are copied beside the living ones ([`Recovered::copy`]), or the two are set side by side
//! row by row ([`changes`]).
//!
//! What is left out is left out by the sandbox's own replication filter (`REPLICATE_DO_TABLE`), and not by us: the server knows its
//! events, compressed ones and partial images among them, and applies whole what it applies at all. So the rows come out exact
//! whatever `binlog_row_image` is, and each transaction counts as applied, with or without rows. What the filter does not settle:
//!
//! - A *statement* that changes rows is applied only if it names these tables, while a trigger, a routine or a view may reach them
//!   from anywhere: binlogs that hold any are refused ([`scan`]).
//! - A *cascade* of a foreign key stands in no binlog (of MariaDB, and of MySQL before 9.6). The server does it again where the parent
//!   is there as well: each parent of a key that acts is loaded and followed, too ([`family`]). Keys that only forbid are dropped in
//!   the sandbox where their parents are not there.
//! - A *definition* of one of these tables is applied as it was at its time. One that names a table that is not there stops the replay,
//!   with the server's word for it. What names routines, events and whole schemas is not filtered: the schemas of the dump are
//!   all made, and what is not there cannot be dropped, which is passed over ([`PASSED_OVER`]).
//! - A table that is *renamed* goes on under a name that nobody follows, and may come back: such binlogs are refused, too ([`scan`]),
//!   unless both names are followed.

pub mod changes;
mod copied;
mod error;
pub(super) mod family;
mod recovered;
pub mod scan;
mod tenant;

use std::sync::Arc;

use tempfile::TempDir;

use crate::mysql::manifest::{Manifest, Product};
use crate::mysql::server::Server;
use crate::mysql::sql;
use crate::policy::Policy;
use crate::replay::{Filter, Point, ReplayPlan, Start};
use crate::repository::{Repository, StoredSnapshot};
use crate::restore::binlogs::{Binlogs, Fetched};
use crate::restore::choose::{self, Chosen};
use crate::restore::mysql::RepositoryDump;
use crate::restore::part::changes::{About, ChangesError};
use crate::restore::replay::{self, ReplayRequest};
use crate::restore::{Request, RestoreError};
use crate::run::Run;
use crate::sandbox::SandboxPlan;
use crate::target::mysql::DumpReader;
use crate::target::mysql::plan::TableName;

pub use copied::Copied;
pub use error::PartError;
pub use recovered::Recovered;
pub use scan::Scan;
pub use tenant::{Of, Tenant};

/// What a statement that is not filtered may meet in the sandbox, where most of the source is not. None of it can be the answer to a
/// change of a row: a database to drop that is not there (1008) or one too many (1007), and the same of routines (1304, 1305), triggers
/// (1360), servers (1476, 1477) and events (1537, 1539). That a database is unknown (1049) stops the replay: a table that goes into one
/// is told so, too.
const PASSED_OVER: &str = "1007,1008,1304,1305,1360,1476,1477,1537,1539";

/// How some tables come to be as they were.
pub struct PartPlan {
    pub chosen: Chosen,
    /// The tables that were asked for.
    pub tables: Vec<TableName>,
    /// These, and those whose foreign keys act on them.
    pub family: Vec<TableName>,
    pub tenant: Option<Tenant>,
    pub point: Point,
    pub replay: ReplayPlan,
    /// What the binlogs say of the tables up to the point.
    pub scan: Scan,
    sandbox: SandboxPlan,
    dump: Arc<RepositoryDump>,
    /// Holds the binlogs for as long as they are served.
    _scratch: Option<Arc<TempDir>>,
}

/// Tells whether some tables are to come back by the binlogs, which is what this module does.
///
/// # Errors
/// [`RestoreError`] where the repository does not open.
pub async fn is_meant(policy: &Policy, repository: &Repository, request: &Request) -> Result<bool, RestoreError> {
    if request.tables.is_empty() || request.replay.is_none() {
        return Ok(false);
    }
    let snapshots = repository.snapshots().await?;
    let Ok(source) = the_source(policy, request) else { return Ok(false) };
    Ok(Binlogs::of(policy, repository, &snapshots, &source, request).await?.is_some())
}

/// Plans the recovery of some tables. Starts and writes nothing but binlogs into the state directory.
///
/// # Errors
/// [`PartError`] where the binlogs do not lead to the point, or not to exact rows.
pub async fn plan(
    policy: &Policy,
    repository: &Arc<Repository>,
    request: &Request,
    of: Option<&Of>,
    run: &Run,
) -> Result<PartPlan, PartError> {
    let snapshots = repository.snapshots().await.map_err(RestoreError::from)?;
    repository.load_index(run).await.map_err(RestoreError::from)?;
    let source = the_source(policy, request)?;
    let asked = request.replay.as_ref().ok_or(PartError::NoPoint)?;
    let binlogs = Binlogs::of(policy, repository, &snapshots, &source, request).await?;
    let binlogs = binlogs.ok_or_else(|| RestoreError::NoBinlogs(asked.point.to_string()))?;
    let chosen = choose_dump(policy, repository, &snapshots, &source, request, asked, run).await?;
    let dump = Arc::new(crate::restore::open_dump(repository, &chosen).await?);
    let manifest = dump.manifest();
    check_names(manifest, &request.tables)?;
    let tenant = of.map(|of| Tenant::of(policy.mysql.get(&source), manifest, &request.tables, of)).transpose()?;
    let family = family::of(dump.as_ref(), &request.tables).await?;
    let fetched = binlogs.fetch(repository, manifest, asked, run).await?;
    let (mut replay, scratch) = plan_replay(manifest, asked, fetched, run).await?;
    replay.filter = Filter::Only(family.clone());
    let scan = scan_of(&replay, followed(manifest, &family), run).await?;
    let sandbox = sandbox(policy, manifest, &family, replay.has_gtids);
    let tables = request.tables.clone();
    Ok(PartPlan {
        chosen,
        tables,
        family,
        tenant,
        point: asked.point.clone(),
        replay,
        scan,
        sandbox,
        dump,
        _scratch: scratch,
    })
}

/// Refuses to write over a source unless the operator typed the name of its host.
///
/// # Errors
/// [`RestoreError::InPlace`] and [`RestoreError::WrongHost`].
pub async fn confirm_target(policy: &Policy, request: &Request, run: &Run) -> Result<(), RestoreError> {
    crate::restore::refuse_source_as_target(policy, request, run).await
}

/// Refuses to change rows unless the set is of this policy and source, and the operator typed the name of the server's host: it is a
/// living one, by whatever name.
///
/// # Errors
/// [`ChangesError::OtherPolicy`], [`ChangesError::Unconfirmed`] and [`RestoreError::WrongHost`].
pub fn confirm_apply(policy: &Policy, request: &Request, server: &Server, about: &About) -> Result<(), PartError> {
    let is_named = request.sources.is_empty() || request.sources.contains(&about.source);
    if about.policy != policy.name || !policy.mysql.contains_key(&about.source) || !is_named {
        let (wanted, of) = (about.policy.clone(), about.source.clone());
        return Err(ChangesError::OtherPolicy { wanted, of }.into());
    }
    crate::restore::guard::confirm(request, server.name(), Some(server)).map_err(|error| match error {
        RestoreError::InPlace(target) => ChangesError::Unconfirmed(target).into(),
        error => error.into(),
    })
}

/// Returns the one database that the tables are of.
fn the_source(policy: &Policy, request: &Request) -> Result<String, RestoreError> {
    let named =
        if request.sources.is_empty() { policy.mysql.keys().cloned().collect() } else { request.sources.clone() };
    match named.as_slice() {
        [] => Err(RestoreError::Nothing(policy.name.clone())),
        [one] => Ok(one.clone()),
        many => Err(RestoreError::ManyDatabases(many.len(), many.join(", "))),
    }
}

async fn choose_dump(
    policy: &Policy,
    repository: &Arc<Repository>,
    snapshots: &[StoredSnapshot],
    source: &str,
    request: &Request,
    asked: &ReplayRequest,
    run: &Run,
) -> Result<Chosen, RestoreError> {
    let wanted = [source.to_owned()];
    let newest = choose::choose(snapshots, &policy.name, &wanted, &request.moment, run.now())?;
    let newest = newest.into_iter().find(|chosen| chosen.kind == "mysql");
    let newest = newest.ok_or_else(|| RestoreError::NoSnapshot { sources: wanted.to_vec(), until: None })?;
    replay::choose(repository, snapshots, newest, &asked.point, None).await
}

/// Refuses what is not in the dump, and names that a replication filter cannot tell apart.
fn check_names(manifest: &Manifest, tables: &[TableName]) -> Result<(), PartError> {
    let dumped: Vec<TableName> =
        manifest.tables.iter().map(|entry| (entry.schema.clone(), entry.name.clone())).collect();
    let missing = names_not_in(tables, &dumped);
    if !missing.is_empty() {
        return Err(PartError::NotDumped { tables: missing, time: manifest.taken_at });
    }
    let cannot_be_told = |(schema, table): &&TableName| [schema, table].iter().any(|name| name.contains(['.', ',']));
    match tables.iter().find(cannot_be_told) {
        Some((schema, table)) => Err(PartError::Name(sql::qualified(schema, table))),
        None => Ok(()),
    }
}

/// Returns the tables that are not among those that there are, for people.
fn names_not_in(tables: &[TableName], there: &[TableName]) -> String {
    let missing = tables.iter().filter(|(schema, table)| !is_in(there, schema, table));
    missing.map(|(schema, table)| format!("`{schema}.{table}`")).collect::<Vec<_>>().join(", ")
}

async fn plan_replay(
    manifest: &Manifest,
    asked: &ReplayRequest,
    fetched: Fetched,
    run: &Run,
) -> Result<(ReplayPlan, Option<Arc<TempDir>>), RestoreError> {
    let start = Start::of(manifest).map_err(Box::new)?;
    let Fetched { run: segments, scratch } = fetched;
    let (point, falls_short, of_thread) = (asked.point.clone(), asked.up_to_gap, run.clone());
    let planned =
        tokio::task::spawn_blocking(move || ReplayPlan::new(&start, &segments, &point, falls_short, &of_thread));
    let plan = planned.await.map_err(|error| RestoreError::Thread(error.to_string()))?.map_err(Box::new)?;
    Ok((plan, scratch))
}

fn followed(manifest: &Manifest, family: &[TableName]) -> scan::Followed {
    let has_key = |(schema, name): &TableName| {
        manifest.tables.iter().any(|table| table.schema == *schema && table.name == *name && !table.key.is_empty())
    };
    let keyless = family.iter().filter(|table| !has_key(table)).cloned().collect();
    scan::Followed { tables: family.to_vec(), keyless, passes_xa: manifest.product == Product::MariaDb }
}

async fn scan_of(plan: &ReplayPlan, followed: scan::Followed, run: &Run) -> Result<Scan, PartError> {
    let (plan, run) = (plan.clone(), run.clone());
    let scanned = tokio::task::spawn_blocking(move || scan::scan(&plan, &followed, &run));
    scanned.await.map_err(|error| RestoreError::Thread(error.to_string()))?
}

/// Plans a server like a drill's that has room for these tables, and follows.
fn sandbox(policy: &Policy, manifest: &Manifest, family: &[TableName], has_gtids: bool) -> SandboxPlan {
    let of_family = Manifest {
        tables: manifest.tables.iter().filter(|table| is_in(family, &table.schema, &table.name)).cloned().collect(),
        ..manifest.clone()
    };
    // Loose: each product and version knows one of the two.
    let options = ["replica", "slave"].map(|name| format!("--loose-{name}-skip-errors={PASSED_OVER}")).to_vec();
    let program = match manifest.product {
        Product::MariaDb => policy.drill.mariadbd.clone(),
        Product::MySql => policy.drill.mysqld.clone(),
    };
    let plan = SandboxPlan::for_dump(&of_family);
    // A copy is dumped beside it.
    let room_bytes = plan.room_bytes.saturating_add(of_family.bytes());
    let has_gtids = has_gtids && manifest.product == Product::MySql;
    SandboxPlan { program, dir: policy.drill.work_dir.clone(), options, room_bytes, has_gtids, ..plan }
}

fn is_in(tables: &[TableName], schema: &str, name: &str) -> bool {
    tables.iter().any(|(s, t)| s == schema && t == name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::policy::{MysqlAddress, Network, Tls};
    use crate::restore::choose::Moment;
    use crate::target::mysql::plan::Names;

    const POLICY: &str = r#"
version = 1
name = "mall"
timezone = "Asia/Seoul"
state_dir = "/var/lib/bkp"
[objectives]
rpo = "24h"
rto = "4h"
[repository]
path = "/backup/mall"
password_file = "/etc/bkp/mall.key"
[mysql.db1]
socket = "/run/mysqld/mysqld.sock"
user = "bkp"
[schedule]
backup = "15 2 * * *"
[retention]
daily = 7
"#;

    fn request(typed: Option<&str>, source: Option<&str>) -> Request {
        Request {
            moment: Moment::Latest,
            replay: None,
            sources: source.map(str::to_owned).into_iter().collect(),
            to_mysql: None,
            to_dir: None,
            tables: Vec::new(),
            names: Names::default(),
            first: Vec::new(),
            paths: Vec::new(),
            overwrite: false,
            in_place: typed.map(|host| vec![host.to_owned()]),
            users: false,
            skip_binlog: false,
            connections: 1,
        }
    }

    /// Applies a set of a policy and source to `db7`, which is no source.
    fn told(policy: &str, source: &str, request: &Request) -> String {
        let text = |text: &str| text.to_owned();
        let (server_name, point, made) = (text("db7"), text("gtid:0-1-2"), text("2026-05-01T03:00:00Z"));
        let about =
            About { policy: text(policy), source: text(source), server_name, point, last: None, of: None, made };
        let address = MysqlAddress::Tcp { host: text("db7"), port: 3306 };
        let (user, tls, network) = (text("admin"), Tls::default(), Network::default());
        let server = Server { address, user, password: None, tls, network };
        let policy = Policy::parse(POLICY, std::path::Path::new("mall.toml")).unwrap();
        confirm_apply(&policy, request, &server, &about)
            .map_or_else(|error| error.to_string(), |()| "applied".to_owned())
    }

    #[test]
    fn rows_are_changed_only_with_consent_and_under_the_names_that_the_set_was_made_for() {
        assert_eq!(told("mall", "db1", &request(Some("db7"), None)), "applied");
        assert_eq!(told("mall", "db1", &request(Some("db7"), Some("db1"))), "applied");
        assert!(told("mall", "db1", &request(None, None)).contains("is not confirmed"));
        assert!(told("mall", "db1", &request(Some("db1"), None)).contains("is not the name of the host"));
        for (policy, source, named) in [("mall2", "db1", None), ("mall", "db2", None), ("mall", "db1", Some("db2"))] {
            let told = told(policy, source, &request(Some("db7"), named));
            assert!(told.contains(&format!("the source `{source}` of the policy `{policy}`")), "{told}");
        }
    }
}
