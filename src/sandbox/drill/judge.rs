//! What is looked at after a rotation: the provider's log, the consumer's own counts and files, and the store. The program's
//! word about itself counts for nothing here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use serde_json::Value;

use super::lane::{DRAIN, Lane, Mood, Plan, Ride};
use crate::{
    rotation::{Current, KidSet, Note, Phase, Record},
    sandbox::provider::{Attempt as Try, Delivery, Label, Outcome},
    secret::{Kid, SealingKey},
    store::{Attempt, JournalLine, Store},
};

/// Something that must not be.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: String,
    /// What the cell had taken by then.
    pub(super) ride: Ride,
}

impl Failure {
    pub(super) fn new(why: impl Into<String>) -> Failure {
        Failure { why: why.into(), ride: Ride::default() }
    }

    pub(super) fn of(self, ride: Ride) -> Failure {
        Failure { ride, ..self }
    }
}

/// Ends with a failure where something is not as it must be.
macro_rules! must {
    ($so:expr, $($why:tt)+) => {
        if !$so {
            return Err(Failure::new(format!($($why)+)));
        }
    };
}

/// How long the last tries of deliveries are waited for.
const LAST_TRIES: Duration = Duration::from_secs(60);
/// Deliveries after the end of a rotation, to see that its end is a good one.
const AFTERWARDS: u64 = 3;
const LINES: u32 = 5_000;

/// How far every log was before a rotation.
pub(super) struct Mark {
    record: Record,
    deliveries: u64,
    tries: u64,
    patches: u64,
    /// Values that the provider had seen; whether each is in the store was judged before.
    values: usize,
    accepted_by_consumer: u64,
}

/// What a store holds, opened.
struct Books {
    record: Record,
    labels: BTreeMap<Kid, Option<Label>>,
    journal: Vec<JournalLine>,
    attempts: Vec<Attempt>,
}

impl Mark {
    pub(super) async fn set(lane: &Lane) -> Result<Mark, Failure> {
        settled(lane).await?;
        let totals = lane.provider().totals();
        Ok(Mark {
            record: lane.record().await?,
            deliveries: totals.sent,
            tries: totals.attempts,
            patches: lane.provider().patch_count(),
            values: values(lane),
            accepted_by_consumer: accepted_by_consumer(lane),
        })
    }

    pub(super) fn next_rotation(&self) -> u64 {
        self.record.rotations + 1
    }

    /// At the very moment in which the rotation is said to be over.
    pub(super) fn every_replica_has_confirmed(&self, lane: &Lane) -> Result<(), Failure> {
        let (generation, kids) = keystore(lane)?;
        for replica in lane.sandbox.consumer.replicas() {
            let accepted: KidSet = replica.kids().into_iter().collect();
            let done = accepted == kids && replica.generation() == generation;
            must!(done, "completed, while {} still accepts {accepted:?}, not {kids:?}", replica.name());
        }
        Ok(())
    }

    /// Judges one completed rotation. Fills in the figures of `ride`.
    pub(super) async fn judge(&self, lane: &Lane, plan: &Plan, ride: &mut Ride) -> Result<(), Failure> {
        let began = lane.provider().deliver(&lane.sandbox.webhook_id, AFTERWARDS);
        must!(began == AFTERWARDS, "no delivery can be begun after the rotation");
        lane.traffic(false);
        settled(lane).await?;
        let books = Books::open(lane).await?;
        let unknown = self.no_secret_is_lost(lane, &books, plan.trouble.forges())?;
        self.every_delivery_was_accepted(lane, &unknown, plan.mood == Mood::Hiccup, ride)?;
        self.the_end_is_one_secret_everywhere(lane, &books)?;
        self.the_journal_tells_it(lane, &books, ride)?;
        nothing_is_left_behind(lane)
    }

