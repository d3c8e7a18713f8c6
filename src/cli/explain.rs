//! `explain`: for a person at three in the night. What happened, what is known and from where, why every outcome is still
//! safe, what comes next, and what can be done. Nothing here leads to an action that loses deliveries.

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::{
    access::{Access, Need},
    exit::{Code, Stop},
    history, out, status, time,
};
use crate::{
    config::Config,
    daemon::{Clock, Status, Story, told},
    store::{Attempt, Evidence},
};

/// Of each kind, the newest.
const SHOWN: u32 = 12;

#[derive(Args)]
pub struct Explain {
    name: String,
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub async fn run(self, config: Config) -> Result<Code, Stop> {
        let purpose = format!("explain {}", self.name);
        let need = Need { purpose: &purpose, webhooks: std::slice::from_ref(&self.name), doors: false, read_only: true };
        let access = Access::open(&config, need).await?;
        let status = access.status_of(&self.name).await;
        let story = access.office().story(&self.name, SHOWN).await;
        let daemon_runs = access.daemon_runs();
        access.close().await;
        let (status, story) = (status?, story?);
        match self.json {
            true => out::json(&json!({ "status": status, "story": story, "daemon_runs": daemon_runs }))?,
            false => out::line(&text(&status, &story, daemon_runs, Clock::system().now()))?,
        }
        Ok(Code::Done)
    }
}

fn text(status: &Status, story: &Story, daemon_runs: bool, now: DateTime<Utc>) -> String {
    let sections = [
        ("Where it is", where_it_is(status, daemon_runs, now)),
        ("Diagnosis", status.findings.iter().map(|finding| format!("{}: {}", finding.word, finding.text)).collect()),
        ("What was sent to DialNexa", sent(status, story)),
        ("What is known, and from where", known(status, story, now)),
        ("Why this is safe, whatever is true", vec![safety(status).to_owned()]),
        ("What comes next", vec![next(status, daemon_runs)]),
        ("What you can do", ways_out(status)),
        ("What was written down", story.journal.iter().map(history::line).collect()),
    ];
    let filled = sections.into_iter().filter(|(_, lines)| !lines.is_empty());
    let shown = filled.map(|(title, lines)| format!("{title}\n{}", lines.iter().map(|l| format!("  {l}\n")).collect::<String>()));
    shown.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

fn where_it_is(status: &Status, daemon_runs: bool, now: DateTime<Utc>) -> Vec<String> {
    let since = status.since.map(|at| format!(", since {}", time::at_and_distance(at, now))).unwrap_or_default();
    let mut lines = vec![format!("{} ({}): {}{since}", status.name, status.id, status::phase(status))];
    if !daemon_runs {
        lines.push("no daemon is running: nothing moves until `hookturn run` (or the service) is started".to_owned());
    }
    let told = |remark: &String| status.findings.iter().any(|finding| remark.starts_with(&format!("{}: ", finding.word)));
    let remarks = status::remarks(status, now);
    lines.extend(remarks.into_iter().filter(|remark| !remark.starts_with("way out: ") && !told(remark)));
    if status.phase != "idle" {
        let cause = status.cause.as_deref().unwrap_or("unknown");
        let leaked = if status.compromised { "; the current secret has leaked" } else { "" };
        lines.push(format!("rotation {} (cause: {cause}{leaked})", status.rotation));
        lines.extend(status.timeline.iter().map(|(phase, at)| format!("{phase:<7} began {}", time::at(*at))));
    }
    lines
}

fn sent(status: &Status, story: &Story) -> Vec<String> {
    let mine = |attempt: &&Attempt| status.phase == "idle" || attempt.rotation == status.rotation;
    let mut lines: Vec<String> = story.attempts.iter().filter(mine).map(attempt).collect();
    if lines.is_empty() && status.phase != "idle" {
        lines.push("nothing yet in this rotation: DialNexa still signs with the current secret".to_owned());
    }
    for open in &status.open {
        lines.push(format!("a request with {} may still be applied for {}", open.kid, time::span(open.left_ms)));
    }
    lines
}

fn attempt(attempt: &Attempt) -> String {
    let outcome = attempt.outcome.as_deref().unwrap_or("no answer is known: it may have been applied");
    format!("attempt {}, {}, secret {}: {outcome}", attempt.number, time::at(attempt.intent_at), attempt.kid)
}

fn known(status: &Status, story: &Story, now: DateTime<Utc>) -> Vec<String> {
    let mut lines = vec![format!(
        "keystore ({}): generation {}, accepts {}",
        status.keystore_place,
        status.generation,
        status::listed(&status.accepted)
    )];
    lines.extend(status::replicas(status, now));
    lines.push(format!("newest delivery: {}", status::delivery(status, now)));
    lines.extend(story.evidence.iter().map(evidence));
    let counts = &status.deliveries;
    lines.push(format!(
        "since this process began: {} under the current secret, {} under the target, {} under others, {} under retired ones, {} that \
         verified under none, {} refused by the consumer",
        counts.current, counts.target, counts.other, counts.retired, counts.unverified, counts.rejected_by_consumer
    ));
    lines
}

fn evidence(evidence: &Evidence) -> String {
    let accepted = match evidence.accepted {
        Some(true) => "accepted by the consumer",
        Some(false) => "REFUSED by the consumer",
        None => "the consumer's answer is not known",
    };
    let (at, kid, door) = (time::at(evidence.at), evidence.kid, &evidence.door);
    format!("{at}: decided by a delivery under {kid}, through {door} ({}), {accepted}", told(&evidence.detail))
}

/// For each phase, why every state that DialNexa may be in is covered.
fn safety(status: &Status) -> &'static str {
    let phase = status.held_phase.as_deref().unwrap_or(&status.phase);
    match phase {
        "idle" if !status.adopted => "hookturn has changed nothing: the consumer works as before",
        "idle" => "no change is under way: DialNexa signs with the current secret and the consumer accepts it",
        "push" => {
            "the new secret has not been sent: DialNexa signs with the current one, which stays accepted. The keystore only gains a key"
        }
        "patch" => {
            "DialNexa signs with the current secret or with the target; both are in the keystore, and every request that may still be \
             applied carries one of them. Sending the same value again changes nothing"
        }
        "drain" | "retire" if status.compromised => {
            "DialNexa signs with the target, which stays accepted. The old secret has leaked: late deliveries signed with it are given \
             up on purpose, so that nobody who has it is believed any longer"
        }
        "drain" => {
            "DialNexa signs with the target; deliveries signed before may still come, and their secret stays accepted until this wait \
             is over"
        }
        "retire" => {
            "DialNexa signs with the target, and it stays accepted. What is being removed signs nothing that can still come, so \
             nothing depends on how far the removal has got"
        }
        "abort" => "the target was never sent: DialNexa signs with the current secret, which stays accepted",
        _ => "every secret that DialNexa may be signing with stays in the keystore",
    }
}

