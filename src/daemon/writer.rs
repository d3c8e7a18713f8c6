//! The one writer loop: drain the inbox, step every event, commit once, then release the effects.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    clock::Clock,
    desk::FrontDesk,
    hands::{Hands, Job},
    members::Dismissal,
    message::{Extras, Message, Words},
    notify::Bell,
    office::{Board, Local, StoreTrouble},
    ward::Ward,
};
use crate::{
    boundary::{self, Boundary},
    mutants::{self, Mutant},
    rotation::{Cause, Effect, Event, Line, PatchAnswer, Phase, Refused},
    schedule::Plan,
    steps::retire::label,
    store::{Anchor, Attempt, Batch, Change, Probe, Store, StoreError, UnixMillis},
};

/// Between two tries to begin a rotation that is due.
const SCHEDULE_RETRY_MS: u64 = 60_000;
/// Messages that one commit may cover.
const BATCH: usize = 512;
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// How much later than asked a busy machine may wake the loop.
const OVERSLEPT: Duration = Duration::from_secs(2);
/// How long a shutdown waits for a PATCH that is under way.
const LAST_ANSWER: Duration = Duration::from_secs(12);

/// The number of the newest rotation, or why the core refused.
type Outcome = Result<u64, Refused>;
type Asker = oneshot::Sender<Outcome>;

pub(super) struct Writer {
    pub wards: Vec<Ward>,
    pub store: Arc<dyn Store>,
    pub anchor: Anchor,
    pub inbox: mpsc::Receiver<Message>,
    pub hands: Hands,
    pub desk: Arc<FrontDesk>,
    pub board: Arc<Board>,
    pub bell: Bell,
    pub clock: Clock,
    pub doors_open: bool,
    pub shutdown: CancellationToken,
    pub replies: Vec<(Asker, Outcome)>,
    pub acknowledgements: Vec<oneshot::Sender<()>>,
    /// Nothing is written, sent or begun.
    pub read_only: bool,
    /// Where rotations that are due are asked for; `None`: on demand only.
    pub schedule: Option<(Arc<Local>, TaskTracker)>,
}

