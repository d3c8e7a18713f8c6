//! One webhook as the writer keeps it: its record, what this process knows, and words for people.

use std::{collections::BTreeMap, mem, sync::Arc};

use serde_json::json;

use super::{
    clock::Clock,
    gateways::Gateways,
    members::Member,
    message::Words,
    require::Shown,
    rhythm::Rhythm,
    status::DeliveryCounts,
    traffic::{Traffic, Trip},
};
use crate::{
    evidence::Counters,
    mutants::{self, Mutant},
    rotation::{Effect, Event, KidSet, Note, Phase, Record, Recorder, Refused, ReplicaId, Volatile, step},
    schedule::Plan,
    secret::Kid,
    steps::{Tools, generate::Fresh, push::Replica},
    store::{Attempt, Change, NewLine, UnixMillis},
};

/// Notes that wait for the next commit; beyond this the oldest are only in the log.
const NOTES_AT_MOST: usize = 256;
/// Events that changed no record wait for a commit that does; so many do not wait.
const EVENTS_AT_MOST: usize = 64;

pub(super) struct Ward {
    pub place: usize,
    pub tools: Arc<Tools>,
    pub record: Record,
    pub volatile: Volatile,
    pub last_tick: u64,
    pub replicas: Vec<Replica>,
    /// What each replica said last, and since when its verdict is what it is.
    pub words: BTreeMap<ReplicaId, (String, UnixMillis)>,
    pub facts: Facts,
    pub counters: Counters,
    pub counters_begun: bool,
    pub probes_sent: BTreeMap<Kid, u64>,
    /// What came through the doors lately.
    pub traffic: Traffic,
    /// Something of the facts is newer than what was committed of them.
    pub facts_kept_at: UnixMillis,
    pub facts_stale: bool,
    /// The wall clock, when time was last looked at.
    pub looked_after_at: UnixMillis,
    /// When the keystore was last looked at between rotations.
    pub keystore_seen_at: UnixMillis,
    /// The request that no answer has come to yet.
    pub sent: Option<Attempt>,
    /// What the next commit writes beside the record.
    pub change: Change,
    pub effects: Vec<Effect>,
    pub notes: Vec<NewLine>,
    pub log: Recorder,
    pub fresh: Vec<Fresh>,
    /// Something that the status tells has changed.
    pub touched: bool,
    /// When the status was last told: findings come with time, too.
    pub told_at: UnixMillis,
    /// The record differs from the stored one.
    pub dirty: bool,
    pub published: Option<KidSet>,
    pub plan: Option<Plan>,
    /// Not tried again before, by the boot clock.
    pub schedule_retry: u64,
    /// When the phase was entered, by the boot clock.
    pub entered_at: u64,
    /// The addresses of `preflight.replicas`, kept across restarts.
    pub members: Vec<Member>,
}

/// What is known beside the protocol. The durable part lies in one memo.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    pub adopted_at: Option<UnixMillis>,
    pub last_ended_at: Option<UnixMillis>,
    pub completed: u64,
    pub timeline: Vec<(String, UnixMillis)>,
    pub url: Option<String>,
    pub events: Vec<String>,
    pub last_answer: Option<(String, String)>,
    pub patched: bool,
    pub last_delivery: Option<(UnixMillis, String, String)>,
    pub rhythm: Rhythm,
    /// The newest delivery under a retired secret.
    pub trip: Option<Trip>,
    /// Which doors have shown the target.
    pub shown: Shown,
    /// The rotation in which a delivery was provoked.
    pub stimulated: Option<u64>,
    /// The tap has shown something: silence of it means something.
    pub tapped: bool,
    /// When the phase began.
    pub since: Option<UnixMillis>,
    #[serde(skip)]
    pub keystore_trouble: Option<String>,
    #[serde(skip)]
    pub provider_trouble: Option<String>,
    #[serde(skip)]
    pub counts: DeliveryCounts,
    #[serde(skip)]
    pub gateways: Gateways,
    #[serde(skip)]
    pub told_overdue: bool,
}

impl Ward {
    pub fn name(&self) -> &str {
        &self.tools.config.name
    }

    /// Lets time pass, then takes the event.
    pub fn take(&mut self, event: &Event, actor: &str, clock: &Clock, doors_open: bool) -> Result<(), Refused> {
        self.pass_time(clock, doors_open);
        self.apply(event, actor, clock)
    }

    pub fn pass_time(&mut self, clock: &Clock, doors_open: bool) {
        let now = clock.boottime_ms();
        let elapsed = now.saturating_sub(self.last_tick);
        if elapsed == 0 || !self.volatile.booted {
            return;
        }
        self.last_tick = now;
        // A gap is a suspend or a stopped process: nobody was listening meanwhile.
        let watched = doors_open || mutants::on(Mutant::UnwatchedDrain);
        let observed = if watched && elapsed <= LONGEST_NAP { elapsed } else { 0 };
        // A tick is never refused once booted.
        let _ = self.apply(&Event::Tick { elapsed, observed }, "daemon", clock);
    }

    /// When it wants to be ticked next, by the boot clock.
    pub fn wakes_at(&self) -> Option<u64> {
        crate::rotation::wake_in(&self.record, &self.volatile).map(|wake| self.last_tick.saturating_add(wake))
    }

    fn apply(&mut self, event: &Event, actor: &str, clock: &Clock) -> Result<(), Refused> {
        let done = step(&self.record, &self.volatile, event)?;
        let changed = done.record != self.record;
        let phase_before = self.record.phase.name();
        let before = (mem::replace(&mut self.record, done.record), mem::replace(&mut self.volatile, done.volatile));
        self.log.note(before, event, &done.effects, (&self.record, &self.volatile));
        self.effects.extend(done.effects);
        self.dirty |= changed;
        self.touched = true;
        let now = clock.unix_millis();
        for note in done.notes {
            self.write_down(note, actor, now);
        }
        if self.record.phase.name() != phase_before || self.facts.since.is_none() {
            self.entered_at = clock.boottime_ms();
            self.entered(now);
        }
        Ok(())
    }

