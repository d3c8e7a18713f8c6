//! What is going on, in sentences for a person.

use super::{
    diagnosis::{Finding, Laggard, Stage, Symptoms, diagnose},
    rhythm::UNUSUAL_MS,
    status::{OpenStatus, ReplicaStatus, Status},
    ward::Ward,
};
use crate::{
    rotation::{Cause, Current, Freshness, Hold, KeystoreView, Patching, Phase, ReplicaId, Rotation, Verdict},
    steps::push::Replica,
    store::UnixMillis,
};

fn hold_text(hold: Hold) -> &'static str {
    match hold {
        Hold::KeystoreContested => "somebody else keeps writing the keystore; nothing more is sent",
        Hold::KeystoreForeign => "the keystore holds a key that hookturn can neither keep nor drop safely",
        Hold::Restored => "the store and the keystore (or the anchor) are from different times; everything known stays accepted",
        Hold::TargetRefused => "DialNexa refuses this value of the secret; the previous one still signs",
        Hold::ApiKeyRefused => "DialNexa refuses the API key; both secrets stay accepted",
        Hold::WebhookGone => "DialNexa has no such webhook; both secrets stay accepted",
        Hold::RejectedByConsumer => "the consumer refused a genuine delivery signed with the new secret; both stay accepted",
        Hold::ConfigDrift => "the webhook's id, DialNexa's address or the keystore's place changed under a rotation",
    }
}

fn ways_out(ward: &Ward) -> Vec<String> {
    let name = ward.name();
    let command = |verb: &str, why: &str| format!("hookturn {verb} {name}   # {why}");
    let full = !ward.record.policy.fits(ward.record.keystore_kids().len() + 1);
    match &ward.record.phase {
        Phase::Hold(hold, was) => match hold {
            Hold::KeystoreContested => vec![command("resume", "after the other writer was stopped")],
            Hold::KeystoreForeign => vec![command("resume", "after the foreign key was taken out, or slots were added")],
            // No room for a fresh secret.
            Hold::Restored if full => vec![command("resume", "keep what the keystore holds, and send one of it again")],
            Hold::Restored if **was == Phase::Idle => vec![command("rotate-now", "roll forward to a fresh secret")],
            Hold::Restored => {
                vec![command("supersede", "roll forward to a fresh secret"), command("resume", "go on with the same one")]
            }
            Hold::TargetRefused => vec![
                command("supersede", "try another value"),
                command("rollback", "stay with the previous secret"),
                command("resume", "try the same value again"),
            ],
            Hold::ApiKeyRefused => vec![command("resume", "after the API key was replaced and hookturn restarted")],
            Hold::WebhookGone => vec![command("resume", "after the webhook is back, or the id was corrected")],
            Hold::RejectedByConsumer => vec![
                command("rollback", "stay with the previous secret"),
                command("resume", "after the consumer was mended: go on"),
                command("supersede", "try another value"),
            ],
            Hold::ConfigDrift => vec!["put the old values back into the configuration and restart hookturn".to_owned()],
        },
        _ if ward.record.paused => vec![command("resume", "go on")],
        Phase::Idle if ward.record.current == Current::Missing => {
            vec![command("adopt", "with the secret on stdin, or --from-keystore, or --unknown")]
        }
        // Away from an unknown secret: there is nothing to go back to, and the new one harms nobody.
        Phase::Push(_) if ward.record.current == Current::Unknown => vec![command("pause", "stay as it is for now")],
        Phase::Push(_) => vec![command("abort", "nothing was sent yet: take the new secret back")],
        Phase::Patch(..) | Phase::Drain(..) => vec![command("rollback", "turn back to the previous secret")],
        _ => Vec::new(),
    }
}

/// Nothing is missing but a delivery.
pub(super) fn waits_for_traffic(ward: &Ward) -> bool {
    waiting(ward).is_some_and(|waiting| waiting.traffic)
}

struct Waiting {
    text: String,
    left: Option<u64>,
    /// For DialNexa to send something: its silence is judged by the webhook's own pattern.
    traffic: bool,
}

impl Waiting {
    fn plain(text: impl Into<String>) -> Waiting {
        Waiting { text: text.into(), left: None, traffic: false }
    }

