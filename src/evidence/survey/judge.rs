use serde::{Deserialize, Serialize};

use super::{Arrival, Observations, Signed};
use crate::rotation::Millis;

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
/// Below these no recommendation goes, whatever was seen: one afternoon at one webhook is not every day.
const LEAST_QUARANTINE: Millis = 15 * MINUTE;
const LEAST_DRAIN: Millis = HOUR;
/// What is recommended where the observation says too little.
const USUAL_DRAIN: Millis = 24 * HOUR;

/// What the observations come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// The forms in which genuine signatures came: header name, and whether `sha256=` was in front.
    pub forms: Vec<(String, bool)>,
    /// Whether a PATCH of `secret` takes effect. `None`: nothing came that could tell.
    pub honoured: Option<bool>,
    /// One for each PATCH that was seen to take effect.
    pub switches: Vec<Switch>,
    /// After 503, and after 401.
    pub retries: Option<Retries>,
    pub retries_after_401: Option<Retries>,
    pub resigned: Resigned,
    pub quarantine_ms: Millis,
    pub quarantine_because: String,
    pub drain_ms: Millis,
    pub drain_because: String,
    pub trust: Trust,
}

/// How long after its PATCH a secret signed, counted from the moment the request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    pub secret: Signed,
    /// The last new delivery before it that was signed otherwise; zero where there was none.
    pub at_least: Millis,
    /// The first one that it signed. The switch may have been as much earlier as nothing came.
    pub at_most: Millis,
    /// A new delivery was signed otherwise again, after the first one that it signed.
    pub mixed_until: Option<Millis>,
}

impl Switch {
    fn slowest(&self) -> Millis {
        self.mixed_until.unwrap_or(0).max(self.at_most)
    }
}

/// The tries of one delivery that was refused every time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// When they came, from the first try on; without the first.
    pub after: Vec<Millis>,
    /// How long nothing more came, when the survey ended.
    pub quiet: Millis,
    pub same_body: bool,
}

impl Retries {
    /// The longest time between two tries.
    pub fn longest_gap(&self) -> Millis {
        let before = std::iter::once(0).chain(self.after.iter().copied());
        self.after.iter().zip(before).map(|(at, before)| at - before).max().unwrap_or(0)
    }

    /// It was watched for so long after the last try that one more would have come, if the gaps grow as they usually do.
    pub fn over(&self) -> bool {
        match self.after.is_empty() {
            true => self.quiet >= 30 * MINUTE,
            false => self.quiet >= self.longest_gap().saturating_mul(4),
        }
    }
}

/// What a retry is signed with, when the secret has changed since its first try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resigned {
    /// As the first try was.
    Old,
    /// With what signs at the time.
    New,
    /// Some in this way, some in the other.
    Both,
    /// No retry came that could tell.
    Unknown,
}

/// How far the recommendation may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// Every experiment came to its end.
    Whole,
    /// It rests on less than that; the reasons say on what.
    TooShort,
}

/// What follows from what was seen.
pub fn judge(seen: &Observations) -> Findings {
    let switches: Vec<Switch> = [Signed::A, Signed::B].into_iter().filter_map(|secret| switch(seen, secret)).collect();
    let retries = refused_with(seen, 503);
    let resigned = resigned(seen);
    let (quarantine_ms, quarantine_because, switched) = quarantine(&switches);
    let (drain_ms, drain_because, drained) = drain(retries.as_ref(), resigned);
    Findings {
        forms: forms(seen),
        honoured: honoured(seen, &switches),
        retries_after_401: refused_with(seen, 401),
        trust: if switched && drained { Trust::Whole } else { Trust::TooShort },
        switches,
        retries,
        resigned,
        quarantine_ms,
        quarantine_because,
        drain_ms,
        drain_because,
    }
}

fn forms(seen: &Observations) -> Vec<(String, bool)> {
    let mut forms = Vec::new();
    for arrival in seen.arrivals.iter().filter(|arrival| arrival.genuine()) {
        let form = arrival.header.clone().map(|header| (header, arrival.prefixed));
        forms.extend(form.filter(|form| !forms.contains(form)));
    }
    forms
}

