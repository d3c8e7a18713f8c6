use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Label, Settings};
use crate::secret::Secret;

/// One user-webhook of the provider, with what nobody outside can see: which secret signs.
pub(super) struct Hook {
    pub(super) id: Arc<str>,
    pub(super) url: String,
    pub(super) events: Vec<Arc<str>>,
    pub(super) is_active: bool,
    pub(super) deleted: bool,
    /// RFC 3339.
    pub(super) created_at: String,
    pub(super) traffic: Traffic,
    /// Deliveries begun.
    pub(super) seq: u64,
    /// Events that wait until it is active again.
    pub(super) queued: u64,
    /// Its URL was changed, and was not asked yet.
    pub(super) readdressed: bool,
    /// Every value ever seen, whether it was stored or not. Its index is its label.
    values: Vec<Secret>,
    stored: Label,
    signer: Signer,
}

/// How many events per second happen by themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) on: bool,
    pub(super) per_second: f64,
    /// What the elapsed time has earned and no event has used yet.
    pub(super) credit: f64,
}

/// The fields of a create or an update.
#[derive(Clone, Default)]
pub(super) struct Change {
    pub(super) url: Option<String>,
    pub(super) events: Option<Vec<Arc<str>>>,
    pub(super) is_active: Option<bool>,
    pub(super) secret: Option<Secret>,
}

/// What signs, which may lag behind what is stored.
struct Signer {
    label: Label,
    switches: VecDeque<Switch>,
}

struct Switch {
    label: Label,
    /// From here every second delivery is signed with it, and from `settled` all.
    from: Instant,
    settled: Instant,
}

impl Hook {
    pub(super) fn new(id: &str, url: &str, events: Vec<Arc<str>>, secret: Secret) -> Hook {
        Hook {
            id: id.into(),
            url: url.to_owned(),
            events,
            is_active: true,
            deleted: false,
            created_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            traffic: Traffic { on: true, per_second: 0.0, credit: 0.0 },
            seq: 0,
            queued: 0,
            readdressed: false,
            values: vec![secret],
            stored: 0,
            signer: Signer { label: 0, switches: VecDeque::new() },
        }
    }

    /// The label of a value, a new one for a value never seen.
    pub(super) fn label(&mut self, secret: &Secret) -> Label {
        self.known(secret).unwrap_or_else(|| {
            self.values.push(secret.clone());
            self.values.len() - 1
        })
    }

    pub(super) fn known(&self, secret: &Secret) -> Option<Label> {
        self.values.iter().position(|value| value.same_as(secret))
    }

    pub(super) fn labels(&self) -> usize {
        self.values.len()
    }

    pub(super) fn stored(&self) -> Label {
        self.stored
    }

    pub(super) fn stored_value(&self) -> &Secret {
        &self.values[self.stored]
    }

    /// Whether `change` brings another secret than is stored.
    pub(super) fn would_switch(&self, change: &Change) -> bool {
        change.secret.as_ref().is_some_and(|secret| !secret.same_as(self.stored_value()))
    }

    /// Stores the given fields. The signer follows after the propagation delay of `settings`.
    pub(super) fn apply(&mut self, change: Change, settings: &Settings, now: Instant) {
        if let Some(url) = change.url {
            self.readdressed |= url != self.url;
            self.url = url;
        }
        if let Some(events) = change.events {
            self.events = events;
        }
        if let Some(is_active) = change.is_active {
            self.is_active = is_active;
        }
        if let Some(secret) = change.secret {
            let label = self.label(&secret);
            self.store(label, settings, now);
        }
    }

    fn store(&mut self, label: Label, settings: &Settings, now: Instant) {
        self.stored = label;
        let from = now + Duration::from_millis(settings.propagation_ms);
        self.signer.switches.push_back(Switch { label, from, settled: from + Duration::from_millis(settings.mixed_ms) });
    }

    /// What signs now; while a switch is spreading, every second `turn` has it.
    pub(super) fn signs(&mut self, now: Instant, turn: u64) -> Label {
        let signer = &mut self.signer;
        while let Some(switch) = signer.switches.front()
            && switch.settled <= now
        {
            signer.label = switch.label;
            signer.switches.pop_front();
        }
        match signer.switches.iter().rfind(|switch| switch.from <= now) {
            Some(switch) if turn % 2 == 1 => switch.label,
            _ => signer.label,
        }
    }

    /// Every label that may still sign: more than one while a switch is spreading.
    pub(super) fn signing(&mut self, now: Instant) -> Vec<Label> {
        let mut labels = vec![self.signs(now, 0)];
        labels.extend(self.signer.switches.iter().map(|switch| switch.label));
        labels.dedup();
        labels
    }

    pub(super) fn value(&self, label: Label) -> &Secret {
        &self.values[label]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::parse(text).expect("a secret")
    }

    fn change(text: &str) -> Change {
        Change { secret: Some(secret(text)), ..Change::default() }
    }

    #[test]
    fn a_value_keeps_its_label_when_it_comes_back() {
        let (mut hook, now) = (Hook::new("whk_a", "http://127.0.0.1:1/", Vec::new(), secret("a")), Instant::now());
        for (text, label) in [("b", 1), ("a", 0), ("c", 2), ("b", 1)] {
            hook.apply(change(text), &Settings::default(), now);
            assert_eq!((hook.stored(), hook.signs(now, 0)), (label, label));
        }
        assert_eq!(hook.labels(), 3);
    }

    #[test]
    fn the_signer_lags_then_mixes_then_settles() {
        let (mut hook, now) = (Hook::new("whk_a", "http://127.0.0.1:1/", Vec::new(), secret("a")), Instant::now());
        let settings = Settings { propagation_ms: 100, mixed_ms: 50, ..Settings::default() };
        hook.apply(change("b"), &settings, now);
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!((hook.stored(), hook.signs(at(99), 1)), (1, 0));
        assert_eq!(hook.signing(at(99)), [0, 1]);
        assert_eq!((hook.signs(at(100), 0), hook.signs(at(100), 1)), (0, 1));
        assert_eq!((hook.signs(at(150), 0), hook.signing(at(150))), (1, vec![1]));
    }
}
