//! A power cut: of what a killed daemon has written, only what it has synced is left. `tests/store/failing_sync.c` keeps that.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::rig::Rig;

pub fn shadow(rig: &Rig) -> PathBuf {
    rig.dir.path().join("shadow")
}

/// The keystore that is there before the first daemon is on the disk.
pub fn begin(rig: &Rig) {
    fs::create_dir(shadow(rig)).expect("a directory");
    note(keys(rig), &shadow(rig));
}

/// The daemon is dead. Every file goes back to its last sync, every directory to the names of its own.
pub fn cut(rig: &Rig) {
    for dir in [&rig.state(), keys(rig)] {
        let names = shadow(rig).join(format!("dir-{}", fs::metadata(dir).expect("a directory").ino()));
        let names = fs::read_to_string(names).expect("its names were synced");
        let synced = names.lines().map(|line| {
            let (inode, name) = line.split_once(' ').expect("inode and name");
            // A file that was never synced has a name and nothing in it.
            (dir.join(name), fs::read(shadow(rig).join(inode)).unwrap_or_default())
        });
        let synced: Vec<_> = synced.collect();
        for path in files(dir) {
            fs::remove_file(path).expect("remove");
        }
        for (path, content) in synced {
            fs::write(path, content).expect("write");
        }
        note(dir, &shadow(rig));
    }
}

fn keys(rig: &Rig) -> &Path {
    rig.sandbox.keystore.parent().expect("a directory")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file()).collect()
}

/// What lies there now is on the disk.
fn note(dir: &Path, shadow: &Path) {
    let mut names = String::new();
    for path in files(dir) {
        let inode = fs::metadata(&path).expect("a file").ino();
        fs::copy(&path, shadow.join(inode.to_string())).expect("copy");
        names += &format!("{inode} {}\n", path.file_name().expect("a name").to_string_lossy());
    }
    fs::write(shadow.join(format!("dir-{}", fs::metadata(dir).expect("a directory").ino())), names).expect("write");
}
