//! The service and its timer for systemd, with no more rights than a run needs.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::install::{InstallError, MARK, Setup, Step, With, plain};
use crate::policy::{CopyTarget, MysqlAddress};
use crate::secret::SecretSource;

const UNITS: &str = "/etc/systemd/system";

pub(super) fn files(setup: &Setup<'_>) -> Result<Vec<(PathBuf, String)>, InstallError> {
    let unit = |kind: &str| setup.under_root(&format!("{UNITS}/bkp-{}.{kind}", setup.policy.name));
    Ok(vec![(unit("service"), service(setup)?), (unit("timer"), timer(setup))])
}

/// Adds what makes systemd read the files and start the timer, where it does not yet.
pub(super) fn add_enabling(setup: &Setup<'_>, steps: &mut Vec<Step>) {
    let is_changed = steps.iter().any(|step| matches!(step, Step::Write { .. }));
    if is_changed && setup.is_here() {
        steps.push(systemctl(setup, &["daemon-reload"]));
    }
    if missing_link(setup).is_some() {
        let now: &[&str] = if setup.is_here() { &["enable", "--now"] } else { &["enable"] };
        steps.push(systemctl(setup, &[now, &[&timer_name(setup)]].concat()));
    }
}

/// Puts what stops the timer before the removal of its file, and what makes systemd forget it after.
pub(super) fn add_disabling(setup: &Setup<'_>, steps: &mut Vec<Step>) {
    if steps.is_empty() {
        return;
    }
    if missing_link(setup).is_none() {
        let now: &[&str] = if setup.is_here() { &["disable", "--now"] } else { &["disable"] };
        steps.insert(0, systemctl(setup, &[now, &[&timer_name(setup)]].concat()));
    }
    if setup.is_here() {
        steps.push(systemctl(setup, &["daemon-reload"]));
    }
}

/// Returns the link that starts the timer at boot, where it is not there.
pub(super) fn missing_link(setup: &Setup<'_>) -> Option<PathBuf> {
    let link = setup.under_root(&format!("{UNITS}/timers.target.wants/{}", timer_name(setup)));
    // The link points out of an image, so only its own existence counts.
    link.symlink_metadata().is_err().then_some(link)
}

fn timer_name(setup: &Setup<'_>) -> String {
    format!("bkp-{}.timer", setup.policy.name)
}

fn systemctl(setup: &Setup<'_>, arguments: &[&str]) -> Step {
    let mut words = vec!["systemctl".to_owned()];
    if !setup.is_here() {
        words.push(format!("--root={}", setup.root.display()));
    }
    words.extend(arguments.iter().map(|word| (*word).to_owned()));
    Step::Run(words)
}

fn timer(setup: &Setup<'_>) -> String {
    let name = &setup.policy.name;
    format!(
        "{MARK}; `bkp schedule remove {name} --with systemd` removes it.\n\
         [Unit]\n\
         Description=Looks every minute what is due of bkp's policy {name}\n\
         \n\
         [Timer]\n\
         OnCalendar=minutely\n\
         AccuracySec=1s\n\
         \n\
         [Install]\n\
         WantedBy=timers.target\n"
    )
}

fn service(setup: &Setup<'_>) -> Result<String, InstallError> {
    let name = &setup.policy.name;
    let mut text = format!("{MARK}; `bkp schedule remove {name} --with systemd` removes it.\n");
    text.push_str("# Changes of your own belong into a drop-in: `systemctl edit ");
    writeln!(text, "bkp-{name}.service`.").ok();
    writeln!(text, "[Unit]\nDescription=Runs what is due of bkp's policy {name}").ok();
    text.push_str(
        "Wants=network-online.target\nAfter=network-online.target remote-fs.target mariadb.service mysql.service\n",
    );
    text.push_str("\n[Service]\nType=oneshot\n");
    let (program, policy) =
        (quoted(&setup.program)?.replace('$', "$$"), quoted(&setup.policy_file)?.replace('$', "$$"));
    writeln!(text, "ExecStart={program} run --quiet {policy}").ok();
    text.push_str(MANNERS);
    add_credentials(setup, &mut text);
    add_places(setup, &mut text)?;
    add_rights(setup, &mut text);
    text.push_str(WALLS);
    Ok(text)
}

const MANNERS: &str = "\
# Another run of the policy is going on: nothing is wrong.
SuccessExitStatus=11
User=root
UMask=0077
Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=7
TimeoutStartSec=infinity
# A run that is told to stop does so at a safe point.
KillMode=mixed
TimeoutStopSec=5min
";

