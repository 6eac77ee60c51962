//! Which paths of a snapshot are meant.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use globset::{GlobBuilder, GlobMatcher};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    #[error("read the path pattern `{pattern}`: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("find `{pattern}` in the snapshot: nothing matches it")]
    NothingMatches { pattern: String },
    #[error("find `{pattern}` in the snapshot: it is of `{path}`")]
    Outside { pattern: String, path: PathBuf },
}

impl SelectionError {
    /// Returns the next step.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some("paths count from the source's top or from `/`; `*` stays within a name, `**` does not".to_owned())
    }
}

/// Paths and globs; a directory that is meant is meant with all below it. Without any, everything is.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    /// The directories that the pattern names before its first wildcard, or the whole of it without one.
    prefix: PathBuf,
    glob: Option<GlobMatcher>,
    is_met: Arc<AtomicBool>,
}

/// What a selection says of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    /// It and all below it.
    All,
    /// Perhaps something below it.
    Below,
    No,
}

impl Selection {
    /// # Errors
    /// The pattern that is none.
    pub fn new(patterns: &[String]) -> Result<Self, SelectionError> {
        let patterns = patterns.iter().map(|text| Pattern::new(text));
        Ok(Self { patterns: patterns.collect::<Result<_, _>>()? })
    }

    #[must_use]
    pub fn is_all(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Makes patterns that begin with `/` count from the source's top.
    pub(super) fn below(self, source: &Path) -> Result<Self, SelectionError> {
        let patterns = self.patterns.into_iter().map(|pattern| pattern.below(source));
        Ok(Self { patterns: patterns.collect::<Result<_, _>>()? })
    }

    /// Tells whether a path is meant whose directory is not meant as a whole.
    pub(super) fn means(&self, path: &Path) -> Meant {
        if self.is_all() {
            return Meant::All;
        }
        let mut meant = Meant::No;
        for pattern in &self.patterns {
            match pattern.means(path) {
                Meant::All => {
                    pattern.is_met.store(true, Ordering::Relaxed);
                    meant = Meant::All;
                }
                Meant::Below if meant == Meant::No => meant = Meant::Below,
                Meant::Below | Meant::No => {}
            }
        }
        meant
    }

    /// Refuses a selection with a pattern that nothing met: most likely it has a slip in it.
    pub(super) fn check_all_met(&self) -> Result<(), SelectionError> {
        let mut patterns = self.patterns.iter();
        match patterns.find(|pattern| !pattern.is_met.load(Ordering::Relaxed)) {
            Some(pattern) => Err(SelectionError::NothingMatches { pattern: pattern.text.clone() }),
            None => Ok(()),
        }
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, SelectionError> {
        let bad = |reason: String| SelectionError::Pattern { pattern: text.to_owned(), reason };
        let trimmed = text.strip_prefix("./").unwrap_or(text);
        if trimmed.split('/').any(|part| part == "..") {
            return Err(bad("`..` is not looked up".to_owned()));
        }
        Self::parse(text, trimmed).map_err(|error| bad(error.to_string()))
    }

    fn parse(text: &str, pattern: &str) -> Result<Self, globset::Error> {
        let is_wild = |part: &&str| part.contains(['*', '?', '[', '{', '\\']);
        let parts: Vec<&str> = pattern.split('/').collect();
        let plain = parts.iter().position(is_wild).unwrap_or(parts.len());
        // A leading slash is an empty first part: it stays one.
        let is_absolute = pattern.starts_with('/');
        let mut prefix = PathBuf::from(if is_absolute { "/" } else { "" });
        prefix.extend(parts[..plain].iter().filter(|part| !part.is_empty()));
        let glob = if plain < parts.len() {
            let glob = GlobBuilder::new(pattern.trim_end_matches('/'));
            Some({ glob }.literal_separator(true).build()?.compile_matcher())
        } else {
            None
        };
        Ok(Self { text: text.to_owned(), prefix, glob, is_met: Arc::default() })
    }

    fn below(self, source: &Path) -> Result<Self, SelectionError> {
        if !self.text.starts_with('/') {
            return Ok(self);
        }
        let outside = || SelectionError::Outside { pattern: self.text.clone(), path: source.to_owned() };
        let inner = Path::new(&self.text).strip_prefix(source).map_err(|_| outside())?;
        let inner = inner.to_str().ok_or_else(outside)?;
        let below = if inner.is_empty() { "**" } else { inner };
        Self::parse(&self.text, below)
            .map_err(|error| SelectionError::Pattern { pattern: self.text.clone(), reason: error.to_string() })
    }

    fn means(&self, path: &Path) -> Meant {
        let is_on_the_way = self.prefix.starts_with(path);
        match &self.glob {
            None if path.starts_with(&self.prefix) => Meant::All,
            Some(glob) if glob.is_match(path) => Meant::All,
            // A wildcard may match anything below the directories before it.
            Some(_) if path.starts_with(&self.prefix) || is_on_the_way => Meant::Below,
            None if is_on_the_way => Meant::Below,
            _ => Meant::No,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn means(pattern: &str, path: &str) -> Meant {
        let selection = Selection::new(&[pattern.to_owned()]).unwrap();
        selection.below(Path::new("/mnt/images")).unwrap().means(Path::new(path))
    }

    #[test]
    fn paths_and_globs_mean_what_the_hint_says() {
        let table = [
            ("shop/7", "shop", Meant::Below),
            ("shop/7", "shop/7", Meant::All),
            ("shop/7", "shop/7/a.jpg", Meant::All),
            ("shop/7/", "shop/7/a.jpg", Meant::All),
            ("./shop/7", "shop/77", Meant::No),
            ("/mnt/images/shop/7", "shop/7", Meant::All),
            ("/mnt/images", "anything", Meant::All),
            ("/mnt/images/", "anything", Meant::All),
            ("shop/*/a.jpg", "shop/7", Meant::Below),
            ("shop/*/a.jpg", "shop/7/a.jpg", Meant::All),
            ("shop/*/a.jpg", "shop/7/8/a.jpg", Meant::Below),
            ("shop/*/a.jpg", "other", Meant::No),
            ("/mnt/images/**/*.png", "shop/7/b.png", Meant::All),
            ("*.png", "shop", Meant::Below),
            ("*.png", "b.png", Meant::All),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(means(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_slip_is_told() {
        let refused = |pattern: &str| Selection::new(&[pattern.to_owned()]).unwrap_err();
        assert!(matches!(refused("a["), SelectionError::Pattern { .. }));
        assert!(matches!(refused("../a"), SelectionError::Pattern { .. }));
        let outside = Selection::new(&["/etc".to_owned()]).unwrap();
        assert!(outside.below(Path::new("/mnt/images")).is_err());
        let selection = Selection::new(&["a".to_owned(), "b".to_owned()]).unwrap();
        selection.means(Path::new("a/x"));
        assert!(matches!(selection.check_all_met(), Err(SelectionError::NothingMatches { pattern }) if pattern == "b"));
    }
}
