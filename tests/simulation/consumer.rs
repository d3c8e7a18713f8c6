//! The consumer: a keystore and replicas that read it when they get round to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use hookturn::{
    evidence::{Courier, PlannedRequest},
    keystore::{
        Contents, Fault as Failing, Finding, Keystore, KeystoreError, MemoryKeystore,
        status::{KeyStatus, StatusFile, StatusReport},
    },
    secret::{Kid, signature::sign},
};

use super::{
    life::Life,
    setup::Fault,
    time::sleep,
    world::{Answer, Hook, World},
};

/// A content of the keystore, and whether hookturn put it there.
#[derive(Clone)]
pub struct Version {
    pub contents: Arc<Contents>,
    pub foreign: bool,
    pub since: u64,
}

/// The keystore of one webhook, and everything that it ever held.
pub struct Shelf {
    memory: MemoryKeystore,
    versions: Mutex<Vec<Version>>,
}

impl Shelf {
    pub fn new(memory: MemoryKeystore, first: Contents) -> Shelf {
        memory.put(first.clone());
        let first = Version { contents: Arc::new(first), foreign: false, since: 0 };
        Shelf { memory, versions: Mutex::new(vec![first]) }
    }

    pub fn newest(&self) -> Version {
        self.at(u64::MAX)
    }

    /// What was there at a time.
    pub fn at(&self, time: u64) -> Version {
        let versions = self.versions();
        let newest = versions.iter().rev().find(|version| version.since <= time);
        newest.unwrap_or(&versions[0]).clone()
    }

    /// Somebody else puts back what was there `steps` contents ago.
    pub fn put_back(&self, steps: usize, now: u64) -> bool {
        let mut versions = self.versions();
        let Some(older) = versions.len().checked_sub(steps + 1).map(|at| versions[at].contents.clone()) else { return false };
        self.memory.put((*older).clone());
        versions.push(Version { contents: older, foreign: true, since: now });
        true
    }

    fn written(&self, contents: &Contents, now: u64) {
        let mut versions = self.versions();
        let newest = versions.last().map(|version| (version.contents.generation, version.foreign));
        if newest != Some((contents.generation, false)) {
            versions.push(Version { contents: Arc::new(contents.clone()), foreign: false, since: now });
        }
    }

    fn versions(&self) -> MutexGuard<'_, Vec<Version>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keystore as one process reaches it.
pub struct SimKeystore {
    pub world: Arc<World>,
    pub hook: Arc<Hook>,
    pub life: Arc<Life>,
}

impl SimKeystore {
    fn failed(&self, action: &'static str) -> KeystoreError {
        KeystoreError::Failed { place: self.place(), action, reason: "the simulation wants it so".to_owned() }
    }
}

#[async_trait]
impl Keystore for SimKeystore {
    fn slots(&self) -> Option<u8> {
        self.hook.shelf.memory.slots()
    }

    fn place(&self) -> String {
        "simulated".to_owned()
    }

    async fn read(&self) -> Result<Option<Contents>, KeystoreError> {
        let mut dice = self.world.dice("keystore read");
        self.life.underway(dice.between(1, self.world.setup.read_within)).await;
        if self.world.strikes(Fault::Keystore, 10, &mut dice) {
            return Err(self.failed("read"));
        }
        let behind = if self.world.strikes(Fault::Lag, 5, &mut dice) { dice.below(1_000) } else { 0 };
        let seen = self.hook.shelf.at(self.world.ran().saturating_sub(behind));
        self.life.boundary().await;
        Ok(Some((*seen.contents).clone()))
    }

    async fn write(&self, expect: Option<u64>, next: &Contents) -> Result<(), KeystoreError> {
        let mut dice = self.world.dice("keystore write");
        self.life.underway(dice.between(1, 30)).await;
        // A process that has died meanwhile: it may have come to this, or not.
        if self.life.is_dead() && dice.percent(50) {
            std::future::pending::<()>().await;
        }
        if self.world.strikes(Fault::Keystore, 10, &mut dice) {
            return Err(self.failed("write"));
        }
        let answer_lost = self.world.strikes(Fault::Keystore, 10, &mut dice);
        if answer_lost {
            self.hook.shelf.memory.fail_next(Failing::AnswerLost);
        }
        let result = self.hook.shelf.memory.write(expect, next).await;
        let there = self.hook.shelf.memory.contents().is_some_and(|there| there.generation == next.generation);
        if result.is_ok() || answer_lost && there {
            self.world.judge.keystore_written(&self.world, &self.hook, next);
            self.hook.shelf.written(next, self.world.ran());
        }
        self.life.boundary().await;
        result
    }

