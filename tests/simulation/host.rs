//! Starts daemons, and ends them in every way there is.

use std::sync::{Arc, Mutex, PoisonError};

use hookturn::{
    config::Config,
    daemon::{AdoptedSecret, Alarm, Clock, Daemon, Office, Options, Parts, Request},
    evidence::Prober,
    keystore::Keystore,
    secret::{Kid, NoRandomness, SealingKey},
    steps::Chance,
    store::Snapshot,
};
use tokio::time::{Duration, timeout};

use super::{
    consumer::{SimCourier, SimKeystore},
    dialnexa::SimProvider,
    dice::Dice,
    disk::SimStore,
    judge::anchor_path,
    life::Life,
    setup::{Fault, Proof, Setup},
    time::sleep,
    world::World,
};

/// So long a start may take: a first commit may be tried for a while.
const TO_START: Duration = Duration::from_secs(3_600);

pub struct Host {
    world: Arc<World>,
    config: Config,
    dice: Dice,
    chance: Arc<SimChance>,
    /// Where a person finds the daemon that runs now.
    pub office: Arc<Mutex<Option<Arc<dyn Office>>>>,
    backup: Option<Snapshot>,
}

/// How a life is to end.
#[derive(Debug, Clone, Copy)]
enum End {
    Crash,
    /// The machine goes down under it.
    PowerCut,
    Stop,
    Takeover,
    Never,
}

impl Host {
    pub fn new(world: Arc<World>) -> Host {
        let seed = world.setup.seed;
        let config = configuration(&world);
        let chance = Arc::new(SimChance(Mutex::new(Dice::of(seed, "chance"))));
        Host { world, config, dice: Dice::of(seed, "host"), chance, office: Arc::default(), backup: None }
    }

    /// The first life: the secret that is there is adopted.
    pub async fn adopt(&mut self) {
        let life = Life::new(0);
        let Some(daemon) = self.start(&life, true).await else { return };
        for hook in &self.world.hooks {
            let request = Request::Adopt { secret: AdoptedSecret::FromKeystore };
            let adopted = daemon.office().perform(&hook.name, request, "simulation").await;
            if let Err(failure) = adopted {
                self.world.judge.condemn(format!("{}: nothing was adopted: {}", hook.name, failure.text));
            }
        }
        self.stop(&life, daemon).await;
    }

    /// One life after the other, until the rotations are done or it has taken too long.
    pub async fn live_until(&mut self, done: impl Fn(&World) -> bool) {
        while !done(&self.world) && !self.world.judge.broken.is_cancelled() {
            self.live(&done).await;
        }
    }

    async fn live(&mut self, done: &impl Fn(&World) -> bool) {
        let end = self.draw_end();
        let fuse = if matches!(end, End::Crash | End::PowerCut) { self.draw_fuse() } else { 0 };
        let life = Life::new(fuse);
        let shut = self.world.strikes(Fault::Shut, 25, &mut self.dice);
        self.world.judge.log(|| format!("a process begins; it ends by {end:?}, fuse {fuse}, doors {}", !shut));
        let Some(daemon) = self.start(&life, !shut).await else { return self.after_death(end).await };
        let most = if shut { self.dice.between(5_000, 60_000) } else { self.dice.between(20_000, 400_000) };
        let until = self.world.ran() + most;
        loop {
            tokio::select! {
                biased;
                () = life.ended() => break,
                () = self.world.judge.broken.cancelled() => break,
                () = daemon.wait() => {
                    self.world.judge.log(|| "the process gave up by itself".to_owned());
                    break;
                }
                () = sleep(1_000) => {}
            }
            if done(&self.world) || self.world.ran() >= until {
                break;
            }
        }
        if life.is_dead() {
            self.bury(&life, daemon);
            return self.after_death(end).await;
        }
        match end {
            End::Takeover => self.leave_behind(life, daemon),
            _ => self.stop(&life, daemon).await,
        }
        self.between_lives(end).await;
    }

    fn draw_end(&mut self) -> End {
        let choices = [
            (Fault::Crash, End::Crash),
            (Fault::Crash, End::Crash),
            (Fault::Reboot, End::PowerCut),
            (Fault::Stops, End::Stop),
            (Fault::Takeover, End::Takeover),
        ];
        let possible: Vec<End> = choices.iter().filter(|(fault, _)| self.world.setup.has(*fault)).map(|(_, end)| *end).collect();
        if possible.is_empty() || self.world.is_calm() { End::Never } else { *self.dice.pick(&possible) }
    }

