//! Everything that is not hookturn: one account of webhooks, their consumers, their traffic.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use hookturn::{
    config::Door,
    evidence::{Desk, Facts, Ledger, Reason, Sighting, Verification, verify},
    keystore::{Contents, Key, KeyState, MemoryKeystore},
    secret::{
        Kid, SealingKey, Secret,
        signature::{HEADERS, sign},
    },
};
use sha2::{Digest, Sha256};

use super::{
    consumer::{Reached, Replica, Shelf},
    counts::Fate,
    dialnexa::{Signer, Signing},
    dice::Dice,
    disk::Disk,
    judge::{Judge, Try},
    setup::{Fault, Proof, Setup},
    time::{Machine, sleep},
};

pub struct World {
    pub setup: Setup,
    pub machine: Machine,
    pub hooks: Vec<Arc<Hook>>,
    pub disk: Disk,
    pub judge: Arc<Judge>,
    pub dir: PathBuf,
    pub sealing: SealingKey,
    /// For the digests of bodies, as a daemon makes them.
    pub digests: Ledger,
    /// The desk of the process that listens now.
    pub desk: Mutex<Option<Arc<dyn Desk>>>,
    calm: AtomicBool,
    streams: Mutex<BTreeMap<&'static str, u64>>,
}

/// One webhook.
pub struct Hook {
    pub place: usize,
    pub name: String,
    pub id: String,
    pub signer: Signer,
    pub shelf: Shelf,
    pub replicas: Vec<Replica>,
    pub status_files: bool,
    judge: Arc<Judge>,
}

/// What a replica made of a request.
pub struct Answer {
    pub replica: usize,
    pub reached: Reached,
    pub status: u16,
}

impl World {
    pub fn new(setup: &Setup, dir: PathBuf) -> Arc<World> {
        let machine = Machine::new();
        let judge = Arc::new(Judge::new(setup, machine.clone()));
        let hooks = (0..setup.webhooks).map(|place| Arc::new(Hook::new(setup, place, judge.clone()))).collect();
        let sealing = SealingKey::generate().expect("randomness");
        Arc::new(World {
            setup: setup.clone(),
            machine,
            hooks,
            disk: Disk::new(),
            judge,
            dir,
            digests: Ledger::new(*sealing.derive("body digests"), 1),
            sealing,
            desk: Mutex::default(),
            calm: AtomicBool::new(true),
            streams: Mutex::default(),
        })
    }

    /// Milliseconds that the world has run.
    pub fn ran(&self) -> u64 {
        self.machine.ran()
    }

    /// A stream of chance of its own for the next use of this name.
    pub fn dice(&self, name: &'static str) -> Dice {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let number = streams.entry(name).or_default();
        *number += 1;
        Dice::of(self.setup.seed, &format!("{name} {number}"))
    }

