//! Every page of the database and every frame of the log, torn, zeroed, and with one bit turned over: what is read from it
//! afterwards is what was written, or is said to be damaged, or is older and the anchor says so. Nothing else.

use std::{collections::BTreeMap, fs, path::Path};

use hookturn::{
    rotation::{Note, OnReject, Policy, Record},
    secret::{Kid, SealingKey, Secret},
    store::{
        Anchor, AnchorState, Attempt, Batch, Change, Evidence, NewLine, Opening, Origin, Probe, Sqlite, Stamp, Store, StoreError,
        StoredSecret,
    },
};

const PAGE: usize = 4096;
/// What stands before each page in the log, and before the first of them.
const FRAME_HEADER: usize = 24;
const LOG_HEADER: usize = 32;
const COMMITS: u64 = 24;

/// What a file is made to be.
struct Alteration {
    what: String,
    file: &'static str,
    bytes: Vec<u8>,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Same,
    Damaged,
    OlderAndTheAnchorSaysSo,
    /// It reads well, and is not what was written.
    Different(&'static str),
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damaged_page_is_read_as_something_else() {
    let home = tempfile::tempdir().expect("a directory");
    let store = open(home.path()).await.expect("a store");
    let key = SealingKey::generate().expect("a key");
    let mut anchor = Anchor::at(&home.path().join("hookturn.db.anchor"), &store.id());
    let mut torn_from = Vec::new();
    for seq in 1..=COMMITS {
        store.commit(batch(seq, &key)).await.expect("commit");
        anchor.advance(&[("billing", seq, seq)]).expect("advance");
        if seq == COMMITS / 2 {
            torn_from = image(home.path(), "hookturn.db-wal");
        }
    }
    let truth = everything(&store, &key).await.expect("whole");
    // As a killed process leaves it: most is in the log.
    let (database, log) = (image(home.path(), "hookturn.db"), image(home.path(), "hookturn.db-wal"));
    store.close().await;
    let closed = image(home.path(), "hookturn.db");
    let mut tally = BTreeMap::new();
    let mut wrong = Vec::new();
    for (files, alterations) in [
        (vec![("hookturn.db", closed.clone())], pages(&closed)),
        (vec![("hookturn.db", database), ("hookturn.db-wal", log.clone())], frames(&log, &torn_from)),
    ] {
        for alteration in alterations {
            let found = look(home.path(), &files, &alteration, &truth, &key).await;
            if let Found::Different(part) = found {
                wrong.push(format!("{}: {part}", alteration.what));
            }
            *tally.entry((alteration.file, found)).or_insert(0) += 1;
        }
    }
    for ((file, found), count) in &tally {
        println!("{file}: {found:?} {count}");
    }
    assert!(wrong.is_empty(), "{} read as something else:\n{}", wrong.len(), wrong.join("\n"));
}

/// How far apart the bits lie that are turned over.
fn stride() -> usize {
    if crate::long() { 61 } else { 1_021 }
}

fn pages(database: &[u8]) -> Vec<Alteration> {
    let altered = |what: String, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = database.to_vec();
        change(&mut bytes);
        Alteration { what, file: "hookturn.db", bytes }
    };
    let mut all = Vec::new();
    for page in 0..database.len() / PAGE {
        let begin = page * PAGE;
        all.push(altered(format!("page {page} zeroed"), &|bytes| bytes[begin..begin + PAGE].fill(0)));
        all.push(altered(format!("page {page} torn"), &|bytes| bytes[begin + PAGE / 2..begin + PAGE].fill(0)));
    }
    // Every bit position in turn.
    for (turn, at) in (0..database.len()).step_by(stride()).enumerate() {
        all.push(altered(format!("byte {at}, bit {}", turn % 8), &|bytes| bytes[at] ^= 1 << (turn % 8)));
    }
    all
}

fn frames(log: &[u8], older: &[u8]) -> Vec<Alteration> {
    let altered = |what: String, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = log.to_vec();
        change(&mut bytes);
        Alteration { what, file: "hookturn.db-wal", bytes }
    };
    let mut all = vec![altered("the log as it was half way".to_owned(), &|bytes| *bytes = older.to_vec())];
    let length = FRAME_HEADER + PAGE;
    for frame in (0..(log.len() - LOG_HEADER) / length).step_by(if crate::long() { 1 } else { 5 }) {
        let begin = LOG_HEADER + frame * length;
        let mut four = vec![
            altered(format!("frame {frame} zeroed"), &|bytes| bytes[begin..begin + length].fill(0)),
            altered(format!("frame {frame} torn"), &|bytes| bytes.truncate(begin + length / 2)),
            altered(format!("frame {frame}, page number"), &|bytes| bytes[begin + 3] ^= 1),
            altered(format!("frame {frame}, one bit"), &|bytes| bytes[begin + 2_000] ^= 4),
        ];
        match crate::long() {
            true => all.append(&mut four),
            false => all.push(four.swap_remove(frame % 4)),
        }
    }
    all
}

