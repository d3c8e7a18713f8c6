//! One name for all states that differ only in names: numbers that rise for ever start again, dead key ids are used again,
//! replicas and key ids are put in an order of their own.

use hookturn::rotation::{Accrued, Current, KeystoreView, KidSet, Line, Phase, Record, Retry, Timers, Verdict, WebhookView};

use super::world::{Content, KIDS, Mask, REPLICAS, Setup, State, bit, bit_of, drain_wait, each, index, kid, mask, set};

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
    let stuck = timers.line_retry.left == u64::MAX;
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
    if let Line::Sent { alone, .. } = &mut v.line {
        *alone &= setup.emergency;
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
            patching.ambiguous |= !setup.refusals;
            patching.answered |= !setup.mutant;
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
    w.replicas.iter_mut().for_each(|content| f(&mut content.generation));
    w.stray.iter_mut().for_each(|content| f(&mut content.generation));
    w.write.iter_mut().for_each(|write| f(&mut write.content.generation));
    w.older.iter_mut().for_each(|content| f(&mut content.generation));
    w.backup.iter_mut().for_each(|backup| f(&mut backup.record.generation));
}

/// Writes that the keystore would refuse are gone; so are more than the setup follows.
fn order_replicas(state: &mut State, setup: &Setup) {
    let w = &mut state.world;
    let newest = w.keystore.generation;
    if setup.broken != Some(super::world::Assumption::ConditionalWrite) {
        w.stray.retain(|content| content.generation > newest);
    }
    w.stray.sort_unstable();
    w.stray.dedup();
    while w.stray.len() > setup.strays {
        w.stray.remove(0);
    }
    for unused in setup.replicas..REPLICAS {
        w.replicas[unused] = w.replicas[0];
    }
    for i in 0..setup.replicas {
        for j in i + 1..setup.replicas {
            if replica_key(state, j) < replica_key(state, i) {
                swap_replicas(state, i, j);
            }
        }
    }
    for unused in setup.replicas..REPLICAS {
        state.world.replicas[unused] = state.world.replicas[0];
    }
}

fn replica_key(state: &State, i: usize) -> (Content, Option<u8>, bool, bool) {
    let verdict = state.volatile.verdicts.iter().find(|(id, _)| usize::from(id.0) == i).map(|(_, verdict)| *verdict as u8);
    let asked = state.world.ask.is_some_and(|ask| ask.whom & (1 << i) != 0);
    (state.world.replicas[i], verdict, asked, state.world.vouched & (1 << i) != 0)
}

fn swap_replicas(state: &mut State, i: usize, j: usize) {
    state.world.replicas.swap(i, j);
    for (id, _) in &mut state.volatile.verdicts {
        if usize::from(id.0) == i {
            id.0 = j as u16;
        } else if usize::from(id.0) == j {
            id.0 = i as u16;
        }
    }
    state.volatile.verdicts.sort_unstable_by_key(|(id, _)| *id);
    let swap = |bits: u8| (bits & !(1 << i) & !(1 << j)) | ((bits >> i & 1) << j) | ((bits >> j & 1) << i);
    state.world.vouched = swap(state.world.vouched);
    if let Some(ask) = &mut state.world.ask {
        ask.whom = swap(ask.whom);
    }
}

/// A kid that nothing speaks of. For the way out of a hold there is always one more.
pub fn unused(state: &State, setup: &Setup) -> Option<u8> {
    let most = if state.held() || keystore_astray(state) { KIDS } else { usize::from(setup.kids) };
    roles(state).iter().take(most).position(|roles| *roles == 0).map(|at| at as u8)
}

/// While idle nobody looks at the keystore: the next rotation puts it right.
pub fn keystore_astray(state: &State) -> bool {
    state.record.phase == Phase::Idle && state.world.keystore.kids != mask(&state.record.keystore_kids())
}

/// Which kids anything but the graveyard still speaks of.
fn live(state: &State) -> Mask {
    roles(state).iter().enumerate().filter(|(_, roles)| **roles & !BURIED != 0).fold(0, |mask, (at, _)| mask | bit(at as u8))
}

/// Role bits that do not keep a kid alive.
const BURIED: u64 = 0b111;

fn roles(state: &State) -> [u64; KIDS] {
    let mut roles = [0u64; KIDS];
    let mut role = 0;
    let mut give = |mask: Mask, width: u32, value: u64| {
        for kid in each(mask) {
            roles[usize::from(kid)] |= value << role;
        }
        role += width;
    };
    let (r, w) = (&state.record, &state.world);
    give(w.known, 1, 1);
    give(r.retired.iter().fold(0, |m, x| m | bit_of(x.kid)), 1, 1);
    give(r.retired.iter().filter(|x| x.compromised).fold(0, |m, x| m | bit_of(x.kid)), 1, 1);
    give_record(r, &mut give);
    give(bit(w.provider), 1, 1);
    (1..=3).for_each(|life| give((0..KIDS as u8).filter(|k| w.net[usize::from(*k)] == life).fold(0, |m, k| m | bit(k)), 1, 1));
    give(w.keystore.kids, 1, 1);
    w.replicas.iter().for_each(|content| give(content.kids, 1, 1));
    give(w.elder, 1, 1);
    give(w.younger, 1, 1);
    give(w.write.map_or(0, |write| write.content.kids), 1, 1);
    give(w.ask.map_or(0, |ask| bit(ask.accept)), 1, 1);
    give(w.ask.map_or(0, |ask| ask.refuse), 1, 1);
    give(w.sent.map_or(0, |sent| bit(sent.kid)), 1, 1);
    (0..2).for_each(|at| give(w.stray.get(at).map_or(0, |content| content.kids), 1, 1));
    give(w.older.map_or(0, |content| content.kids), 1, 1);
    if let Some(backup) = &w.backup {
        give(backup.known, 1, 1);
        give_record(&backup.record, &mut give);
    }
    roles
}

