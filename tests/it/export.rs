//! Live: what an export writes loads with the tools it is for, and with nothing of ours; what breaks off leaves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bkp::export::{ExportError, Exported, Form, Plan, apply};
use bkp::run::Run;
use bkp::target::mysql::{DirDump, Selection};

use crate::dump::world::{self, DirSink};
use crate::dump::{CHUNK_BYTES, fixture};
use crate::faults::small_disk;
use crate::load::dumps::Dump;
use crate::servers::{Product, Server, program};
use crate::world::World;

const BOTH: [Product; 2] = [Product::MariaDb, Product::MySql];

fn plan(dump: Arc<DirDump>, form: Form, dir: &Path) -> Plan {
    Plan { dump, label: "a dump".to_owned(), selection: Selection::everything(), form, dir: dir.to_owned() }
}

/// Exports on a runtime of its own, as the program does.
fn export(plan: &Plan) -> Result<Exported, ExportError> {
    tokio::runtime::Runtime::new().unwrap().block_on(apply(plan, &Run::silent()))
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Loads files by the very command that an export names; `mysql` is the product's own client.
fn load_with_client(server: &Server, dir: &Path) {
    let (client, arguments) = server.client();
    let command = Form::Sql.loaded_by(dir.display());
    let (files, flags) = command.split_once(" | mysql ").unwrap();
    let script = format!("{files} | \"$@\" {flags}");
    let ended = Command::new("sh").args(["-c", &script, "sh"]).arg(client).args(arguments).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

fn load_with_myloader(server: &Server, dir: &Path) {
    let ended = Command::new(program("MYLOADER"))
        .args(["--user", "root", "--threads", "2", "--directory", ".", "--socket"])
        .arg(server.socket())
        .current_dir(dir)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{told}");
}

/// Tells whether `myloader` is Debian's 0.10, which knows no sequences, and no names but those that files can have.
fn is_old_myloader() -> bool {
    let told = Command::new(program("MYLOADER")).arg("--version").output().unwrap().stdout;
    String::from_utf8(told).unwrap().contains("myloader 0.")
}

/// Returns what there is to load: for an old `myloader` the tables whose names it can read, and their triggers.
fn selection(form: Form, tables: &[(String, String)]) -> Selection {
    if form == Form::Sql || !is_old_myloader() {
        return Selection::everything();
    }
    let is_loadable = |(schema, table): &&(String, String)| schema == "torture" && table != "sequenced";
    Selection { tables: Some(tables.iter().filter(is_loadable).cloned().collect()), ..Selection::everything() }
}

/// Takes out what the form or the selection leaves behind, and puts a space behind each `;` that ends a line, as `mydumper` does.
fn kept(objects: &BTreeSet<String>, form: Form, has_all: bool) -> BTreeSet<String> {
    let is_kept = |shown: &&String| match form {
        Form::Sql => true,
        Form::Mydumper if has_all => !shown.starts_with("SHOW CREATE USER") && !shown.starts_with("SHOW GRANTS"),
        Form::Mydumper => shown.starts_with("SHOW CREATE TRIGGER"),
    };
    objects.iter().filter(is_kept).map(|shown| shown.replace(";\\n", "; \\n")).collect()
}

#[test]
fn the_guide_and_the_help_name_the_command_that_loads_exactly() {
    let command = Form::Sql.loaded_by("/srv/out");
    let help = Command::new(env!("CARGO_BIN_EXE_bkp")).args(["export", "--help"]).output().unwrap().stdout;
    for text in [fs::read_to_string("README.md").unwrap(), String::from_utf8(help).unwrap()] {
        let text: Vec<&str> = text.split_whitespace().collect();
        assert!(text.join(" ").contains(&command), "{command}");
    }
}

/// Rules of a target under which a table without a key would be refused, or get a column more.
fn rules(product: Product) -> &'static [&'static str] {
    match product {
        Product::MariaDb => &[],
        Product::MySql => &["--sql-require-primary-key=ON", "--sql-generate-invisible-primary-key=ON"],
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn an_export_loads_with_myloader_and_with_the_plain_client_alone() {
    for product in BOTH {
        let original = fixture(product);
        original.execute("CREATE PROCEDURE torture.returns ()\r\n  -- kept\r\n  SELECT 1");
        let (dump, out) = (DirSink::new(), tempfile::tempdir().unwrap());
        world::dump(&original, &dump, CHUNK_BYTES, None).unwrap();
        let dump = Arc::new(DirDump::open(dump.path()).unwrap());
        let (objects, tables) = (world::objects(&original), world::tables(&original));
        for form in [Form::Sql, Form::Mydumper] {
            let dir = out.path().join(format!("{form:?}"));
            let plan = Plan { selection: selection(form, &tables), ..plan(dump.clone(), form, &dir) };
            let exported = export(&plan).unwrap();
            assert_eq!(exported.files, names(&dir).len());
            let server = Server::start(product, rules(product));
            match form {
                Form::Sql => load_with_client(&server, &dir),
                Form::Mydumper => load_with_myloader(&server, &dir),
            }
            let loaded = plan.selection.tables.as_ref().unwrap_or(&tables);
            assert_eq!((exported.tables, loaded), (loaded.len(), &world::tables(&server)), "{product:?} {form:?}");
            for (schema, table) in loaded {
                assert!(
                    world::rows_of(&original, schema, table) == world::rows_of(&server, schema, table),
                    "{product:?} {form:?} {schema}.{table}"
                );
            }
            let has_all = plan.selection.tables.is_none();
            let (found, wanted) = (world::objects(&server), kept(&objects, form, has_all));
            let differing: Vec<String> = kept(&found, form, has_all).symmetric_difference(&wanted).cloned().collect();
            assert_eq!(differing, [""; 0], "{product:?} {form:?}");
        }
    }
}

#[test]
fn a_damaged_row_file_leaves_no_export() {
    for form in [Form::Sql, Form::Mydumper] {
        let dump = Dump::new(Product::MariaDb).numbers("plain", 3, 1_000);
        let out = tempfile::tempdir().unwrap();
        let (whole, broken) = (out.path().join("whole"), out.path().join("broken"));
        assert_eq!(export(&plan(dump.open(), form, &whole)).unwrap().rows, 3_000);
        dump.damage("shop/plain/1.tsv");
        let error = export(&plan(dump.open(), form, &broken)).unwrap_err();
        assert!(matches!(&error, ExportError::Dump(error) if error.is_damage()), "{form:?}: {error}");
        assert!(!broken.exists(), "{form:?}");
    }
}

#[test]
fn a_signal_leaves_no_export() {
    let dump = Dump::new(Product::MariaDb).numbers("plain", 1, 10).open();
    let dir = tempfile::tempdir().unwrap().path().to_owned();
    let run = Run::silent();
    run.cancel.cancel();
    let stopped = tokio::runtime::Runtime::new().unwrap().block_on(apply(&plan(dump, Form::Sql, &dir), &run));
    assert!(matches!(stopped, Err(ExportError::Stopped(_))), "{stopped:?}");
    assert!(!dir.exists());
}

#[test]
#[ignore = "needs root, to mount a tmpfs of its own; scripts/test runs it"]
fn a_full_disk_is_told_and_keeps_nothing_of_the_export() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let unmount = small_disk(&disk, "1m");
    let dump = Dump::new(Product::MariaDb).numbers("plain", 40, 4_000).open();
    for form in [Form::Sql, Form::Mydumper] {
        let error = export(&plan(dump.clone(), form, &disk.join("out"))).unwrap_err();
        assert!(error.to_string().contains("No space left on device"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("more room")));
        assert_eq!(names(&disk), BTreeSet::new());
    }
    drop(unmount);
}

/// Returns the paths below a directory that others than the owner may read.
fn open_to_others(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_open = |path: &PathBuf| path.metadata().unwrap().permissions().mode() & 0o077 != 0;
    files.chain([dir.to_owned()]).filter(is_open).collect()
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn the_command_exports_chosen_tables_of_a_snapshot_and_records_it() {
    let world = World::ready(Product::MariaDb);
    world.bkp(&["backup", "mall", "--no-copy", "--source", "db1"]).expect(0);
    let dir = world.path("out");
    let to = dir.to_str().unwrap();
    let chosen = ["export", "mall", "--format", "sql", "--tables", "mall.orders,mall.shops"];

    let told = world.bkp(&[&chosen[..], &[to, "--json"]].concat()).expect(0).json();
    assert_eq!((&told["exported"]["tables"], &told["exported"]["rows"]), (&2.into(), &1_505.into()));
    assert_eq!(names(&dir).len(), 3, "{:?}", names(&dir));
    assert_eq!(open_to_others(&dir), Vec::<PathBuf>::new());
    let server = Server::mariadb();
    load_with_client(&server, &dir);
    for table in ["orders", "shops"] {
        assert_eq!(world::rows_of(&server, "mall", table), world::rows_of(&world.source, "mall", table));
    }

    let refused = world.bkp(&[&chosen[..], &[to]].concat()).expect(2);
    assert!(refused.err.contains("it is not an empty directory"), "{}", refused.err);
    let unknown = world.bkp(&["export", "mall", "--format", "sql", "--tables", "mall.gone", to]).expect(2);
    assert!(unknown.err.contains("no table `mall.gone` is in the snapshot"), "{}", unknown.err);
    let catalog = rusqlite::Connection::open(world.path("state/catalog.sqlite")).unwrap();
    let codes =
        "SELECT group_concat(exit_code) FROM (SELECT exit_code FROM runs WHERE verb = 'export' ORDER BY started, id)";
    assert_eq!(catalog.query_row(codes, [], |row| row.get::<_, String>(0)).unwrap(), "0,2,2");
}
