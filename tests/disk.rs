//! Everything that a disk can do to a rotation, in each phase of one: the real daemon on a real store is killed, the disk is
//! damaged, and the next daemon goes on correctly or stops in a named hold or exit. Then the way out that it names is
//! followed, and the sandbox's log is asked whether a genuine delivery was turned away. Never a silent resume.
//!
//! `HOOKTURN_DISK=long` does every damage in every phase; otherwise each is done in two of them, all phases in turn.

#[path = "disk/damage.rs"]
mod damage;
#[path = "disk/hands.rs"]
mod hands;
#[path = "disk/live.rs"]
mod live;
#[path = "disk/pages.rs"]
mod pages;
#[path = "disk/power.rs"]
mod power;
mod rig;
#[path = "disk/robot.rs"]
mod robot;

use std::time::{Duration, Instant};

use damage::{Backup, Damage, Expected};
use hookturn::{daemon::Request, sandbox::consumer::Behaviour};
use rig::{Moment, Rig};

/// How a daemon ends up on a damaged disk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    GoesOn,
    Hold {
        name: String,
        way_out: String,
    },
    Exit {
        code: i32,
        said: String,
    },
    Adopt,
    Keystore,
    /// The consumer cannot verify what DialNexa signs, and hookturn neither mends it nor says so.
    Silent,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn every_damage_in_every_phase_goes_on_or_stops_with_a_way_out_and_loses_nothing() {
    let library = tempfile::tempdir().expect("a directory");
    let preload = rig::preload("tests/store/failing_sync.c", library.path());
    let mut cells = Vec::new();
    let only = std::env::var("HOOKTURN_DISK_ONLY").unwrap_or_default();
    for (row, damage) in Damage::ALL.into_iter().enumerate() {
        if !format!("{damage:?}").contains(&only) {
            continue;
        }
        if let Some(missing) = damage.needs(preload.is_some()) {
            println!("skipped: {damage:?} needs {missing}");
            continue;
        }
        let chosen = |column: &usize| long() || (row + column) % 5 < 2;
        cells.extend((0..5).filter(chosen).map(|column| (damage, Moment::ALL[column])));
    }
    let outcomes = all(cells, |(damage, moment)| cell(damage, moment, preload.clone())).await;
    print(&Damage::ALL.map(|damage| format!("{damage:?}")), &outcomes, |(damage, moment)| (format!("{damage:?}"), *moment));
}

fn long() -> bool {
    std::env::var("HOOKTURN_DISK").is_ok_and(|mode| mode == "long")
}

async fn cell(damage: Damage, moment: Moment, preload: Option<std::path::PathBuf>) -> String {
    let mut rig = Rig::new().await;
    if let (Damage::PowerCut | Damage::PowerCutAfterFailedSyncs, Some(library)) = (damage, preload) {
        power::begin(&rig);
        let fails = rig.dir.path().join("sync-fails");
        rig.environment = vec![("LD_PRELOAD", library), ("SYNC_SHADOW", power::shadow(&rig)), ("SYNC_FAILS", fails)];
    }
    rig.settle_in().await;
    rig.end().await;
    let backup = Backup::take(&rig);
    rig.begin();
    rig.until("a daemon", |_, status| status.confirmed).await;
    rig.reach(moment).await;
    if damage == Damage::PowerCutAfterFailedSyncs {
        let fails = rig.dir.path().join("sync-fails");
        std::fs::write(&fails, "").expect("write");
        rig.behave(Behaviour::Good);
        rig.traffic(true);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        rig.kill().await;
        std::fs::remove_file(&fails).expect("remove");
    }
    rig.kill().await;
    rig.traffic(false);
    assert!(rig.sandbox.handle().settled(Duration::from_secs(60)).await);
    damage.happen(&rig, &backup, moment);
    rig.begin();
    let outcome = recover(&mut rig, moment).await;
    judge(&rig, damage, moment, &outcome);
    follow(&mut rig, &outcome, &backup, moment).await;
    rig.ends_well().await;
    match outcome {
        Outcome::GoesOn => "goes on".to_owned(),
        Outcome::Hold { name, .. } => format!("hold {name}"),
        Outcome::Exit { code, .. } => format!("exit {code}"),
        Outcome::Adopt => "adopt".to_owned(),
        Outcome::Keystore => "keystore-unreachable".to_owned(),
        Outcome::Silent => "SILENT".to_owned(),
    }
}