    fn at_most(left: u64, text: &str) -> Waiting {
        Waiting { left: Some(left), ..Waiting::plain(text) }
    }
}

fn waiting(ward: &Ward) -> Option<Waiting> {
    let record = &ward.record;
    if ward.facts.keystore_trouble.is_some() {
        return Some(Waiting::plain("the keystore"));
    }
    if record.paused && record.phase != Phase::Idle {
        return Some(Waiting::plain("a person: it is paused"));
    }
    match &record.phase {
        Phase::Idle if record.current == Current::Missing => Some(Waiting::plain("`adopt`: no secret is known yet")),
        Phase::Idle if !record.confirmed => Some(Waiting::plain("a delivery that verifies under the adopted secret")),
        Phase::Idle => None,
        Phase::Hold(..) => Some(Waiting::plain("a person")),
        Phase::Push(rotation) => Some(waiting_push(ward, rotation)),
        Phase::Patch(rotation, patching) => Some(waiting_patch(ward, rotation, patching)),
        Phase::Drain(rotation, draining) => Some(match draining.left {
            0 if record.foreign_open(rotation.target) => waiting_quarantine(ward, rotation),
            0 => waiting_proofs(ward, "the last proofs before the retire"),
            left => Waiting::at_most(left, "deliveries signed before the switch to reach their end (drain)"),
        }),
        Phase::Retire(..) => Some(waiting_proofs(ward, "every replica to accept the new secret only")),
        Phase::Abort(..) => Some(waiting_proofs(ward, "every replica to forget the new secret")),
    }
}

fn waiting_push(ward: &Ward, rotation: &Rotation) -> Waiting {
    let proofs = waiting_proofs(ward, "every replica to accept the new secret");
    let held_back = !rotation.compromised && rotation.cause != Cause::Supersede && ward.record.foreign_open(rotation.target);
    let ready = ward.volatile.keystore == KeystoreView::Confirmed && ward.volatile.laggards().is_empty();
    if held_back && ready { waiting_quarantine(ward, rotation) } else { proofs }
}

fn waiting_quarantine(ward: &Ward, rotation: &Rotation) -> Waiting {
    let left = ward.record.open.iter().filter(|open| open.kid != rotation.target).map(|open| open.left).max();
    Waiting { left, ..Waiting::plain("an earlier PATCH that may still be applied (quarantine)") }
}

fn waiting_proofs(ward: &Ward, what: &str) -> Waiting {
    match () {
        () if ward.volatile.keystore != KeystoreView::Confirmed => Waiting::plain("the keystore to hold what it should"),
        () if ward.volatile.timers.wait > 0 => {
            Waiting::at_most(ward.volatile.timers.wait, "the consumer's refresh period (preflight.wait)")
        }
        () if ward.volatile.roster.is_empty() => Waiting::plain("a replica that shows itself"),
        () => Waiting::plain(what),
    }
}

fn waiting_patch(ward: &Ward, rotation: &Rotation, patching: &Patching) -> Waiting {
    if !ward.volatile.laggards().is_empty() {
        return waiting_proofs(ward, "every replica to show again that it accepts the new secret");
    }
    match patching.freshness {
        Freshness::ForeignOpen => return waiting_quarantine(ward, rotation),
        Freshness::Waiting { left } => {
            return Waiting::at_most(left, "old deliveries under this secret to die out, before a new one counts");
        }
        Freshness::Fresh => {}
    }
    if !patching.answered {
        return Waiting::plain("a clear answer of DialNexa, or a delivery signed with the new secret");
    }
    Waiting { traffic: true, ..Waiting::plain("a genuine delivery signed with the new secret; both are accepted until then") }
}

