//! Plays with somebody else in them: a robot at the keystore, a person at DialNexa. Each must end as the documentation says,
//! under the name that it says, and without a lost delivery.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::{
    process::Child,
    time::{Instant, timeout},
};

use super::{
    fault::Trouble,
    judge::{Failure, Mark, settled},
    lane::{Lane, Mood, Plan, Ride, kill},
    worker::{self, End, Fate, Kind},
};
use crate::{
    boundary::{self, Boundary},
    daemon::{Request, Status},
    sandbox::provider::{Cut, Fault, Injection, LateAnswer},
    secret::Secret,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    /// `adopt` dies at every count of every commit boundary.
    Adopt,
    /// A robot puts the old keystore file back, whenever it has changed.
    Robot,
    /// A robot puts the old keys back under a number that is higher each time.
    CountingRobot,
    /// Somebody pastes a secret of their own into the dashboard, in the drain.
    ChangedByHand,
    Deleted,
    Inactive,
    /// The API key is refused until somebody mends it: 401, 403.
    KeyRevoked,
    KeyWeakened,
    /// The value is refused every time, until it is not.
    ValueRefused,
    /// A replica takes new keys late, and nothing else goes wrong.
    Laggard,
    /// A person turns back while a PATCH of the target may still be applied.
    TurnedBack,
    /// A person wants to give up when the answer to the PATCH was lost.
    GivenUp,
}

impl Scenario {
    pub(super) const ALL: [Scenario; 12] = [
        Scenario::Adopt,
        Scenario::Robot,
        Scenario::CountingRobot,
        Scenario::ChangedByHand,
        Scenario::Deleted,
        Scenario::Inactive,
        Scenario::KeyRevoked,
        Scenario::KeyWeakened,
        Scenario::ValueRefused,
        Scenario::Laggard,
        Scenario::TurnedBack,
        Scenario::GivenUp,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Scenario::Adopt => "adopt",
            Scenario::Robot => "robot",
            Scenario::CountingRobot => "counting-robot",
            Scenario::ChangedByHand => "changed-by-hand",
            Scenario::Deleted => "deleted",
            Scenario::Inactive => "inactive",
            Scenario::KeyRevoked => "key-revoked",
            Scenario::KeyWeakened => "key-weakened",
            Scenario::ValueRefused => "value-refused",
            Scenario::Laggard => "laggard",
            Scenario::TurnedBack => "turned-back",
            Scenario::GivenUp => "given-up",
        }
    }

    pub(super) async fn perform(self, lane: &mut Lane, draw: &mut StdRng) -> Result<Ride, Failure> {
        match self {
            Scenario::Adopt => adopt(lane, draw).await,
            Scenario::Robot => robot(lane, false).await,
            Scenario::CountingRobot => robot(lane, true).await,
            Scenario::ChangedByHand => changed_by_hand(lane, draw).await,
            Scenario::Deleted => deleted(lane).await,
            Scenario::Inactive => inactive(lane).await,
            Scenario::KeyRevoked => refused(lane, Fault::Unauthorized, "api-key-refused").await,
            Scenario::KeyWeakened => refused(lane, Fault::Forbidden, "api-key-refused").await,
            Scenario::ValueRefused => refused(lane, Fault::ValueRefused, "target-refused").await,
            Scenario::Laggard => {
                let plan = Plan { kind: Kind::Daemon, fates: Vec::new(), trouble: Trouble::NONE, mood: Mood::Lagging };
                lane.rotate(plan, draw).await
            }
            Scenario::TurnedBack => turned_back(lane).await,
            Scenario::GivenUp => given_up(lane).await,
        }
    }
}

/// A rotation under a daemon that nobody kills.
struct Scene<'l> {
    lane: &'l Lane,
    mark: Mark,
    ride: Ride,
    daemon: Option<Child>,
}

impl<'l> Scene<'l> {
    async fn begin(lane: &'l Lane) -> Result<Scene<'l>, Failure> {
        let mark = Mark::set(lane).await?;
        lane.traffic(true);
        Ok(Scene { lane, mark, ride: Ride { rotations: 1, starts: 1, ..Ride::default() }, daemon: None })
    }

    /// Starts the daemon, asks for the rotation, and waits until it is held.
    async fn until_held(&mut self, hold: &str) -> Result<(), Failure> {
        match self.run().await? {
            End::Held(held) if held == hold => {
                self.ride.holds += 1;
                Ok(())
            }
            other => Err(Failure::new(format!("the hold {hold} was expected, there was {other:?}"))),
        }
    }

    async fn run(&mut self) -> Result<End, Failure> {
        let number = self.mark.next_rotation();
        let mut nothing = None;
        let life = worker::live(self.lane, Kind::Daemon, Fate::Live, number, &mut nothing);
        let (end, daemon) = timeout(self.lane.patience, life).await.map_err(|_| Failure::new("neither held nor completed"))?;
        self.daemon = daemon;
        Ok(end)
    }

    /// Starts the daemon in the background of what happens meanwhile.
    async fn run_while<F>(&mut self, meanwhile: F) -> Result<End, Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let (end, ()) = tokio::try_join!(self.run(), meanwhile)?;
        Ok(end)
    }

