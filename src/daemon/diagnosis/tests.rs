use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::{config::Door, daemon::traffic::Look, evidence::Reason};

const NOW: i64 = 1_000_000_000;

fn kid(name: &str) -> Kid {
    Kid::parse(name).expect("kid")
}

/// What came through the doors, told in order. Everything began a minute ago.
#[derive(Default)]
struct Case {
    traffic: Traffic,
    rhythm: Rhythm,
    trip: Option<Trip>,
}

impl Case {
    fn new() -> Case {
        let mut case = Case::default();
        case.traffic.begin(NOW - 60_000);
        case
    }

    fn seen(mut self, door: Door, signed: Signed, count: i64, ago: i64, accepted: Option<bool>) -> Case {
        for nth in 0..count {
            let at = NOW - ago + nth * 1_000;
            let look = Look { kid: kid("k"), signed, door, new_body: true, accepted, at };
            self.traffic.verified(look, Some("web-1"));
            if signed != Signed::Retired {
                self.rhythm.beat(at);
            }
        }
        self
    }

    fn strangers(mut self, count: u64, agent: &str, header: &'static str, prefixed: bool) -> Case {
        let facts = Facts {
            peer: Some(IpAddr::from([192, 0, 2, 7])),
            user_agent: Some(agent.to_owned()),
            header: Some(header),
            prefixed,
            ..Facts::default()
        };
        (0..count).for_each(|_| self.traffic.unverified(Door::Tap, Reason::Mismatch, &facts, NOW));
        self
    }

    fn forged(self, count: u64) -> Case {
        self.strangers(count, "curl/8", "x-nexa-signature", true)
    }

    fn words(&self, stage: Stage) -> Vec<String> {
        self.told(stage, |_| {}).into_iter().map(|finding| finding.word).collect()
    }

    fn told(&self, stage: Stage, tune: impl FnOnce(&mut Symptoms)) -> Vec<Finding> {
        let mut symptoms = Symptoms {
            now: NOW,
            stage,
            current: Some(kid("cur")),
            target: (!matches!(stage, Stage::Idle { .. })).then(|| kid("new")),
            switched_back: false,
            losses: 0,
            generation: 7,
            keystore_trouble: None,
            provider_trouble: None,
            last_answer: None,
            laggards: Vec::new(),
            no_replica: false,
            doors: (Vec::new(), Vec::new()),
            tapped: true,
            traffic: &self.traffic,
            rhythm: &self.rhythm,
            trip: self.trip.as_ref(),
        };
        tune(&mut symptoms);
        diagnose(&symptoms)
    }
}

const IDLE: Stage = Stage::Idle { confirmed: true };
const WAITS: Stage = Stage::Patch { answered: true, waits: true };
const UNANSWERED: Stage = Stage::Patch { answered: false, waits: false };

use Door::{Keystore, Report, Tap};
use Signed::{Current, Other, Retired, Target};

#[test]
fn what_the_traffic_says_while_the_switch_is_awaited() {
    let cases: [(&str, Case, &[&str]); 9] = [
        ("silence", Case::new(), &["no-traffic"]),
        ("the old one only", Case::new().seen(Report, Current, 2, 20_000, Some(true)), &["still-old"]),
        ("one left by a supersede", Case::new().seen(Report, Other, 1, 20_000, Some(true)), &["still-old"]),
        ("signed before the answer, a little late", Case::new().seen(Report, Current, 1, 59_500, Some(true)), &["no-traffic"]),
        ("the counters are further behind", Case::new().seen(Keystore, Current, 1, 57_500, Some(true)), &["no-traffic"]),
        ("under no key", Case::new().forged(2), &["neither"]),
        ("the new one, more is asked for", Case::new().seen(Tap, Target, 1, 20_000, None), &[]),
        ("both, in turns", Case::new().seen(Tap, Target, 1, 20_000, None).seen(Tap, Current, 2, 10_000, None), &["mixed"]),
        (
            "the old one, then the new one",
            Case::new().seen(Tap, Current, 2, 20_000, None).seen(Tap, Target, 1, 10_000, None),
            &[],
        ),
    ];
    for (what, case, words) in cases {
        assert_eq!(case.words(WAITS), words, "{what}");
        assert_eq!(case.words(Stage::Push), <[&str; 0]>::default(), "{what}: nothing is concluded before the PATCH");
    }
}

