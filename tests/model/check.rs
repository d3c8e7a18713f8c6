//! What must hold in every state and over every transition.

use std::cell::Cell;

use hookturn::rotation::{Current, Effect, Event, Phase, Record, Step};

use super::{
    action::KEYSTORE_VOUCHES,
    world::{Mask, Property, Setup, State, World, bit, bit_of, index, mask},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub property: Property,
    pub what: String,
}

thread_local! {
    static UNJUDGED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a transition whose record was not the one before it: a backup's.
pub fn unjudged<T>(f: impl FnOnce() -> T) -> T {
    UNJUDGED.with(|unjudged| unjudged.set(true));
    let result = f();
    UNJUDGED.with(|unjudged| unjudged.set(false));
    result
}

struct Checker<'a> {
    setup: &'a Setup,
}

impl Checker<'_> {
    fn must(&self, property: Property, holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
        if holds || !self.setup.check.contains(&property) {
            return Ok(());
        }
        Err(Broken { property, what: what() })
    }
}

/// Checks every state property.
pub fn state(state: &State, setup: &Setup) -> Result<(), Broken> {
    let check = Checker { setup };
    let (r, w) = (&state.record, &state.world);
    let everywhere = w.replicas[..setup.replicas].iter().fold(Mask::MAX, |all, content| all & content.kids);
    let signing = bit(w.provider);
    if !w.tainted {
        check.must(Property::Coverage, signing & !everywhere == 0, || "a replica refuses what DialNexa signs with".into())?;
        check.must(Property::NoReject, w.flying() & !everywhere == 0, || "a replica refuses a delivery under way".into())?;
        let covered = w.in_net() & !(everywhere & w.keystore.kids) == 0;
        check.must(Property::LatePatchCovered, covered, || "a PATCH under way carries what is not accepted".into())?;
    }
    let somewhere = mask(&r.accepted) | if w.tainted { w.known } else { w.keystore.kids };
    check.must(Property::NeverLost, signing & !somewhere == 0, || "nobody has what DialNexa signs with".into())?;
    let open = r.open.iter().fold(0, |mask, open| mask | bit_of(open.kid));
    let forgotten = if w.restored { !w.known } else { 0 };
    check.must(Property::IntentFirst, w.in_net() & !open & !forgotten == 0, || "a PATCH under way is not on record".into())?;
    if r.phase == Phase::Idle {
        let truthful = r.current.kid().is_some_and(|kid| index(kid) == w.provider);
        check.must(Property::TruthfulCompletion, truthful, || "idle, and DialNexa signs with something else".into())?;
        let alone = w.in_net() & !signing == 0;
        check.must(Property::TruthfulCompletion, alone, || "idle, and another PATCH may still land".into())?;
    }
    Ok(())
}

/// Checks what an event led to, in the world as it was.
pub fn transition(before: &Record, step: &Step, event: &Event, world: &World, setup: &Setup) -> Result<(), Broken> {
    let check = Checker { setup };
    if UNJUDGED.with(Cell::get) {
        return Ok(());
    }
    let after = &step.record;
    let rises = if after == before { after.seq == before.seq } else { after.seq == before.seq + 1 };
    check.must(Property::Bookkeeping, rises, || "seq does not rise by one with a change".into())?;
    check.must(Property::Bookkeeping, after.generation >= before.generation, || "the generation falls".into())?;
    for effect in &step.effects {
        if let Effect::SendPatch { kid, .. } = effect {
            check.must(Property::Tombstone, !before.is_retired(*kid), || format!("{kid} was retired and is sent"))?;
            check
                .must(Property::IntentFirst, after.open.iter().any(|o| o.kid == *kid), || format!("{kid} is sent unrecorded"))?;
        }
    }
    ended(&check, before, after, world)?;
    retired(&check, before, after, event, world)
}

/// A rotation that ends says that everybody agrees.
fn ended(check: &Checker, before: &Record, after: &Record, world: &World) -> Result<(), Broken> {
    if after.phase != Phase::Idle || !matches!(before.phase, Phase::Retire(..) | Phase::Abort(..)) {
        return Ok(());
    }
    let should = mask(&after.keystore_kids());
    let stays = mask(&after.accepted);
    // Of a key that a restored store has forgotten, and of one that was reaccepted for a while, no replica is asked.
    let right = |kids: Mask| (kids & !should & world.known == 0 || check.setup.reaccept) && stays & !kids == 0;
    let agreed = world.keystore.kids == should && world.replicas[..check.setup.replicas].iter().all(|c| right(c.kids));
    check.must(Property::RetiredMeansRetired, agreed || world.tainted, || "ended, and somebody still accepts more".into())?;
    let alone = after.accepted.len() == 1 && after.current.kid().is_some_and(|kid| after.accepted.contains(kid));
    check.must(Property::RetiredMeansRetired, alone || matches!(after.current, Current::Unknown), || {
        "more than one is kept".into()
    })
}

/// A retire begins only with both proofs.
fn retired(check: &Checker, before: &Record, after: &Record, event: &Event, world: &World) -> Result<(), Broken> {
    let Phase::Retire(rotation, shrinking) = &after.phase else { return Ok(()) };
    if matches!(before.phase.underlying(), Phase::Retire(..)) {
        return Ok(());
    }
    let all = (0..check.setup.replicas).fold(KEYSTORE_VOUCHES, |bits, r| bits | 1 << r);
    // The answer that completes the proofs is judged before it is counted.
    let vouched = world.vouched & all == all;
    let by_name = || format!("{} retired what came before without an acceptance proof ({})", rotation.target, event.name());
    check.must(Property::BothProofs, vouched, by_name)?;
    let proven = shrinking.proven || rotation.compromised;
    check.must(Property::BothProofs, proven, || format!("{} was never seen to sign", rotation.target))?;
    let signs = world.provider == index(rotation.target);
    check.must(Property::BothProofs, signs, || format!("retires for {} while DialNexa signs with another", rotation.target))
}
