//! The report's files: written beside their place, synced and renamed, so that a reader never sees half of one.

use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::report::Report;
use crate::report::index;

/// A report holds figures and names, no secret: all may read it, and only its owner may write it.
const FILE_MODE: u32 = 0o644;

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{act} `{}`: {source}", path.display())]
    Io { act: &'static str, path: PathBuf, source: io::Error },
    #[error("write report as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl ReportError {
    /// Says the next step, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Some(format!(
                "let the user that runs bkp write to `{}`, or set `report_dir` in the policy",
                path.parent().unwrap_or(path).display()
            )),
            Self::Io { .. } | Self::Json(_) => None,
        }
    }
}

/// Where the files of one report lie.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    pub html: PathBuf,
    pub json: PathBuf,
    pub markdown: PathBuf,
    /// The list of all reports in the directory.
    pub index: PathBuf,
}

impl Report {
    /// Writes `drill-<run>.html`, `.json` and `.md` (a run's id begins with its time), then `index.html`, which lists them.
    ///
    /// # Errors
    /// [`ReportError`] where the directory cannot be made or written.
    pub fn write(&self, dir: &Path) -> Result<Written, ReportError> {
        fs::create_dir_all(dir).map_err(|source| io_error("create report directory", dir, source))?;
        let name = |extension: &str| dir.join(format!("drill-{}.{extension}", file_name(self.outcome.run.as_str())));
        let written =
            Written { html: name("html"), json: name("json"), markdown: name("md"), index: dir.join("index.html") };
        put(&written.json, &self.json()?)?;
        put(&written.markdown, &self.markdown())?;
        put(&written.html, &self.html())?;
        put(&written.index, &index::page(self, dir))?;
        Ok(written)
    }
}

/// Keeps letters, digits, `-` and `_` of a run's id: a catalog could have been tampered with.
pub(super) fn file_name(run: &str) -> String {
    let safe = |letter: char| {
        if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '-' }
    };
    run.chars().map(safe).collect()
}

fn put(path: &Path, text: &str) -> Result<(), ReportError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let put = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".report-")
            .permissions(fs::Permissions::from_mode(FILE_MODE))
            .tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(dir)?.sync_all()
    };
    put().map_err(|source| io_error("write report", path, source))
}

fn io_error(act: &'static str, path: &Path, source: io::Error) -> ReportError {
    ReportError::Io { act, path: path.to_owned(), source }
}
