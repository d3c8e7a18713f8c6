//! Key ids in the model: dead ones are used again, and the live ones are named by what they are.

use hookturn::{
    rotation::{Current, KidSet, Line, Phase, Record},
    secret::Kid,
};

use super::{
    setup::Setup,
    world::{KIDS, Mask, OPAQUE, State, bit, bit_of, each, index, kid, mask, set},
};

/// A kid that nothing speaks of. For the way out of a hold there is one more.
pub fn unused(state: &State, setup: &Setup) -> Option<u8> {
    let most = usize::from(setup.kids) + usize::from(state.held() || state.astray());
    roles(state).iter().take(most).position(|roles| *roles == 0).map(|at| at as u8)
}

/// Which kids anything but the graveyard still speaks of.
fn live(state: &State) -> Mask {
    roles(state).iter().enumerate().filter(|(_, roles)| **roles & !BURIED != 0).fold(0, |mask, (at, _)| mask | bit(at as u8))
}

/// Role bits that do not keep a kid alive.
const BURIED: u64 = 0b1111;

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
    give(w.leaked, 1, 1);
    give_record(r, &mut give);
    give(state.volatile.overfull.as_ref().map_or(0, |overfull| mask(&overfull.there)), 1, 1);
    give(bit(w.provider), 1, 1);
    (1..=3).for_each(|life| give((0..KIDS as u8).filter(|k| w.net[usize::from(*k)] == life).fold(0, |m, k| m | bit(k)), 1, 1));
    give(w.keystore.kids, 1, 1);
    w.replicas.iter().for_each(|kids| give(*kids, 1, 1));
    give(w.outside, 1, 1);
    give(w.hand, 1, 1);
    give(w.stale, 1, 1);
    give(w.elder, 1, 1);
    give(w.younger, 1, 1);
    give(w.write.map_or(0, |write| write.content.kids), 1, 1);
    give(w.ask.map_or(0, |ask| bit(ask.accept)), 1, 1);
    give(w.ask.map_or(0, |ask| ask.refuse), 1, 1);
    give(w.sent.map_or(0, |sent| bit(sent.kid)), 1, 1);
    (0..2).for_each(|at| give(w.stray.get(at).map_or(0, |content| content.kids), 1, 1));
    give(w.older.unwrap_or(0), 1, 1);
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
pub fn recycle_kids(state: &mut State, setup: &Setup) -> [u8; KIDS] {
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
    state.world.leaked &= live;
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
    let masks = |bits: Mask| each(bits).fold(bits & OPAQUE, |mask, at| mask | bit(name(at)));
    rename_record(&mut state.record, &name);
    if let Line::Sent { kid: sent, .. } = &mut state.volatile.line {
        *sent = kid(name(index(*sent)));
    }
    if let Some(overfull) = &mut state.volatile.overfull {
        overfull.there = set(masks(mask(&overfull.there)));
    }
    let w = &mut state.world;
    w.provider = name(w.provider);
    let net = w.net;
    (0..KIDS as u8).for_each(|at| w.net[usize::from(name(at))] = net[usize::from(at)]);
    w.replicas.iter_mut().for_each(|kids| *kids = masks(*kids));
    w.stray.iter_mut().for_each(|content| content.kids = masks(content.kids));
    w.older.iter_mut().for_each(|kids| *kids = masks(*kids));
    w.keystore.kids = masks(w.keystore.kids);
    (w.elder, w.younger, w.known) = (masks(w.elder), masks(w.younger), masks(w.known));
    (w.outside, w.hand, w.stale, w.leaked) = (masks(w.outside), masks(w.hand), masks(w.stale), masks(w.leaked));
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
    let one = |old: Kid| kid(name(index(old)));
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
