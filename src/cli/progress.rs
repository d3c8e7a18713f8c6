//! Whether a rotation is where it was asked to be. Pure: a status in, a verdict out.

use clap::ValueEnum;
use serde::Serialize;

use crate::daemon::Status;

/// How far `rotate-now` is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// Every replica accepts the new secret
    Pushed,
    /// DialNexa has answered 200 to it
    Patched,
    /// Real deliveries signed with it were accepted
    Verified,
    /// The old secret is refused by every replica
    Retired,
}

impl Until {
    pub fn word(self) -> &'static str {
        match self {
            Until::Pushed => "pushed",
            Until::Patched => "patched",
            Until::Verified => "verified",
            Until::Retired => "retired",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Under way.
    Going,
    Reached,
    /// A person is needed.
    Held,
    /// Its target is now the previous secret: what was asked for will not come.
    TurnedBack,
    /// The rotation ended without having been completed.
    GivenUp,
}

/// `rotation` is the number that was asked about. Its last proof counts even where a later rotation has begun.
pub fn judge(status: &Status, rotation: u64, until: Until) -> Verdict {
    let ours = status.rotation == rotation;
    if status.completed >= rotation {
        return Verdict::Reached;
    }
    if !ours {
        return if status.rotation > rotation { Verdict::GivenUp } else { Verdict::Going };
    }
    match status.phase.as_str() {
        "hold" => Verdict::Held,
        "idle" | "abort" => Verdict::GivenUp,
        _ if matches!(status.cause.as_deref(), Some("rollback" | "switch-back")) => Verdict::TurnedBack,
        phase if reached(phase, status.patched, until) => Verdict::Reached,
        _ => Verdict::Going,
    }
}

fn reached(phase: &str, patched: bool, until: Until) -> bool {
    let verified = matches!(phase, "drain" | "retire");
    match until {
        Until::Pushed => phase == "patch" || verified,
        Until::Patched => patched || verified,
        Until::Verified => verified,
        Until::Retired => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: &str, patched: bool, completed: u64) -> Status {
        Status { phase: phase.into(), patched, completed, rotation: 4, ..Status::default() }
    }

    #[test]
    fn each_goal_is_reached_in_its_phase_and_every_later_one() {
        use Until::*;
        let cases = [
            (at("push", false, 3), [false, false, false, false]),
            (at("patch", false, 3), [true, false, false, false]),
            (at("patch", true, 3), [true, true, false, false]),
            (at("drain", false, 3), [true, true, true, false]),
            (at("retire", true, 3), [true, true, true, false]),
            (at("idle", true, 4), [true, true, true, true]),
        ];
        for (status, expected) in cases {
            for (until, expected) in [Pushed, Patched, Verified, Retired].into_iter().zip(expected) {
                let verdict = judge(&status, 4, until);
                assert_eq!(verdict == Verdict::Reached, expected, "{} {until:?}: {verdict:?}", status.phase);
            }
        }
    }

    #[test]
    fn a_rotation_that_turns_back_has_reached_nothing() {
        for cause in ["rollback", "switch-back"] {
            let status = Status { cause: Some(cause.into()), ..at("drain", true, 3) };
            assert_eq!(judge(&status, 4, Until::Verified), Verdict::TurnedBack);
        }
        let superseded = Status { cause: Some("supersede".into()), ..at("drain", true, 3) };
        assert_eq!(judge(&superseded, 4, Until::Verified), Verdict::Reached);
    }

    #[test]
    fn a_hold_and_an_abort_are_told_from_waiting() {
        assert_eq!(judge(&at("hold", true, 3), 4, Until::Pushed), Verdict::Held);
        assert_eq!(judge(&at("idle", false, 3), 4, Until::Pushed), Verdict::GivenUp);
        assert_eq!(judge(&at("abort", false, 3), 4, Until::Pushed), Verdict::GivenUp);
        let later = Status { rotation: 5, ..at("push", false, 3) };
        assert_eq!(judge(&later, 4, Until::Pushed), Verdict::GivenUp);
        assert_eq!(judge(&at("idle", false, 3), 5, Until::Pushed), Verdict::Going, "not begun yet");
    }
}