    async fn reload(&self) -> Result<(), KeystoreError> {
        self.life.boundary().await;
        let mut dice = self.world.dice("reload");
        if dice.percent(30) {
            for replica in &self.hook.replicas {
                replica.look_now(&self.hook, self.world.ran());
            }
        }
        Ok(())
    }

    async fn status(&self) -> Option<StatusReport> {
        if !self.hook.status_files {
            return None;
        }
        self.life.boundary().await;
        let now = self.world.ran();
        let files = self.hook.replicas.iter().filter_map(|replica| replica.status(&self.hook, now)).collect();
        Some(StatusReport { files, problems: Vec::new() })
    }

    async fn inspect(&self) -> Vec<Finding> {
        Vec::new()
    }
}

/// One process of the consumer.
pub struct Replica {
    pub name: String,
    pub url: String,
    refresh_every: u64,
    behind: u64,
    /// Takes any content, also one with a lower number than the one it has.
    credulous: bool,
    state: Mutex<State>,
}

struct State {
    loaded: Option<Version>,
    looked_at: u64,
    /// It does not refresh before that.
    stuck_until: u64,
    /// It is not there before that.
    down_until: u64,
    gone: bool,
    lives: u64,
    counts: BTreeMap<Kid, u64>,
    /// What it has counted and its status file does not show yet.
    shown: BTreeMap<Kid, u64>,
    shown_generation: u64,
    shown_at: u64,
    /// It verifies what this key signed, and then refuses it, up to this time.
    refuses: Option<(Kid, u64)>,
}

/// What became of a delivery at a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    Accepted(Kid),
    /// It verified, and the consumer would not have it all the same.
    Unwanted(Kid),
    /// No key that it has loaded signed it.
    Unknown,
    Down,
}

const STATUS_EVERY: u64 = 500;

impl Replica {
    pub fn new(name: String, wait: u64, credulous: bool, spread: u64) -> Replica {
        let refresh_every = (wait * 6 / 10).max(50) - spread % 40;
        let state = State {
            loaded: None,
            looked_at: 0,
            stuck_until: 0,
            down_until: 0,
            gone: false,
            lives: 1,
            counts: BTreeMap::new(),
            shown: BTreeMap::new(),
            shown_generation: 0,
            shown_at: 0,
            refuses: None,
        };
        let url = format!("http://127.0.0.1:9000/{name}");
        Replica { name, url, refresh_every, behind: wait / 4, credulous, state: Mutex::new(state) }
    }

    pub fn is_up(&self, now: u64) -> bool {
        let state = self.state();
        !state.gone && state.down_until <= now
    }

    /// A request reaches it.
    pub fn take(&self, hook: &Hook, body: &[u8], signature: &str, now: u64) -> (Reached, Option<Version>) {
        let mut state = self.state();
        if state.gone || state.down_until > now {
            return (Reached::Down, None);
        }
        self.refresh(&mut state, hook, now);
        let loaded = state.loaded.clone();
        let keys = loaded.iter().flat_map(|version| &version.contents.keys);
        let kid =
            keys.filter_map(|key| Some((key.kid, key.secret.as_ref()?))).find(|(_, secret)| sign(secret, body) == signature);
        let reached = match kid {
            None => Reached::Unknown,
            Some((kid, _)) => {
                *state.counts.entry(kid).or_default() += 1;
                if state.refuses.is_some_and(|(refused, until)| refused == kid && now < until) {
                    Reached::Unwanted(kid)
                } else {
                    Reached::Accepted(kid)
                }
            }
        };
        (reached, loaded)
    }

    pub fn restart(&self, hook: &Hook, now: u64, down: u64) {
        let mut state = self.state();
        self.refresh(&mut state, hook, now);
        state.loaded = None;
        state.down_until = now + down;
        state.looked_at = 0;
        state.stuck_until = 0;
        state.lives += 1;
        state.counts.clear();
    }

