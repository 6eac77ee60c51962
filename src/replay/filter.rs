//! Which tables' changes a target applies. Every transaction counts as applied all the same.

use crate::mysql::manifest::Product;
use crate::mysql::sql;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Filter {
    #[default]
    Everything,
    /// Nothing but these tables. No name among them may have a dot or a comma, by which the servers tell them apart.
    Only(Vec<(String, String)>),
    /// All but these: tables, or with an empty name all of a schema. No name may have a comma, by which MariaDB tells them apart.
    AllBut(Vec<(String, String)>),
}

impl Filter {
    /// Returns the column of a channel's status that shows it, and how many places stand there.
    pub(super) fn shown(&self) -> Option<(&'static str, usize)> {
        match self {
            Self::Everything => None,
            Self::Only(tables) => Some(("Replicate_Do_Table", tables.len())),
            Self::AllBut(places) => Some(("Replicate_Wild_Ignore_Table", places.len())),
        }
    }

    /// Returns the statements that set it for a channel whose applier stands still.
    pub(super) fn statements(&self, product: Product, channel: &str) -> Vec<String> {
        let lists = match (self, product) {
            (Self::Everything, _) => return Self::undo(product, channel),
            (Self::Only(tables), Product::MySql) => {
                tables.iter().map(|(schema, table)| sql::qualified(schema, table)).collect::<Vec<_>>()
            }
            (Self::Only(tables), Product::MariaDb) => {
                tables.iter().map(|(schema, table)| format!("{schema}.{table}")).collect()
            }
            (Self::AllBut(places), Product::MySql) => places.iter().map(|place| literal(&pattern(place))).collect(),
            (Self::AllBut(places), Product::MariaDb) => places.iter().map(pattern).collect(),
        };
        let name = if matches!(self, Self::Only(_)) { "replicate_do_table" } else { "replicate_wild_ignore_table" };
        match product {
            Product::MySql => {
                let name = name.to_ascii_uppercase();
                vec![
                    // A server may take backslashes for themselves.
                    "SET SESSION sql_mode = ''".to_owned(),
                    format!("CHANGE REPLICATION FILTER {name} = ({}) FOR CHANNEL '{channel}'", lists.join(", ")),
                ]
            }
            Product::MariaDb => of_connection(channel, name, &lists.join(",")),
        }
    }

    /// Returns the statements that leave no filter, as long as the channel is there. A MySQL forgets them with the channel, a MariaDB
    /// keeps those of a name.
    pub(super) fn undo(product: Product, channel: &str) -> Vec<String> {
        match product {
            Product::MySql => Vec::new(),
            Product::MariaDb => {
                let of = |name| of_connection(channel, name, "");
                [of("replicate_do_table"), of("replicate_wild_ignore_table")].concat()
            }
        }
    }
}

fn of_connection(channel: &str, name: &str, value: &str) -> Vec<String> {
    vec![
        format!("SET SESSION default_master_connection = '{channel}'"),
        format!("SET GLOBAL {name} = {}", sql::string(value)),
        "SET SESSION default_master_connection = ''".to_owned(),
    ]
}

/// Writes a place as the pattern that matches it alone.
fn pattern((schema, table): &(String, String)) -> String {
    let plain = |name: &str| name.replace('\\', r"\\").replace('_', r"\_").replace('%', r"\%");
    format!("{}.{}", plain(schema), if table.is_empty() { "%".to_owned() } else { plain(table) })
}

/// Writes a text as MySQL takes it where it takes no expression.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(places: &[(&str, &str)]) -> Vec<(String, String)> {
        places.iter().map(|(schema, table)| ((*schema).to_owned(), (*table).to_owned())).collect()
    }

    #[test]
    fn what_is_passed_over_is_matched_by_itself_alone() {
        let filter = Filter::AllBut(places(&[("my_tmp", ""), ("mall", "page_views"), ("it's", "100%")]));
        assert_eq!(
            filter.statements(Product::MySql, "bkp")[1],
            r"CHANGE REPLICATION FILTER REPLICATE_WILD_IGNORE_TABLE = ('my\\_tmp.%', 'mall.page\\_views', 'it''s.100\\%') FOR CHANNEL 'bkp'"
        );
        let set = &filter.statements(Product::MariaDb, "bkp")[1];
        let hex = hex::encode_upper(r"my\_tmp.%,mall.page\_views,it's.100\%");
        assert_eq!(*set, format!("SET GLOBAL replicate_wild_ignore_table = _utf8mb4 X'{hex}'"));
        assert_eq!(filter.shown(), Some(("Replicate_Wild_Ignore_Table", 3)));
    }

    #[test]
    fn some_tables_alone_are_named() {
        let filter = Filter::Only(places(&[("mall", "orders"), ("mall", "it`s")]));
        let statements = filter.statements(Product::MySql, "bkp");
        assert!(statements[1].contains("REPLICATE_DO_TABLE = (`mall`.`orders`, `mall`.`it``s`)"), "{statements:?}");
        assert_eq!(
            filter.statements(Product::MariaDb, "bkp")[1],
            "SET GLOBAL replicate_do_table = 'mall.orders,mall.it`s'"
        );
        assert_eq!(Filter::undo(Product::MariaDb, "bkp")[1], "SET GLOBAL replicate_do_table = ''");
        assert_eq!(Filter::Everything.statements(Product::MySql, "bkp"), [""; 0]);
    }
}
