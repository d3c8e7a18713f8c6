//! What can happen in the model, and what each of it leads to.

use hookturn::rotation::{
    Cause, Effect, Event, Found, Inspection, KeystoreView, Line, Op, PatchAnswer, Phase, ReplicaId, Seen, Verdict, Volatile,
    WebhookView, step,
};

use super::{
    canon::{keystore_astray, unused},
    check::{self, Broken},
    world::{
        Ask, Assumption, Backup, Content, Property, Sent, Setup, State, Write, bit, drain_began, drain_wait, each, index, kid,
        mask, set,
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    Poke,
    LookDue,
    Tick { observed: bool },
    Crash,
    Rotate,
    RotateCompromised,
    Compromise,
    Abort,
    Rollback,
    Supersede,
    Pause,
    Resume,
    Reaccept(u8),
    WriteApplied,
    WriteAnswered,
    WriteFailed,
    StrayWriteApplied(u8),
    ReadAnswered,
    ReadFailed,
    Refresh(u8),
    FallBack(u8),
    ReplicaAnswers(u8),
    ReplicaUnreachable(u8),
    WebhookActive,
    WebhookGone,
    WebhookUnreachable,
    Connected,
    ConnectFailed,
    Answer200,
    AnswerLyingly200,
    AnswerAmbiguous,
    AnswerValueRefused,
    AnswerLimited,
    PatchLands(u8),
    PatchVanishes(u8),
    Sign,
    Seen(u8),
    SeenProbe(u8),
    SeenRefused(u8),
    ElderEnds(u8),
    YoungerEnds(u8),
    Backup,
    Restore,
    PutBackNewer,
    PutBackOlder,
    DeleteKeystore,
}

/// Whether an action belongs to a fault-free continuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Progress,
    /// What a person does to leave a hold.
    WayOut,
    Other,
}

pub fn kind(action: Action, state: &State) -> Kind {
    use Action::*;
    match action {
        Poke | LookDue | Tick { .. } | WriteApplied | WriteAnswered | ReadAnswered | Refresh(_) | ReplicaAnswers(_) => {
            Kind::Progress
        }
        WebhookActive | Connected | Answer200 | PatchLands(_) | PatchVanishes(_) | Sign | Seen(_) | ElderEnds(_) => {
            Kind::Progress
        }
        YoungerEnds(_) | StrayWriteApplied(_) | ConnectFailed | AnswerAmbiguous => Kind::Progress,
        Rotate | Rollback | Supersede | Resume if state.held() || state.record.paused => Kind::WayOut,
        Rotate if keystore_astray(state) => Kind::WayOut,
        _ => Kind::Other,
    }
}

/// Everything that may happen now. Whether the core takes it is seen when it is tried.
pub fn enabled(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    out.clear();
    out.push(Poke);
    if setup.looks && state.volatile.timers.look > 0 && state.record.phase != Phase::Idle {
        out.push(LookDue);
    }
    if setup.crash {
        out.push(Crash);
    }
    time(state, setup, out);
    people(state, setup, out);
    keystore(state, setup, out);
    replicas(state, setup, out);
    dialnexa(state, setup, out);
    deliveries(state, setup, out);
    if setup.restore && !state.world.restored {
        out.push(if state.world.backup.is_some() { Restore } else { Backup });
    }
}

fn time(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    let w = &state.world;
    let late_patch = setup.broken == Some(Assumption::Quarantine);
    if !late_patch && w.net.contains(&1) {
        return;
    }
    out.push(Action::Tick { observed: false });
    let may_end = w.elder == 0 || setup.broken == Some(Assumption::Drain);
    if drain_wait(&state.record).is_none() || may_end {
        out.push(Action::Tick { observed: true });
    }
}

fn people(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    let fresh = unused(state, setup).is_some();
    if fresh {
        out.push(Rotate);
    }
    if setup.emergency {
        out.push(Compromise);
        if fresh {
            out.push(RotateCompromised);
        }
    }
    if setup.abort {
        out.push(Abort);
    }
    if setup.rollback {
        out.push(Rollback);
    }
    if fresh && (setup.supersede || state.held()) {
        out.push(Supersede);
    }
    if setup.pause && !state.record.paused {
        out.push(Pause);
    }
    if state.record.paused || state.held() {
        out.push(Resume);
    }
    if setup.reaccept && state.record.reaccepted.is_empty() {
        out.extend(state.record.retired.iter().map(|retired| Reaccept(index(retired.kid))));
    }
}

