//! A sandbox, a store and a configuration that live on from cell to cell, and the one rotation of a cell.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rand::{RngExt, rngs::StdRng};
use tokio::{
    process::{Child, Command},
    time::Instant,
};

use super::{
    DrillError,
    fault::Trouble,
    judge::{Failure, Mark},
    worker::{self, End, Fate, Kind},
};
use crate::{
    admin::remote::Remote,
    daemon::{Office, Request, Status},
    rotation::{Phase, Record},
    sandbox::{
        Sandbox, SandboxOptions,
        consumer::{Behaviour, Replica},
        provider::{Provider, Settings},
    },
    store::{Sqlite, Store},
};

/// How long a PATCH may be applied, and a delivery arrive, after it was sent: more than any drawn fault and any retry takes,
/// so that what is lost was not lost to the look-alike breaking its own promises.
pub(super) const QUARANTINE: Duration = Duration::from_millis(1_000);
pub(super) const DRAIN: Duration = Duration::from_millis(1_000);
/// How long a lagging replica takes for new keys, at the least; at the most it is twice as long.
const LAG: u64 = 400;
/// How often a replica reads the keystore file.
const REFRESH: Duration = Duration::from_millis(15);
const NAME: &str = "billing";

/// A lane with nothing under way.
pub(super) struct Lane {
    dir: PathBuf,
    program: PathBuf,
    config: PathBuf,
    pub(super) sandbox: Sandbox,
    /// Nothing here takes more than a few seconds; a machine under load may.
    pub(super) patience: Duration,
}

/// The rotation of one cell.
pub(super) struct Plan {
    pub(super) kind: Kind,
    /// One for each life; what is left over when the rotation is done was not needed.
    pub(super) fates: Vec<Fate>,
    pub(super) trouble: Trouble,
    pub(super) mood: Mood,
}

/// What is wrong with one replica of the consumer, chosen at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    /// It answers 503 for a moment, so that deliveries signed before come again after the switch.
    Hiccup,
    /// It takes new keys much later than it was said to: only a proof can tell.
    Lagging,
}

impl Mood {
    pub(super) fn drawn(draw: &mut StdRng) -> Mood {
        match draw.random_range(0..8) {
            0 | 1 => Mood::Hiccup,
            2 => Mood::Lagging,
            _ => Mood::Good,
        }
    }
}

/// What a cell took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ride {
    pub(super) rotations: u32,
    /// Times that the program was started, and died other than by being told to stop.
    pub(super) starts: u32,
    pub(super) aborts: u32,
    pub(super) kills: u32,
    pub(super) holds: u32,
    pub(super) deliveries: u64,
    pub(super) tries: u64,
    pub(super) unanswered: u64,
    pub(super) late: u64,
    pub(super) patches: u64,
    /// The program died where it should.
    pub(super) reached: bool,
}

impl Lane {
    pub(super) async fn open(dir: PathBuf, program: PathBuf, patience: Duration) -> Result<Lane, DrillError> {
        let lane = Lane::without_adoption(dir, program, patience).await?;
        let file = lane.sandbox.secret_file().display().to_string();
        let adopted = lane.run(&["adopt", NAME, "--secret-file", &file]).await;
        match adopted {
            Ok(()) => Ok(lane),
            Err(failure) => {
                let reason = std::io::Error::other(format!("adopt: {}", failure.why));
                Err(DrillError::Directory(reason))
            }
        }
    }

    async fn without_adoption(dir: PathBuf, program: PathBuf, patience: Duration) -> Result<Lane, DrillError> {
        let settings = Settings {
            jitter_ms: 200,
            // With the retries it stays within the drain: a rotation that ends sooner than it promises is found out by it, and
            // one that trusts a replica which is not ready by the burst.
            straggler_ms: 750,
            burst: 4,
            retries: 2,
            backoff_ms: 60,
            timeout_ms: 60_000,
            ..Settings::default()
        };
        let options = SandboxOptions {
            name: NAME.to_owned(),
            settings,
            per_second: 5.0,
            refresh: REFRESH,
            status_every: None,
            quarantine: QUARANTINE,
            drain: DRAIN,
            wait: Duration::from_millis(50),
            patch_timeout: Duration::from_millis(900),
            repeat_min: Duration::from_millis(50),
            repeat_max: Duration::from_millis(1_500),
            ..SandboxOptions::new(dir.join("sandbox"))
        };
        let sandbox = Sandbox::start(options).await?;
        let config = sandbox.write_config(&dir)?;
        let lane = Lane { dir, program, config, sandbox, patience };
        lane.traffic(false);
        Ok(lane)
    }