/// That it is not honoured is only said where something new came, signed by what nobody here knows, and nothing else did.
fn honoured(seen: &Observations, switches: &[Switch]) -> Option<bool> {
    if !switches.is_empty() {
        return Some(true);
    }
    let since = seen.patches.first()?.ended_at;
    let signed_otherwise = |arrival: &&Arrival| {
        arrival.at > since
            && arrival.first
            && !arrival.is_verification()
            && matches!(arrival.signed, Signed::Other | Signed::Earlier)
    };
    seen.arrivals.iter().find(signed_otherwise).map(|_| false)
}

fn switch(seen: &Observations, secret: Signed) -> Option<Switch> {
    let sent = seen.patches.get(usize::from(secret == Signed::B))?.sent_at;
    let since = |arrival: &Arrival| arrival.at.saturating_sub(sent);
    let first = seen.arrivals.iter().find(|arrival| arrival.signed == secret && arrival.at >= sent)?;
    // A retry may carry an old signature for other reasons.
    let otherwise = |arrival: &&Arrival| {
        let older = match arrival.signed {
            Signed::A => secret == Signed::B,
            Signed::Other | Signed::Earlier => true,
            Signed::B | Signed::Unsigned => false,
        };
        older && arrival.first && arrival.at >= sent && !arrival.is_verification()
    };
    // What came after the next PATCH says nothing of this one.
    let end = if secret == Signed::A { seen.patches.get(1).map_or(Millis::MAX, |next| next.sent_at) } else { Millis::MAX };
    let others: Vec<&Arrival> = seen.arrivals.iter().filter(otherwise).filter(|arrival| arrival.at < end).collect();
    Some(Switch {
        secret,
        at_least: others.iter().rfind(|arrival| arrival.at < first.at).map_or(0, |arrival| since(arrival)),
        at_most: since(first),
        mixed_until: others.last().filter(|arrival| arrival.at > first.at).map(|arrival| since(arrival)),
    })
}

/// The delivery that was refused with this status whenever it came.
fn refused_with(seen: &Observations, status: u16) -> Option<Retries> {
    let first = seen.arrivals.iter().find(|arrival| arrival.first && arrival.answered == status)?;
    let tries: Vec<&Arrival> = seen.arrivals.iter().filter(|arrival| arrival.delivery == first.delivery).collect();
    let last = tries.last().map_or(first.at, |last| last.at);
    Some(Retries {
        after: tries.iter().skip(1).map(|again| again.at - first.at).collect(),
        quiet: seen.ended_at.saturating_sub(last),
        same_body: tries.iter().all(|again| again.same_body),
    })
}

/// Only a retry of the delivery that secret A signed can tell, once secret B is known to sign.
fn resigned(seen: &Observations) -> Resigned {
    let Some(held) = seen.arrivals.iter().find(|arrival| arrival.first && arrival.answered == 503) else {
        return Resigned::Unknown;
    };
    let again = || seen.arrivals.iter().filter(|arrival| arrival.delivery == held.delivery && !arrival.first);
    let signs_since = seen.arrivals.iter().find(|arrival| arrival.signed == Signed::B).map(|arrival| arrival.at);
    let new = again().any(|arrival| arrival.signed == Signed::B);
    let old = again().any(|arrival| arrival.signed == held.signed && signs_since.is_some_and(|since| arrival.at > since));
    match (old, new) {
        (true, true) => Resigned::Both,
        (true, false) => Resigned::Old,
        (false, true) => Resigned::New,
        (false, false) => Resigned::Unknown,
    }
}

fn quarantine(switches: &[Switch]) -> (Millis, String, bool) {
    let Some(slowest) = switches.iter().map(Switch::slowest).max() else {
        let because = "no switch was seen, so this is the usual value and rests on nothing".to_owned();
        return (LEAST_QUARANTINE, because, false);
    };
    let (recommended, seen) = (slowest.saturating_mul(10), super::roughly(slowest));
    let because = match recommended > LEAST_QUARANTINE {
        true => format!("ten times the slowest switch, which took {seen} at the most"),
        false => format!("the least that is ever recommended; ten times the slowest switch ({seen} at the most) is less"),
    };
    (rounded(recommended.max(LEAST_QUARANTINE), MINUTE), because, switches.len() == 2)
}

