//! Paths inside a dump: readable where the name is plain, and safe whatever it is.

use std::fmt::Write;

use crate::id::BlobId;

/// A longer part is cut: file systems take 255 bytes, and `.trigger.json` and the like come after it.
const PART_BYTES_MAX: usize = 200;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const SCRIPT: &str = "restore.sql";
pub(crate) const README: &str = "README.txt";

/// Writes a name as one part of a path. Letters and digits of any script, `_`, `-` and `$` stand as they are, every other byte
/// as `%XX`; what is too long is cut and told apart by its hash, after a `%~`, which no other name contains.
pub(crate) fn part(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_alphanumeric() || matches!(character, '_' | '-' | '$') {
            escaped.push(character);
        } else {
            push_percent(&mut escaped, character);
        }
    }
    if escaped.len() <= PART_BYTES_MAX && !escaped.is_empty() {
        return escaped;
    }
    let mut end = (PART_BYTES_MAX - 40).min(escaped.len());
    while !escaped.is_char_boundary(end) {
        end -= 1;
    }
    let hash = BlobId::of(name.as_bytes()).to_string();
    format!("{}%~{}", &escaped[..end], &hash[..32])
}

fn push_percent(escaped: &mut String, character: char) {
    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
        // Writing into a String does not fail.
        let _infallible = write!(escaped, "%{byte:02X}");
    }
}

/// Returns the directory of a table.
pub(crate) fn table_dir(schema: &str, table: &str) -> String {
    format!("{}/{}", part(schema), part(table))
}

/// Returns the path of a table's definition.
pub(crate) fn definition(schema: &str, table: &str) -> String {
    format!("{}/schema.sql", table_dir(schema, table))
}

/// Returns the path of a row file: the number of its range, and its place in it where the range outgrew one file.
/// Names sort as the rows do.
pub(crate) fn row_file(schema: &str, table: &str, range: usize, place: usize) -> String {
    let dir = table_dir(schema, table);
    if place == 0 { format!("{dir}/{range:05}.tsv") } else { format!("{dir}/{range:05}_{place:05}.tsv") }
}

/// Returns the path of an object's files without their ending. `@` begins no table's name.
pub(crate) fn object(schema: Option<&str>, kind: &str, name: &str) -> String {
    match schema {
        Some(schema) => format!("{}/@{kind}/{}", part(schema), part(name)),
        None => format!("@{kind}/{}", part(name)),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn plain_names_stay_readable() {
        assert_eq!(row_file("mall", "주문_2", 3, 0), "mall/주문_2/00003.tsv");
        assert_eq!(object(Some("mall"), "views", "top 10"), "mall/@views/top%2010");
    }

    #[test]
    fn no_name_leaves_its_directory_or_meets_another() {
        let long = "가/".repeat(64);
        let longer = format!("{long}x");
        let names = ["a/b", "..", ".", "", "a\nb", "a%2Fb", "@views", "a`b", "A", "a", &long, &longer];
        let parts: BTreeSet<String> = names.into_iter().map(part).collect();
        assert_eq!(parts.len(), names.len());
        for part in parts {
            let is_plain = part.chars().all(|c| c.is_alphanumeric() || "_-$%~".contains(c));
            assert!(is_plain && !part.is_empty() && part.len() <= PART_BYTES_MAX, "{part}");
        }
    }

    #[test]
    fn row_files_sort_as_their_rows() {
        let files = [(0, 0), (0, 1), (0, 2), (1, 0), (10, 0)].map(|(range, place)| row_file("s", "t", range, place));
        assert!(files.is_sorted());
    }
}
