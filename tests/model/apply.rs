//! What each thing that can happen leads to.

use hookturn::rotation::{
    Cause, Current, Effect, Event, Found, Hold, Inspection, KeystoreView, Line, Op, PatchAnswer, Phase, ReplicaId, Seen, Step,
    Verdict, Volatile, WebhookView, step,
};
use hookturn::secret::Kid;

use super::{
    action::{Action, fits},
    check::{self, Broken, Property, foreign},
    kids::unused,
    setup::{AGAIN_AND_AGAIN, Assumption, Setup},
    world::{Ask, Backup, Content, KEYSTORE, OPAQUE, Sent, State, Write, bit, drain_began, index, kid, mask, set},
};

/// Told of every transition that the core makes: the record before, what came of it, and the event.
pub trait Witness {
    fn saw(&mut self, before: &State, event: &Event, step: &Step);
    fn refused(&mut self, before: &State, event: &Event);
}

impl Witness for () {
    fn saw(&mut self, _: &State, _: &Event, _: &Step) {}
    fn refused(&mut self, _: &State, _: &Event) {}
}

/// One action being carried out.
struct Scene<'a> {
    now: State,
    setup: &'a Setup,
    witness: &'a mut dyn Witness,
}

/// What an action leads to. `None`: the core refuses it.
pub fn apply(state: &State, action: Action, setup: &Setup, witness: &mut dyn Witness) -> Result<Option<State>, Broken> {
    let mut scene = Scene { now: state.clone(), setup, witness };
    let taken = scene.act(action)?;
    let w = &mut scene.now.world;
    w.younger |= bit(w.provider);
    if w.by_hand {
        w.hand |= bit(w.provider);
    }
    scene.heal();
    Ok(taken.then_some(scene.now))
}