/// Puts the files there, one of them altered, and reads all that a daemon reads.
async fn look(
    home: &Path,
    files: &[(&'static str, Vec<u8>)],
    alteration: &Alteration,
    truth: &Everything,
    key: &SealingKey,
) -> Found {
    for name in ["hookturn.db-wal", "hookturn.db-shm"] {
        let _ = fs::remove_file(home.join(name));
    }
    for (name, bytes) in files {
        let bytes = if *name == alteration.file { &alteration.bytes } else { bytes };
        fs::write(home.join(name), bytes).expect("write");
    }
    let store = match open(home).await {
        Err(StoreError::Damaged { .. } | StoreError::TooNew { .. } | StoreError::Failed { .. }) => return Found::Damaged,
        Err(error) => panic!("{}: {error}", alteration.what),
        Ok(store) => store,
    };
    let found = match everything(&store, key).await {
        Err(_) => Found::Damaged,
        Ok(found) => compare(&found, truth, Anchor::load(&home.join("hookturn.db.anchor"), &store.id())),
    };
    store.close().await;
    found
}

fn compare(found: &Everything, truth: &Everything, anchor: AnchorState) -> Found {
    if found == truth {
        return Found::Same;
    }
    let doubted = match anchor {
        AnchorState::Read(anchor) => anchor.missing_from(&found.webhooks).len() + older(&anchor, found) > 0,
        AnchorState::Missing | AnchorState::Unreadable { .. } => true,
    };
    match () {
        () if doubted => Found::OlderAndTheAnchorSaysSo,
        () if found.webhooks != truth.webhooks => Found::Different("webhook or memo"),
        () if found.secrets != truth.secrets => Found::Different("secret"),
        () if found.journal != truth.journal => Found::Different("journal"),
        () if found.attempts != truth.attempts => Found::Different("attempt"),
        () if found.evidence != truth.evidence => Found::Different("evidence"),
        () => Found::Different("probe"),
    }
}

fn older(anchor: &Anchor, found: &Everything) -> usize {
    found.webhooks.iter().filter(|stored| anchor.older_than(stored)).count()
}

/// All that a store gives back. The secrets opened, since their seal is a part of what guards them, and without the time at
/// which each was made, which only a person looks at.
#[derive(PartialEq, Eq)]
struct Everything {
    webhooks: Vec<hookturn::store::Stored>,
    secrets: Vec<(Kid, String, Origin)>,
    journal: Vec<hookturn::store::JournalLine>,
    attempts: Vec<Attempt>,
    evidence: Vec<Evidence>,
    probes: Vec<Probe>,
}

async fn everything(store: &Sqlite, key: &SealingKey) -> Result<Everything, String> {
    let text = |error: StoreError| error.to_string();
    let mut secrets = Vec::new();
    for secret in store.secrets("billing").await.map_err(text)? {
        let opened = key.open("billing", secret.kid, &secret.sealed).map_err(|error| error.to_string())?;
        secrets.push((secret.kid, opened.expose().to_owned(), secret.origin));
    }
    Ok(Everything {
        webhooks: store.webhooks().await.map_err(text)?,
        secrets,
        journal: store.journal("billing", None, 1_000).await.map_err(text)?,
        attempts: store.attempts("billing", 1_000).await.map_err(text)?,
        evidence: store.evidence("billing", 1_000).await.map_err(text)?,
        probes: store.probes("billing").await.map_err(text)?,
    })
}

async fn open(home: &Path) -> Result<Sqlite, StoreError> {
    Sqlite::open(&home.join("hookturn.db"), Opening { command: "test".to_owned(), at: 0 }).await
}

fn image(home: &Path, name: &str) -> Vec<u8> {
    fs::read(home.join(name)).expect("read")
}

/// Something in every table.
fn batch(seq: u64, key: &SealingKey) -> Batch {
    let kid = Kid::parse(&format!("k_{seq}")).expect("a kid");
    let secret = Secret::parse(&format!("whsec_number-{seq}")).expect("a secret");
    let policy = Policy {
        quarantine: 1,
        drain: 2,
        wait: 3,
        repeat_min: 4,
        repeat_max: 5,
        min_deliveries: 1,
        min_span: 0,
        slots: None,
        on_reject: OnReject::SwitchBack,
        unproven: false,
    };
    let at = i64::try_from(seq).expect("small");
    let body = format!("{seq:064x}");
    let line = |n: u64| NewLine { rotation: n, seq, actor: "daemon".to_owned(), note: Note::Confirmed { kid } };
    let change = Change {
        webhook: "billing".to_owned(),
        record: Some(Record { seq, ..Record::unadopted(policy, 7) }),
        secrets: vec![StoredSecret {
            kid,
            sealed: key.seal("billing", kid, &secret).expect("sealed"),
            origin: Origin::Generated,
            created: at,
        }],
        journal: (0..12).map(line).collect(),
        attempts: vec![Attempt {
            number: seq,
            rotation: 1,
            kid,
            intent_at: at,
            ended_at: Some(at),
            outcome: Some("200".to_owned()),
        }],
        evidence: vec![Evidence {
            kid,
            body: body.clone(),
            at,
            door: "report".to_owned(),
            accepted: Some(true),
            detail: serde_json::json!({ "replica": "web-1", "user_agent": "DialNexa/1.0" }),
        }],
        probes: (0..6)
            .map(|n| Probe { body: format!("{n}{body}"), kid: Some(kid), replica: "http://127.0.0.1/".to_owned(), at })
            .collect(),
        events: Vec::new(),
        probes_kept: None,
        memos: vec![("counters".to_owned(), serde_json::json!({ "web-1": seq, "k": body }))],
    };
    Batch { at, stamp: Stamp { boot_id: "9f0c".to_owned(), boottime_ms: seq }, changes: vec![change] }
}
