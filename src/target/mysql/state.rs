//! What the target server is and holds, as far as a load must know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio_util::sync::CancellationToken;

use crate::mysql::manifest::Product;
use crate::mysql::product;
use crate::mysql::server::Server;
use crate::target::mysql::abilities;
use crate::target::mysql::account;
use crate::target::mysql::dialect::Abilities;
use crate::target::mysql::plan::series;
use crate::target::mysql::progress;
use crate::target::mysql::progress::Progress;
use crate::target::mysql::session;
use crate::target::mysql::session::Session;
use crate::target::mysql::{LoadError, until_stopped};

/// A thing that a dump might want to create anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Holding {
    Table,
    View,
    Sequence,
    Function,
    Procedure,
    Package,
    Event,
}

impl Holding {
    /// Returns the word that `DROP` takes.
    #[must_use]
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Table => "TABLE",
            Self::View => "VIEW",
            Self::Sequence => "SEQUENCE",
            Self::Function => "FUNCTION",
            Self::Procedure => "PROCEDURE",
            Self::Package => "PACKAGE",
            Self::Event => "EVENT",
        }
    }
}

/// The target as it was found.
#[derive(Debug, Clone)]
pub struct TargetState {
    pub product: Product,
    /// As `SELECT VERSION()` says.
    pub version: String,
    /// MySQL's own name for itself.
    pub server_uuid: Option<String>,
    /// The server takes `LOAD DATA LOCAL`.
    pub local_infile: bool,
    /// Other than 0: names of schemas and tables are compared without regard to case.
    pub lower_case_table_names: u8,
    pub event_scheduler: bool,
    pub schemas: BTreeSet<String>,
    /// Everything in them, by schema and name.
    pub holdings: BTreeSet<(String, String, Holding)>,
    /// Users and roles as `user@host` and `role`; empty where we may not look.
    pub accounts: BTreeSet<String>,
    /// What it can hold.
    pub abilities: Abilities,
    /// What an unfinished load has left.
    pub progress: Option<Progress>,
    /// The settings that a loading connection is given here.
    pub session: Session,
}

/// Schemas that belong to the server (and ours).
const OWN_SCHEMAS: [&str; 6] =
    ["mysql", "information_schema", "performance_schema", "sys", progress::SCHEMA, "bkp_standby"];

/// Tells whether a schema belongs to the server (or us), in whatever case it is written.
pub(super) fn is_own(schema: &str) -> bool {
    OWN_SCHEMAS.iter().any(|own| own.eq_ignore_ascii_case(schema))
}

/// A server with many thousand tables needs minutes to list them; one that takes longer hangs.
const LOOK_MAX: Duration = Duration::from_mins(10);

/// Looks at a target; changes nothing.
pub async fn inspect(server: &Server, cancel: &CancellationToken) -> Result<TargetState, LoadError> {
    let looked = tokio::time::timeout(LOOK_MAX, async {
        let mut conn = server.connect().await?;
        let state = look(&mut conn).await;
        conn.disconnect().await.ok();
        state
    });
    let silent = || LoadError::NoAnswer { act: "look at the target".to_owned(), seconds: LOOK_MAX.as_secs() };
    until_stopped(cancel, async { looked.await.unwrap_or_else(|_| Err(silent())) }).await
}

async fn look(conn: &mut Conn) -> Result<TargetState, LoadError> {
    let (version, variables) = (version(conn).await?, variables(conn).await?);
    let is_on = |name: &str| matches!(variables.get(name).map(String::as_str), Some("ON" | "1"));
    let number = |name: &str| variables.get(name).and_then(|value| value.parse().ok());
    let product = product(conn).await?;
    Ok(TargetState {
        product,
        abilities: abilities::ask(conn, product, series(&version)).await?,
        version,
        server_uuid: variables.get("server_uuid").cloned(),
        local_infile: is_on("local_infile"),
        lower_case_table_names: number("lower_case_table_names").unwrap_or(0),
        event_scheduler: is_on("event_scheduler"),
        schemas: schemas(conn).await?,
        holdings: holdings(conn).await?,
        accounts: accounts(conn, product).await,
        progress: progress::read(conn).await?,
        session: session::probe(conn, product, &variables).await?,
    })
}

async fn product(conn: &mut Conn) -> Result<Product, LoadError> {
    let told: Vec<(String, String)> =
        conn.query(product::PROBE).await.map_err(LoadError::at("ask the target which product it is"))?;
    Ok(product::told_by(told.len()))
}

async fn version(conn: &mut Conn) -> Result<String, LoadError> {
    let version: Option<String> =
        conn.query_first("SELECT VERSION()").await.map_err(LoadError::at("ask the target for its version"))?;
    Ok(version.unwrap_or_default())
}

async fn variables(conn: &mut Conn) -> Result<BTreeMap<String, String>, LoadError> {
    let rows: Vec<(String, String)> =
        conn.query("SHOW SESSION VARIABLES").await.map_err(LoadError::at("ask the target for its variables"))?;
    Ok(rows.into_iter().collect())
}

async fn schemas(conn: &mut Conn) -> Result<BTreeSet<String>, LoadError> {
    let names: Vec<String> = conn.query("SHOW DATABASES").await.map_err(LoadError::at("list the target's schemas"))?;
    Ok(names.into_iter().filter(|name| !OWN_SCHEMAS.contains(&name.as_str())).collect())
}

async fn holdings(conn: &mut Conn) -> Result<BTreeSet<(String, String, Holding)>, LoadError> {
    let act = "list what the target holds";
    let statement = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
        UNION ALL SELECT routine_schema, routine_name, routine_type FROM information_schema.routines \
        UNION ALL SELECT event_schema, event_name, 'EVENT' FROM information_schema.events";
    let rows: Vec<(String, String, String)> = conn.query(statement).await.map_err(LoadError::at(act))?;
    let known = rows
        .into_iter()
        .filter(|(schema, _, _)| !OWN_SCHEMAS.contains(&schema.as_str()))
        .filter_map(|(schema, name, kind)| Some((schema, name, holding(&kind)?)));
    Ok(known.collect())
}

fn holding(kind: &str) -> Option<Holding> {
    match kind {
        "BASE TABLE" | "SYSTEM VERSIONED" => Some(Holding::Table),
        "VIEW" => Some(Holding::View),
        "SEQUENCE" => Some(Holding::Sequence),
        "FUNCTION" => Some(Holding::Function),
        "PROCEDURE" => Some(Holding::Procedure),
        "PACKAGE" => Some(Holding::Package),
        "EVENT" => Some(Holding::Event),
        _ => None,
    }
}

/// Lists accounts. Without the right to look it returns none: creating one that exists then fails by itself and is reported.
async fn accounts(conn: &mut Conn, product: Product) -> BTreeSet<String> {
    let statement = match product {
        Product::MariaDb => "SELECT user, host, is_role = 'Y' FROM mysql.user",
        Product::MySql => "SELECT user, host, 0 FROM mysql.user",
    };
    let rows: Vec<(String, String, bool)> = conn.query(statement).await.unwrap_or_default();
    rows.into_iter().map(|(user, host, is_role)| if is_role { user } else { account::join(&user, &host) }).collect()
}
