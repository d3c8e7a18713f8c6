//! Step 2: the consumer's keystore holds both secrets, and every replica was shown to accept the new one.

use std::{collections::BTreeMap, path::Path, time::Duration};

use tokio::time::timeout;

use crate::{
    config::ProbeBody,
    evidence::{PlannedRequest, ProbeKeys, judge_loaded},
    keystore::{Contents, Key, KeyState, KeystoreError, status::read_words},
    rotation::{Found, KidSet, Verdict},
    secret::{Kid, Secret},
    store::{Probe, UnixMillis},
};

use super::Tools;

/// No keystore call takes longer; the core is told and tries again.
const DEADLINE: Duration = Duration::from_secs(60);

/// What was read, and the values of keys that hookturn did not know.
pub struct Reading {
    pub found: Found,
    pub strangers: Vec<(Kid, Secret)>,
}

/// Makes the keystore hold `kids` as `generation`, unless somebody else has written something newer or unknown; reads back.
///
/// # Errors
/// Everything of [`KeystoreError`]; all but an unreadable content are transient.
pub async fn write(
    tools: &Tools,
    generation: u64,
    kids: &KidSet,
    label: impl Fn(Kid) -> KeyState,
) -> Result<Reading, KeystoreError> {
    bounded(tools, "write", async {
        let before = tools.keystore.read().await?;
        let reading = compare(tools, before.as_ref());
        let at = before.as_ref().map(|contents| contents.generation);
        let foreign = !reading.strangers.is_empty() || reading.found.opaque;
        if !foreign && at.is_none_or(|at| at < generation) {
            let next = contents(tools, generation, kids, label)?;
            tools.keystore.write(at, &next).await?;
        } else if reading.found.generation != generation || reading.found.kids != *kids {
            return Ok(reading);
        }
        tools.keystore.reload().await?;
        Ok(compare(tools, tools.keystore.read().await?.as_ref()))
    })
    .await
}

/// Looks at the keystore without changing it.
///
/// # Errors
/// As [`write`].
pub async fn read(tools: &Tools) -> Result<Reading, KeystoreError> {
    bounded(tools, "read", async { Ok(compare(tools, tools.keystore.read().await?.as_ref())) }).await
}

async fn bounded<T>(
    tools: &Tools,
    action: &'static str,
    work: impl Future<Output = Result<T, KeystoreError>>,
) -> Result<T, KeystoreError> {
    match timeout(DEADLINE, work).await {
        Ok(done) => done,
        Err(_) => Err(KeystoreError::Failed {
            place: tools.keystore.place(),
            action,
            reason: format!("no answer within {} s", DEADLINE.as_secs()),
        }),
    }
}

fn contents(tools: &Tools, generation: u64, kids: &KidSet, label: impl Fn(Kid) -> KeyState) -> Result<Contents, KeystoreError> {
    let keys = kids.iter().map(|kid| match tools.vault.secret(kid) {
        Some(secret) => Ok(Key { kid, state: label(kid), secret: Some(secret) }),
        None => Err(KeystoreError::DoesNotFit {
            place: tools.keystore.place(),
            reason: format!("the store has no value for the key {kid}"),
        }),
    });
    let mut keys = keys.collect::<Result<Vec<Key>, _>>()?;
    // A consumer that by mistake tries the first key only goes on accepting deliveries, and is found out by its probe.
    keys.sort_by_key(|key| key.state);
    Ok(Contents { generation, keys })
}

/// Compares what is there with what hookturn knows.
fn compare(tools: &Tools, contents: Option<&Contents>) -> Reading {
    let mut found = Found { generation: 0, kids: KidSet::new(), strangers: KidSet::new(), opaque: false };
    let mut strangers = Vec::new();
    let Some(contents) = contents else { return Reading { found, strangers } };
    found.generation = contents.generation;
    for key in &contents.keys {
        match (tools.vault.secret(key.kid), &key.secret) {
            (Some(ours), Some(theirs)) if !ours.same_as(theirs) => found.opaque = true,
            (Some(_), _) => {
                found.kids.insert(key.kid);
            }
            (None, Some(secret)) => {
                found.strangers.insert(key.kid);
                strangers.push((key.kid, secret.clone()));
            }
            (None, None) => found.opaque = true,
        }
    }
    Reading { found, strangers }
}

