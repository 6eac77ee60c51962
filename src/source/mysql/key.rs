//! The key that a table is read by: which columns cut it into ranges, and which order its rows have.

use std::collections::BTreeMap;

use crate::mysql::row::{KeyColumn, KeyKind};
use crate::source::mysql::inventory::ColumnInfo;

/// One part of a unique index.
#[derive(Debug, Clone)]
pub(crate) struct IndexPart {
    /// `None` for an expression.
    pub(crate) column: Option<String>,
    /// The whole value is indexed, not its first characters.
    pub(crate) is_whole: bool,
    pub(crate) is_nullable: bool,
    /// `None` where the index has no order, as a hash.
    pub(crate) direction: Option<Direction>,
    pub(crate) is_usable: bool,
}

/// Which way an index runs by one of its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: String,
    /// The columns that ranges are cut by: the longest head of the index whose values compare as their literals do.
    pub(crate) columns: Vec<String>,
    /// Where they stand in the row, and how they are written.
    pub(crate) parts: Vec<KeyColumn>,
    /// The columns that rows are ordered by: the whole index.
    pub(crate) order: Vec<String>,
    /// No two rows have the same values in `columns`.
    pub(crate) is_unique: bool,
    /// `COLLATE …` for each text column: where one changes, old bounds are out of order.
    pub(crate) collations: Vec<Option<String>>,
}

impl Key {
    /// Chooses the primary key, or the unique index without NULLs that has the fewest columns.
    pub(crate) fn choose(
        indexes: &BTreeMap<String, Vec<IndexPart>>,
        dumped: &[ColumnInfo],
        all: &[ColumnInfo],
    ) -> Option<Self> {
        let mut candidates: Vec<_> = indexes.iter().filter(|(_, parts)| is_key(parts, all)).collect();
        candidates.sort_by_key(|(name, parts)| (name.as_str() != "PRIMARY", parts.len(), name.as_str()));
        candidates.into_iter().find_map(|(name, parts)| Self::new(name, parts, dumped))
    }

    fn new(index: &str, parts: &[IndexPart], dumped: &[ColumnInfo]) -> Option<Self> {
        let order: Vec<String> = parts.iter().filter_map(|part| part.column.clone()).collect();
        let mut key = Self {
            index: index.to_owned(),
            columns: Vec::new(),
            parts: Vec::new(),
            order,
            is_unique: false,
            collations: Vec::new(),
        };
        for name in &key.order {
            let Some((at, kind)) = dumped
                .iter()
                .position(|column| column.name == *name)
                .and_then(|at| Some((at, literal_kind(&dumped[at])?)))
            else {
                break;
            };
            key.columns.push(name.clone());
            key.parts.push(KeyColumn { index: at, kind });
            key.collations.push(dumped[at].collation.clone());
        }
        key.is_unique = key.columns.len() == key.order.len();
        key.cut_plainly()
    }

    /// Where rows share a key, they must stay in one file, and only literals that are equal byte for byte say so.
    fn cut_plainly(mut self) -> Option<Self> {
        if !self.is_unique {
            let plain = self.parts.iter().take_while(|part| !is_loose(&part.kind)).count();
            self.columns.truncate(plain);
            self.parts.truncate(plain);
            self.collations.truncate(plain);
        }
        (!self.columns.is_empty()).then_some(self)
    }

    /// Returns the parts as they stand in a row of the key's columns alone.
    pub(crate) fn parts_alone(&self) -> Vec<KeyColumn> {
        let kinds = self.parts.iter().map(|part| part.kind.clone());
        kinds.enumerate().map(|(index, kind)| KeyColumn { index, kind }).collect()
    }

    /// Takes in that a row has several lives, told apart by when each ended.
    pub(crate) fn with_history(mut self, row_end: Option<&str>) -> Option<Self> {
        if let Some(row_end) = row_end
            && !self.order.iter().any(|name| name == row_end)
        {
            self.order.push(row_end.to_owned());
            self.is_unique = false;
        }
        self.cut_plainly()
    }
}

/// Tells whether an index gives each row a place of its own that an ordered read follows. One that runs down by all its columns
/// is read backwards; one that runs up and down would have to be sorted.
fn is_key(parts: &[IndexPart], all: &[ColumnInfo]) -> bool {
    let in_table = |part: &IndexPart| {
        let name = part.column.as_deref().unwrap_or_default();
        name.eq_ignore_ascii_case("row_end") || all.iter().any(|column| column.name == name)
    };
    let direction = parts.first().and_then(|part| part.direction);
    parts.iter().all(|part| {
        part.column.is_some()
            && part.is_whole
            && !part.is_nullable
            && part.direction.is_some()
            && part.direction == direction
            && part.is_usable
            && in_table(part)
    })
}

