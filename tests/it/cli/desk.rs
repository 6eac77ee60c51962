//! A tree of images, a repository and a copy in a directory: enough for the real program, and no server.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::world::{Ended, noise};

pub(crate) const BKP: &str = env!("CARGO_BIN_EXE_bkp");

pub(crate) struct Desk {
    dir: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let desk = Self { dir: tempfile::tempdir().unwrap() };
        for n in 1..=3 {
            desk.write(&format!("images/shop0001/{n}.jpg"), &noise(n, 20_000));
        }
        desk.write("images/.bkp-ok", b"");
        fs::create_dir(desk.path("usb")).unwrap();
        desk.write_policy("");
        desk
    }

    /// A desk with its repository made.
    pub(crate) fn ready() -> Self {
        let desk = Self::new();
        desk.bkp(&["init", "mall"]).expect(0);
        desk
    }

    /// A desk with one backup.
    pub(crate) fn backed_up() -> Self {
        let desk = Self::ready();
        desk.bkp(&["backup", "mall"]).expect(0);
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn policy(&self) -> String {
        fs::read_to_string(self.path("policies/mall.toml")).unwrap()
    }

    /// Changes one thing in the policy, which must be there.
    pub(crate) fn change_policy(&self, from: &str, to: &str) {
        let policy = self.policy();
        assert!(policy.contains(from), "{from} is not in the policy");
        self.write("policies/mall.toml", policy.replace(from, to).as_bytes());
    }

    /// Writes the policy; `more` is appended to it.
    pub(crate) fn write_policy(&self, more: &str) {
        let dir = self.dir.path().display();
        let text = format!(
            r#"version = 1
name = "mall"
timezone = "Asia/Seoul"
state_dir = "{dir}/state"

[repository]
path = "{dir}/repository"
password_file = "{dir}/mall.key"

[[copy]]
name = "usb"
path = "{dir}/usb"

[files.images]
path = "{dir}/images"
guard = {{ sentinel = ".bkp-ok" }}

[schedule]
backup = "15 2 * * *"

[retention]
last = 9

[drill.sandbox]
work_dir = "{dir}"
{more}
"#
        );
        self.write("policies/mall.toml", text.as_bytes());
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BKP);
        command.args(args).arg("--policies").arg(self.path("policies")).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn bkp(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    /// Takes the changing directory out of a text.
    pub(crate) fn plain(&self, text: &str) -> String {
        text.replace(self.dir.path().to_str().unwrap(), "DIR")
    }

    /// Makes the copy `usb` a bucket at an address.
    pub(crate) fn copy_to_s3(&self, listener: &TcpListener) {
        let (usb, port) = (format!("path = \"{}\"", self.text("usb")), listener.local_addr().unwrap().port());
        self.write("s3.key", b"secret\n");
        fs::set_permissions(self.path("s3.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let s3 = format!(
            "s3 = {{ bucket = \"b\", region = \"r\", endpoint = \"http://localhost:{port}\", access_key_id = \"a\", \
             secret_access_key_file = \"{}\" }}",
            self.text("s3.key")
        );
        self.change_policy(&usb, &s3);
    }

    pub(crate) fn snapshots(&self) -> Vec<serde_json::Value> {
        self.bkp(&["snapshots", "mall", "--json"]).expect(0).json()["snapshots"].as_array().unwrap().clone()
    }

    /// Flips bits in the largest pack, which holds the files, until each of them is hurt.
    pub(crate) fn rot(&self) {
        let size = |pack: &PathBuf| fs::metadata(pack).unwrap().len();
        let pack = self.packs().into_iter().max_by_key(size).unwrap();
        let mut bytes = fs::read(&pack).unwrap();
        bytes.iter_mut().step_by(1_000).for_each(|byte| *byte ^= 1);
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(pack, bytes).unwrap();
    }

    /// Returns the packs of the repository.
    pub(crate) fn packs(&self) -> Vec<PathBuf> {
        let mut packs = Vec::new();
        for dir in fs::read_dir(self.path("repository/data")).unwrap() {
            packs.extend(fs::read_dir(dir.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
        }
        packs
    }
}

/// Flips one bit in the middle of a file.
pub(crate) fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}
