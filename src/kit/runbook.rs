//! The runbook: the steps of a recovery with real names, sizes and times. What is in a `sh` block is typed as it stands.

use std::fmt::Write as _;

use crate::drill::outcome::{DrillOutcome, Origin};
use crate::human;
use crate::kit::Kit;
use crate::kit::facts::{CopyFacts, Facts, SourceFacts, access_key, credentials, wanted};
use crate::policy::{CopyTarget, S3Place};

/// Appends a line.
macro_rules! line {
    ($page:expr) => { $page.push('\n') };
    ($page:expr, $($text:tt)*) => {{
        // A String takes all that is written into it.
        _ = writeln!($page, $($text)*);
    }};
}

mod restic;
mod variables;

use variables::Variables;

/// Writes the runbook of a kit.
pub(super) fn runbook(kit: &Kit, all: &[&Facts]) -> String {
    let mut page = String::new();
    let names: Vec<&str> = all.iter().map(|facts| facts.policy.name.as_str()).collect();
    line!(page, "# Recovery of {}\n", names.join(", "));
    let zone = all.first().map_or(chrono_tz::Tz::UTC, |facts| facts.policy.timezone);
    let created = human::time(kit.created, zone);
    line!(
        page,
        "Written {created} by {} on `{}`. `bkp kit check .` says whether it is whole.\n",
        kit.program,
        kit.host
    );
    needs(&mut page, kit, all);
    let variables = Variables::of(all);
    for facts in all {
        what_there_is(&mut page, facts);
        restore(&mut page, facts, &variables);
        restic::without_bkp(&mut page, facts, &variables);
    }
    page
}

fn needs(page: &mut String, kit: &Kit, all: &[&Facts]) {
    line!(page, "## What you need\n");
    line!(page, "- **The passphrase of this kit.** It is nowhere in here, and nothing opens without it.");
    line!(page, "- **A machine**: {}. `./bkp --version` tells whether it starts.", kit.binary);
    for facts in all {
        facts.copies.iter().for_each(|copy| need_of_copy(page, copy, &facts.policy.name));
        facts.sources.iter().filter(|source| source.is_database).for_each(|source| need_of_server(page, source, facts));
        let bytes: u64 = facts.sources.iter().filter_map(|source| source.newest.as_ref()?.bytes).sum();
        line!(page, "- **Room** on disks: {} for what {} brings back.", human::bytes(bytes), facts.policy.name);
    }
    line!(
        page,
        "\nThen put the kit on a disk of the new machine and go there; all that follows is typed in that directory.\n"
    );
    // Sticks of memory forget rights and owners, and archives keep those of the lost machine.
    line!(page, "```sh\nchown -R \"$(id -u)\" .\nchmod -R u+rwX,go= .\nchmod u+x bkp");
    line!(page, "sha256sum --quiet -c SHA256SUMS\n./bkp --version\n```\n");
    line!(
        page,
        "Each command asks for the passphrase. To type it once, put it into a file of mode 0600 and \
         `export BKP_PASSPHRASE_FILE=FILE`.\n"
    );
}

fn need_of_copy(page: &mut String, copy: &CopyFacts, policy: &str) {
    let name = &copy.name;
    match &copy.place {
        CopyTarget::S3(s3) => line!(
            page,
            "- **Credentials** of copy `{name}` of {policy}, `{}`: {}. They are not in this kit.",
            copy.place,
            credentials(s3)
        ),
        CopyTarget::Dir(dir) => line!(
            page,
            "- **The disk** of copy `{name}` of {policy}, mounted so that it is at `{}` again; or write where it is into \
             `policies/{policy}.toml`.",
            dir.display()
        ),
    }
}

fn need_of_server(page: &mut String, source: &SourceFacts, facts: &Facts) {
    let product = facts.drill.as_ref().and_then(|drill| {
        let server = drill.place.sandboxes.iter().find(|server| server.source == source.name)?;
        Some(format!(" (the last drill used version {})", server.version))
    });
    line!(
        page,
        "- **A database server** for `{}`, empty, of the same product as the lost one{}; it was at `{}`.",
        source.name,
        product.unwrap_or_default(),
        source.place
    );
}

fn what_there_is(page: &mut String, facts: &Facts) {
    line!(page, "## {}: what there is\n", facts.policy.name);
    line!(
        page,
        "Repository `{}`. What comes back, as of this kit; newer snapshots may be in the copy:\n",
        facts.repository
    );
    line!(
        page,
        "| source | was at | newest snapshot | of | size | should take |\n| --- | --- | --- | --- | --- | --- |"
    );
    for source in &facts.sources {
        line!(page, "{}", source_row(source, facts));
    }
    line!(page);
    times(page, facts);
    network(page, facts);
    copies(page, facts);
}

