//! What holds over every transition, whatever the state and the event; and what holds besides where a daemon came from.

use hookturn::rotation::{
    Current, Effect, Event, KeystoreView, KidSet, Line, Millis, Note, Op, Phase, Record, Step, Verdict, Volatile,
};

/// A transition: what there was, what happened, and what came of it.
pub struct Turn<'a> {
    pub record: &'a Record,
    pub volatile: &'a Volatile,
    pub event: &'a Event,
    pub step: &'a Step,
}

type Law = Result<(), String>;

fn must(holds: bool, what: impl FnOnce() -> String) -> Law {
    if holds { Ok(()) } else { Err(what()) }
}

/// The laws of any state, also one that no daemon wrote.
pub fn anywhere(turn: &Turn) -> Law {
    numbers_rise(turn)?;
    open_shrinks_by_credit_alone(turn)?;
    drain_shrinks_by_watched_credit_alone(turn)?;
    effects_are_new_and_in_order(turn)?;
    turn.step.effects.iter().try_for_each(|effect| match effect {
        Effect::SendPatch { .. } => a_patch_is_proven(turn, effect),
        _ => Ok(()),
    })
}

/// The laws of a life that began with an adoption.
pub fn in_a_life(turn: &Turn) -> Law {
    anywhere(turn)?;
    accepted_shrinks_with_a_reason(turn)?;
    tombstones_are_final(turn)?;
    a_retire_is_proven(turn)?;
    what_may_be_signed_with_is_accepted(&turn.step.record)
}

fn numbers_rise(turn: &Turn) -> Law {
    let (before, after) = (turn.record, &turn.step.record);
    let rises = if before == after { 0 } else { 1 };
    must(after.seq == before.seq.saturating_add(rises), || format!("seq {} became {}", before.seq, after.seq))?;
    for (name, before, after) in [
        ("generation", before.generation, after.generation),
        ("attempts", before.attempts, after.attempts),
        ("rotations", before.rotations, after.rotations),
    ] {
        must(before <= after, || format!("{name} fell from {before} to {after}"))?;
    }
    Ok(())
}

/// Time that was not counted anywhere yet: what the event brings and what was gathered before it.
fn gathered(turn: &Turn) -> (Millis, Millis) {
    let (held, kept) = (turn.volatile.accrued, turn.step.volatile.accrued);
    let (elapsed, observed) = match turn.event {
        // A process that begins knows of no credit but what the boot clock vouches for.
        Event::Boot { dark, .. } => (*dark, 0),
        Event::Tick { elapsed, observed } => {
            (held.elapsed.saturating_add(*elapsed), held.observed.saturating_add(*observed.min(elapsed)))
        }
        _ => (held.elapsed, held.observed),
    };
    (elapsed.saturating_sub(kept.elapsed), observed.saturating_sub(kept.observed))
}

fn open_shrinks_by_credit_alone(turn: &Turn) -> Law {
    let (elapsed, _) = gathered(turn);
    for open in &turn.record.open {
        let after = turn.step.record.open.iter().filter(|other| other.kid == open.kid).map(|other| other.left).max();
        let lost = open.left.saturating_sub(after.unwrap_or(0));
        must(lost <= elapsed, || format!("{} lost {lost} ms of quarantine in {elapsed} ms", open.kid))?;
    }
    Ok(())
}

fn drain_shrinks_by_watched_credit_alone(turn: &Turn) -> Law {
    let (_, observed) = gathered(turn);
    let Phase::Drain(rotation, before) = &turn.record.phase else { return Ok(()) };
    match &turn.step.record.phase {
        Phase::Drain(_, after) => must(before.left.saturating_sub(after.left) <= observed, || {
            format!("the drain lost {} ms in {observed} ms", before.left - after.left)
        }),
        Phase::Retire(..) => {
            must(before.left <= observed || rotation.compromised, || "retired before the drain was over".to_owned())
        }
        _ => Ok(()),
    }
}