    /// Another lane, within this one's directory, into which nothing was adopted.
    pub(super) async fn beside(&self, name: &str) -> Result<Lane, Failure> {
        let lane = Lane::without_adoption(self.dir.join(name), self.program.clone(), self.patience).await;
        lane.map_err(|error| Failure::new(error.to_string()))
    }

    pub(super) async fn shut(self) {
        self.sandbox.shutdown().await;
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the program says, of all its lives.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("hookturn.log")
    }

    pub(super) fn admin(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    pub(super) fn name(&self) -> &'static str {
        NAME
    }

    pub(super) fn provider(&self) -> &Provider {
        self.sandbox.handle()
    }

    pub(super) fn traffic(&self, on: bool) {
        self.provider().traffic_on(&self.sandbox.webhook_id, on);
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(&self.config).args(arguments);
        for variable in ["HOOKTURN_CONFIG", "RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", crate::boundary::DIE_AT] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a command to its end.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        let failed = |reason: String| Failure::new(format!("hookturn {}: {reason}", arguments.join(" ")));
        let mut child = worker::spawn(self, &mut self.command(arguments)).map_err(|error| failed(error.to_string()))?;
        match child.wait().await {
            Ok(exit) if exit.success() => Ok(()),
            Ok(exit) => Err(failed(exit.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The store, to look at. It may be in use.
    pub(super) async fn store(&self) -> Result<Sqlite, Failure> {
        let opened = Sqlite::look(&self.dir.join("hookturn.db")).await.map_err(|error| Failure::new(error.to_string()))?;
        opened.ok_or_else(|| Failure::new("there is no store"))
    }

    pub(super) async fn record(&self) -> Result<Record, Failure> {
        let store = self.store().await?;
        let stored = store.webhook(NAME).await.map_err(|error| Failure::new(error.to_string()))?;
        store.close().await;
        Ok(stored.ok_or_else(|| Failure::new("the store does not know the webhook"))?.record)
    }

    /// The name of the hold that the store says.
    pub(super) async fn held(&self) -> Option<String> {
        match self.record().await.ok()?.phase {
            Phase::Hold(hold, _) => Some(hold.name().to_owned()),
            _ => None,
        }
    }

    /// The status, of a daemon that runs.
    pub(super) async fn status(&self) -> Option<Status> {
        let remote = Remote::connect(&self.admin()).await.ok()??;
        remote.status().await.ok()?.into_iter().next()
    }

    /// Leaves a hold, through the daemon where there is one.
    pub(super) async fn resume(&self) -> Result<(), Failure> {
        match self.ask(Request::Resume).await {
            Some(resumed) => resumed.map_err(|refused| Failure::new(format!("resume: {refused}"))),
            None => self.run(&["resume", NAME]).await,
        }
    }

    /// Asks the daemon for something; the error is its refusal. `None`: there is no daemon.
    pub(super) async fn ask(&self, request: Request) -> Option<Result<(), String>> {
        let remote = Remote::connect(&self.admin()).await.ok()??;
        let done = remote.perform(NAME, request, "drill").await;
        Some(done.map(drop).map_err(|failure| failure.to_string()))
    }

    /// One rotation, with everything that the plan has for it; then it is judged.
    pub(super) async fn rotate(&mut self, plan: Plan, draw: &mut StdRng) -> Result<Ride, Failure> {
        let mark = Mark::set(self).await?;
        let mut ride = Ride { rotations: 1, ..Ride::default() };
        let replica = self.any_replica(draw);
        let hiccup = (plan.mood == Mood::Hiccup).then(|| hiccup(replica.clone(), draw));
        if plan.mood == Mood::Lagging {
            replica.lag(Duration::from_millis(draw.random_range(LAG..2 * LAG)));
        }
        self.traffic(true);
        let driven = self.drive(&plan, mark.next_rotation(), &mut ride, draw).await;
        if let Some(hiccup) = hiccup {
            // It ends by itself, and the replica must be itself again before anything is judged.
            let _ = hiccup.await;
        }
        self.provider().clear_faults();
        let completed = mark.every_replica_has_confirmed(self);
        replica.lag(Duration::ZERO);
        let judged = match driven {
            // A lost delivery says more than the replica that has lost it.
            Ok(()) => mark.judge(self, &plan, &mut ride).await.and(completed),
            Err(failure) => Err(failure),
        };
        self.traffic(false);
        judged.map(|()| ride).map_err(|failure| failure.of(ride))
    }

    async fn drive(&self, plan: &Plan, number: u64, ride: &mut Ride, draw: &mut StdRng) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        let injection = plan.trouble.injection(draw);
        let (now, mut later) = if plan.trouble.spoils_a_look() { (None, injection) } else { (injection, None) };
        if let Some(injection) = now {
            self.provider().inject(injection);
        }
        let mut fates = plan.fates.iter().copied();
        let mut fate = fates.next().unwrap_or(Fate::Live);
        loop {
            if self.over(number).await? {
                return Ok(());
            }
            ride.starts += 1;
            let life = worker::live(self, plan.kind, fate, number, &mut later);
            let Ok((end, mut child)) = tokio::time::timeout_at(deadline, life).await else {
                return Err(self.stuck(number).await);
            };
            let end = match end {
                End::Held(hold) => self.leave_hold(plan, hold, child.as_mut(), ride).await?,
                other => other,
            };
            match end {
                End::Completed | End::Held(_) => {}
                End::Died { aborted } => {
                    ride.reached |= aborted || fate == Fate::KillInPatch;
                    ride.aborts += u32::from(aborted);
                    ride.kills += u32::from(!aborted);
                    fate = fates.next().unwrap_or(Fate::Live);
                }
                End::NotNow => tokio::time::sleep(Duration::from_millis(50)).await,
                End::Broke(why) => return Err(Failure::new(why)),
            }
            // A daemon ends as everything here does.
            kill(child).await;
        }
    }

    /// Resumes, where the hold is one that the fault leads to. What follows from that may be what the process dies of.
    async fn leave_hold(&self, plan: &Plan, hold: String, child: Option<&mut Child>, ride: &mut Ride) -> Result<End, Failure> {
        if plan.trouble.hold() != Some(hold.as_str()) {
            return Err(Failure::new(format!("held: {hold}")));
        }
        ride.holds += 1;
        let Err(failure) = self.resume().await else { return Ok(End::Held(hold)) };
        let Some(child) = child else { return Err(failure) };
        match tokio::time::timeout(Duration::from_secs(5), child.wait()).await {
            Ok(Ok(exit)) if exit.code().is_none() => Ok(worker::death(exit)),
            _ => Err(failure),
        }
    }

    /// Whether rotation `number` was begun and is over, as the store has it.
    async fn over(&self, number: u64) -> Result<bool, Failure> {
        let record = self.record().await?;
        Ok(record.rotations >= number && record.phase == Phase::Idle)
    }

    async fn stuck(&self, number: u64) -> Failure {
        let status = match self.record().await {
            Ok(record) => format!("phase {}, rotation {}, open {:?}", record.phase.name(), record.rotations, record.open),
            Err(failure) => failure.why,
        };
        Failure::new(format!("rotation {number} is not over after {} s: {status}", self.patience.as_secs()))
    }

    fn any_replica(&self, draw: &mut StdRng) -> Replica {
        let mut replicas = self.sandbox.consumer.replicas();
        replicas.swap_remove(draw.random_range(0..replicas.len()))
    }
}

/// A replica answers 503 for a moment, some time from now.
fn hiccup(replica: Replica, draw: &mut StdRng) -> tokio::task::JoinHandle<()> {
    let (after, long) = (draw.random_range(0..1_200), draw.random_range(40..120));
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(after)).await;
        replica.behave(Behaviour::Fails { status: 503 });
        tokio::time::sleep(Duration::from_millis(long)).await;
        replica.behave(Behaviour::Good);
    })
}

pub(super) async fn kill(child: Option<Child>) {
    if let Some(mut child) = child {
        // Gone already is as good.
        let _ = child.kill().await;
    }
}
