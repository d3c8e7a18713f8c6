//! The person, and everybody else who has a hand in it.

use std::sync::{Arc, Mutex, PoisonError};

use hookturn::{
    daemon::{Office, Request},
    rotation::{Hold, Phase, Record},
};
use tokio::time::{Duration, timeout};

use super::{
    dialnexa::{By, apply},
    dice::Dice,
    setup::{Fault, Proof},
    time::sleep,
    world::{Hook, World},
};

type Counter = Arc<Mutex<Option<Arc<dyn Office>>>>;

pub fn begin(world: &Arc<World>, office: &Counter) {
    for hook in &world.hooks {
        tokio::spawn(operate(world.clone(), hook.clone(), office.clone()));
        tokio::spawn(meddle(world.clone(), hook.clone()));
        tokio::spawn(strain(world.clone(), hook.clone()));
    }
    tokio::spawn(clocks(world.clone()));
}

/// Asks for what is there to be asked for, and leaves every hold by the way that is documented for it.
async fn operate(world: Arc<World>, hook: Arc<Hook>, office: Counter) {
    let mut dice = Dice::of(world.setup.seed, &format!("person {}", hook.place));
    loop {
        sleep(dice.between(500, 9_000)).await;
        let Some(record) = world.judge.record(&hook) else { continue };
        let Some(request) = wish(&world, &hook, &record, &mut dice) else { continue };
        let Some(office) = office.lock().unwrap_or_else(PoisonError::into_inner).clone() else { continue };
        let what = name(&request);
        let answer = timeout(Duration::from_secs(30), office.perform(&hook.name, request, "person")).await;
        hook.log(|| match answer {
            Ok(Ok(_)) => format!("a person: {what}"),
            Ok(Err(failure)) => format!("a person: {what} is refused: {}", failure.text),
            Err(_) => format!("a person: {what} is not answered"),
        });
    }
}

fn wish(world: &World, hook: &Hook, record: &Record, dice: &mut Dice) -> Option<Request> {
    let turns = |percent: u64, dice: &mut Dice| world.strikes(Fault::Turns, percent, dice);
    let emergency = world.strikes(Fault::Emergency, 2, dice);
    if record.paused {
        return dice.percent(30).then_some(Request::Resume);
    }
    if world.strikes(Fault::Pause, 3, dice) {
        return Some(Request::Pause);
    }
    match &record.phase {
        Phase::Hold(hold, was) => {
            let full = world.setup.two_slots && record.keystore_kids().len() > 1;
            way_out(*hold, was, full, dice)
        }
        Phase::Idle => {
            // A planner that was told that it is three years ago waits for three years.
            let unplanned = !world.setup.planned || world.setup.has(Fault::WallClock);
            // Who has waited long enough says that nothing was seen yet and that he wants it all the same.
            let unconfirmed = !record.confirmed && dice.percent(10);
            // Who has changed the secret by hand, and sees what comes of it, lets hookturn set another one.
            let mended = hook.signer.newest().by == By::Person;
            let asked = !world.is_calm() && (unplanned || unconfirmed || emergency || mended);
            asked.then_some(Request::Rotate { compromised: emergency, unconfirmed: unconfirmed || mended })
        }
        Phase::Push(_) if turns(8, dice) => Some(Request::Abort),
        Phase::Push(_) | Phase::Patch(..) | Phase::Drain(..) if turns(6, dice) => Some(Request::Supersede),
        Phase::Patch(..) | Phase::Drain(..) if turns(8, dice) => Some(Request::Rollback),
        Phase::Retire(..) | Phase::Abort(..) if turns(5, dice) => Some(Request::Supersede),
        _ if emergency && dice.percent(30) => Some(Request::Rotate { compromised: true, unconfirmed: false }),
        _ => None,
    }
}

