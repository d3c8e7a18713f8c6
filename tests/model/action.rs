//! What can happen in the model.

use hookturn::rotation::{Current, Hold, KeystoreView, Phase};

use super::{
    kids::unused,
    setup::{Assumption, Setup},
    world::{Content, KIDS, OPAQUE, State, bit, drain_wait, each, index},
};

/// Everything that can happen, as a name and, where it matters, the kid or the replica that it happens to.
macro_rules! actions {
    ($($name:ident $(($of:ty))?),* $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Action { $($name $(($of))?),* }

        impl Action {
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];
        }
    };
}

actions! {
    Poke,
    LookDue,
    Tick,
    TickUnobserved,
    Crash,
    CrashInTheDark,
    CrashElsewhere,
    Rotate,
    RotateCompromised,
    Compromise,
    Abort,
    Rollback,
    Supersede,
    Pause,
    Resume,
    Reaccept(u8),
    AdoptHand,
    AdoptUnknown,
    WriteApplied,
    WriteAnswered,
    WriteFailed,
    StrayWriteApplied(u8),
    ReadAnswered,
    ReadFailed,
    PutBackNewer,
    PutBackSame,
    PutBackOlder,
    DeleteKeystore,
    AddStranger,
    AddStrangerSame,
    AddOpaque,
    TidyKeystore,
    Refresh(u8),
    FallBack(u8),
    Join(u8),
    Leave(u8),
    RosterTold,
    ReplicaAnswers(u8),
    ReplicaUnreachable(u8),
    ReplicaInconclusive(u8),
    ReplicaDoesNotVerify(u8),
    WebhookActive,
    WebhookInactive,
    WebhookGone,
    WebhookKeyRefused,
    WebhookUnreachable,
    Connected,
    ConnectFailed,
    Answer200,
    AnswerLyingly200,
    AnswerAmbiguous,
    AnswerValueRefused,
    AnswerKeyRefused,
    AnswerGone,
    AnswerLimited,
    StaleSends(u8),
    PatchLands(u8),
    Seen(u8),
    SeenProbe(u8),
    SeenOldBody(u8),
    SeenRefused(u8),
    Backup,
    Restore,
    Hand(u8),
}

impl Action {
    /// The name without what it happens to.
    pub fn name(self) -> &'static str {
        let full = format!("{self:?}");
        let name = full.split('(').next().unwrap_or_default();
        Action::NAMES.iter().find(|known| **known == name).copied().unwrap_or("?")
    }
}

/// Whether an action belongs to a fault-free continuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Progress,
    /// What a person does to leave a hold, or to put right what is astray.
    WayOut,
    Other,
}

pub fn kind(action: Action, state: &State) -> Kind {
    use Action::*;
    match action {
        Poke | LookDue | Tick | WriteApplied | WriteAnswered | ReadAnswered | Refresh(_) | ReplicaAnswers(_) | RosterTold => {
            Kind::Progress
        }
        WebhookActive | Connected | Answer200 | AnswerAmbiguous | PatchLands(_) | Seen(_) | StrayWriteApplied(_) => {
            Kind::Progress
        }
        ReplicaUnreachable(r) if state.world.serving & (1 << r) == 0 => Kind::Progress,
        Rotate | Rollback | Supersede | Resume | TidyKeystore if state.held() || state.record.paused => Kind::WayOut,
        Crash | CrashElsewhere if state.hold() == Some(Hold::ConfigDrift) => Kind::WayOut,
        Rotate if state.astray() => Kind::WayOut,
        _ => Kind::Other,
    }
}