/// Where a replica's word is had from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replica {
    Probe { url: String },
    ReadBack { url: String },
    StatusFile { name: String },
}

impl Replica {
    /// What stands before the path of a file that is read back.
    pub const FILE: &str = "file:";

    pub fn name(&self) -> &str {
        match self {
            Replica::Probe { url } | Replica::ReadBack { url } => url,
            Replica::StatusFile { name } => name,
        }
    }
}

/// One question to replicas, with the kids of [`crate::rotation::Effect::AskReplicas`].
pub struct Question {
    pub generation: u64,
    pub accept: Kid,
    pub control: Option<Kid>,
    pub refuse: KidSet,
    pub full: bool,
}

/// The requests that a probe of one replica consists of. Their digests must be in the store before [`send_probe`].
pub fn plan_probe(tools: &Tools, body: ProbeBody, question: &Question) -> Option<Vec<PlannedRequest>> {
    let accept = tools.vault.secret(question.accept)?;
    let control = question.control.and_then(|kid| tools.vault.secret(kid).map(|secret| (kid, secret)));
    let refuse: Vec<(Kid, Secret)> =
        question.refuse.iter().filter_map(|kid| tools.vault.secret(kid).map(|secret| (kid, secret))).collect();
    let keys = ProbeKeys {
        accept: (question.accept, &accept),
        control: control.as_ref().map(|(kid, secret)| (*kid, secret)),
        refuse: refuse.iter().map(|(kid, secret)| (*kid, secret)).collect(),
        full: question.full,
    };
    Some(crate::evidence::plan_bodies(body, &keys))
}

/// The rows that must be in the store before the planned requests go out; from now on no door counts these bodies.
pub fn book_probe(tools: &Tools, url: &str, plan: &[PlannedRequest], at: UnixMillis) -> Vec<Probe> {
    let mut ledger = tools.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    plan.iter()
        .map(|request| {
            let body = ledger.digest(&request.sha256);
            ledger.note_probe(&body);
            Probe { body, kid: request.kid, replica: url.to_owned(), at }
        })
        .collect()
}

/// Sends the planned requests to one replica and judges its answers.
pub async fn send_probe(tools: &Tools, url: &str, plan: Vec<PlannedRequest>, full: bool) -> (Verdict, String) {
    let learned = {
        let known = tools.learned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if full { None } else { known.get(url).cloned() }
    };
    let result = tools.prober.send(url, plan, learned.as_ref()).await;
    if let Some(learned) = result.learned {
        tools.learned.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(url.to_owned(), learned);
    }
    (result.verdict, result.answers)
}

/// Asks one replica what it has loaded: at a URL, or in the file that it writes.
pub async fn read_back(tools: &Tools, url: &str, question: &Question) -> (Verdict, String) {
    if let Some(path) = url.strip_prefix(Replica::FILE) {
        return match read_words(Path::new(path)).await {
            Ok(said) => judge_loaded(&said, question.generation, question.accept, &question.refuse),
            Err(error) => (Verdict::Unreachable, error.to_string()),
        };
    }
    let token = tools.config.preflight.read_back_token.as_ref().map(|token| token.read());
    let token = match token.transpose() {
        Ok(token) => token.and_then(|token| Secret::parse(token.trim_end()).ok()),
        Err(error) => return (Verdict::Unreachable, format!("not asked: {error}")),
    };
    tools.prober.read_back(url, token.as_ref(), question.generation, question.accept, &question.refuse).await
}

/// Which replicas report through status files, and the generation each has taken over.
pub async fn status_generations(tools: &Tools) -> BTreeMap<String, u64> {
    let report = tools.keystore.status().await.unwrap_or_default();
    report.files.into_iter().map(|file| (file.replica, file.generation)).collect()
}

/// A replica that has taken over the generation accepts exactly its keys, on its own word.
pub fn judge_status(generations: &BTreeMap<String, u64>, name: &str, wanted: u64) -> (Verdict, String) {
    match generations.get(name) {
        Some(at) if *at >= wanted => (Verdict::Accepts, format!("reports generation {at}")),
        Some(at) => (Verdict::Refuses, format!("reports generation {at}, not {wanted} yet")),
        None => (Verdict::Unreachable, "its status file is gone".to_owned()),
    }
}
