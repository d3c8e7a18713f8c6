//! `plan`: what a rotation would do, found out with real calls that change nothing.

use std::{fmt::Display, time::Duration};

use clap::Args;
use serde::Serialize;

use super::{
    access::{Access, Need, known},
    exit::{Code, Stop, provider_code},
    out,
    provider::client,
    survey, time,
};
use crate::{
    config::{self, Config},
    daemon::Status,
    keystore,
};

#[derive(Args)]
pub struct Plan {
    name: String,
    #[arg(long)]
    json: bool,
}

/// What was found, and what would follow from it.
#[derive(Serialize)]
struct Planned {
    webhook: String,
    /// Nothing stands in the way.
    ready: bool,
    found: Vec<Found>,
    steps: Vec<String>,
}

#[derive(Serialize)]
struct Found {
    exit: u8,
    text: String,
}

impl Plan {
    pub async fn run(self, config: Config) -> Result<Code, Stop> {
        let webhook = known(&config, &self.name)?;
        let purpose = format!("plan {}", self.name);
        let need = Need { purpose: &purpose, webhooks: std::slice::from_ref(&self.name), doors: false, read_only: true };
        let access = Access::open(&config, need).await?;
        let status = access.status_of(&self.name).await;
        access.close().await;
        let status = status?;
        let (mut found, mut worst) = (Vec::new(), Code::Done);
        let looks = [of_status(&status), at_provider(&config, webhook).await, at_keystore(webhook).await];
        for (code, text) in looks.into_iter().flatten() {
            worst = worst.worse(code);
            found.push(Found { exit: code.number(), text });
        }
        found.extend(survey::beside(&config, webhook).await.into_iter().map(|text| Found { exit: 0, text }));
        let planned = Planned { webhook: self.name, ready: worst == Code::Done, found, steps: steps(webhook, &status) };
        match self.json {
            true => out::json(&planned)?,
            false => out::line(&text(&planned))?,
        }
        Ok(worst)
    }
}

fn text(planned: &Planned) -> String {
    let mut lines = vec![format!("{}: nothing is changed by this", planned.webhook)];
    lines.extend(planned.found.iter().map(|found| format!("  {} {}", if found.exit == 0 { "ok  " } else { "NOT " }, found.text)));
    lines.push("a rotation would then".to_owned());
    lines.extend(planned.steps.iter().enumerate().map(|(i, step)| format!("  {}. {step}", i + 1)));
    if !planned.ready {
        lines.push("it would not get through as things are".to_owned());
    }
    lines.join("\n")
}

fn of_status(status: &Status) -> Vec<(Code, String)> {
    let mut found = vec![match (status.phase.as_str(), status.adopted, status.confirmed) {
        (_, false, _) => (Code::PersonNeeded, format!("no secret was adopted yet: hookturn adopt {}", status.name)),
        ("idle", _, true) => (Code::Done, "the current secret has verified a genuine delivery".to_owned()),
        ("idle", _, false) => {
            let text = "the current secret is unconfirmed: wait for a delivery, or say --unconfirmed if you are sure of it";
            (Code::NotYet, text.to_owned())
        }
        (phase, ..) => {
            (Code::Done, format!("rotation {} is under way (phase {phase}): rotate-now would join it", status.rotation))
        }
    }];
    if status.paused {
        found.push((Code::PersonNeeded, format!("it is paused: hookturn resume {}", status.name)));
    }
    found.extend(status.open.iter().map(|open| {
        (Code::Done, format!("a request with {} may still be applied: waited for first, {}", open.kid, time::span(open.left_ms)))
    }));
    found.push((
        Code::Done,
        match status.next_due {
            Some(at) => format!("next due {}", time::at(at)),
            None => "on demand only, no schedule".to_owned(),
        },
    ));
    found
}

async fn at_provider(config: &Config, webhook: &config::Webhook) -> Vec<(Code, String)> {
    let provider = match client(config) {
        Ok(provider) => provider,
        Err(stop) => return vec![(Code::NotYet, format!("DialNexa was not asked: {stop}"))],
    };
    match provider.get(&webhook.id).await {
        Ok(seen) if seen.is_active == Some(false) => {
            vec![(Code::PersonNeeded, "the webhook is switched off at DialNexa: no delivery could prove the switch".to_owned())]
        }
        Ok(seen) => vec![(Code::Done, format!("DialNexa has {} -> {}", seen.id, seen.url.as_deref().unwrap_or("(no URL said)")))],
        Err(error) => vec![(provider_code(&error), error.to_string())],
    }
}

async fn at_keystore(webhook: &config::Webhook) -> Vec<(Code, String)> {
    let keystore = keystore::build(&webhook.keystore, &webhook.name, &webhook.id);
    let mut found: Vec<(Code, String)> = keystore
        .inspect()
        .await
        .into_iter()
        .map(|finding| {
            (if finding.fatal { Code::PersonNeeded } else { Code::Done }, format!("{}: {}", keystore.place(), finding.text))
        })
        .collect();
    let slots = keystore.slots().map_or_else(|| "any number of secrets fits".to_owned(), |slots| format!("{slots} secrets fit"));
    found.push(match keystore.read().await {
        Ok(Some(contents)) => (
            Code::Done,
            format!(
                "{}: generation {}, {}, {slots}",
                keystore.place(),
                contents.generation,
                counted(contents.keys.len(), "key", "keys")
            ),
        ),
        Ok(None) => (Code::Done, format!("{}: no content yet, {slots}", keystore.place())),
        Err(error) => (Code::Unreachable, error.to_string()),
    });
    found
}

fn steps(webhook: &config::Webhook, status: &Status) -> Vec<String> {
    let policy = &webhook.policy;
    let listed = webhook.preflight.probe.len() + webhook.preflight.read_back.len();
    let asked = if webhook.preflight.come_and_go() { status.replicas.len().max(1) } else { listed };
    let replicas = match (asked, webhook.preflight.status, status.replicas.len()) {
        (0, false, _) => "without a proof from any replica (unproven)".to_owned(),
        (0, true, n) => format!("until each of {n} known replicas has said so in its status file"),
        (n, _, _) => format!(
            "until {} was shown to accept it",
            counted(n, "replica that is asked", "replicas that are asked, each of them,")
        ),
    };
    vec![
        "make a new secret and seal it in the store".to_owned(),
        format!("write it into the keystore beside the current one, wait {}, {replicas}", length(policy.wait)),
        format!("send it to DialNexa: PATCH /user-webhooks/{} with the secret and nothing else", webhook.id),
        format!(
            "wait for {} signed with it (as long as traffic takes)",
            counted(policy.min_deliveries, "genuine delivery", "genuine deliveries")
        ),
        format!("wait {} of watched time for late deliveries signed with the old one", length(policy.drain)),
        "take the old one out of the keystore, and see every replica refuse it".to_owned(),
        format!("at the least {} in all, plus the wait for traffic", length(policy.wait.saturating_add(policy.drain))),
    ]
}

/// As the configuration writes it.
fn length(ms: u64) -> String {
    config::duration_text(Duration::from_millis(ms))
}

fn counted<N: PartialEq + From<u8> + Display>(n: N, one: &str, many: &str) -> String {
    let noun = if n == N::from(1) { one } else { many };
    format!("{n} {noun}")
}
