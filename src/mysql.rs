//! The protocol and the vocabulary of MySQL and MariaDB.

pub mod manifest;
