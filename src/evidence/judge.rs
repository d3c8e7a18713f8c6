use serde::{Deserialize, Serialize};

use crate::{rotation::Verdict, secret::Kid};

/// What one replica answered to a probe. `Some(None)` or `None` in the place of a status: it was asked and gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answers {
    /// A random key was asked too, so that a right key can be told from a wrong one.
    Full {
        random: Option<u16>,
        /// The key that is known to be right, where there is one.
        control: Option<Option<u16>>,
        target: Option<u16>,
        /// The target a second time, where there is no control: an answer that does not repeat itself tells nothing.
        again: Option<Option<u16>>,
        removed: Vec<(Kid, Option<u16>)>,
    },
    /// The target alone.
    Look { target: Option<u16> },
}

/// What a full probe found out about a replica, for the looks after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// The status that a random key gets.
    pub random: u16,
    /// The status that a right key gets.
    pub right: u16,
}

/// What the answers of one replica mean. Never `Accepts` in doubt.
///
/// `learned` counts for a look only: a full probe brings its own controls.
pub fn judge(answers: &Answers, learned: Option<&Learned>) -> Verdict {
    match answers {
        Answers::Look { target } => judge_look(*target, learned),
        Answers::Full { random, control, target, again, removed } => {
            let others = control.iter().chain(again).copied().chain(removed.iter().map(|(_, status)| *status));
            let mut statuses = Vec::with_capacity(4);
            for status in [*random, *target].into_iter().chain(others) {
                match status {
                    Some(status) => statuses.push(status),
                    None => return Verdict::Unreachable,
                }
            }
            let (random, target) = (statuses[0], statuses[1]);
            if is_success(random) {
                return Verdict::DoesNotVerify;
            }
            if let Some(verdict) = statuses.iter().find_map(|status| says_nothing(*status)) {
                return verdict;
            }
            let verdict = judge_target(random, control.flatten(), target);
            if verdict != Verdict::Accepts {
                return verdict;
            }
            if again.flatten().is_some_and(|again| again != target) {
                return Verdict::Inconclusive;
            }
            let removed: Vec<u16> = removed.iter().filter_map(|(_, status)| *status).collect();
            if are_gone(random, &removed) { Verdict::Accepts } else { Verdict::Refuses }
        }
    }
}

fn judge_target(random: u16, control: Option<u16>, target: u16) -> Verdict {
    match control {
        // The replica tells keys apart, and takes the target for a wrong one.
        Some(control) if target == random && control != random => Verdict::Refuses,
        None if is_refusal(target) => Verdict::Refuses,
        _ if target == random => Verdict::Inconclusive,
        _ if is_refusal(target) => Verdict::Refuses,
        // It takes the key that is known to be right for a wrong one: whatever it means, it is not as it should be.
        Some(control) if control == random || !alike(control, target) => Verdict::Inconclusive,
        // A consumer that fails at everything, in different ways.
        None if is_server_error(random) && is_server_error(target) => Verdict::Inconclusive,
        _ => Verdict::Accepts,
    }
}

/// Whether removed keys are refused: as a random key is, or outright. All in one way, because the first of them may have
/// made a consumer lock its door, and what came after tells nothing of the keys then.
fn are_gone(random: u16, removed: &[u16]) -> bool {
    let refused = |status: u16| status == random || is_refusal(status);
    removed.iter().all(|status| refused(*status) && Some(status) == removed.first())
}

fn judge_look(target: Option<u16>, learned: Option<&Learned>) -> Verdict {
    let Some(target) = target else { return Verdict::Unreachable };
    if let Some(verdict) = says_nothing(target) {
        return verdict;
    }
    match learned {
        _ if is_refusal(target) => Verdict::Refuses,
        Some(learned) if target == learned.random => Verdict::Refuses,
        Some(learned) if target == learned.right => Verdict::Accepts,
        Some(learned) if is_success(target) && is_success(learned.right) => Verdict::Accepts,
        _ => Verdict::Inconclusive,
    }
}

/// Answers that come from something in front of the consumer, or from before it looked at the signature.
fn says_nothing(status: u16) -> Option<Verdict> {
    match status {
        502..=504 => Some(Verdict::Unreachable),
        429 => Some(Verdict::Inconclusive),
        _ => None,
    }
}

