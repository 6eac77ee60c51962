//! The server program of a product: where it is, and how it is called.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mysql::manifest::Product;
use crate::sandbox::SandboxError;
use crate::sandbox::dir::Dir;

/// Where server programs lie beside `PATH`, which often leaves out `sbin`.
const USUAL_PLACES: [&str; 6] =
    ["/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin", "/usr/local/mysql/bin", "/opt/mysql/bin"];

#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    product: Product,
}

impl Program {
    /// Finds the program of a product, and asks it whether it is the product's: Debian's `mysqld` is MariaDB.
    pub(super) fn find(product: Product, given: Option<&Path>) -> Result<Self, SandboxError> {
        if let Some(path) = given {
            let says = version(path)?;
            return if tells(&says) == product {
                Ok(Self { path: path.to_owned(), product })
            } else {
                Err(SandboxError::OtherProgram { program: path.to_owned(), product, says })
            };
        }
        let names: &[&str] = match product {
            Product::MariaDb => &["mariadbd", "mysqld"],
            Product::MySql => &["mysqld"],
        };
        let found = names.iter().flat_map(|name| candidates(name, None));
        let is_right = |path: &PathBuf| version(path).is_ok_and(|says| tells(&says) == product);
        let path = found.into_iter().find(is_right).ok_or(SandboxError::NoProgram { product })?;
        Ok(Self { path, product })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the command that runs the server on a directory.
    pub(super) fn command(&self, dir: &Dir, options: &[String]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(first_options(dir)).args(options);
        quiet(command, dir)
    }

    /// Returns the command that makes the files of a new server.
    pub(super) fn initialiser(&self, dir: &Dir, options: &[String]) -> Result<Command, SandboxError> {
        let mut command = match self.product {
            Product::MySql => {
                let mut command = Command::new(&self.path);
                command.args(first_options(dir)).arg("--initialize-insecure");
                command
            }
            Product::MariaDb => {
                let mut command = Command::new(self.installer()?);
                command.args(first_options(dir));
                command.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
                command.args(self.base_dir().map(|base| format!("--basedir={}", base.display())));
                command
            }
        };
        command.args(options);
        Ok(quiet(command, dir))
    }

    fn installer(&self) -> Result<PathBuf, SandboxError> {
        let names = ["mariadb-install-db", "mysql_install_db"];
        let mut found = names.iter().flat_map(|name| candidates(name, self.base_dir()));
        found.next().ok_or_else(|| SandboxError::NoInstaller { program: self.path.clone() })
    }

    /// Returns the directory above the program's own, as `/usr` above `/usr/sbin/mariadbd`.
    fn base_dir(&self) -> Option<&Path> {
        self.path.parent()?.parent()
    }
}

/// `--no-defaults` has to be the first: the machine's own configuration belongs to another server.
fn first_options(dir: &Dir) -> Vec<String> {
    let mut options = vec!["--no-defaults".to_owned(), format!("--datadir={}", dir.data().display())];
    if rustix::process::geteuid().is_root() {
        // Servers refuse to be root unless told to.
        options.push("--user=root".to_owned());
    }
    options
}

fn quiet(mut command: Command, dir: &Dir) -> Command {
    // A MariaDB that starts elsewhere removes temporary tables in a directory that both share, and the other one aborts.
    command.env("TMPDIR", dir.path().join("tmp"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(dir.path());
    command
}

/// Returns the files of this name below a base directory, in `PATH` and in the usual places.
fn candidates(name: &str, base: Option<&Path>) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let below = base.into_iter().flat_map(|base| ["bin", "scripts"].map(|dir| base.join(dir)));
    let places = below.chain(std::env::split_paths(&path)).chain(USUAL_PLACES.map(PathBuf::from));
    places.map(|place| place.join(name)).filter(|file| file.is_file()).collect()
}

fn version(path: &Path) -> Result<String, SandboxError> {
    let failed = |source| SandboxError::Run { program: path.to_owned(), source };
    let output = Command::new(path).args(["--no-defaults", "--version"]).stdin(Stdio::null()).output();
    let text = String::from_utf8_lossy(&output.map_err(failed)?.stdout).trim().to_owned();
    Ok(text)
}

fn tells(version: &str) -> Product {
    if version.contains("MariaDB") { Product::MariaDb } else { Product::MySql }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_its_product() {
        assert_eq!(
            tells("mysqld  Ver 10.11.14-MariaDB-0+deb12u2 for debian-linux-gnu on x86_64 (Debian 12)"),
            Product::MariaDb
        );
        assert_eq!(tells("/usr/sbin/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))"), Product::MySql);
    }

    #[test]
    fn a_program_of_neither_product_is_run_and_found_out() {
        let gone = Program::find(Product::MySql, Some(Path::new("/nonexistent/mysqld")));
        assert!(matches!(gone, Err(SandboxError::Run { .. })));
    }
}
