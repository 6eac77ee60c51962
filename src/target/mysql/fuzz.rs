//! Definitions as a manifest may hold them, for the fuzz target in `tests/fuzz`: see [`crate::fuzz`].

#![allow(clippy::missing_panics_doc, reason = "each panics where a promise is broken: that is what it is for")]

use std::collections::BTreeSet;

use crate::mysql::manifest::{ObjectKind, Product};
use crate::target::mysql::dialect::{self, Abilities, Dialect, Edition, Fit};
use crate::target::mysql::index;

fn abilities(collations: &[&str], engines: &[&str], types: &[&str]) -> Abilities {
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Abilities { collations: set(collations), engines: set(engines), types: set(types), zones: None }
}

/// Between which servers a definition goes.
fn dialect(way: u8) -> Dialect {
    let mysql = Edition { product: Product::MySql, series: (9, 7) };
    let mariadb = Edition { product: Product::MariaDb, series: (11, 8) };
    let of_mysql =
        abilities(&["binary", "latin1_swedish_ci", "utf8mb4_bin", "utf8mb4_0900_ai_ci"], &["innodb"], &["vector"]);
    let of_mariadb =
        abilities(&["latin1_swedish_ci", "utf8mb4_bin", "utf8mb4_uca1400_nopad_ai_ci"], &["innodb", "aria"], &["uuid"]);
    match way % 3 {
        0 => Dialect::new(mysql, mariadb, of_mariadb),
        1 => Dialect::new(mariadb, mysql, of_mysql),
        _ => Dialect::new(mysql, mysql, of_mysql),
    }
}

/// A byte that says between which servers, and a statement. Returns whether a table of it is held.
///
/// What holds is a list of definitions again, and nothing is lost where indexes wait for the rows.
#[must_use]
pub fn definition(bytes: &[u8]) -> bool {
    let Some((way, text)) = bytes.split_first() else { return false };
    let text = String::from_utf8_lossy(text);
    let dialect = dialect(*way);
    for kind in [ObjectKind::View, ObjectKind::Trigger] {
        let _ = (dialect.statement(kind, &text), dialect.lost_modes(&text));
    }
    let _ = dialect.schema(&text);
    let Fit::Holds { create, .. } = dialect.table(&text, &mut BTreeSet::new()) else { return false };
    let taken = dialect::without_sequences(&index::unbound(&index::renamed(&create, "t")));
    let _ = (dialect::without_sequences(&index::within_schema(&create)), index::references(&create, "s"));
    for definition in [&create, &taken] {
        let split = index::split(definition, &BTreeSet::new());
        let waiting = split.deferred.len() + split.foreign.len();
        let lines = |text: &str| text.split('\n').count();
        assert_eq!(lines(&split.create) + waiting, lines(definition), "{definition}");
    }
    text.starts_with("CREATE TABLE ") && create.contains('(')
}
