//! The parsers of what other programs send, beside those of stored bytes in [`crate::repository::fuzz`], for the fuzz targets in
//! `tests/fuzz`. No bytes of a server, of a replica or of a binlog make these parsers panic or take memory out of
//! proportion.

use crate::mysql::wire::fuzz as wire;
use crate::replay::fuzz as replay;
use crate::repository::fuzz::Parser;
use crate::target::mysql::fuzz as target;

/// All of them.
pub const PARSERS: &[Parser] =
    &[("definition", definition), ("replica", replica), ("server", server), ("session", session)];

/// A definition that another server is to take.
pub fn definition(bytes: &[u8]) {
    let _ = target::definition(bytes);
}

/// What a replica sends to the port where bkp serves segments.
pub fn replica(bytes: &[u8]) {
    let _ = replay::replica(bytes);
}

/// What a server sends to a dump, a capture or whoever else asks it.
pub fn server(bytes: &[u8]) {
    let _ = wire::server(bytes);
}

/// A binlog's events as one session is told them.
pub fn session(bytes: &[u8]) {
    let _ = replay::session(bytes);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::repository::fuzz::{self, corpus};

    #[test]
    fn every_input_of_the_corpus_is_read_without_harm() {
        for (name, parser) in PARSERS.iter().chain(fuzz::PARSERS) {
            let inputs = corpus(name);
            assert!(!inputs.is_empty(), "{name} has no corpus");
            for bytes in &inputs {
                parser(bytes);
            }
        }
    }

    /// A target that nothing gets through proves nothing.
    #[test]
    fn each_corpus_holds_what_its_parser_accepts() {
        let is_accepted = |name, first: u8, accepts: &dyn Fn(&[u8]) -> bool| {
            let inputs = corpus(name);
            let mut inputs = inputs.iter().filter(|bytes| bytes.first().map(|byte| byte & 0x7F) == Some(first));
            assert!(inputs.any(|bytes| accepts(bytes)), "{name}, {first}: all is refused");
        };
        // Two ways to log in, rows of both kinds, an answer, and a binlog.
        for act in 0..6 {
            is_accepted("server", act, &|bytes| wire::server(bytes) > 0);
        }
        for product in 0..2 {
            is_accepted("session", product, &|bytes| replay::session(bytes) > 3);
        }
        for way in 0..2 {
            is_accepted("definition", way, &target::definition);
        }
        assert!(corpus("replica").iter().any(|bytes| replay::replica(bytes) > 5), "all is refused");
    }

    #[test]
    fn every_parser_has_a_target_and_every_target_a_parser() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
        let stem = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_string_lossy().into_owned();
        let targets: BTreeSet<String> = fs::read_dir(dir).unwrap().map(|entry| stem(entry.unwrap())).collect();
        let parsers = PARSERS.iter().chain(fuzz::PARSERS).map(|(name, _)| (*name).to_owned());
        assert_eq!(targets, parsers.collect());
    }
}
