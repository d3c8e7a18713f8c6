use base64::Engine;
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use rand::{TryRng, rngs::SysRng};
use zeroize::Zeroizing;

use super::{Kid, NoRandomness, Secret};

/// The 32-byte key under which secrets lie in the store (XChaCha20-Poly1305, random 24-byte nonce, AAD = webhook name and kid).
pub struct SealingKey(Zeroizing<[u8; 32]>);

/// A sealed secret: nonce, then ciphertext and tag.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    #[error("the sealing key is not 32 bytes in base64 (`hookturn keygen` makes one)")]
    BadKey,
    #[error("the secret {kid} of webhook {webhook} does not open: wrong sealing key, or the store was altered")]
    DoesNotOpen { webhook: String, kid: Kid },
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

const NONCE_BYTES: usize = 24;

impl SealingKey {
    /// A new key from the operating system.
    pub fn generate() -> Result<SealingKey, NoRandomness> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        SysRng.try_fill_bytes(&mut *bytes).map_err(NoRandomness)?;
        Ok(SealingKey(bytes))
    }

    /// Reads the base64 form, white space around it ignored.
    pub fn parse(text: &str) -> Result<SealingKey, SealingError> {
        let raw = base64::engine::general_purpose::STANDARD.decode(text.trim()).map_err(|_| SealingError::BadKey)?;
        let raw = Zeroizing::new(raw);
        let mut bytes = Zeroizing::new([0u8; 32]);
        if raw.len() != bytes.len() {
            return Err(SealingError::BadKey);
        }
        bytes.copy_from_slice(&raw);
        Ok(SealingKey(bytes))
    }

    /// The base64 form, to be written into a credential file.
    pub fn encode(&self) -> Zeroizing<String> {
        Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(*self.0))
    }

    pub fn seal(&self, webhook: &str, kid: Kid, secret: &Secret) -> Result<Sealed, SealingError> {
        let mut out = vec![0u8; NONCE_BYTES];
        SysRng.try_fill_bytes(&mut out).map_err(NoRandomness)?;
        let nonce = nonce(&out);
        let aad = associated_data(webhook, kid);
        let boxed = self
            .cipher()
            .encrypt(&nonce, Payload { msg: secret.expose().as_bytes(), aad: &aad })
            .map_err(|_| SealingError::DoesNotOpen { webhook: webhook.to_owned(), kid })?;
        out.extend_from_slice(&boxed);
        Ok(Sealed(out))
    }

    pub fn open(&self, webhook: &str, kid: Kid, sealed: &Sealed) -> Result<Secret, SealingError> {
        let does_not_open = || SealingError::DoesNotOpen { webhook: webhook.to_owned(), kid };
        if sealed.0.len() < NONCE_BYTES {
            return Err(does_not_open());
        }
        let (head, boxed) = sealed.0.split_at(NONCE_BYTES);
        let aad = associated_data(webhook, kid);
        let plain = self.cipher().decrypt(&nonce(head), Payload { msg: boxed, aad: &aad }).map_err(|_| does_not_open())?;
        let plain = Zeroizing::new(plain);
        let text = std::str::from_utf8(&plain).map_err(|_| does_not_open())?;
        Ok(Secret(Zeroizing::new(text.to_owned())))
    }

    /// A key for keyed hashes of what must be recognised again but not kept (body digests), bound to `purpose`.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        use hmac::{Hmac, KeyInit, Mac};
        let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(&*self.0)
            .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
        mac.update(b"hookturn/derive/");
        mac.update(purpose.as_bytes());
        let mut out = Zeroizing::new([0u8; 32]);
        out.copy_from_slice(&mac.finalize().into_bytes());
        out
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

fn nonce(bytes: &[u8]) -> XNonce {
    let mut nonce = [0u8; NONCE_BYTES];
    nonce.copy_from_slice(&bytes[..NONCE_BYTES]);
    nonce.into()
}

fn associated_data(webhook: &str, kid: Kid) -> Vec<u8> {
    format!("hookturn/secret/1\0{webhook}\0{kid}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_only_for_its_own_webhook_and_kid_and_key() {
        let key = SealingKey::generate().expect("randomness");
        let (a, b) = (Kid::parse("a").expect("kid"), Kid::parse("b").expect("kid"));
        let secret = Secret::parse("whsec_abc").expect("secret");
        let sealed = key.seal("billing", a, &secret).expect("seal");
        assert!(key.open("billing", a, &sealed).expect("open").same_as(&secret));
        assert!(key.open("billing", b, &sealed).is_err());
        assert!(key.open("orders", a, &sealed).is_err());
        assert!(SealingKey::generate().expect("randomness").open("billing", a, &sealed).is_err());
        let copy = SealingKey::parse(&key.encode()).expect("parse");
        assert!(copy.open("billing", a, &sealed).is_ok());
        assert!(SealingKey::parse("c2hvcnQ=").is_err());
    }
}
