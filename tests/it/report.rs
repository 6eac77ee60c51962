//! The report of a drill, in all its forms; in a real browser too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bkp::catalog::CopyRecord;
use bkp::drill::outcome::{
    CheckResult, CheckState, DrillOutcome, DrilledSnapshot, FirstOrder, ObjectivesMs, Origin, Phase, Place,
    SandboxServer, Scenario, Verdict,
};
use bkp::human::{self, Ink};
use bkp::id::{ObjectId, RunId};
use bkp::mysql::manifest::Product;
use bkp::policy::Policy;
use bkp::report::{Context, CopyFact, Report, Severity, Target};
use chrono::{DateTime, TimeDelta, Utc};

const MINUTE: u64 = 60_000;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn phase(name: &str, start_ms: u64, duration_ms: u64) -> Phase {
    Phase { name: name.to_owned(), start_ms, duration_ms, ..Phase::default() }
}

fn phases() -> Vec<Phase> {
    vec![
        Phase { detail: Some("mariadbd on a socket, 1.5 GiB buffer pool".to_owned()), ..phase("sandbox", 0, 4_100) },
        Phase { bytes: Some(3_221_225_472), ..phase("fetch", 1_200, 212_000) },
        Phase { bytes: Some(5_368_709_120), rows: Some(41_204_331), ..phase("load", 4_100, 431_000) },
        Phase { detail: Some("61 secondary indexes".to_owned()), ..phase("index", 435_100, 208_000) },
        Phase { bytes: Some(1_889_785_610), files: Some(60_000), ..phase("files", 4_100, 318_000) },
        phase("checks", 643_100, 214_000),
    ]
}

fn check(name: &str, kind: &str, result: CheckState, found: &str, wanted: &str) -> CheckResult {
    CheckResult {
        name: name.to_owned(),
        kind: kind.to_owned(),
        result,
        found: Some(found.to_owned()),
        wanted: Some(wanted.to_owned()),
        detail: None,
        duration_ms: 1_840,
    }
}

fn checks() -> Vec<CheckResult> {
    use CheckState::Pass;
    vec![
        check("rows of db1", "rows", Pass, "312 of 312 chunks", "every chunk's hash as in the manifest"),
        check("files of images", "files", Pass, "60,000 files", "60,000 files"),
        check("주문 건수 (orders)", "sql", Pass, "1204331", "at least 1"),
        check("newest payment", "sql", Pass, "2026-03-01 02:14:58", "2026-03-01"),
        check("product images exist", "files_in", Pass, "0 missing of 58,112", "at most 0 missing"),
    ]
}

fn snapshot(source: &str, kind: &str, time: &str) -> DrilledSnapshot {
    DrilledSnapshot {
        source: source.to_owned(),
        kind: kind.to_owned(),
        id: ObjectId::of(source.as_bytes()),
        time: at(time),
        incomplete: false,
    }
}

fn first_order(rta_ms: u64) -> FirstOrder {
    FirstOrder { tables: vec!["mall.shops".to_owned(), "mall.<products>".to_owned()], ms: Some(rta_ms / 4) }
}

fn drill(started: &str, rta_ms: Option<u64>) -> DrillOutcome {
    let objectives = ObjectivesMs { rpo_ms: Some(24 * 60 * MINUTE), rto_ms: Some(20 * MINUTE) };
    let lost_ms = rta_ms.map(|_| 224 * MINUTE);
    let checks = checks();
    DrillOutcome {
        run: RunId::new(at(started), 0x1a2b_3c4d),
        policy: "mall".to_owned(),
        policy_hash: "9f".repeat(32),
        started: at(started),
        ended: at(started) + TimeDelta::milliseconds(857_100),
        place: Place {
            host: "drill-host".to_owned(),
            sandboxes: vec![SandboxServer {
                source: "db1".to_owned(),
                product: Product::MariaDb,
                version: "10.11.14".to_owned(),
            }],
            cores: 8,
            memory_bytes: 34_359_738_368,
        },
        from: Origin::Copy { name: "offsite".to_owned() },
        scenario: Scenario::Lost,
        snapshots: vec![
            snapshot("db1", "mysql", "2026-02-28T17:15:03Z"),
            snapshot("images", "files", "2026-02-28T17:16:44Z"),
        ],
        phases: phases(),
        rta_ms,
        rpa_ms: lost_ms,
        first_order: rta_ms.map(first_order),
        standbys: Vec::new(),
        objectives,
        verdict: Verdict::judge(objectives, rta_ms, lost_ms, &checks),
        checks,
        error: None,
    }
}