    /// For a rotation that a person has turned back to the secret `before`.
    pub(super) async fn judge_turned_back(&self, lane: &Lane, before: Current, ride: &mut Ride) -> Result<(), Failure> {
        self.every_replica_has_confirmed(lane)?;
        let began = lane.provider().deliver(&lane.sandbox.webhook_id, AFTERWARDS);
        must!(began == AFTERWARDS, "no delivery can be begun after the rollback");
        lane.traffic(false);
        settled(lane).await?;
        let books = Books::open(lane).await?;
        let unknown = self.no_secret_is_lost(lane, &books, false)?;
        self.every_delivery_was_accepted(lane, &unknown, false, ride)?;
        must!(books.record.current == before, "the secret from before is not current again");
        self.the_end_is_one_secret_everywhere(lane, &books)?;
        nothing_is_left_behind(lane)
    }

    /// For a rotation after which the provider signs with a secret that hookturn was never told.
    pub(super) async fn only_strangers_were_refused(&self, lane: &Lane, ride: &mut Ride) -> Result<(), Failure> {
        let books = Books::open(lane).await?;
        let unknown = self.no_secret_is_lost(lane, &books, true)?;
        must!(!unknown.is_empty(), "the provider knows no secret that hookturn does not");
        self.every_delivery_was_accepted(lane, &unknown, false, ride)
    }

    /// Every value that the provider was ever given is in the store. Returns the labels of those that nobody has sent, where
    /// the fault is to sign with one.
    fn no_secret_is_lost(&self, lane: &Lane, books: &Books, forged: bool) -> Result<BTreeSet<Label>, Failure> {
        let kept: BTreeSet<Label> = books.labels.values().copied().flatten().collect();
        let unknown: BTreeSet<Label> = (0..values(lane)).filter(|label| !kept.contains(label)).collect();
        let sent: BTreeSet<Label> = lane.provider().patches().into_iter().filter_map(|patch| patch.label).collect();
        must!(unknown.is_disjoint(&sent), "the provider was sent {unknown:?}, which the store does not have");
        must!(forged || unknown.iter().all(|label| *label < self.values), "the store does not have the secrets {unknown:?}");
        Ok(unknown)
    }

    fn every_delivery_was_accepted(
        &self,
        lane: &Lane,
        unknown: &BTreeSet<Label>,
        hiccup: bool,
        ride: &mut Ride,
    ) -> Result<(), Failure> {
        let (mut tries, mut accepted, mut unanswered, mut late) = (0, 0, 0, 0);
        for delivery in lane.provider().deliveries(self.deliveries, Some(&lane.sandbox.webhook_id), usize::MAX) {
            ride.deliveries += 1;
            for attempt in &delivery.attempts {
                tries += 1;
                match attempt.status {
                    Some(200..300) => accepted += 1,
                    Some(503) if hiccup => {}
                    // The look-alike and its consumer, or the balancer between them, have lost each other for a moment;
                    // hookturn has no part in that.
                    None | Some(502) => unanswered += 1,
                    Some(401) if unknown.contains(&attempt.label) => {}
                    Some(401) if too_late(&delivery, attempt) => late += 1,
                    status => {
                        return Err(Failure::new(format!(
                            "delivery {} signed with secret {} at {} was answered {status:?}: {:?}",
                            delivery.id, attempt.label, delivery.signed_at, delivery.attempts
                        )));
                    }
                }
            }
            // A delivery of a webhook that was deleted meanwhile goes with it.
            let ended = matches!(delivery.outcome, Outcome::Accepted | Outcome::Dropped);
            let excused = delivery.attempts.last().is_some_and(|attempt| too_late(&delivery, attempt));
            let lost = !ended && !excused && !unknown.contains(&delivery.label);
            must!(!lost, "delivery {} was {:?}: {:?}", delivery.id, delivery.outcome, delivery.attempts);
        }
        ride.tries += tries;
        ride.unanswered += unanswered;
        ride.late += late;
        let totals = lane.provider().totals();
        must!(totals.attempts - self.tries == tries, "the provider's log has forgotten tries");
        let counted = accepted_by_consumer(lane) - self.accepted_by_consumer;
        must!(
            (accepted..=accepted + unanswered).contains(&counted),
            "the provider saw {accepted} tries accepted ({unanswered} without an answer), the consumer counted {counted}"
        );
        Ok(())
    }

