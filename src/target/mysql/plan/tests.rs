#![allow(clippy::unwrap_used)]

use super::*;
use crate::mysql::manifest::{Chunk, Consistency, Extent, FORMAT, Product};
use crate::target::mysql::plan::objects::word;
use crate::target::mysql::{Abilities, DumpReadError, DumpReader};

fn chunk(path: &str) -> Chunk {
    Chunk { path: path.to_owned(), lower: None, upper: None, rows: 10, bytes: 100, sha256: String::new() }
}

fn table(name: &str, engine: &str) -> TableEntry {
    TableEntry {
        schema: "shop".to_owned(),
        name: name.to_owned(),
        create: String::new(),
        engine: engine.to_owned(),
        history_lost: false,
        columns: Vec::new(),
        key: vec!["id".to_owned()],
        rows: 20,
        bytes: 200,
        chunks: vec![chunk(&format!("{name}/0")), chunk(&format!("{name}/1"))],
    }
}

fn object(kind: ObjectKind, name: &str) -> ObjectEntry {
    let is_account = matches!(kind, ObjectKind::Role | ObjectKind::User | ObjectKind::Grant);
    ObjectEntry {
        kind,
        schema: (!is_account).then(|| "shop".to_owned()),
        table: (kind == ObjectKind::Trigger).then(|| "orders".to_owned()),
        name: name.to_owned(),
        statements: format!("{} {name}", word(kind)),
        script: String::new(),
    }
}

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        product: Product::MariaDb,
        version: "10.11.14-MariaDB".to_owned(),
        server: String::new(),
        taken_at: chrono::DateTime::UNIX_EPOCH,
        consistency: Consistency::LockFree,
        position: None,
        gtid: None,
        gtid_slave_pos: None,
        extent: Extent::default(),
        write_stall_ms: 0.0,
        variables: BTreeMap::new(),
        schemas: vec![SchemaEntry { name: "shop".to_owned(), create: "CREATE DATABASE `shop`".to_owned() }],
        tables: vec![table("orders", "InnoDB"), table("log", "Aria")],
        objects: vec![
            object(ObjectKind::Grant, "clerk@%"),
            object(ObjectKind::Trigger, "logged"),
            object(ObjectKind::View, "sales"),
            object(ObjectKind::User, "clerk@%"),
            object(ObjectKind::Sequence, "numbers"),
        ],
    }
}

fn state() -> TargetState {
    TargetState {
        product: Product::MariaDb,
        server_uuid: None,
        version: "10.11.9-MariaDB".to_owned(),
        local_infile: true,
        lower_case_table_names: 0,
        event_scheduler: false,
        schemas: BTreeSet::new(),
        holdings: BTreeSet::new(),
        accounts: BTreeSet::new(),
        abilities: Abilities::default(),
        progress: None,
        session: Session::default(),
    }
}

fn holding(name: &str, holding: Holding) -> (String, String, Holding) {
    ("shop".to_owned(), name.to_owned(), holding)
}

fn plan(state: &TargetState) -> Result<LoadPlan, LoadError> {
    LoadPlan::new(&manifest(), &Selection::everything(), state, false)
}