fn drain(retries: Option<&Retries>, resigned: Resigned) -> (Millis, String, bool) {
    let Some(retries) = retries else {
        return (USUAL_DRAIN, "no delivery was refused, so this is the usual value and rests on nothing".to_owned(), false);
    };
    let Some(span) = retries.after.last().copied() else {
        return match retries.over() {
            true => (LEAST_DRAIN, "nothing was tried again; the least that is ever recommended".to_owned(), true),
            false => {
                let because =
                    format!("no retry came in {}, which is too short to say that none does", super::roughly(retries.quiet));
                (USUAL_DRAIN, because, false)
            }
        };
    };
    // What may still be to come after the last one that was seen, and the same again for a day that is worse.
    let whole = rounded(span.saturating_add(retries.longest_gap().saturating_mul(4)).saturating_mul(2).max(LEAST_DRAIN), HOUR);
    let seen = format!("the last of {} came {} after the first try", counted(retries.after.len()), super::roughly(span));
    match (retries.over(), resigned) {
        (false, _) => {
            let because = format!("{seen}, and it was watched for only {} more: others may come", super::roughly(retries.quiet));
            (whole.max(USUAL_DRAIN), because, false)
        }
        (true, Resigned::New) => {
            let because = format!("{seen}; retries are signed anew, so this is more than is needed for them");
            (whole, because, true)
        }
        (true, Resigned::Old | Resigned::Both) => (whole, format!("twice what retries take: {seen}, signed as it was"), true),
        (true, Resigned::Unknown) => {
            (whole, format!("twice what retries take: {seen}; what signs them was not seen, so they count as old"), true)
        }
    }
}

fn counted(retries: usize) -> String {
    if retries == 1 { "1 retry".to_owned() } else { format!("{retries} retries") }
}

