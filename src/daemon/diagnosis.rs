//! What is wrong, in one word and one paragraph. A pure function of what is known: table-tested below, provoked from outside in
//! `tests/diagnosis.rs`. A diagnosis is for people. Nothing is sent, written or removed because of one.

use serde::{Deserialize, Serialize};

use super::{
    rhythm::Rhythm,
    traffic::{Signed, Traffic, Trip},
    words::span,
};
use crate::{
    config::Door,
    evidence::Facts,
    rotation::{Hold, Verdict},
    secret::Kid,
    store::UnixMillis,
};

/// One word, and a paragraph: what is seen, what hookturn does about it, what a person can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub word: String,
    pub text: String,
    /// It does not mend itself.
    pub person: bool,
}

/// Every word there is. Each has its heading in docs/operations.md.
pub const WORDS: [&str; 26] = [
    "no-traffic",
    "still-old",
    "mixed",
    "neither",
    "rejected-by-consumer",
    "doors-disagree",
    "door-missing",
    "tap-silent",
    "external-plane",
    "retired-key-seen",
    "signs-with-retired",
    "changed-by-hand",
    "second-orchestrator",
    "keystore-contested",
    "keystore-unreachable",
    "probe-inconclusive",
    "consumer-does-not-verify",
    "replica-lags",
    "replica-unreachable",
    "replica-vanished",
    "no-replica",
    "ambiguous",
    "provider-unreachable",
    "unconfirmed",
    "store-unreachable",
    "disk-full",
];

/// Where the webhook is, as far as it matters for what its traffic means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Idle {
        confirmed: bool,
    },
    /// Keystore and replicas are being brought to the target.
    Push,
    /// `answered`: a clear 200 came. `waits`: for traffic, and for nothing else before it.
    Patch {
        answered: bool,
        waits: bool,
    },
    Drain,
    /// Retire and abort.
    Shrink,
    Hold(Hold),
}

/// A replica that was not shown to accept what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Laggard {
    pub name: String,
    pub verdict: Option<Verdict>,
    pub answer: String,
    /// Its address is no longer listed.
    pub vanished: bool,
}

/// Everything that a diagnosis is made from.
pub(super) struct Symptoms<'a> {
    pub now: UnixMillis,
    pub stage: Stage,
    pub current: Option<Kid>,
    pub target: Option<Kid>,
    /// The target is the previous secret again, because the consumer refused the new one.
    pub switched_back: bool,
    /// How often somebody else took our content out of the keystore in this rotation.
    pub losses: u8,
    /// The keystore's generation as it should be.
    pub generation: u64,
    pub keystore_trouble: Option<&'a str>,
    pub provider_trouble: Option<&'a str>,
    /// The newest answer to a PATCH: its class, and a line about it.
    pub last_answer: Option<(&'a str, &'a str)>,
    pub laggards: Vec<Laggard>,
    /// Replicas are asked in this phase, and there is none.
    pub no_replica: bool,
    /// The target was shown by the first of these doors, and `verify.require` asks for the second.
    pub doors: (Vec<Door>, Vec<Door>),
    /// A tap is known to be set up.
    pub tapped: bool,
    pub traffic: &'a Traffic,
    pub rhythm: &'a Rhythm,
    pub trip: Option<&'a Trip>,
}

/// How long a tripwire is shown after it was touched, and other planes after they were seen.
const SHOWN_MS: i64 = 24 * 60 * 60 * 1000;
/// How long ago an old one may be to be told of, once the new one has been seen too.
const BOTH_MS: i64 = 60_000;
/// A delivery may come a little after the answer.
const QUIET_MS: i64 = 3_000;
/// So few could be anything.
const ENOUGH: u64 = 3;
const TAP_SILENT_AFTER: u64 = 5;
const TAP_SILENT_MS: i64 = 5_000;

