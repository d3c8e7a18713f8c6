//! Whom we trust when we talk to DialNexa.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Why there is nobody to trust. Each names the file and the way out.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("ca_file {path}: {reason}")]
    CaFile { path: String, reason: String },
    #[error("this system has no CA certificates ({0}): install ca-certificates, or name a PEM bundle as ca_file")]
    NoSystemCerts(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Trusts the PEM bundle at `ca_file` and nobody else; without one, whom the system trusts.
pub(super) fn trusting(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => add_file(&mut roots, path)?,
        None => add_system(&mut roots)?,
    }
    config(roots)
}

/// Trusts nobody: for a client that only ever speaks plain http to loopback, and so needs no CA bundle to be there.
pub(super) fn trusting_nobody() -> Result<ClientConfig, TlsError> {
    config(RootCertStore::empty())
}

fn config(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Setup(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let wrong = |reason: String| TlsError::CaFile { path: path.display().to_string(), reason };
    let pem = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    for cert in CertificateDer::pem_slice_iter(&pem) {
        let cert = cert.map_err(|e| wrong(format!("not PEM: {e}")))?;
        roots.add(cert).map_err(|e| wrong(format!("holds a certificate that cannot be trusted: {e}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate; a PEM bundle is expected".to_owned()));
    }
    Ok(())
}

fn add_system(roots: &mut RootCertStore) -> Result<(), TlsError> {
    let found = rustls_native_certs::load_native_certs();
    // One certificate that cannot be read must not cut off the others.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoSystemCerts(if reasons.is_empty() { "none found".to_owned() } else { reasons.join("; ") }));
    }
    Ok(())
}
