//! Ranges of a table by its key, as conditions that an index follows without sorting.
//!
//! A tuple comparison is written as a chain of disjoint intervals: servers turn `(a, b) > (1, 2)` into a scan of the whole
//! table, and `(a = 1 AND b > 2) OR a > 1` into two steps of the index.

use crate::mysql::row::KeyColumn;
use crate::mysql::sql::{ident, idents, qualified};
use crate::source::mysql::inventory::Table;
use crate::source::mysql::key::{Key, is_loose};

/// The rows with `lower < key <= upper`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Range {
    pub(crate) lower: Option<Vec<String>>,
    pub(crate) upper: Option<Vec<String>>,
}

impl Range {
    /// Returns the ranges between ascending bounds: one more than there are bounds.
    pub(crate) fn between(bounds: &[Vec<String>]) -> Vec<Self> {
        let lowers = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
        let uppers = bounds.iter().cloned().map(Some).chain(std::iter::once(None));
        lowers.zip(uppers).map(|(lower, upper)| Self { lower, upper }).collect()
    }

    /// Returns the condition on the key's columns, or `None` where all rows are meant.
    pub(crate) fn condition(&self, key: &Key) -> Option<String> {
        let columns: Vec<Column> = key.columns.iter().zip(&key.parts).map(Column::new).collect();
        match (&self.lower, &self.upper) {
            (None, None) => None,
            (Some(lower), None) => Some(above(&columns, lower)),
            (None, Some(upper)) => Some(up_to(&columns, upper)),
            (Some(lower), Some(upper)) => Some(between(&columns, lower, upper)),
        }
    }
}

/// A column of the key, as conditions see it.
struct Column {
    /// Quoted.
    name: String,
    /// Two literals of other bytes may be one value: a collation takes `a` for `A`, a double has two zeros.
    is_loose: bool,
}

impl Column {
    fn new((name, part): (&String, &KeyColumn)) -> Self {
        Self { name: ident(name), is_loose: is_loose(&part.kind) }
    }
}

/// `key > bound`.
fn above(columns: &[Column], bound: &[String]) -> String {
    match (columns, bound) {
        ([Column { name, .. }], [value]) => format!("{name} > {value}"),
        ([Column { name, .. }, columns @ ..], [value, bound @ ..]) => {
            format!("(({name} = {value} AND {}) OR {name} > {value})", above(columns, bound))
        }
        _ => "TRUE".to_owned(),
    }
}

/// `key <= bound`.
fn up_to(columns: &[Column], bound: &[String]) -> String {
    match (columns, bound) {
        ([Column { name, .. }], [value]) => format!("{name} <= {value}"),
        ([Column { name, .. }, columns @ ..], [value, bound @ ..]) => {
            format!("({name} < {value} OR ({name} = {value} AND {}))", up_to(columns, bound))
        }
        _ => "TRUE".to_owned(),
    }
}

/// `lower < key <= upper`, the equal head of the two taken out.
fn between(columns: &[Column], lower: &[String], upper: &[String]) -> String {
    let ([Column { name, is_loose }, tail @ ..], [low, lows @ ..], [high, highs @ ..]) = (columns, lower, upper) else {
        // Equal bounds hold nothing.
        return "FALSE".to_owned();
    };
    if low == high {
        return format!("({name} = {low} AND {})", between(tail, lows, highs));
    }
    if tail.is_empty() {
        return format!("({name} > {low} AND {name} <= {high})");
    }
    if *is_loose {
        // The server may hold the two for equal, and then each alternative below would take all rows of this one value.
        return format!("({} AND {})", above(columns, lower), up_to(columns, upper));
    }
    format!(
        "(({name} = {low} AND {}) OR ({name} > {low} AND {name} < {high}) OR ({name} = {high} AND {}))",
        above(tail, lows),
        up_to(tail, highs)
    )
}

/// Returns the statement that reads a range's rows in the order of the key.
pub(crate) fn select_rows(table: &Table, columns: &[&str], range: &Range) -> String {
    format!("SELECT {} {}", idents(columns.iter().copied()), from_where(table, range))
}

/// Returns the statement that finds the key of the last of the next `rows` rows above a bound.
pub(crate) fn select_bound(table: &Table, key: &[String], lower: Option<&Vec<String>>, rows: u64) -> String {
    let range = Range { lower: lower.cloned(), upper: None };
    let columns = idents(key.iter().map(String::as_str));
    format!("SELECT {columns} {} LIMIT 1 OFFSET {}", from_where(table, &range), rows.saturating_sub(1))
}

