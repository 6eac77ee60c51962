//! Where a restore writes.

pub mod mysql;
