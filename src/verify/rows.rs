//! Which rows a lost file of a dump held: the manifest in the snapshot's own tree has the bounds of each row file.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path};

use serde::Serialize;

use crate::human;
use crate::id::{BlobId, SnapshotId};
use crate::mysql::manifest::{Chunk, FORMAT, Manifest, TableEntry};
use crate::repository::{BlobKind, Repository, SnapshotList};
use crate::run::Run;
use crate::verify::VerifyError;
use crate::verify::cost::{Costs, Paths};

/// Letters of a key's value that are shown: a key of text may be long, and holds what customers typed.
const VALUE_LETTERS_MAX: usize = 24;

/// Rows of a table that a dump cannot bring back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Rows {
    /// `schema.table`.
    pub table: String,
    pub rows: u64,
    /// `column=value` for each column of the key: the rows come after these; `None`: from the first on.
    pub after: Option<Vec<String>>,
    /// And up to these, themselves included; `None`: to the last.
    pub up_to: Option<Vec<String>>,
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", human::counted(self.rows, "row", "rows"), human::printable(&self.table))?;
        for (word, bound) in [("after", &self.after), ("up to", &self.up_to)] {
            if let Some(bound) = bound {
                write!(f, " {word} {}", bound.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Adds to costs that are files of a dump which rows they held. Where the manifest is lost as well, nobody can tell.
pub(super) fn tell(
    repository: &Repository,
    snapshots: &SnapshotList,
    costs: &mut Costs,
    run: &Run,
) -> Result<(), VerifyError> {
    for (snapshot, source) in dumps(costs) {
        run.check().map_err(crate::repository::RepositoryError::from)?;
        let stored = snapshots.found.iter().find(|stored| stored.id == snapshot);
        let Some(manifest) = stored.and_then(|stored| manifest(repository, stored.snapshot.tree, &source)) else {
            continue;
        };
        for paths in costs.values_mut() {
            paths.change(|cost| {
                if cost.snapshot == snapshot
                    && let Some((of, below)) = place_in_dump(&cost.path)
                    && of == source
                {
                    cost.rows = rows_below(&manifest, &below);
                }
            });
        }
    }
    Ok(())
}

/// Returns the dumps that lost something.
fn dumps(costs: &Costs) -> BTreeSet<(SnapshotId, String)> {
    let all = costs.values().flat_map(Paths::listed);
    all.filter_map(|cost| Some((cost.snapshot, place_in_dump(&cost.path)?.0))).collect()
}

/// Splits `/mysql/<source>/<below>`.
fn place_in_dump(path: &Path) -> Option<(String, String)> {
    let mut parts = path.components();
    (parts.next()? == Component::RootDir).then_some(())?;
    let root = parts.next()?.as_os_str();
    let source = parts.next()?.as_os_str().to_str()?.to_owned();
    let below = parts.as_path().to_str()?.to_owned();
    (root == "mysql").then_some((source, below))
}

fn manifest(repository: &Repository, root: BlobId, source: &str) -> Option<Manifest> {
    let below = |tree: BlobId, name: &str| {
        let tree = repository.tree_blocking(&tree).ok()?;
        tree.nodes.into_iter().find(|node| node.name == name)
    };
    let dump = below(below(root, "mysql")?.subtree?, source)?.subtree?;
    let mut text = Vec::new();
    for blob in &below(dump, "manifest.json")?.content {
        text.extend(repository.blob_blocking(BlobKind::Data, blob).ok()?);
    }
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    (manifest.format <= FORMAT).then_some(manifest)
}

/// Returns the rows of one row file, or those of all tables in a directory, table by table.
fn rows_below(manifest: &Manifest, below: &str) -> Vec<Rows> {
    let mut rows = Vec::new();
    for table in &manifest.tables {
        if let Some(chunk) = table.chunks.iter().find(|chunk| chunk.path == below) {
            return vec![Rows::of(table, chunk)];
        }
        let is_in = |chunk: &&Chunk| Path::new(&chunk.path).starts_with(below);
        let count = table.chunks.iter().filter(is_in).map(|chunk| chunk.rows).sum();
        if count > 0 {
            rows.push(Rows { table: name_of(table), rows: count, after: None, up_to: None });
        }
    }
    rows
}

impl Rows {
    /// Returns the rows of a row file.
    pub(crate) fn of(table: &TableEntry, chunk: &Chunk) -> Self {
        let bound = |literals: &Option<Vec<String>>| {
            let literals = literals.as_ref()?;
            Some(table.key.iter().zip(literals).map(|(column, literal)| shown(column, literal)).collect())
        };
        Self { table: name_of(table), rows: chunk.rows, after: bound(&chunk.lower), up_to: bound(&chunk.upper) }
    }

    /// Returns all rows of a table.
    pub(crate) fn all(table: &TableEntry) -> Self {
        Self { table: name_of(table), rows: table.rows, after: None, up_to: None }
    }
}

fn name_of(table: &TableEntry) -> String {
    format!("{}.{}", table.schema, table.name)
}

/// Shows a column and its value, a text as itself rather than as the hexadecimal digits of its literal.
fn shown(column: &str, literal: &str) -> String {
    let in_digits = literal.strip_prefix("_utf8").and_then(|rest| rest.split_once(" X'"));
    let digits = in_digits.and_then(|(_, digits)| digits.strip_suffix('\''));
    let text = digits.and_then(|digits| String::from_utf8(hex::decode(digits).ok()?).ok());
    let value = text.map_or_else(|| literal.to_owned(), |text| format!("'{text}'"));
    let cut: String = value.chars().take(VALUE_LETTERS_MAX).collect();
    let more = if cut.len() < value.len() { "…" } else { "" };
    human::printable(&format!("{column}={cut}{more}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let chunk = |path: &str, lower: Option<[&str; 2]>, upper: Option<[&str; 2]>| {
            let bound = |bound: Option<[&str; 2]>| bound.map(|literals| literals.map(str::to_owned).to_vec());
            Chunk {
                path: path.to_owned(),
                lower: bound(lower),
                upper: bound(upper),
                rows: 1_200,
                bytes: 9,
                sha256: String::new(),
            }
        };
        let table = |name: &str, chunks| TableEntry {
            schema: "mall".to_owned(),
            name: name.to_owned(),
            create: String::new(),
            engine: "InnoDB".to_owned(),
            history_lost: false,
            columns: Vec::new(),
            key: vec!["shop_id".to_owned(), "name".to_owned()],
            rows: 0,
            bytes: 0,
            chunks,
        };
        let name = "_utf8mb4 X'EAB080'";
        let orders = vec![
            chunk("mall/orders/00000.tsv", None, Some(["3", name])),
            chunk("mall/orders/00001.tsv", Some(["3", name]), None),
        ];
        Manifest {
            format: FORMAT,
            product: crate::mysql::manifest::Product::MariaDb,
            version: String::new(),
            server: String::new(),
            taken_at: chrono::DateTime::UNIX_EPOCH,
            consistency: crate::mysql::manifest::Consistency::LockFree,
            position: None,
            gtid: None,
            gtid_slave_pos: None,
            write_stall_ms: 0.0,
            variables: std::collections::BTreeMap::default(),
            extent: crate::mysql::manifest::Extent::default(),
            schemas: Vec::new(),
            tables: vec![table("orders", orders), table("shops", vec![chunk("mall/shops/00000.tsv", None, None)])],
            objects: Vec::new(),
        }
    }

    fn told(below: &str) -> Vec<String> {
        rows_below(&manifest(), below).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_row_file_is_told_by_its_table_and_the_bounds_of_its_key() {
        assert_eq!(told("mall/orders/00000.tsv"), ["1,200 rows of mall.orders up to shop_id=3, name='가'"]);
        assert_eq!(told("mall/orders/00001.tsv"), ["1,200 rows of mall.orders after shop_id=3, name='가'"]);
        assert_eq!(told("mall/shops/00000.tsv"), ["1,200 rows of mall.shops"]);
        assert!(told("mall/orders/schema.sql").is_empty());
    }

    #[test]
    fn a_directory_is_told_table_by_table() {
        assert_eq!(told("mall/orders"), ["2,400 rows of mall.orders"]);
        assert_eq!(told("mall"), ["2,400 rows of mall.orders", "1,200 rows of mall.shops"]);
        assert_eq!(told("").len(), 2);
    }

    #[test]
    fn values_are_shortened_and_cannot_steer_a_terminal() {
        assert_eq!(shown("a", "_utf8mb4 X'1B5B324A'"), "a='�[2J'");
        assert_eq!(shown("a", "_latin1 X'E9'"), "a=_latin1 X'E9'");
        assert_eq!(shown("a", &"9".repeat(30)), format!("a={}…", "9".repeat(24)));
    }

    #[test]
    fn only_what_lies_below_a_source_is_a_place_in_a_dump() {
        let place = |path: &str| place_in_dump(Path::new(path));
        assert_eq!(place("/mysql/db1/mall/a"), Some(("db1".to_owned(), "mall/a".to_owned())));
        assert_eq!(place("/mysql/db1"), Some(("db1".to_owned(), String::new())));
        assert_eq!((place("/mysql"), place("/images/db1/x"), place("/")), (None, None, None));
    }
}
