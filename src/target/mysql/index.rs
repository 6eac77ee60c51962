//! What becomes of a `CREATE TABLE` statement: which secondary indexes are built after the rows, in one `ALTER TABLE`, and what a
//! table under another name leaves out. Pure: it reads texts.
//!
//! Measured with 600,000 rows and two indexes: MySQL 9.7 loads in 6.7 s with the indexes in place and in 1.9 + 2.2 s with them
//! built afterwards. MariaDB is as fast with them while the table was empty (its bulk insert sorts them), but only the first
//! chunk finds the table empty.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::mysql::sql;

/// Tables with fewer bytes of rows than this gain nothing.
pub(super) const DEFER_BYTES_MIN: u64 = 16 << 20;

/// A `CREATE TABLE` statement without some of its indexes, and those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) create: String,
    pub(super) deferred: Vec<Index>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    /// As the server knows it, unquoted.
    pub(super) name: String,
    /// ``KEY `name` (…)`` as it stood in the statement.
    pub(super) definition: String,
}

/// Takes the plain secondary indexes out of a `CREATE TABLE` statement as the server prints it: one definition a line.
///
/// Left in place: unique, full-text and spatial ones, those on expressions, those that an `AUTO_INCREMENT` column needs, and
/// those that start with a column of a foreign key or one that a foreign key elsewhere (`referenced`) points to: InnoDB
/// would make its own in their stead. A system-versioned table keeps them all, because it refuses to be altered.
pub(super) fn split(create: &str, referenced: &BTreeSet<String>) -> Split {
    let lines: Vec<&str> = create.split('\n').collect();
    let Some(end) = lines.iter().position(|line| line.starts_with(')')) else {
        return whole(create);
    };
    let is_versioned = create.contains("SYSTEM VERSIONING");
    let mut needed = needed_columns(&lines[..end]);
    needed.extend(referenced.iter().cloned());
    let may_wait = |line: &&str| plain_index(line).is_some_and(|(_, first)| !needed.contains(&first));
    let (late, mut kept): (Vec<&str>, Vec<&str>) = lines[..end].iter().partition(|line| may_wait(line));
    // Everything but definitions, one a line, is beyond this reader.
    if is_versioned || late.is_empty() || kept.len() < 2 {
        return whole(create);
    }
    let last = kept.len() - 1;
    kept[last] = kept[last].trim_end_matches(',');
    kept.extend(&lines[end..]);
    let deferred = late.into_iter().filter_map(index).collect();
    Split { create: kept.join("\n"), deferred }
}

/// Returns `(table, first column)` of what each foreign key of a `CREATE TABLE` statement points to; the table as
/// `schema.table`, in the table's own schema unless it says another.
pub(super) fn references(create: &str, schema: &str) -> Vec<(String, String)> {
    let keys = create.split('\n').filter(|line| line.contains(" FOREIGN KEY "));
    keys.filter_map(|line| reference(line, schema)).collect()
}

fn reference(line: &str, schema: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once(" REFERENCES ")?;
    let (mut table, mut rest) = name(rest)?;
    let mut of = schema.to_owned();
    if let Some(after) = rest.strip_prefix('.') {
        of = std::mem::take(&mut table);
        (table, rest) = name(after)?;
    }
    let (column, _) = name(rest.trim_start().strip_prefix('(')?)?;
    Some((format!("{of}.{table}"), column))
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

fn whole(create: &str) -> Split {
    Split { create: create.to_owned(), deferred: Vec::new() }
}

fn index(line: &str) -> Option<Index> {
    let (name, _) = plain_index(line)?;
    let definition = line.trim().trim_end_matches(',').to_owned();
    Some(Index { name, definition })
}

/// Returns name and first column of a line such as ``  KEY `name` (`column`,…),``.
fn plain_index(line: &str) -> Option<(String, String)> {
    let (index, rest) = name(line.strip_prefix("  KEY ")?)?;
    let (column, _) = name(rest.strip_prefix(" (")?)?;
    (!line.contains("((") && !line.contains(",(")).then_some((index, column))
}

/// Returns the first columns of foreign keys, and every `AUTO_INCREMENT` column.
fn needed_columns(lines: &[&str]) -> BTreeSet<String> {
    let foreign = lines.iter().filter_map(|line| name(line.split_once(" FOREIGN KEY (")?.1));
    let automatic =
        lines.iter().filter(|line| line.contains(" AUTO_INCREMENT")).filter_map(|line| name(line.trim_start()));
    foreign.chain(automatic).map(|(name, _)| name).collect()
}

/// Reads a name in backquotes and returns it with the rest of the text.
fn name(text: &str) -> Option<(String, &str)> {
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
        assert_eq!(
            split.deferred,
            [Index { name: "by`placed".to_owned(), definition: "KEY `by``placed` (`placed`,`id`)".to_owned() }]
        );
        assert_eq!(split.create, ORDERS.replace("  KEY `by``placed` (`placed`,`id`),\n", ""));
    }

    #[test]
    fn the_last_definition_left_has_no_comma() {
        let create = "CREATE TABLE `t` (\n  `a` int,\n  KEY `k` (`a`)\n) ENGINE=InnoDB";
        let split = split(create, &BTreeSet::new());
        assert_eq!(split.create, "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB");
    }

    #[test]
    fn an_index_that_a_foreign_key_elsewhere_points_to_stays() {
        let split = split(ORDERS, &BTreeSet::from(["placed".to_owned()]));
        assert_eq!(split, whole(ORDERS));
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
            [(text("other.customers"), text("id")), (text("mall.shops"), text("id"))]
        );
    }
}
