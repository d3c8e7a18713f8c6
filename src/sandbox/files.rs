//! The directory of a sandbox: credentials, the consumer's keystore, a configuration for hookturn.
//!
//! What is there already is kept, so that a sandbox can be stopped and started over a store that goes on living.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{Sandbox, SandboxError, SandboxOptions, consumer::Keys};
use crate::secret::{Kid, SealingKey, Secret, signature};

/// Everything secret that a sandbox starts from.
pub(super) struct Credentials {
    pub(super) api_key: Secret,
    pub(super) report_token: Secret,
    /// What the provider signs with at the start: the keystore's current key, where there is a keystore.
    pub(super) signing: Secret,
}

pub(super) fn keystore(dir: &Path) -> PathBuf {
    dir.join("keys").join("secrets.json")
}

/// Creates what is missing in `dir`, and reads what is there.
pub(super) fn prepare(dir: &Path, webhook_id: &str) -> Result<Credentials, SandboxError> {
    private_dir(dir)?;
    let keystore = keystore(dir);
    private_dir(keystore.parent().unwrap_or(dir))?;
    let api_key = kept_or_new(&dir.join("api-key"), || Ok(format!("key_sandbox:{}", Secret::generate()?.expose())))?;
    let report_token = kept_or_new(&dir.join("report-token"), || Ok(Secret::generate()?.expose().to_owned()))?;
    kept_or_new(&dir.join("sealing-key"), || Ok(SealingKey::generate()?.encode().to_string()))?;
    let signing = match read(&keystore)? {
        Some(bytes) => {
            let unusable = |reason| SandboxError::Keystore { path: keystore.clone(), reason };
            let keys = Keys::parse(&bytes).map_err(unusable)?;
            keys.current().cloned().ok_or_else(|| unusable("it has no current key"))?
        }
        None => first_generation(&keystore, webhook_id)?,
    };
    write_private(&dir.join("initial-secret"), signing.expose().as_bytes())?;
    Ok(Credentials { api_key, report_token, signing })
}

fn first_generation(keystore: &Path, webhook_id: &str) -> Result<Secret, SandboxError> {
    let (secret, kid) = (Secret::generate()?, Kid::generate()?);
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let content = json!({
        "version": 1,
        "generation": 1,
        "webhook": {"provider": "dialnexa", "plane": "user", "id": webhook_id},
        "scheme": {
            "headers": signature::HEADERS, "algorithm": "hmac-sha256", "encoding": "hex",
            "prefix": "optional", "signed": "raw-body"
        },
        "keys": [{
            "kid": kid, "state": "current", "secret": secret.expose(), "secret_encoding": "utf8",
            "created_at": now, "accept_from": now, "accept_until": null
        }]
    });
    write_private(keystore, content.to_string().as_bytes())?;
    Ok(secret)
}

impl Sandbox {
    /// Writes `hookturn.toml` into `dir`: everything that hookturn needs to rotate the sandbox's webhook. The secret that is
    /// to be adopted is in [`Sandbox::secret_file`].
    pub fn write_config(&self, dir: &Path) -> Result<PathBuf, SandboxError> {
        private_dir(dir)?;
        let path = dir.join("hookturn.toml");
        let text = config(self, &absolute(dir)?)?;
        write_private(&path, text.as_bytes())?;
        Ok(path)
    }
}

/// The file's text. Every path in it is absolute, so that it works from anywhere.
fn config(sandbox: &Sandbox, dir: &Path) -> Result<String, SandboxError> {
    let own = absolute(&sandbox.dir)?;
    let file = |name: &str| quoted(&own.join(name).to_string_lossy());
    let SandboxOptions { name, quarantine, drain, wait, patch_timeout, repeat_min, repeat_max, .. } = &sandbox.options;
    let probes: Vec<String> = sandbox.consumer.urls().iter().map(|url| quoted(url)).collect();
    let mut text = String::new();
    let mut line = |content: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{content}");
    };
    line("# Written by `hookturn sandbox`: short times, loopback addresses, keys of no worth.".to_owned());
    line(format!("[dialnexa]\nbase_url = {}\napi_key = {{ file = {} }}\n", quoted(&sandbox.base_url()), file("api-key")));
    let store = quoted(&format!("sqlite:{}", dir.join("hookturn.db").to_string_lossy()));
    line(format!("[store]\nurl = {store}\nsealing_key = {{ file = {} }}\n", file("sealing-key")));
    let admin = quoted(&format!("unix:{}", dir.join("admin.sock").to_string_lossy()));
    let (deliveries, status) = (sandbox.deliveries, sandbox.status);
    line(format!("[listen]\ndeliveries = \"{deliveries}\"\nadmin = {admin}\nstatus = \"{status}\"\n"));
    line(format!("[[webhook]]\nname = {}\nid = {}", quoted(name), quoted(&sandbox.webhook_id)));
    line(format!("quarantine = \"{}ms\"\ndrain = \"{}ms\"", quarantine.as_millis(), drain.as_millis()));
    let (timeout, min, max) = (patch_timeout.as_millis(), repeat_min.as_millis(), repeat_max.as_millis());
    line(format!("patch = {{ timeout = \"{timeout}ms\", repeat_min = \"{min}ms\", repeat_max = \"{max}ms\" }}"));
    line(format!("keystore = {{ kind = \"file\", path = {} }}", quoted(&absolute(&sandbox.keystore)?.to_string_lossy())));
    line(format!("preflight = {{ wait = \"{}ms\", probe = [{}] }}", wait.as_millis(), probes.join(", ")));
    line(format!("verify = {{ report_token = {{ file = {} }} }}", file("report-token")));
    Ok(text)
}

/// Two free ports of loopback, for somebody who will bind them later, and again after a crash. They are below those that the
/// kernel gives to connections, one of which would sooner or later sit on them.
pub(super) fn free_ports() -> Result<[SocketAddr; 2], SandboxError> {
    // Both are held until both are known: they differ.
    let [(first, _held), (second, _held_too)] = [hold_port()?, hold_port()?];
    Ok([first, second])
}

fn hold_port() -> Result<(SocketAddr, TcpListener), SandboxError> {
    let mut last = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    for _ in 0..100 {
        last.set_port(rand::random_range(15_000..32_000));
        if let Ok(listener) = TcpListener::bind(last) {
            return Ok((last, listener));
        }
    }
    // All of them taken: then any.
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bound = TcpListener::bind(any).and_then(|listener| Ok((listener.local_addr()?, listener)));
    bound.map_err(|source| SandboxError::Bind { addr: any, source })
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn absolute(path: &Path) -> Result<PathBuf, SandboxError> {
    std::path::absolute(path).map_err(failed(path, "resolve"))
}

fn kept_or_new(path: &Path, make: impl FnOnce() -> Result<String, SandboxError>) -> Result<Secret, SandboxError> {
    let bytes = match read(path)? {
        Some(bytes) => bytes,
        None => {
            let made = make()?.into_bytes();
            write_private(path, &made)?;
            made
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    Secret::parse(&text).map_err(|reason| SandboxError::Credential { path: path.to_owned(), reason })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, SandboxError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, "read")(error)),
    }
}

fn private_dir(path: &Path) -> Result<(), SandboxError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path, "create"))
}

/// Replaces the file as a whole; only its owner can read it.
fn write_private(path: &Path, content: &[u8]) -> Result<(), SandboxError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(dir).and_then(|mut file| {
        file.write_all(content)?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).map_err(failed(path, "write"))
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    let path = path.to_owned();
    move |source| SandboxError::File { path, action, source }
}
