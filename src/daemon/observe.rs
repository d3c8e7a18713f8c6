//! What came through a door, weighed and counted, and offered to the core. Nothing else in the shell decides what is evidence.

use super::{
    clock::Clock,
    traffic::{Look, Signed, Trip},
    ward::Ward,
    writer::Writer,
};
use crate::{
    config::Door,
    evidence::{Facts, Reason, Sighting},
    rotation::{Event, Freshness, Note, Phase, Seen},
    steps::verify,
    store::{Evidence, UnixMillis},
};

/// How far behind a replica's status file may be.
const STATUS_LAG_MS: u64 = 3_000;
/// What was seen goes on record at least so often; what decides anything, at once.
const FACTS_EVERY_MS: i64 = 30_000;
/// Between two lines in the journal about one retired secret.
const TOLD_EVERY_MS: i64 = 60_000;

impl Writer {
    pub fn sighted(&mut self, sighting: &Sighting) {
        let Some(ward) = self.wards.iter_mut().find(|ward| ward.name() == sighting.webhook) else { return };
        let now = self.clock.unix_millis();
        let (seen, evidence) = verify::weigh(&ward.tools, sighting, now);
        let Some(signed) = observe(ward, &seen, sighting.door, sighting.replica.as_deref(), now) else { return };
        weigh_in(ward, Sight { seen, signed, door: sighting.door, evidence }, &self.clock, self.doors_open);
    }

    /// A synthetic check: no door's word of it is evidence.
    pub fn set_aside(&mut self, webhook: &str, body_sha256: &[u8; 32]) {
        if let Some(ward) = self.wards.iter_mut().find(|ward| ward.name() == webhook) {
            ward.facts.counts.ignored += 1;
            ward.touched = true;
            let mut ledger = ward.tools.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let body = ledger.digest(body_sha256);
            ledger.set_aside(&body);
        }
    }

    /// Something that verified under no key. Anybody can send it: it is counted, and nothing else comes of it.
    pub fn unverified(&mut self, webhook: &str, door: Door, reason: Reason, facts: &Facts) {
        let now = self.clock.unix_millis();
        if let Some(ward) = self.wards.iter_mut().find(|ward| ward.name() == webhook) {
            ward.facts.counts.unverified += 1;
            ward.traffic.unverified(door, reason, facts, now);
            ward.touched = true;
        }
    }

    /// What time alone brings: facts that are newer than their last commit go on record.
    pub fn look_after(&mut self) {
        let now = self.clock.unix_millis();
        for ward in &mut self.wards {
            if now < ward.looked_after_at {
                // The wall clock was set back: what was seen before cannot be compared with what comes.
                ward.traffic.begin(now);
                ward.facts.rhythm.set_back(now);
            }
            ward.looked_after_at = now;
            if ward.facts_stale && !(0..FACTS_EVERY_MS).contains(&(now - ward.facts_kept_at)) {
                ward.facts_kept_at = now;
                ward.keep_facts();
            }
        }
    }

    /// Counters of consumers: a rise beyond our own probes is a delivery.
    pub fn status_files(&mut self, webhook: usize, files: Vec<(crate::evidence::StatusCounts, u64)>) {
        let now = self.clock.unix_millis();
        self.roster_of_status_files(webhook, &files);
        let Some(ward) = self.wards.get_mut(webhook) else { return };
        ward.traffic.loaded = files.iter().map(|(_, generation)| *generation).max().unwrap_or(0);
        ward.touched = true;
        let counts: Vec<_> = files.into_iter().map(|(counts, _)| counts).collect();
        if !ward.counters_begun {
            ward.counters = crate::evidence::Counters::baseline(&counts);
            ward.counters_begun = true;
            let value = serde_json::to_value(&ward.counters).unwrap_or_default();
            ward.memo("counters", value);
            return;
        }
        let probes = ward.probes_sent.clone();
        let rises = ward.counters.absorb(&counts, |kid| probes.get(&kid).copied().unwrap_or(0));
        if rises.is_empty() {
            return;
        }
        let value = serde_json::to_value(&ward.counters).unwrap_or_default();
        ward.memo("counters", value);
        // Status files are up to a second behind: what they count right after the switch proof was signed before it.
        let settled = self.clock.boottime_ms().saturating_sub(ward.entered_at) > STATUS_LAG_MS;
        for rise in rises {
            // Right after a retire they still count what was verified before it: that is no retired secret come back. Nor is one
            // that was never given to hookturn.
            let back = settled && ward.record.is_retired(rise.kid);
            if !back && !ward.record.keystore_kids().contains(rise.kid) {
                continue;
            }
            let target = ward.record.phase.rotation().map(|rotation| rotation.target);
            let draining = matches!(ward.record.phase, Phase::Drain(..));
            let new_body = settled || !draining || Some(rise.kid) == target;
            let seen = Seen { kid: rise.kid, new_body, probe: false, accepted: Some(true) };
            let evidence = Evidence {
                kid: rise.kid,
                body: format!("counter:{}:{}", rise.replica, rise.total),
                at: now,
                door: Door::Keystore.name().to_owned(),
                accepted: Some(true),
                detail: serde_json::json!({ "replica": rise.replica, "verified": rise.total }),
            };
            let Some(signed) = observe(ward, &seen, Door::Keystore, Some(&rise.replica), now) else { continue };
            weigh_in(ward, Sight { seen, signed, door: Door::Keystore, evidence }, &self.clock, self.doors_open);
        }
    }

