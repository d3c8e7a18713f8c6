//! The advisory lock that keeps two writers of one file apart.

use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
    thread,
    time::Duration,
};

use rustix::fs::OFlags;

use super::replace::{Trouble, directory, hidden};

/// Held until it is dropped, or the process ends. The file `.NAME.lock` stays: removing it would let two writers in.
pub(super) struct Lock {
    _file: File,
}

const WAITS: u32 = 250;
const WAIT: Duration = Duration::from_millis(20);

impl Lock {
    /// Waits up to five seconds for another writer, which needs milliseconds.
    pub(super) fn take(target: &Path) -> Result<Lock, Trouble> {
        let path = directory(target).join(hidden(target, "lock"));
        let file = open(&path).map_err(|error| unusable(&path, target, &error))?;
        for _ in 0..WAITS {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) => thread::sleep(WAIT),
                Err(TryLockError::Error(error)) => return Err(Trouble::new("lock", target, &error)),
            }
        }
        let reason = format!("another process holds {} (`fuser {}` names it)", path.display(), path.display());
        Err(Trouble { action: "lock", reason })
    }
}

/// A lock file that is there and is not ours to open; or a directory that cannot take one.
fn unusable(path: &Path, target: &Path, error: &io::Error) -> Trouble {
    match path.symlink_metadata() {
        Ok(found) if error.kind() != io::ErrorKind::ReadOnlyFilesystem => {
            let (uid, path) = (found.uid(), path.display());
            let reason = format!("{path} (of uid {uid}) cannot be used: {error}: remove it while no other hookturn runs");
            Trouble { action: "lock", reason }
        }
        _ => Trouble::new("lock", target, error),
    }
}

/// Opens the lock file, or makes one that everybody who may write in the directory can open: never through a link, which
/// whoever owns the directory could point at somebody else's file.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match options.create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            share(&file, path)?;
            Ok(file)
        }
        // Another writer was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.create_new(false).open(path),
        Err(error) => Err(error),
    }
}

/// Whoever made it, root included: the directory's owner, and its group where the group may write, can use the lock.
fn share(file: &File, path: &Path) -> io::Result<()> {
    let dir = std::fs::metadata(directory(path))?;
    let group_writes = dir.mode() & 0o020 != 0;
    // Without the right to give it away it belongs to whoever made it, which is the service.
    let _ = fchown(file, Some(dir.uid()), Some(dir.gid())).or_else(|_| fchown(file, None, Some(dir.gid())));
    let same_group = file.metadata()?.gid() == dir.gid();
    file.set_permissions(Permissions::from_mode(if group_writes && same_group { 0o660 } else { 0o600 }))
}