/// The same status, or the same kind: a consumer may answer one right key with 200 and the next with 202.
fn alike(one: u16, other: u16) -> bool {
    one == other || (one / 100 == other / 100 && !is_refusal(one) && !is_refusal(other))
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

fn is_refusal(status: u16) -> bool {
    matches!(status, 401 | 403)
}

fn is_server_error(status: u16) -> bool {
    status >= 500
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Accepts, DoesNotVerify, Inconclusive, Refuses, Unreachable};

    fn full(random: u16, control: u16, target: u16) -> Verdict {
        judge(&answers(random, Some(control), target, &[]), None)
    }

    fn alone(random: u16, target: u16, removed: &[u16]) -> Verdict {
        judge(&answers(random, None, target, removed), None)
    }

    /// 0 stands for no answer.
    fn answers(random: u16, control: Option<u16>, target: u16, removed: &[u16]) -> Answers {
        let status = |status| (status != 0).then_some(status);
        let kid = Kid::parse("k_removed").expect("kid");
        Answers::Full {
            random: status(random),
            control: control.map(status),
            target: status(target),
            again: control.is_none().then(|| status(target)),
            removed: removed.iter().map(|removed| (kid, status(*removed))).collect(),
        }
    }

    #[test]
    fn with_a_control() {
        for (random, control, target, verdict, why) in [
            (401, 400, 400, Accepts, "verifies, then parses"),
            (401, 200, 200, Accepts, "verifies, and takes anything"),
            (401, 200, 202, Accepts, "one kind of answer"),
            (401, 500, 500, Accepts, "falls over what it cannot parse, after verifying"),
            (500, 400, 400, Accepts, "answers a wrong key with 500"),
            (500, 200, 200, Accepts, "answers a wrong key with 500"),
            (400, 422, 422, Accepts, "answers a wrong key with 400"),
            (404, 400, 400, Accepts, "answers a wrong key with 404"),
            (401, 400, 401, Refuses, "has not taken the target over"),
            (500, 200, 500, Refuses, "has not taken the target over"),
            (400, 200, 400, Refuses, "has not taken the target over"),
            (401, 200, 403, Refuses, "refuses in another way"),
            (400, 400, 400, Inconclusive, "parses, then verifies"),
            (401, 401, 401, Inconclusive, "asks everybody to log in, or has no key at all"),
            (302, 302, 302, Inconclusive, "redirects"),
            (500, 500, 500, Inconclusive, "is broken"),
            (401, 401, 200, Inconclusive, "has the target and not the current secret"),
            (401, 400, 500, Inconclusive, "another kind of answer"),
            (401, 403, 400, Inconclusive, "another kind of answer"),
            (401, 200, 302, Inconclusive, "another kind of answer"),
            (200, 200, 200, DoesNotVerify, "takes anything"),
            (204, 401, 401, DoesNotVerify, "takes a random key"),
            (200, 503, 503, DoesNotVerify, "takes a random key"),
            (0, 400, 400, Unreachable, "no answer"),
            (401, 0, 400, Unreachable, "no answer"),
            (401, 400, 0, Unreachable, "no answer"),
            (200, 200, 0, Unreachable, "no answer"),
            (502, 502, 502, Unreachable, "a proxy with nothing behind it"),
            (401, 200, 503, Unreachable, "overloaded"),
            (401, 504, 200, Unreachable, "overloaded"),
            (401, 400, 429, Inconclusive, "limits the rate"),
            (429, 400, 400, Inconclusive, "limits the rate"),
        ] {
            assert_eq!(full(random, control, target), verdict, "{random} {control} {target}: {why}");
        }
    }

    #[test]
    fn without_a_control() {
        for (random, target, removed, verdict, why) in [
            (401, 400, &[401][..], Accepts, "the old key is gone"),
            (401, 200, &[], Accepts, "nothing to refuse"),
            (401, 500, &[401], Accepts, "falls over what it cannot parse, twice the same"),
            (500, 200, &[500], Accepts, "answers a wrong key with 500"),
            (500, 400, &[500], Accepts, "answers a wrong key with 500"),
            (401, 400, &[400], Refuses, "still accepts the old key"),
            (401, 400, &[401, 400], Refuses, "still accepts one of the old keys"),
            (404, 400, &[401], Accepts, "the old key is gone, and the door locked behind it"),
            (404, 400, &[401, 404], Refuses, "the door was locked before the second old key"),
            (404, 400, &[404, 404], Accepts, "answers a wrong key with 404"),
            (401, 401, &[401], Refuses, "accepts nothing"),
            (403, 403, &[], Refuses, "accepts nothing"),
            (500, 401, &[500], Refuses, "refuses"),
            (400, 400, &[400], Inconclusive, "parses, then verifies"),
            (500, 501, &[500], Inconclusive, "is broken"),
            (200, 200, &[200], DoesNotVerify, "takes anything"),
            (401, 400, &[0], Unreachable, "no answer"),
            (401, 400, &[503], Unreachable, "overloaded"),
        ] {
            assert_eq!(alone(random, target, removed), verdict, "{random} {target} {removed:?}: {why}");
        }
    }

    #[test]
    fn an_answer_that_does_not_repeat_itself_tells_nothing() {
        let again = |again| Answers::Full { random: Some(401), control: None, target: Some(500), again, removed: Vec::new() };
        assert_eq!(judge(&again(Some(Some(500))), None), Accepts);
        assert_eq!(judge(&again(Some(Some(401))), None), Inconclusive);
        assert_eq!(judge(&again(Some(None)), None), Unreachable);
    }

    #[test]
    fn a_look() {
        let learned = |random, right| Some(Learned { random, right });
        for (known, target, verdict) in [
            (learned(401, 400), 400, Accepts),
            (learned(401, 200), 204, Accepts),
            (learned(401, 400), 401, Refuses),
            (learned(401, 400), 403, Refuses),
            (learned(500, 200), 500, Refuses),
            (learned(401, 400), 422, Inconclusive),
            (learned(401, 400), 500, Inconclusive),
            (learned(401, 400), 200, Inconclusive),
            (learned(401, 400), 429, Inconclusive),
            (learned(401, 400), 503, Unreachable),
            (learned(401, 400), 0, Unreachable),
            (None, 200, Inconclusive),
            (None, 401, Refuses),
            (None, 0, Unreachable),
        ] {
            let target = (target != 0).then_some(target);
            assert_eq!(judge(&Answers::Look { target }, known.as_ref()), verdict, "{known:?} {target:?}");
        }
    }

    #[test]
    fn a_key_is_never_accepted_on_the_answer_that_a_random_key_gets() {
        let statuses = [0, 200, 204, 302, 400, 401, 403, 404, 422, 429, 500, 502, 503];
        for random in statuses {
            for control in statuses {
                assert_ne!(full(random, control, random), Accepts);
                assert_ne!(full(random, control, 401), Accepts);
                assert_ne!(alone(random, random, &[]), Accepts);
                assert_ne!(alone(random, control, &[control]), Accepts);
            }
        }
    }
}