fn keystore(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    let w = &state.world;
    if let Some(write) = w.write {
        if !write.applied && fits(write.content, w.keystore, setup) {
            out.push(WriteApplied);
        } else {
            out.push(WriteAnswered);
        }
        out.push(WriteFailed);
    }
    out.extend((0..w.stray.len() as u8).map(StrayWriteApplied));
    if w.read.is_some() {
        out.extend([ReadAnswered, ReadFailed]);
    }
    if w.meddling > 0 {
        if w.older.is_some() {
            out.extend([PutBackNewer, PutBackOlder]);
        }
        out.push(DeleteKeystore);
    }
}

fn fits(content: Content, there: Content, setup: &Setup) -> bool {
    content.generation > there.generation || setup.broken == Some(Assumption::ConditionalWrite)
}

fn replicas(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    let w = &state.world;
    for (r, has) in w.replicas[..setup.replicas].iter().enumerate() {
        let unconditional = setup.broken == Some(Assumption::ConditionalWrite) && *has != w.keystore;
        if w.keystore.generation > has.generation || unconditional {
            out.push(Refresh(r as u8));
        }
        if setup.broken == Some(Assumption::ReplicasGoForward) && w.older.is_some() {
            out.push(FallBack(r as u8));
        }
    }
    if let Some(ask) = w.ask {
        for r in (0..setup.replicas as u8).filter(|r| ask.whom & (1 << r) != 0) {
            out.extend([ReplicaAnswers(r), ReplicaUnreachable(r)]);
        }
    }
}

fn dialnexa(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    let w = &state.world;
    if w.inspect.is_some() {
        out.extend([WebhookActive, WebhookUnreachable]);
        if setup.refusals {
            out.push(WebhookGone);
        }
    }
    if w.connect.is_some() {
        out.extend([Connected, ConnectFailed]);
    }
    if let Some(sent) = w.sent {
        out.push(AnswerAmbiguous);
        if sent.landed {
            out.push(Answer200);
        } else if setup.lies {
            out.push(AnswerLyingly200);
        }
        if setup.refusals && !sent.landed {
            out.extend([AnswerValueRefused, AnswerLimited]);
        }
    }
    for k in each(w.in_net()) {
        let told = w.sent.is_none_or(|sent| sent.kid != k || sent.landed);
        if w.provider != k || !told {
            out.push(PatchLands(k));
        }
        out.push(PatchVanishes(k));
    }
}

fn deliveries(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    let w = &state.world;
    if w.younger & bit(w.provider) == 0 {
        out.push(Sign);
    }
    out.extend(each(w.elder).map(ElderEnds));
    out.extend(each(w.younger).map(YoungerEnds));
    out.extend(each(w.flying()).map(Seen));
    let Some(rotation) = state.record.phase.rotation() else { return };
    let target = index(rotation.target);
    if setup.probes {
        out.push(SeenProbe(target));
    }
    if setup.rejects && w.flying() & bit(target) != 0 {
        out.push(SeenRefused(target));
    }
}

