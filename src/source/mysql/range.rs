//! Ranges of a table by its key, as conditions that an index follows without sorting.
//!
//! A tuple comparison is written as a chain of disjoint intervals: servers turn `(a, b) > (1, 2)` into a scan of the whole
//! table, and `(a = 1 AND b > 2) OR a > 1` into two steps of the index.

use crate::mysql::sql::{ident, idents, qualified};
use crate::source::mysql::inventory::Table;

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
    pub(crate) fn condition(&self, columns: &[String]) -> Option<String> {
        let columns: Vec<String> = columns.iter().map(|name| ident(name)).collect();
        match (&self.lower, &self.upper) {
            (None, None) => None,
            (Some(lower), None) => Some(above(&columns, lower)),
            (None, Some(upper)) => Some(up_to(&columns, upper)),
            (Some(lower), Some(upper)) => Some(between(&columns, lower, upper)),
        }
    }
}

/// `key > bound`.
fn above(columns: &[String], bound: &[String]) -> String {
    match (columns, bound) {
        ([column], [value]) => format!("{column} > {value}"),
        ([column, columns @ ..], [value, bound @ ..]) => {
            format!("(({column} = {value} AND {}) OR {column} > {value})", above(columns, bound))
        }
        _ => "TRUE".to_owned(),
    }
}

/// `key <= bound`.
fn up_to(columns: &[String], bound: &[String]) -> String {
    match (columns, bound) {
        ([column], [value]) => format!("{column} <= {value}"),
        ([column, columns @ ..], [value, bound @ ..]) => {
            format!("({column} < {value} OR ({column} = {value} AND {}))", up_to(columns, bound))
        }
        _ => "TRUE".to_owned(),
    }
}

/// `lower < key <= upper`, the equal head of the two taken out.
fn between(columns: &[String], lower: &[String], upper: &[String]) -> String {
    let ([column, columns @ ..], [low, lower @ ..], [high, upper @ ..]) = (columns, lower, upper) else {
        // Equal bounds hold nothing.
        return "FALSE".to_owned();
    };
    if low == high {
        return format!("({column} = {low} AND {})", between(columns, lower, upper));
    }
    if columns.is_empty() {
        return format!("({column} > {low} AND {column} <= {high})");
    }
    format!(
        "(({column} = {low} AND {}) OR ({column} > {low} AND {column} < {high}) OR ({column} = {high} AND {}))",
        above(columns, lower),
        up_to(columns, upper)
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
    if let Some(condition) = range.condition(&key.columns) {
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

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn condition(lower: &[&str], upper: &[&str]) -> String {
        let bound = |values: &[&str]| (!values.is_empty()).then(|| texts(values));
        let range = Range { lower: bound(lower), upper: bound(upper) };
        range.condition(&texts(&["a", "b", "c"])).unwrap_or_default()
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
        let literals: Vec<Vec<String>> =
            bounds.iter().map(|bound| bound.map(|value| value.to_string()).to_vec()).collect();
        let ranges = Range::between(&literals);
        for number in 0..64 {
            let key = [number / 16, number / 4 % 4, number % 4];
            let place = bounds.iter().filter(|bound| **bound < key).count();
            let found: Vec<usize> = (0..ranges.len())
                .filter(|at| holds(&ranges[*at].condition(&texts(&["a", "b", "c"])).expect("a condition"), key))
                .collect();
            assert_eq!(found, [place], "{key:?}");
        }
    }
}
