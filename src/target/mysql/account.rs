//! Names of users and roles, in one spelling for comparison.

/// Brings `'user'@'host'`, `` `user`@`host` ``, `user@host` and a bare role into the spelling that [`join`] makes.
pub(super) fn plain(name: &str) -> String {
    match name.rsplit_once('@') {
        Some((user, host)) => join(&unquote(user), &unquote(host)),
        None => unquote(name),
    }
}

pub(super) fn join(user: &str, host: &str) -> String {
    format!("{user}@{host}")
}

/// Tells whether an account is the server's own, or the superuser that every target has: neither is ever replaced.
pub(super) fn is_servers_own(name: &str) -> bool {
    let name = plain(name);
    let user = name.rsplit_once('@').map_or(name.as_str(), |(user, _)| user);
    user == "root" || user == "mysql" || user == "PUBLIC" || user.starts_with("mysql.") || user == "mariadb.sys"
}

fn unquote(text: &str) -> String {
    let quotes = ['\'', '`', '"'];
    let found = quotes.iter().find_map(|mark| Some((*mark, text.strip_prefix(*mark)?.strip_suffix(*mark)?)));
    found.map_or_else(|| text.to_owned(), |(mark, inner)| inner.replace(&format!("{mark}{mark}"), &mark.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_reads_the_same_in_every_quoting() {
        for name in ["'shop'@'10.%'", "`shop`@`10.%`", "shop@10.%"] {
            assert_eq!(plain(name), "shop@10.%");
        }
        assert_eq!(plain("`o'hara`@`%`"), "o'hara@%");
        assert_eq!(plain("'o''hara'@'%'"), "o'hara@%");
        assert_eq!(plain("'a@b'@'%'"), "a@b@%");
        assert_eq!(plain("`reader`"), "reader");
    }

    #[test]
    fn the_servers_own_accounts_are_known() {
        assert!(is_servers_own("'root'@'localhost'"));
        assert!(is_servers_own("`mysql.sys`@`localhost`"));
        assert!(is_servers_own("mariadb.sys@localhost"));
        assert!(!is_servers_own("'rooted'@'%'"));
    }
}
