//! Where data comes from. A source knows no store and no repository.

pub mod files;
