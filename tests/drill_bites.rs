//! That the crash drill bites: with a rule of the core broken in the program that it kills, it must say so, and by what came
//! of it, not by the rule. `cargo test --release --features mutants --test drill_bites`

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use hookturn::sandbox::drill::{Drill, DrillOptions, Verdict};

/// A rule, the cells that show what it is for, and a word of what is to be found.
const BROKEN: [(&str, &str, &str); 10] = [
    ("NoDrain", "before-reply/none", "was answered Some(401)"),
    ("NoAcceptanceProof", "play/laggard", "was answered Some(401)"),
    ("OneReplicaIsEnough", "play/laggard", "was answered Some(401)"),
    ("PatchBeforePush", "play/laggard", "was answered Some(401)"),
    ("CompleteOnReadBack", "play/laggard", "still accepts"),
    ("RetireOn200", "before-reply/lying-ok", "was answered Some(401)"),
    ("OkStopsReassertion", "before-reply/secret-ignored", "is not over after"),
    ("RestartForgets", "after-patch/none", "was answered Some(401)"),
    ("RollbackTrusts200", "play/turned-back", "was answered Some(401)"),
    ("TimeoutMeansNotApplied", "play/given-up", "an abort was taken"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_drill_names_what_comes_of_a_broken_rule() {
    let dir = tempfile::tempdir().expect("a directory");
    let drills: Vec<_> = BROKEN
        .iter()
        .map(|(mutant, cells, word)| {
            let program = broken(dir.path(), mutant);
            tokio::spawn(async move { (mutant, word, drilled(program, cells).await) })
        })
        .collect();
    let mut missed = Vec::new();
    for drill in drills {
        let (mutant, word, found) = drill.await.expect("a drill");
        println!("{mutant}: {}", found.as_deref().unwrap_or("nothing"));
        if !found.is_some_and(|found| found.contains(word)) {
            missed.push(mutant);
        }
    }
    assert!(missed.is_empty(), "not found, or not by what it does: {missed:?}");
}

/// The program with one rule broken.
fn broken(dir: &Path, mutant: &str) -> PathBuf {
    let program = dir.join(mutant);
    let script = format!("#!/bin/sh\nHOOKTURN_MUTANT={mutant} exec {} \"$@\"\n", env!("CARGO_BIN_EXE_hookturn"));
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    program
}

/// Why a cell failed, if one did, in as many tries as a slow machine may need.
async fn drilled(program: PathBuf, cells: &str) -> Option<String> {
    for seed in 1..=TRIES {
        let options = DrillOptions {
            program: program.clone(),
            long: false,
            cells: Some(cells.to_owned()),
            kills: 0,
            kill_every: None,
            seed,
            lanes: 1,
            patience: Duration::from_secs(15),
        };
        let report = Drill::new(options).expect("a cell").run(|_| {}).await.expect("a drill");
        for cell in report.cells {
            if let Verdict::Failed { why, directory } = cell.verdict {
                // Kept for a person to look at; here nobody will.
                let _ = fs::remove_dir_all(Path::new(&directory).parent().expect("the drill's directory"));
                return Some(format!("{}: {why}", cell.name));
            }
        }
    }
    None
}

/// What is late by chance need not be late at the first try.
const TRIES: u64 = 5;
