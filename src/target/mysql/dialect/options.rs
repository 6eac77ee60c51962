//! The options of a table: its engine, and what only one product knows.

use crate::target::mysql::dialect::token::{Definition, Token};
use crate::target::mysql::dialect::{Dialect, Findings};

/// Options that both products know.
const COMMON: [&str; 21] = [
    "ENGINE",
    "AUTO_INCREMENT",
    "DEFAULT CHARSET",
    "COLLATE",
    "COMMENT",
    "ROW_FORMAT",
    "KEY_BLOCK_SIZE",
    "MIN_ROWS",
    "MAX_ROWS",
    "AVG_ROW_LENGTH",
    "PACK_KEYS",
    "STATS_PERSISTENT",
    "STATS_AUTO_RECALC",
    "STATS_SAMPLE_PAGES",
    "CHECKSUM",
    "DELAY_KEY_WRITE",
    "DATA DIRECTORY",
    "INDEX DIRECTORY",
    "CONNECTION",
    "UNION",
    "INSERT_METHOD",
];

/// Of these InnoDB understands nothing, or something else.
const OF_OTHER_ENGINES: [&str; 5] = ["ROW_FORMAT", "KEY_BLOCK_SIZE", "PACK_KEYS", "CHECKSUM", "DELAY_KEY_WRITE"];

/// Engines whose rows lie elsewhere: no other engine stands in for them.
const HOLLOW: [&str; 6] = ["mrg_myisam", "federated", "blackhole", "connect", "spider", "sequence"];

const STAND_IN: &str = "InnoDB";

impl Dialect {
    /// Translates what stands behind a table's list of definitions.
    pub(super) fn options(&self, definition: &mut Definition, found: &mut Findings) {
        let is_partitioned = !definition.partitions.is_empty();
        found.engine = self.stand_in(&definition.options, is_partitioned, found);
        let mut kept = Vec::new();
        for option in options(&definition.options) {
            if self.keeps(&option, found) {
                kept.extend(option);
            }
        }
        if let Some(engine) = &found.engine {
            set_engine(&mut kept, engine);
            set_engine(&mut definition.partitions, engine);
        }
        definition.options = kept;
    }

    /// Returns the engine that stands in for one that the target lacks.
    fn stand_in(&self, tokens: &[Token], is_partitioned: bool, found: &mut Findings) -> Option<String> {
        let at = tokens.iter().position(|token| token.is("ENGINE"))?;
        let engine = tokens.get(at + 2)?.text.clone();
        let is_there = self.has_engine(&engine);
        let is_refused = self.is_to_mysql() && is_partitioned && !engine.eq_ignore_ascii_case(STAND_IN);
        if is_there && !is_refused {
            return None;
        }
        if HOLLOW.contains(&engine.to_ascii_lowercase().as_str()) {
            found.refuse(format!("the target lacks the engine {engine}"));
            return None;
        }
        let of = if is_there { "no partitions of" } else { "no engine" };
        found.note(format!("it comes as {STAND_IN}: the target has {of} {engine}"));
        Some(STAND_IN.to_owned())
    }

    fn keeps(&self, option: &[Token], found: &mut Findings) -> bool {
        let name = name(option);
        if name == "WITH SYSTEM VERSIONING" && self.is_to_mysql() {
            found.refuse("MySQL keeps no history of rows (SYSTEM VERSIONING)");
        }
        if found.engine.is_some() && OF_OTHER_ENGINES.contains(&name.as_str()) {
            return false;
        }
        let is_known = !self.is_foreign() || COMMON.contains(&name.as_str());
        if !is_known {
            let name = name.split(' ').next().unwrap_or_default();
            found.note(format!("option {name} is left out: the other product has none such"));
        }
        is_known
    }
}

/// Cuts a list of options apart: words, and a value behind `=`.
fn options(tokens: &[Token]) -> Vec<Vec<Token>> {
    let mut options: Vec<Vec<Token>> = Vec::new();
    let mut open: Vec<Token> = Vec::new();
    let mut depth = 0_usize;
    for token in tokens {
        match token.text.as_str() {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        open.push(token.clone());
        let has_value = open.len() > 2 && open.iter().rev().skip(1).any(|token| token.is("="));
        let is_tablespace = open.len() == 2 && open[0].is("TABLESPACE");
        let is_phrase = is_tablespace || name(&open) == "WITH SYSTEM VERSIONING";
        if depth == 0 && (has_value || is_phrase) {
            options.push(std::mem::take(&mut open));
        }
    }
    options.extend((!open.is_empty()).then_some(open));
    options
}

/// Returns the name of an option in capitals, without quotes.
fn name(option: &[Token]) -> String {
    let words = option.iter().take_while(|token| !token.is("="));
    let words: Vec<String> = words.map(|word| word.text.trim_matches('`').to_ascii_uppercase()).collect();
    words.join(" ")
}

fn set_engine(tokens: &mut [Token], engine: &str) {
    for at in 0..tokens.len().saturating_sub(2) {
        if tokens[at].is("ENGINE") && tokens[at + 1].is("=") {
            engine.clone_into(&mut tokens[at + 2].text);
        }
    }
}
