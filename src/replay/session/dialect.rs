//! What a session of the target understands, and may.

use std::collections::BTreeMap;

use mysql_async::Conn;
use mysql_async::prelude::{FromValue, Queryable};

use crate::mysql::manifest::Product;
use crate::replay::ReplayError;
use crate::replay::plan::ReplayPlan;

/// What a statement takes beside its text, with much room.
const PACKET_BYTES_SPARE: usize = 4096;

#[derive(Debug, Clone)]
pub(super) struct Dialect {
    pub(super) product: Product,
    /// Its transactions are given the GTIDs that they had.
    pub(super) names: bool,
    /// A MariaDB's domain and number, for what is no transaction of the source.
    pub(super) own: (u32, u32),
    /// Nothing of the session goes to the target's binlog.
    pub(super) is_hidden: bool,
    /// The session may keep things out of the target's binlog.
    pub(super) may_hide: bool,
    /// The longest text that a statement may have.
    pub(super) text_bytes_max: usize,
    pub(super) has_if_exists: bool,
    pub(super) has_explicit_timestamp: bool,
    /// Whether new schemas are encrypted, where the account may not say otherwise.
    pub(super) encrypts: Option<bool>,
    /// Character sets and collations by their numbers.
    pub(super) collations: BTreeMap<u32, (String, String)>,
}

impl Dialect {
    /// Asks a session that is to replay.
    pub(super) async fn ask(conn: &mut Conn, plan: &ReplayPlan) -> Result<Self, ReplayError> {
        let product = plan.feed.product;
        let packet: u64 = value(conn, "@@session.max_allowed_packet").await?;
        let own = match product {
            Product::MySql => (0, 0),
            Product::MariaDb => {
                (value(conn, "@@session.gtid_domain_id").await?, value(conn, "@@session.server_id").await?)
            }
        };
        let is_logged: bool = value(conn, "@@global.log_bin AND @@session.sql_log_bin").await?;
        let is_mariadb = product == Product::MariaDb;
        let has_if_exists = is_mariadb && may_set(conn, "sql_if_exists").await;
        let has_explicit_timestamp = is_mariadb && may_set(conn, "explicit_defaults_for_timestamp").await;
        let encryption = "default_table_encryption";
        let encrypts = if is_mariadb || may_set(conn, encryption).await {
            None
        } else {
            // A version that has no such variable encrypts none.
            Some(value(conn, "@@session.default_table_encryption").await.unwrap_or(false))
        };
        let may_hide = may_set(conn, "sql_log_bin").await;
        Ok(Self {
            product,
            names: plan.has_gtids,
            own,
            is_hidden: !is_logged,
            may_hide,
            text_bytes_max: usize::try_from(packet).unwrap_or(usize::MAX).saturating_sub(PACKET_BYTES_SPARE),
            has_if_exists,
            has_explicit_timestamp,
            encrypts,
            collations: collations(conn, product).await?,
        })
    }

    /// Returns what makes a session one that only what is sent determines. Variables that a version lacks it does without.
    pub(super) fn first(&self) -> &'static [&'static str] {
        match self.product {
            Product::MySql => &[
                // It applies what others wrote: tables come without keys of the server's own, and XA as it was.
                "SET @@session.pseudo_replica_mode = ON",
                "SET @@session.sql_generate_invisible_primary_key = OFF",
                "SET @@session.sql_safe_updates = 0, @@session.max_execution_time = 0",
            ],
            Product::MariaDb => &["SET @@session.sql_safe_updates = 0, @@session.max_statement_time = 0"],
        }
    }

    /// Tells whether GTIDs tell how far the target is; else a row does.
    pub(super) fn goes_by_names(&self) -> bool {
        self.product == Product::MySql && self.names
    }

    /// Returns the character set and the name of a collation.
    pub(super) fn collation(&self, number: u32) -> Result<&(String, String), String> {
        self.collations.get(&number).ok_or_else(|| format!("names collation {number}, which the target has not"))
    }

    /// One for tests, which knows one collation.
    #[cfg(any(test, fuzzing))]
    pub(super) fn plain(product: Product) -> Self {
        let unicode = ("utf8mb4".to_owned(), "utf8mb4_unicode_ci".to_owned());
        Self {
            product,
            names: true,
            own: (0, 99),
            is_hidden: false,
            may_hide: true,
            text_bytes_max: 1 << 20,
            has_if_exists: false,
            has_explicit_timestamp: false,
            encrypts: None,
            collations: BTreeMap::from([(224, unicode)]),
        }
    }
}

/// Tells whether the session has a variable and may set it.
async fn may_set(conn: &mut Conn, name: &str) -> bool {
    conn.query_drop(format!("SET SESSION {name} = @@session.{name}")).await.is_ok()
}

async fn value<T: FromValue + Send + 'static>(conn: &mut Conn, name: &str) -> Result<T, ReplayError> {
    let act = || ReplayError::at(format!("ask the target for `{name}`"));
    let told: Option<T> = conn.query_first(format!("SELECT {name}")).await.map_err(act())?;
    told.ok_or_else(|| ReplayError::Thread(format!("the target does not tell `{name}`")))
}

async fn collations(conn: &mut Conn, product: Product) -> Result<BTreeMap<u32, (String, String)>, ReplayError> {
    let plain = "SELECT id, character_set_name, collation_name FROM information_schema.collations WHERE id IS NOT NULL";
    // A MariaDB from 10.10 on has collations of several character sets, with a number for each of these.
    let full = "SELECT id, character_set_name, full_collation_name FROM information_schema.collation_character_set_applicability \
        WHERE id IS NOT NULL";
    let of_each: Option<Vec<(u32, String, String)>> = match product {
        Product::MariaDb => conn.query(full).await.ok(),
        Product::MySql => None,
    };
    let rows = match of_each {
        Some(rows) => rows,
        None => conn.query(plain).await.map_err(ReplayError::at("list the target's collations"))?,
    };
    Ok(rows.into_iter().map(|(id, charset, collation)| (id, (charset, collation))).collect())
}