    /// Leaves the hold; the rotation must come to its end by itself, and everything be well.
    async fn resume_and_finish(mut self) -> Result<Ride, Failure> {
        self.lane.resume().await?;
        let number = self.mark.next_rotation();
        until(self.lane, "the end of the rotation", |status| status.completed >= number).await?;
        kill(self.daemon.take()).await;
        self.judge(Trouble::NONE).await
    }

    async fn judge(mut self, trouble: Trouble) -> Result<Ride, Failure> {
        kill(self.daemon.take()).await;
        let plan = Plan { kind: Kind::Daemon, fates: Vec::new(), trouble, mood: Mood::Good };
        let judged = match self.mark.every_replica_has_confirmed(self.lane) {
            Ok(()) => self.mark.judge(self.lane, &plan, &mut self.ride).await,
            Err(failure) => Err(failure),
        };
        judged.map(|()| self.ride).map_err(|failure| failure.of(self.ride))
    }
}

/// Waits until the daemon's status is so.
async fn until(lane: &Lane, what: &str, so: impl Fn(&Status) -> bool) -> Result<Status, Failure> {
    let deadline = Instant::now() + lane.patience;
    let mut last = None;
    while Instant::now() < deadline {
        if let Some(status) = lane.status().await {
            if so(&status) {
                return Ok(status);
            }
            last = Some((status.phase, status.hold, status.detail));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Failure::new(format!("never: {what}; {last:?}")))
}

async fn adopt(lane: &Lane, draw: &mut StdRng) -> Result<Ride, Failure> {
    let mut ride = Ride::default();
    for boundary in [Boundary::BeforeCommit, Boundary::InCommit, Boundary::AfterCommit, Boundary::BeforeReply] {
        let mut lane = lane.beside(boundary.name()).await?;
        let file = lane.sandbox.secret_file().display().to_string();
        for count in 1.. {
            let mut command = lane.command(&["adopt", lane.name(), "--secret-file", &file]);
            command.env(boundary::DIE_AT, format!("{boundary}:{count}"));
            let mut child = worker::spawn(&lane, &mut command).map_err(|error| Failure::new(error.to_string()))?;
            let exit = child.wait().await.map_err(|error| Failure::new(error.to_string()))?;
            ride.starts += 1;
            match exit.code() {
                Some(0) => break,
                Some(code) => return Err(Failure::new(format!("adopt, after a death at {boundary}, ends with {code}"))),
                None => ride.aborts += 1,
            }
        }
        let plan = Plan { kind: Kind::OneShot, fates: Vec::new(), trouble: Trouble::NONE, mood: Mood::Good };
        ride.add(lane.rotate(plan, draw).await?);
        lane.shut().await;
    }
    Ok(ride)
}

/// The old keystore comes back within milliseconds. hookturn must call a person by name, and go on once the robot is gone.
async fn robot(lane: &Lane, counting: bool) -> Result<Ride, Failure> {
    let mut scene = Scene::begin(lane).await?;
    let robot = Robot::start(&lane.sandbox.keystore, counting)?;
    scene.until_held("keystore-contested").await?;
    drop(robot);
    scene.resume_and_finish().await
}

struct Robot {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Robot {
    /// Sooner than a write can be read back.
    const LOOKS_EVERY: Duration = Duration::from_micros(100);

    fn start(keystore: &Path, counting: bool) -> Result<Robot, Failure> {
        let path = keystore.to_owned();
        let old = fs::read(&path).map_err(|error| Failure::new(error.to_string()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut wanted = old.clone();
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Robot::LOOKS_EVERY);
                let Ok(found) = fs::read(&path) else { continue };
                if found == wanted {
                    continue;
                }
                if counting {
                    wanted = numbered_after(&found, &old).unwrap_or(wanted);
                }
                // What fails now is tried again in a moment.
                let _ = put(&path, &wanted);
            }
        });
        Ok(Robot { stop, thread: Some(thread) })
    }
}

