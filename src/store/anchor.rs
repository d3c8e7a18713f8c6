//! What the database must not be older than, kept outside of it.
//!
//! A database that was copied back from a backup looks healthy and has forgotten requests that may still be applied. So the
//! daemon notes each webhook's `seq` here, after the commit that releases an outward effect and before that effect. A store
//! whose `seq` is below its mark is an older one.
//!
//! The file has two slots of one size, written in turn and in place, each under a checksum: one fdatasync per advance, and the
//! slot that is not being written is always whole. A slot is text: a line `hookturn-anchor/1 <counter> <bytes> <sha256>`, the
//! JSON, and spaces. The valid slot with the greater counter counts.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{StoreError, Stored, private_file};

/// The marks of one store. Changed in memory only after the disk has them.
#[derive(Debug)]
pub struct Anchor {
    path: PathBuf,
    content: Content,
    counter: u64,
    /// None until the first advance of an anchor that is not to continue what lies at its path.
    slots: Option<Slots>,
}

/// How far a webhook had come when the anchor was last advanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub seq: u64,
    pub generation: u64,
}

/// What lies at the place of an anchor.
#[derive(Debug)]
pub enum AnchorState {
    /// Nothing. On the first start of a new store that is as it should be; otherwise doubt what the store says.
    Missing,
    /// Neither slot is whole, or it belongs to another store: doubt what the store says.
    Unreadable {
        reason: String,
    },
    Read(Anchor),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Content {
    store_id: String,
    marks: BTreeMap<String, Mark>,
}

#[derive(Debug)]
struct Slots {
    file: File,
    bytes: usize,
    /// The slot to write next: the one that does not hold the newest content.
    next: usize,
}

const SMALLEST_SLOT: usize = 4096;
const LARGEST_FILE: u64 = 64 << 20;
const MAGIC: &str = "hookturn-anchor/1";

impl Anchor {
    /// A new anchor for this store. Nothing is written before the first [`Anchor::advance`], which replaces the file: a process
    /// that dies in between finds what made it doubt the store once more.
    pub fn at(path: &Path, store_id: &str) -> Anchor {
        let content = Content { store_id: store_id.to_owned(), marks: BTreeMap::new() };
        Anchor { path: path.to_owned(), content, counter: 0, slots: None }
    }

    /// Reads what lies at `path` and was written for the store of this id.
    pub fn load(path: &Path, store_id: &str) -> AnchorState {
        match read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => AnchorState::Missing,
            Err(e) => AnchorState::Unreadable { reason: format!("{}: {e}", path.display()) },
            Ok(anchor) if anchor.content.store_id != store_id => {
                let other = &anchor.content.store_id;
                let reason = format!("{} belongs to another store ({other}; this one is {store_id})", path.display());
                AnchorState::Unreadable { reason }
            }
            Ok(anchor) => AnchorState::Read(anchor),
        }
    }

    /// Whether the stored record is older than what was last noted of this webhook.
    pub fn older_than(&self, stored: &Stored) -> bool {
        self.mark(&stored.webhook).is_some_and(|mark| stored.record.seq < mark.seq)
    }

    /// The webhooks that have a mark and are not in the store at all.
    pub fn missing_from(&self, stored: &[Stored]) -> Vec<&str> {
        let known = |name: &&str| stored.iter().all(|s| s.webhook != *name);
        self.content.marks.keys().map(String::as_str).filter(known).collect()
    }

    pub fn mark(&self, webhook: &str) -> Option<Mark> {
        self.content.marks.get(webhook).copied()
    }

    /// Notes (webhook, seq, generation), also below an earlier mark: whoever calls has dealt with an older store. On the disk
    /// when it returns. After an error the marks are as before, and the same call may be repeated.
    pub fn advance(&mut self, marks: &[(&str, u64, u64)]) -> Result<(), StoreError> {
        let mut content = self.content.clone();
        for (webhook, seq, generation) in marks {
            content.marks.insert((*webhook).to_owned(), Mark { seq: *seq, generation: *generation });
        }
        if self.slots.is_some() && content.marks == self.content.marks {
            return Ok(());
        }
        self.write(&content).map_err(|e| failed(&self.path, &e))?;
        self.content = content;
        self.counter += 1;
        Ok(())
    }

