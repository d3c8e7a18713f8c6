//! Events, and their deliveries: signed, sent, tried again, written down.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    Label,
    log::{Attempt, Delivery, Outcome},
    settings::{BodyShape, Header, Inactive, RetriesSigned, Settings, Verification},
    shared::Shared,
    world::{World, unix_millis},
};
use crate::secret::{Secret, signature};

/// How often the generator looks which events are due.
const TICK: Duration = Duration::from_millis(5);
/// More deliveries than this are never on their way at once: a dead consumer must not eat the memory.
const ON_THEIR_WAY: u64 = 20_000;

/// Makes the events of every webhook at its rate, for ever.
pub(super) async fn generate(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let due = due(&mut shared.world(), now - before);
        before = now;
        let stragglers = std::mem::take(&mut shared.world().stragglers);
        for draft in stragglers {
            send(&shared, draft);
        }
        for (id, count) in due {
            happen(&shared, &id, count);
        }
        for job in verifications(&mut shared.world()) {
            let courier = shared.clone();
            shared.spawn(async move {
                let _ = post(&courier.client, &job).await;
            });
        }
    }
}

/// Lets `count` events happen at a webhook. Returns how many deliveries were begun: none where the webhook is inactive or
/// deleted.
pub(super) fn happen(shared: &Arc<Shared>, id: &str, count: u64) -> u64 {
    let mut begun = 0;
    while begun < count {
        let Some(draft) = draft(&mut shared.world(), id) else { break };
        send(shared, draft);
        begun += 1;
    }
    if begun < count && !queue(&mut shared.world(), id, count - begun) {
        shared.world().log.skipped(count - begun);
    }
    begun
}

fn send(shared: &Arc<Shared>, draft: Draft) {
    let job = begin(shared, draft);
    let courier = shared.clone();
    shared.spawn(async move { carry(&courier, job).await });
}

/// False: what happens while the webhook is inactive is dropped.
fn queue(world: &mut World, id: &str, count: u64) -> bool {
    let keep = world.settings.inactive == Inactive::Queue;
    let waiting = world.hook(id).filter(|hook| keep && !hook.is_active).map(|hook| hook.queued += count);
    waiting.is_some()
}

/// The requests to URLs that were changed.
fn verifications(world: &mut World) -> Vec<Job> {
    let settings = world.settings;
    let mut jobs = Vec::new();
    for hook in world.hooks.values_mut().filter(|hook| hook.readdressed) {
        hook.readdressed = false;
        if settings.verification == Verification::None {
            continue;
        }
        let body = json!({"event_type": "verification", "message": "Webhook verification", "timestamp": unix_millis()});
        let body = Bytes::from(body.to_string());
        let label = hook.signs(Instant::now(), hook.seq);
        let hex = match settings.verification {
            Verification::Signed => hex::encode(signature::mac(hook.value(label), &body)),
            _ => String::new(),
        };
        let (webhook, url, seq) = (hook.id.clone(), hook.url.clone(), hook.seq);
        let signed = Signed { label, hex };
        jobs.push(Job { id: 0, webhook, url, seq, body, settings, queued: Duration::ZERO, signed });
    }
    jobs
}

fn due(world: &mut World, elapsed: Duration) -> Vec<(String, u64)> {
    let mut due = Vec::new();
    for (id, hook) in world.hooks.iter_mut().filter(|(_, hook)| hook.queued > 0 && hook.is_active && !hook.deleted) {
        due.push((id.clone(), std::mem::take(&mut hook.queued)));
    }
    for (id, hook) in world.hooks.iter_mut().filter(|(_, hook)| hook.traffic.on && hook.is_active && !hook.deleted) {
        let traffic = &mut hook.traffic;
        // After a pause of the whole process a second's worth is caught up, not the whole pause.
        traffic.credit = (traffic.credit + elapsed.as_secs_f64() * traffic.per_second).min(traffic.per_second.max(1.0));
        let whole = traffic.credit.floor();
        traffic.credit -= whole;
        if whole >= 1.0 {
            due.push((id.clone(), whole as u64));
        }
    }
    due
}

/// An event that got its number and its secret, but no body yet: hashing is done outside the lock.
pub(super) struct Draft {
    webhook: Arc<str>,
    url: String,
    event: Arc<str>,
    seq: u64,
    label: Label,
    secret: Secret,
    settings: Settings,
    queued: Duration,
}

impl Draft {
    /// The same, with another time before its first try.
    pub(super) fn queued_for(self, queued: Duration) -> Draft {
        Draft { queued, ..self }
    }
}

/// A delivery on its way.
struct Job {
    id: u64,
    webhook: Arc<str>,
    url: String,
    seq: u64,
    body: Bytes,
    settings: Settings,
    /// Before its first try.
    queued: Duration,
    signed: Signed,
}

struct Signed {
    label: Label,
    hex: String,
}

