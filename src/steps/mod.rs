//! The five steps of a rotation, each one effect in, one event out.
//!
//! | step | effect | event |
//! |---|---|---|
//! | [`generate`] | (a rotation is asked for) | `Op::Rotate` with a fresh kid, its secret sealed in the same commit |
//! | [`push`] | `WriteKeystore`, `ReadKeystore`, `AskReplicas` | `Keystore`, `Replica`, `RoundEnded` |
//! | [`patch`] | `Connect`, `SendPatch`, `InspectWebhook` | `Connected`, `Patched`, `Webhook` |
//! | [`verify`] | (a delivery arrives) | `Seen` |
//! | [`retire`] | the same three as push, with what must be gone | `Keystore`, `Replica` |
//!
//! Every step may be repeated, cancelled at any await and run against any state of the world; each has a deadline.

mod chance;
pub mod generate;
pub mod patch;
pub mod push;
pub mod retire;
pub mod verify;

pub use chance::{Chance, SystemChance};

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use crate::{
    config,
    dialnexa::Provider,
    evidence::{Ledger, Prober},
    keystore::Keystore,
    secret::{Keyring, Kid, SealingKey, Secret, Standing, redact},
    store::Origin,
};

/// What the steps of one webhook work with.
pub struct Tools {
    pub config: config::Webhook,
    pub provider: Arc<dyn Provider>,
    pub keystore: Box<dyn Keystore>,
    pub prober: Arc<Prober>,
    pub vault: Vault,
    pub sealing: Arc<SealingKey>,
    pub chance: Arc<dyn Chance>,
    pub ledger: std::sync::Mutex<Ledger>,
    /// What full probes found, for the looks in between: by replica, the class that a random and a right key get.
    pub learned: std::sync::Mutex<BTreeMap<String, crate::evidence::Learned>>,
}

/// The opened secrets of one webhook. Only what is committed is in here.
#[derive(Default)]
pub struct Vault {
    secrets: RwLock<BTreeMap<Kid, (Secret, Origin)>>,
}

impl Vault {
    pub fn insert(&self, kid: Kid, secret: Secret, origin: Origin) {
        self.secrets.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(kid, (secret, origin));
    }

    pub fn secret(&self, kid: Kid) -> Option<Secret> {
        self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&kid).map(|(secret, _)| secret.clone())
    }

    pub fn origin(&self, kid: Kid) -> Option<Origin> {
        self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&kid).map(|(_, origin)| *origin)
    }

    /// The kid of a secret that is known already.
    pub fn kid_of(&self, wanted: &Secret) -> Option<Kid> {
        let secrets = self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        secrets.iter().find(|(_, (secret, _))| secret.same_as(wanted)).map(|(kid, _)| *kid)
    }

    /// A text from outside, without anything of what is in here.
    pub fn redact(&self, text: &str) -> String {
        let secrets = self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        redact(text, &secrets.values().map(|(secret, _)| secret).collect::<Vec<_>>())
    }

    /// Every key a delivery may carry; `accepted` tells which of them count.
    pub fn keyring(&self, accepted: impl Fn(Kid) -> bool) -> Keyring {
        let secrets = self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let standing = |kid| if accepted(kid) { Standing::Accepted } else { Standing::Retired };
        Keyring::new(secrets.iter().map(|(kid, (secret, _))| (*kid, secret.clone(), standing(*kid))).collect())
    }
}
