//! Text to raw policy; what the parser refuses is told as a fault with key and remedy.

use toml::de::{DeTable, DeValue};

use crate::policy::check::fields::near;
use crate::policy::error::Fault;
use crate::policy::locate::Places;
use crate::policy::raw::RawPolicy;

/// The version of the format that this program reads.
const VERSION: i64 = 1;

pub(super) fn raw(text: &str, places: &Places) -> Result<RawPolicy, Fault> {
    let read = toml::from_str::<RawPolicy>(text);
    // A later version may have any keys, so the version is judged before them.
    match written_version(text) {
        Some(version) if version != VERSION => Err(version_fault(version, places)),
        _ => read.map_err(|error| fault(&error, text, places)),
    }
}

fn written_version(text: &str) -> Option<i64> {
    let table = DeTable::parse(text).ok()?;
    match table.get_ref().get("version")?.get_ref() {
        DeValue::Integer(version) => i64::from_str_radix(version.as_str(), version.radix()).ok(),
        _ => None,
    }
}

fn version_fault(version: i64, places: &Places) -> Fault {
    Fault {
        line: places.line_of("version"),
        key: "version".to_owned(),
        what: format!("is {version}, and this program reads {VERSION}"),
        remedy: format!("write `version = {VERSION}`, or update bkp if a later one wrote the file"),
    }
}

/// Tells the parser's error. Values stay out of it: one may be a password in the wrong place.
fn fault(error: &toml::de::Error, text: &str, places: &Places) -> Fault {
    let span = error.span().unwrap_or_default();
    let message = error.message();
    let key = places.key_at(span.start).unwrap_or_default().to_owned();
    let line = places.line_at(span.start);
    if let Some(field) = quoted_after(message, "unknown field ") {
        let (what, remedy) = unknown(field, message);
        return Fault { line, key, what, remedy };
    }
    if let Some(field) = quoted_after(message, "missing field ") {
        // The parser points at the start of the file for the file's own keys.
        let above = if span.is_empty() { String::new() } else { format!("{key}.") };
        let remedy = missing_remedy(field);
        return Fault { line, key: format!("{above}{field}"), what: "is missing".to_owned(), remedy };
    }
    let wrong_type = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, wanted)) = wrong_type.and_then(|rest| rest.split_once(", expected ")) {
        let (what, remedy) = mistyped(found, wanted);
        return Fault { line, key, what, remedy };
    }
    if message.starts_with("a ") {
        let remedy = "write one value: a number, or a text in quotes".to_owned();
        return Fault { line, key, what: format!("is not {message}"), remedy };
    }
    syntax(message, line, text.get(span).unwrap_or_default())
}

fn syntax(message: &str, line: usize, at: &str) -> Fault {
    if message == "duplicate key" {
        let remedy = "keep one of them".to_owned();
        return Fault { line, key: at.to_owned(), what: "is there twice".to_owned(), remedy };
    }
    Fault {
        line,
        key: String::new(),
        what: format!("it is not TOML: {message}"),
        remedy:
            "write `key = \"text\"`, `key = 5`, `key = [\"a\", \"b\"]` or `[table]`; policies/full.toml shows each key"
                .to_owned(),
    }
}

fn unknown(field: &str, message: &str) -> (String, String) {
    let secrets = ["password", "passwd", "pass", "pw", "pwd"];
    let secret_keys = ["secret", "secret_key", "secret_access_key", "aws_secret_access_key"];
    let inline = "holds a secret, and a policy never does".to_owned();
    let move_to = |key: &str| format!("move it into a file with mode 0600, and write `{key} = \"/etc/bkp/…\"`");
    if secrets.contains(&field) {
        return (inline, move_to("password_file"));
    }
    if secret_keys.contains(&field) {
        return (inline, move_to("secret_access_key_file"));
    }
    let list = message.split_once("expected ").map_or("", |(_, list)| list);
    let known: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    let remedy = match near(field, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("the keys here are {}", known.join(", ")),
    };
    ("is no key of a policy".to_owned(), remedy)
}

fn missing_remedy(field: &str) -> String {
    match field {
        "version" => "write `version = 1` first".to_owned(),
        "retention" => "add `[retention]` with at least one rule, as `daily = 7`".to_owned(),
        "repository" => "add `[repository]` with path and password_file".to_owned(),
        _ => format!("add `{field} = …`; policies/full.toml explains it"),
    }
}

fn mistyped(found: &str, wanted: &str) -> (String, String) {
    let found = match found.split([' ', '`']).next() {
        Some("string") => "a text",
        Some("integer") => "a whole number",
        Some("floating") => "a number with a point",
        Some("boolean") => "true or false",
        Some("map") => "a table",
        Some("sequence") => "a list",
        _ => "something else",
    };
    let (wanted, remedy) = match wanted {
        "a string" => ("a text", "write it in quotes"),
        "a boolean" => ("true or false", "write true or false, without quotes"),
        "a sequence" => ("a list", "write `[\"…\", \"…\"]`; a list of tables is `[[name]]`"),
        "a table" => ("a table", "write `{ key = … }`, or a section `[name]` with its keys below"),
        "a map" => ("a table", "write a section of its own for each, as `[mysql.db1]`"),
        "f64" => ("a number", "write a number, without quotes"),
        _ => ("a whole number", "write a whole number, without quotes"),
    };
    (format!("is {found}, and {wanted} belongs there"), remedy.to_owned())
}

fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message.strip_prefix(start)?.split('`').nth(1)
}
