//! What becomes of a `CREATE TABLE` statement: which secondary indexes are built after the rows, in one `ALTER TABLE`, which foreign
//! keys wait for them, and what a table under another name leaves out. Pure: it reads texts.
//!
//! Measured with 600,000 rows and two indexes: MySQL 9.7 loads in 6.7 s with the indexes in place and in 1.9 + 2.2 s with them
//! built afterwards. MariaDB is as fast with them where it loads an empty table in bulk, because that sorts them; it does so
//! for the first chunk alone, and for us not at all (`session`).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::iter;

use crate::mysql::sql;

/// Tables with fewer bytes of rows than this gain nothing.
pub(super) const DEFER_BYTES_MIN: u64 = 16 << 20;

/// Columns of a key, in its order.
pub(super) type Columns = Vec<String>;

/// A `CREATE TABLE` statement without some of its indexes and the foreign keys that need those, and both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) create: String,
    pub(super) deferred: Vec<Index>,
    pub(super) foreign: Vec<Foreign>,
}

/// A foreign key that waits for its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    /// As the server knows it, unquoted: the only one of its schema.
    pub(super) name: String,
    /// ``CONSTRAINT `name` FOREIGN KEY (…) REFERENCES …`` as it stood in the statement.
    pub(super) definition: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    /// As the server knows it, unquoted.
    pub(super) name: String,
    /// ``KEY `name` (…)`` as it stood in the statement.
    pub(super) definition: String,
}

/// Takes the plain secondary indexes out of a `CREATE TABLE` statement as the server prints it: one definition a line. A foreign key
/// that none of those left serves waits with them.
///
/// Left in place: unique, full-text and spatial ones, those on expressions, and one for what foreign keys elsewhere point to
/// (`referenced`) and for an `AUTO_INCREMENT` column, where no index that stays serves it: InnoDB would refuse the table. A
/// system-versioned table keeps them all, because it refuses to be altered.
pub(super) fn split(create: &str, referenced: &BTreeSet<Columns>) -> Split {
    let lines: Vec<&str> = create.split('\n').collect();
    let Some(end) = lines.iter().position(|line| line.starts_with(')')) else {
        return whole(create);
    };
    let body = &lines[..end];
    let mut needed = automatic(body);
    needed.extend(referenced.iter().cloned());
    needed.extend(foreign_keys(body).filter(|key| !is_served(body, |_| true, &key.columns)).map(|key| key.columns));
    let staying = staying(body, &needed);
    let stays = |index: &PlainIndex| staying.contains(&index.name);
    let mut split = Split { create: String::new(), deferred: Vec::new(), foreign: Vec::new() };
    let mut kept = Vec::with_capacity(lines.len());
    for line in body {
        if let Some(index) = plain_index(line).filter(|index| !stays(index)) {
            split.deferred.push(Index { name: index.name, definition: definition(line) });
        } else if let Some(key) = foreign_key(line).filter(|key| !is_served(body, stays, &key.columns)) {
            split.foreign.push(Foreign { name: key.name, definition: definition(line) });
        } else {
            kept.push(*line);
        }
    }
    // Everything but definitions, one a line, is beyond this reader.
    if is_versioned(create) || split.deferred.is_empty() || kept.len() < 2 {
        return whole(create);
    }
    let last = kept.len() - 1;
    kept[last] = kept[last].trim_end_matches(',');
    kept.extend(&lines[end..]);
    Split { create: kept.join("\n"), ..split }
}

/// Returns a line's definition, to be added to a table that is there.
fn definition(line: &str) -> String {
    line.trim().trim_end_matches(',').to_owned()
}

fn is_versioned(create: &str) -> bool {
    create.contains("SYSTEM VERSIONING")
}

/// Returns `(table, columns)` of what each foreign key of a `CREATE TABLE` statement points to; the table as
/// `schema.table`, in the table's own schema unless it says another.
pub(super) fn references(create: &str, schema: &str) -> Vec<(String, Columns)> {
    let keys = create.split('\n').filter(|line| line.contains(" FOREIGN KEY "));
    keys.filter_map(|line| reference(line, schema)).collect()
}

