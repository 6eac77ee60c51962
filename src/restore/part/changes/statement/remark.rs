//! One row's change for who reviews it: statements hold values to the last bit, and in hexadecimal.

use crate::human;
use crate::mysql::sql::ident;
use crate::source::mysql::changes::{Comparand, RowChange, Values};

/// Of a value that is shown.
const VALUE_CHARS_MAX: usize = 60;

/// Returns a comment that says what becomes of a row: all of its values, or those that change.
pub(in crate::restore::part::changes) fn remark(table: &Comparand, change: &RowChange) -> String {
    let key_of = |row: &Values| key(table, row);
    let others: Vec<usize> = (0..table.fields.len()).filter(|at| !table.key.contains(at)).collect();
    let list = |row: &Values| others.iter().map(|at| named(table, *at, row)).collect::<Vec<_>>().join(", ");
    let text = match change {
        RowChange::Insert { new } => format!("insert into {} {}: {}", table.title(), key_of(new), list(new)),
        RowChange::Delete { old } => format!("delete from {} {}: {}", table.title(), key_of(old), list(old)),
        RowChange::Update { old, new } => {
            let changed = others.iter().filter(|at| old[**at] != new[**at]);
            let changed = changed.map(|at| format!("{} -> {}", named(table, *at, old), brief(new[*at].as_deref())));
            format!("update {} {}: {}", table.title(), key_of(old), changed.collect::<Vec<_>>().join(", "))
        }
    };
    // Values come from outside: none may end the comment.
    format!("-- {}", human::printable(&text))
}

/// Returns a row's key for people.
pub(in crate::restore::part::changes) fn key(table: &Comparand, row: &Values) -> String {
    table.key.iter().map(|at| named(table, *at, row)).collect::<Vec<_>>().join(" AND ")
}

fn named(table: &Comparand, at: usize, row: &Values) -> String {
    format!("{} = {}", ident(&table.fields[at].name), brief(row[at].as_deref()))
}

/// Writes the beginning of a value: a text as such, where its bytes are one.
fn brief(literal: Option<&str>) -> String {
    let Some(literal) = literal else { return "NULL".to_owned() };
    let text = literal
        .strip_prefix('_')
        .and_then(text_of)
        .unwrap_or_else(|| literal.chars().take(VALUE_CHARS_MAX + 1).collect());
    let mut cut: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// Reads `utf8mb4 X'…'`. Bytes of another character set are shown only where they are those of UTF-8.
fn text_of(literal: &str) -> Option<String> {
    let (charset, rest) = literal.split_once(" X'")?;
    // The digits of as many characters as are shown, and of one more.
    let digits: String = rest.trim_end_matches('\'').chars().take(8 * (VALUE_CHARS_MAX + 1)).collect();
    let bytes = hex::decode(digits).ok()?;
    // Those of two and four bytes a character are ASCII to look at.
    let is_wide = charset.starts_with("ucs") || charset.starts_with("utf16") || charset.starts_with("utf32");
    let is_known = charset.starts_with("utf8") || bytes.is_ascii() && !is_wide;
    let text = String::from_utf8_lossy(&bytes);
    is_known.then(|| format!("'{}'", text.trim_end_matches('\u{fffd}')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::row::KeyKind;
    use crate::source::mysql::changes::{Exact, Field, Ties};

    fn row(values: [&str; 3]) -> Values {
        values.iter().map(|value| (*value != "NULL").then(|| (*value).to_owned())).collect()
    }

    #[test]
    fn a_change_is_told_in_readable_values_on_one_line() {
        let field = |name: &str| {
            let (name, definition) = (name.to_owned(), String::new());
            Field { name, definition, kind: KeyKind::Number, exact: Exact::Plain }
        };
        let fields = ["id", "note", "total"].map(field).into();
        let table = Comparand::for_tests("mall", "orders", fields, vec![0], Ties::default());
        let (old, new) = (row(["7", "_utf8mb4 X'ECA3BCEBACB80A2D2D'", "1.50"]), row(["7", "NULL", "1.50"]));
        let told = |change: RowChange| remark(&table, &change);
        assert_eq!(
            told(RowChange::Update { old: old.clone(), new: new.clone() }),
            "-- update mall.orders `id` = 7: `note` = '주문�--' -> NULL"
        );
        assert_eq!(
            told(RowChange::Insert { new }),
            "-- insert into mall.orders `id` = 7: `note` = NULL, `total` = 1.50"
        );
        assert!(told(RowChange::Delete { old }).starts_with("-- delete from mall.orders `id` = 7: `note` = '주문"));
    }

    #[test]
    fn long_and_foreign_values_are_cut_and_left_as_they_are() {
        let long = brief(Some(&format!("_utf8mb4 X'{}'", "EC A3 BC".replace(' ', "").repeat(100))));
        assert!(
            long.starts_with("'주주") && long.ends_with('…') && long.chars().count() == VALUE_CHARS_MAX + 1,
            "{long}"
        );
        assert_eq!(brief(Some("_latin1 X'47FC'")), "_latin1 X'47FC'");
        assert_eq!(brief(Some("_latin1 X'4741'")), "'GA'");
        assert_eq!(brief(Some("_utf16 X'0041'")), "_utf16 X'0041'");
        assert_eq!(brief(Some("'2026-05-01'")), "'2026-05-01'");
    }
}
