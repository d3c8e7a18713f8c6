//! The play that `hookturn demo` shows: one consumer with two replicas, steady traffic, and a hiccup right before the switch,
//! so that retries of deliveries signed with the old secret arrive after it. The same for both performances: with hookturn,
//! and as a naive PATCH.

use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Sandbox, SandboxError, SandboxOptions,
    consumer::Behaviour,
    http::client,
    provider::{Label, Outcome, Settings},
};
use crate::secret::{Kid, Secret};

/// How long a replica answers 503 before the switch. DialNexa tries those deliveries again, signed as before.
const HICCUP: Duration = Duration::from_millis(1_500);
/// Between two tries of a delivery; there are two. [`options`] drains for longer than that.
const BACKOFF: Duration = Duration::from_millis(2_500);
/// The naive change: between the PATCH and the moment when the first replica has the new secret, and then the second one.
const FIRST_TOLD: Duration = Duration::from_secs(1);
const SECOND_TOLD: Duration = Duration::from_millis(2_500);

/// The world of the play, in `dir`.
pub fn options(dir: PathBuf, per_second: f64) -> SandboxOptions {
    let backoff_ms = u64::try_from(BACKOFF.as_millis()).unwrap_or(u64::MAX);
    SandboxOptions {
        per_second,
        settings: Settings { retries: 1, backoff_ms, ..Settings::default() },
        refresh: Duration::from_millis(300),
        quarantine: Duration::from_secs(4),
        drain: Duration::from_secs(6),
        wait: Duration::from_secs(1),
        ..SandboxOptions::new(dir)
    }
}

/// The first replica answers 503 for a moment.
pub async fn hiccup(sandbox: &Sandbox) {
    let replica = sandbox.consumer.replicas().into_iter().next();
    if let Some(replica) = &replica {
        replica.behave(Behaviour::Fails { status: 503 });
    }
    tokio::time::sleep(HICCUP).await;
    if let Some(replica) = &replica {
        replica.behave(Behaviour::Good);
    }
}

/// How many keys the keystore file holds; 0 where it cannot be read.
pub fn keys_in(sandbox: &Sandbox) -> usize {
    let keystore = fs::read(&sandbox.keystore).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    keystore.and_then(|keystore| keystore["keys"].as_array().map(Vec::len)).unwrap_or(0)
}

/// What came of the traffic. Deliveries on their way are in `sent` only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    pub accepted: u64,
    /// Ended without a 2xx: given up by the provider, lost for the consumer.
    pub rejected: u64,
    /// Those of them whose last try was signed with the secret that was there first.
    pub rejected_old: u64,
    /// Tries that the consumer answered with 401, also where a later one was accepted.
    pub refused_tries: u64,
    /// Deliveries that were accepted at a later try than the first.
    pub retried: u64,
}

impl Tally {
    /// Counts what the provider remembers: everything, in a play.
    pub fn of(sandbox: &Sandbox) -> Tally {
        const FIRST_SECRET: Label = 0;
        let mut tally = Tally::default();
        for delivery in sandbox.handle().deliveries(0, Some(&sandbox.webhook_id), usize::MAX) {
            tally.sent += 1;
            tally.refused_tries += delivery.attempts.iter().filter(|attempt| attempt.status == Some(401)).count() as u64;
            match delivery.outcome {
                Outcome::Pending => {}
                Outcome::Accepted => {
                    tally.accepted += 1;
                    tally.retried += u64::from(delivery.attempts.len() > 1);
                }
                Outcome::Rejected | Outcome::Lost | Outcome::Dropped => {
                    tally.rejected += 1;
                    tally.rejected_old += u64::from(delivery.label == FIRST_SECRET);
                }
            }
        }
        tally
    }

    pub fn on_their_way(&self) -> u64 {
        self.sent - self.accepted - self.rejected
    }
}

/// Ends the traffic and waits until every delivery has had its last try. False: some have not within `limit`.
pub async fn finish(sandbox: &Sandbox, limit: Duration) -> bool {
    sandbox.handle().traffic_on(&sandbox.webhook_id, false);
    sandbox.handle().settled(limit).await
}

/// What happens in the naive change, as it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// DialNexa has answered 200: from now on it signs with the new secret.
    Patched,
    /// The consumer's file has the new secret only, and the first replica has read it.
    FirstTold,
    /// The last replica has read it too.
    AllTold,
}

/// Why the naive change could not be played.
#[derive(Debug, thiserror::Error)]
pub enum NaiveError {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("the keystore file cannot be changed: {0}")]
    Keystore(#[from] io::Error),
    #[error("the keystore file cannot be read: {0}")]
    Format(#[from] serde_json::Error),
    #[error("the PATCH was not answered: {0}")]
    Http(#[from] reqwest::Error),
    #[error("the PATCH was answered with {0}")]
    Status(u16),
}

/// What a script does: PATCH, then tell the consumer, replica after replica. Calls `scene` as it goes.
pub async fn naive(sandbox: &Sandbox, mut scene: impl FnMut(Scene)) -> Result<(), NaiveError> {
    let secret = Secret::generate().map_err(SandboxError::from)?;
    let second = sandbox.consumer.replicas().into_iter().nth(1);
    if let Some(replica) = &second {
        replica.behave(Behaviour::NeverReloads);
    }
    let begun = patch(sandbox, &secret).await?;
    scene(Scene::Patched);
    tokio::time::sleep_until((begun + FIRST_TOLD).into()).await;
    replace_key(sandbox, &secret)?;
    sandbox.consumer.reload().await;
    scene(Scene::FirstTold);
    tokio::time::sleep_until((begun + FIRST_TOLD + SECOND_TOLD).into()).await;
    if let Some(replica) = &second {
        replica.behave(Behaviour::Good);
    }
    sandbox.consumer.reload().await;
    scene(Scene::AllTold);
    Ok(())
}

async fn patch(sandbox: &Sandbox, secret: &Secret) -> Result<Instant, NaiveError> {
    let url = format!("{}/user-webhooks/{}", sandbox.base_url(), sandbox.webhook_id);
    let request = client(Duration::from_secs(10))?.patch(url).bearer_auth(sandbox.api_key.expose());
    let answer = request.json(&json!({"secret": secret.expose()})).send().await?;
    match answer.status().is_success() {
        true => Ok(Instant::now()),
        false => Err(NaiveError::Status(answer.status().as_u16())),
    }
}

/// Puts the new secret in the place of the old one, as somebody with an editor would: no overlap.
fn replace_key(sandbox: &Sandbox, secret: &Secret) -> Result<(), NaiveError> {
    let mut keystore: Value = serde_json::from_slice(&fs::read(&sandbox.keystore)?)?;
    let kid = Kid::generate().map_err(SandboxError::from)?;
    keystore["generation"] = json!(keystore["generation"].as_u64().unwrap_or(1) + 1);
    keystore["keys"] = json!([{"kid": kid, "state": "current", "secret": secret.expose(), "secret_encoding": "utf8"}]);
    let beside = sandbox.keystore.with_extension("new");
    fs::write(&beside, keystore.to_string())?;
    Ok(fs::rename(&beside, &sandbox.keystore)?)
}
