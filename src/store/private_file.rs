//! Files for hookturn's eyes only, that the service can use whoever made them.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::Path,
};

/// Opens for reading and writing. A missing file is made with mode 0600, and its name is on the disk when this returns. When
/// root makes it, it goes to the owner and group of the directory: a command run as root must not lock the service out.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let file = match options.clone().create_new(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return options.open(path),
        made => made?,
    };
    give_to_owner_of(directory(path), &file)?;
    sync_directory(directory(path))?;
    Ok(file)
}

/// Makes a directory with mode 0700. Its parent must exist.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    sync_directory(directory(path))
}

pub(super) fn give_to_owner_of(directory: &Path, file: &File) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(directory)?;
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// A new or renamed file has its name on the disk only after this.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The directory that `path` is in; `.` for a bare name.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_this_directory() {
        assert_eq!(directory(Path::new("hookturn.db")), Path::new("."));
        assert_eq!(directory(Path::new("/var/hookturn.db")), Path::new("/var"));
    }
}