/// What is wrong, the most urgent first.
pub(super) fn diagnose(s: &Symptoms) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    found.extend(contested(s));
    found.extend(keystore_unreachable(s));
    found.extend(rejected(s));
    found.extend(drifted(s));
    found.extend(replicas(s));
    found.extend(s.traffic.disagreement().map(|doors| disagreeing(&doors)));
    found.extend(switching(s));
    found.extend(tripped(s));
    found.extend(tap_silent(s));
    found.extend(external(s));
    found
}

fn finding(word: &str, person: bool, text: impl Into<String>) -> Finding {
    Finding { word: word.to_owned(), text: text.into(), person }
}

fn contested(s: &Symptoms) -> Option<Finding> {
    if s.stage == Stage::Hold(Hold::KeystoreContested) {
        let text = "Another program keeps writing the keystore: what hookturn wrote was taken out again, twice in this \
                    rotation. Nothing more is sent and nothing is removed; deliveries go on. Find the other writer (a \
                    deployment tool, a second hookturn), stop it, then `resume`.";
        return Some(finding("keystore-contested", true, text));
    }
    if s.losses > 0 && s.target.is_some() {
        let text = "Another program has changed the keystore in this rotation. It was written again, and no PATCH goes out \
                    until every replica has shown again that it accepts both secrets; a second time is a hold. Find out who \
                    else writes it.";
        return Some(finding("keystore-contested", false, text));
    }
    (matches!(s.stage, Stage::Idle { .. }) && written_by_another(s)).then(|| {
        let seen = match s.traffic.loaded > s.generation {
            true => format!("A replica has loaded generation {} of the keystore, and", s.traffic.loaded),
            false => "The keystore holds something else than what was written last, and".to_owned(),
        };
        let text = format!(
            "{seen} hookturn has written nothing beyond {}: another program writes it. Nothing is changed now; the next rotation \
             would stop at it. Find the other writer (a deployment tool, a second hookturn), or restart hookturn to take over \
             what is there.",
            s.generation
        );
        finding("keystore-contested", true, text)
    })
}

fn written_by_another(s: &Symptoms) -> bool {
    s.generation > 0 && (s.traffic.loaded > s.generation || s.traffic.keystore_foreign)
}

fn keystore_unreachable(s: &Symptoms) -> Option<Finding> {
    let trouble = s.keystore_trouble?;
    let text = format!("The keystore cannot be read or written: {trouble}. It is tried again; nothing is sent meanwhile.");
    Some(finding("keystore-unreachable", false, text))
}

fn rejected(s: &Symptoms) -> Option<Finding> {
    let held = s.stage == Stage::Hold(Hold::RejectedByConsumer);
    let refusal = s.traffic.refusal.as_ref();
    if !held && !s.switched_back && refusal.is_none() {
        return None;
    }
    let seen = refusal.map_or_else(
        || "The consumer refused a genuine delivery signed with the new secret.".to_owned(),
        |refusal| {
            let of = refusal.replica.as_deref().map(|name| format!(" (the last one: {name})")).unwrap_or_default();
            format!("The consumer{of} answered 401 or 403 to {} signed with {}.", many(refusal.tally.count), refusal.kid)
        },
    );
    let done = match (held, s.switched_back, s.target.is_some()) {
        (true, ..) => {
            "Nothing more is sent; both secrets stay accepted. Mend the consumer and `resume`, or `rollback`, or `supersede`."
        }
        (_, true, _) => "The previous secret is being sent back, while both are accepted. Then a person is needed.",
        (_, _, true) => "Both secrets stay in the keystore; look at how the consumer verifies.",
        _ => "The keystore lists that secret; look at how the consumer verifies, and whether it has loaded the keystore.",
    };
    Some(finding("rejected-by-consumer", true, format!("{seen} Nobody can forge such a delivery. {done}")))
}