fn from_where(table: &Table, range: &Range) -> String {
    let mut sql = format!("FROM {}", qualified(&table.schema, &table.name));
    if table.has_history {
        sql.push_str(" FOR SYSTEM_TIME ALL");
    }
    let Some(key) = &table.key else {
        // By no index: in the order in which the rows were stored.
        sql.push_str(" USE INDEX ()");
        return sql;
    };
    sql.push_str(" FORCE INDEX (");
    sql.push_str(&ident(&key.index));
    sql.push(')');
    if let Some(condition) = range.condition(key) {
        sql.push_str(" WHERE ");
        sql.push_str(&condition);
    }
    sql.push_str(" ORDER BY ");
    sql.push_str(&idents(key.order.iter().map(String::as_str)));
    sql
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::mysql::row::KeyKind;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn condition(lower: &[&str], upper: &[&str]) -> String {
        let bound = |values: &[&str]| (!values.is_empty()).then(|| texts(values));
        let range = Range { lower: bound(lower), upper: bound(upper) };
        range.condition(&key(&KeyKind::Number)).unwrap_or_default()
    }

    /// Returns a key of three columns, the first of this kind.
    fn key(first: &KeyKind) -> Key {
        let kinds = [first.clone(), KeyKind::Number, KeyKind::Number];
        Key {
            index: "PRIMARY".to_owned(),
            columns: texts(&["a", "b", "c"]),
            parts: kinds.into_iter().enumerate().map(|(index, kind)| KeyColumn { index, kind }).collect(),
            order: texts(&["a", "b", "c"]),
            is_unique: true,
            collations: vec![None; 3],
        }
    }

    #[test]
    fn a_range_is_a_chain_of_disjoint_intervals() {
        assert_eq!(condition(&[], &[]), "");
        assert_eq!(condition(&["1", "2", "3"], &[]), "((`a` = 1 AND ((`b` = 2 AND `c` > 3) OR `b` > 2)) OR `a` > 1)");
        assert_eq!(condition(&[], &["1", "2", "3"]), "(`a` < 1 OR (`a` = 1 AND (`b` < 2 OR (`b` = 2 AND `c` <= 3))))");
        assert_eq!(
            condition(&["1", "2", "3"], &["1", "9", "4"]),
            "(`a` = 1 AND ((`b` = 2 AND `c` > 3) OR (`b` > 2 AND `b` < 9) OR (`b` = 9 AND `c` <= 4)))"
        );
        assert_eq!(condition(&["1", "2", "3"], &["1", "2", "5"]), "(`a` = 1 AND (`b` = 2 AND (`c` > 3 AND `c` <= 5)))");
        assert_eq!(condition(&["1", "2", "3"], &["1", "2", "3"]), "(`a` = 1 AND (`b` = 2 AND (`c` = 3 AND FALSE)))");
    }

    /// Evaluates a condition for one key, as a server would.
    fn holds(condition: &str, key: [i32; 3]) -> bool {
        let mut rest = condition;
        parse_or(&mut rest, key)
    }

    /// What a collation makes of a literal: 2 is 3, as `a` is `A`.
    fn collated(literal: i32) -> i32 {
        literal / 2
    }

    fn parse_or(rest: &mut &str, key: [i32; 3]) -> bool {
        let mut value = parse_and(rest, key);
        while let Some(tail) = rest.strip_prefix(" OR ") {
            *rest = tail;
            value |= parse_and(rest, key);
        }
        value
    }

    fn parse_and(rest: &mut &str, key: [i32; 3]) -> bool {
        let mut value = parse_atom(rest, key);
        while let Some(tail) = rest.strip_prefix(" AND ") {
            *rest = tail;
            value &= parse_atom(rest, key);
        }
        value
    }

    fn parse_atom(rest: &mut &str, key: [i32; 3]) -> bool {
        if let Some(tail) = rest.strip_prefix('(') {
            *rest = tail;
            let value = parse_or(rest, key);
            *rest = rest.strip_prefix(')').expect("closed");
            return value;
        }
        if let Some(tail) = rest.strip_prefix("FALSE") {
            *rest = tail;
            return false;
        }
        let column = usize::from(rest.as_bytes()[1] - b'a');
        let (operator, tail) = rest[4..].split_once(' ').expect("an operator");
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let bound: i32 = tail[..end].parse().expect("a number");
        *rest = &tail[end..];
        match operator {
            "=" => key[column] == bound,
            ">" => key[column] > bound,
            "<" => key[column] < bound,
            _ => key[column] <= bound,
        }
    }

    #[test]
    fn ranges_between_bounds_hold_every_key_once() {
        let bounds = [[0, 1, 1], [0, 2, 0], [1, 0, 2], [1, 0, 3], [2, 2, 2]];
        let key_of_numbers = key(&KeyKind::Number);
        let ranges = ranges(&bounds);
        for number in 0..64 {
            let key = [number / 16, number / 4 % 4, number % 4];
            let place = bounds.iter().filter(|bound| **bound < key).count();
            let found: Vec<usize> = (0..ranges.len())
                .filter(|at| holds(&ranges[*at].condition(&key_of_numbers).expect("a condition"), key))
                .collect();
            assert_eq!(found, [place], "{key:?}");
        }
    }
    fn ranges(bounds: &[[i32; 3]]) -> Vec<Range> {
        let literals: Vec<Vec<String>> =
            bounds.iter().map(|bound| bound.map(|value| value.to_string()).to_vec()).collect();
        Range::between(&literals)
    }

    #[test]
    fn bounds_of_one_value_in_two_spellings_hold_every_key_once() {
        let bounds = [[2, 1, 1], [3, 2, 0], [2, 2, 3], [4, 0, 2], [5, 0, 3]];
        let text = key(&KeyKind::Text { charset: "latin1".to_owned() });
        let ranges = ranges(&bounds);
        for number in 0..96 {
            let row = [number / 16, number / 4 % 4, number % 4];
            let value = |[a, b, c]: [i32; 3]| [collated(a), b, c];
            let place = bounds.iter().filter(|bound| value(**bound) < value(row)).count();
            let is_in = |at: &usize| {
                let condition = ranges[*at].condition(&text).expect("a condition");
                holds(&spelt_alike(&condition), value(row))
            };
            assert_eq!((0..ranges.len()).filter(is_in).collect::<Vec<_>>(), [place], "{row:?}");
        }
    }

    /// Puts the value of each literal of column `a` in its place.
    fn spelt_alike(condition: &str) -> String {
        let mut spelt = condition.to_owned();
        for operator in ["=", "<", ">", "<="] {
            for literal in (2..=5).rev() {
                let of = |literal: i32| format!("`a` {operator} {literal}");
                spelt = spelt.replace(&of(literal), &of(collated(literal)).replace('`', "\""));
            }
        }
        spelt.replace('"', "`")
    }
}
