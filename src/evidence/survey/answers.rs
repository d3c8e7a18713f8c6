use serde::{Deserialize, Serialize};

use super::{Arrival, Findings, Observations, Resigned, Retries, Signed};
use crate::rotation::Millis;

/// One of the questions that DialNexa's public pages leave open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub number: u8,
    pub question: String,
    pub how: How,
    pub text: String,
    /// How to find out what is still open. Empty: nothing is.
    pub next: String,
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    Observed,
    /// This survey did not see it; another one may.
    NotSeen,
    /// Only a person can find out.
    AskAPerson,
    /// Nothing that can be done from here shows it.
    CannotBeSeen,
}

impl How {
    pub fn name(self) -> &'static str {
        match self {
            How::Observed => "observed",
            How::NotSeen => "not seen",
            How::AskAPerson => "for a person",
            How::CannotBeSeen => "cannot be seen",
        }
    }
}

/// The nine, in order.
pub fn answers(seen: &Observations, found: &Findings) -> Vec<Answer> {
    let nine = [
        form(found),
        resigned(found),
        schedule(found),
        effect(seen, found),
        verification(seen),
        length(seen, found),
        paused(seen),
        failed(seen),
        organisation(),
    ];
    let answer = |((number, question), (how, text, next)): ((u8, &str), Told)| Answer {
        number,
        question: question.to_owned(),
        how,
        text,
        next: next.to_owned(),
    };
    (1..).zip(QUESTIONS).zip(nine).map(answer).collect()
}

const QUESTIONS: [&str; 9] = [
    "which header and prefix does a delivery have",
    "are retries signed anew",
    "when do retries come, and can that be set for user-webhooks",
    "does a PATCH of `secret` take effect, and how soon",
    "does a user-webhook get a verification request, and is it signed",
    "how long may a secret be",
    "does is_active=false keep events for later",
    "are call.failed events delivered",
    "does a new organisation secret touch user-webhooks",
];

