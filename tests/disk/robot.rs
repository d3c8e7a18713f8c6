//! A robot that keeps putting the old keystore back, in each phase: at once, or every few seconds. hookturn calls a person by
//! the name of the hold, sends nothing while it is contested, and goes on once the robot is gone.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hookturn::{
    daemon::{Request, Status},
    sandbox::consumer::Behaviour,
};

use crate::{
    long,
    rig::{Moment, Rig},
};

const QUICK: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_robot_that_puts_the_old_keystore_back_is_held_by_name_and_never_answered_with_a_patch() {
    let all = Moment::ALL.into_iter().flat_map(|moment| [(moment, QUICK), (moment, SLOW)]);
    // The others wait for the look that comes every half minute.
    let soon = [(Moment::Idle, QUICK), (Moment::Patch, QUICK), (Moment::Drain, QUICK), (Moment::Drain, SLOW)];
    let cells: Vec<_> = if long() { all.collect() } else { soon.to_vec() };
    let runs =
        cells.into_iter().map(|(moment, every)| async move { (moment, every, tokio::spawn(contested(moment, every)).await) });
    let ended: Vec<_> = futures_util::future::join_all(runs).await;
    for (moment, every, what) in &ended {
        println!("{moment:?}, every {every:?}: {}", what.as_ref().map_or("FAILED", |what| *what));
    }
    assert!(ended.iter().all(|(_, _, what)| what.is_ok()));
}

async fn contested(moment: Moment, every: Duration) -> &'static str {
    let mut rig = Rig::new().await;
    rig.settle_in().await;
    let old = std::fs::read(&rig.sandbox.keystore).expect("the keystore");
    if moment != Moment::Idle {
        rig.reach(moment).await;
    }
    let robot = Robot::begin(rig.sandbox.keystore.clone(), old, every);
    rig.behave(Behaviour::Good);
    rig.traffic(true);
    if moment == Moment::Idle {
        rig.rotate().await;
    }
    let status = rig.until("a hold, or the end", |_, status| status.hold.is_some() || over(status)).await;
    let what = if status.hold.is_some() {
        stays_held(&mut rig, &status).await;
        // Nothing has changed: to go on now leads back to the hold, or between two visits to the end.
        rig.ask(Request::Resume).await.expect("resumed");
        let again = rig.until("a hold again, or the end", |_, status| status.hold.is_some() || over(status)).await;
        assert!(again.hold.is_some() || robot.rested(), "{moment:?}: it came to its end under a robot that never rests");
        "held"
    } else {
        assert!(robot.rested(), "{moment:?}: it came to its end under a robot that never rests");
        "over between two visits"
    };
    if rig.status().await.is_some_and(|status| over(&status)) {
        // The robot comes once more, to a webhook that is at rest: that is said, and written over for as long as it goes on.
        rig.until("a word about the keystore", |_, status| status.diagnosis.as_deref() == Some("keystore-contested")).await;
        drop(robot);
        rig.kill().await;
        rig.begin();
    } else {
        drop(robot);
        rig.ask(Request::Resume).await.expect("resumed");
    }
    rig.ends_well().await;
    what
}

/// For longer than anything in a rotation takes here.
async fn stays_held(rig: &mut Rig, status: &Status) {
    assert_eq!(status.hold.as_deref(), Some("keystore-contested"), "{status:#?}");
    let patches = rig.sandbox.handle().patch_count();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let now = rig.until("a status", |_, _| true).await;
        assert_eq!(now.hold.as_deref(), Some("keystore-contested"), "nobody has resumed it");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(rig.sandbox.handle().patch_count(), patches, "a PATCH went out while the keystore was contested");
}

fn over(status: &Status) -> bool {
    status.phase == "idle" && status.rotation > 0 && status.completed == status.rotation
}

/// Puts `content` back whenever it finds something else, from a thread of its own.
struct Robot {
    gone: Arc<AtomicBool>,
    visits: Arc<Mutex<Visits>>,
}

/// A busy machine or disk may keep a robot from them.
struct Visits {
    last: Instant,
    longest_rest: Duration,
}

/// What a write, its read-back and a replica's look at it take at the least.
const TOO_LONG_A_REST: Duration = Duration::from_millis(50);

impl Robot {
    fn begin(path: PathBuf, content: Vec<u8>, every: Duration) -> Robot {
        let visits = Visits { last: Instant::now(), longest_rest: Duration::ZERO };
        let robot = Robot { gone: Arc::default(), visits: Arc::new(Mutex::new(visits)) };
        let (gone, visits) = (robot.gone.clone(), robot.visits.clone());
        std::thread::spawn(move || {
            let beside = path.with_extension("robot");
            while !gone.load(Ordering::Relaxed) {
                if std::fs::read(&path).is_ok_and(|found| found != content) {
                    // What fails now is tried again in a moment.
                    let _ = std::fs::write(&beside, &content).and_then(|()| std::fs::rename(&beside, &path));
                }
                visits.lock().expect("visits").ends();
                std::thread::sleep(every);
            }
        });
        robot
    }

    /// Whether it has left the keystore alone for long enough that a rotation could go on.
    fn rested(&self) -> bool {
        let visits = self.visits.lock().expect("visits");
        visits.longest_rest.max(visits.last.elapsed()) > TOO_LONG_A_REST
    }
}

impl Visits {
    fn ends(&mut self) {
        self.longest_rest = self.longest_rest.max(self.last.elapsed());
        self.last = Instant::now();
    }
}

impl Drop for Robot {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}
