//! Putting a new content in the place of the old one, whole and durable.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use rustix::process::{getegid, geteuid};

use super::owner::{self, Owner};
use crate::boundary::{self, Boundary};

/// What could not be done, why, and the way out.
pub(super) struct Trouble {
    pub action: &'static str,
    pub reason: String,
}

impl Trouble {
    pub(super) fn new(action: &'static str, target: &Path, error: &io::Error) -> Trouble {
        Trouble { action, reason: explain(error, target) }
    }
}

/// The file that `path` stands for: the target of a link is replaced where it lies, never the link.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Trouble> {
    let trouble = |error: &io::Error| Trouble::new("find", path, error);
    match fs::canonicalize(path) {
        Ok(target) => return Ok(target),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(trouble(&error)),
        Err(_) if path.is_symlink() => {
            let reason = "it is a link to a file that does not exist: create that file (empty will do), or remove the link";
            return Err(Trouble { action: "find", reason: reason.to_owned() });
        }
        Err(_) => {}
    }
    let Some(name) = path.file_name() else {
        return Err(Trouble { action: "find", reason: "the path does not end in a file name".to_owned() });
    };
    let dir = fs::canonicalize(directory(path)).map_err(|error| trouble(&error))?;
    Ok(dir.join(name))
}

/// Writes `bytes` beside `target` and renames them over it. `old` is the open file that is replaced.
pub(super) fn replace(target: &Path, old: Option<&File>, bytes: &[u8]) -> Result<(), Trouble> {
    let failed = |action| move |error: io::Error| Trouble::new(action, target, &error);
    let dir = directory(target);
    remove_leftovers(target);

    let prefix = hidden(target, "");
    let mut new = tempfile::Builder::new().prefix(&prefix).suffix(LEFTOVER).tempfile_in(dir).map_err(failed("write"))?;
    new.as_file_mut().write_all(bytes).map_err(failed("write"))?;
    match old {
        Some(old) => {
            let old = Owner::of(&old.metadata().map_err(failed("read"))?);
            owner::keep(new.as_file(), old).map_err(|reason| Trouble { action: "keep its owner", reason })?;
        }
        None => {
            let dir = Owner::of(&fs::metadata(dir).map_err(failed("read"))?);
            let new_owner = Owner::of_new_file(dir, geteuid().as_raw(), getegid().as_raw());
            owner::give(new.as_file(), new_owner).map_err(failed("write"))?;
        }
    }
    new.as_file().sync_all().map_err(failed("write"))?;
    boundary::reach(Boundary::KeystoreWritten);
    new.persist(target).map_err(|error| Trouble::new("put in place", target, &error.error))?;
    boundary::reach(Boundary::KeystoreRenamed);
    sync_directory(target)
}

/// Makes durable what is there already.
pub(super) fn settle(target: &Path, file: &File) -> Result<(), Trouble> {
    file.sync_all().map_err(|error| Trouble::new("sync", target, &error))?;
    sync_directory(target)
}

/// The directory of a path, `.` for a bare name.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

/// The name of a companion of `target`: `.secrets.json.lock`.
pub(super) fn hidden(target: &Path, suffix: &str) -> String {
    format!(".{}.{suffix}", target.file_name().unwrap_or_default().to_string_lossy())
}

const LEFTOVER: &str = ".new";

/// Removes what writers that were killed left behind; it holds secrets. Called under the lock, so nobody is using it.
fn remove_leftovers(target: &Path) {
    let prefix = hidden(target, "");
    let Ok(entries) = fs::read_dir(directory(target)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(LEFTOVER));
        if ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            // What cannot be removed now is tried again at the next write.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn sync_directory(target: &Path) -> Result<(), Trouble> {
    let synced = File::open(directory(target)).and_then(|dir| dir.sync_all());
    synced.map_err(|error| Trouble::new("sync the directory", target, &error))
}

fn explain(error: &io::Error, target: &Path) -> String {
    let dir = directory(target).display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("no space left on the device of {dir}; the old content is untouched: free some space")
        }
        ErrorKind::ReadOnlyFilesystem => {
            format!("{dir} is on a read-only file system: remount it, or add ReadWritePaths={dir} to the unit")
        }
        ErrorKind::PermissionDenied => format!(
            "permission denied: hookturn (uid {}) has to read the file, and to create files in {dir}: give it the directory, \
             or a group that may write there",
            geteuid().as_raw()
        ),
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            format!("the directory {dir} does not exist: make it, for hookturn to write and the consumer to read")
        }
        ErrorKind::ResourceBusy | ErrorKind::CrossesDevices => {
            "the file itself is a mount point and cannot be replaced: mount its directory instead".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_this_directory() {
        assert_eq!(directory(Path::new("secrets.json")), Path::new("."));
    }

    #[test]
    fn every_common_trouble_says_the_way_out() {
        for (code, expected) in [
            (rustix::io::Errno::NOSPC, "free some space"),
            (rustix::io::Errno::ROFS, "ReadWritePaths=/srv/keys"),
            (rustix::io::Errno::ACCESS, "has to read the file"),
            (rustix::io::Errno::NOENT, "/srv/keys does not exist"),
            (rustix::io::Errno::BUSY, "mount its directory"),
        ] {
            let error = io::Error::from_raw_os_error(code.raw_os_error());
            let reason = explain(&error, Path::new("/srv/keys/secrets.json"));
            assert!(reason.contains(expected), "{code:?}: {reason}");
        }
    }
}
