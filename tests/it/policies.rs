//! Every file in policies/ parses, holds together and has a next run; every wrong key names itself.

use std::fs;
use std::path::{Path, PathBuf};

use bkp::policy::{self, Policy};
use chrono::{DateTime, Utc};
use serde_json::Value;

fn files() -> Vec<PathBuf> {
    let files = policy::all(&[PathBuf::from("policies")]).unwrap();
    assert!(files.len() >= 2, "{files:?}");
    files
}

fn full() -> String {
    fs::read_to_string("policies/full.toml").unwrap()
}

#[test]
fn every_shipped_policy_holds_together_and_has_a_next_run() {
    let now: DateTime<Utc> = "2026-05-01T12:00:00Z".parse().unwrap();
    for file in files() {
        // Not loaded: whose files a checkout's are, and who may write them, is no matter here.
        let text = fs::read_to_string(&file).unwrap();
        let policy = Policy::parse(&text, &file).unwrap_or_else(|error| panic!("{error}\n{:?}", error.hint()));
        let backup = policy.schedule.backup.expect("a backup schedule");
        let next = backup.next_after(now, policy.timezone).unwrap();
        assert!(next > now && next < now + chrono::TimeDelta::days(1), "{}", file.display());
        assert_eq!(policy.name, file.file_stem().unwrap().to_str().unwrap());
    }
}

#[test]
fn the_full_policy_mentions_every_key_of_the_schema() {
    let full = full();
    let keys = schema_keys();
    assert!(keys.len() > 70, "{} keys", keys.len());
    for key in keys {
        let is_mentioned = full.lines().any(|line| mentions(line, &key));
        assert!(is_mentioned, "policies/full.toml says nothing of `{key}`");
    }
}

#[test]
fn every_key_of_the_schema_is_described() {
    let schema = policy::schema();
    for table in tables(&schema) {
        for (key, value) in table.get("properties").and_then(Value::as_object).unwrap() {
            assert!(value.get("description").is_some(), "`{key}` has no description");
        }
    }
    assert_eq!(schema.get("title").unwrap(), "bkp policy");
}

#[test]
fn every_misspelled_key_names_itself_its_line_and_the_right_one() {
    let full = full();
    let mut count = 0;
    for (rank, line) in full.lines().enumerate() {
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(['#', ' ', '{'])) else {
            continue;
        };
        let wrong = format!("{key}x");
        let lines = full
            .lines()
            .enumerate()
            .map(|(at, line)| if at == rank { line.replacen(key, &wrong, 1) } else { line.to_owned() });
        let text = lines.collect::<Vec<_>>().join("\n");
        let error = Policy::parse(&text, Path::new("full.toml")).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with(&format!("read the policy `full.toml`, line {}: ", rank + 1)), "{message}");
        assert!(message.ends_with(&format!("{wrong}` is no key of a policy")), "{message}");
        assert_eq!(error.hint().unwrap(), format!("did you mean `{key}`?"), "{message}");
        count += 1;
    }
    assert!(count > 60, "only {count} keys were tried");
}

#[test]
fn a_copy_that_is_called_as_the_repository_is_refused() {
    let full = full();
    let name = format!("name = \"{}\"", bkp::catalog::REPOSITORY);
    let text = full.replace("name = \"usb\"", &name);
    let line = text.lines().position(|line| line.starts_with(&name)).unwrap() + 1;
    let error = Policy::parse(&text, Path::new("full.toml")).unwrap_err();
    let wanted =
        format!("read the policy `full.toml`, line {line}: `copy[1].name` is what the repository itself is called");
    assert_eq!(error.to_string(), wanted);
    assert!(error.hint().unwrap().starts_with("choose another"));
}

#[test]
fn the_commented_alternatives_of_the_full_policy_work_too() {
    let full = full();
    let swaps = [
        ("password_file = \"/etc/bkp/full.key\"", "# password_command = \"pass show bkp/full\""),
        ("password_file = \"/etc/bkp/full.key\"", "# password_credential = \"bkp-full\""),
        ("secret_access_key_file = \"/etc/bkp/s3.key\"", "# secret_access_key_command = \"pass show bkp/s3\""),
        ("secret_access_key_file = \"/etc/bkp/s3.key\"", "# secret_access_key_credential = \"bkp-s3\""),
        ("sse = \"AES256\"", "# sse.kms = \"KEY-ID\""),
        ("password_file = \"/etc/bkp/db1.pw\"", "# password_command = \"pass show bkp/db1\""),
        ("password_file = \"/etc/bkp/db1.pw\"", "# password_credential = \"bkp-db1\""),
    ];
    for (shown, commented) in swaps {
        assert!(full.contains(shown) && full.contains(commented), "{commented}");
        let text = full.replace(shown, "").replace(commented, commented.trim_start_matches("# "));
        Policy::parse(&text, Path::new("full.toml")).unwrap_or_else(|error| panic!("{commented}: {error}"));
    }
}

fn schema_keys() -> Vec<String> {
    let schema = policy::schema();
    let tables = tables(&schema);
    let keys =
        tables.iter().flat_map(|table| table.get("properties").and_then(Value::as_object).unwrap().keys().cloned());
    keys.collect()
}

/// Returns the schema's tables: its own and those of its definitions.
fn tables(schema: &Value) -> Vec<Value> {
    let definitions = schema.get("$defs").and_then(Value::as_object).unwrap();
    let all = definitions.values().chain([schema]);
    all.filter(|table| table.get("properties").is_some()).cloned().collect()
}

/// Tells whether a line sets the key, is its section, or shows it as a comment.
fn mentions(line: &str, key: &str) -> bool {
    let line = line.trim_start_matches("# ");
    let names = line.split_once('=').map_or(line, |(names, _)| names);
    let mut words = names.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    (line.contains(" = ") || line.starts_with('[')) && words.any(|word| word == key)
}
