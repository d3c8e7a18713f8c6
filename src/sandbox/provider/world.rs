use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    Label, ProviderOptions, Settings, UnixMillis,
    fault::{Apply, FaultQueue},
    hook::{Change, Hook},
    log::DeliveryLog,
    traffic::{self, Draft},
};
use crate::secret::Secret;

/// Everything the provider knows. One lock holds it; nothing is awaited under that lock.
pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) faults: FaultQueue,
    pub(super) hooks: BTreeMap<String, Hook>,
    pub(super) log: DeliveryLog,
    pub(super) budget: RateBudget,
    pub(super) requests: u64,
    /// Signed, and still to be begun.
    pub(super) stragglers: Vec<Draft>,
    patches: VecDeque<PatchSeen>,
    patches_seen: u64,
    pending: BTreeMap<u64, (PendingApply, Change)>,
    next_apply: u64,
    next_hook: u64,
}

/// One PATCH as it arrived, and whether it had its effect.
#[derive(Debug, Clone, Serialize)]
pub struct PatchSeen {
    /// Rises by one with every PATCH.
    pub number: u64,
    pub at: UnixMillis,
    pub webhook: String,
    /// The label of the secret it carried.
    pub label: Option<Label>,
    /// Whether it carried anything else.
    pub other_fields: bool,
    /// When its secret (its other fields, where it had none) was stored as sent, the first time.
    pub applied_at: Option<UnixMillis>,
}

/// An effect that is still to come.
#[derive(Debug, Clone, Serialize)]
pub struct PendingApply {
    /// The number of the PATCH.
    pub patch: u64,
    pub webhook: String,
    pub label: Option<Label>,
    pub due_at: UnixMillis,
}

/// How many PATCHes are remembered.
const PATCHES: usize = 10_000;

impl World {
    pub(super) fn new(options: ProviderOptions) -> World {
        World {
            settings: options.settings,
            faults: FaultQueue::default(),
            hooks: BTreeMap::new(),
            log: DeliveryLog::new(options.log_capacity),
            budget: RateBudget::new(),
            requests: 0,
            stragglers: Vec::new(),
            patches: VecDeque::new(),
            patches_seen: 0,
            pending: BTreeMap::new(),
            next_apply: 0,
            next_hook: 1,
        }
    }

    /// A webhook that exists, for REST: a deleted one does not.
    pub(super) fn hook(&mut self, id: &str) -> Option<&mut Hook> {
        self.hooks.get_mut(id).filter(|hook| !hook.deleted)
    }

    pub(super) fn create(&mut self, url: &str, events: Vec<Arc<str>>, secret: Secret) -> String {
        let mut id = String::new();
        while id.is_empty() || self.hooks.contains_key(&id) {
            id = format!("whk_sandbox{:05}", self.next_hook);
            self.next_hook += 1;
        }
        self.insert(&id, url, events, secret);
        id
    }

    pub(super) fn insert(&mut self, id: &str, url: &str, events: Vec<Arc<str>>, secret: Secret) {
        self.hooks.insert(id.to_owned(), Hook::new(id, url, events, secret));
    }

    /// Takes a PATCH in, with the effect that `apply` says. What is to come later is returned for somebody to wait for.
    pub(super) fn patch(&mut self, id: &str, mut change: Change, apply: Apply) -> Option<Later> {
        let settings = self.settings;
        let hook = self.hooks.get_mut(id)?;
        self.patches_seen += 1;
        let number = self.patches_seen;
        let seen = PatchSeen {
            number,
            at: unix_millis(),
            webhook: id.to_owned(),
            label: change.secret.as_ref().map(|secret| hook.label(secret)),
            other_fields: change.url.is_some() || change.events.is_some() || change.is_active.is_some(),
            applied_at: None,
        };
        if self.patches.len() == PATCHES {
            self.patches.pop_front();
        }
        self.patches.push_back(seen);
        let later = match apply {
            Apply::Now => None,
            Apply::Never => return None,
            Apply::LateMs(ms) => return Some(self.postpone(number, id, change, ms)),
            Apply::AgainMs(ms) => Some(self.postpone(number, id, change.clone(), ms)),
            Apply::WithoutSecret => {
                change.secret = None;
                None
            }
            Apply::TruncatedTo(bytes) => {
                change.secret = change.secret.and_then(|secret| truncated(&secret, bytes));
                None
            }
        };
        self.apply(number, id, change, &settings);
        later
    }