impl Drop for Robot {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It looks every moment, so it ends in a moment.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The old content, under the number after that of the present one.
fn numbered_after(found: &[u8], old: &[u8]) -> Option<Vec<u8>> {
    let found: Value = serde_json::from_slice(found).ok()?;
    let mut content: Value = serde_json::from_slice(old).ok()?;
    content["generation"] = json!(found["generation"].as_u64()? + 1);
    serde_json::to_vec(&content).ok()
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside: PathBuf = path.with_extension("robot");
    fs::write(&beside, content)?;
    fs::rename(&beside, path)
}

/// Nothing can save what is signed with a secret that nobody told hookturn. Everything else must be accepted, and the next
/// rotation must end it.
async fn changed_by_hand(lane: &mut Lane, draw: &mut StdRng) -> Result<Ride, Failure> {
    let mut ride = {
        let mut scene = Scene::begin(lane).await?;
        let pasted = async {
            until(lane, "the drain", |status| status.phase == "drain").await?;
            let secret = Secret::generate().map_err(|error| Failure::new(error.to_string()))?;
            lane.provider().change_by_hand(&lane.sandbox.webhook_id, secret);
            Ok(())
        };
        match scene.run_while(pasted).await? {
            End::Completed => {}
            other => return Err(Failure::new(format!("the rotation did not end: {other:?}"))),
        }
        kill(scene.daemon.take()).await;
        lane.traffic(false);
        settled(lane).await?;
        scene.mark.only_strangers_were_refused(lane, &mut scene.ride).await?;
        scene.ride
    };
    let plan = Plan { kind: Kind::Daemon, fates: Vec::new(), trouble: Trouble::NONE, mood: Mood::Good };
    ride.add(lane.rotate(plan, draw).await?);
    Ok(ride)
}

/// The webhook is deleted while the PATCH is tried, and comes back.
async fn deleted(lane: &Lane) -> Result<Ride, Failure> {
    let mut scene = Scene::begin(lane).await?;
    let id = lane.sandbox.webhook_id.as_str();
    lane.provider().inject(Injection::sticky(Fault::DropBeforeApply { cut: Cut::Reset }));
    let deleted = async {
        until(lane, "the first PATCH", |status| status.phase == "patch").await?;
        lane.provider().delete(id);
        Ok(())
    };
    match scene.run_while(deleted).await? {
        End::Held(hold) if hold == "webhook-gone" => scene.ride.holds += 1,
        other => return Err(Failure::new(format!("the hold webhook-gone was expected, there was {other:?}"))),
    }
    lane.provider().clear_faults();
    lane.provider().restore(id);
    scene.resume_and_finish().await
}

/// An inactive webhook sends nothing, so nothing is proven: hookturn waits, with both secrets accepted, and goes on by itself.
async fn inactive(lane: &Lane) -> Result<Ride, Failure> {
    let mut scene = Scene::begin(lane).await?;
    let id = lane.sandbox.webhook_id.as_str();
    lane.traffic(false);
    let number = scene.mark.next_rotation();
    let asleep = async {
        until(lane, "the answer to the PATCH", |status| status.phase == "patch" && status.patched).await?;
        lane.provider().set_active(id, false);
        lane.traffic(true);
        tokio::time::sleep(super::lane::DRAIN * 2).await;
        let status = until(lane, "a status", |_| true).await?;
        if status.phase != "patch" || status.accepted.len() != 2 {
            return Err(Failure::new(format!("without traffic it is in {}, accepting {:?}", status.phase, status.accepted)));
        }
        lane.provider().set_active(id, true);
        Ok(())
    };
    match scene.run_while(asleep).await? {
        End::Completed => {}
        other => return Err(Failure::new(format!("rotation {number} did not end: {other:?}"))),
    }
    scene.judge(Trouble::NONE).await
}

/// Every PATCH is refused until a person has mended the cause.
async fn refused(lane: &Lane, fault: Fault, hold: &str) -> Result<Ride, Failure> {
    let mut scene = Scene::begin(lane).await?;
    lane.provider().inject(Injection::sticky(fault));
    scene.until_held(hold).await?;
    lane.provider().clear_faults();
    scene.resume_and_finish().await
}

/// The PATCH lands after the previous secret was sent again. Both must be accepted until nothing more can land, and the previous
/// one is what remains.
async fn turned_back(lane: &Lane) -> Result<Ride, Failure> {
    let mut scene = Scene::begin(lane).await?;
    let before = lane.record().await?.current;
    lane.provider().inject(Injection::once(Fault::ApplyLate { ms: LANDS_AFTER, answer: LateAnswer::GatewayTimeout }));
    let back = async {
        until(lane, "the first PATCH", |status| status.phase == "patch").await?;
        lane.ask(Request::Rollback).await.unwrap_or(Err("there is no daemon".to_owned())).map_err(Failure::new)
    };
    match scene.run_while(back).await? {
        End::Completed => {}
        other => return Err(Failure::new(format!("the rollback did not end: {other:?}"))),
    }
    kill(scene.daemon.take()).await;
    let judged = scene.mark.judge_turned_back(lane, before, &mut scene.ride).await;
    judged.map(|()| scene.ride).map_err(|failure| failure.of(scene.ride))
}

/// Within the quarantine, and after a person can have turned back.
const LANDS_AFTER: u64 = 800;

/// What may have been sent can not be given up. Every `abort` must be refused until the rotation is over.
async fn given_up(lane: &Lane) -> Result<Ride, Failure> {
    let mut scene = Scene::begin(lane).await?;
    let number = scene.mark.next_rotation();
    lane.provider().inject(Injection::once(Fault::ApplyThenDrop { cut: Cut::Reset }));
    let impatient = async {
        let patches = lane.provider().patch_count();
        let deadline = Instant::now() + lane.patience;
        while lane.provider().patch_count() == patches && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while lane.status().await.is_some_and(|status| status.completed < number) {
            if let Some(Ok(())) = lane.ask(Request::Abort).await {
                return Err(Failure::new("an abort was taken although the PATCH had been sent"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    match scene.run_while(impatient).await? {
        End::Completed => scene.judge(Trouble::NONE).await,
        other => Err(Failure::new(format!("the rotation did not end: {other:?}"))),
    }
}
