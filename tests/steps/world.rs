//! DialNexa and a consumer in a few lines, and the daemon between them: the real one, with faulty parts.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hookturn::{
    config::{Config, Door},
    daemon::{AdoptedSecret, Alarm, Clock, Daemon, Options, Parts, Request, Status, Time},
    dialnexa::{Line, PatchReport, Provider, ProviderError, Update, Webhook},
    evidence::{Courier, Facts, PlannedRequest, Prober, Sighting},
    rotation::PatchAnswer,
    secret::{SealingKey, Secret, signature},
    steps::SystemChance,
    store::Store,
};
use sha2::{Digest, Sha256};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{
    backend::{Cellar, ID, KeystoreKind, Shelf, StoreKind},
    faulty::{Faulty, FaultyKeystore, Plan, Witness},
};

/// How much faster than the machine's the daemon's clock runs: its waits are seconds.
const HASTE: u64 = 20;

/// DialNexa: what it signs with, and every value that it was ever sent.
pub struct Dialnexa {
    signing: Mutex<Secret>,
    sent: Mutex<Vec<Secret>>,
}

impl Dialnexa {
    pub fn signing(&self) -> Secret {
        self.signing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many different values came.
    pub fn values(&self) -> usize {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self, secret: &Secret) {
        *self.signing.lock().unwrap_or_else(PoisonError::into_inner) = secret.clone();
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if !sent.iter().any(|known| known.same_as(secret)) {
            sent.push(secret.clone());
        }
    }
}

/// [`Dialnexa`] as hookturn reaches it.
struct Wire(Arc<Dialnexa>);

#[async_trait]
impl Provider for Wire {
    async fn get(&self, id: &str) -> Result<Webhook, ProviderError> {
        Ok(Webhook { id: id.to_owned(), is_active: Some(true), ..Webhook::default() })
    }

    async fn list(&self) -> Result<Vec<Webhook>, ProviderError> {
        Ok(vec![self.get(ID).await?])
    }

    async fn update(&self, id: &str, _update: &Update) -> Result<Webhook, ProviderError> {
        self.get(id).await
    }

    async fn connect(&self) -> Result<Box<dyn Line>, ProviderError> {
        Ok(Box::new(Wire(self.0.clone())))
    }
}

#[async_trait]
impl Line for Wire {
    async fn patch_secret(self: Box<Self>, _id: &str, secret: &Secret, _deadline: Duration) -> PatchReport {
        self.0.take(secret);
        PatchReport { answer: PatchAnswer::Applied, text: "200".to_owned() }
    }
}

/// The consumer: accepts every key of its keystore, and parses after that.
struct Consumer(Arc<Shelf>);

#[async_trait]
impl Courier for Consumer {
    async fn post(&self, _url: &str, request: PlannedRequest) -> Result<u16, &'static str> {
        let keys = self.0.accepted().await.map_err(|_| "it is ending")?;
        Ok(if keys.iter().any(|(_, secret)| signature::sign(secret, &request.body) == request.signature) { 400 } else { 401 })
    }
}

/// Knows both sides.
struct Onlooker {
    shelf: Arc<Shelf>,
    dialnexa: Arc<Dialnexa>,
}

#[async_trait]
impl Witness for Onlooker {
    async fn live_key_is_there(&self) -> bool {
        let signing = self.dialnexa.signing();
        self.shelf.accepted().await.is_ok_and(|keys| keys.iter().any(|(_, secret)| secret.same_as(&signing)))
    }
}

struct Fast {
    began: Instant,
    slept: Arc<AtomicU64>,
}

impl Time for Fast {
    fn boot_id(&self) -> &str {
        "this one"
    }

    fn boottime_ms(&self) -> u64 {
        awake(self.began) + self.slept.load(Ordering::Relaxed)
    }

    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// Milliseconds by the daemon's clock, without those in which the machine slept.
fn awake(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).expect("not so long") * HASTE / 1_000
}

pub struct World {
    pub plan: Plan,
    pub dialnexa: Arc<Dialnexa>,
    pub shelf: Arc<Shelf>,
    cellar: Cellar,
    config: Config,
    sealing: String,
    began: Instant,
    slept: Arc<AtomicU64>,
    delivered: AtomicU64,
    _dir: tempfile::TempDir,
}