/// Everything that may happen now. Whether the core takes it is seen when it is tried.
pub fn enabled(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    out.clear();
    out.extend([Poke, Tick, Crash]);
    if setup.noise || drain_wait(&state.record).is_some() {
        out.push(TickUnobserved);
    }
    if setup.dark {
        out.push(CrashInTheDark);
    }
    if setup.drift {
        out.push(CrashElsewhere);
    }
    if setup.looks && state.volatile.timers.look > 0 && state.record.phase != Phase::Idle {
        out.push(LookDue);
    }
    // Between rotations the daemon looks now and then, and doubts what is older than it should be.
    let confirmed = state.volatile.keystore == KeystoreView::Confirmed;
    if setup.looks && confirmed && state.record.phase == Phase::Idle && state.world.keystore.generation < state.record.generation
    {
        out.push(LookDue);
    }
    people(state, setup, out);
    keystore(state, setup, out);
    meddling(state, setup, out);
    replicas(state, setup, out);
    dialnexa(state, setup, out);
    deliveries(state, setup, out);
    if setup.restore && !state.world.restored {
        out.push(if state.world.backup.is_some() { Restore } else { Backup });
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
    if setup.rollback || state.held() {
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
    if state.world.by_hand && state.record.phase == Phase::Idle && state.record.accepted.len() == 1 {
        out.push(AdoptHand);
    }
    if setup.unsure && matches!(state.record.phase.underlying(), Phase::Idle) && state.record.current != Current::Unknown {
        out.push(AdoptUnknown);
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
}

/// Whether the keystore takes a write.
pub fn fits(content: Content, there: Content, setup: &Setup) -> bool {
    content.generation > there.generation || setup.broken == Some(Assumption::ConditionalWrite)
}

fn meddling(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    let w = &state.world;
    if w.meddling > 0 {
        if w.older.is_some() {
            out.extend([PutBackNewer, PutBackSame, PutBackOlder]);
        }
        if w.keystore != Content::default() {
            out.push(DeleteKeystore);
        }
    }
    if w.strangers > 0 {
        out.push(AddOpaque);
        if unused(state, setup).is_some() {
            out.extend([AddStranger, AddStrangerSame]);
        }
    }
    if state.hold() == Some(Hold::KeystoreForeign) || w.keystore.kids & OPAQUE != 0 {
        out.push(TidyKeystore);
    }
}

fn replicas(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    let w = &state.world;
    for r in w.each_serving() {
        let has = w.replicas[usize::from(r)];
        if has != w.keystore.kids {
            out.push(Refresh(r));
        }
        if setup.broken == Some(Assumption::ReplicasGoForward) && w.older.is_some() {
            out.push(FallBack(r));
        }
    }
    if setup.churn {
        out.extend((0..setup.replicas).map(|r| if w.serving & (1 << r) == 0 { Join(r) } else { Leave(r) }));
        out.retain(|action| !matches!(action, Leave(_)) || w.serving.count_ones() > 1);
    }
    if setup.roster(w.serving) != state.volatile.roster {
        out.push(RosterTold);
    }
    if let Some(ask) = w.ask {
        for r in (0..setup.replicas).filter(|r| ask.whom & (1 << r) != 0) {
            out.push(ReplicaUnreachable(r));
            if w.serving & (1 << r) != 0 {
                out.push(ReplicaAnswers(r));
            }
            if setup.noise {
                out.extend([ReplicaInconclusive(r), ReplicaDoesNotVerify(r)]);
            }
        }
    }
}

fn dialnexa(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    let w = &state.world;
    if w.inspect.is_some() {
        out.extend([WebhookActive, WebhookUnreachable]);
        if setup.refusals {
            out.extend([WebhookInactive, WebhookGone, WebhookKeyRefused]);
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
            out.extend([AnswerValueRefused, AnswerKeyRefused, AnswerGone, AnswerLimited]);
        }
    }
    out.extend(each(w.stale).map(StaleSends));
    for k in each(w.in_net()) {
        let told = w.sent.is_none_or(|sent| sent.kid != k || sent.landed);
        if w.provider != k || !told {
            out.push(PatchLands(k));
        }
    }
    if w.hands > 0 && !w.by_hand {
        let stranger = unused(state, setup).filter(|k| *k < setup.kids).map_or(0, bit);
        // Nobody is assumed to set the very secret that is waiting to be sent for the first time.
        let unsent = match state.record.phase.underlying() {
            Phase::Push(rotation) => bit(index(rotation.target)),
            _ => 0,
        };
        out.extend(each((w.known | stranger) & !bit(w.provider) & !unsent).map(Hand));
    }
}

fn deliveries(state: &State, setup: &Setup, out: &mut Vec<Action>) {
    use Action::*;
    let w = &state.world;
    out.extend(each(w.flying() & w.known).map(Seen));
    if setup.rejects {
        out.extend(each(w.flying() & w.known).map(SeenRefused));
    }
    if setup.noise {
        out.extend(each(w.known).map(SeenOldBody));
        if let Some(rotation) = state.record.phase.rotation() {
            out.push(SeenProbe(index(rotation.target)));
        }
    }
    debug_assert!(w.flying() >> KIDS == 0);
}