impl Writer {
    /// Runs until shutdown. An error is one that no waiting mends: another process took over, or the store is damaged.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut messages = Vec::with_capacity(BATCH);
        self.settle().await?;
        // Doors open after this first commit, which a slow disk may hold up: nobody has listened until now.
        self.wards.iter_mut().for_each(|ward| ward.pass_time(&self.clock, false));
        let mut leaving: Option<tokio::time::Instant> = None;
        loop {
            let nap = self.nap();
            let asleep_at = self.clock.boottime_ms();
            tokio::select! {
                biased;
                () = self.shutdown.cancelled(), if leaving.is_none() => {
                    leaving = Some(tokio::time::Instant::now() + LAST_ANSWER);
                    self.hands.cancel.cancel();
                    // The same token shuts the doors, perhaps some time ago: what goes by from the last tick on is unwatched.
                    self.doors_open = false;
                }
                _ = self.inbox.recv_many(&mut messages, BATCH) => {}
                () = tokio::time::sleep(nap) => {}
            }
            self.board.beat(&self.clock);
            self.notice_a_gap(asleep_at, nap);
            for message in messages.drain(..) {
                self.take(message);
            }
            let now = self.clock.boottime_ms();
            for ward in self.wards.iter_mut().filter(|ward| ward.wakes_at().is_some_and(|at| at <= now)) {
                ward.pass_time(&self.clock, self.doors_open);
            }
            self.look_after();
            self.stimulate();
            self.settle().await?;
            // Not before: a secret that was adopted in this very turn is known to who looks only once it is committed.
            self.look_at_keystores();
            if let Some(deadline) = leaving {
                let sending = self.wards.iter().any(|ward| matches!(ward.volatile.line, Line::Sent { .. }));
                if !sending || tokio::time::Instant::now() >= deadline {
                    return self.leave().await;
                }
            }
        }
    }

    /// A loop that was woken much too late was stopped, or the machine slept: nobody has listened meanwhile.
    fn notice_a_gap(&mut self, asleep_at: u64, nap: Duration) {
        let asleep = Duration::from_millis(self.clock.boottime_ms().saturating_sub(asleep_at));
        if asleep > nap + OVERSLEPT {
            self.wards.iter_mut().for_each(|ward| ward.pass_time(&self.clock, false));
        }
    }

    fn nap(&self) -> Duration {
        let now = self.clock.boottime_ms();
        let due = self.wards.iter().filter_map(Ward::wakes_at).min().map(|at| at.saturating_sub(now));
        due.map_or(LONGEST_SLEEP, |ms| Duration::from_millis(ms).min(LONGEST_SLEEP))
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Event { webhook, event, extras, reply } => self.take_event(webhook, event, *extras, reply),
            Message::Probes { webhook, rows, done } => {
                if let Some(ward) = self.wards.get_mut(webhook) {
                    count_probes(ward, &rows);
                    ward.change.probes.extend(rows);
                    self.acknowledgements.push(done);
                }
            }
            Message::Sighting(sighting) => self.sighted(&sighting),
            Message::Members { webhook, listed } => self.members(webhook, &listed),
            Message::Dismiss(Dismissal { webhook, names, actor, reply, done }) => {
                let dismissed = self.dismiss(webhook, &names, &actor);
                self.acknowledgements.push(done);
                let _ = reply.send(dismissed);
            }
            Message::KeystoreSeen { webhook, generation, reading } => self.keystore_seen(webhook, generation, &reading),
            Message::SetAside { webhook, body_sha256 } => self.set_aside(&webhook, &body_sha256),
            Message::Unverified { webhook, door, reason, facts } => self.unverified(&webhook, door, reason, &facts),
            Message::GatewayCounts { webhook, counts } => {
                if let Some(ward) = self.wards.iter_mut().find(|ward| ward.name() == webhook) {
                    ward.facts.gateways.take(counts);
                    ward.facts.counts.lost = ward.facts.gateways.lost();
                    ward.touched = true;
                }
            }
            Message::StatusFiles { webhook, files } => self.status_files(webhook, files),
            Message::Audit { webhook, note, actor, done } => {
                if let Some(ward) = self.wards.get_mut(webhook) {
                    ward.write_down(note, &actor, self.clock.unix_millis());
                    ward.keep_facts();
                    self.acknowledgements.push(done);
                }
            }
            Message::Wake => {
                // Space may have been made although nothing was written since.
                self.board.store_trouble(StoreTrouble::short_of_space(self.store.as_ref()));
                self.look_at_schedule();
            }
        }
    }

    fn take_event(&mut self, webhook: usize, event: Event, extras: Extras, reply: Option<oneshot::Sender<Result<u64, Refused>>>) {
        let Some(ward) = self.wards.get_mut(webhook) else { return };
        let now = self.clock.unix_millis();
        if let (Event::Patched { attempt, answer }, Some(Words::Attempt(_, text))) = (&event, &extras.words) {
            finish_attempt(ward, *attempt, *answer, text, now);
        }
        let actor = extras.actor.as_deref().unwrap_or("daemon").to_owned();
        if let Some(words) = extras.words {
            ward.hear(words, now);
        }
        let attempts_before = ward.record.attempts;
        let result = ward.take(&event, &actor, &self.clock, self.doors_open);
        if let Err(refused) = &result {
            tracing::debug!(webhook = ward.name(), "{refused}");
        }
        if ward.record.attempts > attempts_before
            && let Some(rotation) = ward.record.phase.rotation()
        {
            let (number, kid) = (ward.record.attempts, rotation.target);
            let sent = Attempt { number, rotation: rotation.number, kid, intent_at: now, ended_at: None, outcome: None };
            ward.change.attempts.push(sent.clone());
            ward.sent = Some(sent);
        }
        if result.is_ok() {
            // A stranger that the core did not take in (a stale answer) is not kept either.
            let known = ward.record.keystore_kids();
            let adopted = matches!(&event, Event::Op(_));
            ward.fresh.extend(extras.secrets.into_iter().filter(|fresh| adopted || known.contains(fresh.kid)));
        }
        if let Some(reply) = reply {
            let number = ward.record.rotations;
            self.replies.push((reply, result.map(|()| number)));
        }
    }

    /// Revises each plan and begins what is due. A refused or failed start is tried again, not at once.
    fn look_at_schedule(&mut self) {
        let Some((office, tasks)) = &self.schedule else { return };
        let now = self.clock.now();
        let at = |millis: Option<UnixMillis>| millis.and_then(chrono::DateTime::from_timestamp_millis);
        for ward in &mut self.wards {
            let schedule = ward.tools.config.schedule.clone();
            let (adopted, ended) = (at(ward.facts.adopted_at), at(ward.facts.last_ended_at));
            if adopted.is_none() {
                continue;
            }
            let plan = Plan::revised(ward.plan.as_ref(), &schedule, adopted, ended, now, ward.tools.chance.draw());
            if ward.plan.as_ref() != Some(&plan) {
                ward.memo("plan", serde_json::to_value(&plan).unwrap_or_default());
                ward.plan = Some(plan.clone());
                ward.touched = true;
            }
            let idle = ward.record.phase == Phase::Idle && !ward.record.paused;
            if !idle || !plan.is_due(&schedule, now) || ward.schedule_retry > self.clock.boottime_ms() {
                continue;
            }
            ward.schedule_retry = self.clock.boottime_ms() + SCHEDULE_RETRY_MS;
            let (office, name) = (office.clone(), ward.name().to_owned());
            tasks.spawn(async move {
                if let Err(failure) = office.rotate(&name, Cause::Schedule, false, false, "schedule").await {
                    tracing::warn!(webhook = name, "the scheduled rotation did not begin, tried again in a minute: {failure}");
                }
            });
        }
    }

    /// Commits what there is, then lets it have its effects. Nothing outward happens before that.
    async fn settle(&mut self) -> Result<(), StoreError> {
        if self.read_only {
            self.look_only();
            return Ok(());
        }
        let changes: Vec<Change> = self.wards.iter_mut().filter_map(Ward::take_change).collect();
        if mutants::on(Mutant::EffectsBeforeCommit) {
            self.release();
        }
        if mutants::on(Mutant::AcknowledgedBeforeCommit) {
            self.acknowledge();
        }
        if !changes.is_empty() {
            self.commit(changes).await?;
        }
        if !mutants::on(Mutant::AnchorStays) {
            self.anchor_outward().await?;
        }
        self.release();
        self.acknowledge();
        self.board.publish(&mut self.wards, &self.clock, &self.bell);
        for (reply, result) in self.replies.drain(..) {
            boundary::reach(Boundary::BeforeReply);
            let _ = reply.send(result);
        }
        Ok(())
    }

    /// What is on record takes effect: secrets, keys at the doors, and what is to be done outside.
    fn release(&mut self) {
        for ward in &mut self.wards {
            for fresh in ward.fresh.drain(..) {
                ward.tools.vault.insert(fresh.kid, fresh.secret, fresh.stored.origin);
                ward.published = None;
            }
            publish_keys(ward, &self.desk);
            let effects = std::mem::take(&mut ward.effects);
            if !effects.is_empty() {
                let job = job(ward);
                for effect in effects {
                    self.hands.start(job.clone(), effect);
                }
            }
        }
    }

    fn acknowledge(&mut self) {
        for done in self.acknowledgements.drain(..) {
            let _ = done.send(());
        }
    }

    /// Shows what there is. Questions that wait for a commit are not answered, so nothing goes out.
    fn look_only(&mut self) {
        for ward in &mut self.wards {
            ward.effects.clear();
            ward.take_change();
        }
        self.acknowledgements.clear();
        self.replies.clear();
        self.board.publish(&mut self.wards, &self.clock, &self.bell);
    }

    /// Tries until it is done: nothing may happen that is not on record, so a full disk stops everything but the doors.
    async fn commit(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let batch = Batch { at: self.clock.unix_millis(), stamp: self.clock.stamp(), changes };
        let mut pause = Duration::from_millis(200);
        boundary::reach(Boundary::BeforeCommit);
        loop {
            match self.store.commit(batch.clone()).await {
                Ok(()) => {
                    boundary::reach(Boundary::AfterCommit);
                    self.board.store_trouble(StoreTrouble::short_of_space(self.store.as_ref()));
                    return Ok(());
                }
                Err(error) if !error.may_pass() => return Err(error),
                Err(error) => {
                    tracing::error!("{error}; nothing is done meanwhile, tried again in {} ms", pause.as_millis());
                    self.board.store_trouble(Some(StoreTrouble::unreachable(&error)));
                    self.board.beat(&self.clock);
                    if self.shutdown.is_cancelled() {
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    /// The witness outside the database knows of every outward effect before it happens. An error only where hookturn is to
    /// stop before it could be told: then nothing is begun either.
    async fn anchor_outward(&mut self) -> Result<(), StoreError> {
        let outward = |effect: &Effect| matches!(effect, Effect::SendPatch { .. } | Effect::WriteKeystore { .. });
        let marks: Vec<(&str, u64, u64)> = self
            .wards
            .iter()
            .filter(|ward| ward.effects.iter().any(outward))
            .map(|ward| (ward.name(), ward.record.seq, ward.record.generation))
            .collect();
        if marks.is_empty() {
            return Ok(());
        }
        boundary::reach(Boundary::BeforeAnchor);
        while let Err(error) = self.anchor.advance(&marks) {
            tracing::error!("{error}; nothing is sent meanwhile");
            self.board.store_trouble(Some(StoreTrouble::unreachable(&error)));
            self.board.beat(&self.clock);
            if self.shutdown.is_cancelled() {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.board.store_trouble(StoreTrouble::short_of_space(self.store.as_ref()));
        boundary::reach(Boundary::AfterAnchor);
        Ok(())
    }

    /// The last commit: gathered credit goes on record.
    async fn leave(mut self) -> Result<(), StoreError> {
        for ward in &mut self.wards {
            ward.effects.clear();
            let facts_due = ward.facts.last_delivery.is_some();
            if facts_due {
                ward.keep_facts();
            }
        }
        let mut changes: Vec<Change> = self.wards.iter_mut().filter_map(Ward::take_change).collect();
        if self.read_only {
            changes.clear();
        }
        let mut result = Ok(());
        if !changes.is_empty() {
            result = self.commit(changes).await;
        }
        self.store.close().await;
        result
    }
}

fn job(ward: &Ward) -> Job {
    let labels = ward.record.keystore_kids().iter().map(|kid| (kid, label(&ward.record, kid))).collect();
    let decided_at = ward.last_tick;
    Job { webhook: ward.place, tools: ward.tools.clone(), decided_at, labels, replicas: ward.replicas.clone() }
}

fn publish_keys(ward: &mut Ward, desk: &FrontDesk) {
    let accepted = ward.record.keystore_kids();
    if ward.published.as_ref() == Some(&accepted) {
        return;
    }
    desk.replace(ward.name(), ward.tools.vault.keyring(|kid| accepted.contains(kid)));
    ward.published = Some(accepted);
}

fn count_probes(ward: &mut Ward, rows: &[Probe]) {
    for kid in rows.iter().filter_map(|row| row.kid) {
        *ward.probes_sent.entry(kid).or_default() += 1;
    }
}

fn finish_attempt(ward: &mut Ward, number: u64, answer: PatchAnswer, text: &str, now: UnixMillis) {
    let class = match answer {
        PatchAnswer::Applied => "applied",
        PatchAnswer::Ambiguous { .. } => "ambiguous",
        _ => "refused",
    };
    // What is known of it is from when it was sent: a person may have changed the target since.
    if let Some(sent) = ward.sent.take_if(|sent| sent.number == number) {
        let outcome = Some(format!("{class}: {text}"));
        let kid = match ward.record.phase.rotation() {
            Some(rotation) if mutants::on(Mutant::AnswerToTheTarget) => rotation.target,
            _ => sent.kid,
        };
        ward.change.attempts.push(Attempt { kid, ended_at: Some(now), outcome, ..sent });
    }
    ward.facts.last_answer = Some((class.to_owned(), text.to_owned()));
}
