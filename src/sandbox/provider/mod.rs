//! A DialNexa look-alike: the REST plane, deliveries, and everything that can go wrong with either.
//!
//! [`Provider`] is the hand behind the stage: it injects faults and knows what nobody outside may know, namely which secret
//! signs now. Secrets are named by their [`Label`] only. The same is served under `/control` (docs/sandbox.md).

mod answer;
mod control;
mod fault;
mod hook;
mod log;
mod rest;
mod settings;
mod shape;
mod shared;
mod traffic;
mod world;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio_util::sync::DropGuard;

pub use fault::{Answer, Apply, Cut, Fault, Injection, LateAnswer, Operation};
pub use log::{Attempt, Delivery, LabelTotals, Outcome, Totals, UnixMillis};
pub use settings::{
    BodyShape, Dates, EVENTS, Envelope, Header, Inactive, ListShape, Mask, RateHeaders, RetriesSigned, Settings, Verification,
};
pub use world::{PatchSeen, PendingApply};

use self::{hook::Change, shared::Shared};
use super::{SandboxError, http::Server};
use crate::secret::Secret;

/// A secret of a webhook, without its value: its index in the order in which the provider has seen them. A value that comes
/// back keeps its label.
pub type Label = usize;

/// How a provider starts.
pub struct ProviderOptions {
    /// What `Authorization: Bearer` must carry.
    pub api_key: Secret,
    /// A key that is known but may not manage webhooks: 403.
    pub weak_api_key: Option<Secret>,
    pub settings: Settings,
    /// How many deliveries are remembered one by one.
    pub log_capacity: usize,
}

impl ProviderOptions {
    pub fn new(api_key: Secret) -> ProviderOptions {
        ProviderOptions { api_key, weak_api_key: None, settings: Settings::default(), log_capacity: 100_000 }
    }
}

/// The handle of a provider. Cheap to clone.
#[derive(Clone)]
pub struct Provider(Arc<Shared>);

/// A provider that listens. Dropping it stops it.
pub struct Running {
    pub addr: SocketAddr,
    pub handle: Provider,
    server: Server,
    _abandon: DropGuard,
}

impl Running {
    /// `http://ADDR/v1`
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Stops it and waits until its connections are closed. What was on its way is abandoned.
    pub async fn shutdown(self) {
        self.handle.0.stop().await;
        self.server.stop().await;
    }
}

impl Provider {
    /// Listens on `bind` (port 0: any free one) for `/v1` and `/control`, and makes traffic.
    pub async fn start(bind: SocketAddr, options: ProviderOptions) -> Result<Running, SandboxError> {
        let shared = Arc::new(Shared::new(options)?);
        let handle = Provider(shared.clone());
        let router = rest::routes(shared.clone()).merge(control::routes(handle.clone()));
        let server = Server::start(bind, router).await?;
        shared.spawn(traffic::generate(shared.clone()));
        Ok(Running { addr: server.addr, handle, server, _abandon: shared.abandon_on_drop() })
    }