fn restore(page: &mut String, facts: &Facts, variables: &Variables) {
    let name = &facts.policy.name;
    line!(page, "## {name}: restore with bkp\n");
    forget_credentials(page, facts, variables);
    if let Some(CopyFacts { place: CopyTarget::S3(s3), .. }) = facts.stand_in() {
        credentials_block(page, s3, facts, variables);
    }
    targets(page, facts, variables);
    line!(
        page,
        "Look first: the snapshots that there are, and the plan with sizes and times. Nothing is written.\n\n```sh"
    );
    line!(page, "./bkp --kit . snapshots {name}");
    let command = |source| restore_command(facts, source, variables);
    facts.sources.iter().for_each(|source| line!(page, "{} --dry-run", command(source)));
    line!(page, "```\n\nThen restore. What is interrupted goes on when the same command is given again.\n\n```sh");
    facts.sources.iter().for_each(|source| line!(page, "{} --yes --verify", command(source)));
    line!(page, "```\n");
    line!(
        page,
        "`--verify` has compared every row and file with the snapshot: exit code 0 is the proof. `--point-in-time 'YYYY-MM-DD HH:MM'` \
         goes further back; `--from COPY` reads another copy. Straight into the directory that a tree was in: \
         `--to-dir DIR --in-place --confirm-host \"$(hostname)\"`.\n"
    );
    checks(page, facts);
}

/// Says where to restore to. Of several databases none has a default: two would go into the same server.
fn targets(page: &mut String, facts: &Facts, variables: &Variables) {
    line!(page, "Where to restore to: change these lines, or set the variables before.\n\n```sh");
    for database in facts.sources.iter().filter(|source| source.is_database) {
        let variable = variables.of_database("TO_MYSQL", facts, database);
        let url = "mysql://root@localhost?socket=/run/mysqld/mysqld.sock";
        let default = if variables.has_one_database() { format!("-{url}") } else { format!("?a server, as {url}") };
        line!(page, "export {variable}=\"${{{variable}:{default}}}\"");
    }
    let to_dir = variables.of_policy("TO_DIR", facts);
    line!(page, "export {to_dir}=\"${{{to_dir}:-/srv/restored/{}}}\"\n```\n", facts.policy.name);
    if facts.has_database() {
        line!(
            page,
            "A server on another machine is `mysql://USER@HOST`; each restore then wants `--to-mysql-password-file FILE` and \
             `--to-mysql-ca FILE` as well.\n"
        );
    }
}

fn source_row(source: &SourceFacts, facts: &Facts) -> String {
    let Some(newest) = &source.newest else {
        return format!("| {} | `{}` | **none yet** | | | |", source.name, source.place);
    };
    let incomplete = if newest.is_incomplete { " (incomplete)" } else { "" };
    format!(
        "| {} | `{}` | {}{incomplete} | {} | {} | {} |",
        source.name,
        source.place,
        newest.id,
        human::time(newest.time, facts.policy.timezone),
        newest.bytes.map_or_else(|| "?".to_owned(), human::bytes),
        newest.predicted.map_or_else(|| "not measured yet: run a drill".to_owned(), human::duration)
    )
}

fn restore_command(facts: &Facts, source: &SourceFacts, variables: &Variables) -> String {
    let (policy, name) = (&facts.policy.name, &source.name);
    let target = if source.is_database {
        format!("--to-mysql \"${}\"", variables.of_database("TO_MYSQL", facts, source))
    } else {
        format!("--to-dir \"${}/{name}\"", variables.of_policy("TO_DIR", facts))
    };
    format!("./bkp --kit . restore {policy} --source {name} {target}")
}

/// Tells how long it took when it was rehearsed.
fn times(page: &mut String, facts: &Facts) {
    let objective = facts.policy.objectives.rto.map_or_else(|| "none is set".to_owned(), human::duration);
    let Some(drill) = &facts.drill else {
        line!(
            page,
            "How long all of it takes is **not measured yet: run a drill** (`bkp drill`). Objective (RTO): {objective}.\n"
        );
        return;
    };
    let from = match &drill.from {
        Origin::Repository => "the repository on the lost machine, which is nearer than a copy".to_owned(),
        Origin::Copy { name } => format!("copy `{name}`"),
    };
    line!(
        page,
        "Rehearsed {} on `{}` ({} cores) from {from}: recovery time {}, objective (RTO) {objective}.\n",
        human::time(drill.started, facts.policy.timezone),
        drill.place.host,
        drill.place.cores,
        drill.rta_ms.map_or_else(|| "not measured".to_owned(), human::millis)
    );
    if let Some(took) = drill.first_order.as_ref().and_then(|first| first.ms) {
        line!(
            page,
            "What `restore.first` names could be read after {}: the time to first order.\n",
            human::millis(took)
        );
    }
    if !drill.passed() {
        line!(page, "**That drill did not pass: {}.** Do not count on its time.\n", shortcoming(drill));
    }
    line!(page, "| phase | took | moved |\n| --- | --: | --: |");
    for phase in &drill.phases {
        let moved = phase.bytes.map_or_else(String::new, human::bytes);
        line!(page, "| {} | {} | {moved} |", phase.name, human::millis(phase.duration_ms));
    }
    line!(page);
}

