//! Asks a target which collations, engines, types and time zones it has.

use std::collections::BTreeSet;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::manifest::Product;
use crate::target::mysql::LoadError;
use crate::target::mysql::dialect::Abilities;

pub(super) async fn ask(conn: &mut Conn, product: Product, series: (u32, u32)) -> Result<Abilities, LoadError> {
    Ok(Abilities {
        collations: collations(conn).await?,
        engines: engines(conn).await?,
        types: types(conn, product, series).await?,
        zones: zones(conn).await,
    })
}

/// MariaDB has collations that go with several character sets, and lists their full names apart.
async fn collations(conn: &mut Conn) -> Result<BTreeSet<String>, LoadError> {
    let full = "SELECT FULL_COLLATION_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY";
    if let Ok(names) = conn.query::<String, _>(full).await {
        return Ok(names.into_iter().collect());
    }
    list(conn, "SELECT COLLATION_NAME FROM information_schema.COLLATIONS", "list the target's collations").await
}

async fn engines(conn: &mut Conn) -> Result<BTreeSet<String>, LoadError> {
    let asked = "SELECT LOWER(ENGINE) FROM information_schema.ENGINES WHERE SUPPORT IN ('YES', 'DEFAULT')";
    list(conn, asked, "list the target's engines").await
}

/// MySQL has vectors since 9.0, MariaDB since 11.7; MariaDB lists its other types.
async fn types(conn: &mut Conn, product: Product, series: (u32, u32)) -> Result<BTreeSet<String>, LoadError> {
    let (mut types, vectors_since) = match product {
        Product::MySql => (BTreeSet::new(), (9, 0)),
        Product::MariaDb => {
            let asked = "SELECT LOWER(PLUGIN_NAME) FROM information_schema.PLUGINS WHERE PLUGIN_TYPE = 'DATA TYPE' AND PLUGIN_STATUS = 'ACTIVE'";
            (list(conn, asked, "list the target's types").await?, (11, 7))
        }
    };
    types.extend((series >= vectors_since).then(|| "vector".to_owned()));
    Ok(types)
}

async fn zones(conn: &mut Conn) -> Option<BTreeSet<String>> {
    let names: Vec<String> = conn.query("SELECT LOWER(Name) FROM mysql.time_zone_name").await.ok()?;
    Some(names.into_iter().collect())
}

async fn list(conn: &mut Conn, asked: &str, act: &str) -> Result<BTreeSet<String>, LoadError> {
    let names: Vec<String> = conn.query(asked).await.map_err(LoadError::at(act))?;
    Ok(names.into_iter().collect())
}