    fn entered(&mut self, now: UnixMillis) {
        self.facts.since = Some(now);
        self.facts.told_overdue = false;
        let phase = self.record.phase.name().to_owned();
        if matches!(self.record.phase, Phase::Idle) && self.facts.timeline.is_empty() {
            return;
        }
        self.facts.timeline.push((phase, now));
        if self.facts.timeline.len() > 32 {
            self.facts.timeline.remove(0);
        }
        self.keep_facts();
    }

    pub fn write_down(&mut self, note: Note, actor: &str, now: UnixMillis) {
        match &note {
            Note::RotationBegan { .. } => {
                self.facts.timeline.clear();
                self.facts.last_answer = None;
                self.facts.patched = false;
                self.traffic.begin(now);
            }
            Note::RolledBack { .. } => {
                self.facts.patched = false;
                self.traffic.begin(now);
            }
            Note::Completed { number, .. } => {
                self.change.probes_kept = Some(self.record.keystore_kids());
                self.facts.completed = *number;
                self.facts.last_ended_at = Some(now);
                self.traffic.begin(now);
            }
            Note::Aborted { .. } => {
                self.change.probes_kept = Some(self.record.keystore_kids());
                self.facts.last_ended_at = Some(now);
                self.traffic.begin(now);
            }
            Note::Adopted { .. } if self.facts.adopted_at.is_none() => self.facts.adopted_at = Some(now),
            Note::Answered { answer: crate::rotation::PatchAnswer::Applied, .. } => {
                if !self.facts.patched {
                    self.traffic.begin(now);
                }
                self.facts.patched = true;
            }
            _ => {}
        }
        tracing::info!(
            webhook = self.name(),
            phase = self.record.phase.name(),
            rotation = self.record.phase.rotation().map(|r| r.number),
            actor,
            "{}",
            self.sentence(&note)
        );
        let rotation = match &note {
            Note::Completed { number, .. } | Note::Aborted { number } => *number,
            _ => self.record.phase.rotation().map_or(self.record.rotations, |r| r.number),
        };
        self.notes.push(NewLine { rotation, seq: self.record.seq, actor: actor.to_owned(), note });
        if self.notes.len() > NOTES_AT_MOST {
            self.notes.remove(0);
        }
    }

    fn sentence(&self, note: &Note) -> String {
        match note {
            Note::ReplicaLost { replica } => {
                format!("replica {} no longer shows that it accepts the target", self.replica_name(*replica))
            }
            note => super::words::note(note),
        }
    }

    pub fn keep_facts(&mut self) {
        self.facts_stale = false;
        let value = serde_json::to_value(&self.facts).unwrap_or(json!(null));
        self.memo("facts", value);
    }

    pub fn memo(&mut self, name: &str, value: serde_json::Value) {
        self.change.memos.retain(|(known, _)| known != name);
        self.change.memos.push((name.to_owned(), value));
    }

    pub fn replica_name(&self, id: ReplicaId) -> String {
        self.replicas.get(usize::from(id.0)).map_or_else(|| format!("replica {}", id.0), |replica| replica.name().to_owned())
    }

    /// The number of a replica in this process; numbers are never used again.
    pub fn replica_id(&mut self, replica: Replica) -> ReplicaId {
        let at = self.replicas.iter().position(|known| *known == replica).unwrap_or_else(|| {
            self.replicas.push(replica);
            self.replicas.len() - 1
        });
        ReplicaId(u16::try_from(at).unwrap_or(u16::MAX))
    }

    pub fn hear(&mut self, words: Words, now: UnixMillis) {
        self.touched = true;
        match words {
            Words::Keystore(trouble) => self.facts.keystore_trouble = trouble,
            Words::Provider(trouble) => self.facts.provider_trouble = trouble,
            Words::Replica(id, text) => {
                if self.words.get(&id).is_none_or(|(known, _)| *known != text) {
                    self.words.insert(id, (text, now));
                }
            }
            Words::Attempt(number, text) => {
                let known = self.change.attempts.iter_mut().find(|attempt| attempt.number == number);
                if let Some(attempt) = known {
                    attempt.outcome.get_or_insert(text);
                    attempt.ended_at = Some(now);
                }
            }
            Words::Webhook { url, events } => {
                let moved = self.facts.url.is_some() && (self.facts.url != url || self.facts.events != events);
                if moved {
                    tracing::warn!(webhook = self.name(), "URL or events at DialNexa differ from last time");
                }
                if moved || self.facts.url.is_none() {
                    self.facts.url = url;
                    self.facts.events = events;
                    self.keep_facts();
                }
            }
        }
    }

    /// What is to be committed now, if anything.
    pub fn take_change(&mut self) -> Option<Change> {
        let nothing = !self.dirty
            && self.fresh.is_empty()
            && self.change.evidence.is_empty()
            && self.change.probes.is_empty()
            && self.change.attempts.is_empty()
            && self.change.memos.is_empty()
            && self.log.waiting() < EVENTS_AT_MOST;
        if nothing {
            return None;
        }
        let mut change = mem::take(&mut self.change);
        change.webhook = self.name().to_owned();
        change.record = self.dirty.then(|| self.record.clone());
        change.secrets = self.fresh.iter().map(|fresh| fresh.stored.clone()).collect();
        change.journal = mem::take(&mut self.notes);
        change.events = self.log.hand_over();
        self.dirty = false;
        Some(change)
    }
}

const LONGEST_NAP: u64 = 30_000;
