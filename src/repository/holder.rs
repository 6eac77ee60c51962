//! Who works on a repository: host, user and process, as locks and keys name them.

use std::fs;

use rustix::process::{Pid, getgid, getpid, getuid, test_kill_process};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) hostname: String,
    pub(super) username: String,
    pub(super) pid: i32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Which kernel, and which of its tables of processes, the number is of; `None` where `/proc` does not say.
    pub(super) processes: Option<String>,
}

impl Holder {
    pub(super) fn of_this_process() -> Self {
        let uid = getuid().as_raw();
        Self {
            hostname: hostname(),
            username: username(uid),
            pid: getpid().as_raw_nonzero().get(),
            uid,
            gid: getgid().as_raw(),
            processes: processes(),
        }
    }
}

/// Names the table in which process ids of this process can be looked up: this boot of the kernel and the namespace.
fn processes() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{}/{}", boot.trim(), namespace.display()))
}

/// Returns the machine's name as the kernel has it.
pub(super) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the user's name from `/etc/passwd`; the number where it has none.
fn username(uid: u32) -> String {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(&number));
    let name = line.and_then(|line| line.split(':').next());
    name.map_or(number.clone(), str::to_owned)
}

/// Tells whether a process of this machine is there, whoever owns it.
pub(super) fn is_alive(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else {
        return false;
    };
    test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}
