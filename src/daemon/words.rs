//! One sentence for each thing that can be written in the journal; the log says the same.

use crate::{
    rotation::{Hold, KidSet, Note, PatchAnswer},
    secret::Kid,
};

use crate::config::duration_text;

pub fn note(note: &Note) -> String {
    match note {
        Note::Adopted { kid: Some(kid) } => format!("secret {kid} was adopted as the current one"),
        Note::Ejected { kid } => format!("the secret {kid} was handed out to a person"),
        Note::Adopted { kid: None } => "adopted with an unknown current secret: there is no way back to it".to_owned(),
        Note::Confirmed { kid } => format!("a genuine delivery verified under the current secret {kid}"),
        Note::RotationBegan { number, target, compromised: false } => format!("rotation {number} began, its target is {target}"),
        Note::RotationBegan { number, target, compromised: true } => {
            format!("rotation {number} began because the current secret has leaked, its target is {target}")
        }
        Note::KeystoreConfirmed { generation } => format!("the keystore was read back and holds generation {generation}"),
        Note::ReplicasProven { replicas: 0 } => {
            "there is no replica that could show acceptance, and going on unproven is allowed".to_owned()
        }
        Note::ReplicasProven { replicas: 1 } => "the one replica was shown to accept what it must".to_owned(),
        Note::ReplicasProven { replicas } => format!("all {replicas} replicas were shown to accept what they must"),
        Note::Intent { attempt, kid } => format!("attempt {attempt}: about to send {kid} to DialNexa"),
        Note::Answered { attempt, answer: a } => format!("attempt {attempt}: {}", answer(a)),
        Note::StillOld { kid } => format!("new deliveries are still signed with {kid}: the next repetition was brought forward"),
        Note::SwitchProven { kid } => format!("a genuine delivery verified under {kid}: DialNexa signs with it"),
        Note::DrainBroken { kid } => {
            format!("a new delivery came signed with {kid} again: back to sending, and the wait starts over")
        }
        Note::DrainOver => "deliveries signed with the old secret have had their time".to_owned(),
        Note::RetireBegan { keep, removed } => {
            format!("the keystore is being reduced to {keep}; {} will be refused", kids(removed))
        }
        Note::Completed { number, current } => {
            format!("rotation {number} is complete: every replica accepts {current} and refuses what was retired")
        }
        Note::AbortBegan { kid } => format!("giving up before {kid} was sent: it is being taken out of the keystore"),
        Note::Aborted { number } => format!("rotation {number} was given up; nothing has changed at DialNexa"),
        Note::RolledBack { to } => format!("turned back: {to} is the target again"),
        Note::Superseded { by } => format!("{by} takes the target's place"),
        Note::Compromised => "the current secret was reported as leaked".to_owned(),
        Note::KeystoreLost { generation, losses } => {
            format!("somebody else changed the keystore (generation {generation} was expected; {losses}. time in this rotation)")
        }
        Note::KeystoreStrangers { kids: found } => {
            format!("the keystore holds keys that hookturn did not write: {}; they are kept", kids(found))
        }
        Note::Dismissed { replica } => format!("the replica {replica} was dismissed: a person says that it is gone for good"),
        Note::Stimulated => "nothing came, so the stimulus is used, this once: it is to provoke a delivery".to_owned(),
        Note::QuarantineOver { kid } => format!("no request with {kid} can be applied any more"),
        Note::Reaccepted { kid, credit } => {
            format!("the retired {kid} is accepted again for {}", duration_text(std::time::Duration::from_millis(*credit)))
        }
        Note::ReacceptOver { kid } => format!("{kid} is no longer accepted again"),
        Note::RetiredKeySeen { kid } => format!("a delivery came signed with the retired {kid}: the consumer refuses it"),
        Note::RejectedByConsumer { kid } => format!("the consumer refused a genuine delivery signed with {kid}"),
        Note::ReplicaLost { replica } => format!("replica {} no longer shows that it accepts what it must", replica.0 + 1),
        Note::WebhookInactive => "the webhook is switched off at DialNexa: no deliveries will come".to_owned(),
        Note::Held { hold: reason } => format!("held: {}", hold(*reason)),
        Note::Resumed => "a person let it go on".to_owned(),
        Note::Paused => "a person paused it: nothing new is begun".to_owned(),
        Note::Restored => "the store is older than what was already done: a backup was put back".to_owned(),
    }
}

/// What DialNexa said to a PATCH.
pub fn answer(answer: &PatchAnswer) -> String {
    match answer {
        PatchAnswer::Applied => "DialNexa answered 200 (a hint, not yet a proof)".to_owned(),
        PatchAnswer::ValueRefused => "DialNexa refused the value; nothing was applied".to_owned(),
        PatchAnswer::ApiKeyRefused => "DialNexa refused the API key; nothing was applied".to_owned(),
        PatchAnswer::WebhookGone => "DialNexa has no such webhook; nothing was applied".to_owned(),
        PatchAnswer::Limited { wait } => {
            format!("DialNexa asked to wait {}; nothing was applied", duration_text(std::time::Duration::from_millis(*wait)))
        }
        PatchAnswer::Ambiguous { .. } => {
            "no clear answer: it may have been applied, or may be yet; the same value will be sent again".to_owned()
        }
    }
}

/// Why a person is needed.
pub fn hold(hold: Hold) -> &'static str {
    match hold {
        Hold::KeystoreContested => "somebody else keeps writing the keystore",
        Hold::KeystoreForeign => "the keystore holds keys that can neither be kept nor dropped safely",
        Hold::Restored => "store and keystore do not belong together: a backup was restored, or somebody wrote by hand",
        Hold::TargetRefused => "DialNexa refuses this value of the secret",
        Hold::ApiKeyRefused => "DialNexa refuses the API key",
        Hold::WebhookGone => "DialNexa has no such webhook",
        Hold::RejectedByConsumer => "a consumer refused a genuine delivery signed with the target",
        Hold::ConfigDrift => "the webhook's id, address or keystore changed in the configuration during a rotation",
    }
}

/// `3 d 4 h`, `1 h 12 min`, `5 s`: the two greatest units.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes, seconds) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let two = |great: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{great} {unit}"),
        _ => format!("{great} {unit} {small} {small_unit}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) if (1..1000).contains(&ms) => format!("{ms} ms"),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => two(minutes, "min", seconds, "s"),
        (0, _, _) => two(hours, "h", minutes, "min"),
        _ => two(days, "d", hours, "h"),
    }
}

fn kids(set: &KidSet) -> String {
    match set.is_empty() {
        true => "nothing".to_owned(),
        false => set.iter().map(|kid: Kid| kid.to_string()).collect::<Vec<_>>().join(", "),
    }
}