    fn write(&mut self, content: &Content) -> io::Result<()> {
        let text = encode(self.counter + 1, content)?;
        match &mut self.slots {
            Some(slots) if text.len() <= slots.bytes => slots.write(&text),
            slots => {
                *slots = Some(replace(&self.path, &text)?);
                Ok(())
            }
        }
    }
}

impl Slots {
    /// After a failed sync the kernel forgets that the slot never reached the disk. The next call writes the same one again.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let mut slot = vec![b' '; self.bytes];
        slot[..text.len()].copy_from_slice(text);
        self.file.write_all_at(&slot, (self.next * self.bytes) as u64)?;
        self.file.sync_data()?;
        self.next = 1 - self.next;
        Ok(())
    }
}

/// A new file with `text` in its first slot, put in place of whatever is there. Slots are given room to grow.
fn replace(path: &Path, text: &[u8]) -> io::Result<Slots> {
    let bytes = (text.len() * 2).next_power_of_two().max(SMALLEST_SLOT);
    let dir = private_file::directory(path);
    let mut content = vec![b' '; 2 * bytes];
    content[..text.len()].copy_from_slice(text);
    // 0600, as tempfile makes them.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&content)?;
    private_file::give_to_owner_of(dir, file.as_file())?;
    file.as_file().sync_all()?;
    let file = file.persist(path).map_err(|e| e.error)?;
    private_file::sync_directory(dir)?;
    Ok(Slots { file, bytes, next: 1 })
}

fn read(path: &Path) -> io::Result<Anchor> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut content = Vec::new();
    Read::by_ref(&mut file).take(LARGEST_FILE).read_to_end(&mut content)?;
    let bytes = content.len() / 2;
    let (first, second) = content.split_at(bytes);
    let newest = [first, second].into_iter().enumerate().filter_map(|(at, slot)| Some((at, decode(slot)?)));
    let newest = newest.max_by_key(|(_, (counter, _))| *counter);
    let (at, (counter, content)) = newest.ok_or_else(|| io::Error::other("no slot of it is whole"))?;
    Ok(Anchor { path: path.to_owned(), content, counter, slots: Some(Slots { file, bytes, next: 1 - at }) })
}

fn encode(counter: u64, content: &Content) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(content)?;
    Ok(format!("{MAGIC} {counter} {} {}\n{json}", json.len(), sum(counter, &json)).into_bytes())
}

/// None for a slot that was never written, or not to its end.
fn decode(slot: &[u8]) -> Option<(u64, Content)> {
    let end = slot.iter().position(|b| *b == b'\n')?;
    let header = std::str::from_utf8(&slot[..end]).ok()?;
    let [MAGIC, counter, length, expected] = header.split(' ').collect::<Vec<_>>()[..] else { return None };
    let counter = counter.parse().ok()?;
    let json = slot[end + 1..].get(..length.parse().ok()?)?;
    let json = std::str::from_utf8(json).ok()?;
    if sum(counter, json) != expected {
        return None;
    }
    Some((counter, serde_json::from_str(json).ok()?))
}

