//! The mall's tables and objects.

use crate::server::ServerArgs;
use crate::server::quoted;
use crate::shape::Shape;
use anyhow::Context as _;
use mysql_async::Conn;
use mysql_async::params;
use mysql_async::prelude::Queryable as _;

const SCHEMA: &str = include_str!("schema.sql");

/// A table that the generator writes rows to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Shops,
    Customers,
    Products,
    ProductImages,
    Orders,
    OrderItems,
    Payments,
    PageViews,
}

impl Table {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shops => "shops",
            Self::Customers => "customers",
            Self::Products => "products",
            Self::ProductImages => "product_images",
            Self::Orders => "orders",
            Self::OrderItems => "order_items",
            Self::Payments => "payments",
            Self::PageViews => "page_views",
        }
    }

    /// Returns the columns that a row names, in its order: all but the generated ones.
    pub(crate) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Shops => {
                &["shop_id", "name", "domain", "plan", "fee_rate", "settings", "logo", "opened_on", "created_at"]
            }
            Self::Customers => &[
                "shop_id",
                "id",
                "email",
                "name",
                "phone",
                "birthday",
                "address",
                "legacy_name",
                "grade",
                "points",
                "consents",
                "active",
                "profile",
                "joined_at",
            ],
            Self::Products => &[
                "shop_id",
                "id",
                "sku",
                "name",
                "description",
                "price",
                "cost",
                "stock",
                "weight_kg",
                "rating",
                "attributes",
                "thumbnail",
                "state",
                "updated_at",
            ],
            Self::ProductImages => &["shop_id", "id", "product_id", "path", "bytes", "sha256", "alt", "uploaded_at"],
            Self::Orders => &[
                "shop_id",
                "id",
                "number",
                "customer_id",
                "state",
                "total",
                "shipping",
                "note",
                "promised_in",
                "ordered_at",
                "updated_at",
            ],
            Self::OrderItems => &["shop_id", "id", "order_id", "product_id", "quantity", "price", "options"],
            Self::Payments => &[
                "shop_id",
                "id",
                "order_id",
                "method",
                "amount",
                "fee",
                "receipt",
                "gateway",
                "fiscal_year",
                "approved_at",
            ],
            Self::PageViews => &["shop_id", "path", "visitor", "milliseconds", "seen_at"],
        }
    }

    /// Returns the columns whose values are bytes, which travel as hexadecimal digits.
    pub(crate) fn binary_columns(self) -> &'static [&'static str] {
        match self {
            Self::Shops => &["logo"],
            Self::Customers => &["active"],
            Self::Products => &["thumbnail"],
            Self::ProductImages => &["sha256"],
            Self::Payments => &["receipt"],
            Self::PageViews => &["visitor"],
            Self::Orders | Self::OrderItems => &[],
        }
    }
}

/// Creates the schema with all its objects and notes the shape in it.
pub(crate) async fn create(server: &ServerArgs, shape: &Shape, replace: bool) -> anyhow::Result<()> {
    let mut conn = server.connect_outside().await?;
    let name = quoted(&server.schema);
    if replace {
        let drop = format!("DROP DATABASE IF EXISTS {name}");
        conn.query_drop(drop).await.context("drop the schema")?;
    }
    let create = format!("CREATE DATABASE {name} CHARACTER SET utf8mb4");
    conn.query_drop(create).await.context("create the schema (--replace drops the one that is there)")?;
    conn.query_drop(format!("USE {name}")).await?;
    // The statements travel at once; the last result tells that all of them went through.
    conn.query_iter(SCHEMA).await.context("create the tables")?.drop_result().await.context("create the tables")?;
    note(&mut conn, "shape", &serde_json::to_string(shape)?).await?;
    note(&mut conn, "round", "0").await
}

pub(crate) async fn shape_of(conn: &mut Conn) -> anyhow::Result<Shape> {
    let text = noted(conn, "shape").await?;
    serde_json::from_str(&text).context("parse the mall's shape")
}

pub(crate) async fn noted(conn: &mut Conn, name: &str) -> anyhow::Result<String> {
    let value: Option<String> = conn.exec_first("SELECT value FROM mall_meta WHERE name = ?", (name,)).await?;
    value.with_context(|| format!("the schema has no `{name}` in mall_meta: fill it first"))
}

pub(crate) async fn note(conn: &mut Conn, name: &str, value: &str) -> anyhow::Result<()> {
    let sql = "REPLACE INTO mall_meta (name, value) VALUES (:name, :value)";
    conn.exec_drop(sql, params! { "name" => name, "value" => value }).await?;
    Ok(())
}
