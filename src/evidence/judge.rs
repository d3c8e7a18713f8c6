//! What the answers to a probe mean. Pure.
//!
//! Nothing is known of the consumer but its status codes, and consumers differ: a wrong signature gets 401, 403, 404, 400
//! or (Debian's `webhook`) 500; a right one under a body that cannot be parsed gets 400, 422, 500 or 200. So no status
//! means anything by itself, except that 401 and 403 are never an acceptance. What counts is whether the answers to the
//! right key differ from those to a random one.

use serde::{Deserialize, Serialize};

use crate::{rotation::Verdict, secret::Kid};

/// What a probe request is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The current secret, which the consumer is known to accept: what acceptance looks like.
    Control(Kid),
    /// The key in question.
    Target(Kid),
    /// A key that must not be accepted any more.
    Removed(Kid),
    /// A key that nobody has: what refusal looks like.
    Random,
}

/// How a replica answered one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// No connection, or it broke.
    Unreachable,
    TimedOut,
}

/// What a full probe found out of a replica, for the looks in between: how it answers to a right and to a random key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    pub right: u16,
    pub random: u16,
}

/// What a full probe has shown: with a random key, and for certain only with a control.
///
/// | the answers | verdict |
/// |---|---|
/// | none at all | unreachable |
/// | random: 2xx | does not verify |
/// | the target 401 or 403, the control not | refuses |
/// | the target like the random key, the control unlike it | refuses |
/// | the target like the random key, and no control that differs | inconclusive: it parses first, or it refuses everybody |
/// | the target like the control, unlike the random key | accepts |
/// | the control like the random key, the target unlike it | refuses: the current secret is not accepted any more |
/// | no control; the random key refused (4xx, 5xx), the target unlike it | accepts |
/// | and a removed key like the target | refuses: it accepts what it must not |
/// | anything else | inconclusive |
pub(super) fn judge(answers: &[(Role, Answer)]) -> (Verdict, Option<Learned>) {
    let all =
        |wanted: fn(&Role) -> bool| answers.iter().filter(move |(role, _)| wanted(role)).map(|(_, answer)| answer.telling());
    let random = all(|role| matches!(role, Role::Random)).next().flatten();
    let target = all(|role| matches!(role, Role::Target(_))).next().flatten();
    let control = all(|role| matches!(role, Role::Control(_))).next();
    if answers.iter().all(|(_, answer)| answer.telling().is_none()) {
        return (Verdict::Unreachable, None);
    }
    if random.is_some_and(|status| (200..300).contains(&status)) {
        return (Verdict::DoesNotVerify, None);
    }
    if target.is_some_and(is_refusal) && control.flatten().is_some_and(|status| !is_refusal(status)) {
        return (Verdict::Refuses, None);
    }
    let (Some(random), Some(target)) = (random, target) else { return (Verdict::Inconclusive, None) };
    let verdict = match control {
        None => judge_without_control(random, target),
        Some(None) => Verdict::Inconclusive,
        Some(Some(control)) => judge_with_control(random, control, target),
    };
    if verdict != Verdict::Accepts {
        return (verdict, None);
    }
    let removed: Vec<Option<u16>> = all(|role| matches!(role, Role::Removed(_))).collect();
    match judge_removed(random, target, &removed) {
        Verdict::Accepts => (Verdict::Accepts, Some(Learned { right: target, random })),
        other => (other, None),
    }
}

/// What a look has shown: one request with the target, next to what a full probe had learned.
pub(super) fn judge_look(answer: Answer, learned: Option<&Learned>) -> Verdict {
    match (answer.telling(), learned) {
        (None, _) => Verdict::Unreachable,
        (Some(401 | 403), _) => Verdict::Refuses,
        (Some(status), Some(learned)) if status == learned.right => Verdict::Accepts,
        (Some(status), Some(learned)) if status == learned.random => Verdict::Refuses,
        (Some(_), _) => Verdict::Inconclusive,
    }
}

