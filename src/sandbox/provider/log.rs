use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::{Serialize, Serializer};

use super::Label;

/// Milliseconds since the Unix epoch.
pub type UnixMillis = i64;

/// One delivery, from the event to its end.
#[derive(Debug, Clone, Serialize)]
pub struct Delivery {
    /// Rises by one with every delivery of the provider.
    pub id: u64,
    #[serde(serialize_with = "as_text")]
    pub webhook: Arc<str>,
    /// Rises by one with every delivery of the webhook.
    pub seq: u64,
    #[serde(serialize_with = "as_text")]
    pub event: Arc<str>,
    #[serde(serialize_with = "as_hex")]
    pub body_sha256: [u8; 32],
    /// What the newest try was signed with.
    pub label: Label,
    pub signed_at: UnixMillis,
    pub attempts: Vec<Attempt>,
    pub outcome: Outcome,
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    pub at: UnixMillis,
    pub label: Label,
    /// `None`: no answer.
    pub status: Option<u16>,
    /// How long the answer, or its absence, took.
    pub took_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Still on its way.
    Pending,
    /// A 2xx came back in the end.
    Accepted,
    /// The last try was answered, and not with a 2xx.
    Rejected,
    /// The last try was not answered.
    Lost,
    /// The webhook was deleted meanwhile.
    Dropped,
}

/// Counts since the start; they do not forget what the ring of deliveries has dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Deliveries begun.
    pub sent: u64,
    pub accepted: u64,
    pub rejected: u64,
    pub lost: u64,
    pub dropped: u64,
    /// Events for which no delivery was begun, because too many were on their way.
    pub skipped: u64,
    /// Tries, and those of them that were not answered with a 2xx.
    pub attempts: u64,
    pub attempts_failed: u64,
    /// The same by webhook and by the label of the (last) signature.
    pub by_label: BTreeMap<String, BTreeMap<Label, LabelTotals>>,
}

impl Totals {
    /// Deliveries on their way.
    pub fn pending(&self) -> u64 {
        self.sent - self.accepted - self.rejected - self.lost - self.dropped
    }

    /// The counts of one secret of one webhook.
    pub fn of(&self, webhook: &str, label: Label) -> LabelTotals {
        self.by_label.get(webhook).and_then(|labels| labels.get(&label)).copied().unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LabelTotals {
    pub accepted: u64,
    pub rejected: u64,
    pub lost: u64,
    pub attempts: u64,
    pub attempts_failed: u64,
}

/// The newest deliveries and the totals of all.
pub(super) struct DeliveryLog {
    ring: VecDeque<Delivery>,
    capacity: usize,
    next: u64,
    totals: Totals,
}

impl DeliveryLog {
    pub(super) fn new(capacity: usize) -> DeliveryLog {
        DeliveryLog { ring: VecDeque::new(), capacity: capacity.max(1), next: 1, totals: Totals::default() }
    }

    /// Begins a delivery; `id` and `outcome` of `delivery` are filled in.
    pub(super) fn begin(&mut self, mut delivery: Delivery) -> u64 {
        delivery.id = self.next;
        delivery.outcome = Outcome::Pending;
        self.next += 1;
        self.totals.sent += 1;
        if self.ring.len() == self.capacity {
            self.ring.pop_front();
        }
        self.ring.push_back(delivery);
        self.next - 1
    }

    pub(super) fn skipped(&mut self, count: u64) {
        self.totals.skipped += count;
    }

    pub(super) fn attempted(&mut self, id: u64, webhook: &Arc<str>, attempt: Attempt) {
        let failed = u64::from(!attempt.status.is_some_and(|status| (200..300).contains(&status)));
        self.totals.attempts += 1;
        self.totals.attempts_failed += failed;
        let label = self.label(webhook, attempt.label);
        label.attempts += 1;
        label.attempts_failed += failed;
        if let Some(delivery) = self.find(id) {
            if delivery.label != attempt.label {
                (delivery.label, delivery.signed_at) = (attempt.label, attempt.at);
            }
            delivery.attempts.push(attempt);
        }
    }

    pub(super) fn ended(&mut self, id: u64, webhook: &Arc<str>, label: Label, outcome: Outcome) {
        let by_label = self.label(webhook, label);
        match outcome {
            Outcome::Pending => return,
            Outcome::Accepted => by_label.accepted += 1,
            Outcome::Rejected => by_label.rejected += 1,
            Outcome::Lost => by_label.lost += 1,
            Outcome::Dropped => {}
        }
        match outcome {
            Outcome::Pending => {}
            Outcome::Accepted => self.totals.accepted += 1,
            Outcome::Rejected => self.totals.rejected += 1,
            Outcome::Lost => self.totals.lost += 1,
            Outcome::Dropped => self.totals.dropped += 1,
        }
        if let Some(delivery) = self.find(id) {
            delivery.outcome = outcome;
        }
    }

    pub(super) fn pending(&self) -> u64 {
        self.totals.pending()
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals.clone()
    }

    /// The oldest `limit` deliveries after `after` that the ring still holds.
    pub(super) fn after(&self, after: u64, webhook: Option<&str>, limit: usize) -> Vec<Delivery> {
        let first = self.ring.front().map_or(self.next, |delivery| delivery.id);
        let skip = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let wanted = |delivery: &&Delivery| webhook.is_none_or(|id| &*delivery.webhook == id);
        self.ring.iter().skip(skip).filter(wanted).take(limit).cloned().collect()
    }

    fn label(&mut self, webhook: &Arc<str>, label: Label) -> &mut LabelTotals {
        self.totals.by_label.entry(webhook.to_string()).or_default().entry(label).or_default()
    }

    fn find(&mut self, id: u64) -> Option<&mut Delivery> {
        let first = self.ring.front()?.id;
        self.ring.get_mut(usize::try_from(id.checked_sub(first)?).ok()?)
    }
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn as_hex<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(webhook: &Arc<str>) -> Delivery {
        Delivery {
            id: 0,
            webhook: webhook.clone(),
            seq: 1,
            event: "call.completed".into(),
            body_sha256: [0; 32],
            label: 0,
            signed_at: 0,
            attempts: Vec::new(),
            outcome: Outcome::Pending,
        }
    }

    #[test]
    fn the_ring_forgets_the_oldest_delivery_and_the_totals_do_not() {
        let (mut log, webhook) = (DeliveryLog::new(2), Arc::from("whk_a"));
        let ids: Vec<_> = (0..3).map(|_| log.begin(delivery(&webhook))).collect();
        for id in &ids {
            log.attempted(*id, &webhook, Attempt { at: 1, label: 0, status: Some(401), took_ms: 1 });
            log.attempted(*id, &webhook, Attempt { at: 2, label: 1, status: Some(200), took_ms: 1 });
            log.ended(*id, &webhook, 1, Outcome::Accepted);
        }
        let kept = log.after(0, None, 10);
        assert_eq!(kept.iter().map(|d| (d.id, d.label, d.attempts.len())).collect::<Vec<_>>(), [(2, 1, 2), (3, 1, 2)]);
        assert_eq!(log.after(2, None, 10).len(), 1);
        assert_eq!(log.after(0, Some("whk_b"), 10).len(), 0);
        let totals = log.totals();
        assert_eq!((totals.sent, totals.accepted, totals.pending(), totals.attempts_failed), (3, 3, 0, 3));
        assert_eq!(totals.of("whk_a", 1).accepted, 3);
        assert_eq!(totals.of("whk_a", 0).attempts_failed, 3);
    }
}
