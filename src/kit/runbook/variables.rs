//! The variables of a runbook's commands: of several policies or databases each has its own, so that none is typed for another.

use std::collections::{BTreeMap, BTreeSet};

use crate::kit::facts::{Facts, SourceFacts};
use crate::policy::CopyTarget;

/// How the variables of each policy and each database end.
pub(super) struct Variables {
    policies: BTreeMap<String, String>,
    databases: BTreeMap<(String, String), String>,
    /// The policies before which another's credentials were typed.
    after_credentials: BTreeSet<String>,
}

impl Variables {
    pub(super) fn of(all: &[&Facts]) -> Self {
        let policies: Vec<&str> = all.iter().map(|facts| facts.policy.name.as_str()).collect();
        let databases = |facts: &Facts| -> Vec<String> {
            facts.sources.iter().filter(|source| source.is_database).map(|source| source.name.clone()).collect()
        };
        let databases: Vec<(&str, Vec<String>)> =
            policies.iter().copied().zip(all.iter().map(|facts| databases(facts))).collect();
        let asks = |facts: &&Facts| facts.stand_in().is_some_and(|copy| matches!(copy.place, CopyTarget::S3(_)));
        let first = all.iter().position(asks).unwrap_or(all.len());
        let after_credentials = policies.iter().skip(first + 1).map(|policy| (*policy).to_owned()).collect();
        Self { after_credentials, ..Self::named(&policies, &databases) }
    }

    fn named(policies: &[&str], databases: &[(&str, Vec<String>)]) -> Self {
        let has_many = policies.len() > 1;
        let (mut taken, mut taken_by_databases) = (BTreeSet::new(), BTreeSet::new());
        let ends = policies.iter().map(|policy| {
            let words = if has_many { vec![*policy] } else { Vec::new() };
            ((*policy).to_owned(), end(&words, &mut taken))
        });
        let policies = ends.collect();
        let mut of_databases = BTreeMap::new();
        for (policy, names) in databases {
            for name in names {
                let mut words = if has_many { vec![*policy] } else { Vec::new() };
                words.extend((names.len() > 1).then_some(name.as_str()));
                of_databases.insert(((*policy).to_owned(), name.clone()), end(&words, &mut taken_by_databases));
            }
        }
        Self { policies, databases: of_databases, after_credentials: BTreeSet::new() }
    }

    /// Names a variable of a policy.
    pub(super) fn of_policy(&self, stem: &str, facts: &Facts) -> String {
        let end = self.policies.get(&facts.policy.name);
        format!("{stem}{}", end.map_or("", String::as_str))
    }

    /// Names a variable of a database.
    pub(super) fn of_database(&self, stem: &str, facts: &Facts, source: &SourceFacts) -> String {
        let end = self.databases.get(&(facts.policy.name.clone(), source.name.clone()));
        format!("{stem}{}", end.map_or("", String::as_str))
    }

    /// Tells whether the shell may still have the credentials of an earlier policy's copy.
    pub(super) fn comes_after_credentials(&self, facts: &Facts) -> bool {
        self.after_credentials.contains(&facts.policy.name)
    }

    /// Tells whether there is one database in all: of several, no two may go to the same server for want of an answer.
    pub(super) fn has_one_database(&self) -> bool {
        self.databases.len() == 1
    }
}

/// Makes an end of some names that no other has; the shell knows no dashes, so that two names may become one.
fn end(words: &[&str], taken: &mut BTreeSet<String>) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    let parts: Vec<String> =
        words.iter().map(|word| format!("_{}", word.chars().map(plain).collect::<String>())).collect();
    let first = parts.concat();
    let mut end = first.clone();
    let mut number = 2;
    while !taken.insert(end.clone()) {
        end = format!("{first}_{number}");
        number += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(databases: &[(&str, &[&str])]) -> (Vec<String>, Vec<String>) {
        let policies: Vec<&str> = databases.iter().map(|(policy, _)| *policy).collect();
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let databases: Vec<(&str, Vec<String>)> =
            databases.iter().map(|(policy, names)| (*policy, owned(names))).collect();
        let variables = Variables::named(&policies, &databases);
        (variables.policies.into_values().collect(), variables.databases.into_values().collect())
    }

    #[test]
    fn one_policy_with_one_database_needs_no_ends_and_of_several_each_has_its_own() {
        assert_eq!(ends(&[("mall", &["db1"])]), (vec![String::new()], vec![String::new()]));
        assert_eq!(ends(&[("mall", &["db1", "db2"])]).1, ["_DB1", "_DB2"]);
        let (policies, databases) = ends(&[("mail", &["db"]), ("mall", &["db", "db2"])]);
        assert_eq!(policies, ["_MAIL", "_MALL"]);
        assert_eq!(databases, ["_MAIL", "_MALL_DB", "_MALL_DB2"]);
    }

    #[test]
    fn names_that_the_shell_cannot_tell_apart_are_numbered() {
        assert_eq!(ends(&[("mall", &["db-1", "db_1"])]).1, ["_DB_1", "_DB_1_2"]);
        let (_, databases) = ends(&[("a", &["b-c", "x"]), ("a-b", &["c", "x"])]);
        let distinct: BTreeSet<&String> = databases.iter().collect();
        assert_eq!(distinct.len(), 4, "{databases:?}");
    }
}