fn judge_with_control(random: u16, control: u16, target: u16) -> Verdict {
    match (control == random, target == random) {
        (true, true) => Verdict::Inconclusive,
        (true, false) | (false, true) => Verdict::Refuses,
        (false, false) if target != control => Verdict::Inconclusive,
        // Right and random keys are both refused, each in its way: it is not the signature that is refused.
        (false, false) if is_refusal(target) => Verdict::Inconclusive,
        (false, false) => Verdict::Accepts,
    }
}

fn judge_without_control(random: u16, target: u16) -> Verdict {
    if target == random || random < 400 {
        Verdict::Inconclusive
    } else if is_refusal(target) {
        Verdict::Refuses
    } else {
        Verdict::Accepts
    }
}

fn judge_removed(random: u16, target: u16, removed: &[Option<u16>]) -> Verdict {
    if removed.contains(&Some(target)) {
        return Verdict::Refuses;
    }
    let gone = |answer: &Option<u16>| answer.is_some_and(|status| status == random || is_refusal(status));
    if removed.iter().all(gone) { Verdict::Accepts } else { Verdict::Inconclusive }
}

fn is_refusal(status: u16) -> bool {
    matches!(status, 401 | 403)
}

impl Answer {
    /// The status, if it is the consumer's own answer to the request: not "later" (408, 429) nor a proxy's "not now".
    fn telling(self) -> Option<u16> {
        match self {
            Answer::Status(408 | 425 | 429 | 502 | 503 | 504) | Answer::Unreachable | Answer::TimedOut => None,
            Answer::Status(status) => Some(status),
        }
    }
}