fn reference(line: &str, schema: &str) -> Option<(String, Columns)> {
    let (_, rest) = line.split_once(" REFERENCES ")?;
    let (mut table, mut rest) = name(rest)?;
    let mut of = schema.to_owned();
    if let Some(after) = rest.strip_prefix('.') {
        of = std::mem::take(&mut table);
        (table, rest) = name(after)?;
    }
    Some((format!("{of}.{table}"), columns(rest.trim_start())))
}

/// Returns a `CREATE TABLE` statement for the same table under another name.
pub(super) fn renamed(create: &str, to: &str) -> String {
    let rest = create.strip_prefix("CREATE TABLE ").and_then(name);
    rest.map_or_else(|| create.to_owned(), |(_, rest)| format!("CREATE TABLE {}{rest}", sql::ident(to)))
}

/// Returns a `CREATE TABLE` statement without what binds the table to others of its schema: its foreign keys, and the names of its
/// checks, which MySQL wants no two tables of a schema to share.
pub(super) fn unbound(create: &str) -> String {
    with_constraints(create, |_, what| (!what.starts_with("FOREIGN KEY ")).then(|| format!("  {what}").into()))
}

/// Returns a `CREATE TABLE` statement without the foreign keys that point into other schemas; the server names a schema only there.
pub(super) fn within_schema(create: &str) -> String {
    let points_outside = |what: &str| {
        let parent = what.split_once(" REFERENCES ").and_then(|(_, parent)| name(parent));
        what.starts_with("FOREIGN KEY ") && parent.is_some_and(|(_, rest)| rest.starts_with('.'))
    };
    with_constraints(create, |line, what| (!points_outside(what)).then(|| line.into()))
}

/// Returns a `CREATE TABLE` statement in which each line with a constraint is what `keep` makes of it and of what it demands.
fn with_constraints<'a>(create: &'a str, keep: impl Fn(&'a str, &'a str) -> Option<Cow<'a, str>>) -> String {
    let lines: Vec<&str> = create.split('\n').collect();
    let Some(end) = lines.iter().position(|line| line.starts_with(')')) else {
        return create.to_owned();
    };
    let mut kept: Vec<Cow<'_, str>> = Vec::with_capacity(lines.len());
    for line in &lines[..end] {
        match constraint(line) {
            Some(what) => kept.extend(keep(line, what)),
            None => kept.push((*line).into()),
        }
    }
    if let Some(last) = kept.last_mut() {
        *last = last.trim_end_matches(',').to_owned().into();
    }
    kept.extend(lines[end..].iter().map(|line| Cow::Borrowed(*line)));
    kept.join("\n")
}

/// Returns what a line such as ``  CONSTRAINT `name` CHECK (…),`` demands.
fn constraint(line: &str) -> Option<&str> {
    let (_, rest) = name(line.strip_prefix("  CONSTRAINT ")?)?;
    rest.strip_prefix(' ')
}

/// Returns a statement that keeps all it has.
pub(super) fn whole(create: &str) -> Split {
    Split { create: create.to_owned(), deferred: Vec::new(), foreign: Vec::new() }
}

/// A foreign key of the table.
struct OwnKey {
    name: String,
    columns: Columns,
}

fn foreign_keys(lines: &[&str]) -> impl Iterator<Item = OwnKey> {
    lines.iter().filter_map(|line| foreign_key(line))
}

/// Reads a line such as ``  CONSTRAINT `name` FOREIGN KEY (`column`,…) REFERENCES …``.
fn foreign_key(line: &str) -> Option<OwnKey> {
    let (key, rest) = name(line.strip_prefix("  CONSTRAINT ")?)?;
    Some(OwnKey { name: key, columns: columns(rest.strip_prefix(" FOREIGN KEY ")?) })
}

/// An index that may wait for the rows.
struct PlainIndex {
    name: String,
    first: String,
    columns: Columns,
}

