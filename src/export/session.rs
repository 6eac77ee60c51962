//! The settings under which exported rows come back as they were, as statements at the head of each file.

use crate::mysql::manifest::{Manifest, Product};
use crate::mysql::product;

/// Zero dates, days that no month has and an `AUTO_INCREMENT` of 0 come back.
pub(super) const SQL_MODE: &str = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES";

/// Returns what a file says of itself.
pub(super) fn comment(manifest: &Manifest, label: &str) -> String {
    let position = manifest
        .position
        .as_ref()
        .map_or_else(|| "unknown".to_owned(), |position| format!("{}:{}", position.file, position.offset));
    format!(
        "-- bkp {}: {label}, true of {} (UTC)\n-- {} {}; binlog position {position}; GTID set {}\n",
        env!("CARGO_PKG_VERSION"),
        manifest.taken_at.format("%Y-%m-%d %H:%M:%S"),
        product::name(manifest.product),
        manifest.version.replace('\n', " "),
        manifest.gtid.as_deref().unwrap_or("unknown").replace('\n', ""),
    )
}

/// Returns the settings that both products know, in the comments by which `myloader` tells settings from other statements.
pub(super) fn common() -> String {
    format!(
        "/*!40101 SET NAMES utf8mb4 */;\n\
         /*!40014 SET FOREIGN_KEY_CHECKS=0 */;\n\
         /*!40014 SET UNIQUE_CHECKS=0 */;\n\
         /*!40101 SET SQL_MODE='{SQL_MODE}' */;\n\
         /*!40103 SET TIME_ZONE='+00:00' */;\n"
    )
}

/// Returns those under which a table is made as it was, and not as the target's rules would have it: with a column more, or not at
/// all. Each is for versions that know it.
pub(super) fn of_tables(product: Product) -> &'static str {
    match product {
        Product::MariaDb => "",
        Product::MySql => {
            "/*!80013 SET SESSION sql_require_primary_key=0 */;\n\
             /*!80030 SET SESSION sql_generate_invisible_primary_key=0 */;\n"
        }
    }
}

/// Returns those that MariaDB needs beside: rows may break a CHECK, and the history of rows comes with its own times. Each is for
/// versions that know it.
pub(super) fn of_rows(product: Product) -> &'static str {
    match product {
        Product::MariaDb => {
            "/*M!100201 SET SESSION check_constraint_checks=0 */;\n\
             /*M!101101 SET SESSION system_versioning_insert_history=1 */;\n"
        }
        Product::MySql => "",
    }
}
