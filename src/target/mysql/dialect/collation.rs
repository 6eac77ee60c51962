//! The collation of a target that is nearest to one that it lacks.
//!
//! Never one whose letters are the same where they were not: a unique key would refuse rows, and a comparison find too many. So one
//! of a language gives way to the same language's, one that tells accents or cases apart to one that does, and where a target has
//! none such, bytes are compared. Spaces at the end may count no more, where a target has nothing but collations that pad texts
//! for a character set: [`pads`] tells.

use std::collections::BTreeSet;

/// Languages with letters of their own: by MariaDB's name, the names of MySQL's collations that know the same letters.
const LANGUAGES: [(&str, &[&str]); 21] = [
    // These order whole scripts otherwise, and know no other letters.
    ("", &["", "ru", "bg"]),
    ("croatian", &["hr", "bs"]),
    ("czech", &["cs"]),
    ("danish", &["da", "nb", "nn"]),
    ("esperanto", &["eo"]),
    ("estonian", &["et"]),
    ("german2", &["de_pb"]),
    ("hungarian", &["hu"]),
    ("icelandic", &["is"]),
    ("latvian", &["lv"]),
    ("lithuanian", &["lt"]),
    ("polish", &["pl"]),
    ("roman", &["la"]),
    ("romanian", &["ro"]),
    ("slovak", &["sk"]),
    ("slovenian", &["sl"]),
    ("spanish", &["es", "gl"]),
    ("spanish2", &["es_trad"]),
    ("swedish", &["sv"]),
    ("turkish", &["tr"]),
    ("vietnamese", &["vi"]),
];

/// Character sets without letters beyond the first plane, which the older collations take for one and the same.
const NARROW: [&str; 3] = ["utf8", "utf8mb3", "ucs2"];

/// Returns the name itself where the target has it, else the nearest that it has.
pub(super) fn nearest(name: &str, target: &BTreeSet<String>) -> Option<String> {
    let candidates = std::iter::once(name.to_owned()).chain(others(name));
    candidates.flat_map(|name| [name.clone(), renamed(&name)]).find(|name| target.contains(name))
}

/// Tells whether texts that differ by spaces at the end are the same.
pub(super) fn pads(name: &str) -> bool {
    !name.split('_').any(|part| matches!(part, "nopad" | "0900" | "binary"))
}

/// The same character set was called `utf8` before.
fn renamed(name: &str) -> String {
    match name.split_once('_') {
        Some(("utf8", rules)) => format!("utf8mb3_{rules}"),
        Some(("utf8mb3", rules)) => format!("utf8_{rules}"),
        _ => name.to_owned(),
    }
}

fn others(name: &str) -> Vec<String> {
    let Some((charset, rules)) = name.split_once('_') else { return Vec::new() };
    let sense = sense(rules);
    let mut others = Vec::new();
    match language(rules).filter(|_| sense != "bin") {
        Some(language) => {
            others.push(of_mariadb(charset, language, sense, pads(name)));
            others.extend(of_mysql(charset, language, sense));
            others.extend(older(charset, language, sense, pads(name)));
        }
        None if !pads(name) => {
            others.extend(by_bytes(charset));
            others.push(format!("{charset}_{}", rules.replace("nopad_", "")));
        }
        None => {}
    }
    if !pads(name) {
        others.extend(by_bytes(charset));
    }
    others.push(format!("{charset}_bin"));
    others
}

/// Returns MariaDB's name of the language whose letters a collation knows, empty for none in particular; `None` where it follows no
/// such rules, or those of a language that only one product has.
fn language(rules: &str) -> Option<&'static str> {
    let is_part = |part: &&str| !matches!(*part, "nopad" | "ai" | "as" | "ci" | "cs" | "ks");
    let told = |text: &str| text.split('_').filter(is_part).collect::<Vec<_>>().join("_");
    if let Some((mysql, _)) = rules.split_once("0900") {
        let mysql = told(mysql.trim_end_matches('_'));
        return LANGUAGES.iter().find(|(_, names)| names.contains(&mysql.as_str())).map(|(name, _)| *name);
    }
    let mariadb = match rules.strip_prefix("uca1400") {
        Some(rest) => told(rest.trim_start_matches('_')),
        None if matches!(rules, "unicode_nopad_ci" | "unicode_520_nopad_ci") => String::new(),
        None => return None,
    };
    LANGUAGES.iter().find(|(name, _)| *name == mariadb).map(|(name, _)| *name)
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

/// Of newer MariaDB.
fn of_mariadb(charset: &str, language: &str, sense: &str, pads: bool) -> String {
    let words = [charset, "uca1400", language, if pads { "" } else { "nopad" }, sense];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}

/// Of newer MySQL, for `utf8mb4` alone. Of a language it has only the least and the most that can be told apart.
fn of_mysql(charset: &str, language: &str, sense: &str) -> Vec<String> {
    let names = LANGUAGES.iter().find(|(name, _)| *name == language).map_or(&[""][..], |(_, names)| names);
    let language = names.first().filter(|name| !name.is_empty()).map_or_else(String::new, |name| format!("{name}_"));
    [sense, "as_cs"].iter().map(|sense| format!("{charset}_{language}0900_{sense}")).collect()
}

/// Of both for long. They tell no accents apart.
fn older(charset: &str, language: &str, sense: &str, pads: bool) -> Vec<String> {
    match sense {
        "ai_ci" if language.is_empty() => {
            let counting = (!pads).then(|| format!("{charset}_unicode_520_nopad_ci"));
            counting.into_iter().chain([format!("{charset}_unicode_520_ci")]).collect()
        }
        "ai_ci" if NARROW.contains(&charset) => vec![format!("{charset}_{language}_ci")],
        _ => Vec::new(),
    }
}

/// Bytes are compared, spaces at the end and all.
fn by_bytes(charset: &str) -> [String; 2] {
    [format!("{charset}_0900_bin"), format!("{charset}_nopad_bin")]
}
