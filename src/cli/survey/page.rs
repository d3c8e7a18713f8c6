//! The result of a survey, as it is kept and shown.

use std::{cmp::Ordering, time::Duration};

use serde::{Deserialize, Serialize};

use super::super::time;
use crate::{
    config::duration_text,
    evidence::survey::{Answer, Arrival, Findings, How, Observations, Trust, answers, judge, roughly},
    rotation::{PatchAnswer, Policy},
    store::UnixMillis,
};

/// The memo's name in the store.
pub const MEMO: &str = "survey";

/// A survey. What is derived from the observations is kept too, for who reads it with another program.
#[derive(Serialize, Deserialize)]
pub struct Survey {
    pub webhook: String,
    pub id: String,
    pub began: UnixMillis,
    /// `false`: it has not come to its end, and PATCHes may have been sent that it does not tell of.
    pub ended: bool,
    /// The secrets that it has made, sealed in the store under these names.
    pub kids: Vec<String>,
    pub observations: Observations,
    pub findings: Findings,
    pub answers: Vec<Answer>,
}

impl Survey {
    pub fn new(webhook: &str, id: &str, began: UnixMillis) -> Survey {
        let observations = Observations::default();
        let findings = judge(&observations);
        let answers = answers(&observations, &findings);
        let (webhook, id) = (webhook.to_owned(), id.to_owned());
        Survey { webhook, id, began, ended: false, kids: Vec::new(), observations, findings, answers }
    }

    pub fn saw(&mut self, observations: Observations) {
        self.findings = judge(&observations);
        self.answers = answers(&observations, &self.findings);
        self.observations = observations;
    }

    /// Every experiment came to its end, and showed that DialNexa does what a rotation needs.
    pub fn reliable(&self) -> bool {
        self.ended && self.findings.trust == Trust::Whole && self.findings.honoured == Some(true)
    }

    /// A PATCH went out that was not clearly refused.
    pub fn changed(&self) -> bool {
        let taken = |answer: &PatchAnswer| matches!(answer, PatchAnswer::Applied | PatchAnswer::Ambiguous { .. });
        self.observations.patches.iter().any(|patch| taken(&patch.answer))
    }

    /// `surveyed 2026-05-03 ..., quarantine 15m, drain 24h`
    pub fn brief(&self) -> String {
        let (quarantine, drain) = (length(self.findings.quarantine_ms), length(self.findings.drain_ms));
        let trust = match (self.findings.honoured, self.findings.trust) {
            (Some(false), _) => " (usual values: a PATCH of `secret` was seen to have no effect)",
            (_, Trust::TooShort) => " (watched too briefly to rely on)",
            (_, Trust::Whole) => "",
        };
        format!("surveyed {}: quarantine {quarantine}, drain {drain}{trust}", time::at(self.began))
    }

    /// Which of a webhook's waits are not as this survey recommends, and how. None where it is not to be relied on.
    pub fn beside(&self, policy: &Policy) -> Vec<(Ordering, String)> {
        let found = &self.findings;
        let waits = [("quarantine", policy.quarantine, found.quarantine_ms), ("drain", policy.drain, found.drain_ms)];
        let compared = waits.into_iter().filter(|_| self.reliable()).filter_map(|(what, configured, recommended)| {
            let order = configured.cmp(&recommended);
            let than = match order {
                Ordering::Less => "shorter than",
                Ordering::Greater => "longer than",
                Ordering::Equal => return None,
            };
            let (configured, recommended) = (length(configured), length(recommended));
            Some((order, format!("{what} {configured} is {than} the {recommended} of the survey")))
        });
        compared.collect()
    }

    pub fn page(&self) -> String {
        let (seen, found) = (&self.observations, &self.findings);
        let mut lines = vec![format!("{} ({}): surveyed {}", self.webhook, self.id, time::at(self.began))];
        if !self.ended {
            lines.push("this survey did not come to its end: it was killed, or still runs".to_owned());
        } else if seen.interrupted {
            lines.push("it was stopped early: what follows is what was seen until then".to_owned());
        }
        lines.push(String::new());
        for answer in &self.answers {
            lines.push(format!("{}. {}?  [{}]", answer.number, answer.question, answer.how.name()));
            lines.push(format!("   {}", answer.text));
            if !answer.next.is_empty() {
                let lead = if answer.how == How::Observed { "still open" } else { "to find out" };
                lines.push(format!("   {lead}: {}", answer.next));
            }
        }
        lines.push(String::new());
        lines.push(format!("quarantine = \"{}\"   # {}", length(found.quarantine_ms), found.quarantine_because));
        lines.push(format!("drain = \"{}\"   # {}", length(found.drain_ms), found.drain_because));
        if found.trust == Trust::TooShort {
            lines.push("the survey was too short to rest a configuration on: keep the defaults, or the longer value".to_owned());
        }
        lines.push(String::new());
        lines.extend(timeline(seen));
        if seen.dropped > 0 {
            lines.push(format!("{} more requests were not written down", seen.dropped));
        }
        lines.join("\n")
    }
}

/// What was sent and what came, in order.
fn timeline(seen: &Observations) -> Vec<String> {
    let sent = seen.patches.iter().zip(["A", "B"]);
    let sent = sent.map(|(patch, secret)| (patch.sent_at, format!("PATCH with secret {secret}: {}", patch.text)));
    let mut events: Vec<(u64, String)> = sent.chain(seen.arrivals.iter().map(|arrival| (arrival.at, line(arrival)))).collect();
    events.extend(seen.pause.iter().flat_map(|p| [(p.off_at, "switched off".to_owned()), (p.on_at, "switched on".to_owned())]));
    events.extend(seen.readdressed.iter().map(|change| (change.at, "another URL was sent".to_owned())));
    events.push((seen.ended_at, "end".to_owned()));
    events.sort_by_key(|(at, _)| *at);
    events.into_iter().map(|(at, text)| format!("{:>10}  {text}", roughly(at))).collect()
}

fn line(arrival: &Arrival) -> String {
    let prefixed = if arrival.prefixed { ", prefixed" } else { "" };
    let form = arrival.header.as_ref().map(|header| format!(" in {header}{prefixed}")).unwrap_or_default();
    let (number, again) = (arrival.delivery, if arrival.first { "" } else { " again" });
    let event = arrival.event.as_deref().unwrap_or("event not said");
    format!("delivery {number}{again}, secret {}{form}, {event} -> {}", arrival.signed.name(), arrival.answered)
}

/// As the configuration writes it.
pub fn length(ms: u64) -> String {
    duration_text(Duration::from_millis(ms))
}