fn judged(mut drill: DrillOutcome) -> DrillOutcome {
    drill.verdict = Verdict::judge(drill.objectives, drill.rta_ms, drill.rpa_ms, &drill.checks);
    drill
}

fn passed() -> DrillOutcome {
    drill("2026-02-28T21:00:00Z", Some(706_400))
}

/// One check failed, one did not run, a snapshot is incomplete, and the recovery took too long.
fn failed() -> DrillOutcome {
    let mut drill = drill("2026-02-28T21:00:00Z", Some(25 * MINUTE));
    drill.checks[2].result = CheckState::Fail;
    drill.checks[2].found = Some("0".to_owned());
    drill.checks[4].result = CheckState::NotRun;
    drill.checks[4].detail = Some("the statement failed: table `mall.product_images` does not exist".to_owned());
    drill.snapshots[1].incomplete = true;
    drill.from = Origin::Repository;
    for phase in &mut drill.phases {
        phase.start_ms *= 2;
        phase.duration_ms *= 2;
    }
    judged(drill)
}

/// A drill that broke in the middle: nothing was measured.
fn broken() -> DrillOutcome {
    let mut drill = drill("2026-02-28T21:00:00Z", None);
    drill.phases.truncate(2);
    drill.checks.clear();
    drill.error = Some("start sandbox: mariadbd exited with status 1 before it listened".to_owned());
    judged(drill)
}

/// A small mall that came back in seconds, far inside its RTO.
fn quick() -> DrillOutcome {
    let mut drill = drill("2026-02-28T21:00:00Z", Some(6_300));
    drill.objectives.rto_ms = Some(120 * MINUTE);
    drill.rpa_ms = Some(41_000);
    for phase in &mut drill.phases {
        phase.start_ms /= 100;
        phase.duration_ms /= 100;
    }
    judged(drill)
}

/// Markup, control characters and great length in every name that comes from outside.
#[expect(clippy::assigning_clones, reason = "a test reads better plain")]
fn hostile() -> DrillOutcome {
    let evil = "</title></style><script>document.title='owned'</script><img src=x onerror=alert(1)>\u{1b}[2J|`*";
    let mut drill = failed();
    drill.policy = evil.to_owned();
    drill.policy_hash = evil.to_owned();
    drill.place.host = evil.to_owned();
    drill.place.sandboxes[0].version = evil.to_owned();
    drill.from = Origin::Copy { name: evil.to_owned() };
    drill.error = Some(evil.to_owned());
    drill.snapshots[0].source = "가나다라마바사".repeat(30);
    for phase in &mut drill.phases {
        phase.name = evil.to_owned();
        phase.detail = Some("x".repeat(400));
    }
    for check in &mut drill.checks {
        check.name = evil.to_owned();
        check.kind = evil.to_owned();
        check.found = Some("9".repeat(300));
    }
    drill
}

fn past() -> Vec<DrillOutcome> {
    let minutes = [31, 28, 24, 26, 0, 19, 17, 18, 15, 14, 13, 12, 12];
    let drill_of = |(month, minutes): (u64, &u64)| {
        let year = 2025 + month / 12;
        let started = format!("{year}-{:02}-01T21:00:00Z", month % 12 + 1);
        drill(&started, (*minutes > 0).then_some(minutes * MINUTE))
    };
    (1_u64..).zip(&minutes).map(drill_of).collect()
}

