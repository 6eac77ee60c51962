//! The runbook: the steps of a recovery with real names, sizes and times. What is in a `sh` block is typed as it stands.

use std::fmt::Write as _;

use crate::drill::outcome::Origin;
use crate::human;
use crate::kit::Kit;
use crate::kit::facts::{CopyFacts, Facts, SourceFacts, credentials, wanted};
use crate::policy::CopyTarget;

/// Appends a line.
macro_rules! line {
    ($page:expr) => { $page.push('\n') };
    ($page:expr, $($text:tt)*) => {{
        // A String takes all that is written into it.
        _ = writeln!($page, $($text)*);
    }};
}

mod restic;

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
    for facts in all {
        recovery(&mut page, facts);
        restic::without_bkp(&mut page, facts);
    }
    page
}

fn needs(page: &mut String, kit: &Kit, all: &[&Facts]) {
    line!(page, "## What you need\n");
    line!(page, "- **The passphrase of this kit.** It is nowhere in here, and nothing opens without it.");
    line!(page, "- **A machine**: {}. `./bkp --version` tells whether it starts.", kit.binary);
    for facts in all {
        for copy in &facts.copies {
            let name = &copy.name;
            match &copy.place {
                CopyTarget::S3(s3) => line!(
                    page,
                    "- **Credentials** of copy `{name}` of {}, `{}`: {}. They are not in this kit.",
                    facts.policy.name,
                    copy.place,
                    credentials(s3)
                ),
                CopyTarget::Dir(dir) => line!(
                    page,
                    "- **The disk** of copy `{name}` of {}, mounted so that it is at `{}` again; or write where it is into \
                     `policies/{}.toml`.",
                    facts.policy.name,
                    dir.display(),
                    facts.policy.name
                ),
            }
        }
        let databases = facts.sources.iter().filter(|source| source.is_database);
        for source in databases {
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
        let bytes: u64 = facts.sources.iter().filter_map(|source| source.newest.as_ref()?.bytes).sum();
        line!(page, "- **Room** on disks: {} for what {} brings back.", human::bytes(bytes), facts.policy.name);
    }
    line!(
        page,
        "\nThen put the kit on a disk of the new machine and go there; all that follows is typed in that directory.\n"
    );
    line!(page, "```sh\nchmod -R go= .\nsha256sum --quiet -c SHA256SUMS\n./bkp --version\n```\n");
    line!(
        page,
        "Each command asks for the passphrase. To type it once, put it into a file of mode 0600 and \
         `export BKP_PASSPHRASE_FILE=FILE`.\n"
    );
}

fn recovery(page: &mut String, facts: &Facts) {
    let name = &facts.policy.name;
    line!(page, "## {name}: what there is\n");
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
    line!(page, "## {name}: restore with bkp\n");
    if let Some(CopyFacts { place: CopyTarget::S3(s3), .. }) = facts.stand_in() {
        let given = s3.access_key_id.as_deref();
        credentials_block(page, given);
    }
    line!(page, "Where to restore to: change these lines, or set the variables before.\n\n```sh");
    for database in facts.sources.iter().filter(|source| source.is_database) {
        let variable = variable("TO_MYSQL", database, facts);
        line!(page, "export {variable}=\"${{{variable}:-mysql://root@localhost?socket=/run/mysqld/mysqld.sock}}\"");
    }
    line!(page, "export TO_DIR=\"${{TO_DIR:-/srv/restored/{name}}}\"\n```\n");
    if facts.has_database() {
        line!(
            page,
            "A server on another machine is `mysql://USER@HOST`; each restore then wants `--to-mysql-password-file FILE` and \
             `--to-mysql-ca FILE` as well.\n"
        );
    }
    line!(
        page,
        "Look first: the snapshots that there are, and the plan with sizes and times. Nothing is written.\n\n```sh"
    );
    line!(page, "./bkp --kit . snapshots {name}");
    facts.sources.iter().for_each(|source| line!(page, "{} --dry-run", restore_command(facts, source)));
    line!(page, "```\n\nThen restore. What is interrupted goes on when the same command is given again.\n\n```sh");
    facts.sources.iter().for_each(|source| line!(page, "{} --yes --verify", restore_command(facts, source)));
    line!(page, "```\n");
    line!(
        page,
        "`--verify` has compared every row and file with the snapshot: exit code 0 is the proof. `--point-in-time 'YYYY-MM-DD HH:MM'` \
         goes further back; `--from COPY` reads another copy. Straight into the directory that a tree was in: \
         `--to-dir DIR --in-place --confirm-host \"$(hostname)\"`.\n"
    );
    checks(page, facts);
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

fn restore_command(facts: &Facts, source: &SourceFacts) -> String {
    let (policy, name) = (&facts.policy.name, &source.name);
    let target = if source.is_database {
        format!("--to-mysql \"${}\"", variable("TO_MYSQL", source, facts))
    } else {
        format!("--to-dir \"$TO_DIR/{name}\"")
    };
    format!("./bkp --kit . restore {policy} --source {name} {target}")
}

/// Names the variable that stands for a database's server: of several databases each has its own.
fn variable(stem: &str, source: &SourceFacts, facts: &Facts) -> String {
    match facts.sources.iter().filter(|source| source.is_database).count() {
        1 => stem.to_owned(),
        _ => format!("{stem}_{}", source.name.to_uppercase().replace('-', "_")),
    }
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
    line!(page, "| phase | took | moved |\n| --- | --: | --: |");
    for phase in &drill.phases {
        let moved = phase.bytes.map_or_else(String::new, human::bytes);
        line!(page, "| {} | {} | {moved} |", phase.name, human::millis(phase.duration_ms));
    }
    line!(page);
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

/// Asks for what the kit does not have; what the environment has already is taken.
fn credentials_block(page: &mut String, access_key: Option<&str>) {
    line!(page, "The credentials of the copy:\n\n```sh");
    let access_key = access_key.map(human::shell_word).unwrap_or_default();
    line!(page, "export AWS_ACCESS_KEY_ID=\"${{AWS_ACCESS_KEY_ID:-{access_key}}}\"");
    line!(
        page,
        "[ -n \"${{AWS_SECRET_ACCESS_KEY:-}}\" ] || {{ printf 'secret key: '; stty -echo; read -r AWS_SECRET_ACCESS_KEY; stty echo; }}"
    );
    line!(page, "export AWS_SECRET_ACCESS_KEY\n```\n");
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
