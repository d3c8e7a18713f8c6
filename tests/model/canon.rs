//! One name for all states that differ only in names: numbers that rise for ever start again, dead key ids are used again,
//! replicas and key ids are put in an order of their own.

use hookturn::rotation::{Accrued, KeystoreView, Line, Phase, Record, ReplicaId, Retry, Timers, Verdict, WebhookView};

use super::{
    kids::recycle_kids,
    setup::{Assumption, Setup},
    world::{KIDS, Mask, REPLICAS, State, bit, drain_wait},
};

const KEYSTORE_CALL: u64 = 1;
const ROUND: u64 = 2;
const LINE_CALL: u64 = 3;
const WEBHOOK_CALL: u64 = 4;

/// Returns the new name of each kid.
pub fn canonical(state: &mut State, setup: &Setup) -> [u8; KIDS] {
    forget_unwaited(state);
    renumber_calls(state);
    settle_timers(state, setup);
    flatten_volatile(state, setup);
    flatten_record(&mut state.record, setup);
    if let Some(backup) = &mut state.world.backup {
        flatten_record(&mut backup.record, setup);
    }
    if drain_wait(&state.record).is_none() {
        state.world.younger |= std::mem::take(&mut state.world.elder);
    }
    if state.world.elder == 0 {
        state.world.elder_life = 0;
    }
    if state.world.meddling == 0 && setup.broken != Some(Assumption::ReplicasGoForward) {
        state.world.older = None;
    }
    state.world.hand &= state.world.flying() | bit(state.world.provider);
    renumber_generations(state);
    order_replicas(state, setup);
    recycle_kids(state, setup)
}

/// What is owed and no longer waited for has no effect, except on the world.
fn forget_unwaited(state: &mut State) {
    let (v, w) = (&state.volatile, &mut state.world);
    if !matches!(v.keystore, KeystoreView::Reading { .. }) {
        w.read = None;
    }
    w.early &= w.read.is_some();
    if !matches!(v.keystore, KeystoreView::Writing { .. })
        && let Some(write) = w.write.take()
        && !write.applied
    {
        w.stray.push(write.content);
    }
    if v.asking.is_none() {
        w.ask = None;
    }
    if !matches!(v.webhook, WebhookView::Asking { .. }) {
        w.inspect = None;
    }
    if !matches!(v.line, Line::Connecting { .. }) {
        w.connect = None;
    }
    if !matches!(v.line, Line::Sent { .. }) {
        w.sent = None;
    }
}

fn renumber_calls(state: &mut State) {
    let (v, w) = (&mut state.volatile, &mut state.world);
    v.calls = WEBHOOK_CALL;
    match &mut v.keystore {
        KeystoreView::Reading { call, .. } | KeystoreView::Writing { call } => *call = KEYSTORE_CALL,
        _ => {}
    }
    w.read = w.read.map(|_| KEYSTORE_CALL);
    if let Some(write) = &mut w.write {
        write.call = KEYSTORE_CALL;
    }
    v.asking = v.asking.map(|_| ROUND);
    if let Some(ask) = &mut w.ask {
        ask.round = ROUND;
    }
    if let Line::Connecting { call } = &mut v.line {
        *call = LINE_CALL;
    }
    w.connect = w.connect.map(|_| LINE_CALL);
    if let WebhookView::Asking { call } = &mut v.webhook {
        *call = WEBHOOK_CALL;
    }
    w.inspect = w.inspect.map(|_| WEBHOOK_CALL);
    state.record.attempts = 0;
    if let Line::Sent { attempt, .. } = &mut v.line {
        *attempt = 1;
        state.record.attempts = 1;
    }
    if let Some(sent) = &mut w.sent {
        sent.attempt = 1;
    }
}

/// A retry may come at any time: that it comes late is the same as a slow answer. Only the look has two states.
fn settle_timers(state: &mut State, setup: &Setup) {
    let timers = &mut state.volatile.timers;
    let stuck = timers.line_retry.left > u64::MAX / 2;
    let look = if setup.looks { timers.look.min(1) } else { 1 };
    *timers = Timers { look, ..Timers::default() };
    if stuck {
        timers.line_retry = Retry { left: u64::MAX, step: 0 };
    }
    let Accrued { elapsed, observed } = state.volatile.accrued;
    state.volatile.accrued = Accrued { elapsed: elapsed.min(2), observed: observed.min(2) };
}

/// Differences that no decision looks at in this setup.
fn flatten_volatile(state: &mut State, setup: &Setup) {
    let v = &mut state.volatile;
    v.verdicts.retain(|(_, verdict)| *verdict == Verdict::Accepts);
    if !v.reproving && matches!(v.webhook, WebhookView::Known(_)) {
        v.webhook = WebhookView::Unknown;
    }
    if let Line::Sent { alone, doubt, .. } = &mut v.line {
        *alone &= setup.emergency;
        *doubt *= u64::from(setup.refusals);
    }
}

