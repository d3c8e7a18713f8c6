//! The columns of the table: everything that the provider does wrong, each once.

use rand::{RngExt, rngs::StdRng};

use crate::sandbox::provider::{Answer, Apply, Cut, Fault, Injection, LateAnswer, Operation};

/// One thing that goes wrong in a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The kind of the fault, as the provider's control API names it; empty: nothing goes wrong.
    kind: &'static str,
    on: Operation,
}

/// Every kind of fault, for a PATCH. A test holds this list against [`Fault`].
const KINDS: [&str; 20] = [
    "apply-then-drop",
    "drop-before-apply",
    "apply-late",
    "duplicate-late",
    "rate-limited",
    "error-after-apply",
    "error-before-apply",
    "unavailable",
    "lying-ok",
    "secret-ignored",
    "secret-truncated",
    "slow",
    "trickle",
    "garbage",
    "redirect",
    "value-refused",
    "unauthorized",
    "forbidden",
    "not-found",
    "custom",
];

/// Those that say something of their own where the webhook is only looked at: nobody there, not you, not that one.
const KINDS_OF_GET: [&str; 3] = ["unavailable", "unauthorized", "not-found"];

impl Trouble {
    pub(super) const NONE: Trouble = Trouble { kind: "", on: Operation::Patch };

    pub(super) fn all() -> impl Iterator<Item = Trouble> {
        let of = |on| move |kind| Trouble { kind, on };
        std::iter::once(Trouble::NONE)
            .chain(KINDS.into_iter().map(of(Operation::Patch)))
            .chain(KINDS_OF_GET.into_iter().map(of(Operation::Get)))
    }

    /// Any of those that spoil a PATCH.
    pub(super) fn drawn(draw: &mut StdRng) -> Trouble {
        Trouble { kind: KINDS[draw.random_range(0..KINDS.len())], on: Operation::Patch }
    }

    pub(super) fn name(self) -> String {
        match (self.kind, self.on) {
            ("", _) => "none".to_owned(),
            (kind, Operation::Patch) => kind.to_owned(),
            (kind, _) => format!("get:{kind}"),
        }
    }

    /// It waits for a look at the webhook, so it must not come before the rotation has begun.
    pub(super) fn spoils_a_look(self) -> bool {
        self.on != Operation::Patch
    }

    /// The hold that it may lead to, from which `resume` must lead out.
    pub(super) fn hold(self) -> Option<&'static str> {
        match self.kind {
            "value-refused" => Some("target-refused"),
            "unauthorized" | "forbidden" => Some("api-key-refused"),
            "not-found" => Some("webhook-gone"),
            _ => None,
        }
    }

    /// The provider signs with a value that nobody has sent: its deliveries until the next PATCH cannot be accepted by anybody.
    pub(super) fn forges(self) -> bool {
        self.kind == "secret-truncated"
    }

    /// The fault itself. Times stay well within what the lane's quarantine allows for.
    pub(super) fn injection(self, draw: &mut StdRng) -> Option<Injection> {
        let fault = fault(self.kind, draw)?;
        Some(Injection::once(fault).on(self.on))
    }
}

fn fault(kind: &str, draw: &mut StdRng) -> Option<Fault> {
    Some(match kind {
        "apply-then-drop" => Fault::ApplyThenDrop { cut: cut(draw) },
        "drop-before-apply" => Fault::DropBeforeApply { cut: cut(draw) },
        "apply-late" => {
            let answers = [LateAnswer::Ok, LateAnswer::GatewayTimeout, LateAnswer::Hang, LateAnswer::Reset];
            Fault::ApplyLate { ms: late(draw), answer: answers[draw.random_range(0..answers.len())] }
        }
        "duplicate-late" => Fault::DuplicateLate { ms: late(draw) },
        "rate-limited" => Fault::RateLimited { retry_after: [None, Some(0), Some(1)][draw.random_range(0..3)] },
        "error-after-apply" => Fault::ErrorAfterApply,
        "error-before-apply" => Fault::ErrorBeforeApply,
        "unavailable" => Fault::Unavailable,
        "lying-ok" => Fault::LyingOk,
        "secret-ignored" => Fault::SecretIgnored,
        "secret-truncated" => Fault::SecretTruncated { bytes: draw.random_range(1..40) },
        "slow" => Fault::Slow { ms: draw.random_range(50..1_300) },
        "trickle" => Fault::Trickle { ms: draw.random_range(1..10) },
        "garbage" => Fault::Garbage,
        "redirect" => Fault::Redirect { to: "http://127.0.0.1:9/v1".to_owned() },
        "value-refused" => Fault::ValueRefused,
        "unauthorized" => Fault::Unauthorized,
        "forbidden" => Fault::Forbidden,
        "not-found" => Fault::NotFound,
        "custom" => Fault::Custom { apply: apply(draw), answer: answer(draw), answer_after_ms: draw.random_range(0..300) },
        _ => return None,
    })
}

fn cut(draw: &mut StdRng) -> Cut {
    [Cut::Close, Cut::Half, Cut::Reset][draw.random_range(0..3)]
}

fn late(draw: &mut StdRng) -> u64 {
    draw.random_range(50..400)
}

fn apply(draw: &mut StdRng) -> Apply {
    match draw.random_range(0..5) {
        0 => Apply::Now,
        1 => Apply::Never,
        2 => Apply::LateMs(late(draw)),
        3 => Apply::AgainMs(late(draw)),
        _ => Apply::WithoutSecret,
    }
}

/// Answers that say nothing, or that it was applied. One that denies it is another kind.
fn answer(draw: &mut StdRng) -> Answer {
    match draw.random_range(0..6) {
        0 => Answer::Honest,
        1 => Answer::Error { status: [408, 500, 502, 504][draw.random_range(0..4)], retry_after: None },
        2 => Answer::Error { status: 503, retry_after: Some(0) },
        3 => Answer::None(cut(draw)),
        4 => Answer::Trickle { ms: draw.random_range(1..10) },
        _ => Answer::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    /// The names of all variants stand in the message about an unknown one.
    #[test]
    fn every_fault_of_the_provider_has_a_column() {
        let error = serde_json::from_str::<Fault>(r#"{"kind":"?"}"#).expect_err("an unknown kind").to_string();
        let (_, list) = error.split_once("expected one of ").expect("a list");
        let known: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
        assert_eq!(known, KINDS.into_iter().collect());
    }

    #[test]
    fn every_kind_makes_a_fault_of_its_name() {
        let mut draw = StdRng::seed_from_u64(1);
        for trouble in Trouble::all().skip(1) {
            let injection = trouble.injection(&mut draw).expect("a fault");
            let json = serde_json::to_value(&injection.fault).expect("json");
            assert_eq!(json["kind"], trouble.kind);
            assert_eq!(injection.on, trouble.on);
        }
        assert!(Trouble::NONE.injection(&mut draw).is_none());
    }
}