fn rounded(ms: Millis, unit: Millis) -> Millis {
    ms.div_ceil(unit).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::survey::{How, Patched, answers},
        rotation::PatchAnswer,
    };

    const S: Millis = 1_000;

    fn patched(sent_at: Millis) -> Patched {
        Patched { sent_at, ended_at: sent_at + 50, answer: PatchAnswer::Applied, text: "200 in 50 ms".to_owned() }
    }

    /// Time, delivery, what signed it, what was answered.
    type Row = (Millis, u32, Signed, u16);

    fn seen(patches: &[Millis], ended_at: Millis, rows: &[Row]) -> Observations {
        let mut known = Vec::new();
        let arrival = |&(at, delivery, signed, answered): &Row| {
            let first = !known.contains(&delivery);
            known.push(delivery);
            Arrival {
                at,
                delivery,
                first,
                signed,
                header: (signed != Signed::Unsigned).then(|| "x-nexa-signature".to_owned()),
                prefixed: true,
                event: None,
                user_agent: None,
                answered,
                same_body: true,
            }
        };
        let arrivals = rows.iter().map(arrival).collect();
        Observations { patches: patches.iter().copied().map(patched).collect(), arrivals, ended_at, ..Observations::default() }
    }

    use Signed::{A, B, Other, Unsigned};

    /// Retries after 1, 3 and 7 minutes; B signs from 40 s on.
    fn retried(signed: [Signed; 3], ended_at: Millis) -> Observations {
        let rows = [
            (10 * S, 1, A, 503),
            (40 * S, 2, B, 401),
            (70 * S, 1, signed[0], 503),
            (190 * S, 1, signed[1], 503),
            (430 * S, 1, signed[2], 503),
        ];
        seen(&[5 * S, 11 * S], ended_at, &rows)
    }

    #[test]
    fn what_retries_are_signed_with() {
        let over = 10_000 * S;
        for (signed, expected) in [
            ([A, A, A], Resigned::Old),
            ([B, B, B], Resigned::New),
            ([A, B, B], Resigned::Both),
            ([Other, Other, Other], Resigned::Unknown),
        ] {
            let found = judge(&retried(signed, over));
            assert_eq!((found.resigned, found.trust), (expected, Trust::Whole), "{signed:?}");
            assert_eq!(found.retries.map(|retries| retries.after), Some(vec![60 * S, 180 * S, 420 * S]));
        }
        // B was not seen to sign before the retry came: it may just have been slow.
        let early = seen(&[0, 11 * S], over, &[(10 * S, 1, A, 503), (12 * S, 1, A, 503), (40 * S, 2, B, 401)]);
        assert_eq!(judge(&early).resigned, Resigned::Unknown);
    }

    #[test]
    fn a_switch_lies_between_the_last_other_and_the_first_own() {
        let rows = [(2 * S, 1, Other, 204), (4 * S, 2, A, 503), (6 * S, 3, A, 204), (9 * S, 4, B, 401), (12 * S, 5, A, 204)];
        let found = judge(&seen(&[S, 5 * S], 60 * S, &rows));
        let expected = [
            Switch { secret: A, at_least: S, at_most: 3 * S, mixed_until: None },
            Switch { secret: B, at_least: S, at_most: 4 * S, mixed_until: Some(7 * S) },
        ];
        assert_eq!((found.switches.as_slice(), found.honoured), (expected.as_slice(), Some(true)));
        assert_eq!(found.quarantine_ms, LEAST_QUARANTINE);
        let slow = judge(&seen(&[0, 300 * S], 600 * S, &[(200 * S, 1, A, 503), (310 * S, 2, B, 401)]));
        assert_eq!(slow.quarantine_ms, 34 * MINUTE, "{}", slow.quarantine_because);
    }

    #[test]
    fn a_secret_that_is_not_honoured_needs_a_delivery_to_show_it() {
        let silent = judge(&seen(&[S], 60 * S, &[]));
        assert_eq!((silent.honoured, silent.trust), (None, Trust::TooShort));
        assert_eq!(judge(&seen(&[S], 60 * S, &[(3 * S, 1, Unsigned, 204)])).honoured, None);
        assert_eq!(judge(&seen(&[S], 60 * S, &[(3 * S, 1, Other, 204)])).honoured, Some(false));
    }

    #[test]
    fn the_drain_covers_the_retries_and_says_where_it_was_watched_too_briefly() {
        let drained = |found: &Findings| (found.drain_ms / HOUR, found.trust);
        assert_eq!(drained(&judge(&retried([A, A, A], 10_000 * S))), (1, Trust::Whole));
        assert_eq!(drained(&judge(&retried([A, A, A], 440 * S))), (24, Trust::TooShort));
        let none = |ended| judge(&seen(&[0, 11 * S], ended, &[(10 * S, 1, A, 503), (12 * S, 2, B, 401)]));
        assert_eq!(drained(&none(60 * S)), (24, Trust::TooShort));
        assert_eq!(drained(&none(2 * HOUR)), (1, Trust::Whole));
        let long = [(10 * S, 1, A, 503), (12 * S, 2, B, 401), (6 * HOUR, 1, A, 503), (18 * HOUR, 1, A, 503)];
        // (18 h + 4 * 12 h) * 2
        assert_eq!(drained(&judge(&seen(&[0, 11 * S], 80 * HOUR, &long))), (132, Trust::Whole));
    }

    #[test]
    fn every_open_question_has_an_answer_or_a_way_to_one() {
        for seen in [Observations::default(), retried([A, A, A], 10_000 * S), seen(&[S], 60 * S, &[(3 * S, 1, Other, 204)])] {
            let answers = answers(&seen, &judge(&seen));
            assert_eq!(answers.iter().map(|answer| answer.number).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
            for answer in answers {
                assert!(!answer.text.is_empty() && (answer.how == How::Observed || !answer.next.is_empty()), "{answer:?}");
            }
        }
    }
}
