//! `bkp` backs up MySQL/MariaDB servers and image trees, and proves that they come back.
//!
//! The modules below stand in the order in which data passes. A module uses only modules declared above it;
//! `tests/it/layers.rs` proves it.
//!
//! ```text
//! id secret clock event run entry     ground: no policy, no I/O of their own but a secret's file
//! policy schedule net                 intent: TOML -> values that hold together; cron text -> next, missed
//! mysql source                        where data comes from; knows no store and no repository
//! chunk seal                          bytes -> chunks -> sealed blobs
//! store repository                    what is kept, in restic's format, version 2
//! target sandbox                      where a restore writes; a server that is thrown away
//! backup copy verify forget restore drill      the verbs: storyboards, no printing
//! catalog status report doctor        account
//! cycle install exit cli              edge: what is due, and the envelope round every verb
//! ```

pub mod clock;
pub mod entry;
pub mod event;
pub mod id;
pub mod run;
pub mod secret;

pub mod net;
pub mod policy;
pub mod schedule;

pub mod mysql;
pub mod source;

pub mod chunk;
pub mod seal;

pub mod store;

pub mod repository;

pub mod sandbox;
pub mod target;

pub mod backup;
pub mod copy;
pub mod drill;
pub mod forget;
pub mod restore;
pub mod retention;
pub mod verify;

pub mod catalog;
pub mod doctor;
pub mod report;
pub mod status;

pub mod cli;
pub mod cycle;
pub mod exit;
pub mod install;