#[test]
fn right_after_the_answer_silence_is_no_finding() {
    let mut case = Case::new();
    case.traffic.begin(NOW - 1_000);
    assert!(case.words(WAITS).is_empty());
}

#[test]
fn without_a_clear_answer_it_says_what_is_known_of_it() {
    let case = Case::new();
    assert!(case.words(UNANSWERED).is_empty());
    let told = case.told(UNANSWERED, |s| s.last_answer = Some(("ambiguous", "no answer within 10 s")));
    assert_eq!(told[0].word, "ambiguous");
    assert!(told[0].text.contains("no answer within 10 s"));
    let told = case.told(UNANSWERED, |s| s.provider_trouble = Some("connection refused"));
    assert_eq!(told[0].word, "provider-unreachable");
}

#[test]
fn what_a_consumer_refused_is_told_in_every_phase() {
    let refused = |signed| Case::new().seen(Report, signed, 1, 20_000, Some(false));
    for (stage, signed) in [(WAITS, Target), (Stage::Hold(Hold::RejectedByConsumer), Target), (IDLE, Current)] {
        let told = refused(signed).told(stage, |_| {});
        assert_eq!(told[0].word, "rejected-by-consumer", "{stage:?}");
        assert!(told[0].text.contains("web-1") && told[0].person, "{}", told[0].text);
    }
    let told = Case::new().told(Stage::Hold(Hold::RejectedByConsumer), |_| {});
    assert_eq!(told[0].word, "rejected-by-consumer", "also after a restart has forgotten the delivery");
    assert!(refused(Retired).words(IDLE).is_empty(), "that is what it should do");
}

#[test]
fn a_tap_that_is_silent_while_the_consumer_counts() {
    let counted = || Case::new().seen(Report, Current, 6, 20_000, Some(true));
    assert_eq!(counted().words(IDLE), ["tap-silent"]);
    assert!(counted().told(IDLE, |s| s.tapped = false).is_empty(), "nobody has set one up");
    assert!(counted().seen(Tap, Current, 1, 1_000, None).words(IDLE).is_empty());
    assert!(Case::new().seen(Report, Current, 6, 4_000, Some(true)).words(IDLE).is_empty(), "it may be behind");
}

#[test]
fn doors_that_contradict_each_other_are_not_averaged() {
    let case = Case::new().seen(Report, Target, 20, 30_000, Some(true)).seen(Tap, Current, 20, 30_000, None);
    let told = case.told(Stage::Drain, |_| {});
    assert_eq!(told[0].word, "doors-disagree");
    assert!(told[0].text.contains("report") && told[0].text.contains("tap"), "{}", told[0].text);
    let switched = Case::new().seen(Tap, Current, 5, 40_000, None).seen(Report, Target, 5, 30_000, Some(true));
    assert!(!switched.words(Stage::Drain).contains(&"doors-disagree".to_owned()), "one after the other is a switch");
}

#[test]
fn replicas_are_named_with_their_answers() {
    let cases = [
        (Verdict::DoesNotVerify, "consumer-does-not-verify"),
        (Verdict::Inconclusive, "probe-inconclusive"),
        (Verdict::Refuses, "replica-lags"),
        (Verdict::Unreachable, "replica-unreachable"),
    ];
    for (verdict, word) in cases {
        let laggard =
            Laggard { name: "http://a/hook".into(), verdict: Some(verdict), answer: "random 200".into(), vanished: false };
        let told = Case::new().told(Stage::Push, |s| s.laggards = vec![laggard]);
        assert_eq!(told.iter().map(|f| f.word.as_str()).collect::<Vec<_>>(), [word]);
        assert!(told[0].text.contains("http://a/hook (random 200)"));
    }
    let asked = Laggard { name: "a".into(), verdict: None, answer: String::new(), vanished: false };
    assert!(Case::new().told(Stage::Push, |s| s.laggards = vec![asked]).is_empty(), "it has not answered yet");
    let gone = Laggard { name: "a".into(), verdict: Some(Verdict::Unreachable), answer: String::new(), vanished: true };
    assert_eq!(Case::new().told(Stage::Push, |s| s.laggards = vec![gone])[0].word, "replica-vanished");
    assert_eq!(Case::new().told(Stage::Push, |s| s.no_replica = true)[0].word, "no-replica");
}

