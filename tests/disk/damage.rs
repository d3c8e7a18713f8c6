//! What is done to the disk while no daemon runs, and what must come of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::rig::{Moment, Rig};

/// Something that happens to what lies on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    Nothing,
    PowerCut,
    PowerCutAfterFailedSyncs,
    SharedMemoryLost,
    LogLost,
    LogTorn,
    LogFlippedAtItsEnd,
    LogFlippedAtItsBeginning,
    LogGarbage,
    DatabaseLost,
    DatabaseGarbage,
    DatabaseCutInHalf,
    DatabaseOlder,
    DatabaseOlderWithTheLogLeft,
    StateOlder,
    StateLost,
    AnchorLost,
    AnchorGarbage,
    AnchorTorn,
    AnchorOlder,
    AnchorOfAnotherStore,
    KeystoreLost,
    KeystoreGarbage,
    KeystoreEmpty,
    KeystoreOlder,
    KeystoreNewer,
    KeystoreNewerWithAForeignKey,
    ReadOnly,
}

/// What a damage may lead to. A way out is followed to the end of the rotation in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing was lost that matters, or it is put right without a person.
    GoesOn,
    /// The hold `restored`.
    Restored,
    /// Exit code 1, and the message says what to do.
    Damaged,
    /// A store that was never used: it does nothing before somebody adopts.
    Adopt,
    /// It says that the keystore cannot be used, and waits.
    Keystore,
    /// Exit code 69, for as long as it lasts.
    Unreachable,
    /// Which one depends on what lay in the last commit: one that let nothing outward happen may be lost without a trace.
    GoesOnOrRestored,
}

impl Damage {
    /// In the order of the printed table. A new damage does not compile before it is in `expected`; the count holds this list.
    pub const ALL: [Damage; 28] = [
        Damage::Nothing,
        Damage::PowerCut,
        Damage::PowerCutAfterFailedSyncs,
        Damage::SharedMemoryLost,
        Damage::LogLost,
        Damage::LogTorn,
        Damage::LogFlippedAtItsEnd,
        Damage::LogFlippedAtItsBeginning,
        Damage::LogGarbage,
        Damage::DatabaseLost,
        Damage::DatabaseGarbage,
        Damage::DatabaseCutInHalf,
        Damage::DatabaseOlder,
        Damage::DatabaseOlderWithTheLogLeft,
        Damage::StateOlder,
        Damage::StateLost,
        Damage::AnchorLost,
        Damage::AnchorGarbage,
        Damage::AnchorTorn,
        Damage::AnchorOlder,
        Damage::AnchorOfAnotherStore,
        Damage::KeystoreLost,
        Damage::KeystoreGarbage,
        Damage::KeystoreEmpty,
        Damage::KeystoreOlder,
        Damage::KeystoreNewer,
        Damage::KeystoreNewerWithAForeignKey,
        Damage::ReadOnly,
    ];

    pub fn expected(self) -> Expected {
        match self {
            Damage::Nothing | Damage::PowerCut | Damage::PowerCutAfterFailedSyncs | Damage::SharedMemoryLost => Expected::GoesOn,
            Damage::LogLost | Damage::LogFlippedAtItsBeginning | Damage::LogGarbage => Expected::Restored,
            Damage::LogTorn | Damage::LogFlippedAtItsEnd => Expected::GoesOnOrRestored,
            Damage::DatabaseLost | Damage::StateLost => Expected::Adopt,
            Damage::DatabaseGarbage | Damage::DatabaseCutInHalf => Expected::Damaged,
            Damage::DatabaseOlder | Damage::StateOlder => Expected::Restored,
            // The log holds every page that has changed since the backup: the database becomes what it was.
            Damage::DatabaseOlderWithTheLogLeft => Expected::GoesOn,
            Damage::AnchorLost | Damage::AnchorGarbage | Damage::AnchorOfAnotherStore => Expected::Restored,
            // One slot is always whole, and an anchor that lags behind accuses nobody.
            Damage::AnchorTorn | Damage::AnchorOlder => Expected::GoesOn,
            // An empty file holds nothing that could be lost.
            Damage::KeystoreLost | Damage::KeystoreEmpty | Damage::KeystoreOlder => Expected::GoesOn,
            Damage::KeystoreGarbage => Expected::Keystore,
            Damage::KeystoreNewer | Damage::KeystoreNewerWithAForeignKey => Expected::Restored,
            Damage::ReadOnly => Expected::Unreachable,
        }
    }

