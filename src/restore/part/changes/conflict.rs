//! What stands in the way of a row's change: rows that are not among those to change.

use crate::restore::part::changes::{CONFLICTS_MAX, statement};
use crate::source::mysql::MysqlSourceError;
use crate::source::mysql::changes::{Comparand, Pair, Parent, RowChange, Values};

/// The conflicts of a change set.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    pub(super) count: u64,
    /// The first of them.
    pub(super) named: Vec<String>,
}

impl Conflicts {
    /// Asks both servers what the row that is to change would meet.
    pub(super) fn look(
        &mut self,
        pair: &mut Pair<'_>,
        table: &Comparand,
        change: &RowChange,
    ) -> Result<(), MysqlSourceError> {
        match change {
            RowChange::Insert { new } => {
                self.taken(pair, table, new, None)?;
                self.orphaned(pair, table, new, None)
            }
            RowChange::Update { old, new } => {
                self.taken(pair, table, new, Some(old))?;
                self.orphaned(pair, table, new, Some(old))?;
                self.followed(table, old, new);
                Ok(())
            }
            RowChange::Delete { old } => {
                self.moved(pair, table, old)?;
                self.pointed_to(pair, table, old)
            }
        }
    }

    /// Looks for rows of others that have a unique value already. Where all rows are meant, there are no others.
    fn taken(
        &mut self,
        pair: &mut Pair<'_>,
        table: &Comparand,
        new: &Values,
        old: Option<&Values>,
    ) -> Result<(), MysqlSourceError> {
        let Some(ours) = Pair::condition(table).map(str::to_owned) else { return Ok(()) };
        for unique in &table.ties.uniques {
            let is_new = old.is_none_or(|old| unique.fields.iter().any(|at| old[*at] != new[*at]));
            let Some(same) = table.equals(&unique.fields, new).filter(|_| is_new) else { continue };
            let others = format!("{same} AND ({ours}) IS NOT TRUE");
            if pair.is_live(&table.schema, &table.name, &others)? {
                self.note(table, new, &format!("another's row has its value of the unique index `{}`", unique.name));
            }
        }
        Ok(())
    }

    /// Looks for parents that are neither there nor among the rows that come back.
    fn orphaned(
        &mut self,
        pair: &mut Pair<'_>,
        table: &Comparand,
        new: &Values,
        old: Option<&Values>,
    ) -> Result<(), MysqlSourceError> {
        for parent in &table.ties.parents {
            let is_new = old.is_none_or(|old| parent.columns.iter().any(|(at, _)| old[*at] != new[*at]));
            let Some(there) = parent_of(parent, new).filter(|_| is_new) else { continue };
            if !has_parent(pair, parent, &there)? {
                let to = format!("{}.{}", parent.schema, parent.table);
                self.note(table, new, &format!("the row of {to} that it points to is not there (`{}`)", parent.name));
            }
        }
        Ok(())
    }

    /// A row that was another's then may not go: it would be lost to both.
    fn moved(&mut self, pair: &mut Pair<'_>, table: &Comparand, old: &Values) -> Result<(), MysqlSourceError> {
        let Some(ours) = Pair::condition(table) else { return Ok(()) };
        let Some(same) = table.equals(&table.key, old) else { return Ok(()) };
        let others = format!("{same} AND ({ours}) IS NOT TRUE");
        if pair.is_recovered(&table.schema, &table.name, &others)? {
            self.note(table, old, "it was another's row then");
        }
        Ok(())
    }

    /// A row that goes may not be pointed to by a table whose rows stay as they are.
    fn pointed_to(&mut self, pair: &mut Pair<'_>, table: &Comparand, old: &Values) -> Result<(), MysqlSourceError> {
        for child in table.ties.children.iter().filter(|child| !child.is_compared) {
            let Some(points) = statement::points(child, old) else { continue };
            if pair.is_live(&child.schema, &child.table, &points)? {
                self.note(table, old, &format!("rows of {}.{} still point to it", child.schema, child.table));
            }
        }
        Ok(())
    }

    /// A value that others point to may not change where a cascade would follow it.
    fn followed(&mut self, table: &Comparand, old: &Values, new: &Values) {
        let acting = table.ties.children.iter().filter(|child| child.acts_on_update);
        for child in acting.filter(|child| child.columns.iter().any(|(_, at)| old[*at] != new[*at])) {
            self.note(table, old, &format!("a cascade would change rows of {}.{} with it", child.schema, child.table));
        }
    }

    fn note(&mut self, table: &Comparand, row: &Values, what: &str) {
        self.count += 1;
        if self.named.len() < CONFLICTS_MAX {
            let key = table.equals(&table.key, row).unwrap_or_default();
            self.named.push(format!("{} {key}: {what}", table.title()));
        }
    }
}

fn parent_of(parent: &Parent, row: &Values) -> Option<String> {
    let one = |(at, to): &(usize, String)| Some(format!("{} = {}", crate::mysql::sql::ident(to), row[*at].as_ref()?));
    let all: Option<Vec<String>> = parent.columns.iter().map(one).collect();
    all.map(|all| all.join(" AND "))
}

/// Of a table that is compared, what counts are the rows that it will have, and those of others, which stay.
fn has_parent(pair: &mut Pair<'_>, parent: &Parent, there: &str) -> Result<bool, MysqlSourceError> {
    let (schema, name) = (&parent.schema, &parent.table);
    let compared = pair.tables.iter().find(|one| one.schema == *schema && one.name == *name);
    let Some(ours) = compared.map(|one| Pair::condition(one).map(str::to_owned)) else {
        return pair.is_live(schema, name, there);
    };
    let Some(ours) = ours else { return pair.is_recovered(schema, name, there) };
    let comes = pair.is_recovered(schema, name, &format!("{there} AND ({ours})"))?;
    Ok(comes || pair.is_live(schema, name, &format!("{there} AND ({ours}) IS NOT TRUE"))?)
}
