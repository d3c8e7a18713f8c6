//! What must hold in every state and over every transition.

use hookturn::rotation::{
    Cause, Current, Effect, Event, Found, Hold, Inspection, KeystoreView, Line, OnReject, Op, PatchAnswer, Phase, Record, Seen,
    Step, WebhookView,
};

use super::{
    setup::Setup,
    world::{Mask, State, bit, bit_of, index, mask},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub property: Property,
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Property {
    /// I1: every replica accepts what DialNexa signs with.
    Coverage,
    /// I2: every replica accepts every delivery under way.
    NoReject,
    /// I3: what a PATCH under way carries is in the keystore and accepted by every replica.
    LatePatchCovered,
    /// I4: what DialNexa signs with is on record or in the keystore.
    NeverLost,
    /// I5, I7: idle means that DialNexa signs with `current` and nothing else can still be applied.
    TruthfulCompletion,
    /// I6: every PATCH under way is open on record.
    IntentFirst,
    /// I8, I9: a rotation ends only when keystore and replicas accept what stays and nothing else.
    RetiredMeansRetired,
    /// I10: what was retired is never sent or accepted again.
    Tombstone,
    /// What has leaked is never sent again, and not accepted again once it is gone.
    LeakedStaysOut,
    /// I11: a probe, a body seen before or a refused delivery proves nothing.
    EvidenceOnly,
    /// The first proof: keystore and every replica were shown to have the target since anything last changed, when a PATCH
    /// goes out.
    ProvenBeforePatch,
    /// The second: they were shown once more, and DialNexa signs with the target, when a retire begins.
    BothProofs,
    /// A pause, a hold, a rejection and the keystore's slots are heeded; a hold has its reason.
    Heeded,
    /// `seq` and the generation rise, an attempt closes by credit only, what goes is remembered, answers are owed.
    Bookkeeping,
    /// L1: from every state some fault-free continuation ends the rotation.
    Liveness,
}

pub const SAFETY: &[Property] = &[
    Property::Coverage,
    Property::NoReject,
    Property::LatePatchCovered,
    Property::NeverLost,
    Property::TruthfulCompletion,
    Property::IntentFirst,
    Property::RetiredMeansRetired,
    Property::Tombstone,
    Property::LeakedStaysOut,
    Property::EvidenceOnly,
    Property::ProvenBeforePatch,
    Property::BothProofs,
    Property::Heeded,
    Property::Bookkeeping,
    Property::Liveness,
];

type Verdict = Result<(), Broken>;

/// Whether what was found can be kept neither beside what is on record nor alone.
pub fn foreign(record: &Record, found: &Found) -> bool {
    let together = record.keystore_kids().union(&found.strangers).len();
    found.opaque || record.policy.slots.is_some_and(|slots| together > usize::from(slots))
}

fn must(setup: &Setup, property: Property, holds: bool, what: &str) -> Verdict {
    if holds || !setup.check.contains(&property) {
        return Ok(());
    }
    Err(Broken { property, what: what.to_owned() })
}

/// Checks every state property.
pub fn state(state: &State, setup: &Setup) -> Verdict {
    let (r, w) = (&state.record, &state.world);
    let everywhere = w.everywhere();
    let signing = bit(w.provider);
    if !w.tainted {
        let covered = w.by_hand || signing & !everywhere == 0;
        must(setup, Property::Coverage, covered, "a replica refuses what DialNexa signs with")?;
        must(setup, Property::NoReject, w.flying() & !w.hand & !everywhere == 0, "a replica refuses a delivery under way")?;
        let covered = w.in_net() & !(everywhere & (w.keystore.kids | w.outside)) == 0;
        must(setup, Property::LatePatchCovered, covered, "a PATCH under way carries what is not accepted")?;
    }
    let somewhere =
        mask(&r.accepted) | w.outside | if w.tainted || w.by_hand { w.known | w.keystore.kids } else { w.keystore.kids };
    must(setup, Property::NeverLost, w.by_hand || signing & !somewhere == 0, "nobody has what DialNexa signs with")?;
    let open = r.open.iter().fold(0, |mask, open| mask | bit_of(open.kid));
    let forgotten = if w.restored { !w.known } else { 0 };
    must(setup, Property::IntentFirst, w.in_net() & !open & !forgotten == 0, "a PATCH under way is not on record")?;
    let buried = r.retired.iter().fold(0, |mask, retired| mask | bit_of(retired.kid));
    must(setup, Property::Tombstone, mask(&r.accepted) & buried == 0, "what was retired is accepted again")?;
    let target = r.phase.rotation().map_or(0, |rotation| bit_of(rotation.target));
    must(setup, Property::LeakedStaysOut, target & w.leaked == 0, "what has leaked is to be sent")?;
    let again = r.reaccepted.iter().fold(0, |mask, reaccepted| mask | bit_of(reaccepted.kid));
    must(setup, Property::LeakedStaysOut, again & w.leaked == 0, "what has leaked is accepted again")?;
    if r.phase == Phase::Idle && !w.by_hand && !w.said {
        let truthful = match r.current {
            Current::Known(kid) => index(kid) == w.provider,
            // A person said so of what is accepted, too.
            Current::Unknown => signing & (w.outside | if setup.unsure { mask(&r.accepted) } else { 0 }) != 0,
            Current::Missing => true,
        };
        must(setup, Property::TruthfulCompletion, truthful, "idle, and DialNexa signs with something else")?;
        must(setup, Property::TruthfulCompletion, w.in_net() & !signing == 0, "idle, and another PATCH may still land")?;
    }
    Ok(())
}

/// Checks what an event led to, in the world as it was.
pub fn transition(before: &State, step: &Step, event: &Event, setup: &Setup) -> Verdict {
    let (was, is) = (&before.record, &step.record);
    let rises = is.seq == was.seq + u64::from(is != was);
    must(setup, Property::Bookkeeping, rises, "seq does not rise by one with a change")?;
    // A restored record is not the one before it: what follows compares the two.
    if matches!(event, Event::Boot { restored: true, .. }) {
        return Ok(());
    }
    books(was, is, before, step, event, setup)?;
    attempts(was, is, before, step, setup)?;
    evidence(was, is, before, event, setup)?;
    heeded(was, is, before, step, event, setup)?;
    ended(was, is, before, setup)?;
    retired(was, is, before, event, setup)
}

fn books(was: &Record, is: &Record, before: &State, step: &Step, event: &Event, setup: &Setup) -> Verdict {
    let books = |holds, what| must(setup, Property::Bookkeeping, holds, what);
    books(is.generation >= was.generation, "the generation falls")?;
    let adopted = matches!(event, Event::Op(Op::Adopt { .. }));
    let same = is.generation != was.generation || is.keystore_kids() == was.keystore_kids() || adopted;
    books(same, "another content has the same generation")?;
    let confirmed = is.kept != is.generation || was.kept == was.generation && was.generation == is.generation;
    books(confirmed || adopted || step.volatile.keystore == KeystoreView::Confirmed, "kept, and not read back")?;
    let credit = before.volatile.accrued.elapsed
        + match event {
            Event::Tick { elapsed, .. } | Event::Boot { dark: elapsed, .. } => *elapsed,
            _ => 0,
        };
    let closed = was.open.iter().all(|open| {
        let left = is.open.iter().find(|still| still.kid == open.kid).map_or(0, |still| still.left);
        left + credit >= open.left
    });
    books(closed, "an attempt is closed before its quarantine is over")?;
    for gone in was.accepted.iter().filter(|kid| !is.accepted.contains(*kid)) {
        must(setup, Property::Tombstone, is.is_retired(gone), "what went is not remembered")?;
        let unsent = matches!(event, Event::Op(Op::Supersede { .. } | Op::Rollback))
            && matches!(was.phase.underlying(), Phase::Push(rotation) if rotation.target == gone)
            && was.open.iter().all(|open| open.kid != gone);
        let shrinks = matches!(is.phase, Phase::Retire(..) | Phase::Abort(..)) && !shrinking(&was.phase);
        // A person gives up what a restored record has beyond a full keystore.
        let given_up = settles(before, event)
            && was.open.iter().all(|open| open.kid != gone)
            && before.world.keystore.kids & bit_of(gone) == 0;
        books(unsent || shrinks || given_up, "something went outside of a retire or an abort")?;
    }
    let forgotten = was.retired.iter().any(|retired| !is.retired.contains(retired));
    must(setup, Property::Tombstone, !forgotten, "a tombstone is gone")
}

/// A person has asked to keep what a full keystore holds, and it was read again.
fn settles(before: &State, event: &Event) -> bool {
    let asked = before.volatile.overfull.as_ref().is_some_and(|overfull| overfull.settle);
    asked && matches!(event, Event::Keystore { .. }) && before.hold() == Some(Hold::Restored)
}

fn shrinking(phase: &Phase) -> bool {
    matches!(phase, Phase::Retire(..) | Phase::Abort(..))
}

fn attempts(was: &Record, is: &Record, before: &State, step: &Step, setup: &Setup) -> Verdict {
    for effect in &step.effects {
        if let Effect::SendPatch { kid, .. } = effect {
            must(setup, Property::Tombstone, !was.is_retired(*kid), "what was retired is sent")?;
            let target = is.phase.rotation().is_some_and(|rotation| rotation.target == *kid);
            must(setup, Property::IntentFirst, target, "something else than the target is sent")?;
            let open = is.open.iter().any(|open| open.kid == *kid && open.left == is.policy.quarantine);
            must(setup, Property::IntentFirst, open, "sent without an intent")?;
            let everybody = before.world.everybody();
            let shown = before.world.shown & everybody == everybody;
            must(setup, Property::ProvenBeforePatch, shown, "sent before everybody was shown to accept it")?;
            must(setup, Property::Heeded, !was.paused, "sent in a pause")?;
            must(setup, Property::Heeded, !matches!(is.phase, Phase::Hold(..)), "sent in a hold")?;
        }
    }
    Ok(())
}

/// A delivery is evidence if it is genuine, new, accepted, signed with the target, and DialNexa signs with it now.
fn evidence(was: &Record, is: &Record, before: &State, event: &Event, setup: &Setup) -> Verdict {
    let settled = |phase: &Phase| matches!(phase.underlying(), Phase::Patch(_, patching) if patching.settled);
    let signs = |kid| setup.lies || before.world.by_hand || index(kid) == before.world.provider;
    if let (Phase::Patch(rotation, _), true, false) = (is.phase.underlying(), settled(&is.phase), settled(&was.phase))
        && !matches!(was.phase.underlying(), Phase::Drain(..))
    {
        must(setup, Property::BothProofs, signs(rotation.target), "settled, and DialNexa signs with another")?;
    }
    if let (Event::Seen(Seen { kid, new_body: true, probe: false, .. }), Phase::Drain(rotation, _)) = (event, &was.phase)
        && rotation.target != *kid
        && was.accepted.contains(*kid)
    {
        let back = matches!(is.phase, Phase::Patch(..));
        must(setup, Property::EvidenceOnly, back, "another signature in the drain, and the drain goes on")?;
    }
    let Phase::Drain(rotation, draining) = is.phase.underlying() else { return Ok(()) };
    if matches!(was.phase.underlying(), Phase::Drain(..)) {
        return Ok(());
    }
    let genuine = matches!(event, Event::Seen(Seen { kid, new_body: true, probe: false, accepted })
        if *kid == rotation.target && *accepted != Some(false));
    must(setup, Property::EvidenceOnly, genuine, "something else than a genuine new delivery is evidence")?;
    let conclusive = before.world.by_hand || index(rotation.target) == before.world.provider;
    must(setup, Property::EvidenceOnly, conclusive, "taken for evidence, and DialNexa signs with another")?;
    must(setup, Property::BothProofs, draining.left == is.policy.drain, "the drain is not a whole one")
}

fn heeded(was: &Record, is: &Record, before: &State, step: &Step, event: &Event, setup: &Setup) -> Verdict {
    let heeded = |holds, what| must(setup, Property::Heeded, holds, what);
    let w = &before.world;
    let begins = is.rotations > was.rotations || shrinking(&is.phase) && !shrinking(was.phase.underlying());
    let retires = matches!(is.phase, Phase::Retire(..));
    let resumed = matches!(event, Event::Op(Op::Resume));
    let begun = begins && (retires || is.rotations > was.rotations);
    heeded(!(was.paused && begun) || resumed, "something is begun in a pause")?;
    heeded(!was.paused || is.paused || resumed, "the pause ends by itself")?;
    for effect in &step.effects {
        if let (Effect::WriteKeystore { kids, .. }, Some(slots)) = (effect, setup.slots) {
            heeded(kids.len() <= usize::from(slots), "more is written than the keystore can hold")?;
        }
    }
    let held = |record: &Record| matches!(record.phase, Phase::Hold(..));
    if let Event::Keystore { found, .. } = event {
        heeded(
            held(is) || settles(before, event) || !foreign(was, found),
            "what is in the keystore cannot be kept, and nobody is called",
        )?;
    }
    let rotating = was.phase.rotation().is_some();
    let expected = matches!(before.volatile.keystore, KeystoreView::Reading { .. });
    let as_it_should = |found: &Found| {
        found.generation == was.generation && found.kids == was.keystore_kids() && found.strangers.is_empty() && !found.opaque
    };
    let lost = matches!(event, Event::Keystore { found, .. } if !as_it_should(found));
    let contested = lost && rotating && expected && w.taken >= 2;
    heeded(!contested || held(is), "our content was taken away twice, and nobody is called")?;
    if let Event::Seen(Seen { kid, accepted: Some(false), probe: false, .. }) = event
        && let Phase::Patch(rotation, _) | Phase::Drain(rotation, _) = &was.phase
        && rotation.target == *kid
    {
        let back = was.current.kid().is_some()
            && !rotation.compromised
            && !matches!(rotation.cause, Cause::Rollback | Cause::SwitchBack)
            && setup.on_reject == OnReject::SwitchBack;
        let turned = is.phase.rotation().is_some_and(|r| r.cause == Cause::SwitchBack && Some(r.target) == was.current.kid());
        heeded(if back { turned && !held(is) } else { held(is) }, "a rejection by the consumer is not heeded")?;
    }
    if let (
        Event::Patched { answer: PatchAnswer::ValueRefused, .. },
        Line::Sent { kid, doubt: 0, .. },
        Phase::Patch(rotation, patching),
    ) = (event, before.volatile.line, &was.phase)
        && rotation.target == kid
    {
        heeded(
            held(is) != patching.answered,
            "a value that is refused is sent for ever, or one that may be applied is given up",
        )?;
    }
    if let Event::Boot { identity, .. } = event {
        let moved = *identity != was.identity && *was.phase.underlying() != Phase::Idle;
        heeded(!moved || held(is), "the identity moves under a rotation, and nobody is called")?;
    }
    // Once a person has let it go on it is an ordinary rollback.
    if let (Event::Patched { answer: PatchAnswer::Applied, .. }, Line::Sent { kid, .. }) = (event, before.volatile.line) {
        let back = matches!(&was.phase, Phase::Patch(r, _) if r.cause == Cause::SwitchBack && r.target == kid);
        heeded(!back || held(is), "switched back, and nobody is called")?;
    }
    let alone = matches!(&is.phase, Phase::Drain(r, _) | Phase::Retire(r, _) if r.cause == Cause::SwitchBack);
    heeded(!alone, "a switch-back goes on by itself")?;
    if held(was) && !held(is) {
        let left = matches!(event, Event::Op(_) | Event::Boot { .. }) || settles(before, event);
        heeded(left, "a hold ends by itself")?;
    }
    if held(is) && !held(was) {
        let Phase::Hold(hold, _) = &is.phase else { return Ok(()) };
        let switched_back = was.phase.rotation().is_some_and(|r| r.cause == Cause::SwitchBack);
        let reason = match hold {
            Hold::KeystoreContested => w.taken >= 2,
            Hold::KeystoreForeign => w.meddled || w.restored,
            Hold::Restored => w.meddled || w.restored,
            Hold::TargetRefused => matches!(event, Event::Patched { answer: PatchAnswer::ValueRefused, .. }),
            Hold::ApiKeyRefused => matches!(
                event,
                Event::Patched { answer: PatchAnswer::ApiKeyRefused, .. }
                    | Event::Webhook { answer: Inspection::ApiKeyRefused, .. }
            ),
            Hold::WebhookGone => matches!(
                event,
                Event::Patched { answer: PatchAnswer::WebhookGone, .. } | Event::Webhook { answer: Inspection::Gone, .. }
            ),
            Hold::RejectedByConsumer => match event {
                Event::Seen(seen) => seen.accepted == Some(false) || switched_back,
                Event::Patched { answer: PatchAnswer::Applied, .. } => {
                    let sent = matches!(before.volatile.line, Line::Sent { kid, .. }
                        if was.phase.rotation().is_some_and(|rotation| rotation.target == kid));
                    switched_back && sent
                }
                _ => false,
            },
            Hold::ConfigDrift => matches!(event, Event::Boot { .. }),
        };
        heeded(reason, "a hold without its reason")?;
    }
    Ok(())
}

/// A rotation that ends says that everybody agrees.
fn ended(was: &Record, is: &Record, before: &State, setup: &Setup) -> Verdict {
    if is.phase != Phase::Idle || !shrinking(&was.phase) {
        return Ok(());
    }
    let w = &before.world;
    let should = mask(&is.keystore_kids());
    let stays = mask(&is.accepted);
    // Of a key that a restored store has forgotten, and of one that was reaccepted for a while, no replica is asked.
    let right = |kids: Mask| (kids & !should & w.known == 0 || setup.reaccept) && stays & !kids == 0;
    let agreed = w.keystore.kids == should && w.each_serving().all(|r| right(w.replicas[usize::from(r)]));
    // Whoever was asked may have read since what somebody has put into the keystore and taken out again.
    must(setup, Property::RetiredMeansRetired, agreed || w.leftover, "ended, and somebody still accepts more")?;
    let shown = w.shown & w.everybody() == w.everybody();
    must(setup, Property::RetiredMeansRetired, shown, "ended before everybody was shown to accept it")?;
    let alone = is.accepted.len() == 1 && is.current.kid().is_some_and(|kid| is.accepted.contains(kid));
    must(setup, Property::RetiredMeansRetired, alone || is.current == Current::Unknown, "more than one is kept")
}

/// A retire begins only with both proofs.
fn retired(was: &Record, is: &Record, before: &State, event: &Event, setup: &Setup) -> Verdict {
    let Phase::Retire(rotation, shrinking) = &is.phase else { return Ok(()) };
    if matches!(was.phase.underlying(), Phase::Retire(..)) {
        return Ok(());
    }
    let w = &before.world;
    let proofs = |holds, what| must(setup, Property::BothProofs, holds, what);
    let everybody = w.everybody();
    proofs(w.vouched & everybody == everybody, "a retire without a new acceptance proof of everybody")?;
    proofs(shrinking.proven || rotation.compromised, "a retire for a target that was never seen to sign")?;
    let signs = w.by_hand || w.provider == index(rotation.target);
    proofs(signs || setup.lies && setup.emergency, "a retire while DialNexa signs with another")?;
    let looked = matches!(before.volatile.webhook, WebhookView::Known(_))
        || matches!(event, Event::Webhook { answer: Inspection::Active | Inspection::Inactive, .. });
    proofs(looked || rotation.compromised, "a retire for a webhook that was not looked at")?;
    let foreign = was.open.iter().any(|open| open.kid != rotation.target && is.open.contains(open));
    proofs(!foreign, "a retire while another attempt is open")?;
    let drained = match was.phase.underlying() {
        Phase::Drain(_, draining) => draining.left == 0,
        _ => false,
    };
    proofs(drained || rotation.compromised, "a retire before the drain is over")
}
