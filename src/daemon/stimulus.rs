//! Provokes a delivery where a rotation waits for nothing else. What it does was approved by a person, in the configuration.
//!
//! That it is done is on record before it is done, so it is done at most once in a rotation, also across a crash. What it prints
//! or answers goes nowhere: it may hold what nobody should read in a log.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, sync::oneshot, time::timeout};

use super::{describe, ward::Ward, writer::Writer};
use crate::{
    config::{Credential, Provocation, Stimulus},
    rotation::Note,
    store::UnixMillis,
};

impl Writer {
    /// Uses the stimulus of every webhook that is due for one.
    pub fn stimulate(&mut self) {
        let now = self.clock.unix_millis();
        for ward in &mut self.wards {
            let Some(stimulus) = due(ward, now) else { continue };
            ward.facts.stimulated = ward.record.phase.rotation().map(|rotation| rotation.number);
            ward.write_down(Note::Stimulated, "daemon", now);
            ward.keep_facts();
            let (done, committed) = oneshot::channel();
            self.acknowledgements.push(done);
            let name = ward.name().to_owned();
            self.bell.tasks.spawn(async move {
                if committed.await.is_ok() {
                    match provoke(&stimulus, &name).await {
                        Ok(how) => tracing::info!(webhook = name, "the stimulus was used: {how}"),
                        Err(reason) => tracing::warn!(webhook = name, "the stimulus failed and is not repeated: {reason}"),
                    }
                }
            });
        }
    }
}

fn due(ward: &Ward, now: UnixMillis) -> Option<Stimulus> {
    let stimulus = ward.tools.config.stimulus.as_ref()?;
    let number = ward.record.phase.rotation()?.number;
    let after = i64::try_from(stimulus.after.as_millis()).unwrap_or(i64::MAX);
    let silent = ward.traffic.target.count == 0 && ward.traffic.old.count == 0 && ward.traffic.age(now) >= after;
    let due = silent && ward.facts.stimulated != Some(number) && describe::waits_for_traffic(ward);
    due.then(|| stimulus.clone())
}

async fn provoke(stimulus: &Stimulus, webhook: &str) -> Result<String, String> {
    let ended = match &stimulus.what {
        Provocation::Run(argv) => timeout(stimulus.timeout, run(argv, webhook)).await,
        Provocation::Post { url, token } => timeout(stimulus.timeout, post(url, token.as_ref(), stimulus.timeout)).await,
    };
    ended.unwrap_or_else(|_| Err(format!("it did not end within {} s", stimulus.timeout.as_secs_f32())))
}

async fn run(argv: &[String], webhook: &str) -> Result<String, String> {
    let (program, arguments) = argv.split_first().ok_or("it is not named")?;
    let status = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOOKTURN_WEBHOOK", webhook)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok("the command succeeded".to_owned()) } else { Err(format!("{program}: {status}")) }
}

async fn post(url: &str, token: Option<&Credential>, limit: Duration) -> Result<String, String> {
    let client = reqwest::Client::builder().timeout(limit).redirect(reqwest::redirect::Policy::none()).build();
    let mut request = client.map_err(|error| error.to_string())?.post(url);
    if let Some(token) = token {
        let token = token.read().map_err(|error| error.to_string())?;
        request = request.bearer_auth(token.trim_end());
    }
    let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
    match answer.status() {
        status if status.is_success() => Ok(format!("answered {}", status.as_u16())),
        status => Err(format!("answered {}", status.as_u16())),
    }
}
