//! Which entries a policy leaves out.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Glob patterns over paths relative to the source.
///
/// A pattern without a slash is a name at any depth; one with a slash is a path from the top, where `*` stays within one
/// name and `**` spans many. A directory that matches goes with all that is below it.
#[derive(Debug, Clone, Default)]
pub(super) struct Exclude {
    globs: GlobSet,
}

impl Exclude {
    /// # Errors
    /// The pattern that is none, and why.
    pub(super) fn new(patterns: &[String]) -> Result<Self, (String, globset::Error)> {
        let mut globs = GlobSetBuilder::new();
        for pattern in patterns {
            let anchored = anchored(pattern);
            let glob = GlobBuilder::new(&anchored).literal_separator(true).build();
            globs.add(glob.map_err(|error| (pattern.clone(), error))?);
        }
        let globs = globs.build().map_err(|error| (patterns.join(" "), error))?;
        Ok(Self { globs })
    }

    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    /// Tells whether the path, relative to the source, is left out.
    #[must_use]
    pub(super) fn matches(&self, path: &Path) -> bool {
        self.globs.is_match(path)
    }
}

fn anchored(pattern: &str) -> String {
    let inner = pattern.trim_end_matches('/');
    match inner.strip_prefix('/') {
        Some(from_top) => from_top.to_owned(),
        None if inner.contains('/') => inner.to_owned(),
        None => format!("**/{inner}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn left_out(pattern: &str, path: &str) -> bool {
        Exclude::new(&[pattern.to_owned()]).unwrap().matches(Path::new(path))
    }

    #[test]
    fn patterns_match_as_the_policy_explains_them() {
        let table = [
            ("*.tmp", "a.tmp", true),
            ("*.tmp", "shop/7/a.tmp", true),
            ("*.tmp", "a.tmp/b", false), // its directory is what matches
            ("/cache", "cache", true),
            ("/cache", "shop/cache", false),
            ("shop/*/thumbs", "shop/7/thumbs", true),
            ("shop/*/thumbs", "shop/7/8/thumbs", false),
            ("shop/**/thumbs", "shop/7/8/thumbs", true),
            ("thumbs/", "shop/thumbs", true),
            (".nfs*", "shop/.nfs000012", true),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(left_out(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn names_need_not_be_utf8() {
        let exclude = Exclude::new(&["*.tmp".to_owned()]).unwrap();
        assert!(exclude.matches(Path::new(OsStr::from_bytes(b"\xff\xfe.tmp"))));
    }

    #[test]
    fn a_broken_pattern_is_named() {
        assert_eq!(Exclude::new(&["ok".to_owned(), "a[".to_owned()]).unwrap_err().0, "a[");
    }
}