    pub fn settings(&self) -> Settings {
        self.0.world().settings
    }

    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.0.world().settings);
    }

    pub fn inject(&self, injection: Injection) {
        self.0.world().faults.push(injection);
    }

    /// The faults still to come.
    pub fn faults(&self) -> Vec<Injection> {
        self.0.world().faults.waiting()
    }

    pub fn clear_faults(&self) {
        self.0.world().faults.clear();
    }

    /// Adds a webhook under an id of one's own, or replaces it. Its secret gets label 0.
    pub fn add_webhook(&self, id: &str, url: &str, events: &[&str], secret: Secret) {
        let events = events.iter().map(|name| Arc::from(*name)).collect();
        self.0.world().insert(id, url, events, secret);
    }

    /// Lets `count` events happen now. Returns how many deliveries were begun.
    pub fn deliver(&self, id: &str, count: u64) -> u64 {
        traffic::happen(&self.0, id, count)
    }

    /// Events per second that happen by themselves. False: no such webhook.
    pub fn traffic(&self, id: &str, per_second: f64) -> bool {
        self.with(id, |hook| hook.traffic.per_second = per_second.clamp(0.0, 100_000.0)).is_some()
    }

    /// Stops or continues the events that happen by themselves.
    pub fn traffic_on(&self, id: &str, on: bool) -> bool {
        self.with(id, |hook| hook.traffic.on = on).is_some()
    }

    /// Somebody pastes a secret into the dashboard.
    pub fn change_by_hand(&self, id: &str, secret: Secret) -> Option<Label> {
        let mut world = self.0.world();
        let settings = world.settings;
        let hook = world.hooks.get_mut(id)?;
        hook.apply(Change { secret: Some(secret), ..Change::default() }, &settings, Instant::now());
        Some(hook.stored())
    }

    pub fn set_active(&self, id: &str, is_active: bool) -> bool {
        self.with(id, |hook| hook.is_active = is_active).is_some()
    }

    pub fn set_url(&self, id: &str, url: &str) -> bool {
        self.with(id, |hook| hook.url = url.to_owned()).is_some()
    }

    /// Deletes the webhook; its pending retries are dropped.
    pub fn delete(&self, id: &str) -> bool {
        self.with(id, |hook| hook.deleted = true).is_some()
    }

    /// Undoes a delete, as support might.
    pub fn restore(&self, id: &str) -> bool {
        self.with(id, |hook| hook.deleted = false).is_some()
    }

    /// The truth: what is stored.
    pub fn stored(&self, id: &str) -> Option<Label> {
        self.with(id, |hook| hook.stored())
    }

    /// The truth: what signs now. Several labels while a change is spreading.
    pub fn signing(&self, id: &str) -> Option<Vec<Label>> {
        self.with(id, |hook| hook.signing(Instant::now()))
    }

    /// The label of a value, if the provider has ever seen it.
    pub fn label_of(&self, id: &str, secret: &Secret) -> Option<Label> {
        self.with(id, |hook| hook.known(secret)).flatten()
    }

    /// The truth: effects of earlier requests that are still to come.
    pub fn pending_applies(&self) -> Vec<PendingApply> {
        self.0.world().pending()
    }

    /// The effects still to come come now: a late request lands exactly when a test wants it.
    pub fn apply_pending(&self) {
        self.0.world().arrive_all();
    }

    /// The effects still to come will not.
    pub fn call_off_pending(&self) {
        self.0.world().call_off_pending();
    }

    /// The newest PATCHes, oldest first.
    pub fn patches(&self) -> Vec<PatchSeen> {
        self.0.world().patches()
    }

    /// How many PATCHes have come so far; the number of the newest one.
    pub fn patch_count(&self) -> u64 {
        self.0.world().patches_seen()
    }

    /// The oldest `limit` deliveries after number `after` that are still remembered.
    pub fn deliveries(&self, after: u64, webhook: Option<&str>, limit: usize) -> Vec<Delivery> {
        self.0.world().log.after(after, webhook, limit)
    }

    pub fn totals(&self) -> Totals {
        self.0.world().log.totals()
    }

    /// Waits until every delivery that was begun has ended. False: some have not within `limit`.
    pub async fn settled(&self, limit: Duration) -> bool {
        let settled = async {
            let pending = |world: &world::World| !world.stragglers.is_empty() || world.log.pending() > 0;
            while pending(&self.0.world()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(limit, settled).await.is_ok()
    }

    /// Everything at a glance, without a secret.
    pub fn state(&self) -> State {
        let mut world = self.0.world();
        let webhooks = world.hooks.values_mut().map(WebhookState::of).collect();
        State {
            settings: world.settings,
            webhooks,
            faults: world.faults.waiting(),
            pending_applies: world.pending(),
            requests: world.requests,
            patches: world.patches_seen(),
            totals: world.log.totals(),
            pending_deliveries: world.log.pending(),
        }
    }

    fn with<T>(&self, id: &str, work: impl FnOnce(&mut hook::Hook) -> T) -> Option<T> {
        self.0.world().hooks.get_mut(id).map(work)
    }
}

/// What `GET /control/state` shows.
#[derive(Debug, Clone, Serialize)]
pub struct State {
    pub settings: Settings,
    pub webhooks: Vec<WebhookState>,
    pub faults: Vec<Injection>,
    pub pending_applies: Vec<PendingApply>,
    /// Requests to `/v1`, and those of them that were PATCHes of a webhook that exists.
    pub requests: u64,
    pub patches: u64,
    pub totals: Totals,
    pub pending_deliveries: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct WebhookState {
    pub id: String,
    pub url: String,
    pub is_active: bool,
    pub deleted: bool,
    pub traffic_on: bool,
    pub per_second: f64,
    /// How many values this webhook has seen; their labels are the numbers below this.
    pub labels: usize,
    pub stored: Label,
    pub signing: Vec<Label>,
}

impl WebhookState {
    fn of(hook: &mut hook::Hook) -> WebhookState {
        WebhookState {
            id: hook.id.to_string(),
            url: hook.url.clone(),
            is_active: hook.is_active,
            deleted: hook.deleted,
            traffic_on: hook.traffic.on,
            per_second: hook.traffic.per_second,
            labels: hook.labels(),
            stored: hook.stored(),
            signing: hook.signing(Instant::now()),
        }
    }
}
