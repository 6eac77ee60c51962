//! One binary for all tests that go through more than one module.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod blind;
mod cache;
mod catalog;
mod cli;
mod copy;
mod crash;
mod cycle;
mod damage;
mod dump;
mod export;
mod faults;
mod files;
mod heal;
mod immutable;
mod keys;
mod kit;
mod layers;
mod load;
mod mall;
mod network;
mod operator;
mod outage;
mod policies;
mod prune;
mod report;
mod repository;
mod restic;
mod retention;
mod s3;
mod sandbox;
mod schedule;
mod servers;
mod stores;
mod world;
mod wrapper;
