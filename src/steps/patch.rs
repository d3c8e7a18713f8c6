//! Step 3: DialNexa is switched. The answer is a hint; only a delivery proves it.

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

/// Sends the one request. Called only after its intent was committed.
pub async fn send(tools: &Tools, line: Box<dyn Line>, kid: Kid) -> PatchReport {
    let Some(secret) = tools.vault.secret(kid) else {
        return PatchReport { answer: PatchAnswer::Ambiguous { wait: 0 }, text: format!("the secret {kid} is not in the store") };
    };
    let report = line.patch_secret(&tools.config.id, &secret, tools.config.patch_timeout);
    // The line keeps its own deadline; this one only catches a line that does not.
    match tokio::time::timeout(tools.config.patch_timeout * 2, report).await {
        Ok(report) => report,
        Err(_) => PatchReport { answer: PatchAnswer::Ambiguous { wait: 0 }, text: "no answer in time".to_owned() },
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