/// Returns the state that a load leaves behind after some steps.
fn interrupted(steps: &[Step<'_>]) -> TargetState {
    let token = plan(&state()).unwrap().token;
    TargetState { progress: Some(Progress::of(&token, steps)), ..state() }
}

#[test]
fn sequences_come_before_all_and_rights_after_all() {
    let plan = plan(&state()).unwrap();
    let kinds: Vec<ObjectKind> = plan.objects.iter().map(|step| step.object.kind).collect();
    let order = [ObjectKind::Sequence, ObjectKind::User, ObjectKind::View, ObjectKind::Trigger, ObjectKind::Grant];
    assert_eq!(kinds, order);
    assert_eq!((plan.rows(), plan.bytes()), (40, 400));
}

#[test]
fn what_stands_under_a_name_that_is_needed_is_a_conflict_and_what_stands_beside_is_not() {
    let taken = [
        (holding("orders", Holding::Table), true),
        (holding("orders", Holding::View), true),
        (holding("sales", Holding::Table), true),
        (holding("numbers", Holding::Sequence), true),
        (holding("orders", Holding::Function), false),
        (holding("ORDERS", Holding::Table), false),
        (holding("other", Holding::Table), false),
    ];
    for (holding, is_conflict) in taken {
        let state = TargetState { holdings: BTreeSet::from([holding.clone()]), ..state() };
        let refused = matches!(plan(&state), Err(LoadError::NotEmpty { .. }));
        assert_eq!(refused, is_conflict, "{holding:?}");
        let forced = LoadPlan::new(&manifest(), &Selection::everything(), &state, true).unwrap();
        assert_eq!(!forced.drops.is_empty(), is_conflict, "{holding:?}");
    }
}

#[test]
fn a_target_without_regard_to_case_conflicts_in_any_case() {
    let state = TargetState {
        lower_case_table_names: 1,
        holdings: BTreeSet::from([holding("ORDERS", Holding::Table)]),
        ..state()
    };
    assert!(matches!(plan(&state), Err(LoadError::NotEmpty { .. })));
    let mut manifest = manifest();
    manifest.tables.push(table("Orders", "InnoDB"));
    let collides = LoadPlan::new(&manifest, &Selection::everything(), &state, true);
    assert!(matches!(collides, Err(LoadError::NamesCollide { .. })));
}

#[test]
fn an_interrupted_load_goes_on_with_what_is_missing() {
    let (schema, name) = ("shop", "orders");
    let mut state = interrupted(&[
        Step::Begun { schema, name },
        Step::Created { schema, name },
        Step::Chunk("orders/0"),
        Step::Making("view sales"),
    ]);
    state.holdings = BTreeSet::from([holding("orders", Holding::Table), holding("sales", Holding::View)]);
    let plan = plan(&state).unwrap();
    assert!(plan.resumes && plan.drops.is_empty());
    assert_eq!(plan.tables[0].stage, Stage::Created);
    assert_eq!(plan.tables[0].pending, [1]);
    assert_eq!(plan.tables[1].stage, Stage::Untouched);
    let ours: Vec<&str> = plan
        .objects
        .iter()
        .filter(|step| step.making == Making::Recreates)
        .map(|step| step.object.name.as_str())
        .collect();
    assert_eq!(ours, ["sales"]);
}

#[test]
fn a_table_without_transactions_starts_over_unless_it_was_finished() {
    let (schema, name) = ("shop", "log");
    let begun = [Step::Begun { schema, name }, Step::Created { schema, name }, Step::Chunk("log/0")];
    let half = plan(&interrupted(&begun)).unwrap();
    assert_eq!((half.tables[1].stage, half.tables[1].pending.len()), (Stage::Begun, 2));
    let finished = plan(&interrupted(&[begun[0], begun[1], Step::Finished { schema, name }])).unwrap();
    assert_eq!((finished.tables[1].stage, finished.tables[1].pending.len()), (Stage::Finished, 0));
}

#[test]
fn another_load_in_the_middle_is_refused_unless_it_may_be_overwritten() {
    let state = TargetState { progress: Some(Progress::of("another", &[])), ..state() };
    assert!(matches!(plan(&state), Err(LoadError::OtherLoad { .. })));
    let anew = LoadPlan::new(&manifest(), &Selection::everything(), &state, true).unwrap();
    assert!(!anew.resumes);
}

#[test]
fn a_user_that_stands_is_left_alone_with_its_rights_and_said() {
    let state = TargetState { accounts: BTreeSet::from(["clerk@%".to_owned()]), ..state() };
    let omitted: Vec<String> = plan(&state).unwrap().omitted.into_iter().map(|omitted| omitted.what).collect();
    assert_eq!(omitted, ["grants of clerk@%", "user clerk@%"]);
}

#[test]
fn a_user_of_an_interrupted_load_still_gets_its_rights() {
    let mut state = interrupted(&[Step::Making("user clerk@%"), Step::Made("user clerk@%")]);
    state.accounts.insert("clerk@%".to_owned());
    let plan = plan(&state).unwrap();
    assert!(plan.omitted.is_empty());
    assert!(plan.objects.iter().any(|step| step.object.kind == ObjectKind::Grant));
}

#[test]
fn what_the_other_product_has_not_is_omitted_and_said() {
    let state = TargetState { product: Product::MySql, version: "9.7.0".to_owned(), ..state() };
    let plan = plan(&state).unwrap();
    let omitted: Vec<&str> = plan.omitted.iter().map(|omitted| omitted.what.as_str()).collect();
    assert_eq!(omitted, ["grants of clerk@%", "user clerk@%", "sequence `shop`.`numbers`"]);
    assert!(plan.notes[0].contains("the dump is of MariaDB 10.11.14-MariaDB and the target is MySQL 9.7.0"));
}

#[test]
fn a_selection_names_tables_of_the_dump_only() {
    let selection =
        |name: &str| Selection { tables: Some(vec![("shop".to_owned(), name.to_owned())]), ..Selection::everything() };
    let gone = LoadPlan::new(&manifest(), &selection("gone"), &state(), false);
    assert!(matches!(gone, Err(LoadError::NotInDump { .. })));
    let plan = LoadPlan::new(&manifest(), &selection("orders"), &state(), false).unwrap();
    let names: Vec<&str> = plan.objects.iter().map(|step| step.object.name.as_str()).collect();
    assert_eq!(names, ["numbers", "logged"]);
    assert_ne!(plan.token, super::token(&manifest(), &Selection::everything()));
}

#[test]
fn a_target_that_takes_no_local_files_is_refused() {
    let state = TargetState { local_infile: false, ..state() };
    assert!(matches!(plan(&state), Err(LoadError::LocalInfileOff)));
}

#[test]
fn a_plan_tells_what_it_will_do() {
    let state = TargetState {
        holdings: BTreeSet::from([holding("orders", Holding::View)]),
        accounts: BTreeSet::from(["clerk@%".to_owned()]),
        ..state()
    };
    let plan = LoadPlan::new(&manifest(), &Selection::everything(), &state, true).unwrap();
    insta::assert_snapshot!(plan, @"
    load into MariaDB 10.11.9-MariaDB
      tables   2, 40 rows, 400 B
      objects  3
      drop     view `shop`.`orders`
      omit     grants of clerk@%: it exists on the target and is left alone
      omit     user clerk@%: it exists on the target and is left alone
    ");
}

#[test]
fn an_event_is_enabled_when_all_else_is_there_even_after_an_interruption() {
    let mut manifest = manifest();
    let enable = ObjectEntry { statements: "enable".to_owned(), ..object(ObjectKind::Event, "nightly") };
    manifest.objects.extend([object(ObjectKind::Event, "nightly"), enable]);
    let plan = LoadPlan::new(&manifest, &Selection::everything(), &state(), false).unwrap();
    let last = plan.objects.last().unwrap();
    assert_eq!((last.object.statements.as_str(), last.making), ("enable", Making::Alters));

    let progress = Progress::of(
        &plan.token,
        &[Step::Making("event nightly"), Step::Made("event nightly"), Step::Making("enable")],
    );
    let state = TargetState {
        progress: Some(progress),
        holdings: BTreeSet::from([holding("nightly", Holding::Event)]),
        ..state()
    };
    let rest = LoadPlan::new(&manifest, &Selection::everything(), &state, false).unwrap();
    let events: Vec<_> = rest.objects.iter().filter(|step| step.object.kind == ObjectKind::Event).collect();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].object.statements.as_str(), events[0].making), ("enable", Making::Alters));
}

