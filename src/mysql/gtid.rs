//! Names of transactions, and sets of them: what a server has executed, in the words of its product. Pure.
//!
//! The two products agree on the abbreviation and on little else. MySQL counts transactions for each origin (a server's UUID,
//! from 8.3 on with a tag), and a set is intervals of numbers. MariaDB counts within a domain, whose order is one: what was executed
//! is told by the last number of each server in it, and where to go on by the last GTID of each domain alone.

use std::fmt;

use crate::mysql::manifest::Product;

mod intervals;
mod mariadb;
mod mysql;

pub use intervals::Intervals;
pub use mariadb::{BinlogState, MariaDbGtid, Position};
pub(crate) use mysql::NUMBER_END;
pub use mysql::{GtidSet, MySqlGtid, Tsid, Uuid};

/// A text that is no GTID, or no set of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {wanted}")]
pub struct GtidError {
    text: String,
    wanted: &'static str,
}

impl GtidError {
    fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.to_owned(), wanted }
    }
}

/// The name of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gtid {
    MySql(MySqlGtid),
    MariaDb(MariaDbGtid),
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(gtid) => gtid.fmt(f),
            Self::MariaDb(gtid) => gtid.fmt(f),
        }
    }
}

impl std::str::FromStr for Gtid {
    type Err = GtidError;

    /// Parses the name in either product's form: they cannot be mistaken for one another.
    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mysql = text.parse().map(Self::MySql);
        mysql.or_else(|_| text.parse().map(Self::MariaDb)).map_err(|_| {
            GtidError::new(
                text,
                "GTID: MySQL's are written `uuid:number` or `uuid:tag:number`, MariaDB's `domain-server-sequence`",
            )
        })
    }
}

/// What a server has executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Executed {
    MySql(GtidSet),
    MariaDb(BinlogState),
}

impl Executed {
    #[must_use]
    pub fn new(product: Product) -> Self {
        match product {
            Product::MySql => Self::MySql(GtidSet::default()),
            Product::MariaDb => Self::MariaDb(BinlogState::default()),
        }
    }

    /// Parses what `@@gtid_executed` or `@@gtid_binlog_state` returns.
    pub fn parse(product: Product, text: &str) -> Result<Self, GtidError> {
        match product {
            Product::MySql => text.parse().map(Self::MySql),
            Product::MariaDb => text.parse().map(Self::MariaDb),
        }
    }

    #[must_use]
    pub fn product(&self) -> Product {
        match self {
            Self::MySql(_) => Product::MySql,
            Self::MariaDb(_) => Product::MariaDb,
        }
    }

    /// Adds a transaction. One of the other product changes nothing.
    pub fn add(&mut self, gtid: &Gtid) {
        match (self, gtid) {
            (Self::MySql(set), Gtid::MySql(gtid)) => set.add(gtid),
            (Self::MariaDb(state), Gtid::MariaDb(gtid)) => state.add(*gtid),
            _ => {}
        }
    }

    /// Adds all that another holds, as what came last. One of the other product changes nothing.
    pub fn add_all(&mut self, other: &Self) {
        match (self, other) {
            (Self::MySql(set), Self::MySql(other)) => *set = set.union(other),
            (Self::MariaDb(state), Self::MariaDb(other)) => other.iter().for_each(|gtid| state.add(gtid)),
            _ => {}
        }
    }

    #[must_use]
    pub fn contains(&self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (Self::MySql(set), Gtid::MySql(gtid)) => set.contains(gtid),
            (Self::MariaDb(state), Gtid::MariaDb(gtid)) => state.contains(*gtid),
            _ => false,
        }
    }

    /// Tells whether every transaction of this is in the other, too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySql(own), Self::MySql(other)) => own.is_subset(other),
            (Self::MariaDb(own), Self::MariaDb(other)) => own.is_subset(other),
            _ => self.is_empty(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::MySql(set) => set.is_empty(),
            Self::MariaDb(state) => state.is_empty(),
        }
    }
}

impl fmt::Display for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(set) => set.fmt(f),
            Self::MariaDb(state) => state.fmt(f),
        }
    }
}

/// Writes a value as its text and reads it back.
macro_rules! serde_as_text {
    ($($name:ty),+) => { $(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+ };
}
serde_as_text!(Gtid, GtidSet, BinlogState, Position);

#[cfg(test)]
#[allow(clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]
mod tests;