    fn the_end_is_one_secret_everywhere(&self, lane: &Lane, books: &Books) -> Result<(), Failure> {
        let record = &books.record;
        must!(record.phase == Phase::Idle, "phase {}", record.phase.name());
        let Current::Known(current) = record.current else { return Err(Failure::new("there is no current secret")) };
        let alone: KidSet = [current].into_iter().collect();
        must!(record.keystore_kids() == alone, "accepted is {:?}, not only {current}", record.accepted);
        must!(record.kept == record.generation, "generation {} was not read back", record.generation);
        must!(record.confirmed, "the new secret is not confirmed");
        let file = keystore(lane)?;
        must!(file.0 == record.generation, "the keystore has generation {}, the store {}", file.0, record.generation);
        must!(file.1 == alone, "the keystore holds {:?}, not only {current}", file.1);
        let id = &lane.sandbox.webhook_id;
        let label = books.labels.get(&current).copied().flatten();
        must!(label.is_some() && lane.provider().stored(id) == label, "the provider does not sign with {current}");
        let pending = lane.provider().pending_applies();
        must!(pending.is_empty(), "a PATCH may still be applied: {pending:?}");
        Ok(())
    }

    /// One rotation from its beginning to its end, with everything that was sent written down before it was.
    fn the_journal_tells_it(&self, lane: &Lane, books: &Books, ride: &mut Ride) -> Result<(), Failure> {
        let number = self.next_rotation();
        must!(books.record.rotations == number, "{} rotations, not {number}", books.record.rotations);
        must!(books.journal.windows(2).all(|pair| pair[0].seq <= pair[1].seq), "the journal's seq goes back");
        let lines: Vec<&JournalLine> = books.journal.iter().filter(|line| line.rotation == number).collect();
        let mut story = Story::default();
        for line in &lines {
            story.tell(line)?;
        }
        must!(story.began == 1 && story.completed == 1, "begun {} times, completed {} times", story.began, story.completed);
        must!(Current::Known(story.target()?) == books.record.current, "another secret was completed than is current");
        let attempts: Vec<&Attempt> = books.attempts.iter().filter(|attempt| attempt.rotation == number).collect();
        let numbers: Vec<u64> = attempts.iter().map(|attempt| attempt.number).collect();
        let intents: Vec<u64> = story.intents.iter().map(|(number, _)| *number).collect();
        must!(numbers == intents, "the attempts {numbers:?} are not the intents {intents:?}");
        must!(attempts.iter().all(|attempt| Some(attempt.kid) == story.target), "an attempt carries another secret");
        let target = books.labels.get(&story.target()?).copied().flatten();
        let sent: Vec<_> = lane.provider().patches().into_iter().filter(|patch| patch.number > self.patches).collect();
        ride.patches += sent.len() as u64;
        for (nth, patch) in sent.iter().enumerate() {
            must!(patch.label == target, "PATCH {} carried secret {:?}, not the target", patch.number, patch.label);
            must!(!patch.other_fields, "PATCH {} changed more than the secret", patch.number);
            let written = story.intents.get(nth).is_some_and(|(_, at)| *at <= patch.at);
            must!(written, "PATCH {} was sent before its intent was on record", patch.number);
        }
        Ok(())
    }
}

/// What the journal says of one rotation.
#[derive(Default)]
struct Story {
    began: u32,
    completed: u32,
    target: Option<Kid>,
    intents: Vec<(u64, i64)>,
    proven: bool,
    retiring: bool,
}