fn give_record(r: &Record, give: &mut impl FnMut(Mask, u32, u64)) {
    give(r.current.kid().map_or(0, bit_of), 1, 1);
    give(mask(&r.accepted), 1, 1);
    (0..=3).for_each(|left| give(r.open.iter().filter(|o| o.left == left).fold(0, |m, o| m | bit_of(o.kid)), 1, 1));
    give(r.reaccepted.iter().fold(0, |m, x| m | bit_of(x.kid)), 1, 1);
    let rotation = r.phase.rotation();
    give(rotation.map_or(0, |rotation| bit_of(rotation.target)), 1, 1);
    give(rotation.map_or(0, |rotation| mask(&rotation.dropped)), 1, 1);
    let removed = match r.phase.underlying() {
        Phase::Retire(_, shrinking) | Phase::Abort(_, shrinking) => mask(&shrinking.removed),
        _ => 0,
    };
    give(removed, 1, 1);
}

/// Dead kids leave the graveyard, and live ones are named by their roles.
fn recycle_kids(state: &mut State, setup: &Setup) -> [u8; KIDS] {
    let mut live = live(state);
    if setup.reaccept
        && let Some(kept) = state.record.retired.iter().rev().find(|r| live & bit_of(r.kid) == 0)
    {
        live |= bit_of(kept.kid);
    }
    bury(state, live);
    let roles = roles(state);
    let mut order: [u8; KIDS] = std::array::from_fn(|at| at as u8);
    order.sort_by_key(|kid| std::cmp::Reverse((roles[usize::from(*kid)] & !BURIED, roles[usize::from(*kid)])));
    let mut to = [0u8; KIDS];
    for (at, kid) in order.iter().enumerate() {
        to[usize::from(*kid)] = at as u8;
    }
    if to != std::array::from_fn(|at| at as u8) {
        rename(state, &to);
    }
    to
}

fn bury(state: &mut State, live: Mask) {
    state.world.known &= live;
    state.record.retired.retain(|r| live & bit_of(r.kid) != 0);
    state.record.retired.sort_unstable_by_key(|r| r.kid);
    if let Some(backup) = &mut state.world.backup {
        backup.known &= live;
        backup.record.retired.retain(|r| live & bit_of(r.kid) != 0);
        backup.record.retired.sort_unstable_by_key(|r| r.kid);
    }
}

fn rename(state: &mut State, to: &[u8; KIDS]) {
    let name = |at: u8| to[usize::from(at)];
    let masks = |bits: Mask| each(bits).fold(0, |mask, at| mask | bit(name(at)));
    rename_record(&mut state.record, &name);
    let w = &mut state.world;
    w.provider = name(w.provider);
    let net = w.net;
    (0..KIDS as u8).for_each(|at| w.net[usize::from(name(at))] = net[usize::from(at)]);
    w.replicas.iter_mut().for_each(|content| content.kids = masks(content.kids));
    w.stray.iter_mut().for_each(|content| content.kids = masks(content.kids));
    w.older.iter_mut().for_each(|content| content.kids = masks(content.kids));
    w.keystore.kids = masks(w.keystore.kids);
    (w.elder, w.younger, w.known) = (masks(w.elder), masks(w.younger), masks(w.known));
    if let Some(write) = &mut w.write {
        write.content.kids = masks(write.content.kids);
    }
    if let Some(ask) = &mut w.ask {
        (ask.accept, ask.refuse) = (name(ask.accept), masks(ask.refuse));
    }
    if let Some(sent) = &mut w.sent {
        sent.kid = name(sent.kid);
    }
    if let Some(backup) = &mut w.backup {
        backup.known = masks(backup.known);
        rename_record(&mut backup.record, &name);
    }
}

fn rename_record(r: &mut Record, name: &impl Fn(u8) -> u8) {
    let one = |old: hookturn::secret::Kid| kid(name(index(old)));
    let many = |kids: &KidSet| set(each(mask(kids)).fold(0, |mask, at| mask | bit(name(at))));
    if let Current::Known(current) = &mut r.current {
        *current = one(*current);
    }
    r.accepted = many(&r.accepted);
    r.open.iter_mut().for_each(|open| open.kid = one(open.kid));
    r.open.sort_unstable_by_key(|open| open.kid);
    r.reaccepted.iter_mut().for_each(|reaccepted| reaccepted.kid = one(reaccepted.kid));
    r.reaccepted.sort_unstable_by_key(|reaccepted| reaccepted.kid);
    r.retired.iter_mut().for_each(|retired| retired.kid = one(retired.kid));
    r.retired.sort_unstable_by_key(|retired| retired.kid);
    if let Some(rotation) = r.phase.rotation_mut() {
        rotation.target = one(rotation.target);
        rotation.dropped = many(&rotation.dropped);
    }
    let phase = match &mut r.phase {
        Phase::Hold(_, was) => was.as_mut(),
        phase => phase,
    };
    if let Phase::Retire(_, shrinking) | Phase::Abort(_, shrinking) = phase {
        shrinking.removed = many(&shrinking.removed);
    }
}
