//! The protocol and the vocabulary of MySQL and MariaDB.
//!
//! Two clients stand here. [`server::Server::connect`] gives `mysql_async`'s connection, for control, metadata and loading.
//! [`wire`] is a small blocking reader of our own, for the rows of a dump: it hands each row over as the bytes of its packet,
//! and [`row`] turns them into `LOAD DATA` text without a value in between, which costs a half to a tenth of the processor time.

pub mod binlog;
pub mod gtid;
pub mod manifest;
pub mod product;
pub mod row;
pub mod server;
pub mod sql;
pub mod tls;
pub mod wire;
