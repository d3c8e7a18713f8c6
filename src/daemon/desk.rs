//! What the doors may know: keyrings and tokens; and where they put what they saw.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::sync::mpsc;

use super::message::Message;
use crate::{
    config::{Door, Ignore},
    evidence::{Desk, Facts, GatewayCounts, Reason, Sighting, ignored},
    secret::{Keyring, Secret},
};

/// One webhook at the desk.
pub(super) struct Entry {
    pub keyring: ArcSwap<Keyring>,
    pub report_token: Option<Secret>,
    pub tap_token: Option<Secret>,
    pub ignore: Vec<Ignore>,
}

/// Shared between the writer, which replaces keyrings whole, and the doors, which only read and never wait for it.
pub(super) struct FrontDesk {
    entries: HashMap<String, Entry>,
    inbox: mpsc::Sender<Message>,
}

impl FrontDesk {
    pub fn new(entries: Vec<(String, Entry)>, inbox: mpsc::Sender<Message>) -> FrontDesk {
        FrontDesk { entries: entries.into_iter().collect(), inbox }
    }

    pub fn replace(&self, name: &str, keyring: Keyring) {
        if let Some(entry) = self.entries.get(name) {
            entry.keyring.store(Arc::new(keyring));
        }
    }
}

impl Desk for FrontDesk {
    fn keyring(&self, name: &str) -> Option<Arc<Keyring>> {
        self.entries.get(name).map(|entry| entry.keyring.load_full())
    }

    fn report_token(&self, name: &str) -> Option<Secret> {
        self.entries.get(name).and_then(|entry| entry.report_token.clone())
    }

    fn tap_token(&self, name: &str) -> Option<Secret> {
        self.entries.get(name).and_then(|entry| entry.tap_token.clone())
    }

    fn ignores(&self, name: &str, headers: &HeaderMap, from: Option<IpAddr>) -> bool {
        self.entries.get(name).is_some_and(|entry| ignored(&entry.ignore, headers, from))
    }

    fn set_aside(&self, name: &str, body_sha256: [u8; 32]) {
        let _ = self.inbox.try_send(Message::SetAside { webhook: name.to_owned(), body_sha256 });
    }

    /// Never waits: a full inbox loses the observation, which can only delay.
    fn sighted(&self, sighting: Sighting) -> bool {
        self.inbox.try_send(Message::Sighting(Box::new(sighting))).is_ok()
    }

    fn unverified(&self, name: &str, door: Door, reason: Reason, facts: &Facts) {
        tracing::debug!(webhook = name, ?door, ?reason, "a delivery did not verify");
        let _ =
            self.inbox.try_send(Message::Unverified { webhook: name.to_owned(), door, reason, facts: Box::new(facts.clone()) });
    }
    fn gateway_counts(&self, name: &str, counts: GatewayCounts) {
        let _ = self.inbox.try_send(Message::GatewayCounts { webhook: name.to_owned(), counts });
    }
}
