//! One binary for all tests that go through more than one module.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod catalog;
mod damage;
mod layers;
mod repository;
mod restic;
mod servers;
mod stores;