/// Reads a line such as ``  KEY `name` (`column`,…),``.
fn plain_index(line: &str) -> Option<PlainIndex> {
    let (index, rest) = name(line.strip_prefix("  KEY ")?)?;
    let (first, _) = name(rest.strip_prefix(" (")?)?;
    let is_plain = !line.contains("((") && !line.contains(",(");
    is_plain.then(|| PlainIndex { name: index, first, columns: columns(rest.trim_start()) })
}

/// Reads the columns of a line such as ``  PRIMARY KEY (`column`,…),`` or ``  UNIQUE KEY `name` (`column`,…),``.
fn unique_index(line: &str) -> Option<Columns> {
    let named = || Some(name(line.strip_prefix("  UNIQUE KEY ")?)?.1.trim_start());
    line.strip_prefix("  PRIMARY KEY ").or_else(named).map(columns)
}

/// Reads a list such as ``(`a`, `b`(20), `c` DESC)`` up to the first column that is not there whole and ascending.
fn columns(list: &str) -> Columns {
    let mut rest = list.strip_prefix('(');
    let next = || {
        let (column, after) = name(rest?)?;
        rest = after.strip_prefix(',').map(str::trim_start);
        (rest.is_some() || after.starts_with(')')).then_some(column)
    };
    iter::from_fn(next).collect()
}

/// Returns every `AUTO_INCREMENT` column.
fn automatic(lines: &[&str]) -> Vec<Columns> {
    let lines = lines.iter().filter(|line| line.contains(" AUTO_INCREMENT"));
    lines.filter_map(|line| name(line.trim_start())).map(|(name, _)| vec![name]).collect()
}

/// Tells whether a unique index, or a plain one of these, begins with the columns.
fn is_served(lines: &[&str], is_there: impl Fn(&PlainIndex) -> bool, columns: &[String]) -> bool {
    let unique = lines.iter().filter_map(|line| unique_index(line));
    let plain = lines.iter().filter_map(|line| plain_index(line)).filter(|index| is_there(index));
    unique.chain(plain.map(|index| index.columns)).any(|index| serves(&index, columns))
}

/// Returns the names of the plain indexes without which what is needed would have none.
fn staying(lines: &[&str], needed: &[Columns]) -> BTreeSet<String> {
    let unique: Vec<Columns> = lines.iter().filter_map(|line| unique_index(line)).collect();
    let plain: Vec<PlainIndex> = lines.iter().filter_map(|line| plain_index(line)).collect();
    let mut staying = BTreeSet::new();
    for columns in needed {
        let mut serving = plain.iter().filter(|index| serves(&index.columns, columns));
        if unique.iter().any(|index| serves(index, columns))
            || serving.clone().any(|index| staying.contains(&index.name))
        {
            continue;
        }
        if let Some(index) = serving.next() {
            staying.insert(index.name.clone());
        } else {
            // It may be one that serves by columns which InnoDB adds to it, or in some other way: all that begin alike.
            let first = columns.first();
            let alike = plain.iter().filter(|index| first.is_some_and(|first| is_same(first, &index.first)));
            staying.extend(alike.map(|index| index.name.clone()));
        }
    }
    staying
}

/// Tells whether an index begins with these columns, in their order.
fn serves(index: &[String], columns: &[String]) -> bool {
    index.len() >= columns.len() && index.iter().zip(columns).all(|(index, column)| is_same(index, column))
}

fn is_same(column: &str, other: &str) -> bool {
    column.eq_ignore_ascii_case(other)
}