/// Outside of a switch, DialNexa should sign with one secret. The forgeable signs count only together with what a forger
/// cannot make: that genuine deliveries stay away.
fn drifted(s: &Symptoms) -> Option<Finding> {
    if !matches!(s.stage, Stage::Idle { confirmed: true } | Stage::Drain | Stage::Shrink) || !s.rhythm.missed(s.now) {
        return None;
    }
    let silence = span(s.rhythm.silence(s.now));
    let idle = matches!(s.stage, Stage::Idle { .. });
    let ours = if idle { s.current } else { s.target };
    let forward = if idle { "`rotate-now`" } else { "`supersede`" };
    let ours = ours.map_or_else(|| "the current secret".to_owned(), |kid| kid.to_string());
    let unmatched = &s.traffic.unmatched;
    let strange = unmatched.tally.count - unmatched.external;
    if strange < ENOUGH {
        return signs_with_retired(s, &ours, &silence, forward);
    }
    let seen = format!(
        "The newest {} verify under no secret that hookturn ever had ({}), and nothing came under {ours} for {silence}.",
        many(strange),
        strangers(unmatched.reasons.iter().map(|(reason, count)| (reason.name(), *count)), &unmatched.newest),
    );
    if written_by_another(s) {
        let text = format!(
            "{seen} The keystore was written by another program too: a second orchestrator (another hookturn, a script) rotates \
             this webhook. Stop one of the two, then roll forward to a fresh secret with {forward}."
        );
        return Some(finding("second-orchestrator", true, text));
    }
    let text = format!(
        "{seen} Most likely the secret was changed by hand at DialNexa, and the consumer is refusing every delivery. hookturn \
         does nothing by itself, because anybody can send deliveries that do not verify. If the new value is known and no \
         rotation is under way, `adopt` it; if not, {forward} sends a fresh one that the consumer accepts."
    );
    // At night anybody could play with it: nobody is woken before the silence is longer than any that is known.
    Some(finding("changed-by-hand", s.rhythm.unheard_of(s.now), text))
}

fn signs_with_retired(s: &Symptoms, ours: &str, silence: &str, forward: &str) -> Option<Finding> {
    let (_, tally) = s.traffic.run.filter(|(signed, tally)| *signed == Signed::Retired && tally.count >= ENOUGH)?;
    let kid = s.trip.map_or_else(|| "a retired secret".to_owned(), |trip| trip.kid.to_string());
    let text = format!(
        "The newest {} came signed with {kid}, which is retired, with new bodies, and nothing under {ours} for {silence}: \
             DialNexa signs with the retired secret again. DialNexa was put back from a backup, or a person or a second \
             orchestrator sent the old value. The consumer refuses these deliveries, and they are being lost. {forward} sends a \
             fresh secret; while nothing else is under way `reaccept` lets the old one in, unless it had leaked.",
        many(tally.count),
    );
    Some(finding("signs-with-retired", true, text))
}