/// What the diagnosis is made from.
fn findings(ward: &Ward, waiting: Option<&Waiting>, now: UnixMillis) -> Vec<Finding> {
    let record = &ward.record;
    let stage = match &record.phase {
        Phase::Idle => Stage::Idle { confirmed: record.confirmed },
        Phase::Push(_) => Stage::Push,
        Phase::Patch(_, patching) => {
            Stage::Patch { answered: patching.answered, waits: waiting.is_some_and(|waiting| waiting.traffic) }
        }
        Phase::Drain(..) => Stage::Drain,
        Phase::Retire(..) | Phase::Abort(..) => Stage::Shrink,
        Phase::Hold(hold, _) => Stage::Hold(*hold),
    };
    let rotation = record.phase.rotation();
    let asked = rotation.is_some()
        && !matches!(record.phase, Phase::Hold(..))
        && ward.volatile.keystore == KeystoreView::Confirmed
        && ward.volatile.timers.wait == 0;
    let laggard = |id| Laggard {
        name: ward.replica_name(id),
        verdict: ward.volatile.verdict(id),
        vanished: ward.has_vanished(&ward.replica_name(id)),
        answer: ward.words.get(&id).map_or_else(|| "not asked yet".to_owned(), |(text, _)| text.clone()),
    };
    diagnose(&Symptoms {
        now,
        stage,
        current: record.current.kid(),
        target: rotation.map(|rotation| rotation.target),
        switched_back: rotation.is_some_and(|rotation| rotation.cause == Cause::SwitchBack),
        losses: rotation.map_or(0, |rotation| rotation.losses),
        generation: record.generation,
        keystore_trouble: ward.facts.keystore_trouble.as_deref(),
        provider_trouble: ward.facts.provider_trouble.as_deref(),
        last_answer: ward.facts.last_answer.as_ref().map(|(class, text)| (class.as_str(), text.as_str())),
        laggards: if asked { ward.volatile.laggards().into_iter().map(laggard).collect() } else { Vec::new() },
        doors: rotation.map_or_else(Default::default, |rotation| {
            ward.facts.shown.told(&ward.tools.config.verify.require, (rotation.number, rotation.target))
        }),
        no_replica: asked && ward.volatile.roster.is_empty() && !record.policy.unproven,
        tapped: ward.facts.tapped || ward.tools.config.verify.tap_token.is_some(),
        traffic: &ward.traffic,
        rhythm: &ward.facts.rhythm,
        trip: ward.facts.trip.as_ref().filter(|trip| !record.keystore_kids().contains(trip.kid)),
    })
}

pub(super) fn verdict_name(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        None => "not asked yet",
        Some(Verdict::Accepts) => "accepts",
        Some(Verdict::Refuses) => "refuses",
        Some(Verdict::Inconclusive) => "inconclusive",
        Some(Verdict::DoesNotVerify) => "does-not-verify",
        Some(Verdict::Unreachable) => "unreachable",
    }
}

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Schedule => "schedule",
        Cause::Demand => "demand",
        Cause::Rollback => "rollback",
        Cause::SwitchBack => "switch-back",
        Cause::Supersede => "supersede",
    }
}

/// Waiting unusually long. Silence by the webhook's own pattern, everything else by the clock. What anybody can forge makes
/// nothing overdue.
fn overdue(ward: &Ward, waiting: Option<&Waiting>, findings: &[Finding], now: UnixMillis) -> bool {
    let Some(waiting) = waiting else { return false };
    if waiting.left.is_some() || matches!(ward.record.phase, Phase::Idle | Phase::Hold(..)) {
        return false;
    }
    let age = u64::try_from(now - ward.facts.since.unwrap_or(now)).unwrap_or(0);
    let rhythm = &ward.facts.rhythm;
    let seen = findings.iter().any(|finding| matches!(finding.word.as_str(), "still-old" | "mixed" | "door-missing"));
    age > UNUSUAL_MS && (!waiting.traffic || seen || rhythm.silence(now) > rhythm.patience())
}

fn vanished_way_out(ward: &Ward) -> Option<String> {
    let gone = ward.members.iter().find(|member| !member.listed)?;
    let name = ward.name();
    Some(format!("hookturn dismiss {name} {}   # it is gone for good: do not wait for it", gone.address))
}