impl World {
    pub fn new(keystore: KeystoreKind, store: StoreKind) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let config = configuration(dir.path(), keystore);
        let first = Secret::parse("whsec_the-first-one").expect("a secret");
        World {
            plan: Plan::default(),
            dialnexa: Arc::new(Dialnexa { signing: Mutex::new(first), sent: Mutex::default() }),
            shelf: Arc::new(Shelf::new(keystore, dir.path())),
            cellar: Cellar::new(store, dir.path()),
            config,
            sealing: SealingKey::generate().expect("a key").encode().to_string(),
            began: Instant::now(),
            slept: Arc::default(),
            delivered: AtomicU64::new(0),
            _dir: dir,
        }
    }

    pub async fn store(&self) -> Arc<dyn Store> {
        self.cellar.open().await
    }

    /// The machine sleeps: the boot clock has gone on when it wakes, and no process has done anything meanwhile.
    pub fn suspend(&self, time: Duration) {
        self.slept.fetch_add(u64::try_from(time.as_millis()).expect("not so long"), Ordering::Relaxed);
    }

    pub fn awake(&self) -> u64 {
        awake(self.began)
    }

    /// A daemon begins to live. `None`: a fault of the plan stopped it.
    pub async fn begin(&self) -> Option<Life> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let store = self.store().await;
        let (plan, config) = (self.plan.clone(), self.config.clone());
        let (shelf, dialnexa) = (self.shelf.clone(), self.dialnexa.clone());
        let keystore = FaultyKeystore {
            inner: shelf.keystore.clone(),
            plan: plan.clone(),
            witness: Arc::new(Onlooker { shelf: shelf.clone(), dialnexa: dialnexa.clone() }),
        };
        let parts = Parts {
            clock: Clock::new(Fast { began: self.began, slept: self.slept.clone() }),
            chance: Arc::new(SystemChance),
            sealing: SealingKey::parse(&self.sealing).expect("a key"),
            provider: Arc::new(Faulty { inner: Arc::new(Wire(dialnexa)), plan: plan.clone() }),
            prober: Prober::over(Faulty { inner: Arc::new(Consumer(shelf)), plan: plan.clone() }),
            store: Arc::new(Faulty { inner: store, plan: plan.clone() }),
            webhooks: vec![(config.webhooks[0].clone(), Box::new(keystore))],
            alarm: Alarm::Timer,
        };
        let options = Options { purpose: "test".to_owned(), only: None, doors: true, schedule: false, read_only: false };
        let building = runtime.spawn(async move { Daemon::build(&config, options, parts).await });
        let daemon = tokio::select! {
            built = building => built.expect("no panic").ok(),
            () = plan.died.notified() => None,
        };
        match daemon {
            Some(daemon) => Some(Life { daemon: Arc::new(daemon), runtime: Some(runtime) }),
            None => {
                end(runtime).await;
                None
            }
        }
    }

    /// One event happens, and its delivery goes to the consumer, which reports it. A genuine delivery is always accepted.
    pub async fn deliver(&self, life: &Life) {
        let number = self.delivered.fetch_add(1, Ordering::Relaxed);
        let body = format!(r#"{{"event":"call.completed","number":{number}}}"#);
        let signed = signature::sign(&self.dialnexa.signing(), body.as_bytes());
        let keys = self.shelf.accepted().await.expect("the keystore can be read");
        let matching = keys.iter().find(|(_, secret)| signature::sign(secret, body.as_bytes()) == signed);
        // Before the adoption there is no keystore of ours, and the consumer knows the secret by itself.
        if keys.is_empty() && !self.plan.has_begun() {
            return;
        }
        let (kid, _) = matching.expect("a genuine delivery is refused: the keystore has lost a live key");
        life.daemon.desk().sighted(Sighting {
            webhook: "billing".to_owned(),
            door: Door::Report,
            kid: *kid,
            body_sha256: Sha256::digest(&body).into(),
            accepted: Some(true),
            status: Some(200),
            replica: Some("web-1".to_owned()),
            facts: Facts::default(),
        });
    }

    pub fn first_secret(&self) -> AdoptedSecret {
        AdoptedSecret::Given(self.dialnexa.signing().expose().to_owned())
    }
}

/// A daemon in a runtime of its own: it dies whole.
pub struct Life {
    pub daemon: Arc<Daemon>,
    runtime: Option<Runtime>,
}

impl Life {
    pub async fn status(&self) -> Option<Status> {
        self.daemon.office().status().await.ok()?.into_iter().next()
    }

    /// Asks from within the life: it may die meanwhile.
    pub fn ask(&self, request: Request) -> JoinHandle<Result<(), String>> {
        let office = self.daemon.office();
        let runtime = self.runtime.as_ref().expect("alive");
        runtime.spawn(async move { office.perform("billing", request, "test").await.map(drop).map_err(|failure| failure.text) })
    }

    pub async fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            end(runtime).await;
        }
    }
}

/// A process that dies takes its threads along: what they do is over when the next one begins.
async fn end(runtime: Runtime) {
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10))).await.expect("no panic");
}

fn configuration(dir: &Path, keystore: KeystoreKind) -> Config {
    let text = format!(
        r#"
[dialnexa]
base_url = "http://127.0.0.1:9/v1"
api_key = {{ file = "api-key" }}

[store]
url = "sqlite:{}"
sealing_key = {{ file = "sealing-key" }}

[listen]
deliveries = "127.0.0.1:9"
admin = "off"
status = "off"

[[webhook]]
name = "billing"
id = "{ID}"
quarantine = "1s"
drain = "2s"
patch = {{ timeout = "5s", repeat_min = "500ms", repeat_max = "3s" }}
keystore = {}
preflight = {{ wait = "0s", probe = ["http://127.0.0.1:9/hook"] }}
verify = {{ report_token = {{ file = "report-token" }} }}
"#,
        dir.join("hookturn.db").display(),
        keystore.configured(dir),
    );
    std::fs::write(dir.join("report-token"), "a-token-that-nobody-uses-here").expect("write");
    let config = Config::parse(&dir.join("hookturn.toml"), &text).unwrap_or_else(|error| panic!("{error:?}"));
    let kind = KeystoreKind::of(&config.webhooks[0].keystore);
    assert!(kind == keystore || keystore == KeystoreKind::Memory, "{kind:?} for {keystore:?}");
    config
}
