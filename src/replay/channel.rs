//! The statements of replication, in each product's words: a channel (MySQL) or connection (MariaDB) of our own name, so that one
//! of the operator's is never touched.

use std::net::SocketAddr;

use crate::mysql::manifest::{Position, Product};
use crate::mysql::sql;
use crate::replay::filter::Filter;

const NAME: &str = "bkp";

/// From where the target goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From<'a> {
    /// From what it has executed.
    Executed,
    /// From a place, in a binlog without GTIDs; with `naming`, the target gives the transactions GTIDs of its own.
    Place { place: &'a Position, naming: bool },
}

/// How the target is to speak TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Secure {
    /// Files on the target: the certificate that it shows, and its key.
    pub(super) certificate: Option<(String, String)>,
    /// It can tell by the password whether our certificate is ours.
    pub(super) verifies: bool,
}

impl Secure {
    /// Returns the options of `CHANGE REPLICATION SOURCE TO` or `CHANGE MASTER`, by the prefix of their names.
    fn options(secure: Option<&Self>, prefix: &str) -> String {
        let Some(Self { certificate, verifies }) = secure else {
            return format!("{prefix}_SSL = 0, {prefix}_SSL_VERIFY_SERVER_CERT = 0");
        };
        let mut options = format!("{prefix}_SSL = 1, {prefix}_SSL_VERIFY_SERVER_CERT = {}", u8::from(*verifies));
        if let Some((file, key)) = certificate {
            let (file, key) = (sql::string(file), sql::string(key));
            options.push_str(&format!(", {prefix}_SSL_CERT = {file}, {prefix}_SSL_KEY = {key}"));
        }
        options
    }
}

/// Whom the target follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whom<'a> {
    pub(super) address: SocketAddr,
    pub(super) user: &'a str,
    pub(super) password: &'a str,
    pub(super) secure: Option<&'a Secure>,
}

pub(super) fn change(product: Product, whom: Whom<'_>, from: From<'_>) -> String {
    let host = sql::string(&whom.address.ip().to_string());
    let (port, user, password) = (whom.address.port(), sql::string(whom.user), sql::string(whom.password));
    match product {
        Product::MySql => {
            let from = match from {
                From::Executed => "SOURCE_AUTO_POSITION = 1".to_owned(),
                From::Place { place, naming } => format!(
                    "SOURCE_AUTO_POSITION = 0, SOURCE_LOG_FILE = {}, SOURCE_LOG_POS = {}{}",
                    sql::string(&place.file),
                    place.offset,
                    if naming { ", ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS = LOCAL" } else { "" }
                ),
            };
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = {host}, SOURCE_PORT = {port}, SOURCE_USER = {user}, \
                 SOURCE_PASSWORD = {password}, {}, SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 30, \
                 SOURCE_DELAY = 0, {from} FOR CHANNEL '{NAME}'",
                Secure::options(whom.secure, "SOURCE")
            )
        }
        Product::MariaDb => {
            let from = match from {
                From::Executed => "MASTER_USE_GTID = slave_pos".to_owned(),
                From::Place { place, .. } => format!(
                    "MASTER_USE_GTID = no, MASTER_LOG_FILE = {}, MASTER_LOG_POS = {}",
                    sql::string(&place.file),
                    place.offset
                ),
            };
            format!(
                "CHANGE MASTER '{NAME}' TO MASTER_HOST = {host}, MASTER_PORT = {port}, MASTER_USER = {user}, \
                 MASTER_PASSWORD = {password}, {}, MASTER_CONNECT_RETRY = 1, \
                 MASTER_DELAY = 0, {from}",
                Secure::options(whom.secure, "MASTER")
            )
        }
    }
}

/// Returns the statements by which our channel applies what a filter lets through.
pub(super) fn filter(product: Product, filter: &Filter) -> Vec<String> {
    filter.statements(product, NAME)
}

/// Returns the statements that leave no filter behind, before our channel goes.
pub(super) fn unfilter(product: Product) -> Vec<String> {
    Filter::undo(product, NAME)
}

pub(super) fn start(product: Product) -> String {
    match product {
        Product::MySql => format!("START REPLICA FOR CHANNEL '{NAME}'"),
        Product::MariaDb => format!("START SLAVE '{NAME}'"),
    }
}

/// Starts to receive alone: nothing is applied.
pub(super) fn start_receiving(product: Product) -> String {
    match product {
        Product::MySql => format!("START REPLICA IO_THREAD FOR CHANNEL '{NAME}'"),
        Product::MariaDb => format!("START SLAVE '{NAME}' IO_THREAD"),
    }
}

pub(super) fn stop(product: Product) -> String {
    match product {
        Product::MySql => format!("STOP REPLICA FOR CHANNEL '{NAME}'"),
        Product::MariaDb => format!("STOP SLAVE '{NAME}'"),
    }
}

pub(super) fn forget(product: Product) -> String {
    match product {
        Product::MySql => format!("RESET REPLICA ALL FOR CHANNEL '{NAME}'"),
        Product::MariaDb => format!("RESET SLAVE '{NAME}' ALL"),
    }
}

pub(super) fn status(product: Product) -> &'static str {
    match product {
        Product::MySql => "SHOW REPLICA STATUS",
        Product::MariaDb => "SHOW ALL SLAVES STATUS",
    }
}

/// Tells whether an error says that there is no such channel.
pub(super) fn is_absent(code: u16) -> bool {
    // ER_REPLICA_CHANNEL_DOES_NOT_EXIST, and MariaDB's WARN_NO_MASTER_INFO.
    matches!(code, 3074 | 1617)
}

pub(super) fn is_ours(name: &str) -> bool {
    name == NAME
}