/// The whole state of one webhook.
pub(super) fn status(ward: &Ward, now: UnixMillis) -> Status {
    let record = &ward.record;
    let waiting = waiting(ward);
    let rotation = record.phase.rotation();
    let held = match &record.phase {
        Phase::Hold(hold, was) => Some((*hold, was.name())),
        _ => None,
    };
    let config = &ward.tools.config;
    let findings = findings(ward, waiting.as_ref(), now);
    let overdue = overdue(ward, waiting.as_ref(), &findings, now);
    let first = findings.first();
    let hold_detail = held.map(|(hold, _)| hold_text(hold).to_owned());
    Status {
        name: config.name.clone(),
        id: config.id.clone(),
        phase: record.phase.name().to_owned(),
        held_phase: held.map(|(_, was)| was.to_owned()),
        hold: held.map(|(hold, _)| hold.name().to_owned()),
        adopted: record.current != Current::Missing,
        confirmed: record.confirmed,
        paused: record.paused,
        current: record.current.kid().map(|kid| kid.to_string()),
        target: rotation.map(|r| r.target.to_string()),
        reaccepted: record.reaccepted.iter().map(|r| OpenStatus { kid: r.kid.to_string(), left_ms: r.left }).collect(),
        retired: record.retired.iter().map(|retired| retired.kid.to_string()).collect(),
        accepted: record.keystore_kids().iter().map(|kid| kid.to_string()).collect(),
        generation: record.generation,
        rotation: record.rotations,
        completed: ward.facts.completed,
        compromised: rotation.is_some_and(|r| r.compromised),
        cause: rotation.map(|r| cause_name(r.cause).to_owned()),
        since: ward.facts.since,
        until: waiting.as_ref().and_then(|w| w.left).and_then(|left| i64::try_from(left).ok()).map(|left| now + left),
        overdue,
        diagnosis: held.map(|(hold, _)| hold.name().to_owned()).or_else(|| first.map(|finding| finding.word.clone())),
        detail: hold_detail.or_else(|| first.map(|finding| finding.text.clone())),
        findings,
        waiting_for: waiting.map(|w| w.text),
        ways_out: ways_out(ward).into_iter().chain(vanished_way_out(ward)).collect(),
        replicas: ward.volatile.roster.iter().map(|id| replica(ward, *id)).collect(),
        unproven: config.policy.unproven && !config.preflight.asks(),
        open: record.open.iter().map(|open| OpenStatus { kid: open.kid.to_string(), left_ms: open.left }).collect(),
        drain_left_ms: match record.phase.underlying() {
            Phase::Drain(_, draining) => Some(draining.left),
            _ => None,
        },
        attempts: record.attempts,
        last_answer: ward.facts.last_answer.as_ref().map(|(class, _)| class.clone()),
        last_answer_text: ward.facts.last_answer.as_ref().map(|(_, text)| text.clone()),
        patched: ward.facts.patched,
        keystore_place: ward.tools.keystore.place(),
        keystore_trouble: ward.facts.keystore_trouble.clone(),
        provider_trouble: ward.facts.provider_trouble.clone(),
        next_due: ward.plan.as_ref().and_then(|plan| plan.due).map(|due| due.timestamp_millis()),
        last_completed_at: ward.facts.last_ended_at,
        last_delivery_at: ward.facts.last_delivery.as_ref().map(|(at, _, _)| *at),
        last_delivery_kid: ward.facts.last_delivery.as_ref().map(|(_, kid, _)| kid.clone()),
        last_delivery_door: ward.facts.last_delivery.as_ref().map(|(_, _, door)| door.clone()),
        usual_gap_ms: ward.facts.rhythm.usual(),
        unusual_silence_ms: ward.facts.rhythm.patience(),
        deliveries: ward.facts.counts.clone(),
        timeline: ward.facts.timeline.clone(),
    }
}

fn replica(ward: &Ward, id: ReplicaId) -> ReplicaStatus {
    let (answer, since) = ward.words.get(&id).map_or((String::new(), None), |(text, since)| (text.clone(), Some(*since)));
    let how = match ward.replicas.get(usize::from(id.0)) {
        Some(Replica::Probe { .. }) => "probe",
        Some(Replica::ReadBack { .. }) => "read-back",
        Some(Replica::StatusFile { .. }) | None => "status-file",
    };
    let name = ward.replica_name(id);
    let (how, vanished) = (how.to_owned(), ward.has_vanished(&name));
    ReplicaStatus { name, how, vanished, verdict: verdict_name(ward.volatile.verdict(id)).to_owned(), answer, since }
}
