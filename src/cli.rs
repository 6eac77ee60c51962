//! TBD

pub mod progress;
pub mod table;
