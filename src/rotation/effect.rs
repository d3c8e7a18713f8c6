use serde::{Deserialize, Serialize};

use super::{Hold, KidSet, Millis, ReplicaId};
use crate::secret::Kid;

/// What the shell is to do, after the transition that asked for it was committed. Each is answered by exactly one event
/// (a round of questions by one per replica and a `RoundEnded`), also when it fails or times out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Make the keystore hold `kids` as `generation`, unless it already holds a newer one; then read it back.
    WriteKeystore { call: u64, generation: u64, kids: KidSet },
    /// Read the keystore.
    ReadKeystore { call: u64 },
    /// Ask `whom` whether they accept `accept` and no longer accept `refuse`. A full question has the controls (a random
    /// key, the current secret); a look only repeats the target.
    AskReplicas {
        round: u64,
        whom: Vec<ReplicaId>,
        generation: u64,
        accept: Kid,
        control: Option<Kid>,
        refuse: KidSet,
        full: bool,
    },
    /// GET the webhook.
    InspectWebhook { call: u64 },
    /// Open a connection for one attempt. Nothing is sent.
    Connect { call: u64 },
    /// Send the PATCH with `kid`'s secret on the connection of `call`. Its intent is in the record that was just committed.
    SendPatch { call: u64, attempt: u64, kid: Kid },
}

/// A decision worth a line in the journal and the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// A person was given the value.
    Ejected {
        kid: Kid,
    },
    Adopted {
        kid: Option<Kid>,
    },
    Confirmed {
        kid: Kid,
    },
    RotationBegan {
        number: u64,
        target: Kid,
        compromised: bool,
    },
    KeystoreConfirmed {
        generation: u64,
    },
    ReplicasProven {
        replicas: u16,
    },
    Intent {
        attempt: u64,
        kid: Kid,
    },
    Answered {
        attempt: u64,
        answer: super::PatchAnswer,
    },
    /// A repetition was brought forward: new bodies still come signed with another secret.
    StillOld {
        kid: Kid,
    },
    SwitchProven {
        kid: Kid,
    },
    /// A new body signed with an accepted secret other than the target, after the switch proof.
    DrainBroken {
        kid: Kid,
    },
    DrainOver,
    RetireBegan {
        keep: Kid,
        removed: KidSet,
    },
    Completed {
        number: u64,
        current: Kid,
    },
    AbortBegan {
        kid: Kid,
    },
    Aborted {
        number: u64,
    },
    RolledBack {
        to: Kid,
    },
    Superseded {
        by: Kid,
    },
    Compromised,
    KeystoreLost {
        generation: u64,
        losses: u8,
    },
    KeystoreStrangers {
        kids: KidSet,
    },
    /// A person says that this replica is gone for good.
    Dismissed {
        replica: String,
    },
    /// A delivery was provoked, as the configuration allows it.
    Stimulated,
    QuarantineOver {
        kid: Kid,
    },
    Reaccepted {
        kid: Kid,
        credit: Millis,
    },
    ReacceptOver {
        kid: Kid,
    },
    RetiredKeySeen {
        kid: Kid,
    },
    RejectedByConsumer {
        kid: Kid,
    },
    ReplicaLost {
        replica: ReplicaId,
    },
    WebhookInactive,
    Held {
        hold: Hold,
    },
    Resumed,
    Paused,
    Restored,
}
