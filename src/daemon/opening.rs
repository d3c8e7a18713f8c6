//! What a new process makes of what the last one left.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::{
    clock::Clock,
    desk::{Entry, FrontDesk},
    drift::NEVER,
    message::Message,
    parts::{StartError, secret},
    traffic::Traffic,
    ward::{Facts, Ward},
};
use crate::{
    config::{self, Config, Credential},
    dialnexa::Provider,
    evidence::{Counters, Ledger, Prober},
    keystore::Keystore,
    mutants::{self, Mutant},
    rotation::{Event, Record, Recorder, Volatile},
    secret::{Keyring, SealingKey},
    steps::{Chance, Tools, Vault},
    store::{Anchor, AnchorState, Store, Stored},
};

/// What the webhooks of a daemon have in common.
pub(super) struct Shared {
    pub provider: Arc<dyn Provider>,
    pub prober: Arc<Prober>,
    pub sealing: Arc<SealingKey>,
    pub chance: Arc<dyn Chance>,
}

/// What the steps of one webhook work with, filled from the store.
pub(super) async fn open_tools(
    webhook: config::Webhook,
    keystore: Box<dyn Keystore>,
    shared: &Shared,
    store: &dyn Store,
) -> Result<Tools, StartError> {
    let Shared { provider, prober, sealing, chance } = shared;
    let vault = Vault::default();
    for stored in store.secrets(&webhook.name).await? {
        vault.insert(stored.kid, sealing.open(&webhook.name, stored.kid, &stored.sealed)?, stored.origin);
    }
    let mut ledger = Ledger::new(*sealing.derive("body digests"), REMEMBERED_BODIES);
    for probe in store.probes(&webhook.name).await? {
        ledger.note_probe(&probe.body);
    }
    for evidence in store.evidence(&webhook.name, 10_000).await? {
        ledger.note(evidence.kid, &evidence.body);
    }
    Ok(Tools {
        config: webhook,
        provider: provider.clone(),
        keystore,
        prober: prober.clone(),
        vault,
        sealing: sealing.clone(),
        chance: chance.clone(),
        ledger: std::sync::Mutex::new(ledger),
        learned: std::sync::Mutex::default(),
    })
}

/// Bodies remembered per webhook, to tell a new one from a repeated one.
const REMEMBERED_BODIES: usize = 20_000;

pub(super) fn front_desk(tools: &[Arc<Tools>], inbox: mpsc::Sender<Message>) -> Result<FrontDesk, StartError> {
    let mut entries = Vec::new();
    for tools in tools {
        let verify = &tools.config.verify;
        let token = |what, credential: &Option<Credential>| credential.as_ref().map(|c| secret(what, c)).transpose();
        let entry = Entry {
            keyring: ArcSwap::from_pointee(Keyring::new(Vec::new())),
            report_token: token("verify.report_token", &verify.report_token)?,
            tap_token: token("verify.tap_token", &verify.tap_token)?,
            ignore: verify.ignore.clone(),
        };
        entries.push((tools.config.name.clone(), entry));
    }
    Ok(FrontDesk::new(entries, inbox))
}

/// The witness of what was done, and the webhooks whose record is older than that.
pub(super) fn judge_anchor(
    config: &Config,
    store: &dyn Store,
    found: AnchorState,
    stored: &[Stored],
    read_only: bool,
) -> Result<(Anchor, Vec<String>), StartError> {
    let path: &Path = &config.store.anchor;
    let all = || stored.iter().map(|stored| stored.webhook.clone()).collect::<Vec<_>>();
    match found {
        AnchorState::Read(anchor) => {
            let older = stored.iter().filter(|stored| anchor.older_than(stored)).map(|stored| stored.webhook.clone()).collect();
            Ok((anchor, older))
        }
        AnchorState::Missing if stored.is_empty() => {
            let mut anchor = Anchor::at(path, &store.id());
            if !read_only {
                anchor.advance(&[])?;
            }
            Ok((anchor, Vec::new()))
        }
        AnchorState::Missing => {
            tracing::warn!("{} is missing: the store may be an older one", path.display());
            Ok((Anchor::at(path, &store.id()), all()))
        }
        AnchorState::Unreadable { reason } => {
            tracing::warn!("{reason}: the store may be an older one");
            Ok((Anchor::at(path, &store.id()), all()))
        }
    }
}

