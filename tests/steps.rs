//! Every step of a rotation fails at each of its calls, is done twice at each of them, and dies at each of them; with every
//! keystore and every store. The harness finds the calls itself: it counts them as the real daemon makes them, and goes on
//! until there are no more. After each, the rotation still ends, nothing is lost, and no keystore ever lacks a live key.
//!
//! `HOOKTURN_STEPS=long` does all four things at each call; otherwise each call has one of them, in turn.

#[path = "steps/backend.rs"]
mod backend;
#[path = "steps/faulty.rs"]
mod faulty;
#[path = "steps/suspend.rs"]
mod suspend;
#[path = "steps/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use backend::{KeystoreKind, StoreKind};
use faulty::{Call, Mode, calls_of};
use futures_util::StreamExt;
use hookturn::{
    daemon::Request,
    rotation::{Effect, KidSet},
    secret::Kid,
};
use world::{Life, World};

/// What a rotation came to.
struct Ran {
    calls: Vec<Call>,
    went_wrong: Option<Call>,
    generation: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_survives_a_fault_at_each_call_with_every_keystore_and_store() {
    let combinations = KeystoreKind::ALL.into_iter().flat_map(|keystore| StoreKind::ALL.map(|store| (keystore, store)));
    let mut failed = Vec::new();
    for (place, (keystore, store)) in combinations.enumerate() {
        let plain = rotate(keystore, store, None).await;
        for effect in effects() {
            let missing = calls_of(&effect).iter().find(|call| !plain.calls.contains(call));
            assert!(missing.is_none(), "{keystore:?}, {store:?}: {effect:?} is never carried out: no {missing:?}");
        }
        let mut tally: BTreeMap<Call, usize> = BTreeMap::new();
        let mut number = 0;
        let ended = loop {
            let numbers: Vec<usize> = (number + 1..=number + AT_ONCE).collect();
            number += AT_ONCE;
            let runs = numbers.into_iter().flat_map(|number| modes(number + place).into_iter().map(move |mode| (number, mode)));
            let runs = futures_util::stream::iter(runs).map(|(number, mode)| async move {
                let run = tokio::spawn(rotate(keystore, store, Some((number, mode)))).await;
                (number, mode, run.map_err(|panic| why(panic.into_panic())))
            });
            let mut beyond = false;
            for (number, mode, run) in runs.buffered(AT_ONCE).collect::<Vec<_>>().await {
                match run {
                    Ok(Ran { went_wrong: Some(call), generation, .. }) => {
                        *tally.entry(call).or_default() += 1;
                        if mode == Mode::Twice && generation != plain.generation {
                            failed.push(format!("{keystore:?}, {store:?}: {call:?} twice ends in generation {generation}"));
                        }
                    }
                    Ok(Ran { went_wrong: None, .. }) => beyond = true,
                    Err(why) => failed.push(format!("{keystore:?}, {store:?}, call {number} {mode:?}: {why}")),
                }
            }
            if beyond || number > MOST_CALLS {
                break number;
            }
        };
        let tally: Vec<String> = tally.iter().map(|(call, count)| format!("{call:?} {count}")).collect();
        println!("{keystore:?} with {store:?}: {}", tally.join(", "));
        assert!(ended <= MOST_CALLS, "a rotation that never stops calling");
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// Rotations at the same time.
const AT_ONCE: usize = 8;
/// Far more than a rotation makes.
const MOST_CALLS: usize = 2_000;

fn modes(turn: usize) -> Vec<Mode> {
    match std::env::var("HOOKTURN_STEPS") {
        Ok(mode) if mode == "long" => Mode::ALL.to_vec(),
        _ => vec![Mode::ALL[turn % Mode::ALL.len()]],
    }
}

/// One of each effect.
fn effects() -> [Effect; 6] {
    let kid = Kid::parse("k_a").expect("a kid");
    [
        Effect::WriteKeystore { call: 1, generation: 1, kids: KidSet::new() },
        Effect::ReadKeystore { call: 1 },
        Effect::AskReplicas {
            round: 1,
            whom: Vec::new(),
            generation: 1,
            accept: kid,
            control: None,
            refuse: KidSet::new(),
            full: true,
        },
        Effect::InspectWebhook { call: 1 },
        Effect::Connect { call: 1 },
        Effect::SendPatch { call: 1, attempt: 1, kid },
    ]
}

/// One rotation from an adopted secret to its end, in a new life, with one call of it going wrong.
async fn rotate(keystore: KeystoreKind, store: StoreKind, wrong: Option<(usize, Mode)>) -> Ran {
    let world = World::new(keystore, store);
    settle_in(&world).await;
    world.plan.begin(wrong);
    let began = Instant::now();
    let mut life: Option<Life> = None;
    let mut asking = None;
    let generation = loop {
        let status = match &life {
            Some(life) => life.status().await,
            None => None,
        };
        assert!(began.elapsed() < Duration::from_secs(120), "it does not end: {status:#?}");
        if world.plan.take_death() || life.is_none() {
            asking = None;
            if let Some(dead) = life.take() {
                dead.kill().await;
            }
            life = world.begin().await;
            continue;
        }
        let (Some(living), Some(status)) = (&life, status) else { continue };
        assert_eq!(status.hold, None, "{status:#?}");
        assert_eq!(world.plan.broken_promise(), None);
        if status.completed == 1 && status.phase == "idle" {
            break status.generation;
        }
        // A person asks again where the answer was an error.
        let unanswered = asking.as_ref().is_some_and(|asking: &tokio::task::JoinHandle<_>| !asking.is_finished());
        if status.rotation == 0 && !unanswered {
            asking = Some(living.ask(Request::Rotate { compromised: false, unconfirmed: true }));
        }
        world.deliver(living).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    };
    if let Some(life) = life.take() {
        life.kill().await;
    }
    judge(&world).await;
    Ran { calls: world.plan.calls(), went_wrong: world.plan.went_wrong(), generation }
}

async fn settle_in(world: &World) {
    let life = world.begin().await.expect("no fault yet");
    life.ask(Request::Adopt { secret: world.first_secret() }).await.expect("an answer").expect("adopted");
    let began = Instant::now();
    while !life.status().await.is_some_and(|status| status.confirmed) {
        assert!(began.elapsed() < Duration::from_secs(120), "never confirmed");
        world.deliver(&life).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    life.kill().await;
}

/// DialNexa was sent one new value, again and again perhaps; the consumer accepts that and nothing else; and the store still
/// has both secrets.
async fn judge(world: &World) {
    assert_eq!(world.plan.broken_promise(), None);
    assert_eq!(world.dialnexa.values(), 1, "a doubt has made another secret");
    let accepted = world.shelf.accepted().await.expect("the keystore can be read");
    assert!(accepted.len() == 1 && accepted[0].1.same_as(&world.dialnexa.signing()), "{} keys are left", accepted.len());
    let store = world.store().await;
    assert_eq!(store.secrets("billing").await.expect("read").len(), 2);
    store.close().await;
}

fn why(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
