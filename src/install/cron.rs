//! The line for cron, in a file of its own under /etc/cron.d.

use std::path::{Path, PathBuf};

use crate::human;
use crate::install::{InstallError, MARK, Setup, With, plain};

pub(super) fn files(setup: &Setup<'_>) -> Result<Vec<(PathBuf, String)>, InstallError> {
    let name = &setup.policy.name;
    let path = setup.under_root(&format!("/etc/cron.d/bkp-{name}"));
    let (program, policy) = (quoted(&setup.program)?, quoted(&setup.policy_file)?);
    let text = format!(
        "{MARK}; `bkp schedule remove {name} --with cron` removes it.\n\
         # It looks every minute; what is due, the policy says, and while nothing is, nothing is opened.\n\
         SHELL=/bin/sh\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         * * * * * root {program} run --skip-locked --quiet {policy}\n"
    );
    Ok(vec![(path, text)])
}

/// Quotes a path for the shell, and `%` for cron, which would make it a newline even inside quotes.
fn quoted(path: &Path) -> Result<String, InstallError> {
    let text = plain(path, With::Cron)?;
    // cron takes the backslash before a `%` away, quotes or not; any other it leaves alone.
    if text.contains("\\%") {
        return Err(InstallError::Path { with: With::Cron, path: path.to_owned() });
    }
    Ok(human::shell_word(text).replace('%', "\\%"))
}