/// `current 400, target 401, random 401`: for a person, in the order of the requests.
pub(super) fn describe(answers: &[(Role, Answer)]) -> String {
    let each = answers.iter().map(|(role, answer)| {
        let answer = match answer {
            Answer::Status(status) => status.to_string(),
            Answer::Unreachable => "no connection".to_owned(),
            Answer::TimedOut => "no answer in time".to_owned(),
        };
        match role {
            Role::Control(_) => format!("current {answer}"),
            Role::Target(_) => format!("target {answer}"),
            Role::Removed(kid) => format!("removed {kid} {answer}"),
            Role::Random => format!("random {answer}"),
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kid(text: &str) -> Kid {
        Kid::parse(text).expect("a kid")
    }

    /// A status, or 0 for no answer.
    fn answer(status: u16) -> Answer {
        if status == 0 { Answer::TimedOut } else { Answer::Status(status) }
    }

    fn full(control: Option<u16>, target: u16, removed: &[u16], random: u16) -> Verdict {
        let mut answers = Vec::new();
        answers.extend(control.map(|status| (Role::Control(kid("x")), answer(status))));
        answers.push((Role::Target(kid("y")), answer(target)));
        answers.extend(removed.iter().map(|status| (Role::Removed(kid("r")), answer(*status))));
        answers.push((Role::Random, answer(random)));
        let (verdict, learned) = judge(&answers);
        let expected = (verdict == Verdict::Accepts).then_some(Learned { right: target, random });
        assert_eq!(learned, expected, "a class is learned exactly from an acceptance");
        verdict
    }

    #[test]
    fn with_a_control_the_target_must_be_like_it_and_unlike_a_random_key() {
        use Verdict::{Accepts, DoesNotVerify, Inconclusive, Refuses, Unreachable};
        for (control, target, random, expected, zoo) in [
            (400, 400, 401, Accepts, "verifies, then parses"),
            (400, 401, 401, Refuses, "verifies, then parses; has not loaded the target"),
            (400, 400, 400, Inconclusive, "parses, then verifies"),
            (200, 200, 200, DoesNotVerify, "always 200"),
            (202, 202, 204, DoesNotVerify, "always some 2xx"),
            (202, 202, 403, Accepts, "verifies, answers 202 with JSON"),
            (422, 422, 404, Accepts, "hides behind 404"),
            (422, 404, 404, Refuses, "hides behind 404; has not loaded the target"),
            (200, 200, 500, Accepts, "Debian's webhook: 500 for a wrong signature"),
            (200, 500, 500, Refuses, "Debian's webhook; has not loaded the target"),
            (500, 500, 401, Accepts, "dies of the body after verifying"),
            (500, 500, 500, Inconclusive, "dies of everything"),
            (404, 404, 404, Inconclusive, "the wrong path"),
            (401, 401, 401, Inconclusive, "wants another authentication"),
            (403, 403, 401, Inconclusive, "refuses both, one as banned"),
            (401, 400, 401, Refuses, "accepts the target only: the current one is refused"),
            (400, 422, 401, Inconclusive, "answers at random"),
            (400, 403, 401, Refuses, "the target is banned"),
            (302, 302, 302, Inconclusive, "sends everybody away"),
            (400, 400, 302, Accepts, "sends a wrong signature to a login"),
            (400, 400, 429, Inconclusive, "bans after some bad signatures"),
            (429, 429, 429, Unreachable, "has banned us"),
            (503, 503, 503, Unreachable, "is down behind a proxy"),
            (400, 503, 401, Inconclusive, "went down in between"),
            (400, 0, 401, Inconclusive, "lost the request that counts"),
            (0, 400, 401, Inconclusive, "lost the control"),
            (400, 401, 429, Refuses, "bans after one bad signature; has not loaded the target"),
            (400, 400, 0, Inconclusive, "drops a wrong signature, or is slow: not to be told apart"),
            (0, 0, 0, Unreachable, "is not there"),
            (0, 0, 200, DoesNotVerify, "slow, and takes anything"),
        ] {
            assert_eq!(full(Some(control), target, &[], random), expected, "{zoo}");
        }
    }

    #[test]
    fn without_a_control_the_random_key_must_be_refused_and_the_target_not() {
        use Verdict::{Accepts, DoesNotVerify, Inconclusive, Refuses};
        for (target, random, expected) in [
            (400, 401, Accepts),
            (200, 500, Accepts),
            (500, 401, Accepts),
            (401, 401, Inconclusive),
            (400, 400, Inconclusive),
            (401, 404, Refuses),
            (403, 401, Refuses),
            (400, 302, Inconclusive),
            (503, 401, Inconclusive),
            (400, 200, DoesNotVerify),
        ] {
            assert_eq!(full(None, target, &[], random), expected, "target {target}, random {random}");
        }
    }

    #[test]
    fn a_removed_key_must_be_refused_like_a_random_one() {
        use Verdict::{Accepts, Inconclusive, Refuses};
        for (removed, expected) in [
            (&[401][..], Accepts),
            (&[403, 401], Accepts),
            (&[400], Refuses),
            (&[401, 400], Refuses),
            (&[0, 400], Refuses),
            (&[0], Inconclusive),
            (&[429], Inconclusive),
            (&[500], Inconclusive),
        ] {
            assert_eq!(full(None, 400, removed, 401), expected, "{removed:?}");
            assert_eq!(full(Some(400), 400, removed, 401), expected, "{removed:?}, with a control");
        }
        assert_eq!(full(None, 401, &[401], 401), Inconclusive, "an acceptance of the target comes first");
    }

    #[test]
    fn a_look_accepts_only_what_a_full_probe_had_learned() {
        use Verdict::{Accepts, Inconclusive, Refuses, Unreachable};
        let learned = Learned { right: 400, random: 404 };
        for (status, with, without) in [
            (400, Accepts, Inconclusive),
            (404, Refuses, Inconclusive),
            (401, Refuses, Refuses),
            (200, Inconclusive, Inconclusive),
            (503, Unreachable, Unreachable),
            (0, Unreachable, Unreachable),
        ] {
            assert_eq!(judge_look(answer(status), Some(&learned)), with, "{status}");
            assert_eq!(judge_look(answer(status), None), without, "{status}, nothing learned");
        }
    }

    #[test]
    fn the_answers_read_as_one_line() {
        let answers = [
            (Role::Control(kid("x")), Answer::Status(400)),
            (Role::Target(kid("y")), Answer::TimedOut),
            (Role::Removed(kid("k_1")), Answer::Unreachable),
            (Role::Random, Answer::Status(401)),
        ];
        assert_eq!(describe(&answers), "current 400, target no answer in time, removed k_1 no connection, random 401");
    }
}
