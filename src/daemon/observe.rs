//! What came through a door, weighed and counted, and offered to the core. Nothing else in the shell decides what is evidence.

use super::{clock::Clock, ward::Ward, writer::Writer};
use crate::{
    config::Door,
    evidence::Sighting,
    rotation::{Event, Note, Phase},
    steps::verify,
    store::{Evidence, UnixMillis},
};

/// How far behind a replica's status file may be.
const STATUS_LAG_MS: u64 = 3_000;

impl Writer {
    pub fn sighted(&mut self, sighting: &Sighting) {
        let Some(ward) = self.wards.iter_mut().find(|ward| ward.name() == sighting.webhook) else { return };
        let now = self.clock.unix_millis();
        let (seen, evidence) = verify::weigh(&ward.tools, sighting, now);
        observe(ward, &seen, sighting.door, now);
        if !ward.tools.config.verify.sources.contains(&sighting.door) {
            return;
        }
        offer(ward, seen, Some(evidence), &self.clock, self.doors_open);
    }

    /// Counters of consumers: a rise beyond our own probes is a delivery.
    pub fn status_files(&mut self, webhook: usize, files: Vec<(crate::evidence::StatusCounts, u64)>) {
        let now = self.clock.unix_millis();
        self.roster_of_status_files(webhook, &files);
        let Some(ward) = self.wards.get_mut(webhook) else { return };
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
            let target = ward.record.phase.rotation().map(|rotation| rotation.target);
            let draining = matches!(ward.record.phase, Phase::Drain(..));
            let new_body = settled || !draining || Some(rise.kid) == target;
            let seen = crate::rotation::Seen { kid: rise.kid, new_body, probe: false, accepted: Some(true) };
            observe(ward, &seen, Door::Keystore, now);
            if !ward.tools.config.verify.sources.contains(&Door::Keystore) {
                continue;
            }
            let evidence = Evidence {
                kid: rise.kid,
                body: format!("counter:{}:{}", rise.replica, rise.total),
                at: now,
                door: verify::name(Door::Keystore).to_owned(),
                accepted: Some(true),
                detail: serde_json::json!({ "replica": rise.replica, "verified": rise.total }),
            };
            offer(ward, seen, Some(evidence), &self.clock, self.doors_open);
        }
    }

    /// Without probes, the replicas are those that write a status file.
    fn roster_of_status_files(&mut self, webhook: usize, files: &[(crate::evidence::StatusCounts, u64)]) {
        let Some(ward) = self.wards.get_mut(webhook) else { return };
        if !ward.tools.config.preflight.probe.is_empty() {
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

fn observe(ward: &mut Ward, seen: &crate::rotation::Seen, door: Door, now: UnixMillis) {
    let counts = &mut ward.facts.counts;
    if seen.probe {
        counts.probes += 1;
        return;
    }
    let target = ward.record.phase.rotation().map(|rotation| rotation.target);
    match seen.kid {
        kid if Some(kid) == target => counts.target += 1,
        kid if Some(kid) == ward.record.current.kid() => counts.current += 1,
        kid if ward.record.accepted.contains(kid) => counts.other += 1,
        _ => counts.retired += 1,
    }
    if seen.accepted == Some(false) {
        counts.rejected_by_consumer += 1;
    }
    if seen.new_body && Some(seen.kid) != target && ward.facts.patched {
        ward.facts.still_old += 1;
    }
    if let Some((last, _, _)) = &ward.facts.last_delivery
        && seen.new_body
    {
        let gap = u64::try_from(now - last).unwrap_or(0);
        ward.facts.usual_gap_ms = Some(ward.facts.usual_gap_ms.map_or(gap, |usual| (usual * 7 + gap) / 8));
    }
    ward.facts.last_delivery = Some((now, seen.kid.to_string(), verify::name(door).to_owned()));
}

/// Gives the core what was seen; keeps the row if it decided anything.
fn offer(ward: &mut Ward, seen: crate::rotation::Seen, evidence: Option<Evidence>, clock: &Clock, doors_open: bool) {
    let notes_before = ward.notes.len();
    let was = (ward.record.confirmed, ward.record.phase.clone());
    if ward.take(&Event::Seen(seen), "delivery", clock, doors_open).is_err() {
        return;
    }
    let decided = was != (ward.record.confirmed, ward.record.phase.clone())
        || ward.notes[notes_before.min(ward.notes.len())..]
            .iter()
            .any(|line| matches!(line.note, Note::RejectedByConsumer { .. }));
    if decided && let Some(evidence) = evidence {
        ward.change.evidence.push(evidence);
        ward.keep_facts();
    }
}