fn shortcoming(drill: &DrillOutcome) -> String {
    if let Some(error) = &drill.error {
        return human::printable(error);
    }
    let reason = match () {
        () if drill.checks_failed() => "a check of what was restored failed",
        () if drill.breached() => "an objective was missed",
        () => "not all was measured and checked",
    };
    reason.to_owned()
}

fn network(page: &mut String, facts: &Facts) {
    let network = &facts.policy.network;
    let mut told = Vec::new();
    told.extend(network.interface.as_ref().map(|name| format!("by the interface `{name}`")));
    told.extend(network.source.map(|address| format!("from the address `{address}`")));
    if !network.peers.is_empty() {
        let peers: Vec<String> = network.peers.iter().map(|range| format!("`{range}`")).collect();
        told.push(format!("to {}", peers.join(", ")));
    }
    if !told.is_empty() {
        line!(
            page,
            "On the lost machine backup bytes went {}. The kit is not bound to that: make the way to the copy and to the new server, and \
             see with `ip route get ADDRESS` which it is.\n",
            told.join(", ")
        );
    }
}

fn copies(page: &mut String, facts: &Facts) {
    line!(page, "| copy | is at | complete as of | |\n| --- | --- | --- | --- |");
    for copy in &facts.copies {
        let completed = copy
            .completed
            .map_or_else(|| "never, as far as is known".to_owned(), |time| human::time(time, facts.policy.timezone));
        let used = if copy.name == facts.from { "the commands below read this one" } else { "" };
        line!(page, "| {} | `{}` | {completed} | {used} |", copy.name, copy.place);
    }
    line!(page);
}

/// Takes back what an earlier policy's way has set: its key is not to open this one's copy, where the block with this one's is left out.
fn forget_credentials(page: &mut String, facts: &Facts, variables: &Variables) {
    if variables.comes_after_credentials(facts) {
        line!(page, "```sh\nunset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION\n```\n");
    }
}

/// Asks for what the kit does not have; what the environment has already is taken.
fn credentials_block(page: &mut String, s3: &S3Place, facts: &Facts, variables: &Variables) {
    let known = access_key(s3);
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|stem| variables.of_policy(stem, facts));
    let unknown =
        if known.is_some() { "" } else { " (leave this out where a profile or a role of this machine opens it)" };
    line!(page, "The credentials of the copy{unknown}:\n\n```sh\n{}```\n", credentials_lines(known, &names));
}

/// All that reads is on the last line: of what is pasted, a `read` further up would take the line below it for its answer.
fn credentials_lines(known: Option<&str>, [id, secret]: &[String; 2]) -> String {
    let (set_id, ask_id) = match known {
        Some(known) => (format!("[ -n \"${{{id}:-}}\" ] || {id}={}\n", human::shell_word(known)), String::new()),
        None => (String::new(), format!("[ -n \"${{{id}:-}}\" ] || {{ printf 'access key: '; read -r {id}; }}; ")),
    };
    format!(
        "{set_id}{ask_id}[ -n \"${{{secret}:-}}\" ] || {{ printf 'secret key: '; stty -echo; read -r {secret}; stty echo; }}; \
         export AWS_ACCESS_KEY_ID=\"${id}\" AWS_SECRET_ACCESS_KEY=\"${secret}\"\n"
    )
}

fn checks(page: &mut String, facts: &Facts) {
    if facts.policy.drill.checks.is_empty() {
        return;
    }
    line!(page, "What must hold then, by the policy's own checks:\n");
    for check in &facts.policy.drill.checks {
        let (sql, wanted) = wanted(check);
        line!(page, "- `{}` gives {wanted}", human::printable(sql).replace('`', "'"));
    }
    line!(page);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// Pastes lines into a shell and types the answers; returns which credentials it then has.
    fn pasted(lines: &str, answers: &str) -> String {
        // Which takes no more of its input than the line at hand, as all shells do at a terminal.
        let mut shell = Command::new("bash");
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = shell.env_clear().env("PATH", "/usr/bin:/bin").spawn().unwrap();
        let typed = format!("{lines}{answers}echo; echo \"$AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY\"\n");
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        out.lines().last().unwrap_or_default().to_owned()
    }

    #[test]
    fn credentials_that_are_pasted_ask_for_what_is_not_known_and_take_no_line_for_an_answer() {
        let names = |end: &str| [format!("AWS_ACCESS_KEY_ID{end}"), format!("AWS_SECRET_ACCESS_KEY{end}")];
        assert_eq!(pasted(&credentials_lines(Some("AKIA"), &names("")), "s3cret\n"), "AKIA s3cret");
        assert_eq!(pasted(&credentials_lines(None, &names("")), "typed\ns3cret\n"), "typed s3cret");
        let of_two = [credentials_lines(Some("ONE"), &names("_A")), credentials_lines(Some("TWO"), &names("_B"))];
        let [first, second] = of_two;
        assert_eq!(pasted(&format!("{first}of one\n{second}"), "of two\n"), "TWO of two");
        // Asked once, it is not asked again further down.
        assert_eq!(pasted(&format!("{first}of one\n{second}of two\n{first}"), ""), "ONE of one");
    }
}
