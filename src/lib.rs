//! `bkp` backs up MySQL/MariaDB servers and image trees, and proves that they come back.
//!
//! The modules below stand in the order in which data passes. A module uses only modules declared above it;
//! `tests/it/layers.rs` proves it.
//!
//! ```text
//! id human secret clock pace event run entry  ground: no policy, no I/O of their own but a secret's file
//! schedule policy net                 intent: TOML -> values that hold together; cron text -> next, missed
//! mysql find source                   where data comes from; knows no store and no repository
//! chunk seal                          bytes -> chunks -> sealed blobs
//! store repository place              what is kept, in restic's format, version 2; the stores that a policy names
//! target replay sandbox               where a restore writes, and binlogs after it; a server that is thrown away
//! verify backup capture copy heal retention forget keys prune restore standby export drill against the verbs, no printing
//! catalog status report kit doctor    account
//! install exit cycle daemon cli       edge: what is due, what never ends, and the envelope round every verb
//! ```

pub mod id;
pub mod human;
pub mod secret;
pub mod clock;
pub mod pace;
pub mod event;
pub mod run;
pub mod entry;

pub mod schedule;
pub mod policy;

pub mod net;

pub mod mysql;
pub mod find;
pub mod source;

pub mod chunk;
pub mod seal;

pub mod store;
pub mod repository;
pub mod place;

pub mod target;
pub mod replay;
pub mod sandbox;

pub mod verify;
pub mod backup;
pub mod capture;
pub mod copy;
pub mod heal;
pub mod retention;
pub mod forget;
pub mod keys;
pub mod prune;
pub mod restore;
pub mod standby;
pub mod export;
pub mod drill;
pub mod against;

pub mod catalog;
pub mod status;
pub mod report;
pub mod kit;
pub mod doctor;

pub mod install;
pub mod exit;
pub mod cycle;
pub mod daemon;
pub mod cli;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
