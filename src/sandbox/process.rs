//! A child process that does not outlive us.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::sandbox::SandboxError;

/// Waits at a pipe that only we hold the other end of. When it closes and the guard still lives, we were killed: it ends the
/// process group `$1`, if that still works on the directory `$2`, and removes the directory. It hears no signal of the terminal's.
///
/// A signal for the death of a parent (`PR_SET_PDEATHSIG`) would come when the *thread* ends that started the child.
const GUARD: &str = r#"trap '' HUP INT TERM
read -r _
if tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF -- "$2"; then kill -9 "-$1"; fi
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$2" && break; sleep 0.2; done"#;

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    guard: Child,
}

impl Process {
    /// Starts a command that names a directory in its arguments, and a guard for both.
    pub(super) fn spawn(mut command: Command, dir: &Path) -> Result<Self, SandboxError> {
        let program = command.get_program().to_owned();
        let failed = |source| SandboxError::Run { program: program.into(), source };
        // A group of its own: an interrupt at the terminal is ours to handle, and what the command starts ends with it.
        let mut child = command.process_group(0).spawn().map_err(failed)?;
        match guard(&child, dir) {
            Ok(guard) => Ok(Self { child, guard }),
            Err(error) => {
                end(&mut child);
                Err(SandboxError::Watch(error))
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns how the process ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, SandboxError> {
        self.child.try_wait().map_err(SandboxError::Watch)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first: what it would do is done here.
        end(&mut self.guard);
        end(&mut self.child);
    }
}

fn guard(child: &Child, dir: &Path) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", GUARD, "bkp-sandbox-guard", &child.id().to_string()])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// Kills a child with its group and waits for its end. One that has ended already is fine.
fn end(child: &mut Child) {
    // A child that was waited for has no group any more that would be ours.
    if matches!(child.try_wait(), Ok(None)) {
        kill_process_group(Pid::from_child(child), Signal::KILL).ok();
        child.wait().ok();
    }
}
