//! The mall (`scripts/mall`) in a server: filled, changed, kept busy and fingerprinted by its own program.

use super::Server;
use std::env;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

/// Fills schema `mall` with about so many bytes of rows and, below a directory, so many images.
pub(crate) fn fill(server: &Server, size: &str, images: Option<(&Path, u64)>) {
    let count = images.map_or(0, |(_, count)| count).to_string();
    let mut command = mall(server, "fill", images.map(|(dir, _)| dir));
    if images.is_some() {
        command.args(["--image-count", &count]);
    }
    run(command.args(["--replace", "--size", size]));
}

/// Inserts, updates and deletes a share of rows and images.
pub(crate) fn change(server: &Server, fraction: f64, images: Option<&Path>) {
    run(mall(server, "change", images).args(["--fraction", &fraction.to_string()]));
}

/// Returns a line for each table (name, rows, fingerprint) and one for the definitions.
pub(crate) fn checksum(server: &Server) -> Vec<String> {
    lines(&run(&mut mall(server, "checksum", None)))
}

/// Returns a line for each file and directory below `dir`: path, size, time, mode, SHA-256.
pub(crate) fn checksum_of_files(dir: &Path) -> Vec<String> {
    lines(&run(Command::new(program()).args(["checksum", "--list", "--images"]).arg(dir)))
}

/// Writes orders and images until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Child);

impl Busy {
    /// Returns once the first writers are connected.
    pub(crate) fn start(server: &Server, images: Option<&Path>) -> Self {
        let mut command = mall(server, "busy", images);
        let mut child = command.args(["--seconds", "600"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "busy\n");
        Self(child)
    }

    /// Stops it in good order; returns what it says it did.
    pub(crate) fn stop(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let said = std::io::read_to_string(self.0.stdout.take().unwrap()).unwrap();
        assert!(self.0.wait().unwrap().success());
        said
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn mall(server: &Server, verb: &str, images: Option<&Path>) -> Command {
    let mut command = Command::new(program());
    command.arg(verb).arg("--socket").arg(server.socket());
    if let Some(dir) = images {
        command.arg("--images").arg(dir);
    }
    command
}

/// Cargo builds the examples beside the tests.
fn program() -> PathBuf {
    let test = env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/mall");
    assert!(program.is_file(), "no {}: run cargo build --example mall", program.display());
    program
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
