//! Where a credential comes from, and reading it when it is needed.

use std::{
    env,
    ffi::OsString,
    fmt,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Where a credential is read from, each time it is needed; the value is never part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// `$CREDENTIALS_DIRECTORY/NAME`, as systemd hands it over.
    Systemd(String),
    File(PathBuf),
    Env(String),
}

/// Why a credential could not be read. Names the place and the way out, never the value.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error(
        "{0}: this process was given no systemd credentials ($CREDENTIALS_DIRECTORY is not set); credentials of a unit are \
         visible to that unit only: run this inside it, or with systemd-run --pipe --wait -p LoadCredential=..., or use \
         {{ file = \"...\" }}"
    )]
    NoCredentials(Credential),
    #[error("{0}: the unit was not given this credential; add LoadCredential={name}:/path/to/it to the unit", name = .0.name())]
    NotLoaded(Credential),
    #[error("{0}: there is no such file")]
    NoFile(Credential),
    #[error("{0}: the variable is not set")]
    NotSet(Credential),
    #[error("{0}: it is empty")]
    Empty(Credential),
    #[error("{0}: longer than {max} bytes, which is not a credential", max = Credential::MAX_BYTES)]
    TooLong(Credential),
    #[error("{0}: it is not text (UTF-8)")]
    NotText(Credential),
    #[error("{place}: {source}")]
    Io { place: Credential, source: io::Error },
}

impl Credential {
    pub const MAX_BYTES: usize = 64 * 1024;

    /// The value, less one trailing newline. Read anew each time, so that a replaced credential needs no restart.
    pub fn read(&self) -> Result<Zeroizing<String>, CredentialError> {
        self.read_in(|name| env::var_os(name))
    }

    /// The same in a given environment.
    pub fn read_in(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Zeroizing<String>, CredentialError> {
        let mut text = match self {
            Credential::Systemd(name) => {
                let directory = variable("CREDENTIALS_DIRECTORY").ok_or_else(|| CredentialError::NoCredentials(self.clone()))?;
                self.read_file(&Path::new(&directory).join(name))?
            }
            Credential::File(path) => self.read_file(path)?,
            Credential::Env(name) => {
                let value = variable(name).ok_or_else(|| CredentialError::NotSet(self.clone()))?;
                Zeroizing::new(value.into_string().map_err(|_| CredentialError::NotText(self.clone()))?)
            }
        };
        let line = text.strip_suffix('\n').map_or(text.len(), |line| line.strip_suffix('\r').unwrap_or(line).len());
        text.truncate(line);
        match text.len() {
            0 => Err(CredentialError::Empty(self.clone())),
            n if n > Self::MAX_BYTES => Err(CredentialError::TooLong(self.clone())),
            _ => Ok(text),
        }
    }

    /// What a person should know of the place, one sentence each: a file that others can read, a missing one.
    pub fn findings(&self) -> Vec<String> {
        let Credential::File(path) = self else { return Vec::new() };
        match path.metadata() {
            Ok(meta) => {
                let mode = meta.permissions().mode() & 0o777;
                if mode & 0o027 == 0 {
                    return Vec::new();
                }
                vec![format!("{self}: mode {mode:04o} lets others read or change it; chmod 0600 {} (or 0640)", path.display())]
            }
            Err(e) => vec![format!("{self}: {e}")],
        }
    }

    /// One allocation of the greatest size, so that no copy of the value is left behind by growth.
    fn read_file(&self, path: &Path) -> Result<Zeroizing<String>, CredentialError> {
        let io = |source: io::Error| match (source.kind(), self) {
            (io::ErrorKind::NotFound, Credential::Systemd(_)) => CredentialError::NotLoaded(self.clone()),
            (io::ErrorKind::NotFound, _) => CredentialError::NoFile(self.clone()),
            (io::ErrorKind::InvalidData, _) => CredentialError::NotText(self.clone()),
            _ => CredentialError::Io { place: self.clone(), source },
        };
        let mut text = Zeroizing::new(String::with_capacity(Self::MAX_BYTES + 2));
        let file = std::fs::File::open(path).map_err(io)?;
        file.take(Self::MAX_BYTES as u64 + 2).read_to_string(&mut text).map_err(io)?;
        Ok(text)
    }

    fn name(&self) -> String {
        match self {
            Credential::Systemd(name) | Credential::Env(name) => name.clone(),
            Credential::File(path) => path.display().to_string(),
        }
    }
}

/// The place: `credential dialnexa-api-key`.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Credential::Systemd(_) => "credential",
            Credential::File(_) => "file",
            Credential::Env(_) => "environment variable",
        };
        write!(f, "{kind} {}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn nothing_set(_: &str) -> Option<OsString> {
        None
    }

    #[test]
    fn a_systemd_credential_is_read_from_its_directory_and_its_absence_explained() {
        let directory = tempfile::tempdir().expect("directory");
        fs::write(directory.path().join("key"), "value\n").expect("write");
        let set = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.path().as_os_str().to_owned());
        let key = Credential::Systemd("key".into());
        assert_eq!(key.read_in(set).expect("read").as_str(), "value");

        let outside = key.read_in(nothing_set).expect_err("outside a unit").to_string();
        assert!(outside.contains("credential key") && outside.contains("systemd-run"), "{outside}");
        let missing = Credential::Systemd("other".into()).read_in(set).expect_err("not loaded").to_string();
        assert!(missing.contains("LoadCredential=other:"), "{missing}");
    }

    #[test]
    fn an_empty_an_overlong_and_a_binary_file_are_no_credentials() {
        let directory = tempfile::tempdir().expect("directory");
        let read = |content: &[u8]| {
            let path = directory.path().join("file");
            fs::write(&path, content).expect("write");
            Credential::File(path).read_in(nothing_set)
        };
        assert!(matches!(read(b"\n"), Err(CredentialError::Empty(_))));
        assert!(matches!(read(&[b'x'; Credential::MAX_BYTES + 1]), Err(CredentialError::TooLong(_))));
        assert!(matches!(read(b"\xff\xfe"), Err(CredentialError::NotText(_))));
        assert_eq!(read(b"two\n\n").expect("read").as_str(), "two\n", "one newline only");
        assert!(matches!(Credential::File("/nowhere/at/all".into()).read(), Err(CredentialError::NoFile(_))));
        assert!(matches!(Credential::Env("X".into()).read_in(nothing_set), Err(CredentialError::NotSet(_))));
        assert_eq!(Credential::Env("X".into()).read_in(|_| Some("v".into())).expect("read").as_str(), "v");
    }

    #[test]
    fn a_file_that_others_can_read_is_found() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("key");
        fs::write(&path, "value").expect("write");
        let findings_at = |mode: u32| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            Credential::File(path.clone()).findings()
        };
        assert!(findings_at(0o600).is_empty());
        assert!(findings_at(0o640).is_empty(), "a group may be meant");
        assert!(findings_at(0o644)[0].contains("mode 0644"));
        assert!(findings_at(0o660)[0].contains("mode 0660"));
    }
}