    pub fn stick(&self, hook: &Hook, now: u64, until: u64) {
        let mut state = self.state();
        self.refresh(&mut state, hook, now);
        state.stuck_until = until;
    }

    pub fn go(&self, gone: bool, hook: &Hook, now: u64) {
        if self.state().gone && !gone {
            self.restart(hook, now, 0);
        }
        self.state().gone = gone;
    }

    pub fn is_gone(&self) -> bool {
        self.state().gone
    }

    pub fn refuse(&self, kid: Kid, until: u64) {
        self.state().refuses = Some((kid, until));
    }

    /// What goes wrong with it is over.
    pub fn mend(&self, now: u64) {
        let mut state = self.state();
        state.stuck_until = 0;
        state.down_until = state.down_until.min(now + 1_000);
        state.refuses = None;
    }

    fn look_now(&self, hook: &Hook, now: u64) {
        let mut state = self.state();
        self.refresh(&mut state, hook, now);
        if state.stuck_until <= now && state.down_until <= now {
            self.load(&mut state, hook, now);
        }
    }

    /// Brings it to where its own clockwork would have brought it by now.
    fn refresh(&self, state: &mut State, hook: &Hook, now: u64) {
        // One that has just started looks once, whatever keeps it from looking again.
        let stuck = state.stuck_until > now && state.loaded.is_some();
        if state.down_until > now || stuck || state.gone {
            return;
        }
        // It looks when it starts, and then in its own rhythm.
        let tick = (now / self.refresh_every * self.refresh_every).max(state.down_until);
        if state.loaded.is_none() || tick > state.looked_at {
            self.load(state, hook, tick);
        }
    }

    fn load(&self, state: &mut State, hook: &Hook, tick: u64) {
        state.looked_at = tick;
        let version = hook.shelf.at(tick.saturating_sub(self.behind));
        let lower = state.loaded.as_ref().is_some_and(|loaded| version.contents.generation < loaded.contents.generation);
        let older = state.loaded.as_ref().is_some_and(|loaded| version.since < loaded.since);
        if !older && (self.credulous || !lower) {
            state.loaded = Some(version);
        }
    }

    fn status(&self, hook: &Hook, now: u64) -> Option<StatusFile> {
        let mut state = self.state();
        if state.gone {
            return None;
        }
        self.refresh(&mut state, hook, now);
        if now >= state.shown_at + STATUS_EVERY && state.down_until <= now {
            state.shown = state.counts.clone();
            state.shown_generation = state.loaded.as_ref().map_or(0, |version| version.contents.generation);
            state.shown_at = now;
        }
        let lives = i64::try_from(state.lives).unwrap_or(0);
        let key = |(kid, verified): (&Kid, &u64)| KeyStatus { kid: *kid, verified: *verified, last_verified_at: None };
        Some(StatusFile {
            replica: self.name.clone(),
            started_at: chrono::DateTime::from_timestamp(lives, 0).unwrap_or_default(),
            generation: state.shown_generation,
            keys: state.shown.iter().map(key).collect(),
            modified: SystemTime::UNIX_EPOCH,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries probes of one process to replicas.
pub struct SimCourier {
    pub world: Arc<World>,
    pub life: Arc<Life>,
}

#[async_trait]
impl Courier for SimCourier {
    async fn post(&self, url: &str, request: PlannedRequest) -> Result<u16, &'static str> {
        let mut dice = self.world.dice("probe");
        self.life.underway(dice.between(1, 30)).await;
        let (hook, replica) = self.world.replica_at(url);
        self.world.judge.probe_sent(&self.world, &hook, &request.sha256);
        if self.world.strikes(Fault::Restarts, 2, &mut dice) {
            sleep(5_000).await;
            return Err("no answer in time");
        }
        let now = self.world.ran();
        let (reached, _) = hook.replicas[replica].take(&hook, &request.body, &request.signature, now);
        // A consumer that reports what it verified does not know a probe from a delivery; neither does what stands before it.
        let status = match reached {
            Reached::Down => return Err("no connection"),
            Reached::Unknown => 401,
            Reached::Accepted(_) | Reached::Unwanted(_) => 400,
        };
        let answer = Answer { replica, reached, status };
        hook.tell(&self.world, &request.body, &request.signature, answer, &mut dice);
        self.life.boundary().await;
        Ok(status)
    }
}
