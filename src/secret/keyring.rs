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

/// A MAC that was made before anybody looked for a match. It belongs to the keyring that made it, and to one body.
#[derive(Clone, Copy)]
pub struct Ahead {
    at: usize,
    mac: [u8; 32],
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
    /// nearly every delivery is signed with that one. What is there `ahead` is not made again.
    pub fn macs(&self, standing: Standing, body: &[u8], ahead: Option<Ahead>) -> impl Iterator<Item = (Kid, [u8; 32])> {
        self.likely_first().filter(move |(_, entry)| entry.standing == standing).map(move |(at, entry)| {
            let mac = match ahead {
                Some(ahead) if ahead.at == at => ahead.mac,
                _ => {
                    let mut mac = entry.keyed.clone();
                    mac.update(body);
                    mac.finalize().into_bytes().into()
                }
            };
            (entry.kid, mac)
        })
    }

    /// Each body under the accepted key that most likely signed it: both in less time than one after the other.
    pub fn two_ahead((one, body): (&Keyring, &[u8]), (other, other_body): (&Keyring, &[u8])) -> Option<[Ahead; 2]> {
        let accepted = |(_, entry): &(usize, &Entry)| entry.standing == Standing::Accepted;
        let (at, key) = one.likely_first().find(accepted)?;
        let (other_at, other_key) = other.likely_first().find(accepted)?;
        let [mac, other_mac] = signature::two_macs((key.keyed.clone(), body), (other_key.keyed.clone(), other_body));
        Some([Ahead { at, mac }, Ahead { at: other_at, mac: other_mac }])
    }

    /// The keys and their places, the one that matched last before the others.
    fn likely_first(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let recent = self.recent.load(Ordering::Relaxed).min(self.keys.len());
        (recent..self.keys.len()).chain(0..recent).map(|at| (at, &self.keys[at]))
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
