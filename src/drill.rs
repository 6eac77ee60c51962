//! TBD

pub mod outcome;