/// A call has a number that was never used, so that the answer to an older one can be told from its own.
fn effects_are_new_and_in_order(turn: &Turn) -> Law {
    let (booted, calls) = (matches!(turn.event, Event::Boot { .. }), turn.volatile.calls);
    let mut newest = if booted { 0 } else { calls };
    for effect in &turn.step.effects {
        let number = match effect {
            Effect::WriteKeystore { call, .. }
            | Effect::ReadKeystore { call }
            | Effect::InspectWebhook { call }
            | Effect::Connect { call } => *call,
            Effect::AskReplicas { round, .. } => *round,
            // It goes over the line that a call opened.
            Effect::SendPatch { .. } => continue,
        };
        must(number > newest || newest == u64::MAX, || format!("{effect:?} has an old number"))?;
        newest = number;
    }
    must(newest <= turn.step.volatile.calls, || "a number was given out and not counted".to_owned())
}

/// Nothing is sent but the target, on record as open, with the keystore read back and every replica shown to accept it.
fn a_patch_is_proven(turn: &Turn, effect: &Effect) -> Law {
    let Effect::SendPatch { call, attempt, kid } = effect else { return Ok(()) };
    let (after, volatile) = (&turn.step.record, &turn.step.volatile);
    let said = |what: &str| format!("attempt {attempt} with {kid}: {what}");
    must(matches!(turn.event, Event::Connected { call: ours } if ours == call), || said("nothing was connected for it"))?;
    let open = after.open.iter().any(|open| open.kid == *kid && open.left >= after.policy.quarantine);
    must(open, || said("it is not on record as open"))?;
    let target = matches!(&after.phase, Phase::Patch(rotation, _) if rotation.target == *kid);
    must(target, || said("it is not the target"))?;
    must(!after.paused, || said("the webhook is paused"))?;
    must(volatile.keystore == KeystoreView::Confirmed, || said("the keystore was not read back"))?;
    must(after.kept == after.generation, || said("the confirmed content is not on record"))?;
    must(volatile.timers.wait == 0, || said("the consumer's refresh period is not over"))?;
    must(matches!(volatile.line, Line::Sent { attempt: ours, .. } if ours == *attempt), || said("nobody waits for its answer"))?;
    must(after.attempts == *attempt && (*attempt > turn.record.attempts || *attempt == u64::MAX), || {
        said("its number is not new")
    })?;
    let proven = |verdict| match verdict {
        Some(Verdict::Accepts) => true,
        Some(Verdict::Inconclusive) => after.policy.unproven,
        _ => false,
    };
    let all = volatile.roster.iter().all(|id| proven(volatile.verdict(*id)));
    must(all && (after.policy.unproven || !volatile.roster.is_empty()), || said("a replica was not shown to accept it"))
}

/// Only a retire, an abort, a target that was never sent, an adoption in its place, and a reaccept that is over.
fn accepted_shrinks_with_a_reason(turn: &Turn) -> Law {
    let (before, after) = (turn.record, &turn.step.record);
    let gone = before.accepted.without(&after.accepted);
    if !gone.is_empty() {
        let noted = |wanted: fn(&Note) -> bool| turn.step.notes.iter().any(wanted);
        let only_the_unsent_target = || {
            let target = before.phase.rotation().map(|rotation| rotation.target);
            gone.iter().all(|kid| Some(kid) == target && before.open.iter().all(|open| open.kid != kid))
        };
        let reason = match turn.event {
            Event::Op(Op::Abort) => noted(|note| matches!(note, Note::AbortBegan { .. })) && only_the_unsent_target(),
            Event::Op(Op::Supersede { .. } | Op::Rollback) => {
                matches!(before.phase.underlying(), Phase::Push(_)) && only_the_unsent_target()
            }
            // What a restored record has beyond a keystore that is full.
            Event::Keystore { found, .. } if settles(turn) && !matches!(after.phase, Phase::Retire(..)) => {
                gone.iter().all(|kid| !found.kids.contains(kid) && before.open.iter().all(|open| open.kid != kid))
            }
            Event::Op(Op::Adopt { replace, generation, .. }) => {
                (*replace || generation.is_some()) && gone.iter().all(|kid| before.open.iter().all(|open| open.kid != kid))
            }
            _ => noted(|note| matches!(note, Note::RetireBegan { .. })),
        };
        must(reason, || format!("{gone:?} is no longer accepted"))?;
    }
    let (elapsed, _) = gathered(turn);
    for reaccepted in &before.reaccepted {
        let stays = after.keystore_kids().contains(reaccepted.kid);
        let given_up =
            settles(turn) && matches!(turn.event, Event::Keystore { found, .. } if !found.kids.contains(reaccepted.kid));
        must(stays || given_up || reaccepted.left <= elapsed, || format!("{} was to be accepted for longer", reaccepted.kid))?;
    }
    Ok(())
}

