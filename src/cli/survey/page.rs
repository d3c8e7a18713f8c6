//! The result of a survey, as it is kept and shown.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::time;
use crate::{
    config::duration_text,
    evidence::survey::{Answer, Findings, How, Observations, Trust, answers, judge, roughly},
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

    /// `surveyed 2026-05-03 ..., quarantine 15m, drain 24h`
    pub fn brief(&self) -> String {
        let (quarantine, drain) = (length(self.findings.quarantine_ms), length(self.findings.drain_ms));
        let trust = match self.findings.trust {
            Trust::Whole => "",
            Trust::TooShort => " (watched too briefly to rely on)",
        };
        format!("surveyed {}: quarantine {quarantine}, drain {drain}{trust}", time::at(self.began))
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
        lines.extend(
            seen.patches
                .iter()
                .zip(["A", "B"])
                .map(|(patch, secret)| format!("{:>10}  PATCH with secret {secret}: {}", roughly(patch.sent_at), patch.text)),
        );
        lines.extend(seen.arrivals.iter().map(|arrival| {
            let form =
                arrival.header.as_ref().map(|header| format!(" in {header}{}", if arrival.prefixed { ", prefixed" } else { "" }));
            format!(
                "{:>10}  delivery {}{}, secret {}{}, {} -> {}",
                roughly(arrival.at),
                arrival.delivery,
                if arrival.first { "" } else { " again" },
                arrival.signed.name(),
                form.unwrap_or_default(),
                arrival.event.as_deref().unwrap_or("event not said"),
                arrival.answered
            )
        }));
        if seen.dropped > 0 {
            lines.push(format!("{} more requests were not written down", seen.dropped));
        }
        lines.push(format!("{:>10}  end", roughly(seen.ended_at)));
        lines.join("\n")
    }
}

/// As the configuration writes it.
pub fn length(ms: u64) -> String {
    duration_text(Duration::from_millis(ms))
}
