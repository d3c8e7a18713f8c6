//! Reading a small regular file that somebody else may have put there.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The whole file and its handle, if it is a regular file of at most `cap` bytes. Never blocks on a pipe.
pub(super) fn read(path: &Path, cap: usize) -> io::Result<(File, Zeroizing<Vec<u8>>)> {
    let mut file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    // Reserved at once, so that no half-grown copy of a secret is left in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(cap.min(64 * 1024) + 1));
    (&mut file).take(cap as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > cap {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {} KiB", cap / 1024)));
    }
    Ok((file, bytes))
}