const WALLS: &str = "
NoNewPrivileges=yes
ProtectHome=read-only
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
# Databases, object stores, and the question to the kernel for the way there.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# Left out on purpose: RestrictSUIDSGID (a drill restores files with their modes) and MemoryDenyWriteExecute (a drill's
# database server compiles patterns).
";

/// systemd looks a credential up under its name in /etc/credstore and beside it.
fn add_credentials(setup: &Setup<'_>, text: &mut String) {
    for secret in setup.credentials() {
        if let SecretSource::Credential(name) = secret {
            writeln!(text, "# From /etc/credstore/{name}; an encrypted one wants LoadCredentialEncrypted= instead.")
                .ok();
            writeln!(text, "LoadCredential={}", name.replace('%', "%%")).ok();
        }
    }
}

fn add_places(setup: &Setup<'_>, text: &mut String) -> Result<(), InstallError> {
    text.push_str("\n# All of the filesystem can be read and nothing written, but for these; `-`: it may be missing.\nProtectSystem=strict\n");
    for path in written_places(setup) {
        writeln!(text, "ReadWritePaths={}", quoted_as(&path, "-")?).ok();
    }
    if uses_temp(setup) {
        text.push_str("# The policy names a path under /tmp, so it must be the real one.\nPrivateTmp=no\nReadWritePaths=/tmp /var/tmp\n");
    } else {
        text.push_str("PrivateTmp=yes\n");
    }
    if setup.secrets().any(|secret| matches!(secret, SecretSource::Command(_))) {
        text.push_str("# A command gives a secret: `pass` and `gpg` lock files in root's keyring.\nReadWritePaths=-/root/.gnupg\n");
    }
    Ok(())
}

fn written_places(setup: &Setup<'_>) -> Vec<PathBuf> {
    let policy = setup.policy;
    let mut places = vec![policy.repository.path.clone(), policy.state_dir.clone(), policy.report_dir()];
    places.extend(policy.drill.work_dir.clone());
    places.extend(policy.mysql.values().filter_map(|source| source.binlog.as_ref()).map(|plan| plan.spool.clone()));
    places.extend(policy.copies.iter().filter_map(|copy| match &copy.place {
        CopyTarget::Dir(dir) => Some(dir.clone()),
        CopyTarget::S3(_) => None,
    }));
    // What lies inside another place is written with it.
    let outer = |path: &PathBuf| !places.iter().any(|other| other != path && path.starts_with(other));
    let mut outermost: Vec<PathBuf> = Vec::new();
    for place in places.iter().filter(|path| outer(path)) {
        // Several databases may have one spool.
        if !outermost.contains(place) {
            outermost.push(place.clone());
        }
    }
    outermost
}

/// Tells whether the policy needs the machine's own /tmp or /var/tmp: a server's socket, a tree, a place.
fn uses_temp(setup: &Setup<'_>) -> bool {
    let policy = setup.policy;
    let sockets = policy.mysql.values().filter_map(|source| match &source.address {
        MysqlAddress::Socket(path) => Some(path.as_path()),
        MysqlAddress::Tcp { .. } => None,
    });
    let trees = policy.files.values().map(|source| source.path.as_path());
    let files = [setup.policy_file.as_path(), setup.program.as_path()].into_iter();
    let written = written_places(setup);
    let mut all = sockets.chain(trees).chain(files).chain(written.iter().map(PathBuf::as_path));
    all.any(|path| path.starts_with("/tmp") || path.starts_with("/var/tmp"))
}

fn add_rights(setup: &Setup<'_>, text: &mut String) {
    text.push_str("\n# Of root's rights: to read every file of a source.\nCapabilityBoundingSet=CAP_DAC_READ_SEARCH\n");
    if setup.policy.schedule.drill.is_some() {
        text.push_str(
            "# For drills: to restore files with their owners and modes, and to start the sandbox's server as its own user.\n\
             CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_SETUID CAP_SETGID CAP_KILL\n",
        );
    }
}

fn quoted(path: &Path) -> Result<String, InstallError> {
    quoted_as(path, "")
}

/// Quotes a path for a unit file; `%` would begin a specifier.
fn quoted_as(path: &Path, prefix: &str) -> Result<String, InstallError> {
    let text = plain(path, With::Systemd)?.replace('%', "%%");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%$".contains(c);
    if text.chars().all(is_plain) {
        return Ok(format!("{prefix}{text}"));
    }
    Ok(format!("\"{prefix}{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}