#[test]
fn somebody_else_at_the_keystore() {
    let case = Case::new();
    assert!(case.told(Stage::Hold(Hold::KeystoreContested), |_| {})[0].person);
    let once = case.told(Stage::Push, |s| s.losses = 1);
    assert_eq!((once[0].word.as_str(), once[0].person), ("keystore-contested", false));
    let mut idle = Case::new();
    idle.traffic.loaded = 8;
    assert_eq!(idle.words(IDLE), ["keystore-contested"]);
    idle.traffic.loaded = 7;
    assert!(idle.words(IDLE).is_empty());
    idle.traffic.keystore_foreign = true;
    assert_eq!(idle.words(IDLE), ["keystore-contested"]);
    let told = case.told(Stage::Push, |s| s.keystore_trouble = Some("permission denied"));
    assert_eq!(told[0].word, "keystore-unreachable");
}

/// Between rotations: genuine deliveries every second until half a minute ago.
fn steady() -> Case {
    Case::new().seen(Tap, Current, 10, 40_000, None)
}

#[test]
fn what_anybody_can_forge_needs_genuine_deliveries_to_stay_away() {
    assert_eq!(steady().forged(3).words(IDLE), ["changed-by-hand"]);
    assert!(steady().forged(3).told(IDLE, |_| {})[0].person);
    assert!(steady().forged(2).words(IDLE).is_empty(), "too few");
    let mut at_night = Case::new().forged(50);
    let night = 8 * 3_600_000;
    (0..60).for_each(|minute| at_night.rhythm.beat(NOW - 3_600_000 - 2 * night + minute * 60_000));
    (0..=60).for_each(|minute| at_night.rhythm.beat(NOW - 7_200_000 + minute * 60_000));
    let told = at_night.told(IDLE, |_| {});
    assert_eq!((told[0].word.as_str(), told[0].person), ("changed-by-hand", false), "such a silence is usual: nobody is woken");
    assert!(steady().words(IDLE).is_empty(), "silence alone");
    let traffic_goes_on = steady().forged(50).seen(Tap, Current, 1, 0, None);
    assert!(traffic_goes_on.words(IDLE).is_empty());
    assert!(Case::new().forged(50).words(IDLE).is_empty(), "nothing genuine is known to be missing");
    let mut retried = steady().forged(3);
    let look = Look { kid: kid("gone"), signed: Signed::Retired, door: Tap, new_body: false, accepted: None, at: NOW };
    retried.traffic.verified(look, None);
    assert_eq!(retried.words(IDLE), ["changed-by-hand"], "a late retry of what was signed long ago changes nothing");
    let mut both = steady().forged(3);
    both.traffic.loaded = 8;
    assert_eq!(both.words(IDLE), ["keystore-contested", "second-orchestrator"]);
}

fn trip(new_bodies: u64) -> Trip {
    let detail = serde_json::json!({ "peer": "192.0.2.9", "user_agent": "x/1", "event": "call.completed" });
    Trip { kid: kid("gone"), first: NOW - 9_000, at: NOW - 5_000, count: 3, new_bodies, door: "tap".into(), detail }
}

#[test]
fn a_retired_secret_is_named_with_its_source_and_told_from_a_restored_provider() {
    let copies = Case { trip: Some(trip(0)), ..steady() }.told(IDLE, |_| {});
    assert_eq!((copies[0].word.as_str(), copies[0].person), ("retired-key-seen", false));
    for part in ["3 deliveries", "gone", "192.0.2.9", "x/1", "call.completed", "tap door"] {
        assert!(copies[0].text.contains(part) || copies[0].text.contains(&capital(part)), "{part}: {}", copies[0].text);
    }
    let among_traffic = Case { trip: Some(trip(3)), ..steady() };
    let among_traffic = among_traffic.seen(Tap, Retired, 3, 5_000, None).seen(Tap, Current, 1, 0, None);
    let told = among_traffic.told(IDLE, |_| {});
    assert_eq!((told[0].word.as_str(), told[0].person, told.len()), ("retired-key-seen", true, 1));
    let instead = Case { trip: Some(trip(3)), ..steady() }.seen(Tap, Retired, 3, 5_000, None);
    assert_eq!(instead.words(IDLE), ["signs-with-retired", "retired-key-seen"]);
    let old = Case { trip: Some(Trip { at: NOW - SHOWN_MS, ..trip(3) }), ..steady() };
    assert!(old.words(IDLE).is_empty(), "a day later it is history");
}