/// A person has asked to keep of a restored record what a full keystore holds.
fn settles(turn: &Turn) -> bool {
    turn.volatile.overfull.as_ref().is_some_and(|overfull| overfull.settle)
}

fn tombstones_are_final(turn: &Turn) -> Law {
    let (before, after) = (turn.record, &turn.step.record);
    // The core remembers the newest sixteen; the store refuses to forget any.
    let forgotten = (before.retired.len() + 1).saturating_sub(16);
    for retired in before.retired.iter().skip(forgotten) {
        let still = after.retired.iter().any(|other| other == retired);
        must(still, || format!("{} came back from the dead", retired.kid))?;
        must(!after.accepted.contains(retired.kid), || format!("{} was retired and is accepted", retired.kid))?;
    }
    let target = after.phase.rotation().map(|rotation| rotation.target);
    let dead = |kid| after.is_retired(kid) && !matches!(after.phase.underlying(), Phase::Abort(..));
    must(!target.is_some_and(dead), || "a retired secret is the target".to_owned())
}

/// Both proofs and the drain, or an emergency that went by an answer which nothing else could have muddled.
fn a_retire_is_proven(turn: &Turn) -> Law {
    let (before, after) = (turn.record, &turn.step.record);
    let Phase::Retire(rotation, shrinking) = &after.phase else { return Ok(()) };
    if matches!(before.phase, Phase::Retire(..)) || matches!(turn.event, Event::Boot { .. } | Event::Op(_)) {
        return Ok(());
    }
    let seen = match &before.phase {
        Phase::Drain(was, draining) => draining.proven || was.compromised,
        Phase::Patch(was, patching) => was.compromised && patching.settled,
        _ => false,
    };
    must(seen, || format!("{} was never seen to sign", rotation.target))?;
    must(!before.paused, || "it retires while it is paused".to_owned())?;
    must(after.open.iter().all(|open| open.kid == rotation.target), || "another request may still be applied".to_owned())?;
    let roster = &turn.step.volatile.roster;
    let proven = |id| {
        let now = matches!(turn.event, Event::Replica { replica, .. } if *replica == id);
        let verdict = match turn.event {
            Event::Replica { verdict, .. } if now => Some(*verdict),
            _ => turn.volatile.verdict(id),
        };
        verdict == Some(Verdict::Accepts) || (after.policy.unproven && verdict == Some(Verdict::Inconclusive))
    };
    let all = roster.iter().all(|id| proven(*id)) && (after.policy.unproven || !roster.is_empty());
    must(all, || "a replica was not shown to accept the target".to_owned())?;
    must(shrinking.removed.iter().all(|kid| kid != rotation.target), || "it takes the target away".to_owned())
}

/// Over-approximation: whatever DialNexa may sign with by this record is accepted.
pub fn what_may_be_signed_with_is_accepted(record: &Record) -> Law {
    let accepts = |kid| record.accepted.contains(kid);
    for open in &record.open {
        must(accepts(open.kid), || format!("{} may still be applied and is not accepted", open.kid))?;
    }
    let retiring = matches!(record.phase.underlying(), Phase::Retire(..));
    if let Current::Known(kid) = record.current {
        must(accepts(kid) || retiring, || format!("{kid} is current and is not accepted"))?;
    }
    match record.phase.underlying() {
        Phase::Push(rotation) | Phase::Patch(rotation, _) | Phase::Drain(rotation, _) => {
            must(accepts(rotation.target), || "the target is not accepted".to_owned())?;
        }
        Phase::Retire(rotation, _) => {
            let alone: KidSet = [rotation.target].into_iter().collect();
            must(record.accepted == alone, || format!("in retire {:?} is accepted", record.accepted))?;
        }
        Phase::Abort(rotation, _) => must(!accepts(rotation.target), || "what was given up is accepted".to_owned())?,
        Phase::Idle | Phase::Hold(..) => {}
    }
    must(record.kept <= record.generation, || "more was confirmed than was ever written".to_owned())
}