    /// Without probes, the replicas are those that write a status file.
    fn roster_of_status_files(&mut self, webhook: usize, files: &[(crate::evidence::StatusCounts, u64)]) {
        let Some(ward) = self.wards.get_mut(webhook) else { return };
        if ward.tools.config.preflight.asks() {
            return;
        }
        let names: Vec<String> = files.iter().map(|(counts, _)| counts.replica.clone()).collect();
        let mut replicas: Vec<_> =
            names.into_iter().map(|name| ward.replica_id(crate::steps::push::Replica::StatusFile { name })).collect();
        replicas.sort_unstable();
        if replicas != ward.volatile.roster {
            let _ = ward.take(&Event::Roster { replicas }, "daemon", &self.clock, self.doors_open);
        }
    }
}

/// Counts what was seen. `None`: a probe of our own.
fn observe(ward: &mut Ward, seen: &Seen, door: Door, replica: Option<&str>, now: UnixMillis) -> Option<Signed> {
    let counts = &mut ward.facts.counts;
    if seen.probe {
        counts.probes += 1;
        return None;
    }
    let target = ward.record.phase.rotation().map(|rotation| rotation.target);
    let signed = match seen.kid {
        kid if Some(kid) == target => Signed::Target,
        kid if Some(kid) == ward.record.current.kid() => Signed::Current,
        kid if ward.record.keystore_kids().contains(kid) => Signed::Other,
        _ => Signed::Retired,
    };
    match signed {
        Signed::Target => counts.target += 1,
        Signed::Current => counts.current += 1,
        Signed::Other => counts.other += 1,
        Signed::Retired => counts.retired += 1,
    }
    if seen.accepted == Some(false) {
        counts.rejected_by_consumer += 1;
    }
    let look = Look { kid: seen.kid, signed, door, new_body: seen.new_body, accepted: seen.accepted, at: now };
    ward.traffic.verified(look, replica);
    let facts = &mut ward.facts;
    facts.tapped |= door == Door::Tap;
    if signed != Signed::Retired {
        if seen.new_body {
            facts.rhythm.beat(now);
        }
        facts.last_delivery = Some((now, seen.kid.to_string(), door.name().to_owned()));
    }
    ward.facts_stale = true;
    ward.touched = true;
    Some(signed)
}

/// A delivery under a retired secret. Whoever holds that secret can send as many as he likes: they are counted, and told to
/// the core (and so to the journal) once in a while. True: this one is.
fn trip(ward: &mut Ward, seen: &Seen, evidence: &Evidence) -> bool {
    let now = evidence.at;
    let known = ward.facts.trip.take().filter(|trip| trip.kid == seen.kid);
    let tell = known.as_ref().is_none_or(|trip| now - trip.at > TOLD_EVERY_MS);
    let (first, count, new_bodies) = known.map_or((now, 0, 0), |trip| (trip.first, trip.count, trip.new_bodies));
    ward.facts.trip = Some(Trip {
        kid: seen.kid,
        first,
        at: now,
        count: count + 1,
        new_bodies: new_bodies + u64::from(seen.new_body),
        door: evidence.door.clone(),
        detail: evidence.detail.clone(),
    });
    if tell {
        ward.keep_facts();
    }
    tell
}

/// A delivery as this webhook has seen it.
struct Sight {
    seen: Seen,
    signed: Signed,
    door: Door,
    evidence: Evidence,
}

/// Decides whether the core is to hear of it.
fn weigh_in(ward: &mut Ward, mut sight: Sight, clock: &Clock, doors_open: bool) {
    let verify = &ward.tools.config.verify;
    if !verify.sources.contains(&sight.door) && sight.signed != Signed::Retired {
        return;
    }
    match sight.signed {
        Signed::Retired if !trip(ward, &sight.seen, &sight.evidence) => return,
        // Accepted again for a while, and no part of any rotation.
        Signed::Other if !ward.record.accepted.contains(sight.seen.kid) => return,
        Signed::Target if sight.seen.accepted != Some(false) => {
            let Some(new_body) = shown(ward, &sight) else { return };
            sight.seen.new_body = new_body;
        }
        _ => {}
    }
    offer(ward, sight.seen, sight.evidence, clock, doors_open);
}

/// Whether every door that is asked for has shown the target by now: then whether this body is new to the core. `None`: it
/// is not to count yet. That can only delay the proof, so nothing but a proof is ever held back.
fn shown(ward: &mut Ward, sight: &Sight) -> Option<bool> {
    let fresh = match &ward.record.phase {
        Phase::Patch(rotation, patching) if patching.freshness == Freshness::Fresh => Some(rotation.number),
        _ => None,
    };
    let required = &ward.tools.config.verify.require;
    let Some(number) = fresh.filter(|_| !required.is_empty()) else { return Some(sight.seen.new_body) };
    let (admitted, changed) = ward.facts.shown.admit(required, (number, sight.seen.kid), sight.door, &sight.evidence.body);
    if changed {
        ward.keep_facts();
    }
    admitted.map(|withheld| withheld || sight.seen.new_body)
}

/// Gives the core what was seen; keeps the row if it decided anything.
fn offer(ward: &mut Ward, seen: Seen, evidence: Evidence, clock: &Clock, doors_open: bool) {
    let notes_before = ward.notes.len();
    let was = (ward.record.confirmed, ward.record.phase.clone());
    if ward.take(&Event::Seen(seen), "delivery", clock, doors_open).is_err() {
        return;
    }
    let decided = was != (ward.record.confirmed, ward.record.phase.clone())
        || ward.notes[notes_before.min(ward.notes.len())..]
            .iter()
            .any(|line| matches!(line.note, Note::RejectedByConsumer { .. }));
    if decided {
        ward.change.evidence.push(evidence);
        ward.keep_facts();
    }
}