#[test]
fn a_dump_that_is_less_than_it_looks_says_so_in_the_plan() {
    let mut manifest = manifest();
    assert!(notes(&manifest, &Selection::everything(), &state()).is_empty());
    manifest.consistency = Consistency::Inconsistent;
    manifest.tables[0].history_lost = true;
    let notes = notes(&manifest, &Selection::everything(), &state()).join("\n");
    assert!(notes.contains("its tables are of different moments"), "{notes}");
    assert!(notes.contains("no history of `shop`.`orders`"), "{notes}");
}

fn pair(schema: &str, name: &str) -> TableName {
    (schema.to_owned(), name.to_owned())
}

#[test]
fn a_table_comes_back_beside_the_one_that_is_there() {
    let state = TargetState {
        schemas: BTreeSet::from(["shop".to_owned()]),
        holdings: BTreeSet::from([holding("orders", Holding::Table)]),
        ..state()
    };
    let mut selection = Selection { tables: Some(vec![pair("shop", "orders")]), ..Selection::everything() };
    assert!(matches!(LoadPlan::new(&manifest(), &selection, &state, false), Err(LoadError::NotEmpty { .. })));
    let plain = token(&manifest(), &selection);
    selection.names.table = Some((pair("shop", "orders"), pair("shop", "orders_restored")));
    let plan = LoadPlan::new(&manifest(), &selection, &state, false).unwrap();
    let [step] = plan.tables.as_slice() else { panic!("{:?}", plan.tables) };
    assert_eq!((step.table.name.as_str(), step.is_beside, step.pending.len()), ("orders_restored", true, 2));
    assert!(plan.objects.is_empty(), "a trigger would be made on the table that is there: {:?}", plan.objects);
    assert!(plan.notes.iter().any(|note| note.contains("`shop`.`orders_restored`, without its foreign keys")));
    assert_ne!(plan.token, plain);
    selection.names.table = Some((pair("shop", "orders"), pair("shop", "log")));
    assert!(matches!(LoadPlan::new(&manifest(), &selection, &state, false), Err(LoadError::NameTwice { .. })));
}

