//! The tables whose foreign keys act on others: what a binlog does not show of one, it shows of its parent.

use std::collections::BTreeSet;

use crate::restore::RestoreError;
use crate::restore::part::PartError;
use crate::target::mysql::plan::TableName;
use crate::target::mysql::{DumpReader, LoadError, quoted_name};

/// What a foreign key may do to the rows that point, when the row that they point to changes or goes.
const ACTS: [&str; 3] = ["CASCADE", "SET NULL", "SET DEFAULT"];

/// Returns some tables and, up to the last, the parents of the foreign keys that act on them.
///
/// # Errors
/// [`PartError`] where a definition cannot be read, or a parent is not in the dump.
pub(super) async fn of(dump: &dyn DumpReader, tables: &[TableName]) -> Result<Vec<TableName>, PartError> {
    let mut family: Vec<TableName> = Vec::new();
    let mut open: Vec<TableName> = tables.iter().rev().cloned().collect();
    let mut seen: BTreeSet<TableName> = tables.iter().cloned().collect();
    while let Some((schema, name)) = open.pop() {
        let entry = dump.manifest().tables.iter().find(|entry| entry.schema == schema && entry.name == name);
        let Some(entry) = entry else {
            let (table, child) = (format!("{schema}.{name}"), family.last().map(|(s, t)| format!("{s}.{t}")));
            return Err(PartError::NoParent { table, child: child.unwrap_or_default() });
        };
        let create =
            dump.read(&entry.create).await.map_err(|error| RestoreError::from(Box::new(LoadError::from(error))))?;
        let parents = parents(&String::from_utf8_lossy(&create), &schema);
        open.extend(parents.into_iter().filter(|parent| seen.insert(parent.clone())));
        family.push((schema, name));
    }
    Ok(family)
}

/// Returns the tables that a `CREATE TABLE` statement's acting foreign keys point to.
fn parents(create: &str, schema: &str) -> Vec<TableName> {
    keys(create, schema).filter_map(|(parent, acts)| acts.then_some(parent)).collect()
}

/// Returns the tables that a `CREATE TABLE` statement's foreign keys point to, and whether the keys act. The server prints one
/// definition a line.
pub(in crate::restore) fn keys(create: &str, schema: &str) -> impl Iterator<Item = (TableName, bool)> {
    let lines = create.lines().filter(|line| line.starts_with("  CONSTRAINT ") && line.contains(" FOREIGN KEY ("));
    lines.filter_map(move |line| key(line, schema))
}

fn key(line: &str, schema: &str) -> Option<(TableName, bool)> {
    let (_, rest) = line.split_once(" REFERENCES ")?;
    let (first, rest) = quoted_name(rest)?;
    let (parent, rest) = match rest.strip_prefix('.') {
        Some(after) => {
            let (table, rest) = quoted_name(after)?;
            ((first, table), rest)
        }
        None => ((schema.to_owned(), first), rest),
    };
    let acts = |on: &str| ACTS.iter().any(|act| rest.contains(&format!(" ON {on} {act}")));
    Some((parent, acts("DELETE") || acts("UPDATE")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_those_of_keys_that_act() {
        let create = "CREATE TABLE `items` (\n  `order_id` int NOT NULL COMMENT ' FOREIGN KEY (x) REFERENCES `no` ON DELETE CASCADE',\n  \
            CONSTRAINT `a` FOREIGN KEY (`shop_id`,`order_id`) REFERENCES `orders` (`shop_id`,`id`) ON DELETE CASCADE,\n  \
            CONSTRAINT `b` FOREIGN KEY (`p`) REFERENCES `stock`.`pro``ducts` (`id`) ON DELETE SET NULL ON UPDATE CASCADE,\n  \
            CONSTRAINT `c` FOREIGN KEY (`q`) REFERENCES `rules` (`id`) ON DELETE RESTRICT,\n  \
            CONSTRAINT `d` FOREIGN KEY (`r`) REFERENCES `plain` (`id`)\n) ENGINE=InnoDB";
        let pair = |schema: &str, table: &str| (schema.to_owned(), table.to_owned());
        assert_eq!(parents(create, "mall"), [pair("mall", "orders"), pair("stock", "pro`ducts")]);
    }
}