impl Story {
    fn tell(&mut self, line: &JournalLine) -> Result<(), Failure> {
        match &line.note {
            Note::RotationBegan { target, .. } => {
                self.began += 1;
                self.target = Some(*target);
            }
            Note::Intent { attempt, kid } => {
                must!(Some(*kid) == self.target, "intent {attempt} is for another secret than the target");
                must!(self.intents.last().is_none_or(|(last, _)| last < attempt), "intent {attempt} comes twice");
                must!(!self.retiring, "intent {attempt} comes after the retire");
                self.intents.push((*attempt, line.at));
            }
            Note::Answered { attempt, .. } => {
                must!(self.intents.last().is_some_and(|(last, _)| last == attempt), "an answer to {attempt} without an intent");
            }
            Note::SwitchProven { kid } => self.proven = Some(*kid) == self.target,
            Note::DrainBroken { .. } => self.proven = false,
            Note::RetireBegan { keep, .. } => {
                must!(self.proven && Some(*keep) == self.target, "the retire came without a switch proof");
                self.retiring = true;
            }
            Note::Completed { current, .. } => {
                must!(self.retiring && Some(*current) == self.target, "completed without a retire");
                self.completed += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn target(&self) -> Result<Kid, Failure> {
        self.target.ok_or_else(|| Failure::new("the journal names no target"))
    }
}

impl Books {
    async fn open(lane: &Lane) -> Result<Books, Failure> {
        let failed = |error: crate::store::StoreError| Failure::new(error.to_string());
        let store = lane.store().await?;
        let name = lane.name();
        let stored = store.webhook(name).await.map_err(failed)?.ok_or_else(|| Failure::new("the store forgot the webhook"))?;
        let sealing = sealing_key(lane)?;
        let mut labels = BTreeMap::new();
        for kept in store.secrets(name).await.map_err(failed)? {
            let secret = sealing.open(name, kept.kid, &kept.sealed).map_err(|error| Failure::new(error.to_string()))?;
            labels.insert(kept.kid, lane.provider().label_of(&lane.sandbox.webhook_id, &secret));
        }
        let journal = store.journal(name, None, LINES).await.map_err(failed)?;
        let attempts = store.attempts(name, LINES).await.map_err(failed)?;
        store.close().await;
        Ok(Books { record: stored.record, labels, journal, attempts })
    }
}

fn sealing_key(lane: &Lane) -> Result<SealingKey, Failure> {
    let path = lane.sandbox.dir().join("sealing-key");
    let text = fs::read_to_string(&path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    SealingKey::parse(text.trim_end()).map_err(|error| Failure::new(error.to_string()))
}

/// Generation and kids of the keystore file, as a consumer would read them.
fn keystore(lane: &Lane) -> Result<(u64, KidSet), Failure> {
    let unreadable = |reason: String| Failure::new(format!("the keystore file cannot be read: {reason}"));
    let bytes = fs::read(&lane.sandbox.keystore).map_err(|error| unreadable(error.to_string()))?;
    let file: Value = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    let keys = file["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let kids = keys.iter().filter_map(|key| Kid::parse(key["kid"].as_str()?).ok()).collect();
    Ok((file["generation"].as_u64().unwrap_or(0), kids))
}

/// A temporary file of the keystore holds secrets; a panic is a bug, whatever became of the rotation.
fn nothing_is_left_behind(lane: &Lane) -> Result<(), Failure> {
    let dir = lane.sandbox.keystore.parent().map(fs::read_dir);
    for entry in dir.into_iter().flatten().flatten().flatten() {
        let name = entry.file_name();
        must!(!name.to_string_lossy().ends_with(".new"), "{} was left behind", entry.path().display());
    }
    let log = fs::read_to_string(lane.log()).unwrap_or_default();
    must!(!log.contains("panicked at"), "it panicked: see {}", lane.log().display());
    Ok(())
}

/// The machine held this try up for longer than the drain promises that any takes: it shows nothing about hookturn.
fn too_late(delivery: &Delivery, attempt: &Try) -> bool {
    let took = attempt.at - delivery.signed_at + i64::try_from(attempt.took_ms).unwrap_or(i64::MAX);
    u128::try_from(took).is_ok_and(|took| took > DRAIN.as_millis())
}

/// How many values the provider has seen.
fn values(lane: &Lane) -> usize {
    lane.provider().state().webhooks.first().map_or(0, |webhook| webhook.labels)
}

pub(super) async fn settled(lane: &Lane) -> Result<(), Failure> {
    let settled = lane.provider().settled(LAST_TRIES).await;
    must!(settled, "deliveries are still on their way after {} s", LAST_TRIES.as_secs());
    Ok(())
}

fn accepted_by_consumer(lane: &Lane) -> u64 {
    lane.sandbox.consumer.replicas().iter().map(|replica| replica.counts().accepted).sum()
}
