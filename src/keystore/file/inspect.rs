//! What `check` says of a keystore file, without changing anything.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::{fs::Access, process::geteuid};

use super::{KeystoreFile, owner::Owner, replace};
use crate::{
    config::Command,
    keystore::{Finding, program},
};

pub(super) fn inspect(file: &KeystoreFile, reload: Option<&Command>) -> Vec<Finding> {
    let place = file.place();
    let mut findings = Vec::new();
    match replace::resolve(&file.path) {
        Err(trouble) => findings.push(fatal(format!("{place}: {}: {}", trouble.action, trouble.reason))),
        Ok(target) => {
            findings.extend(directory(&place, replace::directory(&target)));
            findings.extend(content(file, &place, &target));
        }
    }
    if let Some(program) = reload.map(|command| command.argv.first().map_or("", String::as_str))
        && program::find(program).is_none()
    {
        findings.push(fatal(format!(
            "{place}: the reload command {program:?} is not a program that can be run: give its absolute path, and make it \
             executable"
        )));
    }
    findings
}

fn directory(place: &str, dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    if rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        findings.push(fatal(format!(
            "{place}: hookturn (uid {}) cannot create files in {}: give it the directory, or a group that may write there",
            geteuid().as_raw(),
            dir.display()
        )));
    }
    let world_writable = fs::metadata(dir).is_ok_and(|found| found.mode() & 0o1002 == 0o002);
    if world_writable {
        findings.push(note(format!("{place}: everybody may replace files in {}: `chmod o-w` it", dir.display())));
    }
    findings
}

fn content(file: &KeystoreFile, place: &str, target: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = file.read() {
        findings.push(fatal(error.to_string()));
    }
    let Ok(found) = fs::metadata(target) else { return findings };
    let owner = Owner::of(&found);
    if let Some(reason) = owner.not_kept_by(geteuid().as_raw()) {
        findings.push(fatal(format!("{place}: {reason}")));
    }
    if owner.mode & 0o004 != 0 {
        findings.push(note(format!("{place}: everybody on this machine may read the secrets: `chmod o-r` it")));
    }
    if is_mount_point(target) {
        findings.push(fatal(format!(
            "{place}: the file itself is a mount point and cannot be replaced: mount its directory instead"
        )));
    }
    findings
}

/// Whether the file was mounted by itself, as `docker run -v FILE:FILE` does.
fn is_mount_point(target: &Path) -> bool {
    let Some(target) = target.to_str() else { return false };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| point.replace("\\040", " ") == target))
}

fn fatal(text: String) -> Finding {
    Finding { fatal: true, text }
}

fn note(text: String) -> Finding {
    Finding { fatal: false, text }
}
