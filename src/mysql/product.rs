//! Which of the two products a server is, told by what it can do.

use crate::mysql::manifest::Product;

/// A statement whose rows tell the product: version numbers and comments lie (calendar versions, renamed packages), a
/// variable that only one product has does not.
pub const PROBE: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('gtid_binlog_state', 'aria_block_size')";

/// Tells the product from the number of rows that [`PROBE`] returned.
#[must_use]
pub fn told_by(probe_rows: usize) -> Product {
    if probe_rows == 0 { Product::MySql } else { Product::MariaDb }
}

/// Returns the product's name for people.
#[must_use]
pub fn name(product: Product) -> &'static str {
    match product {
        Product::MySql => "MySQL",
        Product::MariaDb => "MariaDB",
    }
}
