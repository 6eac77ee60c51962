//! Segments in a directory: raw binlog files, as the server wrote them or `bkp binlog export` does.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::mysql::manifest::Position;
use crate::replay::ReplayError;

/// Every binlog begins so; an encrypted one with the other.
const MAGIC: [[u8; 4]; 2] = [*b"\xFEbin", *b"\xFDbin"];

/// One binlog file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// As its server called it.
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
}

/// Segments that follow one another, and what stands in the way of the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    pub segments: Vec<Segment>,
    /// The last segment before a gap and the first after it.
    pub gap: Option<(String, String)>,
    /// Up to then they hold everything that their server committed; `None`: nobody knows.
    pub as_of: Option<DateTime<Utc>>,
}

/// Lists the binlogs of a directory that follow one another from the named file on, in their order.
///
/// # Errors
/// A directory that cannot be read, or that lacks the first file.
pub fn in_dir(dir: &Path, first: &str) -> Result<Run, ReplayError> {
    let (base, start) = parts(first).ok_or_else(|| ReplayError::NoNumber { name: first.to_owned() })?;
    let mut found: Vec<(u64, Segment)> = listed(dir)?
        .into_iter()
        .filter_map(|segment| {
            let (other, number) = parts(&segment.name)?;
            (other == base && number >= start).then_some((number, segment))
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    if found.first().is_none_or(|(number, _)| *number != start) {
        return Err(ReplayError::NoSegment { name: first.to_owned(), dir: dir.to_owned() });
    }
    let whole = 1 + found.windows(2).take_while(|pair| pair[1].0 == pair[0].0 + 1).count();
    let gap = found.get(whole).map(|(_, after)| (found[whole - 1].1.name.clone(), after.name.clone()));
    found.truncate(whole);
    Ok(Run { segments: found.into_iter().map(|(_, segment)| segment).collect(), gap, as_of: None })
}

fn listed(dir: &Path) -> Result<Vec<Segment>, ReplayError> {
    let unreadable = |error| ReplayError::Dir { dir: dir.to_owned(), error };
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (path, Ok(name)) = (entry.path(), entry.file_name().into_string()) else { continue };
        if is_binlog(&path).map_err(unreadable)? {
            let bytes = std::fs::metadata(&path).map_err(unreadable)?.len();
            segments.push(Segment { name, path, bytes });
        }
    }
    Ok(segments)
}

fn is_binlog(path: &Path) -> io::Result<bool> {
    if !path.is_file() {
        return Ok(false);
    }
    let mut magic = [0; 4];
    let read = File::open(path)?.read(&mut magic)?;
    Ok(read == magic.len() && MAGIC.contains(&magic))
}

/// Splits `binlog.000042` into its base and its number.
fn parts(name: &str) -> Option<(&str, u64)> {
    let (base, number) = name.rsplit_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Some((base, number.parse().ok()?))).flatten()
}

/// Tells whether one binlog comes before another of the same server; `None` where they are no neighbours.
#[must_use]
pub fn is_before(one: &str, other: &str) -> Option<bool> {
    let ((base, number), (other_base, other_number)) = (parts(one)?, parts(other)?);
    (base == other_base).then_some(number < other_number)
}

/// Tells whether one place in a server's binlogs is another or behind it.
#[must_use]
pub fn reaches(place: &Position, other: &Position) -> bool {
    let is_later = || is_before(&other.file, &place.file) == Some(true);
    if place.file == other.file { place.offset >= other.offset } else { is_later() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn binlogs_come_in_the_order_of_their_numbers_up_to_a_gap_and_other_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.999998", "b.999999", "b.1000000", "other.000001"] {
            std::fs::write(dir.path().join(name), b"\xFEbin").unwrap();
        }
        std::fs::write(dir.path().join("b.index"), b"./b.999998\n").unwrap();
        std::fs::write(dir.path().join("b.1000001"), b"no binlog").unwrap();
        let names = |first| in_dir(dir.path(), first).map(|run| run.segments.into_iter().map(|segment| segment.name));
        assert_eq!(names("b.999999").unwrap().collect::<Vec<_>>(), ["b.999999", "b.1000000"]);
        assert!(matches!(in_dir(dir.path(), "b.000007"), Err(ReplayError::NoSegment { .. })));
        std::fs::remove_file(dir.path().join("b.999999")).unwrap();
        let run = in_dir(dir.path(), "b.999998").unwrap();
        assert_eq!((run.segments.len(), run.gap), (1, Some(("b.999998".to_owned(), "b.1000000".to_owned()))));
    }

    #[test]
    fn the_ten_millionth_file_comes_after_the_one_before() {
        assert_eq!(is_before("b.999999", "b.1000000"), Some(true));
        assert_eq!(is_before("b.000002", "b.000002"), Some(false));
        assert_eq!(is_before("a.000001", "b.000002"), None);
        let at = |file: &str, offset| Position { file: file.to_owned(), offset };
        assert!(reaches(&at("b.1000000", 4), &at("b.999999", 77)));
        assert!(reaches(&at("b.000001", 77), &at("b.000001", 77)));
        assert!(!reaches(&at("b.000001", 99), &at("b.000002", 4)));
        assert!(!reaches(&at("", 0), &at("b.000002", 4)));
    }
}