    /// Mostly within a rotation, sometimes right at the start.
    fn draw_fuse(&mut self) -> u64 {
        let most = *self.dice.pick(&[8, 60, 250, 800]);
        self.dice.between(1, most)
    }

    pub async fn start(&mut self, life: &Arc<Life>, doors: bool) -> Option<Daemon> {
        let world = &self.world;
        world.judge.processes(1);
        let options = Options {
            purpose: "simulation".to_owned(),
            only: None,
            doors,
            schedule: world.setup.planned && !world.is_calm(),
            read_only: false,
        };
        let parts = parts(world, &self.config, life, self.chance.clone(), world.disk.open(world, life));
        let built = tokio::select! {
            biased;
            () = life.ended() => None,
            built = timeout(TO_START, Daemon::build(&self.config, options, parts)) => Some(built),
        };
        let built = match built {
            Some(Err(_)) => {
                world.judge.condemn(format!("a process does not start in {TO_START:?}"));
                None
            }
            built => built.and_then(Result::ok),
        };
        match built {
            Some(Ok(daemon)) => {
                world.listen(doors.then(|| daemon.desk()));
                self.put_office(Some(daemon.office()));
                Some(daemon)
            }
            Some(Err(error)) => {
                world.judge.condemn(format!("a process does not start: {error}"));
                None
            }
            None => None,
        }
    }

    /// Looks at the store now and then, and must see nothing that is not there.
    pub fn onlook(&self) {
        let (world, config, chance) = (self.world.clone(), self.config.clone(), self.chance.clone());
        tokio::spawn(async move {
            let mut dice = Dice::of(world.setup.seed, "onlooker");
            loop {
                sleep(dice.between(5_000, 120_000)).await;
                if world.strikes(Fault::Onlooker, 100, &mut dice) {
                    look(&world, &config, chance.clone()).await;
                }
            }
        });
    }

    fn put_office(&self, office: Option<Arc<dyn Office>>) {
        *self.office.lock().unwrap_or_else(PoisonError::into_inner) = office;
    }

    fn leave_doors(&self) {
        self.world.listen(None);
        self.put_office(None);
    }

    async fn stop(&mut self, life: &Arc<Life>, daemon: Daemon) {
        self.leave_doors();
        tokio::select! {
            biased;
            () = life.ended() => {}
            () = daemon.stop() => {}
        }
        life.kill();
        self.world.judge.processes(-1);
    }

    /// Its tasks are stuck at the boundary of the world for ever; those that are not are told to end there.
    fn bury(&self, life: &Arc<Life>, daemon: Daemon) {
        life.kill();
        self.leave_doors();
        self.world.judge.count(|counts| counts.crashes += 1);
        self.world.judge.processes(-1);
        self.world.judge.log(|| "the process is dead".to_owned());
        tokio::spawn(daemon.stop());
    }

    /// The next process begins while this one goes on for a while: what it was about to do may still be done.
    fn leave_behind(&mut self, life: Arc<Life>, daemon: Daemon) {
        self.leave_doors();
        self.world.judge.count(|counts| counts.takeovers += 1);
        let (world, most) = (self.world.clone(), self.dice.between(100, 8_000));
        tokio::spawn(async move {
            let _ = timeout(Duration::from_millis(most), daemon.wait()).await;
            life.kill();
            world.judge.processes(-1);
            world.judge.log(|| "the stale process is gone".to_owned());
            daemon.stop().await;
        });
    }

    async fn after_death(&mut self, end: End) {
        self.world.disk.recover(&self.world, &mut self.dice).await;
        self.between_lives(end).await;
    }

    async fn between_lives(&mut self, end: End) {
        if matches!(end, End::Takeover) {
            return;
        }
        let world = self.world.clone();
        if matches!(end, End::PowerCut) {
            world.machine.boot();
        }
        if let Some(backup) = &self.backup
            && world.strikes(Fault::Restore, 25, &mut self.dice)
            && world.judge.is_deserted()
        {
            world.judge.log(|| "an older store is copied back".to_owned());
            world.judge.count(|counts| counts.restores += 1);
            world.disk.restore(backup);
            world.judge.restored(&world);
        } else if self.dice.percent(30) && world.setup.has(Fault::Restore) {
            self.backup = Some(world.disk.snapshot());
        }
        if world.strikes(Fault::Anchor, 10, &mut self.dice) {
            world.judge.log(|| "the anchor is gone".to_owned());
            let _ = std::fs::remove_file(anchor_path(&world.dir));
        }
        let most = *self.dice.pick(&[50, 2_000, 60_000]);
        sleep(self.dice.between(1, most)).await;
    }
}

