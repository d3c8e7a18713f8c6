//! DialNexa as it is at its worst: what becomes of a PATCH, and which secret signs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hookturn::{
    dialnexa::{Line, PatchReport, Provider, ProviderError, Update, Webhook},
    rotation::PatchAnswer,
    secret::Secret,
};
use std::time::Duration;
use tokio::sync::oneshot;

use super::{
    dice::Dice,
    life::Life,
    setup::{Fault, Setup},
    time::sleep,
    world::{Hook, World},
};

/// Who put a secret there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Hookturn,
    Person,
}

/// The signing side of one webhook.
pub struct Signer {
    state: Mutex<State>,
}

struct State {
    /// Rises with every change that was applied.
    version: u64,
    newest: Signing,
    /// What each of DialNexa's senders signs with.
    senders: Vec<(u64, Signing)>,
    /// Requests that may still be applied.
    landing: Vec<Landing>,
    landings: u64,
    exchanges: u64,
    /// Secrets that a 200 was given for.
    said: Vec<Secret>,
}

#[derive(Clone)]
pub struct Signing {
    pub secret: Secret,
    pub by: By,
}

struct Landing {
    number: u64,
    secret: Secret,
}

const SENDERS: usize = 3;

impl Signer {
    pub fn new(secret: Secret) -> Signer {
        let first = Signing { secret, by: By::Hookturn };
        let senders = vec![(0, first.clone()); SENDERS];
        Signer {
            state: Mutex::new(State {
                version: 0,
                newest: first,
                senders,
                landing: Vec::new(),
                landings: 0,
                exchanges: 0,
                said: Vec::new(),
            }),
        }
    }

    /// What the sender of the next delivery signs with.
    pub fn sign(&self, dice: &mut Dice) -> Signing {
        let state = self.state();
        state.senders[dice.below(SENDERS as u64) as usize].1.clone()
    }

    pub fn newest(&self) -> Signing {
        self.state().newest.clone()
    }

    /// Everything that deliveries are signed with now, or may be.
    pub fn possible(&self) -> Vec<Signing> {
        let state = self.state();
        let landing = state.landing.iter().map(|landing| Signing { secret: landing.secret.clone(), by: By::Hookturn });
        state.senders.iter().map(|(_, signing)| signing.clone()).chain(landing).collect()
    }

    pub fn is_landing(&self, secret: &Secret) -> bool {
        self.state().landing.iter().any(|landing| landing.secret.same_as(secret))
    }

    /// Whether DialNexa has answered, truly or not, that it signs with this now.
    pub fn has_said(&self, secret: &Secret) -> bool {
        self.state().said.iter().any(|said| said.same_as(secret))
    }

    /// Whether a request is under way, or its answer.
    pub fn is_busy(&self) -> bool {
        let state = self.state();
        !state.landing.is_empty() || state.exchanges > 0
    }

    fn take_off(&self, secret: &Secret) -> u64 {
        let mut state = self.state();
        state.landings += 1;
        let number = state.landings;
        state.landing.push(Landing { number, secret: secret.clone() });
        number
    }

