//! What can go wrong with a sandbox.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::human;
use crate::mysql::manifest::Product;
use crate::mysql::product;

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("start a sandbox: no {} server program is installed", product::name(*.product))]
    NoProgram { product: Product },
    #[error("start a sandbox: `{program}` is no {} server, it says: {says}", product::name(*.product))]
    OtherProgram { program: PathBuf, product: Product, says: String },
    #[error("start a sandbox: `{program}` has no `mariadb-install-db` beside it or in PATH")]
    NoInstaller { program: PathBuf },
    #[error("run `{program}`")]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("use `{dir}` for a sandbox")]
    Dir {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("use `{dir}` for a sandbox: the path of a socket in it would be longer than {max} bytes")]
    PathTooLong { dir: PathBuf, max: usize },
    #[error("use `{dir}` for a sandbox: the restored data needs about {}, and {} are free", human::bytes(*.wanted), human::bytes(*.free))]
    NoRoom { dir: PathBuf, wanted: u64, free: u64 },
    #[error("make the files of a sandbox: its program ended with {status}\n{log}")]
    Initialise { status: ExitStatus, log: String },
    #[error("start a sandbox: the server ended with {status}\n{log}")]
    Ended { status: ExitStatus, log: String },
    #[error("start a sandbox: the server does not answer\n{log}")]
    NoAnswer { log: String },
    #[error("watch over a sandbox")]
    Watch(#[source] io::Error),
    #[error("stopped by a signal")]
    Stopped,
}

impl SandboxError {
    pub(super) fn dir(dir: &Path) -> impl FnOnce(io::Error) -> Self {
        let dir = dir.to_owned();
        move |source| Self::Dir { dir, source }
    }

    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoProgram { product: Product::MariaDb } | Self::NoInstaller { .. } => {
                "install a MariaDB server (apt-get install mariadb-server), or name the program: `drill.sandbox.mariadbd` in the policy"
            }
            Self::NoProgram { product: Product::MySql } => {
                "install a MySQL server of the source's version, or name the program: `drill.sandbox.mysqld` in the policy"
            }
            Self::OtherProgram { .. } => {
                "on Debian `mysqld` is MariaDB's; name the right program: `drill.sandbox.mysqld` in the policy"
            }
            Self::Dir { .. } | Self::NoRoom { .. } => {
                "choose a directory that can be written and has room: `drill.sandbox.work_dir` in the policy"
            }
            Self::PathTooLong { .. } => "choose a shorter `drill.sandbox.work_dir` in the policy",
            Self::Initialise { .. } | Self::Ended { .. } => {
                "is there room, and does a security profile (AppArmor, SELinux) keep the server out of this directory?"
            }
            Self::NoAnswer { .. } => "is the machine short of memory or processor time?",
            Self::Run { .. } | Self::Watch(_) | Self::Stopped => return None,
        };
        Some(hint.to_owned())
    }
}