fn replicas(s: &Symptoms) -> Vec<Finding> {
    if s.no_replica {
        let text = "No replica shows itself: no status file is there, or no address was found. Nothing is sent. Start the \
                    consumer, or correct `preflight`.";
        return vec![finding("no-replica", false, text)];
    }
    let groups: [(Verdict, &str, bool, &str); 4] = [
        (
            Verdict::DoesNotVerify,
            "consumer-does-not-verify",
            true,
            "It accepts a body signed with a random key, so it would accept anybody's, and its answers can prove nothing. \
             Nothing is sent. Mend the consumer: without a signature check there is nothing to rotate.",
        ),
        (
            Verdict::Inconclusive,
            "probe-inconclusive",
            false,
            "A right and a wrong signature get the same answer, or an answer that comes from before the check: that shows \
             nothing, and nothing is sent. `hookturn check --probe NAME` finds out which `preflight.probe_body` works.",
        ),
        (
            Verdict::Refuses,
            "replica-lags",
            false,
            "It does not have the keystore's newest content yet. It is asked again; nothing is sent meanwhile. If it stays, the \
             consumer does not read its keystore again: `preflight.wait`, `keystore.reload`, or a restart of it.",
        ),
        (
            Verdict::Unreachable,
            "replica-unreachable",
            false,
            "It gives no answer. It is asked again; nothing is sent meanwhile. If it is gone for good, take it out of \
             `preflight`.",
        ),
    ];
    let mut found = Vec::new();
    let vanished: Vec<&str> = s.laggards.iter().filter(|laggard| laggard.vanished).map(|laggard| laggard.name.as_str()).collect();
    if !vanished.is_empty() {
        let text = format!(
            "{}: its address is no longer listed by `preflight.replicas`, or its file is gone, and it has not shown what it \
             accepts. It may come back with the keys it had, so it is waited for. If it is gone for good, `dismiss` it.",
            vanished.join("; ")
        );
        found.push(finding("replica-vanished", true, text));
    }
    for (verdict, word, person, text) in groups {
        let named: Vec<String> = s
            .laggards
            .iter()
            .filter(|laggard| laggard.verdict == Some(verdict) && !laggard.vanished)
            .map(|laggard| format!("{} ({})", laggard.name, laggard.answer))
            .collect();
        if !named.is_empty() {
            found.push(finding(word, person, format!("{}: {text}", named.join("; "))));
        }
    }
    found
}

fn disagreeing(doors: &[(Door, Signed, u64); 2]) -> Finding {
    let say = |(door, signed, count): &(Door, Signed, u64)| {
        let under = match signed {
            Signed::Target => "the target",
            Signed::Current => "the current secret",
            Signed::Other => "another accepted secret",
            Signed::Retired => "a retired secret",
        };
        format!("the {} door shows {} under {under}", door.name(), many(*count))
    };
    let text = format!(
        "Two doors contradict each other over the same time: {}, and {}. One of them is not what it is taken for: a mirror of \
         another endpoint, a consumer that reports wrongly, two webhooks on one URL. Only what `verify.require` asks for \
         counts; see which one is right before you trust either.",
        say(&doors[0]),
        say(&doors[1])
    );
    finding("doors-disagree", true, text)
}

/// While the switch is awaited: what the traffic says about it.
fn switching(s: &Symptoms) -> Option<Finding> {
    match s.stage {
        Stage::Idle { confirmed: false } if s.current.is_some() => Some(unconfirmed(s)),
        Stage::Push => provider_unreachable(s),
        Stage::Patch { answered: false, .. } => provider_unreachable(s).or_else(|| unanswered(s)),
        Stage::Patch { answered: true, waits: true } => awaiting(s),
        Stage::Drain if both(s) && s.now - s.traffic.old.last < BOTH_MS => Some(mixed(s)),
        _ => None,
    }
}

fn unconfirmed(s: &Symptoms) -> Finding {
    let (unmatched, beside) = (&s.traffic.unmatched, s.traffic.old.count);
    if beside > 0 {
        let text = format!(
            "No delivery has verified under the adopted secret, and {} verified under another one that the keystore holds: \
             DialNexa probably has that one. Nothing is lost, since both are accepted, and nothing rotates by itself. A \
             rotation leaves one secret: `hookturn rotate-now NAME --unconfirmed`.",
            many(beside)
        );
        return finding("unconfirmed", true, text);
    }
    let seen = match unmatched.tally.count {
        0 => "No delivery has verified under the adopted secret yet.".to_owned(),
        count => format!(
            "No delivery has verified under the adopted secret, and {} verified under none ({}): it may be the wrong one.",
            many(count),
            strangers(unmatched.reasons.iter().map(|(reason, count)| (reason.name(), *count)), &unmatched.newest),
        ),
    };
    let text = format!("{seen} A rotation asks for --unconfirmed until one has; a real call is the quickest proof.");
    finding("unconfirmed", false, text)
}

fn provider_unreachable(s: &Symptoms) -> Option<Finding> {
    let trouble = s.provider_trouble?;
    let text = format!("DialNexa cannot be reached: {trouble}. It is tried again; whatever it may sign with stays accepted.");
    Some(finding("provider-unreachable", false, text))
}