    /// Why it cannot be done on this machine.
    pub fn needs(self, preload: bool) -> Option<&'static str> {
        match self {
            Damage::PowerCut | Damage::PowerCutAfterFailedSyncs if !preload => Some("a C compiler"),
            Damage::ReadOnly if !rustix::process::geteuid().is_root() => Some("root"),
            _ => None,
        }
    }

    /// Does it. No daemon runs.
    pub fn happen(self, rig: &Rig, backup: &Backup, _moment: Moment) {
        let (database, wal, shm) = (rig.database(""), rig.database("-wal"), rig.database("-shm"));
        let (anchor, keystore) = (rig.database(".anchor"), rig.sandbox.keystore.clone());
        match self {
            Damage::Nothing => {}
            Damage::PowerCut | Damage::PowerCutAfterFailedSyncs => crate::power::cut(rig),
            Damage::SharedMemoryLost => remove(&[&shm]),
            Damage::LogLost => remove(&[&wal, &shm]),
            Damage::LogTorn => alter(&wal, |bytes| bytes.truncate(bytes.len() - 4096)),
            Damage::LogFlippedAtItsEnd => alter(&wal, |bytes| flip(bytes, -2000)),
            Damage::LogFlippedAtItsBeginning => alter(&wal, |bytes| flip(bytes, 100)),
            Damage::LogGarbage => alter(&wal, |bytes| bytes.fill(0x5a)),
            Damage::DatabaseLost => remove(&[&database, &wal, &shm]),
            Damage::DatabaseGarbage => alter(&database, |bytes| bytes.fill(0x5a)),
            Damage::DatabaseCutInHalf => {
                // As where the log was already moved into the database.
                remove(&[&wal, &shm]);
                alter(&database, |bytes| bytes.truncate(bytes.len() / 2));
            }
            Damage::DatabaseOlder => backup.put_back_database(rig),
            Damage::DatabaseOlderWithTheLogLeft => put(&backup.state["hookturn.db"], &database),
            Damage::StateOlder => {
                remove(&[&wal, &shm]);
                backup.state.iter().for_each(|(name, bytes)| put(bytes, &rig.state().join(name)));
            }
            Damage::StateLost => fs::remove_dir_all(rig.state()).expect("remove"),
            Damage::AnchorLost => remove(&[&anchor]),
            Damage::AnchorGarbage => alter(&anchor, |bytes| bytes.fill(0x5a)),
            Damage::AnchorTorn => alter(&anchor, |bytes| tear_newest_slot(bytes)),
            Damage::AnchorOlder => put(&backup.state["hookturn.db.anchor"], &anchor),
            Damage::AnchorOfAnotherStore => {
                let mut theirs = hookturn::store::Anchor::at(&anchor, "another");
                theirs.advance(&[("billing", 3, 1)]).expect("an anchor");
            }
            Damage::KeystoreLost => remove(&[&keystore]),
            Damage::KeystoreGarbage => put(b"\x00\x01not a keystore", &keystore),
            Damage::KeystoreEmpty => put(b"", &keystore),
            Damage::KeystoreOlder => put(&backup.keystore, &keystore),
            Damage::KeystoreNewer => alter_json(&keystore, |content| {
                content["generation"] = json!(content["generation"].as_u64().expect("a number") + 5);
            }),
            Damage::KeystoreNewerWithAForeignKey => alter_json(&keystore, |content| {
                content["generation"] = json!(content["generation"].as_u64().expect("a number") + 5);
                let mut key = content["keys"][0].clone();
                key["kid"] = json!("k_foreign");
                key["state"] = json!("previous");
                key["secret"] = json!("whsec_of-somebody-else-0123456789abcdef");
                content["keys"].as_array_mut().expect("keys").push(key);
            }),
            Damage::ReadOnly => mount(&["--bind"], &rig.state(), &["-o", "remount,bind,ro"]),
        }
    }
}

/// What lay there before the rotation.
pub struct Backup {
    /// The state directory, its database closed.
    pub state: BTreeMap<String, Vec<u8>>,
    pub keystore: Vec<u8>,
}

impl Backup {
    pub fn take(rig: &Rig) -> Backup {
        let files = fs::read_dir(rig.state()).expect("the state").map(|entry| entry.expect("an entry").path());
        let files = files.filter(|path| !path.ends_with("hookturn.db.reserve"));
        let state = files.map(|path| (name(&path), fs::read(&path).expect("read"))).collect();
        Backup { state, keystore: fs::read(&rig.sandbox.keystore).expect("the keystore") }
    }

    /// As docs/operations.md says.
    pub fn put_back_database(&self, rig: &Rig) {
        remove(&[&rig.database("-wal"), &rig.database("-shm")]);
        put(&self.state["hookturn.db"], &rig.database(""));
    }
}

/// Ends [`Damage::ReadOnly`].
pub fn mend(rig: &Rig) {
    let done = std::process::Command::new("umount").arg(rig.state()).status().expect("umount");
    assert!(done.success(), "umount: {done}");
}

fn mount(how: &[&str], dir: &Path, then: &[&str]) {
    let run = |arguments: &[&std::ffi::OsStr]| {
        let output = std::process::Command::new("mount").args(arguments).output().expect("mount");
        assert!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
    };
    let mut first: Vec<&std::ffi::OsStr> = how.iter().map(|word| word.as_ref()).collect();
    first.extend([dir.as_os_str(), dir.as_os_str()]);
    run(&first);
    let mut second: Vec<&std::ffi::OsStr> = then.iter().map(|word| word.as_ref()).collect();
    second.push(dir.as_os_str());
    run(&second);
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

fn remove(paths: &[&PathBuf]) {
    for path in paths {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

fn put(bytes: &[u8], path: &Path) {
    fs::write(path, bytes).expect("write");
}

fn alter(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("read");
    change(&mut bytes);
    put(&bytes, path);
}

fn alter_json(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    alter(path, |bytes| {
        let mut content = serde_json::from_slice(bytes).expect("JSON");
        change(&mut content);
        *bytes = content.to_string().into_bytes();
    });
}

/// One bit, so far from the beginning; below zero: from the end.
fn flip(bytes: &mut [u8], at: i64) {
    let length = i64::try_from(bytes.len()).expect("a length");
    let at = if at < 0 { length + at } else { at };
    bytes[usize::try_from(at).expect("inside")] ^= 0x10;
}

/// The slot with the greater counter loses its end, as where the power went in the middle of an advance.
fn tear_newest_slot(bytes: &mut [u8]) {
    let half = bytes.len() / 2;
    let counter = |slot: &[u8]| {
        let line = String::from_utf8_lossy(&slot[..slot.len().min(60)]).into_owned();
        line.split(' ').nth(1).and_then(|counter| counter.parse::<u64>().ok()).unwrap_or(0)
    };
    let begin = if counter(&bytes[..half]) > counter(&bytes[half..]) { 0 } else { half };
    bytes[begin + 90..begin + 120].fill(b' ');
}