/// Reads a name in backquotes and returns it with the rest of the text.
pub(crate) fn name(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('`')?;
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('`')?;
        name.push_str(part);
        rest = after;
        match rest.strip_prefix('`') {
            Some(after) => rest = after,
            None => return Some((name, rest)),
        }
        name.push('`');
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const ORDERS: &str = "CREATE TABLE `orders` (
  `shop_id` int(11) NOT NULL,
  `id` int(11) NOT NULL AUTO_INCREMENT,
  `customer_id` int(11) NOT NULL,
  `placed` datetime DEFAULT NULL,
  `note` text DEFAULT NULL COMMENT 'KEY `x` (`y`)',
  PRIMARY KEY (`shop_id`,`id`),
  UNIQUE KEY `u` (`note`(20)),
  KEY `id` (`id`),
  KEY `by customer` (`customer_id`),
  KEY `by``placed` (`placed`,`id`),
  KEY `lower` ((lower(`note`))),
  FULLTEXT KEY `words` (`note`),
  CONSTRAINT `c` FOREIGN KEY (`customer_id`) REFERENCES `other`.`customers` (`id`),
  CONSTRAINT `s` FOREIGN KEY (`shop_id`) REFERENCES `shops` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
/*!50100 PARTITION BY KEY (shop_id) */";

    #[test]
    fn a_plain_index_waits_for_the_rows_and_no_other_does() {
        let split = split(ORDERS, &BTreeSet::new());
        let index = |name: &str, definition: &str| Index { name: name.to_owned(), definition: definition.to_owned() };
        assert_eq!(
            split.deferred,
            [
                index("by customer", "KEY `by customer` (`customer_id`)"),
                index("by`placed", "KEY `by``placed` (`placed`,`id`)")
            ]
        );
        let key = "CONSTRAINT `c` FOREIGN KEY (`customer_id`) REFERENCES `other`.`customers` (`id`)";
        assert_eq!(split.foreign, [Foreign { name: "c".to_owned(), definition: key.to_owned() }]);
        let late = ["KEY `by customer` (`customer_id`)", "KEY `by``placed` (`placed`,`id`)", key];
        let left = late.iter().fold(ORDERS.to_owned(), |text, line| text.replace(&format!("  {line},\n"), ""));
        assert_eq!(split.create, left, "the shop's key has the primary key");
    }

    #[test]
    fn the_last_definition_left_has_no_comma() {
        let create = "CREATE TABLE `t` (\n  `a` int,\n  KEY `k` (`a`)\n) ENGINE=InnoDB";
        let split = split(create, &BTreeSet::new());
        assert_eq!(split.create, "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB");
    }

    #[test]
    fn an_index_that_a_foreign_key_elsewhere_points_to_stays() {
        let column = |name: &str| vec![name.to_owned()];
        let split = split(ORDERS, &BTreeSet::from([column("Placed"), column("customer_id")]));
        assert_eq!(split, whole(ORDERS));
    }

    /// All keys of a table of a mall begin with the shop.
    const ITEMS: &str = "CREATE TABLE `items` (
  `shop` int NOT NULL,
  `id` int NOT NULL,
  `order` int NOT NULL,
  `product` int DEFAULT NULL,
  PRIMARY KEY (`shop`,`id`),
  UNIQUE KEY `serial` (`shop`,`product`(4),`id`),
  KEY `by order` (`shop`,`order`),
  KEY `by order and product` (`shop`,`order`,`product`),
  KEY `by product` (`shop`,`product`),
  KEY `newest` (`shop`,`id` DESC),
  CONSTRAINT `o` FOREIGN KEY (`shop`, `order`) REFERENCES `orders` (`shop`, `id`),
  CONSTRAINT `s` FOREIGN KEY (`shop`) REFERENCES `shops` (`id`)
) ENGINE=InnoDB";

    fn late(create: &str, referenced: &[&[&str]]) -> Vec<String> {
        let referenced = referenced.iter().map(|columns| columns.iter().map(|name| (*name).to_owned()).collect());
        split(create, &referenced.collect()).deferred.into_iter().map(|index| index.name).collect()
    }

    #[test]
    fn what_is_pointed_to_keeps_one_index_that_begins_with_its_columns() {
        let all = ["by order", "by order and product", "by product", "newest"];
        assert_eq!(late(ITEMS, &[]), all);
        assert_eq!(
            late(ITEMS, &[&["shop", "product"]]),
            ["by order", "by order and product", "newest"],
            "not a cut column"
        );
        assert_eq!(late(ITEMS, &[&["shop", "order", "product"]]), ["by order", "by product", "newest"]);
        let none: [&str; 0] = [];
        assert_eq!(late(ITEMS, &[&["shop", "order", "id"]]), none, "served by what InnoDB adds, if at all");
    }

    #[test]
    fn a_foreign_key_waits_where_no_index_that_stays_serves_it() {
        let waiting = |create: &str, referenced: &[Columns]| -> Vec<String> {
            split(create, &referenced.iter().cloned().collect()).foreign.into_iter().map(|key| key.name).collect()
        };
        assert_eq!(waiting(ITEMS, &[]), ["o"]);
        let none: [&str; 0] = [];
        assert_eq!(waiting(ITEMS, &[vec!["shop".to_owned(), "order".to_owned()]]), none, "the index stays for another");
        // An index that is not in the text: all that might be it stay, and so does the key.
        let hidden = ITEMS.replace("FOREIGN KEY (`shop`, `order`)", "FOREIGN KEY (`shop`, `id`, `order`)");
        assert_eq!(split(&hidden, &BTreeSet::new()), whole(&hidden));
    }

    #[test]
    fn a_system_versioned_table_keeps_its_indexes() {
        let create = "CREATE TABLE `t` (\n  `a` int,\n  KEY `k` (`a`)\n) ENGINE=InnoDB WITH SYSTEM VERSIONING";
        assert_eq!(split(create, &BTreeSet::new()), whole(create));
    }

    #[test]
    fn a_table_under_another_name_is_the_same_table() {
        let create = renamed("CREATE TABLE `a``b` (\n  `a``b` int\n) ENGINE=InnoDB", "c`d");
        assert_eq!(create, "CREATE TABLE `c``d` (\n  `a``b` int\n) ENGINE=InnoDB");
    }

    #[test]
    fn a_table_that_stands_alone_has_its_checks_and_no_foreign_key() {
        let create = "CREATE TABLE `t` (
  `a` int DEFAULT NULL COMMENT 'CONSTRAINT `x` FOREIGN KEY (`a`)',
  KEY `c` (`a`),
  CONSTRAINT `c` FOREIGN KEY (`a`) REFERENCES `other` (`id`),
  CONSTRAINT `t_chk_1` CHECK ((`a` > 0))
) ENGINE=InnoDB";
        let alone = "CREATE TABLE `t` (
  `a` int DEFAULT NULL COMMENT 'CONSTRAINT `x` FOREIGN KEY (`a`)',
  KEY `c` (`a`),
  CHECK ((`a` > 0))
) ENGINE=InnoDB";
        assert_eq!(unbound(create), alone);
        assert_eq!(
            unbound(&create.replace(",\n  CONSTRAINT `t_chk_1` CHECK ((`a` > 0))", "")),
            alone.replace(",\n  CHECK ((`a` > 0))", "")
        );
        assert_eq!(unbound(alone), alone);
    }

    #[test]
    fn a_table_that_moves_with_its_schema_points_to_no_other() {
        let create = "CREATE TABLE `t` (
  `a` int DEFAULT NULL,
  CONSTRAINT `c` FOREIGN KEY (`a`) REFERENCES `here` (`id`),
  CONSTRAINT `d` FOREIGN KEY (`a`) REFERENCES `else`.`where` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB";
        let moved = "CREATE TABLE `t` (
  `a` int DEFAULT NULL,
  CONSTRAINT `c` FOREIGN KEY (`a`) REFERENCES `here` (`id`)
) ENGINE=InnoDB";
        assert_eq!(within_schema(create), moved);
        assert_eq!(within_schema(moved), moved);
    }

    #[test]
    fn a_foreign_key_names_the_table_and_column_it_points_to() {
        let text = |text: &str| text.to_owned();
        assert_eq!(
            references(ORDERS, "mall"),
            [(text("other.customers"), vec![text("id")]), (text("mall.shops"), vec![text("id")])]
        );
        assert_eq!(references(ITEMS, "mall")[0], (text("mall.orders"), vec![text("shop"), text("id")]));
    }
}