fn unanswered(s: &Symptoms) -> Option<Finding> {
    let (class, answer) = s.last_answer?;
    let text = format!(
        "DialNexa has given no clear answer (the last one: {class}: {answer}). The secret may be in force, or may be yet: both \
         stay accepted and the same value is sent again. A delivery signed with it settles the matter."
    );
    Some(finding("ambiguous", false, text))
}

fn awaiting(s: &Symptoms) -> Option<Finding> {
    let (target, old, unmatched) = (s.traffic.target, s.traffic.old, &s.traffic.unmatched);
    let strange = unmatched.tally.count - unmatched.external;
    match () {
        () if both(s) => Some(mixed(s)),
        () if !s.doors.0.is_empty() && !s.doors.1.is_empty() => Some(missing(&s.doors.0, &s.doors.1)),
        () if target.count > 0 => None,
        () if old.count > 0 => {
            let text = format!(
                "DialNexa answered 200, and {} came since, still signed with the old secret. The PATCH is repeated, soon and \
                 then more rarely; both secrets stay accepted. If it lasts, DialNexa does not apply the change: try \
                 `supersede`, and ask DialNexa.",
                many_new(old.count)
            );
            Some(finding("still-old", false, text))
        }
        () if strange > 0 => {
            let text = format!(
                "{} verified under no known secret since the newest genuine one ({}), and none under the new one. Another \
                 webhook may post to the same URL, a mirror may change the bytes, or the secret at DialNexa is a third one. \
                 Nothing is concluded from it, because anybody can send such deliveries; both secrets stay accepted. {}",
                many(strange),
                strangers(unmatched.reasons.iter().map(|(reason, count)| (reason.name(), *count)), &unmatched.newest),
                pattern(s)
            );
            Some(finding("neither", false, text))
        }
        () if s.traffic.age(s.now) < QUIET_MS => None,
        () => {
            let text = format!(
                "No delivery came since DialNexa answered 200. {} Both secrets stay accepted, and it can stay like this. A real \
                 call ends it.",
                pattern(s)
            );
            Some(finding("no-traffic", false, text))
        }
    }
}

fn missing(shown: &[Door], wanted: &[Door]) -> Finding {
    let named = |doors: &[Door]| doors.iter().map(|door| door.name()).collect::<Vec<_>>().join(" and ");
    let text = format!(
        "Deliveries under the new secret were shown by {}, and `verify.require` also asks for {}, which has shown none. Both \
         secrets stay accepted until then. Look at what feeds that door, or ask for less.",
        named(shown),
        named(wanted)
    );
    finding("door-missing", false, text)
}

/// The old one came after the new one had.
fn both(s: &Symptoms) -> bool {
    let (target, old) = (s.traffic.target, s.traffic.old);
    target.count > 0 && old.count > 0 && old.last > target.first
}

fn mixed(s: &Symptoms) -> Finding {
    let text = format!(
        "New deliveries come under both secrets: {} under the new one, {} under the old one after it. DialNexa has not switched \
         everywhere, or somebody sends the old value again. Both stay accepted; the PATCH is repeated, and the wait for the old \
         ones to end starts over with each of them.",
        s.traffic.target.count, s.traffic.old.count
    );
    finding("mixed", false, text)
}

/// `The last delivery was 3 h ago, usually one comes every 40 min.`
fn pattern(s: &Symptoms) -> String {
    let last = s.rhythm.last.and_then(|last| u64::try_from(s.now - last).ok());
    match (last, s.rhythm.usual()) {
        (None, _) => "None was ever seen.".to_owned(),
        (Some(ago), None) => format!("The last one came {} ago.", span(ago)),
        (Some(ago), Some(usual)) => format!(
            "The last one came {} ago, usually one comes every {}; a silence of more than {} would be unusual.",
            span(ago),
            span(usual),
            span(s.rhythm.patience())
        ),
    }
}