/// One look, as of a command that has found no daemon to ask.
async fn look(world: &Arc<World>, config: &Config, chance: Arc<SimChance>) {
    let life = Life::new(0);
    let options = Options { purpose: "a look".to_owned(), only: None, doors: false, schedule: false, read_only: true };
    let parts = parts(world, config, &life, chance, world.disk.look(world, &life));
    match Daemon::build(config, options, parts).await {
        Ok(daemon) => {
            for status in daemon.office().status().await.unwrap_or_default() {
                world.judge.looked_at(world, &status.name, status.hold.as_deref());
            }
            daemon.stop().await;
        }
        Err(error) => world.judge.condemn(format!("nobody can look beside the daemon: {error}")),
    }
}

fn parts(world: &Arc<World>, config: &Config, life: &Arc<Life>, chance: Arc<SimChance>, store: SimStore) -> Parts {
    let keystore = |webhook: &hookturn::config::Webhook| -> Box<dyn Keystore> {
        let hook = world.hook_of_id(&webhook.id);
        Box::new(SimKeystore { world: world.clone(), hook, life: life.clone() })
    };
    Parts {
        clock: Clock::new(world.machine.process()),
        chance,
        sealing: SealingKey::parse(&world.sealing.encode()).expect("the key"),
        provider: Arc::new(SimProvider { world: world.clone(), life: life.clone() }),
        prober: Prober::over(SimCourier { world: world.clone(), life: life.clone() }),
        store: Arc::new(store),
        webhooks: config.webhooks.iter().map(|webhook| (webhook.clone(), keystore(webhook))).collect(),
        alarm: Alarm::Timer,
    }
}

fn configuration(world: &World) -> Config {
    let Setup { quarantine, drain, wait, patch_timeout, repeat_min, repeat_max, .. } = &world.setup;
    let setup = &world.setup;
    let mut text = format!(
        "[dialnexa]\nbase_url = \"http://127.0.0.1:1\"\napi_key = {{ env = \"NONE\" }}\n\
         [store]\nurl = \"sqlite:{0}/db\"\nsealing_key = {{ env = \"NONE\" }}\nanchor = \"{1}\"\n",
        world.dir.display(),
        anchor_path(&world.dir).display(),
    );
    for hook in &world.hooks {
        let every = if setup.planned { "every = \"45s\"\njitter = \"20s\"\n" } else { "" };
        let keystore = match setup.two_slots {
            true => "{ kind = \"exec\", command = [\"simulated\"], slots = 2 }".to_owned(),
            false => format!("{{ kind = \"file\", path = \"{}/{}.json\" }}", world.dir.display(), hook.name),
        };
        let preflight = match setup.proof {
            Proof::Probes => format!("probe = {:?}", hook.replicas.iter().map(|r| r.url.as_str()).collect::<Vec<_>>()),
            Proof::StatusFiles => "status = true".to_owned(),
        };
        let mut sources = vec!["report", "tap"];
        if setup.counters {
            sources.push("keystore");
        }
        text += &format!(
            "[[webhook]]\nname = \"{}\"\nid = \"{}\"\n{every}drain = \"{drain}ms\"\nquarantine = \"{quarantine}ms\"\n\
             keystore = {keystore}\nverify = {{ sources = {sources:?} }}\n\
             preflight = {{ wait = \"{wait}ms\", {preflight} }}\n\
             patch = {{ timeout = \"{patch_timeout}ms\", repeat_min = \"{repeat_min}ms\", repeat_max = \"{repeat_max}ms\" }}\n",
            hook.name, hook.id,
        );
    }
    Config::parse(&world.dir.join("hookturn.toml"), &text).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

/// Names of keys, the same in every run of a seed.
struct SimChance(Mutex<Dice>);

impl Chance for SimChance {
    fn kid(&self) -> Result<Kid, NoRandomness> {
        let number = self.0.lock().unwrap_or_else(PoisonError::into_inner).next();
        Ok(Kid::parse(&format!("k_{number:016x}")).expect("a key id"))
    }

    fn draw(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fraction()
    }
}