/// What an action leads to. `None`: the core refuses it, or nothing changes.
pub fn apply(state: &State, action: Action, setup: &Setup) -> Result<Option<State>, Broken> {
    use Action::*;
    let mut next = state.clone();
    match action {
        Poke => tell(&mut next, setup, Event::Tick { elapsed: 0, observed: 0 })?,
        LookDue => {
            next.volatile.timers.look = 0;
            tell(&mut next, setup, Event::Tick { elapsed: 0, observed: 0 })?
        }
        Tick { observed } => {
            next.world.net.iter_mut().for_each(|life| *life = life.saturating_sub(1));
            if setup.broken == Some(Assumption::Quarantine) {
                each(state.world.in_net()).for_each(|k| next.world.net[usize::from(k)] = 1);
            }
            tell(&mut next, setup, Event::Tick { elapsed: 1, observed: u64::from(observed) })?
        }
        Crash => crash(&mut next, setup, false)?,
        Rotate | RotateCompromised | Compromise | Abort | Rollback | Supersede | Pause | Resume | Reaccept(_) => {
            if !operate(&mut next, setup, action)? {
                return Ok(None);
            }
        }
        WriteApplied | WriteAnswered | WriteFailed | StrayWriteApplied(_) | ReadAnswered | ReadFailed => {
            keystore_acts(&mut next, setup, action)?
        }
        PutBackNewer | PutBackOlder | DeleteKeystore => meddle(&mut next, action),
        Refresh(r) => next.world.replicas[usize::from(r)] = next.world.keystore,
        FallBack(r) => {
            if let Some(older) = next.world.older {
                next.world.replicas[usize::from(r)].kids = older.kids;
            }
        }
        ReplicaAnswers(_) | ReplicaUnreachable(_) => replica_acts(&mut next, setup, action)?,
        WebhookActive | WebhookGone | WebhookUnreachable | Connected | ConnectFailed => dialnexa_acts(&mut next, setup, action)?,
        Answer200 | AnswerLyingly200 => answer(&mut next, setup, PatchAnswer::Applied)?,
        AnswerAmbiguous => answer(&mut next, setup, PatchAnswer::Ambiguous { wait: 0 })?,
        AnswerValueRefused => answer(&mut next, setup, PatchAnswer::ValueRefused)?,
        AnswerLimited => answer(&mut next, setup, PatchAnswer::Limited { wait: 1 })?,
        PatchLands(k) => {
            next.world.provider = k;
            if let Some(sent) = next.world.sent.as_mut().filter(|sent| sent.kid == k) {
                sent.landed = true;
            }
        }
        PatchVanishes(k) => next.world.net[usize::from(k)] = 0,
        Sign => next.world.younger |= bit(next.world.provider),
        Seen(k) => seen(&mut next, setup, k, false, None)?,
        SeenProbe(k) => seen(&mut next, setup, k, true, None)?,
        SeenRefused(k) => seen(&mut next, setup, k, false, Some(false))?,
        ElderEnds(k) => next.world.elder &= !bit(k),
        YoungerEnds(k) => next.world.younger &= !bit(k),
        Backup => next.world.backup = Some(Box::new(self::Backup { record: next.record.clone(), known: next.world.known })),
        Restore => {
            let Some(backup) = next.world.backup.take() else { return Ok(None) };
            next.record = backup.record;
            next.world.known = backup.known;
            next.world.restored = true;
            crash(&mut next, setup, true)?
        }
    }
    Ok(Some(next))
}

fn crash(next: &mut State, setup: &Setup, restored: bool) -> Result<(), Broken> {
    let w = &mut next.world;
    if let Some(write) = w.write.take().filter(|write| !write.applied) {
        w.stray.push(write.content);
    }
    (w.read, w.ask, w.inspect, w.connect, w.sent, w.vouched) = (None, None, None, None, None, 0);
    next.volatile = Volatile::default();
    let boot = Event::Boot { policy: setup.policy(), identity: 0, restored, dark: 0 };
    if restored {
        check::unjudged(|| tell(next, setup, boot))?
    } else {
        tell(next, setup, boot)?
    }
    tell(next, setup, Event::Roster { replicas: setup.roster() })
}

fn operate(next: &mut State, setup: &Setup, action: Action) -> Result<bool, Broken> {
    let fresh = unused(next, setup);
    let made = |op: fn(hookturn::secret::Kid) -> Op| fresh.map(|fresh| op(kid(fresh)));
    let op = match action {
        Action::Rotate => made(|fresh| Op::Rotate { fresh, cause: Cause::Demand, compromised: false, unconfirmed: true }),
        Action::RotateCompromised => {
            made(|fresh| Op::Rotate { fresh, cause: Cause::Demand, compromised: true, unconfirmed: true })
        }
        Action::Supersede => made(|fresh| Op::Supersede { fresh }),
        Action::Compromise => Some(Op::Compromise).filter(|_| next.record.phase.rotation().is_some_and(|r| !r.compromised)),
        Action::Abort => Some(Op::Abort),
        Action::Rollback => Some(Op::Rollback),
        Action::Pause => Some(Op::Pause),
        Action::Resume => Some(Op::Resume),
        Action::Reaccept(k) => Some(Op::Reaccept { kid: kid(k), credit: 2 }),
        _ => None,
    };
    let Some(op) = op else { return Ok(false) };
    if step(&next.record, &next.volatile, &Event::Op(op.clone())).is_err() {
        return Ok(false);
    }
    if let (Op::Rotate { .. } | Op::Supersede { .. }, Some(fresh)) = (&op, fresh) {
        next.world.known |= bit(fresh);
    }
    tell(next, setup, Event::Op(op))?;
    Ok(true)
}