fn sum(counter: u64, json: &str) -> String {
    let mut sha = Sha256::new();
    sha.update(counter.to_be_bytes());
    sha.update(json.as_bytes());
    hex::encode(sha.finalize())
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    let place = format!("anchor {}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { place },
        _ => StoreError::Failed { place, action: "advance", reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: &str = "5e3c";

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let told = |kind: io::ErrorKind| failed(Path::new("anchor"), &kind.into());
        assert!(matches!(told(io::ErrorKind::StorageFull), StoreError::Full { .. }));
        assert!(matches!(told(io::ErrorKind::PermissionDenied), StoreError::Failed { .. }));
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("anchor");
        (dir, path)
    }

    fn advanced(path: &Path, seqs: std::ops::RangeInclusive<u64>) -> Anchor {
        let mut anchor = Anchor::at(path, STORE);
        for seq in seqs {
            anchor.advance(&[("billing", seq, seq / 2)]).expect("advance");
        }
        anchor
    }

    fn read_seq(path: &Path) -> Option<u64> {
        match Anchor::load(path, STORE) {
            AnchorState::Read(anchor) => anchor.mark("billing").map(|mark| mark.seq),
            AnchorState::Missing | AnchorState::Unreadable { .. } => None,
        }
    }

    #[test]
    fn what_was_advanced_is_read_back_and_can_go_on() {
        let (_dir, path) = place();
        assert!(matches!(Anchor::load(&path, STORE), AnchorState::Missing));
        for last in 1..=5 {
            drop(advanced(&path, 1..=last));
            let AnchorState::Read(mut anchor) = Anchor::load(&path, STORE) else { panic!("read") };
            assert_eq!(anchor.mark("billing"), Some(Mark { seq: last, generation: last / 2 }));
            anchor.advance(&[("billing", last + 10, 7), ("orders", 1, 1)]).expect("advance");
            assert_eq!(read_seq(&path), Some(last + 10));
        }
    }

    #[test]
    fn nothing_is_written_before_the_first_advance() {
        let (_dir, path) = place();
        std::fs::write(&path, "damaged").expect("write");
        let mut anchor = Anchor::at(&path, STORE);
        assert!(matches!(Anchor::load(&path, STORE), AnchorState::Unreadable { .. }));
        anchor.advance(&[("billing", 4, 2)]).expect("advance");
        assert_eq!(read_seq(&path), Some(4));
    }

    #[test]
    fn a_write_torn_at_any_byte_leaves_the_mark_before_it() {
        let (_dir, path) = place();
        drop(advanced(&path, 1..=6));
        let before = std::fs::read(&path).expect("read");
        drop(advanced(&path, 1..=7));
        let after = std::fs::read(&path).expect("read");
        let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        for torn_at in changed.iter().copied().skip(1) {
            let mut torn = before.clone();
            torn[..torn_at].copy_from_slice(&after[..torn_at]);
            std::fs::write(&path, torn).expect("write");
            assert_eq!(read_seq(&path), Some(6), "torn at {torn_at}");
        }
        std::fs::write(&path, after).expect("write");
        assert_eq!(read_seq(&path), Some(7));
    }

    #[test]
    fn two_torn_slots_or_another_store_are_said_to_be_unreadable() {
        let (_dir, path) = place();
        drop(advanced(&path, 1..=2));
        let AnchorState::Unreadable { reason } = Anchor::load(&path, "other") else { panic!("of another store") };
        assert!(reason.contains("belongs to another store"), "{reason}");
        let mut bytes = std::fs::read(&path).expect("read");
        let half = bytes.len() / 2;
        bytes[60] ^= 1;
        bytes[half + 60] ^= 1;
        std::fs::write(&path, bytes).expect("write");
        assert!(matches!(Anchor::load(&path, STORE), AnchorState::Unreadable { .. }));
    }

    #[test]
    fn it_grows_with_the_number_of_webhooks() {
        let (_dir, path) = place();
        let names: Vec<String> = (0..500).map(|n| format!("webhook-{n}")).collect();
        let mut anchor = Anchor::at(&path, STORE);
        for name in &names {
            anchor.advance(&[(name, 3, 1)]).expect("advance");
        }
        let AnchorState::Read(anchor) = Anchor::load(&path, STORE) else { panic!("read") };
        assert_eq!(anchor.missing_from(&[]).len(), 500);
    }

    #[test]
    fn a_failed_advance_changes_no_mark() {
        let (dir, path) = place();
        let mut anchor = Anchor::at(&dir.path().join("missing").join("anchor"), STORE);
        assert!(anchor.advance(&[("billing", 1, 1)]).is_err());
        assert_eq!(anchor.mark("billing"), None);
        assert!(matches!(Anchor::load(&path, STORE), AnchorState::Missing));
    }
}