fn context() -> Context {
    Context {
        timezone: chrono_tz::Asia::Seoul,
        targets: vec![target("db1", "mysql", "10.0.30.10:3306"), target("images", "files", "/mnt/images")],
        backup_cycle: Some("15 2 * * *".to_owned()),
        verify_cycle: Some("0 5 * * *".to_owned()),
        drill_cycle: Some("0 6 1 * *".to_owned()),
        retention: "3 newest, 7 daily, 5 weekly, 12 monthly, 3 yearly".to_owned(),
        repository: "/backup/mall".to_owned(),
        copies: vec![CopyFact {
            name: "offsite".to_owned(),
            place: "s3://mall-dr/bkp (ap-northeast-2)".to_owned(),
            completed: Some(at("2026-02-28T17:31:00Z")),
        }],
        next_drill: Some(at("2026-03-31T21:00:00Z")),
    }
}

fn target(source: &str, kind: &str, place: &str) -> Target {
    Target { source: source.to_owned(), kind: kind.to_owned(), place: place.to_owned() }
}

fn report(drill: DrillOutcome) -> Report {
    Report::new(drill, &past(), context())
}

fn said(report: &Report, severity: Severity) -> String {
    let of_it = report.findings().iter().filter(|finding| finding.severity == severity);
    of_it.map(|finding| finding.text.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_drill_that_proved_all_leaves_nothing_to_act_on() {
    let report = report(passed());
    assert_eq!(said(&report, Severity::Bad), "");
    assert_eq!(said(&report, Severity::Warning), "");
    assert!(report.text(Ink::plain()).starts_with("Drill of mall: PASSED"));
}

#[test]
fn every_fault_of_a_drill_is_a_finding() {
    let report = report(failed());
    let bad = said(&report, Severity::Bad);
    assert!(bad.contains("check “주문 건수 (orders)” failed: found 0, wanted at least 1"), "{bad}");
    assert!(bad.contains("the recovery took 25 min; the RTO is 20 min"), "{bad}");
    let warnings = said(&report, Severity::Warning);
    assert!(warnings.contains("“product images exist” did not run"), "{warnings}");
    assert!(warnings.contains("snapshot of `images` was made by a partial run"), "{warnings}");
    assert!(warnings.contains("the drills before it took 17 min (median)"), "{warnings}");
    assert!(said(&report, Severity::Note).contains("recovery from a copy alone was not rehearsed"));
}

#[test]
fn a_check_that_did_not_run_is_nowhere_a_pass() {
    let mut drill = passed();
    drill.checks[0].result = CheckState::NotRun;
    let report = report(judged(drill));
    for text in [report.text(Ink::plain()), report.markdown(), report.html()] {
        assert!(text.contains("4 of 5 passed, 1 not run"), "{text}");
        assert!(text.contains("NOT RUN"));
        assert!(text.to_lowercase().contains("not proved"));
    }
    assert!(report.json().unwrap().contains("\"passed\": false"));
}

#[test]
fn a_drill_that_broke_says_so_first() {
    let report = report(broken());
    let text = report.text(Ink::plain());
    assert!(text.starts_with("Drill of mall: DID NOT COMPLETE"), "{text}");
    assert!(text.contains("NOT MEASURED"), "{text}");
    assert!(report.html().contains("mariadbd exited with status 1"));
}

#[test]
fn the_history_holds_each_drill_once_and_ends_with_this_one() {
    let mut past = past();
    past.push(passed());
    past.push(drill("2027-01-01T00:00:00Z", Some(1)));
    let json = Report::new(passed(), &past, context()).json().unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let drills = json["history"].as_array().unwrap();
    assert_eq!(drills.len(), 12);
    assert_eq!(drills[11]["run"], json["outcome"]["run"]);
    let starts: Vec<&str> = drills.iter().map(|drill| drill["started"].as_str().unwrap()).collect();
    assert!(starts.is_sorted(), "{starts:?}");
}

#[test]
fn the_terminal_form_fits_80_columns_whatever_the_names() {
    for drill in [passed(), failed(), broken(), hostile()] {
        let text = report(drill).text(Ink::plain());
        for line in text.lines() {
            assert!(human::width(line) <= 80, "{line}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}

#[test]
fn the_terminal_form_reads_well() {
    insta::assert_snapshot!(report(failed()).text(Ink::plain()));
}

#[test]
fn the_markdown_form_reads_well() {
    insta::assert_snapshot!(report(failed()).markdown());
}

#[test]
fn names_from_outside_stay_text_in_every_form() {
    let report = report(hostile());
    let html = report.html();
    assert!(!html.contains("<script"));
    assert!(!html.contains("<img"));
    assert_eq!(html.matches("</title>").count(), 3 - usize::from(!html.contains("history-title")));
    assert!(!report.markdown().contains("<script"));
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    assert!(json["outcome"]["policy"].as_str().unwrap().contains("<script>"));
}

#[test]
fn the_page_refers_to_nothing_outside_itself() {
    let html = report(passed()).html();
    for word in ["http://", "https://", "src=", "@import", "<script"] {
        assert!(!html.contains(word), "{word}");
    }
}

#[test]
fn what_auditors_ask_for_is_in_the_report() {
    let html = report(passed()).html();
    for fact in [
        "10.0.30.10:3306",
        "15 2 * * * (Asia/Seoul)",
        "12 monthly",
        "s3://mall-dr/bkp",
        "drill-host (8 cores, 32.0 GiB memory)",
        "MariaDB 10.11.14 for db1",
        "recovery time (RTO): 20 min",
        "2026-04-01 06:00 KST",
        "2.9.3",
        "2.12.1",
        "2.12.2",
    ] {
        assert!(html.contains(fact), "{fact}");
    }
}

#[test]
fn a_report_is_three_files_and_a_list_that_links_them() {
    let dir = tempfile::tempdir().unwrap();
    let reports = dir.path().join("reports");
    let old = past().remove(11);
    let gone = past().remove(10).run;
    Report::new(old.clone(), &[], context()).write(&reports).unwrap();
    let written = report(passed()).write(&reports).unwrap();

    let name = "drill-20260228T210000Z-1a2b3c4d";
    assert_eq!(written.html, reports.join(format!("{name}.html")));
    let json = fs::read_to_string(&written.json).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let back: DrillOutcome = serde_json::from_value(json["outcome"].clone()).unwrap();
    assert_eq!(back, passed());
    let index = fs::read_to_string(&written.index).unwrap();
    assert!(index.contains(&format!("href=\"{name}.html\"")));
    assert!(index.contains(&format!("href=\"drill-{}.html\"", old.run)));
    assert!(!index.contains(&format!("href=\"drill-{gone}.html\"")));
    let names = fs::read_dir(&reports).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with('.')));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = report(passed()).write(&file.join("reports")).unwrap_err();
    assert!(error.to_string().contains("reports"), "{error}");
}

#[test]
fn what_the_policy_keeps_secret_stays_out() {
    let copies = [CopyRecord { name: "offsite".to_owned(), completed: None, snapshot: None, snapshot_time: None }];
    let policy = policy_with_secrets();
    let context = Context::of(&policy, &copies, None);
    let report = Report::new(passed(), &[], context);
    let forms = [report.html(), report.markdown(), report.json().unwrap(), report.text(Ink::plain())];
    for form in forms {
        assert!(!form.contains("hush"), "{form}");
        assert!(!form.contains("AKIA"), "{form}");
    }
}

/// A policy in which each place for a secret, or for where one is kept, says `hush`.
fn policy_with_secrets() -> Policy {
    let text = r#"
        version = 1
        name = "mall"
        timezone = "Asia/Seoul"
        repository = { path = "/backup/mall", password_command = "echo hush" }
        retention = { daily = 7 }
        mysql.db1 = { host = "10.0.30.10", user = "bkp", password_command = "echo hush" }
        [[copy]]
        name = "offsite"
        [copy.s3]
        bucket = "mall-dr"
        region = "ap-northeast-2"
        access_key_id = "AKIAEXAMPLE"
        secret_access_key_command = "echo hush"
    "#;
    Policy::parse(text, Path::new("mall.toml")).unwrap()
}

/// Opens pages in headless Chromium. Each call is a process of its own with a profile that is thrown away.
struct Browser {
    profile: tempfile::TempDir,
}

impl Browser {
    fn new() -> Self {
        Self { profile: tempfile::tempdir().unwrap() }
    }

    fn run(&self, arguments: &[&str], page: &Path) -> Vec<u8> {
        let program = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| Command::new(name).arg("--version").stdout(Stdio::null()).status().is_ok())
            .expect("chromium is installed");
        let output = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", self.profile.path().display()))
            .args(arguments)
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn dom(&self, page: &Path) -> String {
        String::from_utf8(self.run(&["--dump-dom"], page)).unwrap()
    }

    fn picture(&self, page: &Path, name: &str, width: u32, is_dark: bool) -> Picture {
        let file = page.with_file_name(format!("{name}.png"));
        // Blink counts the schemes: 0 is dark, 1 is light.
        let scheme = format!("--blink-settings=preferredColorScheme={}", u32::from(!is_dark));
        let size = format!("--window-size={width},2600");
        self.run(&[&scheme, &size, &format!("--screenshot={}", file.display())], page);
        Picture::read(&file)
    }

    fn pages_in_print(&self, page: &Path) -> usize {
        let file = page.with_extension("pdf");
        let to = format!("--print-to-pdf={}", file.display());
        self.run(&["--no-pdf-header-footer", &to], page);
        let pdf = fs::read(file).unwrap();
        let pages = pdf.windows(11).filter(|word| *word == b"/Type /Page");
        let trees = pdf.windows(12).filter(|word| *word == b"/Type /Pages");
        pages.count() - trees.count()
    }
}

/// A screenshot as red, green and blue bytes.
struct Picture {
    width: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn read(file: &Path) -> Self {
        let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(file).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        let step = info.color_type.samples();
        assert!(step >= 3, "{:?}", info.color_type);
        let pixels = bytes.chunks_exact(step).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
        Self { width: info.width as usize, pixels: pixels.collect() }
    }

    /// Returns the brightness of the page's ground, top left: 0 to 255.
    fn ground(&self) -> u8 {
        self.pixels[0].into_iter().max().unwrap()
    }

    fn colors(&self) -> usize {
        self.pixels.iter().collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Tells whether the last column shows anything but ground: something then stands out of the page.
    fn touches_right_edge(&self) -> bool {
        let last = self.pixels.iter().skip(self.width - 1).step_by(self.width);
        last.into_iter().any(|pixel| *pixel != self.pixels[0])
    }
}

#[test]
#[ignore = "needs Chromium; scripts/test runs it"]
fn the_page_is_whole_in_a_browser_light_dark_small_and_on_paper() {
    let kept = std::env::var_os("BKP_TEST_KEEP_REPORTS").map(PathBuf::from);
    let dir = tempfile::tempdir().unwrap();
    let dir = kept.as_deref().unwrap_or(dir.path());
    let cases =
        [("passed", passed()), ("failed", failed()), ("broken", broken()), ("quick", quick()), ("hostile", hostile())];
    std::thread::scope(|scope| {
        for (name, drill) in cases {
            scope.spawn(move || look_at(name, drill, &dir.join(name)));
        }
    });
}

fn look_at(name: &str, drill: DrillOutcome, dir: &Path) {
    let browser = Browser::new();
    let page = report(drill).write(dir).unwrap().html;
    let dom = browser.dom(&page);
    assert!(dom.contains("Where the time went"), "{name}");
    assert!(dom.contains("</footer>"), "{name}");
    assert!(!dom.contains("<title>owned"), "{name}: a script ran");

    let light = browser.picture(&page, "light", 1200, false);
    let dark = browser.picture(&page, "dark", 1200, true);
    let phone = browser.picture(&page, "phone", 500, false);
    assert!(light.ground() > 200, "{name}: the light page is dark");
    assert!(dark.ground() < 60, "{name}: the dark page is light");
    for (form, picture) in [("light", &light), ("dark", &dark), ("phone", &phone)] {
        assert!(picture.colors() > 100, "{name} {form}: the page is blank");
        assert!(!picture.touches_right_edge(), "{name} {form}: something stands out of the page");
    }
    assert!((1..=5).contains(&browser.pages_in_print(&page)), "{name}");
}
