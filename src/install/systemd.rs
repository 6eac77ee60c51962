//! The service and its timer for systemd, and the daemon's service where a binlog is captured, with no more rights than they need.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::install::{InstallError, MARK, Setup, Step, With, plain};
use crate::policy::{CopyTarget, MysqlAddress};
use crate::secret::SecretSource;

const UNITS: &str = "/etc/systemd/system";

pub(super) fn files(setup: &Setup<'_>) -> Result<Vec<(PathBuf, String)>, InstallError> {
    let unit = |kind: &str| setup.under_root(&format!("{UNITS}/bkp-{}.{kind}", setup.policy.name));
    let mut files = vec![(unit("service"), service(setup)?), (unit("timer"), timer(setup))];
    if follows(setup) {
        files.push((daemon_path(setup), daemon(setup)?));
    }
    Ok(files)
}

/// Returns the daemon's unit where it is there and the policy captures no binlog any more.
pub(super) fn stale(setup: &Setup<'_>) -> Option<PathBuf> {
    Some(daemon_path(setup)).filter(|path| !follows(setup) && path.exists())
}

/// Tells whether a daemon has something to do.
fn follows(setup: &Setup<'_>) -> bool {
    setup.policy.mysql.values().any(|source| source.binlog.is_some())
}

fn daemon_path(setup: &Setup<'_>) -> PathBuf {
    setup.under_root(&format!("{UNITS}/{}", daemon_name(setup)))
}

fn daemon_name(setup: &Setup<'_>) -> String {
    format!("bkp-{}-daemon.service", setup.policy.name)
}

/// Adds what makes systemd read the files and start the units, where it does not yet.
pub(super) fn add_enabling(setup: &Setup<'_>, steps: &mut Vec<Step>) {
    let is_written = |path: &Path| steps.iter().any(|step| matches!(step, Step::Write { path: of, .. } if of == path));
    // One that runs reads its policy and its unit anew.
    let is_outdated = is_written(&daemon_path(setup)) && !daemon_link(setup).1.is_missing;
    let is_changed = steps.iter().any(|step| matches!(step, Step::Write { .. } | Step::Remove(_)));
    if stale(setup).is_some() && !daemon_link(setup).1.is_missing {
        steps.insert(0, systemctl(setup, "disable", &[daemon_name(setup)]));
    }
    if is_changed && setup.is_here() {
        steps.push(reload());
    }
    let missing: Vec<String> =
        links(setup).into_iter().filter(|(_, link)| link.is_missing).map(|(unit, _)| unit).collect();
    if !missing.is_empty() {
        steps.push(systemctl(setup, "enable", &missing));
    }
    if is_outdated && setup.is_here() {
        steps.push(Step::Run(vec!["systemctl".to_owned(), "try-restart".to_owned(), daemon_name(setup)]));
    }
}

/// Puts what stops the units before the removal of their files, and what makes systemd forget them after.
pub(super) fn add_disabling(setup: &Setup<'_>, steps: &mut Vec<Step>) {
    if steps.is_empty() {
        return;
    }
    let all = [timer_link(setup), daemon_link(setup)];
    let linked: Vec<String> = all.into_iter().filter(|(_, link)| !link.is_missing).map(|(unit, _)| unit).collect();
    if !linked.is_empty() {
        steps.insert(0, systemctl(setup, "disable", &linked));
    }
    if setup.is_here() {
        steps.push(reload());
    }
}

/// Returns the links that start the units at boot, where they are not there.
pub(super) fn missing_links(setup: &Setup<'_>) -> Vec<PathBuf> {
    links(setup).into_iter().filter(|(_, link)| link.is_missing).map(|(_, link)| link.path).collect()
}

/// What starts a unit at boot.
struct Link {
    path: PathBuf,
    is_missing: bool,
}

fn links(setup: &Setup<'_>) -> Vec<(String, Link)> {
    [timer_link(setup)].into_iter().chain(follows(setup).then(|| daemon_link(setup))).collect()
}

fn timer_link(setup: &Setup<'_>) -> (String, Link) {
    link(setup, "timers.target", format!("bkp-{}.timer", setup.policy.name))
}

fn daemon_link(setup: &Setup<'_>) -> (String, Link) {
    link(setup, "multi-user.target", daemon_name(setup))
}

fn link(setup: &Setup<'_>, target: &str, unit: String) -> (String, Link) {
    let path = setup.under_root(&format!("{UNITS}/{target}.wants/{unit}"));
    // The link points out of an image, so only its own existence counts.
    let is_missing = path.symlink_metadata().is_err();
    (unit, Link { path, is_missing })
}

fn reload() -> Step {
    Step::Run(vec!["systemctl".to_owned(), "daemon-reload".to_owned()])
}