/// Watches a daemon until it is clear how it ends up. Deliveries come as soon as the consumer can verify them: what a damaged
/// keystore costs before hookturn runs again is not hookturn's doing.
async fn recover(rig: &mut Rig, moment: Moment) -> Outcome {
    let began = Instant::now();
    let (mut flowing, mut asked, mut trouble, mut up) = (false, moment != Moment::Idle, 0, None);
    loop {
        if let Some(code) = rig.exited() {
            return Outcome::Exit { code, said: rig.log() };
        }
        if !flowing && rig.consumer_can_verify() {
            flowing = true;
            rig.behave(Behaviour::Good);
            rig.traffic(true);
        }
        if let Some(status) = rig.status().await {
            let up = *up.get_or_insert_with(Instant::now);
            if let Some(name) = status.hold {
                let way_out = status.ways_out.first().cloned().unwrap_or_default();
                return Outcome::Hold { name, way_out };
            }
            if !status.adopted {
                return Outcome::Adopt;
            }
            trouble = if status.diagnosis.as_deref() == Some("keystore-unreachable") { trouble + 1 } else { 0 };
            if trouble > 5 {
                return Outcome::Keystore;
            }
            if !flowing && up.elapsed() > Duration::from_secs(20) {
                return Outcome::Silent;
            }
            if status.phase == "idle" && status.completed == status.rotation && flowing {
                if asked {
                    return Outcome::GoesOn;
                }
                rig.rotate().await;
                asked = true;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(120), "neither: {:#?}\n{}", rig.status().await, rig.log());
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

fn judge(rig: &Rig, damage: Damage, moment: Moment, outcome: &Outcome) {
    let restored = matches!(outcome, Outcome::Hold { name, way_out } if name == "restored" && !way_out.is_empty());
    let so = match damage.expected() {
        Expected::GoesOn => *outcome == Outcome::GoesOn,
        Expected::Restored => restored,
        Expected::GoesOnOrRestored => restored || *outcome == Outcome::GoesOn,
        Expected::Damaged => {
            matches!(outcome, Outcome::Exit { code: 1, said } if said.contains("put the newest backup in its place"))
        }
        Expected::Unreachable => {
            matches!(outcome, Outcome::Exit { code: 69, said } if said.contains("mount it read-write again"))
        }
        Expected::Adopt => *outcome == Outcome::Adopt,
        Expected::Keystore => *outcome == Outcome::Keystore,
    };
    let log = rig.log();
    assert!(so, "{damage:?} in {moment:?}: {:?} was expected, not {outcome:?}\n{log}", damage.expected());
}

/// Does what the message says.
async fn follow(rig: &mut Rig, outcome: &Outcome, backup: &Backup, moment: Moment) {
    match outcome {
        Outcome::GoesOn | Outcome::Silent => {}
        Outcome::Hold { way_out, .. } => leave_hold(rig, way_out).await,
        Outcome::Exit { code: 1, .. } => {
            backup.put_back_database(rig);
            rig.begin();
            let then = recover(rig, moment).await;
            let Outcome::Hold { name, way_out } = then else { panic!("an older store came up as {then:?}") };
            assert_eq!(name, "restored");
            leave_hold(rig, &way_out).await;
        }
        Outcome::Exit { .. } => {
            damage::mend(rig);
            rig.begin();
            assert_eq!(recover(rig, moment).await, Outcome::GoesOn);
        }
        Outcome::Adopt => {
            let (done, said) = rig.command(&["adopt", "billing", "--from-keystore"]).await;
            assert!(done, "{said}");
            deliveries_come(rig).await;
            // Of two keys in the keystore the adopted one may be the one that DialNexa no longer has.
            let beside = |status: &hookturn::daemon::Status| {
                status.findings.iter().any(|finding| finding.text.contains("verified under another one that the keystore holds"))
            };
            let settled =
                |_: &Rig, status: &hookturn::daemon::Status| status.hold.is_some() || status.confirmed || beside(status);
            let status = rig.until("held, confirmed, or another key is seen", settled).await;
            match status.confirmed && status.hold.is_none() {
                true => insist(rig, &["rotate-now", "billing"]).await,
                false => insist(rig, &["rotate-now", "billing", "--unconfirmed"]).await,
            }
        }
        Outcome::Keystore => {
            std::fs::remove_file(&rig.sandbox.keystore).expect("remove");
            deliveries_come(rig).await;
        }
    }
}

async fn leave_hold(rig: &mut Rig, way_out: &str) {
    deliveries_come(rig).await;
    let words: Vec<&str> = way_out.split('#').next().unwrap_or_default().split_whitespace().skip(1).collect();
    insist(rig, &words).await;
}

/// A command, once more for as long as it says so.
async fn insist(rig: &Rig, words: &[&str]) {
    let began = Instant::now();
    loop {
        let (done, said) = rig.command(words).await;
        if done {
            return;
        }
        let wait = said.contains("try again in a moment") && began.elapsed() < Duration::from_secs(60);
        assert!(wait, "{words:?}: {said}\n{}", rig.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn deliveries_come(rig: &mut Rig) {
    rig.until("a keystore that holds what DialNexa signs with", |rig, _| rig.consumer_can_verify()).await;
    rig.behave(Behaviour::Good);
    rig.traffic(true);
}

/// Runs every cell, several at a time. One that fails does not stop the others.
async fn all<C: Clone, F: Future<Output = String> + Send + 'static>(
    cells: Vec<C>,
    run: impl Fn(C) -> F,
) -> Vec<(C, Result<String, String>)> {
    let runs = cells.into_iter().map(|cell| {
        let run = run(cell.clone());
        async move {
            let _turn = AT_ONCE.acquire().await.expect("never closed");
            (cell, tokio::spawn(run).await.map_err(|panic| why(panic.into_panic())))
        }
    });
    futures_util::future::join_all(runs).await
}

/// Over all tests of this process: each cell is a sandbox of its own, and open files are few.
static AT_ONCE: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(8);

fn why(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// The table, and an end where a cell has failed.
fn print<C>(rows: &[String], cells: &[(C, Result<String, String>)], place: impl Fn(&C) -> (String, Moment))
where
    C: Copy,
{
    let width = rows.iter().map(String::len).max().unwrap_or(0);
    println!("{:width$}  {}", "", Moment::ALL.map(|moment| format!("{moment:?}")).map(|name| format!("{name:<23}")).join(""));
    for row in rows {
        let found = |moment| cells.iter().find(|(cell, _)| place(cell) == (row.clone(), moment));
        let texts = Moment::ALL.map(|moment| match found(moment) {
            None => "-".to_owned(),
            Some((_, Ok(text))) => text.clone(),
            Some((_, Err(_))) => "FAILED".to_owned(),
        });
        println!("{row:width$}  {}", texts.map(|text| format!("{text:<23}")).join("").trim_end());
    }
    let failed = cells.iter().filter_map(|(cell, outcome)| Some((place(cell), outcome.as_ref().err()?)));
    let failed: Vec<_> = failed.map(|((row, moment), why)| format!("{row} in {moment:?}: {why}")).collect();
    assert!(failed.is_empty(), "{} of {} cells failed:\n{}", failed.len(), cells.len(), failed.join("\n\n"));
}

/// A request whose answer is not waited for: on a disk that fails it comes only once that is mended.
fn ask_in_the_background(rig: &Rig) {
    let socket = rig.dir.path().join("admin.sock");
    tokio::spawn(async move {
        let Ok(Some(office)) = hookturn::admin::remote::Remote::connect(&socket).await else { return };
        let request = Request::Rotate { compromised: false, unconfirmed: true };
        let _ = hookturn::daemon::Office::perform(&office, "billing", request, "test").await;
    });
}
