//! Whose the file is: kept as it was, so that the consumer can read what it could read before.

use std::{
    fs::{File, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
};

/// Owner, group and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

const SETGID: u32 = 0o2000;

impl Owner {
    pub(super) fn of(metadata: &Metadata) -> Owner {
        Owner { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }

    /// Whose a file that hookturn makes for the first time in `dir` is.
    pub(super) fn of_new_file(dir: Owner, euid: u32, egid: u32) -> Owner {
        let shared = (dir.mode & SETGID != 0 || dir.gid != egid) && dir.mode & 0o050 == 0o050;
        Owner {
            uid: if euid == 0 { dir.uid } else { euid },
            gid: if shared || euid == 0 { dir.gid } else { egid },
            mode: if shared { 0o640 } else { 0o600 },
        }
    }

    /// Why a process of `euid` that replaces a file of this owner could lock the consumer out.
    pub(super) fn not_kept_by(self, euid: u32) -> Option<String> {
        // Root can read whatever it is given.
        let kept = euid == 0 || self.uid == euid || self.uid == 0;
        (!kept).then(|| {
            format!(
                "it belongs to uid {}, which hookturn (uid {euid}) cannot keep: `chown {euid}` it, and let the consumer \
                 read it through its group (`chmod 640`)",
                self.uid
            )
        })
    }
}

/// Makes `file` what the replaced one was, or says why it cannot.
pub(super) fn keep(file: &File, old: Owner) -> Result<(), String> {
    let said = |error: io::Error| error.to_string();
    if fchown(file, Some(old.uid), Some(old.gid)).is_err() {
        let now = Owner::of(&file.metadata().map_err(said)?);
        if let Some(reason) = old.not_kept_by(now.uid) {
            return Err(reason);
        }
        if now.gid != old.gid && fchown(file, None, Some(old.gid)).is_err() && old.mode & 0o070 != 0 {
            return Err(format!(
                "its group is {}, which hookturn cannot keep: add hookturn's user to that group, or `chgrp` the file",
                old.gid
            ));
        }
    }
    file.set_permissions(Permissions::from_mode(old.mode & 0o777)).map_err(said)
}

/// Makes a new `file` what [`Owner::of_new_file`] says, as far as we may: it stays ours alone otherwise.
pub(super) fn give(file: &File, new: Owner) -> io::Result<()> {
    let _ = fchown(file, Some(new.uid), Some(new.gid));
    let shared = file.metadata()?.gid() == new.gid;
    file.set_permissions(Permissions::from_mode(if shared { new.mode } else { 0o600 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_shared_only_through_a_directory_that_is() {
        let dir = |uid, gid, mode| Owner { uid, gid, mode };
        let new = |dir| Owner::of_new_file(dir, 998, 998);
        assert_eq!(new(dir(998, 998, 0o700)), Owner { uid: 998, gid: 998, mode: 0o600 });
        assert_eq!(new(dir(998, 998, 0o755)), Owner { uid: 998, gid: 998, mode: 0o600 });
        assert_eq!(new(dir(998, 1001, 0o750)), Owner { uid: 998, gid: 1001, mode: 0o640 });
        assert_eq!(new(dir(0, 1001, 0o2770)), Owner { uid: 998, gid: 1001, mode: 0o640 });
        assert_eq!(new(dir(998, 998, 0o2750)), Owner { uid: 998, gid: 998, mode: 0o640 });
    }

    #[test]
    fn a_new_file_made_by_root_belongs_to_the_directorys_owner() {
        let new = Owner::of_new_file(Owner { uid: 998, gid: 998, mode: 0o700 }, 0, 0);
        assert_eq!(new, Owner { uid: 998, gid: 998, mode: 0o600 });
    }

    #[test]
    fn the_file_of_another_user_is_not_taken_over() {
        let file = |uid| Owner { uid, gid: 1001, mode: 0o640 };
        assert!(file(1001).not_kept_by(998).is_some_and(|reason| reason.contains("uid 1001")));
        assert_eq!(file(998).not_kept_by(998), None);
        assert_eq!(file(0).not_kept_by(998), None);
        assert_eq!(file(1001).not_kept_by(0), None);
    }
}
