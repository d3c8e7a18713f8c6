//! Space that is kept back: `<database>.reserve`. It is given up when the disk is full, so that a rotation that is under way
//! can be finished, and made again once there is room.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::store::private_file;

/// A log between two checkpoints, and what a checkpoint adds to the database.
const BYTES: u64 = 8 << 20;

/// What is known of the reserve of one store.
pub(super) struct Reserve {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Kept,
    /// There was never room for one: a very small disk. Nothing is promised, and nothing refused.
    Without,
    Spent,
}

impl Reserve {
    /// What lies beside this database.
    pub fn of(database: &Path) -> Reserve {
        let mut path = database.as_os_str().to_owned();
        path.push(".reserve");
        let path = PathBuf::from(path);
        let kept = fs::metadata(&path).is_ok_and(|meta| meta.len() >= BYTES);
        Reserve { path, state: Mutex::new(if kept { State::Kept } else { State::Without }) }
    }

    /// The reserve is in use: the disk was full, and has no room for a new one yet.
    pub fn is_spent(&self) -> bool {
        if *self.state() == State::Spent {
            self.renew();
        }
        *self.state() == State::Spent
    }

    /// Frees the space. False: there is none to free.
    pub fn give_up(&self) -> bool {
        let mut state = self.state();
        if *state != State::Kept || fs::remove_file(&self.path).is_err() {
            return false;
        }
        *state = State::Spent;
        true
    }

    /// Makes it where it is not there and the disk has room for it twice. A failure is not worth an error.
    pub fn renew(&self) {
        let mut state = self.state();
        if *state != State::Kept && self.has_room() && self.make().is_ok() {
            *state = State::Kept;
        }
    }

    fn has_room(&self) -> bool {
        statvfs(private_file::directory(&self.path)).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) >= 2 * BYTES)
    }

    fn make(&self) -> io::Result<()> {
        let mut file = private_file::open(&self.path)?;
        let made = match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&mut file),
            allocated => Ok(allocated?),
        };
        made.inspect_err(|_| drop(fs::remove_file(&self.path)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_zeros(file: &mut File) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    (0..BYTES >> 20).try_for_each(|_| file.write_all(&zeros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_made_again_once_there_is_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let reserve = Reserve::of(&dir.path().join("hookturn.db"));
        assert!(!reserve.give_up(), "there is none yet");
        reserve.renew();
        assert!(reserve.path.exists() && reserve.give_up() && !reserve.path.exists());
        assert!(!reserve.give_up(), "it is spent");
        assert!(!reserve.is_spent() && reserve.path.exists(), "this disk has room");
    }

    /// As on a file system that cannot allocate.
    #[test]
    fn zeros_do_where_nothing_can_be_allocated() {
        let mut file = tempfile::tempfile().expect("a file");
        write_zeros(&mut file).expect("written");
        assert_eq!(file.metadata().expect("metadata").len(), BYTES);
    }
}
