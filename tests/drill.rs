//! The crash drill in small: that it drills, that it bites, and that nothing the program does is outside of it. The whole of
//! it is a command (`hookturn drill`), which tests/run runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use hookturn::{
    boundary::{Boundary, DIE_AT},
    sandbox::drill::{Drill, DrillOptions, Report, Verdict},
};

fn drill(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
    command.arg("drill").args(arguments).output().expect("the program runs")
}

#[test]
fn a_cell_of_the_table_survives_and_is_reported_for_a_program_to_read() {
    let done = drill(&["--cells", "after-patch/apply-then-drop", "--kills", "0", "--seed", "3", "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).expect("json");
    assert_eq!(report["cells"][0]["name"], "after-patch/apply-then-drop");
    assert_eq!(report["cells"][0]["verdict"], "survived");
    assert_eq!((&report["figures"]["aborts"], &report["seed"]), (&1.into(), &3.into()));
}

#[test]
fn random_kills_are_survived_by_the_daemon_and_by_the_one_shot_command() {
    let done = drill(&["--cells", "kills", "--kills", "6", "--seed", "11", "--lanes", "2"]);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("kills/") && said.contains("seed 11"), "{said}");
}

#[test]
fn a_filter_that_leaves_nothing_is_a_wrong_usage() {
    let done = drill(&["--cells", "before-lunch"]);
    assert_eq!(done.status.code(), Some(64), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_boundary_that_does_not_exist_is_not_taken_for_one_that_was_never_reached() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("hookturn.toml");
    fs::write(&config, config_text()).expect("a configuration");
    for name in ["api-key", "sealing-key"] {
        fs::write(dir.path().join(name), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").expect("a key");
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o600)).expect("chmod");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
    let done = command.arg("-c").arg(&config).args(["adopt", "billing", "--unknown"]).env(DIE_AT, "before-lunch:1").output();
    let done = done.expect("the program runs");
    assert_eq!(done.status.code(), Some(64), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stderr).contains("after-patch"), "the known ones are named");
}

fn config_text() -> &'static str {
    "[dialnexa]\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key = { file = \"api-key\" }\n\
     [store]\nurl = \"sqlite:hookturn.db\"\nsealing_key = { file = \"sealing-key\" }\n\
     [listen]\nadmin = \"unix:admin.sock\"\ndeliveries = \"127.0.0.1:0\"\nstatus = \"off\"\n\
     [[webhook]]\nname = \"billing\"\nid = \"whk_1\"\nkeystore = { kind = \"file\", path = \"secrets.json\" }\n\
     preflight = { probe = [\"http://127.0.0.1:9/hook\"] }\n"
}

/// The program behind a script, which does to it what a bug would.
async fn drilled_with(script: &str, cell: &str) -> (Report, Vec<String>) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("hookturn");
    fs::write(&program, format!("#!/bin/sh\n{script}\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_hookturn"))).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let options = DrillOptions {
        program,
        long: false,
        cells: Some(cell.to_owned()),
        kills: 0,
        kill_every: None,
        seed: 5,
        lanes: 1,
        patience: Duration::from_secs(15),
    };
    let report = Drill::new(options).expect("a cell").run(|_| {}).await.expect("a drill");
    let why = report.cells.iter().filter_map(|cell| match &cell.verdict {
        Verdict::Failed { why, directory } => {
            // Kept for a person to look at; here nobody will.
            let _ = fs::remove_dir_all(Path::new(directory).parent().expect("the drill's directory"));
            Some(why.clone())
        }
        Verdict::Survived | Verdict::NotReached => None,
    });
    let why = why.collect();
    (report, why)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_never_comes_to_a_boundary_has_shown_nothing() {
    let (report, _) = drilled_with("unset HOOKTURN_DIE_AT", "after-connect/none").await;
    assert_eq!((report.failed(), &report.cells[0].verdict), (1, &Verdict::NotReached));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_forgets_its_store_in_a_crash_is_found_out() {
    let forget = "case \"$*\" in *adopt*) ;; *) [ -e \"$(dirname \"$2\")/dead\" ] && rm -f \"$(dirname \"$2\")\"/hookturn.db*; touch \"$(dirname \"$2\")/dead\" ;; esac";
    let (report, why) = drilled_with(forget, "after-patch/none").await;
    assert_eq!((report.failed(), why.len()), (1, 1), "{:?}", report.cells);
}

/// What is done outward or for good is done in two files, between boundaries.
#[test]
fn nothing_is_written_or_sent_outside_of_the_boundaries() {
    const OUTWARD: [&str; 6] =
        ["push::write(", "patch::send(", "patch::connect(", ".patch_secret(", "store.commit(", "anchor.advance("];
    const PLACES: [&str; 2] = ["hands.rs", "writer.rs"];
    let mut found = Vec::new();
    for path in sources(&root().join("daemon")) {
        let text = fs::read_to_string(&path).expect("a source file");
        let inside = PLACES.iter().any(|place| path.ends_with(place));
        for call in OUTWARD {
            // A new anchor of a new store is made at the start: nothing was done yet that it could know of.
            let times =
                text.matches(call).count() - text.matches("anchor.advance(&[])").count() * usize::from(call == OUTWARD[5]);
            if times > 0 && !inside {
                found.push(format!("{}: {call}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The drill finds out whether a boundary is reached; this finds out sooner.
#[test]
fn every_boundary_stands_somewhere_in_the_program() {
    let code: String = ["daemon", "store", "keystore"]
        .iter()
        .flat_map(|module| sources(&root().join(module)))
        .map(|path| fs::read_to_string(path).expect("a source file"))
        .collect();
    let missing: Vec<_> = Boundary::ALL.iter().filter(|boundary| !code.contains(&format!("Boundary::{boundary:?}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory of src") {
        let path = entry.expect("an entry of src").path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false => found.push(path),
        }
    }
    found
}
