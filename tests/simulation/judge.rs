//! Judges by the world's own log: what replicas refused, and what the disk said when something left the process.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::FutureExt;
use hookturn::{
    keystore::Contents,
    rotation::{Current, Hold, KidSet, Phase, Record},
    secret::{Kid, SealingKey, Secret},
    store::{Anchor, AnchorState, Batch, Change, StoredSecret},
};
use tokio_util::sync::CancellationToken;

use super::{
    consumer::{Reached, Version},
    counts::{Counts, Excuse, Fate},
    dialnexa::{By, Signing},
    dice::{FNV_BASIS, fnv},
    setup::{Fault, Setup},
    time::Machine,
    world::{Hook, World},
};

pub struct Judge {
    machine: Machine,
    inner: Mutex<Inner>,
    /// Something was lost, or done that must not be.
    pub broken: CancellationToken,
    verbose: bool,
}

#[derive(Default)]
struct Inner {
    hash: u64,
    /// The end of the log, for who has to understand it.
    tail: VecDeque<String>,
    verdict: Option<String>,
    secrets: Vec<Secret>,
    counts: Counts,
    views: Vec<View>,
    /// Time in which a process listened at the doors; and since when one does.
    watched: u64,
    listening_since: Option<u64>,
    /// Processes that may write the anchor.
    processes: usize,
}

/// One webhook as it is on the disk, and what was on it.
#[derive(Default)]
struct View {
    record: Option<Record>,
    known: Vec<(Kid, Secret)>,
    /// What the keystore may be made to hold, by generation, and the seq of the commit that says so.
    contents: BTreeMap<u64, Vec<(KidSet, u64)>>,
    /// Attempts on record by kid, and the seq of the newest; and PATCHes sent.
    intents: BTreeMap<Kid, (u64, u64)>,
    sent: BTreeMap<Kid, u64>,
    probes: BTreeSet<String>,
    /// Retired in an emergency: what they sign may be refused from then on.
    leaked: BTreeSet<Kid>,
    /// Their values: an older store that is copied back undoes no leak.
    leaked_values: Vec<Secret>,
    /// The time watched when the drain began.
    drain_from: Option<u64>,
    both_since: Option<u64>,
    /// Since when somebody else's content lies in the keystore, by the time that a daemon was there to see it.
    foreign_since: Option<u64>,
}

/// One try of one delivery.
pub struct Try<'a> {
    pub number: u64,
    pub signing: &'a Signing,
    pub signed_at: u64,
    pub replica: usize,
    pub reached: Reached,
    pub loaded: Option<&'a Version>,
}

/// So long a daemon may have been at work, awake and not told to pause, until a keystore that somebody else has written holds
/// the secret that signs again: it looks at a program's every ten minutes, and a write may fail some times.
const TO_REPAIR: u64 = 900_000;

const TAIL: usize = 400;

impl Judge {
    pub fn new(setup: &Setup, machine: Machine) -> Judge {
        let views = (0..setup.webhooks).map(|_| View::default()).collect();
        Judge {
            machine,
            inner: Mutex::new(Inner { hash: FNV_BASIS, views, ..Inner::default() }),
            broken: CancellationToken::new(),
            verbose: std::env::var_os("HOOKTURN_TRACE").is_some(),
        }
    }

    pub fn log(&self, line: impl FnOnce() -> String) {
        let line = format!("{:>9} {}", self.machine.ran(), line());
        if self.verbose {
            println!("{line}");
        }
        let mut inner = self.inner();
        inner.hash = fnv(line.as_bytes(), inner.hash);
        if inner.tail.len() == TAIL {
            inner.tail.pop_front();
        }
        inner.tail.push_back(line);
    }

    /// The first thing that is wrong counts; the run ends with it.
    pub fn condemn(&self, why: String) {
        self.log(|| format!("WRONG: {why}"));
        self.inner().verdict.get_or_insert(why);
        self.broken.cancel();
    }

