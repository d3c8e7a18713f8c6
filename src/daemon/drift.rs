//! Between rotations nobody but hookturn should write the keystore. It is looked at now and then. What is older than it should
//! be, or gone, the core is told to read for itself, and it writes it again: a replica that starts would load it and refuse
//! everything. About anything else nothing is done but to say so: the next rotation reads it anyway before it writes.

use super::{message::Message, writer::Writer};
use crate::{
    config::Keystore,
    rotation::{Current, Event, Phase, Record},
    steps::push::{self, Reading},
    store::UnixMillis,
};

/// A file costs nothing to read; behind a program there may be somebody who counts the calls.
const FILE_EVERY_MS: i64 = 30_000;
const PROGRAM_EVERY_MS: i64 = 10 * 60 * 1000;

impl Writer {
    /// Sends somebody to look at the keystores that are due for it.
    pub fn look_at_keystores(&mut self) {
        let now = self.clock.unix_millis();
        for ward in self.wards.iter_mut().filter(|ward| is_at_rest(&ward.record)) {
            let every = match ward.tools.config.keystore {
                Keystore::File { .. } => FILE_EVERY_MS,
                Keystore::Exec { .. } => PROGRAM_EVERY_MS,
            };
            if (0..every).contains(&(now - ward.keystore_seen_at)) {
                continue;
            }
            ward.keystore_seen_at = now;
            let (tools, inbox, webhook) = (ward.tools.clone(), self.hands.inbox.clone(), ward.place);
            let generation = ward.record.generation;
            let look = async move {
                if let Ok(reading) = push::read(&tools).await {
                    // The writer is gone only when the process ends.
                    let _ = inbox.send(Message::KeystoreSeen { webhook, generation, reading }).await;
                }
            };
            self.hands.tasks.spawn(self.hands.cancel.clone().run_until_cancelled_owned(look));
        }
    }

    pub fn keystore_seen(&mut self, webhook: usize, asked: u64, reading: &Reading) {
        if let Some(ward) = self.wards.get_mut(webhook) {
            let foreign = is_foreign(&ward.record, asked, reading);
            ward.touched |= ward.traffic.keystore_foreign != foreign;
            ward.traffic.keystore_foreign = foreign;
            if put_back(&ward.record, asked, reading) {
                // Only a look at it that the core has asked for decides anything.
                let _ = ward.take(&Event::KeystoreDoubted, "daemon", &self.clock, self.doors_open);
            }
        }
    }
}

/// No rotation is under way, and the keystore was once seen to be as it should be.
fn is_at_rest(record: &Record) -> bool {
    record.phase == Phase::Idle && record.current != Current::Missing && record.kept == record.generation && record.generation > 0
}

/// Whether somebody else has put an older content back, or taken all of it away. Where the record has moved on since generation
/// `asked` it shows nothing: it may have been read before our own newest write.
fn put_back(record: &Record, asked: u64, reading: &Reading) -> bool {
    is_at_rest(record) && reading.found.generation < record.generation && asked == record.generation
}

/// Whether somebody else wrote it.
fn is_foreign(record: &Record, asked: u64, reading: &Reading) -> bool {
    let found = &reading.found;
    let same = found.kids == record.keystore_kids() && found.strangers.is_empty() && !found.opaque;
    let put_back = put_back(record, asked, reading);
    put_back || is_at_rest(record) && (found.generation > record.generation || (found.generation == record.generation && !same))
}

/// Never looked at in this life.
pub(super) const NEVER: UnixMillis = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rotation::{Found, KidSet, OnReject, Policy},
        secret::Kid,
    };

    fn kids(names: &[&str]) -> KidSet {
        names.iter().map(|name| Kid::parse(name).expect("kid")).collect()
    }

    fn record() -> Record {
        let policy = Policy {
            quarantine: 1,
            drain: 1,
            wait: 0,
            repeat_min: 1,
            repeat_max: 1,
            min_deliveries: 1,
            min_span: 0,
            slots: None,
            on_reject: OnReject::Hold,
            unproven: false,
        };
        let mut record = Record::unadopted(policy, 1);
        record.current = Current::Known(Kid::parse("a").expect("kid"));
        record.accepted = kids(&["a"]);
        (record.generation, record.kept) = (7, 7);
        record
    }

    fn found(names: &[&str]) -> Found {
        Found { generation: 7, kids: kids(names), strangers: KidSet::new(), opaque: false }
    }

    fn foreign(generation: u64, names: &[&str], strangers: &[&str]) -> bool {
        let found = Found { generation, kids: kids(names), strangers: kids(strangers), opaque: false };
        is_foreign(&record(), 7, &Reading { found, strangers: Vec::new() })
    }

    #[test]
    fn another_writer_is_told_from_our_own_older_content() {
        assert!(!foreign(7, &["a"], &[]));
        let older = || Reading { found: Found { generation: 6, ..found(&["a", "b"]) }, strangers: Vec::new() };
        assert!(!is_foreign(&record(), 6, &older()), "read before our write");
        assert!(is_foreign(&record(), 7, &older()), "put back");
        assert!(foreign(8, &["a"], &[]));
        assert!(foreign(7, &["a"], &["x"]));
        assert!(foreign(7, &[], &[]));
        let mut under_way = record();
        under_way.kept = 6;
        let found = Found { generation: 8, ..found(&["a"]) };
        assert!(!is_foreign(&under_way, 7, &Reading { found, strangers: Vec::new() }), "the core looks at it itself");
    }
}