fn keystore_acts(next: &mut State, setup: &Setup, action: Action) -> Result<(), Broken> {
    let w = &mut next.world;
    match action {
        Action::WriteApplied => {
            let Some(write) = &mut w.write else { return Ok(()) };
            write.applied = true;
            let content = write.content;
            put(next, setup, content);
            Ok(())
        }
        Action::StrayWriteApplied(at) => {
            let content = w.stray.remove(usize::from(at));
            put(next, setup, content);
            Ok(())
        }
        Action::WriteAnswered => {
            let call = w.write.take().map_or(0, |write| write.call);
            found(next, setup, call)
        }
        Action::ReadAnswered => {
            let call = w.read.take().unwrap_or(0);
            found(next, setup, call)
        }
        Action::WriteFailed => {
            let Some(write) = w.write.take() else { return Ok(()) };
            if !write.applied {
                w.stray.push(write.content);
            }
            tell(next, setup, Event::KeystoreFailed { call: write.call })
        }
        _ => {
            let call = w.read.take().unwrap_or(0);
            tell(next, setup, Event::KeystoreFailed { call })
        }
    }
}

fn put(next: &mut State, setup: &Setup, content: Content) {
    let w = &mut next.world;
    if !fits(content, w.keystore, setup) {
        return;
    }
    let follow = w.meddling > 0 || setup.broken == Some(Assumption::ReplicasGoForward);
    if follow && w.keystore.kids != content.kids {
        w.older = Some(w.keystore);
    }
    w.keystore = content;
}

/// The keystore is read, and what was found there told.
fn found(next: &mut State, setup: &Setup, call: u64) -> Result<(), Broken> {
    let w = &mut next.world;
    let there = w.keystore;
    let found = Found {
        generation: there.generation,
        kids: set(there.kids & w.known),
        strangers: set(there.kids & !w.known),
        opaque: false,
    };
    w.known |= there.kids;
    if retire_due(next) {
        next.world.vouched |= KEYSTORE_VOUCHES;
    }
    tell(next, setup, Event::Keystore { call, found })
}

/// Somebody else puts back what was there before, as a newer content or as the file it was, or deletes it.
fn meddle(next: &mut State, action: Action) {
    let w = &mut next.world;
    let Some(older) = w.older.or(Some(Content::default())) else { return };
    w.meddling -= 1;
    w.tainted = true;
    w.keystore = match action {
        Action::PutBackNewer => Content { generation: w.keystore.generation + 1, kids: older.kids },
        Action::PutBackOlder => older,
        _ => Content::default(),
    };
    if w.meddling == 0 {
        w.older = None;
    }
}

fn replica_acts(next: &mut State, setup: &Setup, action: Action) -> Result<(), Broken> {
    let Some(ask) = &mut next.world.ask else { return Ok(()) };
    let (round, accept, refuse) = (ask.round, ask.accept, ask.refuse);
    let (r, reachable) = match action {
        Action::ReplicaAnswers(r) => (r, true),
        Action::ReplicaUnreachable(r) => (r, false),
        _ => return Ok(()),
    };
    ask.whom &= !(1 << r);
    let last = ask.whom == 0;
    let has = next.world.replicas[usize::from(r)].kids;
    let verdict = match (reachable, has & bit(accept) != 0 && has & refuse == 0) {
        (false, _) => Verdict::Unreachable,
        (true, true) => Verdict::Accepts,
        (true, false) => Verdict::Refuses,
    };
    if verdict == Verdict::Accepts && retire_due(next) {
        next.world.vouched |= 1 << r;
    }
    tell(next, setup, Event::Replica { round, replica: ReplicaId(u16::from(r)), verdict })?;
    if last {
        next.world.ask = next.world.ask.filter(|ask| ask.round != round);
        tell(next, setup, Event::RoundEnded { round })?;
    }
    Ok(())
}

fn dialnexa_acts(next: &mut State, setup: &Setup, action: Action) -> Result<(), Broken> {
    let w = &mut next.world;
    let event = match action {
        Action::Connected => Event::Connected { call: w.connect.take().unwrap_or(0) },
        Action::ConnectFailed => Event::ConnectFailed { call: w.connect.take().unwrap_or(0) },
        _ => {
            let answer = match action {
                Action::WebhookActive => Inspection::Active,
                Action::WebhookGone => Inspection::Gone,
                _ => Inspection::Unreachable,
            };
            Event::Webhook { call: w.inspect.take().unwrap_or(0), answer }
        }
    };
    tell(next, setup, event)
}