pub(super) fn draft(world: &mut World, id: &str) -> Option<Draft> {
    if world.log.pending() >= ON_THEIR_WAY {
        return None;
    }
    let settings = world.settings;
    let hook = world.hook(id).filter(|hook| hook.is_active)?;
    hook.seq += 1;
    let label = hook.signs(Instant::now(), hook.seq);
    let nth = usize::try_from(hook.seq).unwrap_or(0) % hook.events.len().max(1);
    Some(Draft {
        webhook: hook.id.clone(),
        url: hook.url.clone(),
        event: hook.events.get(nth).cloned().unwrap_or_else(|| "call.completed".into()),
        seq: hook.seq,
        label,
        secret: hook.value(label).clone(),
        settings,
        queued: settings.queued(),
    })
}

fn begin(shared: &Shared, draft: Draft) -> Job {
    let Draft { webhook, url, event, seq, label, secret, settings, queued } = draft;
    let body = body(&shared.run, &webhook, &event, seq, settings.body);
    let signed = Signed { label, hex: hex::encode(signature::mac(&secret, &body)) };
    let id = shared.world().log.begin(Delivery {
        id: 0,
        webhook: webhook.clone(),
        seq,
        event,
        body_sha256: Sha256::digest(&body).into(),
        label,
        signed_at: unix_millis(),
        attempts: Vec::new(),
        outcome: Outcome::Pending,
    });
    Job { id, webhook, url, seq, body, settings, queued, signed }
}

fn body(run: &str, webhook: &str, event: &str, seq: u64, shape: BodyShape) -> Bytes {
    let call = format!("call_{run}_{webhook}_{seq}");
    let transcript = "Agent: Good morning, how can I help? Caller: I should like to move my appointment.";
    let value = match shape {
        BodyShape::Flat => json!({
            "event": event, "call_id": call, "status": "completed", "duration": 43, "agent_id": "agent_sandbox",
            "sentiment": "neutral", "summary": "Appointment moved.", "transcript": transcript,
            "extracted_data": {}, "metadata": {"seq": seq}
        }),
        BodyShape::Nested => json!({
            "event_type": event,
            "payload": {"call": {
                "id": call, "status": "completed", "duration_in_seconds": 43, "transcript": transcript,
                "summary": "Appointment moved.", "hangup_reason": "user_hangup"
            }}
        }),
    };
    Bytes::from(value.to_string())
}

/// A delivery from its queue to its end.
async fn carry(shared: &Shared, mut job: Job) {
    tokio::time::sleep(job.queued).await;
    let mut outcome = Outcome::Lost;
    for attempt in 0..=job.settings.retries {
        if attempt > 0 {
            tokio::time::sleep(job.settings.backoff(attempt)).await;
        }
        if !prepare(shared, &mut job) {
            outcome = Outcome::Dropped;
            break;
        }
        let (at, begun) = (unix_millis(), Instant::now());
        let status = post(&shared.client, &job).await;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.world().log.attempted(job.id, &job.webhook, Attempt { at, label: job.signed.label, status, took_ms });
        outcome = match status {
            Some(200..300) => Outcome::Accepted,
            Some(_) => Outcome::Rejected,
            None => Outcome::Lost,
        };
        if outcome == Outcome::Accepted {
            break;
        }
    }
    shared.world().log.ended(job.id, &job.webhook, job.signed.label, outcome);
}

/// Signs anew where the settings want that. False: the webhook is gone, and its retries with it.
fn prepare(shared: &Shared, job: &mut Job) -> bool {
    let fresh = {
        let mut world = shared.world();
        let Some(hook) = world.hook(&job.webhook) else { return false };
        let label = hook.signs(Instant::now(), job.seq);
        let stale = job.settings.retries_signed == RetriesSigned::New && label != job.signed.label;
        stale.then(|| (label, hook.value(label).clone()))
    };
    if let Some((label, secret)) = fresh {
        job.signed = Signed { label, hex: hex::encode(signature::mac(&secret, &job.body)) };
    }
    true
}

async fn post(client: &reqwest::Client, job: &Job) -> Option<u16> {
    let value = if job.settings.prefix { format!("sha256={}", job.signed.hex) } else { job.signed.hex.clone() };
    let names: &[&str] = match job.settings.header {
        Header::Dialnexa => &["X-DialNexa-Signature"],
        Header::Nexa => &["X-Nexa-Signature"],
        Header::Both => &["X-DialNexa-Signature", "X-Nexa-Signature"],
    };
    let mut request = client.post(&job.url).timeout(job.settings.timeout()).body(job.body.clone());
    request = request.header("content-type", "application/json").header("user-agent", "DialNexa-Webhook/1.0");
    // Only a verification request may have none.
    for name in names.iter().filter(|_| !job.signed.hex.is_empty()) {
        request = request.header(*name, &value);
    }
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    // Read to its end, so that the connection can carry the next delivery.
    let _ = answer.bytes().await;
    Some(status)
}
