//! What `check` says about the place of a store.

use std::{fs::Metadata, os::unix::fs::PermissionsExt, path::Path};

use rustix::fs::{Access, access, statfs, statvfs};

use super::{lock::Lock, schema};
use crate::store::{Finding, private_file};

const MIB: u64 = 1 << 20;

/// Room for years of records and journals; below it a log that fills the same disk is likely the cause.
const LITTLE_SPACE: u64 = 100 * MIB;
/// Below it a WAL between two checkpoints may not fit.
const NO_SPACE: u64 = 8 * MIB;

pub(super) fn examine(path: &Path) -> Vec<Finding> {
    let dir = private_file::directory(path);
    let Ok(meta) = std::fs::metadata(dir) else { return missing(dir) };
    if !meta.is_dir() {
        return vec![fatal(format!("{} is not a directory", dir.display()))];
    }
    let mut findings = Vec::new();
    findings.extend(file_system(dir));
    findings.extend(space(dir));
    findings.extend(permissions(dir, &meta));
    if path.exists() {
        findings.extend(schema::examine(path).err().map(|fault| fatal(fault.at(path, "open").to_string())));
    }
    findings.extend(Lock::holder(path).map(|holder| warning(format!("{} is in use by {holder}", path.display()))));
    findings
}

fn missing(dir: &Path) -> Vec<Finding> {
    let parent = private_file::directory(dir);
    if !parent.is_dir() {
        return vec![fatal(format!("{}: neither it nor its parent directory exists; make the parent", dir.display()))];
    }
    let mut findings = vec![warning(format!("{} does not exist yet: hookturn will make it", dir.display()))];
    findings.extend(file_system(parent));
    findings.extend(space(parent));
    findings.extend(unwritable(parent));
    findings
}

fn file_system(dir: &Path) -> Option<Finding> {
    of_kind(statfs(dir).ok()?.f_type as u64, dir)
}

fn of_kind(kind: u64, dir: &Path) -> Option<Finding> {
    // The numbers are those of linux/magic.h; the kernel keeps them in a signed word of the machine's width.
    let memory = |name| fatal(format!("{} is in memory ({name}): a reboot would lose every secret; use a disk", dir.display()));
    let network = |name| {
        fatal(format!(
            "{} is on a network ({name}), where SQLite's locks and log cannot be trusted; use a local disk",
            dir.display()
        ))
    };
    match kind & 0xffff_ffff {
        0x0102_1994 => Some(memory("tmpfs")),
        0x8584_58f6 => Some(memory("ramfs")),
        0x6969 => Some(network("nfs")),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some(network("smb")),
        0x794c_7630 => Some(warning(format!(
            "{} is on an overlay, a container's own layer: it is lost with the container; mount a volume",
            dir.display()
        ))),
        0x6573_5546 => Some(warning(format!("{} is on FUSE: make sure that fsync reaches a disk there", dir.display()))),
        _ => None,
    }
}

fn space(dir: &Path) -> Option<Finding> {
    let fs = statvfs(dir).ok()?;
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    let text = format!("{}: {} MiB free; without space nothing can be rotated", dir.display(), free / MIB);
    match free {
        0..NO_SPACE => Some(fatal(text)),
        NO_SPACE..LITTLE_SPACE => Some(warning(text)),
        _ => None,
    }
}

fn permissions(dir: &Path, meta: &Metadata) -> Vec<Finding> {
    let mode = meta.permissions().mode();
    let sticky = mode & 0o1000 != 0;
    let mut findings = Vec::from_iter(unwritable(dir));
    if mode & 0o002 != 0 && !sticky {
        findings.push(fatal(format!(
            "{}: everybody can replace the store (mode {:o}): chmod 0700",
            dir.display(),
            mode & 0o7777
        )));
    } else if mode & 0o066 != 0 {
        findings.push(warning(format!("{}: open to others (mode {:o}): chmod 0700", dir.display(), mode & 0o7777)));
    }
    findings
}

fn unwritable(dir: &Path) -> Option<Finding> {
    let denied = access(dir, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(fatal(format!("{}: not writable for this user ({denied})", dir.display())))
}

fn fatal(text: String) -> Finding {
    Finding { fatal: true, text }
}

fn warning(text: String) -> Finding {
    Finding { fatal: false, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_forgets_or_cannot_lock_is_named() {
        for (kind, fatal, said) in [
            (0x0102_1994, true, "tmpfs"),
            (0x8584_58f6, true, "ramfs"),
            (0x6969, true, "nfs"),
            (0x517b, true, "smb"),
            (0x794c_7630, false, "overlay"),
            (0x6573_5546, false, "FUSE"),
        ] {
            let finding = of_kind(kind, Path::new("/srv")).expect(said);
            assert!(finding.fatal == fatal && finding.text.contains(said), "{}", finding.text);
        }
        assert!(of_kind(0xef53, Path::new("/srv")).is_none(), "ext4 is a disk");
    }
}
