//! Step 1: a new secret, sealed into the store in the same commit that begins the rotation.

use super::Tools;
use crate::{
    secret::{Kid, NoRandomness, SealingError, SealingKey, Secret},
    store::{Origin, StoredSecret, UnixMillis},
};

/// A secret that exists in memory only. It becomes real with the commit that carries `stored`.
pub struct Fresh {
    pub kid: Kid,
    pub secret: Secret,
    pub stored: StoredSecret,
}

#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error(transparent)]
    Sealing(#[from] SealingError),
}

/// Makes `whsec_` and 32 random bytes under a random kid. A crash before the commit leaves nothing behind.
pub fn generate(tools: &Tools, now: UnixMillis) -> Result<Fresh, GenerateError> {
    seal(&tools.sealing, &tools.config.name, tools.chance.kid()?, Secret::generate()?, Origin::Generated, now)
}

/// Seals a secret that came from elsewhere.
pub fn seal(
    sealing: &SealingKey,
    webhook: &str,
    kid: Kid,
    secret: Secret,
    origin: Origin,
    now: UnixMillis,
) -> Result<Fresh, GenerateError> {
    let sealed = sealing.seal(webhook, kid, &secret)?;
    Ok(Fresh { kid, secret, stored: StoredSecret { kid, sealed, origin, created: now } })
}