    pub fn verdict(&self) -> Option<String> {
        self.inner().verdict.clone()
    }

    pub fn tail(&self) -> Vec<String> {
        self.inner().tail.iter().cloned().collect()
    }

    pub fn hash(&self) -> u64 {
        self.inner().hash
    }

    pub fn counts(&self) -> Counts {
        let virtual_ms = self.machine.ran();
        Counts { virtual_ms, ..self.inner().counts.clone() }
    }

    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.inner().counts);
    }

    pub fn record(&self, hook: &Hook) -> Option<Record> {
        self.inner().views[hook.place].record.clone()
    }

    /// A word for a secret: its number in the order of appearance.
    pub fn name(&self, secret: &Secret) -> String {
        let mut inner = self.inner();
        let at = inner.secrets.iter().position(|known| known.same_as(secret)).unwrap_or_else(|| {
            inner.secrets.push(secret.clone());
            inner.secrets.len() - 1
        });
        format!("secret {at}")
    }

    pub fn listening(&self, listens: bool) {
        let now = self.machine.ran();
        let mut inner = self.inner();
        inner.watched = inner.watched(now);
        inner.listening_since = listens.then_some(now);
    }

    /// How long a process has listened at the doors by now.
    pub fn watched(&self) -> u64 {
        self.inner().watched(self.machine.ran())
    }

    pub fn processes(&self, change: isize) {
        let mut inner = self.inner();
        inner.processes = inner.processes.saturating_add_signed(change);
    }

    pub fn is_deserted(&self) -> bool {
        self.inner().processes == 0
    }

    /// A try came to a replica.
    pub fn delivered(&self, hook: &Hook, tried: &Try) -> Fate {
        let Try { number, signing, signed_at, replica, reached, loaded } = *tried;
        match reached {
            Reached::Accepted(_) => return Fate::Accepted,
            Reached::Down => return Fate::NobodyThere,
            Reached::Unwanted(_) => return Fate::Excused(Excuse::Unwanted),
            Reached::Unknown => {}
        }
        let kid = self.inner().views[hook.place].kid_of(&signing.secret);
        let put_back = loaded.is_some_and(|version| version.foreign);
        match kid {
            None if signing.by == By::Person => return Fate::Excused(Excuse::ByHand),
            _ if self.inner().views[hook.place].has_leaked(&signing.secret) => return Fate::Excused(Excuse::Leaked),
            _ if put_back => {
                self.put_back(hook);
                return Fate::Excused(Excuse::PutBack);
            }
            _ => {}
        }
        let has = loaded.map(|version| (version.contents.generation, version.contents.keys.iter().map(|k| k.kid)));
        let has = has.map(|(generation, kids)| (generation, kids.collect::<Vec<_>>()));
        let secret = self.name(&signing.secret);
        self.condemn(format!(
            "{}: delivery {number}, signed at {signed_at} with {secret} ({kid:?}), is refused by replica {replica}, which has {has:?}",
            hook.name
        ));
        Fate::Lost
    }

    /// A replica refuses something because of what somebody else wrote.
    fn put_back(&self, hook: &Hook) {
        let now = self.watched();
        let mut inner = self.inner();
        let view = &mut inner.views[hook.place];
        let at_work = view.record.as_ref().is_some_and(|record| !record.paused && !matches!(record.phase, Phase::Hold(..)));
        if !hook.shelf.newest().foreign || !at_work {
            view.foreign_since = None;
            return;
        }
        let since = *view.foreign_since.get_or_insert(now);
        drop(inner);
        if now - since > TO_REPAIR {
            self.condemn(format!(
                "{}: what somebody has put into the keystore is not put right in {} ms",
                hook.name,
                now - since
            ));
        }
    }

    /// A PATCH leaves the process.
    pub fn patch_sent(&self, world: &World, hook: &Hook, secret: &Secret) {
        let name = self.name(secret);
        let mut inner = self.inner();
        inner.counts.patches += 1;
        let alone = inner.processes < 2;
        let view = &mut inner.views[hook.place];
        let Some(kid) = view.kid_of(secret) else {
            drop(inner);
            return self.condemn(format!("{}: {name} is sent and not in the store", hook.name));
        };
        let sent = view.sent.entry(kid).or_default();
        *sent += 1;
        let sent = *sent;
        let (intents, seq) = view.intents.get(&kid).copied().unwrap_or_default();
        let record = view.record.as_ref();
        let open = record.is_some_and(|record| record.open.iter().any(|open| open.kid == kid));
        let retired = record.is_some_and(|record| record.is_retired(kid));
        drop(inner);
        hook.log(|| format!("sends {name} ({kid}), number {sent}"));
        if sent > intents || !open {
            self.condemn(format!("{}: {kid} is sent, and no intent is on the disk ({intents} for {sent})", hook.name));
        }
        if retired {
            self.condemn(format!("{}: the retired {kid} is sent", hook.name));
        }
        if alone {
            self.anchored(world, hook, seq, "a PATCH");
        }
    }

    /// The keystore has taken a content over.
    pub fn keystore_written(&self, world: &World, hook: &Hook, contents: &Contents) {
        let kids: KidSet = contents.keys.iter().map(|key| key.kid).collect();
        hook.log(|| format!("the keystore holds generation {} {:?}", contents.generation, kids.iter().collect::<Vec<_>>()));
        let mut inner = self.inner();
        inner.views[hook.place].foreign_since = None;
        let alone = inner.processes < 2;
        let view = &inner.views[hook.place];
        let asked = view.contents.get(&contents.generation);
        let exact = asked.and_then(|sets| sets.iter().find(|(set, _)| *set == kids)).map(|(_, seq)| *seq);
        // One commit may cover several steps: what one of those before the last asked for is done too, and is overtaken.
        let on_the_way = asked.is_none()
            && view.record.as_ref().is_some_and(|record| contents.generation < record.generation)
            && kids.iter().all(|kid| view.known.iter().any(|(known, _)| *known == kid));
        let seq = exact.or(on_the_way.then_some(0));
        drop(inner);
        match seq {
            None => self.condemn(format!("{}: nothing on the disk asks for generation {}", hook.name, contents.generation)),
            Some(seq) if alone => self.anchored(world, hook, seq, "a keystore write"),
            Some(_) => {}
        }
    }

    /// The witness outside the store knows of what is done.
    fn anchored(&self, world: &World, hook: &Hook, seq: u64, what: &str) {
        let mark = match Anchor::load(&anchor_path(&world.dir), STORE_ID) {
            AnchorState::Read(anchor) => anchor.mark(&hook.name).map_or(0, |mark| mark.seq),
            _ => 0,
        };
        if mark < seq {
            self.condemn(format!("{}: {what} of commit {seq}, and the anchor is at {mark}", hook.name));
        }
    }

    pub fn probe_sent(&self, world: &World, hook: &Hook, sha256: &[u8; 32]) {
        let digest = world.digests.digest(sha256);
        let mut inner = self.inner();
        inner.counts.probes += 1;
        let booked = inner.views[hook.place].probes.contains(&digest);
        drop(inner);
        if !booked {
            self.condemn(format!("{}: a probe is sent that is not on the disk", hook.name));
        }
    }

    /// A batch is on the disk.
    ///
    /// `watched` is the time watched when it was first offered: what it decides was decided then.
    pub fn committed(&self, world: &World, batch: &Batch, watched: u64) {
        self.inner().counts.commits += 1;
        for change in &batch.changes {
            let hook = world.hooks.iter().find(|hook| hook.name == change.webhook).expect("a webhook of this name");
            let wrong = self.inner().take(world, hook, change, watched, self.machine.ran());
            self.log(|| summary(change));
            for wrong in wrong {
                self.condemn(format!("{}: {wrong}", hook.name));
            }
        }
    }

    /// What somebody who looked beside the daemon was told. A witness that is lost, or older than it says, may alarm him.
    pub fn looked_at(&self, world: &World, name: &str, hold: Option<&str>) {
        let Some(hook) = world.hooks.iter().find(|hook| hook.name == name) else { return };
        let held = self.record(hook).is_some_and(|record| matches!(record.phase, Phase::Hold(..)));
        let alarmed = [Fault::Restore, Fault::Anchor].iter().any(|fault| world.setup.has(*fault));
        if hold == Some(Hold::Restored.name()) && !held && !alarmed {
            self.condemn(format!("{name}: who looks beside the daemon is told that a backup was restored, and none was"));
        }
    }

    /// Another store lies there now.
    pub fn restored(&self, world: &World) {
        for hook in &world.hooks {
            let stored = world.disk.stored(&hook.name).now_or_never().flatten();
            let secrets = world.disk.secrets(&hook.name).now_or_never().unwrap_or_default();
            let mut inner = self.inner();
            let view = &mut inner.views[hook.place];
            view.record = stored.map(|stored| stored.record);
            // What was asked for after the backup may still be written, and may be asked for again: by which commit is not known.
            let seq = view.record.as_ref().map_or(0, |record| record.seq);
            for (_, asked) in view.contents.values_mut().flatten().filter(|(_, asked)| *asked > seq) {
                *asked = 0;
            }
            view.known = opened(&world.sealing, &hook.name, &secrets);
            view.intents.clear();
            view.sent.clear();
            view.drain_from = None;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub const STORE_ID: &str = "memory";

pub fn anchor_path(dir: &Path) -> std::path::PathBuf {
    dir.join("anchor")
}

fn opened(sealing: &SealingKey, webhook: &str, secrets: &[StoredSecret]) -> Vec<(Kid, Secret)> {
    secrets.iter().filter_map(|stored| Some((stored.kid, sealing.open(webhook, stored.kid, &stored.sealed).ok()?))).collect()
}

fn summary(change: &Change) -> String {
    let record = change.record.as_ref().map(|record| {
        let open: Vec<_> = record.open.iter().map(|open| format!("{} {}", open.kid, open.left)).collect();
        let accepted: Vec<_> = record.accepted.iter().map(|kid| kid.to_string()).collect();
        let phase = match &record.phase {
            Phase::Hold(hold, was) => format!("hold {} in {}", hold.name(), was.name()),
            phase => phase.name().to_owned(),
        };
        let target = record.phase.rotation().map(|r| r.target.to_string()).unwrap_or_default();
        format!("seq {} {phase} {target} gen {} accepts {accepted:?} open {open:?}", record.seq, record.generation)
    });
    let notes: Vec<_> = change.journal.iter().map(|line| format!("{:?}", line.note)).collect();
    format!("{}: commit {} {notes:?}", change.webhook, record.unwrap_or_default())
}

impl Inner {
    fn watched(&self, now: u64) -> u64 {
        self.watched + self.listening_since.map_or(0, |since| now - since)
    }

    /// Takes note of what a webhook is now, and says what is wrong with it.
    fn take(&mut self, world: &World, hook: &Hook, change: &Change, watched: u64, now: u64) -> Vec<String> {
        let Inner { views, counts, .. } = self;
        let view = &mut views[hook.place];
        view.known.extend(opened(&world.sealing, &hook.name, &change.secrets));
        view.probes.extend(change.probes.iter().map(|probe| probe.body.clone()));
        for line in &change.journal {
            counts.note(&line.note);
        }
        let Some(record) = &change.record else { return Vec::new() };
        for attempt in change.attempts.iter().filter(|attempt| attempt.outcome.is_none()) {
            let (rows, seq) = view.intents.entry(attempt.kid).or_default();
            *rows += 1;
            *seq = record.seq;
        }
        let contents = view.contents.entry(record.generation).or_default();
        if contents.iter().all(|(kids, _)| *kids != record.keystore_kids()) {
            contents.push((record.keystore_kids(), record.seq));
        }
        let mut wrong = Vec::new();
        for retired in record.retired.iter().filter(|retired| retired.compromised) {
            let target = record.phase.rotation().and_then(|rotation| view.secret_of(rotation.target));
            let value = view.secret_of(retired.kid).cloned();
            let signs = view.secret_of(retired.kid).is_some_and(|secret| hook.signer.newest().secret.same_as(secret));
            let said = target.is_some_and(|target| hook.signer.has_said(target));
            let new = view.leaked.insert(retired.kid);
            view.leaked_values.extend(value.filter(|_| new));
            if new && signs && !said {
                wrong.push(format!("{} is retired as leaked, and DialNexa never said that it signs with another", retired.kid));
            }
        }
        if let Some(before) = view.record.take() {
            wrong.extend(view.moved(hook, &before, record, watched));
        }
        if record.current != Current::Missing && !matches!(record.phase, Phase::Hold(Hold::Restored, _)) {
            for signing in hook.signer.possible().into_iter().filter(|signing| signing.by == By::Hookturn) {
                let kid = view.kid_of(&signing.secret);
                let fine = kid.is_some_and(|kid| record.accepted.contains(kid) || view.leaked.contains(&kid));
                if !fine {
                    wrong.push(format!("DialNexa may sign with {kid:?}, and it is not accepted any more"));
                }
            }
        }
        match (record.accepted.len() > 1, view.both_since) {
            (true, None) => view.both_since = Some(now),
            (false, Some(since)) => {
                counts.both_ms += now - since;
                view.both_since = None;
            }
            _ => {}
        }
        view.record = Some(record.clone());
        wrong
    }
}

impl View {
    fn kid_of(&self, secret: &Secret) -> Option<Kid> {
        self.known.iter().rev().find(|(_, known)| known.same_as(secret)).map(|(kid, _)| *kid)
    }

    fn has_leaked(&self, secret: &Secret) -> bool {
        self.leaked_values.iter().any(|leaked| leaked.same_as(secret))
    }

    fn secret_of(&self, kid: Kid) -> Option<&Secret> {
        self.known.iter().rev().find(|(known, _)| *known == kid).map(|(_, secret)| secret)
    }

    /// What a record must not do on its way.
    fn moved(&mut self, hook: &Hook, before: &Record, now: &Record, watched: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        let falls = now.seq <= before.seq
            || now.generation < before.generation
            || now.attempts < before.attempts
            || now.rotations < before.rotations;
        if falls {
            wrong.push("a number on the record falls".to_owned());
        }
        for retired in &before.retired {
            if now.accepted.contains(retired.kid) && !before.accepted.contains(retired.kid) {
                wrong.push(format!("the retired {} is accepted again", retired.kid));
            }
        }
        for open in before.open.iter().filter(|open| now.open.iter().all(|still| still.kid != open.kid)) {
            if self.secret_of(open.kid).is_some_and(|secret| hook.signer.is_landing(secret)) {
                wrong.push(format!("{} counts as closed, and is on its way to DialNexa", open.kid));
            }
        }
        let draining = |record: &Record| matches!(record.phase.underlying(), Phase::Drain(..));
        match (draining(before), draining(now)) {
            (false, true) => self.drain_from = Some(watched),
            (true, false) => {
                let retires = matches!(now.phase.underlying(), Phase::Retire(..));
                let compromised = now.phase.rotation().is_some_and(|rotation| rotation.compromised);
                let since = self.drain_from.take();
                let short = since.is_some_and(|since| watched - since + TOLERANCE < now.policy.drain);
                if retires && !compromised && short {
                    let since = watched - since.unwrap_or(watched);
                    wrong.push(format!("retired after {since} ms of watching, where {} were promised", now.policy.drain));
                }
            }
            _ => {}
        }
        wrong
    }
}

/// A daemon counts itself as listening from a moment before the world does.
const TOLERANCE: u64 = 1_500;