/// As `status` says it.
fn way_out(hold: Hold, was: &Phase, full: bool, dice: &mut Dice) -> Option<Request> {
    let forward = Request::Supersede;
    Some(match hold {
        // Without a free slot there is no room for a fresh secret.
        Hold::Restored if full => Request::Resume,
        Hold::Restored if *was == Phase::Idle => Request::Rotate { compromised: false, unconfirmed: true },
        Hold::Restored => dice.pick(&[forward, Request::Resume]).clone(),
        Hold::TargetRefused | Hold::RejectedByConsumer => dice.pick(&[forward, Request::Rollback, Request::Resume]).clone(),
        Hold::KeystoreContested | Hold::KeystoreForeign | Hold::ApiKeyRefused | Hold::WebhookGone => Request::Resume,
        Hold::ConfigDrift => return None,
    })
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Rotate { compromised: true, .. } => "rotate, it has leaked",
        Request::Rotate { unconfirmed: true, .. } => "rotate, unconfirmed",
        Request::Rotate { .. } => "rotate",
        Request::Abort => "abort",
        Request::Rollback => "rollback",
        Request::Supersede => "supersede",
        Request::Pause => "pause",
        Request::Resume => "resume",
        _ => "something else",
    }
}

/// Others, who change the secret by hand and put the keystore's old content back.
async fn meddle(world: Arc<World>, hook: Arc<Hook>) {
    let mut dice = Dice::of(world.setup.seed, &format!("meddler {}", hook.place));
    loop {
        sleep(dice.between(10_000, 90_000)).await;
        if world.strikes(Fault::Robot, 20, &mut dice) {
            let steps = dice.between(1, 2) as usize;
            if hook.shelf.put_back(steps, world.ran()) {
                hook.log(|| format!("somebody puts back what the keystore held {steps} writes ago"));
            }
        }
        if world.strikes(Fault::ByHand, 6, &mut dice) {
            let secret = hookturn::secret::Secret::generate().expect("randomness");
            apply(&hook, &secret, By::Person, &world.setup, &mut dice);
        }
    }
}

/// The consumer's own troubles.
async fn strain(world: Arc<World>, hook: Arc<Hook>) {
    let mut dice = Dice::of(world.setup.seed, &format!("consumer {}", hook.place));
    loop {
        sleep(dice.between(2_000, 30_000)).await;
        let now = world.ran();
        let at = dice.below(hook.replicas.len() as u64) as usize;
        let replica = &hook.replicas[at];
        if world.strikes(Fault::Stuck, 60, &mut dice) {
            let ms = dice.between(1_000, 60_000);
            hook.log(|| format!("{} does not refresh for {ms} ms", replica.name));
            replica.stick(&hook, now, now + ms);
        }
        if world.strikes(Fault::Restarts, 60, &mut dice) {
            let down = dice.between(10, 8_000);
            hook.log(|| format!("{} restarts, {down} ms", replica.name));
            replica.restart(&hook, now, down);
        }
        if world.setup.proof == Proof::StatusFiles && at > 0 && world.strikes(Fault::Scaling, 60, &mut dice) {
            let gone = !replica.is_gone();
            hook.log(|| format!("{} {}", replica.name, if gone { "is gone" } else { "is there" }));
            replica.go(gone, &hook, now);
        }
        if world.strikes(Fault::Rejects, 15, &mut dice)
            && let Some(target) = world.judge.record(&hook).and_then(|record| record.phase.rotation().map(|r| r.target))
        {
            // Until it is mended.
            let until = now + dice.between(2_000, 40_000);
            hook.log(|| format!("{} will not have {target} until {until}", replica.name));
            replica.refuse(target, until);
        }
    }
}

async fn clocks(world: Arc<World>) {
    let mut dice = Dice::of(world.setup.seed, "clocks");
    loop {
        sleep(dice.between(5_000, 120_000)).await;
        // What is on its way through the network does not wait for the machine.
        let under_way = world.hooks.iter().any(|hook| hook.signer.is_busy());
        if world.strikes(Fault::Suspend, 50, &mut dice) && !under_way {
            // Longer than what counts as a nap: a shorter one is as good as watched.
            let ms = dice.between(31_000, 600_000);
            world.judge.log(|| format!("the machine sleeps for {ms} ms"));
            world.machine.suspend(ms);
        }
        if world.strikes(Fault::WallClock, 50, &mut dice) {
            let days = dice.below(2_000) as i64 - 1_000;
            world.judge.log(|| format!("the wall clock is set by {days} days"));
            world.machine.set_wall(days * 86_400_000);
        }
    }
}