/// Enables or disables units, and starts or stops them where the running system is meant.
fn systemctl(setup: &Setup<'_>, verb: &str, units: &[String]) -> Step {
    let own = if setup.is_here() { "--now".to_owned() } else { format!("--root={}", setup.root.display()) };
    let words = ["systemctl".to_owned(), verb.to_owned(), own];
    Step::Run(words.into_iter().chain(units.iter().cloned()).collect())
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
    let mut text = head(setup, &format!("bkp-{}.service", setup.policy.name), "Runs what is due of");
    text.push_str("\n[Service]\nType=oneshot\n");
    writeln!(text, "ExecStart={}", command(setup, "run --quiet")?).ok();
    text.push_str(MANNERS);
    add_credentials(setup, &mut text);
    add_places(setup, &mut text)?;
    add_rights(&mut text);
    if setup.policy.schedule.drill.is_some() {
        text.push_str(DRILL_RIGHTS);
    }
    text.push_str(WALLS);
    text.push_str(LEFT_OUT);
    Ok(text)
}

fn daemon(setup: &Setup<'_>) -> Result<String, InstallError> {
    let mut text = head(setup, &daemon_name(setup), "Follows the binlogs of");
    text.push_str(
        "# A server forgets its binlogs: it is started again for as long as it takes.\nStartLimitIntervalSec=0\n",
    );
    text.push_str("# Nothing is spooled beneath a mount that is not there. The repository may be missing meanwhile.\n");
    for path in kept_places(setup) {
        writeln!(text, "RequiresMountsFor={}", quoted(&path)?).ok();
    }
    text.push_str("\n[Service]\nType=notify\n");
    writeln!(text, "ExecStart={}", command(setup, "daemon")?).ok();
    text.push_str(DAEMON_MANNERS);
    add_credentials(setup, &mut text);
    add_places(setup, &mut text)?;
    add_rights(&mut text);
    text.push_str(WALLS);
    text.push_str("RestrictSUIDSGID=yes\n");
    // A command that gives a secret may compile as it goes.
    if !setup.secrets().any(|secret| matches!(secret, SecretSource::Command(_))) {
        text.push_str("MemoryDenyWriteExecute=yes\n");
    }
    text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    Ok(text)
}

fn head(setup: &Setup<'_>, unit: &str, does: &str) -> String {
    let name = &setup.policy.name;
    format!(
        "{MARK}; `bkp schedule remove {name} --with systemd` removes it.\n\
         # Changes of your own belong into a drop-in: `systemctl edit {unit}`.\n\
         [Unit]\nDescription={does} bkp's policy {name}\n\
         Wants=network-online.target\nAfter=network-online.target remote-fs.target mariadb.service mysql.service\n"
    )
}

fn command(setup: &Setup<'_>, verb: &str) -> Result<String, InstallError> {
    let (program, policy) = (quoted(&setup.program)?, quoted(&setup.policy_file)?);
    Ok(format!("{} {verb} {}", program.replace('$', "$$"), policy.replace('$', "$$")))
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

const DAEMON_MANNERS: &str = "\
# It says twice in a minute that it lives.
WatchdogSec=60
Restart=always
RestartSec=10
User=root
UMask=0077
# It opens the repository first where the spool is new.
TimeoutStartSec=infinity
# What came is in the spool when it ends.
KillMode=mixed
TimeoutStopSec=5min
";

const DRILL_RIGHTS: &str = "\
# For drills: to restore files with their owners and modes, and to start the sandbox's server as its own user.
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_SETUID CAP_SETGID CAP_KILL
";

const LEFT_OUT: &str = "\
# Left out on purpose: RestrictSUIDSGID (a drill restores files with their modes) and MemoryDenyWriteExecute (a drill's
# database server compiles patterns).
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
    let mut places = vec![policy.repository.path.clone()];
    places.extend(kept_places(setup));
    places.push(policy.report_dir());
    places.extend(policy.drill.work_dir.clone());
    places.extend(policy.copies.iter().filter_map(|copy| match &copy.place {
        CopyTarget::Dir(dir) => Some(dir.clone()),
        CopyTarget::S3(_) => None,
    }));
    // What lies inside another place is written with it.
    let outer = |path: &PathBuf| !places.iter().any(|other| other != path && path.starts_with(other));
    let mut outermost: Vec<PathBuf> = Vec::new();
    for place in places.iter().filter(|path| outer(path)) {
        if !outermost.contains(place) {
            outermost.push(place.clone());
        }
    }
    outermost
}

/// Returns where is kept what a run leaves to the next: the state, and the spools. Several databases may have one.
fn kept_places(setup: &Setup<'_>) -> BTreeSet<PathBuf> {
    let plans = setup.policy.mysql.values().filter_map(|source| source.binlog.as_ref());
    [setup.policy.state_dir.clone()].into_iter().chain(plans.map(|plan| plan.spool.clone())).collect()
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

fn add_rights(text: &mut String) {
    text.push_str("\n# Of root's rights: to read every file of a source.\nCapabilityBoundingSet=CAP_DAC_READ_SEARCH\n");
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