fn flatten_record(record: &mut Record, setup: &Setup) {
    record.seq = 0;
    record.rotations = 0;
    record.confirmed = true;
    record.reaccepted.sort_unstable_by_key(|r| r.kid);
    record.retired.iter_mut().for_each(|retired| retired.compromised &= setup.reaccept);
    let phase = match &mut record.phase {
        Phase::Hold(_, was) => was.as_mut(),
        phase => phase,
    };
    match phase {
        Phase::Patch(_, patching) => {
            patching.sent = 1;
            patching.doubt *= u64::from(setup.refusals);
            patching.answered |= !(setup.refusals || setup.mutant);
            patching.settled &= setup.emergency;
        }
        Phase::Drain(_, draining) => draining.settled &= setup.emergency,
        _ => {}
    }
    if let Some(rotation) = record.phase.rotation_mut() {
        rotation.number = 0;
        rotation.losses = rotation.losses.min(2);
    }
}

/// Order and equality of generations count, and whether the next number is taken; their size does not.
fn renumber_generations(state: &mut State) {
    let mut all = Vec::with_capacity(12);
    each_generation(state, |generation| all.push(*generation));
    all.sort_unstable();
    all.dedup();
    let mut to = Vec::with_capacity(all.len());
    let mut next = 0;
    for (at, generation) in all.iter().enumerate() {
        next = match at {
            0 => u64::from(*generation > 0),
            _ => next + (generation - all[at - 1]).min(2),
        };
        to.push(next);
    }
    for record in [Some(&mut state.record), state.world.backup.as_mut().map(|b| &mut b.record)].into_iter().flatten() {
        if record.kept != record.generation {
            record.kept = u64::MAX;
        } else {
            record.kept = 0;
        }
    }
    each_generation(state, |generation| {
        if let Ok(at) = all.binary_search(generation) {
            *generation = to[at];
        }
    });
    for record in [Some(&mut state.record), state.world.backup.as_mut().map(|b| &mut b.record)].into_iter().flatten() {
        record.kept = if record.kept == 0 { record.generation } else { 0 };
    }
}

fn each_generation(state: &mut State, mut f: impl FnMut(&mut u64)) {
    f(&mut state.record.generation);
    let w = &mut state.world;
    f(&mut w.keystore.generation);
    w.stray.iter_mut().for_each(|content| f(&mut content.generation));
    w.write.iter_mut().for_each(|write| f(&mut write.content.generation));
    w.backup.iter_mut().for_each(|backup| f(&mut backup.record.generation));
}

/// Writes that the keystore would refuse are gone; so are more than the setup follows.
fn order_replicas(state: &mut State, setup: &Setup) {
    let w = &mut state.world;
    let newest = w.keystore.generation;
    if setup.broken != Some(Assumption::ConditionalWrite) && !w.meddled {
        w.stray.retain(|content| content.generation > newest);
    }
    w.stray.sort_unstable();
    w.stray.dedup();
    while w.stray.len() > setup.strays {
        w.stray.remove(0);
    }
    for unused in (0..REPLICAS).filter(|r| w.serving & (1 << r) == 0) {
        w.replicas[unused] = 0;
    }
    let replicas = usize::from(setup.replicas);
    for i in 0..replicas {
        for j in i + 1..replicas {
            if replica_key(state, j) < replica_key(state, i) {
                swap_replicas(state, i, j);
            }
        }
    }
}

fn replica_key(state: &State, i: usize) -> (Mask, Option<u8>, [bool; 5]) {
    let (v, w) = (&state.volatile, &state.world);
    let verdict = v.verdicts.iter().find(|(id, _)| usize::from(id.0) == i).map(|(_, verdict)| *verdict as u8);
    let has = |bits: u8| bits & (1 << i) != 0;
    let listed = v.roster.contains(&ReplicaId(i as u16));
    let asked = w.ask.is_some_and(|ask| has(ask.whom));
    (w.replicas[i], verdict, [has(w.serving), listed, asked, has(w.vouched), has(w.shown)])
}

fn swap_replicas(state: &mut State, i: usize, j: usize) {
    state.world.replicas.swap(i, j);
    let v = &mut state.volatile;
    for id in v.verdicts.iter_mut().map(|(id, _)| id).chain(&mut v.roster) {
        if usize::from(id.0) == i {
            id.0 = j as u16;
        } else if usize::from(id.0) == j {
            id.0 = i as u16;
        }
    }
    v.verdicts.sort_unstable_by_key(|(id, _)| *id);
    v.roster.sort_unstable();
    let swap = |bits: u8| (bits & !(1 << i) & !(1 << j)) | ((bits >> i & 1) << j) | ((bits >> j & 1) << i);
    let w = &mut state.world;
    (w.vouched, w.shown, w.serving) = (swap(w.vouched), swap(w.shown), swap(w.serving));
    if let Some(ask) = &mut w.ask {
        ask.whom = swap(ask.whom);
    }
}
