//! What stands in the way of a row's change: rows that are not among those to change.

use crate::restore::part::changes::{CONFLICTS_MAX, statement};
use crate::source::mysql::MysqlSourceError;
use crate::source::mysql::changes::{Child, Comparand, Pair, Parent, RowChange, Unique, Values};

/// The conflicts of a change set.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    pub(super) count: u64,
    /// The first of them.
    pub(super) named: Vec<String>,
    /// The tables as their rows come; they go the other way round.
    order: Vec<(String, String)>,
}

impl Conflicts {
    pub(super) fn in_order(tables: &[Comparand]) -> Self {
        let order = tables.iter().map(|table| (table.schema.clone(), table.name.clone())).collect();
        Self { order, ..Self::default() }
    }

    /// Tells whether the rows of a table come before those of another that is compared.
    fn is_before(&self, table: (&str, &str), other: (&str, &str)) -> bool {
        let place = |(schema, name): (&str, &str)| self.order.iter().position(|(s, n)| s == schema && n == name);
        place(table).zip(place(other)).is_some_and(|(table, other)| table < other)
    }

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
                self.orphaned(pair, table, new, None)?;
                self.too_early(pair, table, new)?;
                self.comes_back(pair, table, new)
            }
            RowChange::Update { old, new } => {
                self.taken(pair, table, new, Some(old))?;
                self.orphaned(pair, table, new, Some(old))?;
                self.late(pair, table, old, new)?;
                self.followed(table, old, new);
                self.pointed_to(pair, table, old, Some(new))?;
                self.is_told(pair, table, old)?;
                self.comes_back(pair, table, new)
            }
            RowChange::Delete { old } => {
                self.moved(pair, table, old)?;
                self.pointed_to(pair, table, old, None)?;
                self.too_late(pair, table, old)?;
                self.is_told(pair, table, old)
            }
        }
    }

    /// A statement that the server would not take.
    pub(super) fn too_long(&mut self, table: &Comparand, change: &RowChange) {
        let (RowChange::Insert { new: row } | RowChange::Update { old: row, .. } | RowChange::Delete { old: row }) =
            change;
        self.note(table, row, "its statement is longer than the server takes (max_allowed_packet)");
    }

    /// Looks for rows that have a unique value already: others', which keep it, and for a row that only changes any, because rows change
    /// one after the other.
    fn taken(
        &mut self,
        pair: &mut Pair<'_>,
        table: &Comparand,
        new: &Values,
        old: Option<&Values>,
    ) -> Result<(), MysqlSourceError> {
        let Some(others) = keepers(table, new, old) else { return Ok(()) };
        for unique in &table.ties.uniques {
            let is_new = old.is_none_or(|old| unique.fields.iter().any(|at| old[*at] != new[*at]));
            let Some(same) = table.equals(&unique.fields, new).filter(|_| is_new) else { continue };
            if pair.is_live(&table.schema, &table.name, &format!("{same} AND {others}"))? {
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

    /// A row that goes, or a value of it that changes, may not be pointed to by rows that stay as they are: of a table that is not
    /// compared, or another's.
    fn pointed_to(
        &mut self,
        pair: &mut Pair<'_>,
        table: &Comparand,
        old: &Values,
        new: Option<&Values>,
    ) -> Result<(), MysqlSourceError> {
        let moves = |child: &&Child| match new {
            None => true,
            Some(new) => !child.acts_on_update && child.columns.iter().any(|(_, at)| old[*at] != new[*at]),
        };
        for child in table.ties.children.iter().filter(moves) {
            let Some(points) = statement::points(child, old) else { continue };
            let Some(staying) = staying(&pair.tables, child, &points) else { continue };
            if pair.is_live(&child.schema, &child.table, &staying)? {
                self.note(table, old, &format!("rows of {}.{} still point to it", child.schema, child.table));
            }
        }
        Ok(())
    }

    /// A row that others point to changes its parent at the end, when a parent that goes should have gone, and a unique value that it
    /// gives up should have been free.
    fn late(
        &mut self,
        pair: &mut Pair<'_>,
        table: &Comparand,
        old: &Values,
        new: &Values,
    ) -> Result<(), MysqlSourceError> {
        if statement::trades_places(table, old, new) || !statement::points_elsewhere(table, old, new) {
            return Ok(());
        }
        for parent in &table.ties.parents {
            let changes = parent.columns.iter().any(|(at, _)| old[*at] != new[*at]);
            let Some(there) = parent_of(parent, old).filter(|_| changes) else { continue };
            if !has_parent(pair, parent, &there)? {
                let to = format!("{}.{}", parent.schema, parent.table);
                self.note(table, old, &format!("the row of {to} that it points to goes, and rows point to it itself"));
            }
        }
        for (unique, given_up) in given_up(table, old, new) {
            if pair.is_recovered(&table.schema, &table.name, &given_up)? {
                let what =
                    format!("another row comes with its value of the unique index `{unique}`, and rows point to it");
                self.note(table, old, &what);
            }
        }
        Ok(())
    }

    /// A row may not come before the row that it points to: of its own table, or of one in a ring with it.
    fn too_early(&mut self, pair: &mut Pair<'_>, table: &Comparand, new: &Values) -> Result<(), MysqlSourceError> {
        for parent in &table.ties.parents {
            let Some(there) = parent_of(parent, new) else { continue };
            let (schema, name) = (parent.schema.as_str(), parent.table.as_str());
            let comes_later = if table.is_itself(schema, name) {
                later(table, new, &there)
            } else if self.is_before((&table.schema, &table.name), (schema, name)) {
                there.clone()
            } else {
                continue;
            };
            if pair.is_recovered(schema, name, &comes_later)? && !pair.is_live(schema, name, &there)? {
                self.note(table, new, &format!("it points to a row of {schema}.{name} that comes after it"));
            }
        }
        Ok(())
    }

    /// A row may not go before a row that points to it: of its own table, or of one in a ring with it.
    fn too_late(&mut self, pair: &mut Pair<'_>, table: &Comparand, old: &Values) -> Result<(), MysqlSourceError> {
        for child in &table.ties.children {
            let Some(points) = statement::points(child, old) else { continue };
            let (schema, name) = (child.schema.as_str(), child.table.as_str());
            let goes_later = if table.is_itself(schema, name) {
                earlier(table, old, &points)
            } else if self.is_before((schema, name), (&table.schema, &table.name)) {
                points
            } else {
                continue;
            };
            if pair.is_live(schema, name, &goes_later)? {
                self.note(table, old, &format!("a row of {schema}.{name} that points to it goes after it"));
            }
        }
        Ok(())
    }

    /// A row must be found by the values that were read of it, as it is when it changes: a document may hold what no text tells.
    fn is_told(&mut self, pair: &mut Pair<'_>, table: &Comparand, old: &Values) -> Result<(), MysqlSourceError> {
        if !pair.is_live(&table.schema, &table.name, &statement::as_it_was(table, old))? {
            self.note(table, old, "a value of it cannot be told exactly in a statement");
        }
        Ok(())
    }

    /// The values that are to be written must be those of the sandbox's row, and such as the server takes.
    fn comes_back(&mut self, pair: &mut Pair<'_>, table: &Comparand, new: &Values) -> Result<(), MysqlSourceError> {
        let is_same = pair.is_recovered(&table.schema, &table.name, &statement::as_it_was(table, new))?;
        if !is_same || table.fields.iter().zip(new).any(|(field, value)| field.is_invalid(value.as_deref())) {
            self.note(table, new, "a value of it cannot be written back exactly");
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
            let key = statement::key(table, row);
            self.named.push(format!("{} {key}: {what}", table.title()));
        }
    }
}

fn parent_of(parent: &Parent, row: &Values) -> Option<String> {
    let one = |(at, to): &(usize, String)| Some(format!("{} = {}", crate::mysql::sql::ident(to), row[*at].as_ref()?));
    let all: Option<Vec<String>> = parent.columns.iter().map(one).collect();
    all.map(|all| all.join(" AND "))
}

/// Returns the condition of the rows that keep a unique value which a row is to have: others', and of a row that only changes all but
/// itself. None where there are no such rows.
fn keepers(table: &Comparand, new: &Values, old: Option<&Values>) -> Option<String> {
    let changes = old.filter(|old| !statement::trades_places(table, old, new));
    let itself = changes.and_then(|old| table.equals(&table.key, old));
    let ours = || Pair::condition(table).map(|ours| format!("({ours}) IS NOT TRUE"));
    itself.map(|itself| format!("NOT ({itself})")).or_else(ours)
}

/// Returns the unique values that a row gives up, each as the condition that another row has it.
fn given_up<'a>(table: &'a Comparand, old: &Values, new: &Values) -> Vec<(&'a str, String)> {
    let changed = table.ties.uniques.iter().filter(|unique| unique.fields.iter().any(|at| old[*at] != new[*at]));
    let itself = table.equals(&table.key, old).unwrap_or_else(|| "FALSE".to_owned());
    let taken = |unique: &'a Unique| {
        Some((unique.name.as_str(), format!("{} AND NOT ({itself})", table.equals(&unique.fields, old)?)))
    };
    changed.filter_map(taken).collect()
}