type Told = (How, String, &'static str);

const CALL: &str = "place a call that completes while a survey runs";

fn form(found: &Findings) -> Told {
    if found.forms.is_empty() {
        return (How::NotSeen, "no delivery came that one of the survey's own secrets signed".to_owned(), CALL);
    }
    let form = |(header, prefixed): &(String, bool)| {
        format!("{header}: {}", if *prefixed { "sha256=<hex>" } else { "<hex>, without a prefix" })
    };
    let forms = found.forms.iter().map(form).collect::<Vec<_>>().join("; ");
    (How::Observed, format!("{forms}, over the raw body"), "")
}

fn resigned(found: &Findings) -> Told {
    let again = "survey again with another call right after the second PATCH, and a longer --watch";
    match found.resigned {
        Resigned::Old => (How::Observed, "no: they keep the signature of the first try".to_owned(), ""),
        Resigned::New => (How::Observed, "yes: with what signs when they are sent".to_owned(), ""),
        Resigned::Both => (How::Observed, "some are and some are not: count on neither".to_owned(), ""),
        Resigned::Unknown => {
            let came = found.retries.as_ref().is_some_and(|retries| !retries.after.is_empty());
            let why = if came { "retries came, but none that can tell" } else { "no retry came" };
            (How::NotSeen, why.to_owned(), again)
        }
    }
}

fn schedule(found: &Findings) -> Told {
    let settings = "whether it can be set for user-webhooks: look in the dashboard, and ask DialNexa's support";
    let Some(retries) = &found.retries else {
        return (How::NotSeen, "no delivery was refused".to_owned(), CALL);
    };
    let mut text = format!("after 503: {}", told(retries));
    if let Some(refused) = &found.retries_after_401 {
        text.push_str(&format!("; after 401: {}", told(refused)));
    }
    if !retries.same_body {
        text.push_str("; the body of a retry is not that of the first try");
    }
    (How::Observed, text, settings)
}

fn told(retries: &Retries) -> String {
    let quiet = roughly(retries.quiet);
    if retries.after.is_empty() {
        return format!("none within {quiet}");
    }
    let times: Vec<String> = retries.after.iter().copied().map(roughly).collect();
    let more = if retries.over() { "then none" } else { "watched too briefly to say that it was the last: none" };
    format!("{} after the first try, {more} within {quiet}", times.join(", "))
}

fn effect(seen: &Observations, found: &Findings) -> Told {
    match found.honoured {
        None if seen.patches.is_empty() => (How::NotSeen, "no PATCH was sent".to_owned(), "survey again"),
        None => {
            let text = "nothing came after the PATCH that could tell".to_owned();
            (How::NotSeen, text, "place a call that completes, and look whether the URL of the webhook leads to the survey")
        }
        Some(false) => {
            let said = seen.patches.first().map(|patch| patch.text.as_str()).unwrap_or_default();
            let text = format!("NO: DialNexa said {said}, and new deliveries are signed with something else");
            (
                How::Observed,
                text,
                "a longer --wait would show a switch that is only slow, a URL that nobody else knows that it was no stranger; then ask \
                DialNexa's support",
            )
        }
        Some(true) => {
            let switch = |switch: &super::Switch| {
                let mut text = format!("secret {} within {}", switch.secret.name(), roughly(switch.at_most));
                if switch.at_least > 0 {
                    text.push_str(&format!(", not within {}", roughly(switch.at_least)));
                }
                if let Some(until) = switch.mixed_until {
                    text.push_str(&format!(", mixed with the one before until {}", roughly(until)));
                }
                text
            };
            let switches = found.switches.iter().map(switch).collect::<Vec<_>>().join("; ");
            (
                How::Observed,
                format!("yes: {switches} (from the PATCH to the first delivery; calls set how finely this is seen)"),
                "",
            )
        }
    }
}

fn verification(seen: &Observations) -> Told {
    if let Some(asked) = seen.arrivals.iter().find(|arrival| arrival.is_verification()) {
        let signed = match asked.signed {
            Signed::Unsigned => "unsigned".to_owned(),
            Signed::Other => "signed with a secret that the survey does not know".to_owned(),
            known => format!("signed with secret {}", known.name()),
        };
        return (How::Observed, format!("yes, {signed}"), "");
    }
    match &seen.readdressed {
        None => {
            let next = "survey again with --verification URL: another address that leads to the survey";
            (How::NotSeen, "no other URL was sent".to_owned(), next)
        }
        Some(change) => {
            let within = roughly(change.until.saturating_sub(change.at));
            match &change.taken {
                Ok(()) => (How::Observed, format!("no: the URL was changed, and no such request came within {within}"), ""),
                Err(why) => {
                    let next = "let that URL lead to the survey, and try again";
                    (How::NotSeen, format!("DialNexa did not take the URL ({why}), and nothing came"), next)
                }
            }
        }
    }
}

fn length(seen: &Observations, found: &Findings) -> Told {
    if let Some(length) = seen.cut {
        let text = format!("{length} characters: what follows them is dropped without a word, and hookturn's secrets are longer");
        return (How::Observed, text, "");
    }
    let next = "ask DialNexa's support; hookturn never sends more than 49 characters";
    match found.honoured {
        Some(true) => (
            How::CannotBeSeen,
            "49 characters, which is what hookturn sends, are taken whole; the limit is not sought".to_owned(),
            next,
        ),
        _ => (How::CannotBeSeen, "the limit is not sought".to_owned(), next),
    }
}

fn paused(seen: &Observations) -> Told {
    let Some(pause) = seen.pause else {
        let next = "survey again with --inactive 5m, and place a call in that time";
        return (How::NotSeen, "the webhook was not switched off".to_owned(), next);
    };
    let fresh = |arrival: &&Arrival| arrival.first && arrival.genuine() && !arrival.is_verification();
    let came = |from: Millis, to: Millis| seen.arrivals.iter().filter(fresh).any(|arrival| (from..to).contains(&arrival.at));
    // A delivery that was under way when it was switched off is not one that was made meanwhile.
    if came(pause.off_at.saturating_add(2_000), pause.on_at) {
        return (How::Observed, "neither: deliveries came while it was switched off".to_owned(), "");
    }
    if came(pause.on_at, Millis::MAX) {
        let text = "yes: a delivery came once it was switched on again".to_owned();
        return (How::Observed, text, "sure only if no call was placed after that");
    }
    let waited = roughly(seen.ended_at.saturating_sub(pause.on_at));
    (How::Observed, format!("no: nothing came within {waited} after"), "sure only if a call was completed while it was off")
}

fn failed(seen: &Observations) -> Told {
    const FAILED: &str = "call.failed";
    if seen.arrivals.iter().any(|arrival| arrival.genuine() && arrival.event.as_deref() == Some(FAILED)) {
        return (How::Observed, "yes".to_owned(), "");
    }
    if !seen.events.is_empty() && !seen.events.iter().any(|event| event == FAILED) {
        let next = "subscribe it: hookturn webhook update NAME --event call.completed --event call.failed, and survey again";
        return (How::NotSeen, "the webhook is not subscribed to call.failed".to_owned(), next);
    }
    (How::AskAPerson, "none came".to_owned(), "let a call fail (dial a number that does not exist) while a survey runs")
}

fn organisation() -> Told {
    let next = "on an account whose dashboard webhook nobody needs: make a new organisation secret while a survey watches \
                retries, place a call, and see in its list whether secret B still signs";
    (
        How::AskAPerson,
        "a survey never touches the organisation secret: making a new one deletes the old for good".to_owned(),
        next,
    )
}

/// A length of time for a person, to about two digits.
pub fn roughly(ms: Millis) -> String {
    let tenths = |unit: Millis, name: &str| format!("{}.{} {name}", ms / unit, ms % unit * 10 / unit);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => tenths(1_000, "s"),
        10_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => tenths(3_600_000, "h"),
    }
}