fn answer(next: &mut State, setup: &Setup, answer: PatchAnswer) -> Result<(), Broken> {
    let attempt = next.world.sent.take().map_or(0, |sent| sent.attempt);
    tell(next, setup, Event::Patched { attempt, answer })
}

fn seen(next: &mut State, setup: &Setup, k: u8, probe: bool, accepted: Option<bool>) -> Result<(), Broken> {
    tell(next, setup, Event::Seen(Seen { kid: kid(k), new_body: true, probe, accepted }))
}

pub const KEYSTORE_VOUCHES: u8 = 1 << 7;

/// Everything but the last proofs is there for the retire.
fn retire_due(state: &State) -> bool {
    match &state.record.phase {
        Phase::Drain(rotation, draining) => draining.left == 0 || rotation.compromised,
        Phase::Patch(rotation, patching) => rotation.compromised && patching.settled,
        _ => false,
    }
}

/// The core is told; what it wants done is owed from now on.
fn tell(next: &mut State, setup: &Setup, event: Event) -> Result<(), Broken> {
    let before = next.record.clone();
    let Ok(stepped) = step(&next.record, &next.volatile, &event) else { return Ok(()) };
    check::transition(&before, &stepped, &event, &next.world, setup)?;
    next.record = stepped.record;
    next.volatile = stepped.volatile;
    let w = &mut next.world;
    if drain_began(&before, &next.record) {
        w.elder |= std::mem::take(&mut w.younger);
    }
    if let (Phase::Retire(rotation, shrinking), false) = (&next.record.phase, matches!(before.phase, Phase::Retire(..)))
        && rotation.compromised
    {
        let sacrificed = mask(&shrinking.removed);
        w.elder &= !sacrificed;
        w.younger &= !sacrificed;
    }
    for effect in stepped.effects {
        owe(next, setup, effect);
    }
    if !retire_due(next) {
        next.world.vouched = 0;
    }
    debts(next)
}

fn owe(next: &mut State, setup: &Setup, effect: Effect) {
    let w = &mut next.world;
    match effect {
        Effect::WriteKeystore { call, generation, kids } => {
            if let Some(write) = w.write.take().filter(|write| !write.applied) {
                w.stray.push(write.content);
            }
            w.write = Some(Write { call, content: Content { generation, kids: mask(&kids) }, applied: false });
        }
        Effect::ReadKeystore { call } => w.read = Some(call),
        Effect::AskReplicas { round, whom, accept, refuse, .. } => {
            let whom = whom.iter().fold(0, |bits, id| bits | 1 << id.0);
            w.ask = Some(Ask { round, whom, accept: index(accept), refuse: mask(&refuse) });
        }
        Effect::InspectWebhook { call } => w.inspect = Some(call),
        Effect::Connect { call } => w.connect = Some(call),
        Effect::SendPatch { attempt, kid, .. } => {
            w.net[usize::from(index(kid))] = setup.quarantine as u8;
            w.sent = Some(Sent { attempt, kid: index(kid), landed: false });
        }
    }
}

/// Whatever the core waits for was asked for.
fn debts(state: &State) -> Result<(), Broken> {
    let (v, w) = (&state.volatile, &state.world);
    let paid = match v.keystore {
        KeystoreView::Reading { call, .. } => w.read == Some(call),
        KeystoreView::Writing { call } => w.write.is_some_and(|write| write.call == call),
        _ => true,
    };
    let asked = v.asking.is_none_or(|round| w.ask.is_some_and(|ask| ask.round == round));
    let line = match v.line {
        Line::Connecting { call } => w.connect == Some(call),
        Line::Sent { attempt, .. } => w.sent.is_some_and(|sent| sent.attempt == attempt),
        Line::Free => true,
    };
    let webhook = match v.webhook {
        WebhookView::Asking { call } => w.inspect == Some(call),
        _ => true,
    };
    if paid && asked && line && webhook {
        return Ok(());
    }
    Err(Broken { property: Property::Bookkeeping, what: "waits for an answer that nobody owes".into() })
}
