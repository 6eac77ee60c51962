//! SQL modes: which of them a target knows, and what stands there for one of the other product.

use crate::mysql::manifest::Product;
use crate::target::mysql::dialect::{Dialect, Edition, SET_MODE};

/// Modes that MySQL does not know, or no longer.
const MODES_OF_MARIADB: [&str; 13] = [
    "NO_AUTO_CREATE_USER",
    "NO_FIELD_OPTIONS",
    "NO_KEY_OPTIONS",
    "NO_TABLE_OPTIONS",
    "MYSQL323",
    "MYSQL40",
    "ORACLE",
    "MSSQL",
    "DB2",
    "MAXDB",
    "POSTGRESQL",
    "EMPTY_STRING_IS_NULL",
    "SIMULTANEOUS_ASSIGNMENT",
];

/// Those of them without which code does something else.
const TELLING: [&str; 3] = ["ORACLE", "EMPTY_STRING_IS_NULL", "SIMULTANEOUS_ASSIGNMENT"];

/// MariaDB cuts fractions of a second off where it is not told to round them.
const ROUNDS: &str = "TIME_ROUND_FRACTIONAL";
/// MySQL rounds them where it is not told to cut them off.
const CUTS: &str = "TIME_TRUNCATE_FRACTIONAL";

impl Edition {
    fn knows_fractions(self) -> bool {
        match self.product {
            Product::MariaDb => self.series >= (10, 4),
            Product::MySql => self.series >= (8, 0),
        }
    }
}

/// Returns modes as another server says them; fractions of a second become what they became.
pub(in crate::target::mysql) fn carried(modes: &str, from: Edition, to: Edition) -> String {
    let has = |mode: &str| modes.split(',').any(|other| other == mode);
    let rounds = match from.product {
        Product::MariaDb => has(ROUNDS),
        Product::MySql => !has(CUTS),
    };
    let fractions = match to.product {
        Product::MariaDb => rounds.then_some(ROUNDS),
        Product::MySql => (!rounds).then_some(CUTS),
    };
    let is_known = |mode: &&str| to.product == Product::MariaDb || !MODES_OF_MARIADB.contains(mode);
    let kept = modes.split(',').filter(|mode| !mode.is_empty() && *mode != ROUNDS && *mode != CUTS).filter(is_known);
    kept.chain(fractions.filter(|_| to.knows_fractions())).collect::<Vec<_>>().join(",")
}

impl Dialect {
    /// Returns the modes of a statement that the target lacks and without which the code after it does something else.
    pub(in crate::target::mysql) fn lost_modes<'a>(&self, statement: &'a str) -> Vec<&'a str> {
        let modes = statement.strip_prefix(SET_MODE).and_then(|rest| rest.strip_suffix('\''));
        let modes = modes.filter(|_| self.to.product == Product::MySql).unwrap_or_default();
        modes.split(',').filter(|mode| TELLING.contains(mode)).collect()
    }
}
