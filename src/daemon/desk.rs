//! What the doors may know: keyrings and tokens; and where they put what they saw.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use tokio::sync::mpsc;

use super::message::Message;
use crate::{
    config::Door,
    evidence::{Desk, Facts, Reason, Sighting},
    secret::{Keyring, Secret},
};

/// One webhook at the desk.
pub(super) struct Entry {
    pub keyring: Arc<Keyring>,
    pub report_token: Option<Secret>,
    pub tap_token: Option<Secret>,
}

/// Shared between the writer, which replaces keyrings whole, and the doors, which only read.
pub(super) struct FrontDesk {
    entries: HashMap<String, RwLock<Entry>>,
    inbox: mpsc::Sender<Message>,
}

impl FrontDesk {
    pub fn new(entries: Vec<(String, Entry)>, inbox: mpsc::Sender<Message>) -> FrontDesk {
        FrontDesk { entries: entries.into_iter().map(|(name, entry)| (name, RwLock::new(entry))).collect(), inbox }
    }

    pub fn replace(&self, name: &str, keyring: Keyring) {
        if let Some(entry) = self.entries.get(name) {
            entry.write().unwrap_or_else(std::sync::PoisonError::into_inner).keyring = Arc::new(keyring);
        }
    }

    fn read<T>(&self, name: &str, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.entries.get(name).map(|entry| look(&entry.read().unwrap_or_else(std::sync::PoisonError::into_inner)))
    }
}

impl Desk for FrontDesk {
    fn keyring(&self, name: &str) -> Option<Arc<Keyring>> {
        self.read(name, |entry| entry.keyring.clone())
    }

    fn report_token(&self, name: &str) -> Option<Secret> {
        self.read(name, |entry| entry.report_token.clone()).flatten()
    }

    fn tap_token(&self, name: &str) -> Option<Secret> {
        self.read(name, |entry| entry.tap_token.clone()).flatten()
    }

    /// Never waits: a full inbox loses the observation, which can only delay.
    fn sighted(&self, sighting: Sighting) -> bool {
        self.inbox.try_send(Message::Sighting(Box::new(sighting))).is_ok()
    }

    fn unverified(&self, name: &str, door: Door, reason: Reason, _facts: &Facts) {
        tracing::debug!(webhook = name, ?door, ?reason, "a delivery did not verify");
        let _ = self.inbox.try_send(Message::Unverified { webhook: name.to_owned(), reason });
    }
}
