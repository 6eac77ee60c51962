//! The names of owners, as this machine's `/etc/passwd` and `/etc/group` know them.
//!
//! Read once: a directory service is not asked, because a walk over millions of files must not wait for it. Numbers are
//! what comes back on restore; the names are for people.

use std::collections::HashMap;

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    pub(super) fn of_this_machine() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self { users: by_id(&read("/etc/passwd")), groups: by_id(&read("/etc/group")) }
    }

    pub(super) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_default()
    }

    pub(super) fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_default()
    }
}

/// Reads `name:password:id:…`, the first name of an id being its name.
fn by_id(text: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(id)) = (fields.next(), fields.nth(1)) else {
            continue;
        };
        let Ok(id) = id.parse() else { continue };
        names.entry(id).or_insert_with(|| name.to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_an_id_counts_and_odd_lines_do_not() {
        let names = by_id("root:x:0:0::/root:/bin/sh\ntoor:x:0:0\n\n+::::\nweb:x:33");
        assert_eq!(names.get(&0).map(String::as_str), Some("root"));
        assert_eq!(names.get(&33).map(String::as_str), Some("web"));
        assert_eq!(names.len(), 2);
    }
}
