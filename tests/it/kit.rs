//! The recovery kit: with it, its passphrase and a copy everything comes back where nothing else is left.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use insta::assert_snapshot;

use crate::cli::{BKP, Desk, flip};
use crate::immutable::copy_to;
use crate::network;
use crate::servers::{Product, S3, Server, program};
use crate::world::{DATABASE_PASSWORD, Ended, World, files, rows};

const PASSPHRASE: &str = "correct horse battery staple";

fn write_secret(path: &Path, text: &str) {
    fs::write(path, format!("{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Exports a kit from a desk under a passphrase.
fn export(desk: &Desk, passphrase: &str, more: &[&str]) -> Ended {
    write_secret(&desk.path("kit.pw"), passphrase);
    let (kit, file) = (desk.text("kit"), desk.text("kit.pw"));
    desk.bkp(&[&["kit", "export", &kit, "mall", "--passphrase-file", &file], more].concat())
}

/// Runs the kit's own program in its directory, with nothing else than a passphrase.
fn bare(kit: &Path, args: &[&str], passphrase: &Path) -> Ended {
    let mut command = Command::new(kit.join("bkp"));
    command.args(["--kit", "."]).args(args).current_dir(kit).stdin(Stdio::null());
    command.env_clear().env("BKP_PASSPHRASE_FILE", passphrase).output().unwrap().into()
}

/// Returns what is to be typed in the sections of a runbook whose headings end so.
fn blocks(runbook: &str, headings: &[&str]) -> String {
    let mut script = String::from("set -e\n");
    for section in runbook.split("\n## ") {
        let heading = section.lines().next().unwrap_or_default();
        if headings.iter().any(|wanted| heading.ends_with(wanted)) {
            let fences = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
            script.extend(fences);
        }
    }
    assert!(script.lines().count() > 4, "nothing to type below {headings:?}: {runbook}");
    script
}

// ----------------------------------------------------------------------------------------------------------- the kit

#[test]
fn a_kit_is_private_whole_and_holds_no_secret() {
    let desk = Desk::backed_up();
    let exported = export(&desk, PASSPHRASE, &[]).expect(0);
    assert!(exported.out.contains("exported `mall` into") && exported.out.contains("Linux on"), "{}", exported.out);
    let kit = desk.path("kit");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&kit), 0o700);
    let found = files(&kit);
    let names: Vec<&str> = found.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(
        names,
        ["RUNBOOK.md", "SHA256SUMS", "bkp", "keys/mall.key", "kit.json", "policies/mall.toml"],
        "nothing else is in it"
    );
    let password = fs::read_to_string(desk.path("mall.key")).unwrap();
    for (path, (bytes, ..)) in &found {
        assert_eq!(mode(&kit.join(path)), if path == Path::new("bkp") { 0o700 } else { 0o600 });
        let is_program = path == Path::new("bkp");
        for secret in [PASSPHRASE, password.trim()].iter().filter(|_| !is_program) {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{secret} is in {}", path.display());
        }
    }
    let sums = Command::new("sha256sum").args(["--quiet", "-c", "SHA256SUMS"]).current_dir(&kit).status().unwrap();
    assert!(sums.success());
    let checked = desk.bkp(&["kit", "check", kit.to_str().unwrap()]).expect(0);
    assert!(checked.out.contains("4 files are as they were written"), "{}", checked.out);
    let runbook = fs::read_to_string(kit.join("RUNBOOK.md")).unwrap();
    assert!(runbook.contains("not measured yet: run a drill"), "{runbook}");
    desk.bkp(&["drill", "mall"]).expect(0);
    export(&desk, PASSPHRASE, &[]).expect(0);
    let runbook = fs::read_to_string(kit.join("RUNBOOK.md")).unwrap();
    assert!(runbook.contains("Rehearsed ") && !runbook.contains("not measured yet"), "{runbook}");
    assert!(!runbook.contains("did not pass"), "{runbook}");
    desk.rot();
    desk.bkp(&["drill", "mall"]).expect(16);
    export(&desk, PASSPHRASE, &[]).expect(0);
    let runbook = fs::read_to_string(kit.join("RUNBOOK.md")).unwrap();
    assert!(runbook.contains("**That drill did not pass: "), "{runbook}");
}

#[test]
fn a_kit_alone_restores_verifies_and_rehearses_and_without_its_passphrase_does_nothing() {
    let desk = Desk::backed_up();
    export(&desk, PASSPHRASE, &[]).expect(0);
    let images = files(&desk.path("images"));
    // The machine is lost: only the disk with the copy is where the policy says.
    for lost in ["repository", "state", "policies", "mall.key"] {
        fs::rename(desk.path(lost), desk.path(&format!("lost-{lost}"))).unwrap();
    }
    let (kit, passphrase) = (desk.path("kit"), desk.path("kit.pw"));
    let out = desk.text("out");
    let restore = ["restore", "mall", "--source", "images", "--to-dir", &out, "--yes", "--verify"];
    write_secret(&desk.path("wrong.pw"), "wrong horse battery staple");
    let refused = bare(&kit, &restore, &desk.path("wrong.pw")).expect(12);
    assert!(refused.err.contains("no key opens with this password"), "{}", refused.err);
    assert!(!desk.path("out").exists());
    bare(&kit, &["snapshots", "mall"], &passphrase).expect(0);
    let restored = bare(&kit, &restore, &passphrase).expect(0);
    assert!(restored.err.contains("restore from copy `usb`"), "{}", restored.err);
    assert_eq!(files(&desk.path("out")), images);
    bare(&kit, &["verify", "mall", "--level", "data"], &passphrase).expect(0);
    bare(&kit, &["drill", "mall"], &passphrase).expect(0);

    // Even with no key left in the copy.
    fs::rename(desk.path("usb/keys"), desk.path("lost-keys")).unwrap();
    fs::create_dir(desk.path("usb/keys")).unwrap();
    bare(&kit, &["snapshots", "mall"], &passphrase).expect(0);

    let writing = [
        &["backup", "mall"][..],
        &["prune", "mall"],
        &["key", "list", "mall"],
        &["status"],
        &["verify", "mall", "--heal"],
    ];
    for refused in writing {
        let refused = bare(&kit, refused, &passphrase).expect(2);
        assert!(refused.err.contains("with `--kit` there is restore"), "{}", refused.err);
    }
    let unknown = bare(&kit, &["snapshots", "mail"], &passphrase).expect(2);
    assert_snapshot!(unknown.err, @r"
    error: open the kit: no policy `mail` is in it, only `mall`
    hint: name one of these
    ");
    // What was done here is no part of the kit.
    assert!(desk.path("kit/state/mall").exists());
    desk.bkp(&["kit", "check", kit.to_str().unwrap()]).expect(0);
}

#[test]
fn an_older_kit_is_brought_up_to_date_and_anything_else_is_left_alone() {
    let desk = Desk::backed_up();
    let keys = || desk.bkp(&["key", "list", "mall", "--json"]).expect(0).json()["keys"].as_array().unwrap().len();
    let key = || fs::read(desk.path("kit/keys/mall.key")).unwrap();
    export(&desk, "too short", &[]).expect(2);
    assert!(!desk.path("kit").exists() && keys() == 1);
    export(&desk, PASSPHRASE, &[]).expect(0);
    let first = key();
    assert_eq!(keys(), 2);
    export(&desk, PASSPHRASE, &[]).expect(0);
    assert_eq!((key() == first, keys()), (true, 2), "the same passphrase makes no new key");
    let other = export(&desk, "another horse battery staple", &[]).expect(0);
    assert!(
        other.out.contains("the older kit's key still opens mall, with its passphrase: `bkp key remove mall"),
        "{}",
        other.out
    );
    assert!(key() != first && keys() == 3);

    let checked = |code| desk.bkp(&["kit", "check", &desk.text("kit")]).expect(code);
    checked(0);
    desk.write_policy("# changed\n");
    assert!(checked(3).err.contains("another text of policy `mall`"));
    let doctor = desk.bkp(&["doctor", "mall"]).expect(0);
    assert!(doctor.out.contains("warning recovery kit"), "{}", doctor.out);
    export(&desk, "another horse battery staple", &[]).expect(0);
    checked(0);
    assert!(desk.bkp(&["doctor", "mall"]).expect(0).out.contains("ok      recovery kit"));
    flip(&desk.path("kit/keys/mall.key"));
    assert!(checked(13).err.contains("keys/mall.key: its bytes are not those that were written"));

    desk.write("policies/mail.toml", desk.policy().replace("name = \"mall\"", "name = \"mail\"").as_bytes());
    let (dir, file) = (desk.text("kit"), desk.text("kit.pw"));
    let fewer = desk.bkp(&["kit", "export", &dir, "mail", "--passphrase-file", &file]).expect(2);
    assert!(fewer.err.contains("the one there has `mall` as well"), "{}", fewer.err);
    fs::remove_file(desk.path("policies/mail.toml")).unwrap();

    desk.write("kit/notes.txt", b"whose disk this is");
    export(&desk, PASSPHRASE, &[]).expect(0);
    desk.write("kit/kit.json", b"{}");
    let refused = export(&desk, PASSPHRASE, &[]).expect(2);
    assert_snapshot!(desk.plain(&refused.err), @r"
    error: write the kit into `DIR/kit`: it is neither empty nor a kit
    hint: name a new directory, or the one of an older kit
    ");
    assert_eq!(fs::read(desk.path("kit/notes.txt")).unwrap(), b"whose disk this is");
    desk.change_policy(&format!("[[copy]]\nname = \"usb\"\npath = \"{}\"", desk.text("usb")), "");
    fs::remove_dir_all(desk.path("kit")).unwrap();
    let refused = export(&desk, PASSPHRASE, &[]).expect(2);
    assert!(refused.err.contains("it names no copy"), "{}", refused.err);
}

#[test]
fn a_kit_apart_leaves_its_key_out_of_the_repository_and_the_runbook_brings_it_there() {
    let desk = Desk::backed_up();
    export(&desk, PASSPHRASE, &["--apart"]).expect(0);
    let (kit, passphrase) = (desk.path("kit"), desk.path("kit.pw"));
    let keys = |args: &[&str]| {
        let listed = desk.bkp(&[&["key", "list", "mall", "--json"], args].concat()).expect(0).json();
        listed["keys"].as_array().unwrap().len()
    };
    assert_eq!((keys(&[]), keys(&["--copy", "usb"])), (1, 1));
    bare(&kit, &["snapshots", "mall"], &passphrase).expect(0);
    let runbook = fs::read_to_string(kit.join("RUNBOOK.md")).unwrap();
    let bring = runbook.lines().find(|line| line.starts_with("cp keys/mall.key")).unwrap();
    assert!(Command::new("sh").args(["-c", bring]).current_dir(&kit).status().unwrap().success());
    assert_eq!((keys(&[]), keys(&["--copy", "usb"])), (1, 2));
}

#[test]
fn a_kit_apart_over_one_that_was_not_takes_a_key_of_its_own_and_names_the_other() {
    let desk = Desk::backed_up();
    export(&desk, PASSPHRASE, &[]).expect(0);
    let key = || fs::read(desk.path("kit/keys/mall.key")).unwrap();
    let first = key();
    let apart = export(&desk, PASSPHRASE, &["--apart"]).expect(0);
    assert!(key() != first, "the key that is in the repository and its copies");
    let id = bkp::id::ObjectId::of(&first).short();
    assert!(apart.out.contains(&format!("with its passphrase: `bkp key remove mall {id}`")), "{}", apart.out);
    desk.bkp(&["key", "remove", "mall", &id, "--yes"]).expect(0);
    bare(&desk.path("kit"), &["snapshots", "mall"], &desk.path("kit.pw")).expect(0);
    let second = key();
    export(&desk, PASSPHRASE, &["--apart"]).expect(0);
    assert!(key() == second, "one that is apart already is kept");
}

#[test]
fn a_directory_that_another_prepared_is_not_written_through() {
    let desk = Desk::backed_up();
    export(&desk, PASSPHRASE, &[]).expect(0);
    // The older kit's list names a file that is not its own.
    desk.write("etc/passwd", b"root");
    symlink(desk.path("etc"), desk.path("kit/x")).unwrap();
    let list = fs::read_to_string(desk.path("kit/kit.json")).unwrap();
    let hostile = list.replace("\"files\": {", "\"files\": { \"x/passwd\": \"\",");
    assert_ne!(hostile, list);
    desk.write("kit/kit.json", hostile.as_bytes());
    let checked = desk.bkp(&["kit", "check", &desk.text("kit")]).expect(13);
    assert!(checked.err.contains("x/passwd: it is no part of a kit"), "{}", checked.err);
    export(&desk, PASSPHRASE, &[]).expect(0);
    assert!(desk.path("etc/passwd").exists(), "a file outside of the kit was removed");

    fs::rename(desk.path("kit/keys"), desk.path("elsewhere")).unwrap();
    symlink(desk.path("elsewhere"), desk.path("kit/keys")).unwrap();
    let before = files(&desk.path("elsewhere"));
    let refused = export(&desk, "another horse battery staple", &[]).expect(2);
    assert_snapshot!(desk.plain(&refused.err), @r"
    error: write the kit: `DIR/kit/keys` is not safe to write through: it is no directory
    hint: name a new directory, or give this one to root once all in it is looked through
    ");
    assert_eq!(files(&desk.path("elsewhere")), before);

    fs::create_dir(desk.path("gift")).unwrap();
    if std::os::unix::fs::chown(desk.path("gift"), Some(65_534), None).is_ok() {
        let (gift, file) = (desk.text("gift"), desk.text("kit.pw"));
        let refused = desk.bkp(&["kit", "export", &gift, "mall", "--passphrase-file", &file]).expect(2);
        assert!(refused.err.contains("it belongs to user 65534, neither to root nor to us"), "{}", refused.err);
        assert_eq!(fs::read_dir(desk.path("gift")).unwrap().count(), 0);
    }
}

#[test]
fn a_list_that_rots_is_damage_and_an_export_that_broke_off_is_given_again() {
    let desk = Desk::backed_up();
    export(&desk, PASSPHRASE, &[]).expect(0);
    let checked = |code| desk.bkp(&["kit", "check", &desk.text("kit")]).expect(code);
    let list = fs::read_to_string(desk.path("kit/kit.json")).unwrap();
    let other = list.replace("\"from\": \"usb\"", "\"from\": \"ubs\"");
    assert_ne!(other, list);
    desk.write("kit/kit.json", other.as_bytes());
    assert!(checked(13).err.contains("kit.json and SHA256SUMS: the one does not have the sums of the other"));
    desk.write("kit/kit.json", b"{");
    assert!(checked(13).err.contains("hint: export it again"));
    desk.write("kit/keys/.kit-a1b2c3", b"half");
    export(&desk, PASSPHRASE, &[]).expect(0);
    checked(0);
    // As a kill before the list leaves it.
    fs::remove_file(desk.path("kit/kit.json")).unwrap();
    desk.write("kit/.kit-d4e5f6", b"half a program");
    export(&desk, PASSPHRASE, &[]).expect(0);
    checked(0);
    assert!(!desk.path("kit/.kit-d4e5f6").exists() && !desk.path("kit/keys/.kit-a1b2c3").exists());
    let keys = desk.bkp(&["key", "list", "mall", "--json"]).expect(0).json()["keys"].as_array().unwrap().len();
    assert_eq!(keys, 2, "the key of what broke off is used again");

    // Nobody is kept from a kit because the state's disk is full or read-only.
    fs::remove_file(desk.path("state/kit.json")).unwrap();
    fs::create_dir(desk.path("state/kit.json")).unwrap();
    let exported = export(&desk, PASSPHRASE, &[]).expect(0);
    assert!(exported.err.contains("`bkp doctor` will not know of this kit"), "{}", exported.err);
}

#[test]
fn a_program_that_is_given_is_tried_and_another_build_of_this_one_makes_the_kit_stale() {
    let desk = Desk::backed_up();
    let given = |file: &str| export(&desk, PASSPHRASE, &["--binary", file]);
    let refused = given("/bin/true").expect(2);
    assert!(refused.err.contains("it is no bkp: `--version` ends with"), "{}", refused.err);
    assert!(!desk.path("kit/bkp").exists());
    let kit =
        || -> serde_json::Value { serde_json::from_slice(&fs::read(desk.path("kit/kit.json")).unwrap()).unwrap() };
    given(BKP).expect(0);
    assert_eq!(kit()["given"], kit()["program"]);
    // For another kind of machine, as its headers say.
    let mut bytes = fs::read(BKP).unwrap();
    bytes[18..20].copy_from_slice(&if cfg!(target_arch = "aarch64") { 62_u16 } else { 183 }.to_le_bytes());
    desk.write("foreign", &bytes);
    fs::set_permissions(desk.path("foreign"), fs::Permissions::from_mode(0o700)).unwrap();
    let untried = given(&desk.text("foreign")).expect(0);
    assert!(untried.out.contains("nobody has tried it"), "{}", untried.out);
    assert_eq!(kit()["given"], "");
    desk.bkp(&["kit", "check", &desk.text("kit")]).expect(0);

    export(&desk, PASSPHRASE, &[]).expect(0);
    let mut bytes = fs::read(BKP).unwrap();
    bytes.push(0);
    desk.write("rebuilt", &bytes);
    fs::set_permissions(desk.path("rebuilt"), fs::Permissions::from_mode(0o700)).unwrap();
    let mut rebuilt = Command::new(desk.path("rebuilt"));
    let stale: Ended = rebuilt.args(["kit", "check"]).arg(desk.path("kit")).output().unwrap().into();
    assert!(stale.expect(3).err.contains("the kit has another build of bkp"));

    fs::rename(desk.path("policies/mall.toml"), desk.path("policies/shop.toml")).unwrap();
    let renamed = desk.bkp(&["kit", "check", &desk.text("kit")]).expect(0);
    assert!(!renamed.out.contains("not compared"), "{}", renamed.out);
    fs::remove_file(desk.path("policies/shop.toml")).unwrap();
    let elsewhere = desk.bkp(&["kit", "check", &desk.text("kit")]).expect(0);
    assert!(elsewhere.out.contains("policy `mall` is not on this machine: not compared"), "{}", elsewhere.out);
    desk.write_policy("nonsense = 1\n");
    let broken = desk.bkp(&["kit", "check", &desk.text("kit")]).expect(3);
    assert!(broken.err.contains("policy `mall` cannot be set beside the kit's"), "{}", broken.err);
}

#[test]
fn a_copy_that_is_not_there_is_named_and_the_kit_is_good_all_the_same() {
    let desk = Desk::backed_up();
    fs::rename(desk.path("usb"), desk.path("unplugged")).unwrap();
    let exported = export(&desk, PASSPHRASE, &[]).expect(3);
    assert!(exported.err.contains("copy `usb` has no key of this kit yet"), "{}", exported.err);
    fs::rename(desk.path("unplugged"), desk.path("usb")).unwrap();
    bare(&desk.path("kit"), &["snapshots", "mall"], &desk.path("kit.pw")).expect(0);
}

// ------------------------------------------------------------------------------------------------------- the runbook

/// Adds a second policy, `mail`, to a desk, with a tree of its own and a copy in a bucket.
fn with_mail(desk: &Desk, s3: &S3) {
    let mail = ["repository", "usb", "state", "images", "mall.key"]
        .iter()
        .fold(desk.policy(), |text, name| text.replace(&desk.text(name), &desk.text(&format!("mail/{name}"))));
    let bucket = format!(
        "s3 = {{ bucket = \"{}\", region = \"us-east-1\", endpoint = \"{}\", path_style = true, access_key_id = \"{}\", \
         secret_access_key_file = \"{}\" }}",
        S3::BUCKET,
        s3.endpoint(),
        S3::ACCESS_KEY,
        desk.text("mail/s3.key")
    );
    let mail = mail.replace("name = \"mall\"", "name = \"mail\"");
    let in_bucket = mail.replace(&format!("path = \"{}\"", desk.text("mail/usb")), &bucket);
    assert_ne!(in_bucket, mail);
    desk.write("policies/mail.toml", in_bucket.as_bytes());
    desk.write("mail/images/letter.txt", b"of mail and not of mall");
    desk.write("mail/images/.bkp-ok", b"");
    write_secret(&desk.path("mail/s3.key"), S3::SECRET_KEY);
    for verb in ["init", "backup", "copy"] {
        desk.bkp(&[verb, "mail"]).expect(0);
    }
}

#[test]
fn of_two_policies_each_is_restored_by_the_runbook_to_a_place_of_its_own() {
    let (s3, desk) = (S3::start(), Desk::backed_up());
    with_mail(&desk, &s3);
    write_secret(&desk.path("kit.pw"), PASSPHRASE);
    let (kit, passphrase) = (desk.path("kit"), desk.path("kit.pw"));
    desk.bkp(&["kit", "export", &desk.text("kit"), "--passphrase-file", &desk.text("kit.pw")]).expect(0);
    fs::set_permissions(kit.join("bkp"), fs::Permissions::from_mode(0o600)).unwrap();
    let runbook = fs::read_to_string(kit.join("RUNBOOK.md")).unwrap();
    let script = blocks(&runbook, &["What you need", "restore with bkp"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(&kit).stdin(Stdio::null()).env("BKP_PASSPHRASE_FILE", &passphrase);
    shell.env("TO_DIR_MALL", desk.path("out/mall")).env("TO_DIR_MAIL", desk.path("out/mail"));
    shell.env("AWS_SECRET_ACCESS_KEY_MAIL", S3::SECRET_KEY);
    let ended: Ended = shell.output().unwrap().into();
    ended.expect(0);
    assert_eq!(files(&desk.path("out/mall/images")), files(&desk.path("images")));
    assert_eq!(files(&desk.path("out/mail/images")), files(&desk.path("mail/images")));
}

#[test]
fn the_credentials_of_one_policys_copy_are_not_those_of_the_next() {
    let (s3, desk) = (S3::start(), Desk::backed_up());
    with_mail(&desk, &s3);
    write_secret(&desk.path("kit.pw"), PASSPHRASE);
    desk.bkp(&["kit", "export", &desk.text("kit"), "--passphrase-file", &desk.text("kit.pw")]).expect(0);
    let runbook = fs::read_to_string(desk.path("kit/RUNBOOK.md")).unwrap();
    // Both programs tell what they were given.
    let tells = |name: &str, what: &str| {
        desk.write(name, format!("#!/bin/sh\necho \"{what} ${{AWS_ACCESS_KEY_ID:-none}}\"\n").as_bytes());
        fs::set_permissions(desk.path(name), fs::Permissions::from_mode(0o700)).unwrap();
    };
    tells("kit/bkp", "bkp $4");
    tells("bin/restic", "restic $RESTIC_REPOSITORY");
    let script = blocks(&runbook, &["restore with bkp", "restore without bkp"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(desk.path("kit")).stdin(Stdio::null()).env_clear();
    shell.env("PATH", format!("{}:/usr/bin:/bin", desk.text("bin"))).env("AWS_SECRET_ACCESS_KEY_MAIL", S3::SECRET_KEY);
    let ended = Ended::from(shell.output().unwrap()).expect(0);
    let told: BTreeSet<&str> = ended.out.lines().collect();
    let in_bucket = format!("restic s3:{}/{} {}", s3.endpoint(), S3::BUCKET, S3::ACCESS_KEY);
    let in_dir = format!("restic {} none", desk.text("usb"));
    let of_mail = format!("bkp mail {}", S3::ACCESS_KEY);
    assert_eq!(told, BTreeSet::from([of_mail.as_str(), "bkp mall none", &in_bucket, &in_dir]));
}

/// What a person on a bare machine has: a shell, the tools that the runbook names, and what was typed.
struct Bare {
    dir: tempfile::TempDir,
    kit: PathBuf,
}

impl Bare {
    /// Takes a kit to a machine that has nothing else.
    fn with(kit: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("kit");
        assert!(Command::new("cp").arg("-r").arg(kit).arg(&here).status().unwrap().success());
        for name in ["home", "bin"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        write_secret(&dir.path().join("passphrase"), PASSPHRASE);
        Self { kit: here, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Types the blocks of a runbook's sections as they stand.
    fn types(&self, headings: &[&str], more: &[(String, String)]) -> Ended {
        self.types_behind(Command::new("env"), headings, more)
    }

    /// Types them behind a command that ends in `env`.
    fn types_behind(&self, mut env: Command, headings: &[&str], more: &[(String, String)]) -> Ended {
        let runbook = fs::read_to_string(self.kit.join("RUNBOOK.md")).unwrap();
        let script = blocks(&runbook, headings);
        env.arg("-i").arg(format!("PATH={}:/usr/bin:/bin", self.path("bin").display()));
        env.arg(format!("HOME={}", self.path("home").display()));
        env.arg(format!("AWS_SECRET_ACCESS_KEY={}", S3::SECRET_KEY));
        env.args(more.iter().map(|(name, value)| format!("{name}={value}"))).args(["sh", "-c", &script]);
        env.current_dir(&self.kit).stdin(Stdio::null()).output().unwrap().into()
    }
}

/// Loses all of the machine that made the backups.
fn lose(world: &World, databases: &[(&str, &Server)]) {
    for lost in ["repository", "state", "policies", "repo.key", "s3.key", "db.pw", "images"] {
        fs::rename(world.path(lost), world.path(&format!("lost-{lost}"))).unwrap();
    }
    for (_, source) in databases {
        source.execute("DROP DATABASE mall");
    }
}

/// Exports a kit, loses everything else, and types the runbook on a bare machine, with bkp and with versions of restic. `databases`:
/// how the variables of each end, and its server.
fn brought_back_by_the_runbook(world: &World, databases: &[(&str, &Server)], versions: &[&str]) {
    world.bkp(&["backup", "mall"]).expect(0);
    world.bkp(&["drill", "mall", "--from", "offsite"]).expect(0);
    let passphrase = world.path("kit.pw");
    write_secret(&passphrase, PASSPHRASE);
    let kit = world.path("kit");
    let args = ["kit", "export", kit.to_str().unwrap(), "--passphrase-file", passphrase.to_str().unwrap()];
    world.bkp(&args).expect(0);
    let rows_before: Vec<_> = databases.iter().map(|(_, source)| rows(source)).collect();
    let (images, files_before) = (world.images(), files(&world.images()));
    lose(world, databases);

    let bare = Bare::with(&kit);
    let (to_dir, typed) = (bare.path("restored"), bare.path("passphrase"));
    let targets: Vec<Server> = databases.iter().map(|_| Server::start(Product::MariaDb, &[])).collect();
    let mut more = vec![("TO_DIR".to_owned(), to_dir.display().to_string())];
    more.push(("BKP_PASSPHRASE_FILE".to_owned(), typed.display().to_string()));
    for ((end, _), target) in databases.iter().zip(&targets) {
        let to_mysql = format!("mysql://root@localhost?socket={}", target.socket().display());
        more.push((format!("TO_MYSQL{end}"), to_mysql));
    }
    let ended = bare.types(&["What you need", "restore with bkp"], &more).expect(0);
    assert!(ended.out.contains("restored in"), "{}", ended.out);
    assert_eq!(targets.iter().map(rows).collect::<Vec<_>>(), rows_before);
    assert_eq!(files(&to_dir.join("images")), files_before);

    for version in versions {
        let targets: Vec<Server> = databases.iter().map(|_| Server::start(Product::MariaDb, &[])).collect();
        let link = bare.path("bin/restic");
        drop(fs::remove_file(&link));
        symlink(program(version), &link).unwrap();
        let work = bare.path(version);
        let mut more = vec![("WORK".to_owned(), work.display().to_string())];
        more.push(("RESTIC_PASSWORD_FILE".to_owned(), typed.display().to_string()));
        for ((end, _), target) in databases.iter().zip(&targets) {
            let client = program("MARIADB");
            let socket = target.socket();
            let mysql = format!("{} --no-defaults --socket={} --user=root", client.display(), socket.display());
            more.push((format!("MYSQL{end}"), mysql));
        }
        bare.types(&["restore without bkp"], &more).expect(0);
        assert_eq!(targets.iter().map(rows).collect::<Vec<_>>(), rows_before, "{version}");
        let below = work.join("images").join(images.strip_prefix("/").unwrap());
        assert_eq!(files(&below), files_before, "{version}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn on_a_bare_machine_the_runbook_brings_everything_back_from_the_copy_with_bkp_and_without() {
    let world = World::ready(Product::MariaDb);
    brought_back_by_the_runbook(&world, &[("", &world.source)], &["RESTIC", "RESTIC019"]);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn of_several_databases_and_a_tree_the_runbook_brings_each_back_to_a_server_of_its_own() {
    let world = World::ready(Product::MariaDb);
    let staff = Server::start(Product::MariaDb, &[]);
    staff.execute("CREATE DATABASE mall CHARACTER SET utf8mb4");
    staff.execute("CREATE TABLE mall.staff (id INT NOT NULL, name VARCHAR(80) NOT NULL, PRIMARY KEY (id))");
    staff.execute("INSERT INTO mall.staff VALUES (1, '직원 1'), (2, 'clerk \\\'2\\\'')");
    staff.execute(&format!("CREATE USER 'dumper'@'%' IDENTIFIED BY '{DATABASE_PASSWORD}'"));
    staff.execute("GRANT ALL PRIVILEGES ON *.* TO 'dumper'@'%' WITH GRANT OPTION");
    let (port, password) = (staff.port(), world.path("db.pw"));
    world.write_policy(&format!(
        "[mysql.staff-db]\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"dumper\"\npassword_file = \"{}\"\ntls = \"off\"\n",
        password.display()
    ));
    let path = world.path("policies/mall.toml");
    let text = fs::read_to_string(&path).unwrap();
    // Of two servers a check names the one that it asks.
    let asking =
        text.replace("{ sql =", "{ mysql = \"db1\", sql =").replace("{ files_in", "{ mysql = \"db1\", files_in");
    assert_eq!(asking.matches("mysql = \"db1\"").count(), 2);
    fs::write(&path, asking).unwrap();
    brought_back_by_the_runbook(&world, &[("_DB1", &world.source), ("_STAFF_DB", &staff)], &["RESTIC"]);
}

/// The peer's part: an S3 server until nobody needs it any more.
fn serve() {
    let s3 = S3::start_at((network::PEER, 9000), |_| None);
    println!("serving at {}", s3.endpoint());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
#[ignore = "needs root and ip netns; scripts/test runs it"]
fn in_a_bare_network_namespace_the_kit_and_the_way_to_the_copy_are_all_that_it_takes() {
    if network::side().is_some() {
        return serve();
    }
    let net = network::World::up("kit");
    net.route(network::PEER, "bkp-san", None);
    let test = "kit::in_a_bare_network_namespace_the_kit_and_the_way_to_the_copy_are_all_that_it_takes";
    let mut server = net.peer(test);
    let mut told = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let serving = told.find(|line| line.contains("serving at "));
    let endpoint = format!("http://{}:9000", network::PEER);
    assert!(serving.is_some_and(|line| line.ends_with(&endpoint)));

    let desk = Desk::new();
    desk.write_policy("[network]\ninterface = \"bkp-san\"\n");
    copy_to(&desk, &endpoint, S3::BUCKET, "");
    write_secret(&desk.path("kit.pw"), PASSPHRASE);
    for args in [
        &["init", "mall"][..],
        &["backup", "mall"],
        &["kit", "export", &desk.text("kit"), "mall", "--passphrase-file", &desk.text("kit.pw")],
    ] {
        net.bkp(&desk.path("policies"), args, 0);
    }
    let (bare, images) = (Bare::with(&desk.path("kit")), files(&desk.path("images")));
    // With it goes all that the backups were made with: repository, state, policy, keys, images.
    drop(desk);

    // The new machine is elsewhere: another cable leads to the copy, and none to anything else.
    net.route(network::PEER, "bkp-lan", None);
    assert!(net.has_way_to(network::PEER) && !net.has_way_to("192.0.2.1"));
    let before = net.arrived();
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", &net.ours, "env"]);
    let to_dir = bare.path("restored");
    let more = [
        ("TO_DIR".to_owned(), to_dir.display().to_string()),
        ("BKP_PASSPHRASE_FILE".to_owned(), bare.path("passphrase").display().to_string()),
    ];
    bare.types_behind(inside, &["What you need", "restore with bkp"], &more).expect(0);
    assert!(images.len() > 3 && files(&to_dir.join("images")) == images);
    assert!(net.arrived() > before);
    assert_eq!(fs::read_dir(bare.path("home")).unwrap().count(), 0, "it wrote into the home directory");
    drop(server.stdin.take());
    assert!(told.any(|line| line.contains("1 passed")), "the server did not come to its end");
    assert!(server.wait().unwrap().success());
}