/// Returns the condition that a row of the same table comes after one.
fn later(table: &Comparand, row: &Values, condition: &str) -> String {
    format!("{condition} AND NOT ({})", table.up_to(row))
}

/// Returns the condition that a row of the same table comes before one, and so goes after it.
fn earlier(table: &Comparand, row: &Values, condition: &str) -> String {
    let itself = table.equals(&table.key, row).unwrap_or_else(|| "FALSE".to_owned());
    format!("{condition} AND {} AND NOT ({itself})", table.up_to(row))
}

/// Returns the condition that a row of a child that points somewhere stays as it is; none where all of its rows are compared.
fn staying(tables: &[Comparand], child: &Child, points: &str) -> Option<String> {
    let compared = tables.iter().find(|one| one.is_itself(&child.schema, &child.table));
    match compared.map(Pair::condition) {
        None => Some(points.to_owned()),
        Some(ours) => ours.map(|ours| format!("{points} AND ({ours}) IS NOT TRUE")),
    }
}

/// Of a table that is compared, what counts are the rows that it will have, and those of others, which stay.
fn has_parent(pair: &mut Pair<'_>, parent: &Parent, there: &str) -> Result<bool, MysqlSourceError> {
    let (schema, name) = (&parent.schema, &parent.table);
    let compared = pair.tables.iter().find(|one| one.is_itself(schema, name));
    let Some(ours) = compared.map(|one| Pair::condition(one).map(str::to_owned)) else {
        return pair.is_live(schema, name, there);
    };
    let Some(ours) = ours else { return pair.is_recovered(schema, name, there) };
    let comes = pair.is_recovered(schema, name, &format!("{there} AND ({ours})"))?;
    Ok(comes || pair.is_live(schema, name, &format!("{there} AND ({ours}) IS NOT TRUE"))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::row::KeyKind;
    use crate::source::mysql::changes::{Exact, Field, Ties};

    /// Orders of a shop, with a unique code; items point to them if they do.
    fn orders(is_pointed_to: bool, condition: Option<&str>) -> Comparand {
        let field = |name: &str| {
            let (name, definition) = (name.to_owned(), String::new());
            Field { name, definition, kind: KeyKind::Number, exact: Exact::Plain }
        };
        let children = if is_pointed_to { vec![items()] } else { Vec::new() };
        let uniques = vec![Unique { name: "code".to_owned(), fields: vec![1] }];
        let ties = Ties { uniques, parents: Vec::new(), children };
        Comparand::for_tests("mall", "orders", vec![field("id"), field("code")], vec![0], ties).of(condition)
    }

    fn items() -> Child {
        Child {
            schema: "mall".to_owned(),
            table: "items".to_owned(),
            columns: vec![("order_id".to_owned(), 0)],
            acts_on_delete: false,
            acts_on_update: false,
            is_compared: true,
        }
    }

    fn row(id: &str, code: &str) -> Values {
        vec![Some(id.to_owned()), Some(code.to_owned())]
    }

    #[test]
    fn a_unique_value_is_kept_by_others_and_where_rows_only_change_by_any() {
        let (old, new) = (row("7", "1"), row("7", "2"));
        let told = |is_pointed_to, condition, old| keepers(&orders(is_pointed_to, condition), &new, old);
        let others = Some("(shop = 3) IS NOT TRUE".to_owned());
        assert_eq!(told(false, None, None), None);
        assert_eq!(told(false, Some("shop = 3"), None), others);
        assert_eq!(told(false, Some("shop = 3"), Some(&old)), others, "it goes and comes");
        assert_eq!(told(true, Some("shop = 3"), Some(&old)), Some("NOT (`id` = 7)".to_owned()));
        assert_eq!(told(true, None, Some(&old)), Some("NOT (`id` = 7)".to_owned()));
    }

    #[test]
    fn rows_that_point_stay_unless_they_are_compared_themselves() {
        let of_items = |condition| {
            let ties = Ties::default();
            Comparand::for_tests("mall", "items", Vec::new(), Vec::new(), ties).of(condition)
        };
        let told = |tables: &[Comparand]| staying(tables, &items(), "`order_id` = 7");
        assert_eq!(told(&[]), Some("`order_id` = 7".to_owned()));
        assert_eq!(told(&[of_items(None)]), None);
        let others = "`order_id` = 7 AND (shop = 3) IS NOT TRUE";
        assert_eq!(told(&[of_items(Some("shop = 3"))]), Some(others.to_owned()));
    }

    #[test]
    fn what_comes_later_and_what_goes_later_go_by_the_key() {
        let (table, order) = (orders(false, None), row("7", "1"));
        assert_eq!(later(&table, &order, "`id` = 9"), "`id` = 9 AND NOT (`id` <= 7)");
        assert_eq!(earlier(&table, &order, "`up` = 7"), "`up` = 7 AND `id` <= 7 AND NOT (`id` = 7)");
    }

    #[test]
    fn a_value_that_is_given_up_at_the_end_is_not_free_before() {
        let (table, old) = (orders(true, None), row("7", "1"));
        let expected = [("code", "`code` = 1 AND NOT (`id` = 7)".to_owned())];
        assert_eq!(given_up(&table, &old, &row("7", "2")), expected);
        assert!(given_up(&table, &old, &old.clone()).is_empty());
    }

    #[test]
    fn of_a_ring_one_table_comes_before_another() {
        let conflicts = Conflicts {
            order: [("mall", "a"), ("mall", "b")].map(|(s, n)| (s.to_owned(), n.to_owned())).into(),
            ..Conflicts::default()
        };
        assert!(
            conflicts.is_before(("mall", "a"), ("mall", "b")) && !conflicts.is_before(("mall", "b"), ("mall", "a"))
        );
        assert!(!conflicts.is_before(("mall", "a"), ("mall", "c")), "it is not compared");
    }
}