#[test]
fn the_dashboards_webhook_is_recognised_and_is_not_neither() {
    let external = || Case::new().strangers(5, "DialNexa-External-Webhook/1.0", "x-dialnexa-signature", false);
    assert_eq!(external().words(WAITS), ["no-traffic", "external-plane"]);
    assert_eq!(external().words(IDLE), ["external-plane"]);
    let prefixed = Case::new().strangers(5, "DialNexa-External-Webhook/1.0", "x-dialnexa-signature", true);
    assert_eq!(prefixed.words(WAITS), ["neither"]);
    let unsigned = Case::new().strangers(5, "something else", "x-dialnexa-signature", false);
    assert_eq!(unsigned.words(WAITS), ["neither"]);
}

#[test]
fn an_adopted_secret_that_nothing_verifies_under() {
    let stage = Stage::Idle { confirmed: false };
    assert_eq!(Case::new().words(stage), ["unconfirmed"]);
    let told = Case::new().forged(4).told(stage, |_| {});
    assert!(told[0].text.contains("4 deliveries") && told[0].text.contains("may be the wrong one"), "{}", told[0].text);
    let told = Case::new().seen(Door::Report, Signed::Other, 4, 5_000, Some(true)).told(stage, |_| {});
    assert_eq!((told[0].word.as_str(), told[0].person), ("unconfirmed", true));
    assert!(told[0].text.contains("4 deliveries") && told[0].text.contains("--unconfirmed"), "{}", told[0].text);
}

#[test]
fn silence_is_told_with_the_webhooks_own_pattern() {
    let mut case = Case::new();
    (0..5).for_each(|nth| case.rhythm.beat(NOW - 11_000_000 - (5 - nth) * 2_400_000));
    let told = case.told(WAITS, |_| {});
    assert!(told[0].text.contains("usually one comes every 40 min"), "{}", told[0].text);
    assert!(told[0].text.contains("3 h 43 min ago"), "{}", told[0].text);
}

#[test]
fn every_word_is_in_the_list_and_every_paragraph_is_one() {
    let cases =
        [steady().forged(3), Case::new(), Case::new().seen(Tap, Target, 1, 20_000, None).seen(Tap, Current, 2, 9_000, None)];
    for case in &cases {
        for stage in [IDLE, Stage::Push, WAITS, UNANSWERED, Stage::Drain, Stage::Shrink, Stage::Hold(Hold::RejectedByConsumer)] {
            for finding in case.told(stage, |_| {}) {
                assert!(WORDS.contains(&finding.word.as_str()), "{}", finding.word);
                assert!(
                    finding.text.ends_with('.') && !finding.text.contains(['\n', '{']) && !finding.text.contains("  "),
                    "{}",
                    finding.text
                );
            }
        }
    }
}

proptest! {
    /// A bad signature alone: no person is called for what anybody can send, whatever it looks like and however often it comes.
    #[test]
    fn no_person_is_called_for_what_anybody_can_send(
        junk in 0..200u64,
        external in 0..50u64,
        stage in prop::sample::select(vec![IDLE, Stage::Push, WAITS, UNANSWERED, Stage::Drain, Stage::Shrink]),
        genuine in any::<bool>(),
    ) {
        let case = if genuine { Case::new().seen(Tap, Target, 5, 4_000, None) } else { Case::new() };
        let case = case.forged(junk).strangers(external, "DialNexa-External-Webhook/1.0", "x-dialnexa-signature", false);
        for finding in case.told(stage, |_| {}) {
            prop_assert!(!finding.person, "{stage:?}: {}", finding.word);
        }
    }
}
