use std::collections::{HashSet, VecDeque};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    mutants::{self, Mutant},
    secret::Kid,
};

/// A report of a synthetic check comes right after its copy: few need to be remembered.
const ASIDE: usize = 256;

/// Which bodies of one webhook were seen before, and which hookturn made itself.
///
/// It holds keyed hashes only: who reads the store cannot tell whether a body that he can guess was delivered. Bodies seen are
/// forgotten, oldest first, beyond the capacity (a replay of one so old counts as new again, and it still needs a signature);
/// probes are never forgotten, or an own probe could come back as evidence.
pub struct Ledger {
    key: Zeroizing<[u8; 32]>,
    capacity: usize,
    probes: HashSet<Mark>,
    /// Bodies that count for nothing.
    aside: VecDeque<Mark>,
    seen: HashSet<Mark>,
    /// The seen ones, oldest first.
    order: VecDeque<Mark>,
}

/// What is remembered of a body: 16 bytes, since hundreds of webhooks may each remember thousands of bodies.
type Mark = [u8; 16];

impl Ledger {
    /// `key` must stay the same for as long as stored hashes are to be recognised.
    pub fn new(key: [u8; 32], capacity: usize) -> Ledger {
        let (probes, aside) = (HashSet::new(), VecDeque::new());
        let (seen, order) = (HashSet::new(), VecDeque::new());
        Ledger { key: Zeroizing::new(key), capacity: capacity.max(1), probes, aside, seen, order }
    }

    /// The keyed hash, in hex, under which a body is kept.
    pub fn digest(&self, body_sha256: &[u8; 32]) -> String {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&*self.key)
            .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
        mac.update(body_sha256);
        hex::encode(mac.finalize().into_bytes())
    }

    /// Whether hookturn made this body itself.
    pub fn is_probe(&self, body: &str) -> bool {
        self.probes.contains(&mark("", body)) && !mutants::on(Mutant::ProbesForgotten)
    }

    /// To be called, and the hash to be stored, before the probe is sent.
    pub fn note_probe(&mut self, body: &str) {
        self.probes.insert(mark("", body));
    }

    /// A body that is to count for nothing, as one of hookturn's own. Forgotten, oldest first, as seen ones are.
    pub fn set_aside(&mut self, body: &str) {
        if self.aside.len() >= ASIDE {
            self.aside.pop_front();
        }
        self.aside.push_back(mark("", body));
    }

    /// Whether this body was set aside.
    pub fn is_aside(&self, body: &str) -> bool {
        self.aside.contains(&mark("", body))
    }

    /// Takes note of a body under a key. True: it is new.
    pub fn note(&mut self, kid: Kid, body: &str) -> bool {
        let mark = mark(kid.as_str(), body);
        if !self.seen.insert(mark) {
            return false;
        }
        self.order.push_back(mark);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

/// A key id holds no NUL, so no two pairs run together.
fn mark(kid: &str, body: &str) -> Mark {
    let digest = Sha256::new().chain_update(kid).chain_update([0]).chain_update(body).finalize();
    let mut mark = [0; 16];
    mark.copy_from_slice(&digest[..16]);
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kid(name: &str) -> Kid {
        Kid::parse(name).expect("kid")
    }

    #[test]
    fn a_body_is_new_once_for_each_key() {
        let mut ledger = Ledger::new([1; 32], 10);
        let body = ledger.digest(&[7; 32]);
        assert!(ledger.note(kid("a"), &body));
        assert!(!ledger.note(kid("a"), &body));
        assert!(ledger.note(kid("b"), &body));
    }

    #[test]
    fn the_oldest_body_is_forgotten_and_a_probe_never() {
        let mut ledger = Ledger::new([1; 32], 2);
        ledger.note_probe("probe");
        for body in ["1", "2", "3"] {
            assert!(ledger.note(kid("a"), body));
        }
        assert_eq!(ledger.seen.len(), 2);
        assert!(!ledger.note(kid("a"), "2"));
        assert!(!ledger.note(kid("a"), "3"));
        assert!(ledger.note(kid("a"), "1"), "forgotten");
        assert!(ledger.is_probe("probe"));
        assert!(!ledger.is_probe("1"));
    }

    #[test]
    fn the_hash_depends_on_the_key() {
        let one = Ledger::new([1; 32], 2).digest(&[7; 32]);
        assert_eq!(one.len(), 64);
        assert_eq!(one, Ledger::new([1; 32], 9).digest(&[7; 32]));
        assert_ne!(one, Ledger::new([2; 32], 2).digest(&[7; 32]));
    }
}
