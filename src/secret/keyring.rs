use std::sync::atomic::{AtomicUsize, Ordering};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{Kid, Secret, signature};

/// How a key of a webhook stands right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A consumer accepts it.
    Accepted,
    /// Retired: recognised, so that a late or replayed delivery can be named, and never accepted.
    Retired,
}

/// Every key that a delivery of one webhook may carry. Built by the writer loop, shared with the doors, never changed in place.
pub struct Keyring {
    keys: Vec<Entry>,
    /// The place of the key that matched last.
    recent: AtomicUsize,
}

struct Entry {
    kid: Kid,
    secret: Secret,
    standing: Standing,
    /// Where every MAC under this secret starts: two blocks hashed once instead of at every delivery.
    keyed: Hmac<Sha256>,
}

impl Keyring {
    pub fn new(keys: Vec<(Kid, Secret, Standing)>) -> Keyring {
        let entry = |(kid, secret, standing)| Entry { kid, keyed: signature::keyed(&secret), secret, standing };
        Keyring { keys: keys.into_iter().map(entry).collect(), recent: AtomicUsize::new(0) }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Kid, &Secret, Standing)> {
        self.keys.iter().map(|entry| (entry.kid, &entry.secret, entry.standing))
    }

    /// The MAC of `body` under the keys that stand like this, one after the other, the one that matched last before the others:
    /// nearly every delivery is signed with that one.
    pub fn macs(&self, standing: Standing, body: &[u8]) -> impl Iterator<Item = (Kid, [u8; 32])> {
        let (before, from) = self.keys.split_at(self.recent.load(Ordering::Relaxed).min(self.keys.len()));
        from.iter().chain(before).filter(move |entry| entry.standing == standing).map(move |entry| {
            let mut mac = entry.keyed.clone();
            mac.update(body);
            (entry.kid, mac.finalize().into_bytes().into())
        })
    }

    /// This key has matched.
    pub fn matched(&self, kid: Kid) {
        if let Some(at) = self.keys.iter().position(|entry| entry.kid == kid) {
            self.recent.store(at, Ordering::Relaxed);
        }
    }

    pub fn secret(&self, kid: Kid) -> Option<&Secret> {
        self.keys.iter().find(|entry| entry.kid == kid).map(|entry| &entry.secret)
    }

    pub fn contains(&self, kid: Kid) -> bool {
        self.keys.iter().any(|entry| entry.kid == kid)
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
