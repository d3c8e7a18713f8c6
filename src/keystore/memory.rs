use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Contents, Finding, Keystore, KeystoreError,
    admission::{Admission, admit, fits},
};

/// A keystore in memory, for the simulator and tests, with faults on demand. Clones share one content.
#[derive(Clone, Default)]
pub struct MemoryKeystore {
    slots: Option<u8>,
    inner: Arc<Mutex<Inner>>,
}

/// How the next call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and an error says so.
    Refused,
    /// A write takes place, and its answer is lost. A read or a reload is like [`Fault::Refused`].
    AnswerLost,
}

#[derive(Default)]
struct Inner {
    contents: Option<Contents>,
    /// Every content that was ever written, oldest first.
    history: Vec<Contents>,
    faults: Vec<Fault>,
}

impl MemoryKeystore {
    /// Any number of keys fit.
    pub fn new() -> MemoryKeystore {
        MemoryKeystore::default()
    }

    pub fn with_slots(slots: u8) -> MemoryKeystore {
        MemoryKeystore { slots: Some(slots), inner: Arc::default() }
    }

    /// The next call goes wrong like this; called twice, the next two do.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// What is there now, past every fault.
    pub fn contents(&self) -> Option<Contents> {
        self.lock().contents.clone()
    }

    /// Loses the content, as a wiped disk does.
    pub fn lose(&self) {
        self.lock().contents = None;
    }

    /// Puts a content there without asking, as a person or another program does.
    pub fn put(&self, contents: Contents) {
        self.lock().contents = Some(contents);
    }

    /// Puts back the content that was there `steps` writes ago, as a restored backup does. `false` where there is none.
    pub fn put_back(&self, steps: usize) -> bool {
        let mut inner = self.lock();
        let older = inner.history.len().checked_sub(steps + 1).map(|at| inner.history[at].clone());
        let found = older.is_some();
        if found {
            inner.contents = older;
        }
        found
    }

    /// How many writes changed the content.
    pub fn writes(&self) -> usize {
        self.lock().history.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: &'static str) -> KeystoreError {
        KeystoreError::Failed { place: self.place(), action, reason: "a fault was asked for".to_owned() }
    }
}

impl Inner {
    fn next_fault(&mut self) -> Option<Fault> {
        (!self.faults.is_empty()).then(|| self.faults.remove(0))
    }
}

#[async_trait]
impl Keystore for MemoryKeystore {
    fn slots(&self) -> Option<u8> {
        self.slots
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn read(&self) -> Result<Option<Contents>, KeystoreError> {
        let mut inner = self.lock();
        match inner.next_fault() {
            Some(_) => Err(self.failed("read")),
            None => Ok(inner.contents.clone()),
        }
    }

    async fn write(&self, expect: Option<u64>, next: &Contents) -> Result<(), KeystoreError> {
        let place = self.place();
        fits(&place, self.slots, next)?;
        let mut inner = self.lock();
        let fault = inner.next_fault();
        if fault == Some(Fault::Refused) {
            return Err(self.failed("write"));
        }
        if admit(&place, inner.contents.as_ref(), expect, next)? == Admission::Write {
            inner.contents = Some(next.clone());
            inner.history.push(next.clone());
        }
        match fault {
            Some(_) => Err(self.failed("write")),
            None => Ok(()),
        }
    }

    async fn reload(&self) -> Result<(), KeystoreError> {
        let mut inner = self.lock();
        if inner.next_fault().is_some() {
            return Err(KeystoreError::ReloadFailed { place: self.place(), reason: "a fault was asked for".to_owned() });
        }
        Ok(())
    }

    async fn inspect(&self) -> Vec<Finding> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keystore::{Key, KeyState},
        secret::{Kid, Secret},
    };

    fn contents(generation: u64) -> Contents {
        let kid = Kid::parse(&format!("k{generation}")).expect("kid");
        Contents { generation, keys: vec![Key { kid, state: KeyState::Current, secret: Secret::parse("whsec_a").ok() }] }
    }

    #[tokio::test]
    async fn a_write_whose_answer_is_lost_has_taken_place_and_a_refused_one_has_not() {
        let keystore = MemoryKeystore::new();
        keystore.fail_next(Fault::Refused);
        keystore.fail_next(Fault::AnswerLost);
        assert!(keystore.write(None, &contents(1)).await.is_err());
        assert!(keystore.contents().is_none());
        assert!(keystore.write(None, &contents(1)).await.is_err());
        assert_eq!(keystore.contents().map(|c| c.generation), Some(1));
        assert!(keystore.write(None, &contents(1)).await.is_ok());
        assert_eq!(keystore.writes(), 1);
    }

    #[tokio::test]
    async fn an_older_content_can_be_put_back_and_the_content_lost() {
        let keystore = MemoryKeystore::new();
        assert!(keystore.write(None, &contents(1)).await.is_ok());
        assert!(keystore.write(Some(1), &contents(2)).await.is_ok());
        assert!(keystore.put_back(1) && !keystore.put_back(2));
        assert_eq!(keystore.contents().map(|c| c.generation), Some(1));
        keystore.lose();
        assert!(keystore.read().await.is_ok_and(|found| found.is_none()));
    }
}