/// What lies outside the store says of one webhook.
pub(super) struct Witness {
    /// The anchor knows of more than the record.
    pub restored: bool,
    /// The keystore's generation, where it could be read at once.
    pub keystore: Option<u64>,
}

pub(super) async fn open_ward(
    place: usize,
    tools: Arc<Tools>,
    identity: u64,
    before: Option<&Stored>,
    witness: Witness,
    store: &dyn Store,
    clock: &Clock,
) -> Result<Ward, StartError> {
    let policy = tools.config.policy;
    let record = before.map_or_else(|| Record::unadopted(policy, identity), |stored| stored.record.clone());
    let dark = before.map_or(0, |stored| u64::try_from(clock.since(&stored.stamp).as_millis()).unwrap_or(0));
    let memo =
        |name: &str| before.and_then(|stored| stored.memos.iter().find(|(known, _)| known == name)).map(|(_, v)| v.clone());
    let mut facts: Facts = memo("facts").and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    let counters: Option<Counters> = memo("counters").and_then(|value| serde_json::from_value(value).ok());
    let now = clock.unix_millis();
    facts.rhythm.watch(now);
    let mut probes_sent = BTreeMap::new();
    for kid in store.probes(&tools.config.name).await?.into_iter().filter_map(|probe| probe.kid) {
        *probes_sent.entry(kid).or_default() += 1;
    }
    // A generation that the store has never heard of was written by a forgotten future.
    let begun = record.seq > 0 && record.generation > 0;
    let ahead = begun && witness.keystore.is_some_and(|generation| generation > record.generation);
    let mut ward = Ward {
        place,
        log: Recorder::begin(&record),
        record,
        volatile: Volatile::default(),
        last_tick: clock.boottime_ms(),
        replicas: Vec::new(),
        words: BTreeMap::new(),
        facts,
        counters_begun: counters.is_some(),
        counters: counters.unwrap_or_default(),
        probes_sent,
        traffic: Traffic::default(),
        facts_kept_at: now,
        facts_stale: false,
        looked_after_at: now,
        keystore_seen_at: NEVER,
        sent: None,
        change: Default::default(),
        effects: Vec::new(),
        notes: Vec::new(),
        fresh: Vec::new(),
        touched: true,
        told_at: now,
        dirty: before.is_none(),
        published: None,
        plan: memo("plan").and_then(|value| serde_json::from_value(value).ok()),
        schedule_retry: 0,
        entered_at: clock.boottime_ms(),
        members: memo("members").and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default(),
        tools,
    };
    ward.traffic.begin(now);
    let event = Event::Boot { policy, identity, restored: witness.restored || ahead, dark };
    let taken = ward.take(&event, "daemon", clock, false);
    debug_assert!(taken.is_ok(), "a boot is never refused");
    let replicas = ward.asked();
    let taken = ward.take(&Event::Roster { replicas }, "daemon", clock, false);
    debug_assert!(taken.is_ok(), "a roster is never refused");
    Ok(ward)
}

/// The generation of each keystore, in order. One that is slow is not waited for: it is compared again whenever it is read.
pub(super) async fn keystore_generations(tools: &[Arc<Tools>]) -> Vec<Option<u64>> {
    let reads = tools.iter().cloned().map(|tools| async move {
        match tokio::time::timeout(Duration::from_secs(2), tools.keystore.read()).await {
            Ok(Ok(Some(contents))) => Some(contents.generation),
            _ => None,
        }
    });
    stream::iter(reads).buffered(if mutants::on(Mutant::KeystoresInTurn) { 1 } else { AT_ONCE }).collect().await
}

/// Keystores that are read at the same time: a program each, where they are of that kind.
const AT_ONCE: usize = 64;