fn tap_silent(s: &Symptoms) -> Option<Finding> {
    let past = s.traffic.past_the_tap;
    let silent = s.tapped && past.count >= TAP_SILENT_AFTER && s.now - past.first > TAP_SILENT_MS;
    silent.then(|| {
        let text = format!(
            "The consumer has counted {} since {} ago, and the tap has shown nothing: the mirror is broken, or points \
             elsewhere. Deliveries are not affected. What the consumer says still counts, unless `verify.require` asks for the \
             tap. Look at the mirror's location in the proxy, and at its error log.",
            many(past.count),
            span(u64::try_from(s.now - past.first).unwrap_or(0))
        );
        finding("tap-silent", false, text)
    })
}

fn external(s: &Symptoms) -> Option<Finding> {
    let (tally, newest) = s.traffic.external.as_ref().filter(|(tally, _)| s.now - tally.last < SHOWN_MS)?;
    let text = format!(
        "{} came from DialNexa's dashboard webhook, by the look of it ({}; bare hex in x-dialnexa-signature). It is signed with the organisation's \
         secret, which DialNexa's API cannot change: hookturn neither verifies nor rotates it. Give it another URL, or let the \
         consumer check it under the organisation's secret.",
        capital(&many(tally.count)),
        source(newest),
    );
    Some(finding("external-plane", false, text))
}

fn tripped(s: &Symptoms) -> Option<Finding> {
    let trip = s.trip.filter(|trip| s.now - trip.at < SHOWN_MS)?;
    let what = match trip.new_bodies {
        0 => {
            "Its body was seen before: a late retry, or a copy that somebody sends again. If late retries are to be let in, \
             `reaccept`."
        }
        _ => {
            "The body is a new one: a first try that was very late, or somebody else holds the retired secret. If it goes on, \
             find out who."
        }
    };
    let text = format!(
        "{} came signed with the retired {}, the last one {} ago through the {} door ({}). It is recognised and refused. {what}",
        capital(&many(trip.count)),
        trip.kid,
        span(u64::try_from(s.now - trip.at).unwrap_or(0)),
        trip.door,
        told(&trip.detail),
    );
    Some(finding("retired-key-seen", trip.new_bodies > 0, text))
}

fn many(count: u64) -> String {
    if count == 1 { "one delivery".to_owned() } else { format!("{count} deliveries") }
}

fn many_new(count: u64) -> String {
    if count == 1 { "one new delivery".to_owned() } else { format!("{count} new deliveries") }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// `7 mismatch, 1 no_signature; the last from 10.0.0.9, user agent curl/8`
fn strangers<'a>(reasons: impl Iterator<Item = (&'a str, u64)>, newest: &Facts) -> String {
    let counted: Vec<String> = reasons.map(|(reason, count)| format!("{count} {reason}")).collect();
    format!("{}; the last {}", counted.join(", "), source(newest))
}

fn source(facts: &Facts) -> String {
    let peer = facts.peer.map_or_else(|| "from an unknown address".to_owned(), |peer| format!("from {peer}"));
    let agent = facts.user_agent.as_deref().map(|agent| format!(", user agent {agent}")).unwrap_or_default();
    let event = facts.event.as_deref().map(|event| format!(", event {event}")).unwrap_or_default();
    format!("{peer}{agent}{event}")
}

/// What the detail of a sighting says of where it came from.
pub fn told(detail: &serde_json::Value) -> String {
    let names = [("peer", "from"), ("user_agent", "user agent"), ("event", "event"), ("replica", "replica")];
    let known = names.iter().filter_map(|(key, word)| Some(format!("{word} {}", detail.get(key)?.as_str()?)));
    let known: Vec<String> = known.collect();
    if known.is_empty() { "from an unknown address".to_owned() } else { known.join(", ") }
}

#[cfg(test)]
mod tests;
