//! Which bodies were seen before, and which of them hookturn made itself.
//!
//! The digest of a body may be all that somebody needs to recognise a call (bodies hold little that cannot be guessed), so
//! what is stored is a keyed hash of it.

use std::collections::HashSet;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::secret::Kid;

/// The memory of bodies of one webhook.
///
/// Probe bodies are never forgotten: a capture of one may come back through a door years later. They are few (a look every
/// 30 s of a day's rotation each month makes 35,000 a year, 16 bytes each). Of deliveries at least the newest
/// `capacity` / 2 are remembered and at most `capacity`.
pub struct Ledger {
    key: Zeroizing<[u8; 32]>,
    probes: HashSet<Mark>,
    /// Two generations: when the young one is full it becomes the old one, and the old one is forgotten.
    young: HashSet<Mark>,
    old: HashSet<Mark>,
    half: usize,
}

/// Enough of a hash to tell bodies apart.
type Mark = [u8; 16];

impl Ledger {
    /// `key` makes the hashes; the same one must be given after a restart (see [`crate::secret::SealingKey::derive`]).
    pub fn new(key: [u8; 32], capacity: usize) -> Ledger {
        let half = (capacity / 2).max(1);
        Ledger { key: Zeroizing::new(key), probes: HashSet::new(), young: HashSet::new(), old: HashSet::new(), half }
    }

    /// The keyed hash under which a body is stored, in hex.
    pub fn digest(&self, sha256: &[u8; 32]) -> String {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&*self.key)
            .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
        mac.update(sha256);
        hex::encode(mac.finalize().into_bytes())
    }

    /// Remembers for ever that hookturn made this body. To be called before the body is sent, and at start for every
    /// stored probe.
    pub fn note_probe(&mut self, digest: impl AsRef<str>) {
        self.probes.insert(mark(b"probe", digest.as_ref()));
    }

    /// Whether hookturn made this body.
    pub fn is_probe(&self, digest: &str) -> bool {
        self.probes.contains(&mark(b"probe", digest))
    }

    /// Remembers that this body came signed with `kid`; whether that is new. Seeing it again keeps it in memory.
    pub fn note(&mut self, kid: Kid, digest: &str) -> bool {
        let mark = mark(kid.as_str().as_bytes(), digest);
        let known = self.young.contains(&mark) || self.old.contains(&mark);
        if self.young.len() >= self.half && !self.young.contains(&mark) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(mark);
        !known
    }
}

fn mark(what: &[u8], digest: &str) -> Mark {
    let hash = Sha256::new().chain_update(what).chain_update([0]).chain_update(digest).finalize();
    let mut mark = Mark::default();
    mark.copy_from_slice(&hash[..size_of::<Mark>()]);
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kid(text: &str) -> Kid {
        Kid::parse(text).expect("a kid")
    }

    #[test]
    fn a_body_is_new_once_for_each_kid() {
        let mut ledger = Ledger::new([1; 32], 100);
        let digest = ledger.digest(&[7; 32]);
        assert!(ledger.note(kid("a"), &digest));
        assert!(!ledger.note(kid("a"), &digest));
        assert!(ledger.note(kid("b"), &digest));
    }

    #[test]
    fn the_digest_depends_on_the_key_and_survives_a_restart() {
        let digest = Ledger::new([1; 32], 1).digest(&[7; 32]);
        assert_eq!(digest, Ledger::new([1; 32], 9).digest(&[7; 32]));
        assert_ne!(digest, Ledger::new([2; 32], 1).digest(&[7; 32]));
        assert_eq!(digest.len(), 64);
    }

    #[test]
    fn probes_are_never_forgotten_and_deliveries_only_after_half_the_capacity() {
        let mut ledger = Ledger::new([1; 32], 10);
        let probe = ledger.digest(&[255; 32]);
        ledger.note_probe(probe.clone());
        let digests: Vec<String> = (0..100u8).map(|n| ledger.digest(&[n; 32])).collect();
        for digest in &digests {
            assert!(ledger.note(kid("a"), digest));
            assert!(ledger.young.len() + ledger.old.len() <= 10);
        }
        for digest in &digests[95..] {
            assert!(!ledger.note(kid("a"), digest), "among the newest five");
        }
        assert!(ledger.is_probe(&probe));
        assert!(!ledger.is_probe(&digests[0]));
    }

    #[test]
    fn a_body_that_keeps_coming_is_not_forgotten() {
        let mut ledger = Ledger::new([1; 32], 10);
        let replayed = ledger.digest(&[255; 32]);
        assert!(ledger.note(kid("a"), &replayed));
        for n in 0..100u8 {
            let digest = ledger.digest(&[n; 32]);
            ledger.note(kid("a"), &digest);
            assert!(!ledger.note(kid("a"), &replayed));
        }
    }
}