fn next(status: &Status, daemon_runs: bool) -> String {
    if status.hold.is_some() {
        return "nothing by itself: nothing is sent and nothing is removed until a person decides".to_owned();
    }
    let step = match status.phase.as_str() {
        "idle" if !status.adopted => "`adopt`, and then the first rotation".to_owned(),
        "idle" => match status.next_due {
            Some(at) => format!("the next rotation, due {}", time::at(at)),
            None => "nothing, until somebody asks for `rotate-now`".to_owned(),
        },
        "push" => "once every replica was shown to accept the target, it is sent to DialNexa".to_owned(),
        "patch" => "once real deliveries signed with the target were accepted, the wait for late ones begins".to_owned(),
        "drain" => match status.drain_left_ms {
            Some(left) => format!("after another {} of watched time the old secret is retired", time::span(left)),
            None => "once late deliveries have had their time, the old secret is retired".to_owned(),
        },
        "retire" => "once every replica was shown to refuse the old secret, the rotation is complete".to_owned(),
        "abort" => "once no replica accepts the target any more, the rotation is given up".to_owned(),
        _ => "see above".to_owned(),
    };
    if daemon_runs { step } else { format!("when a daemon runs again: {step}") }
}

fn ways_out(status: &Status) -> Vec<String> {
    let mut lines = status.ways_out.clone();
    if lines.is_empty() && status.hold.is_none() {
        lines.push("nothing is needed; it goes on by itself".to_owned());
    }
    if status.phase != "idle" {
        lines.push("do not edit the keystore or change the secret at DialNexa by hand while this is under way".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(status: Status) -> String {
        text(&Status { name: "billing".into(), adopted: true, ..status }, &Story::default(), true, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn a_held_rotation_names_its_ways_out_and_stays_safe_by_the_phase_that_it_suspends() {
        let text = explained(Status {
            phase: "hold".into(),
            held_phase: Some("patch".into()),
            hold: Some("api-key-refused".into()),
            ways_out: vec!["hookturn resume billing".into()],
            ..Status::default()
        });
        assert!(text.contains("hookturn resume billing"), "{text}");
        assert!(text.contains("both are in the keystore"), "{text}");
        assert!(text.contains("nothing is removed until a person decides"), "{text}");
    }

    #[test]
    fn an_emergency_does_not_promise_what_it_gives_up() {
        let retiring = Status { phase: "retire".into(), compromised: true, ..Status::default() };
        assert!(explained(retiring).contains("given up on purpose"));
    }

    #[test]
    fn every_phase_says_why_it_is_safe() {
        for phase in ["idle", "push", "patch", "drain", "retire", "abort", "hold"] {
            let status = Status { phase: phase.into(), adopted: true, ..Status::default() };
            assert!(!safety(&status).is_empty());
            assert!(explained(status).contains("Why this is safe"));
        }
    }
}