    fn landed(&self, number: u64) {
        self.state().landing.retain(|landing| landing.number != number);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// DialNexa takes the secret over: at once, or one sender after the other.
pub fn apply(hook: &Arc<Hook>, secret: &Secret, by: By, setup: &Setup, dice: &mut Dice) {
    let signing = Signing { secret: secret.clone(), by };
    let version = {
        let mut state = hook.signer.state();
        state.version += 1;
        state.newest = signing.clone();
        state.version
    };
    hook.log(|| format!("signs with {} by {by:?}", hook.name_of(secret)));
    for sender in 0..SENDERS {
        let delay = if setup.propagate_within > 0 { dice.below(setup.propagate_within) } else { 0 };
        let (hook, signing) = (hook.clone(), signing.clone());
        let take_over = move || {
            let mut state = hook.signer.state();
            if state.senders[sender].0 < version {
                state.senders[sender] = (version, signing);
            }
        };
        if delay == 0 {
            take_over();
        } else {
            tokio::spawn(async move {
                sleep(delay).await;
                take_over();
            });
        }
    }
}

/// What becomes of one PATCH.
struct Fate {
    /// Until DialNexa has it. `None`: it never does.
    received: Option<u64>,
    /// From then until it is applied, each time. Empty: it is not.
    applied: Vec<u64>,
    /// From receipt until the answer. `None`: there is none.
    answered: Option<(u64, PatchAnswer)>,
}

impl Fate {
    fn draw(world: &World, deadline: u64, dice: &mut Dice) -> Fate {
        let setup = &world.setup;
        let near = |dice: &mut Dice| dice.between(5, 80);
        let mut fate = Fate { received: Some(near(dice)), applied: vec![0], answered: Some((near(dice), PatchAnswer::Applied)) };
        let ambiguous = PatchAnswer::Ambiguous { wait: 0 };
        if world.strikes(Fault::Lost, 25, dice) {
            match dice.below(3) {
                0 => fate.received = None,
                1 => fate.answered = None,
                _ => fate = Fate { applied: Vec::new(), answered: None, ..fate },
            }
        }
        if world.strikes(Fault::Late, 30, dice) {
            let late = |dice: &mut Dice| dice.below(setup.apply_within);
            fate.received = fate.received.map(|_| dice.below(deadline));
            fate.applied = match dice.below(3) {
                0 => vec![0, late(dice)],
                1 => vec![setup.apply_within],
                _ => vec![late(dice)],
            };
            if dice.percent(60) {
                fate.answered = None;
            }
        }
        if world.strikes(Fault::LyingOk, 35, dice) {
            fate.applied = Vec::new();
            fate.answered = Some((near(dice), PatchAnswer::Applied));
        }
        if world.strikes(Fault::Trouble, 20, dice) {
            let limited = dice.percent(40);
            if limited || dice.percent(50) {
                fate.applied = Vec::new();
            }
            let answer = if limited { PatchAnswer::Limited { wait: dice.below(4_000) } } else { ambiguous };
            fate.answered = Some((near(dice), answer));
        }
        if world.strikes(Fault::Refusal, 12, dice) {
            let refusals = [PatchAnswer::ValueRefused, PatchAnswer::ApiKeyRefused, PatchAnswer::WebhookGone];
            fate.applied = Vec::new();
            fate.answered = Some((near(dice), *dice.pick(&refusals)));
        }
        // Who gives up before everything was sent closes the connection.
        fate.received = fate.received.filter(|received| *received <= deadline);
        fate
    }
}

/// DialNexa as one process reaches it.
pub struct SimProvider {
    pub world: Arc<World>,
    pub life: Arc<Life>,
}

#[async_trait]
impl Provider for SimProvider {
    async fn get(&self, id: &str) -> Result<Webhook, ProviderError> {
        let mut dice = self.world.dice("get");
        self.life.underway(dice.between(5, 80)).await;
        if self.world.strikes(Fault::Trouble, 20, &mut dice) {
            return Err(ProviderError::Unreachable("503".to_owned()));
        }
        self.life.boundary().await;
        let hook = self.world.hook_of_id(id);
        Ok(Webhook { id: hook.id.clone(), is_active: Some(true), ..Webhook::default() })
    }

    async fn list(&self) -> Result<Vec<Webhook>, ProviderError> {
        Err(ProviderError::Nonsense("the simulation has no list".to_owned()))
    }

    async fn update(&self, _: &str, _: &Update) -> Result<Webhook, ProviderError> {
        Err(ProviderError::Nonsense("the simulation updates nothing but secrets".to_owned()))
    }

    async fn connect(&self) -> Result<Box<dyn Line>, ProviderError> {
        let mut dice = self.world.dice("connect");
        self.life.underway(dice.between(5, 60)).await;
        if self.world.strikes(Fault::Trouble, 15, &mut dice) {
            return Err(ProviderError::Unreachable("connection refused".to_owned()));
        }
        self.life.boundary().await;
        Ok(Box::new(SimLine { world: self.world.clone(), life: self.life.clone() }))
    }
}

struct SimLine {
    world: Arc<World>,
    life: Arc<Life>,
}

#[async_trait]
impl Line for SimLine {
    async fn patch_secret(self: Box<Self>, id: &str, secret: &Secret, deadline: Duration) -> PatchReport {
        self.life.boundary().await;
        let hook = self.world.hook_of_id(id);
        let mut dice = self.world.dice("patch");
        let fate = Fate::draw(&self.world, u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX), &mut dice);
        self.world.judge.patch_sent(&self.world, &hook, secret);
        let (answer, answered) = oneshot::channel();
        // Once it has left, it goes its way whatever becomes of the process.
        tokio::spawn(travel(self.world.clone(), hook, secret.clone(), fate, dice, answer));
        let answer = match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => PatchAnswer::Ambiguous { wait: 0 },
        };
        self.life.boundary().await;
        PatchReport { answer, text: format!("{answer:?}") }
    }
}

async fn travel(
    world: Arc<World>,
    hook: Arc<Hook>,
    secret: Secret,
    fate: Fate,
    mut dice: Dice,
    answer: oneshot::Sender<PatchAnswer>,
) {
    hook.signer.state().exchanges += 1;
    let Some(received) = fate.received else {
        hook.log(|| format!("PATCH {} is lost", hook.name_of(&secret)));
        // The line stays silent until the deadline.
        keep_silent(answer).await;
        hook.signer.state().exchanges -= 1;
        return;
    };
    let number = (!fate.applied.is_empty()).then(|| hook.signer.take_off(&secret));
    sleep(received).await;
    hook.log(|| format!("PATCH {}, applied after {:?} ms, {:?}", hook.name_of(&secret), fate.applied, fate.answered));
    let applying = async {
        let began = tokio::time::Instant::now();
        for at in &fate.applied {
            tokio::time::sleep_until(began + Duration::from_millis(*at)).await;
            apply(&hook, &secret, By::Hookturn, &world.setup, &mut dice);
        }
        if let Some(number) = number {
            sleep(world.setup.propagate_within).await;
            hook.signer.landed(number);
        }
    };
    let answering = async {
        match fate.answered {
            Some((after, said)) => {
                sleep(after).await;
                if said == PatchAnswer::Applied {
                    hook.signer.state().said.push(secret.clone());
                }
                let _ = answer.send(said);
            }
            None => keep_silent(answer).await,
        }
    };
    tokio::join!(biased; applying, answering);
    hook.signer.state().exchanges -= 1;
}

/// Nothing is said for as long as anybody waits for it.
async fn keep_silent(mut answer: oneshot::Sender<PatchAnswer>) {
    answer.closed().await;
}
