//! Where a restore writes.

pub mod files;
pub mod mysql;