impl Scene<'_> {
    fn act(&mut self, action: Action) -> Result<bool, Broken> {
        use Action::*;
        match action {
            Poke => self.tell(Event::Tick { elapsed: 0, observed: 0 })?,
            LookDue if self.now.record.phase == Phase::Idle => self.tell(Event::KeystoreDoubted)?,
            LookDue => {
                self.now.volatile.timers.look = 0;
                self.tell(Event::Tick { elapsed: 0, observed: 0 })?
            }
            Tick => self.tick(1)?,
            TickUnobserved => self.tick(0)?,
            Crash => self.crash(0, false, 0)?,
            CrashInTheDark => self.crash(0, false, 1)?,
            CrashElsewhere => self.crash(1, false, 0)?,
            Rotate | RotateCompromised | Compromise | Abort | Rollback | Supersede | Pause | Resume | Reaccept(_) | AdoptHand
            | AdoptUnknown => {
                return self.operate(action);
            }
            WriteApplied | WriteAnswered | WriteFailed | StrayWriteApplied(_) | ReadAnswered | ReadFailed => {
                self.keystore(action)?
            }
            PutBackNewer | PutBackSame | PutBackOlder | DeleteKeystore | AddStranger | AddStrangerSame | AddOpaque
            | TidyKeystore => self.meddle(action),
            Refresh(r) => self.now.world.replicas[usize::from(r)] = self.now.world.keystore.kids,
            FallBack(r) => {
                if let Some(older) = self.now.world.older {
                    self.now.world.replicas[usize::from(r)] = older;
                }
            }
            Join(r) => {
                let w = &mut self.now.world;
                w.serving |= 1 << r;
                w.replicas[usize::from(r)] = w.keystore.kids;
                self.tell_roster()?
            }
            Leave(r) => {
                self.now.world.serving &= !(1 << r);
            }
            RosterTold => self.tell_roster()?,
            ReplicaAnswers(r) => self.replica(r, None)?,
            ReplicaUnreachable(r) => self.replica(r, Some(Verdict::Unreachable))?,
            ReplicaInconclusive(r) => self.replica(r, Some(Verdict::Inconclusive))?,
            ReplicaDoesNotVerify(r) => self.replica(r, Some(Verdict::DoesNotVerify))?,
            WebhookActive => self.inspected(Inspection::Active)?,
            WebhookInactive => self.inspected(Inspection::Inactive)?,
            WebhookGone => self.inspected(Inspection::Gone)?,
            WebhookKeyRefused => self.inspected(Inspection::ApiKeyRefused)?,
            WebhookUnreachable => self.inspected(Inspection::Unreachable)?,
            Connected => {
                let call = self.now.world.connect.take().unwrap_or(0);
                self.tell(Event::Connected { call })?
            }
            ConnectFailed => {
                let call = self.now.world.connect.take().unwrap_or(0);
                self.tell(Event::ConnectFailed { call })?
            }
            Answer200 | AnswerLyingly200 => self.answer(PatchAnswer::Applied)?,
            AnswerAmbiguous => self.answer(PatchAnswer::Ambiguous { wait: 0 })?,
            AnswerValueRefused => self.answer(PatchAnswer::ValueRefused)?,
            AnswerKeyRefused => self.answer(PatchAnswer::ApiKeyRefused)?,
            AnswerGone => self.answer(PatchAnswer::WebhookGone)?,
            AnswerLimited => self.answer(PatchAnswer::Limited { wait: 1 })?,
            PatchLands(k) => {
                let w = &mut self.now.world;
                (w.provider, w.by_hand) = (k, false);
                if let Some(sent) = w.sent.as_mut().filter(|sent| sent.kid == k) {
                    sent.landed = true;
                }
            }
            StaleSends(k) => {
                let w = &mut self.now.world;
                w.stale &= !bit(k);
                w.net[usize::from(k)] = self.setup.quarantine as u8;
            }
            Hand(k) => {
                let w = &mut self.now.world;
                (w.provider, w.by_hand) = (k, true);
                w.hands -= 1;
            }
            Seen(k) => self.seen(k, true, false, None)?,
            SeenProbe(k) => self.seen(k, true, true, None)?,
            SeenOldBody(k) => self.seen(k, false, false, None)?,
            SeenRefused(k) => self.seen(k, true, false, Some(false))?,
            Backup => {
                let backup = self::Backup { record: self.now.record.clone(), known: self.now.world.known };
                self.now.world.backup = Some(Box::new(backup));
            }
            Restore => {
                let Some(backup) = self.now.world.backup.take() else { return Ok(false) };
                self.now.record = backup.record;
                self.now.world.known = backup.known;
                // Of a leak that came after the backup nobody knows any more.
                (self.now.world.restored, self.now.world.leaked) = (true, 0);
                self.crash(0, true, 0)?
            }
        }
        Ok(true)
    }

    fn tick(&mut self, observed: u64) -> Result<(), Broken> {
        self.age_requests();
        let w = &mut self.now.world;
        if observed > 0 {
            w.elder_life = w.elder_life.saturating_sub(1);
            if w.elder_life == 0 && self.setup.broken != Some(Assumption::Drain) {
                w.elder = 0;
            }
        }
        self.tell(Event::Tick { elapsed: 1, observed })
    }

    /// What a request may still do ends some time after it left us, and until its exchange is over it may not have left.
    fn age_requests(&mut self) {
        let late = self.setup.broken == Some(Assumption::Quarantine);
        let w = &mut self.now.world;
        let sending = w.sent.map(|sent| usize::from(sent.kid));
        for (_, life) in w.net.iter_mut().enumerate().filter(|(k, _)| Some(*k) != sending) {
            *life = life.saturating_sub(1).max(u8::from(late && *life > 0));
        }
    }

    fn crash(&mut self, identity: u64, restored: bool, dark: u64) -> Result<(), Broken> {
        if dark > 0 {
            self.age_requests();
        }
        let w = &mut self.now.world;
        if let Some(write) = w.write.take().filter(|write| !write.applied) {
            w.stray.push(write.content);
        }
        if let (Some(_), Some(rotation)) = (w.connect, self.now.record.phase.rotation())
            && self.setup.broken == Some(Assumption::Fencing)
        {
            w.stale |= bit(index(rotation.target));
        }
        (w.read, w.ask, w.inspect, w.connect, w.sent, w.vouched, w.shown) = (None, None, None, None, None, 0, 0);
        self.now.volatile = Volatile::default();
        self.tell(Event::Boot { policy: self.setup.policy(), identity, restored, dark })?;
        if self.setup.churn { Ok(()) } else { self.tell_roster() }
    }

    fn tell_roster(&mut self) -> Result<(), Broken> {
        // Of one that comes, or comes back after it was seen to be gone, nothing was shown yet.
        let listed = self.now.volatile.roster.iter().fold(KEYSTORE, |bits, id| bits | 1 << id.0);
        let w = &mut self.now.world;
        (w.shown, w.vouched) = (w.shown & listed & w.everybody(), w.vouched & listed & w.everybody());
        self.tell(Event::Roster { replicas: self.setup.roster(self.now.world.serving) })
    }

    fn operate(&mut self, action: Action) -> Result<bool, Broken> {
        let fresh = unused(&self.now, self.setup);
        let made = |op: fn(Kid) -> Op| fresh.map(|fresh| op(kid(fresh)));
        let op = match action {
            Action::Rotate => made(|fresh| Op::Rotate { fresh, cause: Cause::Demand, compromised: false, unconfirmed: true }),
            Action::RotateCompromised => {
                made(|fresh| Op::Rotate { fresh, cause: Cause::Demand, compromised: true, unconfirmed: true })
            }
            Action::Supersede => made(|fresh| Op::Supersede { fresh }),
            Action::Compromise => {
                Some(Op::Compromise).filter(|_| self.now.record.phase.rotation().is_some_and(|r| !r.compromised))
            }
            Action::Abort => Some(Op::Abort),
            Action::Rollback => Some(Op::Rollback),
            Action::Pause => Some(Op::Pause),
            Action::Resume => Some(Op::Resume),
            Action::Reaccept(k) => Some(Op::Reaccept { kid: kid(k), credit: 2 }),
            Action::AdoptHand => Some(Op::Adopt { kid: Some(kid(self.now.world.provider)), generation: None, replace: false }),
            Action::AdoptUnknown => Some(Op::Adopt { kid: None, generation: None, replace: false }),
            _ => None,
        };
        let Some(op) = op else { return Ok(false) };
        let event = Event::Op(op.clone());
        if step(&self.now.record, &self.now.volatile, &event).is_err() {
            self.witness.refused(&self.now, &event);
            return Ok(false);
        }
        let w = &mut self.now.world;
        match (&op, fresh) {
            (Op::Rotate { .. } | Op::Supersede { .. }, Some(fresh)) => w.known |= bit(fresh),
            (Op::Adopt { kid: Some(_), .. }, _) => {
                w.known |= bit(w.provider);
                w.said = w.in_net() & !bit(w.provider) != 0;
            }
            (Op::Resume, _) if matches!(self.now.record.phase, Phase::Hold(..)) => (w.shown, w.taken) = (0, 0),
            _ => {}
        }
        let current = self.now.record.current.kid().map_or(0, |kid| bit(index(kid)));
        match op {
            Op::Compromise | Op::Rotate { compromised: true, .. } => w.leaked |= current,
            Op::Abort => w.leaked &= !current,
            _ => {}
        }
        self.tell(event)?;
        Ok(true)
    }

    fn keystore(&mut self, action: Action) -> Result<(), Broken> {
        let w = &mut self.now.world;
        match action {
            Action::WriteApplied => {
                let Some(write) = &mut w.write else { return Ok(()) };
                write.applied = true;
                let content = write.content;
                self.put(content);
                Ok(())
            }
            Action::StrayWriteApplied(at) => {
                let content = w.stray.remove(usize::from(at));
                self.put(content);
                Ok(())
            }
            Action::WriteAnswered => {
                let call = w.write.take().map_or(0, |write| write.call);
                self.found(call)
            }
            Action::ReadAnswered => {
                let call = w.read.take().unwrap_or(0);
                self.found(call)
            }
            Action::WriteFailed => {
                let Some(write) = w.write.take() else { return Ok(()) };
                if !write.applied {
                    w.stray.push(write.content);
                }
                self.tell(Event::KeystoreFailed { call: write.call })
            }
            _ => {
                let call = w.read.take().unwrap_or(0);
                self.tell(Event::KeystoreFailed { call })
            }
        }
    }

    fn put(&mut self, content: Content) {
        let w = &mut self.now.world;
        if !fits(content, w.keystore, self.setup) {
            return;
        }
        let follow = w.meddling > 0 || self.setup.broken == Some(Assumption::ReplicasGoForward);
        if follow && w.keystore.kids != content.kids {
            w.older = Some(w.keystore.kids);
        }
        w.keystore = content;
    }

    /// The keystore is read, and what was found there told.
    fn found(&mut self, call: u64) -> Result<(), Broken> {
        let due = retire_due(&self.now);
        let (r, v, w) = (&self.now.record, &self.now.volatile, &mut self.now.world);
        let there = w.keystore;
        let early = std::mem::take(&mut w.early);
        let found = Found {
            generation: there.generation,
            kids: set(there.kids & w.known),
            strangers: set(there.kids & !w.known & !OPAQUE),
            opaque: there.kids & OPAQUE != 0,
        };
        if there == (Content { generation: r.generation, kids: mask(&r.keystore_kids()) }) {
            w.shown |= if early { 0 } else { KEYSTORE };
            w.vouched |= if due && !early { KEYSTORE } else { 0 };
        } else {
            // What was confirmed and is gone was taken by somebody else.
            let expected = match v.keystore {
                KeystoreView::Reading { .. } => true,
                KeystoreView::Writing { .. } => there.generation != r.generation,
                _ => false,
            };
            let restored = matches!(r.phase, Phase::Hold(Hold::Restored, _));
            // What cannot be kept calls a person at once, by another name.
            let counted = expected && !restored && !foreign(r, &found);
            w.taken = (w.taken + u8::from(counted && r.phase.rotation().is_some())).min(2);
            w.shown = 0;
        }
        self.tell(Event::Keystore { call, found })?;
        // A stranger that the core does not take in is not kept.
        let Scene { now: State { record, world, .. }, .. } = self;
        world.known |= there.kids & mask(&record.keystore_kids());
        Ok(())
    }

    /// Somebody else puts back what was there before (with a newer number, the present one, or its own), deletes it, or adds to it. A
    /// person takes foreign keys out.
    fn meddle(&mut self, action: Action) {
        let fresh = unused(&self.now, self.setup);
        let own = mask(&self.now.record.keystore_kids());
        let restored = matches!(self.now.record.phase, Phase::Hold(Hold::Restored, _));
        let w = &mut self.now.world;
        let (ours, there) = (self.now.record.generation, w.keystore.generation);
        let next = |kids| Content { generation: ours.max(there) + 1, kids };
        let older = w.older.unwrap_or_default();
        w.keystore = match action {
            Action::PutBackNewer => next(older),
            Action::PutBackSame => Content { generation: ours, kids: older },
            Action::PutBackOlder => Content { generation: 1, kids: older },
            Action::AddStranger => next(w.keystore.kids | fresh.map_or(0, bit)),
            Action::AddStrangerSame => Content { generation: ours, kids: w.keystore.kids | fresh.map_or(0, bit) },
            Action::AddOpaque => next(w.keystore.kids | OPAQUE),
            // What a restored record does not know is not foreign for that.
            Action::TidyKeystore if restored => next(w.keystore.kids & !OPAQUE),
            Action::TidyKeystore => next(own),
            _ => Content::default(),
        };
        match action {
            Action::AddStranger | Action::AddStrangerSame | Action::AddOpaque => w.strangers -= 1,
            Action::TidyKeystore => {}
            _ if w.meddling == AGAIN_AND_AGAIN => {}
            _ => w.meddling -= 1,
        }
        (w.tainted, w.leftover, w.meddled) = (true, true, true);
    }

    fn replica(&mut self, r: u8, odd: Option<Verdict>) -> Result<(), Broken> {
        let due = retire_due(&self.now);
        let w = &mut self.now.world;
        let (shown, vouched) = (w.shown, w.vouched);
        let accepts = w.accepts(r);
        let Some(ask) = &mut w.ask else { return Ok(()) };
        let (round, accept, refuse) = (ask.round, ask.accept, ask.refuse);
        ask.whom &= !(1 << r);
        let last = ask.whom == 0;
        let as_asked = accepts & bit(accept) != 0 && accepts & refuse == 0;
        let verdict = odd.unwrap_or(if as_asked { Verdict::Accepts } else { Verdict::Refuses });
        if verdict == Verdict::Accepts {
            w.shown |= 1 << r;
            w.vouched |= u8::from(due) << r;
        } else {
            w.shown &= !(1 << r);
        }
        // The keystore has the last word: what it said before the newest of the proofs does not count.
        let (first, second) = (w.shown != shown, w.vouched != vouched);
        if first {
            w.shown &= !KEYSTORE;
        }
        if second {
            w.vouched &= !KEYSTORE;
        }
        w.early |= w.read.is_some() && (first || second);
        self.tell(Event::Replica { round, replica: ReplicaId(u16::from(r)), verdict })?;
        if last {
            self.now.world.ask = self.now.world.ask.filter(|ask| ask.round != round);
            self.tell(Event::RoundEnded { round })?;
        }
        Ok(())
    }

    fn inspected(&mut self, answer: Inspection) -> Result<(), Broken> {
        let call = self.now.world.inspect.take().unwrap_or(0);
        self.tell(Event::Webhook { call, answer })
    }

    fn answer(&mut self, answer: PatchAnswer) -> Result<(), Broken> {
        let attempt = self.now.world.sent.take().map_or(0, |sent| sent.attempt);
        self.tell(Event::Patched { attempt, answer })
    }

    fn seen(&mut self, k: u8, new_body: bool, probe: bool, accepted: Option<bool>) -> Result<(), Broken> {
        self.tell(Event::Seen(self::Seen { kid: kid(k), new_body, probe, accepted }))
    }

    /// The core is told; what it wants done is owed from now on.
    fn tell(&mut self, event: Event) -> Result<(), Broken> {
        let Ok(stepped) = step(&self.now.record, &self.now.volatile, &event) else { return Ok(()) };
        self.witness.saw(&self.now, &event, &stepped);
        check::transition(&self.now, &stepped, &event, self.setup)?;
        let before = std::mem::replace(&mut self.now.record, stepped.record);
        self.now.volatile = stepped.volatile;
        let (r, w) = (&self.now.record, &mut self.now.world);
        if drain_began(&before, r) {
            w.elder |= std::mem::take(&mut w.younger);
            w.elder_life = self.setup.drain as u8;
        }
        if let (Phase::Retire(rotation, shrinking), false) = (&r.phase, matches!(before.phase, Phase::Retire(..)))
            && rotation.compromised
        {
            let sacrificed = mask(&shrinking.removed);
            (w.elder, w.younger) = (w.elder & !sacrificed, w.younger & !sacrificed);
        }
        let (was, is) = (before.phase.rotation(), r.phase.rotation());
        w.said &= r.phase == Phase::Idle;
        if before.generation != r.generation {
            w.shown = 0;
        } else if was.map(|r| r.target) != is.map(|r| r.target) {
            w.shown &= KEYSTORE;
        }
        if was.map(|r| r.number) != is.map(|r| r.number) {
            w.taken = 0;
        }
        for effect in stepped.effects {
            self.owe(effect);
        }
        if !retire_due(&self.now) {
            self.now.world.vouched = 0;
        }
        self.debts()
    }

    /// What somebody did to the keystore is put right once everybody has what hookturn says again.
    fn heal(&mut self) {
        let (r, w) = (&self.now.record, &mut self.now.world);
        if r.phase == Phase::Idle
            && r.current == Current::Known(kid(w.provider))
            && w.everywhere() & w.keystore.kids & bit(w.provider) != 0
        {
            w.by_hand = false;
        }
        let extra = w.keystore.kids & !mask(&r.keystore_kids());
        let needed = mask(&r.accepted) | bit(w.provider) & !w.hand | w.in_net() | w.flying() & !w.hand;
        if w.tainted && extra == 0 && needed & !(w.everywhere() & (w.keystore.kids | w.outside)) == 0 {
            w.tainted = false;
        }
        let own = mask(&r.keystore_kids());
        w.leftover &= w.tainted || w.each_serving().any(|r| w.replicas[usize::from(r)] & !own != 0);
    }

    fn owe(&mut self, effect: Effect) {
        let w = &mut self.now.world;
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
                w.net[usize::from(index(kid))] = self.setup.quarantine as u8;
                w.sent = Some(Sent { attempt, kid: index(kid), landed: false });
            }
        }
    }

    /// Whatever the core waits for was asked for.
    fn debts(&self) -> Result<(), Broken> {
        let (v, w) = (&self.now.volatile, &self.now.world);
        let paid = match v.keystore {
            KeystoreView::Reading { call, .. } => w.read == Some(call),
            KeystoreView::Writing { call } => w.write.is_some_and(|write| write.call == call),
            _ => true,
        };
        let asked = v.asking.is_none_or(|round| w.ask.is_some_and(|ask| ask.round == round));
        let line = match v.line {
            Line::Connecting { call } => w.connect == Some(call),
            Line::Sent { attempt, kid: sent, .. } => w.sent.is_some_and(|owed| owed.attempt == attempt && kid(owed.kid) == sent),
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
}

/// Everything but the last proofs is there for the retire.
fn retire_due(state: &State) -> bool {
    match &state.record.phase {
        Phase::Drain(rotation, draining) => draining.left == 0 || rotation.compromised,
        Phase::Patch(rotation, patching) => rotation.compromised && patching.settled,
        _ => false,
    }
}