    /// Whether a fault strikes here: if it is one of this run's, nothing is calm yet, and the dice say so.
    pub fn strikes(&self, fault: Fault, percent: u64, dice: &mut Dice) -> bool {
        dice.percent(percent) && self.setup.has(fault) && !self.is_calm()
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// From now on nothing goes wrong any more, save what is under way.
    pub fn calm_down(&self) {
        self.judge.log(|| "nothing more goes wrong".to_owned());
        self.calm.store(true, Ordering::Relaxed);
        let now = self.ran();
        for hook in &self.hooks {
            for replica in &hook.replicas {
                replica.mend(now);
            }
        }
    }

    pub fn hook_of_id(&self, id: &str) -> Arc<Hook> {
        self.hooks.iter().find(|hook| hook.id == id).expect("a webhook of this id").clone()
    }

    pub fn replica_at(&self, url: &str) -> (Arc<Hook>, usize) {
        let found = self.hooks.iter().find_map(|hook| Some((hook, hook.replicas.iter().position(|r| r.url == url)?)));
        let (hook, replica) = found.expect("a replica at this URL");
        (hook.clone(), replica)
    }

    pub fn listen(&self, desk: Option<Arc<dyn Desk>>) {
        self.judge.listening(desk.is_some());
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = desk;
    }

    fn desk(&self) -> Option<Arc<dyn Desk>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Deliveries, one after the other, for ever; and from now on things go wrong.
    pub fn begin(self: &Arc<World>) {
        self.calm.store(false, Ordering::Relaxed);
        for hook in &self.hooks {
            tokio::spawn(traffic(self.clone(), hook.clone()));
        }
    }
}

async fn traffic(world: Arc<World>, hook: Arc<Hook>) {
    let mut dice = Dice::of(world.setup.seed, &format!("traffic {}", hook.place));
    for number in 0.. {
        sleep(dice.between(1, 2 * world.setup.gap)).await;
        tokio::spawn(deliver(world.clone(), hook.clone(), number));
    }
}

/// One event, from its first try to its last.
async fn deliver(world: Arc<World>, hook: Arc<Hook>, number: u64) {
    let mut dice = Dice::of(world.setup.seed, &format!("delivery {} {number}", hook.place));
    let body = format!(r#"{{"event":"call.completed","call":"{}-{number}"}}"#, hook.name).into_bytes();
    let mut letter = Letter::signed(&world, &hook, &body, &mut dice);
    let mut fates = Vec::new();
    for attempt in 1..=4u64 {
        sleep(dice.between(1, 40).min(letter.left(&world))).await;
        let fate = post(&world, &hook, (number, &body, &letter), &mut dice);
        fates.push(fate);
        let again = fate != Fate::Accepted || world.strikes(Fault::Repeats, 30, &mut dice);
        let left = letter.left(&world);
        if !again || left < 50 {
            break;
        }
        // Soon, or at the very end.
        let pause = if dice.percent(50) { dice.below(left - 45) } else { left - 45 };
        sleep(if attempt == 1 && dice.percent(30) { pause.min(1_000) } else { pause }).await;
        if dice.percent(30) {
            letter = Letter::signed(&world, &hook, &body, &mut dice);
        }
    }
    world.judge.count(|counts| counts.ended(&fates));
}

/// A body under a signature.
struct Letter {
    signing: Signing,
    signature: String,
    at: u64,
}

impl Letter {
    fn signed(world: &World, hook: &Hook, body: &[u8], dice: &mut Dice) -> Letter {
        let signing = hook.signer.sign(dice);
        Letter { signature: sign(&signing.secret, body), signing, at: world.ran() }
    }

    /// So long it may still be sent.
    fn left(&self, world: &World) -> u64 {
        (self.at + world.setup.die_within).saturating_sub(world.ran())
    }
}

/// One try, at one of the replicas that are up.
fn post(world: &Arc<World>, hook: &Arc<Hook>, (number, body, letter): (u64, &[u8], &Letter), dice: &mut Dice) -> Fate {
    let now = world.ran();
    let up: Vec<usize> = (0..hook.replicas.len()).filter(|at| hook.replicas[*at].is_up(now)).collect();
    if up.is_empty() {
        return Fate::NobodyThere;
    }
    let at = *dice.pick(&up);
    let (reached, loaded) = hook.replicas[at].take(hook, body, &letter.signature, now);
    let status = match reached {
        Reached::Accepted(_) => 200,
        Reached::Unwanted(_) | Reached::Unknown => 401,
        Reached::Down => 503,
    };
    hook.tell(world, body, &letter.signature, Answer { replica: at, reached, status }, dice);
    let Letter { signing, at: signed_at, .. } = letter;
    let tried = Try { number, signing, signed_at: *signed_at, replica: at, reached, loaded: loaded.as_ref() };
    world.judge.delivered(hook, &tried)
}

impl Hook {
    fn new(setup: &Setup, place: usize, judge: Arc<Judge>) -> Hook {
        let mut dice = Dice::of(setup.seed, &format!("webhook {place}"));
        let name = format!("hook-{place}");
        let secret = Secret::generate().expect("randomness");
        judge.name(&secret);
        let kid = Kid::parse(&format!("k_first_{place}")).expect("kid");
        let first = Contents { generation: 1, keys: vec![Key { kid, state: KeyState::Current, secret: Some(secret.clone()) }] };
        let memory = if setup.two_slots { MemoryKeystore::with_slots(2) } else { MemoryKeystore::new() };
        let replica = |at: usize| {
            let spread = dice.below(1_000);
            Replica::new(format!("{name}-replica-{at}"), setup.wait, dice.percent(50), spread)
        };
        let replicas = (0..setup.replicas).map(replica).collect();
        Hook {
            place,
            id: format!("whk_{place}"),
            signer: Signer::new(secret),
            shelf: Shelf::new(memory, first),
            replicas,
            status_files: setup.counters || setup.proof == Proof::StatusFiles,
            judge,
            name,
        }
    }

    /// What is seen of a request at a replica goes through the doors, as the doors themselves would pass it on.
    pub fn tell(self: &Arc<Hook>, world: &Arc<World>, body: &[u8], signature: &str, answer: Answer, dice: &mut Dice) {
        let Answer { replica, reached, status } = answer;
        let body_sha256: [u8; 32] = Sha256::digest(body).into();
        let lost = |dice: &mut Dice| world.strikes(Fault::Deaf, 40, dice);
        if world.setup.tap && !lost(dice) {
            let mut headers = http::HeaderMap::new();
            headers.insert(HEADERS[0], signature.parse().expect("a header"));
            let (world, hook, body, delay) = (world.clone(), self.clone(), body.to_vec(), dice.below(200));
            tokio::spawn(async move {
                sleep(delay).await;
                let Some(desk) = world.desk() else { return };
                let Some(keyring) = desk.keyring(&hook.name) else { return };
                match verify(&headers, &body, &keyring) {
                    Verification::Matched { kid, .. } => {
                        desk.sighted(hook.sighting(Door::Tap, kid, body_sha256, None, None));
                    }
                    _ => desk.unverified(&hook.name, Door::Tap, Reason::Mismatch, &Facts::default()),
                }
            });
        }
        let reported = match reached {
            Reached::Accepted(kid) | Reached::Unwanted(kid) => Some(kid),
            Reached::Unknown | Reached::Down => None,
        };
        if let Some(kid) = reported
            && world.setup.report
            && !lost(dice)
        {
            let accepted = match status {
                200..=299 => Some(true),
                401 => Some(false),
                _ => None,
            };
            let name = self.replicas[replica].name.clone();
            let (world, hook, delay) = (world.clone(), self.clone(), dice.below(400));
            tokio::spawn(async move {
                sleep(delay).await;
                let Some(desk) = world.desk() else { return };
                match desk.keyring(&hook.name) {
                    Some(keyring) if keyring.contains(kid) => {
                        desk.sighted(hook.sighting(Door::Report, kid, body_sha256, accepted, Some(name)));
                    }
                    _ => desk.unverified(&hook.name, Door::Report, Reason::UnknownKid, &Facts::default()),
                }
            });
        }
    }

    fn sighting(&self, door: Door, kid: Kid, body: [u8; 32], accepted: Option<bool>, replica: Option<String>) -> Sighting {
        let facts = Facts::default();
        Sighting { webhook: self.name.clone(), door, kid, body_sha256: body, accepted, status: None, replica, facts }
    }

    /// A word for a secret that tells nothing of it.
    pub fn name_of(&self, secret: &Secret) -> String {
        self.judge.name(secret)
    }

    pub fn log(&self, line: impl FnOnce() -> String) {
        self.judge.log(|| format!("{}: {}", self.name, line()));
    }
}