    /// The late effect of a PATCH, unless it came already or was called off.
    pub(super) fn arrive(&mut self, later: Later) {
        if let Some((pending, change)) = self.pending.remove(&later.ticket) {
            let settings = self.settings;
            self.apply(pending.patch, &pending.webhook, change, &settings);
        }
    }

    /// Every effect that is still to come comes now, the oldest first.
    pub(super) fn arrive_all(&mut self) {
        while let Some((_, (pending, change))) = self.pending.pop_first() {
            let settings = self.settings;
            self.apply(pending.patch, &pending.webhook, change, &settings);
        }
    }

    pub(super) fn pending(&self) -> Vec<PendingApply> {
        self.pending.values().map(|(pending, _)| pending.clone()).collect()
    }

    pub(super) fn call_off_pending(&mut self) {
        self.pending.clear();
    }

    pub(super) fn patches(&self) -> Vec<PatchSeen> {
        self.patches.iter().cloned().collect()
    }

    pub(super) fn patches_seen(&self) -> u64 {
        self.patches_seen
    }

    fn apply(&mut self, number: u64, id: &str, change: Change, settings: &Settings) {
        let switches = self.hook(id).is_some_and(|hook| hook.traffic.on && hook.would_switch(&change));
        if switches && settings.straggler_ms > 0 {
            let wait = Duration::from_millis(settings.straggler_ms);
            let straggler = traffic::draft(self, id).map(|draft| draft.queued_for(wait));
            self.stragglers.extend(straggler);
        }
        let Some(hook) = self.hook(id) else { return };
        hook.apply(change, settings, Instant::now());
        if switches {
            hook.queued += settings.burst;
        }
        let stored = hook.stored();
        let seen = self.patches.iter_mut().rfind(|seen| seen.number == number);
        if let Some(seen) = seen.filter(|seen| seen.label.is_none_or(|label| label == stored)) {
            seen.applied_at.get_or_insert_with(unix_millis);
        }
    }

    fn postpone(&mut self, patch: u64, id: &str, change: Change, ms: u64) -> Later {
        self.next_apply += 1;
        let label = change.secret.as_ref().and_then(|secret| self.hooks.get(id)?.known(secret));
        let due_at = unix_millis() + i64::try_from(ms).unwrap_or(i64::MAX / 2);
        let pending = PendingApply { patch, webhook: id.into(), label, due_at };
        self.pending.insert(self.next_apply, (pending, change));
        Later { ticket: self.next_apply, after: Duration::from_millis(ms) }
    }
}

/// When to let a pending change arrive.
pub(super) struct Later {
    ticket: u64,
    pub(super) after: Duration,
}

/// How many requests are left in this minute.
pub(super) struct RateBudget {
    window: Instant,
    used: u32,
}

/// What the rate headers say.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    pub(super) reset_in: u64,
    pub(super) exceeded: bool,
}

/// The limit that the headers show where none is enforced; seen in the wild.
const SHOWN_LIMIT: u32 = 150;
const WINDOW: Duration = Duration::from_secs(60);

impl RateBudget {
    fn new() -> RateBudget {
        RateBudget { window: Instant::now(), used: 0 }
    }

    /// Counts one request against `limit` (0: none is enforced).
    pub(super) fn spend(&mut self, limit: u32) -> Budget {
        if self.window.elapsed() >= WINDOW {
            *self = RateBudget::new();
        }
        self.used = self.used.saturating_add(1);
        let shown = if limit == 0 { SHOWN_LIMIT } else { limit };
        Budget {
            limit: shown,
            remaining: shown.saturating_sub(self.used),
            reset_in: WINDOW.saturating_sub(self.window.elapsed()).as_secs().max(1),
            exceeded: limit > 0 && self.used > limit,
        }
    }
}

pub(super) fn unix_millis() -> UnixMillis {
    chrono::Utc::now().timestamp_millis()
}

/// The beginning of a secret; `None` where nothing would be left.
fn truncated(secret: &Secret, bytes: usize) -> Option<Secret> {
    let text = secret.expose();
    let cut = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at))?;
    Secret::parse(&text[..cut]).ok()
}