#[test]
fn a_schema_comes_back_under_another_name_with_its_tables_alone() {
    let mut selection = Selection { accounts: false, ..Selection::everything() };
    selection.names.schemas.insert("shop".to_owned(), "shop_old".to_owned());
    let plan = LoadPlan::new(&manifest(), &selection, &state(), false).unwrap();
    assert_eq!(plan.schemas[0].create, "CREATE DATABASE `shop_old`");
    assert!(plan.tables.iter().all(|step| step.table.schema == "shop_old" && !step.is_beside));
    assert!(plan.objects.is_empty(), "{:?}", plan.objects);
    assert!(plan.notes.iter().any(|note| note.starts_with("`shop` comes as `shop_old`")), "{:?}", plan.notes);

    // Other schemas of the dump do not come unasked.
    let mut two = manifest();
    two.schemas.push(SchemaEntry { name: "blog".to_owned(), create: "CREATE DATABASE `blog`".to_owned() });
    two.tables.push(TableEntry { schema: "blog".to_owned(), ..table("posts", "InnoDB") });
    let plan = LoadPlan::new(&two, &selection, &state(), false).unwrap();
    assert_eq!((plan.tables.len(), plan.schemas.len()), (2, 1), "{:?}", plan.schemas);

    selection.names.schemas.insert("shop".to_owned(), "MySQL".to_owned());
    let own = LoadPlan::new(&manifest(), &selection, &state(), false).unwrap_err();
    assert_eq!(own.to_string(), "load into `MySQL`: it belongs to the server or to bkp");
    selection.names.schemas.insert("shop".to_owned(), "shop_old".to_owned());
    selection.names.schemas.insert("none".to_owned(), "other".to_owned());
    let unknown = LoadPlan::new(&manifest(), &selection, &state(), false).unwrap_err();
    assert_eq!(unknown.to_string(), "load `none` under another name: the dump holds no such schema");
}

#[test]
fn a_schema_in_use_keeps_its_defaults_when_an_interrupted_load_goes_on() {
    let live = TargetState {
        schemas: BTreeSet::from(["shop".to_owned()]),
        holdings: BTreeSet::from([holding("orders", Holding::Table)]),
        ..state()
    };
    let mut selection = Selection { tables: Some(vec![pair("shop", "orders")]), ..Selection::everything() };
    selection.names.table = Some((pair("shop", "orders"), pair("shop", "orders_restored")));
    let first = LoadPlan::new(&manifest(), &selection, &live, false).unwrap();
    let live = TargetState { progress: Some(Progress::of(&first.token, &[])), ..live };
    let again = LoadPlan::new(&manifest(), &selection, &live, false).unwrap();
    assert_eq!(first.schemas, again.schemas);
    assert!(again.schemas[0].is_used);
}

