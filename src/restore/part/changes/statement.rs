//! One row's change as a statement that changes this row as it was, or none.

use crate::mysql::sql::{ident, idents, qualified};
use crate::source::mysql::changes::{Child, Comparand, Exact, Values};

pub(super) use remark::{key, remark};

mod remark;

pub(super) fn insert(table: &Comparand, new: &Values) -> String {
    let columns = idents(table.fields.iter().map(|field| field.name.as_str()));
    let values: Vec<&str> = new.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
    format!("INSERT INTO {} ({columns}) VALUES ({});", qualified(&table.schema, &table.name), values.join(", "))
}

/// Sets all that is no key: a column that is left out might take the time of the change.
pub(super) fn update(table: &Comparand, old: &Values, new: &Values) -> String {
    let others = table.fields.iter().zip(new).enumerate().filter(|(at, _)| !table.key.contains(at));
    let set =
        others.map(|(_, (field, value))| format!("{} = {}", ident(&field.name), value.as_deref().unwrap_or("NULL")));
    let set: Vec<String> = set.collect();
    format!("UPDATE {} SET {} WHERE {};", qualified(&table.schema, &table.name), set.join(", "), as_it_was(table, old))
}

pub(super) fn delete(table: &Comparand, old: &Values) -> String {
    let mut condition = as_it_was(table, old);
    for child in table.ties.children.iter().filter(|child| child.acts_on_delete) {
        if let Some(points) = points(child, old) {
            let child = qualified(&child.schema, &child.table);
            condition.push_str(&format!(" AND NOT EXISTS (SELECT 1 FROM {child} WHERE {points})"));
        }
    }
    format!("DELETE FROM {} WHERE {condition};", qualified(&table.schema, &table.name))
}

/// Returns the condition that a row of a child points to a row; none where it points by a NULL, which nothing equals.
pub(super) fn points(child: &Child, row: &Values) -> Option<String> {
    let one = |(column, at): &(String, usize)| Some(format!("{} = {}", ident(column), row[*at].as_ref()?));
    let all: Option<Vec<String>> = child.columns.iter().map(one).collect();
    all.map(|all| all.join(" AND "))
}

/// Returns the condition that a row is the one that was compared: by its key, for the index, and by every value to the last bit.
pub(super) fn as_it_was(table: &Comparand, old: &Values) -> String {
    let by_key = table.equals(&table.key, old).unwrap_or_else(|| "FALSE".to_owned());
    let is_told = |at: usize| table.key.contains(&at) && table.fields[at].exact == Exact::Plain;
    let others = table.fields.iter().zip(old).enumerate().filter(|(at, _)| !is_told(*at));
    let exact = others.map(|(_, (field, value))| field.is(value.as_ref()));
    std::iter::once(by_key).chain(exact).collect::<Vec<_>>().join(" AND ")
}

/// Tells whether a row had better go and come: a unique value of it changes, and another row may have it until it goes itself; or it
/// points to another parent, which comes before it and goes after it. Not one that others point to.
pub(super) fn trades_places(table: &Comparand, old: &Values, new: &Values) -> bool {
    let changes = |at: &usize| old[*at] != new[*at];
    let is_unique = table.ties.uniques.iter().any(|unique| unique.fields.iter().any(changes));
    table.ties.children.is_empty() && (is_unique || points_elsewhere(table, old, new))
}

/// Tells whether a row points to another parent than before.
pub(super) fn points_elsewhere(table: &Comparand, old: &Values, new: &Values) -> bool {
    table.ties.parents.iter().any(|parent| parent.columns.iter().any(|(at, _)| old[*at] != new[*at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::row::KeyKind;
    use crate::source::mysql::changes::{Field, Parent, Ties, Unique};

    fn orders() -> Comparand {
        let field = |name: &str, kind, exact| Field { name: name.to_owned(), definition: String::new(), kind, exact };
        let text = KeyKind::Text { charset: "utf8mb4".to_owned() };
        let fields = vec![
            field("shop", text.clone(), Exact::Bytes),
            field("id", KeyKind::Number, Exact::Plain),
            field("note", text, Exact::Bytes),
        ];
        let items = Child {
            schema: "mall".to_owned(),
            table: "items".to_owned(),
            columns: vec![("shop".to_owned(), 0), ("order_id".to_owned(), 1)],
            acts_on_delete: true,
            acts_on_update: false,
            is_compared: true,
        };
        let uniques = vec![Unique { name: "note".to_owned(), fields: vec![2] }];
        let ties = Ties { uniques, parents: Vec::new(), children: vec![items] };
        Comparand::for_tests("mall", "orders", fields, vec![0, 1], ties)
    }

    fn row(shop: &str, id: &str, note: Option<&str>) -> Values {
        vec![Some(shop.to_owned()), Some(id.to_owned()), note.map(str::to_owned)]
    }

    #[test]
    fn a_row_is_changed_only_as_it_was_and_goes_only_if_no_cascade_follows() {
        let old = row("_utf8mb4 X'61'", "7", Some("_utf8mb4 X'62'"));
        let was = "`shop` = _utf8mb4 X'61' AND `id` = 7 AND CAST(`shop` AS BINARY) = X'61' AND CAST(`note` AS BINARY) = X'62'";
        assert_eq!(
            update(&orders(), &old, &row("_utf8mb4 X'61'", "7", None)),
            format!("UPDATE `mall`.`orders` SET `note` = NULL WHERE {was};")
        );
        let points = "`shop` = _utf8mb4 X'61' AND `order_id` = 7";
        assert_eq!(
            delete(&orders(), &old),
            format!(
                "DELETE FROM `mall`.`orders` WHERE {was} AND NOT EXISTS (SELECT 1 FROM `mall`.`items` WHERE {points});"
            )
        );
        assert_eq!(
            insert(&orders(), &row("_utf8mb4 X'61'", "7", None)),
            "INSERT INTO `mall`.`orders` (`shop`, `id`, `note`) VALUES (_utf8mb4 X'61', 7, NULL);"
        );
    }

    #[test]
    fn rows_trade_places_where_a_unique_value_changes_and_nothing_points_to_them() {
        let (mut table, old, new) = (orders(), row("X'61'", "7", None), row("X'61'", "7", Some("X'62'")));
        assert!(!trades_places(&table, &old, &new), "a row that others point to stays");
        table.ties.children.clear();
        assert!(trades_places(&table, &old, &new));
        table.ties.uniques.clear();
        assert!(!trades_places(&table, &old, &new));
        let (schema, name) = ("mall".to_owned(), "notes".to_owned());
        table.ties.parents =
            vec![Parent { name: "n".to_owned(), schema, table: name, columns: vec![(2, "id".to_owned())] }];
        assert!(trades_places(&table, &old, &new), "it points to another parent");
        assert!(!trades_places(&table, &old, &old.clone()));
    }
}