/// Returns how a column's value is written so that comparing with it is comparing with the value; `None` for types that
/// compare by something else than they are ordered by (an ENUM's text against its number), and for those that no key has.
fn literal_kind(column: &ColumnInfo) -> Option<KeyKind> {
    Some(match column.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" | "decimal" | "numeric" | "year" => {
            KeyKind::Number
        }
        "float" | "double" | "real" => KeyKind::Double,
        "bit" => KeyKind::Bit,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            KeyKind::Text { charset: column.charset.clone()? }
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => KeyKind::Binary,
        "date" | "time" | "datetime" | "timestamp" | "uuid" | "inet4" | "inet6" => KeyKind::Quoted,
        _ => return None,
    })
}

/// Tells whether literals of other bytes may be one value: texts that a collation holds for equal, a double's two zeros.
pub(crate) fn is_loose(kind: &KeyKind) -> bool {
    matches!(kind, KeyKind::Text { .. } | KeyKind::Double)
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str) -> ColumnInfo {
        ColumnInfo {
            name: name.to_owned(),
            data_type: data_type.to_owned(),
            sql_type: data_type.to_owned(),
            charset: Some("latin1".to_owned()),
            collation: Some("latin1_swedish_ci".to_owned()),
            generated: String::new(),
        }
    }

    fn part(column: &str) -> IndexPart {
        IndexPart {
            column: Some(column.to_owned()),
            is_whole: true,
            is_nullable: false,
            direction: Some(Direction::Up),
            is_usable: true,
        }
    }

    fn choose(indexes: &[(&str, Vec<IndexPart>)], columns: &[ColumnInfo]) -> Option<Key> {
        let indexes = indexes.iter().map(|(name, parts)| ((*name).to_owned(), parts.clone())).collect();
        Key::choose(&indexes, columns, columns)
    }

    #[test]
    fn the_primary_key_comes_before_any_unique_index() {
        let columns = [column("shop", "int"), column("id", "bigint"), column("code", "char")];
        let key = choose(&[("a", vec![part("code")]), ("PRIMARY", vec![part("shop"), part("id")])], &columns);
        let key = key.expect("a key");
        assert_eq!(
            (key.index.as_str(), key.columns.as_slice()),
            ("PRIMARY", &["shop".to_owned(), "id".to_owned()][..])
        );
        assert!(key.is_unique);
    }

    #[test]
    fn a_unique_index_with_nulls_or_prefixes_is_no_key() {
        let columns = [column("a", "int"), column("b", "varchar")];
        let nullable = IndexPart { is_nullable: true, ..part("a") };
        let prefix = IndexPart { is_whole: false, ..part("b") };
        assert!(choose(&[("u", vec![nullable]), ("v", vec![prefix])], &columns).is_none());
    }

    #[test]
    fn an_index_is_followed_one_way_and_never_sorted() {
        let columns = [column("shop", "int"), column("id", "int")];
        let chosen = |directions: [Option<Direction>; 2]| {
            let parts = ["shop", "id"].into_iter().zip(directions);
            let parts = parts.map(|(name, direction)| IndexPart { direction, ..part(name) }).collect();
            choose(&[("PRIMARY", parts)], &columns).map(|key| key.order)
        };
        let (up, down) = (Some(Direction::Up), Some(Direction::Down));
        assert_eq!(chosen([down, down]).expect("a key"), ["shop", "id"]);
        assert!(chosen([up, down]).is_none() && chosen([down, up]).is_none() && chosen([None, None]).is_none());
    }

    #[test]
    fn ranges_are_cut_before_an_enum_and_rows_still_ordered_by_it() {
        let columns = [column("shop", "int"), column("kind", "enum"), column("id", "int")];
        let key = choose(&[("PRIMARY", vec![part("shop"), part("kind"), part("id")])], &columns).expect("a key");
        assert_eq!(key.columns, ["shop"]);
        assert_eq!(key.order, ["shop", "kind", "id"]);
        assert!(!key.is_unique);
    }

    #[test]
    fn history_makes_a_key_ambiguous() {
        let columns = [column("id", "int")];
        let key = choose(&[("PRIMARY", vec![part("id")])], &columns).expect("a key");
        let key = key.with_history(Some("row_end")).expect("a key still");
        assert!(!key.is_unique);
        assert_eq!(key.order, ["id", "row_end"]);
    }
    #[test]
    fn rows_that_share_a_key_are_not_told_apart_by_a_text() {
        let columns = [column("shop", "int"), column("code", "varchar"), column("kind", "enum")];
        let key = choose(&[("PRIMARY", vec![part("shop"), part("code"), part("kind")])], &columns).expect("a key");
        assert_eq!((key.columns.len(), key.parts.len(), key.collations.len()), (1, 1, 1));
        let key = choose(&[("PRIMARY", vec![part("code")])], &columns).expect("a key");
        assert!(key.is_unique && key.with_history(Some("row_end")).is_none());
    }
}