#[test]
fn what_comes_first_is_named_as_in_the_dump_and_found_under_its_new_name() {
    let mut selection = Selection { accounts: false, ..Selection::everything() };
    selection.names.schemas.insert("shop".to_owned(), "shop_old".to_owned());
    let mut plan = LoadPlan::new(&manifest(), &selection, &state(), false).unwrap();
    assert_eq!((plan.first_named(), plan.first_bytes()), (String::new(), 0));
    let first = ["shop.log", "shop.*", "shop_old.orders"].map(str::to_owned);
    plan.bring_first(&first, &manifest(), &selection.names);
    assert_eq!(plan.first_named(), "`shop_old`.`log`, `shop_old`.`orders`");
    assert_eq!(plan.first_bytes(), 400);
    let told = "`shop_old.orders` is to come first, and the dump holds no such table";
    assert_eq!(plan.notes.last().map(String::as_str), Some(told));
}

struct Definitions {
    manifest: Manifest,
    create: &'static str,
}

#[async_trait::async_trait]
impl DumpReader for Definitions {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    async fn read(&self, _: &str) -> Result<Vec<u8>, DumpReadError> {
        Ok(self.create.as_bytes().to_vec())
    }

    fn stream(&self, path: &str) -> futures_util::stream::BoxStream<'static, Result<bytes::Bytes, DumpReadError>> {
        panic!("a plan reads no rows: {path}")
    }
}

#[tokio::test]
async fn a_table_that_does_not_fit_takes_its_trigger_along_and_what_bears_its_name_stays() {
    let create = "CREATE TABLE `t` (\n  `id` int(11)\n) ENGINE=InnoDB WITH SYSTEM VERSIONING;\n";
    let dump = Definitions { manifest: manifest(), create };
    let state = TargetState {
        product: Product::MySql,
        holdings: BTreeSet::from([holding("orders", Holding::Table), holding("sales", Holding::View)]),
        ..state()
    };
    let mut plan = LoadPlan::new(&manifest(), &Selection::everything(), &state, true).unwrap();
    assert_eq!(plan.drops.len(), 2);
    plan.bring_first(&["shop.log".to_owned()], &manifest(), &Names::default());
    plan.fit(&dump, &state).await.unwrap();
    let refused: Vec<&str> = plan.refused.iter().map(|refused| refused.table.as_str()).collect();
    assert_eq!((refused.as_slice(), plan.tables.len()), (&["orders", "log"][..], 0));
    // It cannot come first, and nobody says that all first ones came.
    assert!(plan.first().is_empty());
    assert_eq!(plan.first_refused().map(|refused| refused.table.as_str()).collect::<Vec<_>>(), ["log"]);
    assert_eq!(plan.comparable().count(), 0);
    let uncompared = plan.uncompared();
    assert!(uncompared.contains(&("`shop`.`log`".to_owned(), "it was left out")), "{uncompared:?}");
    assert!(plan.omitted.iter().any(|omitted| omitted.what == "trigger `shop`.`logged`"), "{:?}", plan.omitted);
    assert!(plan.objects.iter().all(|step| step.object.kind != ObjectKind::Trigger));
    assert_eq!(plan.drops, [Drop { schema: "shop".to_owned(), name: "sales".to_owned(), holding: Holding::View }]);
}

#[tokio::test]
async fn a_definition_is_read_only_where_the_target_is_another_or_lacks_the_engine() {
    let dump = Definitions { manifest: manifest(), create: "CREATE TABLE `log` (\n  `id` int(11)\n) ENGINE=Aria" };
    let with = |engines: &[&str]| {
        let engines = engines.iter().map(|&engine| engine.to_owned()).collect();
        TargetState { abilities: Abilities { engines, ..Abilities::default() }, ..state() }
    };
    let fitted = async |state: TargetState| {
        let mut plan = plan(&state).unwrap();
        plan.fit(&dump, &state).await.unwrap();
        plan.tables.into_iter().map(|step| step.definition).collect::<Vec<_>>()
    };
    assert_eq!(fitted(with(&["innodb", "aria"])).await, [None, None]);
    let stands_in = "CREATE TABLE `log` (\n  `id` int(11)\n) ENGINE=InnoDB".to_owned();
    assert_eq!(fitted(with(&["innodb"])).await, [None, Some(stands_in)]);
}
