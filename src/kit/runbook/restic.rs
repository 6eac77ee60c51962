//! The way without bkp, in the runbook.

use std::fmt::Write as _;

use crate::human::shell_word;
use crate::kit::facts::{CopyFacts, Facts, KeyThere, ca_file, key_file};
use crate::kit::runbook::variables::Variables;
use crate::kit::runbook::{credentials_block, forget_credentials};
use crate::policy::{CopyTarget, S3Place};

/// The way with `restic` and the plain client, for a machine on which bkp does not start.
pub(super) fn without_bkp(page: &mut String, facts: &Facts, variables: &Variables) {
    let Some(copy) = facts.stand_in() else { return };
    line!(page, "## {}: restore without bkp\n", facts.policy.name);
    let client = if facts.has_database() { " and the plain `mysql` client" } else { "" };
    line!(
        page,
        "With `restic` (0.14 or newer){client}. restic asks for its password: that is the passphrase, or \
         `export RESTIC_PASSWORD_FILE=FILE`.\n"
    );
    forget_credentials(page, facts, variables);
    if let CopyTarget::S3(s3) = &copy.place {
        credentials_block(page, s3, facts, variables);
    }
    set_up(page, copy, facts, variables);
    if copy.key != KeyThere::Yes {
        bring_the_key(page, facts, copy);
    }
    commands(page, facts, variables);
}

/// Sets what the commands use. What an earlier policy's way has set is taken back.
fn set_up(page: &mut String, copy: &CopyFacts, facts: &Facts, variables: &Variables) {
    let name = &facts.policy.name;
    line!(page, "```sh\nunset -f restic 2>/dev/null || :");
    line!(page, "export RESTIC_REPOSITORY={}", shell_word(&restic_place(&copy.place)));
    if let CopyTarget::S3(s3) = &copy.place {
        line!(page, "export AWS_DEFAULT_REGION={}", shell_word(&s3.region));
        if s3.ca_file.is_some() {
            let ca = ca_file(name, &copy.name);
            line!(page, "restic() {{ command restic --cacert \"{ca}\" \"$@\"; }}");
        }
    }
    let work = variables.of_policy("WORK", facts);
    line!(page, "export {work}=\"${{{work}:-/srv/restored/{name}-work}}\"");
    for database in facts.sources.iter().filter(|source| source.is_database) {
        let client = variables.of_database("MYSQL", facts, database);
        let default = if variables.has_one_database() { "-mysql" } else { "?mysql and the options of its server" };
        line!(page, "export {client}=\"${{{client}:{default}}}\"");
    }
    line!(page, "```\n");
}

fn commands(page: &mut String, facts: &Facts, variables: &Variables) {
    let (name, work) = (&facts.policy.name, variables.of_policy("WORK", facts));
    line!(page, "```sh\nrestic snapshots");
    for source in &facts.sources {
        let source_name = &source.name;
        line!(
            page,
            "restic restore latest --tag policy={name},source={source_name} --target \"${work}/{source_name}\""
        );
        if source.is_database {
            let client = variables.of_database("MYSQL", facts, source);
            line!(
                page,
                "(cd \"${work}/{source_name}/mysql/{source_name}\" && ${client} --local-infile=1 < restore.sql)"
            );
        }
    }
    line!(page, "```\n");
    for source in facts.sources.iter().filter(|source| !source.is_database) {
        line!(page, "The files of `{}` are then below `${work}/{}{}`.", source.name, source.name, source.place);
    }
    if facts.has_database() {
        line!(page, "`README.txt` beside each `restore.sql` says more of users and grants.");
    }
    line!(page);
}

/// restic takes keys only from the repository.
fn bring_the_key(page: &mut String, facts: &Facts, copy: &CopyFacts) {
    let (file, key) = (key_file(&facts.policy.name), &facts.key);
    let state = match copy.key {
        KeyThere::Unknown => "The lost machine could not see whether the copy has this kit's key",
        KeyThere::Yes | KeyThere::No => "The copy did not have this kit's key when the kit was made",
    };
    line!(
        page,
        "{state}, and restic looks for it nowhere else. Where restic refuses the passphrase, put the key there, with any tool:\n"
    );
    line!(page, "```sh");
    match &copy.place {
        CopyTarget::Dir(dir) => {
            line!(page, "cp {file} {}", shell_word(&format!("{}/keys/{key}", dir.display())));
        }
        CopyTarget::S3(s3) => {
            let endpoint =
                s3.endpoint.as_ref().map(|url| format!(" --endpoint-url {}", shell_word(url))).unwrap_or_default();
            let object = format!("s3://{}{}/keys/{key}", s3.bucket, below(s3));
            let ca = ca_file(&facts.policy.name, &copy.name);
            let ca = s3.ca_file.as_ref().map(|_| format!(" --ca-bundle {ca}")).unwrap_or_default();
            line!(page, "aws s3 cp {file} {}{endpoint}{ca}", shell_word(&object));
        }
    }
    line!(page, "```\n");
}

fn below(s3: &S3Place) -> String {
    if s3.prefix.is_empty() { String::new() } else { format!("/{}", s3.prefix) }
}

/// Names a copy as restic does.
fn restic_place(place: &CopyTarget) -> String {
    match place {
        CopyTarget::Dir(dir) => dir.display().to_string(),
        CopyTarget::S3(s3) => {
            let amazon = || format!("s3.{}.amazonaws.com", s3.region);
            let endpoint = s3.endpoint.clone().unwrap_or_else(amazon);
            format!("s3:{endpoint}/{}{}", s3.bucket, below(s3))
        }
    }
}
