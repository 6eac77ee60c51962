#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use tempfile::TempDir;

use crate::secret::{SecretSource, file};

fn file_with(dir: &TempDir, text: &str, mode: u32) -> PathBuf {
    let path = dir.path().join("pw");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// Returns the error with its cause and hint, the changing directory taken out.
fn refusal(source: &SecretSource, dir: &TempDir) -> String {
    let error = source.read().unwrap_err();
    let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
    let hint = error.hint().unwrap_or_default();
    format!("{error}{cause}\n{hint}").replace(dir.path().to_str().unwrap(), "DIR")
}

#[test]
fn a_private_file_gives_its_line_without_the_newline() {
    let dir = TempDir::new().unwrap();
    for (text, secret) in [("s3cret\n", "s3cret"), ("s3cret", "s3cret"), ("in two words\r\n", "in two words")] {
        let source = SecretSource::File(file_with(&dir, text, 0o600));
        assert_eq!(source.read().unwrap().reveal(), secret);
    }
}

#[test]
fn a_file_that_others_can_read_is_refused_and_the_remedy_named() {
    let dir = TempDir::new().unwrap();
    for mode in [0o640, 0o604, 0o620, 0o601] {
        let source = SecretSource::File(file_with(&dir, "s3cret\n", mode));
        assert!(refusal(&source, &dir).contains("chmod 600 DIR/pw"), "{mode:o}");
    }
    let source = SecretSource::File(file_with(&dir, "s3cret\n", 0o644));
    assert_snapshot!(refusal(&source, &dir), @r"
    read the secret in file `DIR/pw`: its mode is 0644, so others than its owner can read it
    run `chmod 600 DIR/pw`, and change the secret if others may have read it
    ");
}

#[test]
fn a_file_of_a_third_user_is_refused() {
    let judge = |owner, us| file::judge(Path::new("/etc/bkp/pw"), owner, 0o600, us);
    judge(0, 0).and(judge(0, 990)).and(judge(990, 990)).unwrap();
    let error = judge(1000, 0).unwrap_err();
    assert_snapshot!(format!("{error}\n{}", error.hint().unwrap()), @r"
    read the secret in file `/etc/bkp/pw`: it belongs to user 1000, neither to root nor to us (user 0)
    run `chown root /etc/bkp/pw`, or run bkp as the owner
    ");
}

#[test]
fn what_is_not_one_line_is_refused() {
    let dir = TempDir::new().unwrap();
    let faults = ["", "\n", "a\nb\n", " a\n", "a \n", "a\0b\n"].map(|text| {
        let source = SecretSource::File(file_with(&dir, text, 0o600));
        source.read().unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "DIR")
    });
    assert_snapshot!(faults.join("\n"), @r"
    read the secret in file `DIR/pw`: it is empty
    read the secret in file `DIR/pw`: it is empty
    read the secret in file `DIR/pw`: it has more than one line
    read the secret in file `DIR/pw`: it begins or ends with a blank
    read the secret in file `DIR/pw`: it begins or ends with a blank
    read the secret in file `DIR/pw`: it has a zero byte
    ");
}

#[test]
fn a_missing_file_a_directory_and_a_pipe_are_refused_at_once() {
    let dir = TempDir::new().unwrap();
    let missing = SecretSource::File(dir.path().join("missing"));
    assert!(refusal(&missing, &dir).contains("No such file"));
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&fifo).status().unwrap();
    assert!(made.success());
    for path in [dir.path().to_owned(), fifo] {
        assert!(refusal(&SecretSource::File(path), &dir).contains("not a regular file"));
    }
}

#[test]
fn a_command_gives_what_it_prints() {
    let source = SecretSource::Command("printf 'x%sz\\n' y".into());
    assert_eq!(source.read().unwrap().reveal(), "xyz");
}

#[test]
fn a_failing_command_tells_its_status_but_never_what_it_printed() {
    let dir = TempDir::new().unwrap();
    let faults = [
        "echo vault is sealed >&2; exit 3",
        "echo hunter2; echo got hunter2 >&2; exit 1",
        "TOKEN=hunter2 no-such-program-anywhere",
        "exit 0",
    ]
    .map(|command| {
        let text = refusal(&SecretSource::Command(command.into()), &dir);
        assert!(!text.contains("hunter2"), "{text}");
        text
    });
    assert_snapshot!(faults.join("\n"), @r"
    read the secret that command `echo` prints: exit status: 3, `vault is sealed`
    run the command by hand as the same user, without a terminal
    read the secret that command `echo` prints: exit status: 1
    run the command by hand as the same user, without a terminal
    read the secret that command `no-such-program-anywhere` prints: exit status: 127, `/bin/sh: 1: no-such-program-anywhere: not found`
    run the command by hand as the same user, without a terminal
    read the secret in command `exit`: it is empty
    a secret is one line of text; `printf '%s\n' … > FILE` writes one
    ");
}

#[test]
fn a_command_that_prints_without_end_is_refused() {
    let dir = TempDir::new().unwrap();
    let source = SecretSource::Command("head -c 100000 /dev/zero".into());
    assert!(refusal(&source, &dir).contains("more than 4096 bytes"));
}

#[test]
fn a_secret_and_its_source_print_nothing_secret() {
    let command = SecretSource::Command("A=hunter2 echo hunter2".into());
    let secret = command.read().unwrap();
    assert_eq!(format!("{secret:?}"), "***");
    assert_eq!(format!("{command:?} {command}"), "SecretSource(command `echo`) command `echo`");
}

#[test]
fn of_a_command_only_the_program_is_told_however_its_words_are_quoted() {
    let table = [
        ("pass show bkp/full", "pass"),
        ("PASS=hunter2 get", "get"),
        ("PASS=\"my hunter2\" get", "get"),
        ("PASS='my hunter2' A=b /usr/bin/get --now", "/usr/bin/get"),
        ("PASS=my\\ hunter2 get", "get"),
        ("PASS=$(echo my hunter2) get", "sh"),
        ("PASS=`echo my hunter2` get", "sh"),
        ("PASS=\"my hunter2", "sh"),
        ("PASS=hunter2; get", "sh"),
        ("(PASS=my hunter2 get)", "sh"),
        ("", "sh"),
    ];
    for (command, program) in table {
        let told = SecretSource::Command(command.to_owned()).to_string();
        assert_eq!(told, format!("command `{program}`"), "{command}");
    }
}

#[test]
fn a_credential_name_cannot_leave_its_directory() {
    for name in ["../etc/shadow", "/etc/shadow", "a/b", "", ".", ".."] {
        let error = SecretSource::Credential(name.into()).read().unwrap_err();
        assert!(error.to_string().contains("one file name"), "{error}");
    }
}

#[test]
fn a_new_key_is_private_readable_and_never_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("etc/bkp/mall.key");
    SecretSource::create_key_file(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let key = SecretSource::File(path.clone()).read().unwrap();
    assert_eq!(key.reveal().len(), 64);
    let error = SecretSource::create_key_file(&path).unwrap_err();
    assert!(error.to_string().contains("there already"), "{error}");
    assert_eq!(SecretSource::File(path.clone()).read().unwrap(), key);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temp file stays");
    let other = dir.path().join("other.key");
    SecretSource::create_key_file(&other).unwrap();
    assert_ne!(SecretSource::File(other).read().unwrap(), key);
}
