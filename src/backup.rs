//! TBD

pub mod files;
