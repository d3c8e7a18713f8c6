//! Step 3: DialNexa is switched. The answer is a hint; only a delivery proves it.

use std::time::Duration;

use crate::{
    dialnexa::{Line, PatchReport, ProviderError, Webhook},
    rotation::{Inspection, PatchAnswer},
    secret::Kid,
};

use super::Tools;

/// Opens the connection that one attempt goes over. Nothing is sent.
pub async fn connect(tools: &Tools) -> Result<Box<dyn Line>, ProviderError> {
    tools.provider.connect().await
}

/// Sends the one request, within `deadline`. Called only after its intent was committed.
pub async fn send(tools: &Tools, line: Box<dyn Line>, kid: Kid, deadline: Duration) -> PatchReport {
    let ambiguous = |text: &str| PatchReport { answer: PatchAnswer::Ambiguous { wait: 0 }, text: text.to_owned() };
    if deadline.is_zero() {
        return ambiguous("not sent: too much time went by after its intent");
    }
    let Some(secret) = tools.vault.secret(kid) else {
        return ambiguous(&format!("the secret {kid} is not in the store"));
    };
    let report = line.patch_secret(&tools.config.id, &secret, deadline);
    // The line keeps its own deadline; this one only catches a line that does not.
    match tokio::time::timeout(deadline * 2, report).await {
        Ok(report) => report,
        Err(_) => ambiguous("no answer in time"),
    }
}

/// Whether the webhook is still there, and as it was.
pub async fn inspect(tools: &Tools) -> (Inspection, Result<Webhook, ProviderError>) {
    let answer = tools.provider.get(&tools.config.id).await;
    let inspection = match &answer {
        Ok(webhook) if webhook.is_active == Some(false) => Inspection::Inactive,
        Ok(_) => Inspection::Active,
        Err(ProviderError::NotFound { .. }) => Inspection::Gone,
        Err(ProviderError::ApiKeyRefused { .. }) => Inspection::ApiKeyRefused,
        Err(_) => Inspection::Unreachable,
    };
    (inspection, answer)
}
