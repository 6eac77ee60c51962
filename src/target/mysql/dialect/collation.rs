//! The collation of a target that is nearest to one that it lacks.
//!
//! Never one by which two texts are the same that were not: a unique key would refuse rows. So a collation that counts spaces at
//! the end gives way to one that does, too, and one that tells accents or cases apart to one that does.

use std::collections::BTreeSet;

/// Returns the name itself where the target has it, else the nearest that it has.
pub(super) fn nearest(name: &str, target: &BTreeSet<String>) -> Option<String> {
    let candidates = std::iter::once(name.to_owned()).chain(others(name));
    candidates.into_iter().find(|candidate| target.contains(candidate))
}

fn others(name: &str) -> Vec<String> {
    let Some((charset, rules)) = name.split_once('_') else { return Vec::new() };
    // The same character set was called `utf8` before.
    let renamed = match charset {
        "utf8" => Some(format!("utf8mb3_{rules}")),
        "utf8mb3" => Some(format!("utf8_{rules}")),
        _ => None,
    };
    let mut others: Vec<String> = renamed.into_iter().collect();
    let sense = sense(rules);
    if rules.contains("0900") {
        others.extend(of_mysql(charset, sense));
    } else if rules.contains("uca1400") {
        others.extend(of_mariadb(charset, sense));
    } else if rules.contains("nopad") {
        others.push(if sense == "bin" { format!("{charset}_0900_bin") } else { format!("{charset}_0900_ai_ci") });
        others.push(format!("{charset}_{}", rules.replace("nopad_", "")));
    }
    others
}

/// Returns what a collation tells apart: `ai_ci`, `as_ci`, `as_cs` or `bin`.
fn sense(rules: &str) -> &'static str {
    let has = |part: &str| rules.split('_').any(|other| other == part);
    match () {
        () if has("bin") => "bin",
        () if has("cs") => "as_cs",
        () if has("as") => "as_ci",
        () => "ai_ci",
    }
}

/// MySQL's `utf8mb4_0900_ai_ci` and its kin count spaces at the end.
fn of_mysql(charset: &str, sense: &str) -> Vec<String> {
    let by_unicode = format!("{charset}_uca1400_nopad_{sense}");
    match sense {
        "bin" => vec![format!("{charset}_nopad_bin")],
        "ai_ci" => vec![by_unicode, format!("{charset}_unicode_520_nopad_ci")],
        _ => vec![by_unicode, format!("{charset}_nopad_bin")],
    }
}

/// MySQL has such collations for `utf8mb4` alone; the others' older ones tell no accents apart.
fn of_mariadb(charset: &str, sense: &str) -> Vec<String> {
    let older = if sense == "ai_ci" { format!("{charset}_unicode_520_ci") } else { format!("{charset}_bin") };
    let oldest = format!("{charset}_unicode_ci");
    let mut others = vec![format!("{charset}_0900_{sense}"), older];
    others.extend((sense == "ai_ci").then_some(oldest));
    others
}
